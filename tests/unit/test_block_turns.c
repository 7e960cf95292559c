#include "tests/unit/harness.h"

#include "tests/unit/block_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The block device with more to do than at once: full queues, limits, pauses, huge requests. */

static struct guest_driver *const driver = &block.driver;
static struct guest_ring *const ring = &block.driver.rings[0];

/* Many at a time */

static unsigned add_reads(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned number = block_new_request(VIRTIO_BLK_T_IN, i);
        const struct guest_buffer buffers[] = {{block_header_gpa(number), 16, false},
                                               {DATA_GPA + i * 0x1000, SECTOR, true},
                                               {STATUS_GPA + number, 1, true}};

        guest_ring_add_indirect(ring, TABLE_GPA + i * 64, buffers, 3);
    }
    return count;
}

static void assert_reads_done(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(guest_driver_wait_used(driver, 0, NULL), SECTOR + 1);
        assert_int_equal(*block_status_of(block.requests - count + i), VIRTIO_BLK_S_OK);
    }
    for (unsigned i = 0; i < count; i++)
        assert_block_pattern(DATA_GPA + i * 0x1000, i * SECTOR, SECTOR);
}

static void test_full_queue_is_served_by_one_notification(void **state)
{
    (void)state;
    block_start_with(INDIRECT | EVENT_IDX);
    for (int round = 0; round < 3; round++) {
        /* More than the ring of the engine holds, and more than one turn. */
        unsigned count = add_reads(VIRTQUEUE_SIZE_MAX);

        guest_driver_notify(driver, 0);
        assert_reads_done(count);
        block_fill(DATA_GPA, VIRTQUEUE_SIZE_MAX * 0x1000, 0);
        block.requests = 0;
    }
    assert_int_equal(METRIC_TOTAL(block.read_count), 3 * VIRTQUEUE_SIZE_MAX);
}

/* Flushes are never done at once. */
static void add_flushes(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned number = block_new_request(VIRTIO_BLK_T_FLUSH, 0);
        const struct guest_buffer buffers[] = {{block_header_gpa(number), 16, false}, {STATUS_GPA + number, 1, true}};

        guest_ring_add_indirect(ring, TABLE_GPA + i * 64, buffers, 2);
    }
}

/* An update serves the queue without waiting for its turn: completions have none meanwhile, but the host's workers do.
 */
static void test_full_engine_holds_the_rest_until_there_is_room(void **state)
{
    const struct drive_update nothing = {0};
    bool async = block.config.io_engine == IO_ENGINE_ASYNC;

    (void)state;
    block_start_with(FEATURE(FLUSH) | INDIRECT | EVENT_IDX);
    for (int attempt = 0; attempt < 1000 && (attempt == 0 || async); attempt++) {
        block.requests = 0;
        add_flushes(VIRTQUEUE_SIZE_MAX);
        guest_driver_notify(driver, 0);
        for (int round = 0; round < 3; round++)
            assert_no_error(virtio_block_update(driver->device, &nothing));
        for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++)
            assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 1);
        for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++)
            assert_int_equal(*block_status_of(i), VIRTIO_BLK_S_OK);
        if (METRIC_TOTAL(block.io_engine_throttled_events) > 0)
            break;
    }
    assert_int_equal(METRIC_TOTAL(block.io_engine_throttled_events) > 0, async);
}

/* What the kernel does at once is done when the notification has been served. Not every file system can. */
static void test_reads_from_the_page_cache_need_no_further_event(void **state)
{
    cleanup_fd int fd = open(block.path, O_RDONLY | O_CLOEXEC);
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};

    (void)state;
    if (preadv2(fd, &iov, 1, 0, RWF_NOWAIT) != 1)
        skip();
    block_start_with(INDIRECT);
    unsigned count = add_reads(20);
    guest_driver_notify(driver, 0);
    assert_int_equal(METRIC_TOTAL(block.read_count), count);
    assert_reads_done(count);
}

static void test_batch_ends_in_one_interrupt(void **state)
{
    (void)state;
    block_start_with(INDIRECT);
    add_reads(20);
    guest_driver_notify(driver, 0);
    assert_reads_done(20);
    assert_in_range(driver->queue_signals[0], 1, block.config.io_engine == IO_ENGINE_SYNC ? 1 : 20);
}

static bool throttled(void *argument)
{
    (void)argument;
    return METRIC_TOTAL(block.rate_limiter_throttled_events) > 0;
}

