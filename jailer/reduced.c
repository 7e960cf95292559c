#include "jailer/reduced.h"

#include "jailer/privilege.h"
#include "jailer/root.h"
#include "vmm/base/cleanup.h"

#include <errno.h>
#include <linux/capability.h>
#include <unistd.h>

struct error *reduced_prepare(struct jail_config *config, struct missing *missing)
{
    static const struct {
        size_t flag;
        const char *wall;
    } namespaces[] = {
        {offsetof(struct jail_config, new_pid_ns), "pid"},       {offsetof(struct jail_config, new_net_ns), "net"},
        {offsetof(struct jail_config, new_ipc_ns), "ipc"},       {offsetof(struct jail_config, new_uts_ns), "uts"},
        {offsetof(struct jail_config, new_cgroup_ns), "cgroup"}, {offsetof(struct jail_config, new_time_ns), "time"},
    };

    if (config->netns != NULL)
        return error_new(ERROR_HOST, "--netns: joining \"%s\" takes CAP_SYS_ADMIN, which this process has not",
                         config->netns);
    missing_add(missing, "mount namespace");
    if (config->uid == geteuid())
        missing_add(missing, "a user of its own");
    for (size_t i = 0; i < array_length(namespaces); i++) {
        bool *wanted = (bool *)((char *)config + namespaces[i].flag);

        if (*wanted)
            missing_add(missing, "%s namespace", namespaces[i].wall);
        *wanted = false;
    }
    return NULL;
}

void reduced_create_cgroup(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo,
                           struct missing *missing)
{
    size_t mark = undo->count;
    struct error *error = cgroup_create(config, cgroup, undo);

    if (error == NULL)
        return;
    undo_run_to(undo, mark);
    cgroup->count = 0;
    cgroup->limits_processes = false;
    missing_add(missing, "cgroup and its limits (%s)", error->message);
    error_free(error);
}

struct error *reduced_enter_root(const struct jail_config *config, const struct devices *devices, int root,
                                 struct undo *undo, struct missing *missing, bool *outside)
{
    struct error *error = root_make_folders(config, root, undo);

    if (error != NULL)
        return error;
    *outside = !privilege_has(CAP_SYS_CHROOT) || !devices_create_in_folder(config, devices, undo, root);
    if (*outside)
        missing_add(missing, "empty root (paths are the container's; Landlock allows those of the jail's folder)");
    if (fchdir(root) < 0)
        return error_errno(errno, "cannot enter the jail's root");
    if (!*outside && (chroot(".") < 0 || chdir("/") < 0))
        return error_errno(errno, "cannot make the jail's root the root (chroot)");
    return NULL;
}
