/* A drain that gives idle connections a time: no request that a client could not know to be too late goes without its
 * answer. */
#include "connection/connection.h"
#include "tls_fixture.h"

#define GET_TWO GET("/one") GET("/two")
#define IDLE_MS 2000u

static void answer(struct host *host, struct peer *peer, const char *body) {
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    host_respond(host, &request->event, 200, "", body);
    peer_expect_response(host, peer, 200, body);
}

static int says_close(const struct peer *peer) { return peer_head_has(peer, "Connection: close"); }

/* A connection that has had a response and is idle. */
static struct peer *idle_peer(struct host *host) {
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    answer(host, peer, "first");
    assert_false(says_close(peer));
    return peer;
}

static void assert_open(struct host *host, struct peer *peer) {
    peer_expect_silence(host, peer);
    assert_int_equal(peer->ended, 0);
}

static void idle_connections_close_when_they_have_been_idle_for_so_long(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host), *untouched = peer_connect(host);
    host_turns(host, 5);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    host_pass_time(host, IDLE_MS / 2);
    assert_open(host, peer);
    assert_open(host, untouched);
    assert_int_equal(rw_core_connections(host->core), 2);
    host_pass_time(host, IDLE_MS);
    peer_expect_end(host, peer);
    peer_expect_end(host, untouched);
    assert_int_equal(host->core->stats->timeouts_idle + host->core->stats->timeouts_head, 0);
    host_close(host);
}

static void what_was_idle_for_longer_closes_at_once(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host);
    host_pass_time(host, IDLE_MS + 1000);
    struct peer *fresh = idle_peer(host);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    host_pass_time(host, 400);
    peer_expect_end(host, peer);
    assert_open(host, fresh);
    host_close(host);
}

static void a_request_that_comes_meanwhile_is_answered_and_told_of_the_end(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    host_pass_time(host, IDLE_MS / 2);
    peer_send_text(host, peer, GET("/"));
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    host_pass_time(host, 2 * IDLE_MS); /* a handler may take its time */
    host_respond(host, &request->event, 200, "", "last");
    peer_expect_response(host, peer, 200, "last");
    assert_true(says_close(peer));
    peer_expect_end(host, peer);
    host_close(host);
}

static void a_head_that_has_come_in_part_has_its_time(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    peer_send_text(host, peer, "GET / HTTP/1.1\r\nHo");
    host_turns(host, 5);
    host_pass_time(host, 2 * IDLE_MS);
    peer_send_text(host, peer, "st: a\r\n\r\n");
    answer(host, peer, "late");
    assert_true(says_close(peer));
    peer_expect_end(host, peer);
    host_close(host);
}

/* RFC 9112 §9.6: whoever says close does not serve what stands behind it. */
static void what_is_pipelined_behind_the_last_response_is_not_served(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    peer_send_text(host, peer, GET_TWO);
    answer(host, peer, "one");
    assert_true(says_close(peer));
    peer_expect_end(host, peer);
    host_expect_silence(host);
    host_close(host);
}

static void a_response_that_had_begun_does_not_end_the_connection_unsaid(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host), *waiting = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event begun = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &begun,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = 4}, "",
        0);
    peer_expect_head(host, peer, 200);
    assert_false(says_close(peer));
    peer_send_text(host, waiting, GET("/"));
    struct rw_event received = host_expect(host, RW_EVENT_REQUEST)->event;
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    /* The one whose head was still to be written says it. */
    host_respond(host, &received, 200, "", "last");
    peer_expect_response(host, waiting, 200, "last");
    assert_true(says_close(waiting));
    peer_expect_end(host, waiting);
    /* The other is told with its next request. */
    host_pass_time(host, 2 * IDLE_MS);
    host_answer(host, &begun, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "body", 4);
    host_answer(host, &begun, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_text(host, peer, "body");
    host_pass_time(host, IDLE_MS / 2);
    assert_open(host, peer);
    peer_send_text(host, peer, GET("/"));
    answer(host, peer, "next");
    assert_true(says_close(peer));
    peer_expect_end(host, peer);
    host_close(host);
}

static void without_a_time_a_response_that_had_begun_is_the_last(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event begun = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &begun,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = 4}, "",
        0);
    peer_expect_head(host, peer, 200);
    rw_core_drain(host->core, 1012, 100, 0);
    host_answer(host, &begun, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "body", 4);
    host_answer(host, &begun, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_text(host, peer, "body");
    peer_expect_end(host, peer);
    host_close(host);
}

