/* Connections: receiving, beginning and ending, see connection.h. */
#include "connection/connection.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "connection/client.h"
#include "connection/event_batch.h"
#include "connection/listener.h"
#include "connection/proxy.h"
#include "connection/tls.h"
#include "connection/unfinished.h"
#include "connection/work.h"

/* ------------------------------------------------------------------ lists */

static void list_add(struct rw_core *core, struct rw_slot_list *list, struct rw_slot *slot) {
    /* Lists grow to the number of slots at most; they are pre-sized together with the pool's use in accept, so this
     * cannot fail here. */
    int32_t pushed = rw_slot_list_push(list, rw_core_index(core, slot));
    assert(pushed == 0);
    (void)pushed;
}

void rw_connection_mark_dirty(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.dirty) return;
    slot->state.dirty = 1;
    list_add(core, &core->dirty, slot);
}

void rw_connection_mark_ready(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.ready) return;
    slot->state.ready = 1;
    list_add(core, &core->ready, slot);
}

void rw_connection_mark_resumed(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.resuming) return;
    slot->state.resuming = 1;
    list_add(core, &core->resumed, slot);
}

static void mark_ending(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.ending) return;
    slot->state.ending = 1;
    list_add(core, &core->ending, slot);
}

static void note_end(struct rw_core *core, struct rw_slot *slot, enum rw_end_cause cause) {
    rw_protocol_of(core, slot)->note_end(slot, cause);
}

/* ------------------------------------------------------------------ receive */

/* As much input as this, about to be served, comes first: what is received meanwhile can be more than a turn takes,
 * time after time. */
#define INPUT_HOLD_BYTES 16384u
/* Half of the receive buffers there are by default: more would only find none again. */
#define STARVED_PER_TURN 256u

static int is_behind(const struct rw_slot *slot) {
    return (slot->state.ready || slot->state.answers_wait) && slot->input_bytes >= INPUT_HOLD_BYTES;
}

static void recv_arm(struct rw_core *core, struct rw_slot *slot) {
    assert(!slot->state.recv_armed);
    uint32_t index = rw_core_index(core, slot);
    int32_t armed = rw_ring_recv_start(core->ring, slot->fd, rw_user_data(RW_OP_RECV, slot->generation, index));
    if (armed < 0) {
        rw_connection_terminate(core, slot);
        return;
    }
    slot->state.recv_armed = 1;
    slot->state.recv_cancelled = 0;
}

void rw_connection_update_receive(struct rw_core *core, struct rw_slot *slot) {
    uint32_t phase = slot->state.phase;
    int wanted =
        (phase == RW_PHASE_OPEN && !slot->state.paused_by_host && !slot->state.paused_by_core && !is_behind(slot)) ||
        phase == RW_PHASE_FINISHING || phase == RW_PHASE_LINGERING;
    if (slot->state.peer_closed || slot->state.recv_starved) wanted = 0;
    if (wanted && !slot->state.recv_armed) {
        recv_arm(core, slot);
    } else if (!wanted && slot->state.recv_armed && !slot->state.recv_cancelled) {
        slot->state.recv_cancelled = 1;
        (void)rw_ring_cancel(core->ring, slot->fd,
                             rw_user_data(RW_OP_RECV, slot->generation, rw_core_index(core, slot)));
    }
}

/* So much may wait behind a request that is being served however full the budget is, since refusing it would take that
 * request's answer away: as much as is kept before receiving stops, and what is on its way then. */
#define BEHIND_REQUEST_BYTES (2 * INPUT_HOLD_BYTES)

static int may_keep(const struct rw_core *core, const struct rw_slot *slot, size_t needed, size_t wanted) {
    size_t before = slot->input ? rw_buffers_capacity(core->buffers, slot->input) : 0;
    size_t after = rw_buffers_capacity_for(wanted);
    if (after <= before || rw_unfinished_admits(core, before, after - before)) return 1;
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    return needed <= BEHIND_REQUEST_BYTES && protocol->owes_answer && protocol->owes_answer(slot);
}

/* Input that must be kept would go past the budget. */
static void refuse_input(struct rw_core *core, struct rw_slot *slot) {
    if (slot->preface != RW_PREFACE_NONE || (slot->tls && rw_tls_is_shaking_hands(slot->tls))) {
        RW_COUNT(core, refused_unfinished, 1);
        rw_connection_terminate(core, slot);
    } else {
        rw_protocol_of(core, slot)->refuse_input(core, slot);
    }
}

