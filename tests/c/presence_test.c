/* Members of topics: who is there, when somebody comes and goes, graces, and what is kept for another store. */
#include "presence_check.h"
#include "presence_fixture.h"

static struct node node;

static int set_up(void **state) {
    (void)state;
    node_open(&node, 0);
    return 0;
}

static int set_up_shared(void **state) {
    (void)state;
    node_open(&node, 1);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    check_presence(node.state);
    node_close(&node);
    return 0;
}

static void a_user_comes_with_the_first_connection_and_goes_with_the_last(void **state) {
    (void)state;
    struct observer observer;
    observer_start(&node, "chat", &observer);
    assert_int_equal(observer.at.offset, 0);
    rw_block first, second;
    assert_int_equal(join_with(&node, 0, 1, "chat", "ann", "{}", 3000, &first), RW_PRESENCE_CHANGED);
    assert_int_equal(join_with(&node, 1, 1, "chat", "ann", "{}", 3000, &second), RW_PRESENCE_SAME);
    const rw_block bob = join(&node, 1, 2, "chat", "bob");
    assert_who(&node, "chat", "ann*2 bob*1");
    assert_int_equal(count_of(&node, "chat").users, 2);
    assert_int_equal(count_of(&node, "chat").connections, 3);
    assert_int_equal(leave(&node, 0, 1, "chat", first, 0), RW_PRESENCE_SAME);
    assert_who(&node, "chat", "ann*1 bob*1");
    assert_int_equal(leave(&node, 1, 1, "chat", second, 0), RW_PRESENCE_CHANGED);
    assert_who(&node, "chat", "bob*1");
    assert_int_equal(leave(&node, 1, 2, "chat", bob, 0), RW_PRESENCE_CHANGED);
    assert_who(&node, "chat", "");
    assert_int_equal(count_of(&node, "chat").users, 0);
    assert_true(observe(&node, "chat", &observer));
    assert_int_equal(observer.joins, 2);
    assert_int_equal(observer.leaves, 2);
    assert_int_equal(observer.count, 0);
}

static void a_first_seat_that_is_free_again_is_used_again(void **state) {
    (void)state;
    const rw_block first = join(&node, 0, 1, "chat", "ann");
    const rw_block second = join(&node, 0, 2, "chat", "ann");
    assert_int_not_equal(first, second);
    assert_int_equal(leave(&node, 0, 1, "chat", first, 0), RW_PRESENCE_SAME);
    assert_int_equal(leave(&node, 0, 1, "chat", first, 0), RW_ERR_STALE);
    assert_int_equal(join(&node, 0, 3, "chat", "ann"), first);
    assert_int_equal(leave(&node, 0, 2, "chat", second, 0), RW_PRESENCE_SAME);
    assert_int_equal(leave(&node, 0, 3, "chat", first, 0), RW_PRESENCE_CHANGED);
    assert_who(&node, "chat", "");
}

static void a_return_within_the_grace_shows_neither(void **state) {
    (void)state;
    struct observer observer;
    observer_start(&node, "chat", &observer);
    rw_block seat = join(&node, 0, 1, "chat", "ann");
    for (uint32_t round = 0; round < 5; round++) {
        assert_int_equal(leave(&node, 0, 1, "chat", seat, 1), RW_PRESENCE_SAME);
        assert_who(&node, "chat", "ann*1");
        assert_int_equal(count_of(&node, "chat").connections, 1);
        pass(&node, 2900);
        tick(&node, 1);
        assert_int_equal(join_with(&node, 2, 1, "chat", "ann", "", 3000, &seat), RW_PRESENCE_SAME);
        assert_int_equal(leave(&node, 2, 1, "chat", seat, 1), RW_PRESENCE_SAME);
        assert_int_equal(join_with(&node, 0, 1, "chat", "ann", "", 3000, &seat), RW_PRESENCE_SAME);
        pass(&node, 10000);
        tick(&node, 1); /* what was cancelled does not come */
        assert_who(&node, "chat", "ann*1");
    }
    assert_int_equal(node.left, 0);
    assert_int_equal(leave(&node, 0, 1, "chat", seat, 1), RW_PRESENCE_SAME);
    pass(&node, 2900);
    tick(&node, 3);
    assert_who(&node, "chat", "ann*1");
    pass(&node, 200);
    tick(&node, 3);
    assert_who(&node, "chat", "");
    assert_int_equal(node.left, 1);
    assert_true(observe(&node, "chat", &observer));
    assert_int_equal(observer.joins, 1);
    assert_int_equal(observer.leaves, 1);
}

