/* A log within a transaction: found, made and dropped; entries linked, found by offset, and dropped from the oldest.
 *
 * Role: see log.h. Up: logs.c, log_room.c. Down: arena.
 *
 *   jumps   the skew-binary number of an offset says where its entry points to (Myers: "An applicative random-access
 *           stack", 1983): 1 … 6 → 0 1 0 3 4 3, 7 → 0, 8 → 7 … It is one of two that the entry before knows.
 *
 * Invariants: entries first..last lie in one chain from `oldest` to the last block of `newest`, in order; offsets,
 * times and blocks_before do not fall along it. A block number in `previous` or `jump` is followed only when the offset
 * there is kept. Entries are not changed while they are kept, apart from `next` of the last block of the newest. */
#include "state/log.h"

#include <assert.h>
#include <string.h>
#include <sys/random.h>

static_assert(sizeof(struct rw_log) <= RW_BLOCK_BYTES, "a log is a block and its name");
static_assert(sizeof(struct rw_log_block) <= RW_BLOCK_BYTES, "an entry is a block and its payload");

uint32_t rw_log_name_blocks(uint32_t name_bytes) { return rw_blocks_for(RW_BLOCK_BYTES - RW_LOG_NAME_AT, name_bytes); }

uint32_t rw_log_entry_blocks(uint32_t bytes) { return rw_blocks_for(RW_BLOCK_BYTES - RW_LOG_PAYLOAD_AT, bytes); }

struct rw_log *rw_log_at(struct rw_tx *tx, rw_block block) {
    struct rw_log *log = rw_block_at(tx, block);
    if (log != NULL && log->record.kind == RW_RECORD_LOG && log->first - 1 <= log->last) return log;
    rw_tx_damaged(tx);
    return NULL;
}

rw_block rw_log_find(struct rw_tx *tx, const struct rw_state_name *name) {
    const struct rw_record_name wanted = {.hash = name->hash,
                                          .bytes = name->bytes,
                                          .count = (uint16_t)name->count,
                                          .kind = RW_RECORD_LOG,
                                          .name_at = RW_LOG_NAME_AT};
    return rw_index_find(tx, &wanted);
}

/* ------------------------------------------------------------------ the order of use */

static void unlink_use(struct rw_tx *tx, rw_block block, const struct rw_log *log) {
    struct rw_shard *shard = tx->shard;
    struct rw_log *older = log->older == 0 ? NULL : rw_log_at(tx, log->older);
    struct rw_log *newer = log->newer == 0 ? NULL : rw_log_at(tx, log->newer);
    if (shard->log_sweep == block) RW_TX_SET(tx, shard->log_sweep, log->newer);
    if (older != NULL) RW_TX_SET(tx, older->newer, log->newer);
    else RW_TX_SET(tx, shard->log_oldest, log->newer);
    if (newer != NULL) RW_TX_SET(tx, newer->older, log->older);
    else RW_TX_SET(tx, shard->log_newest, log->older);
}

static void link_use(struct rw_tx *tx, rw_block block, struct rw_log *log, uint64_t now_ms) {
    struct rw_shard *shard = tx->shard;
    struct rw_log *before = shard->log_newest == 0 ? NULL : rw_log_at(tx, shard->log_newest);
    RW_TX_SET(tx, log->older, shard->log_newest);
    RW_TX_SET(tx, log->newer, 0);
    RW_TX_SET(tx, log->used_ms, now_ms);
    if (before != NULL) RW_TX_SET(tx, before->newer, block);
    else RW_TX_SET(tx, shard->log_oldest, block);
    RW_TX_SET(tx, shard->log_newest, block);
}

void rw_log_touch(struct rw_tx *tx, rw_block block, uint64_t now_ms) {
    struct rw_log *log = rw_log_at(tx, block);
    if (log == NULL) return;
    if (tx->shard->log_newest == block) {
        if (now_ms - log->used_ms >= 1000) RW_TX_SET(tx, log->used_ms, now_ms);
        return;
    }
    unlink_use(tx, block, log);
    link_use(tx, block, log, now_ms);
}

/* ------------------------------------------------------------------ the life of a log */

static uint64_t random_epoch(void) {
    uint64_t epoch = 0;
    while (epoch == 0)
        if (getrandom(&epoch, sizeof epoch, 0) != (ssize_t)sizeof epoch) epoch = 0;
    return epoch;
}

