/* Slab buffers by size class: one reservation of address space, carved upwards, recycled last-in first-out.
 *
 *   reservation  | data of class 0 | data of class 1 | ... | words of class 0 | words of class 1 | ...
 *   data         [buffer][buffer][buffer]|  not carved, readable  |  PROT_NONE ...
 *   words        one u32 per buffer: its reference count, or FREE_MARK | next free (index + 1)
 *
 * Class LARGE has its words in a growing array and, beside it, an array of {pointer, bytes}.
 *
 * Role: memory for bytes that wait. Up: connection, http, ws, topics. Down: mmap(2); malloc(3) for class LARGE only.
 * Invariants: words[i] is valid for i < carved; a word with FREE_MARK is on its class's free list, exactly once; any
 * other word is >= 1. The list lies in the words and never in the data, so that AddressSanitizer can watch freed data.
 *
 * Pages are made accessible step by step: PROT_NONE is not charged against the commit limit, so the big reservation
 * also works where vm.overcommit_memory is 2 (there MAP_NORESERVE is ignored), and only what is carved is charged. */
#include "base/buffers.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/limits.h"

#if defined(__SANITIZE_ADDRESS__)
#define RW_BUFFERS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RW_BUFFERS_ASAN 1
#endif
#endif
#ifdef RW_BUFFERS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

#define SLAB_CLASSES RW_BUFFER_LARGE
#define HANDLE_CLASSES 16u /* what 4 bits can say: those we do not have stay empty, and no index of theirs is carved */
#define INDEX_BITS 28u
#define INDEX_MASK ((1u << INDEX_BITS) - 1u)
#define FREE_MARK (1u << 31)
#define REFS_MAX (FREE_MARK - 1u)

#define CLASS_BYTES_MAX \
    ((size_t)8 << 30) /* 8 GiB of addresses a class: 2^27 buffers of 64 bytes, which 28 bits of index hold */
#define CLASS_BYTES_MIN ((size_t)2 << 20)   /* with less there is no point in starting */
#define DATA_STEP_BYTES ((size_t)1 << 20)   /* made accessible at once: 16 buffers of the largest class */
#define WORDS_STEP_BYTES ((size_t)64 << 10) /* a multiple of every page size there is */
#define LARGE_ENTRIES_FIRST 16u

static_assert(CLASS_BYTES_MAX / 64 < INDEX_MASK, "every index of the smallest class fits a handle");
static_assert(CLASS_BYTES_MIN % DATA_STEP_BYTES == 0, "a reservation is whole steps");

struct buffer_class {
    uint8_t *data;
    uint32_t *words;
    uint32_t free_head; /* index + 1; 0: none */
    uint32_t carved;    /* buffers ever handed out: indexes below it have a word */
    uint32_t ready;     /* buffers whose data and word are accessible */
    uint32_t capacity;
    /* two counters that only grow: one written by both sides would chain every release to the acquire before it */
    uint64_t acquires;
    uint64_t releases;
    size_t words_ready_bytes; /* counted from the beginning of the class's words in the reservation */
} __attribute__((
    aligned(RW_CACHE_LINE_BYTES))); /* one cache line: acquire and release touch it, a word, and nothing else */

struct large_data {
    uint8_t *data;
    size_t bytes;
};

struct rw_buffers {
    struct buffer_class classes[HANDLE_CLASSES];
    struct large_data *large; /* [classes[RW_BUFFER_LARGE].ready] */
    uint8_t *reservation;
    size_t reservation_bytes;
};

static inline uint32_t class_shift(uint32_t class_index) { return 6u + 2u * class_index; }

/* 64 = 2^6, and every class is 4 times the one before. ret: RW_BUFFER_LARGE or more for what fits no slab */
static inline uint32_t class_of(size_t bytes) {
    uint32_t bits = 64u - (uint32_t)__builtin_clzll(((unsigned long long)bytes - 1u) | 63u);
    return (bits - 5u) / 2u;
}

static inline uint8_t *slab_data(const struct rw_buffers *buffers, uint32_t class_index, uint32_t index) {
    return buffers->classes[class_index].data + ((size_t)index << class_shift(class_index));
}

static size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

/* Words do not begin where their page begins: the warmest buffers, which have the lowest indexes, do, and a store to
 * one address delays a load from another that is the same modulo 4 KiB. */
static size_t words_offset(uint32_t class_index) { return 2048u + RW_CACHE_LINE_BYTES * class_index; }

static size_t words_bytes(uint32_t class_index, size_t class_bytes) {
    return round_up(words_offset(class_index) + (class_bytes >> class_shift(class_index)) * sizeof(uint32_t),
                    WORDS_STEP_BYTES);
}

static uint64_t used(const struct buffer_class *class) { return class->acquires - class->releases; }

