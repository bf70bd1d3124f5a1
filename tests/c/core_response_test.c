/* HTTP/1.1 responses through the whole core, and the ends of connections and of the core: see core_http_test.c for
 * requests. */
#include "core_fixture.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"

/* ---------------------------------------------------------------- streamed responses */

static void streamed_responses_are_sized_or_chunked(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/sized") GET("/chunked"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &request,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 201, .arg1 = 6},
        "A: b\r\n", 6);
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
        host_answer(
            host, &request,
            (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = 4},
            "", 0);
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
        assert_int_equal(host_expect(host, RW_EVENT_RESPONSE_DRAIN)->event.request, 1);
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

/* ---------------------------------------------------------------- status and framing */

/* The last head, with its date struck out. */
static void expect_exact_head(struct peer *peer, const char *expected) {
    char *date = strstr(peer->head, "\r\nDate: ");
    assert_non_null(date);
    memmove(date + 8, date + 8 + 29, strlen(date + 8 + 29) + 1);
    assert_string_equal(peer->head, expected);
}

static void the_fields_of_the_core_stand_behind_those_of_the_host_in_one_order(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/") GET("/") GET("/") GET("/") GET("/"));
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "A: b\r\n", "hello");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 404}, "A: b\r\n", 6);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request,
                (struct rw_command){
                    .type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200 | 1u << 16, .arg1 = 2},
                "A: b\r\n", 6);
    peer_expect_head(host, peer, 200);
    expect_exact_head(peer, "HTTP/1.1 200 OK\r\nA: b\r\nDate: \r\nContent-Length: 5\r\n\r\n");
    peer_expect_text(host, peer, "hello");
    peer_expect_head(host, peer, 404);
    expect_exact_head(peer, "HTTP/1.1 404 Not Found\r\nA: b\r\nDate: \r\nTransfer-Encoding: chunked\r\n\r\n");
    peer_expect_text(host, peer, "0\r\n\r\n");
    peer_expect_head(host, peer, 200);
    expect_exact_head(peer, "HTTP/1.1 200 OK\r\nA: b\r\nDate: \r\nContent-Length: 4294967298\r\n\r\n");
    peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request,
                (struct rw_command){.type = RW_COMMAND_RESPOND, .flags = RW_RESPOND_CLOSE, .arg0 = 200, .arg1 = 6},
                "A: b\r\nbye", 9);
    peer_expect_head(host, peer, 200);
    expect_exact_head(peer, "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\nDate: \r\nContent-Length: 3\r\n\r\n");
    peer_expect_text(host, peer, "bye");
    peer_expect_end(host, peer);
    host_close(host);
}

static void a_status_may_be_given_as_text(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/") GET("/") GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &request,
        (struct rw_command){.type = RW_COMMAND_RESPOND, .flags = RW_RESPOND_STATUS_TEXT, .arg0 = 299, .arg1 = 6},
        "\x0b"
        "299 Foo Bar"
        "A: b\r\nhello",
        23);
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request,
                (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_STATUS_TEXT, .arg0 = 500},
                "\x0a"
                "whatever\xe9\t"
                "A: b\r\n",
                17);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    char longest[1 + 255 + 2];
    memset(longest, 'x', sizeof longest);
    longest[0] = (char)255;
    memcpy(longest + 1, "201 ", 4);
    host_answer(host, &request,
                (struct rw_command){.type = RW_COMMAND_RESPOND, .flags = RW_RESPOND_STATUS_TEXT, .arg0 = 201}, longest,
                sizeof longest);
    peer_expect_head(host, peer, 299);
    expect_exact_head(peer, "HTTP/1.1 299 Foo Bar\r\nA: b\r\nDate: \r\nContent-Length: 5\r\n\r\n");
    peer_expect_text(host, peer, "hello");
    peer_expect_head(host, peer, 0);
    expect_exact_head(peer, "HTTP/1.1 whatever\xe9\t\r\nA: b\r\nDate: \r\nTransfer-Encoding: chunked\r\n\r\n");
    peer_expect_text(host, peer, "0\r\n\r\n");
    peer_expect_head(host, peer, 201);
    assert_int_equal(strcspn(peer->head, "\r"), 9 + 255);
    peer_expect_text(host, peer, "xx");
    assert_int_equal(host->core->stats->responses_2xx, 2);
    assert_int_equal(host->core->stats->responses_5xx, 1);
    host_close(host);
}

