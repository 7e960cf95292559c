/* Disks that another process serves. */
#include "vmm/virtio/vhost_user.h"

#include "vmm/virtio/devices.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>

enum { CONFIG_SIZE = 60 }; /* up to secure erase: what every back end has */

#define BLOCK_FEATURES                                                                                                 \
    (1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_RO |                          \
     1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY | 1ull << VIRTIO_BLK_F_DISCARD |                    \
     1ull << VIRTIO_BLK_F_WRITE_ZEROES)

/* How many queues there are is not the back end's to tell: it says how many it can have. */
static void config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct vhost_user_device *served = vhost_user_device_of(device);
    uint8_t config[CONFIG_SIZE];
    const uint16_t queue_count = (uint16_t)device->queue_count;

    memcpy(config, served->config, CONFIG_SIZE);
    memcpy(config + offsetof(struct virtio_blk_config, num_queues), &queue_count, sizeof(queue_count));
    virtio_config_copy(config, CONFIG_SIZE, offset, data, length);
}

static const struct virtio_ops block_ops = {
    .type = VIRTIO_ID_BLOCK,
    .name = "block",
    .config_read = config_read,
    .activate = vhost_user_device_activate,
    .notify = vhost_user_device_notify,
    .reset = vhost_user_device_stop,
    .pause = vhost_user_device_stop,
    .resume = vhost_user_device_resume,
    .destroy = vhost_user_device_destroy,
};
static const struct vhost_user_owner owner_ops = {
    .config_changed = vhost_user_device_config_changed,
    .failed = vhost_user_device_failed,
};
static const struct vhost_user_kind block_kind = {
    .ops = &block_ops,
    .owner_ops = &owner_ops,
    .metrics_prefix = "vhost_user_block",
    .size = sizeof(struct vhost_user_device),
};

struct error *virtio_vhost_user_block_new(const struct drive_config *config, struct event_loop *loop,
                                          struct virtio_device **device)
{
    struct vhost_user_device *served;
    struct vhost_user_needs needs = {
        .features = VHOST_USER_RING_FEATURES | BLOCK_FEATURES,
        .config_size = CONFIG_SIZE,
        .queue_count = config->queue_count == 0 ? 1 : config->queue_count,
        .resumable = true,
    };

    if (config->cache_type == CACHE_TYPE_WRITEBACK)
        needs.features |= 1ull << VIRTIO_BLK_F_FLUSH;
    if (needs.queue_count > 1)
        needs.features |= 1ull << VIRTIO_BLK_F_MQ;

    struct error *error = vhost_user_device_new(&block_kind, config->drive_id, config->socket, &needs, loop, &served);
    if (error != NULL)
        return error_wrap(error, "socket");
    if (needs.queue_count > 1 && (served->device.features & 1ull << VIRTIO_BLK_F_MQ) == 0) {
        vhost_user_device_destroy(&served->device);
        return error_new(ERROR_HOST, "queues: %u, expected 1 of a back end that has one queue (feature MQ is missing)",
                         needs.queue_count);
    }
    *device = &served->device;
    return NULL;
}

struct error *virtio_vhost_user_config_read(struct virtio_device *device)
{
    return vhost_user_config_read(&vhost_user_device_of(device)->front);
}
