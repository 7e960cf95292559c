/* Files that are missing, wrong, or change under the VM; /dev/kvm that is not there. */
#include "tests/machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A configuring request, then InstanceStart: one of the two must refuse, with `text` in the message. */
static void refused_in_the_end(struct vm *vm, const char *path, const char *json, const char *text)
{
    struct api_response response;

    assert_no_error(api_client_request(vm->api, "PUT", path, json, strlen(json), &response));
    if (response.status == 204) {
        api_response_free(&response);
        vm_refuses(vm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", text);
    } else {
        char *fault = api_response_fault(&response);

        if (response.status != 400 || fault == NULL || strstr(fault, text) == NULL)
            vm_fail(vm, "PUT %s %s: %u %s, expected 400 with \"%s\"", path, json, response.status, response.body, text);
        free(fault);
        api_response_free(&response);
    }
    /* It still serves and has not started. */
    char *body = vm_get(vm, "/");

    if (strstr(body, "\"Not started\"") == NULL)
        vm_fail(vm, "the state is not what it was: %s", body);
    free(body);
}

static void copy_image(const char *guest, const char *to, off_t length)
{
    cleanup_fd int in = open(guest_image(guest), O_RDONLY | O_CLOEXEC);
    cleanup_fd int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat status;

    assert_true(in >= 0 && out >= 0);
    assert_int_equal(fstat(in, &status), 0);
    if (length <= 0)
        length += status.st_size;
    while (length > 0) {
        ssize_t sent = sendfile(out, in, NULL, (size_t)length);

        assert_true(sent > 0);
        length -= sent;
    }
}

static void test_bad_kernels_are_refused_by_name(void **state)
{
    static const char *const names[] = {"missing", "empty", "garbage", "directory", "fifo", "short", "no-end"};
    struct vm *vm = vm_start();

    (void)state;
    vm_file(vm, "empty", 0, 0);
    vm_file(vm, "garbage", 100000, 'g');
    assert_int_equal(mkdir(vm_path(vm, "directory"), 0700), 0);
    assert_int_equal(mkfifo(vm_path(vm, "fifo"), 0600), 0);
    copy_image("hello", vm_path(vm, "short"), 63);
    copy_image("first_byte_14m", vm_path(vm, "no-end"), -4000000);
    for (size_t i = 0; i < array_length(names); i++) {
        char json[256];

        snprintf(json, sizeof(json), "{\"kernel_image_path\":\"%s\"}", vm_path(vm, names[i]));
        refused_in_the_end(vm, "/boot-source", json, vm_path(vm, names[i]));
    }
    /* And a good one then boots. */
    vm_boot(vm, "hello", NULL);
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
}

static void test_bad_initrds_are_refused_by_name(void **state)
{
    static const char *const names[] = {"missing", "directory", "fifo", "huge"};
    struct vm *vm = vm_start();

    (void)state;
    assert_int_equal(mkdir(vm_path(vm, "directory"), 0700), 0);
    assert_int_equal(mkfifo(vm_path(vm, "fifo"), 0600), 0);
    vm_file(vm, "huge", 0, 0);
    assert_int_equal(truncate(vm_path(vm, "huge"), 256ll << 20), 0); /* the VM has 128 MiB */
    for (size_t i = 0; i < array_length(names); i++) {
        char json[512];

        snprintf(json, sizeof(json), "{\"kernel_image_path\":\"%s\",\"initrd_path\":\"%s\"}", guest_image("hello"),
                 vm_path(vm, names[i]));
        refused_in_the_end(vm, "/boot-source", json, vm_path(vm, names[i]));
    }
}

static void test_bad_disks_are_refused_by_name(void **state)
{
    static const char *const names[] = {"missing", "directory", "fifo"};
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "hello", NULL);
    assert_int_equal(mkdir(vm_path(vm, "directory"), 0700), 0);
    assert_int_equal(mkfifo(vm_path(vm, "fifo"), 0600), 0);
    for (size_t i = 0; i < array_length(names); i++) {
        char json[256];

        snprintf(json, sizeof(json), "{\"drive_id\":\"d\",\"path_on_host\":\"%s\",\"is_root_device\":false}",
                 vm_path(vm, names[i]));
        refused_in_the_end(vm, "/drives/d", json, vm_path(vm, names[i]));
    }
}

static void test_tap_that_does_not_exist_is_refused_by_name(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "hello", NULL);
    /* A name that no interface can have: with CAP_NET_ADMIN the kernel would make any other. */
    refused_in_the_end(vm, "/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"host_dev_name\":\"a/b\"}", "a/b");
}

/* A file that the VMM's user could write would be read, not shared: it must not be able to. */
static int open_and_protect(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0444), 0);
    return fd;
}

/* Starts a copy of image_end, which waits; `more` is further members of the boot source. The copy is still open. */
static int boot_copy(struct vm *vm, const char *more)
{
    const char *kernel = vm_path(vm, "shared/kernel");

    copy_image("image_end", kernel, 0);
    int fd = open_and_protect(kernel);
    vm_put(vm, "/boot-source", "{\"kernel_image_path\":\"%s\"%s}", kernel, more);
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "waiting\n");
    return fd;
}

