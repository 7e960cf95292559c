#include "vmm/mapped_file.h"

#include "vmm/base/cleanup.h"
#include "vmm/config.h"

#include <stddef.h>
#include <sys/stat.h>

/* Kernel, initrd, and a file for each device that has one. */
enum { MAPPED_FILES_MAX = 2 + VIRTIO_DEVICES_MAX };

/* Any thread reads them, at any moment: an entry counts from when its place is taken, which comes last. */
static struct {
    int taken; /* fd + 1; 0: free */
    off_t size;
    const char *path;
} files[MAPPED_FILES_MAX];

void mapped_file_add(int fd, const char *path)
{
    struct stat status;
    size_t i = 0;

    while (i < MAPPED_FILES_MAX && files[i].taken != 0)
        i++;
    if (i == MAPPED_FILES_MAX || fstat(fd, &status) < 0)
        return;
    files[i].size = status.st_size;
    files[i].path = path;
    __atomic_store_n(&files[i].taken, fd + 1, __ATOMIC_RELEASE);
}

void mapped_file_forget(int fd)
{
    for (size_t i = 0; i < array_length(files); i++)
        if (fd >= 0 && files[i].taken == fd + 1)
            __atomic_store_n(&files[i].taken, 0, __ATOMIC_RELEASE);
}

const char *mapped_file_truncated(void)
{
    struct stat status;

    for (size_t i = 0; i < array_length(files); i++) {
        int taken = __atomic_load_n(&files[i].taken, __ATOMIC_ACQUIRE);

        if (taken != 0 && fstat(taken - 1, &status) == 0 && status.st_size < files[i].size)
            return files[i].path;
    }
    return NULL;
}
