/* HTTP/1.1 on a connection: one request at a time, in order (RFC 9112).
 *
 * Role: bytes → request events, response commands → bytes. Up: event_batch, command_batch. Down: http_parser,
 * connection.
 *
 * A pipelined request waits in the input buffer until the response before it is complete; past PIPELINE_HOLD_BYTES of
 * such input receive is paused, so that the queue is bounded and order is kept by construction. Split: http.c goes from request
 * to request, http_head.c and http_body.c receive, http_response.c sends, http_events.c has streams of events, http_clock.c
 * the deadlines. */
#ifndef RW_HTTP_H
#define RW_HTTP_H

#include "connection/protocol.h"
#include "http1/exchange.h"
#include "http1/http_parser.h"

struct rw_slot_http {
    struct rw_exchange exchange; /* the present one, or the last */
    struct rw_chunk_decoder decoder;
    uint64_t body_remaining; /* request body bytes to come (sized) */
    uint32_t scanned;        /* of the head, see rw_http_parse_head */
};
static_assert(sizeof(struct rw_slot_http) <= RW_SLOT_OWN_BYTES, "it fits the slot");

static inline struct rw_slot_http *rw_http_of(const struct rw_slot *slot) { return (struct rw_slot_http *)slot->own; }
static inline struct rw_exchange *rw_exchange_of(const struct rw_slot *slot) { return &rw_http_of(slot)->exchange; }

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

/* ------------------------------------------------------------------ http.c */

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

/* What was answered is over: the next request begins, or is awaited. */
void rw_http_next_request(struct rw_core *core, struct rw_slot *slot);

/* ------------------------------------------------------------------ http_head.c, http_body.c */

#define RW_HTTP_BODY_PIECE_BYTES_MAX 65536u

/* Take a head from bytes[0..len), or a part of the body. ret: bytes taken; 0: nothing more for now, or the connection is
 * at its end */
size_t rw_http_on_head(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len);
size_t rw_http_on_body(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len);

/* ------------------------------------------------------------------ http_clock.c */

/* A peer that has half-closed is looked at so often: see http_clock.c. */
#define RW_HTTP_HALF_CLOSED_GRACE_MS 1000u

/* A part of the body is awaited from now on, and what has come counts as progress. */
void rw_http_await_body(struct rw_core *core, struct rw_slot *slot);
/* When the clock has something to say: at the deadline, or sooner when a drain lets connections be idle for less
 * time. */
uint32_t rw_http_due_ms(const struct rw_core *core, const struct rw_slot *slot);
/* rw_protocol.timer */
void rw_http_timer(struct rw_core *core, struct rw_slot *slot);

/* ------------------------------------------------------------------ http_events.c */

/* The response that has just begun is one, see RW_RESPOND_EVENTS. */
void rw_http_events_begin(struct rw_core *core, struct rw_slot *slot, uint32_t quiet_ms);
/* It is complete, or breaks off. */
void rw_http_events_end(struct rw_core *core, struct rw_slot *slot);
/* An event of the host's own, see RW_COMMAND_RESPOND_EVENT. ret: RW_OK or enum rw_result */
int32_t rw_http_events_say(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes);
/* See RW_COMMAND_RESPOND_PLACES. ret: RW_OK or enum rw_result */
int32_t rw_http_events_places(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes);
/* rw_protocol.deliver, .hears, .hears_raw, .topics */
uint32_t rw_http_events_deliver(struct rw_core *core, struct rw_slot *slot, struct rw_publication *publication);
int rw_http_events_hears(const struct rw_slot *slot);
int rw_http_events_hears_raw(const struct rw_core *core, const struct rw_slot *slot);
uint32_t *rw_http_events_topics(struct rw_slot *slot);
/* The clock of one: says something when nothing was said for too long. */
void rw_http_events_timer(struct rw_core *core, struct rw_slot *slot);
/* rw_protocol.drain_now */
int rw_http_events_drain_now(struct rw_core *core, struct rw_slot *slot);

/* ------------------------------------------------------------------ http_response.c: commands */

/* The end of a streamed response that has all of its body. */
void rw_http_end_response(struct rw_core *core, struct rw_slot *slot);

/* rw_protocol.command */
int32_t rw_http_command(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                        const uint8_t *data, uint64_t bytes);
/* A whole response of the core's own, text/plain, closing. extra: more header lines or ""; why: behind the reason
 * phrase in the body, or NULL. */
void rw_http_write_refusal(struct rw_core *core, struct rw_slot *slot, uint32_t status, const char *extra,
                           const char *why);
void rw_http_write_continue(struct rw_core *core, struct rw_slot *slot);

#endif
