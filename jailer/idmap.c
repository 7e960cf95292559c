#include "jailer/idmap.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool write_file(int process, const char *name, const char *text)
{
    cleanup_fd int fd = openat(process, name, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* The namespace of the process, whose folder in /proc is `process`. */
static struct error *fill_map(int process, const struct stat *status, uid_t uid, gid_t gid, int *map)
{
    char text[64];

    snprintf(text, sizeof(text), "%u %u 1\n", status->st_uid, uid);
    if (!write_file(process, "uid_map", text))
        return error_errno(errno, "cannot map user %u to %u", status->st_uid, uid);
    snprintf(text, sizeof(text), "%u %u 1\n", status->st_gid, gid);
    if (!write_file(process, "gid_map", text))
        return error_errno(errno, "cannot map group %u to %u", status->st_gid, gid);
    *map = openat(process, "ns/user", O_RDONLY | O_CLOEXEC);
    return *map >= 0 ? NULL : error_errno(errno, "cannot open the new user namespace");
}

/*
 * The folder of a process in /proc, which may belong to another pid namespace than ours (the host's, when we are in the
 * jail's already): only what /proc tells of a pidfd is a number that it knows.
 */
static int open_process(int pidfd)
{
    char path[48], text[256];

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (length < 0)
        return -1;
    text[length] = '\0';

    const char *line = strstr(text, "\nPid:");
    int pid;
    if (line == NULL || sscanf(line, "\nPid: %d", &pid) != 1 || pid <= 0) {
        errno = ESRCH;
        return -1;
    }
    snprintf(path, sizeof(path), "/proc/%d", pid);
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Somebody must be in a namespace until it is held by a descriptor: a child that does nothing. */
struct error *idmap_open(const struct stat *status, uid_t uid, gid_t gid, int *map)
{
    cleanup_fd int pidfd = -1;
    struct clone_args arguments = {
        .flags = CLONE_NEWUSER | CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = (__u64)(uintptr_t)&pidfd};
    struct error *error;
    pid_t parent = getpid();
    long child = syscall(SYS_clone3, &arguments, sizeof(arguments));

    if (child < 0)
        return error_errno(errno, "cannot make a user namespace");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (getppid() == parent) /* who died before that sends no signal */
            pause();
        _exit(0);
    }
    cleanup_fd int process = open_process(pidfd);
    error =
        process < 0 ? error_errno(errno, "cannot find a process in /proc") : fill_map(process, status, uid, gid, map);
    kill((pid_t)child, SIGKILL);
    waitpid((pid_t)child, NULL, 0);
    return error;
}
