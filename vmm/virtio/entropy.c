/*
 * The entropy device (virtio 1.2, section 5.4): one queue of buffers, which are filled from the host's random number
 * generator.
 */
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/rate_limiter.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    QUEUE_SIZE = VIRTQUEUE_SIZE_MAX,
    /* A guest may hand in any amount of memory; it gets this much a request, and asks again. */
    REQUEST_MAX = 64 * 1024,
    /* Requests served before others on the event loop have their turn. */
    TURN = 16,
};

struct entropy {
    struct virtio_device device;
    struct virtqueue queue;
    struct rate_limiter limiter;
    struct event_timer timer; /* serves the queue again: the limiter's tokens are there, or it is our turn again */
};

static struct entropy *entropy_of(struct virtio_device *device)
{
    return container_of(device, struct entropy, device);
}

static uint32_t request_length(const struct virtqueue_chain *chain)
{
    return chain->writable_bytes < REQUEST_MAX ? chain->writable_bytes : REQUEST_MAX;
}

static bool fill(uint8_t *buffer, size_t length)
{
    size_t done = 0;

    while (done < length) {
        ssize_t got = getrandom(buffer + done, length - done, 0);

        if (got < 0 && errno != EINTR)
            return false;
        if (got > 0)
            done += (size_t)got;
    }
    return true;
}

/* Fills the chain's buffers; returns how many bytes. */
static uint32_t fill_chain(const struct virtqueue_chain *chain)
{
    uint32_t length = request_length(chain);
    uint32_t done = 0;

    for (size_t i = chain->readable_count; done < length; i++) {
        size_t part = chain->iov[i].iov_len < length - done ? chain->iov[i].iov_len : length - done;

        if (!fill(chain->iov[i].iov_base, part)) {
            METRIC_INCREMENT(entropy.host_rng_fails);
            log_error("entropy: getrandom: %s", strerror(errno));
            break;
        }
        done += (uint32_t)part;
    }
    METRIC_ADD(entropy.entropy_bytes, done);
    return done;
}

/* Whether the rate limiter lets a request of `length` bytes pass; if not, the timer will bring us back. */
static bool admit(struct entropy *entropy, uint32_t length)
{
    if (!entropy->limiter.bandwidth.limited && !entropy->limiter.ops.limited)
        return true;

    uint64_t retry_us = rate_limiter_take(&entropy->limiter, length, clock_monotonic_us());
    if (retry_us == 0)
        return true;
    METRIC_INCREMENT(entropy.entropy_rate_limiter_throttled);
    event_timer_set(entropy->device.loop, &entropy->timer, retry_us);
    return false;
}

enum turn {
    TURN_NEXT,  /* a request was served */
    TURN_EMPTY, /* there is none */
    TURN_WAIT,  /* the next one waits for tokens, or for a reset */
};

static enum turn serve_next(struct entropy *entropy, struct virtqueue_chain *chain)
{
    switch (virtqueue_pop(&entropy->queue, chain)) {
    case VIRTQUEUE_EMPTY:
        return TURN_EMPTY;
    case VIRTQUEUE_BROKEN:
        METRIC_INCREMENT(entropy.entropy_event_fails);
        virtio_device_fail(&entropy->device, "its queue breaks the rules");
        return TURN_WAIT;
    case VIRTQUEUE_CHAIN:
        break;
    }
    if (!admit(entropy, request_length(chain))) {
        virtqueue_unpop(&entropy->queue);
        return TURN_WAIT;
    }
    virtqueue_push(&entropy->queue, chain->head, fill_chain(chain));
    return TURN_NEXT;
}

static void serve_queue(struct entropy *entropy)
{
    struct virtqueue_chain chain;
    enum turn turn = TURN_NEXT;
    unsigned served = 0;

    /* A set timer will serve the queue when it is time. */
    if (!entropy->device.active || entropy->device.failed || entropy->device.paused || entropy->timer.loop != NULL)
        return;
    virtqueue_disarm(&entropy->queue);
    while (turn == TURN_NEXT && served++ < TURN) {
        turn = serve_next(entropy, &chain);
        if (turn == TURN_EMPTY && virtqueue_arm(&entropy->queue))
            turn = TURN_NEXT;
    }
    if (turn == TURN_NEXT)
        event_timer_set(entropy->device.loop, &entropy->timer, 0);
    virtio_device_signal(&entropy->device, 0);
}

static void timer_expired(struct event_timer *timer)
{
    METRIC_INCREMENT(entropy.rate_limiter_event_count);
    serve_queue(container_of(timer, struct entropy, timer));
}

static bool entropy_activate(struct virtio_device *device)
{
    (void)device;
    return true;
}

static void entropy_notify(struct virtio_device *device, unsigned index)
{
    (void)index;
    METRIC_INCREMENT(entropy.entropy_event_count);
    serve_queue(entropy_of(device));
}

/* For reset and pause: only the timer runs by itself. */
static void entropy_stop(struct virtio_device *device)
{
    event_timer_cancel(&entropy_of(device)->timer);
}

static void entropy_resume(struct virtio_device *device)
{
    serve_queue(entropy_of(device));
}

static void entropy_destroy(struct virtio_device *device)
{
    struct entropy *entropy = entropy_of(device);

    event_timer_cancel(&entropy->timer);
    free(entropy);
}

static const struct virtio_ops entropy_ops = {
    .type = VIRTIO_ID_RNG,
    .name = "entropy",
    .activate = entropy_activate,
    .notify = entropy_notify,
    .reset = entropy_stop,
    .pause = entropy_stop,
    .resume = entropy_resume,
    .destroy = entropy_destroy,
};

struct error *virtio_entropy_new(const struct entropy_config *config, struct event_loop *loop,
                                 struct virtio_device **device)
{
    struct entropy *entropy = calloc(1, sizeof(*entropy));

    (void)loop;
    if (entropy == NULL)
        return error_errno(ENOMEM, "cannot make the entropy device");
    entropy->timer.expired = timer_expired;
    entropy->queue.size_max = QUEUE_SIZE;
    rate_limiter_init(&entropy->limiter, &config->rate_limiter, clock_monotonic_us());
    entropy->device = (struct virtio_device){
        .ops = &entropy_ops,
        .id = "rng",
        .queues = &entropy->queue,
        .queue_count = 1,
    };
    *device = &entropy->device;
    return NULL;
}
