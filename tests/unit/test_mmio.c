#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"

#include "vmm/metrics.h"
#include "vmm/virtio/mmio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/ioctl.h>

/* The virtio-mmio transport (virtio 1.2, sections 2.1, 3.1 and 4.2) with a device that only keeps count. */

enum { QUEUES = 2, SIZE = 16, OFFERED = 1 << 3 };

#define ACKNOWLEDGE VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define FAILED VIRTIO_CONFIG_S_FAILED

struct fixture {
    struct guest_memory memory;
    struct guest_ring rings[QUEUES];
    struct event_loop *loop;
    struct virtio_mmio *transport;

    struct virtio_device device;
    struct virtqueue queues[QUEUES];
    uint8_t config[12];
    bool refuse;
    unsigned activations, resets, destroyed, pauses;
    unsigned notified[QUEUES];
};

static struct fixture fixture;

static void fake_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    (void)device;
    virtio_config_copy(fixture.config, sizeof(fixture.config), offset, data, length);
}

static void fake_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
    (void)device;
    for (uint32_t i = 0; i < length && offset + i < sizeof(fixture.config); i++)
        fixture.config[offset + i] = data[i];
}

static bool fake_activate(struct virtio_device *device)
{
    (void)device;
    fixture.activations++;
    return !fixture.refuse;
}

static void fake_notify(struct virtio_device *device, unsigned index)
{
    struct virtqueue_chain chain;

    fixture.notified[index]++;
    switch (virtqueue_pop(&device->queues[index], &chain)) {
    case VIRTQUEUE_CHAIN:
        virtqueue_push(&device->queues[index], chain.head, 0);
        virtio_device_signal(device, index);
        break;
    case VIRTQUEUE_BROKEN:
        virtio_device_fail(device, "the queue is broken");
        break;
    default:
        break;
    }
}

static void fake_reset(struct virtio_device *device)
{
    (void)device;
    fixture.resets++;
}

static void fake_pause(struct virtio_device *device)
{
    (void)device;
    fixture.pauses++;
}

static void fake_destroy(struct virtio_device *device)
{
    (void)device;
    fixture.destroyed++;
}

static const struct virtio_ops fake_ops = {
    .type = VIRTIO_ID_BLOCK,
    .name = "fake",
    .config_read = fake_config_read,
    .config_write = fake_config_write,
    .activate = fake_activate,
    .notify = fake_notify,
    .reset = fake_reset,
    .pause = fake_pause,
    .destroy = fake_destroy,
};

static int setup(void **state)
{
    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    guest_memory_setup(&fixture.memory);
    assert_no_error(event_loop_new(&fixture.loop));
    for (size_t i = 0; i < sizeof(fixture.config); i++)
        fixture.config[i] = (uint8_t)(i + 1);
    for (unsigned i = 0; i < QUEUES; i++)
        fixture.queues[i].size_max = SIZE;
    fixture.device = (struct virtio_device){
        .ops = &fake_ops,
        .id = "test",
        .features = OFFERED,
        .queues = fixture.queues,
        .queue_count = QUEUES,
    };
    assert_no_error(virtio_mmio_new(&fixture.device, &fixture.memory, fixture.loop, &fixture.transport));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    virtio_mmio_free(fixture.transport);
    assert_int_equal(fixture.destroyed, 1);
    event_loop_free(fixture.loop);
    guest_memory_unmap(&fixture.memory);
    return 0;
}

/* What a vCPU does. */

static uint64_t read_sized(uint64_t offset, uint32_t length)
{
    uint64_t value = 0;
    uint8_t data[8];

    memset(data, 0xaa, sizeof(data));
    virtio_mmio_bus_ops.read(fixture.transport, offset, data, length);
    memcpy(&value, data, length);
    return value;
}

static uint32_t read32(uint64_t offset)
{
    return (uint32_t)read_sized(offset, 4);
}

static void write_sized(uint64_t offset, uint64_t value, uint32_t length)
{
    uint8_t data[8];

    memcpy(data, &value, sizeof(data));
    virtio_mmio_bus_ops.write(fixture.transport, offset, data, length);
}

