/* Members with a place of their own in the log: those who come with `since`, and those who lag, see delivery.h.
 *
 * Who is attached is subscribed first and then lags from `since` on: what it has missed and what comes is one log, read
 * in order, so there is no seam. When it has caught up with its topic it is a member like any other.
 *
 * Invariant: a member that lags gets nothing of its topic but from here, and waits for a turn (core->resumed) or for its
 * output to drain. */
#include <errno.h>

#include "connection/connection.h"
#include "delivery/delivery.h"

#define ENTRIES_PER_TURN 256u      /* of one connection, before others have theirs */
#define ENTRIES_PER_TURN_ALL 8192u /* of all of them, a few ms: when thousands have come back at once */

enum progress {
    CAUGHT_UP,
    FULL, /* it goes on when its output has drained */
    MORE, /* it goes on in the next turn */
    ENDED /* the connection hears nothing any more */
};

/* ------------------------------------------------------------------ one member */

/* One connection gets a message, or is told (entry NULL) that all up to `at` are lost. */
static enum rw_delivered deliver_to(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes,
                                    struct rw_topic_cursor at, const struct rw_log_entry *entry) {
    struct rw_publication publication;
    const struct rw_topic_message message = rw_logged_message(topic, bytes, at, entry);
    rw_publication_begin(&publication, &message, entry ? entry->flags : 0);
    uint32_t delivered = rw_protocol_of(core, slot)->deliver(core, slot, &publication);
    rw_publication_end(core, &publication);
    if (delivered != RW_DELIVERED) return (enum rw_delivered)delivered;
    RW_COUNT(core, deliveries, 1);
    if (!entry) RW_COUNT(core, topic_lost, 1);
    return RW_DELIVERED;
}

static enum progress ended(struct rw_core *core, struct rw_slot *slot, uint32_t topic) {
    /* It is closing, and subscribed as long as it is there. */
    if (slot->state.phase == RW_PHASE_OPEN) rw_topics_lag_end(core->topics, topic, rw_core_index(core, slot));
    return ENDED;
}

/* The log has nothing left of what this member is due. was_slow: it had its time to take it.
 * ret: CAUGHT_UP: it was told, and its cursor is `at` */
static enum progress tell_past(struct rw_core *core, struct rw_slot *slot, uint32_t topic, struct rw_topic_cursor at,
                               int was_slow) {
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    struct rw_topic_cursor *lag = rw_topics_lag(core->topics, topic, rw_core_index(core, slot));
    /* Only in its epoch it is the connection that was too slow. */
    if (was_slow && protocol->fell_behind && lag->epoch == at.epoch && lag->offset < at.offset &&
        !protocol->fell_behind(core, slot, at.offset - lag->offset))
        return ENDED;
    const struct rw_topic_name name = rw_topics_name(core->topics, topic);
    switch (deliver_to(core, slot, name.bytes, name.count, at, NULL)) {
        case RW_DELIVERED: break;
        case RW_DELIVERED_NOT: return ended(core, slot, topic);
        case RW_DELIVERED_FULL: return slot->state.phase == RW_PHASE_OPEN ? FULL : ENDED;
    }
    /* Telling may have ended it. */
    lag = rw_topics_lag(core->topics, topic, rw_core_index(core, slot));
    if (!lag) return ENDED;
    *lag = at;
    return CAUGHT_UP;
}

