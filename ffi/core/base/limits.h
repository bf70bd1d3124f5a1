/* Every limit of the core in one place, with its arithmetic. Defaults that a config may change end in _DEFAULT. */
#ifndef RW_LIMITS_H
#define RW_LIMITS_H

#include <stdint.h>

#define RW_CACHE_LINE_BYTES 64u
#define RW_SLOT_BYTES 256u /* 4 cache lines: a million connections cost 256 MB */

/* user_data keeps 24 bits of generation and 32 of index; the pool itself is bounded so that an index fits 24 bits. */
#define RW_CONNECTIONS_MAX (1u << 24)
#define RW_CONNECTIONS_DEFAULT (1u << 20)
#define RW_LISTENERS_MAX 256u
#define RW_BEHAVIORS_MAX 256u
#define RW_WORKERS_MAX 512u /* places: two generations of 256 */

#define RW_RING_ENTRIES_DEFAULT 4096u
#define RW_RECV_BUFFERS_DEFAULT 512u
/* 512 * 8 KiB = 4 MiB a worker, touched only under load (the ring hands out warm ones last-in first-out where it
 * can) */
#define RW_RECV_BUFFER_BYTES_DEFAULT 8192u

/* One event batch: 4096 records of 32 bytes, and 1 MiB of payload that is written from its start every turn. */
#define RW_EVENTS_CAPACITY 4096u
#define RW_PAYLOAD_BYTES (1u << 20)
/* Behind the payload, in the same mapping: for the host, which copies short payloads there under objects that it uses
 * again. Nothing here writes to it, but commands may name it as they name the payload. */
#define RW_LEND_BYTES (1u << 20)
#define RW_COMMANDS_CAPACITY 4096u
#define RW_DATA_BYTES (1u << 20)
/* What an event counts for beside its payload where a host says how much it takes (RW_COMMAND_RESUME): about what it
 * costs to keep it. */
#define RW_WINDOW_EVENT_BYTES 256u

#define RW_EVENT_LARGE_BYTES 65536u /* payloads above this are handed over in place, not copied into the payload area */
/* Input that waits for turns. Past it few receive buffers go round, so that no socket brings more than a little before
 * its receive has been stopped. */
#define RW_KEPT_BYTES_HIGH (4u << 20)
#define RW_RECV_BUFFERS_LEAST 8u
#define RW_HELD_BYTES_MAX \
    (4u << 20) /* of connections' payloads in place, in one batch; a single larger one goes all the same */

#define RW_HEAD_BYTES_DEFAULT 16384u
#define RW_HEAD_BYTES_MAX 65535u /* lengths within a head are u16 */
#define RW_TARGET_BYTES_DEFAULT 8192u
#define RW_HEADER_COUNT_DEFAULT 100u
#define RW_HEADER_COUNT_MAX 256u
#define RW_BODY_BYTES_DEFAULT ((uint64_t)64 << 20)
#define RW_BODY_WINDOW_BYTES_DEFAULT (256u << 10)
#define RW_BODY_WINDOW_BYTES_MAX (1u << 30)
#define RW_RESPONSE_HIGH_WATER_BYTES_DEFAULT (256u << 10)
#define RW_RESPOND_TRY_WINDOW_BYTES 16384u /* of RESPOND_TRY, queued on top of what the kernel takes at once */
#define RW_CHUNK_EXTENSION_BYTES_MAX 1024u /* per message; more is an attack (RFC 9112 §7.1.1) */
#define RW_TRAILER_BYTES_MAX 8192u

#define RW_UNFINISHED_KIB_DEFAULT (256u << 10) /* 256 MiB; the host knows how much memory there is and says so */

#define RW_HEAD_TIMEOUT_MS_DEFAULT 10000u
#define RW_BODY_TIMEOUT_MS_DEFAULT 30000u
#define RW_KEEP_ALIVE_TIMEOUT_MS_DEFAULT 75000u
#define RW_WRITE_TIMEOUT_MS_DEFAULT 30000u
#define RW_LINGER_TIMEOUT_MS_DEFAULT 2000u
#define RW_MIN_BYTES_PER_SECOND_DEFAULT 1024u
#define RW_UNREAD_WAIT_MS_MAX 86400000u /* however much is unread: far from where a clock of 32 bits wraps */

#define RW_WS_CONTROL_BYTES_MAX 125u        /* RFC 6455 §5.5 */
#define RW_WS_HEADER_BYTES_MAX 14u          /* 2 + 8 length + 4 mask */
#define RW_WS_CONTROL_QUEUE_BYTES_MAX 4096u /* pongs queued to one socket, at most */

#define RW_WS_RATE_BURST_MS 2000u /* what a rate allows in so long may come at once */
#define RW_WS_SEND_AT_ONCE_BYTES \
    16384u                     /* of what the host sends with RW_BEHAVIOR_LIMIT_BEFORE, before it meets the kernel */
#define RW_SEND_IOVECS_MAX 16u /* segments of one send */
#define RW_TIMER_TICK_MS 64u

#define RW_TOPIC_BYTES_MAX 1024u
#define RW_EVENT_PLACES_MAX 1000u /* topics of one stream of events whose events name them: an id of 37 KB */
#define RW_TOPICS_PER_SOCKET_DEFAULT 1000u
#define RW_TOPICS_DEFAULT (1u << 20) /* of a worker: 200 bytes each with names of 50, 1.2 KiB with the longest */
#define RW_NODE_RING_BYTES_DEFAULT (1u << 20)
#define RW_NODE_OUTBOX_BYTES_MAX (16u << 20) /* per receiving worker; past it messages are dropped and counted */
#define RW_MAIL_HELD_BYTES_MAX \
    (16u << 20) /* of large mail, handed to the host in one batch; a single larger one goes all the same */
#define RW_INTEREST_CELLS (1u << 18) /* u16 counters per worker: 512 KiB, touched where topics fall */

/* Counters of addresses per worker, for max_connections_per_ip: 4 rows of u16, 2 MiB, untouched without a limit. With
 * 100,000 addresses on a node one in a hundred is counted one too many, with a million the typical error is two
 * (ip_limit.h). */
#define RW_IP_ROWS 4u
#define RW_IP_CELLS (1u << 18)
#define RW_IP_CONNECTIONS_MAX 65534u /* below what a cell holds */

#endif
