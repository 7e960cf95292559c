/* Who the VMM is: capabilities (libcap-ng), user, groups. Acts on the calling thread only. */
#pragma once

#include "jailer/jail.h"

/*
 * Empties the bounding set, locks the securebits, drops supplementary groups, becomes uid:gid for good, empties the
 * other capability sets, sets no_new_privs. Nothing can be regained afterwards, not even by uid 0.
 */
struct error *identity_drop(uid_t uid, gid_t gid);
