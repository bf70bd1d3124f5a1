/* Topics that the host hears, and what it is told of connections that have missed something, see delivery.h.
 *
 * Of a logged topic the host has a cursor, as a member that lags: what finds no room in a batch is read from the log in
 * the next turn. Of a direct one its messages wait in a queue, whose bound is what a host that is too slow costs; past it
 * they are counted. Both are told while a quarter of the batch is left for connections.
 *
 * Role: topics → event batch. Up: delivery. Down: event_batch, logs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connection/connection.h"
#include "connection/event_batch.h"
#include "delivery/delivery.h"

#define NOTICES_MAX 4096u
#define NOTICES_BYTES_MAX (4u << 20)
#define POSITION_BYTES 16u

struct notice {
    rw_buffer payload;
    uint32_t bytes;
    uint32_t slot, generation;
    uint16_t type, flags; /* of the event */
    uint16_t topic_bytes;
};

/* A ring: notices[first..first + count), modulo its size. */
struct rw_holds {
    struct notice notices[NOTICES_MAX];
    uint32_t first, count;
    uint64_t bytes;
};

/* ------------------------------------------------------------------ events */

static int has_room(const struct rw_core *core, uint32_t bytes) {
    if (core->events.count >= RW_EVENTS_CAPACITY / 4 * 3) return 0;
    if (bytes > RW_EVENT_LARGE_BYTES)
        return !core->events.held_bytes || core->events.held_bytes + bytes <= RW_HELD_BYTES_MAX;
    return core->events.payload_used + bytes <= RW_PAYLOAD_BYTES / 4 * 3;
}

/* ret: where the payload goes; NULL: no room or no memory */
static uint8_t *add_event(struct rw_core *core, uint32_t slot, uint32_t generation, enum rw_event_type type,
                          uint32_t flags, uint32_t topic_bytes, uint32_t bytes) {
    if (!has_room(core, bytes)) return NULL;
    struct rw_event *event;
    uint8_t *payload = NULL;
    if (bytes > RW_EVENT_LARGE_BYTES) {
        rw_buffer buffer = rw_buffers_acquire(core->buffers, bytes);
        if (!buffer) return NULL;
        event = rw_event_add_large_for(core, slot, generation, type, buffer, bytes);
        if (!event) {
            rw_buffers_release(core->buffers, buffer);
            return NULL;
        }
        core->events.held_bytes += bytes;
        payload = rw_buffers_data(core->buffers, buffer);
    } else {
        event = rw_event_add_for(core, slot, generation, type, bytes, &payload);
        assert(event && "there is room");
    }
    event->flags = (uint16_t)(event->flags | flags);
    event->request = (uint16_t)topic_bytes;
    return payload;
}

static uint8_t *put_position(uint8_t *out, uint64_t epoch, uint64_t offset) {
    memcpy(out, &epoch, sizeof epoch);
    memcpy(out + sizeof epoch, &offset, sizeof offset);
    return out + POSITION_BYTES;
}

static uint8_t *put_bytes(uint8_t *out, const uint8_t *bytes, uint64_t count) {
    if (count) memcpy(out, bytes, (size_t)count);
    return out + count;
}

/* ------------------------------------------------------------------ notices */

/* ret: where its payload goes; NULL: past the bounds, or memory is short */
static uint8_t *add_notice(struct rw_core *core, struct notice notice) {
    struct rw_delivery *delivery = core->delivery;
    if (!delivery->holds && !(delivery->holds = calloc(1, sizeof *delivery->holds))) return NULL;
    struct rw_holds *holds = delivery->holds;
    if (holds->count == NOTICES_MAX || (holds->bytes && holds->bytes + notice.bytes > NOTICES_BYTES_MAX)) return NULL;
    notice.payload = rw_buffers_acquire(core->buffers, notice.bytes);
    if (!notice.payload) return NULL;
    holds->notices[(holds->first + holds->count++) % NOTICES_MAX] = notice;
    holds->bytes += notice.bytes;
    return rw_buffers_data(core->buffers, notice.payload);
}

void rw_hold_message(struct rw_core *core, const struct rw_publication *publication) {
    const struct rw_topic_message *message = &publication->message;
    uint64_t bytes = message->topic_bytes + message->payload_bytes;
    uint32_t flags = (publication->flags & RW_SEND_TEXT ? RW_HEARD_TEXT : 0) |
                     (publication->flags & RW_SEND_COMPRESS ? RW_HEARD_COMPRESS : 0);
    uint8_t *out = NULL;
    if (bytes <= UINT32_MAX / 4)
        out = add_notice(core, (struct notice){.bytes = (uint32_t)bytes,
                                               .slot = RW_NO_SLOT,
                                               .type = RW_EVENT_TOPIC,
                                               .flags = (uint16_t)flags,
                                               .topic_bytes = (uint16_t)message->topic_bytes});
    if (!out) {
        RW_COUNT(core, topic_host_drops, 1);
        return;
    }
    (void)put_bytes(put_bytes(out, message->topic, message->topic_bytes), message->payload, message->payload_bytes);
}

