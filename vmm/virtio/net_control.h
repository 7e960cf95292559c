/* The control queue of a network device with several pairs of queues: how many of them the driver uses. */
#pragma once

#include "vmm/virtio/device.h"

/* Which queue it is: behind all pairs, or behind the only one that the driver knows of. -1: the driver has none. */
int net_control_index(const struct virtio_device *device);

enum net_control_result {
    NET_CONTROL_DONE,   /* the driver's notification comes for more */
    NET_CONTROL_MORE,   /* there is more: call again, but let others have their turn */
    NET_CONTROL_BROKEN, /* the guest broke the queue */
};

/* Answers at most `commands` of queue `index`; a number of pairs from 1 to `pairs_max` goes to set_pairs. */
enum net_control_result net_control_serve(struct virtio_device *device, unsigned index, unsigned commands,
                                          unsigned pairs_max, void (*set_pairs)(void *owner, unsigned pairs),
                                          void *owner);
