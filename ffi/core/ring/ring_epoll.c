/* The ring on epoll(7), for kernels and containers without io_uring.
 *
 * Role: the semantics of ring.h by readiness: receives and accepts are made in reap, sends in submit; what would block
 * waits for epoll.
 * Up: connection, listener, core, through struct rw_ring_ops. Down: the kernel, and epoll_watcher while the core
 * sleeps.
 *
 * Invariants:
 *  - level-triggered. A descriptor's registered interest may be wider than what is armed, never narrower; it is
 *    narrowed when the kernel reports something nobody waits for, so that pausing and resuming a quiet connection costs
 *    no system call.
 *  - descriptors that other processes share (listeners, eventfds) leave the epoll set as soon as nothing is armed:
 *    close(2) alone would not remove them while the open file lives elsewhere (epoll(7), "Will closing a file
 *    descriptor ...").
 *  - the completion queue holds last completions only, so the room for one per operation, made when it starts, always
 *    suffices. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/limits.h"
#include "ring/epoll_watcher.h"
#include "ring/ring.h"
#include "ringway.h"

#define EVENTS_MAX 512     /* of one epoll_wait(2) */
#define RECVS_PER_EVENT 4u /* then the next descriptor: one fast sender must not starve the others */
#define ACCEPTS_PER_EVENT 64u
#define DESCRIPTORS_FIRST 256u
#define SENDS_FIRST 64u

enum reading { READ_NONE = 0, READ_RECV, READ_ACCEPT, READ_POLL };

/* One per descriptor number, all zero when nothing is known of it. */
struct descriptor {
    uint64_t read_user_data;
    uint64_t send_user_data;
    uint32_t send;     /* index + 1 of the send in flight; 0: none */
    uint16_t interest; /* EPOLLIN | EPOLLOUT as registered; 0: not in the epoll set */
    uint8_t reading;   /* enum reading */
    uint8_t reserved;
};

enum send_state { SEND_FREE = 0, SEND_QUEUED, SEND_WAITING };

struct pending_send {
    int32_t fd;
    uint32_t state; /* enum send_state */
    uint32_t count;
    uint32_t next_free; /* index + 1 */
    struct iovec iov[RW_SEND_IOVECS_MAX];
};

struct ring_epoll {
    struct rw_ring ring; /* first: the ops cast back */
    int32_t epoll_fd;
    int32_t wake_fd;
    int32_t interrupt_fd; /* -1: none */
    uint32_t interrupt_armed;
    struct rw_epoll_watcher watcher;

    struct descriptor *descriptors; /* by number */
    uint32_t descriptor_count;

    struct pending_send *sends;
    uint32_t send_count;
    uint32_t send_free; /* index + 1 */
    uint32_t *queue;    /* sends to try at submit: index + 1, or 0 for one that was cancelled */
    uint32_t queue_count;
    uint32_t queue_capacity;

    struct rw_completion *done; /* a ring of last completions */
    uint32_t done_capacity;     /* power of two, >= operations */
    uint32_t done_head;
    uint32_t done_count;
    uint32_t operations; /* started, last completion not yet reaped */

    struct epoll_event events[EVENTS_MAX];
    uint32_t event_count;
    uint32_t event_next;

    uint8_t *buffers;
    uint32_t *free_buffers; /* a stack: the warm one goes out first */
    uint8_t *lent;          /* a bit per buffer */
    uint32_t free_count;
    uint32_t carved; /* buffers[0..carved) have been out */
    uint32_t buffer_count;
    uint32_t buffer_bytes;
};

static struct ring_epoll *epoll_of(struct rw_ring *ring) { return (struct ring_epoll *)ring; }

/* ---------------------------------------------------------------- receive buffers */

/* ret: a buffer id, or -1 */
static int32_t buffer_take(struct ring_epoll *self) {
    if (self->free_count > 0) return (int32_t)self->free_buffers[--self->free_count];
    return self->carved < self->buffer_count ? (int32_t)self->carved++ : -1;
}

static void buffer_put(struct ring_epoll *self, uint32_t id) { self->free_buffers[self->free_count++] = id; }

static void epoll_buffer_return(struct rw_ring *ring, uint32_t id) {
    struct ring_epoll *self = epoll_of(ring);
    assert(id < self->carved);
    assert(self->lent[id / 8] & (1u << (id % 8)));
    self->lent[id / 8] &= (uint8_t)~(1u << (id % 8));
    buffer_put(self, id);
}

