/* Ringway's C ABI: everything the host language may see of the core.
 *
 * Role: the border between TypeScript (src/, through ffi/bindings.ts) and the core (ffi/core/).
 * Data crosses it in two batches and never through a callback: the core writes event records into
 * memory that the host reads, the host writes command records into memory that the core reads, and
 * rw_core_turn() is the one call that consumes the commands and produces the next events.
 * Layouts are generated from this header into ffi/layout.ts; `make layout-check` fails when they differ.
 *
 * Threads: a core belongs to the thread that created it. No function here may be called from another
 * thread, except the rw_shm_* readers, which read memory that is written with atomic stores.
 */
#ifndef RINGWAY_H
#define RINGWAY_H

#include <stddef.h>
#include <stdint.h>

#define RW_ABI_VERSION 8u

#if defined(__GNUC__)
#define RW_EXPORT __attribute__((visibility("default")))
#else
#define RW_EXPORT
#endif

/* Results. Functions return >= 0 for success and one of these, negated errno apart, for failure.
 * Values below -4096 are ours; values in [-4095, -1] are negated errno numbers (errno(3)). */
enum rw_result {
    RW_OK = 0,
    RW_ERR_INVALID = -5001, /* an argument is out of its documented range */
    RW_ERR_STALE = -5002,   /* the connection id names a connection that has ended */
    RW_ERR_FULL = -5003,    /* a bounded table, pool or queue has no room */
    RW_ERR_ABI = -5004,     /* shared memory was laid out by another version */
    RW_ERR_UNSUPPORTED =
        -5005,                 /* the kernel lacks, or forbids, what was asked for; or this node has no memory for it */
    RW_ERR_BEHIND = -5006,     /* a position lies before what this node has of a log, and another store may have more */
    RW_ERR_UNFOLLOWED = -5007, /* this node's log is a copy that is not live */
};

/* I/O backends. AUTO takes io_uring when it works here, else epoll. */
enum rw_backend {
    RW_BACKEND_AUTO = 0,
    RW_BACKEND_IO_URING = 1,
    RW_BACKEND_EPOLL = 2,
    RW_BACKEND_SIM = 3, /* deterministic test ring; only in test builds */
};

/* ------------------------------------------------------------------ counters in shared memory
 *
 * One block per worker, cache-line aligned, written by that worker alone with relaxed stores, read by
 * anyone. Every counter is a u64. Counters only grow; gauges (GAUGE) are set. A worker that takes
 * the place of a dead one goes on from the counts it finds and resets the gauges.
 * What only the host counts is not listed here: it has words of its own, and says itself what they mean.
 *
 * X(kind, field)  */
#define RW_STATS_FIELDS(X)                                                                                             \
    X(COUNTER, accepts)              /* connections accepted and given a slot */                                       \
    X(COUNTER, closes)               /* connections whose slot was given back */                                       \
    X(COUNTER, refused_slots)        /* refused: no slot free */                                                       \
    X(COUNTER, refused_descriptors)  /* accept failed: EMFILE or ENFILE */                                             \
    X(COUNTER, refused_memory)       /* accept failed: ENOMEM, ENOBUFS */                                              \
    X(COUNTER, refused_aborted)      /* the peer left before accept: ECONNABORTED, EPROTO */                           \
    X(COUNTER, refused_handshake)    /* WebSocket upgrade refused: malformed handshake */                              \
    X(COUNTER, refused_ip)           /* connections and upgrades refused: max_connections_per_ip */                    \
    X(COUNTER, refused_upgrade_rate) /* upgrades refused: too many a second */                                         \
    X(COUNTER,                                                                                                         \
      refused_proxy) /* connections refused: PROXY header missing, broken, or of a peer that is not trusted */         \
    X(GAUGE, connections_http)      /* open connections that speak HTTP */                                             \
    X(GAUGE, connections_websocket) /* open connections that speak WebSocket */                                        \
    X(GAUGE, event_streams)         /* responses under way that are streams of events */                               \
    X(COUNTER, event_messages_out)  /* messages of topics queued to them */                                            \
    X(COUNTER, requests)            /* HTTP requests whose head was complete and valid */                              \
    X(COUNTER, tls_handshakes)      /* TLS handshakes completed */                                                     \
    X(COUNTER, tls_resumptions)     /* of them, resumed from a session ticket */                                       \
    X(COUNTER, tls_errors)          /* TLS handshakes that failed, and broken records */                               \
    X(COUNTER, tls_plain)           /* plain HTTP that came to a TLS port, answered with 400 */                        \
    X(COUNTER, responses_1xx)                                                                                          \
    X(COUNTER, responses_2xx)                                                                                          \
    X(COUNTER, responses_3xx)                                                                                          \
    X(COUNTER, responses_4xx)                                                                                          \
    X(COUNTER, responses_5xx)                                                                                          \
    X(COUNTER, http_errors)    /* requests refused by the core (400, 413, 431, ...) */                                 \
    X(COUNTER, http_aborts)    /* the client left before its response was complete */                                  \
    X(COUNTER, timeouts_head)  /* 408: request head not complete in time */                                            \
    X(COUNTER, timeouts_body)  /* 408: request body stalled */                                                         \
    X(COUNTER, timeouts_idle)  /* closed: no traffic within the idle timeout */                                        \
    X(COUNTER, timeouts_write) /* closed: the peer took no bytes for too long */                                       \
    X(COUNTER, bytes_in)       /* bytes received from sockets */                                                       \
    X(COUNTER, bytes_out)      /* bytes the kernel took for sockets */                                                 \
    X(COUNTER, ws_upgrades)    /* WebSocket handshakes completed */                                                    \
    X(COUNTER, ws_messages_in)                                                                                         \
    X(COUNTER, ws_messages_out) /* messages queued to one socket, deliveries included */                               \
    X(COUNTER, ws_bytes_in)     /* payload bytes of messages received */                                               \
    X(COUNTER, ws_bytes_out)    /* payload bytes of messages queued */                                                 \
    X(COUNTER, ws_deflated_in)  /* messages received compressed */                                                     \
    X(COUNTER, ws_deflated_out) /* messages queued compressed, deliveries included */                                  \
    X(COUNTER, deflates)        /* compressions done: a published message counts once for each window size in use */   \
    X(COUNTER, ws_pings_in)                                                                                            \
    X(COUNTER, ws_pongs_in)                                                                                            \
    X(COUNTER, ws_pings_out)                                                                                           \
    X(COUNTER, ws_closes_in)         /* close frames received */                                                       \
    X(COUNTER, ws_closes_out)        /* close frames sent */                                                           \
    X(COUNTER, ws_protocol_errors)   /* closed with 1002, 1003 or 1007 */                                              \
    X(COUNTER, ws_invalid_deflate)   /* of them, because a compressed message did not inflate */                       \
    X(COUNTER, ws_too_big)           /* closed with 1009 */                                                            \
    X(COUNTER, publishes)            /* publishes by this worker's own connections and code */                         \
    X(COUNTER, publishes_remote)     /* publishes that arrived from other workers or nodes */                          \
    X(COUNTER, deliveries)           /* messages queued to subscribers by publishes */                                 \
    X(COUNTER, drops_backpressure)   /* messages dropped: past maxBackpressure, policy drop */                         \
    X(COUNTER, closes_backpressure)  /* connections closed: past maxBackpressure, policy close */                      \
    X(COUNTER, closes_message_rate)  /* WebSockets closed: more messages a second than allowed */                      \
    X(COUNTER, closes_byte_rate)     /* WebSockets closed: more bytes a second than allowed */                         \
    X(COUNTER, pauses_rate)          /* times receiving paused because a WebSocket was past its rate */                \
    X(COUNTER, drops_control)        /* pongs dropped: the control queue of a socket is full */                        \
    X(GAUGE, unfinished_bytes)       /* held of requests and messages that clients have begun and not finished */      \
    X(GAUGE, unfinished_limit_bytes) /* the most that may be held of them */                                           \
    X(COUNTER,                                                                                                         \
      refused_unfinished)         /* requests refused (503, 413) because their head or body would have gone past it */ \
    X(COUNTER, closes_unfinished) /* WebSockets closed (1013) because a message would have */                          \
    X(COUNTER, timeouts_message)  /* WebSockets closed: a message not complete in time */                              \
    X(GAUGE, inflate_bytes)       /* held of windows of WebSockets that send compressed messages */                    \
    X(GAUGE, inflate_limit_bytes) /* the most that may be held of them; 0: no limit */                                 \
    X(COUNTER, declined_inflate)  /* handshakes answered without compression, because little of it was left */         \
    X(COUNTER, closes_inflate)    /* WebSockets closed (1013) because nothing was */                                   \
    X(GAUGE, backpressure_bytes)  /* bytes queued and not yet taken by the kernel */                                   \
    X(GAUGE, backpressure_connections) /* connections with such bytes after a flush */                                 \
    X(GAUGE, topics)                   /* exact at any time, as a host may want to know before it subscribes */        \
    X(GAUGE, subscriptions)                                                                                            \
    X(COUNTER, topic_appends)            /* messages appended to logs by this worker, or put into them */              \
    X(COUNTER, topic_appends_refused)    /* and those that no room was left for */                                     \
    X(COUNTER, topic_attaches_recovered) /* subscriptions with a position after which nothing was missing */           \
    X(COUNTER, topic_attaches_lost)      /* with one after which something was, or that is none of the log's */        \
    X(COUNTER, topic_attaches_behind)    /* with one that is left to another store */                                  \
    X(COUNTER, topic_lost)               /* times a subscriber was told that messages are gone */                      \
    X(COUNTER, topic_lags)               /* times a subscriber had no room and went on from the log later */           \
    X(GAUGE, topic_lagging)              /* subscriptions that lag behind their log now */                             \
    X(COUNTER, topic_host_drops)         /* messages of direct topics that the host's queue had no room for */         \
    X(GAUGE, presence_members)           /* of them, those that are members of topics with presence */                 \
    X(COUNTER, presence_joins)           /* users that came to a topic of this node by a connection here */            \
    X(COUNTER, presence_leaves)          /* users that left a topic, and this worker was the one to find out */        \
    X(COUNTER, refused_topics_socket)    /* subscriptions refused: the socket has topics_per_socket */                 \
    X(COUNTER, refused_topics_worker)    /* subscriptions refused: the worker has `topics` */                          \
    X(COUNTER, node_messages_out)        /* messages written to other workers' rings */                                \
    X(COUNTER, node_messages_in)         /* messages read from other workers' rings */                                 \
    X(COUNTER, node_drops)               /* messages for a worker whose ring and outbox were full */                   \
    X(GAUGE, node_outbox_bytes)          /* bytes waiting for room in other workers' rings */                          \
    X(COUNTER, recv_no_buffers)          /* ENOBUFS: the provided-buffer ring ran empty */                             \
    X(COUNTER, cq_overflows)             /* completion queue overflowed; nothing was lost */                           \
    X(COUNTER, send_short)               /* sends of which the kernel took a part */                                   \
    X(COUNTER, turns)                    /* turns of the loop */                                                       \
    X(COUNTER, turns_empty)              /* turns that found nothing */                                                \
    X(COUNTER, sleeps)                   /* times the worker went to sleep */                                          \
    X(GAUGE, backend)                    /* enum rw_backend in use; 0 before the core is up */                         \
    X(GAUGE, started_at_ms)              /* CLOCK_REALTIME at start of the present process */                          \
    X(GAUGE, buffers_64_used)            /* buffers in use, by class */                                                \
    X(GAUGE, buffers_256_used)                                                                                         \
    X(GAUGE, buffers_1k_used)                                                                                          \
    X(GAUGE, buffers_4k_used)                                                                                          \
    X(GAUGE, buffers_16k_used)                                                                                         \
    X(GAUGE, buffers_64k_used)                                                                                         \
    X(GAUGE, buffers_large_used)                                                                                       \
    X(GAUGE, buffers_64_total) /* buffers ever carved from the arena, by class */                                      \
    X(GAUGE, buffers_256_total)                                                                                        \
    X(GAUGE, buffers_1k_total)                                                                                         \
    X(GAUGE, buffers_4k_total)                                                                                         \
    X(GAUGE, buffers_16k_total)                                                                                        \
    X(GAUGE, buffers_64k_total)                                                                                        \
    X(COUNTER, buffers_large_total) /* large allocations ever made */

