/* What topics keep for those who deliver from logs: the host as one who hears a topic, members of other dialects,
 * cursors of topics, and of members that lag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "ringway.h"
#include "topics/topics.h"

static const uint8_t *bytes_of(const char *text) { return (const uint8_t *)text; }

static int32_t subscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const char *name) {
    return rw_topics_subscribe(topics, slot, list, bytes_of(name), (uint32_t)strlen(name));
}

static int32_t unsubscribe(struct rw_topics *topics, uint32_t slot, uint32_t *list, const char *name) {
    return rw_topics_unsubscribe(topics, slot, list, bytes_of(name), (uint32_t)strlen(name));
}

static int32_t hold(struct rw_topics *topics, const char *name) {
    return rw_topics_hold(topics, bytes_of(name), (uint32_t)strlen(name));
}

static int32_t release(struct rw_topics *topics, const char *name) {
    return rw_topics_release(topics, bytes_of(name), (uint32_t)strlen(name));
}

static uint32_t find(const struct rw_topics *topics, const char *name) {
    uint32_t bytes = (uint32_t)strlen(name);
    return rw_topics_find(topics, bytes_of(name), bytes, rw_topics_hash(bytes_of(name), bytes));
}

static void count_interest(void *context, const uint8_t *name, uint32_t name_bytes, uint64_t hash, int interested) {
    (void)name;
    (void)name_bytes;
    (void)hash;
    *(int *)context += interested ? 1 : -1;
}

static void the_host_counts_as_one_who_hears_a_topic_and_is_no_member(void **state) {
    (void)state;
    int interest = 0;
    struct rw_topics *topics = rw_topics_create(count_interest, &interest);
    rw_topics_note_changes(topics);
    assert_int_equal(hold(topics, "news"), 1);
    assert_int_equal(hold(topics, "news"), 0);
    assert_int_equal(hold(topics, ""), RW_ERR_INVALID);
    assert_int_equal(interest, 1);
    assert_int_equal(rw_topics_changes(topics), 1);
    uint32_t id = find(topics, "news");
    uint32_t count = 7;
    (void)rw_topics_members(topics, id, &count);
    assert_int_equal(count, 0);
    assert_true(rw_topics_is_held(topics, id));
    assert_int_equal(rw_topics_others(topics, id), 1);

    uint32_t list = 0;
    assert_int_equal(subscribe(topics, 3, &list, "news"), 1);
    assert_int_equal(interest, 1);
    assert_int_equal(release(topics, "news"), 1);
    assert_int_equal(release(topics, "news"), 0);
    assert_int_equal(find(topics, "news"), id);
    assert_int_equal(hold(topics, "news"), 1);
    assert_int_equal(unsubscribe(topics, 3, &list, "news"), 1);
    assert_int_equal(find(topics, "news"), id);
    assert_int_equal(interest, 1);
    assert_int_equal(release(topics, "news"), 1);
    assert_int_equal(find(topics, "news"), 0);
    assert_int_equal(interest, 0);
    /* It was never told of, and has gone again. */
    assert_int_equal(rw_topics_changes(topics), 0);
    assert_int_equal(rw_topics_held(topics), 0);
    rw_topics_destroy(topics);
}

static void members_of_other_dialects_are_counted_until_they_leave(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t a = 0, b = 0;
    (void)subscribe(topics, RW_CONNECTIONS_MAX - 1, &a, "news");
    (void)subscribe(topics, 2, &b, "news");
    uint32_t id = find(topics, "news");
    assert_int_equal(rw_topics_others(topics, id), 0);
    rw_topics_note_other(topics, id, RW_CONNECTIONS_MAX - 1);
    rw_topics_note_other(topics, id, RW_CONNECTIONS_MAX - 1);
    rw_topics_note_other(topics, id, 2);
    assert_int_equal(rw_topics_others(topics, id), 2);
    (void)unsubscribe(topics, 2, &b, "news");
    assert_int_equal(rw_topics_others(topics, id), 1);
    (void)subscribe(topics, 2, &b, "news");
    assert_int_equal(rw_topics_others(topics, id), 1);
    rw_topics_drop(topics, RW_CONNECTIONS_MAX - 1, &a);
    assert_int_equal(rw_topics_others(topics, id), 0);
    rw_topics_drop(topics, 2, &b);
    rw_topics_destroy(topics);
}

