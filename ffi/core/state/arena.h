/* What a node remembers, in the memory that its workers share: locks that survive a killed holder, changes that are
 * whole or have not been, and blocks to keep things in.
 *
 * Role: transactions, blocks and an index of names; knows nothing of logs or members. Up: logs, presence. Down: shm
 * (where the region lies), pthread_mutex (robust, process-shared), madvise(2).
 *
 *   region   header | shards [64] | journals [64] | buckets [64][n] u32 | owner of a chunk [chunks] u8 | blocks of 128
 *
 *   shard    mutex · journal count · free blocks · roots of logs and of presence
 *   block    { u32 next; 124 bytes }       0 is no block; chunks of 512 blocks are handed to shards as they need them
 *
 * A topic belongs to one shard, by its hash, and so does all that is remembered of it. Whoever holds a shard may change
 * it: before a word changes, rw_tx_note() writes its old value to the journal of the shard; rw_tx_commit() empties the
 * journal. A process that is killed at any instruction leaves the mutex to the kernel, which tells the next one who asks
 * (EOWNERDEAD, set_robust_list(2)), and that one puts the old values back: a change is whole or has not been.
 *
 *   struct rw_tx tx;
 *   int32_t result = rw_tx_begin(state, name.shard, &tx);
 *   if (result < 0) return result;
 *   if (rw_logs_reserve(&tx, 3, 0, now_ms) < 0) { rw_tx_abort(&tx); return RW_ERR_FULL; }    room first: it commits by itself
 *   rw_block block = rw_blocks_take(&tx, 3, NULL);                                   what was free needs no note
 *   RW_TX_SET(&tx, thing->first, block);                                             what others see does
 *   rw_tx_end(&tx);
 *
 * Half of the chunks are shared out evenly, so that no shard can take the room of all others; the other half goes to
 * whoever needs it first. A page that was never used costs nothing.
 *
 * Damage: a block number or a length that cannot be is told by rw_tx_damaged(); the shard is then emptied by whoever
 * takes it next, and its logs begin new epochs. Nothing is read or written outside the region, whatever lies in it. */
#ifndef RW_STATE_ARENA_H
#define RW_STATE_ARENA_H

#include <stdint.h>

#include "node/shm.h"

#define RW_STATE_SHARDS 64u
#define RW_STATE_BYTES_MIN ((uint64_t)8 << 20)
#define RW_STATE_BYTES_MAX ((uint64_t)256 << 30)
#define RW_BLOCK_BYTES 128u
#define RW_BLOCK_DATA_BYTES 124u
#define RW_TX_WORDS_MAX 510u /* of 8 bytes, that one transaction may change between two commits */
#define RW_STATE_WAIT_MS 2000u

struct rw_state; /* a process's view of the region */
struct rw_shard;

/* A block by its number in the region; 0: none. */
typedef uint32_t rw_block;

struct rw_tx {
    struct rw_state *state;
    struct rw_shard *shard;
    uint32_t index; /* of the shard */
};

/* ------------------------------------------------------------------ the region */

/* in:  shm: a mapping, see rw_shm_at(); must outlive the state
 * ret: NULL: the memory of this node has no region (made with state_bytes 0), it is not one of ours, or -ENOMEM */
struct rw_state *rw_state_open(struct rw_shm_header *shm);
void rw_state_close(struct rw_state *state);

/* What something is called, and where it lies. Borrowed bytes. */
struct rw_state_name {
    const uint8_t *bytes;
    uint32_t count;
    uint32_t shard; /* below RW_STATE_SHARDS */
    uint64_t hash;  /* rw_topics_hash() of the bytes */
};

/* Names that begin with "\0p" are of the presence of the topic that follows, and lie in that topic's shard: both change
 * under one lock.
 * in:  count: 1..RW_TOPIC_BYTES_MAX; else the name has no bytes, which everything refuses (RW_ERR_INVALID) */
struct rw_state_name rw_state_name(const uint8_t *bytes, uint32_t count);

/* Counts what has changed in a shard: grows with each append, put and reset of its logs, also of a worker that was
 * killed before it could tell anybody. Without a lock, at any time. */
uint64_t rw_state_changes(const struct rw_state *state, uint32_t shard);
/* For whoever changes something that others are to look at; within a transaction, before its commit. */
void rw_state_changed(struct rw_tx *tx);

/* For counters and tests, without a lock: what may change while it is read. */
void rw_state_usage(const struct rw_state *state, struct rw_topic_memory *out);

/* ------------------------------------------------------------------ transactions */

/* Take a shard. Never two at a time in one thread. Hold it for microseconds: the loops of other workers wait.
 * ret: RW_OK; -ETIMEDOUT: its holder, alive, has not let go of it for RW_STATE_WAIT_MS (stopped by a debugger?), or
 * for a moment when that was so the last time;
 * RW_ERR_FULL: it is damaged, and cannot be emptied yet */
