/*
 * The private folder of an unjailed `mayfly run`: while that lives it holds a lock on the folder, so whoever gets the
 * lock has found one that nobody will remove.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "vmm/base/error.h"

/* Makes one in `place`, mode 0700; stores its path and a descriptor that holds the lock until it is closed. */
struct error *run_leftover_make(const char *place, char *path, size_t size, int *fd);

/* The same in the first of $XDG_RUNTIME_DIR, $TMPDIR and /tmp that takes it: a Unix socket's path has 107 bytes, and a
 * long TMPDIR does not serve. `path` is empty after an error. */
struct error *run_leftover_make_somewhere(char *path, size_t size, int *fd);

/* Removes the folder and the sockets in it. */
void run_leftover_clear(const char *path);

/* Removes it when it is one of ours and dead; returns whether it was. */
bool run_leftover_remove(int parent, const char *name, bool dry_run);
