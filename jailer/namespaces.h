/* Namespaces: all that were asked for, and always a mount namespace. */
#pragma once

#include "jailer/jail.h"

/* Opens --netns and checks that it is a network namespace; *fd -1 when none was asked for. Before the root changes. */
struct error *namespaces_open_netns(const struct jail_config *config, int *fd);

/* A mount namespace of its own, always: what is mounted from here on does not propagate to the host. */
struct error *namespaces_enter_mount(void);

/*
 * Leaves the host's other namespaces: one unshare(2) for all, setns(2) for the network when `netns` is not -1. The pid
 * namespace is not entered here: that takes a new process. The calling process must be single-threaded, and already in
 * its cgroups, so that a new cgroup namespace has them as its root.
 */
struct error *namespaces_enter(const struct jail_config *config, int netns);

/*
 * A new time namespace, if asked for: it begins with the next process or exec, and until then older kernels (6.1) let
 * this process make no thread.
 */
struct error *namespaces_enter_time(const struct jail_config *config);
