#include "api/cli/vmm_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

extern char **environ;

void vmm_process_init(struct vmm_process *process)
{
    *process = (struct vmm_process){.process_fd = -1, .serial_fd = -1, .log_fd = -1};
}

/* A Unix socket's path has 107 bytes: a long TMPDIR does not serve. */
static struct error *make_directory(struct vmm_process *process)
{
    static const char name[] = "mayfly-XXXXXX";
    const char *places[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
    int code = 0;

    for (size_t i = 0; i < array_length(places); i++) {
        if (places[i] == NULL || places[i][0] != '/' ||
            strlen(places[i]) + 1 + sizeof(name) > sizeof(process->directory))
            continue;
        snprintf(process->directory, sizeof(process->directory), "%s/%s", places[i], name);
        if (mkdtemp(process->directory) != NULL)
            return NULL;
        code = errno;
    }
    process->directory[0] = '\0';
    return error_errno(code, "cannot make a directory for the sockets in /tmp");
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

struct error *vmm_process_start(struct vmm_process *process, const char *path)
{
    char api[VMM_PATH_SIZE];
    char *const arguments[] = {(char *)"mayfly-vmm", (char *)"--api-sock", api,
                               (char *)"--level",    (char *)"Warning",    NULL};
    cleanup_fd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cleanup_fd int out = -1, err = -1;
    int pipe_fds[2];
    struct error *error = make_directory(process);

    if (error != NULL)
        return error;
    vmm_process_path(process, "api", api);
    if (null < 0)
        return error_errno(errno, "/dev/null");
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(errno, "pipe");
    process->serial_fd = pipe_fds[0];
    out = pipe_fds[1];
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(errno, "pipe");
    process->log_fd = pipe_fds[0];
    err = pipe_fds[1];

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

void vmm_process_path(const struct vmm_process *process, const char *name, char path[VMM_PATH_SIZE])
{
    snprintf(path, VMM_PATH_SIZE, "%s/%.30s", process->directory, name);
}

/* It holds sockets only: nothing is a directory. */
static void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;

    while (directory != NULL && (entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory != NULL)
        closedir(directory);
    rmdir(path);
}

void vmm_process_end(struct vmm_process *process)
{
    if (process->pid > 0)
        kill(process->pid, SIGKILL);
    if (process->directory[0] != '\0')
        remove_directory(process->directory);
    if (process->vsock_path != NULL)
        unlink(process->vsock_path);
    process->vsock_path = NULL;
    fd_close(&process->process_fd);
    fd_close(&process->serial_fd);
    fd_close(&process->log_fd);
    process->pid = 0;
    process->directory[0] = '\0';
}
