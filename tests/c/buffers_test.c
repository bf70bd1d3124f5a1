/* Slab buffers: classes, references, reuse, exhaustion, and what must never pass unnoticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/buffers.h"
#include "dies.h"

static const size_t class_bytes[RW_BUFFER_LARGE] = {64, 256, 1024, 4096, 16384, 65536};

/* xorshift64 */
static uint64_t next_random(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void every_size_gets_the_smallest_class_that_holds_it(void **state) {
    (void)state;
    struct rw_buffers *buffers = rw_buffers_create();
    assert_non_null(buffers);
    for (size_t bytes = 1; bytes <= 65536; bytes++) {
        uint32_t class_index = 0;
        while (class_bytes[class_index] < bytes) class_index++;
        rw_buffer buffer = rw_buffers_acquire(buffers, bytes);
        assert_int_not_equal(buffer, RW_BUFFER_NONE);
        assert_int_equal(buffer >> 28, class_index);
        assert_int_equal(rw_buffers_capacity(buffers, buffer), class_bytes[class_index]);
        assert_int_equal((uintptr_t)rw_buffers_data(buffers, buffer) % 64, 0);
        rw_buffers_release(buffers, buffer);
    }
    for (uint32_t i = 0; i < RW_BUFFER_LARGE; i++) {
        assert_int_equal(rw_buffers_stats(buffers, i).used, 0);
        assert_int_equal(rw_buffers_stats(buffers, i).carved, 1);
    }
    assert_int_equal(rw_buffers_stats(buffers, RW_BUFFER_LARGE).carved, 0);
    rw_buffers_destroy(buffers, 0);
}

static void the_buffer_released_last_is_handed_out_first(void **state) {
    (void)state;
    struct rw_buffers *buffers = rw_buffers_create();
    rw_buffer a = rw_buffers_acquire(buffers, 100);
    rw_buffer b = rw_buffers_acquire(buffers, 100);
    rw_buffer c = rw_buffers_acquire(buffers, 100);
    rw_buffers_release(buffers, b);
    rw_buffers_release(buffers, a);
    rw_buffers_release(buffers, c);
    assert_int_equal(rw_buffers_acquire(buffers, 200), c);
    assert_int_equal(rw_buffers_acquire(buffers, 200), a);
    assert_int_equal(rw_buffers_acquire(buffers, 200), b);
    assert_int_equal(rw_buffers_stats(buffers, 1).used, 3);
    assert_int_equal(rw_buffers_stats(buffers, 1).carved, 3);
    rw_buffers_destroy(buffers, 1);
}

static void a_buffer_lives_until_its_last_reference_goes(void **state) {
    (void)state;
    static const size_t sizes[] = {64, 5000, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct rw_buffers *buffers = rw_buffers_create();
        rw_buffer buffer = rw_buffers_acquire(buffers, sizes[i]);
        uint8_t *data = rw_buffers_data(buffers, buffer);
        memset(data, 0x5a, rw_buffers_capacity(buffers, buffer));
        rw_buffers_retain(buffers, buffer, 1000);
        assert_int_equal(rw_buffers_refs(buffers, buffer), 1001);
        for (uint32_t left = 1000; left > 0; left--) {
            rw_buffers_release(buffers, buffer);
            assert_int_equal(rw_buffers_refs(buffers, buffer), left);
        }
        assert_ptr_equal(rw_buffers_data(buffers, buffer), data);
        assert_int_equal(data[sizes[i] - 1], 0x5a);
        rw_buffers_release(buffers, buffer);
        rw_buffers_destroy(buffers, 0);
    }
}

static void a_large_buffer_has_its_size_and_gives_its_index_back(void **state) {
    (void)state;
    struct rw_buffers *buffers = rw_buffers_create();
    rw_buffer handles[100];
    for (uint32_t i = 0; i < 100; i++) {
        handles[i] = rw_buffers_acquire(buffers, 65537 + i);
        assert_int_equal(handles[i] >> 28, RW_BUFFER_LARGE);
        assert_int_equal(rw_buffers_capacity(buffers, handles[i]), 65537 + i);
        memset(rw_buffers_data(buffers, handles[i]), (int)i, 65537 + i);
    }
    /* The table has grown under them. */
    for (uint32_t i = 0; i < 100; i++) assert_int_equal(rw_buffers_data(buffers, handles[i])[65536 + i], i);
    rw_buffers_release(buffers, handles[17]);
    rw_buffers_release(buffers, handles[42]);
    assert_int_equal(rw_buffers_acquire(buffers, 1 << 20), handles[42]);
    assert_int_equal(rw_buffers_acquire(buffers, 1 << 20), handles[17]);
    assert_int_equal(rw_buffers_capacity(buffers, handles[17]), 1 << 20);
    assert_int_equal(rw_buffers_stats(buffers, RW_BUFFER_LARGE).used, 100);
    assert_int_equal(rw_buffers_stats(buffers, RW_BUFFER_LARGE).carved, 102);
    for (uint32_t i = 0; i < 100; i++) rw_buffers_release(buffers, handles[i]);
    assert_int_equal(rw_buffers_stats(buffers, RW_BUFFER_LARGE).used, 0);
    rw_buffers_destroy(buffers, 0);
}

static void a_size_that_no_memory_holds_gives_no_buffer(void **state) {
    (void)state;
#ifndef __SANITIZE_ADDRESS__ /* whose malloc ends the process instead */
    struct rw_buffers *buffers = rw_buffers_create();
    assert_int_equal(rw_buffers_acquire(buffers, SIZE_MAX), RW_BUFFER_NONE);
    assert_int_equal(rw_buffers_acquire(buffers, SIZE_MAX / 2), RW_BUFFER_NONE);
    assert_int_equal(rw_buffers_stats(buffers, RW_BUFFER_LARGE).carved, 0);
    rw_buffers_destroy(buffers, 0);
#else
    skip();
#endif
}

/* Several steps of every class at once: neighbours do not overlap, and all of it is readable to its last byte. */
static void buffers_in_use_never_overlap_and_never_move(void **state) {
    (void)state;
    struct rw_buffers *buffers = rw_buffers_create();
    for (uint32_t class_index = 0; class_index < RW_BUFFER_LARGE; class_index++) {
        uint32_t count = (uint32_t)(((size_t)5 << 19) / class_bytes[class_index]) + 3u;
        rw_buffer *handles = calloc(count, sizeof *handles);
        uint8_t **where = calloc(count, sizeof *where);
        for (uint32_t i = 0; i < count; i++) {
            handles[i] = rw_buffers_acquire(buffers, class_bytes[class_index]);
            where[i] = rw_buffers_data(buffers, handles[i]);
            memcpy(where[i], &i, sizeof i);
            memcpy(where[i] + class_bytes[class_index] - sizeof i, &i, sizeof i);
        }
        for (uint32_t i = 0; i < count; i++) {
            assert_ptr_equal(rw_buffers_data(buffers, handles[i]), where[i]);
            assert_memory_equal(where[i], &i, sizeof i);
            assert_memory_equal(where[i] + class_bytes[class_index] - sizeof i, &i, sizeof i);
        }
        assert_int_equal(rw_buffers_stats(buffers, class_index).used, count);
        for (uint32_t i = 0; i < count; i++) rw_buffers_release(buffers, handles[i]);
        assert_int_equal(rw_buffers_stats(buffers, class_index).used, 0);
        assert_int_equal(rw_buffers_stats(buffers, class_index).carved, count);
        free(handles);
        free(where);
    }
    rw_buffers_destroy(buffers, 0);
}

#define MODEL_BUFFERS 200u

static void random_use_agrees_with_a_count_kept_beside_it(void **state) {
    (void)state;
    uint64_t seed = 0x9e3779b97f4a7c15u;
    struct rw_buffers *buffers = rw_buffers_create();
    struct {
        rw_buffer handle;
        uint32_t refs;
        uint8_t fill;
    } model[MODEL_BUFFERS] = {0};
    for (uint32_t step = 0; step < 50000; step++) {
        uint32_t i = (uint32_t)(next_random(&seed) % MODEL_BUFFERS);
        uint64_t choice = next_random(&seed) % 4;
        if (model[i].refs == 0) {
            size_t bytes = (size_t)(next_random(&seed) % ((size_t)1 << (1 + next_random(&seed) % 17))) + 1;
            model[i].handle = rw_buffers_acquire(buffers, bytes);
            model[i].refs = 1;
            model[i].fill = (uint8_t)next_random(&seed);
            assert_true(rw_buffers_capacity(buffers, model[i].handle) >= bytes);
            for (uint32_t k = 0; k < MODEL_BUFFERS; k++)
                assert_false(k != i && model[k].refs > 0 && model[k].handle == model[i].handle);
        } else if (choice == 0) {
            uint32_t more = (uint32_t)(next_random(&seed) % 5);
            rw_buffers_retain(buffers, model[i].handle, more);
            model[i].refs += more;
        } else {
            assert_int_equal(rw_buffers_refs(buffers, model[i].handle), model[i].refs);
            size_t last = rw_buffers_capacity(buffers, model[i].handle) - 1;
            if (choice == 1) rw_buffers_data(buffers, model[i].handle)[last] = model[i].fill;
            rw_buffers_release(buffers, model[i].handle);
            model[i].refs--;
        }
    }
    for (uint32_t i = 0; i < MODEL_BUFFERS; i++) {
        while (model[i].refs > 0) {
            rw_buffers_release(buffers, model[i].handle);
            model[i].refs--;
        }
    }
    for (uint32_t i = 0; i < RW_BUFFER_CLASSES; i++) assert_int_equal(rw_buffers_stats(buffers, i).used, 0);
    rw_buffers_destroy(buffers, 0); /* asserts the same */
}

static void release_twice(void *buffers) {
    rw_buffer buffer = rw_buffers_acquire(buffers, 100);
    rw_buffers_release(buffers, buffer);
    rw_buffers_release(buffers, buffer);
}
static void release_large_twice(void *buffers) {
    rw_buffer buffer = rw_buffers_acquire(buffers, 100000);
    rw_buffers_release(buffers, buffer);
    rw_buffers_release(buffers, buffer);
}
static void retain_free(void *buffers) {
    rw_buffer buffer = rw_buffers_acquire(buffers, 100);
    rw_buffers_release(buffers, buffer);
    rw_buffers_retain(buffers, buffer, 1);
}
static void release_none(void *buffers) { rw_buffers_release(buffers, RW_BUFFER_NONE); }
static void release_what_was_never_acquired(void *buffers) { rw_buffers_release(buffers, 3u << 28 | 77u); }
static void release_a_class_that_is_none(void *buffers) { rw_buffers_release(buffers, 9u << 28 | 1u); }
static void retain_past_the_largest_count(void *buffers) {
    rw_buffer buffer = rw_buffers_acquire(buffers, 100);
    rw_buffers_retain(buffers, buffer, UINT32_MAX / 2u);
    rw_buffers_retain(buffers, buffer, UINT32_MAX / 2u);
}
static void destroy_with_one_in_use(void *buffers) {
    (void)rw_buffers_acquire(buffers, 100);
    rw_buffers_destroy(buffers, 0);
}
static void destroy_by_force(void *buffers) {
    (void)rw_buffers_acquire(buffers, 100);
    (void)rw_buffers_acquire(buffers, 100000);
    rw_buffers_destroy(buffers, 1);
}

static void misuse_is_an_assert(void **state) {
    (void)state;
    struct rw_buffers *buffers = rw_buffers_create();
    assert_true(dies(release_twice, buffers));
    assert_true(dies(release_large_twice, buffers));
    assert_true(dies(retain_free, buffers));
    assert_true(dies(release_none, buffers));
    assert_true(dies(release_what_was_never_acquired, buffers));
    assert_true(dies(release_a_class_that_is_none, buffers));
    assert_true(dies(retain_past_the_largest_count, buffers));
    assert_true(dies(destroy_with_one_in_use, buffers));
    assert_false(dies(destroy_by_force, buffers));
    rw_buffers_destroy(buffers, 0);
}

static void write_after_release(void *buffers) {
    rw_buffer buffer = rw_buffers_acquire(buffers, 256);
    volatile uint8_t *data = rw_buffers_data(buffers, buffer);
    data[255] = 1;
    rw_buffers_release(buffers, buffer);
    data[255] = 2;
}
static void write_past_the_last_carved(void *buffers) {
    volatile uint8_t *data = rw_buffers_data(buffers, rw_buffers_acquire(buffers, 256));
    data[256] = 1;
}

static void address_sanitizer_watches_free_buffers(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    struct rw_buffers *buffers = rw_buffers_create();
    assert_true(dies(write_after_release, buffers));
    assert_true(dies(write_past_the_last_carved, buffers));
    rw_buffers_destroy(buffers, 0);
#else
    (void)write_after_release;
    (void)write_past_the_last_carved;
    skip();
#endif
}

/* RLIMIT_AS little above what is mapped already: the full reservation cannot be had. Exits 0 through DIES_SURVIVED. */
static void work_in_a_narrow_address_space(void *argument) {
    (void)argument;
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm == NULL || fscanf(statm, "%lu", &pages) != 1) _exit(1);
    fclose(statm);
    rlim_t limit = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)512 << 20);
    if (setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit}) != 0) _exit(2);
    struct rw_buffers *buffers = rw_buffers_create();
    if (buffers == NULL) _exit(3);
    for (uint32_t i = 0; i < RW_BUFFER_LARGE; i++) {
        rw_buffer buffer = rw_buffers_acquire(buffers, class_bytes[i]);
        if (buffer == RW_BUFFER_NONE) _exit(4);
        memset(rw_buffers_data(buffers, buffer), 1, class_bytes[i]);
        rw_buffers_release(buffers, buffer);
    }
    /* A bounded class runs out, says so, and serves again afterwards. */
    rw_buffer first = RW_BUFFER_NONE;
    uint32_t count = 0;
    for (rw_buffer buffer; (buffer = rw_buffers_acquire(buffers, 65536)) != RW_BUFFER_NONE; count++) first = buffer;
    if (count < 16 || rw_buffers_stats(buffers, 5).used != count) _exit(5);
    rw_buffers_release(buffers, first);
    if (rw_buffers_acquire(buffers, 65536) != first) _exit(6);
    rw_buffers_destroy(buffers, 1);
}

static void less_is_reserved_where_addresses_are_limited(void **state) {
    (void)state;
    assert_false(dies(work_in_a_narrow_address_space, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_gets_the_smallest_class_that_holds_it),
        cmocka_unit_test(the_buffer_released_last_is_handed_out_first),
        cmocka_unit_test(a_buffer_lives_until_its_last_reference_goes),
        cmocka_unit_test(a_large_buffer_has_its_size_and_gives_its_index_back),
        cmocka_unit_test(a_size_that_no_memory_holds_gives_no_buffer),
        cmocka_unit_test(buffers_in_use_never_overlap_and_never_move),
        cmocka_unit_test(random_use_agrees_with_a_count_kept_beside_it),
        cmocka_unit_test(misuse_is_an_assert),
        cmocka_unit_test(address_sanitizer_watches_free_buffers),
        cmocka_unit_test(less_is_reserved_where_addresses_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
