/* HTTP/1.1, sending side, see http.h. The core writes all framing fields, so that a response is never ambiguous (RFC
 * 9112 §6). */
#include "http1/http.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "connection/client.h"
#include "connection/connection.h"
#include "connection/unfinished.h"
#include "ws/deflate.h"
#include "ws/ws.h"
#include "ws/ws_handshake.h"

/* "HTTP/1.1 200 " + reason + CRLF, Connection, Date, Content-Length with 20 digits: fits whatever the values are. A
 * status given as text has its own length on top. */
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
        case 207: return "Multi-Status";
        case 208: return "Already Reported";
        case 226: return "IM Used";
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
        case 407: return "Proxy Authentication Required";
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
        case 423: return "Locked";
        case 424: return "Failed Dependency";
        case 425: return "Too Early";
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
        case 506: return "Variant Also Negotiates";
        case 507: return "Insufficient Storage";
        case 508: return "Loop Detected";
        case 511: return "Network Authentication Required";
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

/* What the data of RESPOND and RESPOND_BEGIN begins with. */
struct status {
    uint32_t number;
    const uint8_t *text; /* NULL: the number and its own reason */
    uint32_t text_bytes;
};

/* Take the status off the front of the data. ret: bytes taken, -1: the data is shorter than it says */
static int32_t read_status(struct status *status, const struct rw_command *command, const uint8_t *data,
                           uint64_t bytes) {
    *status = (struct status){.number = command->arg0 & 0xFFFFu};
    if (!(command->flags & RW_RESPOND_STATUS_TEXT)) return 0;
    if (bytes < 1 || bytes - 1 < data[0]) return -1;
    /* A control character could end the line early, and with it who decides what is framing: then the number speaks
     * (RFC 9112 §4). */
    int printable = data[0] > 0;
    for (uint32_t i = 1; i <= data[0]; i++) printable &= data[i] == '\t' || (data[i] >= 0x20 && data[i] != 0x7F);
    if (printable) {
        status->text = data + 1;
        status->text_bytes = data[0];
    }
    return 1 + data[0];
}

static uint8_t *put_status(uint8_t *out, const struct status *status) {
    if (!status->text) return put_status_line(out, status->number);
    out = put_text(out, "HTTP/1.1 ");
    out = put_bytes(out, status->text, status->text_bytes);
    return put_text(out, "\r\n");
}

static uint8_t *put_length(uint8_t *out, uint64_t bytes) {
    out = put_text(out, "Content-Length: ");
    out = put_decimal(out, bytes);
    return put_text(out, "\r\n");
}

static uint8_t *put_date(const struct rw_core *core, uint8_t *out) {
    out = put_text(out, "Date: ");
    out = put_bytes(out, (const uint8_t *)core->date, 29);
    return put_text(out, "\r\n");
}

/* No body and no Content-Length, whatever the host gave (RFC 9110 §8.6, §15.3.5, §15.4.5). */
static int is_bodiless(uint32_t status) { return status < 200 || status == 204 || status == 304; }

/* A success of CONNECT has neither Content-Length nor Transfer-Encoding: what follows its head is no content (RFC 9110
 * §9.3.6). The connection ends behind it, since nothing here is a tunnel. */
static int is_tunnel(const struct rw_slot *slot, uint32_t status) {
    return rw_exchange_of(slot)->flags & RW_X_CONNECT && status >= 200 && status < 300;
}

/* May the host answer the present request? */
static int expects(const struct rw_exchange *exchange) {
    return exchange->phase >= RW_HTTP_BODY && !(exchange->flags & (RW_X_COMPLETE | RW_X_ANSWERED_BY_CORE));
}

/* A body that is still coming and longer than what we would read and throw away: say that the connection ends here. */
static int body_is_left(const struct rw_slot *slot) {
    const struct rw_exchange *exchange = rw_exchange_of(slot);
    const struct rw_slot_http *http = rw_http_of(slot);
    return exchange->phase == RW_HTTP_BODY && (http->body_remaining > 1u << 20 || exchange->flags & RW_X_CONTINUE);
}

