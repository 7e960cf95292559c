/*
 * What a process does, counted by the host's kernel: system calls and accesses of its guest to devices (trace points),
 * processor time of its threads. Threads that are born later count, too.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { COUNTERS_FILES_MAX = 512, COUNTERS_KINDS = 4 };

struct counters {
    pid_t pid;
    unsigned trace_points[COUNTERS_KINDS]; /* their numbers, or 0 */
    unsigned file_count;
    int files[COUNTERS_FILES_MAX];
    unsigned kinds[COUNTERS_FILES_MAX]; /* what each file counts: a row of the table of trace points */
};

struct counts {
    uint64_t syscalls;
    uint64_t exits; /* the guest's accesses to ports and to the registers of devices: each leaves the guest */
    double cpu_us;  /* of the threads that are no virtual processors */
    double vcpu_us; /* of those that are */
};

/* False without trace points: only the processor time will be told then. */
bool counters_open(struct counters *counters, pid_t pid);
void counters_close(struct counters *counters);
/* Since counters_open; the processor time since the start of the process. */
struct counts counters_read(const struct counters *counters);
