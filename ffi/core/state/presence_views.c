/* What is told of members: counts, lists, and what another store is to have.
 *
 * Role: see presence.h. Lists are copied out while the shard is held, which takes about a microsecond for a hundred
 * users. */
#include <string.h>

#include "state/log.h"
#include "state/presence_records.h"

/* ------------------------------------------------------------------ who is there */
int32_t rw_presence_count(struct rw_presence *presence, const struct rw_state_name *name,
                          struct rw_presence_count *out) {
    struct rw_present_step step;
    *out = (struct rw_presence_count){0};
    int32_t result = rw_present_begin(&step, presence, name->shard, NULL);
    if (result < 0) return result;
    const rw_block block = rw_present_find_topic(&step, name);
    const struct rw_present_topic *topic = block == 0 ? NULL : rw_present_topic_at(&step.tx, block);
    if (topic != NULL) *out = (struct rw_presence_count){topic->users, topic->connections};
    return rw_present_end(&step, RW_OK);
}

/* Unaligned, in host order. */
static uint8_t *put(uint8_t *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
    return to + bytes;
}

#define LIST_HEAD_BYTES 8u

static uint64_t list_copy(struct rw_present_step *step, const struct rw_present_topic *topic, uint8_t *out,
                          uint64_t bytes) {
    uint64_t needed = 0;
    rw_block before = 0;
    for (rw_block block = topic->first; block != 0;) {
        const struct rw_present_user *user = rw_present_user_at(&step->tx, block);
        if (user == NULL || !rw_present_follows(&step->tx, &user->links, before)) return 0;
        if (!(user->flags & RW_PRESENT_GONE)) {
            const uint64_t at = needed;
            const uint32_t text = (uint32_t)user->record.name_bytes + user->info_bytes;
            needed += LIST_HEAD_BYTES + text;
            if (needed <= bytes) {
                const uint32_t connections = rw_present_weight(user);
                uint8_t *to = put(out + at, &connections, sizeof connections);
                to = put(to, &user->record.name_bytes, sizeof user->record.name_bytes);
                to = put(to, &user->info_bytes, sizeof user->info_bytes);
                if (!rw_bytes_read(&step->tx, block, RW_USER_NAME_AT, to, text)) return 0;
            }
        }
        before = block;
        block = user->links.next;
    }
    return needed;
}

int64_t rw_presence_list(struct rw_presence *presence, const struct rw_state_name *name, uint64_t now_ms, uint8_t *out,
                         uint64_t bytes, struct rw_position *position) {
    struct rw_present_step step;
    *position = (struct rw_position){0};
    int32_t result = rw_present_begin(&step, presence, name->shard, NULL);
    if (result < 0) return result;
    /* A log that is not there yet begins, so that there is a position to go on from. */
    struct rw_log_end end;
    int known = rw_logs_end(&step.tx, name, now_ms, &end);
    if (!known && !presence->is_shared) {
        if (rw_logs_reserve(&step.tx, rw_logs_blocks(name, 0), 0, now_ms) < 0 ||
            rw_log_create(&step.tx, name, (struct rw_position){0}, now_ms) == 0) {
            rw_tx_abort(&step.tx);
            return RW_ERR_FULL;
        }
        known = rw_logs_end(&step.tx, name, now_ms, &end);
    }
    if (known) *position = (struct rw_position){end.epoch, end.last};
    const rw_block block = rw_present_find_topic(&step, name);
    const struct rw_present_topic *topic = block == 0 ? NULL : rw_present_topic_at(&step.tx, block);
    const uint64_t needed = topic == NULL ? 0 : list_copy(&step, topic, out, bytes);
    result = rw_present_end(&step, RW_OK);
    return result < 0 ? result : (int64_t)needed;
}

/* ------------------------------------------------------------------ what another store is to have */
#define DIRTY_HEAD_BYTES 18u
#define COMMIT_EVERY 16u /* users, whose changes fit a transaction */

/* ret: bytes written, 0: no room, or damage */
static uint64_t dirty_copy(struct rw_present_step *step, rw_block block, const struct rw_present_user *user,
                           uint8_t *out, uint64_t bytes) {
    struct rw_tx *tx = &step->tx;
    const struct rw_present_topic *topic = rw_present_topic_at(tx, user->record.owner);
    if (topic == NULL || topic->record.name_bytes < 2) return 0;
    const uint16_t topic_bytes = (uint16_t)(topic->record.name_bytes - 2);
    const uint32_t text = (uint32_t)user->record.name_bytes + user->info_bytes;
    const uint64_t needed = DIRTY_HEAD_BYTES + (uint64_t)topic_bytes + text;
    if (needed > bytes) return 0;
    const uint32_t connections = rw_present_weight(user);
    const uint64_t version = rw_present_version(user);
    uint8_t *to = put(out, &connections, sizeof connections);
    to = put(to, &version, sizeof version);
    to = put(to, &topic_bytes, sizeof topic_bytes);
    to = put(to, &user->record.name_bytes, sizeof user->record.name_bytes);
    to = put(to, &user->info_bytes, sizeof user->info_bytes);
    uint8_t name[RW_TOPIC_BYTES_MAX];
    if (topic->record.name_bytes > sizeof name ||
        !rw_bytes_read(tx, user->record.owner, RW_TOPIC_NAME_AT, name, topic->record.name_bytes) ||
        !rw_bytes_read(tx, block, RW_USER_NAME_AT, to + topic_bytes, text))
        return 0;
    (void)put(to, name + 2, topic_bytes);
    return needed;
}

