/* The contract of ring.h around the I/O: creation and its refusals, empty turns, overflow, polled eventfds, sleep and
 * wake, destruction. Run against the same backends as ring_test.c. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "ring_fixture.h"

static void a_small_completion_queue_overflows_and_loses_nothing(void **state) {
    (void)state;
    enum { PEERS = 200 };
    struct rw_ring_config config = base_config();
    config.entries = 4;
    config.completions = 8;
    config.recv_buffers = 256;
    struct rw_ring *ring = ring_open(config);
    static int pairs[PEERS][2];
    static uint8_t arrived[PEERS];
    memset(arrived, 0, sizeof arrived);
    for (uint32_t p = 0; p < PEERS; p++) {
        pair_open(pairs[p]);
        struct iovec iov = {.iov_base = (void *)(uintptr_t)"!", .iov_len = 1};
        assert_int_equal(rw_ring_recv_start(ring, pairs[p][0], p), RW_OK);
        assert_int_equal(rw_ring_send(ring, pairs[p][1], 1000 + p, &iov, 1), RW_OK); /* nothing is reaped meanwhile */
    }
    uint32_t received = 0, sent = 0;
    for (int quiet = 0; (received < PEERS || sent < PEERS) && quiet < TURNS_MAX; quiet++) {
        struct rw_completion batch[5];
        assert_int_equal(rw_ring_submit(ring, WAIT_US), RW_OK);
        uint32_t count = rw_ring_reap(ring, batch, 5);
        for (uint32_t c = 0; c < count; c++, quiet = 0) {
            if (batch[c].user_data >= 1000) {
                assert_int_equal(batch[c].result, 1);
                sent += 1;
                continue;
            }
            uint32_t p = (uint32_t)batch[c].user_data;
            if (batch[c].flags & RW_COMPLETION_BUFFER) {
                assert_int_equal(arrived[p]++, 0);
                rw_ring_buffer_return(ring, batch[c].buffer_id);
                received += 1;
            }
            /* an overflow may end it */
            if (!(batch[c].flags & RW_COMPLETION_MORE))
                assert_int_equal(rw_ring_recv_start(ring, pairs[p][0], p), RW_OK);
        }
    }
    assert_int_equal(sent, PEERS);
    assert_int_equal(received, PEERS);
    if (variant->backend == RW_BACKEND_IO_URING) assert_true(ring->counts.cq_overflows > 0);
    for (uint32_t p = 0; p < PEERS; p++) close(pairs[p][1]);
    rw_ring_destroy(ring);
    fixture.ring = NULL;
    for (uint32_t p = 0; p < PEERS; p++) close(pairs[p][0]);
}

static void every_write_to_a_polled_eventfd_is_told_and_drained(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int inbox = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(rw_ring_poll_start(ring, inbox, 9), RW_OK);
    turn(0);
    uint64_t value = 1;
    for (int i = 0; i < 50; i++) {
        put(inbox, &value, sizeof value);
        if (i % 3 == 0) put(inbox, &value, sizeof value); /* two before one look */
        struct rw_completion completion = next(9);
        assert_true(completion.result >= 0);
        assert_int_equal(completion.flags, RW_COMPLETION_MORE);
        assert_int_equal(read(inbox, &value, sizeof value), -1);
        assert_int_equal(errno, EAGAIN);
        value = 1;
        none(9);
    }
    assert_int_equal(rw_ring_cancel(ring, inbox, 9), RW_OK);
    expect_end(9, -ECANCELED);
    put(inbox, &value, sizeof value);
    none(9);
    rw_ring_close(ring, inbox);
}

static int wake_readable(int timeout_ms) {
    struct pollfd pollfd = {.fd = fixture.wake_fd, .events = POLLIN};
    return poll(&pollfd, 1, timeout_ms);
}

static void wake_drain(void) {
    uint64_t value;
    while (read(fixture.wake_fd, &value, sizeof value) > 0) continue;
}

