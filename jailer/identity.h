/* Who the VMM is: capabilities (libcap-ng), user, groups. Acts on the calling thread only. */
#pragma once

#include "jailer/jail.h"
#include "jailer/missing.h"

/*
 * Empties the bounding set, locks the securebits, drops supplementary groups, becomes uid:gid for good, empties the
 * other capability sets, sets no_new_privs. In a reduced jail what that takes a missing right for goes into `missing`.
 * Nothing can be regained afterwards, not even by uid 0.
 */
struct error *identity_drop(const struct jail_config *config, struct missing *missing);
