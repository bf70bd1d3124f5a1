/* The shared memory of a node: its layout, and how it is made, mapped and checked.
 *
 * Role: turns worker indexes into addresses. Up: node_bus, core, the supervisor. Down: memfd_create(2), mmap(2),
 * madvise(2).
 * Invariants: the layout follows from worker_count, ring_bytes and state_bytes alone, so a mapping is accepted only when
 * every offset in its header is what those give; the memfd is sealed against resizing, so no access within total_bytes
 * can raise SIGBUS. */
#include "node/shm.h"

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
#define RW_IP_BYTES ((uint64_t)RW_IP_ROWS * RW_IP_CELLS * sizeof(uint16_t))
#define RW_NODE_RING_BYTES_MIN 65536u
#define RW_NODE_RING_BYTES_MAX (1u << 30)
#define RW_SHM_STATE_BYTES_MAX ((uint64_t)1 << 40) /* what there may be of it is for state/arena.h to say */

static_assert(RW_WORKERS_MAX % 64 == 0 && RW_NODE_WORDS * sizeof(uint64_t) == RW_CACHE_LINE_BYTES,
              "a set of workers is a cache line");
static_assert(sizeof(struct rw_shm_header) % RW_CACHE_LINE_BYTES == 0, "worker blocks begin a cache line");
static_assert(offsetof(struct rw_shm_header, live) % RW_CACHE_LINE_BYTES == 0,
              "what every publish reads shares no line with what changes more often");
static_assert(sizeof(struct rw_shm_worker) == 192, "a worker block shares no cache line with another");
static_assert(offsetof(struct rw_shm_worker, pending) == 64 && offsetof(struct rw_shm_worker, opened) == 128,
              "senders' bits lie apart from the flags they read");
static_assert(sizeof(struct rw_stats) % RW_CACHE_LINE_BYTES == 0, "counters of two workers share no cache line");
static_assert(offsetof(struct rw_shm_ring, read) == 64 && offsetof(struct rw_shm_ring, bytes) == 128,
              "producer and consumer write to different lines");
static_assert((RW_INTEREST_CELLS & (RW_INTEREST_CELLS - 1)) == 0 &&
                  RW_INTEREST_CELLS * sizeof(uint16_t) % RW_SHM_PAGE_BYTES == 0,
              "the interest of a worker is whole pages");
static_assert(RW_IP_BYTES % RW_SHM_PAGE_BYTES == 0, "the counters of addresses of a worker are whole pages");

static uint64_t page_up(uint64_t bytes) { return (bytes + RW_SHM_PAGE_BYTES - 1) & ~(uint64_t)(RW_SHM_PAGE_BYTES - 1); }

static uint64_t ring_stride(uint32_t ring_bytes) { return page_up(sizeof(struct rw_shm_ring) + (uint64_t)ring_bytes); }

static int sizes_valid(uint32_t worker_count, uint32_t ring_bytes, uint64_t state_bytes) {
    return state_bytes <= RW_SHM_STATE_BYTES_MAX && state_bytes % RW_SHM_PAGE_BYTES == 0 && worker_count >= 1 &&
           worker_count <= RW_WORKERS_MAX && ring_bytes >= RW_NODE_RING_BYTES_MIN &&
           ring_bytes <= RW_NODE_RING_BYTES_MAX && (ring_bytes & (ring_bytes - 1)) == 0;
}

/* At most 2^18 rings of 2^30 bytes and a page: total_bytes stays below 2^50. With rings of the default size it is 257
 * GiB, and addresses have 47 bits or more. */
static struct rw_shm_header layout(uint32_t worker_count, uint32_t ring_bytes, uint64_t state_bytes) {
    struct rw_shm_header header = {
        .magic = RW_SHM_MAGIC,
        .abi_version = RW_ABI_VERSION,
        .worker_count = worker_count,
        .ring_bytes = ring_bytes,
        .stats_bytes = sizeof(struct rw_stats),
        .state_bytes = state_bytes,
        .workers_offset = sizeof(struct rw_shm_header),
    };
    header.stats_offset = header.workers_offset + worker_count * sizeof(struct rw_shm_worker);
    header.interest_offset = page_up(header.stats_offset + worker_count * sizeof(struct rw_stats));
    header.ip_offset = header.interest_offset + worker_count * (uint64_t)RW_INTEREST_CELLS * sizeof(uint16_t);
    header.rings_offset = header.ip_offset + worker_count * RW_IP_BYTES;
    header.state_offset = header.rings_offset + (uint64_t)worker_count * worker_count * ring_stride(ring_bytes);
    header.total_bytes = header.state_offset + state_bytes;
    return header;
}

static uint8_t *at_offset(struct rw_shm_header *shm, uint64_t offset) { return (uint8_t *)shm + offset; }

