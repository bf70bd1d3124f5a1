/* Handshakes of TLS through the whole core: sessions, server names, certificates, and whatever is no handshake. */
#include "connection/tls_sessions.h"
#include "tls_fixture.h"

/* ---------------------------------------------------------------- resumption */

static void get_once(struct host *host, struct peer *peer) {
    get_and_answer(host, peer);
    host_turns(host, 3);
    peer_pull(host, peer);
}

/* ret: whether the second of two connections resumed the session of the first */
static int resumes(struct host *first, struct host *second, SSL_CTX *context, const char *first_name,
                   const char *second_name) {
    struct peer *peer = tls_open(first, context, first_name);
    get_once(first, peer);
    SSL_SESSION *session = SSL_get1_session(tls_of(peer)->ssl);
    assert_true(SSL_SESSION_is_resumable(session));
    struct peer *again = tls_connect(second, context, second_name);
    assert_int_equal(SSL_set_session(tls_of(again)->ssl, session), 1);
    uint64_t before = second->core->stats->tls_resumptions;
    assert_true(tls_shake_hands(second, again));
    get_once(second, again);
    SSL_SESSION_free(session);
    assert_int_equal(second->core->stats->tls_resumptions - before, SSL_session_reused(tls_of(again)->ssl));
    return SSL_session_reused(tls_of(again)->ssl);
}

static void sessions_are_resumed_from_tickets(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    assert_true(resumes(host, host, client12, NULL, NULL));
    assert_true(resumes(host, host, client13, NULL, NULL));
    host_close(host);
}

static SSL_SESSION *latest_session;
static uint32_t session_count;

static int on_new_session(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    SSL_SESSION_free(latest_session);
    latest_session = session;
    session_count++;
    return 1;
}

/* As rustls, BoringSSL and Java do, which take no ticket twice. */
static void a_client_that_uses_each_ticket_once_is_resumed_every_time(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    SSL_CTX *context = tls_client_context();
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_new_session);
    for (int i = 0; i < 20; i++) {
        struct peer *peer = tls_connect(host, context, NULL);
        if (i) assert_int_equal(SSL_set_session(tls_of(peer)->ssl, latest_session), 1);
        SSL_SESSION_free(latest_session);
        latest_session = NULL;
        session_count = 0;
        assert_true(tls_shake_hands(host, peer));
        get_once(host, peer);
        assert_int_equal(SSL_session_reused(tls_of(peer)->ssl), i > 0);
        assert_int_equal(session_count, i ? 1 : 2);
        peer_close(host, peer);
    }
    SSL_SESSION_free(latest_session);
    latest_session = NULL;
    SSL_CTX_free(context);
    host_close(host);
}

static void a_session_ends_with_the_certificate_of_its_peer(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *peer = tls_open(host, client12, NULL);
    SSL_SESSION *session = SSL_get_session(tls_of(peer)->ssl); /* of the client: its peer is `leaf` */
    struct tm end;
    assert_int_equal(ASN1_TIME_to_tm(X509_get0_notAfter(leaf.x509), &end), 1);
    uint64_t expires = (uint64_t)timegm(&end);
    assert_true(rw_tls_session_begin(session, expires - 100));
    assert_true(rw_tls_session_may_go_on(session, expires - 1));
    assert_false(rw_tls_session_may_go_on(session, expires + 1));
    host_close(host);
}

static void a_session_is_resumed_only_where_the_same_certificate_is_shown(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct certificate other = certificate_make("other.test", &ca);
    struct rw_tls_options same = certificate_options(&leaf), another = certificate_options(&other);
    assert_int_equal(rw_core_server_name(host->core, 3, "same.test", 1, &same, NULL, 0), RW_OK);
    assert_int_equal(rw_core_server_name(host->core, 3, "other.test", 2, &another, NULL, 0), RW_OK);
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        assert_true(resumes(host, host, contexts[i], "same.test", "same.test"));
        assert_true(resumes(host, host, contexts[i], "other.test", "other.test"));
        assert_false(resumes(host, host, contexts[i], "same.test", "other.test"));
        assert_false(resumes(host, host, contexts[i], NULL, "other.test"));
        assert_false(resumes(host, host, contexts[i], "other.test", NULL));
    }
    host_close(host);
    certificate_free(&other);
}

