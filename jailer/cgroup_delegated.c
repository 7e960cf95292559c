/*
 * An ordinary user's cgroups: those of version 2 that root, mostly by way of systemd, has given to the user. The jail's
 * group goes below the highest one that the user may manage and that the jailer is in: the kernel lets a process move
 * only within such a subtree.
 */
#include "jailer/cgroup.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The path of this process's group of version 2; empty when there is none. */
static struct error *find_own_path(char *path, size_t size)
{
    char text[8192];
    cleanup_fd int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    if (got < 0)
        return error_errno(errno, "cannot read /proc/self/cgroup");
    text[got] = '\0';
    path[0] = '\0';

    const char *line = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
    if (line == NULL)
        return NULL;
    line = strchr(line, '/');
    snprintf(path, size, "%.*s", (int)strcspn(line, "\n"), line);
    return NULL;
}

static bool may_manage(int group)
{
    static const char *const places[] = {".", "cgroup.procs", "cgroup.subtree_control"};

    for (size_t i = 0; i < array_length(places); i++)
        if (faccessat(group, places[i], W_OK, AT_EACCESS) < 0)
            return false;
    return true;
}

/* Descriptors stay open until exec. */
struct error *cgroup_delegated_find(struct jail_config *config, struct cgroup_tree *tree)
{
    char *delegated = config->delegated_cgroup;
    size_t length = 0;
    char path[4096];
    char *rest = NULL;
    int at;

    tree->top = tree->home = -1;
    if (config->cgroup_version == 1)
        return NULL;
    struct error *error = find_own_path(path, sizeof(path));
    if (error != NULL || path[0] == '\0')
        return error;
    error = cgroup_open_mount("/sys/fs/cgroup", CGROUP2_SUPER_MAGIC, "", &at);
    if (error != NULL)
        return error;
    for (char *part = strtok_r(path, "/", &rest);; part = strtok_r(NULL, "/", &rest)) {
        if (tree->top < 0 && may_manage(at))
            tree->top = at;
        if (part == NULL)
            break;
        if (tree->top < 0 && length < sizeof(config->delegated_cgroup))
            length += (size_t)snprintf(delegated + length, sizeof(config->delegated_cgroup) - length, "%s/", part);

        int child = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0)
            return error_errno(errno, "cannot open the cgroup \"%s\" that the jailer is in", part);
        at = child;
    }
    tree->home = at;
    if (tree->top >= 0 && (!may_manage(tree->home) || length >= sizeof(config->delegated_cgroup)))
        tree->top = -1;
    if (tree->top < 0)
        delegated[0] = '\0';
    return NULL;
}

/* What was asked for and does not hold; a limit on processes the jailer sets in another way. */
static void note(const struct jail_config *config, const char *why)
{
    char lost[1024] = "";
    size_t length = 0;

    for (size_t i = 0; i < config->cgroup_count && length < sizeof(lost); i++)
        length += (size_t)snprintf(lost + length, sizeof(lost) - length, "%s %s=%s", i == 0 ? "; without effect:" : ",",
                                   config->cgroups[i].file, config->cgroups[i].value);
    if (config->memory_limit != 0 && length < sizeof(lost))
        snprintf(lost + length, sizeof(lost) - length, "%s --memory-limit", length == 0 ? "; without effect:" : ",");
    fprintf(stderr, "mayfly-jailer: note: no cgroup: %s%s\n", why, lost);
}

/* Leaves out, and tells, what takes a controller that was not delegated. */
static void keep_available(struct jail_config *config, const char *available)
{
    size_t kept = 0;

    for (size_t i = 0; i < config->cgroup_count; i++) {
        char name[64];

        cgroup_controller_name(config->cgroups[i].file, name, sizeof(name));
        if (strcmp(name, "cgroup") == 0 || cgroup_v2_has_controller(available, name))
            config->cgroups[kept++] = config->cgroups[i];
        else
            fprintf(
                stderr,
                "mayfly-jailer: note: the delegated cgroup has no controller \"%s\": without effect: --cgroup %s=%s\n",
                name, config->cgroups[i].file, config->cgroups[i].value);
    }
    config->cgroup_count = kept;
    if (config->memory_limit != 0 && !cgroup_v2_has_controller(available, "memory"))
        fprintf(stderr, "mayfly-jailer: note: the delegated cgroup has no controller \"memory\": without effect: "
                        "--memory-limit\n");
}

struct error *cgroup_delegated_create(const struct jail_config *config, const struct cgroup_tree *tree,
                                      struct cgroup *cgroup, struct undo *undo)
{
    struct jail_config kept = *config;
    char available[512];
    size_t mark = undo->count;
    struct error *error = NULL;

    *cgroup = (struct cgroup){.version = 2};
    if (tree->top < 0) {
        note(config, "none is delegated to the user that this process is in (`systemd-run --user --scope` gives one)");
        return NULL;
    }
    if (!cgroup_read(tree->top, "cgroup.controllers", available, sizeof(available)))
        error = error_errno(errno, "cannot read cgroup.controllers of the delegated cgroup");
    if (error == NULL) {
        keep_available(&kept, available);
        error = cgroup_v2_create_in(&kept, tree, available, cgroup, undo);
    }
    if (error == NULL || (error->code != EBUSY && error->code != EOPNOTSUPP && error->code != EACCES &&
                          error->code != EPERM && error->code != EROFS))
        return error;

    /* Mostly EBUSY: a group with processes of its own has no controllers to give to groups below. */
    undo_run_to(undo, mark);
    cgroup->count = 0;
    cgroup->limits_processes = false;
    note(config, error->message);
    error_free(error);
    return NULL;
}
