#include "tests/unit/harness.h"

#include "vmm/bus.h"

static const struct bus_ops no_ops = {.read = NULL};

static void test_access_that_leaves_its_range_finds_nobody(void **state)
{
    struct bus bus = {.count = 0};

    (void)state;
    assert_no_error(bus_add(&bus, 0x1000, 0x10, &no_ops, NULL));
    assert_ptr_equal(bus_find(&bus, 0x1000, 8), &bus.ranges[0]);
    assert_ptr_equal(bus_find(&bus, 0x100f, 1), &bus.ranges[0]);
    assert_null(bus_find(&bus, 0xfff, 1));
    assert_null(bus_find(&bus, 0xfff, 2));
    assert_null(bus_find(&bus, 0x100c, 8));
    assert_null(bus_find(&bus, 0x1010, 1));
    assert_null(bus_find(&bus, UINT64_MAX, 8));
}

static void test_range_at_the_end_of_the_address_space_answers(void **state)
{
    struct bus bus = {.count = 0};

    (void)state;
    assert_no_error(bus_add(&bus, UINT64_MAX - 7, 8, &no_ops, NULL));
    assert_non_null(bus_find(&bus, UINT64_MAX - 7, 8));
    assert_non_null(bus_find(&bus, UINT64_MAX, 1));
    assert_null(bus_find(&bus, UINT64_MAX, 2));
    assert_null(bus_find(&bus, 0, 1));
}

static void test_overlapping_ranges_are_refused(void **state)
{
    static const struct {
        uint64_t start, length;
    } bad[] = {{0x1000, 0x100}, {0x10ff, 1}, {0xfff, 2}, {0x0, 0x10000}, {0x1080, 0x10}, {0x5000, 0}, {UINT64_MAX, 2}};
    struct bus bus = {.count = 0};

    (void)state;
    assert_no_error(bus_add(&bus, 0x1000, 0x100, &no_ops, NULL));
    for (size_t i = 0; i < array_length(bad); i++)
        assert_error(bus_add(&bus, bad[i].start, bad[i].length, &no_ops, NULL), ERROR_INTERNAL, "range");
    assert_int_equal(bus.count, 1);
    assert_no_error(bus_add(&bus, 0x1100, 1, &no_ops, NULL));
    assert_no_error(bus_add(&bus, 0xfff, 1, &no_ops, NULL));
}

static void test_full_bus_refuses_another_range(void **state)
{
    struct bus bus = {.count = 0};

    (void)state;
    for (uint64_t i = 0; i < BUS_RANGES_MAX; i++)
        assert_no_error(bus_add(&bus, (BUS_RANGES_MAX - i) * 0x10, 0x10, &no_ops, NULL));
    assert_error(bus_add(&bus, 0x10000, 1, &no_ops, NULL), ERROR_INTERNAL, "full");
    for (uint64_t i = 1; i <= BUS_RANGES_MAX; i++)
        assert_non_null(bus_find(&bus, i * 0x10 + 0xf, 1));
}

static void test_removed_range_no_longer_answers(void **state)
{
    struct bus bus = {.count = 0};

    (void)state;
    assert_no_error(bus_add(&bus, 0x10, 0x10, &no_ops, NULL));
    assert_no_error(bus_add(&bus, 0x20, 0x10, &no_ops, NULL));
    bus_remove(&bus, 0x10);
    bus_remove(&bus, 0x11);
    assert_null(bus_find(&bus, 0x10, 1));
    assert_non_null(bus_find(&bus, 0x20, 1));
}

TEST_MAIN(cmocka_unit_test(test_access_that_leaves_its_range_finds_nobody),
          cmocka_unit_test(test_range_at_the_end_of_the_address_space_answers),
          cmocka_unit_test(test_overlapping_ranges_are_refused), cmocka_unit_test(test_full_bus_refuses_another_range),
          cmocka_unit_test(test_removed_range_no_longer_answers))
