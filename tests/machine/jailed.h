/*
 * The same VMM through mayfly-jailer, when $MAYFLY_JAILED is set: as a user of its own (an ordinary user's is that
 * user), in an empty root, in new namespaces, under the base filter. What a test names lies at the same path in the
 * jail.
 */
#pragma once

#include "tests/machine/machine.h"

enum { JAILED_UID = 64131, JAILED_GID = 64132, JAILED_ARGUMENTS_MAX = 96 };

bool machine_is_jailed(void);
/*
 * Fills in `jailer`, the words of the jailer's command line that starts the VMM with `arguments`. The words belong to
 * *text, which the caller frees.
 */
void jailed_arguments(const struct vm *vm, const struct machine_options *options, const char *vmm,
                      char *const *arguments, char *jailer[JAILED_ARGUMENTS_MAX], char **text);
/* Removes what the jail left on the host. */
void jailed_remove(const struct vm *vm);
