/* Records and lists of presence.
 *
 * Role: see presence_records.h. Invariants: a topic is in the index while it has users, also gone ones; a user is on its
 * topic's list and in the index; a seat is on its worker's list; topic->connections is the sum of rw_present_weight(),
 * topic->users counts the users that are not gone, user->open the seats of a user. */
#include "state/presence_records.h"

#include <string.h>

#include "topics/topics.h"

/* ------------------------------------------------------------------ steps */
int32_t rw_present_begin(struct rw_present_step *step, struct rw_presence *presence, uint32_t shard,
                         const struct rw_presence_clock *now) {
    *step = (struct rw_present_step){.presence = presence, .now = now};
    int32_t result = rw_tx_begin(presence->state, shard, &step->tx);
    if (result < 0) return result;
    step->roots = (struct rw_present_roots *)(void *)rw_shard_words(&step->tx);
    return RW_OK;
}

int32_t rw_present_end(struct rw_present_step *step, int32_t result) {
    if (rw_tx_is_damaged(&step->tx)) {
        rw_tx_abort(&step->tx);
        return RW_ERR_FULL;
    }
    rw_tx_end(&step->tx);
    return result;
}

/* ------------------------------------------------------------------ records */
static void *record_at(struct rw_tx *tx, rw_block block, uint16_t kind) {
    struct rw_record *record = rw_block_at(tx, block);
    if (record != NULL && record->kind == kind) return record;
    rw_tx_damaged(tx);
    return NULL;
}

struct rw_present_topic *rw_present_topic_at(struct rw_tx *tx, rw_block block) {
    return record_at(tx, block, RW_RECORD_TOPIC);
}

struct rw_present_user *rw_present_user_at(struct rw_tx *tx, rw_block block) {
    return record_at(tx, block, RW_RECORD_USER);
}

struct rw_present_worker *rw_present_worker_at(struct rw_tx *tx, rw_block block) {
    return record_at(tx, block, RW_RECORD_WORKER);
}

struct rw_present_seat *rw_present_seat_at(struct rw_tx *tx, rw_block block, rw_block *user) {
    struct rw_record *record = rw_block_at(tx, block);
    if (record != NULL && record->kind == RW_RECORD_USER) {
        *user = block;
        return &((struct rw_present_user *)(void *)record)->seat;
    }
    if (record != NULL && record->kind == RW_RECORD_MEMBER) {
        *user = record->owner;
        return &((struct rw_present_extra *)(void *)record)->seat;
    }
    rw_tx_damaged(tx);
    return NULL;
}

static struct rw_links *topic_links(struct rw_tx *tx, rw_block block) {
    struct rw_present_topic *topic = rw_present_topic_at(tx, block);
    return topic == NULL ? NULL : &topic->links;
}

static struct rw_links *user_links(struct rw_tx *tx, rw_block block) {
    struct rw_present_user *user = rw_present_user_at(tx, block);
    return user == NULL ? NULL : &user->links;
}

static struct rw_links *dirty_links(struct rw_tx *tx, rw_block block) {
    struct rw_present_user *user = rw_present_user_at(tx, block);
    return user == NULL ? NULL : &user->dirty;
}

static struct rw_links *worker_links(struct rw_tx *tx, rw_block block) {
    struct rw_present_worker *worker = rw_present_worker_at(tx, block);
    return worker == NULL ? NULL : &worker->links;
}

static struct rw_links *seat_links(struct rw_tx *tx, rw_block block) {
    rw_block user;
    struct rw_present_seat *seat = rw_present_seat_at(tx, block, &user);
    return seat == NULL ? NULL : &seat->links;
}

/* ------------------------------------------------------------------ lists */
void rw_present_append(struct rw_tx *tx, struct rw_present_list list, rw_block block) {
    struct rw_links *links = list.links(tx, block);
    struct rw_links *before = *list.last == 0 ? NULL : list.links(tx, *list.last);
    if (links == NULL || (before == NULL && *list.last != 0)) return;
    RW_TX_SET(tx, links->prev, *list.last);
    RW_TX_SET(tx, links->next, 0);
    if (before != NULL) RW_TX_SET(tx, before->next, block);
    else RW_TX_SET(tx, *list.first, block);
    RW_TX_SET(tx, *list.last, block);
}

