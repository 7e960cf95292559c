#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/cli/run_jail_defaults.h"

enum { BASE_MAX = 60 }; /* a Unix socket's path begins with it */

const char *run_jail_base(void)
{
    static char base[BASE_MAX];
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0)
        return "/run/mayfly";
    /* Somebody else's folder of that name is refused by the jailer. */
    if (runtime == NULL || runtime[0] != '/' || snprintf(base, sizeof(base), "%s/mayfly", runtime) >= (int)sizeof(base))
        snprintf(base, sizeof(base), "/tmp/mayfly-%u", geteuid());
    return base;
}
