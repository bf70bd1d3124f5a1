/* The command batch: records of the host, applied in order (ringway.h, enum rw_command_type).
 *
 * Role: host → http, ws, publish. Up: core. A command whose connection or request is over, or whose data lies outside
 * its area, is skipped. */
#ifndef RW_COMMAND_BATCH_H
#define RW_COMMAND_BATCH_H

#include "connection/core.h"

void rw_command_batch_apply(struct rw_core *core, uint32_t count);
/* One command with data of its own. ret: RW_OK, RW_ERR_STALE, RW_ERR_INVALID, or what its type says (ringway.h) */
int32_t rw_command_apply(struct rw_core *core, const struct rw_command *command, const uint8_t *data, uint64_t bytes);

#endif
