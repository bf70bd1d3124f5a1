/* A host and its peers, for tests of the core as a whole.
 *
 * Role: the tests' stand-in for TypeScript (commands in, events out) and for clients (bytes). Up: core_*_test.c,
 * core_fuzz.c. The same test runs on every backend: a peer is a virtual descriptor of the simulated ring, or a TCP
 * socket on loopback. Nothing here depends on speed: a wait ends when its condition holds, and fails only after very
 * many turns. host_close() asserts that everything was given back. */
#ifndef CORE_FIXTURE_H
#define CORE_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "connection/core.h"
#include "ring/ring_sim.h"
#include "ringway.h"
#include "ws/ws_frame.h"

#define FIXTURE static __attribute__((unused))
#define HOST_PEERS_MAX 256u
#define TURNS_MAX 20000u

struct record {
    struct rw_event event;
    uint8_t *payload; /* a copy, NUL behind it */
};

struct host;
struct peer;

/* What lies between the bytes of a test and those of the wire. */
struct peer_layer {
    void (*send)(struct host *host, struct peer *peer, const void *bytes, size_t count);
    void (*pull)(struct host *host, struct peer *peer);
    void (*drop)(struct peer *peer);
};

struct peer {
    int32_t fd;
    const struct peer_layer *layer; /* NULL: the wire has the test's bytes as they are */
    void *layer_state;
    uint8_t used, closed, ended; /* closed: by the test; ended: the end of stream was read */
    uint8_t *in;                 /* received and not yet looked at: in_bytes at in, within memory[0..capacity) */
    uint8_t *memory;
    size_t in_bytes, capacity;
    char head[4096]; /* of the last response */
};

struct host {
    struct rw_core *core;
    struct rw_core_info info;
    uint32_t backend;
    int32_t listener, port;
    uint32_t commands, data;
    struct record *log;
    size_t log_count, log_at, log_capacity;
    void (*handler)(struct host *host, const struct rw_event *event, const uint8_t *payload);
    void *context;
    void (*dress)(struct host *host, struct peer *peer); /* NULL, or: gives every peer that connects its layer */
    struct peer peers[HOST_PEERS_MAX];
};

/* ---------------------------------------------------------------- the host */

FIXTURE int host_is_sim(const struct host *host) { return host->backend == RW_BACKEND_SIM; }

/* sim_seed: with RW_BACKEND_SIM, how unkind the ring is; 0: obliging */
FIXTURE struct host *host_open_seeded(uint32_t backend, const struct rw_core_config *given, uint64_t sim_seed) {
    struct rw_core_config config = *given;
    config.abi_version = RW_ABI_VERSION;
    config.backend = backend;
    if (!config.max_connections) config.max_connections = 1024;
    if (!config.ring_entries) config.ring_entries = 256;
    config.sqpoll_cpu = config.wake_fd = config.inbox_fd_first = config.shm_fd = -1;
    char error[512];
    struct rw_core *core = rw_core_create(&config, error, sizeof error);
    if (!core && backend == RW_BACKEND_IO_URING) return NULL; /* this kernel has none: skipped */
    assert_non_null(core);
    struct host *host = calloc(1, sizeof *host);
    assert_non_null(host);
    if (sim_seed) {
        /* The config has no seed, and nothing is armed yet: another ring takes the place of the obliging one. */
        struct rw_ring_config ring = {.backend = RW_BACKEND_SIM,
                                      .entries = config.ring_entries,
                                      .recv_buffers = config.recv_buffers,
                                      .recv_buffer_bytes = config.recv_buffer_bytes,
                                      .wake_fd = -1,
                                      .sim_seed = sim_seed};
        rw_ring_destroy(core->ring);
        core->ring = rw_ring_sim_create(&ring, error, sizeof error);
        assert_non_null(core->ring);
    }
    host->core = core;
    host->backend = backend;
    rw_core_info(core, &host->info);
    if (host_is_sim(host)) {
        host->listener = rw_sim_listen(core->ring);
    } else {
        host->listener = rw_listen_socket("127.0.0.1", 0, 512, 0);
        assert_true(host->listener >= 0);
        host->port = rw_socket_port(host->listener);
    }
    assert_int_equal(rw_core_listen(core, host->listener, 3, 0), RW_OK);
    return host;
}

