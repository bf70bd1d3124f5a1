/* Output queues, see outbox.h. */
#include "base/outbox.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "ringway.h"

#define ARENA_BYTES ((size_t)RW_SEGMENTS_MAX * sizeof(struct rw_segment))
/* The first private buffer of an empty queue is small; a queue that grows takes larger ones. */
#define FIRST_BUFFER_BYTES 256u
#define NEXT_BUFFER_BYTES 4096u
#define LATER_BUFFER_BYTES 16384u
/* One queue, at most: its byte counts have 32 bits, and a piece added has at most a quarter of that. */
#define QUEUE_BYTES_MAX (UINT32_MAX / 2)

int32_t rw_outbox_init(struct rw_outbox *outbox, struct rw_buffers *buffers) {
    void *arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) return -errno;
    outbox->segments = arena;
    outbox->carved = 1;
    outbox->free_head = 0;
    outbox->used = 0;
    outbox->bytes = 0;
    outbox->buffers = buffers;
    return RW_OK;
}

void rw_outbox_destroy(struct rw_outbox *outbox) {
    if (outbox->segments) munmap(outbox->segments, ARENA_BYTES);
    outbox->segments = NULL;
}

static uint32_t segment_acquire(struct rw_outbox *outbox) {
    uint32_t index = outbox->free_head;
    if (index) {
        outbox->free_head = outbox->segments[index].next;
    } else {
        if (outbox->carved == RW_SEGMENTS_MAX) return 0;
        index = outbox->carved++;
    }
    outbox->used++;
    return index;
}

static void segment_release(struct rw_outbox *outbox, uint32_t index) {
    outbox->segments[index].next = outbox->free_head;
    outbox->free_head = index;
    outbox->used--;
}

static uint32_t segment_bytes(const struct rw_segment *segment) { return segment->bytes & ~RW_SEGMENT_PRIVATE; }

static int32_t push(struct rw_outbox *outbox, struct rw_slot *slot, rw_buffer buffer, uint32_t offset, uint32_t bytes) {
    uint32_t index = segment_acquire(outbox);
    if (!index) return -ENOMEM;
    outbox->segments[index] = (struct rw_segment){.next = 0, .buffer = buffer, .offset = offset, .bytes = bytes};
    if (slot->out_tail) {
        outbox->segments[slot->out_tail].next = index;
    } else {
        slot->out_head = index;
    }
    slot->out_tail = index;
    return 1;
}

static void account(struct rw_outbox *outbox, struct rw_slot *slot, uint32_t bytes) {
    outbox->bytes += bytes;
    slot->out_bytes += bytes;
    slot->out_unflushed += bytes;
}

uint8_t *rw_outbox_reserve(struct rw_outbox *outbox, struct rw_slot *slot, uint32_t bytes) {
    if (slot->out_bytes > QUEUE_BYTES_MAX) return NULL;
    if (slot->out_tail) {
        struct rw_segment *tail = &outbox->segments[slot->out_tail];
        if (tail->bytes & RW_SEGMENT_PRIVATE) {
            uint32_t end = tail->offset + segment_bytes(tail);
            if (rw_buffers_capacity(outbox->buffers, tail->buffer) - end >= bytes) {
                tail->bytes += bytes;
                account(outbox, slot, bytes);
                return rw_buffers_data(outbox->buffers, tail->buffer) + end;
            }
        }
    }
    uint32_t wanted = slot->out_bytes == 0                  ? FIRST_BUFFER_BYTES
                      : slot->out_bytes < NEXT_BUFFER_BYTES ? NEXT_BUFFER_BYTES
                                                            : LATER_BUFFER_BYTES;
    rw_buffer buffer = rw_buffers_acquire(outbox->buffers, bytes > wanted ? bytes : wanted);
    if (!buffer) return NULL;
    if (push(outbox, slot, buffer, 0, bytes | RW_SEGMENT_PRIVATE) < 0) {
        rw_buffers_release(outbox->buffers, buffer);
        return NULL;
    }
    account(outbox, slot, bytes);
    return rw_buffers_data(outbox->buffers, buffer);
}

void rw_outbox_unreserve(struct rw_outbox *outbox, struct rw_slot *slot, uint32_t bytes) {
    struct rw_segment *tail = &outbox->segments[slot->out_tail];
    assert(segment_bytes(tail) >= bytes && slot->out_unflushed >= bytes);
    tail->bytes -= bytes;
    slot->out_bytes -= bytes;
    slot->out_unflushed -= bytes;
    outbox->bytes -= bytes;
}

int32_t rw_outbox_append(struct rw_outbox *outbox, struct rw_slot *slot, rw_buffer buffer, uint32_t offset,
                         uint32_t bytes) {
    if (slot->out_bytes > QUEUE_BYTES_MAX) return -ENOMEM;
    if (slot->out_tail) {
        struct rw_segment *tail = &outbox->segments[slot->out_tail];
        if (tail->buffer == buffer && tail->offset + segment_bytes(tail) == offset) {
            tail->bytes += bytes;
            account(outbox, slot, bytes);
            return 0;
        }
    }
    int32_t pushed = push(outbox, slot, buffer, offset, bytes);
    if (pushed > 0) account(outbox, slot, bytes);
    return pushed;
}

uint32_t rw_outbox_peek(const struct rw_outbox *outbox, const struct rw_slot *slot, struct iovec *iov,
                        uint32_t capacity) {
    uint32_t count = 0;
    for (uint32_t index = slot->out_head; index && count < capacity; index = outbox->segments[index].next) {
        const struct rw_segment *segment = &outbox->segments[index];
        if (segment_bytes(segment) == 0) continue;
        iov[count].iov_base = rw_buffers_data(outbox->buffers, segment->buffer) + segment->offset;
        iov[count].iov_len = segment_bytes(segment);
        count++;
    }
    return count;
}

void rw_outbox_consume(struct rw_outbox *outbox, struct rw_slot *slot, uint32_t bytes) {
    assert(bytes <= slot->out_bytes);
    slot->out_bytes -= bytes;
    outbox->bytes -= bytes;
    while (slot->out_head) {
        uint32_t index = slot->out_head;
        struct rw_segment *segment = &outbox->segments[index];
        uint32_t here = segment_bytes(segment);
        if (bytes < here) {
            segment->offset += bytes;
            segment->bytes -= bytes;
            return;
        }
        bytes -= here;
        slot->out_head = segment->next;
        rw_buffers_release(outbox->buffers, segment->buffer);
        segment_release(outbox, index);
        if (!bytes && slot->out_bytes) return;
    }
    slot->out_tail = 0;
    assert(bytes == 0);
}

void rw_outbox_clear(struct rw_outbox *outbox, struct rw_slot *slot) {
    rw_outbox_consume(outbox, slot, slot->out_bytes);
    slot->out_unflushed = 0;
    assert(slot->out_head == 0 && slot->out_bytes == 0);
}
