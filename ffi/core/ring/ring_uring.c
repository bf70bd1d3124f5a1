/* The ring on io_uring(7).
 *
 * Role: every operation of ring.h as one submission entry; completions are copied out of the completion queue.
 * Up: connection, listener, core, through struct rw_ring_ops; made by ring_uring_setup. Down: the kernel, through
 * liburing.
 *
 * Invariants:
 *  - one thread creates, drives and destroys the ring (IORING_SETUP_SINGLE_ISSUER).
 *  - user_data of receive and send goes to the kernel as it is. Accepts and polls go through the watch table, because
 *    the ring must know their descriptor when they complete; their kernel-side user_data lie in the reserved top range,
 *    and so do cancels, which complete towards nobody.
 *  - an empty turn costs no system call: with nothing to submit and IORING_SQ_TASKRUN clear, submit returns at once.
 *  - the eventfd is quiet (IORING_CQ_EVENTFD_DISABLED) except between sleep and wake.
 *
 * Receive buffers. The kernel takes them from a provided-buffer ring, first in first out: whatever is offered is cycled
 * through, also by a single busy connection, so that all of it becomes resident and falls out of the caches. Therefore
 * a few are offered at first, and the number is doubled, up to the configured one, each time a receive found none
 * (ENOBUFS).
 *
 * Polled eventfds. A write to an eventfd may not signal another one in the same breath (the kernel's guard against
 * recursion): with DEFER_TASKRUN the ring's eventfd would follow a grace period later, 10 ms to 1 s as measured. So
 * while we sleep, a watcher thread looks at the polled ones too. It costs nothing while they are quiet: it stays in
 * poll(2) from one sleep to the next.
 *
 * A kernel fault to know of (seen on 6.18, Unix sockets only, not TCP): when more than 32 buffers full and the end
 * of stream are already there, the multishot receive gives the bytes and never the end. A Unix socket's default
 * send buffer (208 KiB) is below 32 * 8 KiB; with smaller receive buffers the idle deadline is what ends such a
 * connection. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "ring/epoll_watcher.h"
#include "ring/ring_uring.h"
#include "ringway.h"

/* Kernels since 6.13 run at most this many deferred completions for one io_uring_enter(2); see
 * uring_run_task_work(). */
#define TASK_WORK_BATCH 20u
#define TURN_COMPLETIONS 512u /* a turn gathers about this many, then the core has its say */
#define SQ_FULL_ATTEMPTS 100u
#define USER_DATA_CANCEL UINT64_MAX
#define USER_DATA_WATCH (UINT64_MAX - RW_URING_WATCHES_MAX) /* + index of the watch */
#define USER_DATA_INTERRUPT (USER_DATA_WATCH - 1u)

static struct ring_uring *uring_of(struct rw_ring *ring) { return (struct ring_uring *)ring; }

static uint32_t sq_flags(const struct ring_uring *self) {
    return __atomic_load_n(self->uring.sq.kflags, __ATOMIC_ACQUIRE);
}

/* ---------------------------------------------------------------- receive buffers */

static uint8_t *buffer_at(const struct ring_uring *self, uint32_t id) {
    return self->buffers + (size_t)id * self->buffer_bytes;
}

static void buffer_offer(struct ring_uring *self, uint32_t id) {
    io_uring_buf_ring_add(self->offers, buffer_at(self, id), self->buffer_bytes, (unsigned short)id,
                          (int)(self->buffer_count - 1), (int)self->unadvanced);
    self->unadvanced += 1;
}

static void buffers_publish(struct ring_uring *self) {
    if (self->starved)
        rw_uring_buffers_offer(self, self->offered * 2 < self->buffer_count ? self->offered * 2 : self->buffer_count);
    self->starved = 0;
    if (self->unadvanced == 0) return;
    io_uring_buf_ring_advance(self->offers, (int)self->unadvanced);
    self->unadvanced = 0;
}

void rw_uring_buffers_offer(struct ring_uring *self, uint32_t target) {
    while (self->offered < target) buffer_offer(self, self->offered++);
}

static void uring_buffer_return(struct rw_ring *ring, uint32_t id) {
    struct ring_uring *self = uring_of(ring);
    assert(id < self->offered);
    assert(self->lent[id / 8] & (1u << (id % 8)));
    self->lent[id / 8] &= (uint8_t)~(1u << (id % 8));
    self->borrowed -= 1;
    buffer_offer(self, id);
}

