/* Any bytes as X-Forwarded-For or Forwarded: elements come from the right and come to an end, and what a proxy appends
 * to any bytes at all is read exactly as it was appended. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_input.h"
#include "http1/forwarded.h"

static int32_t last(uint32_t header, const uint8_t *data, size_t size, struct rw_forwarded_hop *hop) {
    memset(hop, 0xEE, sizeof *hop);
    int32_t before = rw_forwarded_last(header, data, size, hop);
    CHECK(before >= -1 && before < (int32_t)size + (size == 0));
    CHECK(before < 0 || data[before] == ',');
    CHECK(hop->address_bytes == 0 || hop->address_bytes == 4 || hop->address_bytes == 16);
    return before;
}

/* In memory of its own, so that a sanitizer sees a byte too far. */
static void expect_appended(uint32_t header, const uint8_t *data, size_t size, const char *appended) {
    static const uint8_t address[4] = {192, 0, 2, 1};
    size_t bytes = strlen(appended);
    uint8_t *value = malloc(size + bytes);
    CHECK(value);
    if (size) memcpy(value, data, size);
    memcpy(value + size, appended, bytes);
    struct rw_forwarded_hop hop;
    CHECK(last(header, value, size + bytes, &hop) == (int32_t)size);
    CHECK(hop.address_bytes == 4 && memcmp(hop.address, address, 4) == 0);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 65535) return 0;
    uint32_t header = data[0] & 1 ? RW_PROXY_HEADER_FORWARDED : RW_PROXY_HEADER_X_FORWARDED_FOR;
    uint8_t *copy = malloc(size);
    CHECK(copy);
    size_t bytes = size - 1;
    memcpy(copy, data + 1, bytes);
    uint32_t elements = 0, commas = 0;
    for (size_t i = 0; i < bytes; i++) commas += copy[i] == ',';
    int32_t left = (int32_t)bytes;
    while (left >= 0) {
        struct rw_forwarded_hop hop;
        /* Moved to the end of its memory: nothing is read behind. */
        uint8_t *part = malloc((size_t)left ? (size_t)left : 1);
        CHECK(part);
        memcpy(part, copy, (size_t)left);
        left = last(header, part, (size_t)left, &hop);
        free(part);
        if (++elements > 64) break; /* enough of a long list */
    }
    CHECK(elements <= commas + 1);
    CHECK(header == RW_PROXY_HEADER_FORWARDED || elements > 64 || elements == commas + 1);
    if (header == RW_PROXY_HEADER_FORWARDED) {
        expect_appended(header, copy, bytes, ", for=192.0.2.1");
        expect_appended(header, copy, bytes, ",proto=https;for=\"192.0.2.1:80\";host=\"a\\\\,\\\"b\"");
        expect_appended(header, copy, bytes, ",for=\"[::ffff:192.0.2.1]\"");
    } else {
        expect_appended(header, copy, bytes, ", 192.0.2.1");
        expect_appended(header, copy, bytes, ",[::ffff:c000:201]:65535");
    }
    free(copy);
    return 0;
}
