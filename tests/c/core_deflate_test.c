/* permessage-deflate through the whole core: the handshake, compressed messages both ways, fan-out, fragments, and what
 * breaks the rules (RFC 7692). */
#include "deflate_client.h"

#define TEXT_BYTES 300000u

static struct host *deflate_host(void **state, uint32_t deflate) {
    return ws_host(state, (struct rw_behavior){.deflate = deflate});
}

static uint8_t *new_text(size_t bytes, uint32_t seed) {
    uint8_t *text = malloc(bytes);
    assert_non_null(text);
    fill_text(text, bytes, seed);
    return text;
}

/* ---------------------------------------------------------------- handshake */

static void the_answer_has_the_extension_when_both_want_it(void **state) {
    struct host *host = deflate_host(state, SHARED);
    host_behavior(host, 8, PLAIN);
    struct client client;
    client_open(host, &client, 7, BROWSER);
    assert_true(peer_head_has(
        client.peer,
        "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover"));
    client_free(&client);
    client_open(host, &client, 7, "");
    assert_null(strstr(client.peer->head, "Extensions"));
    assert_int_equal(ws_of(host, &client)->deflate_flags, 0);
    client_free(&client);
    client_open(host, &client, 8, BROWSER);
    assert_null(strstr(client.peer->head, "Extensions"));
    client_free(&client);
    client_open(host, &client, 7, "permessage-deflate; what=1");
    assert_null(strstr(client.peer->head, "Extensions"));
    client_free(&client);
    host_close(host);
}

/* ---------------------------------------------------------------- windows of clients */

#define WINDOW_BYTES (7168u + 32768u)

static void send_twice(struct host *host, struct client *client) {
    uint8_t *text = new_text(4000, 9);
    size_t first = zlib_peer_deflate(&client->zlib, text, 4000);
    peer_send_frame(host, client->peer, RSV1_TEXT, client->zlib.out, first);
    expect_message(host, client, text, 4000, 0);
    size_t again = zlib_peer_deflate(&client->zlib, text, 4000);
    assert_in_range(again, 1, 200); /* it refers to the first */
    peer_send_frame(host, client->peer, RSV1_TEXT, client->zlib.out, again);
    expect_message(host, client, text, 4000, 0);
    free(text);
}

/* Most clients take over from message to message, whatever they are told that they have not offered. */
static void a_client_takes_over_from_its_messages_though_ours_are_on_their_own(void **state) {
    struct host *host = deflate_host(state, SHARED_OUT);
    struct client client;
    client_open(host, &client, 7, "permessage-deflate");
    assert_true(peer_head_has(client.peer, "Sec-WebSocket-Extensions: permessage-deflate"));
    assert_true(client.zlib.send_takeover);
    /* Nothing is held for it until it sends something compressed. */
    host_send(host, &client.open, RW_SEND_COMPRESS | RW_SEND_TEXT, "to the client", 13);
    client_expect(host, &client, RSV1_TEXT, "to the client", 13);
    peer_send_frame(host, client.peer, FIN_TEXT, "plain", 5);
    expect_message(host, &client, "plain", 5, 0);
    assert_null(ws_of(host, &client)->deflate);
    assert_int_equal(host->core->inflate_bytes, 0);
    send_twice(host, &client);
    assert_int_equal(host->core->inflate_bytes, WINDOW_BYTES);
    /* Its own window is not touched by what we send, nor ours by it. */
    host_send(host, &client.open, RW_SEND_COMPRESS | RW_SEND_TEXT, "to the client", 13);
    client_expect(host, &client, RSV1_TEXT, "to the client", 13);
    send_twice(host, &client);
    peer_close(host, client.peer);
    host_expect(host, RW_EVENT_CLOSE);
    host_expect_silence(host);
    assert_int_equal(host->core->inflate_bytes, 0);
    client_free(&client);
    host_close(host);
}

