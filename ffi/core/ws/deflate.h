/* permessage-deflate (RFC 7692): compressed messages in and out.
 *
 * Role: zlib ↔ messages. Up: http_response (what was agreed), ws, ws_send, publish. Down: deflate_negotiate, buffers,
 * zlib.
 *
 *   shared      one stream of the core, begun anew for each message: a connection keeps no memory for it
 *   dedicated   streams of the connection, whose windows live on from message to message (context takeover), begun at
 *   their first use
 *
 * A client that takes over from message to message needs a dedicated window here, whatever the mode: most clients do,
 * also those that were asked not to. It is made with its first compressed message, out of a budget
 * (rw_core.inflate_bytes, limits.inflate_bytes) that is apart from the one in unfinished.h: windows stay as long as
 * their connections, and would leave no room there. A window that is in use cannot be taken back. So when little is
 * left, no further handshake agrees to one; who agreed before and finds nothing left is closed with 1013, and comes
 * back without compression.
 *
 * A message compressed on its own decodes behind any other, because it refers to nothing before itself; that is what
 * lets a publish compress once for all. But it enters the window of the client and not the one of our dedicated
 * compressor, which must begin anew before its next message: RW_WS_DEFLATE_HISTORY_LOST. */
#ifndef RW_DEFLATE_H
#define RW_DEFLATE_H

#include "ws/deflate_negotiate.h"
#include "ws/ws.h"

/* rw_slot_ws.deflate_flags; the upper half is the client's window, 0: the client takes nothing over. */
enum rw_ws_deflate_flag {
    RW_WS_DEFLATE_AGREED = 1u << 0,
    RW_WS_DEFLATE_COMPRESSES = 1u << 1,
    RW_WS_DEFLATE_TAKEOVER = 1u << 2, /* our messages refer to those before */
    /* the client's window is not what our compressor thinks: begin anew with the next message */
    RW_WS_DEFLATE_HISTORY_LOST = 1u << 3,
};
#define RW_WS_DEFLATE_RECEIVE_SHIFT 4u

#define RW_DEFLATE_HEADER_BYTES_MAX (RW_DEFLATE_ANSWER_BYTES_MAX + 32u)

/* Negotiate for `behavior` and write the header line of the answer, if any, at out[0..RW_DEFLATE_HEADER_BYTES_MAX).
 * ret: the end of what was written */
uint8_t *rw_deflate_answer(struct rw_core *core, uint32_t behavior, const uint8_t *offer, size_t bytes,
                           struct rw_deflate_terms *terms, uint8_t *out);
/* Keep what was agreed, once the slot speaks WebSocket. */
void rw_deflate_keep(struct rw_slot *slot, const struct rw_deflate_terms *terms);
/* The slot is about to be given back. */
void rw_deflate_release(struct rw_core *core, struct rw_slot *slot);
/* The core ends: its shared streams go. */
void rw_deflate_destroy(struct rw_core *core);

/* ------------------------------------------------------------------ sending */

/* Messages longer than this go out as they are. */
#define RW_DEFLATE_BYTES_MAX (UINT32_MAX / 8)

/* Is this message to be compressed for this connection? */
static inline int rw_deflate_wanted(const struct rw_core *core, const struct rw_slot *slot, uint32_t send_flags,
                                    uint64_t bytes) {
    return send_flags & RW_SEND_COMPRESS && rw_ws_of(slot)->deflate_flags & RW_WS_DEFLATE_COMPRESSES && bytes > 0 &&
           bytes <= RW_DEFLATE_BYTES_MAX && bytes >= core->behaviors[slot->behavior].deflate_min_bytes;
}

/* The window that a message on its own is compressed with: what the client inflates with, or less where that makes no
 * difference, so that most messages are the same for all clients. */
uint32_t rw_deflate_window(uint32_t client_window, uint64_t bytes);
/* Compress a message on its own, into a new buffer that the caller releases.
 * ret: bytes there, >= 1; -1: memory is short, or zlib would not: send it as it is */
int64_t rw_deflate_alone(struct rw_core *core, uint32_t window, const uint8_t *data, uint64_t bytes, rw_buffer *out);

enum rw_deflate_part { RW_DEFLATE_WHOLE, RW_DEFLATE_FIRST, RW_DEFLATE_MIDDLE, RW_DEFLATE_LAST };
/* Compress a message, or a fragment of one, with the connection's own window (RW_WS_DEFLATE_TAKEOVER). What comes out
 * must be sent, in order; else RW_WS_DEFLATE_HISTORY_LOST must be set.
 * ret: as above, but fragments may be empty; -1 before the first byte of a message leaves everything as it was */
int64_t rw_deflate_own(struct rw_core *core, struct rw_slot *slot, enum rw_deflate_part part, const uint8_t *data,
                       uint64_t bytes, rw_buffer *out);

/* ------------------------------------------------------------------ receiving */

enum rw_inflate_result {
    RW_INFLATE_OK = 0,
    RW_INFLATE_TOO_BIG = 1,
    RW_INFLATE_CORRUPT = 2,
    RW_INFLATE_NO_MEMORY = 3,
    RW_INFLATE_NO_WINDOW = 4, /* it needs one, and the budget is spent */
};

struct rw_inflated {
    rw_buffer buffer; /* RW_BUFFER_NONE: the message lies at the place given */
    size_t bytes;
};

/* Inflate one message that is complete.
 * in:  data[0..bytes): its payload as it came; place[0..place_bytes): where it goes when it is no longer than that
 *      limit: inflating ends with TOO_BIG as soon as there is more
 * out: *out, written only with OK; the buffer is the caller's */
enum rw_inflate_result rw_deflate_inflate(struct rw_core *core, struct rw_slot *slot, const uint8_t *data, size_t bytes,
                                          uint8_t *place, size_t place_bytes, uint64_t limit, struct rw_inflated *out);

#endif
