/*
 * The block device (virtio 1.2, section 5.2): one queue, or several that have their turns one after the other; reads,
 * writes, flushes, discards and write-zeroes on the host's file.
 */
#include "vmm/virtio/block.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_SIZE = VIRTQUEUE_SIZE_MAX };

static struct block *block_of(struct virtio_device *device)
{
    return container_of(device, struct block, device);
}

static void block_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct block *block = block_of(device);

    virtio_config_copy(&block->config, sizeof(block->config), offset, data, length);
}

static bool block_activate(struct virtio_device *device)
{
    (void)device;
    return true;
}

static void block_notify(struct virtio_device *device, unsigned index)
{
    struct block *block = block_of(device);

    COUNTER_INCREMENT(block->metrics.counters.queue_event_count);
    block_serve(block, index);
}

/* On a vCPU's thread, and with the loop's lock held: nothing is begun that may take long. */
static void block_reset(struct virtio_device *device)
{
    struct block *block = block_of(device);

    event_timer_cancel(&block->timer);
    block_abandon(block);
    block_flights_free(block);
}

static void block_pause(struct virtio_device *device)
{
    struct block *block = block_of(device);

    event_timer_cancel(&block->timer);
    block_hold(block);
    virtio_device_signal_all(&block->device);
}

static void block_resume(struct virtio_device *device)
{
    block_continue(block_of(device));
    block_serve_all(block_of(device));
}

static void block_destroy(struct virtio_device *device)
{
    struct block *block = block_of(device);

    event_timer_cancel(&block->timer);
    free(block->unfinished);
    metrics_device_remove(&block->metrics.device);
    file_ring_free(block->ring);
    block_flights_free(block);
    disk_file_close(&block->file);
    free(block->id);
    free(block);
}

static const struct virtio_ops block_ops = {
    .type = VIRTIO_ID_BLOCK,
    .name = "block",
    .config_read = block_config_read,
    .activate = block_activate,
    .notify = block_notify,
    .reset = block_reset,
    .pause = block_pause,
    .resume = block_resume,
    .destroy = block_destroy,
};

/* An empty file is a drive without sectors: callers keep such drives to give them a file later. */
static struct error *open_file(const struct block *block, const char *path, struct disk_file *file)
{
    if (path == NULL)
        return error_new(ERROR_INPUT, "path_on_host: missing, expected a file or block device");

    struct error *error = disk_file_open(path, block->read_only, block->direct, file);
    if (error != NULL)
        return error_wrap(error, "path_on_host");
    if (file->size % DISK_SECTOR != 0 || file->size == 0)
        log_warning("drive \"%s\": \"%s\" has %llu bytes; the guest sees %llu sectors of %d", block->id, path,
                    (unsigned long long)file->size, (unsigned long long)file->size / DISK_SECTOR, DISK_SECTOR);
    return NULL;
}

static uint64_t offered_features(const struct block *block)
{
    uint64_t features = 1ULL << VIRTIO_BLK_F_SEG_MAX | 1ULL << VIRTIO_BLK_F_BLK_SIZE;

    if (block->read_only)
        features |= 1ULL << VIRTIO_BLK_F_RO;
    else
        features |= 1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
    if (block->writeback)
        features |= 1ULL << VIRTIO_BLK_F_FLUSH;
    if (block->device.queue_count > 1)
        features |= 1ULL << VIRTIO_BLK_F_MQ;
    return features;
}

static struct virtio_blk_config offered_config(const struct block *block)
{
    return (struct virtio_blk_config){
        .capacity = block->file.size / DISK_SECTOR,
        .seg_max = VIRTQUEUE_IOV_MAX - 2, /* header and status */
        .blk_size = block->file.alignment,
        .num_queues = (uint16_t)block->device.queue_count,
        .max_discard_sectors = BLOCK_DISCARD_SECTORS_MAX,
        .max_discard_seg = 1,
        .discard_sector_alignment = 1,
        .max_write_zeroes_sectors = BLOCK_WRITE_ZEROES_SECTORS_MAX,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };
}

static struct error *block_open(struct block *block, const struct drive_config *config, struct event_loop *loop)
{
    struct error *error = open_file(block, config->path_on_host, &block->file);

    if (error != NULL || config->io_engine == IO_ENGINE_SYNC)
        return error;
    error = file_ring_new(loop, &block->file, block_ring_settled, block, &block->ring);
    return error != NULL ? error_wrap(error, "io_engine: Async") : NULL;
}

struct error *virtio_block_new(const struct drive_config *config, struct event_loop *loop,
                               struct virtio_device **device)
{
    unsigned queue_count = config->queue_count > 0 ? config->queue_count : 1;
    struct block *block = calloc(1, sizeof(*block) + queue_count * sizeof(block->queues[0]));
    char *id = strdup(config->drive_id);

    if (block == NULL || id == NULL) {
        free(block);
        free(id);
        return error_errno(ENOMEM, "cannot make drive \"%s\"", config->drive_id);
    }
    block->id = id;
    block->file.fd = -1;
    block->read_only = config->is_read_only;
    block->direct = config->direct;
    block->writeback = config->cache_type == CACHE_TYPE_WRITEBACK;
    block->timer.expired = block_timer_expired;
    for (unsigned i = 0; i < queue_count; i++)
        block->queues[i].size_max = QUEUE_SIZE;
    rate_limiter_init(&block->limiter, &config->rate_limiter, clock_monotonic_us());

    struct error *error = block_open(block, config, loop);
    if (error != NULL) {
        block_destroy(&block->device);
        return error;
    }
    block->device = (struct virtio_device){
        .ops = &block_ops,
        .id = block->id,
        .queues = block->queues,
        .queue_count = queue_count,
    };
    block->device.features = offered_features(block);
    block->config = offered_config(block);
    METRICS_DEVICE_ADD(&block->metrics, METRICS_BLOCK, "block", block->id);
    *device = &block->device;
    return NULL;
}

static struct error *replace_file(struct block *block, const char *path)
{
    struct disk_file file, old = block->file;
    struct error *error = open_file(block, path, &file);

    if (error != NULL)
        return error;
    /* A driver reads the size of a block once. */
    if (file.alignment > block->config.blk_size) {
        error = error_new(ERROR_INPUT, "path_on_host: \"%s\" takes blocks of %u bytes, the guest knows of %u", path,
                          file.alignment, block->config.blk_size);
        disk_file_close(&file);
        return error;
    }
    block_finish(block);
    block->file = file;
    if (block->ring != NULL)
        error = file_ring_set_file(block->ring, &block->file);
    if (error != NULL) {
        block->file = old;
        disk_file_close(&file);
        return error;
    }
    disk_file_close(&old);
    block->config.capacity = block->file.size / DISK_SECTOR;
    virtio_device_config_changed(&block->device);
    return NULL;
}

struct error *virtio_block_update(struct virtio_device *device, const struct drive_update *update)
{
    struct block *block = block_of(device);

    if (update->path_on_host != NULL) {
        struct error *error = replace_file(block, update->path_on_host);

        if (error != NULL) {
            COUNTER_INCREMENT(block->metrics.counters.update_fails);
            return error;
        }
    }
    rate_limiter_update(&block->limiter, &update->rate_limiter, clock_monotonic_us());
    COUNTER_INCREMENT(block->metrics.counters.update_count);

    /* What waited for the old limiter's tokens need not wait for the new one's. */
    event_timer_cancel(&block->timer);
    block_serve_all(block);
    virtio_device_signal_all(&block->device);
    return NULL;
}
