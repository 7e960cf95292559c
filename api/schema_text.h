/* The words of the schema's messages. */
#pragma once

#include "api/schema.h"

enum { FIELD_EXPECTED_MAX = 512 };

/* What would have been a right value of `field`, in words: "an integer from 1 to 32". May use `text`. */
const char *field_expected(const struct field *field, char text[FIELD_EXPECTED_MAX]);

/* Puts a printf-style text at text[used]; what does not fit is cut. Returns where the text ends. */
size_t text_append(char *text, size_t used, size_t size, const char *format, ...) __attribute__((format(printf, 4, 5)));