static void who_leaves_by_itself_leaves_at_once_but_not_while_another_tab_reloads(void **state) {
    (void)state;
    rw_block tab = join(&node, 0, 1, "chat", "ann");
    rw_block other = join(&node, 0, 2, "chat", "ann");
    assert_int_equal(leave(&node, 0, 1, "chat", tab, 1), RW_PRESENCE_SAME);
    pass(&node, 1000);
    assert_int_equal(leave(&node, 0, 2, "chat", other, 0), RW_PRESENCE_SAME); /* tab may come back until 3000 */
    assert_who(&node, "chat", "ann*1");
    pass(&node, 1900);
    tick(&node, 0);
    assert_who(&node, "chat", "ann*1");
    pass(&node, 200);
    tick(&node, 0);
    assert_who(&node, "chat", "");
    /* It has come back, so nobody is waited for any more. */
    tab = join(&node, 0, 1, "chat", "ann");
    leave(&node, 0, 1, "chat", tab, 1);
    tab = join(&node, 0, 3, "chat", "ann");
    assert_int_equal(leave(&node, 0, 3, "chat", tab, 0), RW_PRESENCE_CHANGED);
    assert_who(&node, "chat", "");
}

static void without_grace_the_end_of_a_connection_is_a_leave(void **state) {
    (void)state;
    rw_block seat;
    assert_int_equal(join_with(&node, 0, 1, "chat", "ann", "", 0, &seat), RW_PRESENCE_CHANGED);
    assert_int_equal(leave(&node, 0, 1, "chat", seat, 1), RW_PRESENCE_CHANGED);
    assert_who(&node, "chat", "");
}

static void graces_of_any_length_end_in_their_time(void **state) {
    (void)state;
    static const uint32_t graces[] = {1,     63,    64,    1000,   1024,    3000,   60000,
                                      65536, 66000, 70000, 600000, 3599999, 9999999};
    enum { GRACES = sizeof graces / sizeof graces[0] };
    char topic[32];
    for (uint32_t round = 0; round < 3; round++) {
        pass(&node, 777 * round);
        const uint64_t began = node.now.monotonic_ms;
        for (uint32_t i = 0; i < GRACES; i++) {
            rw_block seat;
            snprintf(topic, sizeof topic, "topic/%u", i);
            assert_int_equal(join_with(&node, 0, i, topic, "ann", "", graces[i], &seat), RW_PRESENCE_CHANGED);
            assert_int_equal(leave(&node, 0, i, topic, seat, 1), RW_PRESENCE_SAME);
        }
        for (uint32_t there = GRACES; there > 0;) {
            pass(&node, 300);
            tick(&node, 0);
            const uint64_t passed = node.now.monotonic_ms - began;
            there = 0;
            for (uint32_t i = 0; i < GRACES; i++) {
                const uint64_t grace = graces[i] < RW_PRESENCE_GRACE_MS_MAX ? graces[i] : RW_PRESENCE_GRACE_MS_MAX;
                snprintf(topic, sizeof topic, "topic/%u", i);
                const uint32_t users = count_of(&node, topic).users;
                if (passed < grace) assert_int_equal(users, 1);
                if (passed > grace + 64) assert_int_equal(users, 0); /* a tick after it at the latest */
                there += users;
            }
        }
    }
}

