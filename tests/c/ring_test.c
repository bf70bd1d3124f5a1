/* The contract of ring.h, run against every backend that talks to the kernel: io_uring as it comes, io_uring on an older kernel's flags,
 * io_uring with SQPOLL, and epoll. What a backend cannot do on this machine is skipped, and said so. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "limits.h"
#include "ring.h"
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

static struct rw_ring_config base_config(void) {
    return (struct rw_ring_config){.backend = variant->backend, .entries = 64, .recv_buffers = 64, .recv_buffer_bytes = 4096, .sqpoll = variant->sqpoll,
                                   .sqpoll_cpu = -1, .sqpoll_idle_ms = 20, .wake_fd = fixture.wake_fd};
}

static struct rw_ring *ring_open(struct rw_ring_config config) {
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

static int setup(void **state) {
    (void)state;
    fixture.ring = NULL;
    fixture.kept_count = 0;
    fixture.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fixture.wake_fd < 0;
}

static int teardown(void **state) {
    (void)state;
    if (fixture.ring != NULL) rw_ring_destroy(fixture.ring);
    fixture.ring = NULL;
    close(fixture.wake_fd);
    return 0;
}

static void turn(uint32_t wait_us) {
    assert_int_equal(rw_ring_submit(fixture.ring, wait_us), RW_OK);
    fixture.kept_count += rw_ring_reap(fixture.ring, fixture.kept + fixture.kept_count, KEPT_MAX - fixture.kept_count);
}

/* Take the next completion of user_data, waiting for it. ret: 0 when none comes within turns */
static int next_within(uint64_t user_data, struct rw_completion *out, int turns) {
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

static struct rw_completion next(uint64_t user_data) {
    struct rw_completion completion;
    if (!next_within(user_data, &completion, TURNS_MAX)) fail_msg("no completion of %llu came", (unsigned long long)user_data);
    return completion;
}

static void none(uint64_t user_data) {
    struct rw_completion completion;
    turn(0);
    turn(1000);
    assert_int_equal(next_within(user_data, &completion, 0), 0);
}

static void expect_end(uint64_t user_data, int32_t result) {
    struct rw_completion completion = next(user_data);
    assert_int_equal(completion.result, result);
    assert_int_equal(completion.flags, 0);
}

static void pair_open(int pair[2]) { assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0); }

static int listener_open(struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof *address;
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
    assert_int_equal(listen(fd, 512), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &bytes), 0);
    return fd;
}

