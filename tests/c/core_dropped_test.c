/* What becomes of messages that cannot go out at once: held behind one that is being sent in fragments, or dropped and
 * told of with their payload; and why a WebSocket has ended. */
#include "core_fixture.h"
#include "ws/ws.h"

#include "ws/dropped.h"

#define LIMIT 1000u

static struct rw_slot *slot_of(struct host *host, const struct rw_event *open) {
    return rw_core_slot(host->core, open->slot);
}

/* ---------------------------------------------------------------- held */

static void messages_wait_for_the_last_fragment_and_follow_in_order(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "t");
    uint8_t *large = malloc(100000);
    assert_non_null(large);
    fill_pattern(large, 100000);
    host_send(host, &open, RW_SEND_FIRST | RW_SEND_TEXT, "one", 3);
    host_send(host, &open, 0, "held 1", 6);
    host_publish(host, NULL, "t", RW_SEND_TEXT, "held 2", 6);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PING}, "ping", 4);
    host_send(host, &open, 0, large, 100000);
    host_send(host, &open, 0, "", 0);
    host_send(host, &open, RW_SEND_CONTINUE, "two", 3);
    host_turns(host, 3);
    assert_int_equal(rw_ws_of(slot_of(host, &open))->held_bytes, 8 + 8 + 100010 + 2);
    host_publish(host, NULL, "t", 0, "held 3", 6);
    host_send(host, &open, RW_SEND_CONTINUE | RW_SEND_LAST, "", 0);
    host_send(host, &open, RW_SEND_TEXT, "after", 5);
    peer_expect_frame(host, peer, 0x01, "one", 3);
    peer_expect_frame(host, peer, FIN_PING, "ping", 4);
    peer_expect_frame(host, peer, 0x00, "two", 3);
    peer_expect_frame(host, peer, 0x80, "", 0);
    peer_expect_frame(host, peer, FIN_BINARY, "held 1", 6);
    peer_expect_frame(host, peer, FIN_TEXT, "held 2", 6);
    peer_expect_frame(host, peer, FIN_BINARY, large, 100000);
    peer_expect_frame(host, peer, FIN_BINARY, "", 0);
    peer_expect_frame(host, peer, FIN_BINARY, "held 3", 6);
    peer_expect_frame(host, peer, FIN_TEXT, "after", 5);
    assert_int_equal(rw_ws_of(slot_of(host, &open))->held_bytes, 0);
    assert_int_equal(host->core->stats->ws_messages_out, 7);
    free(large);
    host_close(host);
}

static void held_messages_count_as_backpressure(void **state) {
    struct host *host =
        ws_host(state, (struct rw_behavior){.max_backpressure_bytes = LIMIT, .flags = RW_BEHAVIOR_WANTS_DROPPED});
    struct rw_event open;
    uint8_t payload[398] = {0};
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "t");
    host_send(host, &open, RW_SEND_FIRST, "a", 1);
    for (uint32_t i = 0; i < 4; i++) host_send(host, &open, 0, payload, 396); /* 400 with its header: two fit */
    host_publish(host, NULL, "t", 0, payload, 396);
    host_turns(host, 5);
    assert_int_equal(host_expect(host, RW_EVENT_DROPPED)->event.arg0, 3);
    assert_int_equal(rw_ws_of(slot_of(host, &open))->held_bytes, 800);
    peer_expect_frame(host, peer, 0x02, "a", 1);
    peer_expect_silence(host, peer);
    host_send(host, &open, RW_SEND_CONTINUE | RW_SEND_LAST, "b", 1);
    peer_expect_frame(host, peer, 0x80, "b", 1);
    peer_expect_frame(host, peer, FIN_BINARY, payload, 396);
    peer_expect_frame(host, peer, FIN_BINARY, payload, 396);
    peer_expect_silence(host, peer);
    host_close(host);
}

static void held_messages_are_let_go_when_the_connection_ends(void **state) {
    static const enum rw_command_type ends[] = {RW_COMMAND_TERMINATE, RW_COMMAND_WS_CLOSE};
    struct host *host = ws_host(state, PLAIN);
    for (size_t i = 0; i < 3; i++) {
        struct rw_event open;
        struct peer *peer = peer_open_ws(host, 7, &open);
        host_send(host, &open, RW_SEND_FIRST, "a", 1);
        host_send(host, &open, 0, "held", 4);
        host_turn(host);
        if (i < 2) {
            host_answer(host, &open, (struct rw_command){.type = (uint16_t)ends[i], .arg0 = 1000}, "", 0);
            host_turn(host);
        }
        peer_close(host, peer);
        struct record *closed = host_expect(host, RW_EVENT_CLOSE);
        assert_int_equal(closed->event.arg1, i < 2 ? RW_CLOSE_BY_HOST : RW_CLOSE_PEER_GONE);
    }
    host_close(host);
}

