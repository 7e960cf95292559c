/* What the jail is built of. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/cli/doctor.h"
#include "vmm/base/cleanup.h"

/* Those that the jail sets limits with, always; and those that it only uses when asked. */
static const char *const needed[] = {"cpu", "memory", "pids"};
static const char *const useful[] = {"cpuset", "io"};

/* The mounts of cgroup file systems, as /proc/self/mountinfo has them. */
struct cgroup_mounts {
    bool has_v1, has_v2;
    char v1[256];       /* controllers, with blanks between them */
    char v2[256];       /* the same */
    char v2_point[256]; /* where cgroup2 is mounted */
};

static void mounts_add(const struct host *host, struct cgroup_mounts *mounts, const char *line)
{
    char point[256], type[16], options[256], path[300];
    const char *rest = strstr(line, " - ");
    size_t length = strlen(mounts->v1);

    if (rest == NULL || sscanf(line, "%*s %*s %*s %*s %255s", point) != 1 ||
        sscanf(rest, " - %15s %*s %255s", type, options) != 2)
        return;
    if (strcmp(type, "cgroup") == 0) {
        mounts->has_v1 = true;
        snprintf(mounts->v1 + length, sizeof(mounts->v1) - length, "%s ", options);
    } else if (strcmp(type, "cgroup2") == 0 && !mounts->has_v2) {
        mounts->has_v2 = true;
        strcpy(mounts->v2_point, point);
        snprintf(path, sizeof(path), "%s/cgroup.controllers", point);
        host_read(host, path, mounts->v2, sizeof(mounts->v2));
    }
}

static void mounts_read(const struct host *host, struct cgroup_mounts *mounts)
{
    FILE *file = host_open(host, "/proc/self/mountinfo");
    cleanup_free char *line = NULL;
    size_t size = 0;

    *mounts = (struct cgroup_mounts){0};
    while (file != NULL && getline(&line, &size, file) > 0)
        mounts_add(host, mounts, line);
    if (file != NULL)
        fclose(file);
}

/* Writes those of `wanted` that are (or, with `there` false, are not) words of `among`, with commas. */
static void words_list(const char *among, const char *const *wanted, size_t count, bool there, char *text, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(text);

        if (has_word(among, wanted[i]) == there)
            snprintf(text + length, size - length, "%s%s", length > 0 ? ", " : "", wanted[i]);
    }
}

void check_cgroup(const struct host *host, struct finding *finding)
{
    struct cgroup_mounts mounts;
    char all[520], have[128] = "", missing[128] = "";

    mounts_read(host, &mounts);
    if (!mounts.has_v1 && !mounts.has_v2) {
        finding_set(finding, VERDICT_PROBLEM, "no cgroup file system is mounted");
        finding_mend(finding, "sudo mount -t cgroup2 none /sys/fs/cgroup");
        return;
    }
    snprintf(all, sizeof(all), "%s %s", mounts.v1, mounts.v2);
    words_list(all, needed, array_length(needed), true, have, sizeof(have));
    words_list(all, useful, array_length(useful), true, have, sizeof(have));
    words_list(all, needed, array_length(needed), false, missing, sizeof(missing));
    if (missing[0] != '\0') {
        finding_set(finding, VERDICT_PROBLEM, "cgroup version %d has no controller for: %s", mounts.has_v2 ? 2 : 1,
                    missing);
        if (!has_word(all, "memory"))
            finding_mend_boot(host, finding, "cgroup_enable=memory");
    } else if (has_word(mounts.v2, "memory")) {
        finding_set(finding, VERDICT_OK, "version 2 at %s, with %s", mounts.v2_point, have);
    } else {
        finding_set(finding, VERDICT_NOTE,
                    "version 1, with %s: nothing is delegated to ordinary users, and entering a group is slower", have);
        finding_mend_boot(host, finding, "systemd.unified_cgroup_hierarchy=1");
    }
}

