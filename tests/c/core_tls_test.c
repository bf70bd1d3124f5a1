/* TLS through the whole core: a client's ciphertext in, events to the host, commands of the host, ciphertext on the
 * wire. */
#include "connection/connection.h"
#include "connection/tls.h"
#include "tls_fixture.h"

/* ---------------------------------------------------------------- requests and responses */

static void a_request_comes_and_is_answered_over_tls_1_2_and_1_3(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *old = tls_open(host, client12, NULL), *new = tls_open(host, client13, NULL);
    assert_string_equal(SSL_get_version(tls_of(old)->ssl), "TLSv1.2");
    assert_string_equal(SSL_get_version(tls_of(new)->ssl), "TLSv1.3");
    assert_string_equal(tls_shown_name(new), "leaf.test");
    for (int i = 0; i < 3; i++) {
        get_and_answer(host, old);
        get_and_answer(host, new);
    }
    assert_int_equal(host->core->stats->tls_handshakes, 2);
    assert_int_equal(host->core->stats->tls_errors, 0);
    host_close(host);
}

static void records_may_come_one_byte_at_a_time(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        struct peer *peer = tls_connect(host, contexts[i], NULL);
        tls_of(peer)->step = 1;
        assert_true(tls_shake_hands(host, peer));
        get_and_answer(host, peer);
    }
    host_close(host);
}

static void take_body(struct host *host, struct peer *peer, const uint8_t *body, size_t bytes) {
    char head[128];
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", bytes);
    peer_send_text(host, peer, head);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    peer_send(host, peer, body, bytes);
    for (size_t at = 0; at < bytes;) {
        struct record *part = host_expect(host, RW_EVENT_BODY);
        assert_memory_equal(part->payload, body + at, part->event.bytes);
        at += part->event.bytes;
        assert_int_equal(part->event.flags, at == bytes ? RW_BODY_END : 0);
        host_answer(host, &part->event, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = part->event.bytes},
                    NULL, 0);
    }
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND, .arg0 = 200}, body, bytes);
    peer_expect_head(host, peer, 200);
    assert_int_equal(peer_content_length(peer->head), bytes);
    peer_expect(host, peer, body, bytes);
}

static void long_bodies_go_both_ways(void **state) {
    enum { BYTES = 1500000 };
    uint8_t *body = malloc(BYTES);
    assert_non_null(body);
    fill_pattern(body, BYTES);
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *old = tls_open(host, client12, NULL), *new = tls_open(host, client13, NULL);
    take_body(host, new, body, BYTES);
    take_body(host, old, body, BYTES / 4);
    take_body(host, new, body, 16384 * 4);
    take_body(host, new, body, 1);
    host_close(host);
    free(body);
}

/* Many small pieces share a record: what the client reads does not show the pieces. */
static void small_pieces_share_records(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *peer = tls_open(host, client13, NULL);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &request,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = 60000},
        "", 0);
    uint8_t piece[600];
    uint64_t before = host->core->stats->bytes_out;
    for (int i = 0; i < 100; i++) {
        memset(piece, 'a' + i % 26, sizeof piece);
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, piece, sizeof piece);
    }
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, NULL, 0);
    peer_expect_head(host, peer, 200);
    for (int i = 0; i < 100; i++) {
        memset(piece, 'a' + i % 26, sizeof piece);
        peer_expect(host, peer, piece, sizeof piece);
    }
    /* 100 records would add 2200 bytes. */
    assert_in_range(host->core->stats->bytes_out - before, 60000, 60000 + 1000);
    host_close(host);
}

/* ---------------------------------------------------------------- WebSocket */

static SSL_CTX *dressing;
static void dress(struct host *host, struct peer *peer) {
    tls_dress(peer, dressing, NULL);
    assert_true(tls_shake_hands(host, peer));
}

static struct host *tls_ws_host(void **state, SSL_CTX *context, struct rw_behavior behavior) {
    struct host *host = tls_host(state, DEFAULTS);
    host_behavior(host, 7, behavior);
    dressing = context;
    host->dress = dress;
    return host;
}

