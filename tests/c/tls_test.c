/* The parts of TLS that need no connection: names, ticket keys, and what is said of files that are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/core_names.h>
#include <openssl/rsa.h>

#include "connection/core.h"
#include "connection/tls_names.h"
#include "connection/tls_sessions.h"
#include "connection/tls_tickets.h"
#include "test_certificates.h"

/* ---------------------------------------------------------------- names */

static void names_are_normal_or_none(void **state) {
    (void)state;
    static const struct {
        const char *given, *normal;
    } cases[] = {
        {"Example.COM", "example.com"},
        {"example.com.", "example.com"},
        {"*.Example.com", "*.example.com"},
        {"a_b-9.x", "a_b-9.x"},
        {"localhost", "localhost"},
        {"", NULL},
        {".", NULL},
        {".example.com", NULL},
        {"a..b", NULL},
        {"a.*.b", NULL},
        {"*", NULL},
        {"*.", NULL},
        {"*example.com", NULL},
        {"a b", NULL},
        {"a/b", NULL},
        {"\xc3\xbc.de", NULL},
        {"a:1", NULL},
    };
    char out[RW_TLS_NAME_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t bytes = rw_tls_name_normalize(out, (const uint8_t *)cases[i].given, strlen(cases[i].given));
        assert_int_equal(bytes, cases[i].normal ? strlen(cases[i].normal) : 0);
        if (cases[i].normal) assert_string_equal(out, cases[i].normal);
    }
    uint8_t name[300];
    memset(name, 'a', sizeof name);
    assert_int_equal(rw_tls_name_normalize(out, name, RW_TLS_NAME_BYTES_MAX), RW_TLS_NAME_BYTES_MAX);
    assert_int_equal(rw_tls_name_normalize(out, name, RW_TLS_NAME_BYTES_MAX + 1), 0);
    assert_int_equal(rw_tls_name_normalize(out, (const uint8_t *)"a\0b", 3), 0);
}

static uint32_t number_of(const struct rw_tls_names *names, const char *asked) {
    const struct rw_tls_name *found = rw_tls_names_find(names, asked);
    return found ? found->number : 0;
}

static void many_names_are_found_exactly_or_by_one_label(void **state) {
    (void)state;
    struct rw_tls_names names = {0};
    struct rw_tls_context none = {0};
    char text[64];
    for (uint16_t i = 1; i <= 1000; i++) {
        snprintf(text, sizeof text, i % 2 ? "n%u.test" : "*.n%u.test", (unsigned)(i * 7919 % 1000));
        assert_int_equal(rw_tls_names_set(&names, text, i, &none), 0);
    }
    for (uint16_t i = 1; i <= 1000; i++) {
        snprintf(text, sizeof text, i % 2 ? "n%u.test" : "any.n%u.test", (unsigned)(i * 7919 % 1000));
        assert_int_equal(number_of(&names, text), i);
    }
    assert_int_equal(number_of(&names, "a.b.n0.test"), 0);
    assert_int_equal(number_of(&names, "test"), 0);
    assert_int_equal(rw_tls_names_set(&names, "n919.test", 5, &none), 0);
    assert_int_equal(number_of(&names, "n919.test"), 5);
    rw_tls_names_remove(&names, "n919.test");
    rw_tls_names_remove(&names, "n919.test");
    assert_int_equal(number_of(&names, "n919.test"), 0);
    assert_int_equal(names.count, 999);
    rw_tls_names_clear(&names);
    assert_int_equal(names.count, 0);
}

/* ---------------------------------------------------------------- ticket keys */

struct sealer {
    EVP_CIPHER_CTX *cipher;
    EVP_MAC *hmac;
    EVP_MAC_CTX *mac;
};

static struct sealer sealer_open(void) {
    struct sealer sealer = {.cipher = EVP_CIPHER_CTX_new(), .hmac = EVP_MAC_fetch(NULL, "HMAC", NULL)};
    sealer.mac = EVP_MAC_CTX_new(sealer.hmac);
    assert_non_null(sealer.cipher);
    assert_non_null(sealer.mac);
    return sealer;
}

