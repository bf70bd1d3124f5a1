/* How many connections of one address are open on the node: a count-min sketch per worker, in the shared memory.
 *
 *   worker 0   row 0  [ . . 3 . . . . 1 . . ]      an address has one cell in each row, by a keyed hash;
 *              row 1  [ 1 . . . 3 . . . . . ]      its count is the least, over the rows, of the sums over the workers
 *              that live
 *   worker 1   row 0  [ . . 2 . . . . . . . ]
 *              row 1  [ . . . . 2 . 4 . . . ]      here 5: no other address shares both of its cells
 *
 * Role: max_connections_per_ip. Up: client. Down: shm, or private memory for a worker without a node. Each cell has one
 * writer, its worker; so a worker that is killed leaves nothing half-counted, and what it had counted vanishes with its
 * `live` bit. The count is never too small, and too large only where other addresses share the cell in every row: with
 * a million addresses on a node by two, typically. Nobody outside knows the key, so nobody can choose addresses that
 * share cells. A client with IPv6 owns a /64, and is counted by it. */
#ifndef RW_IP_LIMIT_H
#define RW_IP_LIMIT_H

#include <stdatomic.h>
#include <stdint.h>

#include "node/shm.h"

struct rw_ip_limit {
    uint32_t most;             /* 0: no limit: nothing is counted, and nothing below is set */
    struct rw_shm_header *shm; /* NULL: the cells are private */
    _Atomic uint16_t *cells;   /* of this worker */
    uint64_t secret[2];
};

/* in:  most: 0..RW_IP_CONNECTIONS_MAX; shm: NULL: no node. ret: RW_OK or -ENOMEM */
int32_t rw_ip_limit_open(struct rw_ip_limit *limit, uint32_t most, struct rw_shm_header *shm, uint32_t worker);
void rw_ip_limit_close(struct rw_ip_limit *limit);
/* Count a connection of an address (16 bytes, as in trusted.h), unless there are `most` already. Two that come at the
 * same time on two workers for the last place may both be refused; they are never both counted.
 * ret: a key for rw_ip_limit_give(); 0: there are `most` */
uint32_t rw_ip_limit_take(struct rw_ip_limit *limit, const uint8_t *ip);
void rw_ip_limit_give(struct rw_ip_limit *limit, uint32_t key);
/* Connections of an address on the node. */
uint32_t rw_ip_limit_count(const struct rw_ip_limit *limit, const uint8_t *ip);

#endif
