/* Connections and the loop: opens all of them, a bounded number at a time, then lets the workload answer what arrives,
 * or what is due, until the time is over. Level-triggered, one recv(2) a wake-up: a connection with more to read is
 * simply reported again. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 512
#define STDIN_TAG NULL /* the event of standard input carries no connection */

static volatile sig_atomic_t stop_asked;

static void on_signal(int signal_number) {
    (void)signal_number;
    stop_asked = 1;
}

static void watch(struct load *load, struct connection *connection, int operation, int wants_write) {
    struct epoll_event event = {.events = EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(load->epoll, operation, connection->fd, &event) != 0) fail("epoll_ctl: %s", strerror(errno));
    connection->wants_write = wants_write;
}

/* A source address of its own for each per_address connections: one address has about 28,000 ports, fewer while old
 * ones linger. */
static void bind_source(const struct load *load, const struct connection *connection) {
    const int on = 1;
    struct sockaddr_in source = {
        .sin_family = AF_INET,
        .sin_addr.s_addr =
            htonl(INADDR_LOOPBACK +
                  (uint32_t)((load->options.first_address + load->started / load->options.per_address) % SOURCES_MAX))};
    /* ip(7): the port is chosen at connect, when the whole tuple is known, so that ports are shared between targets. */
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(connection->fd, (struct sockaddr *)&source, sizeof source) != 0)
        fail("bind to a loopback source address: %s", strerror(errno));
}

uint16_t net_port(const struct load *load, const struct connection *connection) {
    const struct options *options = &load->options;
    return options->other_port != 0 && connection->index % 2 == 1 && connection->index < options->connections
               ? options->other_port
               : options->port;
}

/* connect, recv or send has failed. */
static void trouble(struct load *load, struct connection *connection, const char *what, int error) {
    if (load->workload->failed == NULL)
        fail("%s %s:%u: %s", what, load->options.host, net_port(load, connection), strerror(error));
    load->workload->failed(load, connection, error);
}

void net_open(struct load *load, struct connection *connection) {
    const int on = 1;
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(net_port(load, connection))};
    inet_pton(AF_INET, load->options.host, &target.sin_addr);
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) fail("socket: %s (is the limit of open files too low?)", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (load->workload->sources) bind_source(load, connection);
    connection->phase = PHASE_CONNECTING;
    load->opening++;
    load->started++;
    watch(load, connection, EPOLL_CTL_ADD, 1);
    if (connect(connection->fd, (struct sockaddr *)&target, sizeof target) != 0 && errno != EINPROGRESS)
        trouble(load, connection, "connect to", errno);
}

void net_close(struct load *load, struct connection *connection) {
    if (connection->phase == PHASE_CLOSED) return;
    if (connection->phase == PHASE_OPEN) load->open--;
    else load->opening--;
    if (connection->tls != NULL) tls_end(connection);
    close(connection->fd);
    connection->fd = -1;
    connection->phase = PHASE_CLOSED;
    connection->partial_bytes = 0;
    connection->out_bytes = connection->out_sent = 0;
    memset(&connection->reader, 0, sizeof connection->reader);
}

void net_reopen(struct load *load, struct connection *connection) {
    net_close(load, connection);
    net_open(load, connection);
}

void net_opened(struct load *load, struct connection *connection) {
    connection->phase = PHASE_OPEN;
    load->opening--;
    load->open++;
    load->opened++;
    load->progress_at = load->now;
}

static void keep_output(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    const size_t waiting = connection->out_bytes - connection->out_sent;
    if (waiting > 0) memmove(connection->out, connection->out + connection->out_sent, waiting);
    uint8_t *out = realloc(connection->out, waiting + len);
    if (out == NULL) fail("out of memory");
    memcpy(out + waiting, bytes, len);
    connection->out = out;
    connection->out_sent = 0;
    connection->out_bytes = waiting + len;
    if (!connection->wants_write) watch(load, connection, EPOLL_CTL_MOD, 1);
}

/* ret: how much was taken. A connection that is broken takes everything: that it is shows itself in recv(2), where it
 * is dealt with. */