void check_cgroup_delegation(const struct host *host, struct finding *finding)
{
    struct cgroup_mounts mounts;
    char path[512], controllers[256], missing[128] = "";

    mounts_read(host, &mounts);
    if (host->uid == 0) {
        finding_set(finding, VERDICT_OK, "root needs none");
        return;
    }
    if (!has_word(mounts.v2, "memory")) {
        finding_set(finding, VERDICT_NOTE, "only cgroup version 2 can be delegated to ordinary users");
        finding_mend_boot(host, finding, "systemd.unified_cgroup_hierarchy=1");
        return;
    }
    snprintf(path, sizeof(path), "%s/user.slice/user-%u.slice/user@%u.service/cgroup.controllers", mounts.v2_point,
             (unsigned)host->uid, (unsigned)host->uid);
    if (!host_read(host, path, controllers, sizeof(controllers))) {
        finding_set(finding, VERDICT_NOTE, "no systemd runs for user %u, so no cgroup is delegated",
                    (unsigned)host->uid);
        finding_mend(finding, "sudo loginctl enable-linger \"$USER\"");
        return;
    }
    words_list(controllers, needed, array_length(needed), false, missing, sizeof(missing));
    if (missing[0] == '\0') {
        finding_set(finding, VERDICT_OK, "systemd delegates %s", controllers);
        return;
    }
    finding_set(finding, VERDICT_NOTE, "systemd does not delegate: %s", missing);
    finding_mend(finding,
                 "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset "
                 "io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo "
                 "systemctl daemon-reload && sudo systemctl restart user@$(id -u)");
}

void check_user_namespaces(const struct host *host, struct finding *finding)
{
    enum verdict verdict = host->uid == 0 ? VERDICT_NOTE : VERDICT_PROBLEM;
    uint64_t number;

    if (!host_has(host, "/proc/self/ns/user")) {
        finding_set(finding, verdict, "the kernel has no user namespaces (CONFIG_USER_NS)");
    } else if (host_read_number(host, "/proc/sys/user/max_user_namespaces", &number) && number == 0) {
        finding_set(finding, verdict, "no user namespace may be made (user.max_user_namespaces is 0)");
        finding_mend_sysctl(finding, "user.max_user_namespaces", "65536");
    } else if (host_read_number(host, "/proc/sys/kernel/unprivileged_userns_clone", &number) && number == 0) {
        finding_set(finding, verdict, "only root may make user namespaces (kernel.unprivileged_userns_clone is 0)");
        finding_mend_sysctl(finding, "kernel.unprivileged_userns_clone", "1");
    } else if (host_read_number(host, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", &number) &&
               number != 0) {
        /* A profile of our own leaves the restriction in force for all other programs. */
        finding_set(finding, verdict, "AppArmor takes user namespaces from programs without a profile");
        finding_mend(finding,
                     "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile mayfly %s/mayfly{,-jailer,-vmm} "
                     "flags=(unconfined) {\\n  userns,\\n}\\n' | sudo tee /etc/apparmor.d/mayfly && sudo "
                     "apparmor_parser -r /etc/apparmor.d/mayfly",
                     host->programs);
    } else {
        finding_set(finding, VERDICT_OK, "ordinary users may make them");
    }
}

void check_landlock(const struct host *host, struct finding *finding)
{
    char modules[256], words[300];
    int abi = host->landlock_abi();

    if (abi > 0) {
        finding_set(finding, VERDICT_OK, "ABI %d", abi);
    } else if (abi == -EOPNOTSUPP) {
        finding_set(finding, VERDICT_NOTE, "the kernel has Landlock, but it is not turned on");
        host_read(host, "/sys/kernel/security/lsm", modules, sizeof(modules));
        snprintf(words, sizeof(words), "lsm=landlock%s%s", modules[0] != '\0' ? "," : "", modules);
        if (modules[0] != '\0') /* else the list would turn all others off */
            finding_mend_boot(host, finding, words);
    } else {
        finding_set(finding, VERDICT_NOTE, "the kernel has no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK)");
    }
}

void check_seccomp(const struct host *host, struct finding *finding)
{
    static const char *const actions[] = {"kill_process", "trap", "log"};
    char available[256], missing[64] = "";

    if (!host_read(host, "/proc/sys/kernel/seccomp/actions_avail", available, sizeof(available))) {
        finding_set(finding, VERDICT_PROBLEM, "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)");
        return;
    }
    words_list(available, actions, array_length(actions), false, missing, sizeof(missing));
    if (missing[0] != '\0')
        finding_set(finding, VERDICT_PROBLEM, "seccomp filters have no action: %s", missing);
    else
        finding_set(finding, VERDICT_OK, "filters with %s", available);
}
