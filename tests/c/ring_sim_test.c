/* The simulated ring: that it is deterministic, keeps the contract of ring.h while it is unkind, and catches the
 * violations it promises to. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ring/ring_sim.h"
#include "ringway.h"

#define SEEDS 200u
#define TURNS_MAX 20000u

static struct rw_ring *ring_open(uint64_t seed) {
    struct rw_ring_config config = {.backend = RW_BACKEND_SIM,
                                    .entries = 64,
                                    .recv_buffers = 8,
                                    .recv_buffer_bytes = 64,
                                    .wake_fd = -1,
                                    .sim_seed = seed};
    char error[128];
    struct rw_ring *ring = rw_ring_create(&config, error, sizeof error);
    assert_non_null(ring);
    return ring;
}

/* ---------------------------------------------------------------- an echo server on it */

enum { PEERS = 6, BYTES = 700, ACCEPT = 1, RECV = 2, SEND = 3 };

struct echo {
    struct rw_ring *ring;
    int32_t listener;
    uint64_t trace; /* a hash of everything that happened */
    uint32_t ended;
    struct echo_peer {
        int32_t fd;
        uint8_t pending[BYTES];
        size_t received, sent, inflight;
        int end;
    } peers[PEERS];
};

static uint64_t tag(int kind, uint32_t index) { return (uint64_t)kind << 32 | index; }

static uint32_t peer_of(const struct echo *echo, int32_t fd) {
    for (uint32_t p = 0; p < PEERS; p++) {
        if (echo->peers[p].fd == fd) return p;
    }
    fail();
    return 0;
}

static void echo_send(struct echo *echo, uint32_t p) {
    struct echo_peer *peer = &echo->peers[p];
    if (peer->inflight > 0) return;
    if (peer->sent == peer->received) {
        if (peer->end) {
            rw_ring_close(echo->ring, peer->fd);
            echo->ended += 1;
        }
        return;
    }
    size_t half = (peer->received - peer->sent) / 2;
    struct iovec iov[2] = {
        {.iov_base = peer->pending + peer->sent, .iov_len = half},
        {.iov_base = peer->pending + peer->sent + half, .iov_len = peer->received - peer->sent - half}};
    peer->inflight = peer->received - peer->sent;
    assert_int_equal(rw_ring_send(echo->ring, peer->fd, tag(SEND, p), half > 0 ? iov : iov + 1, half > 0 ? 2 : 1),
                     RW_OK);
}

static void echo_complete(struct echo *echo, const struct rw_completion *completion) {
    int more = completion->flags & RW_COMPLETION_MORE;
    uint32_t p = (uint32_t)completion->user_data;
    echo->trace =
        (echo->trace ^ completion->user_data ^ (uint64_t)(uint32_t)completion->result << 8) * UINT64_C(0x100000001B3);
    switch (completion->user_data >> 32) {
        case ACCEPT:
            if (completion->result >= 0) {
                p = peer_of(echo, completion->result);
                assert_int_equal(rw_ring_recv_start(echo->ring, completion->result, tag(RECV, p)), RW_OK);
            }
            if (!more) assert_int_equal(rw_ring_accept_start(echo->ring, echo->listener, tag(ACCEPT, 0)), RW_OK);
            break;
        case RECV:
            if (completion->flags & RW_COMPLETION_BUFFER) {
                memcpy(echo->peers[p].pending + echo->peers[p].received, completion->data, (size_t)completion->result);
                echo->peers[p].received += (size_t)completion->result;
                rw_ring_buffer_return(echo->ring, completion->buffer_id);
            } else if (completion->result == 0) {
                echo->peers[p].end = 1;
            } else {
                assert_int_equal(completion->result, -ENOBUFS);
            }
            if (!more && completion->result != 0)
                assert_int_equal(rw_ring_recv_start(echo->ring, echo->peers[p].fd, tag(RECV, p)), RW_OK);
            echo_send(echo, p);
            break;
        case SEND:
            assert_true(completion->result > 0 && (size_t)completion->result <= echo->peers[p].inflight && !more);
            echo->peers[p].sent += (size_t)completion->result;
            echo->peers[p].inflight = 0;
            echo_send(echo, p);
            break;
        default: fail();
    }
}

