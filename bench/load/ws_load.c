/* The WebSocket workloads.
 *
 *   ws-echo    in_flight messages per connection; each that comes back, checked, is followed by the next
 *   ws-fanout  one publisher sends a batch of in_flight messages to a room; the next when all subscribers have all of
 *   it
 *   ws-open    connections that are opened, `opening` of them at once, and then held until the end
 *   ws-idle    connections that do nothing but answer pings, and take what the server greets them with */
#include "load.h"

#include <stdio.h>

/* ------------------------------------------------------------------ echo */

static void echo_send(struct load *load, struct connection *connection, uint32_t count, uint64_t since_ns) {
    for (uint32_t i = 0; i < count; i++)
        connection->sent_at[(connection->sent + i) % load->options.in_flight] = since_ns;
    ws_send(load, connection, connection->sent, count);
    connection->sent += count;
}

static void echo_prepare(struct load *load) {
    ws_prepare(load);
    for (uint32_t i = 0; i < load->connection_count; i++)
        load->connections[i].sent_at = allocate(load->options.in_flight, sizeof(uint64_t));
}

static void echo_begin(struct load *load) {
    for (uint32_t i = 0; i < load->connection_count; i++) {
        load->now = clock_now();
        echo_send(load, &load->connections[i], load->options.in_flight, load->now);
    }
}

static void echo_message(struct load *load, struct connection *connection) {
    if (connection->received == connection->sent) fail("connection %u: a message that nobody sent", connection->index);
    latency_add(load, load->now - connection->sent_at[connection->received % load->options.in_flight]);
    load->messages += load->stage == STAGE_MEASURING;
    load->outstanding -= load->options.rate > 0;
    load->progress_at = load->now;
}

static size_t echo_consume(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    const size_t consumed = ws_consume(load, connection, bytes, len);
    const uint32_t outstanding = connection->sent - connection->received;
    if (load->options.rate == 0 && load->stage >= STAGE_WARMUP && outstanding < load->options.in_flight)
        echo_send(load, connection, load->options.in_flight - outstanding, load->now);
    return consumed;
}

const struct workload workload_ws_echo = {
    .name = "ws-echo",
    .prepare = echo_prepare,
    .connected = ws_connected,
    .consume = echo_consume,
    .begin = echo_begin,
    .send = echo_send,
    .message = echo_message,
};

/* ------------------------------------------------------------------ fan-out */

static uint64_t batch_missing; /* deliveries */
static uint64_t batch_sent_at;
static uint64_t deliveries;           /* to subscribers, while measuring */
static uint64_t publisher_deliveries; /* to the publisher itself, which is in the room too */

static void fanout_send_batch(struct load *load) {
    struct connection *publisher = &load->connections[load->options.connections];
    batch_missing = (uint64_t)load->options.connections * load->options.in_flight;
    batch_sent_at = clock_now();
    ws_send(load, publisher, publisher->sent, load->options.in_flight);
    publisher->sent += load->options.in_flight;
}

static void fanout_message(struct load *load, struct connection *connection) {
    const int measuring = load->stage == STAGE_MEASURING;
    if (connection->received == load->connections[load->options.connections].sent)
        fail("a message that our publisher did not send: is the room ours alone?");
    load->progress_at = load->now;
    if (connection->index == load->options.connections) {
        publisher_deliveries += (uint64_t)measuring;
        return;
    }
    /* Each subscriber is behind the publisher, so batch_missing is above 0. */
    deliveries += (uint64_t)measuring;
    if (--batch_missing > 0) return;
    latency_add(load, load->now - batch_sent_at);
    load->messages += measuring ? load->options.in_flight : 0;
    fanout_send_batch(load);
}

static void fanout_report(const struct load *load) {
    printf(",\"deliveries\":%llu,\"publisher_deliveries\":%llu,\"payload_bytes\":%llu", (unsigned long long)deliveries,
           (unsigned long long)publisher_deliveries, (unsigned long long)load->payload_bytes);
}

const struct workload workload_ws_fanout = {
    .name = "ws-fanout",
    .prepare = ws_prepare,
    .connected = ws_connected,
    .consume = ws_consume,
    .begin = fanout_send_batch,
    .message = fanout_message,
    .report = fanout_report,
    .extra_connections = 1,
};

/* ------------------------------------------------------------------ open */

/* Sources of their own, since ports that were used a moment ago linger. */
const struct workload workload_ws_open = {
    .name = "ws-open",
    .prepare = ws_prepare,
    .connected = ws_connected,
    .consume = ws_consume,
    .measures_opening = 1,
    .sources = 1,
};

/* ------------------------------------------------------------------ idle */

static uint32_t idle_lost;
static uint64_t idle_messages;

static void idle_message(struct load *load, struct connection *connection) {
    (void)load;
    (void)connection;
    idle_messages++;
}

static void idle_ended(struct load *load, struct connection *connection) {
    if (connection->phase != PHASE_OPEN)
        fail("the server closed connection %u during its handshake", connection->index);
    idle_lost++;
    net_close(load, connection);
}

static void idle_report(const struct load *load) {
    printf(",\"lost\":%u,\"greetings\":%llu,\"pings\":%llu", idle_lost, (unsigned long long)idle_messages,
           (unsigned long long)load->pings);
}

const struct workload workload_ws_idle = {
    .name = "ws-idle",
    .prepare = ws_prepare,
    .connected = ws_connected,
    .consume = ws_consume,
    .ended = idle_ended,
    .message = idle_message,
    .report = idle_report,
    .holds = 1,
    .sources = 1,
};
