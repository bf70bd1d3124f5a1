/* Mail between workers: whole, in order with publishes, kept when it is refused, and for one process only. */
#include "node_bus_fixture.h"

#include <signal.h>
#include <sys/mman.h>

#include "node/node_ring.h"

#define HASH 0x1234567890ABCDEFull
#define LOG_MAX 4096u

struct entry {
    uint32_t is_mail, from, epoch, bytes, number;
};

/* What came, and whether the next is to be refused. */
struct log {
    struct entry entries[LOG_MAX];
    uint32_t count;
    uint32_t damaged;
    uint32_t mail_room; /* of mail: how much more is taken */
    uint32_t refused;
};

static struct node node;
static struct rw_node_bus *bus[FIXTURE_WORKERS];
static uint8_t *payload;
static struct log logs[FIXTURE_WORKERS];

static int take(void *context, const struct rw_node_message *message) {
    struct log *log = context;
    struct entry entry = {
        .is_mail = message->is_mail, .from = message->from, .epoch = message->epoch, .bytes = message->payload_bytes};
    if (message->is_mail && log->mail_room == 0) {
        log->refused++;
        return 0;
    }
    log->mail_room -= message->is_mail != 0;
    uint32_t incarnation;
    if (message->payload_bytes >= STAMP_BYTES &&
        !message_intact(message->payload, message->payload_bytes, &incarnation, &entry.number))
        log->damaged++;
    if (message->topic_bytes != (message->is_mail ? 0u : 8u)) log->damaged++;
    assert_true(log->count < LOG_MAX);
    log->entries[log->count++] = entry;
    return 1;
}

static int32_t mail(uint32_t from, uint32_t to, uint32_t bytes, uint32_t number) {
    message_fill(payload, bytes, 0, number);
    return rw_node_bus_mail(bus[from], to, payload, bytes);
}

static void publish(uint32_t from, uint32_t bytes, uint32_t number) {
    message_fill(payload, bytes, 0, number);
    const struct rw_node_message message = message_of(payload, bytes, HASH);
    rw_node_bus_publish(bus[from], &message);
}

/* ret: whether something is left */
static int receive(uint32_t worker) {
    int more = 0;
    rw_node_bus_receive(bus[worker], 1000000, take, &logs[worker], &more);
    return more;
}

/* Sender and receiver take turns until the outbox is empty. */
static void settle(uint32_t from, uint32_t to) {
    for (uint32_t round = 0; rw_node_bus_flush(bus[from]) > 0; round++) {
        assert_true(round < 100000);
        (void)receive(to);
    }
    (void)receive(to);
}

static int set_up(void **state) {
    (void)state;
    payload = malloc(32u << 20);
    if (payload == NULL || node_open(&node) != 0) return -1;
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) {
        if ((bus[w] = bus_of(&node, w)) == NULL) return -1;
        logs[w] = (struct log){.mail_room = LOG_MAX};
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) rw_node_bus_destroy(bus[w]);
    node_close(&node);
    free(payload);
    return 0;
}

static void mail_arrives_once_and_names_its_sender(void **state) {
    (void)state;
    assert_int_equal(mail(2, 1, 100, 7), RW_OK);
    assert_int_equal(mail(2, 1, 0, 0), RW_OK);
    rw_node_bus_flush(bus[2]);
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) assert_int_equal(receive(w), 0);
    assert_int_equal(logs[1].count, 2);
    assert_int_equal(logs[1].damaged, 0);
    const struct entry *entry = logs[1].entries;
    assert_true(entry[0].is_mail && entry[0].from == 2 && entry[0].epoch == rw_node_bus_epoch(bus[2]) &&
                entry[0].bytes == 100 && entry[0].number == 7);
    assert_true(entry[1].is_mail && entry[1].bytes == 0);
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) assert_int_equal(logs[w].count, w == 1 ? 2 : 0);
    assert_int_equal(stats_of(&node, 1)->node_messages_in, 2);
    assert_int_equal(stats_of(&node, 1)->publishes_remote, 0);
    assert_int_equal(stats_of(&node, 2)->node_messages_out, 2);
}

