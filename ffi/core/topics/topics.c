/* Topics and their subscribers, as two indexes over three arrays.
 *
 *   names  index  hash(name)        → topic id         topics[id]          {name, members, member count}
 *   pairs  index  hash(topic, slot) → subscription     subscriptions[n]    {topic, slot, position, next, prev}
 *
 *   members of a topic, one block:  [slot, slot, slot, …  | subscription, subscription, subscription, … ]
 *                                    0     1     2          0             1             2              position
 *
 * The fan-out loop reads the first half only. The second half finds the subscription of the member that a removal moves
 * into the gap. Subscriptions of one slot form a doubly linked list, whose head the slot keeps.
 *
 * The seat of a subscription lies beside it, seats[n], in an array that is made for the first one.
 *
 * Changes that are to be told are a doubly linked list of topics, oldest first:
 *
 *   told == (count > 0)   nothing to tell       told != (count > 0)   on the list
 *
 * Role: who gets a publish on this worker. Up: command_batch, connection, node_events. Down: malloc(3), in arrays that
 * grow by doubling.
 * Invariants: topics[id].count > 0 for every topic in `names` that is not on the list of changes; members[p] ==
 * subscriptions[s].slot with s = the second half's [p] and subscriptions[s].position == p; an index is at most 3/4
 * full, so that a search ends. */
#include "topics/topics.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/siphash.h"
#include "ringway.h"

#define INDEX_CELLS_MIN 64u
#define INDEX_CELLS_MAX (1u << 31)
#define ENTRIES_MIN 64u        /* of an array of topics or subscriptions */
#define ENTRIES_MAX (1u << 30) /* so that an index can hold them all */
#define MEMBERS_MIN 4u
#define SLOT_MASK 0xFFFFFFu
static_assert(RW_CONNECTIONS_MAX <= SLOT_MASK + 1u, "a slot fits its bits");
#define SEED_UNSET 0x52696e6777617931ull /* until rw_topics_seed(); any value does */

/* ------------------------------------------------------------------ hashing
 * Topic names come from clients: with a secret key nobody can choose names that collide. */
static uint64_t hash_seed = SEED_UNSET;

void rw_topics_seed(uint64_t seed) { hash_seed = seed; }

