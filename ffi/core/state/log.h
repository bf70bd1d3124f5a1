/* What a log is in blocks, and how it is changed within a transaction: between log.c, log_keys.c, log_room.c and logs.c.
 * See logs.h. */
#ifndef RW_STATE_LOG_H
#define RW_STATE_LOG_H

#include <stdint.h>

#include "state/arena.h"
#include "state/logs.h"
#include "state/shard.h"

enum rw_log_flag { RW_LOG_FOLLOWED = 1 };

/* The first block of a log; its name follows. */
struct rw_log {
    struct rw_record record;
    uint64_t epoch;
    uint64_t last;          /* offset of the newest entry ever; 0: none */
    uint64_t first;         /* offset of the oldest entry kept; last + 1: none is */
    uint64_t blocks_so_far; /* of all entries that were ever appended */
    uint64_t last_ms;       /* time of the newest entry ever; 0: there was none */
    uint64_t used_ms;       /* when it was last used, about to the second */
    rw_block oldest;        /* entries; 0: none */
    rw_block newest;
    rw_block keys_first; /* idempotency keys, oldest first */
    rw_block keys_last;
    rw_block older; /* logs of the shard in the order of use */
    rw_block newer;
    uint32_t seconds;
    uint32_t flags;
    uint32_t begun; /* no other log of the shard has had it, nor this one before */
    uint32_t reserved;
};
#define RW_LOG_NAME_AT sizeof(struct rw_log)

/* The first block of an entry; its payload follows. */
struct rw_log_block {
    rw_block next;     /* in the end the first block of the next entry */
    rw_block previous; /* first block of the entry before, if that is kept */
    rw_block last;     /* block of this entry */
    rw_block jump;     /* first block of the entry at jump_offset, if that is kept; 0: it never was */
    uint64_t offset;
    uint64_t jump_offset;
    uint64_t time_ms;
    uint64_t blocks_before; /* of all entries before it */
    struct rw_origin origin;
    uint32_t flags;
    uint32_t bytes;
};
#define RW_LOG_PAYLOAD_AT sizeof(struct rw_log_block)

/* ------------------------------------------------------------------ log.c */

/* ret: 0: there is none */
rw_block rw_log_find(struct rw_tx *tx, const struct rw_state_name *name);
struct rw_log *rw_log_at(struct rw_tx *tx, rw_block block); /* NULL: damage */
uint32_t rw_log_name_blocks(uint32_t name_bytes);
uint32_t rw_log_entry_blocks(uint32_t bytes);
/* From reserved blocks, without an entry, the next offset being position.offset + 1. ret: 0: damage */
rw_block rw_log_create(struct rw_tx *tx, const struct rw_state_name *name, struct rw_position position,
                       uint64_t now_ms);
/* Forget entries and keys: the next offset is position.offset + 1. */
void rw_log_begin(struct rw_tx *tx, struct rw_log *log, struct rw_position position);
/* With its entries; its keys become orphans. */
void rw_log_drop(struct rw_tx *tx, rw_block block);
/* It is used: to the newer end of the order of use. */
void rw_log_touch(struct rw_tx *tx, rw_block block, uint64_t now_ms);

/* A chain with a payload in it, filled but for its header. */
struct rw_log_chain {
    rw_block first, last;
    uint32_t count;
};
/* The entry with offset log->last + 1, whose time is not below that of the newest. ret: 0: damage */
int rw_log_link(struct rw_tx *tx, struct rw_log *log, const struct rw_log_entry *entry, struct rw_log_chain chain);

/* ret: the entry with this offset, which is kept; NULL: damage */
struct rw_log_block *rw_log_entry_at(struct rw_tx *tx, const struct rw_log *log, uint64_t offset);
/* Its neighbours; NULL at the ends, or damage. */
struct rw_log_block *rw_log_entry_next(struct rw_tx *tx, const struct rw_log *log, const struct rw_log_block *entry);
struct rw_log_block *rw_log_entry_previous(struct rw_tx *tx, const struct rw_log *log,
                                           const struct rw_log_block *entry);
/* Drop entries below `first`, which is at most log->last + 1. */
void rw_log_trim(struct rw_tx *tx, struct rw_log *log, uint64_t first);
/* Drop what has expired. */
void rw_log_expire(struct rw_tx *tx, struct rw_log *log, uint64_t now_ms);
/* Drop the oldest entries until so many blocks came free, or none is left. */
void rw_log_shorten(struct rw_tx *tx, struct rw_log *log, uint64_t blocks);
uint64_t rw_log_blocks_held(struct rw_tx *tx, const struct rw_log *log);

/* ------------------------------------------------------------------ log_room.c */

/* Blocks that nobody fills any more come back. Outside a change; commits. */
void rw_loans_reclaim(struct rw_tx *tx);
/* Take blocks for a payload of so many bytes of a log, which stays, to be filled without the shard. Before the first change; commits, and lets
 * go of the shard in between when there are many.
 * ret: the loan, whose mutex is held, and the shard is let go of; NULL: no room, or too many are out: the shard is taken
 * still, unless *result is not RW_OK, which is what rw_tx_begin() says */
struct rw_loan *rw_loan_take(struct rw_tx *tx, const struct rw_state_name *name, uint32_t bytes, uint64_t now_ms,
                             int32_t *result);
/* Its blocks are the caller's now. */
struct rw_log_chain rw_loan_use(struct rw_tx *tx, struct rw_loan *loan);

/* ------------------------------------------------------------------ log_keys.c */

uint32_t rw_log_key_blocks(const struct rw_log_key *key);
/* ret: 1 and the offset that was remembered */
int rw_log_key_find(struct rw_tx *tx, rw_block log_block, const struct rw_log *log, const struct rw_log_key *key,
                    uint64_t now_ms, uint64_t *offset);
/* From reserved blocks; one of the same bytes has expired. */
void rw_log_key_add(struct rw_tx *tx, rw_block log_block, struct rw_log *log, const struct rw_log_key *key,
                    uint64_t offset, uint64_t now_ms);
/* Drop the oldest keys that have expired, a few, and orphans. ret: how many went: a change each */
#define RW_LOG_KEYS_AT_ONCE 8u
uint32_t rw_log_keys_expire(struct rw_tx *tx, struct rw_log *log, uint64_t now_ms);
uint32_t rw_log_orphans_drop(struct rw_tx *tx);
/* All keys of a log become orphans. */
void rw_log_keys_leave(struct rw_tx *tx, struct rw_log *log);

#endif
