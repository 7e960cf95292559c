/* Queue registers, notifications and interrupts of the virtio-mmio transport. */
#include "tests/unit/mmio_fixture.h"

#include <linux/virtio_mmio.h>

#include "vmm/metrics.h"

/* Queue registers */

static void test_queues_are_laid_out_between_features_ok_and_driver_ok_only(void **state)
{
    (void)state;
    set_status(ACKNOWLEDGE);
    set_status(ACKNOWLEDGE | DRIVER);
    configure_queue(0);
    assert_false(fixture.queues[0].ready);
    assert_int_equal(fixture.queues[0].size, 0);
    assert_int_equal(fixture.queues[0].descriptor_gpa, 0);

    bring_up();
    const struct virtqueue before = fixture.queues[0];
    write32(VIRTIO_MMIO_QUEUE_SEL, 0);
    write32(VIRTIO_MMIO_QUEUE_READY, 0);
    write32(VIRTIO_MMIO_QUEUE_NUM, 1);
    write32(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1234);
    write32(VIRTIO_MMIO_QUEUE_USED_HIGH, 0x1234);
    assert_memory_equal(&fixture.queues[0], &before, sizeof(before));
    assert_int_equal(read32(VIRTIO_MMIO_QUEUE_READY), 1);
}

static void test_ready_queue_keeps_its_place(void **state)
{
    (void)state;
    negotiate(0);
    configure_queue(0);
    uint64_t gpa = fixture.queues[0].descriptor_gpa;
    write32(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x8000);
    assert_int_equal(fixture.queues[0].descriptor_gpa, gpa);
    write32(VIRTIO_MMIO_QUEUE_READY, 0);
    write32(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x8000);
    assert_int_equal(fixture.queues[0].descriptor_gpa, 0x8000);
}

/* Each register is half an address, and has nothing to do with the others. */
static void test_queue_addresses_are_written_in_halves(void **state)
{
    const struct virtqueue *queue = &fixture.queues[1];

    (void)state;
    negotiate(0);
    write32(VIRTIO_MMIO_QUEUE_SEL, 1);
    write32(VIRTIO_MMIO_QUEUE_USED_HIGH, 6);
    write32(VIRTIO_MMIO_QUEUE_USED_LOW, 0x6000);
    write32(VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 5);
    write32(VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x5000);
    write32(VIRTIO_MMIO_QUEUE_DESC_HIGH, 4);
    write32(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x4000);
    write32(VIRTIO_MMIO_QUEUE_NUM, 8);
    assert_int_equal(queue->descriptor_gpa, 0x400004000);
    assert_int_equal(queue->driver_gpa, 0x500005000);
    assert_int_equal(queue->device_gpa, 0x600006000);
    assert_int_equal(queue->size, 8);
    assert_int_equal(fixture.queues[0].descriptor_gpa, 0);
}

static void test_registers_of_a_queue_that_is_not_there_are_ignored(void **state)
{
    (void)state;
    negotiate(0);
    write32(VIRTIO_MMIO_QUEUE_SEL, QUEUES);
    write32(VIRTIO_MMIO_QUEUE_NUM, SIZE);
    write32(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_int_equal(read32(VIRTIO_MMIO_QUEUE_READY), 0);
}

/* Notifications and interrupts */

static void test_notify_reaches_the_queue_it_names(void **state)
{
    (void)state;
    bring_up();
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_int_equal(fixture.notified[0], 0);
    assert_int_equal(fixture.notified[1], 1);
}

static void test_notify_is_ignored_when_nobody_listens(void **state)
{
    (void)state;
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    negotiate(0);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    bring_up();
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, QUEUES);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0xffffffff);
    set_status(0);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(fixture.notified[0], 0);
    assert_int_equal(fixture.notified[1], 0);
}

