#include "vmm/base/event_loop.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/wakeups.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BATCH = 16 };

struct event_loop {
    int epoll_fd;
    bool stopped;
    bool waiting;       /* the loop's thread is in epoll_wait, without the lock */
    uint64_t additions; /* of sources so far */
    uint64_t removals;
    struct event_source *sources;
    struct event_source wake; /* an eventfd: what another thread changed must not wait for the next event */
    pthread_mutex_t lock;
    pthread_mutex_t door; /* the loop's thread has it while it waits for the lock: then nobody gets in line behind it */
    bool door_is_closed;
    struct event_timer *timers; /* soonest first */
    uint64_t expired_until_us;  /* timers due up to here have run, or run now */
    struct event_task *tasks;   /* oldest first */
    struct wakeups wakeups;
    uint64_t work; /* requests served since the last wake-up */
    struct epoll_event batch[BATCH];
    int batch_count;
};

static void wake_ready(struct event_source *source, uint32_t events)
{
    uint64_t count;

    (void)events;
    if (read(source->fd, &count, sizeof(count)) < 0)
        return; /* EAGAIN: somebody was faster */
}

/* Ends the loop's wait when another thread, which holds the lock, changed what it waits for. */
static void wake(struct event_loop *loop)
{
    if (!loop->waiting)
        return;
    loop->waiting = false;
    if (eventfd_write(loop->wake.fd, 1) < 0)
        return; /* the counter is full: it is awake */
}

struct error *event_loop_new(struct event_loop **loop)
{
    struct event_loop *made = calloc(1, sizeof(*made));

    if (made == NULL)
        return error_errno(ENOMEM, "cannot make the event loop");
    wakeups_init(&made->wakeups);
    pthread_mutex_init(&made->lock, NULL);
    pthread_mutex_init(&made->door, NULL);
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    made->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    made->wake.ready = wake_ready;
    if (made->epoll_fd < 0 || made->wake.fd < 0) {
        struct error *error = error_errno(errno, "cannot make the event loop");

        event_loop_free(made);
        return error;
    }

    struct error *error = event_source_add(made, &made->wake, EPOLLIN);
    if (error != NULL) {
        event_loop_free(made);
        return error;
    }
    *loop = made;
    return NULL;
}

void event_loop_free(struct event_loop *loop)
{
    if (loop == NULL)
        return;
    fd_close(&loop->wake.fd);
    fd_close(&loop->epoll_fd);
    pthread_mutex_destroy(&loop->lock);
    pthread_mutex_destroy(&loop->door);
    free(loop);
}

/*
 * A mutex goes to whoever comes first when it is free, not to who waits for it: a vCPU that takes it for long, over and
 * over, would have it again before the loop's thread has woken up, each time.
 */
void event_loop_lock(struct event_loop *loop)
{
    if (__atomic_load_n(&loop->door_is_closed, __ATOMIC_RELAXED)) {
        pthread_mutex_lock(&loop->door);
        pthread_mutex_unlock(&loop->door);
    }
    pthread_mutex_lock(&loop->lock);
}

static void lock_before_others(struct event_loop *loop)
{
    if (pthread_mutex_trylock(&loop->lock) == 0)
        return;
    pthread_mutex_lock(&loop->door);
    __atomic_store_n(&loop->door_is_closed, true, __ATOMIC_RELAXED);
    pthread_mutex_lock(&loop->lock);
    __atomic_store_n(&loop->door_is_closed, false, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&loop->door);
}

void event_loop_unlock(struct event_loop *loop)
{
    pthread_mutex_unlock(&loop->lock);
}

void event_loop_count_work(struct event_loop *loop, unsigned requests)
{
    loop->work += requests;
}

void event_loop_stop(struct event_loop *loop)
{
    loop->stopped = true;
    wake(loop);
}

struct error *event_source_add(struct event_loop *loop, struct event_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0)
        return error_errno(errno, "cannot watch descriptor %d", source->fd);
    source->loop = loop;
    source->events = events;
    source->number = ++loop->additions;
    source->place = &loop->sources;
    source->next = loop->sources;
    if (source->next != NULL)
        source->next->place = &source->next;
    loop->sources = source;
    return NULL;
}

