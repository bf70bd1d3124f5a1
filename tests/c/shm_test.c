/* The shared memory of a node: layout, checks of a mapping, and what a gone worker leaves behind. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/shm.h"

static struct rw_shm_header *map(int32_t fd, uint64_t *address) {
    *address = rw_shm_map(fd, 0);
    assert_int_not_equal(*address, 0);
    return rw_shm_at(*address);
}

static void test_every_region_is_apart_from_every_other(void **state) {
    (void)state;
    const uint32_t workers = 5;
    const int32_t fd = rw_shm_create(workers, 65536, 0, 0);
    assert_true(fd >= 0);
    uint64_t address;
    struct rw_shm_header *shm = map(fd, &address);
    assert_int_equal(shm->worker_count, workers);
    assert_int_equal(shm->ring_bytes, 65536);
    const uintptr_t end = (uintptr_t)address + shm->total_bytes;
    uintptr_t below = (uintptr_t)(shm + 1);
    for (uint32_t w = 0; w < workers; w++) {
        assert_true((uintptr_t)rw_shm_worker(shm, w) >= below);
        below = (uintptr_t)(rw_shm_worker(shm, w) + 1);
    }
    for (uint32_t w = 0; w < workers; w++) {
        assert_int_equal(rw_shm_stats(address, w) % 64, 0);
        assert_true(rw_shm_stats(address, w) >= below);
        below = (uintptr_t)rw_shm_stats(address, w) + sizeof(struct rw_stats);
    }
    for (uint32_t w = 0; w < workers; w++) {
        assert_true((uintptr_t)rw_shm_interest(shm, w) >= below);
        below = (uintptr_t)(rw_shm_interest(shm, w) + RW_INTEREST_CELLS);
    }
    for (uint32_t from = 0; from < workers; from++)
        for (uint32_t to = 0; to < workers; to++) {
            assert_int_equal((uintptr_t)rw_shm_ring(shm, from, to) % 64, 0);
            assert_true((uintptr_t)rw_shm_ring(shm, from, to) >= below);
            below = (uintptr_t)(rw_shm_ring(shm, from, to)->bytes + shm->ring_bytes);
        }
    assert_true(below <= end);
    rw_shm_unmap(address);
    close(fd);
}

static void test_a_full_sized_node_costs_nothing_until_touched(void **state) {
    (void)state;
    const int32_t fd = rw_shm_create(RW_WORKERS_MAX, 0, 0, 0);
    assert_true(fd >= 0);
    uint64_t address;
    struct rw_shm_header *shm = map(fd, &address);
    assert_int_equal(shm->ring_bytes, RW_NODE_RING_BYTES_DEFAULT);
    rw_shm_ring(shm, RW_WORKERS_MAX - 1, RW_WORKERS_MAX - 1)->bytes[shm->ring_bytes - 1] = 1;
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal((uint64_t)status.st_size, shm->total_bytes);
    assert_true(status.st_blocks * 512 <= 64 * 1024);
    rw_shm_unmap(address);
    close(fd);
}

static void test_sizes_out_of_range_are_refused(void **state) {
    (void)state;
    assert_int_equal(rw_shm_create(0, 0, 0, 0), -EINVAL);
    assert_int_equal(rw_shm_create(RW_WORKERS_MAX + 1, 0, 0, 0), -EINVAL);
    assert_int_equal(rw_shm_create(2, 65535, 0, 0), -EINVAL);
    assert_int_equal(rw_shm_create(2, 32768, 0, 0), -EINVAL);
    assert_int_equal(rw_shm_create(2, 65536 * 3, 0, 0), -EINVAL);
    assert_int_equal(rw_shm_create(2, 0x80000000u, 0, 0), -EINVAL);
}

static void test_the_descriptor_survives_exec_and_cannot_be_resized(void **state) {
    (void)state;
    const int32_t fd = rw_shm_create(2, 0, 0, 0);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), -1);
    close(fd);
}

static void test_memory_of_another_layout_is_not_mapped(void **state) {
    (void)state;
    assert_int_equal(rw_shm_map(-1, 0), 0);
    assert_null(rw_shm_at(0));
    const int empty = memfd_create("empty", 0);
    assert_int_equal(rw_shm_map(empty, 0), 0);
    assert_int_equal(ftruncate(empty, 1 << 20), 0);
    assert_int_equal(rw_shm_map(empty, 0), 0);
    close(empty);

    const int32_t fd = rw_shm_create(3, 0, 0, 0);
    uint64_t address;
    struct rw_shm_header *shm = map(fd, &address);
    const struct rw_shm_header good = *shm;
    shm->abi_version++;
    assert_int_equal(rw_shm_map(fd, 0), 0);
    *shm = good;
    shm->stats_bytes -= 8;
    assert_int_equal(rw_shm_map(fd, 0), 0);
    *shm = good;
    shm->worker_count = 4; /* would reach past the end */
    assert_int_equal(rw_shm_map(fd, 0), 0);
    *shm = good;
    shm->rings_offset += 64;
    assert_int_equal(rw_shm_map(fd, 0), 0);
    *shm = good;
    assert_int_equal(rw_shm_map(fd, 1), 0); /* what the host counts means something else to it */
    const uint64_t again = rw_shm_map(fd, 0);
    assert_int_not_equal(again, 0);
    rw_shm_unmap(again);
    rw_shm_unmap(address);
    close(fd);
}

