/* The virtio-mmio transport: identity, features, config space, its place in a VM. */
#include "tests/unit/mmio_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

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

/* What lies behind the config space in our memory is none of the guest's business. */
static void test_nothing_beyond_config_space_is_told(void **state)
{
    uint8_t ours[64], told[8];

    (void)state;
    memset(ours, 0x55, sizeof(ours));
    for (uint32_t size = 0; size <= 12; size++)
        for (uint32_t offset = 0; offset <= 40; offset++)
            for (uint32_t length = 0; length <= sizeof(told); length++) {
                memset(told, 0xaa, sizeof(told));
                virtio_config_copy(ours, size, offset, told, length);
                for (uint32_t i = 0; i < sizeof(told); i++)
                    assert_int_equal(told[i], i >= length ? 0xaa : offset + i < size ? 0x55 : 0);
            }
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
    write_sized(VIRTIO_MMIO_CONFIG, 0xee, 1);
    assert_int_equal(fixture.config[0], 0xee);
}

static void test_config_space_that_a_device_does_not_have_is_left_alone(void **state)
{
    struct virtio_ops ops = fake_ops;

    (void)state;
    ops.config_read = NULL;
    ops.config_write = NULL;
    fixture.device.ops = &ops;
    bring_up();
    write_sized(VIRTIO_MMIO_CONFIG, 0xff, 1);
    virtio_device_config_changed(&fixture.device);
    fixture.device.ops = &fake_ops;
    assert_int_equal(fixture.config[0], 1);
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

static void test_expected_change_of_config_is_shown_without_a_word(void **state)
{
    (void)state;
    bring_up();
    uint32_t before = read32(VIRTIO_MMIO_CONFIG_GENERATION);
    fixture.config[0] = 0x55;
    virtio_device_config_shown(&fixture.device);
    assert_int_equal(read_sized(VIRTIO_MMIO_CONFIG, 1), 0x55);
    assert_int_not_equal(read32(VIRTIO_MMIO_CONFIG_GENERATION), before);
    assert_int_equal(read32(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG, 0);
}

static void test_registers_are_written_whole_and_aligned(void **state)
{
    (void)state;
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

static int need_kvm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0) {
        print_message("skipped: no /dev/kvm\n");
        skip();
    }
    return kvm;
}

/* Whether a write of `value` to the register ends in KVM, at an ioeventfd. */
static bool is_swallowed(int vm, uint64_t address, uint32_t value)
{
    cleanup_fd int fd = eventfd(0, EFD_CLOEXEC);
    struct kvm_ioeventfd again = {
        .datamatch = value, .addr = address, .len = 4, .fd = fd, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};

    return ioctl(vm, KVM_IOEVENTFD, &again) < 0 && errno == EEXIST;
}

static void test_acknowledgements_end_in_kvm(void **state)
{
    const uint64_t gpa = 0xd0000000;
    cleanup_fd int kvm = need_kvm();

    (void)state;
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        cleanup_fd int vm = ioctl(kvm, KVM_CREATE_VM, 0);

        assert_int_equal(ioctl(vm, KVM_CREATE_IRQCHIP, 0), 0);
        fixture.device.served_elsewhere = elsewhere;
        assert_no_error(virtio_mmio_connect(fixture.transport, vm, gpa, 5));
        assert_true(is_swallowed(vm, gpa + VIRTIO_MMIO_QUEUE_NOTIFY, 0));
        assert_true(is_swallowed(vm, gpa + VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING));
        /* What changes the register comes to us. */
        assert_false(is_swallowed(vm, gpa + VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG));
        assert_false(is_swallowed(vm, gpa + VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING));
    }
}

static void test_connect_to_one_vm_after_another(void **state)
{
    cleanup_fd int kvm = need_kvm();

    (void)state;
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

/* There may be more of them than a word has bits. */
static void test_all_queues_but_the_prompt_ones_have_a_doorbell(void **state)
{
    enum { MANY = 70 };
    cleanup_fd int kvm = need_kvm();
    struct virtqueue queues[MANY] = {0};
    struct virtio_device device = {
        .ops = &fake_ops, .id = "many", .queues = queues, .queue_count = MANY, .prompt_queues = 1};
    struct virtio_mmio *transport;

    (void)state;
    cleanup_fd int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    assert_int_equal(ioctl(vm, KVM_CREATE_IRQCHIP, 0), 0);
    assert_no_error(virtio_mmio_new(&device, &fixture.memory, fixture.loop, &transport));
    assert_no_error(virtio_mmio_connect(transport, vm, 0xd0001000, 6));
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(device.transport_ops->notify_fd(transport, i) >= 0, i != 0);
    virtio_mmio_free(transport);
    fixture.destroyed = 0;
}

TEST_MAIN(MMIO_TEST(test_all_queues_but_the_prompt_ones_have_a_doorbell),
          MMIO_TEST(test_registers_tell_what_the_device_is), MMIO_TEST(test_device_features_come_in_halves),
          MMIO_TEST(test_absent_shared_memory_reads_all_ones), MMIO_TEST(test_features_ok_needs_version_1),
          MMIO_TEST(test_features_ok_needs_a_subset_of_the_offer),
          MMIO_TEST(test_features_are_settled_after_features_ok), MMIO_TEST(test_config_space_is_read_in_any_width),
          MMIO_TEST(test_config_space_is_written_by_a_driver_only), MMIO_TEST(test_nothing_beyond_config_space_is_told),
          MMIO_TEST(test_expected_change_of_config_is_shown_without_a_word),
          MMIO_TEST(test_config_space_that_a_device_does_not_have_is_left_alone),
          MMIO_TEST(test_config_change_makes_another_generation),
          MMIO_TEST(test_registers_are_written_whole_and_aligned), MMIO_TEST(test_transport_survives_random_accesses),
          MMIO_TEST(test_connect_to_what_is_no_vm_names_the_device), MMIO_TEST(test_acknowledgements_end_in_kvm),
          MMIO_TEST(test_connect_to_one_vm_after_another))
