#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The network device on a stream socket; its other end is the test's. */

enum { HEADER = 12, PREFIX = 4, LONGEST = 65550, SENT_MAX = 65535 };

#define RX_GPA 0x200000ULL
#define TX_GPA 0x800000ULL
#define SLOT 0x4000ULL

static struct guest_driver driver;
static struct network_interface_config config;
static int ours; /* the device's end, which it owns */
static int peer;
static uint8_t frame[LONGEST + 100], answer[LONGEST + 100];

static int setup(void **state)
{
    (void)state;
    config = (struct network_interface_config){.iface_id = (char *)"eth0"};
    memset(&metrics.net, 0, sizeof(metrics.net));
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + i / 256);
    guest_driver_setup(&driver);
    peer = -1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    fd_close(&peer);
    return 0;
}

static void start(void)
{
    struct virtio_device *device = NULL;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    ours = pair[0];
    peer = pair[1];
    assert_no_error(virtio_net_new_on(&config, net_stream_new(pair[0]), driver.loop, &device));
    guest_driver_start(&driver, device, 1ULL << VIRTIO_NET_F_STATUS);
    guest_driver_settle(&driver);
}

static void give_buffers(unsigned count, uint32_t length)
{
    for (unsigned i = 0; i < count; i++)
        guest_ring_add(&driver.rings[RX], &(struct guest_buffer){RX_GPA + i * SLOT, length, true}, 1);
    guest_driver_notify(&driver, RX);
}

static void say(const void *bytes, size_t length)
{
    assert_int_equal(send(peer, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
}

static void say_frame(uint32_t length)
{
    uint32_t prefix = htonl(length);

    say(&prefix, sizeof(prefix));
    say(frame, length);
}

static void guest_send(uint64_t gpa, uint32_t length)
{
    memset(guest_at(&driver.memory, gpa, HEADER), 0, HEADER);
    memcpy(guest_at(&driver.memory, gpa + HEADER, length), frame, length);
    guest_ring_add(&driver.rings[TX], &(struct guest_buffer){gpa, HEADER + length, false}, 1);
}

static void hear_exactly(uint8_t *to, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t size = recv(peer, to + done, length - done, 0);

        if (size < 0 && errno == EAGAIN) {
            guest_driver_settle(&driver);
            size = 0;
        }
        assert_true(size >= 0);
        done += (size_t)size;
    }
}

static void hear_frame(uint32_t length)
{
    uint32_t prefix;

    hear_exactly((uint8_t *)&prefix, sizeof(prefix));
    assert_int_equal(ntohl(prefix), length);
    hear_exactly(answer, length);
    assert_memory_equal(answer, frame, length);
}

static void assert_received(uint64_t gpa, uint32_t length)
{
    static const uint8_t header[HEADER] = {[10] = 1};

    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + length);
    assert_memory_equal(guest_at(&driver.memory, gpa, HEADER), header, HEADER);
    assert_memory_equal(guest_at(&driver.memory, gpa + HEADER, length), frame, length);
}

static uint16_t link_status(void)
{
    uint16_t status;

    driver.device->ops->config_read(driver.device, offsetof(struct virtio_net_config, status), (uint8_t *)&status,
                                    sizeof(status));
    return status;
}

static void test_frames_pass_behind_their_length(void **state)
{
    (void)state;
    start();
    guest_send(TX_GPA, 14);
    guest_send(TX_GPA + 0x100000, SENT_MAX);
    guest_driver_notify(&driver, TX);
    hear_frame(14);
    hear_frame(SENT_MAX);
    give_buffers(3, 0x3000);
    say_frame(60);
    say_frame(9000);
    say_frame(14);
    assert_received(RX_GPA, 60);
    assert_received(RX_GPA + SLOT, 9000);
    assert_received(RX_GPA + 2 * SLOT, 14);
    guest_driver_settle(&driver);
}

