/*
 * The VMM prepares the machine when it is idle. Whatever is changed after that, the guest must find what was asked for
 * last. And a caller may hang up at any byte.
 */
#include "tests/machine/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Lets the VMM become idle, that is, prepare: each of these answers comes after what was queued before. */
static void let_it_prepare(struct vm *vm)
{
    for (int i = 0; i < 5; i++)
        free(vm_get(vm, "/"));
}

static void test_memory_size_changed_after_preparation_counts(void **state)
{
    static const unsigned sizes[] = {64, 4096, 16, 512};
    struct vm *vm = vm_start();
    char expected[64];

    (void)state;
    vm_boot_source(vm, "memory", NULL);
    for (size_t i = 0; i < array_length(sizes); i++) {
        vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":%u}", sizes[i]);
        let_it_prepare(vm);
    }
    vm_patch(vm, "/machine-config", "{\"mem_size_mib\":32}");
    vm_action(vm, "InstanceStart");
    snprintf(expected, sizeof(expected), "ram 100000 %x ok\n", 31 << 20);
    vm_expect(vm, expected);
    vm_expect(vm, "beyond: nothing\n");
    vm_expect_exit(vm, 0);
}

static void test_vcpu_count_changed_after_preparation_counts(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "smp", NULL);
    let_it_prepare(vm);
    vm_put(vm, "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":64}");
    let_it_prepare(vm);
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "second processor runs\n");
    vm_expect_exit(vm, 0);
}

static void test_boot_source_replaced_after_preparation_counts(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "triple_fault", "old");
    let_it_prepare(vm);
    vm_boot_source(vm, "first_byte_14m", "older");
    let_it_prepare(vm);
    vm_boot_source(vm, "hello", "new");
    let_it_prepare(vm);
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "hello\ncmdline: new");
    vm_expect_exit(vm, 0);
}

static void test_drive_replaced_after_preparation_counts(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "block", "ops=c,r0");
    vm_drive(vm, "disk", vm_file(vm, "old", 1 << 20, 'o'), "");
    let_it_prepare(vm);
    vm_drive(vm, "disk", vm_file(vm, "new", 4096, 'n'), "");
    let_it_prepare(vm);
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "capacity 8\nread 0 6e 6e\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_device_added_after_preparation_counts(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "entropy", NULL);
    let_it_prepare(vm);
    vm_drive(vm, "disk", vm_file(vm, "disk", 4096, 'd'), "");
    let_it_prepare(vm);
    vm_put(vm, "/entropy", "{}");
    let_it_prepare(vm);
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_configuration_is_refused_once_the_guest_runs(void **state)
{
    static const char *const requests[][2] = {
        {"/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":64}"},
        {"/boot-source", "{\"kernel_image_path\":\"/x\"}"},
        {"/drives/d", "{\"drive_id\":\"d\",\"path_on_host\":\"/x\",\"is_root_device\":false}"},
        {"/entropy", "{}"},
        {"/mayfly/console", "{\"ports\":[{\"name\":\"x\",\"output_path\":\"/x\"}]}"},
        {"/actions", "{\"action_type\":\"InstanceStart\"}"},
    };
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    for (size_t i = 0; i < array_length(requests); i++)
        vm_refuses(vm, "PUT", requests[i][0], requests[i][1], "running");
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_caller_may_hang_up_at_any_byte(void **state)
{
    static const char request[] = "PUT /machine-config HTTP/1.1\r\nContent-Type: application/json\r\n"
                                  "Content-Length: 36\r\n\r\n{\"vcpu_count\":1,\"mem_size_mib\":100 }";
    struct vm *vm = vm_start();

    (void)state;
    for (size_t length = 0; length < sizeof(request); length++) {
        int fd = vm_dial(vm);

        assert_int_equal(send(fd, request, length, MSG_NOSIGNAL), length);
        close(fd);
    }
    free(vm_get(vm, "/"));
    vm_boot(vm, "hello", NULL);
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
}

static void test_caller_that_hangs_up_after_starting_leaves_the_guest_running(void **state)
{
    static const char request[] =
        "PUT /actions HTTP/1.1\r\nContent-Length: 32\r\n\r\n{\"action_type\":\"InstanceStart\" }";
    struct vm *vm = vm_start();
    int fd;

    (void)state;
    vm_boot_source(vm, "hello", NULL);
    fd = vm_dial(vm);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    close(fd);
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_memory_size_changed_after_preparation_counts),
          machine_test(test_vcpu_count_changed_after_preparation_counts),
          machine_test(test_boot_source_replaced_after_preparation_counts),
          machine_test(test_drive_replaced_after_preparation_counts),
          machine_test(test_device_added_after_preparation_counts),
          machine_test(test_configuration_is_refused_once_the_guest_runs),
          machine_test(test_caller_may_hang_up_at_any_byte),
          machine_test(test_caller_that_hangs_up_after_starting_leaves_the_guest_running))
