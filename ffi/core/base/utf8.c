/* Incremental UTF-8 validation.
 * Role: pure function; each text message passes through it, most of them short and ASCII. Up: ws. Down: nothing.
 *
 * Text goes in blocks of 32 bytes or what is left. A block of ASCII at a character border is seen in four loads; any
 * other goes byte by byte through a state machine whose whole row for one octet is a 64-bit word:
 *
 *      row[octet]   | F4 | F0 | ED | E0 | N3 | N2 | N1 | X | A |      6 bits each
 *
 * The present state is the bit position of its cell, the cell holds the next state: one load and one shift an octet,
 * and the load does not wait for the state. A state that callers see is its cell's number.
 *
 * Invariant: X (reject) leads to X only, so looking at the end of a block finds a bad octet anywhere in it. */
#include "base/utf8.h"

#include <assert.h>

#include "base/load.h"

enum state {
    A = 0,   /* at a character border */
    X = 6,   /* rejected */
    N1 = 12, /* one more continuation octet */
    N2 = 18, /* two more */
    N3 = 24, /* three more */
    E0 = 30, /* after E0: A0..BF, since less would be overlong */
    ED = 36, /* after ED: 80..9F, since more would be a surrogate */
    F0 = 42, /* after F0: 90..BF, since less would be overlong */
    F4 = 48, /* after F4: 80..8F, since more would be above U+10FFFF */
};
#define CELL_BITS 6u
#define CELL_MASK 63u

static_assert(A / CELL_BITS == RW_UTF8_ACCEPT, "public and inner states are the same numbers");
static_assert(X / CELL_BITS == RW_UTF8_REJECT, "public and inner states are the same numbers");
static_assert(F4 + CELL_BITS <= 64, "a row is one word");

#define ROW(a, n1, n2, n3, e0, ed, f0, f4)                                                                        \
    ((uint64_t)(a) << A | (uint64_t)X << X | (uint64_t)(n1) << N1 | (uint64_t)(n2) << N2 | (uint64_t)(n3) << N3 | \
     (uint64_t)(e0) << E0 | (uint64_t)(ed) << ED | (uint64_t)(f0) << F0 | (uint64_t)(f4) << F4)
#define LEAD(next) ROW(next, X, X, X, X, X, X, X)

/* Unicode 15 table 3-7 (well-formed UTF-8 byte sequences), by octet. */
static const uint64_t rows[256] = {
    [0x00 ... 0x7F] = LEAD(A),
    [0x80 ... 0x8F] = ROW(X, A, N1, N2, X, N1, X, N2),
    [0x90 ... 0x9F] = ROW(X, A, N1, N2, X, N1, N2, X),
    [0xA0 ... 0xBF] = ROW(X, A, N1, N2, N1, X, N2, X),
    [0xC0 ... 0xC1] = LEAD(X), /* would be overlong ASCII */
    [0xC2 ... 0xDF] = LEAD(N1),
    [0xE0] = LEAD(E0),
    [0xE1 ... 0xEC] = LEAD(N2),
    [0xED] = LEAD(ED),
    [0xEE ... 0xEF] = LEAD(N2),
    [0xF0] = LEAD(F0),
    [0xF1 ... 0xF3] = LEAD(N3),
    [0xF4] = LEAD(F4),
    [0xF5 ... 0xFF] = LEAD(X), /* would be above U+10FFFF */
};

#define HIGH_BITS UINT64_C(0x8080808080808080)
#define BLOCK_BYTES 32u

/* Is bytes[0..len), len 0..BLOCK_BYTES, all ASCII? From 4 bytes up, loads from either end overlap in the
 * middle instead of looping. */
static inline int block_is_ascii(const uint8_t *bytes, size_t len) {
    uint64_t seen = 0;

    if (len >= 16)
        seen = rw_load_64(bytes) | rw_load_64(bytes + 8) | rw_load_64(bytes + len - 16) | rw_load_64(bytes + len - 8);
    else if (len >= 8) seen = rw_load_64(bytes) | rw_load_64(bytes + len - 8);
    else if (len >= 4) seen = rw_load_32(bytes) | rw_load_32(bytes + len - 4);
    else
        for (size_t i = 0; i < len; i++) seen |= bytes[i];
    return (seen & HIGH_BITS) == 0;
}

/* ret: the state after bytes[0..len) */
static inline uint64_t step(uint64_t state, const uint8_t *bytes, size_t len) {
    /* Unrolled, the loads of eight rows run ahead of the chain of shifts: three times as fast as one by one. */
#pragma GCC unroll 8
    for (size_t i = 0; i < len; i++) state = rows[bytes[i]] >> (state & CELL_MASK);
    return state & CELL_MASK;
}

uint32_t rw_utf8_feed(uint32_t state, const uint8_t *bytes, size_t len) {
    assert(state <= F4 / CELL_BITS);
    /* The hot path, kept apart so that it needs no loop. */
    if (state == RW_UTF8_ACCEPT && len <= BLOCK_BYTES && block_is_ascii(bytes, len)) return RW_UTF8_ACCEPT;

    uint64_t inner = (uint64_t)state * CELL_BITS;

    while (len > 0 && inner != X) {
        const size_t block = len < BLOCK_BYTES ? len : BLOCK_BYTES;
        if (inner != A || !block_is_ascii(bytes, block)) inner = step(inner, bytes, block);
        bytes += block;
        len -= block;
    }
    return (uint32_t)inner / CELL_BITS;
}
