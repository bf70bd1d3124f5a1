/* The node bus: a worker's life among the others. See node_bus.h; node_send.c and node_receive.c carry the messages.
 *
 * Role: presence, interest, sleep. Up: core. Down: shm, process (eventfds).
 * Invariant: nothing of a place where nobody has lived is touched. */
#include "node/node_bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/node_peer.h"

struct rw_node_peer *rw_node_peer(struct rw_node_bus *bus, uint32_t worker) {
    struct rw_node_peer *peer = bus->peers[worker];
    if (peer != NULL) return peer;
    peer = calloc(1, sizeof *peer);
    if (peer == NULL) return NULL;
    peer->tail = &peer->head;
    bus->peers[worker] = peer;
    return peer;
}

/* ------------------------------------------------------------------ telling others */

/* Two calls, so that one fence serves all. */
static void tell_pending(struct rw_node_bus *bus, uint32_t worker) {
    struct rw_shm_worker *other = rw_shm_worker(bus->shm, worker);
    atomic_fetch_or(&other->pending[bus->worker / 64], (uint64_t)1 << (bus->worker % 64));
}

static void wake_if_sleeping(struct rw_node_bus *bus, uint32_t worker) {
    const struct rw_shm_worker *other = rw_shm_worker(bus->shm, worker);
    if (atomic_load_explicit(&other->sleeping, memory_order_relaxed) == 0 || bus->inbox_fds[worker] < 0) return;
    rw_eventfd_signal(bus->inbox_fds[worker]);
}

void rw_node_tell(struct rw_node_bus *bus, const uint64_t *workers) {
    RW_NODE_EACH(bus, workers, worker) tell_pending(bus, worker);
    atomic_thread_fence(memory_order_seq_cst);
    RW_NODE_EACH(bus, workers, worker) wake_if_sleeping(bus, worker);
}

/* ------------------------------------------------------------------ interest and sleep */

void rw_node_bus_interest(struct rw_node_bus *bus, uint64_t topic_hash, int interested) {
    _Atomic uint16_t *cell = &bus->interest[topic_hash % RW_INTEREST_CELLS];
    const uint16_t now = atomic_load_explicit(cell, memory_order_relaxed);
    /* At its end the count is not known any more, so it never goes down again. */
    if (now == UINT16_MAX || (!interested && now == 0)) return;
    atomic_store_explicit(cell, (uint16_t)(interested ? now + 1 : now - 1), memory_order_release);
}

int rw_node_bus_sleeping(struct rw_node_bus *bus, int value) {
    atomic_store(&bus->self->sleeping, value ? 1u : 0u);
    if (!value) return 0;
    rw_node_bus_flush(bus); /* whatever was put into rings since the last one would wait for our next turn */
    atomic_thread_fence(memory_order_seq_cst);
    if (!rw_node_arrived(bus)) return 0;
    atomic_store(&bus->self->sleeping, 0);
    return 1;
}

/* ------------------------------------------------------------------ life */

static int has_opened(struct rw_shm_header *shm, uint32_t from, uint32_t to) {
    return (int)(atomic_load(&rw_shm_worker(shm, from)->opened[to / 64]) >> (to % 64) & 1);
}

/* Nothing that waits for our predecessor is ours. The bits are taken before the positions are looked at: what a sender
 * writes after that it tells us again. A ring that is opened later has nothing in it but what its sender means for us.
 * ret: 0 out of memory */
static int incoming_forget(struct rw_node_bus *bus) {
    for (uint32_t i = 0; i < RW_NODE_WORDS; i++) atomic_exchange(&bus->self->pending[i], 0);
    for (uint32_t w = 0; w < bus->shm->worker_count; w++) {
        if (w == bus->worker || !has_opened(bus->shm, w, bus->worker)) continue;
        struct rw_node_peer *peer = rw_node_peer(bus, w);
        if (peer == NULL) return 0;
        peer->in = rw_shm_ring(bus->shm, w, bus->worker);
        peer->read = atomic_load(&peer->in->written);
        atomic_store(&peer->in->read, peer->read);
    }
    return 1;
}

