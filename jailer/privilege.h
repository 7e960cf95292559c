/* What the caller may do, and so which jail it gets. */
#pragma once

#include "jailer/jail.h"

/* Whether the calling thread has the capability (effective). */
bool privilege_has(int capability);

/*
 * Sets config->mode: root with CAP_SYS_ADMIN gets JAIL_ROOT; anybody else JAIL_USER, or, when that was allowed and a
 * user namespace is not to be had, JAIL_REDUCED. Whether one is to be had is tried out in a child process, and only
 * when the answer matters.
 */
struct error *privilege_choose_mode(struct jail_config *config);

/* The chroot base of somebody who did not name one; NULL when there is none. `runtime_dir` is XDG_RUNTIME_DIR. */
const char *privilege_default_base(const char *runtime_dir);
