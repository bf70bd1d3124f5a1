/* Shards of what a node remembers: their locks and journals, their blocks, and their index of names.
 *
 * Role: see arena.h. Up: logs, presence. Down: the region that region.c lays out.
 *
 *   note(word)     journal[count] = {where, old value};  count + 1;  and only then may the word change
 *   commit         count = 0
 *   a dead holder  for count - 1 … 0: word = old value;  count = 0         may itself be killed, and be done again
 *
 * Invariants: the stores of a killed thread up to its last instruction are seen by whoever gets the mutex from the
 * kernel, so it is the order in the program alone that counts, and barriers for the compiler suffice. Blocks are in the
 * free chain, given, in a loan, or reachable from the roots of the shard: `owned` counts all. What is given back in a
 * change is free once that is committed, and not before: its old contents are in no journal. A chunk that is being taken is
 * named by `claiming` until it is part of the free chain. */
#include "state/arena.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "state/shard.h"

#define STUCK_WAIT_MS 1u

#define barrier() __atomic_signal_fence(__ATOMIC_SEQ_CST)

enum damage { WHOLE = 0, DAMAGED = 1, GIVING_BACK = 2 };

/* ------------------------------------------------------------------ chunks */

static uint32_t first_common(const struct rw_state *state) { return state->own_chunks * RW_STATE_SHARDS; }

static struct rw_block_at *unchecked(const struct rw_state *state, rw_block block) {
    return (struct rw_block_at *)(void *)(state->blocks + (uint64_t)(block - 1u) * RW_BLOCK_BYTES);
}

/* What is lower wins: whoever gives a chunk back wants it to be looked at again. */
static void lower_common_next(struct rw_state *state, uint32_t chunk) {
    uint32_t next = atomic_load(&state->header->common_next);
    while (chunk < next && !atomic_compare_exchange_weak(&state->header->common_next, &next, chunk)) {}
}

/* ret: chunk + 1, which `claiming` names; 0: there is none */
static uint32_t claim_common(struct rw_tx *tx) {
    struct rw_state *state = tx->state;
    uint32_t hint = atomic_load(&state->header->common_next);
    uint32_t chunk = hint > first_common(state) ? hint : first_common(state);
    for (; chunk < state->chunk_count; chunk++) {
        uint8_t nobody = 0;
        if (atomic_load_explicit(&state->owners[chunk], memory_order_relaxed) != 0) continue;
        tx->shard->claiming = chunk + 1;
        barrier();
        if (atomic_compare_exchange_strong(&state->owners[chunk], &nobody, (uint8_t)(tx->index + 1))) break;
        tx->shard->claiming = 0;
    }
    const int found = chunk < state->chunk_count;
    atomic_compare_exchange_strong(&state->header->common_next, &hint, found ? chunk + 1 : state->chunk_count);
    return found ? chunk + 1 : 0;
}

/* The blocks of a chunk become a chain that goes on at `next`. ret: its first */
static rw_block chain_chunk(struct rw_state *state, uint32_t chunk, rw_block next) {
    const rw_block first = chunk * RW_CHUNK_BLOCKS + 1;
    for (uint32_t i = 0; i < RW_CHUNK_BLOCKS; i++)
        unchecked(state, first + i)->next = i + 1 < RW_CHUNK_BLOCKS ? first + i + 1 : next;
    return first;
}

/* ret: 1, committed; 0: there is no chunk for this shard */
static int add_chunk(struct rw_tx *tx) {
    struct rw_shard *shard = tx->shard;
    uint32_t chunk;
    if (shard->own_chunks < tx->state->own_chunks) {
        chunk = tx->index + shard->own_chunks * RW_STATE_SHARDS;
        RW_TX_SET(tx, shard->own_chunks, shard->own_chunks + 1);
    } else {
        const uint32_t claimed = claim_common(tx);
        if (claimed == 0) return 0;
        chunk = claimed - 1;
        rw_tx_note(tx, &shard->claiming, sizeof shard->claiming);
    }
    const rw_block first = chain_chunk(tx->state, chunk, shard->free);
    RW_TX_SET(tx, shard->free, first);
    RW_TX_SET(tx, shard->free_count, shard->free_count + RW_CHUNK_BLOCKS);
    RW_TX_SET(tx, shard->owned, shard->owned + RW_CHUNK_BLOCKS);
    shard->claiming = 0;
    rw_tx_commit(tx);
    return 1;
}

