/* The region of what topics remember: how it is laid out, made and opened.
 *
 * Role: the part of arena.h that comes before any transaction. Up: the supervisor (rw_shm_create), create.c. Down: shm,
 * mmap(2), pthread_mutexattr_setrobust(3).
 * Invariants: the layout follows from the size alone, so nothing that lies in the region decides where anything else
 * does. The mutexes are made before anybody else has the descriptor; all else is zero at first. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ringway.h"
#include "state/arena.h"
#include "state/shard.h"
#include "topics/topics.h"

#define PAGE_BYTES 4096u
#define BUCKETS_MIN 64u
#define BLOCKS_PER_BUCKET 4u

static_assert(sizeof(struct rw_block_at) == RW_BLOCK_BYTES, "a block is two cache lines");
static_assert(sizeof(struct rw_shard) % 64 == 0, "shards share no cache line");
static_assert(sizeof(struct rw_record) == 24, "records leave 104 bytes of a block to their kinds");
static_assert(RW_STATE_BYTES_MAX / RW_BLOCK_BYTES <= (uint64_t)1 << 31, "blocks are numbered in 32 bits");

static uint64_t page_up(uint64_t bytes) { return (bytes + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1); }

static uint32_t buckets_for(uint64_t region_bytes) {
    const uint64_t wanted = region_bytes / RW_BLOCK_BYTES / BLOCKS_PER_BUCKET / RW_STATE_SHARDS;
    uint32_t count = BUCKETS_MIN;
    while (count < wanted) count *= 2;
    return count;
}

void rw_state_lay_out(struct rw_state *state, uint8_t *region, uint64_t region_bytes) {
    const uint32_t buckets = buckets_for(region_bytes);
    const uint64_t shards_at = PAGE_BYTES;
    const uint64_t journals_at = shards_at + page_up(sizeof(struct rw_shard) * RW_STATE_SHARDS);
    const uint64_t buckets_at =
        journals_at + page_up(sizeof(struct rw_journal_word) * RW_TX_WORDS_MAX * (uint64_t)RW_STATE_SHARDS);
    const uint64_t owners_at = buckets_at + page_up(sizeof(rw_block) * buckets * (uint64_t)RW_STATE_SHARDS);
    const uint64_t blocks_at = owners_at + page_up(region_bytes / RW_CHUNK_BYTES);
    const uint32_t chunks = (uint32_t)((region_bytes - blocks_at) / RW_CHUNK_BYTES);
    assert(chunks >= RW_STATE_SHARDS);
    *state = (struct rw_state){
        .region = region,
        .region_bytes = region_bytes,
        .header = (struct rw_state_header *)(void *)region,
        .shards = (struct rw_shard *)(void *)(region + shards_at),
        .journals = (struct rw_journal_word *)(void *)(region + journals_at),
        .buckets = (rw_block *)(void *)(region + buckets_at),
        .owners = (_Atomic uint8_t *)(void *)(region + owners_at),
        .blocks = region + blocks_at,
        .bucket_count = buckets,
        .chunk_count = chunks,
        .own_chunks = chunks < 4 * RW_STATE_SHARDS ? 1 : chunks / 2 / RW_STATE_SHARDS,
        .block_count = chunks * RW_CHUNK_BLOCKS,
    };
}

/* pthread_mutex_init(3) is what makes a mutex; a page of zeros is none that is shared and robust. ret: 0 or a negated
 * errno */
static int32_t make_mutexes(struct rw_state *state) {
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0) return -error;
    error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0) error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    for (uint32_t i = 0; i < RW_STATE_SHARDS && error == 0; i++) {
        error = pthread_mutex_init(&state->shards[i].mutex, &attributes);
        for (uint32_t j = 0; j < RW_LOANS && error == 0; j++)
            error = pthread_mutex_init(&state->shards[i].loans[j].mutex, &attributes);
    }
    pthread_mutexattr_destroy(&attributes);
    return -error;
}

