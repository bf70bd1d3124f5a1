/* Members come and go.
 *
 * Role: see presence.h. Each step is one transaction of a shard: what it needs is found, room for it is reserved (which
 * may drop logs, never members), and then it is done, without a way to fail. Every process that is killed in between
 * leaves the step undone, and its seats for the tick of another. */
#include "state/presence.h"

#include <stdatomic.h>
#include <string.h>

#include "state/presence_records.h"

/* ------------------------------------------------------------------ entries of the presence log */
#define PAYLOAD_HEAD_BYTES 2u
#define PAYLOAD_BYTES_MAX (PAYLOAD_HEAD_BYTES + RW_PRESENCE_USER_BYTES_MAX + RW_PRESENCE_INFO_BYTES_MAX)
static_assert(PAYLOAD_BYTES_MAX <= RW_LOG_COPY_BYTES_MAX, "entries are appended within a transaction");

struct payload {
    uint8_t bytes[PAYLOAD_BYTES_MAX];
    uint32_t count;
};

static void payload_begin(struct payload *payload, uint32_t user_bytes, uint32_t info_bytes) {
    payload->bytes[0] = (uint8_t)user_bytes;
    payload->bytes[1] = (uint8_t)(user_bytes >> 8);
    payload->count = PAYLOAD_HEAD_BYTES + user_bytes + info_bytes;
}

int rw_presence_entry(const uint8_t *payload, uint64_t count, struct rw_presence_bytes *user,
                      struct rw_presence_bytes *info) {
    if (count < PAYLOAD_HEAD_BYTES || count > PAYLOAD_BYTES_MAX) return 0;
    const uint32_t user_bytes = payload[0] | (uint32_t)payload[1] << 8;
    if (user_bytes == 0 || user_bytes > count - PAYLOAD_HEAD_BYTES) return 0;
    *user = (struct rw_presence_bytes){payload + PAYLOAD_HEAD_BYTES, user_bytes};
    *info = (struct rw_presence_bytes){payload + PAYLOAD_HEAD_BYTES + user_bytes,
                                       (uint32_t)count - PAYLOAD_HEAD_BYTES - user_bytes};
    return 1;
}

/* Append within the step, which has reserved room. ret: RW_OK or RW_ERR_FULL */
static int32_t entry_append(struct rw_present_step *step, const struct rw_state_name *name, uint32_t kind,
                            const struct payload *payload) {
    const struct rw_log_entry entry = {.flags = kind, .bytes = payload->count, .payload = payload->bytes};
    const struct rw_log_limits limits = {RW_PRESENCE_LOG_SIZE, RW_PRESENCE_LOG_SECONDS};
    struct rw_position position;
    return rw_logs_append(&step->tx, name, &entry, &limits, step->now->wall_ms, &position);
}

static int is_name(const struct rw_state_name *name) {
    return name->count > 2 && name->count <= RW_TOPIC_BYTES_MAX && name->bytes[0] == 0 && name->bytes[1] == 'p';
}

/* ------------------------------------------------------------------ come */

/* What a join has found, and what it will add. */
struct joining {
    rw_block topic;
    rw_block user; /* 0: it is new here */
    rw_block worker;
    rw_block gone; /* a record of the user that has left, to be removed */
};

static struct joining join_find(struct rw_present_step *step, const struct rw_state_name *name,
                                const struct rw_presence_join *join) {
    struct joining found = {.topic = rw_present_find_topic(step, name)};
    found.user = rw_present_find_user(step, found.topic, join->user);
    found.worker = rw_present_find_worker(step, step->presence->worker, step->presence->epoch);
    const struct rw_present_user *user = found.user == 0 ? NULL : rw_present_user_at(&step->tx, found.user);
    if (user != NULL && user->flags & RW_PRESENT_GONE) {
        found.gone = found.user;
        found.user = 0;
    }
    return found;
}

static int has_room(struct rw_present_step *step, const struct joining *found, uint32_t members_max) {
    const struct rw_present_topic *topic = found->topic == 0 ? NULL : rw_present_topic_at(&step->tx, found->topic);
    const struct rw_present_user *user = found->user == 0 ? NULL : rw_present_user_at(&step->tx, found->user);
    if (user != NULL && user->open == 0) return 1; /* it waits, and counts already */
    return (topic == NULL ? 0 : topic->connections) < members_max;
}