static void a_status_text_cannot_end_its_line_nor_outgrow_its_data(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    static const char *texts[] = {"\x0c"
                                  "200 OK\r\nA: b",
                                  "\x06"
                                  "200\0OK",
                                  "\x07"
                                  "200 O\x7fK",
                                  "\0"};
    for (size_t i = 0; i < 4; i++) {
        peer_send_text(host, peer, GET("/"));
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        struct rw_command respond = {.type = RW_COMMAND_RESPOND, .flags = RW_RESPOND_STATUS_TEXT, .arg0 = 404};
        host_answer(host, &request, respond,
                    "\x09"
                    "200 OK",
                    7);
        host_answer(host, &request, respond, "", 0);
        respond.arg1 = 3;
        host_answer(host, &request, respond,
                    "\x06"
                    "200 OKAB",
                    9);
        respond.type = RW_COMMAND_RESPOND_BEGIN;
        host_answer(host, &request, respond,
                    "\x09"
                    "200 OK",
                    7);
        respond.type = RW_COMMAND_RESPOND;
        respond.arg1 = 0;
        host_answer(host, &request, respond, texts[i], 1u + (uint8_t)texts[i][0]);
        peer_expect_head(host, peer, 404);
        expect_exact_head(peer, "HTTP/1.1 404 Not Found\r\nDate: \r\nContent-Length: 0\r\n\r\n");
    }
    host_close(host);
}

static void a_response_without_a_length_is_one_that_needs_none_or_closes(void **state) {
    static const struct {
        const char *request;
        uint32_t status;
        int closes;
    } cases[] = {{"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0}, {GET("/"), 304, 0}, {GET("/"), 200, 1}};
    struct host *host = host_open(state, DEFAULTS);
    for (size_t i = 0; i < 3; i++) {
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, cases[i].request);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_answer(
            host, &request,
            (struct rw_command){.type = RW_COMMAND_RESPOND, .flags = RW_RESPOND_NO_LENGTH, .arg0 = cases[i].status}, "",
            0);
        peer_expect_head(host, peer, cases[i].status);
        assert_null(strstr(peer->head, "Content-Length"));
        assert_int_equal(peer_head_has(peer, "Connection: close"), cases[i].closes);
        if (cases[i].closes) peer_expect_end(host, peer);
    }
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request,
                (struct rw_command){.type = RW_COMMAND_RESPOND, .flags = RW_RESPOND_NO_LENGTH, .arg0 = 200}, "body", 4);
    peer_expect_response(host, peer, 200, "body"); /* a body has a length */
    host_close(host);
}

/* ---------------------------------------------------------------- RESPOND_TRY */

static int32_t host_try(struct host *host, const struct rw_event *request, const void *data, size_t bytes) {
    host_flush(host);
    struct rw_command record = {.type = RW_COMMAND_RESPOND_TRY,
                                .slot = request->slot,
                                .generation = request->generation,
                                .request = request->request,
                                .stream = request->stream};
    return rw_core_command(host->core, &record, data, bytes);
}

static struct rw_event begin_sized(struct host *host, struct peer *peer, uint32_t bytes) {
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &request,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = bytes},
        "", 0);
    return request;
}

