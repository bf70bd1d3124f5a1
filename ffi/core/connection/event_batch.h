/* The event batch: records and payloads for the host, written from the start each turn.
 *
 * Role: core → host. Up: http, ws, connection, node_events write; the host reads. A full batch is not an error: the
 * writer keeps its input and comes back next turn (ready list). */
#ifndef RW_EVENT_BATCH_H
#define RW_EVENT_BATCH_H

#include "connection/core.h"

/* ret: RW_OK or -ENOMEM */
int32_t rw_event_batch_init(struct rw_event_batch *batch);
void rw_event_batch_destroy(struct rw_event_batch *batch, struct rw_buffers *buffers);
/* Begin a new batch: what the last one held is released. */
void rw_event_batch_begin(struct rw_core *core);

static inline int rw_event_batch_has_room(const struct rw_core *core, uint32_t payload_bytes) {
    return core->events.count < RW_EVENTS_CAPACITY && RW_PAYLOAD_BYTES - core->events.payload_used >= payload_bytes;
}

/* A new record with `payload_bytes` reserved at *payload (8-byte aligned), or NULL when the batch is full. Everything
 * but type, slot, generation, offset and bytes is zero. Shrinking `bytes` afterwards is fine. */
static inline struct rw_event *rw_event_add_for(struct rw_core *core, uint32_t slot, uint32_t generation,
                                                enum rw_event_type type, uint32_t payload_bytes, uint8_t **payload) {
    struct rw_event_batch *batch = &core->events;
    if (!rw_event_batch_has_room(core, payload_bytes)) return NULL;
    struct rw_event *event = &batch->records[batch->count++];
    event->type = (uint16_t)type;
    event->flags = 0;
    event->slot = slot;
    event->generation = generation;
    event->offset = batch->payload_used;
    event->bytes = payload_bytes;
    event->arg0 = 0;
    event->arg1 = 0;
    event->request = 0;
    event->stream = 0;
    if (payload) *payload = batch->payload + batch->payload_used;
    uint32_t used = batch->payload_used + ((payload_bytes + 7u) & ~7u);
    batch->payload_used = used > RW_PAYLOAD_BYTES ? RW_PAYLOAD_BYTES : used;
    return event;
}

static inline struct rw_event *rw_event_add(struct rw_core *core, struct rw_slot *slot, enum rw_event_type type,
                                            uint32_t payload_bytes, uint8_t **payload) {
    return rw_event_add_for(core, rw_core_index(core, slot), slot->generation, type, payload_bytes, payload);
}

/* A record whose payload stays where it is, in `buffer`, whose reference passes to the batch.
 * ret: NULL when the batch is full or memory is short; the reference then stays with the caller */
struct rw_event *rw_event_add_large_for(struct rw_core *core, uint32_t slot, uint32_t generation,
                                        enum rw_event_type type, rw_buffer buffer, uint32_t bytes);

/* Of a connection: what all of them have in one batch in place is bounded. */
static inline struct rw_event *rw_event_add_large(struct rw_core *core, struct rw_slot *slot, enum rw_event_type type,
                                                  rw_buffer buffer, uint32_t bytes) {
    if (core->events.held_bytes && core->events.held_bytes + bytes > RW_HELD_BYTES_MAX) return NULL;
    struct rw_event *event =
        rw_event_add_large_for(core, rw_core_index(core, slot), slot->generation, type, buffer, bytes);
    if (event) core->events.held_bytes += bytes;
    return event;
}

/* Room for a message that is not inflated yet, and of which nobody knows how long it is? */
static inline int rw_event_batch_has_room_for_any(const struct rw_core *core) {
    return rw_event_batch_has_room(core, RW_EVENT_LARGE_BYTES) && core->events.held_bytes < RW_HELD_BYTES_MAX;
}

#endif
