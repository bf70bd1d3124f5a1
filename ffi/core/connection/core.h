/* The core of one worker: everything it owns, in one struct that is passed to every module above the ring.
 *
 * Role: shared state of connections, protocols and the two batches; the turn (core.c) drives them.
 * Data flows one way: completion → connection → protocol → event batch → host → command batch → connection → ring.
 *
 * Lists of slots. A slot is on each at most once; a bit in its state says so.
 *   dirty    output waits for a send                      → flushed once a turn
 *   ready    input or a notice can be served without I/O  → served once a turn
 *   starved  its receive ended for want of buffers        → armed again, in order, some each turn
 *   resumed  lags behind a log, and may be sent more of it   → goes on once a turn
 *   ending   CLOSING, waits to tell the host or for the kernel → looked at once a turn
 */
#ifndef RW_CORE_H
#define RW_CORE_H

#include <assert.h>
#include <stdint.h>

#include "base/buffers.h"
#include "base/limits.h"
#include "base/outbox.h"
#include "base/slot.h"
#include "base/slot_list.h"
#include "base/slot_pool.h"
#include "base/timer_wheel.h"
#include "connection/ip_limit.h"
#include "connection/trusted.h"
#include "node/node_bus.h"
#include "ring/ring.h"
#include "ringway.h"
#include "state/arena.h"
#include "topics/topics.h"

#define RW_COMPLETIONS_PER_REAP 1024u

#define RW_PROTOCOLS_MAX 4u /* slot.state.protocol has two bits */
#define RW_PROTOCOL_NONE 0xFFu

/* What connections of a listener may speak, by index in core->protocols: the best first, up to RW_PROTOCOL_NONE or the
 * end. The first is for those that are not asked: plain ones, and clients without ALPN. */
struct rw_protocol_list {
    uint8_t items[RW_PROTOCOLS_MAX];
};

struct rw_listener {
    int32_t fd;
    /* the index is taken: until the last completion of the accept, also after unlisten */
    uint8_t used;
    uint8_t armed;
    uint8_t stopped;      /* accepts no more */
    uint8_t unlistened;   /* by rw_core_unlisten(): `fd` is not ours to use any more */
    uint32_t generation;  /* grows with each use of the index */
    uint32_t connections; /* open, accepted in this generation */
    uint32_t flags;       /* enum rw_listener_flag */
    struct rw_protocol_list protocols;
    struct rw_tls_listener *tls; /* NULL: plain, see tls.h */
};

struct rw_event_batch {
    struct rw_event *records;
    uint8_t *payload;
    uint32_t count;
    uint32_t payload_used;
    /* Buffers handed over in place (RW_EVENT_LARGE), released when the next batch begins. */
    rw_buffer *held;
    uint32_t held_count;
    uint32_t held_capacity;
    uint64_t held_bytes; /* of connections, see rw_event_add_large */
};

/* See work.h */
struct rw_work {
    uint32_t spent;       /* of the present turn */
    uint32_t limit;       /* where the present part of it ends */
    uint32_t end;         /* where the share of whoever is served ends */
    uint32_t event_units; /* of an event: what the host says of its handler */
    uint32_t apply_units; /* and what its commands have cost here, lately */
};

struct rw_core_limits {
    uint32_t max_head_bytes;
    uint32_t max_target_bytes;
    uint32_t max_header_count;
    uint64_t max_body_bytes;
    uint32_t head_timeout_ms;
    uint32_t body_timeout_ms;
    uint32_t keep_alive_timeout_ms;
    uint32_t write_timeout_ms;
    uint32_t linger_timeout_ms;
    uint32_t min_bytes_per_second; /* UINT32_MAX: none */
    uint32_t response_high_water_bytes;
    uint32_t body_window_bytes;
    uint64_t unfinished_bytes;
    uint64_t inflate_bytes; /* 0: no limit */
    uint32_t topics_per_socket;
    uint32_t topics;
};

struct rw_drain {
    uint32_t active;
    uint32_t code;
    uint32_t over_ms;
    uint32_t idle_ms; /* how long a keep-alive connection may be idle */
    uint32_t started_ms;
    uint32_t total;    /* WebSockets open when the drain began */
    uint32_t closed;   /* of them, told to close so far */
    uint32_t cursor;   /* next slot to look at */
    uint32_t swept_ms; /* when it last began anew */
};

struct rw_upgrade_rate {
    uint32_t per_kilosecond; /* 0: no limit, and nothing below is used */
    uint32_t refilled_ms;
    int64_t tokens; /* see client.c */
};

