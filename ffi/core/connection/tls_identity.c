/* Who is at both ends of a TLS connection, see tls.h: the name that the client asked for and what it may ask for by
 * it. */
#include <openssl/x509.h>
#include <string.h>

#include "connection/tls.h"

int32_t rw_core_tls(const struct rw_core *core, uint32_t slot_index, uint32_t generation, uint8_t *out, uint32_t bytes,
                    uint32_t *version) {
    const struct rw_slot *slot = rw_slot_pool_get(&core->pool, slot_index, generation);
    *version = 0;
    if (!slot) return RW_ERR_STALE;
    const struct rw_tls *tls = slot->tls;
    if (!tls || tls->phase != RW_TLS_OPEN) return 0;
    *version = (uint32_t)SSL_version(tls->ssl);
    uint16_t name_bytes = tls->name ? (uint16_t)strlen(tls->name) : 0;
    X509 *shown = SSL_get0_peer_certificate(tls->ssl);
    int certificate_bytes = shown ? i2d_X509(shown, NULL) : 0;
    if (certificate_bytes < 0) return RW_ERR_STALE;
    uint32_t needed = (uint32_t)sizeof name_bytes + name_bytes + (uint32_t)certificate_bytes;
    if (needed > bytes) return (int32_t)needed;
    memcpy(out, &name_bytes, sizeof name_bytes);
    if (name_bytes) memcpy(out + sizeof name_bytes, tls->name, name_bytes);
    uint8_t *at = out + sizeof name_bytes + name_bytes;
    if (shown) (void)i2d_X509(shown, &at);
    return (int32_t)needed;
}

/* The context of a host as a request has it; one that no client can ask for in a handshake is the listener's own. */
static const struct rw_tls_context *context_of(const struct rw_tls_listener *listener, const uint8_t *host,
                                               size_t bytes, uint16_t *number) {
    /* IPv6 addresses, whose colons are no port's, are no server names (RFC 6066 §3). */
    const uint8_t *colon = bytes ? memchr(host, ':', bytes) : NULL;
    char name[RW_TLS_NAME_BYTES_MAX + 1];
    const struct rw_tls_name *found = NULL;
    if (rw_tls_name_normalize(name, host, colon ? (size_t)(colon - host) : bytes))
        found = rw_tls_names_find(&listener->names, name);
    *number = found ? found->number : 0;
    return found ? &found->context : &listener->context;
}

int rw_tls_may_serve(const struct rw_tls *tls, const uint8_t *host, size_t bytes) {
    /* Without a host it is for the name of the handshake. */
    if (tls->listener->names.count == 0 || bytes == 0) return 1;
    uint16_t number;
    const struct rw_tls_context *context = context_of(tls->listener, host, bytes, &number);
    /* What has changed in its files since the handshake is for new connections. */
    if (number == tls->server_context) return 1;
    if (context->client_policy && context->client_policy != rw_tls_client_policy_of(tls->ssl)) return 0;
    if (SSL_version(tls->ssl) >= TLS1_3_VERSION) return 1;
    return SSL_version(tls->ssl) >= SSL_CTX_get_min_proto_version(context->ssl) &&
           sk_SSL_CIPHER_find(SSL_CTX_get_ciphers(context->ssl), SSL_get_current_cipher(tls->ssl)) >= 0;
}
