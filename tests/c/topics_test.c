/* Topics against a table of booleans: who is subscribed to what, in every view the interface gives; and that nothing is
 * left behind. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "dies.h"
#include "ringway.h"
#include "topics/topics.h"

#define NAMES 40u
#define SLOTS 50u

static const uint8_t *bytes_of(const char *text) { return (const uint8_t *)text; }

#ifdef __SANITIZE_ADDRESS__
size_t __sanitizer_get_current_allocated_bytes(void); /* libasan; gcc ships no header for it */
#endif

static size_t allocated_bytes(void) {
#ifdef __SANITIZE_ADDRESS__
    return __sanitizer_get_current_allocated_bytes();
#else
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#endif
}

static int32_t subscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const char *name) {
    return rw_topics_subscribe(topics, slot, list, bytes_of(name), (uint32_t)strlen(name));
}

static int32_t unsubscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const char *name) {
    return rw_topics_unsubscribe(topics, slot, list, bytes_of(name), (uint32_t)strlen(name));
}

static uint32_t find(const struct rw_topics *topics, const char *name) {
    uint32_t bytes = (uint32_t)strlen(name);
    return rw_topics_find(topics, bytes_of(name), bytes, rw_topics_hash(bytes_of(name), bytes));
}

/* Computed with: openssl mac -macopt hexkey:KEY -macopt c-rounds:1 -macopt d-rounds:3 -macopt size:8 SIPHASH */
static void the_hash_is_siphash_1_3_of_the_name_under_the_seed(void **state) {
    (void)state;
    uint8_t counting[64];
    for (uint8_t i = 0; i < 64; i++) counting[i] = i;
    rw_topics_seed(0x0706050403020100u);
    assert_true(rw_topics_hash(bytes_of("a"), 1) == 0xce15c125af73d0f7u);
    assert_true(rw_topics_hash(bytes_of("12345678"), 8) == 0x7aedc600dff9e90eu);
    assert_true(rw_topics_hash(bytes_of("room/general"), 12) == 0x6b8486a3946d0d72u);
    assert_true(rw_topics_hash(counting, 64) == 0xa9c28a7b78fd999du);
    rw_topics_seed(1);
    assert_true(rw_topics_hash(bytes_of("room/general"), 12) == 0x55a34aafd093ad61u);
}

static void subscribing_twice_counts_once(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t list = 0;
    assert_int_equal(subscribe(topics, 4, &list, "news"), 1);
    assert_int_equal(subscribe(topics, 4, &list, "news"), 0);
    assert_int_equal(rw_topics_subscriptions(topics), 1);
    assert_int_equal(unsubscribe(topics, 5, &(uint32_t){0}, "news"), 0);
    assert_int_equal(unsubscribe(topics, 4, &list, "olds"), 0);
    assert_int_equal(unsubscribe(topics, 4, &list, "news"), 1);
    assert_int_equal(unsubscribe(topics, 4, &list, "news"), 0);
    assert_int_equal(list, 0);
    assert_int_equal(rw_topics_count(topics), 0);
    rw_topics_destroy(topics);
}

static void names_are_bytes_of_1_to_1024(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    static uint8_t name[RW_TOPIC_BYTES_MAX + 1];
    uint32_t list = 0;
    assert_int_equal(rw_topics_subscribe(topics, 0, &list, name, 0), RW_ERR_INVALID);
    assert_int_equal(rw_topics_subscribe(topics, 0, &list, name, RW_TOPIC_BYTES_MAX + 1), RW_ERR_INVALID);
    assert_int_equal(list, 0);
    /* All zero bytes, and each a prefix of the next: told apart by length alone. */
    for (uint32_t bytes = 1; bytes <= RW_TOPIC_BYTES_MAX; bytes++)
        assert_int_equal(rw_topics_subscribe(topics, 0, &list, name, bytes), 1);
    assert_int_equal(rw_topics_count(topics), RW_TOPIC_BYTES_MAX);
    assert_int_equal(rw_topics_is_subscribed(topics, 0, name, RW_TOPIC_BYTES_MAX), 1);
    assert_int_equal(rw_topics_is_subscribed(topics, 0, name, RW_TOPIC_BYTES_MAX + 1), 0);
    assert_int_equal(rw_topics_is_subscribed(topics, 0, name, 0), 0);
    rw_topics_drop(topics, 0, &list);
    assert_int_equal(rw_topics_count(topics), 0);
    rw_topics_destroy(topics);
}

