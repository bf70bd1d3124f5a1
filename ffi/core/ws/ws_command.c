/* What the host says to a WebSocket, see ws.h. */
#include "ws/ws.h"

/* A topic that the socket has already, and one that others on this worker have, take no room. */
static int32_t subscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes) {
    uint32_t index = rw_core_index(core, slot);
    if (rw_ws_of(slot)->topics >= core->limits.topics_per_socket) {
        if (rw_topics_is_subscribed(core->topics, index, topic, bytes)) return 0;
        RW_COUNT(core, refused_topics_socket, 1);
        return RW_ERR_FULL;
    }
    if (rw_topics_held(core->topics) >= core->limits.topics &&
        !rw_topics_find(core->topics, topic, bytes, rw_topics_hash(topic, bytes))) {
        RW_COUNT(core, refused_topics_worker, 1);
        return RW_ERR_FULL;
    }
    int32_t result = rw_topics_subscribe(core->topics, index, &slot->subscriptions, topic, bytes);
    if (result == 1) rw_ws_of(slot)->topics++;
    return result;
}

static int32_t unsubscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes) {
    int32_t result = rw_topics_unsubscribe(core->topics, rw_core_index(core, slot), &slot->subscriptions, topic, bytes);
    if (result == 1) rw_ws_of(slot)->topics--;
    return result;
}

int32_t rw_ws_command(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command, const uint8_t *data,
                      uint64_t bytes) {
    if (!rw_ws_is(slot)) return RW_ERR_STALE;
    switch ((enum rw_command_type)command->type) {
        case RW_COMMAND_SEND: rw_ws_send(core, slot, command->flags, data, bytes); return RW_OK;
        case RW_COMMAND_WS_CLOSE:
            if (command->arg0 != 0 && !rw_ws_close_code_valid(command->arg0)) return RW_ERR_INVALID;
            rw_ws_close(core, slot, command->arg0, data, bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes);
            return RW_OK;
        case RW_COMMAND_PING:
            if (bytes > RW_WS_CONTROL_BYTES_MAX) return RW_ERR_INVALID;
            /* Pings of the host count as messages do, so that a handler that pings a peer that is stuck fills no
             * memory. */
            if (!rw_ws_can_send(slot) || !rw_ws_admit(core, slot, bytes + 2)) return RW_OK;
            rw_ws_send_control(core, slot, RW_WS_OP_PING, data, (uint32_t)bytes);
            RW_COUNT(core, ws_pings_out, 1);
            return RW_OK;
        case RW_COMMAND_SUBSCRIBE:
            if (!rw_ws_can_send(slot)) return RW_ERR_STALE;
            if (bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
            return subscribe(core, slot, data, (uint32_t)bytes);
        case RW_COMMAND_UNSUBSCRIBE:
            if (bytes > RW_TOPIC_BYTES_MAX) return 0;
            return unsubscribe(core, slot, data, (uint32_t)bytes);
        default: return RW_ERR_INVALID;
    }
}
