/* HTTP/1.1, receiving side, see http.h. */
#include "http1/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "connection/client.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/listener.h"
#include "connection/tls.h"
#include "connection/unfinished.h"
#include "connection/work.h"
#include "http1/forwarded.h"
#include "ws/deflate_negotiate.h"
#include "ws/ws_handshake.h"

#define PIPELINE_HOLD_BYTES 16384u
#define BODY_PIECE_BYTES_MAX 65536u
/* A body that gets on by less than this within so many body timeouts counts as stalled, too: a byte now and then does
 * not keep it alive. */
#define BODY_PROGRESS_BYTES 1024u
#define BODY_PROGRESS_TIMEOUTS 4u
/* Past this much unread body it is cheaper to close than to read on for the next request. */
#define DISCARD_BYTES_MAX (1u << 20)
/* The FIN of a peer that has left looks like that of one that still reads. In the middle of a response it counts as
 * gone without any output for so long; with output, its reset tells. In front of a response the host decides, and
 * probes bring the reset: a system forgets a connection that nobody has any more (a minute after, tcp_fin_timeout in
 * tcp(7)), and answers what comes for it with one. */
#define HALF_CLOSED_GRACE_MS 1000u
#define PROBE_SECONDS 10
#define PROBES_LOST_MAX 3

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

/* A part of the body is awaited from now on, and what has come counts as progress. */
static void await_body(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    exchange->body_mark = exchange->body_received;
    exchange->body_slow = 0;
    slot->last_input_ms = core->now_ms; /* its silence begins now */
    slot->deadline_ms = core->now_ms + core->limits.body_timeout_ms;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
}