static void a_hash_shared_by_two_names_does_not_join_them(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t list = 0;
    assert_int_equal(subscribe(topics, 1, &list, "one"), 1);
    uint64_t hash = rw_topics_hash(bytes_of("one"), 3);
    assert_int_not_equal(rw_topics_find(topics, bytes_of("one"), 3, hash), 0);
    assert_int_equal(rw_topics_find(topics, bytes_of("two"), 3, hash), 0);
    assert_int_equal(rw_topics_find(topics, bytes_of("on"), 2, hash), 0);
    rw_topics_destroy(topics);
}

static void topic_ids_begin_at_1_and_are_used_again(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t list = 0;
    subscribe(topics, 1, &list, "a");
    subscribe(topics, 1, &list, "b");
    assert_int_equal(find(topics, "a"), 1);
    assert_int_equal(find(topics, "b"), 2);
    unsubscribe(topics, 1, &list, "a");
    assert_int_equal(find(topics, "a"), 0);
    subscribe(topics, 1, &list, "c");
    assert_int_equal(find(topics, "c"), 1);
    rw_topics_destroy(topics);
}

/* ------------------------------------------------------------------ interest */
struct interest {
    char name[64];
    uint64_t hash;
    int interested;
    uint32_t calls;
};

static void note_interest(void *context, const uint8_t *name, uint32_t name_bytes, uint64_t hash, int interested) {
    struct interest *interest = context;
    assert_true(name_bytes < sizeof interest->name);
    memcpy(interest->name, name, name_bytes);
    interest->name[name_bytes] = 0;
    interest->hash = hash;
    interest->interested = interested;
    interest->calls++;
}

static void interest_is_told_with_the_first_and_after_the_last_subscriber(void **state) {
    (void)state;
    struct interest interest = {.calls = 0};
    struct rw_topics *topics = rw_topics_create(note_interest, &interest);
    uint32_t lists[3] = {0};
    subscribe(topics, 0, &lists[0], "room/1");
    assert_int_equal(interest.calls, 1);
    assert_int_equal(interest.interested, 1);
    assert_string_equal(interest.name, "room/1");
    assert_true(interest.hash == rw_topics_hash(bytes_of("room/1"), 6));
    subscribe(topics, 0, &lists[0], "room/1");
    subscribe(topics, 1, &lists[1], "room/1");
    subscribe(topics, 2, &lists[2], "room/1");
    unsubscribe(topics, 0, &lists[0], "room/1");
    rw_topics_drop(topics, 1, &lists[1]);
    assert_int_equal(interest.calls, 1);
    rw_topics_drop(topics, 2, &lists[2]);
    assert_int_equal(interest.calls, 2);
    assert_int_equal(interest.interested, 0);
    assert_string_equal(interest.name, "room/1");
    assert_true(interest.hash == rw_topics_hash(bytes_of("room/1"), 6));
    rw_topics_destroy(topics);
}

/* ------------------------------------------------------------------ the model */
struct model {
    uint64_t run; /* printed on failure: the seed follows from it */
    uint64_t seed;
    uint8_t subscribed[SLOTS][NAMES];
    uint8_t interested[NAMES]; /* as the callback says */
    uint32_t lists[SLOTS];
};

static void require(const struct model *model, int holds, const char *what) {
    if (!holds) fail_msg("%s (run %llu)", what, (unsigned long long)model->run);
}

static uint64_t next_random(struct model *model) {
    model->seed ^= model->seed << 13;
    model->seed ^= model->seed >> 7;
    model->seed ^= model->seed << 17;
    return model->seed;
}

/* Number n's name: some short, some long, with common beginnings. */
static uint32_t name_of(uint32_t n, uint8_t *out) {
    uint32_t bytes = n % 3 == 0 ? 1u : n % 3 == 1 ? 9u : 200u;
    memset(out, 'x', bytes);
    out[bytes - 1] = (uint8_t)n;
    return bytes;
}

