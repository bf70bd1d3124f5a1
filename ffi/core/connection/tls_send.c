/* TLS, sending side, see tls.h. */
#include <errno.h>
#include <openssl/err.h>
#include <string.h>

#include "connection/tls.h"

/* ------------------------------------------------------------------ bytes */

void rw_tls_bytes_release(struct rw_core *core, struct rw_tls_bytes *bytes) {
    if (bytes->buffer) rw_buffers_release(core->buffers, bytes->buffer);
    *bytes = (struct rw_tls_bytes){0};
}

/* Room for `more` bytes behind what waits. ret: 1 or 0 */
static int reserve(struct rw_core *core, struct rw_tls_bytes *waiting, size_t more) {
    size_t needed = (size_t)waiting->bytes + more;
    if (waiting->buffer && rw_buffers_capacity(core->buffers, waiting->buffer) >= needed) return 1;
    /* Past what one send takes only small pieces come, to a peer that does not read: not a copy of it all for each of
     * them. */
    rw_buffer grown = rw_buffers_acquire(core->buffers, needed > RW_TLS_SEND_BYTES && needed < RW_TLS_WAITING_BYTES_MAX
                                                            ? RW_TLS_WAITING_BYTES_MAX
                                                            : needed);
    if (!grown) return 0;
    if (waiting->buffer) {
        memcpy(rw_buffers_data(core->buffers, grown), rw_buffers_data(core->buffers, waiting->buffer), waiting->bytes);
        rw_buffers_release(core->buffers, waiting->buffer);
    }
    waiting->buffer = grown;
    return 1;
}

/* ------------------------------------------------------------------ the BIO */

static int bio_write(BIO *bio, const char *bytes, int count) {
    struct rw_tls *tls = BIO_get_data(bio);
    struct rw_core *core = tls->listener->core;
    BIO_clear_retry_flags(bio);
    if (count <= 0 || tls->waiting.bytes + (uint32_t)count > RW_TLS_WAITING_BYTES_MAX ||
        !reserve(core, &tls->waiting, (size_t)count))
        return -1;
    memcpy(rw_buffers_data(core->buffers, tls->waiting.buffer) + tls->waiting.bytes, bytes, (size_t)count);
    tls->waiting.bytes += (uint32_t)count;
    return count;
}

