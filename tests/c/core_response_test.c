/* HTTP/1.1 responses through the whole core, and the ends of connections and of the core: see core_http_test.c for requests. */
#include "core_fixture.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"

/* ---------------------------------------------------------------- streamed responses */

static void streamed_responses_are_sized_or_chunked(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/sized") GET("/chunked"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 201, .arg1 = 6}, "A: b\r\n", 6);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "abc", 3);
    host_turns(host, 3);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "def", 3);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "", 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "0123456789abcdefX", 17);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_head(host, peer, 201);
    assert_true(peer_head_has(peer, "Content-Length: 6") && peer_head_has(peer, "A: b"));
    peer_expect_text(host, peer, "abcdef");
    peer_expect_head(host, peer, 200);
    assert_true(peer_head_has(peer, "Transfer-Encoding: chunked"));
    peer_expect_text(host, peer, "11\r\n0123456789abcdefX\r\n0\r\n\r\n");
    peer_expect_silence(host, peer);
    host_close(host);
}

static void sized_streams_that_lie_about_their_length_end_the_connection(void **state) {
    static const uint32_t given[] = {5, 3};
    struct host *host = host_open(state, DEFAULTS);
    for (size_t i = 0; i < 2; i++) {
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, GET("/"));
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = 4}, "", 0);
        host_turns(host, 3);
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "abcde", given[i]);
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
        host_expect(host, RW_EVENT_ABORT);
        peer_expect_end(host, peer);
        peer_expect_head(host, peer, 200);
        assert_true(peer->in_bytes < 4);
    }
    host_close(host);
}

static void a_stream_past_the_high_water_mark_hears_when_it_drained(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.response_high_water_bytes = 1000});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    char part[800];
    memset(part, 'p', sizeof part);
    for (uint32_t round = 0; round < 10; round++) {
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, part, sizeof part);
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, part, sizeof part);
        assert_int_equal(host_expect(host, RW_EVENT_RESPONSE_DRAIN)->event.arg1, 1u << 16);
        host_expect_silence(host);
    }
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_head(host, peer, 200);
    for (uint32_t i = 0; i < 20; i++) {
        peer_expect_text(host, peer, "320\r\n");
        peer_expect(host, peer, part, sizeof part);
        peer_expect_text(host, peer, "\r\n");
    }
    peer_expect_text(host, peer, "0\r\n\r\n");
    host_close(host);
}

static void bodies_larger_than_the_data_area_go_out_whole(void **state) {
    enum { BYTES = 3000000 };
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    uint8_t *body = malloc(BYTES);
    assert_non_null(body);
    for (uint32_t i = 0; i < BYTES; i++) body[i] = (uint8_t)(i * 31 + (i >> 12));
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND, .arg0 = 200}, body, BYTES);
    peer_expect_head(host, peer, 200);
    assert_int_equal(peer_content_length(peer->head), BYTES);
    peer_expect(host, peer, body, BYTES);
    free(body);
    host_close(host);
}

/* ---------------------------------------------------------------- ends */

static void a_client_that_leaves_aborts_its_request_once(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    peer_close(host, peer);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg1, 1u << 16);
    host_respond(host, &request, 200, "", "nobody is there");
    host_expect_silence(host);
    assert_int_equal(host->core->stats->http_aborts, 1);
    host_close(host);
}

static void the_host_may_give_a_response_up(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "abc", 3);
    host_turns(host, 4);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_ABORT}, "", 0);
    peer_expect_head(host, peer, 200);
    peer_expect_text(host, peer, "3\r\nabc\r\n");
    peer_expect_end(host, peer);
    assert_int_equal(peer->in_bytes, 0);
    host_close(host);
}

static void giving_up_a_body_that_ends_with_the_connection_resets_it(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "GET / HTTP/1.0\r\n\r\n");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "abc", 3);
    peer_expect_head(host, peer, 200);
    peer_expect_text(host, peer, "abc");
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_ABORT}, "", 0);
    host_expect(host, RW_EVENT_ABORT);
    host_turns(host, 5);
    if (!host_is_sim(host)) {
        uint8_t octet;
        assert_int_equal(recv(peer->fd, &octet, 1, 0), -1);
        assert_int_equal(errno, ECONNRESET);
    }
    host_close(host);
}

