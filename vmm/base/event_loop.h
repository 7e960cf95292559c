/*
 * One event loop: descriptors that become ready, timers, and work for idle moments. Level-triggered epoll, but for
 * sources that ask for EPOLLET: those may be told once too often, never too seldom.
 *
 * Handlers run one at a time on the thread that called event_loop_run, with the loop's lock held. A vCPU thread that
 * must touch a device (an MMIO or port exit) takes the same lock: that is the only locking scheme that devices have.
 * All functions but event_loop_lock/unlock are called on the loop's thread or with the lock held. Adding and removing
 * is safe inside any handler, for any source; a removed source gets no more calls, not even for an event already
 * fetched.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "vmm/base/error.h"

struct event_loop;

/* A descriptor to watch. The owner fills fd and ready, and keeps the struct in place while it is added. */
struct event_source {
    int fd; /* borrowed: the owner closes it, after event_source_remove */
    void (*ready)(struct event_source *source, uint32_t events);
    struct event_loop *loop; /* set by event_source_add, NULL when not added */
    uint32_t events;         /* EPOLLIN etc. as armed now */
    /* All sources of the loop. */
    struct event_source *next;
    struct event_source **place;
    uint64_t number; /* of the addition: no other one has the same */
};

/* A one-shot timer. */
struct event_timer {
    void (*expired)(struct event_timer *timer);
    uint64_t deadline_us; /* CLOCK_MONOTONIC */
    struct event_timer *next;
    struct event_loop *loop; /* NULL when not set */
};

/* Work to do once, when nothing else is ready. */
struct event_task {
    void (*run)(struct event_task *task);
    struct event_task *next;
    bool queued;
};

/* Makes a loop. The caller frees it with event_loop_free after the last source is gone. */
struct error *event_loop_new(struct event_loop **loop);
void event_loop_free(struct event_loop *loop);

/* Serves events until event_loop_stop; can be run again. Returns an error only when epoll itself fails. */
struct error *event_loop_run(struct event_loop *loop);
void event_loop_stop(struct event_loop *loop);

/* The loop's own thread, when it waits for the lock, has it before any other that begins to. */
void event_loop_lock(struct event_loop *loop);
void event_loop_unlock(struct event_loop *loop);

/* Tells that `requests` of the guest were served, by which the loop judges how to wake up (wakeups.h). */
void event_loop_count_work(struct event_loop *loop, unsigned requests);

struct error *event_source_add(struct event_loop *loop, struct event_source *source, uint32_t events);
/* Changes what an added source waits for; 0 keeps it added but silent (EPOLLERR and EPOLLHUP still come). */
void event_source_update(struct event_source *source, uint32_t events);
void event_source_remove(struct event_source *source); /* fine when not added */
/*
 * Removes `source`, if it was added, and closes its descriptor, which becomes -1. Nobody may have another descriptor of
 * the same open file: the kernel watches that, until its last one is closed (epoll(7)).
 */
void event_source_close(struct event_source *source);

/* (Re)sets `timer`; a deadline that has passed fires on the loop's next turn. Precision: a millisecond, never early. */
void event_timer_set(struct event_loop *loop, struct event_timer *timer, uint64_t deadline_us);
void event_timer_cancel(struct event_timer *timer); /* fine when not set */

/* Runs `task` once when no source is ready; queueing a queued task does nothing. */
void event_loop_when_idle(struct event_loop *loop, struct event_task *task);
