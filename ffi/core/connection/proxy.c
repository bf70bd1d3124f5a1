/* The PROXY protocol, see proxy.h. Invariant: the answer depends on the bytes alone, not on how they are cut. */
#include "connection/proxy.h"

#include <arpa/inet.h>
#include <assert.h>
#include <string.h>

enum { V2_COMMAND_LOCAL = 0, V2_COMMAND_PROXY = 1 };
enum { V2_FAMILY_UNSPEC = 0, V2_FAMILY_INET = 1, V2_FAMILY_INET6 = 2, V2_FAMILY_UNIX = 3 };

static const uint8_t v2_signature[12] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};
static const uint8_t v1_signature[6] = {'P', 'R', 'O', 'X', 'Y', ' '};

static_assert(sizeof v2_signature == RW_PROXY_DECISION_BYTES, "the longer signature decides");

/* ------------------------------------------------------------------ version 1: a line of text */

struct text {
    const char *at, *end;
};

/* The next word, as a string. ret: 0 when there is none, or it is longer than an address can be */
static int take_word(struct text *text, char *out, size_t capacity, int is_last) {
    const char *space = memchr(text->at, ' ', (size_t)(text->end - text->at));
    if ((space == NULL) != is_last) return 0;
    const char *end = is_last ? text->end : space;
    size_t bytes = (size_t)(end - text->at);
    /* A NUL inside would end the string early, and the rest of it would pass unseen. */
    if (bytes == 0 || bytes >= capacity || memchr(text->at, 0, bytes)) return 0;
    memcpy(out, text->at, bytes);
    out[bytes] = 0;
    text->at = is_last ? end : space + 1;
    return 1;
}

/* §2.1: decimal, 0 to 65535, without a leading zero. */
static int read_port(const char *word, uint16_t *port) {
    uint32_t value = 0;
    if (word[0] == '0' && word[1]) return 0;
    for (; *word; word++) {
        if (*word < '0' || *word > '9') return 0;
        value = value * 10 + (uint32_t)(*word - '0');
        if (value > 65535) return 0;
    }
    *port = (uint16_t)value;
    return 1;
}

/* The line without its CRLF. ret: 1 well-formed */
static int parse_line(const char *line, size_t bytes, struct rw_proxy_source *source) {
    struct text text = {line + sizeof v1_signature, line + bytes};
    size_t left = (size_t)(text.end - text.at);
    /* §2.1: whatever follows UNKNOWN is to be ignored. */
    if (left >= 7 && memcmp(text.at, "UNKNOWN", 7) == 0 && (left == 7 || text.at[7] == ' ')) return 1;
    if (left < 5 || memcmp(text.at, "TCP", 3) != 0 || text.at[4] != ' ') return 0;
    int family = text.at[3] == '4' ? AF_INET : text.at[3] == '6' ? AF_INET6 : AF_UNSPEC;
    if (family == AF_UNSPEC) return 0;
    text.at += 5;
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], from_port[6], to_port[6];
    uint8_t ignored_address[16];
    uint16_t ignored_port;
    if (!take_word(&text, from, sizeof from, 0) || !take_word(&text, to, sizeof to, 0)) return 0;
    if (!take_word(&text, from_port, sizeof from_port, 0) || !take_word(&text, to_port, sizeof to_port, 1)) return 0;
    if (inet_pton(family, from, source->address) != 1 || inet_pton(family, to, ignored_address) != 1) return 0;
    if (!read_port(from_port, &source->port) || !read_port(to_port, &ignored_port)) return 0;
    source->address_bytes = family == AF_INET ? 4 : 16;
    return 1;
}

static int32_t parse_v1(const uint8_t *bytes, size_t len, struct rw_proxy_source *source) {
    size_t within = len < RW_PROXY_V1_BYTES_MAX ? len : RW_PROXY_V1_BYTES_MAX;
    const uint8_t *cr = memchr(bytes, '\r', within);
    if (!cr) return within == RW_PROXY_V1_BYTES_MAX || memchr(bytes, '\n', within) ? RW_PROXY_MALFORMED : 0;
    size_t line_bytes = (size_t)(cr - bytes);
    if (memchr(bytes, '\n', line_bytes) || line_bytes + 2 > RW_PROXY_V1_BYTES_MAX) return RW_PROXY_MALFORMED;
    if (line_bytes + 1 == len) return 0;
    struct rw_proxy_source found = {0};
    if (cr[1] != '\n' || !parse_line((const char *)bytes, line_bytes, &found)) return RW_PROXY_MALFORMED;
    *source = found;
    return (int32_t)(line_bytes + 2);
}

/* ------------------------------------------------------------------ version 2: binary */

static uint16_t load_big_endian_16(const uint8_t *from) { return (uint16_t)(from[0] << 8 | from[1]); }

/* Source address, destination address, source port, destination port, for addresses of `size` bytes. ret: 0 when the
 * block is too short for them */
static int read_addresses(const uint8_t *block, size_t block_bytes, uint8_t size, struct rw_proxy_source *source) {
    if (block_bytes < 2u * size + 4u) return 0;
    memcpy(source->address, block, size);
    source->address_bytes = size;
    source->port = load_big_endian_16(block + 2u * size);
    return 1;
}

static int32_t parse_v2(const uint8_t *bytes, size_t len, struct rw_proxy_source *source) {
    if (len > 12 && (bytes[12] >> 4 != 2 || (bytes[12] & 15) > V2_COMMAND_PROXY)) return RW_PROXY_MALFORMED;
    /* §2.2: LOCAL is the proxy speaking for itself (a health check): what it says of family and addresses is to be
     * ignored. */
    int local = len > 12 && (bytes[12] & 15) == V2_COMMAND_LOCAL;
    if (len > 13 && !local && (bytes[13] >> 4 > V2_FAMILY_UNIX || (bytes[13] & 15) > 2)) return RW_PROXY_MALFORMED;
    if (len < RW_PROXY_V2_FIXED_BYTES) return 0;
    size_t block_bytes = load_big_endian_16(bytes + 14);
    if (block_bytes > RW_PROXY_V2_BLOCK_BYTES_MAX) return RW_PROXY_MALFORMED;
    if (len - RW_PROXY_V2_FIXED_BYTES < block_bytes) return 0;
    const uint8_t *block = bytes + RW_PROXY_V2_FIXED_BYTES;
    struct rw_proxy_source found = {.local = local & 1};
    if (!local) {
        uint8_t family = bytes[13] >> 4;
        if (family == V2_FAMILY_INET && !read_addresses(block, block_bytes, 4, &found)) return RW_PROXY_MALFORMED;
        if (family == V2_FAMILY_INET6 && !read_addresses(block, block_bytes, 16, &found)) return RW_PROXY_MALFORMED;
        if (family == V2_FAMILY_UNIX && block_bytes < 2 * 108) return RW_PROXY_MALFORMED;
    }
    *source = found;
    return (int32_t)(RW_PROXY_V2_FIXED_BYTES + block_bytes);
}

/* ------------------------------------------------------------------ which */

int32_t rw_proxy_parse(const uint8_t *bytes, size_t len, struct rw_proxy_source *source) {
    size_t v1 = len < sizeof v1_signature ? len : sizeof v1_signature;
    size_t v2 = len < sizeof v2_signature ? len : sizeof v2_signature;
    if (memcmp(bytes, v1_signature, v1) == 0) return v1 < sizeof v1_signature ? 0 : parse_v1(bytes, len, source);
    if (memcmp(bytes, v2_signature, v2) == 0) return v2 < sizeof v2_signature ? 0 : parse_v2(bytes, len, source);
    return RW_PROXY_ABSENT;
}
