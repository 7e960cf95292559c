#include "api/server.h"

#include "api/http.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <http_parser.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 10, BACKLOG = 128, ACCEPT_PAUSE_US = 100000 };

struct api_server {
    struct event_source listener;
    struct event_timer accept_again;
    int spare_fd; /* a descriptor that a caller gets when there are no more; -1: one has it */
    struct sockaddr_un address;
    bool has_peer_uid, has_group;
    uint32_t peer_uid, group;
    uint64_t start_time_us, start_time_cpu_us, parent_cpu_time_us;
    struct http_host host; /* ends with large buffers */
};

/* Publishes how long it took from the start of the process to its first reply. */
static void first_reply(struct http_host *host)
{
    struct api_server *server = container_of(host, struct api_server, host);

    host->served = NULL;
    if (server->start_time_us != 0)
        metrics.start_time_us = clock_monotonic_us() - server->start_time_us;
    metrics.start_time_cpu_us = clock_process_cpu_us() - server->start_time_cpu_us + server->parent_cpu_time_us;
}

#define FULL_TEXT "{\"error\":\"10 connections are open, no more can be\"}"
_Static_assert(CONNECTIONS_MAX == 10 && sizeof(FULL_TEXT) == 51 + 1, "as the text and its header say");

static void refuse_connection(int fd)
{
    static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nServer: Mayfly API\r\nConnection: close\r\n"
                               "Content-Type: application/json\r\nContent-Length: 51\r\n\r\n" FULL_TEXT;

    if (send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL) < 0)
        log_warning("a caller left before it was told that there are %d others", CONNECTIONS_MAX);
    close(fd);
}

/* Without descriptors or memory the listener would be ready for ever: leave it alone for a moment. */
static void pause_accepting(struct api_server *server, int code)
{
    log_error("cannot accept a connection: %s", strerror(code));
    event_source_update(&server->listener, 0);
    event_timer_set(server->host.loop, &server->accept_again, clock_monotonic_us() + ACCEPT_PAUSE_US);
}

static void accept_again(struct event_timer *timer)
{
    struct api_server *server = container_of(timer, struct api_server, accept_again);

    event_source_update(&server->listener, EPOLLIN);
}

static bool may_call(const struct api_server *server, int fd)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    if (!server->has_peer_uid)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == server->peer_uid)
        return true;
    log_warning("a process that is not of user %u called the API", server->peer_uid);
    return false;
}