static void test_peer_is_told_the_address_that_was_configured_before_the_guest_speaks(void **state)
{
    static const uint8_t mac[] = {6, 0, 0xac, 0x10, 0, 2};
    uint8_t heard[PREFIX + 100];

    (void)state;
    config.guest_mac = (char *)"06:00:ac:10:00:02";
    start();
    assert_int_equal(recv(peer, heard, sizeof(heard), MSG_DONTWAIT), PREFIX + 60);
    assert_memory_equal(heard, "\0\0\0\x3c\xff\xff\xff\xff\xff\xff", PREFIX + 6);
    assert_memory_equal(heard + PREFIX + 6, mac, sizeof(mac));
    assert_memory_equal(heard + PREFIX + 12, "\x80\x35", 2);
    teardown(NULL);
    setup(NULL);
    config.guest_mac = NULL;
    start();
    assert_int_equal(recv(peer, heard, sizeof(heard), MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

static void test_frame_may_arrive_byte_by_byte(void **state)
{
    const uint32_t prefix = htonl(60);

    (void)state;
    start();
    give_buffers(2, 2000);
    for (size_t i = 0; i < sizeof(prefix); i++) {
        say((const uint8_t *)&prefix + i, 1);
        guest_driver_settle(&driver);
    }
    for (size_t i = 0; i < 60; i++) {
        assert_false(guest_ring_has_used(&driver.rings[RX]));
        say(frame + i, 1);
        guest_driver_settle(&driver);
    }
    assert_received(RX_GPA, 60);
}

static void test_frames_read_together_wait_for_buffers_and_limits(void **state)
{
    (void)state;
    config.rx_rate_limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = 1, .refill_time = 5},
    };
    start();
    for (uint32_t i = 0; i < 5; i++)
        say_frame(100 + i);
    give_buffers(2, 2000);
    assert_received(RX_GPA, 100);
    assert_received(RX_GPA + SLOT, 101);
    guest_driver_settle(&driver);
    give_buffers(3, 2000);
    for (uint32_t i = 0; i < 3; i++)
        assert_received(RX_GPA + i * SLOT, 102 + i);
}

static void test_more_frames_than_one_turn_takes_all_arrive(void **state)
{
    enum { FRAMES = 3 * TURN_FRAMES };
    static uint8_t many[FRAMES * (PREFIX + 20)]; /* the device reads them in one piece */
    const uint32_t prefix = htonl(20);

    (void)state;
    start();
    for (unsigned i = 0; i < FRAMES; i++)
        memcpy(many + i * (PREFIX + 20), &prefix, sizeof(prefix));
    say(many, sizeof(many));
    for (unsigned i = 0; i < FRAMES; i++) {
        if (i % 200 == 0)
            give_buffers(200, 100);
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + 20);
    }
}

static bool everything_is_sent(void *argument)
{
    (void)argument;
    return METRIC_TOTAL(net.tx_packets_count) == 50;
}

static void test_full_stream_keeps_frames_in_order_and_is_not_polled(void **state)
{
    int small = 1;

    (void)state;
    start();
    assert_int_equal(setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    for (unsigned i = 0; i < 50; i++)
        guest_send(TX_GPA + i * 0x10000, 9000 + i);
    guest_driver_notify(&driver, TX);
    guest_driver_settle(&driver);
    assert_true(METRIC_TOTAL(net.tx_packets_count) < 50);
    for (unsigned i = 0; i < 50; i++)
        hear_frame(9000 + i);
    guest_driver_run_until(&driver, everything_is_sent, NULL);
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.tx_fails), 0);
}

static void test_end_of_a_frame_is_sent_though_no_other_follows(void **state)
{
    int small = 1;

    (void)state;
    start();
    assert_int_equal(setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    guest_send(TX_GPA, 60000);
    guest_driver_notify(&driver, TX);
    assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0); /* the guest has its buffer back */
    memset(guest_at(&driver.memory, TX_GPA, 60000), 0, 60000);
    hear_frame(60000);
    guest_driver_settle(&driver);
}

static void test_frame_longer_than_passt_takes_is_dropped(void **state)
{
    (void)state;
    start();
    guest_send(TX_GPA, SENT_MAX + 1);
    guest_send(TX_GPA + 0x100000, 60);
    guest_driver_notify(&driver, TX);
    hear_frame(60);
    assert_int_equal(METRIC_TOTAL(net.tx_malformed_frames), 1);
}

static void test_frame_too_short_or_too_long_for_the_buffer_is_dropped(void **state)
{
    (void)state;
    start();
    give_buffers(1, 1000);
    say_frame(0);
    say_frame(13);
    say_frame(989);
    say_frame(988);
    assert_received(RX_GPA, 988);
    assert_int_equal(METRIC_TOTAL(net.rx_fails), 3);
}