static void echo_of(struct host *host, struct peer *peer, const uint8_t *message, size_t bytes) {
    peer_send_frame(host, peer, FIN_BINARY, message, bytes);
    struct record *record = host_expect(host, RW_EVENT_MESSAGE);
    assert_int_equal(record->event.bytes, bytes);
    assert_memory_equal(record->payload, message, bytes);
    host_send(host, &record->event, 0, record->payload, bytes);
    peer_expect_frame(host, peer, FIN_BINARY, message, bytes);
}

static void messages_of_any_size_are_echoed(void **state) {
    static uint8_t message[300000];
    fill_pattern(message, sizeof message);
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        struct host *host = tls_ws_host(state, contexts[i], PLAIN);
        struct rw_event open;
        struct peer *peer = peer_open_ws(host, 7, &open);
        static const size_t sizes[] = {0, 1, 125, 126, 1000, 16370, 16384, 65535, 65536, 300000};
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) echo_of(host, peer, message, sizes[s]);
        tls_of(peer)->step = 7;
        echo_of(host, peer, message, 1000);
        host_close(host);
    }
}

static void a_publish_reaches_subscribers_over_tls(void **state) {
    struct host *host = tls_ws_host(state, client13, PLAIN);
    struct rw_event open[3];
    struct peer *peers[3];
    for (int i = 0; i < 3; i++) {
        peers[i] = peer_open_ws(host, 7, &open[i]);
        host_topic(host, &open[i], RW_COMMAND_SUBSCRIBE, "t");
    }
    for (int i = 0; i < 50; i++) host_publish(host, NULL, "t", 0, "abc", 3);
    for (int i = 0; i < 50; i++) {
        for (int p = 0; p < 3; p++) peer_expect_frame(host, peers[p], FIN_BINARY, "abc", 3);
    }
    host_close(host);
}

static const struct rw_slot *slot_of(const struct host *host, const struct rw_event *event) {
    return rw_core_slot(host->core, event->slot);
}

/* Its two buffers of 16 KiB go when nothing is in them: connections at rest cost less than half. */
static void openssl_gives_its_buffers_back(void **state) {
    struct host *host = tls_ws_host(state, client13, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    assert_true(SSL_get_mode(slot_of(host, &open)->tls->ssl) & SSL_MODE_RELEASE_BUFFERS);
    echo_of(host, peer, (const uint8_t *)"abc", 3);
    host_close(host);
}

/* The peer takes nothing: what is queued counts as plain bytes until the ciphertext for it was taken whole. */
static void backpressure_counts_plain_bytes_and_drains(void **state) {
    struct host *host = tls_ws_host(state, client13,
                                    (struct rw_behavior){.max_backpressure_bytes = 100000,
                                                         .flags = RW_BEHAVIOR_WANTS_DROPPED | RW_BEHAVIOR_WANTS_DRAIN});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_turns(host, 3);
    rw_sim_peer_window(host->core->ring, peer->fd, 1000);
    static uint8_t message[1000];
    uint32_t frame = sizeof message + 4;
    for (uint32_t i = 0; i < 200; i++) {
        host_send(host, &open, 0, message, sizeof message);
        host_turn(host);
    }
    uint32_t queued = slot_of(host, &open)->out_bytes;
    assert_in_range(queued, 100000 - frame - 10, 100000);
    assert_int_equal(queued % frame, 0);
    assert_int_equal(host->core->stats->backpressure_connections, 1);
    assert_int_equal(host->core->stats->drops_backpressure, 200 - queued / frame);
    assert_int_equal(host_expect(host, RW_EVENT_DROPPED)->event.arg0 > 0, 1);
    host->log_at = host->log_count;
    rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    for (uint32_t i = 0; i < queued / frame; i++) peer_expect_frame(host, peer, FIN_BINARY, message, sizeof message);
    struct record *last = NULL;
    for (struct record *record; (record = host_poll(host)) != NULL;) last = record;
    assert_non_null(last);
    assert_int_equal(last->event.type, RW_EVENT_WS_DRAIN);
    assert_int_equal(slot_of(host, &open)->out_bytes, 0);
    assert_int_equal(host->core->stats->backpressure_connections, 0);
    host_close(host);
}

/* What one tick queues has not met the kernel yet: the direct flush gives it the socket's room. */
static void a_burst_within_the_sockets_room_is_not_backpressure(void **state) {
    struct host *host = tls_ws_host(state, client13, (struct rw_behavior){.max_backpressure_bytes = 20000});
    if (host_is_sim(host)) {
        host_close(host); /* a direct send needs a real socket */
        return;
    }
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    static uint8_t message[5000];
    fill_pattern(message, sizeof message);
    for (int i = 0; i < 12; i++) host_send(host, &open, 0, message, sizeof message);
    for (int i = 0; i < 12; i++) peer_expect_frame(host, peer, FIN_BINARY, message, sizeof message);
    assert_int_equal(host->core->stats->drops_backpressure, 0);
    host_close(host);
}

static void a_peer_that_takes_nothing_is_ended_by_the_write_deadline(void **state) {
    struct host *host = host_open(state, &(struct rw_core_config){.write_timeout_ms = 20000});
    struct rw_tls_options options = certificate_options(&leaf);
    tls_listen(host, &options);
    struct peer *peer = tls_open(host, client13, NULL);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_turns(host, 3);
    rw_sim_peer_window(host->core->ring, peer->fd, 100);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
    host_pass_time(host, 10000);
    host_expect_silence(host);
    host_pass_time(host, 12000);
    host_expect(host, RW_EVENT_ABORT);
    assert_int_equal(host->core->stats->timeouts_write, 1);
    host_close(host);
}

static void a_paused_socket_gets_its_messages_later(void **state) {
    struct host *host = tls_ws_host(state, client13, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
    host_turns(host, 3);
    peer_send_frame(host, peer, FIN_TEXT, "one", 3);
    peer_send_frame(host, peer, FIN_TEXT, "two", 3);
    host_expect_silence(host);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_RESUME}, NULL, 0);
    assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "one");
    assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "two");
    host_close(host);
}

