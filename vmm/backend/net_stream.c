/*
 * Frames on a stream: each is preceded by its length in 32 bits, big-endian, as passt and QEMU have it.
 *
 * The socket is read in large pieces, several frames at a time, into memory of our own; what is read at a time ends
 * anywhere. Writing goes from guest memory; the end of a frame that the socket did not take is copied, for the guest
 * gets its buffer back.
 */
#include "vmm/backend/net_backend.h"

#include "vmm/backend/unix_socket.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <string.h>
#include <sys/socket.h>

enum {
    PREFIX_SIZE = sizeof(uint32_t),
    FRAME_MAX = 65550, /* without the header, as the device has it: more is no frame but a peer out of step */
    SEND_MAX = 65535,  /* passt takes no more */
    BUFFER_SIZE = 2 * (PREFIX_SIZE + FRAME_MAX),
    IOV_MAX_HERE = 1024,
};

struct net_stream {
    struct net_backend backend;
    bool lost;
    size_t start, end;           /* of what was read and not yet given away */
    size_t unsent_start, unsent; /* the end of a frame that was sent in part */
    uint8_t received[BUFFER_SIZE];
    uint8_t to_send[PREFIX_SIZE + SEND_MAX];
};

static struct net_stream *stream_of(struct net_backend *backend)
{
    return container_of(backend, struct net_stream, backend);
}

/* A stream that broke, or is out of step, does not come back. Returns what the callers answer from now on. */
static int stream_lose(struct net_stream *stream)
{
    stream->lost = true;
    stream->backend.unsent = false;
    stream->start = stream->end = 0;
    return -ENOTCONN;
}

static ssize_t send_some(struct net_stream *stream, struct iovec *iov, size_t count)
{
    struct msghdr message = {.msg_iov = iov};
    ssize_t size;

    message.msg_iovlen = (__typeof__(message.msg_iovlen))count; /* musl's is an int */
    do
        size = sendmsg(stream->backend.fd, &message, MSG_NOSIGNAL);
    while (size < 0 && errno == EINTR);
    if (size < 0 && errno != EAGAIN)
        return stream_lose(stream);
    return size < 0 ? -EAGAIN : size;
}

static void stream_flush(struct net_backend *backend)
{
    struct net_stream *stream = stream_of(backend);
    struct iovec rest = {stream->to_send + stream->unsent_start, stream->unsent};

    if (!backend->unsent)
        return;
    ssize_t size = send_some(stream, &rest, 1);
    if (size <= 0)
        return;
    stream->unsent_start += (size_t)size;
    stream->unsent -= (size_t)size;
    backend->unsent = stream->unsent > 0;
}

/* Keeps what is left of the parts after their first `sent` bytes. */
static void keep_rest(struct net_stream *stream, const struct iovec *parts, size_t count, size_t sent)
{
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;

        sent -= skip;
        memcpy(stream->to_send + length, (const char *)parts[i].iov_base + skip, parts[i].iov_len - skip);
        length += parts[i].iov_len - skip;
    }
    stream->unsent_start = 0;
    stream->unsent = length;
    stream->backend.unsent = length > 0;
}

static int stream_send(struct net_backend *backend, const struct iovec *iov, size_t count, size_t size)
{
    struct net_stream *stream = stream_of(backend);
    struct iovec parts[IOV_MAX_HERE];
    size_t skip = NET_HEADER_SIZE;
    size_t used = 1;

    if (stream->lost)
        return -ENOTCONN;
    if (size <= NET_HEADER_SIZE || size - NET_HEADER_SIZE > SEND_MAX || count >= IOV_MAX_HERE)
        return -EINVAL;
    stream_flush(backend);
    if (stream->lost || backend->unsent)
        return stream->lost ? -ENOTCONN : -EAGAIN;

    uint32_t prefix = htonl((uint32_t)(size - NET_HEADER_SIZE));
    parts[0] = (struct iovec){&prefix, sizeof(prefix)};
    for (size_t i = 0; i < count; i++) {
        size_t cut = skip < iov[i].iov_len ? skip : iov[i].iov_len;

        skip -= cut;
        if (cut < iov[i].iov_len)
            parts[used++] = (struct iovec){(char *)iov[i].iov_base + cut, iov[i].iov_len - cut};
    }
    ssize_t sent = send_some(stream, parts, used);
    if (sent < 0)
        return (int)sent;
    keep_rest(stream, parts, used, (size_t)sent);
    return 0;
}

