/*
 * Starting the command.
 */
#pragma once

#include "failure.h"

#include <stdbool.h>
#include <sys/types.h>

struct command {
    const char *directory;    /* where it runs; empty or NULL: "/" */
    char *const *arguments;   /* NULL-terminated, at least one */
    char *const *environment; /* NULL-terminated; PATH, HOME and TERM are added when missing */
    int stdio[3];             /* become its descriptors 0, 1 and 2 */
    bool terminal;            /* stdio[0] is the terminal of our session: it runs in the foreground there */
};

/*
 * Starts `command` in a session of its own with default signal handling. Returns its process id
 * once execve has succeeded, or -1 with `failure` filled (exit code 127, 126 or 125). Blocks
 * nothing but init itself, until the execve.
 */
pid_t command_start(const struct command *command, struct failure *failure);
