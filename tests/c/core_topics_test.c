/* Fan-out and backpressure through the whole core: who gets a publish, in which order, and what a slow reader costs. */
#include "core_fixture.h"

/* ---------------------------------------------------------------- topics */

static void a_publish_reaches_subscribers_in_order_with_what_is_sent_to_them(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event a, b, c;
    struct peer *in_a = peer_open_ws(host, 7, &a), *in_b = peer_open_ws(host, 7, &b), *in_c = peer_open_ws(host, 7, &c);
    host_publish(host, NULL, "room", RW_SEND_TEXT, "to nobody", 9);
    host_topic(host, &a, RW_COMMAND_SUBSCRIBE, "room");
    host_topic(host, &b, RW_COMMAND_SUBSCRIBE, "room");
    host_topic(host, &b, RW_COMMAND_SUBSCRIBE, "room"); /* once is enough */
    host_topic(host, &c, RW_COMMAND_SUBSCRIBE, "other");
    host_publish(host, NULL, "room", RW_SEND_TEXT, "1", 1);
    host_send(host, &a, RW_SEND_TEXT, "direct", 6);
    host_publish(host, &b, "room", 0, "2", 1);
    host_publish(host, NULL, "other", RW_SEND_TEXT, "3", 1);
    host_topic(host, &a, RW_COMMAND_UNSUBSCRIBE, "room");
    host_publish(host, NULL, "room", RW_SEND_TEXT, "4", 1);
    host_turn(host);
    assert_int_equal(rw_core_subscribers(host->core, (const uint8_t *)"room", 4), 1);
    assert_int_equal(rw_core_is_subscribed(host->core, b.slot, b.generation, (const uint8_t *)"room", 4), 1);
    assert_int_equal(rw_core_is_subscribed(host->core, a.slot, a.generation, (const uint8_t *)"room", 4), 0);
    peer_expect_frame(host, in_a, FIN_TEXT, "1", 1);
    peer_expect_frame(host, in_a, FIN_TEXT, "direct", 6);
    peer_expect_frame(host, in_a, FIN_BINARY, "2", 1);
    peer_expect_frame(host, in_b, FIN_TEXT, "1", 1);
    peer_expect_frame(host, in_b, FIN_TEXT, "4", 1);
    peer_expect_frame(host, in_c, FIN_TEXT, "3", 1);
    peer_expect_silence(host, in_a);
    peer_expect_silence(host, in_b);
    peer_expect_silence(host, in_c);
    assert_int_equal(host->core->stats->publishes, 5);
    assert_int_equal(host->core->stats->deliveries, 5);
    host_close(host);
}

/* Topics interleave in one log, frames of several sizes cross its end, direct sends fall between: every subscriber's
 * stream is exactly its own. */
static void merged_segments_of_the_publish_log_are_each_subscribers_own_stream(void **state) {
    enum { PEERS = 6, ROUNDS = 400 };
    static const char *topics[] = {"t0", "t1", "t2"};
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open[PEERS];
    struct peer *peers[PEERS];
    uint8_t *expected[PEERS], payload[9000];
    size_t expected_bytes[PEERS] = {0};
    fill_pattern(payload, sizeof payload);
    for (uint32_t i = 0; i < PEERS; i++) {
        peers[i] = peer_open_ws(host, 7, &open[i]);
        expected[i] = malloc(ROUNDS * 3 * 9010);
        assert_non_null(expected[i]);
        for (uint32_t t = 0; t < 3; t++) {
            if ((i + 1) & (1u << t)) host_topic(host, &open[i], RW_COMMAND_SUBSCRIBE, topics[t]);
        }
    }
    uint32_t random = 12345;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        random = random * 1664525u + 1013904223u;
        uint32_t t = (random >> 8) % 4, bytes = (random >> 12) % 40;
        if ((random >> 20) % 10 == 0) bytes = (random >> 12) % 9000;
        for (uint32_t i = 0; i < PEERS; i++) {
            if (t < 3 ? !((i + 1) & (1u << t)) : i != (random >> 4) % PEERS) continue;
            uint8_t *out = expected[i] + expected_bytes[i];
            uint32_t header = rw_ws_encode_header(out, RW_WS_OP_BINARY, 1, 0, bytes);
            memcpy(out + header, payload, bytes);
            expected_bytes[i] += header + bytes;
        }
        if (t < 3) {
            host_publish(host, NULL, topics[t], 0, payload, bytes);
        } else {
            host_send(host, &open[(random >> 4) % PEERS], 0, payload, bytes);
        }
        if (round % 37 == 0) host_turn(host);
    }
    for (uint32_t i = 0; i < PEERS; i++) {
        peer_expect(host, peers[i], expected[i], expected_bytes[i]);
        peer_expect_silence(host, peers[i]);
        free(expected[i]);
    }
    host_close(host);
}

