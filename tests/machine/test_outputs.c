/* Logs, metrics and the serial port that go where nothing fits any more: the guest and the API must not notice. */
#include "tests/machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* A FIFO that nobody reads and that is full; *fd keeps it so. */
static const char *full_fifo(struct vm *vm, const char *name, int *fd)
{
    const char *path = vm_path(vm, name);
    static const char junk[4096];

    assert_int_equal(mkfifo(path, 0600), 0);
    *fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    assert_true(*fd >= 0);
    while (write(*fd, junk, sizeof(junk)) > 0 || write(*fd, junk, 1) > 0)
        ;
    assert_int_equal(errno, EAGAIN);
    return path;
}

static void test_full_fifos_hold_nobody_up(void **state)
{
    struct vm *vm = vm_start();
    cleanup_fd int log = -1, metrics = -1, serial = -1;

    (void)state;
    vm_put(vm, "/logger", "{\"log_path\":\"%s\",\"level\":\"Debug\"}", full_fifo(vm, "log-fifo", &log));
    vm_put(vm, "/metrics", "{\"metrics_path\":\"%s\"}", full_fifo(vm, "metrics-fifo", &metrics));
    vm_put(vm, "/serial", "{\"serial_out_path\":\"%s\"}", full_fifo(vm, "serial-fifo", &serial));
    vm_boot(vm, "hammer", "what=serial count=6000");
    for (int i = 0; i < 50; i++)
        free(vm_get(vm, "/"));
    vm_expect_exit(vm, 0);
}

static void test_fifos_without_a_reader_are_no_failure(void **state)
{
    struct vm *vm = vm_start();
    static const char *const names[] = {"log-fifo", "metrics-fifo", "serial-fifo"};

    (void)state;
    for (size_t i = 0; i < array_length(names); i++)
        assert_int_equal(mkfifo(vm_path(vm, names[i]), 0600), 0);
    vm_put(vm, "/logger", "{\"log_path\":\"%s\"}", vm_path(vm, names[0]));
    vm_put(vm, "/metrics", "{\"metrics_path\":\"%s\"}", vm_path(vm, names[1]));
    vm_put(vm, "/serial", "{\"serial_out_path\":\"%s\"}", vm_path(vm, names[2]));
    vm_boot(vm, "hello", NULL);
    vm_expect_exit(vm, 0);
}

/* What a reader finds who opens the FIFO before the guest speaks. */
static void test_reader_of_a_fifo_gets_the_output(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_path(vm, "serial-fifo");
    char text[256] = "";

    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(fd >= 0);
    vm_put(vm, "/serial", "{\"serial_out_path\":\"%s\"}", path);
    vm_boot(vm, "hello", NULL);
    vm_expect_exit(vm, 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_non_null(strstr(text, "hello\n"));
}

/* In the VMM's own mount namespace: /mnt has no room at all, but for the names of files. */
static void mount_full_folder(void)
{
    static const char junk[4096];
    int fd;

    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/mnt", "tmpfs", 0, "size=64k") != 0)
        _exit(120);
    fd = open("/mnt/junk", O_WRONLY | O_CREAT, 0600);
    while (write(fd, junk, sizeof(junk)) > 0)
        ;
    close(fd);
}

static void test_full_file_system_holds_nobody_up(void **state)
{
    struct vm *vm;

    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: mounting a small file system needs root\n");
        skip();
    }
    vm = vm_start_with(&(struct machine_options){.before_exec = mount_full_folder, .shows = "/mnt"});
    vm_put(vm, "/metrics", "{\"metrics_path\":\"/mnt/metrics\"}");
    vm_put(vm, "/serial", "{\"serial_out_path\":\"/mnt/serial\"}");
    vm_put(vm, "/logger", "{\"log_path\":\"/mnt/log\",\"level\":\"Debug\"}");
    vm_boot(vm, "hammer", "what=serial count=6000");
    for (int i = 0; i < 20; i++)
        free(vm_get(vm, "/"));
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_full_fifos_hold_nobody_up), machine_test(test_fifos_without_a_reader_are_no_failure),
          machine_test(test_reader_of_a_fifo_gets_the_output), machine_test(test_full_file_system_holds_nobody_up))