/* Chunks that this shard could still get. */
static uint64_t chunks_left(const struct rw_tx *tx) {
    const struct rw_state *state = tx->state;
    uint64_t left = tx->shard->own_chunks < state->own_chunks ? state->own_chunks - tx->shard->own_chunks : 0;
    const uint32_t hint = atomic_load(&state->header->common_next);
    for (uint32_t i = hint > first_common(state) ? hint : first_common(state); i < state->chunk_count; i++)
        left += atomic_load_explicit(&state->owners[i], memory_order_relaxed) == 0;
    return left;
}

/* ------------------------------------------------------------------ after damage */

/* Blocks on loan are being written to by somebody who lives. ret: 1: there are none, and what dead ones had is in no
 * loan any more */
static int loans_are_over(struct rw_shard *shard) {
    for (uint32_t i = 0; i < RW_LOANS; i++) {
        const int result = pthread_mutex_trylock(&shard->loans[i].mutex);
        if (result == EOWNERDEAD) pthread_mutex_consistent(&shard->loans[i].mutex);
        else if (result != 0) return 0;
        shard->loans[i].first = shard->loans[i].last = 0;
        shard->loans[i].count = 0;
        pthread_mutex_unlock(&shard->loans[i].mutex);
    }
    return 1;
}

static void forget_all(struct rw_tx *tx) {
    struct rw_shard *shard = tx->shard;
    memset(rw_state_buckets(tx->state, tx->index), 0, tx->state->bucket_count * sizeof(rw_block));
    memset(shard->words, 0, sizeof shard->words);
    shard->free = shard->free_count = shard->owned = shard->logs = shard->claiming = 0;
    shard->given = shard->given_last = shard->given_count = 0;
    shard->log_oldest = shard->log_newest = shard->log_sweep = shard->orphans = 0;
    if (shard->own_chunks > tx->state->own_chunks) shard->own_chunks = tx->state->own_chunks;
}

/* All blocks of the shard become free, whatever lies in it. Killed in the middle, it is done again.
 * ret: 0: not while blocks are on loan */
static int empty_shard(struct rw_tx *tx) {
    struct rw_state *state = tx->state;
    struct rw_shard *shard = tx->shard;
    if (!loans_are_over(shard)) return 0;
    if (shard->is_damaged == DAMAGED) shard->damaged++;
    forget_all(tx);
    for (uint32_t i = 0; i < shard->own_chunks; i++) {
        shard->free = chain_chunk(state, tx->index + i * RW_STATE_SHARDS, shard->free);
        shard->owned += RW_CHUNK_BLOCKS;
    }
    for (uint32_t i = first_common(state); i < state->chunk_count; i++) {
        if (atomic_load(&state->owners[i]) != tx->index + 1) continue;
        shard->free = chain_chunk(state, i, shard->free);
        shard->owned += RW_CHUNK_BLOCKS;
    }
    shard->free_count = shard->owned;
    shard->journal_count = 0;
    rw_state_changed(tx);
    barrier();
    shard->is_damaged = WHOLE;
    return 1;
}

/* ------------------------------------------------------------------ transactions */

/* ret: NULL: nothing that is ever noted lies there */
static uint64_t *noted_word(const struct rw_tx *tx, uint64_t offset) {
    const struct rw_state *state = tx->state;
    if (offset % sizeof(uint64_t) != 0 || offset > state->region_bytes - sizeof(uint64_t)) return NULL;
    uint8_t *at = state->region + offset;
    const uint8_t *fields = (const uint8_t *)&tx->shard->free;
    const uint8_t *buckets = (const uint8_t *)rw_state_buckets(state, tx->index);
    const int is_field = at >= fields && at < (const uint8_t *)(tx->shard + 1);
    const int is_bucket = at >= buckets && at < buckets + state->bucket_count * sizeof(rw_block);
    return is_field || is_bucket || at >= state->blocks ? (uint64_t *)(void *)at : NULL;
}