static void a_ring_that_cuts_and_delays_changes_nothing(void **state) {
    (void)state;
    static uint8_t message[40000];
    fill_pattern(message, sizeof message);
    for (uint64_t seed = 1; seed <= 16; seed++) {
        struct rw_core_config config = {.recv_buffers = 8, .recv_buffer_bytes = seed & 2 ? 64 : 4096};
        struct host *host = host_open_seeded(RW_BACKEND_SIM, &config, seed);
        struct rw_tls_options options = certificate_options(&leaf);
        tls_listen(host, &options);
        host_behavior(host, 7, PLAIN);
        rw_sim_faults_set(
            host->core->ring,
            &(struct rw_sim_faults){
                .recv_split = 400, .send_split = 400, .delay = 300, .no_buffers = 30, .recv_unarmed = 30, .late = 300});
        dressing = seed & 1 ? client12 : client13;
        host->dress = dress;
        struct rw_event open;
        struct peer *peer = peer_open_ws(host, 7, &open);
        for (size_t i = 0; i < 10; i++) echo_of(host, peer, message, i * (seed & 2 ? 100 : 4000));
        host_close(host);
    }
}

/* ---------------------------------------------------------------- endings */

static void expect_notify(struct host *host, struct peer *peer) {
    uint64_t end = test_now_ms() + 10000;
    while (!tls_of(peer)->notified && !tls_of(peer)->failed && test_now_ms() < end) {
        host_turn(host);
        peer_pull(host, peer);
    }
    assert_true(tls_of(peer)->notified);
}

static void the_core_says_close_notify_before_it_closes(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        struct peer *peer = tls_open(host, contexts[i], NULL);
        peer_send_text(host, peer, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        struct record *request = host_expect(host, RW_EVENT_REQUEST);
        host_respond(host, &request->event, 200, "", "bye");
        peer_expect_response(host, peer, 200, "bye");
        expect_notify(host, peer);
        peer_expect_end(host, peer);
    }
    host_close(host);
}

