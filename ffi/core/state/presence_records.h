/* What members are made of in the memory of a node, and the lists that they lie on. Within state/presence*.c alone.
 *
 * Role: records, lists, counts; each function here works within a transaction and leaves its commit to the caller. One
 * that meets what cannot be calls rw_tx_damaged() and changes nothing more: callers look once, at the end. Room is
 * reserved before: nothing here fails for want of blocks. */
#ifndef RW_STATE_PRESENCE_RECORDS_H
#define RW_STATE_PRESENCE_RECORDS_H

#include <assert.h>
#include <stddef.h>

#include "state/presence.h"

struct rw_links {
    rw_block prev;
    rw_block next;
};

/* A topic with users. Its name, that of the presence log, follows at RW_TOPIC_NAME_AT. */
struct rw_present_topic {
    struct rw_record record;
    struct rw_links links; /* of the shard */
    rw_block first;        /* user */
    rw_block last;
    uint32_t users; /* without those that have gone */
    uint32_t connections;
    uint32_t grace_ms;
    uint32_t reserved;
};

/* A connection. worker 0: free. */
struct rw_present_seat {
    struct rw_links links; /* of its worker's */
    rw_block worker;
    uint32_t slot;
    uint32_t generation;
};

enum rw_present_flag {
    RW_PRESENT_WAITS = 1u << 0, /* on the wheel: nobody is connected */
    RW_PRESENT_DIRTY = 1u << 1, /* on the list of the dirty */
    RW_PRESENT_TAKEN = 1u << 2, /* on the list of the taken */
    RW_PRESENT_GONE = 1u << 3,  /* has left, and is kept until that is acknowledged */
};

/* A user of a topic, which is its owner. Its id and info follow at RW_USER_NAME_AT. */
struct rw_present_user {
    struct rw_record record;
    struct rw_links links;       /* of the topic, by their joins */
    struct rw_links waiting;     /* of a cell of the wheel */
    struct rw_links dirty;       /* of the dirty or the taken */
    struct rw_present_seat seat; /* the first; those beside it have blocks of their own */
    uint32_t open;               /* seats */
    uint32_t due;                /* units: the latest grace that has begun; 0: none since the latest join */
    uint32_t version_low;
    uint16_t version_high;
    uint16_t taken_s; /* when, by the low half of a clock of 1024 ms */
    uint16_t info_bytes;
    uint8_t flags; /* enum rw_present_flag */
    uint8_t cell;  /* of the wheel */
};

/* Another connection of a user, which is its owner. */
struct rw_present_extra {
    struct rw_record record;
    struct rw_present_seat seat;
};

/* A process that has, or has had, seats in this shard. */
struct rw_present_worker {
    struct rw_record record;
    struct rw_links links; /* of the shard */
    rw_block first;        /* block of a seat */
    uint32_t reserved;
    uint32_t place; /* place and epoch are its name */
    uint32_t epoch;
};

#define RW_TOPIC_NAME_AT ((uint32_t)sizeof(struct rw_present_topic))
#define RW_USER_NAME_AT ((uint32_t)sizeof(struct rw_present_user))
#define RW_WORKER_NAME_AT ((uint32_t)offsetof(struct rw_present_worker, place))

static_assert(sizeof(struct rw_present_user) == 88, "40 bytes of id and info lie in the first block of a user");
static_assert(sizeof(struct rw_present_topic) == 56 && sizeof(struct rw_present_worker) <= RW_BLOCK_BYTES, "fit");
static_assert(RW_PRESENCE_INFO_BYTES_MAX <= UINT16_MAX && RW_PRESENCE_USER_BYTES_MAX <= UINT16_MAX, "have 16 bits");

#define RW_WHEEL_CELLS 128u
#define RW_WHEEL_BLOCKS 5u
#define RW_DUE_UNIT_SHIFT 6u /* `due` counts 64 ms: it wraps 8 years after the machine has begun */

/* In the words of the shard. */
struct rw_present_roots {
    rw_block workers;
    rw_block topics;
    rw_block dirty_first;
    rw_block dirty_last;
    rw_block taken_first;
    rw_block taken_last;
    uint32_t waiting; /* users on the wheel */
    uint32_t turned;  /* cells of the wheel before it are empty; 16 units each */
    rw_block wheel[RW_WHEEL_BLOCKS];
    uint32_t users; /* with those that have gone */
    uint32_t seats;
    uint32_t version_low; /* the latest that a user has got */
    uint32_t version_high;
};
static_assert(sizeof(struct rw_present_roots) <= RW_SHARD_WORDS * sizeof(uint32_t), "fits the words of a shard");

/* What one step works with. */
struct rw_present_step {
    struct rw_tx tx;
    struct rw_presence *presence;
    struct rw_present_roots *roots;
    const struct rw_presence_clock *now;
};

