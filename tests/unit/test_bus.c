#include "tests/unit/harness.h"

#include "vmm/bus.h"

#include <string.h>

struct recorder {
    uint64_t offset;
    uint32_t length;
    uint8_t first;
    int calls;
};

static void recorder_read(void *device, uint64_t offset, uint8_t *data, uint32_t length)
{
    struct recorder *recorder = device;

    *recorder = (struct recorder){.offset = offset, .length = length, .calls = recorder->calls + 1};
    memset(data, 0x5a, length);
}

static void recorder_write(void *device, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct recorder *recorder = device;

    *recorder = (struct recorder){.offset = offset, .length = length, .first = data[0], .calls = recorder->calls + 1};
}

static const struct bus_ops recorder_ops = {.read = recorder_read, .write = recorder_write};

static void test_access_reaches_its_device_with_an_offset(void **state)
{
    struct bus bus = {.count = 0};
    struct recorder low = {0}, high = {0};
    uint8_t data[4] = {0};

    (void)state;
    assert_no_error(bus_add(&bus, 0x2000, 0x100, &recorder_ops, &high));
    assert_no_error(bus_add(&bus, 0x1000, 0x100, &recorder_ops, &low));
    assert_true(bus_read(&bus, 0x20fc, data, 4));
    assert_int_equal(high.offset, 0xfc);
    assert_int_equal(high.length, 4);
    assert_int_equal(data[3], 0x5a);
    data[0] = 7;
    assert_true(bus_write(&bus, 0x1000, data, 1));
    assert_int_equal(low.first, 7);
    assert_int_equal(low.calls, 1);
}

static void test_access_that_leaves_its_range_finds_nobody(void **state)
{
    struct bus bus = {.count = 0};
    struct recorder recorder = {0};
    uint8_t data[8] = {1};

    (void)state;
    assert_no_error(bus_add(&bus, 0x1000, 0x10, &recorder_ops, &recorder));
    assert_false(bus_read(&bus, 0xfff, data, 1));
    assert_false(bus_read(&bus, 0xfff, data, 2));
    assert_false(bus_read(&bus, 0x100c, data, 8));
    assert_false(bus_write(&bus, 0x1010, data, 1));
    assert_false(bus_read(&bus, UINT64_MAX, data, 8));
    assert_int_equal(recorder.calls, 0);
    assert_int_equal(data[0], 1);
}

static void test_range_at_the_end_of_the_address_space_answers(void **state)
{
    struct bus bus = {.count = 0};
    struct recorder recorder = {0};
    uint8_t data[8];

    (void)state;
    assert_no_error(bus_add(&bus, UINT64_MAX - 7, 8, &recorder_ops, &recorder));
    assert_true(bus_read(&bus, UINT64_MAX - 7, data, 8));
    assert_true(bus_read(&bus, UINT64_MAX, data, 1));
    assert_int_equal(recorder.offset, 7);
    assert_false(bus_read(&bus, 0, data, 1));
}

static void test_overlapping_ranges_are_refused(void **state)
{
    static const struct {
        uint64_t start, length;
    } bad[] = {{0x1000, 0x100}, {0x10ff, 1}, {0xfff, 2}, {0x0, 0x10000}, {0x1080, 0x10}, {0x5000, 0}, {UINT64_MAX, 2}};
    struct bus bus = {.count = 0};
    struct recorder recorder = {0};

    (void)state;
    assert_no_error(bus_add(&bus, 0x1000, 0x100, &recorder_ops, &recorder));
    for (size_t i = 0; i < array_length(bad); i++)
        assert_error(bus_add(&bus, bad[i].start, bad[i].length, &recorder_ops, &recorder), ERROR_INTERNAL, "range");
    assert_int_equal(bus.count, 1);
    assert_no_error(bus_add(&bus, 0x1100, 1, &recorder_ops, &recorder));
    assert_no_error(bus_add(&bus, 0xfff, 1, &recorder_ops, &recorder));
}

static void test_full_bus_refuses_another_range(void **state)
{
    struct bus bus = {.count = 0};
    struct recorder recorder = {0};

    (void)state;
    for (uint64_t i = 0; i < BUS_RANGES_MAX; i++)
        assert_no_error(bus_add(&bus, (BUS_RANGES_MAX - i) * 0x10, 0x10, &recorder_ops, &recorder));
    assert_error(bus_add(&bus, 0x10000, 1, &recorder_ops, &recorder), ERROR_INTERNAL, "full");
    for (uint64_t i = 1; i <= BUS_RANGES_MAX; i++)
        assert_non_null(bus_find(&bus, i * 0x10 + 0xf, 1));
}

static void test_removed_range_no_longer_answers(void **state)
{
    struct bus bus = {.count = 0};
    struct recorder recorder = {0};
    uint8_t data[1];

    (void)state;
    assert_no_error(bus_add(&bus, 0x10, 0x10, &recorder_ops, &recorder));
    assert_no_error(bus_add(&bus, 0x20, 0x10, &recorder_ops, &recorder));
    bus_remove(&bus, 0x10);
    bus_remove(&bus, 0x11);
    assert_false(bus_read(&bus, 0x10, data, 1));
    assert_true(bus_read(&bus, 0x20, data, 1));
}

TEST_MAIN(cmocka_unit_test(test_access_reaches_its_device_with_an_offset),
          cmocka_unit_test(test_access_that_leaves_its_range_finds_nobody),
          cmocka_unit_test(test_range_at_the_end_of_the_address_space_answers),
          cmocka_unit_test(test_overlapping_ranges_are_refused), cmocka_unit_test(test_full_bus_refuses_another_range),
          cmocka_unit_test(test_removed_range_no_longer_answers))