static uint8_t *put_connection(const struct rw_core *core, struct rw_slot *slot, uint8_t *out, uint32_t command_flags) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    /* A peer that has half-closed still gets answers to what it sent before. */
    int last = slot->state.peer_closed && slot->input_bytes == 0;
    if (command_flags & RW_RESPOND_CLOSE || core->drain.active || last || body_is_left(slot))
        exchange->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
    if (!(exchange->flags & RW_X_KEEP_ALIVE)) return put_text(out, "Connection: close\r\n");
    return exchange->flags & RW_X_HTTP10 ? put_text(out, "Connection: keep-alive\r\n") : out;
}

static uint8_t *reserve(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
    uint8_t *out = bytes <= UINT32_MAX / 4 ? rw_outbox_reserve(&core->outbox, slot, (uint32_t)bytes) : NULL;
    if (!out) {
        rw_exchange_note_cause(rw_exchange_of(slot), RW_ABORT_NO_MEMORY);
        rw_connection_terminate(core, slot);
    }
    return out;
}

static void commit(struct rw_core *core, struct rw_slot *slot, const uint8_t *start, const uint8_t *end,
                   uint64_t reserved) {
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

static void respond(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command, const uint8_t *data,
                    uint64_t bytes) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct status status;
    int32_t status_bytes = read_status(&status, command, data, bytes);
    if (!expects(exchange) || exchange->flags & RW_X_BEGUN || status_bytes < 0 ||
        command->arg1 > bytes - (uint64_t)status_bytes)
        return;
    const uint8_t *headers = data + status_bytes;
    const uint8_t *body = headers + command->arg1;
    uint64_t body_bytes = bytes - (uint64_t)status_bytes - command->arg1;
    int bodiless = is_bodiless(status.number);
    int head_only = (exchange->flags & RW_X_HEAD) != 0;
    /* The length of what GET would have sent is not known here when a HEAD handler gave no body (RFC 9110 §9.3.2). */
    int unsized =
        (body_bytes == 0 && (head_only || command->flags & RW_RESPOND_NO_LENGTH)) || is_tunnel(slot, status.number);
    /* Without a length the body of any other response ends with the connection (RFC 9112 §6.3). */
    if (unsized && !head_only && !bodiless) exchange->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
    uint64_t here = head_only || bodiless || body_bytes > INLINE_BODY_BYTES ? 0 : body_bytes;
    uint64_t room = FRAMING_BYTES_MAX + status.text_bytes + command->arg1 + here;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return;
    uint8_t *out = put_status(start, &status);
    out = put_bytes(out, headers, command->arg1);
    out = put_connection(core, slot, out, command->flags);
    out = put_date(core, out);
    if (!bodiless && !unsized) out = put_length(out, body_bytes);
    out = put_text(out, "\r\n");
    out = put_bytes(out, body, (size_t)here);
    commit(core, slot, start, out, room);
    exchange->flags |= RW_X_BEGUN;
    exchange->flags &= ~(uint32_t)RW_X_CONTINUE;
    count_status(core, status.number);
    if (!head_only && !bodiless && body_bytes > here && !write_body(core, slot, body, body_bytes)) return;
    rw_http_response_complete(core, slot);
}

