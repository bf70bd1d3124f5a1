/* The PROXY protocol, versions 1 and 2: what a proxy says of its client before the client's first byte.
 *
 * Role: a pure parser. Up: connection, for listeners with RW_LISTENER_PROXY_PROTOCOL or RW_LISTENER_PROXY_REQUIRED.
 * Down: nothing. With the first alone a header is optional: bytes that are none belong to the client, and are told from
 * one as early as they differ.
 * Source: proxy-protocol.txt of HAProxy, "The PROXY protocol, Versions 1 & 2". */
#ifndef RW_PROXY_H
#define RW_PROXY_H

#include <stddef.h>
#include <stdint.h>

#define RW_PROXY_V1_BYTES_MAX 107u        /* §2.1: the longest line, with its CRLF */
#define RW_PROXY_V2_FIXED_BYTES 16u       /* §2.2: signature, version and command, family and transport, length */
#define RW_PROXY_V2_BLOCK_BYTES_MAX 4096u /* addresses and extensions; longer ones are refused */
/* Bytes that are no header are known as such within so many. */
#define RW_PROXY_DECISION_BYTES 12u

enum rw_proxy_result {
    RW_PROXY_ABSENT = -1,    /* the bytes are the client's own */
    RW_PROXY_MALFORMED = -2, /* a header began and is none: the connection cannot be trusted (§2) */
};

struct rw_proxy_source {
    uint8_t address[16]; /* network order */
    uint16_t port;
    uint8_t address_bytes; /* 4 or 16; 0: the header names no address (UNKNOWN, LOCAL, a Unix socket) */
    uint8_t local;         /* 1: LOCAL: the proxy has connected for itself, for a health check say */
};

/* Decode the header at the front of bytes[0..len).
 * out: *source, written only when the result is > 0
 * ret: > 0 header bytes | 0 need more | enum rw_proxy_result */
int32_t rw_proxy_parse(const uint8_t *bytes, size_t len, struct rw_proxy_source *source);

#endif
