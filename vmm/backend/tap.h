/*
 * A TAP interface of the host, carrying Ethernet frames behind a virtio-net header (TUNSETVNETHDRSZ). Source: the
 * kernel's Documentation/networking/tuntap.rst and <linux/if_tun.h>.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"

/* Bytes of struct virtio_net_hdr_v1 ahead of every frame that is read or written. */
enum { TAP_HEADER_SIZE = 12 };

/*
 * Attaches to the existing interface `name` with `count` queues; fds[0..count) are non-blocking, closed on exec, the
 * caller's. All offloads are off. More than one queue takes an interface made with several (`ip tuntap add ...
 * multi_queue`). A missing interface is an error: it is never created (TUNSETIFF would). Messages begin with the quoted
 * name.
 */
struct error *tap_open(const char *name, int *fds, unsigned count);

/*
 * What frames read from `fd` may need of the reader: TUN_F_CSUM and others; 0 for plain frames. False, and errno, when
 * the host refuses. Takes no memory, which a vCPU's thread could not get more of (vmm.rules).
 */
bool tap_set_offloads(int fd, unsigned offloads);

/* Whether one queue of several takes part: the host sends it no frames while it does not. False, with errno. */
bool tap_attach_queue(int fd, bool attached);
