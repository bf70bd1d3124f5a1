/* TLS, compression, fragments, publishes, drops and listeners that come and go, all at once, on a ring that splits,
 * delays and fails by a seed.
 *
 * Sockets of plain and of TLS clients send and get numbered messages; the host publishes, sends whole and in fragments,
 * answers late for server names, unlistens, terminates; clients stop reading, or vanish. What a client got is judged as
 * it comes: every message exact, publishes and messages of its own each in order; and when its connection ends in
 * order, that what it got and what was told as dropped is all there was. Seeds run from 1; RW_SEED=n runs one, nearly
 * the same each time: OpenSSL's randomness changes a length here and there. */

#include "deflate_client.h"
#include "seeds.h"
#include "tls_fixture.h"

#include "connection/tls.h"

enum {
    CLIENTS = 10,
    SLOTS = 6,
    SEEDS = 12,
    STEPS_MAX = 12000,
    LISTENERS = 2,
    FIRST_LISTENER = 3,
    MESSAGE_MAX = 70100,
    NAME_WAITS_MAX = 16
};

enum stage { AWAY, SHAKING, ASKING, OPEN, GONE };

struct participant {
    struct client client;
    enum stage stage;
    /* hurt: it may end early, with less than all */
    uint8_t deflate, opened, closed, closing, hurt, shut, fragmenting, answered_close;
    struct rw_event at;
    uint32_t behavior;
    uint32_t sent, received;      /* messages of the client, and how many of them the host had */
    uint32_t given, got, dropped; /* messages for the client: by the host, by its own count, told as dropped */
    uint32_t first_publish, next_publish, next_direct, directs;
    uint32_t fragment_left, fragment_serial;
    uint8_t *partial; /* of a message in frames */
    size_t partial_bytes;
    uint8_t partial_first;
};

struct mix {
    struct host *host;
    uint64_t random;
    uint32_t step, calm_after, publishes, connects, disconnects, started;
    int32_t fds[LISTENERS];
    uint8_t tls[LISTENERS], stopped[LISTENERS];
    struct participant clients[CLIENTS];
    struct rw_event asking[NAME_WAITS_MAX];
    uint32_t asking_count;
};

static uint64_t below(struct mix *mix, uint64_t bound) {
    uint64_t z = mix->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % bound;
}

static int calm(const struct mix *mix) { return mix->step > mix->calm_after; }

/* ---------------------------------------------------------------- messages
 * Kind, number, and text that follows from both. */

static size_t message_of(uint8_t *out, char kind, uint32_t number) {
    size_t bytes = 5 + (number * 2654435761u >> 8) % (number % 61 == 5 ? MESSAGE_MAX - 5 : number % 3 ? 60 : 3000);
    out[0] = (uint8_t)kind;
    memcpy(out + 1, &number, 4);
    fill_text(out + 5, bytes - 5, number * 31u + (uint8_t)kind);
    return bytes;
}

/* ret: the number of this message, which must be exact */
static uint32_t expect_message_of(const uint8_t *bytes, size_t count, char kind) {
    static uint8_t expected[MESSAGE_MAX];
    uint32_t number;
    assert_true(count >= 5 && bytes[0] == (uint8_t)kind);
    memcpy(&number, bytes + 1, 4);
    assert_int_equal(message_of(expected, kind, number), count);
    assert_memory_equal(bytes, expected, count);
    return number;
}

/* ---------------------------------------------------------------- the host */

static struct participant *participant_of(struct mix *mix, const struct rw_event *event) {
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct participant *one = &mix->clients[i];
        if (one->at.generation && one->at.generation == event->generation && one->at.slot == event->slot) return one;
    }
    fail_msg("event %u of a connection nobody has", event->type);
    return NULL;
}

