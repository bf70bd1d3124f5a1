/* No client takes the worker from the others: what one turn does of anybody's input, that output and deadlines go on
 * meanwhile, and that nobody is blamed for our delay. */
#include "connection/work.h"
#include "deflate_client.h"

#define MIB (1u << 20)

static struct {
    uint64_t held, messages, most_held, most_messages, total, bystander_at, turn;
    uint32_t bystander;
} seen;

/* Counts what a batch has, and answers nothing. */
static void count_events(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    (void)payload;
    if (event->type != RW_EVENT_MESSAGE) return;
    if (seen.turn != host->core->stats->turns) seen.held = seen.messages = 0;
    seen.turn = host->core->stats->turns;
    seen.held += event->flags & RW_EVENT_LARGE ? event->bytes : 0;
    seen.messages++;
    seen.total++;
    if (seen.held > seen.most_held) seen.most_held = seen.held;
    if (seen.messages > seen.most_messages) seen.most_messages = seen.messages;
    if (event->slot == seen.bystander) seen.bystander_at = host->core->stats->turns;
}

static void begin_counting(struct host *host, uint32_t bystander) {
    memset(&seen, 0, sizeof seen);
    seen.bystander = bystander;
    host->handler = count_events;
}

static size_t bomb(uint8_t *out) {
    static uint8_t zeros[MIB];
    struct zlib_peer zlib;
    zlib_peer_begin(&zlib, 15, 15);
    size_t bytes = zlib_peer_deflate(&zlib, zeros, sizeof zeros);
    assert_in_range(bytes, 1, 2000);
    size_t frame = ws_client_frame(out, RSV1_BINARY, zlib.out, bytes);
    zlib_peer_end(&zlib);
    return frame;
}

static void compressed_bombs_share_turns_and_wait_as_they_came(void **state) {
    enum { CLIENTS = 12, BOMBS = 16 };
    struct host *host = ws_host(state, (struct rw_behavior){.deflate = SHARED});
    host_behavior(host, 8, PLAIN);
    struct client clients[CLIENTS];
    struct rw_event bystander;
    for (uint32_t i = 0; i < CLIENTS; i++)
        client_open(host, &clients[i], 7, "permessage-deflate; client_no_context_takeover");
    struct peer *other = peer_open_ws(host, 8, &bystander);
    uint8_t frame[2048];
    size_t bytes = bomb(frame);
    begin_counting(host, bystander.slot);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        for (uint32_t n = 0; n < BOMBS; n++) peer_send(host, clients[i].peer, frame, bytes);
    }
    while (seen.total == 0) host_turn(host);
    peer_send_frame(host, other, FIN_TEXT, "hello", 5);
    uint64_t sent = host->core->stats->turns;
    uint64_t end = test_now_ms() + 60000;
    while (seen.total < CLIENTS * BOMBS + 1 && test_now_ms() < end) {
        host_turn(host);
        assert_in_range(rw_buffers_stats(host->core->buffers, RW_BUFFER_LARGE).used, 0,
                        RW_HELD_BYTES_MAX / MIB + CLIENTS);
    }
    assert_int_equal(seen.total, CLIENTS * BOMBS + 1);
    assert_in_range(seen.most_held, MIB, RW_HELD_BYTES_MAX);
    assert_in_range(seen.bystander_at, sent, sent + 6);
    for (uint32_t i = 0; i < CLIENTS; i++) client_free(&clients[i]);
    host_close(host);
}

