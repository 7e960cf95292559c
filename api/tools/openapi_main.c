/* Writes the OpenAPI document to stdout: `make openapi`. */
#include "api/openapi.h"

int main(void)
{
    api_openapi_write(stdout);
    return ferror(stdout) != 0 || fclose(stdout) != 0;
}
