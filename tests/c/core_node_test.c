/* Cores of one node: interest and mail as events of the host, and publishes that come from another node. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "connection/core.h"
#include "ringway.h"

#define WORKERS 3u
#define RING_BYTES 65536u

struct worker {
    struct rw_core *core;
    struct rw_core_info info;
    uint32_t subscriptions; /* the list of a slot that is no connection */
};

static int32_t node;
static int32_t wake_fds[WORKERS];
static struct worker workers[WORKERS];

static void start(uint32_t index, uint32_t flags) {
    struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                    .backend = RW_BACKEND_EPOLL,
                                    .max_connections = 16,
                                    .sqpoll_cpu = -1,
                                    .wake_fd = wake_fds[index],
                                    .inbox_fd_first = -1,
                                    .shm_fd = node,
                                    .worker_index = index,
                                    .worker_count = WORKERS,
                                    .flags = flags};
    char error[256];
    workers[index] = (struct worker){.core = rw_core_create(&config, error, sizeof error)};
    assert_non_null(workers[index].core);
    rw_core_info(workers[index].core, &workers[index].info);
}

static int set_up(void **state) {
    (void)state;
    node = rw_shm_create(WORKERS, RING_BYTES, 0, 0);
    if (node < 0) return -1;
    for (uint32_t i = 0; i < WORKERS; i++) {
        wake_fds[i] = rw_eventfd_create();
        start(i, i == 2 ? 0 : RW_CORE_WANTS_INTEREST | RW_CORE_WANTS_MAIL);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (uint32_t i = 0; i < WORKERS; i++) {
        rw_topics_drop(workers[i].core->topics, 0, &workers[i].subscriptions);
        rw_core_destroy(workers[i].core);
        rw_fd_close(wake_fds[i]);
    }
    close(node);
    return 0;
}

static uint32_t turn(uint32_t index) {
    const int32_t count = rw_core_turn(workers[index].core, 0, 0);
    assert_true(count >= 0);
    return (uint32_t)count;
}

static const struct rw_event *event_at(uint32_t index, uint32_t at) {
    return (const struct rw_event *)(uintptr_t)workers[index].info.events + at;
}

static const uint8_t *payload_of(uint32_t index, const struct rw_event *event) {
    if (event->flags & RW_EVENT_LARGE) return (const uint8_t *)(uintptr_t)((uint64_t)event->arg1 << 32 | event->arg0);
    assert_true(event->offset + (uint64_t)event->bytes <= workers[index].info.payload_bytes);
    return (const uint8_t *)(uintptr_t)workers[index].info.payload + event->offset;
}

static void subscribe(uint32_t index, const void *name, uint32_t bytes) {
    assert_int_equal(rw_topics_subscribe(workers[index].core->topics, 0, &workers[index].subscriptions, name, bytes),
                     1);
}

static void unsubscribe(uint32_t index, const void *name, uint32_t bytes) {
    assert_int_equal(rw_topics_unsubscribe(workers[index].core->topics, 0, &workers[index].subscriptions, name, bytes),
                     1);
}

static int32_t mail(uint32_t from, uint32_t to, const void *data, uint64_t bytes) {
    const struct rw_command command = {.type = RW_COMMAND_MAIL, .slot = RW_NO_SLOT, .arg0 = to};
    return rw_core_command(workers[from].core, &command, data, bytes);
}

static void expect_interest(uint32_t index, uint32_t at, const char *name, int wanted) {
    const struct rw_event *event = event_at(index, at);
    assert_int_equal(event->type, RW_EVENT_INTEREST);
    assert_int_equal(event->flags, wanted ? RW_INTEREST_WANTED : 0);
    assert_int_equal(event->bytes, strlen(name));
    assert_memory_equal(payload_of(index, event), name, event->bytes);
}

/* ---------------------------------------------------------------- interest */

static void interest_is_told_once_and_what_changes_back_is_not(void **state) {
    (void)state;
    subscribe(0, "a", 1);
    subscribe(0, "room/b", 6);
    subscribe(0, "gone", 4);
    unsubscribe(0, "gone", 4);
    assert_int_equal(turn(0), 2);
    expect_interest(0, 0, "a", 1);
    expect_interest(0, 1, "room/b", 1);
    assert_int_equal(turn(0), 0);
    unsubscribe(0, "a", 1);
    subscribe(0, "a", 1);
    assert_int_equal(turn(0), 0);
    unsubscribe(0, "a", 1);
    assert_int_equal(turn(0), 1);
    expect_interest(0, 0, "a", 0);
    assert_int_equal(turn(1), 0); /* it is the interest of one worker */
    subscribe(2, "a", 1);
    assert_int_equal(turn(2), 0); /* which has not asked for events */
    assert_int_equal(rw_core_sleep(workers[2].core), -1);
    rw_core_wake(workers[2].core);
}

static void a_worker_with_untold_interest_does_not_sleep(void **state) {
    (void)state;
    (void)turn(0);
    assert_int_equal(rw_core_sleep(workers[0].core), -1);
    rw_core_wake(workers[0].core);
    subscribe(0, "a", 1);
    assert_int_equal(rw_core_sleep(workers[0].core), -2);
    assert_int_equal(turn(0), 1);
    assert_int_equal(rw_core_sleep(workers[0].core), -1);
    rw_core_wake(workers[0].core);
    unsubscribe(0, "a", 1);
    assert_int_equal(rw_core_sleep(workers[0].core), -2);
    assert_int_equal(turn(0), 1);
}

static uint32_t long_name(uint32_t number, uint8_t *name) {
    memset(name, 'n', RW_TOPIC_BYTES_MAX);
    memcpy(name, &number, sizeof number);
    return RW_TOPIC_BYTES_MAX - number % 3;
}

/* More than a batch holds, by records or by bytes. ret: events until there are none */
static uint32_t take_all_interest(uint32_t count, int wanted, uint8_t *seen) {
    uint32_t taken = 0;
    for (uint32_t events; (events = turn(0)) > 0; taken += events) {
        assert_true(events <= RW_EVENTS_CAPACITY / 2);
        for (uint32_t i = 0; i < events; i++) {
            const struct rw_event *event = event_at(0, i);
            uint8_t name[RW_TOPIC_BYTES_MAX];
            uint32_t number;
            memcpy(&number, payload_of(0, event), sizeof number);
            assert_true(number < count && seen[number] == !wanted);
            seen[number] = (uint8_t)wanted;
            assert_int_equal(event->type, RW_EVENT_INTEREST);
            assert_int_equal(event->flags, wanted ? RW_INTEREST_WANTED : 0);
            assert_int_equal(event->bytes, long_name(number, name));
            assert_memory_equal(payload_of(0, event), name, event->bytes);
        }
    }
    return taken;
}

static void more_interest_than_a_batch_holds_comes_in_the_next(void **state) {
    (void)state;
    enum { TOPICS = 3000 };
    static uint8_t seen[TOPICS];
    uint8_t name[RW_TOPIC_BYTES_MAX];
    memset(seen, 0, sizeof seen);
    for (uint32_t i = 0; i < TOPICS; i++) subscribe(0, name, long_name(i, name));
    assert_int_equal(take_all_interest(TOPICS, 1, seen), TOPICS);
    rw_topics_drop(workers[0].core->topics, 0, &workers[0].subscriptions);
    assert_int_equal(rw_core_sleep(workers[0].core), -2);
    assert_int_equal(take_all_interest(TOPICS, 0, seen), TOPICS);
    assert_int_equal(rw_core_sleep(workers[0].core), -1);
    rw_core_wake(workers[0].core);
}

static void interest_leaves_half_of_a_batch_to_connections(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 5000; i++) subscribe(0, &i, sizeof i);
    uint32_t told = 0;
    for (uint32_t events; (events = turn(0)) > 0; told += events) assert_true(events <= RW_EVENTS_CAPACITY / 2);
    assert_int_equal(told, 5000);
}

