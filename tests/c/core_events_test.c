/* Streams of events through the whole core: from their head to their end, and what keeps them awake. */
#include "core_fixture.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define GET10(target) "GET " target " HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
#define QUIET_MS 1000u

static struct rw_event begin_with(struct host *host, struct peer *peer, const char *request, uint32_t quiet_ms) {
    peer_send_text(host, peer, request);
    struct rw_event asked = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &asked,
                (struct rw_command){
                    .type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_EVENTS, .arg0 = 200, .arg1 = quiet_ms},
                "Content-Type: text/event-stream\r\n", 33);
    peer_expect_head(host, peer, 200);
    return asked;
}

static void say(struct host *host, const struct rw_event *stream, const char *text) {
    host_answer(host, stream, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, text, strlen(text));
}

static void end(struct host *host, const struct rw_event *stream) {
    host_answer(host, stream, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
}

static uint64_t streams(const struct host *host) { return host->core->stats->event_streams; }

static void a_quiet_stream_says_something_from_time_to_time(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host), *old = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"), QUIET_MS);
    (void)begin_with(host, old, GET10("/"), QUIET_MS);
    assert_int_equal(streams(host), 2);
    host_pass_time(host, QUIET_MS / 2);
    peer_expect_silence(host, peer);
    for (int i = 0; i < 3; i++) {
        host_pass_time(host, QUIET_MS + 100);
        peer_expect_text(host, peer, "3\r\n:\n\n\r\n");
        peer_expect_text(host, old, ":\n\n");
    }
    /* what is said counts */
    say(host, &stream, "data: 1\n\n");
    peer_expect_text(host, peer, "9\r\ndata: 1\n\n\r\n");
    host_pass_time(host, QUIET_MS / 2);
    peer_expect_silence(host, peer);
    host_pass_time(host, QUIET_MS);
    peer_expect_text(host, peer, "3\r\n:\n\n\r\n");
    host_close(host);
}

static void without_a_time_it_stays_silent(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    (void)begin_with(host, peer, GET("/"), 0);
    host_pass_time(host, 100000);
    peer_expect_silence(host, peer);
    assert_int_equal(peer->ended, 0);
    host_close(host);
}

static void its_connection_serves_the_next_request_when_it_has_ended(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"), QUIET_MS);
    assert_false(peer_head_has(peer, "Connection: close"));
    end(host, &stream);
    peer_expect_text(host, peer, "0\r\n\r\n");
    assert_int_equal(streams(host), 0);
    host_pass_time(host, 3 * QUIET_MS);
    peer_expect_silence(host, peer);
    peer_send_text(host, peer, GET("/next"));
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "next");
    peer_expect_response(host, peer, 200, "next");
    host_close(host);
}

static void one_of_http_1_0_ends_with_its_connection(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET10("/"), QUIET_MS);
    assert_true(peer_head_has(peer, "Connection: close") && !peer_head_has(peer, "Transfer-Encoding: chunked"));
    say(host, &stream, "data: 1\n\n");
    peer_expect_text(host, peer, "data: 1\n\n");
    end(host, &stream);
    peer_expect_end(host, peer);
    assert_int_equal(peer->in_bytes, 0);
    host_close(host);
}

static void a_request_behind_it_waits_and_it_stays_awake(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/") GET("/behind"), QUIET_MS);
    host_expect_silence(host);
    host_pass_time(host, QUIET_MS + 100);
    peer_expect_text(host, peer, "3\r\n:\n\n\r\n");
    end(host, &stream);
    peer_expect_text(host, peer, "0\r\n\r\n");
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "behind");
    peer_expect_response(host, peer, 200, "behind");
    host_close(host);
}

static void the_answer_to_head_is_no_stream(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    const struct rw_event asked = begin_with(host, peer, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", QUIET_MS);
    assert_int_equal(streams(host), 0);
    end(host, &asked);
    peer_send_text(host, peer, GET("/next"));
    host_respond(host, &host_expect(host, RW_EVENT_REQUEST)->event, 200, "", "next");
    peer_expect_response(host, peer, 200, "next");
    host_close(host);
}

static void the_end_of_its_client_is_told_once(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    (void)begin_with(host, peer, GET("/"), QUIET_MS);
    peer_close(host, peer);
    host_turns(host, 5);
    host_pass_time(host, 2 * QUIET_MS);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_PEER_GONE << 16);
    host_expect_silence(host);
    host_turns(host, 10);
    assert_int_equal(streams(host), 0);
    host_close(host);
}

