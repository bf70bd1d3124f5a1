/* Keys of TLS session tickets (RFC 5077 §4): every worker of a node makes and takes the same.
 *
 * Role: secret + epoch → keys, as a pure function, so that nothing has to be distributed when they rotate. Up: tls.
 * Down: OpenSSL. A ticket names its epoch in clear. Tickets of the present epoch and of the one before are taken; a
 * session lives no longer than an epoch, so that none is refused early. */
#ifndef RW_TLS_TICKETS_H
#define RW_TLS_TICKETS_H

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdint.h>

#define RW_TLS_SECRET_BYTES 32u
#define RW_TLS_EPOCH_SECONDS 28800u /* 8 hours */
#define RW_TLS_KEY_NAME_BYTES 16u   /* RFC 5077 §4: 8 bytes that tell our node from others, 8 of the epoch */

/* As OpenSSL's callback, with the secret and the time as arguments.
 * ret: 1 keys are set, 2 the same and a new ticket is due, 0 the ticket is none of ours, -1 failed */
int rw_tls_ticket_key(const uint8_t *secret, uint64_t wall_seconds, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher,
                      EVP_MAC_CTX *mac, int encrypt);

#endif
