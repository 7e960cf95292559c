/* The host's pool of huge pages of 2 MiB: a test that needs some makes them, and gives them back. */
#pragma once

#include "tests/machine/machine.h"

#define huge_pages_test(function) cmocka_unit_test_setup_teardown(function, huge_pages_setup, huge_pages_teardown)
int huge_pages_setup(void **state);
int huge_pages_teardown(void **state); /* machine_teardown, too */

/* Makes exactly `pages` huge pages free, or skips the test. */
void huge_pages_reserve(unsigned long pages);
/* Those that nobody uses; those that nobody has reserved either. */
unsigned long huge_pages_free(void);
unsigned long huge_pages_left(void);
