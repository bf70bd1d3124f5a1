/* Random operations on logs against a model that keeps everything in arrays. */
#include "state_check.h"

#include "seeds.h"

#define TOPICS 6u
#define STEPS 1500u
#define ENTRIES_MAX 4000u
#define KEYS 12u
#define PAYLOAD_MAX 3000u

struct model_entry {
    uint64_t time_ms;
    uint32_t flags, bytes, seed;
};

struct model_log {
    int is_there, is_followed;
    uint64_t epoch, last, first; /* first: trimmed by number, or seen to be expired */
    uint64_t last_ms;
    uint32_t seconds;
    struct model_entry entries[ENTRIES_MAX]; /* [offset - base] */
    uint64_t base;
    struct {
        uint64_t offset, expires_ms; /* offset 0: none */
    } keys[KEYS];
};

static struct model_log logs[TOPICS];
static uint64_t now_ms, random_state;
static struct memory memory;
static uint8_t payload[PAYLOAD_MAX];

static uint32_t random_below(uint32_t limit) {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % limit;
}

static void fill(uint8_t *bytes, uint32_t count, uint32_t seed) {
    for (uint32_t i = 0; i < count; i++) bytes[i] = (uint8_t)((i * 31u + seed * 7u) ^ seed >> 8);
}

static struct rw_state_name topic_name(uint32_t topic) {
    static char text[200];
    int count = snprintf(text, sizeof text, "topic %u", topic);
    for (; topic % 3 == 2 && count < 180; count++) text[count] = 'x';
    return rw_state_name((const uint8_t *)text, (uint32_t)count);
}

static struct model_entry *entry_of(struct model_log *log, uint64_t offset) {
    return &log->entries[offset - log->base];
}

static void model_expire(struct model_log *log) {
    while (log->first <= log->last && entry_of(log, log->first)->time_ms + (uint64_t)log->seconds * 1000 <= now_ms)
        log->first++;
}

static void model_add(struct model_log *log, struct model_entry entry, const struct rw_log_limits *limits) {
    if (entry.time_ms < log->last_ms) entry.time_ms = log->last_ms;
    log->last_ms = entry.time_ms;
    log->last++;
    *entry_of(log, log->last) = entry;
    log->seconds = limits->seconds;
    if (log->last + 1 - log->first > limits->size) log->first = log->last - limits->size + 1;
    model_expire(log);
}

static struct rw_log_limits random_limits(void) {
    return (struct rw_log_limits){1 + random_below(random_below(4) == 0 ? 5 : 300), 1 + random_below(60)};
}

static struct model_entry random_entry(struct rw_log_entry *entry) {
    const struct model_entry model = {.flags = random_below(8),
                                      .bytes = random_below(random_below(8) == 0 ? PAYLOAD_MAX : 200),
                                      .seed = random_below(1u << 30)};
    fill(payload, model.bytes, model.seed);
    *entry = (struct rw_log_entry){.flags = model.flags, .bytes = model.bytes, .payload = payload};
    return model;
}

static void do_append(uint32_t topic) {
    struct model_log *log = &logs[topic];
    struct rw_log_entry entry;
    struct model_entry model = random_entry(&entry);
    const struct rw_log_limits limits = random_limits();
    const uint32_t number = random_below(2 * KEYS);
    const uint32_t seconds = 1 + random_below(40);
    char text[8];
    const struct rw_log_key key = {(const uint8_t *)text, (uint32_t)snprintf(text, sizeof text, "key %u", number),
                                   seconds};
    const struct rw_state_name name = topic_name(topic);
    struct rw_position position;
    int duplicate;
    assert_int_equal(
        rw_log_append(memory.state, &name, &entry, number < KEYS ? &key : NULL, &limits, now_ms, &position, &duplicate),
        RW_OK);
    if (!log->is_there) {
        memset(log, 0, sizeof *log);
        *log = (struct model_log){.is_there = 1, .epoch = position.epoch, .first = 1, .base = 1};
    }
    assert_int_equal(position.epoch, log->epoch);
    const int known = number < KEYS && log->keys[number].offset != 0 && log->keys[number].expires_ms > now_ms;
    assert_int_equal(duplicate, known);
    if (known) {
        assert_int_equal(position.offset, log->keys[number].offset);
        return;
    }
    model.time_ms = now_ms;
    model_expire(log);
    model_add(log, model, &limits);
    assert_int_equal(position.offset, log->last);
    if (number < KEYS) {
        log->keys[number].offset = position.offset;
        log->keys[number].expires_ms = now_ms + seconds * 1000ull;
    }
}

