/* The mayfly-vmm process that belongs to one `mayfly run`, and the private directory with its sockets. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "api/cli/run_jail.h"
#include "vmm/base/error.h"

enum { VMM_DIRECTORY_SIZE = 104 };

struct vmm_process {
    char directory[VMM_DIRECTORY_SIZE]; /* mode 0700; "" when there is none */
    int directory_fd;                   /* holds the lock of one outside a jail */
    char inside[VMM_DIRECTORY_SIZE];    /* the same folder as the VMM sees it */
    pid_t pid;                          /* our child: the VMM, or the jailer that waits for it; 0: none */
    int process_fd;                     /* pidfd of it */
    int vmm_fd;                         /* pidfd of the VMM in a jail, once it is known */
    struct run_jail jail;
    int serial_fd;                /* what the guest writes to its serial port; non-blocking */
    int log_fd;                   /* the VMM's stderr; non-blocking */
    const char *mounts_directory; /* with the sockets of --mount, as we see it; borrowed; NULL: none */
    const char *vsock_path;       /* a socket that the VMM made elsewhere, as we see it; borrowed; NULL: none */
};

/* A state that vmm_process_end accepts. */
void vmm_process_init(struct vmm_process *process);

/*
 * Starts the VMM, serving its API on "api" in the directory. With a jail (process->jail.used) that is the jail's, and
 * what is started is the jailer; without one it is made here. The process is in a session of its own (a Ctrl-C is ours
 * to pass on), has no descriptor but its three, and dies with us.
 */
struct error *vmm_process_start(struct vmm_process *process, const struct located *located);

/* Connects to the socket `name`, and makes sure that it is our VMM that listens there. The caller owns *fd. */
struct error *vmm_process_connect(struct vmm_process *process, const char *name, unsigned timeout_ms, int *fd);

/* The path of `name` in the directory, for us and for the VMM. */
enum { VMM_PATH_SIZE = VMM_DIRECTORY_SIZE + 32 };
void vmm_process_path(const struct vmm_process *process, const char *name, char path[VMM_PATH_SIZE]);
void vmm_process_inner_path(const struct vmm_process *process, const char *name, char path[VMM_PATH_SIZE]);

bool vmm_process_has_ended(const struct vmm_process *process);

/*
 * Why the guest is gone; `when` is part of the sentence. Waits a moment for the VMM's end. *failed: it said by its exit
 * code that KVM or the guest went wrong; else left as it was.
 */
struct error *vmm_process_explain_end(struct vmm_process *process, const char *when, bool *failed);

/*
 * Kills the process and removes the directory and its other socket. Without a jail it does not wait: the kernel takes
 * milliseconds to take a VM apart, and nobody needs to see that. A jail's cgroup can only go when nobody is left in it.
 * What could not be removed is said on stderr.
 */
void vmm_process_end(struct vmm_process *process);
