/* Members: subscriptions of this worker whose users are present, and the host's questions about all of them.
 *
 * Role: binds seats (state/presence.h) to subscriptions (topics.h): whatever ends the one frees the other, and no
 * JavaScript runs for it. Up: the host (rw_core_presence_* in ringway.h), core (the end of a step). Down: presence,
 * topics, delivery. */
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
    struct rw_members_queue owed; /* seats that could not be freed when their subscription ended */
};

/* Where the node has memory for it: core->members stays NULL elsewhere. After topics and the bus.
 * in:  worker: place of this process. ret: RW_OK or -ENOMEM */
int32_t rw_members_create(struct rw_core *core, uint32_t worker);
void rw_members_destroy(struct rw_core *core);

#endif
