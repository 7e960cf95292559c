#pragma once

#include <stdint.h>
#include <time.h>

/* Nanoseconds of CLOCK_BOOTTIME. */
static inline uint64_t clock_boottime(void)
{
    struct timespec now = {0};

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}