static void mail_to_oneself_or_to_nobody_is_refused(void **state) {
    (void)state;
    assert_int_equal(mail(0, 0, 8, 0), RW_ERR_INVALID);
    assert_int_equal(mail(0, FIXTURE_WORKERS, 8, 0), RW_ERR_STALE);
    assert_int_equal(mail(0, UINT32_MAX, 8, 0), RW_ERR_STALE);
    rw_node_bus_destroy(bus[3]);
    assert_int_equal(mail(0, 3, 8, 0), RW_ERR_STALE);
    bus[3] = bus_of(&node, 3);
    rw_shm_worker_gone(node.address, 3);
    assert_int_equal(mail(0, 3, 8, 0), RW_ERR_STALE);
    assert_int_equal(stats_of(&node, 0)->node_messages_out, 0);
    assert_int_equal(stats_of(&node, 0)->node_drops, 0);
}

static void mail_and_publishes_of_one_sender_keep_their_order(void **state) {
    (void)state;
    uint64_t seed = 0x9E3779B97F4A7C15ull;
    rw_node_bus_interest(bus[1], HASH, 1);
    for (uint32_t number = 0; number < 3000; number++) {
        const uint32_t pick = random_next(&seed);
        const uint32_t bytes = STAMP_BYTES + (pick % 40 == 0 ? random_next(&seed) % 200000 : random_next(&seed) % 500);
        if (pick & 64) assert_int_equal(mail(0, 1, bytes, number), RW_OK);
        else publish(0, bytes, number);
        logs[1].mail_room = random_next(&seed) % 3; /* most turns refuse some, at the first record or at the last */
        if (random_next(&seed) % 4 == 0) {
            rw_node_bus_flush(bus[0]);
            (void)receive(1);
        }
    }
    assert_true(logs[1].refused > 100);
    logs[1].mail_room = LOG_MAX;
    settle(0, 1);
    assert_int_equal(logs[1].count, 3000);
    assert_int_equal(logs[1].damaged, 0);
    for (uint32_t number = 0; number < 3000; number++) assert_int_equal(logs[1].entries[number].number, number);
    assert_int_equal(stats_of(&node, 0)->node_drops, 0);
}

static void what_is_refused_stays_and_holds_up_its_own_sender_alone(void **state) {
    (void)state;
    rw_node_bus_interest(bus[1], HASH, 1);
    logs[1].mail_room = 1;
    assert_int_equal(mail(0, 1, 50, 0), RW_OK);
    assert_int_equal(mail(0, 1, 50, 1), RW_OK);
    publish(0, 50, 2);
    publish(2, 50, 3);
    rw_node_bus_flush(bus[0]);
    rw_node_bus_flush(bus[2]);
    assert_int_equal(receive(1), 1);
    assert_int_equal(logs[1].count, 2);
    assert_int_equal(logs[1].entries[0].number, 0);
    assert_int_equal(logs[1].entries[1].number, 3);
    /* It is asked for once in each turn, and the worker does not sleep meanwhile. */
    const uint32_t refused = logs[1].refused;
    assert_int_equal(receive(1), 1);
    assert_int_equal(logs[1].refused, refused + 1);
    assert_int_equal(rw_node_bus_sleeping(bus[1], 1), 1);
    logs[1].mail_room = 1;
    assert_int_equal(receive(1), 0);
    assert_int_equal(rw_node_bus_sleeping(bus[1], 1), 0);
    rw_node_bus_sleeping(bus[1], 0);
    assert_int_equal(logs[1].count, 4);
    assert_int_equal(logs[1].entries[2].number, 1);
    assert_int_equal(logs[1].entries[3].number, 2);
    assert_int_equal(stats_of(&node, 1)->node_messages_in, 4);
    assert_int_equal(stats_of(&node, 1)->publishes_remote, 2);
}

