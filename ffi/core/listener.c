/* Listeners, see listener.h. */
#include "listener.h"

#include <errno.h>

#include "connection.h"

#define RETRY_MS 100u

static int32_t arm(struct rw_core *core, uint32_t index) {
    struct rw_listener *listener = &core->listeners[index];
    int32_t result = rw_ring_accept_start(core->ring, listener->fd, rw_user_data(RW_OP_ACCEPT, 0, index));
    if (result == RW_OK) listener->armed = 1;
    return result;
}

int32_t rw_core_listen(struct rw_core *core, int32_t fd, uint32_t index) {
    if (index >= RW_LISTENERS_MAX || core->listeners[index].used) return RW_ERR_INVALID;
    core->listeners[index] = (struct rw_listener){.fd = fd, .used = 1};
    return arm(core, index);
}

void rw_core_stop_accepting(struct rw_core *core) {
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        struct rw_listener *listener = &core->listeners[i];
        if (!listener->used || listener->stopped) continue;
        listener->stopped = 1;
        if (listener->armed) (void)rw_ring_cancel(core->ring, listener->fd, rw_user_data(RW_OP_ACCEPT, 0, i));
    }
}

int rw_listeners_armed(const struct rw_core *core) {
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        if (core->listeners[i].armed) return 1;
    }
    return 0;
}

void rw_listener_retry(struct rw_core *core) {
    core->accept_retry_ms = 0;
    for (uint32_t i = 0; i < RW_LISTENERS_MAX; i++) {
        struct rw_listener *listener = &core->listeners[i];
        if (listener->used && !listener->armed && !listener->stopped && arm(core, i) != RW_OK) core->accept_retry_ms = core->now_ms + RETRY_MS;
    }
}

void rw_listener_on_accept(struct rw_core *core, const struct rw_completion *completion) {
    uint32_t index = rw_user_data_index(completion->user_data);
    struct rw_listener *listener = &core->listeners[index];
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
        case -EPROTO:
            RW_COUNT(core, refused_aborted, 1);
            break;
        default:
            if (completion->result >= 0) {
                rw_connection_accept(core, index, completion->result);
            } else if (completion->result != -ECANCELED && completion->result != -EINTR) {
                rest = 1;
            }
    }
    if (completion->flags & RW_COMPLETION_MORE) return;
    listener->armed = 0;
    if (listener->stopped) return;
    if (rest || arm(core, index) != RW_OK) core->accept_retry_ms = core->now_ms + RETRY_MS;
}