/* Every body timeout, at deadline_ms, its progress is judged; a stall is due a body timeout after the last part. */
static uint32_t body_due_ms(const struct rw_core *core, const struct rw_slot *slot) {
    uint32_t stalled = slot->last_input_ms + core->limits.body_timeout_ms;
    return rw_before(stalled, slot->deadline_ms) ? stalled : slot->deadline_ms;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* When the clock has something to say: at the deadline, or sooner when a drain lets connections be idle for less
 * time. */
static uint32_t due_ms(const struct rw_core *core, const struct rw_slot *slot) {
    const struct rw_exchange *exchange = rw_exchange_of(slot);
    int first = (exchange->flags & RW_X_FIRST) != 0;
    if (exchange->phase == RW_HTTP_BODY) return body_due_ms(core, slot);
    if (!core->drain.active || exchange->phase != RW_HTTP_IDLE || (first && !core->drain.idle_ms))
        return slot->deadline_ms;
    uint32_t idle_ms =
        core->now_ms - (first ? slot->opened_ms : slot->deadline_ms - core->limits.keep_alive_timeout_ms);
    idle_ms = least(idle_ms, core->now_ms - slot->last_input_ms);
    /* A client that still reads the response to its last request has not had the time for the next. */
    idle_ms = least(idle_ms, rw_connection_has_output(slot) ? 0 : core->now_ms - slot->last_output_ms);
    uint32_t due = core->now_ms - idle_ms + core->drain.idle_ms;
    return rw_before(due, slot->deadline_ms) ? due : slot->deadline_ms;
}

static void open(struct rw_core *core, struct rw_slot *slot) {
    RW_GAUGE(core, connections_http, core->stats->connections_http + 1);
    begin_request(slot, RW_X_FIRST);
    slot->deadline_ms = core->now_ms + core->limits.head_timeout_ms;
    rw_connection_arm_timer(core, slot, due_ms(core, slot));
}

void rw_http_let_go(struct rw_core *core, struct rw_slot *slot) {
    rw_unfinished_remove(core, rw_exchange_of(slot)->body_held);
    rw_exchange_of(slot)->body_held = 0;
}

static void next_request(struct rw_core *core, struct rw_slot *slot) {
    begin_request(slot, 0);
    slot->state.end_seen = 0;
    rw_client_on_next_request(core, slot);
    slot->deadline_ms = core->now_ms + core->limits.keep_alive_timeout_ms;
    /* A peer that has half-closed meanwhile sends no more requests: serving the ready list ends its connection. */
    if (slot->input_bytes || slot->state.peer_closed) {
        rw_connection_mark_ready(core, slot);
    } else {
        rw_connection_arm_timer(core, slot, due_ms(core, slot));
    }
    rw_http_update_pause(core, slot);
}

void rw_http_response_complete(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    exchange->flags |= RW_X_COMPLETE;
    rw_http_let_go(core, slot);
    /* A refused handshake is no connection of its client's, however long this one lingers. */
    if (exchange->flags & RW_X_UPGRADE) rw_client_on_next_request(core, slot);
    /* A client that was not told of the end may be sending its next request: that one is answered with the end. */
    if (!(exchange->flags & RW_X_KEEP_ALIVE) || (core->drain.active && !core->drain.idle_ms)) {
        rw_connection_finish(core, slot);
    } else if (exchange->phase == RW_HTTP_RECEIVED) {
        next_request(core, slot);
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
    return !rw_unfinished_admits(core, exchange->body_held, BODY_PIECE_BYTES_MAX);
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

/* ------------------------------------------------------------------ the head */

static uint8_t *put(uint8_t *out, const uint8_t *bytes, size_t len) {
    memcpy(out, bytes, len);
    return out + len;
}

static uint8_t *put_lower(uint8_t *out, const uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        uint8_t c = bytes[i];
        out[i] = (uint8_t)(c + ((uint8_t)(c - 'A') < 26u ? 32 : 0));
    }
    return out + len;
}

/* The request event: host, target, then the header block (ringway.h, RW_EVENT_REQUEST). */
static int emit_request(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, int32_t head_bytes,
                        uint32_t event_flags) {
    const struct rw_http_head *head = &core->http->head;
    uint8_t *payload;
    /* The host comes twice: by itself, and as the field it was taken from. */
    uint32_t room = (uint32_t)head_bytes + 2 * head->header_count + head->host.bytes + 16;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_REQUEST, room, &payload);
    if (!event) return 0;
    uint8_t *out = put(payload, bytes + head->host.offset, head->host.bytes);
    uint32_t target_bytes = head->target.bytes;
    const uint8_t *target = bytes + head->target.offset;
    int has_path = target_bytes && *target != '?';
    if (!has_path) *out++ = '/'; /* absolute-form without a path (RFC 9112 §3.2.1) */
    out = put(out, target, target_bytes);
    target_bytes += !has_path;
    if (head->method == RW_METHOD_OTHER) {
        out = put(out, (const uint8_t *)":method\n", 8);
        out = put(out, bytes + head->method_name.offset, head->method_name.bytes);
        *out++ = '\n';
    }
    for (uint32_t i = 0; i < head->header_count; i++) {
        const struct rw_http_header *header = &head->headers[i];
        out = put_lower(out, bytes + header->name.offset, header->name.bytes);
        *out++ = '\n';
        out = put(out, bytes + header->value.offset, header->value.bytes);
        *out++ = '\n';
    }
    event->bytes = (uint32_t)(out - payload);
    assert(event->bytes <= room);
    event->flags = (uint16_t)event_flags;
    event->arg0 = (uint32_t)head->host.bytes << 16 | target_bytes;
    event->arg1 = (uint32_t)slot->server_context << 16 | (uint32_t)slot->listener << 8 | head->method;
    event->request = rw_exchange_of(slot)->request;
    return 1;
}

/* status 0: none */
struct refusal {
    uint32_t status;
    const char *why;
};

/* Does the request ask for a WebSocket? Upgrade is ignored where Connection does not name it: then it was meant for
 * whoever passed it on (RFC
 * 9110 §7.8). In HTTP/1.0 it is always ignored, but what has a key can only be a handshake, and its client is told what
 * it lacks. */
static int asks_for_websocket(const struct rw_http_head *head) {
    if (!(head->flags & RW_HTTP_UPGRADE_WEBSOCKET) || !(head->flags & RW_HTTP_CONNECTION_UPGRADE)) return 0;
    return !(head->flags & RW_HTTP_10) || head->ws_key.bytes;
}

/* The extensions that the client offers must follow the grammar, whether we speak any of them or not (RFC 6455
 * §9.1). */
static int extensions_valid(const struct rw_http_head *head, const uint8_t *bytes) {
    static const char name[] = "sec-websocket-extensions";
    for (uint32_t i = 0; i < head->header_count; i++) {
        const struct rw_http_header *header = &head->headers[i];
        if (header->name.bytes != sizeof name - 1 ||
            strncasecmp((const char *)bytes + header->name.offset, name, sizeof name - 1) != 0)
            continue;
        if (!rw_deflate_offers_valid(bytes + header->value.offset, header->value.bytes)) return 0;
    }
    return 1;
}

/* The opening handshake, RFC 6455 §4.2.1. */
static struct refusal check_handshake(const struct rw_http_head *head, const uint8_t *bytes) {
    if (head->flags & RW_HTTP_10) return (struct refusal){400, "a WebSocket handshake needs HTTP/1.1 (RFC 6455, 4.1)"};
    if (head->method != RW_METHOD_GET)
        return (struct refusal){400, "a WebSocket handshake is a GET request (RFC 6455, 4.1)"};
    if (head->flags & RW_HTTP_CHUNKED || head->content_length > 0)
        return (struct refusal){400, "a WebSocket handshake has no content"};
    const uint8_t *version = bytes + head->ws_version.offset;
    if (!head->ws_version.bytes) return (struct refusal){400, "Sec-WebSocket-Version is missing (RFC 6455, 4.1)"};
    if (head->ws_version.bytes != 2 || version[0] != '1' || version[1] != '3') return (struct refusal){426, NULL};
    if (!rw_ws_key_valid(bytes + head->ws_key.offset, head->ws_key.bytes))
        return (struct refusal){400, "Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455, 4.1)"};
    if (!extensions_valid(head, bytes))
        return (struct refusal){400, "Sec-WebSocket-Extensions is malformed (RFC 6455, 9.1)"};
    return (struct refusal){0, NULL};
}

static void note_head(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes) {
    const struct rw_http_head *head = &core->http->head;
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    uint32_t flags = 0;
    if (head->flags & RW_HTTP_KEEP_ALIVE && !core->drain.active) flags |= RW_X_KEEP_ALIVE;
    if (head->flags & RW_HTTP_10) flags |= RW_X_HTTP10;
    if (head->method == RW_METHOD_HEAD) flags |= RW_X_HEAD;
    if (head->flags & RW_HTTP_CHUNKED) flags |= RW_X_CHUNKED_IN;
    if (head->method == RW_METHOD_CONNECT) flags = (flags | RW_X_CONNECT) & ~(uint32_t)RW_X_KEEP_ALIVE;
    if (asks_for_websocket(head)) {
        /* A proxy in front may take what follows for frames whatever the answer is: unless it is 101, the connection
         * ends with it. */
        flags = (flags | RW_X_UPGRADE) & ~(uint32_t)RW_X_KEEP_ALIVE;
        memcpy(exchange->ws_accept_key, bytes + head->ws_key.offset, RW_WS_KEY_BYTES);
    }
    exchange->flags = flags;
    http->scanned = 0;
    http->body_remaining = head->flags & RW_HTTP_HAS_LENGTH ? head->content_length : 0;
    int has_body = http->body_remaining > 0 || head->flags & RW_HTTP_CHUNKED;
    exchange->phase = has_body ? RW_HTTP_BODY : RW_HTTP_RECEIVED;
    if (has_body) {
        await_body(core, slot);
        if (head->flags & RW_HTTP_EXPECT_CONTINUE) {
            /* The host may refuse within its turn; after that the client is asked for the body (RFC 9110 §10.1.1). */
            exchange->flags |= RW_X_CONTINUE;
            rw_connection_mark_ready(core, slot);
        }
    }
}

static int is_named(const uint8_t *bytes, struct rw_span name, const char *wanted) {
    return name.bytes == strlen(wanted) && strncasecmp((const char *)bytes + name.offset, wanted, name.bytes) == 0;
}

static void find_client(struct rw_core *core, struct rw_exchange *exchange, const uint8_t *bytes) {
    uint32_t header = core->proxy_header;
    exchange->forwarded_bytes = 0;
    const char *wanted = header == RW_PROXY_HEADER_FORWARDED ? "forwarded" : "x-forwarded-for";
    /* Several lines are one list (RFC 9110 §5.3), which is read from its end. */
    for (uint32_t i = core->http->head.header_count; i > 0; i--) {
        const struct rw_http_header *line = &core->http->head.headers[i - 1];
        if (!is_named(bytes, line->name, wanted)) continue;
        for (int32_t left = line->value.bytes; left >= 0;) {
            struct rw_forwarded_hop hop;
            left = rw_forwarded_last(header, bytes + line->value.offset, (size_t)left, &hop);
            if (hop.address_bytes == 0) return; /* whom this hop heard from is not told: it is the last that is known */
            uint8_t ip[16];
            rw_ip_widen(ip, hop.address, hop.address_bytes);
            memcpy(exchange->forwarded_address, hop.address, sizeof exchange->forwarded_address);
            exchange->forwarded_bytes = hop.address_bytes;
            if (!rw_trusted_has(&core->trusted, ip)) return;
        }
    }
}

/* ret: RW_REQUEST_X_FORWARDED or RW_REQUEST_FORWARDED when a trusted proxy has written it, else 0 */
static uint32_t note_client(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes) {
    if (core->proxy_header == RW_PROXY_HEADER_NONE || !slot->state.peer_trusted) return 0;
    find_client(core, rw_exchange_of(slot), bytes);
    return core->proxy_header == RW_PROXY_HEADER_FORWARDED ? RW_REQUEST_FORWARDED : RW_REQUEST_X_FORWARDED;
}

static size_t need_more_head(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->phase == RW_HTTP_IDLE) {
        exchange->phase = RW_HTTP_HEAD;
        /* The first request's deadline runs from accept, so that connecting and waiting gains nothing. */
        if (!(exchange->flags & RW_X_FIRST)) slot->deadline_ms = core->now_ms + core->limits.head_timeout_ms;
        rw_connection_arm_timer(core, slot, slot->deadline_ms);
    }
    return 0;
}