static void test_two_processes_see_the_same_counters(void **state) {
    (void)state;
    const int32_t fd = rw_shm_create(2, 0, 0, 0);
    const pid_t child = fork();
    if (child == 0) {
        const uint64_t theirs = rw_shm_map(fd, 0);
        if (theirs == 0) _exit(1);
        ((struct rw_stats *)(uintptr_t)rw_shm_stats(theirs, 1))->requests = 42;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    uint64_t address;
    map(fd, &address);
    assert_int_equal(((struct rw_stats *)(uintptr_t)rw_shm_stats(address, 1))->requests, 42);
    assert_int_equal(((struct rw_stats *)(uintptr_t)rw_shm_stats(address, 0))->requests, 0);
    assert_int_equal(rw_shm_stats(address, 2), 0);
    assert_int_equal(rw_shm_stats(0, 0), 0);
    rw_shm_unmap(address);
    close(fd);
}

static void test_reset_zeroes_gauges_and_keeps_counters(void **state) {
    (void)state;
    struct rw_stats stats;
    uint64_t *values = (uint64_t *)(void *)&stats;
    for (size_t i = 0; i < sizeof stats / sizeof *values; i++) values[i] = 7;
    rw_stats_reset_gauges(&stats);
#define EXPECTED_COUNTER 7
#define EXPECTED_GAUGE 0
#define CHECK(kind, field) assert_int_equal(stats.field, EXPECTED_##kind);
    RW_STATS_FIELDS(CHECK)
    for (size_t i = 0; i < RW_HOST_COUNTERS; i++) assert_int_equal(stats.host_counters[i], EXPECTED_COUNTER);
    for (size_t i = 0; i < RW_HOST_GAUGES; i++) assert_int_equal(stats.host_gauges[i], EXPECTED_GAUGE);
}

static void test_a_gone_worker_leaves_its_counters_only(void **state) {
    (void)state;
    const int32_t fd = rw_shm_create(3, 0, 0, 0);
    uint64_t address;
    struct rw_shm_header *shm = map(fd, &address);
    struct rw_stats *stats = (struct rw_stats *)(uintptr_t)rw_shm_stats(address, 1);
    for (uint32_t w = 0; w < 3; w++) {
        atomic_store(&rw_shm_worker(shm, w)->epoch, 5);
        atomic_store(&rw_shm_worker(shm, w)->sleeping, 1);
        for (uint32_t cell = 0; cell < RW_INTEREST_CELLS; cell += 1000) atomic_store(&rw_shm_interest(shm, w)[cell], 9);
        atomic_store(&rw_shm_interest(shm, w)[RW_INTEREST_CELLS - 1], 9);
    }
    stats->accepts = 11;
    stats->connections_websocket = 12;
    rw_shm_worker_gone(address, 1);
    assert_int_equal(atomic_load(&rw_shm_worker(shm, 1)->epoch), 6);
    assert_int_equal(atomic_load(&rw_shm_worker(shm, 1)->sleeping), 0);
    assert_int_equal(stats->accepts, 11);
    assert_int_equal(stats->connections_websocket, 0);
    for (uint32_t cell = 0; cell < RW_INTEREST_CELLS; cell++)
        assert_int_equal(atomic_load(&rw_shm_interest(shm, 1)[cell]), 0);
    for (uint32_t w = 0; w < 3; w += 2) {
        assert_int_equal(atomic_load(&rw_shm_worker(shm, w)->epoch), 5);
        assert_int_equal(atomic_load(&rw_shm_interest(shm, w)[RW_INTEREST_CELLS - 1]), 9);
        assert_int_equal(atomic_load(&rw_shm_interest(shm, w)[0]), 9);
    }
    rw_shm_worker_gone(address, 1);
    assert_int_equal(atomic_load(&rw_shm_worker(shm, 1)->epoch), 6);
    rw_shm_worker_gone(address, 3);
    rw_shm_unmap(address);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_region_is_apart_from_every_other),
        cmocka_unit_test(test_a_full_sized_node_costs_nothing_until_touched),
        cmocka_unit_test(test_sizes_out_of_range_are_refused),
        cmocka_unit_test(test_the_descriptor_survives_exec_and_cannot_be_resized),
        cmocka_unit_test(test_memory_of_another_layout_is_not_mapped),
        cmocka_unit_test(test_two_processes_see_the_same_counters),
        cmocka_unit_test(test_reset_zeroes_gauges_and_keeps_counters),
        cmocka_unit_test(test_a_gone_worker_leaves_its_counters_only),
    };
    return cmocka_run_group_tests_name("shm", tests, NULL, NULL);
}
