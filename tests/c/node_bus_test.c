/* The node bus within one process: order, interest, outboxes, take-over, and rings with nonsense in them. */
#include "node_bus_fixture.h"

#include <errno.h>
#include <poll.h>
#include <sys/wait.h>

#include "node/node_ring.h"

#define HASH 0x1234567890ABCDEFull
#define LARGE_BYTES (3u << 20)

struct log {
    uint32_t count;
    uint32_t next_number; /* expected of the next message */
    uint32_t wrong;       /* messages out of order or damaged */
    uint32_t last_bytes;
    uint32_t by_sender[FIXTURE_WORKERS];
    struct rw_node_message last;
};

static struct node node;
static struct rw_node_bus *bus[FIXTURE_WORKERS];
static uint8_t *payload;

static int take(void *context, const struct rw_node_message *message) {
    struct log *log = context;
    uint32_t incarnation;
    uint32_t number;
    log->count++;
    log->by_sender[message->from]++;
    log->last = *message;
    if (message->topic_bytes != 8 || memcmp(message->topic, "room/one", 8) != 0 || message->flags != RW_SEND_TEXT)
        log->wrong++;
    if (message->payload_bytes < STAMP_BYTES) return 1;
    if (!message_intact(message->payload, message->payload_bytes, &incarnation, &number) || number != log->next_number)
        log->wrong++;
    log->next_number = number + 1;
    return 1;
}

static uint32_t publish(uint32_t from, uint32_t bytes, uint32_t number) {
    message_fill(payload, bytes, 0, number);
    const struct rw_node_message message = message_of(payload, bytes, HASH);
    return rw_node_bus_publish(bus[from], &message);
}

static uint32_t receive(uint32_t worker, struct log *log) {
    int more = 0;
    const uint32_t taken = rw_node_bus_receive(bus[worker], 1000000, take, log, &more);
    assert_int_equal(more, 0);
    return taken;
}

/* Sender and receiver take turns until nothing moves any more. */
static void settle(uint32_t from, uint32_t to, struct log *log) {
    uint64_t before;
    uint64_t waiting = UINT64_MAX;
    uint64_t read;
    do {
        before = waiting;
        waiting = rw_node_bus_flush(bus[from]);
        read = atomic_load(&rw_shm_ring(node.shm, from, to)->read);
        receive(to, log);
    } while (waiting != before || atomic_load(&rw_shm_ring(node.shm, from, to)->read) != read);
}

static int set_up(void **state) {
    (void)state;
    payload = malloc(LARGE_BYTES * 6);
    if (payload == NULL || node_open(&node) != 0) return -1;
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++)
        if ((bus[w] = bus_of(&node, w)) == NULL) return -1;
    struct log nothing = {0};
    /* each has announced itself to those before it */
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) receive(w, &nothing);
    return nothing.count == 0 ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) rw_node_bus_destroy(bus[w]);
    node_close(&node);
    free(payload);
    return 0;
}

static void test_a_message_arrives_once_with_everything_it_had(void **state) {
    (void)state;
    struct log log = {0};
    rw_node_bus_interest(bus[1], HASH, 1);
    assert_int_equal(publish(0, 100, 0), 1);
    rw_node_bus_flush(bus[0]);
    assert_int_equal(receive(1, &log), 1);
    assert_int_equal(log.wrong, 0);
    assert_int_equal(log.last.from, 0);
    assert_int_equal(log.last.payload_bytes, 100);
    assert_true(log.last.topic_hash == HASH);
    assert_int_equal(receive(1, &log), 0);
    assert_int_equal(stats_of(&node, 0)->node_messages_out, 1);
    assert_int_equal(stats_of(&node, 1)->node_messages_in, 1);
    assert_int_equal(stats_of(&node, 1)->publishes_remote, 1);
}

