/* Connections, see connection.h. */
#include "connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "event_batch.h"
#include "http.h"
#include "ws.h"

#define SEND_RETRY_MS RW_TIMER_TICK_MS
/* A connection that is shut down on our side reads on so that the last bytes arrive (RFC 9112 §9.6), but not for ever. */
#define FLUSH_HOLD_BYTES 65536u /* a held-back pipeline is sent all the same past this */

/* ------------------------------------------------------------------ lists */

static void list_add(struct rw_core *core, struct rw_slot_list *list, struct rw_slot *slot) {
    /* Lists grow to the number of slots at most; they are pre-sized together with the pool's use in accept, so this cannot fail here. */
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

static void mark_ending(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.doomed) return;
    slot->state.doomed = 1;
    list_add(core, &core->ending, slot);
}

/* ------------------------------------------------------------------ receive */

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
    int wanted = (phase == RW_PHASE_OPEN && !slot->state.paused_by_host && !slot->state.paused_by_core) || phase == RW_PHASE_FINISHING ||
                 phase == RW_PHASE_LINGERING;
    if (slot->state.peer_closed || slot->state.recv_starved) wanted = 0;
    if (wanted && !slot->state.recv_armed) {
        recv_arm(core, slot);
    } else if (!wanted && slot->state.recv_armed && !slot->state.recv_cancelled) {
        slot->state.recv_cancelled = 1;
        (void)rw_ring_cancel(core->ring, slot->fd, rw_user_data(RW_OP_RECV, slot->generation, rw_core_index(core, slot)));
    }
}

int32_t rw_connection_stash(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    if (len == 0) return RW_OK;
    size_t needed = (size_t)slot->input_bytes + len;
    if (needed > UINT32_MAX / 2) {
        rw_connection_terminate(core, slot);
        return -ENOMEM;
    }
    if (!slot->input || rw_buffers_capacity(core->buffers, slot->input) < slot->input_offset + needed) {
        /* Past the first buffer, twice the room, so that appending is linear. */
        rw_buffer grown = rw_buffers_acquire(core->buffers, slot->input_bytes ? needed + needed / 2 : needed);
        if (!grown) {
            rw_connection_terminate(core, slot);
            return -ENOMEM;
        }
        if (slot->input) {
            memcpy(rw_buffers_data(core->buffers, grown), rw_connection_input(core, slot), slot->input_bytes);
            rw_buffers_release(core->buffers, slot->input);
        }
        slot->input = grown;
        slot->input_offset = 0;
    }
    memcpy(rw_buffers_data(core->buffers, slot->input) + slot->input_offset + slot->input_bytes, bytes, len);
    slot->input_bytes += (uint32_t)len;
    return RW_OK;
}

void rw_connection_unstash(struct rw_core *core, struct rw_slot *slot, uint32_t bytes) {
    assert(bytes <= slot->input_bytes);
    slot->input_offset += bytes;
    slot->input_bytes -= bytes;
    if (slot->input_bytes == 0 && slot->input) {
        rw_buffers_release(core->buffers, slot->input);
        slot->input = RW_BUFFER_NONE;
        slot->input_offset = 0;
    }
}

/* Give the protocol what is kept, as far as it can take it now. */
static void serve_input(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.protocol == RW_PROTOCOL_WEBSOCKET) {
        rw_ws_serve(core, slot);
    } else {
        rw_http_serve(core, slot);
    }
}

static void on_bytes(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len) {
    RW_COUNT(core, bytes_in, len);
    slot->last_input_ms = core->now_ms;
    if (slot->state.phase != RW_PHASE_OPEN) return;
    if (slot->input_bytes || slot->state.paused_by_host) {
        if (rw_connection_stash(core, slot, bytes, len) == RW_OK) serve_input(core, slot);
        return;
    }
    size_t consumed = slot->state.protocol == RW_PROTOCOL_WEBSOCKET ? rw_ws_input(core, slot, bytes, len) : rw_http_input(core, slot, bytes, len);
    if (slot->state.phase != RW_PHASE_OPEN) return;
    assert(consumed <= len);
    if (rw_connection_stash(core, slot, bytes + consumed, len - consumed) != RW_OK) return;
    if (slot->state.protocol == RW_PROTOCOL_HTTP) rw_http_update_pause(core, slot);
}

