/* A client of the host that has agreed to permessage-deflate, for tests of the core as a whole. Joins core_fixture.h
 * (bytes, events) and deflate_peer.h (zlib). */
#ifndef RW_TEST_DEFLATE_CLIENT_H
#define RW_TEST_DEFLATE_CLIENT_H

#include "core_fixture.h"
#include "deflate_peer.h"

#include "ws/deflate.h"

#define RSV1_TEXT 0xC1
#define RSV1_BINARY 0xC2

/* A client: a peer of the host with zlib's streams for its messages. */
struct client {
    struct peer *peer;
    struct rw_event open;
    struct zlib_peer zlib;
};

FIXTURE uint32_t window_in(const char *head, const char *parameter) {
    const char *at = strstr(head, parameter);
    return at ? (uint32_t)strtoul(at + strlen(parameter), NULL, 10) : 15;
}

/* The handshake with this offer; the client then keeps to what was answered. */
FIXTURE void client_open(struct host *host, struct client *client, uint32_t behavior, const char *offer) {
    client->peer = peer_connect(host);
    peer_send_text(host, client->peer, WS_REQUEST);
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    host_answer(host, &request->event,
                (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = behavior, .arg1 = (uint32_t)strlen(offer)},
                offer, strlen(offer));
    client->open = host_expect(host, RW_EVENT_OPEN)->event;
    peer_expect_head(host, client->peer, 101);
    const char *head = client->peer->head;
    zlib_peer_begin(&client->zlib, (int)window_in(head, "client_max_window_bits="),
                    (int)window_in(head, "server_max_window_bits="));
    client->zlib.send_takeover = !strstr(head, "client_no_context_takeover");
    client->zlib.receive_takeover = !strstr(head, "server_no_context_takeover");
}

FIXTURE struct rw_slot_ws *ws_of(struct host *host, const struct client *client) {
    return rw_ws_of(rw_core_slot(host->core, client->open.slot));
}

FIXTURE void client_send(struct host *host, struct client *client, uint8_t first, const uint8_t *text, size_t bytes) {
    size_t deflated = zlib_peer_deflate(&client->zlib, text, bytes);
    peer_send_frame(host, client->peer, first, client->zlib.out, deflated);
}

/* The next frame of the server. out: *payload, in peer->in, consumed by the caller. ret: its first octet */
FIXTURE uint8_t next_frame(struct host *host, struct client *client, const uint8_t **payload, size_t *bytes) {
    struct peer *peer = client->peer;
    peer_wait_bytes(host, peer, 2);
    size_t header = 2;
    uint64_t length = peer->in[1];
    assert_in_range(length, 0, 127);
    if (length >= 126) {
        header = length == 126 ? 4 : 10;
        peer_wait_bytes(host, peer, header);
        length = 0;
        for (size_t i = 2; i < header; i++) length = length << 8 | peer->in[i];
    }
    peer_wait_bytes(host, peer, header + length);
    uint8_t first = peer->in[0];
    peer_consume(peer, header);
    *payload = peer->in;
    *bytes = length;
    return first;
}

/* A whole message, compressed or not as `first` says. */
FIXTURE void client_expect(struct host *host, struct client *client, uint8_t first, const void *text,
                           size_t text_bytes) {
    const uint8_t *payload;
    size_t bytes;
    assert_int_equal(next_frame(host, client, &payload, &bytes), first);
    if (first & 0x40) {
        zlib_peer_expect(&client->zlib, payload, bytes, text, text_bytes);
    } else {
        assert_int_equal(bytes, text_bytes);
        if (bytes) assert_memory_equal(payload, text, bytes);
    }
    peer_consume(client->peer, bytes);
}

FIXTURE void client_free(struct client *client) { zlib_peer_end(&client->zlib); }

FIXTURE void expect_message(struct host *host, const struct client *client, const void *text, size_t bytes,
                            uint32_t flags) {
    struct record *record = host_expect(host, RW_EVENT_MESSAGE);
    assert_int_equal(record->event.slot, client->open.slot);
    assert_int_equal(record->event.bytes, bytes);
    assert_int_equal(record->event.flags & RW_WS_BINARY, flags);
    if (bytes) assert_memory_equal(record->payload, text, bytes);
}

FIXTURE void expect_closed(struct host *host, struct client *client, uint32_t code, enum rw_close_cause cause) {
    const char *reason = "";
    if (cause == RW_CLOSE_INVALID_UTF8) reason = "text that is not UTF-8";
    if (cause == RW_CLOSE_INVALID_DEFLATE) reason = "a compressed message that does not inflate";
    if (cause == RW_CLOSE_INFLATE_WINDOWS) reason = "no memory is left for compressed messages, try again later";
    peer_expect_close_reason(host, client->peer, code, reason);
    struct record *closed = host_expect(host, RW_EVENT_CLOSE);
    assert_int_equal(closed->event.arg0, code);
    assert_int_equal(closed->event.arg1, cause);
    peer_expect_end(host, client->peer);
    host_expect_silence(host);
}

#endif
