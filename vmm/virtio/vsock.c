/*
 * virtio-vsock (virtio 1.2, section 5.10): sockets between the guest and Unix sockets of the host, streams and
 * messages.
 *
 * A host peer connects to `uds_path` and says where it wants to go (vsock_listener.c); the guest's connection to host
 * port N goes to the listener at `<uds_path>_N`, a SOCK_STREAM or SOCK_SEQPACKET socket as the guest's own.
 *
 * What the guest sends is never answered from memory that grows with it: packets to connections are bits in these, and
 * RSTs to anybody else wait in a short queue; while that is full, the guest's packets wait.
 */
#include "vmm/virtio/vsock.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_SIZE = 256,
    EVENT_QUEUE_SIZE = 8,
    TURN_PACKETS = 256, /* so many in one go; then other devices have their turn */
};

#define FEATURES (1ULL << VIRTIO_VSOCK_F_STREAM | 1ULL << VIRTIO_VSOCK_F_SEQPACKET)
#define VIRTIO_VSOCK_F_STREAM 0

static struct vsock *vsock_of(struct virtio_device *device)
{
    return container_of(device, struct vsock, device);
}

bool vsock_is_running(const struct vsock *vsock)
{
    return vsock->device.active && !vsock->device.failed && !vsock->device.paused;
}

void vsock_turn_later(struct vsock *vsock)
{
    event_timer_set(vsock->device.loop, &vsock->turn, 0);
}

void vsock_fail(struct vsock *vsock, const char *reason)
{
    virtio_device_fail(&vsock->device, reason);
    vsock_turn_later(vsock);
}

void vsock_refuse(struct vsock *vsock, uint32_t guest_port, uint32_t host_port, uint16_t type)
{
    size_t place = (size_t)(vsock->refusal_first + vsock->refusal_count) % VSOCK_REFUSALS_MAX;

    vsock->refusals[place] = (struct vsock_refusal){.guest_port = guest_port, .host_port = host_port, .type = type};
    vsock->refusal_count++;
}

/* --- What the guest says to a connection --- */

static bool is_seqpacket(const struct vsock_connection *connection)
{
    return connection->type == VIRTIO_VSOCK_TYPE_SEQPACKET;
}

static void handle_response(struct vsock_connection *connection)
{
    if (connection->state != VSOCK_REQUESTED || !connection->request_sent || !vsock_greeting_answer(connection)) {
        vsock_connection_abort(connection);
        return;
    }
    list_remove(&connection->waiting);
    connection->state = VSOCK_ESTABLISHED;
}