static size_t put(const struct load *load, struct connection *connection, const uint8_t *bytes, size_t len) {
    const ssize_t sent =
        connection->tls != NULL ? tls_send(connection, bytes, len) : send(connection->fd, bytes, len, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        if (load->workload->failed == NULL) fail("send: %s", strerror(errno));
        return len;
    }
    return sent > 0 ? (size_t)sent : 0;
}

void net_send(struct load *load, struct connection *connection, const void *bytes, size_t len) {
    const uint8_t *from = bytes;
    const size_t sent = connection->out_bytes == connection->out_sent ? put(load, connection, from, len) : 0;
    if (sent < len) keep_output(load, connection, from + sent, len - sent);
}

static void step_tls(struct load *load, struct connection *connection) {
    const enum tls_step step = tls_handshake(connection);
    const int wants_write = step == TLS_WANTS_WRITE;
    if (connection->wants_write != wants_write) watch(load, connection, EPOLL_CTL_MOD, wants_write);
    if (step != TLS_DONE) return;
    connection->phase = PHASE_HANDSHAKE;
    load->workload->connected(load, connection);
}

static void on_connected(struct load *load, struct connection *connection) {
    int error = 0;
    socklen_t bytes = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error != 0) {
        trouble(load, connection, "connect to", error);
        return;
    }
    if (load->options.tls) {
        connection->phase = PHASE_TLS;
        tls_begin(connection);
        step_tls(load, connection);
        return;
    }
    connection->phase = PHASE_HANDSHAKE;
    watch(load, connection, EPOLL_CTL_MOD, 0);
    load->workload->connected(load, connection);
}

static void on_writable(struct load *load, struct connection *connection) {
    connection->out_sent +=
        put(load, connection, connection->out + connection->out_sent, connection->out_bytes - connection->out_sent);
    if (connection->out_sent == connection->out_bytes) watch(load, connection, EPOLL_CTL_MOD, 0);
}

static void keep_partial(struct connection *connection, const uint8_t *bytes, size_t len) {
    if (len > PARTIAL_BYTES_MAX) fail("a response head is longer than %u bytes", PARTIAL_BYTES_MAX);
    if (len > 0 && connection->partial == NULL) connection->partial = allocate(PARTIAL_BYTES_MAX, 1);
    if (len > 0) memcpy(connection->partial, bytes, len);
    connection->partial_bytes = (uint32_t)len;
    /* rare enough not to be worth keeping: 19,000 of them would be 300 MB */
    if (len == 0 && connection->partial != NULL) {
        free(connection->partial);
        connection->partial = NULL;
    }
}

/* ret: 1 something came and the connection lives */
static int take_input(struct load *load, struct connection *connection) {
    size_t have = connection->partial_bytes;
    if (have > 0) memcpy(load->buffer, connection->partial, have);
    uint8_t *into = load->buffer + have;
    const ssize_t received = connection->tls != NULL ? tls_recv(connection, into, BUFFER_BYTES - have)
                                                     : recv(connection->fd, into, BUFFER_BYTES - have, 0);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (received < 0 && !load->workload->holds) {
        trouble(load, connection, "recv from", errno);
        return 0;
    }
    if (received <= 0) {
        if (load->workload->ended == NULL) fail("the server closed connection %u", connection->index);
        load->workload->ended(load, connection);
        return 0;
    }
    load->now = clock_now();
    have += (size_t)received;
    const size_t consumed = load->workload->consume(load, connection, load->buffer, have);
    if (connection->phase == PHASE_CLOSED || connection->phase == PHASE_CONNECTING) return 0;
    keep_partial(connection, load->buffer + consumed, have - consumed);
    return 1;
}

static void on_readable(struct load *load, struct connection *connection) {
    while (take_input(load, connection) && connection->tls != NULL && tls_holds_input(connection)) continue;
}

