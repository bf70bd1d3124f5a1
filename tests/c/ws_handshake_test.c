/* The handshake's computations: keys and answers known from RFC 6455 and from another implementation of SHA-1 and
 * base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "guard_page.h"
#include "ws/ws_handshake.h"

static struct guard_page key_guard;
static struct guard_page accept_guard;

static int set_up(void **state) {
    (void)state;
    key_guard = guard_page_create(64);
    accept_guard = guard_page_create(64);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    guard_page_destroy(&key_guard);
    guard_page_destroy(&accept_guard);
    return 0;
}

static int valid(const char *key, size_t len) { return rw_ws_key_valid(guard_page_copy(&key_guard, key, len), len); }

static void known_keys_get_their_known_answers(void **state) {
    static const char *const pairs[][2] = {
        {"dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, /* RFC 6455 §1.3 */
        /* computed with Python's hashlib and base64 */
        {"x3JJHMbDL1EzLkh9GBhXDw==", "HSmrc0sMlYUkAGmm5OPpG2HaGWk="},
        {"AAAAAAAAAAAAAAAAAAAAAA==", "ICX+Yqv66kxgM0FcWaLWlFLwTAI="},
        {"/////////////////////w==", "XXpj4jYzLM2yUE0C7TIgMwTQh2g="},
        {"k7iFrf4NoInN9jSQT9WfcQ==", "/Bl0YVGfkSUaYfqEarpjg87Ac4I="},
        {"VaVACK0bpYmqIQ0mKcHfQQ==", "oWFuq0bmNeLLi6noUbHFqeAodjQ="},
        {"nmiMWKVIe46vacnhAFrQvw==", "w6rOY0xuJq4RGH761XfYZL+n4DE="},
        {"hmZoNQaqzZALvVp0rE7faA==", "lnvlBk8O++K/FwKPpCcdffM8YTA="},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        const uint8_t *key = guard_page_copy(&key_guard, pairs[i][0], RW_WS_KEY_BYTES);
        char *out = (char *)accept_guard.end - RW_WS_ACCEPT_BYTES;
        out[-1] = 'x';
        assert_true(rw_ws_key_valid(key, RW_WS_KEY_BYTES));
        rw_ws_accept(key, out);
        assert_memory_equal(out, pairs[i][1], RW_WS_ACCEPT_BYTES);
        assert_int_equal(out[-1], 'x');
    }
}

/* Each answer's first characters go into the next key: two hundred digests end in one number, so that no round of SHA-1
 * and no character of the alphabet stays unused. */
static void a_chain_of_two_hundred_answers_ends_where_another_implementation_ends(void **state) {
    uint8_t key[RW_WS_KEY_BYTES + 1] = "dGhlIHNhbXBsZSBub25jZQ==";
    char out[RW_WS_ACCEPT_BYTES];

    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        rw_ws_accept(key, out);
        memcpy(key, out, 21);
        assert_true(rw_ws_key_valid(key, RW_WS_KEY_BYTES));
    }
    assert_memory_equal(out, "Cy0eQHx53LG1Gm78SRw6pwid5iM=", RW_WS_ACCEPT_BYTES);
}

static void only_twenty_four_characters_are_a_key(void **state) {
    static const char text[] = "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==";

    (void)state;
    for (size_t len = 0; len < sizeof(text); len++) assert_int_equal(valid(text, len), len == RW_WS_KEY_BYTES);
    assert_false(valid("dGhlIHNhbXBsZSBub25jZQ", 22));   /* unpadded */
    assert_false(valid("dGhlIHNhbXBsZSBub25jZTE2", 24)); /* 18 bytes */
    assert_false(valid("dGhlIHNhbXBsZSBub25jZTE=", 24)); /* 17 bytes */
}

static void padding_stands_at_the_end_and_nowhere_else(void **state) {
    char key[25];

    (void)state;
    for (size_t at = 0; at < RW_WS_KEY_BYTES; at++) {
        memcpy(key, "dGhlIHNhbXBsZSBub25jZQ==", sizeof(key));
        key[at] = at < 22 ? '=' : 'A';
        assert_false(valid(key, RW_WS_KEY_BYTES));
    }
}

static void every_octet_outside_the_alphabet_is_refused_at_every_place(void **state) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char key[25];

    (void)state;
    for (size_t at = 0; at < 21; at++) {
        memcpy(key, "dGhlIHNhbXBsZSBub25jZQ==", sizeof(key));
        for (unsigned octet = 0; octet < 256; octet++) {
            key[at] = (char)octet;
            assert_int_equal(valid(key, RW_WS_KEY_BYTES), octet != 0 && strchr(alphabet, (int)octet) != NULL);
        }
    }
}

static void unused_bits_of_the_last_character_must_be_zero(void **state) {
    char key[] = "dGhlIHNhbXBsZSBub25jZQ==";

    (void)state;
    for (unsigned octet = 0; octet < 256; octet++) {
        key[21] = (char)octet;
        assert_int_equal(valid(key, RW_WS_KEY_BYTES), octet == 'A' || octet == 'Q' || octet == 'g' || octet == 'w');
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_keys_get_their_known_answers),
        cmocka_unit_test(a_chain_of_two_hundred_answers_ends_where_another_implementation_ends),
        cmocka_unit_test(only_twenty_four_characters_are_a_key),
        cmocka_unit_test(padding_stands_at_the_end_and_nowhere_else),
        cmocka_unit_test(every_octet_outside_the_alphabet_is_refused_at_every_place),
        cmocka_unit_test(unused_bits_of_the_last_character_must_be_zero),
    };
    return cmocka_run_group_tests_name("ws_handshake", tests, set_up, tear_down);
}
