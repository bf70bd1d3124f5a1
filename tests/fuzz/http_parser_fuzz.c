/* libFuzzer target for the HTTP parser. Two properties, for any bytes: the cuts they come in change nothing, and
 * nothing past their end is read (each piece lies in an allocation of exactly its size). What is accepted is checked
 * for sense, so that a lenient reading shows. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http1/http_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define REQUIRE(condition)                  \
    do {                                    \
        if (!(condition)) __builtin_trap(); \
    } while (0)

static uint8_t *copy_of(const uint8_t *bytes, size_t len) {
    uint8_t *copy = malloc(len); /* of no bytes, for 0: still a pointer that must not be read */
    if (len != 0) memcpy(copy, bytes, len);
    return copy;
}

static int32_t parse(const uint8_t *bytes, size_t len, const struct rw_http_limits *limits, uint32_t *scanned,
                     struct rw_http_head *head) {
    uint8_t *copy = copy_of(bytes, len);
    const int32_t result = rw_http_parse_head(copy, len, limits, scanned, head);
    free(copy);
    return result;
}

static void check_head(const uint8_t *bytes, int32_t consumed, const struct rw_http_head *head) {
    REQUIRE(consumed >= 4 && memcmp(bytes + consumed - 4, "\r\n\r\n", 4) == 0);
    REQUIRE((head->flags & RW_HTTP_CHUNKED) == 0 || (head->flags & (RW_HTTP_HAS_LENGTH | RW_HTTP_10)) == 0);
    REQUIRE(head->content_length <= INT64_MAX);
    REQUIRE(head->host.offset + head->host.bytes <= consumed && head->target.offset + head->target.bytes <= consumed);
    REQUIRE(memchr(bytes + head->host.offset, '@', head->host.bytes) == NULL);
    for (uint32_t i = 0; i < head->header_count; i++) {
        const struct rw_http_header *header = &head->headers[i];
        REQUIRE(header->name.bytes > 0 && header->name.offset + header->name.bytes < header->value.offset);
        REQUIRE(header->value.offset + header->value.bytes + 4 <= consumed);
        REQUIRE(memchr(bytes + header->value.offset, '\r', header->value.bytes) == NULL);
        REQUIRE(memchr(bytes + header->value.offset, '\n', header->value.bytes) == NULL);
    }
}

static void fuzz_head(const uint8_t *bytes, size_t len, size_t stride, bool tight) {
    static struct rw_http_head whole_head, cut_head;
    const struct rw_http_limits limits =
        tight ? (struct rw_http_limits){96, 24, 3}
              : (struct rw_http_limits){RW_HEAD_BYTES_DEFAULT, RW_TARGET_BYTES_DEFAULT, RW_HEADER_COUNT_DEFAULT};
    uint32_t scanned = 0;
    memset(&whole_head, 0, sizeof(whole_head));
    memset(&cut_head, 0, sizeof(cut_head));
    const int32_t whole = parse(bytes, len, &limits, &scanned, &whole_head);
    int32_t cut = 0;
    scanned = 0;
    for (size_t at = 0; cut == 0; at += stride) {
        const size_t part = at < len ? at : len;
        cut = parse(bytes, part, &limits, &scanned, &cut_head);
        if (part == len) break;
    }
    REQUIRE(whole == cut);
    if (whole <= 0) return;
    check_head(bytes, whole, &whole_head);
    REQUIRE(whole_head.method == cut_head.method && whole_head.flags == cut_head.flags &&
            whole_head.content_length == cut_head.content_length);
    REQUIRE(memcmp(&whole_head.method_name, &cut_head.method_name, 3 * sizeof(struct rw_span)) == 0);
    REQUIRE(memcmp(&whole_head.ws_key, &cut_head.ws_key, 4 * sizeof(struct rw_span)) == 0);
    REQUIRE(whole_head.header_count == cut_head.header_count);
    REQUIRE(memcmp(whole_head.headers, cut_head.headers, whole_head.header_count * sizeof(whole_head.headers[0])) == 0);
}

struct decoded {
    int32_t result;
    size_t consumed;
    size_t body_bytes;
    uint8_t *body;
};

static void decode(const uint8_t *bytes, size_t len, size_t stride, struct decoded *out) {
    struct rw_chunk_decoder decoder = {0};
    *out = (struct decoded){.body = malloc(len + 1)};
    for (size_t at = 0; at < len && out->result == 0; at += stride) {
        const size_t part = len - at < stride ? len - at : stride;
        uint8_t *copy = copy_of(bytes + at, part);
        for (size_t used = 0; used < part && out->result == 0;) {
            const uint8_t *data = NULL;
            size_t data_bytes = 0;
            size_t consumed = 0;
            out->result = rw_http_decode_chunked(&decoder, copy + used, part - used, &data, &data_bytes, &consumed);
            REQUIRE(out->result < 0 ? consumed == 0 && data_bytes == 0 : consumed > 0 && consumed <= part - used);
            REQUIRE(data_bytes <= consumed && out->body_bytes + data_bytes <= len);
            if (data_bytes > 0) memcpy(out->body + out->body_bytes, data, data_bytes);
            out->body_bytes += data_bytes;
            used += consumed;
            out->consumed += consumed;
        }
        free(copy);
    }
}

static void fuzz_chunked(const uint8_t *bytes, size_t len, size_t stride) {
    struct decoded whole, cut;
    decode(bytes, len, len + 1, &whole);
    decode(bytes, len, stride, &cut);
    REQUIRE(whole.result == cut.result && whole.body_bytes == cut.body_bytes);
    REQUIRE(whole.result < 0 || whole.consumed == cut.consumed);
    REQUIRE(memcmp(whole.body, cut.body, cut.body_bytes) == 0);
    free(whole.body);
    free(cut.body);
}

/* The first byte chooses: bit 0 head or body, bit 1 tight limits, the rest the size of the pieces. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0) return 0;
    const size_t stride = 1 + (size_t)(bytes[0] >> 2);
    if ((bytes[0] & 1) == 0) fuzz_head(bytes + 1, len - 1, stride, (bytes[0] & 2) != 0);
    else fuzz_chunked(bytes + 1, len - 1, stride);
    return 0;
}
