/* Fuzzes the core as a whole on the simulated ring: the input is a program for a few peers and a host.
 *
 * Peers push raw bytes, well-formed requests and frames in random pieces, stop reading, half-close, reset; the host
 * sends commands of every type with any contents to connections that live or have ended; time passes by moving the
 * core's clock. Beyond the sanitizers it checks: OPEN and CLOSE come in pairs, nothing follows CLOSE, payloads lie
 * within their area, and when all peers are gone everything has been given back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection/core.h"
#include "fuzz_input.h"
#include "ring/ring_sim.h"
#include "ringway.h"
#include "seeded_core.h"
#include "ws/ws.h"
#include "ws/ws_frame.h"

enum { PEERS = 4, SLOTS = 6, DATA_MAX = 256, OPS_MAX = 400, END_TURNS = 4000 };

struct fuzz {
    struct rw_core *core;
    struct rw_core_info info;
    int32_t listener;
    int32_t peers[PEERS]; /* -1: not connected */
    uint8_t shut[PEERS];
    uint32_t commands, data;
    uint32_t topics; /* that the host was told of as wanted, and not yet as unwanted */
    struct {
        uint32_t generation, request;
        uint8_t opened, closed;
        uint8_t quiet; /* a quiet upgrade was asked for: it may have opened without a word */
        uint8_t connected, gone;
    } slots[SLOTS];
};

static uint32_t take_u32(struct input *input) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) value = value << 8 | take(input);
    return value;
}

/* Up to `most` bytes of the input. */
static const uint8_t *take_bytes(struct input *input, size_t most, size_t *count) {
    size_t left = (size_t)(input->end - input->at);
    *count = most < left ? most : left;
    const uint8_t *bytes = input->at;
    input->at += *count;
    return bytes;
}

/* ---------------------------------------------------------------- host */

/* A slot that has changed hands: whatever had begun has ended. */
static void expect_told(const struct fuzz *fuzz, uint32_t slot) {
    CHECK(fuzz->slots[slot].quiet || fuzz->slots[slot].opened == fuzz->slots[slot].closed);
    CHECK(fuzz->slots[slot].connected == fuzz->slots[slot].gone);
}

static void on_interest(struct fuzz *fuzz, const struct rw_event *event) {
    CHECK(fuzz->core->flags & RW_CORE_WANTS_INTEREST && event->slot == RW_NO_SLOT && event->generation == 0);
    CHECK(event->bytes > 0 && event->bytes <= RW_TOPIC_BYTES_MAX &&
          event->bytes <= fuzz->info.payload_bytes - event->offset);
    CHECK(event->flags & RW_INTEREST_WANTED || fuzz->topics > 0);
    fuzz->topics += event->flags & RW_INTEREST_WANTED ? 1 : -1u;
}

static void on_event(struct fuzz *fuzz, const struct rw_event *event) {
    if (event->type == RW_EVENT_NONE) return;
    if (event->type == RW_EVENT_INTEREST) {
        on_interest(fuzz, event);
        return;
    }
    CHECK(event->slot < SLOTS && event->generation);
    if (event->flags & RW_EVENT_LARGE) {
        const volatile uint8_t *bytes = (const uint8_t *)(uintptr_t)((uint64_t)event->arg1 << 32 | event->arg0);
        if (event->bytes) (void)(bytes[0] + bytes[event->bytes - 1]); /* a sanitizer looks whether it is there */
    } else {
        CHECK(event->offset <= fuzz->info.payload_bytes && event->bytes <= fuzz->info.payload_bytes - event->offset);
    }
    if (fuzz->slots[event->slot].generation != event->generation) {
        expect_told(fuzz, event->slot);
        memset(&fuzz->slots[event->slot], 0, sizeof fuzz->slots[0]);
        fuzz->slots[event->slot].generation = event->generation;
    }
    CHECK(!fuzz->slots[event->slot].gone);
    if (event->type == RW_EVENT_DISCONNECT) {
        CHECK(fuzz->slots[event->slot].connected);
        fuzz->slots[event->slot].gone = 1;
        return;
    }
    CHECK(!fuzz->slots[event->slot].closed);
    int opened = fuzz->slots[event->slot].opened || fuzz->slots[event->slot].quiet;
    switch (event->type) {
        case RW_EVENT_REQUEST:
            CHECK(!fuzz->slots[event->slot].opened);
            fuzz->slots[event->slot].request = event->request;
            break;
        case RW_EVENT_OPEN:
            CHECK(!fuzz->slots[event->slot].opened);
            fuzz->slots[event->slot].opened = 1;
            break;
        case RW_EVENT_CONNECT:
            CHECK(!fuzz->slots[event->slot].connected && !opened && fuzz->slots[event->slot].request == 0);
            fuzz->slots[event->slot].connected = 1;
            break;
        case RW_EVENT_CLOSE:
            CHECK(opened);
            fuzz->slots[event->slot].closed = 1;
            break;
        case RW_EVENT_MESSAGE:
        case RW_EVENT_PING:
        case RW_EVENT_PONG: CHECK(opened); break;
        default: break;
    }
}

