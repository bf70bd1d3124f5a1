/* Whoever sends more than is taken of it keeps the rest: however long it goes on, the core holds no more than what can
 * come before a pause has met the kernel. */
#include "tls_fixture.h"

/* Every receive buffer there is, and what is kept of a window or a pipeline beside it. */
#define KEPT_BYTES_MAX (RW_RECV_BUFFERS_DEFAULT * RW_RECV_BUFFER_BYTES_DEFAULT + (1u << 20))
#define ROUNDS 100u
#define REQUEST "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

/* The same bytes for ever. */
static struct {
    uint8_t bytes[65536];
    size_t count, at;
} flood;

static void flood_frames(void) {
    static const uint8_t payload[1000];
    flood.count = flood.at = 0;
    while (flood.count + 1100 < sizeof flood.bytes)
        flood.count += ws_client_frame(flood.bytes + flood.count, FIN_BINARY, payload, sizeof payload);
}

static void flood_requests(void) {
    flood.count = flood.at = 0;
    for (; flood.count + 100 < sizeof flood.bytes; flood.count += strlen(REQUEST))
        memcpy(flood.bytes + flood.count, REQUEST, strlen(REQUEST));
}

/* As much as the socket takes. */
static void pour(struct peer *peer) {
    for (;;) {
        ssize_t sent = send(peer->fd, flood.bytes + flood.at, flood.count - flood.at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0) return;
        flood.at = (flood.at + (size_t)sent) % flood.count;
    }
}

/* The same over TLS, a megabyte at most. */
static void pour_sealed(struct peer *peer) {
    struct tls_peer *tls = tls_of(peer);
    BIO *wire = SSL_get_wbio(tls->ssl);
    for (uint32_t i = 0; i < 128; i++) {
        if (BIO_pending(wire) == 0) {
            int part = flood.count - flood.at < 8192 ? (int)(flood.count - flood.at) : 8192;
            assert_int_equal(SSL_write(tls->ssl, flood.bytes + flood.at, part), part);
            flood.at = (flood.at + (size_t)part) % flood.count;
        }
        char *sealed;
        long bytes = BIO_get_mem_data(wire, &sealed);
        ssize_t sent = send(tls->wire.fd, sealed, (size_t)bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        uint8_t taken[32768];
        if (sent <= 0) return;
        assert_in_range(sent, 1, sizeof taken);
        assert_int_equal(BIO_read(wire, taken, (int)sent), sent);
    }
}

static void note_most(const struct host *host, const struct rw_event *of, uint32_t *most) {
    const struct rw_slot *slot = rw_core_slot(host->core, of->slot);
    assert_int_equal(slot->generation, of->generation);
    if (slot->input_bytes > *most) *most = slot->input_bytes;
}

static void expect_kept_at_most(struct host *host, const struct rw_event *of, uint32_t most) {
    assert_in_range(most, 0, KEPT_BYTES_MAX);
    host_answer(host, of, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    host_close(host);
}

static void pour_past_a_rate(struct host *host, struct peer *peer, const struct rw_event *open) {
    uint32_t most = 0;
    flood_frames();
    for (uint32_t round = 0; round < ROUNDS; round++) {
        if (peer->layer) pour_sealed(peer);
        else pour(peer);
        host_pass_time(host, 400);
        note_most(host, open, &most);
    }
    assert_true(host->core->stats->pauses_rate > ROUNDS / 2);
    expect_kept_at_most(host, open, most);
}

#define PAUSES ((struct rw_behavior){.messages_per_second = 50, .flags = RW_BEHAVIOR_PAUSE_ON_RATE})

static void past_a_rate(void **state) {
    struct host *host = ws_host(state, PAUSES);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    pour_past_a_rate(host, peer, &open);
}

static void past_a_rate_over_tls(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    host_behavior(host, 7, PAUSES);
    struct peer *peer = tls_open(host, client13, NULL);
    peer_send_text(host, peer, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, NULL, 0);
    struct rw_event open = host_expect(host, RW_EVENT_OPEN)->event;
    peer_expect_head(host, peer, 101);
    pour_past_a_rate(host, peer, &open);
}

static void past_a_host_that_pauses_after_each_turn(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint32_t most = 0;
    flood_frames();
    for (uint32_t round = 0; round < ROUNDS; round++) {
        pour(peer);
        host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_RESUME}, NULL, 0);
        host_turn(host);
        host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
        host_turns(host, 3);
        note_most(host, &open, &most);
    }
    expect_kept_at_most(host, &open, most);
}

static void past_the_window_of_a_body(void **state) {
    enum { BYTES = 60000000 };
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    char head[128];
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %u\r\n\r\n", BYTES);
    peer_send_text(host, peer, head);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    uint32_t most = 0, taken = 0;
    flood.count = sizeof flood.bytes;
    flood.at = 0;
    for (uint32_t round = 0; round < 3 * ROUNDS && taken < BYTES / 2; round++) {
        pour(peer);
        host_turns(host, 4);
        note_most(host, &request, &most);
        if (host->log_at == host->log_count) continue;
        struct record *piece = &host->log[host->log_at++];
        assert_int_equal(piece->event.type, RW_EVENT_BODY);
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = piece->event.bytes}, NULL,
                    0);
        taken += piece->event.bytes;
    }
    expect_kept_at_most(host, &request, most);
}

static void past_the_answers_to_a_pipeline(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    struct rw_event request = {0};
    uint32_t most = 0;
    flood_requests();
    for (uint32_t round = 0; round < 3 * ROUNDS; round++) {
        pour(peer);
        request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_respond(host, &request, 200, "", "ok");
        host_turns(host, 4);
        note_most(host, &request, &most);
    }
    expect_kept_at_most(host, &request, most);
}

#define ON_REAL_RINGS(test)                                                                     \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING}, { \
        #test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL        \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_REAL_RINGS(past_a_rate),
        ON_REAL_RINGS(past_a_rate_over_tls),
        ON_REAL_RINGS(past_a_host_that_pauses_after_each_turn),
        ON_REAL_RINGS(past_the_window_of_a_body),
        ON_REAL_RINGS(past_the_answers_to_a_pipeline),
    };
    return cmocka_run_group_tests_name("the core pushes back", tests, make_certificates, free_certificates);
}
