/* Chunked bodies: bytes to pieces of data.
 *
 * Role: rw_http_decode_chunked(). Up: http, which keeps the decoder in the slot and bounds the body. Down:
 * http_chars.h.
 *
 *   size [extensions] CRLF data CRLF  ...  0 [extensions] CRLF  [trailer lines]  CRLF
 *
 * A byte at a time but for data and trailer values, so that the state between two bytes is all there is to keep: the
 * result does not depend on how the input was cut. Strict where decoders are known to differ: CRLF is CR and LF, white
 * space only where the grammar has BWS, extensions by the grammar, no framing field in a trailer. Extensions and
 * trailers are bounded, then thrown away. */
#include <stdbool.h>

#include "base/http_chars.h"
#include "http1/http_parser.h"

enum {
    CHUNK_MORE = 0,
    CHUNK_END = 1,
    CHUNK_BAD = -400,
    CHUNK_TOO_MUCH = -413,
};

/* What the next byte is. */
enum chunk_state {
    SIZE_FIRST = 0, /* the first digit: all zero is the start */
    SIZE,
    EXTENSION_SPACE, /* BWS before ";": after a size or a value */
    EXTENSION_NAME_FIRST,
    EXTENSION_NAME,
    EXTENSION_NAME_SPACE, /* BWS before "=" or ";" */
    EXTENSION_VALUE_FIRST,
    EXTENSION_TOKEN,
    EXTENSION_QUOTED,
    EXTENSION_ESCAPED,
    EXTENSION_QUOTED_END,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
    END,
    FAILED,
};

#define SIZE_DIGITS_MAX 16u

/* Fields that would change the framing or the routing of the message behind us (RFC 9110 §6.5.1). Bit n of
 * name_candidates: forbidden[n]. */
static const struct {
    const char *name;
    uint8_t bytes;
} forbidden[] = {{"transfer-encoding", 17}, {"content-length", 14}, {"host", 4}};
#define FORBIDDEN_COUNT (sizeof(forbidden) / sizeof(forbidden[0]))
#define FORBIDDEN_BYTES_MAX 17u

static int hex_value(uint8_t byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    const int folded = byte | 0x20;
    return folded >= 'a' && folded <= 'f' ? folded - 'a' + 10 : -1;
}

static int32_t step_size(struct rw_chunk_decoder *d, uint8_t byte) {
    const int digit = hex_value(byte);
    if (digit >= 0) {
        /* RFC 9112 §7.1: anticipate large numbers. 2^63-1 keeps every sum of sizes and offsets within 64 bits. */
        if (d->digits == SIZE_DIGITS_MAX || d->remaining > (uint64_t)INT64_MAX >> 4) return CHUNK_BAD;
        d->remaining = d->remaining << 4 | (uint64_t)digit;
        d->digits++;
        d->state = SIZE;
        return CHUNK_MORE;
    }
    if (d->state == SIZE_FIRST) return CHUNK_BAD;
    if (byte == '\r') d->state = SIZE_LF;
    else if (byte == ';') d->state = EXTENSION_NAME_FIRST;
    else if (rw_http_is_space(byte)) d->state = EXTENSION_SPACE;
    else return CHUNK_BAD;
    return CHUNK_MORE;
}

/* chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ) (RFC 9112 §7.1.1)
 * ret: the next state, or FAILED */
static enum chunk_state next_in_extension(enum chunk_state state, uint8_t byte) {
    const bool space = rw_http_is_space(byte);
    const bool token = rw_http_char_is(byte, RW_CHAR_TOKEN);
    switch (state) {
        case EXTENSION_SPACE: return space ? state : byte == ';' ? EXTENSION_NAME_FIRST : FAILED;
        case EXTENSION_NAME_FIRST: return space ? state : token ? EXTENSION_NAME : FAILED;
        case EXTENSION_NAME:
            if (token) return state;
            if (byte == '\r') return SIZE_LF;
            return space         ? EXTENSION_NAME_SPACE
                   : byte == '=' ? EXTENSION_VALUE_FIRST
                   : byte == ';' ? EXTENSION_NAME_FIRST
                                 : FAILED;
        case EXTENSION_NAME_SPACE:
            return space ? state : byte == '=' ? EXTENSION_VALUE_FIRST : byte == ';' ? EXTENSION_NAME_FIRST : FAILED;
        case EXTENSION_VALUE_FIRST:
            return space ? state : byte == '"' ? EXTENSION_QUOTED : token ? EXTENSION_TOKEN : FAILED;
        case EXTENSION_TOKEN:
            if (token) return state;
            __attribute__((fallthrough));
        case EXTENSION_QUOTED_END:
            return byte == '\r' ? SIZE_LF : space ? EXTENSION_SPACE : byte == ';' ? EXTENSION_NAME_FIRST : FAILED;
        case EXTENSION_QUOTED:
            /* RFC 9110 §5.6.4: no CR or LF inside, escaped or not. */
            if (byte == '\\' || byte == '"') return byte == '"' ? EXTENSION_QUOTED_END : EXTENSION_ESCAPED;
            return rw_http_char_is(byte, RW_CHAR_TEXT) ? state : FAILED;
        case EXTENSION_ESCAPED: return rw_http_char_is(byte, RW_CHAR_TEXT) ? EXTENSION_QUOTED : FAILED;
        default: return FAILED;
    }
}

static bool is_extension(uint8_t state) { return state >= EXTENSION_SPACE && state <= EXTENSION_QUOTED_END; }