static void windows_of_clients_come_out_of_a_budget(void **state) {
    enum { CLIENTS = 9 };
    struct host *host = deflate_host(state, SHARED_OUT);
    host->core->limits.inflate_bytes = 8 * WINDOW_BYTES;
    struct client clients[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) client_open(host, &clients[i], 7, BROWSER);
    for (uint32_t i = 0; i < 8; i++) send_twice(host, &clients[i]);
    assert_int_equal(host->core->inflate_bytes, 8 * WINDOW_BYTES);
    /* It had been told that it may; the others go on. */
    client_send(host, &clients[8], RSV1_TEXT, (const uint8_t *)"late", 4);
    expect_closed(host, &clients[8], 1013, RW_CLOSE_INFLATE_WINDOWS);
    client_free(&clients[8]);
    assert_int_equal(host->core->stats->closes_inflate, 1);
    send_twice(host, &clients[0]);
    /* Who comes now is not told so, unless no window is needed. */
    client_open(host, &clients[8], 7, BROWSER);
    assert_null(strstr(clients[8].peer->head, "Extensions"));
    client_free(&clients[8]);
    assert_int_equal(host->core->stats->declined_inflate, 1);
    client_open(host, &clients[8], 7, "permessage-deflate; unknown");
    assert_int_equal(host->core->stats->declined_inflate, 1);
    client_free(&clients[8]);
    client_open(host, &clients[8], 7, "permessage-deflate; client_no_context_takeover");
    client_send(host, &clients[8], RSV1_TEXT, (const uint8_t *)"alone", 5);
    expect_message(host, &clients[8], "alone", 5, 0);
    client_free(&clients[8]);
    /* One that leaves makes room for another, once more than the last eighth is free. */
    for (uint32_t i = 0; i < 2; i++) {
        peer_close(host, clients[i].peer);
        host_expect(host, RW_EVENT_CLOSE);
        host_expect_silence(host);
        client_free(&clients[i]);
    }
    assert_int_equal(host->core->inflate_bytes, 6 * WINDOW_BYTES);
    client_open(host, &clients[0], 7, BROWSER);
    send_twice(host, &clients[0]);
    client_free(&clients[0]);
    for (uint32_t i = 2; i < 8; i++) client_free(&clients[i]);
    host_close(host);
}

/* ---------------------------------------------------------------- both ways */

static void echo_all_lengths(struct host *host, struct client *client) {
    static const size_t lengths[] = {1, 2, 100, 125, 126, 1000, 9000, 65535, 65536, 65537, 100000, TEXT_BYTES};
    uint8_t *text = new_text(TEXT_BYTES, 4);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int binary = (int)(i & 1);
        client_send(host, client, binary ? RSV1_BINARY : RSV1_TEXT, text, lengths[i]);
        expect_message(host, client, text, lengths[i], binary ? RW_WS_BINARY : 0);
        host_send(host, &client->open, RW_SEND_COMPRESS | (binary ? 0 : RW_SEND_TEXT), text, lengths[i]);
        client_expect(host, client, binary ? RSV1_BINARY : RSV1_TEXT, text, lengths[i]);
        /* A message that is not compressed leaves the windows as they are. */
        peer_send_frame(host, client->peer, FIN_TEXT, "plain", 5);
        expect_message(host, client, "plain", 5, 0);
        host_send(host, &client->open, RW_SEND_TEXT, "plain", 5);
        client_expect(host, client, FIN_TEXT, "plain", 5);
    }
    free(text);
}

static void messages_go_both_ways_in_every_mode(void **state) {
    static const uint32_t modes[] = {SHARED_COMPRESSOR,
                                     SHARED,
                                     COMPRESSOR(9u, 1u),
                                     COMPRESSOR(9u, 2u),
                                     COMPRESSOR(10u, 3u) | DECOMPRESSOR(9u),
                                     COMPRESSOR(11u, 4u) | DECOMPRESSOR(10u),
                                     COMPRESSOR(12u, 5u) | DECOMPRESSOR(11u),
                                     COMPRESSOR(13u, 6u) | DECOMPRESSOR(12u),
                                     COMPRESSOR(14u, 7u) | DECOMPRESSOR(13u),
                                     SHARED_COMPRESSOR | DECOMPRESSOR(14u),
                                     DEDICATED,
                                     SHARED_OUT,
                                     COMPRESSOR(11u, 4u) | DECOMPRESSOR(11u) | ONLY_OFFERED};
    static const char *const offers[] = {BROWSER,
                                         "permessage-deflate; server_no_context_takeover; client_max_window_bits=11",
                                         "permessage-deflate; server_max_window_bits=10"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        for (size_t j = 0; j < ((uintptr_t)*state != RW_BACKEND_SIM ? 1 : sizeof offers / sizeof *offers); j++) {
            struct host *host = deflate_host(state, modes[i]);
            struct client client;
            client_open(host, &client, 7, offers[j]);
            assert_non_null(strstr(client.peer->head, "Sec-WebSocket-Extensions: permessage-deflate"));
            echo_all_lengths(host, &client);
            assert_int_equal(host->core->stats->ws_deflated_in, 12);
            assert_int_equal(host->core->stats->ws_deflated_out, 12);
            assert_int_equal(host->core->stats->deflates, 12);
            client_free(&client);
            host_close(host);
        }
    }
}

static void a_behavior_without_a_compressor_only_inflates(void **state) {
    struct host *host = deflate_host(state, SHARED_DECOMPRESSOR);
    struct client client;
    uint8_t text[500];
    fill_text(text, sizeof text, 1);
    client_open(host, &client, 7, BROWSER);
    client_send(host, &client, RSV1_TEXT, text, sizeof text);
    expect_message(host, &client, text, sizeof text, 0);
    host_send(host, &client.open, RW_SEND_COMPRESS | RW_SEND_TEXT, text, sizeof text);
    client_expect(host, &client, FIN_TEXT, text, sizeof text);
    client_free(&client);
    host_close(host);
}

