/*
 * What a failed start must take back. Each step that leaves something on the host pushes its opposite; undo_run does
 * them newest first. Entries name a directory by descriptor, so they still reach it after pivot_root, and nobody who
 * renames or links in the path can make them remove something else.
 */
#pragma once

#include <stddef.h>

enum undo_kind {
    UNDO_FILE,         /* unlinkat(directory, name) */
    UNDO_DIRECTORY,    /* the same for an empty directory */
    UNDO_MOUNT,        /* unmount what is mounted at `directory` itself */
    UNDO_BIND,         /* unmount what is mounted at `name` in `directory` */
    UNDO_LEAVE_CGROUP, /* write this process into `directory`, an open cgroup.procs: its namespace is the opener's */
};

enum { UNDO_NAME_MAX = 256, UNDO_MAX = 128 };

struct undo_entry {
    enum undo_kind kind;
    int directory; /* borrowed; must stay open until undo_run or exec */
    char name[UNDO_NAME_MAX];
};

/* Room for all from the start: what has been done can always be noted. */
struct undo {
    struct undo_entry entries[UNDO_MAX];
    size_t count;
};

/* What does not fit, a path of cgroups deeper than any in use, is left to `mayfly gc`. */
void undo_push(struct undo *undo, enum undo_kind kind, int directory, const char *name);

/* Best effort; what cannot be undone is left to `mayfly gc`. */
void undo_run(struct undo *undo);

/* The same until `count` entries are left: what was done since is taken back, and the jail is built without it. */
void undo_run_to(struct undo *undo, size_t count);
