/* The network device: limits, life cycle, hostile drivers, configuration. */
#include "tests/unit/net_fixture.h"

#include <linux/virtio_net.h>

#include "vmm/virtio/devices.h"

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
    (paused ? virtio_device_pause : driver.device->ops->resume)(driver.device);
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

TEST_MAIN(net_test(test_notification_without_a_frame_is_counted), net_test(test_limited_frames_are_late_but_never_lost),
          net_test(test_new_limit_lets_waiting_frames_pass),
          net_test(test_paused_device_touches_nothing_and_loses_nothing), net_test(test_reset_device_works_again),
          net_test(test_buffers_given_before_the_driver_was_ready_are_found),
          net_test(test_receive_buffer_without_room_for_a_frame_stops_the_device),
          net_test(test_mergeable_buffer_without_room_for_the_header_stops_the_device),
          net_test(test_broken_queue_stops_the_device), net_test(test_mac_address_must_be_six_bytes),
          net_test(test_mtu_must_be_within_bounds), net_test(test_config_space_has_what_was_given),
          net_test(test_only_what_was_given_is_offered),
          net_test(test_device_that_cannot_have_its_offloads_refuses_the_driver))
