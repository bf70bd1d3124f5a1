/* HTTP/1.1: from one request to the next, see http.h. */
#include "http1/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connection/client.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/listener.h"
#include "connection/tls.h"
#include "connection/unfinished.h"
#include "connection/work.h"

#define PIPELINE_HOLD_BYTES 16384u

/* ------------------------------------------------------------------ between requests */

static void begin_request(struct rw_slot *slot, uint32_t keep_flags) {
    struct rw_slot_http *http = rw_http_of(slot);
    /* What a header has told of the client holds until the next head: the host may ask while it writes its log. */
    const struct rw_exchange before = http->exchange;
    *http = (struct rw_slot_http){0};
    http->exchange.request = before.request;
    http->exchange.flags = keep_flags;
    http->exchange.forwarded_bytes = before.forwarded_bytes;
    memcpy(http->exchange.forwarded_address, before.forwarded_address, sizeof before.forwarded_address);
}

static void open(struct rw_core *core, struct rw_slot *slot) {
    RW_GAUGE(core, connections_http, core->stats->connections_http + 1);
    begin_request(slot, RW_X_FIRST);
    slot->deadline_ms = core->now_ms + core->limits.head_timeout_ms;
    rw_connection_arm_timer(core, slot, rw_http_due_ms(core, slot));
}

void rw_http_let_go(struct rw_core *core, struct rw_slot *slot) {
    rw_unfinished_remove(core, rw_exchange_of(slot)->body_held);
    rw_exchange_of(slot)->body_held = 0;
}

void rw_http_next_request(struct rw_core *core, struct rw_slot *slot) {
    begin_request(slot, 0);
    slot->state.end_seen = 0;
    rw_client_on_next_request(core, slot);
    slot->deadline_ms = core->now_ms + core->limits.keep_alive_timeout_ms;
    /* A peer that has half-closed meanwhile sends no more requests: serving the ready list ends its connection. */
    if (slot->input_bytes || slot->state.peer_closed) {
        rw_connection_mark_ready(core, slot);
    } else {
        rw_connection_arm_timer(core, slot, rw_http_due_ms(core, slot));
    }
    rw_http_update_pause(core, slot);
}

void rw_http_response_complete(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    rw_http_events_end(core, slot);
    exchange->flags |= RW_X_COMPLETE;
    rw_http_let_go(core, slot);
    /* A refused handshake is no connection of its client's, however long this one lingers. */
    if (exchange->flags & RW_X_UPGRADE) rw_client_on_next_request(core, slot);
    /* A client that was not told of the end may be sending its next request: that one is answered with the end. */
    if (!(exchange->flags & RW_X_KEEP_ALIVE) || (core->drain.active && !core->drain.idle_ms)) {
        rw_connection_finish(core, slot);
    } else if (exchange->phase == RW_HTTP_RECEIVED) {
        rw_http_next_request(core, slot);
    } else {
        /* The host did not want the body: it is read and thrown away, so that the connection can be used again. */
        exchange->body_unacked = 0;
        exchange->body_mark = exchange->body_received;
        exchange->body_slow = 0;
        rw_http_update_pause(core, slot);
        if (slot->input_bytes) rw_connection_mark_ready(core, slot);
    }
}

int rw_http_body_waits(const struct rw_core *core, const struct rw_slot *slot) {
    const struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->phase != RW_HTTP_BODY || exchange->flags & RW_X_COMPLETE || exchange->body_unacked == 0) return 0;
    if (exchange->body_unacked >= core->limits.body_window_bytes) return 1;
    /* Past the budget the window is closed: what the host takes, it may let go of. When it has taken all of it there is
     * nothing to wait for. */
    return !rw_unfinished_admits(core, exchange->body_held, RW_HTTP_BODY_PIECE_BYTES_MAX);
}

void rw_http_update_pause(struct rw_core *core, struct rw_slot *slot) {
    const struct rw_exchange *exchange = rw_exchange_of(slot);
    int window_full = rw_http_body_waits(core, slot);
    int pipeline_full = exchange->phase == RW_HTTP_RECEIVED && slot->input_bytes >= PIPELINE_HOLD_BYTES;
    int backlog_full = exchange->phase <= RW_HTTP_HEAD && slot->state.ready && slot->input_bytes >= PIPELINE_HOLD_BYTES;
    unsigned paused = window_full || pipeline_full || backlog_full;
    if (slot->state.paused_by_core == paused) return;
    slot->state.paused_by_core = paused & 1u;
    /* From here on only the clock asks whether the peer is still there. */
    if (paused) rw_connection_arm_timer(core, slot, core->now_ms + core->limits.body_timeout_ms);
    else slot->last_input_ms = core->now_ms; /* nothing was read, so it was not silent */
    if (slot->state.phase == RW_PHASE_OPEN) rw_connection_update_receive(core, slot);
}

/* ------------------------------------------------------------------ refusing */

