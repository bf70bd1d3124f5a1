/* Streams of events that hear logged topics: ids are where a client goes on, also of one that reads slowly, or hears several
 * topics. */
#include "core_fixture.h"

#include "delivery/delivery.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define GET10(target) "GET " target " HTTP/1.0\r\nHost: a\r\n\r\n"
#define WORKERS 2u
#define HIGH_WATER_BYTES 20000u

static int32_t node = -1;
static struct host *hosts[WORKERS];

static struct host *open_node(void **state) {
    node = rw_shm_create(WORKERS, 65536, 0, (uint64_t)16 << 20);
    assert_true(node >= 0);
    for (uint32_t i = 0; i < WORKERS; i++) {
        const struct rw_core_config config = {
            .shm_fd = node, .worker_index = i, .worker_count = WORKERS, .response_high_water_bytes = HIGH_WATER_BYTES};
        hosts[i] = host_open(state, &config);
    }
    return hosts[0];
}

static void close_node(void) {
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(rw_topics_lags(hosts[i]->core->topics), 0);
        host_close(hosts[i]);
    }
    close(node);
}

static struct rw_log_call call_of(const char *topic, const char *text, uint32_t size, uint8_t *room) {
    const uint32_t topic_bytes = (uint32_t)strlen(topic);
    memcpy(room, topic, topic_bytes);
    memcpy(room + topic_bytes, text, strlen(text));
    return (struct rw_log_call){.topic_bytes = topic_bytes,
                                .payload_bytes = (uint32_t)strlen(text),
                                .flags = RW_SEND_TEXT,
                                .size = size,
                                .seconds = 300,
                                .origin_worker = RW_NO_SLOT,
                                .origin_slot = RW_NO_SLOT};
}

static struct rw_position append_to(struct host *host, const char *topic, const char *text, uint32_t size) {
    static uint8_t room[20000];
    host_flush(host);
    struct rw_log_call call = call_of(topic, text, size, room);
    assert_int_equal(rw_core_log_append(host->core, &call, room), 0);
    return (struct rw_position){call.epoch, call.offset};
}

static struct rw_position append(struct host *host, const char *topic, const char *text) {
    return append_to(host, topic, text, 100);
}

static struct rw_log_call attach(struct host *host, const struct rw_event *stream, const char *topic,
                                 const struct rw_position *since) {
    uint8_t room[64];
    host_flush(host);
    struct rw_log_call call = call_of(topic, "", 100, room);
    if (since) {
        call.has_position = 1;
        call.epoch = since->epoch;
        call.offset = since->offset;
    }
    assert_int_equal(rw_core_attach(host->core, stream->slot, stream->generation, &call, room), 1);
    return call;
}

static struct rw_event begin_with(struct host *host, struct peer *peer, const char *request) {
    peer_send_text(host, peer, request);
    const struct rw_event asked = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &asked,
                (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_EVENTS, .arg0 = 200}, "", 0);
    peer_expect_head(host, peer, 200);
    return asked;
}

static void say_event(struct host *host, const struct rw_event *stream, const char *rest) {
    host_answer(host, stream, (struct rw_command){.type = RW_COMMAND_RESPOND_EVENT}, rest, strlen(rest));
}

static void expect_plain(struct host *host, struct peer *peer, struct rw_position at, const char *rest) {
    char text[512];
    (void)snprintf(text, sizeof text, "id: %016llx:%llu\n%s", (unsigned long long)at.epoch,
                   (unsigned long long)at.offset, rest);
    peer_expect_text(host, peer, text);
}

/* As a chunk. */
static void expect_event(struct host *host, struct peer *peer, const char *id, const char *rest) {
    char text[1024];
    (void)snprintf(text, sizeof text, "%zx\r\nid: %s\n%s\r\n", strlen(id) + 5 + strlen(rest), id, rest);
    peer_expect_text(host, peer, text);
}

static const char *place(struct rw_position at) {
    static char texts[4][40];
    static uint32_t next;
    char *text = texts[next++ % 4];
    (void)snprintf(text, sizeof texts[0], "%016llx:%llu", (unsigned long long)at.epoch, (unsigned long long)at.offset);
    return text;
}

