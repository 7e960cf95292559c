/*
 * The block device (virtio 1.2, section 5.2): one queue, or several that have their turns one after the other; reads,
 * writes, flushes, discards and write-zeroes straight between guest memory and the host's file, either synchronously or
 * through io_uring.
 */
#include "vmm/backend/file.h"
#include "vmm/backend/file_ring.h"
#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/rate_limiter.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_SIZE = VIRTQUEUE_SIZE_MAX,
    /* Requests served, and bytes transferred by the synchronous engine, before others on the event loop have a turn. */
    TURN = 64,
    TURN_BYTES = 4 * DISK_PIECE_MAX,
    /* What one request may forget or zero: bounds the time that it takes. */
    DISCARD_SECTORS_MAX = 1 << 18,      /* 128 MiB */
    WRITE_ZEROES_SECTORS_MAX = 1 << 15, /* 16 MiB */
};

struct block_request;

struct block {
    struct virtio_device device;
    struct virtio_blk_config config;
    char *id;
    DEVICE_METRICS(block_metrics) metrics;
    struct disk_file file;
    bool read_only;
    bool direct;                      /* around the host's page cache */
    bool writeback;                   /* flushes reach the medium; else they are ignored (cache type Unsafe) */
    struct file_ring *ring;           /* NULL: synchronous */
    bool ring_was_full;               /* a request of this turn waits for room in it */
    struct block_request *unfinished; /* synchronous: one too large for a turn; it goes on before the next */
    uint64_t turn_bytes;              /* transferred in this turn */
    struct rate_limiter limiter;
    struct event_timer timer; /* serves the queues again: the limiter's tokens are there, or it is our turn again */
    unsigned next_queue;      /* is the first to be served then */
    struct virtqueue queues[];
};

/* A request that was taken from the queue. `disk` says what is to be done, if anything is left to do. */
struct block_request {
    struct disk_request disk;
    struct block *block;
    struct virtqueue *queue;
    uint16_t head;
    uint32_t written;   /* bytes in the guest's buffers before the status */
    uint8_t *status;    /* the last writable byte */
    struct iovec iov[]; /* a copy for requests that are in flight */
};

static struct block *block_of(struct virtio_device *device)
{
    return container_of(device, struct block, device);
}

/* Parsing: what a request asks for, and whether it may. */

/* The preparers return a status, or this when there is something to do on the disk. */
enum { RUN = -1 };

static bool sectors_to_range(const struct block *block, uint64_t sector, uint64_t sectors, struct disk_request *disk)
{
    if (!range_within(sector, sectors, block->config.capacity))
        return false;
    disk->offset = sector * DISK_SECTOR;
    disk->length = sectors * DISK_SECTOR;
    return true;
}

static int prepare_transfer(const struct block *block, const struct virtio_blk_outhdr *header, uint32_t length,
                            struct disk_request *disk)
{
    if (length % DISK_SECTOR != 0 || !sectors_to_range(block, header->sector, length / DISK_SECTOR, disk))
        return VIRTIO_BLK_S_IOERR;
    return length > 0 ? RUN : VIRTIO_BLK_S_OK;
}

static int prepare_read(const struct block *block, struct virtqueue_chain *chain,
                        const struct virtio_blk_outhdr *header, struct block_request *request)
{
    struct disk_request *disk = &request->disk;
    uint32_t length = chain->writable_bytes - 1;

    disk->operation = DISK_READ;
    disk->iov = chain->iov;
    disk->iov_count = iovec_slice(chain->iov, chain->iov + chain->readable_count, chain->writable_count, 0, length);
    return prepare_transfer(block, header, length, disk);
}

static int prepare_write(const struct block *block, struct virtqueue_chain *chain,
                         const struct virtio_blk_outhdr *header, struct block_request *request)
{
    struct disk_request *disk = &request->disk;
    uint32_t length = chain->readable_bytes - (uint32_t)sizeof(*header);

    if (block->read_only)
        return VIRTIO_BLK_S_IOERR;
    disk->operation = DISK_WRITE;
    /* Who cannot flush relies on each write (5.2.6.2). */
    disk->durable = block->writeback && (block->device.driver_features & 1ULL << VIRTIO_BLK_F_FLUSH) == 0;
    disk->iov = chain->iov;
    disk->iov_count = iovec_slice(chain->iov, chain->iov, chain->readable_count, sizeof(*header), length);
    return prepare_transfer(block, header, length, disk);
}

