/* Commands, see command_batch.h. */
#include "command_batch.h"

#include "connection/connection.h"
#include "connection/tls.h"
#include "delivery/delivery.h"
#include "ws/ws.h"

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
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    int resume = command->type == RW_COMMAND_RESUME;
    if (protocol->pause && !protocol->pause(slot, resume, command->arg0)) return RW_OK;
    if (slot->state.paused_by_host && resume) {
        /* Nothing was read meanwhile, so the peer was not silent: its idle time begins now. */
        slot->last_input_ms = core->now_ms;
        protocol->resumed(core, slot);
        rw_connection_arm_timer(core, slot, core->now_ms);
    }
    slot->state.paused_by_host = !resume;
    if (resume && (slot->input_bytes || slot->state.peer_closed)) rw_connection_mark_ready(core, slot);
    rw_connection_update_receive(core, slot);
    return RW_OK;
}

/* About a request, of whichever protocol has brought it. */
static int32_t apply_to_request(struct rw_core *core, struct rw_slot *slot, const struct rw_command *command,
                                const uint8_t *data, uint64_t bytes) {
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    return protocol->command ? protocol->command(core, slot, command, data, bytes) : RW_ERR_STALE;
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
            rw_protocol_of(core, slot)->note_end(slot, RW_END_BY_HOST);
            rw_connection_terminate(core, slot);
            return RW_OK;
        case RW_COMMAND_SUBSCRIBE:
            return bytes > RW_TOPIC_BYTES_MAX ? RW_ERR_INVALID
                                              : rw_delivery_subscribe(core, slot, data, (uint32_t)bytes);
        case RW_COMMAND_UNSUBSCRIBE:
            return bytes > RW_TOPIC_BYTES_MAX ? 0 : rw_delivery_unsubscribe(core, slot, data, (uint32_t)bytes);
        case RW_COMMAND_SEND:
        case RW_COMMAND_WS_CLOSE:
        case RW_COMMAND_PING: return rw_ws_command(core, slot, command, data, bytes);
        default: return apply_to_request(core, slot, command, data, bytes);
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
