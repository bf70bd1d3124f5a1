/* Logged topics: delivery from the log, in the order of its offsets, see delivery.h.
 *
 * Invariants: a cursor moves forward in its epoch only; what lies between two values of it was queued to every member
 * that does not lag, or each was told that it is lost. Nothing is delivered while a shard is held: entries are copied
 * out first. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/load.h"
#include "connection/connection.h"
#include "delivery/delivery.h"

#define LOOK_MS 1000u
#define LOOKS_PER_TURN 256u
#define PAYLOADS_BYTES 65536u
#define PAYLOADS_BYTES_KEPT (1u << 20) /* a larger buffer, for a large message, is given back */
/* What one topic may queue before the others of the turn have theirs. */
#define DELIVERIES_AT_ONCE 65536u

uint64_t rw_logged_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------ reading */

/* ret: 0 memory is short */
static int payloads_reserve(struct rw_delivery *delivery, uint64_t bytes) {
    if (bytes <= delivery->payloads_bytes) return 1;
    uint8_t *grown = malloc(bytes);
    if (!grown) return 0;
    free(delivery->payloads);
    delivery->payloads = grown;
    delivery->payloads_bytes = bytes;
    return 1;
}

int32_t rw_logged_read(struct rw_core *core, const uint8_t *topic, uint32_t bytes, struct rw_topic_cursor after,
                       struct rw_log_end *end) {
    struct rw_delivery *delivery = core->delivery;
    if (!core->state) return RW_ERR_UNSUPPORTED;
    uint64_t wanted = delivery->payloads_bytes > PAYLOADS_BYTES_KEPT || !delivery->payloads_bytes
                          ? PAYLOADS_BYTES
                          : delivery->payloads_bytes;
    if (delivery->payloads_bytes > PAYLOADS_BYTES_KEPT) {
        free(delivery->payloads);
        delivery->payloads = NULL;
        delivery->payloads_bytes = 0;
    }
    if (!payloads_reserve(delivery, wanted)) return -ENOMEM;
    const struct rw_state_name name = rw_state_name(topic, bytes);
    const struct rw_log_query query = {.epoch = after.epoch, .after = after.offset, .max = RW_LOGGED_ENTRIES};
    for (;;) {
        uint64_t needed = 0;
        int32_t count = rw_log_read(core->state, &name, &query, rw_logged_now_ms(), delivery->entries,
                                    delivery->payloads, delivery->payloads_bytes, end, &needed);
        if (count != 0 || needed == 0) return count;
        if (!payloads_reserve(delivery, needed)) return -ENOMEM;
    }
}

/* ------------------------------------------------------------------ messages */

#define PRESENCE_PREFIX_BYTES 2u /* "\0p" */

static int is_presence(const uint8_t *topic, uint32_t bytes) {
    return bytes > PRESENCE_PREFIX_BYTES && topic[0] == 0 && topic[1] == 'p';
}

/* A join or leave: u16 bytes of the user's name, the name, and its info. What is not that says nothing of either. */
static void read_member(struct rw_topic_message *message, const struct rw_log_entry *entry) {
    message->event = (entry->flags & RW_LOG_KIND) == RW_LOG_JOIN ? RW_TOPIC_JOIN : RW_TOPIC_LEAVE;
    if (entry->bytes < 2) return;
    uint32_t user_bytes = (uint32_t)entry->payload[0] | (uint32_t)entry->payload[1] << 8;
    if (user_bytes > entry->bytes - 2) return;
    message->user = entry->payload + 2;
    message->user_bytes = user_bytes;
    message->info = entry->payload + 2 + user_bytes;
    message->info_bytes = entry->bytes - 2 - user_bytes;
}

struct rw_topic_message rw_logged_message(const uint8_t *topic, uint32_t bytes, struct rw_topic_cursor at,
                                          const struct rw_log_entry *entry) {
    struct rw_topic_message message = {.topic = topic,
                                       .topic_bytes = bytes,
                                       .epoch = at.epoch,
                                       .offset = at.offset,
                                       .event = entry ? RW_TOPIC_MESSAGE : RW_TOPIC_LOST};
    if (is_presence(topic, bytes)) {
        message.topic += PRESENCE_PREFIX_BYTES;
        message.topic_bytes -= PRESENCE_PREFIX_BYTES;
        message.of_members = 1;
    }
    if (!entry) return message;
    message.payload = entry->payload;
    message.payload_bytes = entry->bytes;
    message.is_text = (entry->flags & RW_SEND_TEXT) != 0;
    if (entry->flags & RW_LOG_KIND) read_member(&message, entry);
    return message;
}

