/* WebSockets, sending side, see ws.h. */
#include <string.h>

#include "base/utf8.h"
#include "connection/connection.h"
#include "ws/deflate.h"
#include "ws/dropped.h"
#include "ws/ws.h"

/* Apart from what nearly every message takes, which stays small enough to be inlined into the loop over commands. */
#define RARE __attribute__((noinline, cold))

RARE void rw_ws_end_for_memory(struct rw_core *core, struct rw_slot *slot) {
    rw_ws_note_cause(slot, RW_CLOSE_NO_MEMORY);
    rw_connection_terminate(core, slot);
}

static uint8_t *reserve(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
    uint8_t *out = bytes <= UINT32_MAX / 4 ? rw_outbox_reserve(&core->outbox, slot, (uint32_t)bytes) : NULL;
    if (!out) rw_ws_end_for_memory(core, slot);
    return out;
}

/* ------------------------------------------------------------------ backpressure */

static uint64_t queued_bytes(const struct rw_slot *slot) {
    return (uint64_t)slot->out_bytes + rw_ws_of(slot)->held_bytes;
}

/* The common case, apart so that it is inlined. */
static inline int fits(const struct rw_core *core, const struct rw_slot *slot, uint64_t frame_bytes) {
    const struct rw_behavior *behavior = rw_ws_behavior(core, slot);
    if (behavior->flags & RW_BEHAVIOR_LIMIT_BEFORE) frame_bytes = 0;
    return queued_bytes(slot) + frame_bytes <= behavior->max_backpressure_bytes;
}

int rw_ws_has_room(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes) {
    if (fits(core, slot, frame_bytes)) return 1;
    /* What this tick has queued has not met the kernel yet: only what it refuses is backpressure. */
    rw_connection_flush_now(core, slot);
    if (slot->state.send_inflight && !fits(core, slot, frame_bytes)) {
        /* Nor has the send under way, if this client has read since: that is our delay and not its own. */
        rw_connection_settle_sends(core);
        rw_connection_flush_now(core, slot);
    }
    return fits(core, slot, frame_bytes) || queued_bytes(slot) == 0;
}

static void close_for_backpressure(struct rw_core *core, struct rw_slot *slot) {
    RW_COUNT(core, closes_backpressure, 1);
    rw_ws_note_cause(slot, RW_CLOSE_BACKPRESSURE);
    rw_ws_of(slot)->close_code = 1008;
    rw_connection_terminate(core, slot);
}

/* ret: 1 there is room; 0 drop it: counted in the statistics, the host not told yet; -1 the connection is closed */
static int admit(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes) {
    if (rw_ws_has_room(core, slot, frame_bytes)) return 1;
    if (rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE) {
        close_for_backpressure(core, slot);
        return -1;
    }
    RW_COUNT(core, drops_backpressure, 1);
    rw_ws_of(slot)->flags |= RW_WS_DRAIN_WANTED;
    return 0;
}

int rw_ws_fell_behind(struct rw_core *core, struct rw_slot *slot, uint64_t messages) {
    if (rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_CLOSE_ON_BACKPRESSURE) {
        close_for_backpressure(core, slot);
        return 0;
    }
    RW_COUNT(core, drops_backpressure, messages);
    uint32_t room = UINT32_MAX - rw_ws_of(slot)->dropped;
    rw_ws_of(slot)->dropped += messages < room ? (uint32_t)messages : room;
    rw_connection_mark_ready(core, slot);
    return 1;
}

static void count_drop(struct rw_core *core, struct rw_slot *slot) {
    rw_ws_of(slot)->dropped++;
    rw_connection_mark_ready(core, slot);
}

int rw_ws_admit(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes) {
    int admitted = admit(core, slot, frame_bytes);
    if (admitted == 0) count_drop(core, slot);
    return admitted > 0;
}

RARE static int admit_message_past_limit(struct rw_core *core, struct rw_slot *slot, struct rw_ws_message *message,
                                         uint64_t frame_bytes) {
    int admitted = admit(core, slot, frame_bytes);
    if (admitted == 0 && !(message->flags & RW_SEND_OWN)) {
        int wants_payload =
            rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD && !(message->flags & RW_SEND_FIRST);
        if (!wants_payload ||
            !rw_dropped_keep(core, slot, message->flags, message->payload, message->bytes, &message->copy))
            count_drop(core, slot);
    }
    return admitted > 0;
}

int rw_ws_admit_message(struct rw_core *core, struct rw_slot *slot, struct rw_ws_message *message,
                        uint64_t frame_bytes) {
    return fits(core, slot, frame_bytes) || admit_message_past_limit(core, slot, message, frame_bytes);
}

