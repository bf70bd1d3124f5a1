/* The slot: all that one connection costs while it is idle, 256 bytes on four cache lines.
 *
 *   line 0   every completion: descriptor, generation, state, queues, activity
 *   line 1   timers, pool link, topics, deadlines
 *   line 2–3 union: HTTP | WebSocket
 *
 * Role: memory of a connection. Written by connection, http, ws; read by the host through the offsets in layout.ts
 * (generation, out_bytes, state) to answer without a call. Invariants: zeroed and fd = -1 when handed out; generation
 * survives and grows by one each time; never handed out while an operation is armed or in flight (slot_is_quiet). */
#ifndef RW_SLOT_H
#define RW_SLOT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffers.h"
#include "base/limits.h"
#include "base/timer_wheel.h"
#include "http1/http_parser.h"

struct rw_tls;
struct rw_ws_deflate;

enum rw_phase {
    RW_PHASE_FREE = 0,
    RW_PHASE_OPEN = 1,      /* serving its protocol */
    RW_PHASE_FINISHING = 2, /* no more input is served; queued output goes out, then LINGERING */
    RW_PHASE_LINGERING = 3, /* our side is shut down; input is thrown away until the peer closes */
    RW_PHASE_CLOSING = 4,   /* waits for the kernel to let go of what is armed and in flight */
};

enum rw_protocol { RW_PROTOCOL_HTTP = 0, RW_PROTOCOL_WEBSOCKET = 1 };

enum rw_http_phase {
    RW_HTTP_IDLE = 0,     /* between requests: nothing of the next has come */
    RW_HTTP_HEAD = 1,     /* a part of a head is in the input buffer */
    RW_HTTP_BODY = 2,     /* the body is being received */
    RW_HTTP_RECEIVED = 3, /* the whole request was handed over; its response is not complete */
};

/* Present once per connection; bit fields so that the whole state is one word. */
struct rw_slot_state {
    uint32_t phase : 3;          /* enum rw_phase */
    uint32_t protocol : 1;       /* enum rw_protocol */
    uint32_t recv_armed : 1;     /* a recv operation will still complete */
    uint32_t recv_cancelled : 1; /* its cancellation was asked for */
    uint32_t send_inflight : 1;
    uint32_t send_cancelled : 1;
    uint32_t paused_by_host : 1; /* PAUSE */
    uint32_t paused_by_core : 1; /* body window or a held-back pipeline */
    uint32_t dirty : 1;          /* on the flush list */
    uint32_t ready : 1;          /* on the ready list: input waits that can be served without the kernel */
    uint32_t doomed : 1;         /* on the doomed list: to be terminated at the end of the turn */
    uint32_t peer_closed : 1;    /* end of stream seen */
    uint32_t recv_starved : 1;   /* on the starved list: recv ended for want of buffers */
    uint32_t counted : 1;        /* backpressure_connections counts it */
    uint32_t left_by_host : 1;   /* the host has closed or terminated it: it only hears of the end */
    uint32_t send_refused : 1;   /* the last send took nothing: it is tried again by the clock */
    uint32_t connect_told : 1;   /* the host has had CONNECT: DISCONNECT is owed */
    uint32_t peer_trusted : 1;   /* see client.h */
    /* of a WebSocket: input waits until the peer has read more of its answers, see ws.c */
    uint32_t answers_wait : 1;
    /* peer_closed, and the host has had its turn with the present request since, see rw_http_on_peer_closed */
    uint32_t end_seen : 1;
    uint32_t reserved : 10;
};

