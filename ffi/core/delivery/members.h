/* Members: subscriptions of this worker whose users are present, and the host's questions about all of them.
 *
 * Role: binds seats (state/presence.h) to subscriptions (topics.h): whatever ends the one frees the other, and no
 * JavaScript runs for it. Up: the host (rw_core_presence_* in ringway.h), core (the end of a step). Down: presence,
 * topics, delivery.
 *
 * A subscription may end within anything, such as a delivery that closes a connection which takes nothing. So the core is
 * told at once, and what that has added to presence logs is delivered when the step is over (rw_members_settle). */
#ifndef RW_MEMBERS_H
#define RW_MEMBERS_H

#include "connection/core.h"
#include "state/presence.h"

/* Things about topics that wait: records of a head and a name, one behind the other. */
struct rw_members_queue {
    uint8_t *bytes;
    uint32_t used;
    uint32_t capacity;
};

struct rw_members {
    struct rw_presence presence;
    struct rw_members_queue grown; /* presence logs to be delivered */
    uint32_t grown_last;           /* where the last of them lies */
    uint32_t settling;
    struct rw_members_queue owed; /* seats that could not be freed when their subscription ended */
};

/* Where the node has memory for it: core->members stays NULL elsewhere. After topics and the bus.
 * in:  worker: place of this process. ret: RW_OK or -ENOMEM */
int32_t rw_members_create(struct rw_core *core, uint32_t worker);
void rw_members_destroy(struct rw_core *core);

/* Deliver what has been added to presence logs since the last time. Outside of deliveries. */
void rw_members_deliver(struct rw_core *core);
static inline void rw_members_settle(struct rw_core *core) {
    if (core->members && core->members->grown.used) rw_members_deliver(core);
}

#endif
