/* What is done to logs, each a transaction of its own.
 *
 * Role: see logs.h. Down: log.h, arena.
 *
 *   small payload   take the shard · judge · reserve · copy · link · let go
 *   large payload   take the shard · judge · lend blocks · let go · copy · take the shard · judge again · link · let go
 *
 * Invariant: nothing is changed for others before it is known that all of it can be: reserving comes first. */
#include "state/logs.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "ringway.h"
#include "state/log.h"

#define HOLD_BYTES_MAX (4u * RW_LOG_COPY_BYTES_MAX) /* that a reader copies before it lets others have the shard */
#define HOLD_ENTRIES_MAX 256u

/* ------------------------------------------------------------------ storing */

struct storing {
    const struct rw_state_name *name;
    const struct rw_log_entry *entry;
    const struct rw_log_key *key; /* NULL: none */
    const struct rw_log_limits *limits;
    uint64_t now_ms;
    int is_put; /* at `position`; else wherever, and `position` is told */
    struct rw_position position;
    int duplicate;
};

static int is_name(const struct rw_state_name *name) {
    return name->count >= 1 && name->count <= RW_TOPIC_BYTES_MAX && name->shard < RW_STATE_SHARDS;
}

static int is_valid(const struct storing *storing) {
    return is_name(storing->name) && storing->entry->bytes <= RW_LOG_PAYLOAD_BYTES_MAX && storing->limits->size > 0 &&
           storing->limits->seconds > 0 && (storing->key == NULL || storing->key->count <= RW_LOG_KEY_BYTES_MAX);
}

/* What is known without storing anything. ret: 1 and *answer, or 0: it is to be stored */
static int is_answered(struct rw_tx *tx, rw_block block, const struct rw_log *log, struct storing *storing,
                       int32_t *answer) {
    *answer = RW_OK;
    if (storing->is_put) {
        const struct rw_position *position = &storing->position;
        if (log == NULL || log->epoch != position->epoch) *answer = RW_LOG_EPOCH;
        else if (position->offset <= log->last) *answer = RW_LOG_OLD;
        else if (position->offset > log->last + 1) *answer = RW_LOG_GAP;
        return *answer != RW_OK;
    }
    if (log == NULL || storing->key == NULL ||
        !rw_log_key_find(tx, block, log, storing->key, storing->now_ms, &storing->position.offset))
        return 0;
    storing->position.epoch = log->epoch;
    storing->duplicate = 1;
    return 1;
}

/* Write the entry into a chain of reserved blocks. ret: 0: damage */
static int fill_chain(struct rw_tx *tx, const struct rw_log_entry *entry, struct rw_log_chain *chain) {
    chain->count = rw_log_entry_blocks(entry->bytes);
    chain->first = rw_blocks_take(tx, chain->count, &chain->last);
    return chain->first != 0 && rw_bytes_write(tx, chain->first, RW_LOG_PAYLOAD_AT, entry->payload, entry->bytes);
}

/* The entry becomes part of its log; everything is reserved. ret: RW_OK, or RW_ERR_FULL: damage */
static int32_t add_entry(struct rw_tx *tx, rw_block block, const struct storing *storing, struct rw_log_chain chain) {
    struct rw_log *log = rw_log_at(tx, block);
    if (log == NULL) return RW_ERR_FULL;
    struct rw_log_entry entry = *storing->entry;
    if (entry.time_ms == 0) entry.time_ms = storing->now_ms;
    if (entry.time_ms < log->last_ms) entry.time_ms = log->last_ms;
    if (!rw_log_link(tx, log, &entry, chain)) return RW_ERR_FULL;
    if (log->seconds != storing->limits->seconds) RW_TX_SET(tx, log->seconds, storing->limits->seconds);
    if (storing->key != NULL) rw_log_key_add(tx, block, log, storing->key, log->last, storing->now_ms);
    rw_log_expire(tx, log, storing->now_ms);
    if (log->last + 1 - log->first > storing->limits->size) rw_log_trim(tx, log, log->last - storing->limits->size + 1);
    rw_log_touch(tx, block, storing->now_ms);
    if (rw_tx_is_damaged(tx)) return RW_ERR_FULL;
    rw_state_changed(tx);
    return RW_OK;
}

