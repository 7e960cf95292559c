/* Resource limits: setrlimit(2). */
#pragma once

#include "jailer/jail.h"

/* Sets fsize and no-file (soft and hard) as asked, and core size 0: a core would hold guest memory. */
struct error *limits_apply(const struct jail_limits *limits);