static void short_and_empty_messages_go_out_as_they_are(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.deflate = SHARED, .deflate_min_bytes = 100});
    struct client client;
    uint8_t text[100];
    fill_text(text, sizeof text, 1);
    client_open(host, &client, 7, BROWSER);
    host_send(host, &client.open, RW_SEND_COMPRESS | RW_SEND_TEXT, text, 99);
    client_expect(host, &client, FIN_TEXT, text, 99);
    host_send(host, &client.open, RW_SEND_COMPRESS | RW_SEND_TEXT, text, 100);
    client_expect(host, &client, RSV1_TEXT, text, 100);
    host_behavior(host, 7, (struct rw_behavior){.deflate = SHARED});
    host_send(host, &client.open, RW_SEND_COMPRESS, "", 0);
    client_expect(host, &client, FIN_BINARY, "", 0);
    host_send(host, &client.open, RW_SEND_COMPRESS, "a", 1);
    client_expect(host, &client, RSV1_BINARY, "a", 1);
    assert_int_equal(host->core->stats->deflates, 2);
    client_free(&client);
    host_close(host);
}

static void a_connection_with_shared_streams_keeps_no_memory(void **state) {
    struct host *host = deflate_host(state, SHARED);
    host_behavior(host, 8, (struct rw_behavior){.deflate = DEDICATED});
    struct client shared, dedicated;
    uint8_t text[400];
    fill_text(text, sizeof text, 1);
    client_open(host, &shared, 7, BROWSER);
    client_open(host, &dedicated, 8, BROWSER);
    assert_null(ws_of(host, &dedicated)->deflate); /* not before it is needed */
    client_send(host, &shared, RSV1_TEXT, text, sizeof text);
    expect_message(host, &shared, text, sizeof text, 0);
    host_send(host, &shared.open, RW_SEND_COMPRESS, text, sizeof text);
    client_expect(host, &shared, RSV1_BINARY, text, sizeof text);
    host_send(host, &dedicated.open, RW_SEND_COMPRESS, text, sizeof text);
    client_expect(host, &dedicated, RSV1_BINARY, text, sizeof text);
    assert_null(ws_of(host, &shared)->deflate);
    assert_non_null(ws_of(host, &dedicated)->deflate);
    client_free(&shared);
    client_free(&dedicated);
    host_close(host);
}

static void a_compressed_message_may_come_one_byte_at_a_time(void **state) {
    struct host *host = deflate_host(state, DEDICATED);
    struct client client;
    uint8_t text[600], frame[700];
    client_open(host, &client, 7, BROWSER);
    for (uint32_t round = 0; round < 3; round++) {
        fill_text(text, sizeof text, round);
        size_t bytes = zlib_peer_deflate(&client.zlib, text, sizeof text);
        assert_in_range(bytes, 1, sizeof frame - 14);
        size_t count = ws_client_frame(frame, RSV1_TEXT, client.zlib.out, bytes);
        for (size_t at = 0; at < count; at++) {
            assert_int_equal(host->log_at, host->log_count);
            peer_send(host, client.peer, frame + at, 1);
            host_turn(host);
        }
        expect_message(host, &client, text, sizeof text, 0);
    }
    client_free(&client);
    host_close(host);
}

static void fragments_of_a_compressed_message_may_be_cut_anywhere(void **state) {
    struct host *host = deflate_host(state, DEDICATED);
    struct client client;
    uint8_t text[300];
    fill_text(text, sizeof text, 6);
    client_open(host, &client, 7, BROWSER);
    for (size_t cut = 0; cut <= 60; cut += 3) {
        size_t bytes = zlib_peer_deflate(&client.zlib, text, sizeof text);
        size_t first = cut < bytes ? cut : bytes;
        peer_send_frame(host, client.peer, 0x41, client.zlib.out, first);
        peer_send_frame(host, client.peer, FIN_PING, "between", 7);
        peer_send_frame(host, client.peer, 0x00, "", 0);
        peer_send_frame(host, client.peer, 0x80, client.zlib.out + first, bytes - first);
        expect_message(host, &client, text, sizeof text, 0);
        peer_expect_frame(host, client.peer, FIN_PONG, "between", 7);
    }
    client_free(&client);
    host_close(host);
}

