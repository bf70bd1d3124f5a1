/* Connections, sending side, see connection.h. */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "connection/connection.h"
#include "connection/tls.h"

#define SEND_RETRY_MS RW_TIMER_TICK_MS
#define FLUSH_HOLD_BYTES 65536u /* a held-back pipeline is sent all the same past this */
#define DIRECT_SENDS_MAX \
    2u /* so few sends of a turn are system calls of their own; more go with the one that the turn makes anyway */
#define FLUSH_ROUNDS 16u /* sends of one direct flush, each of up to 64 KiB of ciphertext */

void rw_connection_note_backpressure(struct rw_core *core, struct rw_slot *slot) {
    unsigned waiting = slot->out_bytes > 0;
    if (slot->state.counted == waiting) return;
    slot->state.counted = waiting & 1u;
    uint64_t now = core->stats->backpressure_connections;
    RW_GAUGE(core, backpressure_connections, waiting ? now + 1 : now - 1);
}

int rw_connection_has_output(const struct rw_slot *slot) {
    return slot->out_bytes || (slot->tls && rw_tls_has_output(slot->tls));
}

/* What the next send carries, which is not all that is queued. out: iov[0..RW_SEND_IOVECS_MAX); *bytes: their sum;
 * *tried: bytes of the output queue that they stand for. ret: entries, 0: nothing to send, < 0: the connection is
 * broken */
static int32_t next_send(struct rw_core *core, struct rw_slot *slot, struct iovec *iov, uint32_t *bytes,
                         uint32_t *tried) {
    if (slot->tls) {
        int32_t count = rw_tls_fill(core, slot, iov, tried);
        if (count > 0) *bytes = (uint32_t)iov->iov_len;
        return count;
    }
    uint32_t count = rw_outbox_peek(&core->outbox, slot, iov, RW_SEND_IOVECS_MAX);
    *bytes = 0;
    for (uint32_t i = 0; i < count; i++) *bytes += (uint32_t)iov[i].iov_len;
    *tried = *bytes;
    return (int32_t)count;
}

/* The kernel took `bytes`, as they went over the wire. */
static void after_sent(struct rw_core *core, struct rw_slot *slot, uint32_t bytes) {
    uint32_t done = slot->tls ? rw_tls_sent(core, slot->tls, bytes) : bytes;
    if (done) rw_outbox_consume(&core->outbox, slot, done);
    slot->last_output_ms = core->now_ms;
    RW_COUNT(core, bytes_out, bytes);
    const struct rw_protocol *protocol = rw_protocol_of(core, slot);
    if (protocol->sent) protocol->sent(core, slot);
    if (slot->state.counted) rw_connection_note_backpressure(core, slot);
}

static void send_queued(struct rw_core *core, struct rw_slot *slot) {
    struct iovec iov[RW_SEND_IOVECS_MAX];
    uint32_t bytes, tried;
    int32_t count = next_send(core, slot, iov, &bytes, &tried);
    if (count == 0) return;
    int32_t sent = count;
    if (count > 0) {
        slot->out_unflushed = slot->out_bytes - tried;
        sent = rw_ring_send(core->ring, slot->fd, rw_user_data(RW_OP_SEND, slot->generation, rw_core_index(core, slot)),
                            iov, (uint32_t)count);
    }
    if (sent < 0) {
        rw_connection_terminate(core, slot);
        return;
    }
    slot->state.send_inflight = 1;
    slot->state.send_cancelled = 0;
    if (!slot->state.send_refused) slot->last_output_ms = core->now_ms;
    /* A send that never completes is followed by nothing else that would look at the time. */
    rw_connection_arm_timer(core, slot, core->now_ms + core->limits.write_timeout_ms);
}

static void on_drained(struct rw_core *core, struct rw_slot *slot);

/* One system call for the send alone, so that the wait behind it is for input and nothing else. ret: 1 all is sent, 0
 * the rest goes through the queue */