static void messages_come_with_their_positions_from_where_a_client_was(void **state) {
    struct host *host = open_node(state);
    struct rw_position at[4];
    at[0] = append(hosts[1], "room", "one");
    at[1] = append(host, "room", "two");
    struct peer *peer = peer_connect(host), *old = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"));
    const struct rw_event plain = begin_with(host, old, GET10("/"));
    struct rw_log_call call = attach(host, &stream, "room", &at[0]);
    assert_int_equal(call.result, RW_ATTACH_RECOVERED | 1);
    (void)attach(host, &plain, "room", NULL);
    say_event(host, &stream, "\n");
    say_event(host, &plain, "event: hello\ndata: x\n\n");
    at[2] = append(hosts[1], "room", "three\nlines\r\nof it");
    host_turn(hosts[1]);
    at[3] = append(host, "room", "four");
    expect_event(host, peer, place(at[1]), "data: two\n\n");
    expect_event(host, peer, place(at[1]), "\n");
    expect_event(host, peer, place(at[2]), "data: three\ndata: lines\ndata: of it\n\n");
    expect_event(host, peer, place(at[3]), "data: four\n\n");
    expect_plain(host, old, at[1], "event: hello\ndata: x\n\n");
    expect_plain(host, old, at[2], "data: three\ndata: lines\ndata: of it\n\n");
    expect_plain(host, old, at[3], "data: four\n\n");
    close_node();
}

static size_t put_place(uint8_t *out, struct rw_position at, const char *name) {
    const uint32_t bytes = (uint32_t)strlen(name);
    memcpy(out, &at.epoch, 8);
    memcpy(out + 8, &at.offset, 8);
    memcpy(out + 16, &bytes, 4);
    memcpy(out + 20, name, bytes);
    return 20 + bytes;
}

static void of_several_topics_the_id_has_all_places_from_the_first_event_on(void **state) {
    struct host *host = open_node(state);
    const struct rw_position a1 = append(host, "a", "1"), b1 = append(host, "b", "1");
    const struct rw_position a2 = append(host, "a", "2"), b2 = append(host, "b", "2");
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"));
    uint8_t places[256];
    size_t bytes = put_place(places, a1, "a");
    bytes += put_place(places + bytes, b1, "b");
    bytes += put_place(places + bytes, (struct rw_position){0, 0}, "c");
    host_answer(host, &stream, (struct rw_command){.type = RW_COMMAND_RESPOND_PLACES}, places, bytes);
    (void)attach(host, &stream, "a", &a1);
    (void)attach(host, &stream, "b", &b1);
    char id[160], data[160];
#define EXPECT(first, second, third, topic, at, text)                                                               \
    do {                                                                                                            \
        (void)snprintf(id, sizeof id, "%s,%s,%s", place(first), place(second), third);                              \
        (void)snprintf(data, sizeof data,                                                                           \
                       "data: {\"topic\":\"%s\",\"epoch\":\"%016llx\",\"offset\":%llu,\"data\":\"%s\"}\n\n", topic, \
                       (unsigned long long)(at).epoch, (unsigned long long)(at).offset, text);                      \
        expect_event(host, peer, id, data);                                                                         \
    } while (0)
    EXPECT(a2, b1, "-", "a", a2, "2");
    EXPECT(a2, b2, "-", "b", b2, "2");
    (void)attach(host, &stream, "c", NULL);
    const struct rw_position c1 = append(hosts[1], "c", "1");
    host_turn(hosts[1]);
    EXPECT(a2, b2, place(c1), "c", c1, "1");
    const struct rw_position a3 = append(host, "a", "3");
    EXPECT(a3, b2, place(c1), "a", a3, "3");
#undef EXPECT
    close_node();
}

static void where_the_log_has_not_all_of_it_the_host_says_so_with_the_present_id(void **state) {
    struct host *host = open_node(state);
    struct rw_position at = append_to(host, "room", "1", 2);
    const struct rw_position first = at;
    for (int i = 0; i < 9; i++) at = append_to(host, "room", "more", 2);
    struct peer *peer = peer_connect(host);
    const struct rw_event stream = begin_with(host, peer, GET("/"));
    struct rw_log_call call = attach(host, &stream, "room", &first);
    assert_false(call.result & RW_ATTACH_RECOVERED);
    peer_expect_silence(host, peer);
    say_event(host, &stream, "event: lost\ndata: x\n\n");
    expect_event(host, peer, place(at), "event: lost\ndata: x\n\n");
    close_node();
}