static void arm(const struct event_source *source)
{
    struct epoll_event event = {.events = source->events, .data.ptr = (void *)(uintptr_t)source};

    /* Fails only for a descriptor that is not registered, which `loop` rules out. */
    epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

void event_source_update(struct event_source *source, uint32_t events)
{
    if (source->loop == NULL || source->events == events)
        return;
    source->events = events;
    arm(source);
}

static void forget(struct event_source *source)
{
    struct event_loop *loop = source->loop;

    source->loop = NULL;
    *source->place = source->next;
    if (source->next != NULL)
        source->next->place = source->place;
    loop->removals++;
    for (int i = 0; i < loop->batch_count; i++)
        if (loop->batch[i].data.ptr == source)
            loop->batch[i].data.ptr = NULL;
}

void event_source_remove(struct event_source *source)
{
    if (source->loop == NULL)
        return;
    epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    forget(source);
}

void event_source_close(struct event_source *source)
{
    if (source->loop != NULL)
        forget(source);
    fd_close(&source->fd);
}

void event_timer_set(struct event_loop *loop, struct event_timer *timer, uint64_t deadline_us)
{
    struct event_timer **place = &loop->timers;

    event_timer_cancel(timer);
    /* A timer that sets itself to "at once" waits until descriptors have had their turn. */
    if (deadline_us <= loop->expired_until_us)
        deadline_us = loop->expired_until_us + 1;
    while (*place != NULL && (*place)->deadline_us <= deadline_us)
        place = &(*place)->next;
    timer->deadline_us = deadline_us;
    timer->loop = loop;
    timer->next = *place;
    *place = timer;
    if (loop->timers == timer)
        wake(loop);
}

void event_timer_cancel(struct event_timer *timer)
{
    if (timer->loop == NULL)
        return;
    for (struct event_timer **place = &timer->loop->timers; *place != NULL; place = &(*place)->next) {
        if (*place == timer) {
            *place = timer->next;
            break;
        }
    }
    timer->loop = NULL;
}

void event_loop_when_idle(struct event_loop *loop, struct event_task *task)
{
    struct event_task **place = &loop->tasks;

    if (task->queued)
        return;
    while (*place != NULL)
        place = &(*place)->next;
    task->next = NULL;
    task->queued = true;
    *place = task;
    wake(loop);
}

/* Milliseconds until the next thing that is not a descriptor: 0 for waiting tasks, -1 for nothing. */
static int wait_limit(const struct event_loop *loop)
{
    if (loop->tasks != NULL)
        return 0;

    int rest = wakeups_are_patient(&loop->wakeups) ? WAKEUPS_REST_MS : -1;
    if (loop->timers == NULL)
        return rest;

    uint64_t now = clock_monotonic_us();
    uint64_t deadline = loop->timers->deadline_us;
    if (deadline <= now)
        return 0;

    uint64_t wait = (deadline - now + 999) / 1000;
    if (rest >= 0 && wait > (uint64_t)rest)
        return rest;
    return wait > 60000 ? 60000 : (int)wait;
}

static void run_expired_timers(struct event_loop *loop)
{
    if (loop->timers == NULL)
        return;

    uint64_t now = clock_monotonic_us();
    loop->expired_until_us = now;
    while (loop->timers != NULL && loop->timers->deadline_us <= now) {
        struct event_timer *timer = loop->timers;

        loop->timers = timer->next;
        timer->loop = NULL;
        timer->expired(timer);
    }
}

static void run_one_task(struct event_loop *loop)
{
    struct event_task *task = loop->tasks;

    if (task == NULL)
        return;
    loop->tasks = task->next;
    task->queued = false;
    task->run(task);
}

/* Events were fetched that nobody got. What is level-triggered is told again by itself; an edge, when it is armed. */
static void tell_edges_again(struct event_loop *loop)
{
    for (struct event_source *source = loop->sources; source != NULL; source = source->next)
        if ((source->events & EPOLLET) != 0)
            arm(source);
}

/* The source that is at `place` now; NULL: none. */
static struct event_source *source_at(const struct event_loop *loop, const void *place)
{
    for (struct event_source *source = loop->sources; source != NULL; source = source->next)
        if (source == place)
            return source;
    return NULL;
}

/*
 * Forgets the events of sources that were removed or came since there had been so many additions: an event may be of
 * the one that was in the same place before. A source that came is told again, be it of nothing.
 */
static void forget_changed(struct event_loop *loop, uint64_t additions)
{
    for (int i = 0; i < loop->batch_count; i++) {
        const struct event_source *source = source_at(loop, loop->batch[i].data.ptr);

        if (source != NULL && source->number <= additions)
            continue;
        if (source != NULL)
            arm(source);
        loop->batch[i].data.ptr = NULL;
    }
}

static void run_ready_sources(struct event_loop *loop)
{
    int next = 0;

    while (next < loop->batch_count && !loop->stopped) {
        struct event_source *source = loop->batch[next].data.ptr;

        if (source != NULL)
            source->ready(source, loop->batch[next].events);
        next++;
    }
    if (next < loop->batch_count)
        tell_edges_again(loop);
    loop->batch_count = 0;
}

/*
 * Waits without the lock, so another thread may remove a source whose event is being fetched at that moment, and even
 * add one in its place.
 */
static struct error *fetch_events(struct event_loop *loop)
{
    int limit = wait_limit(loop);
    uint64_t removals = loop->removals, additions = loop->additions;

    loop->waiting = true;
    event_loop_unlock(loop);
    int count = epoll_wait(loop->epoll_fd, loop->batch, BATCH, limit);
    int code = errno;
    lock_before_others(loop);
    loop->waiting = false;

    if (count < 0 && code != EINTR)
        return error_errno(code, "cannot wait for events");
    loop->batch_count = count > 0 ? count : 0;
    if (loop->removals != removals)
        forget_changed(loop, additions);
    if (count == 0)
        run_one_task(loop);
    if (count == 0 && limit >= WAKEUPS_REST_MS && wakeups_are_patient(&loop->wakeups))
        wakeups_rest(&loop->wakeups);
    return NULL;
}

struct error *event_loop_run(struct event_loop *loop)
{
    struct error *error = NULL;

    lock_before_others(loop);
    while (error == NULL && !loop->stopped) {
        error = fetch_events(loop);

        bool woken = loop->batch_count > 0;
        run_ready_sources(loop);
        run_expired_timers(loop);
        if (woken)
            wakeups_count(&loop->wakeups, loop->work);
        loop->work = 0;
    }
    loop->stopped = false;
    event_loop_unlock(loop);
    return error;
}
