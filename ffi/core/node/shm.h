/* The memory that the workers of a node share: who is there, who wants what, counters, and one message ring per ordered
 * pair.
 *
 * Role: layout and mapping. Up: node_bus, core, supervisor (rw_shm_* in ringway.h). Down: memfd_create(2), mmap(2).
 *
 *   header | worker blocks [n] | rw_stats [n] | interest [n][RW_INTEREST_CELLS] u16
 *   | addresses [n][RW_IP_ROWS][RW_IP_CELLS] u16 | rings [from][to] | state
 *
 * n counts places: at most of them a worker lives at a time, and those of a generation that has left are empty until
 * the next but one.
 *
 * Every datum has one writer: a worker block, its counters, its interest, and the write position of its outgoing rings
 * belong to that worker; the read positions of its incoming rings too. The supervisor writes only when a worker is gone
 * (rw_shm_worker_gone). So a worker killed at any instruction leaves nothing half-written that another reads: a ring
 * record counts only once its write position is stored. Only `live` has several writers, and each changes its own bit
 * by one atomic operation.
 *
 * The state is what topics remember, and has many writers: see state/arena.h, which alone knows what is in it.
 *
 * Pages cost nothing until touched, and reading a hole touches it. So nobody looks at what belongs to an empty place:
 * `live` says who is there, `opened` which rings have ever been used. 512 places with rings of 1 MiB span 257 GiB of
 * addresses and, empty, no memory. */
#ifndef RW_SHM_H
#define RW_SHM_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/limits.h"
#include "ringway.h"

#define RW_SHM_MAGIC 0x5957474E49525731ull
#define RW_NODE_WORDS (RW_WORKERS_MAX / 64) /* a set of workers, as bits */

struct rw_shm_header {
    uint64_t magic;
    uint32_t abi_version;
    uint32_t worker_count;
    uint32_t ring_bytes;
    uint32_t stats_bytes;     /* sizeof(struct rw_stats): a reader of another version sees the difference */
    uint64_t workers_offset;  /* struct rw_shm_worker[worker_count] */
    uint64_t stats_offset;    /* struct rw_stats[worker_count] */
    uint64_t interest_offset; /* uint16_t[worker_count][RW_INTEREST_CELLS] */
    uint64_t rings_offset;    /* struct rw_shm_ring + bytes, [from * worker_count + to] */
    uint64_t total_bytes;
    uint64_t topic_seed;       /* secret: key of the topic hash, the same in every worker (rw_topics_seed) */
    uint8_t ticket_secret[32]; /* keys of TLS session tickets come from it (tls_tickets.h) */
    uint64_t ip_secret[2];     /* key of the hash of addresses (ip_limit.h) */
    uint64_t ip_offset;        /* uint16_t[worker_count][RW_IP_ROWS][RW_IP_CELLS] */
    uint32_t host_layout;      /* what the host's words of rw_stats mean, by a number of its own */
    uint32_t reserved;
    uint64_t state_offset;
    uint64_t state_bytes;  /* whole pages; 0: none */
    _Atomic uint64_t view; /* which workers own topics, see rw_shm_view_set(); by the supervisor */
    /* a bit per place where a worker lives; set and cleared by it, cleared for it when it is gone */
    _Atomic uint64_t live[RW_NODE_WORDS] __attribute__((aligned(64)));
} __attribute__((aligned(64)));

struct rw_shm_worker {
    _Atomic uint32_t epoch;    /* odd: alive; even: gone. +1 at each change */
    _Atomic uint32_t sleeping; /* 1: write its inbox eventfd after putting something in its rings */
    uint32_t pid;
    uint32_t reserved[13];
    /* a bit per sender that has put something in, set by it, or for it when it is gone; taken by exchange */
    _Atomic uint64_t pending[RW_NODE_WORDS];
    /* a bit per receiver whose ring of ours has ever been written to, also by a predecessor; by this worker */
    _Atomic uint64_t opened[RW_NODE_WORDS];
} __attribute__((aligned(64)));

/* Single producer, single consumer. Positions count bytes since the beginning and wrap at 2^64. */
struct rw_shm_ring {
    _Atomic uint64_t written __attribute__((aligned(64))); /* by the producer, release */
    /* by the producer; 1: it has an outbox, and wants to know when there is room */
    _Atomic uint32_t waiting;
    _Atomic uint64_t read __attribute__((aligned(64))); /* by the consumer, release */
    uint8_t bytes[] __attribute__((aligned(64)));       /* ring_bytes */
};

/* rw_shm_create() without what lies in the state, which is zero.
 * in:  state_bytes: any; rounded up to whole pages
 * ret: a memfd, or a negated errno */
int32_t rw_shm_make(uint32_t worker_count, uint32_t ring_bytes, uint32_t host_layout, uint64_t state_bytes);
struct rw_shm_header *rw_shm_at(uint64_t address); /* checks magic and version; NULL when they differ */
struct rw_shm_worker *rw_shm_worker(struct rw_shm_header *shm, uint32_t worker);
_Atomic uint16_t *rw_shm_interest(struct rw_shm_header *shm, uint32_t worker);
struct rw_shm_ring *rw_shm_ring(struct rw_shm_header *shm, uint32_t from, uint32_t to);
/* A worker begins or ceases to live at its place. */
void rw_shm_live_set(struct rw_shm_header *shm, uint32_t worker, int live);
/* Forget all interest of a worker and give its pages back. */
void rw_shm_interest_clear(struct rw_shm_header *shm, uint32_t worker);
/* The counters of addresses of a worker, [RW_IP_ROWS][RW_IP_CELLS], and the same for them. */
_Atomic uint16_t *rw_shm_ip_cells(struct rw_shm_header *shm, uint32_t worker);
void rw_shm_ip_clear(struct rw_shm_header *shm, uint32_t worker);
/* Zero every gauge, keep every counter. */
void rw_stats_reset_gauges(struct rw_stats *stats);

#endif
