#include "tests/unit/harness.h"

#include "tests/unit/settle.h"

/* A timer that is due runs after the idle task, and may make something ready: look a few times. */
enum { ROUNDS = 4 };

struct settling {
    struct event_task idle;
    struct event_loop *loop;
    unsigned rounds;
};

static void idle_run(struct event_task *task)
{
    struct settling *settling = container_of(task, struct settling, idle);

    if (++settling->rounds < ROUNDS)
        event_loop_when_idle(settling->loop, task);
}

static bool has_settled(void *argument)
{
    return ((const struct settling *)argument)->rounds == ROUNDS;
}

void guest_driver_settle(struct guest_driver *driver)
{
    struct settling settling = {.idle.run = idle_run, .loop = driver->loop};

    event_loop_when_idle(driver->loop, &settling.idle);
    guest_driver_run_until(driver, has_settled, &settling);
}