static void turn(struct fuzz *fuzz) {
    uint32_t commands = fuzz->commands;
    fuzz->commands = fuzz->data = 0;
    int32_t count = rw_core_turn(fuzz->core, commands, 0);
    CHECK(count >= 0 && (uint32_t)count <= fuzz->info.events_capacity);
    for (int32_t i = 0; i < count; i++) on_event(fuzz, &((const struct rw_event *)(uintptr_t)fuzz->info.events)[i]);
}

static void command(struct fuzz *fuzz, struct rw_command record, const uint8_t *data, size_t bytes) {
    if (fuzz->commands == fuzz->info.commands_capacity || bytes > fuzz->info.data_bytes - fuzz->data) {
        (void)rw_core_flush(fuzz->core, fuzz->commands);
        fuzz->commands = fuzz->data = 0;
    }
    if (!(record.flags & RW_COMMAND_FROM_EVENT)) {
        record.offset = fuzz->data;
        record.bytes = (uint32_t)bytes;
        if (bytes) memcpy((uint8_t *)(uintptr_t)fuzz->info.data + fuzz->data, data, bytes);
        fuzz->data += (uint32_t)bytes;
    }
    ((struct rw_command *)(uintptr_t)fuzz->info.commands)[fuzz->commands++] = record;
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (record.type == RW_COMMAND_UPGRADE && record.flags & RW_UPGRADE_QUIET && record.slot == i)
            fuzz->slots[i].quiet = 1;
    }
}

static struct rw_command about(const struct fuzz *fuzz, uint32_t slot, enum rw_command_type type) {
    return (struct rw_command){.type = (uint16_t)type,
                               .slot = slot,
                               .generation = fuzz->slots[slot].generation,
                               .request = fuzz->slots[slot].request};
}

/* Any command at all. */
static void random_command(struct fuzz *fuzz, struct input *input) {
    uint8_t flags = take(input);
    struct rw_command record = about(fuzz, take(input) % SLOTS, take(input) % 22);
    record.flags = (uint16_t)(flags & 0x1F);
    if (record.type == RW_COMMAND_SEND && flags & 1) record.flags |= RW_SEND_COMPRESS | RW_SEND_OWN;
    record.arg0 = take(input);
    record.arg1 = take(input);
    if (flags & 0x20) record.arg0 = take_u32(input);
    if (flags & 0x40) record.generation -= take(input);
    if (flags & 0x10) record.stream = take(input) & 1; /* HTTP/1 has none but 0 */
    if (flags & 0x80) {
        record.flags |= RW_COMMAND_FROM_EVENT;
        record.offset = take_u32(input) % (2u << 20);
        record.bytes = take_u32(input) % 100000;
        command(fuzz, record, NULL, 0);
        return;
    }
    size_t count;
    const uint8_t *bytes = take_bytes(input, take(input), &count);
    command(fuzz, record, bytes, count);
}