static void after_a_first_fragment_that_was_dropped_nothing_is_held(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.max_backpressure_bytes = LIMIT});
    struct rw_event open;
    uint8_t payload[900] = {0};
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_send(host, &open, 0, payload, sizeof payload);
    host_send(host, &open, RW_SEND_FIRST, payload, sizeof payload);
    host_send(host, &open, 0, "small", 5);
    host_send(host, &open, RW_SEND_CONTINUE | RW_SEND_LAST, "b", 1);
    peer_expect_frame(host, peer, FIN_BINARY, payload, sizeof payload);
    peer_expect_frame(host, peer, FIN_BINARY, "small", 5);
    peer_expect_silence(host, peer);
    assert_int_equal(host->core->stats->drops_backpressure, 1);
    host_close(host);
}

/* ---------------------------------------------------------------- dropped, with payload */

#define WANTS_PAYLOAD                                      \
    ((struct rw_behavior){.max_backpressure_bytes = LIMIT, \
                          .flags = RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD | RW_BEHAVIOR_WANTS_DRAIN})

static void expect_dropped(struct host *host, const struct rw_event *open, const void *payload, size_t bytes,
                           uint32_t flags) {
    struct record *record = host_expect(host, RW_EVENT_DROPPED);
    assert_int_equal(record->event.slot, open->slot);
    assert_int_equal(record->event.bytes, bytes);
    assert_int_equal(record->event.flags, flags | RW_DROPPED_PAYLOAD);
    if (!(flags & RW_EVENT_LARGE)) assert_int_equal(record->event.arg0, 1);
    if (bytes) assert_memory_equal(record->payload, payload, bytes);
}

/* Whatever is queued now is all that fits. */
static void fill_up(struct host *host, const struct rw_event *open) {
    static const uint8_t filler[990];
    host_send(host, open, RW_SEND_OWN, filler, sizeof filler);
}

static void what_a_publish_drops_is_told_with_its_payload_in_order(void **state) {
    struct host *host = ws_host(state, WANTS_PAYLOAD);
    host_behavior(host, 8, (struct rw_behavior){.max_backpressure_bytes = LIMIT, .flags = RW_BEHAVIOR_WANTS_DROPPED});
    struct rw_event open, counted;
    struct peer *peer = peer_open_ws(host, 7, &open);
    (void)peer_open_ws(host, 8, &counted);
    host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "t");
    host_topic(host, &counted, RW_COMMAND_SUBSCRIBE, "t");
    uint8_t *large = malloc(70000);
    assert_non_null(large);
    fill_pattern(large, 70000);
    fill_up(host, &open);
    fill_up(host, &counted);
    peer_send_frame(host, peer, FIN_TEXT, "later", 5);
    host_publish(host, NULL, "t", RW_SEND_TEXT, "first dropped", 13);
    host_publish(host, NULL, "t", 0, large, 70000);
    host_publish(host, NULL, "t", 0, large, 0); /* an empty one has room */
    host_send(host, &open, RW_SEND_TEXT, "a send that is not the host's own", 33);
    host_send(host, &open, RW_SEND_TEXT | RW_SEND_OWN, "one that the host knows of by itself", 36);
    host_turn(host);
    expect_dropped(host, &open, "first dropped", 13, 0);
    expect_dropped(host, &open, large, 70000, RW_WS_BINARY | RW_EVENT_LARGE);
    expect_dropped(host, &open, "a send that is not the host's own", 33, 0);
    struct record *record = host_expect(host, RW_EVENT_DROPPED);
    assert_int_equal(record->event.slot, counted.slot);
    assert_int_equal(record->event.arg0, 2);
    assert_int_equal(record->event.flags, 0);
    host_turns(host, 10);
    uint32_t messages = 0, drains = 0;
    while ((record = host_poll(host)) != NULL) {
        assert_true(record->event.type == RW_EVENT_MESSAGE || record->event.type == RW_EVENT_WS_DRAIN);
        messages += record->event.type == RW_EVENT_MESSAGE;
        drains += record->event.type == RW_EVENT_WS_DRAIN;
    }
    assert_int_equal(messages, 1);
    assert_int_equal(drains, 1);
    assert_int_equal(host->core->stats->drops_backpressure, 6);
    free(large);
    host_close(host);
}

