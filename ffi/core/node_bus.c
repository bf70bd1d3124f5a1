/* Publishing between the workers of a node: one ring of records per ordered pair, an outbox behind each ring that is full.
 *
 * Role: see node_bus.h. Neighbours: node_ring writes and reads records, process signals eventfds, core calls receive and flush once a turn.
 *
 * Invariants:
 *  - A sender stores `written` only behind whole records; a receiver stores `read` only behind records it has done with. Both keep their own
 *    position in private memory, so nothing another process writes can move it.
 *  - A record that makes no sense empties its ring (read = written) and is counted.
 *  - While an outbox is not empty new messages go behind it: order is kept.
 *  - A record after the first is taken only when it continues the very message that is being put together (sender's epoch, offset, total).
 *
 * Wake-up (the same pattern both ways): the sender sets its pending bit, fence, reads `sleeping`; the receiver sets `sleeping`, fence, reads
 * the pending bits. One of the two sees the other. `waiting` and `read` do the same for a sender that wants room. */
#include "node_bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node_ring.h"

#define RW_NODE_RECEIVE_QUANTUM 64u /* messages of one sender before the next has its turn */
#define RW_NODE_WORDS (RW_WORKERS_MAX / 64)

/* A message that waits, shared by the outboxes it waits in. */
struct outgoing {
    uint32_t refs;
    struct rw_node_message message; /* topic and payload point into bytes */
    uint8_t bytes[];
};

struct outbox_entry {
    struct outbox_entry *next;
    struct outgoing *outgoing;
    uint64_t cost; /* what it adds to outbox_bytes */
    struct rw_node_progress progress;
};

struct assembly {
    uint8_t *bytes; /* topic, then payload; NULL: no message is being put together */
    struct rw_node_record first;
    uint32_t have; /* payload bytes */
};

struct peer {
    struct rw_node_writer out;
    uint32_t epoch;   /* the receiver's, when the oldest message of the outbox was queued */
    uint32_t waiting; /* as stored in the ring */
    struct outbox_entry *head;
    struct outbox_entry **tail;
    uint64_t outbox_bytes;

    struct rw_shm_ring *in;
    uint64_t read; /* our position in `in` */
    struct assembly assembly;
};

struct rw_node_bus {
    struct rw_shm_header *shm;
    struct rw_shm_worker *self;
    struct rw_stats *stats;
    _Atomic uint16_t *interest;
    uint32_t worker;
    uint32_t epoch;
    uint32_t next_sender; /* whose turn it is in receive */
    uint32_t assemblies;  /* peers with an unfinished message */
    uint64_t outbox_bytes;
    uint64_t arrived[RW_NODE_WORDS]; /* senders whose rings are to be looked at */
    uint64_t touched[RW_NODE_WORDS]; /* receivers to be told at the next flush */
    int32_t inbox_fds[RW_WORKERS_MAX];
    struct peer peers[]; /* worker_count */
};

static void count(uint64_t *field, uint64_t by) {
    __atomic_store_n(field, __atomic_load_n(field, __ATOMIC_RELAXED) + by, __ATOMIC_RELAXED);
}

static void bit_set(uint64_t *words, uint32_t bit) {
    words[bit / 64] |= (uint64_t)1 << (bit % 64);
}

static void bit_clear(uint64_t *words, uint32_t bit) {
    words[bit / 64] &= ~((uint64_t)1 << (bit % 64));
}

static int bit_test(const uint64_t *words, uint32_t bit) {
    return (int)(words[bit / 64] >> (bit % 64) & 1);
}

/* ------------------------------------------------------------------ telling others */

/* Tell `worker` that there is something of ours to look at: records, or room it waited for. Two calls, so that one fence serves all. */
static void tell_pending(struct rw_node_bus *bus, uint32_t worker) {
    struct rw_shm_worker *other = rw_shm_worker(bus->shm, worker);
    atomic_fetch_or(&other->pending[bus->worker / 64], (uint64_t)1 << (bus->worker % 64));
}

static void wake_if_sleeping(struct rw_node_bus *bus, uint32_t worker) {
    const struct rw_shm_worker *other = rw_shm_worker(bus->shm, worker);
    if (atomic_load_explicit(&other->sleeping, memory_order_relaxed) == 0 || bus->inbox_fds[worker] < 0) return;
    rw_eventfd_signal(bus->inbox_fds[worker]);
}

static void tell_all(struct rw_node_bus *bus, const uint64_t *workers) {
    for (uint32_t w = 0; w < bus->shm->worker_count; w++)
        if (bit_test(workers, w)) tell_pending(bus, w);
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t w = 0; w < bus->shm->worker_count; w++)
        if (bit_test(workers, w)) wake_if_sleeping(bus, w);
}

