/* Disks, by both engines: the guest program runs the operations of its command line. */
#include "tests/machine/machine.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DISK_SIZE = 1 << 20, SECTOR = 512 };

static const char *const engines[] = {"Sync", "Async"};

static void add_disk(struct vm *vm, const char *id, const char *path, const char *engine, const char *more)
{
    char members[256];

    snprintf(members, sizeof(members), ",\"io_engine\":\"%s\"%s", engine, more);
    vm_drive(vm, id, path, members);
}

/* A VM with one disk of zeros, "disk". */
static struct vm *start_with_disk(const char *engine, const char *more)
{
    struct vm *vm = vm_start();

    add_disk(vm, "disk", vm_file(vm, "disk", DISK_SIZE, 0), engine, more);
    return vm;
}

static char byte_of(struct vm *vm, const char *name, off_t offset)
{
    cleanup_fd int fd = open(vm_path(vm, name), O_RDONLY | O_CLOEXEC);
    char byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    return byte;
}

static void test_disk_reads_writes_and_flushes(void **state)
{
    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = start_with_disk(engines[i], ",\"cache_type\":\"Writeback\"");

        vm_boot(vm, "block", "ops=c,r3,w3:A,r3,w2047:Z,f,L0,m,i,u,R,r3");
        vm_expect(vm, "capacity 800\nread 0 0 0\nwrite 0\nread 0 41 41\nwrite 0\nflush 0\nlarge 0 0 same\nmany 0\n");
        vm_expect(vm, "id 0 ");
        vm_expect(vm, "unknown 2\nreopened\nread 0 41 41\ndone\n");
        vm_expect_exit(vm, 0);
        assert_int_equal(byte_of(vm, "disk", 3 * SECTOR), 'A');
        assert_int_equal(byte_of(vm, "disk", 4 * SECTOR - 1), 'A');
        assert_int_equal(byte_of(vm, "disk", 4 * SECTOR), 0);
        assert_int_equal(byte_of(vm, "disk", DISK_SIZE - 1), 'Z');
        machine_teardown(NULL);
    }
}

static void test_disk_discards_and_writes_zeroes(void **state)
{
    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = start_with_disk(engines[i], "");

        vm_boot(vm, "block", "ops=w5:A,w6:B,w7:C,z5,d7,r5,r6,r7");
        vm_expect(vm, "zeroes 0\ndiscard 0\nread 0 0 0\nread 0 42 42\nread 0 0 0\ndone\n");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

static void test_disk_refuses_what_lies_beyond_its_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = start_with_disk(engines[i], "");
        struct stat status;

        vm_boot(vm, "block", "ops=r2048,w2048:X,w18446744073709551615:X,L2000,d2048,z2048,w2047:Y");
        vm_expect(vm, "read 1 ");
        vm_expect(vm, "write 1\nwrite 1\nlarge 1 ");
        vm_expect(vm, "discard 1\nzeroes 1\nwrite 0\ndone\n");
        vm_expect_exit(vm, 0);
        assert_int_equal(stat(vm_path(vm, "disk"), &status), 0);
        assert_int_equal(status.st_size, DISK_SIZE);
        machine_teardown(NULL);
    }
}

static void test_read_only_disk_stays_as_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = start_with_disk(engines[i], ",\"is_read_only\":true");

        vm_boot(vm, "block", "ops=w0:A,z0,d0,r0");
        vm_expect(vm, "write 1\n");
        vm_expect(vm, "read 0 0 0\ndone\n");
        vm_expect_exit(vm, 0);
        assert_int_equal(byte_of(vm, "disk", 0), 0);
        machine_teardown(NULL);
    }
}

