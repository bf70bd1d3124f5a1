/* Listening sockets, eventfds and CPU affinity, against the kernel itself. Loopback addresses only. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ringway.h"

#define UNIX_PORT 0xFFFFFFFFu

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t bytes = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &bytes), 0);
    return value;
}

static int has_ipv6(void) {
    const int32_t fd = rw_listen_socket("::1", 0, 16, RW_LISTEN_IPV6_ONLY);
    rw_fd_close(fd);
    return fd >= 0;
}

static int connect_ipv4(uint32_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static int accept_soon(int32_t listener) {
    for (;;) { /* a loopback connection is queued before connect returns; only its hand-over may be pending */
        const int fd = accept(listener, NULL, NULL);
        if (fd >= 0 || errno != EAGAIN) return fd;
        sched_yield();
    }
}

static void test_a_tcp_listener_has_the_options_promised(void **state) {
    (void)state;
    const int32_t fd = rw_listen_socket("127.0.0.1", 0, 0, 0);
    assert_true(fd >= 0);
    assert_true(rw_socket_port(fd) > 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_int_equal(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
    assert_int_equal(option(fd, SOL_SOCKET, SO_REUSEPORT), 1);
    assert_int_equal(option(fd, SOL_SOCKET, SO_REUSEADDR), 1);
    const int client = connect_ipv4((uint32_t)rw_socket_port(fd));
    assert_true(client >= 0);
    const int accepted = accept_soon(fd);
    assert_true(accepted >= 0);
    assert_int_equal(option(accepted, IPPROTO_TCP, TCP_NODELAY), 1);
    close(accepted);
    close(client);
    rw_fd_close(fd);
}

static void test_workers_share_a_port_and_an_exclusive_listener_does_not(void **state) {
    (void)state;
    const int32_t first = rw_listen_socket("127.0.0.1", 0, 16, 0);
    const uint32_t port = (uint32_t)rw_socket_port(first);
    const int32_t second = rw_listen_socket("127.0.0.1", port, 16, 0);
    assert_true(second >= 0);
    assert_int_equal(rw_socket_port(second), (int32_t)port);
    assert_int_equal(rw_listen_socket("127.0.0.1", port, 16, RW_LISTEN_EXCLUSIVE), -EADDRINUSE);
    assert_int_equal(rw_listen_socket("0.0.0.0", port, 16, RW_LISTEN_EXCLUSIVE), -EADDRINUSE);
    rw_fd_close(first);
    rw_fd_close(second);
    const int32_t alone = rw_listen_socket("127.0.0.1", 0, 16, RW_LISTEN_EXCLUSIVE);
    assert_true(alone >= 0);
    assert_int_equal(option(alone, SOL_SOCKET, SO_REUSEPORT), 0);
    assert_int_equal(rw_listen_socket("127.0.0.1", (uint32_t)rw_socket_port(alone), 16, 0), -EADDRINUSE);
    rw_fd_close(alone);
}

static void test_an_address_can_be_taken_before_anybody_may_connect(void **state) {
    (void)state;
    const int32_t fd = rw_listen_socket("127.0.0.1", 0, 16, RW_LISTEN_LATER);
    const uint32_t port = (uint32_t)rw_socket_port(fd);
    assert_true(port > 0);
    assert_int_equal(connect_ipv4(port), -1);
    assert_int_equal(errno, ECONNREFUSED);
    const int32_t other = rw_listen_socket("127.0.0.1", port, 16, 0);
    assert_true(other >= 0); /* all that listens on the port so far */
    for (uint32_t i = 0; i < 32; i++) {
        const int client = connect_ipv4(port);
        assert_true(client >= 0);
        close(accept_soon(other));
        close(client);
    }
    rw_fd_close(other);
    assert_int_equal(rw_listen_backlog(fd, 16), RW_OK);
    const int client = connect_ipv4(port);
    assert_true(client >= 0);
    close(accept_soon(fd));
    close(client);
    assert_int_equal(rw_listen_backlog(fd, 1), RW_OK); /* again: another backlog */
    rw_fd_close(fd);
    assert_int_equal(rw_listen_backlog(fd, 1), -EBADF);
}

static void test_a_port_can_be_taken_again_while_its_old_connections_linger(void **state) {
    (void)state;
    const int32_t fd = rw_listen_socket("127.0.0.1", 0, 16, RW_LISTEN_EXCLUSIVE);
    const uint32_t port = (uint32_t)rw_socket_port(fd);
    const int client = connect_ipv4(port);
    const int accepted = accept_soon(fd);
    close(accepted); /* the server closes first: its end goes to TIME_WAIT */
    char byte;
    assert_int_equal(read(client, &byte, 1), 0);
    close(client);
    rw_fd_close(fd);
    const int32_t again = rw_listen_socket("127.0.0.1", port, 16, RW_LISTEN_EXCLUSIVE);
    assert_true(again >= 0);
    rw_fd_close(again);
}

static void test_ipv6_is_dual_stack_unless_told_otherwise(void **state) {
    (void)state;
    if (!has_ipv6()) skip();
    const int32_t both = rw_listen_socket("::", 0, 16, RW_LISTEN_EXCLUSIVE);
    assert_true(both >= 0);
    const int client = connect_ipv4((uint32_t)rw_socket_port(both));
    assert_true(client >= 0);
    close(client);
    rw_fd_close(both);
    const int32_t only = rw_listen_socket("::", 0, 16, RW_LISTEN_IPV6_ONLY | RW_LISTEN_EXCLUSIVE);
    assert_true(only >= 0);
    assert_int_equal(connect_ipv4((uint32_t)rw_socket_port(only)), -1);
    rw_fd_close(only);
}

static void test_a_malformed_address_is_refused(void **state) {
    (void)state;
    const char *bad[] = {"",      "localhost",         "127.0.0.1:80",
                         "127.1", "256.0.0.1",         "[::1]",
                         "::1::", "1:2:3:4:5:6:7:8:9", "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(rw_listen_socket(bad[i], 0, 16, 0), -EINVAL);
    assert_int_equal(rw_listen_socket("fe80::1%no-such-interface", 0, 16, 0), -ENODEV);
    assert_int_equal(rw_listen_socket("127.0.0.1", 65536, 16, 0), -EINVAL);
    assert_int_equal(rw_listen_socket(NULL, 0, 16, 0), -EINVAL);
    assert_int_equal(rw_listen_socket("203.0.113.1", 0, 16, 0), -EADDRNOTAVAIL);
    assert_int_equal(rw_socket_port(-1), -EBADF);
}

static void test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(void **state) {
    (void)state;
    char directory[] = "/tmp/ringway-process-test-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char path[64];
    snprintf(path, sizeof path, "%s/socket", directory);
    const int32_t live = rw_listen_socket(path, UNIX_PORT, 16, 0);
    assert_true(live >= 0);
    assert_int_equal(rw_socket_port(live), 0);
    assert_int_equal(fcntl(live, F_GETFD) & FD_CLOEXEC, 0);
    assert_true((fcntl(live, F_GETFL) & O_NONBLOCK) != 0);
    assert_int_equal(rw_listen_socket(path, UNIX_PORT, 16, 0), -EADDRINUSE);
    rw_fd_close(live); /* the file stays */
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    const int32_t successor = rw_listen_socket(path, UNIX_PORT, 16, 0);
    assert_true(successor >= 0);
    rw_fd_close(successor);
    unlink(path);
    rmdir(directory);
}

static void test_a_unix_socket_with_a_full_queue_counts_as_alive(void **state) {
    (void)state;
    char directory[] = "/tmp/ringway-process-test-XXXXXX";
    assert_non_null(mkdtemp(directory));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory);
    const int32_t live = rw_listen_socket(address.sun_path, UNIX_PORT, 1, 0);
    int clients[8];
    size_t count = 0;
    for (int refused = 0; !refused && count < 8; count++) {
        clients[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        refused = connect(clients[count], (struct sockaddr *)&address, sizeof address) != 0;
    }
    assert_true(count < 8);
    assert_int_equal(rw_listen_socket(address.sun_path, UNIX_PORT, 16, 0), -EADDRINUSE);
    while (count > 0) close(clients[--count]);
    rw_fd_close(live);
    unlink(address.sun_path);
    rmdir(directory);
}

static void test_a_file_that_is_no_socket_is_never_removed(void **state) {
    (void)state;
    char path[] = "/tmp/ringway-process-test-XXXXXX";
    const int file = mkstemp(path);
    assert_int_equal(write(file, "keep", 4), 4);
    assert_int_equal(rw_listen_socket(path, UNIX_PORT, 16, 0), -EADDRINUSE);
    char content[4];
    assert_int_equal(pread(file, content, 4, 0), 4);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 4);
    close(file);
    unlink(path);
}

static void test_a_process_connects_to_its_own_unix_socket_alone(void **state) {
    (void)state;
    char name[64];
    snprintf(name, sizeof name, "@ringway-own-%d", (int)getpid());
    const int32_t fd = rw_listen_socket(name, UINT32_MAX, 0, 0);
    assert_true(fd >= 0);
    const int32_t client = rw_connect_local(fd);
    assert_true(client >= 0);
    assert_int_equal(fcntl(client, F_GETFD), FD_CLOEXEC);
    const int accepted = accept_soon(fd);
    assert_int_equal(write(client, "a", 1), 1);
    char byte = 0;
    assert_int_equal(read(accepted, &byte, 1), 1);
    assert_int_equal(byte, 'a');
    assert_int_equal(read(client, &byte, 1), -1); /* does not wait */
    assert_int_equal(errno, EAGAIN);
    close(accepted);
    rw_fd_close(client);
    rw_fd_close(fd);
    assert_int_equal(rw_connect_local(fd), -EBADF);
    const int32_t tcp = rw_listen_socket("127.0.0.1", 0, 16, 0);
    assert_int_equal(rw_connect_local(tcp), -EAFNOSUPPORT);
    rw_fd_close(tcp);
}

static void test_a_pair_of_sockets_is_connected_and_not_inherited(void **state) {
    (void)state;
    int32_t fds[2] = {-1, -1};
    assert_int_equal(rw_socket_pair(fds), 0);
    assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
    assert_int_equal(write(fds[1], "a", 1), 1);
    char byte = 0;
    assert_int_equal(read(fds[0], &byte, 1), 1);
    assert_int_equal(byte, 'a');
    rw_fd_close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 0);
    rw_fd_close(fds[0]);
}

static void test_unix_paths_are_bounded_and_may_be_abstract(void **state) {
    (void)state;
    char path[200];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    assert_int_equal(rw_listen_socket(path, UNIX_PORT, 16, 0), -ENAMETOOLONG);
    assert_int_equal(rw_listen_socket("", UNIX_PORT, 16, 0), -EINVAL);
    assert_int_equal(rw_listen_socket("/no/such/directory/socket", UNIX_PORT, 16, 0), -ENOENT);
    snprintf(path, sizeof path, "@ringway-process-test-%d", (int)getpid());
    const int32_t abstract = rw_listen_socket(path, UNIX_PORT, 16, 0);
    assert_true(abstract >= 0);
    assert_int_equal(rw_listen_socket(path, UNIX_PORT, 16, 0), -EADDRINUSE);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path + 1, path + 1, strlen(path) - 1);
    const int client = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address,
                             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))),
                     0);
    close(client);
    rw_fd_close(abstract);
}

