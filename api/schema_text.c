#include "api/schema_text.h"

#include "vmm/config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

size_t text_append(char *text, size_t used, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int wanted = vsnprintf(text + used, size - used, format, args);
    va_end(args);
    return used + (size_t)wanted < size ? used + (size_t)wanted : size - 1;
}

static size_t append_names(char *text, size_t used, size_t size, const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++)
        used = text_append(text, used, size, "%s\"%s\"", i == 0 ? "" : names[i + 1] == NULL ? " or " : ", ", names[i]);
    return used;
}

static void describe_string(const struct field *field, char text[FIELD_EXPECTED_MAX])
{
    if (field->minimum == field->maximum)
        snprintf(text, FIELD_EXPECTED_MAX, "a string of %u bytes", field->minimum);
    else if (field->minimum == 0)
        snprintf(text, FIELD_EXPECTED_MAX, "a string of at most %" PRIu64 " bytes", field->maximum);
    else
        snprintf(text, FIELD_EXPECTED_MAX, "a string of %u to %" PRIu64 " bytes", field->minimum, field->maximum);
    if (field->format != NULL)
        text_append(text, strlen(text), FIELD_EXPECTED_MAX, ": %s", field->format->expected);
}

const char *field_expected(const struct field *field, char text[FIELD_EXPECTED_MAX])
{
    switch (field->type) {
    case FIELD_BOOL:
        return "true or false";
    case FIELD_INTEGER:
        snprintf(text, FIELD_EXPECTED_MAX, "an integer from %u to %" PRIu64, field->minimum, field->maximum);
        break;
    case FIELD_ENUM:
    case FIELD_WORD:
        append_names(text, 0, FIELD_EXPECTED_MAX, field->names);
        break;
    case FIELD_STRING:
        describe_string(field, text);
        break;
    case FIELD_STRING_MAP:
        snprintf(text, FIELD_EXPECTED_MAX, "an object of at most %" PRIu64 " strings", field->maximum);
        break;
    case FIELD_STRING_LIST:
        snprintf(text, FIELD_EXPECTED_MAX, "an array of %u to %" PRIu64 " strings of 1 to %d bytes", field->minimum,
                 field->maximum, ID_LENGTH_MAX);
        break;
    case FIELD_OBJECT:
        return "an object";
    case FIELD_ARRAY:
    case FIELD_HEAP_ARRAY:
        snprintf(text, FIELD_EXPECTED_MAX, "an array of %u to %" PRIu64 " objects", field->minimum, field->maximum);
        break;
    case FIELD_UNSUPPORTED:
        return field->flags & FIELD_LIST ? "null or []: there is no such device" : "null: there is no such device";
    }
    return text;
}
