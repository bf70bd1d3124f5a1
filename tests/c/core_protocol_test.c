/* A third protocol beside those of the product: what connection/protocol.h asks for, and nothing else, is enough to be
 * chosen by ALPN or by the listener, to be served, paused, drained and ended. It sends each line back as it came. */
#include "tls_fixture.h"

#include "connection/connection.h"
#include "http1/http.h"
#include "ws/ws.h"

#define LINES_PROTOCOL 2u

/* Its own part of the slot. */
struct lines {
    uint32_t echoed;
    uint32_t opened;
};

static struct {
    uint32_t opened, released, drained, timers, ended[RW_END_WRITE_TIMEOUT + 1];
} seen;

static struct lines *lines_of(const struct rw_slot *slot) { return (struct lines *)slot->own; }

static void open_lines(struct rw_core *core, struct rw_slot *slot) {
    static const struct lines zero;
    assert_memory_equal(lines_of(slot), &zero, sizeof zero); /* nothing is left of the protocol before */
    lines_of(slot)->opened = 1;
    slot->deadline_ms = core->now_ms + 1000;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
    seen.opened++;
}

static size_t take_lines(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    size_t at = 0;
    const uint8_t *end;
    while (!slot->state.paused_by_host && (end = memchr(bytes + at, '\n', len - at))) {
        uint32_t line = (uint32_t)(end + 1 - (bytes + at));
        uint8_t *out = rw_outbox_reserve(&core->outbox, slot, line);
        assert_non_null(out);
        memcpy(out, bytes + at, line);
        rw_connection_mark_dirty(core, slot);
        lines_of(slot)->echoed++;
        at += line;
    }
    return at;
}

static void input(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len) {
    size_t taken = take_lines(core, slot, bytes, len);
    (void)rw_connection_stash(core, slot, bytes + taken, len - taken);
}

static void serve(struct rw_core *core, struct rw_slot *slot) {
    if (!slot->input_bytes) return;
    size_t taken = take_lines(core, slot, rw_connection_input(core, slot), slot->input_bytes);
    if (taken) rw_connection_unstash(core, slot, (uint32_t)taken);
}

static void drained(struct rw_core *core, struct rw_slot *slot) { (void)core, (void)slot, seen.drained++; }
static void refuse_input(struct rw_core *core, struct rw_slot *slot) { rw_connection_terminate(core, slot); }
static void resumed(struct rw_core *core, struct rw_slot *slot) { (void)core, (void)slot; }
static void timer(struct rw_core *core, struct rw_slot *slot) { (void)core, (void)slot, seen.timers++; }
static void peer_closed(struct rw_core *core, struct rw_slot *slot) { rw_connection_finish(core, slot); }

static int drain(struct rw_core *core, struct rw_slot *slot) {
    rw_connection_finish(core, slot);
    return 0;
}

static void note_end(struct rw_slot *slot, enum rw_end_cause cause) { (void)slot, seen.ended[cause]++; }
static int tell_closed(struct rw_core *core, struct rw_slot *slot) { return (void)core, (void)slot, 1; }

static void release(struct rw_core *core, struct rw_slot *slot) {
    (void)core;
    assert_int_equal(lines_of(slot)->opened, 1);
    seen.released++;
}

static const char *const names[] = {"lines/2", "lines/1", NULL};
static const struct rw_protocol lines_protocol = {.alpn = names,
                                                  .open = open_lines,
                                                  .input = input,
                                                  .serve = serve,
                                                  .drained = drained,
                                                  .refuse_input = refuse_input,
                                                  .resumed = resumed,
                                                  .timer = timer,
                                                  .peer_closed = peer_closed,
                                                  .drain = drain,
                                                  .note_end = note_end,
                                                  .tell_closed = tell_closed,
                                                  .release = release};

static void speak(struct host *host, uint8_t first, uint8_t second) {
    memset(&seen, 0, sizeof seen);
    host->core->protocols[LINES_PROTOCOL] = &lines_protocol;
    host->core->listeners[3].protocols = (struct rw_protocol_list){{first, second, RW_PROTOCOL_NONE}};
}

static struct peer *lines_open(struct host *host, const char *offered) {
    struct peer *peer = tls_connect(host, client13, NULL);
    SSL_set_alpn_protos(tls_of(peer)->ssl, (const unsigned char *)offered, (unsigned int)strlen(offered));
    assert_true(tls_shake_hands(host, peer));
    return peer;
}

static void expect_chosen(struct peer *peer, const char *name) {
    const unsigned char *chosen;
    unsigned int bytes;
    SSL_get0_alpn_selected(tls_of(peer)->ssl, &chosen, &bytes);
    assert_int_equal(bytes, strlen(name));
    assert_memory_equal(chosen, name, bytes);
}

static void wait_until_none_is_left(struct host *host) {
    uint64_t end = test_now_ms() + 10000;
    while (rw_core_connections(host->core) && test_now_ms() < end) host_turn(host);
    assert_int_equal(rw_core_connections(host->core), 0);
}

static void leave(struct host *host, struct peer *peer) {
    peer_close(host, peer);
    wait_until_none_is_left(host);
}

static void expect_lines(struct host *host, struct peer *peer) {
    peer_send_text(host, peer, "one\ntwo\nthr");
    peer_expect_text(host, peer, "one\ntwo\n");
    peer_send_text(host, peer, "ee\n");
    peer_expect_text(host, peer, "three\n");
}

