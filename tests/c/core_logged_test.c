/* Logged topics through whole cores: two workers of a node, who hear a log in the order of its offsets whoever appends,
 * attach to it without a seam, lag behind it and catch up, or are told. */
#include "core_fixture.h"

#include "delivery/delivery.h"
#include "state/logs.h"

#define WORKERS 2u
#define RAW 7u
#define JSON 8u
#define KEPT 100u /* entries of a log, unless a test says otherwise */

static int32_t node = -1;
static struct host *hosts[WORKERS];

static void open_worker(void **state, uint32_t index, struct rw_behavior behavior, uint32_t flags) {
    const struct rw_core_config config = {
        .shm_fd = node, .worker_index = index, .worker_count = WORKERS, .flags = flags, .topics_per_socket = 5};
    hosts[index] = host_open(state, &config);
    host_behavior(hosts[index], RAW, behavior);
    behavior.flags |= RW_BEHAVIOR_POSITIONS;
    host_behavior(hosts[index], JSON, behavior);
}

static void open_node(void **state, struct rw_behavior behavior, uint32_t flags) {
    node = rw_shm_create(WORKERS, 65536, 0, (uint64_t)16 << 20);
    assert_true(node >= 0);
    for (uint32_t i = 0; i < WORKERS; i++) open_worker(state, i, behavior, flags);
}

static void close_node(void) {
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(rw_topics_lags(hosts[i]->core->topics), 0);
        host_close(hosts[i]);
    }
    close(node);
}

/* ---------------------------------------------------------------- what the host says */

static struct rw_log_call call_of(const char *topic, const void *payload, size_t bytes, uint8_t *room) {
    uint32_t topic_bytes = (uint32_t)strlen(topic);
    memcpy(room, topic, topic_bytes);
    if (bytes) memcpy(room + topic_bytes, payload, bytes);
    return (struct rw_log_call){.topic_bytes = topic_bytes,
                                .payload_bytes = (uint32_t)bytes,
                                .flags = RW_SEND_TEXT,
                                .size = KEPT,
                                .seconds = 300,
                                .origin_worker = RW_NO_SLOT,
                                .origin_slot = RW_NO_SLOT};
}

static struct rw_position append_of(struct host *host, const struct rw_event *by, const char *topic,
                                    const void *payload, size_t bytes, uint32_t size) {
    static uint8_t room[200000];
    host_flush(host);
    struct rw_log_call call = call_of(topic, payload, bytes, room);
    call.size = size;
    if (by) {
        call.origin_slot = by->slot;
        call.origin_generation = by->generation;
    }
    assert_int_equal(rw_core_log_append(host->core, &call, room), 0);
    return (struct rw_position){call.epoch, call.offset};
}

static struct rw_position append(struct host *host, const char *topic, const char *text) {
    return append_of(host, NULL, topic, text, strlen(text), KEPT);
}

/* Into the log alone: nobody is told, as when a record is lost. */
static struct rw_position append_quietly(struct host *host, const char *topic, const char *text, uint32_t size) {
    const struct rw_state_name name = rw_state_name((const uint8_t *)topic, (uint32_t)strlen(topic));
    const struct rw_log_entry entry = {
        .payload = (const uint8_t *)text, .bytes = (uint32_t)strlen(text), .flags = RW_SEND_TEXT};
    const struct rw_log_limits limits = {size, 300};
    struct rw_position position;
    assert_int_equal(
        rw_log_append(host->core->state, &name, &entry, NULL, &limits, rw_logged_now_ms(), &position, NULL), RW_OK);
    return position;
}

static int32_t attach(struct host *host, const struct rw_event *open, const char *topic,
                      const struct rw_position *since, struct rw_log_call *call) {
    uint8_t room[64];
    host_flush(host);
    *call = call_of(topic, NULL, 0, room);
    if (since) {
        call->has_position = 1;
        call->epoch = since->epoch;
        call->offset = since->offset;
    }
    return rw_core_attach(host->core, open->slot, open->generation, call, room);
}

static void attach_now(struct host *host, const struct rw_event *open, const char *topic) {
    struct rw_log_call call;
    assert_int_equal(attach(host, open, topic, NULL, &call), 1);
    assert_int_equal(call.result, 0);
    assert_true(call.epoch != 0);
}

static struct peer *open_attached(struct host *host, uint32_t behavior, const char *topic, struct rw_event *open) {
    struct peer *peer = peer_open_ws(host, behavior, open);
    attach_now(host, open, topic);
    return peer;
}

static const char *json(const char *topic, struct rw_position at, const char *rest) {
    static char line[512];
    (void)snprintf(line, sizeof line, "{\"topic\":\"%s\",\"epoch\":\"%016llx\",\"offset\":%llu,%s}", topic,
                   (unsigned long long)at.epoch, (unsigned long long)at.offset, rest);
    return line;
}

static void expect_json(struct host *host, struct peer *peer, const char *topic, struct rw_position at,
                        const char *rest) {
    const char *line = json(topic, at, rest);
    peer_expect_frame(host, peer, FIN_TEXT, line, strlen(line));
}

static void expect_text(struct host *host, struct peer *peer, const char *text) {
    peer_expect_frame(host, peer, FIN_TEXT, text, strlen(text));
}

/* ---------------------------------------------------------------- delivery */

