/* WebSocket through the whole core: frames of a client in, events to the host, commands of the host, frames on the wire
 * (RFC 6455). */
#include "core_fixture.h"
#include "ws/ws.h"

static void expect_closed(struct host *host, struct peer *peer, uint32_t code) {
    peer_expect_close_frame(host, peer, code);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, code);
    peer_expect_end(host, peer);
    assert_int_equal(peer->in_bytes, 0);
    host_expect_silence(host);
}

static void close_properly(struct host *host, struct peer *peer) {
    static const uint8_t payload[2] = {0x03, 0xE8};
    peer_send_frame(host, peer, FIN_CLOSE, payload, 2);
    expect_closed(host, peer, 1000);
}

/* ---------------------------------------------------------------- handshake */

#define OFFERING(extensions)                                                                            \
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: " \
    "13\r\nSec-WebSocket-Extensions: " extensions "\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"

static void handshakes_that_are_not_quite_right_are_refused(void **state) {
    static const struct {
        uint32_t status;
        const char *text;
    } cases[] = {
        {400, "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
              "13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"},
        {400, "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
              "13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"},
        {400,
         "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
              "13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " WS_KEY
              "\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: "
              "1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\nx"},
        {400, OFFERING("permessage-deflate; server_max_window_bits=")},
        {400, OFFERING("permessage-deflate; x=\"a b\"")},
        {400, OFFERING("permessage-deflate;")},
        {400, OFFERING("x\r\nSec-WebSocket-Extensions: permessage-deflate x")},
        {426, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
              "8\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"},
    };
    struct host *host = ws_host(state, PLAIN);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, cases[i].text);
        peer_expect_head(host, peer, cases[i].status);
        peer_consume(peer, peer_content_length(peer->head));
        peer_expect_end(host, peer);
    }
    host_expect_silence(host);
    assert_int_equal(host->core->stats->refused_handshake, sizeof cases / sizeof *cases);
    host_close(host);
}

static void a_client_that_speaks_http_1_0_is_told_why_it_gets_no_websocket(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer,
                   "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
                   "13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n");
    peer_expect_response(host, peer, 400, "Bad Request: a WebSocket handshake needs HTTP/1.1 (RFC 6455, 4.1)");
    peer_expect_end(host, peer);
    host_close(host);
}

static void upgrade_is_ignored_where_it_was_not_meant_for_us(void **state) {
    static const char *const requests[] = {
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nSec-WebSocket-Version: "
        "13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: "
        "AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket/13\r\nConnection: Upgrade\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade, keep-alive\r\n\r\n",
    };
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        peer_send_text(host, peer, requests[i]);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        assert_false(request.flags & RW_REQUEST_UPGRADE);
        host_respond(host, &request, 200, "", "plain");
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, "", 0);
        peer_expect_response(host, peer, 200, "plain");
        assert_false(peer_head_has(peer, "Connection: close"));
    }
    assert_int_equal(host->core->stats->refused_handshake, 0);
    host_close(host);
}

static void the_host_may_answer_a_handshake_with_a_plain_response(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_respond(host, &request, 403, "", "no");
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, "", 0);
    /* What a proxy may take for frames is no request. */
    peer_send_text(host, peer, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_expect_response(host, peer, 403, "no");
    assert_true(peer_head_has(peer, "Connection: close"));
    peer_expect_end(host, peer);
    host_expect_silence(host);
    host_close(host);
}

static void frames_sent_with_the_handshake_wait_for_the_open_event(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct peer *peer = peer_connect(host);
    uint8_t bytes[512];
    size_t count = sizeof WS_REQUEST - 1;
    memcpy(bytes, WS_REQUEST, count);
    count += ws_client_frame(bytes + count, FIN_TEXT, "first", 5);
    peer_send(host, peer, bytes, count);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_expect_silence(host);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7},
                "Sec-WebSocket-Protocol: p\r\n", 27);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_SEND, .flags = RW_SEND_TEXT}, "greeting", 8);
    host_expect(host, RW_EVENT_OPEN);
    struct record *message = host_expect(host, RW_EVENT_MESSAGE);
    assert_string_equal((char *)message->payload, "first");
    assert_int_equal(message->event.arg0, 7);
    peer_expect_head(host, peer, 101);
    assert_true(peer_head_has(peer, "Upgrade: websocket") && peer_head_has(peer, "Connection: Upgrade") &&
                peer_head_has(peer, "Sec-WebSocket-Protocol: p"));
    peer_expect_frame(host, peer, FIN_TEXT, "greeting", 8);
    close_properly(host, peer);
    host_close(host);
}

