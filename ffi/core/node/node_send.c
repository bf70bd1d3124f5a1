/* The node bus, sending side: publishes and mail into rings, an outbox behind each ring that is full. See node_bus.h.
 *
 * Role: messages → records. Up: core, once a turn and at each publish. Down: node_ring writes records.
 *
 * Invariants:
 *  - `written` is stored only behind whole records, and our own position is kept in private memory.
 *  - While an outbox is not empty new messages go behind it: order is kept, between publishes and mail too.
 *  - What waits for a worker that has died goes with it: an outbox belongs to one epoch of its receiver. */
#include <stdlib.h>
#include <string.h>

#include "node/node_peer.h"

/* A message that waits, shared by the outboxes it waits in. */
struct outgoing {
    uint32_t refs;
    struct rw_node_message message; /* topic and payload point into bytes */
    uint8_t bytes[];
};

struct rw_node_outbox_entry {
    struct rw_node_outbox_entry *next;
    struct outgoing *outgoing;
    uint64_t cost; /* what it adds to outbox_bytes */
    struct rw_node_progress progress;
};

/* What an outbox can hold beside what fits a ring that is read: a ring takes three records of a quarter of its size
 * whatever its position. */
static uint64_t mail_bytes_max(const struct rw_node_bus *bus) {
    return (uint64_t)RW_NODE_OUTBOX_BYTES_MAX + bus->shm->ring_bytes / 2;
}

/* ------------------------------------------------------------------ outboxes */

/* Everything written up to `position` counts from now on. Unless its receiver has gone meanwhile: then the pages under
 * it may have been given back (rw_shm_worker_gone), and a successor must not find the holes. ret: 1, or 0: nothing
 * counts */
static int commit(struct rw_node_bus *bus, uint32_t worker, uint64_t position) {
    struct rw_node_peer *peer = bus->peers[worker];
    if (peer->out.written == position) return 1;
    if (atomic_load_explicit(&rw_shm_worker(bus->shm, worker)->epoch, memory_order_acquire) != peer->epoch) return 0;
    peer->out.written = position;
    atomic_store_explicit(&peer->out.ring->written, position, memory_order_release);
    rw_node_bit_set(bus->touched, worker);
    return 1;
}

static void outgoing_release(struct outgoing *outgoing) {
    if (--outgoing->refs == 0) free(outgoing);
}

static struct outgoing *outgoing_create(const struct rw_node_message *message) {
    struct outgoing *outgoing = malloc(sizeof *outgoing + message->topic_bytes + message->payload_bytes);
    if (outgoing == NULL) return NULL;
    outgoing->refs = 1;
    outgoing->message = *message;
    outgoing->message.topic = outgoing->bytes;
    outgoing->message.payload = outgoing->bytes + message->topic_bytes;
    if (message->topic_bytes > 0) memcpy(outgoing->bytes, message->topic, message->topic_bytes);
    if (message->payload_bytes > 0)
        memcpy(outgoing->bytes + message->topic_bytes, message->payload, message->payload_bytes);
    return outgoing;
}

static void set_waiting(struct rw_node_peer *peer, uint32_t value) {
    if (peer->waiting == value) return;
    peer->waiting = value;
    atomic_store(&peer->out.ring->waiting, value);
}

static void outbox_pop(struct rw_node_bus *bus, uint32_t worker) {
    struct rw_node_peer *peer = bus->peers[worker];
    struct rw_node_outbox_entry *entry = peer->head;
    peer->head = entry->next;
    if (peer->head == NULL) {
        peer->tail = &peer->head;
        rw_node_bit_clear(bus->queued, worker);
    }
    peer->outbox_bytes -= entry->cost;
    bus->outbox_bytes -= entry->cost;
    outgoing_release(entry->outgoing);
    free(entry);
}

void rw_node_outbox_discard(struct rw_node_bus *bus, uint32_t worker) {
    while (bus->peers[worker]->head != NULL) outbox_pop(bus, worker);
    set_waiting(bus->peers[worker], 0);
}

/* Queue what is left of a message. *shared: the copy all outboxes of this publish use, made by the first. ret: 1, or 0:
 * no room or no memory */
