/* Server names of a TLS listener (SNI, RFC 6066 §3): name → context.
 *
 * Role: a sorted table. Up: tls. Down: tls_context. Names are kept in lower case; one that begins with "*." stands for
 * exactly one label. */
#ifndef RW_TLS_NAMES_H
#define RW_TLS_NAMES_H

#include <stddef.h>
#include <stdint.h>

#include "connection/tls_context.h"

#define RW_TLS_NAME_BYTES_MAX 253u /* RFC 1035 §2.3.4, as text without the final dot */

struct rw_tls_name {
    char *name;
    struct rw_tls_context context;
    uint16_t number; /* the host's */
};

struct rw_tls_names {
    struct rw_tls_name *items; /* sorted by name */
    uint32_t count;
    uint32_t capacity;
};

/* The name, or the wildcard, in lower case and without a final dot. out: out[0..RW_TLS_NAME_BYTES_MAX + 1), ends with
 * NUL
 * ret: its length, or 0: no host name */
uint32_t rw_tls_name_normalize(char *out, const uint8_t *name, size_t bytes);
/* Add or replace; `name` is normal. The context passes to the table. ret: RW_OK or -ENOMEM (the context stays with the
 * caller) */
int32_t rw_tls_names_set(struct rw_tls_names *names, const char *name, uint16_t number,
                         const struct rw_tls_context *context);
void rw_tls_names_remove(struct rw_tls_names *names, const char *name);
/* The exact name, else the wildcard. ret: NULL: neither; valid until the table changes */
const struct rw_tls_name *rw_tls_names_find(const struct rw_tls_names *names, const char *name);
void rw_tls_names_clear(struct rw_tls_names *names);

#endif
