/* The HTTP workloads.
 *
 *   http        keep-alive; in_flight requests pipelined per connection, each answer followed by the next request
 *   http-churn  connect, one request with `Connection: close`, read to the end, again; `connections` of them at once
 *
 * Every answer must be 200 with a whole body of the same length as the first one. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a head says. The last one is kept: most answers repeat it to the byte for a second (Date), and a memcmp(3)
 * tells. */
struct head {
    uint64_t content_length;
    int chunked;
    int sized;
    size_t bytes;
    char text[2048];
};

static char *requests; /* in_flight of them, one after another */
static size_t request_bytes;
static struct head last_head;
static uint64_t expected_body_bytes = UINT64_MAX; /* not known before the first answer */

static void prepare(struct load *load, const char *connection_header) {
    const struct options *options = &load->options;
    char request[1024];
    const int len = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%u\r\n%s\r\n", options->path,
                             options->host, options->port, connection_header);
    if (len < 0 || (size_t)len >= sizeof request) fail("--path is too long");
    request_bytes = (size_t)len;
    requests = allocate(options->in_flight, request_bytes);
    for (uint32_t i = 0; i < options->in_flight; i++) memcpy(requests + i * request_bytes, request, request_bytes);
    for (uint32_t i = 0; i < load->connection_count; i++)
        load->connections[i].sent_at = allocate(options->in_flight, sizeof(uint64_t));
}

static void send_requests(struct load *load, struct connection *connection, uint32_t count, uint64_t since_ns) {
    for (uint32_t i = 0; i < count; i++)
        connection->sent_at[(connection->sent + i) % load->options.in_flight] = since_ns;
    net_send(load, connection, requests, count * request_bytes);
    connection->sent += count;
}

/* ------------------------------------------------------------------ reading answers */

/* Is this line the field `name` (in lower case, with its colon)? ret: where its value begins, or NULL */
static const char *field_value(const char *line, size_t len, const char *name) {
    const size_t name_bytes = strlen(name);
    if (len < name_bytes || strncasecmp(line, name, name_bytes) != 0) return NULL;
    const char *value = line + name_bytes;
    while (value < line + len && *value == ' ') value++;
    return value;
}

static void parse_head(const uint8_t *bytes, size_t len, struct head *head) {
    const char *line = (const char *)bytes;
    const char *end = line + len - 2; /* the empty line */
    if (len < 17 || memcmp(line, "HTTP/1.1 200", 12) != 0) fail("answered: %.*s", (int)(len < 60 ? len : 60), line);
    head->sized = head->chunked = 0;
    while (line < end) {
        const char *next = memmem(line, (size_t)(end - line), "\r\n", 2);
        const size_t line_bytes = (size_t)(next - line);
        const char *value = field_value(line, line_bytes, "content-length:");
        if (value != NULL) {
            char *stopped;
            head->sized = 1;
            head->content_length = strtoull(value, &stopped, 10);
            if (stopped == value || *stopped != '\r') fail("a Content-Length that is no number");
        }
        value = field_value(line, line_bytes, "transfer-encoding:");
        if (value != NULL) head->chunked = strncasecmp(value, "chunked", 7) == 0;
        line = next + 2;
    }
    if (head->sized && head->chunked) fail("both Content-Length and chunked");
    head->bytes = len <= sizeof head->text ? len : 0;
    memcpy(head->text, bytes, head->bytes);
}

/* ret: bytes of the head, 0 when it is not complete */
static size_t take_head(const struct load *load, struct http_reader *reader, const uint8_t *bytes, size_t len) {
    size_t head_bytes = last_head.bytes;
    if (head_bytes == 0 || len < head_bytes || memcmp(bytes, last_head.text, head_bytes) != 0) {
        const uint8_t *end = memmem(bytes, len, "\r\n\r\n", 4);
        if (end == NULL) return 0;
        head_bytes = (size_t)(end - bytes) + 4;
        parse_head(bytes, head_bytes, &last_head);
    }
    if (!last_head.chunked && !last_head.sized && load->workload != &workload_http_churn)
        fail("an answer whose length is not given");
    reader->body_bytes = 0;
    reader->remaining = last_head.content_length;
    reader->state = last_head.chunked ? HTTP_CHUNK_SIZE : last_head.sized ? HTTP_SIZED : HTTP_UNTIL_CLOSE;
    return head_bytes;
}

/* The line at bytes[0..len). ret: its length with CRLF, 0 when it is not complete */
static size_t take_line(const uint8_t *bytes, size_t len) {
    const uint8_t *end = memmem(bytes, len, "\r\n", 2);
    if (end == NULL && len > 1024) fail("a chunk line without an end");
    return end == NULL ? 0 : (size_t)(end - bytes) + 2;
}

static size_t take_chunk_size(struct http_reader *reader, const uint8_t *bytes, size_t len) {
    const size_t line = take_line(bytes, len);
    if (line == 0) return 0;
    char *stopped;
    reader->remaining = strtoull((const char *)bytes, &stopped, 16);
    if ((const uint8_t *)stopped == bytes || (*stopped != '\r' && *stopped != ';'))
        fail("a chunk size that is no number");
    reader->state = reader->remaining > 0 ? HTTP_CHUNK_DATA : HTTP_TRAILER;
    return line;
}

