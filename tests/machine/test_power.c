/* The ways to end, and to be asked to end, that ACPI has. */
#include "tests/machine/machine.h"

#define PRESS "{\"action_type\":\"PowerButton\"}"

static void test_guest_powers_off_by_the_sleep_register(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "power", "off");
    vm_expect(vm, "going\n");
    vm_expect_exit(vm, 0);
    vm_expect_log(vm, "the guest powered off");
}

static void test_guest_resets_by_the_reset_register(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "power", "reset");
    vm_expect(vm, "going\n");
    vm_expect_exit(vm, 0);
    vm_expect_log(vm, "the guest reset");
}

static void test_power_button_interrupts_the_guest(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "power", NULL);
    vm_refuses(vm, "PUT", "/mayfly/actions", PRESS, "");
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "waiting\n");
    vm_refuses(vm, "PUT", "/mayfly/actions", "{\"action_type\":\"Reset\"}", "action_type: ");
    vm_put(vm, "/mayfly/actions", PRESS);
    vm_expect(vm, "pressed\n");
    vm_expect_exit(vm, 0);
}

static void test_power_button_pressed_in_a_pause_is_not_lost(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "power", NULL);
    vm_expect(vm, "waiting\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_put(vm, "/mayfly/actions", PRESS);
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_expect(vm, "pressed\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_guest_powers_off_by_the_sleep_register),
          machine_test(test_guest_resets_by_the_reset_register), machine_test(test_power_button_interrupts_the_guest),
          machine_test(test_power_button_pressed_in_a_pause_is_not_lost))
