/* UTF-8 validation against a reference that works from the definition, exhaustively where that is possible. Every input
 * ends at a page that may not be read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "guard_page.h"
#include "utf8_reference.h"

#define TEXT_BYTES_MAX 512u

static struct guard_page guard;

static int set_up(void **state) {
    (void)state;
    guard = guard_page_create(TEXT_BYTES_MAX);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    guard_page_destroy(&guard);
    return 0;
}

/* xorshift64: the same inputs on every run */
static uint64_t next_random(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* The input fed whole must end in the state that the reference calls for. */
static void check_whole(const uint8_t *text, size_t len) {
    const uint8_t *bytes = guard_page_copy(&guard, text, len);
    const struct utf8_reference expected = utf8_reference_check(bytes, len);
    const uint32_t state = rw_utf8_feed(RW_UTF8_ACCEPT, bytes, len);

    assert_int_equal(state == RW_UTF8_REJECT, expected.good_bytes < len);
    assert_int_equal(state == RW_UTF8_ACCEPT, expected.complete);
}

/* As whole, and refused at exactly the first bad octet; and the same when split in two anywhere. */
static void check_everywhere(const void *text, size_t len) {
    check_whole(text, len);
    const uint8_t *bytes = guard_page_copy(&guard, text, len);
    const struct utf8_reference expected = utf8_reference_check(bytes, len);
    const uint32_t whole = rw_utf8_feed(RW_UTF8_ACCEPT, bytes, len);

    uint32_t state = RW_UTF8_ACCEPT;
    for (size_t i = 0; i < len; i++) {
        state = rw_utf8_feed(state, bytes + i, 1);
        assert_int_equal(state == RW_UTF8_REJECT, i >= expected.good_bytes);
        assert_int_equal(rw_utf8_feed(RW_UTF8_ACCEPT, bytes, i + 1), state);
        assert_int_equal(rw_utf8_feed(state, bytes + i + 1, len - i - 1), whole);
    }
    assert_int_equal(state, whole);
}

static void the_empty_input_keeps_every_state(void **state) {
    (void)state;
    for (uint32_t s = 0; s <= 8; s++) {
        assert_int_equal(rw_utf8_feed(s, guard.end, 0), s);
        assert_int_equal(rw_utf8_feed(s, NULL, 0), s);
    }
}

static void every_sequence_of_one_or_two_octets_is_judged_as_the_reference_does(void **state) {
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        check_whole((const uint8_t[]){(uint8_t)first}, 1);
        for (unsigned second = 0; second < 256; second++)
            check_everywhere((const uint8_t[]){(uint8_t)first, (uint8_t)second}, 2);
    }
}

static void every_sequence_of_three_octets_is_judged_as_the_reference_does(void **state) {
    (void)state;
    for (unsigned lead = 0xC0; lead < 256; lead++)
        for (unsigned second = 0; second < 256; second++)
            for (unsigned third = 0; third < 256; third++)
                check_whole((const uint8_t[]){(uint8_t)lead, (uint8_t)second, (uint8_t)third}, 3);
}

static void every_four_octet_lead_meets_every_second_octet_and_the_edges_of_the_rest(void **state) {
    static const uint8_t edges[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xFF};

    (void)state;
    for (unsigned lead = 0xE0; lead < 256; lead++)
        for (unsigned second = 0; second < 256; second++)
            for (size_t third = 0; third < sizeof(edges); third++)
                for (size_t fourth = 0; fourth < sizeof(edges); fourth++)
                    check_whole((const uint8_t[]){(uint8_t)lead, (uint8_t)second, edges[third], edges[fourth]}, 4);
}

static size_t encode(uint32_t code, uint8_t out[4]) {
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    const size_t octets = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = octets - 1; i > 0; i--, code >>= 6) out[i] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)((0xF00u >> octets & 0xF0u) | code);
    return octets;
}

static void every_scalar_value_is_accepted_and_every_surrogate_refused(void **state) {
    uint8_t bytes[4];

    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        const size_t octets = encode(code, bytes);
        const uint32_t expected = code >= 0xD800 && code <= 0xDFFF ? RW_UTF8_REJECT : RW_UTF8_ACCEPT;
        if (rw_utf8_feed(RW_UTF8_ACCEPT, bytes, octets) != expected) fail_msg("U+%04X", code);
    }
}

static void known_good_texts_are_accepted_however_they_are_split(void **state) {
    static const char *const texts[] = {
        "Hello from Ringway!!",
        "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5", /* the Greek word of RFC 6455 test suites */
        "\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF",
        "\xED\x9F\xBF\xEE\x80\x80", /* either side of the surrogates */
        "\xEF\xBB\xBF with a byte order mark",
        "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x9A\x80 and then more than thirty-two ASCII octets, then \xE2\x82\xAC",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        check_everywhere(texts[i], strlen(texts[i]));
        assert_int_equal(rw_utf8_feed(RW_UTF8_ACCEPT, (const uint8_t *)texts[i], strlen(texts[i])), RW_UTF8_ACCEPT);
    }
}