static size_t on_head(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    struct rw_http_head *head = &core->http->head;
    int32_t parsed = rw_http_parse_head(bytes, len, &core->http->limits, &http->scanned, head);
    if (parsed == 0) return need_more_head(core, slot);
    if (parsed < 0) {
        rw_http_refuse(core, slot, (uint32_t)-parsed);
        return 0;
    }
    struct refusal refusal = {0};
    uint32_t event_flags = note_client(core, slot, bytes);
    if (asks_for_websocket(head)) {
        refusal = check_handshake(head, bytes);
        if (refusal.status) RW_COUNT(core, refused_handshake, 1);
        else
            refusal.status =
                rw_client_refuses_upgrade(core, slot, exchange->forwarded_address, exchange->forwarded_bytes);
        event_flags |= RW_REQUEST_UPGRADE;
    } else if (head->flags & RW_HTTP_HAS_LENGTH && head->content_length > core->limits.max_body_bytes) {
        refusal.status = 413;
    }
    if (slot->tls && !rw_tls_may_serve(slot->tls, bytes + head->host.offset, head->host.bytes))
        refusal = (struct refusal){421, NULL};
    if (refusal.status) {
        RW_COUNT(core, requests, 1);
        rw_http_refuse_because(core, slot, refusal.status, refusal.why);
        return 0;
    }
    if (head->flags & RW_HTTP_CHUNKED || head->content_length > 0) event_flags |= RW_REQUEST_HAS_BODY;
    if (slot->tls) event_flags |= RW_REQUEST_TLS;
    if (head->flags & RW_HTTP_10) event_flags |= RW_REQUEST_HTTP10;
    if (head->flags & RW_HTTP_ASTERISK) event_flags |= RW_REQUEST_ASTERISK;
    if (head->flags & RW_HTTP_AUTHORITY) event_flags |= RW_REQUEST_AUTHORITY;
    exchange->request++;
    if (!emit_request(core, slot, bytes, parsed, event_flags)) {
        exchange->request--;
        http->scanned = 0;
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    rw_work_charge_event(core, (uint32_t)parsed);
    RW_COUNT(core, requests, 1);
    if (event_flags & RW_REQUEST_UPGRADE) rw_client_on_upgrade_asked(core);
    note_head(core, slot, bytes);
    return (size_t)parsed;
}

/* ------------------------------------------------------------------ the body */

static void body_received(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    exchange->phase = RW_HTTP_RECEIVED;
    exchange->flags &= ~(uint32_t)RW_X_CONTINUE;
    if (exchange->flags & RW_X_COMPLETE) next_request(core, slot);
}

/* The host is to be given `bytes` of the body. One that comes whole in one piece has never been unfinished.
 * ret: 0 they would go past the budget: the request has been refused */
static int hold_body(struct rw_core *core, struct rw_slot *slot, size_t bytes, int end) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    if (bytes == 0 || (end && exchange->body_received == 0)) return 1;
    if (!rw_unfinished_admits(core, exchange->body_held, bytes)) {
        uint64_t kept = slot->input ? rw_buffers_capacity(core->buffers, slot->input) : 0;
        uint64_t expected = exchange->body_held + (http->body_remaining > bytes ? http->body_remaining : bytes);
        RW_COUNT(core, refused_unfinished, 1);
        rw_http_refuse(core, slot, rw_unfinished_never_admits(core, exchange->body_held + kept, expected) ? 413 : 503);
        return 0;
    }
    exchange->body_held += bytes;
    rw_unfinished_add(core, bytes);
    return 1;
}

