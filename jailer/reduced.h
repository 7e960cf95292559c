/*
 * The jail of a process that has neither CAP_SYS_ADMIN nor a user namespace, as in most containers. There are no
 * namespaces. With CAP_SYS_CHROOT and CAP_MKNOD the VMM gets its empty root all the same (by chroot, which it cannot
 * leave without capabilities); without them Landlock keeps it in the jail's folder, which is its working directory.
 * What is missing is noted; the caller has said --allow-reduced.
 */
#pragma once

#include "jailer/cgroup.h"
#include "jailer/devices.h"
#include "jailer/jail.h"
#include "jailer/missing.h"
#include "jailer/undo.h"

/* Takes the namespaces back that were asked for. --netns, without which the guest's network would not work, is refused.
 */
struct error *reduced_prepare(struct jail_config *config, struct missing *missing);

/* The cgroup, when the container lets one be made. */
void reduced_create_cgroup(const struct jail_config *config, struct cgroup *cgroup, struct undo *undo,
                           struct missing *missing);

/* Makes folders and device nodes (pushed) and changes the root; *outside: only the working directory was changed. */
struct error *reduced_enter_root(const struct jail_config *config, const struct devices *devices, int root,
                                 struct undo *undo, struct missing *missing, bool *outside);
