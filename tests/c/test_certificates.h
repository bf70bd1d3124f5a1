/* Certificates for tests, made when they are needed: nothing that expires or could be mistaken for a secret lies in the
 * repository. Files are memfds, so that nothing stays behind however a test ends. */
#ifndef TEST_CERTIFICATES_H
#define TEST_CERTIFICATES_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ringway.h"

#define CERTIFICATE static __attribute__((unused))

#define CERTIFICATE_CHECK(condition)                                               \
    do {                                                                           \
        if (!(condition)) {                                                        \
            fprintf(stderr, "test_certificates.h:%d: %s\n", __LINE__, #condition); \
            abort();                                                               \
        }                                                                          \
    } while (0)

struct test_file {
    int fd;
    char path[40];
};

struct certificate {
    EVP_PKEY *key;
    X509 *x509;
    struct test_file key_file, cert_file;
};

CERTIFICATE struct test_file test_file_of(BIO *content) {
    struct test_file file = {.fd = memfd_create("test", MFD_CLOEXEC)};
    CERTIFICATE_CHECK(file.fd >= 0);
    char *bytes;
    long count = BIO_get_mem_data(content, &bytes);
    CERTIFICATE_CHECK(write(file.fd, bytes, (size_t)count) == count);
    snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
    BIO_free(content);
    return file;
}

CERTIFICATE struct test_file test_file_with(const char *text) {
    BIO *content = BIO_new(BIO_s_mem());
    CERTIFICATE_CHECK(content && BIO_puts(content, text) == (int)strlen(text));
    return test_file_of(content);
}

CERTIFICATE void certificate_extend(X509 *x509, X509 *issuer, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    CERTIFICATE_CHECK(extension && X509_add_ext(x509, extension, -1));
    X509_EXTENSION_free(extension);
}

/* For `name`, signed by `issuer` (NULL: by itself, as a CA). passphrase: of the key file, or NULL */
CERTIFICATE struct certificate certificate_for(EVP_PKEY *key, const char *name, const struct certificate *issuer,
                                               const char *passphrase) {
    static long serial = 1000;
    struct certificate made = {.key = key, .x509 = X509_new()};
    CERTIFICATE_CHECK(made.key && made.x509);
    X509_set_version(made.x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.x509), serial++);
    X509_gmtime_adj(X509_getm_notBefore(made.x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(made.x509), 86400);
    X509_set_pubkey(made.x509, made.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made.x509), "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                               -1, 0);
    X509_set_issuer_name(made.x509, X509_get_subject_name(issuer ? issuer->x509 : made.x509));
    char names[256];
    snprintf(names, sizeof names, "DNS:%s", name);
    certificate_extend(made.x509, issuer ? issuer->x509 : made.x509, NID_subject_alt_name, names);
    if (!issuer) certificate_extend(made.x509, made.x509, NID_basic_constraints, "critical,CA:TRUE");
    CERTIFICATE_CHECK(X509_sign(made.x509, issuer ? issuer->key : made.key, EVP_sha256()));
    BIO *cert = BIO_new(BIO_s_mem()), *pem = BIO_new(BIO_s_mem());
    CERTIFICATE_CHECK(cert && pem && PEM_write_bio_X509(cert, made.x509));
    CERTIFICATE_CHECK(PEM_write_bio_PrivateKey(pem, made.key, passphrase ? EVP_aes_128_cbc() : NULL, NULL, 0, NULL,
                                               (void *)(uintptr_t)passphrase));
    made.cert_file = test_file_of(cert);
    made.key_file = test_file_of(pem);
    return made;
}

CERTIFICATE struct certificate certificate_make(const char *name, const struct certificate *issuer) {
    return certificate_for(EVP_EC_gen("P-256"), name, issuer, NULL);
}

CERTIFICATE void certificate_free(struct certificate *certificate) {
    close(certificate->key_file.fd);
    close(certificate->cert_file.fd);
    X509_free(certificate->x509);
    EVP_PKEY_free(certificate->key);
}

CERTIFICATE struct rw_tls_options certificate_options(const struct certificate *certificate) {
    return (struct rw_tls_options){.key_file = certificate->key_file.path, .cert_file = certificate->cert_file.path};
}

#endif
