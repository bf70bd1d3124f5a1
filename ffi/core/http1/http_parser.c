/* Request heads: bytes to facts.
 *
 * Role: rw_http_parse_head(). Up: http, which owns the bytes. Down: http_chars.h; the sibling http_chunked.c decodes
 * bodies.
 *
 * Two passes. The first walks from control character to control character (SIMD), so it sees every CR, LF and NUL: each
 * must be a CR that a LF follows. It stops at the empty line and leaves the line ends. The second cuts lines into
 * fields; it needs no bounds check within a line, because the line's own CR belongs to no class and stops every loop.
 *
 * Invariants: a pure function of bytes[0..len), whatever cuts they came in: the first pass fails at a position, and the
 * second runs on complete heads only. Nothing at or past bytes[len] is read. *head is written on success alone. */
#include "http1/http_parser.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/http_chars.h"
#include "base/load.h"
#include "ringway.h"

enum {
    HTTP_BAD = -400,
    HTTP_TARGET_TOO_LONG = -414,
    HTTP_EXPECTATION = -417,
    HTTP_HEAD_TOO_LONG = -431,
    HTTP_CODING = -501,
    HTTP_VERSION = -505,
};

#define IS_DIGIT(c) ((c) >= '0' && (c) <= '9')
#define IS_HEX(c) (IS_DIGIT(c) || ((c) >= 'A' && (c) <= 'F') || ((c) >= 'a' && (c) <= 'f'))

#define SCANNED_REQUEST_LINE (1u << 31)
static_assert(RW_HEAD_BYTES_MAX < SCANNED_REQUEST_LINE, "an offset leaves the flag's bit free");
static_assert(RW_HEAD_BYTES_MAX <= UINT16_MAX, "an offset fits a span");

/* What one call knows. Left uninitialised where a count says how much is valid: clearing 2.5 KB would cost more than
 * parsing. */
struct parse {
    const uint8_t *bytes;
    const struct rw_http_limits *limits;
    size_t start; /* of the request line */
    size_t limit; /* how far a head may reach into what has come */
    uint32_t line_count;
    bool http10, has_host, close, keep_alive, expect_continue, expect_other;
    struct rw_span authority;                    /* of an absolute-form target; bytes 0: another form */
    struct rw_span coding;                       /* the first Transfer-Encoding value */
    uint32_t coding_count;                       /* how many lines there are of it */
    uint16_t line_ends[RW_HEADER_COUNT_MAX + 1]; /* offsets of CRs; [0] is the request line's */
    struct rw_http_head head;
};

static struct rw_span span_of(size_t from, size_t to) {
    return (struct rw_span){.offset = (uint16_t)from, .bytes = (uint16_t)(to - from)};
}

/* Does the span equal `word`, a literal of 4 to 24 lower-case letters, digits and "-", in any case? Setting bit 5 folds
 * exactly: no other character of a head maps into that alphabet but control characters, which no head that comes here
 * has. Inlined, so that a comparison is a few words against constants; the last word may overlap the one before it. */
__attribute__((always_inline)) static inline bool equals_folded(const uint8_t *bytes, struct rw_span span,
                                                                const char *word, size_t word_bytes) {
    const uint64_t fold = 0x2020202020202020u;
    const uint8_t *text = bytes + span.offset;
    if (span.bytes != word_bytes) return false;
    if (word_bytes < 8)
        return (rw_load_32(text) | (uint32_t)fold) == rw_load_32(word) &&
               (rw_load_32(text + word_bytes - 4) | (uint32_t)fold) == rw_load_32(word + word_bytes - 4);
    if (word_bytes > 16 && (rw_load_64(text + 8) | fold) != rw_load_64(word + 8)) return false;
    return (rw_load_64(text) | fold) == rw_load_64(word) &&
           (rw_load_64(text + word_bytes - 8) | fold) == rw_load_64(word + word_bytes - 8);
}
#define EQUALS(bytes, span, word) equals_folded((bytes), (span), (word), sizeof(word) - 1)

