#include "tests/unit/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void test_filter_from_environment(void)
{
    const char *filter = getenv("MAYFLY_TEST_FILTER");

    /* What a test said before it crashed must be in the pipe by then. */
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (filter != NULL)
        cmocka_set_test_filter(filter);
}

void assert_no_error(struct error *error)
{
    if (error != NULL)
        fail_msg("unexpected error: %s", error->message);
}

void assert_error(struct error *error, enum error_kind kind, const char *text)
{
    if (error == NULL)
        fail_msg("no error where \"%s\" was expected", text);
    if (error->kind != kind || strstr(error->message, text) == NULL)
        fail_msg("error of kind %d \"%s\", expected kind %d with \"%s\"", error->kind, error->message, kind, text);
    error_free(error);
}
