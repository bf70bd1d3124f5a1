/* Fuzzes what a node remembers: the input is a program of appends, puts, resets, reads and sweeps, and, when its first
 * byte says so, of words of the shared memory that are overwritten in between.
 *
 * Beyond the sanitizers it checks: what is read is what was appended, nothing is found damaged that was not, everything
 * comes back when all is forgotten; and whatever lies in the memory, every call ends, and logs can be used again once a
 * shard was found damaged. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "fuzz_input.h"
#include "ringway.h"
#include "state/log.h"

enum { TOPICS = 4, OPS_MAX = 300, BUFFER = 70000 };

struct fuzz {
    struct rw_state *state;
    struct input *input;
    uint64_t now_ms;
    int is_corrupted;
};

static struct rw_state_name name_of(uint8_t topic) {
    static const char *const names[TOPICS] = {"a", "topic", "topic/with/a/name/that/is/not/so/short", "d"};
    static uint8_t presence[] = {0, 'p', 'a'};
    if (topic % 8 == 7) return rw_state_name(presence, sizeof presence);
    const char *text = names[topic % TOPICS];
    return rw_state_name((const uint8_t *)text, (uint32_t)strlen(text));
}

static uint32_t take_u32(struct input *input) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) value = value << 8 | take(input);
    return value;
}

/* Sizes around those of blocks, and some that are large. */
static uint32_t take_bytes(struct input *input) {
    const uint8_t what = take(input);
    if (what < 200) return what;
    return what < 250 ? 124u * (what - 199u) + 56u + take(input) % 3 : RW_LOG_COPY_BYTES_MAX + what - 252u;
}

static void fill(uint8_t *bytes, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) bytes[i] = (uint8_t)(i * 7u + count);
}

static uint8_t payload[BUFFER];

static void append(struct fuzz *fuzz, const struct rw_state_name *name) {
    static uint8_t key_bytes[RW_LOG_KEY_BYTES_MAX] = {'k'};
    const struct rw_log_limits limits = {1u + take(fuzz->input) % 40u, 1u + take(fuzz->input)};
    const uint8_t what = take(fuzz->input);
    const struct rw_log_key key = {key_bytes, (what & 7u) * 140u, what >> 3};
    const struct rw_log_entry entry = {.bytes = take_bytes(fuzz->input), .flags = what, .payload = payload};
    struct rw_position position;
    int duplicate;
    fill(payload, entry.bytes);
    const int32_t result =
        rw_log_append(fuzz->state, name, &entry, what & 7 ? &key : NULL, &limits, fuzz->now_ms, &position, &duplicate);
    CHECK(result == RW_OK || result == RW_ERR_FULL);
    CHECK(fuzz->is_corrupted || result == RW_OK);
    CHECK(fuzz->is_corrupted || (position.epoch != 0 && position.offset != 0));
}

static void put(struct fuzz *fuzz, const struct rw_state_name *name) {
    const struct rw_log_limits limits = {1u + take(fuzz->input) % 40u, 1u + take(fuzz->input)};
    struct rw_log_end end = {0};
    (void)rw_log_end(fuzz->state, name, fuzz->now_ms, &end);
    const struct rw_position position = {end.epoch, end.last + take(fuzz->input) % 4u};
    const struct rw_log_entry entry = {.bytes = take_bytes(fuzz->input), .payload = payload, .time_ms = fuzz->now_ms};
    fill(payload, entry.bytes);
    const int32_t result = rw_log_put(fuzz->state, name, position, &entry, &limits, fuzz->now_ms);
    CHECK(fuzz->is_corrupted || result >= 0 || result == RW_ERR_INVALID);
}

static void read_log(struct fuzz *fuzz, const struct rw_state_name *name) {
    struct rw_log_entry entries[32];
    const struct rw_log_query query = {.after = take(fuzz->input) & 1 ? take_u32(fuzz->input) : take(fuzz->input),
                                       .reverse = take(fuzz->input) & 1,
                                       .max = take(fuzz->input) % 33u};
    /* Exactly so large, so that a sanitizer sees what is written beside it. */
    const uint32_t room = take(fuzz->input) & 1 ? BUFFER : take_bytes(fuzz->input);
    uint8_t *buffer = malloc(room + 1u);
    struct rw_log_end end;
    uint64_t needed;
    const int32_t count = rw_log_read(fuzz->state, name, &query, fuzz->now_ms, entries, buffer, room, &end, &needed);
    CHECK(count <= (int32_t)query.max);
    for (int32_t i = 0; i < count; i++) {
        CHECK(entries[i].payload >= buffer && entries[i].payload + entries[i].bytes <= buffer + room);
        if (fuzz->is_corrupted) continue;
        fill(payload, entries[i].bytes);
        CHECK(memcmp(entries[i].payload, payload, entries[i].bytes) == 0);
        CHECK(entries[i].offset >= end.first && entries[i].offset <= end.last);
    }
    free(buffer);
}