static void a_body_offered_is_taken_as_far_as_the_client_takes_it(void **state) {
    enum { BYTES = 8 << 20 };
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect_to(host, 8192);
    uint8_t *body = malloc(BYTES);
    assert_non_null(body);
    for (uint32_t i = 0; i < BYTES; i++) body[i] = (uint8_t)(i * 31 + (i >> 12));
    struct rw_event request = begin_sized(host, peer, BYTES);
    const struct rw_slot *slot = rw_core_slot(host->core, request.slot);
    uint32_t at = 0, refusals = 0;
    while (at < BYTES) {
        uint32_t offered = BYTES - at < 3000000 ? BYTES - at : 3000000;
        int32_t accepted = host_try(host, &request, body + at, offered);
        assert_in_range(accepted, 0, offered);
        assert_true(slot->out_bytes <= RW_RESPOND_TRY_WINDOW_BYTES);
        at += (uint32_t)accepted;
        if ((uint32_t)accepted == offered) continue;
        refusals++;
        /* The client has not read: nothing more is taken before it does. */
        assert_int_equal(host_try(host, &request, body + at, BYTES - at), 0);
        while (host->log_at == host->log_count) {
            host_turn(host);
            peer_pull(host, peer);
        }
        assert_int_equal(host_expect(host, RW_EVENT_RESPONSE_DRAIN)->event.request, 1);
        assert_int_equal(slot->out_bytes, 0);
    }
    assert_true(refusals > 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_head(host, peer, 200);
    peer_expect(host, peer, body, BYTES);
    host_expect_silence(host);
    free(body);
    peer_send_text(host, peer, GET("/"));
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "next");
    peer_expect_response(host, peer, 200, "next");
    assert_int_equal(host->core->stats->backpressure_connections, 0);
    host_close(host);
}

static void a_small_body_is_taken_whole_and_sent_with_its_head(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    struct rw_event request = begin_sized(host, peer, 5);
    assert_int_equal(host_try(host, &request, "hel", 3), 3);
    assert_int_equal(host_try(host, &request, "", 0), 0);
    peer_pull(host, peer);
    assert_int_equal(peer->in_bytes, 0);
    assert_int_equal(host_try(host, &request, "lo", 2), 2);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_response(host, peer, 200, "hello");
    host_expect_silence(host);
    host_close(host);
}

static void only_a_sized_response_that_is_under_way_takes_an_offer(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    assert_int_equal(host_try(host, &request, "x", 1), RW_ERR_INVALID); /* not begun */
    struct rw_event stale = request;
    stale.generation++;
    assert_int_equal(host_try(host, &stale, "x", 1), RW_ERR_STALE);
    stale = request;
    stale.request++;
    assert_int_equal(host_try(host, &stale, "x", 1), RW_ERR_STALE);
    stale = request;
    stale.stream = 1; /* HTTP/1 has one */
    assert_int_equal(host_try(host, &stale, "x", 1), RW_ERR_STALE);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    assert_int_equal(host_try(host, &request, "x", 1), RW_ERR_INVALID); /* chunked */
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    assert_int_equal(host_try(host, &request, "x", 1), RW_ERR_STALE); /* over */
    peer_expect_head(host, peer, 200);
    peer_expect_text(host, peer, "0\r\n\r\n");
    /* In a batch it would have no result, so it takes nothing there. */
    request = begin_sized(host, peer, 1);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_TRY}, "y", 1);
    assert_int_equal(host_try(host, &request, "x", 1), 1);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_response(host, peer, 200, "x");
    /* HEAD: taken, and not sent. */
    peer_send_text(host, peer, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &request,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = 100000},
        "", 0);
    static uint8_t body[100000];
    assert_int_equal(host_try(host, &request, body, sizeof body), sizeof body);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_head(host, peer, 200);
    assert_true(peer_head_has(peer, "Content-Length: 100000"));
    peer_expect_silence(host, peer);
    /* More than was promised. */
    request = begin_sized(host, peer, 1);
    assert_int_equal(host_try(host, &request, "xy", 2), RW_ERR_INVALID);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_LENGTH << 16);
    assert_int_equal(host_try(host, &request, "x", 1), RW_ERR_STALE);
    host_close(host);
}

