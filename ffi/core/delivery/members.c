/* The binding of members to subscriptions, and what the host may ask of them. See members.h.
 *
 * Invariants: a subscription with a seat is that of a connection of this worker, and the seat is in shared memory under its
 * slot and generation; a seat without a subscription is on the list of what is owed, until it is freed. */
#include "delivery/members.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/utf8.h"
#include "delivery/delivery.h"

#define PREFIX_BYTES 2u
#define TOPIC_BYTES_MAX (RW_TOPIC_BYTES_MAX - PREFIX_BYTES)
#define QUEUE_BYTES_MAX (64u << 20)
#define TICK_USERS 1024u /* about a millisecond */

static uint64_t clock_ms(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct rw_presence_clock clock_now(void) {
    return (struct rw_presence_clock){clock_ms(CLOCK_REALTIME), clock_ms(CLOCK_MONOTONIC)};
}

/* The name of a topic's presence log. */
struct log_name {
    uint8_t bytes[RW_TOPIC_BYTES_MAX];
    struct rw_state_name name;
};

static int log_name(struct log_name *log, const uint8_t *topic, uint32_t topic_bytes) {
    if (topic_bytes == 0 || topic_bytes > TOPIC_BYTES_MAX) return 0;
    log->bytes[0] = 0;
    log->bytes[1] = 'p';
    memcpy(log->bytes + PREFIX_BYTES, topic, topic_bytes);
    log->name = rw_state_name(log->bytes, PREFIX_BYTES + topic_bytes);
    return 1;
}

/* ------------------------------------------------------------------ queues */
struct record {
    uint32_t name_bytes;
    rw_block seat; /* of owed: and what follows */
    struct rw_presence_seat of;
    uint32_t closed;
};

/* ret: 1; 0: memory is short, or far too much waits */
static int queue_push(struct rw_members_queue *queue, const struct record *record, const uint8_t *name) {
    const uint32_t needed = (uint32_t)sizeof *record + record->name_bytes;
    if (needed > queue->capacity - queue->used) {
        uint32_t capacity = queue->capacity == 0 ? 1024 : queue->capacity;
        while (capacity - queue->used < needed && capacity < QUEUE_BYTES_MAX) capacity *= 2;
        uint8_t *bytes = capacity - queue->used < needed ? NULL : realloc(queue->bytes, capacity);
        if (!bytes) return 0;
        queue->bytes = bytes;
        queue->capacity = capacity;
    }
    memcpy(queue->bytes + queue->used, record, sizeof *record);
    memcpy(queue->bytes + queue->used + sizeof *record, name, record->name_bytes);
    queue->used += needed;
    return 1;
}

/* in: *at: 0 at first. ret: 0 at the end, else the name; *at is behind it */
static const uint8_t *queue_next(const struct rw_members_queue *queue, uint32_t *at, struct record *record) {
    if (*at >= queue->used) return NULL;
    memcpy(record, queue->bytes + *at, sizeof *record);
    const uint8_t *name = queue->bytes + *at + sizeof *record;
    *at += (uint32_t)sizeof *record + record->name_bytes;
    return name;
}

/* Once for many that leave a topic together. What has no room is found by whoever looks for logs that have grown, within
 * a second. */
static void note_grown(struct rw_core *core, const uint8_t *name, uint32_t name_bytes) {
    struct rw_members *members = core->members;
    struct record record;
    uint32_t at = members->grown_last;
    const uint8_t *last = queue_next(&members->grown, &at, &record);
    if (last && record.name_bytes == name_bytes && memcmp(last, name, name_bytes) == 0) return;
    at = members->grown.used;
    if (queue_push(&members->grown, &(struct record){.name_bytes = name_bytes}, name)) members->grown_last = at;
}

void rw_members_deliver(struct rw_core *core) {
    struct rw_members *members = core->members;
    if (members->settling) return; /* whoever delivers comes to it */
    members->settling = 1;
    while (members->grown.used) {
        struct rw_members_queue grown = members->grown;
        members->grown = (struct rw_members_queue){0};
        members->grown_last = 0;
        struct record record;
        uint32_t at = 0;
        for (const uint8_t *name; (name = queue_next(&grown, &at, &record)) != NULL;)
            rw_logged_grown(core, name, record.name_bytes);
        free(grown.bytes);
    }
    members->settling = 0;
}

/* ------------------------------------------------------------------ seats end */
static void on_left(void *context, const uint8_t *name, uint32_t name_bytes) {
    struct rw_core *core = context;
    RW_COUNT(core, presence_leaves, 1);
    if (!core->members->presence.is_shared) note_grown(core, name, name_bytes);
}

/* ret: 1: the seat is free, or was not ours (its shard was emptied); 0: not yet */
static int free_seat(struct rw_core *core, const struct log_name *log, rw_block seat, struct rw_presence_seat of,
                     int closed) {
    const struct rw_presence_clock now = clock_now();
    int32_t result = rw_presence_leave(&core->members->presence, &log->name, seat, of, closed, &now);
    if (result < 0 && result != RW_ERR_STALE) return 0;
    if (result == RW_PRESENCE_CHANGED) on_left(core, log->name.bytes, log->name.count);
    return 1;
}

static void leave(struct rw_core *core, const struct log_name *log, rw_block seat, struct rw_presence_seat of,
                  int closed) {
    RW_GAUGE(core, presence_members, core->stats->presence_members - 1);
    if (free_seat(core, log, seat, of, closed)) return;
    const struct record record = {log->name.count, seat, of, (uint32_t)closed};
    (void)queue_push(&core->members->owed, &record, log->name.bytes);
}

static void on_absent(void *context, uint32_t slot, const uint8_t *topic, uint32_t topic_bytes, uint32_t seat,
                      int closed) {
    struct rw_core *core = context;
    struct log_name log;
    if (!log_name(&log, topic, topic_bytes)) return;
    leave(core, &log, seat, (struct rw_presence_seat){slot, rw_core_slot(core, slot)->generation}, closed);
}

static void settle_owed(struct rw_core *core) {
    struct rw_members_queue owed = core->members->owed;
    core->members->owed = (struct rw_members_queue){0};
    struct record record;
    uint32_t at = 0;
    for (const uint8_t *name; (name = queue_next(&owed, &at, &record)) != NULL;) {
        struct log_name log;
        (void)log_name(&log, name + PREFIX_BYTES, record.name_bytes - PREFIX_BYTES);
        if (!free_seat(core, &log, record.seat, record.of, (int)record.closed))
            (void)queue_push(&core->members->owed, &record, name);
    }
    free(owed.bytes);
}

/* ------------------------------------------------------------------ life */
int32_t rw_members_create(struct rw_core *core, uint32_t worker) {
    if (!core->state || !core->bus) return RW_OK;
    struct rw_members *members = calloc(1, sizeof *members);
    if (!members) return -ENOMEM;
    members->presence = (struct rw_presence){.state = core->state,
                                             .shm = core->shm,
                                             .worker = worker,
                                             .epoch = rw_node_bus_epoch(core->bus),
                                             .is_shared = (core->flags & RW_CORE_FOLLOWS_LOGS) != 0};
    core->members = members;
    rw_topics_note_absent(core->topics, on_absent, core);
    return RW_OK;
}

void rw_members_destroy(struct rw_core *core) {
    if (!core->members) return;
    free(core->members->grown.bytes);
    free(core->members->owed.bytes);
    free(core->members);
    core->members = NULL;
}

/* ------------------------------------------------------------------ the host's questions */

/* ret: RW_OK, and *seat of the subscription (0: none) */
static int32_t seat_of(const struct rw_core *core, uint32_t slot, uint32_t generation, const uint8_t *topic,
                       uint32_t topic_bytes, rw_block *seat) {
    if (!core->members) return RW_ERR_UNSUPPORTED;
    if (!rw_slot_pool_get(&core->pool, slot, generation)) return RW_ERR_STALE;
    return rw_topics_seat(core->topics, slot, topic, topic_bytes, seat);
}

static int is_utf8(struct rw_presence_bytes text) {
    return rw_utf8_feed(RW_UTF8_ACCEPT, text.bytes, text.count) == RW_UTF8_ACCEPT;
}

int32_t rw_core_presence_join(struct rw_core *core, uint32_t slot, uint32_t generation, const uint8_t *data,
                              uint32_t topic_bytes, uint32_t user_bytes, uint32_t info_bytes, uint32_t grace_ms,
                              uint32_t members_max) {
    struct log_name log;
    rw_block seat;
    const struct rw_presence_seat of = {slot, generation};
    const struct rw_presence_bytes user = {data + topic_bytes, user_bytes};
    if (!log_name(&log, data, topic_bytes) || user_bytes > RW_PRESENCE_USER_BYTES_MAX || !is_utf8(user))
        return RW_ERR_INVALID;
    int32_t result = seat_of(core, slot, generation, data, topic_bytes, &seat);
    if (result < 0) return result;
    if (seat) {
        result = rw_presence_is(&core->members->presence, &log.name, seat, of, user);
        if (result != 0) return result < 0 ? result : 0;
    }
    /* What may fail comes first: room for the seat of the subscription. */
    if (rw_topics_set_seat(core->topics, slot, data, topic_bytes, 0) != RW_OK) return RW_ERR_FULL;
    if (seat) leave(core, &log, seat, of, 0);
    const struct rw_presence_clock now = clock_now();
    const struct rw_presence_join join = {.seat = of,
                                          .user = user,
                                          .info = {data + topic_bytes + user_bytes, info_bytes},
                                          .grace_ms = grace_ms,
                                          .members_max = members_max};
    result = rw_presence_join(&core->members->presence, &log.name, &join, &now, &seat);
    if (result >= 0) {
        (void)rw_topics_set_seat(core->topics, slot, data, topic_bytes, seat);
        RW_GAUGE(core, presence_members, core->stats->presence_members + 1);
    }
    if (result == RW_PRESENCE_CHANGED) {
        RW_COUNT(core, presence_joins, 1);
        if (!core->members->presence.is_shared) note_grown(core, log.name.bytes, log.name.count);
    }
    rw_members_settle(core);
    return result;
}

int32_t rw_core_presence_leave(struct rw_core *core, uint32_t slot, uint32_t generation, const uint8_t *topic,
                               uint32_t topic_bytes) {
    struct log_name log;
    rw_block seat;
    int32_t result = seat_of(core, slot, generation, topic, topic_bytes, &seat);
    if (result < 0) return result;
    if (!seat || !log_name(&log, topic, topic_bytes)) return 0;
    (void)rw_topics_set_seat(core->topics, slot, topic, topic_bytes, 0);
    leave(core, &log, seat, (struct rw_presence_seat){slot, generation}, 0);
    rw_members_settle(core);
    return 1;
}

int32_t rw_core_presence_count(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint32_t *users,
                               uint32_t *connections) {
    struct log_name log;
    if (!core->members) return RW_ERR_UNSUPPORTED;
    if (!log_name(&log, topic, topic_bytes)) return RW_ERR_INVALID;
    struct rw_presence_count count;
    int32_t result = rw_presence_count(&core->members->presence, &log.name, &count);
    *users = count.users;
    *connections = count.connections;
    return result;
}

int64_t rw_core_presence_list(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint8_t *out,
                              uint64_t bytes, uint64_t *epoch, uint64_t *offset) {
    struct log_name log;
    if (!core->members) return RW_ERR_UNSUPPORTED;
    if (!log_name(&log, topic, topic_bytes)) return RW_ERR_INVALID;
    struct rw_position position;
    int64_t needed =
        rw_presence_list(&core->members->presence, &log.name, clock_ms(CLOCK_REALTIME), out, bytes, &position);
    *epoch = position.epoch;
    *offset = position.offset;
    return needed;
}

int32_t rw_core_presence_tick(struct rw_core *core) {
    if (!core->members) return 0;
    if (core->members->owed.used) settle_owed(core);
    const struct rw_presence_clock now = clock_now();
    int more = rw_presence_tick(&core->members->presence, &now, TICK_USERS, on_left, core);
    rw_members_settle(core);
    rw_logs_sweep(core->state, now.wall_ms);
    return more;
}

int32_t rw_core_presence_take(struct rw_core *core, uint32_t max, uint8_t *out, uint64_t bytes, uint64_t *used) {
    *used = 0;
    if (!core->members) return RW_ERR_UNSUPPORTED;
    if (bytes < RW_PRESENCE_DIRTY_BYTES_MAX) return RW_ERR_INVALID;
    const struct rw_presence_clock now = clock_now();
    return rw_presence_take(&core->members->presence, max, &now, out, bytes, used);
}

int32_t rw_core_presence_acknowledge(struct rw_core *core, const uint8_t *data, uint32_t topic_bytes,
                                     uint32_t user_bytes, uint64_t version) {
    struct log_name log;
    if (!core->members) return RW_ERR_UNSUPPORTED;
    if (!log_name(&log, data, topic_bytes)) return RW_ERR_INVALID;
    const struct rw_presence_bytes user = {data + topic_bytes, user_bytes};
    return rw_presence_acknowledge(&core->members->presence, &log.name, user, version);
}

int32_t rw_core_presence_rewrite(struct rw_core *core, uint32_t cursor) {
    return core->members ? rw_presence_rewrite(&core->members->presence, cursor) : RW_ERR_UNSUPPORTED;
}