static void do_put(uint32_t topic) {
    struct model_log *log = &logs[topic];
    struct rw_log_entry entry;
    struct model_entry model = random_entry(&entry);
    const struct rw_log_limits limits = random_limits();
    entry.time_ms = model.time_ms = now_ms - random_below(20000);
    const struct rw_position position = {log->epoch + (random_below(8) == 0 ? 1 : 0),
                                         1 + log->last + random_below(3) - random_below(log->last > 1 ? 2 : 1)};
    if (position.epoch == 0 || position.offset == 0) return;
    const struct rw_state_name name = topic_name(topic);
    enum rw_log_put expected = RW_LOG_TAKEN;
    if (!log->is_there || position.epoch != log->epoch) expected = RW_LOG_EPOCH;
    else if (position.offset <= log->last) expected = RW_LOG_OLD;
    else if (position.offset > log->last + 1) expected = RW_LOG_GAP;
    assert_int_equal(rw_log_put(memory.state, &name, position, &entry, &limits, now_ms), expected);
    if (log->is_there) model_expire(log);
    if (expected == RW_LOG_TAKEN) model_add(log, model, &limits);
}

static void do_reset(uint32_t topic) {
    struct model_log *log = &logs[topic];
    const int is_same = log->is_there && random_below(2);
    const struct rw_position position = {is_same ? log->epoch : 1 + random_below(1000),
                                         is_same ? log->last : random_below(500)};
    const int is_followed = (int)random_below(2);
    const struct rw_state_name name = topic_name(topic);
    assert_int_equal(rw_log_reset(memory.state, &name, position, is_followed, now_ms), RW_OK);
    if (!log->is_there || position.epoch != log->epoch || position.offset != log->last) {
        const uint32_t seconds = log->is_there ? log->seconds : 0;
        memset(log, 0, sizeof *log);
        log->is_there = 1;
        log->epoch = position.epoch;
        log->last = position.offset;
        log->first = log->base = position.offset + 1;
        log->seconds = seconds;
    }
    log->is_followed = is_followed;
}

static void expect_end(struct model_log *log, const struct rw_log_end *end) {
    assert_int_equal(end->epoch, log->epoch);
    assert_int_equal(end->last, log->last);
    assert_int_equal(end->first, log->first);
    assert_int_equal(end->is_followed, log->is_followed);
}

static void do_read(uint32_t topic) {
    static struct rw_log_entry entries[500];
    static uint8_t buffer[200000];
    static uint8_t expected[PAYLOAD_MAX];
    struct model_log *log = &logs[topic];
    const struct rw_state_name name = topic_name(topic);
    struct rw_log_query query = {.max = random_below(500), .reverse = random_below(2)};
    query.after =
        random_below(4) == 0 ? 0 : log->last + 3 - random_below((uint32_t)(log->last < 600 ? log->last : 600) + 3);
    if (random_below(3) == 0) query.epoch = log->epoch + (random_below(4) == 0);
    const uint64_t room = random_below(5) == 0 ? random_below(PAYLOAD_MAX) : sizeof buffer;
    struct rw_log_end end;
    uint64_t needed;
    const int32_t count = rw_log_read(memory.state, &name, &query, now_ms, entries, buffer, room, &end, &needed);
    if (!log->is_there) {
        assert_int_equal(count, RW_ERR_STALE);
        return;
    }
    model_expire(log);
    expect_end(log, &end);
    assert_true(count >= 0);
    uint64_t offset = query.reverse ? (query.after == 0 || query.after > log->last ? log->last : query.after - 1)
                                    : (query.after + 1 < log->first ? log->first : query.after + 1);
    for (int32_t i = 0; i < count; i++) {
        const struct model_entry *model = entry_of(log, offset);
        assert_true(offset >= log->first && offset <= log->last);
        assert_int_equal(entries[i].offset, offset);
        assert_int_equal(entries[i].time_ms, model->time_ms);
        assert_int_equal(entries[i].flags, model->flags);
        assert_int_equal(entries[i].bytes, model->bytes);
        fill(expected, model->bytes, model->seed);
        assert_memory_equal(entries[i].payload, expected, model->bytes);
        offset += query.reverse ? (uint64_t)-1 : 1;
    }
    /* It ended where it says. */
    const int is_other = query.epoch != 0 && query.epoch != log->epoch;
    if (is_other || (uint32_t)count == query.max || offset < log->first || offset > log->last) {
        assert_int_equal(needed, 0);
        assert_true(!is_other || count == 0);
    } else if (count == 0) {
        assert_int_equal(needed, entry_of(log, offset)->bytes);
        assert_true(needed > room);
    } else {
        assert_true(entries[count - 1].payload + entries[count - 1].bytes + entry_of(log, offset)->bytes + 8 >
                    buffer + room);
    }
}