/* ------------------------------------------------------------------ outboxes */

/* Everything written up to `position` counts from now on. */
static void commit(struct rw_node_bus *bus, uint32_t worker, uint64_t position) {
    struct peer *peer = &bus->peers[worker];
    if (peer->out.written == position) return;
    peer->out.written = position;
    atomic_store_explicit(&peer->out.ring->written, position, memory_order_release);
    bit_set(bus->touched, worker);
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
    if (message->payload_bytes > 0) memcpy(outgoing->bytes + message->topic_bytes, message->payload, message->payload_bytes);
    return outgoing;
}

static void set_waiting(struct peer *peer, uint32_t value) {
    if (peer->waiting == value) return;
    peer->waiting = value;
    atomic_store(&peer->out.ring->waiting, value);
}

static void outbox_pop(struct rw_node_bus *bus, struct peer *peer) {
    struct outbox_entry *entry = peer->head;
    peer->head = entry->next;
    if (peer->head == NULL) peer->tail = &peer->head;
    peer->outbox_bytes -= entry->cost;
    bus->outbox_bytes -= entry->cost;
    outgoing_release(entry->outgoing);
    free(entry);
}

static void outbox_discard(struct rw_node_bus *bus, struct peer *peer) {
    while (peer->head != NULL) outbox_pop(bus, peer);
    set_waiting(peer, 0);
}

/* Queue what is left of a message. *shared: the copy all outboxes of this publish use, made by the first. ret: 1, or 0: no room or no memory */
static int outbox_push(struct rw_node_bus *bus, struct peer *peer, const struct rw_node_message *message, struct rw_node_progress progress,
                       struct outgoing **shared) {
    const uint64_t cost = sizeof(struct outbox_entry) + sizeof(struct outgoing) + message->topic_bytes + (message->payload_bytes - progress.payload);
    if (peer->outbox_bytes + cost > RW_NODE_OUTBOX_BYTES_MAX) return 0;
    if (*shared == NULL && (*shared = outgoing_create(message)) == NULL) return 0;
    struct outbox_entry *entry = malloc(sizeof *entry);
    if (entry == NULL) return 0;
    (*shared)->refs++;
    *entry = (struct outbox_entry){.outgoing = *shared, .cost = cost, .progress = progress};
    *peer->tail = entry;
    peer->tail = &entry->next;
    peer->outbox_bytes += cost;
    bus->outbox_bytes += cost;
    return 1;
}

/* Move the outbox of `worker` into its ring as far as there is room. */
static void outbox_move(struct rw_node_bus *bus, uint32_t worker) {
    struct peer *peer = &bus->peers[worker];
    while (peer->head != NULL) {
        uint64_t position = peer->out.written;
        const int whole = rw_node_ring_write(&peer->out, &peer->head->outgoing->message, bus->epoch, &peer->head->progress, &position);
        commit(bus, worker, position);
        if (!whole) return;
        count(&bus->stats->node_messages_out, 1);
        outbox_pop(bus, peer);
    }
}

