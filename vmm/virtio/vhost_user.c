/*
 * Devices whose queues another process serves, by vhost-user: block, file system (virtio 1.2, section 5.11) and net.
 * What is here is the guest's view of them: features, config space, the driver's coming and going. Requests pass
 * between the guest and the back end; this process sees none.
 */
#include "vmm/virtio/devices.h"

#include "vmm/backend/vhost_user.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/virtio/net.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>

enum {
    QUEUES_MAX = 2,
    BLOCK_CONFIG_SIZE = 60, /* up to secure erase: what every back end has */
    FS_REQUEST_QUEUES = 1,
};

#define RING_FEATURES (1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX)

#define BLOCK_FEATURES                                                                                                 \
    (1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_RO |                          \
     1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY | 1ull << VIRTIO_BLK_F_DISCARD |                    \
     1ull << VIRTIO_BLK_F_WRITE_ZEROES)

#define NET_FEATURES                                                                                                   \
    (1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 |                   \
     1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN | 1ull << VIRTIO_NET_F_GUEST_UFO |               \
     1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_TSO6 | 1ull << VIRTIO_NET_F_HOST_ECN |                 \
     1ull << VIRTIO_NET_F_HOST_UFO | 1ull << VIRTIO_NET_F_MRG_RXBUF)

struct vhost_user_device {
    struct virtio_device device;
    struct virtqueue queues[QUEUES_MAX];
    struct vhost_user front;
    DEVICE_METRICS(vhost_user_metrics) metrics;
    uint8_t *config; /* what the guest reads: the front end's, or our own */
    size_t config_size;
    union {
        struct virtio_fs_config fs;
        struct virtio_net_config net;
    };
};

static struct vhost_user_device *device_of(struct virtio_device *device)
{
    return container_of(device, struct vhost_user_device, device);
}

static void config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct vhost_user_device *served = device_of(device);

    virtio_config_copy(served->config, served->config_size, offset, data, length);
}

