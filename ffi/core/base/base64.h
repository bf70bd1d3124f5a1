/* Bytes as text: base64 with padding (RFC 4648 §4).
 * Role: pure functions. Up: ws_handshake, json_dialect, sse_dialect. Down: nothing. */
#ifndef RW_BASE64_H
#define RW_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* ret: how many characters `len` bytes become */
static inline uint64_t rw_base64_bytes(uint64_t len) { return (len + 2) / 3 * 4; }

/* bytes[0..len) as rw_base64_bytes(len) characters into out, without a terminator; they do not overlap. */
void rw_base64_encode(uint8_t *out, const uint8_t *bytes, uint64_t len);

#endif