static void every_worker_delivers_in_the_order_of_the_log_whoever_appends(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event raw[WORKERS], positions[WORKERS];
    struct peer *in_raw[WORKERS], *in_positions[WORKERS];
    for (uint32_t i = 0; i < WORKERS; i++) {
        in_raw[i] = open_attached(hosts[i], RAW, "room", &raw[i]);
        in_positions[i] = open_attached(hosts[i], JSON, "room", &positions[i]);
    }
    struct rw_position at[3];
    at[0] = append(hosts[0], "room", "one");
    at[1] = append_of(hosts[1], &raw[1], "room", "two", 3, KEPT); /* its own connection does not get it */
    at[2] = append_of(hosts[0], &positions[0], "room", "three", 5, KEPT);
    assert_int_equal(at[0].offset, 1);
    assert_int_equal(at[2].offset, 3);
    assert_true(at[0].epoch == at[2].epoch);
    for (uint32_t i = 0; i < WORKERS; i++) {
        expect_text(hosts[i], in_raw[i], "one");
        if (i != 1) expect_text(hosts[i], in_raw[i], "two");
        expect_text(hosts[i], in_raw[i], "three");
        expect_json(hosts[i], in_positions[i], "room", at[0], "\"data\":\"one\"");
        expect_json(hosts[i], in_positions[i], "room", at[1], "\"data\":\"two\"");
        if (i != 0) expect_json(hosts[i], in_positions[i], "room", at[2], "\"data\":\"three\"");
        peer_expect_silence(hosts[i], in_raw[i]);
        peer_expect_silence(hosts[i], in_positions[i]);
    }
    assert_int_equal(hosts[0]->core->stats->topic_appends, 2);
    assert_int_equal(hosts[0]->core->stats->deliveries + hosts[1]->core->stats->deliveries, 10);
    close_node();
}

static void a_slot_that_is_another_connection_by_now_is_not_left_out(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event first, second;
    struct peer *peer = peer_open_ws(hosts[0], RAW, &first);
    peer_close(hosts[0], peer);
    (void)host_expect(hosts[0], RW_EVENT_CLOSE);
    host_turns(hosts[0], 5);
    peer = open_attached(hosts[0], RAW, "room", &second);
    assert_int_equal(first.slot, second.slot);
    (void)append_of(hosts[0], &first, "room", "hello", 5, KEPT);
    expect_text(hosts[0], peer, "hello");
    close_node();
}

static void subscribers_of_a_direct_topic_hear_what_is_appended_to_it(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event open[WORKERS];
    struct peer *peers[WORKERS];
    (void)append_quietly(hosts[0], "room", "long ago", KEPT);
    for (uint32_t i = 0; i < WORKERS; i++) {
        peers[i] = peer_open_ws(hosts[i], i == 0 ? RAW : JSON, &open[i]);
        host_topic(hosts[i], &open[i], RW_COMMAND_SUBSCRIBE, "room");
        host_turn(hosts[i]);
    }
    struct rw_position at = append(hosts[1], "room", "now");
    host_turn(hosts[1]);
    expect_text(hosts[0], peers[0], "now");
    expect_json(hosts[1], peers[1], "room", at, "\"data\":\"now\"");
    /* What is published past the log has no position, and moves nothing. */
    host_publish(hosts[0], NULL, "room", RW_SEND_TEXT, "direct", 6);
    host_turn(hosts[0]);
    expect_text(hosts[0], peers[0], "direct");
    expect_text(hosts[1], peers[1], "{\"topic\":\"room\",\"data\":\"direct\"}");
    at = append(hosts[0], "room", "then");
    host_turn(hosts[0]);
    assert_int_equal(at.offset, 3);
    expect_text(hosts[0], peers[0], "then");
    expect_json(hosts[1], peers[1], "room", at, "\"data\":\"then\"");
    close_node();
}

static void what_nobody_was_told_of_is_found_within_a_second(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event open;
    struct peer *peer = open_attached(hosts[1], JSON, "room", &open);
    struct rw_position first = append_quietly(hosts[0], "room", "lost on its way", KEPT);
    struct rw_position second = append_quietly(hosts[0], "room", "this too", KEPT);
    peer_expect_silence(hosts[1], peer);
    host_pass_time(hosts[1], 1200);
    expect_json(hosts[1], peer, "room", first, "\"data\":\"lost on its way\"");
    expect_json(hosts[1], peer, "room", second, "\"data\":\"this too\"");
    host_pass_time(hosts[1], 2400);
    peer_expect_silence(hosts[1], peer);
    /* A core with such a topic does not sleep for longer. */
    assert_in_range(rw_delivery_due_ms(hosts[1]->core), 0, 1000);
    close_node();
}

static void a_presence_log_is_told_as_json_and_names_its_topic(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event raw, positions;
    struct peer *in_raw = peer_open_ws(hosts[0], RAW, &raw), *in_positions = peer_open_ws(hosts[0], JSON, &positions);
    static const uint8_t name[] = {0, 'p', 'r', 'o', 'o', 'm'};
    uint8_t bytes[64];
    struct rw_log_call call = call_of("", NULL, 0, bytes);
    call.topic_bytes = sizeof name;
    assert_int_equal(rw_core_attach(hosts[0]->core, raw.slot, raw.generation, &call, name), 1);
    assert_int_equal(rw_core_attach(hosts[0]->core, positions.slot, positions.generation, &call, name), 1);
    static const uint8_t member[] = {3, 0, 'a', 'n', 'n', '{', '}'};
    memcpy(bytes, name, sizeof name);
    memcpy(bytes + sizeof name, member, sizeof member);
    call = (struct rw_log_call){.topic_bytes = sizeof name,
                                .payload_bytes = sizeof member,
                                .flags = RW_LOG_JOIN,
                                .size = 10,
                                .seconds = 60,
                                .origin_worker = RW_NO_SLOT,
                                .origin_slot = RW_NO_SLOT};
    assert_int_equal(rw_core_log_append(hosts[0]->core, &call, bytes), 0);
    struct rw_position at = {call.epoch, call.offset};
    expect_json(hosts[0], in_raw, "room", at, "\"event\":\"join\",\"user\":\"ann\",\"info\":{}");
    expect_json(hosts[0], in_positions, "room", at, "\"event\":\"join\",\"user\":\"ann\",\"info\":{}");
    call.payload_bytes = 5;
    call.flags = RW_LOG_LEAVE;
    assert_int_equal(rw_core_log_append(hosts[0]->core, &call, bytes), 0);
    at.offset++;
    expect_json(hosts[0], in_positions, "room", at, "\"event\":\"leave\",\"user\":\"ann\"");
    /* A payload that is none says nothing of anybody. */
    call.payload_bytes = 1;
    assert_int_equal(rw_core_log_append(hosts[0]->core, &call, bytes), 0);
    at.offset++;
    expect_json(hosts[0], in_positions, "room", at, "\"event\":\"leave\",\"user\":\"\"");
    close_node();
}

