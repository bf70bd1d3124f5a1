/* WebSockets on a connection (RFC 6455): frames in, messages out, and the close handshake.
 *
 * Role: bytes → message events, send commands → frames. Up: event_batch, command_batch, publish. Down: ws_frame, utf8,
 * deflate, connection. A message that came whole in one piece is unmasked straight into the event batch; any other is
 * put together in a buffer that grows with what has really come, never with what a header claims. A compressed message
 * is put together as it came, and inflated when it is complete and the batch has room for it.
 * Split: ws.c receives, ws_message.c puts messages together, ws_rate.c says how fast, ws_send.c sends and closes,
 * ws_clock.c has the deadlines, ws_command.c is what the host says. */
#ifndef RW_WS_H
#define RW_WS_H

#include "delivery/delivery.h"
#include "ws/ws_frame.h"

enum rw_ws_flag {
    RW_WS_OPEN_DUE = 1u << 0,    /* the host is to be told of the opening */
    RW_WS_MESSAGE_DUE = 1u << 1, /* a whole message waits in ws.message for room in the batch */
    RW_WS_CLOSE_SENT = 1u << 2,
    RW_WS_CLOSE_RECEIVED = 1u << 3,
    RW_WS_CLOSE_TOLD = 1u << 4,
    RW_WS_DRAIN_WANTED = 1u << 5, /* sends met backpressure: tell the host when it is over */
    RW_WS_DRAIN_DUE = 1u << 6,
    RW_WS_IN_FRAME = 1u << 7, /* frame_* describe a data frame whose payload is not complete */
};

/* rw_slot_ws.fragments_out */
enum rw_ws_fragments {
    RW_WS_FRAGMENTS_NONE = 0,
    /* the first is queued: the others must follow, and other messages are held until they have */
    RW_WS_FRAGMENTS_SENT = 1,
    RW_WS_FRAGMENTS_DROPPED = 2,  /* the first was dropped: so are the others */
    RW_WS_FRAGMENTS_DEFLATED = 3, /* as SENT, and the message is compressed: RSV1 was on the first */
};

struct rw_ws_deflate;

struct rw_slot_ws {
    uint64_t frame_remaining; /* payload bytes of the present frame still to come */
    uint64_t message_bytes;   /* payload bytes of the present message so far */
    rw_buffer message;        /* the present message, unmasked, as far as it has come */
    uint32_t mask_phase;      /* payload bytes of the present frame unmasked so far, modulo 4 */
    uint32_t utf8_state;
    uint32_t opened_ms;
    uint32_t last_ping_ms;
    uint32_t control_bytes; /* pong bytes queued and not yet sent, at most */
    uint32_t dropped;       /* messages dropped since the last DROPPED event */
    uint32_t told_turn;     /* the turn in which the host was last told of something that it may answer, see ws.h */
    uint32_t reason_bytes;  /* once CLOSE_RECEIVED: message holds the reason */
    uint16_t close_code;    /* received or sent first */
    uint8_t mask[4];
    uint8_t fragments_out;  /* enum rw_ws_fragments: of the message that is being sent in fragments */
    uint8_t message_opcode; /* of the present message; 0: none begun */
    uint8_t frame_fin;
    uint8_t flags; /* see ws.h */
    /* enum rw_close_cause of a failure that waits for the host's answers, see rw_ws_fail; 0: none */
    uint8_t fail_due;
    struct rw_ws_deflate *deflate; /* dedicated windows, see deflate.h; NULL: none */
    rw_buffer held;                /* whole frames that wait until the message being sent in fragments is complete */
    uint32_t held_bytes;
    uint8_t close_cause;      /* enum rw_close_cause, once close_told or close_code says that it is closing */
    uint8_t deflate_flags;    /* see deflate.h; 0: not negotiated */
    uint8_t deflate_window;   /* windowBits that the client inflates with */
    uint8_t message_deflated; /* the present message came with RSV1 */
    uint32_t rate_ms;         /* when the tokens were last counted, see ws_rate.c */
    int64_t message_tokens;
    int64_t byte_tokens;
    uint32_t window;           /* what the host still takes before it is asked, see RW_COMMAND_RESUME; 0: no end */
    uint32_t message_began_ms; /* of a message that is put together */
    uint32_t topics;           /* that it is subscribed to */
    /* once CLOSE_SENT by this side: what the peer had yet to read when that was last looked at, see on_close_timer */
    uint32_t close_unread;
    uint32_t close_by_ms; /* and when it must have answered, however it reads */
};

static_assert(sizeof(struct rw_slot_ws) <= RW_SLOT_OWN_BYTES, "it fits the slot");

/* Index in core->protocols. */
#define RW_WS_PROTOCOL 1u
extern const struct rw_protocol rw_ws_protocol;

/* Of all sockets of a core. */
struct rw_ws_shared {
    rw_buffer ping_frame;       /* the empty ping that sockets share while pings of ours are queued, else none */
    struct rw_deflate *deflate; /* streams, see deflate.h; NULL: not needed yet */
    struct rw_dropped *dropped; /* see dropped.h; NULL: not needed yet */
};

