/*
 * From the guest to a host socket, for virtio-vsock. What the socket takes goes straight from guest memory; the rest is
 * kept in the connection, at most as much as the guest has credit for, and counts as forwarded only when the socket has
 * it. Messages (SOCK_SEQPACKET) go out whole: in `output` each has a word in front of it.
 */
#include "vmm/virtio/vsock.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* The word in front of a message: its length, and whether it is all there. */
#define MESSAGE_IS_WHOLE (1u << 31)

/* Bytes taken, 0 when the socket is full, or -errno. */
static ssize_t socket_send(struct vsock_connection *connection, struct iovec *iov, size_t count)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (__typeof__(message.msg_iovlen))count};
    ssize_t sent = sendmsg(connection->socket.fd, &message, MSG_NOSIGNAL);

    if (sent >= 0)
        return sent;
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
        return 0;
    METRIC_INCREMENT(vsock.tx_write_fails);
    return -errno;
}

/* What a failed write means. False when the connection cannot go on. */
static bool peer_refuses(struct vsock_connection *connection, ssize_t result)
{
    if (result == -EPIPE || result == -ECONNRESET) {
        connection->host_takes_no_more = true;
        vsock_output_drop(connection);
        return true;
    }
    log_debug("vsock: guest port %u, host port %u: the host's socket refuses data: %s", connection->guest_port,
              connection->host_port, strerror((int)-result));
    return false;
}

static bool is_stream(const struct vsock_connection *connection)
{
    return connection->type == VIRTIO_VSOCK_TYPE_STREAM;
}

/*
 * Makes room for more. What all connections keep is limited, whatever their credit adds up to: a guest may fill them
 * with messages of no bytes at all.
 */
static bool reserve(struct vsock_connection *connection, size_t more)
{
    if (connection->vsock->kept + more > VSOCK_KEPT_MAX || !byte_ring_reserve(&connection->output, more))
        return false;
    connection->vsock->kept += more;
    return true;
}

static void consume(struct vsock_connection *connection, size_t length)
{
    connection->vsock->kept -= length;
    byte_ring_consume(&connection->output, length);
}

void vsock_output_drop(struct vsock_connection *connection)
{
    connection->vsock->kept -= connection->output.used;
    byte_ring_free(&connection->output);
    connection->message_is_open = false;
    connection->forwarded = connection->received;
}

/* Keeps the payload from the `done`th byte on. */
static bool keep(struct vsock_connection *connection, const struct virtqueue_chain *chain, uint32_t done,
                 uint32_t length)
{
    struct iovec iov[VIRTQUEUE_IOV_MAX];
    size_t count = iovec_slice(iov, chain->iov, chain->readable_count, (size_t)VSOCK_HEADER_SIZE + done, length - done);

    if (!reserve(connection, length - done))
        return false;
    for (size_t i = 0; i < count; i++)
        byte_ring_append(&connection->output, iov[i].iov_base, iov[i].iov_len);
    return true;
}

static bool output_stream(struct vsock_connection *connection, const struct virtqueue_chain *chain, uint32_t length)
{
    struct iovec iov[VIRTQUEUE_IOV_MAX];
    ssize_t sent = 0;

    if (connection->output.used == 0) {
        size_t count = iovec_slice(iov, chain->iov, chain->readable_count, VSOCK_HEADER_SIZE, length);

        sent = socket_send(connection, iov, count);
        if (sent < 0)
            return peer_refuses(connection, sent);
        connection->forwarded += (uint32_t)sent;
    }
    return (uint32_t)sent == length || keep(connection, chain, (uint32_t)sent, length);
}

/* The word in front of the message that is being put together at the end of `output`. */
static bool message_begin(struct vsock_connection *connection)
{
    static const uint32_t word;

    if (!reserve(connection, sizeof(word)))
        return false;
    byte_ring_append(&connection->output, &word, sizeof(word));
    connection->message_is_open = true;
    connection->open_message = 0;
    return true;
}

static void message_end(struct vsock_connection *connection)
{
    uint32_t word = connection->open_message | MESSAGE_IS_WHOLE;
    size_t place = connection->output.used - connection->open_message - sizeof(word);

    byte_ring_overwrite(&connection->output, place, &word, sizeof(word));
    connection->message_is_open = false;
}

static bool output_message(struct vsock_connection *connection, const struct virtqueue_chain *chain, uint32_t length,
                           bool ends_message)
{
    struct iovec iov[VIRTQUEUE_IOV_MAX];

    if (connection->output.used == 0 && ends_message && length > 0) {
        size_t count = iovec_slice(iov, chain->iov, chain->readable_count, VSOCK_HEADER_SIZE, length);
        ssize_t sent = socket_send(connection, iov, count);

        if (sent < 0)
            return peer_refuses(connection, sent);
        if (sent > 0) {
            connection->forwarded += length;
            return true;
        }
    }
    if (!connection->message_is_open && !message_begin(connection))
        return false;
    if (!keep(connection, chain, 0, length))
        return false;
    connection->open_message += length;
    if (ends_message)
        message_end(connection);
    return vsock_output_flush(connection);
}

bool vsock_output(struct vsock_connection *connection, const struct virtqueue_chain *chain, uint32_t length,
                  bool ends_message)
{
    if (connection->host_takes_no_more) {
        connection->forwarded = connection->received;
        return true;
    }
    if (is_stream(connection))
        return length == 0 || output_stream(connection, chain, length);
    return output_message(connection, chain, length, ends_message);
}

/* How much of `output` the next write takes, and how much of that is the word in front. 0: nothing is whole yet. */
static size_t next_write(const struct vsock_connection *connection, size_t *head)
{
    uint32_t word;

    *head = 0;
    if (is_stream(connection) || connection->output.used == 0)
        return connection->output.used;
    byte_ring_peek(&connection->output, 0, &word, sizeof(word));
    if ((word & MESSAGE_IS_WHOLE) == 0)
        return 0;
    *head = sizeof(word);
    return (word & ~MESSAGE_IS_WHOLE) + sizeof(word);
}

bool vsock_output_waits(const struct vsock_connection *connection)
{
    size_t head;

    return next_write(connection, &head) > 0;
}

bool vsock_output_flush(struct vsock_connection *connection)
{
    struct iovec iov[2];
    size_t head;
    size_t length;

    while ((length = next_write(connection, &head)) > 0) {
        /* An empty message: Unix sockets cannot tell it from the end. */
        ssize_t sent = 0;
        if (length > head) {
            size_t count = byte_ring_iovec(&connection->output, head, length - head, iov);

            sent = socket_send(connection, iov, count);
            if (sent == 0)
                return true;
            if (sent < 0)
                return peer_refuses(connection, sent);
        }
        connection->forwarded += (uint32_t)sent;
        consume(connection, head + (size_t)sent);
    }
    return true;
}
