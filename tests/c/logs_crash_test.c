/* Logs whose writers are killed: at instructions chosen at random, one by one, and at random moments under contention.
 * The survivors find every block accounted for, what was answered to be appended, and nothing torn. */
#include "single_step.h"
#include "state_check.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define NOW 1700000000000ull
#define LATER (NOW + 4000000ull * 1000)

static struct memory memory;
static uint64_t random_state;

static uint32_t random_below(uint32_t limit) {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % limit;
}

static int set_up(void **state) {
    (void)state;
    alarm(240);
    random_state = 20261129;
    memory = memory_open(RW_STATE_BYTES_MIN);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    alarm(0);
    memory_close(&memory);
    return 0;
}

static void fill(uint8_t *bytes, uint32_t count, uint32_t seed) {
    for (uint32_t i = 0; i < count; i++) bytes[i] = (uint8_t)((i * 131u) ^ seed ^ seed >> 8);
    if (count >= sizeof seed) memcpy(bytes, &seed, sizeof seed);
}

static int is_filled(const uint8_t *bytes, uint32_t count, uint32_t seed) {
    if (count >= sizeof seed && memcmp(bytes, &seed, sizeof seed) != 0) return 0;
    for (uint32_t i = sizeof seed; i < count; i++)
        if (bytes[i] != (uint8_t)((i * 131u) ^ seed ^ seed >> 8)) return 0;
    return 1;
}

/* ------------------------------------------------------------------ killed in an operation */

typedef void operation(uint32_t number);

/* On memory of its own, so that what is done once in a process, as binding symbols, is over. */
static void rehearse(operation *run, uint32_t number) {
    struct memory real = memory;
    memory = memory_open(RW_STATE_BYTES_MIN);
    run(number);
    memory_close(&memory);
    memory = real;
}

struct step {
    operation *run;
    uint32_t number;
};

static void rehearse_step(void *context) {
    const struct step *step = context;
    rehearse(step->run, step->number);
}

static void run_step(void *context) {
    const struct step *step = context;
    step->run(step->number);
}

/* ret: how many instructions it took when it ended before so many, 0: killed */
static uint64_t run_and_kill(operation *run, uint32_t number, uint64_t instructions) {
    struct step step = {run, number};
    return run_single_steps(rehearse_step, run_step, &step, instructions);
}

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The same after so much time, 0: not at all. By a timer of the kernel, which is exact while the machine is busy.
 * ret: how long it took, in ns; 0: killed */
static uint64_t run_and_kill_in_time(operation *run, uint32_t number, uint64_t ns) {
    uint64_t *took = mmap(NULL, sizeof *took, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(took, MAP_FAILED);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        timer_t timer;
        struct sigevent kills = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
        const struct itimerspec in = {.it_value = {.tv_nsec = (long)(ns < 999999999 ? ns : 999999999)}};
        if (timer_create(CLOCK_MONOTONIC, &kills, &timer) != 0 || timer_settime(timer, 0, &in, NULL) != 0) _exit(98);
        const uint64_t from = clock_ns();
        run(number);
        *took = clock_ns() - from;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) ? ns != 0 && WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    const uint64_t result = *took;
    munmap(took, sizeof *took);
    return result;
}

/* Of a few, the shortest: how long an operation takes when nothing else runs. */
static uint64_t duration_of(operation *run, uint32_t number, uint32_t times) {
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < times; i++) {
        const uint64_t ns = run_and_kill_in_time(run, number + i, 0);
        if (ns < least) least = ns;
    }
    return least;
}

static uint64_t random_up_to(uint64_t ns) { return 1 + random_below((uint32_t)(ns < 1u << 30 ? ns : 1u << 30)); }

static const struct rw_log_limits eight = {8, 1000000};
#define SMALL 100u
#define LARGE (RW_LOG_COPY_BYTES_MAX + 4000u)
static uint8_t payload[LARGE];

static struct rw_log_entry filled_entry(uint32_t bytes, uint32_t number) {
    fill(payload, bytes, number);
    return (struct rw_log_entry){.bytes = bytes, .payload = payload};
}

