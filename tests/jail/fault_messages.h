/* What the jailer must say when one of its system calls fails with EIO. */
#pragma once

#include <stdbool.h>

/*
 * Whether the last line of `errors`, its stderr, names the step that the call of this number is part of, and the
 * reason. A call that is in no step is an error, too: the table is complete. `reduced`: a reduced jail was to be built.
 */
bool fault_is_told(long number, const char *errors, bool reduced);
