/* The load client: one thread, one epoll set; a closed loop, or with --rate an open one.
 *
 *   load.c      options, and the command to run            ws.c          handshake and frames
 *   net.c       connections and the loop                   ws_deflate.c  permessage-deflate, as far as it is checked
 *   tls.c       OpenSSL, for any command                   socket_io.c   what Socket.IO says within WebSocket messages
 *   measure.c   marks, latencies, the report               ws_load.c     ws-echo, ws-fanout, ws-open, ws-idle
 *   pace.c      the open loop                              http_load.c   http, http-churn
 *                                                          reload_load.c reload: what clients notice of a server that
 *                                                          is replaced
 *
 * It shares its machine with the server it measures: bytes are checked where recv(2) put them, nothing is allocated for
 * a message, and all that one wake-up allows to send goes out in one send(2). Anything unexpected ends the run with a
 * sentence on stderr and exit code 1: a number is reported only when every answer was right. */
#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONNECTIONS_MAX 19000u
#define IN_FLIGHT_MAX 1024u
#define PAYLOAD_BYTES_MAX (1u << 20)
#define SECONDS_MAX 600u
#define RATE_MAX 1000000u
#define SOURCES_MAX 200u /* addresses */
#define BUFFER_BYTES (256u << 10)
#define PARTIAL_BYTES_MAX (16u << 10) /* a response head or frame header that is not complete yet */
#define STALL_NS (10ull * 1000000000) /* no progress for so long ends the run */
#define LATENCY_BUCKETS 2048u

struct options {
    const char *command;
    const char *host; /* within 127.0.0.0/8 */
    const char *path;
    uint16_t port;
    uint32_t connections; /* ws-fanout: subscribers */
    /* messages or requests per connection at once; ws-fanout: messages of a batch; with a rate: at most */
    uint32_t in_flight;
    uint32_t rate; /* messages or requests a second in all; 0: a closed loop */
    uint32_t payload_bytes;
    uint32_t warmup_ms;
    uint32_t seconds;
    uint32_t opening; /* connections being opened at once: no accept queue overflows */
    /* ws-fanout: between the last handshake and the first message, so that every subscription is made */
    uint32_t settle_ms;
    uint32_t per_address;       /* connections per source address */
    uint32_t first_address;     /* behind 127.0.0.1 */
    uint32_t http_connections;  /* reload: beside the WebSockets */
    uint32_t opens_per_second;  /* reload */
    uint32_t http_interval_ms;  /* reload: between an answer and the next request */
    const char *publisher_path; /* ws-fanout; NULL: as the others */
    uint16_t other_port;        /* ws-fanout: of every second subscriber; 0: as the others */
    int retry_refused;          /* a handshake answered with 409 is tried again on another connection */
    int socket_io;              /* ws-fanout: the server speaks Socket.IO */
    int binary;
    int json;    /* messages are JSON text */
    int deflate; /* offer permessage-deflate, and expect every message compressed */
    int tls;
};

enum phase { PHASE_CLOSED = 0, PHASE_CONNECTING, PHASE_TLS, PHASE_HANDSHAKE, PHASE_OPEN };

struct ws_reader {
    uint64_t remaining;        /* of the present frame */
    uint64_t position;         /* in the present message, as far as it is checked */
    struct inflater *inflater; /* while a first message is inflated, to be checked */
    uint8_t in_frame;
    uint8_t in_message;
    uint8_t fin;
    uint8_t upgraded;    /* the handshake is complete; with Socket.IO its own one follows */
    uint16_t close_code; /* of the server's Close frame; 0: none has come */
};

enum http_state {
    HTTP_HEAD = 0,
    HTTP_SIZED,
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_DATA,
    HTTP_CHUNK_END,
    HTTP_TRAILER,
    HTTP_UNTIL_CLOSE
};

struct http_reader {
    uint64_t remaining; /* of the body, or of the present chunk */
    uint64_t body_bytes;
    enum http_state state;
};

struct connection {
    int fd;
    uint32_t index;
    enum phase phase;
    int wants_write;
    struct ssl_st *tls; /* NULL: plain */
    uint8_t *partial;   /* input that is not complete */
    uint32_t partial_bytes;
    uint8_t *out; /* output the kernel did not take */
    size_t out_bytes;
    size_t out_sent;
    uint32_t sent;     /* messages; wraps */
    uint32_t received; /* messages; wraps */
    uint64_t *sent_at; /* [in_flight], by number modulo in_flight */
    union {
        struct ws_reader ws;
        struct http_reader http;
    } reader;
};

struct load;

/* What a command does; functions not needed are NULL. */
struct workload {
    const char *name;
    void (*prepare)(struct load *load);
    void (*connected)(struct load *load, struct connection *connection);
    /* bytes[0..len): input. ret: how many were consumed; the rest comes again with what follows */
    size_t (*consume)(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len);
    void (*ended)(struct load *load, struct connection *connection); /* the server closed; NULL: that is an error */
    /* all connections are open, and the loop is a closed one */
    void (*begin)(struct load *load);
    /* count messages or requests, whose time began at since_ns; NULL: there is no open loop */
    void (*send)(struct load *load, struct connection *connection, uint32_t count, uint64_t since_ns);
    void (*message)(struct load *load, struct connection *connection); /* WebSocket: a whole message has come */
    void (*report)(const struct load *load);                           /* more members of the JSON object */
    /* connect, recv or send failed, which is `error` of errno(3); NULL: that ends the run */
    void (*failed)(struct load *load, struct connection *connection, int error);
    void (*tick)(struct load *load); /* about every 2 ms */
    uint32_t extra_connections;
    uint32_t spare_connections; /* behind those that are opened at first */
    int measures_opening;       /* from the first connect(2) until all are open, and no longer */
    /* stays until stdin ends or SIGTERM comes, measures nothing */
    int holds;
    int sources; /* uses several source addresses */
};