static void a_cursor_lives_as_long_as_somebody_hears_the_topic(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    rw_topics_note_changes(topics);
    uint32_t list = 0;
    (void)subscribe(topics, 1, &list, "news");
    uint32_t id = find(topics, "news");
    assert_null(rw_topics_log(topics, id));
    struct rw_topic_log *log = rw_topics_log_begin(topics, id);
    log->cursor = (struct rw_topic_cursor){.epoch = 5, .offset = 7};
    assert_int_equal(rw_topics_logged(topics), 1);
    for (uint32_t slot = 2; slot < 300; slot++) {
        char name[16];
        (void)snprintf(name, sizeof name, "other%u", slot);
        assert_int_equal(subscribe(topics, 1, &list, name), 1);
    }
    assert_ptr_equal(rw_topics_log(topics, id), log); /* however the table of topics has grown */
    rw_topics_change_told(topics);                    /* so that the topic keeps its name when it ends */
    (void)unsubscribe(topics, 1, &list, "news");
    assert_int_equal(rw_topics_logged(topics), 0);
    assert_null(rw_topics_log(topics, id));
    (void)subscribe(topics, 1, &list, "news");
    assert_null(rw_topics_log(topics, find(topics, "news")));
    rw_topics_drop(topics, 1, &list);
    rw_topics_destroy(topics);
}

#define TOPICS 6u
#define SLOTS 8u

/* Random subscriptions, lags and ends against a table. */
static void lags_are_found_by_topic_and_slot_and_end_with_the_subscription(void **state) {
    (void)state;
    uint64_t seed = 0x1a95;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t lists[SLOTS] = {0};
    int subscribed[TOPICS][SLOTS] = {{0}};
    uint64_t lag[TOPICS][SLOTS] = {{0}};
    for (uint32_t step = 1; step < 20000; step++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        uint32_t t = (uint32_t)(seed >> 33) % TOPICS, s = (uint32_t)(seed >> 40) % SLOTS;
        char name[8];
        (void)snprintf(name, sizeof name, "t%u", t);
        uint32_t id = find(topics, name);
        switch ((uint32_t)(seed >> 50) % 5) {
            case 0:
                (void)subscribe(topics, s, &lists[s], name);
                subscribed[t][s] = 1;
                break;
            case 1:
                (void)unsubscribe(topics, s, &lists[s], name);
                subscribed[t][s] = 0;
                lag[t][s] = 0;
                break;
            case 2:
                if (!subscribed[t][s] || lag[t][s]) break;
                assert_int_equal(
                    rw_topics_lag_begin(topics, id, s, (struct rw_topic_cursor){.epoch = 1, .offset = step}), RW_OK);
                lag[t][s] = step;
                break;
            case 3:
                if (id != 0) rw_topics_lag_end(topics, id, s);
                lag[t][s] = 0;
                break;
            default:
                if (step % 7 != 0) break;
                rw_topics_drop(topics, s, &lists[s]);
                for (uint32_t i = 0; i < TOPICS; i++) {
                    subscribed[i][s] = 0;
                    lag[i][s] = 0;
                }
        }
        uint32_t lags = 0;
        for (uint32_t i = 0; i < TOPICS; i++) {
            (void)snprintf(name, sizeof name, "t%u", i);
            id = find(topics, name);
            for (uint32_t slot = 0; slot < SLOTS; slot++) {
                lags += lag[i][slot] != 0;
                const struct rw_topic_cursor *cursor = id == 0 ? NULL : rw_topics_lag(topics, id, slot);
                assert_int_equal(cursor != NULL, lag[i][slot] != 0);
                if (cursor != NULL) assert_int_equal(cursor->offset, lag[i][slot]);
            }
        }
        assert_int_equal(rw_topics_lags(topics), lags);
    }
    rw_topics_destroy(topics);
}

static void topics_are_listed_by_prefix(void **state) {
    (void)state;
    struct rw_topics *topics = rw_topics_create(NULL, NULL);
    uint32_t list = 0;
    (void)subscribe(topics, 1, &list, "chat/1");
    (void)subscribe(topics, 1, &list, "chat/22");
    (void)subscribe(topics, 1, &list, "chat");
    (void)subscribe(topics, 1, &list, "news");
    (void)hold(topics, "chat/held"); /* no connection hears it */
    uint32_t cursor = 0, found = 0, all = 0, name_bytes;
    const uint8_t *name;
    while (rw_topics_next_with_prefix(topics, &cursor, bytes_of("chat/"), 5, &name, &name_bytes)) {
        assert_memory_equal(name, "chat/", 5);
        found++;
    }
    assert_int_equal(found, 2);
    cursor = 0;
    while (rw_topics_next_with_prefix(topics, &cursor, NULL, 0, &name, &name_bytes)) all++;
    assert_int_equal(all, 4);
    (void)release(topics, "chat/held");
    rw_topics_drop(topics, 1, &list);
    rw_topics_destroy(topics);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_counts_as_one_who_hears_a_topic_and_is_no_member),
        cmocka_unit_test(members_of_other_dialects_are_counted_until_they_leave),
        cmocka_unit_test(a_cursor_lives_as_long_as_somebody_hears_the_topic),
        cmocka_unit_test(lags_are_found_by_topic_and_slot_and_end_with_the_subscription),
        cmocka_unit_test(topics_are_listed_by_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