#define RW_HOST_COUNTERS 128u
#define RW_HOST_GAUGES 64u

struct rw_stats {
#define RW_STATS_MEMBER(kind, field) uint64_t field;
    RW_STATS_FIELDS(RW_STATS_MEMBER)
#undef RW_STATS_MEMBER
    /* The host's own. The core knows neither their names nor their meaning; it only takes the gauges back. */
    uint64_t host_counters[RW_HOST_COUNTERS] __attribute__((aligned(64)));
    uint64_t host_gauges[RW_HOST_GAUGES];
} __attribute__((aligned(64)));

/* ------------------------------------------------------------------ events: core → host
 *
 * rw_core_turn() writes `count` records at events[0..count) and their payloads into the payload area.
 * Both are valid until the next rw_core_turn(); offsets count from the start of the payload area. With RW_EVENT_LARGE the payload lies outside the area, at the address
 * (arg1 << 32 | arg0), and lives as long as the others.
 * Events about a request (REQUEST, BODY, ABORT, RESPONSE_DRAIN, HALF_CLOSED) name it by `request` and `stream`. */
enum rw_event_type {
    RW_EVENT_NONE = 0,
    /* A request head. payload = host bytes, then target bytes, then the header block: for each field
     * `name \n value \n`, names in lower case, values trimmed, in the order received.
     * flags = RW_REQUEST_*; arg0 = host_bytes << 16 | target_bytes; arg1 = server-name context << 16 | index given to
     * rw_core_listen() << 8 | method (enum rw_method). With method OTHER the method is the first "field", named
     * ":method". */
    RW_EVENT_REQUEST = 1,
    /* A part of the request body. flags bit RW_BODY_END on the last one (which may be empty). */
    RW_EVENT_BODY = 2,
    /* The response will not be completed. arg0 = enum rw_abort_cause << 16 | the status that the core has answered
     * with, else 0. */
    RW_EVENT_ABORT = 3,
    /* A streamed response has drained below the low-water mark. */
    RW_EVENT_RESPONSE_DRAIN = 4,
    /* The handshake answer is queued; frames follow. arg0 = behavior index. */
    RW_EVENT_OPEN = 5,
    /* A whole message, reassembled. flags: RW_WS_BINARY. arg0 = behavior index, unless RW_EVENT_LARGE. */
    RW_EVENT_MESSAGE = 6,
    /* The WebSocket has ended, once per RW_EVENT_OPEN (or RW_UPGRADE_QUIET), the last event of its connection but for
     * DISCONNECT. arg0 = close code (1005: none received, 1006: no close handshake); arg1 = enum rw_close_cause;
     * payload = reason (UTF-8). */
    RW_EVENT_CLOSE = 7,
    RW_EVENT_WS_DRAIN = 8, /* backpressure went down to zero after sends had been held back */
    RW_EVENT_PING = 9,     /* only for behaviors with RW_BEHAVIOR_WANTS_PING; payload = application data */
    RW_EVENT_PONG = 10,    /* only for behaviors with RW_BEHAVIOR_WANTS_PONG */
    /* Messages were dropped for backpressure. With RW_BEHAVIOR_WANTS_DROPPED: arg0 = how many since the last such
     * event. With RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD: one event for each message that a publish dropped, flags
     * RW_DROPPED_PAYLOAD, RW_WS_BINARY, payload = the message, arg0 = 1 (with RW_EVENT_LARGE arg0 and arg1 are the
     * address instead); past what the core keeps of them, only counted as above. */
    RW_EVENT_DROPPED = 11,
    /* Only from listeners with RW_LISTENER_WANTS_CONNECT: a connection was given its slot; and it is gone, the last
     * event of its slot. arg0 = index given to rw_core_listen(). */
    RW_EVENT_CONNECT = 12,
    RW_EVENT_DISCONNECT = 13,
    /* Only from listeners with RW_LISTENER_WANTS_SERVER_NAME: a TLS handshake asks for a server name that the listener
     * has no certificate for. payload = the name, in lower case; arg0 = index given to rw_core_listen(). The handshake waits for
     * RW_COMMAND_SERVER_NAME. */
    RW_EVENT_SERVER_NAME = 14,
    /* Only with RW_CORE_WANTS_INTEREST: this worker has begun (flags RW_INTEREST_WANTED), or ceased, to have
     * subscribers of a topic. payload = its name. What changes back before the batch is written is not told; the last
     * event of a topic is always true. */
    RW_EVENT_INTEREST = 15,
    /* Only with RW_CORE_WANTS_MAIL: another worker of the node has sent this with RW_COMMAND_MAIL. payload = its data;
     * slot = the sender's index; generation = the sender's epoch. */
    RW_EVENT_MAIL = 16,
    /* The client of a request that is not answered yet has closed its sending side a second ago: it has left, or waits
     * for the answer, which nobody can tell. The answer is sent all the same; TERMINATE gives the request up, which
     * then ends with RW_ABORT_PEER_GONE. Once a request at most. */
    RW_EVENT_HALF_CLOSED = 17,
    /* A message of a topic that the host holds (rw_core_hold()). flags RW_HEARD_*; request = bytes of the topic's name.
     * payload = u64 epoch and u64 offset, with RW_HEARD_POSITION, in host order; then the topic's name; then the
     * message. With RW_HEARD_LOST there is no message: all up to the position are gone. */
    RW_EVENT_TOPIC = 18,
    /* A WebSocket that hears raw messages has missed some of a logged topic, all up to a position. payload = u64 epoch
     * and u64 offset, in host order, then the topic's name. */
    RW_EVENT_LOST = 19,
};

