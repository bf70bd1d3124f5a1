/* Contexts of TLS, see tls_context.h. */
#include "connection/tls_context.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "connection/protocol.h"
#include "connection/tls.h"
#include "connection/tls_sessions.h"
#include "connection/tls_staple.h"

/* AES-128 first: fast where there are AES instructions; OpenSSL moves ChaCha20 to the front for clients that prefer
 * it. */
#define CIPHERS_TLS13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
/* Forward secrecy and AEAD only. */
#define CIPHERS_TLS12                                                                                               \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-" \
    "SHA384:"                                                                                                       \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
/* What clients have, and what costs little: an exchange over ffdhe2048 to ffdhe8192 takes the server up to hundreds of
 * times the CPU of one over X25519, at the wish of whoever sends a hello. */
#define GROUPS "X25519:P-256:P-384"

static_assert(sizeof(uintptr_t) == sizeof(uint64_t), "a client_policy fits a pointer");

struct load {
    SSL_CTX *ssl;
    const struct rw_tls_options *options; /* of the name: how TLS is spoken */
    const struct rw_tls_options *own;     /* of the certificate that is being loaded */
    char *error;
    size_t error_bytes;
};

/* ret: 0, for the caller to return */
__attribute__((format(printf, 2, 3))) static int mistake(const struct load *load, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(load->error, load->error_bytes, format, arguments);
    va_end(arguments);
    ERR_clear_error();
    return 0;
}

/* What OpenSSL has to say: the first of its errors is the nearest to the cause. */
static const char *reason(void) {
    unsigned long code = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(code)) return strerror(ERR_GET_REASON(code));
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    return text ? text : "unknown error";
}

static int says_no_pem(unsigned long code) {
    if (ERR_GET_LIB(code) == ERR_LIB_OSSL_DECODER) return ERR_GET_REASON(code) == ERR_R_UNSUPPORTED;
    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

/* Some functions of OpenSSL add a vaguer error behind it, others find it last. */
static int has_no_pem(void) { return says_no_pem(ERR_peek_error()) || says_no_pem(ERR_peek_last_error()); }

static BIO *open_file(const struct load *load, const char *what, const char *path) {
    BIO *file = BIO_new_file(path, "r");
    if (!file) (void)mistake(load, "cannot read the %s '%s': %s", what, path, reason());
    return file;
}

/* ------------------------------------------------------------------ the key and its certificate */

struct passphrase {
    const char *text; /* NULL: none given */
    int asked;
};

/* Without it OpenSSL would ask on the terminal. */
static int on_passphrase(char *out, int capacity, int writing, void *context) {
    (void)writing;
    struct passphrase *passphrase = context;
    passphrase->asked = 1;
    size_t bytes = passphrase->text ? strlen(passphrase->text) : 0;
    if (!passphrase->text || bytes > (size_t)capacity) return -1;
    memcpy(out, passphrase->text, bytes);
    return (int)bytes;
}

static int load_chain(const struct load *load) {
    const char *path = load->own->cert_file;
    BIO *file = open_file(load, "TLS certificate", path);
    if (!file) return 0;
    BIO_free(file);
    if (SSL_CTX_use_certificate_chain_file(load->ssl, path) == 1) return 1;
    if (has_no_pem()) return mistake(load, "'%s' holds no certificate in PEM form", path);
    return mistake(load, "the TLS certificate '%s' cannot be used: %s", path, reason());
}

static EVP_PKEY *read_key(const struct load *load) {
    const char *path = load->own->key_file;
    BIO *file = open_file(load, "TLS key", path);
    if (!file) return NULL;
    struct passphrase passphrase = {.text = load->own->passphrase};
    EVP_PKEY *key = PEM_read_bio_PrivateKey(file, NULL, on_passphrase, &passphrase);
    BIO_free(file);
    if (key) return key;
    if (passphrase.asked && !passphrase.text) {
        (void)mistake(load, "the TLS key '%s' is encrypted and no passphrase was given", path);
    } else if (passphrase.asked) {
        (void)mistake(load, "the TLS key '%s' cannot be decrypted, most likely because the passphrase is wrong: %s",
                      path, reason());
    } else if (has_no_pem()) {
        (void)mistake(load, "'%s' holds no private key in PEM form", path);
    } else {
        (void)mistake(load, "the TLS key '%s' cannot be used: %s", path, reason());
    }
    return NULL;
}

static int load_key(const struct load *load) {
    EVP_PKEY *key = read_key(load);
    if (!key) return 0;
    /* Asked before OpenSSL does: it keeps a key of another type beside the certificate, and says so only in a
     * handshake. */
    int matches = X509_check_private_key(SSL_CTX_get0_certificate(load->ssl), key) == 1;
    int used = matches && SSL_CTX_use_PrivateKey(load->ssl, key) == 1;
    EVP_PKEY_free(key);
    if (used) return 1;
    if (!matches)
        return mistake(load, "the TLS key '%s' does not match the certificate '%s': %s", load->own->key_file,
                       load->own->cert_file, reason());
    return mistake(load, "the TLS key '%s' cannot be used: %s", load->own->key_file, reason());
}

/* Of the certificates before it none may have the same kind of key: OpenSSL would forget that one. ret: 1 or 0 */
static int is_of_another_kind(const struct load *load) {
    BIO *file = open_file(load, "TLS certificate", load->own->cert_file);
    X509 *next = file ? PEM_read_bio_X509(file, NULL, NULL, NULL) : NULL;
    BIO_free(file);
    if (!next) return 1; /* load_chain() says why */
    int kind = EVP_PKEY_get_base_id(X509_get0_pubkey(next)), same = 0;
    X509_free(next);
    for (long more = SSL_CTX_set_current_cert(load->ssl, SSL_CERT_SET_FIRST); more;
         more = SSL_CTX_set_current_cert(load->ssl, SSL_CERT_SET_NEXT))
        same |= EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_CTX_get0_certificate(load->ssl))) == kind;
    return same ? mistake(load,
                          "the TLS certificate '%s' has the same kind of key as another one of this name: give one for "
                          "each kind, such as RSA and ECDSA",
                          load->own->cert_file)
                : 1;
}

