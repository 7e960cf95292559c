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
    UNDO_LEAVE_CGROUP, /* write this process into `directory`, an open cgroup.procs: its namespace is the opener's */
};

enum { UNDO_NAME_MAX = 256 };

struct undo_entry {
    struct undo_entry *older;
    enum undo_kind kind;
    int directory; /* borrowed; must stay open until undo_run or exec */
    char name[UNDO_NAME_MAX];
};

struct undo {
    struct undo_entry *newest;
};

/* Aborts without memory: what is on the host already is then left to `mayfly gc`. */
void undo_push(struct undo *undo, enum undo_kind kind, int directory, const char *name);

/* Best effort; what cannot be undone is left to `mayfly gc`. */
void undo_run(struct undo *undo);
