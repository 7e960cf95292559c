/*
 * virtio-net (virtio 1.2, section 5.1): pairs of a receive (net_receive.c) and a transmit queue (net_transmit.c), each
 * on a backend (backend/net_backend.h); with several pairs a control queue on which the driver says how many it uses.
 *
 * Frames pass between the backend and guest memory in one call, header included; nothing is copied here.
 *
 * The backend is watched only while something can be done about it: EPOLLIN while there are receive buffers and no
 * limit holds, EPOLLOUT while a frame waits for it. Otherwise a level-triggered loop would spin.
 */
#include "vmm/virtio/net.h"

#include "vmm/backend/net_backend.h"
#include "vmm/backend/tap.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/mmds/mmds_net.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/uio.h>

/* Config space, as far as it goes (5.1.4). */
enum { CONFIG_SIZE = offsetof(struct virtio_net_config, speed) };

#define FEATURE(bit) (1ULL << (bit))
/* A backend without offloads is a program, which may end: then the link is down. */
#define OTHER_FEATURES FEATURE(VIRTIO_NET_F_STATUS)

static struct net *net_of(struct virtio_device *device)
{
    return container_of(device, struct net, device);
}

static bool has_feature(const struct net *net, unsigned bit)
{
    return (net->device.driver_features & FEATURE(bit)) != 0;
}

bool net_pair_is_running(const struct net_pair *pair)
{
    const struct virtio_device *device = &pair->net->device;

    return device->active && !device->failed && !device->paused && pair->first < 2 * pair->net->pairs_used;
}

void net_watch(struct net_pair *pair, uint32_t event, bool on)
{
    if (pair->backend != NULL)
        event_source_update(&pair->wire, on ? pair->wire.events | event : pair->wire.events & ~event);
}

static void lose_backend(struct net_pair *pair)
{
    if (pair->backend == NULL)
        return;
    event_source_remove(&pair->wire);
    pair->wire.events = 0;
    pair->backend->ops->close(pair->backend);
    pair->backend = NULL;
}

void net_lose(struct net *net)
{
    if (net->pairs[0].backend == NULL)
        return;
    log_error("net \"%s\": the tap or the peer is gone; the guest's frames are dropped from now on", net->iface_id);
    for (unsigned i = 0; i < net->pair_count; i++)
        lose_backend(&net->pairs[i]);
    if ((net->device.features & FEATURE(VIRTIO_NET_F_STATUS)) == 0)
        return;
    net->config.status = 0;
    virtio_device_config_changed(&net->device);
}

uint64_t net_limiter_take(struct rate_limiter *limiter, size_t size)
{
    if (!limiter->bandwidth.limited && !limiter->ops.limited)
        return 0;
    return rate_limiter_take(limiter, size - HEADER_SIZE, clock_monotonic_us());
}

void net_fail(struct net *net, const char *reason)
{
    COUNTER_INCREMENT(net->metrics.counters.event_fails);
    for (unsigned i = 0; i < net->pair_count; i++)
        if (net->pairs[i].backend != NULL)
            event_source_update(&net->pairs[i].wire, 0);
    virtio_device_fail(&net->device, reason);
}

/* The backend, and both directions together. */

static void wire_ready(struct event_source *source, uint32_t events)
{
    struct net_pair *pair = container_of(source, struct net_pair, wire);

    if ((events & EPOLLOUT) != 0) {
        net_watch(pair, EPOLLOUT, false);
        net_transmit(pair);
    }
    if ((events & EPOLLIN) != 0) {
        COUNTER_INCREMENT(pair->net->metrics.counters.rx_tap_event_count);
        net_receive(pair);
    }
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        net_lose(pair->net);
        net_transmit(pair);
    }
}

static void turn_expired(struct event_timer *timer)
{
    struct net_pair *pair = container_of(timer, struct net_pair, turn);

    net_receive(pair);
    net_transmit(pair);
}

static void pair_stop(struct net_pair *pair)
{
    if (pair->backend != NULL)
        event_source_update(&pair->wire, 0);
    event_timer_cancel(&pair->turn);
    event_timer_cancel(&pair->rx_timer);
    event_timer_cancel(&pair->tx_timer);
}

static void net_stop(struct net *net)
{
    for (unsigned i = 0; i < net->pair_count; i++)
        pair_stop(&net->pairs[i]);
    net_control_stop(&net->control);
    net_mmds_stop(net);
}

/* Looks at every queue on the next turn of the loop. */
static void net_look(struct net *net)
{
    for (unsigned i = 0; i < net->pairs_used; i++)
        event_timer_set(net->device.loop, &net->pairs[i].turn, 0);
    net_control_look(&net->control);
}

/* How many pairs are used. */

