/* Frames to the guest, and the buffers that it gives for them. */
#include "tests/unit/net_fixture.h"

#include <linux/virtio_ring.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

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

static void test_device_holds_what_frames_may_still_go_to(void **state)
{
    (void)state;
    start(MERGEABLE);
    const struct virtio_device *device = driver.device;
    const uint8_t *buffers = guest_at(&driver.memory, RX_GPA, 2 * SLOT);
    assert_false(device->ops->holds(device, buffers, GUEST_LOW_SIZE - RX_GPA));
    give_buffers(2, 2000);
    guest_driver_settle(&driver);
    assert_true(device->ops->holds(device, buffers, 1));
    assert_true(device->ops->holds(device, buffers - 1, 2));
    assert_false(device->ops->holds(device, buffers - 1, 1));
    assert_true(device->ops->holds(device, buffers + 1999, 1));
    assert_false(device->ops->holds(device, buffers + 2000, SLOT - 2000));
    assert_true(device->ops->holds(device, buffers + SLOT + 1999, 1));
    guest_driver_reset(&driver);
    assert_false(device->ops->holds(device, buffers, 2 * SLOT));
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

/* Where frames come alone, looking for a second one is a read in vain; where they come together, it spares a turn. */
static struct net_backend_ops counting_ops;
static const struct net_backend_ops *tap_ops;
static unsigned reads;

static ssize_t count_read(struct net_backend *backend, const struct iovec *iov, size_t count)
{
    reads++;
    return tap_ops->receive(backend, iov, count);
}

static void start_counting_reads(void)
{
    struct net_backend *backend;

    start(0);
    backend = container_of(driver.device, struct net, device)->pairs[0].backend;
    tap_ops = backend->ops;
    counting_ops = *tap_ops;
    counting_ops.receive = count_read;
    backend->ops = &counting_ops;
    give_buffers(200, 2000);
    guest_driver_settle(&driver);
    reads = 0;
}

static void pass_frames_together(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        host_send(100);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
    guest_driver_settle(&driver);
}

static void test_frames_that_come_alone_are_seldom_looked_behind(void **state)
{
    (void)state;
    start_counting_reads();
    for (unsigned i = 0; i < 32; i++)
        pass_frames_together(1);
    assert_int_equal(reads, 32 + 32 / 8);
}

static void test_frames_that_come_together_are_soon_taken_together(void **state)
{
    (void)state;
    start_counting_reads();
    pass_frames_together(64);
    assert_int_equal(METRIC_TOTAL(net.rx_tap_event_count), 8); /* the last of them takes 57 */
    assert_int_equal(reads, 65);
    pass_frames_together(64);
    assert_int_equal(METRIC_TOTAL(net.rx_tap_event_count), 9);

    /* One that comes alone shows that this is over. */
    reads = 0;
    for (unsigned i = 0; i < 2; i++)
        pass_frames_together(1);
    assert_int_equal(reads, 2 + 1);
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

TEST_MAIN(net_test(test_device_holds_what_frames_may_still_go_to), net_test(test_frame_fills_one_buffer),
          net_test(test_frame_that_just_fits_is_whole_and_a_longer_one_is_dropped),
          net_test(test_mergeable_frame_spans_buffers_that_appear_together),
          net_test(test_every_buffer_of_the_ring_serves_and_no_frame_is_seen_half),
          net_test(test_chains_of_many_small_buffers_all_serve), net_test(test_header_may_be_split_anywhere),
          net_test(test_tap_is_not_polled_while_there_are_no_buffers),
          net_test(test_frame_waits_until_the_driver_has_given_enough_buffers),
          net_test(test_driver_with_few_buffers_gets_frames_all_the_same),
          net_test(test_mergeable_frame_longer_than_the_buffers_is_held_until_there_are_more),
          net_test(test_held_frame_for_which_no_buffers_come_is_the_only_one_lost),
          net_test(test_reset_forgets_a_held_frame), net_test(test_frames_that_come_alone_are_seldom_looked_behind),
          net_test(test_frames_that_come_together_are_soon_taken_together),
          net_test(test_driver_is_not_asked_for_notifications_while_buffers_last))
