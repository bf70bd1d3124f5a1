/* Connections through the whole core, between request and WebSocket: answers that take their time, pausing, what an
 * upgrade looks like on the wire, why a WebSocket has ended, and the questions that the host asks about one. */
#include "core_fixture.h"
#include "http1/http.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"

static int32_t host_call(struct host *host, const struct rw_event *about, struct rw_command command, const void *data,
                         uint64_t bytes) {
    host_flush(host);
    command.slot = about->slot;
    command.generation = about->generation;
    command.request = about->request;
    command.stream = about->stream;
    return rw_core_command(host->core, &command, data, bytes);
}

/* ---------------------------------------------------------------- the upgrade */

static void an_upgrade_has_the_fields_of_the_host_on_both_sides_of_its_own(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    static const char data[] = "permessage-deflateX-A: b\r\nSec-WebSocket-Protocol: chat\r\n";
    assert_int_equal(host_call(host, &request,
                               (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7 | 8u << 8, .arg1 = 18}, data,
                               sizeof data - 1),
                     RW_OK);
    host_expect(host, RW_EVENT_OPEN);
    peer_expect_head(host, peer, 101);
    char *date = strstr(peer->head, "\r\nDate: ");
    assert_non_null(date);
    assert_string_equal(date + 8 + 29, "\r\n\r\n");
    date[8] = 0;
    assert_string_equal(peer->head,
                        "HTTP/1.1 101 Switching Protocols\r\nX-A: b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: " WS_ACCEPT "\r\nSec-WebSocket-Protocol: chat\r\nDate: ");
    host_close(host);
}

static void an_upgrade_whose_parts_exceed_its_data_is_refused(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    struct rw_command upgrade = {.type = RW_COMMAND_UPGRADE, .arg0 = 7 | 5u << 8, .arg1 = 5};
    assert_int_equal(host_call(host, &request, upgrade, "123456789", 9), RW_ERR_INVALID);
    upgrade.arg0 = 7 | 0xFFFFFFu << 8;
    assert_int_equal(host_call(host, &request, upgrade, "123456789", 9), RW_ERR_INVALID);
    upgrade = (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7, .arg1 = UINT32_MAX};
    assert_int_equal(host_call(host, &request, upgrade, "123456789", 9), RW_ERR_INVALID);
    upgrade.arg1 = 0;
    assert_int_equal(host_call(host, &request, upgrade, NULL, 0), RW_OK);
    assert_int_equal(host_call(host, &request, upgrade, NULL, 0), RW_ERR_STALE);
    peer_expect_head(host, peer, 101);
    peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    host_expect(host, RW_EVENT_OPEN);
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    assert_int_equal(host_call(host, &request, upgrade, NULL, 0), RW_ERR_STALE); /* no handshake */
    host_close(host);
}

static void a_quiet_upgrade_has_no_open_event_and_loses_no_message(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    peer_send_frame(host, peer, FIN_TEXT, "early", 5);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_turns(host, 3);
    assert_int_equal(host_call(host, &request,
                               (struct rw_command){.type = RW_COMMAND_UPGRADE, .flags = RW_UPGRADE_QUIET, .arg0 = 7},
                               NULL, 0),
                     RW_OK);
    struct record *message = host_expect(host, RW_EVENT_MESSAGE);
    assert_string_equal((char *)message->payload, "early");
    host_send(host, &message->event, RW_SEND_TEXT, "hi", 2);
    peer_expect_head(host, peer, 101);
    peer_expect_frame(host, peer, FIN_TEXT, "hi", 2);
    peer_close(host, peer);
    host_expect(host, RW_EVENT_CLOSE);
    /* One that ends at once is told of its end alone. */
    peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .flags = RW_UPGRADE_QUIET, .arg0 = 7},
                NULL, 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_BY_HOST);
    host_expect_silence(host);
    host_close(host);
}

