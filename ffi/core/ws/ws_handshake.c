/* The opening handshake's two computations: is the key one, and what answers it.
 * Role: pure functions. Up: ws, http. Down: base64.
 *
 * SHA-1 is written out here because this is the only place that needs it: RFC 6455 uses it to show that the server read
 * the handshake, not to protect anything, and sixty lines weigh less than a dependency on a crypto library. */
#include "ws/ws_handshake.h"

#include <assert.h>
#include <string.h>

#include "base/base64.h"

static const char websocket_guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 §1.3 */

#define SHA1_BLOCK_BYTES 64u
#define SHA1_DIGEST_BYTES 20u
#define ACCEPT_INPUT_BYTES (RW_WS_KEY_BYTES + sizeof(websocket_guid) - 1)
/* 60 bytes of input, the 1-bit and the 8-byte length (RFC 3174 §4) always make two blocks. */
#define ACCEPT_PADDED_BYTES (2 * SHA1_BLOCK_BYTES)
static_assert(ACCEPT_INPUT_BYTES == 60, "24 bytes of key and 36 of GUID");
static_assert(ACCEPT_INPUT_BYTES + 1 + 8 > SHA1_BLOCK_BYTES && ACCEPT_INPUT_BYTES + 1 + 8 <= ACCEPT_PADDED_BYTES,
              "two blocks");
static_assert((SHA1_DIGEST_BYTES + 2) / 3 * 4 == RW_WS_ACCEPT_BYTES, "base64 of the digest");

/* ret: the 6 bits a base64 character stands for, -1 when it is none */
static int base64_value(uint8_t character) {
    if (character >= 'A' && character <= 'Z') return character - 'A';
    if (character >= 'a' && character <= 'z') return character - 'a' + 26;
    if (character >= '0' && character <= '9') return character - '0' + 52;
    if (character == '+') return 62;
    return character == '/' ? 63 : -1;
}

int rw_ws_key_valid(const uint8_t *key, size_t len) {
    if (len != RW_WS_KEY_BYTES || key[22] != '=' || key[23] != '=') return 0;
    for (size_t i = 0; i < 22; i++)
        if (base64_value(key[i]) < 0) return 0;
    /* 21 characters carry 126 of the 128 bits: the 22nd has two more and four that must be zero (RFC 4648 §3.5). */
    return (base64_value(key[21]) & 0x0F) == 0;
}

static inline uint32_t rotate_left(uint32_t word, unsigned bits) { return word << bits | word >> (32 - bits); }

static inline uint32_t load_big_endian_32(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static inline void store_big_endian_32(uint8_t *to, uint32_t word) {
    to[0] = (uint8_t)(word >> 24);
    to[1] = (uint8_t)(word >> 16);
    to[2] = (uint8_t)(word >> 8);
    to[3] = (uint8_t)word;
}

/* RFC 3174 §5: f(t; B, C, D) + K(t) */
static inline uint32_t sha1_round(unsigned t, uint32_t b, uint32_t c, uint32_t d) {
    if (t < 20) return ((b & c) | (~b & d)) + 0x5A827999u;
    if (t < 40) return (b ^ c ^ d) + 0x6ED9EBA1u;
    if (t < 60) return ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDCu;
    return (b ^ c ^ d) + 0xCA62C1D6u;
}

/* Take one block into the digest (RFC 3174 §6.1). */
static void sha1_block(uint32_t digest[5], const uint8_t block[SHA1_BLOCK_BYTES]) {
    uint32_t w[80];
    for (unsigned t = 0; t < 16; t++) w[t] = load_big_endian_32(block + (size_t)t * 4);
    for (unsigned t = 16; t < 80; t++) w[t] = rotate_left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);

    uint32_t a = digest[0], b = digest[1], c = digest[2], d = digest[3], e = digest[4];
    for (unsigned t = 0; t < 80; t++) {
        const uint32_t next = rotate_left(a, 5) + sha1_round(t, b, c, d) + e + w[t];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    digest[0] += a;
    digest[1] += b;
    digest[2] += c;
    digest[3] += d;
    digest[4] += e;
}

void rw_ws_accept(const uint8_t key[RW_WS_KEY_BYTES], char out[RW_WS_ACCEPT_BYTES]) {
    uint8_t message[ACCEPT_PADDED_BYTES] = {0};
    memcpy(message, key, RW_WS_KEY_BYTES);
    memcpy(message + RW_WS_KEY_BYTES, websocket_guid, sizeof(websocket_guid) - 1);
    message[ACCEPT_INPUT_BYTES] = 0x80;
    store_big_endian_32(message + ACCEPT_PADDED_BYTES - 4, (uint32_t)ACCEPT_INPUT_BYTES * 8);

    uint32_t digest[5] = {0x67452301u, 0xEFCDAB89u, 0x98BADCFEu, 0x10325476u, 0xC3D2E1F0u};
    sha1_block(digest, message);
    sha1_block(digest, message + SHA1_BLOCK_BYTES);

    uint8_t bytes[SHA1_DIGEST_BYTES];
    for (size_t i = 0; i < 5; i++) store_big_endian_32(bytes + i * 4, digest[i]);
    rw_base64_encode((uint8_t *)out, bytes, SHA1_DIGEST_BYTES);
}