/* With the shard taken. loan: its payload is there already, NULL: it is not */
static int32_t store_held(struct rw_tx *tx, struct storing *storing, struct rw_loan *loan) {
    const struct rw_log_entry *entry = storing->entry;
    rw_block block = rw_log_find(tx, storing->name);
    struct rw_log *log = block == 0 ? NULL : rw_log_at(tx, block);
    if (log != NULL) {
        rw_log_expire(tx, log, storing->now_ms);
        (void)rw_log_keys_expire(tx, log, storing->now_ms);
    }
    if (rw_tx_is_damaged(tx)) return RW_ERR_FULL;
    rw_tx_commit(tx);
    int32_t answer;
    if (is_answered(tx, block, log, storing, &answer)) return answer;
    const uint64_t count = (loan != NULL ? 0 : (uint64_t)rw_log_entry_blocks(entry->bytes)) +
                           (log != NULL ? 0 : rw_log_name_blocks(storing->name->count)) +
                           (storing->key == NULL ? 0 : rw_log_key_blocks(storing->key));
    if (rw_logs_reserve(tx, count, block, storing->now_ms) < 0) return RW_ERR_FULL;
    struct rw_log_chain chain;
    if (loan != NULL) chain = rw_loan_use(tx, loan);
    else if (!fill_chain(tx, entry, &chain)) return RW_ERR_FULL;
    if (block == 0) block = rw_log_create(tx, storing->name, (struct rw_position){0}, storing->now_ms);
    const int32_t result = add_entry(tx, block, storing, chain);
    if (result < 0) return result;
    log = rw_log_at(tx, block);
    storing->position = (struct rw_position){log->epoch, log->last};
    return RW_OK;
}

/* ret: blocks with the payload in them, and the shard is let go of; NULL: it is answered already, or there is no loan:
 * then the shard is taken still, unless *result is not RW_OK */
static struct rw_loan *copy_before(struct rw_tx *tx, struct storing *storing, int32_t *result) {
    const rw_block block = rw_log_find(tx, storing->name);
    const struct rw_log *log = block == 0 ? NULL : rw_log_at(tx, block);
    int32_t answer;
    if (is_answered(tx, block, log, storing, &answer)) return NULL;
    struct rw_loan *loan = rw_loan_take(tx, storing->name, storing->entry->bytes, storing->now_ms, result);
    if (loan != NULL)
        (void)rw_state_write(tx->state, loan->first, RW_LOG_PAYLOAD_AT, storing->entry->payload, storing->entry->bytes);
    return loan;
}

static int32_t store(struct rw_state *state, struct storing *storing) {
    if (!is_valid(storing)) return RW_ERR_INVALID;
    if (storing->key != NULL && storing->key->count == 0) storing->key = NULL;
    struct rw_tx tx;
    struct rw_loan *loan = NULL;
    int32_t result = rw_tx_begin(state, storing->name->shard, &tx);
    if (result < 0) return result;
    if (storing->entry->bytes > RW_LOG_COPY_BYTES_MAX) {
        loan = copy_before(&tx, storing, &result);
        if (loan != NULL) result = rw_tx_begin(state, storing->name->shard, &tx);
    }
    if (result == RW_OK) {
        result = store_held(&tx, storing, loan);
        if (result < 0 || rw_tx_is_damaged(&tx)) rw_tx_abort(&tx);
        else rw_tx_end(&tx);
    }
    /* What is still in it then, whoever looks next gives back. */
    if (loan != NULL) pthread_mutex_unlock(&loan->mutex);
    return result;
}

int32_t rw_log_append(struct rw_state *state, const struct rw_state_name *name, const struct rw_log_entry *entry,
                      const struct rw_log_key *key, const struct rw_log_limits *limits, uint64_t now_ms,
                      struct rw_position *position, int *duplicate) {
    struct storing storing = {.name = name, .entry = entry, .key = key, .limits = limits, .now_ms = now_ms};
    const int32_t result = store(state, &storing);
    if (result < 0) return result;
    *position = storing.position;
    if (duplicate != NULL) *duplicate = storing.duplicate;
    return RW_OK;
}

