/*
 * Errors are values. A function that can fail returns `struct error *`: NULL means success, anything else is owned by
 * the caller, who passes it up, answers the user with it, or frees it. A message names the field, the value and what
 * was expected; callers add context with error_wrap as the value travels up.
 */
#pragma once

#include <stdarg.h>

/* What went wrong, in the terms of whoever has to answer for it. */
enum error_kind {
    ERROR_INPUT,     /* the caller's request is wrong: HTTP 400 */
    ERROR_STATE,     /* right request, wrong moment: HTTP 400 */
    ERROR_TOO_LARGE, /* the caller's data exceeds a limit: HTTP 413 */
    ERROR_HOST,      /* the host refused something that the request needed: HTTP 400, names the errno */
    ERROR_INTERNAL,  /* a promise of our own was broken: HTTP 500 */
};

struct error {
    enum error_kind kind;
    int code;       /* errno of the failed call, 0 when there was none */
    char message[]; /* NUL-terminated UTF-8, no trailing full stop or newline */
};

/* Makes an error with a printf-style message. Never returns NULL: without memory it returns a static error. */
struct error *error_new(enum error_kind kind, const char *format, ...)
    __attribute__((format(printf, 2, 3), warn_unused_result, returns_nonnull));

/* As error_new with kind ERROR_HOST, remembers `code` (an errno) and appends ": <strerror(code)>". */
struct error *error_errno(int code, const char *format, ...)
    __attribute__((format(printf, 2, 3), warn_unused_result, returns_nonnull));

/* Puts "<formatted>: " in front of the message of `error`, which it consumes; kind and code stay. */
struct error *error_wrap(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3), warn_unused_result, returns_nonnull));

/* Frees `error`; NULL is fine. */
void error_free(struct error *error);

/* For __attribute__((cleanup)): frees *error. */
static inline void error_cleanup(struct error **error)
{
    error_free(*error);
}
#define cleanup_error __attribute__((cleanup(error_cleanup)))