static int prepare_flush(const struct block *block, struct virtqueue_chain *chain,
                         const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)chain;
    (void)header;
    request->disk.operation = DISK_SYNC;
    return block->writeback ? RUN : VIRTIO_BLK_S_OK;
}

static int prepare_identity(const struct block *block, struct virtqueue_chain *chain,
                            const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)header;
    if (chain->writable_bytes < VIRTIO_BLK_ID_BYTES + 1)
        return VIRTIO_BLK_S_IOERR;
    request->written = VIRTIO_BLK_ID_BYTES;
    virtqueue_chain_write(chain, 0, block->file.identity, VIRTIO_BLK_ID_BYTES);
    return VIRTIO_BLK_S_OK;
}

/* Discard and write-zeroes: one segment, the flags that are allowed, a length of at most `sectors_max`. */
static int prepare_segment(const struct block *block, struct virtqueue_chain *chain, uint32_t flags_allowed,
                           uint32_t sectors_max, struct block_request *request)
{
    struct virtio_blk_discard_write_zeroes segment;

    if (block->read_only || chain->readable_bytes != sizeof(struct virtio_blk_outhdr) + sizeof(segment))
        return VIRTIO_BLK_S_IOERR;
    virtqueue_chain_read(chain, sizeof(struct virtio_blk_outhdr), &segment, sizeof(segment));
    if ((segment.flags & ~flags_allowed) != 0)
        return VIRTIO_BLK_S_UNSUPP;
    if (segment.num_sectors > sectors_max ||
        !sectors_to_range(block, segment.sector, segment.num_sectors, &request->disk))
        return VIRTIO_BLK_S_IOERR;
    request->disk.deallocate = (segment.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) != 0;
    return segment.num_sectors > 0 ? RUN : VIRTIO_BLK_S_OK;
}

static int prepare_discard(const struct block *block, struct virtqueue_chain *chain,
                           const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)header;
    request->disk.operation = DISK_DISCARD;
    return prepare_segment(block, chain, 0, DISCARD_SECTORS_MAX, request);
}

static int prepare_write_zeroes(const struct block *block, struct virtqueue_chain *chain,
                                const struct virtio_blk_outhdr *header, struct block_request *request)
{
    (void)header;
    request->disk.operation = DISK_WRITE_ZEROES;
    return prepare_segment(block, chain, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, WRITE_ZEROES_SECTORS_MAX, request);
}

static const struct {
    uint32_t type;
    int (*prepare)(const struct block *block, struct virtqueue_chain *chain, const struct virtio_blk_outhdr *header,
                   struct block_request *request);
} request_types[] = {
    {VIRTIO_BLK_T_IN, prepare_read},         {VIRTIO_BLK_T_OUT, prepare_write},
    {VIRTIO_BLK_T_FLUSH, prepare_flush},     {VIRTIO_BLK_T_GET_ID, prepare_identity},
    {VIRTIO_BLK_T_DISCARD, prepare_discard}, {VIRTIO_BLK_T_WRITE_ZEROES, prepare_write_zeroes},
};

/*
 * Fills `request` from the chain; its buffers move to the front of chain->iov, and belong to the request. Returns a
 * status or RUN.
 */
static int prepare(struct block *block, struct virtqueue *queue, struct virtqueue_chain *chain,
                   struct block_request *request)
{
    const struct iovec *last = &chain->iov[chain->readable_count + chain->writable_count - 1];
    struct virtio_blk_outhdr header;

