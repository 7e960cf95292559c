/* The jail's root: the folder becomes the root of the mount namespace, and everything else is gone from it. */
#pragma once

#include "jailer/devices.h"
#include "jailer/jail.h"
#include "jailer/undo.h"

/* Makes the folders /dev and /run in `root`, of the jail's user; those made are pushed. */
struct error *root_make_folders(const struct jail_config *config, int root, struct undo *undo);

/*
 * Turns folder `*root` into a mount of its own (nosuid, noexec), with /dev and /run in it, and replaces *root
 * by a descriptor of the mount. Within the jail's mount namespace. Folders made are pushed.
 */
struct error *root_mount(const struct jail_config *config, const struct devices *devices, struct undo *undo, int *root);

/* pivot_root(2) into `root`, drops the old one, goes to "/". */
struct error *root_enter(int root);
