/* Events of the node, see node_events.h. */
#include "node_events.h"

#include <string.h>

#include "connection/event_batch.h"

static_assert(RW_PAYLOAD_BYTES / 4 >= RW_EVENT_LARGE_BYTES && RW_PAYLOAD_BYTES / 4 >= RW_TOPIC_BYTES_MAX,
              "each of these events fits its part of a batch");

/* Of the first 1/part of a batch. */
static int has_room(const struct rw_core *core, uint32_t part, uint32_t payload_bytes) {
    return core->events.count < RW_EVENTS_CAPACITY / part &&
           core->events.payload_used + payload_bytes <= RW_PAYLOAD_BYTES / part;
}

void rw_node_events_interest(struct rw_core *core) {
    const uint8_t *name;
    uint32_t name_bytes;
    int interested;
    while (rw_topics_change(core->topics, &name, &name_bytes, &interested)) {
        if (!has_room(core, 4, name_bytes)) return;
        uint8_t *payload;
        struct rw_event *event = rw_event_add_for(core, RW_NO_SLOT, 0, RW_EVENT_INTEREST, name_bytes, &payload);
        assert(event && "there is room");
        memcpy(payload, name, name_bytes);
        event->flags = interested ? RW_INTEREST_WANTED : 0;
        rw_topics_change_told(core->topics);
    }
}

/* One large piece of mail a turn, and more while they are small: they are held until the next turn. ret: as
 * rw_node_events_mail() */
static int tell_large(struct rw_core *core, const struct rw_node_message *mail) {
    if (!has_room(core, 2, 0) ||
        (core->mail_held_bytes && core->mail_held_bytes + mail->payload_bytes > RW_MAIL_HELD_BYTES_MAX))
        return 0;
    rw_buffer copy = rw_buffers_acquire(core->buffers, mail->payload_bytes);
    if (!copy) return 0;
    memcpy(rw_buffers_data(core->buffers, copy), mail->payload, mail->payload_bytes);
    if (!rw_event_add_large_for(core, mail->from, mail->epoch, RW_EVENT_MAIL, copy, mail->payload_bytes)) {
        rw_buffers_release(core->buffers, copy);
        return 0;
    }
    core->mail_held_bytes += mail->payload_bytes;
    return 1;
}

int rw_node_events_mail(struct rw_core *core, const struct rw_node_message *mail) {
    if (!(core->flags & RW_CORE_WANTS_MAIL)) return 1;
    if (mail->payload_bytes > RW_EVENT_LARGE_BYTES) return tell_large(core, mail);
    if (!has_room(core, 2, mail->payload_bytes)) return 0;
    uint8_t *payload;
    struct rw_event *event =
        rw_event_add_for(core, mail->from, mail->epoch, RW_EVENT_MAIL, mail->payload_bytes, &payload);
    assert(event && "there is room");
    if (mail->payload_bytes) memcpy(payload, mail->payload, mail->payload_bytes);
    return 1;
}