/* ---------------------------------------------------------------- attaching */

static void who_comes_back_gets_what_it_has_missed_and_then_what_comes(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event open, other;
    struct rw_log_call call;
    struct rw_position at[5];
    for (uint32_t i = 0; i < 3; i++) at[i] = append(hosts[0], "room", (const char *[]){"1", "2", "3"}[i]);
    struct peer *peer = peer_open_ws(hosts[1], JSON, &open);
    assert_int_equal(attach(hosts[1], &open, "room", &at[0], &call), 1);
    assert_int_equal(call.result, RW_ATTACH_RECOVERED | 2);
    assert_true(call.epoch == at[0].epoch);
    assert_int_equal(call.offset, 3);
    at[3] = append(hosts[0], "room", "4");
    expect_json(hosts[1], peer, "room", at[1], "\"data\":\"2\"");
    expect_json(hosts[1], peer, "room", at[2], "\"data\":\"3\"");
    expect_json(hosts[1], peer, "room", at[3], "\"data\":\"4\"");
    /* Once is enough: what a second call says changes nothing, and sends nothing again. */
    assert_int_equal(attach(hosts[1], &open, "room", &at[0], &call), 0);
    assert_int_equal(call.result, 0);
    assert_int_equal(call.offset, 4);
    /* Nothing was missed. */
    struct peer *another = peer_open_ws(hosts[1], RAW, &other);
    assert_int_equal(attach(hosts[1], &other, "room", &at[3], &call), 1);
    assert_int_equal(call.result, RW_ATTACH_RECOVERED);
    at[4] = append(hosts[1], "room", "5");
    expect_text(hosts[1], another, "5");
    expect_json(hosts[1], peer, "room", at[4], "\"data\":\"5\"");
    peer_expect_silence(hosts[1], peer);
    assert_int_equal(hosts[1]->core->stats->topic_attaches_recovered, 2);
    close_node();
}

static void positions_that_are_none_are_answered_with_the_present_one(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_position at = {0};
    for (uint32_t i = 0; i < 6; i++) at = append_of(hosts[0], NULL, "room", "x", 1, 3);
    const struct rw_position wrong[] = {
        {at.epoch, 7},          /* of the future */
        {at.epoch, UINT64_MAX}, /* far in it */
        {at.epoch ^ 1, 5},      /* of another life */
        {at.epoch, 2},          /* 3 is gone */
        {0, 0},
    };
    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct rw_event open;
        struct rw_log_call call;
        struct peer *peer = peer_open_ws(hosts[0], RAW, &open);
        assert_int_equal(attach(hosts[0], &open, "room", &wrong[i], &call), 1);
        assert_int_equal(call.result, 0);
        assert_true(call.epoch == at.epoch);
        assert_int_equal(call.offset, at.offset);
        peer_expect_silence(hosts[0], peer);
        at = append_of(hosts[0], NULL, "room", "y", 1, 3);
        expect_text(hosts[0], peer, "y");
        peer_close(hosts[0], peer);
        (void)host_expect(hosts[0], RW_EVENT_CLOSE);
    }
    assert_int_equal(hosts[0]->core->stats->topic_attaches_lost, 5);
    /* The one before the first that is kept is a position like any other. */
    struct rw_event open;
    struct rw_log_call call;
    struct peer *peer = peer_open_ws(hosts[0], RAW, &open);
    assert_int_equal(attach(hosts[0], &open, "room", &(struct rw_position){at.epoch, at.offset - 3}, &call), 1);
    assert_int_equal(call.result, RW_ATTACH_RECOVERED | 3);
    for (uint32_t i = 0; i < 3; i++) expect_text(hosts[0], peer, "y");
    close_node();
}

static void a_topic_without_a_log_has_a_position_to_come_back_to(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event a, b;
    struct rw_log_call call, again;
    struct peer *peer = peer_open_ws(hosts[0], RAW, &a);
    assert_int_equal(attach(hosts[0], &a, "room", NULL, &call), 1);
    assert_int_equal(call.offset, 0);
    peer_close(hosts[0], peer);
    (void)append(hosts[1], "room", "missed");
    peer = peer_open_ws(hosts[1], RAW, &b);
    assert_int_equal(attach(hosts[1], &b, "room", &(struct rw_position){call.epoch, 0}, &again), 1);
    assert_int_equal(again.result, RW_ATTACH_RECOVERED | 1);
    expect_text(hosts[1], peer, "missed");
    close_node();
}

static void limits_of_topics_hold_for_attaching(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event open;
    struct rw_log_call call;
    struct peer *peer = peer_open_ws(hosts[0], RAW, &open);
    for (uint32_t i = 0; i < 5; i++) attach_now(hosts[0], &open, (const char *[]){"a", "b", "c", "d", "e"}[i]);
    assert_int_equal(attach(hosts[0], &open, "f", NULL, &call), RW_ERR_FULL);
    assert_int_equal(attach(hosts[0], &open, "a", NULL, &call), 0);
    assert_int_equal(attach(hosts[0], &open, "", NULL, &call), RW_ERR_INVALID);
    assert_int_equal(hosts[0]->core->stats->refused_topics_socket, 1);
    peer_close(hosts[0], peer);
    (void)host_expect(hosts[0], RW_EVENT_CLOSE);
    assert_int_equal(attach(hosts[0], &open, "a", NULL, &call), RW_ERR_STALE);
    close_node();
}

