/*
 * The host's side of a network interface: something that takes and gives Ethernet frames, each behind a 12-byte
 * virtio-net header. net.c knows no more of it than this.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "vmm/base/error.h"

/* Bytes of struct virtio_net_hdr_v1 ahead of every frame. */
enum { NET_HEADER_SIZE = 12 };

struct net_backend;

struct net_backend_ops {
    bool offloads;     /* understands the header: checksums and segmentation may be left to it */
    bool frame_a_read; /* none waits here when one was read: the descriptor is readable, or there is none */

    /*
     * Sends the one frame in iov[0..count), of `size` bytes with its header. 0 when it is taken; -EAGAIN: try again
     * when fd is writable; -EINVAL: the frame is malformed; -ENOTCONN: there is nobody any more, now and for ever;
     * else another -errno, and the frame is lost.
     */
    int (*send)(struct net_backend *backend, const struct iovec *iov, size_t count, size_t size);
    /*
     * Receives one frame into iov[0..count); the header's num_buffers is the caller's business. Returns its size, or
     * the room in `iov` when it was cut; -EAGAIN: try again when fd is readable; -ENOTCONN as above; else -errno.
     */
    ssize_t (*receive)(struct net_backend *backend, const struct iovec *iov, size_t count);
    /* Sends on what `unsent` is about; clears it when done. NULL: never needed. */
    void (*flush)(struct net_backend *backend);
    /* What received frames may need of the reader: TUN_F_CSUM and others, only with `offloads`. False, with errno. */
    bool (*set_offloads)(struct net_backend *backend, unsigned offloads);
    /* Has the host's frames come here, or to the interface's other queues alone. NULL: there are none. False, with
     * errno. */
    bool (*attach)(struct net_backend *backend, bool attached);
    void (*close)(struct net_backend *backend); /* and frees it */
};

struct net_backend {
    const struct net_backend_ops *ops;
    int fd;      /* to watch; the backend's own */
    bool unsent; /* the end of a frame waits for fd to be writable: flush */
};

/* net_tap.c: on a tap, or another descriptor that keeps such frames apart; takes `fd`. NULL without memory. */
struct net_backend *net_tap_new(int fd);

/*
 * net_stream.c: connects to a Unix stream socket on which each frame, without the header, is preceded by its length in
 * 32 bits, big-endian: passt, or QEMU's -netdev stream. Messages begin with the quoted path.
 */
struct error *net_stream_open(const char *socket_path, struct net_backend **backend);
/* The same on a connected, non-blocking socket, which it takes. NULL without memory. */
struct net_backend *net_stream_new(int fd);
