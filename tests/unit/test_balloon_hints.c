/* Free pages that the guest reports or hints at. */
#include "tests/unit/balloon_fixture.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ring.h>
#include <string.h>

static void command(unsigned queue, uint32_t value)
{
    memcpy(request(sizeof(value)), &value, sizeof(value));
    send(queue, sizeof(value));
}

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

TEST_MAIN(balloon_test(test_reported_buffers_go_back_to_the_host),
          balloon_test(test_hints_are_heard_only_in_the_run_that_the_host_wants),
          balloon_test(test_run_that_is_not_acknowledged_ends_when_the_host_says_so),
          balloon_test(test_halves_of_commands_and_what_is_not_memory_are_counted),
          balloon_test(test_every_hint_is_notified_and_served_at_once),
          balloon_test(test_hint_leaves_pages_of_a_file_alone))