static void test_idle_drive_asks_for_the_next_notification(void **state)
{
    (void)state;
    block_start_with(EVENT_IDX);
    for (uint16_t i = 1; i < 5; i++) {
        assert_int_equal(block_read_sectors(0, 1), VIRTIO_BLK_S_OK);
        assert_int_equal(guest_ring_avail_event(ring), i);
    }
    guest_driver_reset(driver);
    guest_driver_restart(driver, 0);
    assert_int_equal(block_read_sectors(0, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(ring->used->flags, 0);

    uint64_t before = METRIC_TOTAL(block.no_avail_buffer);
    guest_driver_notify(driver, 0);
    assert_int_equal(METRIC_TOTAL(block.no_avail_buffer), before + 1);
}

static void test_rate_limiter_delays_and_drops_nothing(void **state)
{
    (void)state;
    block.config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .bandwidth = {.present = true, .size = 8 * SECTOR, .refill_time = 20},
        .ops = {.present = true, .size = 4, .refill_time = 20},
    };
    block_start_with(INDIRECT);
    add_reads(20);
    guest_driver_notify(driver, 0);
    guest_driver_run_until(driver, throttled, NULL);
    assert_reads_done(20);
    assert_int_equal(METRIC_TOTAL(block.read_count), 20);
    assert_true(METRIC_TOTAL(block.rate_limiter_throttled_events) >= 4);

    /* Larger than the bucket: it passes when the bucket is full. */
    assert_int_equal(block_read_sectors(0, 64), VIRTIO_BLK_S_OK);
}

static bool nothing_to_wait_for(void *argument)
{
    return (*(unsigned *)argument)++ > 20;
}

static void test_pause_holds_requests_until_resume(void **state)
{
    unsigned polls = 0;

    (void)state;
    block_start_with(INDIRECT);
    add_reads(10);
    guest_driver_notify(driver, 0);
    driver->device->paused = true;
    driver->device->ops->pause(driver->device);
    /* What was taken is finished when pause returns. */
    uint16_t taken = driver->device->queues[0].next_available;
    assert_int_equal(driver->device->queues[0].next_used, taken);

    add_reads(10);
    guest_driver_notify(driver, 0);
    guest_driver_run_until(driver, nothing_to_wait_for, &polls);
    assert_int_equal(driver->device->queues[0].next_available, taken);
    driver->device->paused = false;
    driver->device->ops->resume(driver->device);
    for (int i = 0; i < 10; i++)
        guest_driver_wait_used(driver, 0, NULL);
    assert_reads_done(10);
}

static void test_paused_rate_limiter_sleeps_until_resume(void **state)
{
    unsigned polls = 0;

    (void)state;
    block.config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = 1, .refill_time = 5},
    };
    block_start_with(INDIRECT);
    add_reads(3);
    guest_driver_notify(driver, 0);
    driver->device->paused = true;
    driver->device->ops->pause(driver->device);
    uint16_t used = driver->device->queues[0].next_used;
    guest_driver_run_until(driver, nothing_to_wait_for, &polls);
    assert_int_equal(driver->device->queues[0].next_used, used);
    driver->device->paused = false;
    driver->device->ops->resume(driver->device);
    assert_reads_done(3);
}

/* One request of 22 MiB, whose buffers are the same memory again and again. */
enum { LARGE_PAIRS = 15, LARGE_LONG = 3 << 19, LARGE_SIZE = LARGE_PAIRS * (LARGE_LONG + SECTOR) };
#define LARGE_SHORT_GPA DATA_GPA
#define LARGE_LONG_GPA (DATA_GPA + 0x100000ULL)

static void start_with_large_file(void)
{
    unlink(block.path);
    block_make_file(block.path, "/tmp", LARGE_SIZE);
    block_start_with(INDIRECT);
}

static unsigned add_large_read(void)
{
    unsigned number = block_new_request(VIRTIO_BLK_T_IN, 0);
    struct guest_buffer buffers[2 * LARGE_PAIRS + 2] = {
        {block_header_gpa(number), sizeof(struct virtio_blk_outhdr), false},
        [2 * LARGE_PAIRS + 1] = {STATUS_GPA + number % 512, 1, true},
    };

    for (size_t i = 0; i < LARGE_PAIRS; i++) {
        buffers[1 + 2 * i] = (struct guest_buffer){LARGE_SHORT_GPA, SECTOR, true};
        buffers[2 + 2 * i] = (struct guest_buffer){LARGE_LONG_GPA, LARGE_LONG, true};
    }
    guest_ring_add_indirect(ring, TABLE_GPA, buffers, array_length(buffers));
    return number;
}

