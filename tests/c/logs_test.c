/* Logs in one process: what is appended is read, within bounds of number, age and room. */
#include "state_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define NOW 1000000000000ull
static const struct rw_log_limits wide = {100000, 1000000};

static struct memory memory;

static int set_up(void **state) {
    (void)state;
    memory = memory_open(RW_STATE_BYTES_MIN);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    memory_close(&memory);
    return 0;
}

static struct rw_position append(const char *topic, const char *text, uint64_t now_ms) {
    const struct rw_state_name name = named(topic);
    const struct rw_log_entry entry = text_entry(text);
    struct rw_position position = {0};
    int duplicate = -1;
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, now_ms, &position, &duplicate), RW_OK);
    assert_int_equal(duplicate, 0);
    return position;
}

static struct rw_log_end end_of(const char *topic, uint64_t now_ms) {
    const struct rw_state_name name = named(topic);
    struct rw_log_end end = {0};
    assert_int_equal(rw_log_end(memory.state, &name, now_ms, &end), 1);
    return end;
}

static struct rw_log_entry entries[1000];
static uint8_t buffer[1 << 20];

static int32_t read_log(const char *topic, struct rw_log_query query, uint64_t now_ms, struct rw_log_end *end) {
    const struct rw_state_name name = named(topic);
    uint64_t needed;
    return rw_log_read(memory.state, &name, &query, now_ms, entries, buffer, sizeof buffer, end, &needed);
}

static void test_what_is_appended_is_read_in_both_directions(void **state) {
    (void)state;
    char text[32];
    uint64_t epoch = 0;
    for (uint32_t i = 1; i <= 300; i++) {
        snprintf(text, sizeof text, "message %u", i);
        const struct rw_position position = append("chat", text, NOW + i);
        assert_int_equal(position.offset, i);
        assert_true(i == 1 || position.epoch == epoch);
        epoch = position.epoch;
    }
    assert_int_not_equal(epoch, 0);
    struct rw_log_end end;
    for (uint64_t after = 0; after <= 300; after++) {
        const int32_t count = read_log("chat", (struct rw_log_query){.after = after, .max = 7}, NOW, &end);
        assert_int_equal(count, 300 - after < 7 ? 300 - after : 7);
        for (int32_t i = 0; i < count; i++) {
            snprintf(text, sizeof text, "message %u", (unsigned)after + 1 + (unsigned)i);
            assert_int_equal(entries[i].offset, after + 1 + (uint64_t)i);
            assert_int_equal(entries[i].time_ms, NOW + entries[i].offset);
            assert_int_equal(entries[i].bytes, strlen(text));
            assert_memory_equal(entries[i].payload, text, strlen(text));
        }
        const int32_t back = read_log("chat", (struct rw_log_query){.after = after, .max = 7, .reverse = 1}, NOW, &end);
        const uint64_t from = after == 0 ? 300 : after - 1;
        assert_int_equal(back, from < 7 ? from : 7);
        for (int32_t i = 0; i < back; i++) assert_int_equal(entries[i].offset, from - (uint64_t)i);
    }
    assert_int_equal(end.epoch, epoch);
    assert_int_equal(end.first, 1);
    assert_int_equal(end.last, 300);
    assert_int_equal(read_log("chat", (struct rw_log_query){.after = UINT64_MAX, .max = 7}, NOW, &end), 0);
    assert_int_equal(read_log("chat", (struct rw_log_query){.epoch = epoch + 1, .max = 7}, NOW, &end), 0);
    assert_int_equal(end.last, 300);
    assert_int_equal(read_log("nobody", (struct rw_log_query){.max = 7}, NOW, &end), RW_ERR_STALE);
}

