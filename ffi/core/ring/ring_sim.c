/* The simulated ring of ring_sim.h.
 *
 * Up: core and tests. Down: memory.
 * Each submit is one pass over the descriptors, in an order drawn from the seed; each armed operation of a descriptor
 * may put completions into the queue that reap empties. Within a descriptor the stream of completions is in order;
 * between descriptors nothing is promised. */
#ifdef RW_TEST

#include "ring/ring_sim.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "ringway.h"

#if defined(__has_feature) /* clang's way to say it; gcc defines __SANITIZE_ADDRESS__ */
#if __has_feature(address_sanitizer)
#define SIM_UNDER_ASAN
#endif
#endif
#if defined(SIM_UNDER_ASAN) || defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

#define STEPS_MAX 3u /* completions of one operation in one pass */
#define POLLS_MAX 8u
#define WAIT_PASSES 16u

/* A growing queue of bytes. */
struct bytes {
    uint8_t *data;
    size_t head, count, capacity;
};

struct operation {
    uint64_t user_data;
    uint8_t armed;
    uint8_t submitted; /* nothing happens before submit */
    uint8_t cancelled;
};

struct virtual_descriptor {
    struct operation read; /* receive, or accept */
    struct operation send;
    struct iovec iov[RW_SEND_IOVECS_MAX];
    uint32_t iov_count;
    uint64_t send_sum;
    struct bytes in, out;
    size_t window;
    int32_t *backlog;
    uint32_t backlog_count, backlog_capacity;
    uint8_t listening, accepted, closed, forgotten, in_end, reset;
    uint8_t has_address, address[16];
};

struct real_poll {
    struct operation operation;
    int32_t fd;
};

struct ring_sim {
    struct rw_ring ring; /* first: the ops cast back */
    struct rw_ring_config config;
    struct rw_sim_faults faults;
    uint64_t random;
    struct virtual_descriptor *descriptors;
    uint32_t descriptor_count, descriptor_capacity;
    struct rw_completion *queue;
    uint32_t queue_head, queue_count, queue_capacity;
    uint32_t completions;
    uint8_t *buffers;
    uint8_t *lent;
    uint32_t borrowed;
    uint8_t asleep;
    struct real_poll polls[POLLS_MAX];
};

static struct ring_sim *sim_of(struct rw_ring *ring) { return (struct ring_sim *)ring; }

static void *must(void *memory) {
    assert(memory != NULL);
    return memory;
}

/* ---------------------------------------------------------------- chance */

/* xorshift64*; the state is never 0 */
static uint64_t random_next(struct ring_sim *self) {
    self->random ^= self->random >> 12;
    self->random ^= self->random << 25;
    self->random ^= self->random >> 27;
    return self->random * UINT64_C(0x2545F4914F6CDD1D);
}

static size_t random_below(struct ring_sim *self, size_t bound) { return (size_t)((random_next(self) >> 16) % bound); }
static int chance(struct ring_sim *self, uint16_t permille) {
    return permille > 0 && random_below(self, 1000) < permille;
}

/* ---------------------------------------------------------------- bytes */

static void bytes_append(struct bytes *bytes, const void *data, size_t count) {
    if (count == 0) return;
    if (bytes->head + bytes->count + count > bytes->capacity) {
        uint8_t *grown = must(malloc((bytes->count + count) * 2));
        if (bytes->count > 0) memcpy(grown, bytes->data + bytes->head, bytes->count);
        free(bytes->data);
        bytes->data = grown;
        bytes->capacity = (bytes->count + count) * 2;
        bytes->head = 0;
    }
    memcpy(bytes->data + bytes->head + bytes->count, data, count);
    bytes->count += count;
}

static void bytes_take(struct bytes *bytes, void *out, size_t count) {
    if (count > 0) memcpy(out, bytes->data + bytes->head, count);
    bytes->count -= count;
    bytes->head = bytes->count == 0 ? 0 : bytes->head + count;
}

/* FNV-1a over all parts: whoever changes or frees a byte that is still being sent is caught. */
static uint64_t parts_sum(const struct iovec *iov, uint32_t count) {
    uint64_t sum = UINT64_C(0xCBF29CE484222325);
    for (uint32_t part = 0; part < count; part++) {
        const uint8_t *bytes = iov[part].iov_base;
        for (size_t i = 0; i < iov[part].iov_len; i++) sum = (sum ^ bytes[i]) * UINT64_C(0x100000001B3);
    }
    return sum;
}

