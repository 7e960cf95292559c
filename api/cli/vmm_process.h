/* The mayfly-vmm process that belongs to one `mayfly run`, and the private directory with its sockets. */
#pragma once

#include <sys/types.h>

#include "vmm/base/error.h"

enum { VMM_DIRECTORY_SIZE = 64 };

struct vmm_process {
    char directory[VMM_DIRECTORY_SIZE]; /* mode 0700; "" when there is none */
    pid_t pid;                          /* 0: none */
    int process_fd;                     /* pidfd */
    int serial_fd;                      /* what the guest writes to its serial port; non-blocking */
    const char *vsock_path;             /* a socket that the VMM made elsewhere; borrowed; NULL: none */
    int log_fd;                         /* the VMM's stderr; non-blocking */
};

/* A state that vmm_process_end accepts. */
void vmm_process_init(struct vmm_process *process);

/*
 * Makes the directory and starts `path` in it, serving its API on "api" there. The process is in a session of its own
 * (a Ctrl-C is ours to pass on), has no descriptor but its three, and dies with us.
 */
struct error *vmm_process_start(struct vmm_process *process, const char *path);

/* The path of `name` in the directory. */
enum { VMM_PATH_SIZE = VMM_DIRECTORY_SIZE + 32 };
void vmm_process_path(const struct vmm_process *process, const char *name, char path[VMM_PATH_SIZE]);

/*
 * Kills the process and removes the directory and its other socket. Does not wait: the kernel takes milliseconds to
 * take a VM apart, and nobody needs to see that.
 */
void vmm_process_end(struct vmm_process *process);