/* ------------------------------------------------------------------ held frames */

int rw_ws_hold(struct rw_core *core, struct rw_slot *slot, const uint8_t *frame, uint32_t frame_bytes) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint64_t needed = (uint64_t)ws->held_bytes + frame_bytes;
    if (!ws->held || rw_buffers_capacity(core->buffers, ws->held) < needed) {
        rw_buffer grown = needed <= UINT32_MAX / 4
                              ? rw_buffers_acquire(core->buffers, (size_t)(ws->held ? 2 * needed : needed))
                              : RW_BUFFER_NONE;
        if (!grown) {
            rw_ws_end_for_memory(core, slot);
            return 0;
        }
        if (ws->held) {
            memcpy(rw_buffers_data(core->buffers, grown), rw_buffers_data(core->buffers, ws->held), ws->held_bytes);
            rw_buffers_release(core->buffers, ws->held);
        }
        ws->held = grown;
    }
    memcpy(rw_buffers_data(core->buffers, ws->held) + ws->held_bytes, frame, frame_bytes);
    ws->held_bytes = (uint32_t)needed;
    return 1;
}

/* The last fragment is queued: what was held follows. */
static void release_held(struct rw_core *core, struct rw_slot *slot) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    if (!ws->held) return;
    rw_buffer held = ws->held;
    uint32_t bytes = ws->held_bytes;
    ws->held = RW_BUFFER_NONE;
    ws->held_bytes = 0;
    int32_t appended = rw_outbox_append(&core->outbox, slot, held, 0, bytes);
    /* 1: our reference has passed to the queue. */
    if (appended != 1) rw_buffers_release(core->buffers, held);
    if (appended < 0) rw_ws_end_for_memory(core, slot);
}

/* ------------------------------------------------------------------ messages */

/* What goes on the wire for a message or a fragment. */
struct frame {
    const uint8_t *payload;
    uint64_t bytes;
    rw_buffer deflated; /* holds the payload when it was compressed; RW_BUFFER_NONE: it is the host's */
    uint8_t opcode, fin, rsv1;
};

static uint64_t framed_bytes(uint64_t payload_bytes) {
    return payload_bytes + (payload_bytes < 126 ? 2u : payload_bytes <= UINT16_MAX ? 4u : 10u);
}
static uint64_t size_of(const struct frame *frame) { return framed_bytes(frame->bytes); }

static void take_deflated(struct rw_core *core, struct frame *frame, int64_t bytes) {
    frame->payload = rw_buffers_data(core->buffers, frame->deflated);
    frame->bytes = (uint64_t)bytes;
}

/* Inlined, so that what is plain and whole costs what it did before there were other kinds.
 * ret: 0 out of memory, the connection is terminated */
static inline __attribute__((always_inline)) int queue_frame(struct rw_core *core, struct rw_slot *slot,
                                                             const struct frame *frame) {
    uint64_t bytes = size_of(frame);
    uint8_t *out = reserve(core, slot, bytes);
    if (!out) return 0;
    uint32_t header = rw_ws_encode_header(out, frame->opcode, frame->fin, frame->rsv1, frame->bytes);
    assert(header + frame->bytes == bytes);
    if (frame->bytes) memcpy(out + header, frame->payload, (size_t)frame->bytes);
    int at_once =
        rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_LIMIT_BEFORE && slot->out_unflushed >= RW_WS_SEND_AT_ONCE_BYTES;
    if (at_once) rw_connection_flush_now(core, slot);
    if (slot->out_bytes > slot->out_unflushed) rw_ws_of(slot)->flags |= RW_WS_DRAIN_WANTED;
    rw_connection_mark_dirty(core, slot);
    return 1;
}

static int hold_frame(struct rw_core *core, struct rw_slot *slot, const struct frame *frame) {
    uint8_t header[10];
    uint32_t header_bytes = rw_ws_encode_header(header, frame->opcode, frame->fin, frame->rsv1, frame->bytes);
    if (frame->bytes > UINT32_MAX / 4) {
        rw_ws_end_for_memory(core, slot);
        return 0;
    }
    return rw_ws_hold(core, slot, header, header_bytes) &&
           (frame->bytes == 0 || rw_ws_hold(core, slot, frame->payload, (uint32_t)frame->bytes));
}

/* Compress a whole message. A held one is compressed on its own: the connection's window belongs to the message before
 * it, which is not complete. With no memory for it the message goes out as it is. */
