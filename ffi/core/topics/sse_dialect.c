/* Server-sent events, see dialect.h. A size line is written once the size is known: the event is counted first, which is
 * cheap beside sending it to anyone. */
#include "base/base64.h"
#include "base/http_chars.h"
#include "topics/dialect.h"
#include "topics/written.h"

static void write_position(struct rw_written *written, uint64_t epoch, uint64_t offset) {
    rw_write_hex(written, epoch, 16);
    RW_WRITE(written, ":");
    rw_write_decimal(written, offset);
}

uint64_t rw_position_text(uint8_t *out, uint64_t epoch, uint64_t offset) {
    struct rw_written written = {.out = out};
    write_position(&written, epoch, offset);
    return written.bytes;
}

/* ret: how many bytes there are before the next CR or LF, or the end */
static uint64_t line_bytes(const uint8_t *bytes, uint64_t len) {
    size_t at = 0;
    while (at < len) {
        at = rw_http_find_control(bytes, at, (size_t)len);
        if (at == len || bytes[at] == '\r' || bytes[at] == '\n') break;
        at++;
    }
    return at;
}

/* A field for each line: a client joins them by LF again. An empty text is one empty line, which is an event as well. */
static void write_lines(struct rw_written *written, const uint8_t *bytes, uint64_t len) {
    for (;;) {
        uint64_t line = line_bytes(bytes, len);
        /* With the space always: a client takes one away, and a line may begin with one. */
        RW_WRITE(written, "data: ");
        rw_write_bytes(written, bytes, line);
        RW_WRITE(written, "\n");
        if (line == len) return;
        uint64_t end = bytes[line] == '\r' && len - line > 1 && bytes[line + 1] == '\n' ? 2 : 1;
        bytes += line + end;
        len -= line + end;
    }
}

static void write_base64(struct rw_written *written, const struct rw_topic_message *message) {
    RW_WRITE(written, "event: base64\ndata: ");
    if (written->out) rw_base64_encode(written->out + written->bytes, message->payload, message->payload_bytes);
    written->bytes += rw_base64_bytes(message->payload_bytes);
    RW_WRITE(written, "\n");
}

static void write_object(struct rw_written *written, const struct rw_topic_message *message) {
    RW_WRITE(written, "data: ");
    written->bytes += rw_json_message(written->out ? written->out + written->bytes : NULL, message);
    RW_WRITE(written, "\n");
}

static void write_event_name(struct rw_written *written, const struct rw_topic_message *message) {
    switch ((enum rw_topic_event)message->event) {
        case RW_TOPIC_MESSAGE: break;
        case RW_TOPIC_JOIN: RW_WRITE(written, "event: join\n"); break;
        case RW_TOPIC_LEAVE: RW_WRITE(written, "event: leave\n"); break;
        case RW_TOPIC_LOST: RW_WRITE(written, "event: lost\n"); break;
    }
}

/* What is of members has no id: a stream that comes back begins with who is there, and must not name its place in a log
 * that it did not ask for. */
static int has_id(const struct rw_topic_message *message) { return message->epoch && !message->of_members; }

static void write_event(struct rw_written *written, const struct rw_topic_message *message) {
    if (has_id(message)) {
        RW_WRITE(written, "id: ");
        write_position(written, message->epoch, message->offset);
        RW_WRITE(written, "\n");
    }
    if (message->event == RW_TOPIC_MESSAGE && !message->is_text) {
        write_base64(written, message);
    } else if (message->event == RW_TOPIC_MESSAGE) {
        write_lines(written, message->payload, message->payload_bytes);
    } else {
        write_event_name(written, message);
        write_object(written, message);
    }
    RW_WRITE(written, "\n");
}

static void write_size_line(struct rw_written *written, uint64_t bytes) {
    rw_write_hex(written, bytes, 1);
    RW_WRITE(written, "\r\n");
}

uint64_t rw_sse_event(uint8_t *out, const struct rw_topic_message *message, uint32_t *head_bytes) {
    struct rw_written event = {.out = NULL};
    write_event(&event, message);
    struct rw_written written = {.out = out};
    write_size_line(&written, event.bytes);
    *head_bytes = (uint32_t)written.bytes;
    if (out) write_event(&written, message);
    else written.bytes += event.bytes;
    RW_WRITE(&written, "\r\n");
    return written.bytes;
}

uint64_t rw_sse_shared(uint8_t *out, const struct rw_topic_message *message) {
    struct rw_written written = {.out = out};
    write_event_name(&written, message);
    write_object(&written, message);
    RW_WRITE(&written, "\n\r\n");
    return written.bytes;
}

uint64_t rw_sse_front(uint8_t *out, const struct rw_sse_position *positions, uint32_t count, uint64_t shared_bytes,
                      int chunked) {
    uint64_t id_bytes = 0;
    struct rw_written written = {.out = NULL};
    /* The size line names how many bytes follow it, so the id is counted in a first round. */
    for (int round = 0; round < 2; round++) {
        written = (struct rw_written){.out = round ? out : NULL};
        if (round && chunked) write_size_line(&written, id_bytes + shared_bytes - RW_SSE_TAIL_BYTES);
        if (count) RW_WRITE(&written, "id: ");
        for (uint32_t i = 0; i < count; i++) {
            if (i) RW_WRITE(&written, ",");
            if (positions[i].epoch) write_position(&written, positions[i].epoch, positions[i].offset);
            else RW_WRITE(&written, "-");
        }
        if (count) RW_WRITE(&written, "\n");
        id_bytes = written.bytes;
    }
    return written.bytes;
}
