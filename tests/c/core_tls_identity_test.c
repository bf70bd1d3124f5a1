/* Who is at both ends of a TLS connection, through the whole core: names that ask for client certificates, and requests
 * that name another. */
#include "tls_fixture.h"

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* What a request for `named` is answered on a connection. `upgrade`: it is a handshake of a WebSocket */
static void expect_status(struct host *host, struct peer *peer, const char *named, int upgrade, uint32_t status) {
    char head[512];
    snprintf(
        head, sizeof head, "GET /a HTTP/1.1\r\nHost: %s\r\n%s\r\n", named,
        upgrade ? "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY
                  "\r\n"
                : "");
    peer_send_text(host, peer, head);
    if (status == 200) {
        struct record *request = host_expect(host, RW_EVENT_REQUEST);
        host_respond(host, &request->event, 200, "", "");
        peer_expect_response(host, peer, 200, "");
    } else {
        peer_expect_head(host, peer, status);
    }
}

static void expect_first_status(struct host *host, SSL_CTX *context, const char *asked, const char *named,
                                uint32_t status) {
    for (int upgrade = 0; upgrade < (status == 200 ? 1 : 2); upgrade++) {
        struct peer *peer = tls_open(host, context, asked);
        expect_status(host, peer, named, upgrade, status);
        peer_close(host, peer);
        host_turns(host, 3);
    }
}

static void a_name_that_asks_for_a_certificate_is_not_served_on_a_connection_of_another(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct certificate friend = certificate_make("friend.test", &ca), other_ca = certificate_make("Other CA", NULL);
    struct rw_tls_options plain = certificate_options(&leaf), private = plain, other = plain;
    private.ca_file = ca.cert_file.path;
    other.ca_file = other_ca.cert_file.path;
    tls_name(host, "private.test", 1, &private);
    tls_name(host, "*.private.test", 2, &private);
    tls_name(host, "public.test", 3, &plain);
    tls_name(host, "other.test", 4, &other);
    for (int i = 0; i < 2; i++) {
        SSL_CTX *none = tls_client_with(versions[i], NULL), *known = tls_client_with(versions[i], &friend);
        static const char *const refused[] = {"private.test", "PRIVATE.test:8443", "private.test.", "a.private.test",
                                              "other.test"};
        for (size_t j = 0; j < sizeof refused / sizeof refused[0]; j++) {
            expect_first_status(host, none, "public.test", refused[j], 421);
            expect_first_status(host, none, "unknown.test", refused[j], 421);
            expect_first_status(host, none, NULL, refused[j], 421);
        }
        /* In the form that a proxy is asked, the target counts (RFC 9112 §3.2.2). */
        struct peer *absolute = tls_open(host, none, "public.test");
        peer_send_text(host, absolute, "GET http://private.test/a HTTP/1.1\r\nHost: public.test\r\n\r\n");
        peer_expect_head(host, absolute, 421);
        peer_close(host, absolute);
        /* Who has shown a certificate to one of them is known to all that ask for the same. */
        expect_first_status(host, known, "private.test", "private.test", 200);
        expect_first_status(host, known, "private.test", "a.private.test:1", 200);
        expect_first_status(host, known, "private.test", "public.test", 200);
        expect_first_status(host, known, "private.test", "other.test", 421);
        static const char *const served[] = {"public.test", "unknown.test",     "127.0.0.1:8443",
                                             "[::1]:8443",  "a.b.private.test", "localhost"};
        for (size_t j = 0; j < sizeof served / sizeof served[0]; j++)
            expect_first_status(host, none, "public.test", served[j], 200);
        /* Each request of a connection is judged. */
        struct peer *kept = tls_open(host, none, NULL);
        expect_status(host, kept, "public.test", 0, 200);
        expect_status(host, kept, "private.test", 0, 421);
        peer_close(host, kept);
        SSL_CTX_free(none);
        SSL_CTX_free(known);
    }
    host_close(host);
    certificate_free(&friend);
    certificate_free(&other_ca);
}

static void a_listener_that_asks_for_certificates_is_not_served_by_a_name_that_does_not(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct rw_tls_options plain = certificate_options(&leaf), private = plain;
    private.ca_file = ca.cert_file.path;
    tls_listen(host, &private);
    tls_name(host, "open.test", 1, &plain);
    for (int i = 0; i < 2; i++) {
        SSL_CTX *none = tls_client_with(versions[i], NULL);
        expect_first_status(host, none, "open.test", "open.test", 200);
        expect_first_status(host, none, "open.test", "any.test", 421);
        expect_first_status(host, none, "open.test", "[::1]", 421);
        SSL_CTX_free(none);
    }
    host_close(host);
}

static void a_name_is_served_with_its_least_version_and_its_ciphers_only(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct rw_tls_options newer = certificate_options(&leaf), stronger = newer;
    newer.min_version = TLS1_3_VERSION;
    stronger.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384";
    tls_name(host, "newer.test", 1, &newer);
    tls_name(host, "stronger.test", 2, &stronger);
    expect_first_status(host, client12, "a.test", "newer.test", 421);
    expect_first_status(host, client12, "a.test", "stronger.test", 421);
    expect_first_status(host, client12, "stronger.test", "a.test", 200);
    expect_first_status(host, client13, "a.test", "newer.test", 200);
    expect_first_status(host, client13, "a.test", "stronger.test", 200);
    host_close(host);
}

