/* Landlock: a second wall behind pivot_root, where the kernel has it (landlock(7)). */
#pragma once

#include "vmm/base/error.h"

/*
 * Restricts the calling thread: within the jail's root, files, folders, sockets and FIFOs; nothing executed but
 * `exec_fd`; no device nodes made; no TCP; no abstract sockets and no signals to processes outside. Needs no_new_privs,
 * and the root already changed. Without Landlock in the kernel: does nothing.
 */
struct error *landlock_apply(int exec_fd);
