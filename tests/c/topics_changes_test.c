/* Changes of interest against a table: what a listener that is told them believes is true whenever there is none
 * left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "ringway.h"
#include "seeds.h"
#include "topics/topics.h"

#define NAMES 60u
#define SLOTS 20u

static uint32_t lists[SLOTS];

/* Lengths from 1 byte to the longest. */
static uint32_t name_of(uint32_t number, uint8_t *name) {
    const uint32_t bytes = number == 0 ? RW_TOPIC_BYTES_MAX : number < 10 ? 1 : 1 + number * 7 % 50;
    memset(name, 'x', bytes);
    name[0] = (uint8_t)('0' + number);
    return bytes;
}

static int32_t subscribe(struct rw_topics *topics, uint32_t slot, uint32_t number) {
    uint8_t name[RW_TOPIC_BYTES_MAX];
    const uint32_t bytes = name_of(number, name);
    return rw_topics_subscribe(topics, slot, &lists[slot], name, bytes);
}

static int32_t unsubscribe(struct rw_topics *topics, uint32_t slot, uint32_t number) {
    uint8_t name[RW_TOPIC_BYTES_MAX];
    const uint32_t bytes = name_of(number, name);
    return rw_topics_unsubscribe(topics, slot, &lists[slot], name, bytes);
}

/* The next change. ret: 1 and which topic; 0: none */
static int next(struct rw_topics *topics, uint32_t *number, int *interested) {
    const uint8_t *name;
    uint32_t bytes;
    if (!rw_topics_change(topics, &name, &bytes, interested)) return 0;
    uint8_t expected[RW_TOPIC_BYTES_MAX];
    *number = (uint32_t)name[0] - '0';
    assert_int_equal(bytes, name_of(*number, expected));
    assert_memory_equal(name, expected, bytes);
    return 1;
}

static struct rw_topics *topics_noting(void) {
    memset(lists, 0, sizeof lists);
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    assert_non_null(topics);
    rw_topics_note_changes(topics);
    return topics;
}

static void changes_come_in_the_order_of_their_making(void **state) {
    (void)state;
    struct rw_topics *topics = topics_noting();
    uint32_t number;
    int interested;
    for (uint32_t i = 5; i > 0; i--) assert_int_equal(subscribe(topics, 0, i), 1);
    assert_int_equal(subscribe(topics, 1, 3), 1); /* not the first: no change */
    assert_int_equal(rw_topics_changes(topics), 5);
    for (uint32_t i = 5; i > 0; i--) {
        assert_true(next(topics, &number, &interested) && number == i && interested);
        rw_topics_change_told(topics);
    }
    assert_false(next(topics, &number, &interested));
    assert_int_equal(unsubscribe(topics, 0, 3), 1); /* not the last */
    assert_int_equal(rw_topics_changes(topics), 0);
    rw_topics_drop(topics, 0, &lists[0]);
    assert_int_equal(rw_topics_changes(topics), 4);
    assert_int_equal(rw_topics_count(topics), 1);
    while (next(topics, &number, &interested)) {
        assert_true(number != 3 && !interested);
        rw_topics_change_told(topics);
    }
    rw_topics_destroy(topics);
}

static void what_changes_back_before_it_is_told_is_no_change(void **state) {
    (void)state;
    struct rw_topics *topics = topics_noting();
    uint32_t number;
    int interested;
    assert_int_equal(subscribe(topics, 0, 1), 1);
    assert_int_equal(unsubscribe(topics, 0, 1), 1);
    assert_int_equal(rw_topics_changes(topics), 0);
    assert_int_equal(subscribe(topics, 0, 1), 1);
    assert_true(next(topics, &number, &interested) && number == 1 && interested);
    rw_topics_change_told(topics);
    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(unsubscribe(topics, 0, 1), 1);
        assert_int_equal(rw_topics_changes(topics), 1);
        assert_int_equal(rw_topics_count(topics), 0);
        assert_int_equal(subscribe(topics, 1, 1), 1);
        assert_int_equal(rw_topics_changes(topics), 0);
        assert_int_equal(rw_topics_count(topics), 1);
        assert_int_equal(subscribe(topics, 0, 1), 1);
        assert_int_equal(unsubscribe(topics, 1, 1), 1);
    }
    rw_topics_destroy(topics);
}

