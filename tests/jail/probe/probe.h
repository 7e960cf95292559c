/*
 * The commands of the probe. An attempt's exit code is the errno that stopped it, 0 when nothing did; SIGSYS kills it
 * when a seccomp filter did.
 */
#pragma once

#include <errno.h>
#include <stddef.h>

struct command {
    const char *name; /* NULL ends a table */
    int (*run)(void);
};

extern const struct command attempts_on_files[];
extern const struct command attempts_on_processes[];
extern const struct command attempts_on_the_network[];
extern const struct command attempts_by_ring[];
extern const struct command attempts_on_rights[];
extern const struct command attempts_on_the_kernel[];

/* The errno of a result. */
static inline int stopped(long result)
{
    return result < 0 ? errno : 0;
}

/* glibc has an enum where POSIX has an int; clang minds the difference. */
#ifdef __GLIBC__
#define RESOURCE(number) ((__rlimit_resource_t)(number))
#else
#define RESOURCE(number) (number)
#endif
