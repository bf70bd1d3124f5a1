/**
 * The numbers that the module exports.
 * Role: pure. Of a compression, bits 0-7 name the compressor and bits 8-11 the decompressor, as `struct rw_behavior` of
 * ffi/include/ringway.h has them: a value goes to the core as it is.
 */

export const DISABLED = 0;
export const SHARED_COMPRESSOR = 1;
export const SHARED_DECOMPRESSOR = 1 << 8;

// zlib's windowBits << 4 | memLevel.
export const DEDICATED_COMPRESSOR_3KB = (9 << 4) | 1;
export const DEDICATED_COMPRESSOR_4KB = (9 << 4) | 2;
export const DEDICATED_COMPRESSOR_8KB = (10 << 4) | 3;
export const DEDICATED_COMPRESSOR_16KB = (11 << 4) | 4;
export const DEDICATED_COMPRESSOR_32KB = (12 << 4) | 5;
export const DEDICATED_COMPRESSOR_64KB = (13 << 4) | 6;
export const DEDICATED_COMPRESSOR_128KB = (14 << 4) | 7;
export const DEDICATED_COMPRESSOR_256KB = (15 << 4) | 8;
export const DEDICATED_COMPRESSOR = DEDICATED_COMPRESSOR_256KB;

// windowBits << 8.
export const DEDICATED_DECOMPRESSOR_512B = 9 << 8;
export const DEDICATED_DECOMPRESSOR_1KB = 10 << 8;
export const DEDICATED_DECOMPRESSOR_2KB = 11 << 8;
export const DEDICATED_DECOMPRESSOR_4KB = 12 << 8;
export const DEDICATED_DECOMPRESSOR_8KB = 13 << 8;
export const DEDICATED_DECOMPRESSOR_16KB = 14 << 8;
export const DEDICATED_DECOMPRESSOR_32KB = 15 << 8;
export const DEDICATED_DECOMPRESSOR = DEDICATED_DECOMPRESSOR_32KB;

export const LIBUS_LISTEN_DEFAULT = 0;
/** Refuse a port that anybody else listens on; without it several may, and the kernel shares connections between them. */
export const LIBUS_LISTEN_EXCLUSIVE_PORT = 1;
