/* Rates of a WebSocket: what passes at once, what a peer past its rate gets, and that a pause loses and reorders
 * nothing. */
#include "tls_fixture.h"

#define CLOSE(messages, bytes) ((struct rw_behavior){.messages_per_second = messages, .bytes_per_second = bytes})
#define PAUSE(messages, bytes) \
    ((struct rw_behavior){     \
        .messages_per_second = messages, .bytes_per_second = bytes, .flags = RW_BEHAVIOR_PAUSE_ON_RATE})

static void send_number(struct host *host, struct peer *peer, uint32_t number, size_t bytes) {
    uint8_t *payload = calloc(1, bytes);
    assert_non_null(payload);
    memcpy(payload, &number, sizeof number);
    peer_send_frame(host, peer, FIN_BINARY, payload, bytes);
    free(payload);
}

static void expect_number(struct host *host, uint32_t number, size_t bytes) {
    struct record *record = host_expect(host, RW_EVENT_MESSAGE);
    uint32_t got;
    assert_int_equal(record->event.bytes, bytes);
    memcpy(&got, record->payload, sizeof got);
    assert_int_equal(got, number);
}

static void expect_closed_for(struct host *host, struct peer *peer, enum rw_close_cause cause, const char *reason) {
    uint8_t payload[125] = {1008 >> 8, 1008 & 0xFF};
    memcpy(payload + 2, reason, strlen(reason));
    peer_expect_frame(host, peer, FIN_CLOSE, payload, 2 + strlen(reason));
    struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
    assert_int_equal(close.arg0, 1008);
    assert_int_equal(close.arg1, cause);
    peer_expect_end(host, peer);
    assert_int_equal(host->core->stats->ws_protocol_errors, 0);
}

/* Messages that come to the host within a number of turns, which must be numbered from *next on. */
static void take_numbers(struct host *host, uint32_t *next, size_t bytes) {
    host_turns(host, 30);
    for (; host->log_at < host->log_count && host->log[host->log_at].event.type == RW_EVENT_MESSAGE; ++*next)
        expect_number(host, *next, bytes);
}

/* What a rate lets through since start_ms, by the core's own clock: so it does not matter how slow the machine is. */
static uint32_t most_by_now(const struct host *host, uint32_t start_ms, uint32_t per_second) {
    return (uint32_t)(2 * per_second + (uint64_t)per_second * (host->core->now_ms - start_ms) / 1000);
}

/* ---------------------------------------------------------------- policy: close */

static void past_its_message_rate_a_peer_is_closed(void **state) {
    enum { RATE = 10, SENT = 60 };
    struct host *host = ws_host(state, CLOSE(RATE, 0));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint32_t start = host->core->now_ms, next = 0;
    for (uint32_t i = 0; i < SENT; i++) send_number(host, peer, i, 8);
    take_numbers(host, &next, 8);
    assert_in_range(next, 2 * RATE, most_by_now(host, start, RATE));
    if (next < SENT) { /* else the machine is so slow that the peer was within its rate */
        expect_closed_for(host, peer, RW_CLOSE_MESSAGE_RATE, "more messages a second than allowed");
        assert_int_equal(host->core->stats->closes_message_rate, 1);
    }
    assert_int_equal(host->core->stats->pauses_rate, 0);
    host_expect_silence(host);
    host_close(host);
}

static void whoever_stays_within_the_rate_goes_on_for_ever(void **state) {
    struct host *host = ws_host(state, CLOSE(10, 400));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    for (uint32_t round = 0, number = 0; round < 20; round++) {
        /* 4 in 400 ms, of 40 bytes: exactly the rate. */
        for (uint32_t i = 0; i < 4; i++, number++) {
            send_number(host, peer, number, 40);
            expect_number(host, number, 40);
        }
        host_pass_time(host, 400);
    }
    assert_int_equal(host->core->stats->closes_message_rate + host->core->stats->closes_byte_rate, 0);
    host_close(host);
}

static void past_its_byte_rate_a_peer_is_closed(void **state) {
    struct host *host = ws_host(state, CLOSE(0, 1));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    /* At rest any size passes; the debt takes hours. */
    send_number(host, peer, 0, 30000);
    expect_number(host, 0, 30000);
    host_pass_time(host, 5000);
    send_number(host, peer, 1, 4);
    expect_closed_for(host, peer, RW_CLOSE_BYTE_RATE, "more bytes a second than allowed");
    assert_int_equal(host->core->stats->closes_byte_rate, 1);
    host_close(host);
}

