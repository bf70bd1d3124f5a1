/* HTTP/1.1: a response that is a stream of events (text/event-stream, WHATWG HTML §9.2), see http.h.
 *
 * Role: from its head to its end. Up: http_response.c, http_clock.c, delivery (messages of topics). Down:
 * topics/dialect.h, delivery/publication.h, which frames an event once for all streams.
 *
 * Ids: a stream of one topic is told the position of each message with it, in the event that all such streams share. One
 * whose events name their topic has an id that names the places of all its topics, so that a client that comes back is
 * taken on from each; it is written for each stream, in front of what they share. Places are known from the first event
 * on: a stream that breaks off while it catches up with one topic must not forget where it was in the others.
 *
 *   places  [count][hash of a name …][epoch, offset …]
 *
 * It goes on for hours, and a client that has left without a word is known only by what it does not acknowledge: so it
 * says something from time to time, and the kernel gives up who does not take that within the write timeout
 * (TCP_USER_TIMEOUT, tcp(7)). */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "connection/connection.h"
#include "connection/event_batch.h"
#include "delivery/publication.h"
#include "http1/http.h"

/* A line that begins with a colon is thrown away by whoever reads events (§9.2.6). */
static const char comment_chunk[] = "3\r\n:\n\n\r\n";
#define COMMENT_AT 3u /* where it stands in the chunk */
#define COMMENT_BYTES 3u

void rw_http_events_begin(struct rw_core *core, struct rw_slot *slot, uint32_t quiet_ms) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    const uint32_t unheard_ms = core->limits.write_timeout_ms;
    exchange->flags |= RW_X_EVENTS;
    exchange->events = (struct rw_exchange_events){.quiet_ms = quiet_ms};
    RW_GAUGE(core, event_streams, core->stats->event_streams + 1);
    /* Of a Unix socket it is refused, and not needed: its peer cannot be away. */
    (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unheard_ms, sizeof unheard_ms);
    if (quiet_ms) rw_connection_arm_timer(core, slot, core->now_ms + quiet_ms);
}

void rw_http_events_end(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_is_events(exchange)) return;
    if (exchange->events.places) rw_buffers_release(core->buffers, exchange->events.places);
    exchange->events.places = RW_BUFFER_NONE;
    RW_GAUGE(core, event_streams, core->stats->event_streams - 1);
    /* The next request of the connection hears nothing of them. */
    rw_topics_drop(core->topics, rw_core_index(core, slot), &slot->subscriptions);
}

/* ------------------------------------------------------------------ places */

struct places {
    uint32_t count;
    uint64_t *hashes;
    struct rw_sse_position *positions;
};

#define PLACES_AT 8u /* the count, and what keeps the rest in its alignment */

static uint64_t places_bytes(uint32_t count) {
    return PLACES_AT + (uint64_t)count * (sizeof(uint64_t) + sizeof(struct rw_sse_position));
}

/* ret: count 0: the stream has none */
static struct places places_of(const struct rw_core *core, const struct rw_slot *slot) {
    const rw_buffer buffer = rw_exchange_of(slot)->events.places;
    if (!buffer) return (struct places){0};
    uint8_t *at = rw_buffers_data(core->buffers, buffer);
    struct places places = {.hashes = (uint64_t *)(void *)(at + PLACES_AT)};
    memcpy(&places.count, at, sizeof places.count);
    places.positions = (struct rw_sse_position *)(void *)(places.hashes + places.count);
    return places;
}

static void note_place(struct places *places, uint64_t hash, uint64_t epoch, uint64_t offset) {
    for (uint32_t i = 0; i < places->count; i++)
        if (places->hashes[i] == hash) places->positions[i] = (struct rw_sse_position){epoch, offset};
}

/* What has been delivered of a topic to this stream: as to all its members, or less to one that lags. ret: epoch 0: a
 * direct topic, or nothing is known yet */
