/* The two computations of the opening handshake (RFC 6455 §4.2.2). Role: pure functions. Up: ws, http. */
#ifndef RW_WS_HANDSHAKE_H
#define RW_WS_HANDSHAKE_H

#include <stddef.h>
#include <stdint.h>

#define RW_WS_KEY_BYTES 24u
#define RW_WS_ACCEPT_BYTES 28u

/* Is this the canonical base64 form of exactly 16 bytes? (§4.1: 24 characters, two of padding, unused bits zero) */
int rw_ws_key_valid(const uint8_t *key, size_t len);

/* Sec-WebSocket-Accept for a valid key. out: 28 characters, no terminator */
void rw_ws_accept(const uint8_t key[RW_WS_KEY_BYTES], char out[RW_WS_ACCEPT_BYTES]);

#endif