void rw_present_push(struct rw_tx *tx, struct rw_present_list list, rw_block block) {
    struct rw_links *links = list.links(tx, block);
    struct rw_links *after = *list.first == 0 ? NULL : list.links(tx, *list.first);
    if (links == NULL || (after == NULL && *list.first != 0)) return;
    RW_TX_SET(tx, links->prev, 0);
    RW_TX_SET(tx, links->next, *list.first);
    if (after != NULL) RW_TX_SET(tx, after->prev, block);
    RW_TX_SET(tx, *list.first, block);
}

void rw_present_unlink(struct rw_tx *tx, struct rw_present_list list, rw_block block) {
    struct rw_links *links = list.links(tx, block);
    if (links == NULL) return;
    struct rw_links *before = links->prev == 0 ? NULL : list.links(tx, links->prev);
    struct rw_links *after = links->next == 0 ? NULL : list.links(tx, links->next);
    if (rw_tx_is_damaged(tx)) return;
    if (before != NULL) RW_TX_SET(tx, before->next, links->next);
    else RW_TX_SET(tx, *list.first, links->next);
    if (after != NULL) RW_TX_SET(tx, after->prev, links->prev);
    else if (list.last != NULL) RW_TX_SET(tx, *list.last, links->prev);
}

void rw_present_mark(struct rw_present_step *step, rw_block block, uint8_t flag) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    if (user == NULL) return;
    const struct rw_present_list dirty = {dirty_links, &step->roots->dirty_first, &step->roots->dirty_last};
    const struct rw_present_list taken = {dirty_links, &step->roots->taken_first, &step->roots->taken_last};
    if (user->flags & RW_PRESENT_DIRTY) rw_present_unlink(tx, dirty, block);
    if (user->flags & RW_PRESENT_TAKEN) rw_present_unlink(tx, taken, block);
    if (flag & RW_PRESENT_DIRTY) rw_present_append(tx, dirty, block);
    if (flag & RW_PRESENT_TAKEN) rw_present_append(tx, taken, block);
    RW_TX_SET(tx, user->flags, (user->flags & ~(RW_PRESENT_DIRTY | RW_PRESENT_TAKEN)) | flag);
}

void rw_present_touch(struct rw_present_step *step, rw_block block) {
    struct rw_tx *tx = &step->tx;
    if (!step->presence->is_shared) return;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    if (user == NULL) return;
    struct rw_present_roots *roots = step->roots;
    uint64_t version = ((uint64_t)roots->version_high << 32 | roots->version_low) + 1;
    RW_TX_SET(tx, roots->version_low, version);
    RW_TX_SET(tx, roots->version_high, version >> 32);
    RW_TX_SET(tx, user->version_low, version);
    RW_TX_SET(tx, user->version_high, version >> 32);
    if (!(user->flags & RW_PRESENT_DIRTY)) rw_present_mark(step, block, RW_PRESENT_DIRTY);
    step->presence->dirty_shards |= 1ull << tx->index;
}

/* ------------------------------------------------------------------ by name */
static struct rw_record_name topic_name(const struct rw_state_name *name) {
    return (struct rw_record_name){.hash = name->hash,
                                   .bytes = name->bytes,
                                   .count = (uint16_t)name->count,
                                   .kind = RW_RECORD_TOPIC,
                                   .name_at = RW_TOPIC_NAME_AT};
}

static struct rw_record_name user_name(rw_block topic, struct rw_presence_bytes id) {
    return (struct rw_record_name){.hash = rw_topics_hash(id.bytes, id.count) ^ topic * 0x9e3779b97f4a7c15ull,
                                   .bytes = id.bytes,
                                   .count = (uint16_t)id.count,
                                   .kind = RW_RECORD_USER,
                                   .owner = topic,
                                   .name_at = RW_USER_NAME_AT};
}

/* words[0..2): filled here, borrowed by the name */
static struct rw_record_name worker_name(uint32_t words[2], uint32_t place, uint32_t epoch) {
    words[0] = place;
    words[1] = epoch;
    return (struct rw_record_name){.hash = ((uint64_t)epoch << 32 | place) * 0x9e3779b97f4a7c15ull,
                                   .bytes = (const uint8_t *)words,
                                   .count = 2 * sizeof(uint32_t),
                                   .kind = RW_RECORD_WORKER,
                                   .name_at = RW_WORKER_NAME_AT};
}