/* However much interest changes, mail and what stands behind it get through. */
static void changes_of_interest_leave_room_for_mail(void **state) {
    (void)state;
    enum { CHURN = 3000 };
    uint32_t number = 0, next = 0;
    uint8_t name[RW_TOPIC_BYTES_MAX];
    for (uint32_t turns = 0; turns < 20; turns++) {
        for (uint32_t i = 0; i < CHURN; i++) {
            /* By records in one turn, by bytes in the next. */
            const uint32_t topic = number++;
            subscribe(0, name,
                      turns % 2 ? long_name(topic, name)
                                : (memcpy(name, &topic, sizeof topic), (uint32_t)sizeof topic));
        }
        for (uint32_t i = 0; i < 10; i++) assert_int_equal(mail(1, 0, "mail", 4), RW_OK);
        (void)turn(1);
        const uint32_t events = turn(0);
        assert_true(events <= RW_EVENTS_CAPACITY / 2);
        for (uint32_t i = 0; i < events; i++) next += event_at(0, i)->type == RW_EVENT_MAIL;
        assert_true(next + 20 >= 10 * (turns + 1));
    }
}

/* ---------------------------------------------------------------- mail */

static void mail_is_an_event_of_the_other_worker(void **state) {
    (void)state;
    assert_int_equal(mail(0, 1, "hello", 5), RW_OK);
    assert_int_equal(mail(0, 1, "", 0), RW_OK);
    (void)turn(0);
    assert_int_equal(turn(1), 2);
    const struct rw_event *event = event_at(1, 0);
    assert_int_equal(event->type, RW_EVENT_MAIL);
    assert_int_equal(event->slot, 0);
    assert_int_equal(event->generation, workers[0].info.epoch);
    assert_int_equal(event->bytes, 5);
    assert_memory_equal(payload_of(1, event), "hello", 5);
    assert_int_equal(event_at(1, 1)->bytes, 0);
    assert_int_equal(turn(1), 0);
}

