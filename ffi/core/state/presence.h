/* Who is on a topic: connections of all workers of the node, by user, in the memory that they share.
 *
 * Role: members come and go, and each step that makes a user come or go appends a join or a leave to the topic's
 * presence log, under one lock. Up: members (what binds seats to subscriptions), the host's commands. Down: logs, arena.
 *
 *   topic   name "\0p…" · users · connections · grace       users of it, oldest first:  [ann] <-> [bob] <-> [eve]
 *   user    id · info · open connections · due · version    its first seat lies within, others have blocks of their own
 *   seat    a connection: slot, generation ── of ──> worker   one worker (place, epoch), and all of its seats
 *
 * A user is there from its first seat to its last, and for a grace beyond when that has ended with its connection:
 *
 *            join                     last connection ends                  grace is over
 *   (none) ────────> open ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─> waiting ───────────────────────────> (none)
 *             "join"   ^ └ ─ ─ ─ ─ ─ ─ ─ ─ ─ join ─ ─ ─ ─ ─ ┘                   "leave"
 *                      └── the last one leaves by itself: at once (a grace of another that has ended counts on) ──> (none)
 *
 * so joins and leaves of a user alternate. Users that wait lie on a wheel of two levels, by the clock of the machine
 * (CLOCK_MONOTONIC, the same for all workers).
 *
 * A seat belongs to a process, named by place and epoch. The seats of one that is gone are found by comparing its epoch
 * with that in shared memory, and end like any connection. So whatever is killed, and whenever, nobody stays for good.
 *
 * Shared with a store of other nodes (`is_shared`): then joins and leaves are decided there, and no log is written here.
 * Each change of what a user counts gives it a version and puts it on a list of the shard, for whoever writes to the
 * store; one that has gone is kept until that is acknowledged. Versions never come again while the node lives. */
#ifndef RW_STATE_PRESENCE_H
#define RW_STATE_PRESENCE_H

#include <stdint.h>

#include "state/logs.h"

#define RW_PRESENCE_USER_BYTES_MAX 1024u
#define RW_PRESENCE_INFO_BYTES_MAX 16384u
#define RW_PRESENCE_GRACE_MS_MAX 3600000u
#define RW_PRESENCE_LOG_SIZE 1000u   /* entries of a presence log */
#define RW_PRESENCE_LOG_SECONDS 300u /* and how long they are kept */
#define RW_PRESENCE_TAKEN_MS 10000u  /* what was taken and is not acknowledged by then is dirty again */

/* A process's view of it; filled by whoever opens it, and copied by nobody. */
struct rw_presence {
    struct rw_state *state;
    struct rw_shm_header *shm; /* epochs of workers */
    uint32_t worker;           /* place of this process */
    uint32_t epoch;            /* of this process at it; odd */
    uint32_t is_shared;
    uint32_t tick_shard;   /* where the next tick begins */
    uint64_t dirty_shards; /* bits: where rw_presence_take() looks */
};

/* ms of the wall clock (entries of logs) and of CLOCK_MONOTONIC (graces). */
struct rw_presence_clock {
    uint64_t wall_ms;
    uint64_t monotonic_ms;
};

/* Bytes that are borrowed for a call. */
struct rw_presence_bytes {
    const uint8_t *bytes;
    uint32_t count;
};

/* A connection of this process. */
struct rw_presence_seat {
    uint32_t slot;
    uint32_t generation;
};

struct rw_presence_join {
    struct rw_presence_seat seat;
    struct rw_presence_bytes user; /* 1..RW_PRESENCE_USER_BYTES_MAX, valid UTF-8 */
    struct rw_presence_bytes info; /* JSON, or nothing; up to RW_PRESENCE_INFO_BYTES_MAX */
    uint32_t grace_ms;             /* of all users of the topic from now on; at most RW_PRESENCE_GRACE_MS_MAX counts */
    uint32_t members_max;          /* seats and waiting users that the topic may have */
};

enum rw_presence_change {
    RW_PRESENCE_SAME = 0,    /* nobody has come or gone */
    RW_PRESENCE_CHANGED = 1, /* the presence log has another entry: to be delivered; or, shared, a user is dirty */
};

/* What an entry of a presence log has as its payload, its kind being RW_LOG_JOIN or RW_LOG_LEAVE:
 *   u16 bytes of the user's id (little-endian), id, info
 * out: *user and *info point into it. ret: 1; 0: it is none */
