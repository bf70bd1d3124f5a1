/* Questions of the host that need an answer at once, see ringway.h. */
#include <string.h>

#include "connection/core.h"
#include "connection/listener.h"

int32_t rw_core_topics(const struct rw_core *core, uint32_t slot_index, uint32_t generation, uint8_t *out,
                       uint32_t bytes) {
    const struct rw_slot *slot = rw_slot_pool_get(&core->pool, slot_index, generation);
    if (!slot) return RW_ERR_STALE;
    uint64_t needed = 0;
    uint32_t used = 0;
    uint32_t cursor = slot->subscriptions;
    const uint8_t *name;
    uint32_t name_bytes;
    while (rw_topics_next_of_slot(core->topics, &cursor, &name, &name_bytes)) {
        needed += sizeof(uint16_t) + name_bytes;
        if (needed > bytes) continue;
        uint16_t length = (uint16_t)name_bytes;
        memcpy(out + used, &length, sizeof length);
        memcpy(out + used + sizeof length, name, name_bytes);
        used = (uint32_t)needed;
    }
    return needed > INT32_MAX ? INT32_MAX : (int32_t)needed;
}

int32_t rw_core_topic_wanted(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes) {
    uint64_t hash = rw_topics_hash(topic, topic_bytes);
    if (rw_topics_find(core->topics, topic, topic_bytes, hash)) return 1;
    return core->bus && rw_node_bus_wanted(core->bus, hash);
}

uint32_t rw_core_subscribers(const struct rw_core *core, const uint8_t *topic, uint32_t topic_bytes) {
    uint32_t id = rw_topics_find(core->topics, topic, topic_bytes, rw_topics_hash(topic, topic_bytes));
    uint32_t count = 0;
    if (id) (void)rw_topics_members(core->topics, id, &count);
    return count;
}

int32_t rw_core_is_subscribed(const struct rw_core *core, uint32_t slot, uint32_t generation, const uint8_t *topic,
                              uint32_t topic_bytes) {
    return rw_slot_pool_get(&core->pool, slot, generation) &&
           rw_topics_is_subscribed(core->topics, slot, topic, topic_bytes);
}

uint32_t rw_core_connections(const struct rw_core *core) { return core->pool.used + rw_listeners_ending(core); }

uint32_t rw_abi_version(void) { return RW_ABI_VERSION; }
