/* Incremental UTF-8 validation (RFC 3629; Unicode table 3-7): surrogates, overlongs and values over U+10FFFF are
 * refused at the first bad octet.
 * Role: pure function. Up: ws. */
#ifndef RW_UTF8_H
#define RW_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define RW_UTF8_ACCEPT 0u /* at a character border */
#define RW_UTF8_REJECT 1u /* not UTF-8; stays so */

/* Feed bytes[0..len). state: RW_UTF8_ACCEPT at first. ret: the new state; any other value than the two above means
 * within a character. Splitting the input anywhere gives the same states. Long runs of ASCII are checked 16 bytes or
 * more at a time. */
uint32_t rw_utf8_feed(uint32_t state, const uint8_t *bytes, size_t len);

#endif
