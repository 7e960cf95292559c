#include "vmm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>

/* The leak checker and the race detector attach to their own process. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool is_sanitized = true;
#else
static const bool is_sanitized = false;
#endif

static struct error *open_standard_descriptors(void)
{
    struct pollfd standard[] = {{.fd = 0}, {.fd = 1}, {.fd = 2}};

    if (poll(standard, 3, 0) < 0)
        return error_errno(errno, "cannot examine the standard descriptors");
    /* open takes the lowest free number: ascending, that is the missing one. */
    for (int i = 0; i < 3; i++)
        if ((standard[i].revents & POLLNVAL) && open("/dev/null", O_RDWR) < 0)
            return error_errno(errno, "cannot open /dev/null in place of closed descriptor %d", i);
    return NULL;
}

/* exec took the name of the file, or, started by descriptor as in a jail, the descriptor's number. */
static void set_name(const char *called)
{
    const char *slash = called == NULL ? NULL : strrchr(called, '/');

    if (called != NULL)
        prctl(PR_SET_NAME, slash == NULL ? called : slash + 1);
}

struct error *process_harden(const char *called)
{
    if (!is_sanitized && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return error_errno(errno, "cannot make the process undumpable");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(errno, "cannot give up gaining privileges");
    set_name(called);
    return open_standard_descriptors();
}
