/* Options, and the command to run. */
#include "load.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char usage[] =
    "usage: load COMMAND [options]\n"
    "  ws-echo      messages that must come back          http        requests over keep-alive connections\n"
    "  ws-fanout    one publisher, many subscribers       http-churn  a connection for each request\n"
    "  ws-open      connect and upgrade, once for each connection; measured until all are open\n"
    "  ws-idle      hold connections until standard input ends or SIGTERM comes\n"
    "  reload       WebSockets that are held, others that come and go, and HTTP; counts what fails, and goes on\n"
    "\n"
    "  --host ADDRESS       within 127.0.0.0/8 (127.0.0.1)\n"
    "  --port PORT          (8080)\n"
    "  --path PATH          (ws-echo, ws-open, ws-idle, reload: /echo; ws-fanout: /room/bench; http, http-churn: "
    "/hello)\n"
    "  --connections N      1..19000; ws-fanout: subscribers, the publisher comes on top (1)\n"
    "  --in-flight N        1..1024 messages or pipelined requests per connection; ws-fanout: messages of a batch (1)\n"
    "  --rate N             ws-echo, http: 1..1000000 a second in all, evenly spread, however late answers are; 0: the "
    "next after an answer (0)\n"
    "  --opening N          connections being opened at once (128)\n"
    "  --payload BYTES      0..1048576 (20)\n"
    "  --binary             binary messages instead of text\n"
    "  --json               messages are JSON text, of at least 128 bytes\n"
    "  --deflate            ws-fanout, ws-idle: offer permessage-deflate; every message must come compressed, the "
    "first of each connection is inflated\n"
    "  --tls                TLS; the certificate is not verified\n"
    "  --warmup-ms MS       not counted (1000)\n"
    "  --seconds S          1..600, counted; ws-idle: the longest time to hold (5; ws-idle: 600)\n"
    "  --settle-ms MS       between the last handshake and the first message (ws-fanout: 300, else 0)\n"
    "  --per-address N      ws-open, ws-idle, http-churn, reload: connections per source address, 127.0.0.1 and on "
    "(4000)\n"
    "  --first-address N    the first source address is 127.0.0.1 + N (0)\n"
    "  --publisher-path P   ws-fanout: of the publisher (that of the subscribers)\n"
    "  --other-port PORT    ws-fanout: every second subscriber is there\n"
    "  --retry-refused      ws-fanout: a handshake that is answered with 409 is tried again\n"
    "  --socket-io          ws-fanout: speak Socket.IO; its framing counts as payload\n"
    "  --http-connections N reload: that ask for /hello, beside --connections WebSockets (50)\n"
    "  --http-interval-ms N reload: between an answer and the next request (0)\n"
    "  --opens-per-second N reload: WebSockets that open, echo once and close (500)\n"
    "\n"
    "Prints `measure-begin` and `measure-end` at those moments (ws-idle: `open N` when all are open), then one line of "
    "JSON.\n";

static const struct workload *const workloads[] = {&workload_ws_echo, &workload_ws_fanout, &workload_ws_open,
                                                   &workload_ws_idle, &workload_http,      &workload_http_churn,
                                                   &workload_reload};

static uint32_t number(const char *option, const char *text, uint32_t min, uint32_t max) {
    char *end;
    const unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || text[0] == '-' || value < min || value > max)
        fail("--%s must be a number from %u to %u, not \"%s\"", option, min, max, text);
    return (uint32_t)value;
}

/* A load client that can be pointed at others is a weapon: this one reaches its own machine only. */
static const char *loopback(const char *host) {
    struct in_addr address;
    if (inet_pton(AF_INET, host, &address) != 1 || ntohl(address.s_addr) >> 24 != 127)
        fail("--host must be an address within 127.0.0.0/8, not \"%s\"", host);
    return host;
}

static const char *path_checked(const char *path) {
    if (path[0] != '/' || strpbrk(path, " \r\n\t") != NULL) fail("--path must begin with / and have no spaces");
    return path;
}

static const struct workload *find_workload(const char *name) {
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++)
        if (strcmp(workloads[i]->name, name) == 0) return workloads[i];
    fail("no command \"%s\"; see --help", name);
}

static void set_defaults(struct load *load) {
    const struct workload *workload = load->workload;
    load->options = (struct options){
        .command = workload->name,
        .host = "127.0.0.1",
        .path = workload == &workload_ws_fanout                                  ? "/room/bench"
                : workload == &workload_http || workload == &workload_http_churn ? "/hello"
                                                                                 : "/echo",
        .port = 8080,
        .connections = 1,
        .in_flight = 1,
        .payload_bytes = 20,
        .opening = 128,
        .warmup_ms = 1000,
        .seconds = workload->holds ? SECONDS_MAX : 5,
        .settle_ms = workload == &workload_ws_fanout ? 300 : 0,
        .per_address = 4000,
        .http_connections = 50,
        .opens_per_second = 500,
    };
}

