/* WebSockets, receiving side, see ws.h. */
#include "ws/ws.h"

#include <poll.h>
#include <string.h>

#include "base/age.h"
#include "base/utf8.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/unfinished.h"
#include "connection/work.h"
#include "ws/deflate.h"
#include "ws/dropped.h"

/* Pings are due at whole seconds of the core clock, so that many idle sockets wake the worker together and not one by
 * one. */
#define PING_GRID_MS 1024u
/* Shorter intervals are kept to as they are: a second more could be past the idle timeout. */
#define PING_GRID_INTERVAL_MS 8192u
/* A quarter of what the clock counts to: deadlines further away are looked at again on their way. */
#define LOOK_MS (1u << 30)

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

/* ------------------------------------------------------------------ delivering */

/* Take the buffer of the present message out of the slot, and out of what is unfinished. ret: it, or RW_BUFFER_NONE */
static rw_buffer take_message(struct rw_core *core, struct rw_slot *slot) {
    rw_buffer message = rw_ws_of(slot)->message;
    if (message) rw_unfinished_remove_buffer(core, message);
    rw_ws_of(slot)->message = RW_BUFFER_NONE;
    return message;
}

static void put_message(struct rw_core *core, struct rw_slot *slot, rw_buffer message) {
    rw_unfinished_add_buffer(core, message);
    rw_ws_of(slot)->message = message;
}

static void drop_message(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    rw_buffer message = take_message(core, slot);
    if (message) rw_buffers_release(core->buffers, message);
    ws->message_bytes = 0;
    ws->message_opcode = 0;
    ws->message_deflated = 0;
    ws->utf8_state = RW_UTF8_ACCEPT;
}

/* The host was told of something that the peer has sent. */
static void use_window(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint64_t used = bytes + RW_WINDOW_EVENT_BYTES;
    if (ws->window == 0) return;
    if (used < ws->window) {
        ws->window -= (uint32_t)used;
        return;
    }
    ws->window = 0;
    slot->state.paused_by_host = 1;
    rw_connection_update_receive(core, slot);
}

static void count_message(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
    rw_ws_of(slot)->told_turn = rw_ws_turn_mark(core);
    use_window(core, slot, bytes);
    rw_work_charge_event(core, bytes);
    RW_COUNT(core, ws_messages_in, 1);
    RW_COUNT(core, ws_bytes_in, bytes);
}

/* No room in the batch: the message stays, and the slot comes back next turn. */
static void deliver_later(struct rw_core *core, struct rw_slot *slot) {
    rw_ws_of(slot)->flags |= RW_WS_MESSAGE_DUE;
    rw_connection_mark_ready(core, slot);
}

/* Hand over the message that was put together and is not compressed, or not any more. */
static void deliver_plain(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint32_t bytes = (uint32_t)ws->message_bytes;
    struct rw_event *event;
    if (bytes > RW_EVENT_LARGE_BYTES) {
        event = rw_event_add_large(core, slot, RW_EVENT_MESSAGE, ws->message, bytes);
        if (event) (void)take_message(core, slot);
    } else {
        uint8_t *payload;
        event = rw_event_add(core, slot, RW_EVENT_MESSAGE, bytes, &payload);
        if (event && bytes) memcpy(payload, rw_buffers_data(core->buffers, ws->message), bytes);
        if (event) event->arg0 = slot->behavior;
    }
    if (!event) {
        deliver_later(core, slot);
        return;
    }
    if (ws->message_opcode == RW_WS_OP_BINARY) event->flags |= RW_WS_BINARY;
    count_message(core, slot, bytes);
    drop_message(core, slot);
}

static enum rw_close_cause cause_of(enum rw_inflate_result result) {
    if (result == RW_INFLATE_NO_WINDOW) return RW_CLOSE_INFLATE_WINDOWS;
    return result == RW_INFLATE_TOO_BIG ? RW_CLOSE_TOO_BIG : RW_CLOSE_INVALID_DEFLATE;
}

