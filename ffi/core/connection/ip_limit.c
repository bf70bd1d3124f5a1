/* Counts of addresses, see ip_limit.h. */
#include "connection/ip_limit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/siphash.h"
#include "connection/trusted.h"

#define PRIVATE_BYTES ((size_t)RW_IP_ROWS * RW_IP_CELLS * sizeof(uint16_t))
#define CELL_BITS 18u

static_assert(RW_IP_CELLS == 1u << CELL_BITS, "a cell is named by the upper bits of a product");
static_assert(RW_IP_CONNECTIONS_MAX < UINT16_MAX, "a cell that is full holds more than any limit");

int32_t rw_ip_limit_open(struct rw_ip_limit *limit, uint32_t most, struct rw_shm_header *shm, uint32_t worker) {
    *limit = (struct rw_ip_limit){.most = most, .shm = shm};
    if (most == 0) return RW_OK;
    if (shm) {
        memcpy(limit->secret, shm->ip_secret, sizeof limit->secret);
        limit->cells = rw_shm_ip_cells(shm, worker);
        rw_shm_ip_clear(shm, worker); /* of a predecessor: a cell that was full stays so */
        return RW_OK;
    }
    void *memory =
        mmap(NULL, PRIVATE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return -ENOMEM;
    limit->cells = memory;
    /* Without a secret an attacker could at most be counted together with somebody. */
    (void)!getrandom(limit->secret, sizeof limit->secret, 0);
    return RW_OK;
}

void rw_ip_limit_close(struct rw_ip_limit *limit) {
    if (limit->cells && !limit->shm) munmap((void *)limit->cells, PRIVATE_BYTES);
    *limit = (struct rw_ip_limit){0};
}

/* ret: never 0 */
static uint32_t key_of(const struct rw_ip_limit *limit, const uint8_t *ip) {
    uint8_t counted[16];
    memcpy(counted, ip, sizeof counted);
    if (!rw_ip_is_v4(ip)) memset(counted + 8, 0, 8);
    uint32_t key = (uint32_t)rw_siphash(limit->secret[0], limit->secret[1], counted, sizeof counted);
    return key ? key : 1;
}

/* Where the cells of a key are: of a product with a large odd number, a different one for each row, the upper bits. */
static void locate(uint32_t key, uint32_t at[RW_IP_ROWS]) {
    static const uint64_t odd[RW_IP_ROWS] = {0x9e3779b97f4a7c15ull, 0xc2b2ae3d27d4eb4full, 0xd6e8feb86659fd93ull,
                                             0xa0761d6478bd642full};
    for (uint32_t row = 0; row < RW_IP_ROWS; row++)
        at[row] = row * RW_IP_CELLS + (uint32_t)(key * odd[row] >> (64 - CELL_BITS));
}

static uint32_t load(const _Atomic uint16_t *cell) { return atomic_load_explicit(cell, memory_order_relaxed); }

static uint32_t least(const uint32_t sums[RW_IP_ROWS]) {
    uint32_t count = sums[0];
    for (uint32_t row = 1; row < RW_IP_ROWS; row++) {
        if (sums[row] < count) count = sums[row];
    }
    return count;
}

static uint32_t count_of(const struct rw_ip_limit *limit, const uint32_t at[RW_IP_ROWS]) {
    uint32_t sums[RW_IP_ROWS] = {0};
    if (!limit->shm) {
        for (uint32_t row = 0; row < RW_IP_ROWS; row++) sums[row] = load(&limit->cells[at[row]]);
        return least(sums);
    }
    for (uint32_t word = 0; word < RW_NODE_WORDS; word++) {
        uint64_t live = atomic_load_explicit(&limit->shm->live[word], memory_order_relaxed);
        for (; live; live &= live - 1) {
            const _Atomic uint16_t *cells = rw_shm_ip_cells(limit->shm, word * 64 + (uint32_t)__builtin_ctzll(live));
            for (uint32_t row = 0; row < RW_IP_ROWS; row++) sums[row] += load(&cells[at[row]]);
        }
    }
    return least(sums);
}

/* Only this worker writes the cell. One that is full stays so: how many it stands for is not known any more. It takes
 * two addresses with tens of thousands of connections that share it, and then the other rows still tell. */
static void add(struct rw_ip_limit *limit, const uint32_t at[RW_IP_ROWS], int32_t by) {
    for (uint32_t row = 0; row < RW_IP_ROWS; row++) {
        _Atomic uint16_t *cell = &limit->cells[at[row]];
        uint32_t value = load(cell);
        assert(by > 0 || value > 0);
        if (value < UINT16_MAX) atomic_store_explicit(cell, (uint16_t)((int32_t)value + by), memory_order_relaxed);
    }
}

uint32_t rw_ip_limit_take(struct rw_ip_limit *limit, const uint8_t *ip) {
    uint32_t at[RW_IP_ROWS];
    uint32_t key = key_of(limit, ip);
    locate(key, at);
    uint32_t own[RW_IP_ROWS];
    for (uint32_t row = 0; row < RW_IP_ROWS; row++) own[row] = load(&limit->cells[at[row]]);
    if (least(own) >= limit->most) return 0;
    /* Counted first and looked at then, with a fence between: of two workers at least one sees the other. */
    add(limit, at, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (count_of(limit, at) <= limit->most) return key;
    add(limit, at, -1);
    return 0;
}

void rw_ip_limit_give(struct rw_ip_limit *limit, uint32_t key) {
    uint32_t at[RW_IP_ROWS];
    locate(key, at);
    add(limit, at, -1);
}

uint32_t rw_ip_limit_count(const struct rw_ip_limit *limit, const uint8_t *ip) {
    uint32_t at[RW_IP_ROWS];
    locate(key_of(limit, ip), at);
    return count_of(limit, at);
}