static void sealer_free(struct sealer *sealer) {
    EVP_CIPHER_CTX_free(sealer->cipher);
    EVP_MAC_CTX_free(sealer->mac);
    EVP_MAC_free(sealer->hmac);
}

/* What this sealer makes of 16 bytes: cipher and MAC after each other. */
static void seal(const struct sealer *sealer, const uint8_t in[16], uint8_t out[48]) {
    int bytes;
    EVP_CIPHER_CTX_set_padding(sealer->cipher, 0);
    assert_int_equal(EVP_CipherUpdate(sealer->cipher, out, &bytes, in, 16), 1);
    assert_int_equal(bytes, 16);
    size_t mac_bytes;
    assert_int_equal(EVP_MAC_init(sealer->mac, NULL, 0, NULL), 1);
    assert_int_equal(EVP_MAC_update(sealer->mac, (const uint8_t *)"ticket", 6), 1);
    assert_int_equal(EVP_MAC_final(sealer->mac, out + 16, &mac_bytes, 32), 1);
    assert_int_equal(mac_bytes, 32);
}

static void a_ticket_is_taken_in_its_epoch_and_the_next_and_then_no_more(void **state) {
    (void)state;
    const uint8_t secret[RW_TLS_SECRET_BYTES] = "one secret of a node", other[RW_TLS_SECRET_BYTES] = "another secret";
    const uint64_t now = 1000 * (uint64_t)RW_TLS_EPOCH_SECONDS + 5;
    uint8_t name[RW_TLS_KEY_NAME_BYTES], iv[EVP_MAX_IV_LENGTH];
    const uint8_t plain[16] = "fifteen letters";
    uint8_t sealed[48], opened[48];
    struct sealer sealer = sealer_open();
    assert_int_equal(rw_tls_ticket_key(secret, now, name, iv, sealer.cipher, sealer.mac, 1), 1);
    seal(&sealer, plain, sealed);
    static const struct {
        uint64_t later;
        int result;
    } cases[] = {{0, 1},
                 {RW_TLS_EPOCH_SECONDS - 6, 1},
                 {RW_TLS_EPOCH_SECONDS - 5, 2},
                 {2 * RW_TLS_EPOCH_SECONDS - 6, 2},
                 {2 * RW_TLS_EPOCH_SECONDS - 5, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sealer opener = sealer_open();
        assert_int_equal(rw_tls_ticket_key(secret, now + cases[i].later, name, iv, opener.cipher, opener.mac, 0),
                         cases[i].result);
        if (cases[i].result) {
            seal(&opener, sealed, opened);
            assert_memory_equal(opened, plain, 16);
            assert_memory_equal(opened + 16, sealed + 16, 32); /* the same MAC key */
        }
        sealer_free(&opener);
    }
    struct sealer stranger = sealer_open();
    assert_int_equal(rw_tls_ticket_key(other, now, name, iv, stranger.cipher, stranger.mac, 0), 0);
    /* no epoch before the first */
    assert_int_equal(rw_tls_ticket_key(secret, 0, name, iv, stranger.cipher, stranger.mac, 0), 0);
    sealer_free(&stranger);
    uint8_t next_name[RW_TLS_KEY_NAME_BYTES];
    struct sealer next = sealer_open();
    assert_int_equal(rw_tls_ticket_key(secret, now + RW_TLS_EPOCH_SECONDS, next_name, iv, next.cipher, next.mac, 1), 1);
    assert_memory_not_equal(next_name, name, sizeof name);
    sealer_free(&next);
    sealer_free(&sealer);
}

/* ---------------------------------------------------------------- sessions */

static void a_session_is_resumed_for_a_day_however_often_its_ticket_is_renewed(void **state) {
    (void)state;
    const uint64_t began = 1800000000;
    SSL_SESSION *session = SSL_SESSION_new();
    assert_non_null(session);
    assert_false(rw_tls_session_may_go_on(session, began)); /* none of ours */
    assert_true(rw_tls_session_begin(session, began));
    assert_true(rw_tls_session_begin(session, began + 3600)); /* a renewal */
    assert_true(rw_tls_session_may_go_on(session, began));
    assert_true(rw_tls_session_may_go_on(session, began - 10)); /* the clock was set back */
    assert_true(rw_tls_session_may_go_on(session, began + RW_TLS_SESSION_SECONDS_MAX - 1));
    assert_false(rw_tls_session_may_go_on(session, began + RW_TLS_SESSION_SECONDS_MAX));
    SSL_SESSION_free(session);
}

/* ---------------------------------------------------------------- what is said of mistakes */

static struct rw_core *plain_core(void) {
    struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                    .backend = RW_BACKEND_SIM,
                                    .max_connections = 4,
                                    .ring_entries = 16,
                                    .sqpoll_cpu = -1,
                                    .wake_fd = -1,
                                    .inbox_fd_first = -1,
                                    .shm_fd = -1};
    char error[128];
    struct rw_core *core = rw_core_create(&config, error, sizeof error);
    assert_non_null(core);
    return core;
}

