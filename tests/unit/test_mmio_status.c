/* The status machine of the virtio-mmio transport. */
#include "tests/unit/mmio_fixture.h"

#include <linux/virtio_mmio.h>

static void test_driver_comes_up_step_by_step(void **state)
{
    (void)state;
    bring_up();
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(fixture.activations, 1);
    assert_true(fixture.device.active);
}

static void test_status_steps_cannot_be_skipped(void **state)
{
    (void)state;
    set_status(DRIVER);
    assert_int_equal(status(), 0);
    set_status(FEATURES_OK);
    assert_int_equal(status(), 0);
    set_status(DRIVER_OK);
    assert_int_equal(status(), 0);
    set_status(ACKNOWLEDGE | FEATURES_OK);
    assert_int_equal(status(), ACKNOWLEDGE);
    set_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER);
    assert_int_equal(fixture.activations, 0);
}

static void test_status_bits_go_away_by_reset_only(void **state)
{
    (void)state;
    bring_up();
    for (uint32_t bit = 1; bit <= 8; bit <<= 1) {
        set_status((ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK) & ~bit);
        assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }
    assert_int_equal(fixture.activations, 1);
    assert_int_equal(fixture.resets, 0);
    set_status(0);
    assert_int_equal(status(), 0);
    assert_int_equal(fixture.resets, 1);

    /* A step that would drop the bits before it is none. */
    negotiate(0);
    set_status(DRIVER_OK);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static void test_driver_cannot_set_needs_reset(void **state)
{
    (void)state;
    set_status(ACKNOWLEDGE | NEEDS_RESET);
    assert_int_equal(status() & NEEDS_RESET, 0);
}

static void test_failed_driver_must_reset(void **state)
{
    (void)state;
    negotiate(0);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED | DRIVER_OK);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED);
    bring_up();
    assert_int_equal(fixture.activations, 1);
}

static void test_reset_then_bring_up_works_again(void **state)
{
    (void)state;
    for (unsigned round = 1; round <= 3; round++) {
        bring_up();
        add_request(1);
        write32(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
        assert_true(guest_ring_has_used(&fixture.rings[1]));
        assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
        set_status(0);
        assert_int_equal(fixture.resets, round);
        assert_false(fixture.device.active);
        assert_int_equal(fixture.device.driver_features, 0);
        assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        assert_int_equal(fixture.queues[1].next_available, 0);
        assert_int_equal(fixture.queues[1].size_max, SIZE);
        assert_int_equal(read32(VIRTIO_MMIO_QUEUE_READY), 0);
    }
    /* What was selected is the first again. */
    write32(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    uint32_t high = read32(VIRTIO_MMIO_DEVICE_FEATURES);
    write32(VIRTIO_MMIO_QUEUE_SEL, QUEUES);
    set_status(0);
    assert_int_not_equal(read32(VIRTIO_MMIO_DEVICE_FEATURES), high);
    assert_int_equal(read32(VIRTIO_MMIO_QUEUE_NUM_MAX), SIZE);
}

static void test_refused_activation_sets_needs_reset(void **state)
{
    (void)state;
    fixture.refuse = true;
    bring_up();
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
    assert_false(fixture.device.active);
    add_request(0);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(fixture.notified[0], 0);

    fixture.refuse = false;
    bring_up();
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_true(fixture.device.active);
}

static void test_misplaced_queue_sets_needs_reset(void **state)
{
    (void)state;
    negotiate(0);
    configure_queue(0);
    configure_queue(1);
    write32(VIRTIO_MMIO_QUEUE_READY, 0);
    write32(VIRTIO_MMIO_QUEUE_USED_HIGH, 0xffffffff);
    write32(VIRTIO_MMIO_QUEUE_READY, 1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(status() & NEEDS_RESET, NEEDS_RESET);
    assert_int_equal(fixture.activations, 0);
}

static void test_wrong_queue_sizes_set_needs_reset(void **state)
{
    static const uint32_t sizes[] = {0, 3, SIZE * 2, 0x10000, 0x10000 | SIZE, 0xffffffff};

    (void)state;
    for (size_t i = 0; i < array_length(sizes); i++) {
        negotiate(0);
        configure_queue(0);
        write32(VIRTIO_MMIO_QUEUE_READY, 0);
        write32(VIRTIO_MMIO_QUEUE_NUM, sizes[i]);
        write32(VIRTIO_MMIO_QUEUE_READY, 1);
        set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_int_equal(status() & NEEDS_RESET, NEEDS_RESET);
    }
}

static void test_queue_left_out_stays_empty(void **state)
{
    (void)state;
    negotiate(0);
    configure_queue(1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(status() & NEEDS_RESET, 0);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(fixture.notified[0], 1);
    assert_int_equal(status() & NEEDS_RESET, 0);
}

TEST_MAIN(MMIO_TEST(test_driver_comes_up_step_by_step), MMIO_TEST(test_status_steps_cannot_be_skipped),
          MMIO_TEST(test_status_bits_go_away_by_reset_only), MMIO_TEST(test_driver_cannot_set_needs_reset),
          MMIO_TEST(test_failed_driver_must_reset), MMIO_TEST(test_reset_then_bring_up_works_again),
          MMIO_TEST(test_refused_activation_sets_needs_reset), MMIO_TEST(test_misplaced_queue_sets_needs_reset),
          MMIO_TEST(test_wrong_queue_sizes_set_needs_reset), MMIO_TEST(test_queue_left_out_stays_empty))
