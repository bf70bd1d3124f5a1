/* HTTP/1.1 through the whole core: bytes of a client in, events to the host, commands of the host, bytes on the
 * wire. */
#include "core_fixture.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"

/* ---------------------------------------------------------------- requests and responses */

static void a_request_becomes_one_event_with_host_target_and_lower_case_fields(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "GET /a?b=c HTTP/1.1\r\nHost: example.com:81\r\nX-Two:  spaced \t\r\nx-two:\r\n\r\n");
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    static const char expected[] = "example.com:81/a?b=chost\nexample.com:81\nx-two\nspaced\nx-two\n\n";
    assert_int_equal(request->event.bytes, sizeof expected - 1);
    assert_memory_equal(request->payload, expected, sizeof expected - 1);
    assert_int_equal(request->event.arg0, 14u << 16 | 6u);
    assert_int_equal(request->event.request, 1);
    assert_int_equal(request->event.stream, 0);
    assert_int_equal(request->event.arg1, 3 << 8 | RW_METHOD_GET);
    assert_int_equal(request->event.flags, 0);
    host_respond(host, &request->event, 200, "X-A: b\r\n", "hello");
    peer_expect_response(host, peer, 200, "hello");
    assert_true(peer_head_has(peer, "X-A: b"));
    assert_true(peer_head_has(peer, "Content-Length: 5"));
    assert_null(strstr(peer->head, "Connection:"));
    const char *date = strstr(peer->head, "\r\nDate: ");
    assert_non_null(date);
    assert_memory_equal(date + 8 + 25, " GMT\r\n", 6); /* RFC 9110 §5.6.7: 29 characters */
    host_close(host);
}

/* The host appears twice in the event: a long one must not outgrow the room that was taken for it. */
static void a_long_host_fits_its_event(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    char name[4001], request[4100];
    memset(name, 'h', sizeof name - 1);
    name[sizeof name - 1] = 0;
    snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name);
    peer_send_text(host, peer, request);
    struct record *record = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(record->event.arg0, 4000u << 16 | 1u);
    assert_int_equal(record->event.bytes, 4000 + 1 + 5 + 4000 + 1);
    assert_memory_equal(record->payload + 4006, name, 4000);
    host_close(host);
}

static void methods_without_a_number_and_special_targets_are_told(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n");
    struct record *record = host_expect(host, RW_EVENT_REQUEST);
    assert_string_equal((char *)record->payload, "a/x:method\nPURGE\nhost\na\n");
    assert_int_equal(record->event.arg1 & 0xFF, RW_METHOD_OTHER);
    host_respond(host, &record->event, 405, "", "");
    peer_expect_response(host, peer, 405, "");
    peer_send_text(host, peer, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    record = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(record->event.flags, RW_REQUEST_ASTERISK);
    host_respond(host, &record->event, 204, "", "");
    peer_expect_head(host, peer, 204);
    assert_null(strstr(peer->head, "Content-Length"));
    peer_send_text(host, peer, "GET http://b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n");
    record = host_expect(host, RW_EVENT_REQUEST);
    assert_memory_equal(record->payload, "b:80/", 5);
    host_respond(host, &record->event, 204, "", "");
    peer_expect_head(host, peer, 204);
    peer_send_text(host, peer, "GET http://b?x=/ HTTP/1.1\r\nHost: b\r\n\r\n");
    record = host_expect(host, RW_EVENT_REQUEST);
    assert_memory_equal(record->payload, "b/?x=/host", 10);
    assert_int_equal(record->event.arg0 & 0xFFFF, 5);
    host_close(host);
}

static void a_success_of_connect_has_no_framing_and_ends_the_connection(void **state) {
    static const char connect[] = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n";
    struct host *host = host_open(state, DEFAULTS);
    for (uint32_t way = 0; way < 3; way++) {
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, connect);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        peer_send_text(host, peer, GET("/smuggled"));
        if (way == 0) {
            host_respond(host, &request, 200, "", "content");
        } else {
            uint16_t sized = way == 1 ? RW_RESPOND_SIZED : 0;
            host_answer(host, &request,
                        (struct rw_command){
                            .type = RW_COMMAND_RESPOND_BEGIN, .flags = sized, .arg0 = 200, .arg1 = 7u * (way == 1)},
                        "", 0);
            host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "content", 7);
            host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
        }
        peer_expect_head(host, peer, 200);
        assert_false(peer_head_has(peer, "Content-Length") || peer_head_has(peer, "Transfer-Encoding"));
        assert_true(peer_head_has(peer, "Connection: close"));
        peer_wait_bytes(host, peer, 7);
        assert_memory_equal(peer->in, "content", 7);
        peer_consume(peer, 7);
        peer_expect_end(host, peer);
    }
    /* A refusal has its length, and ends the connection too. */
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, connect);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_respond(host, &request, 501, "", "no");
    peer_expect_response(host, peer, 501, "no");
    peer_expect_end(host, peer);
    host_close(host);
}