static void large_mail_that_is_refused_at_its_end_comes_whole_later(void **state) {
    (void)state;
    logs[1].mail_room = 0;
    assert_int_equal(mail(0, 1, 300000, 0), RW_OK);
    assert_int_equal(mail(0, 1, 10, 1), RW_OK);
    for (uint32_t turn = 0; turn < 50; turn++) {
        rw_node_bus_flush(bus[0]);
        (void)receive(1);
    }
    assert_int_equal(logs[1].count, 0);
    assert_true(logs[1].refused > 10);
    logs[1].mail_room = 2;
    settle(0, 1);
    assert_int_equal(logs[1].count, 2);
    assert_int_equal(logs[1].damaged, 0);
    assert_int_equal(logs[1].entries[0].bytes, 300000);
    assert_int_equal(logs[1].entries[1].number, 1);
}

static void mail_without_room_is_not_sent_and_can_be_sent_later(void **state) {
    (void)state;
    const uint32_t bytes = 1000000;
    uint32_t sent = 0;
    while (mail(0, 1, bytes, sent) == RW_OK) assert_true(++sent < 100);
    assert_in_range(sent, RW_NODE_OUTBOX_BYTES_MAX / bytes, 20);
    assert_int_equal(mail(0, 1, bytes, sent), RW_ERR_FULL);
    assert_int_equal(stats_of(&node, 0)->node_drops, 0);
    settle(0, 1);
    assert_int_equal(logs[1].count, sent);
    assert_int_equal(mail(0, 1, bytes, sent), RW_OK);
    settle(0, 1);
    assert_int_equal(logs[1].count, sent + 1);
    assert_int_equal(logs[1].damaged, 0);
    for (uint32_t i = 0; i <= sent; i++) assert_int_equal(logs[1].entries[i].number, i);
}

static void the_longest_mail_fits_an_empty_ring_wherever_it_is(void **state) {
    (void)state;
    uint64_t seed = 4711;
    const uint32_t most = RW_NODE_OUTBOX_BYTES_MAX + FIXTURE_RING_BYTES / 2;
    assert_int_equal(mail(0, 1, most + 1, 0), RW_ERR_INVALID);
    for (uint32_t round = 0; round < 12; round++) {
        assert_int_equal(mail(0, 1, STAMP_BYTES + random_next(&seed) % 30000, 0), RW_OK);
        settle(0, 1);
        logs[1].count = 0;
        assert_int_equal(mail(0, 1, most, 9), RW_OK);
        settle(0, 1);
        assert_int_equal(logs[1].count, 1);
        assert_int_equal(logs[1].entries[0].bytes, most);
    }
    assert_int_equal(logs[1].damaged, 0);
}

static void mail_for_a_worker_that_died_is_not_its_successors(void **state) {
    (void)state;
    /* Some in the ring, some cut, some in the outbox. */
    for (uint32_t number = 0; number < 10; number++) assert_int_equal(mail(0, 1, 30000, number), RW_OK);
    assert_true(rw_node_bus_flush(bus[0]) > 0);
    rw_shm_worker_gone(node.address, 1);
    rw_node_bus_destroy(bus[1]);
    bus[1] = bus_of(&node, 1);
    settle(0, 1);
    assert_int_equal(rw_node_bus_flush(bus[0]), 0);
    assert_int_equal(logs[1].count, 0);
    assert_int_equal(mail(0, 1, 20, 10), RW_OK);
    settle(0, 1);
    assert_int_equal(logs[1].count, 1);
    assert_int_equal(logs[1].entries[0].number, 10);
    assert_int_equal(stats_of(&node, 1)->node_drops, 0);
}