/* ret: what rw_log_append() says */
static int32_t append_keyed(const char *topic, uint32_t bytes, uint32_t number, struct rw_position *position,
                            int *duplicate) {
    char text[16];
    const struct rw_state_name name = named(topic);
    const struct rw_log_entry entry = filled_entry(bytes, number);
    const struct rw_log_key key = {(const uint8_t *)text, (uint32_t)snprintf(text, sizeof text, "key %u", number), 9};
    return rw_log_append(memory.state, &name, &entry, &key, &eight, NOW + number, position, duplicate);
}

/* What is kept is whole, and each entry the one that was appended at its offset. */
static struct rw_log_end expect_entries(const char *topic, uint32_t bytes, uint32_t first_number) {
    static struct rw_log_entry entries[16];
    static uint8_t buffer[16 * (LARGE + 8)];
    const struct rw_state_name name = named(topic);
    const struct rw_log_query query = {.max = 16};
    struct rw_log_end end = {0};
    const int32_t count = rw_log_read(memory.state, &name, &query, NOW, entries, buffer, sizeof buffer, &end, NULL);
    if (count == RW_ERR_STALE) return end;
    assert_int_equal(count, end.last + 1 - end.first);
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(entries[i].bytes, bytes);
        assert_true(is_filled(entries[i].payload, bytes, first_number + (uint32_t)entries[i].offset - 1));
    }
    return end;
}

static void append_small(uint32_t number) {
    struct rw_position position;
    if (append_keyed("killed", SMALL, number, &position, NULL) != RW_OK) _exit(1);
}

static void append_large(uint32_t number) {
    struct rw_position position;
    if (append_keyed("killed", LARGE, number, &position, NULL) != RW_OK) _exit(1);
}

/* After a death: the entry is there or it is not; sent again with its key it is there once. ret: 1: it was there */
static int expect_whole(uint32_t bytes, uint32_t number) {
    check_state(memory.state);
    const struct rw_log_end end = expect_entries("killed", bytes, 0);
    assert_true(end.last == number || end.last == number + 1);
    struct rw_position position;
    int duplicate;
    assert_int_equal(append_keyed("killed", bytes, number, &position, &duplicate), RW_OK);
    assert_int_equal(duplicate, end.last == number + 1);
    assert_int_equal(position.offset, number + 1);
    assert_int_equal(position.epoch, end.epoch);
    check_state(memory.state);
    return duplicate;
}

static void test_an_append_killed_at_any_instruction_is_whole_or_has_not_been(void **state) {
    (void)state;
    const uint64_t instructions = run_and_kill(append_small, 0, UINT64_MAX);
    assert_true(instructions > 100);
    uint32_t found = 0;
    const uint32_t rounds = 16; /* a step is two switches of context */
    for (uint32_t number = 1; number <= rounds; number++) {
        (void)run_and_kill(append_small, number, 1 + random_below((uint32_t)instructions));
        found += (uint32_t)expect_whole(SMALL, number);
    }
    print_message("%u instructions; committed when killed: %u of %u\n", (unsigned)instructions, found, rounds);
    assert_true(found > 0 && found < rounds);
}

static void kill_appends_in_time(operation *append, uint32_t bytes, uint32_t rounds) {
    uint64_t duration = duration_of(append, 0, 3), found = 0;
    for (uint32_t number = 3; number < rounds; number++) {
        (void)run_and_kill_in_time(append, number, random_up_to(2 * duration));
        found += (uint32_t)expect_whole(bytes, number);
    }
    print_message("%u us; committed when killed: %u of %u\n", (unsigned)(duration / 1000), (unsigned)found, rounds);
}

static void test_so_is_one_killed_at_any_moment(void **state) {
    (void)state;
    kill_appends_in_time(append_small, SMALL, 300);
}

static void test_so_is_one_of_a_large_payload(void **state) {
    (void)state;
    kill_appends_in_time(append_large, LARGE, 200);
}

static const char *new_topic(uint32_t number) {
    static char text[16];
    snprintf(text, sizeof text, "new %u", number);
    return text;
}

