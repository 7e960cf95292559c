/*
 * Why the guest cannot go on, for the user: kept by main, filled by whoever knows, told on the
 * console and in a FAILED frame.
 */
#pragma once

enum {
    FAILURE_NOT_FOUND = 127,
    FAILURE_NOT_EXECUTABLE = 126,
    FAILURE_OTHER = 125,
};

struct failure {
    int exit_code; /* FAILURE_... */
    char text[512];
};

/* Fills `failure` with a printf-style text and returns -1, so that callers can `return failure_set(...)`. */
int failure_set(struct failure *failure, int exit_code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As failure_set with FAILURE_OTHER, and ": <strerror(errno)>" appended. */
int failure_errno(struct failure *failure, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes "init: <text>" on the console, or into the kernel's log when there is no console. */
void console_say(const char *text);
