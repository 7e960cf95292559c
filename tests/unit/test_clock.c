#include "tests/unit/harness.h"

#include "vmm/base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* The wall clock that the process sees is now this one. */
static time_t pretended;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    (void)clock;
    *now = (struct timespec){.tv_sec = pretended, .tv_nsec = 123456789};
    return 0;
}

static void test_wall_clock_is_the_date_that_libc_tells(void **state)
{
    (void)state;
    /* A prime number of seconds: every day of the year, every hour, leap years and the century among them. */
    for (pretended = 0; pretended < (time_t)250 * 366 * 86400; pretended += 39119) {
        char text[CLOCK_TEXT_SIZE];
        char expected[CLOCK_TEXT_SIZE + 8];
        struct tm utc;

        gmtime_r(&pretended, &utc);
        strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S", &utc);
        strcat(expected, ".123456789");
        clock_wall_text(text);
        assert_string_equal(text, expected);
    }
}

TEST_MAIN(cmocka_unit_test(test_wall_clock_is_the_date_that_libc_tells))
