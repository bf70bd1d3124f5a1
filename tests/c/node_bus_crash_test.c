/* The node bus between real processes: killed senders, a stopped receiver, and wake-ups through the kernel.
 * Every wait has an end that only a lost wake-up or a lost message reaches. */
#include "node_bus_fixture.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#define HASH 77ull
#define PATIENCE_MS 20000 /* nothing here takes a thousandth of it, unless something is lost */

static struct node node;
static uint8_t payload[200000];

static int set_up(void **state) {
    (void)state;
    alarm(120);
    return node_open(&node);
}

static int tear_down(void **state) {
    (void)state;
    alarm(0);
    node_close(&node);
    return 0;
}

static int wait_readable(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    if (poll(&poll_fd, 1, PATIENCE_MS) != 1) return 0;
    uint64_t value;
    return read(fd, &value, sizeof value) == (ssize_t)sizeof value;
}

/* Sleep as a worker does. ret: 0 when nothing came in all the time */
static int nap(struct rw_node_bus *bus, uint32_t worker) {
    const int woken = rw_node_bus_sleeping(bus, 1) != 0 || wait_readable(node.inboxes[worker]);
    rw_node_bus_sleeping(bus, 0);
    return woken;
}

static int exit_status(pid_t child) {
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void publish_message(struct rw_node_bus *bus, uint32_t bytes, uint32_t incarnation, uint32_t number,
                            uint32_t *receivers) {
    message_fill(payload, bytes, incarnation, number);
    const struct rw_node_message message = message_of(payload, bytes, HASH);
    *receivers = rw_node_bus_publish(bus, &message);
}

/* What a receiver knows of one sender. */
struct stream {
    uint32_t incarnation;
    uint32_t next_number;
    uint32_t in_incarnation; /* messages of the present one */
    uint64_t total;
};

struct streams {
    struct stream of[FIXTURE_WORKERS];
    uint32_t wrong;
    int gaps_allowed;
};

static int take(void *context, const struct rw_node_message *message) {
    struct streams *streams = context;
    struct stream *stream = &streams->of[message->from];
    uint32_t incarnation;
    uint32_t number;
    if (!message_intact(message->payload, message->payload_bytes, &incarnation, &number)) {
        streams->wrong++;
        return 1;
    }
    if (incarnation > stream->incarnation)
        *stream = (struct stream){.incarnation = incarnation, .total = stream->total};
    if (incarnation < stream->incarnation || number < stream->next_number ||
        (number > stream->next_number && !streams->gaps_allowed))
        streams->wrong++;
    stream->next_number = number + 1;
    stream->in_incarnation++;
    stream->total++;
    return 1;
}

/* Flush, asleep in between, until all that waits in worker 0's outboxes is in rings. ret: 0 when it never came to
 * that */
static int flush_out(struct rw_node_bus *bus) {
    struct streams nothing = {0};
    while (rw_node_bus_flush(bus) > 0) {
        int more;
        if (rw_node_bus_receive(bus, 16, take, &nothing, &more) > 0) continue;
        /* Going to sleep flushes too: with nothing left there is nothing to wake up for. */
        const int awake = rw_node_bus_sleeping(bus, 1) != 0 || stats_of(&node, 0)->node_outbox_bytes == 0 ||
                          wait_readable(node.inboxes[0]);
        rw_node_bus_sleeping(bus, 0);
        if (!awake) return 0;
    }
    return 1;
}

/* A child that publishes for ever, from `number` 0 on, until it is killed. Its outbox is let fill at times, so that
 * death finds messages cut. */
static pid_t start_publisher(uint32_t worker, uint32_t incarnation, uint64_t seed) {
    const pid_t child = fork();
    if (child != 0) return child;
    struct rw_node_bus *bus = bus_of(&node, worker);
    for (uint32_t number = 0;;) {
        const uint32_t pick = random_next(&seed);
        const uint32_t bytes = STAMP_BYTES + (pick % 16 == 0 ? pick % 190000 : pick % 3000);
        uint32_t receivers;
        publish_message(bus, bytes, incarnation, number, &receivers);
        number += receivers;
        if (pick % 4 == 0 || receivers == 0) {
            rw_node_bus_flush(bus);
            sched_yield();
        }
        if (getppid() == 1) _exit(1);
    }
}

static void test_senders_killed_at_any_moment_leave_whole_messages_in_order(void **state) {
    (void)state;
    const uint32_t rounds = 40;
    uint64_t seed = 20260117;
    struct streams streams = {0};
    struct rw_node_bus *bus = bus_of(&node, 0);
    rw_node_bus_interest(bus, HASH, 1);
    const pid_t steady = start_publisher(2, 0, 99);
    for (uint32_t round = 0; round < rounds; round++) {
        const pid_t victim = start_publisher(1, round + 1, seed + round);
        const uint64_t steady_goal = streams.of[2].total + 1;
        const uint32_t goal = 1 + random_next(&seed) % 40;
        while (streams.of[1].incarnation != round + 1 || streams.of[1].in_incarnation < goal ||
               streams.of[2].total < steady_goal) {
            int more;
            /* A small bite: the victim's ring and outbox hold parts of messages when it dies. */
            if (rw_node_bus_receive(bus, 1 + random_next(&seed) % 8, take, &streams, &more) == 0)
                assert_true(nap(bus, 0));
        }
        assert_int_equal(kill(victim, SIGKILL), 0);
        assert_int_equal(exit_status(victim), 1000 + SIGKILL);
        if (round % 2 == 0) rw_shm_worker_gone(node.address, 1); /* else its successor is quicker than the supervisor */
        assert_int_equal(streams.wrong, 0);
    }
    kill(steady, SIGKILL);
    exit_status(steady);
    assert_int_equal(stats_of(&node, 0)->node_drops, 0);
    assert_int_equal(stats_of(&node, 0)->node_messages_in, streams.of[1].total + streams.of[2].total);
    rw_node_bus_destroy(bus);
}

static int receive_until_the_end_marker(int ready, uint32_t worker) {
    struct streams streams = {.gaps_allowed = 1};
    struct rw_node_bus *bus = bus_of(&node, worker);
    rw_node_bus_interest(bus, HASH, 1);
    if (write(ready, "r", 1) != 1) return 2;
    while (streams.of[0].incarnation != 9) {
        int more;
        if (rw_node_bus_receive(bus, 16, take, &streams, &more) == 0 && !nap(bus, worker)) return 3;
        rw_node_bus_flush(bus);
    }
    return streams.wrong != 0 ? 4 : 0;
}

static void test_a_stopped_receiver_holds_nobody_up(void **state) {
    (void)state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    struct rw_node_bus *sender = bus_of(&node, 0);
    struct rw_node_bus *live = bus_of(&node, 2);
    struct streams streams = {0};
    rw_node_bus_interest(live, HASH, 1);
    const pid_t stopped = fork();
    if (stopped == 0) _exit(receive_until_the_end_marker(ready[1], 1));
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    int status;
    kill(stopped, SIGSTOP);
    assert_int_equal(waitpid(stopped, &status, WUNTRACED), stopped);
    assert_true(WIFSTOPPED(status));
    const uint32_t messages = 500; /* 50 MB, three times what an outbox holds */
    for (uint32_t number = 0; number < messages; number++) {
        uint32_t receivers;
        publish_message(sender, 100000, 0, number, &receivers);
        assert_true(receivers >= 1);
        while (streams.of[0].next_number != number + 1) { /* the live one gets every message meanwhile */
            int more;
            assert_true(rw_node_bus_flush(sender) <= 2ull * RW_NODE_OUTBOX_BYTES_MAX);
            rw_node_bus_receive(live, 16, take, &streams, &more);
        }
    }
    assert_int_equal(streams.wrong, 0);
    assert_true(stats_of(&node, 0)->node_drops > 0);
    assert_true(stats_of(&node, 0)->node_outbox_bytes <= RW_NODE_OUTBOX_BYTES_MAX);
    rw_node_bus_interest(live, HASH, 0);
    kill(stopped, SIGCONT);
    assert_true(flush_out(sender));
    uint32_t receivers;
    publish_message(sender, 100, 9, 0, &receivers);
    assert_true(flush_out(sender));
    assert_int_equal(exit_status(stopped), 0);
    close(ready[0]);
    close(ready[1]);
    rw_node_bus_destroy(live);
    rw_node_bus_destroy(sender);
}

#define ROUND_TRIPS 10000u /* 20,000 messages, each waited for asleep */

/* Answer each message with one, asleep in between; `serve` begins. ret: 0, or what went wrong */
static int play(uint32_t worker, int serve) {
    struct streams streams = {0};
    struct rw_node_bus *bus = bus_of(&node, worker);
    const uint32_t other = 1 - worker;
    uint32_t receivers = 0;
    if (bus == NULL) return 2;
    rw_node_bus_interest(bus, HASH, 1);
    while (serve && receivers == 0) { /* until the other one is there */
        publish_message(bus, 64, 0, 0, &receivers);
        sched_yield();
    }
    uint32_t sent = serve ? 1 : 0;
    while (streams.of[other].total < ROUND_TRIPS) {
        int more;
        rw_node_bus_flush(bus);
        if (rw_node_bus_receive(bus, 16, take, &streams, &more) == 0) {
            if (!nap(bus, worker)) return 3;
        } else if (sent < ROUND_TRIPS) {
            publish_message(bus, 64, 0, sent++, &receivers);
            if (receivers != 1) return 4;
        }
    }
    rw_node_bus_flush(bus);
    return streams.wrong != 0 ? 5 : 0;
}

static void test_no_wake_up_is_lost_in_twenty_thousand(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) _exit(play(1, 0));
    /* The parent plays in a child of its own, so that a failure leaves no bus behind. */
    const pid_t server = fork();
    if (server == 0) _exit(play(0, 1));
    assert_int_equal(exit_status(server), 0);
    assert_int_equal(exit_status(child), 0);
}

