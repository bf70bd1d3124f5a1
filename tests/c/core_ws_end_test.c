/* How a WebSocket ends: what the host has said goes out first, whole, and to a peer that reads slowly too. */
#include "core_fixture.h"
#include "ws/ws.h"

static void expect_close_of(struct host *host, struct peer *peer, uint32_t code, const char *reason,
                            enum rw_close_cause cause) {
    uint8_t payload[125] = {(uint8_t)(code >> 8), (uint8_t)code};
    memcpy(payload + 2, reason, strlen(reason));
    peer_expect_frame(host, peer, FIN_CLOSE, payload, 2 + strlen(reason));
    struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
    assert_int_equal(close.arg0, code);
    assert_int_equal(close.arg1, cause);
}

/* ---------------------------------------------------------------- a refused frame */

#define BAD(bytes) bytes, sizeof bytes - 1

static void what_was_answered_goes_out_before_the_close_of_a_refused_frame(void **state) {
    static const struct {
        uint32_t code;
        enum rw_close_cause cause;
        const char *reason, *bytes;
        size_t count;
    } cases[] = {
        {1002, RW_CLOSE_PROTOCOL_ERROR, "", BAD("\x81\x00")},
        {1002, RW_CLOSE_PROTOCOL_ERROR, "", BAD("\x80\x80\0\0\0\0")},
        {1002, RW_CLOSE_PROTOCOL_ERROR, "", BAD("\x88\x82\0\0\0\0\x03\xED")},
        {1007, RW_CLOSE_INVALID_UTF8, "text that is not UTF-8", BAD("\x81\x81\0\0\0\0\xFF")},
        {1007, RW_CLOSE_INVALID_UTF8, "text that is not UTF-8",
         BAD("\x81\xE4\0\0\0\0"
             "abc\xC0")},
        {1007, RW_CLOSE_INVALID_UTF8, "text that is not UTF-8",
         BAD("\x81\x82\0\0\0\0"
             "a\xC3")},
        {1009, RW_CLOSE_TOO_BIG, "", BAD("\x82\xFE\x03\xE9\0\0\0\0")},
        {1009, RW_CLOSE_TOO_BIG, "", BAD("\x02\x81\0\0\0\0x\x80\xFE\x03\xE8\0\0\0\0")},
    };
    struct host *host =
        ws_host(state, (struct rw_behavior){.max_payload_bytes = 1000, .flags = RW_BEHAVIOR_WANTS_PING});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rw_event open;
        struct peer *peer = peer_open_ws(host, 7, &open);
        uint8_t bytes[256];
        size_t count = ws_client_frame(bytes, FIN_TEXT, "one", 3);
        count += ws_client_frame(bytes + count, FIN_PING, "?", 1);
        memcpy(bytes + count, cases[i].bytes, cases[i].count);
        count += cases[i].count;
        /* Nothing behind the bad frame counts. */
        count += ws_client_frame(bytes + count, FIN_TEXT, "not heard", 9);
        peer_send(host, peer, bytes, count);
        (void)host_expect(host, RW_EVENT_MESSAGE);
        host_send(host, &open, RW_SEND_TEXT, "answer to one", 13);
        (void)host_expect(host, RW_EVENT_PING);
        host_send(host, &open, RW_SEND_TEXT, "answer to the ping", 18);
        peer_expect_frame(host, peer, FIN_PONG, "?", 1);
        peer_expect_frame(host, peer, FIN_TEXT, "answer to one", 13);
        peer_expect_frame(host, peer, FIN_TEXT, "answer to the ping", 18);
        expect_close_of(host, peer, cases[i].code, cases[i].reason, cases[i].cause);
        peer_expect_end(host, peer);
        host_expect_silence(host);
    }
    assert_int_equal(host->core->stats->ws_too_big, 2);
    assert_int_equal(host->core->stats->ws_protocol_errors, sizeof cases / sizeof *cases - 2);
    host_close(host);
}

