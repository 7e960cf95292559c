/*
 * The control queue of a network device with several pairs of queues: how many of them the driver uses. Part of the
 * device that serves it.
 */
#pragma once

#include "vmm/virtio/device.h"

struct net_control {
    struct virtio_device *device;
    unsigned pairs_max;
    /*
     * The driver uses the first `pairs` pairs, 1 to pairs_max. Returns after how many microseconds it may change that
     * again.
     */
    uint64_t (*set_pairs)(struct virtio_device *device, unsigned pairs);
    /* The guest broke the queue. */
    void (*broken)(struct virtio_device *device, const char *reason);
    uint64_t next_us;        /* no command before that; 0: at any time */
    struct event_timer turn; /* there is more to do */
};

/* Which queue it is: behind all pairs, or behind the only one that the driver knows of. -1: the driver has none. */
int net_control_index(const struct virtio_device *device);

/* Fills the struct in. */
void net_control_init(struct net_control *control, struct virtio_device *device, unsigned pairs_max,
                      uint64_t (*set_pairs)(struct virtio_device *device, unsigned pairs),
                      void (*broken)(struct virtio_device *device, const char *reason));
/* For the device's notify: answers a command, if it is time, and sees to the others' having their turn. */
void net_control_serve(struct net_control *control);
/* For activate and resume: looks at the queue in the loop's next turn. */
void net_control_look(struct net_control *control);
/* For reset, pause and destroy: does nothing more by itself. */
void net_control_stop(struct net_control *control);
/* For reset: sets the number of pairs as if the driver had. */
void net_control_set_pairs(struct net_control *control, unsigned pairs);