static void test_only_interested_workers_get_messages(void **state) {
    (void)state;
    struct log log[FIXTURE_WORKERS] = {{0}};
    assert_int_equal(publish(0, 64, 0), 0);
    rw_node_bus_interest(bus[0], HASH, 1); /* its own interest is not its business here */
    rw_node_bus_interest(bus[1], HASH, 1);
    rw_node_bus_interest(bus[3], HASH, 1);
    rw_node_bus_interest(bus[2], HASH + 1, 1);
    assert_int_equal(publish(0, 64, 0), 2);
    rw_node_bus_interest(bus[3], HASH, 0);
    assert_int_equal(publish(0, 64, 1), 1);
    rw_node_bus_flush(bus[0]);
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) receive(w, &log[w]);
    assert_int_equal(log[0].count, 0);
    assert_int_equal(log[1].count, 2);
    assert_int_equal(log[2].count, 0);
    assert_int_equal(log[3].count, 1);
    assert_int_equal(stats_of(&node, 0)->node_messages_out, 3);
}

static void test_interest_is_counted_and_saturates_for_good(void **state) {
    (void)state;
    rw_node_bus_interest(bus[1], HASH, 0); /* below zero it does not go */
    rw_node_bus_interest(bus[1], HASH, 1);
    rw_node_bus_interest(bus[1], HASH + RW_INTEREST_CELLS, 1); /* another topic, the same cell */
    rw_node_bus_interest(bus[1], HASH, 0);
    assert_int_equal(publish(0, 8, 0), 1);
    rw_node_bus_interest(bus[1], HASH + RW_INTEREST_CELLS, 0);
    assert_int_equal(publish(0, 8, 1), 0);
    for (uint32_t i = 0; i < 70000; i++) rw_node_bus_interest(bus[1], HASH, 1);
    for (uint32_t i = 0; i < 70000; i++) rw_node_bus_interest(bus[1], HASH, 0);
    assert_int_equal(publish(0, 8, 2), 1);
    rw_node_bus_destroy(bus[1]);
    bus[1] = bus_of(&node, 1);
    assert_int_equal(publish(0, 8, 3), 0);
}

static void test_messages_of_every_size_arrive_whole_and_in_order(void **state) {
    (void)state;
    struct log log = {0};
    const uint32_t quarter = FIXTURE_RING_BYTES / 4;
    const uint32_t sizes[] = {8,
                              9,
                              15,
                              16,
                              17,
                              1000,
                              quarter - 49,
                              quarter - 48,
                              quarter - 47,
                              quarter,
                              2 * quarter - 89,
                              2 * quarter - 88,
                              2 * quarter - 87,
                              FIXTURE_RING_BYTES - 1,
                              FIXTURE_RING_BYTES,
                              FIXTURE_RING_BYTES + 1,
                              1u << 20,
                              LARGE_BYTES};
    rw_node_bus_interest(bus[1], HASH, 1);
    uint32_t number = 0;
    for (uint32_t round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            assert_int_equal(publish(0, sizes[i], number++), 1);
            if ((i + round) % 3 == 0) settle(0, 1, &log);
        }
    settle(0, 1, &log);
    assert_int_equal(log.count, number);
    assert_int_equal(log.wrong, 0);
    for (uint32_t bytes = 0; bytes < STAMP_BYTES; bytes++) {
        assert_int_equal(publish(0, bytes, number), 1);
        settle(0, 1, &log);
        assert_int_equal(log.last.payload_bytes, bytes);
    }
    assert_int_equal(log.wrong, 0);
    assert_int_equal(stats_of(&node, 0)->node_outbox_bytes, 0);
}

static void test_random_sizes_wrap_the_ring_at_every_place(void **state) {
    (void)state;
    struct log log = {0};
    uint64_t seed = 0x9E3779B97F4A7C15ull;
    rw_node_bus_interest(bus[2], HASH, 1);
    const uint32_t messages = 6000;
    for (uint32_t number = 0; number < messages; number++) {
        const uint32_t pick = random_next(&seed);
        assert_int_equal(publish(3, STAMP_BYTES + (pick % 50 == 0 ? pick % 60000 : pick % 700), number), 1);
        if (random_next(&seed) % 8 == 0) settle(3, 2, &log);
    }
    settle(3, 2, &log);
    assert_int_equal(log.count, messages);
    assert_int_equal(log.wrong, 0);
}