struct rw_event {
    uint16_t type; /* enum rw_event_type */
    uint16_t flags;
    uint32_t slot;
    uint32_t generation;
    uint32_t offset; /* of the payload, in bytes from the start of the payload area */
    uint32_t bytes;  /* of the payload */
    uint32_t arg0;
    uint32_t arg1;
    /* Of events about a request: its number, and the stream of its connection that it came on. HTTP/1 has one stream,
     * 0, on which requests come one after the other. Both are 0 in all other events. */
    uint16_t request;
    uint16_t stream;
};

enum rw_event_flag {
    RW_EVENT_LARGE = 1u << 15,      /* any type with a payload */
    RW_REQUEST_HAS_BODY = 1u << 0,  /* BODY events follow, the last with RW_BODY_END */
    RW_REQUEST_UPGRADE = 1u << 1,   /* a WebSocket handshake, checked and valid; answer with UPGRADE or RESPOND */
    RW_REQUEST_TLS = 1u << 2,       /* came over TLS: the scheme is https */
    RW_REQUEST_HTTP10 = 1u << 3,    /* HTTP/1.0 */
    RW_REQUEST_ASTERISK = 1u << 4,  /* target is "*" (OPTIONS) */
    RW_REQUEST_AUTHORITY = 1u << 5, /* target is authority-form (CONNECT) */
    /* A trusted proxy has written the head, and tells in such fields what it was asked (see `proxy_header` of
     * rw_core_config). At most one of the two. */
    RW_REQUEST_X_FORWARDED = 1u << 6, /* X-Forwarded-* */
    RW_REQUEST_FORWARDED = 1u << 7,   /* Forwarded (RFC 7239) */
    RW_BODY_END = 1u << 0,
    RW_WS_BINARY = 1u << 0,
    RW_DROPPED_PAYLOAD = 1u << 1,
    RW_INTEREST_WANTED = 1u << 0,
    /* TOPIC */
    RW_HEARD_TEXT = 1u << 0,
    RW_HEARD_POSITION = 1u << 1, /* of a logged topic */
    RW_HEARD_LOST = 1u << 2,
    RW_HEARD_JOIN = 1u << 3, /* of a presence log; the message is what its entry has */
    RW_HEARD_LEAVE = 1u << 4,
    RW_HEARD_COMPRESS = 1u << 5, /* RW_SEND_COMPRESS */
};

/* Why a request ended without the response that the host would have given. */
enum rw_abort_cause {
    RW_ABORT_PEER_GONE = 0, /* the client left */
    /* the core refused its body: too late (408), too large (413), malformed (400, ...); unless a response had begun,
     * with that status */
    RW_ABORT_REFUSED = 1,
    RW_ABORT_WRITE_TIMEOUT = 2, /* the client took nothing for too long */
    RW_ABORT_BY_HOST = 3,       /* RESPOND_ABORT or TERMINATE */
    RW_ABORT_LENGTH = 4,        /* the body that the host gave did not have the length that it had announced */
    RW_ABORT_NO_MEMORY = 5,
    RW_ABORT_DRAINED = 6, /* a drain has ended a stream of events, in order: its client comes back elsewhere */
};

/* Why a WebSocket has ended. */
enum rw_close_cause {
    RW_CLOSE_BY_HOST = 0,         /* WS_CLOSE or TERMINATE */
    RW_CLOSE_BY_PEER = 1,         /* a close frame came first */
    RW_CLOSE_PEER_GONE = 2,       /* end of stream or a reset, without a close frame */
    RW_CLOSE_PROTOCOL_ERROR = 3,  /* 1002 */
    RW_CLOSE_INVALID_UTF8 = 4,    /* 1007 */
    RW_CLOSE_TOO_BIG = 5,         /* 1009 */
    RW_CLOSE_INVALID_DEFLATE = 6, /* 1007: a compressed message that does not inflate */
    RW_CLOSE_IDLE = 7,            /* idle timeout */
    RW_CLOSE_BACKPRESSURE = 8,    /* past max_backpressure_bytes, policy close */
    RW_CLOSE_LIFETIME = 9,        /* max_lifetime_ms */
    RW_CLOSE_WRITE_TIMEOUT = 10,  /* the peer took nothing for too long */
    RW_CLOSE_DRAIN = 11,
    RW_CLOSE_NO_MEMORY = 12,
    RW_CLOSE_MESSAGE_RATE = 13,    /* past messages_per_second, policy close: 1008 */
    RW_CLOSE_BYTE_RATE = 14,       /* past bytes_per_second, policy close: 1008 */
    RW_CLOSE_UNFINISHED = 15,      /* past unfinished_kib: 1013 */
    RW_CLOSE_MESSAGE_TIMEOUT = 16, /* message_timeout_ms: 1008 */
    RW_CLOSE_INFLATE_WINDOWS = 17, /* past inflate_kib: 1013 */
};

enum rw_method {
    RW_METHOD_OTHER = 0,
    RW_METHOD_GET = 1,
    RW_METHOD_HEAD = 2,
    RW_METHOD_POST = 3,
    RW_METHOD_PUT = 4,
    RW_METHOD_DELETE = 5,
    RW_METHOD_CONNECT = 6,
    RW_METHOD_OPTIONS = 7,
    RW_METHOD_TRACE = 8,
    RW_METHOD_PATCH = 9,
};

/* ------------------------------------------------------------------ commands: host → core
 *
 * The host writes records at commands[0..count) and their data into the data area, then calls
 * rw_core_turn() or rw_core_flush(), which applies them in order. A command for a connection that has ended
 * (stale generation) or a request that is over is dropped without harm.
 * Data named by a command is copied or sent before the call returns: the host may reuse its memory. */
