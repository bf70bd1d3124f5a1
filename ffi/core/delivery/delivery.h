/* Who hears a message of a topic here, and what each connection's protocol makes of it.
 *
 * Role: topics → connections. Up: command_batch, log_calls and core (subscribe, publish, messages of other workers).
 * Down: topics, state/logs.h, protocol.h (`deliver` and its neighbours, by which a protocol takes part).
 *
 * Dialects: a connection hears *raw* messages, the payload alone, or is told more (topics/dialect.h). A topic counts
 * those who are not raw, so that one with raw WebSockets alone is served by the short loop of ws/publish.c.
 *
 * A *direct* topic is delivered as it is published. A *logged* one is delivered from its log, by every worker in the
 * order of its offsets, whoever has appended:
 *
 *   log (shared)    … 5 6 7 8 9
 *   cursor          ─────────^       of the topic here: all members have had 8
 *   lag             ───^             of one member: its queue was full, or it has come back with `since`; it goes on
 *                                    from the log when its output has drained
 *   host            ─────────^       of the host, when it holds the topic (hold.c)
 *
 * What moves a cursor: an append here; a record of the node bus that another worker has appended; and once a second a
 * look at the log, for a record that was lost. So a lost record costs time and never a message. Where the log has gone
 * past a cursor, or begun anew, whoever it belongs to is told: rw_topic_message.event RW_TOPIC_LOST.
 *
 * Split: delivery.c subscriptions and fan-out; logged.c cursors of topics; attach.c those of members; hold.c the host;
 * publication.c what a message looks like. */
#ifndef RW_DELIVERY_H
#define RW_DELIVERY_H

#include "connection/protocol.h"
#include "delivery/publication.h"
#include "state/logs.h"

#define RW_LOGGED_ENTRIES 64u /* read at a time */

struct rw_publish_tail {
    rw_buffer buffer; /* RW_BUFFER_NONE: none yet */
    uint32_t used;
};

struct rw_holds; /* hold.c */

/* Of a core. Topics in lists are ids, each once at most (rw_topic_log.due, host_due) but for ids that have ended. */
struct rw_delivery {
    struct rw_publish_tail logs[RW_PUBLISH_LOGS];
    struct rw_slot_list due;      /* topics whose log has more for their members */
    struct rw_slot_list host_due; /* and for the host */
    struct rw_holds *holds;       /* NULL: nothing was to be told yet */
    uint8_t *payloads;            /* of `entries`, which are being delivered */
    uint64_t payloads_bytes;
    struct rw_log_entry entries[RW_LOGGED_ENTRIES];
    uint64_t changes[RW_STATE_SHARDS]; /* as last looked at */
    uint64_t look_shards;              /* a bit for each whose topics are to be looked at */
    uint32_t look_at;                  /* the next topic id to look at; 0: none */
    uint32_t looked_ms;                /* when that began */
    uint32_t own_holds;                /* topics of the gateway itself that the host holds: they are not counted */
};

/* ret: RW_OK or -ENOMEM */
int32_t rw_delivery_create(struct rw_core *core);
void rw_delivery_destroy(struct rw_core *core);

/* Once a turn, when the messages of other workers are in: what is due to topics, to members that lag and to the host. */
void rw_delivery_step(struct rw_core *core);
/* ret: 1 the next turn has some of it to do */
int rw_delivery_has_work(const struct rw_core *core);
/* ret: milliseconds until logs are to be looked at again; -1: there is none to look at */
int64_t rw_delivery_due_ms(const struct rw_core *core);

/* ------------------------------------------------------------------ delivery.c */

/* Topics that somebody here is subscribed to, or the host holds for a program. */
uint32_t rw_delivery_topics(const struct rw_core *core);

/* Subscribe a connection of whatever protocol, within the limits of its own topics and of the worker's.
 * ret: 1 subscribed now, 0 it was already, RW_ERR_STALE it does not hear topics (any more), RW_ERR_INVALID the name,
 * RW_ERR_FULL a limit, -ENOMEM */
int32_t rw_delivery_subscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes);
/* ret: 1 it was subscribed, 0 it was not, RW_ERR_STALE as above */
int32_t rw_delivery_unsubscribe(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes);
/* ret: 1 the worker may have one more topic of this name; 0 it has all that it may, which is counted */
int rw_delivery_admits_topic(struct rw_core *core, const uint8_t *topic, uint32_t bytes);

/* Deliver to every member of a topic (an id) but `except` (RW_NO_SLOT: nobody), each in its dialect; of a direct topic,
 * to the host too. of: NULL for a direct topic; else where those stand who have had everything before it: members that
 * lag are left out, and who has no room lags from there on.
 * ret: deliveries */
uint32_t rw_delivery_fan_out(struct rw_core *core, uint32_t topic, struct rw_publication *publication, uint32_t except,
                             const struct rw_topic_cursor *of);
