/* Transactions, blocks and the index of what a node remembers; dead and stopped holders; damage. */
#include "state_check.h"

#include "connection/core.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define NOW 1700000000000ull

static const struct rw_log_limits wide = {100000, 1000000};
static struct memory memory;

static int set_up(void **state) {
    (void)state;
    alarm(120);
    memory = memory_open(RW_STATE_BYTES_MIN);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    alarm(0);
    memory_close(&memory);
    return 0;
}

static struct rw_position append(const char *topic, const char *text) {
    const struct rw_state_name name = named(topic);
    const struct rw_log_entry entry = text_entry(text);
    struct rw_position position = {0};
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW, &position, NULL), RW_OK);
    return position;
}

static struct rw_topic_memory usage(void) {
    struct rw_topic_memory now;
    rw_state_usage(memory.state, &now);
    return now;
}

static void test_what_is_aborted_has_not_been(void **state) {
    (void)state;
    struct rw_tx tx;
    assert_int_equal(rw_tx_begin(memory.state, 3, &tx), RW_OK);
    assert_int_equal(rw_blocks_reserve(&tx, 10), RW_OK);
    uint32_t *words = rw_shard_words(&tx);
    RW_TX_SET(&tx, words[5], 55);
    rw_block last;
    const rw_block first = rw_blocks_take(&tx, 4, &last);
    assert_int_equal(chain_length(&tx, first, 10), 4);
    struct rw_block_at *block = rw_block_at(&tx, first);
    memset(block->data, 7, sizeof block->data);
    rw_tx_commit(&tx);
    const uint32_t unused = tx.shard->free_count;
    RW_TX_SET(&tx, words[5], 66);
    RW_TX_SET(&tx, block->data[100], 8);
    RW_TX_SET(&tx, block->data[100], 9);
    rw_blocks_give(&tx, first, last, 4);
    assert_int_equal(words[5], 66);
    rw_tx_abort(&tx);
    assert_int_equal(rw_tx_begin(memory.state, 3, &tx), RW_OK);
    assert_int_equal(words[5], 55);
    assert_int_equal(block->data[100], 7);
    assert_int_equal(tx.shard->free_count, unused);
    assert_int_equal(chain_length(&tx, first, 10), 4);
    rw_blocks_give_chain(&tx, first);
    rw_tx_end(&tx);
    assert_int_equal(used_blocks(memory.state), 0);
}

static void test_what_is_given_back_is_not_taken_before_it_is_committed(void **state) {
    (void)state;
    struct rw_tx tx;
    assert_int_equal(rw_tx_begin(memory.state, 0, &tx), RW_OK);
    assert_int_equal(rw_blocks_reserve(&tx, RW_CHUNK_BLOCKS), RW_OK);
    rw_block last;
    const rw_block all = rw_blocks_take(&tx, RW_CHUNK_BLOCKS, &last);
    rw_tx_commit(&tx);
    rw_blocks_give(&tx, all, last, RW_CHUNK_BLOCKS);
    assert_int_equal(rw_blocks_take(&tx, 1, NULL), 0);
    rw_tx_commit(&tx);
    assert_int_equal(chain_length(&tx, rw_blocks_take(&tx, 2, NULL), 10), 2);
    rw_tx_abort(&tx);
}

static void test_bytes_lie_in_one_block_after_the_other(void **state) {
    (void)state;
    uint8_t bytes[1000], read[1000];
    for (uint32_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 3);
    struct rw_tx tx;
    assert_int_equal(rw_tx_begin(memory.state, 0, &tx), RW_OK);
    for (uint32_t at = 4; at <= RW_BLOCK_BYTES; at += 31) {
        for (uint32_t count = 0; count < sizeof bytes; count += 37) {
            assert_int_equal(rw_blocks_reserve(&tx, 20), RW_OK);
            const uint32_t blocks = rw_blocks_for(RW_BLOCK_BYTES - at, count);
            const rw_block first = rw_blocks_take(&tx, blocks, NULL);
            assert_int_equal(rw_bytes_write(&tx, first, at, bytes, count), 1);
            memset(read, 0, sizeof read);
            assert_int_equal(rw_bytes_read(&tx, first, at, read, count), 1);
            assert_memory_equal(read, bytes, count);
            assert_int_equal(rw_bytes_equal(&tx, first, at, bytes, count), 1);
            if (count > 0) {
                read[count - 1] ^= 1;
                assert_int_equal(rw_bytes_equal(&tx, first, at, read, count), 0);
            }
            assert_false(rw_tx_is_damaged(&tx));
            rw_blocks_give_chain(&tx, first);
            rw_tx_commit(&tx);
        }
    }
    rw_tx_end(&tx);
    assert_int_equal(used_blocks(memory.state), 0);
}

