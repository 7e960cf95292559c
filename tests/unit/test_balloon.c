/* The balloon: inflating, its queues. */
#include "tests/unit/balloon_fixture.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ring.h>
#include <string.h>

static void send_pages(unsigned queue, const uint32_t *pages, size_t count)
{
    memcpy(request(count * sizeof(*pages)), pages, count * sizeof(*pages));
    send(queue, (uint32_t)(count * sizeof(*pages)));
}

/* --- Inflating --- */

static void test_wish_of_the_host_is_in_config_space(void **state)
{
    uint8_t beyond[8];

    (void)state;
    config.amount_mib = 3;
    struct virtio_device *device = start(0);
    assert_int_equal(config_space().num_pages, 768);
    virtio_balloon_resize(device, UINT32_MAX / 256);
    assert_int_equal(config_space().num_pages, 0xffffff00);
    assert_int_equal(driver.config_signals, 1);
    memset(beyond, 0xff, sizeof(beyond));
    device->ops->config_read(device, sizeof(struct virtio_balloon_config) - 4, beyond, sizeof(beyond));
    for (size_t i = 0; i < sizeof(beyond); i++)
        assert_int_equal(beyond[i], 0);
}

static void test_size_that_the_guest_tells_is_a_number_and_no_more(void **state)
{
    struct virtio_device *device = start(0);
    struct balloon_statistics found;
    const uint32_t size = 512;

    (void)state;
    device->ops->config_write(device, 4, (const uint8_t *)&size, 4);
    virtio_balloon_statistics(device, &found);
    assert_int_equal(found.actual_pages, 512);
    assert_int_equal(found.actual_mib, 2);
    /* Anywhere else, or by halves: nothing. */
    device->ops->config_write(device, 0, (const uint8_t *)&size, 4);
    device->ops->config_write(device, 4, (const uint8_t *)"\xff\xff", 2);
    device->ops->config_write(device, 6, (const uint8_t *)&size, 4);
    device->ops->config_write(device, UINT32_MAX, (const uint8_t *)&size, 4);
    assert_int_equal(config_space().num_pages, 0);
    assert_int_equal(config_space().actual, 512);
    guest_driver_reset(&driver);
    assert_int_equal(config_space().actual, 0);
}

static void test_inflated_pages_go_in_whatever_order_they_come(void **state)
{
    static const uint32_t pages[] = {FIRST_PAGE + 7, FIRST_PAGE + 2, FIRST_PAGE + 3,
                                     FIRST_PAGE + 9, FIRST_PAGE + 8, FIRST_PAGE + 2};

    (void)state;
    start(0);
    send_pages(INFLATE, pages, array_length(pages));
    assert_int_equal(pages_left(), PAGE_COUNT - 5);
    for (size_t i = 0; i < array_length(pages); i++)
        assert_int_equal(page(pages[i] - FIRST_PAGE), 0);
    assert_int_equal(metrics.balloon.inflate_count, 1);
    assert_int_equal(metrics.balloon.event_fails, 0);
    send_pages(DEFLATE, pages, array_length(pages));
    assert_int_equal(metrics.balloon.deflate_count, 1);
    assert_int_equal(driver.queue_signals[INFLATE], 1);
}

/* The neighbours of a page that is none go all the same. */
static void test_numbers_beyond_memory_are_counted_and_harm_nobody(void **state)
{
    static const uint32_t pages[] = {UINT32_MAX,
                                     UINT32_MAX - 1,
                                     0x80000000,
                                     FIRST_PAGE,
                                     (uint32_t)(GUEST_LOW_SIZE / PAGE) - 1,
                                     (uint32_t)(GUEST_LOW_SIZE / PAGE)};

    (void)state;
    start(0);
    send_pages(INFLATE, pages, array_length(pages));
    assert_int_equal(pages_left(), PAGE_COUNT - 1);
    assert_int_equal(page(0), 0);
    assert_int_equal(metrics.balloon.event_fails, 4);
    assert_false(driver.failed);
}

static void test_request_with_half_a_number_is_taken_as_far_as_it_goes(void **state)
{
    static const uint32_t pages[] = {FIRST_PAGE, FIRST_PAGE + 1};
    const struct guest_buffer only_writable = {REQUEST_GPA, 8, true};

    (void)state;
    start(0);
    memcpy(request(sizeof(pages)), pages, sizeof(pages));
    send(INFLATE, 7);
    assert_int_equal(page(0), 0);
    assert_int_equal(page(1), 0xaa);
    assert_int_equal(metrics.balloon.event_fails, 1);
    guest_ring_add(&driver.rings[INFLATE], &only_writable, 1);
    guest_driver_notify(&driver, INFLATE);
    guest_driver_wait_used(&driver, INFLATE, NULL);
    assert_int_equal(page(1), 0xaa);
}

static void test_request_of_more_pages_than_one_may_name_is_cut(void **state)
{
    uint32_t pages[PAGE_COUNT];

    (void)state;
    for (uint32_t i = 0; i < PAGE_COUNT; i++)
        pages[i] = FIRST_PAGE + i;
    start(0);
    send_pages(INFLATE, pages, PAGE_COUNT);
    assert_int_equal(pages_left(), PAGE_COUNT - 1024);
    assert_int_equal(page(1024), 0xaa);
    assert_int_equal(metrics.balloon.event_fails, 1);
}

