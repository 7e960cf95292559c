/* Guests that break the rules of virtio: the device dies and comes back after a reset, the VM and the host do not mind.
 */
#include "tests/machine/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What must become of the device; attacks that are not here may be served, ignored or fatal. */
static const struct {
    const char *attack;
    const char *outcome;
} outcomes[] = {
    {"loop", "dead"},
    {"self_loop", "dead"},
    {"outside", "dead"},
    {"mmio_buffer", "dead"},
    {"wrap", "dead"},
    {"huge_length", "dead"},
    {"bad_head", "dead"},
    {"bad_next", "dead"},
    {"index_jump", "dead"},
    {"index_back", "dead"},
    {"readable_after_writable", "dead"},
    {"indirect_loop", "dead"},
    {"indirect_nested", "dead"},
    {"indirect_odd_size", "dead"},
    {"indirect_outside", "dead"},
    {"indirect_bad_next", "dead"},
    {"size_zero", "dead"},
    {"ring_outside", "dead"},
    {"ring_misaligned", "dead"},
    {"ring_wraps", "dead"},
    {"move_live_queue", "ignored"},
    {"ready_twice", "ignored"},
    {"driver_ok_twice", "ignored"},
    {"notify_beyond", "ignored"},
    {"select_beyond", "ignored"},
    {"features_late", "ignored"},
    {"no_version_1", "ignored"},
    {"unoffered_features", "ignored"},
};

/*
 * Gives the device its chance after every attack: when "done?" came, the guest had rung the doorbell, and that is
 * answered before requests that came later are.
 */
static void run_attacks(struct vm *vm)
{
    vm_expect(vm, "attacks ");
    vm_expect(vm, "done?\n");
    for (unsigned long left = strtoul(strstr(vm->output, "attacks ") + 8, NULL, 16); left > 0; left--) {
        free(vm_get(vm, "/"));
        free(vm_get(vm, "/"));
        vm_say(vm, "\n");
        vm_expect(vm, left > 1 ? "done?\n" : "recovered\n");
    }
    vm_expect_exit(vm, 0);
}

static void test_every_attack_on_a_device_ends_at_the_device(void **state)
{
    struct vm *vm = vm_start();
    struct stat status;

    (void)state;
    vm_put(vm, "/entropy", "{}");
    vm_boot(vm, "hostile", "attack=all");
    run_attacks(vm);
    for (size_t i = 0; i < array_length(outcomes); i++) {
        char line[64];

        snprintf(line, sizeof(line), "\n%s %s\n", outcomes[i].attack, outcomes[i].outcome);
        if (strstr(vm->output, line) == NULL)
            vm_fail(vm, "expected \"%s %s\"", outcomes[i].attack, outcomes[i].outcome);
    }
    assert_int_equal(stat(vm_path(vm, "log"), &status), 0);
    assert_true(status.st_size < 32768);
}

/* The device is one of several: the others must not notice. */
static void test_attack_on_one_device_leaves_the_others_alone(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_drive(vm, "disk", vm_file(vm, "disk", 1 << 20, 'd'), ",\"io_engine\":\"Async\"");
    vm_put(vm, "/entropy", "{}");
    vm_put(vm, "/mayfly/console", "{\"ports\":[{\"name\":\"log\",\"output_path\":\"%s\"}]}", vm_path(vm, "port"));
    vm_boot(vm, "hostile", "attack=loop");
    run_attacks(vm);
    if (strstr(vm->output, "loop dead\nrecovered\n") == NULL)
        vm_fail(vm, "expected \"loop dead\"");
}

/* Rings that are right, contents that are wrong: each request is answered or kills its device, which then comes back.
 */
static void test_wrong_disk_requests_are_answered(void **state)
{
    static const char *const engines[] = {"Sync", "Async"};
    static const char *const answers[] = {/* 1: I/O error, 2: not supported */
                                          "short header served 1",       "half sector served 1",
                                          "short id served 1",           "endless discard served 2",
                                          "last sector of all served 1", "offset that wraps served 1",
                                          "header in pieces served 0"};

    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = vm_start();
        char more[32];

        snprintf(more, sizeof(more), ",\"io_engine\":\"%s\"", engines[i]);
        vm_drive(vm, "disk", vm_file(vm, "disk", 1 << 20, 'd'), more);
        vm_boot(vm, "hostile_requests", "device=block");
        for (size_t answer = 0; answer < array_length(answers); answer++)
            vm_expect(vm, answers[answer]);
        vm_expect(vm, "recovered\n");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

static void test_wrong_console_messages_harm_nobody(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/mayfly/console", "{\"ports\":[{\"name\":\"log\",\"output_path\":\"%s\"}]}", vm_path(vm, "port"));
    vm_boot(vm, "hostile_requests", "device=console");
    vm_expect(vm, "recovered\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_every_attack_on_a_device_ends_at_the_device),
          machine_test(test_attack_on_one_device_leaves_the_others_alone),
          machine_test(test_wrong_disk_requests_are_answered), machine_test(test_wrong_console_messages_harm_nobody))
