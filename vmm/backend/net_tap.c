#include "vmm/backend/net_backend.h"

#include "vmm/backend/tap.h"
#include "vmm/base/cleanup.h"

#include <errno.h>

_Static_assert((int)NET_HEADER_SIZE == (int)TAP_HEADER_SIZE, "the tap's header is the device's");

static int tap_send(struct net_backend *backend, const struct iovec *iov, size_t count, size_t size)
{
    (void)size;
    return writev(backend->fd, iov, (int)count) < 0 ? -errno : 0;
}

/* A byte of our own behind the buffers would tell that a frame was cut: the caller gives it. */
static ssize_t tap_receive(struct net_backend *backend, const struct iovec *iov, size_t count)
{
    ssize_t size = readv(backend->fd, iov, (int)count);

    if (size == 0)
        return -ENOTCONN;
    return size < 0 ? -errno : size;
}

static bool set_offloads(struct net_backend *backend, unsigned offloads)
{
    return tap_set_offloads(backend->fd, offloads);
}

static bool attach(struct net_backend *backend, bool attached)
{
    return tap_attach_queue(backend->fd, attached);
}

static void tap_close(struct net_backend *backend)
{
    fd_close(&backend->fd);
    free(backend);
}

static const struct net_backend_ops tap_ops = {
    .offloads = true,
    .frame_a_read = true,
    .send = tap_send,
    .receive = tap_receive,
    .set_offloads = set_offloads,
    .attach = attach,
    .close = tap_close,
};

struct net_backend *net_tap_new(int fd)
{
    struct net_backend *backend = calloc(1, sizeof(*backend));

    if (backend != NULL)
        *backend = (struct net_backend){.ops = &tap_ops, .fd = fd};
    return backend;
}