static void test_kernel_truncated_under_the_vm_ends_it(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    cleanup_fd int kernel = boot_copy(vm, "");
    assert_int_equal(ftruncate(kernel, 65536), 0);
    vm_say(vm, "\n");
    vm_expect_exit(vm, 149);
    vm_expect_log(vm, "truncated");
}

static void test_initrd_truncated_under_the_vm_ends_it(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    cleanup_fd int initrd = open_and_protect(vm_file(vm, "shared/initrd", 1 << 20, 'i'));
    vm_put(vm, "/boot-source", "{\"kernel_image_path\":\"%s\",\"initrd_path\":\"%s\",\"boot_args\":\"initrd\"}",
           guest_image("image_end"), vm_path(vm, "shared/initrd"));
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "waiting\n");
    assert_int_equal(ftruncate(initrd, 4096), 0);
    vm_say(vm, "\n");
    vm_expect_exit(vm, 149);
    vm_expect_log(vm, "initrd' was truncated");
}

/* The monitor itself touches what is gone, as a device that answers: by a signal, with the loop's lock held. */
static void test_device_that_meets_a_truncated_kernel_ends_the_vm(void **state)
{
    static const char *const engines[] = {"Sync", "Async"};

    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = vm_start();
        char more[32];

        snprintf(more, sizeof(more), ",\"io_engine\":\"%s\"", engines[i]);
        vm_drive(vm, "disk", vm_file(vm, "disk", 1 << 20, 'd'), more);
        cleanup_fd int kernel = boot_copy(vm, ",\"boot_args\":\"status\"");
        assert_int_equal(ftruncate(kernel, 65536), 0);
        vm_say(vm, "\n");
        vm_expect_exit(vm, 149);
        vm_expect_log(vm, "SIGBUS: '");
        machine_teardown(NULL);
    }
}

/* With --no-kernel-sharing the file has been read: nothing that happens to it matters. */
static void test_kernel_that_was_read_may_be_truncated(void **state)
{
    struct vm *vm =
        vm_start_with(&(struct machine_options){.arguments = (const char *[]){"--no-kernel-sharing", NULL}});

    (void)state;
    cleanup_fd int kernel = boot_copy(vm, "");
    assert_int_equal(ftruncate(kernel, 0), 0);
    vm_say(vm, "\n");
    vm_expect(vm, "last 0\n");
    vm_expect_exit(vm, 0);
}

static void hide_kvm(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/dev", "tmpfs", 0, NULL) != 0)
        _exit(120);
}

static void become_nobody(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/mnt", "tmpfs", 0, NULL) != 0 || chmod("/mnt", 0777) != 0 || setgid(65534) != 0 ||
        setuid(65534) != 0)
        _exit(120);
}

static void start_is_refused_without_kvm(void (*before_exec)(void), const char *reason)
{
    struct vm *vm;

    if (geteuid() != 0) {
        print_message("skipped: hiding /dev/kvm needs root\n");
        skip();
    }
    vm = vm_start_with(
        &(struct machine_options){.before_exec = before_exec, .unjailed = "the jailer is the one who refuses"});
    vm_boot_source(vm, "hello", NULL);
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", "/dev/kvm");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", reason);
    free(vm_get(vm, "/"));
}

static void test_without_dev_kvm_the_start_is_refused(void **state)
{
    (void)state;
    start_is_refused_without_kvm(hide_kvm, "No such file or directory");
}

static void test_without_permission_for_dev_kvm_the_start_is_refused(void **state)
{
    struct stat status;

    (void)state;
    if (stat("/dev/kvm", &status) == 0 && (status.st_mode & 0006) != 0) {
        print_message("skipped: everybody may open /dev/kvm here\n");
        skip();
    }
    /* The API socket lies in a directory of root's: the VMM could not make it there. Tested without an API. */
    if (geteuid() != 0) {
        print_message("skipped: becoming another user needs root\n");
        skip();
    }
    char path[] = "/tmp/mayfly-test-config-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    struct vm *vm;

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0644), 0);
    dprintf(fd, "{\"boot-source\":{\"kernel_image_path\":\"%s\"}}", guest_image("hello"));
    vm = vm_start_with(
        &(struct machine_options){.no_api = true,
                                  .no_log_path = true,
                                  .before_exec = become_nobody,
                                  .unjailed = "the jailer is the one who refuses",
                                  .arguments = (const char *[]){"--no-api", "--config-file", path, NULL}});
    vm_expect_exit(vm, 1);
    unlink(path);
    vm_expect_log(vm, "/dev/kvm");
}

TEST_MAIN(machine_test(test_bad_kernels_are_refused_by_name), machine_test(test_bad_initrds_are_refused_by_name),
          machine_test(test_bad_disks_are_refused_by_name),
          machine_test(test_tap_that_does_not_exist_is_refused_by_name),
          machine_test(test_kernel_truncated_under_the_vm_ends_it),
          machine_test(test_initrd_truncated_under_the_vm_ends_it),
          machine_test(test_device_that_meets_a_truncated_kernel_ends_the_vm),
          machine_test(test_kernel_that_was_read_may_be_truncated),
          machine_test(test_without_dev_kvm_the_start_is_refused),
          machine_test(test_without_permission_for_dev_kvm_the_start_is_refused))
