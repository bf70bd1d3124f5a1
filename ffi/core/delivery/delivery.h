/* Who hears a message of a topic here, and what each connection's protocol makes of it.
 *
 * Role: topics → connections. Up: command_batch and core (subscribe, publish, messages of other workers). Down: topics,
 * protocol.h (`deliver` and its neighbours, by which a protocol takes part).
 *
 * Dialects: a connection hears *raw* messages, the payload alone, or is told more (topics/dialect.h). A topic counts
 * those who are not raw, so that one with raw WebSockets alone is served by the short loop of ws/publish.c. */
#ifndef RW_DELIVERY_H
#define RW_DELIVERY_H

#include "connection/protocol.h"
#include "delivery/publication.h"

struct rw_publish_tail {
    rw_buffer buffer; /* RW_BUFFER_NONE: none yet */
    uint32_t used;
};

/* Of a core. */
struct rw_delivery {
    struct rw_publish_tail logs[RW_PUBLISH_LOGS];
};

/* ret: RW_OK or -ENOMEM */
int32_t rw_delivery_create(struct rw_core *core);
void rw_delivery_destroy(struct rw_core *core);

/* Subscribe a connection of whatever protocol, within the limits of its own topics and of the worker's.
 * ret: 1 subscribed now, 0 it was already, RW_ERR_STALE it does not hear topics (any more), RW_ERR_INVALID the name,
 * RW_ERR_FULL a limit, -ENOMEM */
int32_t rw_delivery_subscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes);
/* ret: 1 it was subscribed, 0 it was not, RW_ERR_STALE as above */
int32_t rw_delivery_unsubscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes);

/* Deliver to every member of a topic (an id) but `except` (RW_NO_SLOT: nobody), each in its dialect.
 * ret: deliveries */
uint32_t rw_delivery_fan_out(struct rw_core *core, uint32_t topic, struct rw_publication *publication, uint32_t except);

#endif
