/* What the tests of presence share: a node with memory for it, workers as views of it, and an observer who knows who is
 * there from a list and the presence log alone. */
#ifndef PRESENCE_FIXTURE_H
#define PRESENCE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "state/presence.h"

#define NODE_WORKERS 4u
#define STATE_BYTES (16ull << 20)
#define WALL_MS 1700000000000ull

struct node {
    uint64_t address;
    struct rw_shm_header *shm;
    struct rw_state *state;
    struct rw_presence workers[NODE_WORKERS];
    struct rw_presence_clock now;
    uint32_t left; /* users that ticks have told of */
};

/* Another process at this place: the one before it, if any, is gone. */
static inline void worker_starts(struct node *node, uint32_t place, uint32_t is_shared) {
    _Atomic uint32_t *epoch = &rw_shm_worker(node->shm, place)->epoch;
    *epoch += 1 + *epoch % 2;
    node->workers[place] = (struct rw_presence){
        .state = node->state, .shm = node->shm, .worker = place, .epoch = *epoch, .is_shared = is_shared};
}

static inline void worker_dies(struct node *node, uint32_t place) { rw_shm_worker_gone(node->address, place); }

static inline void node_open(struct node *node, uint32_t is_shared) {
    const int32_t fd = rw_shm_create(NODE_WORKERS, 65536, 0, STATE_BYTES);
    assert_true(fd >= 0);
    *node = (struct node){.address = rw_shm_map(fd, 0), .now = {WALL_MS, 5000000}};
    close(fd);
    node->shm = rw_shm_at(node->address);
    node->state = rw_state_open(node->shm);
    assert_non_null(node->state);
    for (uint32_t place = 0; place < NODE_WORKERS; place++) worker_starts(node, place, is_shared);
}

static inline void node_close(struct node *node) {
    rw_state_close(node->state);
    rw_shm_unmap(node->address);
}

static inline void pass(struct node *node, uint64_t ms) {
    node->now.wall_ms += ms;
    node->now.monotonic_ms += ms;
}

static inline struct rw_presence_bytes text(const char *bytes) {
    return (struct rw_presence_bytes){(const uint8_t *)bytes, (uint32_t)strlen(bytes)};
}

/* The name of a topic's presence log; good until the next but three. */
static inline const struct rw_state_name *log_of(const char *topic) {
    static uint8_t bytes[4][RW_TOPIC_BYTES_MAX];
    static struct rw_state_name names[4];
    static uint32_t next;
    const uint32_t n = next++ % 4;
    bytes[n][0] = 0;
    bytes[n][1] = 'p';
    memcpy(bytes[n] + 2, topic, strlen(topic));
    names[n] = rw_state_name(bytes[n], 2 + (uint32_t)strlen(topic));
    return &names[n];
}

static inline struct rw_presence_seat connection(uint32_t slot) { return (struct rw_presence_seat){slot, slot + 1000}; }

static inline int32_t join_with(struct node *node, uint32_t place, uint32_t slot, const char *topic, const char *user,
                                const char *info, uint32_t grace_ms, rw_block *seat) {
    const struct rw_presence_join join = {connection(slot), text(user), text(info), grace_ms, 10000};
    return rw_presence_join(&node->workers[place], log_of(topic), &join, &node->now, seat);
}

static inline rw_block join(struct node *node, uint32_t place, uint32_t slot, const char *topic, const char *user) {
    rw_block seat = 0;
    assert_true(join_with(node, place, slot, topic, user, "", 3000, &seat) >= 0);
    assert_int_not_equal(seat, 0);
    return seat;
}

static inline int32_t leave(struct node *node, uint32_t place, uint32_t slot, const char *topic, rw_block seat,
                            int closed) {
    return rw_presence_leave(&node->workers[place], log_of(topic), seat, connection(slot), closed, &node->now);
}

static inline void note_left(void *context, const uint8_t *name, uint32_t name_bytes) {
    struct node *node = context;
    assert_true(name_bytes > 2 && name[0] == 0 && name[1] == 'p');
    node->left++;
}

/* Everything that is to be done by now. */
static inline void tick(struct node *node, uint32_t place) {
    while (rw_presence_tick(&node->workers[place], &node->now, 1000, note_left, node)) continue;
}

