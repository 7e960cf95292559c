/*
 * Receiving, for virtio-net. The length of the next frame is not known before it is read, so buffers for the largest
 * one are taken from the receive queue beforehand and kept in a window; what a frame leaves over serves the next. When
 * the driver has not given as many, what does not fit is held until it has.
 */
#include "vmm/virtio/net.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum {
    SETTLE_US = 10000, /* see rx_enough */
    HOLD_US = 1000000, /* a guest may be off its processors for so long; then the frame is lost */
    SINGLES = 8,       /* turns, of which one looks for a second frame */
};

/* Why receiving stopped, hence what will start it again. */
enum rx_step {
    RX_DONE,       /* one frame delivered or dropped: go on */
    RX_NO_FRAME,   /* the backend, when it is readable */
    RX_NO_BUFFERS, /* the driver's notification */
    RX_LIMITED,    /* the timer */
    RX_DEAD,       /* nothing, or the driver's reset */
};

/* The metadata service sends by the first pair, whichever it was asked on. */
static bool leads_to_mmds(const struct net_pair *pair)
{
    return pair->net->mmds != NULL && pair->first == 0;
}

static bool window_add(struct rx_window *window, const struct virtqueue_chain *chain)
{
    if (window->chain_count == array_length(window->chains) ||
        chain->writable_count > VIRTQUEUE_IOV_MAX - window->iov_count)
        return false;
    memcpy(window->iov + window->iov_count, chain->iov + chain->readable_count,
           chain->writable_count * sizeof(*chain->iov));
    window->chains[window->chain_count++] = (struct rx_chain){
        .head = chain->head,
        .iov_count = chain->writable_count,
        .bytes = chain->writable_bytes,
    };
    window->iov_count += chain->writable_count;
    window->bytes += chain->writable_bytes;
    return true;
}

/* Forgets the `count` oldest chains. */
static void window_drop(struct rx_window *window, size_t count)
{
    size_t iov_count = 0;

    for (size_t i = 0; i < count; i++) {
        iov_count += window->chains[i].iov_count;
        window->bytes -= window->chains[i].bytes;
    }
    window->chain_count -= count;
    window->iov_count -= iov_count;
    memmove(window->chains, window->chains + count, window->chain_count * sizeof(*window->chains));
    memmove(window->iov, window->iov + iov_count, window->iov_count * sizeof(*window->iov));
}

/* Fills the window up to the largest frame; without mergeable buffers a frame has one chain, whatever its size. */
static void rx_gather(struct net_pair *pair)
{
    struct net *net = pair->net;
    struct rx_window *window = &pair->window;
    struct virtqueue *queue = &pair->queues[RX];
    struct virtqueue_chain chain;

    window->full = false;
    while (net->mergeable ? window->bytes < FRAME_MAX : window->chain_count == 0) {
        enum virtqueue_result result = virtqueue_pop(queue, &chain);

        if (result == VIRTQUEUE_BROKEN)
            net_fail(net, "the receive queue is broken");
        if (result != VIRTQUEUE_CHAIN)
            return;
        if (chain.writable_bytes < (net->mergeable ? HEADER_SIZE + 1 : FRAME_MIN)) {
            net_fail(net, "a receive buffer is too small for any frame");
            return;
        }
        if (!window_add(window, &chain)) {
            virtqueue_unpop(queue);
            window->full = true;
            return;
        }
    }
}

/*
 * Whether to read with the buffers at hand. A frame that does not fit is held, so better wait for the driver to give
 * back what it has emptied. But some drivers never give more than a few buffers: half a ring is enough in any case,
 * and so is what is there SETTLE_US later.
 */
static bool rx_enough(const struct net_pair *pair)
{
    const struct net *net = pair->net;
    const struct rx_window *window = &pair->window;

    if (window->chain_count == 0)
        return false;
    return !net->mergeable || window->full || pair->rx_settled || window->bytes >= net->rx_enough ||
           window->iov_count >= pair->queues[RX].size / 2u;
}

static enum rx_step rx_refused(struct net_pair *pair, int code)
{
    struct net *net = pair->net;
    if (code == EAGAIN)
        return RX_NO_FRAME;
    COUNTER_INCREMENT(net->metrics.counters.tap_read_fails);
    if (code == ENOTCONN)
        net_lose(net);
    return code == ENOTCONN || code == EBADFD ? RX_DEAD : RX_DONE;
}

static enum rx_step rx_lose(struct net_pair *pair)
{
    struct net *net = pair->net;
    COUNTER_INCREMENT(net->metrics.counters.rx_fails);
    pair->rx_held = 0;
    pair->rx_settled = false;
    return RX_DONE;
}

/*
 * Where the end of a frame goes that is longer than the window. More buffers can take it only when they are mergeable;
 * else a byte tells that it was cut. (One too long for any buffers is a byte longer than FRAME_MAX.)
 */
