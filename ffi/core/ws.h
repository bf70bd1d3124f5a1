/* WebSockets on a connection (RFC 6455): frames in, messages out, and the close handshake.
 *
 * Role: bytes → message events, send commands → frames. Up: event_batch, command_batch, publish. Down: ws_frame, utf8, connection.
 * A message that came whole in one piece is unmasked straight into the event batch; any other is put together in a buffer that grows with what
 * has really come, never with what a header claims.
 * Split: ws.c receives, ws_send.c sends and closes. */
#ifndef RW_WS_H
#define RW_WS_H

#include "core.h"
#include "ws_frame.h"

enum rw_ws_flag {
    RW_WS_OPEN_DUE = 1u << 0,     /* the host is to be told of the opening */
    RW_WS_MESSAGE_DUE = 1u << 1,  /* a whole message waits in ws.message for room in the batch */
    RW_WS_CLOSE_SENT = 1u << 2,
    RW_WS_CLOSE_RECEIVED = 1u << 3,
    RW_WS_CLOSE_TOLD = 1u << 4,
    RW_WS_DRAIN_WANTED = 1u << 5, /* sends met backpressure: tell the host when it is over */
    RW_WS_DRAIN_DUE = 1u << 6,
    RW_WS_IN_FRAME = 1u << 7,     /* frame_* describe a data frame whose payload is not complete */
};

/* slot.as.ws.fragments_out */
enum rw_ws_fragments {
    RW_WS_FRAGMENTS_NONE = 0,
    RW_WS_FRAGMENTS_SENT = 1,    /* the first is queued: the others must follow */
    RW_WS_FRAGMENTS_DROPPED = 2, /* the first was dropped: so are the others */
};

/* The connection has just answered 101. */
void rw_ws_open(struct rw_core *core, struct rw_slot *slot, uint32_t behavior);
/* Serve bytes[0..len), which may be changed. ret: bytes consumed; the caller keeps the rest */
size_t rw_ws_input(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, size_t len);
void rw_ws_serve(struct rw_core *core, struct rw_slot *slot);
void rw_ws_on_drained(struct rw_core *core, struct rw_slot *slot);
void rw_ws_on_peer_closed(struct rw_core *core, struct rw_slot *slot);
void rw_ws_on_timer(struct rw_core *core, struct rw_slot *slot);
/* ret: 1 the host has had its CLOSE event, 0 the batch is full */
int rw_ws_tell_closed(struct rw_core *core, struct rw_slot *slot);
/* The slot is about to be given back. */
void rw_ws_release(struct rw_core *core, struct rw_slot *slot);

/* ------------------------------------------------------------------ ws_send.c */

/* Queue a message or fragment: flags RW_SEND_*. Applies maxBackpressure. */
void rw_ws_send(struct rw_core *core, struct rw_slot *slot, uint32_t flags, const uint8_t *data, uint64_t bytes);
/* Queue a control frame of at most 125 bytes. */
void rw_ws_send_control(struct rw_core *core, struct rw_slot *slot, uint8_t opcode, const uint8_t *data, uint32_t bytes);
/* Start the close handshake. code 0: a close frame without a code. reason is cut at 123 bytes, at a character border. */
void rw_ws_close(struct rw_core *core, struct rw_slot *slot, uint32_t code, const uint8_t *reason, uint32_t bytes);
/* A violation: close with `code` and end the connection without waiting for an answer (RFC 6455 §7.1.7). */
void rw_ws_fail(struct rw_core *core, struct rw_slot *slot, uint32_t code);
/* Room for a message of `frame_bytes`? Applies the policy when there is none. ret: 1 send it, 0 dropped or closed */
int rw_ws_admit(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes);

static inline const struct rw_behavior *rw_ws_behavior(const struct rw_core *core, const struct rw_slot *slot) { return &core->behaviors[slot->behavior]; }
static inline int rw_ws_can_send(const struct rw_slot *slot) {
    return slot->state.phase == RW_PHASE_OPEN && slot->state.protocol == RW_PROTOCOL_WEBSOCKET && !(slot->as.ws.flags & RW_WS_CLOSE_SENT);
}

/* ------------------------------------------------------------------ publish.c */

/* Queue a message to every subscriber of a topic on this worker but `except` (RW_NO_SLOT: nobody). Framed once. ret: deliveries */
uint32_t rw_publish_local(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint64_t hash, uint32_t flags, const uint8_t *payload,
                          uint64_t bytes, uint32_t except);
/* The same, and to the other workers of the node. */
void rw_publish(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint32_t flags, const uint8_t *payload, uint64_t bytes, uint32_t except);
/* The tick is over: later publishes begin a new log when the present one is nearly full. */
void rw_publish_end_tick(struct rw_core *core);

#endif
