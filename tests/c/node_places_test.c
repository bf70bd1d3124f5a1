/* Places for more workers than live: what is empty costs no memory, and who comes and goes leaves none behind. */
#include "node_bus_fixture.h"

#include <sys/mman.h>
#include <sys/stat.h>

#define HASH 0x1234567890ABCDEFull
#define PLACES RW_WORKERS_MAX
#define PAGE 4096u

static int32_t fd;
static uint64_t address;
static struct rw_shm_header *shm;
static int32_t inboxes[PLACES];
static uint8_t payload[400000];

static int set_up(void **state) {
    (void)state;
    fd = rw_shm_create(PLACES, 0, 0, 0);
    if (fd < 0) return -1;
    address = rw_shm_map(fd, 0);
    shm = rw_shm_at(address);
    for (uint32_t w = 0; w < PLACES; w++) inboxes[w] = -1;
    return shm != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    rw_shm_unmap(address);
    close(fd);
    return 0;
}

static struct rw_node_bus *settle_at(uint32_t place) {
    struct rw_node_bus *bus =
        rw_node_bus_create(shm, place, inboxes, (struct rw_stats *)(uintptr_t)rw_shm_stats(address, place));
    assert_non_null(bus);
    return bus;
}

static uint64_t memory(void) {
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static int is_live(uint32_t place) { return (int)(atomic_load(&shm->live[place / 64]) >> (place % 64) & 1); }

struct count {
    uint32_t messages, damaged, from, last_number;
};

static int take(void *context, const struct rw_node_message *message) {
    struct count *count = context;
    uint32_t incarnation;
    count->messages++;
    count->from = message->from;
    if (!message_intact(message->payload, message->payload_bytes, &incarnation, &count->last_number)) count->damaged++;
    return 1;
}

static void receive(struct rw_node_bus *bus, struct count *count) {
    int more;
    (void)rw_node_bus_receive(bus, 1000000, take, count, &more);
    assert_int_equal(more, 0);
}

static uint32_t publish(struct rw_node_bus *bus, uint32_t bytes, uint32_t number) {
    message_fill(payload, bytes, 0, number);
    const struct rw_node_message message = message_of(payload, bytes, HASH);
    return rw_node_bus_publish(bus, &message);
}

static void a_few_workers_among_many_places_touch_nothing_but_their_own(void **state) {
    (void)state;
    static const uint32_t places[] = {0, 63, 64, 255, 256, 511};
    enum { WORKERS = sizeof places / sizeof *places };
    struct rw_node_bus *bus[WORKERS];
    const uint64_t empty = memory();
    for (uint32_t i = 0; i < WORKERS; i++) bus[i] = settle_at(places[i]);
    const uint64_t settled = memory();
    assert_true(settled <= empty + 256 * 1024); /* worker blocks and counters, all of which are 600 KiB */
    for (uint64_t hash = 0; hash < RW_INTEREST_CELLS; hash += 1000)
        assert_int_equal(rw_node_bus_wanted(bus[0], hash), 0);
    /* A worker that lives has interest cells of its own, 512 KiB, and looking at them may touch these; those of 506
     * empty places would be 253 MiB. */
    assert_true(memory() <= settled + WORKERS * RW_INTEREST_CELLS * sizeof(uint16_t));
    for (uint32_t i = 0; i < WORKERS; i++) assert_int_equal(publish(bus[i], 100, i), 0);
    const uint64_t before = memory();
    for (uint32_t i = 0; i < WORKERS; i++) rw_node_bus_interest(bus[i], HASH, 1);
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(rw_node_bus_wanted(bus[i], HASH), 1);
        assert_int_equal(publish(bus[i], 100, i), WORKERS - 1);
        rw_node_bus_flush(bus[i]);
    }
    assert_true(memory() <= before + WORKERS * PAGE + WORKERS * (WORKERS - 1) * PAGE);
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct count count = {0};
        receive(bus[i], &count);
        assert_int_equal(count.messages, WORKERS - 1);
        assert_int_equal(count.damaged, 0);
    }
    for (uint32_t i = 0; i < WORKERS; i++) rw_node_bus_destroy(bus[i]);
}

