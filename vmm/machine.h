/* Making and ending a machine. What can be asked of one is in control.h. */
#pragma once

#include <stdbool.h>

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/control.h"
#include "vmm/filters.h"

struct machine_options {
    const char *id;                /* borrowed */
    size_t mmds_size_limit;        /* of the metadata as JSON, in bytes */
    bool boot_timer;               /* a boot timer at ARCH_BOOT_TIMER_GPA */
    bool no_kernel_sharing;        /* read kernel and initrd, never map them */
    const struct filters *filters; /* what its threads narrow themselves to, borrowed; NULL: none */
    void (*exit)(int code);        /* how the process ends; NULL: _exit */
};

/* An unconfigured machine. Opens nothing: KVM is first touched when it prepares to start, after the first put. */
struct error *machine_new(struct event_loop *loop, const struct machine_options *options, struct machine **machine);

/* Stops the vCPUs and gives everything back. Not with the loop's lock held. For tests: a process just leaves. */
void machine_free(struct machine *machine);

/*
 * Ends the process with `exit_code`: the rest of the serial output, the terminal, a last line of metrics and of log;
 * the VM is left to the kernel, which tears it down when nobody waits any more. With the loop's lock held. Returns
 * only when options.exit does.
 */
void machine_leave(struct machine *machine, int exit_code, const char *reason);