/* ---------------------------------------------------------------- tables */

/* ret: the descriptor's entry, growing the table up to it; NULL: out of memory or not a descriptor */
static struct descriptor *descriptor_reach(struct ring_epoll *self, int32_t fd) {
    if (fd < 0) return NULL;
    uint32_t number = (uint32_t)fd;
    if (number >= self->descriptor_count) {
        uint32_t count = self->descriptor_count;
        while (count <= number) count *= 2; /* descriptors are below 2^30 (fs.nr_open) */
        struct descriptor *grown = realloc(self->descriptors, count * sizeof *grown);
        if (grown == NULL) return NULL;
        memset(grown + self->descriptor_count, 0, (count - self->descriptor_count) * sizeof *grown);
        self->descriptors = grown;
        self->descriptor_count = count;
    }
    return &self->descriptors[number];
}

static struct descriptor *descriptor_find(struct ring_epoll *self, int32_t fd) {
    return fd >= 0 && (uint32_t)fd < self->descriptor_count ? &self->descriptors[fd] : NULL;
}

/* Room for the last completion of one more operation. ret: RW_OK or -ENOMEM */
static int32_t operation_begin(struct ring_epoll *self) {
    if (self->operations == self->done_capacity) {
        uint32_t capacity = self->done_capacity * 2;
        struct rw_completion *grown = malloc(capacity * sizeof *grown);
        if (grown == NULL) return -ENOMEM;
        for (uint32_t i = 0; i < self->done_count; i++)
            grown[i] = self->done[(self->done_head + i) & (self->done_capacity - 1)];
        free(self->done);
        self->done = grown;
        self->done_capacity = capacity;
        self->done_head = 0;
    }
    self->operations += 1;
    return RW_OK;
}

static void done_push(struct ring_epoll *self, uint64_t user_data, int32_t result) {
    assert(self->done_count < self->done_capacity);
    self->done[(self->done_head + self->done_count++) & (self->done_capacity - 1)] =
        (struct rw_completion){.user_data = user_data, .result = result};
}

static uint32_t done_take(struct ring_epoll *self, struct rw_completion *out, uint32_t capacity) {
    uint32_t count = 0;
    for (; count < capacity && self->done_count > 0; count++, self->done_count--, self->operations--) {
        out[count] = self->done[self->done_head];
        self->done_head = (self->done_head + 1) & (self->done_capacity - 1);
    }
    /* stay on the first pages: the room is for every connection at once */
    if (self->done_count == 0) self->done_head = 0;
    return count;
}

/* ret: RW_OK or a negated errno (ENOSPC: fs.epoll.max_user_watches; EPERM: not pollable) */
static int32_t interest_set(struct ring_epoll *self, int32_t fd, uint32_t interest) {
    struct descriptor *descriptor = &self->descriptors[fd];
    if (descriptor->interest == interest) return RW_OK;
    int operation = interest == 0 ? EPOLL_CTL_DEL : descriptor->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    struct epoll_event event = {.events = interest, .data = {.fd = fd}};
    if (epoll_ctl(self->epoll_fd, operation, fd, &event) < 0) return -errno;
    descriptor->interest = (uint16_t)interest;
    return RW_OK;
}

/* ---------------------------------------------------------------- armed operations */

static int32_t read_start(struct ring_epoll *self, int32_t fd, uint64_t user_data, enum reading reading) {
    struct descriptor *descriptor = descriptor_reach(self, fd);
    if (descriptor == NULL) return fd < 0 ? -EBADF : -ENOMEM;
    assert(descriptor->reading == READ_NONE);
    int32_t result = operation_begin(self);
    if (result < 0) return result;
    result = interest_set(self, fd, descriptor->interest | (uint32_t)EPOLLIN);
    if (result < 0) {
        self->operations -= 1;
        return result;
    }
    descriptor->reading = (uint8_t)reading;
    descriptor->read_user_data = user_data;
    return RW_OK;
}

static int32_t epoll_accept_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    return read_start(epoll_of(ring), fd, user_data, READ_ACCEPT);
}
static int32_t epoll_recv_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    return read_start(epoll_of(ring), fd, user_data, READ_RECV);
}