static void respond_begin(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                          const uint8_t *data, uint64_t bytes) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct status status;
    int32_t status_bytes = read_status(&status, command, data, bytes);
    if (!expects(exchange) || exchange->flags & RW_X_BEGUN || status_bytes < 0) return;
    uint64_t length = (uint64_t)(command->arg0 >> 16) << 32 | command->arg1;
    int bodiless = is_bodiless(status.number);
    int sized = bodiless || (command->flags & RW_RESPOND_SIZED) != 0;
    if (bodiless) length = 0;
    if (sized) {
        exchange->flags |= RW_X_SIZED_OUT;
    } else if (exchange->flags & RW_X_HTTP10 || is_tunnel(slot, status.number)) {
        exchange->flags &= ~(uint32_t)RW_X_KEEP_ALIVE; /* no chunked in HTTP/1.0: the body ends with the connection */
    } else {
        exchange->flags |= RW_X_CHUNKED_OUT;
    }
    exchange->response_remaining = sized && !(exchange->flags & RW_X_HEAD) ? length : 0;
    uint64_t header_bytes = bytes - (uint64_t)status_bytes;
    uint64_t room = FRAMING_BYTES_MAX + status.text_bytes + header_bytes;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return;
    uint8_t *out = put_status(start, &status);
    out = put_bytes(out, data + status_bytes, (size_t)header_bytes);
    out = put_connection(core, slot, out, command->flags);
    out = put_date(core, out);
    if (sized && !bodiless && !is_tunnel(slot, status.number)) out = put_length(out, length);
    if (exchange->flags & RW_X_CHUNKED_OUT) out = put_text(out, "Transfer-Encoding: chunked\r\n");
    out = put_text(out, "\r\n");
    commit(core, slot, start, out, room);
    exchange->flags |= RW_X_BEGUN;
    exchange->flags &= ~(uint32_t)RW_X_CONTINUE;
    count_status(core, status.number);
    if (command->flags & RW_RESPOND_EVENTS && !sized && !(exchange->flags & RW_X_HEAD))
        rw_http_events_begin(core, slot, command->arg1);
}

static int chunk_is_welcome(const struct rw_exchange *exchange) {
    return exchange->flags & RW_X_BEGUN && !(exchange->flags & (RW_X_COMPLETE | RW_X_ANSWERED_BY_CORE));
}

static void respond_chunk(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!chunk_is_welcome(exchange) || bytes == 0 || exchange->flags & RW_X_HEAD) return;
    if (exchange->flags & RW_X_SIZED_OUT) {
        if (bytes > exchange->response_remaining) {
            /* More than Content-Length said would be read as the next response: break off instead. */
            rw_exchange_note_cause(exchange, RW_ABORT_LENGTH);
            rw_connection_terminate(core, slot);
            return;
        }
        exchange->response_remaining -= bytes;
        if (!write_body(core, slot, data, bytes)) return;
    } else if (exchange->flags & RW_X_CHUNKED_OUT) {
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
        exchange->flags |= RW_X_DRAIN_WANTED;
        rw_connection_mark_dirty(core, slot);
    }
}

static uint32_t try_room(const struct rw_slot *slot) {
    return slot->out_bytes < RW_RESPOND_TRY_WINDOW_BYTES ? RW_RESPOND_TRY_WINDOW_BYTES - slot->out_bytes : 0;
}

/* What fits the window is queued and goes out with everything else of this tick; only for more is the kernel asked at
 * once.
 * ret: bytes accepted, -1: the connection is at its end */
static int64_t offer(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes) {
    uint64_t accepted = 0;
    uint64_t kept;
    do {
        if (bytes - accepted > try_room(slot))
            accepted += rw_connection_send_now(core, slot, data + accepted, bytes - accepted);
        kept = bytes - accepted < try_room(slot) ? bytes - accepted : try_room(slot);
        if (kept && !write_body(core, slot, data + accepted, kept)) return -1;
        accepted += kept;
        /* Encrypted output goes through the queue: as long as the kernel takes it, there is room for more. */
    } while (slot->tls && kept && accepted < bytes);
    rw_exchange_of(slot)->response_remaining -= accepted;
    return (int64_t)accepted;
}

