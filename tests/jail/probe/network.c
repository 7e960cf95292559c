/* Sockets of all families. */
#include "tests/jail/probe/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int attempt_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(22), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return fd < 0 ? errno : stopped(connect(fd, (struct sockaddr *)&address, sizeof(address)));
}

static int attempt_udp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(0x08080808)}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    return fd < 0 ? errno : stopped(sendto(fd, "x", 1, 0, (struct sockaddr *)&address, sizeof(address)));
}

static int attempt_raw_socket(void)
{
    return stopped(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static int attempt_packet_socket(void)
{
    return stopped(socket(AF_PACKET, SOCK_RAW, 0));
}

static int attempt_vsock(void)
{
    return stopped(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static int attempt_netlink(void)
{
    return stopped(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int attempt_abstract_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0mayfly-jail-test"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    return fd < 0 ? errno
                  : stopped(connect(fd, (struct sockaddr *)&address,
                                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof("mayfly-jail-test"))));
}

const struct command attempts_on_the_network[] = {
    {"tcp", attempt_tcp},
    {"udp", attempt_udp},
    {"raw-socket", attempt_raw_socket},
    {"packet-socket", attempt_packet_socket},
    {"vsock", attempt_vsock},
    {"netlink", attempt_netlink},
    {"abstract-socket", attempt_abstract_socket},
    {NULL, NULL},
};