static int bio_read(BIO *bio, char *out, int capacity) {
    struct rw_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (capacity <= 0) return -1;
    if (tls->in_bytes == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    uint32_t count = tls->in_bytes < (uint32_t)capacity ? tls->in_bytes : (uint32_t)capacity;
    memcpy(out, tls->in, count);
    tls->in += count;
    tls->in_bytes -= count;
    return (int)count;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

BIO_METHOD *rw_tls_bio_create(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "ringway");
    if (!method) return NULL;
    if (BIO_meth_set_write(method, bio_write) && BIO_meth_set_read(method, bio_read) &&
        BIO_meth_set_ctrl(method, bio_ctrl) && BIO_meth_set_create(method, bio_create))
        return method;
    BIO_meth_free(method);
    return NULL;
}

/* ------------------------------------------------------------------ records */

/* A place in the output queue of a slot. */
struct cursor {
    const struct iovec *iov;
    uint32_t count, at;
    size_t offset; /* within iov[at] */
};

/* The next `bytes`, contiguous: where they lie, when one segment has them all, else in `record`. */
static const uint8_t *gather(struct cursor *from, uint8_t *record, uint32_t bytes) {
    const struct iovec *here = &from->iov[from->at];
    const uint8_t *start = (const uint8_t *)here->iov_base + from->offset;
    int whole = here->iov_len - from->offset >= bytes;
    for (uint32_t done = 0; done < bytes;) {
        here = &from->iov[from->at];
        size_t n = here->iov_len - from->offset;
        if (n > bytes - done) n = bytes - done;
        if (!whole) memcpy(record + done, (const uint8_t *)here->iov_base + from->offset, n);
        done += (uint32_t)n;
        from->offset += n;
        if (from->offset == here->iov_len) {
            from->at++;
            from->offset = 0;
        }
    }
    return whole ? start : record;
}

static uint32_t records_of(uint32_t bytes) { return (bytes + RW_TLS_RECORD_BYTES - 1) / RW_TLS_RECORD_BYTES; }

/* Encrypt the first bytes of the output queue behind what waits. ret: how many, or -EPROTO */
static int32_t encrypt(struct rw_core *core, struct rw_slot *slot) {
    struct rw_tls *tls = slot->tls;
    struct iovec iov[RW_SEND_IOVECS_MAX];
    struct cursor from = {.iov = iov, .count = rw_outbox_peek(&core->outbox, slot, iov, RW_SEND_IOVECS_MAX)};
    uint32_t limit = RW_TLS_SEND_BYTES - 4 * RW_TLS_RECORD_OVERHEAD;
    uint32_t room = tls->waiting.bytes < limit / 2 ? limit - tls->waiting.bytes : limit / 2;
    size_t there = 0;
    for (uint32_t i = 0; i < from.count; i++) there += iov[i].iov_len;
    uint32_t total = there < room ? (uint32_t)there : room;
    if (total == 0) return 0;
    if (!reserve(core, &tls->waiting, total + records_of(total) * RW_TLS_RECORD_OVERHEAD)) return -EPROTO;
    for (uint32_t done = 0; done < total;) {
        uint32_t n = total - done < RW_TLS_RECORD_BYTES ? total - done : RW_TLS_RECORD_BYTES;
        const uint8_t *plain = gather(&from, core->tls->record, n);
        /* Writes to the BIO never wait, so a record goes through whole or the connection is broken. */
        if (SSL_write(tls->ssl, plain, (int)n) != (int)n) {
            ERR_clear_error();
            tls->phase = RW_TLS_FAILED;
            return -EPROTO;
        }
        done += n;
    }
    return (int32_t)total;
}

/* ------------------------------------------------------------------ interface */

int32_t rw_tls_fill(struct rw_core *core, struct rw_slot *slot, struct iovec *iov, uint32_t *plain) {
    struct rw_tls *tls = slot->tls;
    /* Encrypting has failed in a direct flush, which has nobody to tell. */
    if (tls->phase == RW_TLS_FAILED && slot->state.phase == RW_PHASE_OPEN) return -EPROTO;
    if (tls->sending.bytes == 0) {
        int32_t covers = 0;
        if (tls->phase == RW_TLS_OPEN && slot->out_bytes && !tls->notified) covers = encrypt(core, slot);
        if (covers < 0) return covers;
        /* The last bytes and the end of the stream in one packet. */
        if (slot->state.phase == RW_PHASE_FINISHING && (uint32_t)covers == slot->out_bytes)
            (void)rw_tls_end(core, slot);
        tls->sending = tls->waiting;
        tls->waiting = (struct rw_tls_bytes){0};
        tls->covers = (uint32_t)covers;
    }
    *plain = tls->covers;
    if (tls->sending.bytes == 0) return 0;
    iov->iov_base = rw_buffers_data(core->buffers, tls->sending.buffer) + tls->sending.offset;
    iov->iov_len = tls->sending.bytes;
    return 1;
}

uint32_t rw_tls_sent(struct rw_core *core, struct rw_tls *tls, uint32_t bytes) {
    assert(bytes <= tls->sending.bytes);
    tls->sending.offset += bytes;
    tls->sending.bytes -= bytes;
    if (tls->sending.bytes) return 0;
    uint32_t done = tls->covers;
    tls->covers = 0;
    rw_tls_bytes_release(core, &tls->sending);
    return done;
}

int rw_tls_end(struct rw_core *core, struct rw_slot *slot) {
    (void)core;
    struct rw_tls *tls = slot->tls;
    if (tls->phase == RW_TLS_OPEN && !tls->notified) {
        tls->notified = 1;
        ERR_clear_error();
        (void)SSL_shutdown(tls->ssl);
        ERR_clear_error();
    }
    return rw_tls_has_output(tls);
}
