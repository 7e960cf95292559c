/*
 * virtio-net (virtio 1.2, section 5.1): one receive and one transmit queue on a backend (backend/net_backend.h).
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

enum {
    QUEUE_SIZE = 256,
    MTU_MIN = 68,
};

/* Config space, as far as it goes (5.1.4). */
enum { CONFIG_SIZE = offsetof(struct virtio_net_config, speed) };

/* What the driver takes off the host's hands, and how the backend is told (5.1.3.1). */
static const struct {
    unsigned feature;
    unsigned offload;
} offload_table[] = {
    {VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
    {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
    {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
};

#define FEATURE(bit) (1ULL << (bit))
#define OFFLOAD_FEATURES                                                                                               \
    (FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_HOST_TSO6) |                  \
     FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6))
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

bool net_is_running(const struct net *net)
{
    return net->device.active && !net->device.failed && !net->device.paused;
}

void net_watch(struct net *net, uint32_t event, bool on)
{
    if (net->backend != NULL)
        event_source_update(&net->wire, on ? net->wire.events | event : net->wire.events & ~event);
}

void net_lose(struct net *net)
{
    if (net->backend == NULL)
        return;
    log_error("net \"%s\": the tap or the peer is gone; the guest's frames are dropped from now on", net->iface_id);
    event_source_remove(&net->wire);
    net->wire.events = 0;
    net->backend->ops->close(net->backend);
    net->backend = NULL;
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
    if (net->backend != NULL)
        event_source_update(&net->wire, 0);
    virtio_device_fail(&net->device, reason);
}

/* Transmitting. */

enum tx_step {
    TX_DONE,    /* one frame sent or dropped: go on */
    TX_EMPTY,   /* the driver's notification starts it again */
    TX_FULL,    /* the backend, when it is writable */
    TX_LIMITED, /* the timer */
    TX_DEAD,    /* the driver's reset */
};

static enum tx_step tx_drop(struct net *net, const struct virtqueue_chain *chain, uint64_t *counter)
{
    COUNTER_INCREMENT(*counter);
    virtqueue_push(&net->queues[TX], chain->head, 0);
    return TX_DONE;
}

/* What became of a frame that the backend did not take. */
static enum tx_step tx_refused(struct net *net, const struct virtqueue_chain *chain, int code)
{
    if (code == EAGAIN) {
        virtqueue_unpop(&net->queues[TX]);
        net->tx_paid = true;
        return TX_FULL;
    }
    if (code == EINVAL) /* the header contradicts itself or the frame */
        return tx_drop(net, chain, &net->metrics.counters.tx_malformed_frames);
    COUNTER_INCREMENT(net->metrics.counters.tap_write_fails);
    log_debug("net \"%s\": the backend refuses a frame: %s", net->iface_id, strerror(code));
    if (code == ENOTCONN)
        net_lose(net);
    return tx_drop(net, chain, &net->metrics.counters.tx_fails);
}

static enum tx_step tx_send(struct net *net, const struct virtqueue_chain *chain)
{
    COUNTER_INCREMENT(net->metrics.counters.tx_count);
    if (chain->readable_bytes < FRAME_MIN || chain->readable_bytes > FRAME_MAX)
        return tx_drop(net, chain, &net->metrics.counters.tx_malformed_frames);

    uint64_t retry_us = net->tx_paid ? 0 : net_limiter_take(&net->tx_limiter, chain->readable_bytes);
    if (retry_us != 0) {
        COUNTER_INCREMENT(net->metrics.counters.tx_rate_limiter_throttled);
        virtqueue_unpop(&net->queues[TX]);
        event_timer_set(net->device.loop, &net->tx_timer, retry_us);
        return TX_LIMITED;
    }

    net->tx_paid = false;
    if (net->mmds != NULL && net_mmds_take(net, chain)) {
        virtqueue_push(&net->queues[TX], chain->head, 0);
        return TX_DONE;
    }
    if (net->backend == NULL)
        return tx_drop(net, chain, &net->metrics.counters.tx_fails);
    int result = net->backend->ops->send(net->backend, chain->iov, chain->readable_count, chain->readable_bytes);
    if (result < 0)
        return tx_refused(net, chain, -result);
    COUNTER_INCREMENT(net->metrics.counters.tx_packets_count);
    COUNTER_ADD(net->metrics.counters.tx_bytes_count, chain->readable_bytes - HEADER_SIZE);
    virtqueue_push(&net->queues[TX], chain->head, 0);
    return TX_DONE;
}

static enum tx_step tx_step(struct net *net)
{
    struct virtqueue_chain chain;
    enum virtqueue_result result = virtqueue_pop(&net->queues[TX], &chain);

    if (result == VIRTQUEUE_EMPTY)
        return virtqueue_arm(&net->queues[TX]) ? TX_DONE : TX_EMPTY;
    if (result == VIRTQUEUE_BROKEN) {
        net_fail(net, "the transmit queue is broken");
        return TX_DEAD;
    }
    return tx_send(net, &chain);
}

/* Whether the backend still has the end of a frame to send. */
static bool tx_unsent(struct net *net)
{
    return net->backend != NULL && net->backend->unsent;
}

static void tx_run(struct net *net)
{
    enum tx_step step = TX_DONE;

    if (!net_is_running(net) || net->tx_timer.loop != NULL || (net->wire.events & EPOLLOUT) != 0)
        return;
    if (tx_unsent(net))
        net->backend->ops->flush(net->backend);
    virtqueue_disarm(&net->queues[TX]);
    for (unsigned frames = 0; frames < TURN_FRAMES && step == TX_DONE; frames++) {
        step = tx_step(net);
        if (step == TX_EMPTY && frames == 0)
            COUNTER_INCREMENT(net->metrics.counters.no_tx_avail_buffer);
    }
    if (step == TX_DONE)
        event_timer_set(net->device.loop, &net->turn, 0);
    net_watch(net, EPOLLOUT, step == TX_FULL || tx_unsent(net));
    virtio_device_signal(&net->device, TX);
    if (net->mmds_heard) {
        net->mmds_heard = false;
        net_receive_mmds(net);
    }
}

static void tx_timer_expired(struct event_timer *timer)
{
    struct net *net = container_of(timer, struct net, tx_timer);

    COUNTER_INCREMENT(net->metrics.counters.tx_rate_limiter_event_count);
    tx_run(net);
}

/* The backend, and both directions together. */

static void wire_ready(struct event_source *source, uint32_t events)
{
    struct net *net = container_of(source, struct net, wire);

    if ((events & EPOLLOUT) != 0) {
        net_watch(net, EPOLLOUT, false);
        tx_run(net);
    }
    if ((events & EPOLLIN) != 0) {
        COUNTER_INCREMENT(net->metrics.counters.rx_tap_event_count);
        net_receive(net);
    }
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        net_lose(net);
        tx_run(net);
    }
}