static void close_notify_of_the_client_is_its_end_of_stream(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *idle = tls_open(host, client13, NULL), *waiting = tls_open(host, client13, NULL),
                *bare = tls_open(host, client12, NULL);
    (void)SSL_shutdown(tls_of(idle)->ssl);
    tls_push(host, idle);
    peer_expect_end(host, idle);
    /* The request before it is answered, and what comes behind it is nothing. */
    peer_send_text(host, waiting, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    (void)SSL_shutdown(tls_of(waiting)->ssl);
    tls_push(host, waiting);
    peer_send_text(host, &tls_of(waiting)->wire, "noise");
    host_turns(host, 3);
    host_respond(host, &request, 200, "", "still");
    peer_expect_response(host, waiting, 200, "still");
    expect_notify(host, waiting);
    peer_shutdown(host, bare);
    peer_expect_end(host, bare);
    for (int i = 0; i < 200 && rw_core_connections(host->core); i++) host_turn(host);
    assert_int_equal(rw_core_connections(host->core), 0);
    assert_int_equal(host->core->stats->tls_errors, 0);
    host_close(host);
}

static void renegotiation_is_refused(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *peer = tls_open(host, client12, NULL);
    get_and_answer(host, peer);
    assert_int_equal(SSL_renegotiate(tls_of(peer)->ssl), 1);
    assert_false(tls_shake_hands(host, peer));
    assert_int_equal(ERR_GET_REASON(tls_of(peer)->reason), SSL_R_NO_RENEGOTIATION);
    assert_int_equal(host->core->stats->tls_handshakes, 1);
    host_close(host);
}

static void a_broken_record_ends_the_socket_with_an_alert(void **state) {
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        struct host *host = tls_ws_host(state, contexts[i], PLAIN);
        struct rw_event open;
        struct peer *peer = peer_open_ws(host, 7, &open);
        host_topic(host, &open, RW_COMMAND_SUBSCRIBE, "t");
        uint8_t broken[5 + 40] = {23, 3, 3, 0, 40};
        peer_send(host, &tls_of(peer)->wire, broken, sizeof broken);
        struct record *closed = host_expect(host, RW_EVENT_CLOSE);
        assert_int_equal(closed->event.arg0, 1006);
        uint64_t end = test_now_ms() + 10000;
        while (!tls_of(peer)->failed && test_now_ms() < end) {
            host_turn(host);
            peer_pull(host, peer);
        }
        assert_int_equal(ERR_GET_REASON(tls_of(peer)->reason), SSL_AD_REASON_OFFSET + SSL_AD_BAD_RECORD_MAC);
        assert_int_equal(host->core->stats->tls_errors, 1);
        host_close(host);
    }
}

