/* What every cmocka program of this project starts with. Keep the order: cmocka.h needs the headers before it. */
#pragma once

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <stdbool.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/error.h"

/* main() of a test program: runs `tests`, or only those that $MAYFLY_TEST_FILTER (a cmocka pattern) names. */
#define TEST_MAIN(...)                                                                                                 \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                                               \
        test_filter_from_environment();                                                                                \
        return cmocka_run_group_tests(tests, NULL, NULL);                                                              \
    }

void test_filter_from_environment(void);

/* Fails the test with the error's message unless `error` is NULL. */
void assert_no_error(struct error *error);

/* Fails unless there is an error of `kind` whose message contains `text`; frees it. */
void assert_error(struct error *error, enum error_kind kind, const char *text);

/* Removes a file, or a folder with all that is in it and on the same file system. False when something stays. */
bool test_remove(const char *path);
/* Removes a cgroup and those below it, whose processes have been waited for. */
void test_remove_cgroup(const char *path);
