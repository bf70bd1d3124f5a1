/* The node bus, receiving side: records of other workers' rings, put together and handed over. See node_bus.h.
 *
 * Role: records → messages. Up: core, once a turn. Down: node_ring reads and checks records.
 *
 * Invariants:
 *  - `read` is stored only behind records we have done with, and our own position is kept in private memory, so nothing
 *    another process writes can move it. What is refused stays in its ring, and so does everything behind it.
 *  - A record that makes no sense empties its ring (read = written) and is counted.
 *  - A record after the first is taken only when it continues the very message that is being put together (sender's
 *    epoch, offset, total). */
#include <stdlib.h>
#include <string.h>

#include "node/node_peer.h"

#define RW_NODE_RECEIVE_QUANTUM 64u /* messages of one sender before the next has its turn */

struct receiver {
    int (*deliver)(void *context, const struct rw_node_message *message);
    void *context;
};

/* What became of a record. */
enum outcome {
    PART_TAKEN = 0, /* messages that it completed */
    MESSAGE_TAKEN = 1,
    REFUSED = 2, /* it stays where it is */
};

/* ------------------------------------------------------------------ putting together */

void rw_node_assembly_discard(struct rw_node_bus *bus, struct rw_node_peer *peer) {
    if (peer->assembly.bytes == NULL) return;
    free(peer->assembly.bytes);
    peer->assembly.bytes = NULL;
    bus->assemblies--;
}

static enum outcome hand_over(struct rw_node_bus *bus, const struct receiver *receiver,
                              const struct rw_node_record *first, uint32_t from, const uint8_t *topic,
                              const uint8_t *payload) {
    const struct rw_node_message message = {
        .topic = topic,
        .payload = payload,
        .topic_bytes = first->topic_bytes,
        .payload_bytes = first->payload_bytes,
        .topic_hash = first->topic_hash,
        .flags = first->message_flags,
        .from = from,
        .epoch = first->epoch,
        .is_mail = (first->flags & RW_NODE_MAIL) != 0,
    };
    if (!receiver->deliver(receiver->context, &message)) return REFUSED;
    rw_node_count(&bus->stats->node_messages_in, 1);
    if (!message.is_mail) rw_node_count(&bus->stats->publishes_remote, 1);
    return MESSAGE_TAKEN;
}

static enum outcome assembly_begin(struct rw_node_bus *bus, struct rw_node_peer *peer,
                                   const struct rw_node_record *record, const uint8_t *content) {
    struct rw_node_assembly *assembly = &peer->assembly;
    assembly->bytes = malloc((size_t)record->topic_bytes + record->payload_bytes);
    if (assembly->bytes == NULL) {
        if (record->flags & RW_NODE_MAIL) return REFUSED; /* mail is not lost: it waits for memory */
        rw_node_count(&bus->stats->node_drops, 1);        /* its other records find no beginning and are passed over */
        return PART_TAKEN;
    }
    bus->assemblies++;
    assembly->first = *record;
    assembly->have = record->part_bytes;
    memcpy(assembly->bytes, content, (size_t)record->topic_bytes + record->part_bytes);
    return PART_TAKEN;
}

static int continues(const struct rw_node_assembly *assembly, const struct rw_node_record *record) {
    return assembly->bytes != NULL && assembly->first.epoch == record->epoch &&
           assembly->first.topic_hash == record->topic_hash && assembly->first.payload_bytes == record->payload_bytes &&
           assembly->have == record->offset && ((assembly->first.flags ^ record->flags) & RW_NODE_MAIL) == 0;
}

