/* HTTP/1.1, sending side, see http.h. The core writes all framing fields, so that a response is never ambiguous (RFC 9112 §6). */
#include "http.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "connection.h"
#include "ws.h"
#include "ws_handshake.h"

/* "HTTP/1.1 200 " + reason + CRLF, Content-Length with 20 digits, Connection, Date: fits whatever the values are. */
#define FRAMING_BYTES_MAX 256u
/* Bodies up to this are copied behind their head, so that both are one contiguous send. */
#define INLINE_BODY_BYTES 16384u

static const char *reason_of(uint32_t status) {
    switch (status) {
        case 100: return "Continue";
        case 101: return "Switching Protocols";
        case 200: return "OK";
        case 201: return "Created";
        case 202: return "Accepted";
        case 203: return "Non-Authoritative Information";
        case 204: return "No Content";
        case 205: return "Reset Content";
        case 206: return "Partial Content";
        case 300: return "Multiple Choices";
        case 301: return "Moved Permanently";
        case 302: return "Found";
        case 303: return "See Other";
        case 304: return "Not Modified";
        case 307: return "Temporary Redirect";
        case 308: return "Permanent Redirect";
        case 400: return "Bad Request";
        case 401: return "Unauthorized";
        case 402: return "Payment Required";
        case 403: return "Forbidden";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 406: return "Not Acceptable";
        case 408: return "Request Timeout";
        case 409: return "Conflict";
        case 410: return "Gone";
        case 411: return "Length Required";
        case 412: return "Precondition Failed";
        case 413: return "Content Too Large";
        case 414: return "URI Too Long";
        case 415: return "Unsupported Media Type";
        case 416: return "Range Not Satisfiable";
        case 417: return "Expectation Failed";
        case 421: return "Misdirected Request";
        case 422: return "Unprocessable Content";
        case 426: return "Upgrade Required";
        case 428: return "Precondition Required";
        case 429: return "Too Many Requests";
        case 431: return "Request Header Fields Too Large";
        case 451: return "Unavailable For Legal Reasons";
        case 500: return "Internal Server Error";
        case 501: return "Not Implemented";
        case 502: return "Bad Gateway";
        case 503: return "Service Unavailable";
        case 504: return "Gateway Timeout";
        case 505: return "HTTP Version Not Supported";
        default: return ""; /* the reason phrase is optional (RFC 9112 §4) */
    }
}

static void count_status(struct rw_core *core, uint32_t status) {
    switch (status / 100) {
        case 1: RW_COUNT(core, responses_1xx, 1); break;
        case 2: RW_COUNT(core, responses_2xx, 1); break;
        case 3: RW_COUNT(core, responses_3xx, 1); break;
        case 4: RW_COUNT(core, responses_4xx, 1); break;
        default: RW_COUNT(core, responses_5xx, 1); break;
    }
}

static uint8_t *put_text(uint8_t *out, const char *text) {
    size_t len = strlen(text);
    memcpy(out, text, len);
    return out + len;
}

static uint8_t *put_bytes(uint8_t *out, const uint8_t *bytes, size_t len) {
    if (len) memcpy(out, bytes, len);
    return out + len;
}

static uint8_t *put_decimal(uint8_t *out, uint64_t value) {
    uint8_t digits[20];
    size_t count = 0;
    do {
        digits[count++] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count) *out++ = digits[--count];
    return out;
}

static uint8_t *put_status_line(uint8_t *out, uint32_t status) {
    if (status == 200) return put_text(out, "HTTP/1.1 200 OK\r\n");
    out = put_text(out, "HTTP/1.1 ");
    out = put_decimal(out, status);
    *out++ = ' ';
    out = put_text(out, reason_of(status));
    return put_text(out, "\r\n");
}

static uint8_t *put_date(const struct rw_core *core, uint8_t *out) {
    out = put_text(out, "Date: ");
    out = put_bytes(out, (const uint8_t *)core->date, 29);
    return put_text(out, "\r\n");
}

/* No body and no Content-Length, whatever the host gave (RFC 9110 §8.6, §15.3.5, §15.4.5). */
static int is_bodiless(uint32_t status) { return status < 200 || status == 204 || status == 304; }

/* May the host answer the present request with this command? */
static int expects(const struct rw_slot *slot, const struct rw_command *command) {
    const struct rw_slot_http *http = &slot->as.http;
    return http->request == (uint16_t)command->request && http->phase >= RW_HTTP_BODY && !(http->flags & (RW_X_COMPLETE | RW_X_ANSWERED_BY_CORE));
}

/* A body that is still coming and longer than what we would read and throw away: say that the connection ends here. */
static int body_is_left(const struct rw_slot *slot) {
    const struct rw_slot_http *http = &slot->as.http;
    return http->phase == RW_HTTP_BODY && (http->body_remaining > 1u << 20 || http->flags & RW_X_CONTINUE);
}