static void assert_large_read_done(unsigned number)
{
    assert_int_equal(*block_status_of(number), VIRTIO_BLK_S_OK);
    assert_block_pattern(LARGE_SHORT_GPA, LARGE_SIZE - LARGE_LONG - SECTOR, SECTOR);
    assert_block_pattern(LARGE_LONG_GPA, LARGE_SIZE - LARGE_LONG, LARGE_LONG);
}

static unsigned turns_of_others;

static void count_turn(struct event_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    turns_of_others++;
}

static void test_large_request_leaves_others_their_turns(void **state)
{
    struct event_source other = {.fd = eventfd(1, EFD_CLOEXEC), .ready = count_turn};

    (void)state;
    start_with_large_file();
    assert_no_error(event_source_add(driver->loop, &other, EPOLLIN));
    turns_of_others = 0;
    unsigned number = add_large_read();
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), LARGE_SIZE + 1);
    event_source_remove(&other);
    close(other.fd);
    assert_large_read_done(number);
    assert_int_equal(METRIC_TOTAL(block.read_bytes), LARGE_SIZE);
    if (turns_of_others < 5)
        fail_msg("others had %u turns", turns_of_others);
}

/* Others are not kept waiting for it; nor is a driver that changes its memory while it is paused. */
static void test_pause_holds_a_large_request_until_resume(void **state)
{
    unsigned polls = 0;

    (void)state;
    start_with_large_file();
    unsigned number = add_large_read();
    guest_driver_notify(driver, 0);
    driver->device->paused = true;
    driver->device->ops->pause(driver->device);
    assert_false(guest_ring_has_used(ring));
    block_fill(LARGE_LONG_GPA, LARGE_LONG, UNTOUCHED);
    guest_driver_run_until(driver, nothing_to_wait_for, &polls);
    for (unsigned i = 0; i < LARGE_LONG; i++)
        assert_int_equal(*(uint8_t *)block_at(LARGE_LONG_GPA + i, 1), UNTOUCHED);
    driver->device->paused = false;
    driver->device->ops->resume(driver->device);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), LARGE_SIZE + 1);
    assert_large_read_done(number);
    assert_block_alive();
}

static void test_update_finishes_a_large_request(void **state)
{
    const struct drive_update update = {.path_on_host = block.path};

    (void)state;
    start_with_large_file();
    for (int round = 0; round < 2; round++) {
        unsigned number = add_large_read();

        guest_driver_notify(driver, 0);
        if (round == 1) {
            driver->device->paused = true;
            driver->device->ops->pause(driver->device);
        }
        assert_no_error(virtio_block_update(driver->device, &update));
        assert_true(guest_ring_has_used(ring));
        guest_driver_wait_used(driver, 0, NULL);
        assert_large_read_done(number);
    }
}

/* A guest could keep the caller waiting for as long as the disk takes for 512 GiB. */
static void test_update_fails_a_request_that_would_take_long(void **state)
{
    enum { PARTS = 200 };
    const uint64_t size = (uint64_t)PARTS << 20;
    const struct drive_update update = {.path_on_host = block.path};
    struct guest_buffer buffers[PARTS + 2] = {[PARTS + 1] = {STATUS_GPA, 1, true}};

    (void)state;
    assert_int_equal(truncate(block.path, (off_t)size), 0);
    block_start_with(INDIRECT);
    unsigned number = block_new_request(VIRTIO_BLK_T_IN, 0);
    buffers[0] = (struct guest_buffer){block_header_gpa(number), sizeof(struct virtio_blk_outhdr), false};
    for (size_t i = 1; i <= PARTS; i++)
        buffers[i] = (struct guest_buffer){DATA_GPA, 1 << 20, true};
    guest_ring_add_indirect(ring, TABLE_GPA, buffers, array_length(buffers));
    guest_driver_notify(driver, 0);
    assert_no_error(virtio_block_update(driver->device, &update));
    assert_in_range(guest_driver_wait_used(driver, 0, NULL), 1, size / 2);
    assert_int_equal(*block_status_of(number), VIRTIO_BLK_S_IOERR);
    assert_block_alive();
}

static void test_reset_abandons_a_large_request(void **state)
{
    unsigned polls = 0;

    (void)state;
    start_with_large_file();
    add_large_read();
    guest_driver_notify(driver, 0);
    guest_driver_reset(driver);
    block_fill(LARGE_LONG_GPA, LARGE_LONG, UNTOUCHED);
    guest_driver_run_until(driver, nothing_to_wait_for, &polls);
    for (unsigned i = 0; i < LARGE_LONG; i++)
        assert_int_equal(*(uint8_t *)block_at(LARGE_LONG_GPA + i, 1), UNTOUCHED);
    guest_driver_restart(driver, INDIRECT);
    assert_block_alive();
}

