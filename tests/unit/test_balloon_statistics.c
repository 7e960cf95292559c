/* The balloon's statistics. */
#include "tests/unit/balloon_fixture.h"

#include <linux/virtio_balloon.h>
#include <string.h>

struct statistic {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

static uint16_t give_statistics(unsigned queue, const struct statistic *statistics, size_t bytes)
{
    const struct guest_buffer buffer = {REQUEST_GPA, (uint32_t)bytes, false};

    memcpy(request(bytes), statistics, bytes);
    return guest_ring_add(&driver.rings[queue], &buffer, 1);
}

static bool statistics_are_back(void)
{
    return guest_ring_has_used(&driver.rings[2]);
}

static struct balloon_statistics statistics(void)
{
    struct balloon_statistics found;

    virtio_balloon_statistics(driver.device, &found);
    return found;
}

/* As Linux does it: the buffer is there, and was notified, before the driver says that it is ready. */
static void test_statistics_given_before_the_driver_is_ready_are_taken(void **state)
{
    static const struct statistic given[] = {{VIRTIO_BALLOON_S_MEMFREE, 4711}};

    (void)state;
    config.stats_polling_interval_s = 3600;
    guest_driver_start(&driver, make(), STATISTICS);
    give_statistics(2, given, sizeof(given));
    guest_driver_settle(&driver); /* no notification */
    assert_true(statistics().given[BALLOON_FREE_MEMORY]);
    assert_int_equal(statistics().value[BALLOON_FREE_MEMORY], 4711);
    assert_false(statistics_are_back());
    virtio_balloon_poll(driver.device, 60);
    assert_true(statistics_are_back());
    assert_int_equal(driver.queue_signals[2], 1);
}

static void test_every_statistic_that_linux_sends_is_known(void **state)
{
    struct statistic given[16];

    (void)state;
    for (uint16_t i = 0; i < 16; i++)
        given[i] = (struct statistic){.tag = i, .value = 1000u + i};
    config.stats_polling_interval_s = 3600;
    start(STATISTICS);
    give_statistics(2, given, sizeof(given));
    guest_driver_notify(&driver, 2);
    struct balloon_statistics found = statistics();
    for (unsigned i = 0; i < BALLOON_STATISTICS; i++)
        assert_true(found.given[i]);
    assert_int_equal(found.value[BALLOON_SWAP_IN], 1000);
    assert_int_equal(found.value[BALLOON_HUGETLB_FAILURES], 1009);
    assert_int_equal(found.value[BALLOON_OOM_KILL], 1010);
    assert_int_equal(found.value[BALLOON_DIRECT_RECLAIM], 1015);
    assert_int_equal(metrics.balloon.stats_update_fails, 0);
}

static void test_unknown_and_halved_statistics_are_left_out(void **state)
{
    static const struct statistic given[] = {
        {16, 1}, {UINT16_MAX, 2}, {VIRTIO_BALLOON_S_MEMTOT, 77}, {VIRTIO_BALLOON_S_AVAIL, 88}};

    (void)state;
    config.stats_polling_interval_s = 3600;
    start(STATISTICS);
    give_statistics(2, given, sizeof(given) - 1);
    guest_driver_notify(&driver, 2);
    assert_true(statistics().given[BALLOON_TOTAL_MEMORY]);
    assert_false(statistics().given[BALLOON_AVAILABLE_MEMORY]);
    assert_int_equal(metrics.balloon.stats_update_fails, 1);
}

static void test_more_buffers_than_the_one_come_back_at_once(void **state)
{
    static const struct statistic given[] = {{VIRTIO_BALLOON_S_MEMTOT, 77}};
    uint16_t heads[100], head;

    (void)state;
    config.stats_polling_interval_s = 3600;
    start(STATISTICS);
    for (size_t i = 0; i < array_length(heads); i++)
        heads[i] = give_statistics(2, given, sizeof(given));
    guest_driver_notify(&driver, 2);
    for (size_t i = 0; i + 1 < array_length(heads); i++) {
        guest_driver_wait_used(&driver, 2, &head);
        assert_int_equal(head, heads[i]);
    }
    guest_driver_settle(&driver);
    assert_false(statistics_are_back());
}

static void test_statistics_are_asked_for_as_soon_as_they_can_be(void **state)
{
    static const struct statistic given[] = {{VIRTIO_BALLOON_S_MEMTOT, 77}};

    (void)state;
    config.stats_polling_interval_s = 3600;
    start(STATISTICS);
    virtio_balloon_poll(driver.device, 1800); /* the guest has not given its buffer yet */
    give_statistics(2, given, sizeof(given));
    guest_driver_notify(&driver, 2);
    assert_true(statistics_are_back());
}

static void test_statistics_are_asked_for_by_the_clock_unless_paused(void **state)
{
    static const struct statistic given[] = {{VIRTIO_BALLOON_S_MEMTOT, 77}};
    struct virtio_device *device;

    (void)state;
    config.stats_polling_interval_s = 1;
    device = start(STATISTICS);
    give_statistics(2, given, sizeof(given));
    guest_driver_notify(&driver, 2);
    guest_driver_wait_used(&driver, 2, NULL);

    device->paused = true;
    device->ops->pause(device);
    virtio_balloon_poll(device, 1);
    give_statistics(2, given, sizeof(given));
    guest_driver_notify(&driver, 2);
    device->paused = false;
    device->ops->resume(device);
    guest_driver_wait_used(&driver, 2, NULL);
}

static void test_reset_forgets_the_buffer(void **state)
{
    static const struct statistic given[] = {{VIRTIO_BALLOON_S_MEMTOT, 77}};

    (void)state;
    config.stats_polling_interval_s = 3600;
    start(STATISTICS);
    give_statistics(2, given, sizeof(given));
    guest_driver_notify(&driver, 2);
    guest_driver_reset(&driver);
    virtio_balloon_poll(driver.device, 60); /* the ring is not there any more */
    guest_driver_restart(&driver, STATISTICS);
    virtio_balloon_poll(driver.device, 60);
    assert_false(statistics_are_back());
    assert_int_equal(statistics().value[BALLOON_TOTAL_MEMORY], 77);
}

TEST_MAIN(balloon_test(test_statistics_given_before_the_driver_is_ready_are_taken),
          balloon_test(test_every_statistic_that_linux_sends_is_known),
          balloon_test(test_unknown_and_halved_statistics_are_left_out),
          balloon_test(test_more_buffers_than_the_one_come_back_at_once),
          balloon_test(test_statistics_are_asked_for_as_soon_as_they_can_be),
          balloon_test(test_statistics_are_asked_for_by_the_clock_unless_paused),
          balloon_test(test_reset_forgets_the_buffer))
