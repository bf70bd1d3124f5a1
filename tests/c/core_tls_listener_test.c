/* Listeners that speak TLS: what comes before it, bodies offered over it, and what is left of it when the listener
 * stops. */
#include "tls_fixture.h"

static void a_header_of_the_proxy_comes_before_tls(void **state) {
    static const char header[] = "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
    static const uint8_t address[4] = {192, 0, 2, 1};
    struct host *host = tls_host(state, DEFAULTS);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_PROXY_PROTOCOL), RW_OK);
    for (size_t cut = 0; cut < sizeof header; cut += 5) {
        struct peer *peer = peer_connect_to(host, 0);
        if (cut) peer_send(host, peer, header, cut);
        host_turns(host, 2);
        /* The rest and the client's first flight come in one piece. */
        uint8_t rest[sizeof header + 2048];
        size_t rest_bytes = sizeof header - 1 - (cut < sizeof header - 1 ? cut : sizeof header - 1);
        memcpy(rest, header + cut, rest_bytes);
        struct tls_peer *tls = tls_dress(peer, client13, NULL);
        assert_int_equal(SSL_do_handshake(tls->ssl), -1);
        int hello = BIO_read(SSL_get_wbio(tls->ssl), rest + rest_bytes, 2048);
        assert_true(hello > 0);
        peer_send(host, &tls->wire, rest, rest_bytes + (size_t)hello);
        assert_true(tls_shake_hands(host, peer));
        peer_send_text(host, peer, GET("/"));
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        uint8_t told[16];
        uint32_t port;
        assert_int_equal(rw_core_peer(host->core, request.slot, request.generation, 1, told, &port), 4);
        assert_memory_equal(told, address, 4);
        assert_int_equal(port, 56324);
        host_respond(host, &request, 200, "", "ok");
        peer_expect_response(host, peer, 200, "ok");
    }
    get_and_answer(host, tls_open(host, client12, NULL)); /* without a header */
    struct peer *slow = tls_connect(host, client13, NULL);
    tls_of(slow)->step = 1;
    assert_true(tls_shake_hands(host, slow));
    get_and_answer(host, slow);
    host_close(host);
}

static int32_t host_try(struct host *host, const struct rw_event *request, const void *data, size_t bytes) {
    host_flush(host);
    struct rw_command record = {.type = RW_COMMAND_RESPOND_TRY,
                                .slot = request->slot,
                                .generation = request->generation,
                                .request = request->request,
                                .stream = request->stream};
    return rw_core_command(host->core, &record, data, bytes);
}

static void an_offered_body_is_taken_over_tls_as_far_as_the_client_takes_it(void **state) {
    enum { BYTES = 6 << 20 };
    struct host *host = tls_host(state, DEFAULTS);
    uint8_t *body = malloc(BYTES);
    assert_non_null(body);
    fill_pattern(body, BYTES);
    struct peer *peer = peer_connect_to(host, 8192);
    tls_dress(peer, client13, NULL);
    assert_true(tls_shake_hands(host, peer));
    peer_send_text(host, peer, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    host_answer(
        host, &request,
        (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .flags = RW_RESPOND_SIZED, .arg0 = 200, .arg1 = BYTES},
        "", 0);
    const struct rw_slot *slot = rw_core_slot(host->core, request.slot);
    uint32_t at = 0, refusals = 0;
    while (at < BYTES) {
        int32_t accepted = host_try(host, &request, body + at, BYTES - at);
        assert_in_range(accepted, 0, BYTES - at);
        assert_true(slot->out_bytes <= RW_RESPOND_TRY_WINDOW_BYTES);
        at += (uint32_t)accepted;
        if (at == BYTES) break;
        refusals++;
        assert_int_equal(host_try(host, &request, body + at, BYTES - at), 0);
        while (host->log_at == host->log_count) {
            host_turn(host);
            peer_pull(host, peer);
        }
        host_expect(host, RW_EVENT_RESPONSE_DRAIN);
    }
    assert_true(refusals > 0);
    host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_END}, "", 0);
    peer_expect_head(host, peer, 200);
    peer_expect(host, peer, body, BYTES);
    get_and_answer(host, peer);
    host_close(host);
    free(body);
}

static void connections_keep_their_tls_when_the_listener_stops(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_CONNECT), RW_OK);
    struct peer *open = tls_open(host, client12, NULL);
    host_expect(host, RW_EVENT_CONNECT);
    struct peer *shaking = tls_connect(host, client13, NULL);
    host_expect(host, RW_EVENT_CONNECT);
    assert_int_equal(rw_core_unlisten(host->core, 3), RW_OK);
    if (!host->core->listeners[3].armed) fail_msg("the accept has ended before its last completion was taken");
    char error[256];
    struct rw_tls_options options = certificate_options(&leaf);
    assert_int_equal(rw_core_listener_tls(host->core, 3, &options, error, sizeof error), RW_ERR_INVALID);
    assert_non_null(strstr(error, "being stopped"));
    host_turns(host, 5);
    get_and_answer(host, open);
    assert_true(tls_shake_hands(host, shaking));
    get_and_answer(host, shaking);
    /* The index is free, and plain again. */
    assert_int_equal(rw_core_listen(host->core, host->listener, 3, 0), RW_OK);
    struct peer *plain = peer_connect_to(host, 0);
    peer_send_text(host, plain, GET("/"));
    struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
    assert_false(request.flags & RW_REQUEST_TLS);
    host_respond(host, &request, 200, "", "plain");
    peer_expect_response(host, plain, 200, "plain");
    get_and_answer(host, open);
    peer_close(host, open);
    host_expect(host, RW_EVENT_DISCONNECT);
    host_close(host);
}

static void a_handshake_that_fails_ends_what_was_told_of_it(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_CONNECT), RW_OK);
    struct peer *peer = peer_connect_to(host, 0);
    struct record *connect = host_expect(host, RW_EVENT_CONNECT);
    peer_send_text(host, peer, "\x16\x03\x01garbage, and not a handshake");
    peer_shutdown(host, peer);
    struct record *gone = host_expect(host, RW_EVENT_DISCONNECT);
    assert_int_equal(gone->event.slot, connect->event.slot);
    host_expect_silence(host);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_header_of_the_proxy_comes_before_tls),
        ON_EVERY_RING(an_offered_body_is_taken_over_tls_as_far_as_the_client_takes_it),
        ON_EVERY_RING(connections_keep_their_tls_when_the_listener_stops),
        ON_EVERY_RING(a_handshake_that_fails_ends_what_was_told_of_it),
    };
    return cmocka_run_group_tests_name("TLS listeners of the core", tests, make_certificates, free_certificates);
}
