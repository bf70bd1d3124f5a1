/* The ring, connections and rooms. One thread, one ring.
 *
 *   accept ──> receive into a buffer ──> frames turned around in that buffer ──> queued as a piece for its sender, or
 *   for all of a room
 *                                                                                 one send at a time for each
 *                                                                                 connection
 *   A buffer counts the pieces that refer to it, and goes back to the kernel when none is left. */
#include "floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ENTRIES 4096u
#define DESCRIPTORS_MAX 32768u
#define BUFFERS 512u /* a power of two */
#define BUFFER_BYTES 8192u
#define HEADROOM_BYTES 2048u /* before what is received: for the frame that the receive before has left incomplete */
#define ROOMS_MAX 64u
#define GROUP 0
#define NOBODY UINT32_MAX

enum operation { OPERATION_ACCEPT, OPERATION_RECEIVE, OPERATION_SEND };

struct piece {
    uint32_t buffer;
    uint32_t at; /* of the buffer */
    uint32_t bytes;
};

struct room {
    char path[64];
    uint32_t *members; /* descriptors */
    uint32_t count;
    uint32_t capacity;
};

struct connection {
    struct piece *pieces; /* to be sent, the first one under way if `sending`; [0 .. count) */
    uint32_t count;
    uint32_t capacity;
    uint8_t *partial; /* an incomplete head or frame */
    uint32_t partial_bytes;
    uint32_t room;     /* NOBODY: in none */
    uint32_t position; /* in the room */
    uint8_t open, receiving, sending, upgraded, ended;
};

static struct io_uring ring;
static struct io_uring_buf_ring *offers;
static uint8_t *memory;
static uint32_t references[BUFFERS];
static uint32_t unadvanced;
static struct connection connections[DESCRIPTORS_MAX];
static struct room rooms[ROOMS_MAX];
static uint32_t starved[DESCRIPTORS_MAX]; /* whose receive has found no buffer */
static uint32_t starved_count;

_Noreturn static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn static void fail(const char *format, ...) {
    va_list arguments;
    fputs("floor: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *grown(void *memory_before, uint32_t *capacity, size_t bytes) {
    *capacity = *capacity == 0 ? 4 : *capacity * 2;
    void *result = realloc(memory_before, *capacity * bytes);
    if (result == NULL) fail("out of memory");
    return result;
}

/* ------------------------------------------------------------------ operations */

static struct io_uring_sqe *entry(void) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (sqe == NULL) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    if (sqe == NULL) fail("the submission queue stays full");
    return sqe;
}

static void tag(struct io_uring_sqe *sqe, uint32_t fd, enum operation operation) {
    io_uring_sqe_set_data64(sqe, (uint64_t)fd << 2 | operation);
}

