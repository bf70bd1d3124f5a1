/* HTTP/1.1: a request's body on its way to the host, see http.h. */
#include <string.h>

#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/unfinished.h"
#include "connection/work.h"
#include "http1/http.h"

/* Past this much unread body it is cheaper to close than to read on for the next request. */
#define DISCARD_BYTES_MAX (1u << 20)

static void body_received(struct rw_core *core, struct rw_slot *slot) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    exchange->phase = RW_HTTP_RECEIVED;
    exchange->flags &= ~(uint32_t)RW_X_CONTINUE;
    if (exchange->flags & RW_X_COMPLETE) rw_http_next_request(core, slot);
    else rw_http_events_timer(core, slot);
}

/* The host is to be given `bytes` of the body. One that comes whole in one piece has never been unfinished.
 * ret: 0 they would go past the budget: the request has been refused */
static int hold_body(struct rw_core *core, struct rw_slot *slot, size_t bytes, int end) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    if (bytes == 0 || (end && exchange->body_received == 0)) return 1;
    if (!rw_unfinished_admits(core, exchange->body_held, bytes)) {
        uint64_t kept = slot->input ? rw_buffers_capacity(core->buffers, slot->input) : 0;
        uint64_t expected = exchange->body_held + (http->body_remaining > bytes ? http->body_remaining : bytes);
        RW_COUNT(core, refused_unfinished, 1);
        rw_http_refuse(core, slot, rw_unfinished_never_admits(core, exchange->body_held + kept, expected) ? 413 : 503);
        return 0;
    }
    exchange->body_held += bytes;
    rw_unfinished_add(core, bytes);
    return 1;
}

static size_t discard_body(struct rw_core *core, struct rw_slot *slot, size_t used, size_t data_bytes, int end) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    exchange->body_received += data_bytes;
    if (exchange->body_received > core->limits.max_body_bytes ||
        exchange->body_received - exchange->body_mark > DISCARD_BYTES_MAX) {
        rw_connection_finish(core, slot);
        return 0;
    }
    if (end) body_received(core, slot);
    return used;
}

static size_t on_sized_body(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    size_t n = len > RW_HTTP_BODY_PIECE_BYTES_MAX ? RW_HTTP_BODY_PIECE_BYTES_MAX : len;
    if (n > http->body_remaining) n = (size_t)http->body_remaining;
    int end = n == http->body_remaining;
    if (exchange->flags & RW_X_COMPLETE) {
        http->body_remaining -= n;
        return discard_body(core, slot, n, n, end);
    }
    uint8_t *payload;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_BODY, (uint32_t)n, &payload);
    if (!event) {
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    if (!hold_body(core, slot, n, end)) {
        event->type = RW_EVENT_NONE;
        return 0;
    }
    memcpy(payload, bytes, n);
    rw_work_charge_event(core, n);
    event->flags = end ? RW_BODY_END : 0;
    event->request = exchange->request;
    http->body_remaining -= n;
    exchange->body_received += n;
    exchange->body_unacked += (uint32_t)n;
    if (end) body_received(core, slot);
    return n;
}

/* Many small chunks become one event: the pieces are moved together in the payload area. */
static size_t on_chunked_body(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    struct rw_exchange *exchange = rw_exchange_of(slot);
    struct rw_slot_http *http = rw_http_of(slot);
    int discard = (exchange->flags & RW_X_COMPLETE) != 0;
    if (len > RW_HTTP_BODY_PIECE_BYTES_MAX) len = RW_HTTP_BODY_PIECE_BYTES_MAX;
    uint8_t *payload = NULL;
    if (!discard && !rw_event_batch_has_room(core, (uint32_t)len)) {
        rw_connection_mark_ready(core, slot);
        return 0;
    }
    struct rw_event *event = discard ? NULL : rw_event_add(core, slot, RW_EVENT_BODY, (uint32_t)len, &payload);
    size_t at = 0, total = 0;
    int32_t result = 0;
    while (at < len && result == 0) {
        const uint8_t *data;
        size_t data_bytes, consumed;
        result = rw_http_decode_chunked(&http->decoder, bytes + at, len - at, &data, &data_bytes, &consumed);
        if (event && data_bytes) memcpy(payload + total, data, data_bytes);
        total += data_bytes;
        at += consumed;
        if (result == 0 && consumed == 0) break;
    }
    int too_long = exchange->body_received + total > core->limits.max_body_bytes;
    if (event && result >= 0 && !too_long && !hold_body(core, slot, total, result == 1)) {
        event->type = RW_EVENT_NONE;
        return 0;
    }
    if (event) {
        int end = result == 1 && !too_long;
        event->bytes = (uint32_t)total;
        event->flags = end ? RW_BODY_END : 0;
        event->request = exchange->request;
        /* Nothing to say: only framing was consumed. A malformed body must not look like a whole one. */
        if ((total == 0 && !end) || result < 0 || too_long) event->type = RW_EVENT_NONE;
    }
    rw_work_charge(core, at / RW_WORK_BYTES); /* chunks may be small: each costs more than its bytes */
    if (event && total) rw_work_charge_event(core, 0);
    if (result < 0 || too_long) {
        rw_http_refuse(core, slot, result < 0 ? (uint32_t)-result : 413u);
        return 0;
    }
    if (discard) return discard_body(core, slot, at, total, result == 1);
    exchange->body_received += total;
    exchange->body_unacked += (uint32_t)total;
    if (result == 1) body_received(core, slot);
    return at;
}

size_t rw_http_on_body(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, size_t len) {
    return rw_exchange_of(slot)->flags & RW_X_CHUNKED_IN ? on_chunked_body(core, slot, bytes, len)
                                                         : on_sized_body(core, slot, bytes, len);
}
