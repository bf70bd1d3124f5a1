/* Times of the past on a clock that wraps, see age.h. */
#include "age.h"

#include "base/slot.h"

static_assert((uint64_t)RW_AGE_MS_MAX + 2ull * RW_AGE_STEP_MS <= UINT32_MAX,
              "an age fits 32 bits until it is looked at again");

/* `*then` was at most RW_AGE_MS_MAX ago when it was last looked at, at aged_ms, or is later than that by less than a
 * step and a turn. However long ago that look was, its own 64 bits tell. */
static void age(uint32_t *then, uint32_t now_ms, uint32_t aged_ms, uint64_t passed_ms) {
    uint32_t before = aged_ms - *then;
    uint64_t age_ms = before <= RW_AGE_MS_MAX ? passed_ms + before : passed_ms - (uint32_t)(0u - before);
    if (age_ms > RW_AGE_MS_MAX) *then = now_ms - RW_AGE_MS_MAX;
}

void rw_age_stamps(struct rw_core *core) {
    const uint32_t now_ms = core->now_ms, aged_ms = (uint32_t)core->aged_wide_ms;
    const uint64_t passed_ms = core->clock_wide_ms - core->aged_wide_ms;
    for (uint32_t i = 0; i < core->pool.carved; i++) {
        struct rw_slot *slot = rw_core_slot(core, i);
        if (slot->state.phase == RW_PHASE_FREE) continue;
        uint32_t *const stamps[] = {&slot->last_input_ms, &slot->last_output_ms, &slot->opened_ms};
        for (size_t at = 0; at < sizeof stamps / sizeof stamps[0]; at++) age(stamps[at], now_ms, aged_ms, passed_ms);
        if (slot->state.protocol != RW_PROTOCOL_WEBSOCKET) continue;
        struct rw_slot_ws *ws = &slot->as.ws;
        uint32_t *const more[] = {&ws->opened_ms, &ws->last_ping_ms, &ws->message_began_ms, &ws->rate_ms};
        for (size_t at = 0; at < sizeof more / sizeof more[0]; at++) age(more[at], now_ms, aged_ms, passed_ms);
    }
    age(&core->upgrade_rate.refilled_ms, now_ms, aged_ms, passed_ms);
    core->aged_wide_ms = core->clock_wide_ms;
}
