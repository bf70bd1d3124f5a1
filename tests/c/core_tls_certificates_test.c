/* Certificates beyond one for each name, through the whole core: several kinds of key, stapled OCSP responses, lists of
 * revoked ones. */
#include "tls_fixture.h"

#include <openssl/ocsp.h>

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* ---------------------------------------------------------------- kinds of key */

static void a_client_is_shown_the_kind_of_certificate_that_it_can_use(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct certificate rsa = certificate_for(EVP_RSA_gen(2048), "rsa.test", &ca, NULL),
                       named = certificate_for(EVP_RSA_gen(2048), "named-rsa.test", &ca, "secret");
    struct rw_tls_options second = certificate_options(&rsa), both = certificate_options(&leaf);
    both.also = &second;
    tls_listen(host, &both);
    struct rw_tls_options locked = certificate_options(&named), name = certificate_options(&leaf);
    locked.passphrase = "secret";
    name.also = &locked;
    tls_name(host, "named.test", 1, &name);
    static const struct {
        const char *ciphers, *sigalgs, *asked, *shown;
    } cases[] = {
        {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA+SHA256", NULL, "leaf.test"},
        {"ECDHE-RSA-AES128-GCM-SHA256", "RSA-PSS+SHA256:RSA+SHA256", NULL, "rsa.test"},
        {"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256", "ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256", NULL,
         "leaf.test"},
        {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA+SHA256", "named.test", "leaf.test"},
        {"ECDHE-RSA-AES128-GCM-SHA256", "RSA-PSS+SHA256:RSA+SHA256", "named.test", "named-rsa.test"},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        SSL_CTX *context = tls_client_with(versions[i & 1], NULL);
        assert_int_equal(SSL_CTX_set_cipher_list(context, cases[i / 2].ciphers), 1);
        assert_int_equal(SSL_CTX_set1_sigalgs_list(context, cases[i / 2].sigalgs), 1);
        struct peer *peer = tls_open(host, context, cases[i / 2].asked);
        assert_string_equal(tls_shown_name(peer), cases[i / 2].shown);
        get_and_answer(host, peer);
        peer_close(host, peer);
        SSL_CTX_free(context);
    }
    host_close(host);
    certificate_free(&rsa);
    certificate_free(&named);
}

static void expect_mistake(struct host *host, const struct rw_tls_options *options, const char *file,
                           const char *what) {
    char error[512];
    assert_int_equal(rw_core_listener_tls(host->core, 4, options, error, sizeof error), RW_ERR_INVALID);
    if (!strstr(error, file) || !strstr(error, what)) fail_msg("'%s' does not say '%s' of '%s'", error, what, file);
}

static void a_second_certificate_must_be_of_another_kind_and_whole(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct certificate same = certificate_make("same.test", &ca),
                       rsa = certificate_for(EVP_RSA_gen(2048), "rsa.test", &ca, NULL);
    struct rw_tls_options second = certificate_options(&same), first = certificate_options(&leaf);
    first.also = &second;
    expect_mistake(host, &first, same.cert_file.path, "same kind of key");
    second = certificate_options(&rsa);
    second.key_file = same.key_file.path;
    expect_mistake(host, &first, same.key_file.path, "does not match the certificate");
    second = (struct rw_tls_options){.cert_file = rsa.cert_file.path};
    expect_mistake(host, &first, "", "needs a certificate and its key");
    second = (struct rw_tls_options){.cert_file = "/nowhere/rsa.pem", .key_file = rsa.key_file.path};
    expect_mistake(host, &first, "/nowhere/rsa.pem", "No such file or directory");
    host_close(host);
    certificate_free(&same);
    certificate_free(&rsa);
}

/* The authorities of clients are no part of what the server shows of itself, though one of them has signed its
 * certificate. */
static void only_the_certificates_of_the_file_are_shown(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct rw_tls_options options = certificate_options(&leaf);
    options.ca_file = ca.cert_file.path;
    options.flags = RW_TLS_CLIENT_OPTIONAL;
    tls_listen(host, &options);
    for (int i = 0; i < 2; i++) {
        SSL_CTX *context = tls_client_with(versions[i], NULL);
        struct peer *peer = tls_open(host, context, NULL);
        assert_int_equal(sk_X509_num(SSL_get_peer_cert_chain(tls_of(peer)->ssl)), 1);
        peer_close(host, peer);
        SSL_CTX_free(context);
    }
    host_close(host);
}

/* ---------------------------------------------------------------- OCSP */

/* What `ca` says of a certificate, until `until` seconds from now. */
static struct test_file ocsp_of(const struct certificate *certificate, long until) {
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha256(), certificate->x509, ca.x509);
    ASN1_TIME *from = X509_gmtime_adj(NULL, -7200), *to = X509_gmtime_adj(NULL, until);
    assert_non_null(OCSP_basic_add1_status(basic, id, V_OCSP_CERTSTATUS_GOOD, 0, NULL, from, to));
    assert_int_equal(OCSP_basic_sign(basic, ca.x509, ca.key, EVP_sha256(), NULL, 0), 1);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    BIO *content = BIO_new(BIO_s_mem());
    assert_int_equal(i2d_OCSP_RESPONSE_bio(content, response), 1);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return test_file_of(content);
}

/* The serial number that a stapled response is about, or 0: none came. */
static long stapled_serial(struct host *host, int version, const char *ciphers, const char *sigalgs, int asks) {
    SSL_CTX *context = tls_client_with(version, NULL);
    assert_int_equal(SSL_CTX_set_cipher_list(context, ciphers), 1);
    assert_int_equal(SSL_CTX_set1_sigalgs_list(context, sigalgs), 1);
    if (asks) SSL_CTX_set_tlsext_status_type(context, TLSEXT_STATUSTYPE_ocsp);
    struct peer *peer = tls_open(host, context, NULL);
    const unsigned char *bytes = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(tls_of(peer)->ssl, &bytes), serial = 0;
    if (len > 0) {
        OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &bytes, len);
        assert_non_null(response);
        OCSP_BASICRESP *basic = OCSP_response_get1_basic(response);
        ASN1_INTEGER *number;
        OCSP_id_get0_info(NULL, NULL, NULL, &number,
                          (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(OCSP_resp_get0(basic, 0)));
        serial = ASN1_INTEGER_get(number);
        OCSP_BASICRESP_free(basic);
        OCSP_RESPONSE_free(response);
    }
    get_and_answer(host, peer);
    peer_close(host, peer);
    SSL_CTX_free(context);
    return serial;
}

static long serial_of(const struct certificate *certificate) {
    return ASN1_INTEGER_get(X509_get0_serialNumber(certificate->x509));
}

static void a_response_is_stapled_to_its_certificate_while_it_is_good(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct certificate rsa = certificate_for(EVP_RSA_gen(2048), "rsa.test", &ca, NULL);
    struct test_file good = ocsp_of(&leaf, 3600), good_rsa = ocsp_of(&rsa, 3600), old = ocsp_of(&rsa, -3600),
                     text = test_file_with("no OCSP");
    struct rw_tls_options second = certificate_options(&rsa), first = certificate_options(&leaf);
    first.also = &second;
    first.ocsp_file = good.path;
    second.ocsp_file = good_rsa.path;
    tls_listen(host, &first);
    static const char ecdsa[] = "ECDHE-ECDSA-AES128-GCM-SHA256", rsa_cipher[] = "ECDHE-RSA-AES128-GCM-SHA256",
                      rsa_sigalgs[] = "RSA-PSS+SHA256:RSA+SHA256";
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stapled_serial(host, versions[i], ecdsa, "ECDSA+SHA256", 1), serial_of(&leaf));
        assert_int_equal(stapled_serial(host, versions[i], ecdsa, "ECDSA+SHA256", 0), 0);
        assert_int_equal(stapled_serial(host, versions[i], rsa_cipher, rsa_sigalgs, 1), serial_of(&rsa));
    }
    /* One that has expired is worse than none. */
    second.ocsp_file = old.path;
    tls_listen(host, &first);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stapled_serial(host, versions[i], ecdsa, "ECDSA+SHA256", 1), serial_of(&leaf));
        assert_int_equal(stapled_serial(host, versions[i], rsa_cipher, rsa_sigalgs, 1), 0);
    }
    first.also = NULL;
    first.ocsp_file = text.path;
    expect_mistake(host, &first, text.path, "none in DER form");
    first.ocsp_file = good_rsa.path;
    expect_mistake(host, &first, good_rsa.path, "about another certificate");
    first.ocsp_file = "/nowhere/ocsp";
    expect_mistake(host, &first, "/nowhere/ocsp", "cannot read");
    host_close(host);
    certificate_free(&rsa);
    close(good.fd);
    close(good_rsa.fd);
    close(old.fd);
    close(text.fd);
}

