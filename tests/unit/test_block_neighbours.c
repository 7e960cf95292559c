#include "tests/unit/harness.h"

#include "tests/unit/block_driver.h"

#include "vmm/metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Requests that follow one another on the disk: few system calls for many, and each has its own result. */

enum { PAGE = 4096, PAGE_SECTORS = PAGE / SECTOR };

static struct guest_driver *const driver = &block.driver;
static struct guest_ring *const ring = &block.driver.rings[0];

static uint64_t page_gpa(unsigned number)
{
    return DATA_GPA + (uint64_t)number * PAGE;
}

/* A request of a page, whose buffer is the request's own. */
static unsigned add_page(uint32_t type, uint64_t sector)
{
    unsigned number = block.requests;

    return block_add(type, sector, page_gpa(number), PAGE);
}

static void add_pages(uint32_t type, uint64_t sector, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        add_page(type, sector + i * PAGE_SECTORS);
}

/* Notifies of `count` requests and waits for them; lengths[number] is what each used element said. */
static void serve(unsigned count, uint32_t *lengths)
{
    guest_driver_notify(driver, 0);
    for (unsigned i = 0; i < count; i++) {
        uint16_t head;
        uint32_t length = guest_driver_wait_used(driver, 0, &head);

        if (lengths != NULL)
            lengths[(ring->descriptors[head].addr - HEADER_GPA) / 64] = length;
    }
}

static void assert_statuses(const uint8_t *statuses, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (*block_status_of(i) != statuses[i])
            fail_msg("status of request %u is %u instead of %u", i, *block_status_of(i), statuses[i]);
}

/* Calls of read(2) and the like, or of write(2) and the like, that the kernel has counted. */
static unsigned long calls(const char *name)
{
    FILE *file = fopen("/proc/self/io", "re");
    char line[64];
    unsigned long count = 0;

    if (file == NULL)
        skip(); /* a kernel that does not count */
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), ": %lu", &count);
    fclose(file);
    return count;
}

/* What serving them takes, by the calls that a count itself does not make. */
static unsigned long writes_to_serve(unsigned count)
{
    unsigned long before = calls("syscw");

    guest_driver_notify(driver, 0);
    unsigned long after = calls("syscw");
    for (unsigned i = 0; i < count; i++)
        guest_driver_wait_used(driver, 0, NULL);
    return after - before;
}

static void test_neighbours_are_written_by_one_system_call(void **state)
{
    (void)state;
    block_start();
    for (unsigned i = 0; i < 8; i++)
        block_fill(page_gpa(i), PAGE, (uint8_t)(0x10 + i));
    add_pages(VIRTIO_BLK_T_OUT, 80, 8);
    assert_int_equal(writes_to_serve(8), 1);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(*block_status_of(i), VIRTIO_BLK_S_OK);
        assert_block_file_has((80 + i * PAGE_SECTORS) * SECTOR, PAGE, (uint8_t)(0x10 + i));
    }
    assert_block_file_kept(79 * SECTOR, SECTOR);
    assert_block_file_kept((80 + 8 * PAGE_SECTORS) * SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.write_count), 8);
    assert_int_equal(METRIC_TOTAL(block.write_bytes), 8 * PAGE);
}

static void test_one_system_call_has_its_limits(void **state)
{
    struct guest_buffer buffers[102];

    (void)state;
    unlink(block.path);
    block_make_file(block.path, "/tmp", 20 << 17);
    block_start_with(FEATURE(FLUSH) | INDIRECT);

    /* Of requests, */
    for (unsigned i = 0; i < 40; i++)
        block_add(VIRTIO_BLK_T_OUT, i, DATA_GPA, SECTOR);
    assert_int_equal(writes_to_serve(40), 3);
    /* of bytes, half a MiB, */
    for (unsigned i = 0; i < 20; i++)
        block_add(VIRTIO_BLK_T_OUT, i << 8, DATA_GPA + (i << 17), 1 << 17);
    assert_int_equal(writes_to_serve(20), 5);
    /* and of buffers. */
    for (unsigned i = 0; i < 4; i++) {
        unsigned number = block_new_request(VIRTIO_BLK_T_OUT, i * 100);

        buffers[0] = (struct guest_buffer){block_header_gpa(number), 16, false};
        for (unsigned part = 1; part <= 100; part++)
            buffers[part] = (struct guest_buffer){DATA_GPA + part * PAGE, SECTOR, false};
        buffers[101] = (struct guest_buffer){STATUS_GPA + number, 1, true};
        guest_ring_add_indirect(ring, TABLE_GPA + i * 0x1000, buffers, array_length(buffers));
    }
    assert_int_equal(writes_to_serve(4), 2);
    for (unsigned i = 0; i < block.requests; i++)
        assert_int_equal(*block_status_of(i), VIRTIO_BLK_S_OK);
}

