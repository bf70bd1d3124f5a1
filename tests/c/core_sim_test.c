/* The core against a model, on a ring that splits, delays, reorders and fails by a seed.
 *
 * Peers play scripts (HTTP requests with bodies, or a WebSocket's messages) whose bytes go in pieces; a host answers,
 * echoes, publishes, pauses and terminates at random. What a peer received is judged when its connection is over:
 * everything that had to come, in order and exactly; only after a reset or a termination may it end early, and then as
 * a prefix. Seeds run from 1; RW_SEED=n runs one. */

#include "core_fixture.h"
#include "seeds.h"

enum {
    LANES = 6,
    ROUNDS = 3,
    INSTANCES = LANES * ROUNDS,
    STEPS_MAX = 20000,
    SEEDS = 300,
    REQUESTS_MAX = 8,
    MESSAGES_MAX = 16,
    SLOTS = 5
};

struct request {
    uint32_t body_bytes, body_seen;
    uint8_t arrived, answered, aborted, body_done;
};

struct instance {
    int32_t fd;
    uint8_t websocket, connected, hurt, shut, over; /* hurt: reset or terminated, so that it may end early */
    uint8_t *script;
    size_t script_bytes, script_at, script_capacity;
    uint8_t *out;
    size_t out_bytes, out_capacity;
    uint32_t slot, generation; /* from its first event */
    uint32_t request_count, requests_seen;
    struct request requests[REQUESTS_MAX + 1];
    uint32_t message_count, messages_seen;
    uint32_t message_bytes[MESSAGES_MAX];
    uint32_t first_publish;
    uint8_t opened, closed, paused;
    /* A streamed response under way: */
    uint32_t streaming, stream_left;
};

struct world {
    struct host *host;
    uint64_t random, seed;
    struct instance instances[INSTANCES];
    struct rw_event waiting[64]; /* requests not answered yet */
    uint32_t waiting_count;
    uint32_t publishes;
};

static uint64_t below(struct world *world, uint64_t bound) {
    uint64_t z = world->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % bound;
}

static uint8_t octet_of(uint32_t instance, uint32_t number, uint32_t i) {
    return (uint8_t)('!' + (instance * 7 + number * 13 + i * 3 + (i >> 6)) % 90);
}

static void pattern(uint8_t *out, uint32_t instance, uint32_t number, uint32_t from, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) out[i] = octet_of(instance, number, from + i);
}

static uint32_t response_bytes(uint32_t instance, uint32_t number) {
    return (instance * 131 + number * 977) % 5 == 0 ? 20000 : (instance * 31 + number * 7) % 900;
}

/* ---------------------------------------------------------------- scripts */

static void script_add(struct instance *instance, const void *bytes, size_t count) {
    if (instance->script_bytes + count > instance->script_capacity) {
        instance->script_capacity = (instance->script_bytes + count) * 2;
        instance->script = realloc(instance->script, instance->script_capacity);
        assert_non_null(instance->script);
    }
    if (count) memcpy(instance->script + instance->script_bytes, bytes, count);
    instance->script_bytes += count;
}

