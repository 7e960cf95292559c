#include "tests/unit/harness.h"

#include "vmm/base/wakeups.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    struct wakeups wakeups;
    uint64_t now_us;
    unsigned changes;
    bool patient, refuse;
} fixture;

static bool set_patient(bool patient)
{
    if (fixture.refuse)
        return false;
    fixture.changes += fixture.patient != patient;
    fixture.patient = patient;
    return true;
}

static uint64_t now_us(void)
{
    return fixture.now_us;
}

static int setup(void **state)
{
    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    wakeups_init(&fixture.wakeups);
    fixture.wakeups.set_patient = set_patient;
    fixture.wakeups.now_us = now_us;
    fixture.now_us = 1000000;
    return 0;
}

/* Wake-ups until the policy changes, or so many. */
static unsigned wake_up(unsigned count, unsigned after_us, uint64_t work)
{
    bool before = fixture.patient;
    unsigned done = 0;

    while (done < count && fixture.patient == before) {
        fixture.now_us += after_us;
        wakeups_count(&fixture.wakeups, work);
        done++;
    }
    assert_int_equal(wakeups_are_patient(&fixture.wakeups), fixture.patient);
    return done;
}

/* A guest for which each wake-up interrupts what it was about to ask for. */
static void become_patient(void)
{
    assert_in_range(wake_up(100, 20, 1), 1, 99);
    assert_true(fixture.patient);
}

static void test_thick_wakeups_with_little_work_make_it_try(void **state)
{
    (void)state;
    become_patient();
    assert_int_equal(fixture.changes, 1);
}

static void test_rare_wakeups_are_served_eagerly(void **state)
{
    (void)state;
    wake_up(10000, 1000, 1);
    assert_int_equal(fixture.changes, 0);
}

static void test_wakeups_without_work_of_the_guest_are_served_eagerly(void **state)
{
    (void)state;
    wake_up(10000, 10, 0);
    assert_int_equal(fixture.changes, 0);
}

static void test_it_stays_patient_while_a_wakeup_brings_more(void **state)
{
    (void)state;
    become_patient();
    /* As fast as before, 8 at a time; it may look what eagerness would bring, but not often. */
    for (unsigned i = 0; i < 100; i++) {
        unsigned patient = wake_up(100000, 160, 8);

        assert_false(fixture.patient);
        assert_in_range(patient, 1000, 99999);
        become_patient();
    }
}

static void test_it_is_eager_again_when_a_wakeup_brings_no_more(void **state)
{
    (void)state;
    become_patient();
    assert_in_range(wake_up(100, 20, 1), 1, 16);
    assert_false(fixture.patient);
}

static void test_it_is_eager_again_at_the_first_sign_of_delay(void **state)
{
    (void)state;
    become_patient();
    assert_int_equal(wake_up(100, 4000, 8), 1);
    assert_false(fixture.patient);
}

static void test_it_is_eager_again_when_the_work_changes(void **state)
{
    (void)state;
    become_patient();
    wake_up(200, 160, 8);
    assert_true(fixture.patient);
    assert_in_range(wake_up(100, 20, 1), 1, 64);
    assert_false(fixture.patient);
}

/* What does not pay is tried ever more seldom: the guest must not lose more than it could win. */
static void test_trials_that_fail_become_rare(void **state)
{
    unsigned trials = 0;

    (void)state;
    for (uint64_t end_us = fixture.now_us + 100000000; fixture.now_us < end_us;) {
        wake_up(100000, 50, 1);
        trials += fixture.patient;
    }
    assert_in_range(trials, 8, 25);
}

static void test_rest_makes_it_eager(void **state)
{
    (void)state;
    become_patient();
    wakeups_rest(&fixture.wakeups);
    assert_false(fixture.patient);
    assert_false(wakeups_are_patient(&fixture.wakeups));
    /* The time of rest says nothing about the next round. */
    fixture.now_us += 1000000;
    wake_up(16, 20, 1);
    assert_false(fixture.patient);
    become_patient();
}

static void test_policy_that_may_not_be_changed_stays(void **state)
{
    (void)state;
    fixture.refuse = true;
    wake_up(100, 20, 1);
    fixture.refuse = false;
    wake_up(10000, 20, 1);
    assert_int_equal(fixture.changes, 0);
    assert_false(wakeups_are_patient(&fixture.wakeups));
}

/* In a thread of its own: who is no root cannot give SCHED_IDLE up again. */
static void *be_idle_and_try(void *patient)
{
    const struct sched_param none = {.sched_priority = 0};
    struct wakeups real;

    wakeups_init(&real);
    if (syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, &none) == 0)
        *(bool *)patient = real.set_patient(true) || syscall(SYS_sched_getscheduler, 0) != SCHED_IDLE;
    return NULL;
}

static void test_thread_that_was_given_a_policy_keeps_it(void **state)
{
    bool patient = true;
    struct wakeups real;
    pthread_t thread;

    (void)state;
    wakeups_init(&real);
    assert_true(real.set_patient(true));
    assert_int_equal(syscall(SYS_sched_getscheduler, 0), SCHED_BATCH);
    assert_true(real.set_patient(false));
    assert_int_equal(syscall(SYS_sched_getscheduler, 0), SCHED_OTHER);

    assert_int_equal(pthread_create(&thread, NULL, be_idle_and_try, &patient), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(patient);
}

#define WAKEUPS_TEST(name) cmocka_unit_test_setup(name, setup)

TEST_MAIN(WAKEUPS_TEST(test_thick_wakeups_with_little_work_make_it_try),
          WAKEUPS_TEST(test_rare_wakeups_are_served_eagerly),
          WAKEUPS_TEST(test_wakeups_without_work_of_the_guest_are_served_eagerly),
          WAKEUPS_TEST(test_it_stays_patient_while_a_wakeup_brings_more),
          WAKEUPS_TEST(test_it_is_eager_again_when_a_wakeup_brings_no_more),
          WAKEUPS_TEST(test_it_is_eager_again_at_the_first_sign_of_delay),
          WAKEUPS_TEST(test_it_is_eager_again_when_the_work_changes), WAKEUPS_TEST(test_trials_that_fail_become_rare),
          WAKEUPS_TEST(test_rest_makes_it_eager), WAKEUPS_TEST(test_policy_that_may_not_be_changed_stays),
          WAKEUPS_TEST(test_thread_that_was_given_a_policy_keeps_it))
