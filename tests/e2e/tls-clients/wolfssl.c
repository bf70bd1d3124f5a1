/* Connects twenty times with each version of TLS, with the session of the connection before: wolfssl PORT CA-FILE */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

int main(int count, char **arguments) {
    if (count != 3) return 2;
    wolfSSL_Init();
    for (int is13 = 0; is13 < 2; is13++) {
        WOLFSSL_CTX *context = wolfSSL_CTX_new(is13 ? wolfTLSv1_3_client_method() : wolfTLSv1_2_client_method());
        wolfSSL_CTX_load_verify_locations(context, arguments[2], NULL);
        wolfSSL_CTX_UseSessionTicket(context);
        WOLFSSL_SESSION *session = NULL;
        for (int i = 0; i < 20; i++) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            struct sockaddr_in to = {.sin_family = AF_INET,
                                     .sin_port = htons((unsigned short)atoi(arguments[1])),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) return 3;
            WOLFSSL *ssl = wolfSSL_new(context);
            wolfSSL_set_fd(ssl, fd);
            wolfSSL_UseSNI(ssl, WOLFSSL_SNI_HOST_NAME, "localhost", 9);
            wolfSSL_check_domain_name(ssl, "localhost");
            if (session) wolfSSL_set_session(ssl, session);
            if (wolfSSL_connect(ssl) != WOLFSSL_SUCCESS) {
                fprintf(stderr, "connection %d failed: %d\n", i, wolfSSL_get_error(ssl, 0));
                return 4;
            }
            const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            wolfSSL_write(ssl, request, sizeof request - 1);
            char answer[4096] = {0};
            int total = 0;
            for (int got; (got = wolfSSL_read(ssl, answer + total, (int)sizeof answer - total - 1)) > 0;) total += got;
            if (strncmp(answer, "HTTP/1.1 200", 12) != 0) return 5;
            if (session) wolfSSL_SESSION_free(session);
            session = wolfSSL_get1_session(ssl);
            wolfSSL_free(ssl);
            close(fd);
        }
        wolfSSL_SESSION_free(session);
        wolfSSL_CTX_free(context);
    }
    return 0;
}
