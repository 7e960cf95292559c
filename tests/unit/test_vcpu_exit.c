/* Accesses to devices, and exits that no guest of the machine tests can bring about on every KVM. */
#include "tests/unit/harness.h"

#include "vmm/bus.h"
#include "vmm/exit_code.h"
#include "vmm/mapped_file.h"
#include "vmm/metrics.h"
#include "vmm/vcpu.h"
#include "vmm/vcpu_exit.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
    struct vcpus vcpus;
    struct kvm_run run;
    int ends;
    int exit_code;
    char reason[256];
} fixture;

static void ended(void *owner, int exit_code, const char *reason)
{
    (void)owner;
    fixture.ends++;
    fixture.exit_code = exit_code;
    snprintf(fixture.reason, sizeof(fixture.reason), "%s", reason);
}

static struct vcpu *setup_vcpu(void)
{
    struct vcpu *vcpu = &fixture.vcpus.vcpu[0];

    fixture.vcpus.end = ended;
    *vcpu = (struct vcpu){.vcpus = &fixture.vcpus, .run = &fixture.run, .fd = -1, .name = "vcpu0"};
    return vcpu;
}

static int setup(void **state)
{
    (void)state;
    memset(&fixture, 0, sizeof(fixture));
    assert_no_error(event_loop_new(&fixture.vcpus.loop));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    event_loop_free(fixture.vcpus.loop);
    return 0;
}

static void assert_ended(int exit_code, const char *text)
{
    assert_int_equal(fixture.ends, 1);
    assert_int_equal(fixture.exit_code, exit_code);
    if (strstr(fixture.reason, text) == NULL)
        fail_msg("\"%s\", expected \"%s\"", fixture.reason, text);
}

static void test_failure_with_a_truncated_file_has_its_own_exit_code(void **state)
{
    struct vcpu *vcpu = setup_vcpu();
    cleanup_fd int fd = memfd_create("kernel", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(ftruncate(fd, 8192), 0);
    mapped_file_add(fd, "kernel");
    vcpu_exit_failed(vcpu, EFAULT); /* the file is whole */
    assert_ended(EXIT_CODE_ERROR, "KVM_RUN of vcpu0: the guest touched memory that is not plugged");

    fixture.ends = 0;
    assert_int_equal(ftruncate(fd, 4096), 0);
    vcpu_exit_failed(vcpu, EFAULT);
    assert_ended(EXIT_CODE_SIGBUS, "KVM_RUN of vcpu0");

    /* The guest's own exceptions come of it too. */
    fixture.ends = 0;
    fixture.run.exit_reason = KVM_EXIT_SHUTDOWN;
    assert_false(vcpu_exit_handle(vcpu));
    assert_ended(EXIT_CODE_SIGBUS, "triple fault");

    fixture.ends = 0;
    fixture.run =
        (struct kvm_run){.exit_reason = KVM_EXIT_SYSTEM_EVENT, .system_event = {.type = KVM_SYSTEM_EVENT_RESET}};
    assert_false(vcpu_exit_handle(vcpu));
    assert_ended(EXIT_CODE_OK, "reset");
    mapped_file_forget(fd);
    assert_null(mapped_file_truncated());
}

static void test_touched_memory_that_is_not_there_is_told_with_its_address(void **state)
{
    static const uint64_t fault[] = {0, 0x123456789000, 4096};
    struct vcpu *vcpu = setup_vcpu();

    (void)state;
    fixture.run.exit_reason = 39; /* KVM_EXIT_MEMORY_FAULT */
    memcpy(fixture.run.padding, fault, sizeof(fault));
    vcpu_exit_failed(vcpu, EFAULT);
    assert_ended(EXIT_CODE_ERROR, "cannot be had, at 0x123456789000");
}

static void test_other_failures_of_kvm_are_told_by_their_names(void **state)
{
    (void)state;
    vcpu_exit_failed(setup_vcpu(), EIO);
    assert_ended(EXIT_CODE_ERROR, strerror(EIO));
}

static void test_exits_that_are_errors_end_the_guest_with_a_reason(void **state)
{
    static const struct {
        struct kvm_run run;
        int exit_code;
        const char *reason;
    } exits[] = {
        {{.exit_reason = KVM_EXIT_SHUTDOWN}, EXIT_CODE_ERROR, "triple fault"},
        {{.exit_reason = KVM_EXIT_HLT}, EXIT_CODE_ERROR, "halted"},
        {{.exit_reason = KVM_EXIT_INTERNAL_ERROR,
          .internal = {.suberror = KVM_INTERNAL_ERROR_EMULATION, .ndata = 1, .data = {0xabc}}},
         EXIT_CODE_ERROR,
         "cannot emulate), data 0xabc"},
        {{.exit_reason = KVM_EXIT_INTERNAL_ERROR, .internal = {.suberror = 99, .ndata = 0xffffffff}},
         EXIT_CODE_ERROR,
         "KVM internal error 99 (unknown), data 0x0 0x0 0x0 0x0"},
        {{.exit_reason = KVM_EXIT_FAIL_ENTRY, .fail_entry = {.hardware_entry_failure_reason = 0x21}},
         EXIT_CODE_ERROR,
         "hardware reason 0x21"},
        {{.exit_reason = KVM_EXIT_SYSTEM_EVENT, .system_event = {.type = KVM_SYSTEM_EVENT_SHUTDOWN}},
         EXIT_CODE_OK,
         "powered off"},
        {{.exit_reason = KVM_EXIT_SYSTEM_EVENT, .system_event = {.type = KVM_SYSTEM_EVENT_RESET}},
         EXIT_CODE_OK,
         "reset"},
        {{.exit_reason = KVM_EXIT_SYSTEM_EVENT, .system_event = {.type = KVM_SYSTEM_EVENT_CRASH}},
         EXIT_CODE_ERROR,
         "crash"},
        {{.exit_reason = KVM_EXIT_SYSTEM_EVENT, .system_event = {.type = 77}}, EXIT_CODE_ERROR, "system event 77"},
        {{.exit_reason = KVM_EXIT_DEBUG}, EXIT_CODE_ERROR, "unexpected KVM exit 4"},
        {{.exit_reason = 0xffffffff}, EXIT_CODE_ERROR, "unexpected KVM exit 4294967295"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(exits); i++) {
        struct vcpu *vcpu = setup_vcpu();

        fixture.run = exits[i].run;
        fixture.ends = 0;
        assert_false(vcpu_exit_handle(vcpu));
        assert_ended(exits[i].exit_code, exits[i].reason);
    }
}

/* --- Devices --- */

struct recorder {
    uint64_t offset;
    uint32_t length;
    uint8_t first;
    int calls;
};

static void recorder_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    struct recorder *recorder = device;

    *recorder = (struct recorder){.offset = offset, .length = length, .calls = recorder->calls + 1};
    memset(data, 0x5a, length);
}

static void recorder_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct recorder *recorder = device;

    *recorder = (struct recorder){.offset = offset, .length = length, .first = data[0], .calls = recorder->calls + 1};
}