    *request = (struct block_request){
        .block = block,
        .queue = queue,
        .disk.operation = DISK_OPERATIONS, /* none yet */
        .head = chain->head,
        .status = (uint8_t *)last->iov_base + last->iov_len - 1,
    };
    if (virtqueue_chain_read(chain, 0, &header, sizeof(header)) < sizeof(header))
        return VIRTIO_BLK_S_IOERR;
    for (size_t i = 0; i < array_length(request_types); i++)
        if (request_types[i].type == header.type)
            return request_types[i].prepare(block, chain, &header, request);
    return VIRTIO_BLK_S_UNSUPP;
}

/* Completion. */

static void count(struct block *block, const struct disk_request *disk)
{
    switch (disk->operation) {
    case DISK_READ:
        COUNTER_INCREMENT(block->metrics.counters.read_count);
        COUNTER_ADD(block->metrics.counters.read_bytes, disk->done);
        break;
    case DISK_WRITE:
        COUNTER_INCREMENT(block->metrics.counters.write_count);
        COUNTER_ADD(block->metrics.counters.write_bytes, disk->done);
        break;
    case DISK_SYNC:
        COUNTER_INCREMENT(block->metrics.counters.flush_count);
        break;
    case DISK_DISCARD:
        COUNTER_INCREMENT(block->metrics.counters.discard_count);
        break;
    case DISK_WRITE_ZEROES:
        COUNTER_INCREMENT(block->metrics.counters.write_zeroes_count);
        break;
    default:
        break;
    }
}

static void finish(struct block_request *request, uint8_t status)
{
    if (status == VIRTIO_BLK_S_OK)
        count(request->block, &request->disk);
    *request->status = status;
    virtqueue_push(request->queue, request->head, request->written + 1);
}

/*
 * The disk is done with `request`: `code` is 0 or an errno, which the guest gets as an I/O error. ECANCELED is no error
 * of the disk: the guest reset the device.
 */