static void a_client_chooses_by_alpn_from_the_list_of_its_listener(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    speak(host, RW_HTTP_PROTOCOL, LINES_PROTOCOL);
    struct peer *peer = lines_open(host, "\x07lines/1");
    expect_chosen(peer, "lines/1");
    expect_lines(host, peer);
    assert_int_equal(host->core->stats->connections_http, 0);
    leave(host, peer);
    assert_int_equal(seen.opened, 1);
    assert_int_equal(seen.released, 1);
    assert_true(seen.drained > 0);
    /* The list's order decides, then the protocol's, and not the client's. */
    peer = lines_open(host, "\x07lines/1\x07lines/2\x08http/1.1");
    expect_chosen(peer, "http/1.1");
    get_and_answer(host, peer);
    leave(host, peer);
    speak(host, LINES_PROTOCOL, RW_HTTP_PROTOCOL);
    peer = lines_open(host, "\x08http/1.1\x07lines/1\x07lines/2");
    expect_chosen(peer, "lines/2");
    expect_lines(host, peer);
    leave(host, peer);
    peer = lines_open(host, "\x08http/1.1");
    get_and_answer(host, peer);
    leave(host, peer);
    host_close(host);
}

static void without_alpn_the_first_of_the_list_is_spoken(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    speak(host, LINES_PROTOCOL, RW_HTTP_PROTOCOL);
    struct peer *peer = peer_connect(host);
    expect_lines(host, peer);
    leave(host, peer);
    assert_int_equal(seen.released, 1);
    host_close(host);
}

static void the_host_pauses_ends_and_drains_it_and_no_command_of_another_protocol_reaches_it(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    speak(host, LINES_PROTOCOL, RW_PROTOCOL_NONE);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_CONNECT), RW_OK);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "a\n");
    struct rw_event connect = host_expect(host, RW_EVENT_CONNECT)->event;
    peer_expect_text(host, peer, "a\n");
    static const enum rw_command_type others[] = {RW_COMMAND_RESPOND, RW_COMMAND_BODY_ACK,  RW_COMMAND_UPGRADE,
                                                  RW_COMMAND_SEND,    RW_COMMAND_SUBSCRIBE, RW_COMMAND_WS_CLOSE};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct rw_command command = {
            .type = (uint16_t)others[i], .slot = connect.slot, .generation = connect.generation};
        assert_int_equal(rw_core_command(host->core, &command, (const uint8_t *)"x", 1), RW_ERR_STALE);
    }
    host_answer(host, &connect, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
    host_turns(host, 2);
    peer_send_text(host, peer, "b\n");
    peer_expect_silence(host, peer);
    host_answer(host, &connect, (struct rw_command){.type = RW_COMMAND_RESUME}, NULL, 0);
    peer_expect_text(host, peer, "b\n");
    host_pass_time(host, 1500);
    assert_true(seen.timers > 0);
    struct peer *other = peer_connect(host);
    peer_send_text(host, other, "c\n");
    host_expect(host, RW_EVENT_CONNECT);
    peer_expect_text(host, other, "c\n");
    host_answer(host, &connect, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    peer_expect_end(host, peer);
    assert_int_equal(seen.ended[RW_END_BY_HOST], 1);
    host_expect(host, RW_EVENT_DISCONNECT);
    rw_core_drain(host->core, 1001, 100, 0);
    peer_expect_end(host, other);
    host_expect(host, RW_EVENT_DISCONNECT);
    wait_until_none_is_left(host);
    assert_int_equal(seen.released, 2);
    host_close(host);
}

static void end_as(struct host *host, const struct rw_event *of, enum rw_end_cause cause) {
    struct rw_slot *slot = rw_core_slot(host->core, of->slot);
    rw_protocol_of(host->core, slot)->note_end(slot, cause);
    rw_protocol_of(host->core, slot)->note_end(slot, RW_END_WRITE_TIMEOUT); /* the first counts */
    rw_connection_terminate(host->core, slot);
}

static void the_host_hears_why_in_the_words_of_each_protocol(void **state) {
    static const struct {
        enum rw_end_cause cause;
        enum rw_abort_cause abort;
        enum rw_close_cause close;
    } cases[] = {{RW_END_NO_MEMORY, RW_ABORT_NO_MEMORY, RW_CLOSE_NO_MEMORY},
                 {RW_END_WRITE_TIMEOUT, RW_ABORT_WRITE_TIMEOUT, RW_CLOSE_WRITE_TIMEOUT},
                 {RW_END_BY_HOST, RW_ABORT_BY_HOST, RW_CLOSE_WRITE_TIMEOUT}};
    struct host *host = host_open(state, DEFAULTS);
    host_behavior(host, 0, PLAIN);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        peer_send_text(host, peer_connect(host), GET("/"));
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        end_as(host, &request, cases[i].cause);
        assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0 >> 16, cases[i].abort);
        struct rw_event open;
        peer_open_ws(host, 0, &open);
        end_as(host, &open, cases[i].cause);
        assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, cases[i].close);
    }
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_client_chooses_by_alpn_from_the_list_of_its_listener),
        ON_EVERY_RING(without_alpn_the_first_of_the_list_is_spoken),
        ON_EVERY_RING(the_host_hears_why_in_the_words_of_each_protocol),
        ON_EVERY_RING(the_host_pauses_ends_and_drains_it_and_no_command_of_another_protocol_reaches_it),
    };
    return cmocka_run_group_tests_name("protocols of the core", tests, make_certificates, free_certificates);
}
