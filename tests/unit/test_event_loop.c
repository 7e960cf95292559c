#include "tests/unit/harness.h"

#include "vmm/base/clock.h"
#include "vmm/base/event_loop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

struct fixture {
    struct event_loop *loop;
    struct event_source first, second;
    struct event_timer timer;
    struct event_task task;
    int calls, first_calls, second_calls;
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

static void count_edge(struct event_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    fixture.first_calls++;
}

static void stop_at_edge(struct event_source *source, uint32_t events)
{
    (void)events;
    (*(source == &fixture.first ? &fixture.first_calls : &fixture.second_calls))++;
    event_loop_stop(fixture.loop);
}

static void test_edge_is_told_once(void **state)
{
    (void)state;
    fixture.first.ready = count_edge;
    fixture.timer.expired = stop_by_timer;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN | EPOLLET));
    for (int rings = 1; rings <= 3; rings++) {
        event_timer_set(fixture.loop, &fixture.timer, clock_monotonic_us() + 1000);
        assert_no_error(event_loop_run(fixture.loop));
        assert_int_equal(fixture.first_calls, rings);
        assert_int_equal(eventfd_write(fixture.first.fd, 1), 0);
    }
}

/* Both are ready, and their descriptors are never read. */
static void test_edge_that_was_fetched_when_the_loop_stopped_is_told_when_it_runs_again(void **state)
{
    (void)state;
    fixture.first.ready = fixture.second.ready = stop_at_edge;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN | EPOLLET));
    assert_no_error(event_source_add(fixture.loop, &fixture.second, EPOLLIN | EPOLLET));
    for (int runs = 0; runs < 4 && (fixture.first_calls == 0 || fixture.second_calls == 0); runs++)
        assert_no_error(event_loop_run(fixture.loop));
    assert_true(fixture.first_calls > 0 && fixture.second_calls > 0);
}

/* The loop fetches the edge, or is about to, and has to forget what it fetched. */
static void *ring_and_remove_the_other(void *argument)
{
    (void)argument;
    event_loop_lock(fixture.loop);
    eventfd_write(fixture.first.fd, 1);
    event_source_remove(&fixture.second);
    event_loop_unlock(fixture.loop);
    return NULL;
}

static void test_edge_is_not_lost_when_another_thread_removes_a_source(void **state)
{
    eventfd_t count;
    pthread_t thread;

    (void)state;
    fixture.first.ready = stop_at_edge;
    assert_int_equal(eventfd_read(fixture.first.fd, &count), 0);
    assert_int_equal(eventfd_read(fixture.second.fd, &count), 0);
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN | EPOLLET));
    for (int i = 0; i < 200; i++) {
        assert_no_error(event_source_add(fixture.loop, &fixture.second, EPOLLIN));
        pthread_create(&thread, NULL, ring_and_remove_the_other, NULL);
        assert_no_error(event_loop_run(fixture.loop));
        pthread_join(thread, NULL);
    }
    assert_true(fixture.first_calls >= 200);
}

static void take_call(struct event_source *source, uint32_t events)
{
    eventfd_t count;

    (void)events;
    assert_int_equal(eventfd_read(source->fd, &count), 0);
    fixture.first_calls++;
}

/* Where the kernel tells what the loop's thread, this process's first, is doing. */
static const char *loop_thread(void)
{
    static char path[64];

    snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", getpid());
    return path;
}

static void need_sight_of_threads(void)
{
    if (access(loop_thread(), R_OK) == 0)
        return;
    print_message("skipped: %s cannot be read: %s\n", loop_thread(), strerror(errno));
    skip();
}

/* Whether the loop's thread waits for a lock. False as well where the kernel does not tell. */
static bool loop_waits_for_lock(void)
{
    char line[8] = "";
    FILE *file = fopen(loop_thread(), "re");
    if (file == NULL)
        return false;
    bool waits = fgets(line, sizeof(line), file) != NULL && atoi(line) == SYS_futex && line[0] != 'r';
    fclose(file);
    return waits;
}

/* A driver has reset its device, has begun anew and rings at once: the loop fetches that while it all happens. */
static void *come_anew_and_ring(void *unused)
{
    (void)unused;
    event_loop_lock(fixture.loop);
    event_source_remove(&fixture.second);
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN | EPOLLET));
    eventfd_write(fixture.first.fd, 1);
    while (!loop_waits_for_lock())
        sched_yield();
    event_loop_unlock(fixture.loop);
    return NULL;
}

static void test_edge_is_not_lost_when_another_thread_adds_its_source(void **state)
{
    eventfd_t count;
    pthread_t thread;

    (void)state;
    need_sight_of_threads();
    fixture.first.ready = stop_at_edge;
    assert_int_equal(eventfd_read(fixture.second.fd, &count), 0);
    fixture.timer.expired = stop_by_timer; /* in place of waiting for ever */
    for (int i = 1; i <= 20; i++) {
        assert_no_error(event_source_add(fixture.loop, &fixture.second, EPOLLIN));
        event_timer_set(fixture.loop, &fixture.timer, clock_monotonic_us() + 10000000);
        pthread_create(&thread, NULL, come_anew_and_ring, NULL);
        assert_no_error(event_loop_run(fixture.loop));
        pthread_join(thread, NULL);
        assert_int_equal(fixture.first_calls, i);
        event_source_remove(&fixture.first);
    }
}