static inline struct rw_presence_count count_of(struct node *node, const char *topic) {
    struct rw_presence_count count;
    assert_int_equal(rw_presence_count(&node->workers[0], log_of(topic), &count), RW_OK);
    return count;
}

/* ------------------------------------------------------------------ who is there, as text: "ann*1 bob*2" */
#define WHO_BYTES 65536u

/* From a list, sorted by nothing but their joins. out: *at: its position */
static inline void list(struct node *node, const char *topic, char *who, struct rw_position *at) {
    static uint8_t bytes[1u << 20];
    const int64_t used = rw_presence_list(&node->workers[0], log_of(topic), node->now.wall_ms, bytes, sizeof bytes, at);
    assert_true(used >= 0 && (uint64_t)used <= sizeof bytes);
    who[0] = 0;
    for (const uint8_t *from = bytes; from < bytes + used;) {
        uint32_t connections;
        uint16_t id_bytes, info_bytes;
        memcpy(&connections, from, 4);
        memcpy(&id_bytes, from + 4, 2);
        memcpy(&info_bytes, from + 6, 2);
        sprintf(who + strlen(who), "%s%.*s*%u", who[0] ? " " : "", (int)id_bytes, (const char *)from + 8, connections);
        from += 8 + id_bytes + info_bytes;
    }
}

static inline void assert_who(struct node *node, const char *topic, const char *expected) {
    static char who[WHO_BYTES];
    struct rw_position at;
    list(node, topic, who, &at);
    assert_string_equal(who, expected);
}

/* Someone who has a list and then follows the log: who is there is what it has been told. */
#define OBSERVED_MAX 64u
struct observer {
    struct rw_position at;
    char there[OBSERVED_MAX][32];
    uint32_t count;
    uint32_t joins, leaves;
};

static inline int observed(const struct observer *observer, const char *user) {
    for (uint32_t i = 0; i < observer->count; i++)
        if (strcmp(observer->there[i], user) == 0) return (int)i;
    return -1;
}

/* ret: 1; 0: what it was told makes no sense: a user who is there joins, one who is not leaves, entries are missing */
static inline int observe(struct node *node, const char *topic, struct observer *observer) {
    static struct rw_log_entry entries[256];
    static uint8_t buffer[256 * 256];
    for (int32_t count = 1; count > 0;) {
        const struct rw_log_query query = {.epoch = observer->at.epoch, .after = observer->at.offset, .max = 256};
        struct rw_log_end end;
        count = rw_log_read(node->state, log_of(topic), &query, node->now.wall_ms, entries, buffer, sizeof buffer, &end,
                            NULL);
        if (count < 0 || end.epoch != observer->at.epoch) return 0;
        for (int32_t i = 0; i < count; i++) {
            struct rw_presence_bytes user, info;
            char name[32] = {0};
            if (entries[i].offset != observer->at.offset + 1) return 0;
            if (!rw_presence_entry(entries[i].payload, entries[i].bytes, &user, &info) || user.count > 31) return 0;
            memcpy(name, user.bytes, user.count);
            const int at = observed(observer, name);
            const uint32_t kind = entries[i].flags & RW_LOG_KIND;
            if (kind == RW_LOG_JOIN) {
                if (at >= 0 || observer->count == OBSERVED_MAX) return 0;
                memcpy(observer->there[observer->count++], name, sizeof name);
                observer->joins++;
            } else {
                if (at < 0 || kind != RW_LOG_LEAVE) return 0;
                memmove(observer->there[at], observer->there[at + 1],
                        (--observer->count - (uint32_t)at) * sizeof observer->there[0]);
                observer->leaves++;
            }
            observer->at.offset = entries[i].offset;
        }
    }
    return 1;
}

/* Begins with who is there now. */
static inline void observer_start(struct node *node, const char *topic, struct observer *observer) {
    static char who[WHO_BYTES];
    *observer = (struct observer){0};
    list(node, topic, who, &observer->at);
    for (char *user = strtok(who, " "); user != NULL; user = strtok(NULL, " ")) {
        *strchr(user, '*') = 0;
        strcpy(observer->there[observer->count++], user);
    }
}

#endif
