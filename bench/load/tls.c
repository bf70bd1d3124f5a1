/* TLS for any command: OpenSSL over the connection's own socket, beneath everything that net.c does.
 *
 * The certificate is not verified: whoever runs us has made it a moment ago, and this is no test of trust. */
#include "load.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>

static SSL_CTX *context;

_Noreturn static void fail_tls(const char *what) {
    const unsigned long error = ERR_get_error();
    fail("%s: %s", what,
         error != 0   ? ERR_reason_error_string(error)
         : errno != 0 ? strerror(errno)
                      : "the server closed the connection");
}

void tls_prepare(void) {
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL) fail_tls("SSL_CTX_new");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    /* What the kernel does not take is kept by net.c and comes again from another address. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* an end without close_notify is for the workload to judge, as without TLS */
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_read_ahead(context, 1); /* one recv(2) for a record instead of two, one of them for its header */
    signal(SIGPIPE, SIG_IGN);           /* OpenSSL writes without MSG_NOSIGNAL */
}

void tls_begin(struct connection *connection) {
    connection->tls = SSL_new(context);
    if (connection->tls == NULL || SSL_set_fd(connection->tls, connection->fd) != 1) fail_tls("SSL_new");
    SSL_set_connect_state(connection->tls);
}

enum tls_step tls_handshake(struct connection *connection) {
    ERR_clear_error();
    errno = 0;
    const int result = SSL_do_handshake(connection->tls);
    if (result == 1) return TLS_DONE;
    switch (SSL_get_error(connection->tls, result)) {
        case SSL_ERROR_WANT_READ: return TLS_WANTS_READ;
        case SSL_ERROR_WANT_WRITE: return TLS_WANTS_WRITE;
        default: fail_tls("the TLS handshake");
    }
}

/* A failure of SSL_read_ex(3) or SSL_write_ex(3), as recv(2) and send(2) would tell it. */
static ssize_t why_not(struct connection *connection, const char *what, int result) {
    switch (SSL_get_error(connection->tls, result)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
        case SSL_ERROR_ZERO_RETURN: return 0;
        default: fail_tls(what);
    }
}

ssize_t tls_send(struct connection *connection, const void *bytes, size_t len) {
    size_t sent = 0;
    while (sent < len) {
        size_t part = 0;
        ERR_clear_error();
        errno = 0;
        const int result = SSL_write_ex(connection->tls, (const uint8_t *)bytes + sent, len - sent, &part);
        if (result != 1) return sent > 0 ? (ssize_t)sent : why_not(connection, "TLS send", result);
        sent += part;
    }
    return (ssize_t)sent;
}

ssize_t tls_recv(struct connection *connection, void *bytes, size_t len) {
    size_t part = 0;
    ERR_clear_error();
    errno = 0;
    const int result = SSL_read_ex(connection->tls, bytes, len, &part);
    return result == 1 ? (ssize_t)part : why_not(connection, "TLS receive", result);
}

int tls_holds_input(const struct connection *connection) { return SSL_has_pending(connection->tls); }

void tls_end(struct connection *connection) {
    SSL_free(connection->tls);
    connection->tls = NULL;
}