static void script_text(struct instance *instance, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void script_text(struct instance *instance, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert_in_range(length, 0, sizeof text - 1);
    script_add(instance, text, (size_t)length);
}

static void script_http(struct world *world, struct instance *instance, uint32_t id) {
    uint8_t body[6000];
    instance->request_count = 1 + (uint32_t)below(world, REQUESTS_MAX);
    for (uint32_t n = 1; n <= instance->request_count; n++) {
        uint32_t bytes = below(world, 3) ? 0 : (uint32_t)below(world, below(world, 4) ? 200 : sizeof body);
        int chunked = bytes > 0 && below(world, 2);
        instance->requests[n].body_bytes = bytes;
        pattern(body, id, n, 0, bytes);
        script_text(instance, "POST /%u/%u HTTP/1.1\r\nHost: a\r\n", id, n);
        if (!chunked) {
            script_text(instance, bytes || below(world, 2) ? "Content-Length: %u\r\n\r\n" : "X-Nothing: %u\r\n\r\n",
                        bytes);
            script_add(instance, body, bytes);
            continue;
        }
        script_text(instance, "Transfer-Encoding: chunked\r\n\r\n");
        for (uint32_t at = 0; at < bytes;) {
            uint32_t piece = 1 + (uint32_t)below(world, 300);
            if (piece > bytes - at) piece = bytes - at;
            script_text(instance, "%x\r\n", piece);
            script_add(instance, body + at, piece);
            script_text(instance, "\r\n");
            at += piece;
        }
        script_text(instance, "0\r\n\r\n");
    }
}

static void script_frame(struct instance *instance, uint8_t first, const uint8_t *payload, size_t bytes) {
    uint8_t *frame = malloc(bytes + 14);
    assert_non_null(frame);
    script_add(instance, frame, ws_client_frame(frame, first, payload, bytes));
    free(frame);
}

static void script_websocket(struct world *world, struct instance *instance, uint32_t id) {
    script_text(instance,
                "GET /%u/1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
                "13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
                id);
    instance->message_count = (uint32_t)below(world, MESSAGES_MAX);
    uint8_t *payload = malloc(80000);
    assert_non_null(payload);
    for (uint32_t k = 0; k < instance->message_count; k++) {
        uint32_t bytes = (uint32_t)below(world, below(world, 30) ? below(world, 6) ? 150 : 3000 : 80000);
        instance->message_bytes[k] = bytes;
        pattern(payload, id, k, 0, bytes);
        uint8_t opcode = RW_WS_OP_TEXT;
        uint32_t at = 0;
        while (below(world, 3) == 0 && at < bytes) {
            uint32_t piece = (uint32_t)below(world, bytes - at);
            script_frame(instance, opcode, payload + at, piece);
            opcode = RW_WS_OP_CONTINUATION;
            at += piece;
            if (below(world, 2)) script_frame(instance, 0x89, (const uint8_t *)"ping", 4);
        }
        script_frame(instance, 0x80 | opcode, payload + at, bytes - at);
    }
    script_frame(instance, 0x88, (const uint8_t *)"\x03\xE8", 2);
    free(payload);
}

/* ---------------------------------------------------------------- the host */

static struct instance *instance_of(struct world *world, const struct rw_event *event) {
    for (uint32_t i = 0; i < INSTANCES; i++) {
        struct instance *instance = &world->instances[i];
        if (instance->generation == event->generation && instance->slot == event->slot && instance->generation)
            return instance;
    }
    fail_msg("an event of a connection nobody has");
    return NULL;
}

static uint32_t id_of(const struct world *world, const struct instance *instance) {
    return (uint32_t)(instance - world->instances);
}

static void hurt(struct instance *instance) { instance->hurt = 1; }

static void on_request(struct world *world, const struct rw_event *event, const uint8_t *payload) {
    uint32_t id = 0, number = 0;
    char target[32] = "";
    uint32_t host_bytes = event->arg0 >> 16, target_bytes = event->arg0 & 0xFFFF;
    assert_in_range(target_bytes, 4, sizeof target - 1);
    memcpy(target, payload + host_bytes, target_bytes);
    assert_int_equal(sscanf(target, "/%u/%u", &id, &number), 2);
    assert_in_range(id, 0, INSTANCES - 1);
    struct instance *instance = &world->instances[id];
    if (number == 1) {
        assert_int_equal(instance->generation, 0);
        instance->slot = event->slot;
        instance->generation = event->generation;
    }
    assert_int_equal(instance->slot, event->slot);
    assert_int_equal(instance->generation, event->generation);
    assert_int_equal(number, ++instance->requests_seen);
    assert_int_equal(event->request, number);
    assert_false(instance->opened || instance->closed);
    if (number > 1) assert_true(instance->requests[number - 1].answered);
    instance->requests[number].arrived = 1;
    assert_int_equal((event->flags & RW_REQUEST_HAS_BODY) != 0, instance->requests[number].body_bytes > 0);
    assert_int_equal((event->flags & RW_REQUEST_UPGRADE) != 0, instance->websocket);
    assert_in_range(world->waiting_count, 0, 63);
    world->waiting[world->waiting_count++] = *event;
}

static void on_body(struct world *world, const struct rw_event *event, const uint8_t *payload) {
    struct instance *instance = instance_of(world, event);
    struct request *request = &instance->requests[event->request];
    assert_int_equal(event->request, instance->requests_seen);
    assert_false(request->aborted || request->body_done);
    assert_true(request->body_seen + event->bytes <= request->body_bytes);
    for (uint32_t i = 0; i < event->bytes; i++)
        assert_int_equal(payload[i], octet_of(id_of(world, instance), event->request, request->body_seen + i));
    request->body_seen += event->bytes;
    if (event->flags & RW_BODY_END) {
        assert_int_equal(request->body_seen, request->body_bytes);
        request->body_done = 1;
    }
    uint16_t kept = event->request & 1 ? RW_BODY_KEPT : 0;
    host_answer(world->host, event,
                (struct rw_command){.type = RW_COMMAND_BODY_ACK, .flags = kept, .arg0 = event->bytes}, "", 0);
}

static void on_event(struct host *host, const struct rw_event *event, const uint8_t *payload) {
    struct world *world = host->context;
    if (event->type == RW_EVENT_REQUEST) {
        on_request(world, event, payload);
        return;
    }
    struct instance *instance = instance_of(world, event);
    assert_false(instance->closed); /* nothing after CLOSE */
    switch ((enum rw_event_type)event->type) {
        case RW_EVENT_BODY: on_body(world, event, payload); break;
        case RW_EVENT_ABORT:
            assert_true(instance->hurt || instance->shut);
            assert_false(instance->requests[event->request].aborted);
            instance->requests[event->request].aborted = 1;
            instance->streaming = 0;
            break;
        case RW_EVENT_OPEN:
            assert_true(instance->websocket && !instance->opened);
            instance->opened = 1;
            host_topic(host, event, RW_COMMAND_SUBSCRIBE, "t");
            instance->first_publish = world->publishes;
            break;
        case RW_EVENT_MESSAGE: {
            assert_true(instance->opened && instance->messages_seen < instance->message_count);
            uint32_t k = instance->messages_seen++;
            assert_int_equal(event->bytes, instance->message_bytes[k]);
            for (uint32_t i = 0; i < event->bytes; i++)
                assert_int_equal(payload[i], octet_of(id_of(world, instance), k, i));
            host_send(host, event, RW_SEND_TEXT, payload, event->bytes);
            break;
        }
        case RW_EVENT_CLOSE:
            assert_true(instance->opened);
            if (!instance->hurt) assert_int_equal(event->arg0, 1000);
            instance->closed = 1;
            break;
        case RW_EVENT_RESPONSE_DRAIN: break;
        default: fail_msg("event %u was not asked for", event->type);
    }
}

static void respond(struct world *world, const struct rw_event *request) {
    struct instance *instance = instance_of(world, request);
    uint32_t id = id_of(world, instance), number = request->request;
    if (instance->websocket) {
        host_answer(world->host, request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 1}, "", 0);
        return;
    }
    uint32_t bytes = response_bytes(id, number);
    uint8_t body[20000];
    pattern(body, id, number, 0, bytes);
    instance->requests[number].answered = 1;
    if (below(world, 2)) {
        host_answer(world->host, request, (struct rw_command){.type = RW_COMMAND_RESPOND, .arg0 = 200}, body, bytes);
        return;
    }
    int sized = below(world, 2) != 0;
    host_answer(
        world->host, request,
        (struct rw_command){
            .type = RW_COMMAND_RESPOND_BEGIN, .flags = sized ? RW_RESPOND_SIZED : 0, .arg0 = 200, .arg1 = bytes},
        "", 0);
    instance->streaming = number;
    instance->stream_left = bytes;
}

