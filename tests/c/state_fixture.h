/* A region of what a node remembers, and logs in it, for tests. */
#ifndef RW_STATE_FIXTURE_H
#define RW_STATE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ringway.h"
#include "state/arena.h"
#include "state/logs.h"
#include "state/shard.h"

struct memory {
    int32_t fd;
    uint64_t address;
    struct rw_state *state;
};

static inline struct memory memory_open(uint64_t bytes) {
    struct memory memory = {.fd = rw_shm_create(1, 65536, 0, bytes)};
    assert_true(memory.fd >= 0);
    memory.address = rw_shm_map(memory.fd, 0);
    assert_int_not_equal(memory.address, 0);
    memory.state = rw_state_open(rw_shm_at(memory.address));
    assert_non_null(memory.state);
    return memory;
}

static inline void memory_close(struct memory *memory) {
    rw_state_close(memory->state);
    rw_shm_unmap(memory->address);
    close(memory->fd);
}

static inline struct rw_state_name named(const char *text) {
    return rw_state_name((const uint8_t *)text, (uint32_t)strlen(text));
}

static inline struct rw_log_entry text_entry(const char *text) {
    return (struct rw_log_entry){.bytes = (uint32_t)strlen(text), .payload = (const uint8_t *)text};
}

static inline uint64_t used_blocks(const struct rw_state *state) {
    struct rw_topic_memory usage;
    rw_state_usage(state, &usage);
    return usage.used_bytes / RW_BLOCK_BYTES;
}

/* How many blocks lie in a chain. */
static inline uint32_t chain_length(struct rw_tx *tx, rw_block block, uint32_t most) {
    uint32_t count = 0;
    for (; block != 0; count++) {
        assert_true(count < most);
        const struct rw_block_at *at = rw_block_at(tx, block);
        assert_non_null(at);
        block = at->next;
    }
    return count;
}

#endif
