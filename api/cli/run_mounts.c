#include "api/cli/run_mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/cli/locate.h"
#include "api/cli/run_leftover.h"
#include "vmm/base/cleanup.h"

extern char **environ;

/* Where the listening socket is in the child: above its standard descriptors, below what it opens. */
enum { LISTENER_FD = 3, FAILED_BEFORE_EXEC = 127 };

void run_mounts_init(struct run_mounts *mounts)
{
    *mounts = (struct run_mounts){.directory_fd = -1, .words_fd = -1};
}

/* Listening before the other side is started, nobody has to wait for it. */
static struct error *listen_at(const struct run_mounts *mounts, size_t index, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%.90s/%u", mounts->directory, (unsigned)index);
    if (made < 0 || fchmod(made, 0600) != 0 || bind(made, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(made, 1) != 0)
        return error_errno(errno, "cannot listen on %s", address.sun_path);
    *fd = take_fd(&made);
    return NULL;
}

/* In the child. What is said goes to the pipe that stderr is by then. */
static void fail(const char *what)
{
    dprintf(STDERR_FILENO, "%s: %s\n", what, strerror(errno));
    _exit(FAILED_BEFORE_EXEC);
}

/* A mount of the directory, with all that is mounted below it, in a namespace of the child's own. */
static void make_read_only(const char *directory)
{
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};

    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0 ||
        mount(directory, directory, NULL, MS_BIND | MS_REC, NULL) != 0 ||
        syscall(SYS_mount_setattr, AT_FDCWD, directory, AT_RECURSIVE, &read_only, sizeof(read_only)) != 0)
        fail("cannot make it read-only");
}

static void die_with(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(FAILED_BEFORE_EXEC);
}

static void child(const struct run_mounts *mounts, size_t index, const char *program, const char *directory,
                  int listener, int words, pid_t parent)
{
    cleanup_free char *source = NULL;
    char fd_option[16];
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(words, STDOUT_FILENO) < 0 || dup2(words, STDERR_FILENO) < 0)
        _exit(FAILED_BEFORE_EXEC);
    die_with(parent);

    /* Not to be closed by the dup2 of another: first out of the way. */
    int high = fcntl(listener, F_DUPFD, LISTENER_FD + 1);
    if (high < 0 || dup2(high, LISTENER_FD) < 0 || syscall(SYS_close_range, LISTENER_FD + 1u, ~0u, 0u) != 0)
        fail("cannot pass the socket on");
    if (geteuid() != 0) {
        const char *failed = mounts_user_enter(&mounts->user);

        if (failed != NULL)
            fail(failed);
        die_with(parent); /* other rights, and the kernel may have forgotten it */
    }
    if (mounts->mounts[index].read_only)
        make_read_only(directory);
    snprintf(fd_option, sizeof(fd_option), "--fd=%d", LISTENER_FD);
    if (asprintf(&source, "source=%s", directory) < 0)
        fail("no memory");

    /* Device nodes in the host's directory are none of the guest's business. */
    const char *const arguments[] = {"virtiofsd", fd_option,        "-o", source,          "-o", "cache=auto",
                                     "-o",        "modcaps=-mknod", "-o", "log_level=err", NULL};
    execve(program, (char *const *)(uintptr_t)arguments, environ);
    fail(program);
}

static struct error *start_one(struct run_mounts *mounts, size_t index, const char *program, int words)
{
    const struct run_mount *mount = &mounts->mounts[index];
    cleanup_free char *directory = realpath(mount->host, NULL);
    cleanup_fd int listener = -1;
    struct stat status;
    pid_t parent = getpid();

    if (directory == NULL || stat(directory, &status) != 0)
        return error_errno(errno, "--mount %s", mount->host);
    if (!S_ISDIR(status.st_mode))
        return error_new(ERROR_INPUT, "--mount %s: expected a directory", mount->host);
    /* virtiofsd parts its options at commas. */
    if (strchr(directory, ',') != NULL)
        return error_new(ERROR_INPUT, "--mount %s: expected a path without a comma", mount->host);
    struct error *error = listen_at(mounts, index, &listener);
    if (error != NULL)
        return error;

    pid_t pid = fork();
    if (pid < 0)
        return error_errno(errno, "cannot start %s", program);
    if (pid == 0)
        child(mounts, index, program, directory, listener, words, parent);
    mounts->pids[index] = pid;
    return NULL;
}

struct error *run_mounts_start(struct run_mounts *mounts, const struct run_options *options)
{
    cleanup_free char *program = NULL;
    cleanup_fd int words = -1;
    int pipe_fds[2];
    struct error *error;

    if (options->mount_count == 0)
        return NULL;
    program = locate_virtiofsd();
    if (program == NULL)
        return error_new(ERROR_INPUT,
                         "--mount: virtiofsd is neither on PATH nor in /usr/lib/qemu or /usr/libexec; Debian "
                         "has it in the package qemu-system-common or virtiofsd");
    error = geteuid() != 0 ? mounts_user_find(&mounts->user) : NULL;
    if (error == NULL)
        error = run_leftover_make_somewhere(mounts->directory, sizeof(mounts->directory) - sizeof("/99"),
                                            &mounts->directory_fd);
    if (error != NULL)
        return error;
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(errno, "pipe");
    mounts->words_fd = pipe_fds[0];
    words = pipe_fds[1];
    mounts->mounts = options->mounts;
    mounts->count = options->mount_count;
    for (size_t i = 0; error == NULL && i < mounts->count; i++)
        error = start_one(mounts, i, program, words);
    return error;
}

struct error *run_mounts_explain(const struct run_mounts *mounts, struct error *error)
{
    char text[512];
    ssize_t got = error == NULL || mounts->words_fd < 0 ? 0 : read(mounts->words_fd, text, sizeof(text) - 1);

    if (got <= 0)
        return error;
    text[got] = '\0';
    return error_wrap(error, "virtiofsd: %.*s", (int)strcspn(text, "\n"), text);
}

void run_mounts_end(struct run_mounts *mounts)
{
    for (size_t i = 0; i < mounts->count; i++)
        if (mounts->pids[i] > 0)
            kill(mounts->pids[i], SIGKILL);
    for (size_t i = 0; i < mounts->count; i++)
        if (mounts->pids[i] > 0)
            waitpid(mounts->pids[i], NULL, 0);
    if (mounts->directory[0] != '\0')
        run_leftover_clear(mounts->directory);
    fd_close(&mounts->directory_fd);
    fd_close(&mounts->words_fd);
    run_mounts_init(mounts);
}