/* What a sensible host does next. */
static void sensible_command(struct fuzz *fuzz, struct input *input) {
    uint8_t what = take(input);
    uint32_t slot = take(input) % SLOTS;
    static uint8_t large[70000];
    size_t bytes = (size_t)take(input) * (what & 0x80 ? 270 : 3);
    struct rw_command record;
    switch (what % 10) {
        case 0:
        case 1:
            record = about(fuzz, slot, RW_COMMAND_RESPOND);
            record.arg0 = 200;
            if (what & 0x40) {
                record.flags = RW_RESPOND_STATUS_TEXT | (what & 0x20 ? RW_RESPOND_NO_LENGTH : 0);
                memcpy(large,
                       "\x06"
                       "200 OK",
                       7);
                bytes += 7;
            }
            command(fuzz, record, large, bytes);
            break;
        case 2:
            record = about(fuzz, slot, RW_COMMAND_RESPOND_BEGIN);
            record.arg0 = 200;
            record.arg1 = (uint32_t)bytes;
            record.flags = what & 0x40 ? RW_RESPOND_SIZED : what & 0x20 ? RW_RESPOND_EVENTS : 0;
            command(fuzz, record, NULL, 0);
            if (what & 0x10)
                command(fuzz, about(fuzz, slot, RW_COMMAND_RESPOND_PLACES),
                        (const uint8_t *)"\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0a", 21);
            break;
        case 3:
            command(fuzz, about(fuzz, slot, what & 0x40 ? RW_COMMAND_RESPOND_EVENT : RW_COMMAND_RESPOND_CHUNK), large,
                    bytes);
            break;
        case 4: command(fuzz, about(fuzz, slot, RW_COMMAND_RESPOND_END), NULL, 0); break;
        case 5:
            record = about(fuzz, slot, RW_COMMAND_UPGRADE);
            record.arg0 = (what & 1) | (what & 0x40 ? 6u << 8 : 0);
            record.arg1 = what & 0x20 ? 18 : 0;
            record.flags = what & 0x10 ? RW_UPGRADE_QUIET : 0;
            command(fuzz, record, (const uint8_t *)"permessage-deflateA: b\r\nB: c\r\n", 30);
            break;
        case 6: command(fuzz, about(fuzz, slot, RW_COMMAND_SUBSCRIBE), (const uint8_t *)"abc", 1 + what % 3); break;
        case 7:
            record = about(fuzz, slot, RW_COMMAND_PUBLISH);
            record.arg0 = 1;
            memcpy(large, "a", 1);
            record.flags = what & 0x40 ? RW_SEND_COMPRESS : 0;
            command(fuzz, record, large, bytes + 1);
            break;
        case 8:
            record = about(fuzz, slot, RW_COMMAND_SEND);
            record.flags = what & 0x40 ? RW_SEND_COMPRESS : 0;
            command(fuzz, record, large, bytes);
            break;
        default:
            record = about(fuzz, slot, RW_COMMAND_BODY_ACK);
            record.arg0 = (uint32_t)bytes;
            record.flags = what & 0x40 ? RW_BODY_KEPT : 0;
            command(fuzz, record, NULL, 0);
            break;
    }
}

/* What the host calls, rather than writes into a batch. */
static void call(struct fuzz *fuzz, struct input *input) {
    uint8_t what = take(input);
    uint32_t slot = take(input) % SLOTS;
    struct rw_core *core = fuzz->core;
    static uint8_t out[300000];
    uint32_t port;
    (void)rw_core_flush(core, fuzz->commands);
    fuzz->commands = fuzz->data = 0;
    if (what & 1) {
        struct rw_command record = about(fuzz, slot, RW_COMMAND_RESPOND_TRY);
        size_t bytes = (size_t)take(input) * (what & 0x80 ? 1100 : 3);
        int32_t accepted = rw_core_command(core, &record, out, bytes);
        CHECK(accepted <= (int32_t)bytes && (accepted >= 0 || accepted == RW_ERR_STALE || accepted == RW_ERR_INVALID));
        return;
    }
    switch (what >> 1 & 7) {
        case 0: (void)rw_core_terminate_listener(core, 0); break;
        case 1: (void)rw_core_unlisten(core, 0); break;
        case 2:
        case 3:
            if (!core->listeners[0].used) CHECK(rw_core_listen(core, fuzz->listener, 0, what >> 4 & 13) == RW_OK);
            break;
        case 4:
            if (core->listeners[0].used) CHECK(rw_core_listener_flags(core, 0, what >> 4 & 13) == RW_OK);
            break;
        case 5: (void)rw_core_topics(core, slot, fuzz->slots[slot].generation, out, what >> 4); break;
        case 6: (void)rw_core_peer(core, slot, fuzz->slots[slot].generation, what >> 4 & 1, out, &port); break;
        default: (void)rw_core_topic_wanted(core, (const uint8_t *)"abc", 1u + what % 3); break;
    }
}

/* ---------------------------------------------------------------- peers */

static int is_pushable(const struct fuzz *fuzz, uint32_t peer) {
    return fuzz->peers[peer] >= 0 && !fuzz->shut[peer] && !rw_sim_is_closed(fuzz->core->ring, fuzz->peers[peer]);
}