/* Inflate a whole message into the batch, which has room for RW_EVENT_LARGE_BYTES, or into a buffer when it is longer
 * than that. No way back from here: with context takeover a message can be inflated only once. */
static void deliver_inflated(struct rw_core *core, struct rw_slot *slot, uint8_t opcode, const uint8_t *data,
                             size_t bytes) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    assert(rw_event_batch_has_room_for_any(core));
    uint8_t *place = core->events.payload + core->events.payload_used;
    struct rw_inflated inflated;
    enum rw_inflate_result result = rw_deflate_inflate(core, slot, data, bytes, place, RW_EVENT_LARGE_BYTES,
                                                       rw_ws_behavior(core, slot)->max_payload_bytes, &inflated);
    if (result == RW_INFLATE_NO_MEMORY) {
        rw_ws_note_cause(slot, RW_CLOSE_NO_MEMORY);
        rw_connection_terminate(core, slot);
        return;
    }
    if (result != RW_INFLATE_OK) {
        rw_ws_fail(core, slot, cause_of(result));
        return;
    }
    RW_COUNT(core, ws_deflated_in, 1);
    rw_work_charge(core, inflated.bytes / RW_WORK_BYTES);
    /* It is what it is inflated that a rate is about; so much of it as came was charged as it came. */
    if (rw_ws_is_rated(rw_ws_behavior(core, slot)) && inflated.bytes > bytes)
        rw_ws_rate_charge(slot, 0, inflated.bytes - bytes);
    const uint8_t *text = inflated.buffer ? rw_buffers_data(core->buffers, inflated.buffer) : place;
    if (opcode == RW_WS_OP_TEXT && rw_utf8_feed(RW_UTF8_ACCEPT, text, inflated.bytes) != RW_UTF8_ACCEPT) {
        if (inflated.buffer) rw_buffers_release(core->buffers, inflated.buffer);
        rw_ws_fail(core, slot, RW_CLOSE_INVALID_UTF8);
        return;
    }
    if (inflated.buffer) {
        put_message(core, slot, inflated.buffer);
        ws->message_bytes = inflated.bytes;
        ws->message_opcode = opcode;
        deliver_plain(core, slot);
        return;
    }
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_MESSAGE, (uint32_t)inflated.bytes, &place);
    assert(event);
    event->arg0 = slot->behavior;
    if (opcode == RW_WS_OP_BINARY) event->flags = RW_WS_BINARY;
    count_message(core, slot, inflated.bytes);
}

/* Hand over the message that was put together; without room it stays, and the slot comes back next turn. */
static void deliver_message(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    ws->flags &= (uint8_t)~RW_WS_MESSAGE_DUE;
    if (ws->flags & RW_WS_CLOSE_SENT) {
        drop_message(core, slot);
    } else if (!ws->message_deflated) {
        deliver_plain(core, slot);
    } else if (!rw_event_batch_has_room_for_any(core)) {
        deliver_later(core, slot);
    } else {
        rw_buffer gathered = take_message(core, slot);
        size_t bytes = (size_t)ws->message_bytes;
        uint8_t opcode = ws->message_opcode;
        drop_message(core, slot);
        deliver_inflated(core, slot, opcode, gathered ? rw_buffers_data(core->buffers, gathered) : NULL, bytes);
        if (gathered) rw_buffers_release(core->buffers, gathered);
    }
}

/* ------------------------------------------------------------------ data frames */