int rw_presence_entry(const uint8_t *payload, uint64_t count, struct rw_presence_bytes *user,
                      struct rw_presence_bytes *info);

/* `name` is that of the presence log: "\0p" and the topic. All of these answer, beside what is said at each, -ETIMEDOUT
 * and RW_ERR_FULL as rw_tx_begin() does. */

/* out: *seat: a number for rw_presence_leave(), never 0
 * ret: enum rw_presence_change; RW_ERR_FULL: the topic has members_max, or no memory is left; RW_ERR_INVALID: a length */
int32_t rw_presence_join(struct rw_presence *presence, const struct rw_state_name *name,
                         const struct rw_presence_join *join, const struct rw_presence_clock *now, rw_block *seat);

/* ret: 1: the seat is of this user; 0: of another, or there is none */
int32_t rw_presence_is(struct rw_presence *presence, const struct rw_state_name *name, rw_block seat,
                       struct rw_presence_seat of, struct rw_presence_bytes user);

/* The seat is free. closed: 1: with its connection, so the user has its grace; 0: by itself.
 * ret: enum rw_presence_change; RW_ERR_STALE: it was not this connection's */
int32_t rw_presence_leave(struct rw_presence *presence, const struct rw_state_name *name, rw_block seat,
                          struct rw_presence_seat of, int closed, const struct rw_presence_clock *now);

/* Called for each user that has left. `name` of the presence log is borrowed for the call; no shard is taken
 * meanwhile. */
typedef void rw_presence_left_fn(void *context, const uint8_t *name, uint32_t name_bytes);

/* Graces that are over end, seats of processes that are gone begin theirs, what was taken and not acknowledged is dirty
 * again. Any worker, about once a second.
 * in:  budget: users to deal with, at most
 * ret: 1: there is more to do now, 0: not before the next tick */
int rw_presence_tick(struct rw_presence *presence, const struct rw_presence_clock *now, uint32_t budget,
                     rw_presence_left_fn *left, void *context);

struct rw_presence_count {
    uint32_t users;
    uint32_t connections; /* open ones, and 1 for each user that waits */
};
/* ret: RW_OK */
int32_t rw_presence_count(struct rw_presence *presence, const struct rw_state_name *name,
                          struct rw_presence_count *out);

/* Everybody, in the order of their joins, with the end of the presence log as it is then; a log that is not there begins,
 * unless shared (then *position may be all 0). Into out[0..bytes), for each user:
 *   u32 connections, u16 bytes of its id, u16 bytes of its info, id, info              host order, not aligned
 * ret: bytes needed for all; out holds them only when that is at most `bytes` */
int64_t rw_presence_list(struct rw_presence *presence, const struct rw_state_name *name, uint64_t now_ms, uint8_t *out,
                         uint64_t bytes, struct rw_position *position);

/* ------------------------------------------------------------------ shared with a store of other nodes */

/* Users that are dirty and not taken, and take them. Into out[0..bytes), for each:
 *   u32 connections (0: gone), u64 version, u16 bytes of topic, user and info, then topic (without "\0p"), user, info
 * in:  max: users, at most; bytes: enough for one at least: RW_PRESENCE_DIRTY_BYTES_MAX
 * out: *used: bytes written. ret: how many; fewer than `max`: no more are known of here (a tick looks everywhere), or
 * `out` is full */
#define RW_PRESENCE_DIRTY_BYTES_MAX (18u + RW_TOPIC_BYTES_MAX + RW_PRESENCE_USER_BYTES_MAX + RW_PRESENCE_INFO_BYTES_MAX)
int32_t rw_presence_take(struct rw_presence *presence, uint32_t max, const struct rw_presence_clock *now, uint8_t *out,
                         uint64_t bytes, uint64_t *used);

/* The store has this version. ret: RW_OK, also when there is a later one, or no such user */
int32_t rw_presence_acknowledge(struct rw_presence *presence, const struct rw_state_name *name,
                                struct rw_presence_bytes user, uint64_t version);

/* Every user is dirty, by and by: marks those of one shard. in: cursor: 0 at first. ret: the next cursor; 0: it was the
 * last; or negative: that shard cannot be taken now, try again */
int32_t rw_presence_rewrite(struct rw_presence *presence, uint32_t cursor);

#endif