static int32_t respond_try(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_awaits_response(exchange) || exchange->flags & RW_X_ANSWERED_BY_CORE) return RW_ERR_STALE;
    if (!(exchange->flags & RW_X_SIZED_OUT)) return RW_ERR_INVALID;
    if (!(exchange->flags & RW_X_HEAD) && bytes > exchange->response_remaining) {
        rw_exchange_note_cause(exchange, RW_ABORT_LENGTH);
        rw_connection_terminate(core, slot); /* as a chunk past Content-Length */
        return RW_ERR_INVALID;
    }
    /* The answer to HEAD has no body: it is taken and not sent. */
    uint64_t most = bytes < INT32_MAX ? bytes : INT32_MAX;
    int64_t accepted = exchange->flags & RW_X_HEAD ? (int64_t)most : offer(core, slot, data, most);
    if (accepted < 0) return RW_ERR_STALE;
    if ((uint64_t)accepted < bytes) {
        exchange->flags |= RW_X_DRAIN_WANTED;
        rw_connection_mark_dirty(core, slot);
    }
    return (int32_t)accepted;
}

void rw_http_end_response(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!chunk_is_welcome(exchange)) return;
    if (exchange->flags & RW_X_SIZED_OUT && exchange->response_remaining > 0) {
        rw_exchange_note_cause(exchange, RW_ABORT_LENGTH);
        rw_connection_terminate(core, slot);
        return;
    }
    if (exchange->flags & RW_X_CHUNKED_OUT && !(exchange->flags & RW_X_HEAD) &&
        !write_body(core, slot, (const uint8_t *)"0\r\n\r\n", 5))
        return;
    exchange->flags &= ~(uint32_t)(RW_X_DRAIN_WANTED | RW_X_DRAIN_DUE);
    rw_http_response_complete(core, slot);
}

static void respond_abort(struct rw_core *core, struct rw_slot *slot) {
    uint32_t flags = rw_exchange_of(slot)->flags;
    if (!rw_exchange_awaits_response(rw_exchange_of(slot))) return;
    rw_exchange_note_cause(rw_exchange_of(slot), RW_ABORT_BY_HOST);
    /* A body that ends with the connection looks whole when that ends in order (RFC 9112 §8). */
    if (flags & RW_X_BEGUN && !(flags & (RW_X_SIZED_OUT | RW_X_CHUNKED_OUT))) rw_connection_reset(core, slot);
    else rw_connection_terminate(core, slot);
}

static void body_ack(struct rw_core *core, struct rw_slot *slot, uint32_t bytes, int kept) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!kept) {
        uint64_t released = bytes < exchange->body_held ? bytes : exchange->body_held;
        exchange->body_held -= released;
        rw_unfinished_remove(core, released);
    }
    if (exchange->phase != RW_HTTP_BODY) return;
    exchange->body_unacked -= bytes < exchange->body_unacked ? bytes : exchange->body_unacked;
    if (slot->input_bytes && !rw_http_body_waits(core, slot)) rw_connection_mark_ready(core, slot);
    rw_http_update_pause(core, slot);
}

static int32_t upgrade(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                       const uint8_t *data, uint64_t bytes) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    uint32_t behavior = command->arg0 & (RW_BEHAVIORS_MAX - 1);
    uint32_t leading_bytes = command->arg0 >> 8;
    uint32_t offer_bytes = command->arg1;
    if ((uint64_t)offer_bytes + leading_bytes > bytes) return RW_ERR_INVALID;
    if (!(exchange->flags & RW_X_UPGRADE) || exchange->phase != RW_HTTP_RECEIVED ||
        exchange->flags & (RW_X_BEGUN | RW_X_ANSWERED_BY_CORE))
        return RW_ERR_STALE;
    const uint8_t *leading = data + offer_bytes;
    const uint8_t *trailing = leading + leading_bytes;
    uint64_t room = FRAMING_BYTES_MAX + RW_DEFLATE_HEADER_BYTES_MAX + bytes;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return RW_ERR_STALE;
    uint8_t *out = put_text(start, "HTTP/1.1 101 Switching Protocols\r\n");
    out = put_bytes(out, leading, leading_bytes);
    out = put_text(out, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    char accept[RW_WS_ACCEPT_BYTES];
    rw_ws_accept(exchange->ws_accept_key, accept);
    out = put_bytes(out, (const uint8_t *)accept, RW_WS_ACCEPT_BYTES);
    out = put_text(out, "\r\n");
    out = put_bytes(out, trailing, (size_t)(bytes - offer_bytes - leading_bytes));
    struct rw_deflate_terms deflate;
    out = rw_deflate_answer(core, behavior, data, offer_bytes, &deflate, out);
    out = put_date(core, out);
    out = put_text(out, "\r\n");
    commit(core, slot, start, out, room);
    count_status(core, 101);
    rw_client_is_told(slot, exchange->forwarded_address, exchange->forwarded_bytes);
    RW_GAUGE(core, connections_http, core->stats->connections_http - 1);
    rw_ws_open(core, slot, behavior, command->flags & RW_UPGRADE_QUIET);
    rw_deflate_keep(slot, &deflate);
    return RW_OK;
}

