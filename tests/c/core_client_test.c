/* Who the client of a connection is, and how many of one address, and how many upgrades, the core lets in. */
#include <sys/un.h>

#include "connection/trusted.h"
#include "core_fixture.h"

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define GET_WITH(lines) "GET / HTTP/1.1\r\nHost: a\r\n" lines "\r\n"
#define WS_REQUEST_WITH(lines)              \
    "GET /ws HTTP/1.1\r\nHost: a\r\n" lines \
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"
#define V2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V2_LOCAL V2_SIGNATURE "\x20\0\0\0"
#define V2_UNSPEC V2_SIGNATURE "\x21\0\0\0"

/* ranges: "127.0.0.1/32 10.0.0.0/8" */
static void trust(struct host *host, const char *text) {
    struct rw_address_range ranges[8];
    uint32_t count = 0;
    char copy[256];
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        char *slash = strchr(word, '/');
        assert_non_null(slash);
        *slash = 0;
        uint8_t v4[4];
        struct rw_address_range *range = &ranges[count++];
        *range = (struct rw_address_range){.prefix_bits = (uint32_t)atoi(slash + 1)};
        if (inet_pton(AF_INET, word, v4) == 1) {
            rw_ip_widen(range->address, v4, 4);
            range->prefix_bits += 96;
        } else {
            assert_int_equal(inet_pton(AF_INET6, word, range->address), 1);
        }
    }
    assert_int_equal(rw_core_trusted_proxies(host->core, ranges, count), RW_OK);
}

static struct peer *come(struct host *host, const char *source) { return peer_connect_as(host, 0, source); }

/* The core answers nothing and closes. */
static void expect_refused(struct host *host, struct peer *peer) {
    peer_expect_end(host, peer);
    assert_int_equal(peer->in_bytes, 0);
}

static void expect_served(struct host *host, struct peer *peer) {
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_respond(host, &request, 200, "", "ok");
    peer_expect_response(host, peer, 200, "ok");
}

static void leave(struct host *host, struct peer *peer) {
    uint32_t before = rw_core_connections(host->core);
    peer_close(host, peer);
    for (uint32_t turn = 0; rw_core_connections(host->core) == before && turn < TURNS_MAX; turn++) host_turn(host);
    assert_int_equal(rw_core_connections(host->core), before - 1);
}

/* What the host is told of the client of an event: "-": nothing, an address, or an address and a port. */
static void expect_client(struct host *host, const struct rw_event *event, const char *wanted) {
    uint8_t address[16];
    uint32_t port;
    char text[64] = "-";
    int32_t bytes = rw_core_peer(host->core, event->slot, event->generation, 1, address, &port);
    assert_in_range(bytes, 0, 16);
    if (bytes) assert_non_null(inet_ntop(bytes == 4 ? AF_INET : AF_INET6, address, text, sizeof text));
    if (port) snprintf(text + strlen(text), sizeof text - strlen(text), " %u", port);
    assert_string_equal(text, wanted);
}

static void expect_client_of(struct host *host, struct peer *peer, const char *request_text, const char *wanted) {
    peer_send_text(host, peer, request_text);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    expect_client(host, &request, wanted);
    host_respond(host, &request, 200, "", "ok");
    peer_expect_response(host, peer, 200, "ok");
    /* And until the next one comes. */
    expect_client(host, &request, wanted);
}

static void expect_upgraded(struct host *host, struct peer *peer, const char *request_text, const char *wanted) {
    peer_send_text(host, peer, request_text);
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    expect_client(host, &request, wanted);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_UPGRADE, .arg0 = 7}, NULL, 0);
    struct rw_event open = host_expect(host, RW_EVENT_OPEN)->event;
    expect_client(host, &open, wanted);
    peer_expect_head(host, peer, 101);
}

static void expect_status(struct host *host, struct peer *peer, const char *request_text, uint32_t status) {
    peer_send_text(host, peer, request_text);
    peer_expect_head(host, peer, status);
    assert_true(peer_head_has(peer, "Connection: close"));
    peer_consume(peer, peer_content_length(peer->head));
    peer_expect_end(host, peer);
}

static struct host *host_limited(void **state, struct rw_core_config config) {
    struct host *host = host_open(state, &config);
    host_behavior(host, 7, PLAIN);
    return host;
}