static void every_place_can_speak_to_every_other(void **state) {
    (void)state;
    struct rw_node_bus *low = settle_at(3);
    rw_node_bus_interest(low, HASH, 1);
    for (uint32_t place = 0; place < PLACES; place += place % 64 == 63 ? 1 : 31) {
        if (place == 3) continue;
        struct rw_node_bus *other = settle_at(place);
        rw_node_bus_interest(other, HASH, 1);
        struct count heard = {0}, answered = {0};
        assert_int_equal(publish(other, 50, place), 1);
        rw_node_bus_flush(other);
        assert_int_equal(rw_node_bus_sleeping(low, 1), 1);
        receive(low, &heard);
        assert_int_equal(heard.messages, 1);
        assert_int_equal(heard.from, place);
        assert_int_equal(heard.last_number, place);
        assert_int_equal(rw_node_bus_mail(low, place, payload, 50), RW_OK);
        rw_node_bus_flush(low);
        receive(other, &answered);
        assert_int_equal(answered.messages, 1);
        assert_int_equal(answered.from, 3);
        rw_node_bus_destroy(other);
        rw_shm_worker_gone(address, place);
    }
    rw_node_bus_destroy(low);
}

static void who_has_left_is_not_looked_at_any_more(void **state) {
    (void)state;
    struct rw_node_bus *one = settle_at(1), *two = settle_at(300);
    assert_true(is_live(1) && is_live(300) && !is_live(2));
    rw_node_bus_interest(two, HASH, 1);
    assert_int_equal(rw_node_bus_wanted(one, HASH), 1);
    rw_node_bus_destroy(two);
    assert_false(is_live(300));
    assert_int_equal(rw_node_bus_wanted(one, HASH), 0);
    two = settle_at(300);
    assert_true(is_live(300));
    rw_node_bus_interest(two, HASH, 1);
    rw_shm_worker_gone(address, 300);
    assert_false(is_live(300));
    /* Its cells are a hole again, and nobody reads them. */
    const uint64_t before = memory();
    assert_int_equal(rw_node_bus_wanted(one, HASH), 0);
    assert_int_equal(publish(one, 10, 0), 0);
    assert_int_equal(memory(), before);
    rw_node_bus_destroy(two);
    rw_node_bus_destroy(one);
}

/* All around both rings. */
static void exchange(struct rw_node_bus *one, struct rw_node_bus *other, uint32_t bytes, struct count *count) {
    for (uint32_t number = 0; number < 30; number++) {
        assert_int_equal(publish(one, bytes, number), 1);
        assert_int_equal(publish(other, bytes, number), 1);
        rw_node_bus_flush(one);
        rw_node_bus_flush(other);
        receive(one, count);
        receive(other, count);
    }
}

static void the_rings_of_a_worker_that_is_gone_are_given_back(void **state) {
    (void)state;
    struct rw_node_bus *stays = settle_at(0), *leaves = settle_at(5);
    struct count count = {0};
    rw_node_bus_interest(stays, HASH, 1);
    rw_node_bus_interest(leaves, HASH, 1);
    const uint64_t before = memory();
    exchange(stays, leaves, 100000, &count);
    assert_int_equal(count.messages, 60);
    assert_true(memory() >= before + 2 * RW_NODE_RING_BYTES_DEFAULT / 10 * 9);
    /* What the others have not read yet stays. */
    for (uint32_t number = 0; number < 3; number++) assert_int_equal(publish(leaves, 100000, number), 1);
    rw_node_bus_flush(leaves);
    rw_node_bus_destroy(leaves);
    rw_shm_worker_gone(address, 5);
    assert_true(memory() <= before + 300000 + 8 * PAGE);
    count = (struct count){0};
    receive(stays, &count);
    assert_int_equal(count.messages, 3);
    assert_int_equal(count.damaged, 0);
    /* And a successor goes on where it ended. */
    leaves = settle_at(5);
    rw_node_bus_interest(leaves, HASH, 1);
    exchange(stays, leaves, 90000, &count);
    assert_int_equal(count.messages, 63);
    assert_int_equal(count.damaged, 0);
    rw_node_bus_destroy(leaves);
    rw_node_bus_destroy(stays);
}

