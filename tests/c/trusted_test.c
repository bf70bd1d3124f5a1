/* Ranges of trusted addresses against a reading bit by bit. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "connection/trusted.h"

/* "10.0.0.0" as ::ffff:10.0.0.0; an IPv6 address as it is */
static void ip_of(const char *text, uint8_t ip[16]) {
    uint8_t v4[4];
    if (inet_pton(AF_INET, text, v4) == 1) {
        rw_ip_widen(ip, v4, 4);
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, ip), 1);
    }
}

static struct rw_address_range range(const char *text, uint32_t bits) {
    struct rw_address_range made = {.prefix_bits = bits};
    ip_of(text, made.address);
    if (rw_ip_is_v4(made.address)) made.prefix_bits += 96;
    return made;
}

static int has(const struct rw_trusted *trusted, const char *text) {
    uint8_t ip[16];
    ip_of(text, ip);
    return rw_trusted_has(trusted, ip);
}

static void a_range_holds_what_its_prefix_says(void **state) {
    (void)state;
    const struct rw_address_range ranges[] = {range("10.1.2.3", 8), range("192.0.2.1", 32), range("2001:db8::", 33),
                                              range("fd00:1:2:3:4::", 72), range("::1", 128)};
    struct rw_trusted trusted = {0};
    assert_int_equal(has(&trusted, "10.0.0.1"), 0);
    assert_int_equal(rw_trusted_set(&trusted, ranges, 5), RW_OK);
    static const char *const inside[] = {
        "10.0.0.0",           "10.255.255.255",   "192.0.2.1", "2001:db8::",     "2001:db8:7fff:ffff::",
        "fd00:1:2:3:4::ffff", "fd00:1:2:3:ff::1", "::1",       "::ffff:10.9.9.9"};
    static const char *const outside[] = {
        "9.255.255.255",  "11.0.0.0",         "192.0.2.0", "192.0.2.2", "2001:db8:8000::", "2001:db9::",
        "fd00:1:2:4:4::", "fd00:1:2:3:104::", "::2",       "::",        "::10.0.0.1"};
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) assert_int_equal(has(&trusted, inside[i]), 1);
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) assert_int_equal(has(&trusted, outside[i]), 0);
    rw_trusted_clear(&trusted);
    assert_int_equal(has(&trusted, "10.0.0.1"), 0);
}

static void every_prefix_length_means_so_many_bits(void **state) {
    (void)state;
    uint8_t base[16];
    for (uint32_t i = 0; i < 16; i++) base[i] = (uint8_t)(0x5A ^ (i * 37));
    for (uint32_t bits = 0; bits <= 128; bits++) {
        struct rw_address_range one = {.prefix_bits = bits};
        memcpy(one.address, base, 16);
        struct rw_trusted trusted = {0};
        assert_int_equal(rw_trusted_set(&trusted, &one, 1), RW_OK);
        for (uint32_t flipped = 0; flipped < 128; flipped++) {
            uint8_t ip[16];
            memcpy(ip, base, 16);
            ip[flipped / 8] ^= (uint8_t)(0x80u >> flipped % 8);
            assert_int_equal(rw_trusted_has(&trusted, ip), flipped >= bits);
        }
        rw_trusted_clear(&trusted);
    }
}

static void a_list_that_makes_no_sense_leaves_the_old_one(void **state) {
    (void)state;
    const struct rw_address_range good = range("10.0.0.0", 8);
    const struct rw_address_range bad[] = {range("11.0.0.0", 8), {.prefix_bits = 129}};
    struct rw_trusted trusted = {0};
    assert_int_equal(rw_trusted_set(&trusted, &good, 1), RW_OK);
    assert_int_equal(rw_trusted_set(&trusted, bad, 2), RW_ERR_INVALID);
    assert_int_equal(has(&trusted, "10.0.0.1"), 1);
    assert_int_equal(has(&trusted, "11.0.0.1"), 0);
    assert_int_equal(rw_trusted_set(&trusted, bad, 1), RW_OK);
    assert_int_equal(has(&trusted, "10.0.0.1"), 0);
    assert_int_equal(has(&trusted, "11.0.0.1"), 1);
    rw_trusted_clear(&trusted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_holds_what_its_prefix_says),
        cmocka_unit_test(every_prefix_length_means_so_many_bits),
        cmocka_unit_test(a_list_that_makes_no_sense_leaves_the_old_one),
    };
    return cmocka_run_group_tests_name("trusted ranges", tests, NULL, NULL);
}
