/* The binary that runs in the jail. */
#pragma once

#include "vmm/base/error.h"

/*
 * Opens `path` and checks that it can run in an empty root: a regular file or a link to one, executable, an ELF program
 * without an interpreter. *fd is close-on-exec; it is what execveat(2) runs, so the jail needs no copy.
 */
struct error *exec_file_open(const char *path, int *fd);