/* The host asks somebody else first, and the client does not wait for the answer. */
static void an_upgrade_may_be_answered_much_later_and_what_came_meanwhile_is_bounded(void **state) {
    enum { MESSAGES = 3000, BYTES = 1000 };
    struct host *host = ws_host(state, (struct rw_behavior){.idle_timeout_ms = 1000});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    static uint8_t payload[BYTES], frames[MESSAGES * (BYTES + 14)];
    size_t total = 0, at = 0;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        memcpy(payload, &i, sizeof i);
        total += ws_client_frame(frames + total, FIN_BINARY, payload, BYTES);
    }
    if (host_is_sim(host)) {
        peer_send(host, peer, frames, total);
        at = total;
    }
    const struct rw_slot *slot = rw_core_slot(host->core, request.slot);
    for (uint32_t turn = 0; turn < 100; turn++) {
        ssize_t took = at < total ? send(peer->fd, frames + at, total - at, MSG_NOSIGNAL) : 0;
        if (took > 0) at += (size_t)took;
        host_turn(host);
    }
    assert_true(slot->state.paused_by_core && !slot->state.recv_armed);
    if (!host_is_sim(host)) assert_true(slot->input_bytes < RW_RECV_BUFFERS_DEFAULT * RW_RECV_BUFFER_BYTES_DEFAULT);
    host_pass_time(host, 60000);
    host_expect_silence(host);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, NULL, 0);
    host_expect(host, RW_EVENT_OPEN);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        while (host->log_at == host->log_count) {
            ssize_t took = at < total ? send(peer->fd, frames + at, total - at, MSG_NOSIGNAL) : 0;
            if (took > 0) at += (size_t)took;
            host_turn(host);
        }
        struct record *message = host_expect(host, RW_EVENT_MESSAGE);
        assert_int_equal(message->event.bytes, BYTES);
        assert_memory_equal(message->payload, &i, sizeof i);
    }
    peer_expect_head(host, peer, 101);
    host_close(host);
}

/* ---------------------------------------------------------------- pausing a request */

static void a_paused_body_does_not_time_out_and_goes_on(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.body_timeout_ms = 3000});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nab");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    assert_string_equal((char *)host_expect(host, RW_EVENT_BODY)->payload, "ab");
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
    host_turns(host, 3);
    peer_send_text(host, peer, "cd");
    host_pass_time(host, 20000);
    host_expect_silence(host);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESUME}, NULL, 0);
    assert_string_equal((char *)host_expect(host, RW_EVENT_BODY)->payload, "cd");
    host_pass_time(host, 2400); /* the time counts from there */
    peer_send_text(host, peer, "ef");
    assert_string_equal((char *)host_expect(host, RW_EVENT_BODY)->payload, "ef");
    assert_int_equal(host->core->stats->timeouts_body, 0);
    host_pass_time(host, 8000);
    peer_expect_head(host, peer, 408);
    assert_int_equal(host->core->stats->timeouts_body, 1);
    host_close(host);
}

/* All of it was sent before the client closed its side: it waits in the kernel. */
static void a_paused_body_survives_the_half_close_behind_it(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.body_timeout_ms = 3000});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_expect(host, RW_EVENT_BODY);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
    host_turns(host, 3);
    peer_send_text(host, peer, "cd");
    peer_shutdown(host, peer);
    host_pass_time(host, 20000);
    host_expect_silence(host);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESUME}, NULL, 0);
    struct record *body = host_expect(host, RW_EVENT_BODY);
    assert_string_equal((char *)body->payload, "cd");
    assert_true(body->event.flags & RW_BODY_END);
    host_respond(host, &request, 200, "", "thanks");
    peer_expect_response(host, peer, 200, "thanks");
    host_close(host);
}

static void bodies_may_be_as_long_as_a_double_counts_exactly(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.max_body_bytes_hi = 1u << 21});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9007199254740992\r\n\r\nab");
    host_expect(host, RW_EVENT_REQUEST);
    host_expect(host, RW_EVENT_BODY);
    assert_int_equal(rw_http_of(rw_core_slot(host->core, 0))->body_remaining, (1ull << 53) - 2);
    peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9007199254740993\r\n\r\nab");
    peer_expect_head(host, peer, 413);
    host_close(host);
}

