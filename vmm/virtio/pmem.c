/*
 * The pmem device (virtio 1.3, section 5.19): a file of the host that the guest has as memory, in a memslot of its own.
 * The one queue carries flushes. Other devices cannot reach that memory: it is no part of struct guest_memory.
 *
 * A flush is one fdatasync, through io_uring so that nobody waits for the disk but the guest. One runs at a time: it
 * answers all requests that came before it began, and those that come meanwhile wait for the next. So a guest cannot
 * have more than one on its way however often it asks.
 *
 * What a guest writes to a read-only file never gets here: KVM makes it an access to an address where nobody is.
 */
#include "vmm/backend/file_ring.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/rate_limiter.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pmem.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_SIZE = 64,
    TURN = 2 * QUEUE_SIZE, /* requests taken before others on the event loop have a turn */
    RESULT_SIZE = sizeof(struct virtio_pmem_resp),
};

/* What the guest reads of a flush: 0, or anything else for a failure. */
enum { RESULT_OK = 0, RESULT_FAILED = 1 };

struct flush {
    uint16_t head;
    uint16_t piece_count;
    struct iovec pieces[RESULT_SIZE]; /* where the result goes: a guest may part even four bytes */
};

struct pmem {
    struct virtio_device device;
    struct virtqueue queue;
    struct virtio_pmem_config config;
    char *id;
    DEVICE_METRICS(pmem_metrics) metrics;
    struct shared_file file;
    struct file_ring *ring; /* NULL: nothing is ever written, or the host has none */
    struct rate_limiter limiter;
    struct event_timer timer; /* the limiter's tokens are there */

    struct disk_request sync; /* on its way while `syncing` */
    bool syncing;
    unsigned begun_count; /* of `flushes`: those that `sync` answers come first, the others wait for the next one */
    unsigned flush_count;
    struct flush flushes[QUEUE_SIZE];
};

static struct pmem *pmem_of(struct virtio_device *device)
{
    return container_of(device, struct pmem, device);
}

static bool is_running(const struct pmem *pmem)
{
    return pmem->device.active && !pmem->device.failed && !pmem->device.paused;
}

static void answer(struct pmem *pmem, const struct flush *flush, uint32_t result)
{
    const uint8_t *bytes = (const uint8_t *)&result;

    for (unsigned i = 0; i < flush->piece_count; i++) {
        memcpy(flush->pieces[i].iov_base, bytes, flush->pieces[i].iov_len);
        bytes += flush->pieces[i].iov_len;
    }
    virtqueue_push(&pmem->queue, flush->head, RESULT_SIZE);
}

/* All that the sync which has just ended, with an errno or 0, was for. None are left of a driver that went away. */
static void answer_begun(struct pmem *pmem, int code)
{
    if (code != 0) {
        COUNTER_INCREMENT(pmem->metrics.counters.execute_fails);
        log_error("pmem \"%s\": cannot flush \"%s\": %s", pmem->id, pmem->file.path, strerror(code));
    }
    for (unsigned i = 0; i < pmem->begun_count; i++)
        answer(pmem, &pmem->flushes[i], code == 0 ? RESULT_OK : RESULT_FAILED);
    pmem->flush_count -= pmem->begun_count;
    memmove(pmem->flushes, pmem->flushes + pmem->begun_count, pmem->flush_count * sizeof(pmem->flushes[0]));
    pmem->begun_count = 0;
}

/* Whether the rate limiter lets a sync begin; if not, the timer will bring us back. */
static bool admit(struct pmem *pmem)
{
    if (!pmem->limiter.bandwidth.limited && !pmem->limiter.ops.limited)
        return true;

    uint64_t retry_us = rate_limiter_take(&pmem->limiter, pmem->file.file.size, clock_monotonic_us());
    if (retry_us == 0)
        return true;
    COUNTER_INCREMENT(pmem->metrics.counters.rate_limiter_throttled_events);
    event_timer_set(pmem->device.loop, &pmem->timer, retry_us);
    return false;
}

static void sync_ended(struct disk_request *sync, int code)
{
    struct pmem *pmem = container_of(sync, struct pmem, sync);

    pmem->syncing = false;
    answer_begun(pmem, code);
}

