/* A user namespace that only says whose files are whose, for MOUNT_ATTR_IDMAP. */
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include "vmm/base/error.h"

/*
 * What belongs to the owner and group in `status` will belong to `uid` and `gid`, everything else to nobody. Stores a
 * descriptor that the caller owns. Needs CAP_SETUID and CAP_SETGID, and /proc.
 */
struct error *idmap_open(const struct stat *status, uid_t uid, gid_t gid, int *map);