/* The host spreads its frames over the queues that are attached. */
static void attach(struct net_pair *pair, bool attached)
{
    if (pair->backend == NULL || pair->backend->ops->attach(pair->backend, attached))
        return;
    log_error("net \"%s\": cannot %s queue %u of its tap: %s", pair->net->iface_id, attached ? "attach" : "detach",
              pair->first / 2, strerror(errno));
}

static uint64_t set_pairs(struct virtio_device *device, unsigned pairs)
{
    struct net *net = net_of(device);
    const unsigned before = net->pairs_used;

    if (pairs == before)
        return 0;
    net->pairs_used = pairs;
    for (unsigned i = pairs; i < before; i++) {
        pair_stop(&net->pairs[i]);
        attach(&net->pairs[i], false);
    }
    for (unsigned i = before; i < pairs; i++) {
        attach(&net->pairs[i], true);
        event_timer_set(net->device.loop, &net->pairs[i].turn, 0);
    }
    return NET_PAIRS_CHANGE_US;
}

static void broken(struct virtio_device *device, const char *reason)
{
    net_fail(net_of(device), reason);
}

/* The device's operations. */

static void net_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    virtio_config_copy(&net_of(device)->config, CONFIG_SIZE, offset, data, length);
}

static bool net_activate(struct virtio_device *device)
{
    struct net *net = net_of(device);
    bool segments = has_feature(net, VIRTIO_NET_F_GUEST_TSO4) || has_feature(net, VIRTIO_NET_F_GUEST_TSO6);
    uint32_t mtu = has_feature(net, VIRTIO_NET_F_MTU) ? net->config.mtu : 0;
    unsigned offloads = net_tap_offloads(device->driver_features);

    struct net_backend *backend = net->pairs[0].backend; /* they are the tap's: one queue stands for all */
    if (offloads != net->offloads && backend != NULL && !backend->ops->set_offloads(backend, offloads)) {
        COUNTER_INCREMENT(net->metrics.counters.activate_fails);
        log_error("net \"%s\": cannot set the offloads of its tap to %#x: %s", net->iface_id, offloads,
                  strerror(errno));
        return false;
    }
    net->offloads = offloads;
    net->mergeable = has_feature(net, VIRTIO_NET_F_MRG_RXBUF);
    net->rx_enough = segments ? FRAME_MAX : FRAME_MIN + (mtu > ETH_DATA_LEN ? mtu : ETH_DATA_LEN);
    /* Not now: the device is active only after we return. */
    net_look(net);
    return true;
}

static void net_notify(struct virtio_device *device, unsigned index)
{
    struct net *net = net_of(device);

    if ((int)index == net_control_index(device)) {
        net_control_serve(&net->control);
    } else if (index >= 2 * net->pair_count) {
        return;
    } else if (index % 2 == RX) {
        COUNTER_INCREMENT(net->metrics.counters.rx_queue_event_count);
        net_receive(&net->pairs[index / 2]);
    } else {
        COUNTER_INCREMENT(net->metrics.counters.tx_queue_event_count);
        net_transmit(&net->pairs[index / 2]);
    }
}

static void net_reset(struct virtio_device *device)
{
    struct net *net = net_of(device);

    net_stop(net);
    net_control_set_pairs(&net->control, 1);
    for (unsigned i = 0; i < net->pair_count; i++) {
        net_receive_reset(&net->pairs[i]);
        net->pairs[i].tx_paid = false;
    }
    net_mmds_reset(net);
}

static void net_pause(struct virtio_device *device)
{
    net_stop(net_of(device));
}

static void net_resume(struct virtio_device *device)
{
    net_look(net_of(device));
}

/* Receive buffers wait here for frames that may never come. All else is given back before anybody else has a turn. */
static bool net_holds(const struct virtio_device *device, const uint8_t *start, uint64_t length)
{
    const struct net *net = net_of((struct virtio_device *)(uintptr_t)device);

    for (unsigned i = 0; i < net->pair_count; i++)
        if (net_receive_holds(&net->pairs[i], start, length))
            return true;
    return false;
}

static void net_free(struct net *net)
{
    free(net->device.queues);
    free(net->iface_id);
    free(net);
}

static void net_destroy(struct virtio_device *device)
{
    struct net *net = net_of(device);

    net_stop(net);
    metrics_device_remove(&net->metrics.device);
    for (unsigned i = 0; i < net->pair_count; i++) {
        lose_backend(&net->pairs[i]);
        free(net->pairs[i].rx_spill);
    }
    mmds_net_free(net->mmds);
    net_free(net);
}

static const struct virtio_ops net_ops = {
    .type = VIRTIO_ID_NET,
    .name = "net",
    .config_read = net_config_read,
    .activate = net_activate,
    .notify = net_notify,
    .reset = net_reset,
    .pause = net_pause,
    .resume = net_resume,
    .holds = net_holds,
    .destroy = net_destroy,
};