static int send_directly(struct rw_core *core, struct rw_slot *slot) {
    if (slot->tls || slot->state.send_refused) return 0;
    struct iovec iov[RW_SEND_IOVECS_MAX];
    uint32_t bytes, tried;
    int32_t count = next_send(core, slot, iov, &bytes, &tried);
    if (count <= 0) return 0;
    int64_t sent = rw_ring_send_now(core->ring, slot->fd, iov, (uint32_t)count);
    if (sent <= 0) return 0;
    slot->out_unflushed = slot->out_bytes - tried;
    after_sent(core, slot, (uint32_t)sent);
    if ((uint64_t)sent < bytes) {
        RW_COUNT(core, send_short, 1);
        rw_connection_note_backpressure(core, slot);
    }
    if (rw_connection_has_output(slot)) return 0;
    on_drained(core, slot);
    return 1;
}

/* ------------------------------------------------------------------ the end
 * When all is handed over, the kernel may still hold megabytes that the peer has not read, and after close(2) it
 * holds them for as long as the peer lives and answers. So a connection with unread output is not closed yet: it
 * lingers until the peer has read all of it, or has taken longer than the least rate allows, and is reset then. A
 * peer that takes nothing at all is found by the kernel (TCP_USER_TIMEOUT, tcp(7)). */