static void on_request(struct mix *mix, const struct rw_event *event, const uint8_t *payload) {
    uint32_t host_bytes = event->arg0 >> 16;
    uint32_t id = (uint32_t)(payload[host_bytes + 1] - '0');
    assert_in_range(id, 0, CLIENTS - 1);
    struct participant *one = &mix->clients[id];
    one->at = *event;
    uint8_t data[64];
    size_t offer = one->deflate ? strlen(BROWSER) : 0;
    memcpy(data, BROWSER, offer);
    int quiet = below(mix, 2) != 0;
    struct rw_command upgrade = {.type = RW_COMMAND_UPGRADE,
                                 .flags = quiet ? RW_UPGRADE_QUIET : 0,
                                 .arg0 = one->behavior,
                                 .arg1 = (uint32_t)offer};
    host_answer(mix->host, event, upgrade, data, offer);
    one->opened = quiet & 1;
    host_topic(mix->host, event, RW_COMMAND_SUBSCRIBE, "t");
    one->first_publish = one->next_publish = mix->publishes;
}

static void on_close(struct participant *one, const struct rw_event *event) {
    assert_true(one->opened && !one->closed);
    one->closed = 1;
    if (event->arg1 != RW_CLOSE_BY_HOST || event->arg0 != 1000) one->hurt = 1;
    assert_true(event->arg1 == RW_CLOSE_BY_HOST || event->arg1 == RW_CLOSE_PEER_GONE ||
                event->arg1 == RW_CLOSE_BACKPRESSURE);
}

static void on_event(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    struct mix *mix = host->context;
    switch ((enum rw_event_type)event->type) {
        case RW_EVENT_CONNECT: mix->connects++; return;
        case RW_EVENT_DISCONNECT: mix->disconnects++; return;
        case RW_EVENT_SERVER_NAME:
            assert_in_range(mix->asking_count, 0, NAME_WAITS_MAX - 1);
            mix->asking[mix->asking_count++] = *event;
            return;
        case RW_EVENT_REQUEST: on_request(mix, event, payload); return;
        default: break;
    }
    struct participant *one = participant_of(mix, event);
    assert_false(one->closed);
    switch ((enum rw_event_type)event->type) {
        case RW_EVENT_OPEN:
            assert_false(one->opened);
            one->opened = 1;
            break;
        case RW_EVENT_MESSAGE: assert_int_equal(expect_message_of(payload, event->bytes, 'c'), one->received++); break;
        case RW_EVENT_DROPPED:
            if (event->flags & RW_DROPPED_PAYLOAD) {
                (void)expect_message_of(payload, event->bytes, (char)payload[0]);
                assert_true(payload[0] == 'p' || payload[0] == 'd');
                one->dropped++;
            } else {
                one->dropped += event->arg0;
            }
            break;
        case RW_EVENT_WS_DRAIN: break;
        case RW_EVENT_CLOSE: on_close(one, event); break;
        case RW_EVENT_ABORT: /* it left before it was accepted */
            assert_true(one->hurt);
            one->opened = one->closed = 0;
            one->closing = 1;
            break;
        default: fail_msg("event %u was not asked for", event->type);
    }
}

static int takes_messages(const struct participant *one) {
    return one->at.generation && one->opened && !one->closed && !one->closing;
}

static void publish(struct mix *mix) {
    static uint8_t payload[MESSAGE_MAX];
    size_t bytes = message_of(payload, 'p', mix->publishes++);
    host_publish(mix->host, NULL, "t", below(mix, 3) ? RW_SEND_COMPRESS : 0, payload, bytes);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct participant *one = &mix->clients[i];
        if (one->at.generation && !one->closed && !one->closing) one->given++;
    }
}

/* The next fragment; the last one ends the message. */
static void send_fragment(struct mix *mix, struct participant *one) {
    static uint8_t payload[MESSAGE_MAX];
    size_t bytes = message_of(payload, 'd', one->fragment_serial);
    uint32_t at = (uint32_t)bytes - one->fragment_left;
    uint32_t piece = (uint32_t)below(mix, one->fragment_left + 1);
    if (calm(mix)) piece = one->fragment_left;
    uint32_t flags = one->fragmenting == 1 ? RW_SEND_FIRST | (below(mix, 2) ? RW_SEND_COMPRESS : 0) : RW_SEND_CONTINUE;
    one->fragment_left -= piece;
    if (one->fragmenting != 1 && one->fragment_left == 0) flags |= RW_SEND_LAST;
    one->fragmenting = flags & RW_SEND_LAST ? 0 : 2;
    host_send(mix->host, &one->at, flags, payload + at, piece);
}