static void a_copy_of_another_store_is_attached_to_once_it_is_followed(void **state) {
    open_node(state, PLAIN, RW_CORE_FOLLOWS_LOGS);
    struct rw_event open;
    struct rw_log_call call;
    struct peer *peer = peer_open_ws(hosts[0], JSON, &open);
    assert_int_equal(attach(hosts[0], &open, "room", NULL, &call), RW_ERR_UNFOLLOWED);
    uint8_t room[64];
    struct rw_position at = {.epoch = 0xC0FFEE, .offset = 40};
    struct rw_log_call put = call_of("room", "x", 1, room);
    put.epoch = at.epoch;
    put.offset = at.offset;
    assert_int_equal(rw_core_log_put(hosts[0]->core, &put, room), RW_LOG_EPOCH);
    assert_int_equal(rw_core_log_reset(hosts[0]->core, &put, room), RW_OK);
    assert_int_equal(attach(hosts[0], &open, "room", NULL, &call), RW_ERR_UNFOLLOWED);
    put.has_position = 1;
    assert_int_equal(rw_core_log_reset(hosts[0]->core, &put, room), RW_OK);
    put.offset = 42;
    assert_int_equal(rw_core_log_put(hosts[0]->core, &put, room), RW_LOG_GAP);
    put.offset = 41;
    assert_int_equal(rw_core_log_put(hosts[0]->core, &put, room), RW_LOG_TAKEN);
    assert_int_equal(rw_core_log_put(hosts[1]->core, &put, room), RW_LOG_OLD);
    /* What lies before the copy the store may have. */
    assert_int_equal(attach(hosts[0], &open, "room", &(struct rw_position){at.epoch, 39}, &call), RW_ERR_BEHIND);
    assert_int_equal(hosts[0]->core->stats->topic_attaches_behind, 1);
    /* It is read there and fed, and then the copy goes on. */
    put.offset = 40;
    assert_int_equal(rw_core_send_logged(hosts[0]->core, open.slot, open.generation, &put, room), RW_OK);
    assert_int_equal(attach(hosts[0], &open, "room", &(struct rw_position){at.epoch, 40}, &call), 1);
    assert_int_equal(call.result, RW_ATTACH_RECOVERED | 1);
    expect_json(hosts[0], peer, "room", (struct rw_position){at.epoch, 40}, "\"data\":\"x\"");
    expect_json(hosts[0], peer, "room", (struct rw_position){at.epoch, 41}, "\"data\":\"x\"");
    /* The store has gone on without this node: subscribers are told how far. */
    put.offset = 50;
    assert_int_equal(rw_core_log_reset(hosts[1]->core, &put, room), RW_OK);
    expect_json(hosts[0], peer, "room", (struct rw_position){at.epoch, 50}, "\"lost\":true");
    put.offset = 51;
    assert_int_equal(rw_core_log_put(hosts[1]->core, &put, room), RW_LOG_TAKEN);
    expect_json(hosts[0], peer, "room", (struct rw_position){at.epoch, 51}, "\"data\":\"x\"");
    /* A copy that is read again from further back brings nothing twice. */
    put.offset = 49;
    assert_int_equal(rw_core_log_reset(hosts[1]->core, &put, room), RW_OK);
    for (uint64_t offset = 50; offset < 53; offset++) {
        put.offset = offset;
        assert_int_equal(rw_core_log_put(hosts[1]->core, &put, room), RW_LOG_TAKEN);
    }
    expect_json(hosts[0], peer, "room", (struct rw_position){at.epoch, 52}, "\"data\":\"x\"");
    peer_expect_silence(hosts[0], peer);
    close_node();
}

/* Numbers appended by both workers while subscribers come and go: whoever comes back at its position sees every number
 * once, in order. */
static void nothing_is_lost_or_doubled_over_the_seam(void **state) {
    open_node(state, PLAIN, 0);
    enum { STEPS = 1500 };
    struct rw_event open;
    struct peer *peer = NULL;
    struct host *host = NULL;
    uint64_t random = 0x5EA4, seen = 0, appended = 0;
    struct rw_position at = {0};
    for (uint32_t step = 0; step < STEPS || seen < appended; step++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        uint32_t choice = step < STEPS ? (uint32_t)(random >> 40) % 8 : 6;
        char text[24];
        if (choice < 4) {
            (void)snprintf(text, sizeof text, "%llu", (unsigned long long)++appended);
            if (choice == 0) at = append_quietly(hosts[step & 1], "room", text, 5000);
            else at = append_of(hosts[step & 1], NULL, "room", text, strlen(text), 5000);
            assert_int_equal(at.offset, appended);
        } else if (choice == 4 && peer && (random >> 50) % 4 == 0) {
            peer_close(host, peer);
            (void)host_expect(host, RW_EVENT_CLOSE);
            peer = NULL;
        } else if (choice == 5) {
            host_turn(hosts[(random >> 50) & 1]);
        } else {
            if (!peer && appended) {
                struct rw_log_call call;
                host = hosts[(random >> 55) & 1];
                peer = peer_open_ws(host, RAW, &open);
                assert_int_equal(attach(host, &open, "room", &(struct rw_position){at.epoch, seen}, &call), 1);
                assert_int_equal(call.result >> 16, 1);
                assert_int_equal(call.offset, appended);
            } else if (peer && seen < appended) {
                (void)append_of(host, NULL, "room", "", 0, 5000); /* what nobody was told of comes with this */
                at.offset = ++appended;
                while (seen < appended) {
                    int is_empty = seen + 1 == appended;
                    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)++seen);
                    peer_wait_bytes(host, peer, 2);
                    if (is_empty || peer->in[1] == 0) peer_expect_frame(host, peer, FIN_TEXT, "", 0);
                    else expect_text(host, peer, text);
                }
            }
        }
    }
    close_node();
}

/* ---------------------------------------------------------------- told */

