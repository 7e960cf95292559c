/* What a taken VMM tries (tests/jail/probe/), and which wall stops it. */
#pragma once

#include "tests/jail/jail.h"

/* An attempt that a jail with fewer walls ends otherwise: with this errno; 0: it succeeds, and harms nobody by itself.
 */
struct attempt_exception {
    const char *name; /* NULL: the last */
    int result;
};

/*
 * Runs all attempts with `options` (NULL-terminated) and fails the test when one ends otherwise than it should.
 * `filtered`: under the base filter. `exceptions` may be NULL.
 */
void attempt_all(struct jail *jail, const char *const *options, bool filtered,
                 const struct attempt_exception *exceptions);

/* Whether errno `how` stopped the probe. */
bool attempt_stopped_by(const struct outcome *outcome, int how);