/* What may come before the first byte that the protocol sees. */
enum rw_preface {
    RW_PREFACE_NONE = 0,
    RW_PREFACE_PROXY = 1,          /* a PROXY protocol header is allowed and may have come in part, see proxy.h */
    RW_PREFACE_PROXY_REQUIRED = 2, /* and without one the connection is refused */
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

struct rw_slot_ws {
    uint64_t frame_remaining; /* payload bytes of the present frame still to come */
    uint64_t message_bytes;   /* payload bytes of the present message so far */
    rw_buffer message;        /* the present message, unmasked, as far as it has come */
    uint32_t mask_phase;      /* payload bytes of the present frame unmasked so far, modulo 4 */
    uint32_t utf8_state;
    uint32_t opened_ms;
    uint32_t last_ping_ms;
    uint32_t control_bytes; /* pong bytes queued and not yet sent, at most */
    uint32_t dropped;       /* messages dropped since the last DROPPED event */
    uint32_t told_turn;     /* the turn in which the host was last told of something that it may answer, see ws.h */
    uint32_t reason_bytes;  /* once CLOSE_RECEIVED: message holds the reason */
    uint16_t close_code;    /* received or sent first */
    uint8_t mask[4];
    uint8_t fragments_out;  /* enum rw_ws_fragments: of the message that is being sent in fragments */
    uint8_t message_opcode; /* of the present message; 0: none begun */
    uint8_t frame_fin;
    uint8_t flags; /* see ws.h */
    /* enum rw_close_cause of a failure that waits for the host's answers, see rw_ws_fail; 0: none */
    uint8_t fail_due;
    struct rw_ws_deflate *deflate; /* dedicated windows, see deflate.h; NULL: none */
    rw_buffer held;                /* whole frames that wait until the message being sent in fragments is complete */
    uint32_t held_bytes;
    uint8_t close_cause;      /* enum rw_close_cause, once close_told or close_code says that it is closing */
    uint8_t deflate_flags;    /* see deflate.h; 0: not negotiated */
    uint8_t deflate_window;   /* windowBits that the client inflates with */
    uint8_t message_deflated; /* the present message came with RSV1 */
    uint32_t rate_ms;         /* when the tokens were last counted, see ws_rate.c */
    int64_t message_tokens;
    int64_t byte_tokens;
    uint32_t window;           /* what the host still takes before it is asked, see RW_COMMAND_RESUME; 0: no end */
    uint32_t message_began_ms; /* of a message that is put together */
    uint32_t topics;           /* that it is subscribed to */
    /* once CLOSE_SENT by this side: what the peer had yet to read when that was last looked at, see on_close_timer */
    uint32_t close_unread;
    uint32_t close_by_ms; /* and when it must have answered, however it reads */
};

struct rw_slot {
    /* line 0 */
    int32_t fd;
    uint32_t generation;
    struct rw_slot_state state;
    uint32_t out_bytes; /* queued and not yet taken by the kernel */
    uint32_t out_head;  /* first segment of the output queue, see outbox.h; 0: none */
    uint32_t out_tail;
    uint32_t out_unflushed;  /* bytes of out_bytes that no send has been tried for */
    uint32_t last_input_ms;  /* core clock, wraps; of a WebSocket also when it last took what had waited for it */
    uint32_t last_output_ms; /* when the kernel last took bytes, or output began to wait */
    rw_buffer input;         /* bytes received and not yet consumed */
    uint32_t input_offset;
    uint32_t input_bytes;
    uint32_t deadline_ms; /* of the present phase, see connection.c; 0: none */
    uint8_t listener;
    uint8_t behavior;
    uint16_t server_context; /* of the server name that the TLS handshake asked for; 0: the listener's own */
    struct rw_tls *tls;      /* NULL: plain, see tls.h */
    /* line 1 */
    struct rw_timer_node timer;
    uint32_t pool_next;     /* free list: index + 1 */
    uint32_t subscriptions; /* head of the list in topics */
    uint32_t opened_ms;
    uint32_t listener_generation; /* with `listener`: which use of that index accepted it */
    uint64_t host_word;           /* for the host: nothing here reads it */
    /* as the PROXY protocol told it; of a WebSocket also as a header of its handshake did */
    uint8_t proxied_address[16];
    uint16_t proxied_port;
    uint8_t proxied_bytes; /* 0: none, 4 or 16 */
    uint8_t preface;       /* enum rw_preface */
    uint32_t address_key;  /* of the address that the connection is counted for, see ip_limit.h; 0: it is not */
    /* lines 2-3 */
    union {
        struct rw_slot_http http;
        struct rw_slot_ws ws;
        uint8_t bytes[128];
    } as;
} __attribute__((aligned(64)));

static_assert(sizeof(struct rw_slot_state) == 4, "the state is one word");
static_assert(sizeof(struct rw_slot) == RW_SLOT_BYTES, "a slot is exactly 256 bytes");
static_assert(_Alignof(struct rw_slot) == RW_CACHE_LINE_BYTES, "a slot begins a cache line");
static_assert(offsetof(struct rw_slot, timer) == 64, "line 1 begins with the timer");
static_assert(offsetof(struct rw_slot, as) == 128, "the union begins on line 2");
static_assert(sizeof(struct rw_slot_http) <= 128 && sizeof(struct rw_slot_ws) <= 128,
              "per-protocol state fits two lines");

#endif
