/* What the node bus keeps of itself and of the other workers: shared by node_bus.c, node_send.c and node_receive.c, and
 * by nobody else.
 *
 * A peer is made when there is first something to say to it or to hear from it, so places where nobody ever lived cost
 * a pointer. */
#ifndef RW_NODE_PEER_H
#define RW_NODE_PEER_H

#include <stddef.h>
#include <stdint.h>

#include "node/node_bus.h"
#include "node/node_ring.h"

struct rw_node_outbox_entry;

struct rw_node_assembly {
    uint8_t *bytes; /* topic, then payload; NULL: no message is being put together */
    struct rw_node_record first;
    uint32_t have; /* payload bytes */
};

struct rw_node_peer {
    struct rw_node_writer out; /* .ring NULL: not used yet */
    uint32_t epoch;            /* the receiver's, when the oldest message of the outbox was queued */
    uint32_t waiting;          /* as stored in the ring */
    struct rw_node_outbox_entry *head;
    struct rw_node_outbox_entry **tail;
    uint64_t outbox_bytes;

    struct rw_shm_ring *in; /* NULL: not used yet */
    uint64_t read;          /* our position in `in` */
    struct rw_node_assembly assembly;
};

struct rw_node_bus {
    struct rw_shm_header *shm;
    struct rw_shm_worker *self;
    struct rw_stats *stats;
    _Atomic uint16_t *interest;
    uint32_t worker;
    uint32_t epoch;
    uint32_t words;       /* of a set of workers that are in use: worker_count / 64, rounded up */
    uint32_t next_sender; /* whose turn it is in receive */
    uint32_t assemblies;  /* peers with an unfinished message */
    uint64_t outbox_bytes;
    uint64_t others[RW_NODE_WORDS];  /* every place but our own */
    uint64_t arrived[RW_NODE_WORDS]; /* senders whose rings are to be looked at */
    uint64_t touched[RW_NODE_WORDS]; /* receivers to be told at the next flush */
    uint64_t queued[RW_NODE_WORDS];  /* receivers with an outbox */
    int32_t inbox_fds[RW_WORKERS_MAX];
    struct rw_node_peer *peers[]; /* worker_count; NULL: nothing has passed yet */
};

static inline void rw_node_count(uint64_t *field, uint64_t by) {
    __atomic_store_n(field, __atomic_load_n(field, __ATOMIC_RELAXED) + by, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------ sets of workers */

static inline void rw_node_bit_set(uint64_t *words, uint32_t bit) { words[bit / 64] |= (uint64_t)1 << (bit % 64); }

static inline void rw_node_bit_clear(uint64_t *words, uint32_t bit) { words[bit / 64] &= ~((uint64_t)1 << (bit % 64)); }

static inline int rw_node_bit_test(const uint64_t *words, uint32_t bit) {
    return (int)(words[bit / 64] >> (bit % 64) & 1);
}

static inline int rw_node_any(const struct rw_node_bus *bus, const uint64_t *words) {
    uint64_t any = 0;
    for (uint32_t i = 0; i < bus->words; i++) any |= words[i];
    return any != 0;
}

/* ret: the first member that is >= from, RW_WORKERS_MAX: none */
static inline uint32_t rw_node_bit_next(const struct rw_node_bus *bus, const uint64_t *words, uint32_t from) {
    for (uint32_t i = from / 64; i < bus->words; i++) {
        uint64_t rest = words[i];
        if (i == from / 64) rest &= ~(uint64_t)0 << (from % 64);
        if (rest != 0) return i * 64 + (uint32_t)__builtin_ctzll(rest);
    }
    return RW_WORKERS_MAX;
}

#define RW_NODE_EACH(bus, words, worker)                                             \
    for (uint32_t worker = rw_node_bit_next(bus, words, 0); worker < RW_WORKERS_MAX; \
         worker = rw_node_bit_next(bus, words, worker + 1))

/* ------------------------------------------------------------------ between the three files */

/* ret: the peer, or NULL: out of memory */
struct rw_node_peer *rw_node_peer(struct rw_node_bus *bus, uint32_t worker);
/* Tell the members that there is something of ours to look at: records, or room they waited for. Wakes them. */
void rw_node_tell(struct rw_node_bus *bus, const uint64_t *workers);
/* Begin to write to our ring to this worker, a peer already, where a predecessor of ours has left it. */
void rw_node_ring_open(struct rw_node_bus *bus, uint32_t worker);
/* Throw away what waits for this worker. */
void rw_node_outbox_discard(struct rw_node_bus *bus, uint32_t worker);
/* Take what others have announced. ret: 1 something is to be looked at */
int rw_node_arrived(struct rw_node_bus *bus);
void rw_node_assembly_discard(struct rw_node_bus *bus, struct rw_node_peer *peer);

#endif
