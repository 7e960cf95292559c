/* The doctor's checks of what the jail is built of, on hosts made of a few files. */
#include "tests/unit/doctor_fixture.h"

#include <errno.h>

#define MOUNT(point, type, options) "31 23 0:28 / " point " rw,relatime shared:4 - " type " none rw," options "\n"
#define CGROUP2                                                                                                        \
    {                                                                                                                  \
        "/proc/self/mountinfo", "broken\n" MOUNT("/proc", "proc", "x") MOUNT("/cg", "cgroup2", "nsdelegate")           \
    }
#define CGROUP1                                                                                                        \
    {                                                                                                                  \
        "/proc/self/mountinfo", MOUNT("/cg/cpu", "cgroup", "cpu,cpuacct") MOUNT("/cg/memory", "cgroup", "memory")      \
                                    MOUNT("/cg/pids", "cgroup", "pids") MOUNT("/cg/unified", "cgroup2", "x")           \
    }

static void test_cgroup_needs_its_controllers(void **state)
{
    static const struct expectation rows[] = {
        {check_cgroup,
         {CGROUP2, {"/cg/cgroup.controllers", "cpuset cpu io memory pids\n"}},
         0,
         VERDICT_OK,
         "version 2 at /cg, with cpu, memory, pids, cpuset, io",
         NULL},
        {check_cgroup,
         {CGROUP2, DEBIAN, {"/cg/cgroup.controllers", "cpuset cpu pids\n"}},
         0,
         VERDICT_PROBLEM,
         "version 2 has no controller for: memory",
         "cgroup_enable=memory\"' | sudo tee -a /etc/default/grub.d"},
        {check_cgroup,
         {CGROUP2, {"/cg/cgroup.controllers", "cpu memory\n"}},
         0,
         VERDICT_PROBLEM,
         "no controller for: pids",
         NULL},
        {check_cgroup, {CGROUP2}, 0, VERDICT_PROBLEM, "no controller for: cpu, memory, pids", "grubby"},
        {check_cgroup,
         {CGROUP1, {"/cg/unified/cgroup.controllers", "\n"}},
         0,
         VERDICT_NOTE,
         "version 1, with cpu, memory, pids",
         "systemd.unified_cgroup_hierarchy=1"},
        {check_cgroup,
         {{"/proc/self/mountinfo", MOUNT("/proc", "proc", "x")}},
         0,
         VERDICT_PROBLEM,
         "no cgroup file system",
         "mount -t cgroup2"},
        {check_cgroup, {{0}}, 0, VERDICT_PROBLEM, "no cgroup file system", "mount -t cgroup2"},
    };

    (void)state;
    EXPECT_ALL(rows);
}

#define DELEGATED "/cg/user.slice/user-1000.slice/user@1000.service/cgroup.controllers"

static void test_delegation_matters_to_ordinary_users(void **state)
{
    static const struct file controllers = {"/cg/cgroup.controllers", "cpuset cpu io memory pids\n"};
    const struct expectation rows[] = {
        {check_cgroup_delegation, {CGROUP1}, 0, VERDICT_OK, "root needs none", NULL},
        {check_cgroup_delegation, {CGROUP1}, 1000, VERDICT_NOTE, "only cgroup version 2", "unified_cgroup_hierarchy"},
        {check_cgroup_delegation,
         {CGROUP2, controllers},
         1000,
         VERDICT_NOTE,
         "no systemd runs for user 1000",
         "loginctl enable-linger"},
        {check_cgroup_delegation,
         {CGROUP2, controllers, {DELEGATED, "memory pids\n"}},
         1000,
         VERDICT_NOTE,
         "does not delegate: cpu",
         "Delegate=cpu"},
        {check_cgroup_delegation,
         {CGROUP2, controllers, {DELEGATED, "cpu memory pids\n"}},
         1000,
         VERDICT_OK,
         "delegates cpu memory pids",
         NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

#define USER_NS                                                                                                        \
    {                                                                                                                  \
        "/proc/self/ns/user", ""                                                                                       \
    }

static void test_each_lock_on_user_namespaces_is_found(void **state)
{
    static const struct expectation rows[] = {
        {check_user_namespaces, {USER_NS}, 1000, VERDICT_OK, "ordinary users may", NULL},
        {check_user_namespaces, {{0}}, 1000, VERDICT_PROBLEM, "CONFIG_USER_NS", NULL},
        {check_user_namespaces, {{0}}, 0, VERDICT_NOTE, "CONFIG_USER_NS", NULL},
        {check_user_namespaces,
         {USER_NS, {"/proc/sys/user/max_user_namespaces", "0\n"}},
         1000,
         VERDICT_PROBLEM,
         "user.max_user_namespaces is 0",
         "sysctl -w user.max_user_namespaces=65536"},
        {check_user_namespaces,
         {USER_NS, {"/proc/sys/kernel/unprivileged_userns_clone", "0\n"}},
         1000,
         VERDICT_PROBLEM,
         "only root may",
         "kernel.unprivileged_userns_clone=1"},
        {check_user_namespaces,
         {USER_NS, {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"}},
         1000,
         VERDICT_PROBLEM,
         "AppArmor",
         "profile mayfly /opt/mayfly/mayfly{,-jailer,-vmm}"},
        {check_user_namespaces,
         {USER_NS,
          {"/proc/sys/user/max_user_namespaces", "96365\n"},
          {"/proc/sys/kernel/unprivileged_userns_clone", "1\n"},
          {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0\n"}},
         1000,
         VERDICT_OK,
         "ordinary users may",
         NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

static void test_landlock_is_told_from_absent_and_turned_off(void **state)
{
    static const struct expectation on = {check_landlock, {{0}}, 0, VERDICT_OK, "ABI 7", NULL};
    static const struct expectation absent = {check_landlock, {{0}}, 0, VERDICT_NOTE, "has no Landlock", NULL};
    static const struct expectation off[] = {
        {check_landlock,
         {{"/sys/kernel/security/lsm", "lockdown,yama,apparmor"}},
         0,
         VERDICT_NOTE,
         "not turned on",
         "lsm=landlock,lockdown,yama,apparmor"},
        {check_landlock, {{0}}, 0, VERDICT_NOTE, "not turned on", NULL}, /* the list of the others is unknown */
    };

    (void)state;
    answers.landlock_abi = 7;
    expect_all(&on, 1);
    answers.landlock_abi = -ENOSYS;
    expect_all(&absent, 1);
    answers.landlock_abi = -EOPNOTSUPP;
    EXPECT_ALL(off);
}

#define ACTIONS "/proc/sys/kernel/seccomp/actions_avail"

static void test_seccomp_needs_its_actions(void **state)
{
    static const struct expectation rows[] = {
        {check_seccomp, {{ACTIONS, "kill_process kill_thread trap errno log allow\n"}}, 0, VERDICT_OK, "trap", NULL},
        {check_seccomp, {{ACTIONS, "kill_thread trap errno allow\n"}}, 0, VERDICT_PROBLEM, "kill_process, log", NULL},
        {check_seccomp, {{0}}, 0, VERDICT_PROBLEM, "CONFIG_SECCOMP_FILTER", NULL},
    };

    (void)state;
    EXPECT_ALL(rows);
}

TEST_MAIN(doctor_test(test_cgroup_needs_its_controllers), doctor_test(test_delegation_matters_to_ordinary_users),
          doctor_test(test_each_lock_on_user_namespaces_is_found),
          doctor_test(test_landlock_is_told_from_absent_and_turned_off), doctor_test(test_seccomp_needs_its_actions))
