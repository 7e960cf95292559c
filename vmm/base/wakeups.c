#include "vmm/base/wakeups.h"

#include "vmm/base/clock.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ROUND = 16,           /* wake-ups after which to judge */
    TRIAL = 8,            /* of a trial */
    THICK_US = 200,       /* a wake-up that comes so soon after the last one, on average, is one of many */
    SLACK_US = 1000,      /* a trial may lose */
    PATIENT_US = 1000000, /* then look again what eagerness would bring */
    PAUSE_MIN_US = 10000,
    PAUSE_MAX_US = 10000000,
};

/* musl's own function refuses without asking the kernel. */
static bool set_patient(bool patient)
{
    const struct sched_param none = {.sched_priority = 0};

    if (patient && syscall(SYS_sched_getscheduler, 0) != SCHED_OTHER)
        return false;
    return syscall(SYS_sched_setscheduler, 0, patient ? SCHED_BATCH : SCHED_OTHER, &none) == 0;
}

void wakeups_init(struct wakeups *wakeups)
{
    *wakeups = (struct wakeups){
        .mode = WAKEUPS_EAGER, .pause_us = PAUSE_MIN_US, .set_patient = set_patient, .now_us = clock_monotonic_us};
}

bool wakeups_are_patient(const struct wakeups *wakeups)
{
    return wakeups->mode == WAKEUPS_TRIAL || wakeups->mode == WAKEUPS_PATIENT;
}

static void begin_round(struct wakeups *wakeups, enum wakeups_mode mode, uint64_t now_us)
{
    wakeups->mode = mode;
    wakeups->count = 0;
    wakeups->work = 0;
    wakeups->began_us = now_us;
}

static void be_eager(struct wakeups *wakeups, uint64_t now_us)
{
    begin_round(wakeups, wakeups->set_patient(false) ? WAKEUPS_EAGER : WAKEUPS_FIXED, now_us);
}

static void judge_eager(struct wakeups *wakeups, uint64_t now_us)
{
    uint64_t took_us = now_us - wakeups->began_us;
    bool thick = took_us < (uint64_t)ROUND * THICK_US;
    bool of_guest = wakeups->work >= ROUND / 4;

    wakeups->eager_work = wakeups->work;
    wakeups->eager_us = took_us;
    if (!thick || !of_guest || now_us < wakeups->not_before_us) {
        begin_round(wakeups, WAKEUPS_EAGER, now_us);
        return;
    }
    wakeups->patient_us = now_us;
    begin_round(wakeups, wakeups->set_patient(true) ? WAKEUPS_TRIAL : WAKEUPS_FIXED, now_us);
}

/*
 * Whether the work of this round took no longer than it would have, eagerly. Half as long again is noise, and so is
 * half a round: large requests come to their end together.
 */
static bool is_fast_enough(const struct wakeups *wakeups, uint64_t took_us)
{
    return took_us <=
           SLACK_US + wakeups->eager_us / 2 + wakeups->work * wakeups->eager_us * 3 / 2 / wakeups->eager_work;
}

/* Whether patience pays: a wake-up brings much more, or somewhat more and all goes faster. */
static bool pays(const struct wakeups *wakeups, uint64_t took_us)
{
    uint64_t eagerly_us = wakeups->work * wakeups->eager_us / wakeups->eager_work;
    uint64_t brought = wakeups->work * ROUND, eagerly = wakeups->eager_work * wakeups->count;

    return (brought >= 2 * eagerly && took_us <= eagerly_us * 11 / 10) ||
           (brought >= eagerly * 5 / 4 && took_us <= eagerly_us * 4 / 5);
}

static void judge_patient(struct wakeups *wakeups, uint64_t now_us)
{
    bool over = wakeups->count >= (wakeups->mode == WAKEUPS_TRIAL ? TRIAL : ROUND);
    uint64_t took_us = now_us - wakeups->began_us;

    if (!is_fast_enough(wakeups, took_us) || (over && !pays(wakeups, took_us))) {
        wakeups->not_before_us = now_us + wakeups->pause_us;
        wakeups->pause_us = wakeups->pause_us * 2 < PAUSE_MAX_US ? wakeups->pause_us * 2 : PAUSE_MAX_US;
        be_eager(wakeups, now_us);
    } else if (over && now_us - wakeups->patient_us > PATIENT_US) {
        be_eager(wakeups, now_us);
    } else if (over) {
        wakeups->pause_us = PAUSE_MIN_US;
        begin_round(wakeups, WAKEUPS_PATIENT, now_us);
    }
}

void wakeups_count(struct wakeups *wakeups, uint64_t work)
{
    if (wakeups->mode == WAKEUPS_FIXED)
        return;
    wakeups->count++;
    wakeups->work += work;
    if (wakeups_are_patient(wakeups))
        judge_patient(wakeups, wakeups->now_us());
    else if (wakeups->count >= ROUND)
        judge_eager(wakeups, wakeups->now_us());
}

void wakeups_rest(struct wakeups *wakeups)
{
    be_eager(wakeups, 0);
}
