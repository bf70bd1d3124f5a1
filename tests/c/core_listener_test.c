/* Listeners through the whole core: when they begin and stop, what the host hears of their connections, and what a
 * proxy says before those. */
#include "core_fixture.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define SEEDED (&(struct rw_core_config){.recv_buffers = 16, .recv_buffer_bytes = 2048})
#define V2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

/* Another listening socket. out: *port of a real one */
static int32_t open_listener(struct host *host, int32_t *port) {
    *port = 0;
    if (host_is_sim(host)) return rw_sim_listen(host->core->ring);
    int32_t fd = rw_listen_socket("127.0.0.1", 0, 512, 0);
    assert_true(fd >= 0);
    *port = rw_socket_port(fd);
    return fd;
}

static void close_listener(struct host *host, int32_t fd) {
    if (!host_is_sim(host)) close(fd);
}

static struct peer *connect_to(struct host *host, int32_t fd, int32_t port) {
    int32_t own_fd = host->listener, own_port = host->port;
    host->listener = fd;
    host->port = port;
    struct peer *peer = peer_connect(host);
    host->listener = own_fd;
    host->port = own_port;
    return peer;
}

static int connection_is_refused(int32_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int refused = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

/* Turns until the index may be used again. */
static void listen_when_free(struct host *host, int32_t fd, uint32_t index, uint32_t flags) {
    int32_t result = RW_ERR_FULL;
    for (uint32_t turn = 0; turn < 200 && result == RW_ERR_FULL; turn++) {
        host_turn(host);
        result = rw_core_listen(host->core, fd, index, flags);
    }
    assert_int_equal(result, RW_OK);
}

static struct peer *get(struct host *host, struct peer *peer, uint32_t listener) {
    peer_send_text(host, peer, GET("/"));
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(request->event.arg1 >> 8, listener);
    host_respond(host, &request->event, 200, "", "ok");
    peer_expect_response(host, peer, 200, "ok");
    return peer;
}

/* ---------------------------------------------------------------- CONNECT and DISCONNECT */

static void a_connection_is_told_before_all_else_and_after_all_else(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    host_behavior(host, 0, PLAIN);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_CONNECT), RW_OK);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct record *connect = host_expect(host, RW_EVENT_CONNECT);
    assert_int_equal(connect->event.arg0, 3);
    uint32_t slot = connect->event.slot, generation = connect->event.generation;
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(request->event.slot, slot);
    assert_int_equal(request->event.generation, generation);
    peer_leave(host, peer);
    host_expect(host, RW_EVENT_ABORT);
    struct record *gone = host_expect(host, RW_EVENT_DISCONNECT);
    assert_true(gone->event.slot == slot && gone->event.generation == generation && gone->event.arg0 == 3);
    /* One that never said anything, and a WebSocket. */
    peer_close(host, peer_connect(host));
    host_expect(host, RW_EVENT_CONNECT);
    host_expect(host, RW_EVENT_DISCONNECT);
    peer = peer_connect(host);
    peer_send_text(host, peer, WS_REQUEST);
    host_expect(host, RW_EVENT_CONNECT);
    host_answer(host, &host_expect(host, RW_EVENT_REQUEST)->event, (struct rw_command){.type = RW_COMMAND_UPGRADE},
                NULL, 0);
    host_expect(host, RW_EVENT_OPEN);
    peer_close(host, peer);
    host_expect(host, RW_EVENT_CLOSE);
    host_expect(host, RW_EVENT_DISCONNECT);
    host_expect_silence(host);
    host_close(host);
}

/* Whoever was told of the beginning is told of the end, whatever was asked for in between. */
static void flags_that_change_hold_for_new_connections(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *untold = get(host, peer_connect(host), 3);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_CONNECT), RW_OK);
    struct peer *told = peer_connect(host);
    host_expect(host, RW_EVENT_CONNECT);
    assert_int_equal(rw_core_listener_flags(host->core, 3, 0), RW_OK);
    peer_close(host, untold);
    host_expect_silence(host);
    peer_close(host, told);
    host_expect(host, RW_EVENT_DISCONNECT);
    assert_int_equal(rw_core_listener_flags(host->core, 4, 0), RW_ERR_INVALID);
    assert_int_equal(rw_core_listener_flags(host->core, 256, 0), RW_ERR_INVALID);
    host_close(host);
}

