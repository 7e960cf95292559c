#include "vmm/backend/port_backend.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>

struct port_file {
    struct port_backend backend;
    struct event_loop *loop;
    struct event_source source; /* added only while a full FIFO is waited for: epoll refuses regular files */
};

static struct port_file *file_of(const struct port_backend *backend)
{
    return container_of(backend, struct port_file, backend);
}

static bool file_is_open(const struct port_backend *backend)
{
    (void)backend;
    return true;
}

static ssize_t file_readv(struct port_backend *backend, const struct iovec *iov, size_t count)
{
    (void)backend;
    (void)iov;
    (void)count;
    return -EAGAIN;
}

static ssize_t file_writev(struct port_backend *backend, const struct iovec *iov, size_t count)
{
    ssize_t written = writev(file_of(backend)->source.fd, iov, (int)count);

    return written < 0 ? -errno : written;
}

static void file_ready(struct event_source *source, uint32_t events)
{
    struct port_file *file = container_of(source, struct port_file, source);

    (void)events;
    file->backend.changed(file->backend.owner);
}

static void file_watch(struct port_backend *backend, bool input, bool output)
{
    struct port_file *file = file_of(backend);

    (void)input;
    if (!output) {
        event_source_remove(&file->source);
    } else if (file->source.loop == NULL) {
        /* Only what can be full is watched, and epoll takes all of that; without memory the guest's next write asks
         * again. */
        error_free(event_source_add(file->loop, &file->source, EPOLLOUT));
    }
}

static void file_destroy(struct port_backend *backend)
{
    struct port_file *file = file_of(backend);

    event_source_remove(&file->source);
    fd_close(&file->source.fd);
    free(file);
}

static const struct port_backend_ops file_ops = {
    .is_open = file_is_open,
    .readv = file_readv,
    .writev = file_writev,
    .watch = file_watch,
    .destroy = file_destroy,
};

/*
 * Opening a FIFO for writing fails until it has a reader (fifo(7)); as its own reader for a moment it does not. The
 * descriptor that stays is no reader, so that EPIPE tells a reader's absence from its slowness.
 */
static int file_open(const char *path)
{
    const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
    int fd = open(path, flags, 0600);

    if (fd >= 0 || errno != ENXIO)
        return fd;

    cleanup_fd int reader = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    return reader < 0 ? -1 : open(path, flags, 0600);
}

struct error *port_file_new(const char *path, struct event_loop *loop, struct port_backend **backend)
{
    cleanup_fd int fd = file_open(path);
    if (fd < 0)
        return error_errno(errno, "\"%s\": cannot open for appending", path);

    struct port_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return error_errno(ENOMEM, "\"%s\": cannot make the port", path);
    file->backend.ops = &file_ops;
    file->loop = loop;
    file->source.fd = take_fd(&fd);
    file->source.ready = file_ready;
    *backend = &file->backend;
    return NULL;
}
