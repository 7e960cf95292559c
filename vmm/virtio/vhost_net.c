/*
 * virtio-net (virtio 1.2, section 5.1) whose frames the host's kernel moves (backend/vhost_net.h): between a tap and
 * the guest's queues, past this process. The guest's notifications go to the kernel, its interrupts come from there.
 * What is here: features, the config space, the control queue with several pairs of queues, each of which has a
 * /dev/vhost-net of its own, and the driver's coming and going.
 *
 * The kernel gets the queues on the event loop, a turn after the driver is ready, and gives them back on whichever
 * thread wants them. A guest that breaks a queue has the kernel ring `errors`, and the device is dead until it resets
 * it.
 */
#include "vmm/backend/vhost_net.h"
#include "vmm/backend/tap.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>

_Static_assert((int)QUEUE_COUNT == (int)VHOST_NET_QUEUES, "one descriptor serves a pair");

/* Of these the host's kernel has to do those that are not the tap's. */
#define RING_FEATURES                                                                                                  \
    (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX |              \
     1ull << VIRTIO_NET_F_MRG_RXBUF)

struct vhost_pair {
    int vhost_fd;
    int tap_fd;
    bool told; /* the kernel knows where the queues are */
    bool attached[QUEUE_COUNT];
};

struct vhost_net {
    struct virtio_device device;
    DEVICE_METRICS(net_metrics) metrics;
    struct virtio_net_config config;
    struct net_control control;
    struct event_source errors; /* an eventfd that all queues have in common */
    struct event_timer turn;    /* to hand over the queues */
    uint64_t kernel_features;
    unsigned offloads; /* as the tap has them */
    unsigned pair_count;
    unsigned pairs_used;
    struct vhost_pair pairs[];
};

static struct vhost_net *net_of(struct virtio_device *device)
{
    return container_of(device, struct vhost_net, device);
}

/* The kernel side. */

static void kick(const struct virtio_device *device, unsigned queue)
{
    if (eventfd_write(device->transport_ops->notify_fd(device->transport, queue), 1) < 0)
        log_debug("net \"%s\": cannot notify queue %u: %s", device->id, queue, strerror(errno));
}

/*
 * Stops a pair's queues; what the guest does with them then is looked at when they are attached again. A kernel that
 * does not let go of guest memory is made to, for good.
 */
static void detach_queues(struct vhost_net *net, unsigned index)
{
    struct vhost_pair *pair = &net->pairs[index];

    for (unsigned i = 0; i < QUEUE_COUNT; i++) {
        if (pair->attached[i] && !vhost_net_attach(pair->vhost_fd, i, -1)) {
            log_error("net \"%s\": cannot take queue %u from the host's kernel: %s", net->device.id,
                      QUEUE_COUNT * index + i, strerror(errno));
            fd_close(&pair->vhost_fd);
        }
        pair->attached[i] = false;
    }
}

/* Tells a pair's kernel side where its queues are. */
static bool tell_queues(struct vhost_net *net, unsigned index)
{
    const struct virtio_device *device = &net->device;
    const struct vhost_pair *pair = &net->pairs[index];

    if (!vhost_net_begin(pair->vhost_fd, device->memory, device->driver_features & net->kernel_features))
        return false;
    for (unsigned i = 0; i < QUEUE_COUNT; i++) {
        const unsigned number = QUEUE_COUNT * index + i;
        const struct virtqueue *queue = &device->queues[number];
        const struct vhost_net_queue told = {
            .size = queue->size,
            .descriptors = queue->descriptors,
            .available = queue->available,
            .used = queue->used,
            .kick_fd = device->transport_ops->notify_fd(device->transport, number),
            .call_fd = device->transport_ops->interrupt_fd(device->transport),
            .error_fd = net->errors.fd,
        };

        if (queue->ready && !vhost_net_set_queue(pair->vhost_fd, i, &told, queue->next_available))
            return false;
    }
    return true;
}

static bool attach_queues(struct vhost_net *net, unsigned index)
{
    struct virtio_device *device = &net->device;
    struct vhost_pair *pair = &net->pairs[index];

    if (!pair->told && !tell_queues(net, index))
        return false;
    pair->told = true;
    for (unsigned i = 0; i < QUEUE_COUNT; i++) {
        const unsigned queue = QUEUE_COUNT * index + i;

        if (!device->queues[queue].ready || pair->attached[i])
            continue;
        if (!vhost_net_attach(pair->vhost_fd, i, pair->tap_fd))
            return false;
        pair->attached[i] = true;
        kick(device, queue);
    }
    return true;
}

