#include "tests/unit/boot_fixture.h"

#include "vmm/arch/x86_64/boot_cmdline.h"
#include "vmm/arch/x86_64/e820.h"
#include "vmm/arch/x86_64/layout.h"

#include <stdio.h>
#include <string.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static const struct arch_virtio_slot slots[] = {{0xc0001000, 5}, {0xc0002000, 6}};

/* --- The memory map --- */

static void test_memory_is_split_around_the_hole(void **state)
{
    static const struct {
        uint64_t size, low, high;
    } cases[] = {{MIB, MIB, 0},           {128 * MIB, 128 * MIB, 0},
                 {3 * GIB, 3 * GIB, 0},   {3 * GIB + MIB, 3 * GIB, MIB},
                 {4 * GIB, 3 * GIB, GIB}, {64 * GIB, 3 * GIB, 61 * GIB}};

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        struct guest_memory memory;

        arch_memory_layout(cases[i].size, &memory);
        assert_int_equal(memory.count, cases[i].high > 0 ? 2 : 1);
        assert_int_equal(memory.regions[0].gpa, 0);
        assert_int_equal(memory.regions[0].size, cases[i].low);
        if (cases[i].high > 0) {
            assert_int_equal(memory.regions[1].gpa, 4 * GIB);
            assert_int_equal(memory.regions[1].size, cases[i].high);
        }
    }
}

static void test_memory_map_gives_all_memory_but_what_the_tables_use(void **state)
{
    static const uint64_t sizes[] = {MIB, 2 * MIB, 128 * MIB, 3 * GIB, 3 * GIB + MIB, 4 * GIB, 64 * GIB};

    (void)state;
    for (size_t i = 0; i < array_length(sizes); i++) {
        struct boot_e820_entry entries[E820_ENTRIES_MAX];
        struct guest_memory memory;
        uint64_t ram = 0, end = 0;

        arch_memory_layout(sizes[i], &memory);
        size_t count = e820_build(&memory, entries);
        for (size_t e = 0; e < count; e++) {
            assert_true(entries[e].addr >= end); /* ascending, disjoint */
            assert_true(entries[e].size > 0);
            end = entries[e].addr + entries[e].size;
            if (entries[e].type != E820_RAM)
                continue;
            ram += entries[e].size;
            assert_true(end <= ARCH_MMIO_HOLE_START || entries[e].addr >= 4 * GIB);
            assert_true(end <= LAYOUT_MP_TABLE || entries[e].addr >= LAYOUT_KERNEL_MIN);
        }
        assert_int_equal(ram, sizes[i] - MIB + LAYOUT_MP_TABLE);
    }
}

/* --- The command line --- */

static void test_devices_stand_behind_the_kernels_words_and_before_inits(void **state)
{
    static const struct {
        const char *given, *written;
        size_t slot_count;
    } cases[] = {
        {"quiet", "quiet", 0},
        {"", "", 0},
        {"quiet", "quiet virtio_mmio.device=4K@0xc0001000:5", 1},
        {"quiet ", "quiet virtio_mmio.device=4K@0xc0001000:5", 1},
        {"", "virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6", 2},
        {"quiet -- -x --", "quiet virtio_mmio.device=4K@0xc0001000:5 -- -x --", 1},
        {"quiet -- a", "quiet -- a", 0},
        {"-- a", "virtio_mmio.device=4K@0xc0001000:5 -- a", 1},
        {"a=\"x -- y\" b", "a=\"x -- y\" b virtio_mmio.device=4K@0xc0001000:5", 1},
        {"a--", "a-- virtio_mmio.device=4K@0xc0001000:5", 1},
    };

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        char line[ARCH_CMDLINE_MAX];

        assert_no_error(boot_cmdline_write(cases[i].given, slots, cases[i].slot_count, line, sizeof(line)));
        assert_string_equal(line, cases[i].written);
    }
}

static void test_command_line_that_is_too_long_is_refused_with_its_length(void **state)
{
    const char device[] = " virtio_mmio.device=4K@0xc0001000:5";
    char given[ARCH_CMDLINE_MAX + 100];
    char line[ARCH_CMDLINE_MAX + 1];

    (void)state;
    memset(given, 'x', sizeof(given));
    given[ARCH_CMDLINE_MAX - 1 - strlen(device)] = '\0';
    line[ARCH_CMDLINE_MAX] = '!';
    assert_no_error(boot_cmdline_write(given, slots, 1, line, ARCH_CMDLINE_MAX));
    assert_int_equal(strlen(line), ARCH_CMDLINE_MAX - 1);

    for (size_t more = 0; more < 90; more++) {
        size_t length = ARCH_CMDLINE_MAX - strlen(device) + more;

        memset(given, 'x', sizeof(given));
        given[length] = '\0';
        given[length - 5] = ' '; /* with words for init too */
        given[length - 4] = given[length - 3] = '-';
        given[length - 2] = ' ';
        assert_error(boot_cmdline_write(given, slots, 1, line, ARCH_CMDLINE_MAX), ERROR_INPUT, "boot_args");
        assert_int_equal(line[ARCH_CMDLINE_MAX], '!');
    }
    given[ARCH_CMDLINE_MAX] = '\0';
    assert_error(boot_cmdline_write(given, slots, 0, line, ARCH_CMDLINE_MAX), ERROR_INPUT, "2048 bytes");
}

