/* Gives programs that listen on ports of their own choice a free one each, so that the tests that run them can run side
 * by side.
 *
 * Loaded by LD_PRELOAD: bind(2) of a port in FIXED_PORTS ("9001,3000") takes port 0 the first time and what that gave
 * from then on, and connect(2) to it goes where it was bound. What was bound is told on stderr, as "bound 9001 to
 * 43210". Built by the test that uses it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int socket_call(int, const struct sockaddr *, socklen_t);

/* Indexed by the fixed port. */
static in_port_t bound[65536];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_fixed(unsigned port) {
    const char *list = getenv("FIXED_PORTS");
    for (char *end; list != NULL && *list != '\0'; list = *end == ',' ? end + 1 : end) {
        if (strtoul(list, &end, 10) == port) return true;
        if (end == list) return false;
    }
    return false;
}

/* The port within a copy of an address, or NULL: sin_port and sin6_port lie at the same place. */
static in_port_t *port_of(struct sockaddr_storage *copy, const struct sockaddr *address, socklen_t bytes) {
    if (address == NULL || bytes < sizeof(struct sockaddr_in) || bytes > sizeof *copy) return NULL;
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6) return NULL;
    memcpy(copy, address, bytes);
    in_port_t *port = &((struct sockaddr_in *)copy)->sin_port;
    return is_fixed(ntohs(*port)) ? port : NULL;
}

int bind(int descriptor, const struct sockaddr *address, socklen_t bytes) {
    socket_call *next = (socket_call *)dlsym(RTLD_NEXT, "bind");
    struct sockaddr_storage copy;
    in_port_t *port = port_of(&copy, address, bytes);
    if (port == NULL) return next(descriptor, address, bytes);

    unsigned fixed = ntohs(*port);
    pthread_mutex_lock(&lock);
    *port = bound[fixed];
    int result = next(descriptor, (struct sockaddr *)&copy, bytes);
    if (result == 0 && bound[fixed] == 0) {
        socklen_t length = sizeof copy;
        if (getsockname(descriptor, (struct sockaddr *)&copy, &length) == 0) {
            bound[fixed] = ((struct sockaddr_in *)&copy)->sin_port;
            dprintf(2, "bound %u to %u\n", fixed, ntohs(bound[fixed]));
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int connect(int descriptor, const struct sockaddr *address, socklen_t bytes) {
    socket_call *next = (socket_call *)dlsym(RTLD_NEXT, "connect");
    struct sockaddr_storage copy;
    in_port_t *port = port_of(&copy, address, bytes);
    if (port == NULL) return next(descriptor, address, bytes);
    *port = bound[ntohs(*port)];
    return next(descriptor, (struct sockaddr *)&copy, bytes);
}
