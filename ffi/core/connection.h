/* A connection from accept to the return of its slot, whatever it speaks.
 *
 * Role: completion ↔ protocol. Up: http, ws (what the bytes mean). Down: ring, slot_pool, outbox, timer_wheel.
 *
 *   OPEN ──finish──> FINISHING ──all sent──> LINGERING ──peer closed──> CLOSING ──quiet and told──> slot free
 *     └────────────────────── terminate ─────────────────────────────────^
 *
 * Invariants: at most one send in flight; the slot goes back to the pool only when the last completion of its recv and of its send has come
 * (ring.h: "the last completion") and the host has been told; the protocol is never called after OPEN. */
#ifndef RW_CONNECTION_H
#define RW_CONNECTION_H

#include "core.h"

/* ------------------------------------------------------------------ from the turn */

/* A listener accepted `fd`: give it a slot, or refuse. */
void rw_connection_accept(struct rw_core *core, uint32_t listener, int32_t fd);
void rw_connection_on_recv(struct rw_core *core, const struct rw_completion *completion);
void rw_connection_on_send(struct rw_core *core, const struct rw_completion *completion);
/* The deadline of a slot has come, or an earlier one that has moved since. */
void rw_connection_on_timer(struct rw_core *core, uint32_t index);
/* Send what waits on the dirty list, but hold back connections whose next request is about to be served. */
void rw_connection_flush_dirty(struct rw_core *core);
/* Serve what waits on the ready list, as far as the event batch has room. */
void rw_connection_serve_ready(struct rw_core *core);
/* Look at connections that are ending. */
void rw_connection_finish_ending(struct rw_core *core);
/* Receive buffers came back: arm again what ended for want of them. */
void rw_connection_feed_starved(struct rw_core *core);

/* ------------------------------------------------------------------ from the protocols and commands */

/* Output was queued: it goes out at the next flush. */
void rw_connection_mark_dirty(struct rw_core *core, struct rw_slot *slot);
/* Input or a notice waits: rw_connection_serve_ready will call the protocol. */
void rw_connection_mark_ready(struct rw_core *core, struct rw_slot *slot);
/* Send at once, outside the ring, as much as the kernel takes: gives a burst of sends within one tick the room of the socket buffer
 * before it counts as backpressure. Does nothing while a send is in flight. */
void rw_connection_flush_now(struct rw_core *core, struct rw_slot *slot);
/* No more input is served; what is queued goes out, then the connection ends in order. */
void rw_connection_finish(struct rw_core *core, struct rw_slot *slot);
/* End at once; what is queued is lost. */
void rw_connection_terminate(struct rw_core *core, struct rw_slot *slot);
/* Stop or resume receiving according to paused_by_host and paused_by_core. */
void rw_connection_update_receive(struct rw_core *core, struct rw_slot *slot);
/* Make sure that the timer of the slot fires at due_ms (core clock) or before; on_timer works out the rest. */
void rw_connection_arm_timer(struct rw_core *core, struct rw_slot *slot, uint32_t due_ms);
/* Keep bytes[0..len) for later, behind what is kept already. ret: RW_OK or -ENOMEM (the connection is then terminated) */
int32_t rw_connection_stash(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len);
/* Drop `bytes` from the front of what is kept. */
void rw_connection_unstash(struct rw_core *core, struct rw_slot *slot, uint32_t bytes);

static inline const uint8_t *rw_connection_input(const struct rw_core *core, const struct rw_slot *slot) {
    return rw_buffers_data(core->buffers, slot->input) + slot->input_offset;
}

/* a is before b on the core clock, which wraps after 49 days. */
static inline int rw_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

#endif
