#include "vmm/base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t clock_monotonic_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

uint64_t clock_process_cpu_us(void)
{
    return clock_us(CLOCK_PROCESS_CPUTIME_ID);
}

/*
 * The civil date of a day counted from 1970-01-01. gmtime_r would do, but glibc's takes a lock, and the log is written
 * from signal handlers. Years begin in March here, so that the leap day is their last; eras are 400 years.
 */
static void civil_date(int64_t days, int *year, unsigned *month, unsigned *day)
{
    enum { DAYS_TO_1970 = 719468, ERA_DAYS = 146097 };
    int64_t shifted = days + DAYS_TO_1970;
    int64_t era = (shifted >= 0 ? shifted : shifted - (ERA_DAYS - 1)) / ERA_DAYS;
    unsigned in_era = (unsigned)(shifted - era * ERA_DAYS);
    unsigned year_of_era = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    unsigned in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned from_march = (5 * in_year + 2) / 153;

    *day = in_year - (153 * from_march + 2) / 5 + 1;
    *month = from_march < 10 ? from_march + 3 : from_march - 9;
    *year = (int)(era * 400) + (int)year_of_era + (*month <= 2 ? 1 : 0);
}

void clock_wall_text(char text[CLOCK_TEXT_SIZE])
{
    struct timespec now;
    char buffer[96];
    unsigned month, day;
    int year;

    clock_gettime(CLOCK_REALTIME, &now);
    civil_date(now.tv_sec / 86400, &year, &month, &day);

    unsigned second = (unsigned)(now.tv_sec % 86400);
    snprintf(buffer, sizeof(buffer), "%04d-%02u-%02uT%02u:%02u:%02u.%09ld", year, month, day, second / 3600,
             second / 60 % 60, second % 60, now.tv_nsec);
    __builtin_memcpy(text, buffer, CLOCK_TEXT_SIZE - 1);
    text[CLOCK_TEXT_SIZE - 1] = '\0';
}
