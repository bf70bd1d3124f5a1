/* The timer wheel: levels of 64 buckets, told apart by the highest digit (base 64) in which a deadline differs from
 * now.
 *
 *   tick      = d3·64³ + d2·64² + d1·64 + d0
 *   level 0     deadlines that share all digits of now above d0: one bucket per tick
 *   level 1..2  deadlines that share all digits above d1, d2: one bucket per 64, 4096 ticks
 *   level 3     everything later: a circle of 64 buckets, the furthest for all that lies beyond the circle
 *
 * So every deadline of a level comes before every deadline of the level above, and the first occupied bucket of the
 * lowest occupied level is the next one to look at: empty time costs nothing, however much of it passes. When now
 * enters a bucket of level 1..3, its nodes go down at least one level, or into the circle again.
 *
 * Role: one deadline per slot. Up: connection, core. Down: nothing.
 * Invariants: a linked node's due is in [now_tick, now_tick + 2^32); a bit of `occupied` is set exactly when its bucket
 * has nodes. */
#include "base/timer_wheel.h"

#include <assert.h>
#include <string.h>

#include "base/limits.h"

#define DIGIT_BITS 6u
#define DIGIT_MASK (RW_TIMER_BUCKETS - 1u)
#define CIRCLE (RW_TIMER_LEVELS - 1u)
#define CIRCLE_SHIFT (CIRCLE * DIGIT_BITS)
/* Value of rw_timer_node.bucket for nodes that the present advance is about to fire. */
#define BUCKET_EXPIRED (RW_TIMER_LEVELS * RW_TIMER_BUCKETS + 1u)

static_assert(RW_TIMER_BUCKETS == 1u << DIGIT_BITS && RW_TIMER_BUCKETS == 64, "occupied is one u64 a level");

static struct rw_timer_node *node_at(const struct rw_timer_wheel *wheel, uint32_t index) {
    return (struct rw_timer_node *)(void *)(wheel->base + index * wheel->stride + wheel->node_offset);
}

static uint64_t tick_at_or_before(uint64_t ms) { return ms / RW_TIMER_TICK_MS; }

static uint64_t tick_at_or_after(uint64_t ms) { return ms / RW_TIMER_TICK_MS + (ms % RW_TIMER_TICK_MS != 0); }

/* A node keeps the low half of its deadline; it is never behind now, nor 2^32 ticks (8 years) ahead. */
static uint64_t due_of(const struct rw_timer_wheel *wheel, const struct rw_timer_node *node) {
    return wheel->now_tick + (uint32_t)(node->due - (uint32_t)wheel->now_tick);
}

void rw_timer_wheel_init(struct rw_timer_wheel *wheel, void *base, size_t stride, size_t node_offset, uint64_t now_ms) {
    memset(wheel, 0, sizeof *wheel);
    wheel->base = base;
    wheel->stride = stride;
    wheel->node_offset = node_offset;
    wheel->now_tick = tick_at_or_before(now_ms);
}

/* Where a deadline belongs as seen from now: level * 64 + bucket. in: due >= now_tick */
static uint32_t place_of(const struct rw_timer_wheel *wheel, uint64_t due) {
    uint64_t differs = due ^ wheel->now_tick;
    if (differs < (uint64_t)1 << CIRCLE_SHIFT) {
        uint32_t level = (63u - (uint32_t)__builtin_clzll(differs | 1u)) / DIGIT_BITS;
        return level * RW_TIMER_BUCKETS + (uint32_t)(due >> (level * DIGIT_BITS) & DIGIT_MASK);
    }
    uint64_t now = wheel->now_tick >> CIRCLE_SHIFT;
    uint64_t then = due >> CIRCLE_SHIFT;
    if (then - now > DIGIT_MASK) then = now + DIGIT_MASK;
    return CIRCLE * RW_TIMER_BUCKETS + (uint32_t)(then & DIGIT_MASK);
}

static void node_link(struct rw_timer_wheel *wheel, uint32_t index, struct rw_timer_node *node, uint64_t due) {
    uint32_t place = place_of(wheel, due);
    uint32_t *head = &wheel->heads[place / RW_TIMER_BUCKETS][place % RW_TIMER_BUCKETS];
    if (*head != 0) node_at(wheel, *head - 1u)->prev = index + 1u;
    *node = (struct rw_timer_node){.next = *head, .prev = 0, .due = (uint32_t)due, .bucket = place + 1u};
    *head = index + 1u;
    wheel->occupied[place / RW_TIMER_BUCKETS] |= (uint64_t)1 << place % RW_TIMER_BUCKETS;
}

static void node_unlink(struct rw_timer_wheel *wheel, struct rw_timer_node *node) {
    if (node->next != 0) node_at(wheel, node->next - 1u)->prev = node->prev;
    if (node->prev != 0) {
        node_at(wheel, node->prev - 1u)->next = node->next;
    } else if (node->bucket == BUCKET_EXPIRED) {
        wheel->expired = node->next;
    } else {
        uint32_t place = node->bucket - 1u;
        uint32_t level = place / RW_TIMER_BUCKETS;
        uint32_t bucket = place % RW_TIMER_BUCKETS;
        wheel->heads[level][bucket] = node->next;
        if (node->next == 0) wheel->occupied[level] &= ~((uint64_t)1 << bucket);
    }
    *node = (struct rw_timer_node){0};
}