/* ---------------------------------------------------------------- connections of one address */

static void an_address_has_so_many_connections_and_no_more(void **state) {
    struct host *host = host_limited(state, (struct rw_core_config){.max_connections_per_ip = 3});
    struct peer *peers[3];
    for (uint32_t i = 0; i < 3; i++) expect_served(host, peers[i] = come(host, "127.0.0.2"));
    for (uint32_t i = 1; i <= 4; i++) {
        expect_refused(host, come(host, "127.0.0.2"));
        assert_int_equal(host->core->stats->refused_ip, i);
    }
    /* Another one is not concerned, and those that are there neither. */
    for (uint32_t i = 0; i < 3; i++) expect_served(host, come(host, "127.0.0.3"));
    for (uint32_t i = 0; i < 3; i++) expect_served(host, peers[i]);
    leave(host, peers[1]);
    expect_served(host, come(host, "127.0.0.2"));
    expect_refused(host, come(host, "127.0.0.2"));
    assert_int_equal(host->core->stats->refused_ip, 5);
    assert_int_equal(host->core->stats->accepts, 7);
    host_expect_silence(host);
    host_close(host);
}

static void the_host_is_told_nothing_of_those_refused(void **state) {
    struct host *host = host_limited(state, (struct rw_core_config){.max_connections_per_ip = 1});
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_CONNECT), RW_OK);
    struct peer *first = come(host, "127.0.0.2");
    struct rw_event connect = host_expect(host, RW_EVENT_CONNECT)->event;
    expect_refused(host, come(host, "127.0.0.2"));
    host_expect_silence(host);
    leave(host, first);
    assert_int_equal(host_expect(host, RW_EVENT_DISCONNECT)->event.generation, connect.generation);
    host_expect_silence(host);
    host_close(host);
}

static void websockets_count_until_they_end(void **state) {
    struct host *host = host_limited(state, (struct rw_core_config){.max_connections_per_ip = 1});
    struct peer *socket = come(host, "127.0.0.2");
    expect_upgraded(host, socket, WS_REQUEST, "-");
    expect_refused(host, come(host, "127.0.0.2"));
    static const uint8_t payload[2] = {0x03, 0xE8};
    peer_send_frame(host, socket, FIN_CLOSE, payload, 2);
    peer_expect_close_frame(host, socket, 1000);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg0, 1000);
    peer_expect_end(host, socket);
    peer_close(host, socket);
    while (rw_core_connections(host->core)) host_turn(host);
    expect_served(host, come(host, "127.0.0.2"));
    host_close(host);
}

static void whoever_cannot_be_served_for_another_reason_is_not_counted(void **state) {
    struct host *host = host_limited(state, (struct rw_core_config){.max_connections_per_ip = 2, .max_connections = 1});
    struct peer *only = come(host, "127.0.0.2");
    expect_served(host, only);
    expect_refused(host, come(host, "127.0.0.2"));
    assert_int_equal(host->core->stats->refused_slots, 1);
    uint8_t ip[16];
    rw_ip_widen(ip, (const uint8_t[]){127, 0, 0, 2}, 4);
    assert_int_equal(rw_ip_limit_count(&host->core->ip_limit, ip), 1);
    host_close(host);
}

static void whoever_has_left_before_the_accept_has_left(void **state) {
    struct host *host = host_limited(state, (struct rw_core_config){.max_connections_per_ip = 1});
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_PROXY_REQUIRED), RW_OK);
    trust(host, "127.0.0.1/32");
    struct peer *peer = come(host, "127.0.0.1");
    if (!host_is_sim(host)) {
        struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        assert_int_equal(setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    }
    peer_close(host, peer);
    for (uint32_t turn = 0; host->core->stats->refused_aborted == 0 && turn < TURNS_MAX; turn++) host_turn(host);
    assert_int_equal(host->core->stats->refused_aborted, 1);
    assert_int_equal(host->core->stats->refused_proxy + host->core->stats->refused_ip + host->core->stats->accepts, 0);
    host_close(host);
}