rw_block rw_log_create(struct rw_tx *tx, const struct rw_state_name *name, struct rw_position position,
                       uint64_t now_ms) {
    const rw_block block = rw_blocks_take(tx, rw_log_name_blocks(name->count), NULL);
    struct rw_log *log = rw_block_at(tx, block);
    if (log == NULL) return 0;
    *log = (struct rw_log){
        .record = {.next = log->record.next,
                   .hash = name->hash,
                   .kind = RW_RECORD_LOG,
                   .name_bytes = (uint16_t)name->count},
        .epoch = position.epoch == 0 ? random_epoch() : position.epoch,
        .last = position.offset,
        .first = position.offset + 1,
        .begun = tx->shard->begins,
    };
    RW_TX_SET(tx, tx->shard->begins, tx->shard->begins + 1);
    rw_bytes_write(tx, block, RW_LOG_NAME_AT, name->bytes, name->count);
    rw_index_add(tx, block);
    link_use(tx, block, log, now_ms);
    RW_TX_SET(tx, tx->shard->logs, tx->shard->logs + 1);
    return block;
}

void rw_log_begin(struct rw_tx *tx, struct rw_log *log, struct rw_position position) {
    rw_log_trim(tx, log, log->last + 1);
    rw_log_keys_leave(tx, log);
    RW_TX_SET(tx, log->epoch, position.epoch);
    RW_TX_SET(tx, log->last, position.offset);
    RW_TX_SET(tx, log->first, position.offset + 1);
    RW_TX_SET(tx, log->last_ms, 0);
    RW_TX_SET(tx, log->begun, tx->shard->begins);
    RW_TX_SET(tx, tx->shard->begins, tx->shard->begins + 1);
}

void rw_log_drop(struct rw_tx *tx, rw_block block) {
    struct rw_log *log = rw_log_at(tx, block);
    if (log == NULL) return;
    rw_log_trim(tx, log, log->last + 1);
    rw_log_keys_leave(tx, log);
    unlink_use(tx, block, log);
    rw_index_remove(tx, block);
    RW_TX_SET(tx, tx->shard->logs, tx->shard->logs - 1);
    rw_blocks_give_chain(tx, block);
}

/* ------------------------------------------------------------------ entries */

static struct rw_log_block *entry_of(struct rw_tx *tx, rw_block block, uint64_t offset) {
    struct rw_log_block *entry = rw_block_at(tx, block);
    if (entry != NULL && entry->offset == offset && entry->bytes <= RW_LOG_PAYLOAD_BYTES_MAX) return entry;
    rw_tx_damaged(tx);
    return NULL;
}

static struct rw_log_block *newest_of(struct rw_tx *tx, const struct rw_log *log) {
    return entry_of(tx, log->newest, log->last);
}

static struct rw_log_block *oldest_of(struct rw_tx *tx, const struct rw_log *log) {
    return entry_of(tx, log->oldest, log->first);
}

static int is_empty(const struct rw_log *log) { return log->first > log->last; }

/* offset less its smallest digit */
static uint64_t jump_offset_of(uint64_t offset) {
    uint64_t rest = offset, digit = 0;
    while (rest > 0) {
        /* The largest 2^k - 1 that is not above it. */
        digit = rest == UINT64_MAX ? rest : ((uint64_t)1 << (63 - __builtin_clzll(rest + 1))) - 1;
        rest -= digit;
    }
    return offset - digit;
}

/* ret: the first block of the entry at jump_offset, 0: it is not kept */
static rw_block jump_of(struct rw_tx *tx, const struct rw_log *log, uint64_t jump_offset) {
    if (is_empty(log) || jump_offset < log->first) return 0;
    if (jump_offset == log->last) return log->newest;
    const struct rw_log_block *before = newest_of(tx, log);
    if (before == NULL || before->jump_offset < log->first) return 0;
    const struct rw_log_block *further = entry_of(tx, before->jump, before->jump_offset);
    return further != NULL && further->jump_offset == jump_offset ? further->jump : 0;
}

int rw_log_link(struct rw_tx *tx, struct rw_log *log, const struct rw_log_entry *entry, struct rw_log_chain chain) {
    struct rw_log_block *block = rw_block_at(tx, chain.first);
    if (block == NULL) return 0;
    const uint64_t jump_offset = jump_offset_of(log->last + 1);
    *block = (struct rw_log_block){
        .next = block->next,
        .previous = is_empty(log) ? 0 : log->newest,
        .last = chain.last,
        .jump = jump_of(tx, log, jump_offset),
        .offset = log->last + 1,
        .jump_offset = jump_offset,
        .time_ms = entry->time_ms,
        .blocks_before = log->blocks_so_far,
        .origin = entry->origin,
        .flags = entry->flags,
        .bytes = entry->bytes,
    };
    if (is_empty(log)) {
        RW_TX_SET(tx, log->oldest, chain.first);
    } else {
        const struct rw_log_block *before = newest_of(tx, log);
        struct rw_block_at *end = before == NULL ? NULL : rw_block_at(tx, before->last);
        if (end == NULL) return 0;
        RW_TX_SET(tx, end->next, chain.first);
    }
    RW_TX_SET(tx, log->newest, chain.first);
    RW_TX_SET(tx, log->last, log->last + 1);
    RW_TX_SET(tx, log->blocks_so_far, log->blocks_so_far + chain.count);
    RW_TX_SET(tx, log->last_ms, entry->time_ms);
    return !rw_tx_is_damaged(tx);
}

