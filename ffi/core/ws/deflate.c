/* permessage-deflate, see deflate.h.
 *
 * Invariants: a stream that is shared is reset before each message, so nothing of one connection reaches another; the
 * history of a dedicated compressor is what the client's window holds, or RW_WS_DEFLATE_HISTORY_LOST is set; no call
 * writes past the room it is given, and inflating never goes on past the limit, however little of the input is left. */
#define ZLIB_CONST
#include "ws/deflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* zlib's default, as others take it: on a message of 1 KB a lower level saves a tenth of the time and costs a tenth in
 * size. */
#define LEVEL 6
/* A match reaches back windowBits less this much: zlib's MIN_LOOKAHEAD, deflate.h there. */
#define LOOKAHEAD 262u
#define WINDOWS (RW_DEFLATE_WINDOW_MAX - RW_DEFLATE_WINDOW_MIN + 1u)
/* What a sync flush ends with, and what is left out on the wire (RFC 7692 §7.2.1). */
#define TAIL_BYTES 4u
static const uint8_t tail[TAIL_BYTES] = {0x00, 0x00, 0xFF, 0xFF};

struct stream {
    z_stream z;
    uint8_t begun;
};

struct rw_deflate {
    struct stream deflaters[WINDOWS];
    struct stream inflater;
};

struct rw_ws_deflate {
    struct stream deflater;
    struct stream inflater;
};

/* ------------------------------------------------------------------ what was agreed */

/* What a decompressor takes: the window, and some 7 KB of zlib's state (zconf.h). */
#define INFLATER_BYTES 7168u
static uint64_t inflater_bytes(uint32_t window) { return INFLATER_BYTES + ((uint64_t)1 << window); }

/* The last eighth is for those who have agreed already and not sent anything compressed yet. */
static int may_agree_to_window(const struct rw_core *core) {
    uint64_t limit = core->limits.inflate_bytes;
    return limit == 0 || core->inflate_bytes < limit - limit / 8;
}

uint8_t *rw_deflate_answer(struct rw_core *core, uint32_t behavior, const uint8_t *offer, size_t bytes,
                           struct rw_deflate_terms *terms, uint8_t *out) {
    static const char name[] = "Sec-WebSocket-Extensions: ";
    uint8_t answer[RW_DEFLATE_ANSWER_BYTES_MAX];
    uint32_t deflate = core->behaviors[behavior].deflate;
    int may_keep_window = may_agree_to_window(core);
    uint32_t answer_bytes = rw_deflate_negotiate(deflate, offer, bytes, may_keep_window, terms, answer);
    if (!answer_bytes) {
        if (!may_keep_window && rw_deflate_negotiate(deflate, offer, bytes, 1, terms, answer))
            RW_COUNT(core, declined_inflate, 1);
        *terms = (struct rw_deflate_terms){0};
        return out;
    }
    memcpy(out, name, sizeof name - 1);
    out += sizeof name - 1;
    memcpy(out, answer, answer_bytes);
    out += answer_bytes;
    *out++ = '\r';
    *out++ = '\n';
    return out;
}

void rw_deflate_keep(struct rw_slot *slot, const struct rw_deflate_terms *terms) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    assert(slot->state.protocol == RW_WS_PROTOCOL && !ws->deflate);
    if (!terms->agreed) return;
    uint32_t flags = RW_WS_DEFLATE_AGREED;
    if (terms->compresses) flags |= RW_WS_DEFLATE_COMPRESSES;
    if (terms->compresses && terms->send_takeover) flags |= RW_WS_DEFLATE_TAKEOVER;
    ws->deflate_flags = (uint8_t)(flags | (uint32_t)terms->receive_window << RW_WS_DEFLATE_RECEIVE_SHIFT);
    ws->deflate_window = terms->send_window;
}

/* 0: the client takes nothing over. */
static uint32_t receive_window_of(const struct rw_slot *slot) {
    return (uint32_t)rw_ws_of(slot)->deflate_flags >> RW_WS_DEFLATE_RECEIVE_SHIFT;
}
/* Peers whose zlib makes 9 of 8 exist. */
static uint32_t zlib_window(uint32_t window) { return window < RW_DEFLATE_WINDOW_MIN ? RW_DEFLATE_WINDOW_MIN : window; }

/* The connection's own streams, none of them begun. ret: NULL when memory is exhausted */
static struct rw_ws_deflate *own_streams(struct rw_slot *slot) {
    if (!rw_ws_of(slot)->deflate) rw_ws_of(slot)->deflate = calloc(1, sizeof *rw_ws_of(slot)->deflate);
    return rw_ws_of(slot)->deflate;
}