static struct rw_topic_cursor delivered(const struct rw_core *core, const struct rw_slot *slot, uint32_t topic) {
    const struct rw_topic_cursor *lag = rw_topics_lag(core->topics, topic, rw_core_index(core, slot));
    const struct rw_topic_log *log = rw_topics_log(core->topics, topic);
    return lag ? *lag : log ? log->cursor : (struct rw_topic_cursor){0};
}

/* Topics whose names begin with NUL are the gateway's own, such as that of joins and leaves. */
static int is_own(const uint8_t *name) { return name[0] == 0; }

/* The places of the topics that it is subscribed to, as they are by now. out: *alone: that of a stream without places.
 * ret: as places_of() */
static struct places look_up(const struct rw_core *core, const struct rw_slot *slot, struct rw_sse_position *alone) {
    struct places places = places_of(core, slot);
    uint32_t cursor = slot->subscriptions;
    uint32_t topic;
    *alone = (struct rw_sse_position){0};
    while (rw_topics_next_id_of_slot(core->topics, &cursor, &topic)) {
        const struct rw_topic_name name = rw_topics_name(core->topics, topic);
        const struct rw_topic_cursor place = delivered(core, slot, topic);
        if (!name.count || is_own(name.bytes) || !place.epoch) continue;
        *alone = (struct rw_sse_position){place.epoch, place.offset};
        note_place(&places, name.hash, place.epoch, place.offset);
    }
    return places;
}

/* ret: how many positions an id of them names: none, unless there is one to name */
static uint32_t named(const struct rw_sse_position *positions, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (positions[i].epoch) return count;
    return 0;
}

int32_t rw_http_events_places(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct wish {
        uint64_t epoch, offset;
        uint32_t name_bytes;
    } __attribute__((packed));
    if (!rw_exchange_is_events(exchange) || exchange->events.places || exchange->events.topics) return RW_ERR_STALE;
    uint32_t count = 0;
    for (uint64_t at = 0; at < bytes; count++) {
        struct wish wish;
        if (bytes - at < sizeof wish) return RW_ERR_INVALID;
        memcpy(&wish, data + at, sizeof wish);
        at += sizeof wish;
        if (wish.name_bytes == 0 || wish.name_bytes > RW_TOPIC_BYTES_MAX || bytes - at < wish.name_bytes)
            return RW_ERR_INVALID;
        at += wish.name_bytes;
    }
    if (count == 0 || count > RW_EVENT_PLACES_MAX) return RW_ERR_INVALID;
    exchange->events.places = rw_buffers_acquire(core->buffers, (size_t)places_bytes(count));
    if (!exchange->events.places) return RW_ERR_FULL;
    memcpy(rw_buffers_data(core->buffers, exchange->events.places), &count, sizeof count);
    struct places places = places_of(core, slot);
    for (uint32_t i = 0; i < count; i++) {
        struct wish wish;
        memcpy(&wish, data, sizeof wish);
        places.hashes[i] = rw_topics_hash(data + sizeof wish, wish.name_bytes);
        places.positions[i] = (struct rw_sse_position){wish.epoch, wish.offset};
        data += sizeof wish + wish.name_bytes;
    }
    return RW_OK;
}

/* ------------------------------------------------------------------ events */

static void end_for_memory(struct rw_core *core, struct rw_slot *slot) {
    rw_exchange_note_cause(rw_exchange_of(slot), RW_ABORT_NO_MEMORY);
    rw_connection_terminate(core, slot);
}

/* For the id in front of `rest` more bytes. ret: room behind it; NULL: the connection is terminated */
static uint8_t *reserve_behind_id(struct rw_core *core, struct rw_slot *slot, const struct rw_sse_position *positions,
                                  uint32_t count, uint64_t shared_bytes, uint64_t rest) {
    const int chunked = (rw_exchange_of(slot)->flags & RW_X_CHUNKED_OUT) != 0;
    uint64_t front = rw_sse_front(NULL, positions, count, shared_bytes, chunked);
    uint8_t *out =
        front + rest <= UINT32_MAX / 4 ? rw_outbox_reserve(&core->outbox, slot, (uint32_t)(front + rest)) : NULL;
    if (!out) {
        end_for_memory(core, slot);
        return NULL;
    }
    return out + rw_sse_front(out, positions, count, shared_bytes, chunked);
}

