/* Files and FIFOs that the VMM writes for its caller: log, metrics, serial output. */
#pragma once

#include "vmm/base/error.h"

/*
 * Opens `path` for appending, non-blocking, made with mode 0600 if it does not exist. A FIFO opens without a reader
 * and keeps what its pipe holds until one comes. `field` is the API field that the error names.
 */
struct error *output_open(const char *field, const char *path, int *fd);
/* The same, but what does not exist is an error. */
struct error *output_open_existing(const char *field, const char *path, int *fd);
