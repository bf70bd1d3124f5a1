/* Clients that speak TLS, for tests of the core: OpenSSL on memory, between the bytes of a test and those of the wire.
 * With host->dress set, every helper of core_fixture.h works over TLS on every ring. */
#ifndef TLS_FIXTURE_H
#define TLS_FIXTURE_H

#include "core_fixture.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "test_certificates.h"

struct tls_peer {
    struct peer wire;
    SSL *ssl;
    size_t step;              /* ciphertext bytes sent at a time; 0: all at once */
    uint8_t failed, notified; /* the peer has broken off; has said close_notify */
    unsigned long reason;     /* of OpenSSL, when it failed */
};

FIXTURE struct tls_peer *tls_of(struct peer *peer) { return peer->layer_state; }

/* Ciphertext that OpenSSL wants to send goes out. */
FIXTURE void tls_push(struct host *host, struct peer *peer) {
    struct tls_peer *tls = tls_of(peer);
    uint8_t bytes[4096];
    size_t most = tls->step ? tls->step : sizeof bytes;
    for (int count; (count = BIO_read(SSL_get_wbio(tls->ssl), bytes, (int)most)) > 0;) {
        peer_send(host, &tls->wire, bytes, (size_t)count);
        if (tls->step) host_turn(host);
    }
}

FIXTURE void tls_note(struct tls_peer *tls, int result) {
    int error = SSL_get_error(tls->ssl, result);
    if (error == SSL_ERROR_ZERO_RETURN) tls->notified = 1;
    if (error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL) {
        tls->failed = 1;
        if (!tls->reason) tls->reason = ERR_peek_error();
    }
    ERR_clear_error();
}

FIXTURE void tls_feed(struct host *host, struct tls_peer *tls) {
    peer_pull(host, &tls->wire);
    if (tls->wire.in_bytes)
        assert_int_equal(BIO_write(SSL_get_rbio(tls->ssl), tls->wire.in, (int)tls->wire.in_bytes), tls->wire.in_bytes);
    peer_consume(&tls->wire, tls->wire.in_bytes);
}

FIXTURE void tls_layer_pull(struct host *host, struct peer *peer) {
    struct tls_peer *tls = tls_of(peer);
    tls_feed(host, tls);
    int result = 1;
    while (result > 0 && SSL_is_init_finished(tls->ssl)) {
        peer_make_room(peer);
        result = SSL_read(tls->ssl, peer->in + peer->in_bytes, 65536);
        if (result > 0) peer->in_bytes += (size_t)result;
    }
    if (result <= 0) tls_note(tls, result);
    tls_push(host, peer);
    if (tls->wire.ended) peer->ended = 1;
}

FIXTURE void tls_layer_send(struct host *host, struct peer *peer, const void *bytes, size_t count) {
    struct tls_peer *tls = tls_of(peer);
    for (size_t at = 0; at < count;) {
        int part = count - at > 16384 ? 16384 : (int)(count - at);
        int result = SSL_write(tls->ssl, (const uint8_t *)bytes + at, part);
        if (result <= 0) {
            tls_note(tls, result);
            return;
        }
        at += (size_t)result;
        tls_push(host, peer);
    }
}

FIXTURE void tls_layer_drop(struct peer *peer) {
    struct tls_peer *tls = tls_of(peer);
    SSL_free(tls->ssl);
    free(tls->wire.memory);
    free(tls);
}

static const struct peer_layer tls_layer
    __attribute__((unused)) = {.send = tls_layer_send, .pull = tls_layer_pull, .drop = tls_layer_drop};

FIXTURE SSL_CTX *tls_client_context(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    assert_non_null(context);
    return context;
}

/* certificate: that it shows, or NULL */
FIXTURE SSL_CTX *tls_client_with(int version, const struct certificate *certificate) {
    SSL_CTX *context = tls_client_context();
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_min_proto_version(context, version);
    if (certificate) {
        assert_int_equal(SSL_CTX_use_certificate(context, certificate->x509), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(context, certificate->key), 1);
    }
    return context;
}

/* Give a connected peer its SSL; nothing is sent yet. */
FIXTURE struct tls_peer *tls_dress(struct peer *peer, SSL_CTX *context, const char *name) {
    struct tls_peer *tls = calloc(1, sizeof *tls);
    assert_non_null(tls);
    tls->wire = (struct peer){.fd = peer->fd, .used = 1};
    tls->ssl = SSL_new(context);
    assert_non_null(tls->ssl);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in, -1);
    BIO_set_mem_eof_return(out, -1);
    SSL_set_bio(tls->ssl, in, out);
    SSL_set_connect_state(tls->ssl);
    if (name) assert_int_equal(SSL_set_tlsext_host_name(tls->ssl, name), 1);
    peer->layer = &tls_layer;
    peer->layer_state = tls;
    return tls;
}

