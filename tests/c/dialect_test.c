/* Dialects of topic messages: forms to the letter, any bytes as JSON and as one event, sizes that are what is written.
 * Everything is written against a page that may not be touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"
#include "dialect_reader.h"
#include "guard_page.h"
#include "topics/dialect.h"

#define OUT_BYTES_MAX 65536u
#define EPOCH UINT64_C(0x00C0FFEE00C0FFEE)

static struct guard_page guard;
static struct guard_page input_guard;

static int set_up(void **state) {
    (void)state;
    guard = guard_page_create(OUT_BYTES_MAX);
    input_guard = guard_page_create(OUT_BYTES_MAX);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    guard_page_destroy(&guard);
    guard_page_destroy(&input_guard);
    return 0;
}

/* What is written ends exactly at the guard, and nothing in front of it is touched. */
struct written {
    const uint8_t *bytes;
    size_t len;
};

static uint8_t *room_for(uint64_t bytes) {
    assert_true(bytes < OUT_BYTES_MAX);
    uint8_t *out = guard.end - bytes;
    out[-1] = 0xEE;
    return out;
}

static struct written finish(const uint8_t *out, uint64_t counted, uint64_t written) {
    assert_int_equal(counted, written);
    assert_int_equal(out[-1], 0xEE);
    return (struct written){.bytes = out, .len = (size_t)written};
}

static struct written json(const struct rw_topic_message *message) {
    const uint64_t bytes = rw_json_message(NULL, message);
    uint8_t *out = room_for(bytes);
    return finish(out, bytes, rw_json_message(out, message));
}

static struct written string(const void *text, size_t len) {
    const uint8_t *bytes = guard_page_copy(&input_guard, text, len);
    const uint64_t counted = rw_json_string(NULL, bytes, len);
    uint8_t *out = room_for(counted);
    return finish(out, counted, rw_json_string(out, bytes, len));
}

static struct written event(const struct rw_topic_message *message, uint32_t *head_bytes) {
    uint32_t counted_head;
    const uint64_t bytes = rw_sse_event(NULL, message, &counted_head);
    uint8_t *out = room_for(bytes);
    const struct written written = finish(out, bytes, rw_sse_event(out, message, head_bytes));
    assert_int_equal(*head_bytes, counted_head);
    return written;
}

static struct written shared(const struct rw_topic_message *message) {
    const uint64_t bytes = rw_sse_shared(NULL, message);
    uint8_t *out = room_for(bytes);
    return finish(out, bytes, rw_sse_shared(out, message));
}

static void assert_text(struct written written, const char *expected) {
    if (written.len != strlen(expected) || memcmp(written.bytes, expected, written.len) != 0)
        fail_msg("written: %.*s\nexpected: %s", (int)written.len, (const char *)written.bytes, expected);
}

static struct rw_topic_message message_of(const char *payload, int is_text) {
    return (struct rw_topic_message){.topic = (const uint8_t *)"chat/1",
                                     .topic_bytes = 6,
                                     .payload = (const uint8_t *)payload,
                                     .payload_bytes = strlen(payload),
                                     .epoch = EPOCH,
                                     .offset = 7,
                                     .is_text = (uint8_t)is_text};
}

static struct rw_topic_message member_of(uint8_t event, const char *user, const char *info) {
    struct rw_topic_message message = message_of("", 0);
    message.event = event;
    message.of_members = 1;
    message.user = (const uint8_t *)user;
    message.user_bytes = (uint32_t)strlen(user);
    message.info = (const uint8_t *)info;
    message.info_bytes = (uint32_t)strlen(info);
    return message;
}

/* ------------------------------------------------------------------ base64 */

static void base64_is_that_of_the_rfc(void **state) {
    static const char *const cases[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}}; /* RFC 4648 §10 */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t len = strlen(cases[i][0]);
        assert_int_equal(rw_base64_bytes(len), strlen(cases[i][1]));
        uint8_t *out = room_for(rw_base64_bytes(len));
        rw_base64_encode(out, guard_page_copy(&input_guard, cases[i][0], len), len);
        assert_text(finish(out, rw_base64_bytes(len), rw_base64_bytes(len)), cases[i][1]);
    }
}

static void base64_has_every_character_of_the_alphabet_in_its_place(void **state) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (void)state;
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t group = i << 18 | i << 12 | i << 6 | i;
        const uint8_t bytes[3] = {(uint8_t)(group >> 16), (uint8_t)(group >> 8), (uint8_t)group};
        uint8_t out[4];
        rw_base64_encode(out, bytes, 3);
        for (size_t at = 0; at < 4; at++) assert_int_equal(out[at], alphabet[i]);
    }
}

