#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* The balloon, driven as a guest would. */

enum { PAGE = 4096, INFLATE = 0, DEFLATE = 1 };
/* Requests lie at REQUEST_GPA; the pages of a test, filled with 0xaa, from PAGES_GPA on. */
#define REQUEST_GPA 0x200000ULL
#define PAGES_GPA 0x400000ULL
#define FIRST_PAGE ((uint32_t)(PAGES_GPA / PAGE))
enum { PAGE_COUNT = 1200 };

#define HINT (1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT)
#define STATISTICS (1ull << VIRTIO_BALLOON_F_STATS_VQ)
#define REPORTING (1ull << VIRTIO_BALLOON_F_REPORTING)

static struct guest_driver driver;
static struct balloon_config config;

static int setup(void **state)
{
    (void)state;
    config = (struct balloon_config){.present = true};
    memset(&metrics.balloon, 0, sizeof(metrics.balloon));
    guest_driver_setup(&driver);
    memset(guest_at(&driver.memory, PAGES_GPA, PAGE_COUNT * PAGE), 0xaa, PAGE_COUNT * PAGE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    return 0;
}

static struct virtio_device *make(void)
{
    struct virtio_device *device = NULL;

    assert_no_error(virtio_balloon_new(&config, driver.loop, &device));
    assert_int_equal(device->ops->type, VIRTIO_ID_BALLOON);
    return device;
}

static struct virtio_device *start(uint64_t features)
{
    struct virtio_device *device = make();

    guest_driver_start(&driver, device, features);
    guest_driver_settle(&driver);
    return device;
}

static void *request(size_t length)
{
    return guest_at(&driver.memory, REQUEST_GPA, length);
}

/* Sends what lies at REQUEST_GPA, and waits until it is back. */
static void send(unsigned queue, uint32_t length)
{
    const struct guest_buffer buffer = {REQUEST_GPA, length, false};

    guest_ring_add(&driver.rings[queue], &buffer, 1);
    guest_driver_notify(&driver, queue);
    assert_int_equal(guest_driver_wait_used(&driver, queue, NULL), 0);
}

static void send_pages(unsigned queue, const uint32_t *pages, size_t count)
{
    memcpy(request(count * sizeof(*pages)), pages, count * sizeof(*pages));
    send(queue, (uint32_t)(count * sizeof(*pages)));
}

static void name_free(unsigned queue, uint64_t gpa, uint32_t length)
{
    const struct guest_buffer buffer = {gpa, length, true};

    guest_ring_add(&driver.rings[queue], &buffer, 1);
    guest_driver_notify(&driver, queue);
    assert_int_equal(guest_driver_wait_used(&driver, queue, NULL), 0);
}

static void command(unsigned queue, uint32_t value)
{
    memcpy(request(sizeof(value)), &value, sizeof(value));
    send(queue, sizeof(value));
}

static uint8_t page(unsigned index)
{
    return *(uint8_t *)guest_at(&driver.memory, PAGES_GPA + index * PAGE, 1);
}

static unsigned pages_left(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < PAGE_COUNT; i++)
        count += page(i) == 0xaa;
    return count;
}

static struct virtio_balloon_config config_space(void)
{
    struct virtio_balloon_config found;

