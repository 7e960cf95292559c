#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/metrics.h"
#include "vmm/mmds/frame.h"
#include "vmm/mmds/mmds.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

/*
 * The network device, driven as a guest would, on a SOCK_SEQPACKET socket in place of a tap: it keeps frames apart as
 * a tap does, and its other end can be slow. test_tap.c has the real one.
 */

enum { HEADER = 12, HOUR_MS = 3600 * 1000 };

#define FEATURE(bit) (1ULL << (bit))
#define MERGEABLE FEATURE(VIRTIO_NET_F_MRG_RXBUF)
#define SEGMENTS (FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4))
#define RX_GPA 0x200000ULL
#define TX_GPA 0x800000ULL
#define SLOT 0x4000ULL

static struct guest_driver driver;
static struct network_interface_config config;
static int tap;  /* the device's end, which it owns */
static int host; /* the other end */
static uint8_t frame[FRAME_MAX + 100], answer[FRAME_MAX + 100];

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    config = (struct network_interface_config){.iface_id = (char *)"eth0"};
    memset(&metrics.net, 0, sizeof(metrics.net));
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + i / 256);
    memset(frame, 0, HEADER);
    guest_driver_setup(&driver);
    host = -1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    fd_close(&host);
    return 0;
}

/* A device with `features`, of which those that the tap would have to know are left out by all but test_tap.c. */
static void start(uint64_t features)
{
    struct virtio_device *device = NULL;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    tap = pair[0];
    host = pair[1];
    assert_no_error(virtio_net_new_on(&config, net_tap_new(pair[0]), driver.loop, &device));
    assert_int_equal(device->ops->type, VIRTIO_ID_NET);
    guest_driver_start(&driver, device, features);
    guest_driver_settle(&driver);
}

static void give_buffer(uint64_t gpa, uint32_t length)
{
    const struct guest_buffer buffer = {gpa, length, true};

    guest_ring_add(&driver.rings[RX], &buffer, 1);
}

/* `count` buffers of `length` bytes, SLOT apart, told to the device. */
static void give_buffers(unsigned count, uint32_t length)
{
    for (unsigned i = 0; i < count; i++)
        give_buffer(RX_GPA + i * SLOT, length);
    guest_driver_notify(&driver, RX);
}

static void host_send(size_t length)
{
    assert_int_equal(send(host, frame, length, 0), (ssize_t)length);
}

static void assert_guest_has(uint64_t gpa, size_t offset, size_t length)
{
    assert_memory_equal(guest_at(&driver.memory, gpa, length), frame + offset, length);
}

/* The frame in the buffer at `gpa`: num_buffers, then the bytes that the host sent. */
static void assert_received(uint64_t gpa, size_t length, uint8_t num_buffers)
{
    const uint8_t *header = guest_at(&driver.memory, gpa, HEADER);

    assert_int_equal(header[10], num_buffers);
    assert_int_equal(header[11], 0);
    assert_guest_has(gpa + HEADER, HEADER, length - HEADER);
}

static void guest_send(uint64_t gpa, uint32_t length)
{
    const struct guest_buffer buffer = {gpa, length, false};

    memcpy(guest_at(&driver.memory, gpa, length), frame, length);
    guest_ring_add(&driver.rings[TX], &buffer, 1);
}

static void assert_host_gets(size_t length)
{
    assert_int_equal(recv(host, answer, sizeof(answer), 0), (ssize_t)length);
    assert_memory_equal(answer, frame, length);
}

