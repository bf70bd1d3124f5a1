/* What a client offers and what we agree to (RFC 7692 §7.1, RFC 6455 §9.1), as a pure function.
 * Role: Sec-WebSocket-Extensions → terms of permessage-deflate. Up: deflate. Down: nothing. An offer that cannot be
 * kept to the letter is declined, and the next one is looked at; a header that is not well-formed agrees to nothing. */
#ifndef RW_DEFLATE_NEGOTIATE_H
#define RW_DEFLATE_NEGOTIATE_H

#include <stddef.h>
#include <stdint.h>

/* zlib cannot write a raw stream for a window of 2^8 bytes: zlib.h, deflateInit2(). */
#define RW_DEFLATE_WINDOW_MIN 9u
#define RW_DEFLATE_WINDOW_MAX 15u
#define RW_DEFLATE_ANSWER_BYTES_MAX 128u

struct rw_deflate_terms {
    uint8_t agreed;
    uint8_t compresses;    /* messages of ours may be compressed */
    uint8_t send_takeover; /* our window lives from message to message: a dedicated compressor */
    uint8_t send_window;   /* windowBits that the client inflates with: 9..15 */
    /* windowBits of the client's takeover, 8..15: a dedicated decompressor; 0: none, every message begins anew */
    uint8_t receive_window;
};

/* Negotiate for a behavior whose rw_behavior.deflate is `deflate`.
 * in:  offer[0..len): the client's Sec-WebSocket-Extensions, several fields joined by commas; may_keep_window: 0: only
 * what needs no receive_window
 *      is agreed to
 * out: *terms, all 0 when nothing is agreed; answer[0..ret): the value of the answer's Sec-WebSocket-Extensions
 * ret: bytes of the answer, 0: nothing is agreed */
uint32_t rw_deflate_negotiate(uint32_t deflate, const uint8_t *offer, size_t len, int may_keep_window,
                              struct rw_deflate_terms *terms, uint8_t answer[RW_DEFLATE_ANSWER_BYTES_MAX]);

/* Does the value of one Sec-WebSocket-Extensions field follow the grammar (RFC 6455 §9.1), whatever it offers? An empty
 * one does: it offers nothing.
 * ret: 1 it does, 0 it is malformed */
int rw_deflate_offers_valid(const uint8_t *offer, size_t len);

/* The parts of rw_behavior.deflate. */
static inline uint32_t rw_deflate_wants_compressor(uint32_t deflate) { return (deflate & 0xFFu) != 0; }
/* 0: shared. zlib has no smaller windows, and windowBits has 4 bits. */
static inline uint32_t rw_deflate_wanted_window(uint32_t deflate) {
    uint32_t bits = deflate >> 4 & 0xFu;
    return (deflate & 0xFFu) <= 1 ? 0 : bits < RW_DEFLATE_WINDOW_MIN ? RW_DEFLATE_WINDOW_MIN : bits;
}
static inline uint32_t rw_deflate_wanted_memory(uint32_t deflate) {
    uint32_t level = deflate & 0xFu;
    return level < 1 ? 1 : level > 9 ? 9 : level;
}
static inline uint32_t rw_deflate_wanted_receive_window(uint32_t deflate) {
    uint32_t bits = deflate >> 8 & 0xFu;
    return bits <= 1 ? 0 : bits < RW_DEFLATE_WINDOW_MIN ? RW_DEFLATE_WINDOW_MIN : bits;
}
static inline int rw_deflate_answers_only_offered(uint32_t deflate) { return (deflate >> 12 & 1u) != 0; }

#endif