enum rw_command_type {
    RW_COMMAND_NONE = 0,
    /* A complete response. data = header block (`Name: value\r\n`..., no framing fields: the core writes
     * Content-Length, Transfer-Encoding, Connection and Date), then the body. arg0 = status; arg1 = header block bytes. */
    RW_COMMAND_RESPOND = 1,
    /* Begin a streamed response: data = header block; arg0 = status | high 16 bits of the body length << 16; arg1 = its
     * low 32 bits (both read only with RW_RESPOND_SIZED; else the body is chunked, or ends with the connection for
     * HTTP/1.0). */
    RW_COMMAND_RESPOND_BEGIN = 2,
    RW_COMMAND_RESPOND_CHUNK = 3,
    RW_COMMAND_RESPOND_END = 4,
    /* Give up: close the connection without a proper end of the response, so that the client can tell. */
    RW_COMMAND_RESPOND_ABORT = 5,
    /* The host has taken arg0 bytes of request body: receive may go on. With RW_BODY_KEPT it holds them until the
     * response is complete, and they count towards unfinished_kib so long. */
    RW_COMMAND_BODY_ACK = 6,
    /* Accept a WebSocket handshake. arg0 = behavior index | bytes of `leading` << 8; arg1 = bytes of `offer`; data =
     * offer, leading, trailing: the client's Sec-WebSocket-Extensions (empty: no compression), then two header blocks,
     * one for before the handshake's own fields and one for behind them. flags: RW_UPGRADE_QUIET. */
    RW_COMMAND_UPGRADE = 7,
    RW_COMMAND_SEND = 8,     /* data = payload; flags = RW_SEND_* */
    RW_COMMAND_WS_CLOSE = 9, /* arg0 = code (0: none), data = reason; starts the close handshake */
    RW_COMMAND_PING = 10,    /* data = application data, at most 125 bytes */
    /* data = topic; past a limit of topics nothing happens, and rw_core_command() answers RW_ERR_FULL */
    RW_COMMAND_SUBSCRIBE = 11,
    RW_COMMAND_UNSUBSCRIBE = 12, /* data = topic */
    /* data = topic, then payload; arg0 = topic bytes; flags = RW_SEND_*. slot/generation: a subscriber to leave out,
     * or slot RW_NO_SLOT. */
    RW_COMMAND_PUBLISH = 13,
    RW_COMMAND_PAUSE = 14, /* stop receiving, so that TCP pushes back */
    /* Receive again. arg0, of a WebSocket: the window, what the host takes before it wants to be asked again; 0: no
     * end. Each MESSAGE, PING and PONG event uses up its bytes and RW_WINDOW_EVENT_BYTES; when nothing is left, PAUSE
     * follows by itself. */
    RW_COMMAND_RESUME = 15,
    RW_COMMAND_TERMINATE = 16, /* close at once, queued output discarded */
    /* Only through rw_core_command(): queue as much of data, a part of the body of a sized response that has begun, as
     * the kernel takes at once and a small window holds. ret: bytes accepted. When that is not all, RESPONSE_DRAIN
     * follows. */
    RW_COMMAND_RESPOND_TRY = 17,
    RW_COMMAND_SERVER_NAME = 18, /* go on with a handshake that waits since RW_EVENT_SERVER_NAME */
    /* Only through rw_core_command(): send data to another worker of the node, which gets it as RW_EVENT_MAIL. arg0 =
     * its index. Mail between two workers arrives once and in order, among the publishes that the one sends the other,
     * as long as both live.
     * ret: RW_OK; RW_ERR_STALE no such worker lives; RW_ERR_FULL its ring and the outbox are full: nothing was sent,
     * try again later */
    RW_COMMAND_MAIL = 19,
    /* Of a stream of events (RW_RESPOND_EVENTS): one of the host's own. data: what stands behind its id, such as
     * "event: name\ndata: …\n\n"; the core puts the id in front, which says where the stream is; "\n" is the id alone.
     * Without a topic that has positions there is none. */
    RW_COMMAND_RESPOND_EVENT = 20,
    /* Of a stream of events, before it is subscribed to anything: its topics, in the order in which its ids name them,
     * and where its client is. data, for each: u64 epoch (0: nowhere), u64 offset, u32 bytes of the name, the name.
     * From then on each event says which topic it is of: its data is the JSON object. */
    RW_COMMAND_RESPOND_PLACES = 21,
};

#define RW_NO_SLOT 0xFFFFFFFFu

struct rw_command {
    uint16_t type;  /* enum rw_command_type */
    uint16_t flags; /* enum rw_command_flag */
    uint32_t slot;
    uint32_t generation;
    /* of the data: from the start of the data area, or of the payload area with RW_COMMAND_FROM_EVENT */
    uint32_t offset;
    uint32_t bytes;
    uint32_t arg0;
    uint32_t arg1;
    uint16_t request; /* for HTTP commands: as its events had them */
    uint16_t stream;
};

enum rw_command_flag {
    RW_COMMAND_FROM_EVENT = 1u << 15, /* data lies in the payload area of the present event batch */
    RW_SEND_TEXT = 1u << 0,           /* opcode text; else binary */
    RW_SEND_FIRST = 1u << 1,          /* first of several fragments (FIN clear) */
    RW_SEND_CONTINUE = 1u << 2,       /* a fragment after the first (opcode 0) */
    RW_SEND_LAST = 1u << 3,           /* with CONTINUE: the last fragment (FIN set) */
    /* compress where permessage-deflate was negotiated; with fragments: on the first */
    RW_SEND_COMPRESS = 1u << 4,
    RW_PUBLISH_REMOTE = 1u << 6, /* PUBLISH: the message comes from another node, and is counted as such */
    RW_SEND_OWN = 1u << 5,       /* the host learns of a drop from the result: no DROPPED event for it */
    RW_RESPOND_SIZED = 1u << 0,  /* BEGIN: the body's length is known */
    RW_RESPOND_CLOSE = 1u << 1,  /* close the connection after this response (RESPOND, BEGIN, END) */
    /* RESPOND, BEGIN: data begins with one byte of length and the status as text, such as "200 OK" (arg1 of RESPOND
     * does not count them) */
    RW_RESPOND_STATUS_TEXT = 1u << 2,
    /* RESPOND without a body: no Content-Length either (a HEAD or 304 of unknown length) */
    RW_RESPOND_NO_LENGTH = 1u << 3,
    /* BEGIN, without SIZED: a stream of events (text/event-stream), which may be subscribed to topics. arg1: after so
     * many ms without output a comment keeps the way awake; 0: none. A drain ends it in its turn (RW_ABORT_DRAINED). */
    RW_RESPOND_EVENTS = 1u << 4,
    RW_BODY_KEPT = 1u << 0,     /* BODY_ACK: not let go of */
    RW_UPGRADE_QUIET = 1u << 0, /* UPGRADE: no OPEN event, the host has opened it by itself */
};

/* ------------------------------------------------------------------ set-up */

/* Behaviors: how the WebSockets of one route act; a connection names its behavior by index. */
struct rw_behavior {
    uint32_t max_payload_bytes;      /* longer messages close with 1009 */
    uint32_t max_backpressure_bytes; /* bytes queued to one socket; past it: policy */
    uint32_t idle_timeout_ms;        /* 0: none. Closed with 1006 when nothing at all came for so long */
    uint32_t ping_interval_ms;       /* 0: no pings. A ping goes out when nothing came for so long */
    uint32_t max_lifetime_ms;        /* 0: none. Closed with 1000 after so long */
    uint32_t close_timeout_ms;       /* how long to wait for the peer's close frame */
    uint32_t flags;                  /* enum rw_behavior_flag */
    /* permessage-deflate (RFC 7692), 0: none. Bits 0-7 compressor: 0 none, 1 shared (no context takeover), else
     * dedicated with zlib's memLevel in bits 0-3 and windowBits in bits 4-7; bits 8-11 decompressor: 0 none, 1 shared,
     * else dedicated with windowBits. Bit 12: answer with no parameter that the client has not offered, and inflate
     * whatever it may send by what it has. */
    uint32_t deflate;
    uint32_t deflate_min_bytes; /* shorter messages go out as they are */
    /* What a peer may send in a second, on average; twice as much at once. 0: no limit. Past it:
     * RW_BEHAVIOR_PAUSE_ON_RATE, else 1008. */
    uint32_t messages_per_second; /* data messages */
    uint32_t bytes_per_second;    /* payload bytes, as they come or inflated, whichever is more */
    /* 0: none. Closed with 1008 when a message has not come whole so long after its first byte */
    uint32_t message_timeout_ms;
};

enum rw_behavior_flag {
    /* past the limit: terminate, reported as 1008; else drop the message */
    RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE = 1u << 0,
    RW_BEHAVIOR_WANTS_PING = 1u << 1,
    RW_BEHAVIOR_WANTS_PONG = 1u << 2,
    RW_BEHAVIOR_WANTS_DROPPED = 1u << 3,
    RW_BEHAVIOR_WANTS_DRAIN = 1u << 4,
    RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD = 1u << 5,
    /* The limit counts what waits before a message, so the last one taken may go past it; and what the host sends meets
     * the kernel 16 KiB at a time, so that a handler that goes on sending sees backpressure while it runs. */
    RW_BEHAVIOR_LIMIT_BEFORE = 1u << 6,
    /* past a rate: receive no more until the peer is within it again, so that TCP pushes back */
    RW_BEHAVIOR_PAUSE_ON_RATE = 1u << 7,
    /* Messages of topics come as JSON objects that say which topic, and where in its log (topics/dialect.h), as text. Not
     * to be changed while connections have this behavior. */
    RW_BEHAVIOR_POSITIONS = 1u << 8,
};