static struct host *shared_host(int32_t shm_fd, uint32_t worker) {
    const struct rw_core_config config = {.shm_fd = shm_fd, .worker_index = worker, .worker_count = 2};
    struct host *host = host_open_with(RW_BACKEND_SIM, &config);
    struct rw_tls_options options = certificate_options(&leaf);
    tls_listen(host, &options);
    return host;
}

static void a_session_of_one_worker_is_resumed_by_another_and_by_no_other_node(void **state) {
    (void)state;
    int32_t node = rw_shm_create(2, 65536, 0, 0), other_node = rw_shm_create(2, 65536, 0, 0);
    assert_true(node >= 0 && other_node >= 0);
    struct host *first = shared_host(node, 0), *second = shared_host(node, 1), *stranger = shared_host(other_node, 0);
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        assert_true(resumes(first, second, contexts[i], NULL, NULL));
        assert_false(resumes(first, stranger, contexts[i], NULL, NULL));
    }
    host_close(first);
    host_close(second);
    host_close(stranger);
    close(node);
    close(other_node);
}

/* ---------------------------------------------------------------- server names */

static void name(struct host *host, const char *text, uint32_t context, const struct certificate *certificate) {
    char error[256];
    struct rw_tls_options options;
    if (certificate) options = certificate_options(certificate);
    if (rw_core_server_name(host->core, 3, text, context, certificate ? &options : NULL, error, sizeof error) != RW_OK)
        fail_msg("%s", error);
}

/* What a client that asks for `asked` is shown, and by which context its requests are told. */
static void expect_name(struct host *host, SSL_CTX *context, const char *asked, const char *shown, uint32_t number) {
    struct peer *peer = tls_open(host, context, asked);
    assert_string_equal(tls_shown_name(peer), shown);
    peer_send_text(host, peer, GET("/"));
    struct record *request = host_expect(host, RW_EVENT_REQUEST);
    assert_int_equal(request->event.arg1 >> 8, 3 | number << 8);
    host_respond(host, &request->event, 200, "", "");
    peer_expect_response(host, peer, 200, "");
    peer_close(host, peer);
}

static void server_names_choose_the_certificate(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct certificate exact = certificate_make("exact.test", NULL), wild = certificate_make("wild.test", NULL),
                       newer = certificate_make("newer.test", NULL);
    name(host, "a.Example.com", 1, &exact);
    name(host, "*.example.com", 65535, &wild);
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        expect_name(host, contexts[i], "A.example.COM", "exact.test", 1);
        expect_name(host, contexts[i], "b.example.com", "wild.test", 65535);
        expect_name(host, contexts[i], "b.c.example.com", "leaf.test", 0);
        expect_name(host, contexts[i], "example.com", "leaf.test", 0);
        expect_name(host, contexts[i], NULL, "leaf.test", 0);
    }
    name(host, "a.example.com", 2, &newer);
    expect_name(host, client13, "a.example.com", "newer.test", 2);
    name(host, "a.example.com", 0, NULL);
    expect_name(host, client13, "a.example.com", "wild.test", 65535);
    name(host, "*.example.com", 0, NULL);
    expect_name(host, client13, "a.example.com", "leaf.test", 0);
    host_close(host);
    certificate_free(&exact);
    certificate_free(&wild);
    certificate_free(&newer);
}

static void go_on(struct host *host, const struct rw_event *question) {
    host_answer(host, question, (struct rw_command){.type = RW_COMMAND_SERVER_NAME}, NULL, 0);
}

static void a_handshake_waits_while_the_host_looks_for_a_name(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_SERVER_NAME), RW_OK);
    struct certificate late = certificate_make("late.test", NULL);
    SSL_CTX *contexts[] = {client12, client13};
    for (int i = 0; i < 2; i++) {
        struct peer *added = tls_connect(host, contexts[i], "Late.test");
        struct rw_event question = expect_question(host, added, "late.test")->event;
        struct peer *unknown = tls_connect(host, contexts[i], "unknown.test");
        struct rw_event hopeless = expect_question(host, unknown, "unknown.test")->event;
        name(host, "late.test", 9, &late);
        go_on(host, &question);
        go_on(host, &hopeless);
        go_on(host, &hopeless); /* once is enough */
        assert_true(tls_shake_hands(host, added));
        assert_string_equal(tls_shown_name(added), "late.test");
        assert_true(tls_shake_hands(host, unknown));
        assert_string_equal(tls_shown_name(unknown), "leaf.test");
        get_and_answer(host, unknown);
        expect_name(host, contexts[i], "late.test", "late.test", 9); /* known now: not asked for */
        expect_name(host, contexts[i], NULL, "leaf.test", 0);
        name(host, "late.test", 0, NULL);
    }
    host_close(host);
    certificate_free(&late);
}