static void what_was_answered_goes_out_before_the_close_for_a_rate(void **state) {
    enum { RATE = 2 }; /* as many again may come at once */
    struct host *host = ws_host(state, (struct rw_behavior){.messages_per_second = RATE});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t bytes[1024];
    size_t count = 0;
    for (uint32_t i = 0; i < 50; i++) count += ws_client_frame(bytes + count, FIN_TEXT, "x", 1);
    peer_send(host, peer, bytes, count);
    uint32_t heard = 0;
    for (struct record *record = host_expect(host, RW_EVENT_MESSAGE); record && record->event.type == RW_EVENT_MESSAGE;
         record = host_poll(host)) {
        heard++;
        host_send(host, &open, RW_SEND_TEXT, "y", 1);
    }
    assert_true(heard >= 2 * RATE);
    assert_int_equal(host->log[host->log_at - 1].event.type, RW_EVENT_CLOSE);
    assert_int_equal(host->log[host->log_at - 1].event.arg1, RW_CLOSE_MESSAGE_RATE);
    for (uint32_t i = 0; i < heard; i++) peer_expect_frame(host, peer, FIN_TEXT, "y", 1);
    static const char reason[] = "\x03\xF0more messages a second than allowed";
    peer_expect_frame(host, peer, FIN_CLOSE, reason, sizeof reason - 1);
    peer_expect_end(host, peer);
    host_close(host);
}

static void a_greeting_goes_out_before_the_close_of_a_refused_first_frame(void **state) {
    static const char *const ends[] = {"\x83\x80\0\0\0\0", "\x88\x80\0\0\0\0"};
    for (size_t i = 0; i < 2; i++) {
        struct host *host = ws_host(state, PLAIN);
        struct peer *peer = peer_connect(host);
        uint8_t bytes[512];
        size_t count = sizeof WS_REQUEST - 1;
        memcpy(bytes, WS_REQUEST, count);
        memcpy(bytes + count, ends[i], 6);
        peer_send(host, peer, bytes, count + 6);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, NULL, 0);
        struct rw_event open = host_expect(host, RW_EVENT_OPEN)->event;
        host_send(host, &open, RW_SEND_TEXT, "welcome", 7);
        peer_expect_head(host, peer, 101);
        peer_expect_frame(host, peer, FIN_TEXT, "welcome", 7);
        peer_expect_close_frame(host, peer, i == 0 ? 1002 : 0);
        (void)host_expect(host, RW_EVENT_CLOSE);
        peer_expect_end(host, peer);
        host_close(host);
    }
}

static void a_host_that_closes_before_the_refusal_is_due_has_closed(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t bytes[64];
    size_t count = ws_client_frame(bytes, FIN_TEXT, "one", 3);
    bytes[count] = 0x83;
    peer_send(host, peer, bytes, count + 1);
    (void)host_expect(host, RW_EVENT_MESSAGE);
    host_send(host, &open, RW_SEND_TEXT, "bye", 3);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 4000}, "", 0);
    peer_expect_frame(host, peer, FIN_TEXT, "bye", 3);
    peer_expect_close_frame(host, peer, 4000);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_BY_HOST);
    peer_expect_end(host, peer);
    assert_int_equal(peer->in_bytes, 0);
    host_close(host);
}

static void a_peer_that_resets_before_the_refusal_is_due_leaves_nothing(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t bytes[64];
    size_t count = ws_client_frame(bytes, FIN_TEXT, "one", 3);
    bytes[count] = 0x83;
    peer_send(host, peer, bytes, count + 1);
    (void)host_expect(host, RW_EVENT_MESSAGE);
    peer_close(host, peer);
    host_send(host, &open, RW_SEND_TEXT, "to nobody", 9);
    (void)host_expect(host, RW_EVENT_CLOSE);
    host_expect_silence(host);
    host_close(host);
}

/* ---------------------------------------------------------------- a slow reader */

/* As host_pass_time, without a wait in each step: much time passes here. */
static void pass_time(struct host *host, uint32_t ms) {
    for (uint32_t passed = 0; passed < ms; passed += 400) {
        host->core->clock_start_ms -= 400;
        host_turn_wait(host, 0);
    }
    host_turns(host, 2);
}