static void on_end_of_stream(struct rw_core *core, struct rw_slot *slot) {
    slot->state.peer_closed = 1;
    if (slot->state.phase == RW_PHASE_OPEN) {
        /* A peer that sends its last request and half-closes is served when the answer is ready within this turn: so decide in the next. */
        rw_connection_mark_ready(core, slot);
    } else if (slot->state.phase == RW_PHASE_LINGERING) {
        rw_connection_terminate(core, slot);
    }
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
        on_bytes(core, slot, completion->data, (uint32_t)result);
    } else if (result == 0) {
        on_end_of_stream(core, slot);
    } else if (result == -ENOBUFS) {
        RW_COUNT(core, recv_no_buffers, 1);
        if (!slot->state.recv_armed && slot->state.phase != RW_PHASE_CLOSING) {
            slot->state.recv_starved = 1;
            core->starved++;
        }
    } else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN) {
        slot->state.peer_closed = 1;
        rw_connection_terminate(core, slot);
    }
    if (completion->flags & RW_COMPLETION_BUFFER) rw_ring_buffer_return(core->ring, completion->buffer_id);
    if (slot->state.phase != RW_PHASE_CLOSING) rw_connection_update_receive(core, slot);
}

void rw_connection_feed_starved(struct rw_core *core) {
    if (!core->starved) return;
    for (uint32_t index = 0; index < core->pool.carved && core->starved; index++) {
        struct rw_slot *slot = rw_core_slot(core, index);
        if (!slot->state.recv_starved) continue;
        slot->state.recv_starved = 0;
        core->starved--;
        if (slot->state.phase != RW_PHASE_FREE) rw_connection_update_receive(core, slot);
    }
}

/* ------------------------------------------------------------------ send */

static void note_backpressure(struct rw_core *core, struct rw_slot *slot) {
    unsigned waiting = slot->out_bytes > 0;
    if (slot->state.counted == waiting) return;
    slot->state.counted = waiting & 1u;
    uint64_t now = core->stats->backpressure_connections;
    RW_GAUGE(core, backpressure_connections, waiting ? now + 1 : now - 1);
}

static void after_sent(struct rw_core *core, struct rw_slot *slot, uint32_t bytes) {
    rw_outbox_consume(&core->outbox, slot, bytes);
    slot->last_output_ms = core->now_ms;
    RW_COUNT(core, bytes_out, bytes);
    /* Pongs still queued cannot be more than what is queued: a queue that is never quite empty does not end the answers to pings. */
    if (slot->state.protocol == RW_PROTOCOL_WEBSOCKET && slot->as.ws.control_bytes > slot->out_bytes) slot->as.ws.control_bytes = slot->out_bytes;
    if (slot->state.counted) note_backpressure(core, slot);
}

static void send_queued(struct rw_core *core, struct rw_slot *slot) {
    struct iovec iov[RW_SEND_IOVECS_MAX];
    uint32_t count = rw_outbox_peek(&core->outbox, slot, iov, RW_SEND_IOVECS_MAX);
    if (count == 0) return;
    uint32_t tried = 0;
    for (uint32_t i = 0; i < count; i++) tried += (uint32_t)iov[i].iov_len;
    slot->out_unflushed = slot->out_bytes - tried;
    int32_t sent = rw_ring_send(core->ring, slot->fd, rw_user_data(RW_OP_SEND, slot->generation, rw_core_index(core, slot)), iov, count);
    if (sent < 0) {
        rw_connection_terminate(core, slot);
        return;
    }
    slot->state.send_inflight = 1;
    slot->state.send_cancelled = 0;
    if (!slot->state.send_refused) slot->last_output_ms = core->now_ms;
    /* A send that never completes is followed by nothing else that would look at the time. */
    rw_connection_arm_timer(core, slot, core->now_ms + core->limits.write_timeout_ms);
}

/* All is sent: what waited for that happens now. */
static void on_drained(struct rw_core *core, struct rw_slot *slot) {
    switch ((enum rw_phase)slot->state.phase) {
        case RW_PHASE_OPEN:
            if (slot->state.protocol == RW_PROTOCOL_WEBSOCKET) {
                rw_ws_on_drained(core, slot);
            } else {
                rw_http_on_drained(core, slot);
            }
            break;
        case RW_PHASE_FINISHING:
            (void)shutdown(slot->fd, SHUT_WR);
            slot->state.phase = RW_PHASE_LINGERING;
            slot->deadline_ms = core->now_ms + core->limits.linger_timeout_ms;
            if (slot->state.peer_closed) {
                rw_connection_terminate(core, slot);
                break;
            }
            rw_connection_arm_timer(core, slot, slot->deadline_ms);
            rw_connection_update_receive(core, slot);
            break;
        case RW_PHASE_LINGERING:
        case RW_PHASE_CLOSING:
        case RW_PHASE_FREE:
            break;
    }
}