static void a_handshake_that_waits_ends_with_its_time_or_its_client(void **state) {
    struct host *host = tls_host(state, &(struct rw_core_config){.head_timeout_ms = 5000});
    assert_int_equal(rw_core_listener_flags(host->core, 3, RW_LISTENER_WANTS_SERVER_NAME), RW_OK);
    struct peer *slow = tls_connect(host, client13, "slow.test"), *gone = tls_connect(host, client13, "gone.test");
    struct peer *chatty = tls_connect(host, client13, "chatty.test"), *half = tls_connect(host, client13, "half.test");
    struct rw_event question = expect_question(host, slow, "slow.test")->event;
    (void)expect_question(host, gone, "gone.test");
    (void)expect_question(host, chatty, "chatty.test");
    (void)expect_question(host, half, "half.test");
    peer_close(host, gone);
    peer_shutdown(host, half);
    static uint8_t noise[40000];
    peer_send(host, &tls_of(chatty)->wire, noise, sizeof noise);
    host_turns(host, 20);
    assert_int_equal(host->core->stats->tls_errors, 3);
    host_pass_time(host, 6000);
    host_turns(host, 5);
    assert_int_equal(rw_core_connections(host->core), 0);
    assert_int_equal(host->core->stats->tls_errors, 4);
    go_on(host, &question); /* too late, and harmless */
    host_turns(host, 2);
    peer_close(host, slow);
    peer_close(host, chatty);
    peer_close(host, half);
    host_close(host);
}

/* ---------------------------------------------------------------- certificates */

static void a_reload_is_for_new_connections_and_a_failed_one_changes_nothing(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct certificate next = certificate_make("next.test", NULL);
    struct peer *old = tls_open(host, client13, NULL), *half_way = tls_connect(host, client13, NULL);
    tls_of(half_way)->step = 50;
    assert_int_equal(SSL_do_handshake(tls_of(half_way)->ssl), -1);
    uint8_t hello[60];
    assert_int_equal(BIO_read(SSL_get_wbio(tls_of(half_way)->ssl), hello, sizeof hello), sizeof hello);
    peer_send(host, &tls_of(half_way)->wire, hello, sizeof hello);
    host_turns(host, 5);
    struct rw_tls_options options = certificate_options(&next), wrong = options;
    wrong.key_file = leaf.key_file.path;
    char error[256];
    assert_int_equal(rw_core_listener_tls(host->core, 3, &wrong, error, sizeof error), RW_ERR_INVALID);
    assert_non_null(strstr(error, "does not match"));
    struct peer *unchanged = tls_open(host, client13, NULL);
    assert_string_equal(tls_shown_name(unchanged), "leaf.test");
    tls_listen(host, &options);
    struct peer *new = tls_open(host, client13, NULL);
    assert_string_equal(tls_shown_name(new), "next.test");
    assert_true(tls_shake_hands(host, half_way));
    assert_string_equal(tls_shown_name(half_way), "leaf.test");
    get_and_answer(host, old);
    get_and_answer(host, half_way);
    get_and_answer(host, new);
    host_close(host);
    certificate_free(&next);
}

static void connections_outlive_their_listener(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct peer *open = tls_open(host, client13, NULL), *half_way = tls_connect(host, client13, NULL);
    assert_int_equal(SSL_do_handshake(tls_of(half_way)->ssl), -1);
    host_turns(host, 3); /* accepted, and nothing has come */
    assert_int_equal(rw_core_unlisten(host->core, 3), RW_OK);
    host_turns(host, 3);
    assert_true(tls_shake_hands(host, half_way));
    get_and_answer(host, half_way);
    get_and_answer(host, open);
    host_close(host);
}

/* With TLS 1.3 a client knows that its certificate was refused only when it reads on. */
static int is_admitted(struct host *host, SSL_CTX *context, const char *asked) {
    struct peer *peer = tls_connect(host, context, asked);
    int admitted = tls_shake_hands(host, peer);
    for (int i = 0; i < 20 && admitted; i++) {
        host_turn(host);
        peer_pull(host, peer);
        if (tls_of(peer)->failed || peer->ended) admitted = 0;
    }
    if (admitted) get_and_answer(host, peer);
    peer_close(host, peer);
    host_turns(host, 5);
    return admitted;
}

