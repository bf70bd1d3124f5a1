/* X-Forwarded-For and Forwarded, element by element from the right, each value against the end of readable memory. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guard_page.h"
#include "http1/forwarded.h"

#define XFF RW_PROXY_HEADER_X_FORWARDED_FOR
#define FWD RW_PROXY_HEADER_FORWARDED

static int32_t last(uint32_t header, const char *value, size_t len, struct rw_forwarded_hop *hop) {
    static struct guard_page page;
    if (!page.map) page = guard_page_create(65536);
    memset(hop, 0xEE, sizeof *hop);
    return rw_forwarded_last(header, guard_page_copy(&page, value, len), len, hop);
}

/* What a hop is, as text: an address, or "-". */
static void expect_hop(const struct rw_forwarded_hop *hop, const char *wanted) {
    char text[INET6_ADDRSTRLEN] = "-";
    if (hop->address_bytes)
        assert_non_null(inet_ntop(hop->address_bytes == 4 ? AF_INET : AF_INET6, hop->address, text, sizeof text));
    assert_string_equal(text, wanted);
}

/* wanted: the hops from the right, each with a space behind it */
static void expect_hops(uint32_t header, const char *value, const char *wanted) {
    char copy[512];
    assert_true(strlen(wanted) < sizeof copy);
    strcpy(copy, wanted);
    char *rest = copy, *word;
    int32_t left = (int32_t)strlen(value);
    do {
        struct rw_forwarded_hop hop;
        int32_t before = last(header, value, (size_t)left, &hop);
        assert_true(before < left);
        word = strsep(&rest, " ");
        assert_non_null(word);
        expect_hop(&hop, word);
        if (before >= 0) assert_int_equal(value[before], ',');
        left = before;
    } while (left >= 0);
    assert_string_equal(rest, "");
}

static void x_forwarded_for_is_a_list_of_addresses(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"192.0.2.1", "192.0.2.1 "},
        {"192.0.2.1, 198.51.100.7,203.0.113.9", "203.0.113.9 198.51.100.7 192.0.2.1 "},
        {" \t192.0.2.1 \t", "192.0.2.1 "},
        {"192.0.2.1:4711", "192.0.2.1 "},
        {"2001:db8::1", "2001:db8::1 "},
        {"[2001:db8::1]", "2001:db8::1 "},
        {"[2001:db8::1]:4711", "2001:db8::1 "},
        {"2001:db8:1:2:3:4:5:6, ::1", "::1 2001:db8:1:2:3:4:5:6 "},
        {"::ffff:192.0.2.1", "192.0.2.1 "},
        {"[::ffff:c000:201]:1", "192.0.2.1 "},
        {"2001:DB8::A", "2001:db8::a "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) expect_hops(XFF, cases[i][0], cases[i][1]);
}

static void whatever_else_stands_there_names_no_address(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "- "},
        {" ", "- "},
        {",", "- - "},
        {"192.0.2.1,", "- 192.0.2.1 "},
        {"192.0.2.1,,198.51.100.7", "198.51.100.7 - 192.0.2.1 "},
        {"unknown, 192.0.2.1", "192.0.2.1 - "},
        {"unix:", "- "},
        {"localhost", "- "},
        {"192.0.2", "- "},
        {"192.0.2.256", "- "},
        {"192.0.2.01", "- "},
        {"0xC0000201", "- "},
        {"192.0.2.1.", "- "},
        {"192.0.2.1 198.51.100.7", "- "},
        {"192.0.2.1:", "- "},
        {"192.0.2.1:port", "- "},
        {"192.0.2.1:123456", "- "},
        {"192.0.2.1:-1", "- "},
        {"[192.0.2.1]", "- "},
        {"[2001:db8::1", "- "},
        {"2001:db8::1]", "- "},
        {"[2001:db8::1]4711", "- "},
        {"[2001:db8::1]:", "- "},
        {"[fe80::1%eth0]", "- "},
        {"fe80::1%1", "- "},
        {"[]", "- "},
        {":", "- "},
        {"::", ":: "},
        {":::", "- "},
        {"\"192.0.2.1\"", "- "},
        {"for=192.0.2.1", "- "},
        {"1:2:3:4:5:6:7:8:9", "- "},
        {"0000000000000000000000000000000000000000000000000000000000000000000000000192.0.2.1", "- "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) expect_hops(XFF, cases[i][0], cases[i][1]);
    struct rw_forwarded_hop hop;
    assert_int_equal(last(XFF, "192.0.2.1\0", 10, &hop), -1);
    expect_hop(&hop, "-");
    assert_int_equal(last(XFF, "::1\0x", 5, &hop), -1);
    expect_hop(&hop, "-");
}