static void start_receiving(uint32_t fd) {
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_recv_multishot(sqe, (int)fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    tag(sqe, fd, OPERATION_RECEIVE);
    connections[fd].receiving = 1;
}

static uint8_t *bytes_of(uint32_t buffer) { return memory + (size_t)buffer * BUFFER_BYTES; }

static void buffer_offer(uint32_t buffer) {
    io_uring_buf_ring_add(offers, bytes_of(buffer) + HEADROOM_BYTES, BUFFER_BYTES - HEADROOM_BYTES,
                          (unsigned short)buffer, BUFFERS - 1, (int)unadvanced);
    unadvanced++;
}

static void buffer_release(uint32_t buffer) {
    if (--references[buffer] == 0) buffer_offer(buffer);
}

static void send_first(uint32_t fd) {
    const struct piece *piece = &connections[fd].pieces[0];
    struct io_uring_sqe *sqe = entry();
    /* MSG_WAITALL: the kernel goes on by itself after a short send. */
    io_uring_prep_send(sqe, (int)fd, bytes_of(piece->buffer) + piece->at, piece->bytes, MSG_NOSIGNAL | MSG_WAITALL);
    tag(sqe, fd, OPERATION_SEND);
    connections[fd].sending = 1;
}

static void queue(uint32_t fd, struct piece piece) {
    struct connection *connection = &connections[fd];
    if (connection->ended) return;
    if (connection->count == connection->capacity)
        connection->pieces = grown(connection->pieces, &connection->capacity, sizeof piece);
    connection->pieces[connection->count++] = piece;
    references[piece.buffer]++;
    if (!connection->sending) send_first(fd);
}

/* ------------------------------------------------------------------ rooms */

static void join(uint32_t fd, const char *path) {
    uint32_t index = 0;
    while (index < ROOMS_MAX && rooms[index].path[0] != '\0' && strcmp(rooms[index].path, path) != 0) index++;
    if (index == ROOMS_MAX) fail("more than %u rooms", ROOMS_MAX);
    struct room *room = &rooms[index];
    snprintf(room->path, sizeof room->path, "%s", path);
    if (room->count == room->capacity) room->members = grown(room->members, &room->capacity, sizeof *room->members);
    connections[fd].room = index;
    connections[fd].position = room->count;
    room->members[room->count++] = fd;
}

static void leave(uint32_t fd) {
    struct connection *connection = &connections[fd];
    if (connection->room == NOBODY) return;
    struct room *room = &rooms[connection->room];
    const uint32_t last = room->members[--room->count];
    room->members[connection->position] = last;
    connections[last].position = connection->position;
    connection->room = NOBODY;
}

/* ------------------------------------------------------------------ input */

static void deliver(uint32_t fd, struct piece piece) {
    const struct connection *connection = &connections[fd];
    if (connection->room == NOBODY) {
        queue(fd, piece);
        return;
    }
    const struct room *room = &rooms[connection->room];
    for (uint32_t i = 0; i < room->count; i++) queue(room->members[i], piece);
}

/* The request at bytes[0..len) of a buffer; its answer is written over it. ret: bytes consumed, 0 when it is
 * incomplete */
static size_t take_request(uint32_t fd, uint32_t buffer, uint8_t *bytes, size_t len) {
    struct request request;
    wire_request(bytes, len, &request);
    if (request.kind == REQUEST_INCOMPLETE) return 0;
    /* A request is longer than its answer, or at the end of the buffer there is room for it: heads of the bench are far
     * from filling one. */
    if (request.answer_bytes > request.head_bytes && bytes + request.answer_bytes > bytes_of(buffer) + BUFFER_BYTES)
        fail("no room for an answer");
    const size_t rest = len - request.head_bytes;
    if (rest > 0) fail("input behind a request whose answer has not been sent");
    memcpy(bytes, request.answer, request.answer_bytes);
    queue(fd, (struct piece){.buffer = buffer,
                             .at = (uint32_t)(bytes - bytes_of(buffer)),
                             .bytes = (uint32_t)request.answer_bytes});
    connections[fd].upgraded = request.kind == REQUEST_ECHO || request.kind == REQUEST_ROOM;
    if (request.kind == REQUEST_ROOM) join(fd, request.path);
    return request.head_bytes;
}

static void keep_partial(struct connection *connection, const uint8_t *bytes, size_t len) {
    if (len > HEADROOM_BYTES) fail("a head or frame is longer than %u bytes", HEADROOM_BYTES);
    connection->partial_bytes = (uint32_t)len;
    if (len == 0) return;
    if (connection->partial == NULL && (connection->partial = malloc(HEADROOM_BYTES)) == NULL) fail("out of memory");
    memcpy(connection->partial, bytes, len);
}

static void take_input(uint32_t fd, uint32_t buffer, size_t received) {
    struct connection *connection = &connections[fd];
    const size_t before = connection->partial_bytes;
    uint8_t *bytes = bytes_of(buffer) + HEADROOM_BYTES - before;
    const size_t len = before + received;
    if (before > 0) memcpy(bytes, connection->partial, before);
    references[buffer] = 1; /* ours, until it has been read */
    if (!connection->upgraded) {
        const size_t consumed = take_request(fd, buffer, bytes, len);
        keep_partial(connection, bytes + consumed, len - consumed);
    } else {
        const struct frames frames = wire_frames(bytes, len);
        keep_partial(connection, bytes + frames.consumed, frames.closed ? 0 : len - frames.consumed);
        if (frames.bytes > 0)
            deliver(fd, (struct piece){.buffer = buffer,
                                       .at = (uint32_t)(bytes - bytes_of(buffer)),
                                       .bytes = (uint32_t)frames.bytes});
        if (frames.closed) shutdown((int)fd, SHUT_RDWR);
    }
    buffer_release(buffer);
}

/* ------------------------------------------------------------------ completions */

static void drop_pieces(struct connection *connection, uint32_t from) {
    for (uint32_t i = from; i < connection->count; i++) buffer_release(connection->pieces[i].buffer);
    connection->count = from;
}

/* Its descriptor may be given to somebody else once the kernel holds no operation of it. */
static void end(uint32_t fd) {
    struct connection *connection = &connections[fd];
    if (!connection->ended) {
        leave(fd);
        drop_pieces(connection, connection->sending);
        shutdown((int)fd, SHUT_RDWR);
    }
    connection->ended = 1;
    if (connection->receiving || connection->sending) return;
    drop_pieces(connection, 0);
    free(connection->pieces);
    free(connection->partial);
    *connection = (struct connection){.room = NOBODY};
    close((int)fd);
}

static void on_accept(const struct io_uring_cqe *cqe) {
    const int on = 1;
    if (cqe->res < 0 || (cqe->flags & IORING_CQE_F_MORE) == 0) fail("accept: %s", strerror(-cqe->res));
    const uint32_t fd = (uint32_t)cqe->res;
    if (fd >= DESCRIPTORS_MAX) fail("more than %u descriptors", DESCRIPTORS_MAX);
    setsockopt((int)fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections[fd] = (struct connection){.room = NOBODY, .open = 1};
    start_receiving(fd);
}

static void on_receive(uint32_t fd, const struct io_uring_cqe *cqe) {
    struct connection *connection = &connections[fd];
    const uint32_t buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    const int has_buffer = (cqe->flags & IORING_CQE_F_BUFFER) != 0;
    if ((cqe->flags & IORING_CQE_F_MORE) == 0) connection->receiving = 0;
    if (cqe->res > 0 && !connection->ended) {
        take_input(fd, buffer, (size_t)cqe->res);
    } else if (has_buffer) {
        references[buffer] = 1;
        buffer_release(buffer);
    }
    if (connection->receiving) return;
    if (cqe->res == -ENOBUFS && !connection->ended) starved[starved_count++] = fd;
    else if (cqe->res > 0 && !connection->ended) start_receiving(fd);
    else end(fd);
}

static void on_send(uint32_t fd, const struct io_uring_cqe *cqe) {
    struct connection *connection = &connections[fd];
    const int whole = cqe->res == (int)connection->pieces[0].bytes;
    connection->sending = 0;
    buffer_release(connection->pieces[0].buffer);
    connection->count--;
    memmove(connection->pieces, connection->pieces + 1, connection->count * sizeof *connection->pieces);
    if (!whole || connection->ended) end(fd);
    else if (connection->count > 0) send_first(fd);
}

static void on_completion(const struct io_uring_cqe *cqe) {
    const uint64_t data = io_uring_cqe_get_data64(cqe);
    const uint32_t fd = (uint32_t)(data >> 2);
    switch ((enum operation)(data & 3)) {
        case OPERATION_ACCEPT: on_accept(cqe); return;
        case OPERATION_RECEIVE: on_receive(fd, cqe); return;
        case OPERATION_SEND: on_send(fd, cqe); return;
    }
}

/* ------------------------------------------------------------------ the loop */

static void set_up_ring(void) {
    struct io_uring_params parameters = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                                  IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
                                         .cq_entries = 4 * ENTRIES};
    const int result = io_uring_queue_init_params(ENTRIES, &ring, &parameters);
    if (result < 0) fail("io_uring_setup: %s", strerror(-result));
    io_uring_register_ring_fd(&ring); /* saves the look-up of the ring in each enter(2); works without */
    if (posix_memalign((void **)&memory, 4096, (size_t)BUFFERS * BUFFER_BYTES) != 0 ||
        posix_memalign((void **)&offers, 4096, BUFFERS * sizeof(struct io_uring_buf)) != 0)
        fail("out of memory");
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)offers, .ring_entries = BUFFERS, .bgid = GROUP};
    const int registered = io_uring_register_buf_ring(&ring, &registration, 0);
    if (registered < 0) fail("IORING_REGISTER_PBUF_RING: %s", strerror(-registered));
    io_uring_buf_ring_init(offers);
    for (uint32_t i = 0; i < BUFFERS; i++) buffer_offer(i);
}