static void a_slow_subscriber_drops_whole_messages_and_costs_bounded_memory(void **state) {
    enum { MESSAGES = 1000, BYTES = 98, LIMIT = 10000 };
    struct host *host =
        ws_host(state, (struct rw_behavior){.max_backpressure_bytes = LIMIT,
                                            .flags = RW_BEHAVIOR_WANTS_DROPPED | RW_BEHAVIOR_WANTS_DRAIN});
    struct rw_event slow, fast;
    struct peer *slow_peer = peer_open_ws(host, 7, &slow), *fast_peer = peer_open_ws(host, 7, &fast);
    host_topic(host, &slow, RW_COMMAND_SUBSCRIBE, "t");
    host_topic(host, &fast, RW_COMMAND_SUBSCRIBE, "t");
    rw_sim_peer_window(host->core->ring, slow_peer->fd, 0);
    uint8_t payload[BYTES];
    fill_pattern(payload, sizeof payload);
    uint32_t dropped = 0;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        payload[0] = (uint8_t)i;
        payload[1] = (uint8_t)(i >> 8);
        host_publish(host, NULL, "t", 0, payload, sizeof payload);
        host_turns(host, 3);
        assert_true(rw_core_slot(host->core, slow.slot)->out_bytes <= LIMIT);
        peer_expect_frame(host, fast_peer, FIN_BINARY, payload, sizeof payload);
    }
    while (host->log_at < host->log_count) {
        struct record *record = host_expect(host, RW_EVENT_DROPPED);
        assert_int_equal(record->event.slot, slow.slot);
        dropped += record->event.arg0;
    }
    assert_int_equal(dropped, MESSAGES - LIMIT / (BYTES + 2));
    assert_int_equal(host->core->stats->drops_backpressure, dropped);
    assert_true(host_buffers_used(host) < 40);
    rw_sim_peer_window(host->core->ring, slow_peer->fd, SIZE_MAX);
    assert_int_equal(host_expect(host, RW_EVENT_WS_DRAIN)->event.slot, slow.slot);
    for (uint32_t i = 0; i < LIMIT / (BYTES + 2); i++) {
        payload[0] = (uint8_t)i;
        payload[1] = (uint8_t)(i >> 8);
        peer_expect_frame(host, slow_peer, FIN_BINARY, payload, sizeof payload);
    }
    peer_expect_silence(host, slow_peer);
    host_close(host);
}

/* Closing a member in the middle of a fan-out moves the last one into its place: nobody may be left out or served
 * twice. */
