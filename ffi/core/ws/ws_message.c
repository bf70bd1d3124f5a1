/* WebSockets: frames become messages, and messages events, see ws.h. */
#include <string.h>

#include "base/utf8.h"
#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/unfinished.h"
#include "connection/work.h"
#include "ws/deflate.h"
#include "ws/ws.h"

/* ------------------------------------------------------------------ delivering */

/* Take the buffer of the present message out of the slot, and out of what is unfinished. ret: it, or RW_BUFFER_NONE */
static rw_buffer take_message(struct rw_core *core, struct rw_slot *slot) {
    rw_buffer message = rw_ws_of(slot)->message;
    if (message) rw_unfinished_remove_buffer(core, message);
    rw_ws_of(slot)->message = RW_BUFFER_NONE;
    return message;
}

void rw_ws_put_message(struct rw_core *core, struct rw_slot *slot, rw_buffer message) {
    rw_unfinished_add_buffer(core, message);
    rw_ws_of(slot)->message = message;
}

void rw_ws_drop_message(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    rw_buffer message = take_message(core, slot);
    if (message) rw_buffers_release(core->buffers, message);
    ws->message_bytes = 0;
    ws->message_opcode = 0;
    ws->message_deflated = 0;
    ws->utf8_state = RW_UTF8_ACCEPT;
}

/* The host was told of something that the peer has sent. */
void rw_ws_use_window(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
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
    rw_ws_use_window(core, slot, bytes);
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
    rw_ws_drop_message(core, slot);
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
        rw_ws_end_for_memory(core, slot);
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
        rw_ws_put_message(core, slot, inflated.buffer);
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
void rw_ws_deliver_message(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    ws->flags &= (uint8_t)~RW_WS_MESSAGE_DUE;
    if (ws->flags & RW_WS_CLOSE_SENT) {
        rw_ws_drop_message(core, slot);
    } else if (!ws->message_deflated) {
        deliver_plain(core, slot);
    } else if (!rw_event_batch_has_room_for_any(core)) {
        deliver_later(core, slot);
    } else {
        rw_buffer gathered = take_message(core, slot);
        size_t bytes = (size_t)ws->message_bytes;
        uint8_t opcode = ws->message_opcode;
        rw_ws_drop_message(core, slot);
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
        rw_ws_end_for_memory(core, slot);
        return 0;
    }
    rw_buffer before = take_message(core, slot);
    if (before) {
        memcpy(rw_buffers_data(core->buffers, grown), rw_buffers_data(core->buffers, before),
               (size_t)ws->message_bytes);
        rw_buffers_release(core->buffers, before);
    }
    rw_ws_put_message(core, slot, grown);
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
    rw_ws_deliver_message(core, slot);
}

size_t rw_ws_on_payload(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
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

size_t rw_ws_on_data_frame(struct rw_core *core, struct rw_slot *slot, const struct rw_ws_frame *frame, uint8_t *bytes,
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
