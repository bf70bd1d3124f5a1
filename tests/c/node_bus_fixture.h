/* What the tests of the node bus share: a small node, and messages that can tell whether they arrived whole. */
#ifndef NODE_BUS_FIXTURE_H
#define NODE_BUS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/node_bus.h"

#define FIXTURE_WORKERS 4u
#define FIXTURE_RING_BYTES 65536u

struct node {
    uint64_t address;
    struct rw_shm_header *shm;
    int32_t inboxes[FIXTURE_WORKERS];
};

static inline int node_open(struct node *node) {
    const int32_t fd = rw_shm_create(FIXTURE_WORKERS, FIXTURE_RING_BYTES, 0, 0);
    if (fd < 0) return -1;
    node->address = rw_shm_map(fd, 0);
    node->shm = rw_shm_at(node->address);
    close(fd);
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) node->inboxes[w] = rw_eventfd_create();
    return node->shm != NULL ? 0 : -1;
}

static inline void node_close(struct node *node) {
    for (uint32_t w = 0; w < FIXTURE_WORKERS; w++) rw_fd_close(node->inboxes[w]);
    rw_shm_unmap(node->address);
}

static inline struct rw_stats *stats_of(const struct node *node, uint32_t worker) {
    return (struct rw_stats *)(uintptr_t)rw_shm_stats(node->address, worker);
}

static inline struct rw_node_bus *bus_of(const struct node *node, uint32_t worker) {
    return rw_node_bus_create(node->shm, worker, node->inboxes, stats_of(node, worker));
}

/* The content of message `number` of `incarnation`: every byte follows from the two and its place. */
#define STAMP_BYTES 8u

static inline void message_fill(uint8_t *payload, uint32_t bytes, uint32_t incarnation, uint32_t number) {
    for (uint32_t i = 0; i < bytes; i++) payload[i] = (uint8_t)(i * 31u + (i >> 8) * 7u + number * 17u + incarnation);
    if (bytes < STAMP_BYTES) return;
    memcpy(payload, &incarnation, 4);
    memcpy(payload + 4, &number, 4);
}

/* ret: 1 when every byte is as message_fill() made it; the stamp is left in the two */
static inline int message_intact(const uint8_t *payload, uint32_t bytes, uint32_t *incarnation, uint32_t *number) {
    if (bytes < STAMP_BYTES) return 0;
    memcpy(incarnation, payload, 4);
    memcpy(number, payload + 4, 4);
    for (uint32_t i = STAMP_BYTES; i < bytes; i++)
        if (payload[i] != (uint8_t)(i * 31u + (i >> 8) * 7u + *number * 17u + *incarnation)) return 0;
    return 1;
}

static inline struct rw_node_message message_of(const uint8_t *payload, uint32_t bytes, uint64_t hash) {
    return (struct rw_node_message){.topic = (const uint8_t *)"room/one",
                                    .topic_bytes = 8,
                                    .payload = payload,
                                    .payload_bytes = bytes,
                                    .topic_hash = hash,
                                    .flags = RW_SEND_TEXT};
}

static inline uint32_t random_next(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)(*seed >> 32);
}

#endif