/* Header lines beside those of every refusal. */
static const char *lines_of(uint32_t status) {
    switch (status) {
        case 426:
            return "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"; /* RFC 9110 §7.8 */
        case 429: return "Retry-After: 10\r\n"; /* a connection of that address must end first */
        case 503: return "Retry-After: 1\r\n";
        default: return "";
    }
}

void rw_http_refuse(struct rw_core *core, struct rw_slot *slot, uint32_t status) {
    rw_http_refuse_because(core, slot, status, NULL);
}

void rw_http_refuse_because(struct rw_core *core, struct rw_slot *slot, uint32_t status, const char *why) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    RW_COUNT(core, http_errors, 1);
    if (exchange->flags & RW_X_BEGUN && !(exchange->flags & RW_X_COMPLETE)) {
        /* A response is under way: a second status would be read as its body. */
        rw_exchange_note_cause(exchange, RW_ABORT_REFUSED);
        exchange->abort_status = (uint16_t)status;
        rw_connection_terminate(core, slot);
        return;
    }
    if (!(exchange->flags & RW_X_BEGUN)) rw_http_write_refusal(core, slot, status, lines_of(status), why);
    if (rw_exchange_awaits_response(exchange)) {
        exchange->flags |= RW_X_ANSWERED_BY_CORE;
        rw_exchange_note_cause(exchange, RW_ABORT_REFUSED);
        exchange->abort_status = (uint16_t)status;
        (void)rw_http_tell_closed(core, slot);
    }
    rw_connection_finish(core, slot);
}

int rw_http_tell_closed(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_awaits_response(exchange) || exchange->flags & RW_X_ABORT_TOLD) return 1;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_ABORT, 0, NULL);
    if (!event) return 0;
    rw_http_let_go(core, slot);
    event->arg0 = (uint32_t)exchange->abort_cause << 16 | exchange->abort_status;
    event->request = exchange->request;
    exchange->flags |= RW_X_ABORT_TOLD;
    if (exchange->abort_cause == RW_ABORT_PEER_GONE || exchange->abort_cause == RW_ABORT_WRITE_TIMEOUT)
        RW_COUNT(core, http_aborts, 1);
    return 1;
}

/* ------------------------------------------------------------------ input */

static size_t take(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    size_t at = 0;
    while (at < len && slot->state.phase == RW_PHASE_OPEN && exchange->phase != RW_HTTP_RECEIVED) {
        if (rw_work_is_spent(core)) {
            rw_connection_mark_ready(core, slot);
            break;
        }
        rw_work_charge(core, 1);
        size_t used;
        if (exchange->phase != RW_HTTP_BODY) {
            used = rw_http_on_head(core, slot, bytes + at, len - at);
        } else if (rw_http_body_waits(core, slot)) {
            break;
        } else {
            used = rw_http_on_body(core, slot, bytes + at, len - at);
        }
        if (used == 0) break;
        at += used;
    }
    return slot->state.phase == RW_PHASE_OPEN ? at : len;
}

static void input(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len) {
    size_t consumed = take(core, slot, bytes, len);
    if (slot->state.phase != RW_PHASE_OPEN) return;
    if (rw_connection_stash(core, slot, bytes + consumed, len - consumed) == RW_OK) rw_http_update_pause(core, slot);
}

static void serve_notices(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->flags & RW_X_DRAIN_DUE) {
        struct rw_event *event = rw_event_add(core, slot, RW_EVENT_RESPONSE_DRAIN, 0, NULL);
        if (event) {
            event->request = exchange->request;
            exchange->flags &= ~(uint32_t)RW_X_DRAIN_DUE;
        } else {
            rw_connection_mark_ready(core, slot);
        }
    }
    if (exchange->flags & RW_X_CONTINUE) {
        exchange->flags &= ~(uint32_t)RW_X_CONTINUE;
        /* A body that came without waiting needs no invitation. */
        if (!(exchange->flags & RW_X_BEGUN) && exchange->body_received == 0 && !slot->input_bytes)
            rw_http_write_continue(core, slot);
    }
}

static void serve(struct rw_core *core, struct rw_slot *slot) {
    serve_notices(core, slot);
    if (slot->state.paused_by_host || !slot->input_bytes) return;
    size_t consumed = take(core, slot, rw_connection_input(core, slot), slot->input_bytes);
    if (slot->state.phase != RW_PHASE_OPEN) return;
    rw_connection_unstash(core, slot, (uint32_t)consumed);
    rw_http_update_pause(core, slot);
}

static void drained(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!(exchange->flags & RW_X_DRAIN_WANTED)) return;
    exchange->flags = (exchange->flags & ~(uint32_t)RW_X_DRAIN_WANTED) | RW_X_DRAIN_DUE;
    rw_connection_mark_ready(core, slot);
}

