/* WebSockets, sending side, see ws.h. */
#include <string.h>

#include "connection.h"
#include "utf8.h"
#include "ws.h"

static uint8_t *reserve(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
    uint8_t *out = bytes <= UINT32_MAX / 4 ? rw_outbox_reserve(&core->outbox, slot, (uint32_t)bytes) : NULL;
    if (!out) rw_connection_terminate(core, slot);
    return out;
}

static int has_room(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes) {
    uint64_t limit = rw_ws_behavior(core, slot)->max_backpressure_bytes;
    if (slot->out_bytes + frame_bytes <= limit) return 1;
    /* What this tick has queued has not met the kernel yet: only what it refuses is backpressure. */
    rw_connection_flush_now(core, slot);
    return slot->out_bytes + frame_bytes <= limit || slot->out_bytes == 0;
}

static void close_for_backpressure(struct rw_core *core, struct rw_slot *slot) {
    RW_COUNT(core, closes_backpressure, 1);
    slot->as.ws.close_code = 1008;
    rw_connection_terminate(core, slot);
}

int rw_ws_admit(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes) {
    struct rw_slot_ws *ws = &slot->as.ws;
    if (has_room(core, slot, frame_bytes)) return 1;
    if (rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE) {
        close_for_backpressure(core, slot);
        return 0;
    }
    RW_COUNT(core, drops_backpressure, 1);
    ws->dropped++;
    ws->flags |= RW_WS_DRAIN_WANTED;
    rw_connection_mark_ready(core, slot);
    return 0;
}

/* A message in fragments is dropped whole or not at all: a peer that gets a part of it must fail the connection (RFC 6455 §5.4).
 * ret: 1 send the fragment, 0 dropped or closed */
static int admit_fragment(struct rw_core *core, struct rw_slot *slot, uint32_t flags, uint64_t frame_bytes) {
    struct rw_slot_ws *ws = &slot->as.ws;
    if (!(flags & RW_SEND_CONTINUE)) {
        ws->fragments_out = rw_ws_admit(core, slot, frame_bytes) ? RW_WS_FRAGMENTS_SENT : RW_WS_FRAGMENTS_DROPPED;
        return ws->fragments_out == RW_WS_FRAGMENTS_SENT;
    }
    int sent = ws->fragments_out == RW_WS_FRAGMENTS_SENT;
    if (flags & RW_SEND_LAST) ws->fragments_out = RW_WS_FRAGMENTS_NONE;
    if (!sent || has_room(core, slot, frame_bytes)) return sent;
    close_for_backpressure(core, slot);
    return 0;
}

void rw_ws_send(struct rw_core *core, struct rw_slot *slot, uint32_t flags, const uint8_t *data, uint64_t bytes) {
    if (!rw_ws_can_send(slot)) return;
    int fragment = (flags & (RW_SEND_FIRST | RW_SEND_CONTINUE)) != 0;
    if (!(fragment ? admit_fragment(core, slot, flags, bytes + 10) : rw_ws_admit(core, slot, bytes + 10))) return;
    uint8_t *out = reserve(core, slot, bytes + 10);
    if (!out) return;
    uint8_t opcode = flags & RW_SEND_CONTINUE ? RW_WS_OP_CONTINUATION : flags & RW_SEND_TEXT ? RW_WS_OP_TEXT : RW_WS_OP_BINARY;
    int fin = flags & RW_SEND_CONTINUE ? (flags & RW_SEND_LAST) != 0 : !(flags & RW_SEND_FIRST);
    uint32_t header = rw_ws_encode_header(out, opcode, fin, 0, bytes);
    if (bytes) memcpy(out + header, data, (size_t)bytes);
    if (header < 10) rw_outbox_unreserve(&core->outbox, slot, 10 - header);
    if (fin) RW_COUNT(core, ws_messages_out, 1);
    RW_COUNT(core, ws_bytes_out, bytes);
    if (slot->out_bytes > slot->out_unflushed) slot->as.ws.flags |= RW_WS_DRAIN_WANTED;
    rw_connection_mark_dirty(core, slot);
}

void rw_ws_send_control(struct rw_core *core, struct rw_slot *slot, uint8_t opcode, const uint8_t *data, uint32_t bytes) {
    assert(bytes <= RW_WS_CONTROL_BYTES_MAX);
    if (!rw_ws_can_send(slot)) return;
    uint8_t *out = reserve(core, slot, bytes + 2);
    if (!out) return;
    uint32_t header = rw_ws_encode_header(out, opcode, 1, 0, bytes);
    if (bytes) memcpy(out + header, data, bytes);
    rw_connection_mark_dirty(core, slot);
}

static void send_close(struct rw_core *core, struct rw_slot *slot, uint32_t code, const uint8_t *reason, uint32_t bytes) {
    uint8_t payload[RW_WS_CONTROL_BYTES_MAX];
    uint32_t length = 0;
    if (code) {
        payload[0] = (uint8_t)(code >> 8);
        payload[1] = (uint8_t)code;
        length = 2;
        if (bytes > RW_WS_CONTROL_BYTES_MAX - 2) {
            bytes = RW_WS_CONTROL_BYTES_MAX - 2;
            while (bytes && rw_utf8_feed(RW_UTF8_ACCEPT, reason, bytes) != RW_UTF8_ACCEPT) bytes--;
        }
        if (bytes) memcpy(payload + 2, reason, bytes);
        length += bytes;
    }
    rw_ws_send_control(core, slot, RW_WS_OP_CLOSE, payload, length);
    slot->as.ws.flags |= RW_WS_CLOSE_SENT;
    RW_COUNT(core, ws_closes_out, 1);
}

void rw_ws_close(struct rw_core *core, struct rw_slot *slot, uint32_t code, const uint8_t *reason, uint32_t bytes) {
    if (!rw_ws_can_send(slot)) return;
    slot->state.left_by_host = 1;
    send_close(core, slot, code, reason, bytes);
    if (slot->state.phase != RW_PHASE_OPEN) return;
    uint32_t timeout = rw_ws_behavior(core, slot)->close_timeout_ms;
    slot->deadline_ms = core->now_ms + timeout;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
    /* The answer to the close must be read even when the host had paused. */
    slot->state.paused_by_host = 0;
    rw_connection_update_receive(core, slot);
    if (slot->input_bytes) rw_connection_mark_ready(core, slot);
}

void rw_ws_fail(struct rw_core *core, struct rw_slot *slot, uint32_t code) {
    if (code == 1009) {
        RW_COUNT(core, ws_too_big, 1);
    } else {
        RW_COUNT(core, ws_protocol_errors, 1);
    }
    if (!slot->as.ws.close_code) slot->as.ws.close_code = (uint16_t)code;
    if (rw_ws_can_send(slot)) send_close(core, slot, code, NULL, 0);
    if (slot->state.phase != RW_PHASE_OPEN) return;
    (void)rw_ws_tell_closed(core, slot);
    rw_connection_finish(core, slot);
}
