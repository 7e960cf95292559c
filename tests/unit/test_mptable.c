#include "tests/unit/boot_fixture.h"

#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/mptable.h"

#include <string.h>

static struct entries {
    uint32_t processors, boot_processors, ioapics, buses, local_interrupts;
    uint32_t wired; /* a bit an IOAPIC input */
    uint8_t ioapic_id;
} seen;

/* Walks the table as a kernel does. */
static void read_table(const struct guest_memory *memory)
{
    static const uint8_t sizes[] = {20, 8, 8, 8, 8};
    const uint8_t *pointer = guest_memory_at(memory, LAYOUT_MP_TABLE, LAYOUT_MP_TABLE_END - LAYOUT_MP_TABLE);
    uint8_t kind = 0;

    memset(&seen, 0, sizeof(seen));
    assert_memory_equal(pointer, "_MP_", 4);
    assert_int_equal(boot_sum(pointer, 16), 0);
    const uint8_t *header = guest_memory_at(memory, boot_number(pointer + 4, 4), 44);
    assert_memory_equal(header, "PCMP", 4);
    uint64_t length = boot_number(header + 4, 2);
    assert_true(boot_number(pointer + 4, 4) + length <= LAYOUT_MP_TABLE_END);
    assert_int_equal(boot_sum(header, length), 0);
    assert_int_equal(boot_number(header + 36, 4), 0xfee00000);

    uint64_t count = boot_number(header + 34, 2);
    const uint8_t *at = header + 44;
    for (uint64_t i = 0; i < count; i++) {
        assert_true(at[0] < array_length(sizes) && at[0] >= kind); /* ascending by kind */
        kind = at[0];
        switch (kind) {
        case 0:
            assert_int_equal(at[1], seen.processors++);
            assert_int_equal(at[3] & 1, 1);
            seen.boot_processors += at[3] >> 1 & 1;
            break;
        case 1:
            assert_memory_equal(at + 2, "ISA   ", 6);
            seen.buses++;
            break;
        case 2:
            seen.ioapic_id = at[1];
            assert_int_equal(boot_number(at + 4, 4), 0xfec00000);
            seen.ioapics++;
            break;
        case 3:
            assert_int_equal(at[6], seen.ioapic_id);
            assert_int_equal(at[5], at[7]);
            assert_int_equal(seen.wired >> at[7] & 1, 0);
            seen.wired |= 1u << at[7];
            break;
        default:
            seen.local_interrupts++;
            break;
        }
        at += sizes[kind];
    }
    assert_ptr_equal(at, header + length);
}

static void test_table_tells_vcpus_and_wired_interrupts_and_adds_up(void **state)
{
    static const struct {
        uint32_t vcpus;
        size_t slot_count;
        bool serial;
        uint32_t wired;
    } cases[] = {
        {1, 0, false, 0x3}, {1, 0, true, 0x13}, {2, 3, true, 0xf3}, {4, 19, true, 0xfffff3}, {32, 19, true, 0xfffff3}};

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        struct guest_memory *memory = boot_memory(2);
        const struct arch_boot boot = boot_with(cases[i].vcpus, cases[i].slot_count, cases[i].serial);

        assert_no_error(mptable_write(memory, &boot));
        read_table(memory);
        assert_int_equal(seen.processors, cases[i].vcpus);
        assert_int_equal(seen.boot_processors, 1);
        assert_int_equal(seen.buses, 1);
        assert_int_equal(seen.ioapics, 1);
        assert_int_equal(seen.ioapic_id, cases[i].vcpus);
        assert_int_equal(seen.wired, cases[i].wired);
        assert_int_equal(seen.local_interrupts, 2);
        assert_true(boot_memory_is(memory, LAYOUT_MP_TABLE_END, 0x1000, 0));
    }
}

static void test_table_that_does_not_fit_is_an_error_and_stays_in_its_room(void **state)
{
    struct guest_memory *memory = boot_memory(2);
    const struct arch_boot boot = boot_with(32, 64, true);

    (void)state;
    assert_error(mptable_write(memory, &boot), ERROR_INTERNAL, "32 vCPUs and 64 devices");
    assert_true(boot_memory_is(memory, LAYOUT_MP_TABLE_END, 0x1000, 0));
}

#define TEST(name) cmocka_unit_test_teardown(name, boot_teardown)

TEST_MAIN(TEST(test_table_tells_vcpus_and_wired_interrupts_and_adds_up),
          TEST(test_table_that_does_not_fit_is_an_error_and_stays_in_its_room))