int32_t rw_http_events_say(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, uint64_t bytes) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_is_events(exchange)) return RW_ERR_STALE;
    if (bytes == 0) return RW_ERR_INVALID;
    const uint32_t tail = exchange->flags & RW_X_CHUNKED_OUT ? RW_SSE_TAIL_BYTES : 0;
    struct rw_sse_position alone;
    const struct places places = look_up(core, slot, &alone);
    const struct rw_sse_position *positions = places.count ? places.positions : &alone;
    const uint32_t count = named(positions, places.count ? places.count : 1);
    if (bytes == 1 && count == 0) return RW_OK; /* there is nothing to say */
    uint8_t *out = reserve_behind_id(core, slot, positions, count, bytes + RW_SSE_TAIL_BYTES, bytes + tail);
    if (!out) return RW_ERR_STALE;
    memcpy(out, data, (size_t)bytes);
    memcpy(out + bytes, "\r\n", tail);
    rw_connection_mark_dirty(core, slot);
    return RW_OK;
}

/* ------------------------------------------------------------------ messages of topics */

/* A stream that waits for its client gets a copy of what is small: else a slow reader would keep whole logs alive. */
#define COPY_BYTES_MAX 4096u

int rw_http_events_hears(const struct rw_slot *slot) {
    return slot->state.phase == RW_PHASE_OPEN && rw_exchange_is_events(rw_exchange_of(slot));
}

int rw_http_events_hears_raw(const struct rw_core *core, const struct rw_slot *slot) {
    (void)core, (void)slot;
    return 0;
}

uint32_t *rw_http_events_topics(struct rw_slot *slot) { return &rw_exchange_of(slot)->events.topics; }

/* ret: NULL: memory is short */
static struct rw_form *event_form(struct rw_core *core, struct rw_publication *publication, int shared) {
    const uint32_t name = shared ? RW_FORM_SSE_SHARED : RW_FORM_SSE;
    struct rw_form *form = rw_form_made(publication, name);
    if (form || rw_form_failed(publication, name)) return form;
    uint32_t head_bytes = 0;
    const uint64_t bytes =
        shared ? rw_sse_shared(NULL, &publication->message) : rw_sse_event(NULL, &publication->message, &head_bytes);
    uint8_t *out = rw_form_begin(core, publication, name, RW_PUBLISH_LOG_SSE, bytes);
    if (!out) return NULL;
    if (shared) (void)rw_sse_shared(out, &publication->message);
    else (void)rw_sse_event(out, &publication->message, &head_bytes);
    form = rw_form_end(core, publication, name, RW_PUBLISH_LOG_SSE, (uint32_t)bytes);
    form->head_bytes = head_bytes;
    return form;
}

static int fits(const struct rw_core *core, const struct rw_slot *slot, uint64_t bytes) {
    return slot->out_bytes + bytes <= core->limits.response_high_water_bytes || slot->out_bytes == 0;
}

/* As of a WebSocket (ws_send.c): only what the kernel refuses is backpressure. */
static int has_room(struct rw_core *core, struct rw_slot *slot, uint64_t bytes) {
    if (fits(core, slot, bytes)) return 1;
    rw_connection_flush_now(core, slot);
    if (slot->state.send_inflight && !fits(core, slot, bytes)) {
        rw_connection_settle_sends(core);
        rw_connection_flush_now(core, slot);
    }
    return fits(core, slot, bytes);
}

/* Without positions there is no going on from where it was: its client comes back, and knows that it was away. */
static uint32_t end_for_backpressure(struct rw_core *core, struct rw_slot *slot) {
    RW_COUNT(core, closes_backpressure, 1);
    rw_exchange_note_cause(rw_exchange_of(slot), RW_ABORT_WRITE_TIMEOUT);
    rw_connection_terminate(core, slot);
    return RW_DELIVERED_NOT;
}