static void detach_all(struct vhost_net *net)
{
    net_control_stop(&net->control);
    event_timer_cancel(&net->turn);
    for (unsigned i = 0; i < net->pair_count; i++)
        detach_queues(net, i);
}

static void stop_for_good(struct virtio_device *device, const char *reason)
{
    struct vhost_net *net = net_of(device);

    COUNTER_INCREMENT(net->metrics.counters.event_fails);
    detach_all(net);
    virtio_device_fail(device, reason);
}

static bool is_running(const struct vhost_net *net)
{
    return net->device.active && !net->device.failed && !net->device.paused;
}

/* Whether an error was told since this was last asked. */
static bool has_error(const struct vhost_net *net)
{
    eventfd_t count;

    return eventfd_read(net->errors.fd, &count) == 0;
}

static void queue_broken(struct event_source *source, uint32_t events)
{
    struct vhost_net *net = container_of(source, struct vhost_net, errors);

    (void)events;
    /* What the driver that was reset before has broken is not this one's fault. */
    if (has_error(net) && is_running(net) && net->pairs[0].told)
        stop_for_good(&net->device, "the host's kernel finds a queue broken");
}

static void hand_over(struct event_timer *timer)
{
    struct vhost_net *net = container_of(timer, struct vhost_net, turn);
    bool done = true;

    if (!is_running(net))
        return;
    if (!net->pairs[0].told)
        has_error(net);
    for (unsigned i = 0; i < net->pairs_used && done; i++)
        done = attach_queues(net, i);
    if (done)
        return;
    log_error("net \"%s\": the host's kernel does not take its queues: %s", net->device.id, strerror(errno));
    COUNTER_INCREMENT(net->metrics.counters.activate_fails);
    stop_for_good(&net->device, "the host's kernel does not take its queues");
}

/* How many pairs are used. */

static uint64_t set_pairs(struct virtio_device *device, unsigned pairs)
{
    struct vhost_net *net = net_of(device);
    const unsigned before = net->pairs_used;

    if (pairs == before)
        return 0;
    net->pairs_used = pairs;
    for (unsigned i = pairs; i < before; i++) {
        detach_queues(net, i);
        if (!tap_attach_queue(net->pairs[i].tap_fd, false))
            log_error("net \"%s\": cannot detach queue %u of its tap: %s", device->id, i, strerror(errno));
    }
    for (unsigned i = before; i < pairs; i++)
        if (!tap_attach_queue(net->pairs[i].tap_fd, true) || !attach_queues(net, i))
            log_error("net \"%s\": cannot use pair %u of its queues: %s", device->id, i, strerror(errno));
    return NET_PAIRS_CHANGE_US;
}

/* The device's operations. */

static void net_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    virtio_config_copy(&net_of(device)->config, offsetof(struct virtio_net_config, speed), offset, data, length);
}

static bool set_offloads(struct vhost_net *net)
{
    unsigned offloads = net_tap_offloads(net->device.driver_features);

    if (offloads != net->offloads && !tap_set_offloads(net->pairs[0].tap_fd, offloads))
        return false;
    net->offloads = offloads;
    return true;
}

static void look(struct vhost_net *net)
{
    event_timer_set(net->device.loop, &net->turn, 0);
    net_control_look(&net->control);
}

static bool net_activate(struct virtio_device *device)
{
    struct vhost_net *net = net_of(device);
    const int control = net_control_index(device);

    if (!set_offloads(net)) {
        COUNTER_INCREMENT(net->metrics.counters.activate_fails);
        log_error("net \"%s\": cannot set the offloads of its tap: %s", device->id, strerror(errno));
        return false;
    }
    if (control >= 0)
        device->transport_ops->serve_here(device->transport, (unsigned)control, true);
    for (unsigned i = 0; i < net->pair_count; i++)
        net->pairs[i].told = false;
    look(net);
    return true;
}

/* Also for one that did not come by the ioeventfd. */
static void net_notify(struct virtio_device *device, unsigned index)
{
    if ((int)index == net_control_index(device))
        net_control_serve(&net_of(device)->control);
    else
        kick(device, index);
}

static void net_pause(struct virtio_device *device)
{
    detach_all(net_of(device));
}