static void outbox_flush(struct rw_node_bus *bus, uint32_t worker) {
    struct peer *peer = &bus->peers[worker];
    if (atomic_load_explicit(&rw_shm_worker(bus->shm, worker)->epoch, memory_order_acquire) != peer->epoch) {
        outbox_discard(bus, peer);
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

/* ------------------------------------------------------------------ publish */

static int send_to(struct rw_node_bus *bus, uint32_t worker, const struct rw_node_message *message, struct outgoing **shared) {
    struct peer *peer = &bus->peers[worker];
    const uint32_t epoch = atomic_load_explicit(&rw_shm_worker(bus->shm, worker)->epoch, memory_order_acquire);
    if (peer->head != NULL && peer->epoch != epoch) outbox_discard(bus, peer);
    if (epoch % 2 == 0) return 0;
    struct rw_node_progress progress = {0, 0};
    uint64_t position = peer->out.written;
    if (peer->head == NULL) {
        peer->epoch = epoch;
        if (rw_node_ring_write(&peer->out, message, bus->epoch, &progress, &position)) {
            commit(bus, worker, position);
            count(&bus->stats->node_messages_out, 1);
            return 1;
        }
    }
    if (!outbox_push(bus, peer, message, progress, shared)) {
        count(&bus->stats->node_drops, 1); /* what was written of it is not committed: the next message overwrites it */
        return 0;
    }
    commit(bus, worker, position);
    return 1;
}

int rw_node_bus_wanted(const struct rw_node_bus *bus, uint64_t topic_hash) {
    const uint32_t cell = (uint32_t)(topic_hash % RW_INTEREST_CELLS);
    for (uint32_t w = 0; w < bus->shm->worker_count; w++)
        if (w != bus->worker && atomic_load_explicit(&rw_shm_interest(bus->shm, w)[cell], memory_order_relaxed) != 0) return 1;
    return 0;
}

uint32_t rw_node_bus_publish(struct rw_node_bus *bus, const struct rw_node_message *message) {
    if (message->topic_bytes > RW_TOPIC_BYTES_MAX) return 0; /* no topic of that length can have a subscriber */
    const uint32_t cell = (uint32_t)(message->topic_hash % RW_INTEREST_CELLS);
    struct outgoing *shared = NULL;
    uint32_t receivers = 0;
    for (uint32_t w = 0; w < bus->shm->worker_count; w++) {
        if (w == bus->worker || atomic_load_explicit(&rw_shm_interest(bus->shm, w)[cell], memory_order_relaxed) == 0) continue;
        receivers += (uint32_t)send_to(bus, w, message, &shared);
    }
    if (shared != NULL) outgoing_release(shared);
    return receivers;
}

uint64_t rw_node_bus_flush(struct rw_node_bus *bus) {
    if (bus->outbox_bytes > 0)
        for (uint32_t w = 0; w < bus->shm->worker_count; w++)
            if (bus->peers[w].head != NULL) outbox_flush(bus, w);
    __atomic_store_n(&bus->stats->node_outbox_bytes, bus->outbox_bytes, __ATOMIC_RELAXED);
    uint64_t any = 0;
    for (uint32_t i = 0; i < RW_NODE_WORDS; i++) any |= bus->touched[i];
    if (any != 0) {
        tell_all(bus, bus->touched);
        memset(bus->touched, 0, sizeof bus->touched);
    }
    return bus->outbox_bytes;
}

/* ------------------------------------------------------------------ receive */

struct receiver {
    void (*deliver)(void *context, const struct rw_node_message *message);
    void *context;
};

static void assembly_discard(struct rw_node_bus *bus, struct peer *peer) {
    if (peer->assembly.bytes == NULL) return;
    free(peer->assembly.bytes);
    peer->assembly.bytes = NULL;
    bus->assemblies--;
}

static void hand_over(struct rw_node_bus *bus, const struct receiver *receiver, const struct rw_node_record *first, uint32_t from,
                      const uint8_t *topic, const uint8_t *payload) {
    const struct rw_node_message message = {
        .topic = topic,
        .payload = payload,
        .topic_bytes = first->topic_bytes,
        .payload_bytes = first->payload_bytes,
        .topic_hash = first->topic_hash,
        .flags = first->message_flags,
        .from = from,
    };
    count(&bus->stats->node_messages_in, 1);
    count(&bus->stats->publishes_remote, 1);
    receiver->deliver(receiver->context, &message);
}

static void assembly_begin(struct rw_node_bus *bus, struct peer *peer, const struct rw_node_record *record, const uint8_t *content) {
    struct assembly *assembly = &peer->assembly;
    assembly->bytes = malloc((size_t)record->topic_bytes + record->payload_bytes);
    if (assembly->bytes == NULL) {
        count(&bus->stats->node_drops, 1); /* its other records find no beginning and are passed over */
        return;
    }
    bus->assemblies++;
    assembly->first = *record;
    assembly->have = record->part_bytes;
    memcpy(assembly->bytes, content, (size_t)record->topic_bytes + record->part_bytes);
}

static int continues(const struct assembly *assembly, const struct rw_node_record *record) {
    return assembly->bytes != NULL && assembly->first.epoch == record->epoch && assembly->first.topic_hash == record->topic_hash &&
           assembly->first.payload_bytes == record->payload_bytes && assembly->have == record->offset;
}

/* Take one valid record. ret: 1 when it completed a message */
static int take_record(struct rw_node_bus *bus, uint32_t from, const struct rw_node_record *record, const uint8_t *content,
                       const struct receiver *receiver) {
    struct peer *peer = &bus->peers[from];
    struct assembly *assembly = &peer->assembly;
    if ((record->flags & RW_NODE_FIRST) != 0) {
        assembly_discard(bus, peer); /* its sender died in the middle of it */
        if ((record->flags & RW_NODE_LAST) == 0) {
            assembly_begin(bus, peer, record, content);
            return 0;
        }
        hand_over(bus, receiver, record, from, content, content + record->topic_bytes);
        return 1;
    }
    if (!continues(assembly, record)) {
        /* The rest of a message whose beginning was for our predecessor, or was refused. */
        assembly_discard(bus, peer);
        return 0;
    }
    memcpy(assembly->bytes + assembly->first.topic_bytes + assembly->have, content, record->part_bytes);
    assembly->have += record->part_bytes;
    if ((record->flags & RW_NODE_LAST) == 0) return 0;
    hand_over(bus, receiver, &assembly->first, from, assembly->bytes, assembly->bytes + assembly->first.topic_bytes);
    assembly_discard(bus, peer);
    return 1;
}

/* Store how far we have read, and note a sender that waits for room. Half a ring is enough for any record and its pad, and a sender cannot be
 * short of room while less is used: so it hears of it once, not at every message. */
static void give_room(struct rw_node_bus *bus, uint32_t from, uint64_t written, uint64_t *tell) {
    struct peer *peer = &bus->peers[from];
    atomic_store_explicit(&peer->in->read, peer->read, memory_order_release);
    if (written - peer->read > bus->shm->ring_bytes / 2) return;
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&peer->in->waiting, memory_order_relaxed) != 0) bit_set(tell, from);
}

