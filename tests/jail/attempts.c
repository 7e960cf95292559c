#include "tests/jail/attempts.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum { FILTER = -1 }; /* stopped by seccomp: SIGSYS */

struct attempt {
    const char *name;
    int under_filter;
    /* Without the base filter; further ones where it depends on what the kernel has. 0: only the filter stops it. */
    int behind[3];
};

static const struct attempt attempts[] = {
    /* an empty root */
    {"open", ENOENT, {ENOENT}},
    {"climb", ENOENT, {ENOENT}},
    {"climb-by-directory", FILTER, {ENOENT}},
    {"proc", ENOENT, {ENOENT}},
    {"own-binary", ENOENT, {ENOENT}},
    {"exec", FILTER, {ENOENT}},
    /* the same by io_uring, which the filter does not see */
    {"ring-open", ENOENT, {ENOENT}},
    {"ring-tcp", EACCES, {EACCES, ENETUNREACH}},
    /* no descriptor that can be written */
    {"write-binary-by-fd", EBADF, {EBADF}},
    /* Landlock, and where it is missing the empty root and the capabilities */
    {"symlink", FILTER, {EACCES, ENOENT}},
    {"hard-link", FILTER, {EXDEV}},
    {"mknod", FILTER, {EACCES, EPERM}},
    {"mknod-in-dev", FILTER, {EACCES, EPERM}},
    {"tcp", FILTER, {EACCES, ENETUNREACH}},
    /* no capabilities */
    {"mount", FILTER, {EPERM}},
    {"remount", FILTER, {EPERM}},
    {"umount", FILTER, {EPERM}},
    {"fsopen", FILTER, {EPERM}},
    {"open-tree", FILTER, {EPERM}},
    {"handle", FILTER, {EPERM}},
    {"chroot", FILTER, {EPERM}},
    {"pivot-root", FILTER, {EPERM}},
    {"unshare", FILTER, {EPERM}},
    {"setns", FILTER, {EPERM}},
    {"raw-socket", FILTER, {EPERM}},
    {"packet-socket", FILTER, {EPERM}},
    {"raise-files", FILTER, {EPERM}},
    {"raise-core", FILTER, {EPERM}},
    {"nice", FILTER, {EACCES}},
    {"capset", FILTER, {EPERM}},
    {"have-capabilities", FILTER, {EPERM}},
    {"securebits", FILTER, {EPERM}},
    {"setuid", FILTER, {EPERM, EINVAL}},
    {"setgid", FILTER, {EPERM, EINVAL}}, /* in a user namespace there are no other ids */
    {"setgroups", FILTER, {EPERM}},
    {"chown", FILTER, {EPERM, EINVAL}},
    {"bpf", FILTER, {EPERM}},
    {"perf", FILTER, {EACCES, EPERM}},
    {"module", FILTER, {EPERM, ENOSYS}},
    {"module-by-fd", FILTER, {EPERM, ENOSYS}},
    {"kexec", FILTER, {EPERM, ENOSYS}},
    {"reboot", FILTER, {EPERM}},
    {"ports", FILTER, {EPERM, ENOSYS}},
    {"clock", FILTER, {EPERM}},
    {"hostname", FILTER, {EPERM}},
    {"swap", FILTER, {EPERM}},
    {"kernel-log", FILTER, {EPERM}},
    /* no capabilities in a user namespace, either */
    {"userns-mount", FILTER, {EPERM}},
    /* no_new_privs does not come off */
    {"new-privileges", EINVAL, {EINVAL}},
    /* another user's process, or none in sight */
    {"kill-parent", FILTER, {EPERM, ESRCH}},
    {"ptrace", FILTER, {EPERM, ESRCH}},
    {"process-vm", FILTER, {EPERM, ESRCH}},
    /* nothing but the filter: these harm nobody by themselves, but kernels have had bugs there */
    {"userns", FILTER, {0}},
    {"pidfd", FILTER, {0}},
    {"fork", FILTER, {0}},
    {"udp", FILTER, {0}},
    {"vsock", FILTER, {0}},
    {"netlink", FILTER, {0}},
    {"keyring", FILTER, {0}},
    {"keyctl", FILTER, {0}},
    {"executable-memory", FILTER, {0}},
    {"int80", FILTER, {0}},
    {"x32", FILTER, {0}},
};

static void describe(const struct outcome *outcome, char *text, size_t size)
{
    if (WIFSIGNALED(outcome->status))
        snprintf(text, size, "killed by %s", strsignal(WTERMSIG(outcome->status)));
    else if (WEXITSTATUS(outcome->status) == 0)
        snprintf(text, size, "it succeeded");
    else
        snprintf(text, size, "%s", strerror(WEXITSTATUS(outcome->status)));
}

bool attempt_stopped_by(const struct outcome *outcome, int how)
{
    if (how == FILTER)
        return WIFSIGNALED(outcome->status) && WTERMSIG(outcome->status) == SIGSYS;
    return how > 0 && WIFEXITED(outcome->status) && WEXITSTATUS(outcome->status) == how;
}

static const struct attempt_exception *find_exception(const struct attempt_exception *exceptions, const char *name)
{
    for (; exceptions != NULL && exceptions->name != NULL; exceptions++)
        if (strcmp(exceptions->name, name) == 0)
            return exceptions;
    return NULL;
}

void attempt_all(struct jail *jail, const char *const *options, bool filtered,
                 const struct attempt_exception *exceptions)
{
    unsigned escaped = 0;

    for (size_t i = 0; i < array_length(attempts); i++) {
        const struct attempt *attempt = &attempts[i];
        const char *arguments[64];
        const char *more[16];
        size_t count = 0;
        struct outcome outcome;
        char how[256];

        const struct attempt_exception *exception = find_exception(exceptions, attempt->name);
        if (!filtered && attempt->behind[0] == 0 && exception == NULL)
            continue;
        for (; options[count] != NULL; count++)
            more[count] = options[count];
        more[count++] = "--";
        more[count++] = attempt->name;
        more[count] = NULL;
        jail_arguments(jail, arguments, more);
        jail_run_arguments(jail, &outcome, arguments);
        jail_remove(jail);

        bool stopped = filtered && attempt_stopped_by(&outcome, attempt->under_filter);
        for (size_t j = 0; !filtered && j < array_length(attempt->behind); j++)
            stopped = stopped || attempt_stopped_by(&outcome, attempt->behind[j]);
        if (exception != NULL)
            stopped = WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == exception->result;
        if (stopped)
            continue;
        describe(&outcome, how, sizeof(how));
        print_error("%s: %s\n%s", attempt->name, how, outcome.errors);
        escaped++;
    }
    assert_int_equal(escaped, 0);
}