static void a_connection_is_used_again_and_each_request_has_the_next_number(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    for (uint32_t i = 1; i <= 50; i++) {
        peer_send_text(host, peer, GET("/"));
        struct record *record = host_expect(host, RW_EVENT_REQUEST);
        assert_int_equal(record->event.request, i);
        host_respond(host, &record->event, 200, "", "ok");
        host_respond(host, &record->event, 200, "", "a second answer is dropped");
        peer_expect_response(host, peer, 200, "ok");
    }
    assert_int_equal(host->core->stats->requests, 50);
    assert_int_equal(host->core->stats->responses_2xx, 50);
    host_close(host);
}

static void a_head_may_come_one_byte_at_a_time(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    static const char text[] = "\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET("/y");
    for (size_t i = 0; i < sizeof text - 1; i++) {
        peer_send(host, peer, text + i, 1);
        host_turns(host, 2);
    }
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(request->event.flags, RW_REQUEST_HAS_BODY);
    char body[8] = "";
    for (int end = 0; !end;) {
        struct record *record = host_expect(host, RW_EVENT_BODY);
        strcat(body, (char *)record->payload);
        end = record->event.flags & RW_BODY_END;
    }
    assert_string_equal(body, "abc");
    host_respond(host, &request->event, 200, "", "1");
    request = host_expect(host, RW_EVENT_REQUEST);
    assert_memory_equal(request->payload, "a/y", 3);
    host_respond(host, &request->event, 200, "", "2");
    peer_expect_response(host, peer, 200, "1");
    peer_expect_response(host, peer, 200, "2");
    host_close(host);
}

static void head_responses_have_the_length_but_no_body(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "hello");
    peer_expect_head(host, peer, 200);
    assert_true(peer_head_has(peer, "Content-Length: 5"));
    peer_send_text(host, peer, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "abc", 3);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_head(host, peer, 200);
    assert_true(peer_head_has(peer, "Transfer-Encoding: chunked"));
    peer_expect_silence(host, peer);
    peer_send_text(host, peer, GET("/"));
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 304, "ETag: \"x\"\r\n", "");
    peer_expect_head(host, peer, 304);
    assert_null(strstr(peer->head, "Content-Length"));
    host_close(host);
}

static void http_1_0_closes_unless_it_asked_to_be_kept(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    struct record *record = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(record->event.flags, RW_REQUEST_HTTP10);
    host_respond(host, &record->event, 200, "", "kept");
    peer_expect_response(host, peer, 200, "kept");
    assert_true(peer_head_has(peer, "Connection: keep-alive"));
    peer_send_text(host, peer, "GET / HTTP/1.0\r\n\r\n");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "until the end", 13);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_head(host, peer, 200);
    assert_true(peer_head_has(peer, "Connection: close"));
    assert_null(strstr(peer->head, "chunked"));
    peer_expect_text(host, peer, "until the end");
    peer_expect_end(host, peer);
    host_close(host);
}