/* ---------------------------------------------------------------- messages */

static void messages_of_every_length_form_come_back_as_they_went(void **state) {
    static const uint32_t lengths[] = {0,   1,   2,   3,    4,    5,     31,    32,    33,    124,   125,
                                       126, 127, 128, 1000, 8192, 16384, 65535, 65536, 65537, 70000, 300000};
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t *payload = malloc(300000);
    assert_non_null(payload);
    fill_pattern(payload, 300000);
    for (size_t i = 0; i < 2 * (sizeof lengths / sizeof *lengths); i++) {
        uint32_t bytes = lengths[i / 2];
        int binary = (int)(i & 1);
        peer_send_frame(host, peer, binary ? FIN_BINARY : FIN_TEXT, payload, bytes);
        struct record *message = host_expect(host, RW_EVENT_MESSAGE);
        assert_int_equal(message->event.bytes, bytes);
        assert_int_equal(message->event.flags,
                         (binary ? RW_WS_BINARY : 0) | (bytes > RW_EVENT_LARGE_BYTES ? RW_EVENT_LARGE : 0));
        assert_memory_equal(message->payload, payload, bytes);
        host_send(host, &open, binary ? 0 : RW_SEND_TEXT, message->payload, bytes);
        peer_expect_frame(host, peer, binary ? FIN_BINARY : FIN_TEXT, payload, bytes);
    }
    free(payload);
    close_properly(host, peer);
    host_close(host);
}

static void a_message_may_come_one_byte_at_a_time(void **state) {
    static const uint32_t lengths[] = {0, 1, 125, 126, 700};
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t payload[700], frame[720];
    fill_pattern(payload, sizeof payload);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t count = ws_client_frame(frame, FIN_TEXT, payload, lengths[i]);
        for (size_t at = 0; at < count; at++) {
            assert_int_equal(host->log_at, host->log_count);
            peer_send(host, peer, frame + at, 1);
            host_turn(host);
        }
        struct record *message = host_expect(host, RW_EVENT_MESSAGE);
        assert_int_equal(message->event.bytes, lengths[i]);
        assert_memory_equal(message->payload, payload, lengths[i]);
    }
    host_close(host);
    (void)open;
}

static void thousands_of_messages_at_once_overflow_the_batch_without_loss(void **state) {
    enum { MESSAGES = 20000, LARGE_EVERY = 500, LARGE = 60000 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t *bytes = malloc((size_t)MESSAGES * 24 + (size_t)(MESSAGES / LARGE_EVERY + 1) * (LARGE + 14));
    uint8_t *large = malloc(LARGE);
    assert_non_null(bytes);
    assert_non_null(large);
    fill_pattern(large, LARGE);
    size_t count = 0;
    char text[16];
    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (i % LARGE_EVERY == 0) {
            count += ws_client_frame(bytes + count, FIN_BINARY, large, LARGE);
        } else {
            count += ws_client_frame(bytes + count, FIN_TEXT, text, (size_t)snprintf(text, sizeof text, "%u", i));
        }
    }
    peer_send(host, peer, bytes, count);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct record *message = host_expect(host, RW_EVENT_MESSAGE);
        if (i % LARGE_EVERY == 0) {
            assert_int_equal(message->event.bytes, LARGE);
            assert_memory_equal(message->payload, large, LARGE);
        } else {
            snprintf(text, sizeof text, "%u", i);
            assert_string_equal((char *)message->payload, text);
        }
    }
    assert_int_equal(host->core->stats->ws_messages_in, MESSAGES);
    free(bytes);
    free(large);
    host_expect_silence(host);
    host_close(host);
}