static int32_t join_reserve(struct rw_present_step *step, const struct rw_state_name *name,
                            const struct rw_presence_join *join, const struct joining *found,
                            const struct payload *payload) {
    uint64_t blocks = found->topic == 0 ? rw_present_topic_blocks(name) : 0;
    blocks += found->user == 0 ? rw_present_user_blocks(join->user, join->info) : 1;
    blocks += found->worker == 0;
    blocks += step->roots->wheel[0] == 0 ? RW_WHEEL_BLOCKS : 0;
    if (found->user == 0 && !step->presence->is_shared) blocks += rw_logs_blocks(name, payload->count);
    return rw_logs_reserve(&step->tx, blocks, 0, step->now->wall_ms);
}

/* ret: block of the seat, 0 on damage */
static rw_block join_do(struct rw_present_step *step, const struct rw_state_name *name,
                        const struct rw_presence_join *join, struct joining found, const struct payload *payload) {
    struct rw_tx *tx = &step->tx;
    const int comes = found.user == 0;
    rw_present_wheel_make(step);
    if (found.topic == 0) found.topic = rw_present_add_topic(step, name);
    if (found.worker == 0) found.worker = rw_present_add_worker(step, step->presence->worker, step->presence->epoch);
    struct rw_present_topic *topic = rw_present_topic_at(tx, found.topic);
    if (topic == NULL) return 0;
    const uint32_t grace_ms = join->grace_ms < RW_PRESENCE_GRACE_MS_MAX ? join->grace_ms : RW_PRESENCE_GRACE_MS_MAX;
    if (topic->grace_ms != grace_ms) RW_TX_SET(tx, topic->grace_ms, grace_ms);
    if (comes) found.user = rw_present_add_user(step, found.topic, join->user, join->info);
    struct rw_present_user *user = rw_present_user_at(tx, found.user);
    if (user == NULL) return 0;
    const uint32_t weight = comes ? 0 : rw_present_weight(user);
    if (user->flags & RW_PRESENT_WAITS) rw_present_wheel_remove(step, found.user);
    if (user->due != 0) RW_TX_SET(tx, user->due, 0);
    rw_block seat = rw_present_add_seat(step, found.user, found.worker, join->seat);
    if (comes && !step->presence->is_shared && entry_append(step, name, RW_LOG_JOIN, payload) < 0) return 0;
    if (rw_present_weight(user) != weight) rw_present_touch(step, found.user);
    if (found.gone != 0) rw_present_remove_user(step, found.gone); /* gives blocks, so it comes last */
    return seat;
}

int32_t rw_presence_join(struct rw_presence *presence, const struct rw_state_name *name,
                         const struct rw_presence_join *join, const struct rw_presence_clock *now, rw_block *seat) {
    if (!is_name(name) || join->user.count == 0 || join->user.count > RW_PRESENCE_USER_BYTES_MAX ||
        join->info.count > RW_PRESENCE_INFO_BYTES_MAX)
        return RW_ERR_INVALID;
    struct payload payload;
    payload_begin(&payload, join->user.count, join->info.count);
    memcpy(payload.bytes + PAYLOAD_HEAD_BYTES, join->user.bytes, join->user.count);
    if (join->info.count != 0)
        memcpy(payload.bytes + PAYLOAD_HEAD_BYTES + join->user.count, join->info.bytes, join->info.count);
    struct rw_present_step step;
    int32_t result = rw_present_begin(&step, presence, name->shard, now);
    if (result < 0) return result;
    const struct joining found = join_find(&step, name, join);
    if (rw_tx_is_damaged(&step.tx) || !has_room(&step, &found, join->members_max) ||
        join_reserve(&step, name, join, &found, &payload) < 0) {
        rw_tx_abort(&step.tx);
        return RW_ERR_FULL;
    }
    *seat = join_do(&step, name, join, found, &payload);
    if (*seat == 0) {
        rw_tx_abort(&step.tx);
        return RW_ERR_FULL;
    }
    return rw_present_end(&step, found.user == 0 ? RW_PRESENCE_CHANGED : RW_PRESENCE_SAME);
}

/* ------------------------------------------------------------------ go */

/* How the end of a seat, or of a grace, goes on. */
enum ending {
    STAYS,  /* others of the user are connected */
    WAITS,  /* for its grace, or for room for the entry */
    LEAVES, /* with an entry */
    FADES,  /* without: there is no room for one, nor a log that would miss it */
};

