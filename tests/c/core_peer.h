/* Clients of a host (core_host.h), for tests of the core as a whole: a virtual descriptor of the simulated ring, or a
 * TCP socket on loopback, so that the same test runs on every backend. */
#ifndef CORE_PEER_H
#define CORE_PEER_H

#include "core_host.h"

#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455 §1.3 */
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define WS_REQUEST                                                                                        \
    "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: " \
    "13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"

#define FIN_TEXT 0x81
#define FIN_BINARY 0x82
#define FIN_CLOSE 0x88
#define FIN_PING 0x89
#define FIN_PONG 0x8A

/* source: the IPv4 address it comes from, or NULL: any, and on the simulated ring none */
struct peer *peer_connect_as(struct host *host, int receive_buffer, const char *source);
struct peer *peer_connect_to(struct host *host, int receive_buffer);
struct peer *peer_connect(struct host *host);
/* All of it, with turns in between when the socket is full. */
void peer_send(struct host *host, struct peer *peer, const void *bytes, size_t count);
void peer_send_text(struct host *host, struct peer *peer, const char *text);
/* 65536 bytes behind what has come. */
void peer_make_room(struct peer *peer);
/* What has come is put behind peer->in. */
void peer_pull(struct host *host, struct peer *peer);
void peer_wait_bytes(struct host *host, struct peer *peer, size_t count);
void peer_consume(struct peer *peer, size_t count);
void peer_expect(struct host *host, struct peer *peer, const void *bytes, size_t count);
void peer_expect_text(struct host *host, struct peer *peer, const char *text);
/* Nothing more comes in a good number of turns. */
void peer_expect_silence(struct host *host, struct peer *peer);
void peer_shutdown(struct host *host, struct peer *peer);
/* Gone: a reset for the simulated peer, close(2) for the real one. */
void peer_close(struct host *host, struct peer *peer);
/* Gone, with a request that is not answered: the FIN of the real one alone does not tell, and the host gives it up. */
void peer_leave(struct host *host, struct peer *peer);
/* The core ends the connection: whoever reads gets its end. A simulated peer has no way to see the half-close, so it
 * answers with its own end of stream, as a client does. */
void peer_expect_end(struct host *host, struct peer *peer);

/* ---------------------------------------------------------------- HTTP: core_peer_http.c */

uint64_t peer_content_length(const char *head);
/* A response head, put into peer->head with a NUL. */
void peer_expect_head(struct host *host, struct peer *peer, uint32_t status);
void peer_expect_response(struct host *host, struct peer *peer, uint32_t status, const char *body);
int peer_head_has(const struct peer *peer, const char *line);

/* ---------------------------------------------------------------- WebSocket: core_peer_ws.c */

/* A client frame at out[0..14 + bytes). first: its first octet. ret: its length */
size_t ws_client_frame(uint8_t *out, uint8_t first, const void *payload, size_t bytes);
void peer_send_frame(struct host *host, struct peer *peer, uint8_t first, const void *payload, size_t bytes);
/* A server frame with this first octet and payload. */
void peer_expect_frame(struct host *host, struct peer *peer, uint8_t first, const void *payload, size_t bytes);
void peer_expect_close_reason(struct host *host, struct peer *peer, uint32_t code, const char *reason);
void peer_expect_close_frame(struct host *host, struct peer *peer, uint32_t code);
/* A connection whose handshake is done. out: *open, the event, by which the host names it */
struct peer *peer_open_ws(struct host *host, uint32_t behavior, struct rw_event *open);

#endif