static void assert_host_gets_nothing(void)
{
    assert_int_equal(recv(host, answer, sizeof(answer), 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static void limit_ops(struct rate_limiter_config *limiter, uint64_t size, uint64_t refill_time)
{
    *limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = size, .refill_time = refill_time},
    };
}

/* Transmitting. */

static void test_frame_reaches_the_tap_as_the_guest_wrote_it(void **state)
{
    const struct guest_buffer parts[] = {
        {TX_GPA, 10, false}, {TX_GPA + SLOT, 2 + 14, false}, {TX_GPA + 2 * SLOT, 1500, false}};

    (void)state;
    start(0);
    frame[0] = 1; /* header fields pass unchanged */
    frame[6] = 34;
    memcpy(guest_at(&driver.memory, TX_GPA, 10), frame, 10);
    memcpy(guest_at(&driver.memory, TX_GPA + SLOT, 16), frame + 10, 16);
    memcpy(guest_at(&driver.memory, TX_GPA + 2 * SLOT, 1500), frame + 26, 1500);
    guest_ring_add(&driver.rings[TX], parts, 3);
    guest_driver_notify(&driver, TX);
    assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
    assert_host_gets(1526);
    assert_int_equal(driver.queue_signals[TX], 1);
    assert_int_equal(METRIC_TOTAL(net.tx_packets_count), 1);
    assert_int_equal(METRIC_TOTAL(net.tx_bytes_count), 1514);
}

static void test_largest_frame_passes_both_ways(void **state)
{
    const struct guest_buffer buffers[] = {{RX_GPA, 60000, true}, {RX_GPA + 0x100000, 60000, true}};

    (void)state;
    start(0);
    guest_send(TX_GPA, FRAME_MAX);
    guest_driver_notify(&driver, TX);
    assert_host_gets(FRAME_MAX);

    guest_ring_add(&driver.rings[RX], buffers, 2);
    guest_driver_notify(&driver, RX);
    host_send(FRAME_MAX);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), FRAME_MAX);
    assert_received(RX_GPA, 60000, 1);
    assert_guest_has(RX_GPA + 0x100000, 60000, FRAME_MAX - 60000);
}

static void test_malformed_frames_are_dropped_and_counted(void **state)
{
    const struct guest_buffer writable = {TX_GPA, 1000, true};

    (void)state;
    start(0);
    guest_send(TX_GPA, HEADER + 13);
    guest_send(TX_GPA + 0x100000, FRAME_MAX + 1);
    guest_ring_add(&driver.rings[TX], &writable, 1);
    guest_send(TX_GPA, HEADER + 14);
    guest_driver_notify(&driver, TX);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
    assert_host_gets(HEADER + 14);
    assert_host_gets_nothing();
    assert_int_equal(METRIC_TOTAL(net.tx_malformed_frames), 3);
    assert_int_equal(METRIC_TOTAL(net.tx_packets_count), 1);
    assert_false(driver.failed);
}

static bool everything_is_sent(void *argument)
{
    unsigned *received = argument;

    while (recv(host, answer, sizeof(answer), 0) == 1000) {
        assert_int_equal(answer[HEADER], *received);
        (*received)++;
    }
    return *received == 100;
}

static void test_full_tap_keeps_frames_in_order_and_is_not_polled(void **state)
{
    int small = 1;
    unsigned received = 0;

    (void)state;
    limit_ops(&config.tx_rate_limiter, 100, HOUR_MS); /* waiting for the tap is not paid for twice */
    start(0);
    assert_int_equal(setsockopt(tap, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    for (unsigned i = 0; i < 100; i++) {
        frame[HEADER] = (uint8_t)i;
        guest_send(TX_GPA + i * 0x1000, 1000);
    }
    guest_driver_notify(&driver, TX);
    guest_driver_settle(&driver);
    guest_driver_run_until(&driver, everything_is_sent, &received);
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.tx_packets_count), 100);
    assert_int_equal(METRIC_TOTAL(net.tx_fails), 0);
}

static void test_tap_that_vanishes_drops_frames_and_is_not_polled(void **state)
{
    (void)state;
    start(0);
    give_buffers(4, 2000);
    fd_close(&host);
    guest_driver_settle(&driver);
    guest_send(TX_GPA, 1000);
    guest_driver_notify(&driver, TX);
    assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.tx_fails), 1);
    assert_false(driver.failed);
}

/* Receiving. */

static void test_frame_fills_one_buffer(void **state)
{
    (void)state;
    start(0);
    give_buffers(2, 2000);
    host_send(HEADER + 64);
    host_send(1526);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + 64);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1526);
    assert_received(RX_GPA, HEADER + 64, 1);
    assert_received(RX_GPA + SLOT, 1526, 1);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 2);
    assert_int_equal(METRIC_TOTAL(net.rx_bytes_count), 64 + 1514);
}

static void test_frame_that_just_fits_is_whole_and_a_longer_one_is_dropped(void **state)
{
    (void)state;
    start(0);
    give_buffers(1, 1526);
    host_send(1527);
    guest_driver_settle(&driver);
    assert_false(guest_ring_has_used(&driver.rings[RX]));
    assert_int_equal(METRIC_TOTAL(net.rx_fails), 1);
    host_send(1526);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1526);
    assert_received(RX_GPA, 1526, 1);
}

