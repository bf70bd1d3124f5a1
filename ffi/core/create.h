/* The life of a core, for whoever brings a ring of his own: tests.
 *
 * Role: rw_core_create() of ringway.h with its ring from outside. */
#ifndef RW_CREATE_H
#define RW_CREATE_H

#include "ring/ring.h"
#include "ringway.h"

/* make: ret: a ring that the core destroys; NULL, and a sentence in *error */
struct rw_ring_maker {
    struct rw_ring *(*make)(const struct rw_ring_config *config, void *context, char *error, size_t error_bytes);
    void *context;
};

/* As rw_core_create(). */
struct rw_core *rw_core_create_on(const struct rw_core_config *config, struct rw_ring_maker maker, char *error,
                                  size_t error_bytes);

#endif
