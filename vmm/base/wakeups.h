/*
 * How the event loop's thread gets a processor when it wakes up: eagerly, from whoever runs there (SCHED_OTHER), or
 * when that one sleeps or has had its time (SCHED_BATCH; sched(7)).
 *
 * Where the thread shares its processor with a vCPU, eagerness interrupts the guest at the first of many notifications:
 * each request costs an exit, two context switches and an interrupt. Let the guest run on, and it brings all of them
 * before the loop looks. But a guest that has something else to do delays its request by doing it, and so does another
 * tenant. So the loop tries, now and then, when wake-ups come thick and each brings little: it stays patient as long as
 * a wake-up brings more and the work is not done slower. A thread that somebody gave another policy keeps that.
 *
 * All functions are called on the loop's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum wakeups_mode {
    WAKEUPS_EAGER,
    WAKEUPS_TRIAL, /* patient, for a few wake-ups */
    WAKEUPS_PATIENT,
    WAKEUPS_FIXED, /* the policy is not ours to change */
};

struct wakeups {
    enum wakeups_mode mode;
    unsigned count;                    /* wake-ups of this round */
    uint64_t work;                     /* requests they brought */
    uint64_t began_us;                 /* the round, CLOCK_MONOTONIC; 0: with the next wake-up */
    uint64_t eager_work;               /* of the last eager round */
    uint64_t eager_us;                 /* what that took */
    uint64_t patient_us;               /* since when it is patient */
    uint64_t not_before_us;            /* the next trial */
    uint64_t pause_us;                 /* between trials; grows with each that fails */
    bool (*set_patient)(bool patient); /* false: refused; a test has its own, as it has a clock */
    uint64_t (*now_us)(void);
};

/* Begins, eager. The policy is looked at no earlier than it is to be changed. */
void wakeups_init(struct wakeups *wakeups);

/* The thread woke up and served `work` requests. */
void wakeups_count(struct wakeups *wakeups, uint64_t work);

/* Whether the thread is patient now; then it sleeps no longer than WAKEUPS_REST_MS before it calls wakeups_rest. */
bool wakeups_are_patient(const struct wakeups *wakeups);
enum { WAKEUPS_REST_MS = 20 };

/* Nothing woke the thread up for a while: what comes next is served at once. */
void wakeups_rest(struct wakeups *wakeups);