/* ---------------------------------------------------------------- descriptors, queue */

static struct virtual_descriptor *descriptor_at(const struct rw_ring *ring, int32_t fd) {
    const struct ring_sim *self = (const struct ring_sim *)ring;
    assert(fd >= RW_SIM_FD_FIRST && (uint32_t)(fd - RW_SIM_FD_FIRST) < self->descriptor_count);
    return &self->descriptors[fd - RW_SIM_FD_FIRST];
}

static int32_t descriptor_new(struct ring_sim *self) {
    uint32_t index = 0;
    /* the lowest, as in a kernel */
    while (index < self->descriptor_count && !self->descriptors[index].forgotten) index++;
    if (index == self->descriptor_capacity) {
        self->descriptor_capacity = self->descriptor_capacity * 2 + 8;
        self->descriptors = must(realloc(self->descriptors, self->descriptor_capacity * sizeof *self->descriptors));
    }
    if (index == self->descriptor_count) self->descriptor_count += 1;
    self->descriptors[index] = (struct virtual_descriptor){.window = SIZE_MAX};
    return RW_SIM_FD_FIRST + (int32_t)index;
}

static void queue_push(struct ring_sim *self, struct rw_completion completion) {
    if (self->queue_head + self->queue_count == self->queue_capacity) {
        if (self->queue_count > 0)
            memmove(self->queue, self->queue + self->queue_head, self->queue_count * sizeof *self->queue);
        self->queue_head = 0;
        if (self->queue_count * 2 >= self->queue_capacity) {
            self->queue_capacity = self->queue_capacity * 2 + 64;
            self->queue = must(realloc(self->queue, self->queue_capacity * sizeof *self->queue));
        }
    }
    self->queue[self->queue_head + self->queue_count++] = completion;
}

static void operation_end(struct ring_sim *self, struct operation *operation, int32_t result) {
    queue_push(self, (struct rw_completion){.user_data = operation->user_data, .result = result});
    *operation = (struct operation){0};
}

static void operation_begin(struct operation *operation, uint64_t user_data) {
    assert(!operation->armed);
    *operation = (struct operation){.user_data = user_data, .armed = 1};
}

/* ---------------------------------------------------------------- operations */

static int32_t sim_read_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct virtual_descriptor *descriptor = descriptor_at(ring, fd);
    assert(!descriptor->closed);
    operation_begin(&descriptor->read, user_data);
    return RW_OK;
}

static int32_t sim_accept_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    assert(descriptor_at(ring, fd)->listening);
    return sim_read_start(ring, fd, user_data);
}

static int32_t sim_recv_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    assert(descriptor_at(ring, fd)->accepted);
    return sim_read_start(ring, fd, user_data);
}

/* The eventfd is a real one: other parts of the core write to it. */
static int32_t sim_poll_start(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_sim *self = sim_of(ring);
    for (uint32_t i = 0; i < POLLS_MAX; i++) {
        if (self->polls[i].operation.armed) continue;
        self->polls[i].fd = fd;
        operation_begin(&self->polls[i].operation, user_data);
        return RW_OK;
    }
    return RW_ERR_FULL;
}

static size_t parts_bytes(const struct iovec *iov, uint32_t count) {
    size_t total = 0;
    for (uint32_t i = 0; i < count; i++) total += iov[i].iov_len;
    return total;
}

/* The peer gets the first `bytes` of the parts. ret: bytes */
static size_t deliver(struct virtual_descriptor *descriptor, const struct iovec *iov, size_t bytes) {
    size_t left = bytes;
    for (uint32_t i = 0; left > 0; i++) {
        size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;
        bytes_append(&descriptor->out, iov[i].iov_base, part);
        left -= part;
    }
    if (descriptor->window != SIZE_MAX) descriptor->window -= bytes;
    return bytes;
}

static int32_t sim_send(struct rw_ring *ring, int32_t fd, uint64_t user_data, const struct iovec *iov, uint32_t count) {
    struct virtual_descriptor *descriptor = descriptor_at(ring, fd);
    assert(descriptor->accepted && !descriptor->closed);
    assert(count >= 1 && count <= RW_SEND_IOVECS_MAX);
    operation_begin(&descriptor->send, user_data);
    memcpy(descriptor->iov, iov, count * sizeof *iov);
    descriptor->iov_count = count;
    descriptor->send_sum = parts_sum(iov, count);
    return RW_OK;
}