/* ---------------------------------------------------------------- submission */

/* A turn must not end with work left in the kernel just because one enter(2) runs TASK_WORK_BATCH items: go on while it
 * says there is more, but stop before the receive buffers run out; what is left waits a turn, which is cheaper than
 * ENOBUFS and a re-arm each. */
static void uring_run_task_work(struct ring_uring *self) {
    while (sq_flags(self) & IORING_SQ_TASKRUN) {
        if (io_uring_cq_ready(&self->uring) >= TURN_COMPLETIONS) return;
        uint32_t tail = io_uring_smp_load_acquire(self->uring.cq.ktail);
        for (; self->counted_tail != tail; self->counted_tail++) {
            const struct io_uring_cqe *cqe = &self->uring.cq.cqes[self->counted_tail & self->uring.cq.ring_mask];
            if (cqe->flags & IORING_CQE_F_BUFFER) self->counted_held += 1;
        }
        if (self->borrowed + self->counted_held + TASK_WORK_BATCH > self->offered) return;
        if (io_uring_get_events(&self->uring) < 0) return;
        /* The flag can outlive the work: the kernel queues an item, then sets it, and we may have run the item in
         * between. */
        if (io_uring_smp_load_acquire(self->uring.cq.ktail) == tail) return;
    }
}

static int overflow_seen(struct ring_uring *self) {
    if (!(sq_flags(self) & IORING_SQ_CQ_OVERFLOW)) return 0;
    if (!self->overflowed) self->ring.counts.cq_overflows += 1; /* once a turn */
    self->overflowed = 1;
    return 1;
}

/* Results of enter(2) that lose nothing: entries stay queued, completions stay kept, and the next turn goes on. */
static int32_t enter_result(int result) {
    switch (result) {
        case -EINTR:  /* a signal */
        case -ETIME:  /* the wait is over */
        case -EAGAIN: /* no memory for a request just now */
        case -EBUSY: /* completions overflowed: reap first */ return RW_OK;
        default: return result < 0 ? result : RW_OK;
    }
}

static struct io_uring_sqe *uring_sqe(struct ring_uring *self);

/* One poll of the interrupting descriptor is armed for each wait, and stays armed when the wait ends otherwise. What it
 * then tells is old: the descriptor may have been dealt with, so the next wait looks again. ret: 0 when it cannot be
 * armed just now */
static int interrupt_arm(struct ring_uring *self) {
    if (self->interrupt_fd < 0) return 1;
    if (self->interrupt_armed) {
        self->interrupt_stale = 1;
        return 1;
    }
    struct io_uring_sqe *sqe = uring_sqe(self);
    if (sqe == NULL) return 0;
    io_uring_prep_poll_add(sqe, self->interrupt_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, USER_DATA_INTERRUPT);
    self->interrupt_armed = 1;
    self->interrupt_stale = 0;
    return 1;
}

static int32_t uring_submit(struct rw_ring *ring, uint32_t wait_us) {
    struct ring_uring *self = uring_of(ring);
    buffers_publish(self);
    self->overflowed = 0;
    int overflow = overflow_seen(self);

    int result = 0;
    if (wait_us > 0 && io_uring_cq_ready(&self->uring) == 0 && interrupt_arm(self)) {
        struct __kernel_timespec timeout = {.tv_sec = wait_us / 1000000u,
                                            .tv_nsec = (long long)(wait_us % 1000000u) * 1000};
        struct io_uring_cqe *cqe = NULL;
        result = io_uring_submit_and_wait_timeout(&self->uring, &cqe, 1, &timeout, NULL);
    } else if (self->setup_flags & IORING_SETUP_SQPOLL) {
        if (io_uring_sq_ready(&self->uring) > 0) result = io_uring_submit(&self->uring);
        if (result >= 0 && overflow) result = io_uring_get_events(&self->uring);
    } else if (io_uring_sq_ready(&self->uring) > 0 || overflow || (sq_flags(self) & IORING_SQ_TASKRUN)) {
        result = io_uring_submit_and_get_events(&self->uring);
    }
    uring_run_task_work(self);
    return enter_result(result);
}

