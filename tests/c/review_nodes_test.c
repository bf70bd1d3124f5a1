#include "tls_fixture.h"

/* What can come for one connection before a pause has met the kernel. */
#define TURN_BYTES (RW_RECV_BUFFERS_DEFAULT * RW_RECV_BUFFER_BYTES_DEFAULT)

/* A peer that sends the same frame for ever, as fast as its socket takes it. */
struct flood {
    uint8_t bytes[65536];
    size_t count, at;
};

static void flood(struct peer *peer, struct flood *flood) {
    for (;;) {
        ssize_t sent = send(peer->fd, flood->bytes + flood->at, flood->count - flood->at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0) return;
        flood->at = (flood->at + (size_t)sent) % flood->count;
    }
}

static void what_a_paused_peer_sends_waits_with_the_peer(void **state) {
    struct host *host = ws_host(state, ((struct rw_behavior){.messages_per_second = 50, .flags = RW_BEHAVIOR_PAUSE_ON_RATE}));
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    static struct flood frames;
    uint8_t payload[1000] = {0};
    frames = (struct flood){0};
    while (frames.count + 1100 < sizeof frames.bytes) frames.count += ws_client_frame(frames.bytes + frames.count, FIN_BINARY, payload, sizeof payload);
    const struct rw_slot *slot = rw_core_slot(host->core, open.slot);
    uint32_t most = 0;
    for (uint32_t round = 0; round < 100; round++) {
        flood(peer, &frames);
        host_pass_time(host, 400);
        if (slot->input_bytes > most) most = slot->input_bytes;
    }
    printf("most kept: %u bytes, pauses %lu, messages %zu\n", most, host->core->stats->pauses_rate, host->log_count);
    assert_true(most <= TURN_BYTES + (1u << 20));
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    host_close(host);
}

static void what_does_not_fit_the_window_of_a_body_waits_with_the_peer(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n");
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    static struct flood body;
    body = (struct flood){.count = 60000};
    const struct rw_slot *slot = rw_core_slot(host->core, request.slot);
    uint32_t most = 0;
    uint32_t acked = 0;
    for (uint32_t round = 0; round < 300 && acked < 30000000; round++) {
        flood(peer, &body);
        host_turns(host, 4);
        if (slot->input_bytes > most) most = slot->input_bytes;
        if (host->log_at == host->log_count) continue;
        struct record *piece = &host->log[host->log_at++];
        assert_int_equal(piece->event.type, RW_EVENT_BODY);
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_BODY_ACK, .arg0 = piece->event.bytes}, NULL, 0);
        acked += piece->event.bytes;
    }
    printf("most kept: %u bytes, acked %u\n", most, acked);
    assert_true(most <= TURN_BYTES + (1u << 20));
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
    host_close(host);
}

#define ON_REAL_RINGS(test)                                                                        \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING},      \
        {#test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_REAL_RINGS(what_a_paused_peer_sends_waits_with_the_peer),
        ON_REAL_RINGS(what_does_not_fit_the_window_of_a_body_waits_with_the_peer),
    };
    return cmocka_run_group_tests_name("review", tests, make_certificates, free_certificates);
}
