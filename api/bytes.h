/* A row of bytes that grows at its end and is given back when it is empty: an idle connection holds none. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "vmm/base/error.h"

struct bytes {
    char *data; /* NUL after the last byte, when not NULL */
    size_t length;
    size_t capacity;
};

/* False without memory; then nothing has changed. */
bool bytes_append(struct bytes *bytes, const char *data, size_t length);

/* Drops the first `length` bytes; frees the memory when none is left. */
void bytes_drop(struct bytes *bytes, size_t length);

/* Appends what the file has; an error when `bytes` would then be longer than `limit`. Messages do not name the file. */
struct error *bytes_read_file(struct bytes *bytes, const char *path, size_t limit);

void bytes_free(struct bytes *bytes);