static void begin_sync(struct pmem *pmem)
{
    COUNTER_INCREMENT(pmem->metrics.counters.flush_count);
    pmem->begun_count = pmem->flush_count;
    pmem->sync = (struct disk_request){.operation = DISK_SYNC, .complete = sync_ended};
    if (pmem->file.read_only) {
        answer_begun(pmem, 0);
    } else if (pmem->ring == NULL) {
        answer_begun(pmem, disk_request_run(&pmem->file.file, &pmem->sync));
    } else {
        pmem->syncing = true;
        file_ring_queue(pmem->ring, &pmem->sync);
        file_ring_submit(pmem->ring);
    }
}

/* Takes a chain: a flush goes to the others that wait, anything else is answered at once. */
static void take(struct pmem *pmem, struct virtqueue_chain *chain)
{
    struct flush *flush = &pmem->flushes[pmem->flush_count];
    struct virtio_pmem_req request;

    if (chain->writable_bytes < RESULT_SIZE) {
        COUNTER_INCREMENT(pmem->metrics.counters.event_fails);
        virtqueue_push(&pmem->queue, chain->head, 0);
        return;
    }
    bool whole = virtqueue_chain_read(chain, 0, &request, sizeof(request)) == sizeof(request);
    struct iovec *writable = chain->iov + chain->readable_count;
    flush->head = chain->head;
    flush->piece_count = (uint16_t)iovec_slice(writable, writable, chain->writable_count, 0, RESULT_SIZE);
    memcpy(flush->pieces, writable, flush->piece_count * sizeof(writable[0]));
    if (whole && request.type == VIRTIO_PMEM_REQ_TYPE_FLUSH) {
        pmem->flush_count++;
        return;
    }
    COUNTER_INCREMENT(pmem->metrics.counters.event_fails);
    answer(pmem, flush, RESULT_FAILED);
}

/* Takes what is there, as far as there is room and a turn goes. Returns whether there may be more. */
static bool take_all(struct pmem *pmem)
{
    struct virtqueue_chain chain;

    for (unsigned i = 0; i < TURN && pmem->flush_count < QUEUE_SIZE; i++)
        switch (virtqueue_pop(&pmem->queue, &chain)) {
        case VIRTQUEUE_CHAIN:
            take(pmem, &chain);
            break;
        case VIRTQUEUE_BROKEN:
            COUNTER_INCREMENT(pmem->metrics.counters.event_fails);
            virtio_device_fail(&pmem->device, "its queue breaks the rules");
            return false;
        case VIRTQUEUE_EMPTY:
            if (!virtqueue_arm(&pmem->queue))
                return false;
            break;
        }
    return true;
}

static void serve(struct pmem *pmem)
{
    /* A set timer will serve the queue when it is time; so does a sync that ends. */
    if (!is_running(pmem) || pmem->timer.loop != NULL)
        return;
    virtqueue_disarm(&pmem->queue);
    bool more = take_all(pmem);
    if (!pmem->device.failed && !pmem->syncing && pmem->flush_count > 0 && admit(pmem))
        begin_sync(pmem);
    if (more && !pmem->syncing && pmem->timer.loop == NULL)
        event_timer_set(pmem->device.loop, &pmem->timer, 0);
    virtio_device_signal(&pmem->device, 0);
}

static void ring_settled(void *owner)
{
    struct pmem *pmem = owner;

    if (pmem->device.active)
        virtio_device_signal(&pmem->device, 0);
    serve(pmem);
}

static void timer_expired(struct event_timer *timer)
{
    struct pmem *pmem = container_of(timer, struct pmem, timer);

    COUNTER_INCREMENT(pmem->metrics.counters.rate_limiter_event_count);
    serve(pmem);
}

/* The device. */

static void pmem_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct pmem *pmem = pmem_of(device);

    virtio_config_copy(&pmem->config, sizeof(pmem->config), offset, data, length);
}

static bool pmem_activate(struct virtio_device *device)
{
    (void)device;
    return true;
}