/* ---------------------------------------------------------------- fragments and control frames */

static void fragments_with_control_frames_between_make_one_message(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.flags = RW_BEHAVIOR_WANTS_PING | RW_BEHAVIOR_WANTS_PONG});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    peer_send_frame(host, peer, 0x01, "Gr\xC3", 3); /* a character cut in two */
    peer_send_frame(host, peer, FIN_PING, "?", 1);
    peer_send_frame(host, peer, 0x00, "", 0);
    peer_send_frame(host, peer, FIN_PONG, "unasked", 7);
    peer_send_frame(host, peer, 0x80, "\xBC\xC3\x9F", 3);
    assert_string_equal((char *)host_expect(host, RW_EVENT_PING)->payload, "?");
    assert_string_equal((char *)host_expect(host, RW_EVENT_PONG)->payload, "unasked");
    assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "Gr\xC3\xBC\xC3\x9F");
    peer_expect_frame(host, peer, FIN_PONG, "?", 1);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PING}, "now", 3);
    host_send(host, &open, RW_SEND_TEXT | RW_SEND_FIRST, "a", 1);
    host_send(host, &open, RW_SEND_CONTINUE, "b", 1);
    host_send(host, &open, RW_SEND_CONTINUE | RW_SEND_LAST, "c", 1);
    peer_expect_frame(host, peer, FIN_PING, "now", 3);
    peer_expect_frame(host, peer, 0x01, "a", 1);
    peer_expect_frame(host, peer, 0x00, "b", 1);
    peer_expect_frame(host, peer, 0x80, "c", 1);
    assert_int_equal(host->core->stats->ws_messages_out, 1);
    host_close(host);
}

static void a_message_may_have_more_than_65536_fragments(void **state) {
    enum { FRAGMENTS = 70000 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t *bytes = malloc(FRAGMENTS * 7);
    assert_non_null(bytes);
    size_t count = 0;
    for (uint32_t i = 0; i < FRAGMENTS; i++) {
        uint8_t octet = pattern_at(i);
        count += ws_client_frame(bytes + count, i == 0 ? 0x01 : i == FRAGMENTS - 1 ? 0x80 : 0x00, &octet, 1);
    }
    peer_send(host, peer, bytes, count);
    struct record *message = host_expect(host, RW_EVENT_MESSAGE);
    assert_int_equal(message->event.bytes, FRAGMENTS);
    assert_true(message->event.flags & RW_EVENT_LARGE);
    for (uint32_t i = 0; i < FRAGMENTS; i++) assert_int_equal(message->payload[i], pattern_at(i));
    free(bytes);
    host_close(host);
}

static void violations_close_with_the_code_of_the_rfc_at_the_first_bad_octet(void **state) {
    static const struct {
        uint32_t code;
        const char *bytes;
        size_t count;
    } cases[] = {
#define CASE(code, bytes) {code, bytes, sizeof bytes - 1}
        CASE(1002, "\x81\x00"),                         /* not masked */
        CASE(1002, "\xC1"),                             /* RSV1 */
        CASE(1002, "\x83"),                             /* reserved opcode */
        CASE(1002, "\x09"),                             /* a fragmented ping */
        CASE(1002, "\x89\xFE"),                         /* a long ping */
        CASE(1002, "\x80\x80\0\0\0\0"),                 /* continues nothing */
        CASE(1002, "\x01\x80\0\0\0\0\x81\x80\0\0\0\0"), /* a new message within another */
        CASE(1002, "\x81\xFE\x00\x7D"),                 /* not the shortest form */
        CASE(1002, "\x82\xFF\x80"),                     /* the top bit of the length */
        CASE(1002, "\x88\x81\0\0\0\0\x03"),             /* a close of one byte */
        CASE(1002, "\x88\x82\0\0\0\0\x03\xED"),         /* 1005 is never sent */
        CASE(1007, "\x88\x83\0\0\0\0\x03\xE8\xFF"),     /* a reason that is not UTF-8 */
        CASE(1007, "\x81\x81\0\0\0\0\xFF"),             /* whole and wrong */
        CASE(1007, "\x81\xE4\0\0\0\0"
                   "abc\xC0"),                                     /* the first bad octet of many to come */
        CASE(1007, "\x01\x81\0\0\0\0\xF4\x80\x84\0\0\0\0\x90zzz"), /* above U+10FFFF, across fragments */
        CASE(1007, "\x81\x82\0\0\0\0"
                   "a\xC3"),                                            /* ends within a character */
        CASE(1009, "\x82\xFE\x03\xE9\0\0\0\0"),                         /* 1001 bytes announced */
        CASE(1009, "\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0"), /* 2^63-1 announced */
        CASE(1009, "\x02\x81\0\0\0\0x\x80\xFE\x03\xE8\0\0\0\0"),        /* together too long */
#undef CASE
    };
    struct host *host = ws_host(state, (struct rw_behavior){.max_payload_bytes = 1000});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int whole = 0; whole < 2; whole++) {
            struct rw_event open;
            struct peer *peer = peer_open_ws(host, 7, &open);
            uint64_t buffers = host_buffers_used(host);
            for (size_t at = 0; at < cases[i].count; at += whole ? cases[i].count : 1) {
                peer_send(host, peer, cases[i].bytes + at, whole ? cases[i].count : 1);
                if (!whole) host_turn(host);
            }
            expect_closed(host, peer, cases[i].code);
            assert_true(host_buffers_used(host) <= buffers + 1);
            host_send(host, &open, 0, "too late", 8);
        }
    }
    assert_int_equal(host->core->stats->ws_too_big, 6);
    host_close(host);
}

