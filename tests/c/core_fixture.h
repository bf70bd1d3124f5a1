/* All that a test of the core as a whole needs: a host, its clients, and every ring. */
#ifndef CORE_FIXTURE_H
#define CORE_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "connection/core.h"
#include "core_host.h"
#include "core_peer.h"
#include "ring/ring_sim.h"
#include "ringway.h"
#include "ws/ws_frame.h"

/* For what else is joined into a test as a header. */
#define FIXTURE static __attribute__((unused))

#define ON_SIM(test) {#test " (sim)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_SIM}
#define ON_REAL_RINGS(test)                                                                     \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING}, { \
        #test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL        \
    }
#define ON_EVERY_RING(test) ON_SIM(test), ON_REAL_RINGS(test)

#endif
