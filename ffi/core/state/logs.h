/* Logs: what was published to a topic, in order, within bounds of number and age.
 *
 * Role: append and read, by any worker of the node. Up: delivery (what a subscriber is due), the host's commands,
 * presence (joins and leaves are a log). Down: arena.
 *
 *   log   { epoch, first, last … name }     oldest ─> … ─> newest, one chain of blocks for all entries:
 *
 *         [entry 5|payload][payload] -> [entry 6|payload] -> [entry 7|payload][payload][payload] -> 0
 *          ^ first                                           ^ last
 *
 * Offsets are consecutive from 1 in an epoch, which is a random number: it changes when the past of the log is gone
 * (evicted, forgotten, reset), and never otherwise. An entry found by its offset takes O(log n) steps: each points to the
 * one before and, as a skew-binary number has digits, to one further back. Dropping any number of the oldest is a
 * change of a few words, since a part of a chain is given back as a whole.
 *
 * Expiry goes by the wall clock, in ms, that callers give as `now_ms`: the same for all workers. Times in a log never
 * fall, so a clock that is set back makes entries stay longer. What has expired is never read, whenever it is dropped.
 *
 * Without room, in this order: what has expired goes, then the logs of the shard that were used longest ago, whole, then
 * the oldest entries of the log itself (at once when it holds more than half of the shard); then the answer is
 * RW_ERR_FULL. */
#ifndef RW_STATE_LOGS_H
#define RW_STATE_LOGS_H

#include <stdint.h>

#include "state/arena.h"

#define RW_LOG_PAYLOAD_BYTES_MAX (256u << 20)
#define RW_LOG_KEY_BYTES_MAX 1024u
#define RW_LOG_KEY_SECONDS_DEFAULT 120u
#define RW_LOG_FORGET_SECONDS_MIN 3600u /* an empty log keeps its epoch so long, and twice its `seconds` */
#define RW_LOG_COPY_BYTES_MAX 65536u    /* of a payload that is copied while the shard is held */

struct rw_position {
    uint64_t epoch;  /* never 0 */
    uint64_t offset; /* from 1; 0: before the first */
};

/* Where an entry came from, so that its own connection can be left out when it is delivered. All 0: nowhere. */
struct rw_origin {
    uint32_t worker; /* place */
    uint32_t epoch;  /* of the worker at it, odd; 0: no connection is left out */
    uint32_t slot;
    uint32_t generation; /* of the slot */
};

/* Kept from now on. */
struct rw_log_limits {
    uint32_t size;    /* entries, at least 1 */
    uint32_t seconds; /* since their time, at least 1 */
};

/* What an entry is, in the bits of `flags` above those of RW_SEND_TEXT and its like, which are the caller's. */
enum rw_log_kind { RW_LOG_MESSAGE = 0, RW_LOG_JOIN = 1u << 16, RW_LOG_LEAVE = 2u << 16, RW_LOG_KIND = 3u << 16 };

struct rw_log_entry {
    uint64_t offset;  /* of an append: ignored */
    uint64_t time_ms; /* wall clock; of an append: 0 is now */
    uint32_t flags;
    uint32_t bytes;
    struct rw_origin origin;
    const uint8_t *payload; /* of an append, borrowed; of a read: in the caller's buffer */
};

/* So that a repeated append answers the first one's position. count 0: none */
struct rw_log_key {
    const uint8_t *bytes;
    uint32_t count;   /* at most RW_LOG_KEY_BYTES_MAX */
    uint32_t seconds; /* 0: RW_LOG_KEY_SECONDS_DEFAULT */
};

struct rw_log_end {
    uint64_t epoch;
    uint64_t first; /* offset of the oldest entry that can be read; last + 1: none can */
    uint64_t last;  /* of the newest ever; 0: none */
    uint32_t is_followed;
    uint32_t reserved;
};

enum rw_log_put {
    RW_LOG_TAKEN = 0, /* stored */
    RW_LOG_OLD = 1,   /* it was there already, or is older than what is kept */
    RW_LOG_GAP = 2,   /* nothing stored: those between the last and this one are missing */
    RW_LOG_EPOCH = 3, /* nothing stored: the log is of another epoch, or there is none. rw_log_reset() it first */
};

/* All of these answer, beside what is said at each:
 *   RW_ERR_INVALID  a name, key or payload longer than may be, a limit of 0, an epoch of 0
 *   RW_ERR_FULL     no room, after everything that could be dropped was
 *   -ETIMEDOUT      see rw_tx_begin()
 * and none leaves anything half done. Large payloads are copied before the shard is taken. */

/* Next offset. A log that is not there begins with a random epoch.
 * in:  key: NULL or count 0: none
 * out: *position of the entry, or of the first one with this key; *duplicate (may be NULL): 1 in that case
 * ret: RW_OK */
