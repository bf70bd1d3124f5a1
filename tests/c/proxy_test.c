/* The PROXY protocol parser: every header whole, at every split, and one byte at a time, each time against the end of
 * readable memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "connection/proxy.h"
#include "guard_page.h"

#define V2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

struct header {
    const char *text;
    size_t bytes;
    int32_t result; /* > 0: header bytes */
    uint8_t address_bytes;
    uint8_t address[16];
    uint16_t port;
};

#define TEXT(string) string, sizeof(string) - 1

/* The answer for bytes[0..len) that end where memory does. */
static int32_t parse(const uint8_t *bytes, size_t len, struct rw_proxy_source *source) {
    static struct guard_page page;
    if (!page.map) page = guard_page_create(RW_PROXY_V2_FIXED_BYTES + RW_PROXY_V2_BLOCK_BYTES_MAX);
    memset(source, 0xEE, sizeof *source);
    return rw_proxy_parse(guard_page_copy(&page, bytes, len), len, source);
}

static void expect(const struct header *header) {
    const uint8_t *bytes = (const uint8_t *)header->text;
    struct rw_proxy_source source;
    assert_int_equal(parse(bytes, header->bytes, &source), header->result);
    if (header->result > 0) {
        assert_int_equal(source.address_bytes, header->address_bytes);
        assert_memory_equal(source.address, header->address, header->address_bytes);
        assert_int_equal(source.port, header->port);
    }
    /* A part of it is either undecided or decided in the same way. */
    for (size_t part = 0; part < header->bytes; part++) {
        int32_t early = parse(bytes, part, &source);
        if (header->result > 0 && part >= (size_t)header->result) {
            assert_int_equal(early, header->result);
        } else {
            assert_true(early == 0 || (header->result < 0 && early == header->result));
        }
    }
}