/* Take one valid record. */
static enum outcome take_record(struct rw_node_bus *bus, uint32_t from, const struct rw_node_record *record,
                                const uint8_t *content, const struct receiver *receiver) {
    struct rw_node_peer *peer = bus->peers[from];
    struct rw_node_assembly *assembly = &peer->assembly;
    /* for our predecessor */
    if ((record->flags & RW_NODE_MAIL) != 0 && record->topic_hash != bus->epoch) return PART_TAKEN;
    if ((record->flags & RW_NODE_FIRST) != 0) {
        rw_node_assembly_discard(bus, peer); /* its sender died in the middle of it */
        if ((record->flags & RW_NODE_LAST) == 0) return assembly_begin(bus, peer, record, content);
        return hand_over(bus, receiver, record, from, content, content + record->topic_bytes);
    }
    if (!continues(assembly, record)) {
        /* The rest of a message whose beginning was for our predecessor, or was refused. */
        rw_node_assembly_discard(bus, peer);
        return PART_TAKEN;
    }
    memcpy(assembly->bytes + assembly->first.topic_bytes + assembly->have, content, record->part_bytes);
    if ((record->flags & RW_NODE_LAST) == 0) {
        assembly->have += record->part_bytes;
        return PART_TAKEN;
    }
    const enum outcome outcome = hand_over(bus, receiver, &assembly->first, from, assembly->bytes,
                                           assembly->bytes + assembly->first.topic_bytes);
    if (outcome != REFUSED) rw_node_assembly_discard(bus, peer);
    return outcome;
}

/* Free what dead senders left unfinished. The epoch is read first: everything its predecessor wrote is visible after it
 * has changed. */
static void drop_orphans(struct rw_node_bus *bus) {
    for (uint32_t w = 0; w < bus->shm->worker_count && bus->assemblies > 0; w++) {
        struct rw_node_peer *peer = bus->peers[w];
        if (peer == NULL || peer->assembly.bytes == NULL) continue;
        const uint32_t epoch = atomic_load_explicit(&rw_shm_worker(bus->shm, w)->epoch, memory_order_acquire);
        if (epoch != peer->assembly.first.epoch &&
            atomic_load_explicit(&peer->in->written, memory_order_acquire) == peer->read)
            rw_node_assembly_discard(bus, peer);
    }
}

/* ------------------------------------------------------------------ rings */

/* Store how far we have read, and note a sender that waits for room. Half a ring is enough for any record and its pad,
 * and a sender cannot be short of room while less is used: so it hears of it once, not at every message. */
static void give_room(struct rw_node_bus *bus, uint32_t from, uint64_t written, uint64_t *tell) {
    struct rw_node_peer *peer = bus->peers[from];
    atomic_store_explicit(&peer->in->read, peer->read, memory_order_release);
    if (written - peer->read > bus->shm->ring_bytes / 2) return;
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&peer->in->waiting, memory_order_relaxed) != 0) rw_node_bit_set(tell, from);
}

/* The ring of a sender that we have not heard of before. ret: 0 out of memory */
static int ring_open(struct rw_node_bus *bus, uint32_t from) {
    struct rw_node_peer *peer = rw_node_peer(bus, from);
    if (peer == NULL) return 0;
    peer->in = rw_shm_ring(bus->shm, from, bus->worker);
    /* Where the ring begins, or where our creation has put it (incoming_forget). */
    peer->read = atomic_load(&peer->in->read);
    return 1;
}

/* Take up to `quantum` messages of one sender. ret: how many; its bit in `arrived` is cleared when nothing is left;
 * *refused: 1 when what comes next was refused */
