/* Character classes of HTTP/1.1 and the search for control characters.
 *
 * Role: what all that reads heads agrees on, so that a byte is legal in a head and in a trailer alike. Down:
 * nothing. */
#ifndef RW_HTTP_CHARS_H
#define RW_HTTP_CHARS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum rw_http_char {
    RW_CHAR_TOKEN = 1u << 0,  /* tchar (RFC 9110 §5.6.2) */
    RW_CHAR_TARGET = 1u << 1, /* visible ASCII but "#": a fragment is never sent (RFC 9112 §3.2) */
    /* unreserved, and sub-delims but for "," (RFC 3986 §2.2, §2.3): a registered name, beside %XX */
    RW_CHAR_NAME = 1u << 2,
    RW_CHAR_TEXT = 1u << 3, /* HTAB, SP, VCHAR, obs-text: a field value (RFC 9110 §5.5) */
};

extern const uint8_t rw_http_char_classes[256];

static inline int rw_http_char_is(uint8_t byte, enum rw_http_char class) {
    return (rw_http_char_classes[byte] & (unsigned)class) != 0;
}

static inline int rw_http_is_space(uint8_t byte) { return byte == ' ' || byte == '\t'; }

#if defined(__SSE2__)
/* One bit for each of the 16 bytes at `bytes` that is no RW_CHAR_TEXT. */
static inline unsigned rw_http_control_mask(const uint8_t *bytes) {
    const __m128i block = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    /* min(b, 0x1f) == b is the unsigned b <= 0x1f that SSE2 has no comparison for. */
    const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
    const __m128i tab = _mm_cmpeq_epi8(block, _mm_set1_epi8('\t'));
    const __m128i del = _mm_cmpeq_epi8(block, _mm_set1_epi8(0x7f));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, low), del));
}
#endif

/* Index of the first byte of bytes[from..to) that is no RW_CHAR_TEXT (CR and LF among them), or `to`.
 * Reads within bytes[0..to) only; what lies before `from` is read again rather than looping over a short tail. */
static inline size_t rw_http_find_control(const uint8_t *bytes, size_t from, size_t to) {
#if defined(__SSE2__)
    for (; to - from >= 16; from += 16) {
        const unsigned mask = rw_http_control_mask(bytes + from);
        if (mask != 0) return from + (unsigned)__builtin_ctz(mask);
    }
    if (from < to && to >= 16) {
        const unsigned mask = rw_http_control_mask(bytes + to - 16) >> (16 - (to - from));
        return mask != 0 ? from + (unsigned)__builtin_ctz(mask) : to;
    }
#endif
    while (from < to && rw_http_char_is(bytes[from], RW_CHAR_TEXT)) from++;
    return from;
}

#endif
