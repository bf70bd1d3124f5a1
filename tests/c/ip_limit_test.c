/* Counts of addresses: exact where addresses are few, never too small, gone with a worker that is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "connection/ip_limit.h"
#include "connection/trusted.h"
#include "ringway.h"

static void v4(uint8_t ip[16], uint32_t number) {
    const uint8_t address[4] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8),
                                (uint8_t)number};
    rw_ip_widen(ip, address, 4);
}

struct node {
    int32_t fd;
    uint64_t address;
    struct rw_shm_header *shm;
};

static struct node node_open(uint32_t places) {
    struct node node = {.fd = rw_shm_create(places, 65536, 0, 0)};
    assert_true(node.fd >= 0);
    node.address = rw_shm_map(node.fd, 0);
    node.shm = rw_shm_at(node.address);
    assert_non_null(node.shm);
    return node;
}

static void node_close(struct node *node) {
    rw_shm_unmap(node->address);
    close(node->fd);
}

/* A worker that has announced itself at its place. */
static struct rw_ip_limit worker_open(struct node *node, uint32_t most, uint32_t worker) {
    struct rw_ip_limit limit;
    assert_int_equal(rw_ip_limit_open(&limit, most, node->shm, worker), RW_OK);
    rw_shm_live_set(node->shm, worker, 1);
    return limit;
}

static uint64_t sum_of_cells(const struct rw_ip_limit *limit) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < RW_IP_ROWS * RW_IP_CELLS; i++) sum += limit->cells[i];
    return sum;
}

static void counts_in_private_memory_go_up_and_down(void **state) {
    (void)state;
    struct rw_ip_limit limit;
    assert_int_equal(rw_ip_limit_open(&limit, 3, NULL, 0), RW_OK);
    uint8_t ip[16], other[16];
    v4(ip, 0x0A000001);
    v4(other, 0x0A000002);
    uint32_t keys[3];
    for (uint32_t i = 0; i < 3; i++) assert_int_not_equal(keys[i] = rw_ip_limit_take(&limit, ip), 0);
    assert_int_equal(rw_ip_limit_take(&limit, ip), 0);
    assert_int_equal(rw_ip_limit_take(&limit, ip), 0);
    assert_int_equal(rw_ip_limit_count(&limit, ip), 3);
    assert_int_equal(rw_ip_limit_count(&limit, other), 0);
    uint32_t key = rw_ip_limit_take(&limit, other);
    assert_int_not_equal(key, 0);
    rw_ip_limit_give(&limit, keys[0]);
    assert_int_equal(rw_ip_limit_count(&limit, ip), 2);
    assert_int_not_equal(keys[0] = rw_ip_limit_take(&limit, ip), 0);
    for (uint32_t i = 0; i < 3; i++) rw_ip_limit_give(&limit, keys[i]);
    rw_ip_limit_give(&limit, key);
    assert_int_equal(sum_of_cells(&limit), 0);
    rw_ip_limit_close(&limit);
}

static void a_client_with_ipv6_is_counted_by_its_64_bits(void **state) {
    (void)state;
    struct rw_ip_limit limit;
    assert_int_equal(rw_ip_limit_open(&limit, 2, NULL, 0), RW_OK);
    uint8_t ip[16] = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, [15] = 1};
    assert_int_not_equal(rw_ip_limit_take(&limit, ip), 0);
    memset(ip + 8, 0xAB, 8);
    assert_int_not_equal(rw_ip_limit_take(&limit, ip), 0);
    ip[8] = 1;
    assert_int_equal(rw_ip_limit_take(&limit, ip), 0);
    ip[7] = 2;
    assert_int_not_equal(rw_ip_limit_take(&limit, ip), 0);
    /* The neighbours of an IPv4 address are nobody's business of its own, though they share the first eight bytes. */
    uint8_t one[16], two[16];
    v4(one, 0xC0000201);
    v4(two, 0xC0000202);
    for (uint32_t i = 0; i < 2; i++) assert_int_not_equal(rw_ip_limit_take(&limit, one), 0);
    assert_int_equal(rw_ip_limit_take(&limit, one), 0);
    assert_int_not_equal(rw_ip_limit_take(&limit, two), 0);
    rw_ip_limit_close(&limit);
}