/* ret: 1 the handshake is done, 0 it failed or nothing more came in many turns */
FIXTURE int tls_shake_hands(struct host *host, struct peer *peer) {
    struct tls_peer *tls = tls_of(peer);
    uint64_t end = test_now_ms() + 10000;
    for (uint32_t idle = 0; idle < 200 && test_now_ms() < end; idle++) {
        tls_feed(host, tls);
        int result = SSL_do_handshake(tls->ssl);
        if (result != 1) tls_note(tls, result);
        tls_push(host, peer);
        if (result == 1) return 1;
        if (tls->failed || tls->wire.ended) return 0;
        host_turn(host);
    }
    return 0;
}

FIXTURE struct peer *tls_connect(struct host *host, SSL_CTX *context, const char *name) {
    struct peer *peer = peer_connect_to(host, 0);
    tls_dress(peer, context, name);
    return peer;
}

/* A client that could talk to the host. */
FIXTURE struct peer *tls_open(struct host *host, SSL_CTX *context, const char *name) {
    struct peer *peer = tls_connect(host, context, name);
    assert_true(tls_shake_hands(host, peer));
    return peer;
}

/* The common name of the certificate that the server showed. */
FIXTURE const char *tls_shown_name(struct peer *peer) {
    static char name[256];
    X509 *shown = SSL_get1_peer_certificate(tls_of(peer)->ssl);
    assert_non_null(shown);
    X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, name, sizeof name);
    X509_free(shown);
    return name;
}

FIXTURE void tls_name(struct host *host, const char *name, uint32_t number, const struct rw_tls_options *options) {
    char error[256];
    if (rw_core_server_name(host->core, 3, name, number, options, error, sizeof error) != RW_OK) fail_msg("%s", error);
}

FIXTURE void tls_listen(struct host *host, const struct rw_tls_options *options) {
    char error[256];
    if (rw_core_listener_tls(host->core, 3, options, error, sizeof error) != RW_OK) fail_msg("%s", error);
}

/* ---------------------------------------------------------------- what the tests share */

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"

static struct certificate ca, leaf;
static SSL_CTX *client12, *client13; /* that speak TLS 1.2, TLS 1.3 only */

FIXTURE int make_certificates(void **state) {
    (void)state;
    ca = certificate_make("Test CA", NULL);
    leaf = certificate_make("leaf.test", &ca);
    client12 = tls_client_context();
    SSL_CTX_set_max_proto_version(client12, TLS1_2_VERSION);
    client13 = tls_client_context();
    SSL_CTX_set_min_proto_version(client13, TLS1_3_VERSION);
    return 0;
}

FIXTURE int free_certificates(void **state) {
    (void)state;
    SSL_CTX_free(client12);
    SSL_CTX_free(client13);
    certificate_free(&leaf);
    certificate_free(&ca);
    return 0;
}

FIXTURE struct host *tls_host(void **state, const struct rw_core_config *config) {
    struct host *host = host_open(state, config);
    struct rw_tls_options options = certificate_options(&leaf);
    tls_listen(host, &options);
    return host;
}

FIXTURE void get_and_answer(struct host *host, struct peer *peer) {
    peer_send_text(host, peer, GET("/a"));
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    assert_true(request->event.flags & RW_REQUEST_TLS);
    assert_int_equal(request->event.arg1 >> 8 & 0xFF, 3);
    host_respond(host, &request->event, 200, "X-A: b\r\n", "hello");
    peer_expect_response(host, peer, 200, "hello");
}

/* The first flight of a client. ret: its length */
FIXTURE size_t hello_of(SSL_CTX *context, uint8_t *out, size_t capacity) {
    SSL *ssl = SSL_new(context);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(ssl);
    (void)SSL_do_handshake(ssl);
    int bytes = BIO_read(SSL_get_wbio(ssl), out, (int)capacity);
    assert_true(bytes > 0);
    SSL_free(ssl);
    ERR_clear_error();
    return (size_t)bytes;
}

/* The handshake of `peer` waits for the host. ret: the event that says so */
FIXTURE struct record *expect_question(struct host *host, struct peer *peer, const char *asked) {
    assert_false(tls_shake_hands(host, peer)); /* it waits */
    assert_false(tls_of(peer)->failed);
    struct record *question = host_expect(host, RW_EVENT_SERVER_NAME);
    assert_string_equal((char *)question->payload, asked);
    assert_int_equal(question->event.arg0, 3);
    return question;
}

#endif
