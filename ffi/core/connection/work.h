/* What one turn may do with input, so that no client takes the worker from the others.
 *
 *   turn  | fresh input, as it is received: half | input that waited, by the ready list: the rest, half at least |
 *   slot    of what is left of its part, a share each; what goes past that waits on the ready list, behind the others
 *
 * Work is counted in units of about 100 ns of this thread: a frame is one, 256 bytes of payload are one, and an event
 * is as many as what the host says that its handler takes (rw_core_pace). Whoever is served goes on until its share is
 * spent, so one message, and one at least, may go past it: a turn is late by the dearest message there is, not by how
 * many a client has sent.
 *
 * Role: pure counting. Up: connection (who is served, and how long), ws, http, tls_connection (what it cost). */
#ifndef RW_WORK_H
#define RW_WORK_H

#include "connection/core.h"

#define RW_WORK_UNITS 16384u /* of a turn: 4 for each event of a full batch, its frame included, or 4 MiB of payload */
#define RW_WORK_BYTES 256u   /* of payload that are a unit: inflated, checked, handed over */
#define RW_WORK_RECEIVED_BYTES 1024u /* of what is only copied */
/* A step of a TLS handshake: a signature is 30 µs to 1 ms, so a few in a turn. */
#define RW_WORK_HANDSHAKE 1024u
/* What commands may add to an event: this thread may have lost its CPU meanwhile, so a few events must always pass.
 * Sends, and publishes to a few, are not worth counting. */
#define RW_WORK_APPLY_MAX (RW_WORK_UNITS / 16)
#define RW_WORK_APPLY_LEAST 16u
/* So many events of one client are served in one turn where there is room for them, and however dear their commands
 * are: what they publish leaves as one send to each subscriber. */
#define RW_WORK_BURST_EVENTS 32u
/* What fresh input of one receive may use at most: an eighth of a turn, or a burst. */
#define RW_WORK_FRESH_SHARE (RW_WORK_UNITS / 8)
/* And a connection at most: each may be answered, and the answers meet the kernel only when the turn is over. */
#define RW_WORK_SHARE_EVENTS 128u

/* A part of the turn begins, which may spend `units`. */
static inline void rw_work_begin(struct rw_core *core, uint32_t units) {
    core->work.limit = core->work.end = core->work.spent + units;
}
/* Somebody is served, who may spend `units`, within the present part of the turn. */
static inline void rw_work_share(struct rw_core *core, uint32_t units) {
    uint32_t left = core->work.limit - core->work.spent, most = RW_WORK_SHARE_EVENTS * (core->work.event_units + 1);
    if (units > left) units = left;
    core->work.end = core->work.spent + (units < most ? units : most) + RW_WORK_BURST_EVENTS * core->work.apply_units;
}
/* The same for input as it comes: a burst of one client stays together. */
static inline void rw_work_share_fresh(struct rw_core *core) {
    uint32_t burst = RW_WORK_BURST_EVENTS * (core->work.event_units + 1);
    rw_work_share(core, burst > RW_WORK_FRESH_SHARE ? burst : RW_WORK_FRESH_SHARE);
}
/* ret: 1 the present part of the turn is over: whoever comes waits */
static inline int rw_work_is_over(const struct rw_core *core) { return core->work.spent >= core->work.limit; }
/* ret: 1 whoever is served has had its share: the rest waits */
static inline int rw_work_is_spent(const struct rw_core *core) { return core->work.spent >= core->work.end; }

static inline void rw_work_charge(struct rw_core *core, uint64_t units) {
    uint64_t spent = core->work.spent + units;
    core->work.spent = spent > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)spent;
}
/* An event of input, with so much payload, goes to the host. */
static inline void rw_work_charge_event(struct rw_core *core, uint64_t bytes) {
    rw_work_charge(core, core->work.event_units + core->work.apply_units + bytes / RW_WORK_BYTES);
}

/* The commands that followed from the present batch took so long, which nobody knows before: a publish costs as much as
 * there are subscribers. At once when it is more than lately, and by and by when it is less. */
static inline void rw_work_note_applied(struct rw_core *core, uint64_t ns) {
    uint64_t units = ns / 100 / (core->events.count ? core->events.count : 1);
    if (units < core->work.apply_units) units = (core->work.apply_units + units) / 2;
    if (units < RW_WORK_APPLY_LEAST) units = 0;
    core->work.apply_units = units < RW_WORK_APPLY_MAX ? (uint32_t)units : RW_WORK_APPLY_MAX;
}

#endif