void rw_hold_lost(struct rw_core *core, struct rw_slot *slot, const struct rw_topic_message *message) {
    uint8_t *out = add_notice(core, (struct notice){.bytes = POSITION_BYTES + message->topic_bytes,
                                                    .slot = rw_core_index(core, slot),
                                                    .generation = slot->generation,
                                                    .type = RW_EVENT_LOST,
                                                    .topic_bytes = (uint16_t)message->topic_bytes});
    if (out) {
        (void)put_bytes(put_position(out, message->epoch, message->offset), message->topic, message->topic_bytes);
        return;
    }
    /* Nobody could be told: its end tells. */
    rw_protocol_of(core, slot)->note_end(slot, RW_END_NO_MEMORY);
    rw_connection_terminate(core, slot);
}

static int tell_notices(struct rw_core *core) {
    struct rw_holds *holds = core->delivery->holds;
    while (holds && holds->count) {
        struct notice *notice = &holds->notices[holds->first];
        /* A connection whose end was told is not spoken of any more. */
        const struct rw_slot *slot =
            notice->slot == RW_NO_SLOT ? NULL : rw_slot_pool_get(&core->pool, notice->slot, notice->generation);
        if (notice->slot == RW_NO_SLOT || (slot && slot->state.phase == RW_PHASE_OPEN)) {
            uint8_t *out = add_event(core, notice->slot, notice->generation, (enum rw_event_type)notice->type,
                                     notice->flags, notice->topic_bytes, notice->bytes);
            if (!out) return 0;
            (void)put_bytes(out, rw_buffers_data(core->buffers, notice->payload), notice->bytes);
        }
        rw_buffers_release(core->buffers, notice->payload);
        holds->bytes -= notice->bytes;
        holds->first = (holds->first + 1) % NOTICES_MAX;
        holds->count--;
    }
    return 1;
}

/* ------------------------------------------------------------------ logged topics */

void rw_hold_due(struct rw_core *core, uint32_t topic) {
    struct rw_topic_log *log = rw_topics_log(core->topics, topic);
    if (!log || log->host_due) return;
    log->host_due = rw_slot_list_push(&core->delivery->host_due, topic) == 0;
}

static uint32_t heard_flags(const struct rw_log_entry *entry) {
    if (!entry) return RW_HEARD_POSITION | RW_HEARD_LOST;
    return RW_HEARD_POSITION | (entry->flags & RW_SEND_TEXT ? RW_HEARD_TEXT : 0) |
           (entry->flags & RW_SEND_COMPRESS ? RW_HEARD_COMPRESS : 0) |
           ((entry->flags & RW_LOG_KIND) == RW_LOG_JOIN ? RW_HEARD_JOIN : 0) |
           ((entry->flags & RW_LOG_KIND) == RW_LOG_LEAVE ? RW_HEARD_LEAVE : 0);
}

/* ret: 0 the batch has no room */
static int tell_entry(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, struct rw_topic_cursor at,
                      const struct rw_log_entry *entry) {
    uint64_t bytes = POSITION_BYTES + (uint64_t)topic_bytes + (entry ? entry->bytes : 0);
    uint8_t *out = add_event(core, RW_NO_SLOT, 0, RW_EVENT_TOPIC, heard_flags(entry), topic_bytes, (uint32_t)bytes);
    if (!out) return 0;
    out = put_bytes(put_position(out, at.epoch, at.offset), topic, topic_bytes);
    if (entry) (void)put_bytes(out, entry->payload, entry->bytes);
    return 1;
}

