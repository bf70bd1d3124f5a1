/* The budget for what clients have begun and not finished: who is refused, who is not, and that all of it is given
 * back. */
#include "core_fixture.h"

#define KIB 1024u
#define BUDGET_KIB 1024u
#define BUDGET ((struct rw_core_config){.unfinished_kib = BUDGET_KIB, .body_window_bytes = 128 * KIB})

static struct host *budget_host(void **state) {
    struct rw_core_config config = BUDGET;
    struct host *host = host_open(state, &config);
    host_behavior(host, 7, PLAIN);
    return host;
}

static uint64_t unfinished(const struct host *host) { return host->core->unfinished_bytes; }

/* No more at once than a turn hands on: what comes faster is kept, and kept bytes count. */
#define PIECE_BYTES (64 * KIB)

static void send_pattern(struct host *host, struct peer *peer, size_t bytes) {
    uint8_t *body = malloc(bytes);
    assert_non_null(body);
    fill_pattern(body, bytes);
    peer_send(host, peer, body, bytes);
    free(body);
}

static struct peer *begin_upload(struct host *host, const char *framing) {
    struct peer *peer = peer_connect(host);
    char head[128];
    snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", framing);
    peer_send_text(host, peer, head);
    return peer;
}

enum taking { KEPT, LET_GO, NOT_TAKEN };

/* Look at all events that there are. ret: bytes of bodies in them; *aborts and *ends: of requests */
static size_t take_bodies(struct host *host, enum taking taking, uint32_t *aborts, uint32_t *ends) {
    size_t bytes = 0;
    for (; host->log_at < host->log_count; host->log_at++) {
        const struct rw_event *event = &host->log[host->log_at].event;
        if (event->type == RW_EVENT_ABORT) ++*aborts;
        if (event->type != RW_EVENT_BODY) continue;
        bytes += event->bytes;
        if (event->flags & RW_BODY_END) ++*ends;
        uint16_t flags = taking == KEPT ? RW_BODY_KEPT : 0;
        if (taking != NOT_TAKEN && event->bytes)
            host_answer(host, event,
                        (struct rw_command){.type = RW_COMMAND_BODY_ACK, .flags = flags, .arg0 = event->bytes}, NULL,
                        0);
    }
    return bytes;
}

/* Turns until nothing comes any more. */
static size_t take_all(struct host *host, enum taking taking, uint32_t *aborts, uint32_t *ends) {
    size_t bytes = 0;
    for (uint32_t quiet = 0; quiet < 20;) {
        host_turn(host);
        /* What waits behind a request comes on top, in the buffers that there are: of 64 KiB at most. */
        assert_true(unfinished(host) <= BUDGET_KIB * KIB + 64 * KIB * rw_core_connections(host->core));
        size_t more = take_bodies(host, taking, aborts, ends);
        bytes += more;
        quiet = more ? 0 : quiet + 1;
    }
    return bytes;
}

/* Send so much of a body as the core takes, in pieces, and take it. ret: bytes that came */
static size_t upload(struct host *host, struct peer *peer, size_t bytes, enum taking taking, uint32_t *aborts,
                     uint32_t *ends) {
    size_t came = 0;
    for (size_t sent = 0; sent < bytes && *aborts == 0;) {
        size_t piece = bytes - sent < PIECE_BYTES ? bytes - sent : PIECE_BYTES;
        send_pattern(host, peer, piece);
        sent += piece;
        came += take_all(host, taking, aborts, ends);
    }
    return came;
}

/* ---------------------------------------------------------------- bodies */

