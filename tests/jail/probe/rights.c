/* Limits, capabilities, users and groups. */
#include "tests/jail/probe/probe.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int raise_limit(int resource)
{
    struct rlimit limit;

    if (getrlimit(RESOURCE(resource), &limit) < 0)
        return errno;
    limit.rlim_cur = limit.rlim_max = limit.rlim_max + 1;
    return stopped(setrlimit(RESOURCE(resource), &limit));
}

static int attempt_raise_files(void)
{
    return raise_limit(RLIMIT_NOFILE);
}

static int attempt_raise_core(void)
{
    return raise_limit(RLIMIT_CORE);
}

static int attempt_nice(void)
{
    return stopped(setpriority(PRIO_PROCESS, 0, -20));
}

static int attempt_capset(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = 1u << CAP_SETUID, .permitted = 1u << CAP_SETUID}};

    return stopped(syscall(SYS_capset, &header, data));
}

/* EPERM unless one of the five sets has something in it. */
static int attempt_have_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    if (syscall(SYS_capget, &header, data) < 0)
        return errno;
    for (int i = 0; i < 2; i++)
        if ((data[i].effective | data[i].permitted | data[i].inheritable) != 0)
            return 0;
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        if (prctl(PR_CAPBSET_READ, cap) == 1 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
            return 0;
    return EPERM;
}

static int attempt_securebits(void)
{
    return stopped(prctl(PR_SET_SECUREBITS, 0));
}

static int attempt_new_privileges(void)
{
    return stopped(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

static int attempt_setuid(void)
{
    return stopped(syscall(SYS_setresuid, 1, 1, 1));
}

static int attempt_setgid(void)
{
    return stopped(syscall(SYS_setresgid, 1, 1, 1));
}

static int attempt_setgroups(void)
{
    gid_t group = 0;

    return stopped(syscall(SYS_setgroups, 1, &group));
}

static int attempt_chown(void)
{
    return stopped(chown("/run", 1, 1));
}

const struct command attempts_on_rights[] = {
    {"raise-files", attempt_raise_files},
    {"raise-core", attempt_raise_core},
    {"nice", attempt_nice},
    {"capset", attempt_capset},
    {"have-capabilities", attempt_have_capabilities},
    {"securebits", attempt_securebits},
    {"new-privileges", attempt_new_privileges},
    {"setuid", attempt_setuid},
    {"setgid", attempt_setgid},
    {"setgroups", attempt_setgroups},
    {"chown", attempt_chown},
    {NULL, NULL},
};