/* ret: 1 the host has all that there is; 0 the batch has no room */
static int tell_logged(struct rw_core *core, uint32_t topic) {
    struct rw_topic_log *log = rw_topics_log(core->topics, topic);
    const struct rw_topic_name name = rw_topics_name(core->topics, topic);
    for (;;) {
        struct rw_log_end end;
        int32_t count = rw_logged_read(core, name.bytes, name.count, log->host, &end);
        if (count < 0) return 1; /* what comes next begins anew, or the next look finds it */
        if (!log->host.epoch) log->host.epoch = end.epoch;
        if (rw_logged_is_past(&end, log->host)) {
            const struct rw_topic_cursor at = {end.epoch, end.first - 1};
            if (!tell_entry(core, name.bytes, name.count, at, NULL)) return 0;
            RW_COUNT(core, topic_lost, 1);
            log->host = at;
            continue;
        }
        for (int32_t i = 0; i < count; i++) {
            const struct rw_log_entry *entry = &core->delivery->entries[i];
            const struct rw_topic_cursor at = {end.epoch, entry->offset};
            if (!tell_entry(core, name.bytes, name.count, at, entry)) return 0;
            log->host = at;
        }
        if (count == 0) return 1;
    }
}

void rw_hold_tell(struct rw_core *core) {
    struct rw_slot_list *due = &core->delivery->host_due;
    if (!tell_notices(core)) return;
    uint32_t at = 0;
    for (; at < due->count; at++) {
        struct rw_topic_log *log = rw_topics_log(core->topics, due->items[at]);
        if (!log || !log->host_due) continue; /* it has ended, and its id may be another's */
        if (rw_topics_is_held(core->topics, due->items[at]) && !tell_logged(core, due->items[at])) break;
        log->host_due = 0;
    }
    /* The one that found no room is the first in the next turn. */
    due->count -= at;
    for (uint32_t i = 0; i < due->count; i++) due->items[i] = due->items[i + at];
}

int rw_hold_has_work(const struct rw_core *core) {
    return core->delivery->host_due.count || (core->delivery->holds && core->delivery->holds->count);
}

/* ------------------------------------------------------------------ holding */

/* What workers ask each other goes by topics that every one of them holds: "\0c" and more. They are nobody's. */
static uint32_t is_own(const uint8_t *topic, uint32_t bytes) { return bytes >= 2 && topic[0] == 0 && topic[1] == 'c'; }

int32_t rw_hold(struct rw_core *core, const uint8_t *topic, uint32_t bytes, const struct rw_position *since) {
    if (bytes == 0 || bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    if (since && !core->state) return RW_ERR_UNSUPPORTED;
    const uint32_t own = is_own(topic, bytes);
    if (!own && !rw_delivery_admits_topic(core, topic, bytes)) return RW_ERR_FULL;
    core->delivery->own_holds += own; /* before it counts as a topic */
    int32_t held = rw_topics_hold(core->topics, topic, bytes);
    if (held != 1) core->delivery->own_holds -= own;
    if (held != 1 || !core->state) return held;
    uint32_t id = rw_topics_find(core->topics, topic, bytes, rw_topics_hash(topic, bytes));
    const struct rw_state_name name = rw_state_name(topic, bytes);
    struct rw_log_end end;
    int begins = since && since->epoch == 0;
    if (begins) since = NULL;
    int is_logged;
    if (begins && !(core->flags & RW_CORE_FOLLOWS_LOGS)) {
        int32_t opened = rw_log_open(core->state, &name, rw_logged_now_ms(), &end);
        if (opened < 0) {
            (void)rw_release(core, topic, bytes);
            return opened;
        }
        is_logged = 1;
    } else {
        is_logged = rw_log_end(core->state, &name, rw_logged_now_ms(), &end) > 0;
    }
    if (!is_logged && !since && !rw_topics_log(core->topics, id)) return 1; /* direct, as far as is known */
    struct rw_topic_cursor at = {0, 0};
    if (is_logged) at = (struct rw_topic_cursor){end.epoch, end.last};
    struct rw_topic_log *log = rw_logged_begin(core, id, at);
    if (!log) {
        (void)rw_release(core, topic, bytes);
        return -ENOMEM;
    }
    log->host = since ? (struct rw_topic_cursor){since->epoch, since->offset} : at;
    if (since) rw_hold_due(core, id);
    return 1;
}

int32_t rw_release(struct rw_core *core, const uint8_t *topic, uint32_t bytes) {
    uint32_t id = rw_topics_find(core->topics, topic, bytes, rw_topics_hash(topic, bytes));
    if (id && rw_topics_is_held(core->topics, id) && is_own(topic, bytes)) core->delivery->own_holds--;
    return rw_topics_release(core->topics, topic, bytes);
}

void rw_hold_destroy(struct rw_core *core) {
    struct rw_holds *holds = core->delivery->holds;
    if (!holds) return;
    for (; holds->count; holds->count--) {
        rw_buffers_release(core->buffers, holds->notices[holds->first].payload);
        holds->first = (holds->first + 1) % NOTICES_MAX;
    }
    free(holds);
    core->delivery->holds = NULL;
}
