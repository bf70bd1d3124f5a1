/* What clients of HTTP expect, see core_peer.h. */
#include "core_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t peer_content_length(const char *head) {
    const char *field = strstr(head, "\r\nContent-Length: ");
    return field ? strtoull(field + 18, NULL, 10) : 0;
}

void peer_expect_head(struct host *host, struct peer *peer, uint32_t status) {
    const uint8_t *end = NULL;
    peer_pull(host, peer);
    for (uint32_t turn = 0; turn < TURNS_MAX; turn++) {
        end = peer->in_bytes ? memmem(peer->in, peer->in_bytes, "\r\n\r\n", 4) : NULL;
        if (end || peer->ended) break;
        host_turn(host);
        peer_pull(host, peer);
    }
    assert_non_null(end);
    size_t bytes = (size_t)(end - peer->in) + 4;
    assert_in_range(bytes, 16, sizeof peer->head - 1);
    memcpy(peer->head, peer->in, bytes);
    peer->head[bytes] = 0;
    peer_consume(peer, bytes);
    assert_memory_equal(peer->head, "HTTP/1.1 ", 9);
    assert_int_equal(strtoul(peer->head + 9, NULL, 10), status);
}

void peer_expect_response(struct host *host, struct peer *peer, uint32_t status, const char *body) {
    peer_expect_head(host, peer, status);
    assert_int_equal(peer_content_length(peer->head), strlen(body));
    peer_expect_text(host, peer, body);
}

int peer_head_has(const struct peer *peer, const char *line) {
    char wanted[256];
    snprintf(wanted, sizeof wanted, "\r\n%s\r\n", line);
    return strstr(peer->head, wanted) != NULL;
}
