/* The binary that runs in the jail. */
#pragma once

#include "vmm/base/error.h"

/*
 * Opens `path` and checks that it can run in an empty root: a regular file or a link to one, executable, an ELF program
 * without an interpreter, that not everybody may write. *fd is close-on-exec; it is what execveat(2) runs, so the jail
 * needs no copy, and what becomes of the path later does not matter.
 *
 * Callers keep versions apart with links. One is followed when only root, the jailer's user and the file's owner could
 * have put it there or can change it: it belongs to one of them, and so does its folder, which not everybody may write
 * (or it is sticky). A chain of them is looked at link by link.
 */
struct error *exec_file_open(const char *path, int *fd);
