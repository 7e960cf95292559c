/* A taken VMM tries to get out: each attempt is stopped by the base filter, and without it by the wall behind. */
#include "tests/jail/jail.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <signal.h>

enum { FILTER = -1 }; /* stopped by seccomp: SIGSYS */

struct attempt {
    const char *name;
    int under_filter;
    /* Without the base filter; a second one where it depends on what the kernel has. 0: only the filter stops it. */
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

/* A listening socket without a path, which only the network namespace and Landlock keep from the jail. */
static int listen_abstract(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0mayfly-jail-test"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof("mayfly-jail-test"))),
                     0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void describe(const struct outcome *outcome, char *text, size_t size)
{
    if (WIFSIGNALED(outcome->status))
        snprintf(text, size, "killed by %s", strsignal(WTERMSIG(outcome->status)));
    else if (WEXITSTATUS(outcome->status) == 0)
        snprintf(text, size, "it succeeded");
    else
        snprintf(text, size, "%s", strerror(WEXITSTATUS(outcome->status)));
}

static bool stopped_by(const struct outcome *outcome, int how)
{
    if (how == FILTER)
        return WIFSIGNALED(outcome->status) && WTERMSIG(outcome->status) == SIGSYS;
    return how > 0 && WIFEXITED(outcome->status) && WEXITSTATUS(outcome->status) == how;
}

/* Runs all attempts with `options` (NULL-terminated); reports every one that ends otherwise. */
static void try_all(struct jail *jail, const char *const *options, bool filtered)
{
    unsigned escaped = 0;

    for (size_t i = 0; i < array_length(attempts); i++) {
        const struct attempt *attempt = &attempts[i];
        const char *arguments[64];
        const char *more[16];
        size_t count = 0;
        struct outcome outcome;
        char how[256];

        if (!filtered && attempt->behind[0] == 0)
            continue;
        for (; options[count] != NULL; count++)
            more[count] = options[count];
        more[count++] = "--";
        more[count++] = attempt->name;
        more[count] = NULL;
        jail_arguments(jail, arguments, more);
        jail_run_arguments(jail, &outcome, arguments);
        jail_remove(jail);

        bool stopped = filtered && stopped_by(&outcome, attempt->under_filter);
        for (size_t j = 0; !filtered && j < array_length(attempt->behind); j++)
            stopped = stopped || stopped_by(&outcome, attempt->behind[j]);
        if (stopped)
            continue;
        describe(&outcome, how, sizeof(how));
        print_error("%s: %s\n%s", attempt->name, how, outcome.errors);
        escaped++;
    }
    assert_int_equal(escaped, 0);
}

static void test_base_filter_stops_every_attempt(void **state)
{
    try_all(*state, (const char *const[]){NULL}, true);
}

static void test_the_other_walls_hold_without_the_filter(void **state)
{
    try_all(*state, (const char *const[]){"--no-base-filter", NULL}, false);
}

static void test_the_other_walls_hold_for_uid_zero(void **state)
{
    struct jail *jail = *state;

    jail->uid = 0;
    jail->gid = 0;
    try_all(jail, (const char *const[]){"--no-base-filter", NULL}, false);
}

static void test_namespaces_hold_without_the_filter(void **state)
{
    try_all(*state,
            (const char *const[]){"--no-base-filter", "--new-net-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns",
                                  "--new-time-ns", NULL},
            false);
}

static void test_base_filter_stops_every_attempt_in_a_users_jail(void **state)
{
    try_all(*state, (const char *const[]){NULL}, true);
}

/* With all namespaces, as mayfly run has them: outside of the jail are processes of the same user. */
static void test_the_other_walls_hold_in_a_users_jail(void **state)
{
    try_all(*state,
            (const char *const[]){"--no-base-filter", "--new-pid-ns", "--new-net-ns", "--new-ipc-ns", "--new-uts-ns",
                                  "--new-cgroup-ns", "--new-time-ns", NULL},
            false);
}

/* An attempt in a pid namespace: killed by SIGSYS comes out as an exit code. */
static void assert_in_pid_namespace(struct jail *jail, const char *attempt, int code)
{
    struct outcome outcome;

    jail_run(jail, &outcome, "--new-pid-ns", "--no-base-filter", "--", attempt, NULL);
    jail_remove(jail);
    assert_exited(&outcome, code);
}

static void test_a_pid_namespace_hides_other_processes(void **state)
{
    assert_in_pid_namespace(*state, "kill-parent", ESRCH);
    assert_in_pid_namespace(*state, "ptrace", ESRCH);
    assert_in_pid_namespace(*state, "process-vm", ESRCH);
    assert_in_pid_namespace(*state, "pidfd", ESRCH);
}

static void test_a_pid_namespace_hides_other_processes_of_the_user(void **state)
{
    test_a_pid_namespace_hides_other_processes(state);
}

static void test_a_new_network_namespace_leads_nowhere(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--new-net-ns", "--no-base-filter", "--", "udp", NULL);
    assert_exited(&outcome, ENETUNREACH);
    jail_remove(jail);

    /* Landlock says EPERM before the namespace can say that nobody is there. */
    cleanup_fd int listener = listen_abstract();
    jail_run(jail, &outcome, "--new-net-ns", "--", "abstract-socket", NULL);
    assert_true(stopped_by(&outcome, EPERM) || stopped_by(&outcome, ECONNREFUSED));
}

static void test_pids_limit_stops_forks(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    /* The guardian takes the second place for as long as there is a jailer. */
    jail_run(jail, &outcome, "--cgroup", "pids.max=2", "--no-base-filter", "--", "fork", NULL);
    jail_remove(jail);
    assert_exited(&outcome, 0);

    jail_run(jail, &outcome, "--cgroup", "pids.max=1", "--no-base-filter", "--", "fork", NULL);
    assert_refused(&outcome, "cannot start the guardian thread: Resource temporarily unavailable");
    assert_nothing_left(jail);
}

static void test_what_a_vmm_needs_is_there(void **state)
{
    static const char *const needs[] = {"kvm", "tun", "urandom", "listen"};
    struct jail *jail = *state;

    for (size_t i = 0; i < array_length(needs); i++) {
        struct outcome outcome;

        jail_run(jail, &outcome, "--", needs[i], NULL);
        jail_remove(jail);
        assert_exited(&outcome, 0);
    }
}

static void test_what_a_vmm_needs_is_there_for_a_user(void **state)
{
    test_what_a_vmm_needs_is_there(state);
}

static void test_devices_that_are_refused_are_missing(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--no-tun", "--", "tun", NULL);
    assert_exited(&outcome, ENOENT);
}

TEST_MAIN(jail_test(test_base_filter_stops_every_attempt), jail_test(test_the_other_walls_hold_without_the_filter),
          jail_test(test_the_other_walls_hold_for_uid_zero), jail_test(test_namespaces_hold_without_the_filter),
          user_test(test_base_filter_stops_every_attempt_in_a_users_jail),
          user_test(test_the_other_walls_hold_in_a_users_jail), user_test(test_what_a_vmm_needs_is_there_for_a_user),
          user_test(test_a_pid_namespace_hides_other_processes_of_the_user),
          jail_test(test_a_pid_namespace_hides_other_processes), jail_test(test_a_new_network_namespace_leads_nowhere),
          jail_test(test_pids_limit_stops_forks), jail_test(test_what_a_vmm_needs_is_there),
          jail_test(test_devices_that_are_refused_are_missing))
