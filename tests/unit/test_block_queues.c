#include "tests/unit/harness.h"

#include "tests/unit/block_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <string.h>
#include <unistd.h>

/* A block device of several queues, and one that goes around the page cache. */

static struct guest_driver *const driver = &block.driver;

static void wait_for_reads(unsigned queue, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(guest_driver_wait_used(driver, queue, NULL), SECTOR + 1);
}

static unsigned add_read_to(unsigned queue, uint64_t sector)
{
    unsigned number = block.requests++;
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN, .sector = sector};
    const struct guest_buffer buffers[] = {{HEADER_GPA + number * 64, sizeof(header), false},
                                           {DATA_GPA + number * 0x1000, SECTOR, true},
                                           {STATUS_GPA + number, 1, true}};

    memcpy(block_at(buffers[0].gpa, sizeof(header)), &header, sizeof(header));
    *block_status_of(number) = UNTOUCHED;
    guest_ring_add(&driver->rings[queue], buffers, array_length(buffers));
    return number;
}

static void test_each_of_several_queues_is_served_and_signalled(void **state)
{
    struct virtio_blk_config config;

    (void)state;
    block.config.queue_count = 4;
    block_start_with(FEATURE(MQ) | EVENT_IDX);
    block_read_config(&config);
    assert_int_equal(config.num_queues, 4);
    for (unsigned queue = 0; queue < 4; queue++) {
        unsigned number = add_read_to(queue, queue + 5);

        guest_driver_notify(driver, queue);
        wait_for_reads(queue, 1);
        assert_int_equal(*block_status_of(number), VIRTIO_BLK_S_OK);
        assert_block_pattern(DATA_GPA + number * 0x1000, (queue + 5) * SECTOR, SECTOR);
        assert_int_equal(driver->queue_signals[queue], 1);
    }
}

/* More than one turn takes, on each: nobody is left out. */
static void test_queues_have_their_turns_one_after_the_other(void **state)
{
    (void)state;
    block.config.queue_count = 3;
    block_start_with(FEATURE(MQ));
    for (unsigned queue = 0; queue < 3; queue++)
        for (unsigned i = 0; i < 80; i++)
            add_read_to(queue, i);
    for (unsigned queue = 0; queue < 3; queue++)
        guest_driver_notify(driver, queue);
    wait_for_reads(2, 80);
    wait_for_reads(1, 80);
    wait_for_reads(0, 80);
    assert_int_equal(METRIC_TOTAL(block.read_count), 240);
}

static void test_limited_queues_wait_for_the_same_tokens(void **state)
{
    (void)state;
    block.config.queue_count = 2;
    block.config.rate_limiter =
        (struct rate_limiter_config){.present = true, .ops = {.present = true, .size = 1, .refill_time = 2}};
    block_start_with(FEATURE(MQ));
    for (unsigned i = 0; i < 4; i++) {
        add_read_to(0, i);
        add_read_to(1, i);
    }
    guest_driver_notify(driver, 0);
    guest_driver_notify(driver, 1);
    wait_for_reads(1, 4);
    wait_for_reads(0, 4);
}

static void test_broken_queue_stops_the_others_too(void **state)
{
    (void)state;
    block.config.queue_count = 2;
    block_start_with(FEATURE(MQ));
    guest_ring_available_index(&driver->rings[1], 1000);
    guest_driver_notify(driver, 1);
    assert_true(driver->failed);
    guest_driver_reset(driver);
    guest_driver_restart(driver, FEATURE(MQ));
    add_read_to(1, 3);
    guest_driver_notify(driver, 1);
    wait_for_reads(1, 1);
}

static void test_direct_drive_reads_and_writes_the_file(void **state)
{
    struct virtio_blk_config config;
    struct virtio_device *device = NULL;
    const struct drive_update update = {.path_on_host = block.path};

    (void)state;
    block.config.direct = true;
    struct error *error = virtio_block_new(&block.config, driver->loop, &device);
    if (error != NULL) {
        print_message("skipped: %s\n", error->message);
        error_free(error);
        skip();
    }
    guest_driver_start(driver, device, 0);
    block_read_config(&config);
    assert_true(config.blk_size == SECTOR || config.blk_size == 4096);
    assert_int_equal(block_read_sectors(8, 8), VIRTIO_BLK_S_OK);
    assert_block_pattern(DATA_GPA, 8 * SECTOR, 8 * SECTOR);

    /* A file that grows under the same name: PATCH with its path looks again. */
    assert_int_equal(truncate(block.path, FILE_SIZE + 8 * SECTOR), 0);
    assert_no_error(virtio_block_update(device, &update));
    block_read_config(&config);
    assert_int_equal(config.capacity, FILE_SECTORS + 8);
    assert_int_equal(driver->config_signals, 1);
    assert_int_equal(block_read_sectors(FILE_SECTORS, 8), VIRTIO_BLK_S_OK);
}

TEST_MAIN(BLOCK_TEST(test_each_of_several_queues_is_served_and_signalled),
          BLOCK_TEST(test_queues_have_their_turns_one_after_the_other),
          BLOCK_TEST(test_limited_queues_wait_for_the_same_tokens), BLOCK_TEST(test_broken_queue_stops_the_others_too),
          BLOCK_TEST(test_direct_drive_reads_and_writes_the_file))
