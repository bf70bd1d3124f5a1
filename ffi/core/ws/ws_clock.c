/* WebSockets: what falls due, see ws.h. */
#include <poll.h>

#include "connection/connection.h"
#include "ws/ws.h"

/* Pings are due at whole seconds of the core clock, so that many idle sockets wake the worker together and not one by
 * one. */
#define PING_GRID_MS 1024u
/* Shorter intervals are kept to as they are: a second more could be past the idle timeout. */
#define PING_GRID_INTERVAL_MS 8192u
/* A quarter of what the clock counts to: deadlines further away are looked at again on their way. */
#define LOOK_MS (1u << 30)

/* Spans may be longer than half of what the clock counts to before it wraps, so times that far ahead cannot be
 * compared: what is left of a span can.
 * ret: 0: it is over */
static uint32_t left_ms(uint32_t now, uint32_t since, uint32_t span_ms) {
    uint32_t passed = now - since;
    return passed < span_ms ? span_ms - passed : 0;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* A peer that reads what is in front of the close frame is looked at so often within a close timeout. */
#define CLOSE_LOOKS 4u

static void arm_close_timer(struct rw_core *core, struct rw_slot *slot) {
    uint32_t look = core->now_ms + rw_ws_behavior(core, slot)->close_timeout_ms / CLOSE_LOOKS + 1;
    int sooner = rw_ws_of(slot)->close_unread && rw_before(look, slot->deadline_ms);
    rw_connection_arm_timer(core, slot, sooner ? look : slot->deadline_ms);
}

void rw_ws_await_close(struct rw_core *core, struct rw_slot *slot, uint32_t unread) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    ws->close_unread = unread;
    slot->deadline_ms = core->now_ms + rw_ws_behavior(core, slot)->close_timeout_ms;
    ws->close_by_ms = slot->deadline_ms + rw_connection_reading_ms(core, unread);
    arm_close_timer(core, slot);
}

static void on_close_timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint32_t unread = ws->close_unread ? rw_connection_unread(slot) : 0;
    if (unread < ws->close_unread) {
        uint32_t deadline = core->now_ms + rw_ws_behavior(core, slot)->close_timeout_ms;
        slot->deadline_ms = rw_before(deadline, ws->close_by_ms) ? deadline : ws->close_by_ms;
        ws->close_unread = unread;
    }
    if (rw_before(core->now_ms, slot->deadline_ms)) {
        arm_close_timer(core, slot);
    } else if (rw_connection_spares(core, slot, slot->deadline_ms, POLLIN)) {
        return;
    } else if (unread == 0) {
        rw_connection_terminate(core, slot);
    } else if (rw_connection_has_output(slot)) {
        RW_COUNT(core, timeouts_write, 1);
        rw_connection_reset(core, slot);
    } else {
        /* The kernel has it, and is watched as behind every end. */
        (void)rw_ws_tell_closed(core, slot);
        rw_connection_finish(core, slot);
    }
}

void rw_ws_timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    uint32_t now = core->now_ms;
    uint32_t wait = LOOK_MS;
    if (ws->flags & RW_WS_CLOSE_SENT) {
        on_close_timer(core, slot);
        return;
    }
    if (slot->state.paused_by_core) {
        wait = rw_ws_rate_on_timer(core, slot) - now;
        if (slot->state.phase != RW_PHASE_OPEN) return;
    }
    if (slot->state.answers_wait) {
        uint32_t left = left_ms(now, slot->last_output_ms, RW_WS_READING_MS);
        if (left == 0) rw_ws_answers_read(core, slot); /* or rather not */
        else wait = left;
    }
    /* Nobody who is not read from is silent. */
    if (behavior->idle_timeout_ms && !slot->state.paused_by_host && !slot->state.paused_by_core &&
        !slot->state.answers_wait) {
        uint32_t left = left_ms(now, slot->last_input_ms, behavior->idle_timeout_ms);
        if (left == 0 && rw_connection_spares(core, slot, slot->last_input_ms + behavior->idle_timeout_ms, POLLIN)) {
            left = 1; /* and what else is due is done */
        } else if (left == 0) {
            RW_COUNT(core, timeouts_idle, 1);
            rw_ws_note_cause(slot, RW_CLOSE_IDLE);
            rw_connection_terminate(core, slot);
            return;
        }
        wait = least(wait, left);
    }
    /* Nor is its message late: the end of the pause gives it its time anew. */
    int begun = ws->message_opcode && !(ws->flags & RW_WS_MESSAGE_DUE);
    if (behavior->message_timeout_ms && begun && !slot->state.paused_by_host && !slot->state.paused_by_core &&
        !slot->state.answers_wait) {
        uint32_t left = left_ms(now, ws->message_began_ms, behavior->message_timeout_ms);
        if (left == 0 &&
            rw_connection_spares(core, slot, ws->message_began_ms + behavior->message_timeout_ms, POLLIN)) {
            left = 1;
        } else if (left == 0) {
            rw_ws_fail(core, slot, RW_CLOSE_MESSAGE_TIMEOUT);
            return;
        }
        wait = least(wait, left);
    }
    if (behavior->max_lifetime_ms) {
        uint32_t left = left_ms(now, ws->opened_ms, behavior->max_lifetime_ms);
        if (left == 0) {
            rw_ws_note_cause(slot, RW_CLOSE_LIFETIME);
            rw_ws_close(core, slot, 1000, (const uint8_t *)"please reconnect", 16);
            return;
        }
        wait = least(wait, left);
    }
    if (behavior->ping_interval_ms) {
        uint32_t left =
            left_ms(now, now - least(now - ws->last_ping_ms, now - slot->last_input_ms), behavior->ping_interval_ms);
        if (left == 0) {
            rw_ws_send_ping(core, slot);
            RW_COUNT(core, ws_pings_out, 1);
            ws->last_ping_ms = now;
            left = behavior->ping_interval_ms;
        }
        uint32_t grid = behavior->ping_interval_ms < PING_GRID_INTERVAL_MS ? 1 : PING_GRID_MS;
        wait = least(wait, ((now + left + grid - 1) & ~(grid - 1)) - now);
    }
    if (slot->state.phase == RW_PHASE_OPEN) rw_connection_arm_timer(core, slot, now + wait);
}
