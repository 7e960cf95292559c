#include "tests/unit/harness.h"

#include "vmm/guest_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Two regions with a hole between them, as with more than 3 GiB. */
static struct guest_memory memory;

static int setup(void **state)
{
    (void)state;
    memory = (struct guest_memory){
        .regions = {{.gpa = 0, .size = 0x4000}, {.gpa = 0x100000, .size = 0x2000}},
        .count = 2,
    };
    assert_no_error(guest_memory_map(&memory, HUGE_PAGES_NONE));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_memory_unmap(&memory);
    return 0;
}

static void test_range_within_a_region_has_a_host_address(void **state)
{
    (void)state;
    assert_ptr_equal(guest_memory_at(&memory, 0, 0x4000), memory.regions[0].hva);
    assert_ptr_equal(guest_memory_at(&memory, 0x101fff, 1), memory.regions[1].hva + 0x1fff);
    assert_int_equal(guest_memory_size(&memory), 0x6000);
}

static void test_range_outside_or_across_regions_has_none(void **state)
{
    static const struct {
        uint64_t gpa, length;
    } bad[] = {{0x3fff, 2},
               {0x4000, 1},
               {0xfffff, 1},
               {0xfffff, 2},
               {0x102000, 1},
               {0x101000, 0x1001},
               {0, UINT64_MAX},
               {UINT64_MAX, 1},
               {0x1000, UINT64_MAX - 0xfff},
               {UINT64_MAX - 1, UINT64_MAX},
               {0, 0x104000}};

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++)
        assert_null(guest_memory_at(&memory, bad[i].gpa, bad[i].length));
}

static void test_refused_copy_copies_nothing(void **state)
{
    uint8_t bytes[16];

    (void)state;
    memset(bytes, 0x11, sizeof(bytes));
    assert_false(guest_memory_write(&memory, 0x3ff8, bytes, sizeof(bytes)));
    assert_int_equal(memory.regions[0].hva[0x3ff8], 0);
    assert_false(guest_memory_read(&memory, 0x101ff8, bytes, sizeof(bytes)));
    assert_int_equal(bytes[0], 0x11);
}

static void test_copy_goes_there_and_back(void **state)
{
    const char text[] = "through the guest";
    char back[sizeof(text)];

    (void)state;
    assert_true(guest_memory_write(&memory, 0x100100, text, sizeof(text)));
    assert_true(guest_memory_read(&memory, 0x100100, back, sizeof(back)));
    assert_string_equal(back, text);
}

static void test_clear_brings_zeros_at_the_same_address(void **state)
{
    uint8_t *first = memory.regions[0].hva;

    (void)state;
    memset(first, 0xff, 0x4000);
    assert_no_error(guest_memory_clear(&memory, HUGE_PAGES_NONE));
    assert_ptr_equal(memory.regions[0].hva, first);
    for (size_t i = 0; i < 0x4000; i++)
        assert_int_equal(first[i], 0);
}

/* Whether the mapping that has `place` is left out of core dumps. */
static bool is_left_out_of_dumps(const void *place)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[512];
    bool here = false, left_out = false;

    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL) {
        unsigned long start, end;

        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = (uintptr_t)place >= start && (uintptr_t)place < end;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            left_out = strstr(line, " dd") != NULL;
    }
    fclose(maps);
    return left_out;
}

/* What a guest has in its memory must not be in the dump of a VMM that crashed. */
static void test_guest_memory_is_in_no_core_dump(void **state)
{
    struct guest_memory shared = {.regions = {{.gpa = 0, .size = 0x4000}}, .count = 1};

    (void)state;
    assert_false(is_left_out_of_dumps(&shared));
    assert_true(is_left_out_of_dumps(memory.regions[0].hva));
    assert_no_error(guest_memory_clear(&memory, HUGE_PAGES_NONE));
    assert_true(is_left_out_of_dumps(memory.regions[1].hva));
    assert_true(guest_pages_map(memory.regions[0].hva + 0x1000, 0x1000, HUGE_PAGES_NONE));
    assert_true(is_left_out_of_dumps(memory.regions[0].hva + 0x1000));
    assert_no_error(guest_memory_map_shared(&shared, HUGE_PAGES_NONE));
    assert_true(is_left_out_of_dumps(shared.regions[0].hva));
    guest_memory_unmap(&shared);
}

