/* What metrics.c writes and metrics_table.c lists. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/metrics.h"

struct metric_group {
    char name[20];
    uint16_t offset; /* of its struct in struct metrics, if each device has one of its own; else 0 */
};

enum metric_kind {
    METRIC_COUNTER, /* tells what was added since the last line, as Firecracker's do */
    METRIC_VALUE,   /* tells what it is */
    METRIC_LATENCY, /* a struct latency, of no device of its own; its sum is a counter */
    METRIC_NEVER,   /* 0 */
    METRIC_UNTIMED, /* {"min_us":0,"max_us":0,"sum_us":0} */
};

/* Names in place: a table of pointers would cost every process a page of relocations. */
struct metric {
    char key[32];
    uint16_t offset; /* in struct metrics */
    uint8_t group;   /* enum metric_group_name */
    uint8_t kind;    /* enum metric_kind */
};

enum { METRICS_MAX = 384 };

extern const struct metric_group metric_groups[METRICS_GROUPS];
extern const struct metric metric_table[];
extern const size_t metric_count;
