/* HTTP/1.1 on a connection: one request at a time, in order (RFC 9112).
 *
 * Role: bytes → request events, response commands → bytes. Up: event_batch, command_batch. Down: http_parser,
 * connection.
 *
 *   IDLE ──first byte──> HEAD ──head──> BODY ──end──> RECEIVED ──response complete──> IDLE
 *
 * A pipelined request waits in the input buffer until the response before it is complete; past PIPELINE_HOLD_BYTES of
 * such input receive is paused, so that the queue is bounded and order is kept by construction. Split: http.c receives,
 * http_response.c sends. */
#ifndef RW_HTTP_H
#define RW_HTTP_H

#include "connection/core.h"

/* slot.as.http.flags: what is known of the present request and its response. */
enum rw_http_exchange_flag {
    RW_X_KEEP_ALIVE = 1u << 0, /* may the connection be used again */
    RW_X_HEAD = 1u << 1,       /* method HEAD: no response body */
    RW_X_HTTP10 = 1u << 2,
    RW_X_CHUNKED_IN = 1u << 3,  /* request body is chunked */
    RW_X_CONTINUE = 1u << 4,    /* 100 (Continue) is owed, unless a final status comes first */
    RW_X_UPGRADE = 1u << 5,     /* a valid WebSocket handshake waits for the host's decision */
    RW_X_FIRST = 1u << 6,       /* no request has been received on this connection yet */
    RW_X_HALF_CLOSED = 1u << 7, /* the host has had HALF_CLOSED */
    RW_X_BEGUN = 1u << 8,       /* response head queued */
    RW_X_COMPLETE = 1u << 9,    /* response complete */
    RW_X_CHUNKED_OUT = 1u << 10,
    RW_X_SIZED_OUT = 1u << 11,
    RW_X_DRAIN_WANTED = 1u << 12, /* past the high-water mark: tell the host when drained */
    RW_X_DRAIN_DUE = 1u << 13,    /* drained, the host is not told yet */
    RW_X_ABORT_TOLD = 1u << 14,
    RW_X_ANSWERED_BY_CORE = 1u << 15, /* the core has refused the request: the host's response is not wanted */
    RW_X_CONNECT = 1u << 16,          /* method CONNECT: a success has no framing, and the connection ends with it */
};

void rw_http_open(struct rw_core *core, struct rw_slot *slot);
/* Serve bytes[0..len). ret: bytes consumed; the caller keeps the rest */
size_t rw_http_input(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len);
/* Serve what is kept, and notices that are due. */
void rw_http_serve(struct rw_core *core, struct rw_slot *slot);
void rw_http_on_drained(struct rw_core *core, struct rw_slot *slot);
void rw_http_on_peer_closed(struct rw_core *core, struct rw_slot *slot);
void rw_http_on_timer(struct rw_core *core, struct rw_slot *slot);
/* Why the present request will have no response, for the host; the first cause counts. A host that gives up a
 * half-closed client says that it has left. */
static inline void rw_http_note_cause(struct rw_slot *slot, enum rw_abort_cause cause) {
    if (cause == RW_ABORT_BY_HOST && slot->state.protocol == RW_PROTOCOL_HTTP && slot->as.http.flags & RW_X_HALF_CLOSED)
        return;
    if (slot->state.protocol == RW_PROTOCOL_HTTP && slot->as.http.abort_cause == RW_ABORT_PEER_GONE)
        slot->as.http.abort_cause = (uint8_t)cause;
}
/* ret: 1 the host knows that nothing more comes for the present request (or there is none), 0 the batch is full */
int rw_http_tell_closed(struct rw_core *core, struct rw_slot *slot);
/* The host lets a paused connection go on: its deadlines begin anew. */
void rw_http_on_resume(struct rw_core *core, struct rw_slot *slot);
/* Close idle connections, at once or once they have been idle for so long as the drain allows; the others close after
 * their response, or after that to the next request when this one has begun. */
void rw_http_drain(struct rw_core *core, struct rw_slot *slot);
/* What the host was given of the body is not held any more: the response is complete, or the host knows that the client
 * is gone. */
void rw_http_let_go(struct rw_core *core, struct rw_slot *slot);
/* Must the client wait until the host has taken more of the body? */
int rw_http_body_waits(const struct rw_core *core, const struct rw_slot *slot);
/* Answer `status` from the core and close. */
void rw_http_refuse(struct rw_core *core, struct rw_slot *slot, uint32_t status);
/* The same, with a sentence that says why, in ASCII; NULL: the status says it. */
void rw_http_refuse_because(struct rw_core *core, struct rw_slot *slot, uint32_t status, const char *why);
/* Pause or resume receive according to what waits. */
void rw_http_update_pause(struct rw_core *core, struct rw_slot *slot);
/* The response is complete: what comes next on this connection? */
void rw_http_response_complete(struct rw_core *core, struct rw_slot *slot);

static inline int rw_http_awaits_response(const struct rw_slot *slot) {
    return slot->as.http.phase >= RW_HTTP_BODY && !(slot->as.http.flags & RW_X_COMPLETE);
}

/* ------------------------------------------------------------------ http_response.c: commands */

void rw_http_respond(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command, const uint8_t *data,
                     uint64_t bytes);
void rw_http_respond_begin(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                           const uint8_t *data, uint64_t bytes);
void rw_http_respond_chunk(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes);
/* Accept of data[0..bytes) what the kernel takes at once and RW_RESPOND_TRY_WINDOW_BYTES of queue hold.
 * ret: bytes accepted | RW_ERR_INVALID: no sized response is under way, or more than its length (which ends the
 * connection) | RW_ERR_STALE */
int32_t rw_http_respond_try(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes);
void rw_http_respond_end(struct rw_core *core, struct rw_slot *slot);
/* End the connection so that the client can tell that the response is not whole. */
void rw_http_respond_abort(struct rw_core *core, struct rw_slot *slot);
/* The host has taken `bytes` of the body. kept: and holds them until the response is complete */
void rw_http_body_ack(struct rw_core *core, struct rw_slot *slot, uint32_t bytes, int kept);
/* 101: the connection speaks WebSocket from the next byte on. ret: RW_OK, RW_ERR_INVALID, or RW_ERR_STALE: no handshake
 * waits */
int32_t rw_http_upgrade(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                        const uint8_t *data, uint64_t bytes);
/* A whole response of the core's own, text/plain, closing. extra: more header lines or ""; why: behind the reason
 * phrase in the body, or NULL. */
void rw_http_write_refusal(struct rw_core *core, struct rw_slot *slot, uint32_t status, const char *extra,
                           const char *why);
void rw_http_write_continue(struct rw_core *core, struct rw_slot *slot);

#endif
