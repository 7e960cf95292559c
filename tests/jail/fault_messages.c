#include "tests/jail/fault_messages.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "vmm/base/cleanup.h"

/* One of the texts (with '|' between them) must be in the last line; `reason`: so must be EIO's. */
static const struct {
    long number;
    const char *steps;
    bool reason;
} tellings[] = {
    {SYS_close_range, "cannot close inherited descriptors", true},
    {SYS_fcntl, "/dev/null as descriptor|--bind: cannot open the way to", true},
    {SYS_capget, "jailer's capabilities|capability sets", true},
    {SYS_open,
     "--exec-file: cannot open|--chroot-base-dir: cannot open|jail's root|/sys/fs/cgroup|/proc/self|/proc: |/dev/|"
     "in /proc|--cgroup: cannot look for the cgroup version",
     true},
    {SYS_fstat, "--exec-file: cannot look at|--chroot-base-dir: cannot look at|--bind: cannot", true},
    {SYS_lstat, "--exec-file: cannot look at", true},
    {SYS_pread64, "--exec-file: cannot read", true},
    {SYS_stat, "cannot look at /dev/kvm", true},
    {SYS_unshare, "the mount namespace|the time namespace|namespaces (flags|a user namespace (unshare: I/O error)",
     false},
    {SYS_mount, "cannot make the mounts slaves of the host's|cannot mount the jail's /dev", true},
    {SYS_mkdirat, "--chroot-base-dir: cannot make|cannot make the jail's /|cannot make the cgroup|--bind: cannot make",
     true},
    {SYS_openat,
     "--chroot-base-dir: cannot open the folder|--chroot-base-dir: cannot make the file|the jail's /|--cgroup: cannot|"
     "the pid file|the cgroup|a place for the device node|--bind: |cgroup.controllers",
     true},
    {SYS_openat2, "--bind: cannot open", true},
    {SYS_fchmod, "cannot set the mode of|cannot write the file|the pid file|cannot give /", true},
    {SYS_flock, "cannot lock the", true},
    {SYS_write, "cannot write|--cgroup: the kernel refuses|--bind: |--uid: cannot start", true},
    {SYS_newfstatat, "--id: cannot look whether", true},
    {SYS_fchown, "--uid, --gid: cannot give|--bind: cannot give", true},
    {SYS_open_tree, "(open_tree)", true},
    {SYS_mount_setattr, "(mount_setattr)", true},
    {SYS_move_mount, "(move_mount)", true},
    {SYS_fchdir, "cannot enter the jail's", true},
    {SYS_fchmodat, "cannot make the jail's /dev/net|--bind: cannot", true},
    {SYS_mknodat, "cannot make the device node|--bind: cannot make a node", true},
    {SYS_fchownat, "--uid, --gid: cannot give /dev/|--bind: cannot give", true},
    {SYS_pivot_root, "(pivot_root)", true},
    {SYS_chroot, "(chroot)", true},
    {SYS_umount2, "cannot drop the host's root", true},
    {SYS_chdir, "cannot go to the jail's root|(chroot)", true},
    {SYS_prlimit64, "--resource-limit: cannot set|the limit no-file", true},
    /* libc says EAGAIN of a thread that it has no memory for. */
    {SYS_mmap, "cannot start the guardian thread|cannot read /proc/self/mounts", false},
    {SYS_mprotect, "cannot start the guardian thread", false},
    {SYS_clone, "cannot start the guardian thread", false},
    {SYS_prctl, "capability bounding set|no_new_privs|securebits|cannot have the VMM end with", true},
    {SYS_setgroups, "supplementary groups", true},
    {SYS_setresgid, "--gid: cannot become group", true},
    {SYS_setresuid, "--uid: cannot become user", true},
    {SYS_capset, "cannot empty the capability sets", true},
    {SYS_landlock_create_ruleset, "(landlock_create_ruleset)", true},
    {SYS_landlock_add_rule, "(landlock_add_rule)", true},
    {SYS_landlock_restrict_self, "(landlock_restrict_self)", true},
    {SYS_getppid, "who started the jailer is gone", false}, /* it cannot fail otherwise */
    {SYS_seccomp, "cannot load the seccomp filter", true},
    {SYS_execveat, "--exec-file: cannot run", false}, /* how it is made to fail says why */
    {SYS_clone3, "--new-pid-ns: cannot fork|--bind: ", true},
    {SYS_unlinkat, "--bind: cannot remove", true},
    {SYS_faccessat2, "may not open /dev/kvm", true},
    {SYS_pipe2, "cannot make a pipe", true},
    {SYS_fork, "cannot fork|cannot have /usr/bin/new", false}, /* in the process that helps */
    {SYS_read, "cannot read|in /proc: I/O error|--cgroup: cannot look for the cgroup version|cannot have /usr/bin/new",
     false},
    {SYS_execve, "cannot have /usr/bin/new", false},
    {SYS_sendfile, "--bind: cannot copy", true},
    {SYS_poll, "cannot look whether the jailer still waits", true},
    {SYS_setsid, "--daemonize: cannot start a session", true},
    {SYS_dup2, "--daemonize: cannot redirect", true},
};

static bool has_any(const char *line, const char *texts)
{
    char copy[512];
    char *rest = copy;

    snprintf(copy, sizeof(copy), "%s", texts);
    for (const char *text; (text = strsep(&rest, "|")) != NULL;)
        if (strstr(line, text) != NULL)
            return true;
    return false;
}

/* A reduced jail does without nodes and root of its own when it cannot make them; then the container's must do. */
static bool tells_of_what_is_left(const char *line)
{
    return strstr(line, "may not open /dev/kvm, which the jail has as the host has it: ") != NULL;
}

/* Between two processes the one that is told nothing says so. */
static bool tells_of_silence(const char *line)
{
    return strcmp(line, "mayfly-jailer: --new-pid-ns: the waiting process did not tell the process id\n") == 0;
}

bool fault_is_told(long number, const char *errors, bool reduced)
{
    const char *line = errors;

    for (const char *next; (next = strchr(line, '\n')) != NULL && next[1] != '\0';)
        line = next + 1;
    if (strncmp(line, "mayfly-jailer: ", 15) != 0)
        return false;
    if (reduced && tells_of_what_is_left(line))
        return true;
    if ((number == SYS_read || number == SYS_write) && tells_of_silence(line))
        return true;
    for (size_t i = 0; i < array_length(tellings); i++)
        if (tellings[i].number == number)
            return has_any(line, tellings[i].steps) && (!tellings[i].reason || has_any(line, ": I/O error\n"));
    return false;
}