/* ret: an entry; NULL when the queue is full and the kernel, asked to take from it, did not (out of memory). */
static struct io_uring_sqe *uring_sqe(struct ring_uring *self) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&self->uring);
    if (sqe != NULL) return sqe;
    buffers_publish(self);
    for (uint32_t attempt = 0; sqe == NULL && attempt < SQ_FULL_ATTEMPTS; attempt++) {
        int result = io_uring_submit(&self->uring);
        /* The polling thread takes entries on its own time; it is awake now, so this wait is short. A signal may cut it
         * off. */
        if (result >= 0 && (self->setup_flags & IORING_SETUP_SQPOLL)) io_uring_sqring_wait(&self->uring);
        sqe = io_uring_get_sqe(&self->uring);
    }
    return sqe;
}

/* ---------------------------------------------------------------- operations */

static int32_t watch_add(struct ring_uring *self, enum watch_kind kind, int32_t fd, uint64_t user_data) {
    for (uint32_t i = 0; i < RW_URING_WATCHES_MAX; i++) {
        if (self->watches[i].kind != WATCH_FREE) continue;
        self->watches[i] = (struct watch){.user_data = user_data, .fd = fd, .last_look_fd = -1, .kind = kind};
        if (i >= self->watch_top) self->watch_top = i + 1;
        return (int32_t)i;
    }
    return RW_ERR_FULL;
}

static struct watch *watch_of(struct ring_uring *self, uint64_t user_data) {
    return user_data >= USER_DATA_WATCH && user_data < USER_DATA_CANCEL ? &self->watches[user_data - USER_DATA_WATCH]
                                                                        : NULL;
}

static void watch_free(struct ring_uring *self, struct watch *watch) {
    if (watch->kind == WATCH_POLL && self->polled_fd >= 0) epoll_ctl(self->polled_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    if (watch->last_look_fd >= 0) close(watch->last_look_fd);
    watch->last_look_fd = -1;
    watch->kind = WATCH_FREE;
}

/* ret: RW_OK or a negated errno */
static int32_t polled_add(struct ring_uring *self, int32_t fd) {
    if (!(self->setup_flags & IORING_SETUP_DEFER_TASKRUN) || !self->has_eventfd) return RW_OK;
    if (self->polled_fd < 0) {
        self->polled_fd = epoll_create1(EPOLL_CLOEXEC);
        if (self->polled_fd < 0) return -errno;
        rw_epoll_watcher_init(&self->watcher, self->polled_fd, self->wake_fd);
    }
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(self->polled_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : RW_OK;
}

static int32_t uring_accept_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_uring *self = uring_of(ring);
    int32_t index = watch_add(self, WATCH_ACCEPT, fd, user_data);
    if (index < 0) return index;
    struct io_uring_sqe *sqe = uring_sqe(self);
    if (sqe == NULL) {
        watch_free(self, &self->watches[index]);
        return -EAGAIN;
    }
    io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, USER_DATA_WATCH + (uint32_t)index);
    return RW_OK;
}

static int32_t uring_poll_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_uring *self = uring_of(ring);
    /* reap drains it, and must never wait for it */
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0 || (!(mode & O_NONBLOCK) && fcntl(fd, F_SETFL, mode | O_NONBLOCK) < 0)) return -errno;
    int32_t result = polled_add(self, fd);
    if (result < 0) return result;
    int32_t index = watch_add(self, WATCH_POLL, fd, user_data);
    if (index < 0) return index;
    struct io_uring_sqe *sqe = uring_sqe(self);
    if (sqe == NULL) {
        watch_free(self, &self->watches[index]);
        return -EAGAIN;
    }
    io_uring_prep_poll_multishot(sqe, fd, POLLIN);
    io_uring_sqe_set_data64(sqe, USER_DATA_WATCH + (uint32_t)index);
    return RW_OK;
}

static int32_t uring_recv_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_uring *self = uring_of(ring);
    assert(user_data < USER_DATA_INTERRUPT);
    struct io_uring_sqe *sqe = uring_sqe(self);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = RW_URING_RECV_GROUP;
    io_uring_sqe_set_data64(sqe, user_data);
    return RW_OK;
}

/* Memory for a SENDMSG. Without SQPOLL the kernel has copied it when enter(2) returns (IORING_FEAT_SUBMIT_STABLE), so
 * the first ones are used again and again and stay warm; a polling thread reads it later, so each entry owns one.
 * ret: NULL when a part of the queue was left over by the kernel and all are taken */