rw_block rw_present_find_topic(struct rw_present_step *step, const struct rw_state_name *name) {
    const struct rw_record_name sought = topic_name(name);
    return rw_index_find(&step->tx, &sought);
}

rw_block rw_present_find_user(struct rw_present_step *step, rw_block topic, struct rw_presence_bytes id) {
    if (topic == 0) return 0;
    const struct rw_record_name sought = user_name(topic, id);
    return rw_index_find(&step->tx, &sought);
}

rw_block rw_present_find_worker(struct rw_present_step *step, uint32_t place, uint32_t epoch) {
    uint32_t words[2];
    const struct rw_record_name sought = worker_name(words, place, epoch);
    return rw_index_find(&step->tx, &sought);
}

/* ------------------------------------------------------------------ they come */
uint32_t rw_present_topic_blocks(const struct rw_state_name *name) {
    return rw_blocks_for(RW_BLOCK_BYTES - RW_TOPIC_NAME_AT, name->count);
}

uint32_t rw_present_user_blocks(struct rw_presence_bytes id, struct rw_presence_bytes info) {
    return rw_blocks_for(RW_BLOCK_BYTES - RW_USER_NAME_AT, (uint64_t)id.count + info.count);
}

/* A record of `bytes`, zeroed behind its head, in a chain of `blocks`. */
static rw_block record_make(struct rw_present_step *step, const struct rw_record_name *name, uint32_t blocks,
                            size_t bytes) {
    rw_block block = rw_blocks_take(&step->tx, blocks, NULL);
    struct rw_record *record = block == 0 ? NULL : rw_block_at(&step->tx, block);
    if (record == NULL) {
        rw_tx_damaged(&step->tx);
        return 0;
    }
    *record = (struct rw_record){
        .next = record->next, .hash = name->hash, .kind = name->kind, .name_bytes = name->count, .owner = name->owner};
    memset(record + 1, 0, bytes - sizeof *record);
    return block;
}

rw_block rw_present_add_topic(struct rw_present_step *step, const struct rw_state_name *name) {
    struct rw_tx *tx = &step->tx;
    const struct rw_record_name called = topic_name(name);
    rw_block block = record_make(step, &called, rw_present_topic_blocks(name), sizeof(struct rw_present_topic));
    if (block == 0 || !rw_bytes_write(tx, block, RW_TOPIC_NAME_AT, name->bytes, name->count)) return 0;
    rw_index_add(tx, block);
    rw_present_push(tx, (struct rw_present_list){topic_links, &step->roots->topics, NULL}, block);
    return block;
}

rw_block rw_present_add_user(struct rw_present_step *step, rw_block topic_block, struct rw_presence_bytes id,
                             struct rw_presence_bytes info) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_topic *topic = rw_present_topic_at(tx, topic_block);
    const struct rw_record_name called = user_name(topic_block, id);
    rw_block block = record_make(step, &called, rw_present_user_blocks(id, info), sizeof(struct rw_present_user));
    if (topic == NULL || block == 0) return 0;
    uint8_t both[RW_PRESENCE_USER_BYTES_MAX + RW_PRESENCE_INFO_BYTES_MAX];
    memcpy(both, id.bytes, id.count);
    if (info.count != 0) memcpy(both + id.count, info.bytes, info.count);
    if (!rw_bytes_write(tx, block, RW_USER_NAME_AT, both, (uint64_t)id.count + info.count)) return 0;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    if (user == NULL) return 0;
    user->info_bytes = (uint16_t)info.count;
    rw_index_add(tx, block);
    rw_present_append(tx, (struct rw_present_list){user_links, &topic->first, &topic->last}, block);
    RW_TX_SET(tx, topic->users, topic->users + 1);
    RW_TX_SET(tx, topic->connections, topic->connections + 1);
    RW_TX_SET(tx, step->roots->users, step->roots->users + 1);
    return block;
}

rw_block rw_present_add_worker(struct rw_present_step *step, uint32_t place, uint32_t epoch) {
    uint32_t words[2];
    const struct rw_record_name called = worker_name(words, place, epoch);
    rw_block block = record_make(step, &called, 1, sizeof(struct rw_present_worker));
    struct rw_present_worker *worker = block == 0 ? NULL : rw_present_worker_at(&step->tx, block);
    if (worker == NULL) return 0;
    worker->place = place;
    worker->epoch = epoch;
    rw_index_add(&step->tx, block);
    rw_present_push(&step->tx, (struct rw_present_list){worker_links, &step->roots->workers, NULL}, block);
    return block;
}