/* What stands goes on when the authorities of its name are loaded again, since nothing is known against it. */
static void a_connection_is_served_by_its_own_name_after_that_was_loaded_again(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct certificate friend = certificate_make("friend.test", &ca), next_ca = certificate_make("Next CA", NULL);
    struct rw_tls_options private = certificate_options(&leaf);
    private.ca_file = ca.cert_file.path;
    tls_name(host, "private.test", 1, &private);
    SSL_CTX *known = tls_client_with(TLS1_3_VERSION, &friend);
    struct peer *peer = tls_open(host, known, "private.test");
    expect_status(host, peer, "private.test", 0, 200);
    private.ca_file = next_ca.cert_file.path;
    tls_name(host, "private.test", 1, &private);
    expect_status(host, peer, "private.test", 0, 200);
    SSL_CTX_free(known);
    host_close(host);
    certificate_free(&friend);
    certificate_free(&next_ca);
}

/* A client may send a second hello when the server lacks its key (RFC 8446 §4.1.2), and change what it asks for. */
static void a_second_hello_without_a_name_gets_what_the_listener_asks_for(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct rw_tls_options plain = certificate_options(&leaf), private = plain;
    private.ca_file = ca.cert_file.path;
    tls_listen(host, &private);
    tls_name(host, "open.test", 1, &plain);
    for (int change = 0; change < 2; change++) {
        struct peer *peer = tls_connect(host, client13, "open.test");
        struct tls_peer *tls = tls_of(peer);
        assert_int_equal(SSL_set1_groups_list(tls->ssl, "P-521:X25519"), 1);
        assert_int_equal(SSL_do_handshake(tls->ssl), -1);
        tls_push(host, peer);
        host_turns(host, 5);
        if (change) assert_int_equal(SSL_set_tlsext_host_name(tls->ssl, NULL), 1);
        uint64_t before = host->core->stats->tls_handshakes;
        (void)tls_shake_hands(host, peer);
        host_turns(host, 5);
        assert_int_equal(host->core->stats->tls_handshakes - before, !change);
        peer_close(host, peer);
    }
    host_close(host);
}

/* The certificate may be left out, but a session without it leads nowhere that needs one. */
static void an_optional_certificate_is_told_and_its_absence_is_not_resumed_where_one_is_required(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct certificate friend = certificate_make("friend.test", &ca);
    struct rw_tls_options required = certificate_options(&leaf), optional = required;
    required.ca_file = optional.ca_file = ca.cert_file.path;
    optional.flags = RW_TLS_CLIENT_OPTIONAL;
    tls_name(host, "required.test", 1, &required);
    tls_name(host, "optional.test", 2, &optional);
    for (int i = 0; i < 4; i++) {
        int shows = i & 1;
        SSL_CTX *context = tls_client_with(versions[i / 2], shows ? &friend : NULL);
        struct peer *peer = tls_open(host, context, "Optional.test");
        peer_send_text(host, peer, GET("/a"));
        struct record *request = host_expect(host, RW_EVENT_REQUEST);
        uint8_t told[2048];
        uint32_t version;
        int32_t bytes =
            rw_core_tls(host->core, request->event.slot, request->event.generation, told, sizeof told, &version);
        assert_int_equal(version, versions[i / 2]);
        assert_memory_equal(told, "\x0d\0optional.test", 15);
        assert_int_equal(bytes, 15 + (shows ? i2d_X509(friend.x509, NULL) : 0));
        if (shows) {
            const uint8_t *der = told + 15;
            X509 *parsed = d2i_X509(NULL, &der, bytes - 15);
            assert_non_null(parsed);
            assert_int_equal(X509_cmp(parsed, friend.x509), 0);
            X509_free(parsed);
        }
        /* Without room nothing is written, and the length is told all the same. */
        told[0] = 7;
        assert_int_equal(rw_core_tls(host->core, request->event.slot, request->event.generation, told, 14, &version),
                         bytes);
        assert_int_equal(told[0], 7);
        assert_int_equal(
            rw_core_tls(host->core, request->event.slot, request->event.generation + 1, told, 14, &version),
            RW_ERR_STALE);
        host_respond(host, &request->event, 200, "", "");
        peer_expect_response(host, peer, 200, "");
        SSL_SESSION *session = SSL_get1_session(tls_of(peer)->ssl);
        SSL_CTX *bare = tls_client_with(versions[i / 2], NULL);
        struct peer *intruder = tls_connect(host, bare, "required.test");
        assert_int_equal(SSL_set_session(tls_of(intruder)->ssl, session), 1);
        uint64_t before = host->core->stats->tls_handshakes;
        (void)tls_shake_hands(host, intruder);
        host_turns(host, 5);
        assert_int_equal(host->core->stats->tls_handshakes, before);
        peer_close(host, intruder);
        if (!shows) expect_first_status(host, context, "optional.test", "required.test", 421);
        SSL_SESSION_free(session);
        SSL_CTX_free(bare);
        SSL_CTX_free(context);
    }
    host_close(host);
    certificate_free(&friend);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_name_that_asks_for_a_certificate_is_not_served_on_a_connection_of_another),
        ON_SIM(a_listener_that_asks_for_certificates_is_not_served_by_a_name_that_does_not),
        ON_SIM(a_name_is_served_with_its_least_version_and_its_ciphers_only),
        ON_SIM(a_connection_is_served_by_its_own_name_after_that_was_loaded_again),
        ON_EVERY_RING(an_optional_certificate_is_told_and_its_absence_is_not_resumed_where_one_is_required),
        ON_EVERY_RING(a_second_hello_without_a_name_gets_what_the_listener_asks_for),
    };
    return cmocka_run_group_tests_name("both ends of TLS are known", tests, make_certificates, free_certificates);
}
