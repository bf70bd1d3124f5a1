/* Listening sockets of a core. Role: accept completions → connections. Up: core. Down: ring, connection, tls (whose
 * references it drops). An index is used again only after the last completion of its accept; connections of an earlier
 * use are told by its generation. A listener that runs out of descriptors rests: accepting goes on when a connection
 * has closed, or after a tenth of a second, so that it never spins (EMFILE, ENFILE: accept(2)). */
#ifndef RW_LISTENER_H
#define RW_LISTENER_H

#include "connection/core.h"

void rw_listener_on_accept(struct rw_core *core, const struct rw_completion *completion);
/* ret: 1 unlisten was called, and the last completion of the accept has not come */
static inline int rw_listener_is_ending(const struct rw_listener *listener) {
    return listener->used && listener->unlistened;
}
/* ret: 1 the connection was accepted in the present use, or the last one, of its listener's index */
static inline int rw_listener_is_of(const struct rw_core *core, const struct rw_slot *slot) {
    return slot->listener_generation == core->listeners[slot->listener].generation;
}
/* ret: 1 an accept is armed somewhere and may still deliver */
int rw_listeners_armed(const struct rw_core *core);
/* ret: so many were told by rw_core_stop_accepting() to stop, and may still deliver what had come by then */
uint32_t rw_listeners_ending(const struct rw_core *core);
/* Stop accepting on every listener, and leave what waits in the queues. */
void rw_listeners_cancel(struct rw_core *core);
/* Arm the listeners that rest. */
void rw_listener_retry(struct rw_core *core);

#endif