/* Up to where its topic stands, or `*left` entries. *sent grows. */
static enum progress catch_up(struct rw_core *core, struct rw_slot *slot, uint32_t topic, uint32_t *left,
                              uint32_t *sent, int was_slow) {
    uint32_t index = rw_core_index(core, slot);
    (void)rw_logged_deliver(core, topic);
    for (;;) {
        /* Whatever was sent may have ended the connection, and with it the topic. */
        if (slot->state.phase != RW_PHASE_OPEN) return ENDED;
        const struct rw_topic_cursor *lag = rw_topics_lag(core->topics, topic, index);
        if (!lag) return CAUGHT_UP; /* it has left the topic */
        const struct rw_topic_log *log = rw_topics_log(core->topics, topic);
        if (lag->epoch == log->cursor.epoch && lag->offset >= log->cursor.offset) {
            if (lag->offset > log->cursor.offset) return MORE; /* the topic has yet to come here */
            rw_topics_lag_end(core->topics, topic, index);
            return CAUGHT_UP;
        }
        if (!*left) return MORE;
        const struct rw_topic_name name = rw_topics_name(core->topics, topic);
        struct rw_log_end end;
        int32_t count = rw_logged_read(core, name.bytes, name.count, *lag, &end);
        if (count == -ENOMEM || count == -ETIMEDOUT) return MORE;
        if (count < 0 || rw_logged_is_past(&end, *lag) || (uint32_t)count == 0) {
            struct rw_topic_cursor at = log->cursor;
            if (count >= 0 && end.epoch == at.epoch && end.first <= at.offset) at.offset = end.first - 1;
            enum progress told = tell_past(core, slot, topic, at, was_slow);
            if (told != CAUGHT_UP) return told;
            continue;
        }
        for (int32_t i = 0; i < count && *left; i++) {
            const struct rw_log_entry *entry = &core->delivery->entries[i];
            log = rw_topics_log(core->topics, topic);
            if (end.epoch == log->cursor.epoch && entry->offset > log->cursor.offset) break;
            const struct rw_topic_cursor at = {end.epoch, entry->offset};
            if (rw_logged_except(core, entry) != index) {
                enum rw_delivered delivered = deliver_to(core, slot, name.bytes, name.count, at, entry);
                if (delivered == RW_DELIVERED_NOT) return ended(core, slot, topic);
                if (slot->state.phase != RW_PHASE_OPEN) return ENDED;
                if (delivered == RW_DELIVERED_FULL) return FULL;
                ++*sent;
            }
            struct rw_topic_cursor *moved = rw_topics_lag(core->topics, topic, index);
            if (!moved) return CAUGHT_UP;
            *moved = at;
            --*left;
        }
    }
}

/* All topics of a connection that it lags behind; *left entries go to it at most. */
static void resume(struct rw_core *core, struct rw_slot *slot, uint32_t *left) {
    uint32_t sent = 0, topic;
    uint32_t index = rw_core_index(core, slot);
    uint32_t cursor = slot->subscriptions;
    uint32_t lags = 0;
    while (rw_topics_next_id_of_slot(core->topics, &cursor, &topic)) {
        if (!rw_topics_lag(core->topics, topic, index)) continue;
        enum progress progress = catch_up(core, slot, topic, left, &sent, 1);
        if (progress == ENDED || progress == FULL) return;
        if (progress == CAUGHT_UP) continue;
        lags = 1;
        rw_connection_mark_resumed(core, slot);
    }
    slot->state.lagging = lags & 1u;
}

void rw_attach_resume(struct rw_core *core) {
    struct rw_slot_list *list = &core->resumed;
    uint32_t count = list->count, all = ENTRIES_PER_TURN_ALL, at = 0;
    for (; at < count && all; at++) {
        struct rw_slot *slot = rw_core_slot(core, list->items[at]);
        slot->state.resuming = 0;
        if (slot->state.phase != RW_PHASE_OPEN) continue;
        uint32_t share = all < ENTRIES_PER_TURN ? all : ENTRIES_PER_TURN, left = share;
        resume(core, slot, &left);
        all -= share - left;
    }
    /* Whose turn has not come is first in the next one; who has more to take lies behind. */
    list->count -= at;
    for (uint32_t i = 0; i < list->count; i++) list->items[i] = list->items[i + at];
}

/* ------------------------------------------------------------------ attaching */

static int follows(const struct rw_core *core) { return (core->flags & RW_CORE_FOLLOWS_LOGS) != 0; }

/* Where the log stands; one that is not there begins. ret: RW_OK or as rw_attach() */
static int32_t look_at_log(struct rw_core *core, const uint8_t *topic, uint32_t bytes, struct rw_log_end *end) {
    const struct rw_state_name name = rw_state_name(topic, bytes);
    int32_t found = follows(core) ? rw_log_end(core->state, &name, rw_logged_now_ms(), end)
                                  : rw_log_open(core->state, &name, rw_logged_now_ms(), end);
    if (found < 0) return found;
    return follows(core) && (!found || !end->is_followed) ? RW_ERR_UNFOLLOWED : RW_OK;
}

/* ret: 1 all that came after `since` is there, 0 it is not, RW_ERR_BEHIND the store may have it */
static int32_t judge(const struct rw_core *core, const struct rw_position *since, const struct rw_log_end *end) {
    if (!since) return 0;
    if (since->epoch != end->epoch || since->offset > end->last) return 0;
    if (since->offset + 1 >= end->first) return 1;
    return follows(core) ? RW_ERR_BEHIND : 0;
}

