/* Landlock: a second wall behind pivot_root, where the kernel has it (landlock(7)). */
#pragma once

#include <stdbool.h>

#include "vmm/base/error.h"

/*
 * Restricts the calling thread: within the working directory, which is the jail's root, files, folders, sockets and
 * FIFOs; nothing executed but `exec_fd`; no device nodes made; no TCP; no abstract sockets and no signals to processes
 * outside. Needs no_new_privs, and the root already changed; where it could not be, `nodes` (NULL ends them) are the
 * device nodes outside of it that may be opened. Without Landlock in the kernel does nothing, and *applied is false.
 */
struct error *landlock_apply(int exec_fd, const char *const *nodes, bool *applied);
