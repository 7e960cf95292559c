#include "api/cli/timeline.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/clock.h"

enum { BAR_WIDTH = 48 };

static const char *const names[STAGE_COUNT] = {
    [STAGE_PROCESS_START] = "process start",
    [STAGE_JAIL] = "jail",
    [STAGE_API_READY] = "API ready",
    [STAGE_CONFIGURED] = "configured",
    [STAGE_VCPU_RUNNING] = "vCPU running",
    [STAGE_NETWORK] = "network",
    [STAGE_KERNEL] = "kernel",
    [STAGE_INIT] = "init",
    [STAGE_COMMAND] = "command",
    [STAGE_EXIT] = "exit",
};

void timeline_begin(struct timeline *timeline)
{
    *timeline = (struct timeline){.begin_us = clock_monotonic_us()};
}

static uint64_t last_end(const struct timeline *timeline)
{
    return timeline->count == 0 ? timeline->begin_us : timeline->end_us[timeline->count - 1];
}

void timeline_end_ago(struct timeline *timeline, enum timeline_stage stage, uint64_t ago_us)
{
    uint64_t now = clock_monotonic_us();
    uint64_t before = last_end(timeline);

    if (stage < timeline->count)
        return;
    while (timeline->count < stage) {
        timeline->left_out |= 1u << timeline->count;
        timeline->end_us[timeline->count++] = before;
    }
    timeline->end_us[stage] = ago_us < now - before ? now - ago_us : before;
    timeline->count = stage + 1;
}

void timeline_end(struct timeline *timeline, enum timeline_stage stage)
{
    timeline_end_ago(timeline, stage, 0);
}

void timeline_end_at(struct timeline *timeline, enum timeline_stage stage, uint64_t at_us)
{
    uint64_t now = clock_monotonic_us();

    timeline_end_ago(timeline, stage, at_us < now ? now - at_us : 0);
}

uint64_t timeline_total_us(const struct timeline *timeline)
{
    return last_end(timeline) - timeline->begin_us;
}

bool timeline_has(const struct timeline *timeline, enum timeline_stage stage)
{
    return stage < timeline->count && (timeline->left_out & 1u << stage) == 0;
}

struct timeline_bar timeline_bar(const struct timeline *timeline, enum timeline_stage stage)
{
    uint64_t start = stage == 0 ? timeline->begin_us : timeline->end_us[stage - 1];

    return (struct timeline_bar){names[stage], start - timeline->begin_us, timeline->end_us[stage] - start};
}

/* The columns of a bar of BAR_WIDTH that [start, start + duration) covers; at least one. */
static void print_bar(int fd, const struct timeline_bar *bar, uint64_t total_us)
{
    uint64_t scale = total_us == 0 ? 1 : total_us;
    unsigned from = (unsigned)(bar->start_us * BAR_WIDTH / scale);
    unsigned to = (unsigned)((bar->start_us + bar->duration_us) * BAR_WIDTH / scale);
    char cells[BAR_WIDTH * 4 + 1] = "";

    if (from >= BAR_WIDTH)
        from = BAR_WIDTH - 1;
    if (to <= from)
        to = from + 1;
    memset(cells, ' ', from);
    for (unsigned i = from; i < to; i++)
        strcat(cells, to - from == 1 ? "\u258f" : "\u2588");
    dprintf(fd, "  %s", cells);
}

void timeline_print(const struct timeline *timeline, int fd)
{
    bool terminal = isatty(fd) != 0;
    uint64_t total_us = timeline_total_us(timeline);

    dprintf(fd, "%-14s %10s %10s\n", "stage", "from (ms)", "took (ms)");
    for (unsigned stage = 0; stage < timeline->count; stage++) {
        struct timeline_bar bar = timeline_bar(timeline, stage);

        if (!timeline_has(timeline, stage))
            continue;
        dprintf(fd, "%-14s %10.3f %10.3f", bar.name, (double)bar.start_us / 1e3, (double)bar.duration_us / 1e3);
        if (terminal)
            print_bar(fd, &bar, total_us);
        dprintf(fd, "\n");
    }
    dprintf(fd, "%-14s %10s %10.3f\n", "in all", "", (double)total_us / 1e3);
}

void timeline_add_to(const struct timeline *timeline, struct body *body)
{
    body_open_array(body, "timeline");
    for (unsigned stage = 0; stage < timeline->count; stage++) {
        struct timeline_bar bar = timeline_bar(timeline, stage);

        if (!timeline_has(timeline, stage))
            continue;
        body_open_object(body, NULL);
        body_string(body, "stage", bar.name);
        body_integer(body, "start_us", bar.start_us);
        body_integer(body, "duration_us", bar.duration_us);
        body_close_object(body);
    }
    body_close_array(body);
    body_integer(body, "total_us", timeline_total_us(timeline));
}