static void a_limit_lowered_while_a_message_comes_is_still_a_limit(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.max_payload_bytes = 1000});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t payload[600] = {0};
    peer_send_frame(host, peer, 0x02, payload, sizeof payload);
    host_turns(host, 5);
    host_behavior(host, 7, (struct rw_behavior){.max_payload_bytes = 100});
    peer_send_frame(host, peer, 0x80, "x", 1);
    expect_closed(host, peer, 1009);
    host_close(host);
}

static void unread_pongs_are_bounded_and_pings_are_answered_again_later(void **state) {
    enum { PINGS = 5000 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t payload[100], *bytes = malloc(PINGS * 106);
    assert_non_null(bytes);
    fill_pattern(payload, sizeof payload);
    size_t count = 0;
    for (uint32_t i = 0; i < PINGS; i++) count += ws_client_frame(bytes + count, FIN_PING, payload, sizeof payload);
    rw_sim_peer_window(host->core->ring, peer->fd, 0);
    peer_send(host, peer, bytes, count);
    host_turns(host, 50);
    const struct rw_slot *slot = rw_core_slot(host->core, open.slot);
    assert_int_equal(host->core->stats->ws_pings_in, PINGS);
    assert_true(slot->out_bytes <= RW_WS_CONTROL_QUEUE_BYTES_MAX + 127);
    assert_int_equal(host->core->stats->drops_control, PINGS - slot->out_bytes / 102);
    rw_sim_peer_window(host->core->ring, peer->fd, SIZE_MAX);
    host_turns(host, 5);
    peer_pull(host, peer);
    assert_int_equal(peer->in_bytes % 102, 0);
    peer_consume(peer, peer->in_bytes);
    peer_send_frame(host, peer, FIN_PING, "again", 5);
    peer_expect_frame(host, peer, FIN_PONG, "again", 5);
    free(bytes);
    host_close(host);
}

/* ---------------------------------------------------------------- closing */

static void either_side_may_start_the_close_handshake(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t payload[125] = {0x0F, 0xA1}; /* 4001 */
    memset(payload + 2, 'r', 123);
    peer_send_frame(host, peer, FIN_TEXT, "last", 4);
    peer_send_frame(host, peer, FIN_CLOSE, payload, sizeof payload);
    peer_send_frame(host, peer, FIN_TEXT, "after the end", 13);
    assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "last");
    struct record *closed = host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(closed->event.arg0, 4001);
    assert_int_equal(closed->event.bytes, 123);
    assert_memory_equal(closed->payload, payload + 2, 123);
    peer_expect_close_frame(host, peer, 4001);
    peer_expect_end(host, peer);
    host_expect_silence(host);

    peer = peer_open_ws(host, 7, &open);
    peer_send_frame(host, peer, FIN_CLOSE, "", 0);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1005);
    peer_expect_close_frame(host, peer, 0);
    peer_expect_end(host, peer);

    peer = peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 3000}, "why", 3);
    host_send(host, &open, RW_SEND_TEXT, "not sent", 8);
    peer_expect_frame(host, peer, FIN_CLOSE, "\x0B\xB8why", 5);
    peer_send_frame(host, peer, FIN_TEXT, "not delivered", 13);
    peer_send_frame(host, peer, 0x01, "not", 3);
    peer_send_frame(host, peer, 0x80, "delivered", 9);
    host_expect_silence(host);
    peer_send_frame(host, peer, FIN_CLOSE, "\x0B\xB8", 2);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 3000);
    peer_expect_end(host, peer);
    assert_int_equal(peer->in_bytes, 0);
    host_close(host);
}