FIXTURE struct host *host_open_with(uint32_t backend, const struct rw_core_config *config) {
    return host_open_seeded(backend, config, 0);
}

FIXTURE void host_record(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    if (host->log_count == host->log_capacity) {
        host->log_capacity = host->log_capacity * 2 + 64;
        host->log = realloc(host->log, host->log_capacity * sizeof *host->log);
        assert_non_null(host->log);
    }
    struct record *record = &host->log[host->log_count++];
    record->event = *event;
    record->payload = malloc(event->bytes + 1u);
    assert_non_null(record->payload);
    if (event->bytes) memcpy(record->payload, payload, event->bytes);
    record->payload[event->bytes] = 0;
}

FIXTURE void host_turn_wait(struct host *host, uint32_t wait_us) {
    uint32_t commands = host->commands;
    host->commands = host->data = 0;
    int32_t count = rw_core_turn(host->core, commands, wait_us);
    assert_in_range(count, 0, host->info.events_capacity);
    const struct rw_event *events = (const struct rw_event *)(uintptr_t)host->info.events;
    for (int32_t i = 0; i < count; i++) {
        const struct rw_event *event = &events[i];
        if (event->type == RW_EVENT_NONE) continue;
        const uint8_t *payload = (const uint8_t *)(uintptr_t)host->info.payload + event->offset;
        if (event->flags & RW_EVENT_LARGE) {
            payload = (const uint8_t *)(uintptr_t)((uint64_t)event->arg1 << 32 | event->arg0);
        } else {
            assert_true(event->bytes <= host->info.payload_bytes &&
                        event->offset <= host->info.payload_bytes - event->bytes);
        }
        if (host->handler) {
            host->handler(host, event, payload);
        } else {
            host_record(host, event, payload);
        }
    }
}

FIXTURE void host_turn(struct host *host) { host_turn_wait(host, host_is_sim(host) ? 0 : 500); }

FIXTURE void host_turns(struct host *host, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) host_turn(host);
}

FIXTURE uint64_t test_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

