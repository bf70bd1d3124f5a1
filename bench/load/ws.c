/* The client's side of RFC 6455: handshake, masked frames out, frames in.
 *
 * Every message is the same text, except that 8 bytes of it (its first ones, or the first string of a JSON text) are
 * its number in hexadecimal: so a lost, repeated, reordered or damaged message is noticed, and a frame is made by
 * copying a template and patching 8 bytes. The mask is fixed, and not zero, so that the server has to unmask as it
 * would for anybody. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES 8u
#define JSON_BYTES_MIN 128u

/* The sample of RFC 6455 §1.3; the server cannot tell, and the answer is known. */
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char accept_value[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
static const uint8_t mask[4] = {0x37, 0xFA, 0x21, 0x3D};

struct handshake {
    char text[1024];
    size_t bytes;
};
static struct handshake handshake_of_all, handshake_of_publisher;
static uint8_t *pattern;  /* payload_bytes */
static uint8_t *template; /* one frame, masked */
static uint8_t *scratch;  /* in_flight frames */
static size_t header_bytes;
static size_t frame_bytes;
static uint32_t number_at; /* in the payload */
static uint32_t number_bytes;

static void number_digits(uint32_t number, uint8_t digits[NUMBER_BYTES]) {
    for (uint32_t i = 0; i < number_bytes; i++)
        digits[i] = (uint8_t)"0123456789abcdef"[number >> (4 * (number_bytes - 1 - i)) & 15];
}

static size_t put_header(uint8_t *out, uint8_t opcode, size_t len) {
    size_t at = 2;
    out[0] = (uint8_t)(0x80 | opcode);
    if (len < 126) {
        out[1] = (uint8_t)(0x80 | len);
    } else if (len <= UINT16_MAX) {
        out[1] = 0x80 | 126;
        out[at++] = (uint8_t)(len >> 8);
        out[at++] = (uint8_t)len;
    } else {
        out[1] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8) out[at++] = (uint8_t)((uint64_t)len >> shift);
    }
    memcpy(out + at, mask, sizeof mask);
    return at + sizeof mask;
}

/* A list of records, as an application would publish it, of exactly len bytes: keys repeat and values do not, so that
 * it compresses as such lists do. */
static void write_json(char *out, uint32_t len) {
    static const char begin[] = "{\"number\":\"00000000\",\"items\":[", end[] = "],\"note\":\"";
    uint32_t seed = 1; /* the same text in every run */
    if (len < JSON_BYTES_MIN) fail("--json needs a --payload of at least %u bytes", JSON_BYTES_MIN);
    const uint32_t limit = len - (uint32_t)sizeof end - 2u; /* `"}` comes last */
    uint32_t at = (uint32_t)snprintf(out, len, "%s", begin);
    for (;;) {
        char item[96];
        seed = seed * 1664525u + 1013904223u;
        const uint32_t bytes = (uint32_t)snprintf(
            item, sizeof item, "%s{\"id\":%u,\"symbol\":\"%c%c%c\",\"price\":%u.%02u,\"size\":%u}",
            at == sizeof begin - 1 ? "" : ",", seed >> 12, 'A' + (int)(seed >> 27) % 26, 'A' + (int)(seed >> 22) % 26,
            'A' + (int)(seed >> 17) % 26, (seed >> 8) % 1000u, (seed >> 16) % 100u, (seed >> 20) % 500u);
        if (at + bytes > limit) break;
        memcpy(out + at, item, bytes);
        at += bytes;
    }
    memcpy(out + at, end, sizeof end - 1);
    at += (uint32_t)sizeof end - 1;
    while (at < len - 2) out[at++] = '-';
    memcpy(out + at, "\"}", 2);
}

static void write_pattern(const struct options *options) {
    pattern = allocate(options->payload_bytes + 1u, 1);
    if (options->json) {
        number_at = sizeof "{\"number\":\"" - 1;
        write_json((char *)pattern, options->payload_bytes);
    } else {
        for (uint32_t i = 0; i < options->payload_bytes; i++) pattern[i] = (uint8_t)('a' + i % 23);
    }
    number_bytes = options->payload_bytes < NUMBER_BYTES ? options->payload_bytes : NUMBER_BYTES;
    if (options->socket_io) {
        const size_t begin = strlen(socket_io_begin), end = strlen(socket_io_end);
        if (options->payload_bytes < begin + NUMBER_BYTES + end)
            fail("--socket-io needs a --payload of at least %zu bytes", begin + NUMBER_BYTES + end);
        memcpy(pattern, socket_io_begin, begin);
        memcpy(pattern + options->payload_bytes - end, socket_io_end, end);
        number_at = (uint32_t)begin;
    }
}