/* What a user counts has changed from `before`. */
static void count_connections(struct rw_tx *tx, const struct rw_present_user *user, uint32_t before) {
    struct rw_present_topic *topic = rw_present_topic_at(tx, user->record.owner);
    if (topic != NULL) RW_TX_SET(tx, topic->connections, topic->connections - before + rw_present_weight(user));
}

rw_block rw_present_add_seat(struct rw_present_step *step, rw_block user_block, rw_block worker_block,
                             struct rw_presence_seat of) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_user *user = rw_present_user_at(tx, user_block);
    struct rw_present_worker *worker = rw_present_worker_at(tx, worker_block);
    if (user == NULL || worker == NULL) return 0;
    rw_block block = user_block;
    if (user->seat.worker != 0) {
        const struct rw_record_name called = {.kind = RW_RECORD_MEMBER, .owner = user_block};
        block = record_make(step, &called, 1, sizeof(struct rw_present_extra));
        if (block == 0) return 0;
    }
    rw_block owner;
    struct rw_present_seat *seat = rw_present_seat_at(tx, block, &owner);
    if (seat == NULL) return 0;
    RW_TX_SET(tx, seat->worker, worker_block);
    RW_TX_SET(tx, seat->slot, of.slot);
    RW_TX_SET(tx, seat->generation, of.generation);
    rw_present_push(tx, (struct rw_present_list){seat_links, &worker->first, NULL}, block);
    uint32_t weight = rw_present_weight(user);
    RW_TX_SET(tx, user->open, user->open + 1);
    count_connections(tx, user, weight);
    RW_TX_SET(tx, step->roots->seats, step->roots->seats + 1);
    return block;
}

/* ------------------------------------------------------------------ and go */
void rw_present_remove_seat(struct rw_present_step *step, rw_block block) {
    struct rw_tx *tx = &step->tx;
    rw_block user_block;
    struct rw_present_seat *seat = rw_present_seat_at(tx, block, &user_block);
    if (seat == NULL) return;
    struct rw_present_worker *worker = rw_present_worker_at(tx, seat->worker);
    struct rw_present_user *user = rw_present_user_at(tx, user_block);
    if (worker == NULL || user == NULL) return;
    rw_present_unlink(tx, (struct rw_present_list){seat_links, &worker->first, NULL}, block);
    RW_TX_SET(tx, seat->worker, 0);
    uint32_t weight = rw_present_weight(user);
    RW_TX_SET(tx, user->open, user->open - 1);
    count_connections(tx, user, weight);
    RW_TX_SET(tx, step->roots->seats, step->roots->seats - 1);
    if (block != user_block) rw_blocks_give(tx, block, block, 1);
}

void rw_present_remove_user(struct rw_present_step *step, rw_block block) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    struct rw_present_topic *topic = user == NULL ? NULL : rw_present_topic_at(tx, user->record.owner);
    if (topic == NULL) return;
    rw_block topic_block = user->record.owner;
    if (user->flags & (RW_PRESENT_DIRTY | RW_PRESENT_TAKEN)) rw_present_mark(step, block, 0);
    rw_present_unlink(tx, (struct rw_present_list){user_links, &topic->first, &topic->last}, block);
    if (!(user->flags & RW_PRESENT_GONE)) {
        RW_TX_SET(tx, topic->users, topic->users - 1);
        RW_TX_SET(tx, topic->connections, topic->connections - 1);
    }
    RW_TX_SET(tx, step->roots->users, step->roots->users - 1);
    rw_index_remove(tx, block);
    rw_blocks_give_chain(tx, block);
    if (topic->first != 0 || rw_tx_is_damaged(tx)) return;
    rw_present_unlink(tx, (struct rw_present_list){topic_links, &step->roots->topics, NULL}, topic_block);
    rw_index_remove(tx, topic_block);
    rw_blocks_give_chain(tx, topic_block);
}

void rw_present_remove_worker(struct rw_present_step *step, rw_block block) {
    struct rw_tx *tx = &step->tx;
    rw_present_unlink(tx, (struct rw_present_list){worker_links, &step->roots->workers, NULL}, block);
    rw_index_remove(tx, block);
    rw_blocks_give(tx, block, block, 1);
}
