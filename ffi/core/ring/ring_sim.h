/* A ring without a kernel, for tests: deterministic, seeded, as unkind as the contract of ring.h allows.
 *
 * Role: stands in for io_uring and epoll in unit tests and fuzzers; the test plays the peers. Up: core, tests. Down:
 * nothing. Only in builds with RW_TEST; rw_ring_create() gives it for RW_BACKEND_SIM.
 *
 * With sim_seed 0 it is obliging: every operation completes whole at the next submit, in the order of descriptors. With
 * any other seed it splits reads and writes at any byte, delays, reorders between descriptors (never within one), ends
 * operations for want of buffers, fails accepts, completes late after a cancel; the same seed and the same calls give
 * the same run.
 *
 * Violations of the caller's duties end the test by assert: a send buffer that changed before its send completed, two
 * operations of a kind on one descriptor, closing a descriptor with something armed, returning a buffer twice. Under
 * ASan a buffer that was returned cannot be read. */
#ifndef RW_RING_SIM_H
#define RW_RING_SIM_H

#include <stddef.h>
#include <stdint.h>

#include "ring/ring.h"

/* Chances in a thousand, each time it could happen. */
struct rw_sim_faults {
    uint16_t recv_split;   /* fewer bytes than there are */
    uint16_t send_split;   /* a short send */
    uint16_t delay;        /* nothing this turn */
    uint16_t no_buffers;   /* -ENOBUFS though there are some */
    uint16_t recv_unarmed; /* bytes come in a last completion, as kernels do when completions overflow */
    uint16_t accept_error; /* EMFILE, ENFILE, ENOMEM or ECONNABORTED instead of a connection; ends the accept */
    uint16_t late;         /* after a cancel, what was under way still completes first */
};

/* Virtual descriptors begin here; smaller ones are taken for real. */
#define RW_SIM_FD_FIRST (1 << 28)

struct rw_ring *rw_ring_sim_create(const struct rw_ring_config *config, char *error, size_t error_bytes);
void rw_sim_faults_set(struct rw_ring *ring, const struct rw_sim_faults *faults);

/* ret: a virtual listening descriptor, for rw_ring_accept_start() */
int32_t rw_sim_listen(struct rw_ring *ring);
/* A peer connects. ret: the descriptor that an accept will deliver, by which the test names this connection from
 * now on */
int32_t rw_sim_connect(struct rw_ring *ring, int32_t listener);

/* The peer has this IPv6 address (16 bytes; IPv4 as ::ffff:a.b.c.d). Without, it has none that anybody could ask
 * for. */
void rw_sim_peer_address(struct rw_ring *ring, int32_t fd, const uint8_t *ip);
/* The peer sends; copied. */
void rw_sim_push(struct rw_ring *ring, int32_t fd, const void *bytes, size_t count);
/* The peer has sent its last byte; it still reads. */
void rw_sim_peer_shutdown(struct rw_ring *ring, int32_t fd);
/* The peer is gone: receive and send fail from now on, bytes not yet received are lost. */
void rw_sim_peer_reset(struct rw_ring *ring, int32_t fd);
/* The peer takes `bytes` more and then no more, until told again; SIZE_MAX (as at first): any number. */
void rw_sim_peer_window(struct rw_ring *ring, int32_t fd, size_t bytes);
/* What the core has sent and nobody has taken yet. ret: bytes copied to out */
size_t rw_sim_take(struct rw_ring *ring, int32_t fd, void *out, size_t capacity);
/* ret: bytes that rw_sim_take() would find */
size_t rw_sim_sent(const struct rw_ring *ring, int32_t fd);
/* ret: 1 the core has closed it */
int rw_sim_is_closed(const struct rw_ring *ring, int32_t fd);
/* The test is done with a closed descriptor: its number will be given out again, as a kernel would. */
void rw_sim_forget(struct rw_ring *ring, int32_t fd);
/* ret: descriptors accepted or listening that the core has not closed */
uint32_t rw_sim_open_count(const struct rw_ring *ring);
/* ret: receive buffers the core holds */
uint32_t rw_sim_borrowed(const struct rw_ring *ring);

#endif
