/* Negotiation of permessage-deflate, see deflate_negotiate.h.
 * Role: a parser of extension lists and the choice of terms. Up: deflate (and the fuzzer). Down: nothing.
 * Invariants: nothing outside offer[0..len) is read; what is agreed to is never more than the client offered (RFC 7692
 * §5.1). */
#include "ws/deflate_negotiate.h"

#include <assert.h>
#include <string.h>

#include "base/http_chars.h"

/* A value longer than this is no value of ours; it is still read to its end. */
#define VALUE_BYTES_MAX 8u

struct scanner {
    const uint8_t *at, *end;
};

struct text {
    const uint8_t *bytes;
    size_t count;
};

enum parameter {
    SERVER_NO_CONTEXT_TAKEOVER = 0,
    CLIENT_NO_CONTEXT_TAKEOVER = 1,
    SERVER_MAX_WINDOW_BITS = 2,
    CLIENT_MAX_WINDOW_BITS = 3,
    PARAMETER_COUNT = 4,
};

/* One offer of permessage-deflate, as far as it has been read. */
struct offer {
    uint8_t ours; /* permessage-deflate, and nothing in it that must be declined */
    uint8_t given[PARAMETER_COUNT];
    uint8_t bits[PARAMETER_COUNT]; /* of the windows; 0: no value */
};

/* ------------------------------------------------------------------ reading */

static void skip_space(struct scanner *scanner) {
    while (scanner->at < scanner->end && (*scanner->at == ' ' || *scanner->at == '\t')) scanner->at++;
}

static int accept(struct scanner *scanner, uint8_t wanted) {
    skip_space(scanner);
    if (scanner->at == scanner->end || *scanner->at != wanted) return 0;
    scanner->at++;
    return 1;
}

static int read_token(struct scanner *scanner, struct text *token) {
    skip_space(scanner);
    token->bytes = scanner->at;
    while (scanner->at < scanner->end && rw_http_char_is(*scanner->at, RW_CHAR_TOKEN)) scanner->at++;
    token->count = (size_t)(scanner->at - token->bytes);
    return token->count > 0;
}

/* A value, unquoted into out[0..VALUE_BYTES_MAX]. ret: its length (cut at VALUE_BYTES_MAX), -1: malformed */
static int read_value(struct scanner *scanner, uint8_t out[VALUE_BYTES_MAX]) {
    struct text token;
    size_t count = 0;
    if (!accept(scanner, '"')) {
        if (!read_token(scanner, &token)) return -1;
        count = token.count < VALUE_BYTES_MAX ? token.count : VALUE_BYTES_MAX;
        memcpy(out, token.bytes, count);
        return (int)count;
    }
    for (;;) {
        if (scanner->at == scanner->end) return -1;
        uint8_t byte = *scanner->at++;
        if (byte == '"') break;
        if (byte == '\\') {
            if (scanner->at == scanner->end) return -1;
            byte = *scanner->at++;
        }
        /* RFC 6455 §9.1: what is quoted must still be a token once the quotes are gone. */
        if (!rw_http_char_is(byte, RW_CHAR_TOKEN)) return -1;
        if (count < VALUE_BYTES_MAX) out[count++] = byte;
    }
    return count ? (int)count : -1;
}

static int is(const struct text *text, const char *name) {
    return text->count == strlen(name) && memcmp(text->bytes, name, text->count) == 0;
}

/* ret: 8..15, or 0: not a window size. No leading zeros (RFC 7692 §7.1.2.1). */
static uint8_t window_bits(const uint8_t *value, int count) {
    if (count == 1 && (value[0] == '8' || value[0] == '9')) return (uint8_t)(value[0] - '0');
    if (count == 2 && value[0] == '1' && value[1] >= '0' && value[1] <= '5') return (uint8_t)(10 + value[1] - '0');
    return 0;
}

/* value_count: -1: no value. An unknown parameter, a duplicate, or a value that does not belong declines the offer (RFC
 * 7692 §7.1). */
static void note_parameter(struct offer *offer, const struct text *name, const uint8_t *value, int value_count) {
    static const char *const names[PARAMETER_COUNT] = {"server_no_context_takeover", "client_no_context_takeover",
                                                       "server_max_window_bits", "client_max_window_bits"};
    uint32_t which = 0;
    while (which < PARAMETER_COUNT && !is(name, names[which])) which++;
    if (which == PARAMETER_COUNT || offer->given[which]) {
        offer->ours = 0;
        return;
    }
    offer->given[which] = 1;
    if (which == SERVER_NO_CONTEXT_TAKEOVER || which == CLIENT_NO_CONTEXT_TAKEOVER) {
        if (value_count >= 0) offer->ours = 0;
    } else if (value_count >= 0) {
        offer->bits[which] = window_bits(value, value_count);
        if (!offer->bits[which]) offer->ours = 0;
    } else if (which == SERVER_MAX_WINDOW_BITS) {
        offer->ours = 0; /* only the client's window may be offered without a value (RFC 7692 §7.1.2.2) */
    }
}

/* One extension with its parameters. ret: 1 read, 0 malformed */
static int read_offer(struct scanner *scanner, struct offer *offer) {
    struct text name;
    if (!read_token(scanner, &name)) return 0;
    *offer = (struct offer){.ours = (uint8_t)is(&name, "permessage-deflate")};
    while (accept(scanner, ';')) {
        if (!read_token(scanner, &name)) return 0;
        uint8_t value[VALUE_BYTES_MAX];
        int value_count = -1;
        if (accept(scanner, '=') && (value_count = read_value(scanner, value)) < 0) return 0;
        note_parameter(offer, &name, value, value_count);
    }
    skip_space(scanner);
    return scanner->at == scanner->end || *scanner->at == ',';
}

