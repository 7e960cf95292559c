#include "tests/unit/harness.h"

#include "tests/unit/block_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The block device, driven as a guest would: what each request does. How many share it: test_block_turns.c. */

static struct guest_driver *const driver = &block.driver;
static struct guest_ring *const ring = &block.driver.rings[0];

/* What the device offers */

static void test_config_tells_capacity_and_limits(void **state)
{
    struct virtio_blk_config config;

    (void)state;
    block_start();
    block_read_config(&config);
    assert_int_equal(config.capacity, FILE_SECTORS);
    assert_int_equal(config.blk_size, SECTOR);
    assert_int_equal(config.seg_max, VIRTQUEUE_IOV_MAX - 2);
    assert_int_equal(config.max_discard_seg, 1);
    assert_int_equal(config.max_write_zeroes_seg, 1);
}

static void test_features_follow_the_configuration(void **state)
{
    const uint64_t always = FEATURE(SEG_MAX) | FEATURE(BLK_SIZE);

    (void)state;
    for (int i = 0; i < 4; i++) {
        bool read_only = (i & 1) != 0, writeback = (i & 2) != 0;

        block.config.is_read_only = read_only;
        block.config.cache_type = writeback ? CACHE_TYPE_WRITEBACK : CACHE_TYPE_UNSAFE;
        struct virtio_device *device = block_make_device();
        assert_int_equal(device->features, always |
                                               (read_only ? FEATURE(RO) : FEATURE(DISCARD) | FEATURE(WRITE_ZEROES)) |
                                               (writeback ? FEATURE(FLUSH) : 0));
        device->ops->destroy(device);
    }
}

static void test_capacity_is_rounded_down_to_whole_sectors(void **state)
{
    struct virtio_blk_config config;

    (void)state;
    assert_int_equal(truncate(block.path, 10 * SECTOR + 511), 0);
    block_start();
    block_read_config(&config);
    assert_int_equal(config.capacity, 10);
    assert_int_equal(block_read_sectors(9, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(block_read_sectors(10, 1), VIRTIO_BLK_S_IOERR);
}

static void test_empty_file_is_a_drive_without_sectors(void **state)
{
    (void)state;
    assert_int_equal(truncate(block.path, 0), 0);
    block_start();
    assert_int_equal(block_read_sectors(0, 1), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_write_sectors(0, 1), VIRTIO_BLK_S_IOERR);
}

/* Reading and writing */

static void test_reads_what_the_file_holds(void **state)
{
    uint32_t written;

    (void)state;
    block_start();
    assert_int_equal(block_request(VIRTIO_BLK_T_IN, 5, DATA_GPA, 8 * SECTOR, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, 8 * SECTOR + 1);
    assert_block_pattern(DATA_GPA, 5 * SECTOR, 8 * SECTOR);
    assert_int_equal(block_read_sectors(FILE_SECTORS - 1, 1), VIRTIO_BLK_S_OK);
    assert_block_pattern(DATA_GPA, FILE_SIZE - SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.read_count), 2);
    assert_int_equal(METRIC_TOTAL(block.read_bytes), 9 * SECTOR);
}

static void test_writes_reach_the_file_and_nothing_else(void **state)
{
    uint32_t written;

    (void)state;
    block_start();
    block_fill(DATA_GPA, 4 * SECTOR, 0x5a);
    assert_int_equal(block_request(VIRTIO_BLK_T_OUT, 100, DATA_GPA, 4 * SECTOR, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, 1);
    assert_block_file_kept(99 * SECTOR, SECTOR);
    assert_block_file_has(100 * SECTOR, 4 * SECTOR, 0x5a);
    assert_block_file_kept(104 * SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.write_bytes), 4 * SECTOR);
}

static void test_any_layout_of_buffers_will_do(void **state)
{
    (void)state;
    block_start();
    /* The header in two parts; the status at the end of the data's last buffer. */
    unsigned number = block_new_request(VIRTIO_BLK_T_IN, 7);
    const struct guest_buffer read_buffers[] = {
        {block_header_gpa(number), 5, false},
        {block_header_gpa(number) + 5, 11, false},
        {DATA_GPA, 100, true},
        {DATA_GPA + 0x1000, 412 + SECTOR + 1, true},
    };
    guest_ring_add(ring, read_buffers, 4);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 2 * SECTOR + 1);
    assert_block_pattern(DATA_GPA, 7 * SECTOR, 100);
    assert_block_pattern(DATA_GPA + 0x1000, 7 * SECTOR + 100, 412 + SECTOR);
    assert_int_equal(*(uint8_t *)block_at(DATA_GPA + 0x1000 + 412 + SECTOR, 1), VIRTIO_BLK_S_OK);

    /* Header and data in one buffer. */
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = 9};
    const struct guest_buffer write_buffers[] = {{DATA_GPA, sizeof(header) + SECTOR, false}, {STATUS_GPA, 1, true}};
    block_fill(DATA_GPA, sizeof(header) + SECTOR, 0x77);
    memcpy(block_at(DATA_GPA, sizeof(header)), &header, sizeof(header));
    guest_ring_add(ring, write_buffers, 2);
    guest_driver_notify(driver, 0);
    guest_driver_wait_used(driver, 0, NULL);
    assert_int_equal(*(uint8_t *)block_at(STATUS_GPA, 1), VIRTIO_BLK_S_OK);
    assert_block_file_has(9 * SECTOR, SECTOR, 0x77);
}

