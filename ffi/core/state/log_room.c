/* Room for logs: what goes when there is none, blocks on loan to who fills them, and what goes in its own time.
 *
 * Role: rw_logs_reserve() and rw_logs_sweep() of logs.h, loans of log.h. Up: logs.c, presence. Down: arena.
 * Invariant: whatever is dropped here is dropped by a change of its own, so that no transaction grows with what there
 * is to drop. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>

#include "ringway.h"
#include "state/log.h"

#define LOGS_AT_ONCE 32u /* that one call looks at for what has expired */
#define SHARDS_AT_ONCE 4u
#define ORPHANS_AT_ONCE 256u
#define SWEEPS_AT_ONCE 8u  /* of LOGS_AT_ONCE logs of a shard, others having it in between */
#define LENT_AT_ONCE 2048u /* blocks, 256 KiB: memory that is new takes 150 us to be made of blocks */

/* ------------------------------------------------------------------ loans */

/* ret: 1: nobody has it, and it is ours; what was in it is free again */
static int loan_acquire(struct rw_tx *tx, struct rw_loan *loan) {
    const int result = pthread_mutex_trylock(&loan->mutex);
    if (result == EOWNERDEAD) pthread_mutex_consistent(&loan->mutex);
    else if (result != 0) return 0;
    if (loan->first == 0) return 1;
    const struct rw_log_chain chain = rw_loan_use(tx, loan);
    rw_blocks_give(tx, chain.first, chain.last, chain.count);
    rw_tx_commit(tx);
    return 1;
}

void rw_loans_reclaim(struct rw_tx *tx) {
    for (uint32_t i = 0; i < RW_LOANS; i++)
        if (loan_acquire(tx, &tx->shard->loans[i])) pthread_mutex_unlock(&tx->shard->loans[i].mutex);
}

/* Some more blocks for a loan. ret: RW_OK or RW_ERR_FULL */
static int32_t loan_grow(struct rw_tx *tx, struct rw_loan *loan, uint32_t count, rw_block keep, uint64_t now_ms) {
    if (rw_logs_reserve(tx, count, keep, now_ms) < 0) return RW_ERR_FULL;
    rw_block last = 0;
    const rw_block first = rw_blocks_take(tx, count, &last);
    struct rw_block_at *end = loan->first == 0 ? NULL : rw_block_at(tx, loan->last);
    if (first == 0) return RW_ERR_FULL;
    if (end == NULL) RW_TX_SET(tx, loan->first, first);
    else RW_TX_SET(tx, end->next, first);
    RW_TX_SET(tx, loan->last, last);
    RW_TX_SET(tx, loan->count, loan->count + count);
    rw_tx_commit(tx);
    return RW_OK;
}

/* ret: a loan of our own; NULL: too many are out */
static struct rw_loan *loan_begin(struct rw_tx *tx) {
    for (uint32_t i = 0; i < RW_LOANS; i++)
        if (loan_acquire(tx, &tx->shard->loans[i])) return &tx->shard->loans[i];
    return NULL;
}

struct rw_loan *rw_loan_take(struct rw_tx *tx, const struct rw_state_name *name, uint32_t bytes, uint64_t now_ms,
                             int32_t *result) {
    const uint32_t count = rw_log_entry_blocks(bytes);
    *result = RW_OK;
    /* Before anything is dropped for it. */
    if (!rw_blocks_are_possible(tx, count)) return NULL;
    struct rw_loan *loan = loan_begin(tx);
    while (loan != NULL) {
        const uint32_t missing = count - loan->count;
        const rw_block keep = rw_log_find(tx, name);
        if (loan_grow(tx, loan, missing < LENT_AT_ONCE ? missing : LENT_AT_ONCE, keep, now_ms) < 0) break;
        const int is_whole = loan->count == count;
        rw_tx_end(tx);
        if (is_whole) return loan;
        *result = rw_tx_begin(tx->state, tx->index, tx);
        if (*result < 0) break;
    }
    /* What is in it comes back when the next one looks. */
    if (loan != NULL) pthread_mutex_unlock(&loan->mutex);
    return NULL;
}

struct rw_log_chain rw_loan_use(struct rw_tx *tx, struct rw_loan *loan) {
    const struct rw_log_chain chain = {loan->first, loan->last, loan->count};
    RW_TX_SET(tx, loan->first, 0);
    RW_TX_SET(tx, loan->last, 0);
    RW_TX_SET(tx, loan->count, 0);
    return chain;
}

/* ------------------------------------------------------------------ making room */

static int has_room(const struct rw_tx *tx, uint64_t count) { return tx->shard->free_count >= count; }

/* ret: the log after it in the order of use */
static rw_block expire_log(struct rw_tx *tx, rw_block block, uint64_t now_ms) {
    struct rw_log *log = rw_log_at(tx, block);
    if (log == NULL) return 0;
    const rw_block newer = log->newer;
    rw_log_expire(tx, log, now_ms);
    (void)rw_log_keys_expire(tx, log, now_ms);
    rw_tx_commit(tx);
    return newer;
}

