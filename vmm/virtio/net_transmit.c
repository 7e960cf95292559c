/* Transmitting, for virtio-net: each frame goes to the backend from where the driver has it. */
#include "vmm/virtio/net.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

#include <errno.h>
#include <string.h>

/* A TCP keeps count of what the interface has not sent, hence waits for that; not of acknowledgements and the like. */
enum { SMALL_FRAME = 256 };

enum tx_step {
    TX_DONE,    /* one frame sent or dropped: go on */
    TX_EMPTY,   /* the driver's notification starts it again */
    TX_FULL,    /* the backend, when it is writable */
    TX_LIMITED, /* the timer */
    TX_DEAD,    /* the driver's reset */
};

static enum tx_step tx_drop(struct net_pair *pair, const struct virtqueue_chain *chain, uint64_t *counter)
{
    COUNTER_INCREMENT(*counter);
    virtqueue_push(&pair->queues[TX], chain->head, 0);
    return TX_DONE;
}

/* What became of a frame that the backend did not take. */
static enum tx_step tx_refused(struct net_pair *pair, const struct virtqueue_chain *chain, int code)
{
    struct net *net = pair->net;
    if (code == EAGAIN) {
        virtqueue_unpop(&pair->queues[TX]);
        pair->tx_paid = true;
        return TX_FULL;
    }
    if (code == EINVAL) /* the header contradicts itself or the frame */
        return tx_drop(pair, chain, &net->metrics.counters.tx_malformed_frames);
    COUNTER_INCREMENT(net->metrics.counters.tap_write_fails);
    log_debug("net \"%s\": the backend refuses a frame: %s", net->iface_id, strerror(code));
    if (code == ENOTCONN)
        net_lose(net);
    return tx_drop(pair, chain, &net->metrics.counters.tx_fails);
}

static enum tx_step tx_send(struct net_pair *pair, const struct virtqueue_chain *chain)
{
    struct net *net = pair->net;
    COUNTER_INCREMENT(net->metrics.counters.tx_count);
    if (chain->readable_bytes < FRAME_MIN || chain->readable_bytes > FRAME_MAX)
        return tx_drop(pair, chain, &net->metrics.counters.tx_malformed_frames);

    uint64_t retry_us = pair->tx_paid ? 0 : net_limiter_take(&net->tx_limiter, chain->readable_bytes);
    if (retry_us != 0) {
        COUNTER_INCREMENT(net->metrics.counters.tx_rate_limiter_throttled);
        virtqueue_unpop(&pair->queues[TX]);
        event_timer_set(net->device.loop, &pair->tx_timer, retry_us);
        return TX_LIMITED;
    }

    pair->tx_paid = false;
    if (net->mmds != NULL && net_mmds_take(net, chain)) {
        virtqueue_push(&pair->queues[TX], chain->head, 0);
        return TX_DONE;
    }
    if (pair->backend == NULL)
        return tx_drop(pair, chain, &net->metrics.counters.tx_fails);
    int result = pair->backend->ops->send(pair->backend, chain->iov, chain->readable_count, chain->readable_bytes);
    if (result < 0)
        return tx_refused(pair, chain, -result);
    pair->tx_large |= chain->readable_bytes > SMALL_FRAME;
    COUNTER_INCREMENT(net->metrics.counters.tx_packets_count);
    COUNTER_ADD(net->metrics.counters.tx_bytes_count, chain->readable_bytes - HEADER_SIZE);
    virtqueue_push(&pair->queues[TX], chain->head, 0);
    return TX_DONE;
}

static enum tx_step tx_step(struct net_pair *pair)
{
    struct net *net = pair->net;
    struct virtqueue_chain chain;
    enum virtqueue_result result = virtqueue_pop(&pair->queues[TX], &chain);

    if (result == VIRTQUEUE_EMPTY)
        return virtqueue_arm(&pair->queues[TX]) ? TX_DONE : TX_EMPTY;
    if (result == VIRTQUEUE_BROKEN) {
        net_fail(net, "the transmit queue is broken");
        return TX_DEAD;
    }
    return tx_send(pair, &chain);
}

/* Whether the backend still has the end of a frame to send. */
static bool tx_unsent(struct net_pair *pair)
{
    return pair->backend != NULL && pair->backend->unsent;
}

void net_transmit(struct net_pair *pair)
{
    struct net *net = pair->net;
    enum tx_step step = TX_DONE;

    if (!net_pair_is_running(pair) || pair->tx_timer.loop != NULL || (pair->wire.events & EPOLLOUT) != 0)
        return;
    if (tx_unsent(pair))
        pair->backend->ops->flush(pair->backend);
    virtqueue_disarm(&pair->queues[TX]);
    for (unsigned frames = 0; frames < TURN_FRAMES && step == TX_DONE; frames++) {
        step = tx_step(pair);
        if (step == TX_EMPTY && frames == 0)
            COUNTER_INCREMENT(net->metrics.counters.no_tx_avail_buffer);
    }
    if (step == TX_DONE)
        event_timer_set(net->device.loop, &pair->turn, 0);
    net_watch(pair, EPOLLOUT, step == TX_FULL || tx_unsent(pair));
    if (pair->tx_large)
        virtio_device_signal(&net->device, pair->first + TX);
    else
        virtio_device_signal_soon(&net->device, pair->first + TX);
    pair->tx_large = false;
    if (net->mmds_heard) {
        net->mmds_heard = false;
        net_receive_mmds(&net->pairs[0]);
    }
}

void net_transmit_later(struct event_timer *timer)
{
    struct net_pair *pair = container_of(timer, struct net_pair, tx_timer);

    COUNTER_INCREMENT(pair->net->metrics.counters.tx_rate_limiter_event_count);
    net_transmit(pair);
}