static void connection_close_is_honoured_from_either_side(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" GET("/never"));
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "bye");
    peer_expect_response(host, peer, 200, "bye");
    assert_true(peer_head_has(peer, "Connection: close"));
    peer_expect_end(host, peer);
    struct peer *other = peer_connect(host);
    peer_send_text(host, other, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND, .flags = RW_RESPOND_CLOSE, .arg0 = 200},
                "x", 1);
    peer_expect_response(host, other, 200, "x");
    assert_true(peer_head_has(other, "Connection: close"));
    peer_expect_end(host, other);
    host_expect_silence(host);
    host_close(host);
}

/* ---------------------------------------------------------------- pipelining */

static void ten_thousand_pipelined_requests_wait_in_bounded_memory_and_keep_their_order(void **state) {
    enum { REQUESTS = 10000 };
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    char text[64], body[16];
    size_t sent = 0;
    char *all = malloc(REQUESTS * sizeof text);
    assert_non_null(all);
    for (uint32_t i = 0; i < REQUESTS; i++)
        sent += (size_t)snprintf(all + sent, sizeof text, "GET /%u HTTP/1.1\r\nHost: a\r\n\r\n", i);
    /* A real socket takes what its buffers hold while the host answers nothing; the rest is sent below. */
    size_t at = 0;
    if (host_is_sim(host)) {
        peer_send(host, peer, all, sent);
        at = sent;
    } else {
        for (uint32_t tries = 0; tries < 200 && at < sent; tries++) {
            ssize_t took = send(peer->fd, all + at, sent - at, MSG_NOSIGNAL);
            if (took > 0) at += (size_t)took;
            host_turn(host);
        }
    }
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_turns(host, 50);
    const struct rw_slot *slot = rw_core_slot(host->core, request.slot);
    assert_true(slot->state.paused_by_core);
    assert_false(slot->state.recv_armed);
    /* What was under way when the pause was asked for may still come: the receive buffers bound it. */
    if (!host_is_sim(host)) assert_true(slot->input_bytes < RW_RECV_BUFFERS_DEFAULT * RW_RECV_BUFFER_BYTES_DEFAULT);
    host_expect_silence(host);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        if (i) request = host_expect(host, RW_EVENT_REQUEST)->event;
        if (at < sent && !host_is_sim(host)) {
            ssize_t took = send(peer->fd, all + at, sent - at, MSG_NOSIGNAL);
            if (took > 0) at += (size_t)took;
        }
        int length = snprintf(text, sizeof text, "a/%uhost\na\n", i);
        assert_memory_equal(host->log[host->log_at - 1].payload, text, (size_t)length);
        snprintf(body, sizeof body, "%u", i);
        host_respond(host, &request, 200, "", body);
        if (i % 100 == 0) peer_pull(host, peer);
    }
    for (uint32_t i = 0; i < REQUESTS; i++) {
        snprintf(body, sizeof body, "%u", i);
        peer_expect_response(host, peer, 200, body);
    }
    free(all);
    host_close(host);
}

static void requests_before_a_half_close_are_all_answered(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/1") GET("/2") GET("/3"));
    peer_shutdown(host, peer);
    static const char *bodies[] = {"1", "2", "3"};
    for (uint32_t i = 0; i < 3; i++)
        host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", bodies[i]);
    for (uint32_t i = 0; i < 3; i++) {
        peer_expect_response(host, peer, 200, bodies[i]);
        assert_int_equal(peer_head_has(peer, "Connection: close"), i == 2);
    }
    peer_expect_end(host, peer);
    host_expect_silence(host);
    host_close(host);
}

/* ---------------------------------------------------------------- request bodies */