static void pmem_notify(struct virtio_device *device, unsigned index)
{
    struct pmem *pmem = pmem_of(device);

    (void)index;
    COUNTER_INCREMENT(pmem->metrics.counters.queue_event_count);
    serve(pmem);
}

/* On a vCPU's thread: a sync on its way goes on, it touches no guest memory, and nobody waits for its answer. */
static void pmem_reset(struct virtio_device *device)
{
    struct pmem *pmem = pmem_of(device);

    event_timer_cancel(&pmem->timer);
    pmem->begun_count = pmem->flush_count = 0;
}

static void pmem_pause(struct virtio_device *device)
{
    struct pmem *pmem = pmem_of(device);

    event_timer_cancel(&pmem->timer);
    if (pmem->ring != NULL)
        file_ring_drain(pmem->ring, UINT64_MAX);
    if (device->active)
        virtio_device_signal(device, 0);
}

static void pmem_resume(struct virtio_device *device)
{
    serve(pmem_of(device));
}

static void pmem_destroy(struct virtio_device *device)
{
    struct pmem *pmem = pmem_of(device);

    event_timer_cancel(&pmem->timer);
    pmem->begun_count = pmem->flush_count = 0;
    metrics_device_remove(&pmem->metrics.device);
    file_ring_free(pmem->ring);
    shared_file_close(&pmem->file);
    free(pmem->id);
    free(pmem);
}

static const struct virtio_ops pmem_ops = {
    .type = VIRTIO_ID_PMEM,
    .name = "pmem",
    .config_read = pmem_config_read,
    .activate = pmem_activate,
    .notify = pmem_notify,
    .reset = pmem_reset,
    .pause = pmem_pause,
    .resume = pmem_resume,
    .destroy = pmem_destroy,
};

/* A host may forbid io_uring; then the flushes of one guest hold up its other devices, and nothing else. */
static void open_ring(struct pmem *pmem, struct event_loop *loop)
{
    struct error *error = file_ring_new(loop, &pmem->file.file, ring_settled, pmem, &pmem->ring);

    if (error != NULL)
        log_warning("pmem \"%s\" flushes without an io_uring: %s", pmem->id, error->message);
    error_free(error);
}

struct error *virtio_pmem_new(const struct pmem_config *config, struct event_loop *loop, struct virtio_device **device)
{
    struct pmem *pmem = calloc(1, sizeof(*pmem));
    char *id = strdup(config->id);

    if (pmem == NULL || id == NULL) {
        free(pmem);
        free(id);
        return error_errno(ENOMEM, "cannot make pmem device \"%s\"", config->id);
    }
    pmem->id = id;
    pmem->timer.expired = timer_expired;
    pmem->queue.size_max = QUEUE_SIZE;
    rate_limiter_init(&pmem->limiter, &config->rate_limiter, clock_monotonic_us());

    struct error *error = shared_file_open(config->path_on_host, config->read_only, &pmem->file);
    if (error != NULL) {
        pmem->file.file.fd = -1;
        pmem_destroy(&pmem->device);
        return error_wrap(error, "path_on_host");
    }
    if (!config->read_only)
        open_ring(pmem, loop);
    pmem->config.size = pmem->file.size;
    pmem->device = (struct virtio_device){
        .ops = &pmem_ops,
        .id = pmem->id,
        .queues = &pmem->queue,
        .queue_count = 1,
    };
    METRICS_DEVICE_ADD(&pmem->metrics, METRICS_PMEM, "pmem", pmem->id);
    *device = &pmem->device;
    return NULL;
}

const struct shared_file *virtio_pmem_file(const struct virtio_device *device)
{
    return &container_of((struct virtio_device *)(uintptr_t)device, struct pmem, device)->file;
}

void virtio_pmem_place(struct virtio_device *device, uint64_t gpa)
{
    pmem_of(device)->config.start = gpa;
}

void virtio_pmem_update(struct virtio_device *device, const struct pmem_update *update)
{
    struct pmem *pmem = pmem_of(device);

    rate_limiter_update(&pmem->limiter, &update->rate_limiter, clock_monotonic_us());
    /* What waited for the old limiter's tokens need not wait for the new one's. */
    event_timer_cancel(&pmem->timer);
    serve(pmem);
}
