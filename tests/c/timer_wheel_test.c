/* The timer wheel against a list of deadlines: same firings, in the same advance, whatever is scheduled, cancelled and
 * skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/slot.h"
#include "base/timer_wheel.h"

#define NODES 64u
#define TICK ((uint64_t)RW_TIMER_TICK_MS)
#define HOUR_MS ((uint64_t)3600 * 1000)
#define NONE UINT64_MAX

static struct rw_slot slots[NODES];
static struct rw_timer_wheel wheel;

static void wheel_start(uint64_t now_ms) {
    memset(slots, 0, sizeof slots);
    rw_timer_wheel_init(&wheel, slots, sizeof slots[0], offsetof(struct rw_slot, timer), now_ms);
}

struct log {
    uint32_t fired[256];
    uint32_t count;
};

static void log_fire(void *context, uint32_t index) {
    struct log *log = context;
    assert_int_equal(slots[index].timer.bucket, 0); /* unlinked first */
    assert_true(log->count < 256);
    log->fired[log->count++] = index;
}

static void a_deadline_fires_at_the_first_tick_at_or_after_it(void **state) {
    (void)state;
    static const uint64_t delays[] = {0,      1,      63,     64,       65,       4095,         4096,         4097,
                                      262143, 262144, 262145, 16777216, 16777217, 20 * HOUR_MS, 400 * HOUR_MS};
    for (uint64_t start = 1000000; start < 1000000 + 3 * TICK; start += 7) {
        for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
            struct log log = {.count = 0};
            wheel_start(start);
            uint64_t due = start + delays[i];
            rw_timer_wheel_schedule(&wheel, 5, due);
            uint64_t first = (due + TICK - 1) / TICK * TICK;
            if (first > start) {
                assert_int_equal(rw_timer_wheel_advance(&wheel, first - 1, log_fire, &log), 0);
                assert_int_equal(wheel.count, 1);
            }
            assert_int_equal(rw_timer_wheel_advance(&wheel, first, log_fire, &log), 1);
            assert_int_equal(log.fired[0], 5);
            assert_int_equal(wheel.count, 0);
        }
    }
}

static void a_time_in_the_past_fires_at_the_next_advance(void **state) {
    (void)state;
    struct log log = {.count = 0};
    wheel_start(1000000);
    rw_timer_wheel_schedule(&wheel, 1, 0);
    rw_timer_wheel_schedule(&wheel, 2, 999999);
    assert_int_equal(rw_timer_wheel_next_ms(&wheel, 1000000), 0);
    assert_int_equal(rw_timer_wheel_advance(&wheel, 1000000, log_fire, &log), 2);
    assert_int_equal(rw_timer_wheel_next_ms(&wheel, 1000000), -1);
}

static void scheduling_again_moves_the_deadline_and_cancelling_twice_is_harmless(void **state) {
    (void)state;
    struct log log = {.count = 0};
    wheel_start(0);
    rw_timer_wheel_schedule(&wheel, 3, 1000);
    rw_timer_wheel_schedule(&wheel, 3, 500000);
    assert_int_equal(wheel.count, 1);
    assert_int_equal(rw_timer_wheel_advance(&wheel, 499999, log_fire, &log), 0);
    rw_timer_wheel_schedule(&wheel, 3, 500100);
    rw_timer_wheel_schedule(&wheel, 3, 500100);
    assert_int_equal(rw_timer_wheel_advance(&wheel, 500200, log_fire, &log), 1);
    rw_timer_wheel_schedule(&wheel, 3, 600000);
    rw_timer_wheel_cancel(&wheel, 3);
    rw_timer_wheel_cancel(&wheel, 3);
    rw_timer_wheel_cancel(&wheel, 4);
    assert_int_equal(wheel.count, 0);
    assert_int_equal(rw_timer_wheel_advance(&wheel, 700000, log_fire, &log), 0);
}

static void what_lies_beyond_the_wheel_is_put_back_until_it_is_due(void **state) {
    (void)state;
    struct log log = {.count = 0};
    wheel_start(12345678);
    uint64_t year = 365 * 24 * HOUR_MS;
    uint64_t due = 12345678 + 2 * year;
    rw_timer_wheel_schedule(&wheel, 0, due);
    rw_timer_wheel_schedule(&wheel, 1, UINT64_MAX); /* as far as a node can say: 2^32 ticks */
    assert_int_equal(rw_timer_wheel_advance(&wheel, 12345678 + year, log_fire, &log), 0);
    assert_int_equal(rw_timer_wheel_advance(&wheel, due - TICK, log_fire, &log), 0);
    assert_int_equal(rw_timer_wheel_advance(&wheel, due + TICK, log_fire, &log), 1);
    assert_int_equal(log.fired[0], 0);
    rw_timer_wheel_cancel(&wheel, 1);
    assert_int_equal(wheel.count, 0);
    for (uint32_t level = 0; level < RW_TIMER_LEVELS; level++) assert_true(wheel.occupied[level] == 0);
}

