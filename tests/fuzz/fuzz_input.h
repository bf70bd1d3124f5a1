/* What the fuzz targets share: a check that ends the run and says what does not hold, and bytes of the input taken one
 * after the other. */
#ifndef RW_FUZZ_INPUT_H
#define RW_FUZZ_INPUT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s: %s does not hold (line %d)\n", __FILE__, #condition, __LINE__); \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

struct input {
    const uint8_t *at, *end;
};

/* ret: 0 once there are no more */
static inline uint8_t take(struct input *input) { return input->at < input->end ? *input->at++ : 0; }

#endif