static int outbox_push(struct rw_node_bus *bus, uint32_t worker, const struct rw_node_message *message,
                       struct rw_node_progress progress, struct outgoing **shared) {
    struct rw_node_peer *peer = bus->peers[worker];
    const uint64_t cost = sizeof(struct rw_node_outbox_entry) + sizeof(struct outgoing) + message->topic_bytes +
                          (message->payload_bytes - progress.payload);
    if (peer->outbox_bytes + cost > RW_NODE_OUTBOX_BYTES_MAX) return 0;
    if (*shared == NULL && (*shared = outgoing_create(message)) == NULL) return 0;
    struct rw_node_outbox_entry *entry = malloc(sizeof *entry);
    if (entry == NULL) return 0;
    (*shared)->refs++;
    *entry = (struct rw_node_outbox_entry){.outgoing = *shared, .cost = cost, .progress = progress};
    *peer->tail = entry;
    peer->tail = &entry->next;
    peer->outbox_bytes += cost;
    bus->outbox_bytes += cost;
    rw_node_bit_set(bus->queued, worker);
    return 1;
}

/* Move the outbox of `worker` into its ring as far as there is room. */
static void outbox_move(struct rw_node_bus *bus, uint32_t worker) {
    struct rw_node_peer *peer = bus->peers[worker];
    while (peer->head != NULL) {
        uint64_t position = peer->out.written;
        const int whole = rw_node_ring_write(&peer->out, &peer->head->outgoing->message, bus->epoch,
                                             &peer->head->progress, &position);
        if (!commit(bus, worker, position) || !whole) return;
        rw_node_count(&bus->stats->node_messages_out, 1);
        outbox_pop(bus, worker);
    }
}

static void outbox_flush(struct rw_node_bus *bus, uint32_t worker) {
    struct rw_node_peer *peer = bus->peers[worker];
    if (atomic_load_explicit(&rw_shm_worker(bus->shm, worker)->epoch, memory_order_acquire) != peer->epoch) {
        rw_node_outbox_discard(bus, worker);
        return;
    }
    outbox_move(bus, worker);
    if (peer->head != NULL && !peer->waiting) {
        set_waiting(peer, 1);
        /* Pairs with the fence in give_room(): either the receiver sees `waiting`, or we see what it has read. */
        atomic_thread_fence(memory_order_seq_cst);
        outbox_move(bus, worker);
    }
    if (peer->head == NULL) set_waiting(peer, 0);
}

uint64_t rw_node_bus_flush(struct rw_node_bus *bus) {
    if (bus->outbox_bytes > 0) RW_NODE_EACH(bus, bus->queued, worker) outbox_flush(bus, worker);
    __atomic_store_n(&bus->stats->node_outbox_bytes, bus->outbox_bytes, __ATOMIC_RELAXED);
    if (rw_node_any(bus, bus->touched)) {
        rw_node_tell(bus, bus->touched);
        memset(bus->touched, 0, sizeof bus->touched);
    }
    return bus->outbox_bytes;
}

/* ------------------------------------------------------------------ publishes and mail */

void rw_node_ring_open(struct rw_node_bus *bus, uint32_t worker) {
    struct rw_node_peer *peer = bus->peers[worker];
    /* Noted before it is touched: whoever gives pages back, or begins to live there, must know of it. */
    atomic_fetch_or(&bus->self->opened[worker / 64], (uint64_t)1 << (worker % 64));
    struct rw_shm_ring *ring = rw_shm_ring(bus->shm, bus->worker, worker);
    peer->out = (struct rw_node_writer){
        .ring = ring,
        .ring_bytes = bus->shm->ring_bytes,
        /* aligned already, unless our predecessor lost its mind */
        .written = (atomic_load(&ring->written) + 7) & ~(uint64_t)7,
        .read_seen = atomic_load(&ring->read),
    };
    atomic_store(&ring->written, peer->out.written);
    atomic_store(&ring->waiting, 0);
}

/* ret: RW_OK | RW_ERR_STALE: nobody lives there | RW_ERR_FULL: ring and outbox are full, or memory is short: nothing is
 * sent */