/* Reserve class_bytes of data addresses for each class, and words for them. ret: 0, or -1 with errno set */
static int reserve(struct rw_buffers *buffers, size_t class_bytes) {
    size_t total = class_bytes * SLAB_CLASSES;
    for (uint32_t i = 0; i < SLAB_CLASSES; i++) total += words_bytes(i, class_bytes);
    void *base = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return -1;
    /* One small buffer must cost one small page. Advice: a kernel without huge pages says EINVAL. */
    (void)madvise(base, total, MADV_NOHUGEPAGE);
    buffers->reservation = base;
    buffers->reservation_bytes = total;
    uint8_t *words = buffers->reservation + class_bytes * SLAB_CLASSES;
    for (uint32_t i = 0; i < SLAB_CLASSES; i++) {
        struct buffer_class *class = &buffers->classes[i];
        class->data = buffers->reservation + class_bytes * i;
        class->words = (uint32_t *)(void *)(words + words_offset(i));
        class->capacity = (uint32_t)(class_bytes >> class_shift(i));
        words += words_bytes(i, class_bytes);
    }
    return 0;
}

struct rw_buffers *rw_buffers_create(void) {
    struct rw_buffers *buffers = aligned_alloc(RW_CACHE_LINE_BYTES, sizeof *buffers);
    if (buffers == NULL) return NULL;
    memset(buffers, 0, sizeof *buffers);
    /* RLIMIT_AS counts addresses: take less, in steps of 8, where it forbids the full range. */
    for (size_t class_bytes = CLASS_BYTES_MAX; class_bytes >= CLASS_BYTES_MIN; class_bytes /= 8) {
        if (reserve(buffers, class_bytes) == 0) return buffers;
    }
    int saved = errno;
    free(buffers);
    errno = saved;
    return NULL;
}

void rw_buffers_destroy(struct rw_buffers *buffers, int force) {
    if (buffers == NULL) return;
    for (uint32_t i = 0; i < SLAB_CLASSES; i++) {
        struct buffer_class *class = &buffers->classes[i];
        assert((force || used(class) == 0) && "a buffer was not released");
        /* The addresses may be mapped again for something else, which must not find our poison. */
        ASAN_UNPOISON_MEMORY_REGION(class->data, (size_t)class->ready << class_shift(i));
    }
    struct buffer_class *large = &buffers->classes[RW_BUFFER_LARGE];
    assert((force || used(large) == 0) && "a large buffer was not released");
    for (uint32_t i = 0; i < large->carved; i++) free(buffers->large[i].data);
    free(buffers->large);
    free(large->words);
    munmap(buffers->reservation, buffers->reservation_bytes);
    free(buffers);
}

/* Make the next step of a class accessible. ret: 1, or 0 when the range or the memory is exhausted */
static int class_extend(struct buffer_class *class, uint32_t class_index) {
    uint32_t step = (uint32_t)(DATA_STEP_BYTES >> class_shift(class_index));
    if (class->capacity - class->ready < step) return 0;
    size_t words_needed =
        round_up(words_offset(class_index) + ((size_t)class->ready + step) * sizeof(uint32_t), WORDS_STEP_BYTES);
    if (words_needed > class->words_ready_bytes) {
        uint8_t *from = (uint8_t *)class->words - words_offset(class_index) + class->words_ready_bytes;
        if (mprotect(from, words_needed - class->words_ready_bytes, PROT_READ | PROT_WRITE) != 0) return 0;
        class->words_ready_bytes = words_needed;
    }
    uint8_t *data = class->data + ((size_t)class->ready << class_shift(class_index));
    if (mprotect(data, DATA_STEP_BYTES, PROT_READ | PROT_WRITE) != 0) return 0;
    ASAN_POISON_MEMORY_REGION(data, DATA_STEP_BYTES);
    class->ready += step;
    return 1;
}

/* Room for one more large buffer. ret: 1, or 0 when memory is exhausted */
static int large_extend(struct rw_buffers *buffers) {
    struct buffer_class *class = &buffers->classes[RW_BUFFER_LARGE];
    uint32_t ready = class->ready == 0 ? LARGE_ENTRIES_FIRST : class->ready * 2u;
    if (ready > INDEX_MASK) return 0;
    struct large_data *large = realloc(buffers->large, ready * sizeof *large);
    if (large == NULL) return 0;
    buffers->large = large;
    uint32_t *words = realloc(class->words, ready * sizeof *words);
    if (words == NULL) return 0;
    class->words = words;
    class->ready = ready;
    return 1;
}

/* An index with its word set to one reference. ret: 1, or 0 when the class is exhausted */
static inline int index_acquire(struct rw_buffers *buffers, uint32_t class_index, uint32_t *index) {
    struct buffer_class *class = &buffers->classes[class_index];
    if (class->free_head != 0) {
        *index = class->free_head - 1u;
        class->free_head = class->words[*index] & ~FREE_MARK;
    } else {
        if (class->carved == class->ready &&
            !(class_index == RW_BUFFER_LARGE ? large_extend(buffers) : class_extend(class, class_index)))
            return 0;
        *index = class->carved++;
    }
    class->words[*index] = 1;
    class->acquires++;
    return 1;
}

