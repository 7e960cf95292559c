/* getopt_long(3), with words for what is wrong with an option, and without abbreviations. */
#pragma once

#include <getopt.h>

#include "vmm/base/error.h"

/*
 * The next option's code, -1 after the last, or '?' for one that is wrong; then *error, unless it holds an error
 * already, says how. `letters` begins with "+:". `command` is what has the help, as "mayfly run".
 */
int option_next(const char *command, int argc, char *const *argv, const char *letters, const struct option *options,
                struct error **error);