/* Bytes that the peer has not acknowledged (tcp(7)); 0 for a Unix socket, whose bytes are the peer's at once. */
static uint32_t unread_bytes(const struct rw_slot *slot) {
    int bytes = 0;
    int domain = 0;
    socklen_t size = sizeof domain;
    if (ioctl(slot->fd, SIOCOUTQ, &bytes) != 0 || bytes <= 0) return 0;
    return getsockopt(slot->fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain != AF_UNIX ? (uint32_t)bytes : 0;
}

uint32_t rw_connection_unread(const struct rw_slot *slot) {
    uint64_t bytes = (uint64_t)slot->out_bytes + unread_bytes(slot);
    return bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
}

uint32_t rw_connection_reading_ms(const struct rw_core *core, uint32_t bytes) {
    if (core->limits.min_bytes_per_second == UINT32_MAX) return RW_UNREAD_WAIT_MS_MAX;
    uint64_t wait_ms = (uint64_t)bytes * 1000 / core->limits.min_bytes_per_second;
    return wait_ms < RW_UNREAD_WAIT_MS_MAX ? (uint32_t)wait_ms : RW_UNREAD_WAIT_MS_MAX;
}

static void linger(struct rw_core *core, struct rw_slot *slot) {
    uint32_t unread = unread_bytes(slot);
    const uint32_t stall_ms = core->limits.write_timeout_ms;
    if (unread) (void)setsockopt(slot->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stall_ms, sizeof stall_ms);
    slot->state.phase = RW_PHASE_LINGERING;
    slot->last_output_ms = core->now_ms;
    slot->deadline_ms = core->now_ms + core->limits.linger_timeout_ms + rw_connection_reading_ms(core, unread);
}

void rw_connection_on_linger_timer(struct rw_core *core, struct rw_slot *slot) {
    uint32_t lingered = slot->last_output_ms + core->limits.linger_timeout_ms;
    if (rw_before(core->now_ms, lingered)) {
        rw_connection_arm_timer(core, slot, lingered);
    } else if (core->limits.min_bytes_per_second == UINT32_MAX || core->drain.active || unread_bytes(slot) == 0) {
        rw_connection_terminate(core, slot); /* a drain does not wait: the kernel goes on alone */
    } else if (rw_before(core->now_ms, slot->deadline_ms)) {
        uint32_t next = core->now_ms + core->limits.linger_timeout_ms;
        rw_connection_arm_timer(core, slot, rw_before(next, slot->deadline_ms) ? next : slot->deadline_ms);
    } else {
        RW_COUNT(core, timeouts_write, 1);
        rw_connection_reset(core, slot);
    }
}

void rw_connection_reset(struct rw_core *core, struct rw_slot *slot) {
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    if (slot->fd >= 0) (void)setsockopt(slot->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    rw_connection_terminate(core, slot);
}

/* All is sent: what waited for that happens now. */
static void on_drained(struct rw_core *core, struct rw_slot *slot) {
    switch ((enum rw_phase)slot->state.phase) {
        case RW_PHASE_OPEN:
            rw_protocol_of(core, slot)->drained(core, slot);
            if (slot->state.lagging) rw_connection_mark_resumed(core, slot);
            break;
        case RW_PHASE_FINISHING:
            if (slot->tls && rw_tls_end(core, slot)) {
                send_queued(core, slot);
                break;
            }
            (void)shutdown(slot->fd, SHUT_WR);
            /* It reads on so that the last bytes arrive (RFC 9112 §9.6), but not for ever. */
            linger(core, slot);
            if (slot->state.peer_closed) {
                rw_connection_terminate(core, slot);
                break;
            }
            rw_connection_arm_timer(core, slot, core->now_ms + core->limits.linger_timeout_ms);
            rw_connection_update_receive(core, slot);
            break;
        case RW_PHASE_LINGERING:
        case RW_PHASE_CLOSING:
        case RW_PHASE_FREE: break;
    }
}

void rw_connection_end_now(struct rw_core *core, struct rw_slot *slot) {
    rw_connection_finish(core, slot);
    if (slot->state.phase == RW_PHASE_FINISHING && !slot->state.send_inflight && !rw_connection_has_output(slot))
        on_drained(core, slot);
}

void rw_connection_on_send(struct rw_core *core, const struct rw_completion *completion) {
    struct rw_slot *slot = rw_core_slot(core, rw_user_data_index(completion->user_data));
    assert((slot->generation & 0xFFFFFFu) == rw_user_data_generation(completion->user_data) &&
           slot->state.send_inflight);
    slot->state.send_inflight = 0;
    slot->state.send_cancelled = 0;
    int32_t result = completion->result;
    if (result < 0 && result != -EAGAIN && result != -EINTR) {
        /* -ECANCELED only follows terminate, which has set CLOSING. */
        rw_protocol_of(core, slot)->note_end(slot, RW_END_PEER_GONE);
        if (slot->state.phase != RW_PHASE_CLOSING) rw_connection_terminate(core, slot);
        return;
    }
    if (result > 0) after_sent(core, slot, (uint32_t)result);
    if (slot->state.phase == RW_PHASE_CLOSING) return;
    slot->state.send_refused = result == -EAGAIN;
    if (slot->state.send_refused) {
        /* io_uring takes the end of the peer's stream for room to send (IO_POLL_UNMASK has EPOLLRDHUP), so a send to a
         * half-closed peer that reads slowly never waits: sending again at once would spin. */
        rw_connection_note_backpressure(core, slot);
        rw_connection_arm_timer(core, slot, core->now_ms + SEND_RETRY_MS);
        return;
    }
    if (slot->out_bytes > slot->out_unflushed) {
        RW_COUNT(core, send_short, 1);
        rw_connection_note_backpressure(core, slot);
        rw_connection_arm_timer(core, slot, core->now_ms + core->limits.write_timeout_ms);
    }
    if (rw_connection_has_output(slot)) {
        rw_connection_mark_dirty(core, slot);
    } else {
        on_drained(core, slot);
    }
}

void rw_connection_settle_sends(struct rw_core *core) {
    if (core->sends_settled) return;
    core->sends_settled = 1;
    (void)rw_ring_submit(core->ring, 0);
    if (core->completion_next == core->completion_count) {
        core->completion_next = 0;
        core->completion_count = rw_ring_reap(core->ring, core->completions, RW_COMPLETIONS_PER_REAP);
    }
    for (uint32_t i = core->completion_next; i < core->completion_count; i++) {
        struct rw_completion *completion = &core->completions[i];
        /* What ends a connection is for the turn: whoever asks may be in the middle of a list that it is on. */
        if (rw_user_data_op(completion->user_data) != RW_OP_SEND || completion->result < 0) continue;
        if (rw_core_slot(core, rw_user_data_index(completion->user_data))->state.phase != RW_PHASE_OPEN) continue;
        rw_connection_on_send(core, completion);
        completion->user_data = rw_user_data(RW_OP_NONE, 0, 0);
    }
}

uint64_t rw_connection_send_now(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, uint64_t len) {
    if (slot->tls) {
        rw_connection_flush_now(core, slot);
        return 0;
    }
    if (slot->state.send_inflight || slot->state.phase == RW_PHASE_CLOSING) return 0;
    struct iovec iov[RW_SEND_IOVECS_MAX];
    uint32_t queued = slot->out_bytes;
    uint32_t count = rw_outbox_peek(&core->outbox, slot, iov, RW_SEND_IOVECS_MAX - 1);
    uint32_t peeked = 0;
    for (uint32_t i = 0; i < count; i++) peeked += (uint32_t)iov[i].iov_len;
    if (peeked < queued) { /* more pieces than one send has room for */
        rw_connection_flush_now(core, slot);
        return 0;
    }
    iov[count] = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = (size_t)len};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count + 1};
    ssize_t sent = sendmsg(slot->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    uint64_t taken = sent > 0 ? (uint64_t)sent : 0;
    uint64_t direct = taken > queued ? taken - queued : 0;
    if (taken) after_sent(core, slot, (uint32_t)(taken - direct));
    if (direct) RW_COUNT(core, bytes_out, direct);
    slot->out_unflushed = 0;
    rw_connection_note_backpressure(core, slot);
    return direct;
}

void rw_connection_flush_now(struct rw_core *core, struct rw_slot *slot) {
    if (slot->state.send_inflight || slot->out_bytes == 0 || slot->state.phase == RW_PHASE_CLOSING) return;
    int refused = 0;
    /* One round for what is plain; as much of what is encrypted as comes in several pieces. */
    for (uint32_t round = 0; round < FLUSH_ROUNDS && rw_connection_has_output(slot) && !refused; round++) {
        struct iovec iov[RW_SEND_IOVECS_MAX];
        uint32_t bytes, tried;
        int32_t count = next_send(core, slot, iov, &bytes, &tried);
        if (count == 0) break;
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
        ssize_t sent = count < 0 ? -1 : sendmsg(slot->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        /* An error shows again at the next send through the ring, which ends the connection. */
        if (sent > 0) after_sent(core, slot, (uint32_t)sent);
        refused = sent < 0 || (uint32_t)sent < bytes;
        if (!slot->tls) break;
    }
    slot->out_unflushed = refused ? 0 : slot->out_bytes;
    if (refused) rw_connection_note_backpressure(core, slot);
}

void rw_connection_flush_dirty(struct rw_core *core) {
    uint32_t kept = 0;
    int are_few = core->dirty.count <= DIRECT_SENDS_MAX;
    for (uint32_t i = 0; i < core->dirty.count; i++) {
        uint32_t index = core->dirty.items[i];
        struct rw_slot *slot = rw_core_slot(core, index);
        int pipelined = slot->state.ready && slot->state.phase == RW_PHASE_OPEN && slot->input_bytes &&
                        rw_protocol_of(core, slot)->gathers_output;
        /* A busy worker comes to the next request later than this client should get its answer. */
        if (pipelined && !core->busy && !slot->state.peer_closed && slot->out_bytes < FLUSH_HOLD_BYTES) {
            core->dirty.items[kept++] = index;
            continue;
        }
        slot->state.dirty = 0;
        if (slot->state.phase == RW_PHASE_CLOSING || slot->state.phase == RW_PHASE_FREE) continue;
        if (slot->state.send_inflight) {
            /* The kernel has not taken the last send: its completion marks the slot dirty again. */
            rw_connection_arm_timer(core, slot, slot->last_output_ms + core->limits.write_timeout_ms);
            rw_connection_note_backpressure(core, slot);
        } else if (rw_connection_has_output(slot)) {
            if (!are_few || !send_directly(core, slot)) send_queued(core, slot);
        } else {
            on_drained(core, slot);
        }
    }
    core->dirty.count = kept;
}
