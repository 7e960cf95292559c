/*
 * The jail's folder, <base>/<exec name>/<id>/root. Every step below the base goes by descriptor with O_NOFOLLOW, and a
 * folder that somebody else owns or may write is refused: who can write there could swap what is built.
 */
#pragma once

#include "jailer/jail.h"
#include "jailer/undo.h"

/*
 * Makes the folders (those that are missing) and opens the last, *root, close-on-exec. A `root` that the caller
 * prepared with kernels and disks is fine; a jail that is in use or was not cleaned up (its pid file is there), or that
 * another jailer builds, is refused and left untouched. Until exec the folder <id> is locked (flock, exclusive).
 */
struct error *folder_open(const struct jail_config *config, struct undo *undo, int *root);

/*
 * Writes the pid file, <root>/<exec name>.pid, and keeps it open and locked (flock, shared) across exec: as long as
 * the VMM lives nobody gets the exclusive lock, whatever happens to process ids or the host.
 */
struct error *folder_write_pid(const struct jail_config *config, int root, pid_t pid, struct undo *undo);