static void clients_must_show_a_certificate_of_the_ca(void **state) {
    struct host *host = host_open(state, DEFAULTS);
    struct certificate friend = certificate_make("friend.test", &ca),
                       stranger = certificate_make("stranger.test", NULL);
    struct rw_tls_options options = certificate_options(&leaf);
    options.ca_file = ca.cert_file.path;
    tls_listen(host, &options);
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 2; i++) {
        SSL_CTX *good = tls_client_with(versions[i], &friend), *bad = tls_client_with(versions[i], &stranger);
        SSL_CTX *none = tls_client_with(versions[i], NULL);
        uint64_t before = host->core->stats->tls_errors;
        assert_true(is_admitted(host, good, NULL));
        assert_true(resumes(host, host, good, NULL, NULL));
        assert_int_equal(host->core->stats->tls_errors, before);
        assert_false(is_admitted(host, bad, NULL));
        assert_false(is_admitted(host, none, NULL));
        assert_int_equal(host->core->stats->tls_errors, before + 2);
        SSL_CTX_free(good);
        SSL_CTX_free(bad);
        SSL_CTX_free(none);
    }
    host_close(host);
    certificate_free(&friend);
    certificate_free(&stranger);
}

/* A ticket of a name that asks for no certificate opens no name that does. */
static void a_session_does_not_get_past_the_client_certificates_of_another_name(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    struct certificate friend = certificate_make("friend.test", &ca);
    struct rw_tls_options options = certificate_options(&leaf);
    options.ca_file = ca.cert_file.path;
    char error[256];
    assert_int_equal(rw_core_server_name(host->core, 3, "private.test", 5, &options, error, sizeof error), RW_OK);
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 2; i++) {
        SSL_CTX *none = tls_client_with(versions[i], NULL), *good = tls_client_with(versions[i], &friend);
        assert_false(is_admitted(host, none, "private.test"));
        assert_true(is_admitted(host, good, "private.test"));
        struct peer *public = tls_open(host, none, "public.test");
        get_once(host, public);
        SSL_SESSION *session = SSL_get1_session(tls_of(public)->ssl);
        struct peer *intruder = tls_connect(host, none, "private.test");
        assert_int_equal(SSL_set_session(tls_of(intruder)->ssl, session), 1);
        uint64_t before = host->core->stats->tls_handshakes;
        (void)tls_shake_hands(host, intruder);
        host_turns(host, 5);
        assert_int_equal(host->core->stats->tls_handshakes, before);
        SSL_SESSION_free(session);
        SSL_CTX_free(none);
        SSL_CTX_free(good);
    }
    host_close(host);
    certificate_free(&friend);
}