static void test_mergeable_frame_spans_buffers_that_appear_together(void **state)
{
    (void)state;
    start(MERGEABLE);
    give_buffers(200, 1000);
    host_send(4100);
    host_send(1000);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1000);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1000);
    assert_received(RX_GPA, 1000, 5);
    for (unsigned i = 1; i < 4; i++)
        assert_guest_has(RX_GPA + i * SLOT, i * 1000, 1000);
    assert_guest_has(RX_GPA + 4 * SLOT, 4000, 100);
    assert_received(RX_GPA + 5 * SLOT, 1000, 1);
}

/* Another CPU of the guest, which polls the used ring while frames of PARTS buffers arrive. */
enum { PARTS = 64, PART = 100 };

struct onlooker {
    pthread_t thread;
    bool stop;
    unsigned looks;
    unsigned torn; /* looks that found a part of a frame */
};

static void *watch_used_index(void *argument)
{
    struct onlooker *onlooker = argument;

    while (!__atomic_load_n(&onlooker->stop, __ATOMIC_RELAXED)) {
        if (__atomic_load_n(&driver.rings[RX].used->idx, __ATOMIC_ACQUIRE) % PARTS != 0)
            onlooker->torn++;
        __atomic_fetch_add(&onlooker->looks, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void test_every_buffer_of_the_ring_serves_and_no_frame_is_seen_half(void **state)
{
    struct onlooker onlooker = {.stop = false};

    (void)state;
    start(MERGEABLE);
    give_buffers(256, PART);
    assert_int_equal(pthread_create(&onlooker.thread, NULL, watch_used_index, &onlooker), 0);
    for (unsigned first = 0; first < 300 * PARTS; first += PARTS) {
        unsigned looks = __atomic_load_n(&onlooker.looks, __ATOMIC_RELAXED);

        while (__atomic_load_n(&onlooker.looks, __ATOMIC_RELAXED) == looks)
            sched_yield(); /* it must be running now */
        host_send(PARTS * PART - 1);
        for (unsigned part = 0; part < PARTS; part++)
            assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), part + 1 < PARTS ? PART : PART - 1);
        assert_received(RX_GPA + first % 256 * SLOT, PART, PARTS);
        for (unsigned part = 0; part < PARTS; part++)
            give_buffer(RX_GPA + (first + part) % 256 * SLOT, PART);
        guest_driver_notify(&driver, RX);
    }
    __atomic_store_n(&onlooker.stop, true, __ATOMIC_RELAXED);
    pthread_join(onlooker.thread, NULL);
    assert_int_equal(onlooker.torn, 0);
    assert_int_equal(METRIC_TOTAL(net.rx_fails), 0);
}

static void test_chains_of_many_small_buffers_all_serve(void **state)
{
    struct guest_buffer parts[100];

    (void)state;
    start(MERGEABLE | FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
    for (uint64_t chain = 0; chain < 4; chain++) {
        for (size_t i = 0; i < 100; i++)
            parts[i] = (struct guest_buffer){RX_GPA + chain * SLOT + i * 20, 20, true};
        guest_ring_add_indirect(&driver.rings[RX], TX_GPA + chain * SLOT, parts, 100);
    }
    guest_driver_notify(&driver, RX);
    for (unsigned i = 0; i < 4; i++)
        host_send(1500 + i);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1500 + i);
        assert_received(RX_GPA + i * SLOT, 1500 + i, 1);
    }
}

static void test_header_may_be_split_anywhere(void **state)
{
    const struct guest_buffer parts[] = {
        {RX_GPA, 5, true}, {RX_GPA + SLOT, 6, true}, {RX_GPA + 2 * SLOT, 1, true}, {RX_GPA + 3 * SLOT, 1600, true}};

    (void)state;
    start(MERGEABLE);
    guest_ring_add(&driver.rings[RX], parts, 4);
    memset(guest_at(&driver.memory, RX_GPA + SLOT, 6), 0xff, 6);
    memset(guest_at(&driver.memory, RX_GPA + 2 * SLOT, 1), 0xff, 1);
    guest_driver_notify(&driver, RX);
    host_send(1500);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1500);
    assert_int_equal(*(uint8_t *)guest_at(&driver.memory, RX_GPA + SLOT + 5, 1), 1);
    assert_int_equal(*(uint8_t *)guest_at(&driver.memory, RX_GPA + 2 * SLOT, 1), 0);
    assert_guest_has(RX_GPA + 3 * SLOT, HEADER, 1500 - HEADER);
}

static void test_tap_is_not_polled_while_there_are_no_buffers(void **state)
{
    (void)state;
    start(0);
    host_send(1000);
    host_send(1001);
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.rx_tap_event_count), 0);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 0);
    give_buffers(1, 2000);
    guest_driver_settle(&driver);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1000);
    assert_int_equal(METRIC_TOTAL(net.rx_tap_event_count), 0);
    give_buffers(1, 2000);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 1001);
}

