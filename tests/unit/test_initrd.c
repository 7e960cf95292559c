#include "tests/unit/boot_fixture.h"

#include <asm/bootparam.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define MIB (1ull << 20)

static uint8_t bytes[3 * 4096 + 100];

static struct arch_kernel kernel_ending_at(uint64_t end)
{
    return (struct arch_kernel){.entry = 0x1000000, .end = end};
}

static struct error *load(const struct guest_memory *memory, const struct arch_kernel *kernel, size_t size, bool map,
                          uint64_t *gpa)
{
    uint64_t loaded = 0;
    struct error *error;

    boot_pattern(bytes, sizeof(bytes));
    error = arch_initrd_load(memory, boot_file(bytes, size), "/i/initrd", map, kernel, gpa, &loaded);
    if (error == NULL)
        assert_int_equal(loaded, size);
    return error;
}

static void test_initrd_ends_the_memory_below_the_hole(void **state)
{
    static const struct {
        uint64_t mib, end;
    } cases[] = {{32, 32 * MIB}, {128, 128 * MIB}, {3072, 3072 * MIB}, {4096, 3072 * MIB}, {8192, 3072 * MIB}};
    const struct arch_kernel kernel = kernel_ending_at(0x1400123);

    (void)state;
    for (size_t i = 0; i < array_length(cases); i++) {
        for (int map = 0; map < 2; map++) {
            struct guest_memory *memory = boot_memory(cases[i].mib);
            uint64_t gpa;

            assert_no_error(load(memory, &kernel, sizeof(bytes), map == 1, &gpa));
            assert_int_equal(gpa, cases[i].end - 4 * 4096);
            assert_memory_equal(guest_memory_at(memory, gpa, sizeof(bytes)), bytes, sizeof(bytes));
            assert_true(boot_memory_is(memory, gpa + sizeof(bytes), 4 * 4096 - sizeof(bytes), 0));
        }
    }
}

static void test_initrd_stays_below_what_a_bzimage_can_reach(void **state)
{
    struct arch_kernel kernel = kernel_ending_at(0x1400000);
    struct setup_header header = {.initrd_addr_max = 0x37ffffff};
    struct guest_memory *memory = boot_memory(2048);
    uint64_t gpa;

    (void)state;
    kernel.has_setup_header = true;
    memcpy(kernel.setup_header, &header, sizeof(header));
    assert_no_error(load(memory, &kernel, 4096, true, &gpa));
    assert_int_equal(gpa, 0x37fff000);

    header.initrd_addr_max = UINT32_MAX; /* beyond the memory */
    memcpy(kernel.setup_header, &header, sizeof(header));
    assert_no_error(load(memory, &kernel, 4096, true, &gpa));
    assert_int_equal(gpa, 0x7ffff000);

    header.initrd_addr_max = 0;
    memcpy(kernel.setup_header, &header, sizeof(header));
    assert_error(load(memory, &kernel, 4096, true, &gpa), ERROR_INPUT, "4096 bytes do not fit, expected at most 0");
}

static void test_initrd_that_just_fits_fits(void **state)
{
    const struct arch_kernel kernel = kernel_ending_at(2 * MIB - 2 * 4096 - 1);
    struct guest_memory *memory = boot_memory(2);
    uint64_t gpa;

    (void)state;
    assert_no_error(load(memory, &kernel, 2 * 4096, false, &gpa));
    assert_int_equal(gpa, 2 * MIB - 2 * 4096);
    assert_no_error(load(memory, &kernel, 4097, false, &gpa));
    assert_int_equal(gpa, 2 * MIB - 2 * 4096);
}

static void test_initrd_that_does_not_fit_is_refused_and_leaves_memory_alone(void **state)
{
    static const uint64_t ends[] = {2 * MIB - 2 * 4096, 2 * MIB - 4096 + 1, 2 * MIB, 3 * MIB, UINT64_MAX - 4096};
    struct guest_memory *memory = boot_memory(2);
    uint64_t gpa;

    (void)state;
    for (size_t i = 0; i < array_length(ends); i++) {
        const struct arch_kernel kernel = kernel_ending_at(ends[i]);

        assert_error(load(memory, &kernel, 2 * 4096 + 1, true, &gpa), ERROR_INPUT,
                     "\"/i/initrd\": 8193 bytes do not fit, expected at most ");
    }
    assert_true(boot_memory_untouched(memory));
}

static void test_what_is_no_file_of_bytes_is_refused(void **state)
{
    const struct arch_kernel kernel = kernel_ending_at(MIB);
    struct guest_memory *memory = boot_memory(2);
    uint64_t gpa, size;

    (void)state;
    assert_error(load(memory, &kernel, 0, true, &gpa), ERROR_INPUT, "\"/i/initrd\" is empty");
    cleanup_fd int directory = open("/", O_RDONLY | O_CLOEXEC);
    assert_error(arch_initrd_load(memory, directory, "/", true, &kernel, &gpa, &size), ERROR_INPUT, "is a directory");
}

/* A file of sysfs says so only when it is asked, and then what was mapped there before is gone. */
static void test_initrd_that_cannot_be_mapped_leaves_no_gap(void **state)
{
    cleanup_fd int fd = open("/sys/kernel/uevent_seqnum", O_RDONLY | O_CLOEXEC);
    const struct arch_kernel kernel = kernel_ending_at(0x1400000);
    struct guest_memory *memory = boot_memory(32);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    uint64_t gpa, size;

    (void)state;
    if (fd < 0)
        skip();
    assert_error(arch_initrd_load(memory, fd, "/i/initrd", true, &kernel, &gpa, &size), ERROR_HOST, "cannot map");
    assert_ptr_equal(mmap(guest_memory_at(memory, 32 * MIB - 4096, 4096), 4096, PROT_NONE, flags, -1, 0), MAP_FAILED);
}

#define TEST(name) cmocka_unit_test_teardown(name, boot_teardown)

TEST_MAIN(TEST(test_initrd_ends_the_memory_below_the_hole), TEST(test_initrd_stays_below_what_a_bzimage_can_reach),
          TEST(test_initrd_that_just_fits_fits), TEST(test_initrd_that_does_not_fit_is_refused_and_leaves_memory_alone),
          TEST(test_initrd_that_cannot_be_mapped_leaves_no_gap), TEST(test_what_is_no_file_of_bytes_is_refused))
