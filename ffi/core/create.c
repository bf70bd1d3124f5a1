/* The life of a core: what it is made of, and in which order it goes. See connection/core.h for what it owns and
 * ringway.h for the contract of each function. Here alone the protocols are named, see connection/protocol.h. */
#include "create.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "clock.h"
#include "connection/client.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/listener.h"
#include "connection/tls.h"
#include "delivery/members.h"
#include "http1/http.h"
#include "ws/ws.h"

static uint32_t or_default(uint32_t value, uint32_t fallback) { return value ? value : fallback; }

static void read_limits(struct rw_core *core, const struct rw_core_config *config) {
    struct rw_core_limits *limits = &core->limits;
    uint64_t body = (uint64_t)config->max_body_bytes_hi << 32 | config->max_body_bytes_lo;
    limits->max_head_bytes = or_default(config->max_head_bytes, RW_HEAD_BYTES_DEFAULT);
    limits->max_target_bytes = or_default(config->max_target_bytes, RW_TARGET_BYTES_DEFAULT);
    limits->max_header_count = or_default(config->max_header_count, RW_HEADER_COUNT_DEFAULT);
    limits->max_body_bytes = body ? body : RW_BODY_BYTES_DEFAULT;
    limits->head_timeout_ms = or_default(config->head_timeout_ms, RW_HEAD_TIMEOUT_MS_DEFAULT);
    limits->body_timeout_ms = or_default(config->body_timeout_ms, RW_BODY_TIMEOUT_MS_DEFAULT);
    limits->keep_alive_timeout_ms = or_default(config->keep_alive_timeout_ms, RW_KEEP_ALIVE_TIMEOUT_MS_DEFAULT);
    limits->write_timeout_ms = or_default(config->write_timeout_ms, RW_WRITE_TIMEOUT_MS_DEFAULT);
    limits->linger_timeout_ms = or_default(config->linger_timeout_ms, RW_LINGER_TIMEOUT_MS_DEFAULT);
    limits->min_bytes_per_second = or_default(config->min_bytes_per_second, RW_MIN_BYTES_PER_SECOND_DEFAULT);
    limits->response_high_water_bytes =
        or_default(config->response_high_water_bytes, RW_RESPONSE_HIGH_WATER_BYTES_DEFAULT);
    limits->body_window_bytes = or_default(config->body_window_bytes, RW_BODY_WINDOW_BYTES_DEFAULT);
    limits->topics_per_socket = or_default(config->topics_per_socket, RW_TOPICS_PER_SOCKET_DEFAULT);
    limits->topics = or_default(config->topics, RW_TOPICS_DEFAULT);
    limits->unfinished_bytes = (uint64_t)or_default(config->unfinished_kib, RW_UNFINISHED_KIB_DEFAULT) << 10;
    limits->inflate_bytes = (uint64_t)config->inflate_kib << 10;
    /* A body may pass its window by one piece, and the count of what is not acknowledged has 32 bits. */
    if (limits->body_window_bytes > RW_BODY_WINDOW_BYTES_MAX) limits->body_window_bytes = RW_BODY_WINDOW_BYTES_MAX;
}

static const char *config_mistake(const struct rw_core_config *config) {
    if (config->abi_version != RW_ABI_VERSION)
        return "the host was built for another version of the core: rebuild it with 'make -C ffi'";
    if (config->max_connections > RW_CONNECTIONS_MAX) return "max_connections is above 16777216";
    if (config->max_head_bytes > RW_HEAD_BYTES_MAX) return "max_head_bytes is above 65535";
    if (config->max_header_count > RW_HEADER_COUNT_MAX) return "max_header_count is above 256";
    if (config->shm_fd >= 0 && config->worker_index >= config->worker_count)
        return "worker_index is not below worker_count";
    if (config->max_connections_per_ip > RW_IP_CONNECTIONS_MAX) return "max_connections_per_ip is above 65534";
    if (config->proxy_header > RW_PROXY_HEADER_FORWARDED) return "proxy_header is none of enum rw_proxy_header";
    if (config->ring_entries & (config->ring_entries - 1) || config->recv_buffers & (config->recv_buffers - 1))
        return "ring_entries and recv_buffers must be powers of two";
    return NULL;
}

static int32_t open_shared(struct rw_core *core, const struct rw_core_config *config) {
    if (config->shm_fd < 0) {
        core->private_stats = aligned_alloc(RW_CACHE_LINE_BYTES, sizeof *core->private_stats);
        if (!core->private_stats) return -ENOMEM;
        memset(core->private_stats, 0, sizeof *core->private_stats);
        core->stats = core->private_stats;
        uint64_t seed;
        if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed) rw_topics_seed_first(seed);
        return RW_OK;
    }
    core->shm_address = rw_shm_map(config->shm_fd, config->host_layout);
    core->shm = rw_shm_at(core->shm_address);
    if (!core->shm || config->worker_index >= core->shm->worker_count) return RW_ERR_ABI;
    core->stats = (struct rw_stats *)(uintptr_t)rw_shm_stats(core->shm_address, config->worker_index);
    rw_topics_seed(core->shm->topic_seed);
    rw_stats_reset_gauges(core->stats);
    core->state = rw_state_open(core->shm);
    if (!core->state && core->shm->state_bytes != 0) return -ENOMEM;
    int32_t inbox_fds[RW_WORKERS_MAX];
    for (uint32_t i = 0; i < core->shm->worker_count; i++)
        inbox_fds[i] = config->inbox_fd_first < 0 ? -1 : config->inbox_fd_first + (int32_t)i;
    core->bus = rw_node_bus_create(core->shm, config->worker_index, inbox_fds, core->stats);
    if (!core->bus) return -ENOMEM;
    core->inbox_fd = inbox_fds[config->worker_index];
    return RW_OK;
}