static void access_memory(const struct bus *mmio, uint64_t gpa, uint32_t length, bool is_write, uint8_t first)
{
    struct vcpu *vcpu = setup_vcpu();

    fixture.vcpus.mmio = mmio;
    fixture.run = (struct kvm_run){
        .exit_reason = KVM_EXIT_MMIO,
        .mmio = {.phys_addr = gpa, .data = {first}, .len = length, .is_write = is_write},
    };
    assert_true(vcpu_exit_handle(vcpu));
}

static void test_access_reaches_its_device_with_an_offset(void **state)
{
    static const struct bus_ops ops = {.read = recorder_read, .write = recorder_write};
    struct bus mmio = {.count = 0};
    struct recorder low = {0}, high = {0};

    (void)state;
    assert_no_error(bus_add(&mmio, 0x2000, 0x100, &ops, &high));
    assert_no_error(bus_add(&mmio, 0x1000, 0x100, &ops, &low));
    access_memory(&mmio, 0x20fc, 4, false, 0);
    assert_int_equal(high.offset, 0xfc);
    assert_int_equal(high.length, 4);
    assert_int_equal(fixture.run.mmio.data[3], 0x5a);
    access_memory(&mmio, 0x1000, 1, true, 7);
    assert_int_equal(low.first, 7);
    assert_int_equal(low.calls, 1);
    assert_int_equal(high.calls, 1);
}

static void test_access_that_nobody_answers_reads_as_ones_and_is_counted(void **state)
{
    struct bus mmio = {.count = 0};
    uint64_t before = METRIC_TOTAL(vcpu.unknown_mmio);

    (void)state;
    access_memory(&mmio, 0x1000, 8, false, 1);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(fixture.run.mmio.data[i], 0xff);
    access_memory(&mmio, 0x1000, 8, true, 1);
    assert_int_equal(METRIC_TOTAL(vcpu.unknown_mmio), before + 2);
}

TEST_MAIN(cmocka_unit_test_setup_teardown(test_failure_with_a_truncated_file_has_its_own_exit_code, setup, teardown),
          cmocka_unit_test_setup_teardown(test_touched_memory_that_is_not_there_is_told_with_its_address, setup,
                                          teardown),
          cmocka_unit_test_setup_teardown(test_other_failures_of_kvm_are_told_by_their_names, setup, teardown),
          cmocka_unit_test_setup_teardown(test_exits_that_are_errors_end_the_guest_with_a_reason, setup, teardown),
          cmocka_unit_test_setup_teardown(test_access_reaches_its_device_with_an_offset, setup, teardown),
          cmocka_unit_test_setup_teardown(test_access_that_nobody_answers_reads_as_ones_and_is_counted, setup,
                                          teardown))