static void test_words_are_found_whole_and_only_before_inits(void **state)
{
    (void)state;
    assert_true(boot_cmdline_has("a acpi=off b", "acpi=off"));
    assert_true(boot_cmdline_has("acpi=off", "acpi=off"));
    assert_false(boot_cmdline_has("acpi=off2 xacpi=off \"acpi=off\"x", "acpi=off"));
    assert_false(boot_cmdline_has("quiet -- acpi=off", "acpi=off"));
    assert_false(boot_cmdline_has("", "acpi=off"));
    assert_false(boot_cmdline_has("   ", "acpi=off"));
}

/* --- All of it --- */

static struct arch_kernel kernel;

static struct error *write_boot(const struct guest_memory *memory, const char *cmdline)
{
    const struct arch_boot boot = {.kernel = &kernel,
                                   .cmdline = cmdline,
                                   .initrd_gpa = 0x7f00000,
                                   .initrd_size = 0x12345,
                                   .vcpu_count = 2,
                                   .slots = slots,
                                   .slot_count = array_length(slots),
                                   .has_serial = true};

    return arch_boot_write(memory, &boot);
}

static const struct boot_params *zero_page(const struct guest_memory *memory)
{
    return guest_memory_at(memory, LAYOUT_BOOT_INFO, sizeof(struct boot_params));
}

static const char *cmdline_at(const struct guest_memory *memory, uint64_t gpa)
{
    return guest_memory_at(memory, gpa, ARCH_CMDLINE_MAX);
}

static void test_zero_page_points_to_what_was_written(void **state)
{
    struct guest_memory *memory = boot_memory(128);
    struct setup_header header = {
        .version = 0x20f, .cmdline_size = 2047, .initrd_addr_max = 0x7fffffff, .setup_data = 99};

    (void)state;
    for (int bzimage = 0; bzimage < 2; bzimage++) {
        kernel = (struct arch_kernel){.entry = 0x1000000, .end = 0x2000000, .has_setup_header = bzimage == 1};
        memcpy(kernel.setup_header, &header, sizeof(header));
        assert_no_error(write_boot(memory, "console=ttyS0"));

        const struct boot_params *params = zero_page(memory);
        assert_int_equal(params->hdr.boot_flag, 0xaa55);
        assert_int_equal(params->hdr.header, 0x53726448);
        assert_int_equal(params->hdr.type_of_loader, 0xff);
        assert_int_equal(params->hdr.version, bzimage ? 0x20f : 0);
        assert_int_equal(params->hdr.setup_data, 0);
        assert_int_equal(params->hdr.ramdisk_image, 0x7f00000);
        assert_int_equal(params->hdr.ramdisk_size, 0x12345);
        assert_int_equal(params->acpi_rsdp_addr, LAYOUT_ACPI);
        assert_int_equal(params->e820_entries, 4);
        assert_int_equal(params->e820_table[3].size, 127 * MIB);
        assert_string_equal(cmdline_at(memory, params->hdr.cmd_line_ptr),
                            "console=ttyS0 virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6");
    }
}

static void test_first_gigabyte_is_identity_mapped_for_the_64_bit_entry(void **state)
{
    struct guest_memory *memory = boot_memory(128);
    const uint64_t *table;

    (void)state;
    kernel = (struct arch_kernel){.entry = 0x1000000, .end = 0x2000000};
    assert_no_error(write_boot(memory, ""));
    table = guest_memory_at(memory, LAYOUT_PML4, 4096);
    assert_int_equal(table[0], LAYOUT_PDPT | 3);
    assert_int_equal(table[1], 0);
    table = guest_memory_at(memory, LAYOUT_PDPT, 4096);
    assert_int_equal(table[0], LAYOUT_PAGE_DIRECTORY | 3);
    assert_int_equal(table[1], 0);
    table = guest_memory_at(memory, LAYOUT_PAGE_DIRECTORY, 4096);
    for (uint64_t i = 0; i < 512; i++)
        assert_int_equal(table[i], i << 21 | 0x83);
    table = guest_memory_at(memory, LAYOUT_GDT, 40);
    assert_int_equal(table[0], 0);
    assert_int_equal(table[2], 0x00af9b000000ffff); /* selector 0x10, as boot.rst wants it */
    assert_int_equal(table[3], 0x00cf93000000ffff);
}