/* A guest may take all that this process may have (a connection to a socket of the host has one): not from callers. */
static void keep_spare(struct http_host *host)
{
    struct api_server *server = container_of(host, struct api_server, host);

    if (server->spare_fd < 0)
        server->spare_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static int accept_caller(struct api_server *server)
{
    int fd = accept4(server->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0 || errno != EMFILE || server->spare_fd < 0)
        return fd;
    fd_close(&server->spare_fd);
    return accept4(server->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void listener_ready(struct event_source *source, uint32_t events)
{
    struct api_server *server = container_of(source, struct api_server, listener);
    int fd = accept_caller(server);

    (void)events;
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(server, errno);
        return;
    }
    if (!may_call(server, fd)) {
        close(fd);
        keep_spare(&server->host);
        return;
    }
    if (server->host.connection_count == CONNECTIONS_MAX) {
        refuse_connection(fd);
        keep_spare(&server->host);
        return;
    }

    cleanup_error struct error *error = http_connection_open(&server->host, fd);
    if (error != NULL)
        log_error("cannot serve a connection: %s", error->message);
}

/* Whether the socket at `address` belongs to nobody: connecting to it is refused. */
static bool socket_is_stale(const struct sockaddr_un *address)
{
    struct stat status;
    cleanup_fd int fd = -1;

    if (lstat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED;
}

static struct error *bind_socket(int fd, const struct sockaddr_un *address)
{
    const struct sockaddr *name = (const struct sockaddr *)address;

    if (bind(fd, name, sizeof(*address)) == 0)
        return NULL;
    if (errno == EADDRINUSE && socket_is_stale(address) && unlink(address->sun_path) == 0 &&
        bind(fd, name, sizeof(*address)) == 0)
        return NULL;
    if (errno == EADDRINUSE || errno == ECONNREFUSED)
        return error_new(ERROR_INPUT, "the API socket %s exists already, expected a path that is free",
                         address->sun_path);
    return error_errno(errno, "cannot make the API socket %s", address->sun_path);
}

static struct error *set_address(struct sockaddr_un *address, const char *path)
{
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof(address->sun_path))
        return error_new(ERROR_INPUT, "the API socket's path \"%.128s\" has %zu bytes, expected 1 to %zu", path, length,
                         sizeof(address->sun_path) - 1);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length + 1);
    return NULL;
}

/* The name has mode 0660 already; nobody can connect before somebody listens. */
static struct error *open_to_group(const struct api_server *server)
{
    const char *path = server->address.sun_path;

    if (!server->has_group)
        return NULL;
    if (lchown(path, (uid_t)-1, server->group) < 0)
        return error_errno(errno, "--api-sock-group: cannot open the API socket %s to group %u", path, server->group);
    return NULL;
}

/* Linux gives the name that bind makes the mode of the descriptor, so that it never stands open to others. */
static struct error *start_listening(struct api_server *server)
{
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct error *error;

    if (fd < 0 || fchmod(fd, server->has_group ? 0660 : 0600) < 0)
        return error_errno(errno, "cannot make a socket for the API");
    mode_t mask = server->has_group ? umask(0117) : 0;
    error = bind_socket(fd, &server->address);
    if (server->has_group)
        umask(mask);
    if (error != NULL)
        return error;
    server->listener.fd = fd;
    error = open_to_group(server);
    if (error == NULL && listen(fd, BACKLOG) < 0)
        error = error_errno(errno, "cannot listen on the API socket %s", server->address.sun_path);
    else if (error == NULL)
        error = event_source_add(server->host.loop, &server->listener, EPOLLIN);
    if (error != NULL)
        unlink(server->address.sun_path);
    else
        take_fd(&fd);
    return error;
}

struct error *api_server_new(struct event_loop *loop, struct machine *machine, const struct api_options *options,
                             struct api_server **server)
{
    /* As the machine: of an allocation malloc would touch the end, too. */
    struct api_server *made = mmap(NULL, sizeof(*made), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (made == MAP_FAILED)
        return error_errno(errno, "cannot make the API's server");
    made->host.loop = loop;
    made->host.context.machine = machine;
    made->host.context.app_name = options->app_name != NULL ? options->app_name : "Mayfly";
    made->host.max_payload = options->max_payload != 0 ? options->max_payload : API_MAX_PAYLOAD_DEFAULT;
    made->has_peer_uid = options->has_peer_uid;
    made->peer_uid = options->peer_uid;
    made->has_group = options->has_group;
    made->group = options->group;
    made->host.served = first_reply;
    made->host.closed = keep_spare;
    made->spare_fd = -1;
    made->listener = (struct event_source){.fd = -1, .ready = listener_ready};
    made->accept_again.expired = accept_again;
    made->start_time_us = options->start_time_us;
    made->start_time_cpu_us = options->start_time_cpu_us;
    made->parent_cpu_time_us = options->parent_cpu_time_us;
    http_parser_set_max_header_size(HTTP_HEADER_MAX);

    struct error *error = set_address(&made->address, options->socket_path);
    if (error == NULL)
        error = start_listening(made);
    if (error != NULL) {
        munmap(made, sizeof(*made));
        return error;
    }
    keep_spare(&made->host);
    *server = made;
    return NULL;
}

void api_server_free(struct api_server *server)
{
    if (server == NULL)
        return;
    http_close_all(&server->host);
    fd_close(&server->spare_fd);
    event_timer_cancel(&server->accept_again);
    event_source_remove(&server->listener);
    fd_close(&server->listener.fd);
    unlink(server->address.sun_path);
    munmap(server, sizeof(*server));
}