static void more_ends_than_a_batch_holds_are_all_told(void **state) {
    enum { CONNECTIONS = RW_EVENTS_CAPACITY + 500 };
    struct host *host = host_open(state, &(struct rw_core_config){.max_connections = CONNECTIONS});
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_CONNECT), RW_OK);
    static int32_t peers[CONNECTIONS];
    static uint8_t told[CONNECTIONS];
    memset(told, 0, sizeof told);
    for (uint32_t i = 0; i < CONNECTIONS; i++) peers[i] = rw_sim_connect(host->core->ring, host->listener);
    for (uint32_t i = 0; i < CONNECTIONS; i++) told[host_expect(host, RW_EVENT_CONNECT)->event.slot]++;
    for (uint32_t i = 0; i < CONNECTIONS; i++) rw_sim_peer_reset(host->core->ring, peers[i]);
    for (uint32_t i = 0; i < CONNECTIONS; i++) told[host_expect(host, RW_EVENT_DISCONNECT)->event.slot]++;
    for (uint32_t i = 0; i < CONNECTIONS; i++) assert_int_equal(told[i], 2);
    host_expect_silence(host);
    host_close(host);
}

/* ---------------------------------------------------------------- unlisten */

static void a_listener_that_stops_leaves_its_connections_alone(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    int32_t port;
    int32_t fd = open_listener(host, &port);
    assert_int_equal(rw_core_listen(host->core, fd, 9, 0), RW_OK);
    struct peer *peer = get(host, connect_to(host, fd, port), 9);
    assert_int_equal(rw_core_unlisten(host->core, 9), RW_OK);
    close_listener(host, fd);
    assert_int_equal(rw_core_unlisten(host->core, 9), RW_ERR_INVALID);
    host_turns(host, 5);
    if (!host_is_sim(host)) assert_true(connection_is_refused(port));
    get(host, peer, 9);
    get(host, peer_connect(host), 3);
    assert_int_equal(rw_core_unlisten(host->core, 200), RW_ERR_INVALID);
    assert_int_equal(rw_core_unlisten(host->core, 256), RW_ERR_INVALID);
    host_close(host);
}

static void an_index_is_free_again_when_its_accept_has_ended(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    int32_t port;
    for (uint32_t round = 0; round < 5; round++) {
        int32_t fd = open_listener(host, &port);
        assert_int_equal(rw_core_listen(host->core, fd, 3, 0), RW_ERR_FULL);
        listen_when_free(host, fd, 9, 0);
        get(host, connect_to(host, fd, port), 9);
        assert_int_equal(rw_core_unlisten(host->core, 9), RW_OK);
        close_listener(host, fd);
    }
    assert_int_equal(rw_core_connections(host->core), 5);
    host_close(host);
}

/* A descriptor number that the kernel gives out again belongs to its new owner, also when no turn came in between. */
static void a_descriptor_used_again_is_accepted_from_by_its_new_listener_only(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    int32_t port;
    for (uint32_t round = 0; round < 4; round++) {
        int32_t first = open_listener(host, &port);
        uint32_t index = 10 + 2 * round;
        assert_int_equal(rw_core_listen(host->core, first, index, 0), RW_OK);
        if (round & 1) host_turns(host, 3);
        assert_int_equal(rw_core_unlisten(host->core, index), RW_OK);
        close(first);
        int32_t second = open_listener(host, &port);
        assert_int_equal(second, first);
        struct peer *early = connect_to(host, second, port);
        host_turns(host, 10);
        assert_int_equal(rw_core_connections(host->core), round);
        assert_int_equal(rw_core_listen(host->core, second, index + 1, 0), RW_OK);
        get(host, early, index + 1);
        assert_int_equal(rw_core_unlisten(host->core, index + 1), RW_OK);
        close(second);
    }
    host_close(host);
}

