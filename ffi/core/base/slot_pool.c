/* The slot pool: an arena of slots whose pages are touched one after the other, and a LIFO list of those given back.
 *
 * Role: hands out and takes back slots. Up: connection. Down: mmap(2).
 * Invariants: slots[0..carved) have been handed out; each of them is either in use, with pool_next 0, or on the free
 * list exactly once, with FREE_MARK in pool_next. The generation of a slot is that of its present user, or, when free,
 * of its next. */
#include "base/slot_pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ringway.h"

/* Beside an index + 1 of at most 2^24, so that the last slot of the list is told from a slot in use. */
#define FREE_MARK (1u << 31)

static_assert(RW_CONNECTIONS_MAX < FREE_MARK, "an index + 1 leaves the mark's bit alone");

int32_t rw_slot_pool_init(struct rw_slot_pool *pool, uint32_t capacity) {
    *pool = (struct rw_slot_pool){0};
    if (capacity == 0 || capacity > RW_CONNECTIONS_MAX) return -EINVAL;
    size_t bytes = (size_t)capacity * sizeof(struct rw_slot);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return -errno;
    /* A slot must not cost 2 MiB. Advice: a kernel without huge pages says EINVAL. */
    (void)madvise(base, bytes, MADV_NOHUGEPAGE);
    pool->slots = base;
    pool->capacity = capacity;
    return RW_OK;
}

void rw_slot_pool_destroy(struct rw_slot_pool *pool) {
    if (pool->slots != NULL) munmap(pool->slots, (size_t)pool->capacity * sizeof(struct rw_slot));
    *pool = (struct rw_slot_pool){0};
}

struct rw_slot *rw_slot_pool_acquire(struct rw_slot_pool *pool) {
    struct rw_slot *slot;
    if (pool->free_head != 0) {
        slot = &pool->slots[pool->free_head - 1u];
        assert((slot->pool_next & FREE_MARK) != 0);
        pool->free_head = slot->pool_next & ~FREE_MARK;
        uint32_t generation = slot->generation;
        memset(slot, 0, sizeof *slot);
        slot->generation = generation;
    } else {
        if (pool->carved == pool->capacity) return NULL;
        slot = &pool->slots[pool->carved++]; /* zero: the kernel's fresh page */
        slot->generation = 1;
    }
    slot->fd = -1;
    pool->used++;
    return slot;
}

void rw_slot_pool_release(struct rw_slot_pool *pool, struct rw_slot *slot) {
    assert(slot >= pool->slots && slot < pool->slots + pool->carved && "not a slot of this pool");
    assert(slot->pool_next == 0 && "the slot is free");
    assert(!slot->state.recv_armed && !slot->state.send_inflight && "the kernel may still complete for the slot");
    assert(slot->out_head == 0 && slot->out_tail == 0 && slot->out_bytes == 0 && "output is queued");
    assert(slot->input == RW_BUFFER_NONE && "an input buffer would leak");
    assert(slot->subscriptions == 0 && slot->timer.bucket == 0 && !slot->state.ready && "the slot is still linked");
    /* Now and not when it is next handed out: an id that was given out is stale from here on. 0 is never a generation,
     * also after a wrap. */
    slot->generation = slot->generation == UINT32_MAX ? 1u : slot->generation + 1u;
    slot->state.phase = RW_PHASE_FREE;
    slot->fd = -1;
    slot->pool_next = FREE_MARK | pool->free_head;
    pool->free_head = rw_slot_pool_index(pool, slot) + 1u;
    pool->used--;
}