static void roll_back(struct rw_tx *tx) {
    struct rw_shard *shard = tx->shard;
    struct rw_state *state = tx->state;
    const struct rw_journal_word *journal = rw_state_journal(state, tx->index);
    if (shard->journal_count > RW_TX_WORDS_MAX) {
        shard->is_damaged = DAMAGED;
        return;
    }
    for (uint32_t i = shard->journal_count; i-- > 0;) {
        uint64_t *word = noted_word(tx, journal[i].offset);
        if (word == NULL) {
            shard->is_damaged = DAMAGED;
            return;
        }
        *word = journal[i].value;
    }
    barrier();
    shard->journal_count = 0;
    barrier();
    /* It was taken from the common ones and has become part of nothing. */
    const uint32_t chunk = shard->claiming - 1u;
    if (shard->claiming != 0 && chunk < state->chunk_count &&
        atomic_load(&state->owners[chunk]) == (uint8_t)(tx->index + 1)) {
        atomic_store(&state->owners[chunk], 0);
        lower_common_next(state, chunk);
    }
    shard->claiming = 0;
}

static void empty_journal(struct rw_shard *shard) {
    barrier();
    shard->journal_count = 0;
    barrier();
}

/* What was given becomes free: a change of its own. */
static void free_given(struct rw_tx *tx) {
    struct rw_shard *shard = tx->shard;
    struct rw_block_at *last = rw_block_at(tx, shard->given_last);
    if (last == NULL) {
        rw_tx_damaged(tx);
        return;
    }
    RW_TX_SET(tx, last->next, shard->free);
    RW_TX_SET(tx, shard->free, shard->given);
    RW_TX_SET(tx, shard->free_count, shard->free_count + shard->given_count);
    RW_TX_SET(tx, shard->given, 0);
    RW_TX_SET(tx, shard->given_last, 0);
    RW_TX_SET(tx, shard->given_count, 0);
    empty_journal(shard);
}

/* ret: 0, EOWNERDEAD, or why the mutex is not taken */
static int lock(pthread_mutex_t *mutex, uint64_t wait_ms) {
    const int result = pthread_mutex_trylock(mutex);
    if (result != EBUSY) return result;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const uint64_t ns = (uint64_t)until.tv_nsec + wait_ms * 1000000;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until);
}

int32_t rw_tx_begin(struct rw_state *state, uint32_t shard, struct rw_tx *tx) {
    assert(shard < RW_STATE_SHARDS);
    *tx = (struct rw_tx){.state = state, .shard = &state->shards[shard], .index = shard};
    const uint64_t bit = (uint64_t)1 << shard;
    const int result = lock(&tx->shard->mutex, state->stuck & bit ? STUCK_WAIT_MS : RW_STATE_WAIT_MS);
    if (result == ETIMEDOUT) state->stuck |= bit;
    if (result != 0 && result != EOWNERDEAD) return result == ETIMEDOUT ? -ETIMEDOUT : RW_ERR_FULL;
    state->stuck &= ~bit;
    if (result == EOWNERDEAD) {
        tx->shard->recovered++;
        /* Notices of what it had committed may be lost with it. */
        rw_state_changed(tx);
    }
    if (result == EOWNERDEAD || tx->shard->journal_count != 0) roll_back(tx);
    /* Not before: were it repaired by now, and we killed, the next one would find it whole. */
    if (result == EOWNERDEAD) pthread_mutex_consistent(&tx->shard->mutex);
    if (tx->shard->given != 0) free_given(tx);
    /* Everything that walks ends after so many steps. */
    if (tx->shard->owned > state->block_count || tx->shard->free_count > tx->shard->owned) rw_tx_damaged(tx);
    if (tx->shard->is_damaged == WHOLE || empty_shard(tx)) return RW_OK;
    pthread_mutex_unlock(&tx->shard->mutex);
    return RW_ERR_FULL;
}

