/* The slot: all that one connection costs while it is idle, 256 bytes on four cache lines.
 *
 *   line 0   every completion: descriptor, generation, state, queues, activity
 *   line 1   timers, pool link, topics, deadlines
 *   line 2–3 the protocol's own
 *
 * Role: memory of a connection. Written by connection and the protocols; read by the host through the offsets in
 * layout.ts (generation, out_bytes, state) to answer without a call. Invariants: zeroed and fd = -1 when handed out;
 * generation survives and grows by one each time; given back only once nothing is armed or in flight and it is on no
 * list (rw_connection_finish_ending). */
#ifndef RW_SLOT_H
#define RW_SLOT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffers.h"
#include "base/limits.h"
#include "base/timer_wheel.h"

struct rw_tls;

#define RW_SLOT_OWN_BYTES 128u

enum rw_phase {
    RW_PHASE_FREE = 0,
    RW_PHASE_OPEN = 1,      /* serving its protocol */
    RW_PHASE_FINISHING = 2, /* no more input is served; queued output goes out, then LINGERING */
    RW_PHASE_LINGERING = 3, /* our side is shut down; input is thrown away until the peer closes */
    RW_PHASE_CLOSING = 4,   /* waits for the kernel to let go of what is armed and in flight */
};

/* Present once per connection; bit fields so that the whole state is one word. */
struct rw_slot_state {
    uint32_t phase : 3;          /* enum rw_phase */
    uint32_t protocol : 2;       /* which of core->protocols it speaks */
    uint32_t recv_armed : 1;     /* a recv operation will still complete */
    uint32_t recv_cancelled : 1; /* its cancellation was asked for */
    uint32_t send_inflight : 1;
    uint32_t send_cancelled : 1;
    uint32_t paused_by_host : 1; /* PAUSE */
    uint32_t paused_by_core : 1; /* body window or a held-back pipeline */
    uint32_t dirty : 1;          /* on the flush list */
    uint32_t ready : 1;          /* on the ready list: input waits that can be served without the kernel */
    uint32_t ending : 1;         /* on the ending list: CLOSING, looked at once a turn */
    uint32_t peer_closed : 1;    /* end of stream seen */
    uint32_t recv_starved : 1;   /* on the starved list: recv ended for want of buffers */
    uint32_t counted : 1;        /* backpressure_connections counts it */
    uint32_t left_by_host : 1;   /* the host has closed or terminated it: it only hears of the end */
    uint32_t send_refused : 1;   /* the last send took nothing: it is tried again by the clock */
    uint32_t connect_told : 1;   /* the host has had CONNECT: DISCONNECT is owed */
    uint32_t peer_trusted : 1;   /* see client.h */
    /* input waits until the peer has read more of its answers */
    uint32_t answers_wait : 1;
    /* peer_closed, and the host has had its turn with the present request since */
    uint32_t end_seen : 1;
    uint32_t lagging : 1;  /* it lags behind a topic's log, or has lately */
    uint32_t resuming : 1; /* on the resumed list: lagging, and its output has drained */
    uint32_t reserved : 7;
};

/* What may come before the first byte that the protocol sees. */
enum rw_preface {
    RW_PREFACE_NONE = 0,
    RW_PREFACE_PROXY = 1,          /* a PROXY protocol header is allowed and may have come in part, see proxy.h */
    RW_PREFACE_PROXY_REQUIRED = 2, /* and without one the connection is refused */
};

struct rw_slot {
    /* line 0 */
    int32_t fd;
    uint32_t generation;
    struct rw_slot_state state;
    uint32_t out_bytes; /* queued and not yet taken by the kernel */
    uint32_t out_head;  /* first segment of the output queue, see outbox.h; 0: none */
    uint32_t out_tail;
    uint32_t out_unflushed; /* bytes of out_bytes that no send has been tried for */
    uint32_t
        last_input_ms; /* core clock, wraps; protocols may set it forward: nobody is silent who was not read from */
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
    /* as the PROXY protocol told it, or the handshake that has begun the present protocol */
    uint8_t proxied_address[16];
    uint16_t proxied_port;
    uint8_t proxied_bytes; /* 0: none, 4 or 16 */
    uint8_t preface;       /* enum rw_preface */
    uint32_t address_key;  /* of the address that the connection is counted for, see ip_limit.h; 0: it is not */
    /* lines 2-3 */
    _Alignas(8) uint8_t own[RW_SLOT_OWN_BYTES]; /* state of the protocol, which declares it: http1/http.h, ws/ws.h */
} __attribute__((aligned(64)));

static_assert(sizeof(struct rw_slot_state) == 4, "the state is one word");
static_assert(sizeof(struct rw_slot) == RW_SLOT_BYTES, "a slot is exactly 256 bytes");
static_assert(_Alignof(struct rw_slot) == RW_CACHE_LINE_BYTES, "a slot begins a cache line");
static_assert(offsetof(struct rw_slot, timer) == 64, "line 1 begins with the timer");
static_assert(offsetof(struct rw_slot, own) == 128, "the protocol's own begins on line 2");

#endif
