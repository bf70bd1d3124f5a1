/* Creation of a ring on io_uring: what the kernel must have, what is done without, and why it does not work here.
 *
 * Up: ring. Down: the kernel, through liburing; hands over to ring_uring once everything is proven. Invariant: whatever
 * is missing is found here, at start, and said in a sentence that names the likely cause; nothing is found missing
 * later. */
#include "ring/ring_uring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ringway.h"

#define RECV_BUFFERS_FIRST 64u

#ifdef RW_TEST
/* Fault injection: setup flags that the kernel is made to refuse, to walk down the ladder below on a new kernel. */
extern uint32_t rw_ring_uring_test_refused_flags;
uint32_t rw_ring_uring_test_refused_flags;
#endif

static int32_t kernel_switch(void) {
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char digit = '0';
    ssize_t got = read(fd, &digit, 1);
    close(fd);
    return got == 1 ? digit - '0' : 0;
}

static void setup_explain(int result, char *error, size_t error_bytes) {
    switch (-result) {
        case ENOSYS:
            snprintf(error, error_bytes,
                     "io_uring: this kernel has none, or a seccomp profile hides it (ENOSYS); Linux 6.1 or later is "
                     "needed, and a profile that allows io_uring");
            break;
        case EPERM:
        case EACCES:
            if (kernel_switch() > 0) {
                snprintf(error, error_bytes, "io_uring: forbidden by sysctl kernel.io_uring_disabled=%d (%s)",
                         kernel_switch(), strerror(-result));
            } else {
                snprintf(error, error_bytes,
                         "io_uring: forbidden (%s), most likely by a seccomp profile; Docker's default one blocks it: "
                         "allow io_uring_setup, io_uring_enter and io_uring_register",
                         strerror(-result));
            }
            break;
        case ENOMEM:
            snprintf(error, error_bytes,
                     "io_uring: no memory for the queues (ENOMEM); raise RLIMIT_MEMLOCK (ulimit -l) or the container's "
                     "memory limit");
            break;
        case EINVAL:
            snprintf(error, error_bytes,
                     "io_uring: the kernel refuses the set-up (EINVAL): it is older than Linux 6.0, or the options "
                     "(entries, sqpollCpu) are wrong");
            break;
        case EMFILE:
        case ENFILE:
            snprintf(error, error_bytes,
                     "io_uring: no descriptor left for the ring (%s); raise RLIMIT_NOFILE (ulimit -n)",
                     strerror(-result));
            break;
        default: snprintf(error, error_bytes, "io_uring: set-up failed: %s", strerror(-result));
    }
}

static int setup_try(struct ring_uring *self, const struct rw_ring_config *config, uint32_t flags) {
    struct io_uring_params params = {
        .flags = flags,
        .cq_entries = config->completions > 0 ? config->completions : config->entries * 4,
        .sq_thread_cpu = config->sqpoll_cpu >= 0 ? (uint32_t)config->sqpoll_cpu : 0,
        .sq_thread_idle = config->sqpoll_idle_ms,
    };
#ifdef RW_TEST
    if (flags & rw_ring_uring_test_refused_flags) return -EINVAL;
#endif
    int result = io_uring_queue_init_params(config->entries, &self->uring, &params);
    if (result == 0) self->setup_flags = flags;
    return result;
}

/* Best first; the next when the kernel does not know a flag. DEFER_TASKRUN (6.1) completes in batches and only when
 * asked; COOP_TASKRUN (5.19) at least never interrupts us. SQPOLL excludes both: its thread does the work. */
static int setup(struct ring_uring *self, const struct rw_ring_config *config) {
    uint32_t base = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL;
    uint32_t sqpoll = base | IORING_SETUP_SQPOLL | (config->sqpoll_cpu >= 0 ? IORING_SETUP_SQ_AFF : 0);
    const uint32_t own[] = {base | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_DEFER_TASKRUN,
                            base | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_COOP_TASKRUN,
                            base};
    const uint32_t polled[] = {sqpoll | IORING_SETUP_SINGLE_ISSUER, sqpoll};
    const uint32_t *ladder = config->sqpoll ? polled : own;
    size_t steps = config->sqpoll ? sizeof polled / sizeof *polled : sizeof own / sizeof *own;
    int result = -EINVAL;
    for (size_t i = 0; i < steps && result == -EINVAL; i++) result = setup_try(self, config, ladder[i]);
    return result;
}

static int features_check(struct ring_uring *self, char *error, size_t error_bytes) {
    static const int needed[] = {IORING_OP_ACCEPT,  IORING_OP_RECV,     IORING_OP_SEND,
                                 IORING_OP_SENDMSG, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};
    const uint32_t features = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG |
                              IORING_FEAT_CQE_SKIP | IORING_FEAT_FAST_POLL;
    int ok = (self->uring.features & features) == features;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&self->uring);
    for (size_t i = 0; ok && i < sizeof needed / sizeof *needed; i++)
        ok = probe != NULL && io_uring_opcode_supported(probe, needed[i]);
    if (probe != NULL) io_uring_free_probe(probe);
    if (!ok)
        snprintf(error, error_bytes,
                 "io_uring: this kernel lacks operations that are needed; Linux 6.1 or later has them");
    return ok;
}

