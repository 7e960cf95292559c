/*
 * What devices that another process serves have in common (vhost_user.c); a kind of device embeds this struct and may
 * serve some queues itself, for as long as it says so by vhost_user_device_serve.
 */
#pragma once

#include "vmm/backend/vhost_user.h"
#include "vmm/base/cleanup.h"
#include "vmm/metrics.h"
#include "vmm/virtio/device.h"

struct vhost_user_device {
    struct virtio_device device;
    struct vhost_user front;
    DEVICE_METRICS(vhost_user_metrics) metrics;
    uint8_t *config; /* what the guest reads: the front end's, or the kind's own */
    size_t config_size;
};

/* A kind of device. */
struct vhost_user_kind {
    const struct virtio_ops *ops;
    const struct vhost_user_owner *owner_ops; /* their owner is the struct vhost_user_device */
    const char *metrics_prefix;
    size_t size;         /* of the struct that begins with a struct vhost_user_device */
    unsigned own_queues; /* how many queues there are behind those of the back end */
};

/* The features of the rings, which are the back end's business. */
#define VHOST_USER_RING_FEATURES (1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX)

/* Makes one and connects it; `needs` comes without its names. On success its destroy gives it back. */
struct error *vhost_user_device_new(const struct vhost_user_kind *kind, const char *id, const char *path,
                                    struct vhost_user_needs *needs, struct event_loop *loop,
                                    struct vhost_user_device **made);

static inline struct vhost_user_device *vhost_user_device_of(struct virtio_device *device)
{
    return container_of(device, struct vhost_user_device, device);
}

/* The back end's rings as the driver has made them ready, from their beginning, all enabled. */
void vhost_user_device_rings(struct vhost_user_device *served, struct vhost_user_ring rings[VHOST_USER_RINGS_MAX]);
/* Hands them over; false when that can never work. */
bool vhost_user_device_start(struct vhost_user_device *served, const struct vhost_user_ring *rings);
/* Has the driver's notifications of a queue come to ops->notify, or go to the back end. */
void vhost_user_device_serve(struct vhost_user_device *served, unsigned index, bool here);
/* Rings the back end's bell for a queue. */
void vhost_user_device_kick(struct vhost_user_device *served, unsigned index);

/* For ops: the back end's part of each. */
void vhost_user_device_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length);
bool vhost_user_device_activate(struct virtio_device *device);
void vhost_user_device_notify(struct virtio_device *device, unsigned index);
void vhost_user_device_stop(struct virtio_device *device);
void vhost_user_device_resume(struct virtio_device *device);
void vhost_user_device_destroy(struct virtio_device *device);

/* For owner_ops. */
void vhost_user_device_config_changed(void *owner);
void vhost_user_device_failed(void *owner, const char *reason);