/* ret: RW_OK or -ENOMEM */
int32_t rw_ws_create(struct rw_core *core);
void rw_ws_destroy(struct rw_core *core);

static inline struct rw_slot_ws *rw_ws_of(const struct rw_slot *slot) { return (struct rw_slot_ws *)slot->own; }
static inline int rw_ws_is(const struct rw_slot *slot) { return slot->state.protocol == RW_WS_PROTOCOL; }

/* The connection has just answered 101. quiet: the host has opened it by itself and gets no OPEN event */
void rw_ws_open(struct rw_core *core, struct rw_slot *slot, uint32_t behavior, uint32_t quiet);
/* ret: 1 the host has had its CLOSE event, 0 the batch is full */
int rw_ws_tell_closed(struct rw_core *core, struct rw_slot *slot);

/* The close frame of this side is queued: the peer's answer is waited for. It has close_timeout_ms for it, from when it
 * last read some of the `unread` bytes in front, which it must read at the least rate (http.minBytesPerSecond). */
void rw_ws_await_close(struct rw_core *core, struct rw_slot *slot, uint32_t unread);

/* The kernel has taken output of a slot with answers_wait, or its time is over: its input goes on. */
void rw_ws_answers_read(struct rw_core *core, struct rw_slot *slot);

/* ------------------------------------------------------------------ ws_message.c */

/* A data frame, whose header was decoded, begins at bytes; of one that has begun, more of the payload is there.
 * ret: bytes consumed; 0: not now, or the connection fails */
size_t rw_ws_on_data_frame(struct rw_core *core, struct rw_slot *slot, const struct rw_ws_frame *frame, uint8_t *bytes,
                           size_t header_bytes, size_t len);
size_t rw_ws_on_payload(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len);
/* Hand over the message that was put together; without room it stays, and the slot comes back next turn. */
void rw_ws_deliver_message(struct rw_core *core, struct rw_slot *slot);
void rw_ws_drop_message(struct rw_core *core, struct rw_slot *slot);
/* Keep a buffer in the place of the present message. */
void rw_ws_put_message(struct rw_core *core, struct rw_slot *slot, rw_buffer message);
/* The host was told of something that the peer has sent, with so much payload. */
void rw_ws_use_window(struct rw_core *core, struct rw_slot *slot, uint64_t bytes);

/* ------------------------------------------------------------------ ws_clock.c */

/* Who reads none of its answers for so long is not waited for, see ws.c. */
#define RW_WS_READING_MS 1000u

/* rw_protocol.timer */
void rw_ws_timer(struct rw_core *core, struct rw_slot *slot);

/* ------------------------------------------------------------------ ws_send.c */

/* Queue a message or fragment: flags RW_SEND_*. Applies maxBackpressure to what is really sent. While another message
 * is being sent in fragments, a whole one is held and follows the last of them (RFC 6455 §5.4: fragments of messages
 * must not be interleaved). A message in fragments is compressed only with context takeover: a shared compressor cannot
 * be kept from one fragment to the next. */
void rw_ws_send(struct rw_core *core, struct rw_slot *slot, uint32_t flags, const uint8_t *data, uint64_t bytes);
/* There is no memory for what it must be sent, or has sent: it ends. */
void rw_ws_end_for_memory(struct rw_core *core, struct rw_slot *slot);
/* Queue a control frame of at most 125 bytes. */
void rw_ws_send_control(struct rw_core *core, struct rw_slot *slot, uint8_t opcode, const uint8_t *data,
                        uint32_t bytes);
/* Queue an empty ping. Pings of idle sockets fall due together: one frame in memory serves them all. */
void rw_ws_send_ping(struct rw_core *core, struct rw_slot *slot);
/* No ping may be queued any more: let go of the frame. */
void rw_ws_end_tick(struct rw_core *core);
/* Start the close handshake. code 0: a close frame without a code. reason is cut at 123 bytes, at a character
 * border. */
void rw_ws_close(struct rw_core *core, struct rw_slot *slot, uint32_t code, const uint8_t *reason, uint32_t bytes);
/* A violation, of the protocol or of a rate: close with the code of `cause` and end the connection without waiting for
 * an answer (RFC 6455 §7.1.7). What the host was told of before it in this turn it has not answered yet: then the
 * connection fails in the next turn, with its close frame behind those answers. Until then it stays OPEN and its input
 * is thrown away (ws.fail_due). */
void rw_ws_fail(struct rw_core *core, struct rw_slot *slot, enum rw_close_cause cause);
/* Room for a control frame of `frame_bytes` that the host sends? Applies the policy when there is none. ret: 1 send it,
 * 0 dropped or closed */
int rw_ws_admit(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes);