struct rw_shm_header *rw_shm_at(uint64_t address) {
    struct rw_shm_header *shm = (struct rw_shm_header *)(uintptr_t)address;
    if (shm == NULL || address % _Alignof(struct rw_shm_header) != 0) return NULL;
    if (shm->magic != RW_SHM_MAGIC || shm->abi_version != RW_ABI_VERSION ||
        !sizes_valid(shm->worker_count, shm->ring_bytes, shm->state_bytes))
        return NULL;
    const struct rw_shm_header expected = layout(shm->worker_count, shm->ring_bytes, shm->state_bytes);
    if (shm->stats_bytes != expected.stats_bytes || shm->workers_offset != expected.workers_offset ||
        shm->stats_offset != expected.stats_offset || shm->interest_offset != expected.interest_offset ||
        shm->ip_offset != expected.ip_offset || shm->rings_offset != expected.rings_offset ||
        shm->state_offset != expected.state_offset || shm->total_bytes != expected.total_bytes)
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

_Atomic uint16_t *rw_shm_ip_cells(struct rw_shm_header *shm, uint32_t worker) {
    assert(worker < shm->worker_count);
    return (_Atomic uint16_t *)(void *)at_offset(shm, shm->ip_offset + worker * RW_IP_BYTES);
}

static void cells_clear(_Atomic uint16_t *cells, uint32_t count) {
    /* Reading a hole of a shared mapping allocates its page, so a loop over the cells would cost the memory it is to
     * give back. */
    if (madvise((void *)cells, count * sizeof(*cells), MADV_REMOVE) == 0) return;
    for (uint32_t cell = 0; cell < count; cell++) atomic_store_explicit(&cells[cell], 0, memory_order_relaxed);
}

void rw_shm_interest_clear(struct rw_shm_header *shm, uint32_t worker) {
    cells_clear(rw_shm_interest(shm, worker), RW_INTEREST_CELLS);
}

void rw_shm_ip_clear(struct rw_shm_header *shm, uint32_t worker) {
    cells_clear(rw_shm_ip_cells(shm, worker), RW_IP_ROWS * RW_IP_CELLS);
}

void rw_shm_live_set(struct rw_shm_header *shm, uint32_t worker, int live) {
    assert(worker < shm->worker_count);
    const uint64_t bit = (uint64_t)1 << (worker % 64);
    if (live) atomic_fetch_or(&shm->live[worker / 64], bit);
    else atomic_fetch_and(&shm->live[worker / 64], ~bit);
}

/* ------------------------------------------------------------------ giving back the pages of rings */

/* Bytes [begin, end) of a ring hold nothing that is still to be read. The first page stays: it has the positions. */
static void ring_free(struct rw_shm_ring *ring, uint32_t ring_bytes, uint64_t begin, uint64_t end) {
    const uint64_t from = page_up(offsetof(struct rw_shm_ring, bytes) + (begin == 0 ? 1 : begin));
    const uint64_t to = end == ring_bytes
                            ? ring_stride(ring_bytes)
                            : (offsetof(struct rw_shm_ring, bytes) + end) & ~(uint64_t)(RW_SHM_PAGE_BYTES - 1);
    /* It costs memory only when the kernel cannot. */
    if (from < to) (void)madvise((uint8_t *)ring + from, to - from, MADV_REMOVE);
}

/* One end of a ring is gone. What a dead sender has written may still be read by a receiver that lives; for a dead
 * receiver there is nothing to keep. */
static void ring_trim(struct rw_shm_ring *ring, uint32_t ring_bytes, int keep_unread) {
    const uint64_t read = atomic_load(&ring->read);
    const uint64_t written = atomic_load(&ring->written);
    if (!keep_unread || written - read - 1 >= ring_bytes) { /* nothing unread, or nothing that makes sense */
        ring_free(ring, ring_bytes, 0, ring_bytes);
        return;
    }
    const uint64_t begin = read & (ring_bytes - 1);
    const uint64_t end = begin + (written - read);
    ring_free(ring, ring_bytes, end <= ring_bytes ? 0 : end - ring_bytes, begin);
    if (end < ring_bytes) ring_free(ring, ring_bytes, end, ring_bytes);
}

static int bit_of(_Atomic uint64_t *words, uint32_t bit) {
    return (int)(atomic_load(&words[bit / 64]) >> (bit % 64) & 1);
}

/* Each generation of workers lives at other places than the one before, so rings that have grown would stay for good.
 * And what the worker has written and told nobody of, because it was killed between the two, would wait for the next
 * who lives at its place. */
static void rings_leave(struct rw_shm_header *shm, uint32_t worker) {
    for (uint32_t other = 0; other < shm->worker_count; other++) {
        if (bit_of(rw_shm_worker(shm, worker)->opened, other)) {
            const int is_read = bit_of(shm->live, other);
            ring_trim(rw_shm_ring(shm, worker, other), shm->ring_bytes, is_read);
            if (is_read)
                atomic_fetch_or(&rw_shm_worker(shm, other)->pending[worker / 64], (uint64_t)1 << (worker % 64));
        }
        if (bit_of(rw_shm_worker(shm, other)->opened, worker))
            ring_trim(rw_shm_ring(shm, other, worker), shm->ring_bytes, 0);
    }
}

void rw_stats_reset_gauges(struct rw_stats *stats) {
#define RW_RESET_COUNTER(field)
#define RW_RESET_GAUGE(field) __atomic_store_n(&stats->field, 0, __ATOMIC_RELAXED);
#define RW_RESET(kind, field) RW_RESET_##kind(field)
    RW_STATS_FIELDS(RW_RESET)
#undef RW_RESET
#undef RW_RESET_GAUGE
#undef RW_RESET_COUNTER
    for (uint32_t i = 0; i < RW_HOST_GAUGES; i++) __atomic_store_n(&stats->host_gauges[i], 0, __ATOMIC_RELAXED);
}

int32_t rw_shm_make(uint32_t worker_count, uint32_t ring_bytes, uint32_t host_layout, uint64_t state_bytes) {
    if (ring_bytes == 0) ring_bytes = RW_NODE_RING_BYTES_DEFAULT;
    if (state_bytes <= RW_SHM_STATE_BYTES_MAX) state_bytes = page_up(state_bytes);
    if (!sizes_valid(worker_count, ring_bytes, state_bytes)) return -EINVAL;
    int fd = memfd_create("ringway", MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) fd = memfd_create("ringway", MFD_ALLOW_SEALING);
    if (fd < 0) return -errno;
    struct rw_shm_header header = layout(worker_count, ring_bytes, state_bytes);
    header.host_layout = host_layout;
    if (getrandom(&header.topic_seed, sizeof header.topic_seed, 0) != (ssize_t)sizeof header.topic_seed) goto failed;
    if (getrandom(header.ip_secret, sizeof header.ip_secret, 0) != (ssize_t)sizeof header.ip_secret) goto failed;
    if (getrandom(header.ticket_secret, sizeof header.ticket_secret, 0) != (ssize_t)sizeof header.ticket_secret)
        goto failed;
    if (ftruncate(fd, (off_t)header.total_bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        goto failed;
    const ssize_t written = pwrite(fd, &header, sizeof header, 0);
    if (written == (ssize_t)sizeof header) return fd;
    if (written >= 0) errno = EIO;
failed:;
    const int error = errno;
    close(fd);
    return -error;
}

uint64_t rw_shm_map(int32_t fd, uint32_t host_layout) {
    struct stat status;
    if (fstat(fd, &status) != 0 || status.st_size < (off_t)sizeof(struct rw_shm_header)) return 0;
    const size_t bytes = (size_t)status.st_size;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (memory == MAP_FAILED) return 0;
    struct rw_shm_header *shm = rw_shm_at((uint64_t)(uintptr_t)memory);
    if (shm == NULL || shm->total_bytes != bytes || shm->host_layout != host_layout) {
        munmap(memory, bytes);
        return 0;
    }
    /* A core dump would touch every hole on its way. Counters and worker blocks, which lie before, go into it. */
    (void)madvise(at_offset(shm, shm->interest_offset), shm->total_bytes - shm->interest_offset, MADV_DONTDUMP);
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

void rw_shm_view_set(uint64_t address, uint32_t generation, uint32_t first, uint32_t count) {
    struct rw_shm_header *shm = rw_shm_at(address);
    if (shm == NULL) return;
    assert(first <= shm->worker_count && count <= shm->worker_count - first);
    atomic_store(&shm->view, (uint64_t)generation << 32 | (uint64_t)first << 16 | count);
}

uint32_t rw_shm_epoch(uint64_t address, uint32_t worker_index) {
    struct rw_shm_header *shm = rw_shm_at(address);
    if (shm == NULL || worker_index >= shm->worker_count) return 0;
    return atomic_load(&rw_shm_worker(shm, worker_index)->epoch);
}

void rw_shm_worker_gone(uint64_t address, uint32_t worker_index) {
    struct rw_shm_header *shm = rw_shm_at(address);
    if (shm == NULL || worker_index >= shm->worker_count) return;
    struct rw_shm_worker *worker = rw_shm_worker(shm, worker_index);
    const uint32_t epoch = atomic_load(&worker->epoch);
    /* A worker that left by itself has made its epoch even already. */
    if (epoch % 2 == 1) atomic_store(&worker->epoch, epoch + 1);
    rw_shm_live_set(shm, worker_index, 0);
    atomic_store(&worker->sleeping, 0);
    rw_shm_interest_clear(shm, worker_index);
    rw_shm_ip_clear(shm, worker_index);
    rings_leave(shm, worker_index);
    rw_stats_reset_gauges((struct rw_stats *)(uintptr_t)rw_shm_stats(address, worker_index));
}
