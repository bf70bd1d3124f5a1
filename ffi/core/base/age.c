/* Times of the past on a clock that wraps, see age.h. */
#include "base/age.h"

#include <assert.h>

static_assert((uint64_t)RW_AGE_MS_MAX + 2ull * RW_AGE_STEP_MS <= UINT32_MAX,
              "an age fits 32 bits until it is looked at again");

void rw_age(uint32_t *then, const struct rw_age_span *span) {
    uint32_t before = span->from_ms - *then;
    uint64_t age_ms = before <= RW_AGE_MS_MAX ? span->passed_ms + before : span->passed_ms - (uint32_t)(0u - before);
    if (age_ms > RW_AGE_MS_MAX) *then = span->to_ms - RW_AGE_MS_MAX;
}
