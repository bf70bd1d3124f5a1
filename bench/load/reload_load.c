/* What clients notice while a server is replaced under them. Nothing that goes wrong ends the run: it is counted by
 * kind.
 *
 *   [0 .. connections)          WebSockets that are held; one that the server closes comes back at once
 *   [.. + http_connections)     kept-alive connections, one request in flight; one that the server ends comes back at
 *   once
 *   [.. + SPARE)                WebSockets that come at a steady rate: open, one echo, close
 *
 * A Close frame, an answer with `Connection: close`, and the end of a connection on which nothing is asked for are
 * proper ends (RFC 6455 §7.1.2, RFC 9112 §9.6). All else is a failure. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPARE 3000u
#define PATIENCE_NS (5ull * 1000000000) /* for a connection to open, an answer, an echo, a close */
#define RETRY_NS 20000000u
#define PATIENCE_CHECK_NS 250000000u

enum role { ROLE_HELD, ROLE_HTTP, ROLE_VISITOR };

struct client {
    uint64_t waits_since; /* for whatever comes next; 0: for nothing */
    uint64_t due;         /* closed: when to connect; HTTP, open: when to ask; 0: not by itself */
};

static struct client *clients;
static char request[1024];
static size_t request_bytes;
static uint64_t next_visit, next_check;

static struct {
    uint64_t opened, visits, requests, reconnected, http_ended, closed_going_away, closed_restart, closed_other;
    /* failures */
    uint64_t connects, handshakes, echoes, lost_requests, cut, timeouts;
} counts;

static enum role role_of(const struct load *load, const struct connection *connection) {
    const uint32_t held = load->options.connections;
    if (connection->index < held) return ROLE_HELD;
    return connection->index < held + load->options.http_connections ? ROLE_HTTP : ROLE_VISITOR;
}

static struct client *client_of(const struct connection *connection) { return &clients[connection->index]; }

static void prepare(struct load *load) {
    ws_prepare(load);
    clients = allocate(load->connection_count + SPARE, sizeof *clients);
    const int len = snprintf(request, sizeof request, "GET /hello HTTP/1.1\r\nHost: %s:%u\r\n\r\n", load->options.host,
                             load->options.port);
    request_bytes = (size_t)len;
}

/* ------------------------------------------------------------------ opening and ending */

static void open_again(struct load *load, struct connection *connection) {
    connection->sent = connection->received = 0;
    client_of(connection)->due = 0;
    client_of(connection)->waits_since = load->now;
    net_open(load, connection);
}

/* `delay_ns`: until it comes back. Visitors do not. */
static void leave(struct load *load, struct connection *connection, uint64_t delay_ns) {
    if (load->stage < STAGE_WARMUP) fail("connection %u ended before the load began", connection->index);
    net_close(load, connection);
    client_of(connection)->waits_since = 0;
    client_of(connection)->due = role_of(load, connection) == ROLE_VISITOR ? 0 : load->now + delay_ns;
}

/* It has ended without a word that says so. */
static void count_failure(const struct load *load, const struct connection *connection) {
    const struct client *client = client_of(connection);
    if (connection->phase == PHASE_CONNECTING) counts.connects++;
    else if (connection->phase == PHASE_HANDSHAKE) counts.handshakes++;
    else if (role_of(load, connection) == ROLE_HELD) counts.cut++;
    else if (role_of(load, connection) == ROLE_HTTP) counts.lost_requests += client->waits_since != 0;
    else if (connection->received == 0) counts.echoes++;
}

static void failed(struct load *load, struct connection *connection, int error) {
    (void)error;
    count_failure(load, connection);
    /* A reset loses no request on a connection that has none, but it is no proper end either. */
    if (connection->phase == PHASE_OPEN && role_of(load, connection) == ROLE_HTTP &&
        client_of(connection)->waits_since == 0)
        counts.cut++;
    leave(load, connection, RETRY_NS);
}

