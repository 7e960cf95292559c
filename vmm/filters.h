/*
 * The seccomp filters of this process's threads. vmm.rules says what each allows; the build compiles them into the
 * binary. --seccomp-filter puts the caller's in their place. A thread narrows itself and never widens: the filters of
 * the jailer, of main's start and of its own all hold.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/error.h"
#include "vmm/base/seccomp.h"

enum filter_role {
    FILTER_MAIN_START, /* the whole process, before it reads a byte: configuring and preparing */
    FILTER_MAIN_RUN,   /* the main thread, before the guest's first instruction */
    FILTER_VCPU,       /* a vCPU's thread, before it parks */
};

struct filters {
    struct seccomp_blob blob; /* data NULL: none */
};

/*
 * The filters to use: the VMM's own, or with `path` those of that file, or with `none` none. The file is checked whole
 * and must have a filter for every role. Its memory is never given back: threads load from it until the process ends.
 */
struct error *filters_choose(bool none, const char *path, struct filters *filters);

/*
 * Narrows the calling thread, and what it starts from then on. Does nothing when there are no filters, or `filters` is
 * NULL. Needs no_new_privs.
 */
struct error *filters_load(const struct filters *filters, enum filter_role role);

/*
 * Whether this build can run under its filters: they are made for the system calls of musl, and the run times of the
 * sanitizers make others. Without, filters_choose still checks a file, and filters_load does nothing.
 */
bool filters_supported(void);