/* A whole message as the host gave it, on its way to one socket or to many. */
struct rw_ws_message {
    uint32_t flags; /* RW_SEND_* */
    const uint8_t *payload;
    uint64_t bytes;
    /* of the payload, once a drop has needed one, see dropped.h; released by whoever made the message */
    rw_buffer copy;
};
static inline uint8_t rw_ws_opcode_of(const struct rw_ws_message *message) {
    return message->flags & RW_SEND_TEXT ? RW_WS_OP_TEXT : RW_WS_OP_BINARY;
}
/* Room for this message, whose frame has `frame_bytes`? When there is none, the policy is applied, and a drop is told
 * or counted.
 * ret: 1 send it, 0 dropped or closed */
int rw_ws_admit_message(struct rw_core *core, struct rw_slot *slot, struct rw_ws_message *message,
                        uint64_t frame_bytes);
/* The same without a policy. ret: 1 there is room */
int rw_ws_has_room(struct rw_core *core, struct rw_slot *slot, uint64_t frame_bytes);
/* Keep a whole frame until the message being sent in fragments is complete. ret: 1, or 0: out of memory, the connection
 * is terminated */
int rw_ws_hold(struct rw_core *core, struct rw_slot *slot, const uint8_t *frame, uint32_t frame_bytes);

static inline const struct rw_behavior *rw_ws_behavior(const struct rw_core *core, const struct rw_slot *slot) {
    return &core->behaviors[slot->behavior];
}
static inline int rw_ws_can_send(const struct rw_slot *slot) {
    return slot->state.phase == RW_PHASE_OPEN && rw_ws_is(slot) && !(rw_ws_of(slot)->flags & RW_WS_CLOSE_SENT);
}

/* Names the present turn; never 0. */
static inline uint32_t rw_ws_turn_mark(const struct rw_core *core) { return (uint32_t)core->stats->turns | 1u << 31; }
/* Has the host not had its turn yet since it was told of something that this peer has sent? */
static inline int rw_ws_awaits_answers(const struct rw_core *core, const struct rw_slot *slot) {
    return rw_ws_of(slot)->told_turn == rw_ws_turn_mark(core);
}

/* Is a message being sent in fragments, so that others must wait? */
static inline int rw_ws_must_hold(const struct rw_slot *slot) {
    return rw_ws_of(slot)->fragments_out == RW_WS_FRAGMENTS_SENT ||
           rw_ws_of(slot)->fragments_out == RW_WS_FRAGMENTS_DEFLATED;
}

/* Why the connection ends: the first cause stays, and whoever began the close handshake is one. Called before what ends
 * it. */
static inline void rw_ws_note_cause(struct rw_slot *slot, enum rw_close_cause cause) {
    if (slot->state.phase != RW_PHASE_OPEN || !rw_ws_is(slot)) return;
    if (rw_ws_of(slot)->flags & (RW_WS_CLOSE_SENT | RW_WS_CLOSE_RECEIVED) || rw_ws_of(slot)->close_cause) return;
    rw_ws_of(slot)->close_cause = (uint8_t)cause;
}

/* ------------------------------------------------------------------ ws_rate.c */

/* A message or a ping is about to be taken, from a peer whose behavior has a rate. Past it the policy is applied: the
 * connection is closed, or it is paused until the peer is within the rate again. ret: 1 take it, 0 leave it */
int rw_ws_rate_admit(struct rw_core *core, struct rw_slot *slot);
/* It was taken: so many messages, and bytes of payload. */
void rw_ws_rate_charge(struct rw_slot *slot, uint32_t messages, uint64_t bytes);
/* The timer of a connection paused by its rate. When the time has come it is served. ret: when to look again (core
 * clock) */
uint32_t rw_ws_rate_on_timer(struct rw_core *core, struct rw_slot *slot);
/* A connection paused by its rate is about to be served. ret: 1 it is paused no longer: what was kept is to be taken,
 * and then received again; 0 it still is */
int rw_ws_rate_resume(struct rw_core *core, struct rw_slot *slot);

static inline int rw_ws_is_rated(const struct rw_behavior *behavior) {
    return (behavior->messages_per_second | behavior->bytes_per_second) != 0;
}

/* ------------------------------------------------------------------ ws_command.c */

/* Apply a command for sockets (ringway.h: SEND, WS_CLOSE, PING). ret: >= 0, or enum
 * rw_result */
int32_t rw_ws_command(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command, const uint8_t *data,
                      uint64_t bytes);

/* ------------------------------------------------------------------ publish.c */

/* Queue a message to every subscriber of a topic on this worker but `except` (RW_NO_SLOT: nobody). Framed once, and
 * compressed once for each window that makes a difference. ret: deliveries */
uint32_t rw_publish_local(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint64_t hash,
                          uint32_t flags, const uint8_t *payload, uint64_t bytes, uint32_t except);
/* The same, and to the other workers of the node. */
void rw_publish(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint32_t flags,
                const uint8_t *payload, uint64_t bytes, uint32_t except);
/* rw_protocol.deliver, fell_behind */
uint32_t rw_ws_deliver(struct rw_core *core, struct rw_slot *slot, struct rw_publication *publication);
int rw_ws_fell_behind(struct rw_core *core, struct rw_slot *slot, uint64_t messages);

#endif