/* ---------------------------------------------------------------- revoked certificates */

/* `revoked`: or NULL. */
static struct test_file crl_of(const struct certificate *issuer, const struct certificate *revoked) {
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -3600), *to = X509_gmtime_adj(NULL, 3600);
    X509_CRL_set_version(crl, X509_CRL_VERSION_2);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->x509));
    X509_CRL_set1_lastUpdate(crl, from);
    X509_CRL_set1_nextUpdate(crl, to);
    if (revoked) {
        X509_REVOKED *entry = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->x509));
        X509_REVOKED_set_revocationDate(entry, from);
        assert_int_equal(X509_CRL_add0_revoked(crl, entry), 1);
    }
    assert_true(X509_CRL_sign(crl, issuer->key, EVP_sha256()) > 0);
    BIO *content = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509_CRL(content, crl), 1);
    X509_CRL_free(crl);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return test_file_of(content);
}

/* With TLS 1.3 a client learns of a refusal when it reads on. */
static int is_let_in(struct host *host, SSL_CTX *context, SSL_SESSION *session) {
    uint64_t before = host->core->stats->tls_handshakes;
    struct peer *peer = tls_connect(host, context, NULL);
    if (session) assert_int_equal(SSL_set_session(tls_of(peer)->ssl, session), 1);
    (void)tls_shake_hands(host, peer);
    host_turns(host, 5);
    peer_close(host, peer);
    host_turns(host, 3);
    return host->core->stats->tls_handshakes > before;
}