static void mail_has_its_results(void **state) {
    (void)state;
    assert_int_equal(mail(0, 0, "x", 1), RW_ERR_INVALID);
    assert_int_equal(mail(0, WORKERS, "x", 1), RW_ERR_STALE);
    rw_core_destroy(workers[1].core);
    assert_int_equal(mail(0, 1, "x", 1), RW_ERR_STALE);
    start(1, RW_CORE_WANTS_MAIL);
    assert_int_equal(mail(0, 1, "x", 1), RW_OK);
    uint8_t *much = calloc(1, 4u << 20);
    assert_non_null(much);
    uint32_t sent = 0;
    while (mail(0, 1, much, 4u << 20) == RW_OK) assert_true(++sent < 10);
    assert_int_equal(mail(0, 1, much, 4u << 20), RW_ERR_FULL);
    free(much);
    /* A batch has no results: there it does nothing. */
    ((struct rw_command *)(uintptr_t)workers[0].info.commands)[0] =
        (struct rw_command){.type = RW_COMMAND_MAIL, .slot = RW_NO_SLOT, .arg0 = 2};
    const uint64_t out = workers[0].core->stats->node_messages_out;
    assert_int_equal(rw_core_flush(workers[0].core, 1), RW_OK);
    assert_int_equal(workers[0].core->stats->node_messages_out, out);
}

static void mail_that_nobody_asked_for_is_thrown_away(void **state) {
    (void)state;
    static uint8_t data[200000];
    assert_int_equal(mail(0, 2, "x", 1), RW_OK);
    assert_int_equal(mail(0, 2, data, sizeof data), RW_OK);
    for (uint32_t i = 0; i < 20; i++) {
        (void)turn(0);
        assert_int_equal(turn(2), 0);
    }
    assert_int_equal(rw_core_sleep(workers[2].core), -1);
    rw_core_wake(workers[2].core);
    assert_int_equal(workers[2].core->stats->node_messages_in, 2);
}