static int32_t send_to(struct rw_node_bus *bus, uint32_t worker, const struct rw_node_message *message,
                       struct outgoing **shared) {
    const uint32_t epoch = atomic_load_explicit(&rw_shm_worker(bus->shm, worker)->epoch, memory_order_acquire);
    struct rw_node_peer *peer = bus->peers[worker];
    if (peer != NULL && peer->head != NULL && peer->epoch != epoch) rw_node_outbox_discard(bus, worker);
    if (epoch % 2 == 0) return RW_ERR_STALE;
    if (peer == NULL && (peer = rw_node_peer(bus, worker)) == NULL) return RW_ERR_FULL;
    if (peer->out.ring == NULL) rw_node_ring_open(bus, worker);
    struct rw_node_progress progress = {0, 0};
    uint64_t position = peer->out.written;
    if (peer->head == NULL) {
        peer->epoch = epoch;
        if (rw_node_ring_write(&peer->out, message, bus->epoch, &progress, &position)) {
            if (!commit(bus, worker, position)) return RW_ERR_STALE;
            rw_node_count(&bus->stats->node_messages_out, 1);
            return RW_OK;
        }
    }
    /* When it cannot wait, what was written of it is not committed: the next message overwrites it. */
    if (!outbox_push(bus, worker, message, progress, shared)) return RW_ERR_FULL;
    if (commit(bus, worker, position)) return RW_OK;
    rw_node_outbox_discard(bus, worker);
    return RW_ERR_STALE;
}

int rw_node_bus_wanted(const struct rw_node_bus *bus, uint64_t topic_hash) {
    const _Atomic uint16_t *cells = rw_shm_interest(bus->shm, 0) + topic_hash % RW_INTEREST_CELLS;
    for (uint32_t i = 0; i < bus->words; i++) {
        uint64_t live = atomic_load_explicit(&bus->shm->live[i], memory_order_acquire) & bus->others[i];
        for (; live != 0; live &= live - 1) {
            const size_t worker = i * 64 + (uint32_t)__builtin_ctzll(live);
            if (atomic_load_explicit(&cells[worker * RW_INTEREST_CELLS], memory_order_relaxed) != 0) return 1;
        }
    }
    return 0;
}

uint32_t rw_node_bus_publish(struct rw_node_bus *bus, const struct rw_node_message *message) {
    if (message->topic_bytes > RW_TOPIC_BYTES_MAX) return 0; /* no topic of that length can have a subscriber */
    const _Atomic uint16_t *cells = rw_shm_interest(bus->shm, 0) + message->topic_hash % RW_INTEREST_CELLS;
    struct outgoing *shared = NULL;
    uint32_t receivers = 0;
    for (uint32_t i = 0; i < bus->words; i++) {
        uint64_t live = atomic_load_explicit(&bus->shm->live[i], memory_order_acquire) & bus->others[i];
        for (; live != 0; live &= live - 1) {
            const uint32_t worker = i * 64 + (uint32_t)__builtin_ctzll(live);
            if (atomic_load_explicit(&cells[(size_t)worker * RW_INTEREST_CELLS], memory_order_relaxed) == 0) continue;
            const int32_t sent = send_to(bus, worker, message, &shared);
            receivers += sent == RW_OK;
            if (sent == RW_ERR_FULL) rw_node_count(&bus->stats->node_drops, 1);
        }
    }
    if (shared != NULL) outgoing_release(shared);
    return receivers;
}

int32_t rw_node_bus_mail(struct rw_node_bus *bus, uint32_t to, const uint8_t *data, uint64_t bytes) {
    if (to == bus->worker || bytes > mail_bytes_max(bus)) return RW_ERR_INVALID;
    if (to >= bus->shm->worker_count) return RW_ERR_STALE;
    const uint32_t receiver = atomic_load_explicit(&rw_shm_worker(bus->shm, to)->epoch, memory_order_acquire);
    /* Somebody may begin to live there before it is written, and would throw it away. */
    if (receiver % 2 == 0) {
        if (bus->peers[to] != NULL && bus->peers[to]->head != NULL) rw_node_outbox_discard(bus, to);
        return RW_ERR_STALE;
    }
    const struct rw_node_message message = {
        .payload = data,
        .payload_bytes = (uint32_t)bytes,
        .topic_hash = receiver, /* for whom it is: not for a successor */
        .is_mail = 1,
    };
    struct outgoing *shared = NULL;
    const int32_t sent = send_to(bus, to, &message, &shared);
    if (shared != NULL) outgoing_release(shared);
    return sent;
}
