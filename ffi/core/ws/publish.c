/* Messages of topics for WebSockets, see ws.h and delivery/delivery.h.
 *
 * Role: publication → frames → outboxes. Up: command_batch, core (messages of other workers), delivery. Down: deflate,
 * node_bus.
 *
 * Compressed frames have a log of their own. A message is compressed on its own, at most once for each window size that
 * clients have agreed to, and only when one of them is there; one that fits the smallest window is the same for all of
 * them. A client that keeps its window gets the same frame, and our compressor for it begins anew with its next
 * message.
 * A socket that is already waiting for its peer gets a copy instead of a small frame: else a slow reader would keep
 * whole logs alive. */
#include <string.h>

#include "connection/connection.h"
#include "delivery/publication.h"
#include "ws/deflate.h"
#include "ws/ws.h"

#define COPY_BYTES_MAX 4096u

/* ------------------------------------------------------------------ forms */

/* ret: NULL when memory is short */
static struct rw_form *write_frame(struct rw_core *core, struct rw_publication *publication, uint32_t name,
                                   enum rw_publish_log log, uint8_t opcode, const uint8_t *payload, uint64_t bytes) {
    uint8_t *out = rw_form_begin(core, publication, name, log, bytes + 10);
    if (!out) return NULL;
    uint32_t header = rw_ws_encode_header(out, opcode, 1, log == RW_PUBLISH_LOG_DEFLATED, bytes);
    if (bytes) memcpy(out + header, payload, (size_t)bytes);
    return rw_form_end(core, publication, name, log, header + (uint32_t)bytes);
}

/* What a dialect says: the bytes of the message, and the names of its forms. */
struct saying {
    const uint8_t *payload;
    uint64_t bytes;
    uint32_t plain, deflated; /* enum rw_form_name */
    enum rw_publish_log log;
    uint8_t opcode;
};

static inline struct saying raw_saying(const struct rw_publication *publication) {
    return (struct saying){.payload = publication->message.payload,
                           .bytes = publication->message.payload_bytes,
                           .plain = RW_FORM_RAW,
                           .deflated = RW_FORM_RAW_DEFLATED,
                           .log = RW_PUBLISH_LOG_RAW,
                           .opcode = publication->flags & RW_SEND_TEXT ? RW_WS_OP_TEXT : RW_WS_OP_BINARY};
}

/* ret: 0 memory is short */
static int json_saying(struct rw_core *core, struct rw_publication *publication, struct saying *saying) {
    uint32_t bytes;
    const uint8_t *json = rw_publication_json(core, publication, &bytes);
    if (!json) return 0;
    *saying = (struct saying){.payload = json,
                              .bytes = bytes,
                              .plain = RW_FORM_JSON,
                              .deflated = RW_FORM_JSON_DEFLATED,
                              .log = RW_PUBLISH_LOG_JSON,
                              .opcode = RW_WS_OP_TEXT};
    return 1;
}

static inline struct rw_form *plain_form(struct rw_core *core, struct rw_publication *publication,
                                         const struct saying *saying) {
    struct rw_form *made = rw_form_made(publication, saying->plain);
    if (made || rw_form_failed(publication, saying->plain)) return made;
    return write_frame(core, publication, saying->plain, saying->log, saying->opcode, saying->payload, saying->bytes);
}

static struct rw_form *deflated_form(struct rw_core *core, struct rw_publication *publication,
                                     const struct saying *saying, uint32_t client_window) {
    uint32_t window = rw_deflate_window(client_window, saying->bytes);
    uint32_t name = saying->deflated + window;
    struct rw_form *made = rw_form_made(publication, name);
    if (made || rw_form_failed(publication, name)) return made;
    rw_buffer deflated = RW_BUFFER_NONE;
    int64_t bytes = rw_deflate_alone(core, window, saying->payload, saying->bytes, &deflated);
    if (bytes < 0) publication->failed |= (uint64_t)1 << name;
    else
        made = write_frame(core, publication, name, RW_PUBLISH_LOG_DEFLATED, saying->opcode,
                           rw_buffers_data(core->buffers, deflated), (uint64_t)bytes);
    if (deflated) rw_buffers_release(core->buffers, deflated);
    return made;
}