static void what_an_accept_still_delivers_after_unlisten_is_closed_and_counted(void **state) {
    struct host *host = host_open_seeded((uint32_t)(uintptr_t)*state, SEEDED, 7);
    struct rw_sim_faults faults = {.late = 1000};
    rw_sim_faults_set(host->core->ring, &faults);
    host_turn(host);
    struct peer *peer = peer_connect(host);
    assert_int_equal(rw_core_unlisten(host->core, 3), RW_OK);
    host_turns(host, 5);
    assert_int_equal(host->core->stats->refused_aborted, 1);
    assert_int_equal(host->core->stats->accepts, 0);
    assert_true(rw_sim_is_closed(host->core->ring, peer->fd));
    assert_int_equal(rw_core_listen(host->core, host->listener, 3, 0), RW_ERR_FULL); /* the accept has not ended */
    rw_sim_faults_set(host->core->ring, &(struct rw_sim_faults){0});
    listen_when_free(host, host->listener, 3, 0);
    get(host, peer_connect(host), 3);
    host_close(host);
}

static void a_listener_that_rests_may_be_stopped_too(void **state) {
    struct host *host = host_open_seeded((uint32_t)(uintptr_t)*state, SEEDED, 7);
    rw_sim_faults_set(host->core->ring, &(struct rw_sim_faults){.accept_error = 1000});
    struct peer *peer = peer_connect(host);
    for (uint32_t turn = 0; turn < 100 && host->core->listeners[3].armed; turn++) host_turn(host);
    assert_false(host->core->listeners[3].armed);
    assert_int_equal(rw_core_unlisten(host->core, 3), RW_OK);
    rw_sim_faults_set(host->core->ring, &(struct rw_sim_faults){0});
    host_pass_time(host, 2000);
    assert_int_equal(host->core->stats->accepts, 0);
    assert_int_equal(rw_core_listen(host->core, host->listener, 3, 0), RW_OK);
    get(host, peer, 3);
    host_close(host);
}

/* ---------------------------------------------------------------- terminate_listener */

static void ending_a_listeners_connections_ends_no_others(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    int32_t port;
    int32_t fd = open_listener(host, &port);
    assert_int_equal(rw_core_listen(host->core, fd, 9, RW_LISTENER_WANTS_CONNECT), RW_OK);
    struct peer *peers[3];
    for (uint32_t i = 0; i < 3; i++) {
        peers[i] = connect_to(host, fd, port);
        host_expect(host, RW_EVENT_CONNECT);
    }
    struct peer *other = get(host, peer_connect(host), 3);
    peer_send_text(host, peers[0], GET("/"));
    host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(rw_core_unlisten(host->core, 9), RW_OK);
    close_listener(host, fd);
    assert_int_equal(rw_core_terminate_listener(host->core, 9), 3);
    assert_int_equal(rw_core_terminate_listener(host->core, 9), 0);
    host_expect(host, RW_EVENT_ABORT);
    for (uint32_t i = 0; i < 3; i++) host_expect(host, RW_EVENT_DISCONNECT);
    for (uint32_t i = 0; i < 3; i++) peer_expect_end(host, peers[i]);
    assert_int_equal(host->core->listeners[9].connections, 0);
    get(host, other, 3);
    assert_int_equal(rw_core_terminate_listener(host->core, 256), RW_ERR_INVALID);
    host_close(host);
}

static void an_index_used_again_has_nothing_to_do_with_the_connections_before(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    int32_t port, later_port;
    int32_t fd = open_listener(host, &port), later = open_listener(host, &later_port);
    assert_int_equal(rw_core_listen(host->core, fd, 9, 0), RW_OK);
    struct peer *old = get(host, connect_to(host, fd, port), 9);
    assert_int_equal(rw_core_unlisten(host->core, 9), RW_OK);
    listen_when_free(host, later, 9, 0);
    struct peer *young = get(host, connect_to(host, later, later_port), 9);
    assert_int_equal(host->core->listeners[9].connections, 1);
    assert_int_equal(rw_core_terminate_listener(host->core, 9), 1);
    peer_expect_end(host, young);
    get(host, old, 9);
    peer_close(host, old);
    while (rw_core_connections(host->core)) host_turn(host);
    assert_int_equal(host->core->listeners[9].connections, 0);
    close_listener(host, fd);
    close_listener(host, later);
    host_close(host);
}