static void deflate_whole(struct rw_core *core, struct rw_slot *slot, struct frame *frame) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    int takeover = (ws->deflate_flags & RW_WS_DEFLATE_TAKEOVER) != 0;
    int64_t bytes;
    if (takeover && !rw_ws_must_hold(slot)) {
        bytes = rw_deflate_own(core, slot, RW_DEFLATE_WHOLE, frame->payload, frame->bytes, &frame->deflated);
    } else {
        bytes = rw_deflate_alone(core, rw_deflate_window(ws->deflate_window, frame->bytes), frame->payload,
                                 frame->bytes, &frame->deflated);
        if (takeover && bytes >= 0) ws->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
    }
    if (bytes < 0) return;
    take_deflated(core, frame, bytes);
    frame->rsv1 = 1;
}

/* A whole message that is neither compressed nor held: nearly all there are. */
static void send_plain(struct rw_core *core, struct rw_slot *slot, struct rw_ws_message *message) {
    uint64_t frame_bytes = framed_bytes(message->bytes);
    if (!fits(core, slot, frame_bytes) && !admit_message_past_limit(core, slot, message, frame_bytes)) return;
    const struct frame frame = {
        .payload = message->payload, .bytes = message->bytes, .opcode = rw_ws_opcode_of(message), .fin = 1};
    if (!queue_frame(core, slot, &frame)) return;
    RW_COUNT(core, ws_messages_out, 1);
    RW_COUNT(core, ws_bytes_out, message->bytes);
}

RARE static void send_formed(struct rw_core *core, struct rw_slot *slot, struct rw_ws_message *message) {
    struct frame frame = {
        .payload = message->payload, .bytes = message->bytes, .opcode = rw_ws_opcode_of(message), .fin = 1};
    /* A message that the queue has no room for whatever comes out is not worth compressing. */
    if (rw_deflate_wanted(core, slot, message->flags, message->bytes) && rw_ws_has_room(core, slot, 3))
        deflate_whole(core, slot, &frame);
    if (rw_ws_admit_message(core, slot, message, size_of(&frame))) {
        int queued = rw_ws_must_hold(slot) ? hold_frame(core, slot, &frame) : queue_frame(core, slot, &frame);
        if (queued) {
            RW_COUNT(core, ws_messages_out, 1);
            RW_COUNT(core, ws_bytes_out, message->bytes);
            if (frame.rsv1) RW_COUNT(core, ws_deflated_out, 1);
        }
    } else if (frame.rsv1) {
        /* What the client never gets is not in its window. */
        rw_ws_of(slot)->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
    }
    if (frame.deflated) rw_buffers_release(core->buffers, frame.deflated);
}

/* ------------------------------------------------------------------ fragments */

/* A message in fragments is dropped whole or not at all: a peer that gets a part of it must fail the connection (RFC
 * 6455 §5.4).
 * ret: 1 send the fragment, 0 dropped or closed */
static int admit_fragment(struct rw_core *core, struct rw_slot *slot, struct rw_ws_message *message,
                          const struct frame *frame) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    if (!(message->flags & RW_SEND_CONTINUE)) {
        if (rw_ws_admit_message(core, slot, message, size_of(frame))) {
            ws->fragments_out = frame->rsv1 ? RW_WS_FRAGMENTS_DEFLATED : RW_WS_FRAGMENTS_SENT;
            return 1;
        }
        ws->fragments_out = RW_WS_FRAGMENTS_DROPPED;
        if (frame->rsv1) ws->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
        return 0;
    }
    if (rw_ws_has_room(core, slot, size_of(frame))) return 1;
    close_for_backpressure(core, slot);
    return 0;
}

/* ret: 0 the rest of a compressed message could not be compressed: the connection is terminated */
static int deflate_fragment(struct rw_core *core, struct rw_slot *slot, uint32_t flags, struct frame *frame) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    enum rw_deflate_part part = !(flags & RW_SEND_CONTINUE) ? RW_DEFLATE_FIRST
                                : frame->fin                ? RW_DEFLATE_LAST
                                                            : RW_DEFLATE_MIDDLE;
    if (part == RW_DEFLATE_FIRST) {
        if (!(flags & RW_SEND_COMPRESS) || !(ws->deflate_flags & RW_WS_DEFLATE_TAKEOVER)) return 1;
    } else if (ws->fragments_out != RW_WS_FRAGMENTS_DEFLATED) {
        return 1;
    }
    int64_t bytes = frame->bytes <= RW_DEFLATE_BYTES_MAX
                        ? rw_deflate_own(core, slot, part, frame->payload, frame->bytes, &frame->deflated)
                        : -1;
    if (bytes < 0) {
        if (part != RW_DEFLATE_FIRST) rw_ws_end_for_memory(core, slot);
        return part == RW_DEFLATE_FIRST;
    }
    take_deflated(core, frame, bytes);
    /* RFC 7692 §6.1: the bit is on the first fragment and stands for the message. */
    frame->rsv1 = part == RW_DEFLATE_FIRST;
    return 1;
}

