/* TLS, handshake and receiving side, see tls.h. */
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection/connection.h"
#include "connection/event_batch.h"
#include "connection/tls.h"
#include "connection/unfinished.h"
#include "connection/work.h"

/* ------------------------------------------------------------------ begin and end */

int32_t rw_tls_accept(struct rw_slot *slot, const struct rw_listener *listener) {
    struct rw_tls *tls = calloc(1, sizeof *tls);
    if (!tls) return -ENOMEM;
    tls->listener = rw_tls_listener_retain(listener->tls);
    tls->spoken = listener->protocols;
    tls->protocol = listener->protocols.items[0];
    slot->tls = tls;
    return RW_OK;
}

static void count_failure(struct rw_core *core, struct rw_tls *tls) {
    if (!tls->counted) RW_COUNT(core, tls_errors, 1);
    tls->counted = 1;
}

void rw_tls_release(struct rw_core *core, struct rw_slot *slot) {
    struct rw_tls *tls = slot->tls;
    if (!tls) return;
    /* Whoever ended it: a handshake that began and did not succeed has failed. */
    if (rw_tls_is_shaking_hands(tls)) count_failure(core, tls);
    SSL_free(tls->ssl);
    free(tls->name);
    rw_tls_bytes_release(core, &tls->sending);
    rw_tls_bytes_release(core, &tls->waiting);
    rw_tls_listener_release(tls->listener);
    free(tls);
    slot->tls = NULL;
}

/* RFC 8446 §6.2: fatal, unexpected_message. */
static const uint8_t unexpected_message[] = {SSL3_RT_ALERT, 3, 3, 0, 2, SSL3_AL_FATAL, SSL_AD_UNEXPECTED_MESSAGE};

/* A broken handshake or record: what OpenSSL has put into `waiting`, an alert, still goes out. */
static void fail(struct rw_core *core, struct rw_slot *slot) {
    struct rw_tls *tls = slot->tls;
    count_failure(core, tls);
    /* It has no word for a first record that is none. */
    if (tls->ssl && !rw_tls_has_output(tls) && SSL_get_state(tls->ssl) == TLS_ST_BEFORE)
        (void)BIO_write(SSL_get_wbio(tls->ssl), unexpected_message, sizeof unexpected_message);
    slot->tls->phase = RW_TLS_FAILED;
    ERR_clear_error();
    rw_connection_fail(core, slot);
}

/* ------------------------------------------------------------------ the first bytes */

/* Does this begin an HTTP request? ret: 1 yes, 0 not known yet, -1 no */
static int is_plain_http(const uint8_t *bytes, uint32_t len) {
    static const char *const methods[] = {"GET ",     "HEAD ",    "POST ",  "PUT ",  "DELETE ",
                                          "CONNECT ", "OPTIONS ", "TRACE ", "PATCH "};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        size_t method_bytes = strlen(methods[i]);
        if (memcmp(bytes, methods[i], len < method_bytes ? len : method_bytes) == 0) return len >= method_bytes;
    }
    return -1;
}

/* There was no handshake that could have failed, and there will be none. */
static void answer_in_plain(struct rw_core *core, struct rw_slot *slot, const void *answer, uint32_t bytes) {
    slot->tls->begun = 0;
    rw_tls_release(core, slot);
    uint8_t *out = rw_outbox_reserve(&core->outbox, slot, bytes);
    if (!out) {
        rw_connection_terminate(core, slot);
        return;
    }
    memcpy(out, answer, bytes);
    rw_connection_finish(core, slot);
}

static void answer_plain_http(struct rw_core *core, struct rw_slot *slot) {
    static const char body[] = "This port speaks TLS: use https, or wss for a WebSocket.\n";
    char answer[512];
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: "
                          "close\r\nDate: %s\r\n\r\n%s",
                          sizeof body - 1, core->date, body);
    assert(length > 0 && (size_t)length < sizeof answer);
    RW_COUNT(core, tls_plain, 1);
    RW_COUNT(core, http_errors, 1);
    RW_COUNT(core, responses_4xx, 1);
    answer_in_plain(core, slot, answer, (uint32_t)length);
}

static int begin_handshake(struct rw_core *core, struct rw_tls *tls) {
    tls->ssl = SSL_new(tls->listener->context.ssl);
    BIO *bio = tls->ssl ? BIO_new(core->tls->bio) : NULL;
    if (!bio || !SSL_set_app_data(tls->ssl, tls)) {
        BIO_free(bio);
        return 0;
    }
    BIO_set_data(bio, tls);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_accept_state(tls->ssl);
    tls->phase = RW_TLS_HANDSHAKE;
    return 1;
}

