/* The HTTP parser against tests/vectors/http: each case whole, byte by byte, and cut in two at every place, with the
 * input right before a page that cannot be read. All ways must give the same result, and the result the page tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/mman.h>
#include <unistd.h>

#include "http1/http_parser.h"
#include "http_vectors.h"
#include "ringway.h"

#define CASES_MIN 120u
#define UNTOUCHED 0xa5

static uint8_t *guard; /* the first byte that must not be read */
static uint32_t case_count;

static int make_guard(void **state) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t readable = (VECTOR_BYTES_MAX + page - 1) / page * page;
    uint8_t *map = mmap(NULL, readable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)state;
    if (map == MAP_FAILED || mprotect(map + readable, page, PROT_NONE) != 0) return -1;
    guard = map + readable;
    return 0;
}

static const uint8_t *place(const uint8_t *bytes, size_t len) {
    memcpy(guard - len, bytes, len);
    return guard - len;
}

/* ------------------------------------------------------------------ heads */

static struct rw_http_limits limits_of(const struct vector *vector) {
    struct rw_http_limits limits = {RW_HEAD_BYTES_DEFAULT, RW_TARGET_BYTES_DEFAULT, RW_HEADER_COUNT_DEFAULT};
    const char *told = vector_expected(vector, "limits", 0);
    if (told != NULL &&
        sscanf(told, "%u %u %u", &limits.max_head_bytes, &limits.max_target_bytes, &limits.max_header_count) != 3)
        vector_fail(vector, "bad limits", told);
    return limits;
}

/* Parse the first len bytes. *head is untouched unless the result says that it was written. */
static int32_t parse(const struct vector *vector, size_t len, uint32_t *scanned, struct rw_http_head *head) {
    const struct rw_http_limits limits = limits_of(vector);
    memset(head, UNTOUCHED, sizeof(*head));
    const int32_t result = rw_http_parse_head(place(vector->input.at, len), len, &limits, scanned, head);
    for (size_t i = 0; result <= 0 && i < sizeof(*head); i++) assert_int_equal(((const uint8_t *)head)[i], UNTOUCHED);
    return result;
}

static bool heads_equal(const struct rw_http_head *a, const struct rw_http_head *b) {
    /* In two parts: there is padding before content_length. */
    const size_t first = offsetof(struct rw_http_head, host) + sizeof(a->host);
    const size_t second = offsetof(struct rw_http_head, content_length);
    const size_t end = offsetof(struct rw_http_head, headers) + a->header_count * sizeof(a->headers[0]);
    return memcmp(a, b, first) == 0 && a->header_count == b->header_count &&
           memcmp((const uint8_t *)a + second, (const uint8_t *)b + second, end - second) == 0;
}

static void expect_same(const struct vector *vector, int32_t whole, const struct rw_http_head *whole_head, int32_t cut,
                        const struct rw_http_head *cut_head, const char *how, size_t at) {
    if (whole != cut) fail_msg("%s: \"%s\": whole %d, %s at %zu %d", vector->page, vector->title, whole, how, at, cut);
    if (whole > 0 && !heads_equal(whole_head, cut_head))
        fail_msg("%s: \"%s\": another head when %s at %zu", vector->page, vector->title, how, at);
}

static void expect_text(struct vector *vector, const char *what, const char *told, const uint8_t *bytes, size_t len) {
    static struct vector_bytes expected;
    expected.bytes = 0;
    vector_unescape(vector, told, strlen(told), &expected);
    if (expected.bytes != len || memcmp(expected.at, bytes, len) != 0)
        fail_msg("%s: \"%s\": %s is \"%.*s\", not \"%s\"", vector->page, vector->title, what, (int)len,
                 (const char *)bytes, told);
}

static void expect_span(struct vector *vector, const char *key, struct rw_span span, bool must) {
    const char *told = vector_expected(vector, key, 0);
    if (told == NULL && must) vector_fail(vector, "must tell", key);
    if (told != NULL) expect_text(vector, key, told, vector->input.at + span.offset, span.bytes);
}

static uint32_t flags_of(const struct vector *vector) {
    static const struct {
        const char *name;
        uint32_t flag;
    } names[] = {{"keep-alive", RW_HTTP_KEEP_ALIVE},
                 {"chunked", RW_HTTP_CHUNKED},
                 {"length", RW_HTTP_HAS_LENGTH},
                 {"expect", RW_HTTP_EXPECT_CONTINUE},
                 {"http10", RW_HTTP_10},
                 {"websocket", RW_HTTP_UPGRADE_WEBSOCKET},
                 {"upgrade", RW_HTTP_CONNECTION_UPGRADE},
                 {"asterisk", RW_HTTP_ASTERISK},
                 {"authority", RW_HTTP_AUTHORITY}};
    const char *told = vector_expected(vector, "flags", 0);
    char text[256];
    uint32_t flags = 0;
    if (told == NULL) vector_fail(vector, "must tell", "flags");
    snprintf(text, sizeof(text), "%s", told);
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " ")) {
        size_t i = 0;
        while (i < sizeof(names) / sizeof(names[0]) && strcmp(names[i].name, word) != 0) i++;
        if (i == sizeof(names) / sizeof(names[0])) vector_fail(vector, "unknown flag", word);
        flags |= names[i].flag;
    }
    return flags;
}

