/* Connects twenty times with TLS 1.2, which is what mbedTLS 2 speaks, with the session of the connection before:
 * mbedtls PORT CA-FILE */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments) {
    if (count != 3) return 2;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random);
    mbedtls_x509_crt authority;
    mbedtls_x509_crt_init(&authority);
    mbedtls_ssl_config config;
    mbedtls_ssl_config_init(&config);
    if (mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0) != 0 ||
        mbedtls_x509_crt_parse_file(&authority, arguments[2]) != 0 ||
        mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0)
        return 3;
    mbedtls_ssl_conf_ca_chain(&config, &authority, NULL);
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
    mbedtls_ssl_session session;
    mbedtls_ssl_session_init(&session);
    for (int i = 0; i < 20; i++) {
        mbedtls_net_context net;
        mbedtls_net_init(&net);
        mbedtls_ssl_context ssl;
        mbedtls_ssl_init(&ssl);
        if (mbedtls_net_connect(&net, "127.0.0.1", arguments[1], MBEDTLS_NET_PROTO_TCP) != 0 ||
            mbedtls_ssl_setup(&ssl, &config) != 0 || mbedtls_ssl_set_hostname(&ssl, "localhost") != 0 ||
            (i && mbedtls_ssl_set_session(&ssl, &session) != 0))
            return 4;
        mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
        int result = mbedtls_ssl_handshake(&ssl);
        if (result != 0) {
            fprintf(stderr, "handshake %d failed: -0x%x\n", i, (unsigned)-result);
            return 5;
        }
        const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        mbedtls_ssl_write(&ssl, (const unsigned char *)request, sizeof request - 1);
        char answer[4096] = {0};
        size_t total = 0;
        for (int got; (got = mbedtls_ssl_read(&ssl, (unsigned char *)answer + total, sizeof answer - total - 1)) > 0;)
            total += (size_t)got;
        if (strncmp(answer, "HTTP/1.1 200", 12) != 0) return 6;
        mbedtls_ssl_session_free(&session);
        mbedtls_ssl_session_init(&session);
        if (mbedtls_ssl_get_session(&ssl, &session) != 0) return 7;
        mbedtls_ssl_free(&ssl);
        mbedtls_net_free(&net);
    }
    return 0;
}