static int32_t end_for_memory(struct rw_core *core, struct rw_slot *slot) {
    note_end(core, slot, RW_END_NO_MEMORY);
    rw_connection_terminate(core, slot);
    return -ENOMEM;
}

int32_t rw_connection_stash(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    if (len == 0) return RW_OK;
    size_t needed = (size_t)slot->input_bytes + len;
    if (needed > UINT32_MAX / 2) return end_for_memory(core, slot);
    if (!slot->input || rw_buffers_capacity(core->buffers, slot->input) < slot->input_offset + needed) {
        /* Past the first buffer, half as much again, so that appending is linear. */
        size_t wanted = slot->input_bytes ? needed + needed / 2 : needed;
        if (!may_keep(core, slot, needed, wanted)) {
            refuse_input(core, slot);
            return RW_ERR_FULL;
        }
        rw_buffer grown = rw_buffers_acquire(core->buffers, wanted);
        if (!grown) return end_for_memory(core, slot);
        rw_unfinished_add_buffer(core, grown);
        if (slot->input) {
            memcpy(rw_buffers_data(core->buffers, grown), rw_connection_input(core, slot), slot->input_bytes);
            rw_unfinished_remove_buffer(core, slot->input);
            rw_buffers_release(core->buffers, slot->input);
        }
        slot->input = grown;
        slot->input_offset = 0;
    }
    memcpy(rw_buffers_data(core->buffers, slot->input) + slot->input_offset + slot->input_bytes, bytes, len);
    slot->input_bytes += (uint32_t)len;
    core->kept_bytes += len;
    return RW_OK;
}

void rw_connection_unstash(struct rw_core *core, struct rw_slot *slot, uint32_t bytes) {
    assert(bytes <= slot->input_bytes);
    slot->input_offset += bytes;
    slot->input_bytes -= bytes;
    core->kept_bytes -= bytes;
    if (slot->input_bytes == 0 && slot->input) {
        rw_unfinished_remove_buffer(core, slot->input);
        rw_buffers_release(core->buffers, slot->input);
        slot->input = RW_BUFFER_NONE;
        slot->input_offset = 0;
    }
}

/* Give the protocol what is kept, as far as it can take it now. */
static void serve_input(struct rw_core *core, struct rw_slot *slot) {
    if (slot->preface != RW_PREFACE_NONE) return; /* what is kept is a part of it */
    if (slot->tls && !rw_tls_is_open(slot->tls)) {
        rw_tls_serve(core, slot); /* and what is kept is ciphertext */
        return;
    }
    rw_protocol_of(core, slot)->serve(core, slot);
}

void rw_connection_on_plain(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len) {
    assert(slot->state.phase == RW_PHASE_OPEN);
    rw_work_charge(core, len / RW_WORK_RECEIVED_BYTES);
    if (slot->state.ready || slot->state.answers_wait || rw_work_is_over(core)) {
        /* Its turn is in the list, or will be: whoever sends much is served as often as the others are. */
        if (rw_connection_stash(core, slot, bytes, len) == RW_OK && !slot->state.answers_wait)
            rw_connection_mark_ready(core, slot);
        return;
    }
    rw_work_share_fresh(core);
    if (slot->input_bytes || slot->state.paused_by_host) {
        if (rw_connection_stash(core, slot, bytes, len) == RW_OK) serve_input(core, slot);
        return;
    }
    rw_protocol_of(core, slot)->input(core, slot, bytes, len);
}

static void on_bytes(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len) {
    if (slot->state.phase != RW_PHASE_OPEN) return;
    if (!slot->tls) {
        rw_connection_on_plain(core, slot, bytes, len);
    } else if (!slot->state.peer_closed) { /* nothing counts behind close_notify (RFC 8446 §6.1) */
        rw_tls_input(core, slot, bytes, len);
    }
}

