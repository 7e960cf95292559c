/*
 * The control queue of virtio-net (virtio 1.2, section 5.1.6.5). One command is known, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
 * any other is answered with an error, as the driver must expect.
 */
#include "vmm/virtio/net_control.h"

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

static uint8_t obey(const struct virtio_device *device, const struct virtqueue_chain *chain, unsigned pairs_max,
                    void (*set_pairs)(void *owner, unsigned pairs), void *owner)
{
    struct command command;

    if (chain->readable_bytes != sizeof(command) || chain->writable_bytes == 0 ||
        virtqueue_chain_read(chain, 0, &command, sizeof(command)) != sizeof(command))
        return VIRTIO_NET_ERR;
    if (command.class != VIRTIO_NET_CTRL_MQ || command.number != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
        (device->driver_features & 1ull << VIRTIO_NET_F_MQ) == 0)
        return VIRTIO_NET_ERR;
    if (command.pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || command.pairs > pairs_max)
        return VIRTIO_NET_ERR;
    set_pairs(owner, command.pairs);
    return VIRTIO_NET_OK;
}

enum net_control_result net_control_serve(struct virtio_device *device, unsigned index, unsigned commands,
                                          unsigned pairs_max, void (*set_pairs)(void *owner, unsigned pairs),
                                          void *owner)
{
    struct virtqueue *queue = &device->queues[index];
    enum net_control_result result = NET_CONTROL_MORE;

    for (unsigned served = 0; served < commands; served++) {
        struct virtqueue_chain chain;
        enum virtqueue_result popped = virtqueue_pop(queue, &chain);

        if (popped == VIRTQUEUE_BROKEN)
            return NET_CONTROL_BROKEN;
        if (popped == VIRTQUEUE_EMPTY && virtqueue_arm(queue))
            continue;
        if (popped == VIRTQUEUE_EMPTY) {
            result = NET_CONTROL_DONE;
            break;
        }

        uint8_t answer = obey(device, &chain, pairs_max, set_pairs, owner);
        virtqueue_push(queue, chain.head, (uint32_t)virtqueue_chain_write(&chain, 0, &answer, sizeof(answer)));
    }
    virtio_device_signal(device, index);
    return result;
}
