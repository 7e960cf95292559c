#include "tests/unit/harness.h"

#include "vmm/arch/arch.h"
#include "vmm/pit.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { COMMAND = 3 };

static struct {
    struct pit pit;
    int kvm_fd, vm_fd;
} fixture;

static int setup(void **state)
{
    (void)state;
    fixture.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    fixture.vm_fd = fixture.kvm_fd < 0 ? -1 : ioctl(fixture.kvm_fd, KVM_CREATE_VM, 0);
    if (fixture.vm_fd >= 0)
        assert_no_error(arch_vm_setup(fixture.vm_fd));
    pit_init(&fixture.pit, fixture.vm_fd);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(fixture.vm_fd);
    close(fixture.kvm_fd);
    return 0;
}

static void needs_kvm(void)
{
    if (fixture.vm_fd < 0) {
        print_message("no usable /dev/kvm here\n");
        skip();
    }
}

static void out(uint64_t offset, uint8_t byte)
{
    pit_bus_ops.write(&fixture.pit, offset, &byte, 1);
}

/* KVM's PIT; fails when there is none. */
static struct kvm_pit_state2 kernel_state(void)
{
    struct kvm_pit_state2 state;

    assert_int_equal(ioctl(fixture.vm_fd, KVM_GET_PIT2, &state), 0);
    return state;
}

static bool kernel_has_pit(void)
{
    struct kvm_pit_state2 state;

    return ioctl(fixture.vm_fd, KVM_GET_PIT2, &state) == 0;
}

static void test_commands_alone_make_no_kernel_pit(void **state)
{
    uint8_t byte;

    (void)state;
    needs_kvm();
    out(COMMAND, 0x30);
    out(COMMAND, 0xc2); /* read-back */
    out(COMMAND, 0x00); /* latch */
    pit_gate_bus_ops.read(&fixture.pit, 0, &byte, 1);
    pit_bus_ops.read(&fixture.pit, COMMAND, &byte, 1);
    assert_false(kernel_has_pit());
}

static void test_first_count_byte_goes_on_in_the_kernel(void **state)
{
    (void)state;
    needs_kvm();
    out(COMMAND, 0xb6); /* channel 2, word, mode 3 */
    out(2, 0x34);

    struct kvm_pit_channel_state channel = kernel_state().channels[2];
    assert_int_equal(channel.mode, 3);
    assert_int_equal(channel.rw_mode, 3);
    assert_int_equal(channel.write_latch, 0x34);
    assert_int_equal(channel.write_state, 4);
}

static void test_single_bytes_become_the_count(void **state)
{
    (void)state;
    needs_kvm();
    out(COMMAND, 0x50); /* channel 1, low byte, mode 0 */
    out(COMMAND, 0xa4); /* channel 2, high byte, mode 2 */
    out(1, 0x12);
    assert_int_equal(kernel_state().channels[1].count, 0x12);
    assert_int_equal(kernel_state().channels[2].mode, 2);
    assert_int_equal(kernel_state().channels[2].rw_mode, 2);
}

static void test_gate_and_speaker_are_carried_over(void **state)
{
    uint8_t byte = 0xff;

    (void)state;
    needs_kvm();
    pit_gate_bus_ops.write(&fixture.pit, 0, &byte, 1);
    pit_gate_bus_ops.read(&fixture.pit, 0, &byte, 1);
    assert_int_equal(byte & 3, 3);
    out(COMMAND, 0xb0);
    out(2, 0xff);
    assert_int_equal(kernel_state().channels[2].gate, 1);
    assert_true((kernel_state().flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0);
}

static void test_reading_a_counter_makes_the_kernel_pit(void **state)
{
    uint8_t byte = 0xff;

    (void)state;
    needs_kvm();
    pit_bus_ops.read(&fixture.pit, 0, &byte, 1);
    assert_int_equal(byte, 0);
    assert_true(kernel_has_pit());
    out(0, 1); /* a vCPU that was on its way: harmless */
}

static void test_vm_without_irqchip_goes_on_without_timer(void **state)
{
    (void)state;
    needs_kvm();
    int bare = ioctl(fixture.kvm_fd, KVM_CREATE_VM, 0);

    pit_init(&fixture.pit, bare);
    out(COMMAND, 0x34);
    out(0, 1);
    out(0, 1);
    assert_true(fixture.pit.in_kernel);
    close(bare);
}

#define pit_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(pit_test(test_commands_alone_make_no_kernel_pit), pit_test(test_first_count_byte_goes_on_in_the_kernel),
          pit_test(test_single_bytes_become_the_count), pit_test(test_gate_and_speaker_are_carried_over),
          pit_test(test_reading_a_counter_makes_the_kernel_pit),
          pit_test(test_vm_without_irqchip_goes_on_without_timer))
