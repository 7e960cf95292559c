/*
 * vhost-net: the host's kernel moves frames between a tap and a pair of a guest's queues, and this process sees none of
 * it. An open /dev/vhost-net serves one pair: its first queue is the guest's for receiving, its second for sending.
 * Source: <linux/vhost.h>, and drivers/vhost/net.c of the kernel.
 *
 * A vCPU's thread may call all but vhost_net_open: nothing here takes memory (vmm.rules).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"

enum { VHOST_NET_QUEUES = 2 };

struct guest_memory;
struct vring_desc;
struct vring_avail;
struct vring_used;

struct vhost_net_queue {
    uint16_t size;
    const struct vring_desc *descriptors;
    const struct vring_avail *available;
    struct vring_used *used;
    int kick_fd, call_fd; /* borrowed, as is error_fd: rung when the guest broke the queue */
    int error_fd;
};

/*
 * Opens `*fd`, the caller's, which serves this process's memory from then on; `*features` are the virtio features that
 * the kernel can do.
 */
struct error *vhost_net_open(int *fd, uint64_t *features);

/* Tells of guest memory and of the features that the driver agreed to, before any queue. False, with errno. */
bool vhost_net_begin(int fd, const struct guest_memory *memory, uint64_t features);
/* Tells where queue `index` is; it goes on from position `base`. Not while it is attached. False, with errno. */
bool vhost_net_set_queue(int fd, unsigned index, const struct vhost_net_queue *queue, uint16_t base);

/*
 * Has the kernel serve queue `index` on `tap_fd`, or, with -1, no longer: what it had in hand is done when this
 * returns, and the next attachment goes on from there. Notifications meanwhile are forgotten. False, with errno.
 */
bool vhost_net_attach(int fd, unsigned index, int tap_fd);
