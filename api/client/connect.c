#include "api/client/connect.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum {
    /* Between bind and listen nothing can be waited for; the gap is some microseconds wide. */
    LISTEN_GAP_US = 100,
    /*
     * A VMM listens half a millisecond after its start, and closing an inotify descriptor waits for a grace period of
     * the kernel's, 5 to 15 ms. So the socket is looked for again and again at first, and watched for after that.
     */
    LOOK_FOR_US = 20000,
    LOOK_EVERY_US = 20,
    FOLDER_EVERY_US = 500,
};

static struct error *connect_once(const struct sockaddr_un *address, int *fd)
{
    cleanup_fd int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (made < 0)
        return error_errno(errno, "cannot make a socket");
    if (connect(made, (const struct sockaddr *)address, sizeof(*address)) != 0)
        return error_errno(errno, "cannot connect to %s", address->sun_path);
    *fd = take_fd(&made);
    return NULL;
}

/* Watches the directory that `path` will appear in. */
static struct error *watch_directory(const char *path, int *watch)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    cleanup_fd int made = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    if (made < 0)
        return error_errno(errno, "inotify_init1");
    if (length >= sizeof(directory))
        return error_new(ERROR_INPUT, "socket path %s is too long", path);
    memcpy(directory, slash == NULL ? "." : path, length);
    directory[length] = '\0';
    if (inotify_add_watch(made, directory, IN_CREATE | IN_MOVED_TO) < 0)
        return error_errno(errno, "cannot watch %s", directory);
    *watch = take_fd(&made);
    return NULL;
}

static bool process_ended(int process_fd)
{
    struct pollfd process = {.fd = process_fd, .events = POLLIN};

    return process_fd >= 0 && poll(&process, 1, 0) > 0;
}

struct error *socket_connect_when_ready(const char *path, int process_fd, uint64_t deadline_us, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int watch = -1;
    uint64_t watch_from_us = clock_monotonic_us() + LOOK_FOR_US;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_new(ERROR_INPUT, "socket path %s has %zu bytes, a Unix socket takes at most %zu", path,
                         strlen(path), sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path));
    for (;;) {
        char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        struct error *error = connect_once(&address, fd);
        uint64_t now = clock_monotonic_us();
        uint64_t wait_us = now < deadline_us ? deadline_us - now : 0;

        if (error == NULL || (error->code != ENOENT && error->code != ECONNREFUSED))
            return error;
        if (process_ended(process_fd)) {
            error_free(error);
            return error_new(ERROR_HOST, "the process ended before it listened on %s", path);
        }
        if (wait_us == 0)
            return error;
        if (error->code == ECONNREFUSED && wait_us > LISTEN_GAP_US)
            wait_us = LISTEN_GAP_US;
        error_free(error);
        if (now < watch_from_us) {
            nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_US * 1000}, NULL);
            continue;
        }
        if (watch < 0) {
            error = watch_directory(path, &watch);
            if (error != NULL && error->code != ENOENT)
                return error;
            if (error != NULL) { /* a jail's folder is made by the process, too */
                error_free(error);
                nanosleep(&(struct timespec){.tv_nsec = FOLDER_EVERY_US * 1000}, NULL);
            }
            continue; /* it may have come before we watched */
        }
        struct pollfd wait[] = {{.fd = watch, .events = POLLIN}, {.fd = process_fd, .events = POLLIN}};
        struct timespec timeout = {(time_t)(wait_us / 1000000), (long)(wait_us % 1000000) * 1000};

        ppoll(wait, 2, &timeout, NULL);
        while (read(watch, events, sizeof(events)) > 0)
            ;
    }
}
