/*
 * The metadata service on a network interface: the driver's frames for its address are taken out before the backend
 * would get them, and its own are put in among those that the backend has for the driver.
 */
#include "vmm/virtio/net.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/mmds/mmds_net.h"
#include "vmm/virtio/devices.h"

#include <string.h>

bool net_mmds_take(struct net *net, const struct virtqueue_chain *chain)
{
    uint8_t frame[MMDS_NET_FRAME_MAX + 1]; /* one byte more: a longer frame shows */

    /* The guest may change the frame between the two looks: the second takes nothing for granted. */
    size_t length = virtqueue_chain_read(chain, HEADER_SIZE, frame, FRAME_PEEK);
    if (!mmds_net_takes(net->mmds, frame, length))
        return false;
    length = virtqueue_chain_read(chain, HEADER_SIZE, frame, sizeof(frame));
    mmds_net_receive(net->mmds, frame, length, clock_monotonic_us());
    net->mmds_heard = true;
    return true;
}

uint32_t net_mmds_give(struct net_pair *pair)
{
    struct net *net = pair->net;
    uint8_t frame[HEADER_SIZE + FRAME_SENT_MAX];
    struct iovec parts[VIRTQUEUE_IOV_MAX];
    size_t length = mmds_net_send(net->mmds, frame + HEADER_SIZE, clock_monotonic_us());
    const uint8_t *from = frame;

    if (length == 0)
        return 0;
    memset(frame, 0, HEADER_SIZE);
    size_t count = iovec_slice(parts, pair->window.iov, pair->window.iov_count, 0, HEADER_SIZE + length);
    for (size_t i = 0; i < count; i++) {
        memcpy(parts[i].iov_base, from, parts[i].iov_len);
        from += parts[i].iov_len;
    }
    return (uint32_t)(HEADER_SIZE + length);
}

void net_mmds_wait(struct net *net, bool wait)
{
    uint64_t deadline_us = wait ? mmds_net_deadline(net->mmds) : MMDS_NET_NEVER;

    if (deadline_us == MMDS_NET_NEVER)
        event_timer_cancel(&net->mmds_timer);
    else
        event_timer_set(net->device.loop, &net->mmds_timer, deadline_us);
}

static void mmds_timer_expired(struct event_timer *timer)
{
    net_receive_mmds(&container_of(timer, struct net, mmds_timer)->pairs[0]);
}

void net_mmds_stop(struct net *net)
{
    event_timer_cancel(&net->mmds_timer);
}

void net_mmds_reset(struct net *net)
{
    net->mmds_heard = false;
    if (net->mmds != NULL)
        mmds_net_reset(net->mmds);
}

bool virtio_net_set_mmds(struct virtio_device *device, struct mmds *mmds, uint32_t address)
{
    struct net *net = container_of(device, struct net, device);
    struct mmds_net *made = mmds != NULL ? mmds_net_new(mmds, address) : NULL;

    if (mmds != NULL && made == NULL)
        return false;
    event_timer_cancel(&net->mmds_timer);
    net->mmds_timer.expired = mmds_timer_expired;
    mmds_net_free(net->mmds);
    net->mmds = made;
    return true;
}