/* Where the connection stands in a topic that it is subscribed to. */
static void stands(struct rw_core *core, struct rw_slot *slot, uint32_t topic, struct rw_attached *out) {
    const struct rw_topic_log *log = rw_topics_log(core->topics, topic);
    const struct rw_topic_cursor *lag = rw_topics_lag(core->topics, topic, rw_core_index(core, slot));
    const struct rw_topic_cursor at = lag ? *lag : log->cursor;
    out->position = (struct rw_position){at.epoch, at.offset};
}

int32_t rw_attach(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes,
                  const struct rw_position *since, struct rw_attached *out) {
    *out = (struct rw_attached){0};
    if (!core->state) return RW_ERR_UNSUPPORTED;
    if (bytes == 0 || bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    if (slot->state.phase != RW_PHASE_OPEN || !protocol->deliver || !protocol->hears(slot)) return RW_ERR_STALE;
    uint64_t hash = rw_topics_hash(topic, bytes);
    struct rw_log_end end;
    int32_t result = look_at_log(core, topic, bytes, &end);
    if (result != RW_OK) return result;
    /* Whoever is there has what came before, or knows that the log has begun anew: all of them go on from one place. */
    uint32_t id = rw_topics_find(core->topics, topic, bytes, hash);
    if (id && rw_topics_log(core->topics, id)) {
        while (!rw_logged_deliver(core, id)) continue;
        if (slot->state.phase != RW_PHASE_OPEN || !protocol->hears(slot)) return RW_ERR_STALE;
        result = look_at_log(core, topic, bytes, &end);
        if (result != RW_OK) return result;
    }
    int32_t recovered = judge(core, since, &end);
    if (recovered < 0) {
        RW_COUNT(core, topic_attaches_behind, 1);
        return recovered;
    }
    int32_t subscribed = rw_delivery_subscribe(core, slot, topic, bytes);
    if (subscribed < 0) return subscribed;
    id = rw_topics_find(core->topics, topic, bytes, hash);
    struct rw_topic_log *log = rw_logged_begin(core, id, (struct rw_topic_cursor){end.epoch, end.last});
    if (!log) {
        if (subscribed) (void)rw_delivery_unsubscribe(core, slot, topic, bytes);
        return -ENOMEM;
    }
    if (!subscribed) {
        stands(core, slot, id, out);
        return 0;
    }
    out->recovered = (uint32_t)recovered;
    if (since && recovered) RW_COUNT(core, topic_attaches_recovered, 1);
    if (since && !recovered) RW_COUNT(core, topic_attaches_lost, 1);
    if (recovered && (since->epoch != log->cursor.epoch || since->offset != log->cursor.offset)) {
        if (rw_topics_lag_begin(core->topics, id, rw_core_index(core, slot),
                                (struct rw_topic_cursor){since->epoch, since->offset}) != RW_OK) {
            (void)rw_delivery_unsubscribe(core, slot, topic, bytes);
            return -ENOMEM;
        }
        uint32_t left = ENTRIES_PER_TURN;
        slot->state.lagging = 1; /* from here on others' deliveries leave it out; whoever resumes it looks again */
        enum progress progress = catch_up(core, slot, id, &left, &out->sent, 0);
        if (progress == ENDED || slot->state.phase != RW_PHASE_OPEN) return RW_ERR_STALE;
        if (progress == MORE) rw_connection_mark_resumed(core, slot);
    }
    log = rw_topics_log(core->topics, id);
    out->position = (struct rw_position){log->cursor.epoch, log->cursor.offset};
    return 1;
}

int32_t rw_attach_send(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes,
                       struct rw_position position, const struct rw_log_entry *entry) {
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    if (slot->state.phase != RW_PHASE_OPEN || !protocol->deliver || !protocol->hears(slot)) return RW_ERR_STALE;
    const struct rw_topic_cursor at = {position.epoch, position.offset};
    switch (deliver_to(core, slot, topic, bytes, at, entry)) {
        case RW_DELIVERED: return RW_OK;
        case RW_DELIVERED_FULL: return RW_ERR_FULL;
        case RW_DELIVERED_NOT: break;
    }
    return slot->state.phase == RW_PHASE_OPEN && protocol->hears(slot) ? RW_ERR_FULL : RW_ERR_STALE;
}