static void handle_shutdown(struct vsock_connection *connection, uint32_t flags)
{
    connection->guest_takes_no_more |= (flags & VIRTIO_VSOCK_SHUTDOWN_RCV) != 0;
    connection->guest_sends_no_more |= (flags & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0;
    if (connection->state == VSOCK_ESTABLISHED)
        return; /* vsock_connection_settle knows what follows */
    if (connection->state != VSOCK_CLOSING || (connection->guest_takes_no_more && connection->guest_sends_no_more))
        vsock_connection_abort(connection);
}

static void handle_data(struct vsock_connection *connection, const struct virtio_vsock_hdr *header,
                        const struct virtqueue_chain *chain)
{
    uint32_t ahead = connection->received - connection->forwarded;
    bool ends_message = (header->flags & VIRTIO_VSOCK_SEQ_EOM) != 0;

    /* What was on its way when the guest learned of the end. */
    if (connection->state == VSOCK_CLOSING)
        return;
    if (connection->state != VSOCK_ESTABLISHED || connection->guest_sends_no_more ||
        header->len > connection->buffer_size - ahead) {
        vsock_connection_abort(connection);
        return;
    }
    connection->received += header->len;
    METRIC_ADD(vsock.tx_bytes_count, header->len);
    if (!vsock_output(connection, chain, header->len, ends_message && is_seqpacket(connection)))
        vsock_connection_abort(connection);
}

static void take_credit(struct vsock_connection *connection, const struct virtio_vsock_hdr *header)
{
    uint32_t before = vsock_credit(connection);

    connection->guest_buffer_size = header->buf_alloc;
    connection->guest_forwarded = header->fwd_cnt;
    if (vsock_credit(connection) > before)
        connection->asked_for_credit = false;
}

static void handle_packet(struct vsock_connection *connection, const struct virtio_vsock_hdr *header,
                          const struct virtqueue_chain *chain)
{
    if (header->op == VIRTIO_VSOCK_OP_RST) {
        vsock_connection_free(connection);
        return;
    }
    take_credit(connection, header);
    switch (header->op) {
    case VIRTIO_VSOCK_OP_RESPONSE:
        handle_response(connection);
        break;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        handle_shutdown(connection, header->flags);
        break;
    case VIRTIO_VSOCK_OP_RW:
        handle_data(connection, header, chain);
        break;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        break;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        connection->owes |= VSOCK_OWES_CREDIT;
        break;
    default: /* a request for ports that are connected, or what nobody knows */
        vsock_connection_abort(connection);
        break;
    }
    vsock_connection_settle(connection);
}

/* --- What the guest sends --- */

/* Streams are always there; messages only when they were agreed on (5.10.3). */
static bool type_is_known(const struct vsock *vsock, uint16_t type)
{
    return type == VIRTIO_VSOCK_TYPE_STREAM ||
           (type == VIRTIO_VSOCK_TYPE_SEQPACKET &&
            (vsock->device.driver_features & 1ULL << VIRTIO_VSOCK_F_SEQPACKET) != 0);
}

/* Whether a packet may be looked at: whole, from this guest, to this host. */
static bool read_header(const struct vsock *vsock, const struct virtqueue_chain *chain, struct virtio_vsock_hdr *header)
{
    if (virtqueue_chain_read(chain, 0, header, sizeof(*header)) < sizeof(*header))
        return false;
    return header->src_cid == vsock->config.guest_cid && header->dst_cid == VSOCK_HOST_CID &&
           header->len <= VSOCK_PAYLOAD_MAX && header->len <= chain->readable_bytes - sizeof(*header);
}

/* The ports may be used again as soon as the guest has seen their connection end. */
static bool may_be_replaced(const struct vsock_connection *connection)
{
    return connection->state == VSOCK_CLOSING || connection->state == VSOCK_DEAD;
}

static void handle_chain(struct vsock *vsock, const struct virtqueue_chain *chain)
{
    struct virtio_vsock_hdr header;

    METRIC_INCREMENT(vsock.tx_packets_count);
    if (!read_header(vsock, chain, &header)) {
        METRIC_INCREMENT(vsock.tx_flush_fails);
        return;
    }

    struct vsock_connection *connection = vsock_connection_find(vsock, header.src_port, header.dst_port);
    bool request = header.op == VIRTIO_VSOCK_OP_REQUEST && type_is_known(vsock, header.type);
    if (connection != NULL && request && may_be_replaced(connection)) {
        vsock_connection_free(connection);
        connection = NULL;
    }
    if (connection != NULL && connection->type == header.type)
        handle_packet(connection, &header, chain);
    else if (connection == NULL && request)
        vsock_connection_request(vsock, &header);
    else if (header.op != VIRTIO_VSOCK_OP_RST)
        vsock_refuse(vsock, header.src_port, header.dst_port, header.type);
}

/* vsock_receive follows, which tells the guest of both. */
static void transmit(struct vsock *vsock)
{
    struct virtqueue *queue = &vsock->queues[VSOCK_TX];
    struct virtqueue_chain chain;
    unsigned packets = 0;

    if (!vsock_is_running(vsock))
        return;
    virtqueue_disarm(queue);
    for (; packets < TURN_PACKETS; packets++) {
        vsock->transmit_blocked = vsock->refusal_count == VSOCK_REFUSALS_MAX;
        if (vsock->transmit_blocked)
            break;

        enum virtqueue_result result = virtqueue_pop(queue, &chain);
        if (result == VIRTQUEUE_EMPTY && virtqueue_arm(queue))
            continue;
        if (result == VIRTQUEUE_BROKEN)
            vsock_fail(vsock, "the transmit queue is broken");
        if (result != VIRTQUEUE_CHAIN)
            break;
        handle_chain(vsock, &chain);
        virtqueue_push(queue, chain.head, 0);
    }
    if (packets == TURN_PACKETS)
        vsock_turn_later(vsock);
}

/* --- Timers --- */

static void turn_expired(struct event_timer *timer)
{
    struct vsock *vsock = container_of(timer, struct vsock, turn);

    if (vsock->device.failed)
        vsock_connections_free(vsock);
    vsock_listeners_update(vsock);
    transmit(vsock);
    vsock_receive(vsock);
}

static void patience_expired(struct event_timer *timer)
{
    struct vsock *vsock = container_of(timer, struct vsock, patience);

    vsock_connections_expire(vsock);
    vsock_receive(vsock);
}

static void retry_expired(struct event_timer *timer)
{
    struct vsock *vsock = container_of(timer, struct vsock, retry);

    vsock->listener_failed = false;
    vsock_listeners_update(vsock);
    vsock_connections_retry(vsock);
    vsock_receive(vsock);
}

/* --- The device's operations --- */

static void vsock_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct vsock *vsock = vsock_of(device);

    virtio_config_copy(&vsock->config, sizeof(vsock->config), offset, data, length);
}

