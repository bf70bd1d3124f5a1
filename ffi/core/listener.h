/* Listening sockets of a core. Role: accept completions → connections. Up: core. Down: ring, connection.
 * A listener that runs out of descriptors rests: accepting goes on when a connection has closed, or after a tenth of a second, so that it
 * never spins (EMFILE, ENFILE: accept(2)). */
#ifndef RW_LISTENER_H
#define RW_LISTENER_H

#include "core.h"

void rw_listener_on_accept(struct rw_core *core, const struct rw_completion *completion);
/* ret: 1 an accept is armed somewhere and may still deliver */
int rw_listeners_armed(const struct rw_core *core);
/* Arm the listeners that rest. */
void rw_listener_retry(struct rw_core *core);

#endif