void rw_tx_commit(struct rw_tx *tx) {
    empty_journal(tx->shard);
    if (tx->shard->given != 0) free_given(tx);
}

void rw_tx_end(struct rw_tx *tx) {
    rw_tx_commit(tx);
    pthread_mutex_unlock(&tx->shard->mutex);
}

void rw_tx_abort(struct rw_tx *tx) {
    roll_back(tx);
    pthread_mutex_unlock(&tx->shard->mutex);
}

void rw_tx_note(struct rw_tx *tx, const void *at, uint32_t bytes) {
    struct rw_journal_word *journal = rw_state_journal(tx->state, tx->index);
    const uint64_t begin = (uint64_t)((const uint8_t *)at - tx->state->region);
    uint32_t count = tx->shard->journal_count;
    for (uint64_t offset = begin & ~(uint64_t)7; offset < begin + bytes; offset += sizeof(uint64_t)) {
        const uint64_t *word = noted_word(tx, offset);
        assert(count < RW_TX_WORDS_MAX && word != NULL);
        journal[count] = (struct rw_journal_word){offset, *word};
        barrier();
        tx->shard->journal_count = ++count;
    }
    barrier();
}

void rw_state_changed(struct rw_tx *tx) { atomic_fetch_add_explicit(&tx->shard->changes, 1, memory_order_release); }

void rw_tx_damaged(struct rw_tx *tx) { tx->shard->is_damaged = DAMAGED; }

int rw_tx_is_damaged(const struct rw_tx *tx) { return tx->shard->is_damaged != WHOLE; }

uint32_t *rw_shard_words(const struct rw_tx *tx) { return tx->shard->words; }

/* ------------------------------------------------------------------ blocks */

void *rw_block_at(struct rw_tx *tx, rw_block block) {
    if (rw_state_has(tx->state, block)) return unchecked(tx->state, block);
    if (block != 0) rw_tx_damaged(tx);
    return NULL;
}

uint32_t rw_blocks_for(uint32_t first, uint64_t bytes) {
    if (bytes <= first) return 1;
    return 1 + (uint32_t)((bytes - first + RW_BLOCK_DATA_BYTES - 1) / RW_BLOCK_DATA_BYTES);
}

int rw_blocks_are_possible(const struct rw_tx *tx, uint64_t count) {
    return count <= tx->shard->owned || count <= tx->shard->owned + chunks_left(tx) * RW_CHUNK_BLOCKS;
}

int32_t rw_blocks_reserve(struct rw_tx *tx, uint64_t count) {
    assert(tx->shard->journal_count == 0);
    const struct rw_shard *shard = tx->shard;
    if (shard->free_count >= count) return RW_OK;
    /* What cannot be had is not to take the rest from the others. */
    if (count - shard->free_count > RW_CHUNK_BLOCKS && !rw_blocks_are_possible(tx, count)) return RW_ERR_FULL;
    while (shard->free_count < count)
        if (!add_chunk(tx)) return RW_ERR_FULL;
    return RW_OK;
}

rw_block rw_blocks_take(struct rw_tx *tx, uint32_t count, rw_block *tail) {
    struct rw_shard *shard = tx->shard;
    if (count == 0 || shard->free_count < count) return 0;
    const rw_block first = shard->free;
    rw_block last = first;
    struct rw_block_at *at = rw_block_at(tx, last);
    for (uint32_t i = 1; i < count && at != NULL; i++) {
        last = at->next;
        at = rw_block_at(tx, last);
    }
    if (at == NULL) { /* shorter than it is counted */
        rw_tx_damaged(tx);
        return 0;
    }
    RW_TX_SET(tx, shard->free, at->next);
    RW_TX_SET(tx, shard->free_count, shard->free_count - count);
    RW_TX_SET(tx, at->next, 0);
    if (tail != NULL) *tail = last;
    return first;
}