static void test_frame_waits_until_the_driver_has_given_enough_buffers(void **state)
{
    (void)state;
    start(MERGEABLE);
    config.mtu = 0;
    give_buffers(3, 400);
    host_send(1600);
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 0);
    give_buffers(3, 400);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 400);
    assert_int_equal(METRIC_TOTAL(net.rx_fails), 0);
}

static void test_driver_with_few_buffers_gets_frames_all_the_same(void **state)
{
    (void)state;
    start(MERGEABLE);
    give_buffers(1, 200);
    for (unsigned i = 0; i < 3; i++) {
        host_send(200);
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 200);
        give_buffers(1, 200);
    }
    guest_driver_settle(&driver);
}

static bool has_read(void *count)
{
    return METRIC_TOTAL(net.rx_count) == *(uint64_t *)count;
}

/* The driver was too slow with its buffers: the device has read a frame of 1000 bytes into one of 400. */
static void hold_a_frame(void)
{
    uint64_t one = 1;

    start(MERGEABLE);
    give_buffers(1, 400);
    host_send(1000);
    guest_driver_run_until(&driver, has_read, &one);
    assert_false(guest_ring_has_used(&driver.rings[RX]));
}

static void test_mergeable_frame_longer_than_the_buffers_is_held_until_there_are_more(void **state)
{
    (void)state;
    hold_a_frame();
    host_send(700);
    guest_driver_settle(&driver);
    give_buffer(RX_GPA + SLOT, 400);
    guest_driver_notify(&driver, RX);
    guest_driver_settle(&driver);
    assert_false(guest_ring_has_used(&driver.rings[RX]));
    for (unsigned i = 2; i < 5; i++)
        give_buffer(RX_GPA + i * SLOT, 400);
    guest_driver_notify(&driver, RX);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 400);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 200);
    assert_received(RX_GPA, 400, 3);
    assert_guest_has(RX_GPA + SLOT, 400, 400);
    assert_guest_has(RX_GPA + 2 * SLOT, 800, 200);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 400);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 300);
    assert_received(RX_GPA + 3 * SLOT, 400, 2);
    assert_int_equal(METRIC_TOTAL(net.rx_fails), 0);
}

static void test_held_frame_for_which_no_buffers_come_is_the_only_one_lost(void **state)
{
    (void)state;
    hold_a_frame();
    for (unsigned i = 0; i < 3; i++)
        host_send(300 + i);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 300);
    assert_received(RX_GPA, 300, 1);
    give_buffers(2, 400);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 301);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 302);
    assert_int_equal(METRIC_TOTAL(net.rx_fails), 1);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 3);
}

static void test_reset_forgets_a_held_frame(void **state)
{
    (void)state;
    hold_a_frame();
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, MERGEABLE);
    give_buffers(8, 400);
    host_send(100);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
    assert_received(RX_GPA, 100, 1);
}

static void test_driver_is_not_asked_for_notifications_while_buffers_last(void **state)
{
    const struct guest_ring *ring = &driver.rings[RX];

    (void)state;
    start(FEATURE(VIRTIO_RING_F_EVENT_IDX));
    assert_int_equal(guest_ring_avail_event(ring), 0);
    give_buffers(3, 2000);
    guest_driver_settle(&driver);
    assert_int_equal(guest_ring_avail_event(ring), 0);
    for (unsigned i = 0; i < 3; i++)
        host_send(100);
    for (unsigned i = 0; i < 3; i++)
        guest_driver_wait_used(&driver, RX, NULL);
    guest_driver_settle(&driver);
    assert_int_equal(guest_ring_avail_event(ring), 3);
}

/* Limits. */

static void test_limited_frames_are_late_but_never_lost(void **state)
{
    (void)state;
    limit_ops(&config.rx_rate_limiter, 1, 5);
    limit_ops(&config.tx_rate_limiter, 1, 5);
    start(0);
    give_buffers(5, 2000);
    for (uint32_t i = 0; i < 5; i++) {
        host_send(100 + i);
        guest_send(TX_GPA + i * SLOT, 200 + i);
    }
    guest_driver_notify(&driver, TX);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100 + i);
        guest_driver_wait_used(&driver, TX, NULL);
        assert_host_gets(200 + i);
    }
    assert_true(METRIC_TOTAL(net.rx_rate_limiter_throttled) > 0);
    assert_true(METRIC_TOTAL(net.tx_rate_limiter_throttled) > 0);
    assert_true(METRIC_TOTAL(net.rx_event_rate_limiter_count) > 0);
    assert_true(METRIC_TOTAL(net.tx_rate_limiter_event_count) > 0);
}