static void a_close_while_the_batch_is_full_still_hears_the_answer(void **state) {
    enum { MESSAGES = 100, HALF = 20000 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    uint8_t *bytes = malloc(MESSAGES * 2 * (HALF + 8) + 16);
    assert_non_null(bytes);
    static const uint8_t payload[HALF];
    size_t count = 0;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        count += ws_client_frame(bytes + count, 0x02, payload, HALF);
        count += ws_client_frame(bytes + count, 0x80, payload, HALF);
    }
    count += ws_client_frame(bytes + count, FIN_CLOSE, "\x0F\xA0", 2);
    peer_send(host, peer, bytes, count);
    const struct rw_slot *slot = rw_core_slot(host->core, open.slot);
    while (!(rw_ws_of(slot)->flags & RW_WS_MESSAGE_DUE) && host->log_count - host->log_at < MESSAGES) host_turn(host);
    assert_int_equal(rw_ws_of(slot)->message_bytes, 2 * HALF); /* one message waits for room */
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 4000}, "", 0);
    for (size_t i = host->log_count - host->log_at; i > 0; i--) host_expect(host, RW_EVENT_MESSAGE);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 4000);
    peer_expect_close_frame(host, peer, 4000);
    peer_expect_end(host, peer);
    free(bytes);
    host_close(host);
}

static void a_reason_too_long_is_cut_between_characters(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    char reason[140];
    for (size_t i = 0; i < sizeof reason; i += 2) memcpy(reason + i, "\xC3\xA9", 2);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 1000}, reason, sizeof reason);
    uint8_t expected[124] = {0x03, 0xE8};
    memcpy(expected + 2, reason, 122); /* 123 bytes would end within one */
    peer_expect_frame(host, peer, FIN_CLOSE, expected, sizeof expected);
    host_close(host);
}

static void a_peer_that_vanishes_is_reported_as_1006(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    peer_send_frame(host, peer, 0x01, "half a mess", 11);
    host_turns(host, 4);
    peer_close(host, peer);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1006);
    peer = peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_TERMINATE}, "", 0);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1006);
    peer_expect_end(host, peer);
    host_close(host);
}

/* ---------------------------------------------------------------- pause, time */

static void a_paused_socket_delivers_nothing_until_it_is_resumed(void **state) {
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    peer_send_frame(host, peer, FIN_TEXT, "1", 1);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PAUSE}, "", 0);
    host_turn(host);
    peer_send_frame(host, peer, FIN_TEXT, "2", 1);
    peer_send_frame(host, peer, FIN_CLOSE, "\x03\xE8", 2);
    peer_shutdown(host, peer);
    while (host_poll(host)) host->log_at = host->log_count; /* "1" may have been under way */
    host_expect_silence(host);
    assert_false(rw_core_slot(host->core, open.slot)->state.recv_armed);
    size_t before = host->log_count;
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_RESUME}, "", 0);
    host_expect(host, RW_EVENT_MESSAGE);
    if (host->log[before].payload[0] == '1') host_expect(host, RW_EVENT_MESSAGE);
    assert_string_equal((char *)host->log[host->log_at - 1].payload, "2");
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1000);
    host_close(host);
}