/* Take up to `quantum` messages of one sender. ret: how many; its bit in `arrived` is cleared when nothing is left */
static uint32_t receive_from(struct rw_node_bus *bus, uint32_t from, uint32_t quantum, const struct receiver *receiver, uint64_t *tell) {
    struct peer *peer = &bus->peers[from];
    const uint32_t ring_bytes = bus->shm->ring_bytes;
    const uint64_t written = atomic_load_explicit(&peer->in->written, memory_order_acquire);
    uint64_t stored = peer->read;
    uint32_t taken = 0;
    while (peer->read != written && taken < quantum) {
        struct rw_node_record record;
        const uint32_t bytes = rw_node_ring_read(peer->in, ring_bytes, peer->read, written, &record);
        if (bytes == 0) {
            assembly_discard(bus, peer);
            count(&bus->stats->node_drops, 1);
            peer->read = written;
            break;
        }
        if (record.flags != RW_NODE_PAD) {
            const uint8_t *content = &peer->in->bytes[((uint32_t)peer->read & (ring_bytes - 1)) + sizeof record];
            taken += (uint32_t)take_record(bus, from, &record, content, receiver);
        }
        peer->read += bytes;
        if (peer->read - stored >= ring_bytes / 4) {
            give_room(bus, from, written, tell);
            stored = peer->read;
        }
    }
    if (peer->read != stored) give_room(bus, from, written, tell);
    if (peer->read == written) bit_clear(bus->arrived, from);
    return taken;
}

static int arrived_any(struct rw_node_bus *bus) {
    uint64_t any = 0;
    for (uint32_t i = 0; i < (bus->shm->worker_count + 63) / 64; i++) {
        /* Looked at before it is taken: an exchange costs the line its owner even when nothing is there. */
        if (atomic_load_explicit(&bus->self->pending[i], memory_order_relaxed) != 0) bus->arrived[i] |= atomic_exchange(&bus->self->pending[i], 0);
        any |= bus->arrived[i];
    }
    return any != 0;
}

/* Free what dead senders left unfinished. The epoch is read first: everything its predecessor wrote is visible after it has changed. */
static void drop_orphans(struct rw_node_bus *bus) {
    for (uint32_t w = 0; w < bus->shm->worker_count && bus->assemblies > 0; w++) {
        struct peer *peer = &bus->peers[w];
        if (peer->assembly.bytes == NULL) continue;
        const uint32_t epoch = atomic_load_explicit(&rw_shm_worker(bus->shm, w)->epoch, memory_order_acquire);
        if (epoch != peer->assembly.first.epoch && atomic_load_explicit(&peer->in->written, memory_order_acquire) == peer->read)
            assembly_discard(bus, peer);
    }
}

uint32_t rw_node_bus_receive(struct rw_node_bus *bus, uint32_t max, void (*deliver)(void *context, const struct rw_node_message *message), void *context, int *more) {
    const struct receiver receiver = {deliver, context};
    const uint32_t workers = bus->shm->worker_count;
    uint64_t tell[RW_NODE_WORDS] = {0};
    uint32_t taken = 0;
    int left = arrived_any(bus);
    while (left && taken < max) {
        left = 0;
        for (uint32_t i = 0; i < workers; i++) {
            const uint32_t from = bus->next_sender;
            if (!bit_test(bus->arrived, from)) {
                bus->next_sender = from + 1 < workers ? from + 1 : 0;
                continue;
            }
            if (taken == max) break;
            bus->next_sender = from + 1 < workers ? from + 1 : 0;
            const uint32_t rest = max - taken;
            taken += receive_from(bus, from, rest < RW_NODE_RECEIVE_QUANTUM ? rest : RW_NODE_RECEIVE_QUANTUM, &receiver, tell);
            left |= bit_test(bus->arrived, from);
        }
    }
    uint64_t any = 0;
    for (uint32_t i = 0; i < RW_NODE_WORDS; i++) any |= tell[i];
    if (any != 0) tell_all(bus, tell);
    if (bus->assemblies > 0) drop_orphans(bus);
    *more = 0;
    for (uint32_t i = 0; i < RW_NODE_WORDS; i++) *more |= bus->arrived[i] != 0;
    return taken;
}