/* A PROXY header may come first, whole or in parts, and before TLS. What of the input is not a part of it goes on. */
static void on_preface(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len) {
    uint32_t before = slot->input_bytes;
    if (before && rw_connection_stash(core, slot, bytes, len) != RW_OK) return;
    struct rw_proxy_source source;
    int32_t result = before ? rw_proxy_parse(rw_connection_input(core, slot), slot->input_bytes, &source)
                            : rw_proxy_parse(bytes, len, &source);
    int missing = result == RW_PROXY_ABSENT && slot->preface == RW_PREFACE_PROXY_REQUIRED;
    if (result == RW_PROXY_MALFORMED || missing) {
        RW_COUNT(core, refused_proxy, 1);
        rw_connection_terminate(core, slot);
    } else if (result == 0) {
        if (!before) (void)rw_connection_stash(core, slot, bytes, len);
    } else if (result > 0) {
        assert((uint32_t)result > before);
        uint32_t used = (uint32_t)result - before;
        if (!rw_client_on_proxy_header(core, slot, &source)) {
            rw_connection_terminate(core, slot);
            return;
        }
        slot->preface = RW_PREFACE_NONE;
        rw_connection_unstash(core, slot, slot->input_bytes);
        if (len > used) on_bytes(core, slot, bytes + used, len - used);
    } else {
        /* The client's own bytes. Those before this piece were too few to tell. */
        uint8_t first[RW_PROXY_DECISION_BYTES];
        assert(before < sizeof first);
        if (before) memcpy(first, rw_connection_input(core, slot), before);
        rw_connection_unstash(core, slot, slot->input_bytes);
        slot->preface = RW_PREFACE_NONE;
        if (before) on_bytes(core, slot, first, before);
        on_bytes(core, slot, bytes, len);
    }
}

void rw_connection_on_end_of_stream(struct rw_core *core, struct rw_slot *slot) {
    slot->state.peer_closed = 1;
    if (slot->state.phase == RW_PHASE_OPEN) {
        /* A peer that sends its last request and half-closes is served when the answer is ready within this turn: so
         * decide in the next. */
        rw_connection_mark_ready(core, slot);
    } else if (slot->state.phase == RW_PHASE_LINGERING) {
        rw_connection_terminate(core, slot);
    }
}

/* A receive brings 32 buffers, or all there are, before a pause of it can meet the kernel. */
static void give_back(struct rw_core *core, uint32_t buffer_id) {
    if (core->kept_bytes > RW_KEPT_BYTES_HIGH && core->withheld_count < core->withheld_most) {
        core->withheld[core->withheld_count++] = buffer_id;
    } else {
        rw_ring_buffer_return(core->ring, buffer_id);
    }
}

void rw_connection_return_withheld(struct rw_core *core) {
    if (core->kept_bytes > RW_KEPT_BYTES_HIGH) return;
    while (core->withheld_count) rw_ring_buffer_return(core->ring, core->withheld[--core->withheld_count]);
}

void rw_connection_on_recv(struct rw_core *core, const struct rw_completion *completion) {
    struct rw_slot *slot = rw_core_slot(core, rw_user_data_index(completion->user_data));
    assert((slot->generation & 0xFFFFFFu) == rw_user_data_generation(completion->user_data) && slot->state.recv_armed);
    if (!(completion->flags & RW_COMPLETION_MORE)) {
        slot->state.recv_armed = 0;
        slot->state.recv_cancelled = 0;
    }
    int32_t result = completion->result;
    if (result > 0) {
        RW_COUNT(core, bytes_in, result);
        slot->last_input_ms = core->now_ms;
        if (slot->preface != RW_PREFACE_NONE && slot->state.phase == RW_PHASE_OPEN) {
            on_preface(core, slot, completion->data, (uint32_t)result);
        } else {
            on_bytes(core, slot, completion->data, (uint32_t)result);
        }
    } else if (result == 0) {
        rw_connection_on_end_of_stream(core, slot);
    } else if (result == -ENOBUFS) {
        RW_COUNT(core, recv_no_buffers, 1);
        if (!slot->state.recv_armed && slot->state.phase != RW_PHASE_CLOSING) {
            slot->state.recv_starved = 1;
            list_add(core, &core->starved, slot);
        }
    } else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN) {
        slot->state.peer_closed = 1;
        note_end(core, slot, RW_END_PEER_GONE);
        rw_connection_terminate(core, slot);
    }
    if (completion->flags & RW_COMPLETION_BUFFER) give_back(core, completion->buffer_id);
    if (slot->state.phase != RW_PHASE_CLOSING) rw_connection_update_receive(core, slot);
}