static void model_interest(void *context, const uint8_t *name, uint32_t name_bytes, uint64_t hash, int interested) {
    struct model *model = context;
    uint8_t n = name[name_bytes - 1];
    require(model, hash == rw_topics_hash(name, name_bytes), "interest gives the hash of the name");
    require(model, model->interested[n] != interested, "interest changes each time it is told");
    model->interested[n] = (uint8_t)interested;
}

static void model_check(struct model *model, const struct rw_topics *topics) {
    uint8_t name[256];
    uint32_t topic_count = 0;
    uint32_t subscription_count = 0;
    for (uint32_t n = 0; n < NAMES; n++) {
        uint32_t bytes = name_of(n, name);
        uint32_t expected = 0;
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            expected += model->subscribed[slot][n];
            require(model, rw_topics_is_subscribed(topics, slot, name, bytes) == model->subscribed[slot][n],
                    "is_subscribed");
        }
        uint32_t id = rw_topics_find(topics, name, bytes, rw_topics_hash(name, bytes));
        require(model, (id != 0) == (expected != 0), "a topic exists while it has subscribers");
        require(model, model->interested[n] == (expected != 0), "interest lasts while there are subscribers");
        if (id == 0) continue;
        uint32_t count = 0;
        uint8_t seen[SLOTS] = {0};
        const uint32_t *members = rw_topics_members(topics, id, &count);
        require(model, count == expected, "member count");
        for (uint32_t i = 0; i < count; i++) {
            require(model, members[i] < SLOTS && model->subscribed[members[i]][n] && !seen[members[i]],
                    "members are the subscribers, each once");
            seen[members[i]] = 1;
        }
        topic_count++;
        subscription_count += count;
    }
    require(model, rw_topics_count(topics) == topic_count && rw_topics_subscriptions(topics) == subscription_count,
            "totals");
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        uint8_t seen[NAMES] = {0};
        const uint8_t *found;
        uint32_t bytes = 0;
        uint32_t cursor = model->lists[slot];
        while (rw_topics_next_of_slot(topics, &cursor, &found, &bytes)) {
            uint32_t n = found[bytes - 1];
            require(model, n < NAMES && bytes == name_of(n, name) && memcmp(name, found, bytes) == 0,
                    "a slot's list gives whole names");
            require(model, !seen[n] && model->subscribed[slot][n], "a slot's list has its topics, each once");
            seen[n] = 1;
        }
        require(model, memcmp(seen, model->subscribed[slot], NAMES) == 0, "a slot's list has all its topics");
    }
}

static void model_step(struct model *model, struct rw_topics *topics, uint32_t subscribe_of_16) {
    uint8_t name[256];
    uint32_t slot = (uint32_t)(next_random(model) % SLOTS);
    uint32_t n = (uint32_t)(next_random(model) % NAMES);
    if (next_random(model) % 4 == 0) n = 0; /* a topic with many subscribers */
    uint32_t bytes = name_of(n, name);
    uint64_t choice = next_random(model) % 16;
    uint8_t was = model->subscribed[slot][n];
    if (choice < subscribe_of_16) {
        require(model, rw_topics_subscribe(topics, slot, &model->lists[slot], name, bytes) == !was, "subscribe");
        model->subscribed[slot][n] = 1;
    } else if (choice < 15) {
        require(model, rw_topics_unsubscribe(topics, slot, &model->lists[slot], name, bytes) == was, "unsubscribe");
        model->subscribed[slot][n] = 0;
    } else {
        rw_topics_drop(topics, slot, &model->lists[slot]);
        require(model, model->lists[slot] == 0, "drop empties the list");
        memset(model->subscribed[slot], 0, NAMES);
    }
}

static void random_use_agrees_with_a_table_of_booleans(void **state) {
    (void)state;
    for (uint64_t run = 1; run <= 30; run++) {
        struct model model = {.run = run, .seed = run * 0x9e3779b97f4a7c15u};
        struct rw_topics *topics = rw_topics_create(model_interest, &model);
        for (uint32_t step = 0; step < 3000; step++) {
            /* Waves: tables fill up, then run empty. */
            model_step(&model, topics, step / 500 % 2 == 0 ? 12 : 4);
            if (step % 50 == 0) model_check(&model, topics);
        }
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            rw_topics_drop(topics, slot, &model.lists[slot]);
            memset(model.subscribed[slot], 0, NAMES);
        }
        model_check(&model, topics);
        assert_int_equal(rw_topics_count(topics), 0);
        assert_int_equal(rw_topics_subscriptions(topics), 0);
        rw_topics_destroy(topics);
    }
}

