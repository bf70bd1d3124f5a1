/* Sessions of TLS, see tls_sessions.h. */
#include "connection/tls_sessions.h"

#include <openssl/x509.h>
#include <string.h>
#include <time.h>

static uint64_t wall_seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec;
}

int rw_tls_session_begin(SSL_SESSION *session, uint64_t wall_seconds) {
    void *there;
    size_t bytes;
    /* What was resumed has the time that its ticket had. */
    if (SSL_SESSION_get0_ticket_appdata(session, &there, &bytes) && bytes == sizeof wall_seconds) return 1;
    return SSL_SESSION_set1_ticket_appdata(session, &wall_seconds, sizeof wall_seconds);
}

int rw_tls_session_may_go_on(SSL_SESSION *session, uint64_t wall_seconds) {
    void *there;
    size_t bytes;
    uint64_t began;
    if (!SSL_SESSION_get0_ticket_appdata(session, &there, &bytes) || bytes != sizeof began) return 0;
    memcpy(&began, there, sizeof began);
    /* A clock that was set back makes it young, which a ticket's own life limits. */
    if (wall_seconds > began && wall_seconds - began >= RW_TLS_SESSION_SECONDS_MAX) return 0;
    const X509 *shown = SSL_SESSION_get0_peer(session);
    time_t now = (time_t)wall_seconds;
    return !shown || X509_cmp_time(X509_get0_notAfter(shown), &now) > 0;
}

static int on_ticket(SSL *ssl, void *arg) {
    (void)arg;
    return rw_tls_session_begin(SSL_get_session(ssl), wall_seconds_now());
}

static SSL_TICKET_RETURN on_ticket_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *key_name,
                                          size_t key_name_bytes, SSL_TICKET_STATUS status, void *arg) {
    (void)key_name, (void)key_name_bytes, (void)arg;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (!rw_tls_session_may_go_on(session, wall_seconds_now())) return SSL_TICKET_RETURN_IGNORE_RENEW;
    /* With TLS 1.2 the ticket serves again, until its key grows old. */
    return status == SSL_TICKET_SUCCESS_RENEW || SSL_version(ssl) == TLS1_3_VERSION ? SSL_TICKET_RETURN_USE_RENEW
                                                                                    : SSL_TICKET_RETURN_USE;
}

int rw_tls_sessions_set_up(SSL_CTX *ssl) {
    return SSL_CTX_set_session_ticket_cb(ssl, on_ticket, on_ticket_opened, NULL) == 1;
}