struct rw_core_config {
    uint32_t abi_version;     /* RW_ABI_VERSION */
    uint32_t backend;         /* enum rw_backend */
    uint32_t max_connections; /* slots reserved; 1..2^24 */
    uint32_t ring_entries;    /* submission entries, a power of two; 0: 4096 */
    uint32_t recv_buffers;    /* buffers in the provided-buffer ring, a power of two; 0: default */
    uint32_t recv_buffer_bytes;
    uint32_t sqpoll;    /* 1: IORING_SETUP_SQPOLL */
    int32_t sqpoll_cpu; /* -1: not pinned */
    uint32_t sqpoll_idle_ms;
    int32_t wake_fd; /* eventfd that wakes the host while it sleeps; the host reads it */
    /* eventfds by which workers wake each other: worker i's is inbox_fd_first + i; -1: none */
    int32_t inbox_fd_first;
    int32_t shm_fd; /* memfd made by rw_shm_create(); -1: private counters, no other workers */
    uint32_t worker_index;
    uint32_t worker_count;
    /* HTTP limits and deadlines; 0 means the default of limits.h */
    uint32_t max_head_bytes;
    uint32_t max_target_bytes;
    uint32_t max_header_count;
    uint32_t max_body_bytes_lo; /* u64 in two halves */
    uint32_t max_body_bytes_hi;
    uint32_t head_timeout_ms;           /* from the first byte (or accept) to the end of the head */
    uint32_t body_timeout_ms;           /* between two parts of a body; and 1 KiB of it within four times that */
    uint32_t keep_alive_timeout_ms;     /* idle between requests */
    uint32_t write_timeout_ms;          /* the peer takes nothing for so long while output waits */
    uint32_t linger_timeout_ms;         /* how long to read on after the last response byte, so that it arrives */
    uint32_t response_high_water_bytes; /* a streamed response past this waits for RESPONSE_DRAIN */
    uint32_t body_window_bytes;         /* request body bytes handed over and not acknowledged, at most */
    uint32_t flags;                     /* enum rw_core_flag */
    /* Open connections of one client address on the node, at most; 0: no limit. The address is the peer's; behind a
     * trusted proxy it is that which the PROXY protocol told, else WebSockets are counted by the address in
     * `proxy_header` and other connections not at all. */
    uint32_t max_connections_per_ip;
    /* WebSocket upgrades in 1,000 s on average, a second's worth (at least one) at once; 0: no limit. Past it: 503 */
    uint32_t upgrades_per_kilosecond;
    uint32_t proxy_header; /* enum rw_proxy_header: where trusted proxies tell the client's address */
    /* Held of heads, bodies and messages that clients have begun and not finished, and of bodies that the host has
     * until they are answered, in KiB; 0: the default. Past it: 503, 413, 1013 or 1009 for whoever asks for more. */
    uint32_t unfinished_kib;
    uint32_t topics_per_socket; /* that a WebSocket may be subscribed to; 0: the default */
    uint32_t topics;            /* with subscribers here, at most; 0: the default */
    /* What a peer must read on average of what the kernel holds for it when its connection ends; then it is reset. 0:
     * the default, UINT32_MAX: none */
    uint32_t min_bytes_per_second;
    /* Held of the windows with which messages of WebSockets are inflated that refer to those before, in KiB; 0: no
     * limit. When little of it is left, handshakes agree to no further ones; past it: 1013 for whoever needs one. */
    uint32_t inflate_kib;
    uint32_t host_layout; /* as the shared memory was made with */
};

enum rw_core_flag {
    RW_CORE_WANTS_INTEREST = 1u << 0, /* INTEREST events */
    RW_CORE_WANTS_MAIL = 1u << 1,     /* MAIL events */
    /* logs are copies of another store's: nobody is attached to one that is not followed, see rw_core_log_reset() */
    RW_CORE_FOLLOWS_LOGS = 1u << 2,
};

enum rw_proxy_header {
    RW_PROXY_HEADER_NONE = 0,
    RW_PROXY_HEADER_X_FORWARDED_FOR = 1,
    RW_PROXY_HEADER_FORWARDED = 2, /* RFC 7239 */
};

/* A range of addresses; an IPv4 address is written as IPv6 (::ffff:a.b.c.d), its prefix with 96 bits more. */
struct rw_address_range {
    uint8_t address[16];  /* network order */
    uint32_t prefix_bits; /* 0..128 */
};

/* What the host needs to map; filled by rw_core_info(). Addresses are valid until rw_core_destroy(). */
struct rw_core_info {
    uint64_t events;   /* struct rw_event[events_capacity] */
    uint64_t payload;  /* the payload area, and behind it RW_LEND_BYTES (limits.h) for the host's own use */
    uint64_t commands; /* struct rw_command[commands_capacity] */
    uint64_t data;     /* the command data area */
    uint64_t slots;    /* struct rw_slot[max_connections]; see the RW_SLOT_* offsets in layout.ts */
    uint64_t stats;    /* struct rw_stats of this worker */
    uint32_t events_capacity;
    uint32_t payload_bytes;
    uint32_t commands_capacity;
    uint32_t data_bytes;
    uint32_t backend; /* enum rw_backend in use */
    uint32_t max_connections;
    uint64_t view; /* see rw_shm_view_set(): a u64 to be read at any time; 0: no shared memory */
    /* a u32, written by each turn: 1 its wait has ended because the descriptor of rw_core_interrupt_by() was readable,
     * else 0 */
    uint64_t interrupted;
    uint32_t epoch; /* of this process among those that have had its index; odd; 0: no shared memory */
    uint32_t reserved;
};

struct rw_core;

/* The ABI version of the loaded library. */
RW_EXPORT uint32_t rw_abi_version(void);

/* Create a core on the calling thread.
 * in:  *config, borrowed for the call
 * out: *error (error_bytes > 0): a sentence that names the likely cause and remedy when NULL is returned; else why
 * io_uring was not
 *      taken, or empty
 * ret: the core, to be given to rw_core_destroy(), or NULL */
RW_EXPORT struct rw_core *rw_core_create(const struct rw_core_config *config, char *error, size_t error_bytes);

/* Close every connection at once, wait for the kernel to let go of all buffers, free everything. */
RW_EXPORT void rw_core_destroy(struct rw_core *core);

RW_EXPORT void rw_core_info(const struct rw_core *core, struct rw_core_info *out);

/* Set behavior `index` (0..255). Connections already open keep to the new values from their next event. */
RW_EXPORT int32_t rw_core_behavior(struct rw_core *core, uint32_t index, const struct rw_behavior *behavior);

/* Accept from the listening socket `fd` (owned by the caller, kept open). `index` (0..255) comes back in REQUEST
 * events.
 * in:  flags: enum rw_listener_flag
 * ret: RW_OK, RW_ERR_FULL (the index is in use, or its last accept has not ended), or a negated errno */
RW_EXPORT int32_t rw_core_listen(struct rw_core *core, int32_t fd, uint32_t index, uint32_t flags);

enum rw_listener_flag {
    RW_LISTENER_WANTS_CONNECT = 1u << 0,     /* CONNECT and DISCONNECT events */
    RW_LISTENER_WANTS_SERVER_NAME = 1u << 1, /* SERVER_NAME events */
    /* a PROXY protocol header, version 1 or 2, may come before the first byte of the client */
    RW_LISTENER_PROXY_PROTOCOL = 1u << 2,
    /* and must: else the connection is refused; of peers that are not trusted it is always */
    RW_LISTENER_PROXY_REQUIRED = 1u << 3,
    /* a client that half-closes has left: what is not answered in the turn that follows is aborted */
    RW_LISTENER_ABORT_AT_FIN = 1u << 4,
};

/* The addresses of proxies that are believed about their clients; as long as there are any, so is whoever connects to a
 * Unix socket. Again: replaces them; connections that stand are not judged again.
 * in:  ranges[0..count), copied. ret: RW_OK, RW_ERR_INVALID, -ENOMEM */