/* Room for `more` bytes behind the message so far. Doubles, but not past what the present frame can still bring. */
static int grow_message(struct rw_core *core, struct rw_slot *slot, size_t more) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    size_t needed = (size_t)ws->message_bytes + more;
    size_t capacity = ws->message ? rw_buffers_capacity(core->buffers, ws->message) : 0;
    if (needed <= capacity && ws->message) return 1;
    size_t wanted = capacity * 2;
    size_t frame_end = (size_t)ws->message_bytes + (size_t)ws->frame_remaining;
    if (wanted > frame_end && ws->frame_fin) wanted = frame_end;
    if (wanted < needed) wanted = needed;
    if (wanted == 0) wanted = 1;
    if (!rw_unfinished_admits(core, capacity, rw_buffers_capacity_for(wanted) - capacity)) {
        rw_ws_fail(core, slot,
                   rw_unfinished_never_admits(core, capacity, frame_end) ? RW_CLOSE_TOO_BIG : RW_CLOSE_UNFINISHED);
        return 0;
    }
    rw_buffer grown = rw_buffers_acquire(core->buffers, wanted);
    if (!grown) {
        rw_ws_note_cause(slot, RW_CLOSE_NO_MEMORY);
        rw_connection_terminate(core, slot);
        return 0;
    }
    rw_buffer before = take_message(core, slot);
    if (before) {
        memcpy(rw_buffers_data(core->buffers, grown), rw_buffers_data(core->buffers, before),
               (size_t)ws->message_bytes);
        rw_buffers_release(core->buffers, before);
    }
    put_message(core, slot, grown);
    return 1;
}

static void end_frame(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    ws->flags &= (uint8_t)~RW_WS_IN_FRAME;
    if (!ws->frame_fin) return;
    if (ws->message_opcode == RW_WS_OP_TEXT && ws->utf8_state != RW_UTF8_ACCEPT) {
        rw_ws_fail(core, slot, RW_CLOSE_INVALID_UTF8);
        return;
    }
    deliver_message(core, slot);
}

static size_t on_payload(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    size_t n = len < ws->frame_remaining ? len : (size_t)ws->frame_remaining;
    if (!grow_message(core, slot, n)) return 0;
    uint8_t *out = rw_buffers_data(core->buffers, ws->message) + ws->message_bytes;
    rw_ws_mask(out, bytes, n, ws->mask, ws->mask_phase);
    ws->mask_phase = (uint32_t)(ws->mask_phase + n) & 3u;
    ws->message_bytes += n;
    ws->frame_remaining -= n;
    if (ws->message_opcode == RW_WS_OP_TEXT && !ws->message_deflated) {
        /* Checked as it comes, so that a bad octet ends the connection at once (RFC 6455 §8.1). */
        ws->utf8_state = rw_utf8_feed(ws->utf8_state, out, n);
        if (ws->utf8_state == RW_UTF8_REJECT) {
            rw_ws_fail(core, slot, RW_CLOSE_INVALID_UTF8);
            return 0;
        }
    }
    if (ws->frame_remaining == 0) end_frame(core, slot);
    return n;
}

/* A whole message in one frame, all of it here: unmask it straight into the batch. ret: 1 done, 0 failed or no room */
static int take_whole(struct rw_core *core, struct rw_slot *slot, const struct rw_ws_frame *frame,
                      const uint8_t *payload) {
    uint32_t bytes = (uint32_t)frame->payload_bytes;
    if (rw_ws_of(slot)->flags & RW_WS_CLOSE_SENT) return 1;
    uint8_t *out;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_MESSAGE, bytes, &out);
    if (!event) {
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    rw_ws_mask(out, payload, bytes, frame->mask, 0);
    event->arg0 = slot->behavior;
    if (frame->opcode == RW_WS_OP_BINARY) {
        event->flags = RW_WS_BINARY;
    } else if (rw_utf8_feed(RW_UTF8_ACCEPT, out, bytes) != RW_UTF8_ACCEPT) {
        core->events.count--;
        rw_ws_fail(core, slot, RW_CLOSE_INVALID_UTF8);
        return 0;
    }
    count_message(core, slot, bytes);
    return 1;
}

