/* Any topic, payload, user and position in both dialects: sizes are what is written, strings read back as a decoder would
 * show them, an event is one event, and its lines are those of the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../c/dialect_reader.h"
#include "fuzz_input.h"
#include "topics/dialect.h"

static uint8_t *allocate(size_t bytes) {
    uint8_t *room = malloc(bytes ? bytes : 1);
    CHECK(room != NULL);
    return room;
}

static void check_string(const uint8_t *bytes, size_t len) {
    struct dialect_text expected = {.bytes = allocate(3 * len)};
    struct dialect_text found = {.bytes = allocate(6 * len + 2)};
    const uint64_t counted = rw_json_string(NULL, bytes, len);
    uint8_t *out = allocate((size_t)counted);
    CHECK(rw_json_string(out, bytes, len) == counted);
    dialect_decode(&expected, bytes, len);
    CHECK(dialect_read_string(out, (size_t)counted, &found) == counted);
    CHECK(found.len == expected.len && memcmp(found.bytes, expected.bytes, expected.len) == 0);
    free(out);
    free(found.bytes);
    free(expected.bytes);
}

static void check_event(const struct rw_topic_message *message) {
    uint32_t head_bytes, again;
    const uint64_t counted = rw_sse_event(NULL, message, &head_bytes);
    uint8_t *out = allocate((size_t)counted);
    CHECK(rw_sse_event(out, message, &again) == counted && again == head_bytes);
    const size_t body = (size_t)counted - head_bytes - RW_SSE_TAIL_BYTES;
    CHECK(strtoull((const char *)out, NULL, 16) == body);
    CHECK(memcmp(out + head_bytes - 2, "\r\n", 2) == 0 && memcmp(out + counted - 2, "\r\n", 2) == 0);
    struct dialect_event event = {
        .data.bytes = allocate(body + 1), .name.bytes = allocate(body), .id.bytes = allocate(body)};
    CHECK(dialect_read_event(out + head_bytes, body, &event) == body);
    if (message->event == RW_TOPIC_MESSAGE && message->is_text) {
        uint8_t *lines = allocate((size_t)message->payload_bytes);
        size_t len = 0;
        for (size_t i = 0; i < message->payload_bytes; i++) {
            const uint8_t byte = message->payload[i];
            if (byte == '\r' && i + 1 < message->payload_bytes && message->payload[i + 1] == '\n') continue;
            lines[len++] = byte == '\r' ? '\n' : byte;
        }
        CHECK(event.data.len == len && memcmp(event.data.bytes, lines, len) == 0);
        CHECK(event.name.len == 0);
        free(lines);
    } else {
        CHECK(event.name.len > 0 && memchr(event.data.bytes, '\n', event.data.len) == NULL);
    }
    CHECK(event.has_id == (message->epoch != 0 && !message->of_members));
    free(event.data.bytes);
    free(event.name.bytes);
    free(event.id.bytes);
    free(out);
}

static void check_shared(const struct rw_topic_message *message) {
    const struct rw_sse_position position = {message->epoch, message->offset};
    const uint64_t counted = rw_sse_shared(NULL, message);
    const uint64_t front = rw_sse_front(NULL, &position, 1, counted, 1);
    uint8_t *out = allocate((size_t)(front + counted));
    CHECK(rw_sse_front(out, &position, 1, counted, 1) == front);
    CHECK(rw_sse_shared(out + front, message) == counted);
    char *end;
    const uint64_t body = strtoull((const char *)out, &end, 16);
    const size_t head_bytes = (size_t)((uint8_t *)end - out) + 2;
    CHECK(head_bytes + body + RW_SSE_TAIL_BYTES == front + counted);
    struct dialect_event event = {.data.bytes = allocate((size_t)body + 1),
                                  .name.bytes = allocate((size_t)body),
                                  .id.bytes = allocate((size_t)body)};
    CHECK(dialect_read_event(out + head_bytes, (size_t)body, &event) == body);
    CHECK(event.has_id && event.data.len == rw_json_message(NULL, message));
    free(event.data.bytes);
    free(event.name.bytes);
    free(event.id.bytes);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {.at = data, .end = data + size};
    struct rw_topic_message message = {.event = take(&input) & 3, .is_text = take(&input) & 1};
    message.of_members = message.event == RW_TOPIC_JOIN || message.event == RW_TOPIC_LEAVE ||
                         (message.event == RW_TOPIC_LOST && take(&input) & 1);
    message.epoch = (uint64_t)take(&input) << 56 | take(&input);
    message.offset = (uint64_t)take(&input) << 40 | take(&input);
    const size_t left = (size_t)(input.end - input.at);
    const size_t topic_bytes = left ? take(&input) % left : 0;
    /* copies, so that a read past an end is seen */
    const size_t rest = (size_t)(input.end - input.at) - topic_bytes;
    uint8_t *topic = allocate(topic_bytes);
    uint8_t *text = allocate(rest);
    if (topic_bytes) memcpy(topic, input.at, topic_bytes);
    if (rest) memcpy(text, input.at + topic_bytes, rest);
    message.topic = topic;
    message.topic_bytes = (uint32_t)topic_bytes;
    message.payload = message.user = text;
    message.payload_bytes = message.user_bytes = (uint32_t)rest;
    message.info = (const uint8_t *)"{\"a\":\n1}";
    message.info_bytes = message.is_text ? 8 : 0;
    check_string(text, rest);
    check_event(&message);
    check_shared(&message);
    free(topic);
    free(text);
    return 0;
}
