/* The terminal on stdin, raw while a guest has it. Its former state is global: the signal handlers restore it. */
#pragma once

#include <stdbool.h>

/*
 * Makes `fd` raw if it is a terminal. False when it must not be read: a terminal of which this process is not in the
 * foreground group would stop us with SIGTTIN.
 */
bool terminal_make_raw(int fd);

/* Undoes terminal_make_raw; does nothing when there is nothing to undo. Safe in a signal handler. */
void terminal_restore(void);
