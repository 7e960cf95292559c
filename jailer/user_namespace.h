/*
 * A user namespace gives an ordinary user the rights that building a jail takes, over the jail alone. Ids keep their
 * numbers in it: the caller's own user and group are mapped, and --uid and --gid where they are others, which then
 * must be subordinate ids of the caller's (newuidmap(1)), or any for a container's root with CAP_SETUID.
 */
#pragma once

#include "jailer/jail.h"

/* Enters a new user namespace, with all capabilities in it. While there is one thread. */
struct error *user_namespace_enter(const struct jail_config *config);

/* Whether that, and mounting in it, succeeds: for a child process, which it changes. */
bool user_namespace_works(const struct jail_config *config);
