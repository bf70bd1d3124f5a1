/* The host, see core_host.h. */
#include "core_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core_peer.h"
#include "ring/ring_sim.h"
#include "seeded_core.h"
#include "ws/ws.h"

int host_is_sim(const struct host *host) { return host->backend == RW_BACKEND_SIM; }

struct host *host_open_seeded(uint32_t backend, const struct rw_core_config *given, uint64_t sim_seed) {
    struct rw_core_config config = *given;
    config.abi_version = RW_ABI_VERSION;
    config.backend = backend;
    if (!config.max_connections) config.max_connections = 1024;
    if (!config.ring_entries) config.ring_entries = 256;
    config.sqpoll_cpu = config.wake_fd = config.inbox_fd_first = -1;
    if (!config.worker_count) config.shm_fd = -1;
    char error[512];
    struct rw_core *core = sim_seed ? seeded_core_create(&config, sim_seed, error, sizeof error)
                                    : rw_core_create(&config, error, sizeof error);
    if (!core && backend == RW_BACKEND_IO_URING) return NULL; /* this kernel has none: skipped */
    assert_non_null(core);
    struct host *host = calloc(1, sizeof *host);
    assert_non_null(host);
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

struct host *host_open_with(uint32_t backend, const struct rw_core_config *config) {
    return host_open_seeded(backend, config, 0);
}

void host_record(struct host *host, const struct rw_event *event, const uint8_t *payload) {
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

void host_turn_wait(struct host *host, uint32_t wait_us) {
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

void host_turn(struct host *host) { host_turn_wait(host, host_is_sim(host) ? 0 : 500); }

void host_turns(struct host *host, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) host_turn(host);
}

uint64_t test_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void test_sleep_ms(uint32_t ms) {
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

void host_pass_time(struct host *host, uint32_t ms) {
    for (uint32_t passed = 0; passed < ms; passed += 400) {
        host->core->clock_start_ms -= 400;
        host_turns(host, 2);
    }
}

struct record *host_poll(struct host *host) {
    for (uint32_t turn = 0; host->log_at == host->log_count && turn < 40; turn++) host_turn(host);
    return host->log_at < host->log_count ? &host->log[host->log_at++] : NULL;
}

struct record *host_expect(struct host *host, enum rw_event_type type) {
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

void host_expect_silence(struct host *host) { assert_null(host_poll(host)); }

void host_flush(struct host *host) {
    assert_int_equal(rw_core_flush(host->core, host->commands), RW_OK);
    host->commands = host->data = 0;
}

void host_command(struct host *host, struct rw_command command, const void *data, size_t bytes) {
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

void host_answer(struct host *host, const struct rw_event *to, struct rw_command command, const void *data,
                 size_t bytes) {
    command.slot = to->slot;
    command.generation = to->generation;
    command.request = to->request;
    command.stream = to->stream;
    host_command(host, command, data, bytes);
}

void host_respond(struct host *host, const struct rw_event *to, uint32_t status, const char *headers,
                  const char *body) {
    char data[4096];
    int length = snprintf(data, sizeof data, "%s%s", headers, body);
    assert_in_range(length, 0, sizeof data - 1);
    host_answer(host, to,
                (struct rw_command){.type = RW_COMMAND_RESPOND, .arg0 = status, .arg1 = (uint32_t)strlen(headers)},
                data, (size_t)length);
}

void host_send(struct host *host, const struct rw_event *to, uint32_t flags, const void *data, size_t bytes) {
    host_answer(host, to, (struct rw_command){.type = RW_COMMAND_SEND, .flags = (uint16_t)flags}, data, bytes);
}

void host_topic(struct host *host, const struct rw_event *to, enum rw_command_type type, const char *topic) {
    host_answer(host, to, (struct rw_command){.type = (uint16_t)type}, topic, strlen(topic));
}

void host_publish(struct host *host, const struct rw_event *except, const char *topic, uint32_t flags,
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

void host_behavior(struct host *host, uint32_t index, struct rw_behavior behavior) {
    if (!behavior.max_payload_bytes) behavior.max_payload_bytes = 1u << 20;
    if (!behavior.max_backpressure_bytes) behavior.max_backpressure_bytes = 16u << 20;
    if (!behavior.close_timeout_ms) behavior.close_timeout_ms = 5000;
    assert_int_equal(rw_core_behavior(host->core, index, &behavior), RW_OK);
}

uint64_t host_buffers_used(const struct host *host) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < RW_BUFFER_CLASSES; i++) used += rw_buffers_stats(host->core->buffers, i).used;
    return used;
}

void host_assert_empty(struct host *host) {
    struct rw_core *core = host->core;
    assert_int_equal(rw_core_connections(core), 0);
    host_turn(host); /* lets go of the last batch */
    assert_int_equal(core->stats->accepts, core->stats->closes);
    assert_int_equal(core->stats->connections_http, 0);
    assert_int_equal(core->stats->connections_websocket, 0);
    assert_int_equal(core->stats->event_streams, 0);
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
    assert_int_equal(host_buffers_used(host), rw_publications_buffers(core) + (core->ws->ping_frame ? 1 : 0));
    for (uint32_t i = 0; core->ip_limit.most && i < RW_IP_ROWS * RW_IP_CELLS; i++)
        assert_int_equal(core->ip_limit.cells[i], 0);
    if (host_is_sim(host)) assert_int_equal(rw_sim_borrowed(core->ring), 0);
}

void host_free(struct host *host) {
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

void host_close(struct host *host) {
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

int backend_setup(void **state) {
    (void)state; /* the initial state is the backend */
    return 0;
}

struct host *host_open(void **state, const struct rw_core_config *config) {
    uint32_t backend = (uint32_t)(uintptr_t)*state;
    struct host *host = host_open_with(backend, config);
    if (!host) skip();
    return host;
}

uint8_t pattern_at(size_t i) { return (uint8_t)('a' + i % 23 + (i >> 10) % 3); }

void fill_pattern(uint8_t *out, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) out[i] = pattern_at(i);
}

struct host *ws_host(void **state, struct rw_behavior behavior) {
    struct host *host = host_open(state, DEFAULTS);
    host_behavior(host, 7, behavior);
    return host;
}