static void complete(struct block_request *request, int code)
{
    static const char *const operations[DISK_OPERATIONS] = {"read", "write", "flush", "discard", "zero"};
    const struct disk_request *disk = &request->disk;

    if (disk->operation == DISK_READ)
        request->written = (uint32_t)disk->done;
    if (code != 0 && code != ECANCELED) {
        COUNTER_INCREMENT(request->block->metrics.counters.execute_fails);
        log_error("drive \"%s\": cannot %s %llu bytes at %llu: %s", request->block->id, operations[disk->operation],
                  (unsigned long long)disk->length, (unsigned long long)disk->offset, strerror(code));
    }
    finish(request, code == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
}

static void complete_in_flight(struct disk_request *disk, int code)
{
    struct block_request *request = container_of(disk, struct block_request, disk);

    complete(request, code);
    free(request);
}

/* Running. */

/* A copy of `request` that outlives its chain; NULL without memory. */
static struct block_request *keep(const struct block_request *request)
{
    size_t count = request->disk.iov_count;
    struct block_request *copy = malloc(sizeof(*copy) + count * sizeof(copy->iov[0]));

    if (copy == NULL)
        return NULL;
    memcpy(copy, request, sizeof(*copy));
    if (count > 0)
        memcpy(copy->iov, request->disk.iov, count * sizeof(copy->iov[0]));
    copy->disk.iov = copy->iov;
    copy->disk.complete = complete_in_flight;
    return copy;
}

static void launch(struct block *block, struct block_request *request)
{
    struct block_request *copy = keep(request);

    if (copy == NULL)
        complete(request, ENOMEM);
    else
        file_ring_queue(block->ring, &copy->disk);
}

/* Runs `request` for what is left of this turn; true when it is finished, `*code` being its result. */
static bool run_for_a_turn(struct block *block, struct disk_request *disk, int *code)
{
    uint64_t done = disk->done;
    bool finished;

    do {
        finished = disk_request_step(&block->file, disk, code);
        block->turn_bytes += disk->done - done;
        done = disk->done;
    } while (!finished && block->turn_bytes < TURN_BYTES);
    return finished;
}

static void run_synchronously(struct block *block, struct block_request *request)
{
    int code;

    if (run_for_a_turn(block, &request->disk, &code)) {
        complete(request, code);
        return;
    }
    block->unfinished = keep(request);
    if (block->unfinished == NULL)
        complete(request, ENOMEM);
}

/* Ends what the synchronous engine left for another turn. */
static void end_unfinished(struct block *block)
{
    struct block_request *request = block->unfinished;

    if (request == NULL)
        return;
    block->unfinished = NULL;
    complete_in_flight(&request->disk, disk_request_run(&block->file, &request->disk));
}

static void abandon_unfinished(struct block *block)
{
    free(block->unfinished);
    block->unfinished = NULL;
}

static void run(struct block *block, struct block_request *request)
{
    if (block->ring != NULL && !disk_request_blocks(&block->file, &request->disk))
        launch(block, request);
    else
        run_synchronously(block, request);
}

/* Goes on with what the last turn left; false when that is not finished in this one either. */
static bool run_unfinished(struct block *block)
{
    struct block_request *request = block->unfinished;
    int code;

    if (request == NULL)
        return true;
    if (!run_for_a_turn(block, &request->disk, &code))
        return false;
    block->unfinished = NULL;
    complete_in_flight(&request->disk, code);
    return true;
}

/* Whether the rate limiter lets `request` pass; if not, the timer will bring us back. */
static bool admit(struct block *block, const struct block_request *request)
{
    bool transfer = request->disk.operation == DISK_READ || request->disk.operation == DISK_WRITE;

    if (!block->limiter.bandwidth.limited && !block->limiter.ops.limited)
        return true;

    uint64_t retry_us = rate_limiter_take(&block->limiter, transfer ? request->disk.length : 0, clock_monotonic_us());
    if (retry_us == 0)
        return true;
    COUNTER_INCREMENT(block->metrics.counters.rate_limiter_throttled_events);
    event_timer_set(block->device.loop, &block->timer, retry_us);
    return false;
}

enum turn {
    TURN_NEXT,  /* a request was served */
    TURN_EMPTY, /* there is none */
    TURN_WAIT,  /* the next one waits: for tokens, or for room in the ring */
};

static enum turn serve_next(struct block *block, struct virtqueue *queue, struct virtqueue_chain *chain)
{
    struct block_request request;

    if (block->ring != NULL && file_ring_full(block->ring)) {
        COUNTER_INCREMENT(block->metrics.counters.io_engine_throttled_events);
        block->ring_was_full = true;
        return TURN_WAIT;
    }
    switch (virtqueue_pop(queue, chain)) {
    case VIRTQUEUE_EMPTY:
        return TURN_EMPTY;
    case VIRTQUEUE_BROKEN:
        COUNTER_INCREMENT(block->metrics.counters.event_fails);
        virtio_device_fail(&block->device, "its queue breaks the rules");
        return TURN_WAIT;
    case VIRTQUEUE_CHAIN:
        break;
    }
    /* Without room for a status nothing can be told. */
    if (chain->writable_bytes == 0) {
        COUNTER_INCREMENT(block->metrics.counters.invalid_reqs_count);
        virtqueue_push(queue, chain->head, 0);
        return TURN_NEXT;
    }

    int status = prepare(block, queue, chain, &request);
    if (!admit(block, &request)) {
        virtqueue_unpop(queue);
        return TURN_WAIT;
    }
    if (status == RUN) {
        run(block, &request);
        return TURN_NEXT;
    }
    if (status != VIRTIO_BLK_S_OK)
        COUNTER_INCREMENT(block->metrics.counters.invalid_reqs_count);
    finish(&request, (uint8_t)status);
    return TURN_NEXT;
}

/* Serves what a queue holds, as far as the turn goes that all of them share; true when there is more. */
static bool serve_queue(struct block *block, struct virtqueue *queue, unsigned *served)
{
    struct virtqueue_chain chain;
    enum turn turn = TURN_NEXT;
    unsigned before = *served;

    virtqueue_disarm(queue);
    while (turn == TURN_NEXT && *served < TURN && run_unfinished(block) && block->turn_bytes < TURN_BYTES) {
        (*served)++;
        turn = serve_next(block, queue, &chain);
        if (turn == TURN_EMPTY && *served == before + 1)
            COUNTER_INCREMENT(block->metrics.counters.no_avail_buffer);
        if (turn == TURN_EMPTY && virtqueue_arm(queue))
            turn = TURN_NEXT;
    }
    return turn == TURN_NEXT;
}

/*
 * Hands over what this turn queued. What the kernel has done at once is complete before the guest is told of the turn:
 * one interrupt, no wake-up. Returns whether that made room for which a request waits.
 */
static bool submit(struct block *block)
{
    unsigned completed;

    if (block->ring == NULL)
        return false;
    file_ring_submit(block->ring);
    completed = file_ring_reap(block->ring);
    file_ring_submit(block->ring); /* what came back half-way goes on in a turn of its own */
    return completed > 0 && block->ring_was_full;
}

static void signal_all(struct block *block)
{
    for (unsigned i = 0; i < block->device.queue_count; i++)
        virtio_device_signal(&block->device, i);
}

/*
 * Serves `count` queues from `first` on; one submission for all of them, and one interrupt each. Who comes after
 * the queue at which the turn ended is the first in the next.
 */
static void serve(struct block *block, unsigned first, unsigned count)
{
    unsigned served = 0, visited = 0;
    bool more = false;

    /* A set timer will serve the queues when it is time. */
    if (!block->device.active || block->device.failed || block->device.paused || block->timer.loop != NULL)
        return;
    block->turn_bytes = 0;
    block->ring_was_full = false;
    while (visited < count && !more && block->timer.loop == NULL && !block->device.failed)
        more = serve_queue(block, &block->queues[(first + visited++) % block->device.queue_count], &served);
    block->next_queue = (first + visited) % block->device.queue_count;
    if (submit(block) || more)
        event_timer_set(block->device.loop, &block->timer, 0);
    signal_all(block);
}

static void serve_all(struct block *block)
{
    serve(block, block->next_queue, block->device.queue_count);
}

static void timer_expired(struct event_timer *timer)
{
    struct block *block = container_of(timer, struct block, timer);

    COUNTER_INCREMENT(block->metrics.counters.rate_limiter_event_count);
    serve_all(block);
}

static void ring_settled(void *owner)
{
    struct block *block = owner;

    signal_all(block);
    serve_all(block);
}

/* The device. */

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
    serve(block, index, 1);
}

