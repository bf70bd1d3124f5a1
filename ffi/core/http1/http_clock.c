/* HTTP/1.1: deadlines, and clients that have left or wait, see http.h. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "connection/connection.h"
#include "connection/event_batch.h"
#include "http1/http.h"

/* A body that gets on by less than this within so many body timeouts counts as stalled, too: a byte now and then does
 * not keep it alive. */
#define BODY_PROGRESS_BYTES 1024u
#define BODY_PROGRESS_TIMEOUTS 4u
/* The FIN of a peer that has left looks like that of one that still reads. In the middle of a response it counts as
 * gone without any output for so long; with output, its reset tells. In front of a response the host decides, and
 * probes bring the reset: a system forgets a connection that nobody has any more (a minute after, tcp_fin_timeout in
 * tcp(7)), and answers what comes for it with one. */
#define PROBE_SECONDS 10
#define PROBES_LOST_MAX 3

/* A part of the body is awaited from now on, and what has come counts as progress. */
void rw_http_await_body(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    exchange->body_mark = exchange->body_received;
    exchange->body_slow = 0;
    slot->last_input_ms = core->now_ms; /* its silence begins now */
    slot->deadline_ms = core->now_ms + core->limits.body_timeout_ms;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
}

/* Every body timeout, at deadline_ms, its progress is judged; a stall is due a body timeout after the last part. */
static uint32_t body_due_ms(const struct rw_core *core, const struct rw_slot *slot) {
    uint32_t stalled = slot->last_input_ms + core->limits.body_timeout_ms;
    return rw_before(stalled, slot->deadline_ms) ? stalled : slot->deadline_ms;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* When the clock has something to say: at the deadline, or sooner when a drain lets connections be idle for less
 * time. */
uint32_t rw_http_due_ms(const struct rw_core *core, const struct rw_slot *slot) {
    const struct rw_exchange *exchange = rw_exchange_of(slot);
    int first = (exchange->flags & RW_X_FIRST) != 0;
    if (exchange->phase == RW_HTTP_BODY) return body_due_ms(core, slot);
    if (!core->drain.active || exchange->phase != RW_HTTP_IDLE || (first && !core->drain.idle_ms))
        return slot->deadline_ms;
    uint32_t idle_ms =
        core->now_ms - (first ? slot->opened_ms : slot->deadline_ms - core->limits.keep_alive_timeout_ms);
    idle_ms = least(idle_ms, core->now_ms - slot->last_input_ms);
    /* A client that still reads the response to its last request has not had the time for the next. */
    idle_ms = least(idle_ms, rw_connection_has_output(slot) ? 0 : core->now_ms - slot->last_output_ms);
    uint32_t due = core->now_ms - idle_ms + core->drain.idle_ms;
    return rw_before(due, slot->deadline_ms) ? due : slot->deadline_ms;
}

/* Idle for as long as a drain allows. ret: 1 it ends, 0 its next request has come this very moment */
static int end_idle(struct rw_core *core, struct rw_slot *slot) {
    struct pollfd asked = {.fd = slot->fd, .events = POLLIN};
    if (!slot->state.paused_by_host && poll(&asked, 1, 0) > 0 && asked.revents & POLLIN) return 0;
    rw_connection_end_now(core, slot);
    return 1;
}

/* A peer whose input is held back is not read from, so that its leaving goes unseen. It may have half-closed only: it
 * counts as gone when nothing went either way for a body timeout. */
static int is_gone(const struct rw_core *core, const struct rw_slot *slot) {
    if (slot->state.send_inflight || slot->state.send_refused) return 0;
    /* it may be weeks ago, see age.h */
    if (core->now_ms - slot->last_output_ms < core->limits.body_timeout_ms) return 0;
    /* What the host has paused may have come whole, and its end with it: only a reset tells then. */
    short events = slot->state.paused_by_host ? 0 : POLLRDHUP;
    struct pollfd asked = {.fd = slot->fd, .events = events};
    return poll(&asked, 1, 0) > 0 && (asked.revents & (events | POLLHUP | POLLERR)) != 0;
}

static void probe_peer(const struct rw_slot *slot) {
    const int on = 1, seconds = PROBE_SECONDS, most = PROBES_LOST_MAX;
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_KEEPCNT, &most, sizeof most);
    (void)setsockopt(slot->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

/* A half-closed peer waits for its answer, or has left: looked at once a grace. */
static void await_answer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct pollfd asked = {.fd = slot->fd};
    if (rw_before(core->now_ms, slot->deadline_ms)) {
        rw_connection_arm_timer(core, slot, slot->deadline_ms);
        return;
    }
    if (poll(&asked, 1, 0) > 0 && asked.revents & (POLLHUP | POLLERR)) {
        rw_connection_terminate(core, slot);
        return;
    }
    struct rw_event *event =
        exchange->flags & RW_X_HALF_CLOSED ? NULL : rw_event_add(core, slot, RW_EVENT_HALF_CLOSED, 0, NULL);
    if (event) {
        event->request = exchange->request;
        exchange->flags |= RW_X_HALF_CLOSED;
        probe_peer(slot);
    }
    slot->deadline_ms = core->now_ms + RW_HTTP_HALF_CLOSED_GRACE_MS;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
}

static void on_half_closed_timer(struct rw_core *core, struct rw_slot *slot) {
    if (!(rw_exchange_of(slot)->flags & (RW_X_BEGUN | RW_X_UPGRADE))) {
        await_answer(core, slot);
        return;
    }
    uint32_t due = slot->deadline_ms;
    uint32_t after_output = slot->last_output_ms + RW_HTTP_HALF_CLOSED_GRACE_MS;
    /* The last output may be weeks ago, see age.h. */
    if (core->now_ms - slot->last_output_ms < RW_HTTP_HALF_CLOSED_GRACE_MS && rw_before(due, after_output))
        due = after_output;
    /* What the kernel has not taken yet is judged by the write timeout. */
    if (slot->state.send_inflight || slot->state.send_refused) due = core->now_ms + RW_HTTP_HALF_CLOSED_GRACE_MS;
    if (rw_before(core->now_ms, due)) {
        slot->deadline_ms = due; /* never far behind, however long the response goes on */
        rw_connection_arm_timer(core, slot, due);
    } else {
        rw_connection_terminate(core, slot);
    }
}

/* A body timeout is over, since the last part or since its progress was last judged. */
static void on_body_timer(struct rw_core *core, struct rw_slot *slot, uint32_t due) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->body_received == exchange->body_mark && is_gone(core, slot)) {
        rw_connection_terminate(core, slot);
        return;
    }
    /* It waits for us, and not we for it. */
    if (slot->state.paused_by_core || slot->state.paused_by_host || slot->input_bytes) {
        rw_http_await_body(core, slot);
        return;
    }
    int stalled = !rw_before(core->now_ms, slot->last_input_ms + core->limits.body_timeout_ms);
    if (!stalled) {
        int progressed = exchange->body_received - exchange->body_mark >= BODY_PROGRESS_BYTES;
        if (progressed) {
            exchange->body_mark = exchange->body_received;
            exchange->body_slow = 0;
        }
        if (progressed || exchange->body_slow + 1u < BODY_PROGRESS_TIMEOUTS) {
            if (!progressed) exchange->body_slow++;
            slot->deadline_ms = core->now_ms + core->limits.body_timeout_ms;
            rw_connection_arm_timer(core, slot, body_due_ms(core, slot));
            return;
        }
    }
    if (rw_connection_spares(core, slot, due, POLLIN)) return;
    RW_COUNT(core, timeouts_body, 1);
    rw_http_refuse(core, slot, 408);
}