/* More than one batch has room for, each inflated only once. */
static void messages_that_find_the_batch_full_come_in_later_turns(void **state) {
    enum { MESSAGES = 60, BYTES = 60000 };
    struct host *host = deflate_host(state, DEDICATED);
    struct client client;
    client_open(host, &client, 7, BROWSER);
    uint8_t *text = new_text(BYTES, 0);
    uint8_t *wire = malloc(MESSAGES * (BYTES + 14u));
    assert_non_null(wire);
    size_t count = 0;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        text[0] = (uint8_t)('A' + i);
        size_t bytes = zlib_peer_deflate(&client.zlib, text, BYTES);
        if (i % 3 == 2) { /* gathered, and so with a place to wait in */
            count += ws_client_frame(wire + count, 0x41, client.zlib.out, 1);
            count += ws_client_frame(wire + count, 0x80, client.zlib.out + 1, bytes - 1);
        } else {
            count += ws_client_frame(wire + count, RSV1_TEXT, client.zlib.out, bytes);
        }
    }
    peer_send(host, client.peer, wire, count);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        text[0] = (uint8_t)('A' + i);
        expect_message(host, &client, text, BYTES, 0);
    }
    host_expect_silence(host);
    free(wire);
    free(text);
    client_free(&client);
    host_close(host);
}

/* RFC 7692 §7.2.3.4: such a block ends what zlib calls a stream, and neither the message nor what later ones may refer
 * to. */
static void a_message_that_ends_with_a_final_block_stays_in_the_window(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.deflate = DEDICATED});
    struct client client;
    client_open(host, &client, 7, BROWSER);
    static uint8_t text[3000], again[1200];
    fill_text(text, sizeof text, 5);
    z_stream *deflater = &client.zlib.deflater;
    for (uint32_t with_empty_block = 0; with_empty_block < 2; with_empty_block++) {
        assert_int_equal(deflateReset(deflater), Z_OK);
        deflater->next_in = text;
        deflater->avail_in = sizeof text;
        deflater->next_out = client.zlib.out;
        deflater->avail_out = (uInt)client.zlib.capacity;
        assert_int_equal(deflate(deflater, Z_FINISH), Z_STREAM_END);
        size_t bytes = client.zlib.capacity - deflater->avail_out;
        if (with_empty_block) client.zlib.out[bytes++] = 0;
        peer_send_frame(host, client.peer, RSV1_TEXT, client.zlib.out, bytes);
        expect_message(host, &client, text, sizeof text, 0);
        assert_int_equal(deflateReset(deflater), Z_OK);
        assert_int_equal(deflateSetDictionary(deflater, text, sizeof text), Z_OK);
        memcpy(again, text + 700, sizeof again);
        bytes = zlib_peer_deflate(&client.zlib, again, sizeof again);
        assert_in_range(bytes, 1, 60); /* it does refer to the message before */
        peer_send_frame(host, client.peer, RSV1_TEXT, client.zlib.out, bytes);
        expect_message(host, &client, again, sizeof again, 0);
    }
    client_free(&client);
    host_close(host);
}

/* ---------------------------------------------------------------- what breaks the rules */

static void the_reserved_bit_where_it_does_not_belong_closes_with_1002(void **state) {
    static const struct {
        const char *offer;
        uint8_t before, first; /* before: a frame that comes first, 0: none */
    } cases[] = {
        {"", 0, RSV1_TEXT}, {"", 0, 0x41},      {BROWSER, 0, 0xC9},    {BROWSER, 0, 0xCA},
        {BROWSER, 0, 0xC8}, {BROWSER, 0, 0xC0}, {BROWSER, 0x41, 0xC0}, {BROWSER, 0x01, 0x40},
        {BROWSER, 0, 0xA1}, {BROWSER, 0, 0x91}, {BROWSER, 0, 0xE1},    {BROWSER, 0x41, RSV1_TEXT},
    };
    struct host *host = deflate_host(state, DEDICATED);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client client;
        client_open(host, &client, 7, cases[i].offer);
        if (cases[i].before) peer_send_frame(host, client.peer, cases[i].before, "\xf2", 1);
        peer_send_frame(host, client.peer, cases[i].first, "\x00", 1);
        expect_closed(host, &client, 1002, RW_CLOSE_PROTOCOL_ERROR);
        client_free(&client);
    }
    host_close(host);
}

static void data_that_does_not_inflate_closes_with_1007(void **state) {
    struct host *host = deflate_host(state, DEDICATED);
    struct client client;
    client_open(host, &client, 7, BROWSER);
    peer_send_frame(host, client.peer, RSV1_BINARY, "\xff\xff\xff", 3);
    expect_closed(host, &client, 1007, RW_CLOSE_INVALID_DEFLATE);
    client_free(&client);
    client_open(host, &client, 7, BROWSER);
    peer_send_frame(host, client.peer, 0x42, "\xf2\x48", 2);
    peer_send_frame(host, client.peer, 0x80, "\xcd", 1); /* cut off within a block */
    expect_closed(host, &client, 1007, RW_CLOSE_INVALID_DEFLATE);
    client_free(&client);
    assert_int_equal(host->core->stats->ws_protocol_errors, 2);
    assert_int_equal(host->core->stats->ws_invalid_deflate, 2);
    host_close(host);
}