static void push_template(struct fuzz *fuzz, uint32_t peer, uint8_t which) {
    static const char *const texts[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
        "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        "PUT http://b/y HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "0123456789",
        "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
        "PROXY TCP4 10.0.0.1 198.51.100.7 56324 443\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.2\r\nUpgrade: websocket\r\nConnection: "
        "Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=\"[2001:db8::1]\"\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n",
    };
    uint32_t count = sizeof texts / sizeof texts[0];
    if (which % (count + 2) >= count) {
        int local = which % (count + 2) == count;
        rw_sim_push(fuzz->core->ring, fuzz->peers[peer],
                    local ? "\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"
                          : "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb",
                    28);
        return;
    }
    const char *text = texts[which % (count + 2)];
    rw_sim_push(fuzz->core->ring, fuzz->peers[peer], text, strlen(text));
}

/* A frame whose header is right and whose payload is the input's, or many of one octet. */
static void push_frame(struct fuzz *fuzz, uint32_t peer, struct input *input) {
    static uint8_t frame[70100];
    uint8_t first = take(input), repeat = take(input);
    size_t count;
    const uint8_t *payload = take_bytes(input, take(input) % 126, &count);
    size_t bytes = repeat & 0x80 ? (size_t)repeat * 270 : count;
    uint32_t header = rw_ws_encode_header(frame, RW_WS_OP_BINARY, 1, 0, bytes);
    frame[0] = first;
    frame[1] |= 0x80;
    memset(frame + header, 0, 4); /* a mask of zeros is as good as any */
    if (repeat & 0x80) {
        memset(frame + header + 4, 'r', bytes);
    } else if (count) {
        memcpy(frame + header + 4, payload, count);
    }
    rw_sim_push(fuzz->core->ring, fuzz->peers[peer], frame, header + 4 + bytes);
}

static void peer_op(struct fuzz *fuzz, uint32_t peer, uint8_t op, struct input *input) {
    struct rw_ring *ring = fuzz->core->ring;
    if (fuzz->peers[peer] >= 0 && rw_sim_is_closed(ring, fuzz->peers[peer])) {
        rw_sim_forget(ring, fuzz->peers[peer]);
        fuzz->peers[peer] = -1;
    }
    if (fuzz->peers[peer] < 0) {
        fuzz->peers[peer] = rw_sim_connect(ring, fuzz->listener);
        fuzz->shut[peer] = 0;
        /* Two from proxies when 10.0.0.0/8 is trusted, one from elsewhere, one whom nobody knows. */
        static const uint8_t addresses[3][16] = {
            {[10] = 0xFF, 0xFF, 10, 0, 0, 1}, {[10] = 0xFF, 0xFF, 10, 0, 0, 2}, {[10] = 0xFF, 0xFF, 192, 0, 2, 1}};
        if (peer < 3) rw_sim_peer_address(ring, fuzz->peers[peer], addresses[peer]);
    }
    size_t count;
    const uint8_t *bytes;
    switch (op) {
        case 0:
            bytes = take_bytes(input, take(input), &count);
            if (is_pushable(fuzz, peer)) rw_sim_push(ring, fuzz->peers[peer], bytes, count);
            break;
        case 1:
            op = take(input);
            if (is_pushable(fuzz, peer)) push_template(fuzz, peer, op);
            break;
        case 2:
            if (is_pushable(fuzz, peer)) push_frame(fuzz, peer, input);
            break;
        case 3:
            op = take(input);
            rw_sim_peer_window(ring, fuzz->peers[peer], op & 1 ? SIZE_MAX : (size_t)op * 16);
            break;
        case 4:
            rw_sim_peer_shutdown(ring, fuzz->peers[peer]);
            fuzz->shut[peer] = 1;
            break;
        default: rw_sim_peer_reset(ring, fuzz->peers[peer]); break;
    }
}

/* ---------------------------------------------------------------- one run */

static void behave(struct fuzz *fuzz, uint32_t index, uint8_t flags) {
    struct rw_behavior behavior = {.max_payload_bytes = flags & 0x40 ? 100 : 80000,
                                   .max_backpressure_bytes = flags & 0x80 ? 1000 : 200000,
                                   .idle_timeout_ms = 5000,
                                   .ping_interval_ms = 1000,
                                   .max_lifetime_ms = 20000,
                                   .close_timeout_ms = 1000,
                                   .flags = flags & 0x3F,
                                   .deflate = index ? 0xF8 | 15u << 8 : 0x101};
    if (flags & 2) {
        behavior.messages_per_second = 3;
        behavior.bytes_per_second = flags & 1 ? 500 : 5;
    }
    if (flags & 0x10) behavior.flags |= RW_BEHAVIOR_PAUSE_ON_RATE;
    if (flags & 4) behavior.message_timeout_ms = 2000;
    CHECK(rw_core_behavior(fuzz->core, index, &behavior) == RW_OK);
}