/* With a window of three messages of a byte and a bit: the third uses it up. */
#define WINDOW (2u * (RW_WINDOW_EVENT_BYTES + 1u) + 1u)

static void resume(struct host *host, const struct rw_event *open, uint32_t window) {
    host_answer(host, open, (struct rw_command){.type = RW_COMMAND_RESUME, .arg0 = window}, "", 0);
}

static void a_window_lets_so_much_through_and_then_pauses(void **state) {
    enum { SENT = 30 };
    struct host *host = ws_host(state, (struct rw_behavior){.flags = RW_BEHAVIOR_WANTS_PING});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    resume(host, &open, WINDOW);
    host_turn(host);
    /* All in one piece, so that what is past the window has been received already. A ping counts as a message does. */
    uint8_t bytes[SENT * 16];
    size_t count = 0;
    for (uint8_t i = 0; i < SENT; i++)
        count += ws_client_frame(bytes + count, i % 3 == 1 ? FIN_PING : FIN_BINARY, &i, 1);
    peer_send(host, peer, bytes, count);
    peer_send_frame(host, peer, FIN_CLOSE, "\x03\xE8", 2);
    for (uint8_t i = 0; i < SENT; i++) {
        struct record *record = host_expect(host, i % 3 == 1 ? RW_EVENT_PING : RW_EVENT_MESSAGE);
        assert_int_equal(record->payload[0], i);
        if (i % 3 != 2) continue;
        host_expect_silence(host);
        assert_true(rw_core_slot(host->core, open.slot)->state.paused_by_host);
        resume(host, &open, i < SENT / 2 ? WINDOW : 0);
        if (i > SENT / 2) break; /* without end */
    }
    for (uint8_t i = host->log[host->log_at - 1].payload[0] + 1; i < SENT; i++)
        host_expect(host, i % 3 == 1 ? RW_EVENT_PING : RW_EVENT_MESSAGE);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1000);
    host_close(host);
}

static void a_window_counts_bytes_and_never_cuts_a_message(void **state) {
    static uint8_t payload[100000];
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    for (uint32_t i = 0; i < 3; i++) {
        resume(host, &open, 4096);
        host_turn(host);
        /* Whole, in fragments, and after one that leaves a little. */
        if (i == 2) peer_send_frame(host, peer, FIN_BINARY, payload, 1000);
        if (i == 2) assert_int_equal(host_expect(host, RW_EVENT_MESSAGE)->event.bytes, 1000);
        peer_send_frame(host, peer, i == 1 ? RW_WS_OP_BINARY : FIN_BINARY, payload, sizeof payload);
        if (i == 1) peer_send_frame(host, peer, 0x80 | RW_WS_OP_CONTINUATION, payload, 1);
        peer_send_frame(host, peer, FIN_TEXT, "next", 4);
        assert_int_equal(host_expect(host, RW_EVENT_MESSAGE)->event.bytes, sizeof payload + (i == 1));
        host_expect_silence(host);
        resume(host, &open, 0);
        assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "next");
    }
    close_properly(host, peer);
    host_close(host);
}

static void after_the_close_of_this_side_nothing_pauses(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.flags = RW_BEHAVIOR_WANTS_PING, .close_timeout_ms = 5000});
    struct rw_event open;
    for (uint32_t i = 0; i < 2; i++) {
        struct peer *peer = peer_open_ws(host, 7, &open);
        resume(host, &open, WINDOW);
        host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_WS_CLOSE, .arg0 = 1000}, NULL, 0);
        if (i == 1) host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
        peer_expect_close_frame(host, peer, 1000);
        for (uint32_t k = 0; k < 10; k++) peer_send_frame(host, peer, FIN_PING, "a", 1);
        for (uint32_t k = 0; k < 10; k++) host_expect(host, RW_EVENT_PING);
        peer_send_frame(host, peer, FIN_CLOSE, "\x03\xE8", 2);
        assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1000);
    }
    host_close(host);
}

