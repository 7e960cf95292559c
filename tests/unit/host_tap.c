#include "tests/unit/harness.h"

#include "tests/unit/host_tap.h"

#include "vmm/base/clock.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_US = 20000000 };
/* IF_OPER_UP of <linux/if.h>, which does not go together with <net/if.h>. */
enum { OPERATIONAL = 6 };

struct link_request {
    struct nlmsghdr header;
    struct ifinfomsg link;
};

static void set_name(struct ifreq *request, const char *name)
{
    assert_true(strlen(name) < sizeof(request->ifr_name));
    strcpy(request->ifr_name, name);
}

int host_tap_open(const char *name, int flags, bool persistent)
{
    struct ifreq request = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | flags)};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    set_name(&request, name);
    if (fd >= 0 && (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETPERSIST, persistent) < 0))
        fd_close(&fd);
    return fd;
}

void host_link_set(const char *name, bool up)
{
    struct ifreq request = {.ifr_flags = (short)(up ? IFF_UP : 0)};
    cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    set_name(&request, name);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
}

/* The answer of the kernel to a request about the link `name`. */
static size_t ask(int netlink, const char *name, uint16_t type, uint16_t flags, uint8_t *answer, size_t size)
{
    const struct link_request request = {
        .header = {.nlmsg_len = sizeof(request), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags},
        .link = {.ifi_index = (int)if_nametoindex(name)}};

    assert_int_equal(send(netlink, &request, sizeof(request), 0), sizeof(request));
    ssize_t length = recv(netlink, answer, size, 0);
    assert_true(length > 0);
    return (size_t)length;
}

static uint8_t operational_state(int netlink, const char *name)
{
    uint8_t answer[16384];
    size_t length = ask(netlink, name, RTM_GETLINK, 0, answer, sizeof(answer));
    struct rtattr attribute;

    for (size_t at = sizeof(struct link_request); at + sizeof(attribute) < length; at += RTA_ALIGN(attribute.rta_len)) {
        memcpy(&attribute, answer + at, sizeof(attribute));
        if (attribute.rta_type == IFLA_OPERSTATE)
            return answer[at + sizeof(attribute)];
        assert_true(attribute.rta_len >= sizeof(attribute));
    }
    fail_msg("the link has no operational state");
    return 0;
}

void host_tap_await(const char *name)
{
    const uint64_t deadline = clock_monotonic_us() + PATIENCE_US;
    cleanup_fd int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    assert_true(netlink >= 0);
    while (operational_state(netlink, name) != OPERATIONAL) {
        assert_true(clock_monotonic_us() < deadline);
        sched_yield();
    }
    /* State and queue change under one lock, which this takes as well. */
    host_link_set(name, true);
}

void host_tap_delete(const char *name)
{
    cleanup_fd int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    uint8_t answer[16384];

    assert_true(netlink >= 0);
    ask(netlink, name, RTM_DELLINK, NLM_F_ACK, answer, sizeof(answer));
    assert_int_equal(if_nametoindex(name), 0);
}

int host_packet_socket(const char *name, uint16_t ethertype)
{
    const struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ethertype), .sll_ifindex = (int)if_nametoindex(name)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ethertype));

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}
