/* A microVM whose guest asks nothing of its devices: the main thread of the VMM sleeps, and is not woken once. */
#include "tests/machine/every_device.h"
#include "tests/machine/machine.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SETTLING_TICKS = 20, /* of CPU time of the vCPU: how long the test lets the guest run, by the guest's own doing */
    WATCHED_TICKS = 100,
};

/* The text behind `key` of a file of /proc, as a number. */
static unsigned long number_in(const char *path, const char *key)
{
    char text[4096] = "";
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    char *at = strstr(text, key);
    assert_non_null(at);
    return strtoul(at + strlen(key), NULL, 10);
}

/* How often the main thread has gone to sleep, and been put to sleep. */
static unsigned long wake_ups(const struct vm *vm)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/task/%d/status", vm->pid, vm->pid);
    return number_in(path, "\nvoluntary_ctxt_switches:");
}

static int vcpu_thread(const struct vm *vm)
{
    char path[64], name[16] = "";
    int found = -1;

    snprintf(path, sizeof(path), "/proc/%d/task", vm->pid);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", vm->pid, atoi(entry->d_name));
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        /* The newest: one of a VM that was prepared and thrown away may not have ended yet. */
        if (fd >= 0 && read(fd, name, sizeof(name) - 1) > 0 && strstr(name, "vcpu") != NULL &&
            atoi(entry->d_name) > found)
            found = atoi(entry->d_name);
    }
    closedir(folder);
    return found;
}

/* CPU time of a thread in ticks: of the line's 52 numbers behind the name, the 12th and 13th. */
static unsigned long ticks(const struct vm *vm, int thread)
{
    char path[64], text[1024] = "";
    unsigned long user, system;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", vm->pid, thread);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    char *at = strrchr(text, ')');
    assert_non_null(at);
    assert_int_equal(sscanf(at + 2, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu", &user, &system), 2);
    return user + system;
}

/* Until the guest has computed for `count` ticks more. */
static void let_run(const struct vm *vm, int thread, unsigned long count)
{
    for (unsigned long end = ticks(vm, thread) + count; ticks(vm, thread) < end;)
        poll(&(struct pollfd){.fd = vm->process_fd, .events = POLLIN}, 1, 10);
}

/* What was begun is done when nothing happens for a while; then it must stay so. */
static void assert_main_thread_sleeps(const struct vm *vm)
{
    int thread = vcpu_thread(vm);
    unsigned long before;

    assert_true(thread > 0);
    do {
        before = wake_ups(vm);
        let_run(vm, thread, SETTLING_TICKS);
    } while (wake_ups(vm) != before);
    let_run(vm, thread, WATCHED_TICKS);
    assert_int_equal(wake_ups(vm), before);
}

static void boot_with_every_device(const char *guest, const char *text)
{
    bool with_tap = every_device_tap();
    struct vm *vm = vm_start();

    every_device_put(vm, with_tap);
    vm_boot(vm, guest, with_tap ? "net" : "");
    vm_expect(vm, text);
    assert_main_thread_sleeps(vm);
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_idle_vm_with_every_device_is_not_woken(void **state)
{
    (void)state;
    boot_with_every_device("spin", "spinning");
}

static void test_vm_whose_devices_have_worked_is_not_woken(void **state)
{
    (void)state;
    boot_with_every_device("busy", "busy");
}

TEST_MAIN(machine_test(test_idle_vm_with_every_device_is_not_woken),
          machine_test(test_vm_whose_devices_have_worked_is_not_woken))
