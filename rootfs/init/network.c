#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESOLVERS "/etc/resolv.conf"
#define OWN_RESOLVERS "/run/mayfly-resolv.conf"

/* Digits only, up to the end of the text. */
static bool bits_parse(const char *text, struct in_addr *mask)
{
    char *end;
    unsigned long bits = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || bits < 1 || bits > 32) {
        return false;
    }
    mask->s_addr = htonl(UINT32_MAX << (32 - bits));
    return true;
}

bool network_parse(struct network *network, const char *text)
{
    char copy[128];
    char *rest = copy;
    char *fields[4] = {NULL};
    char *bits;
    size_t count = 0;

    *network = (struct network){0};
    if (strlen(text) >= sizeof(copy)) {
        return false;
    }
    strcpy(copy, text);
    while (rest != NULL) {
        if (count == 4) {
            return false;
        }
        fields[count++] = strsep(&rest, ",");
    }
    bits = count < 2 ? NULL : strchr(fields[1], '/');
    if (bits == NULL || *fields[0] == '\0' || strlen(fields[0]) >= sizeof(network->interface)) {
        return false;
    }
    *bits++ = '\0';
    strcpy(network->interface, fields[0]);
    return inet_pton(AF_INET, fields[1], &network->address) == 1 && bits_parse(bits, &network->mask) &&
           (fields[2] == NULL || inet_pton(AF_INET, fields[2], &network->gateway) == 1) &&
           (fields[3] == NULL || inet_pton(AF_INET, fields[3], &network->dns) == 1);
}

static struct sockaddr_in internet(struct in_addr address)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = address};
}

static int interface_up(int fd, const struct network *network)
{
    struct ifreq request = {0};
    struct sockaddr_in address = internet(network->address);
    struct sockaddr_in mask = internet(network->mask);

    strcpy(request.ifr_name, network->interface);
    memcpy(&request.ifr_addr, &address, sizeof(address));
    if (ioctl(fd, SIOCSIFADDR, &request) != 0) {
        return -1;
    }
    memcpy(&request.ifr_netmask, &mask, sizeof(mask));
    if (ioctl(fd, SIOCSIFNETMASK, &request) != 0 || ioctl(fd, SIOCGIFFLAGS, &request) != 0) {
        return -1;
    }
    request.ifr_flags |= IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, &request);
}

static int route_add(int fd, const struct network *network)
{
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct sockaddr_in any = internet((struct in_addr){0});
    struct sockaddr_in gateway = internet(network->gateway);

    memcpy(&route.rt_dst, &any, sizeof(any));
    memcpy(&route.rt_genmask, &any, sizeof(any));
    memcpy(&route.rt_gateway, &gateway, sizeof(gateway));
    return ioctl(fd, SIOCADDRT, &route);
}

/*
 * Something to mount on must be there. A link that leads into /run, as resolvconf and systemd have it, is made good in
 * our tmpfs there; a file is made only where that changes no image.
 */
static void resolvers_make_target(bool root_is_scratch)
{
    char link[PATH_MAX];
    ssize_t length = readlink(RESOLVERS, link, sizeof(link) - 1);
    bool into_run;
    int fd;

    link[length > 0 ? length : 0] = '\0';
    into_run = strncmp(link, "/run/", 5) == 0 || strncmp(link, "../run/", 7) == 0;
    if (into_run) {
        for (char *at = strchr(link + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
            char made[PATH_MAX + 8];

            snprintf(made, sizeof(made), "/etc/%.*s", (int)(at - link), link);
            (void)mkdir(link[0] == '/' ? made + 4 : made, 0755);
        }
    }
    if (into_run || (root_is_scratch && length < 0)) {
        fd = open(RESOLVERS, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        close(fd);
    }
}

/* A resolver that cannot be told of costs names, not the command: that is said. */
static void resolvers_set(const struct network *network, bool root_is_scratch)
{
    char text[64];
    char address[INET_ADDRSTRLEN];
    int length;
    int fd = open(OWN_RESOLVERS, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    inet_ntop(AF_INET, &network->dns, address, sizeof(address));
    length = snprintf(text, sizeof(text), "nameserver %s\n", address);
    if (fd < 0 || write(fd, text, (size_t)length) != length) {
        console_say("cannot write " OWN_RESOLVERS);
    }
    close(fd);
    resolvers_make_target(root_is_scratch);
    if (mount(OWN_RESOLVERS, RESOLVERS, NULL, MS_BIND, NULL) != 0) {
        snprintf(text, sizeof(text), "no name server: " RESOLVERS ": %s", strerror(errno));
        console_say(text);
    }
}

int network_up(const char *text, bool root_is_scratch, struct failure *failure)
{
    struct network network;
    int fd;
    int rc = -1;

    if (!network_parse(&network, text)) {
        return failure_set(failure, FAILURE_OTHER,
                           "mayfly.net=%s: expected INTERFACE,ADDRESS/BITS, and perhaps ,GATEWAY and ,DNS", text);
    }
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || interface_up(fd, &network) != 0) {
        failure_errno(failure, "cannot set up the network interface %s", network.interface);
    } else if (network.gateway.s_addr != 0 && route_add(fd, &network) != 0) {
        failure_errno(failure, "cannot route by way of the gateway in mayfly.net=%s", text);
    } else {
        rc = 0;
    }
    close(fd);
    if (rc == 0 && network.dns.s_addr != 0) {
        resolvers_set(&network, root_is_scratch);
    }
    return rc;
}