/* There a call waits for the disk, and is worth more. */
static void test_writes_that_wait_for_the_disk_go_by_the_mib(void **state)
{
    (void)state;
    unlink(block.path);
    block_make_file(block.path, "/tmp", 20 << 17);
    block_start_with(0);
    for (unsigned i = 0; i < 20; i++)
        block_add(VIRTIO_BLK_T_OUT, i << 8, DATA_GPA + (i << 17), 1 << 17);
    assert_int_equal(writes_to_serve(20), 3);
}

static void test_neighbours_are_read_each_into_its_own_buffers(void **state)
{
    uint32_t lengths[20];

    (void)state;
    block_start();
    add_pages(VIRTIO_BLK_T_IN, 7, 20);
    serve(20, lengths);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(*block_status_of(i), VIRTIO_BLK_S_OK);
        assert_int_equal(lengths[i], PAGE + 1);
        assert_block_pattern(page_gpa(i), (7 + i * PAGE_SECTORS) * SECTOR, PAGE);
    }
    assert_int_equal(METRIC_TOTAL(block.read_count), 20);
    assert_int_equal(METRIC_TOTAL(block.read_bytes), 20 * PAGE);
}

/* The guest need not have waited: only the synchronous engine promises an order. */
static void test_what_does_not_follow_is_done_in_its_turn(void **state)
{
    (void)state;
    block_start();
    for (unsigned i = 0; i < 6; i++)
        block_fill(page_gpa(i), PAGE, (uint8_t)(0x20 + i));
    add_page(VIRTIO_BLK_T_OUT, 0);
    add_page(VIRTIO_BLK_T_OUT, 8);
    add_page(VIRTIO_BLK_T_OUT, 0); /* back */
    add_page(VIRTIO_BLK_T_IN, 8);  /* the other way */
    add_page(VIRTIO_BLK_T_OUT, 8);
    add_page(VIRTIO_BLK_T_OUT, 24); /* with a gap */
    block_add(VIRTIO_BLK_T_FLUSH, 0, 0, 0);
    serve(7, NULL);
    assert_statuses((const uint8_t[7]){VIRTIO_BLK_S_OK}, 7);
    assert_block_file_has(0, PAGE, 0x22);
    assert_block_file_has(8 * SECTOR, PAGE, 0x24);
    assert_int_equal(*(uint8_t *)block_at(page_gpa(3), 1), 0x21);
    assert_block_file_kept(16 * SECTOR, PAGE);
    assert_block_file_has(24 * SECTOR, PAGE, 0x25);
    assert_int_equal(METRIC_TOTAL(block.flush_count), 1);
}

static void test_neighbours_beyond_the_end_of_a_truncated_file_fail_alone(void **state)
{
    uint32_t lengths[5];

    (void)state;
    block_start();
    assert_int_equal(truncate(block.path, 2 * PAGE + 700), 0);
    add_pages(VIRTIO_BLK_T_IN, 0, 5);
    serve(5, lengths);
    assert_statuses(
        (const uint8_t[]){VIRTIO_BLK_S_OK, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        5);
    assert_int_equal(lengths[0], PAGE + 1);
    assert_int_equal(lengths[1], PAGE + 1);
    assert_int_equal(lengths[2], 700 + 1);
    assert_int_equal(lengths[3], 1);
    assert_block_pattern(page_gpa(1), PAGE, PAGE);
    assert_block_pattern(page_gpa(2), 2 * PAGE, 700);
    assert_int_equal(METRIC_TOTAL(block.read_count), 2);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 3);
}

