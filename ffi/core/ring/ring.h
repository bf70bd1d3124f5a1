/* The ring: one interface to submit I/O and take completions; io_uring, epoll and a simulator behind it.
 *
 * Role: socket ↔ connection. It knows descriptors and bytes, nothing of slots or protocols: `user_data` comes back as
 * given.
 * Up: connection, listener, core. Down: the kernel.
 *
 * Semantics, the same for every backend:
 *  - start_* arms an operation that completes many times; each completion has RW_COMPLETION_MORE while it stays armed.
 *    The completion without it is the last: then, and only then, the kernel and the ring have forgotten user_data.
 *  - recv completions with result > 0 borrow a buffer of the ring until rw_ring_buffer_return(); result 0 is end of
 *    stream.
 *  - send completes once; the bytes must stay valid until then; the iovec array only until the call returns.
 *    result may be short. Only one send per descriptor is in flight (the caller's duty).
 *  - cancel asks for an early end of an armed or pending operation; the operation itself still completes (usually
 *    -ECANCELED); the cancel has no completion of its own.
 *  - accept_stop is the cancel of an accept that loses nobody: with io_uring what has come by then completes before the
 *    end. The kernel may have woken this ring alone for it, though others wait at the same socket, and a bare cancel
 *    would leave it in the queue, unseen until the next connection comes. epoll has woken the others too.
 *  - a cancelled or stopped accept has met the kernel when the call returns: its descriptor may be closed, and its
 *    number used again, at once.
 *  - close is for a descriptor with nothing armed or in flight (the caller's duty).
 *  - nothing reaches the kernel before submit, except when the submission queue is full; nothing blocks but submit with
 *    wait_us > 0.
 *  - ENOBUFS (no receive buffer) ends a recv operation; the caller re-arms it when buffers came back.
 * Threads: one. */
#ifndef RW_RING_H
#define RW_RING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum rw_completion_flag {
    RW_COMPLETION_MORE = 1u << 0,   /* the operation stays armed */
    RW_COMPLETION_BUFFER = 1u << 1, /* data/buffer_id name a borrowed buffer */
};

struct rw_completion {
    uint64_t user_data;
    int32_t result; /* >= 0, or a negated errno */
    uint32_t flags;
    uint8_t *data; /* with BUFFER: result bytes; the core may write to them (unmask in place) */
    uint32_t buffer_id;
    uint32_t reserved;
};

struct rw_ring_config {
    uint32_t backend;      /* enum rw_backend */
    uint32_t entries;      /* submission entries, power of two */
    uint32_t recv_buffers; /* power of two, at most 32768 */
    uint32_t recv_buffer_bytes;
    uint32_t sqpoll;
    int32_t sqpoll_cpu;
    uint32_t sqpoll_idle_ms;
    int32_t wake_fd; /* eventfd; -1: sleep is not used */
    uint64_t sim_seed;
    uint32_t completions; /* completion entries; 0: 4 * entries. Tests make it small */
};

struct rw_ring_counts {
    uint64_t no_buffers;   /* ENOBUFS seen */
    uint64_t cq_overflows; /* turns in which the kernel had overflowed completions */
};

struct rw_ring;

/* The operations of a backend. A backend embeds struct rw_ring first. */
struct rw_ring_ops {
    const char *name; /* "io_uring", "epoll", "sim" */
    uint32_t backend; /* enum rw_backend */
    void (*destroy)(struct rw_ring *ring);
    int32_t (*accept_start)(struct rw_ring *ring, int32_t fd, uint64_t user_data);
    int32_t (*recv_start)(struct rw_ring *ring, int32_t fd, uint64_t user_data);
    int32_t (*poll_start)(struct rw_ring *ring, int32_t fd, uint64_t user_data);
    int32_t (*send)(struct rw_ring *ring, int32_t fd, uint64_t user_data, const struct iovec *iov, uint32_t count);
    int32_t (*cancel)(struct rw_ring *ring, int32_t fd, uint64_t user_data);
    /* NULL: cancel does it. */
    int32_t (*accept_stop)(struct rw_ring *ring, int32_t fd, uint64_t user_data);
    void (*close)(struct rw_ring *ring, int32_t fd);
    void (*buffer_return)(struct rw_ring *ring, uint32_t buffer_id);
    /* NULL: sendmsg(2) does it. */
    int64_t (*send_now)(struct rw_ring *ring, int32_t fd, const struct iovec *iov, uint32_t count);
    int32_t (*submit)(struct rw_ring *ring, uint32_t wait_us);
    int32_t (*interrupt_by)(struct rw_ring *ring, int32_t fd);
    uint32_t (*reap)(struct rw_ring *ring, struct rw_completion *out, uint32_t capacity);
    int32_t (*sleep)(struct rw_ring *ring);
    void (*wake)(struct rw_ring *ring);
    /* NULL: getpeername(2) knows. */
    int32_t (*peer_address)(const struct rw_ring *ring, int32_t fd, struct sockaddr_storage *out);
};