static void unfinished_bodies_that_are_kept_share_a_budget_and_small_ones_get_through(void **state) {
    enum { UPLOADS = 8 };
    struct host *host = budget_host(state);
    struct peer *peers[UPLOADS];
    uint32_t aborts = 0, ends = 0;
    for (uint32_t i = 0; i < UPLOADS; i++) peers[i] = begin_upload(host, "Content-Length: 600000");
    /* All of them grow at the same pace, by more than there is. */
    for (uint32_t round = 0; round < 16; round++) {
        for (uint32_t i = 0; i < UPLOADS; i++) send_pattern(host, peers[i], 32 * KIB);
        (void)take_all(host, KEPT, &aborts, &ends);
    }
    assert_in_range(aborts, 1, UPLOADS);
    assert_int_equal(host->core->stats->refused_unfinished, aborts);
    uint32_t refused = 0;
    for (uint32_t i = 0; i < UPLOADS; i++) {
        peer_pull(host, peers[i]);
        if (!peers[i]->in_bytes) continue;
        refused++;
        peer_expect_response(host, peers[i], 503, "Service Unavailable");
        assert_true(peer_head_has(peers[i], "Retry-After: 1"));
        assert_true(peer_head_has(peers[i], "Connection: close"));
    }
    assert_int_equal(refused, aborts);
    /* In two pieces, so that it is unfinished for a while. */
    struct peer *small = begin_upload(host, "Content-Length: 8192");
    send_pattern(host, small, 4096);
    assert_int_equal(take_all(host, KEPT, &aborts, &ends), 4096);
    send_pattern(host, small, 4096);
    assert_int_equal(take_all(host, KEPT, &aborts, &ends), 4096);
    assert_int_equal(ends, 1);
    assert_int_equal(aborts, refused);
    host_close(host);
}

static void a_body_alone_gets_most_of_the_budget_and_one_that_never_fits_is_refused_with_413(void **state) {
    struct host *host = budget_host(state);
    uint32_t aborts = 0, ends = 0;
    struct peer *fits = begin_upload(host, "Content-Length: 600000");
    assert_int_equal(upload(host, fits, 600000, KEPT, &aborts, &ends), 600000);
    assert_int_equal(ends, 1);
    /* It is held until it is answered: the handler has it. */
    assert_int_equal(unfinished(host), 600000);
    struct rw_event request = host->log[0].event;
    assert_int_equal(request.type, RW_EVENT_REQUEST);
    host_respond(host, &request, 200, "", "thanks");
    peer_expect_response(host, fits, 200, "thanks");
    assert_int_equal(unfinished(host), 0);

    struct peer *never = begin_upload(host, "Transfer-Encoding: chunked");
    peer_send_text(host, never, "100000\r\n"); /* 1 MiB */
    size_t taken = upload(host, never, 1024 * KIB, KEPT, &aborts, &ends);
    assert_in_range(taken, 600 * KIB, 820 * KIB);
    assert_int_equal(aborts, 1);
    peer_expect_head(host, never, 413);
    assert_int_equal(unfinished(host), 0);
    host_close(host);
}

static void bodies_that_are_let_go_of_pass_whatever_their_size_and_however_full_it_is(void **state) {
    struct host *host = budget_host(state);
    uint32_t aborts = 0, ends = 0;
    struct peer *large = begin_upload(host, "Content-Length: 1000000");
    assert_int_equal(upload(host, large, 700 * KIB, KEPT, &aborts, &ends), 700 * KIB);
    struct peer *stream = begin_upload(host, "Content-Length: 3000000");
    assert_int_equal(upload(host, stream, 3000000, LET_GO, &aborts, &ends), 3000000);
    assert_int_equal(ends, 1);
    assert_int_equal(aborts, 0);
    assert_int_equal(unfinished(host), 700 * KIB);
    host_close(host);
}