static void test_neighbours_of_a_write_that_fails_half_way_have_their_own_results(void **state)
{
    const struct rlimit limit = {16 * SECTOR + 2 * PAGE + 1024, RLIM_INFINITY},
                        unlimited = {RLIM_INFINITY, RLIM_INFINITY};

    (void)state;
    block_start();
    block_fill(DATA_GPA, 5 * PAGE, 0x44);
    add_pages(VIRTIO_BLK_T_OUT, 16, 4);
    add_page(VIRTIO_BLK_T_OUT, 8); /* follows nobody, and is within the limit */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    serve(5, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_statuses(
        (const uint8_t[]){VIRTIO_BLK_S_OK, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK},
        5);
    assert_block_file_has(8 * SECTOR, PAGE, 0x44);
    assert_block_file_has(16 * SECTOR, PAGE, 0x44);
    assert_block_file_has(16 * SECTOR + PAGE, PAGE, 0x44);
    assert_block_file_has(16 * SECTOR + 2 * PAGE, 1024, 0x44);
    assert_block_file_kept(16 * SECTOR + 2 * PAGE + 1024, PAGE);
    assert_int_equal(METRIC_TOTAL(block.write_count), 3);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 2);
}

/* The one in the middle, or the first: the others are served. */
static void test_neighbours_of_one_that_fails_are_served(void **state)
{
    (void)state;
    block_start();
    for (unsigned bad = 0; bad < 4; bad++) {
        uint8_t statuses[4] = {0};
        unsigned first = block.requests;

        /* Memory that the kernel may not write to. */
        assert_int_equal(mprotect(block_at(page_gpa(first + bad), PAGE), PAGE, PROT_NONE), 0);
        add_pages(VIRTIO_BLK_T_IN, 0, 4);
        serve(4, NULL);
        statuses[bad] = VIRTIO_BLK_S_IOERR;
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(*block_status_of(first + i), statuses[i]);
            if (i != bad)
                assert_block_pattern(page_gpa(first + i), i * PAGE, PAGE);
        }
        assert_int_equal(METRIC_TOTAL(block.execute_fails), bad + 1);
    }
}

static bool is_throttled(void *unused)
{
    (void)unused;
    return METRIC_TOTAL(block.rate_limiter_throttled_events) > 0;
}

static void test_each_of_several_neighbours_takes_its_tokens(void **state)
{
    (void)state;
    block.config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = 3, .refill_time = 3600000},
    };
    block_start();
    add_pages(VIRTIO_BLK_T_IN, 0, 8);
    serve(3, NULL);
    guest_driver_run_until(driver, is_throttled, NULL);
    assert_false(guest_ring_has_used(ring));
    assert_int_equal(METRIC_TOTAL(block.read_count), 3);
    assert_int_equal(*block_status_of(3), UNTOUCHED);
}

/* What came before the guest broke the rules is on the disk, as if each had been served by itself. */
static void test_neighbours_before_a_broken_chain_are_served(void **state)
{
    (void)state;
    block_start();
    block_fill(DATA_GPA, 3 * PAGE, 0x66);
    add_pages(VIRTIO_BLK_T_OUT, 0, 3);
    guest_ring_publish(ring, 0xffff);
    guest_driver_notify(driver, 0);
    assert_true(driver->failed);
    guest_driver_reset(driver);
    assert_block_file_has(0, PAGE, 0x66);
    assert_block_file_has(2 * PAGE, PAGE, 0x66);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, block_setup_sync, block_teardown)

TEST_MAIN(SYNC_TEST(test_neighbours_are_written_by_one_system_call), SYNC_TEST(test_one_system_call_has_its_limits),
          SYNC_TEST(test_writes_that_wait_for_the_disk_go_by_the_mib),
          SYNC_TEST(test_what_does_not_follow_is_done_in_its_turn),
          BLOCK_TEST(test_neighbours_are_read_each_into_its_own_buffers),
          BLOCK_TEST(test_neighbours_beyond_the_end_of_a_truncated_file_fail_alone),
          BLOCK_TEST(test_neighbours_of_a_write_that_fails_half_way_have_their_own_results),
          BLOCK_TEST(test_neighbours_of_one_that_fails_are_served),
          BLOCK_TEST(test_each_of_several_neighbours_takes_its_tokens),
          SYNC_TEST(test_neighbours_before_a_broken_chain_are_served))
