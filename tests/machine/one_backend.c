#include "tests/machine/one_backend.h"

#include <stdlib.h>

static pid_t running;

void one_backend_start(struct vm *vm, enum backend_device device, enum backend_behaviour behaviour)
{
    one_backend_end();
    running =
        backend_start_as(device, vm_path(vm, "b.sock"), device == BACKEND_DISK ? vm_path(vm, "disk") : NULL, behaviour);
}

void one_backend_end(void)
{
    if (running > 0)
        backend_end(running);
    running = 0;
}

void one_backend_announce(void)
{
    backend_announce(running);
}

void one_backend_await_death(struct vm *vm)
{
    while (!backend_has_died(running))
        free(vm_get(vm, "/version"));
    running = 0;
}

int one_backend_teardown(void **state)
{
    one_backend_end();
    return machine_teardown(state);
}