static struct send_header *send_header_take(struct ring_uring *self, const struct io_uring_sqe *sqe) {
    if (self->setup_flags & IORING_SETUP_SQPOLL) return &self->headers[sqe - self->uring.sq.sqes];
    if (io_uring_sq_ready(&self->uring) == 1) self->headers_used = 0; /* the one is this entry */
    return self->headers_used < self->uring.sq.ring_entries ? &self->headers[self->headers_used++] : NULL;
}

static int32_t uring_send(struct rw_ring *ring, int32_t fd, uint64_t user_data, const struct iovec *iov,
                          uint32_t count) {
    struct ring_uring *self = uring_of(ring);
    assert(user_data < USER_DATA_INTERRUPT);
    assert(count >= 1 && count <= RW_SEND_IOVECS_MAX);
    struct io_uring_sqe *sqe = uring_sqe(self);
    if (sqe == NULL) return -EAGAIN;
    struct send_header *header = count > 1 ? send_header_take(self, sqe) : NULL;
    if (header == NULL) {
        /* one part, or no header left: a send may be short, so the first part alone is right too */
        io_uring_prep_send(sqe, fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
    } else {
        memcpy(header->iov, iov, count * sizeof *iov);
        header->message = (struct msghdr){.msg_iov = header->iov, .msg_iovlen = count};
        io_uring_prep_sendmsg(sqe, fd, &header->message, MSG_NOSIGNAL);
    }
    io_uring_sqe_set_data64(sqe, user_data);
    return RW_OK;
}

static int32_t uring_interrupt_by(struct rw_ring *ring, int32_t fd) {
    struct ring_uring *self = uring_of(ring);
    assert(self->interrupt_fd < 0);
    self->interrupt_fd = fd;
    return RW_OK;
}

/* Entries name descriptors by number until the kernel has taken them: after this they may be closed. */
static void submit_at_once(struct ring_uring *self) {
    buffers_publish(self);
    for (uint32_t attempt = 0; io_uring_sq_ready(&self->uring) > 0 && attempt < SQ_FULL_ATTEMPTS; attempt++) {
        /* The polling thread takes them on its own time, but it is awake now. */
        if (attempt) (void)poll(NULL, 0, 1);
        (void)io_uring_submit(&self->uring);
    }
}

static int32_t uring_cancel(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_uring *self = uring_of(ring);
    uint64_t target = user_data;
    for (uint32_t i = 0; i < self->watch_top; i++) {
        const struct watch *watch = &self->watches[i];
        if (watch->kind != WATCH_FREE && watch->fd == fd && watch->user_data == user_data) target = USER_DATA_WATCH + i;
    }
    struct io_uring_sqe *sqe = uring_sqe(self);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_cancel64(sqe, target, 0);
    /* Success is told by the operation itself; ENOENT and EALREADY mean that its own last completion is under way: reap
     * drops them. */
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, USER_DATA_CANCEL);
    struct watch *watch = watch_of(self, target);
    if (watch != NULL && watch->kind == WATCH_ACCEPT) submit_at_once(self);
    return RW_OK;
}

/* The kernel wakes one of those that wait in an accept of io_uring (EPOLLEXCLUSIVE), and the first that came; when its
 * accept is cancelled before it has taken the connection, nobody else is woken in its place. So the queue is looked
 * into after the accept has left it. */
static int32_t uring_accept_stop(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_uring *self = uring_of(ring);
    for (uint32_t i = 0; i < self->watch_top; i++) {
        struct watch *watch = &self->watches[i];
        if (watch->kind == WATCH_ACCEPT && watch->fd == fd && watch->user_data == user_data && watch->last_look_fd < 0)
            watch->last_look_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    }
    return uring_cancel(ring, fd, user_data);
}

/* close(2), not IORING_OP_CLOSE: the descriptor is free at once (which is what EMFILE waits for), and a full queue
 * cannot delay it. Batched entries would save under a tenth of what closing a TCP socket costs (6.7 µs against 6.2
 * µs). */
static void uring_close(struct rw_ring *ring, int32_t fd) {
    (void)ring;
    close(fd);
}

/* ---------------------------------------------------------------- completions */

/* ret: 1 report it, 0 it was nothing. The counter is drained before the report, so that every later write makes another
 * completion. */
