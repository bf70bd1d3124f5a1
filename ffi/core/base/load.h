/* Words out of bytes at any address, in the order of bytes of this machine.
 *
 * Role: pure functions that compile to one load each; memcpy is how C says that nothing is known of alignment. The
 * caller knows that so many bytes are there. Up: utf8, ws_frame, http_parser, trusted. */
#ifndef RW_LOAD_H
#define RW_LOAD_H

#include <stdint.h>
#include <string.h>

static inline uint64_t rw_load_64(const void *from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static inline uint32_t rw_load_32(const void *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

#endif