/* Numbered messages of 5000 bytes. */
static void fill(struct host *host, const char *topic, uint32_t messages, uint32_t size) {
    char text[5001];
    for (uint32_t i = 1; i <= messages; i++) {
        memset(text, 'f', sizeof text);
        text[5000] = 0;
        (void)snprintf(text, 12, "%010u", i);
        text[10] = '.';
        (void)append_to(host, topic, text, size);
        host_turn(host);
    }
}

/* All that comes up to `last`, which must be numbers that grow by one from `from`; or a gap behind `lost`. */
static uint32_t read_numbers(struct host *host, struct peer *peer, uint32_t from, uint32_t last, uint32_t *losses) {
    uint32_t next = from, heard = 0;
    while (next <= last) {
        for (;;) { /* a whole event */
            uint8_t *end = peer->in_bytes > 4 ? memmem(peer->in, peer->in_bytes, "\n\n\r\n", 4) : NULL;
            if (end) break;
            peer_wait_bytes(host, peer, peer->in_bytes + 1);
        }
        uint8_t *end = memmem(peer->in, peer->in_bytes, "\n\n\r\n", 4);
        const size_t bytes = (size_t)(end - peer->in) + 4;
        uint8_t *lost = memmem(peer->in, bytes, "event: lost\n", 12);
        uint8_t *offset = memmem(peer->in, bytes, ":", 1); /* the colon of "id:" */
        offset = memmem(offset + 1, bytes - (size_t)(offset + 1 - peer->in), ":", 1);
        const uint32_t at = (uint32_t)strtoul((const char *)offset + 1, NULL, 10);
        if (lost) {
            ++*losses;
            assert_true(at >= next);
        } else {
            assert_int_equal(at, next);
            const uint8_t *data = memmem(peer->in, bytes, "data: ", 6);
            assert_int_equal(strtoul((const char *)data + 6, NULL, 10), at);
            heard++;
        }
        next = at + 1;
        peer_consume(peer, bytes);
    }
    return heard;
}

static void one_that_reads_slowly_goes_on_from_the_log(void **state) {
    struct host *host = open_node(state);
    struct peer *slow = peer_connect_to(host, 4096), *quick = peer_connect(host);
    const struct rw_event stream = begin_with(host, slow, GET("/")), other = begin_with(host, quick, GET("/"));
    (void)attach(host, &stream, "room", NULL);
    (void)attach(host, &other, "room", NULL);
    fill(host, "room", 900, 1000);
    assert_in_range(rw_topics_lags(host->core->topics), 1, 2);
    assert_true(rw_core_slot(host->core, stream.slot)->out_bytes <= HIGH_WATER_BYTES);
    uint32_t losses = 0;
    assert_int_equal(read_numbers(host, quick, 1, 900, &losses), 900);
    assert_int_equal(read_numbers(host, slow, 1, 900, &losses), 900);
    assert_int_equal(losses, 0);
    host_turns(host, 5);
    assert_int_equal(rw_topics_lags(host->core->topics), 0);
    close_node();
}

static void one_that_the_log_has_gone_past_is_told_and_goes_on(void **state) {
    struct host *host = open_node(state);
    struct peer *slow = peer_connect_to(host, 4096);
    const struct rw_event stream = begin_with(host, slow, GET("/"));
    (void)attach(host, &stream, "room", NULL);
    fill(host, "room", 2000, 3);
    uint32_t losses = 0;
    assert_in_range(read_numbers(host, slow, 1, 2000, &losses), 3, 1990);
    assert_true(losses > 0);
    close_node();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(messages_come_with_their_positions_from_where_a_client_was),
        ON_EVERY_RING(of_several_topics_the_id_has_all_places_from_the_first_event_on),
        ON_EVERY_RING(where_the_log_has_not_all_of_it_the_host_says_so_with_the_present_id),
        ON_REAL_RINGS(one_that_reads_slowly_goes_on_from_the_log),
        ON_REAL_RINGS(one_that_the_log_has_gone_past_is_told_and_goes_on),
    };
    return cmocka_run_group_tests_name("core_events_logged", tests, NULL, NULL);
}