static void stream_on(struct world *world, struct instance *instance) {
    uint32_t id = id_of(world, instance), number = instance->streaming, total = response_bytes(id, number);
    struct rw_event request = {.type = RW_EVENT_REQUEST,
                               .slot = instance->slot,
                               .generation = instance->generation,
                               .request = (uint16_t)number};
    uint8_t piece[2000];
    uint32_t bytes = 1 + (uint32_t)below(world, sizeof piece);
    if (bytes > instance->stream_left) bytes = instance->stream_left;
    pattern(piece, id, number, total - instance->stream_left, bytes);
    if (bytes) host_answer(world->host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_CHUNK}, piece, bytes);
    instance->stream_left -= bytes;
    if (instance->stream_left) return;
    host_answer(world->host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    instance->streaming = 0;
}

static void publish(struct world *world) {
    uint8_t payload[600];
    uint32_t bytes = 4 + (uint32_t)below(world, below(world, 5) ? 40 : sizeof payload - 4);
    memcpy(payload, &world->publishes, 4);
    pattern(payload + 4, 99, world->publishes, 0, bytes - 4);
    host_publish(world->host, NULL, "t", 0, payload, bytes);
    world->publishes++;
}

static void host_step(struct world *world, int calm) {
    for (uint32_t i = 0; i < world->waiting_count;) {
        if (!calm && below(world, 3)) {
            i++;
            continue;
        }
        struct rw_event request = world->waiting[i];
        world->waiting[i] = world->waiting[--world->waiting_count];
        respond(world, &request);
    }
    if (!calm && below(world, 4) == 0) publish(world);
    for (uint32_t i = 0; i < INSTANCES; i++) {
        struct instance *instance = &world->instances[i];
        if (!instance->generation || instance->over) continue;
        struct rw_event of = {.slot = instance->slot, .generation = instance->generation};
        if (instance->streaming && (calm || below(world, 2))) stream_on(world, instance);
        if (instance->paused ? calm || below(world, 4) == 0 : !calm && below(world, 30) == 0) {
            instance->paused = !instance->paused;
            host_answer(world->host, &of,
                        (struct rw_command){.type = instance->paused ? RW_COMMAND_PAUSE : RW_COMMAND_RESUME}, "", 0);
        }
        if (!calm && below(world, 3000) == 0) {
            host_answer(world->host, &of, (struct rw_command){.type = RW_COMMAND_TERMINATE}, "", 0);
            hurt(instance);
        }
    }
}