static void drops_past_the_bounds_are_only_counted(void **state) {
    struct host *host = ws_host(state, WANTS_PAYLOAD);
    struct rw_event open;
    (void)peer_open_ws(host, 7, &open);
    host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "t");
    fill_up(host, &open);
    for (uint32_t i = 0; i < RW_DROPPED_MESSAGES_MAX + 20; i++) host_publish(host, NULL, "t", 0, &i, sizeof i);
    host_turns(host, 3);
    uint64_t kept = 0, counted = 0;
    for (size_t i = 0; i < host->log_count; i++) {
        if (host->log[i].event.type != RW_EVENT_DROPPED) continue;
        if (host->log[i].event.flags & RW_DROPPED_PAYLOAD) {
            assert_int_equal(host->log[i].event.bytes, sizeof(uint32_t));
            kept++;
        } else {
            counted += host->log[i].event.arg0;
        }
    }
    host->log_at = host->log_count;
    assert_int_equal(kept, RW_DROPPED_MESSAGES_MAX);
    assert_int_equal(kept + counted, host->core->stats->drops_backpressure);

    /* By bytes: four of a megabyte are kept, and told over several turns. */
    uint8_t *megabyte = calloc(1, 1u << 20);
    assert_non_null(megabyte);
    host_turns(host, 5);
    host->log_at = host->log_count;
    fill_up(host, &open);
    for (uint8_t i = 0; i < 6; i++) {
        megabyte[0] = i;
        host_publish(host, NULL, "t", 0, megabyte, 1u << 20);
    }
    for (uint8_t i = 0; i < 4; i++) {
        megabyte[0] = i;
        expect_dropped(host, &open, megabyte, 1u << 20, RW_WS_BINARY | RW_EVENT_LARGE);
    }
    assert_int_equal(host_expect(host, RW_EVENT_DROPPED)->event.arg0, 2);
    free(megabyte);
    host_close(host);
}

static void one_copy_serves_all_subscribers_that_a_publish_is_dropped_for(void **state) {
    enum { PEERS = 20 };
    struct host *host = ws_host(state, WANTS_PAYLOAD);
    struct rw_event open[PEERS];
    uint8_t *payload = malloc(1u << 20);
    assert_non_null(payload);
    fill_pattern(payload, 1u << 20);
    for (uint32_t i = 0; i < PEERS; i++) {
        (void)peer_open_ws(host, 7, &open[i]);
        host_topic(host, &open[i], RW_COMMAND_SUBSCRIBE, "t");
    }
    for (uint32_t i = 0; i < PEERS; i++) fill_up(host, &open[i]);
    host_publish(host, NULL, "t", 0, payload, 1u << 20);
    host_flush(host);
    assert_int_equal(rw_buffers_stats(host->core->buffers, RW_BUFFER_LARGE).used, 1);
    uint32_t told = 0;
    host_turns(host, 3);
    for (size_t i = host->log_at; i < host->log_count; i++) {
        if (host->log[i].event.type != RW_EVENT_DROPPED) continue;
        assert_memory_equal(host->log[i].payload, payload, 1u << 20);
        told++;
    }
    host->log_at = host->log_count;
    assert_int_equal(told, PEERS);
    free(payload);
    host_close(host);
}

static void what_was_dropped_is_told_before_the_close(void **state) {
    struct host *host = ws_host(state, WANTS_PAYLOAD);
    struct rw_event open;
    (void)peer_open_ws(host, 7, &open);
    host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "t");
    uint8_t *payload = malloc(60000);
    assert_non_null(payload);
    fill_pattern(payload, 60000);
    fill_up(host, &open);
    for (uint32_t i = 0; i < 40; i++) host_publish(host, NULL, "t", 0, payload, 60000); /* more than one batch */
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_TERMINATE}, "", 0);
    for (uint32_t i = 0; i < 40; i++) expect_dropped(host, &open, payload, 60000, RW_WS_BINARY);
    host_expect(host, RW_EVENT_CLOSE);
    host_expect_silence(host);
    free(payload);
    host_close(host);
}

static void a_core_that_ends_lets_go_of_what_was_dropped(void **state) {
    struct host *host = ws_host(state, WANTS_PAYLOAD);
    struct rw_event open;
    (void)peer_open_ws(host, 7, &open);
    host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "t");
    fill_up(host, &open);
    host_publish(host, NULL, "t", 0, "some message", 12);
    host_flush(host);
    assert_int_not_equal(rw_core_sleep(host->core), -1);
    rw_core_wake(host->core);
    rw_core_destroy(host->core);
    host_free(host);
}

