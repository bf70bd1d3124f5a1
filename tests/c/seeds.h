/* Tests that run once for each of many seeds: a failing run prints its seed, and RW_SEED runs that one alone. */
#ifndef RW_SEEDS_H
#define RW_SEEDS_H

#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t running_seed;
static const char *seeded_test;

/* After a failed check, and when an assert of the core or a sanitizer ends the process. */
static void say_seed(void) {
    if (running_seed)
        fprintf(stderr, "%s: run again with RW_SEED=%llu\n", seeded_test, (unsigned long long)running_seed);
}

static void say_seed_on_abort(int signal_number) {
    (void)signal_number;
    say_seed();
}

static void run_seeds(uint64_t count, void (*run_seed)(uint64_t seed)) {
    const char *one = getenv("RW_SEED");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, last = one ? first : count;
    for (uint64_t seed = first; seed <= last; seed++) {
        running_seed = seed;
        run_seed(seed);
    }
    running_seed = 0;
}

/* Call before the tests, and say_seed() after them. name: of this program */
static void watch_seeds(const char *name) {
    seeded_test = name;
    (void)signal(SIGABRT, say_seed_on_abort);
    __sanitizer_set_death_callback(say_seed);
}

#endif
