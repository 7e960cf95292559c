/*
 * The named virtio-console ports that lead to the host.
 */
#pragma once

#include <stdbool.h>

enum port {
    PORT_CONTROL,
    PORT_STDIN,
    PORT_STDOUT,
    PORT_STDERR,
    PORT_COUNT,
};

/* Device paths by enum port, empty where there is none. */
struct ports {
    char paths[PORT_COUNT][32];
};

/*
 * Looks for the ports of rootfs/protocol.h. When there is a console device with ports but the names
 * are not all there yet (they arrive one by one while init already runs), waits for them up to a
 * second. Returns whether all were found. /sys must be mounted.
 */
bool ports_find(struct ports *ports);
