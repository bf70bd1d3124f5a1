/* Slab buffers by size class, refcounted.
 *
 * Role: memory for bytes that wait: incomplete input, queued output, published frames.
 * Up: connection, http, ws, topics. Down: mmap(2).
 *
 *   class   0     1      2      3      4       5       6
 *   bytes   64    256    1 K    4 K    16 K    64 K    larger (plain allocation)
 *
 * Each class has one address range, reserved whole and touched as buffers are carved from it; freed buffers go on a
 * LIFO list, so that the warm one is handed out first. A handle is class << 28 | (index + 1) in 32 bits; 0 is no
 * buffer. Refcounts lie beside the data, not in it, so that a 64-byte buffer has 64 bytes.
 *
 * Invariants: a buffer with refs > 0 never moves; refs reach 0 exactly once per acquire; counts of used
 * buffers return to zero when every user has let go. */
#ifndef RW_BUFFERS_H
#define RW_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

#define RW_BUFFER_CLASSES 7u
#define RW_BUFFER_LARGE 6u
#define RW_BUFFER_NONE 0u

typedef uint32_t rw_buffer; /* a handle */

struct rw_buffers;

struct rw_buffer_class_stats {
    uint64_t used;   /* handed out now */
    uint64_t carved; /* ever carved from the arena (LARGE: ever allocated) */
};

/* ret: the pool, or NULL with errno set */
struct rw_buffers *rw_buffers_create(void);
/* Every buffer must have been released (asserted), unless `force`. */
void rw_buffers_destroy(struct rw_buffers *buffers, int force);

/* A buffer of at least `bytes` (> 0) with refs = 1. ret: handle, or RW_BUFFER_NONE when memory is exhausted */
rw_buffer rw_buffers_acquire(struct rw_buffers *buffers, size_t bytes);
/* The capacity that a buffer of at least `bytes` (> 0) would have. */
size_t rw_buffers_capacity_for(size_t bytes);
void rw_buffers_retain(struct rw_buffers *buffers, rw_buffer buffer, uint32_t count);
/* One reference less; at 0 the buffer is reused. */
void rw_buffers_release(struct rw_buffers *buffers, rw_buffer buffer);
uint32_t rw_buffers_refs(const struct rw_buffers *buffers, rw_buffer buffer);
/* Address and capacity; valid while a reference is held. */
uint8_t *rw_buffers_data(const struct rw_buffers *buffers, rw_buffer buffer);
size_t rw_buffers_capacity(const struct rw_buffers *buffers, rw_buffer buffer);
struct rw_buffer_class_stats rw_buffers_stats(const struct rw_buffers *buffers, uint32_t class_index);

#endif
