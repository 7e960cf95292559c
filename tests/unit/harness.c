#include "tests/unit/harness.h"

#include "vmm/base/clock.h"

#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CGROUP_PATIENCE_US = 30000000 };

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

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

bool test_remove(const char *path)
{
    return nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0;
}

/* The kernel takes a process out of its group a moment after it can be waited for. */
static int remove_group(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    uint64_t until = clock_monotonic_us() + CGROUP_PATIENCE_US;

    (void)status;
    (void)walk;
    while (kind == FTW_DP && rmdir(path) != 0 && errno == EBUSY && clock_monotonic_us() < until)
        sched_yield();
    return 0;
}

void test_remove_cgroup(const char *path)
{
    nftw(path, remove_group, 8, FTW_DEPTH | FTW_PHYS);
}
