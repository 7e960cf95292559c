/*
 * Removing what a dead jail left on the host: its cgroups and its folder. `mayfly run` does it for its own, `mayfly gc`
 * for all; the protocol of locks that makes it safe beside live jails and jails that are being built is in
 * jailer/README.md.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/error.h"

enum jail_state {
    JAIL_DEAD,     /* its VMM has ended: removed, or (dry run) would be */
    JAIL_ALIVE,    /* a VMM holds its pid file */
    JAIL_BUILDING, /* somebody builds or removes it, or waits for its VMM */
    JAIL_FOREIGN,  /* not made by mayfly-jailer: never touched */
    JAIL_GONE,     /* it is not there */
};

/*
 * Looks at the jail <exec>/<id>, where `exec` is the open folder <base>/<exec_name>, and removes it when it is dead and
 * this is no dry run. An error: it is dead, and something of it could not be removed.
 */
struct error *jail_remove(int exec, const char *exec_name, const char *id, bool dry_run, enum jail_state *state);

/*
 * Removes the cgroups of jails whose folder somebody has removed by hand, as callers of Firecracker's jailer do; of
 * those below `base` (an absolute path), or all (NULL). Calls `tell` for each that is gone, or (dry run) would be.
 */
void jail_remove_orphan_cgroups(const char *base, bool dry_run, void (*tell)(void *context, const char *group),
                                void *context);

/* Removes the cgroups that jails of `parent` were in, where no jail is left in them. */
void jail_remove_parent_cgroups(const char *parent);