static void an_offer_to_a_client_that_has_gone_is_stale_or_lost(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    static uint8_t body[1 << 20];
    struct rw_event request = begin_sized(host, peer, sizeof body);
    host_turns(host, 3);
    peer_close(host, peer);
    uint32_t at = 0;
    int32_t accepted = 0;
    for (uint32_t turn = 0; turn < 200 && accepted != RW_ERR_STALE && at < sizeof body; turn++) {
        accepted = host_try(host, &request, body + at, sizeof body - at);
        if (accepted > 0) at += (uint32_t)accepted;
        host_turn(host);
    }
    struct record *record;
    while ((record = host_poll(host)) != NULL && record->event.type == RW_EVENT_RESPONSE_DRAIN) continue;
    assert_non_null(record);
    assert_int_equal(record->event.type, RW_EVENT_ABORT);
    assert_int_equal(host_try(host, &request, body, 1), RW_ERR_STALE);
    host_close(host);
}

/* ---------------------------------------------------------------- ends */

static void a_client_that_leaves_aborts_its_request_once(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    peer_leave(host, peer);
    struct rw_event aborted = host_expect(host, RW_EVENT_ABORT)->event;
    assert_int_equal(aborted.arg0, (uint32_t)RW_ABORT_PEER_GONE << 16);
    assert_int_equal(aborted.request, 1);
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
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_BY_HOST << 16);
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
        if (type == RW_COMMAND_PUBLISH || type == RW_COMMAND_TERMINATE || type == RW_COMMAND_PAUSE ||
            type == RW_COMMAND_RESUME)
            continue;
        /* a request that is over */
        host_answer(host, &first, (struct rw_command){.type = (uint16_t)type, .arg0 = 200}, "", 0);
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
    host_command(host,
                 (struct rw_command){.type = RW_COMMAND_RESPOND,
                                     .slot = second.slot,
                                     .generation = second.generation,
                                     .request = second.request,
                                     .arg0 = 200},
                 "", 0);
    /* data outside of the area */
    ((struct rw_command *)(uintptr_t)host->info.commands)[host->commands - 1].offset = UINT32_MAX;
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
    rw_core_drain(host->core, 1001, 100, 0);
    peer_expect_end(host, idle);
    host_respond(host, &request, 200, "", "last");
    peer_expect_response(host, busy, 200, "last");
    assert_true(peer_head_has(busy, "Connection: close"));
    peer_expect_end(host, busy);
    host_close(host);
}

static void a_core_is_destroyed_with_everything_under_way(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    static const char *texts[] = {"", "GET / HT", GET("/"),
                                  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
                                  GET("/") GET("/") GET("/")};
    for (uint32_t i = 0; i < 5; i++) peer_send_text(host, peer_connect(host), texts[i]);
    for (struct record *record; (record = host_poll(host)) != NULL;) {
        if (record->event.type == RW_EVENT_REQUEST)
            host_answer(host, &record->event, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "",
                        0);
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
        ON_SIM(the_fields_of_the_core_stand_behind_those_of_the_host_in_one_order),
        ON_SIM(a_status_may_be_given_as_text),
        ON_SIM(a_status_text_cannot_end_its_line_nor_outgrow_its_data),
        ON_SIM(a_response_without_a_length_is_one_that_needs_none_or_closes),
        ON_EVERY_RING(a_body_offered_is_taken_as_far_as_the_client_takes_it),
        ON_EVERY_RING(a_small_body_is_taken_whole_and_sent_with_its_head),
        ON_EVERY_RING(only_a_sized_response_that_is_under_way_takes_an_offer),
        ON_EVERY_RING(an_offer_to_a_client_that_has_gone_is_stale_or_lost),
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
