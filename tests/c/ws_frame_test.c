/* WebSocket framing: headers whole and byte by byte against a page that may not be read, masking against its
 * definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "guard_page.h"
#include "ws/ws_frame.h"

#define PAYLOAD_BYTES_MAX 4096u

static struct guard_page source_guard;
static struct guard_page target_guard;

static int set_up(void **state) {
    (void)state;
    source_guard = guard_page_create(PAYLOAD_BYTES_MAX);
    target_guard = guard_page_create(PAYLOAD_BYTES_MAX);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    guard_page_destroy(&source_guard);
    guard_page_destroy(&target_guard);
    return 0;
}

static const struct rw_ws_frame untouched = {.payload_bytes = 0xA5A5A5A5A5A5A5A5u,
                                             .mask = {0xA5, 0xA5, 0xA5, 0xA5},
                                             .opcode = 0xA5,
                                             .fin = 0xA5,
                                             .rsv1 = 0xA5,
                                             .masked = 0xA5};

static void assert_untouched(const struct rw_ws_frame *frame) {
    assert_memory_equal(frame, &untouched, sizeof(untouched));
}

/* Decode bytes[0..len) from memory that ends at the guard. */
static int32_t decode(const uint8_t *bytes, size_t len, int rsv1_allowed, struct rw_ws_frame *frame) {
    *frame = untouched;
    const int32_t result = rw_ws_decode_header(guard_page_copy(&source_guard, bytes, len), len, rsv1_allowed, frame);
    if (result <= 0) assert_untouched(frame);
    return result;
}

/* The header asks for more until its last byte, and then again gives the same with payload behind it. */
static void check_header(const uint8_t *header, size_t header_bytes, int rsv1_allowed,
                         const struct rw_ws_frame *expected) {
    struct rw_ws_frame frame;
    uint8_t with_payload[RW_WS_HEADER_BYTES_MAX + 3];

    for (size_t len = 0; len < header_bytes; len++) assert_int_equal(decode(header, len, rsv1_allowed, &frame), 0);
    memset(with_payload, 0xFF, sizeof(with_payload));
    memcpy(with_payload, header, header_bytes);
    for (size_t extra = 0; extra <= 3; extra++) {
        assert_int_equal(decode(with_payload, header_bytes + extra, rsv1_allowed, &frame), (int32_t)header_bytes);
        assert_memory_equal(&frame, expected, sizeof(frame));
    }
}

/* The header asks for more up to error_at bytes and fails from that byte on. */
static void check_error(const uint8_t *header, size_t header_bytes, int rsv1_allowed, size_t error_at, int32_t error) {
    struct rw_ws_frame frame;

    for (size_t len = 0; len <= header_bytes; len++)
        assert_int_equal(decode(header, len, rsv1_allowed, &frame), len < error_at ? 0 : error);
}

static void the_masked_hello_of_the_rfc_is_decoded(void **state) {
    /* RFC 6455 §5.7: a single-frame masked text message "Hello" */
    static const uint8_t bytes[] = {0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58};
    const struct rw_ws_frame expected = {
        .payload_bytes = 5, .mask = {0x37, 0xFA, 0x21, 0x3D}, .opcode = RW_WS_OP_TEXT, .fin = 1, .masked = 1};
    uint8_t text[5];

    (void)state;
    check_header(bytes, 6, 0, &expected);
    rw_ws_mask(text, bytes + 6, 5, expected.mask, 0);
    assert_memory_equal(text, "Hello", 5);
}