static struct iovec rx_overflow(struct net_pair *pair, uint8_t *excess)
{
    struct net *net = pair->net;
    const struct rx_window *window = &pair->window;

    if (net->mergeable && window->bytes < FRAME_MAX) {
        if (pair->rx_spill == NULL)
            pair->rx_spill = malloc(FRAME_MAX + 1);
        if (pair->rx_spill != NULL)
            return (struct iovec){.iov_base = pair->rx_spill, .iov_len = FRAME_MAX + 1 - window->bytes};
    }
    return (struct iovec){.iov_base = excess, .iov_len = sizeof(*excess)};
}

/* Puts the rest of a held frame behind its head, if there are buffers for it now. */
static enum rx_step rx_release(struct net_pair *pair)
{
    struct rx_window *window = &pair->window;
    struct iovec parts[VIRTQUEUE_IOV_MAX];
    const uint8_t *from = pair->rx_spill;

    if (window->bytes < pair->rx_held)
        return pair->rx_settled || window->full ? rx_lose(pair) : RX_NO_BUFFERS;

    size_t count = iovec_slice(parts, window->iov, window->iov_count, pair->rx_head, pair->rx_held - pair->rx_head);
    for (size_t i = 0; i < count; i++) {
        memcpy(parts[i].iov_base, from, parts[i].iov_len);
        from += parts[i].iov_len;
    }
    pair->rx_frame = pair->rx_held;
    pair->rx_held = 0;
    return RX_DONE;
}

/* What the backend had is in the window, and what of it was too long in `overflow`. */
static enum rx_step rx_received(struct net_pair *pair, size_t size, const struct iovec *overflow)
{
    struct net *net = pair->net;
    const struct rx_window *window = &pair->window;

    COUNTER_INCREMENT(net->metrics.counters.rx_count);
    if (size < FRAME_MIN || size > FRAME_MAX)
        return rx_lose(pair);
    if (size <= window->bytes) {
        pair->rx_frame = (uint32_t)size;
        return RX_DONE;
    }
    if (overflow->iov_base != pair->rx_spill)
        return rx_lose(pair);
    pair->rx_held = (uint32_t)size;
    pair->rx_head = (uint32_t)window->bytes;
    pair->rx_settled = false;
    return RX_DONE;
}

/* Reads the next frame into the window. */
static enum rx_step rx_fetch(struct net_pair *pair)
{
    struct net *net = pair->net;
    struct rx_window *window = &pair->window;
    uint8_t excess;

    rx_gather(pair);
    if (net->device.failed)
        return RX_DEAD;
    if (pair->rx_held != 0)
        return rx_release(pair);
    if (!rx_enough(pair))
        return RX_NO_BUFFERS;

    struct iovec overflow = {.iov_base = &excess};
    ssize_t size = leads_to_mmds(pair) ? net_mmds_give(pair) : 0;
    if (size == 0 && pair->backend == NULL)
        return RX_DEAD;
    if (size == 0 && pair->rx_mmds_only)
        return RX_NO_FRAME;
    if (size == 0) {
        overflow = rx_overflow(pair, &excess);
        window->iov[window->iov_count] = overflow;
        size = pair->backend->ops->receive(pair->backend, window->iov, window->iov_count + 1);
        pair->rx_got += size > 0;
    }
    return size < 0 ? rx_refused(pair, (int)-size) : rx_received(pair, (size_t)size, &overflow);
}

/* The backend leaves num_buffers to us; it is there, and 1, even when buffers are not mergeable (5.1.6.4.1). */
static void rx_set_num_buffers(const struct rx_window *window, uint16_t num_buffers)
{
    struct iovec parts[sizeof(num_buffers)];
    size_t count = iovec_slice(parts, window->iov, window->chains[0].iov_count,
                               offsetof(struct virtio_net_hdr_v1, num_buffers), sizeof(num_buffers));
    const uint8_t *from = (const uint8_t *)&num_buffers;

    for (size_t i = 0; i < count; i++) {
        memcpy(parts[i].iov_base, from, parts[i].iov_len);
        from += parts[i].iov_len;
    }
}

/* Gives the frame in the window to the guest. Its buffers become visible together, or the driver finds some missing. */
static enum rx_step rx_deliver(struct net_pair *pair)
{
    struct net *net = pair->net;
    struct rx_window *window = &pair->window;
    uint32_t left = pair->rx_frame;
    uint16_t count = 0;
    uint64_t retry_us = net_limiter_take(&net->rx_limiter, left);