static uint8_t stream_byte(uint32_t p, size_t i) { return (uint8_t)(p * 41 + i * 17 + i / 256); }

/* ret: the trace */
static uint64_t echo_run(uint64_t seed, uint32_t *turns) {
    struct echo *echo = calloc(1, sizeof *echo);
    echo->ring = ring_open(seed);
    echo->listener = rw_sim_listen(echo->ring);
    assert_int_equal(rw_ring_accept_start(echo->ring, echo->listener, tag(ACCEPT, 0)), RW_OK);
    for (uint32_t p = 0; p < PEERS; p++) {
        uint8_t bytes[BYTES];
        for (size_t i = 0; i < BYTES; i++) bytes[i] = stream_byte(p, i);
        echo->peers[p].fd = rw_sim_connect(echo->ring, echo->listener);
        rw_sim_push(echo->ring, echo->peers[p].fd, bytes, BYTES);
        rw_sim_peer_shutdown(echo->ring, echo->peers[p].fd);
    }
    for (*turns = 0; echo->ended < PEERS && *turns < TURNS_MAX; *turns += 1) {
        struct rw_completion batch[8];
        assert_int_equal(rw_ring_submit(echo->ring, 0), RW_OK);
        uint32_t count = rw_ring_reap(echo->ring, batch, 8);
        for (uint32_t i = 0; i < count; i++) echo_complete(echo, &batch[i]);
    }
    if (echo->ended < PEERS)
        fail_msg("seed %llu: %u of %d connections ended", (unsigned long long)seed, echo->ended, PEERS);
    for (uint32_t p = 0; p < PEERS; p++) {
        uint8_t got[BYTES + 1];
        assert_int_equal(rw_sim_take(echo->ring, echo->peers[p].fd, got, sizeof got), BYTES);
        for (size_t i = 0; i < BYTES; i++) assert_int_equal(got[i], stream_byte(p, i));
        assert_true(rw_sim_is_closed(echo->ring, echo->peers[p].fd));
        rw_sim_forget(echo->ring, echo->peers[p].fd);
    }
    assert_int_equal(rw_sim_open_count(echo->ring), 1); /* the listener */
    assert_int_equal(rw_sim_borrowed(echo->ring), 0);
    uint64_t trace = echo->trace;
    rw_ring_destroy(echo->ring);
    free(echo);
    return trace;
}

static void whatever_the_seed_every_byte_comes_once_and_in_order(void **state) {
    (void)state;
    uint32_t turns;
    for (uint64_t seed = 0; seed < SEEDS; seed++) echo_run(seed, &turns);
}

static void the_same_seed_gives_the_same_run_and_another_seed_another(void **state) {
    (void)state;
    uint32_t turns;
    uint64_t first = echo_run(1, &turns);
    assert_true(echo_run(1, &turns) == first);
    assert_true(echo_run(2, &turns) != first);
}

static void seed_zero_completes_everything_whole_at_the_next_submit(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(0);
    struct rw_completion completion[4];
    int32_t listener = rw_sim_listen(ring), fd = rw_sim_connect(ring, listener);
    rw_ring_accept_start(ring, listener, 1);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 0); /* nothing before submit */
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 1);
    assert_int_equal(completion[0].result, fd);
    rw_ring_recv_start(ring, fd, 2);
    rw_sim_push(ring, fd, "hello", 5);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 1);
    assert_int_equal(completion[0].result, 5);
    assert_memory_equal(completion[0].data, "hello", 5);
    rw_ring_buffer_return(ring, completion[0].buffer_id);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)"world", .iov_len = 5};
    rw_ring_send(ring, fd, 3, &iov, 1);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 1);
    assert_int_equal(completion[0].result, 5);
    assert_int_equal(rw_sim_sent(ring, fd), 5);
    rw_ring_destroy(ring);
}