/* ------------------------------------------------------------------ seats */
struct ending {
    uint32_t slot;
    uint32_t seat;
    int closed;
    char name[32];
};

struct endings {
    struct ending items[2 * NAMES];
    uint32_t count;
};

static void note_absent(void *context, uint32_t slot, const uint8_t *name, uint32_t name_bytes, uint32_t seat,
                        int closed) {
    struct endings *endings = context;
    struct ending *ending = &endings->items[endings->count++];
    *ending = (struct ending){.slot = slot, .seat = seat, .closed = closed};
    memcpy(ending->name, name, name_bytes);
}

static int32_t set_seat(struct rw_topics *topics, uint32_t slot, const char *name, uint32_t seat) {
    return rw_topics_set_seat(topics, slot, bytes_of(name), (uint32_t)strlen(name), seat);
}

static void the_end_of_a_subscription_with_a_seat_is_told_once_and_how_it_came(void **state) {
    (void)state;
    struct endings endings = {0};
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    rw_topics_note_absent(topics, note_absent, &endings);
    uint32_t list = 0;
    uint32_t seat = 9;
    assert_int_equal(set_seat(topics, 3, "a", 7), RW_ERR_STALE);
    subscribe(topics, 3, &list, "a");
    subscribe(topics, 3, &list, "b");
    subscribe(topics, 3, &list, "c");
    assert_int_equal(rw_topics_seat(topics, 3, bytes_of("a"), 1, &seat), RW_OK);
    assert_int_equal(seat, 0);
    assert_int_equal(rw_topics_seat(topics, 4, bytes_of("a"), 1, &seat), RW_ERR_STALE);
    assert_int_equal(set_seat(topics, 3, "a", 7), RW_OK);
    assert_int_equal(set_seat(topics, 3, "b", 8), RW_OK);
    assert_int_equal(rw_topics_seat(topics, 3, bytes_of("a"), 1, &seat), RW_OK);
    assert_int_equal(seat, 7);
    assert_int_equal(unsubscribe(topics, 3, &list, "a"), 1);
    assert_int_equal(endings.count, 1);
    assert_int_equal(endings.items[0].seat, 7);
    assert_int_equal(endings.items[0].slot, 3);
    assert_int_equal(endings.items[0].closed, 0);
    assert_string_equal(endings.items[0].name, "a");
    rw_topics_drop(topics, 3, &list);
    assert_int_equal(endings.count, 2); /* not of c, which has none */
    assert_int_equal(endings.items[1].seat, 8);
    assert_int_equal(endings.items[1].closed, 1);
    /* What takes the subscription's place has no seat. */
    subscribe(topics, 3, &list, "a");
    assert_int_equal(rw_topics_seat(topics, 3, bytes_of("a"), 1, &seat), RW_OK);
    assert_int_equal(seat, 0);
    assert_int_equal(set_seat(topics, 3, "a", 7), RW_OK);
    assert_int_equal(set_seat(topics, 3, "a", 0), RW_OK);
    rw_topics_drop(topics, 3, &list);
    assert_int_equal(endings.count, 2);
    rw_topics_destroy(topics);
}

static void seats_stay_with_their_subscriptions_as_the_tables_grow(void **state) {
    (void)state;
    enum { SUBSCRIPTIONS = 3000 };
    static struct endings endings;
    endings.count = 0;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    rw_topics_note_absent(topics, note_absent, &endings);
    static uint32_t lists[SUBSCRIPTIONS];
    for (uint32_t slot = 0; slot < SUBSCRIPTIONS; slot++) {
        subscribe(topics, slot, &lists[slot], "crowd");
        if (slot % 3 == 0) assert_int_equal(set_seat(topics, slot, "crowd", slot + 1), RW_OK);
    }
    for (uint32_t slot = 0; slot < SUBSCRIPTIONS; slot++) {
        endings.count = 0;
        rw_topics_drop(topics, slot, &lists[slot]);
        assert_int_equal(endings.count, slot % 3 == 0);
        if (slot % 3 == 0) assert_int_equal(endings.items[0].seat, slot + 1);
    }
    rw_topics_destroy(topics);
}