void rw_connection_feed_starved(struct rw_core *core) {
    struct rw_slot_list *starved = &core->starved;
    if (starved->count == 0) return;
    uint32_t most = core->withheld_count ? RW_RECV_BUFFERS_LEAST : STARVED_PER_TURN;
    uint32_t count = starved->count < most ? starved->count : most;
    for (uint32_t i = 0; i < count; i++) {
        struct rw_slot *slot = rw_core_slot(core, starved->items[i]);
        slot->state.recv_starved = 0;
        if (slot->state.phase != RW_PHASE_CLOSING) rw_connection_update_receive(core, slot);
    }
    starved->count -= count;
    memmove(starved->items, starved->items + count, starved->count * sizeof *starved->items);
}

/* ------------------------------------------------------------------ begin and end */

static int32_t lists_reserve(struct rw_core *core) {
    /* A slot is on each list once at most; twice that, because serving a list may put slots on its end again. */
    uint32_t most = 2 * (core->pool.carved + 1);
    struct rw_slot_list *lists[] = {&core->dirty, &core->ready, &core->starved, &core->resumed, &core->ending};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (rw_slot_list_reserve(lists[i], most) < 0) return -ENOMEM;
    }
    return RW_OK;
}

static void tell_connect(struct rw_core *core, struct rw_slot *slot) {
    if (!(core->listeners[slot->listener].flags & RW_LISTENER_WANTS_CONNECT)) return;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_CONNECT, 0, NULL);
    assert(event && "a completion is only taken while the batch has room");
    event->arg0 = slot->listener;
    slot->state.connect_told = 1;
}

/* ret: 1 the host knows that the slot is gone, 0 the batch is full */
static int disconnect_told(struct rw_core *core, struct rw_slot *slot) {
    if (!slot->state.connect_told) return 1;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_DISCONNECT, 0, NULL);
    if (!event) return 0;
    event->arg0 = slot->listener;
    slot->state.connect_told = 0;
    return 1;
}

void rw_connection_accept(struct rw_core *core, uint32_t listener, int32_t fd) {
    struct rw_slot *slot = lists_reserve(core) == RW_OK ? rw_slot_pool_acquire(&core->pool) : NULL;
    if (!slot) {
        RW_COUNT(core, refused_slots, 1);
        rw_ring_close(core->ring, fd);
        return;
    }
    slot->fd = fd;
    slot->listener = (uint8_t)listener;
    slot->listener_generation = core->listeners[listener].generation;
    if (!rw_client_on_accept(core, slot)) {
        rw_slot_pool_release(&core->pool, slot);
        rw_ring_close(core->ring, fd);
        return;
    }
    if (core->listeners[listener].tls && rw_tls_accept(slot, &core->listeners[listener]) != RW_OK) {
        RW_COUNT(core, refused_memory, 1);
        rw_client_release(core, slot);
        rw_slot_pool_release(&core->pool, slot);
        rw_ring_close(core->ring, fd);
        return;
    }
    core->listeners[listener].connections++;
    slot->state.phase = RW_PHASE_OPEN;
    slot->state.protocol = core->listeners[listener].protocols.items[0] & (RW_PROTOCOLS_MAX - 1);
    slot->opened_ms = core->now_ms;
    slot->last_input_ms = core->now_ms;
    slot->last_output_ms = core->now_ms;
    RW_COUNT(core, accepts, 1);
    tell_connect(core, slot);
    rw_protocol_of(core, slot)->open(core, slot);
    recv_arm(core, slot);
}

void rw_connection_speak(struct rw_core *core, struct rw_slot *slot, uint32_t protocol) {
    if (slot->state.protocol == protocol) return;
    rw_protocol_of(core, slot)->release(core, slot);
    memset(slot->own, 0, sizeof slot->own);
    slot->state.protocol = protocol & (RW_PROTOCOLS_MAX - 1);
    rw_protocol_of(core, slot)->open(core, slot);
}

void rw_connection_finish(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.phase != RW_PHASE_OPEN) return;
    slot->state.phase = RW_PHASE_FINISHING;
    rw_connection_unstash(core, slot, slot->input_bytes);
    slot->deadline_ms = core->now_ms + core->limits.write_timeout_ms;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
    rw_connection_mark_dirty(core, slot);
    rw_connection_update_receive(core, slot);
}

