#include "jailer/sanitize.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A closed 0, 1 or 2 would be taken by the next file opened, and a message written into it. */
static struct error *fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return error_errno(errno, "cannot open /dev/null as descriptor %d", fd);
    return NULL;
}

struct error *sanitize_process(void)
{
    sigset_t none;

    if (syscall(SYS_close_range, 3u, ~0u, 0u) < 0)
        return error_errno(errno, "cannot close inherited descriptors (close_range)");
    struct error *error = fill_standard_descriptors();
    if (error != NULL)
        return error;

    clearenv();
    umask(077);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Ignored signals stay ignored across exec; these two are the ones that callers commonly ignore. */
    signal(SIGPIPE, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    return NULL;
}