static void parse_options(struct options *options, int argc, char **argv) {
    enum {
        HOST = 256,
        PORT,
        PATH,
        CONNECTIONS,
        IN_FLIGHT,
        RATE,
        OPENING,
        PAYLOAD,
        BINARY,
        JSON,
        DEFLATE,
        TLS,
        WARMUP,
        SECONDS,
        SETTLE,
        PER_ADDRESS,
        FIRST_ADDRESS,
        PUBLISHER_PATH,
        OTHER_PORT,
        RETRY_REFUSED,
        SOCKET_IO,
        HTTP_CONNECTIONS,
        HTTP_INTERVAL,
        OPENS
    };
    static const struct option known[] = {
        {"host", required_argument, NULL, HOST},
        {"port", required_argument, NULL, PORT},
        {"path", required_argument, NULL, PATH},
        {"connections", required_argument, NULL, CONNECTIONS},
        {"in-flight", required_argument, NULL, IN_FLIGHT},
        {"rate", required_argument, NULL, RATE},
        {"opening", required_argument, NULL, OPENING},
        {"payload", required_argument, NULL, PAYLOAD},
        {"binary", no_argument, NULL, BINARY},
        {"json", no_argument, NULL, JSON},
        {"deflate", no_argument, NULL, DEFLATE},
        {"tls", no_argument, NULL, TLS},
        {"warmup-ms", required_argument, NULL, WARMUP},
        {"seconds", required_argument, NULL, SECONDS},
        {"settle-ms", required_argument, NULL, SETTLE},
        {"per-address", required_argument, NULL, PER_ADDRESS},
        {"first-address", required_argument, NULL, FIRST_ADDRESS},
        {"publisher-path", required_argument, NULL, PUBLISHER_PATH},
        {"other-port", required_argument, NULL, OTHER_PORT},
        {"retry-refused", no_argument, NULL, RETRY_REFUSED},
        {"socket-io", no_argument, NULL, SOCKET_IO},
        {"http-connections", required_argument, NULL, HTTP_CONNECTIONS},
        {"http-interval-ms", required_argument, NULL, HTTP_INTERVAL},
        {"opens-per-second", required_argument, NULL, OPENS},
        {NULL, 0, NULL, 0},
    };
    for (;;) {
        int index = 0;
        const int option = getopt_long(argc, argv, "", known, &index);
        if (option == -1) break;
        const char *name = option == '?' ? "" : known[index].name;
        switch (option) {
            case HOST: options->host = loopback(optarg); break;
            case PORT: options->port = (uint16_t)number(name, optarg, 1, 65535); break;
            case PATH: options->path = path_checked(optarg); break;
            case CONNECTIONS: options->connections = number(name, optarg, 1, CONNECTIONS_MAX); break;
            case IN_FLIGHT: options->in_flight = number(name, optarg, 1, IN_FLIGHT_MAX); break;
            case RATE: options->rate = number(name, optarg, 0, RATE_MAX); break;
            case OPENING: options->opening = number(name, optarg, 1, 1000); break;
            case PAYLOAD: options->payload_bytes = number(name, optarg, 0, PAYLOAD_BYTES_MAX); break;
            case BINARY: options->binary = 1; break;
            case JSON: options->json = 1; break;
            case DEFLATE: options->deflate = 1; break;
            case TLS: options->tls = 1; break;
            case WARMUP: options->warmup_ms = number(name, optarg, 0, 60000); break;
            case SECONDS: options->seconds = number(name, optarg, 1, SECONDS_MAX); break;
            case SETTLE: options->settle_ms = number(name, optarg, 0, 8000); break;
            case PER_ADDRESS: options->per_address = number(name, optarg, 1, 25000); break;
            case FIRST_ADDRESS: options->first_address = number(name, optarg, 0, SOURCES_MAX - 1); break;
            case PUBLISHER_PATH: options->publisher_path = path_checked(optarg); break;
            case OTHER_PORT: options->other_port = (uint16_t)number(name, optarg, 1, 65535); break;
            case RETRY_REFUSED: options->retry_refused = 1; break;
            case SOCKET_IO: options->socket_io = 1; break;
            case HTTP_CONNECTIONS: options->http_connections = number(name, optarg, 0, 1000); break;
            case HTTP_INTERVAL: options->http_interval_ms = number(name, optarg, 0, 10000); break;
            case OPENS: options->opens_per_second = number(name, optarg, 0, 5000); break;
            default: exit(2); /* getopt_long(3) has said what is wrong */
        }
    }
    if (optind != argc) fail("do not know what to do with \"%s\"", argv[optind]);
}

static void raise_descriptor_limit(uint32_t connections) {
    struct rlimit limit;
    const rlim_t needed = connections + 32u;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
    if (limit.rlim_max < needed)
        fail("%u connections need a limit of %llu open files; the hard limit is %llu (ulimit -Hn)", connections,
             (unsigned long long)needed, (unsigned long long)limit.rlim_max);
    limit.rlim_cur = needed;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
    static struct load load;
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    load.workload = find_workload(argv[1]);
    set_defaults(&load);
    parse_options(&load.options, argc - 1, argv + 1);
    load.connection_count = load.options.connections + load.workload->extra_connections;
    if (load.workload == &workload_reload) load.connection_count += load.options.http_connections;
    const uint32_t all = load.connection_count + load.workload->spare_connections;
    if (load.options.socket_io && (load.options.deflate || load.options.json || load.options.binary))
        fail("--socket-io does not go with --deflate, --json or --binary");
    if (load.options.deflate && load.workload != &workload_ws_fanout && load.workload != &workload_ws_idle)
        fail("--deflate is for ws-fanout and ws-idle");
    if (load.options.rate > 0) {
        if (load.workload->send == NULL) fail("--rate is for ws-echo and http");
        if (load.options.in_flight != 1)
            fail("--rate does not go with --in-flight: messages are sent when they are due");
        load.options.in_flight = IN_FLIGHT_MAX;
    }
    if (load.options.tls) tls_prepare();
    raise_descriptor_limit(all);
    load.connections = allocate(all, sizeof *load.connections);
    for (uint32_t i = 0; i < all; i++) load.connections[i] = (struct connection){.fd = -1, .index = i};
    load.buffer = allocate(BUFFER_BYTES + 1, 1);
    load.workload->prepare(&load);
    net_run(&load);
    report(&load);
    return 0; /* the kernel takes descriptors and memory back faster than we could */
}