static void listen_at(const char *port_text) {
    const int on = 1;
    char *stopped = NULL;
    const unsigned long port = port_text == NULL ? 0 : strtoul(port_text, &stopped, 10);
    if (port == 0 || port > 65535 || *stopped != '\0') fail("PORT must be a number from 1 to 65535");
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0)
        fail("listen at port %lu: %s", port, strerror(errno));
    struct io_uring_sqe *sqe = entry();
    io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    tag(sqe, (uint32_t)fd, OPERATION_ACCEPT);
}

static void publish_buffers(void) {
    if (unadvanced == 0) return;
    io_uring_buf_ring_advance(offers, (int)unadvanced);
    unadvanced = 0;
    for (; starved_count > 0; starved_count--) {
        const uint32_t fd = starved[starved_count - 1];
        if (connections[fd].open && !connections[fd].receiving && !connections[fd].ended) start_receiving(fd);
    }
}

int main(void) {
    set_up_ring();
    listen_at(getenv("PORT"));
    for (;;) {
        publish_buffers();
        const int result = io_uring_submit_and_wait(&ring, 1);
        if (result < 0 && result != -EINTR) fail("io_uring_enter: %s", strerror(-result));
        struct io_uring_cqe *cqe;
        uint32_t head, seen = 0;
        io_uring_for_each_cqe(&ring, head, cqe) {
            on_completion(cqe);
            seen++;
        }
        io_uring_cq_advance(&ring, seen);
    }
}
