/* Presence between real processes that are killed at any instruction: whoever follows the log sees joins and leaves
 * alternate, nobody stays for good, and no memory is lost. */
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "presence_check.h"
#include "presence_fixture.h"
#include "single_step.h"

#define TOPICS 3u
#define USERS 6u
#define SEATS 24u
#define ROUNDS 60u
#define GRACE_MS 20u

static const char *const topics[TOPICS] = {"chat", "news",
                                           "a/topic/with/a/name/of/more/than/one/block/so/that/there/are/two"};
static const char *const users[USERS] = {"ann", "bob", "eve", "kim", "lee", "sam"};

static uint64_t clock_ms(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void read_clock(struct node *node) {
    node->now = (struct rw_presence_clock){clock_ms(CLOCK_REALTIME), clock_ms(CLOCK_MONOTONIC)};
}

static uint32_t any(uint64_t *seed, uint32_t below) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)((*seed >> 32) % below);
}

/* Joins, leaves and ticks until it is killed. */
static void work(struct node *node, uint32_t place, uint64_t seed) {
    struct {
        rw_block block;
        uint32_t topic;
    } seats[SEATS] = {0};
    worker_starts(node, place, 0);
    for (;;) {
        read_clock(node);
        const uint32_t number = any(&seed, SEATS), topic = any(&seed, TOPICS);
        if (any(&seed, 10) == 0) {
            (void)rw_presence_tick(&node->workers[place], &node->now, 1 + any(&seed, 50), note_left, node);
        } else if (seats[number].block != 0) {
            if (leave(node, place, number, topics[seats[number].topic], seats[number].block, any(&seed, 2) != 0) < 0)
                _exit(2);
            seats[number].block = 0;
        } else {
            if (join_with(node, place, number, topics[topic], users[any(&seed, USERS)], any(&seed, 2) ? "{}" : "",
                          any(&seed, 2) ? GRACE_MS : 0, &seats[number].block) < 0)
                _exit(3);
            seats[number].topic = topic;
        }
        if (getppid() == 1) _exit(1);
        if (any(&seed, 8) == 0) sched_yield();
    }
}

static pid_t start_worker(struct node *node, uint32_t place, uint64_t seed) {
    const pid_t child = fork();
    if (child == 0) work(node, place, seed);
    assert_true(child > 0);
    return child;
}

static void kill_worker(pid_t child) {
    int status = 0;
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* it has not found anything wrong before */
}

/* One that has fallen behind what the log keeps begins anew, as it is told to. */
static void follow(struct node *node, struct observer observers[TOPICS]) {
    for (uint32_t topic = 0; topic < TOPICS; topic++) {
        struct rw_log_end end;
        read_clock(node);
        if (rw_log_end(node->state, log_of(topics[topic]), node->now.wall_ms, &end) != 1) continue;
        if (observers[topic].at.offset + 1 < end.first || observers[topic].at.epoch != end.epoch) {
            const uint32_t joins = observers[topic].joins;
            observer_start(node, topics[topic], &observers[topic]);
            observers[topic].joins = joins;
        }
        assert_true(observe(node, topics[topic], &observers[topic]));
    }
}

static void workers_killed_at_any_moment_leave_members_that_end_and_a_log_that_is_right(void **state) {
    (void)state;
    static struct node node;
    static struct observer observers[TOPICS];
    uint64_t seed = 20260917;
    node_open(&node, 0);
    read_clock(&node);
    for (uint32_t topic = 0; topic < TOPICS; topic++) observer_start(&node, topics[topic], &observers[topic]);
    const pid_t steady[] = {start_worker(&node, 2, 7), start_worker(&node, 3, 8)};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const pid_t victim = start_worker(&node, 1, seed + round);
        const uint64_t until_ms = clock_ms(CLOCK_MONOTONIC) + 2 + any(&seed, 12);
        while (clock_ms(CLOCK_MONOTONIC) < until_ms) follow(&node, observers);
        kill_worker(victim);
        check_presence(node.state);
        if (round % 2 == 0) rw_shm_worker_gone(node.address, 1); /* else its successor is quicker */
        follow(&node, observers);
    }
    for (uint32_t i = 0; i < 2; i++) kill_worker(steady[i]);
    for (uint32_t place = 1; place < NODE_WORKERS; place++) rw_shm_worker_gone(node.address, place);
    for (uint32_t round = 0; round < 2; round++) { /* their graces begin, and end */
        read_clock(&node);
        tick(&node, 0);
        follow(&node, observers);
        usleep((GRACE_MS + 100) * 1000);
    }
    uint32_t joins = 0;
    for (uint32_t topic = 0; topic < TOPICS; topic++) {
        assert_who(&node, topics[topic], "");
        assert_int_equal(observers[topic].count, 0);
        joins += observers[topic].joins;
        (void)rw_log_forget(node.state, log_of(topics[topic]));
    }
    assert_true(joins > ROUNDS); /* something has happened */
    assert_true(used_blocks(node.state) <= TOPICS * RW_WHEEL_BLOCKS);
    node_close(&node);
}