static void test_the_oldest_go_by_number_and_by_age(void **state) {
    (void)state;
    const struct rw_state_name name = named("few");
    const struct rw_log_entry entry = text_entry("text");
    struct rw_log_limits limits = {10, 60};
    struct rw_position position;
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &limits, NOW + i * 1000, &position, NULL), 0);
    assert_int_equal(end_of("few", NOW + 99000).first, 91);
    const uint64_t used = used_blocks(memory.state);
    assert_int_equal(used, 1 + 10);
    /* Of the first minute after the last: those younger than 60 s. The 95th is of NOW + 94 s. */
    assert_int_equal(end_of("few", NOW + 94000 + 59999).first, 95);
    assert_int_equal(end_of("few", NOW + 94000 + 60000).first, 96);
    assert_int_equal(used_blocks(memory.state), 1 + 5);
    assert_int_equal(end_of("few", NOW + 1000000).first, 101);
    assert_int_equal(end_of("few", NOW + 1000000).last, 100);
    assert_int_equal(used_blocks(memory.state), 1);
    struct rw_log_end end;
    assert_int_equal(read_log("few", (struct rw_log_query){.max = 5}, NOW + 1000000, &end), 0);
    const uint64_t epoch = end.epoch;
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &limits, NOW + 1000000, &position, NULL), 0);
    assert_int_equal(position.offset, 101);
    assert_int_equal(position.epoch, epoch);
    /* A policy that has become smaller. */
    for (uint64_t i = 0; i < 9; i++)
        assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &limits, NOW + 1000000, &position, NULL), 0);
    limits.size = 2;
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &limits, NOW + 1000000, &position, NULL), 0);
    assert_int_equal(end_of("few", NOW + 1000000).first, position.offset - 1);
}

static void test_a_key_answers_the_first_position_until_it_expires(void **state) {
    (void)state;
    const struct rw_state_name name = named("keyed");
    const struct rw_log_entry entry = text_entry("text");
    uint8_t bytes[RW_LOG_KEY_BYTES_MAX];
    memset(bytes, 'k', sizeof bytes);
    struct rw_position position, again;
    int duplicate;
    for (uint32_t count = 1; count <= sizeof bytes; count += 93) {
        const struct rw_log_key key = {bytes, count, 10};
        assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW, &position, &duplicate), 0);
        assert_int_equal(duplicate, 0);
        assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW + 9999, &again, &duplicate), 0);
        assert_int_equal(duplicate, 1);
        assert_int_equal(again.offset, position.offset);
        assert_int_equal(again.epoch, position.epoch);
    }
    const uint64_t last = position.offset;
    const struct rw_log_key key = {bytes, 1, 10};
    assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW + 10000, &again, &duplicate), 0);
    assert_int_equal(duplicate, 0);
    assert_int_equal(again.offset, last + 1);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW + 10001, &again, &duplicate), 0);
    assert_int_equal(duplicate, 1);
    assert_int_equal(again.offset, last + 1);
    /* The same key on another topic is another key. */
    const struct rw_state_name other = named("keyed too");
    assert_int_equal(rw_log_append(memory.state, &other, &entry, &key, &wide, NOW + 10001, &again, &duplicate), 0);
    assert_int_equal(duplicate, 0);
    /* And none outlives its log. */
    assert_int_equal(rw_log_forget(memory.state, &name), 1);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW + 10002, &again, &duplicate), 0);
    assert_int_equal(duplicate, 0);
    assert_int_equal(again.offset, 1);
    assert_int_not_equal(again.epoch, position.epoch);
}

static void test_what_another_store_has_numbered_is_put_where_it_belongs(void **state) {
    (void)state;
    const struct rw_state_name name = named("put");
    const struct rw_log_entry entry = {
        .time_ms = NOW - 5000, .flags = 7, .bytes = 3, .payload = (const uint8_t *)"abc"};
    const struct rw_position at = {77, 41};
    assert_int_equal(rw_log_put(memory.state, &name, at, &entry, &wide, NOW), RW_LOG_EPOCH);
    assert_int_equal(rw_log_follow(memory.state, &name, 1), RW_ERR_STALE);
    assert_int_equal(rw_log_reset(memory.state, &name, (struct rw_position){77, 40}, 0, NOW), RW_OK);
    assert_int_equal(end_of("put", NOW).is_followed, 0);
    assert_int_equal(rw_log_put(memory.state, &name, (struct rw_position){77, 42}, &entry, &wide, NOW), RW_LOG_GAP);
    assert_int_equal(rw_log_put(memory.state, &name, at, &entry, &wide, NOW), RW_LOG_TAKEN);
    assert_int_equal(rw_log_put(memory.state, &name, at, &entry, &wide, NOW), RW_LOG_OLD);
    assert_int_equal(rw_log_put(memory.state, &name, (struct rw_position){77, 3}, &entry, &wide, NOW), RW_LOG_OLD);
    assert_int_equal(rw_log_put(memory.state, &name, (struct rw_position){78, 42}, &entry, &wide, NOW), RW_LOG_EPOCH);
    struct rw_log_end end;
    assert_int_equal(read_log("put", (struct rw_log_query){.epoch = 77, .max = 9}, NOW, &end), 1);
    assert_int_equal(entries[0].offset, 41);
    assert_int_equal(entries[0].time_ms, NOW - 5000);
    assert_int_equal(entries[0].flags, 7);
    assert_int_equal(end.first, 41);
    /* Where it stands already nothing is forgotten. */
    assert_int_equal(rw_log_reset(memory.state, &name, at, 1, NOW), RW_OK);
    end = end_of("put", NOW);
    assert_int_equal(end.first, 41);
    assert_int_equal(end.is_followed, 1);
    assert_int_equal(rw_log_follow(memory.state, &name, 0), RW_OK);
    assert_int_equal(end_of("put", NOW).is_followed, 0);
    assert_int_equal(rw_log_reset(memory.state, &name, (struct rw_position){78, 0}, 1, NOW), RW_OK);
    end = end_of("put", NOW);
    assert_int_equal(end.first, 1);
    assert_int_equal(end.last, 0);
    assert_int_equal(end.epoch, 78);
    assert_int_equal(used_blocks(memory.state), 1);
    assert_int_equal(rw_log_reset(memory.state, &name, (struct rw_position){0, 0}, 1, NOW), RW_ERR_INVALID);
    assert_int_equal(rw_log_put(memory.state, &name, (struct rw_position){78, 0}, &entry, &wide, NOW), RW_ERR_INVALID);
}