/* ret: 1 or 0 */
static int load_certificates(struct load *load) {
    for (const struct rw_tls_options *each = load->options; each; each = each->also) {
        load->own = each;
        if (!each->cert_file || !each->key_file) return mistake(load, "TLS needs a certificate and its key");
        if (each != load->options && !is_of_another_kind(load)) return 0;
        if (!load_chain(load) || !load_key(load) ||
            (each->ocsp_file && !rw_tls_staple_load(load->ssl, each->ocsp_file, load->error, load->error_bytes)))
            return 0;
    }
    return 1;
}

/* ------------------------------------------------------------------ client certificates, parameters, ciphers */

/* ret: 1 or 0 */
static int digest_bytes(EVP_MD_CTX *digest, const void *bytes, size_t len) {
    /* With its length, so that no two lists of things look alike. */
    uint64_t framed = len;
    return EVP_DigestUpdate(digest, &framed, sizeof framed) && EVP_DigestUpdate(digest, bytes, len);
}

/* ret: 1 or 0 */
static int digest_file(EVP_MD_CTX *digest, const char *path) {
    BIO *file = BIO_new_file(path, "r");
    BIO *content = BIO_new(BIO_s_mem());
    int done = file && content;
    uint8_t piece[4096];
    for (int got; done && (got = BIO_read(file, piece, sizeof piece)) > 0;)
        done = BIO_write(content, piece, got) == got;
    char *bytes = NULL;
    long len = done ? BIO_get_mem_data(content, &bytes) : 0;
    done = done && digest_bytes(digest, bytes, (size_t)len);
    BIO_free(content);
    BIO_free(file);
    return done;
}

/* Who is let in. ret: 1 or 0 */
static int digest_clients(const struct load *load, uint8_t out[EVP_MAX_MD_SIZE]) {
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int mode = SSL_CTX_get_verify_mode(load->ssl);
    int done = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) && digest_bytes(digest, &mode, sizeof mode) &&
               (!load->options->ca_file || digest_file(digest, load->options->ca_file)) &&
               (!load->options->crl_file || digest_file(digest, load->options->crl_file)) &&
               EVP_DigestFinal_ex(digest, out, NULL);
    EVP_MD_CTX_free(digest);
    return done;
}

/* All of them, in the order of OpenSSL. ret: 1 or 0 */
static int digest_certificates(const struct load *load, EVP_MD_CTX *digest) {
    uint8_t certificate[EVP_MAX_MD_SIZE];
    unsigned int bytes = 0;
    int done = 1;
    for (long more = SSL_CTX_set_current_cert(load->ssl, SSL_CERT_SET_FIRST); more && done;
         more = SSL_CTX_set_current_cert(load->ssl, SSL_CERT_SET_NEXT))
        done = X509_digest(SSL_CTX_get0_certificate(load->ssl), EVP_sha256(), certificate, &bytes) &&
               digest_bytes(digest, certificate, bytes);
    return done;
}