static void slow_subscribers_are_closed_in_the_middle_of_a_publish(void **state) {
    enum { PEERS = 12, BYTES = 500 };
    struct host *host = ws_host(
        state, (struct rw_behavior){.max_backpressure_bytes = 1200, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE});
    struct rw_event open[PEERS];
    struct peer *peers[PEERS];
    uint8_t payload[BYTES];
    fill_pattern(payload, sizeof payload);
    for (uint32_t i = 0; i < PEERS; i++) {
        peers[i] = peer_open_ws(host, 7, &open[i]);
        host_topic(host, &open[i], RW_COMMAND_SUBSCRIBE, "t");
        if (i % 3 != 1) rw_sim_peer_window(host->core->ring, peers[i]->fd, 0);
    }
    for (uint32_t round = 0; round < 6; round++) {
        host_publish(host, NULL, "t", 0, payload, sizeof payload);
        host_turns(host, 4);
    }
    uint32_t closed = 0;
    while (host->log_at < host->log_count) {
        assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1008);
        closed++;
    }
    assert_int_equal(closed, PEERS - PEERS / 3);
    assert_int_equal(host->core->stats->closes_backpressure, closed);
    assert_int_equal(rw_core_subscribers(host->core, (const uint8_t *)"t", 1), PEERS / 3);
    for (uint32_t i = 1; i < PEERS; i += 3) {
        for (uint32_t round = 0; round < 6; round++)
            peer_expect_frame(host, peers[i], FIN_BINARY, payload, sizeof payload);
        peer_expect_silence(host, peers[i]);
    }
    host_close(host);
}

/* A burst within one tick is tried on the kernel before it counts as backpressure; what is dropped is counted, what
 * comes is in order. */
static void a_burst_is_delivered_in_order_or_dropped_and_counted(void **state) {
    enum { MESSAGES = 3000, BYTES = 1500, LIMIT = 50000 };
    struct host *host = ws_host(state, (struct rw_behavior){.max_backpressure_bytes = LIMIT});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, 7000);
    uint8_t payload[BYTES];
    fill_pattern(payload, sizeof payload);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        memcpy(payload, &i, sizeof i);
        host_send(host, &open, 0, payload, sizeof payload);
        if (i % 1000 == 999) host_turn(host);
        assert_true(rw_core_slot(host->core, open.slot)->out_bytes <= LIMIT);
    }
    host_turn(host);
    if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    uint64_t delivered = MESSAGES - host->core->stats->drops_backpressure;
    assert_true(delivered >= LIMIT / (BYTES + 10));
    uint32_t last = 0;
    for (uint64_t i = 0; i < delivered; i++) {
        peer_wait_bytes(host, peer, BYTES + 4);
        uint32_t serial;
        memcpy(&serial, peer->in + 4, sizeof serial);
        assert_true(i == 0 ? serial == 0 : serial > last);
        last = serial;
        memcpy(payload, &serial, sizeof serial);
        peer_expect_frame(host, peer, FIN_BINARY, payload, sizeof payload);
    }
    peer_expect_silence(host, peer);
    assert_int_equal(host->core->stats->ws_messages_out, delivered);
    host_close(host);
}

static void a_message_in_fragments_is_dropped_whole_or_not_at_all(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.max_backpressure_bytes = 1000});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t payload[600];
    fill_pattern(payload, sizeof payload);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    host_send(host, &open, 0, payload, sizeof payload);
    host_turns(host, 3);
    host_send(host, &open, RW_SEND_FIRST, payload, sizeof payload); /* no room: dropped, and with it the rest */
    host_flush(host);
    rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    host_turns(host, 3);
    host_send(host, &open, RW_SEND_CONTINUE, payload, 10);
    host_send(host, &open, RW_SEND_CONTINUE | RW_SEND_LAST, payload, 10);
    host_send(host, &open, RW_SEND_TEXT, "next", 4);
    peer_expect_frame(host, peer, FIN_BINARY, payload, sizeof payload);
    peer_expect_frame(host, peer, FIN_TEXT, "next", 4);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    host_send(host, &open, RW_SEND_FIRST, payload, 500);
    host_turns(host, 3);
    host_send(host, &open, RW_SEND_CONTINUE | RW_SEND_LAST, payload, sizeof payload); /* begun, and cannot be ended */
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1008);
    host_close(host);
}

static void a_core_is_destroyed_with_sockets_topics_and_output_under_way(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open[8];
    uint8_t payload[3000];
    fill_pattern(payload, sizeof payload);
    for (uint32_t i = 0; i < 8; i++) {
        struct peer *peer = peer_open_ws(host, 7, &open[i]);
        host_topic(host, &open[i], RW_COMMAND_SUBSCRIBE, "t");
        if (host_is_sim(host)) rw_sim_peer_window(host->core->ring, peer->fd, i * 100);
        peer_send_frame(host, peer, 0x02, payload, sizeof payload);
    }
    for (uint32_t i = 0; i < 20; i++) {
        host_publish(host, NULL, "t", 0, payload, sizeof payload);
        if (i % 5 == 0) host_turn(host);
    }
    host_flush(host);
    rw_core_destroy(host->core);
    host->core = NULL;
    host_free(host);
}