/* ------------------------------------------------------------------ agreeing */

/* The window of the client's takeover, as rw_deflate_terms has it. */
static uint32_t receive_window(uint32_t deflate, const struct offer *offer) {
    if (offer->given[CLIENT_NO_CONTEXT_TAKEOVER]) return 0;
    uint32_t window = rw_deflate_wanted_receive_window(deflate);
    uint32_t offered = offer->bits[CLIENT_MAX_WINDOW_BITS];
    if (offered && offered < window) window = offered;
    if (window == 0 || (window < RW_DEFLATE_WINDOW_MAX && !offer->given[CLIENT_MAX_WINDOW_BITS])) {
        /* A client that has not offered to limit its window must not be asked to (RFC 7692 §7.1.2.2). It may be told to
         * take nothing over, asked or not (§7.1.1.2); but many fail the handshake then, or take over all the same. */
        window = rw_deflate_answers_only_offered(deflate) ? RW_DEFLATE_WINDOW_MAX : 0;
        if (offered && offered < window) window = offered;
    }
    return window;
}

/* ret: 1 this offer can be kept */
static int agree(uint32_t deflate, const struct offer *offer, int may_keep_window, struct rw_deflate_terms *terms) {
    if (!offer->ours) return 0;
    uint32_t receive = receive_window(deflate, offer);
    if (receive && !may_keep_window) return 0;

    uint32_t limit = offer->bits[SERVER_MAX_WINDOW_BITS] ? offer->bits[SERVER_MAX_WINDOW_BITS] : RW_DEFLATE_WINDOW_MAX;
    if (limit < RW_DEFLATE_WINDOW_MIN) return 0;
    uint32_t window = rw_deflate_wanted_window(deflate);
    int takeover = window != 0 && !offer->given[SERVER_NO_CONTEXT_TAKEOVER];
    if (window == 0 || window > limit) window = limit;
    *terms = (struct rw_deflate_terms){.agreed = 1,
                                       .compresses = (uint8_t)rw_deflate_wants_compressor(deflate),
                                       .send_takeover = (uint8_t)takeover,
                                       .send_window = (uint8_t)window,
                                       .receive_window = (uint8_t)receive};
    return 1;
}

static uint8_t *put(uint8_t *out, const char *text) {
    size_t count = strlen(text);
    memcpy(out, text, count);
    return out + count;
}

static uint8_t *put_bits(uint8_t *out, const char *name, uint32_t bits) {
    out = put(out, name);
    if (bits >= 10) *out++ = '1';
    *out++ = (uint8_t)('0' + bits % 10);
    return out;
}

/* The client's side first. What is as it would be anyway is left out, but a limit that the client has asked for is
 * confirmed (RFC 7692 §7.1.2.1). So may be what only spares the client memory: a message of ours decodes with a larger
 * window as well, and behind any other. */
static uint32_t write_answer(uint32_t deflate, const struct offer *offer, const struct rw_deflate_terms *terms,
                             uint8_t *answer) {
    int unasked = !rw_deflate_answers_only_offered(deflate);
    uint8_t *out = put(answer, "permessage-deflate");
    if (terms->receive_window == 0) {
        out = put(out, "; client_no_context_takeover");
    } else if (terms->receive_window < RW_DEFLATE_WINDOW_MAX) {
        out = put_bits(out, "; client_max_window_bits=", terms->receive_window);
    }
    if (!terms->send_takeover && (unasked || offer->given[SERVER_NO_CONTEXT_TAKEOVER]))
        out = put(out, "; server_no_context_takeover");
    if ((terms->send_window < RW_DEFLATE_WINDOW_MAX && unasked) || offer->given[SERVER_MAX_WINDOW_BITS])
        out = put_bits(out, "; server_max_window_bits=", terms->send_window);
    assert(out <= answer + RW_DEFLATE_ANSWER_BYTES_MAX);
    return (uint32_t)(out - answer);
}

uint32_t rw_deflate_negotiate(uint32_t deflate, const uint8_t *offer_bytes, size_t len, int may_keep_window,
                              struct rw_deflate_terms *terms, uint8_t answer[RW_DEFLATE_ANSWER_BYTES_MAX]) {
    *terms = (struct rw_deflate_terms){0};
    if (deflate == 0) return 0;
    struct scanner scanner = {.at = offer_bytes, .end = offer_bytes + len};
    struct rw_deflate_terms first = {0};
    struct offer kept = {0};
    do {
        skip_space(&scanner);
        if (scanner.at == scanner.end || *scanner.at == ',') continue; /* an empty element (RFC 9110 §5.6.1.2) */
        struct offer offer;
        if (!read_offer(&scanner, &offer)) return 0;
        /* Offers come in order of preference (RFC 7692 §5); the rest must be well-formed all the same. */
        if (!first.agreed && agree(deflate, &offer, may_keep_window, &first)) kept = offer;
    } while (accept(&scanner, ','));
    if (!first.agreed) return 0;
    *terms = first;
    return write_answer(deflate, &kept, terms, answer);
}

int rw_deflate_offers_valid(const uint8_t *offer_bytes, size_t len) {
    struct scanner scanner = {.at = offer_bytes, .end = offer_bytes + len};
    do {
        skip_space(&scanner);
        if (scanner.at == scanner.end || *scanner.at == ',') continue;
        struct offer offer;
        if (!read_offer(&scanner, &offer)) return 0;
    } while (accept(&scanner, ','));
    return 1;
}
