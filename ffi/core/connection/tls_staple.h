/* OCSP responses that are sent with a certificate (stapling, RFC 6066 §8).
 *
 * Role: files → what SSL_CTX sends. Up: tls_context. Down: OpenSSL. Responses are fetched by others: a file is
 * replaced, and loaded again. */
#ifndef RW_TLS_STAPLE_H
#define RW_TLS_STAPLE_H

#include <openssl/ssl.h>
#include <stddef.h>

#define RW_TLS_STAPLE_BYTES_MAX 16384u

/* For the certificate that was loaded last; lives as long as the context. A response that has expired is not sent.
 * ret: 1, or 0 and a sentence in *error that names the file */
int rw_tls_staple_load(SSL_CTX *ssl, const char *path, char *error, size_t error_bytes);

#endif