static int watch_complete(struct ring_uring *self, struct watch *watch, const struct io_uring_cqe *cqe,
                          struct rw_completion *out) {
    int32_t more = (cqe->flags & IORING_CQE_F_MORE) != 0;
    int report = 1;
    if (watch->kind == WATCH_POLL && cqe->res > 0) {
        uint64_t count;
        ssize_t got = read(watch->fd, &count, sizeof count);
        report = got > 0 || !more; /* two writes may make two completions, of which the first drained both */
    }
    *out = (struct rw_completion){
        .user_data = watch->user_data, .result = cqe->res, .flags = more ? RW_COMPLETION_MORE : 0};
    if (more) return report;
    if (watch->last_look_fd >= 0 && cqe->res == -ECANCELED) {
        watch->kind = WATCH_LAST_LOOK;
        self->last_looks += 1;
        return 0; /* it ends when nothing is left, see last_look() */
    }
    watch_free(self, watch);
    return report;
}

/* ret: completions */
static uint32_t last_look(struct ring_uring *self, struct watch *watch, struct rw_completion *out, uint32_t capacity) {
    uint32_t count = 0;
    while (count < capacity) {
        int fd = accept4(watch->last_look_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)) continue;
        out[count] = (struct rw_completion){.user_data = watch->user_data,
                                            .result = fd < 0 ? -ECANCELED : fd,
                                            .flags = fd < 0 ? 0 : RW_COMPLETION_MORE};
        count += 1;
        if (fd >= 0) continue;
        self->last_looks -= 1;
        watch_free(self, watch);
        break;
    }
    return count;
}

static void recv_complete(struct ring_uring *self, const struct io_uring_cqe *cqe, uint32_t position,
                          struct rw_completion *out) {
    uint32_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    assert(id < self->offered);
    if ((int32_t)(self->counted_tail - position) > 0) self->counted_held -= 1;
    if (cqe->res <= 0) { /* taken and not filled: nobody else will give it back */
        buffer_offer(self, id);
        return;
    }
    self->borrowed += 1;
    self->lent[id / 8] |= (uint8_t)(1u << (id % 8));
    out->flags |= RW_COMPLETION_BUFFER;
    out->data = buffer_at(self, id);
    out->buffer_id = id;
}

/* ret: 1 *out is to be reported, 0 it concerns the ring alone */
static int uring_complete(struct ring_uring *self, const struct io_uring_cqe *cqe, uint32_t position,
                          struct rw_completion *out) {
    if (cqe->user_data == USER_DATA_CANCEL) return 0;
    if (cqe->user_data == USER_DATA_INTERRUPT) {
        self->interrupt_armed = 0;
        if (!self->interrupt_stale) self->ring.interrupted = 1;
        return 0;
    }
    struct watch *watch = watch_of(self, cqe->user_data);
    if (watch != NULL) return watch_complete(self, watch, cqe, out);
    *out = (struct rw_completion){.user_data = cqe->user_data,
                                  .result = cqe->res,
                                  .flags = cqe->flags & IORING_CQE_F_MORE ? RW_COMPLETION_MORE : 0};
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        recv_complete(self, cqe, position, out);
    } else if (cqe->res == -ENOBUFS) {
        self->ring.counts.no_buffers += 1;
        self->starved = 1;
    }
    return 1;
}

static uint32_t uring_reap(struct rw_ring *ring, struct rw_completion *out, uint32_t capacity) {
    struct ring_uring *self = uring_of(ring);
    uint32_t count = 0;
    while (count < capacity) {
        uint32_t head = *self->uring.cq.khead;
        uint32_t tail = io_uring_smp_load_acquire(self->uring.cq.ktail);
        if (head == tail) {
            /* Overflowed completions wait in the kernel until there is room, which there is now (io_uring_setup(2),
             * NODROP). */
            if (!overflow_seen(self)) break;
            if (io_uring_get_events(&self->uring) < 0 || io_uring_cq_ready(&self->uring) == 0) break;
            continue;
        }
        uint32_t start = head;
        for (; head != tail && count < capacity; head++) {
            const struct io_uring_cqe *cqe = &self->uring.cq.cqes[head & self->uring.cq.ring_mask];
            if (uring_complete(self, cqe, head, &out[count])) count += 1;
        }
        if ((int32_t)(self->counted_tail - head) < 0) self->counted_tail = head;
        io_uring_cq_advance(&self->uring, head - start);
    }
    for (uint32_t i = 0; self->last_looks > 0 && i < self->watch_top; i++) {
        if (self->watches[i].kind == WATCH_LAST_LOOK)
            count += last_look(self, &self->watches[i], out + count, capacity - count);
    }
    return count;
}

