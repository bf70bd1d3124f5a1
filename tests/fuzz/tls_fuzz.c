/* Fuzzes TLS as the core speaks it, on the simulated ring: a client of OpenSSL's, and an input that meddles with its
 * bytes.
 *
 * The input is a program: connect (as a real client, or with raw bytes only), let the client speak, change, repeat, cut
 * or invent ciphertext on its way, stop reading, half-close, reset; the host answers requests, sends, asks and answers
 * for server names, reloads, terminates; time passes. Beyond the sanitizers it checks that the memory for ciphertext
 * stays within its bound and that everything is given back when all have left. */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection/core.h"
#include "connection/tls.h"
#include "fuzz_input.h"
#include "ring/ring_sim.h"
#include "ringway.h"
#include "seeded_core.h"
#include "test_certificates.h"
#include "ws/ws.h"

enum { PEERS = 3, OPS_MAX = 120, END_TURNS = 4000 };

struct fuzz_peer {
    int32_t fd; /* -1: not connected */
    uint8_t shut;
    SSL *ssl; /* NULL: raw bytes only */
};

struct fuzz {
    struct rw_core *core;
    struct rw_core_info info;
    int32_t listener;
    struct fuzz_peer peers[PEERS];
    uint32_t commands;
};

static struct certificate certificates[2];
static SSL_CTX *clients[2]; /* TLS 1.2, TLS 1.3 */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    for (int i = 0; i < 2; i++) {
        certificates[i] = certificate_make(i ? "second.test" : "first.test", NULL);
        clients[i] = SSL_CTX_new(TLS_client_method());
        CHECK(clients[i]);
    }
    SSL_CTX_set_max_proto_version(clients[0], TLS1_2_VERSION);
    SSL_CTX_set_min_proto_version(clients[1], TLS1_3_VERSION);
    return 0;
}

/* ---------------------------------------------------------------- host */

static void command(struct fuzz *fuzz, const struct rw_event *to, uint16_t type, uint32_t arg0, uint32_t bytes) {
    if (fuzz->commands == 64) return;
    ((struct rw_command *)(uintptr_t)fuzz->info.commands)[fuzz->commands++] =
        (struct rw_command){.type = type,
                            .slot = to->slot,
                            .generation = to->generation,
                            .bytes = bytes,
                            .arg0 = arg0,
                            .request = to->request,
                            .stream = to->stream};
}

static void answer(struct fuzz *fuzz, const struct rw_event *event) {
    switch (event->type) {
        case RW_EVENT_REQUEST:
            CHECK((event->arg1 >> 8 & 0xFF) == 0 && event->stream == 0);
            if (event->flags & RW_REQUEST_UPGRADE) {
                command(fuzz, event, RW_COMMAND_UPGRADE, 0, 0);
            } else {
                command(fuzz, event, RW_COMMAND_RESPOND, 200, event->bytes & 1 ? 70000 : 100);
            }
            break;
        case RW_EVENT_MESSAGE:
            command(fuzz, event, RW_COMMAND_SEND, 0, event->bytes < 1000 ? event->bytes : 40000);
            break;
        case RW_EVENT_SERVER_NAME:
            CHECK(event->bytes > 0 && event->bytes <= RW_TLS_NAME_BYTES_MAX);
            if (event->bytes & 1) command(fuzz, event, RW_COMMAND_SERVER_NAME, 0, 0);
            break;
        default: break;
    }
}

static void turn(struct fuzz *fuzz) {
    int32_t count = rw_core_turn(fuzz->core, fuzz->commands, 0);
    fuzz->commands = 0;
    const struct rw_event *events = (const struct rw_event *)(uintptr_t)fuzz->info.events;
    for (int32_t i = 0; i < count; i++) answer(fuzz, &events[i]);
    for (uint32_t i = 0; i < fuzz->core->pool.carved; i++) {
        const struct rw_slot *slot = rw_core_slot(fuzz->core, i);
        if (slot->state.phase != RW_PHASE_FREE && slot->tls)
            CHECK(slot->tls->waiting.bytes <= RW_TLS_WAITING_BYTES_MAX);
    }
}

static void host_op(struct fuzz *fuzz, uint8_t what) {
    struct rw_tls_options options = certificate_options(&certificates[what & 1]);
    struct rw_event any = {.slot = what % PEERS};
    switch (what % 6) {
        case 0: CHECK(rw_core_listener_tls(fuzz->core, 0, &options, NULL, 0) == RW_OK); break;
        case 1:
            CHECK(rw_core_server_name(fuzz->core, 0, "*.test", 7, what & 8 ? &options : NULL, NULL, 0) == RW_OK);
            break;
        case 2: (void)rw_core_listener_flags(fuzz->core, 0, what & 8 ? RW_LISTENER_WANTS_SERVER_NAME : 0); break;
        case 3:
            if (any.slot < fuzz->core->pool.carved) any.generation = rw_core_slot(fuzz->core, any.slot)->generation;
            command(fuzz, &any, what & 8 ? RW_COMMAND_TERMINATE : RW_COMMAND_SERVER_NAME, 0, 0);
            break;
        case 4:
            fuzz->core->clock_start_ms -= (uint64_t)(what >> 3) * 500; /* time passes */
            break;
        default:
            if (what == 0xFB) rw_core_drain(fuzz->core, 1012, 100, 50);
            break;
    }
}

