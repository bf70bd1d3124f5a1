/* The event batch, see event_batch.h. Invariant: everything in `held` has exactly one reference that is ours. */
#include "connection/event_batch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static void *map_area(size_t bytes) {
    void *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return area == MAP_FAILED ? NULL : area;
}

int32_t rw_event_batch_init(struct rw_event_batch *batch) {
    batch->records = map_area(sizeof(struct rw_event) * RW_EVENTS_CAPACITY);
    batch->payload = map_area(RW_PAYLOAD_BYTES + RW_LEND_BYTES);
    return batch->records && batch->payload ? RW_OK : -ENOMEM;
}

static void release_held(struct rw_event_batch *batch, struct rw_buffers *buffers) {
    for (uint32_t i = 0; i < batch->held_count; i++) rw_buffers_release(buffers, batch->held[i]);
    batch->held_count = 0;
}

void rw_event_batch_destroy(struct rw_event_batch *batch, struct rw_buffers *buffers) {
    release_held(batch, buffers);
    free(batch->held);
    if (batch->records) munmap(batch->records, sizeof(struct rw_event) * RW_EVENTS_CAPACITY);
    if (batch->payload) munmap(batch->payload, RW_PAYLOAD_BYTES + RW_LEND_BYTES);
}

void rw_event_batch_begin(struct rw_core *core) {
    release_held(&core->events, core->buffers);
    core->events.count = 0;
    core->events.payload_used = 0;
    core->events.held_bytes = 0;
    core->mail_held_bytes = 0;
}

struct rw_event *rw_event_add_large_for(struct rw_core *core, uint32_t slot, uint32_t generation,
                                        enum rw_event_type type, rw_buffer buffer, uint32_t bytes) {
    struct rw_event_batch *batch = &core->events;
    if (batch->held_count == batch->held_capacity) {
        uint32_t capacity = batch->held_capacity ? batch->held_capacity * 2 : 16;
        rw_buffer *held = realloc(batch->held, capacity * sizeof *held);
        if (!held) return NULL;
        batch->held = held;
        batch->held_capacity = capacity;
    }
    struct rw_event *event = rw_event_add_for(core, slot, generation, type, 0, NULL);
    if (!event) return NULL;
    uint64_t address = (uint64_t)(uintptr_t)rw_buffers_data(core->buffers, buffer);
    event->flags = RW_EVENT_LARGE;
    event->bytes = bytes;
    event->arg0 = (uint32_t)address;
    event->arg1 = (uint32_t)(address >> 32);
    batch->held[batch->held_count++] = buffer;
    return event;
}
