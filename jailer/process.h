/* The jail's process: a new pid namespace means a new process, and somebody who waits for it. */
#pragma once

#include "jailer/cgroup.h"
#include "jailer/jail.h"

/*
 * Forks into a new pid namespace (and, with cgroup version 2, straight into the jail's cgroup: *joined says so). In the
 * child *waiter is false and *pid its process id on the host. In the parent *waiter is true and *pid the child.
 */
struct error *process_fork(const struct cgroup *cgroup, bool *joined, bool *waiter, pid_t *pid);

/* Waits for the child; SIGINT, SIGTERM, SIGHUP and SIGQUIT go on to it. Returns its exit code, or 128 + signal. */
int process_wait(pid_t child);

/*
 * A new process in a session of its own, with /dev/null as stdin, stdout and stderr, returns. The caller's process
 * waits until that has become the VMM and exits with 0; what is written into *report (close-on-exec) until then it
 * prints on its stderr, and exits with 1.
 */
struct error *process_daemonize(int null_fd, int *report);
