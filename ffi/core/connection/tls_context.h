/* Certificates and settings of one server name: options of the host → SSL_CTX.
 *
 * Role: everything that is read from files, with a sentence for each mistake. Up: tls, tls_names. Down: OpenSSL.
 * A context is complete or not made at all, so that a reload that fails changes nothing. */
#ifndef RW_TLS_CONTEXT_H
#define RW_TLS_CONTEXT_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include "ringway.h"

#define RW_TLS_SESSION_CONTEXT_BYTES 32u

struct rw_tls_context {
    SSL_CTX *ssl; /* refcounted by OpenSSL: connections keep theirs when this is replaced */
    /* Sessions are resumed only where the same certificate is shown and the same client certificates are asked for.
     * Else a client could be led with its ticket to a name that it has not verified (RFC 6066 §3), or get in without a
     * certificate by a ticket from a name that asks for none. A digest of the certificates and of all that clients are
     * judged by, the same in every worker. */
    uint8_t session_context[RW_TLS_SESSION_CONTEXT_BYTES];
    /* Which clients are let in: contexts with the same number ask for the same certificates. 0: no certificate is asked
     * for. */
    uint64_t client_policy;
};

/* The client_policy of the context that a connection has, which its listener may have replaced since. */
uint64_t rw_tls_client_policy_of(const SSL *ssl);

/* ret: RW_OK; RW_ERR_INVALID, and a sentence in *error that names the file */
int32_t rw_tls_context_create(struct rw_tls_context *context, const struct rw_tls_options *options, char *error,
                              size_t error_bytes);
void rw_tls_context_release(struct rw_tls_context *context);
/* Let a handshake that has just begun go on with this context. ret: 1, or 0 out of memory */
int rw_tls_context_use(const struct rw_tls_context *context, SSL *ssl);

#endif