/* In a process that ends without letting go of the shard. */
static void end_within(uint32_t shard) {
    struct rw_tx tx;
    if (rw_tx_begin(memory.state, shard, &tx) != RW_OK || rw_blocks_reserve(&tx, 600) != RW_OK) _exit(1);
    uint32_t *words = rw_shard_words(&tx);
    for (uint32_t i = 0; i < RW_SHARD_WORDS; i++) RW_TX_SET(&tx, words[i], 1000 + i);
    if (rw_blocks_take(&tx, 300, NULL) == 0) _exit(2);
    _exit(0);
}

static void test_a_holder_that_ends_leaves_the_shard_as_it_was(void **state) {
    (void)state;
    const struct rw_position before = append("topic", "text");
    const uint32_t shard = named("topic").shard;
    const uint64_t used = used_blocks(memory.state), changes = rw_state_changes(memory.state, shard);
    for (uint32_t i = 1; i <= 3; i++) {
        const pid_t child = fork();
        if (child == 0) end_within(shard);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        struct rw_tx tx;
        assert_int_equal(rw_tx_begin(memory.state, shard, &tx), RW_OK);
        for (uint32_t word = 0; word < RW_SHARD_WORDS; word++) assert_int_equal(rw_shard_words(&tx)[word], 0);
        rw_tx_end(&tx);
        assert_int_equal(used_blocks(memory.state), used);
        assert_int_equal(usage().recovered, i);
        check_shard(memory.state, shard, NULL);
    }
    /* Others look again: it may have committed something and told nobody. */
    assert_true(rw_state_changes(memory.state, shard) > changes);
    const struct rw_position after = append("topic", "text");
    assert_int_equal(after.epoch, before.epoch);
    assert_int_equal(after.offset, 2);
}

/* A worker that lives at the memory. */
static struct rw_core *worker_of(const struct memory *of) {
    const struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                          .backend = RW_BACKEND_EPOLL,
                                          .max_connections = 16,
                                          .sqpoll_cpu = -1,
                                          .wake_fd = -1,
                                          .inbox_fd_first = -1,
                                          .shm_fd = of->fd,
                                          .worker_count = 1};
    char error[256];
    struct rw_core *core = rw_core_create(&config, error, sizeof error);
    assert_non_null(core);
    return core;
}

/* ret: a name in another shard than that of "topic" */
static const char *elsewhere(void) {
    static char text[16];
    for (uint32_t i = 0;; i++) {
        snprintf(text, sizeof text, "else %u", i);
        if (named(text).shard != named("topic").shard) return text;
    }
}

static void test_a_stopped_holder_stops_nobody_for_ever(void **state) {
    (void)state;
    /* As the worker below will: it decides where a name lies. */
    rw_topics_seed(rw_shm_at(memory.address)->topic_seed);
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    const struct rw_state_name name = named("topic");
    const pid_t child = fork();
    if (child == 0) {
        struct rw_tx tx;
        if (rw_tx_begin(memory.state, name.shard, &tx) != RW_OK || write(ready[1], "r", 1) != 1) _exit(1);
        raise(SIGSTOP);
        rw_tx_end(&tx);
        _exit(0);
    }
    char byte;
    int status;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    const struct rw_log_entry entry = text_entry("text");
    struct rw_position position;
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW, &position, NULL), -ETIMEDOUT);
    /* Who has waited in vain does not wait so long again: a loop that asks often goes on. */
    const time_t from = time(NULL);
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW, &position, NULL), -ETIMEDOUT);
    assert_true(time(NULL) - from < 25 * (time_t)RW_STATE_WAIT_MS / 1000);
    (void)append(elsewhere(), "other shards are not held up");
    /* The host is told that there is no room. */
    struct rw_core *core = worker_of(&memory);
    static const uint8_t bytes[] = "topictext";
    struct rw_log_call call = {.topic_bytes = 5, .payload_bytes = 4, .size = 10, .seconds = 10};
    assert_int_equal(rw_core_log_append(core, &call, bytes), RW_ERR_FULL);
    assert_int_equal(core->stats->topic_appends_refused, 1);
    rw_core_destroy(core);
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW, &position, NULL), RW_OK);
    assert_int_equal(usage().recovered, 0);
    close(ready[0]);
    close(ready[1]);
}

