/* Topics and their subscribers: who gets a publish on this worker.
 *
 * Role: an index topic → slots and slot → topics. It holds no bytes of messages and sends nothing.
 * Up: command_batch (subscribe, unsubscribe, publish), connection (end of a slot). Down: malloc(3) in growing arrays,
 * never per message.
 *
 *   name ──hash──> topic ──> members: [slot, slot, slot …]   dense, for the fan-out loop
 *                              ↕ position
 *                 subscription {topic, slot, position, next_of_slot}   found by hash of (topic, slot)
 *
 * subscribe, unsubscribe and is_subscribed are O(1); dropping a slot is O(its subscriptions).
 * A topic exists while it has subscribers; ids are reused.
 *
 * Seats: a subscription may have a seat (state/presence.h), a number that means nothing here. Whatever ends the
 * subscription, whoever keeps the seats is told.
 *
 * The host may hear a topic too (hold): it counts as a subscriber, and is no member.
 *
 * Logged topics: whoever delivers a topic from a log keeps its cursor here, and cursors of members that lag behind it.
 * Neither costs a topic without a log anything.
 *
 * Changes: who wants to hear, in its own time, which topics have got a first subscriber or lost the last one asks for
 * the changes. They are the topics that differ from what it was told last; what changes back meanwhile is no change.
 * Noting one takes no memory, so none is ever lost: a topic that has no subscribers any more keeps its name until that
 * was told. */
#ifndef RW_TOPICS_H
#define RW_TOPICS_H

#include <stddef.h>
#include <stdint.h>

struct rw_topics;

/* Called when a topic gets its first subscriber (interested = 1) and loses its last (0). Name borrowed for the call,
 * which must not change topics. */
typedef void rw_topics_interest_fn(void *context, const uint8_t *name, uint32_t name_bytes, uint64_t hash,
                                   int interested);

struct rw_topics *rw_topics_create(rw_topics_interest_fn *interest, void *context);
void rw_topics_destroy(struct rw_topics *topics);

/* Key the hash below, once per process and before the first topic: with the same secret in every worker of a node,
 * clients cannot choose names that collide. Not called: a fixed key. */
void rw_topics_seed(uint64_t seed);
/* The same, unless the process has a key already: cores of several threads share it. */
void rw_topics_seed_first(uint64_t seed);
/* 64-bit hash of a topic name; the same in every worker of a node. */
uint64_t rw_topics_hash(const uint8_t *name, uint32_t name_bytes);

/* `list` is the slot's subscription list head (0: none), kept in the slot.
 * ret: 1 subscribed now, 0 it was already, RW_ERR_INVALID name empty or longer than RW_TOPIC_BYTES_MAX, -ENOMEM */
int32_t rw_topics_subscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const uint8_t *name,
                            uint32_t name_bytes);
/* ret: 1 it was subscribed, 0 it was not */
int32_t rw_topics_unsubscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const uint8_t *name,
                              uint32_t name_bytes);
int rw_topics_is_subscribed(const struct rw_topics *topics, uint32_t slot, const uint8_t *name, uint32_t name_bytes);
/* Drop all subscriptions of a slot; *list becomes 0. */
void rw_topics_drop(struct rw_topics *topics, uint32_t slot, uint32_t *list);

/* ret: topic id, 0 when nobody is subscribed, nor the host */
uint32_t rw_topics_find(const struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes, uint64_t hash);
/* Called when a subscription ends that has a seat. Name borrowed for the call, which must not change topics.
 * closed: 1: because its connection ends, 0: it was unsubscribed */
typedef void rw_topics_absent_fn(void *context, uint32_t slot, const uint8_t *name, uint32_t name_bytes, uint32_t seat,
                                 int closed);
/* Before the first seat. */
void rw_topics_note_absent(struct rw_topics *topics, rw_topics_absent_fn *absent, void *context);
/* A subscription has this seat from now on; 0: none, and nobody is told of its end.
 * ret: RW_OK, RW_ERR_STALE: it is not subscribed, -ENOMEM */
int32_t rw_topics_set_seat(struct rw_topics *topics, uint32_t slot, const uint8_t *name, uint32_t name_bytes,
                           uint32_t seat);
/* out: *seat, 0: none. ret: RW_OK, RW_ERR_STALE: it is not subscribed */
int32_t rw_topics_seat(const struct rw_topics *topics, uint32_t slot, const uint8_t *name, uint32_t name_bytes,
                       uint32_t *seat);

/* The dense member array (count 0: only the host hears it); valid until the next subscribe, unsubscribe or drop. */
const uint32_t *rw_topics_members(const struct rw_topics *topics, uint32_t topic, uint32_t *count);
/* Walk a slot's topics: start with *cursor = *list; ret: 1 and a name (borrowed until the next change), 0 at the end */
int rw_topics_next_of_slot(const struct rw_topics *topics, uint32_t *cursor, const uint8_t **name,
                           uint32_t *name_bytes);