static void test_disks_are_in_the_order_of_their_requests(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    add_disk(vm, "first", vm_file(vm, "first", 4096, '1'), "Sync", "");
    add_disk(vm, "second", vm_file(vm, "second", 8192, '2'), "Async", "");
    vm_boot(vm, "block", "ops=r0,D1,r0,c,D0,r0");
    vm_expect(vm, "read 0 31 31\nread 0 32 32\ncapacity 10\nread 0 31 31\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_disk_truncated_under_the_vm_fails_its_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = start_with_disk(engines[i], "");

        vm_boot(vm, "block", "ops=r100,p,r100,L0,r0,f");
        vm_expect(vm, "read 0 0 0\nwaiting\n");
        assert_int_equal(truncate(vm_path(vm, "disk"), SECTOR), 0);
        vm_say(vm, "\n");
        vm_expect(vm, "read 1 ");
        vm_expect(vm, "large 1 ");
        vm_expect(vm, "read 0 0 0\nflush 0\ndone\n");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

static void test_disk_can_be_replaced_under_the_vm(void **state)
{
    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = start_with_disk(engines[i], "");
        const char *other = vm_file(vm, "other", 8192, 'o');

        vm_boot(vm, "block", "ops=r0,p,c,r0");
        vm_expect(vm, "waiting\n");
        vm_patch(vm, "/drives/disk", "{\"drive_id\":\"disk\",\"path_on_host\":\"%s\"}", other);
        vm_say(vm, "\n");
        vm_expect(vm, "capacity 10\nread 0 6f 6f\ndone\n");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

/* In the VMM's own mount namespace: /mnt has room for 64 KiB, the disk in it claims a MiB. */
static void mount_small_disk(void)
{
    int fd;

    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/mnt", "tmpfs", 0, "size=64k") != 0)
        _exit(120);
    fd = open("/mnt/disk", O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) != 0)
        _exit(121);
    close(fd);
}

/* The same place, which nobody may write to, root neither. */
static void mount_read_only_disk(void)
{
    mount_small_disk();
    if (mount(NULL, "/mnt", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) != 0)
        _exit(122);
}

static void test_disk_that_cannot_be_written_must_be_called_read_only(void **state)
{
    struct vm *vm;

    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: mounting a file system needs root\n");
        skip();
    }
    vm = vm_start_with(&(struct machine_options){.before_exec = mount_read_only_disk, .shows = "/mnt"});
    vm_refuses(vm, "PUT", "/drives/disk",
               "{\"drive_id\":\"disk\",\"path_on_host\":\"/mnt/disk\",\"is_root_device\":false}",
               "cannot open \"/mnt/disk\" for writing");
    vm_drive(vm, "disk", "/mnt/disk", ",\"is_read_only\":true");
    vm_boot(vm, "block", "ops=r0,w0:A,c");
    vm_expect(vm, "read 0 0 0\nwrite 1\ncapacity 800\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_full_host_disk_is_an_io_error_in_the_guest(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: mounting a small file system needs root\n");
        skip();
    }
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = vm_start_with(&(struct machine_options){.before_exec = mount_small_disk, .shows = "/mnt"});
        char ops[256] = "ops=w0:A";

        for (unsigned page = 1; page < 18; page++)
            snprintf(ops + strlen(ops), sizeof(ops) - strlen(ops), ",w%u:A", page * 8);
        strcat(ops, ",r0");
        add_disk(vm, "disk", "/mnt/disk", engines[i], "");
        vm_boot(vm, "block", ops);
        vm_expect(vm, "write 1\n");
        vm_expect(vm, "read 0 41 41\ndone\n");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

static void test_rate_limited_disk_does_all_its_work(void **state)
{
    struct vm *vm = start_with_disk("Async", ",\"rate_limiter\":{\"ops\":{\"size\":2,\"refill_time\":20}}");

    (void)state;
    vm_boot(vm, "block", "ops=w0:A,w1:B,w2:C,m,r0,r1,r2");
    vm_expect(vm, "write 0\nwrite 0\nwrite 0\nmany 0\nread 0 41 41\nread 0 42 42\nread 0 43 43\ndone\n");
    vm_expect_exit(vm, 0);
}

/* Its bucket would be full again in ten hours: only the new limit lets the guest go on. */
static void test_limit_changed_under_the_guest_lets_it_go_on(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_path(vm, "disk");
    cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    vm_drive(vm, "d", path, ",\"rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":36000000,\"one_time_burst\":1}}");
    vm_boot(vm, "block", "ops=w0:a,r0,w1:b,r1");
    vm_expect(vm, "read 0 61 61\n");
    vm_refuses(vm, "PATCH", "/drives/d", "{\"drive_id\":\"d\",\"rate_limiter\":{\"ops\":{\"size\":1}}}", "refill_time");
    vm_refuses(vm, "PATCH", "/drives/e", "{\"drive_id\":\"e\",\"rate_limiter\":{}}", "'e'");
    vm_patch(vm, "/drives/d", "{\"drive_id\":\"d\",\"rate_limiter\":{\"ops\":{\"size\":0,\"refill_time\":0}}}");
    vm_expect(vm, "read 0 62 62\ndone\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_disk_reads_writes_and_flushes), machine_test(test_disk_discards_and_writes_zeroes),
          machine_test(test_disk_refuses_what_lies_beyond_its_end), machine_test(test_read_only_disk_stays_as_it_is),
          machine_test(test_disks_are_in_the_order_of_their_requests),
          machine_test(test_disk_truncated_under_the_vm_fails_its_requests),
          machine_test(test_disk_can_be_replaced_under_the_vm),
          machine_test(test_disk_that_cannot_be_written_must_be_called_read_only),
          machine_test(test_full_host_disk_is_an_io_error_in_the_guest),
          machine_test(test_rate_limited_disk_does_all_its_work),
          machine_test(test_limit_changed_under_the_guest_lets_it_go_on))