static void expect_fields(struct vector *vector, const struct rw_http_head *head) {
    uint32_t count = 0;
    for (const char *told = NULL; (told = vector_expected(vector, "field", count)) != NULL; count++) {
        char name[256];
        const char *equals = strstr(told, " =");
        if (equals == NULL || count >= head->header_count || (size_t)(equals - told) >= sizeof(name))
            vector_fail(vector, "no such field", told);
        memcpy(name, told, (size_t)(equals - told));
        name[equals - told] = '\0';
        const struct rw_http_header *header = &head->headers[count];
        expect_text(vector, "field name", name, vector->input.at + header->name.offset, header->name.bytes);
        expect_text(vector, "field value", equals[2] == ' ' ? equals + 3 : "", vector->input.at + header->value.offset,
                    header->value.bytes);
    }
    if (count != 0 && count != head->header_count) vector_fail(vector, "tells not all fields", "");
}

static void expect_head(struct vector *vector, const struct rw_http_head *head, size_t consumed) {
    const char *rest = vector_expected(vector, "rest", 0);
    const char *length = vector_expected(vector, "length", 0);
    expect_span(vector, "method", head->method_name, true);
    expect_span(vector, "target", head->target, true);
    expect_span(vector, "host", head->host, true);
    expect_span(vector, "key", head->ws_key, false);
    expect_span(vector, "version", head->ws_version, false);
    expect_span(vector, "protocol", head->ws_protocol, false);
    expect_span(vector, "origin", head->origin, false);
    expect_text(vector, "rest", rest != NULL ? rest : "", vector->input.at + consumed, vector->input.bytes - consumed);
    if (head->flags != flags_of(vector))
        fail_msg("%s: \"%s\": flags are 0x%x, not %s", vector->page, vector->title, head->flags,
                 vector_expected(vector, "flags", 0));
    if (length != NULL) assert_int_equal(head->content_length, strtoull(length, NULL, 10));
    expect_fields(vector, head);
}

static void expect_result(const struct vector *vector, const char *result) {
    if (strcmp(vector_expected(vector, "result", 0), result) != 0)
        fail_msg("%s: \"%s\": result is %s, not %s", vector->page, vector->title, result,
                 vector_expected(vector, "result", 0));
}

static void run_head(struct vector *vector) {
    static struct rw_http_head whole_head, cut_head;
    const size_t len = vector->input.bytes;
    char text[16];
    uint32_t scanned = 0;
    const int32_t whole = parse(vector, len, &scanned, &whole_head);
    snprintf(text, sizeof(text), "%d", -whole);
    expect_result(vector, whole > 0 ? "ok" : whole == 0 ? "more" : text);
    if (whole > 0) expect_head(vector, &whole_head, (size_t)whole);

    int32_t result = 0;
    size_t at = 0;
    scanned = 0;
    for (; at <= len && result == 0; at++) {
        result = parse(vector, at, &scanned, &cut_head);
        /* Linear: all that has come but a CR at the end is never looked at again until the end is found. */
        if (result == 0) assert_true((scanned & 0x7fffffffu) + 1 >= at);
    }
    expect_same(vector, whole, &whole_head, result, &cut_head, "byte by byte", at - 1);
    if (result > 0) assert_int_equal(result, at - 1);

    for (size_t cut = 0; cut <= len; cut++) {
        scanned = 0;
        result = parse(vector, cut, &scanned, &cut_head);
        if (result == 0) result = parse(vector, len, &scanned, &cut_head);
        expect_same(vector, whole, &whole_head, result, &cut_head, "cut", cut);
    }
}

/* ------------------------------------------------------------------ chunked bodies */

struct decoded {
    int32_t result;
    size_t consumed;
    struct vector_bytes body;
};

/* Feed bytes[from..to), the pieces one after the other as a caller does. */
static void feed(const struct vector *vector, struct rw_chunk_decoder *decoder, size_t from, size_t to,
                 struct decoded *out) {
    const uint8_t *bytes = place(vector->input.at + from, to - from);
    while (bytes < guard && out->result == 0) {
        const uint8_t *data = NULL;
        size_t data_bytes = 0;
        size_t consumed = 0;
        out->result = rw_http_decode_chunked(decoder, bytes, (size_t)(guard - bytes), &data, &data_bytes, &consumed);
        if (out->result < 0) {
            assert_int_equal(consumed, 0);
            assert_int_equal(data_bytes, 0);
            return;
        }
        assert_true(consumed > 0 && consumed <= (size_t)(guard - bytes));
        if (data_bytes > 0) assert_true(data >= bytes && data + data_bytes <= bytes + consumed);
        for (size_t i = 0; i < data_bytes; i++) vector_push(&out->body, data[i]);
        bytes += consumed;
        out->consumed += consumed;
    }
}