static void alpn_is_http_1_or_refused(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    static const struct {
        const char *offered, *chosen;
    } cases[] = {
        {"\x08http/1.1", "http/1.1"},
        {"\x02h2\x08http/1.1", "http/1.1"},
        {"\x08http/1.0", "http/1.0"},
        {"\x08http/1.0\x08http/1.1", "http/1.1"},
        {"\x02h2", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct peer *peer = tls_connect(host, i & 1 ? client12 : client13, NULL);
        SSL_set_alpn_protos(tls_of(peer)->ssl, (const unsigned char *)cases[i].offered,
                            (unsigned int)strlen(cases[i].offered));
        int shook = tls_shake_hands(host, peer);
        assert_int_equal(shook, cases[i].chosen != NULL);
        if (!shook) {
            assert_int_equal(ERR_GET_REASON(tls_of(peer)->reason),
                             SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL);
            continue;
        }
        const unsigned char *chosen;
        unsigned int bytes;
        SSL_get0_alpn_selected(tls_of(peer)->ssl, &chosen, &bytes);
        assert_int_equal(bytes, strlen(cases[i].chosen));
        assert_memory_equal(chosen, cases[i].chosen, bytes);
        get_and_answer(host, peer);
    }
    assert_int_equal(host->core->stats->tls_errors, 1);
    host_close(host);
}

static void keys_are_agreed_on_over_three_curves_and_no_finite_field(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    /* In TLS 1.2 the curve of the certificate must be among those of the client as well. */
    static const struct {
        const char *groups;
        int spoken13, spoken12;
    } cases[] = {
        {"X25519", 1, 0}, {"P-256", 1, 1}, {"P-384", 1, 0},     {"X25519:P-256", 1, 1}, {"ffdhe2048:P-384:P-256", 1, 1},
        {"X448", 0, 0},   {"P-521", 0, 0}, {"ffdhe2048", 0, 0}, {"ffdhe8192", 0, 0},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        int is12 = i & 1, spoken = is12 ? cases[i / 2].spoken12 : cases[i / 2].spoken13;
        struct peer *peer = tls_connect(host, is12 ? client12 : client13, NULL);
        assert_int_equal(SSL_set1_groups_list(tls_of(peer)->ssl, cases[i / 2].groups), 1);
        /* With a cipher that needs no curve it would be content. */
        if (is12) assert_int_equal(SSL_set_cipher_list(tls_of(peer)->ssl, "ECDHE+AESGCM:DHE+AESGCM"), 1);
        assert_int_equal(tls_shake_hands(host, peer), spoken);
        if (spoken) {
            get_and_answer(host, peer);
        } else {
            assert_int_equal(ERR_GET_REASON(tls_of(peer)->reason), SSL_AD_REASON_OFFSET + SSL_AD_HANDSHAKE_FAILURE);
        }
        peer_close(host, peer);
    }
    host_close(host);
}

static void old_versions_and_a_least_version_are_kept_to(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    SSL_CTX *ancient = tls_client_context();
    SSL_CTX_set_min_proto_version(ancient, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(ancient, TLS1_1_VERSION);
    SSL_CTX_set_cipher_list(ancient, "ALL:@SECLEVEL=0");
    assert_false(tls_shake_hands(host, tls_connect(host, ancient, NULL)));
    struct rw_tls_options options = certificate_options(&leaf);
    options.min_version = 0x0304;
    tls_listen(host, &options);
    assert_false(tls_shake_hands(host, tls_connect(host, client12, NULL)));
    assert_true(tls_shake_hands(host, tls_connect(host, client13, NULL)));
    SSL_CTX_free(ancient);
    host_close(host);
}

/* ---------------------------------------------------------------- what is not TLS */

static void plain_http_is_told_to_use_https(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    for (size_t step = 1; step < 40; step += 19) {
        struct peer *peer = peer_connect(host);
        static const char request[] = "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (size_t at = 0; at < 32; at += step) {
            peer_send(host, peer, request + at, at + step > 32 ? 32 - at : step);
            host_turn(host);
        }
        peer_expect_head(host, peer, 400);
        assert_true(peer_head_has(peer, "Connection: close"));
        peer_wait_bytes(host, peer, peer_content_length(peer->head));
        assert_non_null(memmem(peer->in, peer->in_bytes, "use https", 9));
        peer_consume(peer, peer->in_bytes);
        peer_expect_end(host, peer);
    }
    assert_int_equal(host->core->stats->tls_plain, 3);
    assert_int_equal(host->core->stats->tls_errors, 0);
    host_expect_silence(host);
    host_close(host);
}

static void what_is_neither_tls_nor_http_gets_an_alert(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    static const char *const texts[] = {"SSH-2.0-x\r\n",
                                        "\x80\x2e\x01",
                                        "GEX",
                                        "\xff",
                                        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
                                        "get / http/1.1\r\n",
                                        "\x16\x05\x01\x01\x02\x03\x04\x05",
                                        "\x16zzzzzzzz",
                                        "\x17\x03\x03\x01\x01",
                                        "\x15\x03\x01\x01\x02\x02\x0a"};
    static const uint8_t alert[] = {21, 3, 3, 0, 2, 2, 10};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct peer *peer = peer_connect(host);
        peer_send_text(host, peer, texts[i]);
        peer_expect_end(host, peer);
        assert_int_equal(peer->in_bytes, sizeof alert);
        assert_memory_equal(peer->in, alert, sizeof alert);
        peer_close(host, peer);
    }
    assert_int_equal(host->core->stats->tls_errors, sizeof texts / sizeof texts[0]);
    host_expect_silence(host);
    host_close(host);
}

static void a_client_may_go_at_any_byte_of_its_hello(void **state) {
    struct host *host = tls_host(state, DEFAULTS);
    uint8_t hello[1024];
    size_t bytes = hello_of(client13, hello, sizeof hello);
    uint64_t began = 0;
    for (size_t cut = 0; cut <= bytes; cut += cut < 12 ? 1 : 23) {
        struct peer *peer = peer_connect(host);
        peer_send(host, peer, hello, cut);
        host_turns(host, 3);
        if (cut & 1) {
            peer_shutdown(host, peer);
            peer_expect_end(host, peer);
        }
        peer_close(host, peer);
        if (cut) began++;
        host_turns(host, 3);
    }
    for (int i = 0; i < 100 && rw_core_connections(host->core); i++) host_turn(host);
    assert_int_equal(host->core->stats->tls_errors, began);
    host_close(host);
}