/* The same, by topic id. */
int rw_topics_next_id_of_slot(const struct rw_topics *topics, uint32_t *cursor, uint32_t *topic);

struct rw_topic_name {
    const uint8_t *bytes;
    uint32_t count;
    uint64_t hash;
};
/* ret: the name of a topic id, borrowed until the next change; count 0: it is none (any more) */
struct rw_topic_name rw_topics_name(const struct rw_topics *topics, uint32_t topic);
/* Walk the topics with members whose name begins with prefix[0..prefix_bytes): start with *cursor = 0. ret: 1 and a
 * name (borrowed until the next change), 0 at the end */
int rw_topics_next_with_prefix(const struct rw_topics *topics, uint32_t *cursor, const uint8_t *prefix,
                               uint32_t prefix_bytes, const uint8_t **name, uint32_t *name_bytes);

/* The host hears the topic, or does not any more.
 * ret: hold: 1 from now on, 0 it did already, RW_ERR_INVALID as above, -ENOMEM; release: 1 it did, 0 it did not */
int32_t rw_topics_hold(struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes);
int32_t rw_topics_release(struct rw_topics *topics, const uint8_t *name, uint32_t name_bytes);
int rw_topics_is_held(const struct rw_topics *topics, uint32_t topic);
/* ret: 1 the topic with this id, as it was found a while ago, has a member or the host still */
int rw_topics_is_heard(const struct rw_topics *topics, uint32_t topic);

/* A member hears the topic in another dialect than raw (delivery/publication.h). */
void rw_topics_note_other(struct rw_topics *topics, uint32_t topic, uint32_t slot);
/* ret: how many of these there are, and the host if it hears it; 0: every member gets the same frame */
uint32_t rw_topics_others(const struct rw_topics *topics, uint32_t topic);

/* ------------------------------------------------------------------ logged topics */

/* A place in a log; epoch 0: before whatever the log begins with. */
struct rw_topic_cursor {
    uint64_t epoch, offset;
};

/* What is known here of a topic's log. Its address stays until the last that hears the topic leaves. */
struct rw_topic_log {
    struct rw_topic_cursor cursor; /* delivered to all members up to here, but for those that lag */
    struct rw_topic_cursor host;   /* and to the host, if it hears the topic */
    uint8_t due;                   /* more is to be delivered in the next turn */
    uint8_t host_due;              /* and to the host */
    uint8_t shard;                 /* where the log lies, for whoever begins it to note */
};

/* ret: NULL: a direct topic */
struct rw_topic_log *rw_topics_log(const struct rw_topics *topics, uint32_t topic);
/* A direct topic becomes a logged one, with a cursor of zeros. ret: NULL: out of memory */
struct rw_topic_log *rw_topics_log_begin(struct rw_topics *topics, uint32_t topic);
/* ret: how many there are */
uint32_t rw_topics_logged(const struct rw_topics *topics);
/* ret: topic ids are below it */
uint32_t rw_topics_ids(const struct rw_topics *topics);

/* A member lags behind its topic's cursor: what comes is not for it before it has caught up. It ends by itself when the
 * member leaves. ret: begin: RW_OK, -ENOMEM; rw_topics_lag: its cursor, valid until the next change; NULL: it does not
 * lag */
int32_t rw_topics_lag_begin(struct rw_topics *topics, uint32_t topic, uint32_t slot, struct rw_topic_cursor cursor);
struct rw_topic_cursor *rw_topics_lag(const struct rw_topics *topics, uint32_t topic, uint32_t slot);
void rw_topics_lag_end(struct rw_topics *topics, uint32_t topic, uint32_t slot);
uint32_t rw_topics_lags(const struct rw_topics *topics);

/* ------------------------------------------------------------------ changes of interest */

/* Note changes from now on; before the first topic. */
void rw_topics_note_changes(struct rw_topics *topics);
/* ret: how many there are */
uint32_t rw_topics_changes(const struct rw_topics *topics);
/* The oldest change. ret: 1 and a name (borrowed until the next call of any function), *interested as above; 0: there
 * is none */
int rw_topics_change(const struct rw_topics *topics, const uint8_t **name, uint32_t *name_bytes, int *interested);
/* That one was told: on to the next. */
void rw_topics_change_told(struct rw_topics *topics);

uint32_t rw_topics_count(const struct rw_topics *topics);
/* The same, and those whose end is still to be told: all that take memory. */
uint32_t rw_topics_held(const struct rw_topics *topics);
uint32_t rw_topics_subscriptions(const struct rw_topics *topics);

#endif