static void sleep_makes_wake_fd_readable_only_while_asleep(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    turn(0);
    put(pair[1], "a", 1);
    rw_ring_buffer_return(ring, next(3).buffer_id);
    assert_int_equal(wake_readable(20), 0); /* awake: quiet */

    assert_int_equal(rw_ring_sleep(ring), 0);
    put(pair[1], "b", 1);
    assert_int_equal(wake_readable(10000), 1); /* from this very thread, which makes no call into the ring */
    rw_ring_wake(ring);
    wake_drain();
    rw_ring_buffer_return(ring, next(3).buffer_id);

    put(pair[1], "c", 1);
    if (rw_ring_sleep(ring) == 0) { /* only where another thread finds the byte, a moment later */
        assert_true(variant->sqpoll);
        assert_int_equal(wake_readable(10000), 1);
        rw_ring_wake(ring);
        wake_drain();
    }
    rw_ring_buffer_return(ring, next(3).buffer_id);

    for (int i = 0; i < 50; i++) { /* never more than one late signal for each sleep */
        if (rw_ring_sleep(ring) == 0) rw_ring_wake(ring);
    }
    wake_drain();
    put(pair[1], "d", 1);
    rw_ring_buffer_return(ring, next(3).buffer_id);
    wake_readable(20);
    wake_drain(); /* the one late signal that is allowed */
    assert_int_equal(wake_readable(20), 0);
    close(pair[1]);
    expect_end(3, 0);
    rw_ring_close(ring, pair[0]);
}

enum { WAKE_ROUNDS = 1000 };

struct waker {
    int fd;
    int ack; /* a byte for each round that was seen */
};

static void *waker_main(void *context) {
    const struct waker *waker = context;
    unsigned seed = 12345;
    for (int i = 0; i < WAKE_ROUNDS; i++) {
        struct timespec pause = {.tv_nsec = rand_r(&seed) % 60000};
        if (rand_r(&seed) % 4) nanosleep(&pause, NULL);
        char byte;
        if (write(waker->fd, "w", 1) != 1 || read(waker->ack, &byte, 1) != 1) break;
    }
    return NULL;
}

static void sleep_and_wake_never_lose_a_wake_up(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2], ack[2];
    pair_open(pair);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ack), 0);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    turn(0);
    struct waker waker = {.fd = pair[1], .ack = ack[1]};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, waker_main, &waker), 0);
    int received = 0, lost = 0;
    while (received < WAKE_ROUNDS && !lost) {
        if (rw_ring_sleep(ring) == 0) {
            lost = wake_readable(10000) != 1;
            rw_ring_wake(ring);
            wake_drain();
        }
        struct rw_completion batch[4];
        rw_ring_submit(ring, 0);
        uint32_t count = rw_ring_reap(ring, batch, 4);
        for (uint32_t i = 0; i < count; i++, received++) {
            assert_int_equal(batch[i].result, 1);
            rw_ring_buffer_return(ring, batch[i].buffer_id);
            put(ack[0], "a", 1);
        }
    }
    assert_int_equal(lost, 0);
    close(ack[0]);
    pthread_join(thread, NULL);
    close(ack[1]);
    close(pair[1]);
    expect_end(3, 0);
    rw_ring_close(ring, pair[0]);
}

static void a_polled_eventfd_ends_the_sleep_too(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int inbox = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(rw_ring_poll_start(ring, inbox, 9), RW_OK);
    turn(0);
    const uint64_t one = 1;
    for (int i = 0; i < 100; i++) {
        while (rw_ring_sleep(ring) != 0) turn(0); /* a late signal of the round before, at most */
        assert_int_equal(write(inbox, &one, sizeof one), sizeof one);
        assert_int_equal(wake_readable(10000), 1);
        rw_ring_wake(ring);
        wake_drain();
        assert_int_equal(next(9).flags, RW_COMPLETION_MORE);
    }
    assert_int_equal(rw_ring_cancel(ring, inbox, 9), RW_OK);
    expect_end(9, -ECANCELED);
    while (rw_ring_sleep(ring) != 0) turn(0);
    rw_ring_wake(ring);
    rw_ring_close(ring, inbox);
}

static void what_nobody_waits_for_does_not_keep_the_ring_awake(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    turn(0);
    assert_int_equal(rw_ring_cancel(ring, pair[0], 3), RW_OK); /* paused */
    expect_end(3, -ECANCELED);
    put(pair[1], "x", 1); /* bytes, then a hang-up */
    for (int i = 0; i < 2; i++) {
        turn(0);
        turn(0);
        assert_int_equal(rw_ring_sleep(ring), 0);
        rw_ring_wake(ring);
        if (i == 0) close(pair[1]);
    }
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 4), RW_OK); /* and nothing was lost */
    struct rw_completion completion = next(4);
    assert_int_equal(completion.result, 1);
    rw_ring_buffer_return(ring, completion.buffer_id);
    expect_end(4, 0);
    rw_ring_close(ring, pair[0]);
}

