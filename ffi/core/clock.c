/* Clocks, see clock.h. */
#include "clock.h"

#include <stdio.h>
#include <time.h>

#include "connection/protocol.h"

uint64_t rw_clock_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void rw_clock_read(struct rw_core *core) {
    core->clock_wide_ms = rw_clock_monotonic_ns() / 1000000 - core->clock_start_ms + 1000;
    core->now_ms = (uint32_t)core->clock_wide_ms;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    if ((uint32_t)wall.tv_sec == core->date_second) return;
    core->date_second = (uint32_t)wall.tv_sec;
    struct tm parts;
    gmtime_r(&wall.tv_sec, &parts);
    /* Not strftime: names of days and months must not follow the locale. */
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    snprintf(core->date, sizeof core->date, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * parts.tm_wday,
             (unsigned)parts.tm_mday % 100u, months + 3 * parts.tm_mon, (unsigned)(parts.tm_year + 1900) % 10000u,
             (unsigned)parts.tm_hour % 100u, (unsigned)parts.tm_min % 100u, (unsigned)parts.tm_sec % 100u);
}

void rw_clock_age_slots(struct rw_core *core) {
    const struct rw_age_span span = {.from_ms = (uint32_t)core->aged_wide_ms,
                                     .to_ms = core->now_ms,
                                     .passed_ms = core->clock_wide_ms - core->aged_wide_ms};
    for (uint32_t i = 0; i < core->pool.carved; i++) {
        struct rw_slot *slot = rw_core_slot(core, i);
        if (slot->state.phase == RW_PHASE_FREE) continue;
        rw_age(&slot->last_input_ms, &span);
        rw_age(&slot->last_output_ms, &span);
        rw_age(&slot->opened_ms, &span);
        const struct rw_protocol *protocol = rw_protocol_of(core, slot);
        if (protocol->age) protocol->age(slot, &span);
    }
    rw_age(&core->upgrade_rate.refilled_ms, &span);
    core->aged_wide_ms = core->clock_wide_ms;
}
