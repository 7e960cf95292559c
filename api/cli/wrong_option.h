/* What is wrong with an option that getopt_long(3) did not take. */
#pragma once

#include "vmm/base/error.h"

/*
 * To be called right after getopt_long returned `option`, ':' or '?', for an optstring that begins with "+:". `command`
 * is what has the help, as "mayfly run".
 */
struct error *wrong_option(const char *command, int option, char *const *argv);