struct rw_core {
    struct rw_ring *ring;
    const struct rw_protocol *protocols[RW_PROTOCOLS_MAX]; /* see protocol.h */
    struct rw_protocol_list spoken;                        /* by listeners, unless they say otherwise */
    struct rw_http_shared *http;                           /* of all connections, see http1/http.h */
    struct rw_ws_shared *ws;                               /* see ws/ws.h */
    struct rw_delivery *delivery;                          /* see delivery/delivery.h */
    struct rw_slot_pool pool;
    struct rw_buffers *buffers;
    struct rw_outbox outbox;
    struct rw_topics *topics;
    struct rw_timer_wheel wheel;
    struct rw_event_batch events;
    struct rw_command *commands;
    uint8_t *data;
    struct rw_slot_list dirty, ready, starved, resumed, ending;
    struct rw_work work;
    struct rw_stats *stats;
    struct rw_stats *private_stats; /* when there is no shared memory */
    struct rw_shm_header *shm;
    uint64_t shm_address;
    struct rw_state *state;     /* what topics remember; NULL: nothing */
    struct rw_members *members; /* see delivery/members.h; NULL without state */
    struct rw_node_bus *bus;
    int32_t inbox_fd;
    uint32_t flags;            /* enum rw_core_flag */
    uint64_t unfinished_bytes; /* see unfinished.h */
    uint64_t inflate_bytes;    /* of windows of clients' messages, see deflate.h */
    uint64_t mail_held_bytes;  /* of large mail in the present event batch */
    uint64_t clock_start_ms;   /* CLOCK_MONOTONIC at creation; the core clock counts from 1000 there */
    uint64_t clock_wide_ms;    /* core clock, read once a turn, from 1000 */
    uint64_t aged_wide_ms;     /* when times of the past were last looked at, see age.h */
    uint32_t now_ms;           /* its low half, as slots keep it; wraps after 49 days */
    uint32_t date_second;
    char date[32]; /* IMF-fixdate, 29 characters (RFC 9110 §5.6.7) */
    struct rw_core_limits limits;
    struct rw_drain drain;
    struct rw_trusted trusted;
    uint32_t proxy_header; /* enum rw_proxy_header */
    struct rw_upgrade_rate upgrade_rate;
    struct rw_ip_limit ip_limit;
    uint32_t accept_retry_ms; /* 0, or when to arm listeners again that ran out of descriptors */
    uint32_t completion_next, completion_count;
    uint32_t sends_settled; /* by rw_connection_settle_sends, for the present commands */
    uint32_t interrupted;   /* the latest turn's wait was ended by the host's descriptor */
    uint32_t gauges_due;    /* turns until the gauges are written again */
    uint64_t kept_bytes;    /* in slot.input of all connections */
    /* receive buffers [0..withheld_count) that are not given back yet, because much is kept */
    uint32_t *withheld;
    uint32_t withheld_count, withheld_most;
    uint32_t busy;        /* input waits that the last turn had no work left for */
    uint32_t timers_held; /* the last turn has fired none, because the host had been blocked */
    uint32_t last_turn_ms;
    uint32_t blocked_ms;       /* how long the host was blocked until just now; 0: it was not */
    uint32_t blocked_end_ms;   /* until when that counts */
    struct rw_tls_shared *tls; /* NULL: no listener has spoken TLS yet, see tls.h */
    struct rw_listener listeners[RW_LISTENERS_MAX];
    struct rw_behavior behaviors[RW_BEHAVIORS_MAX];
    struct rw_completion completions[RW_COMPLETIONS_PER_REAP];
};

/* Single writer: a relaxed load and store, which compile to a plain add. */
#define RW_COUNT(core, field, n)                                                                                      \
    __atomic_store_n(&(core)->stats->field, __atomic_load_n(&(core)->stats->field, __ATOMIC_RELAXED) + (uint64_t)(n), \
                     __ATOMIC_RELAXED)
#define RW_GAUGE(core, field, value) __atomic_store_n(&(core)->stats->field, (uint64_t)(value), __ATOMIC_RELAXED)

static inline uint32_t rw_core_index(const struct rw_core *core, const struct rw_slot *slot) {
    return rw_slot_pool_index(&core->pool, slot);
}
static inline struct rw_slot *rw_core_slot(const struct rw_core *core, uint32_t index) {
    assert(index < core->pool.carved);
    return &core->pool.slots[index];
}

/* The clock wraps through 0, which says that nothing is to be tried again. */
static inline void rw_core_retry_accept(struct rw_core *core, uint32_t at_ms) {
    core->accept_retry_ms = at_ms ? at_ms : 1;
}

/* What a completion is about: user_data = op << 56 | generation (24 bits) << 32 | index. */
enum rw_op { RW_OP_NONE = 0, RW_OP_ACCEPT = 1, RW_OP_RECV = 2, RW_OP_SEND = 3, RW_OP_INBOX = 4 };

static inline uint64_t rw_user_data(enum rw_op op, uint32_t generation, uint32_t index) {
    return (uint64_t)op << 56 | (uint64_t)(generation & 0xFFFFFFu) << 32 | index;
}
static inline enum rw_op rw_user_data_op(uint64_t user_data) { return (enum rw_op)(user_data >> 56); }
static inline uint32_t rw_user_data_generation(uint64_t user_data) { return (uint32_t)(user_data >> 32) & 0xFFFFFFu; }
static inline uint32_t rw_user_data_index(uint64_t user_data) { return (uint32_t)user_data; }

#endif