static int peer_open(const struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

static void tcp_pair_open(int pair[2]) {
    struct sockaddr_in address;
    int listener = listener_open(&address);
    pair[1] = peer_open(&address);
    pair[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(pair[0] >= 0);
    close(listener);
}

static void put(int fd, const void *bytes, size_t count) { assert_int_equal(write(fd, bytes, count), count); }

/* ---------------------------------------------------------------- accept */

static void accept_gives_every_waiting_connection_non_blocking_and_close_on_exec(void **state) {
    (void)state;
    enum { PEERS = 150 };
    struct rw_ring *ring = ring_open(base_config());
    struct sockaddr_in address;
    int listener = listener_open(&address), peers[PEERS];
    assert_int_equal(rw_ring_accept_start(ring, listener, 7), RW_OK);
    for (int i = 0; i < PEERS; i++) peers[i] = peer_open(&address);
    for (int i = 0; i < PEERS; i++) {
        struct rw_completion completion = next(7);
        assert_true(completion.result >= 0);
        assert_int_equal(completion.flags, RW_COMPLETION_MORE);
        assert_true(fcntl(completion.result, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(completion.result, F_GETFD) & FD_CLOEXEC);
        rw_ring_close(ring, completion.result);
    }
    for (int i = 0; i < PEERS; i++) close(peers[i]);
    none(7);
    assert_int_equal(rw_ring_cancel(ring, listener, 7), RW_OK);
    expect_end(7, -ECANCELED);
    rw_ring_close(ring, listener);
}

static void accept_ends_at_EMFILE_and_goes_on_when_armed_again(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    struct sockaddr_in address;
    int listener = listener_open(&address);
    int peer = peer_open(&address);
    struct rlimit before, now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int spare = dup(0); /* the next descriptor number */
    close(spare);
    now = (struct rlimit){.rlim_cur = (rlim_t)spare, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    assert_int_equal(rw_ring_accept_start(ring, listener, 7), RW_OK);
    struct rw_completion completion = next(7);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(completion.result, -EMFILE);
    assert_int_equal(completion.flags, 0);
    none(7); /* it does not spin on the connection that waits */

    assert_int_equal(rw_ring_accept_start(ring, listener, 8), RW_OK);
    completion = next(8);
    assert_true(completion.result >= 0);
    rw_ring_close(ring, completion.result);
    close(peer);
    assert_int_equal(rw_ring_cancel(ring, listener, 8), RW_OK);
    expect_end(8, -ECANCELED);
    rw_ring_close(ring, listener);
}

/* ---------------------------------------------------------------- receive */

static void recv_gives_all_bytes_in_order_and_then_the_end_of_stream(void **state) {
    (void)state;
    enum { ROUNDS = 200 };
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    uint8_t expected = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t bytes[97];
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(expected + i);
        put(pair[1], bytes, sizeof bytes);
        for (int32_t left = sizeof bytes; left > 0;) {
            struct rw_completion completion = next(3);
            assert_true(completion.result > 0 && completion.result <= left);
            assert_int_equal(completion.flags, RW_COMPLETION_MORE | RW_COMPLETION_BUFFER);
            for (int32_t i = 0; i < completion.result; i++) assert_int_equal(completion.data[i], expected++);
            memset(completion.data, 0, (size_t)completion.result); /* the core may write to them */
            rw_ring_buffer_return(ring, completion.buffer_id);
            left -= completion.result;
        }
    }
    close(pair[1]);
    expect_end(3, 0);
    rw_ring_close(ring, pair[0]);
    assert_int_equal(ring->counts.no_buffers, 0);
}

static void recv_tells_of_a_reset(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    tcp_pair_open(pair);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    turn(0);
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(pair[1]);
    expect_end(3, -ECONNRESET);
    rw_ring_close(ring, pair[0]);
}

static void a_cancelled_recv_ends_once_and_the_descriptor_can_be_armed_again(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(rw_ring_recv_start(ring, pair[0], 100 + i), RW_OK);
        if (i % 2) turn(0); /* cancelled in the same batch, and in a later one */
        assert_int_equal(rw_ring_cancel(ring, pair[0], 100 + i), RW_OK);
        expect_end(100 + i, -ECANCELED);
        none(100 + i);
    }
    put(pair[1], "x", 1); /* arrives while nothing is armed */
    none(109);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    struct rw_completion completion = next(3);
    assert_int_equal(completion.result, 1);
    assert_int_equal(completion.data[0], 'x');
    rw_ring_buffer_return(ring, completion.buffer_id);
    close(pair[1]);
    expect_end(3, 0);
    rw_ring_close(ring, pair[0]);
}

static void cancelling_what_has_just_ended_is_silent(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    turn(0);
    close(pair[1]);
    assert_int_equal(rw_ring_cancel(ring, pair[0], 3), RW_OK);
    struct rw_completion completion = next(3);
    assert_true(completion.result == 0 || completion.result == -ECANCELED);
    assert_int_equal(completion.flags, 0);
    assert_int_equal(rw_ring_cancel(ring, pair[0], 3), RW_OK);
    turn(0);
    turn(1000);
    assert_int_equal(fixture.kept_count, 0); /* neither of user_data 3 nor of the cancel itself */
    rw_ring_close(ring, pair[0]);
}

static void with_a_tiny_ring_and_many_senders_no_byte_is_lost_or_doubled(void **state) {
    (void)state;
    enum { PEERS = 40, BYTES = 3000 };
    struct rw_ring_config config = base_config();
    config.recv_buffers = 4;
    config.recv_buffer_bytes = 64;
    struct rw_ring *ring = ring_open(config);
    int pairs[PEERS][2];
    uint32_t got[PEERS] = {0}, ended = 0, starved = 0;
    struct rw_completion held[4];
    uint32_t held_count = 0;
    for (uint32_t p = 0; p < PEERS; p++) {
        pair_open(pairs[p]);
        uint8_t bytes[BYTES];
        for (uint32_t i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(p * 7 + i * 13 + i / 251);
        put(pairs[p][1], bytes, sizeof bytes);
        close(pairs[p][1]);
        assert_int_equal(rw_ring_recv_start(ring, pairs[p][0], p), RW_OK);
    }
    for (int quiet = 0; ended < PEERS && quiet < TURNS_MAX; quiet++) {
        struct rw_completion batch[16];
        assert_int_equal(rw_ring_submit(ring, held_count > 0 ? 0 : WAIT_US), RW_OK);
        uint32_t count = rw_ring_reap(ring, batch, 16);
        while (held_count > 0) rw_ring_buffer_return(ring, held[--held_count].buffer_id); /* held over a turn */
        for (uint32_t c = 0; c < count; c++, quiet = 0) {
            uint32_t p = (uint32_t)batch[c].user_data;
            if (batch[c].flags & RW_COMPLETION_BUFFER) {
                for (int32_t i = 0; i < batch[c].result; i++, got[p]++) assert_int_equal(batch[c].data[i], (uint8_t)(p * 7 + got[p] * 13 + got[p] / 251));
                held[held_count++] = batch[c];
            }
            if (batch[c].result == -ENOBUFS) {
                starved += 1;
                assert_int_equal(batch[c].flags, 0);
            }
            if (!(batch[c].flags & RW_COMPLETION_MORE) && batch[c].result == 0) ended += 1;
            else if (!(batch[c].flags & RW_COMPLETION_MORE)) assert_int_equal(rw_ring_recv_start(ring, pairs[p][0], p), RW_OK);
        }
    }
    assert_int_equal(ended, PEERS);
    for (uint32_t p = 0; p < PEERS; p++) {
        assert_int_equal(got[p], BYTES);
        rw_ring_close(ring, pairs[p][0]);
    }
    assert_true(starved > 0);
    assert_int_equal(ring->counts.no_buffers, starved);
}

static void when_buffers_run_out_more_are_offered_up_to_the_configured_number(void **state) {
    (void)state;
    enum { BUFFERS = 512 };
    struct rw_ring_config config = base_config();
    config.recv_buffers = BUFFERS;
    config.recv_buffer_bytes = 16;
    struct rw_ring *ring = ring_open(config);
    int pair[2];
    tcp_pair_open(pair);
    uint8_t bytes[BUFFERS * 16];
    memset(bytes, 'b', sizeof bytes);
    put(pair[1], bytes, sizeof bytes);
    close(pair[1]);
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    uint32_t held[BUFFERS], held_count = 0;
    while (held_count < BUFFERS) { /* hold them all */
        struct rw_completion completion = next(3);
        if (completion.flags & RW_COMPLETION_BUFFER) {
            assert_int_equal(completion.result, 16);
            held[held_count++] = completion.buffer_id;
        } else {
            assert_int_equal(completion.result, -ENOBUFS);
        }
        if (!(completion.flags & RW_COMPLETION_MORE)) assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    }
    for (uint32_t i = 0; i < BUFFERS; i++) rw_ring_buffer_return(ring, held[i]);
    struct rw_completion completion = next(3);
    if (completion.result == -ENOBUFS) {
        assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
        completion = next(3);
    }
    assert_int_equal(completion.result, 0);
    assert_int_equal(completion.flags, 0);
    rw_ring_close(ring, pair[0]);
}

/* ---------------------------------------------------------------- send */

static void a_send_of_sixteen_parts_arrives_in_order_and_its_iovecs_are_free_at_once(void **state) {
    (void)state;
    enum { SENDS = 200 };
    struct rw_ring *ring = ring_open(base_config());
    static int pairs[SENDS][2];
    static const char text[] = "The quick brown fox jumps over the lazy dog, and the ring takes it.";
    for (uint64_t s = 0; s < SENDS; s++) { /* more than the submission queue holds */
        pair_open(pairs[s]);
        struct iovec iov[RW_SEND_IOVECS_MAX];
        for (size_t i = 0; i < RW_SEND_IOVECS_MAX; i++) iov[i] = (struct iovec){.iov_base = (void *)(uintptr_t)&text[i * 4], .iov_len = 4};
        assert_int_equal(rw_ring_send(ring, pairs[s][0], s, iov, RW_SEND_IOVECS_MAX), RW_OK);
        memset(iov, 0xFF, sizeof iov);
    }
    for (uint64_t s = 0; s < SENDS; s++) {
        expect_end(s, 64);
        char got[80];
        assert_int_equal(read(pairs[s][1], got, sizeof got), 64);
        assert_memory_equal(got, text, 64);
        rw_ring_close(ring, pairs[s][0]);
        close(pairs[s][1]);
    }
}

static void a_send_to_a_slow_reader_is_short_and_goes_on_when_it_reads(void **state) {
    (void)state;
    enum { BYTES = 1 << 20 };
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    uint8_t *bytes = malloc(BYTES), *got = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(i * 31 + i / 255);
    size_t sent = 0, received = 0, shorts = 0;
    while (sent < BYTES) {
        struct iovec iov[2] = {{.iov_base = bytes + sent, .iov_len = (BYTES - sent) / 2}, {0}};
        iov[1] = (struct iovec){.iov_base = bytes + sent + iov[0].iov_len, .iov_len = BYTES - sent - iov[0].iov_len};
        assert_int_equal(rw_ring_send(ring, pair[0], 5, iov, 2), RW_OK);
        struct rw_completion completion;
        turn(1000);
        for (int turns = 0; !next_within(5, &completion, 0); turns++) { /* it waits: read a part */
            ssize_t part = read(pair[1], got + received, 100000 < BYTES - received ? 100000 : BYTES - received);
            if (part > 0) received += (size_t)part;
            assert_true(turns < 10000);
            turn(1000);
        }
        assert_true(completion.result > 0);
        assert_int_equal(completion.flags, 0);
        sent += (size_t)completion.result;
        shorts += sent < BYTES;
    }
    while (received < BYTES) {
        ssize_t part = read(pair[1], got + received, BYTES - received);
        assert_true(part > 0);
        received += (size_t)part;
    }
    assert_memory_equal(got, bytes, BYTES);
    assert_true(shorts > 0);
    free(bytes);
    free(got);
    close(pair[1]);
    rw_ring_close(ring, pair[0]);
}

static void a_waiting_send_can_be_cancelled_and_one_to_a_gone_peer_fails_without_a_signal(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    static uint8_t bytes[65536];
    while (write(pair[0], bytes, sizeof bytes) > 0) continue; /* full */
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
    assert_int_equal(rw_ring_send(ring, pair[0], 5, &iov, 1), RW_OK);
    none(5);
    assert_int_equal(rw_ring_cancel(ring, pair[0], 5), RW_OK);
    expect_end(5, -ECANCELED);
    assert_int_equal(rw_ring_send(ring, pair[0], 6, &iov, 1), RW_OK);
    none(6);
    close(pair[1]);
    struct rw_completion completion = next(6);
    assert_true(completion.result == -EPIPE || completion.result == -ECONNRESET);
    assert_int_equal(rw_ring_send(ring, pair[0], 7, &iov, 1), RW_OK);
    expect_end(7, -EPIPE);
    rw_ring_close(ring, pair[0]);
}

static void a_descriptor_both_receives_and_waits_to_send(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(base_config());
    int pair[2];
    pair_open(pair);
    static uint8_t bytes[65536];
    ssize_t part, unread = 10;
    while ((part = write(pair[0], bytes, sizeof bytes)) > 0) unread += part;
    struct iovec iov = {.iov_base = bytes, .iov_len = 10};
    assert_int_equal(rw_ring_recv_start(ring, pair[0], 3), RW_OK);
    assert_int_equal(rw_ring_send(ring, pair[0], 5, &iov, 1), RW_OK);
    put(pair[1], "in", 2);
    struct rw_completion completion = next(3);
    assert_int_equal(completion.result, 2);
    rw_ring_buffer_return(ring, completion.buffer_id);
    none(5);
    while ((part = read(pair[1], bytes, sizeof bytes)) > 0) unread -= part;
    expect_end(5, 10);
    while ((part = read(pair[1], bytes, sizeof bytes)) > 0) unread -= part;
    assert_int_equal(unread, 0); /* unread bytes would turn the end of stream into a reset */
    close(pair[1]);
    expect_end(3, 0);
    rw_ring_close(ring, pair[0]);
}

/* ---------------------------------------------------------------- overflow, poll, sleep, destroy */

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
            if (!(batch[c].flags & RW_COMPLETION_MORE)) assert_int_equal(rw_ring_recv_start(ring, pairs[p][0], p), RW_OK); /* an overflow may end it */
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
    struct rw_ring_config config = {.backend = RW_BACKEND_AUTO, .entries = 64, .recv_buffers = 16, .recv_buffer_bytes = 512, .sqpoll_cpu = -1, .wake_fd = -1};
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

#define CONTRACT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest contract[] = {
        CONTRACT(accept_gives_every_waiting_connection_non_blocking_and_close_on_exec),
        CONTRACT(accept_ends_at_EMFILE_and_goes_on_when_armed_again),
        CONTRACT(recv_gives_all_bytes_in_order_and_then_the_end_of_stream),
        CONTRACT(recv_tells_of_a_reset),
        CONTRACT(a_cancelled_recv_ends_once_and_the_descriptor_can_be_armed_again),
        CONTRACT(cancelling_what_has_just_ended_is_silent),
        CONTRACT(with_a_tiny_ring_and_many_senders_no_byte_is_lost_or_doubled),
        CONTRACT(when_buffers_run_out_more_are_offered_up_to_the_configured_number),
        CONTRACT(a_send_of_sixteen_parts_arrives_in_order_and_its_iovecs_are_free_at_once),
        CONTRACT(a_send_to_a_slow_reader_is_short_and_goes_on_when_it_reads),
        CONTRACT(a_waiting_send_can_be_cancelled_and_one_to_a_gone_peer_fails_without_a_signal),
        CONTRACT(a_descriptor_both_receives_and_waits_to_send),
        CONTRACT(a_small_completion_queue_overflows_and_loses_nothing),
        CONTRACT(every_write_to_a_polled_eventfd_is_told_and_drained),
        CONTRACT(sleep_makes_wake_fd_readable_only_while_asleep),
        CONTRACT(sleep_and_wake_never_lose_a_wake_up),
        CONTRACT(a_polled_eventfd_ends_the_sleep_too),
        CONTRACT(destroy_with_everything_armed_leaks_nothing),
        CONTRACT(an_empty_turn_returns_at_once_with_nothing),
    };
    const struct CMUnitTest creation[] = {cmocka_unit_test(auto_takes_io_uring_or_says_why_not)};
    int failed = 0;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        variant = &variants[i];
        print_message("---- %s\n", variant->name);
        failed += cmocka_run_group_tests_name(variant->name, contract, NULL, NULL);
    }
    return (failed + cmocka_run_group_tests(creation, NULL, NULL)) != 0;
}
