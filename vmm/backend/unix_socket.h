/* Unix sockets that the VMM listens on or connects to for a device. Messages begin with the quoted path. */
#pragma once

#include <sys/types.h>

#include "vmm/base/error.h"

/* A socket file that we bound: what its removal must find there, to remove no other. */
struct unix_socket_file {
    dev_t device;
    ino_t inode; /* 0: nothing bound */
};

/* Refuses a path that no Unix socket can have. */
struct error *unix_socket_check_path(const char *path);

/*
 * Binds and listens at `path` (of a checked length), mode 0600, non-blocking; `type` is SOCK_STREAM or SOCK_SEQPACKET.
 * A socket file that nobody has bound is replaced. On failure the file that was bound, if any, is removed again.
 */
struct error *unix_socket_listen(const char *path, int type, int backlog, int *fd, struct unix_socket_file *file);

/* Removes the file at `path` if it is still the one that was bound. */
void unix_socket_remove(const char *path, const struct unix_socket_file *file);

/* Connects without waiting. Returns a non-blocking descriptor, or -errno; -EAGAIN: the listener's backlog is full. */
int unix_socket_connect(const char *path, int type);