static void expect_mistake(struct rw_core *core, const struct rw_tls_options *options, const char *file,
                           const char *what) {
    char error[512];
    assert_int_equal(rw_core_listener_tls(core, 1, options, error, sizeof error), RW_ERR_INVALID);
    if (file && !strstr(error, file)) fail_msg("'%s' does not name '%s'", error, file);
    if (!strstr(error, what)) fail_msg("'%s' does not say '%s'", error, what);
    /* A short buffer gets the beginning, and none is fine. */
    char brief[10];
    assert_int_equal(rw_core_listener_tls(core, 1, options, brief, sizeof brief), RW_ERR_INVALID);
    assert_memory_equal(brief, error, 9);
    assert_int_equal(rw_core_listener_tls(core, 1, options, NULL, 0), RW_ERR_INVALID);
    assert_null(core->listeners[1].tls);
}

static void a_mistake_is_told_with_the_file_and_the_reason(void **state) {
    (void)state;
    struct rw_core *core = plain_core();
    struct certificate good = certificate_make("good.test", NULL), other = certificate_make("other.test", NULL);
    struct certificate locked = certificate_for(EVP_EC_gen("P-256"), "locked.test", NULL, "right"),
                       rsa = certificate_for(EVP_RSA_gen(2048), "rsa.test", NULL, NULL);
    struct certificate weak = certificate_for(EVP_RSA_gen(1024), "weak.test", NULL, NULL);
    struct test_file text = test_file_with("no PEM at all\n");
    struct rw_tls_options base = certificate_options(&good), options;
    expect_mistake(core, &(struct rw_tls_options){0}, NULL, "needs a certificate and its key");
    expect_mistake(core, NULL, NULL, "no TLS options");
    options = base, options.cert_file = "/nowhere/cert.pem";
    expect_mistake(core, &options, "/nowhere/cert.pem", "No such file or directory");
    options = base, options.key_file = "/nowhere/key.pem";
    expect_mistake(core, &options, "/nowhere/key.pem", "No such file or directory");
    options = base, options.ca_file = "/nowhere/ca.pem";
    expect_mistake(core, &options, "/nowhere/ca.pem", "No such file or directory");
    options = base, options.dh_params_file = "/nowhere/dh.pem";
    expect_mistake(core, &options, "/nowhere/dh.pem", "No such file or directory");
    options = base, options.cert_file = text.path;
    expect_mistake(core, &options, text.path, "no certificate in PEM form");
    options = base, options.key_file = text.path;
    expect_mistake(core, &options, text.path, "no private key in PEM form");
    options = base, options.ca_file = text.path;
    expect_mistake(core, &options, text.path, "no certificate in PEM form");
    options = base, options.dh_params_file = text.path;
    expect_mistake(core, &options, text.path, "no DH parameters in PEM form");
    options = base, options.dh_params_file = good.key_file.path;
    expect_mistake(core, &options, good.key_file.path, "DH parameters");
    options = base, options.key_file = other.key_file.path;
    expect_mistake(core, &options, other.key_file.path, "does not match the certificate");
    options = base, options.key_file = rsa.key_file.path;
    expect_mistake(core, &options, rsa.key_file.path, "does not match the certificate");
    options = certificate_options(&locked);
    expect_mistake(core, &options, locked.key_file.path, "no passphrase was given");
    options.passphrase = "wrong";
    expect_mistake(core, &options, locked.key_file.path, "passphrase is wrong");
    options = certificate_options(&weak);
    expect_mistake(core, &options, weak.cert_file.path, "key too small");
    options = base, options.ciphers = "NO-SUCH-CIPHER";
    expect_mistake(core, &options, "NO-SUCH-CIPHER", "no cipher match");
    options = base, options.min_version = 0x0302;
    expect_mistake(core, &options, NULL, "1.2 or 1.3");
    assert_int_equal(rw_core_listener_tls(core, RW_LISTENERS_MAX, &base, NULL, 0), RW_ERR_INVALID);
    options = certificate_options(&locked);
    options.passphrase = "right";
    options.ca_file = rsa.cert_file.path;
    options.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384";
    options.min_version = 0x0303;
    options.flags = RW_TLS_CLIENT_OPTIONAL;
    char error[256];
    assert_int_equal(rw_core_listener_tls(core, 1, &options, error, sizeof error), RW_OK);
    assert_string_equal(error, "");
    rw_core_destroy(core);
    certificate_free(&good);
    certificate_free(&other);
    certificate_free(&locked);
    certificate_free(&rsa);
    certificate_free(&weak);
    close(text.fd);
}

