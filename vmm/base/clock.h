/* Time, in one unit: microseconds unless a name says otherwise. Safe in signal handlers and any thread. */
#pragma once

#include <stdint.h>

/* CLOCK_MONOTONIC. */
uint64_t clock_monotonic_us(void);

/* CPU time of this process (CLOCK_PROCESS_CPUTIME_ID). */
uint64_t clock_process_cpu_us(void);

/* Writes the wall clock as "2026-01-02T03:04:05.123456789" (UTC, nanoseconds; 29 characters and a NUL). */
enum { CLOCK_TEXT_SIZE = 30 };
void clock_wall_text(char text[CLOCK_TEXT_SIZE]);
