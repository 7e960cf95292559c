#include "api/cli/vmm_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/cli/run_jail_defaults.h"
#include "api/cli/run_leftover.h"
#include "api/client/connect.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/exit_code.h"

extern char **environ;

/* sun_path less the longest name in it. */
enum { SOCKET_DIRECTORY_MAX = 108 - sizeof("/control"), END_PATIENCE_MS = 5000, EXIT_PATIENCE_MS = 2000 };

void vmm_process_init(struct vmm_process *process)
{
    *process = (struct vmm_process){.directory_fd = -1, .process_fd = -1, .vmm_fd = -1, .serial_fd = -1, .log_fd = -1};
}

/* What the child needs, prepared before it exists: between vfork and exec it may do little. */
struct launch {
    const char *path;
    char *const *arguments;
    int in, out, err;
    pid_t parent;
    volatile int error; /* errno of the failed step, written by the child in our memory */
};

static void child(struct launch *launch)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == launch->parent && dup2(launch->in, STDIN_FILENO) >= 0 &&
        dup2(launch->out, STDOUT_FILENO) >= 0 && dup2(launch->err, STDERR_FILENO) >= 0 &&
        syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
        execve(launch->path, launch->arguments, environ);
    launch->error = errno;
    _exit(127);
}

static pid_t launch_child(struct launch *launch)
{
    pid_t pid;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    pid = vfork(); /* no page tables to copy; the child uses only the parent's locals above */
#pragma GCC diagnostic pop
    if (pid == 0)
        child(launch);
    return pid;
}

/* The jail's folder is made by the jailer; it is known beforehand where. */
static struct error *name_directory(struct vmm_process *process)
{
    const struct run_jail *jail = &process->jail;

    if (!jail->used) {
        struct error *error =
            run_leftover_make_somewhere(process->directory, SOCKET_DIRECTORY_MAX, &process->directory_fd);

        strcpy(process->inside, process->directory);
        return error;
    }
    strcpy(process->inside, RUN_JAIL_SOCKETS);
    if (snprintf(process->directory, sizeof(process->directory), "%s/%s/root/" RUN_JAIL_SOCKETS, jail->exec,
                 jail->id) >= SOCKET_DIRECTORY_MAX) {
        process->directory[0] = '\0';
        return error_new(ERROR_INPUT, "--jail-dir: %s/%s is too long for a Unix socket's path", jail->exec, jail->id);
    }
    return NULL;
}

static struct error *make_pipe(int *ours, int *theirs)
{
    int pipe_fds[2];

    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(errno, "pipe");
    *ours = pipe_fds[0];
    *theirs = pipe_fds[1];
    return NULL;
}

static struct error *launch(struct vmm_process *process, const char *path, char *const *arguments)
{
    cleanup_fd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cleanup_fd int out = -1, err = -1;
    struct error *error = null < 0 ? error_errno(errno, "/dev/null") : NULL;

    if (error == NULL)
        error = make_pipe(&process->serial_fd, &out);
    if (error == NULL)
        error = make_pipe(&process->log_fd, &err);
    if (error != NULL)
        return error;

    struct launch launch = {path, arguments, null, out, err, getpid(), 0};
    pid_t pid = launch_child(&launch);

    if (pid < 0)
        return error_errno(errno, "cannot start %s", path);
    if (launch.error != 0) {
        waitpid(pid, NULL, 0);
        return error_errno(launch.error, "cannot execute %s", path);
    }
    process->pid = pid;
    process->process_fd = (int)syscall(SYS_pidfd_open, pid, 0u);
    if (process->process_fd < 0)
        return error_errno(errno, "pidfd_open");
    return NULL;
}

struct error *vmm_process_start(struct vmm_process *process, const struct located *located)
{
    char api[VMM_PATH_SIZE];
    char *const arguments[] = {(char *)"mayfly-vmm", (char *)"--api-sock", api,
                               (char *)"--level",    (char *)"Warning",    NULL};
    struct error *error = name_directory(process);

    if (error != NULL)
        return error;
    vmm_process_inner_path(process, "api", api);
    if (process->jail.used)
        return launch(process, located->jailer, process->jail.words);
    return launch(process, located->vmm, arguments);
}

/*
 * A VMM that its guest has taken over may put a link in the place of its socket, to have us talk to another service of
 * the host's: what counts is who listens. The first time nobody has taken it over yet: that process is our VMM.
 */