static void *map_anonymous(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int buffers_setup(struct ring_uring *self, const struct rw_ring_config *config, char *error,
                         size_t error_bytes) {
    self->buffer_count = config->recv_buffers;
    self->buffer_bytes = config->recv_buffer_bytes;
    self->offers_bytes = config->recv_buffers * sizeof(struct io_uring_buf);
    self->headers_bytes = self->uring.sq.ring_entries * sizeof(struct send_header);
    self->offers = map_anonymous(self->offers_bytes);
    self->buffers = map_anonymous((size_t)self->buffer_count * self->buffer_bytes);
    self->headers = map_anonymous(self->headers_bytes);
    self->lent = calloc(1, (self->buffer_count + 7) / 8);
    if (self->offers == NULL || self->buffers == NULL || self->headers == NULL || self->lent == NULL) {
        snprintf(error, error_bytes, "io_uring: no memory for %u receive buffers of %u bytes", self->buffer_count,
                 self->buffer_bytes);
        return 0;
    }
    struct io_uring_buf_reg registration = {.ring_addr = (uint64_t)(uintptr_t)self->offers,
                                            .ring_entries = self->buffer_count,
                                            .bgid = RW_URING_RECV_GROUP};
    int result = io_uring_register_buf_ring(&self->uring, &registration, 0);
    if (result < 0) {
        snprintf(error, error_bytes,
                 "io_uring: provided-buffer rings do not work here (%s); Linux 6.1 or later has them",
                 strerror(-result));
        return 0;
    }
    io_uring_buf_ring_init(self->offers);
    rw_uring_buffers_offer(self, RECV_BUFFERS_FIRST < self->buffer_count ? RECV_BUFFERS_FIRST : self->buffer_count);
    return 1;
}

/* One byte through a socket pair: only that shows that multishot receive and the buffer ring work together (6.0), which
 * no probe tells. Kernels that have it also have multishot accept (5.19). ret: 1 it works */
static int recv_check(struct ring_uring *self, char *error, size_t error_bytes) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        snprintf(error, error_bytes, "io_uring: no descriptors for its self-test: %s", strerror(errno));
        return 0;
    }
    struct rw_ring *ring = &self->ring;
    int works = 0, armed = 1, sent = write(pair[1], "?", 1) == 1;
    rw_ring_recv_start(ring, pair[0], 1);
    /* 2 s at most; one turn, and one more for the end, when all is well */
    for (int turn = 0; armed && sent && turn < 20; turn++) {
        struct rw_completion completion;
        rw_ring_submit(ring, 100000);
        while (rw_ring_reap(ring, &completion, 1) == 1) {
            if (completion.flags & RW_COMPLETION_BUFFER) {
                works = completion.result == 1 && completion.data[0] == '?' && (completion.flags & RW_COMPLETION_MORE);
                rw_ring_buffer_return(ring, completion.buffer_id);
                shutdown(pair[1], SHUT_WR); /* the end of stream ends the operation */
            }
            if (!(completion.flags & RW_COMPLETION_MORE)) armed = 0;
        }
    }
    close(pair[0]);
    close(pair[1]);
    if (!works || armed)
        snprintf(error, error_bytes,
                 "io_uring: multishot receive does not work on this kernel; Linux 6.1 or later has it");
    return works && !armed;
}

static int eventfd_setup(struct ring_uring *self, int32_t wake_fd, char *error, size_t error_bytes) {
    if (wake_fd < 0) return 1;
    int result = self->uring.cq.kflags == NULL ? -EOPNOTSUPP : io_uring_cq_eventfd_toggle(&self->uring, false);
    if (result == 0) result = io_uring_register_eventfd(&self->uring, wake_fd);
    if (result < 0) {
        snprintf(error, error_bytes, "io_uring: the wake-up eventfd cannot be registered: %s", strerror(-result));
        return 0;
    }
    self->has_eventfd = 1;
    self->wake_fd = wake_fd;
    return 1;
}

struct rw_ring *rw_ring_uring_create(const struct rw_ring_config *config, char *error, size_t error_bytes) {
    assert(config->recv_buffers > 0 && config->recv_buffers <= 32768 &&
           (config->recv_buffers & (config->recv_buffers - 1)) == 0);
    if (error_bytes > 0) error[0] = '\0';
    struct ring_uring *self = calloc(1, sizeof *self);
    if (self == NULL) {
        snprintf(error, error_bytes, "io_uring: no memory");
        return NULL;
    }
    self->ring.ops = &rw_uring_ops;
    self->polled_fd = -1;
    self->interrupt_fd = -1;
    int result = setup(self, config);
    if (result < 0) {
        setup_explain(result, error, error_bytes);
        free(self);
        return NULL;
    }
    io_uring_register_ring_fd(&self->uring); /* saves the descriptor look-up of each enter(2); works without */
    if (!features_check(self, error, error_bytes) || !buffers_setup(self, config, error, error_bytes) ||
        !recv_check(self, error, error_bytes) || !eventfd_setup(self, config->wake_fd, error, error_bytes)) {
        rw_ring_destroy(&self->ring);
        return NULL;
    }
    self->ring.counts = (struct rw_ring_counts){0};
    return &self->ring;
}
