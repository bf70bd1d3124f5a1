/* The turn: one call of the host that takes its commands and brings events. In order, see rw_core_turn(); what each
 * step does is elsewhere, and the functions here are about which is next and how long it may take. See ringway.h for
 * the contract of each function. */
#include <string.h>

#include "clock.h"
#include "command_batch.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/listener.h"
#include "connection/work.h"
#include "delivery/members.h"
#include "drain.h"
#include "node_events.h"
#include "ws/dropped.h"
#include "ws/ws.h"

#define NODE_MESSAGES_PER_TURN 1024u
#define GAUGE_TURNS 64u
#define WAITS_PER_TURN 4u
#define OUTBOX_RETRY_MS 2u
#define REAPS_PER_TURN 8u
#define COMMANDS_MEASURED 32u /* fewer cannot be spread over more turns to any use */
/* After a gap like this the host has blocked, not the clients: what they have sent meanwhile is taken in before any
 * deadline is judged. */
#define BLOCKED_MS 1000u
#define BLOCKED_MS_MAX 60000u

static void write_gauges(struct rw_core *core) {
    core->gauges_due = GAUGE_TURNS;
    uint64_t *used = &core->stats->buffers_64_used;
    uint64_t *total = &core->stats->buffers_64_total;
    for (uint32_t i = 0; i < RW_BUFFER_CLASSES; i++) {
        struct rw_buffer_class_stats stats = rw_buffers_stats(core->buffers, i);
        __atomic_store_n(&used[i], stats.used, __ATOMIC_RELAXED);
        __atomic_store_n(&total[i], stats.carved, __ATOMIC_RELAXED);
    }
    RW_GAUGE(core, backpressure_bytes, core->outbox.bytes);
    RW_GAUGE(core, unfinished_bytes, core->unfinished_bytes);
    RW_GAUGE(core, inflate_bytes, core->inflate_bytes);
    RW_GAUGE(core, topics, rw_delivery_topics(core));
    RW_GAUGE(core, subscriptions, rw_topics_subscriptions(core->topics));
    RW_GAUGE(core, topic_lagging, rw_topics_lags(core->topics));
    __atomic_store_n(&core->stats->cq_overflows, core->ring->counts.cq_overflows, __ATOMIC_RELAXED);
}

/* ret: 1 taken, 0 not now */
static int on_node_message(void *context, const struct rw_node_message *message) {
    struct rw_core *core = context;
    if (message->is_mail) return rw_node_events_mail(core, message);
    if (message->flags & RW_NODE_ADVANCED) {
        struct rw_position position;
        if (!core->state || message->payload_bytes != sizeof position) return 1;
        memcpy(&position, message->payload, sizeof position);
        rw_logged_advance(core, message->topic, message->topic_bytes, position, NULL);
        return 1;
    }
    (void)rw_publish_local(core, message->topic, message->topic_bytes, message->topic_hash, message->flags,
                           message->payload, message->payload_bytes, RW_NO_SLOT);
    return 1;
}

static void on_timer(void *context, uint32_t index) { rw_connection_on_timer(context, index); }

static void on_completion(struct rw_core *core, const struct rw_completion *completion) {
    switch (rw_user_data_op(completion->user_data)) {
        case RW_OP_NONE: break;
        case RW_OP_ACCEPT: rw_listener_on_accept(core, completion); break;
        case RW_OP_RECV: rw_connection_on_recv(core, completion); break;
        case RW_OP_SEND: rw_connection_on_send(core, completion); break;
        case RW_OP_INBOX:
            /* The messages themselves are taken at the start of the next turn. */
            if (!(completion->flags & RW_COMPLETION_MORE))
                (void)rw_ring_poll_start(core->ring, core->inbox_fd, completion->user_data);
            break;
    }
}

/* Process what was reaped. Input that no work or room is left for is kept by its connection, so that nothing waits
 * behind it: the sends least of all.
 * ret: 1 everything was processed; 0 the batch has not one record left */
static int process_completions(struct rw_core *core) {
    while (core->completion_next < core->completion_count) {
        if (!rw_event_batch_has_room(core, 0)) return 0;
        on_completion(core, &core->completions[core->completion_next++]);
    }
    return 1;
}

static int ending_is_actionable(const struct rw_core *core) {
    for (uint32_t i = 0; i < core->ending.count; i++) {
        const struct rw_slot *slot = rw_core_slot(core, core->ending.items[i]);
        if (!slot->state.recv_armed && !slot->state.send_inflight) return 1;
    }
    return 0;
}

