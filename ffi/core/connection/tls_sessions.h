/* How long sessions of TLS are resumed, and when a client gets another ticket.
 *
 * Role: callbacks of OpenSSL. Up: tls_context. Down: OpenSSL. Keys of tickets are tls_tickets'.
 *
 * With TLS 1.3 each resumption brings a ticket: a client uses each of its own once (RFC 8446 §C.4), so that it would
 * run out of them. Since tickets renew themselves then, a session carries the time of its whole handshake, and ends
 * with that (RFC 8446 §4.6.1) or with the client's certificate. */
#ifndef RW_TLS_SESSIONS_H
#define RW_TLS_SESSIONS_H

#include <openssl/ssl.h>
#include <stdint.h>

/* From the whole handshake to the last resumption. */
#define RW_TLS_SESSION_SECONDS_MAX 86400u

/* ret: 1 or 0 */
int rw_tls_sessions_set_up(SSL_CTX *ssl);
/* Note when the session began, unless it has that. ret: 1, or 0 out of memory */
int rw_tls_session_begin(SSL_SESSION *session, uint64_t wall_seconds);
/* ret: 1 it may be resumed; 0 it has lasted too long, or the client's certificate has expired */
int rw_tls_session_may_go_on(SSL_SESSION *session, uint64_t wall_seconds);

#endif
