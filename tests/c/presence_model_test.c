/* Presence against a table: random joins, ends, kills and waits over several workers, users and topics. After each step a
 * list and a count agree with the table, and so does whoever has followed the log since some list. */
#include "presence_check.h"
#include "presence_fixture.h"
#include "seeds.h"

#define TOPICS 5u
#define USERS 7u
#define SEATS 60u
#define STEPS 1500u

static const char *const topics[TOPICS] = {"a", "chat/1", "chat/2", "news/a/rather/long/name/that/goes/on", "z"};
static const char *const users[USERS] = {"ann", "bob", "eve", "\xc3\x86nn", "x", "someone-with-a-longer-name", "7"};
static const uint32_t graces[] = {0, 0, 500, 3000, 3000, 80000, 400000};

struct seat {
    rw_block block; /* 0: free */
    uint32_t place, topic, user;
};

struct model {
    uint64_t seed;
    struct node node;
    struct seat seats[SEATS];
    uint8_t alive[NODE_WORKERS];
    uint32_t grace_ms[TOPICS];
    uint8_t there[TOPICS][USERS];
    uint64_t due[TOPICS][USERS]; /* in units, as the core rounds */
    struct observer observers[TOPICS];
};

static uint32_t any(struct model *model, uint32_t below) {
    model->seed ^= model->seed << 13;
    model->seed ^= model->seed >> 7;
    model->seed ^= model->seed << 17;
    return (uint32_t)((model->seed >> 32) % below);
}

static uint32_t open_of(const struct model *model, uint32_t topic, uint32_t user) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < SEATS; i++)
        count += model->seats[i].block != 0 && model->seats[i].topic == topic && model->seats[i].user == user;
    return count;
}

static uint64_t units_up(uint64_t ms) { return (ms + 63) / 64; }

/* The seat is gone from the table already. */
static void ends(struct model *model, uint32_t topic, uint32_t user, int closed) {
    uint64_t *due = &model->due[topic][user];
    if (closed)
        *due = model->grace_ms[topic] == 0 ? 0 : units_up(model->node.now.monotonic_ms + model->grace_ms[topic]);
    if (open_of(model, topic, user) == 0 && *due <= model->node.now.monotonic_ms / 64) model->there[topic][user] = 0;
}

static void step_join(struct model *model, uint32_t place) {
    struct node *node = &model->node;
    const uint32_t number = any(model, SEATS), topic = any(model, TOPICS), user = any(model, USERS);
    struct seat *seat = &model->seats[number];
    if (seat->block != 0) return;
    model->grace_ms[topic] = graces[any(model, sizeof graces / sizeof graces[0])];
    const int comes = !model->there[topic][user];
    assert_int_equal(join_with(node, place, number, topics[topic], users[user], any(model, 2) ? "{\"n\":1}" : "",
                               model->grace_ms[topic], &seat->block),
                     comes ? RW_PRESENCE_CHANGED : RW_PRESENCE_SAME);
    *seat = (struct seat){seat->block, place, topic, user};
    model->there[topic][user] = 1;
    model->due[topic][user] = 0;
}

static void step_leave(struct model *model) {
    const uint32_t number = any(model, SEATS);
    struct seat *seat = &model->seats[number];
    if (seat->block == 0) return;
    const struct seat was = *seat;
    const int closed = any(model, 4) != 0;
    seat->block = 0;
    ends(model, was.topic, was.user, closed);
    assert_int_equal(leave(&model->node, was.place, number, topics[was.topic], was.block, closed),
                     model->there[was.topic][was.user] ? RW_PRESENCE_SAME : RW_PRESENCE_CHANGED);
}

/* Everything due by now is done, by ticks of any size. */
static void step_tick(struct model *model, uint32_t place) {
    struct node *node = &model->node;
    const uint32_t budget = 1 + any(model, 20);
    while (rw_presence_tick(&node->workers[place], &node->now, budget, note_left, node)) continue;
    for (uint32_t i = 0; i < SEATS; i++) {
        struct seat *seat = &model->seats[i];
        if (seat->block == 0 || model->alive[seat->place]) continue;
        seat->block = 0;
        ends(model, seat->topic, seat->user, 1);
    }
    for (uint32_t topic = 0; topic < TOPICS; topic++)
        for (uint32_t user = 0; user < USERS; user++)
            if (open_of(model, topic, user) == 0 && model->due[topic][user] <= node->now.monotonic_ms / 64)
                model->there[topic][user] = 0;
}