static void do_end(uint32_t topic) {
    struct model_log *log = &logs[topic];
    const struct rw_state_name name = topic_name(topic);
    struct rw_log_end end;
    assert_int_equal(rw_log_end(memory.state, &name, now_ms, &end), log->is_there);
    if (!log->is_there) return;
    model_expire(log);
    expect_end(log, &end);
}

static void do_forget(uint32_t topic) {
    const struct rw_state_name name = topic_name(topic);
    assert_int_equal(rw_log_forget(memory.state, &name), logs[topic].is_there);
    memset(&logs[topic], 0, sizeof logs[topic]);
}

static void step(void) {
    const uint32_t topic = random_below(TOPICS);
    now_ms += random_below(4) == 0 ? random_below(random_below(10) == 0 ? 30000 : 500) : 0;
    if (logs[topic].is_there && logs[topic].last - logs[topic].base > ENTRIES_MAX - 10) do_forget(topic);
    switch (random_below(24)) {
        case 0: do_reset(topic); break;
        case 1: do_forget(random_below(4) == 0 ? topic : 0); break;
        case 2: rw_logs_sweep(memory.state, now_ms); break;
        case 3:
        case 4:
        case 5: do_put(topic); break;
        case 6:
        case 7: do_end(topic); break;
        case 8:
        case 9:
        case 10:
        case 11: do_read(topic); break;
        default: do_append(topic); break;
    }
}

static void run_seed(uint64_t seed) {
    random_state = seed;
    now_ms = 1700000000000ull;
    memset(logs, 0, sizeof logs);
    memory = memory_open(RW_STATE_BYTES_MIN);
    for (uint32_t i = 0; i < STEPS; i++) {
        step();
        if (i % 100 == 0) check_state(memory.state);
    }
    check_state(memory.state);
    struct rw_topic_memory usage;
    rw_state_usage(memory.state, &usage);
    assert_int_equal(usage.damaged + usage.recovered + usage.evicted, 0);
    for (uint32_t i = 0; i < TOPICS; i++) do_forget(i);
    for (uint32_t i = 0; i < 4 * RW_STATE_SHARDS; i++) rw_logs_sweep(memory.state, now_ms);
    assert_int_equal(used_blocks(memory.state), 0);
    memory_close(&memory);
}

static void test_logs_are_what_a_simple_model_says(void **state) {
    (void)state;
    run_seeds(40, run_seed);
}

/* ------------------------------------------------------------------ without room */

#define CROWD 120u
#define CROWD_LARGEST 150000u
#define CROWD_ENTRIES 4096u

static struct {
    uint64_t epoch, last;
    uint32_t seeds[CROWD_ENTRIES], bytes[CROWD_ENTRIES]; /* by offset in the present epoch */
} crowd[CROWD];

static struct rw_state_name crowd_name(uint32_t topic) {
    static char text[16];
    return rw_state_name((const uint8_t *)text, (uint32_t)snprintf(text, sizeof text, "crowd %u", topic));
}

