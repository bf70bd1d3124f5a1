/* What the contract tests of ring.h share: the variants of backends they run against, a ring with completions kept by
 * user_data, sockets. */
#ifndef RING_FIXTURE_H
#define RING_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "ring/ring.h"
#include "ringway.h"

#define WAIT_US 100000u
#define TURNS_MAX 100 /* of WAIT_US each: 10 s without progress is a failure */
#define KEPT_MAX 4096u

extern uint32_t rw_ring_uring_test_refused_flags;

struct variant {
    const char *name;
    uint32_t backend;
    uint32_t refused_flags;
    uint32_t sqpoll;
};

static const struct variant variants[] = {
    {.name = "io_uring", .backend = RW_BACKEND_IO_URING},
    {.name = "io_uring without DEFER_TASKRUN", .backend = RW_BACKEND_IO_URING, .refused_flags = 1u << 13},
    {.name = "io_uring without SINGLE_ISSUER", .backend = RW_BACKEND_IO_URING, .refused_flags = 1u << 12},
    {.name = "io_uring with SQPOLL", .backend = RW_BACKEND_IO_URING, .sqpoll = 1},
    {.name = "epoll", .backend = RW_BACKEND_EPOLL},
};

static const struct variant *variant;

struct fixture {
    struct rw_ring *ring;
    int32_t wake_fd;
    uint32_t kept_count;
    struct rw_completion kept[KEPT_MAX]; /* reaped, not yet asked for */
};

static struct fixture fixture;

static inline struct rw_ring_config base_config(void) {
    return (struct rw_ring_config){.backend = variant->backend,
                                   .entries = 64,
                                   .recv_buffers = 64,
                                   .recv_buffer_bytes = 4096,
                                   .sqpoll = variant->sqpoll,
                                   .sqpoll_cpu = -1,
                                   .sqpoll_idle_ms = 20,
                                   .wake_fd = fixture.wake_fd};
}

static inline struct rw_ring *ring_open(struct rw_ring_config config) {
    char error[256];
    rw_ring_uring_test_refused_flags = variant->refused_flags;
    fixture.ring = rw_ring_create(&config, error, sizeof error);
    rw_ring_uring_test_refused_flags = 0;
    if (fixture.ring == NULL) {
        print_message("%s: not here: %s\n", variant->name, error);
        assert_int_equal(variant->backend, RW_BACKEND_IO_URING); /* epoll is always there */
        skip();
    }
    return fixture.ring;
}

static inline int setup(void **state) {
    (void)state;
    fixture.ring = NULL;
    fixture.kept_count = 0;
    fixture.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fixture.wake_fd < 0;
}

static inline int teardown(void **state) {
    (void)state;
    if (fixture.ring != NULL) rw_ring_destroy(fixture.ring);
    fixture.ring = NULL;
    close(fixture.wake_fd);
    return 0;
}

static inline void turn(uint32_t wait_us) {
    assert_int_equal(rw_ring_submit(fixture.ring, wait_us), RW_OK);
    fixture.kept_count += rw_ring_reap(fixture.ring, fixture.kept + fixture.kept_count, KEPT_MAX - fixture.kept_count);
}

/* Take the next completion of user_data, waiting for it. ret: 0 when none comes within turns */
static inline int next_within(uint64_t user_data, struct rw_completion *out, int turns) {
    for (int i = 0;; i++) {
        for (uint32_t k = 0; k < fixture.kept_count; k++) {
            if (fixture.kept[k].user_data != user_data) continue;
            *out = fixture.kept[k];
            fixture.kept_count -= 1;
            memmove(fixture.kept + k, fixture.kept + k + 1, (fixture.kept_count - k) * sizeof *fixture.kept);
            return 1;
        }
        if (i == turns) return 0;
        turn(WAIT_US);
    }
}

static inline struct rw_completion next(uint64_t user_data) {
    struct rw_completion completion;
    if (!next_within(user_data, &completion, TURNS_MAX))
        fail_msg("no completion of %llu came", (unsigned long long)user_data);
    return completion;
}

static inline void none(uint64_t user_data) {
    struct rw_completion completion;
    turn(0);
    turn(1000);
    assert_int_equal(next_within(user_data, &completion, 0), 0);
}

static inline void expect_end(uint64_t user_data, int32_t result) {
    struct rw_completion completion = next(user_data);
    assert_int_equal(completion.result, result);
    assert_int_equal(completion.flags, 0);
}

static inline void pair_open(int pair[2]) {
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
}

static inline int listener_open(struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof *address;
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
    assert_int_equal(listen(fd, 512), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &bytes), 0);
    return fd;
}

static inline int peer_open(const struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

static inline void tcp_pair_open(int pair[2]) {
    struct sockaddr_in address;
    int listener = listener_open(&address);
    pair[1] = peer_open(&address);
    pair[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(pair[0] >= 0);
    close(listener);
}

static inline void put(int fd, const void *bytes, size_t count) { assert_int_equal(write(fd, bytes, count), count); }

#define CONTRACT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ret: failures, over all variants */
#define run_contract(tests) run_variants(tests, sizeof(tests) / sizeof *(tests))

static inline int run_variants(const struct CMUnitTest *tests, size_t count) {
    int failed = 0;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        variant = &variants[i];
        print_message("---- %s\n", variant->name);
        failed += _cmocka_run_group_tests(variant->name, tests, count, NULL, NULL);
    }
    return failed;
}

#endif