/* At any place of the ring, what is unread survives and what is read does not stay. */
static void giving_back_keeps_exactly_what_is_unread(void **state) {
    (void)state;
    uint64_t seed = 20261123;
    struct rw_node_bus *reader = settle_at(0);
    rw_node_bus_interest(reader, HASH, 1);
    struct count count = {0};
    uint32_t wanted = 0;
    for (uint32_t round = 0; round < 60; round++) {
        struct rw_node_bus *writer = settle_at(7);
        for (uint32_t i = random_next(&seed) % 12; i > 0; i--, wanted++) {
            assert_int_equal(publish(writer, STAMP_BYTES + random_next(&seed) % 130000, wanted), 1);
            rw_node_bus_flush(writer);
            receive(reader, &count);
        }
        uint64_t unread = 0;
        for (uint32_t i = random_next(&seed) % 8; i > 0; i--, wanted++) {
            const uint32_t bytes = STAMP_BYTES + random_next(&seed) % 100000;
            assert_int_equal(publish(writer, bytes, wanted), 1);
            unread += bytes;
        }
        assert_int_equal(rw_node_bus_flush(writer), 0);
        rw_node_bus_destroy(writer);
        rw_shm_worker_gone(address, 7);
        const struct rw_shm_ring *ring = rw_shm_ring(shm, 7, 0);
        unsigned char resident[RW_NODE_RING_BYTES_DEFAULT / PAGE + 1];
        assert_int_equal(mincore((void *)(uintptr_t)ring, RW_NODE_RING_BYTES_DEFAULT + PAGE, resident), 0);
        uint64_t pages = 0;
        for (size_t i = 0; i < sizeof resident; i++) pages += resident[i] & 1;
        /* Both ends of what is unread, the positions, and pads at the end of the ring. */
        assert_true(pages <= unread / PAGE + 4 + RW_NODE_RING_BYTES_DEFAULT / 4 / PAGE);
        receive(reader, &count);
        assert_int_equal(count.messages, wanted);
        assert_int_equal(count.damaged, 0);
    }
    assert_int_equal(((struct rw_stats *)(uintptr_t)rw_shm_stats(address, 0))->node_drops, 0);
    rw_node_bus_destroy(reader);
}

static void the_view_is_one_word_and_epochs_tell_processes_apart(void **state) {
    (void)state;
    assert_true(atomic_load(&shm->view) == 0);
    rw_shm_view_set(address, 0xFFFFFFFFu, 256, 256);
    assert_true(atomic_load(&shm->view) == (0xFFFFFFFFull << 32 | 256u << 16 | 256u));
    rw_shm_view_set(address, 3, 0, 512);
    assert_true(atomic_load(&shm->view) == (3ull << 32 | 512u));
    rw_shm_view_set(0, 3, 0, 512); /* no memory: nothing */
    assert_int_equal(rw_shm_epoch(address, 9), 0);
    struct rw_node_bus *bus = settle_at(9);
    assert_int_equal(rw_shm_epoch(address, 9), 1);
    assert_int_equal(rw_node_bus_epoch(bus), 1);
    rw_node_bus_destroy(bus);
    assert_int_equal(rw_shm_epoch(address, 9), 2);
    bus = settle_at(9);
    assert_int_equal(rw_node_bus_epoch(bus), 3);
    rw_shm_worker_gone(address, 9);
    assert_int_equal(rw_shm_epoch(address, 9), 4);
    assert_int_equal(rw_shm_epoch(address, PLACES), 0);
    assert_int_equal(rw_shm_epoch(0, 0), 0);
    rw_node_bus_destroy(bus);
}

#define WITH_PLACES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_PLACES(a_few_workers_among_many_places_touch_nothing_but_their_own),
        WITH_PLACES(every_place_can_speak_to_every_other),
        WITH_PLACES(who_has_left_is_not_looked_at_any_more),
        WITH_PLACES(the_rings_of_a_worker_that_is_gone_are_given_back),
        WITH_PLACES(giving_back_keeps_exactly_what_is_unread),
        WITH_PLACES(the_view_is_one_word_and_epochs_tell_processes_apart),
    };
    return cmocka_run_group_tests_name("places of a node", tests, NULL, NULL);
}
