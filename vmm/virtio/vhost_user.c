/*
 * Devices whose queues another process serves, by vhost-user. What is here is the guest's view of them: features,
 * config space, the driver's coming and going. Requests pass between the guest and the back end; this process sees
 * none, but for what vhost_user_net.c and vhost_user_fs.c tell.
 */
#include "vmm/virtio/vhost_user.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

void vhost_user_device_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct vhost_user_device *served = vhost_user_device_of(device);

    virtio_config_copy(served->config, served->config_size, offset, data, length);
}

void vhost_user_device_rings(struct vhost_user_device *served, struct vhost_user_ring rings[VHOST_USER_RINGS_MAX])
{
    const struct virtio_device *device = &served->device;

    for (unsigned i = 0; i < served->front.needs.queue_count; i++) {
        const struct virtqueue *queue = &device->queues[i];

        rings[i] = (struct vhost_user_ring){
            .ready = queue->ready,
            .enabled = true,
            .size = queue->size,
            .descriptors = queue->descriptors,
            .available = (struct vring_avail *)(uintptr_t)queue->available,
            .used = queue->used,
            .kick_fd = device->transport_ops->notify_fd(device->transport, i),
            .call_fd = device->transport_ops->interrupt_fd(device->transport),
        };
    }
}

bool vhost_user_device_start(struct vhost_user_device *served, const struct vhost_user_ring *rings)
{
    const struct virtio_device *device = &served->device;
    uint64_t start = clock_monotonic_us();

    if (!vhost_user_start(&served->front, device->memory, device->driver_features, rings)) {
        COUNTER_INCREMENT(served->metrics.counters.activate_fails);
        return false;
    }
    COUNTER_SET(served->metrics.counters.activate_time_us, clock_monotonic_us() - start);
    return true;
}

bool vhost_user_device_activate(struct virtio_device *device)
{
    struct vhost_user_device *served = vhost_user_device_of(device);
    struct vhost_user_ring rings[VHOST_USER_RINGS_MAX];

    vhost_user_device_rings(served, rings);
    return vhost_user_device_start(served, rings);
}

void vhost_user_device_serve(struct vhost_user_device *served, unsigned index, bool here)
{
    served->device.transport_ops->serve_here(served->device.transport, index, here);
}

void vhost_user_device_kick(struct vhost_user_device *served, unsigned index)
{
    const struct virtio_device *device = &served->device;

    vhost_user_ring_bell(device->transport_ops->notify_fd(device->transport, index));
}

/* One that did not come by the ioeventfd. */
void vhost_user_device_notify(struct virtio_device *device, unsigned index)
{
    vhost_user_device_kick(vhost_user_device_of(device), index);
}

void vhost_user_device_stop(struct virtio_device *device)
{
    vhost_user_stop(&vhost_user_device_of(device)->front);
}

void vhost_user_device_resume(struct virtio_device *device)
{
    vhost_user_resume(&vhost_user_device_of(device)->front);
}

static void device_free(struct vhost_user_device *served)
{
    free((void *)(uintptr_t)served->front.needs.path);
    free((void *)(uintptr_t)served->device.id);
    free(served->device.queues);
    free(served);
}

void vhost_user_device_destroy(struct virtio_device *device)
{
    struct vhost_user_device *served = vhost_user_device_of(device);

    vhost_user_close(&served->front);
    metrics_device_remove(&served->metrics.device);
    device_free(served);
}

void vhost_user_device_config_changed(void *owner)
{
    virtio_device_config_changed(&((struct vhost_user_device *)owner)->device);
}

void vhost_user_device_failed(void *owner, const char *reason)
{
    virtio_device_fail(&((struct vhost_user_device *)owner)->device, reason);
}

struct error *vhost_user_device_new(const struct vhost_user_kind *kind, const char *id, const char *path,
                                    struct vhost_user_needs *needs, struct event_loop *loop,
                                    struct vhost_user_device **made)
{
    unsigned queue_count = needs->queue_count + kind->own_queues;
    struct vhost_user_device *served = calloc(1, kind->size);

    if (served == NULL)
        return error_errno(ENOMEM, "cannot make a device");
    served->device = (struct virtio_device){.ops = kind->ops,
                                            .id = strdup(id),
                                            .queues = calloc(queue_count, sizeof(struct virtqueue)),
                                            .queue_count = queue_count,
                                            .served_elsewhere = true};
    served->front.needs.path = strdup(path);
    if (served->device.id == NULL || served->device.queues == NULL || served->front.needs.path == NULL) {
        device_free(served);
        return error_errno(ENOMEM, "cannot make a device");
    }
    for (unsigned i = 0; i < queue_count; i++)
        served->device.queues[i].size_max = VIRTQUEUE_SIZE_MAX;
    needs->queue_size = VIRTQUEUE_SIZE_MAX;
    needs->name = kind->ops->name;
    needs->id = served->device.id;
    needs->path = served->front.needs.path;
    needs->metrics = &served->metrics.counters;
    METRICS_DEVICE_ADD(&served->metrics, METRICS_VHOST_USER, kind->metrics_prefix, served->device.id);

    struct error *error = vhost_user_open(&served->front, needs, loop, kind->owner_ops, served);
    if (error != NULL) {
        vhost_user_device_destroy(&served->device);
        return error;
    }
    served->device.features = served->front.features & ~(1ull << VHOST_USER_F_PROTOCOL_FEATURES);
    served->config = served->front.config;
    served->config_size = needs->config_size;
    *made = served;
    return NULL;
}