static void one_that_says_something_to_nobody_ends_by_the_write_timeout(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.write_timeout_ms = 5000});
    struct peer *peer = peer_connect_to(host, 4096);
    const struct rw_event stream = begin_with(host, peer, GET("/"), QUIET_MS);
    char *much = calloc(1, 8000000);
    assert_non_null(much);
    memset(much, 'x', 7999999);
    say(host, &stream, much);
    free(much);
    host_turns(host, 20);
    host_pass_time(host, 7000);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_WRITE_TIMEOUT << 16);
    host_turns(host, 10);
    assert_int_equal(streams(host), 0);
    host_close(host);
}

static void a_drain_ends_streams_one_after_the_other(void **state) {
    enum { COUNT = 60, OVER_MS = 600 }; /* no faster than 10 ms a stream */
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peers[COUNT];
    for (int i = 0; i < COUNT; i++) {
        peers[i] = peer_connect(host);
        (void)begin_with(host, peers[i], GET("/"), QUIET_MS);
    }
    rw_core_drain(host->core, 1001, OVER_MS, 2000);
    host_turns(host, 2);
    assert_true(streams(host) > COUNT / 2);
    host_pass_time(host, OVER_MS / 3);
    assert_in_range(streams(host), 1, COUNT - 1);
    host_pass_time(host, 4 * OVER_MS);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_DRAINED << 16);
        peer_expect_text(host, peers[i], "0\r\n\r\n");
        peer_expect_end(host, peers[i]);
    }
    assert_int_equal(streams(host), 0);
    assert_int_equal(host->core->stats->http_aborts, 0);
    host_expect_silence(host);
    host_close(host);
}

static void one_that_begins_while_a_drain_ends_does_not_stay(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    const struct rw_event asked = host_expect(host, RW_EVENT_REQUEST)->event;
    rw_core_drain(host->core, 1001, 100, 60000);
    host_pass_time(host, 500);
    host_answer(host, &asked,
                (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_EVENTS, .arg0 = 200}, "", 0);
    peer_expect_head(host, peer, 200);
    host_pass_time(host, 500);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0, (uint32_t)RW_ABORT_DRAINED << 16);
    peer_expect_text(host, peer, "0\r\n\r\n");
    peer_expect_end(host, peer);
    host_close(host);
}

/* ------------------------------------------------------------------ topics */

static int32_t subscribe(struct host *host, const struct rw_event *stream, const char *topic) {
    const struct rw_command command = {
        .type = RW_COMMAND_SUBSCRIBE, .slot = stream->slot, .generation = stream->generation};
    host_flush(host);
    return rw_core_command(host->core, &command, (const uint8_t *)topic, strlen(topic));
}

static void publish(struct host *host, const char *topic, const char *text) {
    host_publish(host, NULL, topic, RW_SEND_TEXT, text, strlen(text));
}

static void say_event(struct host *host, const struct rw_event *stream, const char *rest) {
    host_answer(host, stream, (struct rw_command){.type = RW_COMMAND_RESPOND_EVENT}, rest, strlen(rest));
}

static size_t put_place(uint8_t *out, uint64_t epoch, uint64_t offset, const char *name) {
    const uint32_t bytes = (uint32_t)strlen(name);
    memcpy(out, &epoch, 8);
    memcpy(out + 8, &offset, 8);
    memcpy(out + 16, &bytes, 4);
    memcpy(out + 20, name, bytes);
    return 20 + bytes;
}