static void test_requests_of_more_than_a_turn_are_all_served(void **state)
{
    const struct guest_buffer buffer = {REQUEST_GPA, 4, false};

    (void)state;
    start(1ull << VIRTIO_RING_F_EVENT_IDX);
    for (uint32_t i = 0; i < 60; i++) {
        *(uint32_t *)request(4) = FIRST_PAGE + i;
        guest_ring_add(&driver.rings[INFLATE], &buffer, 1);
    }
    guest_driver_notify(&driver, INFLATE);
    for (uint32_t i = 0; i < 60; i++)
        guest_driver_wait_used(&driver, INFLATE, NULL);
    assert_int_equal(metrics.balloon.inflate_count, 60);
    guest_driver_settle(&driver);
}

/* --- Queues --- */

/* Which queue is for what depends on what the driver agreed to. */
static void test_driver_without_a_feature_has_no_queue_for_it(void **state)
{
    (void)state;
    config = (struct balloon_config){
        .present = true, .stats_polling_interval_s = 3600, .free_page_hinting = true, .free_page_reporting = true};
    struct virtio_device *device = start(REPORTING);
    assert_int_equal(device->queue_count, 5);
    name_free(2, PAGES_GPA, PAGE);
    assert_int_equal(page(0), 0);
    name_free(3, PAGES_GPA + PAGE, PAGE); /* a queue that is for nothing */
    name_free(4, PAGES_GPA + PAGE, PAGE);
    assert_int_equal(page(1), 0xaa);
    assert_int_equal(metrics.balloon.free_page_report_count, 1);
}

static void test_only_what_is_configured_is_offered(void **state)
{
    (void)state;
    struct virtio_device *device = make();
    assert_int_equal(device->features, 0);
    assert_int_equal(device->queue_count, 2);
    assert_int_equal(device->prompt_queues, 0);
    device->ops->destroy(device);
    config.deflate_on_oom = true;
    config.stats_polling_interval_s = 1;
    device = make();
    assert_int_equal(device->features, 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM | STATISTICS);
    assert_int_equal(device->queue_count, 3);
    device->ops->destroy(device);
}

static void test_driver_without_the_two_queues_is_refused(void **state)
{
    (void)state;
    struct virtio_device *device = start(0);
    guest_driver_reset(&driver);
    device->queues[DEFLATE].ready = false;
    device->queues[INFLATE].ready = true;
    assert_false(device->ops->activate(device));
    assert_int_equal(metrics.balloon.activate_fails, 1);
}

static void test_broken_ring_stops_the_device(void **state)
{
    (void)state;
    start(0);
    guest_ring_available_index(&driver.rings[DEFLATE], 1000);
    guest_driver_notify(&driver, DEFLATE);
    assert_true(driver.failed);
    guest_driver_settle(&driver);
}

/* A chain that is available a thousand times: no more than a turn of it before others have theirs. */
static void test_hostile_ring_does_not_keep_the_loop(void **state)
{
    const struct guest_buffer buffer = {REQUEST_GPA, 4, false};
    struct guest_ring *ring = &driver.rings[INFLATE];

    (void)state;
    start(0);
    *(uint32_t *)request(4) = UINT32_MAX;
    uint16_t head = guest_ring_add(ring, &buffer, 1);
    for (unsigned i = 1; i < ring->size; i++)
        guest_ring_publish(ring, head);
    guest_driver_notify(&driver, INFLATE);
    assert_in_range(metrics.balloon.inflate_count, 1, 8);
    guest_driver_settle(&driver);
    assert_false(driver.failed);
}

static void test_pause_leaves_requests_until_resume(void **state)
{
    static const uint32_t number = FIRST_PAGE;
    const struct guest_buffer buffer = {REQUEST_GPA, sizeof(number), false};
    struct virtio_device *device;

    (void)state;
    device = start(0);
    device->paused = true;
    device->ops->pause(device);
    memcpy(request(sizeof(number)), &number, sizeof(number));
    guest_ring_add(&driver.rings[INFLATE], &buffer, 1);
    guest_driver_notify(&driver, INFLATE);
    guest_driver_settle(&driver);
    assert_int_equal(page(0), 0xaa);
    device->paused = false;
    device->ops->resume(device);
    guest_driver_wait_used(&driver, INFLATE, NULL);
    assert_int_equal(page(0), 0);
}

TEST_MAIN(balloon_test(test_wish_of_the_host_is_in_config_space),
          balloon_test(test_size_that_the_guest_tells_is_a_number_and_no_more),
          balloon_test(test_inflated_pages_go_in_whatever_order_they_come),
          balloon_test(test_numbers_beyond_memory_are_counted_and_harm_nobody),
          balloon_test(test_request_with_half_a_number_is_taken_as_far_as_it_goes),
          balloon_test(test_request_of_more_pages_than_one_may_name_is_cut),
          balloon_test(test_requests_of_more_than_a_turn_are_all_served),
          balloon_test(test_driver_without_a_feature_has_no_queue_for_it),
          balloon_test(test_only_what_is_configured_is_offered),
          balloon_test(test_driver_without_the_two_queues_is_refused), balloon_test(test_broken_ring_stops_the_device),
          balloon_test(test_hostile_ring_does_not_keep_the_loop), balloon_test(test_pause_leaves_requests_until_resume))