/* ret: what rw_core_command() answers */
static int32_t subscribe_now(struct host *host, const struct rw_event *to, const char *topic) {
    struct rw_command command = {.type = RW_COMMAND_SUBSCRIBE, .slot = to->slot, .generation = to->generation};
    host_flush(host);
    return rw_core_command(host->core, &command, (const uint8_t *)topic, strlen(topic));
}

static void past_its_limits_a_subscription_is_refused_and_counted(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.topics_per_socket = 3, .topics = 5});
    host_behavior(host, 7, PLAIN);
    struct rw_event a, b, c;
    struct peer *in_a = peer_open_ws(host, 7, &a);
    (void)peer_open_ws(host, 7, &b);
    (void)peer_open_ws(host, 7, &c);
    assert_int_equal(subscribe_now(host, &a, "1"), 1);
    assert_int_equal(subscribe_now(host, &a, "2"), 1);
    assert_int_equal(subscribe_now(host, &a, "3"), 1);
    assert_int_equal(host->core->stats->topics, 3);
    assert_int_equal(subscribe_now(host, &a, "4"), RW_ERR_FULL);
    host_topic(host, &a, RW_COMMAND_SUBSCRIBE, "4"); /* in a batch nobody hears of it */
    host_flush(host);
    assert_int_equal(host->core->stats->refused_topics_socket, 2);
    assert_int_equal(rw_core_is_subscribed(host->core, a.slot, a.generation, (const uint8_t *)"4", 1), 0);
    /* What it has it has, and what it leaves makes room. */
    assert_int_equal(subscribe_now(host, &a, "1"), 0);
    host_topic(host, &a, RW_COMMAND_UNSUBSCRIBE, "2");
    host_topic(host, &a, RW_COMMAND_UNSUBSCRIBE, "never");
    assert_int_equal(subscribe_now(host, &a, "4"), 1);
    assert_int_equal(subscribe_now(host, &a, "5"), RW_ERR_FULL);

    /* 1, 3, 4 are there: two more, and then only those. */
    assert_int_equal(subscribe_now(host, &b, "5"), 1);
    assert_int_equal(subscribe_now(host, &b, "6"), 1);
    assert_int_equal(subscribe_now(host, &c, "7"), RW_ERR_FULL);
    assert_int_equal(host->core->stats->refused_topics_worker, 1);
    assert_int_equal(subscribe_now(host, &c, "1"), 1);
    assert_int_equal(subscribe_now(host, &c, "6"), 1);
    peer_close(host, in_a);
    (void)host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(subscribe_now(host, &c, "7"), 1);
    assert_int_equal(subscribe_now(host, &c, "8"), RW_ERR_FULL);
    assert_int_equal(host->core->stats->refused_topics_socket, 4);
    host_close(host);
}