static struct error *check_peer(struct vmm_process *process, const char *name, int fd)
{
    uid_t expected = process->jail.used ? process->jail.uid : geteuid();
    struct ucred peer;
    socklen_t length = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return error_errno(errno, "cannot ask who listens on the socket %s", name);
    if (peer.uid != expected)
        return error_new(ERROR_HOST, "on the socket %s a process of user %u listens; expected our VMM, of user %u",
                         name, peer.uid, expected);
    if (process->jail.used && process->vmm_fd < 0)
        process->vmm_fd = (int)syscall(SYS_pidfd_open, peer.pid, 0u);
    return NULL;
}

struct error *vmm_process_connect(struct vmm_process *process, const char *name, unsigned timeout_ms, int *fd)
{
    char path[VMM_PATH_SIZE];
    struct error *error;

    vmm_process_path(process, name, path);
    error = socket_connect_when_ready(path, process->process_fd, clock_monotonic_us() + timeout_ms * 1000ull, fd);
    if (error == NULL)
        error = check_peer(process, name, *fd);
    return error;
}

void vmm_process_path(const struct vmm_process *process, const char *name, char path[VMM_PATH_SIZE])
{
    snprintf(path, VMM_PATH_SIZE, "%s/%.30s", process->directory, name);
}

void vmm_process_inner_path(const struct vmm_process *process, const char *name, char path[VMM_PATH_SIZE])
{
    snprintf(path, VMM_PATH_SIZE, "%s/%.30s", process->inside, name);
}

bool vmm_process_has_ended(const struct vmm_process *process)
{
    struct pollfd wait = {.fd = process->process_fd, .events = POLLIN};

    return poll(&wait, 1, 0) > 0;
}

/* 0: by none. A jailer that waits for its VMM passes it on as 128 + N; the VMM's own codes begin above those. */
static int killed_by(const struct vmm_process *process, int status)
{
    if (WIFSIGNALED(status))
        return WTERMSIG(status);
    if (process->jail.used && WEXITSTATUS(status) > 128 && WEXITSTATUS(status) < EXIT_CODE_SIGSYS)
        return WEXITSTATUS(status) - 128;
    return 0;
}

struct error *vmm_process_explain_end(struct vmm_process *process, const char *when, bool *failed)
{
    struct pollfd wait = {.fd = process->process_fd, .events = POLLIN};
    int status;

    if (poll(&wait, 1, EXIT_PATIENCE_MS) <= 0 || waitpid(process->pid, &status, WNOHANG) <= 0)
        return error_new(ERROR_HOST, "the guest hung up %s", when);
    process->pid = 0;
    if (killed_by(process, status) != 0)
        return error_new(ERROR_HOST, "the microVM ended %s: mayfly-vmm was killed by signal %d", when,
                         killed_by(process, status));
    if (WEXITSTATUS(status) == 0)
        return error_new(ERROR_HOST, "the guest reset or powered off %s", when);
    *failed = true;
    return error_new(ERROR_HOST, "the microVM ended %s: mayfly-vmm exited with code %d", when, WEXITSTATUS(status));
}

/*
 * The jailer that waits for the VMM ends when the VMM has; but somebody may have killed it. Before there is a VMM to
 * kill it is the jailer, which takes what it began to build with it.
 */
static void end_jail(struct vmm_process *process)
{
    struct pollfd vmm = {.fd = process->vmm_fd, .events = POLLIN};
    struct error *error;

    if (process->vmm_fd >= 0 && syscall(SYS_pidfd_send_signal, process->vmm_fd, SIGKILL, NULL, 0u) == 0)
        poll(&vmm, 1, END_PATIENCE_MS);
    else if (process->pid > 0 && kill(process->pid, SIGKILL) != 0)
        process->pid =
            0; /* another user's, and we are root without CAP_KILL: removing the jail will say that it lives */
    if (process->pid > 0)
        waitpid(process->pid, NULL, 0);
    error = run_jail_remove(&process->jail);
    if (error != NULL)
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
    error_free(error);
}

void vmm_process_end(struct vmm_process *process)
{
    if (process->jail.used) {
        end_jail(process);
    } else {
        if (process->pid > 0)
            kill(process->pid, SIGKILL);
        if (process->directory[0] != '\0')
            run_leftover_clear(process->directory);
    }
    if (process->vsock_path != NULL)
        unlink(process->vsock_path);
    process->vsock_path = NULL;
    fd_close(&process->process_fd);
    fd_close(&process->directory_fd);
    fd_close(&process->vmm_fd);
    fd_close(&process->serial_fd);
    fd_close(&process->log_fd);
    run_jail_free(&process->jail);
    process->pid = 0;
    process->directory[0] = '\0';
}