static void append_first(uint32_t number) {
    struct rw_position position;
    /* More than the chunk that is the shard's own: it takes one of the common ones too. */
    if (append_keyed(new_topic(number), RW_LOG_COPY_BYTES_MAX, number, &position, NULL) != RW_OK) _exit(1);
}

static void expect_all_given_back(void) {
    for (uint32_t i = 0; i < 64 * RW_STATE_SHARDS; i++) rw_logs_sweep(memory.state, LATER);
    assert_int_equal(used_blocks(memory.state), 0);
    for (uint32_t i = 0; i < memory.state->chunk_count; i++) assert_int_equal(memory.state->owners[i], 0);
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++) assert_int_equal(memory.state->shards[i].owned, 0);
}

static void test_chunks_of_the_killed_are_not_lost(void **state) {
    (void)state;
    const uint64_t duration = duration_of(append_first, 0, 1);
    for (uint32_t number = 1; number <= 40; number++) {
        (void)run_and_kill_in_time(append_first, number, random_up_to(2 * duration));
        check_state(memory.state);
        struct rw_position position;
        assert_int_equal(append_keyed(new_topic(number), RW_LOG_COPY_BYTES_MAX, number, &position, NULL), RW_OK);
        assert_int_equal(position.offset, 1);
    }
    for (uint32_t number = 0; number <= 40; number++) {
        const struct rw_state_name name = named(new_topic(number));
        assert_int_equal(rw_log_forget(memory.state, &name), 1);
    }
    expect_all_given_back();
}

static void sweep_much(uint32_t number) {
    (void)number;
    for (uint32_t i = 0; i < RW_STATE_SHARDS / 4; i++) rw_logs_sweep(memory.state, LATER);
}

static void fill_to_be_swept(void) {
    struct rw_position position;
    for (uint32_t number = 0; number < 12; number++)
        assert_int_equal(append_keyed(new_topic(number), number * 5000, number, &position, NULL), RW_OK);
}

static void test_a_sweep_killed_anywhere_is_gone_on_with(void **state) {
    (void)state;
    fill_to_be_swept();
    const uint64_t duration = duration_of(sweep_much, 0, 1);
    for (uint32_t round = 0; round < 150; round++) {
        fill_to_be_swept();
        (void)run_and_kill_in_time(sweep_much, 0, random_up_to(2 * duration));
        check_state(memory.state);
        if (round % 10 == 0) expect_all_given_back();
    }
    expect_all_given_back();
    struct rw_topic_memory usage;
    rw_state_usage(memory.state, &usage);
    assert_int_equal(usage.damaged, 0);
}

/* ret: a name that falls into the shard of "killed" */
static const char *neighbour(uint32_t number) {
    static char text[24];
    const uint32_t home = named("killed").shard;
    for (uint32_t i = 0;; i++) {
        snprintf(text, sizeof text, "next %u %u", number, i);
        if (named(text).shard == home) return text;
    }
}

static void append_evicting(uint32_t number) {
    const struct rw_state_name name = named(neighbour(number));
    const struct rw_log_entry entry = filled_entry(20000, number);
    struct rw_position position;
    if (rw_log_append(memory.state, &name, &entry, NULL, &eight, NOW + number, &position, NULL) != RW_OK) _exit(1);
}

static void test_an_eviction_killed_anywhere_takes_whole_logs(void **state) {
    (void)state;
    uint32_t number = 0;
    struct rw_topic_memory usage;
    struct rw_position position;
    do {
        append_evicting(number);
        if (number % 10 == 0) assert_int_equal(append_keyed("killed", 9000, number, &position, NULL), RW_OK);
        number++;
        rw_state_usage(memory.state, &usage);
    } while (usage.evicted < 3);
    const uint64_t duration = duration_of(append_evicting, number, 3);
    number += 3;
    for (uint32_t i = 0; i < 150; i++, number++) {
        (void)run_and_kill_in_time(append_evicting, number, random_up_to(2 * duration));
        check_state(memory.state);
    }
    rw_state_usage(memory.state, &usage);
    assert_true(usage.evicted >= 4);
}

