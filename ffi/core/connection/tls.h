/* TLS 1.2 and 1.3 on listeners and connections, by OpenSSL without sockets.
 *
 * Role: ciphertext ↔ the plain bytes that http and ws know. Up: connection, http, command_batch, the host (ringway.h).
 * Down: OpenSSL, tls_context (certificates and settings), tls_names (SNI), tls_sessions and tls_tickets (resumption),
 * tls_staple (OCSP).
 *
 *   recv ──ciphertext──> [BIO] SSL_read ──> rw_connection_on_plain()
 *   outbox (plain, counted) ──> SSL_write [BIO] ──> waiting ──swap──> sending ──> ring
 *
 * Plain bytes stay in the outbox until the kernel has taken the whole ciphertext that stands for them, so that
 * out_bytes, backpressure, drain and the write timeout mean what they mean without TLS. Handshakes, tickets and alerts
 * are ciphertext that stands for nothing.
 *
 * Invariants: the bytes of `sending` never change and never move; OpenSSL writes to `waiting` only; both are bounded;
 * whoever holds a rw_tls_listener holds a reference, so that handshakes outlive rw_core_unlisten(). Split: tls.c
 * listeners, tls_connection.c handshake and receiving, tls_send.c sending, tls_identity.c who is at both ends. */
#ifndef RW_TLS_H
#define RW_TLS_H

#include <openssl/ssl.h>
#include <stdint.h>
#include <sys/uio.h>

#include "connection/core.h"
#include "connection/tls_context.h"
#include "connection/tls_names.h"
#include "connection/tls_tickets.h"

/* Four records at most, so that ciphertext fits the 64 KiB class of buffers. Overhead of a record: 5 header + 16 IV +
 * 48 MAC + 16 padding (AES-CBC with SHA-384, the worst); AEAD ciphers need 29 at most. */
#define RW_TLS_RECORD_BYTES 16384u
#define RW_TLS_RECORD_OVERHEAD 96u
#define RW_TLS_SEND_BYTES 65536u
/* Certificates, tickets and answers to key updates that a peer does not take; past it the connection ends. */
#define RW_TLS_WAITING_BYTES_MAX (128u << 10)
/* Ciphertext kept while the host looks for a server name. A client sends nothing more before our answer. */
#define RW_TLS_KEPT_BYTES_MAX 16384u

/* What the connections of a core share. */
struct rw_tls_shared {
    BIO_METHOD *bio;
    uint8_t ticket_secret[RW_TLS_SECRET_BYTES];
    uint8_t received[4 * RW_TLS_RECORD_BYTES]; /* plain bytes on their way to the protocol */
    uint8_t record[RW_TLS_RECORD_BYTES];       /* small segments on their way into one record */
    char name[RW_TLS_NAME_BYTES_MAX + 1];      /* that the present handshake asks for */
};

struct rw_tls_listener {
    struct rw_core *core;
    uint32_t refs; /* of the listener, and one for each of its connections */
    uint32_t index;
    struct rw_tls_context context; /* for whoever names no server, or none that is known */
    struct rw_tls_names names;
};

enum rw_tls_phase {
    RW_TLS_HELLO = 0, /* nothing that is surely TLS has come: no SSL yet */
    RW_TLS_HANDSHAKE = 1,
    RW_TLS_ASKING = 2, /* waits for RW_COMMAND_SERVER_NAME */
    RW_TLS_OPEN = 3,
    RW_TLS_FAILED = 4, /* an alert may still have to go out; nothing else */
};

struct rw_tls_bytes {
    rw_buffer buffer;
    uint32_t offset;
    uint32_t bytes;
};

