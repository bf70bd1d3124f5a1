/* Subscriptions of connections, and fan-out in dialects, see delivery.h. */
#include "delivery/delivery.h"

#include <errno.h>
#include <stdlib.h>

#include "connection/connection.h"

int32_t rw_delivery_create(struct rw_core *core) {
    core->delivery = calloc(1, sizeof *core->delivery);
    if (!core->delivery) return -ENOMEM;
    core->delivery->looked_ms = core->now_ms;
    return RW_OK;
}

void rw_delivery_destroy(struct rw_core *core) {
    struct rw_delivery *delivery = core->delivery;
    if (!delivery) return;
    for (uint32_t i = 0; i < RW_PUBLISH_LOGS; i++) {
        if (delivery->logs[i].buffer) rw_buffers_release(core->buffers, delivery->logs[i].buffer);
    }
    rw_hold_destroy(core);
    free(delivery->due.items);
    free(delivery->host_due.items);
    free(delivery->payloads);
    free(delivery);
    core->delivery = NULL;
}

/* ------------------------------------------------------------------ subscriptions */

uint32_t rw_delivery_topics(const struct rw_core *core) {
    return rw_topics_held(core->topics) - (core->delivery ? core->delivery->own_holds : 0);
}

int rw_delivery_admits_topic(struct rw_core *core, const uint8_t *topic, uint32_t bytes) {
    if (rw_delivery_topics(core) < core->limits.topics ||
        rw_topics_find(core->topics, topic, bytes, rw_topics_hash(topic, bytes)))
        return 1;
    RW_COUNT(core, refused_topics_worker, 1);
    return 0;
}

int32_t rw_delivery_subscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes) {
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    if (slot->state.phase != RW_PHASE_OPEN || !protocol->deliver || !protocol->hears(slot)) return RW_ERR_STALE;
    if (bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    uint32_t *topics = protocol->topics(slot);
    uint32_t index = rw_core_index(core, slot);
    /* A topic that the connection has already, and one that others on this worker have, take no room. */
    if (*topics >= core->limits.topics_per_socket) {
        if (rw_topics_is_subscribed(core->topics, index, topic, bytes)) return 0;
        RW_COUNT(core, refused_topics_socket, 1);
        return RW_ERR_FULL;
    }
    if (!rw_delivery_admits_topic(core, topic, bytes)) return RW_ERR_FULL;
    int32_t result = rw_topics_subscribe(core->topics, index, &slot->subscriptions, topic, bytes);
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

void rw_delivery_lag(struct rw_core *core, struct rw_slot *slot, uint32_t topic, struct rw_topic_cursor from) {
    if (rw_topics_lag_begin(core->topics, topic, rw_core_index(core, slot), from) != RW_OK) {
        rw_protocol_of(core, slot)->note_end(slot, RW_END_NO_MEMORY);
        rw_connection_terminate(core, slot);
        return;
    }
    slot->state.lagging = 1;
    RW_COUNT(core, topic_lags, 1);
}

uint32_t rw_delivery_fan_out(struct rw_core *core, uint32_t topic, struct rw_publication *publication, uint32_t except,
                             const struct rw_topic_cursor *of) {
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
        if (of && slot->state.lagging && rw_topics_lag(core->topics, topic, index)) continue;
        switch ((enum rw_delivered)rw_protocol_of(core, slot)->deliver(core, slot, publication)) {
            case RW_DELIVERED: delivered++; break;
            case RW_DELIVERED_NOT: break;
            case RW_DELIVERED_FULL:
                assert(of && "a direct topic has no room to wait for");
                /* Making room may have ended it. */
                if (slot->state.phase == RW_PHASE_OPEN) rw_delivery_lag(core, slot, topic, *of);
        }
    }
    RW_COUNT(core, deliveries, delivered);
    if (!of && rw_topics_is_heard(core->topics, topic) && rw_topics_is_held(core->topics, topic))
        rw_hold_message(core, publication);
    return delivered;
}

/* ------------------------------------------------------------------ the turn */

void rw_delivery_step(struct rw_core *core) {
    rw_logged_step(core);
    if (core->resumed.count) rw_attach_resume(core);
    if (rw_hold_has_work(core)) rw_hold_tell(core);
}

int rw_delivery_has_work(const struct rw_core *core) {
    return core->delivery->due.count || core->resumed.count || core->delivery->look_at || rw_hold_has_work(core);
}
