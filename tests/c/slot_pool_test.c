/* The slot pool: fresh and recycled slots, generations, ids that went stale, exhaustion, and what may not be
 * released. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/slot_pool.h"
#include "dies.h"
#include "ringway.h"

static void assert_fresh(const struct rw_slot *slot, uint32_t generation) {
    struct rw_slot expected;
    memset(&expected, 0, sizeof expected);
    expected.fd = -1;
    expected.generation = generation;
    assert_memory_equal(slot, &expected, sizeof expected);
}

static void a_capacity_out_of_range_is_refused(void **state) {
    (void)state;
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, 0), -EINVAL);
    assert_int_equal(rw_slot_pool_init(&pool, RW_CONNECTIONS_MAX + 1u), -EINVAL);
    rw_slot_pool_destroy(&pool);
    assert_int_equal(rw_slot_pool_init(&pool, RW_CONNECTIONS_MAX), RW_OK);
    rw_slot_pool_destroy(&pool);
}

static void a_slot_is_aligned_and_zero_but_for_descriptor_and_generation(void **state) {
    (void)state;
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, 100), RW_OK);
    for (uint32_t i = 0; i < 100; i++) {
        struct rw_slot *slot = rw_slot_pool_acquire(&pool);
        assert_non_null(slot);
        assert_int_equal((uintptr_t)slot % 64, 0);
        assert_int_equal(rw_slot_pool_index(&pool, slot), i);
        assert_fresh(slot, 1);
        /* A connection leaves its marks all over: the next one must not find them. */
        slot->state.phase = RW_PHASE_OPEN;
        slot->state.paused_by_host = 1;
        slot->fd = 7;
        slot->host_word = UINT64_MAX;
        slot->deadline_ms = 5;
        memset(slot->own, 0xff, sizeof slot->own);
        rw_slot_pool_release(&pool, slot);
        slot = rw_slot_pool_acquire(&pool);
        assert_int_equal(rw_slot_pool_index(&pool, slot), i);
        assert_fresh(slot, 2);
    }
    rw_slot_pool_destroy(&pool);
}

static void when_all_are_in_use_there_is_none_until_one_comes_back(void **state) {
    (void)state;
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, 3), RW_OK);
    struct rw_slot *a = rw_slot_pool_acquire(&pool);
    struct rw_slot *b = rw_slot_pool_acquire(&pool);
    struct rw_slot *c = rw_slot_pool_acquire(&pool);
    assert_null(rw_slot_pool_acquire(&pool));
    assert_int_equal(pool.used, 3);
    rw_slot_pool_release(&pool, a);
    rw_slot_pool_release(&pool, c);
    assert_int_equal(pool.used, 1);
    assert_ptr_equal(rw_slot_pool_acquire(&pool), c); /* the warm one */
    assert_ptr_equal(rw_slot_pool_acquire(&pool), a);
    assert_null(rw_slot_pool_acquire(&pool));
    rw_slot_pool_release(&pool, b);
    assert_ptr_equal(rw_slot_pool_acquire(&pool), b);
    rw_slot_pool_destroy(&pool);
}

static void an_id_is_stale_from_the_release_on(void **state) {
    (void)state;
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, 8), RW_OK);
    assert_null(rw_slot_pool_get(&pool, 0, 0)); /* never handed out */
    assert_null(rw_slot_pool_get(&pool, 0, 1));
    struct rw_slot *slot = rw_slot_pool_acquire(&pool);
    slot->state.phase = RW_PHASE_OPEN;
    uint32_t old = slot->generation;
    assert_ptr_equal(rw_slot_pool_get(&pool, 0, old), slot);
    assert_null(rw_slot_pool_get(&pool, 8, old));
    assert_null(rw_slot_pool_get(&pool, UINT32_MAX, old));
    rw_slot_pool_release(&pool, slot);
    for (uint32_t generation = 0; generation < 5; generation++) assert_null(rw_slot_pool_get(&pool, 0, generation));
    slot = rw_slot_pool_acquire(&pool);
    slot->state.phase = RW_PHASE_OPEN;
    assert_int_equal(slot->generation, old + 1u);
    assert_null(rw_slot_pool_get(&pool, 0, old));
    assert_ptr_equal(rw_slot_pool_get(&pool, 0, old + 1u), slot);
    rw_slot_pool_destroy(&pool);
}

