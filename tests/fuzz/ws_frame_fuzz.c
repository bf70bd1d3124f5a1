/* Any bytes as a stream of frames: header by header, each whole, cut short at every byte, encoded again, and its
 * payload unmasked whole, in two parts, and by the definition. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_input.h"
#include "ws/ws_frame.h"

/* A prefix says "more" until one byte decides, and more bytes never change the decision. */
static void check_prefixes(const uint8_t *bytes, size_t len, int rsv1_allowed, int32_t whole) {
    const size_t limit = len < 16 ? len : 16;
    int32_t decided = 0;

    for (size_t part = 0; part <= limit; part++) {
        struct rw_ws_frame frame;
        uint8_t *copy = malloc(part ? part : 1); /* its own block, so that the sanitizer sees one byte too many */
        CHECK(copy != NULL);
        memcpy(copy, bytes, part);
        const int32_t result = rw_ws_decode_header(copy, part, rsv1_allowed, &frame);
        free(copy);
        CHECK(decided == 0 || result == decided);
        CHECK(result <= 0 || (size_t)result <= part);
        decided = result;
    }
    CHECK(decided == whole);
}

static void check_encodes_again(const uint8_t *bytes, int32_t header_bytes, const struct rw_ws_frame *frame) {
    uint8_t header[10];
    const uint32_t encoded = rw_ws_encode_header(header, frame->opcode, frame->fin, frame->rsv1, frame->payload_bytes);

    CHECK(frame->masked == 1 && (int32_t)encoded + 4 == header_bytes);
    header[1] |= 0x80;
    CHECK(memcmp(header, bytes, encoded) == 0);
    CHECK(memcmp(frame->mask, bytes + encoded, 4) == 0);
}

static void check_mask(const uint8_t *payload, size_t len, const uint8_t mask[4], size_t split, uint32_t phase) {
    uint8_t *whole = malloc(len ? len : 1);
    uint8_t *parts = malloc(len ? len : 1);

    CHECK(whole != NULL && parts != NULL);
    memcpy(parts, payload, len);
    rw_ws_mask(whole, payload, len, mask, phase);
    rw_ws_mask(parts, parts, split, mask, phase);
    rw_ws_mask(parts + split, parts + split, len - split, mask, phase + (uint32_t)split);
    CHECK(memcmp(whole, parts, len) == 0);
    for (size_t i = 0; i < len; i++) CHECK(whole[i] == (payload[i] ^ mask[(phase + i) & 3]));
    free(whole);
    free(parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    const int rsv1_allowed = data[0] & 1;
    const uint32_t phase = data[0] >> 1;
    const uint8_t split_at = data[1];
    const uint8_t *bytes = data + 2;
    size_t len = size - 2;

    for (;;) {
        struct rw_ws_frame frame;
        const int32_t result = rw_ws_decode_header(bytes, len, rsv1_allowed, &frame);
        check_prefixes(bytes, len, rsv1_allowed, result);
        if (result <= 0) return 0;
        CHECK(!frame.rsv1 || rsv1_allowed);
        CHECK(frame.opcode < 8 || (frame.fin && frame.payload_bytes <= 125));
        check_encodes_again(bytes, result, &frame);
        bytes += result;
        len -= (size_t)result;

        const size_t payload = frame.payload_bytes < len ? (size_t)frame.payload_bytes : len;
        check_mask(bytes, payload, frame.mask, split_at % (payload + 1), phase);
        bytes += payload;
        len -= payload;
    }
}