static void send_direct(struct mix *mix, struct participant *one) {
    static uint8_t payload[MESSAGE_MAX];
    size_t bytes = message_of(payload, 'd', one->directs);
    one->given++;
    if (!one->fragmenting && below(mix, 8) == 0) {
        one->fragmenting = 1;
        one->fragment_serial = one->directs++;
        one->fragment_left = (uint32_t)bytes;
        send_fragment(mix, one);
        return;
    }
    one->directs++;
    host_send(mix->host, &one->at, below(mix, 2) ? RW_SEND_COMPRESS : 0, payload, bytes);
}

static void command(struct mix *mix, const struct participant *one, enum rw_command_type type, uint32_t arg0) {
    host_answer(mix->host, &one->at, (struct rw_command){.type = (uint16_t)type, .arg0 = arg0}, "", 0);
}

static void listener_step(struct mix *mix) {
    struct rw_core *core = mix->host->core;
    uint32_t i = (uint32_t)below(mix, LISTENERS);
    if (!mix->stopped[i] && !calm(mix) && below(mix, 100) == 0) {
        assert_int_equal(rw_core_unlisten(core, FIRST_LISTENER + i), RW_OK);
        mix->stopped[i] = 1;
        if (below(mix, 12) == 0) {
            assert_true(rw_core_terminate_listener(core, FIRST_LISTENER + i) >= 0);
            for (uint32_t k = 0; k < CLIENTS; k++) mix->clients[k].hurt |= mix->clients[k].stage != AWAY;
        }
    } else if (mix->stopped[i] && !core->listeners[FIRST_LISTENER + i].used && (calm(mix) || below(mix, 20) == 0)) {
        struct rw_tls_options options = certificate_options(&leaf);
        if (mix->tls[i]) assert_int_equal(rw_core_listener_tls(core, FIRST_LISTENER + i, &options, NULL, 0), RW_OK);
        assert_int_equal(rw_core_listen(core, mix->fds[i], FIRST_LISTENER + i,
                                        RW_LISTENER_WANTS_CONNECT | RW_LISTENER_WANTS_SERVER_NAME),
                         RW_OK);
        mix->stopped[i] = 0;
    }
}

static void host_step(struct mix *mix) {
    listener_step(mix);
    if (!calm(mix) && below(mix, 4) == 0) {
        for (uint64_t burst = below(mix, 6); burst; burst--) publish(mix);
    }
    for (uint32_t i = 0; i < mix->asking_count;) {
        if (!calm(mix) && below(mix, 3)) {
            i++;
            continue;
        }
        host_answer(mix->host, &mix->asking[i], (struct rw_command){.type = RW_COMMAND_SERVER_NAME}, "", 0);
        mix->asking[i] = mix->asking[--mix->asking_count];
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct participant *one = &mix->clients[i];
        if (!takes_messages(one)) continue;
        if (one->fragmenting && (calm(mix) || below(mix, 2))) {
            send_fragment(mix, one);
        } else if (!calm(mix) && below(mix, 5) == 0) {
            send_direct(mix, one);
        } else if (!calm(mix) && below(mix, 8000) == 0) {
            command(mix, one, RW_COMMAND_TERMINATE, 0);
            one->hurt = one->closing = 1;
        } else if (!calm(mix) && below(mix, 60) == 0) {
            command(mix, one, below(mix, 2) ? RW_COMMAND_PAUSE : RW_COMMAND_RESUME, 0);
        } else if (calm(mix) && !one->fragmenting) {
            command(mix, one, RW_COMMAND_RESUME, 0);
            command(mix, one, RW_COMMAND_WS_CLOSE, 1000);
            one->closing = 1;
        }
    }
}

/* ---------------------------------------------------------------- the clients */

static void start(struct mix *mix, struct participant *one, uint32_t id) {
    uint32_t i = (uint32_t)below(mix, LISTENERS);
    mix->host->listener = mix->fds[i];
    one->deflate = below(mix, 3) != 0;
    one->behavior = 1 + (uint32_t)below(mix, 3);
    one->stage = SHAKING;
    one->client.peer = peer_connect_to(mix->host, 0);
    if (mix->tls[i])
        (void)tls_dress(one->client.peer, below(mix, 2) ? client12 : client13, below(mix, 2) ? "unknown.test" : NULL);
    if (id == 0) mix->host->listener = mix->fds[0];
}

