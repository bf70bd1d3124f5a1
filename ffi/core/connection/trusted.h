/* Addresses in one form, and the ranges of those whose owners are believed about their clients.
 *
 * Role: pure functions and one list. Up: client. Down: malloc(3). An IPv4 address is ::ffff:a.b.c.d here, as dual-stack
 * sockets have it. */
#ifndef RW_TRUSTED_H
#define RW_TRUSTED_H

#include <stdint.h>

#include "ringway.h"

struct rw_trusted_range;

struct rw_trusted {
    struct rw_trusted_range *ranges;
    uint32_t count;
};

/* Replace the list. ret: RW_OK, RW_ERR_INVALID (the old list stays), -ENOMEM (so it does) */
int32_t rw_trusted_set(struct rw_trusted *trusted, const struct rw_address_range *ranges, uint32_t count);
void rw_trusted_clear(struct rw_trusted *trusted);
/* ret: 1 a range holds the address; ip: 16 bytes in network order */
int rw_trusted_has(const struct rw_trusted *trusted, const uint8_t *ip);

/* address[0..bytes), 4 or 16 in network order, as 16 bytes. */
void rw_ip_widen(uint8_t *ip, const uint8_t *address, uint32_t bytes);
/* ret: 1 the 16 bytes are an IPv4 address, which is the last four of them */
int rw_ip_is_v4(const uint8_t *ip);

#endif