/* ret: the far end of a connection to the Unix socket */
static int unix_connect(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void expect_unix_client(struct host *host, int fd, const char *text, const char *wanted) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    assert_int_equal(request.arg1 >> 8 & 0xFF, 4);
    expect_client(host, &request, wanted);
    host_respond(host, &request, 200, "", "ok");
    host_turns(host, 3);
}

static void unix_sockets_have_no_address_to_be_counted_by_and_are_proxies(void **state) {
    struct host *host = host_limited(
        state, (struct rw_core_config){.max_connections_per_ip = 1, .proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR});
    char folder[] = "/tmp/ringway-unix-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    int32_t listener = rw_listen_socket(path, 0xFFFFFFFFu, 16, 0);
    assert_true(listener >= 0);
    assert_int_equal(rw_core_listen(host->core, listener, 4, 0), RW_OK);
    int fds[4];
    for (uint32_t i = 0; i < 3; i++)
        expect_unix_client(host, fds[i] = unix_connect(path), GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "-");
    trust(host, "10.0.0.0/8");
    expect_unix_client(host, fds[3] = unix_connect(path), GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
    assert_int_equal(host->core->stats->refused_ip, 0);
    for (uint32_t i = 0; i < 4; i++) close(fds[i]);
    while (rw_core_connections(host->core)) host_turn(host);
    assert_int_equal(rw_core_unlisten(host->core, 4), RW_OK);
    host_turns(host, 3);
    close(listener);
    unlink(path);
    rmdir(folder);
    host_close(host);
}

/* ---------------------------------------------------------------- behind proxies */

static void the_client_is_the_first_hop_from_the_right_that_is_not_trusted(void **state) {
    static const char *const cases[][2] = {
        {GET("/"), "-"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1"},
        {GET_WITH("x-FORWARDED-for: 192.0.2.1:4711\r\n"), "192.0.2.1"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1, 198.51.100.7\r\n"), "198.51.100.7"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1, 198.51.100.7, 10.1.2.3, 127.0.0.9\r\n"), "198.51.100.7"},
        {GET_WITH(
             "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.1, 198.51.100.7\r\nX-Forwarded-For: 10.0.0.2\r\n"),
         "198.51.100.7"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1\r\nAccept: a\r\nX-Forwarded-For: 10.0.0.2\r\n"), "192.0.2.1"},
        {GET_WITH("X-Forwarded-For: [2001:db8::1]:80, 10.0.0.2\r\n"), "2001:db8::1"},
        {GET_WITH("X-Forwarded-For: ::ffff:10.9.9.9, ::ffff:192.0.2.1\r\n"), "192.0.2.1"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1, ::ffff:10.9.9.9\r\n"), "192.0.2.1"},
        /* All of them are trusted: the outermost. */
        {GET_WITH("X-Forwarded-For: 10.0.0.7, 10.0.0.8\r\n"), "10.0.0.7"},
        /* Nobody knows whom that hop has heard from: it is the last one known. */
        {GET_WITH("X-Forwarded-For: 192.0.2.1, unknown\r\n"), "-"},
        {GET_WITH("X-Forwarded-For:\r\n"), "-"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1, bogus, 10.0.0.8\r\n"), "10.0.0.8"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1, , 10.0.0.8\r\n"), "10.0.0.8"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For:\r\n"), "-"},
        {GET_WITH("X-Forwarded-Fo: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n"), "-"},
    };
    struct host *host = host_limited(state, (struct rw_core_config){.proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR});
    trust(host, "127.0.0.0/8 10.0.0.0/8");
    /* One connection: each request of it is another client's. */
    struct peer *proxy = come(host, "127.0.0.1");
    for (uint32_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            expect_client_of(host, proxy, cases[i][0], cases[i][1]);
    }
    host_close(host);
}

static void forwarded_is_read_when_it_is_what_proxies_write(void **state) {
    static const char *const cases[][2] = {
        {GET_WITH("Forwarded: for=192.0.2.1;proto=https, for=\"[2001:db8::1]:80\"\r\n"), "2001:db8::1"},
        {GET_WITH("Forwarded: for=192.0.2.1\r\nForwarded: for=10.0.0.1;by=_a\r\n"), "192.0.2.1"},
        {GET_WITH("Forwarded: for=\"evil, for=192.0.2.1\r\n"), "192.0.2.1"},
        {GET_WITH("Forwarded: for=192.0.2.1, for=unknown, for=10.0.0.1\r\n"), "10.0.0.1"},
        {GET_WITH("Forwarded: for=_hidden\r\n"), "-"},
        {GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "-"},
    };
    struct host *host = host_limited(state, (struct rw_core_config){.proxy_header = RW_PROXY_HEADER_FORWARDED});
    trust(host, "127.0.0.1/32 10.0.0.0/8");
    struct peer *proxy = come(host, "127.0.0.1");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) expect_client_of(host, proxy, cases[i][0], cases[i][1]);
    host_close(host);
}

static void nobody_else_is_believed(void **state) {
    struct host *host = host_limited(
        state, (struct rw_core_config){.proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR, .max_connections_per_ip = 2});
    trust(host, "127.0.0.1/32");
    struct peer *forger = come(host, "127.0.0.2");
    expect_client_of(host, forger, GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "-");
    expect_upgraded(host, forger, WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.2\r\n"), "-");
    forger = come(host, "127.0.0.2");
    expect_upgraded(host, forger, WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.3\r\n"), "-");
    expect_refused(host, come(host, "127.0.0.2"));
    /* Without a header to read, or without proxies, nobody is at all. */
    trust(host, "");
    struct peer *proxy = come(host, "127.0.0.1");
    expect_client_of(host, proxy, GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "-");
    host_close(host);
}

static void behind_a_proxy_websockets_are_counted_by_their_clients(void **state) {
    struct host *host = host_limited(
        state, (struct rw_core_config){.proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR, .max_connections_per_ip = 2});
    trust(host, "127.0.0.1/32 10.0.0.0/8");
    static const char one[] = WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.1\r\n"),
                      two[] = WS_REQUEST_WITH("X-Forwarded-For: 6.6.6.6, 192.0.2.2, 10.0.0.3\r\n");
    struct peer *sockets[2];
    for (uint32_t i = 0; i < 2; i++) expect_upgraded(host, sockets[i] = come(host, "127.0.0.1"), one, "192.0.2.1");
    struct peer *third = come(host, "127.0.0.1");
    expect_status(host, third, one, 429);
    assert_true(peer_head_has(third, "Retry-After: 10"));
    assert_int_equal(host->core->stats->refused_ip, 1);
    host_expect_silence(host);
    /* The proxy itself is not counted, nor are requests, nor those who come from its own side. */
    for (uint32_t i = 0; i < 4; i++)
        expect_client_of(host, come(host, "127.0.0.1"), GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
    for (uint32_t i = 0; i < 4; i++)
        expect_upgraded(host, come(host, "127.0.0.1"), WS_REQUEST_WITH("X-Forwarded-For: 10.9.9.9\r\n"), "10.9.9.9");
    for (uint32_t i = 0; i < 4; i++) expect_upgraded(host, come(host, "127.0.0.1"), WS_REQUEST, "-");
    for (uint32_t i = 0; i < 2; i++) expect_upgraded(host, come(host, "127.0.0.1"), two, "192.0.2.2");
    expect_status(host, come(host, "127.0.0.1"), two, 429);
    leave(host, sockets[0]);
    host_expect(host, RW_EVENT_CLOSE);
    expect_upgraded(host, come(host, "127.0.0.1"), one, "192.0.2.1");
    expect_status(host, come(host, "127.0.0.1"), one, 429);
    assert_int_equal(host->core->stats->refused_ip, 3);
    host_close(host);
}

static void a_handshake_that_the_host_refuses_is_taken_back(void **state) {
    struct host *host = host_limited(
        state, (struct rw_core_config){.proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR, .max_connections_per_ip = 1});
    trust(host, "127.0.0.1/32");
    static const char text[] = WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.1\r\n");
    struct peer *other = come(host, "127.0.0.1");
    /* Again and again, while the connections before linger. */
    for (uint32_t i = 0; i < 3; i++) {
        struct peer *proxy = come(host, "127.0.0.1");
        peer_send_text(host, proxy, text);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_respond(host, &request, 403, "", "no");
        peer_expect_response(host, proxy, 403, "no");
    }
    expect_upgraded(host, other, text, "192.0.2.1");
    expect_status(host, come(host, "127.0.0.1"), text, 429);
    /* One that waits for the host's answer is counted too, and taken back when its client leaves. */
    leave(host, other);
    host_expect(host, RW_EVENT_CLOSE);
    struct peer *waiting = come(host, "127.0.0.1");
    peer_send_text(host, waiting, text);
    host_expect(host, RW_EVENT_REQUEST);
    expect_status(host, come(host, "127.0.0.1"), text, 429);
    leave(host, waiting);
    host_expect(host, RW_EVENT_ABORT);
    expect_upgraded(host, come(host, "127.0.0.1"), text, "192.0.2.1");
    host_close(host);
}

/* ---------------------------------------------------------------- the PROXY protocol */

static struct host *proxied_host(void **state, uint32_t flags, struct rw_core_config config) {
    struct host *host = host_limited(state, config);
    assert_int_equal(rw_core_listener_flags(host->core, 3, flags), RW_OK);
    return host;
}

/* RW_REQUEST_X_FORWARDED and RW_REQUEST_FORWARDED, for a request and for a handshake that are not the first of their
 * connection. */
static void expect_proxy_flag(struct host *host, struct peer *peer, uint32_t wanted) {
    static const char *const heads[] = {GET_WITH("X-Forwarded-Host: b\r\n"), WS_REQUEST_WITH("Forwarded: host=b\r\n")};
    for (size_t i = 0; i < 2; i++) {
        peer_send_text(host, peer, heads[i]);
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        assert_int_equal(request.flags & (RW_REQUEST_X_FORWARDED | RW_REQUEST_FORWARDED), wanted);
        host_respond(host, &request, 200, "", "ok");
        peer_expect_response(host, peer, 200, "ok");
    }
}

static void a_head_that_a_trusted_proxy_wrote_is_marked(void **state) {
    static const uint32_t wanted[][2] = {
        {RW_PROXY_HEADER_NONE, 0},
        {RW_PROXY_HEADER_X_FORWARDED_FOR, RW_REQUEST_X_FORWARDED},
        {RW_PROXY_HEADER_FORWARDED, RW_REQUEST_FORWARDED},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct host *host = host_limited(state, (struct rw_core_config){.proxy_header = wanted[i][0]});
        expect_proxy_flag(host, come(host, "127.0.0.1"), 0);
        trust(host, "127.0.0.1/32");
        expect_proxy_flag(host, come(host, "127.0.0.1"), wanted[i][1]);
        expect_proxy_flag(host, come(host, "127.0.0.2"), 0);
        host_close(host);
    }
    /* Behind the PROXY protocol the head is the client's own. */
    struct host *host = proxied_host(state, RW_LISTENER_PROXY_PROTOCOL,
                                     (struct rw_core_config){.proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR});
    trust(host, "127.0.0.1/32");
    struct peer *peer = come(host, "127.0.0.1");
    peer_send_text(host, peer, "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n");
    expect_proxy_flag(host, peer, 0);
    host_close(host);
}

static void where_a_header_is_required_nobody_comes_without(void **state) {
    static const struct {
        const char *text;
        size_t bytes;
    } cases[] = {{GET("/"), sizeof GET("/") - 1},
                 {"\x16\x03\x01\x02\0", 5},
                 {"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 30},
                 {V2_SIGNATURE "\x31\x11\0\0", 16}};
    struct host *host = proxied_host(state, RW_LISTENER_PROXY_REQUIRED, (struct rw_core_config){0});
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t cut = 0; cut < cases[i].bytes; cut += 3) {
            uint64_t before = host->core->stats->refused_proxy;
            struct peer *peer = come(host, "127.0.0.1");
            peer_send(host, peer, cases[i].text, cut);
            host_turns(host, 2);
            peer_send(host, peer, cases[i].text + cut, cases[i].bytes - cut);
            expect_refused(host, peer);
            assert_int_equal(host->core->stats->refused_proxy - before, 1);
            peer_close(host, peer);
            free(peer->memory);
            peer->memory = NULL;
            peer->used = 0;
        }
    }
    host_expect_silence(host);
    struct peer *peer = come(host, "127.0.0.1");
    expect_client_of(host, peer, "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n" GET("/"), "192.0.2.1 56324");
    expect_client_of(host, peer, GET_WITH("X-Forwarded-For: 10.0.0.1\r\n"), "192.0.2.1 56324");
    host_close(host);
}

static void where_a_header_is_required_and_proxies_are_named_nobody_else_comes(void **state) {
    struct host *host =
        proxied_host(state, RW_LISTENER_PROXY_PROTOCOL | RW_LISTENER_PROXY_REQUIRED, (struct rw_core_config){0});
    trust(host, "127.0.0.1/32");
    struct peer *forger = come(host, "127.0.0.2");
    expect_refused(host, forger);
    assert_int_equal(host->core->stats->refused_proxy, 1);
    assert_int_equal(host->core->stats->accepts, 0);
    expect_client_of(host, come(host, "127.0.0.1"), "PROXY TCP4 127.0.0.2 198.51.100.7 56324 443\r\n" GET("/"),
                     "127.0.0.2 56324");
    host_expect_silence(host);
    host_close(host);
}

static void where_a_header_is_allowed_only_proxies_that_are_named_may_write_one(void **state) {
    static const char text[] = "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n" GET("/");
    struct host *host = proxied_host(state, RW_LISTENER_PROXY_PROTOCOL, (struct rw_core_config){0});
    trust(host, "127.0.0.1/32");
    expect_client_of(host, come(host, "127.0.0.1"), text, "192.0.2.1 56324");
    expect_client_of(host, come(host, "127.0.0.1"), GET("/"), "-");
    expect_client_of(host, come(host, "127.0.0.2"), GET("/"), "-");
    expect_status(host, come(host, "127.0.0.2"), text, 400);
    host_close(host);
}

static void the_address_that_a_header_tells_is_counted(void **state) {
    static const char one[] = "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
                      two[] = "PROXY TCP6 2001:db8::1 ::1 1 2\r\n", near[] = "PROXY TCP6 2001:db8::2 ::1 1 2\r\n";
    struct host *host =
        proxied_host(state, RW_LISTENER_PROXY_REQUIRED, (struct rw_core_config){.max_connections_per_ip = 2});
    struct peer *peers[2];
    for (uint32_t i = 0; i < 2; i++) {
        peers[i] = come(host, "127.0.0.1");
        peer_send_text(host, peers[i], one);
        expect_served(host, peers[i]);
    }
    struct peer *third = come(host, "127.0.0.1");
    peer_send_text(host, third, one);
    expect_refused(host, third);
    assert_int_equal(host->core->stats->refused_ip, 1);
    assert_int_equal(host->core->stats->refused_proxy, 0);
    /* A /64 is one client. */
    for (uint32_t i = 0; i < 3; i++) {
        struct peer *peer = come(host, "127.0.0.1");
        peer_send_text(host, peer, i == 0 ? two : near);
        if (i < 2) expect_served(host, peer);
        else expect_refused(host, peer);
    }
    leave(host, peers[0]);
    struct peer *fourth = come(host, "127.0.0.1");
    peer_send_text(host, fourth, one);
    expect_served(host, fourth);
    host_close(host);
}

static void the_proxys_own_connections_are_let_in_and_not_counted(void **state) {
    struct host *host = proxied_host(
        state, RW_LISTENER_PROXY_REQUIRED,
        (struct rw_core_config){.max_connections_per_ip = 1, .proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR});
    trust(host, "127.0.0.1/32");
    for (uint32_t i = 0; i < 3; i++) {
        struct peer *check = come(host, "127.0.0.1");
        peer_send(host, check, V2_LOCAL, sizeof V2_LOCAL - 1);
        expect_served(host, check);
        expect_client_of(host, check, GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
        /* A client that its proxy cannot name is nobody to be believed. */
        struct peer *nameless = come(host, "127.0.0.1");
        if (i & 1) {
            peer_send_text(host, nameless, "PROXY UNKNOWN\r\n");
        } else {
            peer_send(host, nameless, V2_UNSPEC, sizeof V2_UNSPEC - 1);
        }
        expect_client_of(host, nameless, GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "-");
    }
    assert_int_equal(host->core->stats->refused_ip, 0);
    host_close(host);
}

static void a_proxy_behind_a_proxy_is_believed_too(void **state) {
    struct host *host = proxied_host(
        state, RW_LISTENER_PROXY_REQUIRED,
        (struct rw_core_config){.max_connections_per_ip = 1, .proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR});
    trust(host, "127.0.0.1/32 10.0.0.0/8");
    static const char inner[] = "PROXY TCP4 10.0.0.5 198.51.100.7 56324 443\r\n",
                      outer[] = "PROXY TCP4 192.0.2.9 198.51.100.7 56324 443\r\n";
    struct peer *chain = come(host, "127.0.0.1");
    peer_send_text(host, chain, inner);
    expect_client_of(host, chain, GET_WITH("X-Forwarded-For: 192.0.2.1, 10.0.0.6\r\n"), "192.0.2.1");
    /* told by the connection, when no header tells of the request */
    expect_client_of(host, chain, GET("/"), "10.0.0.5 56324");
    expect_upgraded(host, chain, WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
    struct peer *second = come(host, "127.0.0.1");
    peer_send_text(host, second, inner);
    expect_status(host, second, WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.1\r\n"), 429);
    /* A client behind one proxy only forges nothing. */
    struct peer *forger = come(host, "127.0.0.1");
    peer_send_text(host, forger, outer);
    expect_client_of(host, forger, GET_WITH("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.9 56324");
    host_close(host);
}

static void with_no_proxy_named_a_header_that_is_optional_moves_no_count(void **state) {
    static const char text[] = "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
    struct host *host = proxied_host(
        state, RW_LISTENER_PROXY_PROTOCOL,
        (struct rw_core_config){.max_connections_per_ip = 1, .proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR});
    struct peer *first = come(host, "127.0.0.2");
    peer_send_text(host, first, text);
    expect_client_of(host, first, GET_WITH("X-Forwarded-For: 6.6.6.6\r\n"), "192.0.2.1 56324");
    expect_refused(host, come(host, "127.0.0.2"));
    struct peer *second = come(host, "127.0.0.3");
    peer_send_text(host, second, text);
    expect_served(host, second);
    host_close(host);
}

/* ---------------------------------------------------------------- upgrades a second */

static void upgrades_past_their_rate_are_refused_before_the_host_sees_them(void **state) {
    struct host *host = host_limited(state, (struct rw_core_config){.upgrades_per_kilosecond = 3000});
    uint32_t start = host->core->now_ms;
    for (uint32_t i = 0; i < 3; i++) expect_upgraded(host, come(host, NULL), WS_REQUEST, "-");
    /* Requests take nothing of it. */
    for (uint32_t i = 0; i < 5; i++) expect_served(host, come(host, NULL));
    struct peer *late = come(host, NULL);
    peer_send_text(host, late, WS_REQUEST);
    host_turns(host, 20);
    if (host->core->stats->refused_upgrade_rate == 0) {
        /* Only where the machine is so slow that it was time for the next. */
        assert_true(host->core->now_ms - start >= 333);
        host_expect(host, RW_EVENT_REQUEST);
    } else {
        peer_expect_response(host, late, 503, "Service Unavailable");
        assert_true(peer_head_has(late, "Connection: close"));
        assert_true(peer_head_has(late, "Retry-After: 1"));
        peer_expect_end(host, late);
        host_expect_silence(host);
    }
    host_pass_time(host, 400);
    expect_upgraded(host, come(host, NULL), WS_REQUEST, "-");
    host_close(host);
}

static void a_slow_rate_lets_one_through_at_once_and_the_next_in_its_time(void **state) {
    /* One in a hundred seconds. */
    struct host *host = host_limited(state, (struct rw_core_config){.upgrades_per_kilosecond = 10});
    expect_upgraded(host, come(host, NULL), WS_REQUEST, "-");
    expect_status(host, come(host, NULL), WS_REQUEST, 503);
    host_pass_time(host, 50000);
    expect_status(host, come(host, NULL), WS_REQUEST, 503);
    host_pass_time(host, 51000);
    expect_upgraded(host, come(host, NULL), WS_REQUEST, "-");
    expect_status(host, come(host, NULL), WS_REQUEST, 503);
    assert_int_equal(host->core->stats->refused_upgrade_rate, 3);
    assert_int_equal(host->core->stats->http_errors, 3);
    host_close(host);
}

static void a_handshake_that_its_address_may_not_make_costs_no_upgrade(void **state) {
    struct host *host = host_limited(state, (struct rw_core_config){.upgrades_per_kilosecond = 10,
                                                                    .max_connections_per_ip = 1,
                                                                    .proxy_header = RW_PROXY_HEADER_X_FORWARDED_FOR});
    trust(host, "127.0.0.1/32");
    static const char text[] = WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.1\r\n"),
                      other[] = WS_REQUEST_WITH("X-Forwarded-For: 192.0.2.2\r\n");
    expect_upgraded(host, come(host, "127.0.0.1"), text, "192.0.2.1");
    host_pass_time(host, 101000);
    expect_status(host, come(host, "127.0.0.1"), text, 429);
    expect_upgraded(host, come(host, "127.0.0.1"), other, "192.0.2.2");
    expect_status(host, come(host, "127.0.0.1"), text, 503);
    assert_int_equal(host->core->stats->refused_ip, 1);
    host_close(host);
}

static void settings_that_make_no_sense_are_refused(void **state) {
    (void)state;
    char error[256];
    struct rw_core_config config = {.abi_version = RW_ABI_VERSION,
                                    .backend = RW_BACKEND_SIM,
                                    .max_connections = 4,
                                    .sqpoll_cpu = -1,
                                    .wake_fd = -1,
                                    .inbox_fd_first = -1,
                                    .shm_fd = -1,
                                    .max_connections_per_ip = RW_IP_CONNECTIONS_MAX + 1};
    assert_null(rw_core_create(&config, error, sizeof error));
    assert_non_null(strstr(error, "65534"));
    config.max_connections_per_ip = RW_IP_CONNECTIONS_MAX;
    config.proxy_header = 3;
    assert_null(rw_core_create(&config, error, sizeof error));
    assert_non_null(strstr(error, "proxy_header"));
    config.proxy_header = 2;
    struct rw_core *core = rw_core_create(&config, error, sizeof error);
    assert_non_null(core);
    assert_int_equal(rw_core_trusted_proxies(core, &(struct rw_address_range){.prefix_bits = 129}, 1), RW_ERR_INVALID);
    rw_core_destroy(core);
}

#define ON_REAL_RINGS(test)                                                                     \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING}, { \
        #test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL        \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(an_address_has_so_many_connections_and_no_more),
        ON_EVERY_RING(the_host_is_told_nothing_of_those_refused),
        ON_EVERY_RING(websockets_count_until_they_end),
        ON_EVERY_RING(whoever_cannot_be_served_for_another_reason_is_not_counted),
        ON_EVERY_RING(whoever_has_left_before_the_accept_has_left),
        ON_REAL_RINGS(unix_sockets_have_no_address_to_be_counted_by_and_are_proxies),
        ON_EVERY_RING(the_client_is_the_first_hop_from_the_right_that_is_not_trusted),
        ON_EVERY_RING(forwarded_is_read_when_it_is_what_proxies_write),
        ON_EVERY_RING(a_head_that_a_trusted_proxy_wrote_is_marked),
        ON_EVERY_RING(nobody_else_is_believed),
        ON_EVERY_RING(behind_a_proxy_websockets_are_counted_by_their_clients),
        ON_EVERY_RING(a_handshake_that_the_host_refuses_is_taken_back),
        ON_EVERY_RING(where_a_header_is_required_nobody_comes_without),
        ON_EVERY_RING(where_a_header_is_required_and_proxies_are_named_nobody_else_comes),
        ON_EVERY_RING(where_a_header_is_allowed_only_proxies_that_are_named_may_write_one),
        ON_EVERY_RING(the_address_that_a_header_tells_is_counted),
        ON_EVERY_RING(the_proxys_own_connections_are_let_in_and_not_counted),
        ON_EVERY_RING(a_proxy_behind_a_proxy_is_believed_too),
        ON_EVERY_RING(with_no_proxy_named_a_header_that_is_optional_moves_no_count),
        ON_EVERY_RING(upgrades_past_their_rate_are_refused_before_the_host_sees_them),
        ON_SIM(a_slow_rate_lets_one_through_at_once_and_the_next_in_its_time),
        ON_SIM(a_handshake_that_its_address_may_not_make_costs_no_upgrade),
        cmocka_unit_test(settings_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests_name("clients of the core", tests, NULL, NULL);
}
