#include "jailer/missing.h"

#include "jailer/jail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void missing_add(struct missing *missing, const char *format, ...)
{
    va_list arguments;

    if (missing == NULL)
        return;

    size_t length = strlen(missing->text);
    if (length > 0 && length < sizeof(missing->text) - 3) {
        strcpy(missing->text + length, ", ");
        length += 2;
    }
    va_start(arguments, format);
    vsnprintf(missing->text + length, sizeof(missing->text) - length, format, arguments);
    va_end(arguments);
}

void missing_print(const struct missing *missing)
{
    if (missing->text[0] != '\0')
        fprintf(stderr, "mayfly-jailer: " JAIL_REDUCED_NOTE "%s\n", missing->text);
}
