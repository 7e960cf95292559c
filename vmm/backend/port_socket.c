#include "vmm/backend/port_backend.h"

#include "vmm/backend/unix_socket.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    BACKLOG = 4,
    ACCEPT_RETRY_US = 1000000,
};

struct port_socket {
    struct port_backend backend;
    struct event_loop *loop;
    struct event_source listener; /* armed while there is no peer, or only what a dead one left */
    struct event_timer retry;     /* accept failed for want of descriptors or memory */
    struct event_source peer;     /* fd -1: none */
    bool had_peer;
    bool input_ended;  /* the end of the peer's input has been read */
    bool output_ended; /* the peer takes no more */
    bool hung_up;      /* the peer is gone, but not yet what it sent; `peer` is not in the loop any more */
    struct unix_socket_file file;
    char path[];
};

static struct port_socket *socket_of(const struct port_backend *backend)
{
    return container_of(backend, struct port_socket, backend);
}

static void socket_changed(struct port_socket *port)
{
    port->backend.changed(port->backend.owner);
}

static void peer_close(struct port_socket *port)
{
    event_source_close(&port->peer);
    port->input_ended = port->output_ended = port->hung_up = false;
    event_source_update(&port->listener, EPOLLIN);
}

/* Whether everything that the peer sent before it went has been read. */
static bool peer_is_drained(const struct port_socket *port)
{
    uint8_t byte;
    ssize_t length = recv(port->peer.fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT);

    return port->input_ended || length == 0 || (length < 0 && errno != EAGAIN);
}

/*
 * The peer has closed both directions. epoll would tell so for ever: stop listening to it, and keep the descriptor for
 * what is unread.
 */
static void peer_hang_up(struct port_socket *port)
{
    event_source_remove(&port->peer);
    port->hung_up = port->output_ended = true;
    if (peer_is_drained(port))
        peer_close(port);
    else
        event_source_update(&port->listener, EPOLLIN);
}

static void peer_ready(struct event_source *source, uint32_t events)
{
    struct port_socket *port = container_of(source, struct port_socket, peer);

    if ((events & (EPOLLHUP | EPOLLERR)) != 0)
        peer_hang_up(port);
    socket_changed(port);
}

/* A dead peer whose bytes the guest never took makes room for a living one. */
static void peer_discard(struct port_socket *port)
{
    int unread = 0;

    if (ioctl(port->peer.fd, FIONREAD, &unread) == 0 && unread > 0)
        METRIC_ADD(console.dropped_bytes, unread);
    peer_close(port);
    socket_changed(port);
}

static void listener_pause(struct port_socket *port)
{
    log_warning("console port \"%s\": cannot accept a connection: %s", port->path, strerror(errno));
    event_source_update(&port->listener, 0);
    event_timer_set(port->loop, &port->retry, clock_monotonic_us() + ACCEPT_RETRY_US);
}

static void retry_expired(struct event_timer *timer)
{
    struct port_socket *port = container_of(timer, struct port_socket, retry);

    if (port->peer.fd < 0 || port->hung_up)
        event_source_update(&port->listener, EPOLLIN);
}

static void listener_ready(struct event_source *source, uint32_t events)
{
    struct port_socket *port = container_of(source, struct port_socket, listener);
    cleanup_fd int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            listener_pause(port);
        return;
    }
    if (port->peer.fd >= 0)
        peer_discard(port);

    port->peer.fd = take_fd(&fd);
    cleanup_error struct error *error = event_source_add(port->loop, &port->peer, 0);
    if (error != NULL) {
        log_warning("console port \"%s\": %s", port->path, error->message);
        peer_close(port);
        return;
    }
    event_source_update(&port->listener, 0);
    port->had_peer = true;
    METRIC_INCREMENT(console.connections);
    socket_changed(port);
}

static bool socket_is_open(const struct port_backend *backend)
{
    const struct port_socket *port = socket_of(backend);

    return port->peer.fd >= 0 && !port->input_ended;
}

static ssize_t socket_readv(struct port_backend *backend, const struct iovec *iov, size_t count)
{
    struct port_socket *port = socket_of(backend);

    if (!socket_is_open(backend))
        return -EAGAIN;

    ssize_t length = readv(port->peer.fd, iov, (int)count);
    if (length > 0)
        return length;
    /* A peer that went without reading all we sent it: its own bytes came before this error. */
    if (length < 0 && errno != ECONNRESET)
        return -errno;
    port->input_ended = true;
    if (port->output_ended)
        peer_close(port);
    return 0;
}

static ssize_t socket_writev(struct port_backend *backend, const struct iovec *iov, size_t count)
{
    struct port_socket *port = socket_of(backend);
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (__typeof__(message.msg_iovlen))count};

    if (port->peer.fd < 0)
        return port->had_peer ? -EPIPE : -EAGAIN;
    if (port->output_ended)
        return -EPIPE;

    ssize_t length = sendmsg(port->peer.fd, &message, MSG_NOSIGNAL);
    if (length >= 0)
        return length;
    if (errno != EPIPE && errno != ECONNRESET)
        return -errno;
    port->output_ended = true;
    if (port->input_ended)
        peer_close(port);
    return -EPIPE;
}

static void socket_watch(struct port_backend *backend, bool input, bool output)
{
    struct port_socket *port = socket_of(backend);
    uint32_t events = 0;

    if (input && !port->input_ended)
        events |= EPOLLIN;
    if (output && !port->output_ended)
        events |= EPOLLOUT;
    event_source_update(&port->peer, events);
}

static void socket_destroy(struct port_backend *backend)
{
    struct port_socket *port = socket_of(backend);

    event_timer_cancel(&port->retry);
    event_source_close(&port->peer);
    event_source_remove(&port->listener);
    unix_socket_remove(port->path, &port->file);
    fd_close(&port->listener.fd);
    free(port);
}

static const struct port_backend_ops socket_ops = {
    .is_open = socket_is_open,
    .readv = socket_readv,
    .writev = socket_writev,
    .watch = socket_watch,
    .destroy = socket_destroy,
};

struct error *port_socket_new(const char *path, struct event_loop *loop, struct port_backend **backend)
{
    struct error *error = unix_socket_check_path(path);
    size_t length = strlen(path);

    if (error != NULL)
        return error;

    struct port_socket *port = calloc(1, sizeof(*port) + length + 1);
    if (port == NULL)
        return error_errno(ENOMEM, "\"%s\": cannot make the port", path);
    memcpy(port->path, path, length);
    port->backend.ops = &socket_ops;
    port->loop = loop;
    port->listener.fd = port->peer.fd = -1;
    port->listener.ready = listener_ready;
    port->peer.ready = peer_ready;
    port->retry.expired = retry_expired;

    error = unix_socket_listen(path, SOCK_STREAM, BACKLOG, &port->listener.fd, &port->file);
    if (error == NULL)
        error = event_source_add(loop, &port->listener, EPOLLIN);
    if (error != NULL) {
        socket_destroy(&port->backend);
        return error;
    }
    *backend = &port->backend;
    return NULL;
}