void rw_connection_on_send(struct rw_core *core, const struct rw_completion *completion) {
    struct rw_slot *slot = rw_core_slot(core, rw_user_data_index(completion->user_data));
    assert((slot->generation & 0xFFFFFFu) == rw_user_data_generation(completion->user_data) && slot->state.send_inflight);
    slot->state.send_inflight = 0;
    slot->state.send_cancelled = 0;
    int32_t result = completion->result;
    if (result < 0 && result != -EAGAIN && result != -EINTR) {
        /* -ECANCELED only follows terminate, which has set CLOSING. */
        if (slot->state.phase != RW_PHASE_CLOSING) rw_connection_terminate(core, slot);
        return;
    }
    if (result > 0) after_sent(core, slot, (uint32_t)result);
    if (slot->state.phase == RW_PHASE_CLOSING) return;
    slot->state.send_refused = result == -EAGAIN;
    if (slot->state.send_refused) {
        /* io_uring takes the end of the peer's stream for room to send (IO_POLL_UNMASK has EPOLLRDHUP), so a send to a half-closed peer
         * that reads slowly never waits: sending again at once would spin. */
        note_backpressure(core, slot);
        rw_connection_arm_timer(core, slot, core->now_ms + SEND_RETRY_MS);
        return;
    }
    if (slot->out_bytes > slot->out_unflushed) {
        RW_COUNT(core, send_short, 1);
        note_backpressure(core, slot);
        rw_connection_arm_timer(core, slot, core->now_ms + core->limits.write_timeout_ms);
    }
    if (slot->out_bytes) {
        rw_connection_mark_dirty(core, slot);
    } else {
        on_drained(core, slot);
    }
}

void rw_connection_flush_now(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.send_inflight || slot->out_bytes == 0 || slot->state.phase == RW_PHASE_CLOSING) return;
    struct iovec iov[RW_SEND_IOVECS_MAX];
    uint32_t count = rw_outbox_peek(&core->outbox, slot, iov, RW_SEND_IOVECS_MAX);
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t sent = sendmsg(slot->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    uint32_t tried = 0;
    for (uint32_t i = 0; i < count; i++) tried += (uint32_t)iov[i].iov_len;
    /* An error shows again at the next send through the ring, which ends the connection. */
    if (sent > 0) after_sent(core, slot, (uint32_t)sent);
    int refused = sent < 0 || (uint32_t)sent < tried;
    slot->out_unflushed = refused ? 0 : slot->out_bytes;
    if (refused) note_backpressure(core, slot);
}

void rw_connection_flush_dirty(struct rw_core *core) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < core->dirty.count; i++) {
        uint32_t index = core->dirty.items[i];
        struct rw_slot *slot = rw_core_slot(core, index);
        if (slot->state.ready && !slot->state.peer_closed && slot->out_bytes < FLUSH_HOLD_BYTES && slot->state.phase == RW_PHASE_OPEN) {
            core->dirty.items[kept++] = index;
            continue;
        }
        slot->state.dirty = 0;
        if (slot->state.phase == RW_PHASE_CLOSING || slot->state.phase == RW_PHASE_FREE) continue;
        if (slot->state.send_inflight) {
            /* The kernel has not taken the last send: its completion marks the slot dirty again. */
            rw_connection_arm_timer(core, slot, slot->last_output_ms + core->limits.write_timeout_ms);
            note_backpressure(core, slot);
        } else if (slot->out_bytes) {
            send_queued(core, slot);
        } else {
            on_drained(core, slot);
        }
    }
    core->dirty.count = kept;
}

/* ------------------------------------------------------------------ begin and end */

static int32_t lists_reserve(struct rw_core *core) {
    /* A slot is on each list once at most; twice that, because serving a list may put slots on its end again. */
    struct rw_slot_list *lists[] = {&core->dirty, &core->ready, &core->ending};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        while (lists[i]->capacity < 2 * (core->pool.carved + 1)) {
            uint32_t count = lists[i]->count;
            uint32_t capacity = lists[i]->capacity;
            lists[i]->count = capacity;
            if (rw_slot_list_push(lists[i], 0) < 0) {
                lists[i]->count = count;
                return -ENOMEM;
            }
            lists[i]->count = count;
        }
    }
    return RW_OK;
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
    slot->state.phase = RW_PHASE_OPEN;
    slot->state.protocol = RW_PROTOCOL_HTTP;
    slot->opened_ms = core->now_ms;
    slot->last_input_ms = core->now_ms;
    slot->last_output_ms = core->now_ms;
    RW_COUNT(core, accepts, 1);
    RW_GAUGE(core, connections_http, core->stats->connections_http + 1);
    rw_http_open(core, slot);
    recv_arm(core, slot);
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
    if (slot->state.recv_starved) {
        slot->state.recv_starved = 0;
        core->starved--;
    }
    rw_connection_unstash(core, slot, slot->input_bytes);
    rw_topics_drop(core->topics, index, &slot->subscriptions);
    rw_timer_wheel_cancel(&core->wheel, index);
    mark_ending(core, slot);
}

