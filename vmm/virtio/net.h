/*
 * What net.c (the device), net_transmit.c and net_receive.c share; others have devices.h, but for virtio_net_new_on.
 */
#pragma once

#include <linux/virtio_net.h>

#include "vmm/backend/net_backend.h"
#include "vmm/base/event_loop.h"
#include "vmm/config.h"
#include "vmm/metrics.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/net_control.h"
#include "vmm/virtio/rate_limiter.h"

enum { RX, TX, QUEUE_COUNT };

enum {
    HEADER_SIZE = sizeof(struct virtio_net_hdr_v1),
    FRAME_MIN = HEADER_SIZE + ETH_HLEN, /* all frame sizes here count the header */
    FRAME_MAX = 65562,                  /* 5.1.6.3.1: a TCP segment of 64 KiB */
    NET_QUEUE_SIZE = 256,
    TURN_FRAMES = 256, /* so many in one go; then other devices have their turn */
};

/* One chain of the receive queue that waits for a frame. */
struct rx_chain {
    uint16_t head;
    uint16_t iov_count;
    uint32_t bytes;
};

/* Receive buffers at hand, oldest first. Every chain has at least one iov entry. */
struct rx_window {
    bool full; /* there may be more in the queue, but no room here */
    size_t chain_count;
    size_t iov_count;
    uint64_t bytes;
    struct rx_chain chains[VIRTQUEUE_IOV_MAX];
    struct iovec iov[VIRTQUEUE_IOV_MAX + 1]; /* rx_fetch adds one */
};

/* A receive and a transmit queue, and what they are on. */
struct net_pair {
    struct net *net;
    unsigned first;              /* queue of the pair */
    struct virtqueue *queues;    /* its two, of the device's */
    struct net_backend *backend; /* NULL: lost, the interface was deleted or the peer went away */
    struct event_source wire;    /* the backend's descriptor */
    struct event_timer turn;     /* set to the next turn of the loop: looks at both queues */

    unsigned rx_got;     /* frames from the backend in this turn */
    unsigned rx_singles; /* turns in a row that took one and did not look for another */
    bool rx_many;        /* the last turn that looked for more found some */
    bool rx_settled;     /* the driver had its time to give more buffers */
    uint8_t *rx_spill;   /* room for the rest of a frame that the window could not hold; NULL until there was one */
    uint32_t rx_held;    /* size of a frame whose rest is there; 0: none */
    uint32_t rx_head;    /* so much of it is in the window */
    bool rx_mmds_only;   /* the backend is watched: it has nothing, or will tell */
    uint32_t rx_frame;   /* size of the frame in the window that the limiter holds back; 0: none */
    struct event_timer rx_timer; /* the limiter's, or SETTLE_US */

    bool tx_large; /* this turn has sent more than small frames */
    bool tx_paid;  /* the limiter has let the next frame pass; the backend was full */
    struct event_timer tx_timer;

    struct rx_window window;
};

struct net {
    struct virtio_device device;
    char *iface_id;
    DEVICE_METRICS(net_metrics) metrics;
    struct virtio_net_config config;
    unsigned offloads;                          /* as the backend has them */
    bool mergeable;                             /* VIRTIO_NET_F_MRG_RXBUF was negotiated */
    uint32_t rx_enough;                         /* receive buffers for any frame that the driver should get */
    struct rate_limiter rx_limiter, tx_limiter; /* of all pairs together */

    struct mmds_net *mmds;         /* the metadata service, owned; NULL: this interface does not lead there */
    bool mmds_heard;               /* a frame for it was taken: it may have an answer, by the first pair */
    struct event_timer mmds_timer; /* it has something to send */

    unsigned pair_count;
    unsigned pairs_used; /* by the driver: the first so many */
    struct net_control control;
    struct net_pair pairs[];
};

/* Whether the driver's frames may move now. */
bool net_pair_is_running(const struct net_pair *pair);
/* Watches the backend for `event` (EPOLLIN, EPOLLOUT), or no longer. */
void net_watch(struct net_pair *pair, uint32_t event, bool on);
/* The backend, or one of its queues, is gone for good: the link is down, the driver's frames are dropped. */
void net_lose(struct net *net);
/* As rate_limiter_take for a frame of `size`; without a limit nobody asks for the time. */
uint64_t net_limiter_take(struct rate_limiter *limiter, size_t size);
/* The guest broke the device. */
void net_fail(struct net *net, const char *reason);

/* net_transmit.c: sends what the driver has, as far as backend and limiter allow, and sees to being called again. */
void net_transmit(struct net_pair *pair);
/* tx_timer has expired. */
void net_transmit_later(struct event_timer *timer);

/* Delivers frames from the backend as far as they, buffers and the limiter allow, and sees to being called again. */
void net_receive(struct net_pair *pair);
/* The same when only the metadata service may have something new. */
void net_receive_mmds(struct net_pair *pair);
/* rx_timer has expired. */
void net_receive_later(struct event_timer *timer);
/* The driver is gone, and its buffers with it. */
void net_receive_reset(struct net_pair *pair);
/* Whether a buffer in the window reaches into [start, start + length). */
bool net_receive_holds(const struct net_pair *pair, const uint8_t *start, uint64_t length);

/* net_open.c: what the interface's kinds of device have in common. */

enum {
    /*
     * Each queue that a tap loses or gets takes the kernel a grace period, under a lock that all networks of the host
     * have in common: so seldom may a guest have that.
     */
    NET_PAIRS_CHANGE_US = 100000,
};
#define NET_OFFLOAD_FEATURES                                                                                           \
    (1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_TSO6 |                     \
     1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6)

/* Puts MAC, MTU and the number of pairs into the config space, and what the driver has to know of them into features.
 */
struct error *net_identify(const struct network_interface_config *config, unsigned pairs,
                           struct virtio_net_config *space, uint64_t *features);
/* What a driver with these features takes off the host's hands, as tap_set_offloads has it. */
unsigned net_tap_offloads(uint64_t features);

/* net_announce.c: tells a peer that the guest's configured address is here. */
void net_announce(struct net *net);

/* net_mmds.c; the first three only with net->mmds. */

/* Takes a frame of the driver's if it is for the metadata service. */
bool net_mmds_take(struct net *net, const struct virtqueue_chain *chain);
/* Puts its next frame, if it has one, into the window; returns its size as that of any other, or 0. */
uint32_t net_mmds_give(struct net_pair *pair);
/* Sees to net_receive_mmds being called when it has one; without `wait` something else will. */
void net_mmds_wait(struct net *net, bool wait);
void net_mmds_stop(struct net *net);
void net_mmds_reset(struct net *net);

/* Makes the device on `backend`. On success the device owns it; on failure the caller keeps it. */
struct error *virtio_net_new_on(const struct network_interface_config *config, struct net_backend *backend,
                                struct event_loop *loop, struct virtio_device **device);
/* The same with several pairs of queues, each on a backend of its own. */
struct error *virtio_net_new_on_queues(const struct network_interface_config *config, struct net_backend **backends,
                                       unsigned count, struct event_loop *loop, struct virtio_device **device);
