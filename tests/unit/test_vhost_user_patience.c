#include "tests/unit/harness.h"

#include "vmm/backend/vhost_user.h"

#include <sys/eventfd.h>
#include <unistd.h>

/* Back ends that keep the VMM waiting. */

enum { SECOND_US = 1000000 };

static void test_time_waited_in_vain_comes_back_ten_times_slower(void **state)
{
    struct vhost_user_patience patience = {0};
    uint64_t now_us = 77 * SECOND_US;

    (void)state;
    assert_int_equal(vhost_user_patience_left(&patience, now_us), 3 * SECOND_US);
    vhost_user_patience_spend(&patience, SECOND_US);
    assert_int_equal(vhost_user_patience_left(&patience, now_us), 2 * SECOND_US);
    assert_int_equal(vhost_user_patience_left(&patience, now_us += 5 * SECOND_US), 5 * SECOND_US / 2);
    assert_int_equal(vhost_user_patience_left(&patience, now_us += 500 * SECOND_US), 3 * SECOND_US);
}

/* Who answers in time is heard, whatever was before; but all waits of a minute are hardly more than the first. */
static void test_silent_back_end_is_waited_for_at_length_once(void **state)
{
    struct vhost_user_patience patience = {0};
    uint64_t now_us = 77 * SECOND_US, waited_us = 0;

    (void)state;
    for (uint64_t end_us = now_us + 60 * SECOND_US; now_us < end_us;) {
        uint64_t left_us = vhost_user_patience_left(&patience, now_us);

        assert_in_range(left_us, VHOST_USER_PATIENCE_MIN_MS * 1000, VHOST_USER_PATIENCE_MS * 1000);
        vhost_user_patience_spend(&patience, left_us);
        waited_us += left_us;
        now_us += left_us + SECOND_US;
    }
    assert_in_range(waited_us, 3 * SECOND_US, 12 * SECOND_US);
}

/* The description of an eventfd is shared: who has the other descriptor may have writes wait. */
static void test_bell_that_a_back_end_has_filled_keeps_nobody_waiting(void **state)
{
    cleanup_fd int bell = eventfd(0, EFD_CLOEXEC);
    eventfd_t count;

    (void)state;
    alarm(10);
    assert_int_equal(eventfd_write(bell, UINT64_MAX - 1), 0);
    vhost_user_ring_bell(bell);
    assert_int_equal(eventfd_read(bell, &count), 0);
    assert_true(count == UINT64_MAX - 1);
    vhost_user_ring_bell(bell);
    assert_int_equal(eventfd_read(bell, &count), 0);
    assert_int_equal(count, 1);
    vhost_user_ring_bell(-1);
    alarm(0);
}

TEST_MAIN(cmocka_unit_test(test_time_waited_in_vain_comes_back_ten_times_slower),
          cmocka_unit_test(test_silent_back_end_is_waited_for_at_length_once),
          cmocka_unit_test(test_bell_that_a_back_end_has_filled_keeps_nobody_waiting))