/* From now on this member lags. It ends when memory is short. */
void rw_delivery_lag(struct rw_core *core, struct rw_slot *slot, uint32_t topic, struct rw_topic_cursor from);

/* ------------------------------------------------------------------ logged.c */

/* Once a turn: topics that are due, and a look at logs once a second. */
void rw_logged_step(struct rw_core *core);
/* The log of a topic has gone on to `position`, in this worker (entry: with this) or in another (NULL). A topic that was
 * direct here is a logged one from then on. */
void rw_logged_advance(struct rw_core *core, const uint8_t *topic, uint32_t bytes, struct rw_position position,
                       const struct rw_log_entry *entry);
/* The same, and the other workers are told. */
void rw_logged_announce(struct rw_core *core, const uint8_t *topic, uint32_t bytes, struct rw_position position,
                        const struct rw_log_entry *entry);
/* The same for whoever has appended and does not know how far: presence, a reset. */
void rw_logged_grown(struct rw_core *core, const uint8_t *topic, uint32_t bytes);
/* Deliver what the log of a topic (an id) has beyond its cursor. ret: 1 all of it, 0 more is there: it is due */
int rw_logged_deliver(struct rw_core *core, uint32_t topic);
/* A direct topic becomes a logged one. ret: its log, also when it has had one; NULL: memory is short */
struct rw_topic_log *rw_logged_begin(struct rw_core *core, uint32_t topic, struct rw_topic_cursor at);

/* Read into delivery->entries what comes after a cursor of a topic.
 * out: *end. ret: how many entries; < 0 as rw_log_read() */
int32_t rw_logged_read(struct rw_core *core, const uint8_t *topic, uint32_t bytes, struct rw_topic_cursor after,
                       struct rw_log_end *end);
/* ret: 1 the log has lost what came next after this cursor, or has begun anew */
static inline int rw_logged_is_past(const struct rw_log_end *end, struct rw_topic_cursor cursor) {
    return cursor.epoch != end->epoch || cursor.offset + 1 < end->first;
}
/* The message that an entry is, or (entry NULL) that all up to `at` are lost. Borrowed. */
struct rw_topic_message rw_logged_message(const uint8_t *topic, uint32_t bytes, struct rw_topic_cursor at,
                                          const struct rw_log_entry *entry);
/* The wall clock, by which entries expire. */
uint64_t rw_logged_now_ms(void);
/* ret: the slot that the entry came from, when it is of this worker and still the same; else RW_NO_SLOT */
uint32_t rw_logged_except(const struct rw_core *core, const struct rw_log_entry *entry);

/* ------------------------------------------------------------------ attach.c */

struct rw_attached {
    struct rw_position position; /* where the topic stood */
    uint32_t recovered;          /* 1: all after `since` is queued, or follows as the connection takes it */
    uint32_t sent;               /* messages queued by this call */
};

/* Subscribe a connection to a logged topic, after what it has had (since; NULL: nothing).
 * ret: 1 subscribed now, 0 it was already (and *out says where it stands), or as rw_delivery_subscribe(), or
 *      RW_ERR_BEHIND, RW_ERR_UNFOLLOWED (ringway.h): not subscribed; RW_ERR_UNSUPPORTED: the node has no memory for logs */
int32_t rw_attach(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes,
                  const struct rw_position *since, struct rw_attached *out);
/* A message of a topic for one connection, in its dialect; position.epoch 0: of a direct topic.
 * ret: RW_OK, RW_ERR_FULL no room now (it drains), RW_ERR_STALE */
int32_t rw_attach_send(struct rw_core *core, struct rw_slot *slot, const uint8_t *topic, uint32_t bytes,
                       struct rw_position position, const struct rw_log_entry *entry);
/* What members that lag are due, those whose output has drained. */
void rw_attach_resume(struct rw_core *core);

/* ------------------------------------------------------------------ hold.c */

/* ret: 1 held now, 0 it was already, RW_ERR_INVALID, RW_ERR_FULL, -ENOMEM */
int32_t rw_hold(struct rw_core *core, const uint8_t *topic, uint32_t bytes, const struct rw_position *since);
int32_t rw_release(struct rw_core *core, const uint8_t *topic, uint32_t bytes);
/* The log of a topic that the host holds has gone on. */
void rw_hold_due(struct rw_core *core, uint32_t topic);
/* A message of a direct topic that the host holds; without room for it it is counted. */
void rw_hold_message(struct rw_core *core, const struct rw_publication *publication);
/* A connection that hears raw messages has missed some: the host is told, or the connection ends. */
void rw_hold_lost(struct rw_core *core, struct rw_slot *slot, const struct rw_topic_message *message);
/* Tell the host, as far as the batch has room. */
void rw_hold_tell(struct rw_core *core);
int rw_hold_has_work(const struct rw_core *core);
void rw_hold_destroy(struct rw_core *core);

#endif
