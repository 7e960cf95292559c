#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/host_tap.h"
#include "tests/unit/settle.h"

#include "vmm/backend/tap.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/*
 * The network device on a tap of the kernel's, in a network namespace of its own. The host's end of the wire is a
 * packet socket on the tap, with virtio-net headers of its own (PACKET_VNET_HDR): what the device passes through shows
 * there unchanged.
 */

enum { RX, TX };
enum {
    HEADER = 12,
    PACKET_HEADER = sizeof(struct virtio_net_hdr), /* a packet socket's has no num_buffers */
    ETHERTYPE = 0x88b5,                            /* for local experiments: nobody else sends it */
    PATIENCE_MS = 20000,
};

#define TAP "mayfly0"
#define FEATURE(bit) (1ULL << (bit))
#define MERGEABLE FEATURE(VIRTIO_NET_F_MRG_RXBUF)
#define RX_GPA 0x200000ULL
#define TX_GPA 0x800000ULL
#define SLOT 0x4000ULL
#define SKIP_WITHOUT_TAP()                                                                                             \
    do {                                                                                                               \
        if (why_not[0] != '\0') {                                                                                      \
            print_message("skipped: %s\n", why_not);                                                                   \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

static char why_not[200];
static struct guest_driver driver;
static struct network_interface_config config;
static int host;
static uint8_t answer[70000];

/* The namespace and the tap in it. */

static void write_file(const char *path, const char *text)
{
    cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        print_message("%s: %s\n", path, strerror(errno));
}

static void delete_tap(void)
{
    int fd = host_tap_open(TAP, IFF_VNET_HDR, false);

    assert_true(fd >= 0);
    fd_close(&fd);
}

static void enter_namespace(void)
{
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        snprintf(why_not, sizeof(why_not), "no network namespace: %s", strerror(errno));
        return;
    }
    write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"); /* the host's own frames are only noise here */

    int fd = host_tap_open(TAP, 0, false);
    if (fd < 0)
        snprintf(why_not, sizeof(why_not), "no taps: %s", strerror(errno));
    fd_close(&fd);
}

static int packet_socket(void)
{
    int fd = host_packet_socket(TAP, ETH_P_ALL);
    int yes = 1;

    assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &yes, sizeof(yes)), 0);
    assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof(yes)), 0);
    return fd;
}

static int setup(void **state)
{
    (void)state;
    config = (struct network_interface_config){.iface_id = (char *)"eth0", .host_dev_name = (char *)TAP};
    memset(&metrics.net, 0, sizeof(metrics.net));
    host = -1;
    guest_driver_setup(&driver);
    if (why_not[0] == '\0') {
        int fd = host_tap_open(TAP, IFF_VNET_HDR, true);

        assert_true(fd >= 0);
        fd_close(&fd);
        host_link_set(TAP, true);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    fd_close(&host);
    if (why_not[0] == '\0' && if_nametoindex(TAP) != 0)
        delete_tap();
    return 0;
}

static void start(uint64_t features)
{
    struct virtio_device *device = NULL;

    assert_no_error(virtio_net_new(&config, driver.loop, &device));
    guest_driver_start(&driver, device, features);
    host_tap_await(TAP);
    host = packet_socket();
    guest_driver_settle(&driver);
}

/* Frames. */

/* A frame of `length` bytes for `header_size` bytes of virtio-net header before it. */
static size_t fill_plain(uint8_t *at, size_t header_size, size_t length)
{
    static const uint8_t ethernet[14] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, ETHERTYPE >> 8, ETHERTYPE & 0xff};

    memset(at, 0, header_size);
    memcpy(at + header_size, ethernet, sizeof(ethernet));
    for (size_t i = sizeof(ethernet); i < length; i++)
        at[header_size + i] = (uint8_t)(i * 5 + i / 256);
    return header_size + length;
}

