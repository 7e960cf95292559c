/* Connecting to a Unix stream socket that a process just started will listen on. */
#pragma once

#include <stdint.h>

#include "vmm/base/error.h"

/*
 * Connects to `path`, waiting until somebody listens there; no longer than until `deadline_us` (CLOCK_MONOTONIC) nor
 * than the process `process_fd` (a pidfd; -1: none) lives. The directory may be made meanwhile. Stores a blocking,
 * close-on-exec descriptor that the caller owns.
 */
struct error *socket_connect_when_ready(const char *path, int process_fd, uint64_t deadline_us, int *fd);