/* It waits for room in the batch with other notices behind it; but after the close there is nothing more to say. */
static void a_message_that_waits_and_does_not_inflate_is_the_last_word(void **state) {
    enum { FILLERS = 17, BYTES = 60000 }; /* a whole batch */
    struct host *host = ws_host(
        state,
        (struct rw_behavior){.deflate = SHARED, .max_backpressure_bytes = 900, .flags = RW_BEHAVIOR_WANTS_DROPPED});
    host_behavior(host, 8, PLAIN);
    struct client client;
    struct rw_event open[FILLERS];
    struct peer *fillers[FILLERS];
    for (uint32_t i = 0; i < FILLERS; i++) fillers[i] = peer_open_ws(host, 8, &open[i]);
    client_open(host, &client, 7, BROWSER);
    uint8_t *zeros = calloc(1, BYTES);
    assert_non_null(zeros);
    for (uint32_t i = 0; i < FILLERS; i++) peer_send_frame(host, fillers[i], FIN_BINARY, zeros, BYTES);
    peer_send_frame(host, client.peer, 0x42, "\xff", 1);
    peer_send_frame(host, client.peer, 0x80, "\xff", 1);
    while (host->log_count - host->log_at < FILLERS) host_turn(host);
    assert_true(ws_of(host, &client)->message_deflated);
    host_send(host, &client.open, 0, zeros, 890);
    host_send(host, &client.open, 0, zeros, 890);
    for (uint32_t i = 0; i < FILLERS; i++) host_expect(host, RW_EVENT_MESSAGE);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_INVALID_DEFLATE);
    host_expect_silence(host);
    assert_int_equal(host->core->stats->drops_backpressure, 1);
    free(zeros);
    client_free(&client);
    host_close(host);
}

static void text_is_checked_once_it_is_inflated(void **state) {
    static const uint8_t bad[] = {'a', 0xC3, 0x28, 'b'};
    struct host *host = deflate_host(state, SHARED);
    struct client client;
    client_open(host, &client, 7, BROWSER);
    client_send(host, &client, RSV1_BINARY, bad, sizeof bad);
    expect_message(host, &client, bad, sizeof bad, RW_WS_BINARY);
    client_send(host, &client, RSV1_TEXT, bad, sizeof bad);
    expect_closed(host, &client, 1007, RW_CLOSE_INVALID_UTF8);
    client_free(&client);
    client_open(host, &client, 7, BROWSER);
    uint8_t *text = new_text(100000, 3);
    text[99999] = 0xC3; /* a character that is cut off, in a message that does not fit the batch */
    client_send(host, &client, RSV1_TEXT, text, 100000);
    expect_closed(host, &client, 1007, RW_CLOSE_INVALID_UTF8);
    free(text);
    client_free(&client);
    host_close(host);
}

static void a_bomb_closes_with_1009_before_it_is_inflated(void **state) {
    static const uint32_t limits[] = {1000, 65536, 100000};
    static const uint32_t modes[] = {SHARED, DEDICATED};
    uint8_t *zeros = calloc(1, 8u << 20);
    assert_non_null(zeros);
    for (size_t i = 0; i < 6; i++) {
        uint32_t limit = limits[i % 3];
        struct host *host = ws_host(state, (struct rw_behavior){.deflate = modes[i / 3], .max_payload_bytes = limit});
        struct client client;
        client_open(host, &client, 7, BROWSER);
        client_send(host, &client, RSV1_BINARY, zeros, limit);
        expect_message(host, &client, zeros, limit, RW_WS_BINARY);
        client_send(host, &client, RSV1_BINARY, zeros, 500u * limit / 1000 + 500);
        expect_message(host, &client, zeros, 500u * limit / 1000 + 500, RW_WS_BINARY);
        uint64_t large = rw_buffers_stats(host->core->buffers, RW_BUFFER_LARGE).carved;
        client_send(host, &client, RSV1_BINARY, zeros, limit < 60000 ? 400u * limit : 8u << 20);
        expect_closed(host, &client, 1009, RW_CLOSE_TOO_BIG);
        assert_in_range(rw_buffers_stats(host->core->buffers, RW_BUFFER_LARGE).carved - large, 0, 1);
        assert_int_equal(host->core->stats->ws_too_big, 1);
        client_free(&client);
        host_close(host);
    }
    free(zeros);
}