static void past_the_budget_a_body_that_nobody_takes_waits_and_is_not_refused(void **state) {
    struct host *host = budget_host(state);
    uint32_t aborts = 0, ends = 0;
    struct peer *large = begin_upload(host, "Content-Length: 1000000");
    (void)upload(host, large, 700 * KIB, KEPT, &aborts, &ends);
    /* 324 KiB are free: ten that are not taken get less than their windows. */
    struct peer *waiting[10];
    for (uint32_t i = 0; i < 10; i++) waiting[i] = begin_upload(host, "Content-Length: 100000");
    host_turns(host, 4);
    size_t first = host->log_at;
    size_t given = 0;
    for (uint32_t round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < 10; i++) send_pattern(host, waiting[i], 8 * KIB);
        given += take_all(host, NOT_TAKEN, &aborts, &ends);
    }
    assert_in_range(given, 10 * 8 * KIB, 324 * KIB);
    assert_int_equal(aborts, 0);
    /* As they are taken they go on, to their ends. */
    host->log_at = first;
    size_t all = take_all(host, LET_GO, &aborts, &ends);
    for (uint32_t i = 0; i < 10; i++) {
        send_pattern(host, waiting[i], 100000 - 4 * 8 * KIB);
        all += take_all(host, LET_GO, &aborts, &ends);
    }
    assert_int_equal(all, 1000000);
    assert_int_equal(ends, 10);
    assert_int_equal(aborts, 0);
    host_close(host);
}

static void a_body_in_one_piece_is_never_refused(void **state) {
    struct host *host = budget_host(state);
    host->core->limits.unfinished_bytes = 0;
    uint32_t aborts = 0, ends = 0;
    struct peer *peer = begin_upload(host, "Content-Length: 5");
    host_turns(host, 4);
    peer_send_text(host, peer, "whole");
    assert_int_equal(take_all(host, KEPT, &aborts, &ends), 5);
    assert_int_equal(ends, 1);
    peer = begin_upload(host, "Transfer-Encoding: chunked");
    host_turns(host, 4);
    peer_send_text(host, peer, "5\r\nwhole\r\n0\r\n\r\n");
    assert_int_equal(take_all(host, KEPT, &aborts, &ends), 5);
    assert_int_equal(ends, 2);
    assert_int_equal(aborts, 0);
    host_close(host);
}