static bool vsock_activate(struct virtio_device *device)
{
    /* Not now: the device is active only after we return. */
    vsock_turn_later(vsock_of(device));
    return true;
}

static void vsock_notify(struct virtio_device *device, unsigned index)
{
    struct vsock *vsock = vsock_of(device);

    if (index == VSOCK_RX)
        METRIC_INCREMENT(vsock.rx_queue_event_count);
    if (index == VSOCK_TX) {
        METRIC_INCREMENT(vsock.tx_queue_event_count);
        transmit(vsock);
    }
    vsock_receive(vsock);
}

/* The driver is gone, and all its connections with it. Host peers that come now wait for the next one. */
static void vsock_reset(struct virtio_device *device)
{
    struct vsock *vsock = vsock_of(device);

    vsock_connections_free(vsock);
    event_timer_cancel(&vsock->turn);
    event_timer_cancel(&vsock->retry);
    for (size_t i = 0; i < VSOCK_LISTENERS; i++)
        event_source_update(&vsock->listeners[i].source, 0);
    vsock->listener_failed = false;
    vsock->refusal_first = vsock->refusal_count = 0;
    vsock->transmit_blocked = false;
}

/* Host sockets are not watched any less: what happens there is noted, once, and waits. */
static void vsock_pause(struct virtio_device *device)
{
    struct vsock *vsock = vsock_of(device);

    vsock->paused_us = clock_monotonic_us();
    /* Of a broken one nothing goes on, and its turn to end them does not come again. */
    if (device->failed)
        vsock_connections_free(vsock);
    event_timer_cancel(&vsock->turn);
    event_timer_cancel(&vsock->patience);
    event_timer_cancel(&vsock->retry);
}

static void delay(struct list *waiting, uint64_t by_us)
{
    for (struct list *link = waiting->next; link != waiting; link = link->next)
        container_of(link, struct vsock_connection, waiting)->deadline_us += by_us;
}

/* The guest's patience, and ours with it, does not run while it is paused. */
static void vsock_resume(struct virtio_device *device)
{
    struct vsock *vsock = vsock_of(device);
    uint64_t paused_us = clock_monotonic_us() - vsock->paused_us;

    delay(&vsock->expiring, paused_us);
    delay(&vsock->connecting, paused_us);
    vsock_connections_expire(vsock);
    if (vsock->listener_failed || !list_is_empty(&vsock->connecting))
        event_timer_set(device->loop, &vsock->retry, 0);
    vsock_turn_later(vsock);
}