static void turn_expired(struct event_timer *timer)
{
    struct net *net = container_of(timer, struct net, turn);

    net_receive(net);
    tx_run(net);
}

static void net_stop(struct net *net)
{
    if (net->backend != NULL)
        event_source_update(&net->wire, 0);
    event_timer_cancel(&net->turn);
    event_timer_cancel(&net->rx_timer);
    event_timer_cancel(&net->tx_timer);
    net_mmds_stop(net);
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
    unsigned offloads = 0;

    for (size_t i = 0; i < array_length(offload_table); i++)
        if (has_feature(net, offload_table[i].feature))
            offloads |= offload_table[i].offload;
    if (offloads != net->offloads && net->backend != NULL && !net->backend->ops->set_offloads(net->backend, offloads)) {
        COUNTER_INCREMENT(net->metrics.counters.activate_fails);
        log_error("net \"%s\": cannot set the offloads of its tap to %#x: %s", net->iface_id, offloads,
                  strerror(errno));
        return false;
    }
    net->offloads = offloads;
    net->mergeable = has_feature(net, VIRTIO_NET_F_MRG_RXBUF);
    net->rx_enough = segments ? FRAME_MAX : FRAME_MIN + (mtu > ETH_DATA_LEN ? mtu : ETH_DATA_LEN);
    /* Not now: the device is active only after we return. */
    event_timer_set(device->loop, &net->turn, 0);
    return true;
}

static void net_notify(struct virtio_device *device, unsigned index)
{
    struct net *net = net_of(device);

    if (index == RX) {
        COUNTER_INCREMENT(net->metrics.counters.rx_queue_event_count);
        net_receive(net);
    } else {
        COUNTER_INCREMENT(net->metrics.counters.tx_queue_event_count);
        tx_run(net);
    }
}

static void net_reset(struct virtio_device *device)
{
    struct net *net = net_of(device);

    net_stop(net);
    net_receive_reset(net);
    net_mmds_reset(net);
    net->tx_paid = false;
}

static void net_pause(struct virtio_device *device)
{
    net_stop(net_of(device));
}

static void net_resume(struct virtio_device *device)
{
    event_timer_set(device->loop, &net_of(device)->turn, 0);
}

static void net_destroy(struct virtio_device *device)
{
    struct net *net = net_of(device);

    net_stop(net);
    metrics_device_remove(&net->metrics.device);
    event_source_remove(&net->wire);
    if (net->backend != NULL)
        net->backend->ops->close(net->backend);
    mmds_net_free(net->mmds);
    free(net->rx_spill);
    free(net->iface_id);
    free(net);
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
    .destroy = net_destroy,
};