/* ---------------------------------------------------------------- peers */

static int is_open(const struct fuzz *fuzz, const struct fuzz_peer *peer) {
    return peer->fd >= 0 && !rw_sim_is_closed(fuzz->core->ring, peer->fd);
}

static void push(struct fuzz *fuzz, struct fuzz_peer *peer, const uint8_t *bytes, size_t count) {
    if (count && !peer->shut && is_open(fuzz, peer)) rw_sim_push(fuzz->core->ring, peer->fd, bytes, count);
}

/* The client takes what has come and says what it has to; the meddler gets its bytes first. */
static void speak(struct fuzz *fuzz, struct fuzz_peer *peer, uint8_t meddle, struct input *input) {
    if (!peer->ssl || !is_open(fuzz, peer)) return;
    static uint8_t bytes[70000];
    size_t got = rw_sim_take(fuzz->core->ring, peer->fd, bytes, sizeof bytes);
    if (got) (void)BIO_write(SSL_get_rbio(peer->ssl), bytes, (int)got);
    if (SSL_do_handshake(peer->ssl) == 1) {
        while (SSL_read(peer->ssl, bytes, sizeof bytes) > 0) continue;
    }
    int count = BIO_read(SSL_get_wbio(peer->ssl), bytes, sizeof bytes);
    ERR_clear_error();
    if (count <= 0) return;
    size_t at = (size_t)take(input) * 5 % (size_t)count;
    switch (meddle & 7) {
        case 1: bytes[at] ^= (uint8_t)(1 + take(input)); break;
        case 2: push(fuzz, peer, bytes, at); break;
        case 3: count = (int)at; break;
        default: break;
    }
    push(fuzz, peer, bytes, (size_t)count);
}

static void say(struct fuzz_peer *peer, uint8_t what) {
    static const char get[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char upgrade[] =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
        "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    static const uint8_t frame[] = {0x82, 0x84, 0, 0, 0, 0, 'a', 'b', 'c', 'd'};
    if (!peer->ssl || !SSL_is_init_finished(peer->ssl)) return;
    switch (what % 6) {
        case 0: (void)SSL_write(peer->ssl, get, sizeof get - 1); break;
        case 1: (void)SSL_write(peer->ssl, upgrade, sizeof upgrade - 1); break;
        case 2:
            for (int i = 0; i <= what >> 4; i++) (void)SSL_write(peer->ssl, frame, sizeof frame);
            break;
        case 3: (void)SSL_key_update(peer->ssl, SSL_KEY_UPDATE_REQUESTED); break;
        case 4: (void)SSL_renegotiate(peer->ssl); break;
        default: (void)SSL_shutdown(peer->ssl); break;
    }
    ERR_clear_error();
}

static void forget(struct fuzz *fuzz, struct fuzz_peer *peer) {
    if (peer->fd >= 0 && rw_sim_is_closed(fuzz->core->ring, peer->fd)) rw_sim_forget(fuzz->core->ring, peer->fd);
    SSL_free(peer->ssl);
    *peer = (struct fuzz_peer){.fd = -1};
}

static void connect_peer(struct fuzz *fuzz, struct fuzz_peer *peer, uint8_t how) {
    peer->fd = rw_sim_connect(fuzz->core->ring, fuzz->listener);
    if (how & 4) return;
    peer->ssl = SSL_new(clients[how & 1]);
    CHECK(peer->ssl);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in, -1);
    BIO_set_mem_eof_return(out, -1);
    SSL_set_bio(peer->ssl, in, out);
    SSL_set_connect_state(peer->ssl);
    static const char *const names[] = {"a.test", "b.c.test", "nowhere", "second.test"};
    if (how & 2) (void)SSL_set_tlsext_host_name(peer->ssl, names[how >> 3 & 3]);
    if (how & 0x20)
        (void)SSL_set_alpn_protos(peer->ssl, (const unsigned char *)"\x02h2\x08http/1.1", how & 0x40 ? 3 : 12);
}

