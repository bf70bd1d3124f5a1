/* Listeners, see listener.h. */
#include "connection/listener.h"

#include <errno.h>

#include "connection/connection.h"
#include "connection/tls.h"

#define RETRY_MS 100u

static uint64_t accept_user_data(const struct rw_core *core, uint32_t index) {
    return rw_user_data(RW_OP_ACCEPT, core->listeners[index].generation, index);
}

static int32_t arm(struct rw_core *core, uint32_t index) {
    struct rw_listener *listener = &core->listeners[index];
    int32_t result = rw_ring_accept_start(core->ring, listener->fd, accept_user_data(core, index));
    if (result == RW_OK) listener->armed = 1;
    return result;
}

int32_t rw_core_listen(struct rw_core *core, int32_t fd, uint32_t index, uint32_t flags) {
    if (index >= RW_LISTENERS_MAX) return RW_ERR_INVALID;
    struct rw_listener *listener = &core->listeners[index];
    if (listener->used) return RW_ERR_FULL;
    /* Its TLS may have been set before. */
    *listener = (struct rw_listener){.fd = fd,
                                     .used = 1,
                                     .flags = flags,
                                     .generation = listener->generation + 1,
                                     .protocols = core->spoken,
                                     .tls = listener->tls};
    int32_t result = arm(core, index);
    if (result != RW_OK) listener->used = 0;
    return result;
}

int32_t rw_core_listener_flags(struct rw_core *core, uint32_t index, uint32_t flags) {
    if (index >= RW_LISTENERS_MAX || !core->listeners[index].used) return RW_ERR_INVALID;
    core->listeners[index].flags = flags;
    return RW_OK;
}

/* `end`: rw_ring_accept_stop where connections that have come are still wanted, else rw_ring_cancel: what it leaves in
 * the queue of a socket that others have too waits for them. */
static void stop(struct rw_core *core, uint32_t index, int32_t (*end)(struct rw_ring *, int32_t, uint64_t)) {
    struct rw_listener *listener = &core->listeners[index];
    if (listener->stopped) return;
    listener->stopped = 1;
    if (listener->armed) (void)end(core->ring, listener->fd, accept_user_data(core, index));
}

static void end_unlistened(struct rw_listener *listener) {
    listener->used = 0;
    listener->fd = -1;
}

int32_t rw_core_unlisten(struct rw_core *core, uint32_t index) {
    if (index >= RW_LISTENERS_MAX) return RW_ERR_INVALID;
    struct rw_listener *listener = &core->listeners[index];
    if (!listener->used || listener->unlistened) return RW_ERR_INVALID;
    listener->unlistened = 1;
    stop(core, index, rw_ring_cancel);
    /* Whoever listens here next may be plain; connections hold their own reference. */
    rw_tls_listener_release(listener->tls);
    listener->tls = NULL;
    if (!listener->armed) end_unlistened(listener);
    return RW_OK;
}

int32_t rw_core_terminate_listener(struct rw_core *core, uint32_t index) {
    if (index >= RW_LISTENERS_MAX) return RW_ERR_INVALID;
    const struct rw_listener *listener = &core->listeners[index];
    uint32_t left = listener->connections;
    int32_t ended = 0;
    for (uint32_t i = 0; i < core->pool.carved && left; i++) {
        struct rw_slot *slot = rw_core_slot(core, i);
        if (slot->state.phase == RW_PHASE_FREE || slot->listener != index || !rw_listener_is_of(core, slot)) continue;
        left--;
        if (slot->state.phase == RW_PHASE_CLOSING) continue;
        slot->state.left_by_host = 1;
        rw_connection_terminate(core, slot);
        ended++;
    }
    return ended;
}

void rw_core_stop_accepting(struct rw_core *core) {
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        if (core->listeners[i].used) stop(core, i, rw_ring_accept_stop);
    }
}

void rw_listeners_cancel(struct rw_core *core) {
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        if (core->listeners[i].used) stop(core, i, rw_ring_cancel);
    }
}

int rw_listeners_armed(const struct rw_core *core) {
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        if (core->listeners[i].armed) return 1;
    }
    return 0;
}

uint32_t rw_listeners_ending(const struct rw_core *core) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        const struct rw_listener *listener = &core->listeners[i];
        count += listener->armed && listener->stopped && !listener->unlistened;
    }
    return count;
}

void rw_listener_retry(struct rw_core *core) {
    core->accept_retry_ms = 0;
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        struct rw_listener *listener = &core->listeners[i];
        if (listener->used && !listener->armed && !listener->stopped && arm(core, i) != RW_OK)
            rw_core_retry_accept(core, core->now_ms + RETRY_MS);
    }
}

static void on_connection(struct rw_core *core, uint32_t index, int32_t fd) {
    if (core->listeners[index].unlistened) {
        /* It was accepted before the cancellation arrived; nobody wants it any more. */
        RW_COUNT(core, refused_aborted, 1);
        rw_ring_close(core->ring, fd);
        return;
    }
    rw_connection_accept(core, index, fd);
}

void rw_listener_on_accept(struct rw_core *core, const struct rw_completion *completion) {
    uint32_t index = rw_user_data_index(completion->user_data);
    struct rw_listener *listener = &core->listeners[index];
    /* The index is not used again before the last completion of its accept. */
    assert((listener->generation & 0xFFFFFFu) == rw_user_data_generation(completion->user_data) && listener->armed);
    int rest = 0;
    switch (completion->result) {
        case -EMFILE:
        case -ENFILE:
            RW_COUNT(core, refused_descriptors, 1);
            rest = 1;
            break;
        case -ENOMEM:
        case -ENOBUFS:
            RW_COUNT(core, refused_memory, 1);
            rest = 1;
            break;
        case -ECONNABORTED:
        case -EPROTO: RW_COUNT(core, refused_aborted, 1); break;
        default:
            if (completion->result >= 0) {
                on_connection(core, index, completion->result);
            } else if (completion->result != -ECANCELED && completion->result != -EINTR) {
                rest = 1;
            }
    }
    if (completion->flags & RW_COMPLETION_MORE) return;
    listener->armed = 0;
    if (listener->unlistened) end_unlistened(listener);
    if (listener->stopped) return;
    if (rest || arm(core, index) != RW_OK) rw_core_retry_accept(core, core->now_ms + RETRY_MS);
}