int32_t rw_tx_begin(struct rw_state *state, uint32_t shard, struct rw_tx *tx);
/* What was changed stands from here on. The shard stays taken. */
void rw_tx_commit(struct rw_tx *tx);
/* Commit, and let go of the shard. */
void rw_tx_end(struct rw_tx *tx);
/* What was changed since the last commit has not been, and let go of the shard. */
void rw_tx_abort(struct rw_tx *tx);

/* Before bytes that others can see are changed: all of the words of 8 bytes that they touch are noted. They must lie in a
 * block of this shard, or in its rw_shard_words(). At most RW_TX_WORDS_MAX words between two commits (asserted). */
void rw_tx_note(struct rw_tx *tx, const void *at, uint32_t bytes);
#define RW_TX_SET(tx, field, value)                \
    do {                                           \
        rw_tx_note((tx), &(field), sizeof(field)); \
        (field) = (__typeof__(field))(value);      \
        __atomic_signal_fence(__ATOMIC_SEQ_CST);   \
    } while (0)

/* Something in the shard cannot be. Abort then; the shard is emptied before it is used again. */
void rw_tx_damaged(struct rw_tx *tx);
/* ret: 1 once rw_tx_damaged() was called in this transaction */
int rw_tx_is_damaged(const struct rw_tx *tx);

/* 32 words of the shard for presence: its roots and counts, zero at first and after damage. Change them with
 * RW_TX_SET. */
#define RW_SHARD_WORDS 32u
uint32_t *rw_shard_words(const struct rw_tx *tx);

/* ------------------------------------------------------------------ blocks */

/* The first word of every block: the next one of its chain, 0 at the end. A record is a struct of at most 128 bytes that
 * begins with it (struct rw_record does). */
struct rw_block_at {
    rw_block next;
    uint8_t data[RW_BLOCK_DATA_BYTES];
};

/* ret: where a block lies; NULL: there is no such block (0 too), and the transaction is damaged now unless it was 0 */
void *rw_block_at(struct rw_tx *tx, rw_block block);

/* How many blocks hold `bytes` when the first has room for `first` of them and the others for RW_BLOCK_DATA_BYTES. */
uint32_t rw_blocks_for(uint32_t first, uint64_t bytes);

/* See that rw_blocks_take() finds so many, by taking chunks, without dropping anything: see rw_logs_reserve(). Before
 * the first change of a transaction (asserted), since it commits. ret: RW_OK or RW_ERR_FULL */
int32_t rw_blocks_reserve(struct rw_tx *tx, uint64_t count);
/* ret: 1 the shard could have so many, if nothing else were in it; 0: never */
int rw_blocks_are_possible(const struct rw_tx *tx, uint64_t count);
/* ret: the first block of a chain of so many; *tail its last, if wanted; 0: there are not so many free, or damage. Their
 * contents (apart from `next`) are anything; write them without a note. */
rw_block rw_blocks_take(struct rw_tx *tx, uint32_t count, rw_block *tail);
/* Give a chain back, from its first block to its last, so many. Free once it is committed: not to be taken before. */
void rw_blocks_give(struct rw_tx *tx, rw_block first, rw_block last, uint32_t count);
/* The same when only its first block is known: walks it. */
void rw_blocks_give_chain(struct rw_tx *tx, rw_block first);

/* Bytes that begin at byte `at` of a block (4..128) and go on at byte 4 of those that follow.
 * ret: 1; 0: the chain ends before, and the transaction is damaged now */
int rw_bytes_write(struct rw_tx *tx, rw_block block, uint32_t at, const void *from, uint64_t count); /* no note */
int rw_bytes_read(struct rw_tx *tx, rw_block block, uint32_t at, void *to, uint64_t count);
int rw_bytes_equal(struct rw_tx *tx, rw_block block, uint32_t at, const void *with, uint64_t count);

/* ------------------------------------------------------------------ the index of a shard */

enum rw_record_kind {
    RW_RECORD_LOG = 1,
    RW_RECORD_KEY = 2,
    RW_RECORD_TOPIC = 3,  /* of presence: a topic with members */
    RW_RECORD_USER = 4,   /* a user on a topic; owner: the topic's */
    RW_RECORD_MEMBER = 5, /* another connection of a user; owner: the user */
    RW_RECORD_WORKER = 6, /* a process that has members */
};

/* How whatever can be found by name begins. Its name is kept at byte `name_at` of the block, which is the same for all of
 * a kind. Filled by the caller, apart from index_next. */
struct rw_record {
    rw_block next;
    rw_block index_next; /* of its bucket */
    uint64_t hash;
    uint16_t kind;
    uint16_t name_bytes;
    rw_block owner; /* names are unique for each owner and kind; 0: of nobody */
};

struct rw_record_name {
    uint64_t hash; /* any good hash of owner and bytes */
    const uint8_t *bytes;
    uint16_t count;
    uint16_t kind;
    rw_block owner;
    uint32_t name_at;
};

/* ret: 0: none */
rw_block rw_index_find(struct rw_tx *tx, const struct rw_record_name *name);
void rw_index_add(struct rw_tx *tx, rw_block block);
/* It is there. */
void rw_index_remove(struct rw_tx *tx, rw_block block);

#endif