static size_t discard_body(struct rw_core *core, struct rw_slot *slot, size_t used, size_t data_bytes, int end) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    exchange->body_received += data_bytes;
    if (exchange->body_received > core->limits.max_body_bytes ||
        exchange->body_received - exchange->body_mark > DISCARD_BYTES_MAX) {
        rw_connection_finish(core, slot);
        return 0;
    }
    if (end) body_received(core, slot);
    return used;
}

static size_t on_sized_body(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    size_t n = len > BODY_PIECE_BYTES_MAX ? BODY_PIECE_BYTES_MAX : len;
    if (n > http->body_remaining) n = (size_t)http->body_remaining;
    int end = n == http->body_remaining;
    if (exchange->flags & RW_X_COMPLETE) {
        http->body_remaining -= n;
        return discard_body(core, slot, n, n, end);
    }
    uint8_t *payload;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_BODY, (uint32_t)n, &payload);
    if (!event) {
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    if (!hold_body(core, slot, n, end)) {
        event->type = RW_EVENT_NONE;
        return 0;
    }
    memcpy(payload, bytes, n);
    rw_work_charge_event(core, n);
    event->flags = end ? RW_BODY_END : 0;
    event->request = exchange->request;
    http->body_remaining -= n;
    exchange->body_received += n;
    exchange->body_unacked += (uint32_t)n;
    if (end) body_received(core, slot);
    return n;
}