static void expect_body(struct host *host, const char *expected) {
    char body[256] = "";
    for (int end = 0; !end;) {
        struct record *record = host_expect(host, RW_EVENT_BODY);
        assert_true(strlen(body) + record->event.bytes < sizeof body);
        strcat(body, (char *)record->payload);
        end = record->event.flags & RW_BODY_END;
    }
    assert_string_equal(body, expected);
}

static void a_chunked_body_reads_the_same_however_it_is_cut(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    static const char text[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "5;x=\"y\"\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: t\r\n\r\n" GET("/next");
    for (size_t cut = 0; cut < sizeof text - 1; cut++) {
        struct peer *peer = peer_connect(host);
        peer_send(host, peer, text, cut);
        host_turns(host, 3);
        peer_send(host, peer, text + cut, sizeof text - 1 - cut);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        expect_body(host, "hello world");
        host_respond(host, &request, 200, "", "a");
        request = host_expect(host, RW_EVENT_REQUEST)->event;
        assert_memory_equal(host->log[host->log_at - 1].payload, "a/next", 6);
        host_respond(host, &request, 200, "", "b");
        peer_expect_response(host, peer, 200, "a");
        peer_expect_response(host, peer, 200, "b");
        peer_close(host, peer);
        free(peer->memory);
        peer->memory = NULL;
        peer->used = 0;
    }
    host_expect_silence(host);
    host_close(host);
}

static void a_body_stops_at_its_window_until_the_host_acknowledges(void **state) {
    enum { BODY = 1000000, WINDOW = 65536 };
    struct host *host = host_open(state, &(struct rw_core_config){.body_window_bytes = WINDOW});
    struct peer *peer = peer_connect(host);
    uint8_t *body = malloc(BODY);
    assert_non_null(body);
    for (uint32_t i = 0; i < BODY; i++) body[i] = (uint8_t)(i * 7 + (i >> 8));
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    if (host_is_sim(host)) {
        /* In parts: the simulated socket has no buffer of its own to fill. */
        for (uint32_t at = 0; at < BODY; at += 100000) peer_send(host, peer, body + at, 100000);
    }
    size_t pushed = host_is_sim(host) ? BODY : 0;
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    uint32_t received = 0, unacked = 0;
    while (received < BODY) {
        if (pushed < BODY) {
            ssize_t took = send(peer->fd, body + pushed, BODY - pushed, MSG_NOSIGNAL);
            if (took > 0) pushed += (size_t)took;
        }
        struct record *record = host_poll(host);
        if (record) {
            assert_int_equal(record->event.type, RW_EVENT_BODY);
            assert_memory_equal(record->payload, body + received, record->event.bytes);
            received += record->event.bytes;
            unacked += record->event.bytes;
            assert_int_equal(record->event.flags & RW_BODY_END, received == BODY ? RW_BODY_END : 0);
            assert_true(unacked < WINDOW + 65536);
            continue;
        }
        if (received < BODY && unacked >= WINDOW) {
            host_expect_silence(host);
            host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = unacked}, "", 0);
            unacked = 0;
        }
    }
    host_respond(host, &request, 200, "", "done");
    peer_expect_response(host, peer, 200, "done");
    free(body);
    host_close(host);
}

static void a_body_held_back_by_its_window_survives_the_end_of_stream(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.body_window_bytes = 4});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    assert_string_equal((char *)host_expect(host, RW_EVENT_BODY)->payload, "abcd");
    peer_send_text(host, peer, "efgh");
    peer_shutdown(host, peer);
    host_turns(host, 10);
    host_expect_silence(host);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = 4}, "", 0);
    struct record *record = host_expect(host, RW_EVENT_BODY);
    assert_string_equal((char *)record->payload, "efgh");
    assert_int_equal(record->event.flags, RW_BODY_END);
    host_respond(host, &request, 200, "", "ok");
    peer_expect_response(host, peer, 200, "ok");
    host_close(host);
}