uint32_t rw_logged_except(const struct rw_core *core, const struct rw_log_entry *entry) {
    const struct rw_origin *origin = &entry->origin;
    if (!origin->epoch || !core->bus || origin->worker != rw_node_bus_worker(core->bus) ||
        origin->epoch != rw_node_bus_epoch(core->bus))
        return RW_NO_SLOT;
    return rw_slot_pool_get(&core->pool, origin->slot, origin->generation) ? origin->slot : RW_NO_SLOT;
}

/* ------------------------------------------------------------------ delivering */

/* To all members but those that lag: an entry, or that all up to `at` are lost. What they have had before is where the
 * cursor stands; then it is moved. ret: deliveries */
static uint32_t deliver_one(struct rw_core *core, uint32_t topic, struct rw_topic_cursor at,
                            const struct rw_log_entry *entry) {
    const struct rw_topic_name name = rw_topics_name(core->topics, topic);
    struct rw_topic_cursor before = rw_topics_log(core->topics, topic)->cursor;
    struct rw_publication publication;
    const struct rw_topic_message message = rw_logged_message(name.bytes, name.count, at, entry);
    rw_publication_begin(&publication, &message, entry ? entry->flags : 0);
    uint32_t delivered =
        rw_delivery_fan_out(core, topic, &publication, entry ? rw_logged_except(core, entry) : RW_NO_SLOT, &before);
    rw_publication_end(core, &publication);
    if (!entry) RW_COUNT(core, topic_lost, delivered);
    /* Its last member may have gone with it. */
    struct rw_topic_log *log = rw_topics_log(core->topics, topic);
    if (log) log->cursor = at;
    return delivered;
}

static int has_members(const struct rw_core *core, uint32_t topic) {
    uint32_t count = 0;
    if (rw_topics_is_heard(core->topics, topic)) (void)rw_topics_members(core->topics, topic, &count);
    return count != 0;
}

static void mark_due(struct rw_core *core, uint32_t topic) {
    struct rw_topic_log *log = rw_topics_log(core->topics, topic);
    if (!log || log->due) return;
    /* Without memory for the list it is found by the next look. */
    log->due = rw_slot_list_push(&core->delivery->due, topic) == 0;
}

int rw_logged_deliver(struct rw_core *core, uint32_t topic) {
    uint32_t work = 0;
    for (;;) {
        struct rw_topic_log *log = rw_topics_log(core->topics, topic);
        if (!log) return 1;
        const struct rw_topic_name name = rw_topics_name(core->topics, topic);
        struct rw_log_end end;
        if (!has_members(core, topic)) {
            const struct rw_state_name of = rw_state_name(name.bytes, name.count);
            if (rw_log_end(core->state, &of, rw_logged_now_ms(), &end) > 0)
                log->cursor = (struct rw_topic_cursor){end.epoch, end.last};
            return 1;
        }
        int32_t count = rw_logged_read(core, name.bytes, name.count, log->cursor, &end);
        if (count < 0) return 1; /* it is gone: when it begins anew they are told; or the next look finds it */
        if (!log->cursor.epoch) {
            log->cursor = (struct rw_topic_cursor){end.epoch, 0};
            continue;
        }
        if (rw_logged_is_past(&end, log->cursor)) {
            work += deliver_one(core, topic, (struct rw_topic_cursor){end.epoch, end.first - 1}, NULL) + 1;
            if (work > DELIVERIES_AT_ONCE) break;
            continue;
        }
        if (count == 0) return 1;
        for (int32_t i = 0; i < count && rw_topics_log(core->topics, topic); i++) {
            const struct rw_log_entry *entry = &core->delivery->entries[i];
            work += deliver_one(core, topic, (struct rw_topic_cursor){end.epoch, entry->offset}, entry) + 1;
        }
        if (work > DELIVERIES_AT_ONCE) break;
    }
    mark_due(core, topic);
    return 0;
}

/* ------------------------------------------------------------------ what moves cursors */

struct rw_topic_log *rw_logged_begin(struct rw_core *core, uint32_t topic, struct rw_topic_cursor at) {
    struct rw_topic_log *log = rw_topics_log(core->topics, topic);
    if (log) return log;
    log = rw_topics_log_begin(core->topics, topic);
    if (!log) return NULL;
    const struct rw_topic_name name = rw_topics_name(core->topics, topic);
    log->cursor = log->host = at;
    log->shard = (uint8_t)rw_state_name(name.bytes, name.count).shard;
    return log;
}