/* The next element of a comma-separated list. Empty ones are skipped (RFC 9110 §5.6.1.2). */
static bool list_next(const uint8_t *bytes, struct rw_span *rest, struct rw_span *item) {
    size_t at = rest->offset;
    const size_t end = at + rest->bytes;
    while (at < end && (bytes[at] == ',' || rw_http_is_space(bytes[at]))) at++;
    if (at == end) return false;
    size_t last = at;
    while (last < end && bytes[last] != ',') last++;
    *rest = span_of(last, end);
    while (rw_http_is_space(bytes[last - 1])) last--;
    *item = span_of(at, last);
    return true;
}

/* Port digits, as many as may be (RFC 3986 §3.2.3), but a number that is a port. */
static bool port_valid(const uint8_t *bytes, size_t at, size_t end) {
    uint32_t port = 0;
    for (; at < end; at++) {
        if (!IS_DIGIT(bytes[at])) return false;
        port = port * 10 + (uint32_t)(bytes[at] - '0');
        if (port > UINT16_MAX) return false;
    }
    return true;
}

/* IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) (RFC 3986 §3.2.2), in bytes[at..end) */
static bool future_address_valid(const uint8_t *bytes, size_t at, size_t end) {
    if (end - at < 4 || (bytes[at] | 0x20) != 'v') return false;
    const size_t version = ++at;
    while (at < end && IS_HEX(bytes[at])) at++;
    if (at == version || at == end || bytes[at] != '.') return false;
    const size_t address = ++at;
    while (at < end && (rw_http_char_is(bytes[at], RW_CHAR_NAME) || bytes[at] == ':')) at++;
    return at > address && at == end;
}