static void a_wheel_that_nobody_has_turned_for_hours_loses_nobody(void **state) {
    (void)state;
    rw_block seat;
    join_with(&node, 0, 1, "long", "ann", "", 3000000, &seat);
    leave(&node, 0, 1, "long", seat, 1);
    pass(&node, 2900000); /* no tick */
    join_with(&node, 0, 2, "short", "bob", "", 3000000, &seat);
    leave(&node, 0, 2, "short", seat, 1);
    pass(&node, 200000);
    tick(&node, 0);
    assert_who(&node, "long", "");
    assert_who(&node, "short", "bob*1");
    pass(&node, 86400000);
    tick(&node, 0);
    assert_who(&node, "short", "");
}

static void members_of_a_process_that_is_gone_begin_their_grace(void **state) {
    (void)state;
    struct observer observer;
    observer_start(&node, "chat", &observer);
    (void)join(&node, 1, 1, "chat", "ann");
    (void)join(&node, 1, 2, "chat", "bob");
    (void)join(&node, 1, 3, "chat", "bob");
    (void)join(&node, 2, 1, "chat", "bob");
    worker_dies(&node, 1);
    tick(&node, 0);
    assert_who(&node, "chat", "ann*1 bob*1");
    worker_starts(&node, 1, 0);
    const rw_block eve = join(&node, 1, 1, "chat", "eve");
    pass(&node, 3100);
    tick(&node, 0);
    assert_who(&node, "chat", "bob*1 eve*1"); /* the successor's are not taken for those of the one before */
    assert_int_equal(leave(&node, 1, 1, "chat", eve, 0), RW_PRESENCE_CHANGED);
    assert_true(observe(&node, "chat", &observer));
    assert_int_equal(observer.joins, 3);
    assert_int_equal(observer.leaves, 2);
}

static void a_successor_that_is_quicker_than_any_tick_finds_its_predecessors_members(void **state) {
    (void)state;
    (void)join(&node, 1, 1, "chat", "ann");
    worker_dies(&node, 1);
    worker_starts(&node, 1, 0);
    (void)join(&node, 1, 1, "chat", "bob");
    tick(&node, 1);
    pass(&node, 3100);
    tick(&node, 1);
    assert_who(&node, "chat", "bob*1");
}

static void ticks_do_as_much_as_they_may_and_say_so(void **state) {
    (void)state;
    char name[32];
    for (uint32_t i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "user/%u", i);
        (void)join(&node, 1, i, i % 3 ? "chat" : "news", name);
    }
    worker_dies(&node, 1);
    uint32_t ticks = 1;
    while (rw_presence_tick(&node.workers[0], &node.now, 50, note_left, &node)) ticks++;
    assert_true(ticks >= 6);
    assert_int_equal(count_of(&node, "chat").users + count_of(&node, "news").users, 300);
    pass(&node, 3100);
    for (ticks = 1; rw_presence_tick(&node.workers[0], &node.now, 50, note_left, &node);) ticks++;
    assert_true(ticks >= 6);
    assert_int_equal(node.left, 300);
    assert_int_equal(count_of(&node, "chat").users + count_of(&node, "news").users, 0);
}

static void a_topic_has_no_more_members_than_it_may(void **state) {
    (void)state;
    rw_block seat, waiting;
    struct rw_presence_join joining = {connection(1), text("ann"), text(""), 3000, 2};
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("chat"), &joining, &node.now, &waiting), 1);
    joining.seat = connection(2);
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("chat"), &joining, &node.now, &seat), 0);
    joining.seat = connection(3);
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("chat"), &joining, &node.now, &seat), RW_ERR_FULL);
    joining.user = text("bob");
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("chat"), &joining, &node.now, &seat), RW_ERR_FULL);
    assert_who(&node, "chat", "ann*2");
    joining.members_max = 0;
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("news"), &joining, &node.now, &seat), RW_ERR_FULL);
    assert_who(&node, "news", "");
}

