/*
 * The kernel's own file systems, and leaving every other one clean.
 */
#pragma once

#include "failure.h"

#include <stdbool.h>

/* Mounts /dev, /proc and /sys where init starts. One that is mounted already is fine. Gives init
 * /dev/null for whichever of descriptors 0 to 2 the kernel could not open (no console). */
int mounts_early(struct failure *failure);

/*
 * Adds what commands expect on top of the final root: /dev/pts, /dev/shm, /dev/fd and its like, and
 * tmpfs on /run and /tmp. `root_writable` false leaves nothing to chance: a read-only root gets
 * both, a writable one keeps the /tmp of its own. A missing directory that cannot be made is said
 * on the console and skipped: an image without /tmp can still run a command.
 */
void mounts_late(bool in_initramfs, bool root_writable);

/*
 * Mounts a directory of the host, which `text` names as TAG:ro:PATH or TAG:rw:PATH; what of PATH is
 * not there is made. The failure names it.
 */
int mount_shared(const char *text, struct failure *failure);

/* Unmounts or makes read-only every writable file system that outlives the guest, the root last.
 * All processes but init must be gone. Failures are said on the console. */
void mounts_finish(void);

/* A line of /proc/self/mounts. */
struct mount_line {
    const char *source;
    const char *target;
    const char *type;
    bool writable;
};

/*
 * Takes the line at `text`, which is changed in place (fields are cut and unescaped). Returns the
 * start of the next line, or NULL when there is no whole line at `text`.
 */
char *mount_line_take(struct mount_line *line, char *text);