static void test_each_sender_has_its_turn_and_the_rest_is_kept(void **state) {
    (void)state;
    struct log log = {0};
    rw_node_bus_interest(bus[0], HASH, 1);
    for (uint32_t from = 1; from < FIXTURE_WORKERS; from++) {
        for (uint32_t i = 0; i < 200; i++) publish(from, 4, 0);
        rw_node_bus_flush(bus[from]);
    }
    int more = 0;
    assert_int_equal(rw_node_bus_receive(bus[0], 192, take, &log, &more), 192);
    assert_int_equal(more, 1);
    for (uint32_t from = 1; from < FIXTURE_WORKERS; from++) assert_int_equal(log.by_sender[from], 64);
    assert_int_equal(rw_node_bus_sleeping(bus[0], 1), 1); /* what is left needs no one to say so again */
    assert_int_equal(receive(0, &log), 600 - 192);
    assert_int_equal(rw_node_bus_sleeping(bus[0], 1), 0);
    rw_node_bus_sleeping(bus[0], 0);
}

static void test_past_the_outbox_limit_whole_messages_are_dropped_and_counted(void **state) {
    (void)state;
    struct log slow = {0};
    struct log quick = {0};
    rw_node_bus_interest(bus[1], HASH, 1);
    rw_node_bus_interest(bus[2], HASH, 1);
    const uint32_t bytes = 100000;
    uint32_t kept = 0;
    for (uint32_t number = 0; number < 400; number++) {
        kept += publish(0, bytes, number) - 1;
        assert_true(rw_node_bus_flush(bus[0]) <= 2ull * RW_NODE_OUTBOX_BYTES_MAX);
        settle(0, 2, &quick);
        if (stats_of(&node, 0)->node_drops > 0) break;
    }
    assert_int_equal(stats_of(&node, 0)->node_drops, 1);
    assert_true(kept >= RW_NODE_OUTBOX_BYTES_MAX / bytes);
    assert_true(stats_of(&node, 0)->node_outbox_bytes <= RW_NODE_OUTBOX_BYTES_MAX);
    assert_int_equal(quick.wrong, 0);
    assert_int_equal(quick.count, kept + 1);
    settle(0, 1, &slow); /* as if it had only been stopped for a while */
    assert_int_equal(slow.count, kept);
    assert_int_equal(slow.wrong, 0);
    assert_int_equal(stats_of(&node, 0)->node_outbox_bytes, 0);
    assert_int_equal(publish(0, bytes, kept), 2);
    settle(0, 1, &slow);
    assert_int_equal(slow.wrong, 0);
}

static void test_a_message_too_large_to_wait_leaves_nothing_behind(void **state) {
    (void)state;
    struct log log = {0};
    rw_node_bus_interest(bus[1], HASH, 1);
    message_fill(payload, 17u << 20, 0, 0);
    const struct rw_node_message message = message_of(payload, 17u << 20, HASH);
    assert_int_equal(rw_node_bus_publish(bus[0], &message), 0);
    assert_int_equal(stats_of(&node, 0)->node_drops, 1);
    assert_int_equal(publish(0, 16u << 20, 0), 1); /* what a WebSocket may carry by default goes through */
    assert_int_equal(publish(0, 100000, 1), 0);    /* behind it there is no room */
    settle(0, 1, &log);
    assert_int_equal(log.count, 1);
    assert_int_equal(log.wrong, 0);
    uint8_t long_topic[RW_TOPIC_BYTES_MAX + 1] = {0};
    struct rw_node_message odd = message_of(payload, 8, HASH);
    odd.topic = long_topic;
    odd.topic_bytes = sizeof long_topic;
    assert_int_equal(rw_node_bus_publish(bus[0], &odd), 0);
}

static void test_what_waits_for_a_gone_worker_is_thrown_away_and_not_counted(void **state) {
    (void)state;
    struct log log = {0};
    rw_node_bus_interest(bus[1], HASH, 1);
    for (uint32_t number = 0; number < 10; number++) publish(0, 50000, number);
    assert_true(rw_node_bus_flush(bus[0]) > 0);
    rw_shm_worker_gone(node.address, 1);
    assert_int_equal(rw_node_bus_flush(bus[0]), 0);
    assert_int_equal(publish(0, 8, 0), 0);
    rw_node_bus_destroy(bus[1]);
    bus[1] = bus_of(&node, 1);
    rw_node_bus_interest(bus[1], HASH, 1);
    rw_node_bus_flush(bus[0]);
    assert_int_equal(receive(1, &log), 0);
    assert_int_equal(publish(0, 8, 0), 1);
    settle(0, 1, &log);
    assert_int_equal(log.count, 1);
    assert_int_equal(stats_of(&node, 0)->node_drops, 0);
}