/* ---------------------------------------------------------------- the peers */

static void peer_step(struct world *world, struct instance *instance, int calm) {
    struct rw_ring *ring = world->host->core->ring;
    for (;;) {
        if (instance->out_capacity - instance->out_bytes < 4096) {
            instance->out_capacity = instance->out_capacity * 2 + 16384;
            instance->out = realloc(instance->out, instance->out_capacity);
            assert_non_null(instance->out);
        }
        size_t took = rw_sim_take(ring, instance->fd, instance->out + instance->out_bytes, 4096);
        instance->out_bytes += took;
        if (!took) break;
    }
    if (rw_sim_is_closed(ring, instance->fd)) {
        instance->over = 1;
        rw_sim_forget(ring, instance->fd); /* the number will be used again */
        return;
    }
    if (!instance->shut) {
        size_t left = instance->script_bytes - instance->script_at;
        size_t piece = calm ? left : (size_t)below(world, below(world, 3) ? 100 : 5000);
        if (piece > left) piece = left;
        rw_sim_push(ring, instance->fd, instance->script + instance->script_at, piece);
        instance->script_at += piece;
        if (instance->script_at == instance->script_bytes && (calm || below(world, 4) == 0)) {
            /* A client that sends no more may be cut off when its response takes long, but this host is quick. */
            rw_sim_peer_shutdown(ring, instance->fd);
            instance->shut = 1;
        }
    }
    if (calm) {
        rw_sim_peer_window(ring, instance->fd, SIZE_MAX);
    } else if (below(world, 10) == 0) {
        rw_sim_peer_window(ring, instance->fd, below(world, 2) ? SIZE_MAX : (size_t)below(world, 500));
    }
    if (!calm && below(world, 600) == 0) {
        rw_sim_peer_reset(ring, instance->fd);
        hurt(instance);
    }
}

/* ---------------------------------------------------------------- judgement */

struct reader {
    const uint8_t *at, *end;
};

static size_t left(const struct reader *reader) { return (size_t)(reader->end - reader->at); }

/* ret: 1 `bytes` octets of the pattern were there, 0 the stream ended first (what was there is right) */
static int read_pattern(struct reader *reader, uint32_t id, uint32_t number, uint32_t from, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) {
        if (reader->at == reader->end) return 0;
        assert_int_equal(*reader->at++, octet_of(id, number, from + i));
    }
    return 1;
}

static int read_line(struct reader *reader, char *line, size_t capacity) {
    const uint8_t *end = left(reader) ? memmem(reader->at, left(reader), "\r\n", 2) : NULL;
    if (!end) return 0;
    assert_true((size_t)(end - reader->at) < capacity);
    memcpy(line, reader->at, (size_t)(end - reader->at));
    line[end - reader->at] = 0;
    reader->at = end + 2;
    return 1;
}