static uint16_t sum(const void *data, size_t length, uint32_t total)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < length; i++)
        total += (uint32_t)bytes[i] << (i % 2 == 0 ? 8 : 0);
    while (total >> 16 != 0)
        total = (total & 0xffff) + (total >> 16);
    return htons((uint16_t)total);
}

/* A TCP segment with `payload` bytes that somebody else must cut into pieces of 1000, and sum up. */
static size_t fill_segment(uint8_t *at, size_t header_size, uint16_t payload)
{
    struct virtio_net_hdr header = {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
        .hdr_len = 14 + 20 + 20,
        .gso_size = 1000,
        .csum_start = 14 + 20,
        .csum_offset = offsetof(struct tcphdr, check),
    };
    struct iphdr ip = {
        .version = 4,
        .ihl = 5,
        .tot_len = htons((uint16_t)(40 + payload)),
        .ttl = 64,
        .protocol = IPPROTO_TCP,
        .saddr = htonl(0x0a000001),
        .daddr = htonl(0x0a000002),
    };
    struct tcphdr tcp = {.source = htons(1), .dest = htons(2), .doff = 5, .ack = 1, .window = htons(1000)};
    uint8_t *frame = at + header_size;

    fill_plain(at, header_size, 14 + 40 + (size_t)payload);
    frame[12] = ETHERTYPE_IP >> 8;
    frame[13] = ETHERTYPE_IP & 0xff;
    ip.check = (uint16_t)~sum(&ip, sizeof(ip), 0);
    tcp.check = sum(&ip.saddr, 8, (uint32_t)IPPROTO_TCP + 20 + payload); /* the pseudo header's part */
    memcpy(at, &header, sizeof(header));
    memcpy(frame + 14, &ip, sizeof(ip));
    memcpy(frame + 34, &tcp, sizeof(tcp));
    return header_size + 14 + 40 + payload;
}

static void guest_send(uint64_t gpa, size_t length)
{
    const struct guest_buffer buffer = {gpa, (uint32_t)length, false};

    guest_ring_add(&driver.rings[TX], &buffer, 1);
    guest_driver_notify(&driver, TX);
    assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
}

static size_t host_receive(void)
{
    struct pollfd ready = {.fd = host, .events = POLLIN};

    assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
    ssize_t length = recv(host, answer, sizeof(answer), 0);
    assert_true(length > 0);
    return (size_t)length;
}

static void give_buffers(unsigned count, uint32_t length)
{
    for (unsigned i = 0; i < count; i++) {
        const struct guest_buffer buffer = {RX_GPA + i * SLOT, length, true};

        guest_ring_add(&driver.rings[RX], &buffer, 1);
    }
    guest_driver_notify(&driver, RX);
}

/* The tap. */

static void assert_refused(enum error_kind kind, const char *text)
{
    struct virtio_device *device = NULL;

    assert_error(virtio_net_new(&config, driver.loop, &device), kind, text);
    assert_null(device);
}

static void test_missing_tap_is_an_error_and_is_not_made(void **state)
{
    (void)state;
    SKIP_WITHOUT_TAP();
    config.host_dev_name = (char *)"mayfly7";
    assert_refused(ERROR_INPUT, "host_dev_name: \"mayfly7\" is not a network interface");
    assert_int_equal(if_nametoindex("mayfly7"), 0);
    config.host_dev_name = (char *)"mayfly%d";
    assert_refused(ERROR_INPUT, "host_dev_name: \"mayfly%d\" is not a network interface");
}

static void test_name_that_no_interface_can_have_is_an_error(void **state)
{
    (void)state;
    config.host_dev_name = (char *)"";
    assert_refused(ERROR_INPUT, "host_dev_name: \"\" has 0 characters: expected 1 to 15");
    config.host_dev_name = (char *)"a-name-of-16-ch.";
    assert_refused(ERROR_INPUT, "host_dev_name: \"a-name-of-16-ch.\" has 16 characters");
}

static void test_interface_that_is_no_tap_is_an_error(void **state)
{
    (void)state;
    SKIP_WITHOUT_TAP();
    config.host_dev_name = (char *)"lo";
    assert_refused(ERROR_HOST, "host_dev_name: \"lo\" is not a tap");
}