static int32_t fd_of(const struct participant *one) { return one->client.peer->fd; }

static void ask(struct mix *mix, struct participant *one) {
    char head[512];
    int bytes =
        snprintf(head, sizeof head, "GET /%u%s", (uint32_t)(one - mix->clients), WS_REQUEST + strlen("GET /ws"));
    peer_send(mix->host, one->client.peer, head, (size_t)bytes);
    one->stage = ASKING;
}

/* The answer to the upgrade, once it is whole. */
static void take_head(struct participant *one) {
    struct peer *peer = one->client.peer;
    const uint8_t *end = peer->in_bytes ? memmem(peer->in, peer->in_bytes, "\r\n\r\n", 4) : NULL;
    if (!end) return;
    size_t bytes = (size_t)(end - peer->in) + 4;
    assert_in_range(bytes, 16, sizeof peer->head - 1);
    memcpy(peer->head, peer->in, bytes);
    peer->head[bytes] = 0;
    peer_consume(peer, bytes);
    assert_memory_equal(peer->head, "HTTP/1.1 101 ", 13);
    int agreed = strstr(peer->head, "permessage-deflate") != NULL;
    if (!agreed) one->deflate = 0;
    zlib_peer_begin(&one->client.zlib, (int)window_in(peer->head, "client_max_window_bits="),
                    (int)window_in(peer->head, "server_max_window_bits="));
    one->client.zlib.send_takeover = !strstr(peer->head, "client_no_context_takeover");
    one->client.zlib.receive_takeover = !strstr(peer->head, "server_no_context_takeover");
    one->stage = OPEN;
}

static void on_message(struct participant *one, const uint8_t *bytes, size_t count) {
    assert_true(count >= 5);
    if (bytes[0] == 'p') {
        uint32_t number = expect_message_of(bytes, count, 'p');
        assert_true(number >= one->next_publish);
        one->next_publish = number + 1;
    } else {
        uint32_t number = expect_message_of(bytes, count, 'd');
        assert_true(number < one->directs);
        /* A message in fragments ends before those that were given behind its first. */
        assert_true(number >= one->next_direct);
        one->next_direct = number + 1;
    }
    one->got++;
}

static void on_frame(struct mix *mix, struct participant *one, uint8_t first, const uint8_t *payload, size_t bytes) {
    uint32_t opcode = first & 0x0F;
    if (opcode == RW_WS_OP_CLOSE) {
        if (!one->answered_close) peer_send_frame(mix->host, one->client.peer, FIN_CLOSE, payload, bytes >= 2 ? 2 : 0);
        one->answered_close = 1;
        return;
    }
    assert_true(opcode == RW_WS_OP_BINARY || opcode == RW_WS_OP_CONTINUATION);
    assert_int_equal(opcode == RW_WS_OP_CONTINUATION, one->partial != NULL);
    if (opcode == RW_WS_OP_BINARY) one->partial_first = first;
    one->partial = realloc(one->partial, one->partial_bytes + bytes + 1);
    assert_non_null(one->partial);
    memcpy(one->partial + one->partial_bytes, payload, bytes);
    one->partial_bytes += bytes;
    if (!(first & 0x80)) return;
    if (one->partial_first & 0x40) {
        assert_true(one->deflate);
        size_t count = zlib_peer_inflate(&one->client.zlib, one->partial, one->partial_bytes);
        on_message(one, one->client.zlib.out, count);
    } else {
        on_message(one, one->partial, one->partial_bytes);
    }
    free(one->partial);
    one->partial = NULL;
    one->partial_bytes = 0;
}

