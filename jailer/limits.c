#include "jailer/limits.h"

#include <errno.h>
#include <sys/resource.h>

/* glibc has an enum where POSIX has an int; clang minds the difference. */
#ifdef __GLIBC__
typedef __rlimit_resource_t resource_name;
#else
typedef int resource_name;
#endif

static struct error *limit_set(resource_name resource, const char *name, uint64_t value)
{
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};

    if (value != UINT64_MAX && setrlimit(resource, &limit) < 0)
        return error_errno(errno, "--resource-limit: cannot set %s=%llu", name, (unsigned long long)value);
    return NULL;
}

struct error *limits_apply(const struct jail_config *config)
{
    struct jail_limits limits = config->limits;
    struct rlimit files;

    if (config->mode != JAIL_ROOT && limits.no_file == JAIL_NO_FILE_DEFAULT) {
        if (getrlimit(RLIMIT_NOFILE, &files) < 0)
            return error_errno(errno, "cannot look at the limit no-file");
        if (files.rlim_max < limits.no_file)
            limits.no_file = files.rlim_max;
    }

    struct error *error = limit_set(RLIMIT_FSIZE, "fsize", limits.fsize);

    if (error == NULL)
        error = limit_set(RLIMIT_NOFILE, "no-file", limits.no_file);
    if (error == NULL)
        error = limit_set(RLIMIT_NPROC, "processes", limits.processes);
    if (error == NULL)
        error = limit_set(RLIMIT_CORE, "core", 0);
    return error;
}