/* ---------------------------------------------------------------- addresses */

static void the_peer_has_an_address_in_binary(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    uint8_t address[16];
    uint32_t port = 1;
    if (host_is_sim(host)) {
        assert_int_equal(rw_core_peer(host->core, request.slot, request.generation, 0, address, &port), 0);
    } else {
        struct sockaddr_in own;
        socklen_t length = sizeof own;
        assert_int_equal(getsockname(peer->fd, (struct sockaddr *)&own, &length), 0);
        assert_int_equal(rw_core_peer(host->core, request.slot, request.generation, 0, address, &port), 4);
        assert_memory_equal(address, &own.sin_addr, 4);
        assert_int_equal(port, ntohs(own.sin_port));
    }
    assert_int_equal(rw_core_peer(host->core, request.slot, request.generation, 1, address, &port), 0);
    assert_int_equal(port, 0);
    assert_int_equal(rw_core_peer(host->core, request.slot, request.generation + 1, 0, address, &port), RW_ERR_STALE);
    assert_int_equal(rw_core_peer(host->core, 1u << 30, 1, 1, address, &port), RW_ERR_STALE);
    host_close(host);
}

/* ---------------------------------------------------------------- the PROXY protocol */

static struct host *proxied_host(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_PROXY_PROTOCOL), RW_OK);
    return host;
}

/* The request that follows is answered, and the host is told this address. */
static void expect_client(struct host *host, struct peer *peer, uint32_t address_bytes, const void *address,
                          uint32_t port) {
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    uint8_t told[16];
    uint32_t told_port;
    assert_int_equal(rw_core_peer(host->core, request.slot, request.generation, 1, told, &told_port), address_bytes);
    assert_memory_equal(told, address, address_bytes);
    assert_int_equal(told_port, port);
    host_respond(host, &request, 200, "", "ok");
    peer_expect_response(host, peer, 200, "ok");
}

static void forget(struct host *host, struct peer *peer) {
    peer_close(host, peer);
    free(peer->memory);
    peer->memory = NULL;
    peer->used = 0;
    while (rw_core_connections(host->core)) host_turn(host);
}

static void a_header_of_the_proxy_reads_the_same_however_it_is_cut(void **state) {
    static const struct {
        const char *text;
        size_t bytes;
        uint32_t address_bytes;
        uint8_t address[16];
        uint32_t port;
    } cases[] = {
        {"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n" GET("/"),
         45 + sizeof GET("/") - 1,
         4,
         {192, 0, 2, 1},
         56324},
        {V2_SIGNATURE "\x21\x11\0\x0f\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb\4\0\0" GET("/"),
         31 + sizeof GET("/") - 1,
         4,
         {192, 0, 2, 1},
         0xdc04},
        {V2_SIGNATURE "\x20\0\0\0" GET("/"), 16 + sizeof GET("/") - 1, 0, {0}, 0},
        {GET("/"), sizeof GET("/") - 1, 0, {0}, 0},
        {"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", 32, 0, {0}, 0},
        {"\r\n" GET("/"), 1 + sizeof GET("/"), 0, {0}, 0},
    };
    struct host *host = proxied_host(state);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t cut = 0; cut < cases[i].bytes; cut++) {
            struct peer *peer = peer_connect(host);
            uint64_t before = host->core->stats->bytes_in;
            if (cut) peer_send(host, peer, cases[i].text, cut);
            host_turns(host, 2);
            peer_send(host, peer, cases[i].text + cut, cases[i].bytes - cut);
            expect_client(host, peer, cases[i].address_bytes, cases[i].address, cases[i].port);
            assert_int_equal(host->core->stats->bytes_in - before, cases[i].bytes);
            forget(host, peer);
        }
    }
    host_close(host);
}