/* Nothing now, or a part: what is left goes through the queue, with its own faults. */
static int64_t sim_send_now(struct rw_ring *ring, int32_t fd, const struct iovec *iov, uint32_t count) {
    struct ring_sim *self = sim_of(ring);
    struct virtual_descriptor *descriptor = descriptor_at(ring, fd);
    assert(descriptor->accepted && !descriptor->closed && !descriptor->send.armed);
    assert(count >= 1 && count <= RW_SEND_IOVECS_MAX);
    if (descriptor->reset) return -EPIPE;
    size_t left = (size_t)parts_bytes(iov, count);
    if (left > descriptor->window) left = descriptor->window;
    if (left == 0 || chance(self, self->faults.delay)) return -EAGAIN;
    if (chance(self, self->faults.send_split)) left = 1 + random_below(self, left);
    return (int64_t)deliver(descriptor, iov, left);
}

static int32_t sim_interrupt_by(struct rw_ring *ring, int32_t fd) {
    (void)ring;
    (void)fd; /* a wait here is a number of passes, and ends by itself */
    return RW_OK;
}

static int32_t sim_cancel(struct rw_ring *ring, int32_t fd, uint64_t user_data) {
    struct ring_sim *self = sim_of(ring);
    for (uint32_t i = 0; i < POLLS_MAX; i++) {
        struct real_poll *real = &self->polls[i];
        if (real->operation.armed && real->fd == fd && real->operation.user_data == user_data)
            real->operation.cancelled = 1;
    }
    if (fd < RW_SIM_FD_FIRST) return RW_OK;
    struct virtual_descriptor *descriptor = descriptor_at(ring, fd);
    if (descriptor->read.armed && descriptor->read.user_data == user_data) descriptor->read.cancelled = 1;
    if (descriptor->send.armed && descriptor->send.user_data == user_data) descriptor->send.cancelled = 1;
    return RW_OK;
}

static void sim_close(struct rw_ring *ring, int32_t fd) {
    if (fd < RW_SIM_FD_FIRST) {
        close(fd);
        return;
    }
    struct virtual_descriptor *descriptor = descriptor_at(ring, fd);
    assert(!descriptor->closed);
    assert(!descriptor->read.armed && !descriptor->send.armed);
    descriptor->closed = 1;
}

static void sim_buffer_return(struct rw_ring *ring, uint32_t id) {
    struct ring_sim *self = sim_of(ring);
    assert(id < self->config.recv_buffers && self->lent[id]);
    self->lent[id] = 0;
    self->borrowed -= 1;
    ASAN_POISON_MEMORY_REGION(self->buffers + (size_t)id * self->config.recv_buffer_bytes,
                              self->config.recv_buffer_bytes);
}

/* ---------------------------------------------------------------- one step of one operation
 * ret: 1 something happened */

static int recv_deliver(struct ring_sim *self, struct virtual_descriptor *descriptor) {
    uint32_t id = 0;
    while (id < self->config.recv_buffers && self->lent[id]) id++;
    if (id == self->config.recv_buffers || chance(self, self->faults.no_buffers)) {
        self->ring.counts.no_buffers += 1;
        operation_end(self, &descriptor->read, -ENOBUFS);
        return 1;
    }
    size_t count =
        descriptor->in.count < self->config.recv_buffer_bytes ? descriptor->in.count : self->config.recv_buffer_bytes;
    if (chance(self, self->faults.recv_split)) count = 1 + random_below(self, count);
    uint8_t *data = self->buffers + (size_t)id * self->config.recv_buffer_bytes;
    ASAN_UNPOISON_MEMORY_REGION(data, count);
    bytes_take(&descriptor->in, data, count);
    self->lent[id] = 1;
    self->borrowed += 1;
    int last = chance(self, self->faults.recv_unarmed);
    queue_push(self, (struct rw_completion){.user_data = descriptor->read.user_data,
                                            .result = (int32_t)count,
                                            .data = data,
                                            .buffer_id = id,
                                            .flags = RW_COMPLETION_BUFFER | (last ? 0 : RW_COMPLETION_MORE)});
    if (last) descriptor->read = (struct operation){0};
    return 1;
}