static int descriptors_open(void) {
    int count = 0;
    for (int fd = 0; fd < 2048; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void destroy_with_everything_armed_leaks_nothing(void **state) {
    (void)state;
    for (int round = 0; round < 5; round++) {
        int before = descriptors_open();
        struct rw_ring *ring = ring_open(base_config());
        struct sockaddr_in address;
        int pair[2], inbox = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), listener = listener_open(&address);
        pair_open(pair);
        static uint8_t bytes[65536];
        while (write(pair[0], bytes, sizeof bytes) > 0) continue;
        struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
        assert_int_equal(rw_ring_accept_start(ring, listener, 1), RW_OK);
        assert_int_equal(rw_ring_recv_start(ring, pair[0], 2), RW_OK);
        assert_int_equal(rw_ring_send(ring, pair[0], 3, &iov, 1), RW_OK);
        assert_int_equal(rw_ring_poll_start(ring, inbox, 4), RW_OK);
        assert_int_equal(rw_ring_sleep(ring), 0);
        int peer = peer_open(&address); /* accepted, perhaps, and never reaped */
        put(pair[1], "x", 1);
        if (round % 2) rw_ring_submit(ring, 0);
        rw_ring_destroy(ring);
        fixture.ring = NULL;
        close(peer);
        close(pair[0]);
        close(pair[1]);
        close(inbox);
        close(listener);
        assert_int_equal(descriptors_open(), before);
        wake_drain();
    }
}

static void an_empty_turn_returns_at_once_with_nothing(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    struct rw_completion completion;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rw_ring_submit(ring, 0), RW_OK);
        assert_int_equal(rw_ring_reap(ring, &completion, 1), 0);
    }
}

/* ---------------------------------------------------------------- creation */

static void auto_takes_io_uring_or_says_why_not(void **state) {
    (void)state;
    struct rw_ring_config config = {.backend = RW_BACKEND_AUTO,
                                    .entries = 64,
                                    .recv_buffers = 16,
                                    .recv_buffer_bytes = 512,
                                    .sqpoll_cpu = -1,
                                    .wake_fd = -1};
    char error[256] = "?";
    struct rw_ring *ring = rw_ring_create(&config, error, sizeof error);
    assert_non_null(ring);
    assert_int_equal(error[0] == '\0', ring->ops->backend == RW_BACKEND_IO_URING);
    rw_ring_destroy(ring);

    rw_ring_uring_test_refused_flags = ~0u; /* the kernel of the nineties */
    ring = rw_ring_create(&config, error, sizeof error);
    assert_non_null(ring);
    assert_int_equal(ring->ops->backend, RW_BACKEND_EPOLL);
    assert_non_null(strstr(error, "io_uring"));
    rw_ring_destroy(ring);
    config.backend = RW_BACKEND_IO_URING;
    assert_null(rw_ring_create(&config, error, sizeof error));
    assert_non_null(strstr(error, "Linux 6"));
    rw_ring_uring_test_refused_flags = 0;

    config.backend = 99;
    assert_null(rw_ring_create(&config, error, sizeof error));
    assert_non_null(strstr(error, "99"));
}

/* In a process that may not call epoll_pwait2(2). ret: 0 a receive completes all the same */
static int receive_without_pwait2(uint32_t refusal) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | refusal),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    const struct rw_ring_config config = {.backend = RW_BACKEND_EPOLL,
                                          .entries = 64,
                                          .recv_buffers = 16,
                                          .recv_buffer_bytes = 512,
                                          .sqpoll_cpu = -1,
                                          .wake_fd = -1};
    char error[256];
    int pair[2];
    struct rw_completion completion;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return 2;
    struct rw_ring *ring = rw_ring_create(&config, error, sizeof error);
    if (ring == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0) return 3;
    if (rw_ring_recv_start(ring, pair[0], 1) != RW_OK || write(pair[1], "!", 1) != 1) return 4;
    if (rw_ring_submit(ring, WAIT_US) != RW_OK) return 5;
    return rw_ring_reap(ring, &completion, 1) == 1 && completion.result == 1 ? 0 : 6;
}