int32_t rw_log_put(struct rw_state *state, const struct rw_state_name *name, struct rw_position position,
                   const struct rw_log_entry *entry, const struct rw_log_limits *limits, uint64_t now_ms) {
    struct storing storing = {
        .name = name, .entry = entry, .limits = limits, .now_ms = now_ms, .is_put = 1, .position = position};
    if (position.epoch == 0 || position.offset == 0) return RW_ERR_INVALID;
    return store(state, &storing);
}

uint64_t rw_logs_blocks(const struct rw_state_name *name, uint32_t payload_bytes) {
    return (uint64_t)rw_log_name_blocks(name->count) + rw_log_entry_blocks(payload_bytes);
}

int32_t rw_logs_append(struct rw_tx *tx, const struct rw_state_name *name, const struct rw_log_entry *entry,
                       const struct rw_log_limits *limits, uint64_t now_ms, struct rw_position *position) {
    const struct storing storing = {.name = name, .entry = entry, .limits = limits, .now_ms = now_ms};
    assert(is_valid(&storing) && entry->bytes <= RW_LOG_COPY_BYTES_MAX && name->shard == tx->index);
    rw_block block = rw_log_find(tx, name);
    struct rw_log_chain chain;
    if (!fill_chain(tx, entry, &chain)) return RW_ERR_FULL;
    if (block == 0) block = rw_log_create(tx, name, (struct rw_position){0}, now_ms);
    const int32_t result = add_entry(tx, block, &storing, chain);
    if (result < 0) return result;
    const struct rw_log *log = rw_log_at(tx, block);
    *position = (struct rw_position){log->epoch, log->last};
    return RW_OK;
}

/* ------------------------------------------------------------------ beginning anew, following, forgetting */

static void set_followed(struct rw_tx *tx, struct rw_log *log, int is_followed) {
    const uint32_t flags = is_followed ? log->flags | RW_LOG_FOLLOWED : log->flags & ~(uint32_t)RW_LOG_FOLLOWED;
    if (flags != log->flags) RW_TX_SET(tx, log->flags, flags);
}

static int32_t reset_held(struct rw_tx *tx, const struct rw_state_name *name, struct rw_position position,
                          int is_followed, uint64_t now_ms) {
    rw_block block = rw_log_find(tx, name);
    if (block == 0) {
        if (rw_logs_reserve(tx, rw_log_name_blocks(name->count), 0, now_ms) < 0) return RW_ERR_FULL;
        block = rw_log_create(tx, name, position, now_ms);
    }
    struct rw_log *log = rw_log_at(tx, block);
    if (log == NULL) return RW_ERR_FULL;
    if (log->epoch != position.epoch || log->last != position.offset) rw_log_begin(tx, log, position);
    set_followed(tx, log, is_followed);
    rw_log_touch(tx, block, now_ms);
    if (rw_tx_is_damaged(tx)) return RW_ERR_FULL;
    rw_state_changed(tx);
    return RW_OK;
}

static int32_t finish(struct rw_tx *tx, int32_t result) {
    if (result < 0 || rw_tx_is_damaged(tx)) rw_tx_abort(tx);
    else rw_tx_end(tx);
    return result;
}

int32_t rw_log_reset(struct rw_state *state, const struct rw_state_name *name, struct rw_position position,
                     int is_followed, uint64_t now_ms) {
    if (!is_name(name) || position.epoch == 0 || position.offset == UINT64_MAX) return RW_ERR_INVALID;
    struct rw_tx tx;
    const int32_t result = rw_tx_begin(state, name->shard, &tx);
    return result < 0 ? result : finish(&tx, reset_held(&tx, name, position, is_followed, now_ms));
}

/* What is there. ret: NULL: nothing is, or damage */
static struct rw_log *existing(struct rw_tx *tx, const struct rw_state_name *name, rw_block *block) {
    *block = rw_log_find(tx, name);
    return *block == 0 ? NULL : rw_log_at(tx, *block);
}

int32_t rw_log_follow(struct rw_state *state, const struct rw_state_name *name, int is_followed) {
    if (!is_name(name)) return RW_ERR_INVALID;
    struct rw_tx tx;
    rw_block block;
    const int32_t result = rw_tx_begin(state, name->shard, &tx);
    if (result < 0) return result;
    struct rw_log *log = existing(&tx, name, &block);
    if (log == NULL) return finish(&tx, RW_ERR_STALE);
    set_followed(&tx, log, is_followed);
    rw_state_changed(&tx);
    return finish(&tx, RW_OK);
}