static void complete(struct load *load, struct connection *connection) {
    struct http_reader *reader = &connection->reader.http;
    if (expected_body_bytes == UINT64_MAX) expected_body_bytes = reader->body_bytes;
    if (reader->body_bytes != expected_body_bytes)
        fail("a body of %llu bytes, after one of %llu", (unsigned long long)reader->body_bytes,
             (unsigned long long)expected_body_bytes);
    if (connection->received == connection->sent) fail("an answer that nobody asked for");
    latency_add(load, load->now - connection->sent_at[connection->received % load->options.in_flight]);
    load->messages += load->stage == STAGE_MEASURING;
    load->outstanding -= load->options.rate > 0;
    load->progress_at = load->now;
    connection->received++;
    reader->state = HTTP_HEAD;
}

static size_t take_data(struct http_reader *reader, size_t len) {
    const size_t part = reader->state == HTTP_UNTIL_CLOSE || reader->remaining > len ? len : (size_t)reader->remaining;
    reader->body_bytes += part;
    if (reader->state != HTTP_UNTIL_CLOSE) reader->remaining -= part;
    return part;
}

/* One step of an answer at bytes[0..len). *done: the answer is complete. ret: bytes consumed; 0 and not done: more are
 * needed */
static size_t step(const struct load *load, struct http_reader *reader, const uint8_t *bytes, size_t len, int *done) {
    size_t used = 0;
    switch (reader->state) {
        case HTTP_HEAD:
            used = take_head(load, reader, bytes, len);
            *done = used > 0 && reader->state == HTTP_SIZED && reader->remaining == 0;
            return used;
        case HTTP_SIZED:
            used = take_data(reader, len);
            *done = reader->remaining == 0;
            return used;
        case HTTP_UNTIL_CLOSE: return take_data(reader, len);
        case HTTP_CHUNK_SIZE: return take_chunk_size(reader, bytes, len);
        case HTTP_CHUNK_DATA:
            used = take_data(reader, len);
            if (reader->remaining == 0) reader->state = HTTP_CHUNK_END;
            return used;
        case HTTP_CHUNK_END:
            if (len < 2) return 0;
            if (bytes[0] != '\r' || bytes[1] != '\n') fail("a chunk that does not end where it said");
            reader->state = HTTP_CHUNK_SIZE;
            return 2;
        case HTTP_TRAILER:
            used = take_line(bytes, len);
            *done = used == 2;
            return used;
    }
    return 0;
}

static size_t consume(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    size_t at = 0;
    while (at < len) {
        int done = 0;
        const size_t used = step(load, &connection->reader.http, bytes + at, len - at, &done);
        at += used;
        if (done) complete(load, connection);
        else if (used == 0) break;
    }
    return at;
}

/* ------------------------------------------------------------------ keep-alive */

static void keep_alive_prepare(struct load *load) { prepare(load, ""); }

static void keep_alive_begin(struct load *load) {
    for (uint32_t i = 0; i < load->connection_count; i++) {
        load->now = clock_now();
        send_requests(load, &load->connections[i], load->options.in_flight, load->now);
    }
}

static size_t keep_alive_consume(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    const size_t consumed = consume(load, connection, bytes, len);
    const uint32_t outstanding = connection->sent - connection->received;
    if (load->options.rate == 0 && load->stage >= STAGE_WARMUP && outstanding < load->options.in_flight)
        send_requests(load, connection, load->options.in_flight - outstanding, load->now);
    return consumed;
}

static void http_report(const struct load *load) {
    (void)load;
    printf(",\"body_bytes\":%llu", (unsigned long long)expected_body_bytes);
}

const struct workload workload_http = {
    .name = "http",
    .prepare = keep_alive_prepare,
    .connected = net_opened,
    .consume = keep_alive_consume,
    .begin = keep_alive_begin,
    .send = send_requests,
    .report = http_report,
};

/* ------------------------------------------------------------------ churn */

static void churn_prepare(struct load *load) {
    if (load->options.in_flight != 1) fail("http-churn sends one request per connection");
    prepare(load, "Connection: close\r\n");
}

static void churn_connected(struct load *load, struct connection *connection) {
    net_opened(load, connection);
    /* else its time began before connect(2): see churn_again() */
    if (connection->sent_at[0] == 0) connection->sent_at[0] = load->now;
    net_send(load, connection, requests, request_bytes);
    connection->sent++;
}

static void churn_again(struct load *load, struct connection *connection) {
    connection->sent_at[0] = clock_now();
    net_reopen(load, connection);
}

static void churn_begin(struct load *load) { (void)load; /* it goes on by itself from the first connection on */ }

/* The server closes first, as it was asked to: so the lingering end of the connection is its own, and no port of ours
 * is used up. */
static void churn_ended(struct load *load, struct connection *connection) {
    if (connection->reader.http.state == HTTP_UNTIL_CLOSE) complete(load, connection);
    if (connection->received != connection->sent)
        fail("the server closed connection %u before its answer was complete", connection->index);
    churn_again(load, connection);
}

const struct workload workload_http_churn = {
    .name = "http-churn",
    .prepare = churn_prepare,
    .connected = churn_connected,
    .consume = consume,
    .ended = churn_ended,
    .begin = churn_begin,
    .report = http_report,
    .sources = 1,
};