/* ------------------------------------------------------------------ JSON */

static void a_message_is_an_object_with_its_position(void **state) {
    (void)state;
    struct rw_topic_message message = message_of("hi \"you\"", 1);
    assert_text(json(&message),
                "{\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,\"data\":\"hi \\\"you\\\"\"}");
    message = message_of("\x01\x02\x03", 0);
    assert_text(json(&message),
                "{\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,\"base64\":\"AQID\"}");
    message = message_of("", 1);
    message.epoch = 0;
    assert_text(json(&message), "{\"topic\":\"chat/1\",\"data\":\"\"}");
    message = message_of("", 0);
    message.epoch = UINT64_MAX;
    message.offset = UINT64_MAX;
    assert_text(json(&message), "{\"topic\":\"chat/1\",\"epoch\":\"ffffffffffffffff\",\"offset\":18446744073709551615,"
                                "\"base64\":\"\"}");
}

static void members_and_what_is_lost_have_forms_of_their_own(void **state) {
    (void)state;
    struct rw_topic_message message = member_of(RW_TOPIC_JOIN, "a\"nn", "{\"name\":\"Ann\"}");
    assert_text(json(&message), "{\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,\"event\":\"join\","
                                "\"user\":\"a\\\"nn\",\"info\":{\"name\":\"Ann\"}}");
    message = member_of(RW_TOPIC_LEAVE, "ann", "");
    assert_text(json(&message), "{\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,\"event\":\"leave\","
                                "\"user\":\"ann\"}");
    message = message_of("not shown", 1);
    message.event = RW_TOPIC_LOST;
    assert_text(json(&message), "{\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,\"lost\":true}");
    message.of_members = 1;
    assert_text(json(&message), "{\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,"
                                "\"event\":\"presence\",\"lost\":true}");
    uint32_t head_bytes;
    const struct written written = event(&message, &head_bytes);
    assert_memory_equal(written.bytes + head_bytes, "event: lost\ndata: ", 18);
}

static void a_line_end_within_info_does_not_end_the_line(void **state) {
    (void)state;
    struct rw_topic_message message = member_of(RW_TOPIC_JOIN, "ann", "{\r\n\"a\":\n1\r}");
    uint32_t head_bytes;
    assert_text(json(&message), "{\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,\"event\":\"join\","
                                "\"user\":\"ann\",\"info\":{  \"a\": 1 }}");
    assert_text(event(&message, &head_bytes),
                "7b\r\nevent: join\ndata: {\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,"
                "\"event\":\"join\",\"user\":\"ann\",\"info\":{  \"a\": 1 }}\n\n\r\n");
}

static void strings_escape_what_the_rfc_names_and_nothing_else(void **state) {
    (void)state;
    for (unsigned byte = 0; byte < 0x80; byte++) {
        const uint8_t text = (uint8_t)byte;
        char expected[8] = {'"', (char)byte, '"'};
        const char *short_form = byte ? strchr("\"\"\\\\\bb\ff\nn\rr\tt", (int)byte) : NULL;
        if (byte == 'b' || byte == 'f' || byte == 'n' || byte == 'r' || byte == 't') short_form = NULL;
        if (short_form) (void)snprintf(expected, sizeof expected, "\"\\%c\"", short_form[1]);
        else if (byte < 0x20) (void)snprintf(expected, sizeof expected, "\"\\u%04x", byte);
        char whole[16];
        (void)snprintf(whole, sizeof whole, "%s%s", expected, byte < 0x20 && !short_form ? "\"" : "");
        assert_text(string(&text, 1), whole);
    }
}

/* Every string comes back as what a decoder makes of its bytes. */
static void check_string(const uint8_t *bytes, size_t len) {
    uint8_t *decoded = malloc(3 * len + 1);
    uint8_t *read = malloc(6 * len + 3);
    assert_true(decoded && read);
    struct dialect_text expected = {.bytes = decoded};
    struct dialect_text found = {.bytes = read};
    dialect_decode(&expected, bytes, len);
    const struct written written = string(bytes, len);
    assert_int_equal(dialect_read_string(written.bytes, written.len, &found), written.len);
    assert_int_equal(found.len, expected.len);
    assert_memory_equal(found.bytes, expected.bytes, expected.len);
    free(decoded);
    free(read);
}

