/* Forms of a message, see publication.h. */
#include "delivery/publication.h"

#include "delivery/delivery.h"

#define LOG_BYTES 16384u

/* ------------------------------------------------------------------ the logs */

uint8_t *rw_form_begin(struct rw_core *core, struct rw_publication *publication, uint32_t name, enum rw_publish_log log,
                       uint64_t bytes_most) {
    struct rw_publish_tail *tail = &core->delivery->logs[log];
    struct rw_form *form = &publication->forms[name];
    publication->failed |= (uint64_t)1 << name;
    if (bytes_most > UINT32_MAX / 4) return NULL;
    *form = (struct rw_form){.buffer = RW_BUFFER_NONE};
    if (bytes_most > LOG_BYTES / 2) { /* large ones have a buffer of their own */
        form->buffer = rw_buffers_acquire(core->buffers, (size_t)bytes_most);
    } else {
        if (tail->buffer && LOG_BYTES - tail->used < bytes_most) {
            rw_buffers_release(core->buffers, tail->buffer);
            tail->buffer = RW_BUFFER_NONE;
        }
        if (!tail->buffer) {
            tail->buffer = rw_buffers_acquire(core->buffers, LOG_BYTES);
            tail->used = 0;
        }
        form->buffer = tail->buffer;
        form->offset = tail->used;
        if (form->buffer) rw_buffers_retain(core->buffers, form->buffer, 1);
    }
    return form->buffer ? rw_buffers_data(core->buffers, form->buffer) + form->offset : NULL;
}

struct rw_form *rw_form_end(struct rw_core *core, struct rw_publication *publication, uint32_t name,
                            enum rw_publish_log log, uint32_t bytes) {
    struct rw_publish_tail *tail = &core->delivery->logs[log];
    struct rw_form *form = &publication->forms[name];
    form->bytes = bytes;
    if (form->buffer == tail->buffer) tail->used += bytes;
    publication->failed &= ~((uint64_t)1 << name);
    publication->made |= (uint64_t)1 << name;
    return form;
}

void rw_publications_end_tick(struct rw_core *core) {
    for (uint32_t i = 0; i < RW_PUBLISH_LOGS; i++) {
        struct rw_publish_tail *tail = &core->delivery->logs[i];
        if (!tail->buffer || tail->used <= LOG_BYTES / 2) continue;
        rw_buffers_release(core->buffers, tail->buffer);
        tail->buffer = RW_BUFFER_NONE;
    }
}

uint32_t rw_publications_buffers(const struct rw_core *core) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < RW_PUBLISH_LOGS; i++) count += core->delivery->logs[i].buffer != RW_BUFFER_NONE;
    return count;
}

/* ------------------------------------------------------------------ the message */

const uint8_t *rw_publication_json(struct rw_core *core, struct rw_publication *publication, uint32_t *bytes) {
    if (!publication->json) {
        uint64_t needed = rw_json_message(NULL, &publication->message);
        if (needed > UINT32_MAX / 4) return NULL;
        publication->json = rw_buffers_acquire(core->buffers, (size_t)needed);
        if (!publication->json) return NULL;
        publication->json_bytes =
            (uint32_t)rw_json_message(rw_buffers_data(core->buffers, publication->json), &publication->message);
    }
    *bytes = publication->json_bytes;
    return rw_buffers_data(core->buffers, publication->json);
}

void rw_publication_end(struct rw_core *core, struct rw_publication *publication) {
    for (uint64_t rest = publication->made; rest; rest &= rest - 1) {
        const struct rw_form *form = &publication->forms[__builtin_ctzll(rest)];
        if (form->references) rw_buffers_retain(core->buffers, form->buffer, form->references);
        rw_buffers_release(core->buffers, form->buffer);
    }
    if (publication->copy) rw_buffers_release(core->buffers, publication->copy);
    if (publication->json) rw_buffers_release(core->buffers, publication->json);
}