/* ret: how many of this shard; *is_clean: it has no more */
static uint32_t take_shard(struct rw_presence *presence, uint32_t shard, uint32_t max,
                           const struct rw_presence_clock *now, uint8_t *out, uint64_t bytes, uint64_t *used,
                           int *is_clean) {
    struct rw_present_step step;
    *is_clean = 0;
    if (rw_present_begin(&step, presence, shard, now) < 0) return 0;
    uint32_t count = 0;
    uint64_t before = *used;
    while (count < max && step.roots->dirty_first != 0) {
        const rw_block block = step.roots->dirty_first;
        struct rw_present_user *user = rw_present_user_at(&step.tx, block);
        const uint64_t written = user == NULL ? 0 : dirty_copy(&step, block, user, out + *used, bytes - *used);
        if (written == 0) break;
        *used += written;
        RW_TX_SET(&step.tx, user->taken_s, now->monotonic_ms >> 10);
        rw_present_mark(&step, block, RW_PRESENT_TAKEN);
        if (++count % COMMIT_EVERY == 0 && !rw_tx_is_damaged(&step.tx)) rw_tx_commit(&step.tx);
    }
    *is_clean = step.roots->dirty_first == 0;
    if (rw_present_end(&step, RW_OK) == RW_OK) return count;
    *used = before;
    return 0;
}

int32_t rw_presence_take(struct rw_presence *presence, uint32_t max, const struct rw_presence_clock *now, uint8_t *out,
                         uint64_t bytes, uint64_t *used) {
    uint32_t count = 0;
    *used = 0;
    for (uint64_t shards = presence->dirty_shards; shards != 0 && count < max; shards &= shards - 1) {
        const uint32_t shard = (uint32_t)__builtin_ctzll(shards);
        int is_clean;
        count += take_shard(presence, shard, max - count, now, out, bytes, used, &is_clean);
        if (is_clean) presence->dirty_shards &= ~(1ull << shard);
        else if (count < max) break; /* no room for the next of it */
    }
    return (int32_t)count;
}

int32_t rw_presence_acknowledge(struct rw_presence *presence, const struct rw_state_name *name,
                                struct rw_presence_bytes id, uint64_t version) {
    struct rw_present_step step;
    int32_t result = rw_present_begin(&step, presence, name->shard, NULL);
    if (result < 0) return result;
    const rw_block block = rw_present_find_user(&step, rw_present_find_topic(&step, name), id);
    const struct rw_present_user *user = block == 0 ? NULL : rw_present_user_at(&step.tx, block);
    if (user != NULL && rw_present_version(user) == version) {
        if (user->flags & RW_PRESENT_GONE) rw_present_remove_user(&step, block);
        else rw_present_mark(&step, block, 0);
    }
    return rw_present_end(&step, RW_OK);
}

/* ret: how many users it has */
static uint32_t rewrite_topic(struct rw_present_step *step, const struct rw_present_topic *topic) {
    uint32_t count = 0;
    rw_block before = 0;
    for (rw_block block = topic->first; block != 0;) {
        const struct rw_present_user *user = rw_present_user_at(&step->tx, block);
        if (user == NULL || !rw_present_follows(&step->tx, &user->links, before)) break;
        if (!(user->flags & RW_PRESENT_DIRTY)) rw_present_mark(step, block, RW_PRESENT_DIRTY);
        if (rw_tx_is_damaged(&step->tx)) break;
        if (++count % COMMIT_EVERY == 0) rw_tx_commit(&step->tx);
        before = block;
        block = user->links.next;
    }
    rw_tx_commit(&step->tx);
    return count;
}

int32_t rw_presence_rewrite(struct rw_presence *presence, uint32_t cursor) {
    struct rw_present_step step;
    const uint32_t shard = cursor % RW_STATE_SHARDS;
    int32_t result = rw_present_begin(&step, presence, shard, NULL);
    if (result < 0) return result;
    uint32_t marked = 0;
    rw_block before = 0;
    for (rw_block at = step.roots->topics; at != 0;) {
        const struct rw_present_topic *topic = rw_present_topic_at(&step.tx, at);
        if (topic == NULL || !rw_present_follows(&step.tx, &topic->links, before)) break;
        marked += rewrite_topic(&step, topic);
        before = at;
        at = topic->links.next;
    }
    if (marked != 0) presence->dirty_shards |= 1ull << shard;
    result = rw_present_end(&step, RW_OK);
    return result < 0 ? result : (int32_t)((shard + 1) % RW_STATE_SHARDS);
}
