/* What the supervisor needs from the kernel and the runtime does not offer: listening sockets, eventfds, CPU affinity,
 * the end of a parent, and word to a service manager.
 *
 * Role: thin, checked wrappers that answer negated errno numbers. Up: bindings (supervisor, worker start). Down:
 * socket(2), eventfd(2), sched_setaffinity(2). Neighbour: node_bus signals eventfds through here. Invariants:
 * descriptors made here are non-blocking and survive exec (workers inherit them by number); nothing that is not a stale
 * socket is ever unlinked. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ringway.h"

#define RW_PORT_UNIX 0xFFFFFFFFu
#define RW_AFFINITY_CPUS_MAX (1u << 20) /* far past any NR_CPUS; bounds the growing set */

union socket_address {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    struct sockaddr_un local;
};

static int set_option(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value) == 0 ? 0 : -errno;
}

static int close_with(int fd, int error) {
    close(fd);
    return error;
}

static int start_listening(int fd, uint32_t backlog) {
    /* listen(2): the kernel caps it at net.core.somaxconn. */
    const int queue = backlog == 0 ? SOMAXCONN : backlog > INT32_MAX ? INT32_MAX : (int)backlog;
    return listen(fd, queue) == 0 ? 0 : -errno;
}

int32_t rw_listen_backlog(int32_t fd, uint32_t backlog) { return start_listening(fd, backlog); }

/* ret: length of the address, or a negated errno */
static int parse_address(const char *host, uint32_t port, union socket_address *out) {
    memset(out, 0, sizeof *out);
    if (port > UINT16_MAX) return -EINVAL;
    const uint16_t net_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, host, &out->in4.sin_addr) == 1) {
        out->in4.sin_family = AF_INET;
        out->in4.sin_port = net_port;
        return (int)sizeof out->in4;
    }
    char literal[INET6_ADDRSTRLEN];
    const char *zone = strchr(host, '%'); /* RFC 4007 §11: a link-local address names its interface */
    const size_t bytes = zone != NULL ? (size_t)(zone - host) : strlen(host);
    if (bytes >= sizeof literal) return -EINVAL;
    memcpy(literal, host, bytes);
    literal[bytes] = '\0';
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET6, literal, &out->in6.sin6_addr) != 1) return -EINVAL;
    if (zone != NULL && (out->in6.sin6_scope_id = if_nametoindex(zone + 1)) == 0) return -ENODEV;
    out->in6.sin6_family = AF_INET6;
    out->in6.sin6_port = net_port;
    return (int)sizeof out->in6;
}

static int32_t listen_tcp(const char *host, uint32_t port, uint32_t backlog, uint32_t flags) {
    union socket_address address;
    const int bytes = parse_address(host, port, &address);
    if (bytes < 0) return bytes;
    const int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    /* SO_REUSEADDR lets us bind over connections in TIME_WAIT; it never lets two sockets listen (socket(7)). Without
     * SO_REUSEPORT on our side bind(2) refuses any listener there is, also one that has it. */
    int error = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (error == 0 && (flags & RW_LISTEN_EXCLUSIVE) == 0) error = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (error == 0 && address.any.sa_family == AF_INET6)
        error = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, (flags & RW_LISTEN_IPV6_ONLY) != 0);
    /* inherited by accepted sockets: one call less for each */
    if (error == 0) error = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (error == 0 && bind(fd, &address.any, (socklen_t)bytes) != 0) error = -errno;
    if (error == 0 && (flags & RW_LISTEN_LATER) == 0) error = start_listening(fd, backlog);
    return error == 0 ? fd : close_with(fd, error);
}