/* ---------------------------------------------------------------- sleep */

static void uring_wake(struct rw_ring *ring) {
    struct ring_uring *self = uring_of(ring);
    if (self->has_eventfd) io_uring_cq_eventfd_toggle(&self->uring, false);
    if (self->polled_fd >= 0) rw_epoll_watcher_disarm(&self->watcher);
}

static int32_t uring_sleep(struct rw_ring *ring) {
    struct ring_uring *self = uring_of(ring);
    assert(self->has_eventfd);
    io_uring_cq_eventfd_toggle(&self->uring, true);
    /* The kernel queues work, then looks whether the eventfd is on; here it is turned on, then work is looked for. With
     * a full barrier on both sides one of the two sees the other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uring_submit(ring, 0);
    /* IORING_SQ_TASKRUN may be set for nothing, see uring_run_task_work(); work that came after the eventfd was on has
     * written to it. */
    if (io_uring_cq_ready(&self->uring) == 0 && self->last_looks == 0 && !(sq_flags(self) & IORING_SQ_CQ_OVERFLOW) &&
        (self->polled_fd < 0 || rw_epoll_watcher_arm(&self->watcher) == RW_OK)) {
        return 0;
    }
    uring_wake(ring);
    return 1; /* there is something, or no thread to be had: stay awake rather than deaf */
}

/* ---------------------------------------------------------------- destruction */

/* Completions that nobody will reap: a descriptor that was accepted must not stay open. ret: how many there were */
static uint32_t drain(struct ring_uring *self) {
    struct rw_completion completion;
    uint32_t count = 0;
    uint32_t head, tail = io_uring_smp_load_acquire(self->uring.cq.ktail);
    for (head = *self->uring.cq.khead; head != tail; head++, count++) {
        const struct io_uring_cqe *cqe = &self->uring.cq.cqes[head & self->uring.cq.ring_mask];
        struct watch *watch = watch_of(self, cqe->user_data);
        if (watch == NULL) continue;
        if (watch->kind == WATCH_ACCEPT && cqe->res >= 0) close(cqe->res);
        watch_complete(self, watch, cqe, &completion);
    }
    io_uring_cq_advance(&self->uring, count);
    return count;
}

static void uring_destroy(struct rw_ring *ring) {
    struct ring_uring *self = uring_of(ring);
    if (self->polled_fd >= 0) rw_epoll_watcher_destroy(&self->watcher);
    /* terminate → join: after this the kernel writes to no receive buffer and reads no send buffer any more */
    struct io_uring_sync_cancel_reg all = {
        .fd = -1, .flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL, .timeout = {.tv_sec = 1}};
    io_uring_register_sync_cancel(&self->uring, &all);
    while (drain(self) > 0 || (sq_flags(self) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
        if (io_uring_get_events(&self->uring) < 0) break;
    }
    for (uint32_t i = 0; i < self->watch_top; i++) {
        if (self->watches[i].last_look_fd >= 0) close(self->watches[i].last_look_fd);
    }
    io_uring_queue_exit(&self->uring);
    if (self->polled_fd >= 0) close(self->polled_fd);
    if (self->offers != NULL) munmap(self->offers, self->offers_bytes);
    if (self->buffers != NULL) munmap(self->buffers, (size_t)self->buffer_count * self->buffer_bytes);
    if (self->headers != NULL) munmap(self->headers, self->headers_bytes);
    free(self->lent);
    free(self);
}

const struct rw_ring_ops rw_uring_ops = {
    .name = "io_uring",
    .backend = RW_BACKEND_IO_URING,
    .destroy = uring_destroy,
    .accept_start = uring_accept_start,
    .recv_start = uring_recv_start,
    .poll_start = uring_poll_start,
    .send = uring_send,
    .cancel = uring_cancel,
    .accept_stop = uring_accept_stop,
    .close = uring_close,
    .buffer_return = uring_buffer_return,
    .submit = uring_submit,
    .interrupt_by = uring_interrupt_by,
    .reap = uring_reap,
    .sleep = uring_sleep,
    .wake = uring_wake,
};