RW_EXPORT int32_t rw_core_trusted_proxies(struct rw_core *core, const struct rw_address_range *ranges, uint32_t count);

/* Change the flags of a listener. ret: RW_OK or RW_ERR_INVALID */
RW_EXPORT int32_t rw_core_listener_flags(struct rw_core *core, uint32_t index, uint32_t flags);

/* Stop accepting on one listener; the caller may close its descriptor at once. Its connections live on, and so does its
 * TLS, until the last of them is gone. ret: RW_OK or RW_ERR_INVALID */
RW_EXPORT int32_t rw_core_unlisten(struct rw_core *core, uint32_t index);

/* End at once every connection that was accepted on this listener. ret: how many */
RW_EXPORT int32_t rw_core_terminate_listener(struct rw_core *core, uint32_t index);

/* Certificates and settings of TLS, read from PEM files while the call lasts. Strings end with NUL; NULL: not given. */
struct rw_tls_options {
    const char *key_file;
    const char *cert_file;  /* the chain, leaf first */
    const char *ca_file;    /* given: clients must show a certificate that one of these has signed */
    const char *passphrase; /* of the key */
    const char *dh_params_file;
    const char *ciphers; /* OpenSSL's list, for TLS 1.2 */
    /* with ca_file: certificates that are revoked, of every authority of a chain (RFC 5280 §5) */
    const char *crl_file;
    /* DER: what the authority says of cert_file (RFC 6960), sent to clients that ask (RFC 6066 §8) until it expires */
    const char *ocsp_file;
    /* a certificate with another kind of key, for clients that cannot use this one: its first two, passphrase,
     * ocsp_file and also */
    const struct rw_tls_options *also;
    uint32_t min_version; /* 0x0303 (TLS 1.2, also 0) or 0x0304 */
    uint32_t flags;       /* enum rw_tls_flag */
};

enum rw_tls_flag {
    /* with ca_file: a client may show no certificate, but none that is not signed by them */
    RW_TLS_CLIENT_OPTIONAL = 1u << 0,
};

/* Make a listener speak TLS, before or after rw_core_listen(); again: handshakes from now on use the new options, and
 * connections that stand keep what they have.
 * out: *error: a sentence that names the file and what is wrong with it, when the result is < 0
 * ret: RW_OK, RW_ERR_INVALID */
RW_EXPORT int32_t rw_core_listener_tls(struct rw_core *core, uint32_t index, const struct rw_tls_options *options,
                                       char *error, size_t error_bytes);

/* Add or replace (options given) or remove (NULL) the certificate for a server name of a TLS listener. The name may
 * begin with "*." (one label). `context` (0..65535; 0 is the listener's own) comes back in REQUEST events. ret and
 * error as above */
RW_EXPORT int32_t rw_core_server_name(struct rw_core *core, uint32_t index, const char *name, uint32_t context,
                                      const struct rw_tls_options *options, char *error, size_t error_bytes);

/* Stop accepting on every listener. Connections that have come by then are accepted in the next turns where the kernel
 * may have told nobody else of them; others stay in its queue for whoever holds the socket. The descriptors may be
 * closed at once. */
RW_EXPORT void rw_core_stop_accepting(struct rw_core *core);

/* Begin to drain: requests in progress, and those that still come on open connections, are answered with `Connection:
 * close`; keep-alive connections close once they have been idle for `idle_ms` (0: at once), since a client may be
 * sending its next request when they do; WebSockets close with `code` spread evenly over `over_ms`. */
RW_EXPORT void rw_core_drain(struct rw_core *core, uint32_t code, uint32_t over_ms, uint32_t idle_ms);

/* One turn: apply `command_count` commands, send what they queued, take completions, write events.
 * in:  wait_us: when nothing is at hand, wait so long for it at most, or until a deadline of the core; 0: do not wait
 * ret: events written (0..events_capacity) */
RW_EXPORT int32_t rw_core_turn(struct rw_core *core, uint32_t command_count, uint32_t wait_us);

/* How many events of input a turn is to bring, at most (1..events_capacity, which is what a core begins with): as many
 * as the host's handlers deal with in the time that it gives to one turn. The rest is served in the next turns, and
 * what is queued goes out in between. Events that are not input (CLOSE, drains) come all the same. */
RW_EXPORT void rw_core_pace(struct rw_core *core, uint32_t events);

/* From now on the wait of a turn also ends when `fd` is readable: the host has an event loop of its own (its epoll
 * descriptor, say), which can go on meanwhile. Nothing is read from it; it stays open as long as the core. Once in the
 * life of a core.
 * ret: RW_OK or a negated errno, and then waits end as before */
RW_EXPORT int32_t rw_core_interrupt_by(struct rw_core *core, int32_t fd);

/* Apply `command_count` commands without taking completions: for a host whose command or data area is full.
 * Event payloads of the present batch stay valid. ret: RW_OK */
RW_EXPORT int32_t rw_core_flush(struct rw_core *core, uint32_t command_count);

/* Apply one command whose data lies at data[0..bytes): for payloads larger than the data area. Commands written before
 * must be flushed first. ret: RW_OK, RW_ERR_STALE or RW_ERR_INVALID; SUBSCRIBE and UNSUBSCRIBE: 1 done, 0 it was so
 * already; RESPOND_TRY: bytes accepted */
RW_EXPORT int32_t rw_core_command(struct rw_core *core, const struct rw_command *command, const uint8_t *data,
                                  uint64_t bytes);

/* Get ready to sleep: from now on a completion or a message from another worker makes wake_fd readable.
 * ret: milliseconds until a timer is due (>= 0), -1: no timer, -2: do not sleep, there is work already (wake_fd stays
 * silent) */
RW_EXPORT int32_t rw_core_sleep(struct rw_core *core);

/* Awake again: wake_fd is not written any more. */
RW_EXPORT void rw_core_wake(struct rw_core *core);

/* The peer's address as text, without a port, into out[0..bytes). ret: length, and the port in *port; 0 for a Unix
 * socket. */
RW_EXPORT int32_t rw_core_remote_address(const struct rw_core *core, uint32_t slot, uint32_t generation, char *out,
                                         uint32_t bytes, uint32_t *port);

/* The peer's address in binary, in network order: 4 or 16 bytes into out[0..16), and the port in *port.
 * in:  proxied: 1: as told by the PROXY protocol, or by a trusted proxy in the head of the latest request (then the
 * port is 0); 0: of the socket
 * ret: 4 or 16; 0: a Unix socket, or no proxy has told; RW_ERR_STALE */
RW_EXPORT int32_t rw_core_peer(const struct rw_core *core, uint32_t slot, uint32_t generation, uint32_t proxied,
                               uint8_t *out, uint32_t *port);

/* Of a TLS connection, its version (0x0303, 0x0304) in *version and into out[0..bytes): a u16 length in host order and
 * the server name that the client asked for, in lower case; then its certificate (DER), which ca_file has signed, or
 * nothing.
 * ret: bytes needed for all (out holds it only when that is <= `bytes`); 0: it is not over TLS; RW_ERR_STALE */
RW_EXPORT int32_t rw_core_tls(const struct rw_core *core, uint32_t slot, uint32_t generation, uint8_t *out,
                              uint32_t bytes, uint32_t *version);

/* The topics of a connection into out[0..bytes): for each a u16 length in host order and the name.
 * ret: bytes needed for all (when more than `bytes`, out holds those that fit), or RW_ERR_STALE */
RW_EXPORT int32_t rw_core_topics(const struct rw_core *core, uint32_t slot, uint32_t generation, uint8_t *out,
                                 uint32_t bytes);

/* ret: 1 somebody is subscribed to the topic, here or on another worker of the node (which may err towards 1), 0 nobody
 * is */
RW_EXPORT int32_t rw_core_topic_wanted(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes);

/* Subscribers of a topic on this worker. */
RW_EXPORT uint32_t rw_core_subscribers(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes);

/* ret: 1 subscribed, 0 not (also when the connection has ended) */
RW_EXPORT int32_t rw_core_is_subscribed(const struct rw_core *core, uint32_t slot, uint32_t generation,
                                        const uint8_t *topic, uint32_t topic_bytes);

