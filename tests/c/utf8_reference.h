/* A UTF-8 validator that owes nothing to tables or states: slow, and close to the definition.
 *
 * A prefix is good as long as some completion of it is a Unicode scalar value in its shortest form. After each octet of
 * a character it works out the interval of code points still reachable, and asks whether one of them is allowed. */
#ifndef RW_TEST_UTF8_REFERENCE_H
#define RW_TEST_UTF8_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

struct utf8_reference {
    size_t good_bytes; /* octets before the first bad one; len when there is none */
    int complete;      /* all good, and the input ends at a character border */
};

/* Is there a scalar value in [low, high] that needs exactly `octets` octets? */
static inline int utf8_reference_reachable(uint32_t low, uint32_t high, unsigned octets) {
    static const uint32_t first_of_length[6] = {0, 0, 0x80, 0x800, 0x10000, 0x110000};

    if (low < first_of_length[octets]) low = first_of_length[octets];
    if (high >= first_of_length[octets + 1]) high = first_of_length[octets + 1] - 1;
    return low <= high && !(low >= 0xD800 && high <= 0xDFFF);
}

static inline struct utf8_reference utf8_reference_check(const uint8_t *bytes, size_t len) {
    struct utf8_reference result = {0, 1};
    size_t at = 0;

    while (at < len) {
        const uint8_t lead = bytes[at];
        const unsigned octets = lead < 0x80                   ? 1
                                : lead >= 0xC0 && lead < 0xE0 ? 2
                                : lead >= 0xE0 && lead < 0xF0 ? 3
                                : lead >= 0xF0 && lead < 0xF8 ? 4
                                                              : 0;
        if (octets == 0) return (struct utf8_reference){at, 0};

        uint32_t code = octets == 1 ? lead : lead & (0x7Fu >> octets);
        for (unsigned have = 1;; have++) {
            const unsigned unknown_bits = 6 * (octets - have);
            if (!utf8_reference_reachable(code << unknown_bits, ((code + 1) << unknown_bits) - 1, octets))
                return (struct utf8_reference){at + have - 1, 0};
            if (have == octets) break;
            if (at + have == len) return (struct utf8_reference){len, 0};
            if ((bytes[at + have] & 0xC0) != 0x80) return (struct utf8_reference){at + have, 0};
            code = code << 6 | (bytes[at + have] & 0x3F);
        }
        at += octets;
    }
    result.good_bytes = len;
    return result;
}

#endif
