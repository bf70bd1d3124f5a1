/* Publishing to the other workers of the node, and mail to one of them, through shared memory.
 *
 * Role: topics ↔ shared memory. Up: core (publish, mail; receive once a turn). Down: shm, eventfds. Guarantee: from one
 * worker to another, messages arrive once and in order, or not at all (receiver gone, or its ring and the outbox full:
 * a publish is counted as dropped, mail is refused to its sender). Mail is for one process: the successor of one that
 * has died does not get it. Nobody waits for anybody: a full ring fills a bounded outbox in the sender; a worker that
 * is gone is skipped, and its outbox thrown away.
 *
 * A worker declares interest by the hash of a topic: a saturating count per cell (hash % RW_INTEREST_CELLS). A cell
 * that two topics share costs a message that finds no subscriber; it never loses one. A cell that reached 65535 stays
 * there until the worker is replaced. Messages larger than a quarter of a ring travel as several records; the receiver
 * puts them together. The first record of a new message discards an unfinished one of the same sender (which died
 * meanwhile).
 *
 * Wake-up (the same pattern both ways): the sender sets its pending bit, fence, reads `sleeping`; the receiver sets
 * `sleeping`, fence, reads the pending bits. One of the two sees the other. `waiting` and `read` of a ring do the same
 * for a sender that wants room.
 *
 * Split: node_bus.c lives, sleeps and declares interest; node_send.c sends; node_receive.c receives; node_peer.h is
 * what they share. */
#ifndef RW_NODE_BUS_H
#define RW_NODE_BUS_H

#include <stddef.h>
#include <stdint.h>

#include "node/shm.h"

struct rw_node_bus;

/* Of a message's flags, beside RW_SEND_*: its payload is a struct rw_position (state/logs.h), to which the log of its
 * topic has gone on. */
#define RW_NODE_ADVANCED (1u << 16)

struct rw_node_message {
    const uint8_t *topic; /* of a publish */
    const uint8_t *payload;
    uint32_t topic_bytes;
    uint32_t payload_bytes;
    uint64_t topic_hash;
    uint32_t flags; /* of a publish: RW_SEND_* */
    uint32_t from;  /* worker index */
    uint32_t epoch; /* of the sender; set where it is received */
    uint32_t is_mail;
};

/* in: inbox_fds[worker_count]: every worker's inbox eventfd, by which it is woken (-1: cannot be woken)
 * Announces this worker (epoch becomes odd), clears its interest, forgets what waited in its incoming rings.
 * ret: the bus, or NULL with errno set */
struct rw_node_bus *rw_node_bus_create(struct rw_shm_header *shm, uint32_t worker, const int32_t *inbox_fds,
                                       struct rw_stats *stats);
/* Withdraws interest and presence. */
void rw_node_bus_destroy(struct rw_node_bus *bus);

/* This process among those that have lived at its place; odd. */
uint32_t rw_node_bus_epoch(const struct rw_node_bus *bus);

/* Its place. */
uint32_t rw_node_bus_worker(const struct rw_node_bus *bus);

void rw_node_bus_interest(struct rw_node_bus *bus, uint64_t topic_hash, int interested);

/* Queue a message for every other live worker with interest. ret: to how many it went (rings or outboxes) */
uint32_t rw_node_bus_publish(struct rw_node_bus *bus, const struct rw_node_message *message);

/* Queue data for one other worker.
 * ret: RW_OK | RW_ERR_STALE nobody lives there | RW_ERR_FULL ring and outbox are full: nothing was sent, and it may fit
 * later |
 *      RW_ERR_INVALID to itself, or more than RW_NODE_OUTBOX_BYTES_MAX and half a ring, which never fits */
int32_t rw_node_bus_mail(struct rw_node_bus *bus, uint32_t to, const uint8_t *data, uint64_t bytes);

/* ret: 1 another worker may have subscribers of the topic, 0 none has */
int rw_node_bus_wanted(const struct rw_node_bus *bus, uint64_t topic_hash);

/* Hand over up to `max` messages that arrived (borrowed for the call), each sender in turn. deliver: 1 taken, 0 not
 * now: it stays in its ring, and what the same sender has sent behind it too, until the next call
 * ret: how many were taken; *more: 1 when some are left */
uint32_t rw_node_bus_receive(struct rw_node_bus *bus, uint32_t max,
                             int (*deliver)(void *context, const struct rw_node_message *message), void *context,
                             int *more);

/* Once a turn, after publishes: move outboxes into rings that have room, wake sleepers that got something. ret: bytes
 * still in outboxes */
uint64_t rw_node_bus_flush(struct rw_node_bus *bus);

/* Before sleeping (value 1) and after (0). ret: 1 when something arrived meanwhile: do not sleep. */
int rw_node_bus_sleeping(struct rw_node_bus *bus, int value);

#endif