static void messages_of_a_topic_are_events_of_all_its_streams(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host), *old = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"), 0);
    const struct rw_event plain = begin_with(host, old, GET10("/"), 0);
    struct rw_event open;
    struct peer *socket = peer_open_ws(host, 7, &open);
    assert_int_equal(subscribe(host, &stream, "news"), 1);
    assert_int_equal(subscribe(host, &stream, "news"), 0);
    assert_int_equal(subscribe(host, &plain, "news"), 1);
    host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "news");
    publish(host, "news", "one\ntwo");
    host_publish(host, NULL, "news", 0, "\x01\x02\x03", 3);
    peer_expect_text(host, peer, "15\r\ndata: one\ndata: two\n\n\r\n");
    peer_expect_text(host, peer, "1a\r\nevent: base64\ndata: AQID\n\n\r\n");
    peer_expect_text(host, old, "data: one\ndata: two\n\nevent: base64\ndata: AQID\n\n");
    peer_expect_frame(host, socket, FIN_TEXT, "one\ntwo", 7);
    peer_expect_frame(host, socket, FIN_BINARY, "\x01\x02\x03", 3);
    assert_int_equal(host->core->stats->event_messages_out, 4);
    host_topic(host, &stream, RW_COMMAND_UNSUBSCRIBE, "news");
    publish(host, "news", "three");
    peer_expect_text(host, old, "data: three\n\n");
    peer_expect_silence(host, peer);
    host_close(host);
}

static void what_is_no_stream_hears_no_topics(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    const struct rw_event asked = host_expect(host, RW_EVENT_REQUEST)->event;
    assert_int_equal(subscribe(host, &asked, "news"), RW_ERR_STALE);
    host_answer(host, &asked, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    assert_int_equal(subscribe(host, &asked, "news"), RW_ERR_STALE);
    say_event(host, &asked, "data: 1\n\n");
    end(host, &asked);
    peer_expect_head(host, peer, 200);
    peer_expect_text(host, peer, "0\r\n\r\n");
    host_close(host);
}

static void the_next_request_hears_nothing_of_a_stream_that_has_ended(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"), 0);
    assert_int_equal(subscribe(host, &stream, "news"), 1);
    publish(host, "news", "1");
    end(host, &stream);
    publish(host, "news", "2");
    peer_expect_text(host, peer, "9\r\ndata: 1\n\n\r\n0\r\n\r\n");
    assert_int_equal(host->core->stats->subscriptions, 0);
    peer_send_text(host, peer, GET("/next"));
    const struct rw_event next = host_expect(host, RW_EVENT_REQUEST)->event;
    publish(host, "news", "3");
    host_topic(host, &next, RW_COMMAND_UNSUBSCRIBE, "news");
    host_respond(host, &next, 200, "", "next");
    peer_expect_response(host, peer, 200, "next");
    peer_expect_silence(host, peer);
    host_close(host);
}

static void with_places_events_name_their_topic_and_ids_name_all_places(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host), *old = peer_connect(host);
    uint8_t places[256];
    size_t bytes = put_place(places, 0xC0FFEE, 7, "a");
    bytes += put_place(places + bytes, 0, 0, "b");
    struct rw_event streams_of[2] = {begin_with(host, peer, GET("/"), 0), begin_with(host, old, GET10("/"), 0)};
    for (int i = 0; i < 2; i++) {
        host_answer(host, &streams_of[i], (struct rw_command){.type = RW_COMMAND_RESPOND_PLACES}, places, bytes);
        assert_int_equal(subscribe(host, &streams_of[i], "a"), 1);
        assert_int_equal(subscribe(host, &streams_of[i], "b"), 1);
        /* once only, and before any subscription */
        host_answer(host, &streams_of[i], (struct rw_command){.type = RW_COMMAND_RESPOND_PLACES}, places, 21);
        say_event(host, &streams_of[i], "event: hello\ndata: x\n\n");
        say_event(host, &streams_of[i], "\n");
    }
    publish(host, "b", "text");
    peer_expect_text(host, peer, "2f\r\nid: 0000000000c0ffee:7,-\nevent: hello\ndata: x\n\n\r\n");
    peer_expect_text(host, peer, "1a\r\nid: 0000000000c0ffee:7,-\n\n\r\n");
    peer_expect_text(host, peer, "3c\r\nid: 0000000000c0ffee:7,-\ndata: {\"topic\":\"b\",\"data\":\"text\"}\n\n\r\n");
    peer_expect_text(host, old,
                     "id: 0000000000c0ffee:7,-\nevent: hello\ndata: x\n\nid: 0000000000c0ffee:7,-\n\n"
                     "id: 0000000000c0ffee:7,-\ndata: {\"topic\":\"b\",\"data\":\"text\"}\n\n");
    host_close(host);
}