static void large_messages_count_in_the_batch(void **state) {
    enum { CLIENTS = 16 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open[CLIENTS];
    struct peer *peers[CLIENTS];
    uint8_t *payload = calloc(1, MIB);
    assert_non_null(payload);
    for (uint32_t i = 0; i < CLIENTS; i++) peers[i] = peer_open_ws(host, 7, &open[i]);
    begin_counting(host, RW_NO_SLOT);
    for (uint32_t i = 0; i < CLIENTS; i++) peer_send_frame(host, peers[i], FIN_BINARY, payload, MIB);
    uint64_t end = test_now_ms() + 30000;
    while (seen.total < CLIENTS && test_now_ms() < end) host_turn(host);
    assert_int_equal(seen.total, CLIENTS);
    assert_in_range(seen.most_held, MIB, RW_HELD_BYTES_MAX);
    free(payload);
    host_close(host);
}

static void a_byte_rate_is_about_what_is_inflated(void **state) {
    enum { RATE = 65536, BOMBS = 8 };
    struct host *host = ws_host(
        state, (struct rw_behavior){.deflate = SHARED, .bytes_per_second = RATE, .flags = RW_BEHAVIOR_PAUSE_ON_RATE});
    struct client client;
    client_open(host, &client, 7, "permessage-deflate; client_no_context_takeover");
    uint8_t frame[2048];
    size_t bytes = bomb(frame);
    begin_counting(host, RW_NO_SLOT);
    for (uint32_t n = 0; n < BOMBS; n++) peer_send(host, client.peer, frame, bytes);
    for (uint32_t turn = 0; turn < 2000 && seen.total == 0; turn++) host_turn(host);
    host_turns(host, 20);
    assert_int_equal(seen.total, 1); /* any size passes when the peer was at rest */
    host_pass_time(host, 10000);
    assert_int_equal(seen.total, 1);
    host_pass_time(host, 6400); /* a megabyte at 64 KiB a second */
    assert_int_equal(seen.total, 2);
    assert_int_equal(host->core->stats->ws_deflated_in, 2);
    host_answer(host, &client.open, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    client_free(&client);
    host_close(host);
}

/* Small messages, as many as there is room for. */
static struct {
    uint8_t bytes[65536];
    size_t count;
} flood;

static void fill_flood(void) {
    flood.count = 0;
    while (flood.count + 32 < sizeof flood.bytes)
        flood.count += ws_client_frame(flood.bytes + flood.count, FIN_BINARY, "0123456789abcdef", 16);
}

static void a_turn_brings_no_more_than_the_host_says(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open, bystander;
    struct peer *peer = peer_open_ws(host, 7, &open);
    struct peer *other = peer_open_ws(host, 7, &bystander);
    rw_core_pace(host->core, 50);
    fill_flood();
    begin_counting(host, bystander.slot);
    peer_send(host, peer, flood.bytes, flood.count);
    while (seen.total == 0) host_turn(host);
    peer_send_frame(host, other, FIN_TEXT, "hello", 5);
    uint64_t sent = host->core->stats->turns, total = flood.count / 22;
    for (uint32_t turn = 0; turn < 5000 && seen.total < total + 1; turn++) host_turn(host);
    assert_int_equal(seen.total, total + 1);
    assert_in_range(seen.most_messages, 10, 51);
    assert_in_range(seen.bystander_at, sent, sent + 4);
    host_close(host);
}

static void deadlines_are_kept_while_a_flood_is_never_caught_up_with(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.idle_timeout_ms = 12000});
    struct rw_event open, idle;
    struct peer *peer = peer_open_ws(host, 7, &open);
    (void)peer_open_ws(host, 7, &idle);
    struct peer *slow[3];
    for (uint32_t i = 0; i < 3; i++) {
        slow[i] = peer_connect(host);
        peer_send_text(host, slow[i], "GET / HTTP/1.1\r\nHo");
    }
    host_turns(host, 5);
    rw_core_pace(host->core, 4);
    fill_flood();
    begin_counting(host, RW_NO_SLOT);
    for (uint32_t passed = 0; passed < 13000; passed += 100) {
        if (rw_core_slot(host->core, open.slot)->input_bytes < 16384) peer_send(host, peer, flood.bytes, flood.count);
        assert_true(passed == 0 || host->core->ready.count > 0); /* it is behind all the time */
        host->core->clock_start_ms -= 100;
        host_turns(host, 2);
        if (passed < 9500) assert_int_equal(host->core->stats->timeouts_head, 0);
        if (passed > 10200) assert_int_equal(host->core->stats->timeouts_head, 3);
    }
    assert_int_equal(host->core->stats->timeouts_idle, 1);
    assert_true(seen.total > 0);
    host_close(host);
}

