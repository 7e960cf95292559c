/* The device nodes that a VMM needs, on a tmpfs of the jail's own: they vanish with its mount namespace. */
#pragma once

#include "jailer/jail.h"
#include "jailer/undo.h"

enum { DEVICES_COUNT = 4 };

/* Device numbers as this host has them; 0: the host has no such device. */
struct devices {
    dev_t numbers[DEVICES_COUNT];
};

/* Looks the nodes up under the host's /dev. Only /dev/kvm must be there. Before the root changes. */
struct error *devices_look_up(struct devices *devices);

/*
 * Mounts a tmpfs on the folder <root>/dev (pushed) and makes the nodes in it: kvm, net/tun, urandom, userfaultfd; mode
 * 0600 of the jail's user. In the jail's mount namespace.
 */
struct error *devices_create(const struct jail_config *config, const struct devices *devices, struct undo *undo,
                             int root);
