/*
 * An ordinary user's virtiofsd is root in a user namespace of its own: the guest's root is the user, the guest's other
 * users are the user's subordinate ids, and nothing is within its reach that is not within the user's.
 */
#pragma once

#include <stdbool.h>

#include "vmm/base/error.h"

struct mounts_user_range {
    unsigned long long first, count;
};

struct mounts_user {
    unsigned own[2]; /* uid and gid */
    struct mounts_user_range range[2];
};

/* Looks up the subordinate ids of this process's user. The error says what is missing, and how to get it. */
struct error *mounts_user_find(struct mounts_user *user);

/* The range that `text`, of the form of /etc/subuid, gives to a user by name (NULL: none is known) or number. */
bool mounts_user_range(const char *text, const char *name, unsigned uid, struct mounts_user_range *range);

/*
 * In the child that becomes virtiofsd: enters such a namespace. Returns what failed, with errno or 0, or NULL. What
 * newuidmap has to say goes to stderr.
 */
const char *mounts_user_enter(const struct mounts_user *user);
