/* What clients of WebSockets send and expect, see core_peer.h. */
#include "core_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ws/ws_frame.h"

size_t ws_client_frame(uint8_t *out, uint8_t first, const void *payload, size_t bytes) {
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint32_t header = rw_ws_encode_header(out, 2, 1, 0, bytes);
    out[0] = first;
    out[1] |= 0x80;
    memcpy(out + header, mask, 4);
    for (size_t i = 0; i < bytes; i++) out[header + 4 + i] = (uint8_t)(((const uint8_t *)payload)[i] ^ mask[i & 3]);
    return header + 4 + bytes;
}

void peer_send_frame(struct host *host, struct peer *peer, uint8_t first, const void *payload, size_t bytes) {
    uint8_t *frame = malloc(bytes + 14);
    assert_non_null(frame);
    peer_send(host, peer, frame, ws_client_frame(frame, first, payload, bytes));
    free(frame);
}

void peer_expect_frame(struct host *host, struct peer *peer, uint8_t first, const void *payload, size_t bytes) {
    uint8_t header[10];
    uint32_t header_bytes = rw_ws_encode_header(header, 2, 1, 0, bytes);
    header[0] = first;
    peer_expect(host, peer, header, header_bytes);
    if (bytes) peer_expect(host, peer, payload, bytes);
}

void peer_expect_close_reason(struct host *host, struct peer *peer, uint32_t code, const char *reason) {
    uint8_t payload[125] = {(uint8_t)(code >> 8), (uint8_t)code};
    memcpy(payload + 2, reason, strlen(reason));
    peer_expect_frame(host, peer, 0x88, payload, code ? 2 + strlen(reason) : 0);
}

void peer_expect_close_frame(struct host *host, struct peer *peer, uint32_t code) {
    peer_expect_close_reason(host, peer, code, code == 1007 ? "text that is not UTF-8" : "");
}

struct peer *peer_open_ws(struct host *host, uint32_t behavior, struct rw_event *open) {
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    assert_true(request->event.flags & RW_REQUEST_UPGRADE);
    host_answer(host, &request->event, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = behavior}, NULL, 0);
    struct record *record = host_expect(host, RW_EVENT_OPEN);
    assert_int_equal(record->event.arg0, behavior);
    *open = record->event;
    peer_expect_head(host, peer, 101);
    assert_true(peer_head_has(peer, "Sec-WebSocket-Accept: " WS_ACCEPT));
    return peer;
}