    if (retry_us != 0) {
        COUNTER_INCREMENT(net->metrics.counters.rx_rate_limiter_throttled);
        event_timer_set(net->device.loop, &pair->rx_timer, retry_us);
        return RX_LIMITED;
    }
    COUNTER_INCREMENT(net->metrics.counters.rx_packets_count);
    COUNTER_ADD(net->metrics.counters.rx_bytes_count, left - HEADER_SIZE);
    for (; left > 0; count++) {
        const struct rx_chain *chain = &window->chains[count];
        uint32_t part = left < chain->bytes ? left : chain->bytes;

        virtqueue_fill(&pair->queues[RX], count, chain->head, part);
        left -= part;
    }
    rx_set_num_buffers(window, count);
    virtqueue_publish(&pair->queues[RX], count);
    window_drop(window, count);
    pair->rx_frame = 0;
    pair->rx_settled = false;
    return RX_DONE;
}

static enum rx_step rx_step(struct net_pair *pair)
{
    if (pair->rx_frame == 0) {
        enum rx_step step = rx_fetch(pair);

        if (step != RX_DONE || pair->rx_frame == 0)
            return step;
    }
    return rx_deliver(pair);
}

/* Out of buffers: asks for the driver's notification. Returns false when there are new ones already. */
static bool rx_wait_for_buffers(struct net_pair *pair)
{
    struct net *net = pair->net;
    COUNTER_INCREMENT(net->metrics.counters.no_rx_avail_buffer);
    if (virtqueue_arm(&pair->queues[RX]))
        return false;
    if (pair->window.chain_count > 0)
        event_timer_set(net->device.loop, &pair->rx_timer,
                        clock_monotonic_us() + (pair->rx_held != 0 ? HOLD_US : SETTLE_US));
    return true;
}

/*
 * Whether to let the event loop tell of the next frame rather than look for it: where they come one by one, looking is
 * a read in vain each time. What comes together is found by looking, now and then.
 */
static bool rx_is_single(struct net_pair *pair)
{
    if (pair->rx_got != 1 || pair->rx_many || pair->rx_held != 0 || pair->backend == NULL ||
        !pair->backend->ops->frame_a_read || (pair->window.chain_count == 0 && !virtqueue_has_chain(&pair->queues[RX])))
        return false;
    pair->rx_singles = (pair->rx_singles + 1) % SINGLES;
    return pair->rx_singles != 0;
}

void net_receive(struct net_pair *pair)
{
    struct net *net = pair->net;
    enum rx_step step = RX_DONE;

    if (!net_pair_is_running(pair) || (pair->backend == NULL && !leads_to_mmds(pair)) ||
        (pair->rx_frame != 0 && pair->rx_timer.loop != NULL))
        return;
    event_timer_cancel(&pair->rx_timer);
    virtqueue_disarm(&pair->queues[RX]);
    pair->rx_got = 0;
    for (unsigned frames = 0; frames < TURN_FRAMES && step == RX_DONE; frames++) {
        step = rx_step(pair);
        if (step == RX_DONE && rx_is_single(pair)) {
            step = RX_NO_FRAME;
            break;
        }
        if (step == RX_NO_BUFFERS && !rx_wait_for_buffers(pair))
            step = RX_DONE;
    }
    if (pair->rx_singles == 0)
        pair->rx_many = pair->rx_got > 1;
    /* After a full turn there may be more behind a descriptor that is not readable: the backend may have it already. */
    if (step == RX_DONE)
        event_timer_set(net->device.loop, &pair->turn, 0);
    net_watch(pair, EPOLLIN, step == RX_NO_FRAME);
    if (leads_to_mmds(pair))
        net_mmds_wait(net, !net->device.failed && (step == RX_NO_FRAME || step == RX_DEAD));
    virtio_device_signal(&net->device, pair->first + RX);
}

void net_receive_mmds(struct net_pair *pair)
{
    pair->rx_mmds_only = (pair->wire.events & EPOLLIN) != 0;
    net_receive(pair);
    pair->rx_mmds_only = false;
}

void net_receive_later(struct event_timer *timer)
{
    struct net_pair *pair = container_of(timer, struct net_pair, rx_timer);

    if (pair->rx_frame != 0)
        COUNTER_INCREMENT(pair->net->metrics.counters.rx_event_rate_limiter_count);
    pair->rx_settled = pair->rx_frame == 0;
    net_receive(pair);
}

void net_receive_reset(struct net_pair *pair)
{
    pair->window.chain_count = pair->window.iov_count = 0;
    pair->window.bytes = 0;
    pair->rx_frame = pair->rx_held = 0;
    pair->rx_settled = false;
}

bool net_receive_holds(const struct net_pair *pair, const uint8_t *start, uint64_t length)
{
    for (size_t i = 0; i < pair->window.iov_count; i++) {
        const uint8_t *buffer = pair->window.iov[i].iov_base;

        if (buffer < start + length && start < buffer + pair->window.iov[i].iov_len)
            return true;
    }
    return false;
}
