/* The turn, and the life of a core. See core.h for what it owns and ringway.h for the contract of each function. */
#include "connection/core.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "age.h"
#include "command_batch.h"
#include "connection/client.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/listener.h"
#include "connection/tls.h"
#include "connection/work.h"
#include "http1/http.h"
#include "node_events.h"
#include "ws/deflate.h"
#include "ws/dropped.h"
#include "ws/ws.h"

#define NODE_MESSAGES_PER_TURN 1024u
#define GAUGE_TURNS 64u
#define WAITS_PER_TURN 4u
#define DRAIN_STEP_MS 50u
/* Closing is never spread thinner than this: a handful of sockets need not wait for the whole drain time. */
#define DRAIN_MS_PER_SOCKET 10u
#define OUTBOX_RETRY_MS 2u
#define REAPS_PER_TURN 8u
#define COMMANDS_MEASURED 32u /* fewer cannot be spread over more turns to any use */
/* After a gap like this the host has blocked, not the clients: what they have sent meanwhile is taken in before any
 * deadline is judged. */
#define BLOCKED_MS 1000u
#define BLOCKED_MS_MAX 60000u

int32_t rw_slot_list_push(struct rw_slot_list *list, uint32_t index) {
    if (list->count == list->capacity) {
        uint32_t capacity = list->capacity ? list->capacity * 2 : 256;
        uint32_t *items = realloc(list->items, capacity * sizeof *items);
        if (!items) return -ENOMEM;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = index;
    return 0;
}

/* ------------------------------------------------------------------ clock and gauges */

static uint64_t monotonic_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void read_clock(struct rw_core *core) {
    core->clock_wide_ms = monotonic_ms() - core->clock_start_ms + 1000;
    core->now_ms = (uint32_t)core->clock_wide_ms;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    if ((uint32_t)wall.tv_sec == core->date_second) return;
    core->date_second = (uint32_t)wall.tv_sec;
    struct tm parts;
    gmtime_r(&wall.tv_sec, &parts);
    /* Not strftime: names of days and months must not follow the locale. */
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    snprintf(core->date, sizeof core->date, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * parts.tm_wday,
             (unsigned)parts.tm_mday % 100u, months + 3 * parts.tm_mon, (unsigned)(parts.tm_year + 1900) % 10000u,
             (unsigned)parts.tm_hour % 100u, (unsigned)parts.tm_min % 100u, (unsigned)parts.tm_sec % 100u);
}

static void write_gauges(struct rw_core *core) {
    core->gauges_due = GAUGE_TURNS;
    uint64_t *used = &core->stats->buffers_64_used;
    uint64_t *total = &core->stats->buffers_64_total;
    for (uint32_t i = 0; i < RW_BUFFER_CLASSES; i++) {
        struct rw_buffer_class_stats stats = rw_buffers_stats(core->buffers, i);
        __atomic_store_n(&used[i], stats.used, __ATOMIC_RELAXED);
        __atomic_store_n(&total[i], stats.carved, __ATOMIC_RELAXED);
    }
    RW_GAUGE(core, backpressure_bytes, core->outbox.bytes);
    RW_GAUGE(core, unfinished_bytes, core->unfinished_bytes);
    RW_GAUGE(core, inflate_bytes, core->inflate_bytes);
    RW_GAUGE(core, topics, rw_topics_held(core->topics));
    RW_GAUGE(core, subscriptions, rw_topics_subscriptions(core->topics));
    __atomic_store_n(&core->stats->cq_overflows, core->ring->counts.cq_overflows, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------ create and destroy */

static uint32_t or_default(uint32_t value, uint32_t fallback) { return value ? value : fallback; }

static void read_limits(struct rw_core *core, const struct rw_core_config *config) {
    struct rw_core_limits *limits = &core->limits;
    uint64_t body = (uint64_t)config->max_body_bytes_hi << 32 | config->max_body_bytes_lo;
    limits->head.max_head_bytes = or_default(config->max_head_bytes, RW_HEAD_BYTES_DEFAULT);
    limits->head.max_target_bytes = or_default(config->max_target_bytes, RW_TARGET_BYTES_DEFAULT);
    limits->head.max_header_count = or_default(config->max_header_count, RW_HEADER_COUNT_DEFAULT);
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
    core->shm_address = rw_shm_map(config->shm_fd);
    core->shm = rw_shm_at(core->shm_address);
    if (!core->shm || config->worker_index >= core->shm->worker_count) return RW_ERR_ABI;
    core->stats = (struct rw_stats *)(uintptr_t)rw_shm_stats(core->shm_address, config->worker_index);
    rw_topics_seed(core->shm->topic_seed);
    rw_stats_reset_gauges(core->stats);
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
    RW_GAUGE(core, topics, rw_topics_held(core->topics));
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
    if (core->bus) rw_node_bus_destroy(core->bus);
    if (core->ring) rw_ring_destroy(core->ring);
    if (core->topics) rw_topics_destroy(core->topics);
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) rw_tls_listener_release(core->listeners[i].tls);
    rw_tls_shared_destroy(core->tls);
    if (core->publish_log) rw_buffers_release(core->buffers, core->publish_log);
    if (core->ping_frame) rw_buffers_release(core->buffers, core->ping_frame);
    if (core->deflated_log) rw_buffers_release(core->buffers, core->deflated_log);
    rw_dropped_destroy(core);
    rw_deflate_destroy(core);
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
    if (core->shm_address) rw_shm_unmap(core->shm_address);
    free(core->dirty.items);
    free(core->ready.items);
    free(core->starved.items);
    free(core->withheld);
    free(core->ending.items);
    free(core->private_stats);
    free(core);
}

struct rw_core *rw_core_create(const struct rw_core_config *config, char *error, size_t error_bytes) {
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
    core->inbox_fd = -1;
    core->flags = config->flags;
    core->clock_start_ms = monotonic_ms();
    read_clock(core);
    core->last_turn_ms = core->now_ms;
    core->aged_wide_ms = core->clock_wide_ms;
    read_limits(core, config);
    core->proxy_header = config->proxy_header;
    rw_core_pace(core, RW_EVENTS_CAPACITY);
    rw_client_limit_upgrades(&core->upgrade_rate, config->upgrades_per_kilosecond, core->now_ms);
    int32_t result = open_shared(core, config);
    if (result == RW_OK)
        result = rw_ip_limit_open(&core->ip_limit, config->max_connections_per_ip, core->shm, config->worker_index);
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
    core->ring = core->withheld ? rw_ring_create(&ring, error, error_bytes) : NULL;
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

void rw_core_destroy(struct rw_core *core) {
    rw_core_stop_accepting(core);
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

/* ------------------------------------------------------------------ drain */

static void close_for_drain(struct rw_core *core, struct rw_slot *slot) {
    rw_ws_note_cause(slot, RW_CLOSE_DRAIN);
    rw_ws_close(core, slot, core->drain.code, NULL, 0);
    core->drain.closed++;
}

static void drain_step(struct rw_core *core) {
    struct rw_drain *drain = &core->drain;
    uint32_t elapsed = core->now_ms - drain->started_ms;
    int over = elapsed >= drain->over_ms;
    uint64_t target = over ? UINT32_MAX : (uint64_t)drain->total * elapsed / drain->over_ms;
    /* When the time is over the sweep begins anew each step, for sockets that opened meanwhile: not each turn, for
     * there are many slots. */
    if (over && drain->cursor >= core->pool.carved) {
        if (core->now_ms - drain->swept_ms < DRAIN_STEP_MS) return;
        drain->swept_ms = core->now_ms;
        drain->cursor = 0;
    }
    for (; drain->cursor < core->pool.carved && drain->closed < target; drain->cursor++) {
        struct rw_slot *slot = rw_core_slot(core, drain->cursor);
        if (rw_ws_can_send(slot)) close_for_drain(core, slot);
    }
}

void rw_core_drain(struct rw_core *core, uint32_t code, uint32_t over_ms, uint32_t idle_ms) {
    read_clock(core);
    core->drain = (struct rw_drain){.active = 1,
                                    .code = code,
                                    .over_ms = over_ms,
                                    .idle_ms = idle_ms,
                                    .started_ms = core->now_ms,
                                    .swept_ms = core->now_ms};
    for (uint32_t i = 0; i < core->pool.carved; i++) {
        struct rw_slot *slot = rw_core_slot(core, i);
        if (slot->state.phase != RW_PHASE_OPEN) continue;
        if (slot->state.protocol == RW_PROTOCOL_HTTP) {
            rw_http_drain(core, slot);
        } else {
            core->drain.total++;
        }
    }
    uint64_t enough = (uint64_t)core->drain.total * DRAIN_MS_PER_SOCKET;
    if (enough < over_ms) core->drain.over_ms = (uint32_t)enough;
}

/* ------------------------------------------------------------------ the turn */

/* ret: 1 taken, 0 not now */
static int on_node_message(void *context, const struct rw_node_message *message) {
    struct rw_core *core = context;
    if (message->is_mail) return rw_node_events_mail(core, message);
    (void)rw_publish_local(core, message->topic, message->topic_bytes, message->topic_hash, message->flags,
                           message->payload, message->payload_bytes, RW_NO_SLOT);
    return 1;
}

static void on_timer(void *context, uint32_t index) { rw_connection_on_timer(context, index); }

static void on_completion(struct rw_core *core, const struct rw_completion *completion) {
    switch (rw_user_data_op(completion->user_data)) {
        case RW_OP_NONE: break;
        case RW_OP_ACCEPT: rw_listener_on_accept(core, completion); break;
        case RW_OP_RECV: rw_connection_on_recv(core, completion); break;
        case RW_OP_SEND: rw_connection_on_send(core, completion); break;
        case RW_OP_INBOX:
            /* The messages themselves are taken at the start of the next turn. */
            if (!(completion->flags & RW_COMPLETION_MORE))
                (void)rw_ring_poll_start(core->ring, core->inbox_fd, completion->user_data);
            break;
    }
}

/* Process what was reaped. Input that no work or room is left for is kept by its connection, so that nothing waits
 * behind it: the sends least of all.
 * ret: 1 everything was processed; 0 the batch has not one record left */
static int process_completions(struct rw_core *core) {
    while (core->completion_next < core->completion_count) {
        if (!rw_event_batch_has_room(core, 0)) return 0;
        on_completion(core, &core->completions[core->completion_next++]);
    }
    return 1;
}

static int ending_is_actionable(const struct rw_core *core) {
    for (uint32_t i = 0; i < core->ending.count; i++) {
        const struct rw_slot *slot = rw_core_slot(core, core->ending.items[i]);
        if (!slot->state.recv_armed && !slot->state.send_inflight) return 1;
    }
    return 0;
}

static int has_work(const struct rw_core *core) {
    return core->dirty.count || core->ready.count || core->completion_next < core->completion_count ||
           core->starved.count || rw_topics_changes(core->topics) || ending_is_actionable(core);
}

static int64_t earlier(int64_t a, int64_t b) { return a < 0 || (b >= 0 && b < a) ? b : a; }

/* ret: milliseconds until the core has something to do by itself, -1: never */
static int64_t next_due_ms(const struct rw_core *core) {
    int64_t due = rw_timer_wheel_next_ms(&core->wheel, core->clock_wide_ms);
    if (core->drain.active) due = earlier(due, DRAIN_STEP_MS);
    if (core->accept_retry_ms)
        due = earlier(
            due, rw_before(core->now_ms, core->accept_retry_ms) ? (int64_t)(core->accept_retry_ms - core->now_ms) : 0);
    if (core->stats->node_outbox_bytes) due = earlier(due, OUTBOX_RETRY_MS);
    return due;
}

/* Wait only when nothing is at hand here, and let other workers know that they must wake us. */
static uint32_t allowed_wait_us(struct rw_core *core, uint32_t wait_us) {
    if (!wait_us || core->events.count || has_work(core)) return 0;
    int64_t due = next_due_ms(core);
    if (due >= 0 && due * 1000 < wait_us) wait_us = (uint32_t)due * 1000;
    if (wait_us && core->bus && rw_node_bus_sleeping(core->bus, 1)) {
        (void)rw_node_bus_sleeping(core->bus, 0);
        return 0;
    }
    return wait_us;
}

static int reap_all(struct rw_core *core) {
    for (uint32_t reaps = 0; reaps < REAPS_PER_TURN; reaps++) {
        core->completion_next = 0;
        core->completion_count = rw_ring_reap(core->ring, core->completions, RW_COMPLETIONS_PER_REAP);
        if (!process_completions(core)) return 0;
        if (core->completion_count < RW_COMPLETIONS_PER_REAP) return 1;
    }
    return 0;
}

static uint64_t monotonic_us(void) { return monotonic_ns() / 1000; }

static void take_completions(struct rw_core *core, uint32_t wait_us) {
    if (!process_completions(core)) {
        (void)rw_ring_submit(core->ring, 0); /* what goes out does not wait for that */
        return;
    }
    uint64_t until_us = wait_us ? monotonic_us() + wait_us : 0;
    /* More than once: the sends of this turn complete at once, which ends the first wait before any input has come. */
    for (uint32_t round = 0; round < WAITS_PER_TURN; round++) {
        uint32_t allowed = allowed_wait_us(core, wait_us);
        if (allowed) write_gauges(core); /* what is read meanwhile is how things stand */
        (void)rw_ring_submit(core->ring, allowed);
        if (allowed) {
            if (core->bus) (void)rw_node_bus_sleeping(core->bus, 0);
            read_clock(core);
        }
        if (!reap_all(core) || !allowed || core->events.count || core->ring->interrupted) break;
        uint64_t now_us = monotonic_us();
        if (now_us >= until_us) break;
        wait_us = (uint32_t)(until_us - now_us);
    }
}

/* What clients have sent while the host was blocked comes all at once, within a second: their rates know of it
 * (ws_rate.c). */
static void note_blocked(struct rw_core *core) {
    uint32_t gap = core->now_ms - core->last_turn_ms;
    if (gap > BLOCKED_MS) {
        core->blocked_ms = gap < BLOCKED_MS_MAX ? gap : BLOCKED_MS_MAX;
        core->blocked_end_ms = core->now_ms + BLOCKED_MS;
    } else if (core->blocked_ms && !rw_before(core->now_ms, core->blocked_end_ms)) {
        core->blocked_ms = 0;
    }
}

void rw_core_settle_sends(struct rw_core *core) {
    if (core->sends_settled) return;
    core->sends_settled = 1;
    (void)rw_ring_submit(core->ring, 0);
    if (core->completion_next == core->completion_count) {
        core->completion_next = 0;
        core->completion_count = rw_ring_reap(core->ring, core->completions, RW_COMPLETIONS_PER_REAP);
    }
    for (uint32_t i = core->completion_next; i < core->completion_count; i++) {
        struct rw_completion *completion = &core->completions[i];
        /* What ends a connection is for the turn: whoever asks may be in the middle of a list that it is on. */
        if (rw_user_data_op(completion->user_data) != RW_OP_SEND || completion->result < 0) continue;
        if (rw_core_slot(core, rw_user_data_index(completion->user_data))->state.phase != RW_PHASE_OPEN) continue;
        rw_connection_on_send(core, completion);
        completion->user_data = rw_user_data(RW_OP_NONE, 0, 0);
    }
}

/* What comes now is served at once, while its half of the turn lasts: a client that says little never waits behind
 * those that say much. What waited from earlier turns has the rest, and half a turn at least, so that neither keeps the
 * other from it. */
static void serve_input(struct rw_core *core, uint32_t wait_us) {
    uint32_t waiting = core->ready.count;
    core->work.spent = 0;
    if (core->withheld_count) rw_connection_return_withheld(core);
    rw_work_begin(core, waiting ? RW_WORK_UNITS / 2 : RW_WORK_UNITS);
    take_completions(core, wait_us);
    uint32_t rest = core->work.spent < RW_WORK_UNITS / 2 ? RW_WORK_UNITS - core->work.spent : RW_WORK_UNITS / 2;
    rw_work_begin(core, rest);
    rw_connection_serve_ready(core, waiting);
    core->busy = core->ready.count > 0 && rw_work_is_over(core);
}

/* Whatever the load: a peer whose bytes wait somewhere is spared by whoever would end its connection
 * (rw_connection_spares). After a block the kernel may have more than one turn takes, for which the one judgement
 * waits. */
static void fire_timers(struct rw_core *core) {
    int blocked = core->now_ms - core->last_turn_ms > BLOCKED_MS && !core->timers_held;
    core->last_turn_ms = core->now_ms;
    core->timers_held = blocked ? 1 : 0;
    if (!blocked) (void)rw_timer_wheel_advance(&core->wheel, core->clock_wide_ms, on_timer, core);
}

static void apply_commands(struct rw_core *core, uint32_t count) {
    core->sends_settled = 0;
    if (count < COMMANDS_MEASURED && core->work.apply_units == 0) {
        rw_command_batch_apply(core, count);
        return;
    }
    uint64_t began = monotonic_ns();
    rw_command_batch_apply(core, count);
    rw_work_note_applied(core, monotonic_ns() - began);
}

int32_t rw_core_turn(struct rw_core *core, uint32_t command_count, uint32_t wait_us) {
    apply_commands(core, command_count);
    rw_event_batch_begin(core);
    read_clock(core);
    rw_age(core);
    note_blocked(core);
    if (rw_topics_changes(core->topics)) rw_node_events_interest(core);
    if (core->bus) {
        int more;
        (void)rw_node_bus_receive(core->bus, NODE_MESSAGES_PER_TURN, on_node_message, core, &more);
    }
    if (core->drain.active) drain_step(core);
    if (core->accept_retry_ms && !rw_before(core->now_ms, core->accept_retry_ms)) rw_listener_retry(core);
    rw_connection_flush_dirty(core);
    if (core->bus) (void)rw_node_bus_flush(core->bus);
    rw_publish_end_tick(core);
    rw_ws_end_tick(core);
    rw_dropped_tell(core);
    serve_input(core, wait_us);
    core->interrupted = core->ring->interrupted;
    core->ring->interrupted = 0;
    rw_connection_feed_starved(core);
    fire_timers(core);
    rw_connection_finish_ending(core);
    RW_COUNT(core, turns, 1);
    if (core->events.count == 0) RW_COUNT(core, turns_empty, 1);
    if (core->gauges_due == 0 || --core->gauges_due == 0) write_gauges(core);
    return (int32_t)core->events.count;
}

int32_t rw_core_interrupt_by(struct rw_core *core, int32_t fd) { return rw_ring_interrupt_by(core->ring, fd); }

int32_t rw_core_flush(struct rw_core *core, uint32_t command_count) {
    core->sends_settled = 0;
    rw_command_batch_apply(core, command_count);
    return RW_OK;
}

int32_t rw_core_command(struct rw_core *core, const struct rw_command *command, const uint8_t *data, uint64_t bytes) {
    core->sends_settled = 0;
    return rw_command_apply(core, command, data, bytes);
}

int32_t rw_core_sleep(struct rw_core *core) {
    read_clock(core);
    if (has_work(core)) return -2;
    int64_t due = next_due_ms(core);
    if (due == 0) return -2;
    if (core->bus && rw_node_bus_sleeping(core->bus, 1)) {
        (void)rw_node_bus_sleeping(core->bus, 0);
        return -2;
    }
    if (rw_ring_sleep(core->ring)) {
        if (core->bus) (void)rw_node_bus_sleeping(core->bus, 0);
        return -2;
    }
    RW_COUNT(core, sleeps, 1);
    write_gauges(core);
    return due > INT32_MAX ? INT32_MAX : (int32_t)due;
}

void rw_core_wake(struct rw_core *core) {
    rw_ring_wake(core->ring);
    if (core->bus) (void)rw_node_bus_sleeping(core->bus, 0);
    /* A sleep is not a blocked host: deadlines are judged as usual afterwards. */
    read_clock(core);
    core->last_turn_ms = core->now_ms;
}

/* ------------------------------------------------------------------ questions of the host */

int32_t rw_core_topics(const struct rw_core *core, uint32_t slot_index, uint32_t generation, uint8_t *out,
                       uint32_t bytes) {
    const struct rw_slot *slot = rw_slot_pool_get(&core->pool, slot_index, generation);
    if (!slot) return RW_ERR_STALE;
    uint64_t needed = 0;
    uint32_t used = 0;
    uint32_t cursor = slot->subscriptions;
    const uint8_t *name;
    uint32_t name_bytes;
    while (rw_topics_next_of_slot(core->topics, &cursor, &name, &name_bytes)) {
        needed += sizeof(uint16_t) + name_bytes;
        if (needed > bytes) continue;
        uint16_t length = (uint16_t)name_bytes;
        memcpy(out + used, &length, sizeof length);
        memcpy(out + used + sizeof length, name, name_bytes);
        used = (uint32_t)needed;
    }
    return needed > INT32_MAX ? INT32_MAX : (int32_t)needed;
}

int32_t rw_core_topic_wanted(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes) {
    uint64_t hash = rw_topics_hash(topic, topic_bytes);
    if (rw_topics_find(core->topics, topic, topic_bytes, hash)) return 1;
    return core->bus && rw_node_bus_wanted(core->bus, hash);
}

uint32_t rw_core_subscribers(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes) {
    uint32_t id = rw_topics_find(core->topics, topic, topic_bytes, rw_topics_hash(topic, topic_bytes));
    uint32_t count = 0;
    if (id) (void)rw_topics_members(core->topics, id, &count);
    return count;
}

int32_t rw_core_is_subscribed(const struct rw_core *core, uint32_t slot, uint32_t generation, const uint8_t *topic,
                              uint32_t topic_bytes) {
    return rw_slot_pool_get(&core->pool, slot, generation) &&
           rw_topics_is_subscribed(core->topics, slot, topic, topic_bytes);
}

void rw_core_pace(struct rw_core *core, uint32_t events) {
    if (events > RW_EVENTS_CAPACITY) events = RW_EVENTS_CAPACITY;
    core->work.event_units = RW_WORK_UNITS / (events ? events : 1) - 1; /* its frame is one */
}

uint32_t rw_core_connections(const struct rw_core *core) { return core->pool.used; }

uint32_t rw_abi_version(void) { return RW_ABI_VERSION; }