static void test_a_damaged_shard_begins_anew_and_others_do_not_notice(void **state) {
    (void)state;
    const struct rw_state_name name = named("topic");
    struct rw_shard *shard = &memory.state->shards[name.shard];
    const struct rw_position kept = append(elsewhere(), "text");
    struct rw_position before = append("topic", "text");
    for (uint32_t kind = 0; kind < 6; kind++) {
        struct rw_tx tx;
        for (uint32_t i = 0; i < 20; i++)
            before = append("topic", "some text that takes more than a block does, as messages do");
        const rw_block block = rw_state_buckets(memory.state, name.shard)[name.hash & (memory.state->bucket_count - 1)];
        struct rw_log *log = (struct rw_log *)(void *)(memory.state->blocks + (uint64_t)(block - 1) * RW_BLOCK_BYTES);
        switch (kind) {
            case 0: shard->free = UINT32_MAX; break;
            case 1: shard->free_count = shard->owned + 1; break;
            case 2: log->newest = 0; break;
            case 3: log->last += 5; break;
            case 4:
                log->record.index_next = block;
                log->record.hash ^= 1ull << 63;
                break; /* a circle */
            default: shard->journal_count = UINT32_MAX; break;
        }
        /* At once, or by the one that finds it. */
        const struct rw_log_entry entry = text_entry("text");
        struct rw_position position;
        int32_t result = rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW, &position, NULL);
        assert_true(result == RW_OK || result == RW_ERR_FULL);
        if (result != RW_OK)
            assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW, &position, NULL), RW_OK);
        assert_int_equal(position.offset, 1);
        assert_int_not_equal(position.epoch, before.epoch);
        assert_int_equal(usage().damaged, kind + 1);
        check_shard(memory.state, name.shard, NULL);
        assert_int_equal(rw_tx_begin(memory.state, name.shard, &tx), RW_OK);
        RW_TX_SET(&tx, rw_shard_words(&tx)[kind], 1);
        rw_tx_end(&tx);
    }
    const struct rw_position after = append(elsewhere(), "text");
    assert_int_equal(after.epoch, kept.epoch);
    assert_int_equal(after.offset, 2);
}

static void test_a_damaged_shard_waits_for_who_writes_into_lent_blocks(void **state) {
    (void)state;
    struct rw_tx tx;
    (void)append("topic", "text");
    const struct rw_state_name name = named("topic");
    assert_int_equal(rw_tx_begin(memory.state, name.shard, &tx), RW_OK);
    int32_t result;
    struct rw_loan *loan = rw_loan_take(&tx, &name, 100000, NOW, &result);
    assert_non_null(loan);
    assert_int_equal(rw_tx_begin(memory.state, name.shard, &tx), RW_OK);
    rw_tx_damaged(&tx);
    rw_tx_end(&tx);
    assert_int_equal(rw_tx_begin(memory.state, name.shard, &tx), RW_ERR_FULL);
    assert_int_equal(rw_log_forget(memory.state, &name), RW_ERR_FULL);
    pthread_mutex_unlock(&loan->mutex);
    assert_int_equal(rw_log_forget(memory.state, &name), 0);
    assert_int_equal(usage().damaged, 1);
    check_shard(memory.state, name.shard, NULL);
}

static void test_half_of_the_chunks_are_for_whoever_comes_first(void **state) {
    (void)state;
    struct rw_tx tx;
    const uint32_t common = memory.state->chunk_count - memory.state->own_chunks * RW_STATE_SHARDS;
    assert_true(common > 0 && memory.state->own_chunks > 0);
    const uint64_t most = (uint64_t)(common + memory.state->own_chunks) * RW_CHUNK_BLOCKS;
    assert_int_equal(rw_tx_begin(memory.state, 7, &tx), RW_OK);
    assert_int_equal(rw_blocks_reserve(&tx, most + 1), RW_ERR_FULL);
    assert_int_equal(tx.shard->owned, 0); /* what would not do was not taken */
    assert_int_equal(rw_blocks_reserve(&tx, most), RW_OK);
    assert_int_equal(tx.shard->owned, most);
    rw_tx_end(&tx);
    assert_int_equal(rw_tx_begin(memory.state, 8, &tx), RW_OK);
    assert_int_equal(rw_blocks_reserve(&tx, memory.state->own_chunks * RW_CHUNK_BLOCKS), RW_OK);
    assert_int_equal(rw_blocks_reserve(&tx, memory.state->own_chunks * RW_CHUNK_BLOCKS + 1), RW_ERR_FULL);
    rw_tx_end(&tx);
    /* Given back, they are the others'. */
    for (uint32_t i = 0; i < 4 * RW_STATE_SHARDS; i++) rw_logs_sweep(memory.state, NOW);
    assert_int_equal(rw_tx_begin(memory.state, 8, &tx), RW_OK);
    assert_int_equal(rw_blocks_reserve(&tx, most), RW_OK);
    rw_tx_end(&tx);
    check_shard(memory.state, 7, NULL);
    check_shard(memory.state, 8, NULL);
}

