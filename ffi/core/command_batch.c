/* Commands, see command_batch.h. */
#include "command_batch.h"

#include "connection/connection.h"
#include "connection/tls.h"
#include "http1/http.h"
#include "ws/ws.h"

static int32_t apply_http(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                          const uint8_t *data, uint64_t bytes) {
    if (slot->state.protocol != RW_PROTOCOL_HTTP || slot->as.http.request != (uint16_t)command->request)
        return RW_ERR_STALE;
    switch ((enum rw_command_type)command->type) {
        case RW_COMMAND_RESPOND: rw_http_respond(core, slot, command, data, bytes); return RW_OK;
        case RW_COMMAND_RESPOND_BEGIN: rw_http_respond_begin(core, slot, command, data, bytes); return RW_OK;
        case RW_COMMAND_RESPOND_CHUNK: rw_http_respond_chunk(core, slot, data, bytes); return RW_OK;
        case RW_COMMAND_RESPOND_END:
            if (command->flags & RW_RESPOND_CLOSE && rw_http_awaits_response(slot))
                slot->as.http.flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
            rw_http_respond_end(core, slot);
            return RW_OK;
        case RW_COMMAND_RESPOND_ABORT: rw_http_respond_abort(core, slot); return RW_OK;
        case RW_COMMAND_BODY_ACK:
            rw_http_body_ack(core, slot, command->arg0, (command->flags & RW_BODY_KEPT) != 0);
            return RW_OK;
        case RW_COMMAND_RESPOND_TRY: return rw_http_respond_try(core, slot, data, bytes);
        case RW_COMMAND_UPGRADE: return rw_http_upgrade(core, slot, command, data, bytes);
        default: return RW_ERR_INVALID;
    }
}

/* A topic that the socket has already, and one that others on this worker have, take no room. */
static int32_t subscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes) {
    uint32_t index = rw_core_index(core, slot);
    if (slot->as.ws.topics >= core->limits.topics_per_socket) {
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
    if (result == 1) slot->as.ws.topics++;
    return result;
}

static int32_t unsubscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes) {
    int32_t result = rw_topics_unsubscribe(core->topics, rw_core_index(core, slot), &slot->subscriptions, topic, bytes);
    if (result == 1) slot->as.ws.topics--;
    return result;
}

static int32_t apply_websocket(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                               const uint8_t *data, uint64_t bytes) {
    if (slot->state.protocol != RW_PROTOCOL_WEBSOCKET) return RW_ERR_STALE;
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

static int32_t apply_publish(struct rw_core *core, const struct rw_command *command, const uint8_t *data,
                             uint64_t bytes) {
    uint32_t topic_bytes = command->arg0;
    if (topic_bytes == 0 || topic_bytes > bytes || topic_bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    uint32_t except = RW_NO_SLOT;
    if (command->slot != RW_NO_SLOT && rw_slot_pool_get(&core->pool, command->slot, command->generation))
        except = command->slot;
    rw_publish(core, data, topic_bytes, command->flags, data + topic_bytes, bytes - topic_bytes, except);
    return RW_OK;
}

static int32_t apply_pause(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command) {
    int resume = command->type == RW_COMMAND_RESUME;
    if (slot->state.protocol == RW_PROTOCOL_WEBSOCKET) {
        /* Once this side has closed, the answer must be read: nothing pauses any more. */
        if (!rw_ws_can_send(slot)) return RW_OK;
        slot->as.ws.window = resume ? command->arg0 : 0;
    }
    if (slot->state.paused_by_host && resume) {
        /* Nothing was read meanwhile, so the peer was not silent: its idle time begins now. */
        slot->last_input_ms = core->now_ms;
        if (slot->state.protocol == RW_PROTOCOL_HTTP) rw_http_on_resume(core, slot);
        else slot->as.ws.message_began_ms = core->now_ms;
        rw_connection_arm_timer(core, slot, core->now_ms);
    }
    slot->state.paused_by_host = !resume;
    if (resume && (slot->input_bytes || slot->state.peer_closed)) rw_connection_mark_ready(core, slot);
    rw_connection_update_receive(core, slot);
    return RW_OK;
}

int32_t rw_command_apply(struct rw_core *core, const struct rw_command *command, const uint8_t *data, uint64_t bytes) {
    if (command->type == RW_COMMAND_PUBLISH) return apply_publish(core, command, data, bytes);
    if (command->type == RW_COMMAND_MAIL)
        return core->bus ? rw_node_bus_mail(core->bus, command->arg0, data, bytes) : RW_ERR_STALE;
    struct rw_slot *slot = rw_slot_pool_get(&core->pool, command->slot, command->generation);
    /* Topics can be left until the slot is released: whoever hears of the end may not want to be counted any more. */
    if (!slot || (slot->state.phase != RW_PHASE_OPEN && command->type != RW_COMMAND_UNSUBSCRIBE)) return RW_ERR_STALE;
    switch ((enum rw_command_type)command->type) {
        case RW_COMMAND_PAUSE:
        case RW_COMMAND_RESUME: return apply_pause(core, slot, command);
        case RW_COMMAND_SERVER_NAME: return rw_tls_answer_name(core, slot);
        case RW_COMMAND_TERMINATE:
            slot->state.left_by_host = 1;
            rw_http_note_cause(slot, RW_ABORT_BY_HOST);
            rw_connection_terminate(core, slot);
            return RW_OK;
        case RW_COMMAND_SEND:
        case RW_COMMAND_WS_CLOSE:
        case RW_COMMAND_PING:
        case RW_COMMAND_SUBSCRIBE:
        case RW_COMMAND_UNSUBSCRIBE: return apply_websocket(core, slot, command, data, bytes);
        default: return apply_http(core, slot, command, data, bytes);
    }
}

void rw_command_batch_apply(struct rw_core *core, uint32_t count) {
    if (count > RW_COMMANDS_CAPACITY) count = RW_COMMANDS_CAPACITY;
    for (uint32_t i = 0; i < count; i++) {
        const struct rw_command *command = &core->commands[i];
        int from_event = (command->flags & RW_COMMAND_FROM_EVENT) != 0;
        uint32_t area_bytes = from_event ? RW_PAYLOAD_BYTES + RW_LEND_BYTES : RW_DATA_BYTES;
        /* Their result says what was taken, and a batch has none. */
        if (command->type == RW_COMMAND_RESPOND_TRY || command->type == RW_COMMAND_MAIL) continue;
        if (command->offset > area_bytes || command->bytes > area_bytes - command->offset) continue;
        (void)rw_command_apply(core, command, (from_event ? core->events.payload : core->data) + command->offset,
                               command->bytes);
    }
}
