/* The memory of a ring on io_uring; private to ring_uring.c (what it does) and ring_uring_setup.c (how it comes to
 * be). */
#ifndef RW_RING_URING_H
#define RW_RING_URING_H

#include <liburing.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/limits.h"
#include "ring/epoll_watcher.h"
#include "ring/ring.h"

#define RW_URING_RECV_GROUP 0u
#define RW_URING_WATCHES_MAX (RW_LISTENERS_MAX + 16u) /* every listener, the inbox, and some that are still ending */

/* WATCH_LAST_LOOK: an accept that was stopped and has ended in the kernel, while its socket is looked into once more. */
enum watch_kind { WATCH_FREE = 0, WATCH_ACCEPT, WATCH_POLL, WATCH_LAST_LOOK };

struct watch {
    uint64_t user_data; /* the caller's */
    int32_t fd;
    int32_t last_look_fd; /* our own descriptor of the socket of an accept that was stopped; -1 */
    uint32_t kind;
};

/* What a SENDMSG entry points at until the kernel has taken the entry. */
struct send_header {
    struct msghdr message;
    struct iovec iov[RW_SEND_IOVECS_MAX];
};

struct ring_uring {
    struct rw_ring ring; /* first: the ops cast back */
    struct io_uring uring;
    uint32_t setup_flags;
    int32_t has_eventfd;
    int32_t wake_fd;
    int32_t polled_fd; /* epoll set of the polled eventfds, for the watcher; -1: not needed so far */
    struct rw_epoll_watcher watcher;

    struct io_uring_buf_ring *offers;
    size_t offers_bytes;
    uint8_t *buffers;
    uint8_t *lent; /* a bit per buffer: the caller holds it */
    uint32_t buffer_count;
    uint32_t buffer_bytes;
    uint32_t offered;    /* buffers[0..offered) are in circulation */
    uint32_t borrowed;   /* of these, held by the caller */
    uint32_t unadvanced; /* added to the ring, not yet shown to the kernel */
    uint32_t starved;    /* a receive found no buffer since the last submit */
    uint32_t overflowed; /* an overflow was counted since the last submit */

    uint32_t counted_tail; /* completions before it have been looked at for buffers ... */
    uint32_t counted_held; /* ... and so many of them, not yet reaped, hold one */

    struct send_header *headers; /* [sq entries], touched as far as they are used */
    size_t headers_bytes;
    uint32_t headers_used; /* since the submission queue was last empty; not used with SQPOLL */

    int32_t interrupt_fd;     /* -1: none */
    uint32_t interrupt_armed; /* its poll is with the kernel */
    uint32_t interrupt_stale; /* and was armed for an earlier wait: when it completes, that says nothing about now */

    struct watch watches[RW_URING_WATCHES_MAX];
    uint32_t last_looks; /* so many are WATCH_LAST_LOOK */
    uint32_t watch_top;  /* watches[watch_top..] were never used: a cancel looks at few */
};

extern const struct rw_ring_ops rw_uring_ops;
/* Put buffers[offered..target) into circulation. */
void rw_uring_buffers_offer(struct ring_uring *self, uint32_t target);

#endif
