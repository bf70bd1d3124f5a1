/* WebSockets: opening, control frames, receiving and the end, see ws.h. */
#include "ws/ws.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/age.h"
#include "base/utf8.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/unfinished.h"
#include "connection/work.h"
#include "ws/deflate.h"
#include "ws/dropped.h"

/* ------------------------------------------------------------------ opening */

void rw_ws_open(struct rw_core *core, struct rw_slot *slot, uint32_t behavior, uint32_t quiet) {
    memset(slot->own, 0, sizeof slot->own);
    slot->state.protocol = RW_WS_PROTOCOL;
    slot->state.paused_by_core = 0;
    slot->behavior = (uint8_t)behavior;
    slot->deadline_ms = 0;
    slot->last_input_ms = core->now_ms; /* the host may have taken its time to accept */
    rw_ws_of(slot)->opened_ms = core->now_ms;
    rw_ws_of(slot)->last_ping_ms = core->now_ms;
    rw_ws_of(slot)->rate_ms = core->now_ms - RW_WS_RATE_BURST_MS; /* all that may come at once */
    rw_ws_of(slot)->flags = quiet ? 0 : RW_WS_OPEN_DUE;
    RW_COUNT(core, ws_upgrades, 1);
    RW_GAUGE(core, connections_websocket, core->stats->connections_websocket + 1);
    rw_connection_update_receive(core, slot);
    rw_connection_mark_ready(core, slot);
    rw_connection_arm_timer(core, slot, core->now_ms);
}

/* ------------------------------------------------------------------ control frames */

/* ret: 0 when the event has no room */
static int tell_control(struct rw_core *core, struct rw_slot *slot, enum rw_event_type type, const uint8_t *data,
                        uint32_t bytes) {
    uint8_t *payload;
    struct rw_event *event = rw_event_add(core, slot, type, bytes, &payload);
    if (!event) {
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    if (bytes) memcpy(payload, data, bytes);
    event->arg0 = slot->behavior;
    rw_ws_of(slot)->told_turn = rw_ws_turn_mark(core);
    rw_ws_use_window(core, slot, bytes);
    rw_work_charge_event(core, bytes);
    return 1;
}

static int on_ping(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint32_t bytes) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    if (rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_WANTS_PING &&
        !tell_control(core, slot, RW_EVENT_PING, data, bytes))
        return 0;
    RW_COUNT(core, ws_pings_in, 1);
    if (ws->flags & RW_WS_CLOSE_SENT) return 1;
    if (ws->control_bytes > RW_WS_CONTROL_QUEUE_BYTES_MAX) {
        /* The peer does not read its pongs: only the latest pings must be answered (RFC 6455 §5.5.3). */
        RW_COUNT(core, drops_control, 1);
        return 1;
    }
    ws->control_bytes += bytes + 2;
    rw_ws_send_control(core, slot, RW_WS_OP_PONG, data, bytes);
    return 1;
}

static void on_close(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint32_t bytes) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint32_t code = bytes >= 2 ? (uint32_t)data[0] << 8 | data[1] : 1005;
    RW_COUNT(core, ws_closes_in, 1);
    if (bytes == 1 || (bytes >= 2 && !rw_ws_close_code_valid(code))) {
        rw_ws_fail(core, slot, RW_CLOSE_PROTOCOL_ERROR);
        return;
    }
    const uint8_t *reason = data + 2;
    uint32_t reason_bytes = bytes > 2 ? bytes - 2 : 0;
    if (reason_bytes && rw_utf8_feed(RW_UTF8_ACCEPT, reason, reason_bytes) != RW_UTF8_ACCEPT) {
        rw_ws_fail(core, slot, RW_CLOSE_INVALID_UTF8);
        return;
    }
    rw_ws_note_cause(slot, RW_CLOSE_BY_PEER);
    rw_ws_drop_message(core, slot);
    rw_buffer kept = reason_bytes ? rw_buffers_acquire(core->buffers, reason_bytes) : RW_BUFFER_NONE;
    if (kept) {
        memcpy(rw_buffers_data(core->buffers, kept), reason, reason_bytes);
        rw_ws_put_message(core, slot, kept);
        ws->reason_bytes = reason_bytes;
    }
    ws->flags |= RW_WS_CLOSE_RECEIVED;
    ws->close_code = (uint16_t)code;
    if (!(ws->flags & RW_WS_CLOSE_SENT)) {
        rw_ws_send_control(core, slot, RW_WS_OP_CLOSE, data, bytes >= 2 ? 2 : 0);
        ws->flags |= RW_WS_CLOSE_SENT;
        RW_COUNT(core, ws_closes_out, 1);
    }
    /* Both have said it: the server closes first (RFC 6455 §7.1.1). */
    (void)rw_ws_tell_closed(core, slot);
    rw_connection_finish(core, slot);
}