static void server_names_need_a_tls_listener_and_a_name(void **state) {
    (void)state;
    struct rw_core *core = plain_core();
    struct certificate good = certificate_make("good.test", NULL);
    struct rw_tls_options options = certificate_options(&good), wrong = options;
    wrong.key_file = "/nowhere/key.pem";
    char error[256];
    assert_int_equal(rw_core_server_name(core, 1, "a.test", 1, &options, error, sizeof error), RW_ERR_INVALID);
    assert_non_null(strstr(error, "does not speak TLS"));
    assert_int_equal(rw_core_listener_tls(core, 1, &options, error, sizeof error), RW_OK);
    assert_int_equal(rw_core_server_name(core, 1, "a b", 1, &options, error, sizeof error), RW_ERR_INVALID);
    assert_string_equal(error, "'a b' is no server name");
    assert_int_equal(rw_core_server_name(core, 1, NULL, 1, &options, error, sizeof error), RW_ERR_INVALID);
    assert_int_equal(rw_core_server_name(core, 1, "a.test", 65536, &options, error, sizeof error), RW_ERR_INVALID);
    assert_int_equal(rw_core_server_name(core, 1, "a.test", 1, &wrong, error, sizeof error), RW_ERR_INVALID);
    assert_non_null(strstr(error, "/nowhere/key.pem"));
    assert_int_equal(rw_core_server_name(core, 1, "A.test", 1, &options, error, sizeof error), RW_OK);
    assert_int_equal(rw_core_server_name(core, 1, "a.TEST", 2, &options, error, sizeof error), RW_OK);
    assert_int_equal(rw_core_server_name(core, 1, "a.test", 0, NULL, error, sizeof error), RW_OK);
    /* not there is fine */
    assert_int_equal(rw_core_server_name(core, 1, "a.test", 0, NULL, error, sizeof error), RW_OK);
    rw_core_destroy(core);
    certificate_free(&good);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_normal_or_none),
        cmocka_unit_test(many_names_are_found_exactly_or_by_one_label),
        cmocka_unit_test(a_ticket_is_taken_in_its_epoch_and_the_next_and_then_no_more),
        cmocka_unit_test(a_session_is_resumed_for_a_day_however_often_its_ticket_is_renewed),
        cmocka_unit_test(a_mistake_is_told_with_the_file_and_the_reason),
        cmocka_unit_test(server_names_need_a_tls_listener_and_a_name),
    };
    return cmocka_run_group_tests_name("tls", tests, NULL, NULL);
}
