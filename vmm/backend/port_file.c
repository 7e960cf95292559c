#include "vmm/backend/port_backend.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct port_file {
    struct port_backend backend;
    struct event_loop *loop;
    struct event_source source; /* added only while a full FIFO is waited for: epoll refuses regular files */
    uint64_t room;              /* bytes that it still takes; UINT64_MAX: any */
    char path[];
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
    struct port_file *file = file_of(backend);
    uint64_t room = file->room;
    size_t whole = 0;

    if (room == 0)
        return -EPIPE;
    while (whole < count && iov[whole].iov_len <= room)
        room -= iov[whole++].iov_len;

    const struct iovec part = {.iov_base = iov[0].iov_base, .iov_len = file->room};
    ssize_t written = whole > 0 ? writev(file->source.fd, iov, (int)whole) : writev(file->source.fd, &part, 1);
    if (written < 0)
        return -errno;
    if (file->room == UINT64_MAX)
        return written;
    file->room -= (uint64_t)written;
    if (file->room == 0)
        log_warning("console port \"%s\": the file has all that it takes; the guest's output is dropped from now on",
                    file->path);
    return written;
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

struct error *port_file_new(const char *path, uint64_t max, struct event_loop *loop, struct port_backend **backend)
{
    size_t length = strlen(path);
    struct stat status;
    cleanup_fd int fd = file_open(path);
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(errno, "\"%s\": cannot open for appending", path);

    struct port_file *file = calloc(1, sizeof(*file) + length + 1);
    if (file == NULL)
        return error_errno(ENOMEM, "\"%s\": cannot make the port", path);
    memcpy(file->path, path, length);
    file->room = S_ISREG(status.st_mode) ? max : UINT64_MAX;
    file->backend.ops = &file_ops;
    file->loop = loop;
    file->source.fd = take_fd(&fd);
    file->source.ready = file_ready;
    *backend = &file->backend;
    return NULL;
}
