/*
 * A VMM (mayfly-vmm or a firecracker: their command lines and APIs are the same) that is measured. What goes wrong ends
 * the process, with a word on stderr.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "api/client/client.h"
#include "vmm/base/error.h"

struct vmm {
    char socket[128];
    pid_t pid;
    int process_fd;
    int serial; /* the VMM's stdout */
    struct api_client *api;
    uint64_t spawned_us; /* by CLOCK_MONOTONIC, just before posix_spawn */
};

/* When there is a jailer, VMMs are started by it, with one cgroup, in a base folder that the caller empties. */
struct jail {
    const char *jailer;
    const char *vmm;
    const char *base;
    const char *cgroup_version;
};
extern struct jail jail;

struct dirty {
    unsigned guest_kib;
    unsigned outside_kib;
};

/* Says `error`, or errno when there is none, and ends the process. */
_Noreturn void die(const char *what, struct error *error);

/* Starts the VMM at `path`, which may carry options of its own, and connects to its API. */
void vmm_spawn(struct vmm *vmm, const char *path, unsigned number);
void vmm_end(struct vmm *vmm);

void vmm_request(struct vmm *vmm, const char *method, const char *path, const char *body);

/* Wait until `text`, or anything, has come on the serial port. */
void vmm_await_text(struct vmm *vmm, const char *text);
void vmm_await_byte(struct vmm *vmm);

double vmm_cpu_us(const struct vmm *vmm);

/* `guest_size` in bytes; 0: there is no guest yet. */
struct dirty vmm_private_dirty(const struct vmm *vmm, unsigned long guest_size);