/* ret: 0 the connection is terminated */
static int queue_part(struct rw_core *core, struct rw_slot *slot, struct rw_form *form, uint32_t from, uint32_t bytes) {
    int queued = 1;
    if (slot->state.send_inflight && bytes <= COPY_BYTES_MAX) {
        uint8_t *out = rw_outbox_reserve(&core->outbox, slot, bytes);
        if (out) memcpy(out, rw_buffers_data(core->buffers, form->buffer) + form->offset + from, bytes);
        else queued = 0;
    } else {
        queued = rw_form_queue(core, slot, form, from, bytes);
    }
    if (!queued) end_for_memory(core, slot);
    else rw_connection_mark_dirty(core, slot);
    return queued;
}

uint32_t rw_http_events_deliver(struct rw_core *core, struct rw_slot *slot, struct rw_publication *publication) {
    if (!rw_http_events_hears(slot)) return RW_DELIVERED_NOT;
    const struct rw_topic_message *message = &publication->message;
    struct places places = places_of(core, slot);
    struct rw_form *form = event_form(core, publication, places.count > 0);
    if (!form) {
        end_for_memory(core, slot);
        return RW_DELIVERED_NOT;
    }
    /* The id of a stream with many topics has tens of bytes for each. */
    const uint64_t most = (uint64_t)form->bytes + places.count * (RW_POSITION_TEXT_BYTES_MAX + 1u);
    if (!has_room(core, slot, most))
        return rw_publication_is_logged(publication) ? RW_DELIVERED_FULL : end_for_backpressure(core, slot);
    const uint32_t tail = rw_exchange_of(slot)->flags & RW_X_CHUNKED_OUT ? 0 : RW_SSE_TAIL_BYTES;
    uint32_t from = 0;
    if (places.count) {
        const int moves = !message->of_members;
        if (moves && message->epoch)
            note_place(&places, rw_topics_hash(message->topic, message->topic_bytes), message->epoch, message->offset);
        const uint32_t count = moves ? named(places.positions, places.count) : 0;
        if (!reserve_behind_id(core, slot, places.positions, count, form->bytes, 0)) return RW_DELIVERED_NOT;
    } else if (tail) {
        from = form->head_bytes;
    }
    if (!queue_part(core, slot, form, from, form->bytes - from - tail)) return RW_DELIVERED_NOT;
    RW_COUNT(core, event_messages_out, 1);
    return RW_DELIVERED;
}

/* ------------------------------------------------------------------ time and end */

static void say_something(struct rw_core *core, struct rw_slot *slot) {
    int chunked = (rw_exchange_of(slot)->flags & RW_X_CHUNKED_OUT) != 0;
    uint32_t bytes = chunked ? sizeof comment_chunk - 1 : COMMENT_BYTES;
    uint8_t *out = rw_outbox_reserve(&core->outbox, slot, bytes);
    if (!out) return; /* memory is short: the clock comes back */
    memcpy(out, comment_chunk + (chunked ? 0 : COMMENT_AT), bytes);
    rw_connection_mark_dirty(core, slot);
}

void rw_http_events_timer(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_is_events(exchange) || !exchange->events.quiet_ms || slot->state.phase != RW_PHASE_OPEN) return;
    uint32_t quiet = core->now_ms - slot->last_output_ms;
    uint32_t wait = exchange->events.quiet_ms;
    if (quiet < wait) {
        wait -= quiet;
    } else if (!rw_connection_has_output(slot)) {
        say_something(core, slot);
    }
    rw_connection_arm_timer(core, slot, core->now_ms + wait);
}

int rw_http_events_drain_now(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    if (!rw_exchange_is_events(exchange)) return 0;
    rw_exchange_note_cause(exchange, RW_ABORT_DRAINED);
    /* With a full batch it is not told, nor ended: the drain comes back. */
    if (!rw_http_tell_closed(core, slot)) return 0;
    /* Not on this connection: the client is to come back by a new one, which somebody else accepts. */
    exchange->flags &= ~(uint32_t)RW_X_KEEP_ALIVE;
    rw_http_end_response(core, slot);
    return 1;
}