static void every_length_form_is_decoded_at_its_edges(void **state) {
    static const uint64_t lengths[] = {
        0, 1, 125, 126, 127, 255, 256, 65535, 65536, 65537, UINT64_C(1) << 32, UINT64_C(0x0102030405060708), INT64_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const struct rw_ws_frame expected = {
            .payload_bytes = lengths[i], .mask = {1, 2, 3, 4}, .opcode = RW_WS_OP_BINARY, .fin = 1, .masked = 1};
        uint8_t header[RW_WS_HEADER_BYTES_MAX];
        const uint32_t bytes = rw_ws_encode_header(header, RW_WS_OP_BINARY, 1, 0, lengths[i]);

        assert_int_equal(bytes, lengths[i] <= 125 ? 2 : lengths[i] <= 65535 ? 4 : 10);
        header[1] |= 0x80;
        memcpy(header + bytes, expected.mask, 4);
        check_header(header, bytes + 4, 0, &expected);
    }
}

static void every_first_byte_is_judged_by_the_rules(void **state) {
    (void)state;
    for (unsigned allowed = 0; allowed <= 1; allowed++) {
        for (unsigned first = 0; first < 256; first++) {
            const unsigned opcode = first & 15, fin = first >> 7, rsv1 = first >> 6 & 1;
            const uint8_t header[6] = {(uint8_t)first, 0x80, 9, 8, 7, 6};
            const int is_data = opcode == RW_WS_OP_TEXT || opcode == RW_WS_OP_BINARY;
            const int is_control = opcode == RW_WS_OP_CLOSE || opcode == RW_WS_OP_PING || opcode == RW_WS_OP_PONG;

            if (first & 0x30) check_error(header, 6, (int)allowed, 1, RW_WS_ERR_RSV);
            else if (!is_data && !is_control && opcode != RW_WS_OP_CONTINUATION)
                check_error(header, 6, (int)allowed, 1, RW_WS_ERR_OPCODE);
            else if (rsv1 && !(is_data && allowed)) check_error(header, 6, (int)allowed, 1, RW_WS_ERR_RSV);
            else if (is_control && !fin) check_error(header, 6, (int)allowed, 1, RW_WS_ERR_CONTROL);
            else
                check_header(header, 6, (int)allowed,
                             &(struct rw_ws_frame){.mask = {9, 8, 7, 6},
                                                   .opcode = (uint8_t)opcode,
                                                   .fin = (uint8_t)fin,
                                                   .rsv1 = (uint8_t)rsv1,
                                                   .masked = 1});
        }
    }
}

static void a_frame_without_a_mask_is_refused_at_its_second_byte(void **state) {
    (void)state;
    for (unsigned length = 0; length < 128; length++)
        check_error((const uint8_t[]){0x82, (uint8_t)length, 0, 0}, 4, 0, 2, RW_WS_ERR_MASK);
}

static void a_control_frame_longer_than_125_is_refused_at_its_second_byte(void **state) {
    static const uint8_t opcodes[] = {RW_WS_OP_CLOSE, RW_WS_OP_PING, RW_WS_OP_PONG};

    (void)state;
    for (size_t i = 0; i < sizeof(opcodes); i++) {
        check_error((const uint8_t[]){0x80 | opcodes[i], 0x80 | 126, 0, 126}, 4, 0, 2, RW_WS_ERR_CONTROL);
        check_error((const uint8_t[]){0x80 | opcodes[i], 0x80 | 127, 0, 0, 0}, 5, 0, 2, RW_WS_ERR_CONTROL);
        check_header((const uint8_t[]){0x80 | opcodes[i], 0x80 | 125, 1, 2, 3, 4}, 6, 0,
                     &(struct rw_ws_frame){
                         .payload_bytes = 125, .mask = {1, 2, 3, 4}, .opcode = opcodes[i], .fin = 1, .masked = 1});
    }
}

