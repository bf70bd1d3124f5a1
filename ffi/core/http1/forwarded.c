/* X-Forwarded-For and Forwarded, see forwarded.h. */
#include "http1/forwarded.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "base/http_chars.h"

/* "[", an IPv6 address, "]:" and a port are 54 characters at most; a longer node is none. */
#define NODE_BYTES_MAX 64u

struct text {
    const uint8_t *at, *end;
};

static int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static void skip_space(struct text *text) {
    while (text->at < text->end && rw_http_is_space(*text->at)) text->at++;
}

static struct text trimmed(const uint8_t *bytes, size_t len) {
    struct text text = {bytes, bytes + len};
    skip_space(&text);
    while (text.end > text.at && rw_http_is_space(text.end[-1])) text.end--;
    return text;
}

/* ------------------------------------------------------------------ a node
 * RFC 7239 §6, and what proxies write into X-Forwarded-For */

static int is_obfuscated_port(struct text port) {
    if (port.end - port.at < 2 || *port.at != '_') return 0;
    for (const uint8_t *c = port.at + 1; c < port.end; c++) {
        int is_letter = (*c | 32) >= 'a' && (*c | 32) <= 'z';
        if (!is_letter && !is_digit(*c) && *c != '.' && *c != '_' && *c != '-') return 0;
    }
    return 1;
}

static int is_port(struct text port) {
    if (is_obfuscated_port(port)) return 1;
    if (port.end - port.at < 1 || port.end - port.at > 5) return 0;
    for (const uint8_t *c = port.at; c < port.end; c++) {
        if (!is_digit(*c)) return 0;
    }
    return 1;
}

static void read_address(int family, struct text text, struct rw_forwarded_hop *hop) {
    static const uint8_t v4_prefix[12] = {[10] = 0xFF, [11] = 0xFF};
    char string[INET6_ADDRSTRLEN];
    uint8_t address[16];
    size_t bytes = (size_t)(text.end - text.at);
    /* A NUL inside would end the string early, and the rest of it would pass unseen. */
    if (bytes == 0 || bytes >= sizeof string || memchr(text.at, 0, bytes)) return;
    memcpy(string, text.at, bytes);
    string[bytes] = 0;
    if (inet_pton(family, string, address) != 1) return;
    int mapped = family == AF_INET6 && memcmp(address, v4_prefix, sizeof v4_prefix) == 0;
    hop->address_bytes = family == AF_INET || mapped ? 4 : 16;
    memcpy(hop->address, address + (mapped ? sizeof v4_prefix : 0), hop->address_bytes);
}

/* An address, an IPv6 address in brackets or without, and behind a bracket or an IPv4 address a port. */
static void read_node(struct text node, struct rw_forwarded_hop *hop) {
    size_t bytes = (size_t)(node.end - node.at);
    if (bytes == 0 || bytes > NODE_BYTES_MAX) return;
    const uint8_t *colon = memchr(node.at, ':', bytes);
    if (*node.at == '[') {
        const uint8_t *bracket = memchr(node.at, ']', bytes);
        if (!bracket) return;
        int bare = bracket + 1 == node.end;
        if (bare || (bracket[1] == ':' && is_port((struct text){bracket + 2, node.end})))
            read_address(AF_INET6, (struct text){node.at + 1, bracket}, hop);
    } else if (!colon) {
        read_address(AF_INET, node, hop);
    } else if (memchr(colon + 1, ':', (size_t)(node.end - colon) - 1)) {
        read_address(AF_INET6, node, hop);
    } else if (is_port((struct text){colon + 1, node.end})) {
        read_address(AF_INET, (struct text){node.at, colon}, hop);
    }
}

/* ------------------------------------------------------------------ an element of Forwarded: RFC 7239 §4 */

/* A quoted string, whose opening quote was taken, without its escapes (RFC 9110 §5.6.4). ret: 1, or 0: it does not end;
 * one that is too long for a node comes out too long */
static int take_quoted(struct text *text, uint8_t *out, size_t *bytes) {
    *bytes = 0;
    while (text->at < text->end) {
        uint8_t c = *text->at++;
        if (c == '"') return 1;
        if (c == '\\') {
            if (text->at == text->end) return 0;
            c = *text->at++;
        }
        if (*bytes < NODE_BYTES_MAX) out[*bytes] = c;
        if (*bytes <= NODE_BYTES_MAX) ++*bytes;
    }
    return 0;
}

/* Up to the next semicolon. By the grammar a token; but what a proxy means by an address that it did not quote is as
 * plain. */
static struct text take_bare(struct text *text) {
    const uint8_t *start = text->at;
    while (text->at < text->end && *text->at != ';') text->at++;
    return trimmed(start, (size_t)(text->at - start));
}

static int take_name(struct text *text, struct text *name) {
    name->at = text->at;
    while (text->at < text->end && rw_http_char_is(*text->at, RW_CHAR_TOKEN)) text->at++;
    name->end = text->at;
    return name->end > name->at && text->at < text->end && *text->at++ == '=';
}

/* `for`, once, among pairs of a name and a value. */
static void read_element(struct text element, struct rw_forwarded_hop *hop) {
    struct rw_forwarded_hop found = {0};
    uint32_t seen = 0;
    while (skip_space(&element), element.at < element.end) {
        if (*element.at == ';') {
            element.at++;
            continue;
        }
        uint8_t quoted[NODE_BYTES_MAX + 1];
        struct text name, value;
        if (!take_name(&element, &name)) return;
        if (element.at < element.end && *element.at == '"') {
            size_t bytes;
            element.at++;
            if (!take_quoted(&element, quoted, &bytes)) return;
            value = (struct text){quoted, quoted + bytes};
        } else {
            value = take_bare(&element);
            if (value.at == value.end || memchr(value.at, '"', (size_t)(value.end - value.at))) return;
        }
        skip_space(&element);
        if (element.at < element.end && *element.at != ';') return;
        if (name.end - name.at != 3 || strncasecmp((const char *)name.at, "for", 3) != 0) continue;
        if (seen++) return; /* §4: each parameter must not occur more than once */
        read_node(value, &found);
    }
    *hop = found;
}

/* Is the quote at `at` a part of a quoted string, by the backslashes before it? They are looked at once for each quote:
 * linear. */
static int is_escaped(const uint8_t *bytes, size_t at) {
    size_t count = 0;
    while (count < at && bytes[at - 1 - count] == '\\') count++;
    return count & 1;
}

/* ret: where the last element begins; commas in quoted strings are none. */
static size_t find_last_element(const uint8_t *bytes, size_t len) {
    int quoted = 0;
    for (size_t i = len; i > 0; i--) {
        if (bytes[i - 1] == '"') {
            quoted = !quoted || is_escaped(bytes, i - 1);
        } else if (bytes[i - 1] == ',' && !quoted) {
            return i;
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ either */

int32_t rw_forwarded_last(uint32_t header, const uint8_t *bytes, size_t len, struct rw_forwarded_hop *hop) {
    *hop = (struct rw_forwarded_hop){0};
    size_t start;
    if (header == RW_PROXY_HEADER_FORWARDED) {
        start = find_last_element(bytes, len);
        read_element(trimmed(bytes + start, len - start), hop);
    } else {
        const uint8_t *comma = len ? memrchr(bytes, ',', len) : NULL;
        start = comma ? (size_t)(comma - bytes) + 1 : 0;
        read_node(trimmed(bytes + start, len - start), hop);
    }
    return (int32_t)start - 1;
}
