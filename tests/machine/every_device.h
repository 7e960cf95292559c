/* A machine that has every kind of device which needs no other process. */
#pragma once

#include "tests/machine/machine.h"

/* Moves the test into a network namespace with a tap device; false where that is not allowed. */
bool every_device_tap(void);

/* Puts them all: two drives (one by io_uring), pmem, vsock, balloon, entropy, console, memory that comes and goes; and
 * with the tap a network interface and the metadata service. With rate limiters where there are any. */
void every_device_put(struct vm *vm, bool with_tap);
