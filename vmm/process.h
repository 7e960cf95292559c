/* What this process does to itself before it does anything else. */
#pragma once

#include "vmm/base/error.h"

/*
 * Makes sure that no other process of this user may read our memory or attach to us, that this one gains no privileges
 * (which seccomp filters ask for, too), and that descriptors 0 to 2 are open, so that no file of ours takes their
 * place. In /proc, and hence in ps and pgrep, the process has the name that it was called by: `called`, the first of
 * its arguments, or NULL.
 */
struct error *process_harden(const char *called);
