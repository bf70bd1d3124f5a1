/* Bytes as text, see base64.h. */
#include "base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The three bytes of `group` as four characters. */
static void put_group(uint8_t *out, uint32_t group) {
    out[0] = (uint8_t)alphabet[group >> 18];
    out[1] = (uint8_t)alphabet[group >> 12 & 63];
    out[2] = (uint8_t)alphabet[group >> 6 & 63];
    out[3] = (uint8_t)alphabet[group & 63];
}

void rw_base64_encode(uint8_t *out, const uint8_t *bytes, uint64_t len) {
    while (len >= 3) {
        put_group(out, (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2]);
        out += 4;
        bytes += 3;
        len -= 3;
    }
    if (len == 0) return;
    put_group(out, (uint32_t)bytes[0] << 16 | (len == 2 ? (uint32_t)bytes[1] << 8 : 0));
    out[3] = '=';
    if (len == 1) out[2] = '=';
}
