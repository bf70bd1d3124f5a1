/* The shared memory of a node: its layout, and how it is made, mapped and checked.
 *
 * Role: turns worker indexes into addresses. Up: node_bus, core, the supervisor. Down: memfd_create(2), mmap(2), madvise(2).
 * Invariants: the layout follows from worker_count and ring_bytes alone, so a mapping is accepted only when every offset in its header is
 * what those two give; the memfd is sealed against resizing, so no access within total_bytes can raise SIGBUS. */
#include "shm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3; with vm.memfd_noexec = 2 a memfd without it is refused */
#endif

#define RW_SHM_PAGE_BYTES 4096u
#define RW_NODE_RING_BYTES_MIN 65536u
#define RW_NODE_RING_BYTES_MAX (1u << 30)

static_assert(sizeof(struct rw_shm_header) == 2 * RW_CACHE_LINE_BYTES, "the header is two cache lines");
static_assert(sizeof(struct rw_shm_worker) == 128, "a worker block shares no cache line with another");
static_assert(offsetof(struct rw_shm_worker, pending) == 64, "senders' bits lie apart from the flags they read");
static_assert(sizeof(struct rw_stats) % RW_CACHE_LINE_BYTES == 0, "counters of two workers share no cache line");
static_assert(offsetof(struct rw_shm_ring, read) == 64 && offsetof(struct rw_shm_ring, bytes) == 128, "producer and consumer write to different lines");
static_assert((RW_INTEREST_CELLS & (RW_INTEREST_CELLS - 1)) == 0 && RW_INTEREST_CELLS * sizeof(uint16_t) % RW_SHM_PAGE_BYTES == 0,
              "the interest of a worker is whole pages");

static uint64_t page_up(uint64_t bytes) {
    return (bytes + RW_SHM_PAGE_BYTES - 1) & ~(uint64_t)(RW_SHM_PAGE_BYTES - 1);
}

static uint64_t ring_stride(uint32_t ring_bytes) {
    return page_up(sizeof(struct rw_shm_ring) + (uint64_t)ring_bytes);
}

static int sizes_valid(uint32_t worker_count, uint32_t ring_bytes) {
    return worker_count >= 1 && worker_count <= RW_WORKERS_MAX && ring_bytes >= RW_NODE_RING_BYTES_MIN && ring_bytes <= RW_NODE_RING_BYTES_MAX &&
           (ring_bytes & (ring_bytes - 1)) == 0;
}

/* At most 2^16 rings of 2^30 bytes: total_bytes stays below 2^47. */
static struct rw_shm_header layout(uint32_t worker_count, uint32_t ring_bytes) {
    struct rw_shm_header header = {
        .magic = RW_SHM_MAGIC,
        .abi_version = RW_ABI_VERSION,
        .worker_count = worker_count,
        .ring_bytes = ring_bytes,
        .stats_bytes = sizeof(struct rw_stats),
        .workers_offset = sizeof(struct rw_shm_header),
    };
    header.stats_offset = header.workers_offset + worker_count * sizeof(struct rw_shm_worker);
    header.interest_offset = page_up(header.stats_offset + worker_count * sizeof(struct rw_stats));
    header.rings_offset = header.interest_offset + worker_count * (uint64_t)RW_INTEREST_CELLS * sizeof(uint16_t);
    header.total_bytes = header.rings_offset + (uint64_t)worker_count * worker_count * ring_stride(ring_bytes);
    return header;
}

static uint8_t *at_offset(struct rw_shm_header *shm, uint64_t offset) {
    return (uint8_t *)shm + offset;
}

struct rw_shm_header *rw_shm_at(uint64_t address) {
    struct rw_shm_header *shm = (struct rw_shm_header *)(uintptr_t)address;
    if (shm == NULL || address % _Alignof(struct rw_shm_header) != 0) return NULL;
    if (shm->magic != RW_SHM_MAGIC || shm->abi_version != RW_ABI_VERSION || !sizes_valid(shm->worker_count, shm->ring_bytes)) return NULL;
    const struct rw_shm_header expected = layout(shm->worker_count, shm->ring_bytes);
    if (shm->stats_bytes != expected.stats_bytes || shm->workers_offset != expected.workers_offset || shm->stats_offset != expected.stats_offset ||
        shm->interest_offset != expected.interest_offset || shm->rings_offset != expected.rings_offset || shm->total_bytes != expected.total_bytes)
        return NULL;
    return shm;
}

struct rw_shm_worker *rw_shm_worker(struct rw_shm_header *shm, uint32_t worker) {
    assert(worker < shm->worker_count);
    return (struct rw_shm_worker *)(void *)at_offset(shm, shm->workers_offset) + worker;
}