/* Write a part of a message as its sender would, from `payload_done` on, as incarnation `epoch`. ret: how far it
 * came before the ring was full */
static uint32_t write_part(uint32_t epoch, uint32_t payload_done, uint32_t bytes) {
    struct rw_shm_ring *ring = rw_shm_ring(node.shm, 0, 1);
    struct rw_node_writer writer = {.ring = ring,
                                    .ring_bytes = FIXTURE_RING_BYTES,
                                    .written = atomic_load(&ring->written),
                                    .read_seen = atomic_load(&ring->read)};
    const struct rw_node_message message = message_of(payload, bytes, HASH);
    struct rw_node_progress progress = {.payload = payload_done, .started = payload_done > 0};
    uint64_t position = writer.written;
    rw_node_ring_write(&writer, &message, epoch, &progress, &position);
    atomic_store(&ring->written, position);
    atomic_fetch_or(&rw_shm_worker(node.shm, 1)->pending[0], 1);
    return progress.payload;
}

static void test_a_successor_never_takes_the_tail_of_a_message_for_a_message(void **state) {
    (void)state;
    struct log before = {0};
    struct log after = {0};
    rw_node_bus_interest(bus[1], HASH, 1);
    publish(0, 150000, 0);
    publish(0, 150000, 1);
    rw_node_bus_flush(bus[0]);
    receive(1, &before); /* the beginning of message 0 */
    assert_int_equal(before.count, 0);
    struct rw_node_bus *predecessor = bus[1];
    bus[1] = bus_of(&node, 1); /* nobody said that the old one is gone */
    rw_node_bus_interest(bus[1], HASH, 1);
    /* What a sender does that has not looked at the epoch yet: a tail that is well-formed in itself. */
    write_part(1, 15000, 20000);
    assert_int_equal(receive(1, &after), 0);
    assert_int_equal(stats_of(&node, 1)->node_drops, 0);
    rw_node_bus_destroy(bus[0]);
    bus[0] = bus_of(&node, 0);
    publish(0, 20000, 0);
    settle(0, 1, &after);
    assert_int_equal(after.count, 1);
    assert_int_equal(after.wrong, 0);
    rw_node_bus_destroy(predecessor);
}

static void test_a_part_that_does_not_continue_its_message_ends_it(void **state) {
    (void)state;
    struct log log = {0};
    const uint32_t bytes = 100000;
    message_fill(payload, bytes, 0, 0);
    uint32_t done = write_part(1, 0, bytes);
    assert_true(done < bytes);
    receive(1, &log);
    write_part(1, done + 8, bytes); /* a gap */
    receive(1, &log);
    write_part(1, done, bytes); /* too late */
    receive(1, &log);
    assert_int_equal(log.count, 0);
    done = write_part(1, 0, bytes);
    receive(1, &log);
    write_part(3, done, bytes); /* the right place, but of a successor */
    receive(1, &log);
    assert_int_equal(log.count, 0);
    done = write_part(1, 0, bytes);
    receive(1, &log);
    assert_int_equal(write_part(1, done, bytes), bytes);
    receive(1, &log);
    assert_int_equal(log.count, 1);
    assert_int_equal(log.wrong, 0);
    assert_int_equal(stats_of(&node, 1)->node_drops, 0);
}

static void test_an_unfinished_message_of_a_dead_sender_is_discarded(void **state) {
    (void)state;
    struct log log = {0};
    rw_node_bus_interest(bus[1], HASH, 1);
    for (uint32_t next_is_large = 0; next_is_large < 2; next_is_large++) {
        publish(0, LARGE_BYTES, 7);
        rw_node_bus_flush(bus[0]);
        receive(1, &log);
        assert_int_equal(log.count, 0);
        rw_node_bus_destroy(bus[0]); /* the rest was in its outbox */
        receive(1, &log);
        bus[0] = bus_of(&node, 0);
        publish(0, next_is_large ? 1u << 20 : 100, 0);
        settle(0, 1, &log);
        assert_int_equal(log.count, 1);
        assert_int_equal(log.wrong, 0);
        log = (struct log){0};
    }
}

