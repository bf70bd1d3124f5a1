/* The choice of a ring backend.
 *
 * Role: turn enum rw_backend into a ring; the backends do the rest. Up: core. Down: ring_uring, ring_epoll, and
 * ring_sim in test builds. Invariant: with AUTO, `error` is empty exactly when io_uring was taken, so that the host can
 * log why it was not. */
#include "ring/ring.h"

#include <errno.h>
#include <stdio.h>

#include "ringway.h"
#ifdef RW_TEST
#include "ring/ring_sim.h"
#endif

static struct rw_ring *ring_auto_create(const struct rw_ring_config *config, char *error, size_t error_bytes) {
    struct rw_ring *ring = rw_ring_uring_create(config, error, error_bytes);
    if (ring != NULL) return ring;
    char second[256];
    ring = rw_ring_epoll_create(config, second, sizeof second);
    if (ring == NULL) { snprintf(error, error_bytes, "%s", second); /* the reason that matters now */ }
    return ring;
}

int32_t rw_ring_peer_address(const struct rw_ring *ring, int32_t fd, struct sockaddr_storage *out) {
    if (ring->ops->peer_address) return ring->ops->peer_address(ring, fd, out);
    socklen_t length = sizeof *out;
    return getpeername(fd, (struct sockaddr *)out, &length) == 0 ? 0 : -errno;
}

int64_t rw_ring_send_now(struct rw_ring *ring, int32_t fd, const struct iovec *iov, uint32_t count) {
    if (ring->ops->send_now) return ring->ops->send_now(ring, fd, iov, count);
    const struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = count};
    ssize_t sent = count == 1 ? send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                              : sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? -errno : sent;
}

struct rw_ring *rw_ring_create(const struct rw_ring_config *config, char *error, size_t error_bytes) {
    if (error_bytes > 0) error[0] = '\0';
    switch (config->backend) {
        case RW_BACKEND_AUTO: return ring_auto_create(config, error, error_bytes);
        case RW_BACKEND_IO_URING: return rw_ring_uring_create(config, error, error_bytes);
        case RW_BACKEND_EPOLL: return rw_ring_epoll_create(config, error, error_bytes);
#ifdef RW_TEST
        case RW_BACKEND_SIM: return rw_ring_sim_create(config, error, error_bytes);
#endif
        default: snprintf(error, error_bytes, "I/O backend %u is not part of this build", config->backend); return NULL;
    }
}
