/* Objects from texts. */
#pragma once

#include "tests/unit/harness.h"

#include <string.h>

#include "api/schema_objects.h"

static inline struct error *decode(const struct schema *schema, const char *text, void *object)
{
    return schema_decode(schema, text, strlen(text), false, object, NULL);
}