static void silence_ends_a_socket_and_pings_keep_it(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.idle_timeout_ms = 40000});
    host_behavior(host, 8, (struct rw_behavior){.idle_timeout_ms = 40000, .ping_interval_ms = 15000});
    struct rw_event silent, kept;
    struct peer *peer = peer_open_ws(host, 8, &kept);
    (void)peer_open_ws(host, 7, &silent);
    for (uint32_t i = 0; i < 4; i++) {
        host_pass_time(host, 17000);
        peer_expect_frame(host, peer, FIN_PING, "", 0);
        peer_send_frame(host, peer, FIN_PONG, "", 0);
    }
    struct record *closed = host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(closed->event.slot, silent.slot);
    assert_int_equal(closed->event.arg0, 1006);
    host_pass_time(host, 1000);
    assert_int_equal(host->core->stats->ws_pings_out, 4);
    assert_int_equal(host->core->stats->ws_pongs_in, 4);
    host_pass_time(host, 45000); /* pings that nobody answers do not keep it */
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.slot, kept.slot);
    assert_int_equal(host->core->stats->timeouts_idle, 2);
    host_close(host);
}

static void pings_that_fall_due_together_share_one_frame(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.idle_timeout_ms = 40000});
    host_behavior(host, 8, (struct rw_behavior){.idle_timeout_ms = 40000, .ping_interval_ms = 15000});
    struct peer *peers[8];
    struct rw_event open;
    for (uint32_t i = 0; i < 8; i++) peers[i] = peer_open_ws(host, 8, &open);
    uint64_t carved = rw_buffers_stats(host->core->buffers, 0).carved + rw_buffers_stats(host->core->buffers, 1).carved;
    host_pass_time(host, 17000);
    for (uint32_t i = 0; i < 8; i++) peer_expect_frame(host, peers[i], FIN_PING, "", 0);
    assert_int_equal(host->core->stats->ws_pings_out, 8);
    uint64_t after = rw_buffers_stats(host->core->buffers, 0).carved + rw_buffers_stats(host->core->buffers, 1).carved;
    assert_in_range(after, carved, carved + 1);
    host_close(host);
}

static void a_pause_does_not_lose_the_idle_timeout(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.idle_timeout_ms = 20000});
    struct rw_event open;
    (void)peer_open_ws(host, 7, &open);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PAUSE}, "", 0);
    host_pass_time(host, 60000);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_RESUME}, "", 0);
    host_pass_time(host, 10000); /* the clock begins anew */
    host_expect_silence(host);
    host_pass_time(host, 12000);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1006);
    host_close(host);
}

static void a_lifetime_ends_with_1000_and_an_unanswered_close_with_1006(void **state) {
    struct host *host = ws_host(state, (struct rw_behavior){.max_lifetime_ms = 20000, .close_timeout_ms = 5000});
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    host_pass_time(host, 10000);
    host_expect_silence(host);
    host_pass_time(host, 11000);
    peer_expect_frame(host, peer, FIN_CLOSE, "\x03\xE8please reconnect", 18);
    host_expect_silence(host);
    host_pass_time(host, 6000);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1006);
    peer_expect_end(host, peer);
    host_close(host);
}