static void a_message_in_fragments_is_one_and_may_be_of_any_size(void **state) {
    struct host *host = ws_host(state, CLOSE(1, 10));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t piece[100] = {0};
    /* Its second fragment comes in debt, and its control frames count for nothing. */
    peer_send_frame(host, peer, RW_WS_OP_BINARY, piece, sizeof piece);
    for (uint32_t i = 0; i < 50; i++) {
        peer_send_frame(host, peer, RW_WS_OP_CONTINUATION, piece, sizeof piece);
        peer_send_frame(host, peer, FIN_PONG, piece, 3);
    }
    peer_send_frame(host, peer, 0x80 | RW_WS_OP_CONTINUATION, piece, sizeof piece);
    assert_int_equal(host_expect(host, RW_EVENT_MESSAGE)->event.bytes, 52 * sizeof piece);
    peer_send_frame(host, peer, FIN_BINARY, piece, 1);
    expect_closed_for(host, peer, RW_CLOSE_BYTE_RATE, "more bytes a second than allowed");
    host_close(host);
}

static void pings_are_counted_pongs_and_closes_are_not(void **state) {
    enum { SENT = 100 };
    struct host *host = ws_host(state, CLOSE(1, 1));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    for (uint32_t i = 0; i < SENT; i++) peer_send_frame(host, peer, FIN_PONG, "pong", 4);
    for (uint32_t i = 0; i < 2; i++) {
        peer_send_frame(host, peer, FIN_PING, "ping", 4);
        peer_expect_frame(host, peer, FIN_PONG, "ping", 4);
    }
    peer_send_frame(host, peer, FIN_PONG, "pong", 4);
    host_turns(host, 5);
    assert_int_equal(host->core->stats->ws_pongs_in, SENT + 1);
    for (uint32_t i = 0; i < SENT; i++) peer_send_frame(host, peer, FIN_PING, "", 0);
    host_turns(host, 20);
    assert_int_equal(host->core->stats->closes_message_rate, 1);
    host_expect(host, RW_EVENT_CLOSE);
    /* A peer that has used up its rate may say goodbye. */
    peer = peer_open_ws(host, 7, &open);
    for (uint32_t i = 0; i < 2; i++) peer_send_frame(host, peer, FIN_BINARY, "a", 1);
    static const uint8_t code[2] = {0x03, 0xE8};
    peer_send_frame(host, peer, FIN_CLOSE, code, 2);
    for (uint32_t i = 0; i < 2; i++) host_expect(host, RW_EVENT_MESSAGE);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1000);
    peer_expect_close_frame(host, peer, 1000);
    peer_expect_end(host, peer);
    host_close(host);
}

static void after_the_close_of_this_side_nothing_is_judged(void **state) {
    struct host *host = ws_host(state, CLOSE(1, 1));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 1000}, NULL, 0);
    peer_expect_close_frame(host, peer, 1000);
    for (uint32_t i = 0; i < 20; i++) send_number(host, peer, i, 100);
    static const uint8_t code[2] = {0x03, 0xE8};
    peer_send_frame(host, peer, FIN_CLOSE, code, 2);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1000);
    peer_expect_end(host, peer);
    assert_int_equal(host->core->stats->closes_message_rate, 0);
    host_close(host);
}

/* What peers within their rate have sent meanwhile comes all at once. */
static void a_host_that_was_blocked_blames_nobody(void **state) {
    enum { RATE = 10, BLOCKED_S = 6 };
    struct host *host = ws_host(state, CLOSE(RATE, 0));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint32_t next = 0;
    for (; next < 2 * RATE; next++) send_number(host, peer, next, 8);
    for (uint32_t i = 0; i < next; i++) expect_number(host, i, 8);
    host_turns(host, 5);
    for (uint32_t i = 0; i < BLOCKED_S * RATE; i++) send_number(host, peer, next + i, 8);
    host->core->clock_start_ms -= BLOCKED_S * 1000;
    for (uint32_t i = 0; i < BLOCKED_S * RATE; i++, next++) expect_number(host, next, 8);
    assert_int_equal(host->core->stats->closes_message_rate, 0);
    /* That was all it had: and soon it has no more at once than others. */
    host_pass_time(host, 8000);
    for (uint32_t i = 0; i < 6 * RATE; i++) send_number(host, peer, next + i, 8);
    uint32_t start = host->core->now_ms, first = next;
    take_numbers(host, &next, 8);
    assert_in_range(next - first, 2 * RATE, most_by_now(host, start - 1000, RATE));
    if (next - first < 6 * RATE)
        expect_closed_for(host, peer, RW_CLOSE_MESSAGE_RATE, "more messages a second than allowed");
    host_close(host);
}

/* ---------------------------------------------------------------- policy: pause */

