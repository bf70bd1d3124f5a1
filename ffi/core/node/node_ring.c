/* Records in one ring: see node_ring.h.
 *
 * Role: the only code that knows where a record lies. Neighbours: node_bus above, memory that other processes write
 * below.
 * Invariants: what is read from a ring is copied, then checked, then used; no position and no length found there is
 * trusted. */
#include "node/node_ring.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#define RW_NODE_PAD_BYTES 8u /* what a pad needs, and the smallest remainder of a ring */

static_assert(sizeof(struct rw_node_record) == 40, "no padding crosses a process border");
static_assert(offsetof(struct rw_node_record, topic_hash) == RW_NODE_PAD_BYTES, "a pad is the beginning of a record");

/* Room for `bytes` contiguous bytes at *position, a pad put before them if need be. ret: where, or NULL when the ring
 * is too full */
static uint8_t *reserve(struct rw_node_writer *writer, uint64_t *position, uint32_t bytes) {
    const uint32_t offset = (uint32_t)*position & (writer->ring_bytes - 1);
    const uint32_t to_end = writer->ring_bytes - offset;
    const uint32_t pad = to_end < bytes ? to_end : 0;
    if (*position + pad + bytes - writer->read_seen > writer->ring_bytes) {
        writer->read_seen = atomic_load_explicit(&writer->ring->read, memory_order_acquire);
        if (*position + pad + bytes - writer->read_seen > writer->ring_bytes) return NULL;
    }
    if (pad > 0) {
        const uint32_t header[2] = {pad, RW_NODE_PAD};
        memcpy(&writer->ring->bytes[offset], header, sizeof header);
        *position += pad;
    }
    return &writer->ring->bytes[(uint32_t)*position & (writer->ring_bytes - 1)];
}

int rw_node_ring_write(struct rw_node_writer *writer, const struct rw_node_message *message, uint32_t epoch,
                       struct rw_node_progress *progress, uint64_t *position) {
    const uint32_t record_bytes_max = writer->ring_bytes / 4;
    for (;;) {
        const uint32_t topic_bytes = progress->started ? 0 : message->topic_bytes;
        const uint32_t room = record_bytes_max - (uint32_t)sizeof(struct rw_node_record) - topic_bytes;
        const uint32_t rest = message->payload_bytes - progress->payload;
        const uint32_t part = rest < room ? rest : room;
        const struct rw_node_record record = {
            .bytes = ((uint32_t)sizeof record + topic_bytes + part + 7u) & ~7u,
            .flags = (progress->started ? 0 : RW_NODE_FIRST) | (part == rest ? RW_NODE_LAST : 0) |
                     (message->is_mail ? RW_NODE_MAIL : 0),
            .topic_hash = message->topic_hash,
            .topic_bytes = topic_bytes,
            .part_bytes = part,
            .payload_bytes = message->payload_bytes,
            .offset = progress->payload,
            .message_flags = message->flags,
            .epoch = epoch,
        };
        uint8_t *to = reserve(writer, position, record.bytes);
        if (to == NULL) return 0;
        memcpy(to, &record, sizeof record);
        if (topic_bytes > 0) memcpy(to + sizeof record, message->topic, topic_bytes);
        if (part > 0) memcpy(to + sizeof record + topic_bytes, message->payload + progress->payload, part);
        *position += record.bytes;
        progress->started = 1;
        progress->payload += part;
        if (part == rest) return 1;
    }
}

static int record_valid(const struct rw_node_record *record, uint32_t ring_bytes) {
    const uint64_t content = sizeof *record + (uint64_t)record->topic_bytes + record->part_bytes;
    /* what a sender can have queued, and written besides */
    const uint64_t payload_max = (uint64_t)RW_NODE_OUTBOX_BYTES_MAX + ring_bytes;
    const uint64_t end = (uint64_t)record->offset + record->part_bytes;
    const int first = (record->flags & RW_NODE_FIRST) != 0;
    const int last = (record->flags & RW_NODE_LAST) != 0;
    if ((record->flags & ~(uint32_t)(RW_NODE_FIRST | RW_NODE_LAST | RW_NODE_MAIL)) != 0 || content > record->bytes)
        return 0;
    if (record->payload_bytes > payload_max || end > record->payload_bytes || last != (end == record->payload_bytes))
        return 0;
    if (record->topic_bytes == 0) return !first || record->offset == 0;
    return first && record->offset == 0 && record->topic_bytes <= RW_TOPIC_BYTES_MAX &&
           (record->flags & RW_NODE_MAIL) == 0;
}

uint32_t rw_node_ring_read(const struct rw_shm_ring *ring, uint32_t ring_bytes, uint64_t read, uint64_t written,
                           struct rw_node_record *record) {
    const uint64_t available = written - read;
    if ((read | written) % 8 != 0 || available == 0 || available > ring_bytes) return 0;
    const uint32_t offset = (uint32_t)read & (ring_bytes - 1);
    const uint32_t to_end = ring_bytes - offset;
    memset(record, 0, sizeof *record);
    memcpy(record, &ring->bytes[offset], RW_NODE_PAD_BYTES);
    if (record->bytes % 8 != 0 || record->bytes > available || record->bytes > to_end) return 0;
    if (record->flags == RW_NODE_PAD) return record->bytes == to_end ? to_end : 0;
    if (record->bytes < sizeof *record) return 0;
    memcpy((uint8_t *)record + RW_NODE_PAD_BYTES, &ring->bytes[offset + RW_NODE_PAD_BYTES],
           sizeof *record - RW_NODE_PAD_BYTES);
    return record_valid(record, ring_bytes) ? record->bytes : 0;
}
