/* Fan-out: one message to all subscribers of a topic, see ws.h.
 *
 * Role: topics → outboxes. Up: command_batch, core (messages of other workers). Down: outbox, deflate, node_bus.
 *
 * A message is framed once, at the end of the publish log, a refcounted buffer; every subscriber's queue gets a
 * reference:
 *
 *   log     [frame 1][frame 2][frame 3]…
 *   socket  └─────── one segment ──────┘   frames that follow each other in the log merge, so a burst is one contiguous
 *   send
 *
 * Compressed frames have a log of their own. A message is compressed on its own, at most once for each window size that
 * clients have agreed to, and only when one of them is there; one that fits the smallest window is the same for all of
 * them. A client that keeps its window gets the same frame, and our compressor for it begins anew with its next
 * message.
 * A socket that is already waiting for its peer gets a copy instead of a small frame: else a slow reader would keep
 * whole logs alive. */
#include <string.h>

#include "connection/connection.h"
#include "ws/deflate.h"
#include "ws/ws.h"

#define LOG_BYTES 16384u
#define COPY_BYTES_MAX 4096u

/* One form of the message: as it is, or compressed for a window. */
struct form {
    rw_buffer buffer; /* RW_BUFFER_NONE: not made yet */
    uint32_t offset, bytes;
    uint32_t references; /* of queues, to be taken when all have been served */
    uint8_t failed;      /* it cannot be made: memory is short */
    uint8_t deflated;
};

struct publication {
    struct rw_ws_message message;
    struct form plain;
    struct form deflated[RW_DEFLATE_WINDOW_MAX + 1]; /* by window */
};

/* ------------------------------------------------------------------ the log */

/* A frame at the end of the log, or in a buffer of its own when it is large. ret: 0 out of memory */
static int write_frame(struct rw_core *core, struct form *form, uint8_t opcode, const uint8_t *payload,
                       uint64_t bytes) {
    uint64_t needed = bytes + 10;
    if (needed > UINT32_MAX / 4) return 0;
    rw_buffer *log = form->deflated ? &core->ws->deflated_log : &core->ws->publish_log;
    uint32_t *log_used = form->deflated ? &core->ws->deflated_log_used : &core->ws->publish_log_used;
    int own = needed > LOG_BYTES / 2;
    if (own) {
        form->buffer = rw_buffers_acquire(core->buffers, (size_t)needed);
        form->offset = 0;
    } else {
        if (*log && LOG_BYTES - *log_used < needed) {
            rw_buffers_release(core->buffers, *log);
            *log = RW_BUFFER_NONE;
        }
        if (!*log) {
            *log = rw_buffers_acquire(core->buffers, LOG_BYTES);
            *log_used = 0;
        }
        form->buffer = *log;
        form->offset = *log_used;
        if (form->buffer) rw_buffers_retain(core->buffers, form->buffer, 1);
    }
    if (!form->buffer) return 0;
    uint8_t *out = rw_buffers_data(core->buffers, form->buffer) + form->offset;
    uint32_t header = rw_ws_encode_header(out, opcode, 1, form->deflated, bytes);
    if (bytes) memcpy(out + header, payload, (size_t)bytes);
    form->bytes = header + (uint32_t)bytes;
    if (!own) *log_used += form->bytes;
    return 1;
}

static struct form *plain_form(struct rw_core *core, struct publication *publication) {
    struct form *form = &publication->plain;
    const struct rw_ws_message *message = &publication->message;
    if (!form->buffer && !form->failed)
        form->failed = !write_frame(core, form, rw_ws_opcode_of(message), message->payload, message->bytes);
    return form->failed ? NULL : form;
}

static struct form *deflated_form(struct rw_core *core, struct publication *publication, uint32_t client_window) {
    const struct rw_ws_message *message = &publication->message;
    uint32_t window = rw_deflate_window(client_window, message->bytes);
    struct form *form = &publication->deflated[window];
    if (!form->buffer && !form->failed) {
        rw_buffer deflated = RW_BUFFER_NONE;
        int64_t bytes = rw_deflate_alone(core, window, message->payload, message->bytes, &deflated);
        form->deflated = 1;
        form->failed = bytes < 0 || !write_frame(core, form, rw_ws_opcode_of(message),
                                                 rw_buffers_data(core->buffers, deflated), (uint64_t)bytes);
        if (deflated) rw_buffers_release(core->buffers, deflated);
    }
    return form->failed ? NULL : form;
}

/* The form for this subscriber. ret: NULL when memory is short */
static struct form *form_for(struct rw_core *core, struct publication *publication, const struct rw_slot *slot) {
    struct form *form = NULL;
    if (rw_deflate_wanted(core, slot, publication->message.flags, publication->message.bytes)) {
        form = deflated_form(core, publication, rw_ws_of(slot)->deflate_window);
    }
    return form ? form : plain_form(core, publication);
}

static void release_form(struct rw_core *core, struct form *form) {
    if (!form->buffer) return;
    if (form->references) rw_buffers_retain(core->buffers, form->buffer, form->references);
    rw_buffers_release(core->buffers, form->buffer);
}

/* ------------------------------------------------------------------ delivering */

static int is_queued(struct rw_core *core, struct rw_slot *slot, int queued) {
    if (!queued) rw_ws_end_for_memory(core, slot);
    return queued;
}