static int recv_step(struct ring_sim *self, struct virtual_descriptor *descriptor) {
    if (descriptor->read.cancelled && !chance(self, self->faults.late)) {
        operation_end(self, &descriptor->read, -ECANCELED);
    } else if (descriptor->reset) {
        operation_end(self, &descriptor->read, -ECONNRESET);
    } else if (descriptor->in.count > 0) {
        return recv_deliver(self, descriptor);
    } else if (descriptor->in_end) {
        operation_end(self, &descriptor->read, 0);
    } else {
        return 0;
    }
    return 1;
}

static int accept_step(struct ring_sim *self, struct virtual_descriptor *listener) {
    static const int32_t errors[] = {-EMFILE, -ENFILE, -ENOMEM, -ECONNABORTED};
    if (listener->read.cancelled && !chance(self, self->faults.late)) {
        operation_end(self, &listener->read, -ECANCELED);
        return 1;
    }
    if (listener->backlog_count == 0) return 0;
    if (chance(self, self->faults.accept_error)) {
        operation_end(self, &listener->read, errors[random_below(self, sizeof errors / sizeof *errors)]);
        return 1;
    }
    int32_t fd = listener->backlog[0];
    listener->backlog_count -= 1;
    memmove(listener->backlog, listener->backlog + 1, listener->backlog_count * sizeof *listener->backlog);
    descriptor_at(&self->ring, fd)->accepted = 1;
    queue_push(
        self, (struct rw_completion){.user_data = listener->read.user_data, .result = fd, .flags = RW_COMPLETION_MORE});
    return 1;
}

static int send_step(struct ring_sim *self, struct virtual_descriptor *descriptor) {
    assert(parts_sum(descriptor->iov, descriptor->iov_count) == descriptor->send_sum);
    size_t total = parts_bytes(descriptor->iov, descriptor->iov_count);
    if (descriptor->send.cancelled && !chance(self, self->faults.late)) {
        operation_end(self, &descriptor->send, -ECANCELED);
        return 1;
    }
    if (descriptor->reset) {
        operation_end(self, &descriptor->send, -EPIPE);
        return 1;
    }
    if (total > descriptor->window) total = descriptor->window;
    if (total == 0) return 0; /* the peer reads no more for now */
    if (chance(self, self->faults.send_split)) total = 1 + random_below(self, total);
    operation_end(self, &descriptor->send, (int32_t)deliver(descriptor, descriptor->iov, total));
    return 1;
}

static int poll_step(struct ring_sim *self, struct real_poll *real) {
    uint64_t value;
    if (real->operation.cancelled) {
        operation_end(self, &real->operation, -ECANCELED);
        return 1;
    }
    struct pollfd pollfd = {.fd = real->fd, .events = POLLIN};
    if (poll(&pollfd, 1, 0) != 1 || read(real->fd, &value, sizeof value) < 0) return 0;
    queue_push(self, (struct rw_completion){
                         .user_data = real->operation.user_data, .result = POLLIN, .flags = RW_COMPLETION_MORE});
    return 1;
}

/* ---------------------------------------------------------------- submit, reap */

static void descriptor_step(struct ring_sim *self, uint32_t index) {
    struct virtual_descriptor *descriptor = &self->descriptors[index];
    uint32_t steps = self->config.sim_seed == 0 ? UINT32_MAX : 1 + (uint32_t)random_below(self, STEPS_MAX);
    if (descriptor->send.armed && descriptor->send.submitted && !chance(self, self->faults.delay))
        send_step(self, descriptor);
    if (chance(self, self->faults.delay)) return;
    for (uint32_t step = 0; step < steps && descriptor->read.armed && descriptor->read.submitted; step++) {
        if (!(descriptor->listening ? accept_step(self, descriptor) : recv_step(self, descriptor))) return;
    }
}

static void pass(struct ring_sim *self) {
    uint32_t count = self->descriptor_count;
    if (count > 0) {
        /* Any start, either direction. */
        uint32_t start = self->config.sim_seed == 0 ? 0 : (uint32_t)random_below(self, count);
        int backwards = self->config.sim_seed != 0 && chance(self, 500);
        for (uint32_t i = 0; i < count; i++) descriptor_step(self, (start + (backwards ? count - i : i)) % count);
    }
    for (uint32_t i = 0; i < POLLS_MAX; i++) {
        if (self->polls[i].operation.armed && self->polls[i].operation.submitted) poll_step(self, &self->polls[i]);
    }
}

