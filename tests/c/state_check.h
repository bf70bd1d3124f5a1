/* Whether a shard holds together: every block is in one place, and lists, chains and the index agree.
 *
 * Presence and others who keep records of their own say with `records` which blocks those have. */
#ifndef RW_STATE_CHECK_H
#define RW_STATE_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "state/log.h"
#include "state_fixture.h"

struct check {
    struct rw_tx tx;
    uint8_t *seen; /* a byte a block */
    uint64_t blocks, keys, listed_keys, logs;
};

static inline void check_see(struct check *check, rw_block block) {
    assert_true(rw_state_has(check->tx.state, block));
    assert_int_equal(check->seen[block], 0);
    check->seen[block] = 1;
    check->blocks++;
}

static inline rw_block check_next(const struct check *check, rw_block block) {
    const struct rw_block_at *at = rw_block_at((struct rw_tx *)&check->tx, block);
    assert_non_null(at);
    return at->next;
}

static inline void check_chain(struct check *check, rw_block block, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        check_see(check, block);
        block = check_next(check, block);
    }
    assert_int_equal(block, 0);
}

static inline void check_entries(struct check *check, const struct rw_log *log) {
    uint64_t blocks_before = 0, time_ms = 0;
    rw_block block = log->oldest, previous = 0;
    assert_int_equal(block == 0, log->first > log->last);
    for (uint64_t offset = log->first; offset <= log->last; offset++) {
        const struct rw_log_block *entry = rw_block_at(&check->tx, block);
        assert_non_null(entry);
        assert_int_equal(entry->offset, offset);
        assert_true(entry->time_ms >= time_ms);
        if (offset > log->first) {
            assert_int_equal(entry->blocks_before, blocks_before);
            assert_int_equal(entry->previous, previous);
        }
        if (entry->jump != 0 && entry->jump_offset >= log->first) {
            const struct rw_log_block *jump = rw_block_at(&check->tx, entry->jump);
            assert_non_null(jump);
            assert_int_equal(jump->offset, entry->jump_offset);
        }
        time_ms = entry->time_ms;
        previous = block;
        const uint32_t count = rw_log_entry_blocks(entry->bytes);
        blocks_before = entry->blocks_before + count;
        for (uint32_t i = 1; i < count; i++) {
            check_see(check, block);
            block = check_next(check, block);
        }
        check_see(check, block);
        assert_int_equal(entry->last, block);
        block = check_next(check, block);
    }
    assert_int_equal(block, 0);
    if (log->oldest != 0) {
        assert_int_equal(log->newest, previous);
        assert_int_equal(log->blocks_so_far, blocks_before);
    }
}

/* The place of `later` in the block of a key, see log_keys.c */
#define CHECK_KEY_LATER_AT (sizeof(struct rw_record) + 24u)

static inline void check_key_list(struct check *check, rw_block block, rw_block last) {
    while (block != 0) {
        const struct rw_record *record = rw_block_at(&check->tx, block);
        assert_non_null(record);
        assert_int_equal(record->kind, RW_RECORD_KEY);
        check->listed_keys++;
        rw_block later;
        memcpy(&later, (const uint8_t *)record + CHECK_KEY_LATER_AT, sizeof later);
        if (later == 0 && last != 0) assert_int_equal(block, last);
        block = later;
    }
}

static inline void check_log(struct check *check, rw_block block) {
    const struct rw_log *log = rw_block_at(&check->tx, block);
    check_chain(check, block, rw_log_name_blocks(log->record.name_bytes));
    check_entries(check, log);
    check_key_list(check, log->keys_first, log->keys_last);
    check->logs++;
}

static inline void check_index(struct check *check, uint64_t (*records)(struct check *check, rw_block block)) {
    struct rw_state *state = check->tx.state;
    for (uint32_t i = 0; i < state->bucket_count; i++) {
        rw_block block = rw_state_buckets(state, check->tx.index)[i];
        while (block != 0) {
            const struct rw_record *record = rw_block_at(&check->tx, block);
            assert_non_null(record);
            assert_int_equal(record->hash & (state->bucket_count - 1), i);
            if (record->kind == RW_RECORD_LOG) {
                check_log(check, block);
            } else if (record->kind == RW_RECORD_KEY) {
                check->keys++;
                check_chain(check, block, chain_length(&check->tx, block, 64));
            } else {
                assert_non_null(records);
                records(check, block);
            }
            block = record->index_next;
        }
    }
}

static inline void check_order(struct check *check) {
    const struct rw_shard *shard = check->tx.shard;
    uint64_t count = 0;
    rw_block older = 0, block = shard->log_oldest;
    for (; block != 0; count++) {
        const struct rw_log *log = rw_log_at(&check->tx, block);
        assert_non_null(log);
        assert_int_equal(log->older, older);
        older = block;
        block = log->newer;
    }
    assert_int_equal(shard->log_newest, older);
    assert_int_equal(count, check->logs);
    assert_int_equal(shard->logs, check->logs);
}

static inline void check_shard(struct rw_state *state, uint32_t index,
                               uint64_t (*records)(struct check *check, rw_block block)) {
    /* Kept: a sanitizer holds on to what is freed, and processes that fork would grow. */
    static uint8_t *seen;
    static size_t seen_bytes;
    if (seen_bytes < (size_t)state->block_count + 1) {
        seen_bytes = (size_t)state->block_count + 1;
        seen = realloc(seen, seen_bytes);
    }
    memset(seen, 0, seen_bytes);
    struct check check = {.seen = seen};
    assert_int_equal(rw_tx_begin(state, index, &check.tx), RW_OK);
    const struct rw_shard *shard = check.tx.shard;
    assert_int_equal(shard->journal_count, 0);
    assert_int_equal(shard->given, 0);
    assert_int_equal(shard->claiming, 0);
    rw_loans_reclaim(&check.tx);
    uint64_t chunks = shard->own_chunks;
    for (uint32_t i = 0; i < state->chunk_count; i++) chunks += state->owners[i] == index + 1;
    assert_int_equal(chunks * RW_CHUNK_BLOCKS, shard->owned);
    for (uint32_t i = 0; i < RW_LOANS; i++) /* of processes that live */
        if (shard->loans[i].first != 0) check_chain(&check, shard->loans[i].first, shard->loans[i].count);
    check_chain(&check, shard->free, shard->free_count);
    check_index(&check, records);
    if (records != NULL) records(&check, 0); /* what is in no index */
    check_order(&check);
    check_key_list(&check, shard->orphans, 0);
    assert_int_equal(check.keys, check.listed_keys);
    assert_int_equal(check.blocks, shard->owned);
    assert_false(rw_tx_is_damaged(&check.tx));
    rw_tx_end(&check.tx);
}

static inline void check_state(struct rw_state *state) {
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++)
        if (state->shards[i].owned != 0) check_shard(state, i, NULL);
}

#endif