static void without_positions_there_is_no_id(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"), 0);
    assert_int_equal(subscribe(host, &stream, "a"), 1);
    say_event(host, &stream, "\n");
    say_event(host, &stream, "event: hello\ndata: x\n\n");
    peer_expect_text(host, peer, "16\r\nevent: hello\ndata: x\n\n\r\n");
    host_close(host);
}

static void places_that_are_none_change_nothing(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"), 0);
    uint8_t places[2048] = {0};
    const size_t bytes = put_place(places, 1, 2, "a");
    for (size_t i = 0; i < bytes; i++)
        host_answer(host, &stream, (struct rw_command){.type = RW_COMMAND_RESPOND_PLACES}, places, i);
    places[16] = 0;
    host_answer(host, &stream, (struct rw_command){.type = RW_COMMAND_RESPOND_PLACES}, places, bytes);
    const uint32_t too_long = RW_TOPIC_BYTES_MAX + 1;
    memcpy(places + 16, &too_long, 4);
    host_answer(host, &stream, (struct rw_command){.type = RW_COMMAND_RESPOND_PLACES}, places, sizeof places);
    assert_int_equal(subscribe(host, &stream, "a"), 1);
    publish(host, "a", "1");
    peer_expect_text(host, peer, "9\r\ndata: 1\n\n\r\n");
    host_close(host);
}

static void one_that_takes_no_more_of_a_direct_topic_is_ended(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.response_high_water_bytes = 20000});
    struct peer *slow = peer_connect_to(host, 4096), *quick = peer_connect(host);
    const struct rw_event one = begin_with(host, slow, GET("/"), 0);
    const struct rw_event two = begin_with(host, quick, GET("/"), 0);
    assert_int_equal(subscribe(host, &one, "a"), 1);
    assert_int_equal(subscribe(host, &two, "a"), 1);
    char text[10001];
    memset(text, 't', sizeof text - 1);
    text[sizeof text - 1] = 0;
    uint32_t published = 0;
    while (host->core->stats->closes_backpressure == 0 && published++ < 2000) {
        publish(host, "a", text);
        host_turn(host);
        peer_expect_text(host, quick, "2718\r\ndata: ");
        peer_expect(host, quick, text, sizeof text - 1);
        peer_expect_text(host, quick, "\n\n\r\n");
    }
    assert_in_range(published, 2, 1999);
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.slot, one.slot);
    assert_int_equal(host->core->stats->subscriptions, 1);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_quiet_stream_says_something_from_time_to_time),
        ON_EVERY_RING(without_a_time_it_stays_silent),
        ON_EVERY_RING(its_connection_serves_the_next_request_when_it_has_ended),
        ON_EVERY_RING(one_of_http_1_0_ends_with_its_connection),
        ON_EVERY_RING(a_request_behind_it_waits_and_it_stays_awake),
        ON_EVERY_RING(the_answer_to_head_is_no_stream),
        ON_EVERY_RING(the_end_of_its_client_is_told_once),
        ON_REAL_RINGS(one_that_says_something_to_nobody_ends_by_the_write_timeout),
        ON_EVERY_RING(a_drain_ends_streams_one_after_the_other),
        ON_EVERY_RING(one_that_begins_while_a_drain_ends_does_not_stay),
        ON_EVERY_RING(messages_of_a_topic_are_events_of_all_its_streams),
        ON_EVERY_RING(what_is_no_stream_hears_no_topics),
        ON_EVERY_RING(the_next_request_hears_nothing_of_a_stream_that_has_ended),
        ON_EVERY_RING(with_places_events_name_their_topic_and_ids_name_all_places),
        ON_EVERY_RING(without_positions_there_is_no_id),
        ON_EVERY_RING(places_that_are_none_change_nothing),
        ON_REAL_RINGS(one_that_takes_no_more_of_a_direct_topic_is_ended),
    };
    return cmocka_run_group_tests_name("core_events", tests, NULL, NULL);
}
