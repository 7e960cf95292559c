/*
 * Mounts by descriptor. musl 1.2.3 has no wrappers for these calls, and its <sys/mount.h> clashes with the kernel's
 * <linux/mount.h>: hence a file of their own. Results as of the system calls.
 */
#pragma once

/* A detached copy of the mount at `path`; AT_RECURSIVE in `flags`: with those below. A descriptor, close-on-exec. */
int mount_clone(int folder, const char *path, unsigned flags);

/* Makes the tree nosuid and noexec. */
long mount_restrict(int tree);

/* Attaches the tree over the file or folder `place`. */
long mount_attach(int tree, int place);