/* ---------------------------------------------------------------- why it ended */

static uint32_t expect_cause(struct host *host, uint32_t code) {
    struct record *close = host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(close->event.arg0, code);
    return close->event.arg1;
}

static void the_first_cause_of_an_end_is_the_one_that_is_told(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    peer_close(host, peer_open_ws(host, 7, &open));
    assert_int_equal(expect_cause(host, 1006), RW_CLOSE_PEER_GONE);
    struct peer *peer = peer_open_ws(host, 7, &open);
    peer_shutdown(host, peer);
    assert_int_equal(expect_cause(host, 1006), RW_CLOSE_PEER_GONE);
    peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    assert_int_equal(expect_cause(host, 1006), RW_CLOSE_BY_HOST);
    /* The host closes, then the peer leaves without an answer. */
    peer = peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 4000}, NULL, 0);
    host_turns(host, 3);
    peer_close(host, peer);
    assert_int_equal(expect_cause(host, 1006), RW_CLOSE_BY_HOST);
    host_close(host);
}

static void a_drain_and_a_peer_that_takes_nothing_are_causes_too(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    host_send(host, &open, RW_SEND_TEXT, "stuck", 5);
    host_pass_time(host, RW_WRITE_TIMEOUT_MS_DEFAULT + 2000);
    assert_int_equal(expect_cause(host, 1006), RW_CLOSE_WRITE_TIMEOUT);
    peer = peer_open_ws(host, 7, &open);
    rw_core_drain(host->core, 1012, 0, 0);
    peer_expect_close_frame(host, peer, 1012);
    static const uint8_t code[2] = {1012 >> 8, 1012 & 255};
    peer_send_frame(host, peer, FIN_CLOSE, code, 2);
    assert_int_equal(expect_cause(host, 1012), RW_CLOSE_DRAIN);
    host_close(host);
}

/* ---------------------------------------------------------------- topics */

static void subscribing_tells_whether_it_changed_anything(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    struct rw_command subscribe = {.type = RW_COMMAND_SUBSCRIBE}, unsubscribe = {.type = RW_COMMAND_UNSUBSCRIBE};
    assert_int_equal(host_call(host, &open, subscribe, "room", 4), 1);
    assert_int_equal(host_call(host, &open, subscribe, "room", 4), 0);
    assert_int_equal(host_call(host, &open, unsubscribe, "room", 4), 1);
    assert_int_equal(host_call(host, &open, unsubscribe, "room", 4), 0);
    static uint8_t longest[RW_TOPIC_BYTES_MAX + 1];
    assert_int_equal(host_call(host, &open, subscribe, longest, RW_TOPIC_BYTES_MAX), 1);
    assert_int_equal(host_call(host, &open, subscribe, longest, RW_TOPIC_BYTES_MAX + 1), RW_ERR_INVALID);
    assert_int_equal(host_call(host, &open, subscribe, longest, (1ull << 32) + 1), RW_ERR_INVALID);
    assert_int_equal(host_call(host, &open, unsubscribe, longest, (1ull << 32) + 1), 0);
    assert_int_equal(host_call(host, &open, subscribe, "", 0), RW_ERR_INVALID);
    peer_close(host, peer);
    host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(host_call(host, &open, subscribe, "room", 4), RW_ERR_STALE);
    host_close(host);
}

