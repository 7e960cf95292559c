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
#include <sys/epoll.h>
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
enum { LISTENER_FD = 3, FAILED_BEFORE_EXEC = 127, RESTARTS_MAX = 10, WORDS_SIZE = 512 };

void run_mounts_init(struct run_mounts *mounts)
{
    *mounts = (struct run_mounts){.directory_fd = -1, .words_fd = -1, .told_fd = -1, .ended_fd = -1};
    for (size_t i = 0; i < RUN_MOUNTS_MAX; i++)
        mounts->process_fds[i] = -1;
}

/*
 * Listening before the other side is started, nobody has to wait for it. The socket of a virtiofsd that has ended makes
 * room for one that is whosever it was: a jail's user's, perhaps.
 */
static struct error *listen_at(const struct run_mounts *mounts, size_t index, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat before;

    snprintf(address.sun_path, sizeof(address.sun_path), "%.90s/%u", mounts->directory, (unsigned)index);
    bool replaces = lstat(address.sun_path, &before) == 0;
    if (replaces)
        unlink(address.sun_path);
    if (made < 0 || fchmod(made, 0600) != 0 || bind(made, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        (replaces && lchown(address.sun_path, before.st_uid, before.st_gid) != 0) || listen(made, 1) != 0)
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

static void child(const struct run_mounts *mounts, size_t index, const char *directory, int listener, pid_t parent)
{
    cleanup_free char *source = NULL;
    char fd_option[16];
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(mounts->told_fd, STDOUT_FILENO) < 0 ||
        dup2(mounts->told_fd, STDERR_FILENO) < 0)
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
    execve(mounts->program, (char *const *)(uintptr_t)arguments, environ);
    fail(mounts->program);
}

/* Has ended_fd tell when it ends. */
static struct error *watch(struct run_mounts *mounts, size_t index)
{
    struct epoll_event event = {.events = EPOLLIN};

    mounts->process_fds[index] = (int)syscall(SYS_pidfd_open, mounts->pids[index], 0);
    if (mounts->process_fds[index] < 0 ||
        epoll_ctl(mounts->ended_fd, EPOLL_CTL_ADD, mounts->process_fds[index], &event) != 0)
        return error_errno(errno, "cannot watch %s", mounts->program);
    return NULL;
}

static struct error *start_one(struct run_mounts *mounts, size_t index)
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
        return error_errno(errno, "cannot start %s", mounts->program);
    if (pid == 0)
        child(mounts, index, directory, listener, parent);
    mounts->pids[index] = pid;
    return watch(mounts, index);
}

struct error *run_mounts_start(struct run_mounts *mounts, const struct run_options *options)
{
    int pipe_fds[2];
    struct error *error;

    if (options->mount_count == 0)
        return NULL;
    mounts->program = locate_virtiofsd();
    if (mounts->program == NULL)
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
    mounts->told_fd = pipe_fds[1];
    mounts->ended_fd = epoll_create1(EPOLL_CLOEXEC);
    if (mounts->ended_fd < 0)
        return error_errno(errno, "epoll");
    mounts->mounts = options->mounts;
    mounts->count = options->mount_count;
    for (size_t i = 0; error == NULL && i < mounts->count; i++)
        error = start_one(mounts, i);
    return error;
}

/* The first line of what they have said since it was asked for last; "" when that is nothing. */
static void words_take(const struct run_mounts *mounts, char *text, size_t size)
{
    ssize_t got = mounts->words_fd < 0 ? 0 : read(mounts->words_fd, text, size - 1);

    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

struct error *run_mounts_explain(const struct run_mounts *mounts, struct error *error)
{
    char text[WORDS_SIZE];

    if (error == NULL)
        return NULL;
    words_take(mounts, text, sizeof(text));
    return text[0] == '\0' ? error : error_wrap(error, "virtiofsd: %s", text);
}

static void tell_end(const struct run_mounts *mounts, size_t index, int status)
{
    char text[WORDS_SIZE];

    words_take(mounts, text, sizeof(text));
    /* A process of its own serves, in namespaces; of its end virtiofsd passes on no more than this. */
    bool silent = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE && text[0] == '\0';
    dprintf(STDERR_FILENO, "mayfly: --mount %s: its virtiofsd %s %d%s%s%s\n", mounts->mounts[index].host,
            WIFSIGNALED(status) ? "was killed by signal" : "ended with code",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), text[0] == '\0' ? "" : ": ", text,
            silent ? ", as it does when a signal kills the process that serves: a crash, perhaps" : "");
}

static void tend_one(struct run_mounts *mounts, size_t index)
{
    const struct run_mount *mount = &mounts->mounts[index];
    struct error *error = NULL;
    int status;

    if (mounts->pids[index] == 0 || waitpid(mounts->pids[index], &status, WNOHANG) != mounts->pids[index])
        return;
    mounts->pids[index] = 0;
    fd_close(&mounts->process_fds[index]);
    tell_end(mounts, index, status);
    if (mounts->restarts[index]++ == RESTARTS_MAX)
        error = error_new(ERROR_HOST, "%d others have ended before it", RESTARTS_MAX);
    else
        error = start_one(mounts, index);
    if (error != NULL)
        dprintf(STDERR_FILENO, "mayfly: --mount %s: there is no other virtiofsd: %s\n", mount->host, error->message);
    else
        dprintf(STDERR_FILENO,
                "mayfly: --mount %s: another one serves it as soon as the guest mounts it again: umount %s; mount -t "
                "virtiofs%s mount%zu %s\n",
                mount->host, mount->guest, mount->read_only ? " -o ro" : "", index, mount->guest);
    error_free(error);
}

void run_mounts_tend(struct run_mounts *mounts)
{
    for (size_t i = 0; i < mounts->count; i++)
        tend_one(mounts, i);
}

void run_mounts_end(struct run_mounts *mounts)
{
    for (size_t i = 0; i < mounts->count; i++)
        if (mounts->pids[i] > 0)
            kill(mounts->pids[i], SIGKILL);
    for (size_t i = 0; i < mounts->count; i++) {
        if (mounts->pids[i] > 0)
            waitpid(mounts->pids[i], NULL, 0);
        fd_close(&mounts->process_fds[i]);
    }
    if (mounts->directory[0] != '\0')
        run_leftover_clear(mounts->directory);
    fd_close(&mounts->directory_fd);
    fd_close(&mounts->words_fd);
    fd_close(&mounts->told_fd);
    fd_close(&mounts->ended_fd);
    free(mounts->program);
    run_mounts_init(mounts);
}
