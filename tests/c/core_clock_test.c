/* Connections that are silent for weeks: the core clock keeps 32 bits of a time, and is read right when they have
 * wrapped, and wrapped again. */
#include "connection/connection.h"
#include "core_fixture.h"
#include "ws/ws.h"

#define DAY_MS 86400000u
#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HALF_MS (1ull << 31)
#define WRAP_MS (1ull << 32)

/* So that what lies back is just below, at, and just past what 31 and 32 bits hold, and far past it. */
static const uint64_t silences[] = {HALF_MS - 5000, HALF_MS + 5000,           30ull * DAY_MS,
                                    40ull * DAY_MS, WRAP_MS - 5000,           WRAP_MS + 300,
                                    60ull * DAY_MS, WRAP_MS + HALF_MS + 5000, 100ull * DAY_MS};
enum { SILENCES = sizeof silences / sizeof silences[0] };

/* The core takes turns all the while, if only a few. */
static void pass_silently(struct host *host, uint64_t ms) {
    for (uint64_t step; ms > 0; ms -= step) {
        step = ms < DAY_MS ? ms : DAY_MS;
        host->core->clock_start_ms -= step;
        host_turns(host, 2);
    }
    host_turns(host, 2);
}

static void pass_in_one(struct host *host, uint64_t ms) {
    host->core->clock_start_ms -= ms;
    host_turns(host, 4);
}

static void expect_aborted(struct host *host) {
    assert_int_equal(host_expect(host, RW_EVENT_ABORT)->event.arg0 >> 16, RW_ABORT_PEER_GONE);
    host_turns(host, 5);
    assert_int_equal(rw_core_connections(host->core), 0);
}

static void a_request_that_was_silent_for_weeks_ends_when_its_client_leaves(void **state) {
    for (size_t i = 0; i < SILENCES; i++) {
        for (int at_once = 0; at_once < 2; at_once++) {
            struct host *host = host_open(state, DEFAULTS);
            struct peer *peer = peer_connect(host);
            peer_send_text(host, peer, GET("/"));
            host_expect(host, RW_EVENT_REQUEST);
            (at_once ? pass_in_one : pass_silently)(host, silences[i]);
            host_expect_silence(host);
            peer_shutdown(host, peer);
            host_pass_time(host, 3000);
            const struct rw_event *half = &host_expect(host, RW_EVENT_HALF_CLOSED)->event;
            host_answer(host, half, (struct rw_command){.type = RW_COMMAND_TERMINATE}, NULL, 0);
            expect_aborted(host);
            host_close(host);
        }
    }
}

/* A stream that goes on for weeks to a client that has half-closed, and then ends. */
static void a_half_closed_client_may_read_for_weeks(void **state) {
    for (size_t i = 0; i < SILENCES; i++) {
        struct host *host = host_open(state, DEFAULTS);
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, GET("/"));
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        host_answer(host, &request, (struct rw_command){.type = RW_COMMAND_RESPOND_BEGIN, .arg0 = 200}, "", 0);
        peer_expect_head(host, peer, 200);
        peer_shutdown(host, peer);
        host_turns(host, 5);
        struct rw_slot *slot = rw_core_slot(host->core, request.slot);
        for (uint64_t passed = 0; passed < silences[i]; passed += DAY_MS / 2) {
            /* Chunks have come all the time: what the core keeps of that is when the last one went out. */
            host->core->clock_start_ms -= DAY_MS / 2;
            slot->last_output_ms = (uint32_t)(test_now_ms() - host->core->clock_start_ms + 1000);
            host_turns(host, 2);
            assert_int_equal(slot->state.phase, RW_PHASE_OPEN);
        }
        host_pass_time(host, 3000);
        expect_aborted(host);
        host_close(host);
    }
}

/* Nothing is read of a client that has sent far ahead: the clock asks whether it is there. */
static void a_client_that_waits_behind_a_silent_request_is_missed_when_it_leaves(void **state) {
    static char ahead[32768];
    memset(ahead, 'x', sizeof ahead - 1);
    memcpy(ahead, "GET /next HTTP/1.1\r\nX: ", 23);
    for (size_t i = 0; i < SILENCES; i++) {
        struct host *host = host_open(state, &(struct rw_core_config){.body_timeout_ms = 3000});
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, GET("/"));
        host_expect(host, RW_EVENT_REQUEST);
        peer_send_text(host, peer, ahead);
        host_turns(host, 10);
        assert_true(rw_core_slot(host->core, 0)->state.paused_by_core);
        pass_silently(host, silences[i]);
        host_expect_silence(host);
        peer_shutdown(host, peer);
        host_pass_time(host, 8000);
        expect_aborted(host);
        host_close(host);
    }
}

/* The request came weeks ago, its response just now: idle is the time since then. */
static void a_drain_ends_a_connection_whose_request_was_silent_for_weeks(void **state) {
    for (size_t i = 0; i < SILENCES; i++) {
        struct host *host = host_open(state, DEFAULTS);
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, GET("/"));
        struct rw_event request = host_expect(host, RW_EVENT_REQUEST)->event;
        pass_silently(host, silences[i]);
        host_respond(host, &request, 200, "", "at last");
        peer_expect_response(host, peer, 200, "at last");
        rw_core_drain(host->core, 1001, 100, 4000);
        host_pass_time(host, 2000);
        assert_int_equal(peer->ended, 0);
        assert_int_equal(rw_core_connections(host->core), 1);
        host_pass_time(host, 4000);
        peer_expect_end(host, peer);
        host_close(host);
    }
}

/* Who has sent nothing for so long may send all that a burst allows. */
static void a_rate_is_full_after_weeks(void **state) {
    enum { BURST = 8 };
    for (size_t i = 0; i < SILENCES; i++) {
        struct host *host =
            ws_host(state, (struct rw_behavior){.messages_per_second = BURST * 1000 / RW_WS_RATE_BURST_MS});
        struct rw_event open;
        struct peer *peer = peer_open_ws(host, 7, &open);
        for (int burst = 0; burst < 2; burst++) {
            for (int at = 0; at < BURST; at++) peer_send_frame(host, peer, FIN_TEXT, "a", 1);
            for (int at = 0; at < BURST; at++) host_expect(host, RW_EVENT_MESSAGE);
            if (burst == 0) pass_silently(host, silences[i]);
        }
        host_expect_silence(host);
        host_close(host);
    }
}

#define ON_REAL_RINGS(test)                                                                     \
    {#test " (io_uring)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_IO_URING}, { \
        #test " (epoll)", test, backend_setup, NULL, (void *)(uintptr_t)RW_BACKEND_EPOLL        \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(a_request_that_was_silent_for_weeks_ends_when_its_client_leaves),
        ON_SIM(a_half_closed_client_may_read_for_weeks),
        ON_REAL_RINGS(a_client_that_waits_behind_a_silent_request_is_missed_when_it_leaves),
        ON_EVERY_RING(a_drain_ends_a_connection_whose_request_was_silent_for_weeks),
        ON_SIM(a_rate_is_full_after_weeks),
    };
    return cmocka_run_group_tests_name("the core over weeks", tests, NULL, NULL);
}