static void test_the_memory_of_a_log_comes_back_when_it_is_forgotten(void **state) {
    (void)state;
    const uint64_t before = used_blocks(memory.state);
    const struct rw_state_name name = named("a name that does not fit into the block of its log, since it is long");
    const struct rw_log_entry entry = text_entry("text");
    struct rw_position position;
    for (uint32_t i = 0; i < 500; i++) {
        char text[8];
        snprintf(text, sizeof text, "%u", i);
        const struct rw_log_key key = {(const uint8_t *)text, (uint32_t)strlen(text), 3};
        assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW, &position, NULL), RW_OK);
    }
    assert_int_equal(rw_log_forget(memory.state, &name), 1);
    assert_int_equal(rw_log_forget(memory.state, &name), 0);
    /* Its keys go in their own time. */
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++) rw_logs_sweep(memory.state, NOW);
    assert_int_equal(used_blocks(memory.state), before);
}

static void sweep_all(uint64_t now_ms) {
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++) rw_logs_sweep(memory.state, now_ms);
}

static void test_an_empty_log_keeps_its_epoch_for_an_hour_and_then_goes(void **state) {
    (void)state;
    const struct rw_state_name name = named("short");
    const struct rw_log_entry entry = text_entry("text");
    const struct rw_log_limits limits = {5, 2};
    struct rw_position first, position;
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &limits, NOW, &first, NULL), RW_OK);
    sweep_all(NOW + 3600 * 1000);
    assert_int_equal(used_blocks(memory.state), 1);
    assert_int_equal(end_of("short", NOW + 3600 * 1000).epoch, first.epoch);
    sweep_all(NOW + 3602 * 1000);
    assert_int_equal(used_blocks(memory.state), 0);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &limits, NOW + 3602 * 1000, &position, NULL), 0);
    assert_int_equal(position.offset, 1);
    assert_int_not_equal(position.epoch, first.epoch);
    /* Memory that nobody uses any more goes back to the kernel. */
    sweep_all(NOW + 9999 * 1000);
    sweep_all(NOW + 9999 * 1000);
    struct stat status;
    assert_int_equal(fstat(memory.fd, &status), 0);
    assert_true(status.st_blocks * 512 < 512 * 1024);
}

static void fill(uint8_t *bytes, uint64_t count, uint64_t seed) {
    for (uint64_t i = 0; i < count; i++) bytes[i] = (uint8_t)((i * 2654435761u + seed) >> 7);
}

