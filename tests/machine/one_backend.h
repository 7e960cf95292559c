/* The one back end that a test has at a time: the next takes the place of the one before, and none outlives the test.
 */
#pragma once

#include "tests/machine/fake_backend.h"
#include "tests/machine/machine.h"

/* Of the VM's file "disk", if it is a disk; listens at the VM's "b.sock". */
void one_backend_start(struct vm *vm, enum backend_device device, enum backend_behaviour behaviour);
/* Kills it, if there is one. */
void one_backend_end(void);
void one_backend_announce(void);
/* Waits until it has died by itself, while the VMM serves requests. */
void one_backend_await_death(struct vm *vm);

int one_backend_teardown(void **state);
#define one_backend_test(function) cmocka_unit_test_teardown(function, one_backend_teardown)
