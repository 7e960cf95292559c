/*
 * Connections of virtio-vsock: the table, their host sockets, and how they begin and end (virtio 1.2, section 5.10.6).
 *
 * Handlers only note what happened; vsock_connection_settle, called last, draws the consequences.
 */
#include "vmm/virtio/vsock.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    RETRY_US = 2000,               /* while a listener's backlog is full */
    CONNECT_PATIENCE_US = 2000000, /* then the guest's own patience is over */
};

enum { SHUTDOWN_BOTH = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND };

/* --- The table --- */

static struct vsock_connection **bucket_of(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    uint32_t hash = (guest_port * 0x9e3779b1u) ^ (host_port * 0x85ebca77u);

    return &vsock->buckets[(hash >> 16) % VSOCK_BUCKETS];
}

struct vsock_connection *vsock_connection_find(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_connection *connection = *bucket_of(vsock, guest_port, host_port);

    while (connection != NULL && (connection->guest_port != guest_port || connection->host_port != host_port))
        connection = connection->next_in_bucket;
    return connection;
}

void vsock_connection_enter(struct vsock_connection *connection, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_connection **bucket = bucket_of(connection->vsock, guest_port, host_port);

    connection->guest_port = guest_port;
    connection->host_port = host_port;
    connection->next_in_bucket = *bucket;
    connection->in_table = true;
    *bucket = connection;
}

static void leave_table(struct vsock_connection *connection)
{
    struct vsock_connection **place = bucket_of(connection->vsock, connection->guest_port, connection->host_port);

    if (!connection->in_table)
        return;
    while (*place != connection)
        place = &(*place)->next_in_bucket;
    *place = connection->next_in_bucket;
    connection->in_table = false;
}

/* --- Waiting for the guest, and for host peers --- */

static bool is_full(const struct vsock *vsock)
{
    return vsock->connection_count == VSOCK_CONNECTIONS_MAX;
}

/* The first of those whose time is over next; NULL: of none. */
static struct vsock_connection *first_to_expire(struct vsock *vsock)
{
    struct vsock_connection *first = NULL, *silent = NULL;

    if (!list_is_empty(&vsock->expiring))
        first = list_first(&vsock->expiring, struct vsock_connection, waiting);
    if (is_full(vsock) && !list_is_empty(&vsock->greeting))
        silent = list_first(&vsock->greeting, struct vsock_connection, waiting);
    return first == NULL || (silent != NULL && silent->deadline_us < first->deadline_us) ? silent : first;
}

static void patience_set(struct vsock *vsock)
{
    const struct vsock_connection *first = first_to_expire(vsock);

    if (first == NULL || vsock->device.paused)
        event_timer_cancel(&vsock->patience);
    else
        event_timer_set(vsock->device.loop, &vsock->patience, first->deadline_us);
}

/* --- Making and freeing --- */

static uint32_t choose_buffer_size(struct vsock *vsock, uint16_t type)
{
    if (type == VIRTIO_VSOCK_TYPE_SEQPACKET)
        return VSOCK_BUFFER_MESSAGES;
    if (vsock->buffers_given + VSOCK_BUFFER_LARGE > VSOCK_BUFFERS_BUDGET)
        return VSOCK_BUFFER_SMALL;
    vsock->buffers_given += VSOCK_BUFFER_LARGE;
    return VSOCK_BUFFER_LARGE;
}

struct vsock_connection *vsock_connection_new(struct vsock *vsock, uint16_t type, enum vsock_state state)
{
    struct vsock_connection *connection =
        vsock->connection_count < VSOCK_CONNECTIONS_MAX ? calloc(1, sizeof(*connection)) : NULL;

    if (connection == NULL)
        return NULL;
    connection->vsock = vsock;
    connection->type = type;
    connection->state = state;
    connection->socket.fd = -1;
    connection->batch = 1;
    connection->buffer_size = choose_buffer_size(vsock, type);
    list_append(&vsock->connections, &connection->all);
    METRIC_INCREMENT(vsock.conns_added);
    vsock->connection_count++;
    if (is_full(vsock)) {
        vsock_listeners_update(vsock);
        patience_set(vsock);
    }
    return connection;
}

static void close_socket(struct vsock_connection *connection)
{
    event_source_close(&connection->socket);
    connection->readable = false;
    vsock_output_drop(connection);
}

void vsock_connection_free(struct vsock_connection *connection)
{
    struct vsock *vsock = connection->vsock;

    close_socket(connection);
    leave_table(connection);
    list_remove(&connection->all);
    list_remove(&connection->pending);
    list_remove(&connection->waiting);
    if (vsock->message.connection == connection)
        vsock->message.connection = NULL;
    if (vsock->called == connection)
        vsock->called = NULL;
    if (connection->buffer_size == VSOCK_BUFFER_LARGE)
        vsock->buffers_given -= VSOCK_BUFFER_LARGE;
    free(connection);
    METRIC_INCREMENT(vsock.conns_removed);
    if (vsock->connection_count-- == VSOCK_CONNECTIONS_MAX)
        vsock_listeners_update(vsock);
}

