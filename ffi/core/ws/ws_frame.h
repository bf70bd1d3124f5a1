/* WebSocket frame headers, masking and close codes as pure functions (RFC 6455 §5, §7.4).
 * Role: framing facts. Up: ws. Down: nothing. */
#ifndef RW_WS_FRAME_H
#define RW_WS_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum rw_ws_opcode {
    RW_WS_OP_CONTINUATION = 0x0,
    RW_WS_OP_TEXT = 0x1,
    RW_WS_OP_BINARY = 0x2,
    RW_WS_OP_CLOSE = 0x8,
    RW_WS_OP_PING = 0x9,
    RW_WS_OP_PONG = 0xA,
};

struct rw_ws_frame {
    uint64_t payload_bytes;
    uint8_t mask[4];
    uint8_t opcode; /* enum rw_ws_opcode */
    uint8_t fin;
    uint8_t rsv1;
    uint8_t masked;
};

enum rw_ws_error {
    RW_WS_ERR_RSV = -6001,     /* RSV2, RSV3, or RSV1 where it is not allowed → 1002 */
    RW_WS_ERR_OPCODE = -6002,  /* reserved opcode → 1002 */
    RW_WS_ERR_CONTROL = -6003, /* control frame fragmented or longer than 125 → 1002 */
    RW_WS_ERR_LENGTH = -6004,  /* length not in its shortest form, or bit 63 set → 1002 */
    RW_WS_ERR_MASK = -6005,    /* client frame without mask → 1002 */
};

/* Decode one frame header of a client from bytes[0..len).
 * in:  rsv1_allowed: permessage-deflate was agreed (RSV1 still refused on control and continuation frames)
 * out: *frame, written only when the result is > 0
 * ret: >0 header bytes consumed (2..14) | 0 need more | <0 enum rw_ws_error, at the first byte that shows it
 * src: RFC 6455 §5.2 */
int32_t rw_ws_decode_header(const uint8_t *bytes, size_t len, int rsv1_allowed, struct rw_ws_frame *frame);

/* Encode a server frame header (never masked) into out[0..10]. ret: its length, 2, 4 or 10 */
uint32_t rw_ws_encode_header(uint8_t *out, uint8_t opcode, int fin, int rsv1, uint64_t payload_bytes);

/* dst[i] = src[i] ^ mask[(phase + i) & 3]. dst may be src; they must not overlap otherwise. */
void rw_ws_mask(uint8_t *dst, const uint8_t *src, size_t len, const uint8_t mask[4], uint32_t phase);

/* May a peer send this close code? (RFC 6455 §7.4: 1000..1003, 1007..1014, 3000..4999) */
int rw_ws_close_code_valid(uint32_t code);

#endif