static int has_work(const struct rw_core *core) {
    return core->dirty.count || core->ready.count || core->completion_next < core->completion_count ||
           core->starved.count || rw_topics_changes(core->topics) || rw_delivery_has_work(core) ||
           ending_is_actionable(core);
}

static int64_t earlier(int64_t a, int64_t b) { return a < 0 || (b >= 0 && b < a) ? b : a; }

/* ret: milliseconds until the core has something to do by itself, -1: never */
static int64_t next_due_ms(const struct rw_core *core) {
    int64_t due = rw_timer_wheel_next_ms(&core->wheel, core->clock_wide_ms);
    if (core->drain.active) due = earlier(due, RW_DRAIN_STEP_MS);
    if (core->accept_retry_ms)
        due = earlier(
            due, rw_before(core->now_ms, core->accept_retry_ms) ? (int64_t)(core->accept_retry_ms - core->now_ms) : 0);
    due = earlier(due, rw_delivery_due_ms(core));
    if (core->stats->node_outbox_bytes) due = earlier(due, OUTBOX_RETRY_MS);
    return due;
}

/* Wait only when nothing is at hand here, and let other workers know that they must wake us. */
static uint32_t allowed_wait_us(struct rw_core *core, uint32_t wait_us) {
    if (!wait_us || core->events.count || has_work(core)) return 0;
    int64_t due = next_due_ms(core);
    if (due >= 0 && due * 1000 < wait_us) wait_us = (uint32_t)due * 1000;
    if (wait_us && core->bus && rw_node_bus_sleeping(core->bus, 1)) {
        (void)rw_node_bus_sleeping(core->bus, 0);
        return 0;
    }
    return wait_us;
}

static int reap_all(struct rw_core *core) {
    for (uint32_t reaps = 0; reaps < REAPS_PER_TURN; reaps++) {
        core->completion_next = 0;
        core->completion_count = rw_ring_reap(core->ring, core->completions, RW_COMPLETIONS_PER_REAP);
        if (!process_completions(core)) return 0;
        if (core->completion_count < RW_COMPLETIONS_PER_REAP) return 1;
    }
    return 0;
}

static void take_completions(struct rw_core *core, uint32_t wait_us) {
    if (!process_completions(core)) {
        (void)rw_ring_submit(core->ring, 0); /* what goes out does not wait for that */
        return;
    }
    uint64_t until_us = wait_us ? rw_clock_monotonic_ns() / 1000 + wait_us : 0;
    /* More than once: the sends of this turn complete at once, which ends the first wait before any input has come. */
    for (uint32_t round = 0; round < WAITS_PER_TURN; round++) {
        uint32_t allowed = allowed_wait_us(core, wait_us);
        if (allowed) write_gauges(core); /* what is read meanwhile is how things stand */
        (void)rw_ring_submit(core->ring, allowed);
        if (allowed) {
            if (core->bus) (void)rw_node_bus_sleeping(core->bus, 0);
            rw_clock_read(core);
        }
        if (!reap_all(core) || !allowed || core->events.count || core->ring->interrupted) break;
        uint64_t now_us = rw_clock_monotonic_ns() / 1000;
        if (now_us >= until_us) break;
        wait_us = (uint32_t)(until_us - now_us);
    }
}

/* What clients have sent while the host was blocked comes all at once, within a second: their rates know of it
 * (ws_rate.c). */
static void note_blocked(struct rw_core *core) {
    uint32_t gap = core->now_ms - core->last_turn_ms;
    if (gap > BLOCKED_MS) {
        core->blocked_ms = gap < BLOCKED_MS_MAX ? gap : BLOCKED_MS_MAX;
        core->blocked_end_ms = core->now_ms + BLOCKED_MS;
    } else if (core->blocked_ms && !rw_before(core->now_ms, core->blocked_end_ms)) {
        core->blocked_ms = 0;
    }
}

/* What comes now is served at once, while its half of the turn lasts: a client that says little never waits behind
 * those that say much. What waited from earlier turns has the rest, and half a turn at least, so that neither keeps the
 * other from it. */
static void serve_input(struct rw_core *core, uint32_t wait_us) {
    uint32_t waiting = core->ready.count;
    core->work.spent = 0;
    if (core->withheld_count) rw_connection_return_withheld(core);
    rw_work_begin(core, waiting ? RW_WORK_UNITS / 2 : RW_WORK_UNITS);
    take_completions(core, wait_us);
    uint32_t rest = core->work.spent < RW_WORK_UNITS / 2 ? RW_WORK_UNITS - core->work.spent : RW_WORK_UNITS / 2;
    rw_work_begin(core, rest);
    rw_connection_serve_ready(core, waiting);
    core->busy = core->ready.count > 0 && rw_work_is_over(core);
}