static void test_tap_that_another_has_is_an_error(void **state)
{
    int fd;

    (void)state;
    SKIP_WITHOUT_TAP();
    fd = host_tap_open(TAP, IFF_VNET_HDR, true);
    assert_true(fd >= 0);
    assert_refused(ERROR_HOST, "host_dev_name: \"" TAP "\": another process has this tap");
    fd_close(&fd);
}

static void test_tap_is_free_again_when_the_device_is_gone(void **state)
{
    (void)state;
    SKIP_WITHOUT_TAP();
    for (unsigned i = 0; i < 2; i++) {
        struct virtio_device *device = NULL;

        assert_no_error(virtio_net_new(&config, driver.loop, &device));
        device->ops->destroy(device);
    }
}

/* Frames through it. */

static void test_frames_pass_both_ways(void **state)
{
    static uint8_t frame[2000];
    size_t length = fill_plain(frame, PACKET_HEADER, 1000);

    (void)state;
    SKIP_WITHOUT_TAP();
    start(0);
    give_buffers(2, 1526);
    assert_int_equal(send(host, frame, length, 0), (ssize_t)length);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + 1000);

    const uint8_t *received = guest_at(&driver.memory, RX_GPA, HEADER + 1000);
    assert_memory_equal(received + HEADER, frame + PACKET_HEADER, 1000);
    assert_int_equal(received[10], 1);

    guest_send(TX_GPA, fill_plain(guest_at(&driver.memory, TX_GPA, 2000), HEADER, 1514));
    assert_int_equal(host_receive(), PACKET_HEADER + 1514);
    assert_memory_equal(answer + PACKET_HEADER, guest_at(&driver.memory, TX_GPA + HEADER, 1514), 1514);
}

static void test_segment_of_the_guest_leaves_with_its_header(void **state)
{
    struct virtio_net_hdr header;
    size_t length;

    (void)state;
    SKIP_WITHOUT_TAP();
    start(FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_HOST_TSO4));
    length = fill_segment(guest_at(&driver.memory, TX_GPA, 0x10000), HEADER, 60000);
    guest_send(TX_GPA, length);
    assert_int_equal(host_receive(), length - 2);
    memcpy(&header, answer, sizeof(header));
    assert_int_equal(header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(header.gso_size, 1000);
    assert_int_equal(header.csum_start, 34);
    assert_memory_equal(answer + PACKET_HEADER, guest_at(&driver.memory, TX_GPA + HEADER, 60054), 60054);
}

static void test_segment_reaches_a_guest_that_agreed_whole(void **state)
{
    static uint8_t frame[70000], received[70000];
    size_t length = fill_segment(frame, PACKET_HEADER, 30000);
    size_t total = 0;
    struct virtio_net_hdr header;

    (void)state;
    SKIP_WITHOUT_TAP();
    start(MERGEABLE | FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4));
    give_buffers(100, 1526);
    assert_int_equal(send(host, frame, length, 0), (ssize_t)length);
    for (unsigned i = 0; i < 20; i++) {
        uint32_t used = guest_driver_wait_used(&driver, RX, NULL);

        memcpy(received + total, guest_at(&driver.memory, RX_GPA + i * SLOT, used), used);
        total += used;
    }
    assert_int_equal(total - HEADER, length - PACKET_HEADER);
    assert_memory_equal(received + HEADER, frame + PACKET_HEADER, length - PACKET_HEADER);
    memcpy(&header, received, sizeof(header));
    assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(header.gso_size, 1000);
    assert_int_equal(header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    assert_int_equal(received[10], 20);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 1);
}