static void take_frames(struct mix *mix, struct participant *one) {
    struct peer *peer = one->client.peer;
    while (peer->in_bytes >= 2) {
        size_t header = peer->in[1] == 126 ? 4 : peer->in[1] == 127 ? 10 : 2;
        if (peer->in_bytes < header) return;
        uint64_t bytes = header == 2 ? peer->in[1] : 0;
        for (size_t i = 2; i < header; i++) bytes = bytes << 8 | peer->in[i];
        if (peer->in_bytes - header < bytes) return;
        uint8_t first = peer->in[0];
        peer_consume(peer, header);
        on_frame(mix, one, first, peer->in, (size_t)bytes);
        peer_consume(peer, (size_t)bytes);
    }
}

static void say(struct mix *mix, struct participant *one) {
    static uint8_t payload[MESSAGE_MAX];
    size_t bytes = message_of(payload, 'c', one->sent++);
    if (one->deflate && below(mix, 2)) {
        client_send(mix->host, &one->client, RSV1_BINARY, payload, bytes);
    } else {
        peer_send_frame(mix->host, one->client.peer, FIN_BINARY, payload, bytes);
    }
}

static void client_end(struct participant *one) {
    /* In order: everything has come, or was told as dropped. */
    if (one->at.generation && !one->hurt) {
        assert_true(one->closed && one->stage == OPEN && one->answered_close);
        assert_int_equal(one->got + one->dropped, one->given);
        assert_null(one->partial);
    }
    if (one->stage == OPEN) client_free(&one->client);
    free(one->partial);
    one->partial = NULL;
    one->client.peer->closed = 1;
    one->stage = GONE;
}

static void client_step(struct mix *mix, struct participant *one) {
    struct rw_ring *ring = mix->host->core->ring;
    struct peer *peer = one->client.peer;
    if (one->stage == SHAKING) {
        int shaken = 1;
        if (peer->layer) {
            struct tls_peer *tls = tls_of(peer);
            tls_feed(mix->host, tls);
            int result = SSL_do_handshake(tls->ssl);
            if (result != 1) tls_note(tls, result);
            tls_push(mix->host, peer);
            shaken = result == 1;
        }
        if (shaken) ask(mix, one);
    } else {
        peer_pull(mix->host, peer);
        if (one->stage == ASKING) take_head(one);
        if (one->stage == OPEN) take_frames(mix, one);
    }
    if (rw_sim_is_closed(ring, fd_of(one))) {
        /* What was told at last comes with a later turn. */
        if (!one->at.generation || one->closed || !one->opened) client_end(one);
        return;
    }
    /* A ring that gives a few bytes a turn must not fall behind for ever. */
    int keeps_up = one->sent - one->received < 3;
    if (one->stage == OPEN && !calm(mix) && keeps_up && !one->answered_close && below(mix, 6) == 0) say(mix, one);
    if (one->answered_close && !one->shut) {
        rw_sim_peer_shutdown(ring, fd_of(one));
        one->shut = 1;
    }
    if (calm(mix)) {
        rw_sim_peer_window(ring, fd_of(one), SIZE_MAX);
    } else if (below(mix, 10) == 0) {
        rw_sim_peer_window(ring, fd_of(one), below(mix, 3) ? SIZE_MAX : (size_t)below(mix, 9000));
    }
    if (!calm(mix) && below(mix, 5000) == 0) {
        one->hurt = 1;
        rw_sim_peer_reset(ring, fd_of(one));
    }
}

/* ---------------------------------------------------------------- one seed */