/* Every octet of a hello wrong, one after the other: an alert, or the end, or a handshake that goes on; never anything
 * worse. */
static void a_hello_may_be_wrong_at_any_byte(void **state) {
    (void)state;
    struct host *host = host_open_with(RW_BACKEND_SIM, DEFAULTS);
    struct rw_tls_options options = certificate_options(&leaf);
    tls_listen(host, &options);
    uint8_t hello[1024];
    size_t bytes = hello_of(client13, hello, sizeof hello);
    uint64_t tried = 0;
    for (size_t i = 0; i < bytes; i++, tried++) {
        uint32_t p = 0;
        struct peer *peer = peer_connect(host);
        hello[i] ^= 0xFF;
        peer_send(host, peer, hello, bytes);
        hello[i] ^= 0xFF;
        host_turns(host, 3);
        peer_close(host, peer);
        host_turns(host, 3);
        for (p = 0; p < HOST_PEERS_MAX; p++) {
            if (!host->peers[p].closed) continue;
            free(host->peers[p].memory);
            host->peers[p] = (struct peer){0};
        }
    }
    assert_int_equal(host->core->stats->tls_errors, tried);
    assert_int_equal(host->core->stats->tls_handshakes, 0);
    host_expect_silence(host);
    host_close(host);
}

static void a_handshake_has_the_time_of_a_head(void **state) {
    struct host *host = tls_host(state, &(struct rw_core_config){.head_timeout_ms = 5000, .linger_timeout_ms = 500});
    uint8_t hello[1024];
    (void)hello_of(client13, hello, sizeof hello);
    struct peer *slow = peer_connect(host), *silent = peer_connect(host);
    peer_send(host, slow, hello, 40);
    host_pass_time(host, 4000);
    assert_int_equal(rw_core_connections(host->core), 2);
    host_pass_time(host, 3000);
    assert_int_equal(rw_core_connections(host->core), 0);
    assert_int_equal(host->core->stats->timeouts_head, 1);
    assert_int_equal(host->core->stats->timeouts_idle, 1);
    assert_int_equal(host->core->stats->tls_errors, 1);
    peer_pull(host, slow);
    assert_int_equal(slow->in_bytes, 0); /* nothing plain */
    peer_close(host, silent);
    host_close(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EVERY_RING(sessions_are_resumed_from_tickets),
        ON_EVERY_RING(a_client_that_uses_each_ticket_once_is_resumed_every_time),
        ON_SIM(a_session_ends_with_the_certificate_of_its_peer),
        ON_EVERY_RING(a_session_is_resumed_only_where_the_same_certificate_is_shown),
        ON_SIM(a_session_of_one_worker_is_resumed_by_another_and_by_no_other_node),
        ON_EVERY_RING(server_names_choose_the_certificate),
        ON_EVERY_RING(a_handshake_waits_while_the_host_looks_for_a_name),
        ON_EVERY_RING(a_handshake_that_waits_ends_with_its_time_or_its_client),
        ON_EVERY_RING(a_reload_is_for_new_connections_and_a_failed_one_changes_nothing),
        ON_EVERY_RING(connections_outlive_their_listener),
        ON_EVERY_RING(clients_must_show_a_certificate_of_the_ca),
        ON_EVERY_RING(a_session_does_not_get_past_the_client_certificates_of_another_name),
        ON_EVERY_RING(alpn_is_http_1_or_refused),
        ON_SIM(keys_are_agreed_on_over_three_curves_and_no_finite_field),
        ON_EVERY_RING(old_versions_and_a_least_version_are_kept_to),
        ON_EVERY_RING(plain_http_is_told_to_use_https),
        ON_EVERY_RING(what_is_neither_tls_nor_http_gets_an_alert),
        ON_EVERY_RING(a_client_may_go_at_any_byte_of_its_hello),
        ON_SIM(a_hello_may_be_wrong_at_any_byte),
        ON_EVERY_RING(a_handshake_has_the_time_of_a_head),
    };
    return cmocka_run_group_tests_name("the core shakes hands", tests, make_certificates, free_certificates);
}
