/* Any bytes as a PROXY header: the answer for a part is never at odds with the answer for the whole, and never claims
 * more than there is. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "connection/proxy.h"
#include "fuzz_input.h"

/* In memory of its own, so that a sanitizer sees a byte too far. */
static int32_t parse(const uint8_t *data, size_t size, struct rw_proxy_source *source) {
    uint8_t *copy = malloc(size ? size : 1);
    CHECK(copy);
    if (size) memcpy(copy, data, size);
    memset(source, 0, sizeof *source);
    int32_t result = rw_proxy_parse(copy, size, source);
    free(copy);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct rw_proxy_source whole, part;
    int32_t result = parse(data, size, &whole);
    CHECK(result >= RW_PROXY_MALFORMED && (result < 0 || (size_t)result <= size));
    if (result > 0) {
        CHECK(whole.address_bytes == 0 || whole.address_bytes == 4 || whole.address_bytes == 16);
        CHECK(result <= (int32_t)(RW_PROXY_V2_FIXED_BYTES + RW_PROXY_V2_BLOCK_BYTES_MAX));
    }
    CHECK(result != 0 || size < RW_PROXY_V2_FIXED_BYTES + RW_PROXY_V2_BLOCK_BYTES_MAX);
    if (result == RW_PROXY_ABSENT)
        CHECK(parse(data, size < RW_PROXY_DECISION_BYTES ? size : RW_PROXY_DECISION_BYTES, &part) == RW_PROXY_ABSENT);
    for (size_t cut = 0; cut < size && cut < 300; cut++) {
        int32_t early = parse(data, cut, &part);
        CHECK(early == 0 || early == result);
        CHECK(early <= 0 || memcmp(&part, &whole, sizeof part) == 0);
    }
    return 0;
}