static void every_pair_of_bytes_at_every_place_of_a_word_is_read_back(void **state) {
    (void)state;
    for (unsigned first = 0; first < 256; first++)
        for (unsigned second = 0; second < 256; second += first < 0x80 && first != '"' && first >= 0x20 ? 7 : 1) {
            uint8_t text[12];
            memset(text, 'a', sizeof text);
            const size_t at = (first * 7 + second) % (sizeof text - 1);
            text[at] = (uint8_t)first;
            text[at + 1] = (uint8_t)second;
            check_string(text, sizeof text);
            check_string(text, at + 1);
        }
}

static void malformed_text_shows_as_a_replacement_for_each_part(void **state) {
    static const char *const cases[][2] = {
        {"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", "\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\""},
        {"\xFF", "\"\xEF\xBF\xBD\""},
        {"a\xE2\x82", "\"a\xEF\xBF\xBD\""},
        {"\xE2\x82!", "\"\xEF\xBF\xBD!\""},
        {"\xE2\xE2\x82\xAC", "\"\xEF\xBF\xBD\xE2\x82\xAC\""},
        /* a surrogate is three octets that begin nothing (Unicode 15 table 3-8) */
        {"\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {"\xF0\x80\x80\x41", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\x41\""},
        {"\xC3\"", "\"\xEF\xBF\xBD\\\"\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_text(string(cases[i][0], strlen(cases[i][0])), cases[i][1]);
        check_string((const uint8_t *)cases[i][0], strlen(cases[i][0]));
    }
}

/* ------------------------------------------------------------------ server-sent events */

static void an_event_is_a_chunk_with_its_id(void **state) {
    uint32_t head_bytes;
    (void)state;
    struct rw_topic_message message = message_of("hello", 1);
    const struct written written = event(&message, &head_bytes);
    assert_text(written, "24\r\nid: 00c0ffee00c0ffee:7\ndata: hello\n\n\r\n");
    assert_int_equal(head_bytes, 4);
    assert_int_equal(written.len - head_bytes - RW_SSE_TAIL_BYTES, 0x24);
    message = message_of("\x01\x02\x03", 0);
    assert_text(event(&message, &head_bytes), "31\r\nid: 00c0ffee00c0ffee:7\nevent: base64\ndata: AQID\n\n\r\n");
    message = message_of("hello", 1);
    message.epoch = 0;
    assert_text(event(&message, &head_bytes), "d\r\ndata: hello\n\n\r\n");
    message.event = RW_TOPIC_LOST;
    message.epoch = EPOCH;
    assert_text(event(&message, &head_bytes), "6f\r\nid: 00c0ffee00c0ffee:7\nevent: lost\ndata: {\"topic\":\"chat/1\","
                                              "\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,\"lost\":true}\n\n\r\n");
}

static void lines_end_as_a_client_reads_them(void **state) {
    static const char *const cases[][2] = {
        {"", "data: \n"},
        {"a\nb", "data: a\ndata: b\n"},
        {"a\r\nb", "data: a\ndata: b\n"},
        {"a\rb", "data: a\ndata: b\n"},
        {"a\n\rb", "data: a\ndata: \ndata: b\n"},
        {"a\r\r\n\n", "data: a\ndata: \ndata: \ndata: \n"},
        {"\n", "data: \ndata: \n"},
        {" a\n  b", "data:  a\ndata:   b\n"},
        {"tab\tand\x01\x7F control\nid: 9\n\nevent: x",
         "data: tab\tand\x01\x7F control\ndata: id: 9\ndata: \ndata: event: x\n"},
        {"a line that is longer than sixteen bytes\rand another of them\r",
         "data: a line that is longer than sixteen bytes\n"
         "data: and another of them\ndata: \n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rw_topic_message message = message_of("", 1);
        message.payload_bytes = strlen(cases[i][0]);
        message.payload = guard_page_copy(&input_guard, cases[i][0], (size_t)message.payload_bytes);
        message.epoch = 0;
        char expected[256];
        (void)snprintf(expected, sizeof expected, "%zx\r\n%s\n\r\n", strlen(cases[i][1]) + 1, cases[i][1]);
        uint32_t head_bytes;
        assert_text(event(&message, &head_bytes), expected);
    }
}

static void a_client_reads_back_every_text_with_its_lines(void **state) {
    static const char alphabet[] = {'a', '\n', '\r', ' ', ':', 0};
    uint64_t seed = 1;
    (void)state;
    for (unsigned round = 0; round < 5000; round++) {
        uint8_t text[64], data[256], name[8], id[64], expected[64];
        seed = seed * UINT64_C(6364136223846793005) + 1;
        const size_t len = (size_t)(seed >> 33) % 40;
        for (size_t i = 0; i < len; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1;
            text[i] = (uint8_t)alphabet[(seed >> 33) % sizeof alphabet];
        }
        struct rw_topic_message message = message_of("", 1);
        message.payload = guard_page_copy(&input_guard, text, len);
        message.payload_bytes = len;
        uint32_t head_bytes;
        const struct written written = event(&message, &head_bytes);
        const size_t body = written.len - head_bytes - RW_SSE_TAIL_BYTES;
        struct dialect_event read = {.data.bytes = data, .name.bytes = name, .id.bytes = id};
        assert_int_equal(dialect_read_event(written.bytes + head_bytes, body, &read), body);
        size_t lines = 0;
        for (size_t i = 0; i < len; i++) {
            if (text[i] == '\r' && i + 1 < len && text[i + 1] == '\n') continue;
            expected[lines++] = text[i] == '\r' ? '\n' : text[i];
        }
        assert_int_equal(read.data.len, lines);
        assert_memory_equal(read.data.bytes, expected, lines);
        assert_int_equal(read.id.len, strlen("00c0ffee00c0ffee:7"));
        assert_int_equal(read.name.len, 0);
    }
}

static void streams_of_several_topics_share_all_but_the_front(void **state) {
    (void)state;
    struct rw_topic_message message = message_of("one\ntwo", 1);
    const char *const expected = "data: {\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,"
                                 "\"data\":\"one\\ntwo\"}\n\n\r\n";
    assert_text(shared(&message), expected);
    message = member_of(RW_TOPIC_LEAVE, "ann", "");
    assert_text(shared(&message),
                "event: leave\ndata: {\"topic\":\"chat/1\",\"epoch\":\"00c0ffee00c0ffee\",\"offset\":7,"
                "\"event\":\"leave\",\"user\":\"ann\"}\n\n\r\n");
}

static void the_front_names_the_positions_of_all_topics(void **state) {
    static const struct rw_sse_position positions[] = {{EPOCH, 7}, {0, 0}, {1, UINT64_MAX}};
    static const struct {
        uint32_t count;
        int chunked;
        const char *expected;
    } cases[] = {
        {3, 0, "id: 00c0ffee00c0ffee:7,-,0000000000000001:18446744073709551615\n"},
        {3, 1, "a1\r\nid: 00c0ffee00c0ffee:7,-,0000000000000001:18446744073709551615\n"},
        {1, 1, "79\r\nid: 00c0ffee00c0ffee:7\n"},
        {0, 1, "62\r\n"},
        {0, 0, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint64_t counted = rw_sse_front(NULL, positions, cases[i].count, 100, cases[i].chunked);
        uint8_t *out = room_for(counted);
        assert_text(finish(out, counted, rw_sse_front(out, positions, cases[i].count, 100, cases[i].chunked)),
                    cases[i].expected);
    }
}

static void positions_are_written_with_all_digits_of_the_epoch(void **state) {
    static const struct {
        uint64_t epoch, offset;
        const char *expected;
    } cases[] = {{1, 0, "0000000000000001:0"},
                 {EPOCH, 10, "00c0ffee00c0ffee:10"},
                 {UINT64_MAX, UINT64_MAX, "ffffffffffffffff:18446744073709551615"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint64_t counted = rw_position_text(NULL, cases[i].epoch, cases[i].offset);
        assert_true(counted <= RW_POSITION_TEXT_BYTES_MAX);
        uint8_t *out = room_for(counted);
        assert_text(finish(out, counted, rw_position_text(out, cases[i].epoch, cases[i].offset)), cases[i].expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_is_that_of_the_rfc),
        cmocka_unit_test(base64_has_every_character_of_the_alphabet_in_its_place),
        cmocka_unit_test(a_message_is_an_object_with_its_position),
        cmocka_unit_test(members_and_what_is_lost_have_forms_of_their_own),
        cmocka_unit_test(a_line_end_within_info_does_not_end_the_line),
        cmocka_unit_test(strings_escape_what_the_rfc_names_and_nothing_else),
        cmocka_unit_test(every_pair_of_bytes_at_every_place_of_a_word_is_read_back),
        cmocka_unit_test(malformed_text_shows_as_a_replacement_for_each_part),
        cmocka_unit_test(an_event_is_a_chunk_with_its_id),
        cmocka_unit_test(lines_end_as_a_client_reads_them),
        cmocka_unit_test(a_client_reads_back_every_text_with_its_lines),
        cmocka_unit_test(streams_of_several_topics_share_all_but_the_front),
        cmocka_unit_test(the_front_names_the_positions_of_all_topics),
        cmocka_unit_test(positions_are_written_with_all_digits_of_the_epoch),
    };
    return cmocka_run_group_tests_name("dialect", tests, set_up, tear_down);
}
