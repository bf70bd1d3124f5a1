/* The JSON dialect, see dialect.h. */
#include "base/base64.h"
#include "base/load.h"
#include "base/utf8.h"
#include "topics/dialect.h"
#include "topics/written.h"

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))
#define HIGH_BITS EACH_BYTE(0x80)

/* Has the word a byte that a JSON string escapes, or one that is not ASCII? Exact where all eight are ASCII, which is
 * what the last term says (RFC 8259 §7: quotation mark, reverse solidus, U+0000 to U+001F). */
static inline int is_special(uint64_t word) {
    uint64_t quote = word ^ EACH_BYTE('"');
    uint64_t solidus = word ^ EACH_BYTE('\\');
    return (((quote - EACH_BYTE(1)) | (solidus - EACH_BYTE(1)) | (word - EACH_BYTE(0x20)) | word) & HIGH_BITS) != 0;
}

static inline int is_plain(uint8_t byte, int foreign) {
    return byte >= 0x20 && byte != '"' && byte != '\\' && (byte < 0x80 || !foreign);
}

/* How many bytes from the front can be taken as they are. foreign: those that are not ASCII cannot */
static uint64_t plain_run(const uint8_t *bytes, uint64_t len, int foreign) {
    uint64_t at = 0;
    while (at < len) {
        if (len - at >= 8 && !is_special(rw_load_64(bytes + at))) at += 8;
        else if (is_plain(bytes[at], foreign)) at++;
        else break;
    }
    return at;
}

static void write_escaped(struct rw_written *written, uint8_t byte) {
    switch (byte) {
        case '"': RW_WRITE(written, "\\\""); break;
        case '\\': RW_WRITE(written, "\\\\"); break;
        case '\b': RW_WRITE(written, "\\b"); break;
        case '\f': RW_WRITE(written, "\\f"); break;
        case '\n': RW_WRITE(written, "\\n"); break;
        case '\r': RW_WRITE(written, "\\r"); break;
        case '\t': RW_WRITE(written, "\\t"); break;
        default:
            RW_WRITE(written, "\\u00");
            rw_write_hex(written, byte >> 4, 1);
            rw_write_hex(written, byte & 15, 1);
            break;
    }
}

/* One character that is not ASCII, or what there is of it. ret: bytes taken */
static uint64_t write_foreign(struct rw_written *written, const uint8_t *bytes, uint64_t len) {
    uint32_t state = RW_UTF8_ACCEPT;
    uint64_t taken = 0;
    do {
        state = rw_utf8_feed(state, bytes + taken, 1);
        if (state == RW_UTF8_REJECT) break; /* this byte may begin the next character, unless it is the first here */
        taken++;
    } while (state != RW_UTF8_ACCEPT && taken < len);
    if (state == RW_UTF8_ACCEPT) rw_write_bytes(written, bytes, taken);
    else RW_WRITE(written, "\xEF\xBF\xBD");
    return taken ? taken : 1;
}

static void write_string(struct rw_written *written, const uint8_t *bytes, uint64_t len) {
    int foreign = rw_utf8_feed(RW_UTF8_ACCEPT, bytes, (size_t)len) != RW_UTF8_ACCEPT;
    uint64_t at = 0;
    RW_WRITE(written, "\"");
    while (at < len) {
        uint64_t run = plain_run(bytes + at, len - at, foreign);
        rw_write_bytes(written, bytes + at, run);
        at += run;
        if (at == len) break;
        if (bytes[at] >= 0x80) at += write_foreign(written, bytes + at, len - at);
        else write_escaped(written, bytes[at++]);
    }
    RW_WRITE(written, "\"");
}

static void write_base64(struct rw_written *written, const uint8_t *bytes, uint64_t len) {
    RW_WRITE(written, "\"");
    if (written->out) rw_base64_encode(written->out + written->bytes, bytes, len);
    written->bytes += rw_base64_bytes(len);
    RW_WRITE(written, "\"");
}

/* JSON as the host made it. Between its values a line end is a space like any other (RFC 8259 §2), and the object is to be
 * one line. */
static void write_value(struct rw_written *written, const uint8_t *bytes, uint64_t len) {
    uint8_t *value = written->out ? written->out + written->bytes : NULL;
    rw_write_bytes(written, bytes, len);
    for (uint64_t i = 0; value && i < len; i++)
        if (value[i] == '\n' || value[i] == '\r') value[i] = ' ';
}

static void write_member(struct rw_written *written, const struct rw_topic_message *message) {
    if (message->event == RW_TOPIC_JOIN) RW_WRITE(written, "\"event\":\"join\",\"user\":");
    else RW_WRITE(written, "\"event\":\"leave\",\"user\":");
    write_string(written, message->user, message->user_bytes);
    if (!message->info_bytes) return;
    RW_WRITE(written, ",\"info\":");
    write_value(written, message->info, message->info_bytes);
}

uint64_t rw_json_message(uint8_t *out, const struct rw_topic_message *message) {
    struct rw_written written = {.out = out};
    RW_WRITE(&written, "{\"topic\":");
    write_string(&written, message->topic, message->topic_bytes);
    if (message->epoch) {
        RW_WRITE(&written, ",\"epoch\":\"");
        rw_write_hex(&written, message->epoch, 16);
        RW_WRITE(&written, "\",\"offset\":");
        rw_write_decimal(&written, message->offset);
    }
    RW_WRITE(&written, ",");
    switch ((enum rw_topic_event)message->event) {
        case RW_TOPIC_MESSAGE:
            if (message->is_text) {
                RW_WRITE(&written, "\"data\":");
                write_string(&written, message->payload, message->payload_bytes);
            } else {
                RW_WRITE(&written, "\"base64\":");
                write_base64(&written, message->payload, message->payload_bytes);
            }
            break;
        case RW_TOPIC_JOIN:
        case RW_TOPIC_LEAVE: write_member(&written, message); break;
        case RW_TOPIC_LOST:
            if (message->of_members) RW_WRITE(&written, "\"event\":\"presence\",");
            RW_WRITE(&written, "\"lost\":true");
            break;
    }
    RW_WRITE(&written, "}");
    return written.bytes;
}

uint64_t rw_json_string(uint8_t *out, const uint8_t *bytes, uint64_t len) {
    struct rw_written written = {.out = out};
    write_string(&written, bytes, len);
    return written.bytes;
}