FIXTURE void test_sleep_ms(uint32_t ms) {
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

/* Time passes for the core, by moving its clock: no test has to wait for a deadline, and none fails because the machine
 * was slow. In steps too short for the core to think that its host was blocked. */
FIXTURE void host_pass_time(struct host *host, uint32_t ms) {
    for (uint32_t passed = 0; passed < ms; passed += 400) {
        host->core->clock_start_ms -= 400;
        host_turns(host, 2);
    }
}

FIXTURE struct record *host_poll(struct host *host) {
    for (uint32_t turn = 0; host->log_at == host->log_count && turn < 40; turn++) host_turn(host);
    return host->log_at < host->log_count ? &host->log[host->log_at++] : NULL;
}

/* The next event, which must be of this type. */
FIXTURE struct record *host_expect(struct host *host, enum rw_event_type type) {
    uint64_t end = test_now_ms() + 10000;
    for (uint32_t turn = 0; host->log_at == host->log_count && test_now_ms() < end; turn++) {
        host_turn(host);
        if (turn > 100) test_sleep_ms(2);
    }
    assert_true(host->log_at < host->log_count);
    struct record *record = &host->log[host->log_at++];
    assert_int_equal(record->event.type, type);
    return record;
}

FIXTURE void host_expect_silence(struct host *host) { assert_null(host_poll(host)); }

FIXTURE void host_flush(struct host *host) {
    assert_int_equal(rw_core_flush(host->core, host->commands), RW_OK);
    host->commands = host->data = 0;
}

FIXTURE void host_command(struct host *host, struct rw_command command, const void *data, size_t bytes) {
    if (bytes > host->info.data_bytes) {
        host_flush(host);
        (void)rw_core_command(host->core, &command, data, bytes);
        return;
    }
    if (host->commands == host->info.commands_capacity || bytes > host->info.data_bytes - host->data) host_flush(host);
    command.offset = host->data;
    command.bytes = (uint32_t)bytes;
    if (bytes) memcpy((uint8_t *)(uintptr_t)host->info.data + host->data, data, bytes);
    host->data += (uint32_t)bytes;
    ((struct rw_command *)(uintptr_t)host->info.commands)[host->commands++] = command;
}

/* A command about the connection, and the request, of an event. */
FIXTURE void host_answer(struct host *host, const struct rw_event *to, struct rw_command command, const void *data,
                         size_t bytes) {
    command.slot = to->slot;
    command.generation = to->generation;
    command.request = to->request;
    command.stream = to->stream;
    host_command(host, command, data, bytes);
}

FIXTURE void host_respond(struct host *host, const struct rw_event *to, uint32_t status, const char *headers,
                          const char *body) {
    char data[4096];
    int length = snprintf(data, sizeof data, "%s%s", headers, body);
    assert_in_range(length, 0, sizeof data - 1);
    host_answer(host, to,
                (struct rw_command){.type = RW_COMMAND_RESPOND, .arg0 = status, .arg1 = (uint32_t)strlen(headers)},
                data, (size_t)length);
}

FIXTURE void host_send(struct host *host, const struct rw_event *to, uint32_t flags, const void *data, size_t bytes) {
    host_answer(host, to, (struct rw_command){.type = RW_COMMAND_SEND, .flags = (uint16_t)flags}, data, bytes);
}

FIXTURE void host_topic(struct host *host, const struct rw_event *to, enum rw_command_type type, const char *topic) {
    host_answer(host, to, (struct rw_command){.type = (uint16_t)type}, topic, strlen(topic));
}

FIXTURE void host_publish(struct host *host, const struct rw_event *except, const char *topic, uint32_t flags,
                          const void *payload, size_t bytes) {
    size_t topic_bytes = strlen(topic);
    uint8_t *data = malloc(topic_bytes + bytes + 1);
    assert_non_null(data);
    memcpy(data, topic, topic_bytes);
    if (bytes) memcpy(data + topic_bytes, payload, bytes);
    host_command(host,
                 (struct rw_command){.type = RW_COMMAND_PUBLISH,
                                     .flags = (uint16_t)flags,
                                     .slot = except ? except->slot : RW_NO_SLOT,
                                     .generation = except ? except->generation : 0,
                                     .arg0 = (uint32_t)topic_bytes},
                 data, topic_bytes + bytes);
    free(data);
}

/* ---------------------------------------------------------------- peers */

/* source: the IPv4 address it comes from, or NULL: any, and on the simulated ring none */
FIXTURE struct peer *peer_connect_as(struct host *host, int receive_buffer, const char *source) {
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

FIXTURE struct peer *peer_connect_to(struct host *host, int receive_buffer) {
    return peer_connect_as(host, receive_buffer, NULL);
}

FIXTURE struct peer *peer_connect(struct host *host) {
    struct peer *peer = peer_connect_to(host, 0);
    if (host->dress) host->dress(host, peer);
    return peer;
}

/* All of it, with turns in between when the socket is full. */
FIXTURE void peer_send(struct host *host, struct peer *peer, const void *bytes, size_t count) {
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

FIXTURE void peer_send_text(struct host *host, struct peer *peer, const char *text) {
    peer_send(host, peer, text, strlen(text));
}

/* 65536 bytes behind what has come. */
FIXTURE void peer_make_room(struct peer *peer) {
    if (peer->memory && peer->capacity - (size_t)(peer->in - peer->memory) - peer->in_bytes >= 65536) return;
    peer->capacity = peer->in_bytes * 2 + 131072;
    uint8_t *grown = malloc(peer->capacity);
    assert_non_null(grown);
    if (peer->in_bytes) memcpy(grown, peer->in, peer->in_bytes);
    free(peer->memory);
    peer->memory = peer->in = grown;
}

/* What has come is put behind peer->in. */
FIXTURE void peer_pull(struct host *host, struct peer *peer) {
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

FIXTURE void peer_wait_bytes(struct host *host, struct peer *peer, size_t count) {
    uint64_t end = test_now_ms() + 10000;
    peer_pull(host, peer);
    for (uint32_t turn = 0; peer->in_bytes < count && !peer->ended && test_now_ms() < end; turn++) {
        host_turn(host);
        peer_pull(host, peer);
        if (turn > 200) test_sleep_ms(1);
    }
    assert_true(peer->in_bytes >= count);
}

FIXTURE void peer_consume(struct peer *peer, size_t count) {
    assert_true(count <= peer->in_bytes);
    peer->in += count;
    peer->in_bytes -= count;
}

FIXTURE void peer_expect(struct host *host, struct peer *peer, const void *bytes, size_t count) {
    peer_wait_bytes(host, peer, count);
    assert_memory_equal(peer->in, bytes, count);
    peer_consume(peer, count);
}

FIXTURE void peer_expect_text(struct host *host, struct peer *peer, const char *text) {
    peer_expect(host, peer, text, strlen(text));
}

/* Nothing more comes in a good number of turns. */
FIXTURE void peer_expect_silence(struct host *host, struct peer *peer) {
    host_turns(host, 20);
    peer_pull(host, peer);
    assert_int_equal(peer->in_bytes, 0);
}

FIXTURE void peer_shutdown(struct host *host, struct peer *peer) {
    if (host_is_sim(host)) {
        rw_sim_peer_shutdown(host->core->ring, peer->fd);
    } else {
        (void)shutdown(peer->fd, SHUT_WR);
    }
}

/* Gone: a reset for the simulated peer, close(2) for the real one. */
FIXTURE void peer_close(struct host *host, struct peer *peer) {
    if (peer->closed) return;
    peer->closed = 1;
    if (host_is_sim(host)) {
        if (!rw_sim_is_closed(host->core->ring, peer->fd)) rw_sim_peer_reset(host->core->ring, peer->fd);
    } else {
        close(peer->fd);
    }
}

/* Gone, with a request that is not answered: the FIN of the real one alone does not tell, and the host gives it up. */
FIXTURE void peer_leave(struct host *host, struct peer *peer) {
    peer_close(host, peer);
    if (host_is_sim(host)) return;
    host_answer(host, &host_expect(host, RW_EVENT_HALF_CLOSED)->event,
                (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
}

/* The core ends the connection: whoever reads gets its end. A simulated peer has no way to see the half-close, so it
 * answers with its own end of stream, as a client does. */
FIXTURE void peer_expect_end(struct host *host, struct peer *peer) {
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

FIXTURE uint64_t peer_content_length(const char *head) {
    const char *field = strstr(head, "\r\nContent-Length: ");
    return field ? strtoull(field + 18, NULL, 10) : 0;
}

/* A response head, put into peer->head with a NUL. */
FIXTURE void peer_expect_head(struct host *host, struct peer *peer, uint32_t status) {
    const uint8_t *end = NULL;
    peer_pull(host, peer);
    for (uint32_t turn = 0; turn < TURNS_MAX; turn++) {
        end = peer->in_bytes ? memmem(peer->in, peer->in_bytes, "\r\n\r\n", 4) : NULL;
        if (end || peer->ended) break;
        host_turn(host);
        peer_pull(host, peer);
    }
    assert_non_null(end);
    size_t bytes = (size_t)(end - peer->in) + 4;
    assert_in_range(bytes, 16, sizeof peer->head - 1);
    memcpy(peer->head, peer->in, bytes);
    peer->head[bytes] = 0;
    peer_consume(peer, bytes);
    assert_memory_equal(peer->head, "HTTP/1.1 ", 9);
    assert_int_equal(strtoul(peer->head + 9, NULL, 10), status);
}

FIXTURE void peer_expect_response(struct host *host, struct peer *peer, uint32_t status, const char *body) {
    peer_expect_head(host, peer, status);
    assert_int_equal(peer_content_length(peer->head), strlen(body));
    peer_expect_text(host, peer, body);
}

FIXTURE int peer_head_has(const struct peer *peer, const char *line) {
    char wanted[256];
    snprintf(wanted, sizeof wanted, "\r\n%s\r\n", line);
    return strstr(peer->head, wanted) != NULL;
}

/* ---------------------------------------------------------------- WebSocket */

#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455 §1.3 */
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define WS_REQUEST                                                                                        \
    "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: " \
    "13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"

#define FIN_TEXT 0x81
#define FIN_BINARY 0x82
#define FIN_CLOSE 0x88
#define FIN_PING 0x89
#define FIN_PONG 0x8A

/* A client frame at out[0..14 + bytes). first: its first octet. ret: its length */
FIXTURE size_t ws_client_frame(uint8_t *out, uint8_t first, const void *payload, size_t bytes) {
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint32_t header = rw_ws_encode_header(out, 2, 1, 0, bytes);
    out[0] = first;
    out[1] |= 0x80;
    memcpy(out + header, mask, 4);
    for (size_t i = 0; i < bytes; i++) out[header + 4 + i] = (uint8_t)(((const uint8_t *)payload)[i] ^ mask[i & 3]);
    return header + 4 + bytes;
}

FIXTURE void peer_send_frame(struct host *host, struct peer *peer, uint8_t first, const void *payload, size_t bytes) {
    uint8_t *frame = malloc(bytes + 14);
    assert_non_null(frame);
    peer_send(host, peer, frame, ws_client_frame(frame, first, payload, bytes));
    free(frame);
}

/* A server frame with this first octet and payload. */
FIXTURE void peer_expect_frame(struct host *host, struct peer *peer, uint8_t first, const void *payload, size_t bytes) {
    uint8_t header[10];
    uint32_t header_bytes = rw_ws_encode_header(header, 2, 1, 0, bytes);
    header[0] = first;
    peer_expect(host, peer, header, header_bytes);
    if (bytes) peer_expect(host, peer, payload, bytes);
}

FIXTURE void peer_expect_close_reason(struct host *host, struct peer *peer, uint32_t code, const char *reason) {
    uint8_t payload[125] = {(uint8_t)(code >> 8), (uint8_t)code};
    memcpy(payload + 2, reason, strlen(reason));
    peer_expect_frame(host, peer, 0x88, payload, code ? 2 + strlen(reason) : 0);
}

FIXTURE void peer_expect_close_frame(struct host *host, struct peer *peer, uint32_t code) {
    peer_expect_close_reason(host, peer, code, code == 1007 ? "text that is not UTF-8" : "");
}

/* A connection whose handshake is done. out: *open, the event, by which the host names it */
FIXTURE struct peer *peer_open_ws(struct host *host, uint32_t behavior, struct rw_event *open) {
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    assert_true(request->event.flags & RW_REQUEST_UPGRADE);
    host_answer(host, &request->event, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = behavior}, NULL, 0);
    struct record *record = host_expect(host, RW_EVENT_OPEN);
    assert_int_equal(record->event.arg0, behavior);
    *open = record->event;
    peer_expect_head(host, peer, 101);
    assert_true(peer_head_has(peer, "Sec-WebSocket-Accept: " WS_ACCEPT));
    return peer;
}

FIXTURE void host_behavior(struct host *host, uint32_t index, struct rw_behavior behavior) {
    if (!behavior.max_payload_bytes) behavior.max_payload_bytes = 1u << 20;
    if (!behavior.max_backpressure_bytes) behavior.max_backpressure_bytes = 16u << 20;
    if (!behavior.close_timeout_ms) behavior.close_timeout_ms = 5000;
    assert_int_equal(rw_core_behavior(host->core, index, &behavior), RW_OK);
}

/* ---------------------------------------------------------------- the end */

FIXTURE uint64_t host_buffers_used(const struct host *host) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < RW_BUFFER_CLASSES; i++) used += rw_buffers_stats(host->core->buffers, i).used;
    return used;
}

/* Every connection has ended: nothing may be left but the log of publishes. */
FIXTURE void host_assert_empty(struct host *host) {
    struct rw_core *core = host->core;
    assert_int_equal(rw_core_connections(core), 0);
    host_turn(host); /* lets go of the last batch */
    assert_int_equal(core->stats->accepts, core->stats->closes);
    assert_int_equal(core->stats->connections_http, 0);
    assert_int_equal(core->stats->connections_websocket, 0);
    assert_int_equal(core->stats->backpressure_connections, 0);
    assert_int_equal(core->outbox.used, 0);
    assert_int_equal(core->outbox.bytes, 0);
    assert_int_equal(core->starved.count, 0);
    assert_int_equal(core->unfinished_bytes, 0);
    assert_int_equal(core->inflate_bytes, 0);
    assert_int_equal(core->kept_bytes + core->withheld_count, 0);
    assert_int_equal(core->wheel.count, 0);
    assert_int_equal(core->dirty.count + core->ready.count + core->ending.count, 0);
    assert_int_equal(rw_topics_count(core->topics), 0);
    assert_int_equal(rw_topics_subscriptions(core->topics), 0);
    assert_int_equal(host_buffers_used(host),
                     (core->publish_log ? 1 : 0) + (core->deflated_log ? 1 : 0) + (core->ping_frame ? 1 : 0));
    for (uint32_t i = 0; core->ip_limit.most && i < RW_IP_ROWS * RW_IP_CELLS; i++)
        assert_int_equal(core->ip_limit.cells[i], 0);
    if (host_is_sim(host)) assert_int_equal(rw_sim_borrowed(core->ring), 0);
}

FIXTURE void host_free(struct host *host) {
    if (!host_is_sim(host)) close(host->listener);
    for (uint32_t i = 0; i < HOST_PEERS_MAX; i++) {
        if (host->peers[i].used && !host->peers[i].closed && !host_is_sim(host)) close(host->peers[i].fd);
        if (host->peers[i].layer) host->peers[i].layer->drop(&host->peers[i]);
        free(host->peers[i].memory);
    }
    for (size_t i = 0; i < host->log_count; i++) free(host->log[i].payload);
    free(host->log);
    free(host);
}

/* Close the peers, see that everything is given back, destroy the core. */
FIXTURE void host_close(struct host *host) {
    for (uint32_t i = 0; i < HOST_PEERS_MAX; i++) {
        if (host->peers[i].used) peer_close(host, &host->peers[i]);
    }
    uint64_t end = test_now_ms() + 10000;
    while (rw_core_connections(host->core) && test_now_ms() < end) {
        host_turn(host);
        for (; host->log_at < host->log_count; host->log_at++) {
            const struct rw_event *event = &host->log[host->log_at].event;
            if (event->type == RW_EVENT_HALF_CLOSED)
                host_answer(host, event, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
        }
    }
    host_assert_empty(host);
    rw_core_destroy(host->core);
    host_free(host);
}

/* ---------------------------------------------------------------- one test, every backend */

FIXTURE int backend_setup(void **state) {
    (void)state; /* the initial state is the backend */
    return 0;
}

FIXTURE struct host *host_open(void **state, const struct rw_core_config *config) {
    uint32_t backend = (uint32_t)(uintptr_t)*state;
    struct host *host = host_open_with(backend, config);
    if (!host) skip();
    return host;
}

#define DEFAULTS (&(struct rw_core_config){0})
#define PLAIN ((struct rw_behavior){0})
FIXTURE uint8_t pattern_at(size_t i) { return (uint8_t)('a' + i % 23 + (i >> 10) % 3); }

FIXTURE void fill_pattern(uint8_t *out, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) out[i] = pattern_at(i);
}

/* A host whose behavior 7 is this one. */
FIXTURE struct host *ws_host(void **state, struct rw_behavior behavior) {
    struct host *host = host_open(state, DEFAULTS);
    host_behavior(host, 7, behavior);
    return host;
}

#define ON_SIM(test) {#test " (sim)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_SIM}
#define ON_REAL_RINGS(test)                                                                     \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING}, { \
        #test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL        \
    }
#define ON_EVERY_RING(test) ON_SIM(test), ON_REAL_RINGS(test)

#endif