static struct rw_deflate *shared_streams(struct rw_core *core) {
    if (!core->ws->deflate) core->ws->deflate = calloc(1, sizeof *core->ws->deflate);
    return core->ws->deflate;
}

void rw_deflate_release(struct rw_core *core, struct rw_slot *slot) {
    struct rw_ws_deflate *own = rw_ws_of(slot)->deflate;
    if (!own) return;
    if (own->deflater.begun) (void)deflateEnd(&own->deflater.z);
    if (own->inflater.begun) {
        uint64_t held = inflater_bytes(zlib_window(receive_window_of(slot)));
        assert(core->inflate_bytes >= held);
        core->inflate_bytes -= held;
        (void)inflateEnd(&own->inflater.z);
    }
    free(own);
    rw_ws_of(slot)->deflate = NULL;
}

void rw_deflate_destroy(struct rw_core *core) {
    struct rw_deflate *shared = core->ws->deflate;
    if (!shared) return;
    for (uint32_t i = 0; i < WINDOWS; i++) {
        if (shared->deflaters[i].begun) (void)deflateEnd(&shared->deflaters[i].z);
    }
    if (shared->inflater.begun) (void)inflateEnd(&shared->inflater.z);
    free(shared);
    core->ws->deflate = NULL;
}

/* ------------------------------------------------------------------ compressing */

/* A raw stream (negative windowBits) with an empty window. ret: 1, 0 when memory is short */
static int begin_deflater(struct stream *stream, uint32_t window, uint32_t memory) {
    if (stream->begun) return deflateReset(&stream->z) == Z_OK;
    stream->begun = deflateInit2(&stream->z, LEVEL, Z_DEFLATED, -(int)window, (int)memory, Z_DEFAULT_STRATEGY) == Z_OK;
    return stream->begun;
}

/* Past what zlib needs for bytes that do not compress, with the smallest blocks and the flush. */
static size_t bound(uint64_t bytes) { return (size_t)(bytes + bytes / 8 + bytes / 16 + 64); }

/* Everything that is in data, flushed to a byte border. ret: bytes written, -1: no room for it */
static int64_t run_deflater(struct rw_core *core, struct stream *stream, const uint8_t *data, uint64_t bytes,
                            uint8_t *out, size_t room) {
    stream->z.next_in = data;
    stream->z.avail_in = (uInt)bytes;
    stream->z.next_out = out;
    stream->z.avail_out = (uInt)room;
    RW_COUNT(core, deflates, 1);
    int result = deflate(&stream->z, Z_SYNC_FLUSH);
    if (result != Z_OK || stream->z.avail_in || !stream->z.avail_out) return -1;
    size_t written = room - stream->z.avail_out;
    assert(written > TAIL_BYTES && memcmp(out + written - TAIL_BYTES, tail, TAIL_BYTES) == 0);
    return (int64_t)written;
}

uint32_t rw_deflate_window(uint32_t client_window, uint64_t bytes) {
    uint32_t window = RW_DEFLATE_WINDOW_MIN;
    /* Large enough for every match in the message, and for all its symbols in one block: a block has at most
     * 2^(memLevel + 6) - 1. */
    while (window < client_window && (bytes + LOOKAHEAD > 1u << window || bytes >= 1u << (window - 1))) window++;
    return window;
}

int64_t rw_deflate_alone(struct rw_core *core, uint32_t window, const uint8_t *data, uint64_t bytes, rw_buffer *out) {
    assert(bytes > 0 && bytes <= RW_DEFLATE_BYTES_MAX && window >= RW_DEFLATE_WINDOW_MIN &&
           window <= RW_DEFLATE_WINDOW_MAX);
    struct rw_deflate *shared = shared_streams(core);
    if (!shared) return -1;
    struct stream *stream = &shared->deflaters[window - RW_DEFLATE_WINDOW_MIN];
    if (!begin_deflater(stream, window, window - 7)) return -1;
    rw_buffer buffer = rw_buffers_acquire(core->buffers, bound(bytes));
    if (!buffer) return -1;
    int64_t written = run_deflater(core, stream, data, bytes, rw_buffers_data(core->buffers, buffer), bound(bytes));
    if (written < 0) {
        rw_buffers_release(core->buffers, buffer);
        return -1;
    }
    *out = buffer;
    return written - TAIL_BYTES;
}

