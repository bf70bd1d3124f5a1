/* TLS of listeners: what the host sets up, see tls.h and ringway.h. */
#include "connection/tls.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "connection/listener.h"
#include "node/shm.h"

/* ------------------------------------------------------------------ shared by the connections of a core */

static struct rw_tls_shared *shared_create(const struct rw_core *core) {
    /* No openssl.cnf: a program that brings its own OpenSSL behaves the same on every machine. No atexit(3): the host
     * may unload us before. */
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1) return NULL;
    struct rw_tls_shared *shared = calloc(1, sizeof *shared);
    if (!shared) return NULL;
    shared->bio = rw_tls_bio_create();
    int secret = 1;
    if (core->shm) {
        static_assert(sizeof core->shm->ticket_secret == sizeof shared->ticket_secret,
                      "every worker has the whole secret");
        memcpy(shared->ticket_secret, core->shm->ticket_secret, sizeof shared->ticket_secret);
    } else {
        secret =
            getrandom(shared->ticket_secret, sizeof shared->ticket_secret, 0) == (ssize_t)sizeof shared->ticket_secret;
    }
    if (shared->bio && secret) return shared;
    rw_tls_shared_destroy(shared);
    return NULL;
}

void rw_tls_shared_destroy(struct rw_tls_shared *shared) {
    if (!shared) return;
    if (shared->bio) BIO_meth_free(shared->bio);
    OPENSSL_cleanse(shared->ticket_secret, sizeof shared->ticket_secret);
    free(shared);
}

/* ------------------------------------------------------------------ listeners */

struct rw_tls_listener *rw_tls_listener_retain(struct rw_tls_listener *listener) {
    listener->refs++;
    return listener;
}

void rw_tls_listener_release(struct rw_tls_listener *listener) {
    if (!listener) return;
    assert(listener->refs > 0);
    if (--listener->refs > 0) return;
    rw_tls_context_release(&listener->context);
    rw_tls_names_clear(&listener->names);
    free(listener);
}

static int32_t refuse(char *error, size_t error_bytes, const char *sentence) {
    (void)snprintf(error, error_bytes, "%s", sentence);
    return RW_ERR_INVALID;
}

int32_t rw_core_listener_tls(struct rw_core *core, uint32_t index, const struct rw_tls_options *options, char *error,
                             size_t error_bytes) {
    if (error_bytes) error[0] = 0;
    if (index >= RW_LISTENERS_MAX || !options)
        return refuse(error, error_bytes, "there is no such listener, or no TLS options were given");
    /* What is given now would go with it. */
    if (rw_listener_is_ending(&core->listeners[index]))
        return refuse(error, error_bytes,
                      "the listener is being stopped: use another index, or try again after a turn");
    if (!core->tls) core->tls = shared_create(core);
    if (!core->tls) return refuse(error, error_bytes, "TLS cannot be set up: out of memory or of randomness");
    struct rw_tls_context context;
    int32_t created = rw_tls_context_create(&context, options, error, error_bytes);
    if (created != RW_OK) return created;
    struct rw_tls_listener **at = &core->listeners[index].tls;
    if (*at) {
        /* Handshakes and connections that stand hold a reference on the context they began with. */
        rw_tls_context_release(&(*at)->context);
        (*at)->context = context;
        return RW_OK;
    }
    struct rw_tls_listener *listener = calloc(1, sizeof *listener);
    if (!listener) {
        rw_tls_context_release(&context);
        return refuse(error, error_bytes, "out of memory");
    }
    *listener = (struct rw_tls_listener){.core = core, .refs = 1, .index = index, .context = context};
    *at = listener;
    return RW_OK;
}

int32_t rw_core_server_name(struct rw_core *core, uint32_t index, const char *name, uint32_t context,
                            const struct rw_tls_options *options, char *error, size_t error_bytes) {
    if (error_bytes) error[0] = 0;
    if (index >= RW_LISTENERS_MAX || !core->listeners[index].tls)
        return refuse(error, error_bytes, "the listener does not speak TLS: give it a certificate first");
    if (context > UINT16_MAX) return refuse(error, error_bytes, "the context of a server name must be at most 65535");
    char normal[RW_TLS_NAME_BYTES_MAX + 1];
    if (!name || !rw_tls_name_normalize(normal, (const uint8_t *)name, strlen(name))) {
        (void)snprintf(error, error_bytes, "'%s' is no server name", name ? name : "");
        return RW_ERR_INVALID;
    }
    struct rw_tls_names *names = &core->listeners[index].tls->names;
    if (!options) {
        rw_tls_names_remove(names, normal);
        return RW_OK;
    }
    struct rw_tls_context made;
    int32_t created = rw_tls_context_create(&made, options, error, error_bytes);
    if (created != RW_OK) return created;
    if (rw_tls_names_set(names, normal, (uint16_t)context, &made) == RW_OK) return RW_OK;
    rw_tls_context_release(&made);
    return refuse(error, error_bytes, "out of memory");
}
