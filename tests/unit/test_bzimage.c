#include "tests/unit/boot_fixture.h"

#include <asm/bootparam.h>
#include <string.h>

/* Three sectors of setup code behind the first, then two pages and a bit of kernel, then a signature. */
enum { SETUP_HEADER = 0x1f1, PAYLOAD = 4 * 512, PAYLOAD_SIZE = 0x2100, FILE_SIZE = PAYLOAD + PAYLOAD_SIZE + 100 };

static uint8_t file[FILE_SIZE];
static struct setup_header header;

static void build_bzimage(void)
{
    memset(file, 0xee, sizeof(file));
    boot_pattern(file + PAYLOAD, PAYLOAD_SIZE);
    header = (struct setup_header){
        .setup_sects = 3,
        .syssize = PAYLOAD_SIZE / 16,
        .boot_flag = 0xaa55,
        .jump = 0x6aeb,
        .header = 0x53726448,
        .version = 0x20f,
        .loadflags = LOADED_HIGH,
        .xloadflags = XLF_KERNEL_64,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .cmdline_size = 2047,
        .pref_address = 0x1000000,
        .init_size = 0x400000,
    };
}

static struct error *load_size(const struct guest_memory *memory, bool map, size_t size, struct arch_kernel *kernel)
{
    memcpy(file + SETUP_HEADER, &header, sizeof(header));
    return arch_kernel_load(memory, boot_file(file, size), "/k/bzImage", map, kernel);
}

static struct error *load(const struct guest_memory *memory, struct arch_kernel *kernel)
{
    return load_size(memory, false, sizeof(file), kernel);
}

static void test_kernel_goes_to_its_preferred_address(void **state)
{
    struct guest_memory *memory = boot_memory(32);

    (void)state;
    for (int map = 0; map < 2; map++) {
        struct arch_kernel kernel;

        build_bzimage();
        assert_no_error(guest_memory_clear(memory, HUGE_PAGES_NONE));
        assert_no_error(load_size(memory, map == 1, sizeof(file), &kernel));
        assert_int_equal(kernel.protocol, ARCH_BOOT_LINUX64);
        assert_int_equal(kernel.entry, 0x1000200);
        assert_int_equal(kernel.end, 0x1400000);
        assert_true(kernel.has_setup_header);
        assert_memory_equal(kernel.setup_header, &header, sizeof(header));
        assert_memory_equal(guest_memory_at(memory, 0x1000000, PAYLOAD_SIZE), file + PAYLOAD, PAYLOAD_SIZE);
        assert_true(boot_memory_is(memory, 0x1000000 + PAYLOAD_SIZE, 0x3000, 0)); /* no signature */
        assert_int_equal(kernel.mapped_bytes, 0);                                 /* offset 0x800: not congruent */
    }
}

static void test_congruent_kernel_is_mapped(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_bzimage();
    header.pref_address = 0x1000800;
    assert_no_error(load_size(memory, true, sizeof(file), &kernel));
    assert_int_equal(kernel.mapped_bytes, 0x1000);
    assert_memory_equal(guest_memory_at(memory, 0x1000800, PAYLOAD_SIZE), file + PAYLOAD, PAYLOAD_SIZE);
    assert_true(boot_memory_is(memory, 0x1000000, 0x800, 0));
    assert_true(boot_memory_is(memory, 0x1000800 + PAYLOAD_SIZE, 0x1000, 0));
}

static void test_zero_setup_sectors_mean_four(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_bzimage();
    header.setup_sects = 0;
    header.syssize -= 512 / 16;
    assert_no_error(load(memory, &kernel));
    assert_memory_equal(guest_memory_at(memory, 0x1000000, 16), file + 5 * 512, 16);
}

static void test_broken_headers_are_refused_with_field_value_and_expectation(void **state)
{
    static const struct {
        size_t offset, size;
        uint64_t value;
        const char *text;
    } broken[] = {
#define FIELD(name) offsetof(struct setup_header, name), sizeof(((struct setup_header *)0)->name)
        {FIELD(boot_flag), 0, "boot_flag is 0x0, expected 0xaa55"},
        {FIELD(version), 0x20b, "protocol version is 0x20b, expected at least 0x20c"},
        {FIELD(loadflags), 0, "loadflags is 0x0, expected LOADED_HIGH"},
        {FIELD(xloadflags), 0, "xloadflags is 0x0, expected XLF_KERNEL_64"},
        {FIELD(setup_sects), 255, "setup_sects is 0xff"},
        {FIELD(syssize), 0, "syssize is 0x0"},
        {FIELD(syssize), 0x200 / 16, "syssize is 0x20"}, /* ends where the entry is */
        {FIELD(syssize), (PAYLOAD_SIZE + 100) / 16 + 2, "syssize is 0x218, expected the kernel within the file"},
        {FIELD(syssize), UINT32_MAX, "syssize is 0xffffffff"},
        {FIELD(pref_address), 0, "pref_address is 0x0, expected at least 0x100000"},
        {FIELD(pref_address), 0xfffff, "pref_address is 0xfffff"},
        {FIELD(pref_address), 0x1e00000, "needs 0x400000 bytes at pref_address 0x1e00000, expected guest memory"},
        {FIELD(pref_address), UINT64_MAX, "pref_address 0xffffffffffffffff, expected guest memory"},
        {FIELD(pref_address), UINT64_MAX - 0x3fffff, "pref_address 0xffffffffffc00000, expected guest memory"},
        {FIELD(init_size), 0, "init_size is 0x0"},
        {FIELD(init_size), 0x1000001, "needs 0x1000001 bytes at pref_address 0x1000000"},
        {FIELD(init_size), UINT32_MAX, "(mem_size_mib is 32)"},
    };
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    for (size_t i = 0; i < array_length(broken); i++) {
        build_bzimage();
        memcpy((uint8_t *)&header + broken[i].offset, &broken[i].value, broken[i].size);
        assert_error(load(memory, &kernel), ERROR_INPUT, broken[i].text);
        assert_true(boot_memory_untouched(memory));
    }
}

static void test_kernel_beyond_what_its_entry_finds_mapped_is_refused(void **state)
{
    struct guest_memory *memory = boot_memory(2048);
    struct arch_kernel kernel;

    (void)state;
    build_bzimage();
    header.pref_address = 0x3fd00000;
    assert_error(load(memory, &kernel), ERROR_INPUT, "below 0x40000000");
}

static void test_kernel_cut_off_anywhere_is_refused(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_bzimage();
    for (size_t size = 1; size < PAYLOAD + PAYLOAD_SIZE - 15; size = size < 0x280 ? size + 1 : size + 0x7f) {
        assert_error(load_size(memory, true, size, &kernel), ERROR_INPUT, "\"/k/bzImage\"");
        assert_true(boot_memory_untouched(memory));
    }
}

static void test_last_paragraph_may_be_short(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_bzimage();
    assert_no_error(load_size(memory, false, PAYLOAD + PAYLOAD_SIZE - 15, &kernel));
    assert_true(boot_memory_is(memory, 0x1000000 + PAYLOAD_SIZE - 15, 15, 0));
}

#define TEST(name) cmocka_unit_test_teardown(name, boot_teardown)

TEST_MAIN(TEST(test_kernel_goes_to_its_preferred_address), TEST(test_congruent_kernel_is_mapped),
          TEST(test_zero_setup_sectors_mean_four),
          TEST(test_broken_headers_are_refused_with_field_value_and_expectation),
          TEST(test_kernel_beyond_what_its_entry_finds_mapped_is_refused),
          TEST(test_kernel_cut_off_anywhere_is_refused), TEST(test_last_paragraph_may_be_short))