static void test_segment_reaches_a_guest_that_did_not_agree_in_pieces(void **state)
{
    static uint8_t frame[70000];
    size_t length = fill_segment(frame, PACKET_HEADER, 5000);

    (void)state;
    SKIP_WITHOUT_TAP();
    start(0);
    give_buffers(8, 1526);
    assert_int_equal(send(host, frame, length, 0), (ssize_t)length);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + 54 + 1000);

        const uint8_t *received = guest_at(&driver.memory, RX_GPA + i * SLOT, HEADER + 1054);
        assert_int_equal(received[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
        assert_int_equal(received[1], VIRTIO_NET_HDR_GSO_NONE);
        /* The checksum was made on the way: the sum over pseudo header and segment is all ones. */
        assert_int_equal(sum(received + HEADER + 34, 1020, (uint32_t)ntohs(sum(received + HEADER + 26, 8, 6 + 1020))),
                         0xffff);
    }
}

static void test_offloads_of_the_last_driver_do_not_bind_the_next(void **state)
{
    static uint8_t frame[70000];
    size_t length = fill_segment(frame, PACKET_HEADER, 2000);

    (void)state;
    SKIP_WITHOUT_TAP();
    start(FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4));
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    give_buffers(8, 1526);
    assert_int_equal(send(host, frame, length, 0), (ssize_t)length);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + 1054);
}

static void test_header_that_contradicts_the_frame_is_malformed(void **state)
{
    struct virtio_net_hdr header = {.hdr_len = 2000};
    uint8_t *frame;
    size_t length;

    (void)state;
    SKIP_WITHOUT_TAP();
    start(0);
    frame = guest_at(&driver.memory, TX_GPA, 2000);
    length = fill_plain(frame, HEADER, 100);
    memcpy(frame, &header, sizeof(header));
    guest_send(TX_GPA, length);
    assert_int_equal(METRIC_TOTAL(net.tx_malformed_frames), 1);
    memset(frame, 0, HEADER);
    guest_send(TX_GPA, length);
    assert_int_equal(host_receive(), PACKET_HEADER + 100);
}

static void test_frames_to_a_tap_that_is_down_are_dropped(void **state)
{
    (void)state;
    SKIP_WITHOUT_TAP();
    start(0);
    give_buffers(2, 1526);
    host_link_set(TAP, false);
    guest_send(TX_GPA, fill_plain(guest_at(&driver.memory, TX_GPA, 2000), HEADER, 100));
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.tap_write_fails), 1);

    host_link_set(TAP, true);
    fd_close(&host);
    host = packet_socket();
    guest_send(TX_GPA, fill_plain(guest_at(&driver.memory, TX_GPA, 2000), HEADER, 100));
    assert_int_equal(host_receive(), PACKET_HEADER + 100);
}

static void test_tap_deleted_under_the_guest_is_not_polled(void **state)
{
    (void)state;
    SKIP_WITHOUT_TAP();
    start(0);
    give_buffers(2, 1526);
    host_tap_delete(TAP);
    guest_driver_settle(&driver);
    guest_send(TX_GPA, fill_plain(guest_at(&driver.memory, TX_GPA, 2000), HEADER, 100));
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.tx_fails), 1);
    assert_false(driver.failed);
}

#define tap_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        tap_test(test_missing_tap_is_an_error_and_is_not_made),
        tap_test(test_name_that_no_interface_can_have_is_an_error),
        tap_test(test_interface_that_is_no_tap_is_an_error),
        tap_test(test_tap_that_another_has_is_an_error),
        tap_test(test_tap_is_free_again_when_the_device_is_gone),
        tap_test(test_frames_pass_both_ways),
        tap_test(test_segment_of_the_guest_leaves_with_its_header),
        tap_test(test_segment_reaches_a_guest_that_agreed_whole),
        tap_test(test_segment_reaches_a_guest_that_did_not_agree_in_pieces),
        tap_test(test_offloads_of_the_last_driver_do_not_bind_the_next),
        tap_test(test_header_that_contradicts_the_frame_is_malformed),
        tap_test(test_frames_to_a_tap_that_is_down_are_dropped),
        tap_test(test_tap_deleted_under_the_guest_is_not_polled),
    };

    enter_namespace();
    test_filter_from_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