static void test_notification_without_a_frame_is_counted(void **state)
{
    (void)state;
    start(0);
    guest_driver_settle(&driver);
    uint64_t before = METRIC_TOTAL(net.no_tx_avail_buffer);
    guest_driver_notify(&driver, TX);
    assert_int_equal(METRIC_TOTAL(net.no_tx_avail_buffer), before + 1);
    guest_send(TX_GPA, 64);
    guest_driver_notify(&driver, TX);
    assert_int_equal(METRIC_TOTAL(net.no_tx_avail_buffer), before + 1);
}

static void test_new_limit_lets_waiting_frames_pass(void **state)
{
    struct network_interface_update update = {.iface_id = (char *)"eth0"};

    (void)state;
    limit_ops(&config.rx_rate_limiter, 1, HOUR_MS);
    limit_ops(&config.tx_rate_limiter, 1, HOUR_MS);
    start(0);
    give_buffers(3, 2000);
    for (uint32_t i = 0; i < 3; i++) {
        host_send(100 + i);
        guest_send(TX_GPA + i * SLOT, 200 + i);
    }
    guest_driver_notify(&driver, TX);
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 1);
    assert_int_equal(METRIC_TOTAL(net.tx_packets_count), 1);
    assert_int_equal(METRIC_TOTAL(net.rx_rate_limiter_throttled), 1);

    limit_ops(&update.rx_rate_limiter, 0, 0);
    limit_ops(&update.tx_rate_limiter, 0, 0);
    assert_no_error(virtio_net_update(driver.device, &update));
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 3);
    assert_int_equal(METRIC_TOTAL(net.tx_packets_count), 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100 + i);
}

/* Life cycle. */

static void set_paused(bool paused)
{
    driver.device->paused = paused;
    (paused ? driver.device->ops->pause : driver.device->ops->resume)(driver.device);
}

static void test_paused_device_touches_nothing_and_loses_nothing(void **state)
{
    struct network_interface_update update = {.iface_id = (char *)"eth0"};

    (void)state;
    limit_ops(&config.rx_rate_limiter, 1, HOUR_MS);
    start(0);
    give_buffers(3, 2000);
    host_send(100);
    host_send(101); /* held back by the limiter when the pause comes */
    guest_driver_settle(&driver);
    set_paused(true);
    limit_ops(&update.rx_rate_limiter, 0, 0);
    assert_no_error(virtio_net_update(driver.device, &update));
    host_send(102);
    guest_send(TX_GPA, 200);
    guest_driver_notify(&driver, TX);
    guest_driver_notify(&driver, RX);
    guest_driver_settle(&driver);
    assert_int_equal(METRIC_TOTAL(net.rx_packets_count), 1);
    assert_host_gets_nothing();

    set_paused(false);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100 + i);
    guest_driver_wait_used(&driver, TX, NULL);
    assert_host_gets(200);
}

static void test_reset_device_works_again(void **state)
{
    (void)state;
    limit_ops(&config.rx_rate_limiter, 1, HOUR_MS);
    start(MERGEABLE);
    give_buffers(200, 1000);
    host_send(1100);
    host_send(100);
    guest_driver_settle(&driver);
    guest_driver_reset(&driver);
    host_send(101);
    guest_driver_settle(&driver);

    struct network_interface_update update = {.iface_id = (char *)"eth0"};
    limit_ops(&update.rx_rate_limiter, 0, 0);
    assert_no_error(virtio_net_update(driver.device, &update));
    guest_driver_restart(&driver, 0);
    give_buffer(RX_GPA + 250 * SLOT, 2000);
    guest_driver_notify(&driver, RX);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 101);
    assert_received(RX_GPA + 250 * SLOT, 101, 1);
    guest_send(TX_GPA, 200);
    guest_driver_notify(&driver, TX);
    guest_driver_wait_used(&driver, TX, NULL);
    assert_host_gets(200);
}

static void test_buffers_given_before_the_driver_was_ready_are_found(void **state)
{
    (void)state;
    start(0);
    guest_driver_reset(&driver);
    host_send(100);
    guest_driver_restart(&driver, 0);
    give_buffer(RX_GPA, 2000); /* and nobody notifies */
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
}

/* Hostile drivers. */