static void commands_for_what_is_over_do_nothing(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event first = host_expect(host, RW_EVENT_REQUEST)->event;
    host_respond(host, &first, 200, "", "1");
    peer_expect_response(host, peer, 200, "1");
    peer_send_text(host, peer, GET("/"));
    struct rw_event second = host_expect(host, RW_EVENT_REQUEST)->event;
    for (uint32_t type = 0; type < 20; type++) {
        if (type == RW_COMMAND_PUBLISH || type == RW_COMMAND_TERMINATE || type == RW_COMMAND_PAUSE || type == RW_COMMAND_RESUME) continue;
        host_answer(host, &first, (struct rw_command){.type = (uint16_t)type, .arg0 = 200}, "", 0); /* a request that is over */
    }
    for (uint32_t type = 0; type < 20; type++) {
        struct rw_event stale = second;
        stale.generation++;
        host_answer(host, &stale, (struct rw_command){.type = (uint16_t)type, .arg0 = 200}, "x", 1);
        stale.slot = 1023;
        host_answer(host, &stale, (struct rw_command){.type = (uint16_t)type, .arg0 = 200}, "x", 1);
        stale.slot = UINT32_MAX;
        host_answer(host, &stale, (struct rw_command){.type = (uint16_t)type, .arg0 = 200}, "x", 1);
    }
    host_command(host, (struct rw_command){.type = RW_COMMAND_RESPOND, .slot = second.slot, .generation = second.generation, .request = second.arg1 >> 16, .arg0 = 200}, "", 0);
    ((struct rw_command *)(uintptr_t)host->info.commands)[host->commands - 1].offset = UINT32_MAX; /* data outside of the area */
    peer_expect_silence(host, peer);
    host_respond(host, &second, 200, "", "2");
    peer_expect_response(host, peer, 200, "2");
    host_close(host);
}

static void connections_past_the_slots_are_refused_and_counted(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.max_connections = 4});
    struct peer *peers[7];
    for (uint32_t i = 0; i < 7; i++) {
        peers[i] = peer_connect(host);
        host_turns(host, 5);
    }
    assert_int_equal(rw_core_connections(host->core), 4);
    assert_int_equal(host->core->stats->refused_slots, 3);
    for (uint32_t i = 4; i < 7; i++) peer_expect_end(host, peers[i]);
    peer_close(host, peers[0]);
    while (rw_core_connections(host->core) == 4) host_turn(host);
    struct peer *late = peer_connect(host);
    peer_send_text(host, late, GET("/"));
    struct record *record = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(record->event.generation, 2); /* the slot of the one that left */
    host_close(host);
}

static void draining_closes_idle_connections_and_lets_requests_finish(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *idle = peer_connect(host), *busy = peer_connect(host);
    peer_send_text(host, busy, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_turns(host, 5);
    rw_core_stop_accepting(host->core);
    rw_core_drain(host->core, 1001, 100);
    peer_expect_end(host, idle);
    host_respond(host, &request, 200, "", "last");
    peer_expect_response(host, busy, 200, "last");
    assert_true(peer_head_has(busy, "Connection: close"));
    peer_expect_end(host, busy);
    host_close(host);
}

static void a_core_is_destroyed_with_everything_under_way(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    static const char *texts[] = {"", "GET / HT", GET("/"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", GET("/") GET("/") GET("/")};
    for (uint32_t i = 0; i < 5; i++) peer_send_text(host, peer_connect(host), texts[i]);
    for (struct record *record; (record = host_poll(host)) != NULL;) {
        if (record->event.type == RW_EVENT_REQUEST) host_answer(host, &record->event, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    }
    (void)peer_connect(host); /* perhaps accepted, perhaps not */
    rw_core_destroy(host->core);
    host->core = NULL;
    host_free(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(streamed_responses_are_sized_or_chunked),
        ON_EVERY_RING(sized_streams_that_lie_about_their_length_end_the_connection),
        ON_EVERY_RING(a_stream_past_the_high_water_mark_hears_when_it_drained),
        ON_EVERY_RING(bodies_larger_than_the_data_area_go_out_whole),
        ON_EVERY_RING(a_client_that_leaves_aborts_its_request_once),
        ON_EVERY_RING(the_host_may_give_a_response_up),
        ON_EVERY_RING(giving_up_a_body_that_ends_with_the_connection_resets_it),
        ON_SIM(commands_for_what_is_over_do_nothing),
        ON_EVERY_RING(connections_past_the_slots_are_refused_and_counted),
        ON_EVERY_RING(draining_closes_idle_connections_and_lets_requests_finish),
        ON_EVERY_RING(a_core_is_destroyed_with_everything_under_way),
    };
    return cmocka_run_group_tests_name("the core answers and ends", tests, NULL, NULL);
}