static void a_client_that_leaves_and_one_that_is_cut_off_give_back_what_they_held(void **state) {
    struct host *host = budget_host(state);
    uint32_t aborts = 0, ends = 0;
    struct peer *leaves = begin_upload(host, "Content-Length: 1000000");
    struct peer *early = begin_upload(host, "Content-Length: 150000");
    send_pattern(host, leaves, 100 * KIB);
    send_pattern(host, early, 100000);
    assert_int_equal(take_all(host, KEPT, &aborts, &ends), 100 * KIB + 100000);
    assert_int_equal(unfinished(host), 100 * KIB + 100000);
    peer_close(host, leaves);
    for (uint32_t turn = 0; unfinished(host) > 100000 && turn < 1000; turn++) host_turn(host);
    assert_int_equal(unfinished(host), 100000);
    /* Answered before it has come whole: the rest is thrown away, and counts for nothing. */
    struct rw_event request = {0};
    for (size_t i = 0; i < host->log_count; i++) {
        const struct rw_event *event = &host->log[i].event;
        if (event->type == RW_EVENT_BODY && event->bytes &&
            rw_slot_pool_get(&host->core->pool, event->slot, event->generation))
            request = *event;
    }
    assert_int_equal(request.type, RW_EVENT_BODY);
    host_respond(host, &request, 200, "", "enough");
    peer_expect_response(host, early, 200, "enough");
    assert_int_equal(unfinished(host), 0);
    send_pattern(host, early, 50000);
    peer_send_text(host, early, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    host->log_at = host->log_count;
    (void)host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(unfinished(host), 0);
    host_close(host);
}

static void a_head_that_would_go_past_the_budget_is_refused_with_503(void **state) {
    struct host *host = budget_host(state);
    uint32_t aborts = 0, ends = 0;
    struct peer *part = peer_connect(host);
    peer_send_text(host, part, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    host_turns(host, 10);
    assert_in_range(unfinished(host), 29, 64);
    host->core->limits.unfinished_bytes = unfinished(host);
    /* Whole ones are served, and what does not need more room is taken. */
    struct peer *whole = peer_connect(host);
    peer_send_text(host, whole, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    (void)host_expect(host, RW_EVENT_REQUEST);
    struct peer *other = peer_connect(host);
    peer_send_text(host, other, "GET / HTTP");
    peer_expect_head(host, other, 503);
    assert_true(peer_head_has(other, "Retry-After: 1"));
    assert_int_equal(host->core->stats->refused_unfinished, 1);
    peer_send_text(host, part, "y\r\n\r\n");
    (void)host_expect(host, RW_EVENT_REQUEST);
    (void)take_all(host, KEPT, &aborts, &ends);
    host_close(host);
}

/* ---------------------------------------------------------------- messages */

/* The first `sent` bytes of a frame with this first octet. */
static void send_part(struct host *host, struct peer *peer, uint8_t first, size_t bytes, size_t sent) {
    uint8_t *payload = malloc(bytes), *frame = malloc(bytes + 14);
    assert_true(payload && frame);
    fill_pattern(payload, bytes);
    (void)ws_client_frame(frame, first, payload, bytes);
    peer_send(host, peer, frame, sent);
    free(payload);
    free(frame);
}

static void expect_refused_message(struct host *host, struct peer *peer) {
    static const char reason[] = "too much is held of unfinished messages, try again later";
    uint8_t payload[125] = {1013 >> 8, 1013 & 0xFF};
    memcpy(payload + 2, reason, sizeof reason - 1);
    peer_expect_frame(host, peer, FIN_CLOSE, payload, sizeof reason + 1);
}

static void unfinished_messages_share_the_budget_and_small_ones_get_through(void **state) {
    enum { SENDERS = 12 };
    struct host *host = budget_host(state);
    struct peer *peers[SENDERS];
    struct rw_event open;
    for (uint32_t i = 0; i < SENDERS; i++) peers[i] = peer_open_ws(host, 7, &open);
    struct peer *small = peer_open_ws(host, 7, &open);
    for (uint32_t i = 0; i < SENDERS; i++)
        send_part(host, peers[i], i % 2 ? FIN_BINARY : 0x02, 256 * KIB, 256 * KIB - 100);
    host_turns(host, 200);
    assert_true(unfinished(host) <= BUDGET_KIB * KIB);
    uint32_t refused = 0;
    for (uint32_t i = 0; i < SENDERS; i++) {
        peer_pull(host, peers[i]);
        if (!peers[i]->in_bytes) continue;
        refused++;
        expect_refused_message(host, peers[i]);
        struct rw_event close = host_expect(host, RW_EVENT_CLOSE)->event;
        assert_int_equal(close.arg0, 1013);
        assert_int_equal(close.arg1, RW_CLOSE_UNFINISHED);
    }
    assert_in_range(refused, 1, SENDERS);
    assert_int_equal(host->core->stats->closes_unfinished, refused);
    /* In one piece, and in two. */
    peer_send_frame(host, small, FIN_TEXT, "whole", 5);
    assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "whole");
    peer_send_frame(host, small, 0x01, "two ", 4);
    host_turns(host, 4);
    peer_send_frame(host, small, 0x80, "parts", 5);
    assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "two parts");
    host_close(host);
}

static void a_message_alone_passes_and_one_that_never_fits_is_too_big(void **state) {
    struct host *host = budget_host(state);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    send_part(host, peer, FIN_BINARY, 600 * KIB, 600 * KIB + 14);
    assert_int_equal(host_expect(host, RW_EVENT_MESSAGE)->event.bytes, 600 * KIB);
    host_turns(host, 2);
    assert_int_equal(unfinished(host), 0);
    peer = peer_open_ws(host, 7, &open);
    send_part(host, peer, FIN_BINARY, 1000 * KIB, 1000 * KIB);
    peer_expect_close_frame(host, peer, 1009);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_TOO_BIG);
    assert_int_equal(host->core->stats->ws_too_big, 1);
    host_close(host);
}