static void test_receive_buffer_without_room_for_a_frame_stops_the_device(void **state)
{
    (void)state;
    start(0);
    give_buffers(1, HEADER + 13);
    guest_driver_settle(&driver);
    assert_true(driver.failed);
    host_send(100);
    guest_driver_settle(&driver);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    give_buffers(1, 2000);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
}

static void test_mergeable_buffer_without_room_for_the_header_stops_the_device(void **state)
{
    (void)state;
    start(MERGEABLE);
    give_buffers(1, HEADER);
    assert_true(driver.failed);
}

static void test_broken_queue_stops_the_device(void **state)
{
    (void)state;
    start(0);
    guest_ring_available_index(&driver.rings[TX], 1000);
    guest_driver_notify(&driver, TX);
    assert_true(driver.failed);
    host_send(100);
    guest_driver_settle(&driver);

    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    guest_ring_available_index(&driver.rings[RX], 1000);
    guest_driver_notify(&driver, RX);
    assert_true(driver.failed);
    guest_driver_settle(&driver);
}

/* The metadata service. */

static const uint8_t arp_request[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,    9,    8,    6,
                                        0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,    0,    0,    9,
                                        0xa9, 0xfe, 0,    5,    0,    0,    0, 0, 0, 0, 0xa9, 0xfe, 0xa9, 0xfe};
static struct mmds mmds = {.limit = 1000};

static void lead_to_mmds(void)
{
    assert_true(virtio_net_set_mmds(driver.device, &mmds, 0xa9fea9fe));
}

static void guest_asks(uint64_t gpa)
{
    const struct guest_buffer buffer = {gpa, HEADER + sizeof(arp_request), false};

    memset(guest_at(&driver.memory, gpa, HEADER), 0, HEADER);
    memcpy(guest_at(&driver.memory, gpa + HEADER, sizeof(arp_request)), arp_request, sizeof(arp_request));
    guest_ring_add(&driver.rings[TX], &buffer, 1);
}

static void assert_answered(uint64_t gpa)
{
    const uint8_t *got = guest_at(&driver.memory, gpa, HEADER + sizeof(arp_request));

    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + sizeof(arp_request));
    assert_int_equal(got[10], 1);
    assert_int_equal(got[HEADER + 21], 2); /* a reply */
}

static void test_frames_for_the_metadata_service_never_reach_the_tap(void **state)
{
    (void)state;
    start(FEATURE(VIRTIO_RING_F_EVENT_IDX));
    lead_to_mmds();
    give_buffers(3, 2000);
    guest_asks(TX_GPA);
    guest_send(TX_GPA + SLOT, 200);
    guest_asks(TX_GPA + 2 * SLOT);
    guest_driver_notify(&driver, TX);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
    assert_host_gets(200);
    assert_host_gets_nothing();
    assert_answered(RX_GPA);
    assert_answered(RX_GPA + SLOT);
    assert_int_equal(driver.queue_signals[RX], 1);
    host_send(100); /* and the tap's frames come as ever */
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
    guest_driver_settle(&driver);
}

static void test_metadata_service_waits_for_receive_buffers(void **state)
{
    (void)state;
    start(FEATURE(VIRTIO_RING_F_EVENT_IDX));
    lead_to_mmds();
    guest_asks(TX_GPA);
    guest_driver_notify(&driver, TX);
    guest_driver_settle(&driver);
    give_buffers(1, 2000);
    assert_answered(RX_GPA);
}

static void test_metadata_service_answers_though_the_tap_is_gone(void **state)
{
    (void)state;
    start(0);
    lead_to_mmds();
    give_buffers(2, 2000);
    fd_close(&host);
    guest_driver_settle(&driver);
    guest_asks(TX_GPA);
    guest_driver_notify(&driver, TX);
    assert_answered(RX_GPA);
    guest_driver_settle(&driver);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    guest_driver_settle(&driver);
}

static void test_metadata_service_keeps_to_the_limits(void **state)
{
    (void)state;
    limit_ops(&config.rx_rate_limiter, 1, 5);
    limit_ops(&config.tx_rate_limiter, 1, 5);
    start(0);
    lead_to_mmds();
    give_buffers(3, 2000);
    for (unsigned i = 0; i < 3; i++)
        guest_asks(TX_GPA + i * SLOT);
    guest_driver_notify(&driver, TX);
    for (unsigned i = 0; i < 3; i++)
        assert_answered(RX_GPA + i * SLOT);
    assert_true(METRIC_TOTAL(net.tx_rate_limiter_throttled) > 0);
}

