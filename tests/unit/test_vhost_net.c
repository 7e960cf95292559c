/* Network interfaces whose frames the host's kernel moves. */
#include "tests/unit/vhost_net_fixture.h"

static void test_kernel_gets_queues_memory_and_features(void **state)
{
    const uint64_t features = FEATURE(VIRTIO_NET_F_MRG_RXBUF) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
                              FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_RING_F_EVENT_IDX);

    (void)state;
    start(1, features);
    assert_true(is_attached(0));
    assert_int_equal(vhosts[0].features,
                     FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_NET_F_MRG_RXBUF) | FEATURE(VIRTIO_RING_F_EVENT_IDX));
    assert_int_equal(taps[0].offloads, TUN_F_CSUM | TUN_F_TSO4);
    assert_int_equal(vhosts[0].region_count, driver.memory.count);
    for (size_t i = 0; i < driver.memory.count; i++) {
        assert_int_equal(vhosts[0].regions[i].guest_phys_addr, driver.memory.regions[i].gpa);
        assert_int_equal(vhosts[0].regions[i].memory_size, driver.memory.regions[i].size);
        assert_int_equal(vhosts[0].regions[i].userspace_addr, (uintptr_t)driver.memory.regions[i].hva);
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct fake_queue *queue = &vhosts[0].queues[i];
        const struct guest_ring *ring = &driver.rings[i];

        assert_int_equal(queue->size, ring->size);
        assert_int_equal(queue->base, 0);
        assert_int_equal(queue->address.desc_user_addr, (uintptr_t)ring->descriptors);
        assert_int_equal(queue->address.avail_user_addr, (uintptr_t)ring->available);
        assert_int_equal(queue->address.used_user_addr, (uintptr_t)ring->used);
        assert_int_equal(queue->kick_fd, driver.bells[i]);
        assert_int_equal(queue->call_fd, driver.interrupt);
        assert_int_equal(rings(i), 1); /* for what the driver did before */
    }
}

static void test_offer_is_what_kernel_and_tap_can_do(void **state)
{
    (void)state;
    make(1);
    assert_true(driver.device->served_elsewhere);
    assert_int_equal(driver.device->features, FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
                                                  FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_NET_F_MRG_RXBUF) |
                                                  FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_HOST_TSO4) |
                                                  FEATURE(VIRTIO_NET_F_HOST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
                                                  FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6));
}

static void test_guest_finds_its_address_and_mtu(void **state)
{
    struct virtio_net_config space;

    (void)state;
    config.guest_mac = (char *)"06:00:ac:10:00:02";
    config.mtu = 1400;
    start(1, FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_MTU));
    driver.device->ops->config_read(driver.device, 0, (uint8_t *)&space, sizeof(space));
    assert_memory_equal(space.mac, ((const uint8_t[]){6, 0, 0xac, 0x10, 0, 2}), 6);
    assert_int_equal(space.mtu, 1400);
}

static void test_memory_to_be_plugged_is_told_as_a_whole(void **state)
{
    struct hotplug_memory hotplug = {.gpa = 0x200000000, .size = 0x10000000, .hva = (uint8_t *)0x7f0000000000};

    (void)state;
    driver.memory.hotplug = &hotplug;
    start(1, 0);
    assert_int_equal(vhosts[0].region_count, driver.memory.count + 1);
    assert_int_equal(vhosts[0].regions[2].guest_phys_addr, hotplug.gpa);
    assert_int_equal(vhosts[0].regions[2].memory_size, hotplug.size);
    assert_int_equal(vhosts[0].regions[2].userspace_addr, (uintptr_t)hotplug.hva);
    driver.memory.hotplug = NULL;
}

static void test_paused_device_is_out_of_the_kernels_hands(void **state)
{
    (void)state;
    start(1, 0);
    rings(RX), rings(TX);
    pause_device(true);
    assert_false(is_attached(0));
    pause_device(false);
    assert_true(is_attached(0));
    /* The queues stayed where they are, and are looked at for what came meanwhile. */
    assert_int_equal(vhosts[0].queues[RX].attachments, 2);
    assert_int_equal(rings(RX), 1);
    assert_int_equal(rings(TX), 1);
}

