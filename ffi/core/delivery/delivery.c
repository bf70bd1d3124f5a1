/* Subscriptions of connections, and fan-out in dialects, see delivery.h. */
#include "delivery/delivery.h"

#include <errno.h>
#include <stdlib.h>

int32_t rw_delivery_create(struct rw_core *core) {
    core->delivery = calloc(1, sizeof *core->delivery);
    return core->delivery ? RW_OK : -ENOMEM;
}

void rw_delivery_destroy(struct rw_core *core) {
    if (!core->delivery) return;
    for (uint32_t i = 0; i < RW_PUBLISH_LOGS; i++) {
        if (core->delivery->logs[i].buffer) rw_buffers_release(core->buffers, core->delivery->logs[i].buffer);
    }
    free(core->delivery);
    core->delivery = NULL;
}

/* ------------------------------------------------------------------ subscriptions */

/* A topic that the connection has already, and one that others on this worker have, take no room. ret: 1, or as
 * rw_delivery_subscribe() */
static int32_t admit(struct rw_core *core, struct rw_slot *slot, uint32_t topics, const uint8_t *topic,
                     uint32_t bytes) {
    if (topics >= core->limits.topics_per_socket) {
        if (rw_topics_is_subscribed(core->topics, rw_core_index(core, slot), topic, bytes)) return 0;
        RW_COUNT(core, refused_topics_socket, 1);
        return RW_ERR_FULL;
    }
    if (rw_topics_held(core->topics) >= core->limits.topics &&
        !rw_topics_find(core->topics, topic, bytes, rw_topics_hash(topic, bytes))) {
        RW_COUNT(core, refused_topics_worker, 1);
        return RW_ERR_FULL;
    }
    return 1;
}

int32_t rw_delivery_subscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes) {
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    if (slot->state.phase != RW_PHASE_OPEN || !protocol->deliver || !protocol->hears(slot)) return RW_ERR_STALE;
    if (bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    uint32_t *topics = protocol->topics(slot);
    uint32_t index = rw_core_index(core, slot);
    int32_t result = admit(core, slot, *topics, topic, bytes);
    if (result == 1) result = rw_topics_subscribe(core->topics, index, &slot->subscriptions, topic, bytes);
    if (result != 1) return result;
    ++*topics;
    if (!protocol->hears_raw(core, slot))
        rw_topics_note_other(core->topics, rw_topics_find(core->topics, topic, bytes, rw_topics_hash(topic, bytes)),
                             index);
    return 1;
}

int32_t rw_delivery_unsubscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes) {
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    if (!protocol->deliver) return RW_ERR_STALE;
    if (bytes > RW_TOPIC_BYTES_MAX) return 0;
    int32_t result = rw_topics_unsubscribe(core->topics, rw_core_index(core, slot), &slot->subscriptions, topic, bytes);
    if (result == 1) --*protocol->topics(slot);
    return result;
}

/* ------------------------------------------------------------------ fan-out */

uint32_t rw_delivery_fan_out(struct rw_core *core, uint32_t topic, struct rw_publication *publication,
                             uint32_t except) {
    uint32_t delivered = 0;
    uint32_t count;
    (void)rw_topics_members(core->topics, topic, &count);
    /* From the last to the first: terminating a member moves the last one into its place, which has had its copy. With
     * it others may go, and the topic. */
    for (uint32_t i = count; i-- > 0 && rw_topics_is_heard(core->topics, topic);) {
        const uint32_t *members = rw_topics_members(core->topics, topic, &count);
        if (i >= count) continue;
        uint32_t index = members[i];
        if (index == except) continue;
        struct rw_slot *slot = rw_core_slot(core, index);
        delivered += rw_protocol_of(core, slot)->deliver(core, slot, publication) == RW_DELIVERED;
    }
    RW_COUNT(core, deliveries, delivered);
    return delivered;
}