static void output_that_waits_does_not_survive_a_broken_record(void **state) {
    struct host *host = tls_ws_host(state, client13, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_turns(host, 3);
    rw_sim_peer_window(host->core->ring, peer->fd, 10);
    static uint8_t message[200000];
    host_send(host, &open, 0, message, sizeof message);
    host_turns(host, 3);
    assert_true(slot_of(host, &open)->out_bytes > 0);
    uint8_t broken[5 + 40] = {23, 3, 3, 0, 40};
    peer_send(host, &tls_of(peer)->wire, broken, sizeof broken);
    host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(slot_of(host, &open)->out_bytes, 0);
    rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    host_close(host);
}

/* Whether it fails in a direct flush or in a send of the ring. */
static void a_connection_that_cannot_encrypt_ends(void **state) {
    for (int direct = 0; direct < 2; direct++) {
        struct host *host = tls_ws_host(state, client13, PLAIN);
        struct rw_event open;
        (void)peer_open_ws(host, 7, &open);
        host_turns(host, 3);
        struct rw_slot *slot = rw_core_slot(host->core, open.slot);
        (void)SSL_shutdown(slot->tls->ssl); /* after which OpenSSL refuses to write */
        host_send(host, &open, 0, "abc", 3);
        host_flush(host);
        if (direct) rw_connection_flush_now(host->core, slot);
        host_expect(host, RW_EVENT_CLOSE);
        host_close(host);
    }
}

/* Each asks for an answer, and none is read: what the core keeps for the peer is bounded. */
static void a_flood_of_key_updates_fills_no_memory(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *peer = tls_open(host, client13, NULL);
    host_turns(host, 3);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    struct rw_slot *slot = rw_core_slot(host->core, 0);
    uint32_t most = 0;
    for (int i = 0; i < 20000 && slot->state.phase == RW_PHASE_OPEN; i++) {
        assert_int_equal(SSL_key_update(tls_of(peer)->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        (void)SSL_do_handshake(tls_of(peer)->ssl);
        tls_push(host, peer);
        if (i % 16 == 0) host_turn(host);
        if (slot->tls && slot->tls->waiting.bytes > most) most = slot->tls->waiting.bytes;
    }
    assert_int_not_equal(slot->state.phase, RW_PHASE_OPEN);
    assert_in_range(most, 0, RW_TLS_WAITING_BYTES_MAX);
    /* Nor time: what waits is not copied for each of them. */
    assert_in_range(rw_buffers_stats(host->core->buffers, RW_BUFFER_LARGE).carved, 0, 2);
    host_close(host);
}

static void drain_and_terminate_are_safe_at_any_moment(void **state) {
    struct host *host = tls_ws_host(state, client13, PLAIN);
    struct rw_event open;
    (void)peer_open_ws(host, 7, &open);
    host->dress = NULL;
    struct peer *silent = peer_connect(host), *half_way = tls_connect(host, client13, NULL),
                *idle = tls_open(host, client13, NULL);
    uint8_t hello[1024];
    size_t bytes = hello_of(client13, hello, sizeof hello);
    struct peer *part = peer_connect(host);
    peer_send(host, part, hello, bytes / 2);
    assert_int_equal(SSL_do_handshake(tls_of(half_way)->ssl), -1);
    tls_push(host, half_way);
    host_turns(host, 3);
    static uint8_t message[300000];
    host_send(host, &open, 0, message, sizeof message);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    host_turn(host);
    host_expect(host, RW_EVENT_CLOSE);
    rw_core_drain(host->core, 1012, 0, 0);
    /* A client in the middle of its handshake has a request to make, and gets its answer. */
    assert_true(tls_shake_hands(host, half_way));
    peer_send_text(host, half_way, GET("/"));
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    host_respond(host, &request->event, 200, "", "last");
    peer_expect_response(host, half_way, 200, "last");
    assert_true(peer_head_has(half_way, "Connection: close"));
    expect_notify(host, idle);
    peer_expect_end(host, silent);
    peer_close(host, part);
    host_close(host);
}

static void a_core_can_be_destroyed_in_the_middle_of_handshakes(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_SERVER_NAME), RW_OK);
    struct peer *asking = tls_connect(host, client13, "who.test");
    (void)expect_question(host, asking, "who.test");
    (void)tls_open(host, client12, NULL);
    uint8_t hello[1024];
    (void)hello_of(client13, hello, sizeof hello);
    peer_send(host, peer_connect(host), hello, 20);
    host_turns(host, 3);
    rw_core_destroy(host->core);
    host->backend = RW_BACKEND_EPOLL; /* the simulated peers are gone with their ring */
    int is_sim = (uintptr_t)*state == RW_BACKEND_SIM;
    for (uint32_t i = 0; i < HOST_PEERS_MAX && is_sim; i++) host->peers[i].closed = 1;
    if (is_sim) host->listener = dup(0);
    host_free(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_request_comes_and_is_answered_over_tls_1_2_and_1_3),
        ON_EVERY_RING(records_may_come_one_byte_at_a_time),
        ON_EVERY_RING(long_bodies_go_both_ways),
        ON_EVERY_RING(small_pieces_share_records),
        ON_EVERY_RING(messages_of_any_size_are_echoed),
        ON_SIM(openssl_gives_its_buffers_back),
        ON_EVERY_RING(a_publish_reaches_subscribers_over_tls),
        ON_SIM(backpressure_counts_plain_bytes_and_drains),
        ON_EVERY_RING(a_burst_within_the_sockets_room_is_not_backpressure),
        ON_SIM(a_peer_that_takes_nothing_is_ended_by_the_write_deadline),
        ON_EVERY_RING(a_paused_socket_gets_its_messages_later),
        ON_SIM(a_ring_that_cuts_and_delays_changes_nothing),
        ON_EVERY_RING(the_core_says_close_notify_before_it_closes),
        ON_EVERY_RING(close_notify_of_the_client_is_its_end_of_stream),
        ON_EVERY_RING(renegotiation_is_refused),
        ON_EVERY_RING(a_broken_record_ends_the_socket_with_an_alert),
        ON_SIM(output_that_waits_does_not_survive_a_broken_record),
        ON_EVERY_RING(a_connection_that_cannot_encrypt_ends),
        ON_SIM(a_flood_of_key_updates_fills_no_memory),
        ON_EVERY_RING(drain_and_terminate_are_safe_at_any_moment),
        ON_EVERY_RING(a_core_can_be_destroyed_in_the_middle_of_handshakes),
    };
    return cmocka_run_group_tests_name("the core speaks TLS", tests, make_certificates, free_certificates);
}