static void lines_of_version_1_name_the_client(void **state) {
    (void)state;
    static const struct header headers[] = {
        {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"), 45, 4, {192, 0, 2, 1}, 56324},
        {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\nGET / HTTP/1.1\r\n"), 45, 4, {192, 0, 2, 1}, 56324},
        {TEXT("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n"), 44, 4, {0, 0, 0, 0}, 0},
        {TEXT("PROXY TCP6 2001:db8::1 ::1 65535 80\r\n"), 37, 16, {0x20, 1, 0x0d, 0xb8, [15] = 1}, 65535},
        {TEXT("PROXY UNKNOWN\r\n"), 15, 0, {0}, 0},
        {TEXT("PROXY UNKNOWN whatever the proxy says\r\n"), 39, 0, {0}, 0},
        {TEXT("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
              "65535\r\n"),
         107,
         0,
         {0},
         0},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) expect(&headers[i]);
}

static void malformed_lines_are_told_as_such(void **state) {
    (void)state;
    static const struct header headers[] = {
        {TEXT("PROXY \r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY UNKNOWNS\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 ::1 ::1 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4\0x 1.2.3.4 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY TCP4 1.2.3.4\n1.2.3.4 1 2\r\n"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
              "655350\r\n"),
         RW_PROXY_MALFORMED,
         0,
         {0},
         0},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) expect(&headers[i]);
}

static void headers_of_version_2_name_the_client(void **state) {
    (void)state;
    static const struct header headers[] = {
        {TEXT(V2_SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"), 28, 4, {192, 0, 2, 1}, 0xdc04},
        {TEXT(V2_SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbbGET /"), 28, 4, {192, 0, 2, 1}, 0xdc04},
        /* datagrams, and an extension */
        {TEXT(V2_SIGNATURE "\x21\x12\0\x11\xc0\0\2\1\xc6\x33\x64\7\0\1\0\2\x04\0\2zz"), 33, 4, {192, 0, 2, 1}, 1},
        {TEXT(V2_SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                           "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
                           "\x30\x39\0\x50"),
         52,
         16,
         {0x20, 1, 0x0d, 0xb8, [15] = 1},
         12345},
        {TEXT(V2_SIGNATURE "\x20\0\0\0"), 16, 0, {0}, 0}, /* LOCAL */
        /* LOCAL: its addresses are ignored */
        {TEXT(V2_SIGNATURE "\x20\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"), 28, 0, {0}, 0},
        /* and so is its family */
        {TEXT(V2_SIGNATURE "\x20\xFF\0\1z"), 17, 0, {0}, 0},
        {TEXT(V2_SIGNATURE "\x21\0\0\3abc"), 19, 0, {0}, 0}, /* UNSPEC */
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) expect(&headers[i]);
}

static void only_local_is_the_proxys_own_connection(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        uint8_t local;
    } headers[] = {
        {TEXT(V2_SIGNATURE "\x20\0\0\0"), 1},
        {TEXT(V2_SIGNATURE "\x20\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"), 1},
        {TEXT(V2_SIGNATURE "\x21\0\0\0"), 0},
        {TEXT(V2_SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"), 0},
        {TEXT("PROXY UNKNOWN\r\n"), 0},
        {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"), 0},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct rw_proxy_source source;
        assert_int_equal(parse((const uint8_t *)headers[i].text, headers[i].bytes, &source), headers[i].bytes);
        assert_int_equal(source.local, headers[i].local);
    }
}

static void a_unix_socket_behind_the_proxy_has_no_address(void **state) {
    (void)state;
    char text[16 + 216] = V2_SIGNATURE "\x21\x31\0\xd8/run/a.sock";
    expect(&(struct header){text, sizeof text, sizeof text, 0, {0}, 0});
    text[15] = (char)215;
    expect(&(struct header){text, sizeof text, RW_PROXY_MALFORMED, 0, {0}, 0});
}

static void malformed_blocks_are_told_as_such(void **state) {
    (void)state;
    static const struct header headers[] = {
        /* version 1 in binary */
        {TEXT(V2_SIGNATURE "\x11\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"), RW_PROXY_MALFORMED, 0, {0}, 0},
        /* no such command */
        {TEXT(V2_SIGNATURE "\x22\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"), RW_PROXY_MALFORMED, 0, {0}, 0},
        /* no such family */
        {TEXT(V2_SIGNATURE "\x21\x41\0\0"), RW_PROXY_MALFORMED, 0, {0}, 0},
        /* no such transport */
        {TEXT(V2_SIGNATURE "\x21\x13\0\0"), RW_PROXY_MALFORMED, 0, {0}, 0},
        /* too short for its family */
        {TEXT(V2_SIGNATURE "\x21\x11\0\x0b\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT(V2_SIGNATURE "\x21\x21\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb"), RW_PROXY_MALFORMED, 0, {0}, 0},
        {TEXT(V2_SIGNATURE "\x21\x11\x10\1"), RW_PROXY_MALFORMED, 0, {0}, 0}, /* 4097 bytes */
        {TEXT(V2_SIGNATURE "\x20\0\xFF\xFF"), RW_PROXY_MALFORMED, 0, {0}, 0},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) expect(&headers[i]);
}

static void extensions_are_skipped_up_to_their_limit(void **state) {
    (void)state;
    static char text[16 + RW_PROXY_V2_BLOCK_BYTES_MAX] =
        V2_SIGNATURE "\x21\x11\x10\0\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb";
    memset(text + 28, 0x55, sizeof text - 28);
    struct rw_proxy_source source;
    assert_int_equal(parse((uint8_t *)text, sizeof text - 1, &source), 0);
    assert_int_equal(parse((uint8_t *)text, sizeof text, &source), sizeof text);
    assert_int_equal(source.address_bytes, 4);
}

static void the_clients_own_bytes_are_left_alone(void **state) {
    (void)state;
    static const struct header headers[] = {
        {TEXT("GET / HTTP/1.1\r\n"), RW_PROXY_ABSENT, 0, {0}, 0},
        {TEXT("PROPFIND / HTTP/1.1\r\n"), RW_PROXY_ABSENT, 0, {0}, 0},
        {TEXT("PROXYING"), RW_PROXY_ABSENT, 0, {0}, 0},
        {TEXT("proxy TCP4"), RW_PROXY_ABSENT, 0, {0}, 0},
        {TEXT("\r\n\r\nGET / HTTP/1.1\r\n"), RW_PROXY_ABSENT, 0, {0}, 0},
        {TEXT("\r\n\r\n\0\r\nQUIT\r"), RW_PROXY_ABSENT, 0, {0}, 0},
        {TEXT("\x16\x03\x01\x02\0"), RW_PROXY_ABSENT, 0, {0}, 0}, /* TLS */
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        expect(&headers[i]);
        struct rw_proxy_source source;
        assert_int_equal(parse((const uint8_t *)headers[i].text,
                               headers[i].bytes < RW_PROXY_DECISION_BYTES ? headers[i].bytes : RW_PROXY_DECISION_BYTES,
                               &source),
                         RW_PROXY_ABSENT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_version_1_name_the_client),
        cmocka_unit_test(malformed_lines_are_told_as_such),
        cmocka_unit_test(headers_of_version_2_name_the_client),
        cmocka_unit_test(only_local_is_the_proxys_own_connection),
        cmocka_unit_test(a_unix_socket_behind_the_proxy_has_no_address),
        cmocka_unit_test(malformed_blocks_are_told_as_such),
        cmocka_unit_test(extensions_are_skipped_up_to_their_limit),
        cmocka_unit_test(the_clients_own_bytes_are_left_alone),
    };
    return cmocka_run_group_tests_name("the PROXY protocol", tests, NULL, NULL);
}
