/* Records in one ring of shared memory: messages in, messages out, whole or in parts.
 *
 * Role: bytes ↔ records. Up: node_bus, which owns positions, outboxes and what is put together. Down: shm.
 *
 *   ring:   … | record | record | pad | record …        a record is contiguous and 8-aligned; the pad fills up to the
 *   ring's end
 *   record: struct rw_node_record | topic (FIRST only) | part of the payload | up to 7 bytes
 *
 * A message is cut at ring_bytes / 4, so that a pad and a record always fit into a ring that is half empty. */
#ifndef RW_NODE_RING_H
#define RW_NODE_RING_H

#include <stdint.h>

#include "node/node_bus.h"
#include "node/shm.h"

enum rw_node_record_flag {
    RW_NODE_FIRST = 1u << 0,
    RW_NODE_LAST = 1u << 1,
    RW_NODE_PAD = 1u << 2,  /* only `bytes` and `flags` are there */
    RW_NODE_MAIL = 1u << 3, /* no publish: it has no topic, and its topic_hash is the epoch of the receiver it is for */
};

struct rw_node_record {
    uint32_t bytes; /* the whole record; a multiple of 8 */
    uint32_t flags; /* enum rw_node_record_flag */
    uint64_t topic_hash;
    uint32_t topic_bytes; /* 0 without FIRST */
    uint32_t part_bytes;
    uint32_t payload_bytes; /* of the whole message */
    uint32_t offset;        /* of this part in the payload */
    uint32_t message_flags; /* RW_SEND_* */
    uint32_t epoch;         /* of the sender: its successor does not continue its messages */
};

/* The producer's side of a ring. */
struct rw_node_writer {
    struct rw_shm_ring *ring;
    uint32_t ring_bytes;
    uint64_t written;   /* stored in the ring: what lies beyond does not exist for the reader */
    uint64_t read_seen; /* the reader's position, as last looked at: looked at again only when it does not suffice */
};

/* How far a message has gone into a ring; all zero at first. */
struct rw_node_progress {
    uint32_t payload;
    uint32_t started; /* its first record is written */
};

/* Write as much of a message as fits, from *position (>= writer->written) on; *position and *progress go on. Nothing of
 * it counts before `written` is stored, so a caller may as well forget it. ret: 1 all of the message is written | 0 the
 * ring is full */
int rw_node_ring_write(struct rw_node_writer *writer, const struct rw_node_message *message, uint32_t epoch,
                       struct rw_node_progress *progress, uint64_t *position);

/* Copy and check the record at `read`, where read != written. A pad has flags RW_NODE_PAD; anything else is followed by
 * topic_bytes + part_bytes that lie within the record.
 * ret: its bytes | 0 the positions or the record make no sense: nothing from here to `written` can be trusted */
uint32_t rw_node_ring_read(const struct rw_shm_ring *ring, uint32_t ring_bytes, uint64_t read, uint64_t written,
                           struct rw_node_record *record);

#endif