static void test_the_index_tells_kinds_owners_and_names_apart(void **state) {
    (void)state;
    struct rw_tx tx;
    assert_int_equal(rw_tx_begin(memory.state, 1, &tx), RW_OK);
    assert_int_equal(rw_blocks_reserve(&tx, 100), RW_OK);
    rw_block blocks[24];
    const uint8_t *names[3] = {(const uint8_t *)"ab", (const uint8_t *)"abc", (const uint8_t *)"abd"};
    static const uint16_t counts[3] = {2, 3, 3};
    /* All of one hash, which is the worst that there can be. */
    for (uint32_t i = 0; i < 24; i++) {
        blocks[i] = rw_blocks_take(&tx, 1, NULL);
        struct rw_record *record = rw_block_at(&tx, blocks[i]);
        *record = (struct rw_record){
            .hash = 99, .kind = (uint16_t)(RW_RECORD_TOPIC + i % 2), .owner = i / 2 % 4, .name_bytes = counts[i / 8]};
        rw_bytes_write(&tx, blocks[i], 30, names[i / 8], counts[i / 8]);
        rw_index_add(&tx, blocks[i]);
    }
    for (uint32_t removed = 0; removed <= 24; removed++) {
        for (uint32_t i = 0; i < 24; i++) {
            const struct rw_record_name name = {.hash = 99,
                                                .bytes = names[i / 8],
                                                .count = counts[i / 8],
                                                .kind = (uint16_t)(RW_RECORD_TOPIC + i % 2),
                                                .owner = i / 2 % 4,
                                                .name_at = 30};
            assert_int_equal(rw_index_find(&tx, &name), (i * 5) % 24 < removed ? 0 : blocks[i]);
        }
        /* In another order than they came. */
        for (uint32_t i = 0; i < 24; i++)
            if ((i * 5) % 24 == removed) rw_index_remove(&tx, blocks[i]);
    }
    assert_false(rw_tx_is_damaged(&tx));
    rw_tx_abort(&tx);
}

static void test_the_tick_of_any_worker_drops_what_has_expired(void **state) {
    (void)state;
    struct rw_core *core = worker_of(&memory);
    const struct rw_state_name name = named("topic");
    const struct rw_log_entry entry = text_entry("text");
    struct rw_position position;
    /* Long ago. */
    assert_int_equal(rw_log_append(memory.state, &name, &entry, NULL, &wide, NOW / 2, &position, NULL), RW_OK);
    assert_int_equal(used_blocks(memory.state), 2);
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++) (void)rw_core_presence_tick(core);
    assert_int_equal(used_blocks(memory.state), 0);
    assert_int_equal(usage().logs, 0);
    rw_core_destroy(core);
}

static void test_logs_outlive_the_workers_that_wrote_them(void **state) {
    (void)state;
    struct rw_core *core = worker_of(&memory);
    const struct rw_state_name name = named("topic");
    const struct rw_log_entry entry = text_entry("text");
    struct rw_position position;
    assert_int_equal(rw_log_append(core->state, &name, &entry, NULL, &wide, NOW, &position, NULL), RW_OK);
    rw_core_destroy(core);
    rw_shm_worker_gone(memory.address, 0);
    core = worker_of(&memory);
    struct rw_log_end end;
    assert_int_equal(rw_log_end(core->state, &name, NOW, &end), 1);
    assert_int_equal(end.epoch, position.epoch);
    assert_int_equal(end.last, 1);
    rw_core_destroy(core);
}

static void test_the_supervisor_sees_what_is_used(void **state) {
    (void)state;
    struct rw_topic_memory seen;
    (void)append("topic", "text");
    assert_int_equal(rw_shm_topic_memory(memory.address, &seen), RW_OK);
    assert_int_equal(seen.logs, 1);
    assert_int_equal(seen.used_bytes, 2 * RW_BLOCK_BYTES);
    assert_true(seen.bytes > RW_STATE_BYTES_MIN / 2 && seen.bytes < RW_STATE_BYTES_MIN);
    assert_int_equal(rw_shm_topic_memory(0, &seen), RW_ERR_ABI);
    const int32_t fd = rw_shm_create(1, 65536, 0, 0);
    const uint64_t without = rw_shm_map(fd, 0);
    assert_int_equal(rw_shm_topic_memory(without, &seen), RW_ERR_UNSUPPORTED);
    rw_shm_unmap(without);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_aborted_has_not_been, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_given_back_is_not_taken_before_it_is_committed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bytes_lie_in_one_block_after_the_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_holder_that_ends_leaves_the_shard_as_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stopped_holder_stops_nobody_for_ever, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_damaged_shard_begins_anew_and_others_do_not_notice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_damaged_shard_waits_for_who_writes_into_lent_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_half_of_the_chunks_are_for_whoever_comes_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_index_tells_kinds_owners_and_names_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_tick_of_any_worker_drops_what_has_expired, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_logs_outlive_the_workers_that_wrote_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_supervisor_sees_what_is_used, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