static void workers_count_together_and_a_gone_one_not_at_all(void **state) {
    (void)state;
    struct node node = node_open(RW_WORKERS_MAX);
    static const uint32_t places[] = {0, 1, 63, 64, 511};
    struct rw_ip_limit workers[5];
    for (uint32_t i = 0; i < 5; i++) workers[i] = worker_open(&node, 7, places[i]);
    uint8_t ip[16];
    v4(ip, 0xC0000201);
    uint32_t keys[7];
    for (uint32_t i = 0; i < 7; i++) assert_int_not_equal(keys[i] = rw_ip_limit_take(&workers[i % 5], ip), 0);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(rw_ip_limit_count(&workers[i], ip), 7);
        assert_int_equal(rw_ip_limit_take(&workers[i], ip), 0);
    }
    /* Killed with two of them: no other worker's count is touched, and there is room for two again. */
    rw_shm_worker_gone(node.address, 0);
    assert_int_equal(sum_of_cells(&workers[0]), 0);
    assert_int_equal(rw_ip_limit_count(&workers[1], ip), 5);
    for (uint32_t i = 0; i < 2; i++) assert_int_not_equal(rw_ip_limit_take(&workers[4], ip), 0);
    assert_int_equal(rw_ip_limit_take(&workers[4], ip), 0);
    /* Its successor begins at nothing. */
    workers[0] = worker_open(&node, 7, 0);
    assert_int_equal(sum_of_cells(&workers[0]), 0);
    assert_int_equal(rw_ip_limit_count(&workers[0], ip), 7);
    rw_ip_limit_give(&workers[1], keys[1]);
    assert_int_not_equal(rw_ip_limit_take(&workers[0], ip), 0);
    node_close(&node);
}

static void a_successor_clears_what_its_predecessor_has_left(void **state) {
    (void)state;
    struct node node = node_open(2);
    struct rw_ip_limit killed = worker_open(&node, 9, 1);
    uint8_t ip[16];
    v4(ip, 1);
    for (uint32_t i = 0; i < 4; i++) (void)rw_ip_limit_take(&killed, ip);
    assert_int_equal(sum_of_cells(&killed), 16);
    struct rw_ip_limit next = worker_open(&node, 9, 1);
    assert_int_equal(sum_of_cells(&next), 0);
    node_close(&node);
}

static uint64_t pages_of(const struct node *node) {
    struct stat status;
    assert_int_equal(fstat(node->fd, &status), 0);
    return (uint64_t)status.st_blocks * 512 / 4096;
}

static void memory_is_touched_where_addresses_fall_and_given_back(void **state) {
    (void)state;
    struct node node = node_open(RW_WORKERS_MAX);
    struct rw_ip_limit unlimited;
    uint64_t before = pages_of(&node);
    assert_int_equal(rw_ip_limit_open(&unlimited, 0, node.shm, 3), RW_OK);
    assert_int_equal(pages_of(&node), before);
    struct rw_ip_limit workers[2] = {worker_open(&node, 9, 0), worker_open(&node, 9, 300)};
    before = pages_of(&node);
    uint8_t ip[16];
    v4(ip, 0x01020304);
    uint32_t key = rw_ip_limit_take(&workers[0], ip);
    /* A page for each row, of the workers that live. */
    assert_in_range(pages_of(&node) - before, 1, 2 * RW_IP_ROWS);
    rw_ip_limit_give(&workers[0], key);
    rw_shm_ip_clear(node.shm, 0);
    rw_shm_ip_clear(node.shm, 300);
    assert_int_equal(pages_of(&node), before);
    node_close(&node);
}

/* Many addresses against a model that counts exactly. */
static void counts_are_never_too_small_and_hardly_ever_too_large(void **state) {
    (void)state;
    enum { ADDRESSES = 60000 };
    static uint32_t keys[ADDRESSES];
    struct rw_ip_limit limit;
    assert_int_equal(rw_ip_limit_open(&limit, RW_IP_CONNECTIONS_MAX, NULL, 0), RW_OK);
    uint8_t ip[16];
    for (uint32_t i = 0; i < ADDRESSES; i++) {
        v4(ip, 0x0A000000 + i);
        assert_int_not_equal(keys[i] = rw_ip_limit_take(&limit, ip), 0);
    }
    uint32_t too_large = 0;
    for (uint32_t i = 0; i < ADDRESSES; i++) {
        v4(ip, 0x0A000000 + i);
        uint32_t count = rw_ip_limit_count(&limit, ip);
        assert_true(count >= 1);
        too_large += count - 1;
    }
    /* By the arithmetic 1 - e^(-60000/262144) to the fourth: one in 550, so about 109 of them. */
    assert_in_range(too_large, 1, 400);
    for (uint32_t i = 0; i < ADDRESSES; i++) rw_ip_limit_give(&limit, keys[i]);
    assert_int_equal(sum_of_cells(&limit), 0);
    rw_ip_limit_close(&limit);
}

