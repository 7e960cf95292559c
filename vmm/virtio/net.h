/* The virtio-net device on a descriptor that somebody else opened. virtio_net_new (devices.h) opens a tap for it. */
#pragma once

#include "vmm/config.h"
#include "vmm/virtio/device.h"

/*
 * Makes the device on `fd`, non-blocking, which carries one frame a read or write, each behind a 12-byte virtio-net
 * header: a tap, or a SOCK_SEQPACKET socket. On success the device owns `fd`; on failure the caller keeps it.
 */
struct error *virtio_net_new_on(const struct network_interface_config *config, int fd, struct event_loop *loop,
                                struct virtio_device **device);