static void test_pause_right_after_the_start_leaves_it_to_resume(void **state)
{
    (void)state;
    make(1);
    guest_driver_start(&driver, driver.device, 0);
    pause_device(true);
    assert_false(is_attached(0));
    pause_device(false);
    assert_true(is_attached(0));
}

static void test_reset_takes_the_queues_and_the_next_driver_gives_others(void **state)
{
    (void)state;
    start(1, FEATURE(VIRTIO_NET_F_GUEST_CSUM));
    guest_driver_reset(&driver);
    assert_false(is_attached(0));
    guest_driver_restart(&driver, 0);
    guest_driver_settle(&driver);
    assert_true(is_attached(0));
    assert_int_equal(vhosts[0].features, FEATURE(VIRTIO_F_VERSION_1));
    assert_int_equal(taps[0].offloads, 0);
}

static void test_notification_without_doorbell_reaches_the_kernel(void **state)
{
    (void)state;
    start(1, 0);
    rings(TX);
    guest_driver_notify(&driver, TX);
    assert_int_equal(rings(TX), 1);
}

static void test_queue_that_is_not_ready_is_left_out(void **state)
{
    (void)state;
    make(1);
    guest_driver_start(&driver, driver.device, 0);
    driver.device->queues[RX].ready = false;
    guest_driver_settle(&driver);
    assert_int_equal(vhosts[0].queues[RX].tap_fd, NOBODY);
    assert_int_equal(vhosts[0].queues[RX].size, 0);
    assert_int_equal(vhosts[0].queues[TX].tap_fd, taps[0].fd);
}

static void test_error_stops_the_device_until_it_is_reset(void **state)
{
    (void)state;
    start(1, 0);
    assert_int_equal(eventfd_write(vhosts[0].queues[TX].error_fd, 1), 0);
    guest_driver_settle(&driver);
    assert_true(driver.failed);
    assert_false(is_attached(0));
    next_driver();
    assert_false(driver.failed);
    assert_true(is_attached(0));
}

static void test_error_of_the_driver_before_is_not_held_against_the_next(void **state)
{
    (void)state;
    start(1, 0);
    assert_int_equal(eventfd_write(vhosts[0].queues[TX].error_fd, 1), 0);
    next_driver();
    assert_false(driver.failed);
    assert_true(is_attached(0));
}

static void test_kernel_that_refuses_the_queues_stops_the_device(void **state)
{
    static const unsigned long requests[] = {
        VHOST_SET_FEATURES,   VHOST_SET_MEM_TABLE,  VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE,  VHOST_SET_VRING_ADDR,
        VHOST_SET_VRING_CALL, VHOST_SET_VRING_KICK, VHOST_SET_VRING_ERR, VHOST_NET_SET_BACKEND,
    };

    (void)state;
    make(1);
    guest_driver_start(&driver, driver.device, 0);
    for (size_t i = 0; i < array_length(requests); i++) {
        refused = requests[i];
        refuse_after = i % 2; /* the first queue, or the second */
        if (i < 2)
            refuse_after = 0;
        guest_driver_settle(&driver);
        assert_true(driver.failed);
        assert_int_equal(refused, 0);
        assert_false(is_attached(0));
        guest_driver_reset(&driver);
        guest_driver_restart(&driver, 0);
    }
    guest_driver_settle(&driver);
    assert_false(driver.failed);
    assert_true(is_attached(0));
}

static void test_kernel_that_does_not_let_go_loses_the_queues(void **state)
{
    (void)state;
    start(1, 0);
    refused = VHOST_NET_SET_BACKEND;
    pause_device(true);
    assert_true(fcntl(vhosts[0].fd, F_GETFD) < 0);
    vhosts[0].fd = -1;
    pause_device(false);
    assert_true(driver.failed);
}

static void test_tap_that_refuses_the_offloads_fails_the_activation(void **state)
{
    (void)state;
    start(1, 0);
    guest_driver_reset(&driver);
    driver.device->driver_features = FEATURE(VIRTIO_NET_F_GUEST_CSUM);
    refused = TUNSETOFFLOAD;
    assert_false(driver.device->ops->activate(driver.device));
}