static void known_bad_texts_are_refused_at_their_first_bad_octet(void **state) {
    static const struct {
        const char *text;
        size_t good_bytes;
    } cases[] = {
        {"\x80", 0},                     /* a continuation octet alone */
        {"\xC0\xAF", 0},                 /* '/' overlong: the classic of path traversal */
        {"\xC1\xBF", 0},                 /* overlong U+007F */
        {"\xE0\x80\xAF", 1},             /* overlong in three */
        {"\xE0\x9F\xBF", 1},             /* overlong U+07FF */
        {"\xF0\x80\x80\xAF", 1},         /* overlong in four */
        {"\xF0\x8F\xBF\xBF", 1},         /* overlong U+FFFF */
        {"\xED\xA0\x80", 1},             /* U+D800 */
        {"\xED\xBF\xBF", 1},             /* U+DFFF */
        {"\xED\xA0\xBD\xED\xB8\x80", 1}, /* CESU-8: a surrogate pair in six octets */
        {"\xF4\x90\x80\x80", 1},         /* U+110000 */
        {"\xF5\x80\x80\x80", 0},         /* above U+13FFFF */
        {"\xF8\x88\x80\x80\x80", 0},     /* five octets, of RFC 2279 */
        {"\xFC\x84\x80\x80\x80\x80", 0}, /* six octets */
        {"\xFE", 0},                     /* byte order marks of UTF-16 */
        {"\xFF", 0},
        {"\xC3(", 1}, /* a character cut off by ASCII */
        {"\xE2\x82(", 2},
        {"\xF0\x9F\x98(", 3},
        {"\xE2\xE2\x82\xAC", 1}, /* a lead where a continuation belongs */
        /* the fail-fast case of RFC 6455 test suites */
        {"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80"
         "edited",
         12},
        {"0123456789012345678901234567890\xFF", 31},
        {"012345678901234567890123456789012345678901234567890123456789012\xFF and more", 63},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const uint8_t *bytes = (const uint8_t *)cases[i].text;
        const size_t len = strlen(cases[i].text);
        check_everywhere(bytes, len);
        assert_int_not_equal(rw_utf8_feed(RW_UTF8_ACCEPT, bytes, cases[i].good_bytes), RW_UTF8_REJECT);
        assert_int_equal(rw_utf8_feed(RW_UTF8_ACCEPT, bytes, cases[i].good_bytes + 1), RW_UTF8_REJECT);
    }
}

static void one_foreign_octet_is_noticed_at_every_place_in_ascii_of_every_length(void **state) {
    uint8_t text[200];

    (void)state;
    memset(text, 'a', sizeof(text));
    for (size_t len = 1; len <= sizeof(text); len++) {
        const uint8_t *ascii = guard_page_copy(&guard, text, len);
        assert_int_equal(rw_utf8_feed(RW_UTF8_ACCEPT, ascii, len), RW_UTF8_ACCEPT);
        for (size_t at = 0; at < len; at++) {
            uint8_t *bytes = guard_page_copy(&guard, text, len);
            bytes[at] = 0x80;
            assert_int_equal(rw_utf8_feed(RW_UTF8_ACCEPT, bytes, len), RW_UTF8_REJECT);
        }
    }
}

static void rejection_stays_whatever_follows(void **state) {
    (void)state;
    for (unsigned octet = 0; octet < 256; octet++) {
        const uint8_t bytes[2] = {(uint8_t)octet, 'a'};
        assert_int_equal(rw_utf8_feed(RW_UTF8_REJECT, bytes, 2), RW_UTF8_REJECT);
    }
}

/* Characters of every length, sometimes spoilt, so that long inputs stay good for long enough to matter. */
static size_t random_text(uint64_t *seed, uint8_t *text, size_t capacity) {
    static const uint32_t limits[] = {0x80, 0x80, 0x800, 0x10000, 0x110000};
    size_t len = 0;

    while (len + 4 <= capacity && next_random(seed) % 64 != 0) {
        if (next_random(seed) % 4 == 0) {
            const size_t run = next_random(seed) % (capacity - len);
            for (size_t i = 0; i < run; i++) text[len++] = (uint8_t)(next_random(seed) % 0x80);
        } else {
            len += encode((uint32_t)(next_random(seed) % limits[next_random(seed) % 5]), text + len);
        }
    }
    if (len > 0 && next_random(seed) % 2 == 0) text[next_random(seed) % len] = (uint8_t)next_random(seed);
    return len;
}

static void random_texts_are_judged_as_the_reference_does_however_they_are_split(void **state) {
    uint64_t seed = 0x9E3779B97F4A7C15u;
    uint8_t text[300];

    (void)state;
    for (unsigned round = 0; round < 400; round++) check_everywhere(text, random_text(&seed, text, sizeof(text)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_empty_input_keeps_every_state),
        cmocka_unit_test(every_sequence_of_one_or_two_octets_is_judged_as_the_reference_does),
        cmocka_unit_test(every_sequence_of_three_octets_is_judged_as_the_reference_does),
        cmocka_unit_test(every_four_octet_lead_meets_every_second_octet_and_the_edges_of_the_rest),
        cmocka_unit_test(every_scalar_value_is_accepted_and_every_surrogate_refused),
        cmocka_unit_test(known_good_texts_are_accepted_however_they_are_split),
        cmocka_unit_test(known_bad_texts_are_refused_at_their_first_bad_octet),
        cmocka_unit_test(one_foreign_octet_is_noticed_at_every_place_in_ascii_of_every_length),
        cmocka_unit_test(rejection_stays_whatever_follows),
        cmocka_unit_test(random_texts_are_judged_as_the_reference_does_however_they_are_split),
    };
    return cmocka_run_group_tests_name("utf8", tests, set_up, tear_down);
}
