#include "vmm/base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_MAX = 1024 };

/* A flexible member cannot be initialised portably in static storage, hence the twin with room of its own. */
static struct {
    enum error_kind kind;
    int code;
    char message[16];
} out_of_memory = {ERROR_INTERNAL, 0, "out of memory"};

static struct error *error_alloc(enum error_kind kind, int code, const char *message)
{
    size_t size = strlen(message) + 1;
    struct error *error = malloc(sizeof(*error) + size);

    if (error == NULL)
        return (struct error *)&out_of_memory;
    error->kind = kind;
    error->code = code;
    memcpy(error->message, message, size);
    return error;
}

struct error *error_new(enum error_kind kind, const char *format, ...)
{
    char message[MESSAGE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return error_alloc(kind, 0, message);
}

struct error *error_errno(int code, const char *format, ...)
{
    char message[MESSAGE_MAX];
    char full[MESSAGE_MAX + 128];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    snprintf(full, sizeof(full), "%s: %s", message, strerror(code));
    return error_alloc(ERROR_HOST, code, full);
}

struct error *error_wrap(struct error *error, const char *format, ...)
{
    char context[MESSAGE_MAX];
    char full[2 * MESSAGE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(context, sizeof(context), format, args);
    va_end(args);
    snprintf(full, sizeof(full), "%s: %s", context, error->message);

    struct error *wrapped = error_alloc(error->kind, error->code, full);
    error_free(error);
    return wrapped;
}

void error_free(struct error *error)
{
    if (error != (struct error *)&out_of_memory)
        free(error);
}
