/* The OpenAPI document, written from the routes and the schema. `make openapi` puts it into api/openapi.yaml. */
#pragma once

#include <stdio.h>

void api_openapi_write(FILE *out);