static void expect_same_body(const struct vector *vector, const struct decoded *whole, const struct decoded *cut,
                             const char *how, size_t at) {
    /* After an error, what was consumed depends on the cuts, and means nothing. */
    if (whole->result != cut->result || (whole->result >= 0 && whole->consumed != cut->consumed))
        fail_msg("%s: \"%s\": whole %d after %zu, %s at %zu %d after %zu", vector->page, vector->title, whole->result,
                 whole->consumed, how, at, cut->result, cut->consumed);
    if (whole->body.bytes != cut->body.bytes || memcmp(whole->body.at, cut->body.at, cut->body.bytes) != 0)
        fail_msg("%s: \"%s\": another body when %s at %zu", vector->page, vector->title, how, at);
}

static void decoded_reset(struct decoded *out) {
    out->result = 0;
    out->consumed = out->body.bytes = 0;
}

static void run_chunked(struct vector *vector) {
    static struct decoded whole, cut;
    const size_t len = vector->input.bytes;
    const char *rest = vector_expected(vector, "rest", 0);
    const char *body = vector_expected(vector, "body", 0);
    char text[16];
    struct rw_chunk_decoder decoder = {0};
    decoded_reset(&whole);
    feed(vector, &decoder, 0, len, &whole);
    snprintf(text, sizeof(text), "%d", -whole.result);
    expect_result(vector, whole.result > 0 ? "end" : whole.result == 0 ? "more" : text);
    if (body == NULL) vector_fail(vector, "must tell", "body");
    expect_text(vector, "body", body, whole.body.at, whole.body.bytes);
    if (whole.result >= 0)
        expect_text(vector, "rest", rest != NULL ? rest : "", vector->input.at + whole.consumed, len - whole.consumed);

    decoder = (struct rw_chunk_decoder){0};
    decoded_reset(&cut);
    for (size_t at = 0; at < len; at++) feed(vector, &decoder, at, at + 1, &cut);
    expect_same_body(vector, &whole, &cut, "byte by byte", len);

    for (size_t at = 0; at <= len; at++) {
        decoder = (struct rw_chunk_decoder){0};
        decoded_reset(&cut);
        feed(vector, &decoder, 0, at, &cut);
        feed(vector, &decoder, at, len, &cut);
        expect_same_body(vector, &whole, &cut, "cut", at);
    }
}

/* ------------------------------------------------------------------ tests */

static void run_case(struct vector *vector) {
    if (vector->chunked) run_chunked(vector);
    else run_head(vector);
}

static void run_page(const char *page) {
    const uint32_t count = vectors_run(page, run_case);
    assert_true(count > 0);
    case_count += count;
}

static void understands_what_is_valid(void **state) {
    (void)state;
    run_page("valid");
}
static void refuses_what_is_malformed(void **state) {
    (void)state;
    run_page("malformed");
}
static void refuses_what_could_be_read_in_two_ways(void **state) {
    (void)state;
    run_page("smuggling");
}
static void decodes_chunked_bodies_strictly(void **state) {
    (void)state;
    run_page("chunked");
}
static void holds_to_its_limits(void **state) {
    (void)state;
    run_page("limits");
}

static void every_page_was_read(void **state) {
    (void)state;
    print_message("%u cases\n", case_count);
    assert_true(case_count > CASES_MIN);
}

static int32_t parse_text(const char *text, struct rw_http_head *head) {
    const struct rw_http_limits limits = {RW_HEAD_BYTES_DEFAULT, RW_TARGET_BYTES_DEFAULT, RW_HEADER_COUNT_DEFAULT};
    uint32_t scanned = 0;
    return rw_http_parse_head(place((const uint8_t *)text, strlen(text)), strlen(text), &limits, &scanned, head);
}

