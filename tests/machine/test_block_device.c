/* Disks that are block devices of the host. */
#include "tests/machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MEBIBYTE = 1 << 20, PAGE = 4096 };

/* A file of a MiB, without a name. */
static int make_file(void)
{
    char path[] = "/tmp/mayfly-disk-XXXXXX", bytes[PAGE];
    cleanup_fd int file = mkostemp(path, O_CLOEXEC);

    assert_true(file >= 0);
    unlink(path);
    memset(bytes, 'd', sizeof(bytes));
    while (lseek(file, 0, SEEK_CUR) < MEBIBYTE)
        assert_int_equal(write(file, bytes, sizeof(bytes)), sizeof(bytes));
    return take_fd(&file);
}

/* Attaches a free loop device to `file`; it goes when it is closed. Skips when there is none. */
static int attach_loop(int file, char path[32])
{
    struct loop_info64 info = {.lo_flags = LO_FLAGS_AUTOCLEAR};
    cleanup_fd int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    cleanup_fd int loop = -1;

    snprintf(path, 32, "/dev/loop%d", number);
    if (number >= 0)
        loop = open(path, O_RDWR | O_CLOEXEC);
    if (loop < 0 || ioctl(loop, LOOP_SET_FD, file) < 0) {
        print_message("skipped: no loop device: %s\n", strerror(errno));
        skip();
    }
    assert_int_equal(ioctl(loop, LOOP_SET_STATUS64, &info), 0);
    return take_fd(&loop);
}

static void test_block_device_can_be_discarded(void **state)
{
    char path[32];
    cleanup_fd int file = make_file();
    cleanup_fd int loop = attach_loop(file, path);

    (void)state;
    struct vm *vm = vm_start_with(&(struct machine_options){.shows = path});
    vm_drive(vm, "disk", path, "");
    vm_boot(vm, "block", "ops=d8,r8,r0");
    vm_expect(vm, "discard 0\nread 0 ");
    vm_expect(vm, "read 0 64 64\n");
    vm_expect_exit(vm, 0);
}

/* The device keeps its size when its file loses all but a page, and fails what lies beyond. */
static void test_device_that_fails_is_an_io_error_in_the_guest(void **state)
{
    static const char *const engines[] = {"Sync", "Async"};

    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        char path[32], more[40];
        cleanup_fd int file = make_file();
        cleanup_fd int loop = attach_loop(file, path);

        assert_int_equal(ftruncate(file, PAGE), 0);
        struct vm *vm = vm_start_with(&(struct machine_options){.shows = path});
        snprintf(more, sizeof(more), ",\"io_engine\":\"%s\"", engines[i]);
        vm_drive(vm, "disk", path, more);
        vm_boot(vm, "block", "ops=r0,w1000:w,r1200,r0,f");
        vm_expect(vm, "read 0 64 64\nwrite 1\nread 1 ");
        vm_expect(vm, "read 0 64 64\nflush 0\ndone\n");
        vm_expect_exit(vm, 0);
        vm_expect_log(vm, "drive \"disk\": cannot write 512 bytes at 512000: ");
        vm_expect_log(vm, "drive \"disk\": cannot read 512 bytes at 614400: ");
        machine_teardown(NULL);
    }
}

TEST_MAIN(machine_test(test_block_device_can_be_discarded),
          machine_test(test_device_that_fails_is_an_io_error_in_the_guest))
