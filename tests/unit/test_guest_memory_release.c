#include "tests/unit/harness.h"

#include "vmm/guest_memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Giving memory back to the host. 0xaa is what the guest wrote, 0xff what is in a file. */

enum { PAGE = 4096, PAGES = 16, FILE_FIRST = 4, FILE_COUNT = 4 };
#define HIGH_GPA 0x100000ULL

static struct guest_memory memory;

static struct guest_memory regions(void)
{
    return (struct guest_memory){
        .regions = {{.gpa = 0, .size = PAGES * PAGE}, {.gpa = HIGH_GPA, .size = 2 * PAGE}},
        .count = 2,
    };
}

static void fill(void)
{
    memset(memory.regions[0].hva, 0xaa, memory.regions[0].size);
    memset(memory.regions[1].hva, 0xaa, memory.regions[1].size);
}

static int setup(void **state)
{
    (void)state;
    memory = regions();
    assert_no_error(guest_memory_map(&memory, HUGE_PAGES_NONE));
    fill();
    return 0;
}

static int setup_shared(void **state)
{
    (void)state;
    memory = regions();
    assert_no_error(guest_memory_map_shared(&memory, HUGE_PAGES_NONE));
    fill();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_memory_unmap(&memory);
    return 0;
}

/* The pages FILE_FIRST to FILE_FIRST + FILE_COUNT are a file's, mapped as a kernel is. */
static void map_file(void)
{
    cleanup_fd int fd = memfd_create("kernel", MFD_CLOEXEC);
    uint8_t bytes[FILE_COUNT * PAGE];
    uint8_t *hva = memory.regions[0].hva + FILE_FIRST * PAGE;

    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    assert_ptr_equal(mmap(hva, sizeof(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0), hva);
    memory.files[GUEST_FILES_INITRD] =
        (struct guest_range){.gpa = FILE_FIRST * PAGE, .end = (FILE_FIRST + FILE_COUNT) * PAGE};
}

static void assert_page(unsigned page, uint8_t expected)
{
    const uint8_t *bytes = memory.regions[0].hva + page * PAGE;

    for (size_t i = 0; i < PAGE; i++)
        if (bytes[i] != expected)
            fail_msg("page %u, byte %zu: 0x%x, expected 0x%x", page, i, bytes[i], expected);
}

static bool release(uint64_t gpa, uint64_t length)
{
    return guest_memory_release(&memory, gpa, length, GUEST_RELEASE_ALL);
}

static void test_released_pages_are_zeros_and_their_neighbours_stay(void **state)
{
    (void)state;
    assert_true(release(2 * PAGE, 3 * PAGE));
    assert_page(1, 0xaa);
    for (unsigned page = 2; page < 5; page++)
        assert_page(page, 0);
    assert_page(5, 0xaa);
}

static void test_released_pages_are_the_hosts_again(void **state)
{
    unsigned char there[PAGES];

    (void)state;
    assert_true(release(0, PAGES * PAGE));
    assert_int_equal(mincore(memory.regions[0].hva, PAGES * PAGE, there), 0);
    for (unsigned page = 0; page < PAGES; page++)
        assert_int_equal(there[page] & 1, 0);
}

static void test_parts_of_pages_stay(void **state)
{
    (void)state;
    assert_true(release(2 * PAGE + 1, 3 * PAGE));
    assert_page(2, 0xaa);
    assert_page(3, 0);
    assert_page(4, 0);
    assert_page(5, 0xaa);
    assert_true(release(8 * PAGE + 1, PAGE - 2));
    assert_true(release(8 * PAGE + 1, 0));
    assert_page(8, 0xaa);
}

static void test_what_is_not_memory_is_refused_and_nothing_goes(void **state)
{
    static const struct {
        uint64_t gpa, length;
    } bad[] = {{15 * PAGE, 2 * PAGE},
               {PAGES * PAGE, PAGE},
               {HIGH_GPA - PAGE, 2 * PAGE},
               {HIGH_GPA + PAGE, 2 * PAGE},
               {0, HIGH_GPA + PAGE},
               {UINT64_MAX - PAGE + 1, PAGE},
               {UINT64_MAX, 1},
               {PAGE, UINT64_MAX},
               {0, UINT64_MAX}};

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++)
        assert_false(release(bad[i].gpa, bad[i].length));
    for (unsigned page = 0; page < PAGES; page++)
        assert_page(page, 0xaa);
    assert_int_equal(memory.regions[1].hva[0], 0xaa);
    assert_int_equal(memory.regions[1].hva[2 * PAGE - 1], 0xaa);
}

/* MADV_DONTNEED would bring 0xff. */
static void test_pages_of_a_file_do_not_come_back(void **state)
{
    (void)state;
    map_file();
    memory.regions[0].hva[5 * PAGE] = 1;
    assert_true(release(2 * PAGE, 4 * PAGE));
    for (unsigned page = 2; page < 6; page++)
        assert_page(page, 0);
    assert_page(6, 0xff);
    assert_true(release(7 * PAGE, 2 * PAGE));
    assert_page(6, 0xff);
    assert_page(7, 0);
    assert_page(8, 0);
    assert_true(release(0, PAGES * PAGE));
    for (unsigned page = 0; page < PAGES; page++)
        assert_page(page, 0);
}

static unsigned mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    unsigned count = 0;

    assert_non_null(file);
    for (int c = 0; (c = fgetc(file)) != EOF;)
        count += c == '\n';
    fclose(file);
    return count;
}

