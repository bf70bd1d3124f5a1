/* A message on its way to all who hear a topic here: framed once in each form that one of them takes.
 *
 * Role: message → frames in refcounted buffers. Up: delivery (who gets it), the protocols (what it looks like to them:
 * ws/publish.c). Down: outbox, buffers, topics/dialect.h.
 *
 * A *form* is what goes on the wire for some: the frame of a WebSocket, compressed for a window or not, raw or JSON, or
 * an event of a stream. It is written at the end of a *publish log*, a buffer; every queue gets a reference:
 *
 *   log     [frame 1][frame 2][frame 3]…
 *   queue   └─────── one segment ──────┘   frames that follow each other in the log merge, so a burst is one contiguous
 *   send
 *
 * Forms of one kind share a log, so that each kind lies in one piece. */
#ifndef RW_PUBLICATION_H
#define RW_PUBLICATION_H

#include "connection/core.h"
#include "topics/dialect.h"

/* Where the frames of a kind lie, one behind the other. */
enum rw_publish_log {
    RW_PUBLISH_LOG_RAW = 0,
    RW_PUBLISH_LOG_DEFLATED = 1,
    RW_PUBLISH_LOG_JSON = 2,
    RW_PUBLISH_LOG_SSE = 3,
    RW_PUBLISH_LOGS = 4,
};

/* Names of forms: bits of rw_publication.made. */
enum rw_form_name {
    RW_FORM_RAW = 0,
    RW_FORM_JSON = 1,
    RW_FORM_SSE = 2,            /* rw_sse_event() */
    RW_FORM_SSE_SHARED = 3,     /* rw_sse_shared() */
    RW_FORM_RAW_DEFLATED = 16,  /* + window (8..15) */
    RW_FORM_JSON_DEFLATED = 32, /* + window */
    RW_FORMS = 48,
};

struct rw_form {
    rw_buffer buffer;
    uint32_t offset, bytes;
    uint32_t head_bytes; /* of RW_FORM_SSE */
    uint32_t references; /* of queues, to be taken when all have been served */
};

struct rw_publication {
    struct rw_topic_message message; /* borrowed; message.epoch 0: of a direct topic */
    uint32_t flags;                  /* RW_SEND_TEXT, RW_SEND_COMPRESS */
    /* of the payload, once a drop has needed one, see ws/dropped.h */
    rw_buffer copy;
    rw_buffer json; /* the JSON object, once a form has needed it */
    uint32_t json_bytes;
    uint64_t made;                  /* a bit for each form that is there */
    uint64_t failed;                /* and for each that cannot be made: memory is short */
    struct rw_form forms[RW_FORMS]; /* only those that are made have values */
};

/* What became of a delivery. */
enum rw_delivered {
    RW_DELIVERED = 0,
    RW_DELIVERED_NOT = 1, /* it is closing, was ended by its policy, or has dropped it */
    /* only of logged topics: its queue has no room, and will be drained; nothing has changed */
    RW_DELIVERED_FULL = 2,
};

static inline void rw_publication_begin(struct rw_publication *publication, const struct rw_topic_message *message,
                                        uint32_t flags) {
    publication->message = *message;
    publication->flags = flags & (RW_SEND_TEXT | RW_SEND_COMPRESS);
    publication->copy = publication->json = RW_BUFFER_NONE;
    publication->made = publication->failed = 0;
}
/* Every queue that refers to a form has its reference after this. */
void rw_publication_end(struct rw_core *core, struct rw_publication *publication);

static inline int rw_publication_is_logged(const struct rw_publication *publication) {
    return publication->message.epoch != 0;
}

/* ret: the form, if it is made already; NULL: not yet, or it cannot be */
static inline struct rw_form *rw_form_made(struct rw_publication *publication, uint32_t name) {
    return publication->made >> name & 1 ? &publication->forms[name] : NULL;
}
static inline int rw_form_failed(const struct rw_publication *publication, uint32_t name) {
    return (int)(publication->failed >> name & 1);
}
/* Room for a form of at most `bytes_most`, to be filled at once. ret: NULL: memory is short, and the form has failed */
uint8_t *rw_form_begin(struct rw_core *core, struct rw_publication *publication, uint32_t name, enum rw_publish_log log,
                       uint64_t bytes_most);
/* It is filled, with so many. ret: the form */
struct rw_form *rw_form_end(struct rw_core *core, struct rw_publication *publication, uint32_t name,
                            enum rw_publish_log log, uint32_t bytes);
/* Queue bytes [from, from + bytes) of a form by reference. ret: 1 queued, 0 memory is short */
static inline int rw_form_queue(struct rw_core *core, struct rw_slot *slot, struct rw_form *form, uint32_t from,
                                uint32_t bytes) {
    int32_t appended = rw_outbox_append(&core->outbox, slot, form->buffer, form->offset + from, bytes);
    form->references += appended > 0;
    return appended >= 0;
}

/* The message as a JSON object (dialect.h), made once. out: *bytes. ret: NULL: memory is short */
const uint8_t *rw_publication_json(struct rw_core *core, struct rw_publication *publication, uint32_t *bytes);

/* The tick is over: later publications begin new logs where the present ones are nearly full. */
void rw_publications_end_tick(struct rw_core *core);
/* ret: how many buffers the logs hold between ticks */
uint32_t rw_publications_buffers(const struct rw_core *core);

#endif