/* ret: as rw_tx_begin() */
int32_t rw_present_begin(struct rw_present_step *step, struct rw_presence *presence, uint32_t shard,
                         const struct rw_presence_clock *now);
/* Ends the step: what was changed stands, unless damage was met. ret: `result`, or RW_ERR_FULL */
int32_t rw_present_end(struct rw_present_step *step, int32_t result);

/* ret: NULL: it is no such record, which is damage */
struct rw_present_topic *rw_present_topic_at(struct rw_tx *tx, rw_block block);
struct rw_present_user *rw_present_user_at(struct rw_tx *tx, rw_block block);
struct rw_present_worker *rw_present_worker_at(struct rw_tx *tx, rw_block block);
/* The seat in the block of a user or an extra, and whose it is in *user. */
struct rw_present_seat *rw_present_seat_at(struct rw_tx *tx, rw_block block, rw_block *user);

/* ret: 0: none */
rw_block rw_present_find_topic(struct rw_present_step *step, const struct rw_state_name *name);
rw_block rw_present_find_user(struct rw_present_step *step, rw_block topic, struct rw_presence_bytes id);
rw_block rw_present_find_worker(struct rw_present_step *step, uint32_t place, uint32_t epoch);

/* How many blocks each of these takes. */
uint32_t rw_present_topic_blocks(const struct rw_state_name *name);
uint32_t rw_present_user_blocks(struct rw_presence_bytes id, struct rw_presence_bytes info);
/* ret: 0 on damage */
rw_block rw_present_add_topic(struct rw_present_step *step, const struct rw_state_name *name);
rw_block rw_present_add_user(struct rw_present_step *step, rw_block topic, struct rw_presence_bytes id,
                             struct rw_presence_bytes info);
rw_block rw_present_add_worker(struct rw_present_step *step, uint32_t place, uint32_t epoch);
/* Takes a block unless the user has its first seat free. ret: where it lies */
rw_block rw_present_add_seat(struct rw_present_step *step, rw_block user, rw_block worker, struct rw_presence_seat of);

/* These give blocks back, so nothing may be taken after them in the same transaction. */
void rw_present_remove_seat(struct rw_present_step *step, rw_block seat);
/* The user must be off the wheel and have no seat; its topic goes with its last one. */
void rw_present_remove_user(struct rw_present_step *step, rw_block user);
void rw_present_remove_worker(struct rw_present_step *step, rw_block worker);

/* What a user counts among its topic's connections. */
static inline uint32_t rw_present_weight(const struct rw_present_user *user) {
    if (user->flags & RW_PRESENT_GONE) return 0;
    return user->open > 1 ? user->open : 1;
}

static inline uint64_t rw_present_version(const struct rw_present_user *user) {
    return (uint64_t)user->version_high << 32 | user->version_low;
}

/* ------------------------------------------------------------------ lists */
struct rw_present_list {
    struct rw_links *(*links)(struct rw_tx *tx, rw_block block); /* NULL: damage */
    rw_block *first;
    rw_block *last; /* NULL: nobody asks for it */
};
void rw_present_append(struct rw_tx *tx, struct rw_present_list list, rw_block block); /* needs `last` */
void rw_present_push(struct rw_tx *tx, struct rw_present_list list, rw_block block);
void rw_present_unlink(struct rw_tx *tx, struct rw_present_list list, rw_block block);

/* For whoever walks along one: a list that leads back never ends in a circle, whatever it has been damaged to.
 * ret: 1; 0: damage */
static inline int rw_present_follows(struct rw_tx *tx, const struct rw_links *links, rw_block before) {
    if (links->prev == before) return 1;
    rw_tx_damaged(tx);
    return 0;
}

/* A new version, and dirty. Nothing unless shared. */
void rw_present_touch(struct rw_present_step *step, rw_block user);
/* On the list of the dirty, or of the taken, or (flag 0) on neither. */
void rw_present_mark(struct rw_present_step *step, rw_block user, uint8_t flag);

/* ------------------------------------------------------------------ the wheel of those who wait */
/* The wheel of this shard is there from now on; takes RW_WHEEL_BLOCKS unless it is. */
void rw_present_wheel_make(struct rw_present_step *step);
void rw_present_wheel_add(struct rw_present_step *step, rw_block user, uint32_t due);
void rw_present_wheel_remove(struct rw_present_step *step, rw_block user);
/* The next user whose time has come, who stays on the wheel. Commits. *budget falls as users are looked at. ret: 0: none
 * (or the budget is spent) */
rw_block rw_present_wheel_due(struct rw_present_step *step, uint32_t *budget);

static inline uint32_t rw_present_units(uint64_t monotonic_ms) { return (uint32_t)(monotonic_ms >> RW_DUE_UNIT_SHIFT); }

#endif
