#include "tests/unit/harness.h"

#include "vmm/arch/arch.h"
#include "vmm/arch/x86_64/layout.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/base/cleanup.h"
#include "vmm/mapped_file.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The pmem device, driven as a guest would. */

enum { FLUSH = 0, OK = 0, FAILED = 1, UNTOUCHED = 99 };
#define REQUEST_GPA 0x200000ULL
#define RESULT_GPA 0x201000ULL

static struct guest_driver driver;
static struct pmem_config config;
static char path[] = "/tmp/mayfly-pmem-XXXXXX";
static struct guest_ring *const ring = &driver.rings[0];

static int setup(void **state)
{
    (void)state;
    strcpy(path + sizeof(path) - 7, "XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 5000), 0);
    close(fd);
    config = (struct pmem_config){.id = (char *)"p", .path_on_host = path};
    memset(&metrics.pmem, 0, sizeof(metrics.pmem));
    guest_driver_setup(&driver);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    unlink(path);
    return 0;
}

static struct virtio_device *start(uint64_t features)
{
    struct virtio_device *device = NULL;

    assert_no_error(virtio_pmem_new(&config, driver.loop, &device));
    assert_int_equal(device->ops->type, VIRTIO_ID_PMEM);
    guest_driver_start(&driver, device, features);
    return device;
}

static uint32_t *word(uint64_t gpa)
{
    return guest_at(&driver.memory, gpa, sizeof(uint32_t));
}

static uint16_t add(unsigned i, uint32_t type)
{
    const struct guest_buffer buffers[] = {{REQUEST_GPA + i * 4, 4, false}, {RESULT_GPA + i * 4, 4, true}};

    *word(buffers[0].gpa) = type;
    *word(buffers[1].gpa) = UNTOUCHED;
    return guest_ring_add(ring, buffers, 2);
}

static uint32_t result(unsigned i)
{
    return *word(RESULT_GPA + i * 4);
}

static void test_config_space_tells_place_and_size(void **state)
{
    struct virtio_device *device = start(0);
    uint64_t place[2];

    (void)state;
    virtio_pmem_place(device, 0x4000000000);
    device->ops->config_read(device, 0, (uint8_t *)place, sizeof(place));
    assert_int_equal(place[0], 0x4000000000);
    assert_int_equal(place[1], SHARED_FILE_ALIGNMENT);
    assert_int_equal(virtio_pmem_file(device)->size, SHARED_FILE_ALIGNMENT);
    assert_int_equal((uintptr_t)virtio_pmem_file(device)->hva % SHARED_FILE_ALIGNMENT, 0);
}

static void test_flush_is_answered(void **state)
{
    (void)state;
    start(0);
    add(0, FLUSH);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 4);
    assert_int_equal(result(0), OK);
    assert_int_equal(METRIC_TOTAL(pmem.flush_count), 1);
    guest_driver_settle(&driver);
}

static void test_flushes_that_came_together_are_one_sync(void **state)
{
    (void)state;
    start(1ULL << VIRTIO_RING_F_EVENT_IDX);
    for (unsigned i = 0; i < 20; i++)
        add(i, FLUSH);
    guest_driver_notify(&driver, 0);
    for (unsigned i = 0; i < 20; i++) {
        guest_driver_wait_used(&driver, 0, NULL);
        assert_int_equal(result(i), OK);
    }
    assert_int_equal(METRIC_TOTAL(pmem.flush_count), 1);
}

static void test_flush_that_comes_during_another_gets_one_of_its_own(void **state)
{
    (void)state;
    start(0);
    add(0, FLUSH);
    guest_driver_notify(&driver, 0);
    assert_int_equal(result(0), UNTOUCHED); /* its sync has begun */
    add(1, FLUSH);
    guest_driver_notify(&driver, 0);
    guest_driver_wait_used(&driver, 0, NULL);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(result(1), OK);
    assert_int_equal(METRIC_TOTAL(pmem.flush_count), 2);
}

static void test_read_only_file_is_flushed_at_once(void **state)
{
    (void)state;
    config.read_only = true;
    start(0);
    add(0, FLUSH);
    guest_driver_notify(&driver, 0);
    assert_int_equal(result(0), OK);
    guest_driver_settle(&driver);
}