static void test_pvh_start_info_points_to_what_was_written(void **state)
{
    struct guest_memory *memory = boot_memory(4096);

    (void)state;
    kernel = (struct arch_kernel){.protocol = ARCH_BOOT_PVH, .entry = 0x1000000, .end = 0x2000000};
    assert_no_error(write_boot(memory, "quiet"));
    const uint8_t *info = guest_memory_at(memory, LAYOUT_BOOT_INFO, 56);
    assert_int_equal(boot_number(info, 4), 0x336ec578);
    assert_int_equal(boot_number(info + 4, 4), 1);
    assert_int_equal(boot_number(info + 12, 4), 1);
    const uint8_t *module = guest_memory_at(memory, boot_number(info + 16, 8), 32);
    assert_int_equal(boot_number(module, 8), 0x7f00000);
    assert_int_equal(boot_number(module + 8, 8), 0x12345);
    assert_int_equal(strncmp(cmdline_at(memory, boot_number(info + 24, 8)), "quiet virtio_mmio.device=", 25), 0);
    assert_int_equal(boot_number(info + 32, 8), LAYOUT_ACPI);

    assert_int_equal(boot_number(info + 48, 4), 5);
    const uint8_t *last = guest_memory_at(memory, boot_number(info + 40, 8) + 4 * 24, 24);
    assert_int_equal(boot_number(last, 8), 4 * GIB);
    assert_int_equal(boot_number(last + 8, 8), GIB);
    assert_int_equal(boot_number(last + 16, 8), E820_RAM);
    assert_true(boot_memory_is(memory, LAYOUT_PML4, 3 * 4096, 0)); /* no page tables */
}

static void test_command_line_decides_who_tells_of_the_devices(void **state)
{
    static const struct {
        const char *cmdline;
        bool acpi, on_cmdline;
    } cases[] = {{"", true, true},
                 {"quiet acpi=off", false, true},
                 {"quiet acpi=force", true, false},
                 {"quiet -- acpi=off", true, true}};

    (void)state;
    kernel = (struct arch_kernel){.entry = 0x1000000, .end = 0x2000000};
    for (size_t i = 0; i < array_length(cases); i++) {
        struct guest_memory *memory = boot_memory(128);

        assert_no_error(write_boot(memory, cases[i].cmdline));
        assert_int_equal(zero_page(memory)->acpi_rsdp_addr, cases[i].acpi ? LAYOUT_ACPI : 0);
        assert_true(boot_memory_is(memory, LAYOUT_ACPI, 0x1000, 0) == !cases[i].acpi);
        assert_true((strstr(cmdline_at(memory, LAYOUT_CMDLINE), "virtio_mmio.device=") != NULL) == cases[i].on_cmdline);
        assert_memory_equal(guest_memory_at(memory, LAYOUT_MP_TABLE, 4), "_MP_", 4);
    }
}

static void test_command_line_beyond_what_the_bzimage_reads_is_refused(void **state)
{
    struct guest_memory *memory = boot_memory(128);
    struct setup_header header = {.version = 0x20f, .cmdline_size = 74};

    (void)state;
    kernel = (struct arch_kernel){.entry = 0x1000000, .end = 0x2000000, .has_setup_header = true};
    memcpy(kernel.setup_header, &header, sizeof(header));
    assert_no_error(write_boot(memory, "1234"));
    assert_error(write_boot(memory, "12345"), ERROR_INPUT, "75 bytes with its devices, expected at most 74");
}

static void test_everything_fits_into_one_mebibyte(void **state)
{
    struct guest_memory *memory = boot_memory(1);

    (void)state;
    kernel = (struct arch_kernel){.entry = 0x1000, .end = 0x2000};
    assert_no_error(write_boot(memory, "quiet"));
    assert_int_equal(zero_page(memory)->e820_entries, 3);
}

#define TEST(name) cmocka_unit_test_teardown(name, boot_teardown)

TEST_MAIN(TEST(test_memory_is_split_around_the_hole), TEST(test_memory_map_gives_all_memory_but_what_the_tables_use),
          TEST(test_devices_stand_behind_the_kernels_words_and_before_inits),
          TEST(test_command_line_that_is_too_long_is_refused_with_its_length),
          TEST(test_words_are_found_whole_and_only_before_inits), TEST(test_zero_page_points_to_what_was_written),
          TEST(test_first_gigabyte_is_identity_mapped_for_the_64_bit_entry),
          TEST(test_pvh_start_info_points_to_what_was_written),
          TEST(test_command_line_decides_who_tells_of_the_devices),
          TEST(test_command_line_beyond_what_the_bzimage_reads_is_refused),
          TEST(test_everything_fits_into_one_mebibyte))