static void put_and_reset(uint32_t number) {
    const struct rw_state_name name = named("put");
    const struct rw_log_entry entry = filled_entry(SMALL, number);
    if (rw_log_put(memory.state, &name, (struct rw_position){7, number}, &entry, &eight, NOW) != RW_LOG_TAKEN) _exit(1);
    if (rw_log_reset(memory.state, &name, (struct rw_position){7, number + 10}, 1, NOW) != RW_OK) _exit(2);
    if (rw_log_forget(memory.state, &name) != 1) _exit(3);
}

static void test_puts_resets_and_forgetting_killed_anywhere_are_whole(void **state) {
    (void)state;
    const struct rw_state_name name = named("put");
    uint64_t duration = 0;
    for (uint32_t number = 100; number < 250; number++) {
        assert_int_equal(rw_log_reset(memory.state, &name, (struct rw_position){7, number - 5}, 0, NOW), RW_OK);
        for (uint32_t i = 4; i >= 1; i--) {
            const struct rw_log_entry entry = filled_entry(SMALL, number - i);
            const struct rw_position at = {7, number - i};
            assert_int_equal(rw_log_put(memory.state, &name, at, &entry, &eight, NOW), RW_LOG_TAKEN);
        }
        if (number == 100) duration = duration_of(put_and_reset, number, 1);
        else (void)run_and_kill_in_time(put_and_reset, number, random_up_to(2 * duration));
        check_state(memory.state);
        struct rw_log_end end;
        if (rw_log_end(memory.state, &name, NOW, &end) == 0) continue;
        assert_true(end.last == number - 1 || end.last == number || end.last == number + 10);
        assert_int_equal(end.first, end.last == number + 10 ? number + 11 : number - 4);
        assert_int_equal(end.is_followed, end.last == number + 10);
        if (end.last != number + 10) (void)expect_entries("put", SMALL, 1);
    }
}

/* ------------------------------------------------------------------ killed under contention */

#define WRITERS 4u
#define INCARNATIONS 512u
#define ACKS 1024u

struct shared {
    struct {
        _Atomic uint32_t acked;
        struct {
            _Atomic uint64_t offset;
            _Atomic uint32_t topic;
        } acks[ACKS]; /* by number of the message, the latest */
    } writers[INCARNATIONS];
};
static struct shared *shared;

static const char *const contended[] = {"one", "two", "three"};
#define CONTENDED 3u

static struct rw_log_limits contended_limits(void) { return (struct rw_log_limits){40, 1000000}; }

/* Numbers of messages: the incarnation of the writer, and how many it has appended before. */
static uint32_t stamp(uint32_t incarnation, uint32_t count) { return incarnation << 20 | count; }

static void write_for_ever(uint32_t incarnation) {
    static uint8_t bytes[RW_LOG_COPY_BYTES_MAX * 2];
    const struct rw_log_limits limits = contended_limits();
    for (uint32_t count = 0; count < 1u << 20; count++) {
        const uint32_t topic = random_below(CONTENDED);
        const struct rw_state_name name = named(contended[topic]);
        const uint32_t size = random_below(30) == 0 ? sizeof bytes : 4 + random_below(300);
        fill(bytes, size, stamp(incarnation, count));
        const struct rw_log_entry entry = {.bytes = size, .payload = bytes};
        struct rw_position position;
        if (rw_log_append(memory.state, &name, &entry, NULL, &limits, NOW, &position, NULL) != RW_OK) _exit(1);
        shared->writers[incarnation].acks[count % ACKS].offset = position.offset;
        shared->writers[incarnation].acks[count % ACKS].topic = topic;
        atomic_store(&shared->writers[incarnation].acked, count + 1);
        if (getppid() == 1) _exit(2);
    }
    _exit(3);
}

static pid_t start_writer(uint32_t incarnation) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        random_state += incarnation * 7919u;
        write_for_ever(incarnation);
    }
    return child;
}

