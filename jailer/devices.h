/* The device nodes that a VMM needs, on a tmpfs of the jail's own: they vanish with its mount namespace. */
#pragma once

#include "jailer/jail.h"
#include "jailer/undo.h"

enum { DEVICES_COUNT = 5 };

/* Device numbers as this host has them; 0: the host has no such device. */
struct devices {
    dev_t numbers[DEVICES_COUNT];
};

/*
 * Looks the nodes up under the host's /dev. /dev/kvm must be there, and what was asked for; an ordinary user, who
 * cannot make nodes of its own, gets those of the others that it may open. Before the root changes.
 */
struct error *devices_look_up(const struct jail_config *config, struct devices *devices);

/*
 * Mounts a tmpfs on the folder <root>/dev (pushed) and makes the nodes in it: kvm, net/tun, urandom, userfaultfd,
 * vhost-net; mode 0600 of the jail's user. Where the kernel lets no node be made (in a user namespace) the host's are
 * bound, as they are. In the jail's mount namespace.
 */
struct error *devices_create(const struct jail_config *config, const struct devices *devices, struct undo *undo,
                             int root);

/*
 * Without a mount namespace: makes the nodes in the folder <root>/dev itself (pushed). False when that is not allowed,
 * or what was made cannot be opened; nothing is left of it then.
 */
bool devices_create_in_folder(const struct jail_config *config, const struct devices *devices, struct undo *undo,
                              int root);

/*
 * Whether the jail's user, which the caller has become, may open KVM: a node that is not of the jail's making has the
 * host's owner and mode.
 */
struct error *devices_check_access(const struct jail_config *config);

/* The path of a node that the jail has on the host; NULL: it has it not. `i` is below DEVICES_COUNT. */
const char *devices_path(const struct jail_config *config, const struct devices *devices, size_t i);
