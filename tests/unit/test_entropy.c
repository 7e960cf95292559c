#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* The entropy device, driven as a guest would. */

enum { REQUEST_MAX = 64 * 1024 };
#define DATA_GPA 0x200000ULL

static struct guest_driver driver;
static struct entropy_config config;
static struct guest_ring *const ring = &driver.rings[0];

static int setup(void **state)
{
    (void)state;
    config = (struct entropy_config){.present = true};
    memset(&metrics.entropy, 0, sizeof(metrics.entropy));
    guest_driver_setup(&driver);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    return 0;
}

static void start(uint64_t features)
{
    struct virtio_device *device = NULL;

    assert_no_error(virtio_entropy_new(&config, driver.loop, &device));
    assert_int_equal(device->ops->type, VIRTIO_ID_RNG);
    guest_driver_start(&driver, device, features);
}

static uint8_t *memory(uint64_t gpa, size_t length)
{
    return guest_at(&driver.memory, gpa, length);
}

static uint32_t request(const struct guest_buffer *buffers, size_t count)
{
    guest_ring_add(ring, buffers, count);
    guest_driver_notify(&driver, 0);
    return guest_driver_wait_used(&driver, 0, NULL);
}

/* Whether `length` random bytes could look like that: each 32 bytes hold something but zeros. */
static void assert_filled(uint64_t gpa, size_t length)
{
    static const uint8_t zeros[32];
    const uint8_t *data = memory(gpa, length);

    for (size_t i = 0; i + sizeof(zeros) <= length; i += sizeof(zeros))
        assert_memory_not_equal(data + i, zeros, sizeof(zeros));
}

static void assert_untouched(uint64_t gpa, size_t length)
{
    const uint8_t *data = memory(gpa, length);

    for (size_t i = 0; i < length; i++)
        assert_int_equal(data[i], 0);
}

static void test_fills_the_buffer_and_nothing_beyond(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 4096, true};

    (void)state;
    start(0);
    assert_int_equal(request(&buffer, 1), 4096);
    assert_filled(DATA_GPA, 4096);
    assert_untouched(DATA_GPA + 4096, 4096);
    assert_int_equal(driver.queue_signals[0], 1);
    assert_int_equal(metrics.entropy.entropy_bytes, 4096);
}

static void test_no_two_answers_are_the_same(void **state)
{
    const struct guest_buffer first = {DATA_GPA, 64, true}, second = {DATA_GPA + 64, 64, true};

    (void)state;
    start(0);
    request(&first, 1);
    request(&second, 1);
    assert_memory_not_equal(memory(DATA_GPA, 64), memory(DATA_GPA + 64, 64), 64);
}

static void test_request_gets_64_kib_at_most(void **state)
{
    const struct guest_buffer one = {DATA_GPA, 0x800000, true};
    const struct guest_buffer three[] = {
        {DATA_GPA, REQUEST_MAX - 100, true}, {DATA_GPA + 0x100000, 200, true}, {DATA_GPA + 0x200000, 200, true}};

    (void)state;
    start(0);
    assert_int_equal(request(&one, 1), REQUEST_MAX);
    assert_filled(DATA_GPA, REQUEST_MAX);
    assert_untouched(DATA_GPA + REQUEST_MAX, REQUEST_MAX);
    assert_int_equal(request(three, 3), REQUEST_MAX);
    assert_filled(DATA_GPA + 0x100000, 96);
    assert_untouched(DATA_GPA + 0x100000 + 100, 100);
    assert_untouched(DATA_GPA + 0x200000, 200);
}

static void test_buffers_that_cannot_be_written_get_nothing(void **state)
{
    const struct guest_buffer readable[] = {{DATA_GPA, 64, false}};
    const struct guest_buffer both[] = {{DATA_GPA, 64, false}, {DATA_GPA + 64, 64, true}};

    (void)state;
    start(0);
    assert_int_equal(request(readable, 1), 0);
    assert_int_equal(request(both, 2), 64);
    assert_untouched(DATA_GPA, 64);
    assert_filled(DATA_GPA + 64, 64);
}

static void test_full_queue_is_served_by_one_notification(void **state)
{
    (void)state;
    start(1ULL << VIRTIO_RING_F_EVENT_IDX);
    for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++) {
        const struct guest_buffer buffer = {DATA_GPA + i * 64, 64, true};

        guest_ring_add(ring, &buffer, 1);
    }
    guest_driver_notify(&driver, 0);
    for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++)
        assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 64);
    assert_filled(DATA_GPA, VIRTQUEUE_SIZE_MAX * 64);
}

static void test_rate_limiter_delays_and_drops_nothing(void **state)
{
    (void)state;
    config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .bandwidth = {.present = true, .size = 128, .refill_time = 10},
    };
    start(0);
    for (unsigned i = 0; i < 8; i++) {
        const struct guest_buffer buffer = {DATA_GPA + i * 64, 64, true};

        guest_ring_add(ring, &buffer, 1);
    }
    guest_driver_notify(&driver, 0);
    assert_true(metrics.entropy.entropy_rate_limiter_throttled > 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 64);
    assert_int_equal(metrics.entropy.entropy_bytes, 512);
    assert_true(metrics.entropy.rate_limiter_event_count > 0);
}

static bool nothing_to_wait_for(void *argument)
{
    return (*(unsigned *)argument)++ > 20;
}

static void test_pause_and_reset_silence_a_waiting_request(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 64, true};
    unsigned polls = 0;

    (void)state;
    config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = 1, .refill_time = 5},
    };
    start(0);
    assert_int_equal(request(&buffer, 1), 64);
    guest_ring_add(ring, &buffer, 1);
    driver.device->paused = true;
    driver.device->ops->pause(driver.device);
    guest_driver_notify(&driver, 0);
    guest_driver_run_until(&driver, nothing_to_wait_for, &polls);
    assert_false(guest_ring_has_used(ring));
    driver.device->paused = false;
    driver.device->ops->resume(driver.device);
    assert_int_equal(guest_driver_wait_used(&driver, 0, NULL), 64);

    guest_ring_add(ring, &buffer, 1);
    guest_driver_notify(&driver, 0);
    guest_driver_reset(&driver);
    memset(memory(DATA_GPA, 64), 0, 64);
    polls = 0;
    guest_driver_run_until(&driver, nothing_to_wait_for, &polls);
    assert_untouched(DATA_GPA, 64);
    guest_driver_restart(&driver, 0);
    assert_int_equal(request(&buffer, 1), 64);
}

static void test_broken_queue_stops_the_device_until_reset(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 64, true};

    (void)state;
    start(0);
    guest_ring_publish(ring, 0xffff);
    guest_driver_notify(&driver, 0);
    assert_true(driver.failed);
    assert_int_equal(metrics.entropy.entropy_event_fails, 1);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    assert_int_equal(request(&buffer, 1), 64);
}

#define ENTROPY_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

TEST_MAIN(ENTROPY_TEST(test_fills_the_buffer_and_nothing_beyond), ENTROPY_TEST(test_no_two_answers_are_the_same),
          ENTROPY_TEST(test_request_gets_64_kib_at_most), ENTROPY_TEST(test_buffers_that_cannot_be_written_get_nothing),
          ENTROPY_TEST(test_full_queue_is_served_by_one_notification),
          ENTROPY_TEST(test_rate_limiter_delays_and_drops_nothing),
          ENTROPY_TEST(test_pause_and_reset_silence_a_waiting_request),
          ENTROPY_TEST(test_broken_queue_stops_the_device_until_reset))