static void a_user_that_waits_has_a_place_of_its_own(void **state) {
    (void)state;
    rw_block seat;
    struct rw_presence_join joining = {connection(1), text("ann"), text(""), 3000, 1};
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("chat"), &joining, &node.now, &seat), 1);
    assert_int_equal(leave(&node, 0, 1, "chat", seat, 1), 0);
    const struct rw_presence_join other = {connection(2), text("bob"), text(""), 3000, 1};
    rw_block none;
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("chat"), &other, &node.now, &none), RW_ERR_FULL);
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("chat"), &joining, &node.now, &seat), 0);
}

static void what_is_too_long_or_empty_is_refused(void **state) {
    (void)state;
    static uint8_t bytes[RW_PRESENCE_INFO_BYTES_MAX + 1];
    memset(bytes, 'x', sizeof bytes);
    rw_block seat;
    struct rw_presence_join joining = {connection(1), {bytes, RW_PRESENCE_USER_BYTES_MAX + 1}, text(""), 0, 9};
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("a"), &joining, &node.now, &seat), RW_ERR_INVALID);
    joining.user.count = 0;
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("a"), &joining, &node.now, &seat), RW_ERR_INVALID);
    joining.user.count = 1;
    joining.info = (struct rw_presence_bytes){bytes, sizeof bytes};
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("a"), &joining, &node.now, &seat), RW_ERR_INVALID);
    joining.info.count--;
    joining.user.count = RW_PRESENCE_USER_BYTES_MAX;
    assert_int_equal(rw_presence_join(&node.workers[0], log_of("a"), &joining, &node.now, &seat), 1);
    const struct rw_state_name plain = rw_state_name(bytes, 4); /* not that of a presence log */
    assert_int_equal(rw_presence_join(&node.workers[0], &plain, &joining, &node.now, &seat), RW_ERR_INVALID);
}

/* Ids and infos of any length come back whole, over however many blocks. */
static void ids_and_infos_of_any_length_are_listed_as_they_came(void **state) {
    (void)state;
    static uint8_t out[1u << 20];
    static uint8_t id[RW_PRESENCE_USER_BYTES_MAX], info[RW_PRESENCE_INFO_BYTES_MAX];
    for (uint32_t i = 0; i < sizeof id; i++) id[i] = (uint8_t)('a' + i % 26);
    for (uint32_t i = 0; i < sizeof info; i++) info[i] = (uint8_t)('A' + i % 23);
    static const uint32_t lengths[][2] = {{1, 0},    {36, 0},   {40, 0},   {41, 0},    {36, 4},       {36, 5},
                                          {40, 124}, {40, 125}, {1024, 0}, {1, 16384}, {1024, 16384}, {500, 1000}};
    enum { LENGTHS = sizeof lengths / sizeof lengths[0] };
    for (uint32_t i = 0; i < LENGTHS; i++) {
        char topic[32];
        snprintf(topic, sizeof topic, "t/%u", i);
        const struct rw_presence_join joining = {connection(i), {id, lengths[i][0]}, {info, lengths[i][1]}, 1000, 9};
        rw_block seat;
        assert_int_equal(rw_presence_join(&node.workers[0], log_of(topic), &joining, &node.now, &seat), 1);
        struct rw_position at;
        const int64_t used = rw_presence_list(&node.workers[1], log_of(topic), node.now.wall_ms, out, sizeof out, &at);
        assert_int_equal(used, 8 + lengths[i][0] + lengths[i][1]);
        assert_memory_equal(out + 8, id, lengths[i][0]);
        assert_memory_equal(out + 8 + lengths[i][0], info, lengths[i][1]);
        memset(out, 0x55, 64);
        assert_int_equal(rw_presence_list(&node.workers[1], log_of(topic), node.now.wall_ms, out, 8, &at), used);
        assert_int_equal(out[8], 0x55); /* nothing is written beyond what there is room for */
        assert_int_equal(leave(&node, 0, i, topic, seat, 0), RW_PRESENCE_CHANGED);
    }
}