void rw_http_write_refusal(struct rw_core *core, struct rw_slot *slot, uint32_t status, const char *extra,
                           const char *why) {
    const char *reason = reason_of(status);
    const char *between = why ? ": " : "";
    if (!why) why = "";
    size_t body_bytes = strlen(reason) + strlen(between) + strlen(why);
    uint64_t room = FRAMING_BYTES_MAX + strlen(extra) + body_bytes + 64;
    uint8_t *start = reserve(core, slot, room);
    if (!start) return;
    uint8_t *out = put_status_line(start, status);
    out = put_text(out, "Content-Type: text/plain\r\n");
    out = put_text(out, extra);
    out = put_text(out, "Connection: close\r\n");
    out = put_date(core, out);
    out = put_length(out, body_bytes);
    out = put_text(out, "\r\n");
    out = put_text(out, reason);
    out = put_text(out, between);
    out = put_text(out, why);
    commit(core, slot, start, out, room);
    count_status(core, status);
}

void rw_http_write_continue(struct rw_core *core, struct rw_slot *slot) {
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (write_body(core, slot, (const uint8_t *)line, sizeof line - 1)) RW_COUNT(core, responses_1xx, 1);
}

/* ------------------------------------------------------------------ the host's commands */

int32_t rw_http_command(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                        const uint8_t *data, uint64_t bytes) {
    if (rw_exchange_of(slot)->request != command->request || command->stream != 0) return RW_ERR_STALE;
    switch ((enum rw_command_type)command->type) {
        case RW_COMMAND_RESPOND: respond(core, slot, command, data, bytes); return RW_OK;
        case RW_COMMAND_RESPOND_BEGIN: respond_begin(core, slot, command, data, bytes); return RW_OK;
        case RW_COMMAND_RESPOND_CHUNK: respond_chunk(core, slot, data, bytes); return RW_OK;
        case RW_COMMAND_RESPOND_END:
            if (command->flags & RW_RESPOND_CLOSE && rw_exchange_awaits_response(rw_exchange_of(slot)))
                rw_exchange_of(slot)->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
            rw_http_end_response(core, slot);
            return RW_OK;
        case RW_COMMAND_RESPOND_ABORT: respond_abort(core, slot); return RW_OK;
        case RW_COMMAND_BODY_ACK:
            body_ack(core, slot, command->arg0, (command->flags & RW_BODY_KEPT) != 0);
            return RW_OK;
        case RW_COMMAND_RESPOND_TRY: return respond_try(core, slot, data, bytes);
        case RW_COMMAND_UPGRADE: return upgrade(core, slot, command, data, bytes);
        case RW_COMMAND_RESPOND_EVENT: return rw_http_events_say(core, slot, data, bytes);
        case RW_COMMAND_RESPOND_PLACES: return rw_http_events_places(core, slot, data, bytes);
        default: return RW_ERR_INVALID;
    }
}