RARE static void send_fragment(struct rw_core *core, struct rw_slot *slot, struct rw_ws_message *message) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    uint32_t flags = message->flags;
    int continues = (flags & RW_SEND_CONTINUE) != 0;
    struct frame frame = {.payload = message->payload,
                          .bytes = message->bytes,
                          .opcode = continues ? RW_WS_OP_CONTINUATION : rw_ws_opcode_of(message),
                          .fin = continues && (flags & RW_SEND_LAST)};
    if (continues && !rw_ws_must_hold(slot)) {
        /* The first was dropped, or never came. */
        if (frame.fin) ws->fragments_out = RW_WS_FRAGMENTS_NONE;
        return;
    }
    if (!deflate_fragment(core, slot, flags, &frame)) return;
    int deflated = frame.rsv1 || ws->fragments_out == RW_WS_FRAGMENTS_DEFLATED;
    if (admit_fragment(core, slot, message, &frame) && queue_frame(core, slot, &frame)) {
        RW_COUNT(core, ws_bytes_out, message->bytes);
        if (frame.fin) {
            RW_COUNT(core, ws_messages_out, 1);
            if (deflated) RW_COUNT(core, ws_deflated_out, 1);
            ws->fragments_out = RW_WS_FRAGMENTS_NONE;
            release_held(core, slot);
        }
    }
    if (frame.deflated) rw_buffers_release(core->buffers, frame.deflated);
}

void rw_ws_send(struct rw_core *core, struct rw_slot *slot, uint32_t flags, const uint8_t *data, uint64_t bytes) {
    if (!rw_ws_can_send(slot)) return;
    struct rw_ws_message message = {.flags = flags, .payload = data, .bytes = bytes};
    if (flags & (RW_SEND_FIRST | RW_SEND_CONTINUE)) {
        send_fragment(core, slot, &message);
    } else if (rw_ws_must_hold(slot) || rw_deflate_wanted(core, slot, flags, bytes)) {
        send_formed(core, slot, &message);
    } else {
        send_plain(core, slot, &message);
    }
    if (message.copy) rw_buffers_release(core->buffers, message.copy);
}

/* ------------------------------------------------------------------ control frames */

void rw_ws_send_control(struct rw_core *core, struct rw_slot *slot, uint8_t opcode, const uint8_t *data,
                        uint32_t bytes) {
    assert(bytes <= RW_WS_CONTROL_BYTES_MAX);
    if (!rw_ws_can_send(slot)) return;
    uint8_t *out = reserve(core, slot, bytes + 2);
    if (!out) return;
    uint32_t header = rw_ws_encode_header(out, opcode, 1, 0, bytes);
    if (bytes) memcpy(out + header, data, bytes);
    rw_connection_mark_dirty(core, slot);
}

static rw_buffer ping_frame(struct rw_core *core) {
    if (!core->ws->ping_frame) {
        core->ws->ping_frame = rw_buffers_acquire(core->buffers, 2);
        if (core->ws->ping_frame)
            (void)rw_ws_encode_header(rw_buffers_data(core->buffers, core->ws->ping_frame), RW_WS_OP_PING, 1, 0, 0);
    }
    return core->ws->ping_frame;
}

void rw_ws_send_ping(struct rw_core *core, struct rw_slot *slot) {
    if (!rw_ws_can_send(slot)) return;
    rw_buffer frame = ping_frame(core);
    int32_t appended = frame ? rw_outbox_append(&core->outbox, slot, frame, 0, 2) : RW_ERR_FULL;
    if (appended < 0) {
        rw_ws_end_for_memory(core, slot);
        return;
    }
    if (appended > 0) rw_buffers_retain(core->buffers, frame, 1);
    rw_connection_mark_dirty(core, slot);
}

void rw_ws_end_tick(struct rw_core *core) {
    if (!core->ws->ping_frame || rw_buffers_refs(core->buffers, core->ws->ping_frame) > 1) return;
    rw_buffers_release(core->buffers, core->ws->ping_frame);
    core->ws->ping_frame = RW_BUFFER_NONE;
}

static void send_close(struct rw_core *core, struct rw_slot *slot, uint32_t code, const uint8_t *reason,
                       uint32_t bytes) {
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
    rw_ws_of(slot)->flags |= RW_WS_CLOSE_SENT;
    RW_COUNT(core, ws_closes_out, 1);
}