/* ------------------------------------------------------------------ room */
static uint64_t used_bytes(void) {
    struct rw_topic_memory usage;
    rw_state_usage(node.state, &usage);
    return usage.used_bytes;
}

static void whoever_has_gone_has_left_no_memory_behind(void **state) {
    (void)state;
    uint64_t before = 0;
    char name[32];
    for (uint32_t round = 0; round < 4; round++) {
        static rw_block seats[2000];
        for (uint32_t i = 0; i < 2000; i++) {
            snprintf(name, sizeof name, "round/%u/%u", round, i % 500);
            seats[i] = join(&node, i % 4, i, "chat", name);
        }
        for (uint32_t i = 0; i < 2000; i++) leave(&node, i % 4, i, "chat", seats[i], i % 2 == 0);
        pass(&node, 5000);
        tick(&node, 0);
        (void)rw_log_forget(node.state, log_of("chat"));
        if (round == 0) before = used_bytes();
        assert_int_equal(used_bytes(), before);
    }
}

static void a_member_takes_a_block_of_128_bytes(void **state) {
    (void)state;
    char name[64];
    (void)join(&node, 0, 0, "chat", "first");
    for (uint32_t i = 0; i < 1000; i++) { /* the log has all that it keeps */
        snprintf(name, sizeof name, "%032u", i);
        leave(&node, 0, 1, "chat", join(&node, 0, 1, "chat", name), 0);
    }
    const uint64_t before = used_bytes();
    for (uint32_t i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "01234567-89ab-cdef-0123-%012u", i);
        (void)join(&node, 0, 1 + i, "chat", name);
    }
    assert_true(used_bytes() - before <= 500 * 150);
}

static void when_memory_is_used_up_joins_are_refused_and_leaves_are_not(void **state) {
    (void)state;
    static rw_block seats[200000];
    static char name[600];
    memset(name, 'n', 500);
    uint32_t count = 0;
    struct rw_presence_join joining = {.grace_ms = 3000, .members_max = UINT32_MAX};
    for (;; count++) {
        assert_true(count < 200000);
        snprintf(name + 480, 100, "%u", count);
        joining.seat = connection(count);
        joining.user = text(name);
        const int32_t result = rw_presence_join(&node.workers[0], log_of("chat"), &joining, &node.now, &seats[count]);
        if (result == RW_ERR_FULL) break;
        assert_int_equal(result, 1);
    }
    assert_true(count > 5000);
    assert_int_equal(count_of(&node, "chat").users, count);
    /* Whoever leaves now does so without an entry, where there is no room for one: but then there is no log either. */
    for (uint32_t i = 0; i < count; i++) {
        assert_true(leave(&node, 0, i, "chat", seats[i], i % 2) >= 0);
        if (i % 1000 == 0) {
            pass(&node, 5000);
            tick(&node, 0);
        }
    }
    pass(&node, 5000);
    tick(&node, 0);
    assert_int_equal(count_of(&node, "chat").users, 0);
    (void)join(&node, 0, 1, "chat", "ann");
    assert_who(&node, "chat", "ann*1");
}

/* ------------------------------------------------------------------ shared with another store */
struct dirty {
    uint32_t count;
    uint64_t version;
    char topic[32];
    char user[32];
};

static uint8_t dirty_bytes[RW_PRESENCE_DIRTY_BYTES_MAX + 65536];

static uint32_t take(uint32_t place, uint32_t max, struct dirty *taken) {
    uint64_t used;
    rw_presence_tick(&node.workers[place], &node.now, 1000, note_left, &node); /* looks everywhere again */
    const int32_t count =
        rw_presence_take(&node.workers[place], max, &node.now, dirty_bytes, sizeof dirty_bytes, &used);
    assert_true(count >= 0 && (uint32_t)count <= max);
    const uint8_t *from = dirty_bytes;
    for (int32_t i = 0; i < count; i++) {
        uint16_t bytes[3];
        taken[i] = (struct dirty){0};
        memcpy(&taken[i].count, from, 4);
        memcpy(&taken[i].version, from + 4, 8);
        memcpy(bytes, from + 12, 6);
        memcpy(taken[i].topic, from + 18, bytes[0]);
        memcpy(taken[i].user, from + 18 + bytes[0], bytes[1]);
        from += 18 + bytes[0] + bytes[1] + bytes[2];
    }
    assert_int_equal(from - dirty_bytes, used);
    return (uint32_t)count;
}