static void test_other_requests_fail(void **state)
{
    const struct guest_buffer short_request[] = {{REQUEST_GPA, 3, false}, {RESULT_GPA, 4, true}};
    const struct guest_buffer no_room[] = {{REQUEST_GPA, 4, false}, {RESULT_GPA, 3, true}};

    (void)state;
    start(0);
    add(0, FLUSH + 1);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 4);
    assert_int_equal(result(0), FAILED);

    *word(REQUEST_GPA) = FLUSH;
    *word(RESULT_GPA) = UNTOUCHED;
    guest_ring_add(ring, no_room, 2);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 0);
    assert_int_equal(result(0), UNTOUCHED);

    guest_ring_add(ring, short_request, 2);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 4);
    assert_int_equal(result(0), FAILED);
    assert_int_equal(METRIC_TOTAL(pmem.event_fails), 3);
    assert_int_equal(METRIC_TOTAL(pmem.flush_count), 0);
    guest_driver_settle(&driver);
}

static void test_result_may_be_parted(void **state)
{
    const struct guest_buffer buffers[] = {{REQUEST_GPA, 1, false},       {REQUEST_GPA + 1, 3, false},
                                           {RESULT_GPA, 1, true},         {RESULT_GPA + 0x100, 1, true},
                                           {RESULT_GPA + 0x200, 1, true}, {RESULT_GPA + 0x300, 8, true}};

    (void)state;
    start(0);
    *word(REQUEST_GPA) = 1;
    memset(word(RESULT_GPA + 0x300), 0xff, 4);
    guest_ring_add(ring, buffers, 6);
    guest_driver_notify(&driver, 0);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 4);
    assert_int_equal(*word(RESULT_GPA), FAILED);
    assert_int_equal(*word(RESULT_GPA + 0x300), 0xffffff00);
}

static bool is_answered(void *argument)
{
    (void)argument;
    return result(0) == OK;
}

/* A driver that asks again before it was answered, with chains that it uses twice. */
static void test_hostile_ring_cannot_have_more_than_its_size_waiting(void **state)
{
    (void)state;
    start(0);
    uint16_t head = add(0, FLUSH);
    for (unsigned i = 1; i < 64; i++)
        guest_ring_publish(ring, head);
    for (unsigned round = 0; round < 8; round++)
        guest_driver_notify(&driver, 0);
    guest_driver_run_until(&driver, is_answered, NULL);
    assert_false(driver.failed);
}

static void test_reset_forgets_the_flushes_on_their_way(void **state)
{
    (void)state;
    start(0);
    add(0, FLUSH);
    add(1, FLUSH);
    guest_driver_notify(&driver, 0);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    add(2, FLUSH);
    guest_driver_notify(&driver, 0);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(result(0), UNTOUCHED);
    assert_int_equal(result(1), UNTOUCHED);
    assert_int_equal(result(2), OK);
    guest_driver_settle(&driver);
}

static void test_pause_ends_what_is_on_its_way(void **state)
{
    struct virtio_device *device = start(0);

    (void)state;
    add(0, FLUSH);
    guest_driver_notify(&driver, 0);
    device->paused = true;
    device->ops->pause(device);
    assert_int_equal(result(0), OK);
    add(1, FLUSH);
    guest_driver_notify(&driver, 0);
    guest_driver_settle(&driver);
    assert_int_equal(result(1), UNTOUCHED);
    device->paused = false;
    device->ops->resume(device);
    guest_driver_wait_used(&driver, 0, NULL);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(result(1), OK);
}