static void peer_op(struct fuzz *fuzz, uint8_t op, struct input *input) {
    struct fuzz_peer *peer = &fuzz->peers[(op >> 4) % PEERS];
    if (peer->fd >= 0 && rw_sim_is_closed(fuzz->core->ring, peer->fd)) forget(fuzz, peer);
    if (peer->fd < 0) connect_peer(fuzz, peer, take(input));
    uint8_t how = take(input);
    size_t count = how < (size_t)(input->end - input->at) ? how : (size_t)(input->end - input->at);
    switch (op & 7) {
        case 0:
            push(fuzz, peer, input->at, count);
            input->at += count;
            break;
        case 1:
        case 2:
            for (int i = 0; i < 4; i++) {
                speak(fuzz, peer, i == how % 4 ? how >> 2 : 0, input);
                turn(fuzz);
            }
            break;
        case 3:
        case 4: say(peer, how); break;
        case 5: rw_sim_peer_window(fuzz->core->ring, peer->fd, how & 1 ? SIZE_MAX : (size_t)how * 16); break;
        case 6:
            rw_sim_peer_shutdown(fuzz->core->ring, peer->fd);
            peer->shut = 1;
            break;
        default: rw_sim_peer_reset(fuzz->core->ring, peer->fd); break;
    }
}

/* ---------------------------------------------------------------- one run */

static void open_core(struct fuzz *fuzz, struct input *input) {
    struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                    .backend = RW_BACKEND_SIM,
                                    .max_connections = PEERS,
                                    .ring_entries = 64,
                                    .recv_buffers = 8,
                                    .recv_buffer_bytes = 64u << take(input) % 8,
                                    .sqpoll_cpu = -1,
                                    .wake_fd = -1,
                                    .inbox_fd_first = -1,
                                    .shm_fd = -1};
    char error[128];
    fuzz->core = seeded_core_create(&config, take(input), error, sizeof error);
    CHECK(fuzz->core);
    rw_core_info(fuzz->core, &fuzz->info);
    struct rw_behavior behavior = {.max_payload_bytes = 80000,
                                   .max_backpressure_bytes = 100000,
                                   .idle_timeout_ms = 5000,
                                   .ping_interval_ms = 1000,
                                   .close_timeout_ms = 1000};
    CHECK(rw_core_behavior(fuzz->core, 0, &behavior) == RW_OK);
    fuzz->listener = rw_sim_listen(fuzz->core->ring);
    struct rw_tls_options options = certificate_options(&certificates[0]);
    CHECK(rw_core_listener_tls(fuzz->core, 0, &options, error, sizeof error) == RW_OK);
    CHECK(rw_core_listen(fuzz->core, fuzz->listener, 0, take(input) & 1 ? RW_LISTENER_WANTS_SERVER_NAME : 0) == RW_OK);
    for (uint32_t i = 0; i < PEERS; i++) fuzz->peers[i].fd = -1;
}

/* Everybody leaves: what is left then is a leak. */
static void expect_nothing_left(struct fuzz *fuzz) {
    struct rw_core *core = fuzz->core;
    for (uint32_t i = 0; i < PEERS; i++) {
        if (is_open(fuzz, &fuzz->peers[i])) rw_sim_peer_reset(core->ring, fuzz->peers[i].fd);
    }
    for (uint32_t i = 0; i < END_TURNS && (i < 20 || core->pool.used); i++) {
        if (core->accept_retry_ms) core->accept_retry_ms = core->now_ms;
        if (i > 500) core->clock_start_ms -= 500;
        turn(fuzz);
    }
    CHECK(core->pool.used == 0 && core->stats->accepts == core->stats->closes);
    CHECK(core->stats->connections_http == 0 && core->stats->event_streams == 0 &&
          core->stats->connections_websocket == 0 && core->stats->backpressure_connections == 0);
    CHECK(core->outbox.used == 0 && core->outbox.bytes == 0 && core->starved.count == 0 && core->wheel.count == 0);
    CHECK(core->listeners[0].tls->refs == 1);
    uint64_t used = 0;
    for (uint32_t i = 0; i < RW_BUFFER_CLASSES; i++) used += rw_buffers_stats(core->buffers, i).used;
    CHECK(used == rw_publications_buffers(core) + (core->ws->ping_frame ? 1u : 0u));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    static struct fuzz fuzz;
    memset(&fuzz, 0, sizeof fuzz);
    open_core(&fuzz, &input);
    for (uint32_t i = 0; i < OPS_MAX && input.at < input.end; i++) {
        uint8_t op = take(&input);
        if (op & 8) {
            host_op(&fuzz, take(&input));
        } else {
            peer_op(&fuzz, op, &input);
        }
        turn(&fuzz);
    }
    expect_nothing_left(&fuzz);
    for (uint32_t i = 0; i < PEERS; i++) SSL_free(fuzz.peers[i].ssl);
    rw_core_destroy(fuzz.core);
    return 0;
}