void rw_http_timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (exchange->phase == RW_HTTP_RECEIVED) {
        if (slot->state.peer_closed) {
            on_half_closed_timer(core, slot);
        } else if (slot->state.paused_by_core && is_gone(core, slot)) {
            rw_connection_terminate(core, slot);
        } else if (slot->state.paused_by_core) {
            rw_connection_arm_timer(core, slot, core->now_ms + core->limits.body_timeout_ms);
        }
        rw_http_events_timer(core, slot);
        return;
    }
    uint32_t due = rw_http_due_ms(core, slot);
    if (rw_before(core->now_ms, due)) {
        rw_connection_arm_timer(core, slot, due);
        return;
    }
    switch ((enum rw_http_phase)exchange->phase) {
        case RW_HTTP_IDLE:
            if (core->drain.active) {
                if (!end_idle(core, slot)) rw_connection_arm_timer(core, slot, core->now_ms + 1);
                break;
            }
            if (rw_connection_spares(core, slot, due, POLLIN)) break;
            RW_COUNT(core, timeouts_idle, 1);
            rw_connection_finish(core, slot);
            break;
        case RW_HTTP_HEAD:
            if (rw_connection_spares(core, slot, due, POLLIN)) break;
            RW_COUNT(core, timeouts_head, 1);
            rw_http_refuse(core, slot, 408);
            break;
        case RW_HTTP_BODY: on_body_timer(core, slot, due); break;
        case RW_HTTP_RECEIVED: break;
    }
}
