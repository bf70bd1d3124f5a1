/* A host for tests of the core as a whole: the tests' stand-in for TypeScript, commands in and events out.
 *
 * Up: core_*_test.c. Down: core_peer.h, whose clients it holds. Nothing here depends on speed: a wait ends when its
 * condition holds, and fails only after very many turns. host_close() asserts that everything was given back. */
#ifndef CORE_HOST_H
#define CORE_HOST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "connection/core.h"
#include "ringway.h"

#define HOST_PEERS_MAX 256u
#define TURNS_MAX 20000u

struct record {
    struct rw_event event;
    uint8_t *payload; /* a copy, NUL behind it */
};

struct host;
struct peer;

/* What lies between the bytes of a test and those of the wire. */
struct peer_layer {
    void (*send)(struct host *host, struct peer *peer, const void *bytes, size_t count);
    void (*pull)(struct host *host, struct peer *peer);
    void (*drop)(struct peer *peer);
};

struct peer {
    int32_t fd;
    const struct peer_layer *layer; /* NULL: the wire has the test's bytes as they are */
    void *layer_state;
    uint8_t used, closed, ended; /* closed: by the test; ended: the end of stream was read */
    uint8_t *in;                 /* received and not yet looked at: in_bytes at in, within memory[0..capacity) */
    uint8_t *memory;
    size_t in_bytes, capacity;
    char head[4096]; /* of the last response */
};

struct host {
    struct rw_core *core;
    struct rw_core_info info;
    uint32_t backend;
    int32_t listener, port;
    uint32_t commands, data;
    struct record *log;
    size_t log_count, log_at, log_capacity;
    void (*handler)(struct host *host, const struct rw_event *event, const uint8_t *payload);
    void *context;
    void (*dress)(struct host *host, struct peer *peer); /* NULL, or: gives every peer that connects its layer */
    struct peer peers[HOST_PEERS_MAX];
};

#define DEFAULTS (&(struct rw_core_config){0})
#define PLAIN ((struct rw_behavior){0})

int host_is_sim(const struct host *host);
/* given: with worker_count, a worker of the node whose memory is shm_fd; else it stands alone
 * sim_seed: with RW_BACKEND_SIM, how unkind the ring is; 0: obliging */
struct host *host_open_seeded(uint32_t backend, const struct rw_core_config *given, uint64_t sim_seed);
struct host *host_open_with(uint32_t backend, const struct rw_core_config *config);
void host_record(struct host *host, const struct rw_event *event, const uint8_t *payload);
void host_turn_wait(struct host *host, uint32_t wait_us);
void host_turn(struct host *host);
void host_turns(struct host *host, uint32_t count);
uint64_t test_now_ms(void);
void test_sleep_ms(uint32_t ms);
/* Time passes for the core, by moving its clock: no test has to wait for a deadline, and none fails because the machine
 * was slow. In steps too short for the core to think that its host was blocked. */
void host_pass_time(struct host *host, uint32_t ms);
struct record *host_poll(struct host *host);
/* The next event, which must be of this type. */
struct record *host_expect(struct host *host, enum rw_event_type type);
void host_expect_silence(struct host *host);
void host_flush(struct host *host);
void host_command(struct host *host, struct rw_command command, const void *data, size_t bytes);
/* A command about the connection, and the request, of an event. */
void host_answer(struct host *host, const struct rw_event *to, struct rw_command command, const void *data,
                 size_t bytes);
void host_respond(struct host *host, const struct rw_event *to, uint32_t status, const char *headers, const char *body);
void host_send(struct host *host, const struct rw_event *to, uint32_t flags, const void *data, size_t bytes);
void host_topic(struct host *host, const struct rw_event *to, enum rw_command_type type, const char *topic);
void host_publish(struct host *host, const struct rw_event *except, const char *topic, uint32_t flags,
                  const void *payload, size_t bytes);
void host_behavior(struct host *host, uint32_t index, struct rw_behavior behavior);
uint64_t host_buffers_used(const struct host *host);
/* Every connection has ended: nothing may be left but the log of publishes. */
void host_assert_empty(struct host *host);
void host_free(struct host *host);
/* Close the peers, see that everything is given back, destroy the core. */
void host_close(struct host *host);
int backend_setup(void **state);
struct host *host_open(void **state, const struct rw_core_config *config);
uint8_t pattern_at(size_t i);
void fill_pattern(uint8_t *out, size_t bytes);
/* A host whose behavior 7 is this one. */
struct host *ws_host(void **state, struct rw_behavior behavior);

#endif