/* ------------------------------------------------------------------ memory */
static void topics_that_come_and_go_leave_no_memory_behind(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    size_t after_first = 0;
    char name[32];
    for (uint32_t round = 0; round < 20; round++) {
        static uint32_t lists[100];
        for (uint32_t i = 0; i < 2000; i++) {
            snprintf(name, sizeof name, "round/%u/%u", round, i); /* never the same twice */
            assert_int_equal(subscribe(topics, i % 100, &lists[i % 100], name), 1);
        }
        for (uint32_t slot = 0; slot < 100; slot++) rw_topics_drop(topics, slot, &lists[slot]);
        assert_int_equal(rw_topics_count(topics), 0);
        if (round == 0) after_first = allocated_bytes();
    }
    assert_true(allocated_bytes() <= after_first);
    rw_topics_destroy(topics);
}

static void a_topic_that_was_large_gives_its_member_array_back(void **state) {
    (void)state;
    enum { CROWD = 20000 };
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t *lists = calloc(CROWD, sizeof *lists);
    size_t before = 0;
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t slot = 0; slot < CROWD; slot++)
            assert_int_equal(subscribe(topics, slot, &lists[slot], "crowd"), 1);
        if (round == 0) before = allocated_bytes();
        for (uint32_t slot = 0; slot < CROWD - 10; slot++)
            assert_int_equal(unsubscribe(topics, slot, &lists[slot], "crowd"), 1);
        /* At least the members (8 bytes each) and most of the index (8 bytes a cell) are returned, while the topic
         * lives on. */
        assert_true(allocated_bytes() + (size_t)CROWD * 16 < before);
        for (uint32_t slot = CROWD - 10; slot < CROWD; slot++)
            assert_true(rw_topics_is_subscribed(topics, slot, bytes_of("crowd"), 5));
        for (uint32_t slot = CROWD - 10; slot < CROWD; slot++) rw_topics_drop(topics, slot, &lists[slot]);
    }
    free(lists);
    rw_topics_destroy(topics);
}

static void destroying_with_subscribers_frees_everything(void **state) {
    (void)state;
    size_t before = allocated_bytes();
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t lists[10] = {0};
    char name[32];
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "topic/%u", i % 300);
        subscribe(topics, i % 10, &lists[i % 10], name);
    }
    rw_topics_destroy(topics);
#ifdef __SANITIZE_ADDRESS__
    assert_int_equal(allocated_bytes(), before);
#else /* glibc counts what its thread cache keeps as allocated */
    assert_true(allocated_bytes() < before + 4096);
#endif
}

static void read_members_of_topic_1(void *topics) { (void)rw_topics_members(topics, 1, &(uint32_t){0}); }

static void the_members_of_a_topic_that_ended_are_an_assert(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t list = 0;
    subscribe(topics, 1, &list, "a");
    assert_false(dies(read_members_of_topic_1, topics));
    rw_topics_drop(topics, 1, &list);
    assert_true(dies(read_members_of_topic_1, topics));
    rw_topics_destroy(topics);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hash_is_siphash_1_3_of_the_name_under_the_seed),
        cmocka_unit_test(subscribing_twice_counts_once),
        cmocka_unit_test(names_are_bytes_of_1_to_1024),
        cmocka_unit_test(a_hash_shared_by_two_names_does_not_join_them),
        cmocka_unit_test(topic_ids_begin_at_1_and_are_used_again),
        cmocka_unit_test(interest_is_told_with_the_first_and_after_the_last_subscriber),
        cmocka_unit_test(random_use_agrees_with_a_table_of_booleans),
        cmocka_unit_test(the_end_of_a_subscription_with_a_seat_is_told_once_and_how_it_came),
        cmocka_unit_test(seats_stay_with_their_subscriptions_as_the_tables_grow),
        cmocka_unit_test(topics_that_come_and_go_leave_no_memory_behind),
        cmocka_unit_test(a_topic_that_was_large_gives_its_member_array_back),
        cmocka_unit_test(destroying_with_subscribers_frees_everything),
        cmocka_unit_test(the_members_of_a_topic_that_ended_are_an_assert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
