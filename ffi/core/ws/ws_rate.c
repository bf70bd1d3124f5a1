/* How fast a WebSocket may send, see ws.h and struct rw_behavior.
 *
 * Two buckets in the slot, of thousandths: a token per millisecond and unit of the rate. A message takes one whole
 * message of tokens, so that no more than the burst passes at once; its bytes may go into debt, so that any size passes
 * when the peer was at rest, and the debt is waited for. Paused means: not read from (paused_by_core). What has been
 * received by then waits in slot.input, in order, and TCP holds back the rest. */
#include <poll.h>

#include "base/rate.h"
#include "connection/connection.h"
#include "ws/ws.h"

#define TOKENS 1000 /* of one message, or one byte */
/* A peer that is not read from may be gone: looked at so often. */
#define LOOK_MS 10000u

/* Without a rate nothing is owed, also later, when there is one. */
static int64_t refilled(int64_t tokens, uint32_t per_second, uint32_t burst_ms, uint32_t elapsed_ms) {
    return per_second ? rw_rate_refill(tokens, per_second, (int64_t)per_second * burst_ms, elapsed_ms) : 0;
}

static void refill(const struct rw_core *core, struct rw_slot *slot) {
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint32_t elapsed_ms = core->now_ms - ws->rate_ms;
    /* A host that was blocked has read nothing: what a peer was allowed meanwhile it has sent, and not let pass. */
    uint32_t burst_ms = RW_WS_RATE_BURST_MS + core->blocked_ms;
    ws->rate_ms = core->now_ms;
    ws->message_tokens = refilled(ws->message_tokens, behavior->messages_per_second, burst_ms, elapsed_ms);
    ws->byte_tokens = refilled(ws->byte_tokens, behavior->bytes_per_second, burst_ms, elapsed_ms);
}

/* After a refill. */
static uint32_t message_wait_ms(const struct rw_behavior *behavior, const struct rw_slot *slot) {
    return behavior->messages_per_second
               ? rw_rate_wait_ms(rw_ws_of(slot)->message_tokens, TOKENS, behavior->messages_per_second)
               : 0;
}

static uint32_t byte_wait_ms(const struct rw_behavior *behavior, const struct rw_slot *slot) {
    return behavior->bytes_per_second ? rw_rate_wait_ms(rw_ws_of(slot)->byte_tokens, 1, behavior->bytes_per_second) : 0;
}

static uint32_t wait_ms(const struct rw_behavior *behavior, const struct rw_slot *slot) {
    uint32_t messages = message_wait_ms(behavior, slot), bytes = byte_wait_ms(behavior, slot);
    return messages > bytes ? messages : bytes;
}

static uint32_t look_again_ms(const struct rw_core *core, uint32_t wait) {
    return core->now_ms + (wait < LOOK_MS ? wait : LOOK_MS);
}

int rw_ws_rate_admit(struct rw_core *core, struct rw_slot *slot) {
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    if (rw_ws_of(slot)->flags & RW_WS_CLOSE_SENT) return 1; /* it is thrown away, on the way to the peer's close */
    refill(core, slot);
    uint32_t wait = wait_ms(behavior, slot);
    if (wait == 0) return 1;
    if (!(behavior->flags & RW_BEHAVIOR_PAUSE_ON_RATE)) {
        rw_ws_fail(core, slot, message_wait_ms(behavior, slot) ? RW_CLOSE_MESSAGE_RATE : RW_CLOSE_BYTE_RATE);
        return 0;
    }
    RW_COUNT(core, pauses_rate, 1);
    slot->state.paused_by_core = 1;
    rw_connection_arm_timer(core, slot, look_again_ms(core, wait));
    rw_connection_update_receive(core, slot);
    return 0;
}

void rw_ws_rate_charge(struct rw_slot *slot, uint32_t messages, uint64_t bytes) {
    rw_ws_of(slot)->message_tokens -= (int64_t)messages * TOKENS;
    rw_ws_of(slot)->byte_tokens -= (int64_t)bytes * TOKENS;
}

/* Behind an end of stream there may be bytes that are still to be read, and on Unix sockets behind a hang-up too;
 * behind an error there is nothing. */
static int has_failed(const struct rw_slot *slot) {
    struct pollfd asked = {.fd = slot->fd};
    return poll(&asked, 1, 0) > 0 && (asked.revents & POLLERR) != 0;
}

uint32_t rw_ws_rate_on_timer(struct rw_core *core, struct rw_slot *slot) {
    refill(core, slot);
    uint32_t wait = wait_ms(rw_ws_behavior(core, slot), slot);
    if (wait == 0) {
        /* Not received from yet: each time a peer far past its rate would get rid of more than is then taken of it. */
        rw_connection_mark_ready(core, slot);
        return look_again_ms(core, LOOK_MS);
    }
    if (has_failed(slot)) {
        rw_ws_note_cause(slot, RW_CLOSE_PEER_GONE);
        rw_connection_terminate(core, slot);
    }
    return look_again_ms(core, wait);
}

int rw_ws_rate_resume(struct rw_core *core, struct rw_slot *slot) {
    refill(core, slot);
    if (wait_ms(rw_ws_behavior(core, slot), slot)) return 0;
    slot->state.paused_by_core = 0;
    slot->last_input_ms = core->now_ms; /* its silence begins now */
    rw_ws_of(slot)->message_began_ms = core->now_ms;
    rw_connection_arm_timer(core, slot, core->now_ms);
    return 1;
}