static int host_told(struct rw_core *core, struct rw_slot *slot) {
    return rw_protocol_of(core, slot)->tell_closed(core, slot);
}

void rw_connection_fail(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.phase != RW_PHASE_OPEN) return;
    note_end(core, slot, RW_END_PEER_GONE);
    (void)host_told(core, slot); /* at once, if the batch has room, and else when the slot ends */
    if (slot->tls) rw_tls_forget_plain(slot->tls);
    rw_outbox_clear(&core->outbox, slot);
    rw_connection_note_backpressure(core, slot);
    rw_connection_finish(core, slot);
}

void rw_connection_terminate(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.phase == RW_PHASE_CLOSING || slot->state.phase == RW_PHASE_FREE) return;
    uint32_t index = rw_core_index(core, slot);
    slot->state.phase = RW_PHASE_CLOSING;
    if (slot->state.recv_armed && !slot->state.recv_cancelled) {
        slot->state.recv_cancelled = 1;
        (void)rw_ring_cancel(core->ring, slot->fd, rw_user_data(RW_OP_RECV, slot->generation, index));
    }
    if (slot->state.send_inflight && !slot->state.send_cancelled) {
        slot->state.send_cancelled = 1;
        (void)rw_ring_cancel(core->ring, slot->fd, rw_user_data(RW_OP_SEND, slot->generation, index));
    }
    rw_connection_unstash(core, slot, slot->input_bytes);
    rw_topics_drop(core->topics, index, &slot->subscriptions);
    rw_timer_wheel_cancel(&core->wheel, index);
    mark_ending(core, slot);
}

/* The kernel has let go and the host knows: the descriptor and the slot may be used again. */
static void release(struct rw_core *core, struct rw_slot *slot) {
    rw_tls_release(core, slot);
    rw_outbox_clear(&core->outbox, slot);
    rw_connection_note_backpressure(core, slot);
    rw_ring_close(core->ring, slot->fd);
    slot->fd = -1;
    rw_client_release(core, slot);
    rw_protocol_of(core, slot)->release(core, slot);
    if (rw_listener_is_of(core, slot)) core->listeners[slot->listener].connections--;
    RW_COUNT(core, closes, 1);
    rw_timer_wheel_cancel(&core->wheel, rw_core_index(core, slot));
    rw_slot_pool_release(&core->pool, slot);
    /* Room for a descriptor: listeners that ran out may go on at once. */
    if (core->accept_retry_ms) rw_core_retry_accept(core, core->now_ms);
}

void rw_connection_finish_ending(struct rw_core *core) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < core->ending.count; i++) {
        uint32_t index = core->ending.items[i];
        struct rw_slot *slot = rw_core_slot(core, index);
        /* On the other lists a slot must not stay when it changes hands. */
        int quiet = !slot->state.recv_armed && !slot->state.send_inflight && !slot->state.dirty && !slot->state.ready &&
                    !slot->state.recv_starved && !slot->state.resuming;
        if (host_told(core, slot) && disconnect_told(core, slot) && quiet) {
            slot->state.ending = 0;
            release(core, slot);
        } else {
            core->ending.items[kept++] = index;
        }
    }
    core->ending.count = kept;
}

/* ------------------------------------------------------------------ ready list and timers */

void rw_connection_serve_ready(struct rw_core *core, uint32_t count) {
    uint32_t kept = 0;
    uint32_t i = 0;
    for (; i < count; i++) {
        if (rw_work_is_over(core) || !rw_event_batch_has_room(core, RW_EVENT_LARGE_BYTES)) break;
        uint32_t share = (core->work.limit - core->work.spent) / (count - i);
        rw_work_share(core, share ? share : 1);
        struct rw_slot *slot = rw_core_slot(core, core->ready.items[i]);
        slot->state.ready = 0;
        if (slot->state.phase != RW_PHASE_OPEN) continue;
        serve_input(core, slot);
        if (slot->state.phase == RW_PHASE_OPEN && slot->state.peer_closed && !slot->state.ready)
            rw_protocol_of(core, slot)->peer_closed(core, slot);
        if (slot->state.phase == RW_PHASE_OPEN) rw_connection_update_receive(core, slot);
    }
    /* What was put on the list in this turn lies behind `count`; it and the rest wait for the next. */
    for (; i < core->ready.count; i++) core->ready.items[kept++] = core->ready.items[i];
    core->ready.count = kept;
}