static void large_mail_lies_outside_of_the_payload_area(void **state) {
    (void)state;
    const uint32_t sizes[] = {RW_EVENT_LARGE_BYTES, RW_EVENT_LARGE_BYTES + 1, 3u << 20, RW_MAIL_HELD_BYTES_MAX + 1000};
    uint8_t *data = malloc(RW_MAIL_HELD_BYTES_MAX + 1000);
    assert_non_null(data);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (uint32_t at = 0; at < sizes[i]; at++) data[at] = (uint8_t)(at * 31u + (at >> 9) + i);
        assert_int_equal(mail(0, 1, data, sizes[i]), RW_OK);
        uint32_t events = 0;
        for (uint32_t turns = 0; events == 0; turns++) {
            assert_true(turns < 10000);
            (void)turn(0);
            events = turn(1);
        }
        assert_int_equal(events, 1);
        const struct rw_event *event = event_at(1, 0);
        assert_int_equal(event->type, RW_EVENT_MAIL);
        assert_int_equal(event->flags, sizes[i] > RW_EVENT_LARGE_BYTES ? RW_EVENT_LARGE : 0);
        assert_int_equal(event->slot, 0);
        assert_int_equal(event->generation, workers[0].info.epoch);
        assert_int_equal(event->bytes, sizes[i]);
        assert_memory_equal(payload_of(1, event), data, sizes[i]);
    }
    free(data);
}

static void mail_past_a_batch_waits_in_the_ring_and_nothing_is_lost(void **state) {
    (void)state;
    static uint8_t data[20000];
    uint64_t bytes = 0;
    uint32_t sent = 0;
    for (; sent < 600; sent++) {
        memcpy(data, &sent, sizeof sent);
        const uint32_t length = 4 + sent * 37 % (uint32_t)(sizeof data - 4);
        if (mail(0, 1, data, length) != RW_OK) break;
        bytes += length;
    }
    assert_true(bytes > 4ull * RW_PAYLOAD_BYTES / 2); /* many turns' worth */
    uint32_t next = 0;
    for (uint32_t turns = 0; next < sent; turns++) {
        assert_true(turns < 10000);
        (void)turn(0);
        const uint32_t events = turn(1);
        uint64_t in_batch = 0;
        for (uint32_t i = 0; i < events; i++, next++) {
            const struct rw_event *event = event_at(1, i);
            uint32_t number;
            memcpy(&number, payload_of(1, event), sizeof number);
            assert_int_equal(number, next);
            assert_int_equal(event->bytes, 4 + next * 37 % (uint32_t)(sizeof data - 4));
            in_batch += event->bytes;
        }
        assert_true(in_batch <= RW_PAYLOAD_BYTES / 2);
        if (next < sent && rw_core_sleep(workers[0].core) != -2) rw_core_wake(workers[0].core);
    }
    assert_int_equal(turn(1), 0);
}

static void many_small_pieces_of_mail_leave_half_of_the_records(void **state) {
    (void)state;
    uint32_t sent = 0, got = 0;
    while (got < 6000) {
        while (sent < 6000 && mail(0, 1, &sent, sizeof sent) == RW_OK) sent++;
        (void)turn(0);
        const uint32_t events = turn(1);
        assert_true(events <= RW_EVENTS_CAPACITY / 2);
        for (uint32_t i = 0; i < events; i++, got++)
            assert_memory_equal(payload_of(1, event_at(1, i)), &got, sizeof got);
    }
    assert_int_equal(turn(1), 0);
}

static void large_mail_is_held_by_no_more_than_a_limit_a_turn(void **state) {
    (void)state;
    /* Of two workers, complete in the same turn. */
    const uint32_t bytes = 10u << 20;
    uint8_t *data = calloc(1, bytes);
    assert_non_null(data);
    assert_int_equal(mail(0, 1, data, bytes), RW_OK);
    assert_int_equal(mail(2, 1, data, bytes), RW_OK);
    uint32_t got = 0, of[WORKERS] = {0}, turns_between = 0;
    for (uint32_t turns = 0; got < 2; turns++) {
        assert_true(turns < 10000);
        (void)turn(0);
        (void)turn(2);
        const uint32_t events = turn(1);
        assert_true((uint64_t)events * bytes <= RW_MAIL_HELD_BYTES_MAX);
        for (uint32_t i = 0; i < events; i++) of[event_at(1, i)->slot]++;
        turns_between += got == 1;
        got += events;
    }
    assert_true(of[0] == 1 && of[2] == 1);
    assert_int_equal(turns_between, 1); /* it had come, and waited for that turn alone */
    free(data);
}