static uint32_t receive_from(struct rw_node_bus *bus, uint32_t from, uint32_t quantum, const struct receiver *receiver,
                             uint64_t *tell, int *refused) {
    *refused = 0;
    if ((bus->peers[from] == NULL || bus->peers[from]->in == NULL) && !ring_open(bus, from)) {
        *refused = 1;
        return 0;
    }
    struct rw_node_peer *peer = bus->peers[from];
    const uint32_t ring_bytes = bus->shm->ring_bytes;
    const uint64_t written = atomic_load_explicit(&peer->in->written, memory_order_acquire);
    uint64_t stored = peer->read;
    uint32_t taken = 0;
    while (peer->read != written && taken < quantum) {
        struct rw_node_record record;
        const uint32_t bytes = rw_node_ring_read(peer->in, ring_bytes, peer->read, written, &record);
        if (bytes == 0) {
            rw_node_assembly_discard(bus, peer);
            rw_node_count(&bus->stats->node_drops, 1);
            peer->read = (written + 7) & ~(uint64_t)7; /* from where its sender, or that one's successor, goes on */
            rw_node_bit_clear(bus->arrived, from);
            break;
        }
        if (record.flags != RW_NODE_PAD) {
            const uint8_t *content = &peer->in->bytes[((uint32_t)peer->read & (ring_bytes - 1)) + sizeof record];
            const enum outcome outcome = take_record(bus, from, &record, content, receiver);
            if (outcome == REFUSED) {
                *refused = 1;
                break;
            }
            taken += (uint32_t)outcome;
        }
        peer->read += bytes;
        if (peer->read - stored >= ring_bytes / 4) {
            give_room(bus, from, written, tell);
            stored = peer->read;
        }
    }
    if (peer->read != stored) give_room(bus, from, written, tell);
    if (peer->read == written) rw_node_bit_clear(bus->arrived, from);
    return taken;
}

int rw_node_arrived(struct rw_node_bus *bus) {
    for (uint32_t i = 0; i < bus->words; i++) {
        /* Looked at before it is taken: an exchange costs the line its owner even when nothing is there. */
        if (atomic_load_explicit(&bus->self->pending[i], memory_order_relaxed) != 0)
            bus->arrived[i] |= atomic_exchange(&bus->self->pending[i], 0) & bus->others[i];
    }
    return rw_node_any(bus, bus->arrived);
}

/* Whose turn it is among `senders`. ret: RW_WORKERS_MAX: there are none */
static uint32_t next_sender(struct rw_node_bus *bus, const uint64_t *senders) {
    uint32_t from = rw_node_bit_next(bus, senders, bus->next_sender);
    if (from == RW_WORKERS_MAX) from = rw_node_bit_next(bus, senders, 0);
    if (from < RW_WORKERS_MAX) bus->next_sender = from + 1 < bus->shm->worker_count ? from + 1 : 0;
    return from;
}

uint32_t rw_node_bus_receive(struct rw_node_bus *bus, uint32_t max,
                             int (*deliver)(void *context, const struct rw_node_message *message), void *context,
                             int *more) {
    const struct receiver receiver = {deliver, context};
    uint32_t taken = 0;
    *more = 0;
    if (rw_node_arrived(bus)) {
        uint64_t tell[RW_NODE_WORDS] = {0};
        uint64_t senders[RW_NODE_WORDS];
        memcpy(senders, bus->arrived, sizeof senders);
        uint32_t left_out = RW_WORKERS_MAX;
        while (taken < max) {
            const uint32_t from = next_sender(bus, senders);
            if (from == RW_WORKERS_MAX) break;
            const uint32_t rest = max - taken;
            int refused;
            const uint32_t of_it = receive_from(
                bus, from, rest < RW_NODE_RECEIVE_QUANTUM ? rest : RW_NODE_RECEIVE_QUANTUM, &receiver, tell, &refused);
            taken += of_it;
            if (refused || !rw_node_bit_test(bus->arrived, from)) rw_node_bit_clear(senders, from);
            if (refused && of_it == 0 && left_out == RW_WORKERS_MAX) left_out = from;
        }
        /* Else the senders before it would use up the room of the next call too. */
        if (left_out != RW_WORKERS_MAX) bus->next_sender = left_out;
        if (rw_node_any(bus, tell)) rw_node_tell(bus, tell);
        *more = rw_node_any(bus, bus->arrived);
    }
    if (bus->assemblies > 0) drop_orphans(bus);
    return taken;
}