static void a_length_with_a_shorter_form_is_refused_at_the_byte_that_shows_it(void **state) {
    (void)state;
    for (unsigned length = 0; length < 126; length++)
        check_error((const uint8_t[]){0x82, 0xFE, 0, (uint8_t)length, 1, 2, 3, 4}, 8, 0, 4, RW_WS_ERR_LENGTH);
    check_error((const uint8_t[]){0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 1, 2, 3, 4}, 14, 0, 8, RW_WS_ERR_LENGTH);
    check_error((const uint8_t[]){0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 14, 0, 8, RW_WS_ERR_LENGTH);
}

static void a_length_with_bit_63_set_is_refused_at_its_first_byte(void **state) {
    (void)state;
    check_error((const uint8_t[]){0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 14, 0, 3, RW_WS_ERR_LENGTH);
    check_error((const uint8_t[]){0x82, 0xFF, 0xFF, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4}, 14, 0, 3,
                RW_WS_ERR_LENGTH);
}

static void encoded_headers_are_those_of_the_rfc_and_stay_in_their_bytes(void **state) {
    static const struct {
        uint64_t payload_bytes;
        uint8_t opcode, fin, rsv1, header_bytes;
        uint8_t header[10];
    } cases[] = {
        {5, RW_WS_OP_TEXT, 1, 0, 2, {0x81, 0x05}}, /* RFC 6455 §5.7 */
        {3, RW_WS_OP_TEXT, 0, 0, 2, {0x01, 0x03}},
        {2, RW_WS_OP_CONTINUATION, 1, 0, 2, {0x80, 0x02}},
        {5, RW_WS_OP_PING, 1, 0, 2, {0x89, 0x05}},
        {256, RW_WS_OP_BINARY, 1, 0, 4, {0x82, 0x7E, 0x01, 0x00}},
        {65536, RW_WS_OP_BINARY, 1, 0, 10, {0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0}},
        {7, RW_WS_OP_TEXT, 1, 1, 2, {0xC1, 0x07}}, /* RFC 7692 §7.2.3.1 */
        {0, RW_WS_OP_CLOSE, 1, 0, 2, {0x88, 0x00}},
        {125, RW_WS_OP_PONG, 1, 0, 2, {0x8A, 0x7D}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *out = target_guard.end - cases[i].header_bytes;
        assert_int_equal(rw_ws_encode_header(out, cases[i].opcode, cases[i].fin, cases[i].rsv1, cases[i].payload_bytes),
                         cases[i].header_bytes);
        assert_memory_equal(out, cases[i].header, cases[i].header_bytes);
    }
}

/* ------------------------------------------------------------------ masking */

static const uint8_t key[4] = {0x37, 0xFA, 0x21, 0x3D};

static void fill(uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) bytes[i] = (uint8_t)(i * 167 + (i >> 8) + 13);
}

static void mask_by_definition(uint8_t *dst, const uint8_t *src, size_t len, uint32_t phase) {
    for (size_t i = 0; i < len; i++) dst[i] = src[i] ^ key[(phase + i) & 3];
}

/* Mask len bytes that lie `shift` bytes before the guard; nothing around them may change. */
static void check_mask(size_t len, size_t shift, uint32_t phase, int in_place) {
    uint8_t *src = source_guard.end - len - shift;
    uint8_t *dst = in_place ? src : target_guard.end - len - shift;
    uint8_t expected[PAYLOAD_BYTES_MAX], before = 0xEE;

    fill(src, len);
    mask_by_definition(expected, src, len, phase);
    dst[-1] = before;
    for (size_t i = 0; i < shift; i++) dst[len + i] = before;

    rw_ws_mask(dst, src, len, key, phase);
    assert_memory_equal(dst, expected, len);
    assert_int_equal(dst[-1], before);
    for (size_t i = 0; i < shift; i++) assert_int_equal(dst[len + i], before);
}

static void masking_equals_its_definition_for_every_short_length_alignment_and_phase(void **state) {
    (void)state;
    for (size_t len = 0; len <= 130; len++)
        for (size_t shift = 0; shift < 16; shift++)
            for (uint32_t phase = 0; phase < 4; phase++) {
                check_mask(len, shift, phase, 0);
                check_mask(len, shift, phase, 1);
            }
}

static void masking_equals_its_definition_for_large_payloads(void **state) {
    static const size_t lengths[] = {255, 256, 257, 1000, 1023, 1024, 1025, 4000};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (uint32_t phase = 0; phase < 4; phase++) {
            check_mask(lengths[i], i, phase, 0);
            check_mask(lengths[i], i, phase, 1);
        }
}

static void the_phase_counts_modulo_four_up_to_its_last_value(void **state) {
    (void)state;
    for (uint32_t low = 0; low < 4; low++) {
        check_mask(50, 0, 0xFFFFFFFCu + low, 1);
        check_mask(5, 0, 1000u + low, 0);
    }
}

static void unmasking_twice_is_identity(void **state) {
    uint8_t original[300];

    (void)state;
    fill(original, sizeof(original));
    for (size_t len = 0; len <= sizeof(original); len++) {
        uint8_t *bytes = guard_page_copy(&source_guard, original, len);
        rw_ws_mask(bytes, bytes, len, key, (uint32_t)len);
        rw_ws_mask(bytes, bytes, len, key, (uint32_t)len);
        assert_memory_equal(bytes, original, len);
    }
}

static void masking_in_two_parts_split_anywhere_equals_masking_whole(void **state) {
    uint8_t original[150], whole[150];

    (void)state;
    fill(original, sizeof(original));
    for (uint32_t phase = 0; phase < 4; phase++) {
        rw_ws_mask(whole, original, sizeof(original), key, phase);
        for (size_t split = 0; split <= sizeof(original); split++) {
            uint8_t *bytes = guard_page_copy(&source_guard, original, sizeof(original));
            rw_ws_mask(bytes, bytes, split, key, phase);
            rw_ws_mask(bytes + split, bytes + split, sizeof(original) - split, key, phase + (uint32_t)split);
            assert_memory_equal(bytes, whole, sizeof(whole));
        }
    }
}

static void close_codes_a_peer_may_send_are_those_of_the_registry(void **state) {
    static const uint32_t valid[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                                     1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999};
    static const uint32_t invalid[] = {0,    1,    999,  1004, 1005, 1006,  1015,  1016,
                                       1100, 1999, 2000, 2999, 5000, 65535, 66536, UINT32_MAX};
    unsigned count = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) assert_true(rw_ws_close_code_valid(valid[i]));
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) assert_false(rw_ws_close_code_valid(invalid[i]));
    for (uint32_t code = 0; code <= UINT16_MAX; code++) count += rw_ws_close_code_valid(code) ? 1u : 0u;
    assert_int_equal(count, 4 + 8 + 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_masked_hello_of_the_rfc_is_decoded),
        cmocka_unit_test(every_length_form_is_decoded_at_its_edges),
        cmocka_unit_test(every_first_byte_is_judged_by_the_rules),
        cmocka_unit_test(a_frame_without_a_mask_is_refused_at_its_second_byte),
        cmocka_unit_test(a_control_frame_longer_than_125_is_refused_at_its_second_byte),
        cmocka_unit_test(a_length_with_a_shorter_form_is_refused_at_the_byte_that_shows_it),
        cmocka_unit_test(a_length_with_bit_63_set_is_refused_at_its_first_byte),
        cmocka_unit_test(encoded_headers_are_those_of_the_rfc_and_stay_in_their_bytes),
        cmocka_unit_test(masking_equals_its_definition_for_every_short_length_alignment_and_phase),
        cmocka_unit_test(masking_equals_its_definition_for_large_payloads),
        cmocka_unit_test(the_phase_counts_modulo_four_up_to_its_last_value),
        cmocka_unit_test(unmasking_twice_is_identity),
        cmocka_unit_test(masking_in_two_parts_split_anywhere_equals_masking_whole),
        cmocka_unit_test(close_codes_a_peer_may_send_are_those_of_the_registry),
    };
    return cmocka_run_group_tests_name("ws_frame", tests, set_up, tear_down);
}