static int32_t make_state(int32_t fd, uint64_t state_bytes) {
    struct stat status;
    if (fstat(fd, &status) != 0) return -errno;
    const uint64_t bytes = page_up(state_bytes);
    const off_t offset = status.st_size - (off_t)bytes;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, offset);
    if (memory == MAP_FAILED) return -errno;
    struct rw_state state;
    rw_state_lay_out(&state, memory, bytes);
    const int32_t result = make_mutexes(&state);
    munmap(memory, bytes);
    return result;
}

int32_t rw_shm_create(uint32_t worker_count, uint32_t ring_bytes, uint32_t host_layout, uint64_t state_bytes) {
    if (state_bytes != 0 && (state_bytes < RW_STATE_BYTES_MIN || state_bytes > RW_STATE_BYTES_MAX)) return -EINVAL;
    const int32_t fd = rw_shm_make(worker_count, ring_bytes, host_layout, state_bytes);
    if (fd < 0 || state_bytes == 0) return fd;
    const int32_t result = make_state(fd, state_bytes);
    if (result == 0) return fd;
    close(fd);
    return result;
}

static int has_region(const struct rw_shm_header *shm) {
    return shm->state_bytes >= RW_STATE_BYTES_MIN && shm->state_bytes <= RW_STATE_BYTES_MAX;
}

struct rw_state *rw_state_open(struct rw_shm_header *shm) {
    if (shm == NULL || !has_region(shm)) return NULL;
    struct rw_state *state = malloc(sizeof *state);
    if (state != NULL) rw_state_lay_out(state, (uint8_t *)shm + shm->state_offset, shm->state_bytes);
    return state;
}

void rw_state_close(struct rw_state *state) { free(state); }

struct rw_state_name rw_state_name(const uint8_t *bytes, uint32_t count) {
    if (count == 0 || count > RW_TOPIC_BYTES_MAX) return (struct rw_state_name){.bytes = bytes};
    const uint64_t hash = rw_topics_hash(bytes, count);
    const int is_presence = count > 2 && bytes[0] == 0 && bytes[1] == 'p';
    const uint64_t home = is_presence ? rw_topics_hash(bytes + 2, count - 2) : hash;
    return (struct rw_state_name){
        .bytes = bytes, .count = count, .shard = (uint32_t)(home >> 32) % RW_STATE_SHARDS, .hash = hash};
}

uint64_t rw_state_changes(const struct rw_state *state, uint32_t shard) {
    assert(shard < RW_STATE_SHARDS);
    return atomic_load_explicit(&state->shards[shard].changes, memory_order_acquire);
}

void rw_state_usage(const struct rw_state *state, struct rw_topic_memory *out) {
    *out = (struct rw_topic_memory){.bytes = (uint64_t)state->block_count * RW_BLOCK_BYTES};
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++) {
        const struct rw_shard *shard = &state->shards[i];
        const uint32_t owned = __atomic_load_n(&shard->owned, __ATOMIC_RELAXED);
        const uint32_t unused = __atomic_load_n(&shard->free_count, __ATOMIC_RELAXED);
        if (owned > unused) out->used_bytes += (uint64_t)(owned - unused) * RW_BLOCK_BYTES;
        out->logs += __atomic_load_n(&shard->logs, __ATOMIC_RELAXED);
        out->evicted += __atomic_load_n(&shard->evicted, __ATOMIC_RELAXED);
        out->recovered += __atomic_load_n(&shard->recovered, __ATOMIC_RELAXED);
        out->damaged += __atomic_load_n(&shard->damaged, __ATOMIC_RELAXED);
    }
}

int32_t rw_shm_topic_memory(uint64_t address, struct rw_topic_memory *out) {
    struct rw_shm_header *shm = rw_shm_at(address);
    if (shm == NULL) return RW_ERR_ABI;
    if (!has_region(shm)) return RW_ERR_UNSUPPORTED;
    struct rw_state state;
    rw_state_lay_out(&state, (uint8_t *)shm + shm->state_offset, shm->state_bytes);
    rw_state_usage(&state, out);
    return RW_OK;
}
