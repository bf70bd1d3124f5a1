/* An open loop: --rate messages a second in all, evenly spread over time and connections, whatever comes back and when.
 *
 * The time of a message begins when it was due, not when it was sent: a server (or we) that stops for a second makes
 * every message of that second late, as its users would find it. A closed loop sends nothing meanwhile, and so leaves
 * out just the worst.
 *
 * While an answer is awaited, and shortly before the next message, the loop does not sleep: what an idle CPU takes to
 * wake is ours, not the server's. */
#include "load.h"

#define EARLY_NS 200000u /* how late epoll_pwait2(2) may wake an idle CPU */

static uint64_t first_due, sent;

void pace_begin(const struct load *load) {
    first_due = load->now;
    sent = 0;
}

static uint64_t due(const struct load *load) { return first_due + (uint64_t)((double)sent * 1e9 / load->options.rate); }

static int is_paced(const struct load *load) {
    return load->options.rate > 0 && (load->stage == STAGE_WARMUP || load->stage == STAGE_MEASURING);
}

void pace_send(struct load *load) {
    if (!is_paced(load)) return;
    load->now = clock_now();
    for (uint64_t at; (at = due(load)) <= load->now; sent++) {
        struct connection *connection = &load->connections[sent % load->connection_count];
        if (connection->sent - connection->received == load->options.in_flight)
            fail("connection %u: %u messages were sent and have not come back", connection->index,
                 load->options.in_flight);
        load->workload->send(load, connection, 1, at);
        load->outstanding++;
    }
}

uint64_t pace_wait_ns(const struct load *load, uint64_t most_ns) {
    if (!is_paced(load)) return most_ns;
    const uint64_t at = due(load);
    if (load->outstanding > 0 || at <= load->now + EARLY_NS) return 0;
    return at - load->now - EARLY_NS < most_ns ? at - load->now - EARLY_NS : most_ns;
}