static void assert_link_is_down(void)
{
    guest_driver_settle(&driver);
    assert_int_equal(link_status(), 0);
    assert_int_equal(driver.config_signals, 1);
    guest_send(TX_GPA, 60);
    guest_driver_notify(&driver, TX);
    assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
    assert_int_equal(METRIC_TOTAL(net.tx_fails), 1);
    assert_false(driver.failed);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    guest_driver_settle(&driver);
}

static void test_peer_that_goes_away_takes_the_link_down(void **state)
{
    (void)state;
    start();
    assert_int_equal(link_status(), VIRTIO_NET_S_LINK_UP);
    give_buffers(2, 2000);
    guest_driver_settle(&driver);
    say_frame(60);
    fd_close(&peer);
    assert_received(RX_GPA, 60);
    assert_link_is_down();
}

static void test_peer_that_goes_away_in_the_middle_of_a_frame_takes_the_link_down(void **state)
{
    const uint32_t prefix = htonl(60);

    (void)state;
    start();
    give_buffers(2, 2000);
    say(&prefix, sizeof(prefix));
    say(frame, 59);
    guest_driver_settle(&driver);
    fd_close(&peer);
    assert_link_is_down();
}

static void test_peer_that_only_ends_its_sending_takes_the_link_down(void **state)
{
    (void)state;
    start();
    give_buffers(2, 2000);
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    assert_link_is_down();
}

static void test_peer_without_a_driver_may_go_away(void **state)
{
    (void)state;
    start();
    guest_driver_reset(&driver);
    fd_close(&peer);
    guest_driver_settle(&driver);
    guest_driver_restart(&driver, 0);
    guest_driver_settle(&driver);
    assert_int_equal(link_status(), 0);
}

static void test_length_beyond_any_frame_ends_the_stream(void **state)
{
    const uint32_t prefix = htonl(LONGEST + 1);
    char byte;

    (void)state;
    start();
    give_buffers(1, 2000);
    say(&prefix, sizeof(prefix));
    assert_link_is_down();
    assert_int_equal(recv(peer, &byte, 1, 0), 0); /* closed */
}

static void test_nothing_is_offered_that_the_stream_cannot_carry(void **state)
{
    (void)state;
    start();
    assert_int_equal(driver.device->features & ((1ULL << VIRTIO_NET_F_CSUM) | (1ULL << VIRTIO_NET_F_GUEST_CSUM) |
                                                (1ULL << VIRTIO_NET_F_HOST_TSO4) | (1ULL << VIRTIO_NET_F_GUEST_TSO4)),
                     0);
}

static void test_socket_that_nobody_listens_on_is_named(void **state)
{
    struct virtio_device *device;

    (void)state;
    config.backend = (struct network_backend_config){.present = true, .socket_path = (char *)"/nonexistent/passt"};
    assert_error(virtio_net_new(&config, driver.loop, &device), ERROR_HOST,
                 "backend.socket_path: \"/nonexistent/passt\": cannot connect to it: No such file or directory");
}

#define net_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(net_test(test_frames_pass_behind_their_length),
          net_test(test_peer_is_told_the_address_that_was_configured_before_the_guest_speaks),
          net_test(test_frame_may_arrive_byte_by_byte), net_test(test_frames_read_together_wait_for_buffers_and_limits),
          net_test(test_more_frames_than_one_turn_takes_all_arrive),
          net_test(test_full_stream_keeps_frames_in_order_and_is_not_polled),
          net_test(test_end_of_a_frame_is_sent_though_no_other_follows),
          net_test(test_frame_longer_than_passt_takes_is_dropped),
          net_test(test_frame_too_short_or_too_long_for_the_buffer_is_dropped),
          net_test(test_peer_that_goes_away_takes_the_link_down),
          net_test(test_peer_that_goes_away_in_the_middle_of_a_frame_takes_the_link_down),
          net_test(test_peer_that_only_ends_its_sending_takes_the_link_down),
          net_test(test_peer_without_a_driver_may_go_away), net_test(test_length_beyond_any_frame_ends_the_stream),
          net_test(test_nothing_is_offered_that_the_stream_cannot_carry),
          net_test(test_socket_that_nobody_listens_on_is_named))
