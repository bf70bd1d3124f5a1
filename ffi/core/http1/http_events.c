/* HTTP/1.1: a response that is a stream of events (text/event-stream, WHATWG HTML §9.2), see http.h.
 *
 * Role: from its head to its end. Up: http_response.c, http_clock.c. What is said on it comes from topics
 * (ws/publish.c), which frames for all streams at once, and from the host (RESPOND_CHUNK).
 *
 * It goes on for hours, and a client that has left without a word is known only by what it does not acknowledge: so it
 * says something from time to time, and the kernel gives up who does not take that within the write timeout
 * (TCP_USER_TIMEOUT, tcp(7)). */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "connection/connection.h"
#include "connection/event_batch.h"
#include "http1/http.h"

/* A line that begins with a colon is thrown away by whoever reads events (§9.2.6). */
static const char comment_chunk[] = "3\r\n:\n\n\r\n";
#define COMMENT_AT 3u /* where it stands in the chunk */
#define COMMENT_BYTES 3u

void rw_http_events_begin(struct rw_core *core, struct rw_slot *slot, uint32_t quiet_ms) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    const uint32_t unheard_ms = core->limits.write_timeout_ms;
    exchange->flags |= RW_X_EVENTS;
    exchange->quiet_ms = quiet_ms;
    RW_GAUGE(core, event_streams, core->stats->event_streams + 1);
    /* Of a Unix socket it is refused, and not needed: its peer cannot be away. */
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unheard_ms, sizeof unheard_ms);
    if (quiet_ms) rw_connection_arm_timer(core, slot, core->now_ms + quiet_ms);
}

void rw_http_events_end(struct rw_core *core, struct rw_slot *slot) {
    if (!rw_exchange_is_events(rw_exchange_of(slot))) return;
    RW_GAUGE(core, event_streams, core->stats->event_streams - 1);
    /* The next request of the connection hears nothing of them. */
    rw_topics_drop(core->topics, rw_core_index(core, slot), &slot->subscriptions);
}

static void say_something(struct rw_core *core, struct rw_slot *slot) {
    int chunked = (rw_exchange_of(slot)->flags & RW_X_CHUNKED_OUT) != 0;
    uint32_t bytes = chunked ? sizeof comment_chunk - 1 : COMMENT_BYTES;
    uint8_t *out = rw_outbox_reserve(&core->outbox, slot, bytes);
    if (!out) return; /* memory is short: the clock comes back */
    memcpy(out, comment_chunk + (chunked ? 0 : COMMENT_AT), bytes);
    rw_connection_mark_dirty(core, slot);
}

void rw_http_events_timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_is_events(exchange) || !exchange->quiet_ms || slot->state.phase != RW_PHASE_OPEN) return;
    uint32_t quiet = core->now_ms - slot->last_output_ms;
    uint32_t wait = exchange->quiet_ms;
    if (quiet < exchange->quiet_ms) {
        wait -= quiet;
    } else if (!rw_connection_has_output(slot)) {
        say_something(core, slot);
    }
    rw_connection_arm_timer(core, slot, core->now_ms + wait);
}

int rw_http_events_drain_now(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_is_events(exchange)) return 0;
    rw_exchange_note_cause(exchange, RW_ABORT_DRAINED);
    /* With a full batch it is not told, nor ended: the drain comes back. */
    if (!rw_http_tell_closed(core, slot)) return 0;
    /* Not on this connection: the client is to come back by a new one, which somebody else accepts. */
    exchange->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
    rw_http_end_response(core, slot);
    return 1;
}
