/* The jail's process: a new pid namespace means a new process, and somebody who waits for it. */
#pragma once

#include "jailer/cgroup.h"
#include "jailer/jail.h"

/* The process outside of the new pid namespace. */
struct waiter {
    pid_t child;  /* in the child itself 0 */
    int proc_fd;  /* the host's /proc */
    int alive_fd; /* in the child: a pipe that ends with the process outside */
};

/*
 * Forks into a new pid namespace (and, with cgroup version 2, straight into the jail's cgroup: *joined says so).
 * Returns in both; *pid is the child as the host sees it.
 */
struct error *process_fork(const struct cgroup *cgroup, bool *joined, struct waiter *waiter, pid_t *pid);

/* Waits for the child; SIGINT, SIGTERM, SIGHUP and SIGQUIT go on to it. Returns its exit code, or 128 + signal. */
int process_wait(const struct waiter *waiter);

/*
 * The child dies with the process that waits for it: who kills the jailer has killed the jail. After the ids change; an
 * error when that process is gone already.
 */
struct error *process_end_with_waiter(const struct waiter *waiter);

/* Who started the jailer, and the signal that it is to get when that one dies (PR_SET_PDEATHSIG); 0: none. */
struct parent {
    pid_t pid;
    int signal;
};

void process_note_parent(struct parent *parent);
/* The kernel forgets the signal when the ids change: what the caller asked for holds for the VMM. */
struct error *process_end_with_parent(const struct parent *parent);

/*
 * A new process in a session of its own, with /dev/null as stdin, stdout and stderr, returns. The caller's process
 * waits until that has become the VMM and exits with 0; what is written into *report (close-on-exec) until then it
 * prints on its stderr, and exits with 1.
 */
struct error *process_daemonize(int null_fd, int *report);