static void the_generation_wraps_past_zero(void **state) {
    (void)state;
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, 1), RW_OK);
    struct rw_slot *slot = rw_slot_pool_acquire(&pool);
    slot->generation = UINT32_MAX;
    rw_slot_pool_release(&pool, slot);
    assert_int_equal(rw_slot_pool_acquire(&pool)->generation, 1);
    rw_slot_pool_destroy(&pool);
}

static void slots_never_handed_out_cost_no_page(void **state) {
    (void)state;
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, 1u << 20), RW_OK);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = ((size_t)256 << 20) / page;
    unsigned char *resident = malloc(pages);
    struct rw_slot *slot = NULL;
    for (uint32_t i = 0; i < 100; i++) slot = rw_slot_pool_acquire(&pool);
    rw_slot_pool_release(&pool, slot);
    assert_null(rw_slot_pool_get(&pool, 1u << 19, 1));
    assert_int_equal(mincore(pool.slots, pages * page, resident), 0);
    size_t touched = 0;
    for (size_t i = 0; i < pages; i++) touched += resident[i] & 1u;
    assert_int_equal(touched, (100 * sizeof(struct rw_slot) + page - 1) / page);
    free(resident);
    rw_slot_pool_destroy(&pool);
}

static void random_use_hands_no_slot_out_twice(void **state) {
    (void)state;
    enum { CAPACITY = 300 };
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, CAPACITY), RW_OK);
    uint32_t in_use[CAPACITY] = {0}; /* generation, 0: free */
    uint32_t last[CAPACITY] = {0};
    uint32_t used = 0;
    uint64_t seed = 88172645463325252u;
    for (uint32_t step = 0; step < 50000; step++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        uint32_t i = (uint32_t)(seed >> 8) % CAPACITY;
        if ((seed & 1u) != 0) {
            struct rw_slot *slot = rw_slot_pool_acquire(&pool);
            assert_int_equal(slot == NULL, used == CAPACITY);
            if (slot == NULL) continue;
            uint32_t index = rw_slot_pool_index(&pool, slot);
            assert_int_equal(in_use[index], 0);
            assert_fresh(slot, last[index] + 1u);
            slot->state.phase = RW_PHASE_OPEN;
            in_use[index] = last[index] = slot->generation;
            used++;
        } else if (in_use[i] != 0) {
            rw_slot_pool_release(&pool, rw_slot_pool_get(&pool, i, in_use[i]));
            in_use[i] = 0;
            used--;
        }
        assert_int_equal(pool.used, used);
    }
    rw_slot_pool_destroy(&pool);
}

/* One thing that keeps a slot from being quiet, by number; 0: nothing does. */
struct unquiet {
    struct rw_slot_pool *pool;
    int what;
};

static void release_unquiet(void *argument) {
    struct unquiet *unquiet = argument;
    struct rw_slot *slot = rw_slot_pool_acquire(unquiet->pool);
    switch (unquiet->what) {
        case 1: slot->state.recv_armed = 1; break;
        case 2: slot->state.send_inflight = 1; break;
        case 3: slot->out_head = 1; break;
        case 4: slot->out_bytes = 1; break;
        case 5: slot->subscriptions = 1; break;
        case 6: slot->timer.bucket = 1; break;
        case 7: slot->input = 1; break;
        case 8: slot->state.ready = 1; break;
        case 9: rw_slot_pool_release(unquiet->pool, slot); break; /* and once more below */
        case 10: slot++; break;                                   /* not handed out */
        default: break;
    }
    rw_slot_pool_release(unquiet->pool, slot);
}

static void a_slot_that_is_not_quiet_cannot_be_released(void **state) {
    (void)state;
    struct rw_slot_pool pool;
    assert_int_equal(rw_slot_pool_init(&pool, 4), RW_OK);
    assert_false(dies(release_unquiet, &(struct unquiet){&pool, 0}));
    for (int what = 1; what <= 10; what++) assert_true(dies(release_unquiet, &(struct unquiet){&pool, what}));
    rw_slot_pool_destroy(&pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_capacity_out_of_range_is_refused),
        cmocka_unit_test(a_slot_is_aligned_and_zero_but_for_descriptor_and_generation),
        cmocka_unit_test(when_all_are_in_use_there_is_none_until_one_comes_back),
        cmocka_unit_test(an_id_is_stale_from_the_release_on),
        cmocka_unit_test(the_generation_wraps_past_zero),
        cmocka_unit_test(slots_never_handed_out_cost_no_page),
        cmocka_unit_test(random_use_hands_no_slot_out_twice),
        cmocka_unit_test(a_slot_that_is_not_quiet_cannot_be_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
