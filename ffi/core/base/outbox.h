/* The output queue of a connection: a list of references into refcounted buffers.
 *
 *   slot.out_head ─> {buffer, offset, bytes} ─> {…} <─ slot.out_tail
 *
 * Role: what waits to be sent. Up: http, ws, publish append; connection sends and consumes. Down: buffers. Small writes
 * are copied behind the last bytes when that buffer is ours alone, so that a tick's writes become one contiguous send;
 * a published frame is referenced, and consecutive frames of one publish log merge into one segment.
 *
 * Invariants: out_bytes is the sum of the segments; the bytes of a send in flight are never changed (appending goes
 * behind them). */
#ifndef RW_OUTBOX_H
#define RW_OUTBOX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buffers.h"
#include "base/slot.h"

struct rw_segment {
    uint32_t next; /* index; 0: end */
    rw_buffer buffer;
    uint32_t offset;
    uint32_t bytes; /* top bit: the buffer is ours alone and may be appended to */
};

#define RW_SEGMENT_PRIVATE 0x80000000u
#define RW_SEGMENTS_MAX (1u << 26) /* 1 GiB of address space, touched as used */

struct rw_outbox {
    struct rw_segment *segments; /* [0] unused */
    uint32_t carved;
    uint32_t free_head;
    uint32_t used;
    uint64_t bytes; /* queued on all connections */
    struct rw_buffers *buffers;
};

/* ret: RW_OK or a negated errno */
int32_t rw_outbox_init(struct rw_outbox *outbox, struct rw_buffers *buffers);
void rw_outbox_destroy(struct rw_outbox *outbox);

/* `bytes` of contiguous room at the end of the queue, to be filled by the caller at once. ret: address, or NULL when
 * memory is exhausted */
uint8_t *rw_outbox_reserve(struct rw_outbox *outbox, struct rw_slot *slot, uint32_t bytes);
/* Give back the last `bytes` of what was just reserved. */
void rw_outbox_unreserve(struct rw_outbox *outbox, struct rw_slot *slot, uint32_t bytes);
/* Append a reference to buffer[offset..offset+bytes). ret: 1 a new reference was taken (the caller retains the buffer
 * once), 0 merged into the last segment (no new reference), -ENOMEM */
int32_t rw_outbox_append(struct rw_outbox *outbox, struct rw_slot *slot, rw_buffer buffer, uint32_t offset,
                         uint32_t bytes);
/* The first segments as an iovec. ret: entries, <= capacity */
uint32_t rw_outbox_peek(const struct rw_outbox *outbox, const struct rw_slot *slot, struct iovec *iov,
                        uint32_t capacity);
/* The kernel took `bytes` from the front: fully sent segments give their buffers back. */
void rw_outbox_consume(struct rw_outbox *outbox, struct rw_slot *slot, uint32_t bytes);
/* Throw everything away. Nothing may be in flight. */
void rw_outbox_clear(struct rw_outbox *outbox, struct rw_slot *slot);

#endif