static inline void index_release(struct buffer_class *class, uint32_t index) {
    class->words[index] = FREE_MARK | class->free_head;
    class->free_head = index + 1u;
    class->releases++;
}

static __attribute__((noinline)) rw_buffer large_acquire(struct rw_buffers *buffers, size_t bytes) {
    uint8_t *data = malloc(bytes);
    if (data == NULL) return RW_BUFFER_NONE;
    uint32_t index;
    if (!index_acquire(buffers, RW_BUFFER_LARGE, &index)) {
        free(data);
        return RW_BUFFER_NONE;
    }
    buffers->large[index] = (struct large_data){.data = data, .bytes = bytes};
    return RW_BUFFER_LARGE << INDEX_BITS | (index + 1u);
}

static __attribute__((noinline)) void large_release(struct rw_buffers *buffers, uint32_t index) {
    free(buffers->large[index].data);
    buffers->large[index] = (struct large_data){0};
    index_release(&buffers->classes[RW_BUFFER_LARGE], index);
}

rw_buffer rw_buffers_acquire(struct rw_buffers *buffers, size_t bytes) {
    assert(bytes > 0);
    uint32_t class_index = class_of(bytes);
    if (class_index >= RW_BUFFER_LARGE) return large_acquire(buffers, bytes);
    uint32_t index;
    if (!index_acquire(buffers, class_index, &index)) return RW_BUFFER_NONE;
    ASAN_UNPOISON_MEMORY_REGION(slab_data(buffers, class_index, index), (size_t)1 << class_shift(class_index));
    return class_index << INDEX_BITS | (index + 1u);
}

size_t rw_buffers_capacity_for(size_t bytes) {
    uint32_t class_index = class_of(bytes);
    return class_index >= RW_BUFFER_LARGE ? bytes : (size_t)1 << class_shift(class_index);
}

static inline uint32_t handle_class(rw_buffer buffer) { return buffer >> INDEX_BITS; }

/* RW_BUFFER_NONE wraps to an index that no class has carved. */
static inline uint32_t handle_index(rw_buffer buffer) { return (buffer & INDEX_MASK) - 1u; }

static inline uint32_t *word_of(const struct rw_buffers *buffers, rw_buffer buffer) {
    const struct buffer_class *class = &buffers->classes[handle_class(buffer)];
    assert(handle_index(buffer) < class->carved && "not a handle");
    uint32_t *word = &class->words[handle_index(buffer)];
    assert((*word & FREE_MARK) == 0 && "the buffer is free");
    return word;
}

void rw_buffers_retain(struct rw_buffers *buffers, rw_buffer buffer, uint32_t count) {
    uint32_t *word = word_of(buffers, buffer);
    assert(count <= REFS_MAX - *word && "too many references");
    *word += count;
}

void rw_buffers_release(struct rw_buffers *buffers, rw_buffer buffer) {
    uint32_t *word = word_of(buffers, buffer);
    if (--*word != 0) return;
    uint32_t class_index = handle_class(buffer);
    uint32_t index = handle_index(buffer);
    if (class_index == RW_BUFFER_LARGE) {
        large_release(buffers, index);
        return;
    }
    ASAN_POISON_MEMORY_REGION(slab_data(buffers, class_index, index), (size_t)1 << class_shift(class_index));
    index_release(&buffers->classes[class_index], index);
}

uint32_t rw_buffers_refs(const struct rw_buffers *buffers, rw_buffer buffer) { return *word_of(buffers, buffer); }

uint8_t *rw_buffers_data(const struct rw_buffers *buffers, rw_buffer buffer) {
    (void)word_of(buffers, buffer);
    uint32_t class_index = handle_class(buffer);
    uint32_t index = handle_index(buffer);
    return class_index == RW_BUFFER_LARGE ? buffers->large[index].data : slab_data(buffers, class_index, index);
}

size_t rw_buffers_capacity(const struct rw_buffers *buffers, rw_buffer buffer) {
    (void)word_of(buffers, buffer);
    uint32_t class_index = handle_class(buffer);
    return class_index == RW_BUFFER_LARGE ? buffers->large[handle_index(buffer)].bytes
                                          : (size_t)1 << class_shift(class_index);
}

struct rw_buffer_class_stats rw_buffers_stats(const struct rw_buffers *buffers, uint32_t class_index) {
    assert(class_index < RW_BUFFER_CLASSES);
    const struct buffer_class *class = &buffers->classes[class_index];
    return (struct rw_buffer_class_stats){.used = used(class),
                                          .carved = class_index == RW_BUFFER_LARGE ? class->acquires : class->carved};
}