/* ret: 1 a whole response */
static int read_response(struct reader *reader, uint32_t id, uint32_t number) {
    char line[256];
    int64_t length = -1;
    if (!read_line(reader, line, sizeof line)) return 0;
    assert_string_equal(line, "HTTP/1.1 200 OK");
    do {
        if (!read_line(reader, line, sizeof line)) return 0;
        if (strncmp(line, "Content-Length: ", 16) == 0) length = atoll(line + 16);
    } while (line[0]);
    uint32_t bytes = response_bytes(id, number);
    if (length >= 0) {
        assert_int_equal(length, bytes);
        return read_pattern(reader, id, number, 0, bytes);
    }
    for (uint32_t at = 0;;) {
        if (!read_line(reader, line, sizeof line)) return 0;
        uint32_t chunk = (uint32_t)strtoul(line, NULL, 16);
        assert_true(at + chunk <= bytes);
        if (!read_pattern(reader, id, number, at, chunk)) return 0;
        at += chunk;
        if (!read_line(reader, line, sizeof line)) return 0;
        assert_string_equal(line, "");
        if (chunk) continue;
        assert_int_equal(at, bytes);
        return 1;
    }
}

static void judge_http(const struct instance *instance, uint32_t id) {
    struct reader reader = {instance->out, instance->out + instance->out_bytes};
    uint32_t number = 1;
    while (left(&reader) && number <= instance->request_count && read_response(&reader, id, number)) number++;
    if (instance->hurt) return;
    assert_int_equal(number, instance->request_count + 1);
    assert_int_equal(left(&reader), 0);
    for (uint32_t n = 1; n <= instance->request_count; n++) assert_false(instance->requests[n].aborted);
}

/* ret: 1 a whole frame; its payload is judged as far as it has come */
static int read_frame(struct reader *reader, const struct instance *instance, uint32_t id, uint32_t *echoes,
                      uint32_t *publishes, int *closed) {
    if (left(reader) < 2) return 0;
    uint32_t first = reader->at[0], header = reader->at[1] == 126 ? 4 : reader->at[1] == 127 ? 10 : 2;
    if (left(reader) < header) return 0;
    uint32_t bytes = header == 2 ? reader->at[1] : 0;
    for (uint32_t i = 2; i < header; i++) bytes = bytes << 8 | reader->at[i];
    reader->at += header;
    assert_false(*closed);
    switch (first) {
        case 0x81:
            assert_in_range(*echoes, 0, instance->message_count - 1);
            assert_int_equal(bytes, instance->message_bytes[*echoes]);
            return read_pattern(reader, id, (*echoes)++, 0, bytes);
        case 0x82: {
            uint32_t serial;
            if (left(reader) < 4) return 0;
            memcpy(&serial, reader->at, 4);
            reader->at += 4;
            assert_int_equal(serial, instance->first_publish + (*publishes)++);
            return read_pattern(reader, 99, serial, 0, bytes - 4);
        }
        case 0x8A: assert_int_equal(bytes, 4); break;
        case 0x88:
            assert_int_equal(bytes, 2);
            *closed = 1;
            break;
        default: fail_msg("a frame of kind %02x", first);
    }
    if (left(reader) < bytes) return 0;
    assert_memory_equal(reader->at, first == 0x8A ? "ping" : "\x03\xE8", bytes);
    reader->at += bytes;
    return 1;
}

static void judge_websocket(const struct instance *instance, uint32_t id) {
    struct reader reader = {instance->out, instance->out + instance->out_bytes};
    char line[256];
    assert_int_equal(instance->opened, instance->closed); /* OPEN and CLOSE come in pairs */
    do {
        if (!read_line(&reader, line, sizeof line)) {
            assert_true(instance->hurt);
            return;
        }
    } while (line[0]);
    uint32_t echoes = 0, publishes = 0;
    int closed = 0;
    while (left(&reader) && read_frame(&reader, instance, id, &echoes, &publishes, &closed)) {}
    if (instance->hurt) return;
    assert_int_equal(echoes, instance->message_count);
    assert_int_equal(left(&reader), 0);
    assert_true(closed);
}

/* ---------------------------------------------------------------- one seed */

static uint64_t pauses;