static void who_cannot_get_what_it_has_missed_is_told(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event raw, positions;
    struct peer *in_raw = open_attached(hosts[1], RAW, "room", &raw);
    struct peer *in_positions = open_attached(hosts[1], JSON, "room", &positions);
    for (uint32_t i = 0; i < 4; i++) (void)append_quietly(hosts[0], "room", "gone", 2);
    struct rw_position at = append_of(hosts[0], NULL, "room", "last", 4, 2);
    assert_int_equal(at.offset, 5);
    expect_json(hosts[1], in_positions, "room", (struct rw_position){at.epoch, 3}, "\"lost\":true");
    expect_json(hosts[1], in_positions, "room", (struct rw_position){at.epoch, 4}, "\"data\":\"gone\"");
    expect_json(hosts[1], in_positions, "room", at, "\"data\":\"last\"");
    expect_text(hosts[1], in_raw, "gone");
    expect_text(hosts[1], in_raw, "last");
    const struct record *lost = host_expect(hosts[1], RW_EVENT_LOST);
    assert_int_equal(lost->event.slot, raw.slot);
    assert_int_equal(lost->event.generation, raw.generation);
    assert_int_equal(lost->event.bytes, 20);
    assert_memory_equal(lost->payload, &at.epoch, 8);
    assert_memory_equal(lost->payload + 8, &(uint64_t){3}, 8);
    assert_memory_equal(lost->payload + 16, "room", 4);
    assert_int_equal(hosts[1]->core->stats->topic_lost, 2);

    /* A log that begins anew: its past is gone, whatever was in it. */
    const struct rw_state_name name = rw_state_name((const uint8_t *)"room", 4);
    assert_int_equal(rw_log_forget(hosts[0]->core->state, &name), 1);
    struct rw_position anew = append(hosts[0], "room", "again");
    assert_true(anew.epoch != at.epoch);
    assert_int_equal(anew.offset, 1);
    expect_json(hosts[1], in_positions, "room", (struct rw_position){anew.epoch, 0}, "\"lost\":true");
    expect_json(hosts[1], in_positions, "room", anew, "\"data\":\"again\"");
    expect_text(hosts[1], in_raw, "again");
    (void)host_expect(hosts[1], RW_EVENT_LOST);
    peer_expect_silence(hosts[1], in_raw);
    close_node();
}

/* ---------------------------------------------------------------- lagging */

#define LARGE 1000u

/* A real one does not read before the test looks. */
static void stop_reading(struct host *host, struct peer *peer) {
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, 0);
}
static void go_on_reading(struct host *host, struct peer *peer) {
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
}

static void append_numbered(struct host *host, uint64_t number, uint32_t size) {
    static char text[LARGE];
    memset(text, '.', sizeof text);
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    (void)append_of(host, NULL, "room", text, sizeof text, size);
}

/* So many that its queue and the kernel are full: until somebody lags. */
static uint64_t append_until_it_lags(struct host *host, struct peer *peer, uint32_t size) {
    uint64_t count = 0;
    stop_reading(host, peer);
    while (!rw_topics_lags(host->core->topics)) {
        append_numbered(host, ++count, size);
        if (count % 16 == 0) host_turn(host);
        assert_true(count < 100000);
    }
    return count;
}