static void acknowledge(const struct dirty *taken) {
    assert_int_equal(rw_presence_acknowledge(&node.workers[3], log_of(taken->topic), text(taken->user), taken->version),
                     RW_OK);
}

static void what_changes_is_dirty_until_it_is_acknowledged(void **state) {
    (void)state;
    struct dirty taken[8];
    const rw_block first = join(&node, 0, 1, "chat", "ann");
    assert_int_equal(take(1, 8, taken), 1);
    assert_string_equal(taken[0].topic, "chat");
    assert_string_equal(taken[0].user, "ann");
    assert_int_equal(taken[0].count, 1);
    assert_int_equal(take(2, 8, taken + 1), 0); /* it is taken */
    const rw_block second = join(&node, 1, 1, "chat", "ann");
    acknowledge(&taken[0]); /* of the version before: it stays dirty */
    assert_int_equal(take(2, 8, taken + 1), 1);
    assert_int_equal(taken[1].count, 2);
    assert_true(taken[1].version > taken[0].version);
    acknowledge(&taken[1]);
    assert_int_equal(take(2, 8, taken), 0);
    leave(&node, 0, 1, "chat", first, 1);
    assert_int_equal(take(2, 8, taken), 1);
    assert_int_equal(taken[0].count, 1);
    acknowledge(&taken[0]);
    leave(&node, 1, 1, "chat", second, 1);
    assert_int_equal(take(2, 8, taken), 0); /* it waits, which counts the same */
    pass(&node, 4000);
    assert_int_equal(take(2, 8, taken), 1);
    assert_int_equal(taken[0].count, 0);
    assert_int_equal(node.left, 1);
    assert_who(&node, "chat", "");
    assert_int_equal(count_of(&node, "chat").users, 0);
    const uint64_t before = used_bytes();
    acknowledge(&taken[0]);
    assert_true(used_bytes() < before); /* kept until now */
    struct rw_log_end end;
    assert_int_equal(rw_log_end(node.state, log_of("chat"), node.now.wall_ms, &end), 0); /* the log is the store's */
}

static void what_was_taken_and_not_acknowledged_is_given_out_again(void **state) {
    (void)state;
    struct dirty taken[8];
    (void)join(&node, 0, 1, "chat", "ann");
    assert_int_equal(take(1, 8, taken), 1);
    pass(&node, RW_PRESENCE_TAKEN_MS / 2);
    assert_int_equal(take(2, 8, taken), 0);
    pass(&node, RW_PRESENCE_TAKEN_MS);
    assert_int_equal(take(2, 8, taken), 1);
    assert_int_equal(taken[0].count, 1);
}

static void versions_never_come_again_and_a_return_is_newer_than_the_leave(void **state) {
    (void)state;
    struct dirty taken[8];
    uint64_t version = 0;
    for (uint32_t round = 0; round < 20; round++) {
        const rw_block seat = join(&node, 0, 1, "chat", "ann");
        if (round % 3 == 0) {
            assert_int_equal(take(1, 8, taken), 1);
            assert_int_equal(taken[0].count, 1);
            assert_true(taken[0].version > version);
            version = taken[0].version;
        }
        assert_int_equal(leave(&node, 0, 1, "chat", seat, 0), RW_PRESENCE_CHANGED);
        if (round % 4 == 0) {
            assert_int_equal(take(1, 8, taken), 1);
            assert_int_equal(taken[0].count, 0);
            assert_true(taken[0].version > version);
            version = taken[0].version;
            if (round % 8 == 0) acknowledge(&taken[0]);
        }
    }
}