void rw_blocks_give(struct rw_tx *tx, rw_block first, rw_block last, uint32_t count) {
    struct rw_shard *shard = tx->shard;
    struct rw_block_at *at = rw_block_at(tx, last);
    if (at == NULL || !rw_state_has(tx->state, first) ||
        count > shard->owned - shard->free_count - shard->given_count) {
        rw_tx_damaged(tx);
        return;
    }
    RW_TX_SET(tx, at->next, shard->given);
    RW_TX_SET(tx, shard->given, first);
    if (shard->given_count == 0) RW_TX_SET(tx, shard->given_last, last);
    RW_TX_SET(tx, shard->given_count, shard->given_count + count);
}

void rw_blocks_give_chain(struct rw_tx *tx, rw_block first) {
    rw_block last = first;
    for (uint32_t count = 1; count <= tx->shard->owned; count++) {
        const struct rw_block_at *at = rw_block_at(tx, last);
        if (at == NULL) break;
        if (at->next == 0) {
            rw_blocks_give(tx, first, last, count);
            return;
        }
        last = at->next;
    }
    rw_tx_damaged(tx);
}

/* ------------------------------------------------------------------ bytes */

uint32_t rw_state_stretch(const struct rw_state *state, struct rw_cursor *cursor, uint64_t most, uint8_t **at) {
    if (cursor->at == RW_BLOCK_BYTES && rw_state_has(state, cursor->block)) {
        cursor->block = unchecked(state, cursor->block)->next;
        cursor->at = RW_BLOCK_BYTES - RW_BLOCK_DATA_BYTES;
    }
    if (!rw_state_has(state, cursor->block)) return 0;
    const uint32_t room = RW_BLOCK_BYTES - cursor->at;
    const uint32_t count = most < room ? (uint32_t)most : room;
    *at = (uint8_t *)unchecked(state, cursor->block) + cursor->at;
    cursor->at += count;
    return count;
}

int rw_state_write(const struct rw_state *state, rw_block block, uint32_t at, const void *from, uint64_t count) {
    struct rw_cursor cursor = {block, at};
    const uint8_t *source = from;
    uint8_t *to;
    while (count > 0) {
        const uint32_t bytes = rw_state_stretch(state, &cursor, count, &to);
        if (bytes == 0) return 0;
        memcpy(to, source, bytes);
        source += bytes;
        count -= bytes;
    }
    return 1;
}

int rw_bytes_write(struct rw_tx *tx, rw_block block, uint32_t at, const void *from, uint64_t count) {
    if (rw_state_write(tx->state, block, at, from, count)) return 1;
    rw_tx_damaged(tx);
    return 0;
}

int rw_bytes_read(struct rw_tx *tx, rw_block block, uint32_t at, void *to, uint64_t count) {
    struct rw_cursor cursor = {block, at};
    return rw_cursor_read(tx, &cursor, to, count);
}

int rw_cursor_read(struct rw_tx *tx, struct rw_cursor *cursor, void *to, uint64_t count) {
    uint8_t *target = to, *from;
    while (count > 0) {
        const uint32_t bytes = rw_state_stretch(tx->state, cursor, count, &from);
        if (bytes == 0) {
            rw_tx_damaged(tx);
            return 0;
        }
        memcpy(target, from, bytes);
        target += bytes;
        count -= bytes;
    }
    return 1;
}

int rw_bytes_equal(struct rw_tx *tx, rw_block block, uint32_t at, const void *with, uint64_t count) {
    struct rw_cursor cursor = {block, at};
    const uint8_t *other = with;
    uint8_t *from;
    while (count > 0) {
        const uint32_t bytes = rw_state_stretch(tx->state, &cursor, count, &from);
        if (bytes == 0) rw_tx_damaged(tx);
        if (bytes == 0 || memcmp(from, other, bytes) != 0) return 0;
        other += bytes;
        count -= bytes;
    }
    return 1;
}