/* Were empty time walked tick by tick, this would take 2^57 steps. */
static void empty_time_costs_nothing(void **state) {
    (void)state;
    struct log log = {.count = 0};
    wheel_start(0);
    assert_int_equal(rw_timer_wheel_advance(&wheel, (uint64_t)INT64_MAX, log_fire, &log), 0);
    rw_timer_wheel_schedule(&wheel, 7, (uint64_t)INT64_MAX + 1000);
    assert_int_equal(rw_timer_wheel_advance(&wheel, (uint64_t)INT64_MAX + 2000, log_fire, &log), 1);
}

static void fire_and_schedule_for_now(void *context, uint32_t index) {
    uint64_t *now_ms = context;
    rw_timer_wheel_schedule(&wheel, index, *now_ms);
}

static void a_callback_that_schedules_itself_for_now_fires_once_an_advance(void **state) {
    (void)state;
    uint64_t now = 5 * TICK;
    wheel_start(0);
    rw_timer_wheel_schedule(&wheel, 9, 1);
    for (uint32_t round = 0; round < 5; round++) {
        assert_int_equal(rw_timer_wheel_advance(&wheel, now, fire_and_schedule_for_now, &now), 1);
        assert_int_equal(rw_timer_wheel_next_ms(&wheel, now), 0);
        if (round == 2) now += HOUR_MS;
    }
}

static void fire_and_schedule_the_other_for_now(void *context, uint32_t index) {
    uint64_t *now_ms = context;
    rw_timer_wheel_schedule(&wheel, index ^ 1u, *now_ms);
}

static void a_node_due_in_this_advance_and_scheduled_again_by_another_waits_for_the_next(void **state) {
    (void)state;
    uint64_t now = 5 * TICK;
    wheel_start(0);
    rw_timer_wheel_schedule(&wheel, 2, now);
    rw_timer_wheel_schedule(&wheel, 3, now);
    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(rw_timer_wheel_advance(&wheel, now, fire_and_schedule_the_other_for_now, &now), 1);
        assert_int_equal(wheel.count, 1);
    }
}

/* ------------------------------------------------------------------ the model */
struct model {
    uint64_t run; /* printed on failure: the seed follows from it */
    uint64_t seed;
    uint64_t now_ms;
    uint64_t due_tick[NODES]; /* NONE: not scheduled */
    uint8_t expected[NODES];  /* due in the advance under way, and neither fired nor touched since */
    uint64_t last_tick;       /* of the advance under way: the deadline fired last */
    uint32_t fired;
};

static uint64_t next_random(struct model *model) {
    model->seed ^= model->seed << 13;
    model->seed ^= model->seed >> 7;
    model->seed ^= model->seed << 17;
    return model->seed;
}

static void require(const struct model *model, int holds, const char *what) {
    if (!holds) fail_msg("%s (run %llu)", what, (unsigned long long)model->run);
}

/* Mostly near, sometimes far, sometimes past, often the same tick as others. */
static uint64_t random_due(struct model *model) {
    uint64_t reach = (uint64_t)1 << (next_random(model) % 34);
    uint64_t ahead = next_random(model) % reach;
    if (next_random(model) % 16 == 0) return model->now_ms > ahead ? model->now_ms - ahead : 0;
    if (next_random(model) % 8 == 0) return model->now_ms / TICK * TICK; /* the present tick */
    return model->now_ms + (next_random(model) % 4 == 0 ? ahead / TICK * TICK : ahead);
}

static void model_schedule(struct model *model, uint32_t index) {
    uint64_t due_ms = random_due(model);
    uint64_t tick = (due_ms + TICK - 1) / TICK;
    uint64_t now_tick = model->now_ms / TICK;
    rw_timer_wheel_schedule(&wheel, index, due_ms);
    model->due_tick[index] = tick > now_tick ? tick : now_tick;
    model->expected[index] = 0;
}

static void model_cancel(struct model *model, uint32_t index) {
    rw_timer_wheel_cancel(&wheel, index);
    model->due_tick[index] = NONE;
    model->expected[index] = 0;
}

static void model_fire(void *context, uint32_t index) {
    struct model *model = context;
    require(model, model->expected[index], "fired, but not due, cancelled or moved");
    require(model, model->due_tick[index] >= model->last_tick, "fired after a later deadline");
    model->last_tick = model->due_tick[index];
    model->expected[index] = 0;
    model->due_tick[index] = NONE;
    model->fired++;
    for (uint64_t actions = next_random(model) % 4; actions > 0; actions--) {
        uint32_t other = next_random(model) % 3 == 0 ? index : (uint32_t)(next_random(model) % NODES);
        if (next_random(model) % 2 == 0) model_schedule(model, other);
        else model_cancel(model, other);
    }
}

