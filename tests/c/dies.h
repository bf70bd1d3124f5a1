/* Does this code end the process? For asserts and for what AddressSanitizer must catch: it runs in a child with its
 * mouth shut. */
#ifndef RW_TEST_DIES_H
#define RW_TEST_DIES_H

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIES_SURVIVED 111

/* ret: 1 when the child was aborted or exited with an error of its own, 0 when run(argument) returned */
static inline int dies(void (*run)(void *argument), void *argument) {
    pid_t child = fork();
    if (child < 0) return 0;
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (null >= 0) (void)dup2(null, STDERR_FILENO);
        run(argument);
        _exit(DIES_SURVIVED);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) return 0;
    return WIFSIGNALED(status) || WEXITSTATUS(status) != DIES_SURVIVED;
}

#endif
