/* X-Forwarded-For and Forwarded (RFC 7239): whom the proxies in front of a request have seen.
 *
 * Role: a pure parser, no allocation. Up: http, which walks from hop to hop. Down: inet_pton(3). Both are lists to
 * which each proxy appends whom it heard from, so they are read from the right: what stands left of an element was told
 * by that hop. Elements are found from the right too: nothing that a client has sent, an open quote or a comma, moves
 * the borders of what a proxy has appended behind it. */
#ifndef RW_FORWARDED_H
#define RW_FORWARDED_H

#include <stddef.h>
#include <stdint.h>

#include "ringway.h"

struct rw_forwarded_hop {
    uint8_t address[16];   /* network order */
    uint8_t address_bytes; /* 4 or 16; 0: it names no address: empty, malformed, `unknown`, or an obfuscated name */
};

/* Read the last element of a field value, bytes[0..len).
 * in:  header: enum rw_proxy_header, not NONE
 * out: *hop; an IPv4 address written as IPv6 (::ffff:a.b.c.d) has 4 bytes
 * ret: where the comma before it stands, which is the length of the list without it; -1: there is none, it was the
 * first element.
 *      An empty value is one empty element. */
int32_t rw_forwarded_last(uint32_t header, const uint8_t *bytes, size_t len, struct rw_forwarded_hop *hop);

#endif
