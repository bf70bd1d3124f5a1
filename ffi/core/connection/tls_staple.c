/* Stapled OCSP responses, see tls_staple.h. */
#include "connection/tls_staple.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct staple {
    struct staple *next;
    const X509 *certificate; /* of the context */
    time_t until;            /* 0: no end */
    uint8_t *bytes;
    int len;
};

/* Of the list in an SSL_CTX; -1: none yet. */
static int list_index = -1;

static void free_list(void *parent, void *list, CRYPTO_EX_DATA *data, int index, long argl, void *argp) {
    (void)parent, (void)data, (void)index, (void)argl, (void)argp;
    for (struct staple *staple = list; staple;) {
        struct staple *next = staple->next;
        OPENSSL_free(staple->bytes);
        free(staple);
        staple = next;
    }
}

static int on_status_request(SSL *ssl, void *arg) {
    (void)arg;
    const X509 *shown = SSL_get_certificate(ssl);
    for (const struct staple *staple = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), list_index); staple;
         staple = staple->next) {
        if (staple->certificate != shown) continue;
        /* Clients take none better than an old one. */
        if (staple->until && time(NULL) >= staple->until) break;
        uint8_t *copy = OPENSSL_memdup(staple->bytes, (size_t)staple->len);
        if (!copy) break;
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, staple->len);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* What the response says of the certificate, by its serial number. ret: 1 it says something, *until is set; 0 it says
 * nothing */
static int find_answer(OCSP_RESPONSE *response, const X509 *certificate, time_t *until) {
    OCSP_BASICRESP *basic = OCSP_response_get1_basic(response);
    int found = 0;
    for (int i = 0; basic && i < OCSP_resp_count(basic) && !found; i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        ASN1_INTEGER *serial = NULL;
        /* The id is not changed: OpenSSL's function lacks a const. */
        OCSP_id_get0_info(NULL, NULL, NULL, &serial, (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single));
        if (!serial || ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) != 0) continue;
        ASN1_GENERALIZEDTIME *next_update = NULL;
        (void)OCSP_single_get0_status(single, NULL, NULL, NULL, &next_update);
        struct tm end;
        *until = next_update && ASN1_TIME_to_tm(next_update, &end) ? timegm(&end) : 0;
        found = 1;
    }
    OCSP_BASICRESP_free(basic);
    return found;
}

static int add(SSL_CTX *ssl, OCSP_RESPONSE *response, time_t until) {
    if (list_index < 0) list_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_list);
    struct staple *staple = list_index < 0 ? NULL : calloc(1, sizeof *staple);
    if (!staple) return 0;
    *staple = (struct staple){
        .next = SSL_CTX_get_ex_data(ssl, list_index), .certificate = SSL_CTX_get0_certificate(ssl), .until = until};
    staple->len = i2d_OCSP_RESPONSE(response, &staple->bytes);
    if (staple->len <= 0 || !SSL_CTX_set_ex_data(ssl, list_index, staple)) {
        OPENSSL_free(staple->bytes);
        free(staple);
        return 0;
    }
    SSL_CTX_set_tlsext_status_cb(ssl, on_status_request);
    return 1;
}

int rw_tls_staple_load(SSL_CTX *ssl, const char *path, char *error, size_t error_bytes) {
    BIO *file = BIO_new_file(path, "rb");
    if (!file) {
        (void)snprintf(error, error_bytes, "cannot read the OCSP response '%s'", path);
        ERR_clear_error();
        return 0;
    }
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE_bio(file, NULL);
    BIO_free(file);
    const char *wrong = NULL;
    time_t until = 0;
    if (!response) wrong = "is none in DER form";
    else if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        wrong = "says that the responder has failed: fetch another";
    else if (i2d_OCSP_RESPONSE(response, NULL) > (int)RW_TLS_STAPLE_BYTES_MAX) wrong = "is longer than 16 KiB";
    else if (!find_answer(response, SSL_CTX_get0_certificate(ssl), &until)) wrong = "is about another certificate";
    else if (!add(ssl, response, until)) wrong = "cannot be kept: out of memory";
    if (wrong) (void)snprintf(error, error_bytes, "the OCSP response '%s' %s", path, wrong);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return !wrong;
}