/* ret: 1 a handshake has begun, 0 not yet, or the slot has ended */
static int on_first_bytes(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, uint32_t len) {
    slot->tls->begun = 1;
    if (bytes[0] == SSL3_RT_HANDSHAKE) { /* RFC 8446 §5.1 */
        if (begin_handshake(core, slot->tls)) return 1;
        fail(core, slot);
        return 0;
    }
    switch (is_plain_http(bytes, len)) {
        case 1: answer_plain_http(core, slot); break;
        case 0: (void)rw_connection_stash(core, slot, bytes, len); break;
        default:
            count_failure(core, slot->tls);
            answer_in_plain(core, slot, unexpected_message, sizeof unexpected_message);
            break;
    }
    return 0;
}

/* ------------------------------------------------------------------ server names */

/* The host name of the extension (RFC 6066 §3): list length, then type 0, length, name. ret: its length, 0: none */
static uint32_t server_name_of(SSL *ssl, char *out) {
    const unsigned char *bytes;
    size_t len;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &len) || len < 5) return 0;
    size_t name_bytes = (size_t)bytes[3] << 8 | bytes[4];
    if (bytes[2] != TLSEXT_NAMETYPE_host_name || name_bytes > len - 5) return 0;
    /* A wildcard is the host's to give. */
    if (name_bytes && bytes[5] == '*') return 0;
    return rw_tls_name_normalize(out, bytes + 5, name_bytes);
}

static int asks_the_host(const struct rw_tls *tls) {
    const struct rw_tls_listener *listener = tls->listener;
    const struct rw_listener *now = &listener->core->listeners[listener->index];
    /* The listener may be gone by now, and its index be another's. */
    return !tls->asked && now->tls == listener && (now->flags & RW_LISTENER_WANTS_SERVER_NAME);
}

