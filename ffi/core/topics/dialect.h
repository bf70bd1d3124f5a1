/* Dialects: the forms that a message of a topic takes for subscribers who are told more than its payload.
 *
 * Role: pure functions from a message to bytes, without allocation. Up: whoever frames a message once for all
 * subscribers of a kind (ws/publish.c). Down: base64, utf8, http_chars.
 *
 *   JSON   {"topic":"chat/1","epoch":"00c0ffee00c0ffee","offset":7,"data":"text"}
 *   SSE    id: 00c0ffee00c0ffee:7 ⏎ data: text ⏎ ⏎          and more fields, see below
 *
 * Every function gives the number of bytes and, unless `out` is NULL, writes exactly so many: ask first, then write.
 * Nothing of the input is trusted: whatever the bytes are, JSON stays JSON and an event stays one event. */
#ifndef RW_DIALECT_H
#define RW_DIALECT_H

#include <stdint.h>

enum rw_topic_event {
    RW_TOPIC_MESSAGE = 0,
    RW_TOPIC_JOIN = 1,  /* of the presence log: a user has come */
    RW_TOPIC_LEAVE = 2, /* and has gone */
    RW_TOPIC_LOST = 3,  /* messages up to this position are gone for this subscriber */
};

/* What is framed; all of it borrowed for the call. */
struct rw_topic_message {
    const uint8_t *topic;   /* its name as subscribers know it; what is not UTF-8 in it shows as U+FFFD */
    const uint8_t *payload; /* of RW_TOPIC_MESSAGE */
    const uint8_t *user;    /* of RW_TOPIC_JOIN and RW_TOPIC_LEAVE: text */
    const uint8_t *info;    /* of the same: one JSON value of the host's own making, which is not looked at */
    uint64_t payload_bytes;
    uint64_t epoch; /* 0: no position, the topic is direct */
    uint64_t offset;
    uint32_t topic_bytes;
    uint32_t user_bytes;
    uint32_t info_bytes; /* 0: there is none */
    uint8_t event;       /* enum rw_topic_event */
    uint8_t
        of_members;  /* of the presence log: its positions are not those of the topic; so of JOIN, LEAVE, and a LOST */
    uint8_t is_text; /* the payload is text (RW_SEND_TEXT); what is not UTF-8 in it shows as U+FFFD */
};

/* ------------------------------------------------------------------ json_dialect.c (RFC 8259) */

/* One JSON object on one line, in this order; what is in parentheses may be missing:
 *
 *   message      {"topic",("epoch","offset",)"data":"text"}    bytes: "base64" in the place of "data"
 *   join, leave  {"topic",("epoch","offset",)"event":"join","user"(,"info")}
 *   lost         {"topic",("epoch","offset",)"lost":true}       of members: "event":"presence" in front of "lost"
 *
 * epoch is a string of 16 hex digits, since JSON numbers of JavaScript have 53 bits. */
uint64_t rw_json_message(uint8_t *out, const struct rw_topic_message *message);

/* bytes[0..len) as a JSON string with its quotes. Malformed UTF-8 becomes U+FFFD, one for each maximal part of a
 * character (Unicode 15 §3.9, as the decoder of WHATWG Encoding does). */
uint64_t rw_json_string(uint8_t *out, const uint8_t *bytes, uint64_t len);

/* ------------------------------------------------------------------ sse_dialect.c (WHATWG HTML §9.2) */

#define RW_POSITION_TEXT_BYTES_MAX 37u /* 16 hex digits, ':', 20 digits */

/* A position as text, "<epoch>:<offset>": how subscribers name it in `since` and Last-Event-ID. */
uint64_t rw_position_text(uint8_t *out, uint64_t epoch, uint64_t offset);

/* A whole event for streams of one topic, as a chunk of HTTP/1.1 (RFC 9112 §7.1):
 *
 *   [ size CRLF ][ id: position ⏎ event: name ⏎ data: a line of the payload ⏎ … ⏎ ][ CRLF ]
 *     head_bytes                                                                    RW_SSE_TAIL_BYTES
 *
 * A response that is not chunked gets what lies between: one form serves both. Without a position there is no `id`, nor
 * with what is of members: a client keeps the last one it had. `event` is join, leave, lost, or base64 for a payload of bytes; a message of text
 * has none. Lines of a text end at CRLF, LF or CR, as a client reads them, and come out with LF. The data of all but
 * messages is the JSON object.
 * out: *head_bytes, also when only asked for the number of bytes */
uint64_t rw_sse_event(uint8_t *out, const struct rw_topic_message *message, uint32_t *head_bytes);

#define RW_SSE_TAIL_BYTES 2u

/* The same for streams of several topics: what all of them share, which is everything from behind the `id`, with the
 * CRLF of a chunk. The data is the JSON object, which says which topic. */
uint64_t rw_sse_shared(uint8_t *out, const struct rw_topic_message *message);

/* What goes in front of it on one stream: the size line of a chunk (chunked), and the id line with the positions of all
 * of the stream's topics, comma-separated, in which one of epoch 0 (it has no position) is "-".
 * in:  shared_bytes: what rw_sse_shared gave, 0 only with chunked 0. count 0: no id line */
struct rw_sse_position {
    uint64_t epoch, offset;
};
uint64_t rw_sse_front(uint8_t *out, const struct rw_sse_position *positions, uint32_t count, uint64_t shared_bytes,
                      int chunked);

#endif