static int32_t epoll_poll_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    /* reap drains it, and must never wait for it */
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0 || (!(mode & O_NONBLOCK) && fcntl(fd, F_SETFL, mode | O_NONBLOCK) < 0)) return -errno;
    return read_start(epoll_of(ring), fd, user_data, READ_POLL);
}

/* The read side is over. Shared descriptors leave the epoll set at once, see the top; sockets when they next have
 * something to say. */
static void read_stop(struct ring_epoll *self, int32_t fd) {
    struct descriptor *descriptor = &self->descriptors[fd];
    int shared = descriptor->reading != READ_RECV;
    descriptor->reading = READ_NONE;
    if (shared) interest_set(self, fd, descriptor->interest & (uint32_t)EPOLLOUT);
}

/* ---------------------------------------------------------------- sends */

static uint32_t send_take(struct ring_epoll *self) {
    if (self->send_free == 0) {
        uint32_t count = self->send_count * 2;
        struct pending_send *grown = realloc(self->sends, count * sizeof *grown);
        if (grown == NULL) return 0;
        self->sends = grown;
        for (uint32_t i = count; i > self->send_count; i--) {
            grown[i - 1].state = SEND_FREE;
            grown[i - 1].next_free = self->send_free;
            self->send_free = i;
        }
        self->send_count = count;
    }
    uint32_t index = self->send_free;
    self->send_free = self->sends[index - 1].next_free;
    return index;
}

static void send_end(struct ring_epoll *self, uint32_t index, int32_t result) {
    struct pending_send *send = &self->sends[index - 1];
    struct descriptor *descriptor = &self->descriptors[send->fd];
    done_push(self, descriptor->send_user_data, result);
    descriptor->send = 0;
    send->state = SEND_FREE;
    send->next_free = self->send_free;
    self->send_free = index;
}

