/* What a network interface of the configuration is, to the guest, and what it is on: a tap's queues, or a stream
 * socket. */
#include "vmm/virtio/net.h"

#include "vmm/backend/tap.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/if_tun.h>

enum { MTU_MIN = 68 };

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool mac_parse(const char *text, uint8_t mac[ETH_ALEN])
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

struct error *net_identify(const struct network_interface_config *config, unsigned pairs,
                           struct virtio_net_config *space, uint64_t *features)
{
    if (pairs > 1) {
        space->max_virtqueue_pairs = (uint16_t)pairs;
        *features |= 1ull << VIRTIO_NET_F_CTRL_VQ | 1ull << VIRTIO_NET_F_MQ;
    }
    if (config->guest_mac != NULL) {
        if (!mac_parse(config->guest_mac, space->mac))
            return error_new(ERROR_INPUT,
                             "guest_mac: \"%s\" is not a MAC address: expected six bytes like \"06:00:ac:10:00:02\"",
                             config->guest_mac);
        if ((space->mac[0] & 1) != 0)
            log_warning("net \"%s\": guest_mac %s is a multicast address; the guest may choose another",
                        config->iface_id, config->guest_mac);
        *features |= 1ull << VIRTIO_NET_F_MAC;
    }
    if (config->mtu != 0) {
        if (config->mtu < MTU_MIN || config->mtu > UINT16_MAX)
            return error_new(ERROR_INPUT, "mtu: %u is out of range: expected %d to %d", config->mtu, MTU_MIN,
                             UINT16_MAX);
        space->mtu = (uint16_t)config->mtu;
        *features |= 1ull << VIRTIO_NET_F_MTU;
    }
    return NULL;
}

/* How the features of 5.1.3.1 are told to a tap. */
static const struct {
    unsigned feature;
    unsigned offload;
} offload_table[] = {
    {VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
    {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
    {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
};

unsigned net_tap_offloads(uint64_t features)
{
    unsigned offloads = 0;

    for (size_t i = 0; i < array_length(offload_table); i++)
        if ((features & 1ull << offload_table[i].feature) != 0)
            offloads |= offload_table[i].offload;
    return offloads;
}

static void backends_close(struct net_backend **backends, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (backends[i] != NULL)
            backends[i]->ops->close(backends[i]);
}

/* A backend for each queue of the tap; those beyond the first rest until the driver wants them. */
static struct error *tap_backends_open(const char *host_dev_name, struct net_backend **backends, unsigned count)
{
    int fds[NETWORK_QUEUES_MAX];
    struct error *error = tap_open(host_dev_name, fds, count);

    if (error != NULL)
        return error_wrap(error, "host_dev_name");
    for (unsigned i = 0; i < count; i++) {
        backends[i] = net_tap_new(fds[i]);
        if (backends[i] == NULL)
            fd_close(&fds[i]);
        if (backends[i] == NULL || (i > 0 && !backends[i]->ops->attach(backends[i], false)))
            error = error != NULL ? error : error_errno(errno, "cannot make the network interface");
    }
    return error;
}

static struct error *backends_open(const struct network_interface_config *config, struct net_backend **backends,
                                   unsigned count)
{
    if (!config->backend.present)
        return tap_backends_open(config->host_dev_name, backends, count);
    if (count > 1)
        return error_new(ERROR_INPUT, "queues: %u, expected 1: a stream socket carries all frames one after the other",
                         count);

    struct error *error = net_stream_open(config->backend.socket_path, backends);
    return error == NULL ? NULL : error_wrap(error, "backend.socket_path");
}

struct error *virtio_net_new(const struct network_interface_config *config, struct event_loop *loop,
                             struct virtio_device **device)
{
    const unsigned count = config->queue_count == 0 ? 1 : config->queue_count;
    struct net_backend *backends[NETWORK_QUEUES_MAX] = {0};
    struct error *error = backends_open(config, backends, count);

    if (error == NULL)
        error = virtio_net_new_on_queues(config, backends, count, loop, device);
    if (error != NULL)
        backends_close(backends, count);
    return error;
}