static void mail_that_crossed_a_death_is_thrown_away(void **state) {
    (void)state;
    rw_node_bus_interest(bus[1], HASH, 1);
    /* Written for an earlier process, and behind what the present one found when it began. */
    struct rw_shm_ring *ring = rw_shm_ring(node.shm, 0, 1);
    publish(0, 20, 0);
    struct rw_node_writer writer = {.ring = ring,
                                    .ring_bytes = FIXTURE_RING_BYTES,
                                    .written = atomic_load(&ring->written),
                                    .read_seen = atomic_load(&ring->read)};
    uint64_t position = writer.written;
    for (uint32_t bytes = 40; bytes <= 60000; bytes += 59960) {
        message_fill(payload, bytes, 0, 1);
        const struct rw_node_message stray = {
            .payload = payload, .payload_bytes = bytes, .topic_hash = rw_node_bus_epoch(bus[1]) - 2, .is_mail = 1};
        struct rw_node_progress progress = {0, 0};
        (void)rw_node_ring_write(&writer, &stray, rw_node_bus_epoch(bus[0]), &progress, &position);
    }
    atomic_store(&ring->written, position);
    atomic_fetch_or(&rw_shm_worker(node.shm, 1)->pending[0], 1);
    assert_int_equal(receive(1), 0);
    assert_int_equal(logs[1].count, 1);
    assert_int_equal(logs[1].entries[0].is_mail, 0);
    assert_true(atomic_load(&ring->read) == position);
}

static void mail_of_a_sender_that_died_still_arrives_with_its_epoch(void **state) {
    (void)state;
    const uint32_t before = rw_node_bus_epoch(bus[0]);
    assert_int_equal(mail(0, 1, 40000, 0), RW_OK);
    rw_shm_worker_gone(node.address, 0);
    struct rw_node_bus *dead = bus[0];
    bus[0] = bus_of(&node, 0);
    assert_int_equal(mail(0, 1, 10, 1), RW_OK);
    settle(0, 1);
    assert_int_equal(logs[1].count, 2);
    assert_int_equal(logs[1].damaged, 0);
    assert_int_equal(logs[1].entries[0].epoch, before);
    assert_int_equal(logs[1].entries[1].epoch, before + 2);
    rw_node_bus_destroy(dead);
}

static struct rw_node_bus *dead;
static uint8_t *trap;

/* The copying of a payload stops here, as if the sender lost its CPU: when it goes on, another process lives at the
 * place of the receiver. */
static void on_trap(int number) {
    (void)number;
    if (mprotect(trap, 4096, PROT_READ | PROT_WRITE) != 0) abort();
    dead = bus[1];
    rw_shm_worker_gone(node.address, 1);
    bus[1] = bus_of(&node, 1);
}

static void a_receiver_that_is_replaced_while_it_is_written_to_costs_its_successor_nothing(void **state) {
    (void)state;
    const struct sigaction action = {.sa_handler = on_trap};
    struct sigaction before;
    for (uint32_t bytes = 100; bytes <= 4096; bytes += 3996) {
        /* Past the page that is never given back. */
        for (uint32_t i = 0; i < 30; i++) assert_int_equal(mail(0, 1, 500, i), RW_OK);
        settle(0, 1);
        trap = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(trap, MAP_FAILED);
        assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
        const int32_t sent = rw_node_bus_mail(bus[0], 1, trap, bytes);
        assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
        assert_true(sent == RW_OK || sent == RW_ERR_STALE);
        assert_non_null(bus[1]);
        logs[1].count = 0;
        assert_int_equal(mail(0, 1, 50, 7), RW_OK);
        settle(0, 1);
        assert_int_equal(logs[1].count, 1);
        assert_int_equal(logs[1].entries[0].number, 7);
        assert_int_equal(stats_of(&node, 1)->node_drops, 0);
        rw_node_bus_destroy(dead);
        rw_node_bus_destroy(bus[1]);
        bus[1] = bus_of(&node, 1);
        munmap(trap, 4096);
    }
}