/* A guest that gives up every other page of a large file; each hole is two mappings of this process. */
static void test_holes_in_a_file_leave_room_for_other_mappings(void **state)
{
    enum { FILE_PAGES = 20000, HOLES_MAX = 8192 };
    struct guest_memory large = {.regions = {{.gpa = 0, .size = FILE_PAGES * PAGE}}, .count = 1};
    cleanup_fd int fd = memfd_create("initrd", MFD_CLOEXEC);
    unsigned before;

    (void)state;
    assert_no_error(guest_memory_map(&large, HUGE_PAGES_NONE));
    assert_int_equal(ftruncate(fd, FILE_PAGES * PAGE), 0);
    assert_ptr_equal(
        mmap(large.regions[0].hva, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0),
        large.regions[0].hva);
    large.files[GUEST_FILES_INITRD] = (struct guest_range){.gpa = 0, .end = FILE_PAGES * PAGE};
    for (unsigned page = 0; page < FILE_PAGES; page += 2)
        large.regions[0].hva[page * PAGE] = 1;
    before = mappings();
    for (unsigned page = 0; page < FILE_PAGES; page += 2)
        assert_true(guest_memory_release(&large, page * PAGE, PAGE, GUEST_RELEASE_ALL));
    assert_in_range(mappings(), before, before + 2 * HOLES_MAX);
    for (unsigned page = 0; page < FILE_PAGES; page++)
        assert_int_equal(large.regions[0].hva[page * PAGE], 0);
    /* What is long enough goes back to the host. */
    assert_true(guest_memory_release(&large, 0, FILE_PAGES / 2 * PAGE, GUEST_RELEASE_ALL));
    assert_in_range(mappings(), before, before + HOLES_MAX);
    guest_memory_unmap(&large);
}

static void test_pages_of_a_file_stay_when_asked_to(void **state)
{
    (void)state;
    map_file();
    memory.regions[0].hva[5 * PAGE] = 1;
    assert_true(guest_memory_release(&memory, 0, PAGES * PAGE, GUEST_RELEASE_BUT_FILES));
    for (unsigned page = 0; page < PAGES; page++)
        if (page < FILE_FIRST || page >= FILE_FIRST + FILE_COUNT)
            assert_page(page, 0);
    assert_page(4, 0xff);
    assert_int_equal(memory.regions[0].hva[5 * PAGE], 1);
}

/* Of two files next to each other, and one at the very end. */
static void test_files_that_touch_are_all_released(void **state)
{
    (void)state;
    map_file();
    memory.files[GUEST_FILES_KERNEL] = (struct guest_range){.gpa = 2 * PAGE, .end = FILE_FIRST * PAGE};
    assert_true(release(PAGE, 15 * PAGE));
    assert_page(0, 0xaa);
    for (unsigned page = 1; page < PAGES; page++)
        assert_page(page, 0);
}

static void test_shared_pages_go_for_everybody(void **state)
{
    uint8_t *other = mmap(NULL, PAGES * PAGE, PROT_READ, MAP_SHARED, memory.shared_fd, 0);

    (void)state;
    assert_ptr_not_equal(other, MAP_FAILED);
    assert_int_equal(other[3 * PAGE], 0xaa);
    /* Files are read into such memory. */
    memory.files[GUEST_FILES_KERNEL] = (struct guest_range){.gpa = 0, .end = PAGES * PAGE};
    assert_true(release(2 * PAGE, 3 * PAGE));
    assert_page(1, 0xaa);
    assert_page(2, 0);
    assert_page(4, 0);
    assert_page(5, 0xaa);
    assert_int_equal(other[3 * PAGE], 0);
    munmap(other, PAGES * PAGE);
}

/* The unit is 2 MiB then: nothing less goes. What they look like does not matter here. */
static void test_huge_pages_go_only_whole(void **state)
{
    (void)state;
    memory.huge_pages = HUGE_PAGES_2M;
    assert_true(release(0, PAGES * PAGE));
    for (unsigned page = 0; page < PAGES; page++)
        assert_page(page, 0xaa);
}

static void test_forbidden_pages_are_out_of_reach_until_mapped_again(void **state)
{
    uint8_t *hva = memory.regions[0].hva;
    int pipes[2];

    (void)state;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_true(guest_pages_forbid(hva, 2 * PAGE));
    assert_int_equal(write(pipes[1], hva, 1), -1); /* EFAULT */
    assert_true(guest_pages_map(hva, 2 * PAGE, HUGE_PAGES_TRANSPARENT));
    assert_page(0, 0);
    assert_page(1, 0);
    assert_page(2, 0xaa);
    assert_int_equal(write(pipes[1], hva, 1), 1);
    close(pipes[0]);
    close(pipes[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(test_released_pages_are_zeros_and_their_neighbours_stay), TEST(test_released_pages_are_the_hosts_again),
          TEST(test_parts_of_pages_stay), TEST(test_what_is_not_memory_is_refused_and_nothing_goes),
          TEST(test_pages_of_a_file_do_not_come_back), TEST(test_holes_in_a_file_leave_room_for_other_mappings),
          TEST(test_pages_of_a_file_stay_when_asked_to), TEST(test_files_that_touch_are_all_released),
          cmocka_unit_test_setup_teardown(test_shared_pages_go_for_everybody, setup_shared, teardown),
          TEST(test_huge_pages_go_only_whole), TEST(test_forbidden_pages_are_out_of_reach_until_mapped_again))
