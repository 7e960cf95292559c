/* Resource limits: setrlimit(2). */
#pragma once

#include "jailer/jail.h"

/*
 * Sets fsize, no-file and the number of processes (soft and hard) as asked, and core size 0: a core would hold guest
 * memory. Who may not raise limits gets less than the default of no-file where less is what there is.
 */
struct error *limits_apply(const struct jail_config *config);
