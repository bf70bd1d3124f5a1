/* An exchange: one request and its response, apart from the connection that carries it.
 *
 * Role: what the host asks about and answers. HTTP/1 has one at a time, in the slot, on stream 0 (http.h); a protocol with
 * several on a connection keeps one for each stream. Down: buffers.
 *
 *   IDLE ──first byte──> HEAD ──head──> BODY ──end──> RECEIVED ──response complete──> IDLE
 */
#ifndef RW_EXCHANGE_H
#define RW_EXCHANGE_H

#include <stdint.h>

#include "base/buffers.h"
#include "ringway.h"

/* What is known of the request and its response. */
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
    RW_X_EVENTS = 1u << 17,           /* the response is a stream of events, see http_events.c */
};

enum rw_http_phase {
    RW_HTTP_IDLE = 0,     /* between requests: nothing of the next has come */
    RW_HTTP_HEAD = 1,     /* a part of a head is in the input buffer */
    RW_HTTP_BODY = 2,     /* the body is being received */
    RW_HTTP_RECEIVED = 3, /* the whole request was handed over; its response is not complete */
};

/* Of a response that is a stream of events. */
struct rw_exchange_events {
    uint32_t quiet_ms; /* after so long without output it says something; 0: never */
    uint32_t topics;   /* that it is subscribed to */
    rw_buffer places;  /* of its topics, see http_events.c; RW_BUFFER_NONE: its events do not name their topics */
};

struct rw_exchange {
    uint64_t body_received;        /* body bytes so far, against the limit */
    uint64_t body_held;            /* body bytes that the host has been given and still holds, see unfinished.h */
    uint64_t body_mark;            /* body_received when its progress was last enough */
    uint64_t response_remaining;   /* bytes still owed to a sized streamed response */
    uint32_t body_unacked;         /* handed over and not acknowledged */
    uint32_t flags;                /* enum rw_http_exchange_flag */
    uint16_t request;              /* its number on its stream; wraps */
    uint16_t abort_status;         /* what the core has refused it with; 0: nothing */
    uint8_t phase;                 /* enum rw_http_phase */
    uint8_t body_slow;             /* body timeouts since body_mark, at whose ends it was not */
    uint8_t abort_cause;           /* enum rw_abort_cause; the first counts */
    uint8_t forwarded_bytes;       /* 0: none, 4 or 16 */
    uint8_t forwarded_address[16]; /* the client, as a header of a trusted proxy told it */
    union {
        uint8_t ws_accept_key[24];        /* of a handshake that waits for the host's answer */
        struct rw_exchange_events events; /* with RW_X_EVENTS */
    };
};

/* A stream of events that goes on: messages of topics may be put on it. */
static inline int rw_exchange_is_events(const struct rw_exchange *exchange) {
    return (exchange->flags & (RW_X_EVENTS | RW_X_COMPLETE)) == RW_X_EVENTS;
}

/* Why there will be no response, for the host; the first cause counts. A host that gives up a half-closed client says
 * that it has left. */
static inline void rw_exchange_note_cause(struct rw_exchange *exchange, enum rw_abort_cause cause) {
    if (cause == RW_ABORT_BY_HOST && exchange->flags & RW_X_HALF_CLOSED) return;
    if (exchange->abort_cause == RW_ABORT_PEER_GONE) exchange->abort_cause = (uint8_t)cause;
}

static inline int rw_exchange_awaits_response(const struct rw_exchange *exchange) {
    return exchange->phase >= RW_HTTP_BODY && !(exchange->flags & RW_X_COMPLETE);
}

#endif