static void a_client_that_waits_is_told_to_continue_once_the_host_had_its_turn(void **state) {
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, head);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    peer_expect_text(host, peer, "HTTP/1.1 100 Continue\r\n\r\n");
    peer_send_text(host, peer, "hi");
    expect_body(host, "hi");
    host_respond(host, &request, 200, "", "x");
    peer_expect_response(host, peer, 200, "x");
    /* A refusal at once comes instead of the invitation, and the body that may or may not follow ends the
     * connection. */
    peer_send_text(host, peer, head);
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_respond(host, &request, 403, "", "");
    peer_expect_response(host, peer, 403, "");
    assert_true(peer_head_has(peer, "Connection: close"));
    peer_expect_end(host, peer);
    host_expect_silence(host);
    host_close(host);
}

static void an_early_response_leaves_a_short_body_to_be_thrown_away(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "early");
    peer_expect_response(host, peer, 200, "early");
    assert_null(strstr(peer->head, "Connection:"));
    peer_send_text(host, peer, "0123456789" GET("/next"));
    struct record *record = host_expect(host, RW_EVENT_REQUEST);
    assert_memory_equal(record->payload, "a/next", 6);
    host_respond(host, &record->event, 200, "", "next");
    peer_expect_response(host, peer, 200, "next");
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    record = host_expect(host, RW_EVENT_REQUEST);
    struct rw_event request = record->event;
    assert_string_equal((char *)host_expect(host, RW_EVENT_BODY)->payload, "abc");
    host_respond(host, &request, 200, "", "early");
    peer_expect_response(host, peer, 200, "early");
    peer_send_text(host, peer, "2\r\nde\r\n0\r\n\r\n" GET("/last"));
    assert_memory_equal(host_expect(host, RW_EVENT_REQUEST)->payload, "a/last", 6);
    host_close(host);
}

static void an_early_response_before_a_long_body_closes(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n");
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "enough");
    peer_expect_response(host, peer, 200, "enough");
    assert_true(peer_head_has(peer, "Connection: close"));
    peer_expect_end(host, peer);
    host_close(host);
}

/* ---------------------------------------------------------------- refusals */