/* A body that the host does not want is read to its end, and then the connection is idle like any other. */
static void a_body_that_is_thrown_away_ends_with_an_idle_connection(void **state) {
    for (uint32_t idle_ms = 0; idle_ms <= IDLE_MS; idle_ms += IDLE_MS) {
        struct host *host = host_open(state, DEFAULTS);
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_expect(host, RW_EVENT_BODY);
        host_respond(host, &request, 200, "", "enough");
        peer_expect_response(host, peer, 200, "enough");
        assert_false(says_close(peer));
        rw_core_drain(host->core, 1012, 100, idle_ms);
        host_turns(host, 3);
        peer_send_text(host, peer, "67890");
        host_turns(host, 3);
        host_pass_time(host, 2 * IDLE_MS);
        peer_expect_end(host, peer);
        host_close(host);
    }
}

static void connections_that_come_during_a_drain_are_served_like_the_others(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    struct peer *peer = peer_connect(host), *silent = peer_connect(host);
    host_turns(host, 5);
    host_pass_time(host, IDLE_MS / 2);
    peer_send_text(host, peer, GET("/"));
    answer(host, peer, "welcome");
    assert_true(says_close(peer));
    peer_expect_end(host, peer);
    host_pass_time(host, IDLE_MS);
    peer_expect_end(host, silent);
    host_close(host);
}

static void a_websocket_that_opens_during_a_drain_is_let_in_and_closed_with_its_code(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *old = peer_open_ws(host, 7, &open), *http = idle_peer(host);
    rw_core_drain(host->core, 1012, 10000, IDLE_MS);
    peer_send_text(host, http, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, NULL, 0);
    host_expect(host, RW_EVENT_OPEN);
    peer_expect_head(host, http, 101);
    host_pass_time(host, 11000);
    peer_expect_close_frame(host, old, 1012);
    peer_expect_close_frame(host, http, 1012);
    host_close(host);
}

/* What has come and was not read yet when the time is over counts as a request. */
static void a_request_that_lies_in_the_socket_keeps_the_connection(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host);
    struct rw_slot *slot = rw_core_slot(host->core, 0);
    assert_int_equal(slot->state.phase, RW_PHASE_OPEN);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    slot->state.paused_by_core = 1; /* as if the receive had come too late */
    rw_connection_update_receive(host->core, slot);
    host_turns(host, 5);
    peer_send_text(host, peer, GET("/"));
    host_pass_time(host, 2 * IDLE_MS);
    assert_int_equal(slot->state.phase, RW_PHASE_OPEN);
    slot->state.paused_by_core = 0;
    rw_connection_update_receive(host->core, slot);
    answer(host, peer, "just in time");
    assert_true(says_close(peer));
    peer_expect_end(host, peer);
    host_close(host);
}

static void a_connection_that_the_host_has_paused_closes_all_the_same(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
    host_respond(host, &request, 200, "", "first");
    peer_expect_response(host, peer, 200, "first");
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    peer_send_text(host, peer, GET("/"));
    host_pass_time(host, 2 * IDLE_MS);
    peer_expect_end(host, peer);
    host_close(host);
}

/* A client whose request crosses our FIN reads the end of the stream, and no reset. */
static void a_request_too_late_meets_an_orderly_end(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    const struct rw_slot *slot = rw_core_slot(host->core, 0);
    for (uint32_t passed = 0; slot->state.phase == RW_PHASE_OPEN && passed < 2 * IDLE_MS; passed += 400)
        host_pass_time(host, 400);
    assert_int_equal(slot->state.phase, RW_PHASE_LINGERING);
    peer_send_text(host, peer, GET("/"));
    host_turns(host, 5);
    host_expect_silence(host);
    uint8_t byte;
    if (!host_is_sim(host)) {
        assert_int_equal(recv(peer->fd, &byte, 1, 0), 0);
        assert_int_equal(send(peer->fd, "x", 1, MSG_NOSIGNAL), 1);
        host_turns(host, 5);
        assert_int_equal(recv(peer->fd, &byte, 1, 0), 0);
    }
    peer_close(host, peer);
    host_close(host);
}