static void model_advance(struct model *model) {
    uint64_t reach = (uint64_t)1 << (next_random(model) % 33);
    if (next_random(model) % 64 == 0) reach = (uint64_t)1 << 36; /* years */
    model->now_ms += next_random(model) % reach;
    uint32_t near = (uint32_t)(next_random(model) % NODES);
    /* Often exactly to a deadline, where being early or late by one shows. */
    if (next_random(model) % 2 == 0 && model->due_tick[near] != NONE && model->due_tick[near] * TICK > model->now_ms)
        model->now_ms = model->due_tick[near] * TICK;
    uint64_t target = model->now_ms / TICK;
    for (uint32_t i = 0; i < NODES; i++)
        model->expected[i] = model->due_tick[i] != NONE && model->due_tick[i] <= target;
    model->last_tick = 0;
    model->fired = 0;
    uint32_t fired = rw_timer_wheel_advance(&wheel, model->now_ms, model_fire, model);
    require(model, fired == model->fired, "the count of firings is wrong");
    for (uint32_t i = 0; i < NODES; i++) require(model, !model->expected[i], "due and not fired");
}

static void model_check(struct model *model) {
    uint32_t scheduled = 0;
    uint64_t earliest = NONE;
    for (uint32_t i = 0; i < NODES; i++) {
        require(model, (slots[i].timer.bucket != 0) == (model->due_tick[i] != NONE),
                "scheduled in one and not in the other");
        if (model->due_tick[i] == NONE) continue;
        scheduled++;
        if (model->due_tick[i] < earliest) earliest = model->due_tick[i];
    }
    require(model, wheel.count == scheduled, "count");
    int64_t next_ms = rw_timer_wheel_next_ms(&wheel, model->now_ms);
    require(model, (next_ms < 0) == (scheduled == 0), "next_ms is -1 exactly when nothing is scheduled");
    if (next_ms > 0)
        require(model, model->now_ms + (uint64_t)next_ms <= earliest * TICK, "next_ms is past the earliest deadline");
    if (scheduled != 0 && earliest * TICK <= model->now_ms)
        require(model, next_ms == 0, "next_ms is 0 when a deadline is due");
    for (uint32_t place = 0; place < RW_TIMER_LEVELS * RW_TIMER_BUCKETS; place++) {
        uint32_t level = place / RW_TIMER_BUCKETS;
        uint32_t bucket = place % RW_TIMER_BUCKETS;
        require(model, (wheel.heads[level][bucket] != 0) == ((wheel.occupied[level] >> bucket & 1u) != 0),
                "occupied bit");
    }
}

static void random_use_agrees_with_a_list_of_deadlines(void **state) {
    (void)state;
    for (uint64_t run = 1; run <= 150; run++) {
        struct model model = {.run = run, .seed = run * 0x9e3779b97f4a7c15u};
        model.now_ms = next_random(&model) >> (20 + next_random(&model) % 30);
        for (uint32_t i = 0; i < NODES; i++) model.due_tick[i] = NONE;
        wheel_start(model.now_ms);
        for (uint32_t step = 0; step < 400; step++) {
            uint64_t choice = next_random(&model) % 8;
            uint32_t index = (uint32_t)(next_random(&model) % NODES);
            if (choice < 4) model_schedule(&model, index);
            else if (choice < 5) model_cancel(&model, index);
            else model_advance(&model);
            if (step % 8 == 0) model_check(&model);
        }
    }
}

/* Sleeping for next_ms again and again reaches every deadline on its tick, with few wake-ups between. */
static void sleeping_for_next_ms_is_enough(void **state) {
    (void)state;
    struct log log = {.count = 0};
    uint64_t now = 777777;
    wheel_start(now);
    for (uint32_t i = 0; i < 8; i++) rw_timer_wheel_schedule(&wheel, i, now + ((uint64_t)1 << (4 * i)));
    for (uint32_t wakes = 0; wheel.count > 0; wakes++) {
        assert_true(wakes < 8 * (RW_TIMER_LEVELS + 1));
        int64_t sleep_ms = rw_timer_wheel_next_ms(&wheel, now);
        assert_true(sleep_ms >= 0);
        now += (uint64_t)sleep_ms;
        uint32_t before = log.count;
        rw_timer_wheel_advance(&wheel, now, log_fire, &log);
        for (uint32_t i = before; i < log.count; i++) {
            uint64_t due = 777777 + ((uint64_t)1 << (4 * log.fired[i]));
            assert_true(now >= due && now - due < TICK);
        }
    }
    assert_int_equal(log.count, 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deadline_fires_at_the_first_tick_at_or_after_it),
        cmocka_unit_test(a_time_in_the_past_fires_at_the_next_advance),
        cmocka_unit_test(scheduling_again_moves_the_deadline_and_cancelling_twice_is_harmless),
        cmocka_unit_test(what_lies_beyond_the_wheel_is_put_back_until_it_is_due),
        cmocka_unit_test(empty_time_costs_nothing),
        cmocka_unit_test(a_callback_that_schedules_itself_for_now_fires_once_an_advance),
        cmocka_unit_test(a_node_due_in_this_advance_and_scheduled_again_by_another_waits_for_the_next),
        cmocka_unit_test(random_use_agrees_with_a_list_of_deadlines),
        cmocka_unit_test(sleeping_for_next_ms_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
