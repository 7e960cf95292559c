#include "vmm/virtio/device.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#include <string.h>

enum {
    HOLD_US = 1000,     /* a signal that can wait, for another one */
    PAUSE_SIGNALS = 32, /* after one that waited in vain, so many go at once */
};

/* Whether the guest wants an interrupt for what the queue has served since this was last asked. */
static bool needs_signal(struct virtio_device *device, unsigned index)
{
    struct virtqueue *queue = &device->queues[index];
    uint16_t served = virtqueue_unsignalled(queue);

    if (served == 0)
        return false;
    event_loop_count_work(device->loop, served);
    return virtqueue_needs_signal(queue);
}

void virtio_device_signal(struct virtio_device *device, unsigned index)
{
    if (device->held.loop != NULL)
        virtio_device_signal_all(device);
    else if (needs_signal(device, index))
        device->transport_ops->signal_queue(device->transport, index);
}

void virtio_device_signal_all(struct virtio_device *device)
{
    bool wanted = false;
    unsigned queue = 0;

    event_timer_cancel(&device->held);
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (!needs_signal(device, i))
            continue;
        wanted = true;
        queue = i;
    }
    if (wanted)
        device->transport_ops->signal_queue(device->transport, queue);
}

static void held_for_long(struct event_timer *timer)
{
    struct virtio_device *device = container_of(timer, struct virtio_device, held);

    device->prompt_signals = PAUSE_SIGNALS;
    virtio_device_signal_all(device);
}

void virtio_device_signal_soon(struct virtio_device *device, unsigned index)
{
    const struct virtqueue *queue = &device->queues[index];
    uint16_t served = virtqueue_unsignalled(queue);

    if (served == 0)
        return;
    if (device->prompt_signals > 0 || served >= queue->size / 4) {
        device->prompt_signals -= device->prompt_signals > 0;
        virtio_device_signal(device, index);
    } else if (device->held.loop == NULL) {
        device->held.expired = held_for_long;
        event_timer_set(device->loop, &device->held, clock_monotonic_us() + HOLD_US);
    }
}

void virtio_device_reset(struct virtio_device *device)
{
    device->ops->reset(device);
    event_timer_cancel(&device->held);
}

void virtio_device_pause(struct virtio_device *device)
{
    if (device->ops->pause != NULL)
        device->ops->pause(device);
    event_timer_cancel(&device->held);
}

void virtio_device_destroy(struct virtio_device *device)
{
    event_timer_cancel(&device->held);
    device->ops->destroy(device);
}

void virtio_device_config_changed(struct virtio_device *device)
{
    if (device->transport_ops != NULL)
        device->transport_ops->signal_config(device->transport);
}

void virtio_device_config_shown(struct virtio_device *device)
{
    if (device->transport_ops != NULL)
        device->transport_ops->show_config(device->transport);
}

void virtio_device_fail(struct virtio_device *device, const char *reason)
{
    if (device->failed)
        return;
    device->failed = true;
    for (unsigned i = 0; i < device->queue_count; i++)
        device->queues[i].broken = true;
    log_warning("%s \"%s\" stops until the guest resets it: %s", device->ops->name, device->id, reason);
    device->transport_ops->fail(device->transport);
}

bool virtio_device_is_prompt(const struct virtio_device *device, unsigned index)
{
    return index < 64 && (device->prompt_queues >> index & 1) != 0;
}

bool virtio_device_holds_nothing(const struct virtio_device *device, const uint8_t *start, uint64_t length)
{
    (void)device;
    (void)start;
    (void)length;
    return false;
}

void virtio_config_copy(const void *config, size_t size, uint32_t offset, uint8_t *data, uint32_t length)
{
    memset(data, 0, length);
    if (offset >= size)
        return;
    if (length > size - offset)
        length = (uint32_t)(size - offset);
    memcpy(data, (const uint8_t *)config + offset, length);
}
