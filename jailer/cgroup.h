/*
 * Control groups. A jail's group is <mount>/<parent cgroup>/<id>; in version 1 one in each hierarchy that a setting
 * names, in version 2 one in the only tree. cgroup.c chooses; cgroup_v1.c and cgroup_v2.c do.
 */
#pragma once

#include "jailer/jail.h"
#include "jailer/undo.h"

enum { CGROUP_HIERARCHIES_MAX = 16 };

/* The groups made for one jail; descriptors are directories, close-on-exec. */
struct cgroup {
    int version;
    int groups[CGROUP_HIERARCHIES_MAX]; /* the jail's own group in each hierarchy */
    size_t count;
    bool limits_processes; /* there is a pids.max */
};

/*
 * Makes the groups and writes the settings; a `pids.max` is added when none is given and the host has the controller.
 * Pushes what it made. Errors name the setting or the file that the host lacks.
 */
struct error *cgroup_create(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo);

/*
 * Moves the calling process in. Call while single-threaded: version 1 then writes to `tasks`, which is 200 times
 * cheaper than cgroup.procs. In version 2 clone3(CLONE_INTO_CGROUP) with groups[0] is the cheap way for a child.
 */
struct error *cgroup_join(const struct cgroup *cgroup);

/* Notes in the groups whose they are, for `mayfly gc`; `root` is the jail's root folder. Where that fails, none is. */
void cgroup_note_root(const struct cgroup *cgroup, int root);

/* Shared by both versions. */

typedef struct error *cgroup_prepare(int parent, int child, const void *argument);

/* Where jails' groups are made, and where a process that leaves its jail's group goes. */
struct cgroup_tree {
    int top;
    int home;
};

/*
 * Opens, making as needed, the jail's group below the top; `prepare` is called for each folder on the way, with the
 * group that it is in (`child` -1: not made yet). Pushes what it made, and the way out of the group.
 */
struct error *cgroup_open_group(const struct jail_config *config, const struct cgroup_tree *tree,
                                cgroup_prepare *prepare, const void *argument, struct undo *undo, int *group);
/* Reads a small file in `group`; NUL-terminated, without the trailing newline; false when it cannot. */
bool cgroup_read(int group, const char *file, char *text, size_t size);
/* Writes `value` into `file` of `group`; the error names both. */
struct error *cgroup_write(int group, const char *file, const char *value);
/* Copies the controller's name ("cpu" of "cpu.shares"). */
void cgroup_controller_name(const char *file, char *name, size_t size);
/* Opens the first directory whose file system has `magic`: `usual`, else what /proc/self/mounts has with `option`. */
struct error *cgroup_open_mount(const char *usual, long magic, const char *option, int *fd);

struct error *cgroup_v1_create(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo);
struct error *cgroup_v2_create(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo);
/* The same below `tree`, of which `available` are the controllers. */
struct error *cgroup_v2_create_in(const struct jail_config *config, const struct cgroup_tree *tree,
                                  const char *available, struct cgroup *cgroup, struct undo *undo);
bool cgroup_v2_has_controller(const char *available, const char *controller);
/*
 * For an ordinary user: finds the subtree that was delegated and the jailer is in, config->delegated_cgroup; before the
 * jail's folder, where that is noted, is made.
 */
struct error *cgroup_delegated_find(struct jail_config *config, struct cgroup_tree *tree);
/* For an ordinary user: in the subtree that was delegated to the user, as far as it goes; a note says what is left out.
 */
struct error *cgroup_delegated_create(const struct jail_config *config, const struct cgroup_tree *tree,
                                      struct cgroup *cgroup, struct undo *undo);
