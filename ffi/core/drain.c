/* Winding down, see drain.h. */
#include "drain.h"

#include "clock.h"
#include "connection/protocol.h"

/* Closing is never spread thinner than this: a handful of sockets need not wait for the whole drain time. */
#define DRAIN_MS_PER_SOCKET 10u

void rw_drain_step(struct rw_core *core) {
    struct rw_drain *drain = &core->drain;
    uint32_t elapsed = core->now_ms - drain->started_ms;
    int over = elapsed >= drain->over_ms;
    uint64_t target = over ? UINT32_MAX : (uint64_t)drain->total * elapsed / drain->over_ms;
    /* When the time is over the sweep begins anew each step, for sockets that opened meanwhile: not each turn, for
     * there are many slots. */
    if (over && drain->cursor >= core->pool.carved) {
        if (core->now_ms - drain->swept_ms < RW_DRAIN_STEP_MS) return;
        drain->swept_ms = core->now_ms;
        drain->cursor = 0;
    }
    for (; drain->cursor < core->pool.carved && drain->closed < target; drain->cursor++) {
        struct rw_slot *slot = rw_core_slot(core, drain->cursor);
        const struct rw_protocol *protocol = rw_protocol_of(core, slot);
        if (slot->state.phase == RW_PHASE_OPEN && protocol->drain_now && protocol->drain_now(core, slot))
            drain->closed++;
    }
}

void rw_core_drain(struct rw_core *core, uint32_t code, uint32_t over_ms, uint32_t idle_ms) {
    rw_clock_read(core);
    core->drain = (struct rw_drain){.active = 1,
                                    .code = code,
                                    .over_ms = over_ms,
                                    .idle_ms = idle_ms,
                                    .started_ms = core->now_ms,
                                    .swept_ms = core->now_ms};
    for (uint32_t i = 0; i < core->pool.carved; i++) {
        struct rw_slot *slot = rw_core_slot(core, i);
        if (slot->state.phase != RW_PHASE_OPEN) continue;
        const struct rw_protocol *protocol = rw_protocol_of(core, slot);
        if (!protocol->drain || protocol->drain(core, slot)) core->drain.total++;
    }
    uint64_t enough = (uint64_t)core->drain.total * DRAIN_MS_PER_SOCKET;
    if (enough < over_ms) core->drain.over_ms = (uint32_t)enough;
}
