/* The core clock, the date, and what they do to times that slots keep.
 *
 * Role: the only reader of clocks; everything else looks at core->now_ms. Up: core, create, drain. */
#ifndef RW_CLOCK_H
#define RW_CLOCK_H

#include "base/age.h"
#include "connection/core.h"

uint64_t rw_clock_monotonic_ns(void);
/* Once a turn, and when a wait is over: clock_wide_ms, now_ms and date. */
void rw_clock_read(struct rw_core *core);
/* Look at the times that slots keep (age.h). */
void rw_clock_age_slots(struct rw_core *core);

static inline void rw_clock_age(struct rw_core *core) {
    if (core->clock_wide_ms - core->aged_wide_ms >= RW_AGE_STEP_MS) rw_clock_age_slots(core);
}

#endif