void rw_ws_close(struct rw_core *core, struct rw_slot *slot, uint32_t code, const uint8_t *reason, uint32_t bytes) {
    if (!rw_ws_can_send(slot)) return;
    slot->state.left_by_host = 1;
    uint32_t unread = rw_connection_unread(slot), queued = slot->out_bytes;
    send_close(core, slot, code, reason, bytes);
    if (slot->state.phase != RW_PHASE_OPEN) return;
    rw_ws_await_close(core, slot, unread ? unread + (slot->out_bytes - queued) : 0);
    /* The answer to the close must be read even when the host had paused. */
    slot->state.paused_by_host = 0;
    slot->state.paused_by_core = 0; /* and when its rate had */
    slot->state.answers_wait = 0;
    rw_ws_of(slot)->window = 0;
    rw_connection_update_receive(core, slot);
    if (slot->input_bytes) rw_connection_mark_ready(core, slot);
}

static uint32_t code_of(enum rw_close_cause cause) {
    switch (cause) {
        case RW_CLOSE_INVALID_UTF8:
        case RW_CLOSE_INVALID_DEFLATE: return 1007;
        case RW_CLOSE_TOO_BIG: return 1009;
        case RW_CLOSE_MESSAGE_RATE:
        case RW_CLOSE_BYTE_RATE:
        case RW_CLOSE_MESSAGE_TIMEOUT: return 1008;
        case RW_CLOSE_UNFINISHED:
        case RW_CLOSE_INFLATE_WINDOWS: return 1013;
        default: return 1002;
    }
}

static const char *reason_of(enum rw_close_cause cause) {
    switch (cause) {
        case RW_CLOSE_INVALID_UTF8: return "text that is not UTF-8";
        case RW_CLOSE_INVALID_DEFLATE: return "a compressed message that does not inflate";
        case RW_CLOSE_INFLATE_WINDOWS: return "no memory is left for compressed messages, try again later";
        case RW_CLOSE_MESSAGE_RATE: return "more messages a second than allowed";
        case RW_CLOSE_BYTE_RATE: return "more bytes a second than allowed";
        case RW_CLOSE_MESSAGE_TIMEOUT: return "a message took longer than allowed";
        case RW_CLOSE_UNFINISHED: return "too much is held of unfinished messages, try again later";
        default: return "";
    }
}

static void count_failure(struct rw_core *core, enum rw_close_cause cause) {
    switch (cause) {
        case RW_CLOSE_TOO_BIG: RW_COUNT(core, ws_too_big, 1); break;
        case RW_CLOSE_MESSAGE_RATE: RW_COUNT(core, closes_message_rate, 1); break;
        case RW_CLOSE_BYTE_RATE: RW_COUNT(core, closes_byte_rate, 1); break;
        case RW_CLOSE_MESSAGE_TIMEOUT: RW_COUNT(core, timeouts_message, 1); break;
        case RW_CLOSE_UNFINISHED: RW_COUNT(core, closes_unfinished, 1); break;
        case RW_CLOSE_INFLATE_WINDOWS: RW_COUNT(core, closes_inflate, 1); break;
        case RW_CLOSE_INVALID_DEFLATE:
            RW_COUNT(core, ws_invalid_deflate, 1);
            RW_COUNT(core, ws_protocol_errors, 1);
            break;
        default: RW_COUNT(core, ws_protocol_errors, 1);
    }
}

void rw_ws_fail(struct rw_core *core, struct rw_slot *slot, enum rw_close_cause cause) {
    if (rw_ws_can_send(slot) && rw_ws_awaits_answers(core, slot)) {
        if (!rw_ws_of(slot)->fail_due) rw_ws_of(slot)->fail_due = (uint8_t)cause;
        rw_connection_mark_ready(core, slot);
        return;
    }
    if (rw_ws_of(slot)->fail_due) cause = (enum rw_close_cause)rw_ws_of(slot)->fail_due; /* it came first */
    rw_ws_of(slot)->fail_due = 0;
    uint32_t code = code_of(cause);
    const char *reason = reason_of(cause);
    count_failure(core, cause);
    rw_ws_note_cause(slot, cause);
    if (!rw_ws_of(slot)->close_code) rw_ws_of(slot)->close_code = (uint16_t)code;
    if (rw_ws_can_send(slot)) send_close(core, slot, code, (const uint8_t *)reason, (uint32_t)strlen(reason));
    if (slot->state.phase != RW_PHASE_OPEN) return;
    (void)rw_ws_tell_closed(core, slot);
    rw_connection_finish(core, slot);
}