static void refused_requests_get_their_status_and_the_connection_ends(void **state) {
    static const struct {
        uint32_t status;
        const char *text;
    } cases[] = {
        {400, "GET / HTTP/1.1\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n"},
        {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"},
        {400, "GET / HTTP/1.1\nHost: a\n\n"},
        {413, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"},
        {414,
         "GET /0123456789012345678901234567890123456789012345678901234567890123456789 HTTP/1.1\r\nHost: a\r\n\r\n"},
        {417, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n"},
        {431, "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\n\r\n"},
        {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
        {505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"},
        {426, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
              "12\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"},
    };
    struct host *host = host_open(
        state, &(struct rw_core_config){.max_target_bytes = 64, .max_header_count = 5, .max_body_bytes_lo = 1000});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, cases[i].text);
        peer_send_text(host, peer, GET("/smuggled"));
        peer_expect_head(host, peer, cases[i].status);
        assert_true(peer_head_has(peer, "Connection: close"));
        if (cases[i].status == 426) assert_true(peer_head_has(peer, "Sec-WebSocket-Version: 13"));
        peer_wait_bytes(host, peer, peer_content_length(peer->head));
        peer_consume(peer, peer_content_length(peer->head));
        peer_expect_end(host, peer);
        assert_int_equal(peer->in_bytes, 0);
    }
    host_expect_silence(host);
    assert_int_equal(host->core->stats->http_errors, sizeof cases / sizeof *cases);
    host_close(host);
}

static void a_body_that_breaks_its_framing_aborts_the_request(void **state) {
    static const struct {
        uint32_t status;
        const char *body;
    } cases[] = {
        {400, "3\r\nabcX"}, {400, "g\r\n"}, {400, "3\nabc"}, {413, "3e9\r\n"}, {400, "0\r\nContent-Length: 3\r\n\r\n"}};
    struct host *host = host_open(state, &(struct rw_core_config){.max_body_bytes_lo = 1000});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        peer_send_text(host, peer, cases[i].body);
        if (cases[i].status == 413) {
            char many[1001];
            memset(many, 'x', sizeof many);
            peer_send(host, peer, many, sizeof many);
        }
        struct record *record;
        do {
            record = host_poll(host);
            assert_non_null(record);
            assert_false(record->event.type == RW_EVENT_BODY && record->event.flags & RW_BODY_END);
        } while (record->event.type == RW_EVENT_BODY);
        assert_int_equal(record->event.type, RW_EVENT_ABORT);
        assert_int_equal(record->event.arg0, (uint32_t)RW_ABORT_REFUSED << 16 | cases[i].status);
        assert_int_equal(record->event.request, request.request);
        host_respond(host, &request, 200, "", "too late");
        peer_expect_head(host, peer, cases[i].status);
        peer_consume(peer, peer_content_length(peer->head));
        peer_expect_end(host, peer);
        assert_int_equal(peer->in_bytes, 0);
    }
    host_close(host);
}

static void deadlines_answer_408_or_close(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.head_timeout_ms = 20000,
                                                                  .body_timeout_ms = 20000,
                                                                  .keep_alive_timeout_ms = 20000,
                                                                  .linger_timeout_ms = 2000});
    struct peer *slow_head = peer_connect(host), *slow_body = peer_connect(host), *idle = peer_connect(host),
                *mute = peer_connect(host);
    while (rw_core_connections(host->core) < 4) host_turn(host);
    peer_send_text(host, idle, GET("/idle"));
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "");
    peer_expect_response(host, idle, 200, "");
    peer_send_text(host, slow_head, "GET / HTTP/1.1\r\nHo");
    peer_send_text(host, slow_body, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    host_expect(host, RW_EVENT_REQUEST);
    host_expect(host, RW_EVENT_BODY);
    host_pass_time(host, 10000);
    peer_send_text(host, slow_head, "st"); /* a byte now and then gains nothing */
    peer_send_text(host, slow_body, "d");
    host_expect(host, RW_EVENT_BODY);
    assert_int_equal(rw_core_connections(host->core), 4);
    host_pass_time(host, 15000);
    peer_expect_head(host, slow_head, 408);
    assert_int_equal(rw_core_connections(host->core), 1);
    host_pass_time(host, 10000); /* a body has the time after each part */
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_REFUSED << 16 | 408u);
    host_expect_silence(host);
    assert_int_equal(rw_core_connections(host->core), 0);
    peer_expect_head(host, slow_body, 408);
    peer_pull(host, idle);
    peer_pull(host, mute);
    assert_int_equal(idle->in_bytes + mute->in_bytes, 0);
    assert_int_equal(host->core->stats->timeouts_head, 1);
    assert_int_equal(host->core->stats->timeouts_body, 1);
    assert_int_equal(host->core->stats->timeouts_idle, 2);
    host_close(host);
}

/* Little by little for an hour, in chunks or not, and then nothing. */
static void a_body_has_the_body_timeout_after_each_part(void **state) {
    static const char *heads[] = {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
                                  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n"};
    for (size_t i = 0; i < 2; i++) {
        struct host *host = host_open(state, &(struct rw_core_config){.body_timeout_ms = 30000});
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, heads[i]);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        char part[101 + 8] = {0};
        memset(part, 'x', 100);
        if (i) memcpy(part + 100, "\r\n64\r\n", 6);
        for (uint32_t at = 0; at < 120; at++) {
            peer_send_text(host, peer, part);
            struct rw_event body = host_expect(host, RW_EVENT_BODY)->event;
            assert_int_equal(body.bytes, 100);
            host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = 100}, NULL, 0);
            host_pass_time(host, at % 40 == 39 ? 29000 : 5000); /* almost a stall, three times */
        }
        host_expect_silence(host);
        peer_send_text(host, peer, part);
        host_expect(host, RW_EVENT_BODY);
        host_pass_time(host, 29000);
        host_expect_silence(host);
        host_pass_time(host, 2000);
        assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_REFUSED << 16 | 408u);
        peer_expect_head(host, peer, 408);
        assert_int_equal(host->core->stats->timeouts_body, 1);
        host_close(host);
    }
}

