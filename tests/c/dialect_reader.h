/* Readers of what dialects write, straight from the definitions: a JSON string (RFC 8259 §7), an event stream (WHATWG
 * HTML §9.2.6), and what a decoder makes of bytes that should be UTF-8 (WHATWG Encoding §8.1.1). Slow, and owing nothing to
 * the code they judge. */
#ifndef RW_TEST_DIALECT_READER_H
#define RW_TEST_DIALECT_READER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "utf8_reference.h"

struct dialect_text {
    uint8_t *bytes; /* the caller's, large enough */
    size_t len;
};

static inline void dialect_add(struct dialect_text *text, const void *bytes, size_t len) {
    if (len) memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
}

/* bytes[0..len) with U+FFFD for each maximal part of a character. `text` has room for three times as much. */
static inline void dialect_decode(struct dialect_text *text, const uint8_t *bytes, size_t len) {
    while (len > 0) {
        const struct utf8_reference found = utf8_reference_check(bytes, len);
        /* good_bytes goes up to the first octet that cannot stand where it is: the last character before it may be cut
         * off */
        size_t whole = found.complete ? len : 0;
        for (size_t back = 0; !found.complete && back <= 3 && back <= found.good_bytes; back++) {
            const struct utf8_reference part = utf8_reference_check(bytes, found.good_bytes - back);
            if (!part.complete) continue;
            whole = found.good_bytes - back;
            break;
        }
        dialect_add(text, bytes, whole);
        if (found.complete) return;
        dialect_add(text, "\xEF\xBF\xBD", 3);
        size_t bad = found.good_bytes - whole;
        if (bad == 0) bad = 1; /* an octet that begins nothing */
        bytes += whole + bad;
        len -= whole + bad;
    }
}

/* A JSON string at bytes[0..len), its quotes included. ret: bytes it takes, 0: it is none */
static inline size_t dialect_read_string(const uint8_t *bytes, size_t len, struct dialect_text *text) {
    static const char escapes[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    if (len < 2 || bytes[0] != '"') return 0;
    for (size_t at = 1; at < len; at++) {
        if (bytes[at] == '"') return at + 1;
        if (bytes[at] < 0x20) return 0;
        if (bytes[at] != '\\') {
            dialect_add(text, bytes + at, 1);
            continue;
        }
        if (++at >= len) return 0;
        const char *escape = bytes[at] ? strchr(escapes, bytes[at]) : NULL;
        if (escape) {
            dialect_add(text, meanings + (escape - escapes), 1);
        } else if (bytes[at] == 'u' && len - at > 4 && memcmp(bytes + at + 1, "00", 2) == 0) {
            /* none but control characters are escaped by number */
            uint8_t value = 0;
            for (size_t i = 3; i <= 4; i++) {
                const uint8_t digit = bytes[at + i];
                const char *found = digit ? strchr("0123456789abcdef", digit) : NULL;
                if (!found) return 0;
                value = (uint8_t)(value << 4 | (uint8_t)(found - "0123456789abcdef"));
            }
            dialect_add(text, &value, 1);
            at += 4;
        } else {
            return 0;
        }
    }
    return 0;
}

/* One event as a client dispatches it. */
struct dialect_event {
    struct dialect_text data, name, id;
    int has_id;
};

static inline void dialect_field(struct dialect_event *event, const uint8_t *line, size_t len) {
    const uint8_t *colon = memchr(line, ':', len);
    const size_t name_bytes = colon ? (size_t)(colon - line) : len;
    const uint8_t *value = colon ? colon + 1 : line + len;
    size_t value_bytes = colon ? len - name_bytes - 1 : 0;
    if (value_bytes && value[0] == ' ') value++, value_bytes--;
    if (name_bytes == 4 && memcmp(line, "data", 4) == 0) {
        dialect_add(&event->data, value, value_bytes);
        dialect_add(&event->data, "\n", 1);
    } else if (name_bytes == 5 && memcmp(line, "event", 5) == 0) {
        event->name.len = 0;
        dialect_add(&event->name, value, value_bytes);
    } else if (name_bytes == 2 && memcmp(line, "id", 2) == 0 && !memchr(value, 0, value_bytes)) {
        event->id.len = 0;
        event->has_id = 1;
        dialect_add(&event->id, value, value_bytes);
    }
}

/* The first event of bytes[0..len), lines ended by CRLF, LF or CR. ret: bytes it takes with its empty line, 0: it is not
 * dispatched */
static inline size_t dialect_read_event(const uint8_t *bytes, size_t len, struct dialect_event *event) {
    size_t at = 0;
    while (at < len) {
        size_t end = at;
        while (end < len && bytes[end] != '\r' && bytes[end] != '\n') end++;
        if (end == len) return 0;
        const size_t next = end + (bytes[end] == '\r' && end + 1 < len && bytes[end + 1] == '\n' ? 2 : 1);
        if (end == at) {
            if (event->data.len == 0) return 0;
            event->data.len--; /* its last LF */
            return next;
        }
        dialect_field(event, bytes + at, end - at);
        at = next;
    }
    return 0;
}

#endif
