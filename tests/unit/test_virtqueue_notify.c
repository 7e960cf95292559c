/* Notifications, both ways (virtio 1.2, sections 2.7.7 and 2.7.10). */
#include "tests/unit/virtqueue_fixture.h"

#include <linux/virtio_ring.h>

static void use_one(void)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};

    guest_ring_add(ring, &buffer, 1);
    assert_pops();
    virtqueue_push(queue, chain->head, 8);
}

static void test_no_signal_without_used_buffers(void **state)
{
    (void)state;
    activate(0);
    assert_false(virtqueue_needs_signal(queue));
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    assert_false(virtqueue_needs_signal(queue));
}

static void test_flag_keeps_the_interrupt_away(void **state)
{
    (void)state;
    activate(0);
    guest_ring_flags(ring, VRING_AVAIL_F_NO_INTERRUPT);
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    guest_ring_flags(ring, 0);
    use_one();
    assert_true(virtqueue_needs_signal(queue));
}

static void test_event_index_decides_about_the_interrupt(void **state)
{
    (void)state;
    activate(EVENT_IDX);
    /* The flag means nothing now. */
    guest_ring_flags(ring, VRING_AVAIL_F_NO_INTERRUPT);
    guest_ring_used_event(ring, 0);
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    guest_ring_used_event(ring, 3);
    use_one();
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    /* A batch that passes the index counts as well. */
    guest_ring_used_event(ring, 6);
    use_one();
    use_one();
    use_one();
    assert_true(virtqueue_needs_signal(queue));
}

/* Nothing is known about what the guest was told before: it is told in any case. */
static void test_first_used_buffer_interrupts_whatever_the_event_index(void **state)
{
    (void)state;
    activate(EVENT_IDX);
    guest_ring_used_event(ring, 100);
    use_one();
    assert_true(virtqueue_needs_signal(queue));
    use_one();
    assert_false(virtqueue_needs_signal(queue));
}

static void test_event_index_works_across_the_wrap(void **state)
{
    (void)state;
    queue->next_available = queue->next_used = queue->signalled_used = 0xfffe;
    queue->signalled_valid = true;
    activate(EVENT_IDX);
    guest_ring_available_index(ring, 0xfffe);
    guest_ring_used_event(ring, 0);
    use_one();
    use_one();
    assert_false(virtqueue_needs_signal(queue));
    use_one();
    assert_true(virtqueue_needs_signal(queue));
}

static void test_arm_publishes_the_event_index_and_sees_new_chains(void **state)
{
    const struct guest_buffer buffer = {DATA_GPA, 8, true};

    (void)state;
    activate(EVENT_IDX);
    use_one();
    assert_false(virtqueue_arm(queue));
    assert_int_equal(guest_ring_avail_event(ring), 1);
    guest_ring_add(ring, &buffer, 1);
    assert_true(virtqueue_arm(queue));
}

static void test_disarm_sets_the_flag_and_arm_clears_it(void **state)
{
    (void)state;
    activate(0);
    virtqueue_disarm(queue);
    assert_int_equal(ring->used->flags, VRING_USED_F_NO_NOTIFY);
    assert_false(virtqueue_arm(queue));
    assert_int_equal(ring->used->flags, 0);
}

/* Who served the queue before may have given something back and gone before it told the guest. */
static void test_queue_that_is_taken_over_interrupts_in_any_case(void **state)
{
    (void)state;
    activate(EVENT_IDX);
    for (uint16_t used = 0xfffe; used != 2; used++) {
        guest_ring_used_event(ring, (uint16_t)(used + 100));
        ring->used->idx = used;
        guest_ring_available_index(ring, used);
        virtqueue_take_over(queue, 0);
        assert_true(virtqueue_needs_signal(queue));
        assert_false(virtqueue_needs_signal(queue));

        virtqueue_take_over(queue, 0);
        use_one();
        assert_true(virtqueue_needs_signal(queue));
    }
}

TEST_MAIN(QUEUE_TEST(test_no_signal_without_used_buffers),
          QUEUE_TEST(test_queue_that_is_taken_over_interrupts_in_any_case),
          QUEUE_TEST(test_flag_keeps_the_interrupt_away), QUEUE_TEST(test_event_index_decides_about_the_interrupt),
          QUEUE_TEST(test_first_used_buffer_interrupts_whatever_the_event_index),
          QUEUE_TEST(test_event_index_works_across_the_wrap),
          QUEUE_TEST(test_arm_publishes_the_event_index_and_sees_new_chains),
          QUEUE_TEST(test_disarm_sets_the_flag_and_arm_clears_it))
