/* Ranges of trusted addresses, see trusted.h. Invariant: first and last hold no bit that their masks lack. */
#include "connection/trusted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/load.h"

struct rw_trusted_range {
    uint64_t first, first_mask; /* the first eight bytes, in host order */
    uint64_t last, last_mask;
};

static const uint8_t v4_prefix[12] = {[10] = 0xFF, [11] = 0xFF}; /* RFC 4291 §2.5.5.2 */

static uint64_t load_big_endian_64(const uint8_t *from) { return __builtin_bswap64(rw_load_64(from)); }

/* bits: 0..64 */
static uint64_t mask_of(uint32_t bits) { return bits == 0 ? 0 : UINT64_MAX << (64 - bits); }

int32_t rw_trusted_set(struct rw_trusted *trusted, const struct rw_address_range *ranges, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        if (ranges[i].prefix_bits > 128) return RW_ERR_INVALID;
    }
    struct rw_trusted_range *made = count ? calloc(count, sizeof *made) : NULL;
    if (count && !made) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits = ranges[i].prefix_bits;
        made[i].first_mask = mask_of(bits < 64 ? bits : 64);
        made[i].last_mask = mask_of(bits < 64 ? 0 : bits - 64);
        made[i].first = load_big_endian_64(ranges[i].address) & made[i].first_mask;
        made[i].last = load_big_endian_64(ranges[i].address + 8) & made[i].last_mask;
    }
    free(trusted->ranges);
    *trusted = (struct rw_trusted){made, count};
    return RW_OK;
}

void rw_trusted_clear(struct rw_trusted *trusted) { (void)rw_trusted_set(trusted, NULL, 0); }

int rw_trusted_has(const struct rw_trusted *trusted, const uint8_t *ip) {
    uint64_t first = load_big_endian_64(ip), last = load_big_endian_64(ip + 8);
    for (uint32_t i = 0; i < trusted->count; i++) {
        const struct rw_trusted_range *range = &trusted->ranges[i];
        if ((first & range->first_mask) == range->first && (last & range->last_mask) == range->last) return 1;
    }
    return 0;
}

void rw_ip_widen(uint8_t *ip, const uint8_t *address, uint32_t bytes) {
    if (bytes == 16) {
        memcpy(ip, address, 16);
        return;
    }
    memcpy(ip, v4_prefix, sizeof v4_prefix);
    memcpy(ip + sizeof v4_prefix, address, 4);
}

int rw_ip_is_v4(const uint8_t *ip) { return memcmp(ip, v4_prefix, sizeof v4_prefix) == 0; }
