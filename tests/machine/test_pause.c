/* Pause and resume. */
#include "tests/machine/machine.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/clock.h"

/* The CPU time of all threads of the VMM but its main one, in nanoseconds: the vCPUs'. */
static unsigned long long vcpu_time(const struct vm *vm)
{
    unsigned long long sum = 0;
    char path[64];
    DIR *tasks;
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/task", vm->pid);
    tasks = opendir(path);
    assert_non_null(tasks);
    while ((entry = readdir(tasks)) != NULL) {
        unsigned long long time = 0;
        FILE *file;

        if (entry->d_name[0] == '.' || atoi(entry->d_name) == vm->pid)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", vm->pid, entry->d_name);
        file = fopen(path, "re");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%llu", &time), 1);
        fclose(file);
        sum += time;
    }
    closedir(tasks);
    return sum;
}

/* Until the vCPUs do not run, while a hundred requests are served: one may still be on its way to sleep. */
static void await_rest(struct vm *vm)
{
    uint64_t until = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;
    unsigned long long before;

    do {
        if (clock_monotonic_us() > until)
            vm_fail(vm, "the vCPUs run while paused");
        before = vcpu_time(vm);
        for (int i = 0; i < 100; i++)
            free(vm_get(vm, "/"));
    } while (vcpu_time(vm) != before);
}

static bool state_is(struct vm *vm, const char *wanted)
{
    char *body = vm_get(vm, "/");
    char text[64];
    bool is;

    snprintf(text, sizeof(text), "\"state\":\"%s\"", wanted);
    is = strstr(body, text) != NULL;
    free(body);
    return is;
}

static void test_paused_guest_does_not_run_and_resumed_one_goes_on(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    assert_true(state_is(vm, "Not started"));
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    assert_true(state_is(vm, "Running"));
    for (int round = 0; round < 5; round++) {
        vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
        assert_true(state_is(vm, "Paused"));
        vm_say(vm, "p");
        await_rest(vm);
        vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
        assert_true(state_is(vm, "Running"));
        vm_expect(vm, "count ");
    }
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_pausing_twice_and_resuming_twice_succeed(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_vm_that_is_not_started_refuses_to_pause(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_refuses(vm, "PATCH", "/vm", "{\"state\":\"Paused\"}", "not started");
}

/* Requests that are under way when the pause comes are there after it. */
static void test_disk_keeps_working_through_pauses(void **state)
{
    struct vm *vm = vm_start();
    char ops[300] = "ops=p";

    (void)state;
    for (int i = 0; i < 40; i++)
        snprintf(ops + strlen(ops), sizeof(ops) - strlen(ops), ",w%d:A", i);
    strcat(ops, ",p"); /* a guest that is done before the last pause must not leave */
    vm_drive(vm, "disk", vm_file(vm, "disk", 1 << 20, 0), ",\"io_engine\":\"Async\"");
    vm_boot(vm, "block", ops);
    vm_expect(vm, "waiting\n");
    vm_say(vm, "\n");
    for (int i = 0; i < 20; i++) {
        vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
        vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    }
    for (int i = 0; i < 40; i++)
        vm_expect(vm, "write 0\n");
    vm_expect(vm, "waiting\n");
    vm_say(vm, "\n");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_paused_vm_with_four_vcpus_resumes(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":4,\"mem_size_mib\":64}");
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_say(vm, "pq");
    vm_expect(vm, "count ");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_paused_guest_does_not_run_and_resumed_one_goes_on),
          machine_test(test_pausing_twice_and_resuming_twice_succeed),
          machine_test(test_vm_that_is_not_started_refuses_to_pause),
          machine_test(test_disk_keeps_working_through_pauses), machine_test(test_paused_vm_with_four_vcpus_resumes))