/* The entry of a leave, and room for it, which drops logs where it must. */
static enum ending leave_reserve(struct rw_present_step *step, const struct rw_state_name *name, rw_block block,
                                 const struct rw_present_user *user, struct payload *payload) {
    struct rw_tx *tx = &step->tx;
    if (step->presence->is_shared) return LEAVES;
    const uint32_t count = (uint32_t)user->record.name_bytes + user->info_bytes;
    if (count > PAYLOAD_BYTES_MAX - PAYLOAD_HEAD_BYTES ||
        !rw_bytes_read(tx, block, RW_USER_NAME_AT, payload->bytes + PAYLOAD_HEAD_BYTES, count)) {
        rw_tx_damaged(tx);
        return WAITS;
    }
    payload_begin(payload, user->record.name_bytes, user->info_bytes);
    if (rw_logs_reserve(tx, rw_logs_blocks(name, payload->count), 0, step->now->wall_ms) == RW_OK) return LEAVES;
    struct rw_log_end end;
    return rw_logs_end(tx, name, step->now->wall_ms, &end) ? WAITS : FADES;
}

/* The user leaves: it is off the wheel and has one seat (`seat`), or none (0). */
static void leave_do(struct rw_present_step *step, const struct rw_state_name *name, rw_block block, rw_block seat,
                     enum ending ending, const struct payload *payload) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    struct rw_present_topic *topic = user == NULL ? NULL : rw_present_topic_at(tx, user->record.owner);
    if (topic == NULL) return;
    const int shared = step->presence->is_shared != 0;
    if (!shared && ending == LEAVES && entry_append(step, name, RW_LOG_LEAVE, payload) < 0) {
        rw_tx_damaged(tx);
        return;
    }
    if (seat != 0) rw_present_remove_seat(step, seat);
    if (!shared) {
        rw_present_remove_user(step, block);
        return;
    }
    RW_TX_SET(tx, user->flags, user->flags | RW_PRESENT_GONE);
    RW_TX_SET(tx, topic->users, topic->users - 1);
    RW_TX_SET(tx, topic->connections, topic->connections - 1);
    rw_present_touch(step, block);
}

/* A seat ends. ret: enum rw_presence_change */
static int32_t seat_end(struct rw_present_step *step, const struct rw_state_name *name, rw_block seat, rw_block block,
                        int closed) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_user *user = rw_present_user_at(tx, block);
    const struct rw_present_topic *topic = user == NULL ? NULL : rw_present_topic_at(tx, user->record.owner);
    if (topic == NULL) return RW_PRESENCE_SAME;
    const uint64_t now_ms = step->now->monotonic_ms;
    uint32_t due = user->due;
    if (closed) /* rounded up: not sooner than said */
        due = topic->grace_ms == 0 ? 0 : rw_present_units(now_ms + topic->grace_ms + (1u << RW_DUE_UNIT_SHIFT) - 1);
    enum ending ending = user->open > 1 ? STAYS : due > rw_present_units(now_ms) ? WAITS : LEAVES;
    struct payload payload;
    if (ending == LEAVES) ending = leave_reserve(step, name, block, user, &payload);
    if (rw_tx_is_damaged(tx)) return RW_PRESENCE_SAME;
    if (ending == LEAVES || ending == FADES) {
        leave_do(step, name, block, seat, ending, &payload);
        return RW_PRESENCE_CHANGED;
    }
    const uint32_t weight = rw_present_weight(user);
    if (ending == WAITS) rw_present_wheel_add(step, block, due);
    else RW_TX_SET(tx, user->due, due);
    rw_present_remove_seat(step, seat);
    if (rw_present_weight(user) != weight) rw_present_touch(step, block);
    return RW_PRESENCE_SAME;
}

/* The user whose seat it is, if it is this connection's. ret: 0: it is not. A number that is no seat any more (its shard
 * was damaged and emptied) finds nothing either. */