/* Its seats stay in the table until somebody ticks: the core knows no sooner. */
static void step_kill(struct model *model, uint32_t place) {
    if (any(model, 4) == 0) step_tick(model, place); /* so that there is a state between */
    worker_dies(&model->node, place);
    model->alive[place] = 0;
    uint32_t ticker = (place + 1) % NODE_WORKERS;
    if (any(model, 2) == 0) { /* the successor is the one to find out */
        worker_starts(&model->node, place, 0);
        ticker = place;
    }
    step_tick(model, ticker);
    if (ticker != place) worker_starts(&model->node, place, 0);
    model->alive[place] = 1;
}

static int same_set(struct model *model, uint32_t topic, const struct observer *observer) {
    uint32_t count = 0;
    for (uint32_t user = 0; user < USERS; user++) {
        if (!model->there[topic][user]) continue;
        count++;
        if (observed(observer, users[user]) < 0) return 0;
    }
    return count == observer->count;
}

static void check(struct model *model) {
    static char who[WHO_BYTES];
    for (uint32_t topic = 0; topic < TOPICS; topic++) {
        uint32_t there = 0, connections = 0, listed = 0;
        struct rw_position at;
        list(&model->node, topics[topic], who, &at);
        for (uint32_t user = 0; user < USERS; user++) {
            if (!model->there[topic][user]) continue;
            const uint32_t open = open_of(model, topic, user);
            char entry[64];
            snprintf(entry, sizeof entry, "%s*%u", users[user], open ? open : 1);
            assert_non_null(strstr(who, entry));
            there++;
            connections += open ? open : 1;
        }
        for (const char *c = who; *c; c++) listed += *c == '*';
        assert_int_equal(listed, there);
        const struct rw_presence_count count = count_of(&model->node, topics[topic]);
        assert_int_equal(count.users, there);
        assert_int_equal(count.connections, connections);
        struct observer *observer = &model->observers[topic];
        assert_true(observe(&model->node, topics[topic], observer));
        assert_true(same_set(model, topic, observer));
        assert_true(observer->at.epoch == at.epoch && observer->at.offset == at.offset);
        if (any(model, 40) == 0) observer_start(&model->node, topics[topic], observer);
    }
}

static void run(uint64_t seed) {
    static struct model model;
    model = (struct model){.seed = seed * 0x9e3779b97f4a7c15ull + 1, .alive = {1, 1, 1, 1}};
    node_open(&model.node, 0);
    for (uint32_t topic = 0; topic < TOPICS; topic++)
        observer_start(&model.node, topics[topic], &model.observers[topic]);
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint32_t place = any(&model, NODE_WORKERS), choice = any(&model, 100);
        if (choice < 35) step_join(&model, place);
        else if (choice < 70) step_leave(&model);
        else if (choice < 85) pass(&model.node, any(&model, 1500));
        else if (choice < 88) pass(&model.node, any(&model, 60000)), step_tick(&model, place);
        else if (choice < 89) pass(&model.node, any(&model, 900000)), step_tick(&model, place);
        else if (choice < 97) step_tick(&model, place);
        else step_kill(&model, place);
        check(&model);
        if (step % 100 == 0) check_presence(model.node.state);
    }
    pass(&model.node, 4000000);
    for (uint32_t place = 0; place < NODE_WORKERS; place++) worker_dies(&model.node, place), model.alive[place] = 0;
    step_tick(&model, 0);
    check(&model); /* before the log forgets */
    check_presence(model.node.state);
    pass(&model.node, 4000000);
    step_tick(&model, 0);
    check(&model);
    struct rw_topic_memory usage;
    rw_state_usage(model.node.state, &usage);
    assert_int_equal(usage.damaged, 0);
    assert_int_equal(usage.evicted, 0);
    for (uint32_t topic = 0; topic < TOPICS; topic++) assert_int_equal(count_of(&model.node, topics[topic]).users, 0);
    node_close(&model.node);
}

