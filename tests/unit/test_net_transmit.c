/* Frames of the guest. */
#include "tests/unit/net_fixture.h"

#include <string.h>
#include <sys/socket.h>

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

TEST_MAIN(net_test(test_frame_reaches_the_tap_as_the_guest_wrote_it), net_test(test_largest_frame_passes_both_ways),
          net_test(test_malformed_frames_are_dropped_and_counted),
          net_test(test_full_tap_keeps_frames_in_order_and_is_not_polled),
          net_test(test_tap_that_vanishes_drops_frames_and_is_not_polled))
