/* What the host asks of logs and of who hears topics, see ringway.h. */
#include <errno.h>
#include <string.h>

#include "connection/core.h"
#include "delivery/delivery.h"

#define READ_HEAD_BYTES 32u
#define READ_ENTRY_BYTES 24u
#define READ_ENTRIES_AT_ONCE 128u
#define READ_ENTRIES_MAX 65536u
#define READ_NEEDED_FROM 65536u

static_assert((int)RW_LOG_TAKEN == 0 && (int)RW_LOG_OLD == 1 && (int)RW_LOG_GAP == 2 && (int)RW_LOG_EPOCH == 3,
              "as ringway.h says");

/* ------------------------------------------------------------------ a call's bytes */

static const uint8_t *key_of(const struct rw_log_call *call, const uint8_t *bytes) { return bytes + call->topic_bytes; }

static struct rw_origin origin_of(const struct rw_core *core, const struct rw_log_call *call) {
    if (call->origin_worker == RW_NO_SLOT && call->origin_slot == RW_NO_SLOT) return (struct rw_origin){0};
    if (call->origin_worker == RW_NO_SLOT)
        return (struct rw_origin){.worker = rw_node_bus_worker(core->bus),
                                  .epoch = rw_node_bus_epoch(core->bus),
                                  .slot = call->origin_slot,
                                  .generation = call->origin_generation};
    return (struct rw_origin){.worker = call->origin_worker,
                              .epoch = call->origin_epoch,
                              .slot = call->origin_slot,
                              .generation = call->origin_generation};
}

static struct rw_log_entry entry_of(const struct rw_core *core, const struct rw_log_call *call, const uint8_t *bytes) {
    struct rw_log_entry entry = {.time_ms = call->time_ms,
                                 .flags = call->flags & (RW_SEND_TEXT | RW_SEND_COMPRESS | RW_LOG_KIND),
                                 .bytes = call->payload_bytes,
                                 .payload = bytes + call->topic_bytes + call->key_bytes};
    if (core->bus) entry.origin = origin_of(core, call);
    return entry;
}

/* ------------------------------------------------------------------ appending */

/* A shard that cannot be had has no room, as far as the host is concerned: it may try again. */
static int32_t refused(struct rw_core *core, int32_t result) {
    RW_COUNT(core, topic_appends_refused, 1);
    return result == -ETIMEDOUT ? RW_ERR_FULL : result;
}

int32_t rw_core_log_append(struct rw_core *core, struct rw_log_call *call, const uint8_t *bytes) {
    if (!core->state) return RW_ERR_UNSUPPORTED;
    const struct rw_state_name name = rw_state_name(bytes, call->topic_bytes);
    const struct rw_log_entry entry = entry_of(core, call, bytes);
    const struct rw_log_key key = {
        .bytes = key_of(call, bytes), .count = call->key_bytes, .seconds = call->key_seconds};
    const struct rw_log_limits limits = {.size = call->size, .seconds = call->seconds};
    struct rw_position position;
    int duplicate;
    int32_t result =
        rw_log_append(core->state, &name, &entry, &key, &limits, rw_logged_now_ms(), &position, &duplicate);
    if (result < 0) return refused(core, result);
    call->epoch = position.epoch;
    call->offset = position.offset;
    if (duplicate) return 1;
    RW_COUNT(core, topic_appends, 1);
    RW_COUNT(core, publishes, 1);
    core->sends_settled = 0;
    rw_logged_announce(core, bytes, call->topic_bytes, position, &entry);
    return 0;
}

int32_t rw_core_log_put(struct rw_core *core, struct rw_log_call *call, const uint8_t *bytes) {
    if (!core->state) return RW_ERR_UNSUPPORTED;
    const struct rw_state_name name = rw_state_name(bytes, call->topic_bytes);
    const struct rw_log_entry entry = entry_of(core, call, bytes);
    const struct rw_log_limits limits = {.size = call->size, .seconds = call->seconds};
    const struct rw_position position = {call->epoch, call->offset};
    int32_t result = rw_log_put(core->state, &name, position, &entry, &limits, rw_logged_now_ms());
    if (result < 0) return refused(core, result);
    if (result != RW_LOG_TAKEN) return result;
    RW_COUNT(core, topic_appends, 1);
    RW_COUNT(core, publishes_remote, 1);
    core->sends_settled = 0;
    rw_logged_announce(core, bytes, call->topic_bytes, position, &entry);
    return RW_LOG_TAKEN;
}

