/* A thread that writes an eventfd when an epoll descriptor becomes readable.
 *
 * Role: the host's event loop can wait for one eventfd only, not for an epoll descriptor; this thread stands in
 * between, while the core sleeps.
 * Up: ring_epoll (for everything), ring_uring (for polled eventfds). Down: poll(2), one thread, started at the first
 * arm. Guarantee: after arm, readiness that is there or comes makes wake_fd readable, until disarm; after disarm at
 * most one late write follows. */
#ifndef RW_EPOLL_WATCHER_H
#define RW_EPOLL_WATCHER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct rw_epoll_watcher {
    int32_t epoll_fd;
    int32_t wake_fd;
    int32_t control_fd;   /* eventfd: the sleeper's knock; -1: there was no descriptor yet */
    bool is_running;      /* the thread */
    atomic_bool armed;    /* a write to wake_fd is wanted */
    atomic_bool watching; /* the thread looks at epoll_fd, or is about to */
    atomic_bool stopping;
    pthread_t thread;
};

/* Takes its descriptor; one that cannot be had now is asked for again by arm. */
void rw_epoll_watcher_init(struct rw_epoll_watcher *watcher, int32_t epoll_fd, int32_t wake_fd);
/* ret: RW_OK or a negated errno (no thread or no descriptor: the caller must not sleep) */
int32_t rw_epoll_watcher_arm(struct rw_epoll_watcher *watcher);
void rw_epoll_watcher_disarm(struct rw_epoll_watcher *watcher);
/* Joins the thread. */
void rw_epoll_watcher_destroy(struct rw_epoll_watcher *watcher);

#endif