static void test_large_payloads_are_whole(void **state) {
    (void)state;
    memory_close(&memory);
    memory = memory_open((uint64_t)64 << 20);
    static const uint32_t sizes[] = {0,     1,     55,    56,     57,     180,     181,
                                     65535, 65536, 65537, 262143, 262145, 1000000, 20000000};
    const uint32_t count = sizeof sizes / sizeof *sizes;
    uint8_t *bytes = malloc(20000000), *read = malloc(20000000);
    const struct rw_state_name name = named("large");
    for (uint32_t i = 0; i < count; i++) {
        fill(bytes, sizes[i], i);
        const struct rw_log_entry entry = {.bytes = sizes[i], .payload = bytes};
        struct rw_position position;
        assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW, &position, NULL), RW_OK);
        assert_int_equal(position.offset, i + 1);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct rw_log_end end;
        uint64_t needed = 0;
        const struct rw_log_query query = {.after = i, .max = 1};
        if (sizes[i] > 0) {
            assert_int_equal(rw_log_read(memory.state, &name, &query, NOW, entries, read, sizes[i] - 1, &end, &needed),
                             0);
            assert_int_equal(needed, sizes[i]);
        }
        assert_int_equal(rw_log_read(memory.state, &name, &query, NOW, entries, read, sizes[i], &end, &needed), 1);
        assert_int_equal(needed, 0);
        fill(bytes, sizes[i], i);
        assert_int_equal(entries[0].bytes, sizes[i]);
        assert_memory_equal(read, bytes, sizes[i]);
    }
    /* Twice the same key with a large payload: what was copied before is given back. */
    const struct rw_log_key key = {(const uint8_t *)"key", 3, 0};
    const struct rw_log_entry entry = {.bytes = 1000000, .payload = bytes};
    struct rw_position position;
    int duplicate;
    assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW, &position, &duplicate), RW_OK);
    const uint64_t used = used_blocks(memory.state);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW, &position, &duplicate), RW_OK);
    assert_int_equal(duplicate, 1);
    assert_int_equal(used_blocks(memory.state), used);
    free(bytes);
    free(read);
}

static void test_without_room_the_least_recently_used_log_goes(void **state) {
    (void)state;
    /* All in one shard: names are tried until they fall there. */
    const struct rw_state_name home = named("busy");
    char names[300][16];
    uint32_t count = 0;
    static uint8_t payload[20000];
    const struct rw_log_entry large = {.bytes = sizeof payload, .payload = payload};
    struct rw_position position;
    struct rw_topic_memory usage;
    uint64_t changes = rw_state_changes(memory.state, home.shard);
    for (uint32_t i = 0; count < 300; i++) {
        snprintf(names[count], sizeof names[count], "quiet %u", i);
        const struct rw_state_name name = named(names[count]);
        if (name.shard != home.shard) continue;
        assert_int_equal(rw_log_append(memory.state, &name, &large, NULL, &wide, NOW + count, &position, NULL), RW_OK);
        assert_int_equal(rw_state_changes(memory.state, home.shard), ++changes);
        count++;
        /* It is used all the time, so it stays. */
        append("busy", "still here", NOW + count);
        changes++;
    }
    rw_state_usage(memory.state, &usage);
    assert_true(usage.evicted > 50);
    assert_int_equal(usage.logs, 301 - usage.evicted);
    assert_int_equal(end_of("busy", NOW).last, 300);
    struct rw_log_end end;
    for (uint32_t i = 0; i < count; i++) {
        const struct rw_state_name name = named(names[i]);
        assert_int_equal(rw_log_end(memory.state, &name, NOW, &end), i >= usage.evicted);
    }
    /* Other shards have their share all the same. */
    for (uint32_t i = 0; i < 64; i++) {
        char text[16];
        snprintf(text, sizeof text, "other %u", i);
        if (named(text).shard != home.shard) append(text, "there is room", NOW);
    }
    struct rw_topic_memory after;
    rw_state_usage(memory.state, &after);
    assert_int_equal(after.evicted, usage.evicted);
}

static void test_a_log_that_has_most_of_a_shard_loses_its_own_oldest(void **state) {
    (void)state;
    static uint8_t payload[30000];
    const struct rw_log_entry large = {.bytes = sizeof payload, .payload = payload};
    const struct rw_state_name name = named("hog");
    struct rw_position position;
    char neighbour[16];
    for (uint32_t i = 0;; i++) {
        snprintf(neighbour, sizeof neighbour, "next %u", i);
        if (named(neighbour).shard == name.shard) break;
    }
    append(neighbour, "text", NOW);
    for (uint32_t i = 1; i <= 2000; i++) {
        assert_int_equal(rw_log_append(memory.state, &name, &large, NULL, &wide, NOW + i, &position, NULL), RW_OK);
        assert_int_equal(position.offset, i);
    }
    const struct rw_log_end end = end_of("hog", NOW + 2000);
    assert_true(end.first > 1800 && end.first < 1990);
    assert_int_equal(end_of(neighbour, NOW).last, 1);
    /* More than there is takes nothing from anybody. */
    uint8_t *huge = calloc(1, RW_STATE_BYTES_MIN);
    const struct rw_log_entry too_large = {.bytes = RW_STATE_BYTES_MIN, .payload = huge};
    assert_int_equal(rw_log_append(memory.state, &name, &too_large, NULL, &wide, NOW, &position, NULL), RW_ERR_FULL);
    assert_int_equal(end_of("hog", NOW + 2000).first, end.first);
    assert_int_equal(end_of(neighbour, NOW).last, 1);
    free(huge);
}