static rw_block seat_owner(struct rw_present_step *step, const struct rw_state_name *name, rw_block block,
                           struct rw_presence_seat of) {
    struct rw_tx *tx = &step->tx;
    const rw_block topic = rw_present_find_topic(step, name);
    const rw_block worker = rw_present_find_worker(step, step->presence->worker, step->presence->epoch);
    const struct rw_record *record = topic == 0 || worker == 0 ? NULL : rw_block_at(tx, block);
    if (record == NULL || (record->kind != RW_RECORD_USER && record->kind != RW_RECORD_MEMBER)) return 0;
    rw_block user_block = 0;
    const struct rw_present_seat *seat = rw_present_seat_at(tx, block, &user_block);
    if (seat == NULL || seat->worker != worker || seat->slot != of.slot || seat->generation != of.generation) return 0;
    const struct rw_present_user *user = rw_present_user_at(tx, user_block);
    return user != NULL && user->record.owner == topic ? user_block : 0;
}

int32_t rw_presence_is(struct rw_presence *presence, const struct rw_state_name *name, rw_block seat,
                       struct rw_presence_seat of, struct rw_presence_bytes id) {
    struct rw_present_step step;
    int32_t result = rw_present_begin(&step, presence, name->shard, NULL);
    if (result < 0) return result;
    const rw_block block = seat_owner(&step, name, seat, of);
    const struct rw_present_user *user = block == 0 ? NULL : rw_present_user_at(&step.tx, block);
    const int same = user != NULL && user->record.name_bytes == id.count &&
                     rw_bytes_equal(&step.tx, block, RW_USER_NAME_AT, id.bytes, id.count);
    return rw_present_end(&step, same);
}

int32_t rw_presence_leave(struct rw_presence *presence, const struct rw_state_name *name, rw_block seat,
                          struct rw_presence_seat of, int closed, const struct rw_presence_clock *now) {
    struct rw_present_step step;
    int32_t result = rw_present_begin(&step, presence, name->shard, now);
    if (result < 0) return result;
    const rw_block user = seat_owner(&step, name, seat, of);
    if (user == 0) return rw_present_end(&step, RW_ERR_STALE);
    return rw_present_end(&step, seat_end(&step, name, seat, user, closed));
}

/* ------------------------------------------------------------------ the tick */
#define STEPS_MAX 64u /* users that are dealt with before others may have the shard */
#define TAKEN_S (RW_PRESENCE_TAKEN_MS >> 10)

/* The name of the presence log of a user's topic, into bytes[RW_TOPIC_BYTES_MAX]. ret: 1, 0 on damage */
static int name_of(struct rw_present_step *step, rw_block user_block, uint8_t *bytes, struct rw_state_name *name) {
    struct rw_tx *tx = &step->tx;
    const struct rw_present_user *user = rw_present_user_at(tx, user_block);
    const struct rw_present_topic *topic = user == NULL ? NULL : rw_present_topic_at(tx, user->record.owner);
    if (topic == NULL) return 0;
    const uint32_t count = topic->record.name_bytes;
    if (count == 0 || count > RW_TOPIC_BYTES_MAX ||
        !rw_bytes_read(tx, user->record.owner, RW_TOPIC_NAME_AT, bytes, count)) {
        rw_tx_damaged(tx);
        return 0;
    }
    *name = rw_state_name(bytes, count);
    if (is_name(name) && name->shard == tx->index) return 1;
    rw_tx_damaged(tx);
    return 0;
}

static int is_alive(const struct rw_presence *presence, const struct rw_present_worker *worker) {
    return worker->place < presence->shm->worker_count &&
           atomic_load_explicit(&rw_shm_worker(presence->shm, worker->place)->epoch, memory_order_acquire) ==
               worker->epoch;
}

/* A seat of a process that is gone; processes that are gone and have none are removed. ret: 0: there is none */
static rw_block orphan(struct rw_present_step *step) {
    struct rw_tx *tx = &step->tx;
    rw_block before = 0;
    for (rw_block block = step->roots->workers; block != 0;) {
        const struct rw_present_worker *worker = rw_present_worker_at(tx, block);
        if (worker == NULL || !rw_present_follows(tx, &worker->links, before)) return 0;
        const rw_block next = worker->links.next;
        if (is_alive(step->presence, worker)) {
            before = block;
        } else {
            if (worker->first != 0) return worker->first;
            rw_present_remove_worker(step, block);
            rw_tx_commit(tx);
        }
        block = next;
    }
    return 0;
}