    driver.device->ops->config_read(driver.device, 0, (uint8_t *)&found, sizeof(found));
    return found;
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

/* --- Statistics --- */

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

/* --- Reports and hints --- */

static void test_reported_buffers_go_back_to_the_host(void **state)
{
    const struct guest_buffer buffers[] = {
        {PAGES_GPA, 4 * PAGE, true}, {PAGES_GPA + 8 * PAGE, PAGE, true}, {GUEST_HIGH_GPA, GUEST_HIGH_SIZE, true}};

    (void)state;
    config.free_page_reporting = true;
    start(REPORTING);
    memset(guest_at(&driver.memory, GUEST_HIGH_GPA, GUEST_HIGH_SIZE), 0xaa, GUEST_HIGH_SIZE);
    guest_ring_add(&driver.rings[2], buffers, 3);
    guest_driver_notify(&driver, 2);
    assert_int_equal(guest_driver_wait_used(&driver, 2, NULL), 0);
    assert_int_equal(pages_left(), PAGE_COUNT - 5);
    assert_int_equal(*(uint8_t *)guest_at(&driver.memory, GUEST_HIGH_GPA, 1), 0);
    assert_int_equal(metrics.balloon.free_page_report_count, 1);
    assert_int_equal(metrics.balloon.free_page_report_freed, 5 * PAGE + GUEST_HIGH_SIZE);
    assert_int_equal(metrics.balloon.free_page_report_fails, 0);
}

static void test_hints_are_heard_only_in_the_run_that_the_host_wants(void **state)
{
    struct balloon_hinting_status status;

    (void)state;
    config.free_page_hinting = true;
    struct virtio_device *device = start(HINT);
    virtio_balloon_hinting_status(device, &status);
    assert_int_equal(status.host_cmd, 0);
    assert_false(status.has_guest_cmd);

    name_free(2, PAGES_GPA, PAGE); /* nobody asked */
    virtio_balloon_hinting_start(device, true);
    assert_int_equal(driver.config_signals, 1);
    uint32_t run = config_space().free_page_hint_cmd_id;
    assert_int_equal(run, 2);
    name_free(2, PAGES_GPA, PAGE); /* without the number */
    command(2, run + 1);
    name_free(2, PAGES_GPA, PAGE); /* of another run */
    assert_int_equal(pages_left(), PAGE_COUNT);
    command(2, run);
    name_free(2, PAGES_GPA, 3 * PAGE);
    assert_int_equal(pages_left(), PAGE_COUNT - 3);
    command(2, VIRTIO_BALLOON_CMD_ID_STOP);
    assert_int_equal(config_space().free_page_hint_cmd_id, VIRTIO_BALLOON_CMD_ID_DONE);
    name_free(2, PAGES_GPA + 3 * PAGE, PAGE); /* too late */
    command(2, VIRTIO_BALLOON_CMD_ID_DONE);
    name_free(2, PAGES_GPA + 3 * PAGE, PAGE); /* numbers that are no runs */
    assert_int_equal(pages_left(), PAGE_COUNT - 3);
    assert_int_equal(metrics.balloon.free_page_hint_freed, 3 * PAGE);
}

static void test_run_that_is_not_acknowledged_ends_when_the_host_says_so(void **state)
{
    struct balloon_hinting_status status;

    (void)state;
    config.free_page_hinting = true;
    struct virtio_device *device = start(HINT);
    virtio_balloon_hinting_start(device, false);
    command(2, 2);
    command(2, VIRTIO_BALLOON_CMD_ID_STOP);
    assert_int_equal(config_space().free_page_hint_cmd_id, 2);
    virtio_balloon_hinting_stop(device);
    virtio_balloon_hinting_status(device, &status);
    assert_int_equal(status.host_cmd, VIRTIO_BALLOON_CMD_ID_DONE);
    assert_true(status.has_guest_cmd);
    assert_int_equal(status.guest_cmd, VIRTIO_BALLOON_CMD_ID_STOP);
    virtio_balloon_hinting_start(device, true);
    assert_int_equal(config_space().free_page_hint_cmd_id, 3);
    /* A stop of a run that is over ends none. */
    command(2, VIRTIO_BALLOON_CMD_ID_STOP);
    assert_int_equal(config_space().free_page_hint_cmd_id, 3);
    guest_driver_reset(&driver);
    virtio_balloon_hinting_status(device, &status);
    assert_false(status.has_guest_cmd);
}

static void test_halves_of_commands_and_what_is_not_memory_are_counted(void **state)
{
    const struct guest_buffer both[] = {{REQUEST_GPA, 3, false}, {PAGES_GPA + 1, PAGE, true}};

    (void)state;
    config.free_page_hinting = true;
    virtio_balloon_hinting_start(start(HINT), true);
    command(2, 2);
    guest_ring_add(&driver.rings[2], both, 2);
    guest_driver_notify(&driver, 2);
    guest_driver_wait_used(&driver, 2, NULL);
    assert_int_equal(metrics.balloon.free_page_hint_fails, 1);
    assert_int_equal(pages_left(), PAGE_COUNT); /* no whole page in it */
}

/*
 * The vCPU that notifies serves the hint before it goes on: the page is gone by the time that the guest can use it
 * again. So a notification may never be suppressed.
 */
static void test_every_hint_is_notified_and_served_at_once(void **state)
{
    (void)state;
    for (uint64_t event_idx = 0; event_idx < 2; event_idx++) {
        uint64_t features = HINT | STATISTICS | event_idx << VIRTIO_RING_F_EVENT_IDX;

        config.free_page_hinting = true;
        config.stats_polling_interval_s = 3600;
        virtio_balloon_hinting_start(start(features), true);
        assert_true((driver.device->prompt_queues & 1u << 3) != 0);
        command(3, config_space().free_page_hint_cmd_id);
        for (unsigned i = 0; i < 300; i++) {
            const struct guest_buffer buffer = {PAGES_GPA + i * PAGE, PAGE, true};
            struct guest_ring *ring = &driver.rings[3];
            uint16_t head;
            uint32_t length;

            if (event_idx)
                assert_int_equal(guest_ring_avail_event(ring), ring->available->idx);
            assert_int_equal(ring->used->flags & VRING_USED_F_NO_NOTIFY, 0);
            guest_ring_add(ring, &buffer, 1);
            guest_driver_notify(&driver, 3); /* returns: it has been served */
            assert_int_equal(page(i), 0);
            assert_true(guest_ring_take_used(ring, &head, &length));
        }
        teardown(state);
        setup(state);
    }
}

/* A vCPU's thread makes no mappings. */
static void test_hint_leaves_pages_of_a_file_alone(void **state)
{
    (void)state;
    config.free_page_hinting = true;
    virtio_balloon_hinting_start(start(HINT), true);
    driver.memory.files[GUEST_FILES_KERNEL] =
        (struct guest_range){.gpa = PAGES_GPA + PAGE, .end = PAGES_GPA + 3 * PAGE};
    command(2, 2);
    name_free(2, PAGES_GPA, 4 * PAGE);
    assert_int_equal(page(0), 0);
    assert_int_equal(page(1), 0xaa);
    assert_int_equal(page(2), 0xaa);
    assert_int_equal(page(3), 0);
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

#define balloon_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(balloon_test(test_wish_of_the_host_is_in_config_space),
          balloon_test(test_size_that_the_guest_tells_is_a_number_and_no_more),
          balloon_test(test_inflated_pages_go_in_whatever_order_they_come),
          balloon_test(test_numbers_beyond_memory_are_counted_and_harm_nobody),
          balloon_test(test_request_with_half_a_number_is_taken_as_far_as_it_goes),
          balloon_test(test_request_of_more_pages_than_one_may_name_is_cut),
          balloon_test(test_requests_of_more_than_a_turn_are_all_served),
          balloon_test(test_statistics_given_before_the_driver_is_ready_are_taken),
          balloon_test(test_every_statistic_that_linux_sends_is_known),
          balloon_test(test_unknown_and_halved_statistics_are_left_out),
          balloon_test(test_more_buffers_than_the_one_come_back_at_once),
          balloon_test(test_statistics_are_asked_for_as_soon_as_they_can_be),
          balloon_test(test_statistics_are_asked_for_by_the_clock_unless_paused),
          balloon_test(test_reset_forgets_the_buffer), balloon_test(test_reported_buffers_go_back_to_the_host),
          balloon_test(test_hints_are_heard_only_in_the_run_that_the_host_wants),
          balloon_test(test_run_that_is_not_acknowledged_ends_when_the_host_says_so),
          balloon_test(test_halves_of_commands_and_what_is_not_memory_are_counted),
          balloon_test(test_every_hint_is_notified_and_served_at_once),
          balloon_test(test_hint_leaves_pages_of_a_file_alone),
          balloon_test(test_driver_without_a_feature_has_no_queue_for_it),
          balloon_test(test_only_what_is_configured_is_offered),
          balloon_test(test_driver_without_the_two_queues_is_refused), balloon_test(test_broken_ring_stops_the_device),
          balloon_test(test_hostile_ring_does_not_keep_the_loop), balloon_test(test_pause_leaves_requests_until_resume))