static void a_store_that_has_lost_everything_is_given_everything_again(void **state) {
    (void)state;
    static struct dirty taken[400];
    char topic[32];
    for (uint32_t i = 0; i < 300; i++) {
        snprintf(topic, sizeof topic, "topic/%u", i % 100);
        (void)join(&node, 0, i, topic, i / 100 % 2 ? "ann" : "bob");
    }
    const uint32_t users = take(1, 400, taken);
    assert_int_equal(users, 200); /* of 300 connections: two in each topic */
    for (uint32_t i = 0; i < users; i++) acknowledge(&taken[i]);
    assert_int_equal(take(1, 400, taken), 0);
    int32_t cursor = 0;
    do cursor = rw_presence_rewrite(&node.workers[2], (uint32_t)cursor);
    while (cursor > 0);
    assert_int_equal(cursor, 0);
    uint32_t count = 0;
    for (uint32_t some; (some = take(1, 7, taken)) != 0; count += some)
        for (uint32_t i = 0; i < some; i++) acknowledge(&taken[i]);
    assert_int_equal(count, 200);
}

static void members_of_a_time_with_another_store_are_dropped_without_it(void **state) {
    (void)state;
    struct dirty taken[8];
    leave(&node, 0, 1, "chat", join(&node, 0, 1, "chat", "ann"), 0);
    (void)join(&node, 0, 2, "chat", "bob");
    (void)join(&node, 0, 3, "chat", "eve");
    assert_int_equal(take(0, 1, taken), 1);
    for (uint32_t place = 1; place < NODE_WORKERS; place++) { /* a reload to a config without it */
        worker_dies(&node, place);
        worker_starts(&node, place, 0);
    }
    worker_dies(&node, 0);
    tick(&node, 1);
    pass(&node, 4000);
    tick(&node, 1);
    assert_who(&node, "chat", "");
    struct rw_topic_memory usage;
    rw_state_usage(node.state, &usage);
    assert_int_equal(usage.damaged, 0);
    (void)join(&node, 1, 1, "chat", "ann");
    assert_who(&node, "chat", "ann*1");
}

int main(void) {
#define LOCAL(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define SHARED(test) cmocka_unit_test_setup_teardown(test, set_up_shared, tear_down)
    const struct CMUnitTest tests[] = {
        LOCAL(a_user_comes_with_the_first_connection_and_goes_with_the_last),
        LOCAL(a_first_seat_that_is_free_again_is_used_again),
        LOCAL(a_return_within_the_grace_shows_neither),
        LOCAL(who_leaves_by_itself_leaves_at_once_but_not_while_another_tab_reloads),
        LOCAL(without_grace_the_end_of_a_connection_is_a_leave),
        LOCAL(graces_of_any_length_end_in_their_time),
        LOCAL(a_wheel_that_nobody_has_turned_for_hours_loses_nobody),
        LOCAL(members_of_a_process_that_is_gone_begin_their_grace),
        LOCAL(a_successor_that_is_quicker_than_any_tick_finds_its_predecessors_members),
        LOCAL(ticks_do_as_much_as_they_may_and_say_so),
        LOCAL(a_topic_has_no_more_members_than_it_may),
        LOCAL(a_user_that_waits_has_a_place_of_its_own),
        LOCAL(what_is_too_long_or_empty_is_refused),
        LOCAL(ids_and_infos_of_any_length_are_listed_as_they_came),
        LOCAL(whoever_has_gone_has_left_no_memory_behind),
        LOCAL(a_member_takes_a_block_of_128_bytes),
        LOCAL(when_memory_is_used_up_joins_are_refused_and_leaves_are_not),
        SHARED(what_changes_is_dirty_until_it_is_acknowledged),
        SHARED(what_was_taken_and_not_acknowledged_is_given_out_again),
        SHARED(versions_never_come_again_and_a_return_is_newer_than_the_leave),
        SHARED(a_store_that_has_lost_everything_is_given_everything_again),
        SHARED(members_of_a_time_with_another_store_are_dropped_without_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