/* Making one. */

static struct error *net_configure(struct net *net, const struct network_interface_config *config)
{
    const bool offloads = net->pairs[0].backend->ops->offloads;

    net->device.features = FEATURE(VIRTIO_NET_F_MRG_RXBUF) | (offloads ? NET_OFFLOAD_FEATURES : OTHER_FEATURES);
    if (!offloads)
        net->config.status = VIRTIO_NET_S_LINK_UP;
    return net_identify(config, net->pair_count, &net->config, &net->device.features);
}

static void pair_init(struct net *net, unsigned index, struct net_backend *backend)
{
    net->pairs[index] = (struct net_pair){
        .net = net,
        .first = 2 * index,
        .queues = &net->device.queues[2 * index],
        .backend = backend,
        .wire = {.fd = backend->fd, .ready = wire_ready},
        .turn = {.expired = turn_expired},
        .rx_timer = {.expired = net_receive_later},
        .tx_timer = {.expired = net_transmit_later},
    };
}

/* Watches the wires of all pairs, or of none. */
static struct error *watch_wires(struct net *net, struct event_loop *loop)
{
    struct error *error = NULL;

    for (unsigned i = 0; i < net->pair_count && error == NULL; i++)
        error = event_source_add(loop, &net->pairs[i].wire, 0);
    for (unsigned i = 0; i < net->pair_count && error != NULL; i++)
        event_source_remove(&net->pairs[i].wire);
    return error;
}

static struct net *net_alloc(const char *iface_id, unsigned pair_count)
{
    const unsigned queue_count = 2 * pair_count + (pair_count > 1 ? 1 : 0);
    struct net *net = calloc(1, sizeof(*net) + pair_count * sizeof(net->pairs[0]));

    if (net == NULL)
        return NULL;
    net->pair_count = pair_count;
    net->pairs_used = 1;
    net->iface_id = strdup(iface_id);
    net->device = (struct virtio_device){.ops = &net_ops,
                                         .id = net->iface_id,
                                         .queues = calloc(queue_count, sizeof(struct virtqueue)),
                                         .queue_count = queue_count};
    net_control_init(&net->control, &net->device, pair_count, set_pairs, broken);
    if (net->iface_id == NULL || net->device.queues == NULL) {
        net_free(net);
        return NULL;
    }
    for (unsigned i = 0; i < queue_count; i++)
        net->device.queues[i].size_max = NET_QUEUE_SIZE;
    return net;
}

struct error *virtio_net_new_on_queues(const struct network_interface_config *config, struct net_backend **backends,
                                       unsigned count, struct event_loop *loop, struct virtio_device **device)
{
    struct net *net = net_alloc(config->iface_id, count);
    uint64_t now_us = clock_monotonic_us();

    if (net == NULL)
        return error_errno(ENOMEM, "cannot make the network interface");
    for (unsigned i = 0; i < count; i++)
        pair_init(net, i, backends[i]);
    struct error *error = net_configure(net, config);
    if (error == NULL)
        error = watch_wires(net, loop);
    if (error != NULL) {
        net_free(net);
        return error;
    }
    /* A tap's host learns of the guest by asking for it. */
    if (!backends[0]->ops->offloads && (net->device.features & FEATURE(VIRTIO_NET_F_MAC)) != 0)
        net_announce(net);
    rate_limiter_init(&net->rx_limiter, &config->rx_rate_limiter, now_us);
    rate_limiter_init(&net->tx_limiter, &config->tx_rate_limiter, now_us);
    METRICS_DEVICE_ADD(&net->metrics, METRICS_NET, "net", net->iface_id);
    *device = &net->device;
    return NULL;
}

struct error *virtio_net_new_on(const struct network_interface_config *config, struct net_backend *backend,
                                struct event_loop *loop, struct virtio_device **device)
{
    return virtio_net_new_on_queues(config, &backend, 1, loop, device);
}

struct error *virtio_net_update(struct virtio_device *device, const struct network_interface_update *update)
{
    struct net *net = net_of(device);
    uint64_t now_us = clock_monotonic_us();

    rate_limiter_update(&net->rx_limiter, &update->rx_rate_limiter, now_us);
    rate_limiter_update(&net->tx_limiter, &update->tx_rate_limiter, now_us);
    for (unsigned i = 0; i < net->pairs_used && net_pair_is_running(&net->pairs[0]); i++) {
        event_timer_cancel(&net->pairs[i].rx_timer);
        event_timer_cancel(&net->pairs[i].tx_timer);
        event_timer_set(device->loop, &net->pairs[i].turn, 0);
    }
    return NULL;
}