static uint8_t *put_connection(const struct rw_core *core, struct rw_slot *slot, uint8_t *out, uint32_t command_flags) {
    struct rw_slot_http *http = &slot->as.http;
    /* A peer that has half-closed still gets answers to what it sent before. */
    int last = slot->state.peer_closed && slot->input_bytes == 0;
    if (command_flags & RW_RESPOND_CLOSE || core->drain.active || last || body_is_left(slot)) http->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
    if (!(http->flags & RW_X_KEEP_ALIVE)) return put_text(out, "Connection: close\r\n");
    return http->flags & RW_X_HTTP10 ? put_text(out, "Connection: keep-alive\r\n") : out;
}

static uint8_t *reserve(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
    uint8_t *out = bytes <= UINT32_MAX / 4 ? rw_outbox_reserve(&core->outbox, slot, (uint32_t)bytes) : NULL;
    if (!out) rw_connection_terminate(core, slot);
    return out;
}

static void commit(struct rw_core *core, struct rw_slot *slot, const uint8_t *start, const uint8_t *end, uint64_t reserved) {
    rw_outbox_unreserve(&core->outbox, slot, (uint32_t)(reserved - (uint64_t)(end - start)));
    rw_connection_mark_dirty(core, slot);
}

static int write_body(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes) {
    uint8_t *out = reserve(core, slot, bytes);
    if (!out) return 0;
    memcpy(out, data, (size_t)bytes);
    rw_connection_mark_dirty(core, slot);
    return 1;
}

void rw_http_respond(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command, const uint8_t *data, uint64_t bytes) {
    struct rw_slot_http *http = &slot->as.http;
    if (!expects(slot, command) || http->flags & RW_X_BEGUN || command->arg1 > bytes) return;
    uint32_t status = command->arg0;
    const uint8_t *body = data + command->arg1;
    uint64_t body_bytes = bytes - command->arg1;
    int head_only = (http->flags & RW_X_HEAD) != 0;
    uint64_t here = head_only || is_bodiless(status) || body_bytes > INLINE_BODY_BYTES ? 0 : body_bytes;
    uint64_t room = FRAMING_BYTES_MAX + command->arg1 + here;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return;
    uint8_t *out = put_status_line(start, status);
    out = put_bytes(out, data, command->arg1);
    /* The length of what GET would have sent is not known here when a HEAD handler gave no body (RFC 9110 §9.3.2). */
    if (!is_bodiless(status) && !(head_only && body_bytes == 0)) {
        out = put_text(out, "Content-Length: ");
        out = put_decimal(out, body_bytes);
        out = put_text(out, "\r\n");
    }
    out = put_connection(core, slot, out, command->flags);
    out = put_date(core, out);
    out = put_text(out, "\r\n");
    out = put_bytes(out, body, (size_t)here);
    commit(core, slot, start, out, room);
    http->flags |= RW_X_BEGUN;
    http->flags &= ~(uint32_t)RW_X_CONTINUE;
    count_status(core, status);
    if (!head_only && !is_bodiless(status) && body_bytes > here && !write_body(core, slot, body, body_bytes)) return;
    rw_http_response_complete(core, slot);
}

void rw_http_respond_begin(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command, const uint8_t *data, uint64_t bytes) {
    struct rw_slot_http *http = &slot->as.http;
    if (!expects(slot, command) || http->flags & RW_X_BEGUN) return;
    uint32_t status = command->arg0 & 0xFFFFu;
    uint64_t length = (uint64_t)(command->arg0 >> 16) << 32 | command->arg1;
    int sized = (command->flags & RW_RESPOND_SIZED) != 0;
    uint64_t room = FRAMING_BYTES_MAX + bytes;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return;
    uint8_t *out = put_status_line(start, status);
    out = put_bytes(out, data, (size_t)bytes);
    if (is_bodiless(status)) {
        sized = 1;
        length = 0;
    } else if (sized) {
        out = put_text(out, "Content-Length: ");
        out = put_decimal(out, length);
        out = put_text(out, "\r\n");
    } else if (http->flags & RW_X_HTTP10) {
        http->flags &= ~(uint32_t)RW_X_KEEP_ALIVE; /* no chunked in HTTP/1.0: the body ends with the connection */
    } else {
        out = put_text(out, "Transfer-Encoding: chunked\r\n");
        http->flags |= RW_X_CHUNKED_OUT;
    }
    if (sized) http->flags |= RW_X_SIZED_OUT;
    http->response_remaining = sized && !(http->flags & RW_X_HEAD) ? length : 0;
    out = put_connection(core, slot, out, command->flags);
    out = put_date(core, out);
    out = put_text(out, "\r\n");
    commit(core, slot, start, out, room);
    http->flags |= RW_X_BEGUN;
    http->flags &= ~(uint32_t)RW_X_CONTINUE;
    count_status(core, status);
}

static int chunk_is_welcome(const struct rw_slot_http *http) {
    return http->flags & RW_X_BEGUN && !(http->flags & (RW_X_COMPLETE | RW_X_ANSWERED_BY_CORE));
}

