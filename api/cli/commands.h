/* The subcommands of `mayfly`. Each gets the arguments from its own name on and returns the process's exit code. */
#pragma once

/* What `mayfly` itself fails with, so that a script can tell it from the command's codes. 124 is timeout(1)'s. */
enum { EXIT_TIMED_OUT = 124, EXIT_MAYFLY_FAILED = 125 };

int command_connect(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_gc(int argc, char **argv);
int command_run(int argc, char **argv);
int command_version(int argc, char **argv);