/* All that it takes to get a WebSocket, so that more than now and then there is one, and then a few frames. */
static void converse(struct fuzz *fuzz, uint32_t peer, struct input *input) {
    uint8_t what = take(input);
    for (uint32_t i = 0; i < 3; i++) {
        if (fuzz->peers[peer] < 0) peer_op(fuzz, peer, 3, &(struct input){0});
        if (!is_pushable(fuzz, peer)) return;
        if (i == 0 && what & 1) push_template(fuzz, peer, what & 2 ? 8 : 9);
        if (i == 0) push_template(fuzz, peer, what & 4 ? 10 : 1);
        for (uint32_t slot = 0; slot < SLOTS && i == 1; slot++) {
            struct rw_command record = about(fuzz, slot, RW_COMMAND_UPGRADE);
            record.arg0 = what >> 3 & 1;
            command(fuzz, record, NULL, 0);
        }
        for (uint32_t j = 0; j < 4; j++) turn(fuzz);
    }
    static const uint8_t firsts[8] = {0x81, 0x82, 0x89, 0x8A, 0x01, 0x80, 0x00, 0x82};
    static const uint8_t payload[200] = {'a'};
    for (uint32_t i = 0; i <= (uint32_t)(what >> 4) && is_pushable(fuzz, peer); i++) {
        uint8_t frame[220], chosen = take(input);
        uint32_t bytes = chosen & 0x10 ? 100u + chosen % 100u : chosen % 10u;
        uint32_t header = rw_ws_encode_header(frame, RW_WS_OP_BINARY, 1, 0, bytes);
        frame[0] = firsts[chosen >> 5];
        frame[1] |= 0x80;
        memset(frame + header, 0, 4);
        memcpy(frame + header + 4, payload, bytes);
        rw_sim_push(fuzz->core->ring, fuzz->peers[peer], frame, header + 4 + bytes);
        if (chosen & 1) turn(fuzz);
    }
}

static void step(struct fuzz *fuzz, struct input *input) {
    uint8_t op = take(input);
    switch (op & 0x0F) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5: peer_op(fuzz, (op >> 4) % PEERS, op & 0x0F, input); break;
        case 6: random_command(fuzz, input); break;
        case 7:
        case 8: sensible_command(fuzz, input); break;
        case 9:
            fuzz->core->clock_start_ms -= (uint64_t)(op >> 4) * 700; /* time passes */
            turn(fuzz);
            break;
        case 10: behave(fuzz, op >> 4 & 1, take(input)); break;
        case 11:
            if (op == 0xFB) {
                uint32_t over_ms = take(input);
                rw_core_drain(fuzz->core, 1012, over_ms, take(input) * 16u);
            }
            break;
        case 12: call(fuzz, input); break;
        case 13: converse(fuzz, (op >> 4) % PEERS, input); break;
        default:
            for (uint32_t i = 0; i <= (op >> 4); i++) turn(fuzz);
            break;
    }
}

static void open_core(struct fuzz *fuzz, struct input *input) {
    struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                    .backend = RW_BACKEND_SIM,
                                    .max_connections = SLOTS - 2,
                                    .ring_entries = 64,
                                    .recv_buffers = 8,
                                    .recv_buffer_bytes = 64u << take(input) % 8,
                                    .sqpoll_cpu = -1,
                                    .wake_fd = -1,
                                    .inbox_fd_first = -1,
                                    .shm_fd = -1,
                                    .body_window_bytes = 100,
                                    .response_high_water_bytes = 2000,
                                    .max_body_bytes_lo = 5000};
    uint8_t limits = take(input);
    if (limits & 1) config.max_connections_per_ip = 1 + (limits >> 1 & 1);
    if (limits & 4) config.upgrades_per_kilosecond = 100;
    config.proxy_header = (limits >> 3 & 3) % 3;
    if (!(limits & 0x40)) config.flags = RW_CORE_WANTS_INTEREST;
    char error[128];
    fuzz->core = seeded_core_create(&config, take(input), error, sizeof error);
    CHECK(fuzz->core);
    rw_core_info(fuzz->core, &fuzz->info);
    behave(fuzz, 0, take(input));
    behave(fuzz, 1, take(input));
    struct rw_address_range trusted = {.address = {[10] = 0xFF, 0xFF, 10}, .prefix_bits = 96 + 8};
    CHECK(rw_core_trusted_proxies(fuzz->core, &trusted, limits >> 5 & 1) == RW_OK);
    fuzz->listener = rw_sim_listen(fuzz->core->ring);
    CHECK(rw_core_listen(fuzz->core, fuzz->listener, 0,
                         take(input) & (RW_LISTENER_WANTS_CONNECT | RW_LISTENER_PROXY_PROTOCOL |
                                        RW_LISTENER_PROXY_REQUIRED)) == RW_OK);
    for (uint32_t i = 0; i < PEERS; i++) fuzz->peers[i] = -1;
    uint8_t narrow = take(input);
    if (narrow & 1) fuzz->core->limits.unfinished_bytes = 64u << (narrow >> 1 & 15);
    if (narrow & 0x20) fuzz->core->limits.topics_per_socket = 1 + (narrow >> 6 & 1);
    if (narrow & 0x80) fuzz->core->limits.topics = 2;
}