/* Others have it mapped: they must see the zeros, too, and keep what they have mapped. */
static void test_shared_memory_is_cleared_for_all_and_its_file_closed(void **state)
{
    struct guest_memory shared = {.regions = {{.gpa = 0, .size = 0x4000}, {.gpa = 0x100000, .size = 0x2000}},
                                  .count = 2};

    (void)state;
    assert_no_error(guest_memory_map_shared(&shared, HUGE_PAGES_NONE));
    int fd = shared.shared_fd;
    uint8_t *other = mmap(NULL, 0x6000, PROT_READ, MAP_SHARED, fd, 0), *first = shared.regions[0].hva;
    assert_ptr_not_equal(other, MAP_FAILED);
    memset(first, 0xff, 0x4000);
    memset(shared.regions[1].hva, 0xee, 0x2000);
    assert_int_equal(other[0x3fff], 0xff);
    assert_int_equal(other[0x4000], 0xee);
    assert_int_equal(ftruncate(fd, 0x1000), -1);
    assert_int_equal(ftruncate(fd, 0x10000), -1);
    assert_no_error(guest_memory_clear(&shared, HUGE_PAGES_NONE));
    assert_ptr_equal(shared.regions[0].hva, first);
    for (size_t i = 0; i < 0x6000; i++)
        assert_int_equal(other[i], 0);
    assert_int_equal(shared.regions[1].hva[0x1fff], 0);
    munmap(other, 0x6000);
    guest_memory_unmap(&shared);
    assert_false(shared.shared);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void test_too_much_memory_is_an_error_that_names_the_field(void **state)
{
    struct guest_memory too_much = {.regions = {{.size = 0x1000}, {.gpa = 0x1000, .size = 1ull << 62}}, .count = 2};

    (void)state;
    assert_error(guest_memory_map(&too_much, HUGE_PAGES_NONE), ERROR_HOST, "mem_size_mib");
    assert_null(too_much.regions[0].hva);
}

/* The VM's memslots stay: what this process maps next must not come to lie behind them. */
static void test_memory_that_cannot_be_cleared_leaves_no_gap(void **state)
{
    struct guest_memory large = {.regions = {{.gpa = 0, .size = 64ull << 30}}, .count = 1};
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;

    (void)state;
    assert_no_error(guest_memory_map(&large, HUGE_PAGES_NONE));
    assert_error(guest_memory_clear(&large, HUGE_PAGES_2M), ERROR_HOST, "2M huge pages");
    assert_ptr_equal(mmap(large.regions[0].hva, large.regions[0].size, PROT_NONE, flags, -1, 0), MAP_FAILED);
    guest_memory_unmap(&large);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void test_regions_start_where_huge_pages_do(void **state)
{
    struct guest_memory several = {.regions = {{.gpa = 0, .size = 3 << 12}, {.gpa = 1ull << 32, .size = 4ull << 20}},
                                   .count = 2};

    (void)state;
    assert_no_error(guest_memory_map(&several, HUGE_PAGES_NONE));
    for (size_t i = 0; i < several.count; i++)
        assert_int_equal((uintptr_t)several.regions[i].hva % (2u << 20), 0);
    guest_memory_unmap(&several);
}

TEST_MAIN(TEST(test_guest_memory_is_in_no_core_dump),
          cmocka_unit_test(test_shared_memory_is_cleared_for_all_and_its_file_closed),
          cmocka_unit_test(test_regions_start_where_huge_pages_do), TEST(test_range_within_a_region_has_a_host_address),
          TEST(test_range_outside_or_across_regions_has_none), TEST(test_refused_copy_copies_nothing),
          TEST(test_copy_goes_there_and_back), TEST(test_clear_brings_zeros_at_the_same_address),
          cmocka_unit_test(test_memory_that_cannot_be_cleared_leaves_no_gap),
          TEST(test_too_much_memory_is_an_error_that_names_the_field))