static void the_topics_of_a_connection_are_listed_as_far_as_there_is_room(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    static const char *names[] = {"a", "room/one", "zz"};
    uint8_t out[64];
    memset(out, 0xEE, sizeof out);
    assert_int_equal(rw_core_topics(host->core, open.slot, open.generation, out, sizeof out), 0);
    for (size_t i = 0; i < 3; i++) host_topic(host, &open, RW_COMMAND_SUBSCRIBE, names[i]);
    host_flush(host);
    const int32_t all = 3 + 10 + 4;
    assert_int_equal(rw_core_topics(host->core, open.slot, open.generation, out, sizeof out), all);
    assert_int_equal(out[all], 0xEE);
    uint32_t seen = 0;
    for (int32_t at = 0; at < all;) {
        uint16_t bytes;
        memcpy(&bytes, out + at, sizeof bytes);
        for (uint32_t i = 0; i < 3; i++)
            seen |= strlen(names[i]) == bytes && memcmp(names[i], out + at + 2, bytes) == 0 ? 1u << i : 0;
        at += 2 + bytes;
    }
    assert_int_equal(seen, 7);
    for (uint32_t room = 0; room < (uint32_t)all; room++) {
        memset(out, 0xEE, sizeof out);
        assert_int_equal(rw_core_topics(host->core, open.slot, open.generation, out, room), all);
        assert_int_equal(out[room], 0xEE);
    }
    assert_int_equal(rw_core_topics(host->core, open.slot, open.generation + 1, out, sizeof out), RW_ERR_STALE);
    peer_close(host, peer);
    host_close(host);
}

static void a_topic_is_wanted_when_somebody_of_the_node_subscribes(void **state) {
    (void)state;
    static const uint8_t name[] = "room";
    int32_t node = rw_shm_create(2, 65536, 0, 0);
    assert_true(node >= 0);
    struct rw_core *cores[2];
    for (uint32_t worker = 0; worker < 2; worker++) {
        struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                        .backend = RW_BACKEND_EPOLL,
                                        .max_connections = 16,
                                        .sqpoll_cpu = -1,
                                        .wake_fd = -1,
                                        .inbox_fd_first = -1,
                                        .shm_fd = node,
                                        .worker_index = worker,
                                        .worker_count = 2};
        char error[256];
        cores[worker] = rw_core_create(&config, error, sizeof error);
        assert_non_null(cores[worker]);
    }
    assert_int_equal(rw_core_topic_wanted(cores[0], name, 4), 0);
    uint32_t list = 0;
    assert_int_equal(rw_topics_subscribe(cores[1]->topics, 0, &list, name, 4), 1);
    assert_int_equal(rw_core_topic_wanted(cores[0], name, 4), 1);
    assert_int_equal(rw_core_topic_wanted(cores[1], name, 4), 1);
    assert_int_equal(rw_core_topic_wanted(cores[0], name, 3), 0);
    rw_topics_drop(cores[1]->topics, 0, &list);
    assert_int_equal(rw_core_topic_wanted(cores[0], name, 4), 0);
    assert_int_equal(rw_core_topic_wanted(cores[1], name, 4), 0);
    for (uint32_t worker = 0; worker < 2; worker++) rw_core_destroy(cores[worker]);
    close(node);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(an_upgrade_has_the_fields_of_the_host_on_both_sides_of_its_own),
        ON_SIM(an_upgrade_whose_parts_exceed_its_data_is_refused),
        ON_EVERY_RING(a_quiet_upgrade_has_no_open_event_and_loses_no_message),
        ON_EVERY_RING(an_upgrade_may_be_answered_much_later_and_what_came_meanwhile_is_bounded),
        ON_EVERY_RING(a_paused_body_does_not_time_out_and_goes_on),
        ON_EVERY_RING(a_paused_body_survives_the_half_close_behind_it),
        ON_SIM(bodies_may_be_as_long_as_a_double_counts_exactly),
        ON_EVERY_RING(the_first_cause_of_an_end_is_the_one_that_is_told),
        ON_SIM(a_drain_and_a_peer_that_takes_nothing_are_causes_too),
        ON_SIM(subscribing_tells_whether_it_changed_anything),
        ON_SIM(the_topics_of_a_connection_are_listed_as_far_as_there_is_room),
        cmocka_unit_test(a_topic_is_wanted_when_somebody_of_the_node_subscribes),
    };
    return cmocka_run_group_tests_name("connections of the core", tests, NULL, NULL);
}
