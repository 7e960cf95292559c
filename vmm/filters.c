#include "vmm/filters.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/embed.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* More than the three largest filters that the kernel takes. */
enum { FILE_SIZE_MAX = 1 << 18 };

/* Compiled from vmm.rules by the build. */
EMBED_FILE(own_filters, VMM_FILTERS_PATH);

static const char role_names[][SECCOMP_NAME_SIZE] = {
    [FILTER_MAIN_START] = "main_start",
    [FILTER_MAIN_RUN] = "main_run",
    [FILTER_VCPU] = "vcpu",
};

bool filters_supported(void)
{
#ifdef __GLIBC__
    return false;
#else
    return true;
#endif
}

/* *data is malloc'ed. */
static struct error *read_whole(const char *path, uint8_t **data, size_t *size)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;

    if (fd < 0)
        return error_errno(errno, "cannot open '%s'", path);
    if (fstat(fd, &status) < 0)
        return error_errno(errno, "cannot examine '%s'", path);
    if (!S_ISREG(status.st_mode))
        return error_new(ERROR_INPUT, "'%s' is not a regular file", path);
    if (status.st_size > FILE_SIZE_MAX)
        return error_new(ERROR_INPUT, "'%s' has %lld bytes, expected at most %d", path, (long long)status.st_size,
                         FILE_SIZE_MAX);

    *data = malloc((size_t)status.st_size + 1);
    ssize_t got = *data == NULL ? -1 : read(fd, *data, (size_t)status.st_size);
    if (got < 0)
        return error_errno(errno, "cannot read '%s'", path);
    *size = (size_t)got;
    return NULL;
}

static struct error *check_roles(const struct seccomp_blob *blob, const char *path)
{
    for (size_t role = 0; role < array_length(role_names); role++)
        if (!seccomp_file_has(blob, role_names[role]))
            return error_new(ERROR_INPUT, "'%s' has no filter \"%s\", expected main_start, main_run and vcpu", path,
                             role_names[role]);
    return NULL;
}

/* *data, malloc'ed, is what blob->data points to. */
static struct error *read_filters(const char *path, uint8_t **data, struct seccomp_blob *blob)
{
    struct error *error = read_whole(path, data, &blob->size);

    blob->data = *data;
    if (error == NULL)
        error = seccomp_file_check(blob, path);
    if (error == NULL)
        error = check_roles(blob, path);
    return error == NULL ? NULL : error_wrap(error, "--seccomp-filter");
}

struct error *filters_choose(bool none, const char *path, struct filters *filters)
{
    struct seccomp_blob blob = {own_filters, (size_t)(own_filters_end - own_filters)};
    cleanup_free uint8_t *data = NULL;
    struct error *error = NULL;

    *filters = (struct filters){0};
    if (none)
        return NULL;
    if (path != NULL)
        error = read_filters(path, &data, &blob);
    if (error != NULL || !filters_supported())
        return error;
    filters->blob = blob;
    take_pointer(&data);
    return NULL;
}

struct error *filters_load(const struct filters *filters, enum filter_role role)
{
    if (filters == NULL || filters->blob.data == NULL)
        return NULL;
    return seccomp_file_load(&filters->blob, role_names[role]);
}
