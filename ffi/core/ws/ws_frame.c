/* WebSocket framing facts: header decode and encode, masking, close codes.
 * Role: pure functions, no allocation, no state. Up: ws (and the fuzzers). Down: nothing.
 * Invariants: nothing outside bytes[0..len) is read, which the tests prove with a guard page after the
 * last byte; *frame and *dst are written only where the header says so. */
#include "ws/ws_frame.h"

#include <assert.h>
#include <string.h>

#include "base/limits.h"
#include "base/load.h"

/* rw_ws_mask() turns the mask by rotating it as a number, and every machine io_uring serves us on is little-endian. */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the masking words assume little-endian loads");

#define WS_FIN 0x80u
#define WS_RSV1 0x40u
#define WS_RSV2_RSV3 0x30u
#define WS_OPCODE 0x0Fu
#define WS_CONTROL 0x08u /* RFC 6455 §5.5: opcodes with this bit are control frames */
#define WS_MASKED 0x80u
#define WS_LENGTH 0x7Fu
#define WS_LENGTH_16 126u /* the next 2 bytes are the length */
#define WS_LENGTH_64 127u /* the next 8 bytes are the length */

/* ret: 0, or what is wrong with a header's first byte */
static int32_t first_byte_error(uint8_t first, int rsv1_allowed) {
    const unsigned opcode = first & WS_OPCODE;

    if (first & WS_RSV2_RSV3) return RW_WS_ERR_RSV;
    switch (opcode) {
        case RW_WS_OP_TEXT:
        case RW_WS_OP_BINARY: return (first & WS_RSV1) && !rsv1_allowed ? RW_WS_ERR_RSV : 0;
        case RW_WS_OP_CONTINUATION:
            /* RFC 7692 §6.1: RSV1 says "compressed" on the first frame of a message and on no other. */
            return first & WS_RSV1 ? RW_WS_ERR_RSV : 0;
        case RW_WS_OP_CLOSE:
        case RW_WS_OP_PING:
        case RW_WS_OP_PONG:
            if (first & WS_RSV1) return RW_WS_ERR_RSV;
            return first & WS_FIN ? 0 : RW_WS_ERR_CONTROL; /* RFC 6455 §5.5: never fragmented */
        default: return RW_WS_ERR_OPCODE;
    }
}

/* Decode the 16-bit length at bytes[2..4). ret: >0 header bytes before the mask | 0 | <0 */
static int32_t decode_length_16(const uint8_t *bytes, size_t len, uint64_t *payload_bytes) {
    if (len < 4) return 0;
    *payload_bytes = (uint64_t)bytes[2] << 8 | bytes[3];
    /* RFC 6455 §5.2: the minimal number of bytes must be used. */
    return *payload_bytes < WS_LENGTH_16 ? RW_WS_ERR_LENGTH : 4;
}

/* Decode the 64-bit length at bytes[2..10). ret: >0 header bytes before the mask | 0 | <0 */
static int32_t decode_length_64(const uint8_t *bytes, size_t len, uint64_t *payload_bytes) {
    const size_t have = len < 10 ? len : 10;
    uint64_t value = 0;

    for (size_t i = 2; i < have; i++) value = value << 8 | bytes[i];
    /* RFC 6455 §5.2: the most significant bit must be 0; its byte is the first to arrive. */
    if (len > 2 && bytes[2] & 0x80u) return RW_WS_ERR_LENGTH;
    /* Six zero bytes leave at most 65535, which has a shorter form: no need to wait for the last two. */
    if (len >= 8 && value >> (8 * (have - 8)) == 0) return RW_WS_ERR_LENGTH;
    if (len < 10) return 0;
    *payload_bytes = value;
    return 10;
}

int32_t rw_ws_decode_header(const uint8_t *bytes, size_t len, int rsv1_allowed, struct rw_ws_frame *frame) {
    if (len == 0) return 0;
    const int32_t error = first_byte_error(bytes[0], rsv1_allowed);
    if (error != 0) return error;
    if (len == 1) return 0;

    /* RFC 6455 §5.1: a server closes the connection upon a frame that is not masked. */
    if (!(bytes[1] & WS_MASKED)) return RW_WS_ERR_MASK;
    const uint8_t length = bytes[1] & WS_LENGTH;
    if ((bytes[0] & WS_CONTROL) && length > RW_WS_CONTROL_BYTES_MAX) return RW_WS_ERR_CONTROL;

    uint64_t payload_bytes = length;
    int32_t at = 2;
    if (length == WS_LENGTH_16) at = decode_length_16(bytes, len, &payload_bytes);
    else if (length == WS_LENGTH_64) at = decode_length_64(bytes, len, &payload_bytes);
    if (at <= 0) return at;
    if (len < (size_t)at + 4) return 0;

    frame->payload_bytes = payload_bytes;
    memcpy(frame->mask, bytes + at, 4);
    frame->opcode = bytes[0] & WS_OPCODE;
    frame->fin = (bytes[0] & WS_FIN) != 0;
    frame->rsv1 = (bytes[0] & WS_RSV1) != 0;
    frame->masked = 1;
    assert((uint32_t)at + 4 <= RW_WS_HEADER_BYTES_MAX);
    return at + 4;
}

