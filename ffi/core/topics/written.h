/* Text that is counted first and written then, by the same code: the second time there is exactly the room.
 * Role: for the dialects. Down: nothing. */
#ifndef RW_WRITTEN_H
#define RW_WRITTEN_H

#include <stdint.h>
#include <string.h>

struct rw_written {
    uint8_t *out; /* NULL: only count */
    uint64_t bytes;
};

static inline void rw_write_bytes(struct rw_written *written, const void *bytes, uint64_t len) {
    if (written->out && len) memcpy(written->out + written->bytes, bytes, (size_t)len);
    written->bytes += len;
}

/* A string literal, without its terminator. */
#define RW_WRITE(written, literal) rw_write_bytes(written, "" literal, sizeof(literal) - 1)

static inline void rw_write_decimal(struct rw_written *written, uint64_t value) {
    uint8_t digits[20];
    uint32_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value);
    rw_write_bytes(written, digits + at, sizeof digits - at);
}

/* Lower-case hex digits; width 1: no more than it needs, 16: all of them. */
static inline void rw_write_hex(struct rw_written *written, uint64_t value, uint32_t width) {
    uint8_t digits[16];
    uint32_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)"0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value || sizeof digits - at < width);
    rw_write_bytes(written, digits + at, sizeof digits - at);
}

#endif