static void expect_numbered(struct host *host, struct peer *peer, uint64_t from, uint64_t to) {
    static char text[LARGE];
    for (uint64_t number = from; number <= to; number++) {
        memset(text, '.', sizeof text);
        (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
        peer_expect_frame(host, peer, FIN_TEXT, text, sizeof text);
    }
}

static void a_slow_subscriber_loses_nothing_and_costs_bounded_memory(void **state) {
    const struct rw_behavior behaviors[] = {
        {.max_backpressure_bytes = 16384},
        {.max_backpressure_bytes = 16384, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE}};
    for (uint32_t b = 0; b < 2; b++) {
        open_node(state, behaviors[b], 0);
        struct rw_event slow, quick;
        struct peer *in_slow = open_attached(hosts[0], RAW, "room", &slow);
        uint64_t count = append_until_it_lags(hosts[0], in_slow, 100000);
        struct peer *in_quick = open_attached(hosts[0], RAW, "room", &quick);
        for (uint32_t i = 0; i < 300; i++) append_numbered(hosts[0], ++count, 100000);
        assert_true(hosts[0]->core->pool.slots[slow.slot].out_bytes <= 16384);
        expect_numbered(hosts[0], in_quick, count - 299, count); /* others do not wait for it */
        go_on_reading(hosts[0], in_slow);
        expect_numbered(hosts[0], in_slow, 1, count);
        append_numbered(hosts[0], ++count, 100000);
        expect_numbered(hosts[0], in_slow, count, count);
        expect_numbered(hosts[0], in_quick, count, count);
        host_turns(hosts[0], 4);
        assert_int_equal(rw_topics_lags(hosts[0]->core->topics), 0);
        assert_int_equal(hosts[0]->core->pool.slots[slow.slot].state.lagging, 0);
        assert_int_equal(hosts[0]->core->stats->drops_backpressure, 0);
        assert_int_equal(hosts[0]->core->stats->closes_backpressure, 0);
        assert_true(hosts[0]->core->stats->topic_lags > 0);
        close_node();
    }
}

static void who_comes_back_with_much_to_catch_up_gets_it_as_it_reads(void **state) {
    open_node(state, (struct rw_behavior){.max_backpressure_bytes = 16384}, 0);
    for (uint64_t number = 1; number <= 5000; number++) append_numbered(hosts[0], number, 100000);
    const struct rw_state_name name = rw_state_name((const uint8_t *)"room", 4);
    struct rw_log_end end;
    assert_int_equal(rw_log_end(hosts[0]->core->state, &name, rw_logged_now_ms(), &end), 1);
    struct rw_event open;
    struct rw_log_call call;
    struct peer *peer = peer_open_ws(hosts[1], RAW, &open);
    assert_int_equal(attach(hosts[1], &open, "room", &(struct rw_position){end.epoch, 0}, &call), 1);
    assert_true(call.result & RW_ATTACH_RECOVERED);
    assert_int_equal(call.offset, 5000);
    for (uint64_t number = 5001; number <= 5010; number++) append_numbered(hosts[0], number, 100000);
    expect_numbered(hosts[1], peer, 1, 5010);
    peer_expect_silence(hosts[1], peer);
    close_node();
}

/* A storm of clients that come back has its share of a turn, and no more. */
static void many_that_catch_up_share_the_turns(void **state) {
    enum { PEERS = 100, ENTRIES = 700 };
    open_node(state, PLAIN, 0);
    struct rw_position first = append_of(hosts[0], NULL, "room", "x", 1, 100000);
    for (uint32_t i = 1; i < ENTRIES; i++) (void)append_of(hosts[0], NULL, "room", "x", 1, 100000);
    struct peer *peers[PEERS];
    struct rw_event open[PEERS];
    for (uint32_t i = 0; i < PEERS; i++) peers[i] = peer_open_ws(hosts[0], RAW, &open[i]);
    for (uint32_t i = 0; i < PEERS; i++) {
        struct rw_log_call call;
        assert_int_equal(attach(hosts[0], &open[i], "room", &(struct rw_position){first.epoch, 0}, &call), 1);
        assert_in_range(call.result & 0xffff, 1, 256);
    }
    uint64_t before, turns = 0;
    do {
        before = hosts[0]->core->stats->deliveries;
        host_turn(hosts[0]);
        assert_in_range(hosts[0]->core->stats->deliveries - before, 0, 8192);
        turns++;
    } while (rw_topics_lags(hosts[0]->core->topics));
    assert_true(turns > 2);
    assert_int_equal(hosts[0]->core->stats->deliveries, PEERS * ENTRIES);
    for (uint32_t i = 0; i < PEERS; i++) peer_wait_bytes(hosts[0], peers[i], 3 * ENTRIES);
    close_node();
}

static void who_lags_for_longer_than_the_log_remembers_meets_its_policy(void **state) {
    open_node(state, (struct rw_behavior){.max_backpressure_bytes = 16384, .flags = RW_BEHAVIOR_WANTS_DROPPED}, 0);
    struct rw_event open;
    struct peer *peer = open_attached(hosts[0], RAW, "room", &open);
    uint64_t had = append_until_it_lags(hosts[0], peer, 20) - 1;
    for (uint32_t i = 0; i < 100; i++) append_numbered(hosts[0], had + 2 + i, 20);
    uint64_t last = had + 101;
    go_on_reading(hosts[0], peer);
    expect_numbered(hosts[0], peer, 1, had);
    expect_numbered(hosts[0], peer, last - 19, last);
    int dropped = 0, lost = 0;
    for (uint32_t i = 0; i < 2; i++) {
        while (hosts[0]->log_at == hosts[0]->log_count) host_turn(hosts[0]);
        const struct record *record = &hosts[0]->log[hosts[0]->log_at++];
        if (record->event.type == RW_EVENT_DROPPED) {
            assert_int_equal(record->event.arg0, 81);
            dropped++;
        } else {
            assert_int_equal(record->event.type, RW_EVENT_LOST);
            assert_memory_equal(record->payload + 8, &(uint64_t){last - 20}, 8);
            lost++;
        }
    }
    assert_int_equal(dropped + lost, 2);
    assert_int_equal(hosts[0]->core->stats->drops_backpressure, 81);
    close_node();

    open_node(state, (struct rw_behavior){.max_backpressure_bytes = 16384, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE},
              0);
    peer = open_attached(hosts[0], RAW, "room", &open);
    had = append_until_it_lags(hosts[0], peer, 20) - 1;
    for (uint32_t i = 0; i < 100; i++) append_numbered(hosts[0], had + 2 + i, 20);
    go_on_reading(hosts[0], peer);
    expect_numbered(hosts[0], peer, 1, had);
    const struct record *closed = host_expect(hosts[0], RW_EVENT_CLOSE);
    assert_int_equal(closed->event.arg0, 1008);
    assert_int_equal(closed->event.arg1, RW_CLOSE_BACKPRESSURE);
    close_node();
}

static void who_leaves_while_it_lags_is_forgotten(void **state) {
    open_node(state, (struct rw_behavior){.max_backpressure_bytes = 16384}, 0);
    struct rw_event a, b;
    struct peer *in_a = open_attached(hosts[0], RAW, "room", &a), *in_b = open_attached(hosts[0], RAW, "room", &b);
    uint64_t count = append_until_it_lags(hosts[0], in_a, 100000);
    stop_reading(hosts[0], in_b);
    host_topic(hosts[0], &a, RW_COMMAND_UNSUBSCRIBE, "room");
    host_turn(hosts[0]);
    append_numbered(hosts[0], ++count, 100000);
    peer_close(hosts[0], in_b);
    (void)host_expect(hosts[0], RW_EVENT_CLOSE);
    assert_int_equal(rw_topics_lags(hosts[0]->core->topics), 0);
    /* Whoever has left hears nothing more, and may come again. */
    struct rw_log_call call;
    go_on_reading(hosts[0], in_a);
    peer_wait_bytes(hosts[0], in_a, 1);
    assert_int_equal(attach(hosts[0], &a, "room", NULL, &call), 1);
    close_node();
}

/* ---------------------------------------------------------------- the host */

static int32_t hold(struct host *host, const char *topic, const struct rw_position *since) {
    uint8_t room[64];
    host_flush(host);
    struct rw_log_call call = call_of(topic, NULL, 0, room);
    if (since) {
        call.has_position = 1;
        call.epoch = since->epoch;
        call.offset = since->offset;
    }
    return rw_core_hold(host->core, &call, room);
}

static void expect_heard(struct host *host, uint32_t flags, const char *topic, const struct rw_position *at,
                         const char *text) {
    const struct record *record = host_expect(host, RW_EVENT_TOPIC);
    assert_int_equal(record->event.flags, flags);
    assert_int_equal(record->event.request, strlen(topic));
    const uint8_t *bytes = record->payload;
    if (at) {
        assert_memory_equal(bytes, at, sizeof *at);
        bytes += sizeof *at;
    }
    assert_memory_equal(bytes, topic, strlen(topic));
    assert_string_equal((const char *)bytes + strlen(topic), text);
}

/* What is said first on a topic with a log, whose record of the bus comes late or never. */
static void the_host_misses_nothing_of_a_log_that_begins(void **state) {
    open_node(state, PLAIN, 0);
    assert_int_equal(hold(hosts[1], "room", &(struct rw_position){0}), 1);
    struct rw_position first = append_quietly(hosts[0], "room", "one", KEPT);
    struct rw_position second = append(hosts[0], "room", "two");
    assert_int_equal(first.offset, 1);
    host_turn(hosts[0]);
    expect_heard(hosts[1], RW_HEARD_TEXT | RW_HEARD_POSITION, "room", &first, "one");
    expect_heard(hosts[1], RW_HEARD_TEXT | RW_HEARD_POSITION, "room", &second, "two");
    assert_int_equal(hold(hosts[1], "room", &(struct rw_position){0}), 0);
    assert_int_equal(rw_core_release(hosts[1]->core, (const uint8_t *)"room", 4), 1);
    close_node();
}

static void the_host_hears_direct_topics_and_logged_ones(void **state) {
    open_node(state, PLAIN, 0);
    assert_int_equal(hold(hosts[1], "room", NULL), 1);
    assert_int_equal(hold(hosts[1], "room", NULL), 0);
    host_publish(hosts[0], NULL, "room", RW_SEND_TEXT, "one", 3);
    host_publish(hosts[0], NULL, "room", RW_SEND_COMPRESS, "two", 3);
    host_turn(hosts[0]);
    expect_heard(hosts[1], RW_HEARD_TEXT, "room", NULL, "one");
    expect_heard(hosts[1], RW_HEARD_COMPRESS, "room", NULL, "two");
    host_publish(hosts[1], NULL, "room", RW_SEND_TEXT, "own", 3);
    expect_heard(hosts[1], RW_HEARD_TEXT, "room", NULL, "own");
    struct rw_position first = append(hosts[0], "room", "three");
    host_turn(hosts[0]);
    expect_heard(hosts[1], RW_HEARD_TEXT | RW_HEARD_POSITION, "room", &first, "three");
    struct rw_position second = append(hosts[1], "room", "four");
    expect_heard(hosts[1], RW_HEARD_TEXT | RW_HEARD_POSITION, "room", &second, "four");
    struct rw_position third = append_quietly(hosts[0], "room", "five", KEPT);
    host_pass_time(hosts[1], 1200);
    expect_heard(hosts[1], RW_HEARD_TEXT | RW_HEARD_POSITION, "room", &third, "five");
    assert_int_equal(rw_core_release(hosts[1]->core, (const uint8_t *)"room", 4), 1);
    assert_int_equal(rw_core_release(hosts[1]->core, (const uint8_t *)"room", 4), 0);
    (void)append(hosts[0], "room", "nobody");
    host_expect_silence(hosts[1]);
    /* From a position on; and from one that is gone. */
    assert_int_equal(hold(hosts[1], "room", &second), 1);
    expect_heard(hosts[1], RW_HEARD_TEXT | RW_HEARD_POSITION, "room", &third, "five");
    (void)host_expect(hosts[1], RW_EVENT_TOPIC);
    (void)rw_core_release(hosts[1]->core, (const uint8_t *)"room", 4);
    struct rw_position last = append_of(hosts[0], NULL, "room", "six", 3, 1);
    assert_int_equal(hold(hosts[1], "room", &second), 1);
    expect_heard(hosts[1], RW_HEARD_POSITION | RW_HEARD_LOST, "room",
                 &(struct rw_position){last.epoch, last.offset - 1}, "");
    expect_heard(hosts[1], RW_HEARD_TEXT | RW_HEARD_POSITION, "room", &last, "six");
    (void)rw_core_release(hosts[1]->core, (const uint8_t *)"room", 4);
    close_node();
}

/* More than a batch has room for, records and bytes, with large ones among them. */
static void a_batch_that_is_full_costs_the_host_no_message_of_a_log(void **state) {
    open_node(state, PLAIN, 0);
    assert_int_equal(hold(hosts[0], "room", NULL), 1);
    enum { COUNT = 6000 };
    static char text[100000];
    memset(text, 'x', sizeof text);
    for (uint32_t i = 1; i <= COUNT; i++)
        (void)append_of(hosts[0], NULL, "room", text, i % 100 == 0 ? sizeof text : i % 700, 100000);
    for (uint32_t i = 1; i <= COUNT; i++) {
        const struct record *record = host_expect(hosts[0], RW_EVENT_TOPIC);
        assert_memory_equal(record->payload + 8, &(uint64_t){i}, 8);
        assert_int_equal(record->event.bytes, 20 + (i % 100 == 0 ? sizeof text : i % 700));
    }
    host_expect_silence(hosts[0]);
    (void)rw_core_release(hosts[0]->core, (const uint8_t *)"room", 4);
    close_node();
}

static void a_direct_topic_past_the_hosts_queue_is_counted(void **state) {
    open_node(state, PLAIN, 0);
    assert_int_equal(hold(hosts[0], "room", NULL), 1);
    enum { COUNT = 6000 };
    for (uint32_t i = 0; i < COUNT; i++) host_publish(hosts[0], NULL, "room", 0, "x", 1);
    host_flush(hosts[0]);
    uint64_t drops = hosts[0]->core->stats->topic_host_drops;
    assert_int_equal(drops, COUNT - 4096);
    for (uint32_t i = 0; i < 4096; i++) (void)host_expect(hosts[0], RW_EVENT_TOPIC);
    host_expect_silence(hosts[0]);
    host_publish(hosts[0], NULL, "room", RW_SEND_TEXT, "again", 5);
    expect_heard(hosts[0], RW_HEARD_TEXT, "room", NULL, "again");
    (void)rw_core_release(hosts[0]->core, (const uint8_t *)"room", 4);
    close_node();
}

/* ---------------------------------------------------------------- questions */

static void logs_are_read_in_pieces_that_fit(void **state) {
    open_node(state, PLAIN, 0);
    uint8_t out[4096], room[3000];
    const uint8_t *name = (const uint8_t *)"room";
    assert_int_equal(rw_core_log_read(hosts[0]->core, name, 4, 0, 0, 10, 0, out, sizeof out), RW_ERR_STALE);
    fill_pattern(room, sizeof room);
    struct rw_position at = {0};
    for (uint32_t i = 1; i <= 300; i++) at = append_of(hosts[0], NULL, "room", room, i * 7 % 90, 1000);
    uint64_t after = 0;
    while (after < 300) {
        int64_t bytes = rw_core_log_read(hosts[1]->core, name, 4, at.epoch, after, 250, 0, out, sizeof out);
        assert_in_range(bytes, 33, sizeof out);
        assert_memory_equal(out, &at.epoch, 8);
        assert_memory_equal(out + 8, &(uint64_t){1}, 8);
        assert_memory_equal(out + 16, &(uint64_t){300}, 8);
        uint32_t count;
        memcpy(&count, out + 28, sizeof count);
        assert_true(count > 0);
        const uint8_t *entry = out + 32;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t payload_bytes;
            after++;
            assert_memory_equal(entry, &after, 8);
            memcpy(&payload_bytes, entry + 20, sizeof payload_bytes);
            assert_int_equal(payload_bytes, after * 7 % 90);
            assert_memory_equal(entry + 24, room, payload_bytes);
            entry += 24 + ((payload_bytes + 7) & ~7u);
        }
        assert_int_equal(entry - out, bytes);
    }
    /* Backwards, the end alone, another epoch, and one that fits nowhere. */
    assert_int_equal(rw_core_log_read(hosts[1]->core, name, 4, 0, 0, 1, 1, out, sizeof out),
                     32 + 24 + ((300 * 7 % 90 + 7) & ~7));
    assert_memory_equal(out + 32, &(uint64_t){300}, 8);
    assert_int_equal(rw_core_log_read(hosts[1]->core, name, 4, 0, 0, 0, 0, out, sizeof out), 32);
    assert_int_equal(rw_core_log_read(hosts[1]->core, name, 4, at.epoch ^ 1, 0, 5, 0, out, sizeof out), 32);
    (void)append_of(hosts[0], NULL, "room", room, sizeof room, 1000);
    int64_t needed = rw_core_log_read(hosts[1]->core, name, 4, 0, 300, 5, 0, out, 1000);
    assert_true(needed < -65536 && needed > -65536 - 4096);
    assert_int_equal(rw_core_log_read(hosts[1]->core, name, 4, 0, 300, 5, 0, out, (uint64_t)(-needed - 65536)),
                     32 + 24 + 3000);
    close_node();
}

