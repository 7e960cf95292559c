/*
 * Networks that another process serves. With several pairs of queues the driver says on the control queue how many it
 * uses (virtio 1.2, 5.1.6.5.5): that queue is ours, the others are the back end's.
 */
#include "vmm/virtio/vhost_user.h"

#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#define NET_FEATURES                                                                                                   \
    (1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 |                   \
     1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN | 1ull << VIRTIO_NET_F_GUEST_UFO |               \
     1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_TSO6 | 1ull << VIRTIO_NET_F_HOST_ECN |                 \
     1ull << VIRTIO_NET_F_HOST_UFO | 1ull << VIRTIO_NET_F_MRG_RXBUF)

struct vhost_user_net {
    struct vhost_user_device served; /* first */
    struct virtio_net_config config;
    struct net_control control;
};

static struct vhost_user_net *net_of(struct virtio_device *device)
{
    return (struct vhost_user_net *)vhost_user_device_of(device);
}

static bool activate(struct virtio_device *device)
{
    struct vhost_user_net *net = net_of(device);
    struct vhost_user_ring rings[VHOST_USER_RINGS_MAX];
    const int control = net_control_index(device);

    vhost_user_device_rings(&net->served, rings);
    for (unsigned i = 0; i < net->served.front.needs.queue_count; i++) {
        rings[i].ready = rings[i].ready && (int)i != control;
        rings[i].enabled = i < 2;
    }
    if (control >= 0)
        vhost_user_device_serve(&net->served, (unsigned)control, true);
    net_control_look(&net->control);
    return vhost_user_device_start(&net->served, rings);
}

static uint64_t set_pairs(struct virtio_device *device, unsigned pairs)
{
    struct vhost_user_net *net = net_of(device);

    for (unsigned i = 0; i < net->served.front.needs.queue_count; i++)
        vhost_user_enable(&net->served.front, i, i < 2 * pairs);
    return 0;
}

static void broken(struct virtio_device *device, const char *reason)
{
    vhost_user_device_stop(device);
    virtio_device_fail(device, reason);
}

static void notify(struct virtio_device *device, unsigned index)
{
    if ((int)index == net_control_index(device))
        net_control_serve(&net_of(device)->control);
    else
        vhost_user_device_notify(device, index);
}

static void stop(struct virtio_device *device)
{
    net_control_stop(&net_of(device)->control);
    vhost_user_device_stop(device);
}

static void reset(struct virtio_device *device)
{
    const int control = net_control_index(device);

    stop(device);
    if (control >= 0)
        vhost_user_device_serve(vhost_user_device_of(device), (unsigned)control, false);
}

static void resume(struct virtio_device *device)
{
    vhost_user_device_resume(device);
    net_control_look(&net_of(device)->control);
}

static void destroy(struct virtio_device *device)
{
    net_control_stop(&net_of(device)->control);
    vhost_user_device_destroy(device);
}

static const struct virtio_ops net_ops = {
    .type = VIRTIO_ID_NET,
    .name = "net",
    .config_read = vhost_user_device_config_read,
    .activate = activate,
    .notify = notify,
    .reset = reset,
    .pause = stop,
    .resume = resume,
    .destroy = destroy,
};
static const struct vhost_user_owner owner_ops = {
    .config_changed = vhost_user_device_config_changed,
    .failed = vhost_user_device_failed,
};

/* MAC, MTU and how many queues there are is ours to tell: no back end has them from us. */
static struct error *configure(struct vhost_user_net *net, const struct network_interface_config *config,
                               unsigned pairs)
{
    struct virtio_device *device = &net->served.device;

    net->served.config = (uint8_t *)&net->config;
    net->served.config_size = sizeof(net->config);
    net_control_init(&net->control, device, pairs, set_pairs, broken);
    if (pairs > 1 && (device->features & 1ull << VIRTIO_NET_F_MQ) == 0)
        return error_new(ERROR_HOST, "queues: %u, expected 1 of a back end that has one pair (feature MQ is missing)",
                         pairs);
    return net_identify(config, pairs, &net->config, &device->features);
}

struct error *virtio_vhost_user_net_new(const struct network_interface_config *config, struct event_loop *loop,
                                        struct virtio_device **device)
{
    const unsigned pairs = config->queue_count == 0 ? 1 : config->queue_count;
    const struct vhost_user_kind kind = {
        .ops = &net_ops,
        .owner_ops = &owner_ops,
        .metrics_prefix = "vhost_user_net",
        .size = sizeof(struct vhost_user_net),
        .own_queues = pairs > 1 ? 1 : 0,
    };
    struct vhost_user_needs needs = {
        .features = VHOST_USER_RING_FEATURES | NET_FEATURES, .queue_count = 2 * pairs, .resumable = true};
    struct vhost_user_device *served;

    if (pairs > 1)
        needs.features |= 1ull << VIRTIO_NET_F_MQ;

    struct error *error =
        vhost_user_device_new(&kind, config->iface_id, config->backend.socket_path, &needs, loop, &served);
    if (error != NULL)
        return error_wrap(error, "backend.socket_path");
    error = configure((struct vhost_user_net *)served, config, pairs);
    if (error != NULL) {
        vhost_user_device_destroy(&served->device);
        return error;
    }
    *device = &served->device;
    return NULL;
}