void rw_connection_arm_timer(struct rw_core *core, struct rw_slot *slot, uint32_t due_ms) {
    uint64_t due = (uint64_t)((int64_t)(int32_t)(due_ms - core->now_ms));
    uint64_t due_wide = rw_before(due_ms, core->now_ms) ? 0 : due;
    uint64_t now_wide = core->clock_wide_ms;
    uint64_t at = now_wide + due_wide;
    if (slot->timer.bucket != 0 && slot->timer.due <= (at + RW_TIMER_TICK_MS - 1) / RW_TIMER_TICK_MS) return;
    rw_timer_wheel_schedule(&core->wheel, rw_core_index(core, slot), at);
}

/* How late a peer's bytes may be found: longer than any turn takes that its host does not block. */
#define SPARED_MS 1000u

int rw_connection_spares(struct rw_core *core, struct rw_slot *slot, uint32_t deadline_ms, short events) {
    if (!rw_before(core->now_ms, deadline_ms + SPARED_MS + core->blocked_ms)) return 0;
    int unread = (slot->state.ready || slot->state.answers_wait) && slot->input_bytes && events == POLLIN;
    if (!unread) {
        if (events == POLLIN && slot->state.peer_closed) return 0;
        struct pollfd asked = {.fd = slot->fd, .events = events};
        if (poll(&asked, 1, 0) <= 0 || !(asked.revents & events)) return 0;
    }
    rw_connection_arm_timer(core, slot, core->now_ms + 1);
    return 1;
}

/* A handshake has the time of a request head; nothing can be said to a peer that did not finish it. */
static void on_handshake_timer(struct rw_core *core, struct rw_slot *slot) {
    if (rw_before(core->now_ms, slot->deadline_ms)) {
        rw_connection_arm_timer(core, slot, slot->deadline_ms);
        return;
    }
    if (rw_connection_spares(core, slot, slot->deadline_ms, POLLIN)) return;
    RW_COUNT(core, timeouts_head, 1);
    rw_connection_terminate(core, slot);
}

void rw_connection_on_timer(struct rw_core *core, uint32_t index) {
    struct rw_slot *slot = rw_core_slot(core, index);
    if (slot->state.send_refused && !slot->state.send_inflight) rw_connection_mark_dirty(core, slot);
    switch ((enum rw_phase)slot->state.phase) {
        case RW_PHASE_FREE:
        case RW_PHASE_CLOSING: return;
        case RW_PHASE_FINISHING:
            /* Progress counts, not the deadline alone: a slow reader may take its time as long as it takes
             * something. */
            slot->deadline_ms = slot->last_output_ms + core->limits.write_timeout_ms;
            if (rw_before(core->now_ms, slot->deadline_ms)) {
                rw_connection_arm_timer(core, slot, slot->deadline_ms);
                return;
            }
            if (rw_connection_spares(core, slot, slot->deadline_ms, POLLOUT)) return;
            RW_COUNT(core, timeouts_write, 1);
            note_end(core, slot, RW_END_WRITE_TIMEOUT);
            rw_connection_reset(core, slot);
            return;
        case RW_PHASE_LINGERING: rw_connection_on_linger_timer(core, slot); return;
        case RW_PHASE_OPEN: break;
    }
    if ((slot->state.send_inflight || slot->state.send_refused) && rw_connection_has_output(slot)) {
        uint32_t due = slot->last_output_ms + core->limits.write_timeout_ms;
        if (!rw_before(core->now_ms, due) && !rw_connection_spares(core, slot, due, POLLOUT)) {
            RW_COUNT(core, timeouts_write, 1);
            note_end(core, slot, RW_END_WRITE_TIMEOUT);
            rw_connection_reset(core, slot);
            return;
        }
        if (rw_before(core->now_ms, due)) rw_connection_arm_timer(core, slot, due);
    }
    if (slot->tls && rw_tls_is_shaking_hands(slot->tls)) {
        on_handshake_timer(core, slot);
    } else {
        rw_protocol_of(core, slot)->timer(core, slot);
    }
}