static void crowd_append(uint32_t topic, uint32_t *begun, uint32_t *refused) {
    static uint8_t large[CROWD_LARGEST];
    const struct rw_state_name name = crowd_name(topic);
    const struct rw_log_limits limits = {1 + random_below(200), 1000000};
    const uint32_t seed = random_below(1u << 30);
    const uint32_t bytes = random_below(6) == 0 ? random_below(CROWD_LARGEST) : random_below(3000);
    const struct rw_log_key key = {(const uint8_t *)&seed, sizeof seed, 20};
    fill(large, bytes, seed);
    const struct rw_log_entry entry = {.bytes = bytes, .payload = large};
    struct rw_position position;
    const int32_t result =
        rw_log_append(memory.state, &name, &entry, random_below(3) ? NULL : &key, &limits, now_ms, &position, NULL);
    if (result == RW_ERR_FULL) {
        ++*refused;
        return;
    }
    assert_int_equal(result, RW_OK);
    if (position.epoch != crowd[topic].epoch) {
        if (crowd[topic].epoch != 0) ++*begun;
        assert_int_equal(position.offset, 1);
        crowd[topic].epoch = position.epoch;
        crowd[topic].last = 0;
    }
    assert_int_equal(position.offset, ++crowd[topic].last);
    crowd[topic].seeds[position.offset % CROWD_ENTRIES] = seed;
    crowd[topic].bytes[position.offset % CROWD_ENTRIES] = bytes;
}

/* Whatever is kept is what was appended, up to the last. */
static void crowd_read(uint32_t topic) {
    static struct rw_log_entry entries[200];
    static uint8_t buffer[1000000], expected[CROWD_LARGEST];
    const struct rw_state_name name = crowd_name(topic);
    const struct rw_log_query query = {.max = 200, .reverse = 1};
    struct rw_log_end end;
    const int32_t count = rw_log_read(memory.state, &name, &query, now_ms, entries, buffer, sizeof buffer, &end, NULL);
    if (count == RW_ERR_STALE) return;
    assert_true(count >= 0);
    assert_int_equal(end.epoch, crowd[topic].epoch);
    assert_int_equal(end.last, crowd[topic].last);
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(entries[i].offset, end.last - (uint64_t)i);
        const uint32_t at = entries[i].offset % CROWD_ENTRIES;
        assert_int_equal(entries[i].bytes, crowd[topic].bytes[at]);
        fill(expected, entries[i].bytes, crowd[topic].seeds[at]);
        assert_memory_equal(entries[i].payload, expected, entries[i].bytes);
    }
}

static void run_crowd(uint64_t seed) {
    random_state = seed;
    now_ms = 1700000000000ull;
    memset(crowd, 0, sizeof crowd);
    memory = memory_open(RW_STATE_BYTES_MIN);
    uint32_t begun = 0, refused = 0;
    for (uint32_t i = 0; i < 1500; i++) {
        /* Some are used more than others. */
        const uint32_t topic = random_below(1 + random_below(CROWD));
        now_ms += random_below(20);
        if (random_below(4) == 0) crowd_read(topic);
        else if (random_below(20) == 0) rw_logs_sweep(memory.state, now_ms);
        else crowd_append(topic, &begun, &refused);
        if (i % 250 == 0) check_state(memory.state);
    }
    check_state(memory.state);
    struct rw_topic_memory usage;
    rw_state_usage(memory.state, &usage);
    assert_int_equal(usage.damaged, 0);
    assert_true(usage.evicted > 0);
    assert_true(begun > 0 && begun <= usage.evicted);
    /* A message is refused only where a shard cannot have so much. */
    assert_true(refused < 200);
    memory_close(&memory);
}

static void test_without_room_logs_go_whole_and_begin_new_epochs(void **state) {
    (void)state;
    run_seeds(10, run_crowd);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_logs_are_what_a_simple_model_says),
                                       cmocka_unit_test(test_without_room_logs_go_whole_and_begin_new_epochs)};
    watch_seeds("logs_model_test");
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) say_seed();
    return failed;
}
