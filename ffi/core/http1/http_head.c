/* HTTP/1.1: what a request's head says, and what it asks of us, see http.h. */
#include <string.h>
#include <strings.h>

#include "connection/client.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/tls.h"
#include "connection/work.h"
#include "http1/forwarded.h"
#include "http1/http.h"
#include "ws/deflate_negotiate.h"
#include "ws/ws_handshake.h"

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
        rw_http_await_body(core, slot);
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

size_t rw_http_on_head(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
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