static size_t on_control_frame(struct rw_core *core, struct rw_slot *slot, const struct rw_ws_frame *frame,
                               const uint8_t *bytes, size_t header_bytes, size_t len) {
    uint32_t payload_bytes = (uint32_t)frame->payload_bytes;
    if (len - header_bytes < payload_bytes) return 0;
    uint8_t payload[RW_WS_CONTROL_BYTES_MAX];
    rw_ws_mask(payload, bytes + header_bytes, payload_bytes, frame->mask, 0);
    switch ((enum rw_ws_opcode)frame->opcode) {
        case RW_WS_OP_PING: {
            int rated = rw_ws_is_rated(rw_ws_behavior(core, slot));
            if (rated && !rw_ws_rate_admit(core, slot)) return 0;
            if (!on_ping(core, slot, payload, payload_bytes)) return 0;
            if (rated) rw_ws_rate_charge(slot, 1, 0);
            break;
        }
        case RW_WS_OP_PONG:
            if (rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_WANTS_PONG &&
                !tell_control(core, slot, RW_EVENT_PONG, payload, payload_bytes))
                return 0;
            RW_COUNT(core, ws_pongs_in, 1);
            break;
        case RW_WS_OP_CLOSE:
            if (rw_ws_awaits_answers(core, slot)) {
                /* Its answers go out before ours to the close. */
                rw_connection_mark_ready(core, slot);
                return 0;
            }
            on_close(core, slot, payload, payload_bytes);
            break;
        case RW_WS_OP_CONTINUATION:
        case RW_WS_OP_TEXT:
        case RW_WS_OP_BINARY: assert(0 && "a data frame is not a control frame");
    }
    return header_bytes + payload_bytes;
}

/* ------------------------------------------------------------------ input */

static size_t on_frame(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, size_t len) {
    struct rw_ws_frame frame;
    int32_t header_bytes =
        rw_ws_decode_header(bytes, len, rw_ws_of(slot)->deflate_flags & RW_WS_DEFLATE_AGREED, &frame);
    if (header_bytes == 0) return 0;
    if (header_bytes < 0) {
        rw_ws_fail(core, slot, RW_CLOSE_PROTOCOL_ERROR);
        return 0;
    }
    if (frame.opcode >= RW_WS_OP_CLOSE) return on_control_frame(core, slot, &frame, bytes, (size_t)header_bytes, len);
    return rw_ws_on_data_frame(core, slot, &frame, bytes, (size_t)header_bytes, len);
}

/* A peer that reads, but asks for more than it reads: half of what may wait for it does, and the kernel goes on taking
 * it. One frame is then served each time that it has, so that a client which reads its answers is never past its limit,
 * and one with much to hear, from a topic say, is heard itself. Who reads nothing for so long is not waited for: its
 * limit is there for that. */
static int asks_ahead(const struct rw_core *core, const struct rw_slot *slot) {
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    if (slot->out_bytes <= behavior->max_backpressure_bytes / 2) return 0;
    if (behavior->flags & RW_BEHAVIOR_LIMIT_BEFORE || rw_ws_of(slot)->flags & RW_WS_CLOSE_SENT) return 0;
    return rw_before(core->now_ms, slot->last_output_ms + RW_WS_READING_MS);
}

static void wait_for_reader(struct rw_core *core, struct rw_slot *slot) {
    slot->state.answers_wait = 1;
    rw_connection_arm_timer(core, slot, slot->last_output_ms + RW_WS_READING_MS);
}

void rw_ws_answers_read(struct rw_core *core, struct rw_slot *slot) {
    slot->state.answers_wait = 0;
    /* it was not read from: its silence begins now, or its message goes on */
    slot->last_input_ms = rw_ws_of(slot)->message_began_ms = core->now_ms;
    rw_connection_mark_ready(core, slot);
}

static size_t take(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, size_t len) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    size_t at = 0;
    int ahead = asks_ahead(core, slot);
    while (at < len && slot->state.phase == RW_PHASE_OPEN && !slot->state.paused_by_host && !ws->fail_due) {
        if (ws->flags & (RW_WS_OPEN_DUE | RW_WS_MESSAGE_DUE) || rw_work_is_spent(core)) {
            rw_connection_mark_ready(core, slot);
            break;
        }
        rw_work_charge(core, 1);
        size_t used = ws->flags & RW_WS_IN_FRAME ? rw_ws_on_payload(core, slot, bytes + at, len - at)
                                                 : on_frame(core, slot, bytes + at, len - at);
        if (used == 0) break;
        at += used;
        if (ahead && at < len) {
            wait_for_reader(core, slot);
            break;
        }
    }
    return slot->state.phase == RW_PHASE_OPEN && !ws->fail_due ? at : len;
}

