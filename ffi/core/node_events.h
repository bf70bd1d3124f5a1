/* What the host hears of its node: interest of this worker that has changed (RW_EVENT_INTEREST), and mail of other
 * workers (RW_EVENT_MAIL).
 *
 * Role: topics and node_bus → event batch. Up: core, at the start of a turn. Interest has a quarter of a batch at most,
 * and both together have half: so whatever there is to tell of the one, there is room for the other, and for
 * connections. What finds none is told in the next turn, in order. */
#ifndef RW_NODE_EVENTS_H
#define RW_NODE_EVENTS_H

#include "connection/core.h"

/* Tell the changes of interest, as far as there is room. */
void rw_node_events_interest(struct rw_core *core);
/* A message of another worker that is mail. ret: 1 told, or not wanted; 0 no room or no memory: the same again later */
int rw_node_events_mail(struct rw_core *core, const struct rw_node_message *message);

#endif