static void the_limit_holds_for_the_compressed_bytes_too(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.deflate = SHARED, .max_payload_bytes = 300});
    struct client client;
    uint8_t frame[400] = {0};
    client_open(host, &client, 7, BROWSER);
    peer_send_frame(host, client.peer, 0x42, frame, 200);
    peer_send_frame(host, client.peer, 0x80, frame, 101);
    expect_closed(host, &client, 1009, RW_CLOSE_TOO_BIG);
    client_free(&client);
    host_close(host);
}

/* ---------------------------------------------------------------- fan-out */

static void a_publish_compresses_once_for_all(void **state) {
    enum { CLIENTS = 12 };
    struct host *host = deflate_host(state, SHARED);
    host_behavior(host, 8, (struct rw_behavior){.deflate = DEDICATED});
    host_behavior(host, 9, PLAIN);
    struct client clients[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_open(host, &clients[i], 7 + i % 3, i % 2 ? BROWSER : "permessage-deflate; server_max_window_bits=11");
        host_topic(host, &clients[i].open, RW_COMMAND_SUBSCRIBE, "t");
    }
    uint8_t text[900];
    for (uint32_t round = 0; round < 20; round++) {
        fill_text(text, sizeof text, round);
        uint64_t before = host->core->stats->deflates;
        host_publish(host, NULL, "t", RW_SEND_TEXT | (round == 7 ? 0 : RW_SEND_COMPRESS), text, sizeof text);
        host_turn(host);
        assert_int_equal(host->core->stats->deflates - before, round == 7 ? 0 : 1);
        for (uint32_t i = 0; i < CLIENTS; i++)
            client_expect(host, &clients[i], i % 3 == 2 || round == 7 ? FIN_TEXT : RSV1_TEXT, text, sizeof text);
        for (uint32_t i = round % 3; i < CLIENTS; i += 3) {
            host_send(host, &clients[i].open, RW_SEND_TEXT | RW_SEND_COMPRESS, text, sizeof text - i);
            client_expect(host, &clients[i], i % 3 == 2 ? FIN_TEXT : RSV1_TEXT, text, sizeof text - i);
        }
    }
    assert_int_equal(host->core->stats->deliveries, 20 * CLIENTS);
    for (uint32_t i = 0; i < CLIENTS; i++) client_free(&clients[i]);
    host_close(host);
}

/* Who hears JSON and who hears the message alone get two texts, each compressed once. */
static void each_dialect_of_a_publish_is_compressed_once(void **state) {
    enum { CLIENTS = 8 };
    struct host *host = deflate_host(state, SHARED);
    host_behavior(host, 8, (struct rw_behavior){.deflate = DEDICATED, .flags = RW_BEHAVIOR_POSITIONS});
    struct client clients[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_open(host, &clients[i], 7 + i % 2, i < 6 ? BROWSER : "");
        host_topic(host, &clients[i].open, RW_COMMAND_SUBSCRIBE, "t");
    }
    static const char before[] = "{\"topic\":\"t\",\"data\":\"", after[] = "\"}";
    uint8_t text[sizeof before + 900 + sizeof after], *payload = text + sizeof before - 1;
    for (uint32_t round = 0; round < 8; round++) {
        memset(payload, 'a' + (int)round, 900);
        uint64_t deflates = host->core->stats->deflates;
        host_publish(host, NULL, "t", RW_SEND_TEXT | RW_SEND_COMPRESS, payload, 900);
        host_turn(host);
        assert_int_equal(host->core->stats->deflates - deflates, 2);
        memcpy(text, before, sizeof before - 1);
        memcpy(payload + 900, after, sizeof after - 1);
        for (uint32_t i = 0; i < CLIENTS; i++) {
            uint8_t first = i < 6 ? RSV1_TEXT : FIN_TEXT;
            if (i % 2) client_expect(host, &clients[i], first, text, sizeof before + 900 + sizeof after - 2);
            else client_expect(host, &clients[i], first, payload, 900);
        }
        /* What one with a window of its own is sent next refers to none of it. */
        host_send(host, &clients[1].open, RW_SEND_TEXT | RW_SEND_COMPRESS, payload, 900);
        client_expect(host, &clients[1], RSV1_TEXT, payload, 900);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) client_free(&clients[i]);
    host_close(host);
}