static void input(struct rw_core *core, struct rw_slot *slot, uint8_t *bytes, uint32_t len) {
    size_t consumed = take(core, slot, bytes, len);
    if (slot->state.phase == RW_PHASE_OPEN) (void)rw_connection_stash(core, slot, bytes + consumed, len - consumed);
}

static void serve_notices(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    if (ws->flags & RW_WS_OPEN_DUE) {
        struct rw_event *event = rw_event_add(core, slot, RW_EVENT_OPEN, 0, NULL);
        if (!event) goto full;
        event->arg0 = slot->behavior;
        ws->flags &= (uint8_t)~RW_WS_OPEN_DUE;
        ws->told_turn = rw_ws_turn_mark(core);
    }
    if (ws->flags & RW_WS_MESSAGE_DUE) {
        rw_ws_deliver_message(core, slot);
        if (ws->flags & RW_WS_MESSAGE_DUE || slot->state.phase != RW_PHASE_OPEN) return;
    }
    if (ws->dropped) {
        if (behavior->flags & (RW_BEHAVIOR_WANTS_DROPPED | RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD)) {
            struct rw_event *event = rw_event_add(core, slot, RW_EVENT_DROPPED, 0, NULL);
            if (!event) goto full;
            event->arg0 = ws->dropped;
        }
        ws->dropped = 0;
    }
    if (ws->flags & RW_WS_DRAIN_DUE) {
        if (behavior->flags & RW_BEHAVIOR_WANTS_DRAIN && !rw_event_add(core, slot, RW_EVENT_WS_DRAIN, 0, NULL))
            goto full;
        ws->flags &= (uint8_t)~RW_WS_DRAIN_DUE;
    }
    return;
full:
    rw_connection_mark_ready(core, slot);
}

static void serve(struct rw_core *core, struct rw_slot *slot) {
    if (rw_ws_of(slot)->fail_due) {
        rw_ws_fail(core, slot, (enum rw_close_cause)rw_ws_of(slot)->fail_due);
        return;
    }
    serve_notices(core, slot);
    if (slot->state.paused_by_host || slot->state.answers_wait || !slot->input_bytes) return;
    if (slot->state.paused_by_core && !rw_ws_rate_resume(core, slot)) return;
    size_t consumed =
        take(core, slot, rw_buffers_data(core->buffers, slot->input) + slot->input_offset, slot->input_bytes);
    if (slot->state.phase == RW_PHASE_OPEN) rw_connection_unstash(core, slot, (uint32_t)consumed);
}

static void sent(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    if (slot->state.answers_wait) rw_ws_answers_read(core, slot);
    /* Pongs still queued cannot be more than what is queued: a queue that is never quite empty does not end the answers
     * to pings. */
    if (ws->control_bytes > slot->out_bytes) ws->control_bytes = slot->out_bytes;
    /* It has read, and whoever reads what waits for it is not silent: a ping waits behind that, and so does its
     * answer. */
    if (slot->state.counted) slot->last_input_ms = core->now_ms;
}

static void drained(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    ws->control_bytes = 0;
    if (!(ws->flags & RW_WS_DRAIN_WANTED)) return;
    ws->flags = (uint8_t)((ws->flags & ~RW_WS_DRAIN_WANTED) | RW_WS_DRAIN_DUE);
    rw_connection_mark_ready(core, slot);
}

/* ------------------------------------------------------------------ the end */

static void peer_closed(struct rw_core *core, struct rw_slot *slot) {
    /* Input that waits for room in the batch was sent before the end of stream: it is delivered first. */
    if (slot->input_bytes && (slot->state.paused_by_host || slot->state.paused_by_core || slot->state.answers_wait))
        return;
    if (rw_ws_awaits_answers(core, slot)) {
        rw_connection_mark_ready(core, slot); /* and so is what the host has to say to it */
        return;
    }
    rw_ws_note_cause(slot, RW_CLOSE_PEER_GONE);
    if (!rw_connection_has_output(slot)) {
        rw_connection_terminate(core, slot);
        return;
    }
    /* It may still read, and what has begun to go out is not to end within a frame. */
    (void)rw_ws_tell_closed(core, slot);
    rw_connection_finish(core, slot);
}