static void without_shared_memory_there_is_nobody_to_write_to(void **state) {
    (void)state;
    struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                    .backend = RW_BACKEND_EPOLL,
                                    .max_connections = 16,
                                    .sqpoll_cpu = -1,
                                    .wake_fd = -1,
                                    .inbox_fd_first = -1,
                                    .shm_fd = -1,
                                    .flags = RW_CORE_WANTS_INTEREST | RW_CORE_WANTS_MAIL};
    char error[256];
    struct rw_core *core = rw_core_create(&config, error, sizeof error);
    assert_non_null(core);
    struct rw_core_info info;
    rw_core_info(core, &info);
    assert_true(info.view == 0 && info.epoch == 0);
    const struct rw_command command = {.type = RW_COMMAND_MAIL, .arg0 = 1};
    assert_int_equal(rw_core_command(core, &command, (const uint8_t *)"x", 1), RW_ERR_STALE);
    rw_core_destroy(core);
}

/* ---------------------------------------------------------------- the view, and publishes of other nodes */

static void the_host_can_read_the_view_at_any_time(void **state) {
    (void)state;
    const uint64_t address = rw_shm_map(node, 0);
    for (uint32_t i = 0; i < WORKERS; i++) {
        const _Atomic uint64_t *view = (const _Atomic uint64_t *)(uintptr_t)workers[i].info.view;
        rw_shm_view_set(address, i + 7, 1, 2);
        assert_true(atomic_load(view) == ((uint64_t)(i + 7) << 32 | 1u << 16 | 2u));
        assert_int_equal(workers[i].info.epoch, rw_shm_epoch(address, i));
        assert_int_equal(workers[i].info.epoch % 2, 1);
    }
    rw_shm_unmap(address);
}

static int32_t publish(uint32_t from, uint32_t flags) {
    const struct rw_command command = {
        .type = RW_COMMAND_PUBLISH, .flags = (uint16_t)flags, .slot = RW_NO_SLOT, .arg0 = 4};
    return rw_core_command(workers[from].core, &command, (const uint8_t *)"roomhello", 9);
}

static void a_publish_of_another_node_is_counted_as_such_and_goes_the_same_ways(void **state) {
    (void)state;
    rw_node_bus_interest(workers[1].core->bus, rw_topics_hash((const uint8_t *)"room", 4), 1);
    assert_int_equal(publish(0, RW_SEND_TEXT), RW_OK);
    assert_int_equal(publish(0, RW_SEND_TEXT | RW_PUBLISH_REMOTE), RW_OK);
    assert_int_equal(publish(0, RW_PUBLISH_REMOTE), RW_OK);
    (void)turn(0);
    (void)turn(1);
    assert_int_equal(workers[0].core->stats->publishes, 1);
    assert_int_equal(workers[0].core->stats->publishes_remote, 2);
    assert_int_equal(workers[1].core->stats->publishes_remote, 3);
    assert_int_equal(workers[1].core->stats->publishes, 0);
    assert_int_equal(workers[0].core->stats->node_messages_out, 3);
}

#define WITH_NODE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_NODE(interest_is_told_once_and_what_changes_back_is_not),
        WITH_NODE(a_worker_with_untold_interest_does_not_sleep),
        WITH_NODE(more_interest_than_a_batch_holds_comes_in_the_next),
        WITH_NODE(interest_leaves_half_of_a_batch_to_connections),
        WITH_NODE(changes_of_interest_leave_room_for_mail),
        WITH_NODE(mail_is_an_event_of_the_other_worker),
        WITH_NODE(mail_has_its_results),
        WITH_NODE(mail_that_nobody_asked_for_is_thrown_away),
        WITH_NODE(large_mail_lies_outside_of_the_payload_area),
        WITH_NODE(mail_past_a_batch_waits_in_the_ring_and_nothing_is_lost),
        WITH_NODE(many_small_pieces_of_mail_leave_half_of_the_records),
        WITH_NODE(large_mail_is_held_by_no_more_than_a_limit_a_turn),
        cmocka_unit_test(without_shared_memory_there_is_nobody_to_write_to),
        WITH_NODE(the_host_can_read_the_view_at_any_time),
        WITH_NODE(a_publish_of_another_node_is_counted_as_such_and_goes_the_same_ways),
    };
    return cmocka_run_group_tests_name("cores of one node", tests, NULL, NULL);
}
