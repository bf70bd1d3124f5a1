/* Memory that ends where nothing may be read: the last byte lies against a page without access, so a read or write
 * past the end is a fault in every build, also one that no sanitizer instruments. */
#ifndef RW_TEST_GUARD_PAGE_H
#define RW_TEST_GUARD_PAGE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard_page {
    uint8_t *map;
    uint8_t *end; /* first byte that may not be touched */
    size_t map_bytes;
};

/* Room for at least `bytes` before the guard. */
static inline struct guard_page guard_page_create(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t body = (bytes + page - 1) / page * page;
    struct guard_page guard = {.map_bytes = body + page};
    void *map = mmap(NULL, guard.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert(map != MAP_FAILED);
    guard.map = map;
    guard.end = guard.map + body;
    assert(mprotect(guard.end, page, PROT_NONE) == 0);
    return guard;
}

/* A copy of from[0..len) whose end is the guard. Valid until the next copy. */
static inline uint8_t *guard_page_copy(const struct guard_page *guard, const void *from, size_t len) {
    assert(len <= (size_t)(guard->end - guard->map));
    uint8_t *to = guard->end - len;
    if (len > 0) memcpy(to, from, len);
    return to;
}

static inline void guard_page_destroy(struct guard_page *guard) {
    assert(munmap(guard->map, guard->map_bytes) == 0);
    guard->map = NULL;
}

#endif