void vsock_connections_free(struct vsock *vsock)
{
    while (!list_is_empty(&vsock->connections))
        vsock_connection_free(list_first(&vsock->connections, struct vsock_connection, all));
    event_timer_cancel(&vsock->patience);
}

/* --- Their time --- */

/* Everybody has the same time, so the lists are in the order of the deadlines. */
void vsock_connection_expect(struct vsock_connection *connection)
{
    struct vsock *vsock = connection->vsock;

    list_remove(&connection->waiting);
    connection->deadline_us = clock_monotonic_us() + VSOCK_PATIENCE_US;
    list_append(connection->state == VSOCK_GREETING ? &vsock->greeting : &vsock->expiring, &connection->waiting);
    if (vsock->patience.loop == NULL || is_full(vsock))
        patience_set(vsock);
}

/* The guest never heard of a host peer that has not said anything. */
static void expire(struct vsock_connection *connection)
{
    METRIC_INCREMENT(vsock.conns_killed);
    if (connection->state == VSOCK_GREETING) {
        vsock_connection_free(connection);
        return;
    }
    vsock_connection_abort(connection);
    vsock_connection_settle(connection);
}

void vsock_connections_expire(struct vsock *vsock)
{
    uint64_t now = clock_monotonic_us();

    for (struct vsock_connection *first; (first = first_to_expire(vsock)) != NULL && first->deadline_us <= now;)
        expire(first);
    patience_set(vsock);
}

/* --- The host socket --- */

/* What the peer sent before it hung up is still to be read. */
static void hang_up(struct vsock_connection *connection)
{
    connection->hung_up = true;
    connection->host_takes_no_more = true;
    connection->readable = true;
    vsock_output_drop(connection);
}

static bool input_may_come(const struct vsock_connection *connection)
{
    return connection->state == VSOCK_ESTABLISHED && !connection->host_sends_no_more &&
           !connection->guest_takes_no_more;
}

/* Input is told of once, when it comes: until it is read, `readable` says so, and nothing has to be armed again. */
#define INPUT_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)

static void watch(struct vsock_connection *connection)
{
    if (connection->vsock->called != connection)
        event_source_update(&connection->socket, INPUT_EVENTS | (vsock_output_waits(connection) ? EPOLLOUT : 0u));
}

static void socket_ready(struct event_source *source, uint32_t events)
{
    struct vsock_connection *connection = container_of(source, struct vsock_connection, socket);
    struct vsock *vsock = connection->vsock;

    vsock->called = connection;
    if ((events & (EPOLLHUP | EPOLLERR)) != 0)
        hang_up(connection);
    if ((events & EPOLLRDHUP) != 0)
        connection->input_ends = true;
    if ((events & EPOLLIN) != 0)
        connection->readable = true;
    if (connection->state == VSOCK_GREETING) {
        vsock_greeting_read(connection);
    } else {
        if ((events & EPOLLOUT) != 0 && !vsock_output_flush(connection))
            vsock_connection_abort(connection);
        vsock_connection_settle(connection);
    }
    vsock_receive(vsock);
    if (vsock->called == connection) {
        vsock->called = NULL;
        watch(connection);
    }
}

bool vsock_connection_attach(struct vsock_connection *connection, int fd)
{
    connection->socket.fd = fd;
    connection->socket.ready = socket_ready;

    struct error *error = event_source_add(connection->vsock->device.loop, &connection->socket, INPUT_EVENTS);
    if (error == NULL)
        return true;
    log_warning("vsock: %s", error->message);
    error_free(error);
    fd_close(&connection->socket.fd);
    return false;
}

/* --- Connecting to the host --- */

/* 0, or -errno; -EAGAIN: try again. */
static int connect_to_host(struct vsock_connection *connection)
{
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    int type = connection->type == VIRTIO_VSOCK_TYPE_STREAM ? SOCK_STREAM : SOCK_SEQPACKET;
    int length = snprintf(path, sizeof(path), "%s_%u", connection->vsock->uds_path, connection->host_port);

    if (length >= (int)sizeof(path)) {
        log_warning("vsock: no Unix socket can have the path of host port %u, %d bytes long", connection->host_port,
                    length);
        return -ENAMETOOLONG;
    }

    int fd = unix_socket_connect(path, type);
    if (fd < 0)
        return fd;
    return vsock_connection_attach(connection, fd) ? 0 : -EIO;
}

/* What became of the attempt; true when there will be no other. */
static bool connect_step(struct vsock_connection *connection)
{
    int result = connect_to_host(connection);

    if (result == -EAGAIN && clock_monotonic_us() < connection->deadline_us)
        return false;
    list_remove(&connection->waiting);
    if (result == 0) {
        connection->state = VSOCK_ESTABLISHED;
        connection->owes = VSOCK_OWES_RESPONSE;
    } else {
        log_debug("vsock: host port %u is not reached: %s", connection->host_port, strerror(-result));
        vsock_connection_abort(connection);
    }
    vsock_connection_settle(connection);
    return true;
}

