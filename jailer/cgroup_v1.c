/* Version 1: a hierarchy for each controller (or several), each mounted apart. */
#include "jailer/cgroup.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>

enum { CONTROLLER_NAME_MAX = 64 };

/* A new cpuset has no cpus and no memory nodes, and nothing can join it: it starts with its parent's. */
static struct error *fill_cpuset(int parent, int child)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    char value[4096];

    for (size_t i = 0; i < array_length(files); i++) {
        if (!cgroup_read(child, files[i], value, sizeof(value)))
            return error_errno(errno, "--cgroup: cannot read \"%s\" of the new cgroup", files[i]);
        if (value[0] != '\0')
            continue;
        if (!cgroup_read(parent, files[i], value, sizeof(value)))
            return error_errno(errno, "--cgroup: cannot read \"%s\" of the parent cgroup", files[i]);

        struct error *error = cgroup_write(child, files[i], value);
        if (error != NULL)
            return error;
    }
    return NULL;
}

static struct error *prepare_group(int parent, int child, const void *controller)
{
    return child < 0 || strcmp(controller, "cpuset") != 0 ? NULL : fill_cpuset(parent, child);
}

static bool has_controller(const struct jail_config *config, size_t before, const char *controller)
{
    char other[CONTROLLER_NAME_MAX];

    for (size_t i = 0; i < before; i++) {
        cgroup_controller_name(config->cgroups[i].file, other, sizeof(other));
        if (strcmp(other, controller) == 0)
            return true;
    }
    return false;
}

/* The jail's group in the hierarchy of `controller`, made unless an earlier setting made it. */
static struct error *enter_hierarchy(const struct jail_config *config, const char *controller, struct cgroup *cgroup,
                                     struct undo *undo)
{
    char usual[128];
    int mount;

    if (cgroup->count == CGROUP_HIERARCHIES_MAX)
        return error_new(ERROR_INPUT, "--cgroup: more than %d controllers", CGROUP_HIERARCHIES_MAX);
    snprintf(usual, sizeof(usual), "/sys/fs/cgroup/%s", controller);

    struct error *error = cgroup_open_mount(usual, CGROUP_SUPER_MAGIC, controller, &mount);
    const struct cgroup_tree tree = {mount, mount};
    if (error == NULL)
        error = cgroup_open_group(config, &tree, prepare_group, controller, undo, &cgroup->groups[cgroup->count]);
    if (error == NULL)
        cgroup->count++;
    return error;
}

/* A limit that protects the host where the host can keep it. */
static struct error *limit(const struct jail_config *config, const char *what, const char *file, uint64_t number,
                           struct cgroup *cgroup, struct undo *undo)
{
    char controller[CONTROLLER_NAME_MAX];
    char value[24];

    cgroup_controller_name(file, controller, sizeof(controller));
    struct error *error = enter_hierarchy(config, controller, cgroup, undo);
    if (error != NULL && error->kind != ERROR_INPUT)
        return error;
    if (error != NULL) { /* there is no such hierarchy on this host */
        fprintf(stderr, "mayfly-jailer: no cgroup limit on %s: %s\n", what, error->message);
        error_free(error);
        return NULL;
    }
    cgroup->limits_processes = cgroup->limits_processes || strcmp(controller, "pids") == 0;
    snprintf(value, sizeof(value), "%llu", (unsigned long long)number);
    return cgroup_write(cgroup->groups[cgroup->count - 1], file, value);
}

struct error *cgroup_v1_create(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo)
{
    int group_of[JAIL_SETTINGS_MAX];

    for (size_t i = 0; i < config->cgroup_count; i++) {
        char controller[CONTROLLER_NAME_MAX];
        struct error *error = NULL;

        cgroup_controller_name(config->cgroups[i].file, controller, sizeof(controller));
        group_of[i] = -1;
        for (size_t j = 0; j < i && group_of[i] < 0; j++) {
            char other[CONTROLLER_NAME_MAX];

            cgroup_controller_name(config->cgroups[j].file, other, sizeof(other));
            if (strcmp(other, controller) == 0)
                group_of[i] = group_of[j];
        }
        if (group_of[i] < 0) {
            error = enter_hierarchy(config, controller, cgroup, undo);
            group_of[i] = error == NULL ? cgroup->groups[cgroup->count - 1] : -1;
        }
        if (error == NULL)
            error = cgroup_write(group_of[i], config->cgroups[i].file, config->cgroups[i].value);
        if (error != NULL)
            return error;
    }
    struct error *error = NULL;
    if (!has_controller(config, config->cgroup_count, "pids"))
        error = limit(config, "processes", "pids.max", JAIL_PIDS_MAX_DEFAULT, cgroup, undo);
    if (error == NULL && config->memory_limit != 0)
        error = limit(config, "memory", "memory.limit_in_bytes", config->memory_limit, cgroup, undo);
    return error;
}
