/* Fan-out: one message to all subscribers of a topic, see ws.h.
 *
 * Role: topics → outboxes. Up: command_batch, core (messages of other workers). Down: outbox, node_bus.
 *
 * A message is framed once, at the end of the publish log, a refcounted buffer; every subscriber's queue gets a reference:
 *
 *   log     [frame 1][frame 2][frame 3]…
 *   socket  └─────── one segment ──────┘   frames that follow each other in the log merge, so a burst is one contiguous send
 *
 * A socket that is already waiting for its peer gets a copy instead of a small frame: else a slow reader would keep whole logs alive. */
#include <string.h>

#include "connection.h"
#include "ws.h"

#define LOG_BYTES 16384u
#define COPY_BYTES_MAX 4096u

/* The frame at the end of the log, or in a buffer of its own when it is large. ret: RW_BUFFER_NONE when memory is exhausted */
static rw_buffer frame_once(struct rw_core *core, uint32_t flags, const uint8_t *payload, uint64_t bytes, uint32_t *offset, uint32_t *frame_bytes) {
    uint64_t needed = bytes + 10;
    if (needed > UINT32_MAX / 4) return RW_BUFFER_NONE;
    rw_buffer buffer;
    int own = needed > LOG_BYTES / 2;
    if (own) {
        buffer = rw_buffers_acquire(core->buffers, (size_t)needed);
        if (!buffer) return RW_BUFFER_NONE;
        *offset = 0;
    } else {
        if (core->publish_log && LOG_BYTES - core->publish_log_used < needed) {
            rw_buffers_release(core->buffers, core->publish_log);
            core->publish_log = RW_BUFFER_NONE;
        }
        if (!core->publish_log) {
            core->publish_log = rw_buffers_acquire(core->buffers, LOG_BYTES);
            core->publish_log_used = 0;
            if (!core->publish_log) return RW_BUFFER_NONE;
        }
        buffer = core->publish_log;
        *offset = core->publish_log_used;
        rw_buffers_retain(core->buffers, buffer, 1);
    }
    uint8_t *out = rw_buffers_data(core->buffers, buffer) + *offset;
    uint32_t header = rw_ws_encode_header(out, flags & RW_SEND_TEXT ? RW_WS_OP_TEXT : RW_WS_OP_BINARY, 1, 0, bytes);
    if (bytes) memcpy(out + header, payload, (size_t)bytes);
    *frame_bytes = header + (uint32_t)bytes;
    if (!own) core->publish_log_used += *frame_bytes;
    return buffer;
}

/* ret: 1 queued with a new reference, 0 queued without, -1 not queued */
static int queue_frame(struct rw_core *core, struct rw_slot *slot, rw_buffer buffer, uint32_t offset, uint32_t bytes) {
    if (slot->state.send_inflight) slot->as.ws.flags |= RW_WS_DRAIN_WANTED;
    if (slot->state.send_inflight && bytes <= COPY_BYTES_MAX) {
        uint8_t *out = rw_outbox_reserve(&core->outbox, slot, bytes);
        if (!out) return -1;
        memcpy(out, rw_buffers_data(core->buffers, buffer) + offset, bytes);
        return 0;
    }
    int32_t appended = rw_outbox_append(&core->outbox, slot, buffer, offset, bytes);
    return appended < 0 ? -1 : appended;
}

uint32_t rw_publish_local(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint64_t hash, uint32_t flags, const uint8_t *payload,
                          uint64_t bytes, uint32_t except) {
    uint32_t id = rw_topics_find(core->topics, topic, topic_bytes, hash);
    if (!id) return 0;
    uint32_t offset, frame_bytes;
    rw_buffer buffer = frame_once(core, flags, payload, bytes, &offset, &frame_bytes);
    if (!buffer) return 0;
    uint32_t delivered = 0;
    uint32_t references = 0;
    uint32_t count;
    const uint32_t *members = rw_topics_members(core->topics, id, &count);
    /* From the last to the first: terminating a member moves the last one into its place, which has had its copy. */
    for (uint32_t i = count; i-- > 0;) {
        members = rw_topics_members(core->topics, id, &count);
        uint32_t index = members[i];
        if (index == except) continue;
        struct rw_slot *slot = rw_core_slot(core, index);
        if (!rw_ws_can_send(slot) || !rw_ws_admit(core, slot, frame_bytes)) continue;
        int queued = queue_frame(core, slot, buffer, offset, frame_bytes);
        if (queued < 0) {
            rw_connection_terminate(core, slot);
            continue;
        }
        references += (uint32_t)queued;
        delivered++;
        rw_connection_mark_dirty(core, slot);
    }
    if (references) rw_buffers_retain(core->buffers, buffer, references);
    rw_buffers_release(core->buffers, buffer);
    RW_COUNT(core, deliveries, delivered);
    RW_COUNT(core, ws_messages_out, delivered);
    RW_COUNT(core, ws_bytes_out, bytes * delivered);
    return delivered;
}

void rw_publish(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint32_t flags, const uint8_t *payload, uint64_t bytes, uint32_t except) {
    uint64_t hash = rw_topics_hash(topic, topic_bytes);
    RW_COUNT(core, publishes, 1);
    (void)rw_publish_local(core, topic, topic_bytes, hash, flags, payload, bytes, except);
    if (!core->bus || bytes > UINT32_MAX / 4) return;
    struct rw_node_message message = {
        .topic = topic, .payload = payload, .topic_bytes = topic_bytes, .payload_bytes = (uint32_t)bytes, .topic_hash = hash, .flags = flags};
    (void)rw_node_bus_publish(core->bus, &message);
}

void rw_publish_end_tick(struct rw_core *core) {
    if (core->publish_log && core->publish_log_used > LOG_BYTES / 2) {
        rw_buffers_release(core->buffers, core->publish_log);
        core->publish_log = RW_BUFFER_NONE;
    }
}
