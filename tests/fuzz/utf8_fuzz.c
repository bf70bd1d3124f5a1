/* Any bytes against the reference validator: whole, in pieces of one size, and octet by octet. */
#include <stddef.h>
#include <stdint.h>

#include "../c/utf8_reference.h"
#include "base/utf8.h"
#include "fuzz_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    const size_t piece = (size_t)data[0] + 1;
    const uint8_t *bytes = data + 1;
    const size_t len = size - 1;
    const struct utf8_reference expected = utf8_reference_check(bytes, len);

    const uint32_t whole = rw_utf8_feed(RW_UTF8_ACCEPT, bytes, len);
    CHECK((whole == RW_UTF8_REJECT) == (expected.good_bytes < len));
    CHECK((whole == RW_UTF8_ACCEPT) == expected.complete);

    uint32_t pieces = RW_UTF8_ACCEPT;
    for (size_t at = 0; at < len; at += piece)
        pieces = rw_utf8_feed(pieces, bytes + at, len - at < piece ? len - at : piece);
    CHECK(pieces == whole);

    uint32_t single = RW_UTF8_ACCEPT;
    for (size_t i = 0; i < len; i++) {
        single = rw_utf8_feed(single, bytes + i, 1);
        CHECK((single == RW_UTF8_REJECT) == (i >= expected.good_bytes));
    }
    CHECK(single == whole);
    return 0;
}