/* ENOSYS: an old kernel, or a sandbox that says what it does not know as a kernel would; EPERM: one that does not. */
static void epoll_does_without_what_a_sandbox_forbids(void **state) {
    (void)state;
    const uint32_t refusals[] = {ENOSYS, EPERM};
    for (uint32_t i = 0; i < 2; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) _exit(receive_without_pwait2(refusals[i]));
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* ret: whether a wait was interrupted, within as many turns as it may take */
static int is_interrupted_within(struct rw_ring *ring, uint32_t wait_us) {
    struct rw_completion completion;
    for (int turn = 0; turn < 4 && !ring->interrupted; turn++) {
        assert_int_equal(rw_ring_submit(ring, wait_us), RW_OK);
        assert_int_equal(rw_ring_reap(ring, &completion, 1), 0);
    }
    int interrupted = ring->interrupted != 0;
    ring->interrupted = 0;
    return interrupted;
}

/* As a host would have it: the epoll descriptor of a loop of its own. */
static void a_wait_ends_when_the_hosts_descriptor_is_readable(void **state) {
    (void)state;
    const uint64_t one = 1;
    uint64_t value;
    struct rw_ring *ring = ring_open(base_config());
    int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), host = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN};
    assert_int_equal(epoll_ctl(host, EPOLL_CTL_ADD, event, &interest), 0);
    assert_int_equal(rw_ring_interrupt_by(ring, host), RW_OK);
    assert_false(is_interrupted_within(ring, 1000));

    assert_int_equal(write(event, &one, sizeof one), sizeof one);
    assert_true(is_interrupted_within(ring, 10 * WAIT_US));
    assert_true(is_interrupted_within(ring, 10 * WAIT_US)); /* nobody has dealt with it */
    assert_int_equal(read(event, &value, sizeof value), sizeof value);
    assert_false(is_interrupted_within(ring, 1000));

    /* Dealt with between two waits: the next one does not end for it, and ends for what comes then. */
    assert_int_equal(write(event, &one, sizeof one), sizeof one);
    assert_int_equal(read(event, &value, sizeof value), sizeof value);
    assert_false(is_interrupted_within(ring, 1000));
    assert_int_equal(write(event, &one, sizeof one), sizeof one);
    assert_true(is_interrupted_within(ring, 10 * WAIT_US));
    close(host);
    close(event);
}

static void send_now_takes_what_fits_and_says_what_is_wrong(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    char bytes[65536] = "two parts", got[16];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    const struct iovec parts[] = {{.iov_base = bytes, .iov_len = 4}, {.iov_base = bytes + 4, .iov_len = 5}};
    assert_int_equal(rw_ring_send_now(ring, pair[0], parts, 2), 9);
    assert_int_equal(read(pair[1], got, sizeof got), 9);
    assert_memory_equal(got, "two parts", 9);
    const struct iovec whole = {.iov_base = bytes, .iov_len = sizeof bytes};
    int64_t taken = 1;
    for (int sends = 0; taken > 0; sends++) {
        assert_true(sends < 1000);
        taken = rw_ring_send_now(ring, pair[0], &whole, 1);
    }
    assert_int_equal(taken, -EAGAIN);
    close(pair[1]);
    assert_int_equal(rw_ring_send_now(ring, pair[0], &whole, 1), -EPIPE);
    close(pair[0]);
}

int main(void) {
    const struct CMUnitTest contract[] = {
        CONTRACT(a_wait_ends_when_the_hosts_descriptor_is_readable),
        CONTRACT(send_now_takes_what_fits_and_says_what_is_wrong),
        CONTRACT(a_small_completion_queue_overflows_and_loses_nothing),
        CONTRACT(every_write_to_a_polled_eventfd_is_told_and_drained),
        CONTRACT(sleep_makes_wake_fd_readable_only_while_asleep),
        CONTRACT(sleep_and_wake_never_lose_a_wake_up),
        CONTRACT(a_polled_eventfd_ends_the_sleep_too),
        CONTRACT(what_nobody_waits_for_does_not_keep_the_ring_awake),
        CONTRACT(destroy_with_everything_armed_leaks_nothing),
        CONTRACT(an_empty_turn_returns_at_once_with_nothing),
    };
    const struct CMUnitTest creation[] = {cmocka_unit_test(auto_takes_io_uring_or_says_why_not),
                                          cmocka_unit_test(epoll_does_without_what_a_sandbox_forbids)};
    return run_contract(contract) + cmocka_run_group_tests(creation, NULL, NULL) != 0;
}
