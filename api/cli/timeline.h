/* Where the time of one `mayfly run` went. Host clock throughout; the guest's clock only divides what lies between. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/client/body.h"
#include "vmm/base/error.h"

/* Stages in the order in which they end. Each begins where the one before ended. */
enum timeline_stage {
    STAGE_PROCESS_START, /* until mayfly-jailer (without a jail: mayfly-vmm) has been executed */
    STAGE_JAIL,          /* until the jail stood and mayfly-vmm was executed in it */
    STAGE_API_READY,     /* until its API took a connection */
    STAGE_CONFIGURED,    /* until it accepted the whole configuration */
    STAGE_VCPU_RUNNING,  /* until InstanceStart was answered */
    STAGE_NETWORK,       /* until passt was up, where that was before the guest; the kernel boots meanwhile */
    STAGE_KERNEL,        /* until the guest's init began */
    STAGE_INIT,          /* until the command was executed */
    STAGE_COMMAND,       /* until the command's end was noticed */
    STAGE_EXIT,          /* until all its output and its exit code were here */
    STAGE_COUNT,
};

struct timeline {
    uint64_t begin_us; /* CLOCK_MONOTONIC, as all of these */
    uint64_t end_us[STAGE_COUNT];
    unsigned count;    /* stages that have ended */
    unsigned left_out; /* bit n: stage n is not among them */
};

void timeline_begin(struct timeline *timeline);
/* `stage` ends now. A stage that was left out before it gets no time, and is not shown. */
void timeline_end(struct timeline *timeline, enum timeline_stage stage);
/* It ended at `at_us`, which lies between the end of the stage before it and now. */
void timeline_end_at(struct timeline *timeline, enum timeline_stage stage, uint64_t at_us);
/* It ended `ago_us` microseconds ago, as far as the guest can be believed: never before the stage before it. */
void timeline_end_ago(struct timeline *timeline, enum timeline_stage stage, uint64_t ago_us);

uint64_t timeline_total_us(const struct timeline *timeline);

/* A table; with a bar each when `fd` is a terminal. */
void timeline_print(const struct timeline *timeline, int fd);
/* A drawing. */
struct error *timeline_write_svg(const struct timeline *timeline, int fd);
/* Adds the members "timeline" (an array) and "total_us". */
void timeline_add_to(const struct timeline *timeline, struct body *body);

/* For those who draw. */
struct timeline_bar {
    const char *name;
    uint64_t start_us; /* after begin_us */
    uint64_t duration_us;
};
bool timeline_has(const struct timeline *timeline, enum timeline_stage stage);
struct timeline_bar timeline_bar(const struct timeline *timeline, enum timeline_stage stage);