static void a_byte_now_and_then_does_not_keep_a_body_alive(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.body_timeout_ms = 30000});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    for (uint32_t at = 0; at < 11; at++) { /* 110 s of 120 */
        peer_send_text(host, peer, "x");
        host_expect(host, RW_EVENT_BODY);
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = 1}, NULL, 0);
        host_pass_time(host, 10000);
    }
    host_expect_silence(host);
    peer_send_text(host, peer, "x");
    host_expect(host, RW_EVENT_BODY);
    host_pass_time(host, 12000);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_REFUSED << 16 | 408u);
    peer_expect_head(host, peer, 408);
    host_close(host);
}

/* What the host does not take cannot come: the time counts from when it is read again, and not from the part before. */
static void a_body_that_waits_for_the_host_does_not_stall(void **state) {
    static char part[4096];
    memset(part, 'x', sizeof part - 1);
    struct host *host = host_open(state, &(struct rw_core_config){.body_timeout_ms = 30000, .body_window_bytes = 4095});
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    peer_send_text(host, peer, part);
    assert_int_equal(host_expect(host, RW_EVENT_BODY)->event.bytes, 4095);
    host_pass_time(host, 59000); /* held back at the first look, and until just before the second */
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = 4095}, NULL, 0);
    host_pass_time(host, 29000);
    host_expect_silence(host);
    host_pass_time(host, 2000);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_REFUSED << 16 | 408u);
    host_close(host);
}

static void a_peer_that_takes_nothing_is_ended_by_the_write_deadline(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.write_timeout_ms = 20000});
    struct peer *peer = peer_connect(host);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    /* The first send is taken to the kernel and never completes; the host adds nothing. */
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    host_pass_time(host, 10000);
    host_expect_silence(host);
    host_pass_time(host, 12000);
    struct rw_event aborted = host_expect(host, RW_EVENT_ABORT)->event;
    assert_int_equal(aborted.arg0, (uint32_t)RW_ABORT_WRITE_TIMEOUT << 16);
    assert_int_equal(aborted.request, 1);
    assert_int_equal(host->core->stats->http_aborts, 1);
    assert_int_equal(host->core->stats->timeouts_write, 1);
    host_close(host);
}

static void a_stream_to_a_half_closed_peer_ends_with_its_connection(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &request,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = 2}, "",
        0);
    peer_expect_head(host, peer, 200); /* kept alive, for all that was known */
    peer_shutdown(host, peer);
    host_turns(host, 5);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, "ab", 2);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_text(host, peer, "ab");
    host_turns(host, 20);
    assert_int_equal(rw_core_connections(host->core), 0); /* and not after the keep-alive timeout */
    host_expect_silence(host);
    host_close(host);
}

static struct rw_event half_closed_request(struct host *host, struct peer **peer) {
    *peer = peer_connect(host);
    peer_send_text(host, *peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    peer_shutdown(host, *peer);
    host_pass_time(host, 2000);
    struct rw_event half = host_expect(host, RW_EVENT_HALF_CLOSED)->event;
    assert_int_equal(half.slot, request.slot);
    assert_int_equal(half.request, request.request);
    return request;
}

static void a_half_closed_peer_gets_its_answer_however_long_it_takes(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer;
    struct rw_event request = half_closed_request(host, &peer);
    host_pass_time(host, 100000);
    host_expect_silence(host);
    host_respond(host, &request, 200, "", "late");
    peer_expect_response(host, peer, 200, "late");
    peer_expect_end(host, peer);
    host_close(host);
}

static void a_half_closed_peer_that_the_host_gives_up_has_left(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer;
    struct rw_event request = half_closed_request(host, &peer);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_PEER_GONE << 16);
    assert_int_equal(host->core->stats->http_aborts, 1);
    host_close(host);
}

