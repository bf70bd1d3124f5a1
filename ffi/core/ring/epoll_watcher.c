/* The thread behind epoll_watcher.h.
 *
 * Up: ring_epoll, ring_uring. Down: poll(2), eventfd(2), pthreads.
 * It is in one of two states: idle (waits for the control eventfd alone) or watching (waits for the epoll descriptor
 * too).
 *
 *   idle ──knock──> watching ──epoll readable──> watching := no; took := armed, armed := no; took ? write wake_fd ──>
 *   idle
 *
 * Hand-over: arm sets `armed`, then reads `watching`; the thread clears `watching`, then takes `armed`. All are
 * sequentially consistent, so one of the two sees the other: either the thread takes this arm and writes, or arm sees
 * it idle and knocks. Nothing spins: an epoll descriptor that stays readable while nobody is armed puts the thread to
 * idle, and only a knock brings it back. */
#include "ring/epoll_watcher.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ringway.h"

#define STACK_BYTES (64u << 10)

/* An eventfd's counter cannot run full with ones; a write can fail only by a signal, and all are blocked here. */
static void eventfd_signal(int32_t fd) {
    const uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {}
}

static void eventfd_drain(int32_t fd) {
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR) {}
}

static void *watcher_main(void *context) {
    struct rw_epoll_watcher *self = context;
    while (!atomic_load(&self->stopping)) {
        struct pollfd fds[2] = {{.fd = self->control_fd, .events = POLLIN}, {.fd = self->epoll_fd, .events = POLLIN}};
        nfds_t count = atomic_load(&self->watching) ? 2 : 1;
        if (poll(fds, count, -1) < 0) continue;
        if (fds[0].revents != 0) {
            eventfd_drain(self->control_fd);
            atomic_store(&self->watching, true);
        } else if (count == 2 && fds[1].revents != 0) {
            atomic_store(&self->watching, false);
            if (atomic_exchange(&self->armed, false)) eventfd_signal(self->wake_fd);
        }
    }
    return NULL;
}

static int32_t watcher_start(struct rw_epoll_watcher *self) {
    /* It was not to be had at the beginning: perhaps now. */
    if (self->control_fd < 0 && (self->control_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) return -errno;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: signals go to the host's own threads */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int result = pthread_create(&self->thread, &attributes, watcher_main, self);
    /* glibc carves thread-local storage out of the stack: a host with much of it needs the default size
     * (pthread_create(3), EINVAL) */
    if (result == EINVAL) result = pthread_create(&self->thread, NULL, watcher_main, self);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    self->is_running = result == 0;
    return -result;
}

void rw_epoll_watcher_init(struct rw_epoll_watcher *watcher, int32_t epoll_fd, int32_t wake_fd) {
    watcher->epoll_fd = epoll_fd;
    watcher->wake_fd = wake_fd;
    /* Now, and not at the first sleep: connections may have taken every descriptor by then, and a core that cannot
     * sleep spins. */
    watcher->control_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watcher->is_running = false;
    atomic_init(&watcher->armed, false);
    atomic_init(&watcher->watching, false);
    atomic_init(&watcher->stopping, false);
}

int32_t rw_epoll_watcher_arm(struct rw_epoll_watcher *watcher) {
    if (!watcher->is_running) {
        int32_t result = watcher_start(watcher);
        if (result < 0) return result;
    }
    atomic_store(&watcher->armed, true);
    if (!atomic_load(&watcher->watching)) eventfd_signal(watcher->control_fd);
    return RW_OK;
}

void rw_epoll_watcher_disarm(struct rw_epoll_watcher *watcher) { atomic_store(&watcher->armed, false); }

void rw_epoll_watcher_destroy(struct rw_epoll_watcher *watcher) {
    if (watcher->is_running) {
        atomic_store(&watcher->armed, false);
        atomic_store(&watcher->stopping, true);
        eventfd_signal(watcher->control_fd);
        pthread_join(watcher->thread, NULL);
        watcher->is_running = false;
    }
    if (watcher->control_fd >= 0) close(watcher->control_fd);
    watcher->control_fd = -1;
}