/* The kernel has let go and the host knows: the descriptor and the slot may be used again. */
static void release(struct rw_core *core, struct rw_slot *slot) {
    rw_outbox_clear(&core->outbox, slot);
    note_backpressure(core, slot);
    rw_ring_close(core->ring, slot->fd);
    slot->fd = -1;
    if (slot->state.protocol == RW_PROTOCOL_WEBSOCKET) {
        rw_ws_release(core, slot);
        RW_GAUGE(core, connections_websocket, core->stats->connections_websocket - 1);
    } else {
        RW_GAUGE(core, connections_http, core->stats->connections_http - 1);
    }
    RW_COUNT(core, closes, 1);
    rw_timer_wheel_cancel(&core->wheel, rw_core_index(core, slot));
    rw_slot_pool_release(&core->pool, slot);
    /* Room for a descriptor: listeners that ran out may go on at once. */
    if (core->accept_retry_ms) core->accept_retry_ms = core->now_ms;
}

static int host_told(struct rw_core *core, struct rw_slot *slot) {
    return slot->state.protocol == RW_PROTOCOL_WEBSOCKET ? rw_ws_tell_closed(core, slot) : rw_http_tell_closed(core, slot);
}

void rw_connection_finish_ending(struct rw_core *core) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < core->ending.count; i++) {
        uint32_t index = core->ending.items[i];
        struct rw_slot *slot = rw_core_slot(core, index);
        /* On the other lists a slot must not stay when it changes hands. */
        int quiet = !slot->state.recv_armed && !slot->state.send_inflight && !slot->state.dirty && !slot->state.ready;
        if (host_told(core, slot) && quiet) {
            slot->state.doomed = 0;
            release(core, slot);
        } else {
            core->ending.items[kept++] = index;
        }
    }
    core->ending.count = kept;
}

/* ------------------------------------------------------------------ ready list and timers */

void rw_connection_serve_ready(struct rw_core *core) {
    uint32_t count = core->ready.count;
    uint32_t kept = 0;
    uint32_t i = 0;
    for (; i < count; i++) {
        if (!rw_event_batch_has_room(core, RW_EVENT_LARGE_BYTES)) break;
        struct rw_slot *slot = rw_core_slot(core, core->ready.items[i]);
        slot->state.ready = 0;
        if (slot->state.phase != RW_PHASE_OPEN) continue;
        serve_input(core, slot);
        if (slot->state.phase == RW_PHASE_OPEN && slot->state.peer_closed && !slot->state.ready) {
            if (slot->state.protocol == RW_PROTOCOL_WEBSOCKET) {
                rw_ws_on_peer_closed(core, slot);
            } else {
                rw_http_on_peer_closed(core, slot);
            }
        }
    }
    /* What the serving itself put on the list lies behind `count`; it and the rest wait for the next turn. */
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

void rw_connection_on_timer(struct rw_core *core, uint32_t index) {
    struct rw_slot *slot = rw_core_slot(core, index);
    if (slot->state.send_refused && !slot->state.send_inflight) rw_connection_mark_dirty(core, slot);
    switch ((enum rw_phase)slot->state.phase) {
        case RW_PHASE_FREE:
        case RW_PHASE_CLOSING:
            return;
        case RW_PHASE_FINISHING:
            /* Progress counts, not the deadline alone: a slow reader may take its time as long as it takes something. */
            slot->deadline_ms = slot->last_output_ms + core->limits.write_timeout_ms;
            if (rw_before(core->now_ms, slot->deadline_ms)) {
                rw_connection_arm_timer(core, slot, slot->deadline_ms);
                return;
            }
            RW_COUNT(core, timeouts_write, 1);
            rw_connection_terminate(core, slot);
            return;
        case RW_PHASE_LINGERING:
            if (rw_before(core->now_ms, slot->deadline_ms)) {
                rw_connection_arm_timer(core, slot, slot->deadline_ms);
            } else {
                rw_connection_terminate(core, slot);
            }
            return;
        case RW_PHASE_OPEN:
            break;
    }
    if ((slot->state.send_inflight || slot->state.send_refused) && slot->out_bytes) {
        uint32_t due = slot->last_output_ms + core->limits.write_timeout_ms;
        if (!rw_before(core->now_ms, due)) {
            RW_COUNT(core, timeouts_write, 1);
            rw_connection_terminate(core, slot);
            return;
        }
        rw_connection_arm_timer(core, slot, due);
    }
    if (slot->state.protocol == RW_PROTOCOL_WEBSOCKET) {
        rw_ws_on_timer(core, slot);
    } else {
        rw_http_on_timer(core, slot);
    }
}
