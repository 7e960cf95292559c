#include "tests/unit/harness.h"

#include "vmm/base/clock.h"
#include "vmm/base/event_loop.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct fixture {
    struct event_loop *loop;
    struct event_source first, second;
    struct event_timer timer;
    struct event_task task;
    int calls;
    uint64_t fired_at;
};

static struct fixture fixture;

static int setup(void **state)
{
    fixture = (struct fixture){0};
    *state = &fixture;
    fixture.first.fd = eventfd(1, EFD_NONBLOCK);
    fixture.second.fd = eventfd(1, EFD_NONBLOCK);
    assert_no_error(event_loop_new(&fixture.loop));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    event_source_remove(&fixture.first);
    event_source_remove(&fixture.second);
    event_loop_free(fixture.loop);
    close(fixture.first.fd);
    close(fixture.second.fd);
    return 0;
}

static void remove_the_other(struct event_source *source, uint32_t events)
{
    (void)events;
    fixture.calls++;
    event_source_remove(source == &fixture.first ? &fixture.second : &fixture.first);
    event_loop_stop(fixture.loop);
}

static void test_removed_source_gets_no_event_already_fetched(void **state)
{
    (void)state;
    fixture.first.ready = fixture.second.ready = remove_the_other;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
    assert_no_error(event_source_add(fixture.loop, &fixture.second, EPOLLIN));
    assert_no_error(event_loop_run(fixture.loop));
    assert_int_equal(fixture.calls, 1);
}

static void stop_by_timer(struct event_timer *timer)
{
    (void)timer;
    fixture.fired_at = clock_monotonic_us();
    event_loop_stop(fixture.loop);
}

static void test_timer_never_fires_early(void **state)
{
    (void)state;
    uint64_t deadline = clock_monotonic_us() + 5500;

    fixture.timer.expired = stop_by_timer;
    event_timer_set(fixture.loop, &fixture.timer, deadline);
    assert_no_error(event_loop_run(fixture.loop));
    assert_true(fixture.fired_at >= deadline);
}

static void stop_by_task(struct event_task *task)
{
    (void)task;
    assert_int_equal(fixture.calls, 1);
    event_loop_stop(fixture.loop);
}

static void drain(struct event_source *source, uint32_t events)
{
    uint64_t value;

    (void)events;
    assert_int_equal(read(source->fd, &value, sizeof(value)), sizeof(value));
    fixture.calls++;
}

static void test_task_waits_until_no_source_is_ready(void **state)
{
    (void)state;
    fixture.first.ready = drain;
    fixture.task.run = stop_by_task;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
    event_loop_when_idle(fixture.loop, &fixture.task);
    assert_no_error(event_loop_run(fixture.loop));
}

static void set_again(struct event_timer *timer)
{
    fixture.calls++;
    event_timer_set(fixture.loop, timer, 0);
}

static void stop_by_source(struct event_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    event_loop_stop(fixture.loop);
}

static void make_first_ready(struct event_timer *timer)
{
    fixture.timer.expired = set_again;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
    set_again(timer);
}

/* As devices do that have more work than fits in a turn. Were the timer to starve the descriptor, this never ends. */
static void test_timer_that_sets_itself_again_leaves_descriptors_their_turn(void **state)
{
    (void)state;
    fixture.timer.expired = make_first_ready;
    fixture.first.ready = stop_by_source;
    event_timer_set(fixture.loop, &fixture.timer, 0);
    assert_no_error(event_loop_run(fixture.loop));
    event_timer_cancel(&fixture.timer);
    assert_true(fixture.calls <= 2);
}

static void *set_timer_from_another_thread(void *argument)
{
    (void)argument;
    event_loop_lock(fixture.loop);
    event_timer_set(fixture.loop, &fixture.timer, clock_monotonic_us());
    event_loop_unlock(fixture.loop);
    return NULL;
}

static void test_timer_set_by_another_thread_wakes_the_loop(void **state)
{
    pthread_t thread;

    (void)state;
    fixture.timer.expired = stop_by_timer;
    pthread_create(&thread, NULL, set_timer_from_another_thread, NULL);
    assert_no_error(event_loop_run(fixture.loop));
    pthread_join(thread, NULL);
    assert_true(fixture.fired_at > 0);
}

TEST_MAIN(cmocka_unit_test_setup_teardown(test_removed_source_gets_no_event_already_fetched, setup, teardown),
          cmocka_unit_test_setup_teardown(test_timer_never_fires_early, setup, teardown),
          cmocka_unit_test_setup_teardown(test_task_waits_until_no_source_is_ready, setup, teardown),
          cmocka_unit_test_setup_teardown(test_timer_that_sets_itself_again_leaves_descriptors_their_turn, setup,
                                          teardown),
          cmocka_unit_test_setup_teardown(test_timer_set_by_another_thread_wakes_the_loop, setup, teardown))