static void open_mix(struct mix *mix, uint64_t seed) {
    mix->random = seed;
    struct rw_core_config config = {.max_connections = SLOTS,
                                    .recv_buffers = 1u << below(mix, 5),
                                    .recv_buffer_bytes = 64u << below(mix, 8),
                                    .write_timeout_ms = 1u << 28,
                                    .head_timeout_ms = 1u << 28,
                                    .keep_alive_timeout_ms = 1u << 28};
    mix->host = host_open_seeded(RW_BACKEND_SIM, &config, seed);
    mix->host->handler = on_event;
    mix->host->context = mix;
    uint32_t flags =
        RW_BEHAVIOR_WANTS_DROPPED | RW_BEHAVIOR_WANTS_DRAIN | (below(mix, 3) ? RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD : 0);
    static const uint32_t deflates[3] = {SHARED, DEDICATED, COMPRESSOR(10u, 3u) | SHARED_DECOMPRESSOR};
    for (uint32_t i = 0; i < 3; i++) {
        host_behavior(mix->host, 1 + i,
                      (struct rw_behavior){.max_backpressure_bytes = 4000u << below(mix, 6),
                                           .flags = flags,
                                           .deflate = deflates[i],
                                           .close_timeout_ms = 1u << 28,
                                           .deflate_min_bytes = (uint32_t)below(mix, 100)});
    }
    struct rw_core *core = mix->host->core;
    struct rw_sim_faults faults = {.recv_split = (uint16_t)below(mix, 900),
                                   .send_split = (uint16_t)below(mix, 900),
                                   .delay = (uint16_t)below(mix, 700),
                                   .no_buffers = (uint16_t)below(mix, 200),
                                   .recv_unarmed = (uint16_t)below(mix, 200),
                                   .accept_error = (uint16_t)below(mix, 200),
                                   .late = (uint16_t)below(mix, 1000)};
    rw_sim_faults_set(core->ring, &faults);
    mix->fds[0] = mix->host->listener;
    assert_int_equal(
        rw_core_listener_flags(core, FIRST_LISTENER, RW_LISTENER_WANTS_CONNECT | RW_LISTENER_WANTS_SERVER_NAME), RW_OK);
    for (uint32_t i = 0; i < LISTENERS; i++) {
        mix->tls[i] = i == 1 || below(mix, 2);
        struct rw_tls_options options = certificate_options(&leaf);
        if (mix->tls[i]) assert_int_equal(rw_core_listener_tls(core, FIRST_LISTENER + i, &options, NULL, 0), RW_OK);
        if (i == 0) continue;
        mix->fds[i] = rw_sim_listen(core->ring);
        assert_int_equal(rw_core_listen(core, mix->fds[i], FIRST_LISTENER + i,
                                        RW_LISTENER_WANTS_CONNECT | RW_LISTENER_WANTS_SERVER_NAME),
                         RW_OK);
    }
    mix->calm_after = 300 + (uint32_t)below(mix, 1500);
}

static void run_seed(uint64_t seed) {
    struct mix *mix = calloc(1, sizeof *mix);
    assert_non_null(mix);
    open_mix(mix, seed);
    struct rw_core *core = mix->host->core;
    uint32_t gone = 0;
    for (; gone < CLIENTS; mix->step++) {
        if (mix->step >= STEPS_MAX) fail_msg("seed %llu does not come to an end", (unsigned long long)seed);
        gone = 0;
        for (uint32_t i = 0; i < CLIENTS; i++) {
            struct participant *one = &mix->clients[i];
            if (one->stage == AWAY && (calm(mix) || below(mix, 25) == 0)) start(mix, one, i);
            if (one->stage != AWAY && one->stage != GONE) client_step(mix, one);
            gone += one->stage == GONE;
        }
        host_step(mix);
        core->clock_start_ms = test_now_ms() - mix->step / 16; /* time is turns here */
        if (core->accept_retry_ms) core->accept_retry_ms = core->now_ms;
        host_turn(mix->host);
    }
    uint64_t end = test_now_ms() + 10000;
    while (rw_core_connections(core) && test_now_ms() < end) host_turn(mix->host);
    host_turns(mix->host, 3);
    assert_int_equal(mix->connects, core->stats->accepts);
    assert_int_equal(mix->disconnects, core->stats->accepts);
    for (uint32_t i = 0; i < LISTENERS; i++) {
        assert_int_equal(core->listeners[FIRST_LISTENER + i].connections, 0);
        if (core->listeners[FIRST_LISTENER + i].tls) assert_int_equal(core->listeners[FIRST_LISTENER + i].tls->refs, 1);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) assert_int_equal(mix->clients[i].opened, mix->clients[i].closed);
    host_close(mix->host);
    free(mix);
}

static void every_client_gets_all_that_was_not_told_as_dropped(void **state) {
    (void)state;
    run_seeds(SEEDS, run_seed);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_client_gets_all_that_was_not_told_as_dropped)};
    watch_seeds("core_mix_test");
    int failed = cmocka_run_group_tests_name("everything at once on an unkind ring", tests, make_certificates,
                                             free_certificates);
    say_seed();
    return failed;
}
