/* What backs the guest's memory, and the largest machines. */
#include "tests/machine/fake_backend.h"
#include "tests/machine/huge_pages.h"
#include "tests/machine/machine.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static void put_huge(struct vm *vm, unsigned vcpus, unsigned mib, const char *pages)
{
    vm_put(vm, "/machine-config", "{\"vcpu_count\":%u,\"mem_size_mib\":%u,\"huge_pages\":\"%s\"}", vcpus, mib, pages);
}

static void copy_image(const char *guest, const char *to)
{
    cleanup_fd int in = open(guest_image(guest), O_RDONLY | O_CLOEXEC);
    cleanup_fd int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat status;

    assert_true(in >= 0 && out >= 0);
    assert_int_equal(fstat(in, &status), 0);
    for (off_t left = status.st_size; left > 0;) {
        ssize_t sent = sendfile(out, in, NULL, (size_t)left);

        assert_true(sent > 0);
        left -= sent;
    }
}

static void test_too_few_huge_pages_refuse_the_start(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    huge_pages_reserve(31);
    vm_boot_source(vm, "hello", NULL);
    put_huge(vm, 1, 64, "2M");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", "mem_size_mib: cannot map 64 MiB");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", "/proc/sys/vm/nr_hugepages");
    put_huge(vm, 1, 62, "2M");
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
}

static void test_guest_of_huge_pages_uses_them(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    huge_pages_reserve(32);
    put_huge(vm, 1, 64, "2M");
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    assert_int_equal(huge_pages_left(), 0); /* all of it is reserved */
    assert_true(huge_pages_free() < 32);    /* some of it is there */
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

/* A file cannot be mapped over huge pages: it was read, and nothing that happens to it matters. */
static void test_kernel_is_read_into_huge_pages(void **state)
{
    struct vm *vm = vm_start();
    const char *kernel = vm_path(vm, "kernel");

    (void)state;
    huge_pages_reserve(32);
    copy_image("image_end", kernel);
    put_huge(vm, 1, 64, "2M");
    vm_put(vm, "/boot-source", "{\"kernel_image_path\":\"%s\"}", kernel);
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "waiting\n");
    assert_int_equal(truncate(vm_path(vm, "kernel"), 0), 0);
    vm_say(vm, "\n");
    vm_expect(vm, "last 0\n");
    vm_expect_exit(vm, 0);
}

/* There are pages for one VM: each that was prepared must have given its own back when the next one needs them. */
static void test_prepared_vm_gives_its_huge_pages_to_the_next(void **state)
{
    (void)state;
    huge_pages_reserve(32);
    for (unsigned round = 0; round < 10; round++) {
        struct vm *vm = vm_start();

        for (unsigned change = 0; change < 5; change++) {
            put_huge(vm, 1 + change % 2, 64, "2M");
            vm_boot_source(vm, "hello", change % 2 == 0 ? "a" : "b");
            /* Sometimes it was prepared, sometimes half, sometimes not. */
            for (unsigned request = 0; request < round; request++)
                free(vm_get(vm, "/"));
        }
        put_huge(vm, 2, 64, "2M");
        vm_boot(vm, "hello", "last");
        vm_expect(vm, "cmdline: last");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

static void test_huge_pages_can_be_shared_with_a_back_end(void **state)
{
    struct vm *vm = vm_start();
    const char *disk = vm_file(vm, "disk", 1 << 20, 0);

    (void)state;
    huge_pages_reserve(32);
    pid_t backend = backend_start(vm_path(vm, "b.sock"), disk, BACKEND_WORKS);
    put_huge(vm, 1, 64, "2M");
    vm_put(vm, "/drives/disk", "{\"drive_id\":\"disk\",\"is_root_device\":false,\"socket\":\"%s\"}",
           vm_path(vm, "b.sock"));
    vm_boot(vm, "block", "ops=w3:A,r3");
    vm_expect(vm, "write 0\nread 0 41 41\ndone\n");
    vm_expect_exit(vm, 0);
    backend_end(backend);
}

static void test_transparent_and_tracked_memory_is_memory(void **state)
{
    static const char *const members[] = {"\"huge_pages\":\"Transparent\"", "\"huge_pages\":\"None\"",
                                          "\"track_dirty_pages\":true",
                                          "\"track_dirty_pages\":true,\"huge_pages\":\"Transparent\""};

    (void)state;
    for (size_t i = 0; i < array_length(members); i++) {
        struct vm *vm = vm_start();

        vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":4097,%s}", members[i]);
        vm_boot(vm, "memory", NULL);
        vm_expect(vm, "beyond: nothing\n");
        vm_expect_exit(vm, 0);
        if (strstr(vm->output, "BAD") != NULL)
            vm_fail(vm, "with %s memory is not memory", members[i]);
        machine_teardown(NULL);
    }
}

/* Writes by the device come from another address space than the guest's: both work with the log on. */
static void test_disk_works_with_dirty_pages_tracked(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"track_dirty_pages\":true}");
    vm_drive(vm, "disk", vm_file(vm, "disk", 1 << 20, 0), "");
    vm_boot(vm, "block", "ops=w3:A,r3,L0,m");
    vm_expect(vm, "write 0\nread 0 41 41\nlarge 0 0 same\nmany 0\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_all_of_32_processors_start(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":32,\"mem_size_mib\":128}");
    vm_boot(vm, "smp", "processors=32");
    vm_expect(vm, "all processors run\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(huge_pages_test(test_too_few_huge_pages_refuse_the_start),
          huge_pages_test(test_guest_of_huge_pages_uses_them), huge_pages_test(test_kernel_is_read_into_huge_pages),
          huge_pages_test(test_prepared_vm_gives_its_huge_pages_to_the_next),
          huge_pages_test(test_huge_pages_can_be_shared_with_a_back_end),
          machine_test(test_transparent_and_tracked_memory_is_memory),
          machine_test(test_disk_works_with_dirty_pages_tracked), machine_test(test_all_of_32_processors_start))