static void set_others(struct rw_node_bus *bus) {
    for (uint32_t w = 0; w < bus->shm->worker_count; w++) rw_node_bit_set(bus->others, w);
    rw_node_bit_clear(bus->others, bus->worker);
}

/* Rings that a predecessor has written to: whoever reads them looks once more, for it may have died between writing and
 * telling.
 * ret: 0 out of memory */
static int outgoing_take_over(struct rw_node_bus *bus) {
    for (uint32_t i = 0; i < bus->words; i++)
        bus->touched[i] = atomic_load(&bus->self->opened[i]) & atomic_load(&bus->shm->live[i]) & bus->others[i];
    RW_NODE_EACH(bus, bus->touched, worker) {
        if (rw_node_peer(bus, worker) == NULL) return 0;
        rw_node_ring_open(bus, worker);
    }
    return 1;
}

static void bus_free(struct rw_node_bus *bus) {
    for (uint32_t w = 0; w < bus->shm->worker_count; w++) {
        if (bus->peers[w] == NULL) continue;
        if (bus->peers[w]->head != NULL) rw_node_outbox_discard(bus, w);
        rw_node_assembly_discard(bus, bus->peers[w]);
        free(bus->peers[w]);
    }
    free(bus);
}

struct rw_node_bus *rw_node_bus_create(struct rw_shm_header *shm, uint32_t worker, const int32_t *inbox_fds,
                                       struct rw_stats *stats) {
    if (shm == NULL || worker >= shm->worker_count || inbox_fds == NULL || stats == NULL) {
        errno = EINVAL;
        return NULL;
    }
    struct rw_node_bus *bus = calloc(1, sizeof *bus + shm->worker_count * sizeof(struct rw_node_peer *));
    if (bus == NULL) return NULL;
    bus->shm = shm;
    bus->worker = worker;
    bus->words = (shm->worker_count + 63) / 64;
    bus->self = rw_shm_worker(shm, worker);
    bus->stats = stats;
    bus->interest = rw_shm_interest(shm, worker);
    memcpy(bus->inbox_fds, inbox_fds, shm->worker_count * sizeof *inbox_fds);
    set_others(bus);
    __atomic_store_n(&stats->node_outbox_bytes, 0, __ATOMIC_RELAXED);
    rw_shm_interest_clear(shm, worker);
    atomic_store(&bus->self->sleeping, 0);
    if (!incoming_forget(bus) || !outgoing_take_over(bus)) {
        bus_free(bus);
        errno = ENOMEM;
        return NULL;
    }
    bus->self->pid = (uint32_t)getpid();
    /* Odd, and another than before, also when nobody said that our predecessor is gone. */
    const uint32_t epoch = atomic_load(&bus->self->epoch);
    bus->epoch = epoch % 2 == 0 ? epoch + 1 : epoch + 2;
    atomic_store(&bus->self->epoch, bus->epoch);
    /* From here on others look at our interest, and write to us. */
    rw_shm_live_set(shm, worker, 1);
    rw_node_bus_flush(bus);
    return bus;
}

uint32_t rw_node_bus_epoch(const struct rw_node_bus *bus) { return bus->epoch; }

uint32_t rw_node_bus_worker(const struct rw_node_bus *bus) { return bus->worker; }

void rw_node_bus_destroy(struct rw_node_bus *bus) {
    if (bus == NULL) return;
    rw_node_bus_flush(bus);
    rw_shm_live_set(bus->shm, bus->worker, 0);
    rw_shm_interest_clear(bus->shm, bus->worker);
    atomic_store(&bus->self->sleeping, 0);
    atomic_store(&bus->self->epoch, bus->epoch + 1);
    __atomic_store_n(&bus->stats->node_outbox_bytes, 0, __ATOMIC_RELAXED);
    bus_free(bus);
}