static void the_largest_limit_can_be_reached_and_left_again(void **state) {
    (void)state;
    struct rw_ip_limit limit;
    assert_int_equal(rw_ip_limit_open(&limit, RW_IP_CONNECTIONS_MAX, NULL, 0), RW_OK);
    uint8_t ip[16];
    v4(ip, 1);
    uint32_t key = 0;
    for (uint32_t i = 0; i < RW_IP_CONNECTIONS_MAX; i++) assert_int_not_equal(key = rw_ip_limit_take(&limit, ip), 0);
    assert_int_equal(rw_ip_limit_take(&limit, ip), 0);
    assert_int_equal(rw_ip_limit_take(&limit, ip), 0);
    rw_ip_limit_give(&limit, key);
    assert_int_equal(rw_ip_limit_count(&limit, ip), RW_IP_CONNECTIONS_MAX - 1);
    assert_int_not_equal(rw_ip_limit_take(&limit, ip), 0);
    for (uint32_t i = 0; i < RW_IP_CONNECTIONS_MAX; i++) rw_ip_limit_give(&limit, key);
    assert_int_equal(sum_of_cells(&limit), 0);
    rw_ip_limit_close(&limit);
}

static void a_cell_that_overflows_stays_full_and_the_others_count_on(void **state) {
    (void)state;
    struct rw_ip_limit limit;
    assert_int_equal(rw_ip_limit_open(&limit, 10, NULL, 0), RW_OK);
    uint8_t ip[16];
    v4(ip, 1);
    uint32_t key = rw_ip_limit_take(&limit, ip), shared = 0;
    /* As if a heavy address shared one of its cells. */
    while (limit.cells[shared] == 0) shared++;
    atomic_store(&limit.cells[shared], UINT16_MAX);
    assert_int_equal(rw_ip_limit_count(&limit, ip), 1);
    assert_int_not_equal(rw_ip_limit_take(&limit, ip), 0);
    assert_int_equal(rw_ip_limit_count(&limit, ip), 2);
    for (uint32_t i = 0; i < 2; i++) rw_ip_limit_give(&limit, key);
    assert_int_equal(limit.cells[shared], UINT16_MAX);
    assert_int_equal(sum_of_cells(&limit), UINT16_MAX);
    rw_ip_limit_close(&limit);
}

/* Two processes go for the same address at once: never more than the limit, and all is given back. */
static void workers_that_race_never_pass_the_limit_together(void **state) {
    (void)state;
    enum { MOST = 5, ROUNDS = 500000 };
    struct node node = node_open(3);
    rw_shm_live_set(node.shm, 0, 1);
    rw_shm_live_set(node.shm, 1, 1);
    _Atomic int32_t *held = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(held, MAP_FAILED);
    pid_t children[2];
    for (uint32_t worker = 0; worker < 2; worker++) {
        children[worker] = fork();
        assert_true(children[worker] >= 0);
        if (children[worker] != 0) continue;
        struct rw_ip_limit limit = {.most = MOST, .shm = node.shm, .cells = rw_shm_ip_cells(node.shm, worker)};
        uint8_t ip[16];
        v4(ip, 0x7F000001);
        uint32_t keys[MOST], mine = 0;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            if (mine == 0 || (mine < MOST && rand() & 1)) {
                uint32_t key = rw_ip_limit_take(&limit, ip);
                if (!key) continue;
                keys[mine++] = key;
                if (atomic_fetch_add(held, 1) >= MOST) _exit(1);
            } else {
                (void)atomic_fetch_sub(held, 1);
                rw_ip_limit_give(&limit, keys[--mine]);
            }
        }
        for (; mine; rw_ip_limit_give(&limit, keys[--mine])) (void)atomic_fetch_sub(held, 1);
        _exit(sum_of_cells(&limit) == 0 ? 0 : 2);
    }
    for (uint32_t worker = 0; worker < 2; worker++) {
        int status;
        assert_int_equal(waitpid(children[worker], &status, 0), children[worker]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    munmap((void *)held, 4096);
    node_close(&node);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_in_private_memory_go_up_and_down),
        cmocka_unit_test(a_client_with_ipv6_is_counted_by_its_64_bits),
        cmocka_unit_test(workers_count_together_and_a_gone_one_not_at_all),
        cmocka_unit_test(a_successor_clears_what_its_predecessor_has_left),
        cmocka_unit_test(memory_is_touched_where_addresses_fall_and_given_back),
        cmocka_unit_test(counts_are_never_too_small_and_hardly_ever_too_large),
        cmocka_unit_test(the_largest_limit_can_be_reached_and_left_again),
        cmocka_unit_test(a_cell_that_overflows_stays_full_and_the_others_count_on),
        cmocka_unit_test(workers_that_race_never_pass_the_limit_together),
    };
    return cmocka_run_group_tests_name("counts of addresses", tests, NULL, NULL);
}