static void the_reset_of_a_half_closed_peer_is_seen(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer;
    (void)half_closed_request(host, &peer);
    const struct linger at_once = {.l_onoff = 1};
    assert_int_equal(setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    peer_close(host, peer);
    host_pass_time(host, 2000);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_PEER_GONE << 16);
    host_close(host);
}

static void where_a_half_closed_peer_has_left_its_requests_are_answered_at_once_or_aborted(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_ABORT_AT_FIN), RW_OK);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/1") GET("/2") GET("/3"));
    peer_shutdown(host, peer);
    for (uint32_t i = 0; i < 2; i++) {
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_respond(host, &request, 200, "", "now"); /* within its turn */
    }
    (void)host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, RW_ABORT_PEER_GONE);
    for (uint32_t i = 0; i < 2; i++) peer_expect_response(host, peer, 200, "now");
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_request_becomes_one_event_with_host_target_and_lower_case_fields),
        ON_SIM(a_long_host_fits_its_event),
        ON_SIM(methods_without_a_number_and_special_targets_are_told),
        ON_SIM(a_success_of_connect_has_no_framing_and_ends_the_connection),
        ON_EVERY_RING(a_connection_is_used_again_and_each_request_has_the_next_number),
        ON_EVERY_RING(a_head_may_come_one_byte_at_a_time),
        ON_EVERY_RING(head_responses_have_the_length_but_no_body),
        ON_EVERY_RING(http_1_0_closes_unless_it_asked_to_be_kept),
        ON_EVERY_RING(connection_close_is_honoured_from_either_side),
        ON_EVERY_RING(ten_thousand_pipelined_requests_wait_in_bounded_memory_and_keep_their_order),
        ON_EVERY_RING(requests_before_a_half_close_are_all_answered),
        ON_SIM(a_chunked_body_reads_the_same_however_it_is_cut),
        ON_EVERY_RING(a_body_stops_at_its_window_until_the_host_acknowledges),
        ON_SIM(a_body_held_back_by_its_window_survives_the_end_of_stream),
        ON_EVERY_RING(a_client_that_waits_is_told_to_continue_once_the_host_had_its_turn),
        ON_EVERY_RING(an_early_response_leaves_a_short_body_to_be_thrown_away),
        ON_EVERY_RING(an_early_response_before_a_long_body_closes),
        ON_EVERY_RING(refused_requests_get_their_status_and_the_connection_ends),
        ON_SIM(a_body_that_breaks_its_framing_aborts_the_request),
        ON_EVERY_RING(deadlines_answer_408_or_close),
        ON_EVERY_RING(a_body_has_the_body_timeout_after_each_part),
        ON_SIM(a_byte_now_and_then_does_not_keep_a_body_alive),
        ON_EVERY_RING(a_body_that_waits_for_the_host_does_not_stall),
        ON_SIM(a_peer_that_takes_nothing_is_ended_by_the_write_deadline),
        ON_EVERY_RING(a_stream_to_a_half_closed_peer_ends_with_its_connection),
        ON_EVERY_RING(a_half_closed_peer_gets_its_answer_however_long_it_takes),
        ON_EVERY_RING(a_half_closed_peer_that_the_host_gives_up_has_left),
        ON_REAL_RINGS(the_reset_of_a_half_closed_peer_is_seen),
        ON_EVERY_RING(where_a_half_closed_peer_has_left_its_requests_are_answered_at_once_or_aborted),
    };
    return cmocka_run_group_tests_name("the core speaks HTTP", tests, NULL, NULL);
}
