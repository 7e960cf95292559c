#include "ports.h"

#include "../protocol.h"
#include "clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAMES_WAIT_NS 1000000000ull

/* virtio 1.3, 5.3: the device ID of a console, and its feature bit 1, VIRTIO_CONSOLE_F_MULTIPORT. */
#define VIRTIO_CONSOLE "0x0003"
#define FEATURE_MULTIPORT 1

/* Reads a short text file, NUL-terminated, without the newline at its end; -1 if there is none. */
static int text_read(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0) {
        return -1;
    }
    got = read(fd, text, size - 1);
    close(fd);
    if (got < 0) {
        return -1;
    }
    text[got] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return 0;
}

/* Whether there is a console device whose ports may still be about to appear. */
static bool multiport_exists(void)
{
    DIR *directory = opendir("/sys/bus/virtio/devices");
    struct dirent *entry;
    bool found = false;

    while (directory != NULL && !found && (entry = readdir(directory)) != NULL) {
        char path[300];
        char text[72];

        snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/device", entry->d_name);
        if (text_read(path, text, sizeof(text)) != 0 || strcmp(text, VIRTIO_CONSOLE) != 0) {
            continue;
        }
        snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/features", entry->d_name);
        found = text_read(path, text, sizeof(text)) == 0 && strlen(text) > FEATURE_MULTIPORT &&
                text[FEATURE_MULTIPORT] == '1';
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return found;
}

/* Fills in the ports that have a name by now; returns whether that is all of them. */
static bool ports_scan(struct ports *ports)
{
    static const char *const names[PORT_COUNT] = {
        [PORT_CONTROL] = PROTOCOL_PORT_CONTROL,
        [PORT_STDIN] = PROTOCOL_PORT_STDIN,
        [PORT_STDOUT] = PROTOCOL_PORT_STDOUT,
        [PORT_STDERR] = PROTOCOL_PORT_STDERR,
    };
    DIR *directory = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    int found = 0;

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        char path[300];
        char name[64];

        snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
        if (entry->d_name[0] == '.' || text_read(path, name, sizeof(name)) != 0) {
            continue;
        }
        for (int i = 0; i < PORT_COUNT; i++) {
            if (strcmp(name, names[i]) == 0) {
                snprintf(ports->paths[i], sizeof(ports->paths[i]), "/dev/%.20s", entry->d_name);
                found++;
            }
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return found == PORT_COUNT;
}

bool ports_find(struct ports *ports)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    uint64_t deadline = clock_boottime() + NAMES_WAIT_NS;
    bool found;
    int events;

    memset(ports, 0, sizeof(*ports));
    if (ports_scan(ports)) {
        return true;
    }
    if (!multiport_exists()) {
        return false;
    }
    /* The kernel tells each name in an event; listen first, then look, so that none is missed. */
    events = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(events);
        return ports_scan(ports);
    }
    while (!(found = ports_scan(ports))) {
        struct pollfd wait = {.fd = events, .events = POLLIN};
        uint64_t now = clock_boottime();
        char discard[64];

        if (now >= deadline || poll(&wait, 1, (int)((deadline - now) / 1000000) + 1) <= 0) {
            break;
        }
        while (recv(events, discard, sizeof(discard), 0) > 0) {
        }
    }
    close(events);
    return found;
}