static int32_t sim_submit(struct rw_ring *ring, uint32_t wait_us) {
    struct ring_sim *self = sim_of(ring);
    for (uint32_t i = 0; i < self->descriptor_count; i++)
        self->descriptors[i].read.submitted = self->descriptors[i].send.submitted = 1;
    for (uint32_t i = 0; i < POLLS_MAX; i++) self->polls[i].operation.submitted = 1;
    pass(self);
    /* time passes, here in turns */
    for (uint32_t i = 0; wait_us > 0 && self->queue_count == 0 && i < WAIT_PASSES; i++) pass(self);
    if (self->queue_count > self->completions) self->ring.counts.cq_overflows += 1;
    return RW_OK;
}

static uint32_t sim_reap(struct rw_ring *ring, struct rw_completion *out, uint32_t capacity) {
    struct ring_sim *self = sim_of(ring);
    uint32_t count = self->queue_count < capacity ? self->queue_count : capacity;
    if (count > 0) memcpy(out, self->queue + self->queue_head, count * sizeof *out);
    self->queue_count -= count;
    self->queue_head = self->queue_count == 0 ? 0 : self->queue_head + count;
    return count;
}

static int32_t sim_sleep(struct rw_ring *ring) {
    struct ring_sim *self = sim_of(ring);
    sim_submit(ring, 1);
    self->asleep = self->queue_count == 0;
    return !self->asleep;
}

static void sim_wake(struct rw_ring *ring) { sim_of(ring)->asleep = 0; }

/* ---------------------------------------------------------------- the peers' side */

static void peer_acted(struct rw_ring *ring) {
    struct ring_sim *self = sim_of(ring);
    const uint64_t one = 1;
    if (self->asleep && self->config.wake_fd >= 0) {
        ssize_t written = write(self->config.wake_fd, &one, sizeof one);
        assert(written == sizeof one);
    }
    self->asleep = 0;
}

void rw_sim_faults_set(struct rw_ring *ring, const struct rw_sim_faults *faults) { sim_of(ring)->faults = *faults; }

int32_t rw_sim_listen(struct rw_ring *ring) {
    int32_t fd = descriptor_new(sim_of(ring));
    descriptor_at(ring, fd)->listening = 1;
    return fd;
}

int32_t rw_sim_connect(struct rw_ring *ring, int32_t listener) {
    int32_t fd = descriptor_new(sim_of(ring));
    struct virtual_descriptor *from = descriptor_at(ring, listener);
    assert(from->listening);
    if (from->backlog_count == from->backlog_capacity) {
        from->backlog_capacity = from->backlog_capacity * 2 + 8;
        from->backlog = must(realloc(from->backlog, from->backlog_capacity * sizeof *from->backlog));
    }
    from->backlog[from->backlog_count++] = fd;
    peer_acted(ring);
    return fd;
}

void rw_sim_peer_address(struct rw_ring *ring, int32_t fd, const uint8_t *ip) {
    struct virtual_descriptor *descriptor = descriptor_at(ring, fd);
    descriptor->has_address = 1;
    memcpy(descriptor->address, ip, sizeof descriptor->address);
}

static int32_t sim_peer_address(const struct rw_ring *ring, int32_t fd, struct sockaddr_storage *out) {
    const struct virtual_descriptor *descriptor = descriptor_at(ring, fd);
    if (descriptor->reset) return -ENOTCONN;
    if (!descriptor->has_address) return -EOPNOTSUPP;
    struct sockaddr_in6 *address = (struct sockaddr_in6 *)out;
    *address = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(1024)};
    memcpy(&address->sin6_addr, descriptor->address, sizeof descriptor->address);
    return RW_OK;
}

void rw_sim_push(struct rw_ring *ring, int32_t fd, const void *bytes, size_t count) {
    assert(!descriptor_at(ring, fd)->in_end);
    bytes_append(&descriptor_at(ring, fd)->in, bytes, count);
    peer_acted(ring);
}

void rw_sim_peer_shutdown(struct rw_ring *ring, int32_t fd) {
    descriptor_at(ring, fd)->in_end = 1;
    peer_acted(ring);
}