/* What somebody has taken, and not written, perhaps because it was killed; and, when nobody writes any more, all of it. */
static void tick_taken(struct rw_present_step *step) {
    struct rw_tx *tx = &step->tx;
    struct rw_present_roots *roots = step->roots;
    const int shared = step->presence->is_shared != 0;
    for (uint32_t steps = 0; steps < STEPS_MAX && !rw_tx_is_damaged(tx); steps++) {
        const rw_block block = roots->taken_first != 0 ? roots->taken_first : shared ? 0 : roots->dirty_first;
        const struct rw_present_user *user = block == 0 ? NULL : rw_present_user_at(tx, block);
        if (user == NULL) return;
        const uint16_t held_s = (uint16_t)((step->now->monotonic_ms >> 10) - user->taken_s);
        if (shared && held_s <= TAKEN_S) return;
        if (shared) rw_present_mark(step, block, RW_PRESENT_DIRTY);
        else if (user->flags & RW_PRESENT_GONE) rw_present_remove_user(step, block);
        else rw_present_mark(step, block, 0);
        rw_tx_commit(tx);
    }
}

/* A grace that is over. ret: 1: the user has left */
static int grace_end(struct rw_present_step *step, const struct rw_state_name *name, rw_block block) {
    struct rw_tx *tx = &step->tx;
    const struct rw_present_user *user = rw_present_user_at(tx, block);
    if (user == NULL) return 0;
    struct payload payload;
    const enum ending ending = leave_reserve(step, name, block, user, &payload);
    rw_present_wheel_remove(step, block);
    if (ending == WAITS) { /* for room, until the next tick at least */
        rw_present_wheel_add(step, block, rw_present_units(step->now->monotonic_ms) + (1000u >> RW_DUE_UNIT_SHIFT));
        return 0;
    }
    leave_do(step, name, block, 0, ending, &payload);
    return 1;
}

/* The next thing to be done in the shard. ret: 1: done, and in *left whether a user has left; 0: nothing */
static int tick_one(struct rw_present_step *step, uint32_t *budget, uint8_t *bytes, struct rw_state_name *name,
                    int *left) {
    *left = 0;
    rw_block seat = orphan(step);
    rw_block user = 0;
    if (seat != 0) {
        if (rw_present_seat_at(&step->tx, seat, &user) == NULL || !name_of(step, user, bytes, name)) return 0;
        (*budget)--;
        *left = seat_end(step, name, seat, user, 1) == RW_PRESENCE_CHANGED;
        return 1;
    }
    user = rw_present_wheel_due(step, budget);
    if (user == 0 || !name_of(step, user, bytes, name)) return 0;
    *left = grace_end(step, name, user);
    return 1;
}

/* As many as may be done at a time. ret: 1: there is more */
static int tick_shard(struct rw_presence *presence, uint32_t shard, const struct rw_presence_clock *now,
                      uint32_t *budget, rw_presence_left_fn *left, void *context) {
    struct rw_present_step step;
    if (rw_present_begin(&step, presence, shard, now) < 0) return 0;
    tick_taken(&step);
    uint8_t bytes[RW_TOPIC_BYTES_MAX];
    for (uint32_t steps = 0; steps < STEPS_MAX && *budget > 0; steps++) {
        struct rw_state_name name;
        int has_left;
        if (!tick_one(&step, budget, bytes, &name, &has_left)) return rw_present_end(&step, 0) > 0;
        if (!has_left) {
            if (rw_tx_is_damaged(&step.tx)) break;
            rw_tx_commit(&step.tx);
            continue;
        }
        /* Told at once: a name for each of them would have to be kept otherwise. */
        if (rw_present_end(&step, 0) < 0) return 0;
        left(context, name.bytes, name.count);
        if (rw_present_begin(&step, presence, shard, now) < 0) return 0;
    }
    return rw_present_end(&step, 1) > 0;
}

int rw_presence_tick(struct rw_presence *presence, const struct rw_presence_clock *now, uint32_t budget,
                     rw_presence_left_fn *left, void *context) {
    presence->dirty_shards = UINT64_MAX;
    int more = 0;
    for (uint32_t i = 0; i < RW_STATE_SHARDS; i++) {
        if (budget == 0) return 1;
        const uint32_t shard = presence->tick_shard;
        more |= tick_shard(presence, shard, now, &budget, left, context);
        presence->tick_shard = (shard + 1) % RW_STATE_SHARDS;
    }
    return more || budget == 0;
}