/* ------------------------------------------------------------------ who is on a topic
 *
 * Members are connections of all workers of the node, by user; they lie in its shared memory. A user comes with its first
 * connection and goes with its last, or so many milliseconds after that has ended; each is an entry of the topic's
 * presence log, whose name is "\0p" and the topic: u16 bytes of the user's id (little-endian), id, info. With
 * RW_CORE_FOLLOWS_LOGS that log is another store's, and users that have changed are kept for whoever writes to it.
 *
 * All of these answer RW_ERR_UNSUPPORTED when the node has no memory for it, RW_ERR_INVALID for a topic that is empty or
 * longer than RW_TOPIC_BYTES_MAX - 2, RW_ERR_FULL or -ETIMEDOUT when its part of the memory cannot be had now. */

/* A connection that is subscribed to the topic is a member until that ends.
 * in:  data: topic, user (1..1024 bytes of UTF-8) and info (JSON; up to 16384), one behind the other; grace_ms: of all
 *      users of the topic from now on; members_max: connections that the topic may have
 * ret: 1 the user has come, 0 it was there; RW_ERR_STALE the connection is gone, or not subscribed; RW_ERR_FULL the topic
 *      has members_max, or no memory is left */
RW_EXPORT int32_t rw_core_presence_join(struct rw_core *core, uint32_t slot, uint32_t generation, const uint8_t *data,
                                        uint32_t topic_bytes, uint32_t user_bytes, uint32_t info_bytes,
                                        uint32_t grace_ms, uint32_t members_max);

/* It is no member any more, at once, and stays subscribed. What ends a subscription does so too: an unsubscribe at once,
 * the end of the connection with a grace. ret: 1 it was one, 0 it was none, RW_ERR_STALE as above */
RW_EXPORT int32_t rw_core_presence_leave(struct rw_core *core, uint32_t slot, uint32_t generation, const uint8_t *topic,
                                         uint32_t topic_bytes);

/* out: *users, and *connections of them: those that are open, and 1 for a user in its grace. ret: RW_OK */
RW_EXPORT int32_t rw_core_presence_count(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes,
                                         uint32_t *users, uint32_t *connections);

/* Everybody, by their joins, into out[0..bytes): for each u32 connections, u16 bytes of user and info, user, info. And the
 * position of the presence log that this is the sum of (*epoch 0: with RW_CORE_FOLLOWS_LOGS only; there is none here).
 * ret: bytes needed for all; out has them only when that is at most `bytes` */
RW_EXPORT int64_t rw_core_presence_list(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint8_t *out,
                                        uint64_t bytes, uint64_t *epoch, uint64_t *offset);

/* About once a second, in every worker: graces end, and members of workers that are gone begin theirs.
 * ret: 1 there is more to do (a call is about a millisecond), 0 */
RW_EXPORT int32_t rw_core_presence_tick(struct rw_core *core);

/* With RW_CORE_FOLLOWS_LOGS: users that have changed, at most `max`, into out[0..bytes): for each u32 connections (0: it
 * has gone), u64 version, u16 bytes of topic, user and info, topic, user, info. They are given out once, and again after
 * 10 s unless acknowledged. A look in every shard follows a tick; otherwise only where this worker has changed something.
 * in:  bytes: at least 65536. out: *used. ret: how many */
RW_EXPORT int32_t rw_core_presence_take(struct rw_core *core, uint32_t max, uint8_t *out, uint64_t bytes,
                                        uint64_t *used);

/* The store has this version. data: topic and user, one behind the other. ret: RW_OK */
RW_EXPORT int32_t rw_core_presence_acknowledge(struct rw_core *core, const uint8_t *data, uint32_t topic_bytes,
                                               uint32_t user_bytes, uint64_t version);

/* All users are to be written again: marks a part of them. in: cursor 0 at first. ret: the next cursor, 0 at the end */
RW_EXPORT int32_t rw_core_presence_rewrite(struct rw_core *core, uint32_t cursor);

/* Open connections (both protocols), and one more for each listener that rw_core_stop_accepting() has told to stop and
 * that may still deliver: 0 is nothing left. */
RW_EXPORT uint32_t rw_core_connections(const struct rw_core *core);

/* ------------------------------------------------------------------ logs of topics
 *
 * A topic is direct until something is appended to its log, or somebody attached to it; then every worker of the node
 * delivers it from the log, in the order of its offsets. What is done here is done before the call returns; commands
 * written before must be flushed first. Where nothing else is said, these answer RW_ERR_UNSUPPORTED without shared
 * memory for logs (rw_shm_create()), RW_ERR_INVALID for lengths out of range, RW_ERR_FULL when no room is left, and
 * -ETIMEDOUT when another process holds a part of it for too long. */

/* A message on its way to a log, or a place in one. Its bytes lie in one piece: topic, then key, then payload. */
struct rw_log_call {
    uint64_t epoch; /* in or out: a position */
    uint64_t offset;
    uint64_t time_ms; /* of a put; 0: now */
    uint32_t topic_bytes;
    uint32_t key_bytes;   /* of an append: the idempotency key; 0: none */
    uint32_t key_seconds; /* how long it is remembered; 0: 120 */
    uint32_t payload_bytes;
    uint32_t flags;   /* RW_SEND_TEXT, RW_SEND_COMPRESS; enum rw_log_kind: a join or leave of a presence log */
    uint32_t size;    /* what the log keeps: entries */
    uint32_t seconds; /* and how old they may be */
    /* The connection that does not get it. origin_epoch 0: nobody is left out. With origin_worker RW_NO_SLOT, one of this
     * worker. */
    uint32_t origin_worker, origin_epoch, origin_slot, origin_generation;
    uint32_t has_position; /* of an attach or hold: epoch and offset are `since` */
    uint32_t result; /* out, of an attach: enum rw_attach_flag; low half: messages queued at once, at most 65535 */
    uint32_t reserved;
};

enum rw_attach_flag { RW_ATTACH_RECOVERED = 1u << 16 };

/* Append, and deliver. out: epoch, offset. ret: 0 appended, 1 the key was there: its position; RW_ERR_FULL: no room, or
 * another worker has been stopped while it held this part of the memory; RW_ERR_INVALID, RW_ERR_UNSUPPORTED */
RW_EXPORT int32_t rw_core_log_append(struct rw_core *core, struct rw_log_call *call, const uint8_t *bytes);

/* Store an entry of another store at its position, and deliver.
 * ret: 0 stored, 1 it was there, 2 entries before it are missing, 3 the log is of another epoch, or there is none */
RW_EXPORT int32_t rw_core_log_put(struct rw_core *core, struct rw_log_call *call, const uint8_t *bytes);

/* The log begins anew: what comes next comes after this position; has_position 1: it is followed from here on, which a
 * core with RW_CORE_FOLLOWS_LOGS wants before anybody is attached. ret: RW_OK */
RW_EXPORT int32_t rw_core_log_reset(struct rw_core *core, const struct rw_log_call *call, const uint8_t *bytes);

/* Whether the log is followed, and nothing else. ret: RW_OK, RW_ERR_STALE there is no such log */
RW_EXPORT int32_t rw_core_log_follow(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes,
                                     uint32_t follows);

/* Into out[0..bytes): u64 epoch, first offset kept, last offset, u32 is_followed, u32 count of entries; then so many: u64
 * offset, u64 ms since 1970, u32 flags, u32 bytes, and the payload, filled up to a multiple of 8.
 * in:  epoch 0: any; another one than the log's: no entries. after: forwards from offset after + 1; backwards (reverse 1)
 *      from after - 1 down, 0 from the newest. max: entries, at most 65536; 0: the end alone
 * ret: bytes written, at least 32; fewer entries than asked for when the next has no room: ask again from there; a
 *      negated count of bytes, below -65536, when not even one has; RW_ERR_STALE there is no such log */
RW_EXPORT int64_t rw_core_log_read(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint64_t epoch,
                                   uint64_t after, uint32_t max, uint32_t reverse, uint8_t *out, uint64_t bytes);

/* Subscribe a connection to a logged topic after what it has had, see struct rw_log_call. out: epoch, offset, result.
 * ret: 1 subscribed now, 0 it was already (then it gets nothing from here, and the position is where it stands), RW_ERR_STALE
 *      the connection has ended or begun to, RW_ERR_FULL a limit of topics, RW_ERR_BEHIND, RW_ERR_UNFOLLOWED, -ENOMEM */