void rw_sim_peer_reset(struct rw_ring *ring, int32_t fd) {
    descriptor_at(ring, fd)->reset = 1;
    peer_acted(ring);
}

void rw_sim_peer_window(struct rw_ring *ring, int32_t fd, size_t bytes) {
    descriptor_at(ring, fd)->window = bytes;
    peer_acted(ring);
}

size_t rw_sim_take(struct rw_ring *ring, int32_t fd, void *out, size_t capacity) {
    struct bytes *sent = &descriptor_at(ring, fd)->out;
    size_t count = sent->count < capacity ? sent->count : capacity;
    bytes_take(sent, out, count);
    return count;
}

size_t rw_sim_sent(const struct rw_ring *ring, int32_t fd) { return descriptor_at(ring, fd)->out.count; }
int rw_sim_is_closed(const struct rw_ring *ring, int32_t fd) { return descriptor_at(ring, fd)->closed; }
uint32_t rw_sim_borrowed(const struct rw_ring *ring) { return ((const struct ring_sim *)ring)->borrowed; }

static void descriptor_free(struct virtual_descriptor *descriptor) {
    free(descriptor->in.data);
    free(descriptor->out.data);
    free(descriptor->backlog);
    *descriptor = (struct virtual_descriptor){.closed = 1, .forgotten = 1};
}

void rw_sim_forget(struct rw_ring *ring, int32_t fd) {
    assert(rw_sim_is_closed(ring, fd));
    descriptor_free(descriptor_at(ring, fd));
}

uint32_t rw_sim_open_count(const struct rw_ring *ring) {
    const struct ring_sim *self = (const struct ring_sim *)ring;
    uint32_t count = 0;
    for (uint32_t i = 0; i < self->descriptor_count; i++) {
        const struct virtual_descriptor *descriptor = &self->descriptors[i];
        count += (descriptor->listening || descriptor->accepted) && !descriptor->closed;
    }
    return count;
}

/* ---------------------------------------------------------------- creation, destruction */

static void sim_destroy(struct rw_ring *ring) {
    struct ring_sim *self = sim_of(ring);
    for (uint32_t i = 0; i < self->descriptor_count; i++) descriptor_free(&self->descriptors[i]);
    ASAN_UNPOISON_MEMORY_REGION(self->buffers, (size_t)self->config.recv_buffers * self->config.recv_buffer_bytes);
    free(self->descriptors);
    free(self->queue);
    free(self->buffers);
    free(self->lent);
    free(self);
}

static const struct rw_ring_ops sim_ops = {
    .name = "sim",
    .backend = RW_BACKEND_SIM,
    .destroy = sim_destroy,
    .accept_start = sim_accept_start,
    .recv_start = sim_recv_start,
    .poll_start = sim_poll_start,
    .send = sim_send,
    .cancel = sim_cancel,
    .close = sim_close,
    .buffer_return = sim_buffer_return,
    .send_now = sim_send_now,
    .submit = sim_submit,
    .interrupt_by = sim_interrupt_by,
    .reap = sim_reap,
    .sleep = sim_sleep,
    .wake = sim_wake,
    .peer_address = sim_peer_address,
};

struct rw_ring *rw_ring_sim_create(const struct rw_ring_config *config, char *error, size_t error_bytes) {
    if (error_bytes > 0) error[0] = '\0';
    struct ring_sim *self = must(calloc(1, sizeof *self));
    size_t bytes = (size_t)config->recv_buffers * config->recv_buffer_bytes;
    self->ring.ops = &sim_ops;
    self->config = *config;
    self->random = config->sim_seed * UINT64_C(0x9E3779B97F4A7C15) | 1u;
    self->completions = config->completions > 0 ? config->completions : config->entries * 4;
    self->buffers = must(malloc(bytes));
    self->lent = must(calloc(config->recv_buffers, 1));
    ASAN_POISON_MEMORY_REGION(self->buffers, bytes);
    if (config->sim_seed != 0) {
        self->faults = (struct rw_sim_faults){.recv_split = 400,
                                              .send_split = 400,
                                              .delay = 300,
                                              .no_buffers = 30,
                                              .recv_unarmed = 30,
                                              .accept_error = 50,
                                              .late = 500};
    }
    return &self->ring;
}

#else
typedef int rw_ring_sim_is_for_tests; /* ISO C wants a declaration in every file */
#endif