static void a_peer_whose_bytes_wait_in_the_worker_is_in_time(void **state) {
    enum { FLOODS = 40 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open[FLOODS];
    struct peer *peers[FLOODS];
    for (uint32_t i = 0; i < FLOODS; i++) peers[i] = peer_open_ws(host, 7, &open[i]);
    struct peer *slow = peer_connect(host);
    peer_send_text(host, slow, "GET /in-time HTTP/1.1\r\nHo");
    host_turns(host, 5);
    rw_core_pace(host->core, 1);
    fill_flood();
    host_pass_time(host, 9600);
    for (uint32_t i = 0; i < FLOODS; i++) peer_send(host, peers[i], flood.bytes, 4400);
    peer_send_text(host, slow, "st: a\r\n\r\n");
    host_turn(host); /* its bytes are here, and 40 others are served before */
    assert_true(rw_core_slot(host->core, open[FLOODS - 1].slot)->state.ready);
    host->core->clock_start_ms -= 500; /* past the deadline */
    uint32_t requests = 0;
    for (uint32_t turn = 0; turn < 400 && !requests; turn++) {
        host_turn(host);
        for (; host->log_at < host->log_count; host->log_at++)
            requests += host->log[host->log_at].event.type == RW_EVENT_REQUEST;
    }
    assert_int_equal(host->core->stats->timeouts_head, 0);
    assert_int_equal(requests, 1);
    host_close(host);
}

static void answer(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    if (event->type != RW_EVENT_MESSAGE) return;
    seen.total++;
    host_send(host, event, 0, payload, event->bytes);
}

static void answers_go_out_while_more_input_waits(void **state) {
    struct host *host = ws_host(
        state, (struct rw_behavior){.max_backpressure_bytes = 1000, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    rw_core_pace(host->core, 40);
    fill_flood();
    memset(&seen, 0, sizeof seen);
    host->handler = answer;
    peer_send(host, peer, flood.bytes, flood.count);
    size_t total = flood.count / 22, had = 0;
    for (uint32_t turn = 0; turn < 5000 && had < total * 18; turn++) {
        uint64_t answered = seen.total;
        host_turns(host, 2); /* one applies what was answered, the next sees it sent at the latest */
        peer_pull(host, peer);
        had += peer->in_bytes;
        peer_consume(peer, peer->in_bytes);
        if (host_is_sim(host)) assert_true(had >= answered * 18);
    }
    assert_int_equal(had, total * 18);
    assert_int_equal(host->core->stats->closes_backpressure, 0);
    host->handler = NULL;
    host_close(host);
}

/* The room came after the last turn: without looking, the send under way would count as refused. */
static void a_client_that_has_read_since_is_not_over_its_limit(void **state) {
    struct host *host = ws_host(
        state, (struct rw_behavior){.max_backpressure_bytes = 1000, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE});
    struct rw_event open, slow;
    struct peer *peer = peer_open_ws(host, 7, &open);
    struct peer *other = peer_open_ws(host, 7, &slow);
    uint8_t payload[600];
    fill_pattern(payload, sizeof payload);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    rw_sim_peer_window(host->core->ring, other->fd, 0);
    host_send(host, &open, 0, payload, sizeof payload);
    host_send(host, &slow, 0, payload, sizeof payload);
    host_turns(host, 3);
    rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    host_send(host, &open, 0, payload, sizeof payload);
    host_send(host, &slow, 0, payload, sizeof payload); /* this one has not */
    host_flush(host);
    assert_int_equal(host->core->stats->closes_backpressure, 1);
    peer_expect_frame(host, peer, FIN_BINARY, payload, sizeof payload);
    peer_expect_frame(host, peer, FIN_BINARY, payload, sizeof payload);
    struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
    assert_int_equal(close.slot, slow.slot);
    assert_int_equal(close.arg1, RW_CLOSE_BACKPRESSURE);
    host_close(host);
}

/* Asks for 4 KiB with each message, reads all of it, and not as fast as it asks. The limit is what it has to ask for
 * twice to get past. */
static void answer_at_length(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    static const uint8_t text[4096];
    (void)payload;
    if (event->type == RW_EVENT_CLOSE) seen.held++;
    if (event->type != RW_EVENT_MESSAGE) return;
    seen.total++;
    host_send(host, event, 0, text, sizeof text);
}

static void a_client_that_asks_for_more_than_it_reads_is_served_as_it_reads(void **state) {
    enum { ASKED = 2000, FRAME = 4100 };
    struct host *host = ws_host(
        state, (struct rw_behavior){.max_backpressure_bytes = 2u << 20, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    fill_flood();
    memset(&seen, 0, sizeof seen);
    host->handler = answer_at_length;
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    peer_send(host, peer, flood.bytes, ASKED * 22);
    size_t had = 0;
    for (uint32_t turn = 0; turn < 50000 && had < (size_t)ASKED * FRAME && !seen.held; turn++) {
        if (turn % 2 == 0) rw_sim_peer_window(host->core->ring, peer->fd, 10000);
        host_turn(host);
        peer_pull(host, peer);
        had += peer->in_bytes;
        peer_consume(peer, peer->in_bytes);
        assert_in_range(rw_core_slot(host->core, open.slot)->out_bytes, 0, 2u << 20);
    }
    assert_int_equal(had, (size_t)ASKED * FRAME);
    assert_int_equal(host->core->stats->closes_backpressure, 0);
    host_close(host);
}

/* It asks and reads nothing: what the limit is for. */
static void a_client_that_asks_and_does_not_read_is_cut_off(void **state) {
    struct host *host = ws_host(
        state, (struct rw_behavior){.max_backpressure_bytes = 2u << 20, .flags = RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    fill_flood();
    memset(&seen, 0, sizeof seen);
    host->handler = answer_at_length;
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    peer_send(host, peer, flood.bytes, 2000 * 22);
    for (uint32_t turn = 0; turn < 500 && !rw_core_slot(host->core, open.slot)->state.answers_wait; turn++)
        host_turn(host);
    host_turns(host, 20);
    assert_int_equal(seen.held, 0);
    assert_in_range(seen.total, 256, 400); /* half the limit, and what one turn had asked for */
    host_pass_time(host, 1600);
    for (uint32_t turn = 0; turn < 500 && !seen.held; turn++) host_turn(host);
    assert_int_equal(seen.held, 1);
    assert_int_equal(host->core->stats->closes_backpressure, 1);
    host_close(host);
}

/* Much to hear, and little to say: a topic that it cannot keep up with does not keep it from leaving it. */
static void a_client_that_is_sent_too_much_is_heard_as_it_reads(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.max_backpressure_bytes = 100000});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t payload[10000];
    fill_pattern(payload, sizeof payload);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    for (uint32_t i = 0; i < 9; i++) host_send(host, &open, 0, payload, sizeof payload);
    host_turns(host, 4);
    for (uint32_t i = 0; i < 3; i++) peer_send_frame(host, peer, FIN_TEXT, &"abc"[i], 1);
    host_turns(host, 4);
    assert_memory_equal(host_expect(host, RW_EVENT_MESSAGE)->payload, "a", 1);
    host_expect_silence(host);
    for (uint32_t i = 1; i < 3; i++) {
        rw_sim_peer_window(host->core->ring, peer->fd, 1000);
        host_send(host, &open, 0, payload, 1000);
        assert_memory_equal(host_expect(host, RW_EVENT_MESSAGE)->payload, &"abc"[i], 1);
    }
    assert_int_equal(host->core->stats->drops_backpressure, 0);
    host_close(host);
}

static void publish_each(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    if (event->type != RW_EVENT_MESSAGE) return;
    seen.total++;
    host_publish(host, event, "t", 0, payload, event->bytes);
}

/* What a message costs may be what it is published to, which is not the time of its handler. */
static void publishes_to_many_count_for_the_messages_that_they_follow_from(void **state) {
    enum { SUBSCRIBERS = 200 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    for (uint32_t i = 0; i < SUBSCRIBERS; i++) {
        struct rw_event subscriber;
        (void)peer_open_ws(host, 7, &subscriber);
        host_topic(host, &subscriber, RW_COMMAND_SUBSCRIBE, "t");
    }
    host_turns(host, 4);
    assert_int_equal(host->core->work.apply_units, 0);
    fill_flood();
    memset(&seen, 0, sizeof seen);
    host->handler = publish_each;
    peer_send(host, peer, flood.bytes, 1000 * 22);
    uint32_t most = 0;
    for (uint32_t turn = 0; turn < 1000 && seen.total < 1000; turn++) {
        host_turn(host);
        if (host->core->work.apply_units > most) most = host->core->work.apply_units;
    }
    assert_int_equal(seen.total, 1000);
    assert_true(most >= RW_WORK_APPLY_LEAST); /* 200 deliveries are more than 1.6 µs */
    host->handler = NULL;
    host_turns(host, 40);
    assert_int_equal(host->core->work.apply_units, 0);
    host_close(host);
}

/* Split, a burst that is published takes one send more for each subscriber. */
static void a_burst_of_one_client_is_served_in_one_turn(void **state) {
    enum { BURST = 16 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    fill_flood();
    static const struct {
        uint32_t pace, apply_units;
    } dear[] = {{64, 0}, {RW_EVENTS_CAPACITY, RW_WORK_APPLY_MAX}}; /* handlers, commands */
    for (size_t i = 0; i < sizeof dear / sizeof *dear; i++) {
        rw_core_pace(host->core, dear[i].pace);
        host->core->work.apply_units = dear[i].apply_units;
        begin_counting(host, RW_NO_SLOT);
        peer_send(host, peer, flood.bytes, BURST * 22);
        for (uint32_t turn = 0; turn < 100 && seen.total < BURST; turn++) host_turn(host);
        assert_int_equal(seen.total, BURST);
        assert_int_equal(seen.most_messages, BURST);
    }
    host_close(host);
}

static void answer_requests(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    (void)payload;
    if (event->type == RW_EVENT_BODY) {
        host_answer(host, event, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = event->bytes}, NULL, 0);
        seen.held += event->bytes;
    }
    if (event->type != RW_EVENT_REQUEST) return;
    seen.total++;
    if (event->slot == seen.bystander) seen.bystander_at = host->core->stats->turns;
    if (!(event->flags & RW_REQUEST_HAS_BODY)) host_respond(host, event, 200, "", "ok");
}

static void uploads_and_pipelines_get_no_more_than_their_share(void **state) {
    enum { UPLOADS = 8, BODY = 4000000 };
    struct host *host = host_open(state, DEFAULTS);
    struct peer *uploads[UPLOADS], *pipeline = peer_connect(host), *other = peer_connect(host);
    uint8_t *body = calloc(1, BODY);
    assert_non_null(body);
    char head[128];
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %u\r\n\r\n", (unsigned)BODY);
    memset(&seen, 0, sizeof seen);
    seen.bystander = RW_NO_SLOT;
    host_turns(host, 3);
    peer_send_text(host, other, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    seen.bystander = host_expect(host, RW_EVENT_REQUEST)->event.slot;
    host_respond(host, &host->log[host->log_at - 1].event, 200, "", "ok");
    peer_expect_response(host, other, 200, "ok");
    host->handler = answer_requests;
    rw_core_pace(host->core, 20);
    for (uint32_t i = 0; i < UPLOADS; i++) {
        uploads[i] = peer_connect(host);
        peer_send_text(host, uploads[i], head);
    }
    for (uint32_t i = 0; i < 500; i++) peer_send_text(host, pipeline, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for (uint32_t round = 0; round < 30; round++) {
        for (uint32_t i = 0; i < UPLOADS; i++) peer_send(host, uploads[i], body + round * 65536, 65536);
        peer_send_text(host, other, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        uint64_t sent = host->core->stats->turns;
        seen.bystander_at = 0;
        for (uint32_t turn = 0; turn < 100 && !seen.bystander_at; turn++) host_turn(host);
        assert_in_range(seen.bystander_at, sent, sent + 4);
        peer_expect_response(host, other, 200, "ok");
    }
    assert_true(seen.held > 0 && seen.total > 60);
    free(body);
    host_close(host);
}

/* What floods bring while their handlers are slow is bounded by how many they are, and not by the buffers that there
 * are. */
static void input_that_waits_is_little_of_each(void **state) {
    enum { FLOODS = 80 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open[FLOODS], bystander;
    struct peer *peers[FLOODS];
    for (uint32_t i = 0; i < FLOODS; i++) peers[i] = peer_open_ws(host, 7, &open[i]);
    struct peer *other = peer_open_ws(host, 7, &bystander);
    fill_flood();
    rw_core_pace(host->core, 2);
    begin_counting(host, bystander.slot);
    uint64_t most = 0;
    for (uint32_t turn = 0; turn < 300; turn++) {
        for (uint32_t i = 0; i < FLOODS; i++) {
            while (send(peers[i]->fd, flood.bytes, flood.count, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)flood.count);
        }
        host_turn(host);
        if (host->core->kept_bytes > most) most = host->core->kept_bytes;
    }
    /* All of the buffers once more, when it is high, and from then on what few of them bring of each; instead of 256
     * KiB of each. */
    assert_in_range(most, 0,
                    RW_KEPT_BYTES_HIGH +
                        (RW_RECV_BUFFERS_DEFAULT + FLOODS * RW_RECV_BUFFERS_LEAST) * RW_RECV_BUFFER_BYTES_DEFAULT);
    peer_send_frame(host, other, FIN_TEXT, "hello", 5);
    uint64_t sent = host->core->stats->turns;
    for (uint32_t turn = 0; turn < 400 && !seen.bystander_at; turn++) host_turn(host);
    assert_in_range(seen.bystander_at, sent, sent + 2 * FLOODS);
    /* What they have sent is not to be served any more. */
    struct linger reset = {.l_onoff = 1};
    for (uint32_t i = 0; i < FLOODS; i++)
        assert_int_equal(setsockopt(peers[i]->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    rw_core_pace(host->core, RW_EVENTS_CAPACITY);
    host_close(host);
}

static void connections_without_a_receive_buffer_are_armed_again_in_order(void **state) {
    enum { PEERS = 60 };
    /* Two buffers of 64 bytes for sixty peers. */
    struct host *host = host_open(state, &(struct rw_core_config){.recv_buffers = 2, .recv_buffer_bytes = 64});
    struct peer *peers[PEERS];
    for (uint32_t i = 0; i < PEERS; i++) peers[i] = peer_connect(host);
    host_turns(host, 10);
    for (uint32_t i = 0; i < PEERS; i++) peer_send_text(host, peers[i], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    if (!host_is_sim(host)) test_sleep_ms(5);
    for (uint32_t i = 0; i < PEERS; i++) {
        if (i % 3 == 0) peer_close(host, peers[i]); /* some are gone by the time there is a buffer */
    }
    uint32_t requests = 0;
    uint64_t end = test_now_ms() + 10000;
    while (requests < PEERS - PEERS / 3 && test_now_ms() < end) {
        host_turn(host);
        for (; host->log_at < host->log_count; host->log_at++)
            requests += host->log[host->log_at].event.type == RW_EVENT_REQUEST;
    }
    assert_true(requests >= PEERS - PEERS / 3);
    assert_true(host->core->stats->recv_no_buffers > 0);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(compressed_bombs_share_turns_and_wait_as_they_came),
        ON_EVERY_RING(large_messages_count_in_the_batch),
        ON_SIM(a_byte_rate_is_about_what_is_inflated),
        ON_EVERY_RING(a_turn_brings_no_more_than_the_host_says),
        ON_EVERY_RING(deadlines_are_kept_while_a_flood_is_never_caught_up_with),
        ON_SIM(a_peer_whose_bytes_wait_in_the_worker_is_in_time),
        ON_EVERY_RING(answers_go_out_while_more_input_waits),
        ON_SIM(a_client_that_has_read_since_is_not_over_its_limit),
        ON_SIM(a_client_that_asks_for_more_than_it_reads_is_served_as_it_reads),
        ON_SIM(a_client_that_asks_and_does_not_read_is_cut_off),
        ON_SIM(a_client_that_is_sent_too_much_is_heard_as_it_reads),
        ON_SIM(publishes_to_many_count_for_the_messages_that_they_follow_from),
        {"a_burst_of_one_client_is_served_in_one_turn (io_uring)", a_burst_of_one_client_is_served_in_one_turn,
         backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING},
        {"a_burst_of_one_client_is_served_in_one_turn (epoll)", a_burst_of_one_client_is_served_in_one_turn,
         backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL},
        ON_EVERY_RING(uploads_and_pipelines_get_no_more_than_their_share),
        {"input_that_waits_is_little_of_each (io_uring)", input_that_waits_is_little_of_each, backend_setup, NULL,
         (void *)(uintptr_t)RW_BACKEND_IO_URING},
        {"input_that_waits_is_little_of_each (epoll)", input_that_waits_is_little_of_each, backend_setup, NULL,
         (void *)(uintptr_t)RW_BACKEND_EPOLL},
        {"connections_without_a_receive_buffer_are_armed_again_in_order (io_uring)",
         connections_without_a_receive_buffer_are_armed_again_in_order, backend_setup, NULL,
         (void *)(uintptr_t)RW_BACKEND_IO_URING},
    };
    return cmocka_run_group_tests_name("no client takes the worker from the others", tests, NULL, NULL);
}
