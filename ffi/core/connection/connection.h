/* A connection from accept to the return of its slot, whatever it speaks.
 *
 * Role: completion ↔ protocol. Up: protocol.h (what the bytes mean). Down: ring, slot_pool, outbox, timer_wheel.
 *
 *   OPEN ──finish──> FINISHING ──all sent──> LINGERING ──peer closed──> CLOSING ──quiet and told──> slot free
 *     └────────────────────── terminate ─────────────────────────────────^
 *
 * Split: connection.c receives, begins and ends; connection_send.c sends.
 *
 * Invariants: at most one send in flight; the slot goes back to the pool only when the last completion of its recv and
 * of its send has come (ring.h: "the last completion") and the host has been told; the protocol is never called after
 * OPEN. */
#ifndef RW_CONNECTION_H
#define RW_CONNECTION_H

#include "connection/protocol.h"

/* ------------------------------------------------------------------ from the turn */

/* A listener accepted `fd`: give it a slot, or refuse. */
void rw_connection_accept(struct rw_core *core, uint32_t listener, int32_t fd);
void rw_connection_on_recv(struct rw_core *core, const struct rw_completion *completion);
void rw_connection_on_send(struct rw_core *core, const struct rw_completion *completion);
/* The deadline of a slot has come, or an earlier one that has moved since. */
void rw_connection_on_timer(struct rw_core *core, uint32_t index);
/* Send what waits on the dirty list, but hold back connections whose next request is about to be served. */
void rw_connection_flush_dirty(struct rw_core *core);
/* Serve the first `count` of the ready list in turn, each its share of the work that is left, as far as the event batch
 * has room. */
void rw_connection_serve_ready(struct rw_core *core, uint32_t count);
/* Look at connections that are ending. */
void rw_connection_finish_ending(struct rw_core *core);
/* Give back the receive buffers that were withheld while much was kept, once it is not. */
void rw_connection_return_withheld(struct rw_core *core);
/* Receive buffers came back: arm again what ended for want of them. */
void rw_connection_feed_starved(struct rw_core *core);

/* ------------------------------------------------------------------ from the protocols and commands */

/* Output was queued: it goes out at the next flush. */
void rw_connection_mark_dirty(struct rw_core *core, struct rw_slot *slot);
/* Input or a notice waits: rw_connection_serve_ready will call the protocol. */
void rw_connection_mark_ready(struct rw_core *core, struct rw_slot *slot);
/* It lags behind a log, and there is room to send it more. */
void rw_connection_mark_resumed(struct rw_core *core, struct rw_slot *slot);
/* Hand the sends under way to the kernel and see what has become of them, once for each batch of commands: before a
 * connection is judged by what it has not taken. What else is reaped waits for the turn. */
void rw_connection_settle_sends(struct rw_core *core);
/* Send at once, outside the ring, as much as the kernel takes: gives a burst of sends within one tick the room of the
 * socket buffer before it counts as backpressure. Does nothing while a send is in flight. */
void rw_connection_flush_now(struct rw_core *core, struct rw_slot *slot);
/* The same, and behind what is queued bytes[0..len), which are not: whatever the kernel does not take stays with the
 * caller.
 * ret: how many of them it took; 0 too when a send is in flight or the connection is encrypted */
uint64_t rw_connection_send_now(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, uint64_t len);
/* Nothing of a protocol has come yet, and the handshake has agreed on this one (an index in core->protocols). */
void rw_connection_speak(struct rw_core *core, struct rw_slot *slot, uint32_t protocol);
/* No more input is served; what is queued goes out, then the connection ends in order. */
void rw_connection_finish(struct rw_core *core, struct rw_slot *slot);
/* The same for a connection that has nothing to say: its end goes out now and not at the next flush, so that fewer
 * requests cross it. */
void rw_connection_end_now(struct rw_core *core, struct rw_slot *slot);
/* End at once; what is queued is lost. */
void rw_connection_terminate(struct rw_core *core, struct rw_slot *slot);
/* The same, and the kernel throws away what it still holds for the peer (close(2) with SO_LINGER of 0, socket(7)): else
 * it would keep that for as long as the peer answers its probes. */
void rw_connection_reset(struct rw_core *core, struct rw_slot *slot);
/* The clock of a connection that lingers: see connection_send.c. */
void rw_connection_on_linger_timer(struct rw_core *core, struct rw_slot *slot);
/* Stop or resume receiving according to paused_by_host and paused_by_core, and to what waits to be served. */
void rw_connection_update_receive(struct rw_core *core, struct rw_slot *slot);
/* Make sure that the timer of the slot fires at due_ms (core clock) or before; on_timer works out the rest. */
void rw_connection_arm_timer(struct rw_core *core, struct rw_slot *slot, uint32_t due_ms);
/* A deadline of the peer has passed: ret: 1 what it was to do in time it may have done, and waits here or in the kernel
 * (POLLIN: bytes of it; POLLOUT: the room that it has made) for a worker that is busy: the timer looks again soon. Not
 * for ever: a second, and as long as the host was blocked. */
int rw_connection_spares(struct rw_core *core, struct rw_slot *slot, uint32_t deadline_ms, short events);
/* bytes[0..len) for the protocol of an OPEN slot, which may change them; as they came, or decrypted. */
void rw_connection_on_plain(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len);
/* The peer sends no more: FIN, or close_notify. */
void rw_connection_on_end_of_stream(struct rw_core *core, struct rw_slot *slot);
/* The peer cannot be understood any more: the host is told, queued plain bytes are lost, what TLS has to say goes out,
 * then the end. */
void rw_connection_fail(struct rw_core *core, struct rw_slot *slot);
/* Keep bytes[0..len) for later, behind what is kept already. ret: RW_OK or -ENOMEM (the connection is then
 * terminated) */
int32_t rw_connection_stash(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len);
/* Drop `bytes` from the front of what is kept. */
void rw_connection_unstash(struct rw_core *core, struct rw_slot *slot, uint32_t bytes);

/* Bytes that the peer has yet to read: what is queued, and what its TCP has not acknowledged. At most UINT32_MAX. */
uint32_t rw_connection_unread(const struct rw_slot *slot);
/* How long the peer may take for so many bytes by the least rate (RW_UNREAD_WAIT_MS_MAX at most, and when there is
 * none). */
uint32_t rw_connection_reading_ms(const struct rw_core *core, uint32_t bytes);
/* Something waits to be sent or is being sent: plain bytes, or what TLS has to say. */
int rw_connection_has_output(const struct rw_slot *slot);
/* backpressure_connections counts the slot, or does not, by what is queued. */
void rw_connection_note_backpressure(struct rw_core *core, struct rw_slot *slot);

static inline const uint8_t *rw_connection_input(const struct rw_core *core, const struct rw_slot *slot) {
    return rw_buffers_data(core->buffers, slot->input) + slot->input_offset;
}

/* a is before b on the core clock, which wraps after 49 days. */
static inline int rw_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

#endif
