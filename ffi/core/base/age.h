/* Times of the past on a clock that wraps.
 *
 * Role: slots keep the core clock in 32 bits, so that "how long ago" is now - then only for less than 2^32 ms (49.7
 * days); a request may be silent for longer. What is older than anything is measured is set forward, in time for the
 * difference to stay right. Up: clock.c, and protocols with times of their own.
 *
 * Compare what lies back by `now_ms - then < span`. rw_before (connection.h) is for times less than 2^31 ms (24.9 days)
 * from each other, such as deadlines that a timer watches. */
#ifndef RW_AGE_H
#define RW_AGE_H

#include <stdint.h>

/* More than any span that is measured (30 days), and with a step and what comes late less than 2^32. */
#define RW_AGE_MS_MAX 0xB0000000u
/* How often all slots are looked at: 6.2 days. */
#define RW_AGE_STEP_MS (1u << 29)

/* From one look at all slots to the next. */
struct rw_age_span {
    uint32_t from_ms, to_ms; /* core clock */
    uint64_t passed_ms;      /* between them, whatever has wrapped */
};

/* `*then` was at most RW_AGE_MS_MAX ago at span->from_ms, or is later than that by less than a step and a turn. However
 * long ago that look was, its own 64 bits tell. */
void rw_age(uint32_t *then, const struct rw_age_span *span);

#endif