static void a_peer_can_stop_reading_read_on_and_vanish(void **state) {
    (void)state;
    struct rw_ring *ring = ring_open(0);
    struct rw_completion completion[4];
    int32_t listener = rw_sim_listen(ring), fd = rw_sim_connect(ring, listener);
    rw_ring_accept_start(ring, listener, 1);
    rw_ring_submit(ring, 0);
    rw_ring_reap(ring, completion, 4);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)"0123456789", .iov_len = 10};
    rw_sim_peer_window(ring, fd, 4);
    rw_ring_send(ring, fd, 3, &iov, 1);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 1);
    assert_int_equal(completion[0].result, 4);
    rw_ring_send(ring, fd, 3, &iov, 1);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 0);
    rw_sim_peer_window(ring, fd, SIZE_MAX);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 1);
    assert_int_equal(completion[0].result, 10);
    rw_ring_recv_start(ring, fd, 2);
    rw_sim_peer_reset(ring, fd);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 1);
    assert_int_equal(completion[0].result, -ECONNRESET);
    rw_ring_send(ring, fd, 3, &iov, 1);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, completion, 4), 1);
    assert_int_equal(completion[0].result, -EPIPE);
    rw_ring_close(ring, fd);
    rw_ring_destroy(ring);
}

static void after_a_cancel_late_completions_may_come_and_then_exactly_one_last(void **state) {
    (void)state;
    uint32_t late = 0, prompt = 0;
    for (uint64_t seed = 1; seed < SEEDS; seed++) {
        struct rw_ring *ring = ring_open(seed);
        struct rw_sim_faults faults = {.recv_split = 800, .late = 600, .delay = 300};
        rw_sim_faults_set(ring, &faults);
        int32_t listener = rw_sim_listen(ring), fd = rw_sim_connect(ring, listener);
        struct rw_completion completion;
        rw_ring_accept_start(ring, listener, 1);
        while (rw_ring_reap(ring, &completion, 1) == 0) rw_ring_submit(ring, 0);
        rw_ring_recv_start(ring, fd, 2);
        rw_sim_push(ring, fd, "some bytes that are under way", 29);
        rw_ring_cancel(ring, fd, 2);
        uint32_t data = 0, last = 0;
        for (uint32_t turn = 0; turn < 200; turn++) {
            rw_ring_submit(ring, 0);
            while (rw_ring_reap(ring, &completion, 1) == 1) {
                assert_int_equal(last, 0); /* nothing after the last */
                if (completion.flags & RW_COMPLETION_BUFFER) rw_ring_buffer_return(ring, completion.buffer_id);
                data += completion.flags & RW_COMPLETION_MORE;
                if (!(completion.flags & RW_COMPLETION_MORE)) last = completion.result == -ECANCELED;
            }
        }
        assert_int_equal(last, 1);
        late += data > 0;
        prompt += data == 0;
        rw_ring_close(ring, fd);
        rw_ring_destroy(ring);
    }
    assert_true(late > 0 && prompt > 0);
}