static void test_as_many_segments_as_offered_are_served(void **state)
{
    enum { SEGMENTS = VIRTQUEUE_IOV_MAX - 2 };
    struct guest_buffer buffers[VIRTQUEUE_IOV_MAX];

    (void)state;
    block_start_with(INDIRECT);
    unsigned number = block_new_request(VIRTIO_BLK_T_IN, 0);
    buffers[0] = (struct guest_buffer){block_header_gpa(number), 16, false};
    for (unsigned i = 0; i < SEGMENTS; i++)
        buffers[i + 1] = (struct guest_buffer){DATA_GPA + i * 0x1000, SECTOR, true};
    buffers[SEGMENTS + 1] = (struct guest_buffer){STATUS_GPA + number, 1, true};
    guest_ring_add_indirect(ring, TABLE_GPA, buffers, VIRTQUEUE_IOV_MAX);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), SEGMENTS * SECTOR + 1);
    assert_int_equal(*block_status_of(number), VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < SEGMENTS; i++)
        assert_block_pattern(DATA_GPA + i * 0x1000, i * SECTOR, SECTOR);
}

static void test_ranges_beyond_the_disk_are_refused(void **state)
{
    static const uint64_t sectors[] = {FILE_SECTORS,       FILE_SECTORS - 1, UINT64_MAX,      UINT64_MAX / SECTOR,
                                       UINT64_MAX / 2 + 1, 1ULL << 55,       (1ULL << 55) - 1};

    (void)state;
    block_start();
    block_fill(DATA_GPA, 2 * SECTOR, UNTOUCHED);
    for (size_t i = 0; i < array_length(sectors); i++) {
        uint32_t written;

        assert_int_equal(block_request(VIRTIO_BLK_T_IN, sectors[i], DATA_GPA, 2 * SECTOR, &written),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(written, 1);
        assert_int_equal(block_write_sectors(sectors[i], 2), VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(*(uint8_t *)block_at(DATA_GPA, 1), UNTOUCHED);
    assert_block_file_kept(FILE_SIZE - SECTOR, SECTOR);

    struct stat status;
    assert_int_equal(stat(block.path, &status), 0);
    assert_int_equal(status.st_size, FILE_SIZE);
    assert_block_alive();
}

static void test_lengths_that_are_not_whole_sectors_are_refused(void **state)
{
    (void)state;
    block_start();
    assert_int_equal(block_request(VIRTIO_BLK_T_IN, 0, DATA_GPA, 511, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_request(VIRTIO_BLK_T_OUT, 0, DATA_GPA, SECTOR + 1, NULL), VIRTIO_BLK_S_IOERR);
    assert_block_file_kept(0, SECTOR);
    assert_int_equal(block_request(VIRTIO_BLK_T_IN, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_block_alive();
}

static void test_read_only_drive_refuses_every_change(void **state)
{
    (void)state;
    block.config.is_read_only = true;
    assert_int_equal(chmod(block.path, 0444), 0);
    block_start_with(FEATURE(RO));
    assert_int_equal(block_write_sectors(0, 1), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_forget(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_forget(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_block_file_kept(0, 8 * SECTOR);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 0); /* not even tried */
    assert_block_alive();
}

/* Flush, identity, unknown */

static void test_flush_succeeds_with_either_cache_type(void **state)
{
    (void)state;
    block_use_memory();
    block_start();
    assert_int_equal(block_write_sectors(0, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(block_request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(METRIC_TOTAL(block.flush_count), 1);
    driver->device->ops->destroy(driver->device);

    block.config.cache_type = CACHE_TYPE_UNSAFE;
    block_start_with(0);
    assert_int_equal(block_request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
}

static void test_driver_that_cannot_flush_gets_durable_writes(void **state)
{
    (void)state;
    block_start_with(0);
    block_fill(DATA_GPA, SECTOR, 0x42);
    assert_int_equal(block_write_sectors(1, 1), VIRTIO_BLK_S_OK);
    assert_block_file_has(SECTOR, SECTOR, 0x42);
}

static void test_identity_is_made_of_device_and_inode(void **state)
{
    struct stat status;
    char expected[64] = {0};
    uint32_t written;

    (void)state;
    block_start();
    assert_int_equal(stat(block.path, &status), 0);
    snprintf(expected, sizeof(expected), "%llu%llu%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_rdev, (unsigned long long)status.st_ino);
    assert_int_equal(block_request(VIRTIO_BLK_T_GET_ID, 0, DATA_GPA, VIRTIO_BLK_ID_BYTES, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, VIRTIO_BLK_ID_BYTES + 1);
    assert_memory_equal(block_at(DATA_GPA, VIRTIO_BLK_ID_BYTES), expected, VIRTIO_BLK_ID_BYTES);
    assert_int_equal(block_request(VIRTIO_BLK_T_GET_ID, 0, DATA_GPA, VIRTIO_BLK_ID_BYTES - 1, NULL),
                     VIRTIO_BLK_S_IOERR);
}

static void test_unknown_requests_are_unsupported(void **state)
{
    static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 16, 0x80000000, 0xffffffff};

    (void)state;
    block_start();
    for (size_t i = 0; i < array_length(types); i++)
        assert_int_equal(block_request(types[i], 0, DATA_GPA, SECTOR, NULL), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(METRIC_TOTAL(block.invalid_reqs_count), array_length(types));
    assert_block_alive();
}

static void test_malformed_requests_are_answered_as_far_as_possible(void **state)
{
    (void)state;
    block_start();

    /* Nowhere to put a status. */
    unsigned number = block_new_request(VIRTIO_BLK_T_IN, 0);
    const struct guest_buffer no_status[] = {{block_header_gpa(number), 16, false}};
    guest_ring_add(ring, no_status, 1);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 0);

    /* No header, or not all of it. */
    const struct guest_buffer no_header[] = {{STATUS_GPA, 1, true}};
    *(uint8_t *)block_at(STATUS_GPA, 1) = UNTOUCHED;
    guest_ring_add(ring, no_header, 1);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 1);
    assert_int_equal(*(uint8_t *)block_at(STATUS_GPA, 1), VIRTIO_BLK_S_IOERR);

    const struct guest_buffer short_header[] = {{block_header_gpa(number), 15, false}, {DATA_GPA, SECTOR + 1, true}};
    guest_ring_add(ring, short_header, 2);
    guest_driver_notify(driver, 0);
    guest_driver_wait_used(driver, 0, NULL);
    assert_int_equal(*(uint8_t *)block_at(DATA_GPA + SECTOR, 1), VIRTIO_BLK_S_IOERR);
    assert_block_alive();
}

/* Failures of the host */

static void test_file_truncated_under_the_guest_is_an_io_error(void **state)
{
    uint32_t written;

    (void)state;
    block_start();
    assert_int_equal(truncate(block.path, 10 * SECTOR + 100), 0);
    block_fill(DATA_GPA, 4 * SECTOR, UNTOUCHED);
    assert_int_equal(block_request(VIRTIO_BLK_T_IN, 8, DATA_GPA, 4 * SECTOR, &written), VIRTIO_BLK_S_IOERR);
    assert_int_equal(written, 2 * SECTOR + 100 + 1);
    assert_block_pattern(DATA_GPA, 8 * SECTOR, 2 * SECTOR + 100);
    assert_int_equal(block_read_sectors(100, 1), VIRTIO_BLK_S_IOERR);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 2);
    assert_block_alive();
}

/* A write that stops half-way goes on where it stopped, and its error is the guest's. */
static void test_write_that_fails_half_way_is_not_repeated(void **state)
{
    const struct rlimit limit = {10 * SECTOR, RLIM_INFINITY}, unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    struct guest_buffer buffers[] = {{0, 16, false}, {0, 700, false}, {0, 4 * SECTOR - 700, false}, {0, 1, true}};

    (void)state;
    block_start();
    unsigned number = block_new_request(VIRTIO_BLK_T_OUT, 8);
    buffers[0].gpa = block_header_gpa(number);
    buffers[1].gpa = DATA_GPA;
    buffers[2].gpa = DATA_GPA + 0x1000;
    buffers[3].gpa = STATUS_GPA + number;
    block_fill(DATA_GPA, 0x2000, 0x33);
    guest_ring_add(ring, buffers, 4);

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_int_equal(*block_status_of(number), VIRTIO_BLK_S_IOERR);
    assert_block_file_has(8 * SECTOR, 2 * SECTOR, 0x33);
    assert_block_file_kept(10 * SECTOR, 2 * SECTOR);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 1);
    assert_int_equal(METRIC_TOTAL(block.write_count), 0);
    assert_block_alive();
}

static void test_wrong_files_are_refused_by_name(void **state)
{
    struct virtio_device *device = NULL;
    char fifo[80];

    (void)state;
    snprintf(fifo, sizeof(fifo), "%s.fifo", block.path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    const struct {
        const char *path;
        enum error_kind kind;
        const char *text;
    } wrong[] = {
        {"/nowhere/at/all", ERROR_HOST, "path_on_host: cannot open \"/nowhere/at/all\": No such file or directory"},
        {"/dev/null", ERROR_INPUT, "path_on_host: \"/dev/null\" is a character device"},
        {fifo, ERROR_INPUT, "is a FIFO, expected a regular file or a block device"},
        {"", ERROR_HOST, "path_on_host: cannot open \"\""},
        {NULL, ERROR_INPUT, "path_on_host: missing"},
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        block.config.path_on_host = (char *)(uintptr_t)wrong[i].path;
        assert_error(virtio_block_new(&block.config, driver->loop, &device), wrong[i].kind, wrong[i].text);
        assert_null(device);
        /* Opening a FIFO to read it alone would wait for a writer. */
        block.config.is_read_only = true;
        assert_error(virtio_block_new(&block.config, driver->loop, &device), wrong[i].kind, "path_on_host: ");
        block.config.is_read_only = false;
    }
    unlink(fifo);
}

/* PATCH */

static void test_update_changes_file_capacity_and_identity(void **state)
{
    struct virtio_blk_config config;
    char path[64];
    struct drive_update update = {.path_on_host = path};

    (void)state;
    block_start();
    block_make_file(path, "/tmp", 4 * SECTOR);
    assert_int_equal(truncate(path, 100 * SECTOR), 0);
    assert_no_error(virtio_block_update(driver->device, &update));
    assert_int_equal(driver->config_signals, 1);
    block_read_config(&config);
    assert_int_equal(config.capacity, 100);
    block_fill(DATA_GPA, SECTOR, UNTOUCHED);
    assert_int_equal(block_read_sectors(50, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(*(uint8_t *)block_at(DATA_GPA, 1), 0);
    assert_int_equal(block_read_sectors(100, 1), VIRTIO_BLK_S_IOERR);
    block_fill(DATA_GPA, SECTOR, 1);
    assert_int_equal(block_write_sectors(0, 1), VIRTIO_BLK_S_OK);
    assert_block_file_kept(0, SECTOR);
    unlink(path);
}

static void test_update_to_a_wrong_file_changes_nothing(void **state)
{
    const struct drive_update update = {.path_on_host = (char *)(uintptr_t) "/nowhere"};
    struct virtio_blk_config config;

    (void)state;
    block_start();
    assert_error(virtio_block_update(driver->device, &update), ERROR_HOST, "path_on_host: cannot open \"/nowhere\"");
    assert_int_equal(driver->config_signals, 0);
    block_read_config(&config);
    assert_int_equal(config.capacity, FILE_SECTORS);
    assert_int_equal(METRIC_TOTAL(block.update_fails), 1);
    assert_block_alive();
}

TEST_MAIN(BLOCK_TEST(test_config_tells_capacity_and_limits), BLOCK_TEST(test_features_follow_the_configuration),
          BLOCK_TEST(test_capacity_is_rounded_down_to_whole_sectors),
          BLOCK_TEST(test_empty_file_is_a_drive_without_sectors), BLOCK_TEST(test_reads_what_the_file_holds),
          BLOCK_TEST(test_writes_reach_the_file_and_nothing_else), BLOCK_TEST(test_any_layout_of_buffers_will_do),
          BLOCK_TEST(test_as_many_segments_as_offered_are_served), BLOCK_TEST(test_ranges_beyond_the_disk_are_refused),
          BLOCK_TEST(test_lengths_that_are_not_whole_sectors_are_refused),
          BLOCK_TEST(test_read_only_drive_refuses_every_change), BLOCK_TEST(test_flush_succeeds_with_either_cache_type),
          BLOCK_TEST(test_driver_that_cannot_flush_gets_durable_writes),
          BLOCK_TEST(test_identity_is_made_of_device_and_inode), BLOCK_TEST(test_unknown_requests_are_unsupported),
          BLOCK_TEST(test_malformed_requests_are_answered_as_far_as_possible),
          BLOCK_TEST(test_file_truncated_under_the_guest_is_an_io_error),
          BLOCK_TEST(test_write_that_fails_half_way_is_not_repeated), BLOCK_TEST(test_wrong_files_are_refused_by_name),
          BLOCK_TEST(test_update_changes_file_capacity_and_identity),
          BLOCK_TEST(test_update_to_a_wrong_file_changes_nothing))