uint32_t rw_ws_encode_header(uint8_t *out, uint8_t opcode, int fin, int rsv1, uint64_t payload_bytes) {
    assert(opcode <= WS_OPCODE);
    assert(!(opcode & WS_CONTROL) || (fin && !rsv1 && payload_bytes <= RW_WS_CONTROL_BYTES_MAX));
    assert(payload_bytes >> 63 == 0);

    out[0] = (uint8_t)((fin ? WS_FIN : 0u) | (rsv1 ? WS_RSV1 : 0u) | opcode);
    if (payload_bytes < WS_LENGTH_16) {
        out[1] = (uint8_t)payload_bytes;
        return 2;
    }
    if (payload_bytes <= UINT16_MAX) {
        out[1] = WS_LENGTH_16;
        out[2] = (uint8_t)(payload_bytes >> 8);
        out[3] = (uint8_t)payload_bytes;
        return 4;
    }
    out[1] = WS_LENGTH_64;
    for (unsigned i = 0; i < 8; i++) out[2 + i] = (uint8_t)(payload_bytes >> (56 - 8 * i));
    return 10;
}

/* ------------------------------------------------------------------ masking */

/* SSE2 on x86-64 and NEON on arm64, both always there. Wider registers would need a second copy chosen at
 * run time, and payloads past the first cache are bound by memory already. */
typedef uint64_t vector __attribute__((vector_size(16)));

static inline vector load_vector(const uint8_t *from) {
    vector words;
    memcpy(&words, from, sizeof(words));
    return words;
}

/* The mask as it stands `bytes` further on. The shift by 0 is kept apart: x << 32 is undefined for 32 bits. */
static inline uint32_t turn(uint32_t mask, size_t bytes) {
    const unsigned bits = (unsigned)(bytes & 3) * 8;
    return bits ? mask >> bits | mask << (32 - bits) : mask;
}

static inline uint64_t widen(uint32_t mask) { return (uint64_t)mask << 32 | mask; }

/* Mask len (0..32) bytes without a loop: two words, one from either end, which overlap in the middle. Both are
 * loaded before either is stored, so that dst == src does not mask the middle twice. */
static inline void mask_short(uint8_t *dst, const uint8_t *src, size_t len, uint32_t mask) {
    if (len >= 16) {
        const uint64_t head = widen(mask);
        const uint64_t tail = widen(turn(mask, len - 16));
        const vector first = load_vector(src) ^ (vector) { head, head };
        const vector last = load_vector(src + len - 16) ^ (vector) { tail, tail };
        memcpy(dst, &first, 16);
        memcpy(dst + len - 16, &last, 16);
    } else if (len >= 8) {
        const uint64_t first = rw_load_64(src) ^ widen(mask);
        const uint64_t last = rw_load_64(src + len - 8) ^ widen(turn(mask, len - 8));
        memcpy(dst, &first, 8);
        memcpy(dst + len - 8, &last, 8);
    } else if (len >= 4) {
        const uint32_t first = rw_load_32(src) ^ mask;
        const uint32_t last = rw_load_32(src + len - 4) ^ turn(mask, len - 4);
        memcpy(dst, &first, 4);
        memcpy(dst + len - 4, &last, 4);
    } else {
        for (size_t i = 0; i < len; i++) dst[i] = (uint8_t)(src[i] ^ mask >> (8 * i));
    }
}

void rw_ws_mask(uint8_t *dst, const uint8_t *src, size_t len, const uint8_t mask[4], uint32_t phase) {
    /* RFC 6455 §5.3: octet i of the payload is masked with octet i mod 4 of the key. */
    const uint32_t turned = turn(rw_load_32(mask), phase);
    const uint64_t wide = widen(turned);
    const vector key = {wide, wide};

    /* Steps of 32 bytes leave the phase as it is. */
    while (len > 32) {
        const vector first = load_vector(src) ^ key;
        const vector second = load_vector(src + 16) ^ key;
        memcpy(dst, &first, 16);
        memcpy(dst + 16, &second, 16);
        src += 32;
        dst += 32;
        len -= 32;
    }
    mask_short(dst, src, len, turned);
}

int rw_ws_close_code_valid(uint32_t code) {
    /* 1004 is reserved; 1005 and 1006 only ever stand for "none received" and "no close frame" (§7.4.1); 1012..1014 are
     * in IANA's registry; 1015 is a TLS failure and never on the wire. */
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}