int32_t rw_core_log_reset(struct rw_core *core, const struct rw_log_call *call, const uint8_t *bytes) {
    if (!core->state) return RW_ERR_UNSUPPORTED;
    const struct rw_state_name name = rw_state_name(bytes, call->topic_bytes);
    int32_t result = rw_log_reset(core->state, &name, (struct rw_position){call->epoch, call->offset},
                                  call->has_position != 0, rw_logged_now_ms());
    if (result < 0) return result;
    core->sends_settled = 0;
    rw_logged_grown(core, bytes, call->topic_bytes);
    return RW_OK;
}

int32_t rw_core_log_follow(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint32_t follows) {
    if (!core->state) return RW_ERR_UNSUPPORTED;
    const struct rw_state_name name = rw_state_name(topic, topic_bytes);
    return rw_log_follow(core->state, &name, follows != 0);
}

/* ------------------------------------------------------------------ reading */

static void write_head(uint8_t *out, const struct rw_log_end *end, uint32_t count) {
    memcpy(out, &end->epoch, sizeof end->epoch);
    memcpy(out + 8, &end->first, sizeof end->first);
    memcpy(out + 16, &end->last, sizeof end->last);
    memcpy(out + 24, &end->is_followed, sizeof end->is_followed);
    memcpy(out + 28, &count, sizeof count);
}

static uint8_t *write_entry(uint8_t *out, const struct rw_log_entry *entry) {
    memcpy(out, &entry->offset, sizeof entry->offset);
    memcpy(out + 8, &entry->time_ms, sizeof entry->time_ms);
    memcpy(out + 16, &entry->flags, sizeof entry->flags);
    memcpy(out + 20, &entry->bytes, sizeof entry->bytes);
    out += READ_ENTRY_BYTES;
    if (entry->bytes) memmove(out, entry->payload, entry->bytes);
    return out + ((entry->bytes + 7u) & ~7u);
}

int64_t rw_core_log_read(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint64_t epoch,
                         uint64_t after, uint32_t max, uint32_t reverse, uint8_t *out, uint64_t bytes) {
    if (!core->state) return RW_ERR_UNSUPPORTED;
    if (bytes < READ_HEAD_BYTES || max > READ_ENTRIES_MAX) return RW_ERR_INVALID;
    const struct rw_state_name name = rw_state_name(topic, topic_bytes);
    struct rw_log_entry entries[READ_ENTRIES_AT_ONCE];
    struct rw_log_end end = {0};
    uint64_t used = READ_HEAD_BYTES;
    uint32_t total = 0;
    uint32_t most = max < READ_ENTRIES_AT_ONCE ? max : READ_ENTRIES_AT_ONCE;
    do {
        /* Payloads come into the end of the room that is left, behind where their entries will be written. */
        if (most > max - total) most = max - total;
        uint64_t free_bytes = (bytes - used) & ~(uint64_t)7;
        uint64_t heads = (uint64_t)most * READ_ENTRY_BYTES;
        if (heads > free_bytes) heads = free_bytes;
        const struct rw_log_query query = {.epoch = epoch, .after = after, .reverse = reverse != 0, .max = most};
        struct rw_log_end seen;
        uint64_t needed = 0;
        int32_t count = rw_log_read(core->state, &name, &query, rw_logged_now_ms(), entries, out + used + heads,
                                    free_bytes - heads, &seen, &needed);
        if (count < 0 && !total) return count;
        if (count < 0 || (total && seen.epoch != end.epoch)) break; /* gone since: what was read was there */
        if (!total) end = seen;
        uint8_t *at = out + used;
        for (int32_t i = 0; i < count; i++) at = write_entry(at, &entries[i]);
        used = (uint64_t)(at - out);
        total += (uint32_t)count;
        if (count) {
            after = entries[count - 1].offset;
            epoch = end.epoch;
            if (reverse ? after <= end.first : after >= end.last) break;
            if ((uint32_t)count < most && most > 1) most = 1; /* little room: one at a time uses it up */
            else if ((uint32_t)count < most) break;
        } else if (needed && most > 1) {
            most = 1; /* what is kept for the others may be the room that it needs */
        } else if (needed && !total) {
            return -(int64_t)(needed + READ_HEAD_BYTES + READ_ENTRY_BYTES + READ_NEEDED_FROM);
        } else {
            break;
        }
    } while (total < max && bytes - used > READ_ENTRY_BYTES);
    write_head(out, &end, total);
    return (int64_t)used;
}