/* The form for this subscriber. *deflated: whether it is compressed. ret: NULL when memory is short */
static struct rw_form *form_for(struct rw_core *core, struct rw_publication *publication, const struct saying *saying,
                                const struct rw_slot *slot, int *deflated) {
    struct rw_form *form = NULL;
    if (rw_deflate_wanted(core, slot, publication->flags, saying->bytes))
        form = deflated_form(core, publication, saying, rw_ws_of(slot)->deflate_window);
    *deflated = form != NULL;
    return form ? form : plain_form(core, publication, saying);
}

/* ------------------------------------------------------------------ queueing */

static int is_queued(struct rw_core *core, struct rw_slot *slot, int queued) {
    if (!queued) rw_ws_end_for_memory(core, slot);
    return queued;
}

/* ret: 1 queued, 0 not: the connection is terminated */
static int queue_copy(struct rw_core *core, struct rw_slot *slot, const struct rw_form *form) {
    const uint8_t *frame = rw_buffers_data(core->buffers, form->buffer) + form->offset;
    if (rw_ws_must_hold(slot)) return rw_ws_hold(core, slot, frame, form->bytes);
    uint8_t *out = rw_outbox_reserve(&core->outbox, slot, form->bytes);
    if (out) memcpy(out, frame, form->bytes);
    return is_queued(core, slot, out != NULL);
}

/* ret: 1 queued, 0 not: the connection is terminated */
static inline int queue_reference(struct rw_core *core, struct rw_slot *slot, struct rw_form *form) {
    return is_queued(core, slot, rw_form_queue(core, slot, form, 0, form->bytes));
}

/* For a socket that waits for its peer, is in the middle of a message, or keeps its window.
 * ret: 1 queued, 0 not: the connection is terminated */
__attribute__((noinline)) static int queue_with_care(struct rw_core *core, struct rw_slot *slot, struct rw_form *form,
                                                     int deflated) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    /* It will be in the client's window, and is not in ours. */
    if (deflated && ws->deflate_flags & RW_WS_DEFLATE_TAKEOVER) ws->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
    if (rw_ws_must_hold(slot)) return queue_copy(core, slot, form);
    if (slot->state.send_inflight) ws->flags |= RW_WS_DRAIN_WANTED;
    int copied = slot->state.send_inflight && form->bytes <= COPY_BYTES_MAX;
    if (!(copied ? queue_copy(core, slot, form) : queue_reference(core, slot, form))) return 0;
    rw_connection_mark_dirty(core, slot);
    return 1;
}

/* ret: 1 queued, 0 not: the connection is terminated */
static inline int queue_form(struct rw_core *core, struct rw_slot *slot, struct rw_form *form, int deflated) {
    if (slot->state.send_inflight || rw_ws_of(slot)->fragments_out || deflated)
        return queue_with_care(core, slot, form, deflated);
    if (!queue_reference(core, slot, form)) return 0;
    rw_connection_mark_dirty(core, slot);
    return 1;
}

static struct rw_ws_message message_of(const struct rw_publication *publication, const struct saying *saying) {
    return (struct rw_ws_message){.flags = saying->opcode == RW_WS_OP_TEXT ? RW_SEND_TEXT : 0,
                                  .payload = saying->payload,
                                  .bytes = saying->bytes,
                                  .copy = publication->copy};
}

/* Room for a message of a direct topic? Else the policy is applied. */
static int admit(struct rw_core *core, struct rw_slot *slot, struct rw_publication *publication,
                 const struct saying *saying, const struct rw_form *form) {
    struct rw_ws_message message = message_of(publication, saying);
    int admitted = rw_ws_admit_message(core, slot, &message, form->bytes);
    publication->copy = message.copy;
    return admitted;
}

/* All connections of a user hear "\0u" and its id, which is nobody's topic: they get what the host sends to a user as it
 * is, as if it had been sent to each. */
static int is_for_user(const struct rw_topic_message *message) {
    return message->topic_bytes >= 2 && message->topic[0] == 0 && message->topic[1] == 'u';
}