void rw_logged_advance(struct rw_core *core, const uint8_t *topic, uint32_t bytes, struct rw_position position,
                       const struct rw_log_entry *entry) {
    uint32_t id = rw_topics_find(core->topics, topic, bytes, rw_topics_hash(topic, bytes));
    if (!id) return;
    /* Who was subscribed while the topic was direct hears what comes from here on. */
    struct rw_topic_log *log = rw_logged_begin(core, id, (struct rw_topic_cursor){position.epoch, position.offset - 1});
    if (!log) return;
    if (rw_topics_is_held(core->topics, id)) rw_hold_due(core, id);
    if (log->due || (log->cursor.epoch == position.epoch && log->cursor.offset >= position.offset)) return;
    int is_next = log->cursor.epoch == position.epoch && log->cursor.offset + 1 == position.offset;
    if (entry && is_next) (void)deliver_one(core, id, (struct rw_topic_cursor){position.epoch, position.offset}, entry);
    else (void)rw_logged_deliver(core, id);
}

void rw_logged_announce(struct rw_core *core, const uint8_t *topic, uint32_t bytes, struct rw_position position,
                        const struct rw_log_entry *entry) {
    rw_logged_advance(core, topic, bytes, position, entry);
    if (!core->bus) return;
    const struct rw_node_message message = {.topic = topic,
                                            .payload = (const uint8_t *)&position,
                                            .topic_bytes = bytes,
                                            .payload_bytes = sizeof position,
                                            .topic_hash = rw_topics_hash(topic, bytes),
                                            .flags = RW_NODE_ADVANCED};
    (void)rw_node_bus_publish(core->bus, &message);
}

void rw_logged_grown(struct rw_core *core, const uint8_t *topic, uint32_t bytes) {
    const struct rw_state_name name = rw_state_name(topic, bytes);
    struct rw_log_end end;
    if (rw_log_end(core->state, &name, rw_logged_now_ms(), &end) <= 0) return;
    rw_logged_announce(core, topic, bytes, (struct rw_position){end.epoch, end.last}, NULL);
}

static void deliver_due(struct rw_core *core) {
    struct rw_slot_list *due = &core->delivery->due;
    uint32_t count = due->count, at = 0;
    for (int all = 1; at < count && all; at++) {
        struct rw_topic_log *log = rw_topics_log(core->topics, due->items[at]);
        if (!log || !log->due) continue; /* it has ended, and its id may be another's */
        log->due = 0;
        all = rw_logged_deliver(core, due->items[at]);
    }
    /* One with more than a turn's worth ends it, and is due again behind the others. */
    due->count -= at;
    for (uint32_t i = 0; i < due->count; i++) due->items[i] = due->items[i + at];
}

/* ------------------------------------------------------------------ a look once a second */

static void begin_look(struct rw_core *core) {
    struct rw_delivery *delivery = core->delivery;
    delivery->looked_ms = core->now_ms;
    if (!rw_topics_logged(core->topics)) return;
    for (uint32_t shard = 0; shard < RW_STATE_SHARDS; shard++) {
        uint64_t changes = rw_state_changes(core->state, shard);
        if (changes == delivery->changes[shard]) continue;
        delivery->changes[shard] = changes;
        delivery->look_shards |= (uint64_t)1 << shard;
    }
    if (delivery->look_shards) delivery->look_at = 1;
}

static void look(struct rw_core *core) {
    struct rw_delivery *delivery = core->delivery;
    uint32_t looks = 0;
    for (; delivery->look_at < rw_topics_ids(core->topics); delivery->look_at++) {
        uint32_t topic = delivery->look_at;
        struct rw_topic_log *log = rw_topics_log(core->topics, topic);
        if (!log || log->due || !(delivery->look_shards >> log->shard & 1)) continue;
        if (looks++ == LOOKS_PER_TURN) return;
        const struct rw_topic_name name = rw_topics_name(core->topics, topic);
        const struct rw_state_name of = rw_state_name(name.bytes, name.count);
        struct rw_log_end end;
        if (rw_log_end(core->state, &of, rw_logged_now_ms(), &end) <= 0) continue;
        if (rw_topics_is_held(core->topics, topic) && (log->host.epoch != end.epoch || log->host.offset < end.last))
            rw_hold_due(core, topic);
        if (log->cursor.epoch == end.epoch && log->cursor.offset >= end.last) continue;
        if (!rw_logged_deliver(core, topic)) return;
    }
    delivery->look_at = 0;
    delivery->look_shards = 0;
}

void rw_logged_step(struct rw_core *core) {
    struct rw_delivery *delivery = core->delivery;
    if (!core->state) return;
    if (delivery->due.count) deliver_due(core);
    if (!delivery->look_at && core->now_ms - delivery->looked_ms >= LOOK_MS) begin_look(core);
    if (delivery->look_at) look(core);
}

int64_t rw_delivery_due_ms(const struct rw_core *core) {
    if (!core->state || !rw_topics_logged(core->topics)) return -1;
    uint32_t passed = core->now_ms - core->delivery->looked_ms;
    return passed >= LOOK_MS ? 0 : LOOK_MS - passed;
}