struct rw_tls {
    SSL *ssl;
    struct rw_tls_listener *listener;
    char *name;        /* that the client has asked for, normal (tls_names.h); NULL: none */
    const uint8_t *in; /* ciphertext for OpenSSL to take, during a call */
    uint32_t in_bytes;
    struct rw_tls_bytes sending;
    struct rw_tls_bytes waiting;
    uint32_t covers; /* bytes of the outbox that `sending` stands for */
    uint16_t server_context;
    struct rw_protocol_list spoken; /* what the client may choose from */
    uint8_t protocol;               /* and has: by index in core->protocols */
    uint8_t phase;                  /* enum rw_tls_phase */
    uint8_t asked : 1;              /* the host was asked for the server name, once in a handshake */
    uint8_t begun : 1;              /* a byte has come */
    uint8_t counted : 1;            /* tls_errors has it */
    uint8_t notified : 1;           /* close_notify is written */
};

/* ------------------------------------------------------------------ tls.c */

struct rw_tls_listener *rw_tls_listener_retain(struct rw_tls_listener *listener);
/* One reference less; NULL is fine. */
void rw_tls_listener_release(struct rw_tls_listener *listener);
void rw_tls_shared_destroy(struct rw_tls_shared *shared);

/* ------------------------------------------------------------------ tls_connection.c */

/* A connection from a TLS listener has its slot. ret: RW_OK or -ENOMEM */
int32_t rw_tls_accept(struct rw_slot *slot, const struct rw_listener *listener);
/* Nothing is in flight: free everything. */
void rw_tls_release(struct rw_core *core, struct rw_slot *slot);
/* Ciphertext has come for an OPEN slot. What it says reaches rw_connection_on_plain(); the slot may have ended
 * afterwards. */
void rw_tls_input(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, uint32_t len);
/* Go on with a handshake that is on the ready list. */
void rw_tls_serve(struct rw_core *core, struct rw_slot *slot);
/* RW_COMMAND_SERVER_NAME. ret: RW_OK, or RW_ERR_STALE: nothing waits for it */
int32_t rw_tls_answer_name(struct rw_core *core, struct rw_slot *slot);
/* OpenSSL's arg is none of it: the connection is the app data of `ssl`. */
int rw_tls_on_client_hello(SSL *ssl, int *alert, void *arg);

static inline int rw_tls_is_open(const struct rw_tls *tls) { return tls->phase == RW_TLS_OPEN; }
/* A handshake has begun and is not over. */
static inline int rw_tls_is_shaking_hands(const struct rw_tls *tls) { return tls->begun && tls->phase < RW_TLS_OPEN; }

/* ------------------------------------------------------------------ tls_identity.c */

/* May a request for `host` ("name:port", as in its head) come on this connection? Not when that name demands what this
 * connection has not shown: a client certificate, a later version, better ciphers.
 * ret: 1, or 0: answer 421 (RFC 9110 §15.5.20) */
int rw_tls_may_serve(const struct rw_tls *tls, const uint8_t *host, size_t bytes);

/* ------------------------------------------------------------------ tls_send.c */

static inline int rw_tls_has_output(const struct rw_tls *tls) { return tls->sending.bytes || tls->waiting.bytes; }
/* Ciphertext for the next send, which stays where it is until rw_tls_sent() has been told of all of it. No send may be
 * in flight. out: *iov; *plain: bytes of the outbox it stands for
 * ret: 1, 0 nothing to send, -EPROTO the connection must end */
int32_t rw_tls_fill(struct rw_core *core, struct rw_slot *slot, struct iovec *iov, uint32_t *plain);
/* The kernel took `bytes` of it. ret: bytes of the outbox that are done with */
uint32_t rw_tls_sent(struct rw_core *core, struct rw_tls *tls, uint32_t bytes);
/* Say close_notify, unless that was said or makes no sense any more. ret: 1 there is output, 0 there is none */
int rw_tls_end(struct rw_core *core, struct rw_slot *slot);
/* The outbox was emptied: ciphertext in flight stands for nothing. */
static inline void rw_tls_forget_plain(struct rw_tls *tls) { tls->covers = 0; }
/* ret: a method whose reads take tls->in and whose writes go to tls->waiting, or NULL */
BIO_METHOD *rw_tls_bio_create(void);
void rw_tls_bytes_release(struct rw_core *core, struct rw_tls_bytes *bytes);

#endif
