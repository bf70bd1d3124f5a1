/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): with a secret key nobody who does not
 * know it can choose bytes whose hashes collide. Role: a pure function. Up: topics (names come from clients), ip_limit
 * (so do addresses). */
#ifndef RW_SIPHASH_H
#define RW_SIPHASH_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

struct rw_sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rw_rotate_left(uint64_t x, unsigned bits) { return x << bits | x >> (64u - bits); }

static inline void rw_sip_round(struct rw_sip *s) {
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rw_rotate_left(s->v1, 13) ^ s->v0;
    s->v3 = rw_rotate_left(s->v3, 16) ^ s->v2;
    s->v0 = rw_rotate_left(s->v0, 32) + s->v3;
    s->v2 += s->v1;
    s->v1 = rw_rotate_left(s->v1, 17) ^ s->v2;
    s->v3 = rw_rotate_left(s->v3, 21) ^ s->v0;
    s->v2 = rw_rotate_left(s->v2, 32);
}

static inline uint64_t rw_sip_load(const uint8_t *bytes, uint32_t count) {
    uint64_t word = 0;
    memcpy(&word, bytes, count); /* little-endian, as every machine with io_uring that we build for */
    return word;
}

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rw_sip_load copies");

/* in: k0, k1: the key */
static inline uint64_t rw_siphash(uint64_t k0, uint64_t k1, const uint8_t *bytes, uint32_t count) {
    struct rw_sip s = {k0 ^ 0x736f6d6570736575ull, k1 ^ 0x646f72616e646f6dull, k0 ^ 0x6c7967656e657261ull,
                       k1 ^ 0x7465646279746573ull};
    uint32_t whole = count & ~7u;
    for (uint32_t at = 0; at < whole; at += 8) {
        uint64_t word = rw_sip_load(bytes + at, 8);
        s.v3 ^= word;
        rw_sip_round(&s);
        s.v0 ^= word;
    }
    uint64_t last = (uint64_t)count << 56 | rw_sip_load(bytes + whole, count & 7u);
    s.v3 ^= last;
    rw_sip_round(&s);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    rw_sip_round(&s);
    rw_sip_round(&s);
    rw_sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

#endif