/* ------------------------------------------------------------------ who hears topics */

int32_t rw_core_attach(struct rw_core *core, uint32_t slot_index, uint32_t generation, struct rw_log_call *call,
                       const uint8_t *bytes) {
    if (!core->state) return RW_ERR_UNSUPPORTED;
    struct rw_slot *slot = rw_slot_pool_get(&core->pool, slot_index, generation);
    if (!slot) return RW_ERR_STALE;
    const struct rw_position since = {call->epoch, call->offset};
    struct rw_attached attached;
    core->sends_settled = 0;
    int32_t result = rw_attach(core, slot, bytes, call->topic_bytes, call->has_position ? &since : NULL, &attached);
    call->epoch = attached.position.epoch;
    call->offset = attached.position.offset;
    call->result = (attached.sent < UINT16_MAX ? attached.sent : UINT16_MAX) |
                   (attached.recovered ? (uint32_t)RW_ATTACH_RECOVERED : 0);
    return result;
}

int32_t rw_core_send_logged(struct rw_core *core, uint32_t slot_index, uint32_t generation,
                            const struct rw_log_call *call, const uint8_t *bytes) {
    struct rw_slot *slot = rw_slot_pool_get(&core->pool, slot_index, generation);
    if (!slot) return RW_ERR_STALE;
    if (call->topic_bytes == 0 || call->topic_bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    const struct rw_log_entry entry = entry_of(core, call, bytes);
    core->sends_settled = 0;
    return rw_attach_send(core, slot, bytes, call->topic_bytes, (struct rw_position){call->epoch, call->offset},
                          &entry);
}

int32_t rw_core_hold(struct rw_core *core, const struct rw_log_call *call, const uint8_t *bytes) {
    const struct rw_position since = {call->epoch, call->offset};
    return rw_hold(core, bytes, call->topic_bytes, call->has_position ? &since : NULL);
}

int32_t rw_core_release(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes) {
    return rw_release(core, topic, topic_bytes);
}

uint32_t rw_core_members(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint32_t *out,
                         uint32_t capacity) {
    uint32_t id = rw_topics_find(core->topics, topic, topic_bytes, rw_topics_hash(topic, topic_bytes));
    uint32_t count = 0;
    const uint32_t *members = id ? rw_topics_members(core->topics, id, &count) : NULL;
    for (uint32_t i = 0; i < count && i < capacity; i++) {
        out[2 * i] = members[i];
        out[2 * i + 1] = rw_core_slot(core, members[i])->generation;
    }
    return count;
}

uint32_t rw_core_topic_names(const struct rw_core *core, const uint8_t *prefix, uint32_t prefix_bytes, uint32_t max,
                             uint32_t *cursor, uint8_t *out, uint32_t bytes) {
    uint32_t used = 0;
    uint32_t at = *cursor;
    const uint8_t *name;
    uint32_t name_bytes;
    for (uint32_t count = 0;; count++) {
        uint32_t before = at;
        if (!rw_topics_next_with_prefix(core->topics, &at, prefix, prefix_bytes, &name, &name_bytes)) {
            *cursor = 0;
            return used;
        }
        if (count == max || bytes - used < sizeof(uint16_t) + name_bytes) {
            *cursor = before;
            return used;
        }
        uint16_t length = (uint16_t)name_bytes;
        memcpy(out + used, &length, sizeof length);
        memcpy(out + used + sizeof length, name, name_bytes);
        used += (uint32_t)sizeof length + name_bytes;
    }
}
