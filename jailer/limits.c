#include "jailer/limits.h"

#include <errno.h>
#include <sys/resource.h>

static struct error *limit_set(int resource, const char *name, uint64_t value)
{
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};

    if (value != UINT64_MAX && setrlimit(resource, &limit) < 0)
        return error_errno(errno, "--resource-limit: cannot set %s=%llu", name, (unsigned long long)value);
    return NULL;
}

struct error *limits_apply(const struct jail_limits *limits)
{
    struct error *error = limit_set(RLIMIT_FSIZE, "fsize", limits->fsize);

    if (error == NULL)
        error = limit_set(RLIMIT_NOFILE, "no-file", limits->no_file);
    if (error == NULL)
        error = limit_set(RLIMIT_CORE, "core", 0);
    return error;
}