_Atomic uint16_t *rw_shm_interest(struct rw_shm_header *shm, uint32_t worker) {
    assert(worker < shm->worker_count);
    return (_Atomic uint16_t *)(void *)at_offset(shm, shm->interest_offset) + (size_t)worker * RW_INTEREST_CELLS;
}

struct rw_shm_ring *rw_shm_ring(struct rw_shm_header *shm, uint32_t from, uint32_t to) {
    assert(from < shm->worker_count && to < shm->worker_count);
    const uint64_t index = (uint64_t)from * shm->worker_count + to;
    return (struct rw_shm_ring *)(void *)at_offset(shm, shm->rings_offset + index * ring_stride(shm->ring_bytes));
}

void rw_shm_interest_clear(struct rw_shm_header *shm, uint32_t worker) {
    _Atomic uint16_t *cells = rw_shm_interest(shm, worker);
    /* Reading a hole of a shared mapping allocates its page, so a loop over the cells would cost the 512 KiB it is to give back. */
    if (madvise((void *)cells, RW_INTEREST_CELLS * sizeof(*cells), MADV_REMOVE) == 0) return;
    for (uint32_t cell = 0; cell < RW_INTEREST_CELLS; cell++) atomic_store_explicit(&cells[cell], 0, memory_order_relaxed);
}

void rw_stats_reset_gauges(struct rw_stats *stats) {
#define RW_RESET_COUNTER(field)
#define RW_RESET_GAUGE(field) __atomic_store_n(&stats->field, 0, __ATOMIC_RELAXED);
#define RW_RESET(kind, field) RW_RESET_##kind(field)
    RW_STATS_FIELDS(RW_RESET)
#undef RW_RESET
#undef RW_RESET_GAUGE
#undef RW_RESET_COUNTER
}

int32_t rw_shm_create(uint32_t worker_count, uint32_t ring_bytes) {
    if (ring_bytes == 0) ring_bytes = RW_NODE_RING_BYTES_DEFAULT;
    if (!sizes_valid(worker_count, ring_bytes)) return -EINVAL;
    int fd = memfd_create("ringway", MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create("ringway", MFD_ALLOW_SEALING);
    if (fd < 0) return -errno;
    struct rw_shm_header header = layout(worker_count, ring_bytes);
    if (getrandom(&header.topic_seed, sizeof header.topic_seed, 0) != (ssize_t)sizeof header.topic_seed) goto failed;
    if (getrandom(header.ticket_secret, sizeof header.ticket_secret, 0) != (ssize_t)sizeof header.ticket_secret) goto failed;
    if (ftruncate(fd, (off_t)header.total_bytes) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) goto failed;
    const ssize_t written = pwrite(fd, &header, sizeof header, 0);
    if (written == (ssize_t)sizeof header) return fd;
    if (written >= 0) errno = EIO;
failed:;
    const int error = errno;
    close(fd);
    return -error;
}

uint64_t rw_shm_map(int32_t fd) {
    struct stat status;
    if (fstat(fd, &status) != 0 || status.st_size < (off_t)sizeof(struct rw_shm_header)) return 0;
    const size_t bytes = (size_t)status.st_size;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (memory == MAP_FAILED) return 0;
    const struct rw_shm_header *shm = rw_shm_at((uint64_t)(uintptr_t)memory);
    if (shm == NULL || shm->total_bytes != bytes) {
        munmap(memory, bytes);
        return 0;
    }
    return (uint64_t)(uintptr_t)memory;
}

void rw_shm_unmap(uint64_t address) {
    struct rw_shm_header *shm = rw_shm_at(address);
    if (shm != NULL) munmap(shm, shm->total_bytes);
}

uint64_t rw_shm_stats(uint64_t address, uint32_t worker_index) {
    struct rw_shm_header *shm = rw_shm_at(address);
    if (shm == NULL || worker_index >= shm->worker_count) return 0;
    return (uint64_t)(uintptr_t)at_offset(shm, shm->stats_offset + worker_index * sizeof(struct rw_stats));
}

void rw_shm_worker_gone(uint64_t address, uint32_t worker_index) {
    struct rw_shm_header *shm = rw_shm_at(address);
    if (shm == NULL || worker_index >= shm->worker_count) return;
    struct rw_shm_worker *worker = rw_shm_worker(shm, worker_index);
    const uint32_t epoch = atomic_load(&worker->epoch);
    /* A worker that left by itself has made its epoch even already. */
    if (epoch % 2 == 1) atomic_store(&worker->epoch, epoch + 1);
    atomic_store(&worker->sleeping, 0);
    rw_shm_interest_clear(shm, worker_index);
    rw_stats_reset_gauges((struct rw_stats *)(uintptr_t)rw_shm_stats(address, worker_index));
}