#define STREAM_MESSAGES 300u

/* Large messages through a small ring: the sender sleeps for want of room, the receiver for want of messages. */
static int stream_out(void) {
    struct rw_node_bus *bus = bus_of(&node, 0);
    uint32_t receivers = 0;
    for (uint32_t number = 0; number < STREAM_MESSAGES; number++) {
        publish_message(bus, 199000, 0, number, &receivers);
        if (receivers != 1) return 2;
        if (!flush_out(bus)) return 3;
    }
    return 0;
}

static void test_no_wake_up_for_room_is_lost(void **state) {
    (void)state;
    struct rw_node_bus *bus = bus_of(&node, 1);
    struct streams streams = {0};
    rw_node_bus_interest(bus, HASH, 1);
    const pid_t sender = fork();
    if (sender == 0) _exit(stream_out());
    while (streams.of[0].total < STREAM_MESSAGES) {
        int more;
        if (rw_node_bus_receive(bus, 16, take, &streams, &more) == 0) assert_true(nap(bus, 1));
    }
    assert_int_equal(streams.wrong, 0);
    assert_int_equal(exit_status(sender), 0);
    rw_node_bus_destroy(bus);
}

#define WITH_NODE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_NODE(test_senders_killed_at_any_moment_leave_whole_messages_in_order),
        WITH_NODE(test_a_stopped_receiver_holds_nobody_up),
        WITH_NODE(test_no_wake_up_is_lost_in_twenty_thousand),
        WITH_NODE(test_no_wake_up_for_room_is_lost),
    };
    return cmocka_run_group_tests_name("node_bus between processes", tests, NULL, NULL);
}
