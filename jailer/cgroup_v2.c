/* Version 2: one tree; a controller works in a group when every group above has it in cgroup.subtree_control. */
#include "jailer/cgroup.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>

enum { CONTROLLERS_MAX = 16, CONTROLLER_NAME_MAX = 64 };

struct controllers {
    char names[CONTROLLERS_MAX][CONTROLLER_NAME_MAX];
    size_t count;
};

bool cgroup_v2_has_controller(const char *words, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = strstr(words, word); at != NULL; at = strstr(at + 1, word))
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

/* "cgroup.freeze" and the like belong to every group and need no controller. */
static void collect(const struct jail_config *config, struct controllers *controllers)
{
    controllers->count = 0;
    for (size_t i = 0; i < config->cgroup_count && controllers->count < CONTROLLERS_MAX; i++) {
        char name[CONTROLLER_NAME_MAX];
        bool known = false;

        cgroup_controller_name(config->cgroups[i].file, name, sizeof(name));
        for (size_t j = 0; j < controllers->count; j++)
            known = known || strcmp(controllers->names[j], name) == 0;
        if (!known && strcmp(name, "cgroup") != 0)
            memcpy(controllers->names[controllers->count++], name, sizeof(name));
    }
}

/* Lets the children of `group` use the controllers, before there is one. */
static struct error *enable(int group, int child, const void *argument)
{
    const struct controllers *controllers = argument;
    char enabled[512];
    char word[CONTROLLER_NAME_MAX + 1];

    if (child >= 0)
        return NULL;
    if (!cgroup_read(group, "cgroup.subtree_control", enabled, sizeof(enabled)))
        return error_errno(errno, "--cgroup: cannot read cgroup.subtree_control");
    for (size_t i = 0; i < controllers->count; i++) {
        if (cgroup_v2_has_controller(enabled, controllers->names[i]))
            continue;
        snprintf(word, sizeof(word), "+%s", controllers->names[i]);

        struct error *error = cgroup_write(group, "cgroup.subtree_control", word);
        if (error != NULL)
            return error;
    }
    return NULL;
}

/* Adds a controller that nobody asked for by name. False when the host has it not. */
static bool add_wanted(struct controllers *controllers, const char *available, const char *name)
{
    if (!cgroup_v2_has_controller(available, name))
        return false;
    for (size_t i = 0; i < controllers->count; i++)
        if (strcmp(controllers->names[i], name) == 0)
            return true;
    if (controllers->count == CONTROLLERS_MAX)
        return false;
    snprintf(controllers->names[controllers->count++], CONTROLLER_NAME_MAX, "%s", name);
    return true;
}

static struct error *check_available(const char *available, struct controllers *controllers, bool *has_pids,
                                     bool *has_memory)
{
    for (size_t i = 0; i < controllers->count; i++)
        if (!cgroup_v2_has_controller(available, controllers->names[i]))
            return error_new(ERROR_INPUT,
                             "--cgroup: this host's cgroup version 2 has no controller \"%s\", only \"%s\"",
                             controllers->names[i], available);

    if (has_pids != NULL)
        *has_pids = add_wanted(controllers, available, "pids");
    if (has_memory != NULL)
        *has_memory = add_wanted(controllers, available, "memory");
    return NULL;
}

/* A limit that protects the host where the host can keep it. */
static struct error *limit(int group, const char *what, bool available, const char *file, uint64_t number)
{
    char value[24];

    if (!available) {
        fprintf(stderr, "mayfly-jailer: no cgroup limit on %s: this host's cgroup version 2 has no %.*s controller\n",
                what, (int)strcspn(file, "."), file);
        return NULL;
    }
    snprintf(value, sizeof(value), "%llu", (unsigned long long)number);
    return cgroup_write(group, file, value);
}

struct error *cgroup_v2_create_in(const struct jail_config *config, const struct cgroup_tree *tree,
                                  const char *available, struct cgroup *cgroup, struct undo *undo)
{
    struct controllers controllers;
    bool has_pids = false;
    bool has_memory = false;
    bool pids_given = false;

    collect(config, &controllers);
    for (size_t i = 0; i < config->cgroup_count; i++)
        pids_given = pids_given || strcmp(config->cgroups[i].file, "pids.max") == 0;

    struct error *error = check_available(available, &controllers, pids_given ? NULL : &has_pids,
                                          config->memory_limit == 0 ? NULL : &has_memory);
    if (error == NULL)
        error = cgroup_open_group(config, tree, enable, &controllers, undo, &cgroup->groups[0]);
    if (error != NULL)
        return error;
    cgroup->count = 1;
    cgroup->limits_processes = has_pids || pids_given;

    for (size_t i = 0; i < config->cgroup_count; i++) {
        error = cgroup_write(cgroup->groups[0], config->cgroups[i].file, config->cgroups[i].value);
        if (error != NULL)
            return error;
    }
    bool quiet = config->mode == JAIL_USER; /* said elsewhere, and limited otherwise */
    if (!pids_given && (has_pids || !quiet))
        error = limit(cgroup->groups[0], "processes", has_pids, "pids.max", JAIL_PIDS_MAX_DEFAULT);
    if (error == NULL && config->memory_limit != 0 && (has_memory || !quiet))
        error = limit(cgroup->groups[0], "memory", has_memory, "memory.max", config->memory_limit);
    return error;
}

struct error *cgroup_v2_create(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo)
{
    struct cgroup_tree tree;
    char available[512];
    struct error *error = cgroup_open_mount("/sys/fs/cgroup", CGROUP2_SUPER_MAGIC, "", &tree.top);

    if (error != NULL)
        return error;
    tree.home = tree.top;
    if (!cgroup_read(tree.top, "cgroup.controllers", available, sizeof(available)))
        return error_errno(errno, "--cgroup: cannot read cgroup.controllers of the mount");
    return cgroup_v2_create_in(config, &tree, available, cgroup, undo);
}