/* Overwrite a word of a shard, of its index, or of a block. Never of mutexes, nor of what was noted but for its count:
 * what lies there is the C library's, or is judged by where it may point. */
static void corrupt(struct fuzz *fuzz, const struct rw_state_name *name) {
    struct rw_shard *shard = &fuzz->state->shards[name->shard];
    const uint8_t what = take(fuzz->input), where = take(fuzz->input), how = take(fuzz->input);
    uint32_t value = how & 1 ? take_u32(fuzz->input) : how < 40 ? 0 : how < 80 ? UINT32_MAX : take(fuzz->input);
    const rw_block first = name->shard * RW_CHUNK_BLOCKS + 1;
    if (how & 2) value = first + value % RW_CHUNK_BLOCKS;
    uint32_t *words;
    switch (what % 8) {
        case 0: words = (uint32_t *)(void *)((uint8_t *)shard + offsetof(struct rw_shard, free)) + where % 14; break;
        case 1: words = &rw_state_buckets(fuzz->state, name->shard)[where % fuzz->state->bucket_count]; break;
        case 2: words = &shard->loans[where % RW_LOANS].first + (where >> 4) % 3; break;
        case 3: shard->journal_count = value; return;
        default: {
            const rw_block block = first + (what >> 3) % 16u + (where & 0x80 ? 480u : 0u);
            words = (uint32_t *)(void *)(fuzz->state->blocks + (uint64_t)(block - 1) * RW_BLOCK_BYTES) + where % 32;
        }
    }
    *words = value;
}

static void step(struct fuzz *fuzz) {
    const uint8_t op = take(fuzz->input);
    const struct rw_state_name name = name_of(op >> 4);
    switch (op & 0x0F) {
        case 0:
        case 1:
        case 2:
        case 3: append(fuzz, &name); break;
        case 4:
        case 5: put(fuzz, &name); break;
        case 6:
        case 7:
        case 8: read_log(fuzz, &name); break;
        case 9: {
            const struct rw_position position = {1u + take(fuzz->input), take(fuzz->input)};
            (void)rw_log_reset(fuzz->state, &name, position, op >> 7, fuzz->now_ms);
            break;
        }
        case 10: (void)rw_log_forget(fuzz->state, &name); break;
        case 11: (void)rw_log_follow(fuzz->state, &name, op >> 7); break;
        case 12: fuzz->now_ms += (uint64_t)take(fuzz->input) * take(fuzz->input) * 100; break;
        case 13:
            for (uint32_t i = 0; i < RW_STATE_SHARDS / 4; i++) rw_logs_sweep(fuzz->state, fuzz->now_ms);
            break;
        default:
            if (fuzz->is_corrupted) corrupt(fuzz, &name);
            break;
    }
}

static void expect_nothing_left(struct fuzz *fuzz) {
    struct rw_topic_memory usage;
    for (uint8_t topic = 0; topic < 8; topic++) {
        const struct rw_state_name name = name_of(topic);
        (void)rw_log_forget(fuzz->state, &name);
    }
    for (uint32_t i = 0; i < 8 * RW_STATE_SHARDS; i++) rw_logs_sweep(fuzz->state, fuzz->now_ms);
    rw_state_usage(fuzz->state, &usage);
    CHECK(usage.damaged == 0 && usage.used_bytes == 0 && usage.logs == 0 && usage.recovered == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    const int32_t fd = rw_shm_create(1, 65536, 0, RW_STATE_BYTES_MIN);
    CHECK(fd >= 0);
    const uint64_t address = rw_shm_map(fd, 0);
    struct fuzz fuzz = {.state = rw_state_open(rw_shm_at(address)), .input = &input, .now_ms = 1700000000000ull};
    CHECK(fuzz.state != NULL);
    fuzz.is_corrupted = take(&input) & 1;
    for (uint32_t i = 0; i < OPS_MAX && input.at < input.end; i++) step(&fuzz);
    if (!fuzz.is_corrupted) expect_nothing_left(&fuzz);
    rw_state_close(fuzz.state);
    rw_shm_unmap(address);
    close(fd);
    return 0;
}