/* The peer reads `bytes` more, and no more: the simulated one lets so much through, the real one leaves the rest in its
 * kernel. */
static void read_some(struct host *host, struct peer *peer, size_t bytes) {
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, bytes);
    size_t wanted = peer->in_bytes + bytes;
    uint64_t end = test_now_ms() + 10000;
    while (peer->in_bytes < wanted && test_now_ms() < end && !peer->ended) {
        host_turn(host);
        if (host_is_sim(host)) {
            peer_pull(host, peer);
            continue;
        }
        peer_make_room(peer);
        size_t left = wanted - peer->in_bytes;
        ssize_t got = recv(peer->fd, peer->in + peer->in_bytes, left < 65536 ? left : 65536, 0);
        if (got > 0) peer->in_bytes += (size_t)got;
        else if (got == 0) peer->ended = 1;
    }
    assert_true(peer->in_bytes >= wanted);
}

/* Far longer than any test takes: real time counts as well. */
enum { LONG = 8 << 20, CLOSE_TIMEOUT_MS = 60000 };

static struct host *slow_host(void **state, uint32_t least_rate, struct rw_behavior behavior) {
    struct host *host = host_open(state, &(struct rw_core_config){.write_timeout_ms = 100 * CLOSE_TIMEOUT_MS,
                                                                  .min_bytes_per_second = least_rate});
    host_behavior(host, 7, behavior);
    return host;
}

/* A peer that does not read on its own, and a message for it that does not fit anywhere. */
static struct peer *open_slow_reader(struct host *host, struct rw_event *open, size_t bytes) {
    struct peer *peer = peer_connect_to(host, 32768);
    peer_send_text(host, peer, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, NULL, 0);
    *open = host_expect(host, RW_EVENT_OPEN)->event;
    peer_expect_head(host, peer, 101);
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, 0);
    uint8_t *payload = calloc(1, bytes);
    assert_non_null(payload);
    host_send(host, open, 0, payload, bytes);
    free(payload);
    return peer;
}

static void a_close_waits_for_a_peer_that_reads_what_is_in_front_of_it(void **state) {
    enum { STEP = 1 << 20 };
    struct host *host = slow_host(state, 0, (struct rw_behavior){.close_timeout_ms = CLOSE_TIMEOUT_MS});
    struct rw_event open;
    struct peer *peer = open_slow_reader(host, &open, LONG);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 1000}, "", 0);
    size_t whole = 10 + LONG + 4;
    while (whole - peer->in_bytes > STEP) {
        pass_time(host, CLOSE_TIMEOUT_MS / 2);
        read_some(host, peer, STEP);
    }
    pass_time(host, CLOSE_TIMEOUT_MS / 2);
    read_some(host, peer, whole - peer->in_bytes);
    peer_consume(peer, whole - 4);
    peer_expect_close_frame(host, peer, 1000);
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    host_expect_silence(host);
    peer_send_frame(host, peer, FIN_CLOSE, "\x03\xE8", 2);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1000);
    peer_expect_end(host, peer);
    host_close(host);
}

static void a_close_does_not_wait_for_a_peer_that_reads_nothing(void **state) {
    struct host *host = slow_host(state, 0, (struct rw_behavior){.close_timeout_ms = CLOSE_TIMEOUT_MS});
    struct rw_event open;
    (void)open_slow_reader(host, &open, LONG);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 1000}, "", 0);
    pass_time(host, CLOSE_TIMEOUT_MS * 3 / 4);
    host_expect_silence(host);
    pass_time(host, CLOSE_TIMEOUT_MS); /* it may have read some between two looks at the beginning */
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1006);
    assert_int_equal(host->core->stats->timeouts_write, 1);
    host_close(host);
}

