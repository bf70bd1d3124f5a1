/* HTTP heads and WebSocket frames, as little as is needed (RFC 6455 §4.2.2, §5.2). */
#include "floor.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define KEY_BYTES 24u
#define MASK_BYTES 4u

static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

static void answer_upgrade(struct request *request, const uint8_t *bytes) {
    static const char field[] = "sec-websocket-key:";
    uint8_t text[KEY_BYTES + sizeof guid - 1], digest[EVP_MAX_MD_SIZE], accept[64];
    unsigned digest_bytes = 0;
    const char *key = strcasestr((const char *)bytes, field);
    if (key == NULL) {
        request->kind = REQUEST_UNKNOWN;
        return;
    }
    key += sizeof field - 1;
    while (*key == ' ') key++;
    memcpy(text, key, KEY_BYTES);
    memcpy(text + KEY_BYTES, guid, sizeof guid - 1);
    EVP_Digest(text, sizeof text, digest, &digest_bytes, EVP_sha1(), NULL);
    EVP_EncodeBlock(accept, digest, (int)digest_bytes);
    request->answer_bytes = (size_t)snprintf(request->answer, sizeof request->answer,
                                             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                                             "Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                                             accept);
}

static void answer_text(struct request *request, const char *status, const char *body) {
    request->answer_bytes =
        (size_t)snprintf(request->answer, sizeof request->answer,
                         "HTTP/1.1 %s\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: %zu\r\n\r\n%s",
                         status, strlen(body), body);
}

void wire_request(const uint8_t *bytes, size_t len, struct request *request) {
    const uint8_t *end = memmem(bytes, len, "\r\n\r\n", 4);
    *request = (struct request){.kind = REQUEST_INCOMPLETE};
    if (end == NULL) return;
    char head[2048];
    request->head_bytes = (size_t)(end - bytes) + 4;
    request->kind = REQUEST_UNKNOWN;
    if (request->head_bytes + KEY_BYTES < sizeof head) {
        memset(head, 0, sizeof head);
        memcpy(head, bytes, request->head_bytes);
        if (sscanf(head, "GET %63s HTTP/1.1", request->path) == 1) {
            if (strcmp(request->path, "/hello") == 0) request->kind = REQUEST_HELLO;
            if (strcmp(request->path, "/echo") == 0) request->kind = REQUEST_ECHO;
            if (strncmp(request->path, "/room/", 6) == 0) request->kind = REQUEST_ROOM;
        }
    }
    if (request->kind == REQUEST_ECHO || request->kind == REQUEST_ROOM) answer_upgrade(request, (const uint8_t *)head);
    if (request->kind == REQUEST_HELLO) answer_text(request, "200 OK", "Hello from Ringway");
    if (request->kind == REQUEST_UNKNOWN) answer_text(request, "404 Not Found", "not served here\n");
}

static void unmask(uint8_t *to, const uint8_t *from, size_t len, const uint8_t mask[MASK_BYTES]) {
    uint64_t word, mask_word;
    size_t at = 0;
    memcpy(&mask_word, mask, MASK_BYTES);
    memcpy((uint8_t *)&mask_word + MASK_BYTES, mask, MASK_BYTES);
    /* `to` lies before `from`, so a word is read before it is overwritten. */
    for (; at + sizeof word <= len; at += sizeof word) {
        memcpy(&word, from + at, sizeof word);
        word ^= mask_word;
        memcpy(to + at, &word, sizeof word);
    }
    for (; at < len; at++) to[at] = from[at] ^ mask[at & 3];
}

struct frames wire_frames(uint8_t *bytes, size_t len) {
    struct frames frames = {0};
    while (len - frames.consumed >= 2 + MASK_BYTES) {
        const uint8_t *in = bytes + frames.consumed;
        const size_t left = len - frames.consumed;
        const uint8_t opcode = in[0] & 15;
        const size_t length_bytes = (in[1] & 127) == 126 ? 2 : 0;
        const size_t payload = length_bytes == 0 ? in[1] & 127u : (size_t)in[2] << 8 | in[3];
        const size_t head = 2 + length_bytes + MASK_BYTES;
        if ((in[1] & 128) == 0 || (in[1] & 127) == 127 || (in[0] & 0x70) != 0 || opcode == 8) {
            frames.closed = 1;
            return frames;
        }
        if (left < head + payload) return frames;
        uint8_t mask[MASK_BYTES];
        memcpy(mask, in + head - MASK_BYTES, MASK_BYTES);
        frames.consumed += head + payload;
        if (opcode == 10) continue;
        uint8_t *out = bytes + frames.bytes;
        const uint8_t first = opcode == 9 ? (uint8_t)(in[0] ^ 9 ^ 10) : in[0];
        unmask(out + 2 + length_bytes, in + head, payload, mask);
        out[0] = first;
        if (length_bytes > 0) {
            out[1] = 126;
            out[2] = (uint8_t)(payload >> 8);
            out[3] = (uint8_t)payload;
        } else {
            out[1] = (uint8_t)payload;
        }
        frames.bytes += 2 + length_bytes + payload;
    }
    return frames;
}
