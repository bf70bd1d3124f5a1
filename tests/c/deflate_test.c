/* permessage-deflate by itself: what is agreed to for each offer, and messages in and out against zlib as the peer (RFC
 * 7692). */
#include "deflate_peer.h"
#include "ws/deflate.h"

#define PLACE_BYTES RW_EVENT_LARGE_BYTES
#define LIMIT (16u << 20)

/* A block of its own, so that the sanitizer sees one byte too many. */
static uint8_t *exact_copy(const void *bytes, size_t count) {
    uint8_t *copy = malloc(count ? count : 1);
    assert_non_null(copy);
    if (count) memcpy(copy, bytes, count);
    return copy;
}

/* ---------------------------------------------------------------- negotiation */

static uint32_t negotiate(uint32_t deflate, const char *offer, struct rw_deflate_terms *terms,
                          char answer[RW_DEFLATE_ANSWER_BYTES_MAX + 1]) {
    size_t len = strlen(offer);
    uint8_t *copy = exact_copy(offer, len);
    uint32_t bytes = rw_deflate_negotiate(deflate, copy, len, 1, terms, (uint8_t *)answer);
    free(copy);
    assert_in_range(bytes, 0, RW_DEFLATE_ANSWER_BYTES_MAX);
    answer[bytes] = 0;
    return bytes;
}

static void expect_answer(uint32_t deflate, const char *offer, const char *expected) {
    struct rw_deflate_terms terms;
    char answer[RW_DEFLATE_ANSWER_BYTES_MAX + 1];
    uint32_t bytes = negotiate(deflate, offer, &terms, answer);
    assert_string_equal(answer, expected);
    assert_int_equal(terms.agreed, bytes > 0);
}

#define NOTHING ""