int rw_ws_tell_closed(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    if (ws->flags & RW_WS_CLOSE_TOLD) return 1;
    uint32_t opening = ws->flags & RW_WS_OPEN_DUE ? 1 : 0;
    if (core->events.count + opening + 1 > RW_EVENTS_CAPACITY || !rw_event_batch_has_room(core, ws->reason_bytes))
        return 0;
    if (rw_dropped_waits(core, slot)) return 0;
    if (opening) {
        struct rw_event *open = rw_event_add(core, slot, RW_EVENT_OPEN, 0, NULL);
        open->arg0 = slot->behavior;
        ws->flags &= (uint8_t)~RW_WS_OPEN_DUE;
    }
    uint8_t *payload = NULL;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_CLOSE, ws->reason_bytes, &payload);
    if (ws->reason_bytes) memcpy(payload, rw_buffers_data(core->buffers, ws->message), ws->reason_bytes);
    event->arg0 = ws->close_code ? ws->close_code : 1006;
    event->arg1 = ws->close_cause;
    ws->flags |= RW_WS_CLOSE_TOLD;
    return 1;
}

static void release(struct rw_core *core, struct rw_slot *slot) {
    rw_ws_drop_message(core, slot);
    if (rw_ws_of(slot)->held) rw_buffers_release(core->buffers, rw_ws_of(slot)->held);
    rw_ws_of(slot)->held = RW_BUFFER_NONE;
    rw_deflate_release(core, slot);
    RW_GAUGE(core, connections_websocket, core->stats->connections_websocket - 1);
}

/* ------------------------------------------------------------------ the table */

static void refuse_input(struct rw_core *core, struct rw_slot *slot) { rw_ws_fail(core, slot, RW_CLOSE_UNFINISHED); }

static int pause(struct rw_slot *slot, int resume, uint32_t window) {
    /* Once this side has closed, the answer must be read. */
    if (!rw_ws_can_send(slot)) return 0;
    rw_ws_of(slot)->window = resume ? window : 0;
    return 1;
}

static void resumed(struct rw_core *core, struct rw_slot *slot) { rw_ws_of(slot)->message_began_ms = core->now_ms; }

static int hears_raw(const struct rw_core *core, const struct rw_slot *slot) {
    return !(rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_POSITIONS);
}

static uint32_t *topics(struct rw_slot *slot) { return &rw_ws_of(slot)->topics; }

static int drain_now(struct rw_core *core, struct rw_slot *slot) {
    if (!rw_ws_can_send(slot)) return 0;
    rw_ws_note_cause(slot, RW_CLOSE_DRAIN);
    rw_ws_close(core, slot, core->drain.code, NULL, 0);
    return 1;
}

/* That the host has ended it is noted where it says so (left_by_host). */
static void note_end(struct rw_slot *slot, enum rw_end_cause cause) {
    switch (cause) {
        case RW_END_PEER_GONE: rw_ws_note_cause(slot, RW_CLOSE_PEER_GONE); break;
        case RW_END_NO_MEMORY: rw_ws_note_cause(slot, RW_CLOSE_NO_MEMORY); break;
        case RW_END_WRITE_TIMEOUT: rw_ws_note_cause(slot, RW_CLOSE_WRITE_TIMEOUT); break;
        case RW_END_BY_HOST: break;
    }
}

static void age(struct rw_slot *slot, const struct rw_age_span *span) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    rw_age(&ws->opened_ms, span);
    rw_age(&ws->last_ping_ms, span);
    rw_age(&ws->message_began_ms, span);
    rw_age(&ws->rate_ms, span);
}

const struct rw_protocol rw_ws_protocol = {.input = input,
                                           .serve = serve,
                                           .sent = sent,
                                           .drained = drained,
                                           .refuse_input = refuse_input,
                                           .pause = pause,
                                           .resumed = resumed,
                                           .deliver = rw_ws_deliver,
                                           .hears = rw_ws_can_send,
                                           .hears_raw = hears_raw,
                                           .fell_behind = rw_ws_fell_behind,
                                           .topics = topics,
                                           .timer = rw_ws_timer,
                                           .peer_closed = peer_closed,
                                           .drain_now = drain_now,
                                           .note_end = note_end,
                                           .tell_closed = rw_ws_tell_closed,
                                           .release = release,
                                           .age = age};

int32_t rw_ws_create(struct rw_core *core) {
    core->ws = calloc(1, sizeof *core->ws);
    return core->ws ? RW_OK : -ENOMEM;
}

void rw_ws_destroy(struct rw_core *core) {
    if (!core->ws) return;
    if (core->ws->ping_frame) rw_buffers_release(core->buffers, core->ws->ping_frame);
    rw_dropped_destroy(core);
    rw_deflate_destroy(core);
    free(core->ws);
}
