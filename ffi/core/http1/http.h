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

#include "connection/protocol.h"
#include "http1/http_parser.h"

/* rw_slot_http.flags: what is known of the present request and its response. */
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

enum rw_http_phase {
    RW_HTTP_IDLE = 0,     /* between requests: nothing of the next has come */
    RW_HTTP_HEAD = 1,     /* a part of a head is in the input buffer */
    RW_HTTP_BODY = 2,     /* the body is being received */
    RW_HTTP_RECEIVED = 3, /* the whole request was handed over; its response is not complete */
};

struct rw_slot_http {
    struct rw_chunk_decoder decoder;
    uint64_t body_remaining;       /* request body bytes to come (sized) */
    uint64_t body_received;        /* body bytes so far, against the limit */
    uint64_t response_remaining;   /* bytes still owed to a sized streamed response */
    uint64_t body_held;            /* body bytes that the host has been given and still holds, see unfinished.h */
    uint64_t body_mark;            /* body_received when its progress was last enough */
    uint32_t body_unacked;         /* handed over and not acknowledged */
    uint32_t scanned;              /* of the head, see rw_http_parse_head */
    uint16_t request;              /* number of the present request; wraps */
    uint8_t phase;                 /* enum rw_http_phase */
    uint8_t body_slow;             /* body timeouts since then, at whose ends it was not */
    uint32_t flags;                /* see http.h */
    uint8_t ws_accept_key[24];     /* of a handshake that waits for the host's answer */
    uint8_t forwarded_address[16]; /* the client of the latest request, as a header of a trusted proxy told it */
    uint8_t forwarded_bytes;       /* 0: none, 4 or 16 */
    uint8_t abort_cause;           /* enum rw_abort_cause; the first counts */
    uint16_t abort_status;         /* what the core has refused the present request with; 0: nothing */
};

static_assert(sizeof(struct rw_slot_http) <= RW_SLOT_OWN_BYTES, "it fits the slot");

static inline struct rw_slot_http *rw_http_of(const struct rw_slot *slot) { return (struct rw_slot_http *)slot->own; }

/* Index in core->protocols: what a connection begins with. */
#define RW_HTTP_PROTOCOL 0u
extern const struct rw_protocol rw_http_protocol;

/* Of all connections of a core. */
struct rw_http_shared {
    struct rw_http_limits limits;
    struct rw_http_head head; /* the one that is being looked at */
};

/* ret: RW_OK or -ENOMEM */
int32_t rw_http_create(struct rw_core *core);
void rw_http_destroy(struct rw_core *core);

static inline int rw_http_is(const struct rw_slot *slot) { return slot->state.protocol == RW_HTTP_PROTOCOL; }

/* ------------------------------------------------------------------ http.c */

/* Why the present request will have no response, for the host; the first cause counts. A host that gives up a
 * half-closed client says that it has left. */
static inline void rw_http_note_cause(struct rw_slot *slot, enum rw_abort_cause cause) {
    struct rw_slot_http *http = rw_http_of(slot);
    if (cause == RW_ABORT_BY_HOST && http->flags & RW_X_HALF_CLOSED) return;
    if (http->abort_cause == RW_ABORT_PEER_GONE) http->abort_cause = (uint8_t)cause;
}
/* ret: 1 the host knows that nothing more comes for the present request (or there is none), 0 the batch is full */
int rw_http_tell_closed(struct rw_core *core, struct rw_slot *slot);
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
    return rw_http_of(slot)->phase >= RW_HTTP_BODY && !(rw_http_of(slot)->flags & RW_X_COMPLETE);
}

/* ------------------------------------------------------------------ http_response.c: commands */

/* rw_protocol.command */
int32_t rw_http_command(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                        const uint8_t *data, uint64_t bytes);
/* A whole response of the core's own, text/plain, closing. extra: more header lines or ""; why: behind the reason
 * phrase in the body, or NULL. */
void rw_http_write_refusal(struct rw_core *core, struct rw_slot *slot, uint32_t status, const char *extra,
                           const char *why);
void rw_http_write_continue(struct rw_core *core, struct rw_slot *slot);

#endif