/* Is the file at this path a socket that nobody listens on? */
static int is_stale(const union socket_address *address, socklen_t bytes) {
    struct stat status;
    if (lstat(address->local.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return 0;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return 0;
    /* EAGAIN: alive with a full queue; EACCES, EPROTOTYPE: cannot tell, so not ours to remove (connect(2), unix(7)). */
    const int stale = connect(fd, &address->any, bytes) != 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

/* ret: length of the address of a Unix socket, or a negated errno */
static int unix_address(const char *path, union socket_address *out) {
    memset(out, 0, sizeof *out);
    const size_t length = strlen(path);
    if (length == 0) return -EINVAL;
    if (length >= sizeof out->local.sun_path) return -ENAMETOOLONG;
    out->local.sun_family = AF_UNIX;
    memcpy(out->local.sun_path, path, length);
    const int abstract = path[0] == '@';
    if (abstract) out->local.sun_path[0] = '\0'; /* unix(7): the name is the bytes after it, without a terminator */
    return (int)(offsetof(struct sockaddr_un, sun_path) + length + (abstract ? 0 : 1));
}

static int32_t listen_unix(const char *path, uint32_t backlog, uint32_t flags) {
    union socket_address address;
    const int found = unix_address(path, &address);
    if (found < 0) return found;
    const socklen_t bytes = (socklen_t)found;
    const int abstract = path[0] == '@';
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    int error = bind(fd, &address.any, bytes) == 0 ? 0 : -errno;
    if (error == -EADDRINUSE && !abstract && is_stale(&address, bytes)) {
        const int removed = unlink(path) == 0 || errno == ENOENT;
        error = removed && bind(fd, &address.any, bytes) == 0 ? 0 : -errno;
    }
    if (error == 0 && (flags & RW_LISTEN_LATER) == 0) error = start_listening(fd, backlog);
    return error == 0 ? fd : close_with(fd, error);
}

int32_t rw_listen_socket(const char *host, uint32_t port, uint32_t backlog, uint32_t flags) {
    if (host == NULL) return -EINVAL;
    return port == RW_PORT_UNIX ? listen_unix(host, backlog, flags) : listen_tcp(host, port, backlog, flags);
}

int32_t rw_connect_local(int32_t listening_fd) {
    union socket_address address;
    socklen_t bytes = sizeof address;
    if (getsockname(listening_fd, &address.any, &bytes) != 0) return -errno;
    if (address.any.sa_family != AF_UNIX) return -EAFNOSUPPORT;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    /* unix(7): it is established at once, or refused with EAGAIN when the queue is full. */
    return connect(fd, &address.any, bytes) == 0 ? fd : close_with(fd, -errno);
}

int32_t rw_socket_pair(int32_t fds[2]) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return -errno;
    fds[0] = pair[0];
    fds[1] = pair[1];
    return 0;
}

int32_t rw_socket_port(int32_t fd) {
    union socket_address address;
    socklen_t bytes = sizeof address;
    if (getsockname(fd, &address.any, &bytes) != 0) return -errno;
    if (address.any.sa_family == AF_INET) return ntohs(address.in4.sin_port);
    if (address.any.sa_family == AF_INET6) return ntohs(address.in6.sin6_port);
    return 0;
}

int32_t rw_eventfd_create(void) {
    const int fd = eventfd(0, EFD_NONBLOCK);
    return fd >= 0 ? fd : -errno;
}

void rw_eventfd_signal(int32_t fd) {
    const uint64_t one = 1;
    /* EAGAIN: the counter is at its end, so it is readable already, which is all a signal means. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

int32_t rw_end_with_parent(int32_t signal) {
    return prctl(PR_SET_PDEATHSIG, (unsigned long)signal) == 0 ? RW_OK : -errno;
}

int32_t rw_service_notify(const char *path, const char *text) {
    union socket_address address;
    const int bytes = unix_address(path, &address);
    if (bytes < 0) return bytes;
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    const int error = sendto(fd, text, strlen(text), MSG_NOSIGNAL, &address.any, (socklen_t)bytes) < 0 ? -errno : RW_OK;
    return close_with(fd, error);
}

void rw_fd_close(int32_t fd) {
    if (fd >= 0) close(fd); /* not repeated after EINTR: Linux has closed it (close(2)) */
}

void rw_listen_close(int32_t fd) {
    if (fd < 0) return;
    (void)shutdown(fd, SHUT_RDWR); /* ends listening at once, which the last close(2) of several does not */
    close(fd);
}

/* sched_setaffinity(2) acts on one thread, and a runtime has started some by now. One that begins meanwhile inherits
 * from a thread that is pinned, or is seen by the second pass. */
static int32_t pin_threads(const cpu_set_t *set, size_t set_bytes) {
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) return RW_OK; /* no /proc: the calling thread, the one that counts, is pinned */
    int error = 0;
    for (int pass = 0; pass < 2 && error == 0; pass++) {
        rewinddir(tasks);
        for (struct dirent *entry; error == 0 && (entry = readdir(tasks)) != NULL;) {
            const long thread = strtol(entry->d_name, NULL, 10);
            if (thread > 0 && sched_setaffinity((pid_t)thread, set_bytes, set) != 0 && errno != ESRCH) error = -errno;
        }
    }
    closedir(tasks);
    return error;
}

int32_t rw_affinity_set(uint32_t cpu) {
    if (cpu >= RW_AFFINITY_CPUS_MAX) return -EINVAL;
    cpu_set_t *set = CPU_ALLOC(cpu + 1);
    if (set == NULL) return -ENOMEM;
    const size_t set_bytes = CPU_ALLOC_SIZE(cpu + 1);
    CPU_ZERO_S(set_bytes, set);
    CPU_SET_S(cpu, set_bytes, set);
    int32_t result = sched_setaffinity(0, set_bytes, set) == 0 ? RW_OK : -errno;
    if (result == RW_OK) result = pin_threads(set, set_bytes);
    CPU_FREE(set);
    return result;
}

int32_t rw_affinity_get(uint32_t *out, uint32_t capacity) {
    /* EINVAL: the set is smaller than the kernel's own mask, whose size it does not tell (sched_getaffinity(2)). */
    for (uint32_t cpus = 1024; cpus <= RW_AFFINITY_CPUS_MAX; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (set == NULL) return -ENOMEM;
        const size_t set_bytes = CPU_ALLOC_SIZE(cpus);
        CPU_ZERO_S(set_bytes, set);
        if (sched_getaffinity(0, set_bytes, set) == 0) {
            uint32_t count = 0;
            for (uint32_t cpu = 0; cpu < cpus; cpu++) {
                if (!CPU_ISSET_S(cpu, set_bytes, set)) continue;
                if (count < capacity) out[count] = cpu;
                count++;
            }
            CPU_FREE(set);
            return (int32_t)count;
        }
        const int error = errno;
        CPU_FREE(set);
        if (error != EINVAL) return -error;
    }
    return -EINVAL;
}