/* ------------------------------------------------------------------ the index */

static rw_block *bucket_of(const struct rw_tx *tx, uint64_t hash) {
    return &rw_state_buckets(tx->state, tx->index)[hash & (tx->state->bucket_count - 1u)];
}

rw_block rw_index_find(struct rw_tx *tx, const struct rw_record_name *name) {
    rw_block block = *bucket_of(tx, name->hash);
    for (uint32_t i = 0; i <= tx->shard->owned; i++) {
        const struct rw_record *record = rw_block_at(tx, block);
        if (record == NULL) return 0;
        if (record->hash == name->hash && record->kind == name->kind && record->owner == name->owner &&
            record->name_bytes == name->count && rw_bytes_equal(tx, block, name->name_at, name->bytes, name->count))
            return block;
        block = record->index_next;
    }
    rw_tx_damaged(tx); /* it goes in a circle */
    return 0;
}

void rw_index_add(struct rw_tx *tx, rw_block block) {
    struct rw_record *record = rw_block_at(tx, block);
    if (record == NULL) return;
    rw_block *bucket = bucket_of(tx, record->hash);
    RW_TX_SET(tx, record->index_next, *bucket);
    RW_TX_SET(tx, *bucket, block);
}

void rw_index_remove(struct rw_tx *tx, rw_block block) {
    const struct rw_record *removed = rw_block_at(tx, block);
    if (removed == NULL) return;
    rw_block *link = bucket_of(tx, removed->hash);
    for (uint32_t i = 0; i <= tx->shard->owned; i++) {
        struct rw_record *record = rw_block_at(tx, *link);
        if (record == NULL) break;
        if (record == removed) {
            RW_TX_SET(tx, *link, removed->index_next);
            return;
        }
        link = &record->index_next;
    }
    rw_tx_damaged(tx);
}

/* ------------------------------------------------------------------ giving memory back */

#define GIVE_BACK_OF_SHARD 128u /* + shard, in `owners` */
#define GIVE_BACK_AT_ONCE 64u

static void remove_pages(struct rw_state *state, uint32_t chunk) {
    /* It costs memory only when the kernel cannot. */
    (void)madvise(state->blocks + (uint64_t)chunk * RW_CHUNK_BYTES, RW_CHUNK_BYTES, MADV_REMOVE);
}

void rw_shard_give_back(struct rw_tx *tx) {
    struct rw_state *state = tx->state;
    struct rw_shard *shard = tx->shard;
    assert(shard->journal_count == 0);
    uint32_t done = 0;
    if (shard->owned > 0 && shard->free_count == shard->owned && loans_are_over(shard)) {
        /* Nothing is in use, so being killed before the end is mended by emptying it. */
        shard->gives_back = 1;
        shard->is_damaged = GIVING_BACK;
        barrier();
        const uint32_t own = shard->own_chunks;
        forget_all(tx);
        shard->own_chunks = 0;
        for (uint32_t i = first_common(state); i < state->chunk_count; i++)
            if (atomic_load(&state->owners[i]) == tx->index + 1)
                atomic_store(&state->owners[i], (uint8_t)(GIVE_BACK_OF_SHARD + tx->index));
        barrier();
        shard->is_damaged = WHOLE;
        for (; done < own && done < GIVE_BACK_AT_ONCE; done++) remove_pages(state, tx->index + done * RW_STATE_SHARDS);
    }
    if (!shard->gives_back) return;
    for (uint32_t i = first_common(state); i < state->chunk_count; i++) {
        if (atomic_load(&state->owners[i]) != GIVE_BACK_OF_SHARD + tx->index) continue;
        if (done++ == GIVE_BACK_AT_ONCE) return; /* the rest another time */
        remove_pages(state, i);
        atomic_store(&state->owners[i], 0);
        lower_common_next(state, i);
    }
    shard->gives_back = 0;
}