/* Many small chunks become one event: the pieces are moved together in the payload area. */
static size_t on_chunked_body(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    int discard = (exchange->flags & RW_X_COMPLETE) != 0;
    if (len > BODY_PIECE_BYTES_MAX) len = BODY_PIECE_BYTES_MAX;
    uint8_t *payload = NULL;
    if (!discard && !rw_event_batch_has_room(core, (uint32_t)len)) {
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    struct rw_event *event = discard ? NULL : rw_event_add(core, slot, RW_EVENT_BODY, (uint32_t)len, &payload);
    size_t at = 0, total = 0;
    int32_t result = 0;
    while (at < len && result == 0) {
        const uint8_t *data;
        size_t data_bytes, consumed;
        result = rw_http_decode_chunked(&http->decoder, bytes + at, len - at, &data, &data_bytes, &consumed);
        if (event && data_bytes) memcpy(payload + total, data, data_bytes);
        total += data_bytes;
        at += consumed;
        if (result == 0 && consumed == 0) break;
    }
    int too_long = exchange->body_received + total > core->limits.max_body_bytes;
    if (event && result >= 0 && !too_long && !hold_body(core, slot, total, result == 1)) {
        event->type = RW_EVENT_NONE;
        return 0;
    }
    if (event) {
        int end = result == 1 && !too_long;
        event->bytes = (uint32_t)total;
        event->flags = end ? RW_BODY_END : 0;
        event->request = exchange->request;
        /* Nothing to say: only framing was consumed. A malformed body must not look like a whole one. */
        if ((total == 0 && !end) || result < 0 || too_long) event->type = RW_EVENT_NONE;
    }
    rw_work_charge(core, at / RW_WORK_BYTES); /* chunks may be small: each costs more than its bytes */
    if (event && total) rw_work_charge_event(core, 0);
    if (result < 0 || too_long) {
        rw_http_refuse(core, slot, result < 0 ? (uint32_t)-result : 413u);
        return 0;
    }
    if (discard) return discard_body(core, slot, at, total, result == 1);
    exchange->body_received += total;
    exchange->body_unacked += (uint32_t)total;
    if (result == 1) body_received(core, slot);
    return at;
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
            used = on_head(core, slot, bytes + at, len - at);
        } else if (rw_http_body_waits(core, slot)) {
            break;
        } else if (exchange->flags & RW_X_CHUNKED_IN) {
            used = on_chunked_body(core, slot, bytes + at, len - at);
        } else {
            used = on_sized_body(core, slot, bytes + at, len - at);
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
        slot->deadline_ms = core->now_ms + HALF_CLOSED_GRACE_MS;
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
    /* A response that has begun without the word `close` does not end the connection, unless that is to end at once. */
    if (at_once || !(exchange->flags & RW_X_BEGUN)) exchange->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
    /* Whoever has said the first words of TLS has a request to make. */
    int comes = slot->input_bytes || (slot->tls && rw_tls_is_shaking_hands(slot->tls));
    if (exchange->phase != RW_HTTP_IDLE || comes) return 0;
    if (at_once) rw_connection_finish(core, slot);
    /* also when it is due: what has come by then is read first */
    else rw_connection_arm_timer(core, slot, due_ms(core, slot));
    return 0;
}

/* Idle for as long as a drain allows. ret: 1 it ends, 0 its next request has come this very moment */
static int end_idle(struct rw_core *core, struct rw_slot *slot) {
    struct pollfd asked = {.fd = slot->fd, .events = POLLIN};
    if (!slot->state.paused_by_host && poll(&asked, 1, 0) > 0 && asked.revents & POLLIN) return 0;
    rw_connection_end_now(core, slot);
    return 1;
}

/* A peer whose input is held back is not read from, so that its leaving goes unseen. It may have half-closed only: it
 * counts as gone when nothing went either way for a body timeout. */
static int is_gone(const struct rw_core *core, const struct rw_slot *slot) {
    if (slot->state.send_inflight || slot->state.send_refused) return 0;
    /* it may be weeks ago, see age.h */
    if (core->now_ms - slot->last_output_ms < core->limits.body_timeout_ms) return 0;
    /* What the host has paused may have come whole, and its end with it: only a reset tells then. */
    short events = slot->state.paused_by_host ? 0 : POLLRDHUP;
    struct pollfd asked = {.fd = slot->fd, .events = events};
    return poll(&asked, 1, 0) > 0 && (asked.revents & (events | POLLHUP | POLLERR)) != 0;
}

static void resumed(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->phase == RW_HTTP_BODY) await_body(core, slot);
}