static void write_handshake(struct handshake *handshake, const struct options *options, const char *path) {
    const int len = snprintf(
        handshake->text, sizeof handshake->text,
        "GET %s HTTP/1.1\r\nHost: %s:%u\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: %s\r\n%s\r\n",
        path, options->host, options->port, key, options->deflate ? deflate_offer : "");
    if (len < 0 || (size_t)len >= sizeof handshake->text) fail("--path is too long");
    handshake->bytes = (size_t)len;
}

void ws_prepare(struct load *load) {
    const struct options *options = &load->options;
    write_handshake(&handshake_of_all, options, options->path);
    write_handshake(&handshake_of_publisher, options,
                    options->publisher_path != NULL ? options->publisher_path : options->path);
    write_pattern(options);
    template = allocate(options->payload_bytes + 14u, 1);
    header_bytes = put_header(template, options->binary ? 2 : 1, options->payload_bytes);
    frame_bytes = header_bytes + options->payload_bytes;
    for (uint32_t i = 0; i < options->payload_bytes; i++) template[header_bytes + i] = pattern[i] ^ mask[i & 3];
    if ((uint64_t)frame_bytes * options->in_flight > (64u << 20)) fail("--payload times --in-flight is over 64 MiB");
    scratch = allocate(options->in_flight, frame_bytes);
}

void ws_connected(struct load *load, struct connection *connection) {
    /* Behind all subscribers: see ws-fanout. */
    const struct handshake *own = load->options.publisher_path != NULL && connection->index == load->options.connections
                                      ? &handshake_of_publisher
                                      : &handshake_of_all;
    net_send(load, connection, own->text, own->bytes);
}

void ws_send(struct load *load, struct connection *connection, uint32_t first, uint32_t count) {
    uint8_t digits[NUMBER_BYTES];
    uint8_t *out = scratch;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(out, template, frame_bytes);
        number_digits(first + i, digits);
        for (uint32_t d = 0; d < number_bytes; d++)
            out[header_bytes + number_at + d] = digits[d] ^ mask[(number_at + d) & 3];
        out += frame_bytes;
    }
    net_send(load, connection, scratch, (size_t)(out - scratch));
}

void ws_send_text(struct load *load, struct connection *connection, const char *text) {
    uint8_t frame[2 + sizeof mask + 125];
    const size_t len = strlen(text);
    if (len > 125) fail("a text of our own is too long");
    const size_t head = put_header(frame, 1, len);
    for (size_t i = 0; i < len; i++) frame[head + i] = (uint8_t)text[i] ^ mask[i & 3];
    net_send(load, connection, frame, head + len);
}

void ws_send_close(struct load *load, struct connection *connection, uint16_t code) {
    uint8_t frame[2 + sizeof mask + 2];
    const size_t head = put_header(frame, 8, 2);
    frame[head] = (uint8_t)(code >> 8) ^ mask[0];
    frame[head + 1] = (uint8_t)code ^ mask[1];
    net_send(load, connection, frame, head + 2);
}