static void vsock_free(struct vsock *vsock)
{
    vsock_connections_free(vsock);
    event_timer_cancel(&vsock->turn);
    event_timer_cancel(&vsock->retry);
    for (size_t i = 0; i < VSOCK_LISTENERS; i++)
        vsock_listener_close(&vsock->listeners[i]);
    free(vsock->message.data);
    free(vsock);
}

static void vsock_cleanup(struct vsock **vsock)
{
    if (*vsock != NULL)
        vsock_free(*vsock);
}

static void vsock_destroy(struct virtio_device *device)
{
    vsock_free(vsock_of(device));
}

static const struct virtio_ops vsock_ops = {
    .type = VIRTIO_ID_VSOCK,
    .name = "vsock",
    .config_read = vsock_config_read,
    .activate = vsock_activate,
    .notify = vsock_notify,
    .reset = vsock_reset,
    .pause = vsock_pause,
    .resume = vsock_resume,
    .destroy = vsock_destroy,
};

/* --- Making one --- */

static void vsock_init(struct vsock *vsock, const struct vsock_config *config)
{
    list_init(&vsock->connections);
    list_init(&vsock->pending);
    list_init(&vsock->expiring);
    list_init(&vsock->connecting);
    list_init(&vsock->greeting);
    vsock->config.guest_cid = config->guest_cid;
    vsock->listeners[VSOCK_STREAMS] =
        (struct vsock_listener){.source.fd = -1, .type = VIRTIO_VSOCK_TYPE_STREAM, .vsock = vsock};
    vsock->listeners[VSOCK_MESSAGES] =
        (struct vsock_listener){.source.fd = -1, .type = VIRTIO_VSOCK_TYPE_SEQPACKET, .vsock = vsock};
    vsock->next_host_port = 1u << 30;
    vsock->turn.expired = turn_expired;
    vsock->patience.expired = patience_expired;
    vsock->retry.expired = retry_expired;
    vsock->queues[VSOCK_RX].size_max = vsock->queues[VSOCK_TX].size_max = QUEUE_SIZE;
    vsock->queues[VSOCK_EVENT].size_max = EVENT_QUEUE_SIZE;
    vsock->device.ops = &vsock_ops;
    vsock->device.id = "vsock";
    vsock->device.features = FEATURES;
    vsock->device.queues = vsock->queues;
    vsock->device.queue_count = VSOCK_QUEUE_COUNT;
}

static struct error *open_listener(struct vsock_listener *listener, const char *path, struct event_loop *loop)
{
    listener->path = strdup(path);
    if (listener->path == NULL)
        return error_errno(ENOMEM, "cannot make the vsock device");

    struct error *error = vsock_listener_open(listener, loop);
    return error == NULL ? NULL : error_wrap(error, "uds_path");
}

struct error *virtio_vsock_new(const struct vsock_config *config, const struct vsock_seqpacket_config *seqpacket,
                               struct event_loop *loop, struct virtio_device **device)
{
    if (config->guest_cid < VSOCK_GUEST_CID_MIN || config->guest_cid > VSOCK_GUEST_CID_MAX)
        return error_new(ERROR_INPUT, "guest_cid: %u, expected %u to %u", config->guest_cid, VSOCK_GUEST_CID_MIN,
                         VSOCK_GUEST_CID_MAX);

    __attribute__((cleanup(vsock_cleanup))) struct vsock *vsock = NULL;
    struct vsock *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return error_errno(ENOMEM, "cannot make the vsock device");
    vsock_init(made, config);
    vsock = made;

    struct error *error = open_listener(&vsock->listeners[VSOCK_STREAMS], config->uds_path, loop);
    if (error == NULL && seqpacket->present)
        error = open_listener(&vsock->listeners[VSOCK_MESSAGES], seqpacket->uds_path, loop);
    if (error != NULL)
        return error;
    vsock->uds_path = vsock->listeners[VSOCK_STREAMS].path;
    *device = &((struct vsock *)take_pointer(&vsock))->device;
    return NULL;
}