static void a_socket_that_asks_for_positions_hears_which_topic_and_others_the_message_alone(void **state) {
    struct host *host = ws_host(state, PLAIN);
    host_behavior(host, 8, (struct rw_behavior){.flags = RW_BEHAVIOR_POSITIONS});
    struct rw_event raw, json;
    struct peer *in_raw = peer_open_ws(host, 7, &raw), *in_json = peer_open_ws(host, 8, &json);
    host_topic(host, &raw, RW_COMMAND_SUBSCRIBE, "room");
    host_topic(host, &json, RW_COMMAND_SUBSCRIBE, "room");
    host_publish(host, NULL, "room", RW_SEND_TEXT, "say \"hi\"", 8);
    host_publish(host, NULL, "room", 0, "\0\1", 2);
    host_send(host, &json, RW_SEND_TEXT, "as it is", 8); /* what is sent to it alone is no message of a topic */
    host_publish(host, &raw, "room", RW_SEND_TEXT, "not raw", 7);
    host_publish(host, &json, "room", RW_SEND_TEXT, "not json", 8);
    host_turn(host);
    peer_expect_frame(host, in_raw, FIN_TEXT, "say \"hi\"", 8);
    peer_expect_frame(host, in_raw, FIN_BINARY, "\0\1", 2);
    peer_expect_frame(host, in_raw, FIN_TEXT, "not json", 8);
    static const char *const lines[] = {"{\"topic\":\"room\",\"data\":\"say \\\"hi\\\"\"}",
                                        "{\"topic\":\"room\",\"base64\":\"AAE=\"}", "as it is",
                                        "{\"topic\":\"room\",\"data\":\"not raw\"}"};
    for (uint32_t i = 0; i < 4; i++) peer_expect_frame(host, in_json, FIN_TEXT, lines[i], strlen(lines[i]));
    assert_int_equal(host->core->stats->deliveries, 6);
    assert_int_equal(host->core->stats->ws_messages_out, 7);

    /* Among those who hear the message alone there is nothing to tell apart any more. */
    uint32_t id =
        rw_topics_find(host->core->topics, (const uint8_t *)"room", 4, rw_topics_hash((const uint8_t *)"room", 4));
    assert_int_equal(rw_topics_others(host->core->topics, id), 1);
    host_topic(host, &json, RW_COMMAND_UNSUBSCRIBE, "room");
    host_publish(host, NULL, "room", RW_SEND_TEXT, "last", 4);
    host_turn(host);
    assert_int_equal(rw_topics_others(host->core->topics, id), 0);
    peer_expect_frame(host, in_raw, FIN_TEXT, "last", 4);
    peer_expect_silence(host, in_json);
    host_close(host);
}

static void a_slow_socket_with_positions_meets_its_policy_on_a_direct_topic(void **state) {
    struct host *host = ws_host(state, PLAIN);
    host_behavior(host, 8,
                  (struct rw_behavior){.flags = RW_BEHAVIOR_POSITIONS | RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD,
                                       .max_backpressure_bytes = 4096});
    struct rw_event json;
    struct peer *peer = peer_open_ws(host, 8, &json);
    host_topic(host, &json, RW_COMMAND_SUBSCRIBE, "room");
    static char payload[1000];
    memset(payload, 'x', sizeof payload);
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < 100000 && !dropped; i++) {
        host_publish(host, NULL, "room", RW_SEND_TEXT, payload, sizeof payload);
        if (i % 16 == 15) host_flush(host);
        dropped = host->core->stats->drops_backpressure;
    }
    assert_true(dropped > 0);
    struct record *told = host_expect(host, RW_EVENT_DROPPED);
    assert_true(told->event.flags & RW_DROPPED_PAYLOAD);
    assert_memory_equal(told->payload, "{\"topic\":\"room\",\"data\":\"xxx", 27);
    peer_close(host, peer);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_socket_that_asks_for_positions_hears_which_topic_and_others_the_message_alone),
        ON_EVERY_RING(a_slow_socket_with_positions_meets_its_policy_on_a_direct_topic),
        ON_EVERY_RING(a_publish_reaches_subscribers_in_order_with_what_is_sent_to_them),
        ON_EVERY_RING(merged_segments_of_the_publish_log_are_each_subscribers_own_stream),
        ON_EVERY_RING(past_its_limits_a_subscription_is_refused_and_counted),
        ON_SIM(a_slow_subscriber_drops_whole_messages_and_costs_bounded_memory),
        ON_SIM(slow_subscribers_are_closed_in_the_middle_of_a_publish),
        ON_EVERY_RING(a_burst_is_delivered_in_order_or_dropped_and_counted),
        ON_SIM(a_message_in_fragments_is_dropped_whole_or_not_at_all),
        ON_EVERY_RING(a_core_is_destroyed_with_sockets_topics_and_output_under_way),
    };
    return cmocka_run_group_tests_name("the core publishes", tests, NULL, NULL);
}