static void on_interest(void *context, const uint8_t *name, uint32_t name_bytes, uint64_t hash, int interested) {
    struct rw_core *core = context;
    (void)name;
    (void)name_bytes;
    /* The host reads it to tell whether a subscription may be refused, so it is not written now and then as other
     * gauges are. */
    RW_GAUGE(core, topics, rw_delivery_topics(core));
    if (core->bus) rw_node_bus_interest(core->bus, hash, interested);
}

static int32_t open_memory(struct rw_core *core, const struct rw_core_config *config) {
    int32_t result = rw_slot_pool_init(&core->pool, or_default(config->max_connections, RW_CONNECTIONS_DEFAULT));
    if (result < 0) return result;
    core->buffers = rw_buffers_create();
    if (!core->buffers) return -ENOMEM;
    result = rw_outbox_init(&core->outbox, core->buffers);
    if (result < 0) return result;
    core->topics = rw_topics_create(on_interest, core);
    if (!core->topics) return -ENOMEM;
    if (core->flags & RW_CORE_WANTS_INTEREST) rw_topics_note_changes(core->topics);
    if (rw_members_create(core, config->worker_index) != RW_OK) return -ENOMEM;
    result = rw_event_batch_init(&core->events);
    if (result < 0) return result;
    core->commands = mmap(NULL, sizeof(struct rw_command) * RW_COMMANDS_CAPACITY, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    core->data = mmap(NULL, RW_DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (core->commands == MAP_FAILED || core->data == MAP_FAILED) {
        if (core->commands == MAP_FAILED) core->commands = NULL;
        if (core->data == MAP_FAILED) core->data = NULL;
        return -ENOMEM;
    }
    rw_timer_wheel_init(&core->wheel, core->pool.slots, sizeof(struct rw_slot), offsetof(struct rw_slot, timer),
                        core->clock_wide_ms);
    return RW_OK;
}

static void free_core(struct rw_core *core) {
    rw_members_destroy(core);
    if (core->bus) rw_node_bus_destroy(core->bus);
    if (core->ring) rw_ring_destroy(core->ring);
    if (core->topics) rw_topics_destroy(core->topics);
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) rw_tls_listener_release(core->listeners[i].tls);
    rw_tls_shared_destroy(core->tls);
    rw_delivery_destroy(core);
    rw_ws_destroy(core);
    rw_http_destroy(core);
    if (core->buffers) {
        rw_event_batch_destroy(&core->events, core->buffers);
        rw_outbox_destroy(&core->outbox);
        rw_buffers_destroy(core->buffers, 1);
    }
    if (core->commands) munmap(core->commands, sizeof(struct rw_command) * RW_COMMANDS_CAPACITY);
    if (core->data) munmap(core->data, RW_DATA_BYTES);
    if (core->pool.slots) rw_slot_pool_destroy(&core->pool);
    rw_trusted_clear(&core->trusted);
    rw_ip_limit_close(&core->ip_limit);
    rw_state_close(core->state);
    if (core->shm_address) rw_shm_unmap(core->shm_address);
    free(core->dirty.items);
    free(core->ready.items);
    free(core->starved.items);
    free(core->resumed.items);
    free(core->withheld);
    free(core->ending.items);
    free(core->private_stats);
    free(core);
}

static const struct rw_protocol *const protocols[RW_PROTOCOLS_MAX] = {
    [RW_HTTP_PROTOCOL] = &rw_http_protocol, [RW_WS_PROTOCOL] = &rw_ws_protocol};

struct rw_core *rw_core_create_on(const struct rw_core_config *config, struct rw_ring_maker maker, char *error,
                                  size_t error_bytes) {
    if (error_bytes) error[0] = 0;
    const char *mistake = config_mistake(config);
    if (mistake) {
        snprintf(error, error_bytes, "%s", mistake);
        return NULL;
    }
    struct rw_core *core = calloc(1, sizeof *core);
    if (!core) {
        snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    memcpy(core->protocols, protocols, sizeof protocols);
    core->spoken = (struct rw_protocol_list){{RW_HTTP_PROTOCOL, RW_PROTOCOL_NONE}};
    core->inbox_fd = -1;
    core->flags = config->flags;
    core->clock_start_ms = rw_clock_monotonic_ns() / 1000000;
    rw_clock_read(core);
    core->last_turn_ms = core->now_ms;
    core->aged_wide_ms = core->clock_wide_ms;
    read_limits(core, config);
    core->proxy_header = config->proxy_header;
    rw_core_pace(core, RW_EVENTS_CAPACITY);
    rw_client_limit_upgrades(&core->upgrade_rate, config->upgrades_per_kilosecond, core->now_ms);
    int32_t result = open_shared(core, config);
    if (result == RW_OK)
        result = rw_ip_limit_open(&core->ip_limit, config->max_connections_per_ip, core->shm, config->worker_index);
    if (result == RW_OK) result = rw_http_create(core);
    if (result == RW_OK) result = rw_ws_create(core);
    if (result == RW_OK) result = rw_delivery_create(core);
    if (result == RW_OK) result = open_memory(core, config);
    if (result < 0) {
        snprintf(error, error_bytes,
                 result == RW_ERR_ABI ? "the shared memory of the node was laid out by another version"
                                      : "memory for %u connections cannot be reserved: %s",
                 or_default(config->max_connections, RW_CONNECTIONS_DEFAULT),
                 strerror(result > -4096 ? -result : EINVAL));
        free_core(core);
        return NULL;
    }
    struct rw_ring_config ring = {.backend = config->backend,
                                  .entries = or_default(config->ring_entries, RW_RING_ENTRIES_DEFAULT),
                                  .recv_buffers = or_default(config->recv_buffers, RW_RECV_BUFFERS_DEFAULT),
                                  .recv_buffer_bytes =
                                      or_default(config->recv_buffer_bytes, RW_RECV_BUFFER_BYTES_DEFAULT),
                                  .sqpoll = config->sqpoll,
                                  .sqpoll_cpu = config->sqpoll_cpu,
                                  .sqpoll_idle_ms = config->sqpoll_idle_ms,
                                  .wake_fd = config->wake_fd};
    core->withheld_most = ring.recv_buffers > 2 * RW_RECV_BUFFERS_LEAST ? ring.recv_buffers - RW_RECV_BUFFERS_LEAST : 0;
    core->withheld = calloc(core->withheld_most + 1, sizeof *core->withheld);
    core->ring = core->withheld ? maker.make(&ring, maker.context, error, error_bytes) : NULL;
    if (!core->ring ||
        (core->inbox_fd >= 0 && rw_ring_poll_start(core->ring, core->inbox_fd, rw_user_data(RW_OP_INBOX, 0, 0)) < 0)) {
        free_core(core);
        return NULL;
    }
    RW_GAUGE(core, backend, core->ring->ops->backend);
    RW_GAUGE(core, unfinished_limit_bytes, core->limits.unfinished_bytes);
    RW_GAUGE(core, inflate_limit_bytes, core->limits.inflate_bytes);
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    RW_GAUGE(core, started_at_ms, (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000);
    return core;
}

static struct rw_ring *make_ring(const struct rw_ring_config *config, void *context, char *error, size_t error_bytes) {
    (void)context;
    return rw_ring_create(config, error, error_bytes);
}

struct rw_core *rw_core_create(const struct rw_core_config *config, char *error, size_t error_bytes) {
    return rw_core_create_on(config, (struct rw_ring_maker){make_ring, NULL}, error, error_bytes);
}

void rw_core_destroy(struct rw_core *core) {
    rw_listeners_cancel(core);
    /* Every buffer lent to the kernel comes back with its completion; a ring that is destroyed with some out is a
     * kernel bug we do not wait for. A listener may still deliver a connection or two before it is disarmed: they are
     * ended as they come. */
    for (uint32_t turns = 0; turns < 1000; turns++) {
        for (uint32_t i = 0; i < core->pool.carved; i++) rw_connection_terminate(core, rw_core_slot(core, i));
        if (core->pool.used == 0 && !rw_listeners_armed(core)) break;
        (void)rw_core_turn(core, 0, 1000);
    }
    free_core(core);
}

void rw_core_info(const struct rw_core *core, struct rw_core_info *out) {
    *out = (struct rw_core_info){.events = (uintptr_t)core->events.records,
                                 .payload = (uintptr_t)core->events.payload,
                                 .commands = (uintptr_t)core->commands,
                                 .data = (uintptr_t)core->data,
                                 .slots = (uintptr_t)core->pool.slots,
                                 .stats = (uintptr_t)core->stats,
                                 .events_capacity = RW_EVENTS_CAPACITY,
                                 .payload_bytes = RW_PAYLOAD_BYTES,
                                 .commands_capacity = RW_COMMANDS_CAPACITY,
                                 .data_bytes = RW_DATA_BYTES,
                                 .backend = core->ring->ops->backend,
                                 .max_connections = core->pool.capacity,
                                 .interrupted = (uintptr_t)&core->interrupted,
                                 .view = core->shm ? (uintptr_t)&core->shm->view : 0,
                                 .epoch = core->bus ? rw_node_bus_epoch(core->bus) : 0};
}

int32_t rw_core_behavior(struct rw_core *core, uint32_t index, const struct rw_behavior *behavior) {
    if (index >= RW_BEHAVIORS_MAX) return RW_ERR_INVALID;
    core->behaviors[index] = *behavior;
    return RW_OK;
}