static void a_record_of_mail_with_a_topic_is_nonsense(void **state) {
    (void)state;
    publish(0, 20, 0);
    rw_node_bus_interest(bus[1], HASH, 1);
    struct rw_shm_ring *ring = rw_shm_ring(node.shm, 0, 1);
    const uint64_t start = atomic_load(&ring->written);
    publish(0, 20, 1);
    rw_node_bus_flush(bus[0]);
    const uint32_t flags = RW_NODE_FIRST | RW_NODE_LAST | RW_NODE_MAIL;
    memcpy(&ring->bytes[start + offsetof(struct rw_node_record, flags)], &flags, sizeof flags);
    assert_int_equal(receive(1), 0);
    assert_int_equal(logs[1].count, 0);
    assert_int_equal(stats_of(&node, 1)->node_drops, 1);
}

/* Whatever there is room for in a turn, and whoever sends most. */
static void room_for_mail_goes_to_each_sender_in_turn(void **state) {
    (void)state;
    enum { TURNS = 30 };
    for (uint32_t room = 1; room <= 34; room += 33) {
        uint32_t of[FIXTURE_WORKERS] = {0};
        logs[1].count = 0;
        for (uint32_t turn = 0; turn < TURNS; turn++) {
            for (uint32_t from = 0; from < FIXTURE_WORKERS; from++) {
                for (uint32_t i = 0; from != 1 && i < room; i++) (void)mail(from, 1, 100, i);
                rw_node_bus_flush(bus[from]);
            }
            logs[1].mail_room = room;
            assert_int_equal(receive(1), 1);
        }
        for (uint32_t i = 0; i < logs[1].count; i++) of[logs[1].entries[i].from]++;
        for (uint32_t from = 0; from < FIXTURE_WORKERS; from++) assert_true(from == 1 || of[from] >= TURNS * room / 5);
        logs[1].mail_room = LOG_MAX;
        for (uint32_t from = 0; from < FIXTURE_WORKERS; from++) {
            logs[1].count = 0;
            if (from != 1) settle(from, 1);
        }
    }
}

/* It was killed after writing and before telling, and nobody takes its place: it is not to be heard of hours later,
 * when somebody does. */
static void what_a_sender_wrote_before_it_died_comes_without_a_successor(void **state) {
    (void)state;
    rw_node_bus_interest(bus[1], HASH, 1);
    assert_int_equal(mail(0, 1, 40, 0), RW_OK);
    publish(0, 40, 1);
    assert_int_equal(receive(1), 0);
    assert_int_equal(logs[1].count, 0);
    rw_shm_worker_gone(node.address, 0);
    assert_int_equal(rw_node_bus_sleeping(bus[1], 1), 1);
    (void)receive(1);
    assert_int_equal(logs[1].count, 2);
    assert_int_equal(logs[1].damaged, 0);
}

#define WITH_NODE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_NODE(mail_arrives_once_and_names_its_sender),
        WITH_NODE(mail_to_oneself_or_to_nobody_is_refused),
        WITH_NODE(mail_and_publishes_of_one_sender_keep_their_order),
        WITH_NODE(what_is_refused_stays_and_holds_up_its_own_sender_alone),
        WITH_NODE(room_for_mail_goes_to_each_sender_in_turn),
        WITH_NODE(what_a_sender_wrote_before_it_died_comes_without_a_successor),
        WITH_NODE(large_mail_that_is_refused_at_its_end_comes_whole_later),
        WITH_NODE(mail_without_room_is_not_sent_and_can_be_sent_later),
        WITH_NODE(the_longest_mail_fits_an_empty_ring_wherever_it_is),
        WITH_NODE(mail_for_a_worker_that_died_is_not_its_successors),
        WITH_NODE(mail_that_crossed_a_death_is_thrown_away),
        WITH_NODE(mail_of_a_sender_that_died_still_arrives_with_its_epoch),
        WITH_NODE(a_receiver_that_is_replaced_while_it_is_written_to_costs_its_successor_nothing),
        WITH_NODE(a_record_of_mail_with_a_topic_is_nonsense),
    };
    return cmocka_run_group_tests_name("mail between workers", tests, NULL, NULL);
}