/* Reads once. 0, -EAGAIN or -ENOTCONN. */
static int fill(struct net_stream *stream)
{
    if (stream->start > 0) {
        memmove(stream->received, stream->received + stream->start, stream->end - stream->start);
        stream->end -= stream->start;
        stream->start = 0;
    }
    ssize_t size;
    do
        size = read(stream->backend.fd, stream->received + stream->end, sizeof(stream->received) - stream->end);
    while (size < 0 && errno == EINTR);
    if (size < 0 && errno == EAGAIN)
        return -EAGAIN;
    if (size <= 0)
        return stream_lose(stream);
    stream->end += (size_t)size;
    return 0;
}

/* The length of the frame that comes next, once its prefix is there; else -EAGAIN. */
static ssize_t next_length(const struct net_stream *stream)
{
    uint32_t prefix;

    if (stream->end - stream->start < PREFIX_SIZE)
        return -EAGAIN;
    memcpy(&prefix, stream->received + stream->start, sizeof(prefix));
    return ntohl(prefix);
}

/* Copies a header of zeros and the frame; what does not fit is cut. Returns how much was written. */
static size_t give(const uint8_t *frame, size_t length, const struct iovec *iov, size_t count)
{
    static const uint8_t header[NET_HEADER_SIZE];
    size_t done = 0;

    for (size_t i = 0; i < count && done < NET_HEADER_SIZE + length; i++) {
        uint8_t *to = iov[i].iov_base;
        size_t room = iov[i].iov_len;

        while (room > 0 && done < NET_HEADER_SIZE + length) {
            bool head = done < NET_HEADER_SIZE;
            const uint8_t *from = head ? header + done : frame + (done - NET_HEADER_SIZE);
            size_t left = head ? NET_HEADER_SIZE - done : NET_HEADER_SIZE + length - done;
            size_t part = left < room ? left : room;

            memcpy(to, from, part);
            to += part;
            room -= part;
            done += part;
        }
    }
    return done;
}

static ssize_t stream_receive(struct net_backend *backend, const struct iovec *iov, size_t count)
{
    struct net_stream *stream = stream_of(backend);

    while (!stream->lost) {
        ssize_t length = next_length(stream);

        if (length > FRAME_MAX) {
            log_error("the network's peer announces a frame of %zd bytes, expected at most %d", length, FRAME_MAX);
            return stream_lose(stream);
        }
        if (length >= 0 && (size_t)length <= stream->end - stream->start - PREFIX_SIZE) {
            const uint8_t *frame = stream->received + stream->start + PREFIX_SIZE;

            stream->start += PREFIX_SIZE + (size_t)length;
            return (ssize_t)give(frame, (size_t)length, iov, count);
        }
        int result = fill(stream);
        if (result != 0)
            return result;
    }
    return -ENOTCONN;
}

static void stream_close(struct net_backend *backend)
{
    fd_close(&backend->fd);
    free(stream_of(backend));
}

static const struct net_backend_ops stream_ops = {
    .send = stream_send,
    .receive = stream_receive,
    .flush = stream_flush,
    .close = stream_close,
};

/* The buffers are large, and calloc leaves them untouched. */
struct net_backend *net_stream_new(int fd)
{
    struct net_stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL)
        return NULL;
    stream->backend = (struct net_backend){.ops = &stream_ops, .fd = fd};
    return &stream->backend;
}

struct error *net_stream_open(const char *socket_path, struct net_backend **backend)
{
    struct error *error = unix_socket_check_path(socket_path);

    if (error != NULL)
        return error;

    cleanup_fd int fd = unix_socket_connect(socket_path, SOCK_STREAM);
    if (fd < 0)
        return error_errno(-fd, "\"%s\": cannot connect to it", socket_path);
    *backend = net_stream_new(fd);
    if (*backend == NULL)
        return error_errno(ENOMEM, "\"%s\": cannot make room for its frames", socket_path);
    take_fd(&fd);
    return NULL;
}