enum stage { STAGE_OPENING = 0, STAGE_SETTLING, STAGE_WARMUP, STAGE_MEASURING, STAGE_DONE };

struct load {
    struct options options;
    const struct workload *workload;
    struct connection *connections;
    uint32_t connection_count; /* the workload's spare ones lie behind them */
    uint32_t begun;            /* of connections[]: how many are in use */
    uint64_t started;          /* connections ever begun, those begun anew included */
    uint64_t opened;           /* connections ever open */
    uint32_t opening;
    uint32_t open;
    uint64_t pings;
    uint64_t outstanding; /* open loop: messages that have not come back */
    int epoll;
    enum stage stage;
    uint64_t now;
    uint64_t stage_until;
    uint64_t progress_at;
    uint8_t *buffer; /* BUFFER_BYTES, for input */

    uint64_t messages;      /* while measuring */
    uint64_t payload_bytes; /* of WebSocket frames received while measuring, as they came */
    uint64_t measured_from;
    uint64_t measured_ns;
    double client_cpu_seconds;
    uint64_t latencies[LATENCY_BUCKETS];
    uint64_t latency_count;
    uint64_t latency_max;
};

/* measure.c */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *allocate(size_t count, size_t bytes); /* zeroed, never NULL */
uint64_t clock_now(void);
void measure_begin(struct load *load);
void measure_end(struct load *load);
void latency_add(struct load *load, uint64_t ns); /* only counted while measuring */
void report(const struct load *load);

/* net.c */
uint16_t net_port(const struct load *load, const struct connection *connection);
void net_open(struct load *load, struct connection *connection); /* one that is closed */
void net_run(struct load *load);
void net_send(struct load *load, struct connection *connection, const void *bytes, size_t len);
void net_opened(struct load *load, struct connection *connection); /* the protocol is ready */
void net_close(struct load *load, struct connection *connection);
void net_reopen(struct load *load, struct connection *connection); /* close it and connect anew */

/* pace.c */
void pace_begin(const struct load *load); /* the first message is due now */
void pace_send(struct load *load);        /* what is due; nothing in a closed loop */
/* ret: for how long nothing is due, at most most_ns */
uint64_t pace_wait_ns(const struct load *load, uint64_t most_ns);

/* tls.c: results as those of send(2) and recv(2), errno EAGAIN included */
void tls_prepare(void);
void tls_begin(struct connection *connection);
enum tls_step { TLS_DONE, TLS_WANTS_READ, TLS_WANTS_WRITE } tls_handshake(struct connection *connection);
ssize_t tls_send(struct connection *connection, const void *bytes, size_t len);
ssize_t tls_recv(struct connection *connection, void *bytes, size_t len);
int tls_holds_input(const struct connection *connection); /* epoll does not know of bytes that OpenSSL has read ahead */
void tls_end(struct connection *connection);

/* ws.c */
/* The path and port of a connection follow from its index: see ws_connected() and port_of(). */
void ws_prepare(struct load *load);
void ws_connected(struct load *load, struct connection *connection);
size_t ws_consume(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len);
/* Send messages number first .. first + count - 1 (count <= in_flight). */
void ws_send(struct load *load, struct connection *connection, uint32_t first, uint32_t count);
/* Are bytes[0..len) what comes next of the message that the connection waits for? If not, the run ends. */
void ws_check(const struct load *load, struct connection *connection, const uint8_t *bytes, size_t len);

/* A text message of our own, such as an answer to Socket.IO. */
void ws_send_text(struct load *load, struct connection *connection, const char *text);
void ws_send_close(struct load *load, struct connection *connection, uint16_t code);
/* ret: length of the answer's head, 0 when it is not complete; *status: of the answer */
size_t ws_handshake_answer(const uint8_t *bytes, size_t len, int *status);

/* socket_io.c */
extern const char socket_io_begin[], socket_io_end[]; /* around the data of an event, within a message */
/* A message of the protocol itself, at bytes[0..len): the handshake, or a ping. */
void socket_io_take(struct load *load, struct connection *connection, const uint8_t *bytes, size_t len);

/* ws_deflate.c */
extern const char deflate_offer[]; /* a header line */
void deflate_check_answer(const uint8_t *head, size_t len);
void deflate_take(const struct load *load, struct connection *connection, const uint8_t *bytes, size_t len);
void deflate_end(const struct load *load, struct connection *connection); /* of a message; gives the inflater back */

extern const struct workload workload_ws_echo;
extern const struct workload workload_ws_fanout;
extern const struct workload workload_ws_open;
extern const struct workload workload_ws_idle;
extern const struct workload workload_http;
extern const struct workload workload_http_churn;
extern const struct workload workload_reload;

#endif
