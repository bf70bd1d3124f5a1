/* The slot pool: one arena reserved for max_connections slots, and a LIFO free list of the ones used before.
 *
 * Role: hands out and takes back slots. Up: connection. Down: mmap(2).
 * Pages cost nothing until a slot on them is handed out for the first time. The warm slot goes out first. */
#ifndef RW_SLOT_POOL_H
#define RW_SLOT_POOL_H

#include <stdint.h>

#include "base/slot.h"

struct rw_slot_pool {
    struct rw_slot *slots; /* 64-byte aligned, [capacity] */
    uint32_t capacity;
    uint32_t carved;    /* slots[0..carved) have been handed out at least once */
    uint32_t free_head; /* index + 1, linked through slot->pool_next; 0: none */
    uint32_t used;
};

/* capacity 1..RW_CONNECTIONS_MAX. ret: RW_OK or a negated errno */
int32_t rw_slot_pool_init(struct rw_slot_pool *pool, uint32_t capacity);
void rw_slot_pool_destroy(struct rw_slot_pool *pool);
/* ret: a slot with every byte zero but fd = -1 and generation = one more than its last (never 0), or NULL when all are
 * in use */
struct rw_slot *rw_slot_pool_acquire(struct rw_slot_pool *pool);
/* The slot must be quiet: nothing armed, nothing in flight, no queue, no subscription, no timer (asserted). phase
 * becomes FREE and the generation grows, so that every id given out before is stale from now on. */
void rw_slot_pool_release(struct rw_slot_pool *pool, struct rw_slot *slot);
static inline uint32_t rw_slot_pool_index(const struct rw_slot_pool *pool, const struct rw_slot *slot) {
    return (uint32_t)(slot - pool->slots);
}
/* ret: the open slot of this id, or NULL when the id is stale or out of range */
static inline struct rw_slot *rw_slot_pool_get(const struct rw_slot_pool *pool, uint32_t index, uint32_t generation) {
    if (index >= pool->carved) return NULL;
    struct rw_slot *slot = &pool->slots[index];
    return slot->generation == generation && slot->state.phase != RW_PHASE_FREE ? slot : NULL;
}

#endif