static void forwarded_is_a_list_of_pairs(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60 "},
        {"for=192.0.2.43, for=198.51.100.17", "198.51.100.17 192.0.2.43 "},
        {"For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17 "},
        {"FOR=\"[2001:db8::1]\"", "2001:db8::1 "},
        {"for=\"192.0.2.1:4711\"", "192.0.2.1 "},
        {"for=\"192.0.2.1:_hidden\"", "192.0.2.1 "},
        {"for=\"192.0.2.1\"", "192.0.2.1 "},
        {"for=\"192\\.0.\\2.1\"", "192.0.2.1 "},
        {"proto=https;for=192.0.2.1", "192.0.2.1 "},
        {"by=_proxy;host=\"a, b;c=\\\"d\\\"\";for=192.0.2.1", "192.0.2.1 "},
        {"for=192.0.2.1;host=\"a\\\\\",for=192.0.2.2", "192.0.2.2 192.0.2.1 "},
        {"for=192.0.2.1;host=\"\",for=\"192.0.2.2\"", "192.0.2.2 192.0.2.1 "},
        {"; ;for=192.0.2.1;", "192.0.2.1 "},
        {" for=192.0.2.1 ; proto=http ", "192.0.2.1 "},
        {"for=[2001:db8::1]:80", "2001:db8::1 "},
        {"for=2001:db8::1", "2001:db8::1 "},
        {"for=\"[::ffff:192.0.2.1]\"", "192.0.2.1 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) expect_hops(FWD, cases[i][0], cases[i][1]);
}

static void elements_that_name_no_address_are_told_as_such(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "- "},
        {"for=unknown", "- "},
        {"for=_hidden, for=192.0.2.1", "192.0.2.1 - "},
        {"for=\"_gazonk\"", "- "},
        {"proto=https", "- "},
        {"for=", "- "},
        {"for", "- "},
        {"=192.0.2.1", "- "},
        {"for =192.0.2.1", "- "},
        {"for= 192.0.2.1", "192.0.2.1 "},
        {"for=192.0.2.1;for=192.0.2.2", "- "},
        {"for=192.0.2.1;proto", "- "},
        {"for=192.0.2.1 proto=http", "- "},
        {"for=\"192.0.2.1\"x", "- "},
        {"for=192.0.2.1\"", "- "},
        {"for=\"192.0.2.1", "- "},
        {"for=\"192.0.2.1\\\"", "- "},
        {"for=\"192.0.2.1\\", "- "},
        {"192.0.2.1", "- "},
        {"forx=192.0.2.1", "- "},
        {"xfor=192.0.2.1", "- "},
        {"for=\"[2001:db8::1]:\"", "- "},
        {"for=\"[2001:db8::1]:_\"", "- "},
        {"for=\"192.0.2.1:_a b\"", "- "},
        {"for=\"                                                                 192.0.2.1\"", "- "},
        {"for=\"192.0.2.1                                                                 \"", "- "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) expect_hops(FWD, cases[i][0], cases[i][1]);
}

/* Whatever a client writes, what its proxy appends is read as it is. */
static void nothing_on_the_left_reaches_what_stands_on_the_right(void **state) {
    (void)state;
    static const char *const forged[] = {
        "for=10.0.0.1",
        "for=\"10.0.0.1",
        "for=\"",
        "\"",
        "\\",
        "\"\\",
        "for=\"10.0.0.1\\\"",
        "for=\"a, for=10.0.0.1",
        ",",
        "",
        ";",
        "for=10.0.0.1,",
        "\"\"\"",
        "for=\"\\\\\\\"",
        "10.0.0.1",
        "10.0.0.1 ",
        "[",
        "[10.0.0.1",
    };
    static const struct {
        uint32_t header;
        const char *text, *address;
    } appended[] = {
        {XFF, ", 192.0.2.1", "192.0.2.1"},
        {XFF, ",2001:db8::1", "2001:db8::1"},
        {FWD, ", for=192.0.2.1", "192.0.2.1"},
        {FWD, ",for=\"[2001:db8::1]:80\";proto=https", "2001:db8::1"},
        {FWD, ", for=192.0.2.1;host=\"a,\\\"b\\\\\"", "192.0.2.1"},
    };
    for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++) {
        for (size_t j = 0; j < sizeof appended / sizeof appended[0]; j++) {
            char value[256];
            int length = snprintf(value, sizeof value, "%s%s", forged[i], appended[j].text);
            struct rw_forwarded_hop hop;
            assert_int_equal(last(appended[j].header, value, (size_t)length, &hop), strlen(forged[i]));
            expect_hop(&hop, appended[j].address);
        }
    }
}

/* 64 KiB of the worst: each value is read in a time that grows with its length alone. A quadratic reading would take
 * minutes here. */
static void the_longest_values_are_read_in_linear_time(void **state) {
    (void)state;
    static char value[65535];
    static const char *const patterns[] = {"\\\"", "\"\\\"", "\\", "\"", "for=\"\\\"", ";", "\" ", "\\\\\""};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        size_t bytes = strlen(patterns[i]);
        for (size_t at = 0; at < sizeof value; at++) value[at] = patterns[i][at % bytes];
        for (uint32_t round = 0; round < 20; round++) {
            struct rw_forwarded_hop hop;
            (void)last(FWD, value, sizeof value, &hop);
            expect_hop(&hop, "-");
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(x_forwarded_for_is_a_list_of_addresses),
        cmocka_unit_test(whatever_else_stands_there_names_no_address),
        cmocka_unit_test(forwarded_is_a_list_of_pairs),
        cmocka_unit_test(elements_that_name_no_address_are_told_as_such),
        cmocka_unit_test(nothing_on_the_left_reaches_what_stands_on_the_right),
        cmocka_unit_test(the_longest_values_are_read_in_linear_time),
    };
    return cmocka_run_group_tests_name("X-Forwarded-For and Forwarded", tests, NULL, NULL);
}