/* The same for a compressed message, which is unmasked where it lies. */
static int take_whole_deflated(struct rw_core *core, struct rw_slot *slot, const struct rw_ws_frame *frame,
                               uint8_t *payload) {
    size_t bytes = (size_t)frame->payload_bytes;
    if (rw_ws_of(slot)->flags & RW_WS_CLOSE_SENT) return 1;
    if (!rw_event_batch_has_room_for_any(core)) {
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    rw_ws_mask(payload, payload, bytes, frame->mask, 0);
    deliver_inflated(core, slot, frame->opcode, payload, bytes);
    return slot->state.phase == RW_PHASE_OPEN;
}

/* A message that has not come whole. */
static void begin_message(struct rw_core *core, struct rw_slot *slot) {
    uint32_t timeout_ms = rw_ws_behavior(core, slot)->message_timeout_ms;
    rw_ws_of(slot)->message_began_ms = core->now_ms;
    if (timeout_ms) rw_connection_arm_timer(core, slot, core->now_ms + timeout_ms);
}

static size_t on_data_frame(struct rw_core *core, struct rw_slot *slot, const struct rw_ws_frame *frame, uint8_t *bytes,
                            size_t header_bytes, size_t len) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    int continues = frame->opcode == RW_WS_OP_CONTINUATION;
    int rated = rw_ws_is_rated(rw_ws_behavior(core, slot));
    if (continues != (ws->message_opcode != 0)) {
        rw_ws_fail(core, slot, RW_CLOSE_PROTOCOL_ERROR);
        return 0;
    }
    /* Not a subtraction: the limit may have been lowered while the message came. */
    if (ws->message_bytes + frame->payload_bytes > rw_ws_behavior(core, slot)->max_payload_bytes) {
        rw_ws_fail(core, slot, RW_CLOSE_TOO_BIG);
        return 0;
    }
    /* A message that has begun goes on, and is paid for behind: one that is larger than what may come at once must pass
     * too. */
    if (rated && !continues && !rw_ws_rate_admit(core, slot)) return 0;
    int whole = frame->fin && !continues && frame->payload_bytes <= len - header_bytes &&
                frame->payload_bytes <= RW_EVENT_LARGE_BYTES;
    if (whole) {
        int taken = frame->rsv1 ? take_whole_deflated(core, slot, frame, bytes + header_bytes)
                                : take_whole(core, slot, frame, bytes + header_bytes);
        if (!taken) return 0;
        if (rated) rw_ws_rate_charge(slot, 1, frame->payload_bytes);
        return header_bytes + (size_t)frame->payload_bytes;
    }
    if (rated) rw_ws_rate_charge(slot, !continues, frame->payload_bytes);
    if (!continues) {
        ws->message_opcode = frame->opcode;
        ws->message_deflated = frame->rsv1;
        ws->utf8_state = RW_UTF8_ACCEPT;
        begin_message(core, slot);
    }
    ws->frame_remaining = frame->payload_bytes;
    ws->frame_fin = frame->fin;
    ws->mask_phase = 0;
    memcpy(ws->mask, frame->mask, sizeof ws->mask);
    ws->flags |= RW_WS_IN_FRAME;
    if (frame->payload_bytes == 0) end_frame(core, slot);
    return header_bytes;
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
    use_window(core, slot, bytes);
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
    drop_message(core, slot);
    rw_buffer kept = reason_bytes ? rw_buffers_acquire(core->buffers, reason_bytes) : RW_BUFFER_NONE;
    if (kept) {
        memcpy(rw_buffers_data(core->buffers, kept), reason, reason_bytes);
        put_message(core, slot, kept);
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
    return on_data_frame(core, slot, &frame, bytes, (size_t)header_bytes, len);
}

/* A peer that reads, but asks for more than it reads: half of what may wait for it does, and the kernel goes on taking
 * it. One frame is then served each time that it has, so that a client which reads its answers is never past its limit,
 * and one with much to hear, from a topic say, is heard itself. Who reads nothing for so long is not waited for: its
 * limit is there for that. */
#define READING_MS 1000u

static int asks_ahead(const struct rw_core *core, const struct rw_slot *slot) {
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    if (slot->out_bytes <= behavior->max_backpressure_bytes / 2) return 0;
    if (behavior->flags & RW_BEHAVIOR_LIMIT_BEFORE || rw_ws_of(slot)->flags & RW_WS_CLOSE_SENT) return 0;
    return rw_before(core->now_ms, slot->last_output_ms + READING_MS);
}

static void wait_for_reader(struct rw_core *core, struct rw_slot *slot) {
    slot->state.answers_wait = 1;
    rw_connection_arm_timer(core, slot, slot->last_output_ms + READING_MS);
}

static void answers_read(struct rw_core *core, struct rw_slot *slot) {
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
        size_t used = ws->flags & RW_WS_IN_FRAME ? on_payload(core, slot, bytes + at, len - at)
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
        deliver_message(core, slot);
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
    if (slot->state.answers_wait) answers_read(core, slot);
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
    drop_message(core, slot);
    if (rw_ws_of(slot)->held) rw_buffers_release(core->buffers, rw_ws_of(slot)->held);
    rw_ws_of(slot)->held = RW_BUFFER_NONE;
    rw_deflate_release(core, slot);
    RW_GAUGE(core, connections_websocket, core->stats->connections_websocket - 1);
}

/* Spans may be longer than half of what the clock counts to before it wraps, so times that far ahead cannot be
 * compared: what is left of a span can.
 * ret: 0: it is over */
static uint32_t left_ms(uint32_t now, uint32_t since, uint32_t span_ms) {
    uint32_t passed = now - since;
    return passed < span_ms ? span_ms - passed : 0;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* A peer that reads what is in front of the close frame is looked at so often within a close timeout. */
#define CLOSE_LOOKS 4u

static void arm_close_timer(struct rw_core *core, struct rw_slot *slot) {
    uint32_t look = core->now_ms + rw_ws_behavior(core, slot)->close_timeout_ms / CLOSE_LOOKS + 1;
    int sooner = rw_ws_of(slot)->close_unread && rw_before(look, slot->deadline_ms);
    rw_connection_arm_timer(core, slot, sooner ? look : slot->deadline_ms);
}

void rw_ws_await_close(struct rw_core *core, struct rw_slot *slot, uint32_t unread) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    ws->close_unread = unread;
    slot->deadline_ms = core->now_ms + rw_ws_behavior(core, slot)->close_timeout_ms;
    ws->close_by_ms = slot->deadline_ms + rw_connection_reading_ms(core, unread);
    arm_close_timer(core, slot);
}

static void on_close_timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint32_t unread = ws->close_unread ? rw_connection_unread(slot) : 0;
    if (unread < ws->close_unread) {
        uint32_t deadline = core->now_ms + rw_ws_behavior(core, slot)->close_timeout_ms;
        slot->deadline_ms = rw_before(deadline, ws->close_by_ms) ? deadline : ws->close_by_ms;
        ws->close_unread = unread;
    }
    if (rw_before(core->now_ms, slot->deadline_ms)) {
        arm_close_timer(core, slot);
    } else if (rw_connection_spares(core, slot, slot->deadline_ms, POLLIN)) {
        return;
    } else if (unread == 0) {
        rw_connection_terminate(core, slot);
    } else if (rw_connection_has_output(slot)) {
        RW_COUNT(core, timeouts_write, 1);
        rw_connection_reset(core, slot);
    } else {
        /* The kernel has it, and is watched as behind every end. */
        (void)rw_ws_tell_closed(core, slot);
        rw_connection_finish(core, slot);
    }
}