/* ---------------------------------------------------------------- the deadline of a message */

static struct host *deadline_host(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    host_behavior(host, 7, (struct rw_behavior){.message_timeout_ms = 5000, .idle_timeout_ms = 60000});
    return host;
}

static void a_message_that_does_not_end_in_time_closes_however_alive_its_sender_is(void **state) {
    static const char reason[] = "a message took longer than allowed";
    struct host *host = deadline_host(state);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open), *other = peer_open_ws(host, 7, &open);
    peer_send_frame(host, peer, 0x01, "begun", 5);
    for (uint32_t passed = 0; passed < 4000; passed += 400) {
        host_pass_time(host, 400);
        peer_send_frame(host, peer, FIN_PONG, "", 0);
        peer_send_frame(host, peer, 0x00, "!", 1);
        /* Whole messages, however many, have no deadline. */
        peer_send_frame(host, other, FIN_TEXT, "hello", 5);
        (void)host_expect(host, RW_EVENT_MESSAGE);
    }
    peer_pull(host, peer);
    assert_int_equal(peer->in_bytes, 0);
    host_pass_time(host, 2000);
    uint8_t payload[125] = {1008 >> 8, 1008 & 0xFF};
    memcpy(payload + 2, reason, sizeof reason - 1);
    peer_expect_frame(host, peer, FIN_CLOSE, payload, sizeof reason + 1);
    assert_int_equal(host_expect(host, RW_EVENT_CLOSE)->event.arg1, RW_CLOSE_MESSAGE_TIMEOUT);
    assert_int_equal(host->core->stats->timeouts_message, 1);
    host_pass_time(host, 10000);
    peer_send_frame(host, other, FIN_TEXT, "hello", 5);
    (void)host_expect(host, RW_EVENT_MESSAGE);
    host_close(host);
}

static void time_in_which_the_host_does_not_read_is_not_the_senders(void **state) {
    struct host *host = deadline_host(state);
    struct rw_event open;
    struct peer *peer = peer_open_ws(host, 7, &open);
    peer_send_frame(host, peer, 0x01, "begun", 5);
    host_turns(host, 10);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_PAUSE}, NULL, 0);
    host_pass_time(host, 20000);
    host_answer(host, &open, (struct rw_command){.type = RW_COMMAND_RESUME}, NULL, 0);
    host_pass_time(host, 4000);
    peer_send_frame(host, peer, 0x80, " ended", 6);
    assert_string_equal((char *)host_expect(host, RW_EVENT_MESSAGE)->payload, "begun ended");
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(unfinished_bodies_that_are_kept_share_a_budget_and_small_ones_get_through),
        ON_EVERY_RING(a_body_alone_gets_most_of_the_budget_and_one_that_never_fits_is_refused_with_413),
        ON_EVERY_RING(bodies_that_are_let_go_of_pass_whatever_their_size_and_however_full_it_is),
        ON_EVERY_RING(past_the_budget_a_body_that_nobody_takes_waits_and_is_not_refused),
        ON_EVERY_RING(a_body_in_one_piece_is_never_refused),
        ON_EVERY_RING(a_client_that_leaves_and_one_that_is_cut_off_give_back_what_they_held),
        ON_EVERY_RING(a_head_that_would_go_past_the_budget_is_refused_with_503),
        ON_EVERY_RING(unfinished_messages_share_the_budget_and_small_ones_get_through),
        ON_EVERY_RING(a_message_alone_passes_and_one_that_never_fits_is_too_big),
        ON_EVERY_RING(a_message_that_does_not_end_in_time_closes_however_alive_its_sender_is),
        ON_EVERY_RING(time_in_which_the_host_does_not_read_is_not_the_senders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