static void a_real_eventfd_is_polled_and_sleep_is_ended_by_a_peer(void **state) {
    (void)state;
    int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), inbox = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct rw_ring_config config = {
        .backend = RW_BACKEND_SIM, .entries = 64, .recv_buffers = 8, .recv_buffer_bytes = 64, .wake_fd = wake_fd};
    struct rw_ring *ring = rw_ring_create(&config, NULL, 0);
    struct rw_completion completion;
    uint64_t value = 1;
    rw_ring_poll_start(ring, inbox, 9);
    rw_ring_submit(ring, 0);
    assert_int_equal(rw_ring_reap(ring, &completion, 1), 0);
    assert_int_equal(write(inbox, &value, sizeof value), sizeof value);
    assert_int_equal(rw_ring_sleep(ring), 1);
    assert_int_equal(rw_ring_reap(ring, &completion, 1), 1);
    assert_int_equal(completion.user_data, 9);
    assert_int_equal(completion.flags, RW_COMPLETION_MORE);
    int32_t listener = rw_sim_listen(ring);
    rw_ring_accept_start(ring, listener, 1);
    assert_int_equal(rw_ring_sleep(ring), 0);
    assert_int_equal(read(wake_fd, &value, sizeof value), -1);
    rw_sim_connect(ring, listener);
    assert_int_equal(read(wake_fd, &value, sizeof value), sizeof value);
    rw_ring_cancel(ring, inbox, 9);
    rw_ring_submit(ring, 0);
    int cancelled = 0;
    while (rw_ring_reap(ring, &completion, 1) == 1)
        cancelled += completion.user_data == 9 && completion.result == -ECANCELED;
    assert_int_equal(cancelled, 1);
    rw_ring_close(ring, inbox);
    rw_ring_destroy(ring);
    close(wake_fd);
}

/* ---------------------------------------------------------------- violations */

static void change_the_buffer(struct rw_ring *ring, int32_t fd) {
    char bytes[] = "abc";
    struct iovec iov = {.iov_base = bytes, .iov_len = 3};
    rw_ring_send(ring, fd, 3, &iov, 1);
    bytes[1] = 'X';
    rw_ring_submit(ring, 0);
}

static void send_twice(struct rw_ring *ring, int32_t fd) {
    struct iovec iov = {.iov_base = (void *)(uintptr_t)"abc", .iov_len = 3};
    rw_ring_send(ring, fd, 3, &iov, 1);
    rw_ring_send(ring, fd, 4, &iov, 1);
}

static void close_while_armed(struct rw_ring *ring, int32_t fd) {
    rw_ring_recv_start(ring, fd, 2);
    rw_ring_close(ring, fd);
}

static void return_a_buffer_twice(struct rw_ring *ring, int32_t fd) {
    struct rw_completion completion;
    rw_ring_recv_start(ring, fd, 2);
    rw_sim_push(ring, fd, "x", 1);
    rw_ring_submit(ring, 0);
    if (rw_ring_reap(ring, &completion, 1) != 1) return;
    rw_ring_buffer_return(ring, completion.buffer_id);
    rw_ring_buffer_return(ring, completion.buffer_id);
}

static void each_violation_of_the_callers_duties_aborts(void **state) {
    (void)state;
    void (*const violations[])(struct rw_ring *, int32_t) = {change_the_buffer, send_twice, close_while_armed,
                                                             return_a_buffer_twice};
    for (size_t i = 0; i < sizeof violations / sizeof *violations; i++) {
        struct rw_ring *ring = ring_open(0);
        int32_t listener = rw_sim_listen(ring), fd = rw_sim_connect(ring, listener);
        struct rw_completion completion;
        rw_ring_accept_start(ring, listener, 1);
        rw_ring_submit(ring, 0);
        assert_int_equal(rw_ring_reap(ring, &completion, 1), 1);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
            signal(SIGABRT, SIG_DFL);
            violations[i](ring, fd);
            _exit(0); /* not caught */
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        rw_ring_destroy(ring);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_the_seed_every_byte_comes_once_and_in_order),
        cmocka_unit_test(the_same_seed_gives_the_same_run_and_another_seed_another),
        cmocka_unit_test(seed_zero_completes_everything_whole_at_the_next_submit),
        cmocka_unit_test(a_peer_can_stop_reading_read_on_and_vanish),
        cmocka_unit_test(after_a_cancel_late_completions_may_come_and_then_exactly_one_last),
        cmocka_unit_test(a_real_eventfd_is_polled_and_sleep_is_ended_by_a_peer),
        cmocka_unit_test(each_violation_of_the_callers_duties_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