static void assert_syn_answered(uint64_t gpa)
{
    struct segment segment;
    uint32_t length = guest_driver_wait_used(&driver, RX, NULL);

    assert_true(length > HEADER);
    assert_true(frame_parse_segment(guest_at(&driver.memory, gpa + HEADER, length - HEADER), length - HEADER,
                                    0xa9fe0005, &segment));
    assert_int_equal(segment.flags, SEGMENT_SYN | SEGMENT_ACK);
}

/* By its timer: the guest says nothing more. */
static void test_metadata_service_says_again_what_the_guest_did_not_hear(void **state)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 9};
    const struct segment syn = {.peer = {.mac = {6, 1, 0x23, 0x45, 0x67, 1}, .port = 80, .address = 0xa9fea9fe},
                                .port = 40000,
                                .flags = SEGMENT_SYN,
                                .window = 1000};
    uint8_t *bytes;

    (void)state;
    start(0);
    lead_to_mmds();
    give_buffers(3, 2000);
    bytes = guest_at(&driver.memory, TX_GPA, HEADER + FRAME_SENT_MAX);
    memset(bytes, 0, HEADER);
    const struct guest_buffer buffer = {
        TX_GPA, HEADER + (uint32_t)frame_write_segment(bytes + HEADER, mac, 0xa9fe0005, &syn), false};
    guest_ring_add(&driver.rings[TX], &buffer, 1);
    guest_driver_notify(&driver, TX);
    assert_syn_answered(RX_GPA);
    assert_syn_answered(RX_GPA + SLOT);
    assert_syn_answered(RX_GPA + 2 * SLOT);
}

static void test_interface_no_longer_leads_to_the_metadata_service(void **state)
{
    (void)state;
    start(0);
    lead_to_mmds();
    assert_true(virtio_net_set_mmds(driver.device, NULL, 0));
    guest_asks(TX_GPA);
    guest_driver_notify(&driver, TX);
    guest_driver_wait_used(&driver, TX, NULL);
    assert_int_equal(recv(host, answer, sizeof(answer), 0), HEADER + sizeof(arp_request));
}

/* Configuration. */

static void assert_refused(const char *text)
{
    struct virtio_device *device = NULL;
    struct net_backend *backend = net_tap_new(-1);

    assert_error(virtio_net_new_on(&config, backend, driver.loop, &device), ERROR_INPUT, text);
    assert_null(device);
    backend->ops->close(backend);
}

static void test_mac_address_must_be_six_bytes(void **state)
{
    static const char *const wrong[] = {"",
                                        "06:00:ac:10:00",
                                        "06:00:ac:10:00:0",
                                        "06:00:ac:10:00:002",
                                        "06:00:ac:10:00:02:03",
                                        "06-00-ac-10-00-02",
                                        "06:00:ac:10:00:0g",
                                        " 6:00:ac:10:00:02",
                                        "0x:00:ac:10:00:02",
                                        "06:00:ac:10:00:02 "};

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        config.guest_mac = (char *)wrong[i];
        assert_refused("guest_mac: \"");
    }
}

static void test_mtu_must_be_within_bounds(void **state)
{
    (void)state;
    config.mtu = 67;
    assert_refused("mtu: 67");
    config.mtu = 65536;
    assert_refused("mtu: 65536");
}

static void test_config_space_has_what_was_given(void **state)
{
    static const uint8_t expected[16] = {0x06, 0x00, 0xac, 0x1f, 0x00, 0xFE, 0, 0, 0, 0, 0x28, 0x23};
    uint8_t space[16];

    (void)state;
    config.guest_mac = (char *)"06:00:aC:1f:00:Fe";
    config.mtu = 9000;
    start(FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_MTU));
    driver.device->ops->config_read(driver.device, 0, space, sizeof(space));
    assert_memory_equal(space, expected, sizeof(expected));
}

static void test_only_what_was_given_is_offered(void **state)
{
    (void)state;
    start(0);
    assert_int_equal(driver.device->features & (FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_MTU)), 0);
}

static void test_device_that_cannot_have_its_offloads_refuses_the_driver(void **state)
{
    (void)state;
    start(0);
    guest_driver_reset(&driver);
    driver.device->driver_features = SEGMENTS; /* a socket has none */
    assert_false(driver.device->ops->activate(driver.device));
    assert_int_equal(METRIC_TOTAL(net.activate_fails), 1);
}