struct rw_ring {
    const struct rw_ring_ops *ops;
    struct rw_ring_counts counts;
    /* a wait has ended because the descriptor of rw_ring_interrupt_by() was readable; the caller clears it */
    uint32_t interrupted;
};

/* ret: a ring, or NULL and a sentence in error[] naming the likely cause (seccomp, sysctl kernel.io_uring_disabled,
 * RLIMIT_MEMLOCK, old kernel). AUTO: io_uring, else epoll; `error` then says why io_uring was not taken (empty when it
 * was). */
struct rw_ring *rw_ring_create(const struct rw_ring_config *config, char *error, size_t error_bytes);

static inline void rw_ring_destroy(struct rw_ring *ring) { ring->ops->destroy(ring); }
/* Accept on a listening, non-blocking socket: completions carry a new descriptor (non-blocking, close-on-exec) or an
 * error; EMFILE and its like end the operation. ret: RW_OK or a negated errno */
static inline int32_t rw_ring_accept_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    return ring->ops->accept_start(ring, fd, user_data);
}
static inline int32_t rw_ring_recv_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    return ring->ops->recv_start(ring, fd, user_data);
}
/* Completes each time the eventfd `fd` becomes readable (the ring drains it). */
static inline int32_t rw_ring_poll_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    return ring->ops->poll_start(ring, fd, user_data);
}
/* iov: 1..RW_SEND_IOVECS_MAX entries. */
static inline int32_t rw_ring_send(struct rw_ring *ring, int32_t fd, uint64_t user_data, const struct iovec *iov,
                                   uint32_t count) {
    return ring->ops->send(ring, fd, user_data, iov, count);
}
static inline int32_t rw_ring_cancel(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    return ring->ops->cancel(ring, fd, user_data);
}
static inline int32_t rw_ring_accept_stop(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    return ring->ops->accept_stop ? ring->ops->accept_stop(ring, fd, user_data)
                                  : ring->ops->cancel(ring, fd, user_data);
}
static inline void rw_ring_close(struct rw_ring *ring, int32_t fd) { ring->ops->close(ring, fd); }
static inline void rw_ring_buffer_return(struct rw_ring *ring, uint32_t buffer_id) {
    ring->ops->buffer_return(ring, buffer_id);
}
/* Send without waiting, past the queue: for a descriptor with no send in flight. ret: bytes taken, which may be fewer
 * than there are, or a negated errno: -EAGAIN none now. What an error means is told by a send through the queue. */
int64_t rw_ring_send_now(struct rw_ring *ring, int32_t fd, const struct iovec *iov, uint32_t count);
/* From now on a wait of submit also ends when `fd` is readable, which stays what it is until somebody else has dealt
 * with it: nothing is read here. It is looked at anew when a wait begins. Once; -1 is the state before. ret: RW_OK or a
 * negated errno */
static inline int32_t rw_ring_interrupt_by(struct rw_ring *ring, int32_t fd) {
    return ring->ops->interrupt_by(ring, fd);
}
/* Hand everything to the kernel; when no completion is at hand, wait for one, wait_us at most. ret: RW_OK or a negated
 * errno */
static inline int32_t rw_ring_submit(struct rw_ring *ring, uint32_t wait_us) {
    return ring->ops->submit(ring, wait_us);
}
/* Take up to `capacity` completions. ret: how many */
static inline uint32_t rw_ring_reap(struct rw_ring *ring, struct rw_completion *out, uint32_t capacity) {
    return ring->ops->reap(ring, out, capacity);
}
/* From now on a completion makes wake_fd readable. ret: 0 go to sleep, 1 completions are at hand already: do not */
static inline int32_t rw_ring_sleep(struct rw_ring *ring) { return ring->ops->sleep(ring); }
static inline void rw_ring_wake(struct rw_ring *ring) { ring->ops->wake(ring); }
/* The address of the peer of an accepted descriptor. ret: RW_OK or a negated errno: -ENOTCONN when it has reset the
 * connection */
int32_t rw_ring_peer_address(const struct rw_ring *ring, int32_t fd, struct sockaddr_storage *out);

/* Backends; each ret: ring or NULL with a sentence in error[]. */
struct rw_ring *rw_ring_uring_create(const struct rw_ring_config *config, char *error, size_t error_bytes);
struct rw_ring *rw_ring_epoll_create(const struct rw_ring_config *config, char *error, size_t error_bytes);

#endif
