/* Clients, see core_peer.h. */
#include "core_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ring/ring_sim.h"

struct peer *peer_connect_as(struct host *host, int receive_buffer, const char *source) {
    uint32_t i = 0;
    while (i < HOST_PEERS_MAX && host->peers[i].used) i++;
    assert_in_range(i, 0, HOST_PEERS_MAX - 1);
    struct peer *peer = &host->peers[i];
    *peer = (struct peer){.used = 1};
    if (host_is_sim(host)) {
        uint8_t ip[16] = {[10] = 0xFF, [11] = 0xFF};
        peer->fd = rw_sim_connect(host->core->ring, host->listener);
        if (source) {
            assert_int_equal(inet_pton(AF_INET, source, ip + 12), 1);
            rw_sim_peer_address(host->core->ring, peer->fd, ip);
        }
        return peer;
    }
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(peer->fd >= 0);
    if (receive_buffer) (void)setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (source) {
        struct sockaddr_in own = {.sin_family = AF_INET};
        assert_int_equal(inet_pton(AF_INET, source, &own.sin_addr), 1);
        assert_int_equal(bind(peer->fd, (struct sockaddr *)&own, sizeof own), 0);
    }
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)host->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    assert_int_equal(connect(peer->fd, (struct sockaddr *)&address, sizeof address), 0);
    int one = 1;
    (void)setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    assert_int_equal(fcntl(peer->fd, F_SETFL, O_NONBLOCK), 0);
    return peer;
}

struct peer *peer_connect_to(struct host *host, int receive_buffer) {
    return peer_connect_as(host, receive_buffer, NULL);
}

struct peer *peer_connect(struct host *host) {
    struct peer *peer = peer_connect_to(host, 0);
    if (host->dress) host->dress(host, peer);
    return peer;
}

void peer_send(struct host *host, struct peer *peer, const void *bytes, size_t count) {
    if (peer->layer) {
        peer->layer->send(host, peer, bytes, count);
        return;
    }
    if (host_is_sim(host)) {
        if (!rw_sim_is_closed(host->core->ring, peer->fd)) rw_sim_push(host->core->ring, peer->fd, bytes, count);
        return;
    }
    for (size_t at = 0; at < count;) {
        ssize_t sent = send(peer->fd, (const uint8_t *)bytes + at, count - at, MSG_NOSIGNAL);
        if (sent > 0) {
            at += (size_t)sent;
        } else if (errno == EAGAIN) {
            host_turn(host);
        } else {
            return; /* the core has closed: the test looks at what came back */
        }
    }
}

void peer_send_text(struct host *host, struct peer *peer, const char *text) {
    peer_send(host, peer, text, strlen(text));
}

void peer_make_room(struct peer *peer) {
    if (peer->memory && peer->capacity - (size_t)(peer->in - peer->memory) - peer->in_bytes >= 65536) return;
    peer->capacity = peer->in_bytes * 2 + 131072;
    uint8_t *grown = malloc(peer->capacity);
    assert_non_null(grown);
    if (peer->in_bytes) memcpy(grown, peer->in, peer->in_bytes);
    free(peer->memory);
    peer->memory = peer->in = grown;
}

void peer_pull(struct host *host, struct peer *peer) {
    if (peer->layer) {
        peer->layer->pull(host, peer);
        return;
    }
    for (;;) {
        peer_make_room(peer);
        if (host_is_sim(host)) {
            size_t took = rw_sim_take(host->core->ring, peer->fd, peer->in + peer->in_bytes, 65536);
            peer->in_bytes += took;
            if (took) continue;
            peer->ended = rw_sim_is_closed(host->core->ring, peer->fd) != 0;
            return;
        }
        ssize_t got = recv(peer->fd, peer->in + peer->in_bytes, 65536, 0);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN) peer->ended = 1;
            return;
        }
        peer->in_bytes += (size_t)got;
    }
}

void peer_wait_bytes(struct host *host, struct peer *peer, size_t count) {
    uint64_t end = test_now_ms() + 10000;
    peer_pull(host, peer);
    for (uint32_t turn = 0; peer->in_bytes < count && !peer->ended && test_now_ms() < end; turn++) {
        host_turn(host);
        peer_pull(host, peer);
        if (turn > 200) test_sleep_ms(1);
    }
    assert_true(peer->in_bytes >= count);
}

void peer_consume(struct peer *peer, size_t count) {
    assert_true(count <= peer->in_bytes);
    peer->in += count;
    peer->in_bytes -= count;
}

void peer_expect(struct host *host, struct peer *peer, const void *bytes, size_t count) {
    peer_wait_bytes(host, peer, count);
    assert_memory_equal(peer->in, bytes, count);
    peer_consume(peer, count);
}

void peer_expect_text(struct host *host, struct peer *peer, const char *text) {
    peer_expect(host, peer, text, strlen(text));
}

void peer_expect_silence(struct host *host, struct peer *peer) {
    host_turns(host, 20);
    peer_pull(host, peer);
    assert_int_equal(peer->in_bytes, 0);
}

void peer_shutdown(struct host *host, struct peer *peer) {
    if (host_is_sim(host)) {
        rw_sim_peer_shutdown(host->core->ring, peer->fd);
    } else {
        (void)shutdown(peer->fd, SHUT_WR);
    }
}

void peer_close(struct host *host, struct peer *peer) {
    if (peer->closed) return;
    peer->closed = 1;
    if (host_is_sim(host)) {
        if (!rw_sim_is_closed(host->core->ring, peer->fd)) rw_sim_peer_reset(host->core->ring, peer->fd);
    } else {
        close(peer->fd);
    }
}

void peer_leave(struct host *host, struct peer *peer) {
    peer_close(host, peer);
    if (host_is_sim(host)) return;
    host_answer(host, &host_expect(host, RW_EVENT_HALF_CLOSED)->event,
                (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
}

void peer_expect_end(struct host *host, struct peer *peer) {
    uint64_t end = test_now_ms() + 10000;
    if (host_is_sim(host)) {
        host_turns(host, 4);
        if (!rw_sim_is_closed(host->core->ring, peer->fd)) rw_sim_peer_shutdown(host->core->ring, peer->fd);
    }
    for (uint32_t turn = 0; !peer->ended && test_now_ms() < end; turn++) {
        host_turn(host);
        peer_pull(host, peer);
    }
    assert_true(peer->ended);
}
