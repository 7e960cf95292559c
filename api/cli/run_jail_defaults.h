/* Where `mayfly run` builds its jails, and where in them the sockets are. */
#pragma once

/* /run/mayfly for root; $XDG_RUNTIME_DIR/mayfly, or /tmp/mayfly-<uid>, for others. */
const char *run_jail_base(void);

/*
 * Paths in the jail, relative to the VMM's working directory: that is the jail's root, also in a reduced jail, which
 * may have left the container's root where it was.
 */
#define RUN_JAIL_SOCKETS "run"
/* The folder with the sockets of --mount. */
#define RUN_JAIL_MOUNTS "mounts"
/* The folder of --vsock. */
#define RUN_JAIL_VSOCK "vsock"