/* A client that reads a long response is not idle: its next request comes when it has read it. */
static void who_still_reads_a_response_is_not_idle(void **state) {
    enum { BYTES = 12 << 20 };
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect_to(host, 65536);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    uint8_t *body = calloc(1, BYTES);
    assert_non_null(body);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND, .arg0 = 200}, body, BYTES);
    host_turns(host, 20);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    const struct rw_slot *slot = rw_core_slot(host->core, request.slot);
    peer_expect_head(host, peer, 200);
    for (size_t got = 0; got < BYTES;) {
        /* Most of it by half an idle time each: what lies in the socket buffers in the end is not known here. */
        if (slot->out_bytes) host_pass_time(host, IDLE_MS / 2);
        size_t part = BYTES - got < BYTES / 8 ? BYTES - got : BYTES / 8;
        peer_wait_bytes(host, peer, part);
        got += peer->in_bytes;
        peer_consume(peer, peer->in_bytes);
    }
    free(body);
    peer_send_text(host, peer, GET("/"));
    answer(host, peer, "next");
    assert_true(says_close(peer));
    peer_expect_end(host, peer);
    host_close(host);
}

/* But one that takes nothing at all has the time that every output has. */
static void who_takes_nothing_of_a_response_is_cut_off(void **state) {
    enum { BYTES = 12 << 20 };
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect_to(host, 65536);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    uint8_t *body = calloc(1, BYTES);
    assert_non_null(body);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND, .arg0 = 200}, body, BYTES);
    free(body);
    host_turns(host, 20);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    host_pass_time(host, RW_WRITE_TIMEOUT_MS_DEFAULT + 5000);
    assert_int_equal(rw_core_connections(host->core), 0);
    assert_int_equal(host->core->stats->timeouts_write, 1);
    host_close(host);
}

static void a_second_drain_may_leave_less_time_than_the_first(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = idle_peer(host), *other = idle_peer(host);
    rw_core_drain(host->core, 1012, 100, 60000);
    host_pass_time(host, 2 * IDLE_MS);
    assert_open(host, peer);
    rw_core_drain(host->core, 1001, 100, IDLE_MS);
    host_pass_time(host, 400);
    peer_expect_end(host, peer);
    peer_expect_end(host, other);
    host_close(host);
}

static void tls_connections_drain_the_same_way(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *idle = tls_open(host, client13, NULL), *busy = tls_open(host, client12, NULL);
    get_and_answer(host, idle);
    get_and_answer(host, busy);
    rw_core_drain(host->core, 1012, 100, IDLE_MS);
    host_pass_time(host, IDLE_MS / 2);
    peer_send_text(host, busy, GET("/"));
    answer(host, busy, "last");
    assert_true(says_close(busy));
    peer_expect_end(host, busy);
    assert_open(host, idle);
    host_pass_time(host, IDLE_MS);
    peer_expect_end(host, idle);
    host_close(host);
}

#define ON_REAL_RINGS(test)                                                                     \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING}, { \
        #test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL        \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(idle_connections_close_when_they_have_been_idle_for_so_long),
        ON_EVERY_RING(what_was_idle_for_longer_closes_at_once),
        ON_EVERY_RING(a_request_that_comes_meanwhile_is_answered_and_told_of_the_end),
        ON_EVERY_RING(a_head_that_has_come_in_part_has_its_time),
        ON_EVERY_RING(what_is_pipelined_behind_the_last_response_is_not_served),
        ON_EVERY_RING(a_response_that_had_begun_does_not_end_the_connection_unsaid),
        ON_EVERY_RING(without_a_time_a_response_that_had_begun_is_the_last),
        ON_EVERY_RING(a_body_that_is_thrown_away_ends_with_an_idle_connection),
        ON_EVERY_RING(connections_that_come_during_a_drain_are_served_like_the_others),
        ON_EVERY_RING(a_websocket_that_opens_during_a_drain_is_let_in_and_closed_with_its_code),
        ON_REAL_RINGS(a_request_that_lies_in_the_socket_keeps_the_connection),
        ON_EVERY_RING(a_connection_that_the_host_has_paused_closes_all_the_same),
        ON_EVERY_RING(a_request_too_late_meets_an_orderly_end),
        ON_REAL_RINGS(who_still_reads_a_response_is_not_idle),
        ON_REAL_RINGS(who_takes_nothing_of_a_response_is_cut_off),
        ON_EVERY_RING(a_second_drain_may_leave_less_time_than_the_first),
        ON_EVERY_RING(tls_connections_drain_the_same_way),
    };
    return cmocka_run_group_tests_name("the core drains", tests, make_certificates, free_certificates);
}