/* ---------------------------------------------------------------- causes */

static void expect_cause(struct host *host, uint32_t code, enum rw_close_cause cause) {
    struct record *closed = host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(closed->event.arg0, code);
    assert_int_equal(closed->event.arg1, cause);
    host_expect_silence(host);
}

static void a_close_says_why(void **state) {
    static const struct {
        uint8_t first;
        const char *payload;
        size_t bytes;
        uint32_t code;
        enum rw_close_cause cause;
    } cases[] = {
        {FIN_CLOSE, "\x03\xE8", 2, 1000, RW_CLOSE_BY_PEER},
        {FIN_CLOSE, "", 0, 1005, RW_CLOSE_BY_PEER},
        {FIN_CLOSE, "\x03", 1, 1002, RW_CLOSE_PROTOCOL_ERROR},
        {FIN_CLOSE, "\x03\xE8\xff", 3, 1007, RW_CLOSE_INVALID_UTF8},
        {0x83, "", 0, 1002, RW_CLOSE_PROTOCOL_ERROR},
        {0x80, "", 0, 1002, RW_CLOSE_PROTOCOL_ERROR},
        {FIN_TEXT, "\xff", 1, 1007, RW_CLOSE_INVALID_UTF8},
        {FIN_BINARY, "longer than ten", 15, 1009, RW_CLOSE_TOO_BIG},
        {0xC1, "", 0, 1002, RW_CLOSE_PROTOCOL_ERROR},
    };
    struct host *host = ws_host(state, (struct rw_behavior){.max_payload_bytes = 10});
    struct rw_event open;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peer *peer = peer_open_ws(host, 7, &open);
        peer_send_frame(host, peer, cases[i].first, cases[i].payload, cases[i].bytes);
        expect_cause(host, cases[i].code, cases[i].cause);
        peer_close(host, peer);
    }
    struct peer *peer = peer_open_ws(host, 7, &open);
    peer_close(host, peer);
    expect_cause(host, 1006, RW_CLOSE_PEER_GONE);
    peer = peer_open_ws(host, 7, &open);
    peer_shutdown(host, peer);
    expect_cause(host, 1006, RW_CLOSE_PEER_GONE);
    peer = peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_TERMINATE}, "", 0);
    expect_cause(host, 1006, RW_CLOSE_BY_HOST);
    peer = peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 4001}, "", 0);
    peer_expect_close_frame(host, peer, 4001);
    peer_send_frame(host, peer, FIN_CLOSE, "\x0F\xA1", 2);
    expect_cause(host, 4001, RW_CLOSE_BY_HOST);
    host_close(host);
}

static void time_and_backpressure_are_causes(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.idle_timeout_ms = 20000});
    host_behavior(host, 8, (struct rw_behavior){.max_lifetime_ms = 20000});
    host_behavior(host, 9,
                  (struct rw_behavior){.max_backpressure_bytes = LIMIT, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE});
    struct rw_event open;
    (void)peer_open_ws(host, 7, &open);
    host_pass_time(host, 21000);
    expect_cause(host, 1006, RW_CLOSE_IDLE);
    struct peer *peer = peer_open_ws(host, 8, &open);
    host_pass_time(host, 21000);
    peer_expect_frame(host, peer, FIN_CLOSE, "\x03\xE8please reconnect", 18);
    peer_send_frame(host, peer, FIN_CLOSE, "\x03\xE8", 2);
    expect_cause(host, 1000, RW_CLOSE_LIFETIME);
    (void)peer_open_ws(host, 9, &open);
    fill_up(host, &open);
    fill_up(host, &open);
    expect_cause(host, 1008, RW_CLOSE_BACKPRESSURE);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(messages_wait_for_the_last_fragment_and_follow_in_order),
        ON_EVERY_RING(held_messages_count_as_backpressure),
        ON_EVERY_RING(held_messages_are_let_go_when_the_connection_ends),
        ON_SIM(after_a_first_fragment_that_was_dropped_nothing_is_held),
        ON_SIM(what_a_publish_drops_is_told_with_its_payload_in_order),
        ON_SIM(drops_past_the_bounds_are_only_counted),
        ON_SIM(one_copy_serves_all_subscribers_that_a_publish_is_dropped_for),
        ON_SIM(what_was_dropped_is_told_before_the_close),
        ON_SIM(a_core_that_ends_lets_go_of_what_was_dropped),
        ON_EVERY_RING(a_close_says_why),
        ON_SIM(time_and_backpressure_are_causes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