static void a_revoked_client_certificate_is_refused_whatever_its_session(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct certificate friend = certificate_make("friend.test", &ca), revoked = certificate_make("revoked.test", &ca),
                       other_ca = certificate_make("Other CA", NULL);
    struct test_file none = crl_of(&ca, NULL), one = crl_of(&ca, &revoked), foreign = crl_of(&other_ca, &revoked),
                     text = test_file_with("no CRL");
    struct rw_tls_options options = certificate_options(&leaf);
    options.ca_file = ca.cert_file.path;
    for (int i = 0; i < 2; i++) {
        SSL_CTX *good = tls_client_with(versions[i], &friend), *bad = tls_client_with(versions[i], &revoked);
        options.crl_file = none.path;
        tls_listen(host, &options);
        assert_true(is_let_in(host, good, NULL));
        struct peer *peer = tls_open(host, bad, NULL);
        get_and_answer(host, peer);
        host_turns(host, 3);
        peer_pull(host, peer);
        SSL_SESSION *session = SSL_get1_session(tls_of(peer)->ssl);
        assert_true(SSL_SESSION_is_resumable(session));
        options.crl_file = one.path;
        tls_listen(host, &options);
        assert_true(is_let_in(host, good, NULL));
        assert_false(is_let_in(host, bad, NULL));
        assert_false(is_let_in(host, bad, session));
        get_and_answer(host, peer); /* who is in stays in */
        /* Without a list of its authority nobody knows. */
        options.crl_file = foreign.path;
        tls_listen(host, &options);
        assert_false(is_let_in(host, good, NULL));
        peer_close(host, peer);
        SSL_SESSION_free(session);
        SSL_CTX_free(good);
        SSL_CTX_free(bad);
    }
    options.crl_file = text.path;
    expect_mistake(host, &options, text.path, "no list of revoked certificates");
    options.crl_file = "/nowhere/crl";
    expect_mistake(host, &options, "/nowhere/crl", "No such file or directory");
    options.crl_file = one.path;
    options.ca_file = NULL;
    expect_mistake(host, &options, one.path, "authorities");
    host_close(host);
    certificate_free(&friend);
    certificate_free(&revoked);
    certificate_free(&other_ca);
    close(none.fd);
    close(one.fd);
    close(foreign.fd);
    close(text.fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_client_is_shown_the_kind_of_certificate_that_it_can_use),
        ON_SIM(a_second_certificate_must_be_of_another_kind_and_whole),
        ON_SIM(only_the_certificates_of_the_file_are_shown),
        ON_EVERY_RING(a_response_is_stapled_to_its_certificate_while_it_is_good),
        ON_EVERY_RING(a_revoked_client_certificate_is_refused_whatever_its_session),
    };
    return cmocka_run_group_tests_name("certificates of the core", tests, make_certificates, free_certificates);
}