static void a_header_may_come_one_byte_at_a_time(void **state) {
    static const char text[] = "PROXY TCP6 2001:db8::1 ::1 65535 80\r\n" GET("/");
    struct host *host = proxied_host(state);
    struct peer *peer = peer_connect(host);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        peer_send(host, peer, text + i, 1);
        host_turns(host, 2);
    }
    static const uint8_t address[16] = {0x20, 1, 0x0d, 0xb8, [15] = 1};
    expect_client(host, peer, 16, address, 65535);
    /* Once only: a second one is a malformed request. */
    peer_send_text(host, peer, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n\r\n");
    peer_expect_head(host, peer, 400);
    host_close(host);
}

static void a_header_that_cannot_be_trusted_ends_the_connection(void **state) {
    static const struct {
        const char *text;
        size_t bytes;
    } cases[] = {
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 30},
        {V2_SIGNATURE "\x31\x11\0\0", 16},
        {V2_SIGNATURE "\x21\x11\xFF\xFF", 16},
    };
    struct host *host = proxied_host(state);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct peer *peer = peer_connect(host);
        peer_send(host, peer, cases[i].text, cases[i].bytes);
        peer_expect_end(host, peer);
        assert_int_equal(peer->in_bytes, 0);
    }
    host_expect_silence(host);
    host_close(host);
}

static void a_header_that_does_not_end_has_the_time_of_a_head(void **state) {
    struct host *host = proxied_host(state);
    struct peer *half = peer_connect(host), *slow = peer_connect(host);
    peer_send_text(host, half, "PROXY TCP4 1.2.3.4");
    peer_shutdown(host, half);
    peer_expect_end(host, half);
    peer_send_text(host, slow, "PROXY TCP4 1.2.3.4");
    host_turns(host, 5);
    assert_int_equal(rw_core_connections(host->core), 1);
    host_pass_time(host, RW_HEAD_TIMEOUT_MS_DEFAULT + 2000);
    peer_expect_end(host, slow);
    host_expect_silence(host);
    host_close(host);
}

static void without_the_flag_a_header_is_a_malformed_request(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct peer *peer = peer_connect(host);
    peer_send_text(host, peer, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" GET("/"));
    peer_expect_head(host, peer, 400);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_connection_is_told_before_all_else_and_after_all_else),
        ON_EVERY_RING(flags_that_change_hold_for_new_connections),
        ON_SIM(more_ends_than_a_batch_holds_are_all_told),
        ON_EVERY_RING(a_listener_that_stops_leaves_its_connections_alone),
        ON_EVERY_RING(an_index_is_free_again_when_its_accept_has_ended),
        {"a_descriptor_used_again_is_accepted_from_by_its_new_listener_only (io_uring)",
         a_descriptor_used_again_is_accepted_from_by_its_new_listener_only, backend_setup, NULL,
         (void *)(uintptr_t)RW_BACKEND_IO_URING},
        {"a_descriptor_used_again_is_accepted_from_by_its_new_listener_only (epoll)",
         a_descriptor_used_again_is_accepted_from_by_its_new_listener_only, backend_setup, NULL,
         (void *)(uintptr_t)RW_BACKEND_EPOLL},
        ON_SIM(what_an_accept_still_delivers_after_unlisten_is_closed_and_counted),
        ON_SIM(a_listener_that_rests_may_be_stopped_too),
        ON_EVERY_RING(ending_a_listeners_connections_ends_no_others),
        ON_EVERY_RING(an_index_used_again_has_nothing_to_do_with_the_connections_before),
        ON_EVERY_RING(the_peer_has_an_address_in_binary),
        ON_EVERY_RING(a_header_of_the_proxy_reads_the_same_however_it_is_cut),
        ON_EVERY_RING(a_header_may_come_one_byte_at_a_time),
        ON_EVERY_RING(a_header_that_cannot_be_trusted_ends_the_connection),
        ON_EVERY_RING(a_header_that_does_not_end_has_the_time_of_a_head),
        ON_EVERY_RING(without_the_flag_a_header_is_a_malformed_request),
    };
    return cmocka_run_group_tests_name("listeners of the core", tests, NULL, NULL);
}