int32_t rw_log_forget(struct rw_state *state, const struct rw_state_name *name) {
    if (!is_name(name)) return RW_ERR_INVALID;
    struct rw_tx tx;
    rw_block block;
    const int32_t result = rw_tx_begin(state, name->shard, &tx);
    if (result < 0) return result;
    if (existing(&tx, name, &block) == NULL) return finish(&tx, 0);
    rw_log_drop(&tx, block);
    return finish(&tx, 1);
}

/* ------------------------------------------------------------------ reading */

static void tell_end(const struct rw_log *log, struct rw_log_end *end) {
    *end = (struct rw_log_end){.epoch = log->epoch,
                               .first = log->first,
                               .last = log->last,
                               .is_followed = (log->flags & RW_LOG_FOLLOWED) != 0};
}

int rw_logs_end(struct rw_tx *tx, const struct rw_state_name *name, uint64_t now_ms, struct rw_log_end *end) {
    rw_block block;
    struct rw_log *log = existing(tx, name, &block);
    if (log == NULL) return 0;
    rw_log_expire(tx, log, now_ms);
    if (rw_tx_is_damaged(tx)) return 0;
    tell_end(log, end);
    return 1;
}

int32_t rw_log_end(struct rw_state *state, const struct rw_state_name *name, uint64_t now_ms, struct rw_log_end *end) {
    if (!is_name(name)) return RW_ERR_INVALID;
    struct rw_tx tx;
    const int32_t result = rw_tx_begin(state, name->shard, &tx);
    return result < 0 ? result : finish(&tx, rw_logs_end(&tx, name, now_ms, end));
}

int32_t rw_log_open(struct rw_state *state, const struct rw_state_name *name, uint64_t now_ms, struct rw_log_end *end) {
    if (!is_name(name)) return RW_ERR_INVALID;
    struct rw_tx tx;
    const int32_t result = rw_tx_begin(state, name->shard, &tx);
    if (result < 0) return result;
    if (rw_logs_end(&tx, name, now_ms, end)) {
        rw_log_touch(&tx, rw_log_find(&tx, name), now_ms);
        return finish(&tx, 1);
    }
    if (rw_tx_is_damaged(&tx)) return finish(&tx, RW_ERR_FULL);
    if (rw_logs_reserve(&tx, rw_log_name_blocks(name->count), 0, now_ms) < 0) return finish(&tx, RW_ERR_FULL);
    const struct rw_log *log = rw_log_at(&tx, rw_log_create(&tx, name, (struct rw_position){0}, now_ms));
    if (log == NULL) return finish(&tx, RW_ERR_FULL);
    tell_end(log, end);
    return finish(&tx, 0);
}

struct reading {
    struct rw_tx tx;
    const struct rw_state_name *name;
    const struct rw_log_query *query;
    const struct rw_log *log;
    struct rw_log_end *end;
    uint8_t *buffer;
    uint64_t buffer_bytes, used;
    uint32_t held_bytes, held_entries; /* copied since the shard was taken */
    uint32_t begun;                    /* of the log: it has not begun anew */
    int is_held;
};

/* ret: the first entry that is asked for; NULL: there is none */
static struct rw_log_block *first_wanted(struct reading *reading) {
    const struct rw_log_query *query = reading->query;
    const struct rw_log *log = reading->log;
    uint64_t offset;
    if ((query->epoch != 0 && query->epoch != log->epoch) || query->max == 0 || log->first > log->last) return NULL;
    if (query->reverse) {
        offset = query->after == 0 || query->after > log->last ? log->last : query->after - 1;
        if (offset < log->first) return NULL;
    } else {
        if (query->after >= log->last) return NULL;
        offset = query->after + 1 < log->first ? log->first : query->after + 1;
    }
    return rw_log_entry_at(&reading->tx, log, offset);
}

/* Let others have the shard, and take it again. ret: 0: it cannot be had, or the entry is not there any more */
static int breathe(struct reading *reading, uint64_t offset) {
    struct rw_state *state = reading->tx.state;
    reading->held_bytes = reading->held_entries = 0;
    rw_tx_end(&reading->tx);
    reading->is_held = rw_tx_begin(state, reading->name->shard, &reading->tx) == RW_OK;
    if (!reading->is_held) return 0;
    rw_block block;
    reading->log = existing(&reading->tx, reading->name, &block);
    if (reading->log == NULL || reading->log->begun != reading->begun) {
        reading->end->first = reading->end->last + 1;
        return 0;
    }
    if (offset >= reading->log->first) return 1;
    reading->end->first = reading->log->first;
    return 0;
}