static void timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    uint32_t now = core->now_ms;
    uint32_t wait = LOOK_MS;
    if (ws->flags & RW_WS_CLOSE_SENT) {
        on_close_timer(core, slot);
        return;
    }
    if (slot->state.paused_by_core) {
        wait = rw_ws_rate_on_timer(core, slot) - now;
        if (slot->state.phase != RW_PHASE_OPEN) return;
    }
    if (slot->state.answers_wait) {
        uint32_t left = left_ms(now, slot->last_output_ms, READING_MS);
        if (left == 0) answers_read(core, slot); /* or rather not */
        else wait = left;
    }
    /* Nobody who is not read from is silent. */
    if (behavior->idle_timeout_ms && !slot->state.paused_by_host && !slot->state.paused_by_core &&
        !slot->state.answers_wait) {
        uint32_t left = left_ms(now, slot->last_input_ms, behavior->idle_timeout_ms);
        if (left == 0 && rw_connection_spares(core, slot, slot->last_input_ms + behavior->idle_timeout_ms, POLLIN)) {
            left = 1; /* and what else is due is done */
        } else if (left == 0) {
            RW_COUNT(core, timeouts_idle, 1);
            rw_ws_note_cause(slot, RW_CLOSE_IDLE);
            rw_connection_terminate(core, slot);
            return;
        }
        wait = least(wait, left);
    }
    /* Nor is its message late: the end of the pause gives it its time anew. */
    int begun = ws->message_opcode && !(ws->flags & RW_WS_MESSAGE_DUE);
    if (behavior->message_timeout_ms && begun && !slot->state.paused_by_host && !slot->state.paused_by_core &&
        !slot->state.answers_wait) {
        uint32_t left = left_ms(now, ws->message_began_ms, behavior->message_timeout_ms);
        if (left == 0 &&
            rw_connection_spares(core, slot, ws->message_began_ms + behavior->message_timeout_ms, POLLIN)) {
            left = 1;
        } else if (left == 0) {
            rw_ws_fail(core, slot, RW_CLOSE_MESSAGE_TIMEOUT);
            return;
        }
        wait = least(wait, left);
    }
    if (behavior->max_lifetime_ms) {
        uint32_t left = left_ms(now, ws->opened_ms, behavior->max_lifetime_ms);
        if (left == 0) {
            rw_ws_note_cause(slot, RW_CLOSE_LIFETIME);
            rw_ws_close(core, slot, 1000, (const uint8_t *)"please reconnect", 16);
            return;
        }
        wait = least(wait, left);
    }
    if (behavior->ping_interval_ms) {
        uint32_t left =
            left_ms(now, now - least(now - ws->last_ping_ms, now - slot->last_input_ms), behavior->ping_interval_ms);
        if (left == 0) {
            rw_ws_send_ping(core, slot);
            RW_COUNT(core, ws_pings_out, 1);
            ws->last_ping_ms = now;
            left = behavior->ping_interval_ms;
        }
        uint32_t grid = behavior->ping_interval_ms < PING_GRID_INTERVAL_MS ? 1 : PING_GRID_MS;
        wait = least(wait, ((now + left + grid - 1) & ~(grid - 1)) - now);
    }
    if (slot->state.phase == RW_PHASE_OPEN) rw_connection_arm_timer(core, slot, now + wait);
}

/* ------------------------------------------------------------------ the table */

static int owes_answer(const struct rw_slot *slot) {
    (void)slot;
    return 0;
}

static void refuse_input(struct rw_core *core, struct rw_slot *slot) { rw_ws_fail(core, slot, RW_CLOSE_UNFINISHED); }

static int pause(struct rw_slot *slot, int resume, uint32_t window) {
    /* Once this side has closed, the answer must be read. */
    if (!rw_ws_can_send(slot)) return 0;
    rw_ws_of(slot)->window = resume ? window : 0;
    return 1;
}

static void resumed(struct rw_core *core, struct rw_slot *slot) { rw_ws_of(slot)->message_began_ms = core->now_ms; }

static int drain(struct rw_core *core, struct rw_slot *slot) {
    (void)core, (void)slot;
    return 1;
}

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
                                           .owes_answer = owes_answer,
                                           .refuse_input = refuse_input,
                                           .pause = pause,
                                           .resumed = resumed,
                                           .timer = timer,
                                           .peer_closed = peer_closed,
                                           .drain = drain,
                                           .drain_now = drain_now,
                                           .note_end = note_end,
                                           .tell_closed = rw_ws_tell_closed,
                                           .release = release,
                                           .age = age};
