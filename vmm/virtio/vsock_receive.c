/*
 * To the guest, for virtio-vsock. Bytes go from the host's socket straight into receive buffers, several at a time when
 * a connection is busy: the headers are filled in when it is known how much came. A message is read into memory of our
 * own first, since a Unix socket gives it whole or not at all.
 */
#include "vmm/virtio/vsock.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    BATCH_MAX = 32,    /* receive buffers filled by one read */
    TURN_PACKETS = 64, /* packets or batches in one go; then other devices have their turn */
};

enum rx_step {
    RX_DONE,       /* something was sent, or turned out not to be there: go on */
    RX_IDLE,       /* nothing is pending */
    RX_NO_BUFFERS, /* the driver's notification */
    RX_DEAD,       /* the driver's reset */
};

uint32_t vsock_credit(const struct vsock_connection *connection)
{
    uint32_t used = connection->sent - connection->guest_forwarded;

    return used < connection->guest_buffer_size ? connection->guest_buffer_size - used : 0;
}

/* --- Receive buffers --- */

static uint32_t room_of(const struct virtqueue_chain *chain)
{
    uint32_t room = chain->writable_bytes - VSOCK_HEADER_SIZE;

    return room < VSOCK_PAYLOAD_MAX ? room : VSOCK_PAYLOAD_MAX;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Buffers for one read, all of them with room behind the header. */
struct rx_batch {
    size_t count;
    size_t iov_count;
    size_t room; /* behind the headers */
    struct {
        uint16_t head;
        uint16_t iov_first;
        uint16_t iov_count;
        uint32_t room;
    } buffers[BATCH_MAX];
    struct iovec iov[VIRTQUEUE_IOV_MAX];
};

static enum rx_step pop(struct vsock *vsock, struct virtqueue_chain *chain, bool wait)
{
    struct virtqueue *queue = &vsock->queues[VSOCK_RX];
    enum virtqueue_result result;

    do
        result = virtqueue_pop(queue, chain);
    while (result == VIRTQUEUE_EMPTY && wait && virtqueue_arm(queue));
    if (result == VIRTQUEUE_EMPTY)
        return RX_NO_BUFFERS;
    if (result == VIRTQUEUE_BROKEN) {
        vsock_fail(vsock, "the receive queue is broken");
        return RX_DEAD;
    }
    if (chain->writable_bytes <= VSOCK_HEADER_SIZE) {
        vsock_fail(vsock, "a receive buffer is too small for any packet");
        return RX_DEAD;
    }
    return RX_DONE;
}

/* Takes up to `count` buffers, at least one, until they have room for `wanted` bytes. */
static enum rx_step batch_gather(struct vsock *vsock, struct rx_batch *batch, size_t count, size_t wanted)
{
    struct virtqueue_chain chain;

    batch->count = batch->iov_count = batch->room = 0;
    while (batch->count < count && batch->room < wanted) {
        enum rx_step step = pop(vsock, &chain, batch->count == 0);

        if (step == RX_DEAD)
            return step;
        if (step == RX_NO_BUFFERS)
            return batch->count == 0 ? step : RX_DONE;
        if (chain.writable_count > VIRTQUEUE_IOV_MAX - batch->iov_count) {
            virtqueue_unpop(&vsock->queues[VSOCK_RX]);
            return RX_DONE;
        }

        uint32_t room = room_of(&chain);
        batch->buffers[batch->count].head = chain.head;
        batch->buffers[batch->count].iov_first = (uint16_t)batch->iov_count;
        batch->buffers[batch->count].iov_count = chain.writable_count;
        batch->buffers[batch->count].room = room;
        memcpy(batch->iov + batch->iov_count, chain.iov + chain.readable_count,
               chain.writable_count * sizeof(chain.iov[0]));
        batch->iov_count += chain.writable_count;
        batch->room += room;
        batch->count++;
    }
    return RX_DONE;
}

/* The places for `length` bytes of payload; a buffer has at least one entry, so that they never are more. */
static size_t batch_payload(const struct rx_batch *batch, struct iovec iov[VIRTQUEUE_IOV_MAX], size_t length)
{
    size_t count = 0;

    for (size_t i = 0; i < batch->count && length > 0; i++) {
        size_t part = batch->buffers[i].room < length ? batch->buffers[i].room : length;

        count += iovec_slice(iov + count, batch->iov + batch->buffers[i].iov_first, batch->buffers[i].iov_count,
                             VSOCK_HEADER_SIZE, part);
        length -= part;
    }
    return count;
}

/* Puts the buffers from the `first`th on back. */
static void batch_return(struct vsock *vsock, const struct rx_batch *batch, size_t first)
{
    for (size_t i = first; i < batch->count; i++)
        virtqueue_unpop(&vsock->queues[VSOCK_RX]);
}

/* --- Packets --- */

static struct virtio_vsock_hdr header_of(const struct vsock_connection *connection, uint16_t op)
{
    return (struct virtio_vsock_hdr){
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = connection->vsock->config.guest_cid,
        .src_port = connection->host_port,
        .dst_port = connection->guest_port,
        .type = connection->type,
        .op = op,
        .buf_alloc = connection->buffer_size,
        .fwd_cnt = connection->forwarded,
    };
}

/* Every packet carries our credit. */
static void credit_told(struct vsock_connection *connection)
{
    connection->told_forwarded = connection->forwarded;
    connection->owes &= (uint8_t)~VSOCK_OWES_CREDIT;
}

/* Completes the `index`th buffer of a batch, which holds `length` bytes of payload already. */
static void push(struct vsock *vsock, const struct rx_batch *batch, size_t index, struct virtio_vsock_hdr *header,
                 uint32_t length)
{
    struct iovec iov[VIRTQUEUE_IOV_MAX];
    size_t count = iovec_slice(iov, batch->iov + batch->buffers[index].iov_first, batch->buffers[index].iov_count, 0,
                               sizeof(*header));
    const uint8_t *from = (const uint8_t *)header;

    header->len = length;
    for (size_t i = 0; i < count; i++) {
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
        from += iov[i].iov_len;
    }
    virtqueue_push(&vsock->queues[VSOCK_RX], batch->buffers[index].head, VSOCK_HEADER_SIZE + length);
    METRIC_INCREMENT(vsock.rx_packets_count);
    METRIC_ADD(vsock.rx_bytes_count, length);
}

/* Sends a packet without payload. */
static enum rx_step send_header(struct vsock *vsock, const struct virtio_vsock_hdr *header)
{
    struct virtqueue_chain chain;
    enum rx_step step = pop(vsock, &chain, true);

    if (step != RX_DONE)
        return step;
    virtqueue_chain_write(&chain, 0, header, sizeof(*header));
    virtqueue_push(&vsock->queues[VSOCK_RX], chain.head, sizeof(*header));
    METRIC_INCREMENT(vsock.rx_packets_count);
    return RX_DONE;
}

static enum rx_step send_refusal(struct vsock *vsock)
{
    const struct vsock_refusal *refusal = &vsock->refusals[vsock->refusal_first];
    const struct virtio_vsock_hdr header = {
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = vsock->config.guest_cid,
        .src_port = refusal->host_port,
        .dst_port = refusal->guest_port,
        .type = refusal->type,
        .op = VIRTIO_VSOCK_OP_RST,
    };
    enum rx_step step = send_header(vsock, &header);

    if (step != RX_DONE)
        return step;
    vsock->refusal_first = (uint16_t)((vsock->refusal_first + 1) % VSOCK_REFUSALS_MAX);
    vsock->refusal_count--;
    return step;
}

/* --- Streams --- */

/* The peer sends nothing any more. One that went without reading all we sent it says so by ECONNRESET. */
static void input_ended(struct vsock_connection *connection, ssize_t result)
{
    connection->readable = false;
    connection->host_sends_no_more = true;
    if (result < 0) {
        METRIC_INCREMENT(vsock.rx_read_fails);
        connection->host_takes_no_more = true;
        vsock_output_drop(connection);
    }
}

/* What a read that gave nothing means. */
static void input_paused(struct vsock_connection *connection, ssize_t result)
{
    if (result < 0 && errno == EINTR)
        return;
    if (result < 0 && errno == EAGAIN && !connection->hung_up)
        connection->readable = false;
    else
        input_ended(connection, result);
}

static void push_stream(struct vsock_connection *connection, const struct rx_batch *batch, size_t length)
{
    struct virtio_vsock_hdr header = header_of(connection, VIRTIO_VSOCK_OP_RW);
    size_t index = 0;

    for (; length > 0; index++) {
        uint32_t part = batch->buffers[index].room < length ? batch->buffers[index].room : (uint32_t)length;

        push(connection->vsock, batch, index, &header, part);
        connection->sent += part;
        length -= part;
    }
    batch_return(connection->vsock, batch, index);
    credit_told(connection);
}

/* Fills a buffer with bytes of our own; `header` says how many. */
static void push_copy(struct vsock_connection *connection, const struct virtqueue_chain *chain,
                      const struct virtio_vsock_hdr *header, const void *bytes)
{
    virtqueue_chain_write(chain, 0, header, sizeof(*header));
    virtqueue_chain_write(chain, sizeof(*header), bytes, header->len);
    virtqueue_push(&connection->vsock->queues[VSOCK_RX], chain->head, VSOCK_HEADER_SIZE + header->len);
    METRIC_INCREMENT(vsock.rx_packets_count);
    METRIC_ADD(vsock.rx_bytes_count, header->len);
    connection->sent += header->len;
    credit_told(connection);
}

/* Sends what came with the line by which the peer said where it wants to go. */
static enum rx_step send_early(struct vsock_connection *connection)
{
    struct virtio_vsock_hdr header = header_of(connection, VIRTIO_VSOCK_OP_RW);
    struct virtqueue_chain chain;
    enum rx_step step = pop(connection->vsock, &chain, true);

    if (step != RX_DONE)
        return step;
    header.len = smaller(smaller(connection->early_length, vsock_credit(connection)), room_of(&chain));
    push_copy(connection, &chain, &header, connection->line + connection->early);
    connection->early = (uint8_t)(connection->early + header.len);
    connection->early_length = (uint8_t)(connection->early_length - header.len);
    return step;
}

static enum rx_step send_stream(struct vsock_connection *connection)
{
    struct vsock *vsock = connection->vsock;
    struct iovec iov[VIRTQUEUE_IOV_MAX];
    struct rx_batch batch;
    size_t wanted = vsock_credit(connection);
    enum rx_step step = batch_gather(vsock, &batch, connection->batch, wanted);

    if (step != RX_DONE)
        return step;
    if (wanted > batch.room)
        wanted = batch.room;

    struct msghdr message = {.msg_iov = iov};
    message.msg_iovlen = (__typeof__(message.msg_iovlen))batch_payload(&batch, iov, wanted);
    ssize_t length = recvmsg(connection->socket.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length <= 0) {
        batch_return(vsock, &batch, 0);
        input_paused(connection, length);
        connection->batch = 1;
        return RX_DONE;
    }
    push_stream(connection, &batch, (size_t)length);
    /*
     * A short read has emptied the socket, unless it ended at descriptors, which nobody here takes, or the end is next.
     * Else there is probably more: read it in larger parts.
     */
    if ((size_t)length < wanted)
        connection->readable = connection->hung_up || connection->input_ends || (message.msg_flags & MSG_CTRUNC) != 0;
    else if (connection->batch < BATCH_MAX)
        connection->batch = (uint8_t)(connection->batch * 2);
    return RX_DONE;
}

/* --- Messages --- */

/*
 * Reads the next message when the guest has credit for all of it: it is to be sent without a wait in between. False
 * when there is none to send now.
 */
static bool message_read(struct vsock_connection *connection)
{
    struct vsock_message *message = &connection->vsock->message;
    uint8_t byte;
    ssize_t length = recv(connection->socket.fd, &byte, sizeof(byte), MSG_PEEK | MSG_TRUNC);

    if (length <= 0) {
        input_paused(connection, length);
        return false;
    }
    if (length > VSOCK_MESSAGE_MAX || (uint64_t)length > connection->guest_buffer_size) {
        log_warning("vsock: a message of %zd bytes is more than guest port %u takes: expected at most %u", length,
                    connection->guest_port,
                    connection->guest_buffer_size < VSOCK_MESSAGE_MAX ? connection->guest_buffer_size
                                                                      : VSOCK_MESSAGE_MAX);
        vsock_connection_abort(connection);
        return false;
    }
    connection->next_length = (uint32_t)length;
    if (connection->next_length > vsock_credit(connection))
        return false;
    if (message->data == NULL && (message->data = malloc(VSOCK_MESSAGE_MAX)) == NULL) {
        vsock_connection_abort(connection);
        return false;
    }
    if (recv(connection->socket.fd, message->data, VSOCK_MESSAGE_MAX, 0) != length) {
        vsock_connection_abort(connection);
        return false;
    }
    connection->next_length = 0;
    message->connection = connection;
    message->length = (uint32_t)length;
    message->sent = 0;
    return true;
}

static enum rx_step send_message(struct vsock_connection *connection)
{
    struct vsock *vsock = connection->vsock;
    struct vsock_message *message = &vsock->message;
    struct virtqueue_chain chain;
    enum rx_step step;

    if (message->connection != connection && !message_read(connection))
        return RX_DONE;
    step = pop(vsock, &chain, true);
    if (step != RX_DONE)
        return step;

    struct virtio_vsock_hdr header = header_of(connection, VIRTIO_VSOCK_OP_RW);
    header.len = smaller(room_of(&chain), message->length - message->sent);
    if (header.len == message->length - message->sent) {
        header.flags = VIRTIO_VSOCK_SEQ_EOM;
        message->connection = NULL;
    }
    push_copy(connection, &chain, &header, message->data + message->sent);
    message->sent += header.len;
    return RX_DONE;
}

/* --- Turns --- */

static const struct {
    uint8_t owes;
    uint16_t op;
} packet_table[] = {
    {VSOCK_OWES_RST, VIRTIO_VSOCK_OP_RST},
    {VSOCK_OWES_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
    {VSOCK_OWES_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
    {VSOCK_OWES_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
    {VSOCK_OWES_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
    {VSOCK_OWES_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
};

/* Sends the first packet that is owed. */
static enum rx_step send_owed(struct vsock_connection *connection)
{
    size_t i = 0;

    while ((connection->owes & packet_table[i].owes) == 0)
        i++;

    struct virtio_vsock_hdr header = header_of(connection, packet_table[i].op);
    if (packet_table[i].op == VIRTIO_VSOCK_OP_SHUTDOWN)
        header.flags = (connection->host_sends_no_more ? VIRTIO_VSOCK_SHUTDOWN_SEND : 0u) |
                       (connection->host_takes_no_more ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0u);

    enum rx_step step = send_header(connection->vsock, &header);
    if (step != RX_DONE)
        return step;
    connection->owes &= (uint8_t)~packet_table[i].owes;
    credit_told(connection);
    if (packet_table[i].op == VIRTIO_VSOCK_OP_REQUEST)
        connection->request_sent = true;
    if (packet_table[i].op == VIRTIO_VSOCK_OP_SHUTDOWN)
        connection->told_shutdown = (uint8_t)header.flags;
    if (packet_table[i].op == VIRTIO_VSOCK_OP_RST) {
        vsock_connection_free(connection);
        return RX_DONE;
    }
    vsock_connection_settle(connection);
    return RX_DONE;
}

static enum rx_step serve(struct vsock_connection *connection)
{
    struct vsock *vsock = connection->vsock;

    /* The others have their turn before this one's next. */
    list_remove(&connection->pending);
    list_append(&vsock->pending, &connection->pending);
    /* The last of a peer that left goes before the news, so that one packet tells both ends. */
    bool input = vsock_connection_has_input(connection);
    if ((connection->owes & ~(input ? VSOCK_OWES_SHUTDOWN : 0)) != 0)
        return send_owed(connection);
    if (!input && vsock->message.connection != connection) {
        vsock_connection_settle(connection);
        return RX_DONE;
    }

    enum rx_step step;
    if (connection->type == VIRTIO_VSOCK_TYPE_SEQPACKET)
        step = send_message(connection);
    else
        step = connection->early_length > 0 ? send_early(connection) : send_stream(connection);
    if (step == RX_DONE)
        vsock_connection_settle(connection);
    return step;
}

static enum rx_step rx_step(struct vsock *vsock)
{
    if (vsock->refusal_count > 0)
        return send_refusal(vsock);
    /* A message that has begun is finished first: it has credit, and only one can be on its way. */
    if (vsock->message.connection != NULL)
        return serve(vsock->message.connection);
    if (list_is_empty(&vsock->pending))
        return RX_IDLE;
    return serve(list_first(&vsock->pending, struct vsock_connection, pending));
}

void vsock_receive(struct vsock *vsock)
{
    enum rx_step step = RX_DONE;

    if (!vsock_is_running(vsock))
        return;
    virtqueue_disarm(&vsock->queues[VSOCK_RX]);
    for (unsigned packets = 0; packets < TURN_PACKETS && step == RX_DONE; packets++)
        step = rx_step(vsock);
    if (step == RX_DONE || (vsock->transmit_blocked && vsock->refusal_count < VSOCK_REFUSALS_MAX / 2))
        vsock_turn_later(vsock);
    /* Packets that were sent are not waited for; their answer follows, or the credit that they took. */
    if (virtqueue_unsignalled(&vsock->queues[VSOCK_RX]) > 0)
        virtio_device_signal_all(&vsock->device);
    else
        virtio_device_signal_soon(&vsock->device, VSOCK_TX);
}
