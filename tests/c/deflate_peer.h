/* A peer that speaks permessage-deflate with zlib alone (RFC 7692 §7.2), and text for it to carry. For deflate_test.c
 * and core_deflate_test.c. */
#ifndef RW_TEST_DEFLATE_PEER_H
#define RW_TEST_DEFLATE_PEER_H

#define ZLIB_CONST
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#define ZLIB_PEER static __attribute__((unused))

/* rw_behavior.deflate */
#define SHARED_COMPRESSOR 0x001u
#define SHARED_DECOMPRESSOR 0x100u
#define COMPRESSOR(window, memory) ((window) << 4 | (memory))
#define DECOMPRESSOR(window) ((window) << 8)
#define SHARED (SHARED_COMPRESSOR | SHARED_DECOMPRESSOR)
#define DEDICATED (COMPRESSOR(15u, 8u) | DECOMPRESSOR(15u))
#define ONLY_OFFERED 0x1000u
/* What a gateway's routes have: messages of ours on their own, those of clients as they come. */
#define SHARED_OUT (SHARED_COMPRESSOR | DECOMPRESSOR(15u) | ONLY_OFFERED)
#define BROWSER "permessage-deflate; client_max_window_bits"

struct zlib_peer {
    z_stream deflater, inflater;
    int send_takeover, receive_takeover;
    uint8_t *out;
    size_t capacity;
};

ZLIB_PEER void zlib_peer_begin(struct zlib_peer *peer, int send_window, int receive_window) {
    *peer = (struct zlib_peer){.send_takeover = 1, .receive_takeover = 1, .capacity = 8u << 20};
    assert_int_equal(deflateInit2(&peer->deflater, 6, Z_DEFLATED, -send_window, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(inflateInit2(&peer->inflater, -receive_window), Z_OK);
    peer->out = malloc(peer->capacity);
    assert_non_null(peer->out);
}

ZLIB_PEER void zlib_peer_end(struct zlib_peer *peer) {
    deflateEnd(&peer->deflater);
    inflateEnd(&peer->inflater);
    free(peer->out);
}

/* RFC 7692 §7.2.1 */
ZLIB_PEER size_t zlib_peer_deflate(struct zlib_peer *peer, const void *data, size_t bytes) {
    if (!peer->send_takeover) deflateReset(&peer->deflater);
    peer->deflater.next_in = data;
    peer->deflater.avail_in = (uInt)bytes;
    peer->deflater.next_out = peer->out;
    peer->deflater.avail_out = (uInt)peer->capacity;
    assert_int_equal(deflate(&peer->deflater, Z_SYNC_FLUSH), Z_OK);
    size_t written = peer->capacity - peer->deflater.avail_out;
    assert_true(written >= 5 && peer->deflater.avail_in == 0);
    return written - 4;
}

/* RFC 7692 §7.2.2. The message is then at peer->out. ret: its length */
ZLIB_PEER size_t zlib_peer_inflate(struct zlib_peer *peer, const void *data, size_t bytes) {
    static const uint8_t tail[4] = {0, 0, 0xFF, 0xFF};
    if (!peer->receive_takeover) inflateReset(&peer->inflater);
    peer->inflater.next_out = peer->out;
    peer->inflater.avail_out = (uInt)peer->capacity;
    peer->inflater.next_in = data;
    peer->inflater.avail_in = (uInt)bytes;
    int result = inflate(&peer->inflater, Z_SYNC_FLUSH);
    assert_true(result == Z_OK || result == Z_BUF_ERROR);
    peer->inflater.next_in = tail;
    peer->inflater.avail_in = 4;
    result = inflate(&peer->inflater, Z_SYNC_FLUSH);
    assert_true(result == Z_OK || result == Z_BUF_ERROR);
    assert_int_equal(peer->inflater.avail_in, 0);
    return peer->capacity - peer->inflater.avail_out;
}

ZLIB_PEER void zlib_peer_expect(struct zlib_peer *peer, const void *data, size_t bytes, const void *expected,
                                size_t expected_bytes) {
    assert_int_equal(zlib_peer_inflate(peer, data, bytes), expected_bytes);
    if (expected_bytes) assert_memory_equal(peer->out, expected, expected_bytes);
}

/* Text that compresses about as JSON does, different for each seed but with words in common. */
ZLIB_PEER void fill_text(uint8_t *out, size_t bytes, uint32_t seed) {
    static const char *const words[] = {"{\"id\":", "\"name\":\"", "\"price\":", "true",          "false",
                                        "\"},",     "null",        "\"user-",    "updated_at\":", "[]"};
    size_t at = 0;
    while (at < bytes) {
        seed = seed * 1103515245u + 12345u;
        char part[32];
        int count = snprintf(part, sizeof part, "%s%u", words[(seed >> 16) % 10], (seed >> 8) % 1000);
        for (int i = 0; i < count && at < bytes; i++) out[at++] = (uint8_t)part[i];
    }
}

#endif