/* Whatever the load: a peer whose bytes wait somewhere is spared by whoever would end its connection
 * (rw_connection_spares). After a block the kernel may have more than one turn takes, for which the one judgement
 * waits. */
static void fire_timers(struct rw_core *core) {
    int blocked = core->now_ms - core->last_turn_ms > BLOCKED_MS && !core->timers_held;
    core->last_turn_ms = core->now_ms;
    core->timers_held = blocked ? 1 : 0;
    if (!blocked) (void)rw_timer_wheel_advance(&core->wheel, core->clock_wide_ms, on_timer, core);
}

static void apply_commands(struct rw_core *core, uint32_t count) {
    core->sends_settled = 0;
    if (count < COMMANDS_MEASURED && core->work.apply_units == 0) {
        rw_command_batch_apply(core, count);
        return;
    }
    uint64_t began = rw_clock_monotonic_ns();
    rw_command_batch_apply(core, count);
    rw_work_note_applied(core, rw_clock_monotonic_ns() - began);
}

int32_t rw_core_turn(struct rw_core *core, uint32_t command_count, uint32_t wait_us) {
    apply_commands(core, command_count);
    rw_event_batch_begin(core);
    rw_clock_read(core);
    rw_clock_age(core);
    note_blocked(core);
    if (rw_topics_changes(core->topics)) rw_node_events_interest(core);
    if (core->bus) {
        int more;
        (void)rw_node_bus_receive(core->bus, NODE_MESSAGES_PER_TURN, on_node_message, core, &more);
    }
    rw_members_settle(core);
    rw_delivery_step(core);
    if (core->drain.active) rw_drain_step(core);
    if (core->accept_retry_ms && !rw_before(core->now_ms, core->accept_retry_ms)) rw_listener_retry(core);
    rw_connection_flush_dirty(core);
    if (core->bus) (void)rw_node_bus_flush(core->bus);
    rw_publications_end_tick(core);
    rw_ws_end_tick(core);
    rw_dropped_tell(core);
    serve_input(core, wait_us);
    core->interrupted = core->ring->interrupted;
    core->ring->interrupted = 0;
    rw_connection_feed_starved(core);
    fire_timers(core);
    rw_connection_finish_ending(core);
    rw_members_settle(core);
    RW_COUNT(core, turns, 1);
    if (core->events.count == 0) RW_COUNT(core, turns_empty, 1);
    if (core->gauges_due == 0 || --core->gauges_due == 0) write_gauges(core);
    return (int32_t)core->events.count;
}

int32_t rw_core_interrupt_by(struct rw_core *core, int32_t fd) { return rw_ring_interrupt_by(core->ring, fd); }

int32_t rw_core_flush(struct rw_core *core, uint32_t command_count) {
    core->sends_settled = 0;
    rw_command_batch_apply(core, command_count);
    rw_members_settle(core);
    return RW_OK;
}

int32_t rw_core_command(struct rw_core *core, const struct rw_command *command, const uint8_t *data, uint64_t bytes) {
    core->sends_settled = 0;
    int32_t result = rw_command_apply(core, command, data, bytes);
    rw_members_settle(core);
    return result;
}

int32_t rw_core_sleep(struct rw_core *core) {
    rw_clock_read(core);
    if (has_work(core)) return -2;
    int64_t due = next_due_ms(core);
    if (due == 0) return -2;
    if (core->bus && rw_node_bus_sleeping(core->bus, 1)) {
        (void)rw_node_bus_sleeping(core->bus, 0);
        return -2;
    }
    if (rw_ring_sleep(core->ring)) {
        if (core->bus) (void)rw_node_bus_sleeping(core->bus, 0);
        return -2;
    }
    RW_COUNT(core, sleeps, 1);
    write_gauges(core);
    return due > INT32_MAX ? INT32_MAX : (int32_t)due;
}

void rw_core_wake(struct rw_core *core) {
    rw_ring_wake(core->ring);
    if (core->bus) (void)rw_node_bus_sleeping(core->bus, 0);
    /* A sleep is not a blocked host: deadlines are judged as usual afterwards. */
    rw_clock_read(core);
    core->last_turn_ms = core->now_ms;
}

void rw_core_pace(struct rw_core *core, uint32_t events) {
    if (events > RW_EVENTS_CAPACITY) events = RW_EVENTS_CAPACITY;
    core->work.event_units = RW_WORK_UNITS / (events ? events : 1) - 1; /* its frame is one */
}