static void a_long_publish_is_compressed_for_each_window_in_use(void **state) {
    enum { CLIENTS = 6 };
    static const char *const offers[CLIENTS] = {
        BROWSER,
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=12",
        BROWSER,
        "permessage-deflate; server_max_window_bits=9; server_no_context_takeover",
        ""};
    struct host *host = deflate_host(state, DEDICATED);
    struct client clients[CLIENTS];
    for (uint32_t i = 0; i < CLIENTS; i++) {
        client_open(host, &clients[i], 7, offers[i]);
        host_topic(host, &clients[i].open, RW_COMMAND_SUBSCRIBE, "t");
    }
    uint8_t *text = new_text(50000, 2);
    for (uint32_t round = 1; round <= 4; round++) {
        host_publish(host, NULL, "t", RW_SEND_COMPRESS, text, 50000 - round);
        host_turn(host);
        assert_int_equal(host->core->stats->deflates, round * 3);
        for (uint32_t i = 0; i < CLIENTS; i++)
            client_expect(host, &clients[i], i == 5 ? FIN_BINARY : RSV1_BINARY, text, 50000 - round);
    }
    assert_int_equal(host->core->stats->ws_deflated_out, 4 * 5);
    assert_int_equal(host->core->stats->ws_bytes_out, 6 * (4 * 50000 - 10));
    free(text);
    for (uint32_t i = 0; i < CLIENTS; i++) client_free(&clients[i]);
    host_close(host);
}

static void a_burst_of_compressed_publishes_is_one_piece_for_each_socket(void **state) {
    struct host *host = deflate_host(state, SHARED);
    struct client deflated, plain;
    uint8_t text[200];
    client_open(host, &deflated, 7, BROWSER);
    client_open(host, &plain, 7, "");
    host_topic(host, &deflated.open, RW_COMMAND_SUBSCRIBE, "t");
    host_topic(host, &plain.open, RW_COMMAND_SUBSCRIBE, "t");
    for (uint32_t i = 0; i < 10; i++) {
        fill_text(text, sizeof text, i);
        host_publish(host, NULL, "t", RW_SEND_COMPRESS, text, sizeof text);
    }
    host_flush(host);
    assert_int_equal(host->core->outbox.used, 2); /* segments */
    for (uint32_t i = 0; i < 10; i++) {
        fill_text(text, sizeof text, i);
        client_expect(host, &deflated, RSV1_BINARY, text, sizeof text);
        client_expect(host, &plain, FIN_BINARY, text, sizeof text);
    }
    client_free(&deflated);
    client_free(&plain);
    host_close(host);
}

/* ---------------------------------------------------------------- fragments and drops */

static void fragments_are_compressed_with_takeover_and_hold_other_messages(void **state) {
    struct host *host = deflate_host(state, DEDICATED);
    host_behavior(host, 8, (struct rw_behavior){.deflate = SHARED});
    for (uint32_t behavior = 7; behavior <= 8; behavior++) {
        struct client client;
        uint8_t text[700], wire[2000];
        const uint8_t *payload;
        size_t bytes, used = 0;
        client_open(host, &client, behavior, BROWSER);
        host_topic(host, &client.open, RW_COMMAND_SUBSCRIBE, "t");
        for (uint32_t round = 0; round < 3; round++) {
            fill_text(text, sizeof text, round);
            host_send(host, &client.open, RW_SEND_FIRST | RW_SEND_TEXT | RW_SEND_COMPRESS, text, 300);
            host_send(host, &client.open, RW_SEND_TEXT | RW_SEND_COMPRESS, text, 500);
            host_publish(host, NULL, "t", RW_SEND_TEXT | RW_SEND_COMPRESS, text, 400);
            host_answer(host, &client.open, (struct rw_command){.type = RW_COMMAND_PING}, "p", 1);
            host_send(host, &client.open, RW_SEND_CONTINUE, text + 300, 0);
            host_send(host, &client.open, RW_SEND_TEXT, "short", 5);
            host_send(host, &client.open, RW_SEND_CONTINUE | RW_SEND_LAST, text + 300, 400);
            int deflated = behavior == 7;
            used = 0;
            for (uint32_t i = 0; i < 4; i++) {
                uint8_t first = next_frame(host, &client, &payload, &bytes);
                assert_int_equal(first, i == 0 ? (deflated ? 0x41 : 0x01) : i == 1 ? FIN_PING : i == 2 ? 0x00 : 0x80);
                if (i != 1) {
                    memcpy(wire + used, payload, bytes);
                    used += bytes;
                }
                peer_consume(client.peer, bytes);
            }
            if (deflated) {
                zlib_peer_expect(&client.zlib, wire, used, text, sizeof text);
            } else {
                assert_int_equal(used, sizeof text);
                assert_memory_equal(wire, text, used);
            }
            client_expect(host, &client, RSV1_TEXT, text, 500);
            client_expect(host, &client, RSV1_TEXT, text, 400);
            client_expect(host, &client, FIN_TEXT, "short", 5);
            host_send(host, &client.open, RW_SEND_TEXT | RW_SEND_COMPRESS, text, 600);
            client_expect(host, &client, RSV1_TEXT, text, 600);
            assert_int_equal(ws_of(host, &client)->held_bytes, 0);
        }
        client_free(&client);
    }
    host_close(host);
}

