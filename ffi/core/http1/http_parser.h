/* HTTP/1.1 parsing as pure functions: bytes in, offsets out; no allocation, no I/O, no state but what is passed.
 *
 * Role: turns a request head and chunked framing into facts. Up: http. Down: nothing. Strict: every ambiguity that lets
 * two parsers disagree is an error (RFC 9112 §2.2, §5.1, §5.2, §6.1, §6.3, §7.1, §11.2). */
#ifndef RW_HTTP_PARSER_H
#define RW_HTTP_PARSER_H

#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

/* A piece of the input: offset from its start, and length. */
struct rw_span {
    uint16_t offset;
    uint16_t bytes;
};

struct rw_http_header {
    struct rw_span name;  /* as received */
    struct rw_span value; /* optional whitespace trimmed */
};

enum rw_http_flag {
    RW_HTTP_KEEP_ALIVE = 1u << 0, /* the connection may be used again (RFC 9112 §9.3) */
    RW_HTTP_CHUNKED = 1u << 1,
    RW_HTTP_HAS_LENGTH = 1u << 2,      /* content_length was given */
    RW_HTTP_EXPECT_CONTINUE = 1u << 3, /* and there is a body to expect, and HTTP/1.1 */
    RW_HTTP_10 = 1u << 4,
    RW_HTTP_UPGRADE_WEBSOCKET = 1u << 5,  /* `Upgrade` lists websocket (any case); nothing else checked */
    RW_HTTP_CONNECTION_UPGRADE = 1u << 6, /* `Connection` lists upgrade */
    RW_HTTP_ASTERISK = 1u << 7,           /* target "*", only with OPTIONS */
    RW_HTTP_AUTHORITY = 1u << 8,          /* authority-form target, only with CONNECT */
};

struct rw_http_limits {
    uint32_t max_head_bytes;   /* whole head; past it 431 */
    uint32_t max_target_bytes; /* past it 414 */
    uint32_t max_header_count; /* past it 431; at most RW_HEADER_COUNT_MAX */
};

struct rw_http_head {
    uint32_t method; /* enum rw_method */
    uint32_t flags;
    struct rw_span method_name;
    /* Path and query: for absolute-form, what follows the authority: bytes 0 when that is nothing, and without a path
     * it begins with "?"; both mean the path "/" (RFC 9112 §3.2.1). */
    struct rw_span target;
    /* Authority: of the absolute-form target if there was one (RFC 9112 §3.2.2), else the Host value; may be empty
     * (offset 0: HTTP/1.0 without Host). Always uri-host [":" port] of RFC 3986 with a port of at most 65535; an IP
     * literal is in brackets, and what a name has as %XX is no delimiter and no control character. */
    struct rw_span host;
    uint64_t content_length; /* 0 without RW_HTTP_HAS_LENGTH; at most 2^63-1 */
    /* Fields the handshake needs; offset 0: absent (a present one may be empty). A repeated Sec-WebSocket-Key,
     * Sec-WebSocket-Version or Origin is 400. Sec-WebSocket-Protocol is a list and may repeat: ws_protocol is its first
     * line, headers[] has all. */
    struct rw_span ws_key, ws_version, ws_protocol, origin;
    uint32_t header_count;
    struct rw_http_header headers[RW_HEADER_COUNT_MAX];
};

/* Parse one request head from bytes[0..len). Leading CRLFs before the request line are skipped, two at most (RFC 9112
 * §2.2).
 * in:  limits: max_head_bytes <= RW_HEAD_BYTES_MAX, max_header_count <= RW_HEADER_COUNT_MAX; bytes may move between
 * calls
 * scanned: in/out, 0 at first: how far earlier calls with a shorter len have looked for the end, so that feeding one
 * byte at a time is
 *      linear. Opaque: bit 31 tells that the request line was complete and valid.
 * out: *head, written only when the result is > 0; spans count from bytes[0]
 * ret: >0 bytes consumed, up to and with the empty line | 0 need more | <0 the negated status to answer:
 *      -400 malformed or ambiguous, -414 target too long, -431 head too long or too many fields, -501 a transfer coding
 *      before chunked (one that does not end in chunked is 400: RFC 9112 §6.3), -505 a major version other than 1, -417
 *      an expectation other than 100-continue The same bytes give the same result however they are cut; a bad request
 *      line is told as soon as its line ends, a control character at once, a bad field when the head is complete.
 *      With len > max_head_bytes and no end in sight the answer is -431 (or -414 while still in the request line). */
int32_t rw_http_parse_head(const uint8_t *bytes, size_t len, const struct rw_http_limits *limits, uint32_t *scanned,
                           struct rw_http_head *head);

/* Decoder for chunked bodies (RFC 9112 §7.1); all zero = start. */
struct rw_chunk_decoder {
    uint64_t remaining;       /* bytes left of the present chunk */
    uint16_t extension_bytes; /* seen so far, all chunks; at most RW_CHUNK_EXTENSION_BYTES_MAX */
    uint16_t trailer_bytes;   /* seen so far; at most RW_TRAILER_BYTES_MAX */
    uint8_t state;
    uint8_t digits;          /* of the present chunk size */
    uint8_t name_candidates; /* forbidden trailer names that the present one may still become: bits of http_chunked.c */
    uint8_t name_bytes;      /* of the present trailer name; stops counting past the longest candidate */
};

/* Decode from bytes[0..len) until data, the end, or more is needed.
 * out: *data, *data_bytes: a piece of body within the input (data_bytes 0: none)
 *      *consumed: input bytes used, the data included; 0 after an error, else > 0 when len > 0
 * ret: 1 the body is complete | 0 call again with what follows | -400 malformed (bare LF, bad size, size over 2^63-1,
 * bad extension, CR without LF,
 *      trailer malformed or a framing field in it), -413 extensions or trailers over their limit */
int32_t rw_http_decode_chunked(struct rw_chunk_decoder *decoder, const uint8_t *bytes, size_t len, const uint8_t **data,
                               size_t *data_bytes, size_t *consumed);

#endif