/* Making one. */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool net_mac_parse(const char *text, uint8_t mac[ETH_ALEN])
{
    for (size_t i = 0; i < ETH_ALEN; i++, text += 3) {
        int high = hex_digit(text[0]);
        int low = high < 0 ? -1 : hex_digit(text[1]);

        if (low < 0 || text[2] != (i + 1 < ETH_ALEN ? ':' : '\0'))
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static struct error *net_configure(struct net *net, const struct network_interface_config *config)
{
    net->device.features =
        FEATURE(VIRTIO_NET_F_MRG_RXBUF) | (net->backend->ops->offloads ? OFFLOAD_FEATURES : OTHER_FEATURES);
    if (!net->backend->ops->offloads)
        net->config.status = VIRTIO_NET_S_LINK_UP;
    if (config->guest_mac != NULL) {
        if (!net_mac_parse(config->guest_mac, net->config.mac))
            return error_new(ERROR_INPUT,
                             "guest_mac: \"%s\" is not a MAC address: expected six bytes like \"06:00:ac:10:00:02\"",
                             config->guest_mac);
        if ((net->config.mac[0] & 1) != 0)
            log_warning("net \"%s\": guest_mac %s is a multicast address; the guest may choose another",
                        config->iface_id, config->guest_mac);
        net->device.features |= FEATURE(VIRTIO_NET_F_MAC);
    }
    if (config->mtu != 0) {
        if (config->mtu < MTU_MIN || config->mtu > UINT16_MAX)
            return error_new(ERROR_INPUT, "mtu: %u is out of range: expected %d to %d", config->mtu, MTU_MIN,
                             UINT16_MAX);
        net->config.mtu = (uint16_t)config->mtu;
        net->device.features |= FEATURE(VIRTIO_NET_F_MTU);
    }
    return NULL;
}

struct error *virtio_net_new_on(const struct network_interface_config *config, struct net_backend *backend,
                                struct event_loop *loop, struct virtio_device **device)
{
    cleanup_free struct net *net = calloc(1, sizeof(*net));
    cleanup_free char *iface_id = strdup(config->iface_id);
    uint64_t now_us = clock_monotonic_us();

    if (net == NULL || iface_id == NULL)
        return error_errno(ENOMEM, "cannot make the network interface");

    net->backend = backend;
    struct error *error = net_configure(net, config);
    if (error != NULL)
        return error;
    net->wire.fd = backend->fd;
    net->wire.ready = wire_ready;
    error = event_source_add(loop, &net->wire, 0);
    if (error != NULL)
        return error;

    rate_limiter_init(&net->rx_limiter, &config->rx_rate_limiter, now_us);
    rate_limiter_init(&net->tx_limiter, &config->tx_rate_limiter, now_us);
    net->turn.expired = turn_expired;
    net->rx_timer.expired = net_receive_later;
    net->tx_timer.expired = tx_timer_expired;
    net->queues[RX].size_max = net->queues[TX].size_max = QUEUE_SIZE;
    net->iface_id = take_pointer(&iface_id);
    net->device.ops = &net_ops;
    net->device.id = net->iface_id;
    net->device.queues = net->queues;
    net->device.queue_count = QUEUE_COUNT;
    METRICS_DEVICE_ADD(&net->metrics, METRICS_NET, "net", net->iface_id);
    *device = &((struct net *)take_pointer(&net))->device;
    return NULL;
}

static struct error *tap_backend_open(const char *host_dev_name, struct net_backend **backend)
{
    cleanup_fd int fd = -1;
    struct error *error = tap_open(host_dev_name, &fd);

    if (error != NULL)
        return error_wrap(error, "host_dev_name");
    *backend = net_tap_new(fd);
    if (*backend == NULL)
        return error_errno(ENOMEM, "cannot make the network interface");
    take_fd(&fd);
    return NULL;
}

static struct error *backend_open(const struct network_interface_config *config, struct net_backend **backend)
{
    if (!config->backend.present)
        return tap_backend_open(config->host_dev_name, backend);

    struct error *error = net_stream_open(config->backend.socket_path, backend);
    return error == NULL ? NULL : error_wrap(error, "backend.socket_path");
}

struct error *virtio_net_new(const struct network_interface_config *config, struct event_loop *loop,
                             struct virtio_device **device)
{
    struct net_backend *backend;
    struct error *error = backend_open(config, &backend);

    if (error != NULL)
        return error;
    error = virtio_net_new_on(config, backend, loop, device);
    if (error != NULL)
        backend->ops->close(backend);
    return error;
}

struct error *virtio_net_update(struct virtio_device *device, const struct network_interface_update *update)
{
    struct net *net = net_of(device);
    uint64_t now_us = clock_monotonic_us();

    rate_limiter_update(&net->rx_limiter, &update->rx_rate_limiter, now_us);
    rate_limiter_update(&net->tx_limiter, &update->tx_rate_limiter, now_us);
    if (net_is_running(net)) {
        event_timer_cancel(&net->rx_timer);
        event_timer_cancel(&net->tx_timer);
        event_timer_set(device->loop, &net->turn, 0);
    }
    return NULL;
}
