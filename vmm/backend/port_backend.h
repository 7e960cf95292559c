/*
 * The host's end of a byte stream (a console port): where the guest's output goes and its input comes from. Runs with
 * the event loop's lock held.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"

struct port_backend;

struct port_backend_ops {
    /* Whether somebody is there whose end of input has not been read yet. */
    bool (*is_open)(const struct port_backend *backend);
    /* Reads what there is. Returns bytes, 0 at the end of input, -EAGAIN when there is none now, or another -errno. */
    ssize_t (*readv)(struct port_backend *backend, const struct iovec *iov, size_t count);
    /*
     * Writes without waiting, perhaps a part. Returns bytes, -EAGAIN when nobody can take more now (or nobody came
     * yet), -EPIPE when nobody is there any more, or another -errno.
     */
    ssize_t (*writev)(struct port_backend *backend, const struct iovec *iov, size_t count);
    /* Says which -EAGAIN the owner wants to hear the end of. Only that is watched: what nobody waits for costs nothing.
     */
    void (*watch)(struct port_backend *backend, bool input, bool output);
    void (*destroy)(struct port_backend *backend);
};

struct port_backend {
    const struct port_backend_ops *ops;
    /* Set by the owner: somebody came or went, or what is watched for has happened. */
    void (*changed)(void *owner);
    void *owner;
};

/*
 * Listens on a Unix stream socket at `path`, mode 0600, for one peer at a time; others wait in the backlog. Output
 * before the first peer waits for it; between peers nobody is there. A socket file that nobody has bound is replaced;
 * the file is removed when the backend is destroyed. Messages begin with the quoted path.
 */
struct error *port_socket_new(const char *path, struct event_loop *loop, struct port_backend **backend);

/*
 * Appends to the file, FIFO or character device at `path` (made with mode 0600 when missing); no input, always open.
 * A FIFO that nobody reads is no error: writing gives -EPIPE until somebody does, so the process must ignore or handle
 * SIGPIPE. A regular file takes `max` bytes, then nobody is there any more.
 */
struct error *port_file_new(const char *path, uint64_t max, struct event_loop *loop, struct port_backend **backend);
