/* Interrupts of a device that can wait for others: those of small frames that were sent. */
#include "tests/unit/net_fixture.h"

#include <string.h>

static unsigned signals(void)
{
    return driver.queue_signals[RX] + driver.queue_signals[TX];
}

static void send_small(void)
{
    guest_send(TX_GPA, 100);
    guest_driver_notify(&driver, TX);
}

static bool is_signalled(void *argument)
{
    return signals() >= *(unsigned *)argument;
}

static void wait_for_signals(unsigned count)
{
    guest_driver_run_until(&driver, is_signalled, &count);
    assert_int_equal(signals(), count);
}

static void test_small_frame_and_its_answer_are_told_together(void **state)
{
    (void)state;
    start(0);
    give_buffers(4, 2000);
    send_small();
    assert_int_equal(signals(), 0);
    host_send(100);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
    assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
    assert_int_equal(signals(), 1);
}

static void test_small_frame_without_an_answer_is_told_alone(void **state)
{
    (void)state;
    start(0);
    send_small();
    assert_int_equal(signals(), 0);
    wait_for_signals(1);
    /* Nobody answers here: the next ones do not wait. */
    send_small();
    assert_int_equal(signals(), 2);
}

static void test_many_small_frames_do_not_wait(void **state)
{
    unsigned sent = 0;

    (void)state;
    start(0);
    while (signals() == 0 && sent++ < driver.rings[TX].size)
        send_small();
    assert_in_range(sent, 2, driver.rings[TX].size / 4u);
}

static void test_large_frame_is_told_at_once_with_the_small_ones_before(void **state)
{
    (void)state;
    start(0);
    send_small();
    assert_int_equal(signals(), 0);
    guest_send(TX_GPA + SLOT, 1000);
    guest_driver_notify(&driver, TX);
    assert_int_equal(signals(), 1);
    guest_driver_settle(&driver);
    assert_int_equal(signals(), 1);
}

static void test_pause_keeps_what_was_not_told_for_the_resume(void **state)
{
    (void)state;
    start(0);
    send_small();
    driver.device->paused = true;
    virtio_device_pause(driver.device);
    guest_driver_settle(&driver);
    assert_int_equal(signals(), 0);
    driver.device->paused = false;
    driver.device->ops->resume(driver.device);
    wait_for_signals(1);
}

static void test_reset_forgets_what_was_not_told(void **state)
{
    (void)state;
    start(0);
    send_small();
    guest_driver_reset(&driver);
    guest_driver_settle(&driver);
    assert_int_equal(signals(), 0);
}

TEST_MAIN(cmocka_unit_test_setup_teardown(test_small_frame_and_its_answer_are_told_together, setup, teardown),
          cmocka_unit_test_setup_teardown(test_small_frame_without_an_answer_is_told_alone, setup, teardown),
          cmocka_unit_test_setup_teardown(test_many_small_frames_do_not_wait, setup, teardown),
          cmocka_unit_test_setup_teardown(test_large_frame_is_told_at_once_with_the_small_ones_before, setup, teardown),
          cmocka_unit_test_setup_teardown(test_pause_keeps_what_was_not_told_for_the_resume, setup, teardown),
          cmocka_unit_test_setup_teardown(test_reset_forgets_what_was_not_told, setup, teardown))
