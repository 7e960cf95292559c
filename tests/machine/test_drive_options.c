/* What disks can beyond the reference: several queues, direct I/O, another size. */
#include "tests/machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DISK_SIZE = 1 << 20 };

static void test_drive_offers_the_queues_that_were_put(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_drive(vm, "disk", vm_file(vm, "disk", DISK_SIZE, 'a'), ",\"io_engine\":\"Async\"");
    vm_put(vm, "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"queues\":4}");
    vm_boot(vm, "block", "ops=F,r3");
    vm_expect(vm, "features ");
    vm_expect(vm, "\n");
    /* Bit 12: VIRTIO_BLK_F_MQ. */
    const char *at = strstr(vm->output, "features ");
    unsigned long long features = strtoull(at + strlen("features "), NULL, 16);
    assert_true((features >> 12 & 1) != 0);
    vm_expect(vm, "read 0 61 61\ndone\n");
    vm_expect_exit(vm, 0);
}

/* With both engines, and again with the file that the path names now: under the filter of a running guest. */
static void test_direct_drive_works_and_grows(void **state)
{
    static const char *const engines[] = {"Sync", "Async"};

    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = vm_start();
        const char *path = vm_file(vm, "disk", DISK_SIZE, 'a');
        char engine[40];

        int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
        if (fd < 0) {
            print_message("skipped: no direct I/O on \"%s\": %s\n", path, strerror(errno));
            skip();
        }
        close(fd);
        snprintf(engine, sizeof(engine), ",\"io_engine\":\"%s\"", engines[i]);
        vm_drive(vm, "disk", path, engine);
        vm_put(vm, "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"direct\":true}");
        /* Put again, it is still direct. */
        vm_drive(vm, "disk", path, engine);
        vm_boot(vm, "block", "ops=L0,p,c,L2048");
        vm_expect(vm, "large 0 61 same\nwaiting\n");
        assert_int_equal(truncate(path, 2 * DISK_SIZE), 0);
        vm_patch(vm, "/drives/disk", "{\"drive_id\":\"disk\",\"path_on_host\":\"%s\"}", path);
        vm_say(vm, "\n");
        vm_expect(vm, "capacity 1000\nlarge 0 0 same\ndone\n");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

static void test_wrong_options_are_refused(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_refuses(vm, "PUT", "/mayfly/drives/no", "{\"drive_id\":\"no\",\"queues\":4}",
               "drive_id: 'no', expected the id of");
    vm_drive(vm, "disk", vm_file(vm, "disk", DISK_SIZE, 'a'), "");
    vm_refuses(vm, "PUT", "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"queues\":0}", "queues: 0 given");
    vm_refuses(vm, "PUT", "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"queues\":33}", "queues: 33 given");
    vm_boot(vm, "block", "ops=r0,p");
    vm_expect(vm, "waiting\n");
    vm_refuses(vm, "PUT", "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"queues\":2}", "");
}

TEST_MAIN(machine_test(test_drive_offers_the_queues_that_were_put), machine_test(test_direct_drive_works_and_grows),
          machine_test(test_wrong_options_are_refused))
