/* What clients have begun and not finished, and how much of it a worker holds.
 *
 * Role: one budget for all that waits for the rest to come: kept input (connection.c), messages that are put
 * together (ws_message.c), request bodies that the host has been given (http_body.c). Each would be bounded by limits of its own,
 * but not their sum. Counted where a buffer is acquired or released, or a part of a body handed over; a message that
 * comes in one piece is never counted.
 *
 * Who may have more: a connection may hold RW_UNFINISHED_SHARE times what it leaves free (dynamic thresholds, Choudhury
 * and Hahne 1998). So one alone gets most of the budget, many large ones leave a part of it free between them, and
 * small ones find room where large ones are refused. What is held is never taken back: the one that asks for more is
 * refused. */
#ifndef RW_UNFINISHED_H
#define RW_UNFINISHED_H

#include "connection/core.h"

/* How much a connection may hold, as a multiple of what it leaves free. Of n large ones, each ends at SHARE / (n *
 * SHARE + 1) of the budget. */
#define RW_UNFINISHED_SHARE 4u

static inline void rw_unfinished_add(struct rw_core *core, uint64_t bytes) { core->unfinished_bytes += bytes; }

static inline void rw_unfinished_remove(struct rw_core *core, uint64_t bytes) {
    assert(core->unfinished_bytes >= bytes);
    core->unfinished_bytes -= bytes;
}

static inline void rw_unfinished_add_buffer(struct rw_core *core, rw_buffer buffer) {
    rw_unfinished_add(core, rw_buffers_capacity(core->buffers, buffer));
}
static inline void rw_unfinished_remove_buffer(struct rw_core *core, rw_buffer buffer) {
    rw_unfinished_remove(core, rw_buffers_capacity(core->buffers, buffer));
}

/* May what holds `held` bytes hold `more`? */
static inline int rw_unfinished_admits(const struct rw_core *core, uint64_t held, uint64_t more) {
    uint64_t limit = core->limits.unfinished_bytes;
    uint64_t left = limit > core->unfinished_bytes ? limit - core->unfinished_bytes : 0;
    return more <= left && held + more <= (left - more) * RW_UNFINISHED_SHARE;
}

/* Of what was refused, with `held` bytes and `expected` in all: would it have been, if nobody else held anything? */
static inline int rw_unfinished_never_admits(const struct rw_core *core, uint64_t held, uint64_t expected) {
    return core->unfinished_bytes <= held ||
           expected > core->limits.unfinished_bytes / (RW_UNFINISHED_SHARE + 1u) * RW_UNFINISHED_SHARE;
}

#endif