void rw_http_respond_chunk(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes) {
    struct rw_slot_http *http = &slot->as.http;
    if (!chunk_is_welcome(http) || bytes == 0 || http->flags & RW_X_HEAD) return;
    if (http->flags & RW_X_SIZED_OUT) {
        if (bytes > http->response_remaining) {
            /* More than Content-Length said would be read as the next response: break off instead. */
            rw_connection_terminate(core, slot);
            return;
        }
        http->response_remaining -= bytes;
        if (!write_body(core, slot, data, bytes)) return;
    } else if (http->flags & RW_X_CHUNKED_OUT) {
        uint64_t room = bytes + 24;
        uint8_t *start = reserve(core, slot, room);
        if (!start) return;
        uint8_t *out = start + snprintf((char *)start, 20, "%llx\r\n", (unsigned long long)bytes);
        out = put_bytes(out, data, (size_t)bytes);
        out = put_text(out, "\r\n");
        commit(core, slot, start, out, room);
    } else if (!write_body(core, slot, data, bytes)) {
        return;
    }
    if (slot->out_bytes > core->limits.response_high_water_bytes) {
        http->flags |= RW_X_DRAIN_WANTED;
        rw_connection_mark_dirty(core, slot);
    }
}

void rw_http_respond_end(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_http *http = &slot->as.http;
    if (!chunk_is_welcome(http)) return;
    if (http->flags & RW_X_SIZED_OUT && http->response_remaining > 0) {
        rw_connection_terminate(core, slot);
        return;
    }
    if (http->flags & RW_X_CHUNKED_OUT && !(http->flags & RW_X_HEAD) && !write_body(core, slot, (const uint8_t *)"0\r\n\r\n", 5)) return;
    http->flags &= ~(uint32_t)(RW_X_DRAIN_WANTED | RW_X_DRAIN_DUE);
    rw_http_response_complete(core, slot);
}

void rw_http_respond_abort(struct rw_core *core, struct rw_slot *slot) {
    uint32_t flags = slot->as.http.flags;
    if (!rw_http_awaits_response(slot)) return;
    if (flags & RW_X_BEGUN && !(flags & (RW_X_SIZED_OUT | RW_X_CHUNKED_OUT))) {
        /* A body that ends with the connection looks whole when that ends in order (RFC 9112 §8): close(2) must reset it, see socket(7). */
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(slot->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    rw_connection_terminate(core, slot);
}

void rw_http_body_ack(struct rw_core *core, struct rw_slot *slot, uint32_t bytes) {
    struct rw_slot_http *http = &slot->as.http;
    if (http->phase != RW_HTTP_BODY) return;
    http->body_unacked -= bytes < http->body_unacked ? bytes : http->body_unacked;
    rw_http_update_pause(core, slot);
    if (slot->input_bytes && !slot->state.paused_by_core) rw_connection_mark_ready(core, slot);
}

void rw_http_upgrade(struct rw_core *core, struct rw_slot *slot, uint32_t behavior, const uint8_t *headers, uint64_t bytes) {
    struct rw_slot_http *http = &slot->as.http;
    if (!(http->flags & RW_X_UPGRADE) || http->phase != RW_HTTP_RECEIVED || http->flags & RW_X_BEGUN) return;
    uint64_t room = FRAMING_BYTES_MAX + bytes;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return;
    uint8_t *out = put_text(start, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    char accept[RW_WS_ACCEPT_BYTES];
    rw_ws_accept(http->ws_accept_key, accept);
    out = put_bytes(out, (const uint8_t *)accept, RW_WS_ACCEPT_BYTES);
    out = put_text(out, "\r\n");
    out = put_bytes(out, headers, (size_t)bytes);
    out = put_date(core, out);
    out = put_text(out, "\r\n");
    commit(core, slot, start, out, room);
    count_status(core, 101);
    rw_ws_open(core, slot, behavior);
}

void rw_http_write_refusal(struct rw_core *core, struct rw_slot *slot, uint32_t status, const char *extra) {
    const char *reason = reason_of(status);
    uint64_t room = FRAMING_BYTES_MAX + strlen(extra) + strlen(reason) + 64;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return;
    uint8_t *out = put_status_line(start, status);
    out = put_text(out, "Content-Type: text/plain\r\nContent-Length: ");
    out = put_decimal(out, strlen(reason));
    out = put_text(out, "\r\nConnection: close\r\n");
    out = put_text(out, extra);
    out = put_date(core, out);
    out = put_text(out, "\r\n");
    out = put_text(out, reason);
    commit(core, slot, start, out, room);
    count_status(core, status);
}

void rw_http_write_continue(struct rw_core *core, struct rw_slot *slot) {
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (write_body(core, slot, (const uint8_t *)line, sizeof line - 1)) RW_COUNT(core, responses_1xx, 1);
}