/* Ends what is in flight: no guest memory is read or written afterwards. */
static void quiesce(struct block *block)
{
    event_timer_cancel(&block->timer);
    end_unfinished(block);
    if (block->ring != NULL)
        file_ring_drain(block->ring);
}

/* On a vCPU's thread, and with the loop's lock held: nothing is begun that may take long. */
static void block_reset(struct virtio_device *device)
{
    struct block *block = block_of(device);

    event_timer_cancel(&block->timer);
    abandon_unfinished(block);
    if (block->ring != NULL)
        file_ring_abandon(block->ring);
}

static void block_pause(struct virtio_device *device)
{
    quiesce(block_of(device));
    signal_all(block_of(device));
}

static void block_resume(struct virtio_device *device)
{
    serve_all(block_of(device));
}

static void block_destroy(struct virtio_device *device)
{
    struct block *block = block_of(device);

    event_timer_cancel(&block->timer);
    abandon_unfinished(block);
    metrics_device_remove(&block->metrics.device);
    file_ring_free(block->ring);
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
        .max_discard_sectors = DISCARD_SECTORS_MAX,
        .max_discard_seg = 1,
        .discard_sector_alignment = 1,
        .max_write_zeroes_sectors = WRITE_ZEROES_SECTORS_MAX,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };
}

static struct error *block_open(struct block *block, const struct drive_config *config, struct event_loop *loop)
{
    struct error *error = open_file(block, config->path_on_host, &block->file);

    if (error != NULL || config->io_engine == IO_ENGINE_SYNC)
        return error;
    error = file_ring_new(loop, &block->file, ring_settled, block, &block->ring);
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
    block->timer.expired = timer_expired;
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
    end_unfinished(block);
    if (block->ring != NULL)
        file_ring_drain(block->ring);
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
    serve_all(block);
    signal_all(block);
    return NULL;
}
