/* What lies in the region of a shard, and where: for arena.c, region.c and logs.c alone. See arena.h. */
#ifndef RW_STATE_SHARD_H
#define RW_STATE_SHARD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "state/arena.h"

#define RW_CHUNK_BLOCKS 512u
#define RW_CHUNK_BYTES (RW_CHUNK_BLOCKS * RW_BLOCK_BYTES)
#define RW_LOANS 8u /* large payloads that are copied into one shard at a time; one more is copied while it is held */

/* The old value of a word of the region. */
struct rw_journal_word {
    uint64_t offset; /* from the beginning of the region; a multiple of 8 */
    uint64_t value;
};

/* Blocks that a process fills while it does not hold the shard. It holds `mutex` so long, and nothing else says whose
 * they are: when it is killed, the mutex tells, and whoever needs blocks takes them back. */
struct rw_loan {
    pthread_mutex_t mutex;
    rw_block first, last; /* 0: none */
    uint32_t count;
    uint32_t reserved;
};

struct rw_shard {
    pthread_mutex_t mutex;
    uint32_t journal_count; /* words noted since the last commit; written last when one is added */
    uint32_t is_damaged;
    _Atomic uint64_t changes;
    rw_block free;
    uint32_t free_count;
    rw_block given; /* in the present change: a chain that is free once that is committed */
    rw_block given_last;
    uint32_t given_count;
    uint32_t owned;      /* blocks, free or not */
    uint32_t own_chunks; /* of those kept for this shard, taken so far */
    uint32_t claiming;   /* chunk + 1 that is being taken from the common ones; 0: none */
    rw_block log_oldest; /* logs in the order in which they were last used */
    rw_block log_newest;
    rw_block log_sweep; /* where the next sweep goes on; 0: at the oldest */
    rw_block orphans;   /* keys of logs that are gone */
    uint32_t logs;
    uint32_t begins; /* of logs, so that whoever lets go of the shard while it reads knows one that has begun anew */
    uint32_t gives_back; /* chunks of it in `owners` wait to be given back */
    uint64_t evicted;
    uint64_t recovered;
    uint64_t damaged;
    uint32_t words[RW_SHARD_WORDS]; /* of presence */
    struct rw_loan loans[RW_LOANS];
} __attribute__((aligned(64)));

/* First in the region, and all zero at first. */
struct rw_state_header {
    _Atomic uint32_t common_next; /* where to look for a common chunk: a hint */
    _Atomic uint32_t sweep_next;
};

struct rw_state {
    uint8_t *region;
    uint64_t region_bytes;
    struct rw_state_header *header;
    struct rw_shard *shards;          /* [RW_STATE_SHARDS] */
    struct rw_journal_word *journals; /* [RW_STATE_SHARDS][RW_TX_WORDS_MAX] */
    rw_block *buckets;                /* [RW_STATE_SHARDS][bucket_count] */
    _Atomic uint8_t *owners;          /* [chunk_count]: shard + 1, of common chunks; 0: nobody's */
    uint8_t *blocks;                  /* block 1 */
    uint32_t bucket_count;            /* of a shard, a power of two */
    uint32_t chunk_count;
    uint32_t own_chunks;  /* kept for each shard: chunk s + RW_STATE_SHARDS * i is of shard s */
    uint32_t block_count; /* numbers go from 1 to this */
    uint64_t stuck;       /* a bit for each shard that was waited for in vain: it is not waited for so long again */
};

/* A place in the bytes of a chain. */
struct rw_cursor {
    rw_block block;
    uint32_t at; /* 4..128 */
};
/* The next bytes of a chain that lie together, at most so many; the cursor moves past them. ret: 0: it has ended */
uint32_t rw_state_stretch(const struct rw_state *state, struct rw_cursor *cursor, uint64_t most, uint8_t **at);
/* rw_bytes_write() into blocks that are lent, without the shard. ret: 1, or 0: the chain has ended */
int rw_state_write(const struct rw_state *state, rw_block block, uint32_t at, const void *from, uint64_t count);
/* rw_bytes_read() that moves a cursor. */
int rw_cursor_read(struct rw_tx *tx, struct rw_cursor *cursor, void *to, uint64_t count);
/* Give the memory of a shard in which nothing is in use back to the kernel, some at a time. Outside a change. */
void rw_shard_give_back(struct rw_tx *tx);

/* Where everything lies, which follows from the size alone. */
void rw_state_lay_out(struct rw_state *state, uint8_t *region, uint64_t region_bytes);

static inline struct rw_journal_word *rw_state_journal(const struct rw_state *state, uint32_t shard) {
    return state->journals + (uint64_t)shard * RW_TX_WORDS_MAX;
}
static inline rw_block *rw_state_buckets(const struct rw_state *state, uint32_t shard) {
    return state->buckets + (uint64_t)shard * state->bucket_count;
}
static inline int rw_state_has(const struct rw_state *state, rw_block block) {
    return block - 1u < state->block_count; /* 0 wraps */
}

#endif
