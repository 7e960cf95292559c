#include "vmm/mapped_file.h"

#include <stddef.h>
#include <sys/stat.h>

enum { MAPPED_FILES_MAX = 2 }; /* kernel and initrd */

static struct {
    int fd;
    off_t size;
    const char *path;
} files[MAPPED_FILES_MAX];

static size_t file_count;

void mapped_file_add(int fd, const char *path)
{
    struct stat status;

    if (file_count == MAPPED_FILES_MAX || fstat(fd, &status) < 0)
        return;
    files[file_count].fd = fd;
    files[file_count].size = status.st_size;
    files[file_count].path = path;
    __atomic_store_n(&file_count, file_count + 1, __ATOMIC_RELEASE);
}

void mapped_files_forget(void)
{
    __atomic_store_n(&file_count, 0, __ATOMIC_RELEASE);
}

const char *mapped_file_truncated(void)
{
    size_t count = __atomic_load_n(&file_count, __ATOMIC_ACQUIRE);
    struct stat status;

    for (size_t i = 0; i < count; i++)
        if (fstat(files[i].fd, &status) == 0 && status.st_size < files[i].size)
            return files[i].path;
    return NULL;
}