/* ------------------------------------------------------------------ interest, sleep, life */

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
    if (!arrived_any(bus)) return 0;
    atomic_store(&bus->self->sleeping, 0);
    return 1;
}

/* Nothing that waits for our predecessor is ours. The bits are taken before the positions are looked at: what a sender writes after that it
 * tells us again. */
static void incoming_forget(struct rw_node_bus *bus) {
    for (uint32_t i = 0; i < RW_NODE_WORDS; i++) atomic_exchange(&bus->self->pending[i], 0);
    for (uint32_t w = 0; w < bus->shm->worker_count; w++) {
        if (w == bus->worker) continue;
        struct peer *peer = &bus->peers[w];
        peer->in = rw_shm_ring(bus->shm, w, bus->worker);
        peer->read = atomic_load(&peer->in->written);
        atomic_store(&peer->in->read, peer->read);
    }
}

static void outgoing_take_over(struct rw_node_bus *bus) {
    for (uint32_t w = 0; w < bus->shm->worker_count; w++) {
        struct peer *peer = &bus->peers[w];
        peer->tail = &peer->head;
        if (w == bus->worker) continue;
        struct rw_shm_ring *ring = rw_shm_ring(bus->shm, bus->worker, w);
        peer->out = (struct rw_node_writer){
            .ring = ring,
            .ring_bytes = bus->shm->ring_bytes,
            .written = (atomic_load(&ring->written) + 7) & ~(uint64_t)7, /* aligned already, unless our predecessor lost its mind */
            .read_seen = atomic_load(&ring->read),
        };
        atomic_store(&ring->written, peer->out.written);
        atomic_store(&ring->waiting, 0);
        bit_set(bus->touched, w);
    }
}

struct rw_node_bus *rw_node_bus_create(struct rw_shm_header *shm, uint32_t worker, const int32_t *inbox_fds, struct rw_stats *stats) {
    if (shm == NULL || worker >= shm->worker_count || inbox_fds == NULL || stats == NULL) {
        errno = EINVAL;
        return NULL;
    }
    struct rw_node_bus *bus = calloc(1, sizeof *bus + shm->worker_count * sizeof(struct peer));
    if (bus == NULL) return NULL;
    bus->shm = shm;
    bus->worker = worker;
    bus->self = rw_shm_worker(shm, worker);
    bus->stats = stats;
    bus->interest = rw_shm_interest(shm, worker);
    memcpy(bus->inbox_fds, inbox_fds, shm->worker_count * sizeof *inbox_fds);
    __atomic_store_n(&stats->node_outbox_bytes, 0, __ATOMIC_RELAXED);
    rw_shm_interest_clear(shm, worker);
    atomic_store(&bus->self->sleeping, 0);
    incoming_forget(bus);
    outgoing_take_over(bus);
    bus->self->pid = (uint32_t)getpid();
    /* Odd, and another than before, also when nobody said that our predecessor is gone. */
    const uint32_t epoch = atomic_load(&bus->self->epoch);
    bus->epoch = epoch % 2 == 0 ? epoch + 1 : epoch + 2;
    atomic_store(&bus->self->epoch, bus->epoch);
    /* The others look at their rings once more: our predecessor may have died between writing and telling, and outboxes meant for it can go. */
    rw_node_bus_flush(bus);
    return bus;
}

void rw_node_bus_destroy(struct rw_node_bus *bus) {
    if (bus == NULL) return;
    rw_node_bus_flush(bus);
    rw_shm_interest_clear(bus->shm, bus->worker);
    atomic_store(&bus->self->sleeping, 0);
    atomic_store(&bus->self->epoch, bus->epoch + 1);
    for (uint32_t w = 0; w < bus->shm->worker_count; w++) {
        if (w == bus->worker) continue;
        outbox_discard(bus, &bus->peers[w]);
        assembly_discard(bus, &bus->peers[w]);
    }
    __atomic_store_n(&bus->stats->node_outbox_bytes, 0, __ATOMIC_RELAXED);
    free(bus);
}