static void who_is_subscribed_and_to_what_can_be_asked(void **state) {
    open_node(state, PLAIN, 0);
    struct rw_event a, b;
    (void)open_attached(hosts[0], RAW, "chat/1", &a);
    (void)open_attached(hosts[0], JSON, "chat/1", &b);
    attach_now(hosts[0], &b, "chat/2");
    attach_now(hosts[0], &b, "news");
    uint32_t members[2] = {0};
    assert_int_equal(rw_core_members(hosts[0]->core, (const uint8_t *)"chat/1", 6, members, 1), 2);
    assert_int_equal(members[0], a.slot);
    assert_int_equal(members[1], a.generation);
    assert_int_equal(rw_core_members(hosts[0]->core, (const uint8_t *)"none", 4, members, 1), 0);
    uint8_t names[16];
    uint32_t cursor = 0, found = 0;
    do {
        uint32_t bytes = rw_core_topic_names(hosts[0]->core, (const uint8_t *)"chat/", 5, 1, &cursor, names, 16);
        if (bytes) {
            assert_int_equal(bytes, 8);
            assert_memory_equal(names + 2, "chat/", 5);
            found++;
        }
    } while (cursor != 0);
    assert_int_equal(found, 2);
    close_node();
}

static void without_memory_for_logs_each_call_says_so(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    (void)peer_open_ws(host, 7, &open);
    uint8_t room[64];
    struct rw_log_call call = call_of("room", "x", 1, room);
    assert_int_equal(rw_core_log_append(host->core, &call, room), RW_ERR_UNSUPPORTED);
    assert_int_equal(rw_core_log_put(host->core, &call, room), RW_ERR_UNSUPPORTED);
    assert_int_equal(rw_core_log_reset(host->core, &call, room), RW_ERR_UNSUPPORTED);
    assert_int_equal(rw_core_log_read(host->core, room, 4, 0, 0, 1, 0, room, 64), RW_ERR_UNSUPPORTED);
    assert_int_equal(rw_core_attach(host->core, open.slot, open.generation, &call, room), RW_ERR_UNSUPPORTED);
    assert_int_equal(hold(host, "room", NULL), 1);
    host_publish(host, NULL, "room", RW_SEND_TEXT, "direct", 6);
    expect_heard(host, RW_HEARD_TEXT, "room", NULL, "direct");
    assert_int_equal(rw_core_release(host->core, (const uint8_t *)"room", 4), 1);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(every_worker_delivers_in_the_order_of_the_log_whoever_appends),
        ON_SIM(a_slot_that_is_another_connection_by_now_is_not_left_out),
        ON_SIM(subscribers_of_a_direct_topic_hear_what_is_appended_to_it),
        ON_EVERY_RING(what_nobody_was_told_of_is_found_within_a_second),
        ON_SIM(a_presence_log_is_told_as_json_and_names_its_topic),
        ON_EVERY_RING(who_comes_back_gets_what_it_has_missed_and_then_what_comes),
        ON_SIM(positions_that_are_none_are_answered_with_the_present_one),
        ON_SIM(a_topic_without_a_log_has_a_position_to_come_back_to),
        ON_SIM(limits_of_topics_hold_for_attaching),
        ON_SIM(a_copy_of_another_store_is_attached_to_once_it_is_followed),
        ON_EVERY_RING(nothing_is_lost_or_doubled_over_the_seam),
        ON_EVERY_RING(who_cannot_get_what_it_has_missed_is_told),
        ON_EVERY_RING(a_slow_subscriber_loses_nothing_and_costs_bounded_memory),
        ON_EVERY_RING(who_comes_back_with_much_to_catch_up_gets_it_as_it_reads),
        ON_SIM(many_that_catch_up_share_the_turns),
        ON_EVERY_RING(who_lags_for_longer_than_the_log_remembers_meets_its_policy),
        ON_EVERY_RING(who_leaves_while_it_lags_is_forgotten),
        ON_EVERY_RING(the_host_hears_direct_topics_and_logged_ones),
        ON_SIM(the_host_misses_nothing_of_a_log_that_begins),
        ON_SIM(a_batch_that_is_full_costs_the_host_no_message_of_a_log),
        ON_SIM(a_direct_topic_past_the_hosts_queue_is_counted),
        ON_SIM(logs_are_read_in_pieces_that_fit),
        ON_SIM(who_is_subscribed_and_to_what_can_be_asked),
        ON_SIM(without_memory_for_logs_each_call_says_so),
    };
    return cmocka_run_group_tests_name("logged topics", tests, NULL, NULL);
}