static void play_out(struct host *host, struct peer *peer, uint32_t sent, uint32_t rate, size_t bytes) {
    uint32_t start = host->core->now_ms, next = 0;
    for (uint32_t i = 0; i < sent; i++) send_number(host, peer, i, bytes);
    take_numbers(host, &next, bytes);
    assert_in_range(next, 2 * rate, sent);
    while (next < sent) {
        host_pass_time(host, 400);
        uint32_t before = next;
        take_numbers(host, &next, bytes);
        assert_true(next <= most_by_now(host, start, rate));
        assert_true(next > before);
    }
    assert_true(host->core->stats->pauses_rate > 0);
    assert_int_equal(host->core->stats->closes_message_rate + host->core->stats->closes_byte_rate, 0);
    host_expect_silence(host);
}

static void a_pause_loses_and_reorders_nothing(void **state) {
    struct host *host = ws_host(state, PAUSE(50, 0));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    play_out(host, peer, 400, 50, 20);
    /* More than is received at once. */
    host_pass_time(host, 4000);
    play_out(host, peer, 200, 50, 3000);
    host_close(host);
}

static void a_pause_over_tls_does_the_same(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    host_behavior(host, 7, PAUSE(50, 0));
    struct peer *peer = tls_open(host, client13, NULL);
    peer_send_text(host, peer, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, NULL, 0);
    host_expect(host, RW_EVENT_OPEN);
    peer_expect_head(host, peer, 101);
    play_out(host, peer, 300, 50, 700);
    host_close(host);
}

static void a_debt_of_bytes_is_waited_for(void **state) {
    struct host *host = ws_host(state, PAUSE(0, 10000));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint32_t start = host->core->now_ms;
    send_number(host, peer, 0, 65000);
    send_number(host, peer, 1, 10);
    peer_send_frame(host, peer, FIN_PONG, "", 0);
    expect_number(host, 0, 65000);
    host_turns(host, 20);
    assert_int_equal(host->core->stats->pauses_rate, 1);
    /* 45,000 bytes of debt: 4.5 s, which the clock of the core makes up for. */
    while (host->log_at == host->log_count) {
        assert_int_equal(host->core->stats->ws_pongs_in, 0); /* it came behind */
        host_pass_time(host, 400);
        assert_true(host->core->now_ms - start < 60000);
    }
    assert_true(host->core->now_ms - start >= 4400);
    expect_number(host, 1, 10);
    host_turns(host, 10);
    assert_int_equal(host->core->stats->ws_pongs_in, 1);
    host_close(host);
}

static void a_peer_that_has_said_all_is_heard_to_the_end(void **state) {
    enum { SENT = 40 };
    struct host *host = ws_host(state, PAUSE(5, 0));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint32_t next = 0;
    for (uint32_t i = 0; i < SENT; i++) send_number(host, peer, i, 10);
    peer_shutdown(host, peer);
    for (uint32_t round = 0; next < SENT && round < 100; round++) {
        take_numbers(host, &next, 10);
        host_pass_time(host, 400);
    }
    take_numbers(host, &next, 10);
    assert_int_equal(next, SENT);
    struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
    assert_int_equal(close.arg0, 1006);
    assert_int_equal(close.arg1, RW_CLOSE_PEER_GONE);
    host_close(host);
}

/* A peer with a debt that would take days. */
static struct peer *pause_for_long(struct host *host, struct rw_event *open) {
    struct peer *peer = peer_open_ws(host, 7, open);
    send_number(host, peer, 0, 60000);
    expect_number(host, 0, 60000);
    uint64_t before = host->core->stats->pauses_rate;
    send_number(host, peer, 1, 10);
    for (uint32_t turn = 0; host->core->stats->pauses_rate == before && turn < TURNS_MAX; turn++) host_turn(host);
    assert_int_equal(host->core->stats->pauses_rate, before + 1);
    return peer;
}

static void a_paused_peer_is_neither_idle_nor_forgotten(void **state) {
    struct rw_behavior behavior = PAUSE(0, 1);
    behavior.idle_timeout_ms = 3000;
    behavior.ping_interval_ms = 1000;
    struct host *host = ws_host(state, behavior);
    struct rw_event open;
    struct peer *peer = pause_for_long(host, &open);
    host_pass_time(host, 30000);
    assert_int_equal(rw_core_connections(host->core), 1);
    assert_true(host->core->stats->ws_pings_out >= 20);
    /* What the host sends goes out meanwhile. */
    peer_pull(host, peer);
    peer_consume(peer, peer->in_bytes);
    host_send(host, &open, 0, "hello", 5);
    peer_expect_frame(host, peer, FIN_BINARY, "hello", 5);
    /* Its behavior changes: it is heard again, and its silence counts again. */
    behavior.bytes_per_second = 0;
    host_behavior(host, 7, behavior);
    host_pass_time(host, 12000);
    expect_number(host, 1, 10);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_IDLE);
    host_close(host);
}