static void evict(struct rw_tx *tx, rw_block block) {
    rw_log_drop(tx, block);
    RW_TX_SET(tx, tx->shard->evicted, tx->shard->evicted + 1);
}

/* Drop one thing. ret: 0: there is nothing to drop */
static int drop_something(struct rw_tx *tx, uint64_t missing, rw_block keep) {
    struct rw_log *kept = keep == 0 ? NULL : rw_log_at(tx, keep);
    const uint64_t held = kept == NULL ? 0 : rw_log_blocks_held(tx, kept);
    rw_block victim = tx->shard->log_oldest;
    if (victim != 0 && victim == keep) victim = kept == NULL ? 0 : kept->newer;
    if (held > tx->shard->owned / 2 || (victim == 0 && held > 0)) rw_log_shorten(tx, kept, missing);
    else if (victim != 0) evict(tx, victim);
    else return 0;
    rw_tx_commit(tx);
    return 1;
}

int32_t rw_logs_reserve(struct rw_tx *tx, uint64_t count, rw_block keep, uint64_t now_ms) {
    assert(tx->shard->journal_count == 0);
    if (rw_blocks_reserve(tx, count) == RW_OK) return RW_OK;
    if (count > tx->shard->owned) return RW_ERR_FULL;
    rw_loans_reclaim(tx);
    rw_block block = tx->shard->log_oldest;
    for (uint32_t i = 0; i < LOGS_AT_ONCE && block != 0 && !has_room(tx, count); i++)
        block = expire_log(tx, block, now_ms);
    while (!has_room(tx, count)) {
        const uint32_t before = tx->shard->free_count;
        const uint32_t dropped = rw_log_orphans_drop(tx);
        rw_tx_commit(tx);
        if (dropped == 0 && !drop_something(tx, count - before, keep)) return RW_ERR_FULL;
        if (tx->shard->free_count <= before) rw_tx_damaged(tx); /* whatever is dropped has blocks */
        if (rw_tx_is_damaged(tx)) return RW_ERR_FULL;
    }
    return RW_OK;
}

/* ------------------------------------------------------------------ in its own time */

static int is_forgotten(const struct rw_log *log, uint64_t now_ms) {
    const uint64_t twice = (uint64_t)log->seconds * 2;
    const uint64_t seconds = 1 + (twice > RW_LOG_FORGET_SECONDS_MIN ? twice : RW_LOG_FORGET_SECONDS_MIN);
    return log->oldest == 0 && log->keys_first == 0 && now_ms > log->used_ms && now_ms - log->used_ms >= seconds * 1000;
}

/* ret: 1: there are more of its logs */
static int sweep_shard(struct rw_tx *tx, uint64_t now_ms) {
    struct rw_shard *shard = tx->shard;
    rw_loans_reclaim(tx);
    for (uint32_t i = 0; i < ORPHANS_AT_ONCE && shard->orphans != 0; i += RW_LOG_KEYS_AT_ONCE) {
        (void)rw_log_orphans_drop(tx);
        rw_tx_commit(tx);
        if (rw_tx_is_damaged(tx)) return 0;
    }
    rw_block block = shard->log_sweep == 0 ? shard->log_oldest : shard->log_sweep;
    for (uint32_t i = 0; i < LOGS_AT_ONCE && block != 0; i++) {
        const rw_block newer = expire_log(tx, block, now_ms);
        const struct rw_log *log = rw_tx_is_damaged(tx) ? NULL : rw_log_at(tx, block);
        if (log == NULL) return 0;
        if (is_forgotten(log, now_ms)) rw_log_drop(tx, block);
        rw_tx_commit(tx);
        block = newer;
    }
    RW_TX_SET(tx, shard->log_sweep, block);
    rw_tx_commit(tx);
    if (block == 0) rw_shard_give_back(tx);
    return block != 0;
}

void rw_logs_sweep(struct rw_state *state, uint64_t now_ms) {
    for (uint32_t i = 0; i < SHARDS_AT_ONCE; i++) {
        const uint32_t shard = atomic_fetch_add(&state->header->sweep_next, 1) % RW_STATE_SHARDS;
        const struct rw_shard *at = &state->shards[shard];
        struct rw_tx tx;
        if (__atomic_load_n(&at->owned, __ATOMIC_RELAXED) == 0 && !__atomic_load_n(&at->gives_back, __ATOMIC_RELAXED))
            continue;
        int more = 1;
        for (uint32_t j = 0; j < SWEEPS_AT_ONCE && more; j++) {
            if (rw_tx_begin(state, shard, &tx) < 0) return;
            more = sweep_shard(&tx, now_ms);
            rw_tx_end(&tx);
        }
    }
}