/* The server has closed: by a Close frame, or by the end of the stream. */
static void ended(struct load *load, struct connection *connection) {
    const enum role role = role_of(load, connection);
    const uint16_t code = role == ROLE_HTTP ? 0 : connection->reader.ws.close_code;
    const int is_proper_end =
        role == ROLE_HTTP && connection->phase == PHASE_OPEN && client_of(connection)->waits_since == 0;
    if (code != 0 && role == ROLE_HELD) {
        counts.closed_going_away += code == 1001;
        counts.closed_restart += code == 1012;
        counts.closed_other += code != 1001 && code != 1012;
        counts.reconnected++;
        ws_send_close(load, connection, code);
    } else if (code == 1001 || code == 1012) {
        /* A visitor that met the end of its worker: told so, and nothing is lost but its echo, which it may ask for
         * again. */
        counts.reconnected++;
        ws_send_close(load, connection, code);
    } else if (is_proper_end) {
        counts.http_ended++;
    } else {
        count_failure(load, connection);
    }
    leave(load, connection, is_proper_end || code != 0 ? 1 : RETRY_NS);
}

/* ------------------------------------------------------------------ HTTP */

static void ask(struct load *load, struct connection *connection) {
    client_of(connection)->due = 0;
    client_of(connection)->waits_since = load->now;
    connection->sent_at[0] = load->now;
    net_send(load, connection, request, request_bytes);
}

/* ret: bytes of a whole answer at bytes[0..len), 0 when it is not complete */
static size_t answer_length(const uint8_t *bytes, size_t len, int *status, int *closes) {
    char text[4096];
    const size_t head = ws_handshake_answer(bytes, len, status);
    if (head == 0) return 0;
    if (head >= sizeof text) fail("an answer with a head of %zu bytes", head);
    memcpy(text, bytes, head);
    text[head] = '\0';
    const char *length = strcasestr(text, "\r\ncontent-length:");
    if (length == NULL) fail("an answer without Content-Length: %.60s", text);
    *closes = strcasestr(text, "\r\nconnection: close") != NULL;
    const size_t whole = head + (size_t)strtoul(length + sizeof "\r\ncontent-length:" - 1, NULL, 10);
    return len >= whole ? whole : 0;
}

static size_t take_answer(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    int status = 0, closes = 0;
    const size_t used = answer_length(bytes, len, &status, &closes);
    if (used == 0) return 0;
    if (client_of(connection)->waits_since == 0) fail("an answer that nobody asked for");
    client_of(connection)->waits_since = 0;
    latency_add(load, load->now - connection->sent_at[0]);
    load->messages += load->stage == STAGE_MEASURING;
    load->progress_at = load->now;
    counts.requests++;
    counts.lost_requests += status != 200;
    if (closes) {
        counts.http_ended++;
        leave(load, connection, 1);
    } else {
        client_of(connection)->due = load->now + load->options.http_interval_ms * 1000000ull;
        if (load->options.http_interval_ms == 0) ask(load, connection);
    }
    return used;
}

/* ------------------------------------------------------------------ WebSockets */

static void connected(struct load *load, struct connection *connection) {
    if (role_of(load, connection) != ROLE_HTTP) {
        ws_connected(load, connection);
        return;
    }
    if (connection->sent_at == NULL) connection->sent_at = allocate(1, sizeof(uint64_t));
    net_opened(load, connection);
    counts.opened++;
    client_of(connection)->waits_since = 0;
    if (load->stage >= STAGE_WARMUP) ask(load, connection);
}

/* ret: length of the answer's head, 0 when it is not complete or refused */
static size_t take_handshake(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    int status = 0;
    const size_t head = ws_handshake_answer(bytes, len, &status);
    if (head == 0) return 0;
    if (status != 101) {
        counts.handshakes++;
        leave(load, connection, RETRY_NS);
        return 0;
    }
    connection->reader.ws.upgraded = 1;
    net_opened(load, connection);
    counts.opened++;
    client_of(connection)->waits_since = 0;
    if (role_of(load, connection) == ROLE_VISITOR) {
        client_of(connection)->waits_since = load->now;
        ws_send(load, connection, connection->sent++, 1);
    }
    return head;
}