/* What a writer was answered is in the log at that offset, and comes once. */
static void expect_contended(uint32_t topic, uint64_t *epoch) {
    static struct rw_log_entry entries[64];
    static uint8_t buffer[64 * (2 * RW_LOG_COPY_BYTES_MAX + 8)];
    static uint32_t acked[INCARNATIONS], next[INCARNATIONS];
    /* What is acknowledged by now is in what is read hereafter. */
    for (uint32_t i = 0; i < INCARNATIONS; i++) acked[i] = atomic_load(&shared->writers[i].acked);
    const struct rw_state_name name = named(contended[topic]);
    const struct rw_log_query query = {.max = 64};
    struct rw_log_end end;
    const int32_t count = rw_log_read(memory.state, &name, &query, NOW, entries, buffer, sizeof buffer, &end, NULL);
    if (count == RW_ERR_STALE) return;
    assert_true(count >= 0);
    assert_true(*epoch == 0 || end.epoch == *epoch);
    *epoch = end.epoch;
    memset(next, 0, sizeof next);
    for (int32_t i = 0; i < count; i++) {
        uint32_t number;
        memcpy(&number, entries[i].payload, sizeof number);
        assert_true(is_filled(entries[i].payload, entries[i].bytes, number));
        assert_true(i == 0 || entries[i].offset == entries[i - 1].offset + 1);
        const uint32_t incarnation = number >> 20, of_it = number & 0xFFFFF;
        assert_true(incarnation < INCARNATIONS && of_it >= next[incarnation]);
        next[incarnation] = of_it + 1;
        if (of_it >= acked[incarnation]) continue;
        const uint64_t offset = shared->writers[incarnation].acks[of_it % ACKS].offset;
        /* Unless it has made room for a later one meanwhile. */
        if (atomic_load(&shared->writers[incarnation].acked) - of_it < ACKS)
            assert_int_equal(offset, entries[i].offset);
    }
    for (uint32_t i = 0; i < INCARNATIONS; i++)
        if (acked[i] > 0 && shared->writers[i].acks[(acked[i] - 1) % ACKS].topic == topic)
            assert_true(shared->writers[i].acks[(acked[i] - 1) % ACKS].offset <= end.last ||
                        atomic_load(&shared->writers[i].acked) != acked[i]);
}

static void test_writers_killed_under_contention_lose_nothing_that_was_answered(void **state) {
    (void)state;
    memory_close(&memory);
    memory = memory_open((uint64_t)64 << 20);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    pid_t writers[WRITERS];
    uint32_t incarnation = 0;
    uint64_t epochs[CONTENDED] = {0};
    for (uint32_t i = 0; i < WRITERS; i++) writers[i] = start_writer(incarnation++);
    for (uint32_t round = 0; round < 300; round++) {
        const struct timespec wait = {.tv_nsec = random_below(2000000)};
        nanosleep(&wait, NULL);
        const uint32_t victim = random_below(WRITERS);
        int status;
        assert_int_equal(kill(writers[victim], SIGKILL), 0);
        assert_int_equal(waitpid(writers[victim], &status, 0), writers[victim]);
        assert_true(WIFSIGNALED(status));
        for (uint32_t i = 0; i < CONTENDED; i++) expect_contended(i, &epochs[i]);
        if (round % 10 == 0) check_state(memory.state);
        writers[victim] = start_writer(incarnation++);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        kill(writers[i], SIGKILL);
        waitpid(writers[i], NULL, 0);
    }
    for (uint32_t i = 0; i < CONTENDED; i++) {
        expect_contended(i, &epochs[i]);
        assert_int_not_equal(epochs[i], 0);
    }
    check_state(memory.state);
    struct rw_topic_memory usage;
    rw_state_usage(memory.state, &usage);
    assert_int_equal(usage.damaged + usage.evicted, 0);
    uint64_t appended = 0;
    for (uint32_t i = 0; i < incarnation; i++) appended += shared->writers[i].acked;
    print_message("%u appends; a shard was found with a dead holder %u times\n", (unsigned)appended,
                  (unsigned)usage.recovered);
    munmap(shared, sizeof *shared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_append_killed_at_any_instruction_is_whole_or_has_not_been, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_so_is_one_killed_at_any_moment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_so_is_one_of_a_large_payload, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_chunks_of_the_killed_are_not_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_sweep_killed_anywhere_is_gone_on_with, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_eviction_killed_anywhere_takes_whole_logs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_puts_resets_and_forgetting_killed_anywhere_are_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writers_killed_under_contention_lose_nothing_that_was_answered, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