static bool activate(struct virtio_device *device)
{
    struct vhost_user_device *served = device_of(device);
    struct vhost_user_ring rings[QUEUES_MAX] = {0};
    uint64_t start = clock_monotonic_us();

    for (unsigned i = 0; i < device->queue_count; i++) {
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
    if (!vhost_user_start(&served->front, device->memory, device->driver_features, rings)) {
        COUNTER_INCREMENT(served->metrics.counters.activate_fails);
        return false;
    }
    COUNTER_SET(served->metrics.counters.activate_time_us, clock_monotonic_us() - start);
    return true;
}

/* A notification that did not come by the ioeventfd. */
static void notify(struct virtio_device *device, unsigned index)
{
    int fd = device->transport_ops->notify_fd(device->transport, index);

    if (fd >= 0 && eventfd_write(fd, 1) < 0)
        log_warning("%s \"%s\": cannot kick queue %u: %s", device->ops->name, device->id, index, strerror(errno));
}

static void stop(struct virtio_device *device)
{
    vhost_user_stop(&device_of(device)->front);
}

static void resume(struct virtio_device *device)
{
    vhost_user_resume(&device_of(device)->front);
}

static void destroy(struct virtio_device *device)
{
    struct vhost_user_device *served = device_of(device);

    vhost_user_close(&served->front);
    metrics_device_remove(&served->metrics.device);
    free((void *)(uintptr_t)served->front.needs.path);
    free((void *)(uintptr_t)device->id);
    free(served);
}

#define OPS(type_, name_)                                                                                              \
    {                                                                                                                  \
        .type = (type_), .name = (name_), .config_read = config_read, .activate = activate, .notify = notify,          \
        .reset = stop, .pause = stop, .resume = resume, .destroy = destroy                                             \
    }
static const struct virtio_ops block_ops = OPS(VIRTIO_ID_BLOCK, "block");
static const struct virtio_ops net_ops = OPS(VIRTIO_ID_NET, "net");
static const struct virtio_ops fs_ops = OPS(VIRTIO_ID_FS, "file system");

static void config_changed(void *owner)
{
    virtio_device_config_changed(owner);
}

static void failed(void *owner, const char *reason)
{
    virtio_device_fail(owner, reason);
}
static const struct vhost_user_owner owner_ops = {.config_changed = config_changed, .failed = failed};

/* `needs` without its names. */
static struct error *device_new(const struct virtio_ops *ops, const char *metrics_prefix, const char *id,
                                const char *path, struct vhost_user_needs *needs, uint16_t queue_size,
                                struct event_loop *loop, struct vhost_user_device **made)
{
    struct vhost_user_device *served = calloc(1, sizeof(*served));
    char *own_id = strdup(id);
    char *own_path = strdup(path);

    if (served == NULL || own_id == NULL || own_path == NULL) {
        free(served);
        free(own_id);
        free(own_path);
        return error_errno(ENOMEM, "cannot make a device");
    }
    served->device = (struct virtio_device){.ops = ops,
                                            .id = own_id,
                                            .queues = served->queues,
                                            .queue_count = needs->queue_count,
                                            .served_elsewhere = true};
    for (unsigned i = 0; i < needs->queue_count; i++)
        served->queues[i].size_max = queue_size;
    needs->queue_size = queue_size;
    needs->name = ops->name;
    needs->id = own_id;
    needs->path = own_path;
    needs->metrics = &served->metrics.counters;
    METRICS_DEVICE_ADD(&served->metrics, METRICS_VHOST_USER, metrics_prefix, own_id);

    struct error *error = vhost_user_open(&served->front, needs, loop, &owner_ops, &served->device);
    if (error != NULL) {
        destroy(&served->device);
        return error;
    }
    served->device.features = served->front.features & ~(1ull << VHOST_USER_F_PROTOCOL_FEATURES);
    served->config = served->front.config;
    served->config_size = needs->config_size;
    *made = served;
    return NULL;
}

struct error *virtio_vhost_user_block_new(const struct drive_config *config, struct event_loop *loop,
                                          struct virtio_device **device)
{
    struct vhost_user_device *served;
    struct vhost_user_needs needs = {
        .features = RING_FEATURES | BLOCK_FEATURES,
        .config_size = BLOCK_CONFIG_SIZE,
        .queue_count = 1,
        .resumable = true,
    };

    if (config->cache_type == CACHE_TYPE_WRITEBACK)
        needs.features |= 1ull << VIRTIO_BLK_F_FLUSH;

    struct error *error = device_new(&block_ops, "vhost_user_block", config->drive_id, config->socket, &needs,
                                     VIRTQUEUE_SIZE_MAX, loop, &served);
    if (error != NULL)
        return error_wrap(error, "socket");
    *device = &served->device;
    return NULL;
}

struct error *virtio_vhost_user_config_read(struct virtio_device *device)
{
    return vhost_user_config_read(&device_of(device)->front);
}

/* MAC and MTU are ours to tell: no back end has them from us. */
struct error *virtio_vhost_user_net_new(const struct network_interface_config *config, struct event_loop *loop,
                                        struct virtio_device **device)
{
    struct vhost_user_device *served;
    struct vhost_user_needs needs = {.features = RING_FEATURES | NET_FEATURES, .queue_count = 2, .resumable = true};

    struct error *error = device_new(&net_ops, "vhost_user_net", config->iface_id, config->backend.socket_path, &needs,
                                     VIRTQUEUE_SIZE_MAX, loop, &served);
    if (error != NULL)
        return error_wrap(error, "backend.socket_path");

    if (config->guest_mac != NULL && net_mac_parse(config->guest_mac, served->net.mac))
        served->device.features |= 1ull << VIRTIO_NET_F_MAC;
    served->net.mtu = (uint16_t)config->mtu;
    if (config->mtu != 0)
        served->device.features |= 1ull << VIRTIO_NET_F_MTU;
    served->config = (uint8_t *)&served->net;
    served->config_size = sizeof(served->net);
    *device = &served->device;
    return NULL;
}

/* What is open and locked in the guest lives in the back end: another one cannot go on. */
struct error *virtio_file_system_new(const struct file_system_config *config, struct event_loop *loop,
                                     struct virtio_device **device)
{
    struct vhost_user_device *served;
    struct vhost_user_needs needs = {.features = RING_FEATURES, .queue_count = 1 + FS_REQUEST_QUEUES};

    struct error *error = device_new(&fs_ops, "vhost_user_fs", config->fs_id, config->socket_path, &needs,
                                     VIRTQUEUE_SIZE_MAX, loop, &served);
    if (error != NULL)
        return error_wrap(error, "socket_path");
    served->config = (uint8_t *)&served->fs;
    served->config_size = sizeof(served->fs);
    memcpy(served->fs.tag, config->tag, strnlen(config->tag, sizeof(served->fs.tag)));
    served->fs.num_request_queues = FS_REQUEST_QUEUES;
    *device = &served->device;
    return NULL;
}
