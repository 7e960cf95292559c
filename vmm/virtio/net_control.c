/*
 * The control queue of virtio-net (virtio 1.2, section 5.1.6.5). One command is known, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
 * any other is answered with an error, as the driver must expect.
 */
#include "vmm/virtio/net_control.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

#include <linux/virtio_net.h>

struct command {
    uint8_t class;
    uint8_t number;
    uint16_t pairs;
} __attribute__((packed));

int net_control_index(const struct virtio_device *device)
{
    if ((device->driver_features & 1ull << VIRTIO_NET_F_CTRL_VQ) == 0)
        return -1;
    return (device->driver_features & 1ull << VIRTIO_NET_F_MQ) != 0 ? (int)device->queue_count - 1 : 2;
}

static uint8_t obey(struct net_control *control, const struct virtqueue_chain *chain)
{
    const struct virtio_device *device = control->device;
    struct command command;

    if (chain->readable_bytes != sizeof(command) || chain->writable_bytes == 0 ||
        virtqueue_chain_read(chain, 0, &command, sizeof(command)) != sizeof(command))
        return VIRTIO_NET_ERR;
    if (command.class != VIRTIO_NET_CTRL_MQ || command.number != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
        (device->driver_features & 1ull << VIRTIO_NET_F_MQ) == 0)
        return VIRTIO_NET_ERR;
    if (command.pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || command.pairs > control->pairs_max)
        return VIRTIO_NET_ERR;
    net_control_set_pairs(control, command.pairs);
    return VIRTIO_NET_OK;
}

void net_control_set_pairs(struct net_control *control, unsigned pairs)
{
    uint64_t pause_us = control->set_pairs(control->device, pairs);

    if (pause_us != 0)
        control->next_us = clock_monotonic_us() + pause_us;
}

void net_control_serve(struct net_control *control)
{
    struct virtio_device *device = control->device;
    const int index = net_control_index(device);
    struct virtqueue_chain chain;

    if (index < 0 || !device->active || device->failed || device->paused)
        return;
    if (control->next_us != 0 && clock_monotonic_us() < control->next_us) {
        event_timer_set(device->loop, &control->turn, control->next_us);
        return;
    }

    struct virtqueue *queue = &device->queues[index];
    switch (virtqueue_pop(queue, &chain)) {
    case VIRTQUEUE_BROKEN:
        control->broken(device, "the control queue is broken");
        return;
    case VIRTQUEUE_EMPTY:
        if (virtqueue_arm(queue))
            net_control_look(control);
        return;
    case VIRTQUEUE_CHAIN:
        break;
    }

    uint8_t answer = obey(control, &chain);
    virtqueue_push(queue, chain.head, (uint32_t)virtqueue_chain_write(&chain, 0, &answer, sizeof(answer)));
    virtio_device_signal(device, (unsigned)index);
    net_control_look(control);
}

static void turn_expired(struct event_timer *timer)
{
    net_control_serve(container_of(timer, struct net_control, turn));
}

void net_control_init(struct net_control *control, struct virtio_device *device, unsigned pairs_max,
                      uint64_t (*set_pairs)(struct virtio_device *device, unsigned pairs),
                      void (*broken)(struct virtio_device *device, const char *reason))
{
    *control = (struct net_control){.device = device,
                                    .pairs_max = pairs_max,
                                    .set_pairs = set_pairs,
                                    .broken = broken,
                                    .turn = {.expired = turn_expired}};
}

void net_control_look(struct net_control *control)
{
    if (net_control_index(control->device) >= 0)
        event_timer_set(control->device->loop, &control->turn, 0);
}

void net_control_stop(struct net_control *control)
{
    event_timer_cancel(&control->turn);
}
