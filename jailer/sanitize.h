/* What the jailer inherited and the VMM must not: descriptors, environment, signal state. Comes before all else. */
#pragma once

#include "vmm/base/error.h"

/* Closes every descriptor from 3 on (close_range(2)), makes 0 to 2 exist, empties the environment, resets umask,
 * signal mask and dispositions. */
struct error *sanitize_process(void);
