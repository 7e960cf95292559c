/* What this process does to itself before it does anything else. */
#pragma once

#include "vmm/base/error.h"

/*
 * Makes sure that descriptors 0 to 2 are open, so that no file of ours takes their place, and that no other process
 * of this user may read our memory or attach to us.
 */
struct error *process_harden(void);