struct rw_log_block *rw_log_entry_next(struct rw_tx *tx, const struct rw_log *log, const struct rw_log_block *entry) {
    if (entry->offset >= log->last) return NULL;
    const struct rw_block_at *end = rw_block_at(tx, entry->last);
    return end == NULL ? NULL : entry_of(tx, end->next, entry->offset + 1);
}

struct rw_log_block *rw_log_entry_previous(struct rw_tx *tx, const struct rw_log *log,
                                           const struct rw_log_block *entry) {
    return entry->offset <= log->first ? NULL : entry_of(tx, entry->previous, entry->offset - 1);
}

/* What entries have that does not fall along the log. */
enum measure { BY_OFFSET, BY_TIME, BY_BLOCKS };

static uint64_t measured(const struct rw_log_block *entry, enum measure by) {
    return by == BY_OFFSET ? entry->offset : by == BY_TIME ? entry->time_ms : entry->blocks_before;
}

/* The oldest entry of at least so much, in O(log n) steps from the newest, which has it. */
static struct rw_log_block *search(struct rw_tx *tx, const struct rw_log *log, enum measure by, uint64_t least) {
    struct rw_log_block *entry = newest_of(tx, log);
    while (entry != NULL && entry->offset > log->first) {
        if (entry->jump != 0 && entry->jump_offset >= log->first && entry->jump_offset < entry->offset) {
            struct rw_log_block *further = entry_of(tx, entry->jump, entry->jump_offset);
            if (further == NULL) return NULL;
            if (measured(further, by) >= least) {
                entry = further;
                continue;
            }
        }
        struct rw_log_block *before = rw_log_entry_previous(tx, log, entry);
        if (before == NULL) return NULL;
        if (measured(before, by) < least) break;
        entry = before;
    }
    return entry;
}

struct rw_log_block *rw_log_entry_at(struct rw_tx *tx, const struct rw_log *log, uint64_t offset) {
    if (offset == log->first) return oldest_of(tx, log);
    return search(tx, log, BY_OFFSET, offset);
}

/* ------------------------------------------------------------------ dropping the oldest */

void rw_log_trim(struct rw_tx *tx, struct rw_log *log, uint64_t first) {
    if (first <= log->first) return;
    const struct rw_log_block *from = oldest_of(tx, log);
    const struct rw_log_block *to = rw_log_entry_at(tx, log, first - 1);
    const struct rw_block_at *end = to == NULL ? NULL : rw_block_at(tx, to->last);
    if (from == NULL || end == NULL) return;
    const rw_block next = end->next, begin = log->oldest;
    uint64_t after = log->blocks_so_far;
    if (first <= log->last) {
        const struct rw_log_block *kept = entry_of(tx, next, first);
        if (kept == NULL) return;
        after = kept->blocks_before;
    }
    rw_blocks_give(tx, begin, to->last, (uint32_t)(after - from->blocks_before));
    RW_TX_SET(tx, log->oldest, first <= log->last ? next : 0);
    if (first > log->last) RW_TX_SET(tx, log->newest, 0);
    RW_TX_SET(tx, log->first, first);
}

void rw_log_expire(struct rw_tx *tx, struct rw_log *log, uint64_t now_ms) {
    if (is_empty(log)) return;
    const uint64_t age_ms = (uint64_t)log->seconds * 1000;
    if (now_ms < age_ms) return;
    const uint64_t least = now_ms - age_ms + 1;
    const struct rw_log_block *oldest = oldest_of(tx, log), *newest = newest_of(tx, log);
    if (oldest == NULL || newest == NULL || oldest->time_ms >= least) return;
    if (newest->time_ms < least) {
        rw_log_trim(tx, log, log->last + 1);
        return;
    }
    const struct rw_log_block *kept = search(tx, log, BY_TIME, least);
    if (kept != NULL) rw_log_trim(tx, log, kept->offset);
}

uint64_t rw_log_blocks_held(struct rw_tx *tx, const struct rw_log *log) {
    if (is_empty(log)) return 0;
    const struct rw_log_block *oldest = oldest_of(tx, log);
    return oldest == NULL ? 0 : log->blocks_so_far - oldest->blocks_before;
}

void rw_log_shorten(struct rw_tx *tx, struct rw_log *log, uint64_t blocks) {
    if (is_empty(log)) return;
    const struct rw_log_block *oldest = oldest_of(tx, log), *newest = newest_of(tx, log);
    if (oldest == NULL || newest == NULL) return;
    const uint64_t least = oldest->blocks_before + blocks;
    if (newest->blocks_before < least) {
        rw_log_trim(tx, log, log->last + 1);
        return;
    }
    const struct rw_log_block *kept = search(tx, log, BY_BLOCKS, least);
    if (kept != NULL) rw_log_trim(tx, log, kept->offset);
}