static void probe_peer(const struct rw_slot *slot) {
    const int on = 1, seconds = PROBE_SECONDS, most = PROBES_LOST_MAX;
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_KEEPCNT, &most, sizeof most);
    (void)setsockopt(slot->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

/* A half-closed peer waits for its answer, or has left: looked at once a grace. */
static void await_answer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct pollfd asked = {.fd = slot->fd};
    if (rw_before(core->now_ms, slot->deadline_ms)) {
        rw_connection_arm_timer(core, slot, slot->deadline_ms);
        return;
    }
    if (poll(&asked, 1, 0) > 0 && asked.revents & (POLLHUP | POLLERR)) {
        rw_connection_terminate(core, slot);
        return;
    }
    struct rw_event *event =
        exchange->flags & RW_X_HALF_CLOSED ? NULL : rw_event_add(core, slot, RW_EVENT_HALF_CLOSED, 0, NULL);
    if (event) {
        event->request = exchange->request;
        exchange->flags |= RW_X_HALF_CLOSED;
        probe_peer(slot);
    }
    slot->deadline_ms = core->now_ms + HALF_CLOSED_GRACE_MS;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
}

static void on_half_closed_timer(struct rw_core *core, struct rw_slot *slot) {
    if (!(rw_exchange_of(slot)->flags & (RW_X_BEGUN | RW_X_UPGRADE))) {
        await_answer(core, slot);
        return;
    }
    uint32_t due = slot->deadline_ms;
    uint32_t after_output = slot->last_output_ms + HALF_CLOSED_GRACE_MS;
    /* The last output may be weeks ago, see age.h. */
    if (core->now_ms - slot->last_output_ms < HALF_CLOSED_GRACE_MS && rw_before(due, after_output)) due = after_output;
    /* What the kernel has not taken yet is judged by the write timeout. */
    if (slot->state.send_inflight || slot->state.send_refused) due = core->now_ms + HALF_CLOSED_GRACE_MS;
    if (rw_before(core->now_ms, due)) {
        slot->deadline_ms = due; /* never far behind, however long the response goes on */
        rw_connection_arm_timer(core, slot, due);
    } else {
        rw_connection_terminate(core, slot);
    }
}

