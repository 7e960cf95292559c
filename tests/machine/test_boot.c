/* From the API's first request to the guest's last word. */
#include "tests/machine/machine.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_guest_says_hello_and_resets(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "hello", "quiet panic=-1");
    vm_expect(vm, "hello\n");
    vm_expect(vm, "cmdline: quiet panic=-1");
    vm_expect_exit(vm, 0);
}

static void test_guest_gets_memory_of_the_size_asked_for(void **state)
{
    static const uint64_t sizes_mib[] = {2, 128, 3071, 3072, 3073, 4096, 8192};

    (void)state;
    for (size_t i = 0; i < array_length(sizes_mib); i++) {
        struct vm *vm = vm_start();
        uint64_t reported;
        char *total;

        vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":%lu}", (unsigned long)sizes_mib[i]);
        vm_boot(vm, "memory", NULL);
        vm_expect_exit(vm, 0);
        if (strstr(vm->output, "BAD") != NULL || strstr(vm->output, "beyond: nothing") == NULL)
            vm_fail(vm, "memory of %lu MiB is not what the memory map says", (unsigned long)sizes_mib[i]);
        total = strstr(vm->output, "total ");
        reported = strtoull(total + 6, NULL, 16);
        /* The first MiB has holes. */
        if (reported > sizes_mib[i] << 20 || reported + (1 << 20) < sizes_mib[i] << 20)
            vm_fail(vm, "the memory map has %lu bytes, expected about %lu MiB", (unsigned long)reported,
                    (unsigned long)sizes_mib[i]);
        machine_teardown(NULL);
    }
}

static void test_guest_finds_its_initrd(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_file(vm, "initrd", 10000, 'i');

    (void)state;
    vm_put(vm, "/boot-source", "{\"kernel_image_path\":\"%s\",\"initrd_path\":\"%s\",\"boot_args\":\"x\"}",
           guest_image("boot"), path);
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "boot flag aa55\n");
    vm_expect(vm, "initrd 2710\n");
    vm_expect(vm, "aligned ii rest 0\n");
    vm_expect_exit(vm, 0);
}

static void test_guest_boots_by_pvh(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "pvh", NULL);
    vm_expect(vm, "pvh");
    vm_expect_exit(vm, 0);
}

static void test_kernel_as_large_as_linux_boots(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "first_byte_14m", NULL);
    vm_expect(vm, "!");
}

static void test_boot_timer_is_logged(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.arguments = (const char *[]){"--boot-timer", NULL}});

    (void)state;
    vm_boot(vm, "hello", "boot_timer");
    vm_expect_exit(vm, 0);
    vm_expect_log(vm, "Guest-boot-time");
}

static void test_second_processor_starts(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":128}");
    vm_boot(vm, "smp", NULL);
    vm_expect(vm, "second processor runs\n");
    vm_expect_exit(vm, 0);
}

static void test_command_line_of_the_greatest_length_arrives(void **state)
{
    struct vm *vm = vm_start();
    char cmdline[1901];

    (void)state;
    memset(cmdline, 'c', sizeof(cmdline) - 1);
    cmdline[sizeof(cmdline) - 1] = '\0';
    vm_boot(vm, "hello", cmdline);
    vm_expect(vm, cmdline);
    vm_expect_exit(vm, 0);
}

static void test_configuration_file_boots_without_the_api(void **state)
{
    char path[] = "/tmp/mayfly-test-config-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    struct vm *vm;

    (void)state;
    assert_true(fd >= 0);
    dprintf(fd, "{\"boot-source\":{\"kernel_image_path\":\"%s\",\"boot_args\":\"from=file\"}}", guest_image("hello"));
    vm = vm_start_with(&(struct machine_options){
        .no_api = true, .arguments = (const char *[]){"--no-api", "--config-file", path, NULL}});
    vm_expect(vm, "cmdline: from=file");
    vm_expect_exit(vm, 0);
    unlink(path);
}

static void test_guest_that_uses_the_interval_timer_gets_one(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "pit", NULL);
    vm_expect(vm, "the timer counts\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_guest_that_uses_the_interval_timer_gets_one),
          machine_test(test_guest_says_hello_and_resets), machine_test(test_guest_gets_memory_of_the_size_asked_for),
          machine_test(test_guest_finds_its_initrd), machine_test(test_guest_boots_by_pvh),
          machine_test(test_kernel_as_large_as_linux_boots), machine_test(test_boot_timer_is_logged),
          machine_test(test_second_processor_starts), machine_test(test_command_line_of_the_greatest_length_arrives),
          machine_test(test_configuration_file_boots_without_the_api))