static void run_seed(uint64_t seed) {
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->random = world->seed = seed;
    struct rw_core_config config = {.max_connections = SLOTS,
                                    .recv_buffers = 1u << below(world, 5),
                                    .recv_buffer_bytes = 64u << below(world, 7),
                                    .body_window_bytes = 1 + (uint32_t)below(world, 2000),
                                    .response_high_water_bytes = 1000};
    world->host = host_open_seeded(RW_BACKEND_SIM, &config, seed);
    world->host->handler = on_event;
    world->host->context = world;
    struct rw_core *core = world->host->core;
    /* Every fourth seed has a rate that pauses its peers now and then; a step is a millisecond there, so that their
     * debts end. */
    int rated = seed % 4 == 0;
    host_behavior(world->host, 1,
                  rated ? (struct rw_behavior){.messages_per_second = 8,
                                               .bytes_per_second = 40000,
                                               .flags = RW_BEHAVIOR_PAUSE_ON_RATE}
                        : PLAIN);
    struct rw_sim_faults faults = {.recv_split = (uint16_t)below(world, 900),
                                   .send_split = (uint16_t)below(world, 900),
                                   .delay = (uint16_t)below(world, 700),
                                   .no_buffers = (uint16_t)below(world, 200),
                                   .recv_unarmed = (uint16_t)below(world, 200),
                                   .accept_error = (uint16_t)below(world, 200),
                                   .late = (uint16_t)below(world, 1000)};
    rw_sim_faults_set(core->ring, &faults);
    uint32_t done = 0;
    int32_t lanes[LANES];
    for (uint32_t lane = 0; lane < LANES; lane++) lanes[lane] = -1;
    uint32_t next = 0;
    uint32_t calm_after = 100 + (uint32_t)below(world, 3000);
    for (uint32_t step = 0; done < INSTANCES; step++) {
        if (step >= STEPS_MAX) fail_msg("seed %llu does not come to an end", (unsigned long long)seed);
        for (uint32_t lane = 0; lane < LANES; lane++) {
            int calm = step > calm_after;
            if (lanes[lane] < 0 && next < INSTANCES && (calm || below(world, 60) == 0)) {
                struct instance *instance = &world->instances[next];
                instance->websocket = below(world, 2) & 1;
                if (instance->websocket) {
                    script_websocket(world, instance, next);
                } else {
                    script_http(world, instance, next);
                }
                instance->fd = rw_sim_connect(core->ring, world->host->listener);
                lanes[lane] = (int32_t)next++;
            }
            if (lanes[lane] < 0) continue;
            struct instance *instance = &world->instances[lanes[lane]];
            peer_step(world, instance, calm);
            if (!instance->over) continue;
            /* Six peers for five slots: one that was refused has had no event. */
            if (!instance->generation && instance->out_bytes == 0) hurt(instance);
            lanes[lane] = -1;
            done++;
        }
        host_step(world, step > calm_after);
        /* Time is turns here: a slow machine ends nobody's patience, and a listener that is out of descriptors rests
         * for no real time. */
        core->clock_start_ms = test_now_ms() - (rated ? step : step / 16);
        if (core->accept_retry_ms) core->accept_retry_ms = core->now_ms;
        host_turn(world->host);
    }
    uint64_t end = test_now_ms() + 10000;
    while (rw_core_connections(core) && test_now_ms() < end) host_turn(world->host);
    host_turns(world->host, 3);
    for (uint32_t i = 0; i < INSTANCES; i++) {
        struct instance *instance = &world->instances[i];
        if (instance->websocket) {
            judge_websocket(instance, i);
        } else {
            judge_http(instance, i);
        }
        free(instance->script);
        free(instance->out);
    }
    pauses += core->stats->pauses_rate;
    host_close(world->host);
    free(world);
}

static void every_peer_gets_exactly_its_own_answers_whatever_the_ring_does(void **state) {
    (void)state;
    run_seeds(SEEDS, run_seed);
    if (!getenv("RW_SEED")) assert_true(pauses > SEEDS / 4); /* it was tried */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_peer_gets_exactly_its_own_answers_whatever_the_ring_does)};
    watch_seeds("core_sim_test");
    int failed = cmocka_run_group_tests_name("the core on an unkind ring", tests, NULL, NULL);
    say_seed();
    return failed;
}
