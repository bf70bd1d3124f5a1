/* Ticket keys, see tls_tickets.h. */
#include "connection/tls_tickets.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <string.h>

#define NAME_PREFIX_BYTES 8u
#define KEY_BYTES 32u

static void put_epoch(uint8_t *out, uint64_t epoch) {
    for (uint32_t i = 0; i < 8; i++) out[i] = (uint8_t)(epoch >> (56 - 8 * i));
}

/* HMAC-SHA-256 of a label and the epoch: one block of HKDF-Expand (RFC 5869 §2.3), which is all that 32 bytes need; the
 * secret is uniform already. ret: 1 or 0 */
static int derive(const uint8_t *secret, const char *label, uint64_t epoch, uint8_t out[KEY_BYTES]) {
    uint8_t info[32] = {0};
    size_t label_bytes = strlen(label);
    memcpy(info, label, label_bytes);
    put_epoch(info + label_bytes, epoch);
    info[label_bytes + 8] = 1;
    unsigned int bytes = 0;
    return HMAC(EVP_sha256(), secret, (int)RW_TLS_SECRET_BYTES, info, label_bytes + 9, out, &bytes) != NULL &&
           bytes == KEY_BYTES;
}

/* ret: 1 or 0 */
static int name_of(const uint8_t *secret, uint64_t epoch, uint8_t out[RW_TLS_KEY_NAME_BYTES]) {
    uint8_t prefix[KEY_BYTES];
    if (!derive(secret, "ticket name", 0, prefix)) return 0;
    memcpy(out, prefix, NAME_PREFIX_BYTES);
    put_epoch(out + NAME_PREFIX_BYTES, epoch);
    return 1;
}

static int set_keys(const uint8_t *secret, uint64_t epoch, const uint8_t *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                    int encrypt) {
    uint8_t key[KEY_BYTES], mac_key[KEY_BYTES];
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, mac_key, sizeof mac_key),
                           OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                           OSSL_PARAM_construct_end()};
    int done = derive(secret, "ticket cipher", epoch, key) && derive(secret, "ticket mac", epoch, mac_key) &&
               EVP_MAC_CTX_set_params(mac, params) &&
               EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key, iv, encrypt);
    OPENSSL_cleanse(key, sizeof key);
    OPENSSL_cleanse(mac_key, sizeof mac_key);
    return done;
}

int rw_tls_ticket_key(const uint8_t *secret, uint64_t wall_seconds, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher,
                      EVP_MAC_CTX *mac, int encrypt) {
    uint64_t epoch = wall_seconds / RW_TLS_EPOCH_SECONDS;
    if (encrypt) {
        if (!name_of(secret, epoch, name) || RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
            return -1;
        return set_keys(secret, epoch, iv, cipher, mac, 1) ? 1 : -1;
    }
    for (uint64_t back = 0; back < 2 && back <= epoch; back++) {
        uint8_t ours[RW_TLS_KEY_NAME_BYTES];
        if (!name_of(secret, epoch - back, ours)) return -1;
        if (memcmp(ours, name, sizeof ours) != 0) continue;
        if (!set_keys(secret, epoch - back, iv, cipher, mac, 0)) return -1;
        return back ? 2 : 1;
    }
    return 0;
}
