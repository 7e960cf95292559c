#include "jailer/process.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* What ends the waiting process is meant for the VMM. */
static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

static void waited_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    for (size_t i = 0; i < array_length(forwarded); i++)
        sigaddset(set, forwarded[i]);
}

struct error *process_fork(const struct cgroup *cgroup, bool *joined, struct waiter *waiter, pid_t *pid)
{
    struct clone_args arguments = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
    int pipe_fds[2];
    sigset_t set;

    waiter->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (waiter->proc_fd < 0)
        return error_errno(errno, "--new-pid-ns: cannot open /proc");
    /* Inside its namespace the child is process 1: its parent tells it what the host calls it. */
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_errno(errno, "--new-pid-ns: cannot make a pipe");
    *joined = cgroup->version == 2 && cgroup->count == 1;
    if (*joined) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (__u64)cgroup->groups[0];
    }

    waited_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    long child = syscall(SYS_clone3, &arguments, sizeof(arguments));
    if (child < 0) {
        struct error *error = error_errno(errno, "--new-pid-ns: cannot fork into a new pid namespace");

        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return error;
    }
    waiter->child = (pid_t)child;
    if (child > 0) {
        *pid = (pid_t)child;
        /* When this fails, the child finds the pipe's end, says so and takes everything back. */
        if (write(pipe_fds[1], pid, sizeof(*pid)) < 0)
            close(pipe_fds[1]);
        /* Not before: a child that has ended already would make this write a SIGPIPE. */
        close(pipe_fds[0]);
        return NULL; /* the pipe stays open: its end tells the child that we are gone */
    }
    close(pipe_fds[1]);
    sigprocmask(SIG_UNBLOCK, &set, NULL);

    ssize_t got = read(pipe_fds[0], pid, sizeof(*pid));
    waiter->alive_fd = pipe_fds[0];
    if (got != sizeof(*pid))
        return error_new(ERROR_HOST, "--new-pid-ns: the waiting process did not tell the process id");
    return NULL;
}

/* Whether the process catches, blocks or ignores the signal. */
static bool expects_signal(const struct waiter *waiter, int signo)
{
    static const char *const masks[] = {"\nSigBlk:\t", "\nSigIgn:\t", "\nSigCgt:\t"};
    char path[32];
    char text[4096];

    snprintf(path, sizeof(path), "%d/status", waiter->child);
    cleanup_fd int fd = openat(waiter->proc_fd, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (got < 0)
        return true;
    text[got] = '\0';
    for (size_t i = 0; i < array_length(masks); i++) {
        const char *mask = strstr(text, masks[i]);

        if (mask != NULL && (strtoull(mask + strlen(masks[i]), NULL, 16) >> (signo - 1) & 1) != 0)
            return true;
    }
    return false;
}

int process_wait(const struct waiter *waiter)
{
    int ended_by = 0;
    int status = 0;
    pid_t ended;
    sigset_t set;

    waited_signals(&set);
    while ((ended = waitpid(waiter->child, &status, WNOHANG)) == 0) {
        int signo = sigwaitinfo(&set, NULL);

        if (signo <= 0 || signo == SIGCHLD)
            continue;
        /* To process 1 of a namespace the default action of a signal, to end it, is not done: do it. */
        if (!expects_signal(waiter, signo)) {
            ended_by = signo;
            kill(waiter->child, SIGKILL);
        } else {
            kill(waiter->child, signo);
        }
    }
    if (ended < 0)
        return EXIT_FAILURE;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    return 128 + (ended_by != 0 ? ended_by : WTERMSIG(status));
}

struct error *process_end_with_waiter(const struct waiter *waiter)
{
    struct pollfd alive = {.fd = waiter->alive_fd, .events = POLLIN};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_errno(errno, "--new-pid-ns: cannot have the VMM end with the jailer");
    /* Who died before that sends no signal, and in this pid namespace getppid(2) does not show it. */
    if (poll(&alive, 1, 0) < 0)
        return error_errno(errno, "--new-pid-ns: cannot look whether the jailer still waits");
    if (alive.revents != 0)
        return error_new(ERROR_HOST, "--new-pid-ns: the jailer that was to wait for the VMM is gone");
    return NULL;
}

void process_note_parent(struct parent *parent)
{
    parent->pid = getppid();
    if (prctl(PR_GET_PDEATHSIG, &parent->signal) < 0)
        parent->signal = 0;
}

struct error *process_end_with_parent(const struct parent *parent)
{
    if (parent->signal == 0)
        return NULL;
    if (prctl(PR_SET_PDEATHSIG, parent->signal) < 0)
        return error_errno(errno, "cannot have the VMM end with who started the jailer");
    return getppid() == parent->pid ? NULL : error_new(ERROR_HOST, "who started the jailer is gone");
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
