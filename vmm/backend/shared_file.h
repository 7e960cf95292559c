/*
 * A regular file mapped shared: the same pages of the page cache for everyone who maps it. The mapping starts on a huge
 * page's boundary and is a multiple of one long; what the file lacks to that is private memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/backend/file.h"
#include "vmm/base/error.h"

#define SHARED_FILE_ALIGNMENT (2ull << 20)

struct shared_file {
    struct disk_file file;
    bool read_only;
    uint8_t *hva; /* NULL: not mapped */
    uint64_t size;
    char *path;
};

/*
 * Opens and maps `path`. Should the file be truncated later, it is the one that mapped_file_truncated tells. Errors
 * name the path.
 */
struct error *shared_file_open(const char *path, bool read_only, struct shared_file *file);
void shared_file_close(struct shared_file *file);
