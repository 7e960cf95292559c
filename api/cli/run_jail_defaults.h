/* Where `mayfly run` builds its jails, and where in them the sockets are. */
#pragma once

#define RUN_JAIL_BASE "/run/mayfly"
#define RUN_JAIL_SOCKETS "/run"
/* The folder with the sockets of --mount. */
#define RUN_JAIL_MOUNTS "/mounts"
/* The folder of --vsock. */
#define RUN_JAIL_VSOCK "/vsock"