/* Narrow the set of forbidden names that this trailer name may still become. */
static void match_trailer_name(struct rw_chunk_decoder *d, uint8_t byte) {
    for (uint32_t i = 0; i < FORBIDDEN_COUNT; i++) {
        /* Setting bit 5 folds exactly: no tchar but its capital maps to a letter, and none but itself to "-". */
        if (d->name_bytes >= forbidden[i].bytes || (byte | 0x20) != (uint8_t)forbidden[i].name[d->name_bytes])
            d->name_candidates &= (uint8_t)~(1u << i);
    }
    if (d->name_bytes <= FORBIDDEN_BYTES_MAX) d->name_bytes++;
}

static bool trailer_name_forbidden(const struct rw_chunk_decoder *d) {
    for (uint32_t i = 0; i < FORBIDDEN_COUNT; i++) {
        if ((d->name_candidates & (1u << i)) != 0 && d->name_bytes == forbidden[i].bytes) return true;
    }
    return false;
}

static int32_t count_trailer(struct rw_chunk_decoder *d, size_t bytes) {
    if (bytes > RW_TRAILER_BYTES_MAX - d->trailer_bytes) return CHUNK_TOO_MUCH;
    d->trailer_bytes = (uint16_t)(d->trailer_bytes + bytes);
    return CHUNK_MORE;
}

/* The trailer section: field lines as in a head (RFC 9112 §7.1.2), each byte counted, up to the empty line. */
static int32_t step_trailer(struct rw_chunk_decoder *d, uint8_t byte) {
    if (count_trailer(d, 1) < 0) return CHUNK_TOO_MUCH;
    switch (d->state) {
        case TRAILER_FIRST:
            if (byte == '\r') {
                d->state = END_LF;
                return CHUNK_MORE;
            }
            d->name_bytes = 0;
            d->name_candidates = (1u << FORBIDDEN_COUNT) - 1;
            d->state = TRAILER_NAME;
            break;
        case TRAILER_NAME:
            if (byte != ':') break;
            d->state = TRAILER_VALUE;
            return trailer_name_forbidden(d) ? CHUNK_BAD : CHUNK_MORE;
        case TRAILER_VALUE:
            if (byte == '\r') d->state = TRAILER_LF;
            return byte == '\r' || rw_http_char_is(byte, RW_CHAR_TEXT) ? CHUNK_MORE : CHUNK_BAD;
        case TRAILER_LF: d->state = TRAILER_FIRST; return byte == '\n' ? CHUNK_MORE : CHUNK_BAD;
        default: /* END_LF */ d->state = END; return byte == '\n' ? CHUNK_MORE : CHUNK_BAD;
    }
    if (!rw_http_char_is(byte, RW_CHAR_TOKEN)) return CHUNK_BAD;
    match_trailer_name(d, byte);
    return CHUNK_MORE;
}

static int32_t step_extension(struct rw_chunk_decoder *d, uint8_t byte) {
    d->state = (uint8_t)next_in_extension((enum chunk_state)d->state, byte);
    return d->state == FAILED ? CHUNK_BAD : CHUNK_MORE;
}

/* One byte that is not data. */
static int32_t step(struct rw_chunk_decoder *d, uint8_t byte) {
    int32_t result = CHUNK_MORE;
    switch (d->state) {
        case SIZE_FIRST:
        case SIZE: result = step_size(d, byte); break;
        case SIZE_LF: d->state = d->remaining == 0 ? TRAILER_FIRST : DATA; return byte == '\n' ? CHUNK_MORE : CHUNK_BAD;
        case DATA_CR: d->state = DATA_LF; return byte == '\r' ? CHUNK_MORE : CHUNK_BAD;
        case DATA_LF:
            d->state = SIZE_FIRST;
            d->digits = 0;
            return byte == '\n' ? CHUNK_MORE : CHUNK_BAD;
        case TRAILER_FIRST:
        case TRAILER_NAME:
        case TRAILER_VALUE:
        case TRAILER_LF:
        case END_LF: return step_trailer(d, byte);
        case FAILED: return CHUNK_BAD;
        default: result = step_extension(d, byte); break;
    }
    /* Every extension byte counts, from the first ";" or BWS to the last before CR, over the whole message. */
    if (result == CHUNK_MORE && is_extension(d->state) && ++d->extension_bytes > RW_CHUNK_EXTENSION_BYTES_MAX)
        return CHUNK_TOO_MUCH;
    return result;
}

int32_t rw_http_decode_chunked(struct rw_chunk_decoder *decoder, const uint8_t *bytes, size_t len, const uint8_t **data,
                               size_t *data_bytes, size_t *consumed) {
    size_t at = 0;
    *data = NULL;
    *data_bytes = 0;
    *consumed = 0;
    while (at < len && decoder->state != END) {
        if (decoder->state == DATA) {
            const size_t left = len - at;
            *data = bytes + at;
            *data_bytes = decoder->remaining < left ? (size_t)decoder->remaining : left;
            decoder->remaining -= *data_bytes;
            if (decoder->remaining == 0) decoder->state = DATA_CR;
            *consumed = at + *data_bytes;
            return CHUNK_MORE;
        }
        int32_t result = CHUNK_MORE;
        const size_t run = decoder->state == TRAILER_VALUE ? rw_http_find_control(bytes, at, len) - at : 0;
        if (run > 0) {
            result = count_trailer(decoder, run);
            at += run;
        } else {
            result = step(decoder, bytes[at++]);
        }
        if (result < 0) {
            decoder->state = FAILED;
            return result;
        }
    }
    *consumed = at;
    return decoder->state == END ? CHUNK_END : CHUNK_MORE;
}
