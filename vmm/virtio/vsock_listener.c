/*
 * Host peers of virtio-vsock. A peer connects to the device's Unix socket and says "CONNECT <port>\n"; once the guest
 * has agreed it is told "OK <host port>\n", and what follows are the connection's bytes.
 */
#include "vmm/virtio/vsock.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum {
    BACKLOG = 128,
    HOST_PORT_FIRST = 1 << 30, /* where Firecracker begins, too: above what services use */
};
#define ACCEPT_RETRY_US 1000000ull

/* --- The line --- */

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\r')
        at++;
    return at;
}

/* Reads "CONNECT <port>", in any case, as Firecracker does. */
static bool line_parse(const char *line, uint32_t *port)
{
    static const char word[] = "connect";
    const char *at = skip_blanks(line);
    uint64_t value = 0;

    if (strncasecmp(at, word, sizeof(word) - 1) != 0)
        return false;
    at += sizeof(word) - 1;
    if (*at != ' ' && *at != '\t')
        return false;
    at = skip_blanks(at);
    if (!isdigit((unsigned char)*at))
        return false;
    for (; isdigit((unsigned char)*at); at++) {
        value = value * 10 + (uint64_t)(*at - '0');
        if (value > UINT32_MAX)
            return false;
    }
    *port = (uint32_t)value;
    return *skip_blanks(at) == '\0';
}

/* What follows the line are data already: they stay behind it. 1: a line is there; 0: not yet; -1: never. */
static int line_read(struct vsock_connection *connection)
{
    char *at = connection->line + connection->line_length;
    size_t room = sizeof(connection->line) - connection->line_length;
    ssize_t length = recv(connection->socket.fd, at, room, 0);

    if (length < 0 && errno == EAGAIN)
        return 0;
    if (length <= 0)
        return -1;

    const char *end = memchr(at, '\n', (size_t)length);
    size_t part = end != NULL ? (size_t)(end - at) + 1 : (size_t)length;
    connection->line_length = (uint8_t)(connection->line_length + part);
    connection->early = connection->line_length;
    connection->early_length = (uint8_t)((size_t)length - part);
    /* Less of a stream than there was room for: the socket is empty, but for the end. */
    connection->readable = connection->type == VIRTIO_VSOCK_TYPE_SEQPACKET || (size_t)length == room ||
                           connection->early_length > 0 || connection->input_ends;
    if (end != NULL) {
        connection->line[connection->line_length - 1] = '\0';
        return 1;
    }
    return connection->line_length < sizeof(connection->line) ? 0 : -1;
}

/* A port that this guest port is not connected to yet. */
static uint32_t host_port_choose(struct vsock *vsock, uint32_t guest_port)
{
    uint32_t port;

    do {
        port = vsock->next_host_port;
        vsock->next_host_port = HOST_PORT_FIRST + (port + 1) % HOST_PORT_FIRST;
    } while (vsock_connection_find(vsock, guest_port, port) != NULL);
    return port;
}

void vsock_greeting_read(struct vsock_connection *connection)
{
    struct vsock *vsock = connection->vsock;
    uint32_t port;
    int result;

    do {
        connection->readable = false;
        result = line_read(connection);
    } while (result == 0 && connection->readable);
    if (result == 0 && !connection->hung_up) {
        vsock_connection_settle(connection);
        return;
    }
    bool whole = result > 0 && strlen(connection->line) + 1 == connection->line_length;
    if (!whole || !line_parse(connection->line, &port)) {
        METRIC_INCREMENT(vsock.rx_read_fails);
        log_debug("vsock: a host peer did not say CONNECT and a port");
        vsock_connection_free(connection);
        return;
    }
    vsock_connection_enter(connection, port, host_port_choose(vsock, port));
    connection->state = VSOCK_REQUESTED;
    connection->owes = VSOCK_OWES_REQUEST;
    vsock_connection_expect(connection);
    vsock_connection_settle(connection);
}

bool vsock_greeting_answer(struct vsock_connection *connection)
{
    char line[VSOCK_LINE_SIZE];
    int length = snprintf(line, sizeof(line), "OK %u\n", connection->host_port);

    return send(connection->socket.fd, line, (size_t)length, MSG_NOSIGNAL) == length;
}

/* --- The listener --- */

static void listener_ready(struct event_source *source, uint32_t events)
{
    struct vsock_listener *listener = container_of(source, struct vsock_listener, source);
    struct vsock *vsock = listener->vsock;
    cleanup_fd int fd = -1;

    (void)events;
    if (!vsock_is_running(vsock) || vsock->connection_count == VSOCK_CONNECTIONS_MAX) {
        vsock_listeners_update(vsock);
        return;
    }
    fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
            return;
        METRIC_INCREMENT(vsock.muxer_event_fails);
        log_warning("vsock: \"%s\": cannot accept a connection: %s", listener->path, strerror(errno));
        vsock->listener_failed = true;
        vsock_listeners_update(vsock);
        event_timer_set(vsock->device.loop, &vsock->retry, clock_monotonic_us() + ACCEPT_RETRY_US);
        return;
    }

    struct vsock_connection *connection = vsock_connection_new(vsock, listener->type, VSOCK_GREETING);
    if (connection == NULL)
        return;
    if (!vsock_connection_attach(connection, take_fd(&fd))) {
        vsock_connection_free(connection);
        return;
    }
    vsock_connection_expect(connection);
    vsock_greeting_read(connection);
    vsock_receive(vsock);
}

void vsock_listeners_update(struct vsock *vsock)
{
    bool wanted = vsock_is_running(vsock) && !vsock->listener_failed && vsock->connection_count < VSOCK_CONNECTIONS_MAX;

    for (size_t i = 0; i < VSOCK_LISTENERS; i++)
        event_source_update(&vsock->listeners[i].source, wanted ? EPOLLIN : 0);
}

struct error *vsock_listener_open(struct vsock_listener *listener, struct event_loop *loop)
{
    int type = listener->type == VIRTIO_VSOCK_TYPE_STREAM ? SOCK_STREAM : SOCK_SEQPACKET;
    struct error *error = unix_socket_check_path(listener->path);

    if (error == NULL)
        error = unix_socket_listen(listener->path, type, BACKLOG, &listener->source.fd, &listener->file);
    if (error != NULL)
        return error;
    listener->source.ready = listener_ready;
    return event_source_add(loop, &listener->source, 0);
}

void vsock_listener_close(struct vsock_listener *listener)
{
    event_source_remove(&listener->source);
    if (listener->source.fd >= 0)
        unix_socket_remove(listener->path, &listener->file);
    fd_close(&listener->source.fd);
    free(listener->path);
}