static void test_arguments_out_of_range_are_refused(void **state) {
    (void)state;
    const struct rw_state_name name = named("name");
    static const uint8_t long_name[RW_TOPIC_BYTES_MAX + 1] = {'n'};
    struct rw_state_name wrong = rw_state_name(long_name, sizeof long_name);
    struct rw_log_end end;
    const struct rw_log_query query = {.max = 1};
    assert_int_equal(rw_log_append(memory.state, &wrong, &(struct rw_log_entry){0}, NULL, &wide, NOW,
                                   &(struct rw_position){0}, NULL),
                     RW_ERR_INVALID);
    wrong = rw_state_name(long_name, 0);
    assert_int_equal(rw_log_end(memory.state, &wrong, NOW, &end), RW_ERR_INVALID);
    assert_int_equal(rw_log_reset(memory.state, &wrong, (struct rw_position){1, 0}, 0, NOW), RW_ERR_INVALID);
    assert_int_equal(rw_log_follow(memory.state, &wrong, 1), RW_ERR_INVALID);
    assert_int_equal(rw_log_forget(memory.state, &wrong), RW_ERR_INVALID);
    assert_int_equal(rw_log_read(memory.state, &wrong, &query, NOW, entries, buffer, sizeof buffer, &end, NULL),
                     RW_ERR_INVALID);
    const struct rw_log_entry entry = text_entry("text");
    struct rw_position position;
    const struct rw_log_limits none = {0, 1}, never = {1, 0};
    const struct rw_log_key key = {(const uint8_t *)"key", RW_LOG_KEY_BYTES_MAX + 1, 0};
    assert_int_equal(rw_log_append(memory.state, &wrong, &entry, NULL, &wide, NOW, &position, NULL), RW_ERR_INVALID);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &none, NOW, &position, NULL), RW_ERR_INVALID);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &never, NOW, &position, NULL), RW_ERR_INVALID);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, &key, &wide, NOW, &position, NULL), RW_ERR_INVALID);
    assert_int_equal(rw_shm_create(1, 65536, 0, RW_STATE_BYTES_MIN - 1), -EINVAL);
    assert_int_equal(rw_shm_create(1, 65536, 0, RW_STATE_BYTES_MAX + 1), -EINVAL);
    const int32_t fd = rw_shm_create(1, 65536, 0, 0);
    const uint64_t address = rw_shm_map(fd, 0);
    assert_null(rw_state_open(rw_shm_at(address)));
    rw_shm_unmap(address);
    close(fd);
}

static void test_a_presence_log_lies_beside_its_topic(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        uint8_t text[16] = {0, 'p'};
        const uint32_t count = (uint32_t)snprintf((char *)text + 2, sizeof text - 2, "t%u", i);
        assert_int_equal(rw_state_name(text, count + 2).shard, rw_state_name(text + 2, count).shard);
        assert_int_not_equal(rw_state_name(text, count + 2).hash, rw_state_name(text + 2, count).hash);
    }
}

static void test_a_region_costs_nothing_until_it_is_used(void **state) {
    (void)state;
    const int32_t fd = rw_shm_create(4, 65536, 0, (uint64_t)16 << 30);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_true(status.st_blocks * 512 <= 128 * 1024);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_appended_is_read_in_both_directions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_oldest_go_by_number_and_by_age, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_key_answers_the_first_position_until_it_expires, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_another_store_has_numbered_is_put_where_it_belongs, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_memory_of_a_log_comes_back_when_it_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_empty_log_keeps_its_epoch_for_an_hour_and_then_goes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_payloads_are_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_room_the_least_recently_used_log_goes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_log_that_has_most_of_a_shard_loses_its_own_oldest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_arguments_out_of_range_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_presence_log_lies_beside_its_topic, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_region_costs_nothing_until_it_is_used, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
