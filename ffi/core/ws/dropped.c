/* Dropped messages, see dropped.h. */
#include "ws/dropped.h"

#include <stdlib.h>
#include <string.h>

#include "connection/connection.h"
#include "connection/event_batch.h"
#include "ws/ws.h"

struct dropped_message {
    uint32_t slot, generation;
    rw_buffer payload; /* RW_BUFFER_NONE: an empty message */
    uint32_t bytes;
    uint32_t charged; /* of the bound: the first drop of a publish bears the copy that all of them share */
    uint32_t binary;
};

/* A ring: messages[first..first + count), modulo its size. */
struct rw_dropped {
    struct dropped_message messages[RW_DROPPED_MESSAGES_MAX];
    uint32_t first, count;
    uint64_t bytes;
};

static int copy_payload(struct rw_core *core, const uint8_t *payload, uint64_t bytes, rw_buffer *copy) {
    if (core->ws->dropped->bytes + bytes > RW_DROPPED_BYTES_MAX) return 0;
    *copy = rw_buffers_acquire(core->buffers, (size_t)bytes);
    if (!*copy) return 0;
    memcpy(rw_buffers_data(core->buffers, *copy), payload, (size_t)bytes);
    return 1;
}

int rw_dropped_keep(struct rw_core *core, struct rw_slot *slot, uint32_t send_flags, const uint8_t *payload,
                    uint64_t bytes, rw_buffer *copy) {
    if (!core->ws->dropped && !(core->ws->dropped = calloc(1, sizeof *core->ws->dropped))) return 0;
    struct rw_dropped *dropped = core->ws->dropped;
    if (dropped->count == RW_DROPPED_MESSAGES_MAX || bytes > RW_DROPPED_BYTES_MAX) return 0;
    uint32_t charged = 0;
    if (bytes && !*copy) {
        if (!copy_payload(core, payload, bytes, copy)) return 0;
        charged = (uint32_t)bytes;
    }
    if (bytes) rw_buffers_retain(core->buffers, *copy, 1);
    dropped->messages[(dropped->first + dropped->count) % RW_DROPPED_MESSAGES_MAX] =
        (struct dropped_message){.slot = rw_core_index(core, slot),
                                 .generation = slot->generation,
                                 .payload = bytes ? *copy : RW_BUFFER_NONE,
                                 .bytes = (uint32_t)bytes,
                                 .charged = charged,
                                 .binary = !(send_flags & RW_SEND_TEXT)};
    dropped->count++;
    dropped->bytes += charged;
    /* The host must not sleep before it is told. */
    rw_connection_mark_ready(core, slot);
    return 1;
}

/* ret: 1 told, and the reference to its buffer is used up; 0 the batch is full */
static int tell(struct rw_core *core, struct rw_slot *slot, const struct dropped_message *message) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    if (ws->flags & RW_WS_OPEN_DUE) {
        struct rw_event *open = rw_event_add(core, slot, RW_EVENT_OPEN, 0, NULL);
        if (!open) return 0;
        open->arg0 = slot->behavior;
        ws->flags &= (uint8_t)~RW_WS_OPEN_DUE;
    }
    struct rw_event *event;
    if (message->bytes > RW_EVENT_LARGE_BYTES) {
        /* Those of one publish share their payload, and all of them have a bound of their own. */
        event = rw_event_add_large_for(core, message->slot, message->generation, RW_EVENT_DROPPED, message->payload,
                                       message->bytes);
        if (!event) return 0;
    } else {
        uint8_t *payload;
        event = rw_event_add(core, slot, RW_EVENT_DROPPED, message->bytes, &payload);
        if (!event) return 0;
        event->arg0 = 1;
        if (message->bytes) {
            memcpy(payload, rw_buffers_data(core->buffers, message->payload), message->bytes);
            rw_buffers_release(core->buffers, message->payload);
        }
    }
    event->flags = (uint16_t)(event->flags | RW_DROPPED_PAYLOAD | (message->binary ? RW_WS_BINARY : 0));
    return 1;
}

void rw_dropped_tell(struct rw_core *core) {
    struct rw_dropped *dropped = core->ws->dropped;
    if (!dropped) return;
    while (dropped->count) {
        const struct dropped_message *message = &dropped->messages[dropped->first];
        struct rw_slot *slot = rw_slot_pool_get(&core->pool, message->slot, message->generation);
        /* CLOSE waits for these, so the connection is as it was when the message was dropped. */
        assert(slot && slot->state.protocol == RW_WS_PROTOCOL && !(rw_ws_of(slot)->flags & RW_WS_CLOSE_TOLD));
        if (!tell(core, slot, message)) {
            rw_connection_mark_ready(core, slot);
            return;
        }
        dropped->bytes -= message->charged;
        dropped->first = (dropped->first + 1) % RW_DROPPED_MESSAGES_MAX;
        dropped->count--;
    }
}

int rw_dropped_waits(const struct rw_core *core, const struct rw_slot *slot) {
    const struct rw_dropped *dropped = core->ws->dropped;
    if (!dropped || !dropped->count) return 0;
    uint32_t index = rw_core_index(core, slot);
    for (uint32_t i = 0; i < dropped->count; i++) {
        if (dropped->messages[(dropped->first + i) % RW_DROPPED_MESSAGES_MAX].slot == index) return 1;
    }
    return 0;
}

void rw_dropped_destroy(struct rw_core *core) {
    struct rw_dropped *dropped = core->ws->dropped;
    if (!dropped) return;
    for (; dropped->count; dropped->count--) {
        rw_buffer payload = dropped->messages[dropped->first].payload;
        if (payload) rw_buffers_release(core->buffers, payload);
        dropped->first = (dropped->first + 1) % RW_DROPPED_MESSAGES_MAX;
    }
    free(dropped);
    core->ws->dropped = NULL;
}
