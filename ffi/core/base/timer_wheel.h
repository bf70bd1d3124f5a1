/* A hierarchical timer wheel whose nodes lie inside the slots.
 *
 * Role: one deadline per slot. Cost is per deadline that comes due, never per connection that waits.
 * Up: connection (schedules), core (advances). Down: nothing; time is given in, so that tests own the clock.
 *
 * 4 levels of 64 buckets; a tick is RW_TIMER_TICK_MS, so the wheel spans 64^4 ticks (about 12 days); later deadlines
 * wait in the last bucket and are put back. A deadline fires at the first tick at or after it, never before it. Links
 * are slot indexes + 1 (0: end of list). */
#ifndef RW_TIMER_WHEEL_H
#define RW_TIMER_WHEEL_H

#include <stddef.h>
#include <stdint.h>

#define RW_TIMER_LEVELS 4u
#define RW_TIMER_BUCKETS 64u

/* 16 bytes inside each slot; all zero = not scheduled. */
struct rw_timer_node {
    uint32_t next;   /* slot index + 1 */
    uint32_t prev;   /* slot index + 1; 0: first of its bucket */
    uint32_t due;    /* tick */
    uint32_t bucket; /* level * 64 + bucket + 1; 0: not scheduled */
};

struct rw_timer_wheel {
    uint8_t *base; /* node i is at base + i * stride + node_offset */
    size_t stride;
    size_t node_offset;
    uint64_t now_tick;
    uint64_t occupied[RW_TIMER_LEVELS]; /* a bit per bucket */
    uint32_t heads[RW_TIMER_LEVELS][RW_TIMER_BUCKETS];
    uint32_t count;
    uint32_t expired; /* nodes the present advance is about to fire: slot index + 1; 0 outside of one */
};

void rw_timer_wheel_init(struct rw_timer_wheel *wheel, void *base, size_t stride, size_t node_offset, uint64_t now_ms);
/* (Re)schedule slot `index` for due_ms (monotonic). A time in the past fires at the next advance. */
void rw_timer_wheel_schedule(struct rw_timer_wheel *wheel, uint32_t index, uint64_t due_ms);
/* Harmless when not scheduled. */
void rw_timer_wheel_cancel(struct rw_timer_wheel *wheel, uint32_t index);
/* Fire everything due at now_ms: each is unlinked, then fired; the callback may schedule and cancel any node. ret: how
 * many fired */
uint32_t rw_timer_wheel_advance(struct rw_timer_wheel *wheel, uint64_t now_ms,
                                void (*fire)(void *context, uint32_t index), void *context);
/* Milliseconds from now_ms until the wheel must be advanced next (0: already due; never later than the earliest
 * deadline, maybe earlier, at a cascade); -1: nothing is scheduled. Constant time. */
int64_t rw_timer_wheel_next_ms(const struct rw_timer_wheel *wheel, uint64_t now_ms);

#endif