static void test_a_complete_message_of_a_dead_sender_still_arrives(void **state) {
    (void)state;
    struct log log = {0};
    rw_node_bus_interest(bus[1], HASH, 1);
    const pid_t child = fork();
    if (child == 0) {
        bus[0] = bus_of(&node, 0);
        publish(0, 40000, 0); /* several records, and dead before it tells anyone */
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    rw_shm_worker_gone(node.address, 0);
    struct rw_node_bus *predecessor = bus[0];
    bus[0] = bus_of(&node, 0);
    receive(1, &log);
    assert_int_equal(log.count, 1);
    assert_int_equal(log.wrong, 0);
    rw_node_bus_destroy(predecessor);
}

static void test_nonsense_in_a_ring_is_skipped_and_counted(void **state) {
    (void)state;
    uint64_t seed = 42;
    struct log log = {0};
    struct rw_shm_ring *ring = rw_shm_ring(node.shm, 0, 1);
    rw_node_bus_interest(bus[1], HASH, 1);
    for (uint32_t round = 0; round < 3000; round++) {
        /* Two good records, one word of them replaced by an evil value. */
        const uint64_t start = atomic_load(&ring->written);
        publish(0, round % 5 == 0 ? 30000 : 200, 0);
        publish(0, 200, 1);
        rw_node_bus_flush(bus[0]);
        const uint32_t evil[] = {0,
                                 1,
                                 4,
                                 7,
                                 8,
                                 16,
                                 39,
                                 40,
                                 48,
                                 0x7FFFFFFF,
                                 0x80000000u,
                                 0xFFFFFFF8u,
                                 0xFFFFFFFFu,
                                 FIXTURE_RING_BYTES,
                                 random_next(&seed)};
        const uint32_t value = evil[random_next(&seed) % (sizeof evil / sizeof *evil)];
        memcpy(&ring->bytes[(start + random_next(&seed) % 10 * 4) & (FIXTURE_RING_BYTES - 1)], &value, sizeof value);
        int more;
        rw_node_bus_receive(bus[1], 100, take, &log, &more);
    }
    assert_true(stats_of(&node, 1)->node_drops > 100);
    log = (struct log){0};
    publish(0, 30000, 0);
    settle(0, 1, &log);
    assert_int_equal(log.count, 1);
    assert_int_equal(log.wrong, 0);
}

static void test_positions_out_of_their_mind_are_survived_on_both_sides(void **state) {
    (void)state;
    struct log log = {0};
    struct rw_shm_ring *ring = rw_shm_ring(node.shm, 0, 1);
    const uint64_t evil[] = {1, 8, 12345, 12344, UINT64_MAX, UINT64_MAX - 7, 1ull << 63, FIXTURE_RING_BYTES * 3ull};
    rw_node_bus_interest(bus[1], HASH, 1);
    for (size_t i = 0; i < sizeof evil / sizeof *evil; i++) {
        atomic_fetch_add(&ring->written, evil[i]);
        atomic_fetch_or(&rw_shm_worker(node.shm, 1)->pending[0], 1);
        receive(1, &log);
        rw_node_bus_destroy(bus[0]);
        bus[0] = bus_of(&node, 0);
        receive(1, &log);
        log = (struct log){0};
        publish(0, 100, 0);
        settle(0, 1, &log);
        assert_int_equal(log.count, 1);
        assert_int_equal(log.wrong, 0);
        const uint64_t read = atomic_load(&ring->read);
        atomic_store(&ring->read, read + evil[i]);
        for (uint32_t number = 0; number < 1000; number++) publish(0, 200, number);
        rw_node_bus_flush(bus[0]);
        receive(1, &log);
        atomic_store(&ring->read, atomic_load(&ring->written));
        settle(0, 1, &log);
    }
}

static void test_a_sleeper_is_woken_once_a_flush_and_one_that_is_awake_is_not(void **state) {
    (void)state;
    struct log log = {0};
    uint64_t value;
    rw_node_bus_interest(bus[1], HASH, 1);
    publish(0, 10, 0);
    rw_node_bus_flush(bus[0]);
    assert_int_equal(read(node.inboxes[1], &value, sizeof value), -1);
    assert_int_equal(rw_node_bus_sleeping(bus[1], 1), 1);
    receive(1, &log);
    assert_int_equal(rw_node_bus_sleeping(bus[1], 1), 0);
    for (uint32_t i = 0; i < 5; i++) publish(0, 4, 0);
    assert_int_equal(read(node.inboxes[1], &value, sizeof value), -1);
    rw_node_bus_flush(bus[0]);
    rw_node_bus_flush(bus[0]);
    assert_int_equal(read(node.inboxes[1], &value, sizeof value), sizeof value);
    assert_int_equal(value, 1);
    rw_node_bus_sleeping(bus[1], 0);
    assert_int_equal(receive(1, &log), 5);
}

static void test_a_sender_that_sleeps_on_a_full_ring_hears_of_room(void **state) {
    (void)state;
    struct log log = {0};
    uint64_t value;
    rw_node_bus_interest(bus[1], HASH, 1);
    publish(0, 200000, 0);
    assert_int_equal(rw_node_bus_sleeping(bus[0], 1), 0);
    receive(1, &log);
    assert_int_equal(read(node.inboxes[0], &value, sizeof value), sizeof value);
    rw_node_bus_sleeping(bus[0], 0);
    settle(0, 1, &log);
    assert_int_equal(log.count, 1);
    assert_int_equal(log.wrong, 0);
    receive(0, &log);
    assert_int_equal(rw_node_bus_sleeping(bus[0], 1), 0);
    publish(1, 8, 0); /* nobody waits any more: reading tells nobody */
    receive(1, &log);
    assert_int_equal(read(node.inboxes[0], &value, sizeof value), -1);
}

static void test_arguments_out_of_range_make_no_bus(void **state) {
    (void)state;
    assert_null(rw_node_bus_create(node.shm, FIXTURE_WORKERS, node.inboxes, stats_of(&node, 0)));
    assert_int_equal(errno, EINVAL);
    assert_null(rw_node_bus_create(NULL, 0, node.inboxes, stats_of(&node, 0)));
    rw_node_bus_destroy(NULL);
}

#define WITH_NODE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_NODE(test_a_message_arrives_once_with_everything_it_had),
        WITH_NODE(test_only_interested_workers_get_messages),
        WITH_NODE(test_interest_is_counted_and_saturates_for_good),
        WITH_NODE(test_messages_of_every_size_arrive_whole_and_in_order),
        WITH_NODE(test_random_sizes_wrap_the_ring_at_every_place),
        WITH_NODE(test_each_sender_has_its_turn_and_the_rest_is_kept),
        WITH_NODE(test_past_the_outbox_limit_whole_messages_are_dropped_and_counted),
        WITH_NODE(test_a_message_too_large_to_wait_leaves_nothing_behind),
        WITH_NODE(test_what_waits_for_a_gone_worker_is_thrown_away_and_not_counted),
        WITH_NODE(test_a_successor_never_takes_the_tail_of_a_message_for_a_message),
        WITH_NODE(test_a_part_that_does_not_continue_its_message_ends_it),
        WITH_NODE(test_an_unfinished_message_of_a_dead_sender_is_discarded),
        WITH_NODE(test_a_complete_message_of_a_dead_sender_still_arrives),
        WITH_NODE(test_nonsense_in_a_ring_is_skipped_and_counted),
        WITH_NODE(test_positions_out_of_their_mind_are_survived_on_both_sides),
        WITH_NODE(test_a_sleeper_is_woken_once_a_flush_and_one_that_is_awake_is_not),
        WITH_NODE(test_a_sender_that_sleeps_on_a_full_ring_hears_of_room),
        WITH_NODE(test_arguments_out_of_range_make_no_bus),
    };
    return cmocka_run_group_tests_name("node_bus", tests, NULL, NULL);
}