/* Addresses that peers have, or that proxies tell of. */
static const uint8_t counted[5][16] = {{[10] = 0xFF, 0xFF, 10, 0, 0, 1},
                                       {[10] = 0xFF, 0xFF, 10, 0, 0, 2},
                                       {[10] = 0xFF, 0xFF, 192, 0, 2, 1},
                                       {[10] = 0xFF, 0xFF, 192, 0, 2, 2},
                                       {0x20, 1, 0x0d, 0xb8, [15] = 1}};

/* Everybody leaves: what is left then is a leak. */
static void expect_nothing_left(struct fuzz *fuzz) {
    struct rw_core *core = fuzz->core;
    for (uint32_t i = 0; i < PEERS; i++) {
        if (fuzz->peers[i] >= 0 && !rw_sim_is_closed(core->ring, fuzz->peers[i]))
            rw_sim_peer_reset(core->ring, fuzz->peers[i]);
    }
    for (uint32_t i = 0; i < SLOTS - 2; i++) command(fuzz, about(fuzz, i, RW_COMMAND_TERMINATE), NULL, 0);
    for (uint32_t i = 0; i < END_TURNS && (i < 50 || core->pool.used); i++) {
        if (core->accept_retry_ms) core->accept_retry_ms = core->now_ms;
        if (i > 500) core->clock_start_ms -= 500; /* one that the host paused before it spoke ends by its deadlines */
        turn(fuzz);
    }
    CHECK(core->pool.used == 0);
    CHECK(core->stats->accepts == core->stats->closes);
    CHECK(core->stats->connections_http == 0 && core->stats->event_streams == 0 &&
          core->stats->connections_websocket == 0 && core->stats->backpressure_connections == 0);
    CHECK(core->outbox.used == 0 && core->outbox.bytes == 0 && core->starved.count == 0 && core->wheel.count == 0);
    CHECK(core->dirty.count + core->ready.count + core->ending.count == 0);
    CHECK(core->unfinished_bytes == 0);
    CHECK(core->inflate_bytes == 0);
    /* Every connection that was counted for an address was taken back. */
    for (uint32_t i = 0; core->ip_limit.most && i < sizeof counted / sizeof counted[0]; i++)
        CHECK(rw_ip_limit_count(&core->ip_limit, counted[i]) == 0);
    turn(fuzz); /* tells the end of topics that have just ended */
    CHECK(rw_topics_count(core->topics) == 0 && rw_topics_changes(core->topics) == 0 && fuzz->topics == 0 &&
          rw_sim_borrowed(core->ring) == 0);
    uint64_t used = 0;
    for (uint32_t i = 0; i < RW_BUFFER_CLASSES; i++) used += rw_buffers_stats(core->buffers, i).used;
    CHECK(used == rw_publications_buffers(core) + (core->ws->ping_frame ? 1u : 0u));
    for (uint32_t i = 0; i < SLOTS; i++) expect_told(fuzz, i);
    CHECK(core->listeners[0].connections == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    static struct fuzz fuzz;
    memset(&fuzz, 0, sizeof fuzz);
    open_core(&fuzz, &input);
    int leave_quietly = (take(&input) & 7) != 0;
    for (uint32_t i = 0; i < OPS_MAX && input.at < input.end; i++) step(&fuzz, &input);
    if (leave_quietly) expect_nothing_left(&fuzz);
    rw_core_destroy(fuzz.core);
    return 0;
}
