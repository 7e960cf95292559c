#include "jailer/process.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static volatile sig_atomic_t forward_to;

static void forward(int signo)
{
    if (forward_to > 0)
        kill((pid_t)forward_to, signo);
}

struct error *process_fork(const struct cgroup *cgroup, bool *joined, bool *waiter, pid_t *pid)
{
    struct clone_args arguments = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
    int pipe_fds[2];

    /* Inside its namespace the child is process 1: its parent tells it what the host calls it. */
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_errno(errno, "cannot make a pipe");
    *joined = cgroup->version == 2 && cgroup->count == 1;
    if (*joined) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (__u64)cgroup->groups[0];
    }

    long child = syscall(SYS_clone3, &arguments, sizeof(arguments));
    if (child < 0) {
        struct error *error = error_errno(errno, "--new-pid-ns: cannot fork into a new pid namespace");

        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return error;
    }
    *waiter = child > 0;
    close(pipe_fds[*waiter ? 0 : 1]);
    *pid = (pid_t)child;

    ssize_t moved = *waiter ? write(pipe_fds[1], pid, sizeof(*pid)) : read(pipe_fds[0], pid, sizeof(*pid));
    close(pipe_fds[*waiter ? 1 : 0]);
    if (moved != sizeof(*pid) && !*waiter)
        return error_new(ERROR_HOST, "--new-pid-ns: the waiting process is gone");
    return NULL;
}

int process_wait(pid_t child)
{
    static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action = {.sa_handler = forward};
    int status;

    forward_to = child;
    for (size_t i = 0; i < array_length(forwarded); i++)
        sigaction(forwarded[i], &action, NULL);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Everything the daemon wrote before it became the VMM, or died; then the caller's exit code. */
static __attribute__((noreturn)) void pass_on(int report)
{
    char text[1024];
    bool failed = false;

    for (ssize_t got; (got = read(report, text, sizeof(text))) != 0;) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        failed = true;
        if (write(STDERR_FILENO, text, (size_t)got) < 0)
            break;
    }
    _exit(failed ? EXIT_FAILURE : EXIT_SUCCESS);
}

struct error *process_daemonize(int null_fd, int *report)
{
    int pipe_fds[2];

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_errno(errno, "--daemonize: cannot make a pipe");

    pid_t child = fork();
    if (child < 0)
        return error_errno(errno, "--daemonize: cannot fork");
    if (child > 0) {
        close(pipe_fds[1]);
        pass_on(pipe_fds[0]);
    }
    close(pipe_fds[0]);
    *report = pipe_fds[1];
    if (setsid() < 0)
        return error_errno(errno, "--daemonize: cannot start a session");
    for (int fd = 0; fd <= 2; fd++)
        if (dup2(null_fd, fd) < 0)
            return error_errno(errno, "--daemonize: cannot redirect descriptor %d", fd);
    return NULL;
}