int rw_tls_on_client_hello(SSL *ssl, int *alert, void *arg) {
    (void)arg;
    struct rw_tls *tls = SSL_get_app_data(ssl);
    struct rw_tls_shared *shared = tls->listener->core->tls;
    const struct rw_tls_name *found = NULL;
    free(tls->name);
    tls->name = NULL;
    int named = server_name_of(ssl, shared->name) != 0;
    if (named) {
        found = rw_tls_names_find(&tls->listener->names, shared->name);
        if (!found && asks_the_host(tls)) return SSL_CLIENT_HELLO_RETRY;
        tls->name = strdup(shared->name);
    }
    /* A second hello (RFC 8446 §4.1.2) that names another server, or none, takes back what the first has chosen. */
    const struct rw_tls_context *chosen = found                 ? &found->context
                                          : tls->server_context ? &tls->listener->context
                                                                : NULL;
    tls->server_context = found ? found->number : 0;
    if ((!named || tls->name) && (!chosen || rw_tls_context_use(chosen, ssl))) return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

/* The handshake waits for the host. What has come behind the hello is kept. */
static void ask_host(struct rw_core *core, struct rw_slot *slot) {
    struct rw_tls *tls = slot->tls;
    uint32_t name_bytes = (uint32_t)strlen(core->tls->name);
    uint8_t *payload;
    struct rw_event *event = rw_event_add(core, slot, RW_EVENT_SERVER_NAME, name_bytes, &payload);
    if (!event) {
        /* OpenSSL looks at the hello again, and so gets here again. */
        rw_connection_mark_ready(core, slot);
        return;
    }
    memcpy(payload, core->tls->name, name_bytes);
    event->arg0 = slot->listener;
    tls->asked = 1;
    tls->phase = RW_TLS_ASKING;
}

int32_t rw_tls_answer_name(struct rw_core *core, struct rw_slot *slot) {
    if (!slot->tls || slot->tls->phase != RW_TLS_ASKING) return RW_ERR_STALE;
    slot->tls->phase = RW_TLS_HANDSHAKE;
    /* Not now: what a handshake has to tell the host must not go into the batch that this command came with. */
    rw_connection_mark_ready(core, slot);
    return RW_OK;
}

/* ------------------------------------------------------------------ handshake and records */

static void on_open(struct rw_core *core, struct rw_slot *slot) {
    struct rw_tls *tls = slot->tls;
    tls->phase = RW_TLS_OPEN;
    slot->server_context = tls->server_context;
    RW_COUNT(core, tls_handshakes, 1);
    if (SSL_session_reused(tls->ssl)) RW_COUNT(core, tls_resumptions, 1);
    slot->deadline_ms = core->now_ms + core->limits.head_timeout_ms;
    rw_connection_arm_timer(core, slot, slot->deadline_ms);
    rw_connection_speak(core, slot, tls->protocol);
}

/* ret: 1 the connection is open, 0 more is needed, or it has failed */
static int shake_hands(struct rw_core *core, struct rw_slot *slot) {
    struct rw_tls *tls = slot->tls;
    rw_work_charge(core, RW_WORK_HANDSHAKE);
    int result = SSL_do_handshake(tls->ssl);
    if (result == 1) {
        on_open(core, slot);
        return 1;
    }
    switch (SSL_get_error(tls->ssl, result)) {
        case SSL_ERROR_WANT_READ: break;
        case SSL_ERROR_WANT_CLIENT_HELLO_CB: ask_host(core, slot); break;
        default: fail(core, slot); break;
    }
    return 0;
}

static void on_read_stopped(struct rw_core *core, struct rw_slot *slot, int error) {
    switch (error) {
        case SSL_ERROR_WANT_READ: break;
        case SSL_ERROR_ZERO_RETURN: rw_connection_on_end_of_stream(core, slot); break;
        default: fail(core, slot); break;
    }
}

/* Whether another read can find anything: one that finds nothing costs a good part of what a record costs. */
static int has_more(const struct rw_tls *tls) { return tls->in_bytes > 0 || SSL_has_pending(tls->ssl); }

/* All records at hand become plain bytes, as many at a time as the protocol can be given in one piece. */
static void read_records(struct rw_core *core, struct rw_slot *slot) {
    struct rw_tls_shared *shared = core->tls;
    int result = 1;
    while (result > 0) {
        uint32_t plain = 0;
        do {
            result = SSL_read(slot->tls->ssl, shared->received + plain, (int)(sizeof shared->received - plain));
            if (result > 0) plain += (uint32_t)result;
        } while (result > 0 && has_more(slot->tls) && sizeof shared->received - plain >= RW_TLS_RECORD_BYTES);
        /* Asked at once: it is about the latest call of OpenSSL. */
        int error = result > 0 ? SSL_ERROR_NONE : SSL_get_error(slot->tls->ssl, result);
        if (plain) rw_connection_on_plain(core, slot, shared->received, plain);
        if (slot->state.phase != RW_PHASE_OPEN) return;
        if (error != SSL_ERROR_NONE) on_read_stopped(core, slot, error);
        if (result > 0 && !has_more(slot->tls)) return;
    }
}

static void keep_for_later(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, uint32_t len) {
    if (slot->input_bytes + len > RW_TLS_KEPT_BYTES_MAX) {
        fail(core, slot);
    } else {
        (void)rw_connection_stash(core, slot, bytes, len);
    }
}

/* Ciphertext for a slot whose input buffer is empty. */
static void take(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, uint32_t len) {
    struct rw_tls *tls = slot->tls;
    if (tls->phase == RW_TLS_HELLO && (len == 0 || !on_first_bytes(core, slot, bytes, len))) return;
    /* SSL_get_error(3) wants the queue empty; emptying it costs more than asking, and it nearly always is. */
    if (ERR_peek_error()) ERR_clear_error();
    tls->in = bytes;
    tls->in_bytes = len;
    if (tls->phase == RW_TLS_OPEN || (tls->phase == RW_TLS_HANDSHAKE && shake_hands(core, slot)))
        read_records(core, slot);
    uint32_t left = tls->in_bytes;
    tls->in = NULL;
    tls->in_bytes = 0;
    if (slot->state.phase == RW_PHASE_OPEN && tls->phase <= RW_TLS_ASKING && left)
        keep_for_later(core, slot, bytes + len - left, left);
    if (rw_tls_has_output(tls)) rw_connection_mark_dirty(core, slot);
}

/* What was kept of a handshake, given to OpenSSL: from then on the input buffer is the protocol's, for plain bytes. */
static void take_kept(struct rw_core *core, struct rw_slot *slot) {
    rw_buffer kept = slot->input;
    const uint8_t *bytes = kept ? rw_connection_input(core, slot) : NULL;
    uint32_t len = slot->input_bytes;
    if (kept) rw_unfinished_remove_buffer(core, kept);
    slot->input = RW_BUFFER_NONE;
    slot->input_offset = slot->input_bytes = 0;
    core->kept_bytes -= len;
    take(core, slot, bytes, len);
    if (kept) rw_buffers_release(core->buffers, kept);
}

void rw_tls_input(struct rw_core *core, struct rw_slot *slot, const uint8_t *bytes, uint32_t len) {
    struct rw_tls *tls = slot->tls;
    if (tls->phase == RW_TLS_ASKING) {
        keep_for_later(core, slot, bytes, len);
    } else if (tls->phase < RW_TLS_OPEN && (slot->state.ready || rw_work_is_over(core))) {
        if (rw_connection_stash(core, slot, bytes, len) == RW_OK) rw_connection_mark_ready(core, slot);
    } else if (tls->phase < RW_TLS_OPEN && slot->input_bytes) {
        if (rw_connection_stash(core, slot, bytes, len) == RW_OK) take_kept(core, slot);
    } else {
        take(core, slot, bytes, len);
    }
}

void rw_tls_serve(struct rw_core *core, struct rw_slot *slot) {
    if (slot->tls->phase == RW_TLS_HANDSHAKE || (slot->tls->phase == RW_TLS_HELLO && slot->input_bytes))
        take_kept(core, slot);
}
