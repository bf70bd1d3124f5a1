/* Token buckets in integers: so many tokens a millisecond, up to a capacity; what costs more than there is leaves a
 * debt.
 *
 * Role: pure functions over a count of tokens; who keeps it says what a token is. Up: client (upgrades), ws_rate
 * (messages, bytes). */
#ifndef RW_RATE_H
#define RW_RATE_H

#include <stdint.h>

/* The tokens after elapsed_ms. A capacity that was lowered holds at once. */
static inline int64_t rw_rate_refill(int64_t tokens, uint32_t per_ms, int64_t capacity, uint32_t elapsed_ms) {
    if (tokens >= capacity) return capacity;
    uint64_t room = (uint64_t)(capacity - tokens);
    uint64_t gained = (uint64_t)per_ms * elapsed_ms;
    return gained >= room ? capacity : tokens + (int64_t)gained;
}

/* Milliseconds until there are `needed`; 0: there are. per_ms > 0 */
static inline uint32_t rw_rate_wait_ms(int64_t tokens, int64_t needed, uint32_t per_ms) {
    if (tokens >= needed) return 0;
    uint64_t wait = ((uint64_t)(needed - tokens) + per_ms - 1) / per_ms;
    return wait > UINT32_MAX / 4 ? UINT32_MAX / 4 : (uint32_t)wait;
}

#endif
