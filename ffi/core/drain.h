/* Winding down: idle connections end, and sockets are closed one after the other, spread over the time there is.
 *
 * Role: who has to go, and when; how is the protocol's. Up: core (a step each turn), the host (rw_core_drain). */
#ifndef RW_DRAIN_H
#define RW_DRAIN_H

#include "connection/core.h"

/* While it goes on, there is something to do so often. */
#define RW_DRAIN_STEP_MS 50u

/* Close those whose turn has come. */
void rw_drain_step(struct rw_core *core);

#endif