/* ret: 1 queued, 0 not: the connection is terminated */
static int queue_copy(struct rw_core *core, struct rw_slot *slot, const struct form *form) {
    const uint8_t *frame = rw_buffers_data(core->buffers, form->buffer) + form->offset;
    if (rw_ws_must_hold(slot)) return rw_ws_hold(core, slot, frame, form->bytes);
    uint8_t *out = rw_outbox_reserve(&core->outbox, slot, form->bytes);
    if (out) memcpy(out, frame, form->bytes);
    return is_queued(core, slot, out != NULL);
}

/* ret: 1 queued, 0 not: the connection is terminated */
static inline int queue_reference(struct rw_core *core, struct rw_slot *slot, struct form *form) {
    int32_t appended = rw_outbox_append(&core->outbox, slot, form->buffer, form->offset, form->bytes);
    if (appended > 0) form->references++;
    return is_queued(core, slot, appended >= 0);
}

/* For a socket that waits for its peer, is in the middle of a message, or keeps its window.
 * ret: 1 queued, 0 not: the connection is terminated */
__attribute__((noinline)) static int queue_with_care(struct rw_core *core, struct rw_slot *slot, struct form *form) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    /* It will be in the client's window, and is not in ours. */
    if (form->deflated && ws->deflate_flags & RW_WS_DEFLATE_TAKEOVER) ws->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
    if (rw_ws_must_hold(slot)) return queue_copy(core, slot, form);
    if (slot->state.send_inflight) ws->flags |= RW_WS_DRAIN_WANTED;
    int copied = slot->state.send_inflight && form->bytes <= COPY_BYTES_MAX;
    if (!(copied ? queue_copy(core, slot, form) : queue_reference(core, slot, form))) return 0;
    rw_connection_mark_dirty(core, slot);
    return 1;
}

/* ret: 1 queued, 0 not: the connection is terminated */
static inline int queue_form(struct rw_core *core, struct rw_slot *slot, struct form *form) {
    if (slot->state.send_inflight || rw_ws_of(slot)->fragments_out || form->deflated)
        return queue_with_care(core, slot, form);
    if (!queue_reference(core, slot, form)) return 0;
    rw_connection_mark_dirty(core, slot);
    return 1;
}

uint32_t rw_publish_local(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint64_t hash,
                          uint32_t flags, const uint8_t *payload, uint64_t bytes, uint32_t except) {
    uint32_t id = rw_topics_find(core->topics, topic, topic_bytes, hash);
    if (!id) return 0;
    struct publication publication = {
        .message = {.flags = flags & (RW_SEND_TEXT | RW_SEND_COMPRESS), .payload = payload, .bytes = bytes}};
    uint32_t delivered = 0;
    uint32_t deflated = 0;
    uint32_t count;
    const uint32_t *members = rw_topics_members(core->topics, id, &count);
    /* One form for all, unless some may get it compressed. */
    struct form *only = flags & RW_SEND_COMPRESS ? NULL : plain_form(core, &publication);
    if (publication.plain.failed) return 0;
    /* From the last to the first: terminating a member moves the last one into its place, which has had its copy. */
    for (uint32_t i = count; i-- > 0;) {
        members = rw_topics_members(core->topics, id, &count);
        uint32_t index = members[i];
        if (index == except) continue;
        struct rw_slot *slot = rw_core_slot(core, index);
        if (!rw_ws_can_send(slot)) continue;
        struct form *form = only ? only : form_for(core, &publication, slot);
        if (!form) break;
        if (!rw_ws_admit_message(core, slot, &publication.message, form->bytes) || !queue_form(core, slot, form))
            continue;
        delivered++;
        deflated += form->deflated;
    }
    release_form(core, &publication.plain);
    for (uint32_t window = RW_DEFLATE_WINDOW_MIN; window <= RW_DEFLATE_WINDOW_MAX; window++)
        release_form(core, &publication.deflated[window]);
    if (publication.message.copy) rw_buffers_release(core->buffers, publication.message.copy);
    RW_COUNT(core, deliveries, delivered);
    RW_COUNT(core, ws_messages_out, delivered);
    RW_COUNT(core, ws_deflated_out, deflated);
    RW_COUNT(core, ws_bytes_out, bytes * delivered);
    return delivered;
}

void rw_publish(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint32_t flags,
                const uint8_t *payload, uint64_t bytes, uint32_t except) {
    uint64_t hash = rw_topics_hash(topic, topic_bytes);
    if (flags & RW_PUBLISH_REMOTE) RW_COUNT(core, publishes_remote, 1);
    else RW_COUNT(core, publishes, 1);
    (void)rw_publish_local(core, topic, topic_bytes, hash, flags, payload, bytes, except);
    if (!core->bus || bytes > UINT32_MAX / 4) return;
    struct rw_node_message message = {.topic = topic,
                                      .payload = payload,
                                      .topic_bytes = topic_bytes,
                                      .payload_bytes = (uint32_t)bytes,
                                      .topic_hash = hash,
                                      .flags = flags};
    (void)rw_node_bus_publish(core->bus, &message);
}

static void end_log(struct rw_core *core, rw_buffer *log, uint32_t used) {
    if (!*log || used <= LOG_BYTES / 2) return;
    rw_buffers_release(core->buffers, *log);
    *log = RW_BUFFER_NONE;
}

void rw_publish_end_tick(struct rw_core *core) {
    end_log(core, &core->ws->publish_log, core->ws->publish_log_used);
    end_log(core, &core->ws->deflated_log, core->ws->deflated_log_used);
}