void rw_topics_seed_first(uint64_t seed) {
    uint64_t unset = SEED_UNSET;
    (void)__atomic_compare_exchange_n(&hash_seed, &unset, seed, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

uint64_t rw_topics_hash(const uint8_t *name, uint32_t name_bytes) {
    uint64_t k0 = hash_seed;
    uint64_t k1 = ~rw_rotate_left(hash_seed, 29); /* the key's second half carries no entropy of its own */
    return rw_siphash(k0, k1, name, name_bytes);
}

/* Topic ids and slot indexes are ours, not the client's: a multiplicative mix is enough. */
static uint32_t pair_hash(uint32_t topic, uint32_t slot) {
    uint64_t x = ((uint64_t)topic << 32 | slot) * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
    return (uint32_t)(x >> 32);
}

/* ------------------------------------------------------------------ an index
 * Open addressing, linear probing, removal by shifting back. */
struct cell {
    uint32_t hash;
    uint32_t value; /* 0: empty */
};

struct index {
    struct cell *cells;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t count;
};

static void index_place(struct index *index, struct cell cell) {
    uint32_t mask = index->capacity - 1u;
    uint32_t at = cell.hash & mask;
    while (index->cells[at].value != 0) at = (at + 1u) & mask;
    index->cells[at] = cell;
}

static int32_t index_resize(struct index *index, uint32_t capacity) {
    struct cell *cells = calloc(capacity, sizeof *cells);
    if (cells == NULL) return -ENOMEM;
    struct index resized = {cells, capacity, index->count};
    for (uint32_t i = 0; i < index->capacity; i++) {
        if (index->cells[i].value != 0) index_place(&resized, index->cells[i]);
    }
    free(index->cells);
    *index = resized;
    return RW_OK;
}

/* Room for one more. */
static int32_t index_reserve(struct index *index) {
    if (index->count < index->capacity / 4u * 3u) return RW_OK;
    if (index->capacity >= INDEX_CELLS_MAX) return -ENOMEM;
    return index_resize(index, index->capacity == 0 ? INDEX_CELLS_MIN : index->capacity * 2u);
}

static void index_remove_at(struct index *index, uint32_t gap) {
    uint32_t mask = index->capacity - 1u;
    for (uint32_t at = (gap + 1u) & mask; index->cells[at].value != 0; at = (at + 1u) & mask) {
        /* A cell may move into the gap when the gap lies on its way from home to where it is. */
        uint32_t home = index->cells[at].hash & mask;
        if (((at - home) & mask) < ((at - gap) & mask)) continue;
        index->cells[gap] = index->cells[at];
        gap = at;
    }
    index->cells[gap] = (struct cell){0};
    index->count--;
    /* Back to 1/4 full; that it fails costs memory only. */
    if (index->capacity > INDEX_CELLS_MIN && index->count < index->capacity / 8u)
        (void)index_resize(index, index->capacity / 2u);
}

/* The cell that holds `value`, which is there. */
static uint32_t index_cell_of(const struct index *index, uint32_t hash, uint32_t value) {
    uint32_t mask = index->capacity - 1u;
    uint32_t at = hash & mask;
    while (index->cells[at].value != value) {
        assert(index->cells[at].value != 0 && "the index lost a value");
        at = (at + 1u) & mask;
    }
    return at;
}

/* ------------------------------------------------------------------ the tables */
struct topic {
    uint64_t hash;
    uint8_t *name;
    uint32_t *members; /* [2 * capacity], see above */
    uint32_t name_bytes;
    uint32_t count;
    uint32_t capacity;
    uint32_t next_free;       /* id */
    uint32_t next_change;     /* id, 0: the last */
    uint32_t prev_change;     /* id, 0: the first */
    uint32_t others;          /* members that hear it in another dialect than raw */
    uint8_t told;             /* 1: whoever asks for changes knows of its subscribers */
    uint8_t held;             /* 1: the host hears it, like a subscriber that is no slot */
    struct rw_topic_log *log; /* NULL: a direct topic */
};

struct subscription {
    uint32_t topic;     /* id */
    uint32_t slot : 24; /* RW_CONNECTIONS_MAX */
    uint32_t other : 1; /* in topic.others */
    uint32_t position;  /* among the topic's members */
    uint32_t next;      /* of the slot: number in subscriptions[], 0: end. Also links the free ones */
    uint32_t prev;      /* of the slot, 0: the head */
};

struct lag {
    struct rw_topic_cursor cursor;
    uint32_t topic;
    uint32_t slot; /* of a free one: the next free one */
};

struct rw_topics {
    rw_topics_interest_fn *interest;
    void *context;
    rw_topics_absent_fn *absent;
    void *absent_context;
    struct index names;
    struct index pairs;
    struct index lagging;               /* hash(topic, slot) → lags[n] */
    struct topic *topics;               /* [topics_capacity]; 0 is not used */
    struct subscription *subscriptions; /* [subscriptions_capacity]; 0 is not used */
    uint32_t *seats;                    /* [seats_capacity]: by subscription, 0: none; NULL until there is one */
    uint32_t seats_capacity;            /* subscriptions from it on have none */
    struct lag *lags;                   /* [lags_capacity]; 0 is not used */
    uint32_t topics_capacity;
    uint32_t topics_carved; /* ids below it have been used */
    uint32_t topics_free;
    uint32_t subscriptions_capacity;
    uint32_t subscriptions_carved;
    uint32_t subscriptions_free;
    uint32_t lags_capacity;
    uint32_t lags_carved;
    uint32_t lags_free;
    uint32_t logged; /* topics with a log */
    uint32_t ended;  /* topics without subscribers, whose end is still to be told */
    uint32_t notes_changes;
    uint32_t changes;      /* how many */
    uint32_t first_change; /* id, 0: none */
    uint32_t last_change;
};

static uint32_t name_hash(uint64_t hash) { return (uint32_t)(hash >> 32); }

struct rw_topics *rw_topics_create(rw_topics_interest_fn *interest, void *context) {
    struct rw_topics *topics = calloc(1, sizeof *topics);
    if (topics == NULL) return NULL;
    topics->interest = interest;
    topics->context = context;
    topics->topics_carved = 1;
    topics->subscriptions_carved = 1;
    topics->lags_carved = 1;
    return topics;
}

void rw_topics_destroy(struct rw_topics *topics) {
    if (topics == NULL) return;
    for (uint32_t id = 1; id < topics->topics_carved; id++) {
        free(topics->topics[id].name);
        free(topics->topics[id].members);
        free(topics->topics[id].log);
    }
    free(topics->topics);
    free(topics->subscriptions);
    free(topics->seats);
    free(topics->lags);
    free(topics->names.cells);
    free(topics->pairs.cells);
    free(topics->lagging.cells);
    free(topics);
}

/* Grow *entries to hold number `carved`. */
static int32_t entries_reserve(void **entries, uint32_t *capacity, uint32_t carved, size_t entry_bytes) {
    if (carved < *capacity) return RW_OK;
    if (*capacity >= ENTRIES_MAX) return -ENOMEM;
    uint32_t grown = *capacity == 0 ? ENTRIES_MIN : *capacity * 2u;
    void *moved = realloc(*entries, grown * entry_bytes);
    if (moved == NULL) return -ENOMEM;
    *entries = moved;
    *capacity = grown;
    return RW_OK;
}

static int32_t topics_reserve(struct rw_topics *topics) {
    if (topics->topics_free != 0) return RW_OK;
    void *entries = topics->topics;
    int32_t result = entries_reserve(&entries, &topics->topics_capacity, topics->topics_carved, sizeof *topics->topics);
    topics->topics = entries;
    return result;
}

static int32_t subscriptions_reserve(struct rw_topics *topics) {
    if (topics->subscriptions_free != 0) return RW_OK;
    void *entries = topics->subscriptions;
    int32_t result = entries_reserve(&entries, &topics->subscriptions_capacity, topics->subscriptions_carved,
                                     sizeof *topics->subscriptions);
    topics->subscriptions = entries;
    return result;
}

/* Whether it has subscribers or not. ret: its id, 0 when there is none */
static inline uint32_t topic_find(const struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes,
                                  uint64_t hash) {
    const struct index *names = &topics->names;
    if (names->count == 0) return 0;
    uint32_t mask = names->capacity - 1u;
    for (uint32_t at = name_hash(hash) & mask; names->cells[at].value != 0; at = (at + 1u) & mask) {
        if (names->cells[at].hash != name_hash(hash)) continue;
        const struct topic *topic = &topics->topics[names->cells[at].value];
        if (topic->hash == hash && topic->name_bytes == name_bytes && memcmp(topic->name, name, name_bytes) == 0)
            return names->cells[at].value;
    }
    return 0;
}

static int is_wanted(const struct topic *topic) { return topic->count != 0 || topic->held; }

uint32_t rw_topics_find(const struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes, uint64_t hash) {
    uint32_t id = topic_find(topics, name, name_bytes, hash);
    return id != 0 && is_wanted(&topics->topics[id]) ? id : 0;
}

/* ret: the subscription's number, 0 when there is none */
static uint32_t subscription_find(const struct rw_topics *topics, uint32_t topic, uint32_t slot) {
    const struct index *pairs = &topics->pairs;
    if (pairs->count == 0) return 0;
    uint32_t hash = pair_hash(topic, slot);
    uint32_t mask = pairs->capacity - 1u;
    for (uint32_t at = hash & mask; pairs->cells[at].value != 0; at = (at + 1u) & mask) {
        if (pairs->cells[at].hash != hash) continue;
        const struct subscription *subscription = &topics->subscriptions[pairs->cells[at].value];
        if (subscription->topic == topic && subscription->slot == slot) return pairs->cells[at].value;
    }
    return 0;
}

/* ------------------------------------------------------------------ members */
static int32_t members_resize(struct topic *topic, uint32_t capacity) {
    uint32_t *members = topic->members;
    int shrinking = capacity < topic->capacity;
    /* The second half moves to where it begins then: before the block shrinks, after it has grown. */
    if (shrinking) memmove(members + capacity, members + topic->capacity, topic->count * sizeof *members);
    uint32_t *moved = realloc(members, (size_t)capacity * 2u * sizeof *members);
    if (moved == NULL && !shrinking) return -ENOMEM;
    if (moved != NULL) topic->members = moved; /* else the old block stays, larger than it need be */
    if (!shrinking && topic->count != 0)
        memmove(moved + capacity, moved + topic->capacity, topic->count * sizeof *members);
    topic->capacity = capacity;
    return RW_OK;
}

static int32_t members_reserve(struct topic *topic) {
    if (topic->count < topic->capacity) return RW_OK;
    if (topic->capacity >= ENTRIES_MAX) return -ENOMEM;
    return members_resize(topic, topic->capacity == 0 ? MEMBERS_MIN : topic->capacity * 2u);
}

static void members_remove(struct rw_topics *topics, struct topic *topic, uint32_t position) {
    uint32_t last = --topic->count;
    if (position != last) {
        uint32_t moved = topic->members[topic->capacity + last];
        topic->members[position] = topic->members[last];
        topic->members[topic->capacity + position] = moved;
        topics->subscriptions[moved].position = position;
    }
    if (topic->capacity > MEMBERS_MIN && topic->count < topic->capacity / 4u)
        (void)members_resize(topic, topic->capacity / 2u);
}

/* ------------------------------------------------------------------ topics come and go */

/* A topic, in the index of names, with room for its first member, who must follow. Room in the tables was reserved.
 * out: *id. ret: RW_OK, or -ENOMEM and nothing changed */
static int32_t topic_carve(struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes, uint64_t hash,
                           uint32_t *id) {
    struct topic made = {.hash = hash, .name_bytes = name_bytes};
    made.name = malloc(name_bytes);
    if (made.name == NULL) return -ENOMEM;
    if (members_reserve(&made) != RW_OK) {
        free(made.name);
        return -ENOMEM;
    }
    memcpy(made.name, name, name_bytes);
    if (topics->topics_free != 0) {
        *id = topics->topics_free;
        topics->topics_free = topics->topics[*id].next_free;
    } else {
        *id = topics->topics_carved++;
    }
    topics->topics[*id] = made;
    index_place(&topics->names, (struct cell){name_hash(hash), *id});
    topics->names.count++;
    return RW_OK;
}

static void topic_free(struct rw_topics *topics, uint32_t id) {
    struct topic *topic = &topics->topics[id];
    index_remove_at(&topics->names, index_cell_of(&topics->names, name_hash(topic->hash), id));
    free(topic->name);
    free(topic->members);
    assert(topic->log == NULL && "it ended with the last subscriber");
    *topic = (struct topic){.next_free = topics->topics_free};
    topics->topics_free = id;
}

static void change_add(struct rw_topics *topics, uint32_t id) {
    struct topic *topic = &topics->topics[id];
    topic->next_change = 0;
    topic->prev_change = topics->last_change;
    if (topics->last_change != 0) topics->topics[topics->last_change].next_change = id;
    else topics->first_change = id;
    topics->last_change = id;
    topics->changes++;
}

static void change_remove(struct rw_topics *topics, uint32_t id) {
    struct topic *topic = &topics->topics[id];
    if (topic->prev_change != 0) topics->topics[topic->prev_change].next_change = topic->next_change;
    else topics->first_change = topic->next_change;
    if (topic->next_change != 0) topics->topics[topic->next_change].prev_change = topic->prev_change;
    else topics->last_change = topic->prev_change;
    topic->next_change = topic->prev_change = 0;
    topics->changes--;
}

/* It has got its first subscriber or lost its last one: now there is something to tell, or nothing any more. */
static void change_note(struct rw_topics *topics, uint32_t id) {
    struct topic *topic = &topics->topics[id];
    if (topic->told != is_wanted(topic)) change_add(topics, id);
    else change_remove(topics, id);
}

/* The first that hears it has come, a member or the host. */
static void topic_begin(struct rw_topics *topics, uint32_t id) {
    struct topic *topic = &topics->topics[id];
    if (topic->told) topics->ended--;
    if (topics->notes_changes) change_note(topics, id);
    if (topics->interest != NULL) topics->interest(topics->context, topic->name, topic->name_bytes, topic->hash, 1);
}

/* The last that heard it has left. */
static void topic_end(struct rw_topics *topics, uint32_t id) {
    struct topic *topic = &topics->topics[id];
    if (topic->log != NULL) topics->logged--;
    free(topic->log);
    topic->log = NULL;
    if (topics->interest != NULL) topics->interest(topics->context, topic->name, topic->name_bytes, topic->hash, 0);
    if (topics->notes_changes) change_note(topics, id);
    if (!topic->told) {
        topic_free(topics, id);
        return;
    }
    free(topic->members);
    topic->members = NULL;
    topic->capacity = 0;
    topics->ended++;
}

/* ------------------------------------------------------------------ seats */
static uint32_t seat_of(const struct rw_topics *topics, uint32_t number) {
    return number < topics->seats_capacity ? topics->seats[number] : 0;
}

/* Room for the seat of subscription `number`. */
static int32_t seats_reserve(struct rw_topics *topics, uint32_t number) {
    if (number < topics->seats_capacity) return RW_OK;
    uint32_t capacity = topics->subscriptions_capacity;
    uint32_t *moved = realloc(topics->seats, capacity * sizeof *moved);
    if (moved == NULL) return -ENOMEM;
    memset(moved + topics->seats_capacity, 0, (capacity - topics->seats_capacity) * sizeof *moved);
    topics->seats = moved;
    topics->seats_capacity = capacity;
    return RW_OK;
}

static void seat_end(struct rw_topics *topics, uint32_t number, int closed) {
    uint32_t seat = seat_of(topics, number);
    if (seat == 0) return;
    topics->seats[number] = 0;
    const struct subscription *subscription = &topics->subscriptions[number];
    const struct topic *topic = &topics->topics[subscription->topic];
    topics->absent(topics->absent_context, subscription->slot, topic->name, topic->name_bytes, seat, closed);
}

/* Take a subscription out of everything but its slot's list. */
static void subscription_end(struct rw_topics *topics, uint32_t number, int closed) {
    seat_end(topics, number, closed);
    struct subscription *subscription = &topics->subscriptions[number];
    uint32_t id = subscription->topic;
    index_remove_at(&topics->pairs, index_cell_of(&topics->pairs, pair_hash(id, subscription->slot), number));
    if (topics->lagging.count != 0) rw_topics_lag_end(topics, id, subscription->slot);
    topics->topics[id].others -= subscription->other;
    members_remove(topics, &topics->topics[id], subscription->position);
    *subscription = (struct subscription){.next = topics->subscriptions_free};
    topics->subscriptions_free = number;
    if (!is_wanted(&topics->topics[id])) topic_end(topics, id);
}

static void subscription_add(struct rw_topics *topics, uint32_t id, uint32_t slot, uint32_t *list) {
    uint32_t number = topics->subscriptions_free;
    if (number != 0) topics->subscriptions_free = topics->subscriptions[number].next;
    else number = topics->subscriptions_carved++;
    struct topic *topic = &topics->topics[id];
    uint32_t position = topic->count++;
    topic->members[position] = slot;
    topic->members[topic->capacity + position] = number;
    topics->subscriptions[number] =
        (struct subscription){.topic = id, .slot = slot & SLOT_MASK, .position = position, .next = *list};
    if (*list != 0) topics->subscriptions[*list].prev = number;
    *list = number;
    index_place(&topics->pairs, (struct cell){pair_hash(id, slot), number});
    topics->pairs.count++;
}

/* ------------------------------------------------------------------ the interface */

/* The topic of this name, with room for one member more; made when *id is 0, and then whoever hears it must follow. ret: RW_OK, or -ENOMEM and nothing changed */
static int32_t topic_open(struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes, uint64_t hash,
                          uint32_t *id) {
    if (*id != 0) return members_reserve(&topics->topics[*id]);
    if (topics_reserve(topics) != RW_OK || index_reserve(&topics->names) != RW_OK) return -ENOMEM;
    return topic_carve(topics, name, name_bytes, hash, id);
}

int32_t rw_topics_subscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const uint8_t *name,
                            uint32_t name_bytes) {
    if (name_bytes == 0 || name_bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    uint64_t hash = rw_topics_hash(name, name_bytes);
    uint32_t id = topic_find(topics, name, name_bytes, hash);
    if (id != 0 && subscription_find(topics, id, slot) != 0) return 0;
    /* Everything that can fail comes first, so that a failure changes nothing. */
    if (subscriptions_reserve(topics) != RW_OK || index_reserve(&topics->pairs) != RW_OK) return -ENOMEM;
    if (topic_open(topics, name, name_bytes, hash, &id) != RW_OK) return -ENOMEM;
    int begins = !is_wanted(&topics->topics[id]);
    subscription_add(topics, id, slot, list);
    if (begins) topic_begin(topics, id);
    return 1;
}

int32_t rw_topics_unsubscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const uint8_t *name,
                              uint32_t name_bytes) {
    if (*list == 0) return 0;
    uint32_t id = topic_find(topics, name, name_bytes, rw_topics_hash(name, name_bytes));
    uint32_t number = id == 0 ? 0 : subscription_find(topics, id, slot);
    if (number == 0) return 0;
    const struct subscription *subscription = &topics->subscriptions[number];
    if (subscription->next != 0) topics->subscriptions[subscription->next].prev = subscription->prev;
    if (subscription->prev != 0) topics->subscriptions[subscription->prev].next = subscription->next;
    else *list = subscription->next;
    subscription_end(topics, number, 0);
    return 1;
}

int32_t rw_topics_hold(struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes) {
    if (name_bytes == 0 || name_bytes > RW_TOPIC_BYTES_MAX) return RW_ERR_INVALID;
    uint64_t hash = rw_topics_hash(name, name_bytes);
    uint32_t id = topic_find(topics, name, name_bytes, hash);
    if (id != 0 && topics->topics[id].held) return 0;
    if (topic_open(topics, name, name_bytes, hash, &id) != RW_OK) return -ENOMEM;
    int begins = !is_wanted(&topics->topics[id]);
    topics->topics[id].held = 1;
    if (begins) topic_begin(topics, id);
    return 1;
}

int32_t rw_topics_release(struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes) {
    uint32_t id = topic_find(topics, name, name_bytes, rw_topics_hash(name, name_bytes));
    if (id == 0 || !topics->topics[id].held) return 0;
    topics->topics[id].held = 0;
    if (!is_wanted(&topics->topics[id])) topic_end(topics, id);
    return 1;
}

int rw_topics_is_held(const struct rw_topics *topics, uint32_t topic) { return topics->topics[topic].held; }

int rw_topics_is_heard(const struct rw_topics *topics, uint32_t topic) {
    return topic < topics->topics_carved && is_wanted(&topics->topics[topic]);
}

int rw_topics_is_subscribed(const struct rw_topics *topics, uint32_t slot, const uint8_t *name, uint32_t name_bytes) {
    uint32_t id = rw_topics_find(topics, name, name_bytes, rw_topics_hash(name, name_bytes));
    return id != 0 && subscription_find(topics, id, slot) != 0;
}

void rw_topics_drop(struct rw_topics *topics, uint32_t slot, uint32_t *list) {
    uint32_t number = *list;
    *list = 0;
    while (number != 0) {
        uint32_t next = topics->subscriptions[number].next;
        assert(topics->subscriptions[number].slot == slot && "the list is another slot's");
        subscription_end(topics, number, 1);
        number = next;
    }
}

void rw_topics_note_absent(struct rw_topics *topics, rw_topics_absent_fn *absent, void *context) {
    topics->absent = absent;
    topics->absent_context = context;
}

int32_t rw_topics_set_seat(struct rw_topics *topics, uint32_t slot, const uint8_t *name, uint32_t name_bytes,
                           uint32_t seat) {
    assert(topics->absent != NULL);
    uint32_t id = topic_find(topics, name, name_bytes, rw_topics_hash(name, name_bytes));
    uint32_t number = id == 0 ? 0 : subscription_find(topics, id, slot);
    if (number == 0) return RW_ERR_STALE;
    if (seats_reserve(topics, number) != RW_OK) return -ENOMEM;
    topics->seats[number] = seat;
    return RW_OK;
}

int32_t rw_topics_seat(const struct rw_topics *topics, uint32_t slot, const uint8_t *name, uint32_t name_bytes,
                       uint32_t *seat) {
    uint32_t id = topic_find(topics, name, name_bytes, rw_topics_hash(name, name_bytes));
    uint32_t number = id == 0 ? 0 : subscription_find(topics, id, slot);
    if (number == 0) return RW_ERR_STALE;
    *seat = seat_of(topics, number);
    return RW_OK;
}

const uint32_t *rw_topics_members(const struct rw_topics *topics, uint32_t topic, uint32_t *count) {
    assert(topic > 0 && topic < topics->topics_carved && is_wanted(&topics->topics[topic]) && "not a topic");
    *count = topics->topics[topic].count;
    return topics->topics[topic].members;
}

int rw_topics_next_of_slot(const struct rw_topics *topics, uint32_t *cursor, const uint8_t **name,
                           uint32_t *name_bytes) {
    if (*cursor == 0) return 0;
    const struct subscription *subscription = &topics->subscriptions[*cursor];
    const struct topic *topic = &topics->topics[subscription->topic];
    *name = topic->name;
    *name_bytes = topic->name_bytes;
    *cursor = subscription->next;
    return 1;
}

int rw_topics_next_id_of_slot(const struct rw_topics *topics, uint32_t *cursor, uint32_t *topic) {
    if (*cursor == 0) return 0;
    *topic = topics->subscriptions[*cursor].topic;
    *cursor = topics->subscriptions[*cursor].next;
    return 1;
}

struct rw_topic_name rw_topics_name(const struct rw_topics *topics, uint32_t topic) {
    if (topic == 0 || topic >= topics->topics_carved || topics->topics[topic].name == NULL)
        return (struct rw_topic_name){0};
    const struct topic *entry = &topics->topics[topic];
    return (struct rw_topic_name){entry->name, entry->name_bytes, entry->hash};
}

int rw_topics_next_with_prefix(const struct rw_topics *topics, uint32_t *cursor, const uint8_t *prefix,
                               uint32_t prefix_bytes, const uint8_t **name, uint32_t *name_bytes) {
    while (++*cursor < topics->topics_carved) {
        const struct topic *topic = &topics->topics[*cursor];
        if (topic->count == 0 || topic->name_bytes < prefix_bytes) continue;
        if (prefix_bytes != 0 && memcmp(topic->name, prefix, prefix_bytes) != 0) continue;
        *name = topic->name;
        *name_bytes = topic->name_bytes;
        return 1;
    }
    return 0;
}

/* ------------------------------------------------------------------ dialects */

void rw_topics_note_other(struct rw_topics *topics, uint32_t topic, uint32_t slot) {
    struct subscription *subscription = &topics->subscriptions[subscription_find(topics, topic, slot)];
    assert(subscription->topic == topic && "it is subscribed");
    topics->topics[topic].others += !subscription->other;
    subscription->other = 1;
}

uint32_t rw_topics_others(const struct rw_topics *topics, uint32_t topic) {
    const struct topic *entry = &topics->topics[topic];
    return entry->others + entry->held;
}

/* ------------------------------------------------------------------ logs and who lags */

struct rw_topic_log *rw_topics_log(const struct rw_topics *topics, uint32_t topic) {
    return topic < topics->topics_carved ? topics->topics[topic].log : NULL;
}

struct rw_topic_log *rw_topics_log_begin(struct rw_topics *topics, uint32_t topic) {
    struct topic *entry = &topics->topics[topic];
    assert(is_wanted(entry) && entry->log == NULL);
    entry->log = calloc(1, sizeof *entry->log);
    if (entry->log != NULL) topics->logged++;
    return entry->log;
}

uint32_t rw_topics_logged(const struct rw_topics *topics) { return topics->logged; }

uint32_t rw_topics_ids(const struct rw_topics *topics) { return topics->topics_carved; }

/* ret: its number in lags[], 0 when there is none */
static uint32_t lag_find(const struct rw_topics *topics, uint32_t topic, uint32_t slot) {
    const struct index *lagging = &topics->lagging;
    if (lagging->count == 0) return 0;
    uint32_t hash = pair_hash(topic, slot);
    uint32_t mask = lagging->capacity - 1u;
    for (uint32_t at = hash & mask; lagging->cells[at].value != 0; at = (at + 1u) & mask) {
        const struct lag *lag = &topics->lags[lagging->cells[at].value];
        if (lag->topic == topic && lag->slot == slot) return lagging->cells[at].value;
    }
    return 0;
}

struct rw_topic_cursor *rw_topics_lag(const struct rw_topics *topics, uint32_t topic, uint32_t slot) {
    uint32_t number = lag_find(topics, topic, slot);
    return number == 0 ? NULL : &topics->lags[number].cursor;
}

int32_t rw_topics_lag_begin(struct rw_topics *topics, uint32_t topic, uint32_t slot, struct rw_topic_cursor cursor) {
    assert(subscription_find(topics, topic, slot) != 0 && lag_find(topics, topic, slot) == 0);
    void *entries = topics->lags;
    uint32_t number = topics->lags_free;
    if (number == 0 &&
        entries_reserve(&entries, &topics->lags_capacity, topics->lags_carved, sizeof *topics->lags) != RW_OK)
        return -ENOMEM;
    topics->lags = entries;
    if (index_reserve(&topics->lagging) != RW_OK) return -ENOMEM;
    if (number != 0) topics->lags_free = topics->lags[number].slot;
    else number = topics->lags_carved++;
    topics->lags[number] = (struct lag){.cursor = cursor, .topic = topic, .slot = slot};
    index_place(&topics->lagging, (struct cell){pair_hash(topic, slot), number});
    topics->lagging.count++;
    return RW_OK;
}

void rw_topics_lag_end(struct rw_topics *topics, uint32_t topic, uint32_t slot) {
    uint32_t number = lag_find(topics, topic, slot);
    if (number == 0) return;
    index_remove_at(&topics->lagging, index_cell_of(&topics->lagging, pair_hash(topic, slot), number));
    topics->lags[number] = (struct lag){.slot = topics->lags_free};
    topics->lags_free = number;
}

uint32_t rw_topics_lags(const struct rw_topics *topics) { return topics->lagging.count; }

/* ------------------------------------------------------------------ changes */

void rw_topics_note_changes(struct rw_topics *topics) {
    assert(topics->names.count == 0 && "topics that are there already would not be told");
    topics->notes_changes = 1;
}

uint32_t rw_topics_changes(const struct rw_topics *topics) { return topics->changes; }

int rw_topics_change(const struct rw_topics *topics, const uint8_t **name, uint32_t *name_bytes, int *interested) {
    if (topics->first_change == 0) return 0;
    const struct topic *topic = &topics->topics[topics->first_change];
    *name = topic->name;
    *name_bytes = topic->name_bytes;
    *interested = is_wanted(topic);
    return 1;
}

void rw_topics_change_told(struct rw_topics *topics) {
    uint32_t id = topics->first_change;
    struct topic *topic = &topics->topics[id];
    assert(id != 0);
    change_remove(topics, id);
    topic->told = is_wanted(topic) ? 1 : 0;
    if (topic->told) return;
    topics->ended--;
    topic_free(topics, id);
}

uint32_t rw_topics_count(const struct rw_topics *topics) { return topics->names.count - topics->ended; }

uint32_t rw_topics_held(const struct rw_topics *topics) { return topics->names.count; }

uint32_t rw_topics_subscriptions(const struct rw_topics *topics) { return topics->pairs.count; }