static void test_reset_ends_what_is_in_flight(void **state)
{
    (void)state;
    block_start_with(INDIRECT);
    for (int round = 0; round < 5; round++) {
        add_reads(100);
        guest_driver_notify(driver, 0);
        guest_driver_reset(driver);
        /* Nothing may touch this from now on. */
        block_fill(DATA_GPA, 100 * 0x1000, UNTOUCHED);
        unsigned polls = 0;
        guest_driver_run_until(driver, nothing_to_wait_for, &polls);
        for (unsigned i = 0; i < 100; i++)
            assert_int_equal(*(uint8_t *)block_at(DATA_GPA + i * 0x1000, 1), UNTOUCHED);
        guest_driver_restart(driver, INDIRECT);
        block.requests = 0;
        assert_block_alive();
    }
}

static void test_broken_queue_stops_the_drive_until_reset(void **state)
{
    (void)state;
    block_start();
    block_add(VIRTIO_BLK_T_IN, 0, DATA_GPA, SECTOR);
    guest_ring_publish(ring, 0xffff);
    guest_driver_notify(driver, 0);
    assert_true(driver->failed);
    guest_driver_reset(driver);
    guest_driver_restart(driver, 0);
    assert_block_alive();
}

static void test_update_of_the_rate_limiter_lets_waiting_requests_go(void **state)
{
    const struct drive_update update = {
        .rate_limiter = {.present = true, .ops = {.present = true, .size = 0, .refill_time = 0}}};

    (void)state;
    block.config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = 1, .refill_time = 3600000},
    };
    block_start_with(INDIRECT);
    add_reads(5);
    guest_driver_notify(driver, 0);
    guest_driver_run_until(driver, throttled, NULL);
    assert_no_error(virtio_block_update(driver->device, &update));
    assert_reads_done(5);
}

/* A vCPU thread that notifies while the loop completes: what TSan is to see. */
static void *run_loop(void *loop)
{
    return event_loop_run(loop);
}

static void test_notifications_from_another_thread(void **state)
{
    pthread_t thread;
    void *error = NULL;

    (void)state;
    block_start_with(EVENT_IDX);
    assert_int_equal(pthread_create(&thread, NULL, run_loop, driver->loop), 0);
    for (int i = 0; i < 200; i++) {
        unsigned number = block_add(VIRTIO_BLK_T_IN, 3, DATA_GPA, SECTOR);
        uint16_t head;
        uint32_t written;

        event_loop_lock(driver->loop);
        guest_driver_notify(driver, 0);
        event_loop_unlock(driver->loop);
        while (!guest_ring_take_used(ring, &head, &written))
            sched_yield();
        assert_int_equal(*block_status_of(number), VIRTIO_BLK_S_OK);
    }
    event_loop_lock(driver->loop);
    event_loop_stop(driver->loop);
    event_loop_unlock(driver->loop);
    pthread_join(thread, &error);
    assert_no_error(error);
}

TEST_MAIN(BLOCK_TEST(test_full_queue_is_served_by_one_notification),
          BLOCK_TEST(test_full_engine_holds_the_rest_until_there_is_room),
          BLOCK_TEST(test_reads_from_the_page_cache_need_no_further_event),
          BLOCK_TEST(test_idle_drive_asks_for_the_next_notification), BLOCK_TEST(test_batch_ends_in_one_interrupt),
          BLOCK_TEST(test_rate_limiter_delays_and_drops_nothing), BLOCK_TEST(test_pause_holds_requests_until_resume),
          BLOCK_TEST(test_paused_rate_limiter_sleeps_until_resume), BLOCK_TEST(test_reset_ends_what_is_in_flight),
          BLOCK_TEST(test_large_request_leaves_others_their_turns),
          BLOCK_TEST(test_pause_holds_a_large_request_until_resume), BLOCK_TEST(test_update_finishes_a_large_request),
          BLOCK_TEST(test_update_fails_a_request_that_would_take_long), BLOCK_TEST(test_reset_abandons_a_large_request),
          BLOCK_TEST(test_broken_queue_stops_the_drive_until_reset),
          BLOCK_TEST(test_update_of_the_rate_limiter_lets_waiting_requests_go),
          BLOCK_TEST(test_notifications_from_another_thread))
