/*
 * `--bind`: files and folders of the host that the jail shows, without a copy. They are opened once, without following
 * a link anywhere in the path, and from then on only the descriptor counts; so does the place in the jail, because the
 * jail's root may belong to a hostile user.
 */
#pragma once

#include "jailer/jail.h"
#include "jailer/undo.h"

/* Opens the sources; in the jail's mount namespace, before anything is changed in it. */
struct error *binds_open(struct jail_config *config, int fds[JAIL_BINDS_MAX]);

/* Makes the file or folder that each will be mounted on, below `root`, as root_mount made it: /dev is there. */
struct error *binds_make_places(const struct jail_config *config, const int fds[JAIL_BINDS_MAX], int root,
                                struct undo *undo);

/* Mounts them: nosuid, noexec, nodev (but for a device node itself), and as the options say. After root_mount. */
struct error *binds_mount(const struct jail_config *config, const int fds[JAIL_BINDS_MAX], int root, struct undo *undo);

/* In a reduced jail, in place of both: a copy of each file, the jail's user's, who can do with it what it likes. */
struct error *binds_copy(const struct jail_config *config, const int fds[JAIL_BINDS_MAX], int root, struct undo *undo);
