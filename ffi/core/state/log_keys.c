/* Idempotency keys of logs: records of their own in the index of the shard, in a list for each log.
 *
 * Role: see log.h. Up: logs.c. Down: arena.
 * Invariants: a key counts when its epoch is that of its log and it has not expired. Those of a log that is dropped
 * become orphans, which nobody can find since the epoch is gone, and go some at a time. */
#include <assert.h>
#include <string.h>

#include "state/log.h"
#include "topics/topics.h"

struct key_block {
    struct rw_record record; /* owner: the log */
    uint64_t epoch;
    uint64_t offset;
    uint64_t expires_ms;
    rw_block later; /* of the log, or the orphans */
    uint32_t reserved;
};
#define KEY_AT sizeof(struct key_block)

static_assert(sizeof(struct key_block) <= RW_BLOCK_BYTES, "a key is a block and its bytes");

static struct rw_record_name named(rw_block log_block, const struct rw_log *log, const struct rw_log_key *key) {
    return (struct rw_record_name){.hash = rw_topics_hash(key->bytes, key->count) ^ log->epoch,
                                   .bytes = key->bytes,
                                   .count = (uint16_t)key->count,
                                   .kind = RW_RECORD_KEY,
                                   .owner = log_block,
                                   .name_at = KEY_AT};
}

uint32_t rw_log_key_blocks(const struct rw_log_key *key) { return rw_blocks_for(RW_BLOCK_BYTES - KEY_AT, key->count); }

static struct key_block *key_at(struct rw_tx *tx, rw_block block) {
    struct key_block *key = rw_block_at(tx, block);
    if (key != NULL && key->record.kind == RW_RECORD_KEY) return key;
    rw_tx_damaged(tx);
    return NULL;
}

int rw_log_key_find(struct rw_tx *tx, rw_block log_block, const struct rw_log *log, const struct rw_log_key *key,
                    uint64_t now_ms, uint64_t *offset) {
    const struct rw_record_name name = named(log_block, log, key);
    const rw_block block = rw_index_find(tx, &name);
    const struct key_block *found = block == 0 ? NULL : key_at(tx, block);
    if (found == NULL || found->epoch != log->epoch || found->expires_ms <= now_ms) return 0;
    *offset = found->offset;
    return 1;
}

void rw_log_key_add(struct rw_tx *tx, rw_block log_block, struct rw_log *log, const struct rw_log_key *key,
                    uint64_t offset, uint64_t now_ms) {
    const struct rw_record_name name = named(log_block, log, key);
    const rw_block block = rw_blocks_take(tx, rw_log_key_blocks(key), NULL);
    struct key_block *added = rw_block_at(tx, block);
    if (added == NULL) return;
    const uint32_t seconds = key->seconds == 0 ? RW_LOG_KEY_SECONDS_DEFAULT : key->seconds;
    *added = (struct key_block){
        .record = {.next = added->record.next,
                   .hash = name.hash,
                   .kind = RW_RECORD_KEY,
                   .name_bytes = name.count,
                   .owner = log_block},
        .epoch = log->epoch,
        .offset = offset,
        .expires_ms = now_ms + (uint64_t)seconds * 1000,
    };
    rw_bytes_write(tx, block, KEY_AT, key->bytes, key->count);
    rw_index_add(tx, block);
    struct key_block *before = log->keys_last == 0 ? NULL : key_at(tx, log->keys_last);
    if (before != NULL) RW_TX_SET(tx, before->later, block);
    else RW_TX_SET(tx, log->keys_first, block);
    RW_TX_SET(tx, log->keys_last, block);
}

uint32_t rw_log_keys_expire(struct rw_tx *tx, struct rw_log *log, uint64_t now_ms) {
    uint32_t count = 0;
    for (; count < RW_LOG_KEYS_AT_ONCE && log->keys_first != 0; count++) {
        const rw_block block = log->keys_first;
        const struct key_block *key = key_at(tx, block);
        if (key == NULL || key->expires_ms > now_ms) break;
        const rw_block later = key->later;
        rw_index_remove(tx, block);
        rw_blocks_give_chain(tx, block);
        RW_TX_SET(tx, log->keys_first, later);
        if (later == 0) RW_TX_SET(tx, log->keys_last, 0);
        if (rw_tx_is_damaged(tx)) break;
    }
    return count;
}

uint32_t rw_log_orphans_drop(struct rw_tx *tx) {
    uint32_t count = 0;
    for (; count < RW_LOG_KEYS_AT_ONCE && tx->shard->orphans != 0; count++) {
        const rw_block block = tx->shard->orphans;
        const struct key_block *key = key_at(tx, block);
        if (key == NULL) break;
        const rw_block later = key->later;
        rw_index_remove(tx, block);
        rw_blocks_give_chain(tx, block);
        RW_TX_SET(tx, tx->shard->orphans, later);
        if (rw_tx_is_damaged(tx)) break;
    }
    return count;
}

void rw_log_keys_leave(struct rw_tx *tx, struct rw_log *log) {
    if (log->keys_first == 0) return;
    struct key_block *last = key_at(tx, log->keys_last);
    if (last == NULL) return;
    RW_TX_SET(tx, last->later, tx->shard->orphans);
    RW_TX_SET(tx, tx->shard->orphans, log->keys_first);
    RW_TX_SET(tx, log->keys_first, 0);
    RW_TX_SET(tx, log->keys_last, 0);
}