static void a_topic_that_has_ended_is_none_until_somebody_comes_back(void **state) {
    (void)state;
    struct rw_topics *topics = topics_noting();
    uint8_t name[RW_TOPIC_BYTES_MAX];
    const uint32_t bytes = name_of(0, name);
    const uint64_t hash = rw_topics_hash(name, bytes);
    assert_int_equal(subscribe(topics, 0, 0), 1);
    rw_topics_change_told(topics);
    assert_int_equal(unsubscribe(topics, 0, 0), 1);
    assert_int_equal(rw_topics_changes(topics), 1);
    assert_int_equal(rw_topics_find(topics, name, bytes, hash), 0);
    assert_int_equal(rw_topics_is_subscribed(topics, 0, name, bytes), 0);
    assert_int_equal(unsubscribe(topics, 0, 0), 0);
    assert_int_equal(rw_topics_count(topics) + rw_topics_subscriptions(topics), 0);
    assert_int_equal(subscribe(topics, 2, 0), 1);
    uint32_t count;
    const uint32_t id = rw_topics_find(topics, name, bytes, hash);
    assert_int_not_equal(id, 0);
    assert_int_equal(rw_topics_members(topics, id, &count)[0], 2);
    assert_int_equal(count, 1);
    assert_int_equal(rw_topics_changes(topics), 0);
    rw_topics_destroy(topics);
}

static void without_asking_nothing_is_noted(void **state) {
    (void)state;
    memset(lists, 0, sizeof lists);
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    assert_int_equal(subscribe(topics, 0, 1), 1);
    assert_int_equal(rw_topics_changes(topics), 0);
    assert_int_equal(unsubscribe(topics, 0, 1), 1);
    assert_int_equal(rw_topics_changes(topics), 0);
    rw_topics_destroy(topics);
}

static void listen_and_compare(uint64_t seed) {
    struct rw_topics *topics = topics_noting();
    uint8_t subscribed[SLOTS][NAMES] = {{0}};
    uint32_t subscribers[NAMES] = {0};
    uint8_t believed[NAMES] = {0};
    uint32_t random = (uint32_t)seed * 2654435761u + 1u;
    for (uint32_t step = 0; step < 4000; step++) {
        random = random * 1664525u + 1013904223u;
        const uint32_t s = (random >> 8 & 0xFFFF) % SLOTS, number = (random >> 16) % NAMES;
        const uint32_t action = random >> 28;
        if (action < 6) {
            assert_int_equal(subscribe(topics, s, number), !subscribed[s][number]);
            subscribers[number] += !subscribed[s][number];
            subscribed[s][number] = 1;
        } else if (action < 12) {
            assert_int_equal(unsubscribe(topics, s, number), subscribed[s][number]);
            subscribers[number] -= subscribed[s][number];
            subscribed[s][number] = 0;
        } else if (action == 12) {
            rw_topics_drop(topics, s, &lists[s]);
            for (uint32_t n = 0; n < NAMES; n++) {
                subscribers[n] -= subscribed[s][n];
                subscribed[s][n] = 0;
            }
        } else {
            uint32_t told = 0;
            int interested;
            for (uint32_t n = 0; n < action && next(topics, &told, &interested); n++) {
                assert_int_equal(interested, subscribers[told] > 0);
                assert_int_not_equal(interested, believed[told]);
                believed[told] = (uint8_t)interested;
                rw_topics_change_told(topics);
            }
        }
        uint32_t different = 0, topics_now = 0;
        for (uint32_t n = 0; n < NAMES; n++) {
            different += believed[n] != (subscribers[n] > 0);
            topics_now += subscribers[n] > 0;
        }
        assert_int_equal(rw_topics_changes(topics), different);
        assert_int_equal(rw_topics_count(topics), topics_now);
    }
    rw_topics_destroy(topics);
}

static void a_listener_is_always_right_about_what_it_was_told_last(void **state) {
    (void)state;
    run_seeds(40, listen_and_compare);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_come_in_the_order_of_their_making),
        cmocka_unit_test(what_changes_back_before_it_is_told_is_no_change),
        cmocka_unit_test(a_topic_that_has_ended_is_none_until_somebody_comes_back),
        cmocka_unit_test(without_asking_nothing_is_noted),
        cmocka_unit_test(a_listener_is_always_right_about_what_it_was_told_last),
    };
    watch_seeds("topics_changes_test");
    const int failed = cmocka_run_group_tests_name("changes of interest", tests, NULL, NULL);
    say_seed();
    return failed;
}