static void test_second_pair_rests_until_the_driver_asks_for_it(void **state)
{
    (void)state;
    start(PAIRS, QUEUES);
    assert_true(is_attached(0) && taps[0].attached);
    assert_false(is_attached(1) || taps[1].attached);
    assert_true(driver.served_here[CONTROL]);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    assert_true(is_attached(1) && taps[1].attached);
    assert_int_equal(rings(2), 1);
    assert_int_equal(rings(3), 1);
    guest_driver_reset(&driver);
    assert_false(is_attached(0) || is_attached(1) || taps[1].attached);
    assert_true(taps[0].attached);
    assert_false(driver.served_here[CONTROL]);
}

static void test_pairs_in_use_are_those_after_a_pause(void **state)
{
    (void)state;
    start(PAIRS, QUEUES);
    assert_int_equal(use_pairs(2), VIRTIO_NET_OK);
    pause_device(true);
    assert_false(is_attached(0) || is_attached(1));
    pause_device(false);
    assert_true(is_attached(0) && is_attached(1));
}

static void test_driver_of_one_pair_leaves_the_other_alone(void **state)
{
    (void)state;
    start(PAIRS, FEATURE(VIRTIO_NET_F_CTRL_VQ));
    assert_true(is_attached(0));
    assert_false(is_attached(1));
    assert_int_equal(vhosts[1].queues[RX].size, 0);
}

static void test_broken_control_queue_stops_the_device(void **state)
{
    (void)state;
    start(PAIRS, QUEUES);
    guest_ring_available_index(&driver.rings[CONTROL], 1000);
    guest_driver_notify(&driver, CONTROL);
    assert_true(driver.failed);
    assert_false(is_attached(0));
}

static void test_what_is_missing_is_named(void **state)
{
    struct virtio_device *device = NULL;

    (void)state;
    missing = true;
    assert_error(virtio_vhost_net_new(&config, driver.loop, &device), ERROR_HOST,
                 "vhost: cannot open /dev/vhost-net (modprobe "
                 "vhost_net; a jail has it by --vhost-net)");
    missing = false;
    vhost_count = tap_count = 0;
    refused = VHOST_SET_OWNER;
    assert_error(virtio_vhost_net_new(&config, driver.loop, &device), ERROR_HOST, "vhost: cannot take /dev/vhost-net");
    vhost_count = tap_count = 0;
    config.guest_mac = (char *)"06:00";
    assert_error(virtio_vhost_net_new(&config, driver.loop, &device), ERROR_INPUT, "guest_mac: \"06:00\"");
    assert_null(device);
}

#define vhost_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(vhost_test(test_kernel_gets_queues_memory_and_features), vhost_test(test_offer_is_what_kernel_and_tap_can_do),
          vhost_test(test_guest_finds_its_address_and_mtu), vhost_test(test_memory_to_be_plugged_is_told_as_a_whole),
          vhost_test(test_paused_device_is_out_of_the_kernels_hands),
          vhost_test(test_pause_right_after_the_start_leaves_it_to_resume),
          vhost_test(test_reset_takes_the_queues_and_the_next_driver_gives_others),
          vhost_test(test_notification_without_doorbell_reaches_the_kernel),
          vhost_test(test_queue_that_is_not_ready_is_left_out),
          vhost_test(test_error_stops_the_device_until_it_is_reset),
          vhost_test(test_error_of_the_driver_before_is_not_held_against_the_next),
          vhost_test(test_kernel_that_refuses_the_queues_stops_the_device),
          vhost_test(test_kernel_that_does_not_let_go_loses_the_queues),
          vhost_test(test_tap_that_refuses_the_offloads_fails_the_activation),
          vhost_test(test_second_pair_rests_until_the_driver_asks_for_it),
          vhost_test(test_pairs_in_use_are_those_after_a_pause),
          vhost_test(test_driver_of_one_pair_leaves_the_other_alone),
          vhost_test(test_broken_control_queue_stops_the_device), vhost_test(test_what_is_missing_is_named))
