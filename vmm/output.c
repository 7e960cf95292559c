#include "vmm/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>

static struct error *open_with(const char *field, const char *path, int more, int *fd)
{
    int flags = more | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

    /* Read and write: a FIFO opened so has a reader, us, so neither this call fails nor does a write raise SIGPIPE. */
    int opened = open(path, flags | O_RDWR, 0600);
    if (opened < 0 && errno == EACCES)
        opened = open(path, flags | O_WRONLY, 0600);
    if (opened < 0)
        return error_errno(errno, "%s: cannot open '%s' for writing", field, path);
    *fd = opened;
    return NULL;
}

struct error *output_open(const char *field, const char *path, int *fd)
{
    return open_with(field, path, O_CREAT, fd);
}

struct error *output_open_existing(const char *field, const char *path, int *fd)
{
    struct error *error = open_with(field, path, 0, fd);

    if (error == NULL || error->code != ENOENT)
        return error;
    error_free(error);
    return error_errno(ENOENT, "%s: there is no '%s', and a microVM that has started makes no files", field, path);
}
