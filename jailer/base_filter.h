/*
 * The outermost seccomp filter: what a VMM can ever need, plus execve for the one exec that follows. The VMM cannot
 * widen it, only narrow it. A violation traps (SIGSYS): the VMM then says which system call it was and dies.
 */
#pragma once

#include "vmm/base/error.h"

/* Loads the filter for the calling thread. Needs no_new_privs. */
struct error *base_filter_load(void);