static void test_an_eventfd_never_blocks_its_writer(void **state) {
    (void)state;
    const int32_t fd = rw_eventfd_create();
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    uint64_t value;
    assert_int_equal(read(fd, &value, sizeof value), -1);
    assert_int_equal(errno, EAGAIN);
    rw_eventfd_signal(fd);
    rw_eventfd_signal(fd);
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    assert_int_equal(value, 2);
    value = UINT64_MAX - 1;
    assert_int_equal(write(fd, &value, sizeof value), sizeof value);
    rw_eventfd_signal(fd);
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    assert_int_equal(value, UINT64_MAX - 1);
    rw_fd_close(fd);
    rw_fd_close(-1);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void *affinity_of_a_thread(void *argument) {
    pthread_barrier_t *barriers = argument;
    pthread_barrier_wait(&barriers[0]);
    pthread_barrier_wait(&barriers[1]);
    uint32_t cpu = 0;
    return (void *)(uintptr_t)(rw_affinity_get(&cpu, 1) == 1 ? cpu + 1 : 0);
}

static int pin_to(uint32_t cpu) {
    pthread_barrier_t barriers[2];
    pthread_barrier_init(&barriers[0], NULL, 2);
    pthread_barrier_init(&barriers[1], NULL, 2);
    pthread_t thread;
    if (pthread_create(&thread, NULL, affinity_of_a_thread, barriers) != 0) return 1;
    pthread_barrier_wait(&barriers[0]);
    const int32_t result = rw_affinity_set(cpu);
    pthread_barrier_wait(&barriers[1]);
    void *seen;
    pthread_join(thread, &seen);
    uint32_t now = UINT32_MAX;
    if (result != RW_OK || rw_affinity_get(&now, 1) != 1 || now != cpu) return 2;
    return (uintptr_t)seen == cpu + 1 ? 0 : 3;
}

static void test_pinning_takes_every_thread_of_the_process(void **state) {
    (void)state;
    uint32_t cpus[4096];
    const int32_t count = rw_affinity_get(cpus, 4096);
    assert_true(count >= 1);
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_int_equal(count, CPU_COUNT(&set));
    for (int32_t i = 0; i < count; i++) assert_true(CPU_ISSET(cpus[i], &set));
    assert_int_equal(rw_affinity_get(NULL, 0), count);
    const pid_t child = fork();
    if (child == 0) _exit(pin_to(cpus[count - 1]));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_a_cpu_that_is_not_there_is_refused(void **state) {
    (void)state;
    assert_int_equal(rw_affinity_set(100000), -EINVAL);
    assert_int_equal(rw_affinity_set(UINT32_MAX), -EINVAL);
}

/* Starts a process that starts another, which waits for the signal; ends the first. ret: what the second has written */
static void test_a_process_is_told_when_its_parent_ends(void **state) {
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    const pid_t parent = fork();
    assert_true(parent >= 0);
    if (parent == 0) {
        if (fork() == 0) {
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, SIGTERM);
            sigprocmask(SIG_BLOCK, &set, NULL);
            if (rw_end_with_parent(SIGTERM) != RW_OK || write(pipes[1], "r", 1) != 1) _exit(1);
            int signal;
            if (sigwait(&set, &signal) == 0 && signal == SIGTERM && write(pipes[1], "t", 1) == 1) _exit(0);
            _exit(1);
        }
        pause();
        _exit(0);
    }
    close(pipes[1]);
    char said = 0;
    assert_int_equal(read(pipes[0], &said, 1), 1);
    assert_int_equal(said, 'r');
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    assert_int_equal(read(pipes[0], &said, 1), 1);
    assert_int_equal(said, 't');
    close(pipes[0]);
}

static void test_no_signal_of_that_number_is_refused(void **state) {
    (void)state;
    assert_int_equal(rw_end_with_parent(1000), -EINVAL);
}

static void test_a_service_manager_gets_each_word_as_a_datagram(void **state) {
    (void)state;
    char folder[] = "/tmp/ringway-notify-XXXXXX";
    assert_non_null(mkdtemp(folder));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", folder);
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_int_equal(rw_service_notify(address.sun_path, "READY=1"), -ENOENT);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(rw_service_notify(address.sun_path, "READY=1"), RW_OK);
    assert_int_equal(rw_service_notify(address.sun_path, "WATCHDOG=1"), RW_OK);
    char text[64];
    assert_int_equal(recv(fd, text, sizeof text, 0), 7);
    assert_memory_equal(text, "READY=1", 7);
    assert_int_equal(recv(fd, text, sizeof text, 0), 10);
    assert_memory_equal(text, "WATCHDOG=1", 10);
    /* Nobody reads: it does not wait. */
    int32_t result = RW_OK;
    for (int count = 0; count < 100000 && result == RW_OK; count++)
        result = rw_service_notify(address.sun_path, "WATCHDOG=1");
    assert_int_equal(result, -EAGAIN);
    close(fd);
    unlink(address.sun_path);
    rmdir(folder);
    assert_int_equal(rw_service_notify("", "READY=1"), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tcp_listener_has_the_options_promised),
        cmocka_unit_test(test_workers_share_a_port_and_an_exclusive_listener_does_not),
        cmocka_unit_test(test_an_address_can_be_taken_before_anybody_may_connect),
        cmocka_unit_test(test_a_port_can_be_taken_again_while_its_old_connections_linger),
        cmocka_unit_test(test_ipv6_is_dual_stack_unless_told_otherwise),
        cmocka_unit_test(test_a_malformed_address_is_refused),
        cmocka_unit_test(test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not),
        cmocka_unit_test(test_a_unix_socket_with_a_full_queue_counts_as_alive),
        cmocka_unit_test(test_a_file_that_is_no_socket_is_never_removed),
        cmocka_unit_test(test_a_process_connects_to_its_own_unix_socket_alone),
        cmocka_unit_test(test_a_pair_of_sockets_is_connected_and_not_inherited),
        cmocka_unit_test(test_unix_paths_are_bounded_and_may_be_abstract),
        cmocka_unit_test(test_an_eventfd_never_blocks_its_writer),
        cmocka_unit_test(test_pinning_takes_every_thread_of_the_process),
        cmocka_unit_test(test_a_cpu_that_is_not_there_is_refused),
        cmocka_unit_test(test_a_process_is_told_when_its_parent_ends),
        cmocka_unit_test(test_no_signal_of_that_number_is_refused),
        cmocka_unit_test(test_a_service_manager_gets_each_word_as_a_datagram),
    };
    return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