static void a_paused_peer_can_be_closed(void **state) {
    struct host *host = ws_host(state, PAUSE(0, 1));
    struct rw_event open;
    struct peer *peer = pause_for_long(host, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 4000}, NULL, 0);
    peer_expect_close_frame(host, peer, 4000);
    /* Its answer stands behind messages, which are thrown away. */
    for (uint32_t i = 0; i < 10; i++) send_number(host, peer, i, 1000);
    static const uint8_t code[2] = {4000 >> 8, 4000 & 0xFF};
    peer_send_frame(host, peer, FIN_CLOSE, code, 2);
    struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
    assert_int_equal(close.arg0, 4000);
    assert_int_equal(close.arg1, RW_CLOSE_BY_HOST);
    peer_expect_end(host, peer);
    host_close(host);
}

static void the_host_may_pause_and_resume_on_top(void **state) {
    struct host *host = ws_host(state, PAUSE(10, 0));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint32_t next = 0;
    for (uint32_t i = 0; i < 60; i++) send_number(host, peer, i, 10);
    take_numbers(host, &next, 10);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
    host_turns(host, 3);
    take_numbers(host, &next, 10);
    uint32_t before = next;
    host_pass_time(host, 4000);
    take_numbers(host, &next, 10);
    assert_int_equal(next, before);
    for (uint32_t round = 0; next < 60 && round < 100; round++) {
        host_answer(host, &open, (struct rw_command){.type = round % 2 ? RW_COMMAND_PAUSE : RW_COMMAND_RESUME}, NULL,
                    0);
        host_pass_time(host, 400);
        take_numbers(host, &next, 10);
    }
    assert_int_equal(next, 60);
    host_close(host);
}

static void a_paused_peer_that_resets_is_noticed(void **state) {
    struct host *host = ws_host(state, PAUSE(0, 1));
    struct rw_event open;
    struct peer *peer = pause_for_long(host, &open);
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    peer_close(host, peer);
    host_pass_time(host, 12000);
    struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
    assert_int_equal(close.arg1, RW_CLOSE_PEER_GONE);
    assert_int_equal(rw_core_connections(host->core), 0);
    host_close(host);
}

/* ---------------------------------------------------------------- neither */

static void without_a_rate_nothing_is_counted_or_owed(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    for (uint32_t i = 0; i < 500; i++) send_number(host, peer, i, 100);
    for (uint32_t i = 0; i < 500; i++) expect_number(host, i, 100);
    /* A rate that is set later begins with all that it lets through at once. */
    host_behavior(host, 7, PAUSE(20, 0));
    for (uint32_t i = 0; i < 40; i++) send_number(host, peer, i, 100);
    for (uint32_t i = 0; i < 40; i++) expect_number(host, i, 100);
    assert_int_equal(host->core->stats->pauses_rate, 0);
    /* Nor is there a debt of what was not limited. */
    host_behavior(host, 7, CLOSE(0, 1000));
    host_pass_time(host, 2400);
    send_number(host, peer, 0, 2000);
    expect_number(host, 0, 2000);
    assert_int_equal(host->core->stats->closes_byte_rate, 0);
    host_close(host);
}

#define ON_REAL_RINGS(test)                                                                     \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING}, { \
        #test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL        \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(past_its_message_rate_a_peer_is_closed),
        ON_EVERY_RING(whoever_stays_within_the_rate_goes_on_for_ever),
        ON_EVERY_RING(past_its_byte_rate_a_peer_is_closed),
        ON_EVERY_RING(a_message_in_fragments_is_one_and_may_be_of_any_size),
        ON_EVERY_RING(pings_are_counted_pongs_and_closes_are_not),
        ON_EVERY_RING(after_the_close_of_this_side_nothing_is_judged),
        ON_EVERY_RING(a_host_that_was_blocked_blames_nobody),
        ON_EVERY_RING(a_pause_loses_and_reorders_nothing),
        ON_EVERY_RING(a_pause_over_tls_does_the_same),
        ON_EVERY_RING(a_debt_of_bytes_is_waited_for),
        ON_EVERY_RING(a_peer_that_has_said_all_is_heard_to_the_end),
        ON_EVERY_RING(a_paused_peer_is_neither_idle_nor_forgotten),
        ON_EVERY_RING(a_paused_peer_can_be_closed),
        ON_EVERY_RING(the_host_may_pause_and_resume_on_top),
        ON_REAL_RINGS(a_paused_peer_that_resets_is_noticed),
        ON_EVERY_RING(without_a_rate_nothing_is_counted_or_owed),
    };
    return cmocka_run_group_tests_name("rates of WebSockets", tests, make_certificates, free_certificates);
}