static void members_are_those_of_a_table_and_their_log_tells_how_they_came_to_be(void **state) {
    (void)state;
    run_seeds(60, run);
}

/* ------------------------------------------------------------------ shared with another store
 * A store that takes what is dirty, forgets to acknowledge at times, and is restarted empty at times, has in the end what
 * the node has; and its versions never go back. */
struct stored {
    uint64_t version;
    uint32_t count;
};

static struct stored store[TOPICS][USERS];

static void store_take(struct model *model, uint32_t place, int reliable) {
    static uint8_t bytes[RW_PRESENCE_DIRTY_BYTES_MAX + 4096];
    uint64_t used;
    const int32_t count =
        rw_presence_take(&model->node.workers[place], 1 + any(model, 10), &model->node.now, bytes, sizeof bytes, &used);
    const uint8_t *from = bytes;
    for (int32_t i = 0; i < count; i++) {
        uint32_t connections;
        uint64_t version;
        uint16_t lengths[3];
        memcpy(&connections, from, 4);
        memcpy(&version, from + 4, 8);
        memcpy(lengths, from + 12, 6);
        uint32_t topic = 0, user = 0;
        while (strlen(topics[topic]) != lengths[0] || memcmp(topics[topic], from + 18, lengths[0]) != 0) topic++;
        while (strlen(users[user]) != lengths[1] || memcmp(users[user], from + 18 + lengths[0], lengths[1]) != 0)
            user++;
        from += 18 + lengths[0] + lengths[1] + lengths[2];
        if (!reliable && any(model, 5) == 0) continue; /* the command was lost */
        struct stored *stored = &store[topic][user];
        if (version > stored->version || stored->version == 0) *stored = (struct stored){version, connections};
        if (!reliable && any(model, 5) == 0) continue; /* the answer was */
        assert_int_equal(rw_presence_acknowledge(&model->node.workers[any(model, NODE_WORKERS)], log_of(topics[topic]),
                                                 text(users[user]), version),
                         RW_OK);
    }
}

static void run_shared(uint64_t seed) {
    static struct model model;
    model = (struct model){.seed = seed * 0x9e3779b97f4a7c15ull + 7, .alive = {1, 1, 1, 1}};
    memset(store, 0, sizeof store);
    node_open(&model.node, 1);
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint32_t place = any(&model, NODE_WORKERS), choice = any(&model, 100);
        if (choice < 30) step_join(&model, place);
        else if (choice < 60) step_leave(&model);
        else if (choice < 72) pass(&model.node, any(&model, 1500));
        else if (choice < 80) step_tick(&model, place);
        else if (choice < 99) store_take(&model, place, 0);
        else { /* it was restarted empty */ memset(store, 0, sizeof store);
            int32_t cursor = 0;
            do cursor = rw_presence_rewrite(&model.node.workers[place], (uint32_t)cursor);
            while (cursor > 0);
        }
        if (step % 100 == 0) check_presence(model.node.state);
    }
    pass(&model.node, 4000000);
    for (uint32_t round = 0; round < 100; round++) {
        if (round % 20 == 0) pass(&model.node, 2 * RW_PRESENCE_TAKEN_MS);
        step_tick(&model, 0);
        store_take(&model, 0, 1);
    }
    for (uint32_t topic = 0; topic < TOPICS; topic++)
        for (uint32_t user = 0; user < USERS; user++) {
            const uint32_t open = open_of(&model, topic, user);
            assert_int_equal(store[topic][user].count, model.there[topic][user] ? (open ? open : 1) : 0);
        }
    struct rw_topic_memory usage;
    rw_state_usage(model.node.state, &usage);
    assert_int_equal(usage.damaged, 0);
    assert_int_equal(usage.logs, 0);
    node_close(&model.node);
}

static void another_store_has_in_the_end_what_the_node_has(void **state) {
    (void)state;
    run_seeds(60, run_shared);
}

int main(void) {
    watch_seeds("presence_model_test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_those_of_a_table_and_their_log_tells_how_they_came_to_be),
        cmocka_unit_test(another_store_has_in_the_end_what_the_node_has),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    say_seed();
    return failed;
}
