/* The entropy device. */
#include "tests/machine/machine.h"

static void test_entropy_fills_what_the_guest_gives(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/entropy", "{}");
    vm_boot(vm, "entropy", "len=100");
    vm_expect(vm, "got 64\ngot 64\ndone\n");
    vm_expect_exit(vm, 0);
}

/* Sixteen buffers of 4 KiB are exactly the 64 KiB that the device gives at most. */
static void test_entropy_fills_a_long_chain(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/entropy", "{}");
    vm_boot(vm, "entropy", "huge");
    vm_expect(vm, "capped 10000\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_rate_limited_entropy_comes_in_the_end(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/entropy", "{\"rate_limiter\":{\"bandwidth\":{\"size\":64,\"refill_time\":20}}}");
    vm_boot(vm, "entropy", "len=64");
    vm_expect(vm, "got 40\ngot 40\ndone\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(machine_test(test_entropy_fills_what_the_guest_gives), machine_test(test_entropy_fills_a_long_chain),
          machine_test(test_rate_limited_entropy_comes_in_the_end))