static void names_the_methods_it_knows_by_number(void **state) {
    static const struct {
        const char *name;
        uint32_t method;
    } methods[] = {{"GET", RW_METHOD_GET},      {"HEAD", RW_METHOD_HEAD},     {"POST", RW_METHOD_POST},
                   {"PUT", RW_METHOD_PUT},      {"DELETE", RW_METHOD_DELETE}, {"OPTIONS", RW_METHOD_OPTIONS},
                   {"TRACE", RW_METHOD_TRACE},  {"PATCH", RW_METHOD_PATCH},   {"Get", RW_METHOD_OTHER},
                   {"PUTT", RW_METHOD_OTHER},   {"BREW", RW_METHOD_OTHER},    {"TRACK", RW_METHOD_OTHER},
                   {"REPORT", RW_METHOD_OTHER}, {"X", RW_METHOD_OTHER}};
    static struct rw_http_head head;
    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        char text[64];
        snprintf(text, sizeof(text), "%s / HTTP/1.0\r\n\r\n", methods[i].name);
        assert_int_equal(parse_text(text, &head), strlen(text));
        assert_int_equal(head.method, methods[i].method);
    }
    assert_true(parse_text("CONNECT a:1 HTTP/1.0\r\n\r\n", &head) > 0);
    assert_int_equal(head.method, RW_METHOD_CONNECT);
}

static void tells_absent_fields_from_empty_ones(void **state) {
    static struct rw_http_head head;
    (void)state;
    assert_true(parse_text("GET / HTTP/1.0\r\nOrigin:\r\nSec-WebSocket-Protocol: \r\n\r\n", &head) > 0);
    assert_true(head.origin.offset != 0 && head.origin.bytes == 0);
    assert_true(head.ws_protocol.offset != 0 && head.ws_protocol.bytes == 0);
    assert_true(head.ws_key.offset == 0 && head.ws_version.offset == 0 && head.host.offset == 0);
}

/* Each byte value, alone, in each place where a class of characters decides: the table against the grammar written out
 * once more. */
static void every_byte_value_is_judged_by_the_grammar(void **state) {
    static struct rw_http_head head;
    (void)state;
    for (uint32_t byte = 1; byte < 256; byte++) {
        const bool alphanumeric =
            (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
        const bool token = alphanumeric || strchr("!#$%&'*+-.^_`|~", (int)byte) != NULL;
        const bool text_ok = byte == '\t' || (byte >= 32 && byte != 127);
        char text[64];
        snprintf(text, sizeof(text), "GE%cT / HTTP/1.0\r\n\r\n", (int)byte);
        assert_int_equal(parse_text(text, &head) > 0, token);
        snprintf(text, sizeof(text), "GET /%c HTTP/1.0\r\n\r\n", (int)byte);
        assert_int_equal(parse_text(text, &head) > 0, byte > 32 && byte < 127 && byte != '#');
        snprintf(text, sizeof(text), "GET / HTTP/1.0\r\nX%cY: z\r\n\r\n", (int)byte);
        assert_int_equal(parse_text(text, &head) > 0, token || byte == ':');
        snprintf(text, sizeof(text), "GET / HTTP/1.0\r\nX: y%cz\r\n\r\n", (int)byte);
        assert_int_equal(parse_text(text, &head) > 0, text_ok);
        snprintf(text, sizeof(text), "GET / HTTP/1.0\r\nHost: a%c1\r\n\r\n", (int)byte);
        assert_int_equal(parse_text(text, &head) > 0, alphanumeric || strchr("-._~:!$&'()*+;=", (int)byte) != NULL);
    }
}

static void a_decoder_that_has_ended_or_failed_stays_so(void **state) {
    struct rw_chunk_decoder decoder = {0};
    const uint8_t *data = NULL;
    size_t data_bytes = 0;
    size_t consumed = 0;
    (void)state;
    assert_int_equal(rw_http_decode_chunked(&decoder, (const uint8_t *)"0\r\n\r\n", 5, &data, &data_bytes, &consumed),
                     1);
    assert_int_equal(consumed, 5);
    assert_int_equal(rw_http_decode_chunked(&decoder, (const uint8_t *)"5\r\nhello", 8, &data, &data_bytes, &consumed),
                     1);
    assert_int_equal(consumed, 0);
    decoder = (struct rw_chunk_decoder){0};
    assert_int_equal(rw_http_decode_chunked(&decoder, (const uint8_t *)"x", 1, &data, &data_bytes, &consumed), -400);
    assert_int_equal(rw_http_decode_chunked(&decoder, (const uint8_t *)"0\r\n\r\n", 5, &data, &data_bytes, &consumed),
                     -400);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(understands_what_is_valid),
        cmocka_unit_test(refuses_what_is_malformed),
        cmocka_unit_test(refuses_what_could_be_read_in_two_ways),
        cmocka_unit_test(decodes_chunked_bodies_strictly),
        cmocka_unit_test(holds_to_its_limits),
        cmocka_unit_test(every_page_was_read),
        cmocka_unit_test(names_the_methods_it_knows_by_number),
        cmocka_unit_test(tells_absent_fields_from_empty_ones),
        cmocka_unit_test(every_byte_value_is_judged_by_the_grammar),
        cmocka_unit_test(a_decoder_that_has_ended_or_failed_stays_so),
    };
    return cmocka_run_group_tests(tests, make_guard, NULL);
}
