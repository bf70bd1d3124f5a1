/* Whether the members of a shard hold together: beside what state_check.h looks at, every block of presence is in one
 * place, lists lead back, and what is counted is there. */
#ifndef PRESENCE_CHECK_H
#define PRESENCE_CHECK_H

#include "state/presence_records.h"
#include "state_check.h"

/* What the lists of a shard come to. */
struct presence_tally {
    uint64_t users, seats, waiting, flagged_waiting, flagged_dirty, flagged_taken;
};
static struct presence_tally presence_tally;

static inline struct rw_present_user *checked_user(struct check *check, rw_block block) {
    struct rw_present_user *user = rw_present_user_at(&check->tx, block);
    assert_non_null(user);
    return user;
}

static inline uint64_t check_present_list(struct check *check, rw_block first, rw_block last, uint8_t flag) {
    uint64_t count = 0;
    rw_block before = 0;
    for (rw_block block = first; block != 0; count++) {
        const struct rw_present_user *user = checked_user(check, block);
        assert_int_equal(user->dirty.prev, before);
        assert_true(user->flags & flag);
        before = block;
        block = user->dirty.next;
    }
    assert_int_equal(last, before);
    return count;
}

static inline void check_wheel(struct check *check, const struct rw_present_roots *roots) {
    if (roots->wheel[0] == 0) return;
    for (uint32_t i = 0; i < RW_WHEEL_BLOCKS; i++) {
        check_see(check, roots->wheel[i]);
        const struct rw_block_at *cells = rw_block_at(&check->tx, roots->wheel[i]);
        for (uint32_t cell = 0; cell < RW_BLOCK_DATA_BYTES / sizeof(rw_block); cell++) {
            rw_block before = 0, block;
            memcpy(&block, cells->data + cell * sizeof block, sizeof block);
            for (; block != 0; presence_tally.waiting++) {
                const struct rw_present_user *user = checked_user(check, block);
                assert_int_equal(user->waiting.prev, before);
                assert_int_equal(user->cell, i * (RW_BLOCK_DATA_BYTES / sizeof(rw_block)) + cell);
                assert_true(user->flags & RW_PRESENT_WAITS && user->open == 0);
                before = block;
                block = user->waiting.next;
            }
        }
    }
}

static inline void check_present_topic(struct check *check, rw_block at) {
    const struct rw_present_topic *topic = rw_present_topic_at(&check->tx, at);
    assert_non_null(topic);
    check_chain(check, at, rw_blocks_for(RW_BLOCK_BYTES - RW_TOPIC_NAME_AT, topic->record.name_bytes));
    assert_int_not_equal(topic->first, 0);
    uint32_t users = 0, connections = 0;
    rw_block before = 0;
    for (rw_block block = topic->first; block != 0;) {
        const struct rw_present_user *user = checked_user(check, block);
        assert_int_equal(user->record.owner, at);
        assert_int_equal(user->links.prev, before);
        users += !(user->flags & RW_PRESENT_GONE);
        connections += rw_present_weight(user);
        if (user->flags & RW_PRESENT_GONE) assert_true(user->flags & (RW_PRESENT_DIRTY | RW_PRESENT_TAKEN));
        else assert_int_equal(user->open == 0, (user->flags & RW_PRESENT_WAITS) != 0);
        presence_tally.users++;
        presence_tally.flagged_waiting += (user->flags & RW_PRESENT_WAITS) != 0;
        presence_tally.flagged_dirty += (user->flags & RW_PRESENT_DIRTY) != 0;
        presence_tally.flagged_taken += (user->flags & RW_PRESENT_TAKEN) != 0;
        before = block;
        block = user->links.next;
    }
    assert_int_equal(topic->last, before);
    assert_int_equal(topic->users, users);
    assert_int_equal(topic->connections, connections);
}

static inline void check_present_worker(struct check *check, rw_block at) {
    const struct rw_present_worker *worker = rw_present_worker_at(&check->tx, at);
    check_see(check, at);
    rw_block before = 0;
    for (rw_block block = worker->first; block != 0; presence_tally.seats++) {
        rw_block user;
        const struct rw_present_seat *seat = rw_present_seat_at(&check->tx, block, &user);
        assert_non_null(seat);
        assert_int_equal(seat->worker, at);
        assert_int_equal(seat->links.prev, before);
        assert_true(checked_user(check, user)->open > 0);
        if (block != user) check_see(check, block);
        before = block;
        block = seat->links.next;
    }
}

/* Once all records were seen: what is in no index, and whether it comes to the same. */
static inline void check_roots(struct check *check) {
    const struct rw_present_roots *roots = (const struct rw_present_roots *)(void *)rw_shard_words(&check->tx);
    check_wheel(check, roots);
    struct presence_tally *tally = &presence_tally;
    assert_int_equal(roots->users, tally->users);
    assert_int_equal(roots->seats, tally->seats);
    assert_int_equal(roots->waiting, tally->waiting);
    assert_int_equal(tally->flagged_waiting, tally->waiting);
    assert_int_equal(tally->flagged_dirty,
                     check_present_list(check, roots->dirty_first, roots->dirty_last, RW_PRESENT_DIRTY));
    assert_int_equal(tally->flagged_taken,
                     check_present_list(check, roots->taken_first, roots->taken_last, RW_PRESENT_TAKEN));
    *tally = (struct presence_tally){0};
}

/* block 0: all others were seen */
static inline uint64_t check_present_record(struct check *check, rw_block block) {
    if (block == 0) {
        check_roots(check);
        return 0;
    }
    const struct rw_record *record = rw_block_at(&check->tx, block);
    if (record->kind == RW_RECORD_TOPIC) {
        check_present_topic(check, block);
    } else if (record->kind == RW_RECORD_WORKER) {
        check_present_worker(check, block);
    } else {
        assert_int_equal(record->kind, RW_RECORD_USER);
        const struct rw_present_user *user = checked_user(check, block);
        check_chain(
            check, block,
            rw_blocks_for(RW_BLOCK_BYTES - RW_USER_NAME_AT, (uint64_t)user->record.name_bytes + user->info_bytes));
    }
    return 0;
}

/* Every shard; whoever works on them meanwhile waits. */
static inline void check_presence(struct rw_state *state) {
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++)
        if (state->shards[i].owned != 0) check_shard(state, i, check_present_record);
}

#endif
