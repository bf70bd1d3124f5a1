/* The contract of ring.h for I/O: accept, receive, send, cancel; run against every backend that talks to the kernel:
 * io_uring as it comes, io_uring on an older kernel's flags, io_uring with SQPOLL, and epoll. What a backend cannot do
 * on this machine is skipped, and said so. */
#include "ring_fixture.h"

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

/* As in a reload: two processes wait at one listening socket, the first is told to stop while a connection comes. */
static void a_connection_that_came_as_an_accept_was_stopped_is_accepted_by_someone(void **state) {
    (void)state;
    struct rw_ring *first = ring_open(base_config());
    struct sockaddr_in address;
    int listener = listener_open(&address);
    assert_int_equal(rw_ring_accept_start(first, listener, 7), RW_OK);
    none(7);
    struct rw_ring_config config = base_config();
    config.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    char error[256];
    struct rw_ring *second = rw_ring_create(&config, error, sizeof error);
    assert_non_null(second);
    int same = dup(listener);
    assert_int_equal(rw_ring_accept_start(second, same, 7), RW_OK);
    struct rw_completion completion;
    assert_int_equal(rw_ring_submit(second, 1000), RW_OK);
    assert_int_equal(rw_ring_reap(second, &completion, 1), 0);

    int peer = peer_open(&address);
    assert_int_equal(rw_ring_accept_stop(first, listener, 7), RW_OK);
    close(listener);
    int other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); /* its number is used again at once */
    assert_int_equal(other, listener);
    int accepted = -1, ended = 0;
    for (int i = 0; i < TURNS_MAX && (accepted < 0 || !ended); i++) {
        if (!ended && next_within(7, &completion, 1)) {
            ended = !(completion.flags & RW_COMPLETION_MORE);
            if (completion.result >= 0) accepted = completion.result;
        }
        assert_int_equal(rw_ring_submit(second, 1000), RW_OK);
        if (rw_ring_reap(second, &completion, 1) > 0 && completion.result >= 0) accepted = completion.result;
    }
    assert_true(ended);
    assert_true(accepted >= 0);
    close(accepted);
    close(peer);
    rw_ring_destroy(second);
    close(config.wake_fd);
    close(same);
    close(other);
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
                for (int32_t i = 0; i < batch[c].result; i++, got[p]++)
                    assert_int_equal(batch[c].data[i], (uint8_t)(p * 7 + got[p] * 13 + got[p] / 251));
                held[held_count++] = batch[c];
            }
            if (batch[c].result == -ENOBUFS) {
                starved += 1;
                assert_int_equal(batch[c].flags, 0);
            }
            if (!(batch[c].flags & RW_COMPLETION_MORE) && batch[c].result == 0) ended += 1;
            else if (!(batch[c].flags & RW_COMPLETION_MORE))
                assert_int_equal(rw_ring_recv_start(ring, pairs[p][0], p), RW_OK);
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
        for (size_t i = 0; i < RW_SEND_IOVECS_MAX; i++)
            iov[i] = (struct iovec){.iov_base = (void *)(uintptr_t)&text[i * 4], .iov_len = 4};
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

int main(void) {
    const struct CMUnitTest contract[] = {
        CONTRACT(accept_gives_every_waiting_connection_non_blocking_and_close_on_exec),
        CONTRACT(accept_ends_at_EMFILE_and_goes_on_when_armed_again),
        CONTRACT(a_connection_that_came_as_an_accept_was_stopped_is_accepted_by_someone),
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
    };
    return run_contract(contract) != 0;
}
