#include "jailer/guardian.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    pthread_t thread;
    bool started;
    uint32_t wanted; /* futex: 1 when the undo is asked for, 2 when it is done */
    struct undo *undo;
} guardian;

static void wait_while(uint32_t value)
{
    while (__atomic_load_n(&guardian.wanted, __ATOMIC_ACQUIRE) == value)
        syscall(SYS_futex, &guardian.wanted, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void set(uint32_t value)
{
    __atomic_store_n(&guardian.wanted, value, __ATOMIC_RELEASE);
    syscall(SYS_futex, &guardian.wanted, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *guard(void *unused)
{
    (void)unused;
    wait_while(0);
    undo_run(guardian.undo);
    set(2);
    return NULL;
}

struct error *guardian_start(struct undo *undo)
{
    pthread_attr_t attributes;

    guardian.undo = undo;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    int code = pthread_create(&guardian.thread, &attributes, guard, NULL);
    pthread_attr_destroy(&attributes);
    if (code != 0)
        return error_errno(code, "cannot start the guardian thread");
    guardian.started = true;
    return NULL;
}

/* Futexes and memory only: by now a seccomp filter may hold the calling thread. */
void guardian_undo(struct undo *undo)
{
    if (!guardian.started) {
        undo_run(undo);
        return;
    }
    set(1);
    wait_while(1);
}
