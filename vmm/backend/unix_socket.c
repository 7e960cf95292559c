#include "vmm/backend/unix_socket.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { PATH_LENGTH_MAX = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1 };

struct error *unix_socket_check_path(const char *path)
{
    size_t length = strlen(path);

    if (length >= 1 && length <= PATH_LENGTH_MAX)
        return NULL;
    return error_new(ERROR_INPUT, "\"%s\" has %zu bytes: the path of a Unix socket has 1 to %d", path, length,
                     PATH_LENGTH_MAX);
}

static void address_set(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, path, strlen(path) + 1);
}

/*
 * Removes a socket file that nobody has bound any more. The probe is of another type than the listeners: whoever has
 * the socket hears nothing of it, and connect(2) still tells EPROTOTYPE from ECONNREFUSED.
 */
static struct error *stale_remove(const struct sockaddr_un *address)
{
    struct stat status;

    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? NULL : error_errno(errno, "\"%s\": cannot look at it", address->sun_path);
    if (!S_ISSOCK(status.st_mode))
        return error_new(ERROR_INPUT, "\"%s\" exists and is not a socket", address->sun_path);

    cleanup_fd int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return error_errno(errno, "\"%s\": cannot make a socket", address->sun_path);
    if (connect(probe, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EPROTOTYPE)
        return error_new(ERROR_INPUT, "\"%s\": another process listens there", address->sun_path);
    if (errno != ECONNREFUSED)
        return error_errno(errno, "\"%s\" exists, and it cannot be told whether somebody listens", address->sun_path);
    if (unlink(address->sun_path) < 0 && errno != ENOENT)
        return error_errno(errno, "\"%s\": cannot remove the socket left there", address->sun_path);
    return NULL;
}

/* The mode is set on the socket, before its file is there: nobody else gets a chance to connect. */
struct error *unix_socket_listen(const char *path, int type, int backlog, int *fd, struct unix_socket_file *file)
{
    struct sockaddr_un address;
    struct stat status;

    *file = (struct unix_socket_file){0};
    address_set(&address, path);
    struct error *error = stale_remove(&address);
    if (error != NULL)
        return error;

    cleanup_fd int made = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0 || fchmod(made, 0600) < 0 || bind(made, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return error_errno(errno, "\"%s\": cannot make a socket there", path);
    if (lstat(path, &status) == 0)
        *file = (struct unix_socket_file){.device = status.st_dev, .inode = status.st_ino};
    if (listen(made, backlog) < 0) {
        error = error_errno(errno, "\"%s\": cannot listen there", path);
        unix_socket_remove(path, file);
        return error;
    }
    *fd = take_fd(&made);
    return NULL;
}

void unix_socket_remove(const char *path, const struct unix_socket_file *file)
{
    struct stat status;

    if (file->inode != 0 && lstat(path, &status) == 0 && status.st_dev == file->device && status.st_ino == file->inode)
        unlink(path);
}

int unix_socket_connect(const char *path, int type)
{
    struct sockaddr_un address;

    if (strlen(path) > PATH_LENGTH_MAX)
        return -ENAMETOOLONG;
    address_set(&address, path);

    cleanup_fd int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return take_fd(&fd);
}
