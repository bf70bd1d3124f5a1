/* What the host says to a WebSocket, see ws.h. */
#include "ws/ws.h"

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
        default: return RW_ERR_INVALID;
    }
}