void rw_timer_wheel_schedule(struct rw_timer_wheel *wheel, uint32_t index, uint64_t due_ms) {
    struct rw_timer_node *node = node_at(wheel, index);
    uint64_t due = tick_at_or_after(due_ms);
    if (due < wheel->now_tick) due = wheel->now_tick;
    if (due - wheel->now_tick > UINT32_MAX) due = wheel->now_tick + UINT32_MAX;
    if (node->bucket == 0) {
        wheel->count++;
    } else {
        if (node->due == (uint32_t)due && node->bucket != BUCKET_EXPIRED) return;
        node_unlink(wheel, node);
    }
    node_link(wheel, index, node, due);
}

void rw_timer_wheel_cancel(struct rw_timer_wheel *wheel, uint32_t index) {
    struct rw_timer_node *node = node_at(wheel, index);
    if (node->bucket == 0) return;
    node_unlink(wheel, node);
    wheel->count--;
}

/* The next bucket that holds anything. out: *place = level * 64 + bucket; *tick = when now enters it. ret: 1, or 0 when
 * the wheel is empty */
static int next_occupied(const struct rw_timer_wheel *wheel, uint32_t *place, uint64_t *tick) {
    for (uint32_t level = 0; level < CIRCLE; level++) {
        if (wheel->occupied[level] == 0) continue;
        uint32_t bucket = (uint32_t)__builtin_ctzll(wheel->occupied[level]);
        uint32_t shift = level * DIGIT_BITS;
        *place = level * RW_TIMER_BUCKETS + bucket;
        *tick = (wheel->now_tick >> (shift + DIGIT_BITS) << DIGIT_BITS | bucket) << shift;
        return 1;
    }
    if (wheel->occupied[CIRCLE] == 0) return 0;
    /* Turn the circle so that bit 0 is the bucket after now's own, which is always empty. */
    uint64_t first = (wheel->now_tick >> CIRCLE_SHIFT) + 1u;
    uint32_t turn = (uint32_t)(first & DIGIT_MASK);
    uint64_t turned = wheel->occupied[CIRCLE] >> turn | wheel->occupied[CIRCLE] << (-turn & DIGIT_MASK);
    uint64_t then = first + (uint32_t)__builtin_ctzll(turned);
    *place = CIRCLE * RW_TIMER_BUCKETS + (uint32_t)(then & DIGIT_MASK);
    *tick = then << CIRCLE_SHIFT;
    return 1;
}

/* Empty a bucket that now has entered: nodes due now go to the end of the expired list, the others where they now
 * belong. */
static void bucket_open(struct rw_timer_wheel *wheel, uint32_t place, uint32_t *expired_tail) {
    uint32_t level = place / RW_TIMER_BUCKETS;
    uint32_t bucket = place % RW_TIMER_BUCKETS;
    uint32_t link = wheel->heads[level][bucket];
    wheel->heads[level][bucket] = 0;
    wheel->occupied[level] &= ~((uint64_t)1 << bucket);
    while (link != 0) {
        struct rw_timer_node *node = node_at(wheel, link - 1u);
        uint32_t next = node->next;
        uint64_t due = due_of(wheel, node);
        if (due > wheel->now_tick) {
            node_link(wheel, link - 1u, node, due);
        } else {
            *node =
                (struct rw_timer_node){.next = 0, .prev = *expired_tail, .due = node->due, .bucket = BUCKET_EXPIRED};
            if (*expired_tail != 0) node_at(wheel, *expired_tail - 1u)->next = link;
            else wheel->expired = link;
            *expired_tail = link;
        }
        link = next;
    }
}

/* Everything due is gathered before anything is fired: what callbacks schedule, even for a time that is past, can then
 * only fire in a later advance, and a callback that schedules itself again cannot keep this one going. */
uint32_t rw_timer_wheel_advance(struct rw_timer_wheel *wheel, uint64_t now_ms,
                                void (*fire)(void *context, uint32_t index), void *context) {
    assert(wheel->expired == 0 && "advance was called by one of its callbacks");
    uint64_t target = tick_at_or_before(now_ms);
    uint32_t expired_tail = 0;
    uint32_t place;
    uint64_t tick;
    if (target < wheel->now_tick) target = wheel->now_tick;
    while (next_occupied(wheel, &place, &tick) && tick <= target) {
        wheel->now_tick = tick;
        bucket_open(wheel, place, &expired_tail);
    }
    wheel->now_tick = target;

    uint32_t fired = 0;
    while (wheel->expired != 0) {
        uint32_t index = wheel->expired - 1u;
        node_unlink(wheel, node_at(wheel, index));
        wheel->count--;
        fired++;
        fire(context, index);
    }
    return fired;
}

int64_t rw_timer_wheel_next_ms(const struct rw_timer_wheel *wheel, uint64_t now_ms) {
    uint32_t place;
    uint64_t tick;
    if (wheel->expired != 0) return 0;
    if (!next_occupied(wheel, &place, &tick)) return -1;
    uint64_t due_ms = tick * RW_TIMER_TICK_MS;
    return due_ms <= now_ms ? 0 : (int64_t)(due_ms - now_ms);
}
