/* Messages that were dropped for backpressure, kept for hosts that want to see them
 * (RW_BEHAVIOR_WANTS_DROPPED_PAYLOAD).
 *
 * Role: a drop → a DROPPED event with its payload. Up: ws_send, publish. Down: event_batch, buffers. A bounded queue of
 * the core, told at the start of each turn, before any other event of it. Past the bounds a drop is only counted.
 *
 * Invariants: each entry holds one reference to its buffer; the CLOSE event of a connection waits until its entries are
 * told. */
#ifndef RW_DROPPED_H
#define RW_DROPPED_H

#include "connection/core.h"

#define RW_DROPPED_MESSAGES_MAX 1024u
#define RW_DROPPED_BYTES_MAX (4u << 20)

/* Keep a message that was dropped for this slot.
 * in:  *copy: the payload in a buffer, or RW_BUFFER_NONE: it is then made here, and every drop of one publish shares
 * it; the caller releases it
 * ret: 1 kept, 0 past the bounds */
int rw_dropped_keep(struct rw_core *core, struct rw_slot *slot, uint32_t send_flags, const uint8_t *payload,
                    uint64_t bytes, rw_buffer *copy);
/* Tell what is kept, as far as the batch has room. */
void rw_dropped_tell(struct rw_core *core);
/* Is there something of this connection that the host has not been told? */
int rw_dropped_waits(const struct rw_core *core, const struct rw_slot *slot);
/* The core ends: what is kept is released. */
void rw_dropped_destroy(struct rw_core *core);

#endif