enum { COMINGS_AND_GOINGS = 300 };

/* A driver comes and goes without end, and the lock is free for moments only; a call of another device comes meanwhile.
 */
static void *come_and_go(void *unused)
{
    (void)unused;
    event_loop_lock(fixture.loop);
    for (int i = 0; i <= COMINGS_AND_GOINGS; i++) {
        int calls = fixture.first_calls;

        assert_no_error(event_source_add(fixture.loop, &fixture.second, 0));
        eventfd_write(fixture.first.fd, 1);
        while (!loop_waits_for_lock())
            sched_yield();
        event_source_remove(&fixture.second);
        event_loop_unlock(fixture.loop);
        event_loop_lock(fixture.loop);
        /* It may have waited to run at all, the first time. */
        fixture.calls += i > 0 && fixture.first_calls > calls;
    }
    event_loop_stop(fixture.loop);
    event_loop_unlock(fixture.loop);
    return NULL;
}

static void test_others_are_served_while_a_source_comes_and_goes(void **state)
{
    eventfd_t count;
    pthread_t thread;

    (void)state;
    need_sight_of_threads();
    assert_int_equal(eventfd_read(fixture.first.fd, &count), 0);
    fixture.first.ready = take_call;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
    pthread_create(&thread, NULL, come_and_go, NULL);
    assert_no_error(event_loop_run(fixture.loop));
    pthread_join(thread, NULL);
    assert_int_equal(fixture.calls, COMINGS_AND_GOINGS);
}

static void close_the_other(struct event_source *source, uint32_t events)
{
    (void)events;
    fixture.calls++;
    event_source_close(source == &fixture.first ? &fixture.second : &fixture.first);
    event_loop_stop(fixture.loop);
}

static void test_closed_source_gets_no_event_already_fetched(void **state)
{
    int number = fixture.first.fd;

    (void)state;
    fixture.first.ready = fixture.second.ready = close_the_other;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
    assert_no_error(event_source_add(fixture.loop, &fixture.second, EPOLLIN));
    assert_no_error(event_loop_run(fixture.loop));
    assert_int_equal(fixture.calls, 1);
    assert_true((fixture.first.fd < 0) != (fixture.second.fd < 0));
    event_source_close(&fixture.first);
    event_source_close(&fixture.second);
    assert_int_equal(fixture.second.fd, -1);
    /* The number may be another file's now, watched or not. */
    fixture.first.fd = eventfd(1, EFD_NONBLOCK);
    assert_int_equal(fixture.first.fd, number);
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
}

static void note_policy(struct event_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    if (syscall(SYS_sched_getscheduler, 0) == SCHED_BATCH)
        fixture.first_calls++;
    else if (fixture.first_calls > 0 || ++fixture.calls == 1000000)
        event_loop_stop(fixture.loop);
    event_loop_count_work(fixture.loop, 1);
}

/* What wakeups.h is for, on a real thread: it tries, and finds that a wake-up brings no more. */
static void test_thick_wakeups_make_the_thread_patient_for_a_moment(void **state)
{
    (void)state;
    fixture.first.ready = note_policy;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
    assert_no_error(event_loop_run(fixture.loop));
    assert_int_not_equal(fixture.first_calls, 0);
    assert_int_equal(syscall(SYS_sched_getscheduler, 0), SCHED_OTHER);
}

static void rest_when_patient(struct event_source *source, uint32_t events)
{
    (void)events;
    event_loop_count_work(fixture.loop, 1);
    if (syscall(SYS_sched_getscheduler, 0) != SCHED_BATCH && ++fixture.calls < 1000000)
        return;
    event_source_update(source, 0);
    event_timer_set(fixture.loop, &fixture.timer, clock_monotonic_us() + 1000000);
}

static void stop_if_eager(struct event_timer *timer)
{
    (void)timer;
    fixture.second_calls += syscall(SYS_sched_getscheduler, 0) == SCHED_OTHER;
    event_loop_stop(fixture.loop);
}

static void test_patient_thread_that_rests_becomes_eager(void **state)
{
    (void)state;
    fixture.first.ready = rest_when_patient;
    fixture.timer.expired = stop_if_eager;
    assert_no_error(event_source_add(fixture.loop, &fixture.first, EPOLLIN));
    assert_no_error(event_loop_run(fixture.loop));
    assert_in_range(fixture.calls, 1, 999999);
    assert_int_equal(fixture.second_calls, 1);
}

#define loop_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(loop_test(test_closed_source_gets_no_event_already_fetched),
          loop_test(test_thick_wakeups_make_the_thread_patient_for_a_moment),
          loop_test(test_patient_thread_that_rests_becomes_eager),
          loop_test(test_edge_is_not_lost_when_another_thread_adds_its_source),
          loop_test(test_others_are_served_while_a_source_comes_and_goes), loop_test(test_edge_is_told_once),
          loop_test(test_edge_that_was_fetched_when_the_loop_stopped_is_told_when_it_runs_again),
          loop_test(test_edge_is_not_lost_when_another_thread_removes_a_source),
          loop_test(test_removed_source_gets_no_event_already_fetched), loop_test(test_timer_never_fires_early),
          loop_test(test_task_waits_until_no_source_is_ready),
          loop_test(test_timer_that_sets_itself_again_leaves_descriptors_their_turn),
          loop_test(test_timer_set_by_another_thread_wakes_the_loop))