static void browsers_and_plain_offers_get_the_answer_of_each_mode(void **state) {
    (void)state;
    static const struct {
        uint32_t deflate;
        const char *browser, *plain;
    } cases[] = {
        {SHARED_COMPRESSOR, "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
        {SHARED, "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
        {SHARED_DECOMPRESSOR, "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
        {COMPRESSOR(9u, 1u), "permessage-deflate; client_no_context_takeover; server_max_window_bits=9",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=9"},
        {COMPRESSOR(9u, 2u), "permessage-deflate; client_no_context_takeover; server_max_window_bits=9",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=9"},
        {COMPRESSOR(10u, 3u), "permessage-deflate; client_no_context_takeover; server_max_window_bits=10",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=10"},
        {COMPRESSOR(11u, 4u), "permessage-deflate; client_no_context_takeover; server_max_window_bits=11",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=11"},
        {COMPRESSOR(12u, 5u), "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=12"},
        {COMPRESSOR(13u, 6u), "permessage-deflate; client_no_context_takeover; server_max_window_bits=13",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=13"},
        {COMPRESSOR(14u, 7u), "permessage-deflate; client_no_context_takeover; server_max_window_bits=14",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=14"},
        {COMPRESSOR(15u, 8u), "permessage-deflate; client_no_context_takeover",
         "permessage-deflate; client_no_context_takeover"},
        {SHARED_COMPRESSOR | DECOMPRESSOR(15u), "permessage-deflate; server_no_context_takeover",
         "permessage-deflate; server_no_context_takeover"},
        {SHARED_COMPRESSOR | DECOMPRESSOR(9u),
         "permessage-deflate; client_max_window_bits=9; server_no_context_takeover",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
        {SHARED_COMPRESSOR | DECOMPRESSOR(12u),
         "permessage-deflate; client_max_window_bits=12; server_no_context_takeover",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
        {DEDICATED, "permessage-deflate", "permessage-deflate"},
        {COMPRESSOR(11u, 4u) | DECOMPRESSOR(14u),
         "permessage-deflate; client_max_window_bits=14; server_max_window_bits=11",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=11"},
        {0, NOTHING, NOTHING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_answer(cases[i].deflate, BROWSER, cases[i].browser);
        expect_answer(cases[i].deflate, "permessage-deflate", cases[i].plain);
    }
}

static void an_offer_is_kept_to_the_letter(void **state) {
    (void)state;
    static const struct {
        uint32_t deflate;
        const char *offer, *answer;
    } cases[] = {
        /* RFC 7692 §7.1: what a client demands is in the answer. */
        {DEDICATED, "permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"},
        {DEDICATED, "permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"},
        {DEDICATED, "permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"},
        {DEDICATED, "permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15"},
        {COMPRESSOR(11u, 4u), "permessage-deflate; server_max_window_bits=14",
         "permessage-deflate; client_no_context_takeover; server_max_window_bits=11"},
        {DEDICATED, "permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10"},
        {DEDICATED, "permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"},
        {DEDICATED, "permessage-deflate; client_max_window_bits=15; server_max_window_bits=9",
         "permessage-deflate; server_max_window_bits=9"},
        {SHARED, "permessage-deflate; server_max_window_bits=12; client_max_window_bits",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover; server_max_window_bits=12"},
        {DEDICATED,
         "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_no_context_takeover; "
         "client_max_window_bits=9",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover; server_max_window_bits=12"},
        /* Several offers: the first that can be kept. */
        {DEDICATED,
         "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; "
         "client_max_window_bits",
         "permessage-deflate; server_max_window_bits=10"},
        {DEDICATED, "permessage-deflate; server_max_window_bits=8, permessage-deflate", "permessage-deflate"},
        {DEDICATED, "permessage-deflate; x=1, foo; bar=\"baz\", permessage-deflate; server_no_context_takeover",
         "permessage-deflate; server_no_context_takeover"},
        {DEDICATED, "x-webkit-deflate-frame, permessage-deflate", "permessage-deflate"},
        /* Forms of writing (RFC 6455 §9.1, RFC 9110 §5.6). */
        {DEDICATED, "permessage-deflate;server_max_window_bits=\"10\"",
         "permessage-deflate; server_max_window_bits=10"},
        {DEDICATED, "permessage-deflate;server_max_window_bits=\"1\\0\"",
         "permessage-deflate; server_max_window_bits=10"},
        {DEDICATED, " \tpermessage-deflate \t; server_max_window_bits\t= 10 ",
         "permessage-deflate; server_max_window_bits=10"},
        {DEDICATED, ", ,permessage-deflate,, ", "permessage-deflate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_answer(cases[i].deflate, cases[i].offer, cases[i].answer);
}

/* Of real clients: many refuse, or do not keep to, what they have not offered (RFC 7692 §7.1). */
static void an_answer_may_be_held_to_what_was_offered(void **state) {
    (void)state;
    static const struct {
        uint32_t deflate;
        const char *offer, *answer;
        uint8_t receive_window, send_window;
    } cases[] = {
        {SHARED_OUT, "permessage-deflate", "permessage-deflate", 15, 15},
        {SHARED_OUT, BROWSER, "permessage-deflate", 15, 15},
        {SHARED_OUT, "permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10",
         10, 15},
        {SHARED_OUT, "permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover",
         0, 15},
        {SHARED_OUT, "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
         "permessage-deflate; client_no_context_takeover; server_no_context_takeover", 0, 15},
        {SHARED_OUT, "permessage-deflate; server_max_window_bits=12", "permessage-deflate; server_max_window_bits=12",
         15, 12},
        {SHARED | ONLY_OFFERED, "permessage-deflate", "permessage-deflate", 15, 15},
        {SHARED | ONLY_OFFERED, "permessage-deflate; client_max_window_bits=9",
         "permessage-deflate; client_max_window_bits=9", 9, 15},
        {COMPRESSOR(11u, 4u) | DECOMPRESSOR(11u) | ONLY_OFFERED, "permessage-deflate", "permessage-deflate", 15, 11},
        {COMPRESSOR(11u, 4u) | DECOMPRESSOR(11u) | ONLY_OFFERED, BROWSER,
         "permessage-deflate; client_max_window_bits=11", 11, 11},
        {COMPRESSOR(11u, 4u) | DECOMPRESSOR(11u) | ONLY_OFFERED,
         "permessage-deflate; server_max_window_bits=14; client_max_window_bits=9",
         "permessage-deflate; client_max_window_bits=9; server_max_window_bits=11", 9, 11},
        {DEDICATED | ONLY_OFFERED, "permessage-deflate; server_no_context_takeover",
         "permessage-deflate; server_no_context_takeover", 15, 15},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rw_deflate_terms terms;
        char answer[RW_DEFLATE_ANSWER_BYTES_MAX + 1];
        expect_answer(cases[i].deflate, cases[i].offer, cases[i].answer);
        negotiate(cases[i].deflate, cases[i].offer, &terms, answer);
        assert_int_equal(terms.receive_window, cases[i].receive_window);
        assert_int_equal(terms.send_window, cases[i].send_window);
    }
}

static void without_a_window_for_the_client_only_what_needs_none_is_agreed_to(void **state) {
    (void)state;
    static const char offers[] =
        "permessage-deflate; client_max_window_bits, permessage-deflate; client_no_context_takeover";
    struct rw_deflate_terms terms;
    uint8_t answer[RW_DEFLATE_ANSWER_BYTES_MAX];
    assert_int_equal(rw_deflate_negotiate(SHARED_OUT, (const uint8_t *)BROWSER, strlen(BROWSER), 0, &terms, answer), 0);
    assert_false(terms.agreed);
    assert_true(rw_deflate_negotiate(SHARED_OUT, (const uint8_t *)offers, strlen(offers), 0, &terms, answer) > 0);
    assert_int_equal(terms.receive_window, 0);
    assert_true(rw_deflate_negotiate(SHARED, (const uint8_t *)BROWSER, strlen(BROWSER), 0, &terms, answer) > 0);
}

static void an_offer_that_cannot_be_kept_is_declined(void **state) {
    (void)state;
    static const char *const offers[] = {
        "",
        " ",
        ",",
        "deflate",
        "permessage-deflate2",
        "Permessage-Deflate",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=8", /* zlib cannot */
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=1; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=true",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=1000000000000010",
        "permessage-deflate; server_max_window_bits=-9",
        "permessage-deflate; server_max_window_bits=1a",
        "permessage-deflate; client_max_window_bits=0",
        "permessage-deflate; client_max_window_bits=99",
        "permessage-deflate; SERVER_NO_CONTEXT_TAKEOVER",
    };
    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++) expect_answer(DEDICATED, offers[i], NOTHING);
}

static void a_header_that_is_not_well_formed_agrees_to_nothing(void **state) {
    (void)state;
    static const char *const offers[] = {
        "permessage-deflate;",
        "permessage-deflate; ",
        "permessage-deflate; =1",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; client_max_window_bits=\"",
        "permessage-deflate; client_max_window_bits=\"\"",
        "permessage-deflate; client_max_window_bits=\"10",
        "permessage-deflate; client_max_window_bits=\"1 0\"",
        "permessage-deflate; client_max_window_bits=\"10\\",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate, foo bar",
        "permessage-deflate, ;",
        "permessage-deflate, foo; a=\"b",
        "permessage-deflate, \xC3\xA9",
        "permessage-deflate; client_max_window_bits=10 11",
    };
    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++) expect_answer(DEDICATED, offers[i], NOTHING);
}

static void terms_say_what_the_answer_says(void **state) {
    (void)state;
    struct rw_deflate_terms terms;
    char answer[RW_DEFLATE_ANSWER_BYTES_MAX + 1];
    negotiate(SHARED, "permessage-deflate; server_max_window_bits=12", &terms, answer);
    assert_true(terms.agreed && terms.compresses && !terms.send_takeover);
    assert_int_equal(terms.send_window, 12);
    assert_int_equal(terms.receive_window, 0);
    negotiate(COMPRESSOR(13u, 6u) | DECOMPRESSOR(15u),
              "permessage-deflate; client_max_window_bits=11; server_max_window_bits=14", &terms, answer);
    assert_true(terms.agreed && terms.compresses && terms.send_takeover);
    assert_int_equal(terms.send_window, 13);
    assert_int_equal(terms.receive_window, 11);
    negotiate(SHARED_DECOMPRESSOR, BROWSER, &terms, answer);
    assert_true(terms.agreed && !terms.compresses);
    assert_int_equal(terms.send_window, 15);
}

/* ---------------------------------------------------------------- a core and a connection without the rest of them */

struct bench {
    struct rw_core *core;
    struct rw_slot *slot;
    uint8_t *place;
};

static struct bench open_bench(uint32_t deflate, const char *offer) {
    struct bench bench = {.core = calloc(1, sizeof *bench.core), .place = malloc(PLACE_BYTES)};
    assert_non_null(bench.core);
    assert_non_null(bench.place);
    bench.core->stats = bench.core->private_stats = aligned_alloc(RW_CACHE_LINE_BYTES, sizeof *bench.core->stats);
    assert_non_null(bench.core->stats);
    memset(bench.core->stats, 0, sizeof *bench.core->stats);
    assert_int_equal(rw_ws_create(bench.core), RW_OK);
    bench.core->buffers = rw_buffers_create();
    assert_non_null(bench.core->buffers);
    bench.core->behaviors[0].deflate = deflate;
    bench.slot = aligned_alloc(RW_CACHE_LINE_BYTES, sizeof *bench.slot);
    assert_non_null(bench.slot);
    memset(bench.slot, 0, sizeof *bench.slot);
    bench.slot->state.protocol = RW_WS_PROTOCOL;
    struct rw_deflate_terms terms;
    uint8_t header[RW_DEFLATE_HEADER_BYTES_MAX];
    uint8_t *end = rw_deflate_answer(bench.core, 0, (const uint8_t *)offer, strlen(offer), &terms, header);
    assert_true(end > header && end <= header + sizeof header);
    rw_deflate_keep(bench.slot, &terms);
    assert_null(rw_ws_of(bench.slot)->deflate);
    return bench;
}

static void close_bench(struct bench *bench) {
    rw_deflate_release(bench->core, bench->slot);
    rw_ws_destroy(bench->core);
    rw_buffers_destroy(bench->core->buffers, 0);
    free(bench->core->private_stats);
    free(bench->core);
    free(bench->slot);
    free(bench->place);
}

static enum rw_inflate_result inflate_limited(struct bench *bench, const void *data, size_t bytes, uint64_t limit,
                                              struct rw_inflated *out) {
    uint8_t *copy = exact_copy(data, bytes);
    enum rw_inflate_result result =
        rw_deflate_inflate(bench->core, bench->slot, copy, bytes, bench->place, PLACE_BYTES, limit, out);
    free(copy);
    return result;
}

static void expect_inflated(struct bench *bench, const void *data, size_t bytes, const void *expected,
                            size_t expected_bytes) {
    struct rw_inflated out;
    assert_int_equal(inflate_limited(bench, data, bytes, LIMIT, &out), RW_INFLATE_OK);
    assert_int_equal(out.bytes, expected_bytes);
    assert_int_equal(out.buffer != RW_BUFFER_NONE, expected_bytes >= PLACE_BYTES);
    const uint8_t *text = out.buffer ? rw_buffers_data(bench->core->buffers, out.buffer) : bench->place;
    if (expected_bytes) assert_memory_equal(text, expected, expected_bytes);
    if (out.buffer) rw_buffers_release(bench->core->buffers, out.buffer);
}

static void expect_refused(struct bench *bench, const void *data, size_t bytes, enum rw_inflate_result expected) {
    struct rw_inflated out;
    assert_int_equal(inflate_limited(bench, data, bytes, LIMIT, &out), expected);
}

/* ---------------------------------------------------------------- receiving */

static void the_examples_of_the_rfc_inflate_to_hello(void **state) {
    (void)state;
    struct bench bench = open_bench(DEDICATED, "permessage-deflate");
    static const uint8_t one_block[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};                      /* §7.2.3.1 */
    static const uint8_t taken_over[] = {0xf2, 0x00, 0x11, 0x00, 0x00};                                 /* §7.2.3.2 */
    static const uint8_t stored[] = {0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00}; /* §7.2.3.3 */
    static const uint8_t final[] = {0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00};                    /* §7.2.3.4 */
    /* §7.2.3.5 */
    static const uint8_t two_blocks[] = {0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00};
    static const uint8_t empty[] = {0x00}; /* §7.2.3.6 */
    expect_inflated(&bench, one_block, sizeof one_block, "Hello", 5);
    expect_inflated(&bench, taken_over, sizeof taken_over, "Hello", 5);
    expect_inflated(&bench, stored, sizeof stored, "Hello", 5);
    expect_inflated(&bench, two_blocks, sizeof two_blocks, "Hello", 5);
    expect_inflated(&bench, empty, sizeof empty, "", 0);
    expect_inflated(&bench, final, sizeof final, "Hello", 5);
    expect_inflated(&bench, one_block, sizeof one_block, "Hello", 5);
    /* The final block without the empty one behind it, as peers with other libraries send it. */
    expect_inflated(&bench, final, sizeof final - 1, "Hello", 5);
    expect_inflated(&bench, one_block, sizeof one_block, "Hello", 5);
    expect_inflated(&bench, "", 0, "", 0);
    expect_inflated(&bench, taken_over, sizeof taken_over, "Hello", 5);
    close_bench(&bench);
}

static void a_shared_inflater_remembers_nothing(void **state) {
    (void)state;
    struct bench bench = open_bench(SHARED, "permessage-deflate");
    static const uint8_t one_block[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};
    static const uint8_t taken_over[] = {0xf2, 0x00, 0x11, 0x00, 0x00};
    expect_inflated(&bench, one_block, sizeof one_block, "Hello", 5);
    expect_refused(&bench, taken_over, sizeof taken_over, RW_INFLATE_CORRUPT);
    expect_inflated(&bench, one_block, sizeof one_block, "Hello", 5);
    assert_null(rw_ws_of(bench.slot)->deflate);
    close_bench(&bench);
}

static void data_that_is_not_a_deflate_stream_is_refused(void **state) {
    (void)state;
    static const struct {
        uint8_t bytes[8];
        size_t count;
    } cases[] = {
        {{0x07}, 1}, /* a reserved block type */
        {{0x06, 0x00}, 2},
        {{0x00, 0x05, 0x00, 0xfa}, 4},             /* a stored block whose length is cut off */
        {{0x00, 0x05, 0x00, 0x00, 0x00, 0x48}, 6}, /* and one whose length does not agree with itself */
        {{0xf2, 0x48, 0xcd}, 3},                   /* cut off within a block */
        {{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07}, 6}, /* no empty block at the end */
        {{0x02, 0x07, 0x00}, 3},                   /* a distance before the beginning */
        {{0xff, 0xff, 0xff, 0xff}, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench bench = open_bench(i & 1 ? SHARED : DEDICATED, "permessage-deflate");
        expect_refused(&bench, cases[i].bytes, cases[i].count, RW_INFLATE_CORRUPT);
        close_bench(&bench);
    }
    /* With the flush's tail still on it: what is appended is no block then. */
    static const uint8_t unstripped[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff};
    struct bench bench = open_bench(SHARED, "permessage-deflate");
    expect_refused(&bench, unstripped, sizeof unstripped, RW_INFLATE_CORRUPT);
    close_bench(&bench);
}

static void messages_of_a_peer_come_out_as_they_went_in(void **state) {
    (void)state;
    static const size_t lengths[] = {1, 2, 5, 100, 1000, 4096, 32768, 65535, 65536, 65537, 200000, 1000000};
    uint8_t *text = malloc(1000000);
    assert_non_null(text);
    for (uint32_t window = 0; window <= 15; window = window ? window + 1 : 9) {
        struct bench bench = open_bench(SHARED_COMPRESSOR | DECOMPRESSOR(window ? window : 1u), BROWSER);
        struct zlib_peer peer;
        zlib_peer_begin(&peer, window ? (int)window : 15, 15);
        peer.send_takeover = window != 0;
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            fill_text(text, lengths[i], 7);
            size_t bytes = zlib_peer_deflate(&peer, text, lengths[i]);
            expect_inflated(&bench, peer.out, bytes, text, lengths[i]);
        }
        assert_int_equal(rw_ws_of(bench.slot)->deflate != NULL, window != 0);
        zlib_peer_end(&peer);
        close_bench(&bench);
    }
    free(text);
}

static void inflating_ends_at_the_limit(void **state) {
    (void)state;
    static const uint64_t limits[] = {0, 1, 1000, 65535, 65536, 65537, 131072, 1000000};
    size_t bytes = 8u << 20;
    uint8_t *zeros = calloc(1, bytes);
    assert_non_null(zeros);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct bench bench = open_bench(i & 1 ? SHARED : DEDICATED, BROWSER);
        struct zlib_peer peer;
        struct rw_inflated out;
        zlib_peer_begin(&peer, 15, 15);
        size_t bomb = zlib_peer_deflate(&peer, zeros, bytes);
        assert_true(bomb * 900 < bytes);
        assert_int_equal(inflate_limited(&bench, peer.out, bomb, limits[i], &out), RW_INFLATE_TOO_BIG);
        for (uint32_t class = 0; class < RW_BUFFER_CLASSES; class ++)
            assert_int_equal(rw_buffers_stats(bench.core->buffers, class).used, 0);
        /* Each growth doubles, up to the limit: not one large allocation more. */
        assert_in_range(rw_buffers_stats(bench.core->buffers, RW_BUFFER_LARGE).carved, 0, 5);
        close_bench(&bench);

        bench = open_bench(i & 1 ? SHARED : DEDICATED, BROWSER);
        deflateReset(&peer.deflater);
        if (limits[i]) {
            size_t fits = zlib_peer_deflate(&peer, zeros, (size_t)limits[i]);
            assert_int_equal(inflate_limited(&bench, peer.out, fits, limits[i], &out), RW_INFLATE_OK);
            assert_int_equal(out.bytes, limits[i]);
            if (out.buffer) rw_buffers_release(bench.core->buffers, out.buffer);
        }
        deflateReset(&peer.deflater);
        size_t over = zlib_peer_deflate(&peer, zeros, (size_t)limits[i] + 1);
        deflateReset(&peer.deflater);
        assert_int_equal(inflate_limited(&bench, peer.out, over, limits[i], &out), RW_INFLATE_TOO_BIG);
        zlib_peer_end(&peer);
        close_bench(&bench);
    }
    free(zeros);
}

/* Ended by a final block, nothing is left that would ask for more room. */
static void a_final_block_keeps_to_the_limit_too(void **state) {
    (void)state;
    static const uint8_t text[101] = {1};
    uint8_t wire[64];
    for (size_t bytes = 100; bytes <= 101; bytes++) {
        struct bench bench = open_bench(SHARED, BROWSER);
        struct rw_inflated out;
        z_stream z = {.next_in = text, .avail_in = (uInt)bytes, .next_out = wire, .avail_out = sizeof wire};
        assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        assert_int_equal(inflate_limited(&bench, wire, sizeof wire - z.avail_out, 100, &out),
                         bytes == 100 ? RW_INFLATE_OK : RW_INFLATE_TOO_BIG);
        deflateEnd(&z);
        close_bench(&bench);
    }
}

/* ---------------------------------------------------------------- sending */

static void expect_own(struct bench *bench, struct zlib_peer *peer, const uint8_t *text, size_t bytes) {
    rw_buffer out;
    int64_t written = rw_deflate_own(bench->core, bench->slot, RW_DEFLATE_WHOLE, text, bytes, &out);
    assert_true(written > 0);
    zlib_peer_expect(peer, rw_buffers_data(bench->core->buffers, out), (size_t)written, text, bytes);
    rw_buffers_release(bench->core->buffers, out);
}

static size_t expect_alone(struct bench *bench, struct zlib_peer *peer, uint32_t client_window, const uint8_t *text,
                           size_t bytes) {
    rw_buffer out;
    int64_t written = rw_deflate_alone(bench->core, rw_deflate_window(client_window, bytes), text, bytes, &out);
    assert_true(written > 0);
    zlib_peer_expect(peer, rw_buffers_data(bench->core->buffers, out), (size_t)written, text, bytes);
    rw_buffers_release(bench->core->buffers, out);
    return (size_t)written;
}

static void messages_on_their_own_decode_in_every_window(void **state) {
    (void)state;
    static const size_t lengths[] = {1, 5, 100, 255, 256, 1000, 4096, 32768, 65536, 300000};
    uint8_t *text = malloc(300000);
    assert_non_null(text);
    struct bench bench = open_bench(SHARED, BROWSER);
    for (uint32_t window = RW_DEFLATE_WINDOW_MIN; window <= RW_DEFLATE_WINDOW_MAX; window++) {
        struct zlib_peer peer;
        zlib_peer_begin(&peer, 15, (int)window);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            peer.receive_takeover = (int)(i & 1); /* a client may keep its window all the same */
            fill_text(text, lengths[i], (uint32_t)i);
            expect_alone(&bench, &peer, window, text, lengths[i]);
        }
        zlib_peer_end(&peer);
    }
    assert_null(rw_ws_of(bench.slot)->deflate);
    close_bench(&bench);
    free(text);
}

static void a_smaller_window_costs_nothing_in_size(void **state) {
    (void)state;
    static const size_t lengths[] = {100, 500, 1024, 2000, 4000, 8000, 16000};
    uint8_t text[16000], out[32000];
    struct bench bench = open_bench(SHARED, BROWSER);
    struct zlib_peer peer;
    zlib_peer_begin(&peer, 15, 15);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        fill_text(text, lengths[i], 3);
        size_t bytes = expect_alone(&bench, &peer, 15, text, lengths[i]);
        z_stream largest = {0};
        assert_int_equal(deflateInit2(&largest, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
        largest.next_in = text;
        largest.avail_in = (uInt)lengths[i];
        largest.next_out = out;
        largest.avail_out = sizeof out;
        assert_int_equal(deflate(&largest, Z_SYNC_FLUSH), Z_OK);
        size_t reference = sizeof out - largest.avail_out - 4;
        deflateEnd(&largest);
        assert_in_range(bytes, 1, reference + reference / 200);
    }
    zlib_peer_end(&peer);
    close_bench(&bench);
}

static void bytes_that_do_not_compress_have_room_in_every_mode(void **state) {
    (void)state;
    static const size_t lengths[] = {1, 7, 64, 500, 5000, 70000, 300000};
    uint8_t *noise = malloc(300000);
    assert_non_null(noise);
    uint32_t seed = 1;
    for (size_t i = 0; i < 300000; i++) noise[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    for (uint32_t window = RW_DEFLATE_WINDOW_MIN; window <= RW_DEFLATE_WINDOW_MAX; window++) {
        for (uint32_t memory = 1; memory <= 9; memory += 4) {
            struct bench bench = open_bench(COMPRESSOR(window, memory), BROWSER);
            struct zlib_peer peer;
            zlib_peer_begin(&peer, 15, (int)window);
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) expect_own(&bench, &peer, noise, lengths[i]);
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
                expect_alone(&bench, &peer, window, noise, lengths[i]);
            zlib_peer_end(&peer);
            close_bench(&bench);
        }
    }
    free(noise);
}

static void takeover_makes_the_second_message_short(void **state) {
    (void)state;
    uint8_t text[1000];
    struct bench bench = open_bench(DEDICATED, BROWSER);
    struct zlib_peer peer;
    zlib_peer_begin(&peer, 15, 15);
    fill_text(text, sizeof text, 9);
    expect_own(&bench, &peer, text, sizeof text);
    rw_buffer out;
    int64_t again = rw_deflate_own(bench.core, bench.slot, RW_DEFLATE_WHOLE, text, sizeof text, &out);
    assert_in_range(again, 1, 40);
    zlib_peer_expect(&peer, rw_buffers_data(bench.core->buffers, out), (size_t)again, text, sizeof text);
    rw_buffers_release(bench.core->buffers, out);
    zlib_peer_end(&peer);
    close_bench(&bench);
}

static void own_messages_and_those_on_their_own_mix_for_one_inflater(void **state) {
    (void)state;
    uint8_t text[3000];
    for (uint32_t window = RW_DEFLATE_WINDOW_MIN; window <= RW_DEFLATE_WINDOW_MAX; window++) {
        struct bench bench = open_bench(COMPRESSOR(window, 8u), BROWSER);
        struct zlib_peer peer;
        zlib_peer_begin(&peer, 15, (int)window);
        uint32_t seed = window;
        for (uint32_t i = 0; i < 200; i++) {
            seed = seed * 1103515245u + 12345u;
            size_t bytes = 1 + (seed >> 8) % sizeof text;
            fill_text(text, bytes, i % 5);
            if (seed >> 24 & 1) {
                expect_own(&bench, &peer, text, bytes);
            } else {
                expect_alone(&bench, &peer, window, text, bytes);
                rw_ws_of(bench.slot)->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
            }
        }
        zlib_peer_end(&peer);
        close_bench(&bench);
    }
}

static void fragments_are_one_stream_wherever_they_are_cut(void **state) {
    (void)state;
    uint8_t text[400], wire[4096];
    fill_text(text, sizeof text, 5);
    struct bench bench = open_bench(DEDICATED, BROWSER);
    struct zlib_peer peer;
    zlib_peer_begin(&peer, 15, 15);
    for (size_t first = 0; first <= sizeof text; first += 40) {
        for (size_t second = first; second <= sizeof text; second += 80) {
            const size_t cuts[] = {0, first, second, sizeof text};
            static const enum rw_deflate_part parts[] = {RW_DEFLATE_FIRST, RW_DEFLATE_MIDDLE, RW_DEFLATE_LAST};
            size_t used = 0;
            for (size_t i = 0; i < 3; i++) {
                rw_buffer out;
                int64_t bytes =
                    rw_deflate_own(bench.core, bench.slot, parts[i], text + cuts[i], cuts[i + 1] - cuts[i], &out);
                assert_true(bytes >= 0 && used + (size_t)bytes <= sizeof wire);
                memcpy(wire + used, rw_buffers_data(bench.core->buffers, out), (size_t)bytes);
                used += (size_t)bytes;
                rw_buffers_release(bench.core->buffers, out);
            }
            zlib_peer_expect(&peer, wire, used, text, sizeof text);
        }
    }
    rw_buffer out;
    for (size_t i = 0; i < 2; i++) {
        int64_t bytes = rw_deflate_own(bench.core, bench.slot, i ? RW_DEFLATE_LAST : RW_DEFLATE_FIRST, NULL, 0, &out);
        assert_int_equal(bytes, i);
        if (i) zlib_peer_expect(&peer, rw_buffers_data(bench.core->buffers, out), 1, "", 0);
        rw_buffers_release(bench.core->buffers, out);
    }
    expect_own(&bench, &peer, text, sizeof text);
    zlib_peer_end(&peer);
    close_bench(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(browsers_and_plain_offers_get_the_answer_of_each_mode),
        cmocka_unit_test(an_offer_is_kept_to_the_letter),
        cmocka_unit_test(an_answer_may_be_held_to_what_was_offered),
        cmocka_unit_test(without_a_window_for_the_client_only_what_needs_none_is_agreed_to),
        cmocka_unit_test(an_offer_that_cannot_be_kept_is_declined),
        cmocka_unit_test(a_header_that_is_not_well_formed_agrees_to_nothing),
        cmocka_unit_test(terms_say_what_the_answer_says),
        cmocka_unit_test(the_examples_of_the_rfc_inflate_to_hello),
        cmocka_unit_test(a_shared_inflater_remembers_nothing),
        cmocka_unit_test(data_that_is_not_a_deflate_stream_is_refused),
        cmocka_unit_test(messages_of_a_peer_come_out_as_they_went_in),
        cmocka_unit_test(inflating_ends_at_the_limit),
        cmocka_unit_test(a_final_block_keeps_to_the_limit_too),
        cmocka_unit_test(messages_on_their_own_decode_in_every_window),
        cmocka_unit_test(a_smaller_window_costs_nothing_in_size),
        cmocka_unit_test(bytes_that_do_not_compress_have_room_in_every_mode),
        cmocka_unit_test(takeover_makes_the_second_message_short),
        cmocka_unit_test(own_messages_and_those_on_their_own_mix_for_one_inflater),
        cmocka_unit_test(fragments_are_one_stream_wherever_they_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
