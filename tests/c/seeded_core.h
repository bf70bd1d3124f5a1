/* A core on a simulated ring that is as unkind as its seed says. */
#ifndef SEEDED_CORE_H
#define SEEDED_CORE_H

#include "create.h"
#include "ring/ring_sim.h"

static inline struct rw_ring *seeded_ring(const struct rw_ring_config *given, void *context, char *error,
                                          size_t bytes) {
    struct rw_ring_config config = *given;
    config.sim_seed = *(const uint64_t *)context;
    return rw_ring_sim_create(&config, error, bytes);
}

/* As rw_core_create(); seed 0: obliging. */
static inline struct rw_core *seeded_core_create(const struct rw_core_config *config, uint64_t seed, char *error,
                                                 size_t bytes) {
    return rw_core_create_on(config, (struct rw_ring_maker){seeded_ring, &seed}, error, bytes);
}

#endif