static void write32(uint64_t offset, uint32_t value)
{
    write_sized(offset, value, 4);
}

static uint32_t status(void)
{
    return read32(VIRTIO_MMIO_STATUS);
}

static void set_status(uint32_t bits)
{
    write32(VIRTIO_MMIO_STATUS, bits);
}

static void write_features(uint64_t features)
{
    write32(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    write32(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
    write32(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write32(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
}

static void configure_queue(unsigned index)
{
    struct guest_ring *ring = &fixture.rings[index];

    guest_ring_init(ring, &fixture.memory, GUEST_RINGS_GPA + index * GUEST_RING_STRIDE, SIZE);
    write32(VIRTIO_MMIO_QUEUE_SEL, index);
    write32(VIRTIO_MMIO_QUEUE_NUM, SIZE);
    write32(VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)ring->descriptor_gpa);
    write32(VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(ring->descriptor_gpa >> 32));
    write32(VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)ring->driver_gpa);
    write32(VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(ring->driver_gpa >> 32));
    write32(VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)ring->device_gpa);
    write32(VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(ring->device_gpa >> 32));
    write32(VIRTIO_MMIO_QUEUE_READY, 1);
}

static void negotiate(uint64_t features)
{
    set_status(0);
    set_status(ACKNOWLEDGE);
    set_status(ACKNOWLEDGE | DRIVER);
    write_features(features | 1ULL << VIRTIO_F_VERSION_1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static void bring_up(void)
{
    negotiate(OFFERED);
    for (unsigned i = 0; i < QUEUES; i++)
        configure_queue(i);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void add_request(unsigned index)
{
    const struct guest_buffer buffer = {0x100000, 16, true};

    guest_ring_add(&fixture.rings[index], &buffer, 1);
}

/* Identity and features */

static void test_registers_tell_what_the_device_is(void **state)
{
    (void)state;
    assert_int_equal(read32(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
    assert_int_equal(read32(VIRTIO_MMIO_VERSION), 2);
    assert_int_equal(read32(VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_BLOCK);
    assert_int_equal(read32(VIRTIO_MMIO_QUEUE_NUM_MAX), SIZE);
    write32(VIRTIO_MMIO_QUEUE_SEL, QUEUES);
    assert_int_equal(read32(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    write32(VIRTIO_MMIO_QUEUE_SEL, 0xffffffff);
    assert_int_equal(read32(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    assert_int_equal(read32(VIRTIO_MMIO_STATUS), 0);
}

static void test_device_features_come_in_halves(void **state)
{
    (void)state;
    write32(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    assert_int_equal(read32(VIRTIO_MMIO_DEVICE_FEATURES),
                     OFFERED | 1U << VIRTIO_RING_F_INDIRECT_DESC | 1U << VIRTIO_RING_F_EVENT_IDX);
    write32(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    assert_int_equal(read32(VIRTIO_MMIO_DEVICE_FEATURES), 1U << (VIRTIO_F_VERSION_1 - 32));
    write32(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_int_equal(read32(VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

static void test_absent_shared_memory_reads_all_ones(void **state)
{
    (void)state;
    write32(VIRTIO_MMIO_SHM_SEL, 0);
    assert_int_equal(read32(VIRTIO_MMIO_SHM_LEN_LOW), 0xffffffff);
    assert_int_equal(read32(VIRTIO_MMIO_SHM_LEN_HIGH), 0xffffffff);
}

static void test_features_ok_needs_version_1(void **state)
{
    (void)state;
    set_status(ACKNOWLEDGE);
    set_status(ACKNOWLEDGE | DRIVER);
    write_features(OFFERED);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER);
    /* The driver may think again. */
    write_features(1ULL << VIRTIO_F_VERSION_1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static void test_features_ok_needs_a_subset_of_the_offer(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        if (bit == 3 || bit == VIRTIO_RING_F_INDIRECT_DESC || bit == VIRTIO_RING_F_EVENT_IDX ||
            bit == VIRTIO_F_VERSION_1)
            continue;
        set_status(0);
        set_status(ACKNOWLEDGE);
        set_status(ACKNOWLEDGE | DRIVER);
        write_features(1ULL << bit | 1ULL << VIRTIO_F_VERSION_1);
        set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_int_equal(status(), ACKNOWLEDGE | DRIVER);
        assert_int_equal(fixture.device.driver_features, 0);
    }
}

static void test_features_are_settled_after_features_ok(void **state)
{
    (void)state;
    negotiate(OFFERED);
    write_features(0);
    assert_int_equal(fixture.device.driver_features, OFFERED | 1ULL << VIRTIO_F_VERSION_1);
    for (unsigned i = 0; i < QUEUES; i++)
        configure_queue(i);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(fixture.device.driver_features, OFFERED | 1ULL << VIRTIO_F_VERSION_1);
}

/* The status machine */

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

static void test_interrupt_status_is_kept_until_acknowledged(void **state)
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
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
    write32(VIRTIO_MMIO_INTERRUPT_ACK, 0xffffffff);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void test_no_interrupt_without_used_buffers(void **state)
{
    (void)state;
    bring_up();
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void test_broken_queue_stops_the_device_until_reset(void **state)
{
    (void)state;
    bring_up();
    guest_ring_publish(&fixture.rings[0], SIZE);
    write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_int_equal(status() & NEEDS_RESET, NEEDS_RESET);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
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

/* Config space */

static void test_config_space_is_read_in_any_width(void **state)
{
    (void)state;
    assert_int_equal(read_sized(VIRTIO_MMIO_CONFIG + 1, 1), 0x02);
    assert_int_equal(read_sized(VIRTIO_MMIO_CONFIG + 2, 2), 0x0403);
    assert_int_equal(read_sized(VIRTIO_MMIO_CONFIG + 4, 4), 0x08070605);
    assert_int_equal(read_sized(VIRTIO_MMIO_CONFIG, 8), 0x0807060504030201);
    assert_int_equal(read_sized(VIRTIO_MMIO_CONFIG + 8, 8), 0x0c0b0a09);
    assert_int_equal(read_sized(VIRTIO_MMIO_CONFIG + 12, 4), 0);
    assert_int_equal(read_sized(VIRTIO_MMIO_SIZE - 4, 4), 0);
}

static void test_config_space_is_written_by_a_driver_only(void **state)
{
    (void)state;
    write_sized(VIRTIO_MMIO_CONFIG, 0xff, 1);
    assert_int_equal(fixture.config[0], 1);
    bring_up();
    write_sized(VIRTIO_MMIO_CONFIG + 10, 0x11223344, 4);
    assert_int_equal(fixture.config[10], 0x44);
    assert_int_equal(fixture.config[11], 0x33);
}

static void test_config_change_makes_another_generation(void **state)
{
    (void)state;
    uint32_t before = read32(VIRTIO_MMIO_CONFIG_GENERATION);

    /* No driver to tell yet, but it may be reading. */
    virtio_device_config_changed(&fixture.device);
    assert_int_not_equal(read32(VIRTIO_MMIO_CONFIG_GENERATION), before);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void test_registers_are_accessed_whole_and_aligned(void **state)
{
    (void)state;
    assert_int_equal(read_sized(VIRTIO_MMIO_MAGIC_VALUE, 1), 0);
    assert_int_equal(read_sized(VIRTIO_MMIO_MAGIC_VALUE, 2), 0);
    assert_int_equal(read_sized(VIRTIO_MMIO_MAGIC_VALUE, 8), 0);
    assert_int_equal(read_sized(VIRTIO_MMIO_MAGIC_VALUE + 1, 4), 0);
    write_sized(VIRTIO_MMIO_STATUS, ACKNOWLEDGE, 1);
    write_sized(VIRTIO_MMIO_STATUS, ACKNOWLEDGE, 8);
    write_sized(VIRTIO_MMIO_STATUS + 2, ACKNOWLEDGE, 4);
    assert_int_equal(status(), 0);
}

/* Any register, any width, any value, in any order: the sanitizers watch. */
static void test_transport_survives_random_accesses(void **state)
{
    uint64_t seed = 0x2545f4914f6cdd1d;

    (void)state;
    for (unsigned i = 0; i < 300000; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t offset = (seed >> 56) < 200 ? (seed >> 40) % 0x110 & ~3ULL : (seed >> 40) % (VIRTIO_MMIO_SIZE - 8);
        uint32_t length = (seed >> 20) % 8 == 0 ? (uint32_t)(seed >> 23) % 8 + 1 : 4;
        uint32_t value = (uint32_t)(seed >> 32) & (uint32_t)((seed >> 12) % 3 == 0 ? 0xf : 0xffffffff);

        if (i % 64 == 0)
            bring_up();
        if ((seed >> 30) % 2 == 0)
            read_sized(offset, length);
        else
            write_sized(offset, value, length);
    }
    set_status(0);
    bring_up();
    assert_int_equal(status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

/* Connecting to a VM */

static void test_connect_to_what_is_no_vm_names_the_device(void **state)
{
    (void)state;
    assert_error(virtio_mmio_connect(fixture.transport, -1, 0xd0000000, 5), ERROR_HOST,
                 "cannot connect fake \"test\" to the VM");
}

static void test_connect_to_one_vm_after_another(void **state)
{
    cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    (void)state;
    if (kvm < 0) {
        print_message("skipped: no /dev/kvm\n");
        skip();
    }
    for (int round = 0; round < 2; round++) {
        cleanup_fd int vm = ioctl(kvm, KVM_CREATE_VM, 0);

        assert_true(vm >= 0);
        assert_int_equal(ioctl(vm, KVM_CREATE_IRQCHIP, 0), 0);
        assert_no_error(virtio_mmio_connect(fixture.transport, vm, 0xd0000000, 5));
        bring_up();
        add_request(0);
        write32(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    }
}

#define MMIO_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

TEST_MAIN(MMIO_TEST(test_registers_tell_what_the_device_is), MMIO_TEST(test_device_features_come_in_halves),
          MMIO_TEST(test_absent_shared_memory_reads_all_ones), MMIO_TEST(test_features_ok_needs_version_1),
          MMIO_TEST(test_features_ok_needs_a_subset_of_the_offer),
          MMIO_TEST(test_features_are_settled_after_features_ok), MMIO_TEST(test_driver_comes_up_step_by_step),
          MMIO_TEST(test_status_steps_cannot_be_skipped), MMIO_TEST(test_status_bits_go_away_by_reset_only),
          MMIO_TEST(test_driver_cannot_set_needs_reset), MMIO_TEST(test_failed_driver_must_reset),
          MMIO_TEST(test_reset_then_bring_up_works_again), MMIO_TEST(test_refused_activation_sets_needs_reset),
          MMIO_TEST(test_misplaced_queue_sets_needs_reset), MMIO_TEST(test_wrong_queue_sizes_set_needs_reset),
          MMIO_TEST(test_queue_left_out_stays_empty),
          MMIO_TEST(test_queues_are_laid_out_between_features_ok_and_driver_ok_only),
          MMIO_TEST(test_ready_queue_keeps_its_place),
          MMIO_TEST(test_registers_of_a_queue_that_is_not_there_are_ignored),
          MMIO_TEST(test_notify_reaches_the_queue_it_names), MMIO_TEST(test_notify_is_ignored_when_nobody_listens),
          MMIO_TEST(test_interrupt_status_is_kept_until_acknowledged),
          MMIO_TEST(test_no_interrupt_without_used_buffers), MMIO_TEST(test_broken_queue_stops_the_device_until_reset),
          MMIO_TEST(test_pause_holds_notifications_and_resume_looks_again),
          MMIO_TEST(test_pause_of_an_inactive_device_is_nothing), MMIO_TEST(test_config_space_is_read_in_any_width),
          MMIO_TEST(test_config_space_is_written_by_a_driver_only),
          MMIO_TEST(test_config_change_makes_another_generation),
          MMIO_TEST(test_registers_are_accessed_whole_and_aligned), MMIO_TEST(test_transport_survives_random_accesses),
          MMIO_TEST(test_connect_to_what_is_no_vm_names_the_device), MMIO_TEST(test_connect_to_one_vm_after_another))