static void test_change_of_config_is_told_until_acknowledged(void **state)
{
    (void)state;
    bring_up();
    uint64_t before = metrics.interrupt_triggers;
    add_request(0);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    virtio_device_config_changed(&fixture.device);
    assert_int_equal(metrics.interrupt_triggers, before + 2);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
    write32(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
    write32(VIRTIO_MMIO_INTERRUPT_ACK, 0xffffffff);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
}

static void test_no_interrupt_without_used_buffers(void **state)
{
    (void)state;
    bring_up();
    uint64_t before = metrics.interrupt_triggers;
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(metrics.interrupt_triggers, before);
}

static void test_broken_queue_stops_the_device_until_reset(void **state)
{
    (void)state;
    bring_up();
    guest_ring_publish(&fixture.rings[0], SIZE);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(status() & NEEDS_RESET, NEEDS_RESET);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
    add_request(1);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_int_equal(fixture.notified[1], 0);
    assert_false(guest_ring_has_used(&fixture.rings[1]));

    bring_up();
    assert_int_equal(fixture.resets, 1);
    add_request(1);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_true(guest_ring_has_used(&fixture.rings[1]));
}

static void test_pause_holds_notifications_and_resume_looks_again(void **state)
{
    (void)state;
    bring_up();
    virtio_mmio_pause(fixture.transport);
    virtio_mmio_pause(fixture.transport);
    assert_int_equal(fixture.pauses, 1);
    add_request(1);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_int_equal(fixture.notified[1], 0);
    virtio_mmio_resume(fixture.transport);
    virtio_mmio_resume(fixture.transport);
    assert_int_equal(fixture.notified[0], 1);
    assert_int_equal(fixture.notified[1], 1);
    assert_true(guest_ring_has_used(&fixture.rings[1]));
}

/* One notification more, and what was on its way, change nothing that the driver sees. */
static void test_failed_device_gives_nothing_back(void **state)
{
    struct virtqueue_chain chain;

    (void)state;
    bring_up();
    add_request(0);
    assert_int_equal(virtqueue_pop(&fixture.queues[0], &chain), VIRTQUEUE_CHAIN);
    uint64_t before = metrics.interrupt_triggers;
    virtio_device_fail(&fixture.device, "something");
    virtio_device_fail(&fixture.device, "something else");
    assert_int_equal(metrics.interrupt_triggers, before + 1);
    virtqueue_push(&fixture.queues[0], chain.head, 0);
    virtio_device_signal(&fixture.device, 0);
    virtio_device_signal_all(&fixture.device);
    assert_false(guest_ring_has_used(&fixture.rings[0]));
    assert_int_equal(metrics.interrupt_triggers, before + 1);
    write_sized(VIRTIO_MMIO_CONFIG, 0xff, 1);
    assert_int_equal(fixture.config[0], 1);
}

static unsigned resumes;

static void count_resume(struct virtio_device *device)
{
    (void)device;
    resumes++;
}

/* Who has a way of its own to go on looks at its queues itself; one that failed waits for its reset, one without a
 * driver for a driver. */
static void test_resume_is_for_devices_that_work(void **state)
{
    struct virtio_ops ops = fake_ops;

    (void)state;
    resumes = 0;
    ops.resume = count_resume;
    fixture.device.ops = &ops;
    bring_up();
    virtio_mmio_pause(fixture.transport);
    virtio_mmio_resume(fixture.transport);
    assert_int_equal(resumes, 1);
    assert_int_equal(fixture.notified[0], 0);

    virtio_device_fail(&fixture.device, "something");
    virtio_mmio_pause(fixture.transport);
    virtio_mmio_resume(fixture.transport);
    set_status(0);
    virtio_mmio_pause(fixture.transport);
    virtio_mmio_resume(fixture.transport);
    assert_int_equal(resumes, 1);
    fixture.device.ops = &fake_ops;
}

/* Acknowledgements, and interrupts of other processes, come past us. Before it works there cannot be a used buffer. */
static void test_device_that_works_may_always_have_used_buffers(void **state)
{
    (void)state;
    negotiate(OFFERED);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    bring_up();
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    virtio_device_config_changed(&fixture.device);
    write32(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);

    /* Not after a reset, and not while it does not work. */
    set_status(0);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    fixture.refuse = true;
    bring_up();
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
    write32(VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void forget(struct event_timer *timer)
{
    (void)timer;
}

static void hold_a_signal(void)
{
    fixture.device.held.expired = forget;
    event_timer_set(fixture.loop, &fixture.device.held, UINT64_MAX);
}

static void test_signal_that_waits_ends_with_pause_reset_and_device(void **state)
{
    (void)state;
    bring_up();
    hold_a_signal();
    virtio_mmio_pause(fixture.transport);
    assert_null(fixture.device.held.loop);
    virtio_mmio_resume(fixture.transport);
    hold_a_signal();
    set_status(0);
    assert_null(fixture.device.held.loop);
    hold_a_signal();
    virtio_mmio_free(fixture.transport);
    assert_null(fixture.device.held.loop);
    fixture.transport = NULL;
}

static void test_pause_of_an_inactive_device_is_nothing(void **state)
{
    (void)state;
    virtio_mmio_pause(fixture.transport);
    virtio_mmio_resume(fixture.transport);
    assert_int_equal(fixture.pauses, 0);
    assert_int_equal(fixture.notified[0], 0);
    bring_up();
    assert_int_equal(fixture.activations, 1);
}

TEST_MAIN(MMIO_TEST(test_queues_are_laid_out_between_features_ok_and_driver_ok_only),
          MMIO_TEST(test_ready_queue_keeps_its_place), MMIO_TEST(test_queue_addresses_are_written_in_halves),
          MMIO_TEST(test_registers_of_a_queue_that_is_not_there_are_ignored),
          MMIO_TEST(test_notify_reaches_the_queue_it_names), MMIO_TEST(test_notify_is_ignored_when_nobody_listens),
          MMIO_TEST(test_change_of_config_is_told_until_acknowledged),
          MMIO_TEST(test_no_interrupt_without_used_buffers), MMIO_TEST(test_broken_queue_stops_the_device_until_reset),
          MMIO_TEST(test_pause_holds_notifications_and_resume_looks_again),
          MMIO_TEST(test_failed_device_gives_nothing_back), MMIO_TEST(test_resume_is_for_devices_that_work),
          MMIO_TEST(test_device_that_works_may_always_have_used_buffers),
          MMIO_TEST(test_signal_that_waits_ends_with_pause_reset_and_device),
          MMIO_TEST(test_pause_of_an_inactive_device_is_nothing))
