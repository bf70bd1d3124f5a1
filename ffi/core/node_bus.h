/* Publishing to the other workers of the node through shared memory.
 *
 * Role: topics ↔ shared memory. Up: core (publish; receive once a turn). Down: shm, eventfds.
 * Guarantee: from one worker to another, messages arrive once and in order, or not at all (receiver gone, or its ring and the outbox full: counted).
 * Nobody waits for anybody: a full ring fills a bounded outbox in the sender; a worker that is gone is skipped, and its outbox thrown away.
 *
 * A worker declares interest by the hash of a topic: a saturating count per cell (hash % RW_INTEREST_CELLS). A cell that two topics share costs a
 * message that finds no subscriber; it never loses one. A cell that reached 65535 stays there until the worker is replaced.
 * Messages larger than a quarter of a ring travel as several records; the receiver puts them together. The first record of a new message discards an
 * unfinished one of the same sender (which died meanwhile). */
#ifndef RW_NODE_BUS_H
#define RW_NODE_BUS_H

#include <stddef.h>
#include <stdint.h>

#include "shm.h"

struct rw_node_bus;

struct rw_node_message {
    const uint8_t *topic;
    const uint8_t *payload;
    uint32_t topic_bytes;
    uint32_t payload_bytes;
    uint64_t topic_hash;
    uint32_t flags; /* RW_SEND_* */
    uint32_t from;  /* worker index */
};

/* in: inbox_fds[worker_count]: every worker's inbox eventfd, by which it is woken (-1: cannot be woken)
 * Announces this worker (epoch becomes odd), clears its interest, forgets what waited in its incoming rings.
 * ret: the bus, or NULL with errno set */
struct rw_node_bus *rw_node_bus_create(struct rw_shm_header *shm, uint32_t worker, const int32_t *inbox_fds, struct rw_stats *stats);
/* Withdraws interest and presence. */
void rw_node_bus_destroy(struct rw_node_bus *bus);

void rw_node_bus_interest(struct rw_node_bus *bus, uint64_t topic_hash, int interested);

/* Queue a message for every other live worker with interest. ret: to how many it went (rings or outboxes) */
uint32_t rw_node_bus_publish(struct rw_node_bus *bus, const struct rw_node_message *message);

/* ret: 1 another worker may have subscribers of the topic, 0 none has */
int rw_node_bus_wanted(const struct rw_node_bus *bus, uint64_t topic_hash);

/* Hand over up to `max` messages that arrived (borrowed for the call), each sender in turn. ret: how many; *more: 1 when some are left */
uint32_t rw_node_bus_receive(struct rw_node_bus *bus, uint32_t max, void (*deliver)(void *context, const struct rw_node_message *message), void *context, int *more);

/* Once a turn, after publishes: move outboxes into rings that have room, wake sleepers that got something. ret: bytes still in outboxes */
uint64_t rw_node_bus_flush(struct rw_node_bus *bus);

/* Before sleeping (value 1) and after (0). ret: 1 when something arrived meanwhile: do not sleep. */
int rw_node_bus_sleeping(struct rw_node_bus *bus, int value);

#endif