int32_t rw_log_append(struct rw_state *state, const struct rw_state_name *name, const struct rw_log_entry *entry,
                      const struct rw_log_key *key, const struct rw_log_limits *limits, uint64_t now_ms,
                      struct rw_position *position, int *duplicate);

/* Store what another store has numbered, at `position`.
 * ret: enum rw_log_put */
int32_t rw_log_put(struct rw_state *state, const struct rw_state_name *name, struct rw_position position,
                   const struct rw_log_entry *entry, const struct rw_log_limits *limits, uint64_t now_ms);

/* Begin anew after `position`: the next put is that of offset + 1. Entries and keys are forgotten, unless the log stands
 * exactly there: then only is_followed changes.
 * is_followed: this node hears of everything that comes after
 * ret: RW_OK */
int32_t rw_log_reset(struct rw_state *state, const struct rw_state_name *name, struct rw_position position,
                     int is_followed, uint64_t now_ms);

/* Say whether the log is followed, and change nothing else. ret: RW_OK; RW_ERR_STALE: there is no such log */
int32_t rw_log_follow(struct rw_state *state, const struct rw_state_name *name, int is_followed);

/* ret: 1 and *end; 0: there is no such log */
int32_t rw_log_end(struct rw_state *state, const struct rw_state_name *name, uint64_t now_ms, struct rw_log_end *end);

/* The same, and a log that is not there begins, with no entry: whoever comes to a topic has a position at once, from
 * which it recovers what is said later. ret: 1 it was there, 0 it has begun */
int32_t rw_log_open(struct rw_state *state, const struct rw_state_name *name, uint64_t now_ms, struct rw_log_end *end);

struct rw_log_query {
    uint64_t epoch;   /* 0: whichever; another one than the log's: nothing is read */
    uint64_t after;   /* forwards: from offset after + 1; backwards: from after - 1 down, 0: from the newest */
    uint32_t reverse; /* 1: newest first */
    uint32_t max;     /* entries, at most; 0: the end alone */
};

/* Copy entries out, in order, until `max`, the end, or no room in `buffer` for the next payload. A payload larger than
 * RW_LOG_COPY_BYTES_MAX is read in pieces, between which others may have the shard; if it is dropped meanwhile, reading
 * ends before it, and end->first says so.
 * in:  entries[query->max]; buffer: payloads, at 8 byte boundaries
 * out: *end as it was when the read began, or where the log had gone when a large payload was dropped;
 *      *needed (may be NULL): bytes of the next payload when it has no room in the whole buffer, else 0
 * ret: how many entries; RW_ERR_STALE: there is no such log (nothing in *end) */
int32_t rw_log_read(struct rw_state *state, const struct rw_state_name *name, const struct rw_log_query *query,
                    uint64_t now_ms, struct rw_log_entry *entries, uint8_t *buffer, uint64_t buffer_bytes,
                    struct rw_log_end *end, uint64_t *needed);

/* Forget a log and its keys: its next append begins a new epoch. ret: 1 it was there, 0 */
int32_t rw_log_forget(struct rw_state *state, const struct rw_state_name *name);

/* Drop what has expired of a few logs of some shard, in turn: any worker, about once a second. Logs whose time to be
 * forgotten has come go too. Cheap when there is nothing. */
void rw_logs_sweep(struct rw_state *state, uint64_t now_ms);

/* ------------------------------------------------------------------ within a transaction that has begun */

/* See that rw_blocks_take() finds so many, dropping expired entries and logs of the shard as above. Before the first
 * change (asserted), since it commits. keep: the log that must stay, 0: none. ret: RW_OK or RW_ERR_FULL */
int32_t rw_logs_reserve(struct rw_tx *tx, uint64_t count, rw_block keep, uint64_t now_ms);

/* How many blocks an append to a log of this name can take at most. */
uint64_t rw_logs_blocks(const struct rw_state_name *name, uint32_t payload_bytes);

/* rw_log_append() without a key, for whoever holds name->shard and has reserved rw_logs_blocks() beside its own: part of
 * that transaction, at most 64 words of it. Payload of at most RW_LOG_COPY_BYTES_MAX. ret: RW_OK, or RW_ERR_FULL on
 * damage: abort then */
int32_t rw_logs_append(struct rw_tx *tx, const struct rw_state_name *name, const struct rw_log_entry *entry,
                       const struct rw_log_limits *limits, uint64_t now_ms, struct rw_position *position);
/* ret: 1 and *end; 0: there is no such log */
int rw_logs_end(struct rw_tx *tx, const struct rw_state_name *name, uint64_t now_ms, struct rw_log_end *end);

#endif