/* Once all is loaded: what sessions are bound to, and what requests for another name are judged by. */
static int bind_sessions(const struct load *load, struct rw_tls_context *context) {
    uint8_t clients[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    const char *ciphers = load->options->ciphers ? load->options->ciphers : "";
    int done = digest && digest_clients(load, clients) && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) &&
               digest_certificates(load, digest) && digest_bytes(digest, clients, 32) &&
               digest_bytes(digest, ciphers, strlen(ciphers)) &&
               EVP_DigestFinal_ex(digest, context->session_context, NULL) &&
               SSL_CTX_set_session_id_context(load->ssl, context->session_context, RW_TLS_SESSION_CONTEXT_BYTES) == 1;
    EVP_MD_CTX_free(digest);
    if (done && SSL_CTX_get_verify_mode(load->ssl) != SSL_VERIFY_NONE) {
        memcpy(&context->client_policy, clients, sizeof context->client_policy);
        context->client_policy |= 1; /* not 0 */
    }
    /* A connection knows its SSL_CTX, which outlives this struct, and no more of it. */
    done = done && SSL_CTX_set_app_data(load->ssl, (void *)(uintptr_t)context->client_policy);
    return done ? 1 : mistake(load, "TLS cannot be set up: %s", reason());
}

static int load_client_ca(const struct load *load) {
    const char *path = load->options->ca_file;
    BIO *file = open_file(load, "file of TLS client CAs", path);
    if (!file) return 0;
    BIO_free(file);
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (!names || SSL_CTX_load_verify_file(load->ssl, path) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        if (has_no_pem()) return mistake(load, "'%s' holds no certificate in PEM form", path);
        return mistake(load, "the TLS client CAs in '%s' cannot be used: %s", path, reason());
    }
    SSL_CTX_set_client_CA_list(load->ssl, names);
    int optional = (load->options->flags & RW_TLS_CLIENT_OPTIONAL) != 0;
    SSL_CTX_set_verify(load->ssl, SSL_VERIFY_PEER | (optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
    return 1;
}

static int load_revocations(const struct load *load) {
    const char *path = load->options->crl_file;
    if (!load->options->ca_file)
        return mistake(load, "the certificates that '%s' revokes are of authorities that were not given", path);
    BIO *file = open_file(load, "list of revoked certificates", path);
    if (!file) return 0;
    X509_STORE *store = SSL_CTX_get_cert_store(load->ssl);
    uint32_t count = 0;
    int added = 1;
    for (X509_CRL *crl; added && (crl = PEM_read_bio_X509_CRL(file, NULL, NULL, NULL)); count++) {
        added = X509_STORE_add_crl(store, crl);
        X509_CRL_free(crl);
    }
    BIO_free(file);
    /* What ends the loop is an error too: no further list. */
    if (count && added && has_no_pem()) ERR_clear_error();
    if (!count && has_no_pem())
        return mistake(load, "'%s' holds no list of revoked certificates (X509 CRL) in PEM form", path);
    if (ERR_peek_error())
        return mistake(load, "the list of revoked certificates '%s' cannot be used: %s", path, reason());
    return X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1;
}

static int load_dh_params(const struct load *load) {
    const char *path = load->options->dh_params_file;
    BIO *file = open_file(load, "file of DH parameters", path);
    if (!file) return 0;
    EVP_PKEY *parameters = PEM_read_bio_Parameters(file, NULL);
    BIO_free(file);
    if (!parameters) {
        if (has_no_pem()) return mistake(load, "'%s' holds no DH parameters in PEM form", path);
        return mistake(load, "the DH parameters in '%s' cannot be used: %s", path, reason());
    }
    if (SSL_CTX_set0_tmp_dh_pkey(load->ssl, parameters) == 1) return 1;
    EVP_PKEY_free(parameters);
    return mistake(load, "the DH parameters in '%s' cannot be used: %s", path, reason());
}

/* ------------------------------------------------------------------ settings */

/* ret: where the client's list has this name, or NULL */
static const unsigned char *find_offered(const unsigned char *offered, unsigned int offered_bytes, const char *name) {
    const size_t bytes = strlen(name);
    for (unsigned int at = 0; at < offered_bytes; at += 1u + offered[at]) {
        if (offered[at] == bytes && offered_bytes - at > bytes && memcmp(offered + at + 1, name, bytes) == 0)
            return offered + at;
    }
    return NULL;
}

/* The first that the listener's list has; a client that offers none of it is told so (RFC 7301 §3.2): it would speak
 * what we do not. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_bytes, const unsigned char *offered,
                   unsigned int offered_bytes, void *context) {
    (void)context;
    struct rw_tls *tls = SSL_get_app_data(ssl);
    for (uint32_t i = 0; i < RW_PROTOCOLS_MAX && tls->spoken.items[i] != RW_PROTOCOL_NONE; i++) {
        const char *const *name = tls->listener->core->protocols[tls->spoken.items[i]]->alpn;
        for (; name && *name; name++) {
            const unsigned char *found = find_offered(offered, offered_bytes, *name);
            if (!found) continue;
            tls->protocol = tls->spoken.items[i];
            *out = found + 1;
            *out_bytes = *found;
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                         int encrypt) {
    const struct rw_tls *tls = SSL_get_app_data(ssl);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return rw_tls_ticket_key(tls->listener->core->tls->ticket_secret, (uint64_t)now.tv_sec, name, iv, cipher, mac,
                             encrypt);
}

static int apply_settings(const struct load *load) {
    SSL_CTX *ssl = load->ssl;
    const struct rw_tls_options *options = load->options;
    uint32_t min_version = options->min_version ? options->min_version : TLS1_2_VERSION;
    if (min_version != TLS1_2_VERSION && min_version != TLS1_3_VERSION)
        return mistake(load, "the least TLS version must be 1.2 or 1.3");
    if (!SSL_CTX_set_min_proto_version(ssl, (int)min_version) || !SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ssl, CIPHERS_TLS13) || !SSL_CTX_set1_groups_list(ssl, GROUPS)) {
        return mistake(load, "TLS cannot be set up: %s", reason());
    }
    if (SSL_CTX_set_cipher_list(ssl, options->ciphers ? options->ciphers : CIPHERS_TLS12) != 1) {
        return mistake(load, "OpenSSL knows no usable cipher in '%s': %s",
                       options->ciphers ? options->ciphers : CIPHERS_TLS12, reason());
    }
    SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_NO_RENEGOTIATION);
    /* A record in one read, not its head and then the rest: all that has come is at hand in any case. */
    SSL_CTX_set_read_ahead(ssl, 1);
    /* An idle connection gives back 33 KiB, at the price of taking them again: a twentieth of what OpenSSL costs for an
     * echo of 1 KiB. */
    /* And no chain but that of the certificate's file: OpenSSL would look for one among the authorities of clients, in
     * each handshake. */
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    /* Tickets keep sessions at the clients; a cache here would be memory without bound, and of no use to other
     * workers. */
    (void)SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_timeout(ssl, RW_TLS_EPOCH_SECONDS);
    SSL_CTX_set_alpn_select_cb(ssl, on_alpn, NULL);
    SSL_CTX_set_client_hello_cb(ssl, rw_tls_on_client_hello, NULL);
    return rw_tls_sessions_set_up(ssl) && SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, on_ticket_key) == 1
               ? 1
               : mistake(load, "TLS cannot be set up: %s", reason());
}