TEST_MAIN(
    cmocka_unit_test_setup_teardown(test_metadata_service_says_again_what_the_guest_did_not_hear, setup, teardown),
    cmocka_unit_test_setup_teardown(test_notification_without_a_frame_is_counted, setup, teardown),
    cmocka_unit_test_setup_teardown(test_frames_for_the_metadata_service_never_reach_the_tap, setup, teardown),
    cmocka_unit_test_setup_teardown(test_metadata_service_waits_for_receive_buffers, setup, teardown),
    cmocka_unit_test_setup_teardown(test_metadata_service_answers_though_the_tap_is_gone, setup, teardown),
    cmocka_unit_test_setup_teardown(test_metadata_service_keeps_to_the_limits, setup, teardown),
    cmocka_unit_test_setup_teardown(test_interface_no_longer_leads_to_the_metadata_service, setup, teardown),
    cmocka_unit_test_setup_teardown(test_frame_reaches_the_tap_as_the_guest_wrote_it, setup, teardown),
    cmocka_unit_test_setup_teardown(test_largest_frame_passes_both_ways, setup, teardown),
    cmocka_unit_test_setup_teardown(test_malformed_frames_are_dropped_and_counted, setup, teardown),
    cmocka_unit_test_setup_teardown(test_full_tap_keeps_frames_in_order_and_is_not_polled, setup, teardown),
    cmocka_unit_test_setup_teardown(test_tap_that_vanishes_drops_frames_and_is_not_polled, setup, teardown),
    cmocka_unit_test_setup_teardown(test_frame_fills_one_buffer, setup, teardown),
    cmocka_unit_test_setup_teardown(test_frame_that_just_fits_is_whole_and_a_longer_one_is_dropped, setup, teardown),
    cmocka_unit_test_setup_teardown(test_mergeable_frame_spans_buffers_that_appear_together, setup, teardown),
    cmocka_unit_test_setup_teardown(test_every_buffer_of_the_ring_serves_and_no_frame_is_seen_half, setup, teardown),
    cmocka_unit_test_setup_teardown(test_chains_of_many_small_buffers_all_serve, setup, teardown),
    cmocka_unit_test_setup_teardown(test_header_may_be_split_anywhere, setup, teardown),
    cmocka_unit_test_setup_teardown(test_tap_is_not_polled_while_there_are_no_buffers, setup, teardown),
    cmocka_unit_test_setup_teardown(test_frame_waits_until_the_driver_has_given_enough_buffers, setup, teardown),
    cmocka_unit_test_setup_teardown(test_driver_with_few_buffers_gets_frames_all_the_same, setup, teardown),
    cmocka_unit_test_setup_teardown(test_mergeable_frame_longer_than_the_buffers_is_held_until_there_are_more, setup,
                                    teardown),
    cmocka_unit_test_setup_teardown(test_held_frame_for_which_no_buffers_come_is_the_only_one_lost, setup, teardown),
    cmocka_unit_test_setup_teardown(test_reset_forgets_a_held_frame, setup, teardown),
    cmocka_unit_test_setup_teardown(test_driver_is_not_asked_for_notifications_while_buffers_last, setup, teardown),
    cmocka_unit_test_setup_teardown(test_limited_frames_are_late_but_never_lost, setup, teardown),
    cmocka_unit_test_setup_teardown(test_new_limit_lets_waiting_frames_pass, setup, teardown),
    cmocka_unit_test_setup_teardown(test_paused_device_touches_nothing_and_loses_nothing, setup, teardown),
    cmocka_unit_test_setup_teardown(test_reset_device_works_again, setup, teardown),
    cmocka_unit_test_setup_teardown(test_buffers_given_before_the_driver_was_ready_are_found, setup, teardown),
    cmocka_unit_test_setup_teardown(test_receive_buffer_without_room_for_a_frame_stops_the_device, setup, teardown),
    cmocka_unit_test_setup_teardown(test_mergeable_buffer_without_room_for_the_header_stops_the_device, setup,
                                    teardown),
    cmocka_unit_test_setup_teardown(test_broken_queue_stops_the_device, setup, teardown),
    cmocka_unit_test_setup_teardown(test_mac_address_must_be_six_bytes, setup, teardown),
    cmocka_unit_test_setup_teardown(test_mtu_must_be_within_bounds, setup, teardown),
    cmocka_unit_test_setup_teardown(test_config_space_has_what_was_given, setup, teardown),
    cmocka_unit_test_setup_teardown(test_only_what_was_given_is_offered, setup, teardown),
    cmocka_unit_test_setup_teardown(test_device_that_cannot_have_its_offloads_refuses_the_driver, setup, teardown))
