/*
 * The files that are mapped into guest memory. When one is truncated, a touch beyond its new end is SIGBUS in this
 * process or EFAULT from KVM_RUN; this says which file it was. State of the signal handlers, hence global.
 */
#pragma once

#include <stdint.h>

/* Remembers `fd` (borrowed; its present size counts) and `path` (borrowed) until mapped_file_forget(fd). */
void mapped_file_add(int fd, const char *path);
/* Nothing when it was never added. */
void mapped_file_forget(int fd);

/* The path of a file that is shorter than when it was added, or NULL. Safe in a signal handler. */
const char *mapped_file_truncated(void);
