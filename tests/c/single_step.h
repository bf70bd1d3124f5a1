/* Run something in a process of its own, and kill that after so many instructions: whatever another process may see of
 * shared memory when one dies, it sees then. */
#ifndef RW_SINGLE_STEP_H
#define RW_SINGLE_STEP_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* rehearse: the same on something of its own, so that what is done once in a process, as binding symbols, is over.
 * A step is two switches of context. Skips the test where the container forbids it.
 * ret: how many instructions it took when it ended before, 0: killed */
static inline uint64_t run_single_steps(void (*rehearse)(void *context), void (*run)(void *context), void *context,
                                        uint64_t instructions) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        rehearse(context);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(99);
        raise(SIGSTOP);
        run(context);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) {
        assert_int_equal(WEXITSTATUS(status), 99);
        skip();
    }
    for (uint64_t i = 0; i < instructions; i++) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSTOPPED(status)) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            return i;
        }
        assert_int_equal(WSTOPSIG(status), SIGTRAP);
    }
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    return 0;
}

#endif