/* The connection's compressor, with a window that agrees with the client's. */
static struct stream *own_deflater(const struct rw_core *core, struct rw_slot *slot, enum rw_deflate_part part) {
    struct rw_slot_ws *ws = rw_ws_of(slot);
    struct rw_ws_deflate *own = own_streams(slot);
    if (!own) return NULL;
    struct stream *stream = &own->deflater;
    if (part == RW_DEFLATE_MIDDLE || part == RW_DEFLATE_LAST) return stream->begun ? stream : NULL;
    if (!stream->begun || ws->deflate_flags & RW_WS_DEFLATE_HISTORY_LOST) {
        /* memLevel is worth what the window is: a smaller one than was asked for needs less. */
        uint32_t memory = rw_deflate_wanted_memory(core->behaviors[slot->behavior].deflate);
        uint32_t enough = ws->deflate_window - 7u;
        if (!begin_deflater(stream, ws->deflate_window, memory < enough ? memory : enough)) return NULL;
        ws->deflate_flags &= (uint8_t)~RW_WS_DEFLATE_HISTORY_LOST;
    }
    return stream;
}

int64_t rw_deflate_own(struct rw_core *core, struct rw_slot *slot, enum rw_deflate_part part, const uint8_t *data,
                       uint64_t bytes, rw_buffer *out) {
    assert(rw_ws_of(slot)->deflate_flags & RW_WS_DEFLATE_TAKEOVER && bytes <= RW_DEFLATE_BYTES_MAX);
    struct stream *stream = own_deflater(core, slot, part);
    if (!stream) return -1;
    rw_buffer buffer = rw_buffers_acquire(core->buffers, bound(bytes));
    if (!buffer) return -1;
    uint8_t *room = rw_buffers_data(core->buffers, buffer);
    *out = buffer;
    if (bytes == 0) {
        /* zlib does not flush twice for nothing. What was flushed before is complete but for the empty block whose end
         * is left out. */
        room[0] = 0;
        return part == RW_DEFLATE_LAST || part == RW_DEFLATE_WHOLE ? 1 : 0;
    }
    int64_t written = run_deflater(core, stream, data, bytes, room, bound(bytes));
    if (written < 0) {
        rw_ws_of(slot)->deflate_flags |= RW_WS_DEFLATE_HISTORY_LOST;
        rw_buffers_release(core->buffers, buffer);
        *out = RW_BUFFER_NONE;
        return -1;
    }
    return part == RW_DEFLATE_LAST || part == RW_DEFLATE_WHOLE ? written - TAIL_BYTES : written;
}

/* ------------------------------------------------------------------ inflating */

/* Where the message goes: the place given first, then buffers that double. */
struct sink {
    struct rw_buffers *buffers;
    uint8_t *out;
    size_t room, used;
    uint64_t limit;
    rw_buffer buffer;
};

/* More room for a sink that is full. One byte past the limit is room enough to see that there is more. */
static enum rw_inflate_result grow(struct sink *sink) {
    if (sink->used > sink->limit) return RW_INFLATE_TOO_BIG;
    uint64_t wanted = (uint64_t)sink->room * 2;
    if (wanted > sink->limit + 1) wanted = sink->limit + 1;
    rw_buffer grown = rw_buffers_acquire(sink->buffers, (size_t)wanted);
    if (!grown) return RW_INFLATE_NO_MEMORY;
    uint8_t *out = rw_buffers_data(sink->buffers, grown);
    memcpy(out, sink->out, sink->used);
    if (sink->buffer) rw_buffers_release(sink->buffers, sink->buffer);
    sink->buffer = grown;
    sink->out = out;
    sink->room = (size_t)wanted;
    return RW_INFLATE_OK;
}

/* Feed all of data[0..bytes), as far as the sink takes it. */
static enum rw_inflate_result feed(struct stream *stream, const uint8_t *data, size_t bytes, int flush,
                                   struct sink *sink) {
    z_stream *z = &stream->z;
    z->next_in = data;
    z->avail_in = (uInt)bytes;
    for (;;) {
        if (sink->used == sink->room) {
            enum rw_inflate_result grown = grow(sink);
            if (grown != RW_INFLATE_OK) return grown;
        }
        size_t room = sink->room - sink->used;
        z->next_out = sink->out + sink->used;
        z->avail_out = (uInt)room;
        int result = inflate(z, flush);
        sink->used += room - z->avail_out;
        if (sink->used > sink->limit) return RW_INFLATE_TOO_BIG;
        if (result == Z_STREAM_END) {
            /* A block with BFINAL set ends a stream of zlib's, but not the message, and its window lives on (RFC 7692
             * §7.2.3.4). */
            if (inflateResetKeep(z) != Z_OK) return RW_INFLATE_CORRUPT;
            if (z->avail_in == 0) return RW_INFLATE_OK;
            continue;
        }
        if (result == Z_MEM_ERROR) return RW_INFLATE_NO_MEMORY;
        if (result != Z_OK && result != Z_BUF_ERROR) return RW_INFLATE_CORRUPT;
        if (z->avail_out) return z->avail_in ? RW_INFLATE_CORRUPT : RW_INFLATE_OK;
    }
}