/* ret: 0: it is not there any more */
static int copy_payload(struct reading *reading, const struct rw_log_block *block, rw_block number, uint8_t *to) {
    const uint64_t offset = block->offset;
    const uint32_t bytes = block->bytes;
    struct rw_cursor cursor = {number, RW_LOG_PAYLOAD_AT};
    for (uint32_t done = 0; done < bytes;) {
        if (reading->held_bytes >= HOLD_BYTES_MAX && !breathe(reading, offset)) return 0;
        uint32_t count = bytes - done;
        if (count > HOLD_BYTES_MAX - reading->held_bytes) count = HOLD_BYTES_MAX - reading->held_bytes;
        if (!rw_cursor_read(&reading->tx, &cursor, to + done, count)) return 0;
        done += count;
        reading->held_bytes += count;
    }
    return 1;
}

static rw_block number_of(const struct rw_state *state, const struct rw_log_block *block) {
    return (rw_block)(((const uint8_t *)block - state->blocks) / RW_BLOCK_BYTES) + 1;
}

/* ret: how many were copied */
static int32_t copy_entries(struct reading *reading, struct rw_log_entry *entries, uint64_t *needed) {
    uint32_t count = 0;
    struct rw_log_block *block = first_wanted(reading);
    while (block != NULL && count < reading->query->max) {
        if (reading->held_entries == HOLD_ENTRIES_MAX && !breathe(reading, block->offset)) break;
        if (block->bytes > reading->buffer_bytes - reading->used) {
            if (count == 0) *needed = block->bytes;
            break;
        }
        uint8_t *payload = reading->buffer + reading->used;
        entries[count] = (struct rw_log_entry){.offset = block->offset,
                                               .time_ms = block->time_ms,
                                               .flags = block->flags,
                                               .bytes = block->bytes,
                                               .origin = block->origin,
                                               .payload = payload};
        if (!copy_payload(reading, block, number_of(reading->tx.state, block), payload)) break;
        const uint64_t padded = ((uint64_t)entries[count].bytes + 7) & ~(uint64_t)7;
        reading->used = padded < reading->buffer_bytes - reading->used ? reading->used + padded : reading->buffer_bytes;
        reading->held_entries++;
        count++;
        block = reading->query->reverse ? rw_log_entry_previous(&reading->tx, reading->log, block)
                                        : rw_log_entry_next(&reading->tx, reading->log, block);
    }
    return (int32_t)count;
}

int32_t rw_log_read(struct rw_state *state, const struct rw_state_name *name, const struct rw_log_query *query,
                    uint64_t now_ms, struct rw_log_entry *entries, uint8_t *buffer, uint64_t buffer_bytes,
                    struct rw_log_end *end, uint64_t *needed) {
    uint64_t ignored;
    if (needed == NULL) needed = &ignored;
    *needed = 0;
    if (!is_name(name) || query->max > INT32_MAX) return RW_ERR_INVALID;
    struct reading reading = {
        .name = name, .query = query, .end = end, .buffer = buffer, .buffer_bytes = buffer_bytes, .is_held = 1};
    int32_t result = rw_tx_begin(state, name->shard, &reading.tx);
    if (result < 0) return result;
    rw_block block;
    struct rw_log *log = existing(&reading.tx, name, &block);
    if (log == NULL) return finish(&reading.tx, RW_ERR_STALE);
    rw_log_expire(&reading.tx, log, now_ms);
    if (query->max > 0 && now_ms > log->used_ms && now_ms - log->used_ms >= 1000)
        rw_log_touch(&reading.tx, block, now_ms);
    rw_tx_commit(&reading.tx);
    tell_end(log, end);
    reading.log = log;
    reading.begun = log->begun;
    if (!rw_tx_is_damaged(&reading.tx)) result = copy_entries(&reading, entries, needed);
    if (!reading.is_held) return result;
    return finish(&reading.tx, rw_tx_is_damaged(&reading.tx) ? RW_ERR_STALE : result);
}