/* ------------------------------------------------------------------ interface */

int32_t rw_tls_context_create(struct rw_tls_context *context, const struct rw_tls_options *options, char *error,
                              size_t error_bytes) {
    struct load load = {.options = options, .own = options, .error = error, .error_bytes = error_bytes};
    ERR_clear_error();
    load.ssl = SSL_CTX_new(TLS_server_method());
    if (!load.ssl) {
        (void)mistake(&load, "TLS cannot be set up: %s", reason());
        return RW_ERR_INVALID;
    }
    *context = (struct rw_tls_context){.ssl = load.ssl};
    int done = apply_settings(&load) && load_certificates(&load) && (!options->ca_file || load_client_ca(&load)) &&
               (!options->crl_file || load_revocations(&load)) && (!options->dh_params_file || load_dh_params(&load)) &&
               bind_sessions(&load, context);
    ERR_clear_error();
    if (done) return RW_OK;
    rw_tls_context_release(context);
    return RW_ERR_INVALID;
}

void rw_tls_context_release(struct rw_tls_context *context) {
    SSL_CTX_free(context->ssl);
    context->ssl = NULL;
}

uint64_t rw_tls_client_policy_of(const SSL *ssl) {
    return (uint64_t)(uintptr_t)SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

int rw_tls_context_use(const struct rw_tls_context *context, SSL *ssl) {
    if (SSL_get_SSL_CTX(ssl) == context->ssl) return 1;
    /* SSL_set_SSL_CTX(3) is silent on it, but takes over the certificate alone: what SSL_new() copied from the first
     * context stays otherwise. */
    if (!SSL_set_SSL_CTX(ssl, context->ssl)) return 0;
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(context->ssl), NULL);
    return SSL_set_min_proto_version(ssl, (int)SSL_CTX_get_min_proto_version(context->ssl)) == 1 &&
           SSL_set_session_id_context(ssl, context->session_context, sizeof context->session_context) == 1;
}