static void on_event(struct load *load, const struct epoll_event *event) {
    struct connection *connection = event->data.ptr;
    if (connection == STDIN_TAG) {
        char ignored[256];
        if (read(STDIN_FILENO, ignored, sizeof ignored) <= 0) stop_asked = 1;
        return;
    }
    /* errors and the end of the stream show themselves in recv(2) */
    const uint32_t input = event->events & ~(uint32_t)EPOLLOUT;
    switch (connection->phase) {
        case PHASE_CLOSED: return;
        case PHASE_CONNECTING: on_connected(load, connection); return;
        case PHASE_TLS: step_tls(load, connection); return;
        case PHASE_HANDSHAKE:
        case PHASE_OPEN:
            if ((event->events & EPOLLOUT) != 0) on_writable(load, connection);
            if (input != 0) on_readable(load, connection);
    }
}

static void enter(struct load *load, enum stage stage, uint64_t length_ms) {
    load->stage = stage;
    load->stage_until = load->now + length_ms * 1000000u;
    load->progress_at = load->now;
}

/* One step of opening → settling → warm-up → measuring → done, when it is due. */
static void advance(struct load *load) {
    const int due = load->now >= load->stage_until;
    if (load->stage == STAGE_OPENING) {
        while (load->opening < load->options.opening && load->begun < load->connection_count)
            net_open(load, &load->connections[load->begun++]);
        /* Not all of them need be open now: those of http-churn come and go. */
        if (load->opened < load->connection_count) return;
        if (load->workload->measures_opening) {
            load->messages = load->opened;
            measure_end(load);
        } else {
            enter(load, STAGE_SETTLING, load->options.settle_ms);
        }
        return;
    }
    if (load->workload->holds) return;
    if (load->stage == STAGE_SETTLING && due) {
        enter(load, STAGE_WARMUP, load->options.warmup_ms);
        if (load->options.rate > 0) pace_begin(load);
        else load->workload->begin(load);
    } else if (load->stage == STAGE_WARMUP && due) {
        measure_begin(load);
        enter(load, STAGE_MEASURING, load->options.seconds * 1000ull);
    } else if (load->stage == STAGE_MEASURING && due) {
        measure_end(load);
    }
    if (load->stage == STAGE_SETTLING) load->progress_at = load->now;
}

static void hold_begin(struct load *load) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = STDIN_TAG};
    /* EPERM: standard input is a file, which never "ends" for epoll; then only a signal ends us. */
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0 && errno != EPERM)
        fail("epoll_ctl: %s", strerror(errno));
    printf("open %u\n", load->open);
    fflush(stdout);
}

static int goes_on(const struct load *load, int held) {
    return !stop_asked && load->stage != STAGE_DONE && !(held && load->now >= load->stage_until);
}

static int wait_for(const struct load *load, struct epoll_event *events, uint64_t ns) {
    const struct timespec most = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    const int count = epoll_pwait2(load->epoll, events, EVENTS_MAX, &most, NULL);
    if (count < 0 && errno != EINTR) fail("epoll_pwait2: %s", strerror(errno));
    return count;
}

void net_run(struct load *load) {
    struct epoll_event events[EVENTS_MAX];
    struct sigaction action = {.sa_handler = on_signal};
    int held = 0;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if ((load->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll_create1: %s", strerror(errno));
    prctl(PR_SET_TIMERSLACK, 1ul);
    load->now = load->progress_at = clock_now();
    if (load->workload->measures_opening) measure_begin(load);
    advance(load);
    while (goes_on(load, held)) {
        const int count = wait_for(load, events,
                                   pace_wait_ns(load, held                           ? 1000000000
                                                      : load->workload->tick != NULL ? 2000000
                                                                                     : 20000000));
        for (int i = 0; i < count; i++) {
            on_event(load, &events[i]);
            pace_send(load);
        }
        pace_send(load);
        load->now = clock_now();
        advance(load);
        if (load->workload->tick != NULL && load->stage >= STAGE_WARMUP && load->stage < STAGE_DONE)
            load->workload->tick(load);
        if (load->workload->holds && load->stage != STAGE_OPENING && !held) {
            held = 1;
            enter(load, STAGE_SETTLING, load->options.seconds * 1000ull);
            hold_begin(load);
        }
        if (!held && load->now - load->progress_at > STALL_NS)
            fail("no progress for %llu seconds: %u of %u connections open", STALL_NS / 1000000000u, load->open,
                 load->connection_count);
    }
    if (stop_asked && !load->workload->holds) fail("stopped by a signal");
    close(load->epoll);
}