static void net_resume(struct virtio_device *device)
{
    look(net_of(device));
}

static void net_reset(struct virtio_device *device)
{
    struct vhost_net *net = net_of(device);
    const int control = net_control_index(device);

    detach_all(net);
    net_control_set_pairs(&net->control, 1);
    if (control >= 0)
        device->transport_ops->serve_here(device->transport, (unsigned)control, false);
}

static void net_destroy(struct virtio_device *device)
{
    struct vhost_net *net = net_of(device);

    net_control_stop(&net->control);
    event_timer_cancel(&net->turn);
    metrics_device_remove(&net->metrics.device);
    event_source_remove(&net->errors);
    fd_close(&net->errors.fd);
    for (unsigned i = 0; i < net->pair_count; i++) {
        fd_close(&net->pairs[i].vhost_fd);
        fd_close(&net->pairs[i].tap_fd);
    }
    free(device->queues);
    free((void *)(uintptr_t)device->id);
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

static struct vhost_net *net_alloc(const char *iface_id, unsigned pair_count)
{
    const unsigned queue_count = QUEUE_COUNT * pair_count + (pair_count > 1);
    struct vhost_net *net = calloc(1, sizeof(*net) + pair_count * sizeof(net->pairs[0]));

    if (net == NULL)
        return NULL;
    net->device = (struct virtio_device){.ops = &net_ops,
                                         .id = strdup(iface_id),
                                         .queues = calloc(queue_count, sizeof(struct virtqueue)),
                                         .queue_count = queue_count,
                                         .served_elsewhere = true};
    net->errors = (struct event_source){.fd = -1, .ready = queue_broken};
    net->turn.expired = hand_over;
    net->pair_count = pair_count;
    net->pairs_used = 1;
    for (unsigned i = 0; i < pair_count; i++)
        net->pairs[i].vhost_fd = net->pairs[i].tap_fd = -1;
    net_control_init(&net->control, &net->device, pair_count, set_pairs, stop_for_good);
    if (net->device.id == NULL || net->device.queues == NULL) {
        net_destroy(&net->device);
        return NULL;
    }
    for (unsigned i = 0; i < queue_count; i++)
        net->device.queues[i].size_max = NET_QUEUE_SIZE;
    METRICS_DEVICE_ADD(&net->metrics, METRICS_NET, "net", net->device.id);
    return net;
}

/* The tap's queues, of which those beyond the first rest until the driver wants them, and the kernel side of each. */
static struct error *open_pairs(struct vhost_net *net, const char *host_dev_name)
{
    int fds[NETWORK_QUEUES_MAX];
    struct error *error = tap_open(host_dev_name, fds, net->pair_count);

    if (error != NULL)
        return error_wrap(error, "host_dev_name");
    for (unsigned i = 0; i < net->pair_count; i++)
        net->pairs[i].tap_fd = fds[i];
    for (unsigned i = 1; i < net->pair_count; i++)
        if (!tap_attach_queue(net->pairs[i].tap_fd, false))
            return error_errno(errno, "queues: cannot detach queue %u of the tap", i);
    for (unsigned i = 0; i < net->pair_count; i++) {
        error = vhost_net_open(&net->pairs[i].vhost_fd, &net->kernel_features);
        if (error != NULL)
            return error_wrap(error, "vhost");
    }
    return NULL;
}

static struct error *watch_errors(struct vhost_net *net, struct event_loop *loop)
{
    net->errors.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (net->errors.fd < 0)
        return error_errno(errno, "cannot make an eventfd");
    return event_source_add(loop, &net->errors, EPOLLIN);
}

struct error *virtio_vhost_net_new(const struct network_interface_config *config, struct event_loop *loop,
                                   struct virtio_device **device)
{
    const unsigned pairs = config->queue_count == 0 ? 1 : config->queue_count;
    struct vhost_net *net = net_alloc(config->iface_id, pairs);

    if (net == NULL)
        return error_errno(ENOMEM, "cannot make the network interface");

    struct error *error = open_pairs(net, config->host_dev_name);
    net->device.features = NET_OFFLOAD_FEATURES | (net->kernel_features & RING_FEATURES);
    if (error == NULL)
        error = net_identify(config, pairs, &net->config, &net->device.features);
    if (error == NULL)
        error = watch_errors(net, loop);
    if (error != NULL) {
        net_destroy(&net->device);
        return error;
    }
    *device = &net->device;
    return NULL;
}