static void test_limited_flush_comes_in_the_end(void **state)
{
    struct virtio_device *device;
    struct pmem_update update = {
        .rate_limiter = {.present = true, .ops = {.present = true, .size = 0, .refill_time = 0}}};

    (void)state;
    config.rate_limiter =
        (struct rate_limiter_config){.present = true, .ops = {.present = true, .size = 1, .refill_time = 20}};
    device = start(0);
    for (unsigned i = 0; i < 3; i++) {
        add(i, FLUSH);
        guest_driver_notify(&driver, 0);
        guest_driver_wait_used(&driver, 0, NULL);
        assert_int_equal(result(i), OK);
    }
    assert_true(METRIC_TOTAL(pmem.rate_limiter_throttled_events) > 0);
    assert_true(METRIC_TOTAL(pmem.rate_limiter_event_count) > 0);

    /* The file's size in bytes, each time: far too much for this bucket. Then the limit is gone. */
    update.rate_limiter.bandwidth = (struct token_bucket_config){.present = true, .size = 5000, .refill_time = 3600000};
    virtio_pmem_update(device, &update);
    add(3, FLUSH);
    add(4, FLUSH);
    guest_driver_notify(&driver, 0);
    guest_driver_wait_used(&driver, 0, NULL);
    guest_driver_wait_used(&driver, 0, NULL);
    add(5, FLUSH);
    guest_driver_notify(&driver, 0);
    assert_int_equal(result(5), UNTOUCHED);
    update.rate_limiter.bandwidth.size = 0;
    virtio_pmem_update(device, &update);
    guest_driver_wait_used(&driver, 0, NULL);
    assert_int_equal(result(5), OK);
}

static void test_broken_ring_stops_the_device(void **state)
{
    (void)state;
    start(0);
    guest_ring_available_index(ring, 1000);
    guest_driver_notify(&driver, 0);
    assert_true(driver.failed);
    guest_driver_settle(&driver);
}

static void test_truncated_file_is_known_while_the_device_lives(void **state)
{
    struct virtio_device *device = NULL;

    (void)state;
    assert_no_error(virtio_pmem_new(&config, driver.loop, &device));
    assert_null(mapped_file_truncated());
    assert_int_equal(truncate(path, 100), 0);
    assert_string_equal(mapped_file_truncated(), path);
    device->ops->destroy(device);
    assert_null(mapped_file_truncated());
}

#define pmem_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

static void test_memory_beyond_the_last_address_is_refused(void **state)
{
    const uint64_t tib = 1ull << 40;

    (void)state;
    assert_no_error(layout_check_reach(0, 1ull << 39, 39));
    assert_no_error(layout_check_reach(LAYOUT_PMEM, 256ull << 30, 39));
    assert_error(layout_check_reach(LAYOUT_PMEM, (256ull << 30) + 1, 39), ERROR_INPUT,
                 "its 274877906945 bytes from address 0x4000000000 on end beyond the 39 bits");
    assert_error(layout_check_reach(1ull << 39, 2 << 20, 39), ERROR_INPUT, "beyond the 39 bits");
    assert_no_error(layout_check_reach(LAYOUT_PMEM, 63 * tib, 46));
    assert_error(layout_check_reach(LAYOUT_PMEM, 64 * tib, 46), ERROR_INPUT, "beyond the 46 bits");
    assert_error(layout_check_reach(UINT64_MAX - 4095, 8192, 52), ERROR_INPUT, "beyond the 52 bits");
    assert_error(layout_check_reach(UINT64_MAX - 4095, 8192, 64), ERROR_INPUT, "beyond the 64 bits");
    assert_no_error(arch_check_reach(0, 1ull << 36));
    assert_error(arch_check_reach(1ull << 52, 1), ERROR_INPUT, "addresses have on this host");
}

TEST_MAIN(cmocka_unit_test(test_memory_beyond_the_last_address_is_refused),
          pmem_test(test_config_space_tells_place_and_size), pmem_test(test_flush_is_answered),
          pmem_test(test_flushes_that_came_together_are_one_sync),
          pmem_test(test_flush_that_comes_during_another_gets_one_of_its_own),
          pmem_test(test_read_only_file_is_flushed_at_once), pmem_test(test_other_requests_fail),
          pmem_test(test_result_may_be_parted), pmem_test(test_hostile_ring_cannot_have_more_than_its_size_waiting),
          pmem_test(test_reset_forgets_the_flushes_on_their_way), pmem_test(test_pause_ends_what_is_on_its_way),
          pmem_test(test_limited_flush_comes_in_the_end), pmem_test(test_broken_ring_stops_the_device),
          pmem_test(test_truncated_file_is_known_while_the_device_lives))