/* As long as a config may say, which is longer than half of what the core's clock counts to before it begins anew. */
static void thirty_days_are_thirty_days(void **state) {
    enum { DAY_MS = 86400000 };
    const struct rw_behavior behaviors[] = {
        {.idle_timeout_ms = 30u * DAY_MS}, {.max_lifetime_ms = 30u * DAY_MS}, {.ping_interval_ms = 30u * DAY_MS}};
    for (size_t i = 0; i < sizeof behaviors / sizeof behaviors[0]; i++) {
        struct host *host = ws_host(state, behaviors[i]);
        struct rw_event open;
        struct peer *peer = peer_open_ws(host, 7, &open);
        for (uint32_t day = 0; day < 29; day++) {
            host->core->clock_start_ms -= DAY_MS;
            host_turns(host, 3);
        }
        host_expect_silence(host);
        peer_expect_silence(host, peer);
        host->core->clock_start_ms -= DAY_MS + 2000; /* pings wait for a whole second */
        host_turns(host, 3);
        if (behaviors[i].idle_timeout_ms)
            assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_IDLE);
        if (behaviors[i].max_lifetime_ms) peer_expect_frame(host, peer, FIN_CLOSE, "\x03\xE8please reconnect", 18);
        if (behaviors[i].ping_interval_ms) peer_expect_frame(host, peer, FIN_PING, "", 0);
        host_close(host);
    }
}

static void a_drain_closes_every_socket_with_its_code(void **state) {
    enum { PEERS = 20 };
    struct host *host = ws_host(state, PLAIN);
    struct rw_event open;
    struct peer *peers[PEERS];
    for (uint32_t i = 0; i < PEERS; i++) peers[i] = peer_open_ws(host, 7, &open);
    rw_core_drain(host->core, 1012, 100, 0);
    host_pass_time(host, 1000);
    for (uint32_t i = 0; i < PEERS; i++) {
        peer_expect_close_frame(host, peers[i], 1012);
        peer_send_frame(host, peers[i], FIN_CLOSE, "\x03\xF4", 2);
        assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1012);
        peer_expect_end(host, peers[i]);
    }
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_SIM(handshakes_that_are_not_quite_right_are_refused),
        ON_SIM(the_host_may_answer_a_handshake_with_a_plain_response),
        ON_SIM(a_client_that_speaks_http_1_0_is_told_why_it_gets_no_websocket),
        ON_SIM(upgrade_is_ignored_where_it_was_not_meant_for_us),
        ON_EVERY_RING(frames_sent_with_the_handshake_wait_for_the_open_event),
        ON_EVERY_RING(messages_of_every_length_form_come_back_as_they_went),
        ON_EVERY_RING(a_message_may_come_one_byte_at_a_time),
        ON_EVERY_RING(thousands_of_messages_at_once_overflow_the_batch_without_loss),
        ON_EVERY_RING(fragments_with_control_frames_between_make_one_message),
        ON_EVERY_RING(a_message_may_have_more_than_65536_fragments),
        ON_SIM(violations_close_with_the_code_of_the_rfc_at_the_first_bad_octet),
        ON_SIM(a_limit_lowered_while_a_message_comes_is_still_a_limit),
        ON_SIM(unread_pongs_are_bounded_and_pings_are_answered_again_later),
        ON_EVERY_RING(either_side_may_start_the_close_handshake),
        ON_SIM(a_close_while_the_batch_is_full_still_hears_the_answer),
        ON_SIM(a_reason_too_long_is_cut_between_characters),
        ON_EVERY_RING(a_peer_that_vanishes_is_reported_as_1006),
        ON_EVERY_RING(a_paused_socket_delivers_nothing_until_it_is_resumed),
        ON_EVERY_RING(a_window_lets_so_much_through_and_then_pauses),
        ON_EVERY_RING(a_window_counts_bytes_and_never_cuts_a_message),
        ON_EVERY_RING(after_the_close_of_this_side_nothing_pauses),
        ON_EVERY_RING(silence_ends_a_socket_and_pings_keep_it),
        ON_EVERY_RING(pings_that_fall_due_together_share_one_frame),
        ON_SIM(a_pause_does_not_lose_the_idle_timeout),
        ON_EVERY_RING(thirty_days_are_thirty_days),
        ON_EVERY_RING(a_lifetime_ends_with_1000_and_an_unanswered_close_with_1006),
        ON_EVERY_RING(a_drain_closes_every_socket_with_its_code),
    };
    return cmocka_run_group_tests_name("the core speaks WebSocket", tests, NULL, NULL);
}