/* What was compressed and then dropped is in no window of the client. */
static void a_dropped_message_does_not_spoil_the_ones_after_it(void **state) {
    static const uint8_t filler[850];
    struct host *host = ws_host(state, (struct rw_behavior){.deflate = DEDICATED, .max_backpressure_bytes = 900});
    struct client client;
    uint8_t text[2000];
    client_open(host, &client, 7, BROWSER);
    for (uint32_t round = 0; round < 6; round++) {
        int fragments = (int)(round & 1);
        fill_text(text, sizeof text, round);
        host_send(host, &client.open, RW_SEND_COMPRESS, text, sizeof text);
        client_expect(host, &client, RSV1_BINARY, text, sizeof text);
        host_send(host, &client.open, 0, filler, sizeof filler);
        fill_text(text, sizeof text, round + 100);
        host_send(host, &client.open, RW_SEND_COMPRESS | (fragments ? RW_SEND_FIRST : 0), text, sizeof text);
        if (fragments) host_send(host, &client.open, RW_SEND_CONTINUE | RW_SEND_LAST, text, 10);
        client_expect(host, &client, FIN_BINARY, filler, sizeof filler);
        assert_int_equal(host->core->stats->drops_backpressure, round + 1);
        host_send(host, &client.open, RW_SEND_COMPRESS, text, 1000);
        client_expect(host, &client, RSV1_BINARY, text, 1000);
    }
    assert_int_equal(host->core->stats->ws_deflated_out, 12);
    client_free(&client);
    host_close(host);
}

static void backpressure_counts_what_is_really_sent(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.deflate = SHARED, .max_backpressure_bytes = 1000});
    struct client client;
    uint8_t *zeros = calloc(1, 50000);
    assert_non_null(zeros);
    client_open(host, &client, 7, BROWSER);
    host_topic(host, &client.open, RW_COMMAND_SUBSCRIBE, "t");
    /* about 60 bytes each */
    for (uint32_t i = 0; i < 4; i++) host_send(host, &client.open, RW_SEND_COMPRESS, zeros, 50000);
    for (uint32_t i = 0; i < 4; i++) host_publish(host, NULL, "t", RW_SEND_COMPRESS, zeros, 50000);
    host_flush(host);
    assert_int_equal(host->core->stats->drops_backpressure, 0);
    assert_in_range(rw_core_slot(host->core, client.open.slot)->out_bytes, 100, 1000);
    host_send(host, &client.open, 0, zeros, 50000);
    host_publish(host, NULL, "t", 0, zeros, 50000);
    host_flush(host);
    assert_int_equal(host->core->stats->drops_backpressure, 2);
    for (uint32_t i = 0; i < 8; i++) client_expect(host, &client, RSV1_BINARY, zeros, 50000);
    free(zeros);
    client_free(&client);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(the_answer_has_the_extension_when_both_want_it),
        ON_EVERY_RING(a_client_takes_over_from_its_messages_though_ours_are_on_their_own),
        ON_EVERY_RING(windows_of_clients_come_out_of_a_budget),
        ON_EVERY_RING(messages_go_both_ways_in_every_mode),
        ON_SIM(a_behavior_without_a_compressor_only_inflates),
        ON_SIM(short_and_empty_messages_go_out_as_they_are),
        ON_SIM(a_connection_with_shared_streams_keeps_no_memory),
        ON_EVERY_RING(a_compressed_message_may_come_one_byte_at_a_time),
        ON_SIM(fragments_of_a_compressed_message_may_be_cut_anywhere),
        ON_EVERY_RING(messages_that_find_the_batch_full_come_in_later_turns),
        ON_SIM(a_message_that_ends_with_a_final_block_stays_in_the_window),
        ON_SIM(the_reserved_bit_where_it_does_not_belong_closes_with_1002),
        ON_EVERY_RING(data_that_does_not_inflate_closes_with_1007),
        ON_SIM(a_message_that_waits_and_does_not_inflate_is_the_last_word),
        ON_SIM(text_is_checked_once_it_is_inflated),
        ON_EVERY_RING(a_bomb_closes_with_1009_before_it_is_inflated),
        ON_SIM(the_limit_holds_for_the_compressed_bytes_too),
        ON_EVERY_RING(a_publish_compresses_once_for_all),
        ON_EVERY_RING(each_dialect_of_a_publish_is_compressed_once),
        ON_EVERY_RING(a_long_publish_is_compressed_for_each_window_in_use),
        ON_SIM(a_burst_of_compressed_publishes_is_one_piece_for_each_socket),
        ON_EVERY_RING(fragments_are_compressed_with_takeover_and_hold_other_messages),
        ON_SIM(a_dropped_message_does_not_spoil_the_ones_after_it),
        ON_SIM(backpressure_counts_what_is_really_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