/* ret: 1 the stream stands between two blocks, on a byte border: zlib.h, inflate(), data_type */
static int between_blocks(const struct stream *stream) { return (stream->z.data_type & (128 + 63)) == 128; }

static enum rw_inflate_result inflate_message(struct stream *stream, const uint8_t *data, size_t bytes,
                                              struct sink *sink) {
    /* Some peers set RSV1 on an empty message and send nothing at all for it. */
    if (bytes == 0) return RW_INFLATE_OK;
    enum rw_inflate_result result = feed(stream, data, bytes, Z_SYNC_FLUSH, sink);
    if (result != RW_INFLATE_OK) return result;
    /* Ended by a final block, without the empty one behind it: the stream stands at its beginning, and the tail would
     * belong to nothing. */
    if (stream->z.total_in == 0) return RW_INFLATE_OK;
    /* The end of the empty block that every message ends with. Stopping at the block shows a message that ends
     * elsewhere. */
    result = feed(stream, tail, TAIL_BYTES, Z_BLOCK, sink);
    if (result != RW_INFLATE_OK) return result;
    return between_blocks(stream) || stream->z.total_in == 0 ? RW_INFLATE_OK : RW_INFLATE_CORRUPT;
}

static enum rw_inflate_result begin_inflater(struct stream *stream, uint32_t window) {
    stream->begun = inflateInit2(&stream->z, -(int)window) == Z_OK;
    return stream->begun ? RW_INFLATE_OK : RW_INFLATE_NO_MEMORY;
}

/* One whose window lives on, with the first message that needs it. */
static enum rw_inflate_result own_inflater(struct rw_core *core, struct rw_slot *slot, uint32_t window,
                                           struct stream **stream) {
    if (rw_ws_of(slot)->deflate && rw_ws_of(slot)->deflate->inflater.begun) {
        *stream = &rw_ws_of(slot)->deflate->inflater;
        return RW_INFLATE_OK;
    }
    uint64_t limit = core->limits.inflate_bytes;
    if (limit && core->inflate_bytes + inflater_bytes(window) > limit) return RW_INFLATE_NO_WINDOW;
    struct rw_ws_deflate *own = own_streams(slot);
    if (!own) return RW_INFLATE_NO_MEMORY;
    *stream = &own->inflater;
    enum rw_inflate_result result = begin_inflater(*stream, window);
    if (result == RW_INFLATE_OK) core->inflate_bytes += inflater_bytes(window);
    return result;
}

/* The stream for this connection's messages; a shared one begins anew. */
static enum rw_inflate_result inflater_of(struct rw_core *core, struct rw_slot *slot, struct stream **stream) {
    uint32_t window = receive_window_of(slot);
    if (window) return own_inflater(core, slot, zlib_window(window), stream);
    struct rw_deflate *shared = shared_streams(core);
    if (!shared) return RW_INFLATE_NO_MEMORY;
    *stream = &shared->inflater;
    if (!shared->inflater.begun) return begin_inflater(*stream, RW_DEFLATE_WINDOW_MAX);
    return inflateReset(&shared->inflater.z) == Z_OK ? RW_INFLATE_OK : RW_INFLATE_NO_MEMORY;
}

enum rw_inflate_result rw_deflate_inflate(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, size_t bytes,
                                          uint8_t *place, size_t place_bytes, uint64_t limit, struct rw_inflated *out) {
    if (bytes > UINT32_MAX || limit > UINT32_MAX) return RW_INFLATE_TOO_BIG;
    struct stream *stream;
    enum rw_inflate_result result = inflater_of(core, slot, &stream);
    if (result != RW_INFLATE_OK) return result;
    struct sink sink = {.buffers = core->buffers,
                        .out = place,
                        .room = place_bytes <= limit ? place_bytes : (size_t)limit + 1,
                        .limit = limit};
    result = inflate_message(stream, data, bytes, &sink);
    if (result == RW_INFLATE_OK) {
        *out = (struct rw_inflated){.buffer = sink.buffer, .bytes = sink.used};
    } else if (sink.buffer) {
        rw_buffers_release(core->buffers, sink.buffer);
    }
    return result;
}