/* A body timeout is over, since the last part or since its progress was last judged. */
static void on_body_timer(struct rw_core *core, struct rw_slot *slot, uint32_t due) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->body_received == exchange->body_mark && is_gone(core, slot)) {
        rw_connection_terminate(core, slot);
        return;
    }
    /* It waits for us, and not we for it. */
    if (slot->state.paused_by_core || slot->state.paused_by_host || slot->input_bytes) {
        await_body(core, slot);
        return;
    }
    int stalled = !rw_before(core->now_ms, slot->last_input_ms + core->limits.body_timeout_ms);
    if (!stalled) {
        int progressed = exchange->body_received - exchange->body_mark >= BODY_PROGRESS_BYTES;
        if (progressed) {
            exchange->body_mark = exchange->body_received;
            exchange->body_slow = 0;
        }
        if (progressed || exchange->body_slow + 1u < BODY_PROGRESS_TIMEOUTS) {
            if (!progressed) exchange->body_slow++;
            slot->deadline_ms = core->now_ms + core->limits.body_timeout_ms;
            rw_connection_arm_timer(core, slot, body_due_ms(core, slot));
            return;
        }
    }
    if (rw_connection_spares(core, slot, due, POLLIN)) return;
    RW_COUNT(core, timeouts_body, 1);
    rw_http_refuse(core, slot, 408);
}

static void timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->phase == RW_HTTP_RECEIVED) {
        if (slot->state.peer_closed) {
            on_half_closed_timer(core, slot);
        } else if (slot->state.paused_by_core && is_gone(core, slot)) {
            rw_connection_terminate(core, slot);
        } else if (slot->state.paused_by_core) {
            rw_connection_arm_timer(core, slot, core->now_ms + core->limits.body_timeout_ms);
        }
        return;
    }
    uint32_t due = due_ms(core, slot);
    if (rw_before(core->now_ms, due)) {
        rw_connection_arm_timer(core, slot, due);
        return;
    }
    switch ((enum rw_http_phase)exchange->phase) {
        case RW_HTTP_IDLE:
            if (core->drain.active) {
                if (!end_idle(core, slot)) rw_connection_arm_timer(core, slot, core->now_ms + 1);
                break;
            }
            if (rw_connection_spares(core, slot, due, POLLIN)) break;
            RW_COUNT(core, timeouts_idle, 1);
            rw_connection_finish(core, slot);
            break;
        case RW_HTTP_HEAD:
            if (rw_connection_spares(core, slot, due, POLLIN)) break;
            RW_COUNT(core, timeouts_head, 1);
            rw_http_refuse(core, slot, 408);
            break;
        case RW_HTTP_BODY: on_body_timer(core, slot, due); break;
        case RW_HTTP_RECEIVED: break;
    }
}

/* ------------------------------------------------------------------ the table */

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
                                             .timer = timer,
                                             .peer_closed = peer_closed,
                                             .drain = drain,
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