uint32_t rw_ws_deliver(struct rw_core *core, struct rw_slot *slot, struct rw_publication *publication) {
    if (!rw_ws_can_send(slot)) return RW_DELIVERED_NOT;
    struct saying saying = raw_saying(publication);
    int is_raw = !(rw_ws_behavior(core, slot)->flags & RW_BEHAVIOR_POSITIONS) || is_for_user(&publication->message);
    if (is_raw && publication->message.event == RW_TOPIC_LOST) {
        rw_hold_lost(core, slot, &publication->message);
        return slot->state.phase == RW_PHASE_OPEN ? RW_DELIVERED : RW_DELIVERED_NOT;
    }
    /* Joins and leaves are JSON for everybody: there is no payload that would be one alone. */
    if ((!is_raw || publication->message.event != RW_TOPIC_MESSAGE) && !json_saying(core, publication, &saying)) {
        rw_ws_end_for_memory(core, slot);
        return RW_DELIVERED_NOT;
    }
    int deflated;
    struct rw_form *form = form_for(core, publication, &saying, slot, &deflated);
    if (!form) {
        rw_ws_end_for_memory(core, slot);
        return RW_DELIVERED_NOT;
    }
    if (rw_publication_is_logged(publication)) {
        if (!rw_ws_has_room(core, slot, form->bytes)) {
            rw_ws_of(slot)->flags |= RW_WS_DRAIN_WANTED;
            return RW_DELIVERED_FULL;
        }
    } else if (!admit(core, slot, publication, &saying, form)) {
        return RW_DELIVERED_NOT;
    }
    if (!queue_form(core, slot, form, deflated)) return RW_DELIVERED_NOT;
    RW_COUNT(core, ws_messages_out, 1);
    RW_COUNT(core, ws_deflated_out, deflated);
    RW_COUNT(core, ws_bytes_out, saying.bytes);
    return RW_DELIVERED;
}

/* ------------------------------------------------------------------ direct topics */

/* All members hear the payload alone: the frame is the same for all, unless some may get it compressed. ret:
 * deliveries */
static uint32_t fan_out_raw(struct rw_core *core, uint32_t topic, struct rw_publication *publication, uint32_t except) {
    uint32_t delivered = 0;
    uint32_t compressed = 0;
    uint32_t count;
    (void)rw_topics_members(core->topics, topic, &count);
    const struct saying saying = raw_saying(publication);
    struct rw_form *only = publication->flags & RW_SEND_COMPRESS ? NULL : plain_form(core, publication, &saying);
    if (rw_form_failed(publication, RW_FORM_RAW)) return 0;
    struct rw_ws_message message = message_of(publication, &saying);
    /* From the last to the first: terminating a member moves the last one into its place, which has had its copy. With
     * it others may go, and the topic. */
    for (uint32_t i = count; i-- > 0 && rw_topics_is_heard(core->topics, topic);) {
        const uint32_t *members = rw_topics_members(core->topics, topic, &count);
        if (i >= count) continue;
        uint32_t index = members[i];
        if (index == except) continue;
        struct rw_slot *slot = rw_core_slot(core, index);
        if (!rw_ws_can_send(slot)) continue;
        int deflated = 0;
        struct rw_form *form = only ? only : form_for(core, publication, &saying, slot, &deflated);
        if (!form) break;
        if (!rw_ws_admit_message(core, slot, &message, form->bytes) || !queue_form(core, slot, form, deflated))
            continue;
        delivered++;
        compressed += (uint32_t)deflated;
    }
    publication->copy = message.copy;
    RW_COUNT(core, deliveries, delivered);
    RW_COUNT(core, ws_messages_out, delivered);
    RW_COUNT(core, ws_deflated_out, compressed);
    RW_COUNT(core, ws_bytes_out, saying.bytes * delivered);
    return delivered;
}

uint32_t rw_publish_local(struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes, uint64_t hash,
                          uint32_t flags, const uint8_t *payload, uint64_t bytes, uint32_t except) {
    uint32_t id = rw_topics_find(core->topics, topic, topic_bytes, hash);
    if (!id) return 0;
    struct rw_publication publication;
    const struct rw_topic_message message = {.topic = topic,
                                             .topic_bytes = topic_bytes,
                                             .payload = payload,
                                             .payload_bytes = bytes,
                                             .event = RW_TOPIC_MESSAGE,
                                             .is_text = (flags & RW_SEND_TEXT) != 0};
    rw_publication_begin(&publication, &message, flags);
    uint32_t delivered = rw_topics_others(core->topics, id) ? rw_delivery_fan_out(core, id, &publication, except, NULL)
                                                            : fan_out_raw(core, id, &publication, except);
    rw_publication_end(core, &publication);
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