static void peer_closed(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    /* Input that waits for the host was sent before the end of stream: BODY_ACK or RESUME go on with it. */
    if (slot->input_bytes && (slot->state.paused_by_host || rw_http_body_waits(core, slot))) return;
    if (exchange->phase == RW_HTTP_RECEIVED && rw_listener_is_of(core, slot) &&
        core->listeners[slot->listener].flags & RW_LISTENER_ABORT_AT_FIN) {
        /* The host may have been told of the request in this very turn. */
        if (slot->state.end_seen) {
            rw_connection_terminate(core, slot);
        } else {
            slot->state.end_seen = 1;
            rw_connection_mark_ready(core, slot);
        }
        return;
    }
    if (exchange->phase == RW_HTTP_RECEIVED) {
        /* The whole request has come: the peer may only have closed its sending side and wait for the answer. */
        slot->deadline_ms = core->now_ms + RW_HTTP_HALF_CLOSED_GRACE_MS;
        rw_connection_arm_timer(core, slot, slot->deadline_ms);
        return;
    }
    if (rw_exchange_awaits_response(exchange) || slot->out_bytes == 0) {
        rw_connection_terminate(core, slot);
    } else {
        rw_connection_finish(core, slot);
    }
}

static int drain(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    int at_once = core->drain.idle_ms == 0;
    if (rw_exchange_is_events(exchange)) return 1;
    /* A response that has begun without the word `close` does not end the connection, unless that is to end at once. */
    if (at_once || !(exchange->flags & RW_X_BEGUN)) exchange->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
    /* Whoever has said the first words of TLS has a request to make. */
    int comes = slot->input_bytes || (slot->tls && rw_tls_is_shaking_hands(slot->tls));
    if (exchange->phase != RW_HTTP_IDLE || comes) return 0;
    if (at_once) rw_connection_finish(core, slot);
    /* also when it is due: what has come by then is read first */
    else rw_connection_arm_timer(core, slot, rw_http_due_ms(core, slot));
    return 0;
}

/* ------------------------------------------------------------------ the table */

static void resumed(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->phase == RW_HTTP_BODY) rw_http_await_body(core, slot);
}

static int owes_answer(const struct rw_slot *slot) { return rw_exchange_of(slot)->phase >= RW_HTTP_BODY; }

static void refuse_input(struct rw_core *core, struct rw_slot *slot) {
    RW_COUNT(core, refused_unfinished, 1);
    rw_http_refuse(core, slot, 503);
}

static uint32_t client_address(const struct rw_slot *slot, uint8_t *out) {
    const struct rw_exchange *exchange = rw_exchange_of(slot);
    memcpy(out, exchange->forwarded_address, exchange->forwarded_bytes);
    return exchange->forwarded_bytes;
}

static void note_end(struct rw_slot *slot, enum rw_end_cause cause) {
    static const uint8_t causes[] = {[RW_END_PEER_GONE] = RW_ABORT_PEER_GONE,
                                     [RW_END_BY_HOST] = RW_ABORT_BY_HOST,
                                     [RW_END_NO_MEMORY] = RW_ABORT_NO_MEMORY,
                                     [RW_END_WRITE_TIMEOUT] = RW_ABORT_WRITE_TIMEOUT};
    rw_exchange_note_cause(rw_exchange_of(slot), (enum rw_abort_cause)causes[cause]);
}

static void release(struct rw_core *core, struct rw_slot *slot) {
    rw_http_events_end(core, slot);
    rw_http_let_go(core, slot);
    RW_GAUGE(core, connections_http, core->stats->connections_http - 1);
}

static const char *const alpn_names[] = {"http/1.1", "http/1.0", NULL};

const struct rw_protocol rw_http_protocol = {.alpn = alpn_names,
                                             .gathers_output = 1,
                                             .open = open,
                                             .input = input,
                                             .serve = serve,
                                             .drained = drained,
                                             .owes_answer = owes_answer,
                                             .refuse_input = refuse_input,
                                             .command = rw_http_command,
                                             .resumed = resumed,
                                             .client_address = client_address,
                                             .deliver = rw_http_events_deliver,
                                             .hears = rw_http_events_hears,
                                             .hears_raw = rw_http_events_hears_raw,
                                             .topics = rw_http_events_topics,
                                             .timer = rw_http_timer,
                                             .peer_closed = peer_closed,
                                             .drain = drain,
                                             .drain_now = rw_http_events_drain_now,
                                             .note_end = note_end,
                                             .tell_closed = rw_http_tell_closed,
                                             .release = release};

int32_t rw_http_create(struct rw_core *core) {
    core->http = calloc(1, sizeof *core->http);
    if (!core->http) return -ENOMEM;
    core->http->limits = (struct rw_http_limits){.max_head_bytes = core->limits.max_head_bytes,
                                                 .max_target_bytes = core->limits.max_target_bytes,
                                                 .max_header_count = core->limits.max_header_count};
    return RW_OK;
}

void rw_http_destroy(struct rw_core *core) { free(core->http); }