static void retry_set(struct vsock *vsock)
{
    if (!list_is_empty(&vsock->connecting) && vsock->retry.loop == NULL)
        event_timer_set(vsock->device.loop, &vsock->retry, clock_monotonic_us() + RETRY_US);
}

void vsock_connections_retry(struct vsock *vsock)
{
    /* Those that fail again stay in front: the rest would hardly fare better. */
    while (!list_is_empty(&vsock->connecting))
        if (!connect_step(list_first(&vsock->connecting, struct vsock_connection, waiting)))
            break;
    retry_set(vsock);
}

void vsock_connection_request(struct vsock *vsock, const struct virtio_vsock_hdr *header)
{
    struct vsock_connection *connection = vsock_connection_new(vsock, header->type, VSOCK_CONNECTING);

    if (connection == NULL) {
        vsock_refuse(vsock, header->src_port, header->dst_port, header->type);
        return;
    }
    vsock_connection_enter(connection, header->src_port, header->dst_port);
    connection->guest_buffer_size = header->buf_alloc;
    connection->guest_forwarded = header->fwd_cnt;
    connection->deadline_us = clock_monotonic_us() + CONNECT_PATIENCE_US;
    list_append(&vsock->connecting, &connection->waiting);
    if (!connect_step(connection))
        retry_set(vsock);
}

/* --- The end, and what leads there --- */

void vsock_connection_abort(struct vsock_connection *connection)
{
    close_socket(connection);
    list_remove(&connection->waiting);
    connection->state = VSOCK_DEAD;
    connection->owes = VSOCK_OWES_RST;
}

/* What is over in one direction ends it in the other peer's eyes, too. */
static void pass_ends_on(struct vsock_connection *connection)
{
    /* Nobody will read on to the end of its input. */
    if (connection->hung_up && connection->guest_takes_no_more)
        connection->host_sends_no_more = true;

    uint8_t told = (uint8_t)((connection->host_sends_no_more ? VIRTIO_VSOCK_SHUTDOWN_SEND : 0) |
                             (connection->host_takes_no_more ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0));

    if (connection->guest_sends_no_more && connection->guest_takes_no_more && connection->output.used == 0) {
        vsock_connection_abort(connection);
        return;
    }
    if (told == SHUTDOWN_BOTH) {
        close_socket(connection);
        connection->state = VSOCK_CLOSING;
        vsock_connection_expect(connection);
    }
    if ((told & ~connection->told_shutdown) != 0)
        connection->owes |= VSOCK_OWES_SHUTDOWN;
    if (connection->socket.fd < 0)
        return;
    if (connection->guest_sends_no_more && connection->output.used == 0 && !connection->host_told_end) {
        connection->host_told_end = true;
        shutdown(connection->socket.fd, SHUT_WR);
    }
    if (connection->guest_takes_no_more && !connection->host_told_close) {
        connection->host_told_close = true;
        shutdown(connection->socket.fd, SHUT_RD);
    }
}

/* Half of what the guest may send has become free since it was last told how much that is (5.10.6.3). */
static bool credit_is_worth_telling(const struct vsock_connection *connection)
{
    return connection->forwarded - connection->told_forwarded >= connection->buffer_size / 2;
}

bool vsock_connection_has_input(const struct vsock_connection *connection)
{
    uint32_t credit = vsock_credit(connection);

    return input_may_come(connection) && connection->readable && credit > 0 && credit >= connection->next_length;
}

/* Asks for credit, once, when that is all that is missing. */
static bool has_something_for_guest(struct vsock_connection *connection)
{
    if (connection->owes != 0 || vsock_connection_has_input(connection))
        return true;
    if (!input_may_come(connection) || !connection->readable || connection->asked_for_credit)
        return false;
    connection->asked_for_credit = true;
    connection->owes |= VSOCK_OWES_CREDIT_REQUEST;
    return true;
}

void vsock_connection_settle(struct vsock_connection *connection)
{
    struct vsock *vsock = connection->vsock;

    /* The peer left before the guest answered. */
    if (connection->state == VSOCK_REQUESTED && connection->hung_up) {
        if (!connection->request_sent) {
            vsock_connection_free(connection);
            return;
        }
        vsock_connection_abort(connection);
    }
    if (connection->state == VSOCK_ESTABLISHED)
        pass_ends_on(connection);
    if (connection->state == VSOCK_ESTABLISHED && credit_is_worth_telling(connection))
        connection->owes |= VSOCK_OWES_CREDIT;
    if (!has_something_for_guest(connection))
        list_remove(&connection->pending);
    else if (!list_is_linked(&connection->pending))
        list_append(&vsock->pending, &connection->pending);
    watch(connection);
}