/* ------------------------------------------------------------------ killed in an operation
 * Worker 1 does one thing, and dies in it. What it does is known to nobody but itself; so the survivors must find the
 * state as before or as after, whole, and the dead one's members must end. */
struct deed {
    struct node *node;
    const char *what;
    rw_block ann, also; /* seats of worker 1, on slots 1 and 2 */
};

static void prepare(struct deed *deed) {
    struct node *node = deed->node;
    worker_starts(node, 1, 0);
    deed->ann = deed->also = 0;
    if (strcmp(deed->what, "join first") == 0) return;
    deed->ann = join(node, 1, 1, "chat", "ann");
    if (strcmp(deed->what, "leave one of two") == 0) deed->also = join(node, 1, 2, "chat", "ann");
    if (strcmp(deed->what, "return") == 0 || strcmp(deed->what, "grace over") == 0) {
        leave(node, 1, 1, "chat", deed->ann, 1);
        pass(node, strcmp(deed->what, "return") == 0 ? 100 : 5000);
    }
    if (strcmp(deed->what, "orphans") == 0) { /* of a worker before it */
        worker_dies(node, 1);
        worker_starts(node, 1, 0);
    }
}

static void do_deed(void *context) {
    const struct deed *deed = context;
    struct node *node = deed->node;
    if (strcmp(deed->what, "join first") == 0) (void)join(node, 1, 1, "chat", "ann");
    else if (strcmp(deed->what, "join again") == 0) (void)join(node, 1, 2, "chat", "ann");
    else if (strcmp(deed->what, "return") == 0) (void)join(node, 1, 1, "chat", "ann");
    else if (strcmp(deed->what, "leave at once") == 0) (void)leave(node, 1, 1, "chat", deed->ann, 0);
    else if (strcmp(deed->what, "leave one of two") == 0) (void)leave(node, 1, 1, "chat", deed->ann, 1);
    else if (strcmp(deed->what, "close") == 0) (void)leave(node, 1, 1, "chat", deed->ann, 1);
    else tick(node, 1); /* grace over, orphans */
}

static void rehearse_deed(void *context) {
    struct node other;
    struct deed deed = *(const struct deed *)context;
    node_open(&other, 0);
    deed.node = &other;
    prepare(&deed);
    do_deed(&deed);
    node_close(&other);
}

static void deed_dies(struct node *node, const char *what, uint64_t instructions) {
    struct deed deed = {node, what, 0, 0};
    static struct observer observer;
    static char listed[WHO_BYTES];
    struct rw_position at;
    observer_start(node, "chat", &observer);
    prepare(&deed);
    assert_true(observe(node, "chat", &observer));
    (void)run_single_steps(rehearse_deed, do_deed, &deed, instructions);
    check_presence(node->state);
    assert_true(observe(node, "chat", &observer));
    list(node, "chat", listed, &at);
    assert_int_equal(observer.count, listed[0] != 0); /* the list is what the log comes to */
    assert_int_equal(count_of(node, "chat").users, observer.count);
    worker_dies(node, 1);
    tick(node, 0);
    pass(node, 5000);
    tick(node, 0);
    assert_true(observe(node, "chat", &observer));
    assert_int_equal(observer.count, 0);
    assert_who(node, "chat", "");
    check_presence(node->state);
}

static void what_is_killed_at_any_instruction_has_happened_or_has_not(void **state) {
    (void)state;
    static const char *const deeds[] = {"join first",       "join again", "return",     "leave at once",
                                        "leave one of two", "close",      "grace over", "orphans"};
    static struct node node;
    uint64_t seed = 20261129;
    node_open(&node, 0);
    for (uint32_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        /* Each takes between 15,000 and 100,000 with sanitizers; one that has ended by then is as good as any. */
        for (uint32_t most = 8000; most <= 32000; most *= 2) deed_dies(&node, deeds[i], 1 + any(&seed, most));
    }
    struct rw_topic_memory usage;
    rw_state_usage(node.state, &usage);
    assert_int_equal(usage.damaged, 0);
    assert_true(usage.recovered > 0); /* some were killed while they held the shard */
    node_close(&node);
}

int main(void) {
    alarm(240);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_killed_at_any_instruction_has_happened_or_has_not),
        cmocka_unit_test(workers_killed_at_any_moment_leave_members_that_end_and_a_log_that_is_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
