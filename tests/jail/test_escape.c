/* A taken VMM tries to get out: each attempt is stopped by the base filter, and without it by the wall behind. */
#include "tests/jail/attempts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

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

static void test_base_filter_stops_every_attempt(void **state)
{
    attempt_all(*state, (const char *const[]){NULL}, true, NULL);
}

static void test_the_other_walls_hold_without_the_filter(void **state)
{
    attempt_all(*state, (const char *const[]){"--no-base-filter", NULL}, false, NULL);
}

static void test_the_other_walls_hold_for_uid_zero(void **state)
{
    struct jail *jail = *state;

    jail->uid = 0;
    jail->gid = 0;
    attempt_all(jail, (const char *const[]){"--no-base-filter", NULL}, false, NULL);
}

static void test_namespaces_hold_without_the_filter(void **state)
{
    attempt_all(*state,
                (const char *const[]){"--no-base-filter", "--new-net-ns", "--new-ipc-ns", "--new-uts-ns",
                                      "--new-cgroup-ns", "--new-time-ns", NULL},
                false, NULL);
}

static void test_base_filter_stops_every_attempt_in_a_users_jail(void **state)
{
    attempt_all(*state, (const char *const[]){NULL}, true, NULL);
}

/* With all namespaces, as mayfly run has them: outside of the jail are processes of the same user. */
static void test_the_other_walls_hold_in_a_users_jail(void **state)
{
    attempt_all(*state,
                (const char *const[]){"--no-base-filter", "--new-pid-ns", "--new-net-ns", "--new-ipc-ns",
                                      "--new-uts-ns", "--new-cgroup-ns", "--new-time-ns", NULL},
                false, NULL);
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
    /* Neither the filter nor Landlock stop this one. */
    jail_run(jail, &outcome, "--new-net-ns", "--", "ring-udp", NULL);
    assert_exited(&outcome, ENETUNREACH);
    jail_remove(jail);

    /* Landlock says EPERM before the namespace can say that nobody is there. */
    cleanup_fd int listener = listen_abstract();
    (void)listener;
    jail_run(jail, &outcome, "--new-net-ns", "--", "abstract-socket", NULL);
    assert_true(attempt_stopped_by(&outcome, EPERM) || attempt_stopped_by(&outcome, ECONNREFUSED));
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

/* Some are the host's to choose: that of userfaultfd differs from kernel to kernel. */
static void test_devices_have_the_numbers_of_the_host(void **state)
{
    static const char *const devices[] = {"/dev/kvm", "/dev/net/tun", "/dev/userfaultfd"};
    struct jail *jail = *state;

    for (size_t i = 0; i < array_length(devices); i++) {
        struct outcome outcome;
        struct stat status;

        if (stat(devices[i], &status) != 0)
            continue; /* a host without it */
        jail_run(jail, &outcome, "--", devices[i], "number", NULL);
        jail_remove(jail);
        assert_exited(&outcome, 0);
        assert_reported(&outcome, "number %llx\n", (unsigned long long)status.st_rdev);
    }
}

static void test_what_a_vmm_needs_is_there_for_a_user(void **state)
{
    test_what_a_vmm_needs_is_there(state);
}

/* More of the host's kernel within reach is for who asks for it. */
static void test_vhost_net_is_there_when_it_is_asked_for(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;
    struct stat status;
    bool there = stat("/dev/vhost-net", &status) == 0;

    jail_run(jail, &outcome, "--", "/dev/vhost-net", "number", NULL);
    jail_remove(jail);
    assert_exited(&outcome, ENOENT);
    jail_run(jail, &outcome, "--vhost-net", "--", "/dev/vhost-net", "number", NULL);
    if (there) {
        assert_exited(&outcome, 0);
        assert_reported(&outcome, "number %llx\n", (unsigned long long)status.st_rdev);
    } else {
        assert_refused(&outcome, "/dev/vhost-net is not there or not a character device, as --vhost-net asks for: "
                                 "modprobe vhost_net");
    }
}

static void test_devices_that_are_refused_are_missing(void **state)
{
    struct jail *jail = *state;
    struct outcome outcome;

    jail_run(jail, &outcome, "--no-tun", "--", "tun", NULL);
    assert_exited(&outcome, ENOENT);
}

JAIL_MAIN(jail_test(test_base_filter_stops_every_attempt), jail_test(test_the_other_walls_hold_without_the_filter),
          jail_test(test_the_other_walls_hold_for_uid_zero), jail_test(test_namespaces_hold_without_the_filter),
          user_test(test_base_filter_stops_every_attempt_in_a_users_jail),
          user_test(test_the_other_walls_hold_in_a_users_jail), user_test(test_what_a_vmm_needs_is_there_for_a_user),
          user_test(test_a_pid_namespace_hides_other_processes_of_the_user),
          jail_test(test_a_pid_namespace_hides_other_processes), jail_test(test_a_new_network_namespace_leads_nowhere),
          jail_test(test_pids_limit_stops_forks), jail_test(test_what_a_vmm_needs_is_there),
          jail_test(test_devices_have_the_numbers_of_the_host), jail_test(test_vhost_net_is_there_when_it_is_asked_for),
          jail_test(test_devices_that_are_refused_are_missing))
