#include "vmm/backend/shared_file.h"

#include "vmm/base/checked.h"
#include "vmm/mapped_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Address space of `size` bytes from a multiple of the alignment; NULL when there is none. */
static uint8_t *reserve(uint64_t size)
{
    uint64_t room = size + SHARED_FILE_ALIGNMENT;
    uint8_t *found = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (found == MAP_FAILED)
        return NULL;

    uint64_t before = align_up((uintptr_t)found, SHARED_FILE_ALIGNMENT) - (uintptr_t)found;
    if (before > 0)
        munmap(found, before);
    munmap(found + before + size, SHARED_FILE_ALIGNMENT - before);
    return found + before;
}

static struct error *map(struct shared_file *file)
{
    int protection = file->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    uint64_t size;

    /* A file of nearly 2^63 bytes is possible (sparse), a mapping of one is not. */
    if (!checked_add(file->file.size, 2 * SHARED_FILE_ALIGNMENT, &size))
        return error_errno(EFBIG, "cannot map \"%s\"", file->path);
    size = align_up(file->file.size, SHARED_FILE_ALIGNMENT);

    file->hva = reserve(size);
    if (file->hva == NULL)
        return error_errno(errno, "cannot map \"%s\"", file->path);
    file->size = size;
    /* Beneath the file's last, partial huge page. */
    if (mmap(file->hva, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
            MAP_FAILED ||
        mmap(file->hva, file->file.size, protection, MAP_SHARED | MAP_FIXED, file->file.fd, 0) == MAP_FAILED)
        return error_errno(errno, "cannot map \"%s\"", file->path);
    /* Advice only: without it a core dump of this process has the file in it. */
    madvise(file->hva, size, MADV_DONTDUMP);
    return NULL;
}

static struct error *check(const struct shared_file *file)
{
    if (file->file.block_device)
        return error_new(ERROR_INPUT, "\"%s\" is a block device, expected a regular file", file->path);
    if (file->file.size == 0)
        return error_new(ERROR_INPUT, "\"%s\" is empty, expected a file of at least one byte", file->path);
    return NULL;
}

struct error *shared_file_open(const char *path, bool read_only, struct shared_file *file)
{
    struct shared_file opened = {.file.fd = -1, .read_only = read_only, .path = strdup(path)};
    struct error *error = opened.path == NULL ? error_errno(ENOMEM, "cannot open \"%s\"", path) : NULL;

    if (error == NULL)
        error = disk_file_open(path, read_only, false, &opened.file);
    if (error == NULL)
        error = check(&opened);
    if (error == NULL)
        error = map(&opened);
    if (error != NULL) {
        shared_file_close(&opened);
        return error;
    }
    mapped_file_add(opened.file.fd, opened.path);
    *file = opened;
    return NULL;
}

void shared_file_close(struct shared_file *file)
{
    mapped_file_forget(file->file.fd);
    if (file->hva != NULL)
        munmap(file->hva, file->size);
    disk_file_close(&file->file);
    free(file->path);
    *file = (struct shared_file){.file.fd = -1};
}