static size_t consume(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    size_t at = 0;
    if (role_of(load, connection) == ROLE_HTTP) return take_answer(load, connection, bytes, len);
    if (!connection->reader.ws.upgraded && (at = take_handshake(load, connection, bytes, len)) == 0) return 0;
    return at + (at < len ? ws_consume(load, connection, bytes + at, len - at) : 0);
}

/* The echo of a visitor: it leaves, and waits for the server's own Close frame. */
static void message(struct load *load, struct connection *connection) {
    if (role_of(load, connection) != ROLE_VISITOR)
        fail("connection %u: a message that nobody asked for", connection->index);
    load->messages += load->stage == STAGE_MEASURING;
    load->progress_at = load->now;
    counts.visits++;
    client_of(connection)->waits_since = load->now;
    ws_send_close(load, connection, 1000);
}

/* ------------------------------------------------------------------ time */

static void visit(struct load *load) {
    for (uint32_t i = load->connection_count; i < load->connection_count + SPARE; i++) {
        if (load->connections[i].phase != PHASE_CLOSED) continue;
        open_again(load, &load->connections[i]);
        return;
    }
    counts.connects++; /* all of them still wait for the server */
}

static void check_patience(struct load *load) {
    for (uint32_t i = 0; i < load->connection_count + SPARE; i++) {
        struct connection *connection = &load->connections[i];
        const uint64_t since = clients[i].waits_since;
        if (connection->phase == PHASE_CLOSED || since == 0 || load->now - since < PATIENCE_NS) continue;
        counts.timeouts++;
        count_failure(load, connection);
        leave(load, connection, RETRY_NS);
    }
}

static void tick(struct load *load) {
    for (uint32_t i = 0; i < load->connection_count; i++) {
        struct connection *connection = &load->connections[i];
        if (clients[i].due == 0 || load->now < clients[i].due) continue;
        if (connection->phase == PHASE_CLOSED) open_again(load, connection);
        else ask(load, connection);
    }
    const uint32_t rate = load->options.opens_per_second;
    for (; rate > 0 && load->now >= next_visit; next_visit += 1000000000u / rate) visit(load);
    if (load->now < next_check) return;
    next_check = load->now + PATIENCE_CHECK_NS;
    check_patience(load);
}

static void begin(struct load *load) {
    next_visit = next_check = load->now;
    for (uint32_t i = load->options.connections; i < load->connection_count; i++) ask(load, &load->connections[i]);
}

static void report_counts(const struct load *load) {
    (void)load;
    printf(",\"opened\":%llu,\"visits\":%llu,\"requests\":%llu,\"reconnected\":%llu,\"http_ended\":%llu",
           (unsigned long long)counts.opened, (unsigned long long)counts.visits, (unsigned long long)counts.requests,
           (unsigned long long)counts.reconnected, (unsigned long long)counts.http_ended);
    printf(",\"closed_1001\":%llu,\"closed_1012\":%llu,\"closed_other\":%llu",
           (unsigned long long)counts.closed_going_away, (unsigned long long)counts.closed_restart,
           (unsigned long long)counts.closed_other);
    printf(",\"failed_connects\":%llu,\"failed_handshakes\":%llu,\"failed_echoes\":%llu,\"lost_requests\":%llu,\"cut\":"
           "%llu,\"timeouts\":%llu",
           (unsigned long long)counts.connects, (unsigned long long)counts.handshakes,
           (unsigned long long)counts.echoes, (unsigned long long)counts.lost_requests, (unsigned long long)counts.cut,
           (unsigned long long)counts.timeouts);
}

const struct workload workload_reload = {
    .name = "reload",
    .prepare = prepare,
    .connected = connected,
    .consume = consume,
    .ended = ended,
    .begin = begin,
    .message = message,
    .report = report_counts,
    .failed = failed,
    .tick = tick,
    .spare_connections = SPARE,
    .sources = 1,
};