size_t ws_handshake_answer(const uint8_t *bytes, size_t len, int *status) {
    const uint8_t *end = memmem(bytes, len, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    const size_t head = (size_t)(end - bytes) + 4;
    *status = head >= 12 && memcmp(bytes, "HTTP/1.1 ", 9) == 0 ? atoi((const char *)bytes + 9) : 0;
    return head;
}

/* ret: length of the answer's head; 0 when it is not complete, or the connection is another one now */
static size_t take_handshake(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    int status = 0;
    const size_t head = ws_handshake_answer(bytes, len, &status);
    if (head == 0) return 0;
    if (status == 409 && load->options.retry_refused) {
        net_reopen(load, connection);
        return 0;
    }
    if (status != 101) fail("the handshake was answered: %.*s", (int)(head < 80 ? head : 80), (const char *)bytes);
    if (memmem(bytes, head, accept_value, sizeof accept_value - 1) == NULL) fail("wrong Sec-WebSocket-Accept");
    if (load->options.deflate) deflate_check_answer(bytes, head);
    return head;
}

static void check_text(const struct connection *connection, const uint8_t *bytes, size_t position, size_t len) {
    if (memcmp(bytes, pattern + position, len) != 0)
        fail("connection %u: message %u is damaged", connection->index, connection->received);
}

void ws_check(const struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    const size_t position = connection->reader.ws.position;
    const size_t number_end = number_at + number_bytes;
    size_t at = 0;
    if (position + len > load->options.payload_bytes)
        fail("a message is longer than the %u bytes expected", load->options.payload_bytes);
    connection->reader.ws.position += len;
    if (position < number_at) {
        at = number_at - position < len ? number_at - position : len;
        check_text(connection, bytes, position, at);
    }
    if (position + at < number_end) {
        uint8_t digits[NUMBER_BYTES];
        number_digits(connection->received, digits);
        for (; at < len && position + at < number_end; at++)
            if (bytes[at] != digits[position + at - number_at])
                fail("connection %u: not message %u: lost, repeated or damaged", connection->index,
                     connection->received);
    }
    check_text(connection, bytes + at, position + at, len - at);
}

static void take_control(struct load *load, struct connection *connection, uint8_t opcode, const uint8_t *payload,
                         size_t len) {
    if (opcode == 8 && load->workload->ended != NULL) {
        connection->reader.ws.close_code = len >= 2 ? (uint16_t)(payload[0] << 8 | payload[1]) : 1005;
        load->workload->ended(load, connection);
        return;
    }
    if (opcode == 8)
        fail("the server closed connection %u with code %u", connection->index,
             len >= 2 ? payload[0] << 8 | payload[1] : 1005);
    if (opcode != 9) return;
    load->pings++;
    uint8_t pong[2 + sizeof mask + 125];
    const size_t head = put_header(pong, 10, len);
    for (size_t i = 0; i < len; i++) pong[head + i] = payload[i] ^ mask[i & 3];
    net_send(load, connection, pong, head + len);
}

/* Begin a frame at bytes[0..len). ret: bytes consumed (the whole frame when it is a control frame), 0 when more are
 * needed */
static size_t take_header(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    struct ws_reader *reader = &connection->reader.ws;
    if (len < 2) return 0;
    const uint8_t opcode = bytes[0] & 15;
    /* RFC 7692 §6.1: RSV1 is on the first frame of a compressed message, and on no other. */
    const uint8_t reserved = load->options.deflate && (opcode == 1 || opcode == 2) ? 0x40 : 0;
    size_t at = 2;
    uint64_t payload = bytes[1] & 127;
    if ((bytes[0] & 0x70) != reserved)
        fail(reserved == 0 ? "a frame with reserved bits" : "a message that is not compressed");
    if ((bytes[1] & 0x80) != 0) fail("a frame with a mask");
    if (payload >= 126) {
        at += payload == 126 ? 2 : 8;
        if (len < at) return 0;
        payload = 0;
        for (size_t i = 2; i < at; i++) payload = payload << 8 | bytes[i];
    }
    if (opcode >= 8) {
        if (payload > 125) fail("a control frame of %llu bytes", (unsigned long long)payload);
        if (len < at + payload) return 0;
        take_control(load, connection, opcode, bytes + at, (size_t)payload);
        return at + (size_t)payload;
    }
    if (load->options.socket_io && (connection->phase == PHASE_HANDSHAKE || payload == 1)) {
        if (len < at + payload) return 0;
        socket_io_take(load, connection, bytes + at, (size_t)payload);
        return at + (size_t)payload;
    }
    if (reader->in_message ? opcode != 0 : opcode != (load->options.binary ? 2 : 1))
        fail("a frame with opcode %u", opcode);
    reader->fin = bytes[0] >> 7;
    reader->remaining = payload;
    reader->in_frame = reader->in_message = 1;
    return at;
}

size_t ws_consume(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    struct ws_reader *reader = &connection->reader.ws;
    size_t at = 0;
    if (!reader->upgraded) {
        if ((at = take_handshake(load, connection, bytes, len)) == 0) return 0;
        reader->upgraded = 1;
        if (!load->options.socket_io) net_opened(load, connection);
    }
    while (at < len || reader->in_frame) {
        if (!reader->in_frame) {
            const size_t header = take_header(load, connection, bytes + at, len - at);
            if (header == 0) break;
            at += header;
            if (connection->phase == PHASE_CLOSED) return at;
            if (!reader->in_frame) continue;
        }
        const size_t part = reader->remaining < len - at ? (size_t)reader->remaining : len - at;
        if (load->stage == STAGE_MEASURING) load->payload_bytes += part;
        if (!load->options.deflate) ws_check(load, connection, bytes + at, part);
        else if (connection->received == 0) deflate_take(load, connection, bytes + at, part);
        at += part;
        reader->remaining -= part;
        if (reader->remaining > 0) break;
        reader->in_frame = 0;
        if (!reader->fin) continue;
        if (load->options.deflate && connection->received == 0) deflate_end(load, connection);
        if (reader->position != load->options.payload_bytes && !(load->options.deflate && connection->received > 0))
            fail("connection %u: message %u is too short", connection->index, connection->received);
        reader->in_message = 0;
        reader->position = 0;
        if (load->workload->message == NULL) fail("connection %u: a message that nobody asked for", connection->index);
        load->workload->message(load, connection);
        connection->received++;
    }
    return at;
}
