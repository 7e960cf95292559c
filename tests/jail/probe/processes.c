/* Namespaces, and other processes. */
#include "tests/jail/probe/probe.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int attempt_unshare(void)
{
    return stopped(unshare(CLONE_NEWNS));
}

static int attempt_userns(void)
{
    return stopped(unshare(CLONE_NEWUSER));
}

static int attempt_userns_mount(void)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return errno;
    return stopped(mount("proc", "/run", "proc", 0, NULL));
}

static int attempt_setns(void)
{
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

    return self < 0 ? errno : stopped(setns(self, CLONE_NEWNS));
}

static int attempt_kill_parent(void)
{
    /* In a pid namespace the parent is 0: nobody. */
    return stopped(kill(getppid() == 0 ? 2 : getppid(), SIGTERM));
}

static int attempt_ptrace(void)
{
    return stopped(ptrace(PTRACE_ATTACH, getppid() == 0 ? 2 : getppid(), NULL, NULL));
}

static int attempt_pidfd(void)
{
    return stopped(syscall(SYS_pidfd_open, getppid() == 0 ? 2 : getppid(), 0));
}

static int attempt_process_vm(void)
{
    static char byte;
    struct iovec here = {&byte, 1};
    struct iovec there = {&byte, 1};

    return stopped(syscall(SYS_process_vm_readv, getppid() == 0 ? 2 : getppid(), &here, 1ul, &there, 1ul, 0ul));
}

static int attempt_fork(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    return stopped(pid);
}

static int attempt_exec(void)
{
    return stopped(execve("/run/sh", (char *[]){"sh", NULL}, environ));
}

const struct command attempts_on_processes[] = {
    {"unshare", attempt_unshare},
    {"userns", attempt_userns},
    {"userns-mount", attempt_userns_mount},
    {"setns", attempt_setns},
    {"kill-parent", attempt_kill_parent},
    {"ptrace", attempt_ptrace},
    {"pidfd", attempt_pidfd},
    {"process-vm", attempt_process_vm},
    {"fork", attempt_fork},
    {"exec", attempt_exec},
    {NULL, NULL},
};