static uint8_t hex_value(uint8_t digit) { return (uint8_t)(IS_DIGIT(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10); }

/* pct-encoded of what may stand in a name, or of an octet of UTF-8. A delimiter or a control character in this dress
 * would be the end of the host to a parser that decodes first: refused, although RFC 3986 §3.2.2 has it. */
static bool encoded_name_char(const uint8_t *bytes, size_t at, size_t end) {
    if (bytes[at] != '%' || end - at < 3 || !IS_HEX(bytes[at + 1]) || !IS_HEX(bytes[at + 2])) return false;
    const uint8_t decoded = (uint8_t)(hex_value(bytes[at + 1]) << 4 | hex_value(bytes[at + 2]));
    return decoded >= 0x80 || rw_http_char_is(decoded, RW_CHAR_NAME);
}

/* reg-name = *( unreserved / pct-encoded / sub-delims ) (RFC 3986 §3.2.2), from bytes[at] on. ret: where it ends */
static size_t registered_name_end(const uint8_t *bytes, size_t at, size_t end) {
    while (at < end) {
        if (rw_http_char_is(bytes[at], RW_CHAR_NAME)) at++;
        else if (encoded_name_char(bytes, at, end)) at += 3;
        else break;
    }
    return at;
}

/* uri-host [":" port] (RFC 9110 §7.2) with a host that is not empty (§4.2.1). No zone (RFC 9110 knows none), no
 * userinfo (§4.2.4). */
static bool authority_valid(const uint8_t *bytes, struct rw_span span) {
    size_t at = span.offset;
    const size_t end = at + span.bytes;
    if (span.bytes == 0) return false;
    if (bytes[at] == '[') {
        char address[INET6_ADDRSTRLEN];
        struct in6_addr parsed;
        const uint8_t *close = memchr(bytes + at, ']', end - at);
        if (close == NULL) return false;
        const size_t address_bytes = (size_t)(close - bytes) - at - 1;
        if (!future_address_valid(bytes, at + 1, at + 1 + address_bytes)) {
            if (address_bytes >= sizeof(address)) return false;
            memcpy(address, bytes + at + 1, address_bytes);
            address[address_bytes] = '\0';
            if (inet_pton(AF_INET6, address, &parsed) != 1) return false;
        }
        at = (size_t)(close - bytes) + 1;
    } else {
        at = registered_name_end(bytes, at, end);
        if (at == span.offset) return false;
    }
    return at == end || (bytes[at] == ':' && port_valid(bytes, at + 1, end));
}

/* Method names are case-sensitive (RFC 9110 §9.1). */
static uint32_t method_of(const uint8_t *name, size_t bytes) {
#define IS(word) (memcmp(name, word, sizeof(word) - 1) == 0)
    switch (bytes) {
        case 3: return IS("GET") ? RW_METHOD_GET : IS("PUT") ? RW_METHOD_PUT : RW_METHOD_OTHER;
        case 4: return IS("POST") ? RW_METHOD_POST : IS("HEAD") ? RW_METHOD_HEAD : RW_METHOD_OTHER;
        case 5: return IS("PATCH") ? RW_METHOD_PATCH : IS("TRACE") ? RW_METHOD_TRACE : RW_METHOD_OTHER;
        case 6: return IS("DELETE") ? RW_METHOD_DELETE : RW_METHOD_OTHER;
        case 7: return IS("OPTIONS") ? RW_METHOD_OPTIONS : IS("CONNECT") ? RW_METHOD_CONNECT : RW_METHOD_OTHER;
        default: return RW_METHOD_OTHER;
    }
#undef IS
}

/* absolute-form (RFC 9112 §3.2.2): the target becomes what follows the authority. */
static int32_t parse_absolute_target(struct parse *p) {
    const uint8_t *bytes = p->bytes;
    const size_t offset = p->head.target.offset;
    const size_t end = offset + p->head.target.bytes;
    const uint8_t *colon = memchr(bytes + offset, ':', end - offset);
    if (colon == NULL) return HTTP_BAD;
    size_t at = (size_t)(colon - bytes);
    const struct rw_span scheme = span_of(offset, at);
    if (!EQUALS(bytes, scheme, "http") && !EQUALS(bytes, scheme, "https")) return HTTP_BAD;
    if (end - at < 3 || bytes[at + 1] != '/' || bytes[at + 2] != '/') return HTTP_BAD;
    at += 3;
    const size_t authority = at;
    while (at < end && bytes[at] != '/' && bytes[at] != '?') at++;
    p->authority = span_of(authority, at);
    p->head.target = span_of(at, end);
    return authority_valid(bytes, p->authority) ? RW_OK : HTTP_BAD;
}

/* Which form, and is it this method's? (RFC 9112 §3.2) */
static int32_t parse_target(struct parse *p) {
    const uint8_t *bytes = p->bytes;
    const struct rw_span target = p->head.target;
    if (p->head.method == RW_METHOD_CONNECT) {
        /* authority-form has a port that is not empty (§3.2.3, RFC 9110 §9.3.6). */
        const uint8_t last = bytes[target.offset + target.bytes - 1];
        if (!authority_valid(bytes, target) || !IS_DIGIT(last) ||
            memchr(bytes + target.offset, ':', target.bytes) == NULL)
            return HTTP_BAD;
        p->head.flags |= RW_HTTP_AUTHORITY;
        return RW_OK;
    }
    if (bytes[target.offset] == '/') return RW_OK;
    if (target.bytes == 1 && bytes[target.offset] == '*') {
        p->head.flags |= RW_HTTP_ASTERISK;
        return p->head.method == RW_METHOD_OPTIONS ? RW_OK : HTTP_BAD;
    }
    return parse_absolute_target(p);
}

/* method SP request-target SP HTTP-version, in bytes[start..end) (RFC 9112 §3): single spaces, nothing else. */
static int32_t parse_request_line(struct parse *p, size_t end) {
    const uint8_t *bytes = p->bytes;
    size_t at = p->start;
    while (rw_http_char_is(bytes[at], RW_CHAR_TOKEN)) at++;
    if (at == p->start || bytes[at] != ' ') return HTTP_BAD;
    p->head.method_name = span_of(p->start, at);
    p->head.method = method_of(bytes + p->start, at - p->start);
    p->head.flags = 0;
    p->authority = (struct rw_span){0};

    const size_t target = ++at;
    while (rw_http_char_is(bytes[at], RW_CHAR_TARGET)) at++;
    if (at == target || bytes[at] != ' ') return HTTP_BAD;
    if (at - target > p->limits->max_target_bytes) return HTTP_TARGET_TOO_LONG;
    p->head.target = span_of(target, at);

    const uint8_t *version = bytes + at + 1;
    if (end - at != 9 || memcmp(version, "HTTP/", 5) != 0 || !IS_DIGIT(version[5]) || version[6] != '.' ||
        !IS_DIGIT(version[7]))
        return HTTP_BAD;
    /* A minor version above ours is spoken to as ours (RFC 9110 §2.5). */
    if (version[5] != '1') return HTTP_VERSION;
    p->http10 = version[7] == '0';
    return parse_target(p);
}

/* Content-Length = 1*DIGIT, at most 2^63-1 (RFC 9110 §8.6). 19 digits cannot overflow 64 bits; more, even zeros, are
 * refused. */
static int32_t parse_length(struct parse *p, struct rw_span value) {
    if ((p->head.flags & RW_HTTP_HAS_LENGTH) != 0 || value.bytes == 0 || value.bytes > 19) return HTTP_BAD;
    uint64_t length = 0;
    for (size_t i = 0; i < value.bytes; i++) {
        const uint8_t digit = p->bytes[value.offset + i];
        if (!IS_DIGIT(digit)) return HTTP_BAD;
        length = length * 10 + (uint64_t)(digit - '0');
    }
    if (length > INT64_MAX) return HTTP_BAD;
    p->head.flags |= RW_HTTP_HAS_LENGTH;
    p->head.content_length = length;
    return RW_OK;
}

static int32_t parse_host(struct parse *p, struct rw_span value) {
    /* An empty value is how a client says that its URI has no authority (RFC 9112 §3.2). */
    if (p->has_host || (value.bytes != 0 && !authority_valid(p->bytes, value))) return HTTP_BAD;
    p->has_host = true;
    p->head.host = value;
    return RW_OK;
}

static void parse_connection(struct parse *p, struct rw_span value) {
    struct rw_span item;
    while (list_next(p->bytes, &value, &item)) {
        if (EQUALS(p->bytes, item, "close")) p->close = true;
        else if (EQUALS(p->bytes, item, "keep-alive")) p->keep_alive = true;
        else if (EQUALS(p->bytes, item, "upgrade")) p->head.flags |= RW_HTTP_CONNECTION_UPGRADE;
    }
}

static void parse_upgrade(struct parse *p, struct rw_span value) {
    struct rw_span item;
    while (list_next(p->bytes, &value, &item)) {
        if (EQUALS(p->bytes, item, "websocket")) p->head.flags |= RW_HTTP_UPGRADE_WEBSOCKET;
    }
}

static void parse_expect(struct parse *p, struct rw_span value) {
    struct rw_span item;
    while (list_next(p->bytes, &value, &item)) {
        if (EQUALS(p->bytes, item, "100-continue")) p->expect_continue = true;
        else p->expect_other = true;
    }
}

/* A field that two receivers could pick differently from when it came twice. */
static int32_t keep_single(struct rw_span *kept, struct rw_span value) {
    if (kept->offset != 0) return HTTP_BAD;
    *kept = value;
    return RW_OK;
}

/* The fields that change what the message means; all others only go into headers[]. */
static int32_t note_field(struct parse *p, struct rw_span name, struct rw_span value) {
    const uint8_t *bytes = p->bytes;
    switch (name.bytes) {
        case 4:
            if (EQUALS(bytes, name, "host")) return parse_host(p, value);
            break;
        case 6:
            if (EQUALS(bytes, name, "expect")) parse_expect(p, value);
            else if (EQUALS(bytes, name, "origin")) return keep_single(&p->head.origin, value);
            break;
        case 7:
            if (EQUALS(bytes, name, "upgrade")) parse_upgrade(p, value);
            break;
        case 10:
            if (EQUALS(bytes, name, "connection")) parse_connection(p, value);
            break;
        case 14:
            if (EQUALS(bytes, name, "content-length")) return parse_length(p, value);
            break;
        case 17:
            if (EQUALS(bytes, name, "sec-websocket-key")) return keep_single(&p->head.ws_key, value);
            if (EQUALS(bytes, name, "transfer-encoding") && p->coding_count++ == 0) p->coding = value;
            break;
        case 21:
            if (EQUALS(bytes, name, "sec-websocket-version")) return keep_single(&p->head.ws_version, value);
            break;
        case 22:
            if (EQUALS(bytes, name, "sec-websocket-protocol") && p->head.ws_protocol.offset == 0)
                p->head.ws_protocol = value;
            break;
        default: break;
    }
    return RW_OK;
}

/* field-name ":" OWS field-value OWS (RFC 9112 §5). A line that begins with white space is obs-fold (§5.2) and has no
 * name here; white space before the colon (§5.1) ends the name too early. The value's characters were judged by the
 * first pass. */
static int32_t parse_field(struct parse *p, size_t start, size_t end, struct rw_http_header *header) {
    const uint8_t *bytes = p->bytes;
    size_t colon = start;
    while (rw_http_char_is(bytes[colon], RW_CHAR_TOKEN)) colon++;
    if (colon == start || bytes[colon] != ':') return HTTP_BAD;
    size_t first = colon + 1;
    while (rw_http_is_space(bytes[first])) first++;
    while (end > first && rw_http_is_space(bytes[end - 1])) end--;
    *header = (struct rw_http_header){.name = span_of(start, colon), .value = span_of(first, end)};
    return note_field(p, header->name, header->value);
}

/* The codings of all lines, in order: they are one list (RFC 9110 §5.3). */
struct codings {
    uint32_t count, chunked_count;
    bool last_chunked, well_formed;
};

static void note_codings(const struct parse *p, struct rw_span value, struct codings *codings) {
    struct rw_span rest = value;
    struct rw_span item = {0};
    /* A list that begins or ends in a comma, or is empty, is one that two parsers may take for different ones. */
    codings->well_formed &=
        value.bytes != 0 && p->bytes[value.offset] != ',' && p->bytes[value.offset + value.bytes - 1] != ',';
    while (list_next(p->bytes, &rest, &item)) {
        codings->count++;
        codings->last_chunked = EQUALS(p->bytes, item, "chunked");
        codings->chunked_count += codings->last_chunked;
    }
}

/* Anything but exactly `chunked` on one line is refused; this says with what. A list that does not end in chunked, or
 * has it twice, has no length anyone can know: 400 (RFC 9112 §6.3, §7.1). A coding before chunked is one we do not
 * implement: 501 (§6.1). */
static int32_t judge_coding(const struct parse *p) {
    struct codings codings = {.well_formed = true};
    if (p->coding_count == 1 && EQUALS(p->bytes, p->coding, "chunked")) return RW_OK;
    for (uint32_t i = 0; i < p->head.header_count; i++)
        if (EQUALS(p->bytes, p->head.headers[i].name, "transfer-encoding"))
            note_codings(p, p->head.headers[i].value, &codings);
    const bool names_another =
        codings.count > 1 && codings.chunked_count == 1 && codings.last_chunked && codings.well_formed;
    return names_another ? HTTP_CODING : HTTP_BAD;
}

/* What only the whole set of fields can tell. */
static int32_t judge_message(struct parse *p) {
    struct rw_http_head *head = &p->head;
    if (!p->has_host && !p->http10) return HTTP_BAD; /* RFC 9112 §3.2 */
    if (p->coding_count > 0) {
        /* With Content-Length, or in HTTP/1.0, one of two parsers would ignore it (RFC 9112 §6.1). */
        if (p->http10 || (head->flags & RW_HTTP_HAS_LENGTH) != 0) return HTTP_BAD;
        const int32_t result = judge_coding(p);
        if (result < 0) return result;
        head->flags |= RW_HTTP_CHUNKED;
    }
    if (p->expect_other) return HTTP_EXPECTATION;
    /* An expectation in HTTP/1.0 is ignored (RFC 9110 §10.1.1). */
    if (p->expect_continue && !p->http10 && (p->coding_count > 0 || head->content_length > 0))
        head->flags |= RW_HTTP_EXPECT_CONTINUE;
    if (p->http10) head->flags |= RW_HTTP_10;
    /* RFC 9112 §9.3: close wins; HTTP/1.0 must ask to stay. */
    if (!p->close && (!p->http10 || p->keep_alive)) head->flags |= RW_HTTP_KEEP_ALIVE;
    if (p->authority.bytes != 0) head->host = p->authority;
    return RW_OK;
}

static int32_t parse_fields(struct parse *p) {
    struct rw_http_head *head = &p->head;
    head->header_count = p->line_count - 1;
    if (head->header_count > p->limits->max_header_count) return HTTP_HEAD_TOO_LONG;
    head->content_length = 0;
    head->host = head->ws_key = head->ws_version = head->ws_protocol = head->origin = p->coding = (struct rw_span){0};
    p->coding_count = 0;
    p->has_host = p->close = p->keep_alive = p->expect_continue = p->expect_other = false;
    for (uint32_t i = 0; i < head->header_count; i++) {
        const int32_t result = parse_field(p, p->line_ends[i] + 2u, p->line_ends[i + 1], &head->headers[i]);
        if (result < 0) return result;
    }
    return judge_message(p);
}

/* The first pass, on from `from`, where a line or the middle of one begins (never between CR and LF).
 * out: *scanned, when more is needed
 * ret: >0 the end of the head | 0 no end before p->limit | <0 */
static int32_t find_end(struct parse *p, size_t from, bool request_line_done, uint32_t *scanned) {
    const uint8_t *bytes = p->bytes;
    size_t at = from;
    p->line_count = 0;
    for (;;) {
        const size_t control = rw_http_find_control(bytes, at, p->limit);
        if (control < p->limit && bytes[control] != '\r')
            return HTTP_BAD; /* bare LF (RFC 9112 §2.2), NUL or another control character (RFC 9110 §5.5) */
        if (p->limit - control < 2) {
            *scanned = (uint32_t)control | (request_line_done ? SCANNED_REQUEST_LINE : 0);
            return 0;
        }
        if (bytes[control + 1] != '\n' || control == p->start)
            return HTTP_BAD; /* bare CR (RFC 9112 §2.2), or a third empty line before the request */
        at = control + 2;
        if (bytes[control - 1] == '\n') return (int32_t)at;
        if (!request_line_done) {
            const int32_t result = parse_request_line(p, control);
            if (result < 0) return result;
            request_line_done = true;
        }
        if (p->line_count <= RW_HEADER_COUNT_MAX) p->line_ends[p->line_count] = (uint16_t)control;
        p->line_count++;
    }
}

int32_t rw_http_parse_head(const uint8_t *bytes, size_t len, const struct rw_http_limits *limits, uint32_t *scanned,
                           struct rw_http_head *head) {
    assert(limits->max_head_bytes <= RW_HEAD_BYTES_MAX);
    assert(limits->max_header_count <= RW_HEADER_COUNT_MAX);
    struct parse p;
    p.bytes = bytes;
    p.limits = limits;
    p.limit = len < limits->max_head_bytes ? len : limits->max_head_bytes;
    p.start = 0;
    while (p.start < 4 && p.limit - p.start >= 2 && bytes[p.start] == '\r' && bytes[p.start + 1] == '\n') p.start += 2;

    const size_t reached = *scanned & ~SCANNED_REQUEST_LINE;
    const bool resumed = reached > p.start;
    const bool request_line_done = (*scanned & SCANNED_REQUEST_LINE) != 0;
    assert(reached <= len);
    int32_t end = find_end(&p, resumed ? reached : p.start, request_line_done, scanned);
    /* Line ends found by earlier calls are not kept: look for all of them, once. */
    if (end > 0 && resumed) end = find_end(&p, p.start, false, scanned);
    if (end < 0) return end;
    if (end == 0) {
        if (len <= limits->max_head_bytes) return 0;
        return (*scanned & SCANNED_REQUEST_LINE) != 0 ? HTTP_HEAD_TOO_LONG : HTTP_TARGET_TOO_LONG;
    }
    const int32_t result = parse_fields(&p);
    if (result < 0) return result;
    memcpy(head, &p.head, offsetof(struct rw_http_head, headers) + p.head.header_count * sizeof(p.head.headers[0]));
    return end;
}