RW_EXPORT int32_t rw_core_attach(struct rw_core *core, uint32_t slot, uint32_t generation, struct rw_log_call *call,
                                 const uint8_t *bytes);

/* A message of a topic to one connection in its dialect; epoch 0: of a direct topic.
 * ret: RW_OK, RW_ERR_FULL it has no room now: nothing was sent, and it drains, RW_ERR_STALE */
RW_EXPORT int32_t rw_core_send_logged(struct rw_core *core, uint32_t slot, uint32_t generation,
                                      const struct rw_log_call *call, const uint8_t *bytes);

/* The host hears a topic: TOPIC events. Of a logged one without loss, from its present end or after `since`; of a direct
 * one as far as a bounded queue takes it. `since` of epoch 0: from its end, and it is a logged one: a log that is not
 * there begins (unless it is a copy of another store's), so that nothing is missed of what is said first.
 * ret: 1 from now on, 0 it did already, RW_ERR_FULL, RW_ERR_INVALID, -ENOMEM. release: 1 it did, 0 it did not */
RW_EXPORT int32_t rw_core_hold(struct rw_core *core, const struct rw_log_call *call, const uint8_t *bytes);
RW_EXPORT int32_t rw_core_release(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes);

/* Connections of this worker that are subscribed to a topic, as pairs of u32: slot, generation. ret: how many there are;
 * out[0..capacity) holds the first of them */
RW_EXPORT uint32_t rw_core_members(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes,
                                   uint32_t *out, uint32_t capacity);

/* Topics with connections on this worker whose names begin with a prefix, into out[0..bytes): for each a u16 length in
 * host order and the name; at most `max`.
 * in:  *cursor: 0 at first; out: where to go on, 0: that was all
 * ret: bytes written */
RW_EXPORT uint32_t rw_core_topic_names(const struct rw_core *core, const uint8_t *prefix, uint32_t prefix_bytes,
                                       uint32_t max, uint32_t *cursor, uint8_t *out, uint32_t bytes);

/* ------------------------------------------------------------------ for the supervisor */

/* Create the shared memory of a node: counters, interest, one message ring per ordered pair of workers, and what topics
 * remember.
 * in:  worker_count 1..512, places of workers: of two generations when a node is to replace its workers without a gap;
 * ring_bytes per pair, a power of two >= 65536 (0: default); host_layout: a number of the host's for what it keeps in
 * rw_stats.host_counters and host_gauges: who comes with another one is not let in; state_bytes: of logs and members,
 * 8 MiB to 256 GiB, which cost nothing until used; 0: topics of this node remember nothing
 * ret: a memfd (without FD_CLOEXEC), or a negated errno */
RW_EXPORT int32_t rw_shm_create(uint32_t worker_count, uint32_t ring_bytes, uint32_t host_layout, uint64_t state_bytes);

/* Map the shared memory `fd`. ret: address, or 0: it is none, or was made by another version or for another host_layout */
RW_EXPORT uint64_t rw_shm_map(int32_t fd, uint32_t host_layout);
RW_EXPORT void rw_shm_unmap(uint64_t address);

/* Address of the counters of a worker within a mapping. */
RW_EXPORT uint64_t rw_shm_stats(uint64_t address, uint32_t worker_index);

/* Which workers own topics: those with index first..first+count-1, and how often that has changed. Written by the
 * supervisor, read by every worker at any time as one u64: generation << 32 | first << 16 | count; 0: not set yet. */
RW_EXPORT void rw_shm_view_set(uint64_t address, uint32_t generation, uint32_t first, uint32_t count);

/* The epoch of a worker: odd while a process lives there, and another one for each. ret: 0: none has lived there, or
 * index out of range */
RW_EXPORT uint32_t rw_shm_epoch(uint64_t address, uint32_t worker_index);

/* Say that a worker is gone (the supervisor saw it exit): the others stop writing to it, find what it had still written
 * to them in their next turn (which this does not begin: wake them by other means), its interest is withdrawn and its
 * gauges go to zero. Before its successor starts, which announces itself in rw_core_create(). */
RW_EXPORT void rw_shm_worker_gone(uint64_t address, uint32_t worker_index);

/* What topics of a node take of the memory that is theirs; read without a lock, so the numbers need not fit each other. */
struct rw_topic_memory {
    uint64_t bytes;      /* for logs and members, in all */
    uint64_t used_bytes; /* of them */
    uint64_t logs;
    /* since the node began: */
    uint64_t evicted;   /* logs that were dropped for want of room; they begin new epochs */
    uint64_t recovered; /* times that a part of it was found with a holder that had died in the middle of a change */
    uint64_t damaged;   /* times that a part of it (a 64th) was emptied because something in it could not be */
};
/* ret: RW_OK; RW_ERR_UNSUPPORTED: topics of this node remember nothing; RW_ERR_ABI: no such mapping */
RW_EXPORT int32_t rw_shm_topic_memory(uint64_t address, struct rw_topic_memory *out);

/* A listening socket (SO_REUSEPORT for TCP, TCP_NODELAY, non-blocking, no FD_CLOEXEC).
 * in:  host: an IPv4 or IPv6 address, or the path of a Unix socket when port is 0xFFFFFFFF (a stale socket file is
 * replaced, a live
 *      one is EADDRINUSE); port 0: the kernel chooses; flags: enum rw_listen_flag
 * ret: the descriptor, or a negated errno */
RW_EXPORT int32_t rw_listen_socket(const char *host, uint32_t port, uint32_t backlog, uint32_t flags);

enum rw_listen_flag {
    RW_LISTEN_IPV6_ONLY = 1u << 0,
    RW_LISTEN_EXCLUSIVE = 1u << 1, /* no SO_REUSEPORT: refuse when anyone else listens */
    /* take the address only; rw_listen_backlog() begins: until then nobody connects, so closing it cuts nobody off */
    RW_LISTEN_LATER = 1u << 2,
};

/* A connection to the listening Unix socket `listening_fd`, for a process that is its own client.
 * ret: a non-blocking descriptor with FD_CLOEXEC, the caller's to close; or a negated errno: EAFNOSUPPORT when it is no
 * Unix socket, EAGAIN when its queue is full */
RW_EXPORT int32_t rw_connect_local(int32_t listening_fd);

/* Two connected sockets in `fds`, such as for what a child writes and who reads it: blocking, with FD_CLOEXEC, the caller's to close.
 * ret: 0 or a negated errno. unix(7) */
RW_EXPORT int32_t rw_socket_pair(int32_t fds[2]);

/* The port a listening socket is bound to; 0 for a Unix socket. */
RW_EXPORT int32_t rw_socket_port(int32_t fd);

/* A non-blocking eventfd without FD_CLOEXEC. */
RW_EXPORT int32_t rw_eventfd_create(void);
RW_EXPORT void rw_eventfd_signal(int32_t fd);
RW_EXPORT void rw_fd_close(int32_t fd);
/* Close a listening socket so that it listens no more even while somebody, such as an accept that is being cancelled,
 * still holds it. */
RW_EXPORT void rw_listen_close(int32_t fd);

/* Pin the calling process to one CPU. ret: RW_OK or a negated errno */
RW_EXPORT int32_t rw_affinity_set(uint32_t cpu);

/* Have the kernel send `signal` to the calling process when its parent ends, or, exactly, when the thread ends that has
 * started it (PR_SET_PDEATHSIG(2const)). A parent that has ended already is not noticed: compare getppid(2) afterwards.
 * ret: RW_OK or a negated errno */
RW_EXPORT int32_t rw_end_with_parent(int32_t signal);

/* Send `text` to a service manager, as a datagram to the Unix socket at `path`; one that begins with '@' is abstract.
 * Does not wait.
 * ret: RW_OK or a negated errno; -EAGAIN: the socket is full. src: sd_notify(3) */
RW_EXPORT int32_t rw_service_notify(const char *path, const char *text);

/* Change how many connections may wait in the accept queue of a listening socket (listen(2)). ret: RW_OK or a negated
 * errno */
RW_EXPORT int32_t rw_listen_backlog(int32_t fd, uint32_t backlog);

/* The CPUs this process may run on, as a list of numbers in out[0..capacity). ret: how many there are */
RW_EXPORT int32_t rw_affinity_get(uint32_t *out, uint32_t capacity);

#endif
