/* The command line: Firecracker's jailer options and our own. Touches nothing but the struct. */
#pragma once

#include "jailer/jail.h"

enum jail_request { JAIL_RUN, JAIL_HELP, JAIL_VERSION };

/*
 * Fills `config` from argv ("--option value" and "--option=value"; everything after "--" is the VMM's). Strings are
 * borrowed from argv; `base` is the chroot base where none is given, NULL: one must be. Errors are ERROR_INPUT.
 */
struct error *arguments_parse(int argc, char *const argv[], const char *base, struct jail_config *config,
                              enum jail_request *request);

/* The text of --help. */
void arguments_print_help(void);