static void a_close_does_not_wait_for_a_peer_that_reads_less_than_the_least_rate(void **state) {
    enum { RATE = 1024, BYTES = 4 * CLOSE_TIMEOUT_MS / 1000 * RATE };
    struct host *host = slow_host(state, RATE, (struct rw_behavior){.close_timeout_ms = CLOSE_TIMEOUT_MS});
    struct rw_event open;
    struct peer *peer = open_slow_reader(host, &open, BYTES);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 1000}, "", 0);
    uint32_t passed = 0;
    for (; host->log_at == host->log_count && passed < 10 * BYTES / RATE * 1000; passed += 10000) {
        pass_time(host, 10000);
        if (host->log_at == host->log_count) read_some(host, peer, 16);
    }
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1006);
    assert_in_range(passed, BYTES / RATE * 1000 - CLOSE_TIMEOUT_MS, BYTES / RATE * 1000 + 3 * CLOSE_TIMEOUT_MS);
    host_close(host);
}

static void a_peer_that_reads_what_waits_for_it_is_not_silent(void **state) {
    enum { STEP = 1 << 20, IDLE_MS = 60000 };
    struct host *host = slow_host(state, 0, (struct rw_behavior){.idle_timeout_ms = IDLE_MS});
    struct rw_event open;
    struct peer *peer = open_slow_reader(host, &open, LONG);
    size_t whole = 10 + LONG;
    while (whole > peer->in_bytes) {
        pass_time(host, IDLE_MS / 6);
        read_some(host, peer, whole - peer->in_bytes < STEP ? whole - peer->in_bytes : STEP);
    }
    host_expect_silence(host);
    pass_time(host, IDLE_MS);
    pass_time(host, IDLE_MS / 2);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_IDLE);
    host_close(host);
}

/* ---------------------------------------------------------------- a half-closed peer */

static void what_was_sent_to_a_half_closed_peer_does_not_end_within_a_frame(void **state) {
    struct host *host = slow_host(state, 0, PLAIN);
    struct rw_event open;
    struct peer *peer = open_slow_reader(host, &open, LONG);
    peer_shutdown(host, peer);
    struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
    assert_int_equal(close.arg0, 1006);
    assert_int_equal(close.arg1, RW_CLOSE_PEER_GONE);
    host_send(host, &open, 0, "too late", 8);
    read_some(host, peer, 10 + LONG);
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    peer_expect_end(host, peer);
    assert_int_equal(peer->in_bytes, 10 + LONG);
    host_close(host);
}

static void a_message_in_front_of_the_end_of_the_stream_is_answered(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    peer_send_frame(host, peer, FIN_TEXT, "one", 3);
    peer_shutdown(host, peer);
    (void)host_expect(host, RW_EVENT_MESSAGE);
    host_send(host, &open, RW_SEND_TEXT, "answer", 6);
    peer_expect_frame(host, peer, FIN_TEXT, "answer", 6);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_PEER_GONE);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(what_was_answered_goes_out_before_the_close_of_a_refused_frame),
        ON_EVERY_RING(what_was_answered_goes_out_before_the_close_for_a_rate),
        ON_EVERY_RING(a_greeting_goes_out_before_the_close_of_a_refused_first_frame),
        ON_EVERY_RING(a_host_that_closes_before_the_refusal_is_due_has_closed),
        ON_EVERY_RING(a_peer_that_resets_before_the_refusal_is_due_leaves_nothing),
        ON_EVERY_RING(a_close_waits_for_a_peer_that_reads_what_is_in_front_of_it),
        ON_EVERY_RING(a_close_does_not_wait_for_a_peer_that_reads_nothing),
        ON_EVERY_RING(a_peer_that_reads_what_waits_for_it_is_not_silent),
        ON_SIM(a_close_does_not_wait_for_a_peer_that_reads_less_than_the_least_rate),
        ON_EVERY_RING(what_was_sent_to_a_half_closed_peer_does_not_end_within_a_frame),
        ON_EVERY_RING(a_message_in_front_of_the_end_of_the_stream_is_answered),
    };
    return cmocka_run_group_tests_name("how a WebSocket ends", tests, NULL, NULL);
}