static void send_try(struct ring_epoll *self, uint32_t index) {
    struct pending_send *pending = &self->sends[index - 1];
    const struct msghdr message = {.msg_iov = pending->iov, .msg_iovlen = pending->count};
    ssize_t sent;
    do {
        sent = pending->count == 1
                   ? send(pending->fd, pending->iov[0].iov_base, pending->iov[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                   : sendmsg(pending->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        send_end(self, index, sent > INT32_MAX ? INT32_MAX : (int32_t)sent);
        return;
    }
    if (errno != EAGAIN) {
        send_end(self, index, -errno);
        return;
    }
    pending->state = SEND_WAITING;
    int32_t result = interest_set(self, pending->fd, self->descriptors[pending->fd].interest | (uint32_t)EPOLLOUT);
    if (result < 0) send_end(self, index, result);
}

static void sends_flush(struct ring_epoll *self) {
    for (uint32_t i = 0; i < self->queue_count; i++) {
        if (self->queue[i] != 0) send_try(self, self->queue[i]);
    }
    self->queue_count = 0;
}

static int32_t epoll_send(struct rw_ring *ring, int32_t fd, uint64_t user_data, const struct iovec *iov,
                          uint32_t count) {
    struct ring_epoll *self = epoll_of(ring);
    assert(count >= 1 && count <= RW_SEND_IOVECS_MAX);
    if (self->queue_count == self->queue_capacity) sends_flush(self);
    struct descriptor *descriptor = descriptor_reach(self, fd);
    if (descriptor == NULL) return fd < 0 ? -EBADF : -ENOMEM;
    assert(descriptor->send == 0);
    uint32_t index = send_take(self);
    if (index == 0) return -ENOMEM;
    struct pending_send *pending = &self->sends[index - 1];
    if (operation_begin(self) < 0) {
        pending->next_free = self->send_free;
        self->send_free = index;
        return -ENOMEM;
    }
    pending->fd = fd;
    pending->state = SEND_QUEUED;
    pending->count = count;
    memcpy(pending->iov, iov, count * sizeof *iov);
    descriptor->send = index;
    descriptor->send_user_data = user_data;
    self->queue[self->queue_count++] = index;
    return RW_OK;
}

/* ---------------------------------------------------------------- cancel, close */

static int32_t epoll_cancel(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_epoll *self = epoll_of(ring);
    struct descriptor *descriptor = descriptor_find(self, fd);
    if (descriptor == NULL) return RW_OK; /* nothing of it is armed: as if it had just completed */
    if (descriptor->reading != READ_NONE && descriptor->read_user_data == user_data) {
        read_stop(self, fd);
        done_push(self, user_data, -ECANCELED);
    }
    if (descriptor->send != 0 && descriptor->send_user_data == user_data) {
        for (uint32_t i = 0; self->sends[descriptor->send - 1].state == SEND_QUEUED && i < self->queue_count; i++) {
            if (self->queue[i] == descriptor->send) self->queue[i] = 0;
        }
        send_end(self, descriptor->send, -ECANCELED);
    }
    return RW_OK;
}

static void epoll_close(struct rw_ring *ring, int32_t fd) {
    struct ring_epoll *self = epoll_of(ring);
    struct descriptor *descriptor = descriptor_find(self, fd);
    if (descriptor != NULL) {
        assert(descriptor->reading == READ_NONE && descriptor->send == 0);
        *descriptor = (struct descriptor){0}; /* the kernel forgets it with its last descriptor */
    }
    close(fd);
}

/* ---------------------------------------------------------------- submit */

static int32_t epoll_interrupt_by(struct rw_ring *ring, int32_t fd) {
    struct ring_epoll *self = epoll_of(ring);
    assert(self->interrupt_fd < 0);
    struct epoll_event event = {.events = EPOLLONESHOT, .data.fd = fd};
    if (epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) return -errno;
    self->interrupt_fd = fd;
    return RW_OK;
}

/* Armed for the wait that begins: while it is armed the kernel looks at the descriptor as it is. */
static void interrupt_arm(struct ring_epoll *self) {
    if (self->interrupt_fd < 0 || self->interrupt_armed) return;
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = self->interrupt_fd};
    self->interrupt_armed = epoll_ctl(self->epoll_fd, EPOLL_CTL_MOD, self->interrupt_fd, &event) == 0;
}

static int wait_events(struct ring_epoll *self, uint32_t wait_us) {
    const struct timespec timeout = {.tv_sec = wait_us / 1000000u, .tv_nsec = (long)(wait_us % 1000000u) * 1000};
    /* epoll_pwait2(2), by number: glibc has the function from 2.35 on, musl does not. */
    int count = (int)syscall(SYS_epoll_pwait2, self->epoll_fd, self->events, EVENTS_MAX, &timeout, NULL, 0);
    /* before Linux 5.11, and in sandboxes that do not know it */
    if (count < 0 && (errno == ENOSYS || errno == EPERM)) {
        count = epoll_wait(self->epoll_fd, self->events, EVENTS_MAX, (int)((wait_us + 999u) / 1000u));
    }
    return count;
}

static int32_t epoll_submit(struct rw_ring *ring, uint32_t wait_us) {
    struct ring_epoll *self = epoll_of(ring);
    sends_flush(self);
    if (self->event_next < self->event_count) return RW_OK; /* the last ones first */
    self->event_next = self->event_count = 0;
    if (self->done_count > 0) wait_us = 0;
    if (wait_us > 0) interrupt_arm(self);
    int count = wait_events(self, wait_us);
    if (count < 0) return errno == EINTR ? RW_OK : -errno;
    self->event_count = (uint32_t)count;
    return RW_OK;
}

/* ---------------------------------------------------------------- reap */

/* The last completion of a read-side operation, given out directly. */
static void read_end(struct ring_epoll *self, int32_t fd, int32_t result, struct rw_completion *out) {
    *out = (struct rw_completion){.user_data = self->descriptors[fd].read_user_data, .result = result};
    read_stop(self, fd);
    self->operations -= 1;
}

static uint32_t reap_recv(struct ring_epoll *self, int32_t fd, struct rw_completion *out, uint32_t capacity) {
    uint32_t count = 0;
    while (count < capacity && count < RECVS_PER_EVENT) {
        int32_t id = buffer_take(self);
        if (id < 0) {
            self->ring.counts.no_buffers += 1;
            read_end(self, fd, -ENOBUFS, &out[count]);
            return count + 1;
        }
        uint8_t *data = self->buffers + (size_t)id * self->buffer_bytes;
        ssize_t got;
        do got = recv(fd, data, self->buffer_bytes, MSG_DONTWAIT);
        while (got < 0 && errno == EINTR);
        int error = got < 0 ? errno : 0;
        if (got <= 0) {
            buffer_put(self, (uint32_t)id);
            if (error == EAGAIN) return count;
            read_end(self, fd, -error, &out[count]);
            return count + 1;
        }
        self->lent[id / 8] |= (uint8_t)(1u << (id % 8));
        out[count++] = (struct rw_completion){.user_data = self->descriptors[fd].read_user_data,
                                              .result = (int32_t)got,
                                              .flags = RW_COMPLETION_MORE | RW_COMPLETION_BUFFER,
                                              .data = data,
                                              .buffer_id = (uint32_t)id};
        /* most likely all there was; if not, the level tells again */
        if ((size_t)got < self->buffer_bytes) return count;
    }
    return count;
}

static uint32_t reap_accept(struct ring_epoll *self, int32_t fd, struct rw_completion *out, uint32_t capacity) {
    uint32_t count = 0;
    while (count < capacity && count < ACCEPTS_PER_EVENT) {
        int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0 && errno == EINTR) continue;
        if (accepted < 0 && errno == EAGAIN) return count;
        if (accepted < 0) { /* every error ends it, as with io_uring: the caller decides when to go on */
            read_end(self, fd, -errno, &out[count]);
            return count + 1;
        }
        out[count++] = (struct rw_completion){
            .user_data = self->descriptors[fd].read_user_data, .result = accepted, .flags = RW_COMPLETION_MORE};
    }
    return count;
}

static uint32_t reap_poll(struct ring_epoll *self, int32_t fd, struct rw_completion *out) {
    uint64_t value;
    if (read(fd, &value, sizeof value) < 0) {
        if (errno == EAGAIN || errno == EINTR) return 0;
        read_end(self, fd, -errno, out);
        return 1;
    }
    *out = (struct rw_completion){
        .user_data = self->descriptors[fd].read_user_data, .result = POLLIN, .flags = RW_COMPLETION_MORE};
    return 1;
}

/* An event may be older than the descriptor it names: everything below tries, and takes EAGAIN for an answer. */
static uint32_t reap_event(struct ring_epoll *self, const struct epoll_event *event, struct rw_completion *out,
                           uint32_t capacity) {
    int32_t fd = event->data.fd;
    if (fd == self->interrupt_fd) {
        self->interrupt_armed = 0;
        self->ring.interrupted = 1;
        return 0;
    }
    struct descriptor *descriptor = &self->descriptors[fd];
    if (descriptor->interest == 0) return 0;
    uint32_t both = event->events & (uint32_t)(EPOLLERR | EPOLLHUP);
    int waiting = descriptor->send != 0 && self->sends[descriptor->send - 1].state == SEND_WAITING;
    if (waiting && (both || (event->events & EPOLLOUT))) send_try(self, descriptor->send);
    waiting = descriptor->send != 0 && self->sends[descriptor->send - 1].state == SEND_WAITING;

    uint32_t wanted = (descriptor->reading != READ_NONE ? (uint32_t)EPOLLIN : 0) | (waiting ? (uint32_t)EPOLLOUT : 0);
    if ((event->events & (EPOLLIN | EPOLLOUT) & ~wanted) || (both && wanted == 0)) interest_set(self, fd, wanted);
    if (!both && !(event->events & EPOLLIN)) return 0;
    switch ((enum reading)descriptor->reading) {
        case READ_RECV: return reap_recv(self, fd, out, capacity);
        case READ_ACCEPT: return reap_accept(self, fd, out, capacity);
        case READ_POLL: return reap_poll(self, fd, out);
        case READ_NONE: break;
    }
    return 0;
}

static uint32_t epoll_reap(struct rw_ring *ring, struct rw_completion *out, uint32_t capacity) {
    struct ring_epoll *self = epoll_of(ring);
    uint32_t count = done_take(self, out, capacity);
    while (count < capacity && self->event_next < self->event_count) {
        count += reap_event(self, &self->events[self->event_next++], out + count, capacity - count);
    }
    return count + done_take(self, out + count, capacity - count);
}

/* ---------------------------------------------------------------- sleep */

static int32_t epoll_sleep(struct rw_ring *ring) {
    struct ring_epoll *self = epoll_of(ring);
    assert(self->wake_fd >= 0);
    epoll_submit(ring, 0);
    if (self->done_count > 0 || self->event_next < self->event_count) return 1;
    /* Readiness that comes between the look above and the watcher's own is level-triggered there too: it cannot be
     * missed. */
    return rw_epoll_watcher_arm(&self->watcher) < 0 ? 1 : 0; /* without a watcher: stay awake rather than deaf */
}

static void epoll_wake(struct rw_ring *ring) { rw_epoll_watcher_disarm(&epoll_of(ring)->watcher); }

/* ---------------------------------------------------------------- creation, destruction */

static void epoll_destroy(struct rw_ring *ring) {
    struct ring_epoll *self = epoll_of(ring);
    rw_epoll_watcher_destroy(&self->watcher);
    if (self->epoll_fd >= 0) close(self->epoll_fd);
    if (self->buffers != NULL) munmap(self->buffers, (size_t)self->buffer_count * self->buffer_bytes);
    free(self->free_buffers);
    free(self->lent);
    free(self->descriptors);
    free(self->sends);
    free(self->queue);
    free(self->done);
    free(self);
}

static const struct rw_ring_ops epoll_ops = {
    .name = "epoll",
    .backend = RW_BACKEND_EPOLL,
    .destroy = epoll_destroy,
    .accept_start = epoll_accept_start,
    .recv_start = epoll_recv_start,
    .poll_start = epoll_poll_start,
    .send = epoll_send,
    .cancel = epoll_cancel,
    .close = epoll_close,
    .buffer_return = epoll_buffer_return,
    .submit = epoll_submit,
    .interrupt_by = epoll_interrupt_by,
    .reap = epoll_reap,
    .sleep = epoll_sleep,
    .wake = epoll_wake,
};

static int memory_setup(struct ring_epoll *self, const struct rw_ring_config *config) {
    self->buffer_count = config->recv_buffers;
    self->buffer_bytes = config->recv_buffer_bytes;
    void *buffers = mmap(NULL, (size_t)self->buffer_count * self->buffer_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    self->buffers = buffers == MAP_FAILED ? NULL : buffers;
    self->free_buffers = calloc(self->buffer_count, sizeof *self->free_buffers);
    self->lent = calloc(1, (self->buffer_count + 7) / 8);
    self->descriptor_count = DESCRIPTORS_FIRST;
    self->descriptors = calloc(self->descriptor_count, sizeof *self->descriptors);
    self->send_count = SENDS_FIRST;
    self->sends = calloc(self->send_count, sizeof *self->sends);
    self->queue_capacity = config->entries;
    self->queue = calloc(self->queue_capacity, sizeof *self->queue);
    self->done_capacity = SENDS_FIRST;
    self->done = calloc(self->done_capacity, sizeof *self->done);
    if (self->sends != NULL) {
        for (uint32_t i = 0; i < self->send_count; i++) self->sends[i].next_free = i + 1 < self->send_count ? i + 2 : 0;
        self->send_free = 1;
    }
    return self->buffers != NULL && self->free_buffers != NULL && self->lent != NULL && self->descriptors != NULL &&
           self->sends != NULL && self->queue != NULL && self->done != NULL;
}

struct rw_ring *rw_ring_epoll_create(const struct rw_ring_config *config, char *error, size_t error_bytes) {
    assert(config->entries > 0 && config->recv_buffers > 0 && config->recv_buffers <= 32768);
    if (error_bytes > 0) error[0] = '\0';
    struct ring_epoll *self = calloc(1, sizeof *self);
    if (self == NULL) {
        snprintf(error, error_bytes, "epoll: no memory");
        return NULL;
    }
    self->ring.ops = &epoll_ops;
    self->wake_fd = config->wake_fd;
    self->interrupt_fd = -1;
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    rw_epoll_watcher_init(&self->watcher, self->epoll_fd, self->wake_fd);
    if (self->epoll_fd < 0) {
        snprintf(error, error_bytes, "epoll: epoll_create1 failed: %s; at EMFILE raise RLIMIT_NOFILE (ulimit -n)",
                 strerror(errno));
    } else if (!memory_setup(self, config)) {
        snprintf(error, error_bytes, "epoll: no memory for %u receive buffers of %u bytes", config->recv_buffers,
                 config->recv_buffer_bytes);
    } else {
        return &self->ring;
    }
    epoll_destroy(&self->ring);
    return NULL;
}
