/* The timeline as a drawing: a bar a stage, left to right, above an axis in milliseconds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "api/cli/timeline.h"
#include "vmm/base/cleanup.h"

enum { WIDTH = 860, LEFT = 130, RIGHT = 90, TOP = 44, ROW = 26, BAR = 18, TICKS_MIN = 4 };

static const char *const colours[STAGE_COUNT] = {
    [STAGE_PROCESS_START] = "#4e79a7", [STAGE_JAIL] = "#5b85b1",       [STAGE_NETWORK] = "#76b7b2",
    [STAGE_API_READY] = "#6b93bd",     [STAGE_CONFIGURED] = "#86abd0", [STAGE_VCPU_RUNNING] = "#a0cbe8",
    [STAGE_KERNEL] = "#f28e2b",        [STAGE_INIT] = "#ffbe7d",       [STAGE_COMMAND] = "#59a14f",
    [STAGE_EXIT] = "#b07aa1",
};

/* 1, 2 or 5 times a power of ten, so that there are at least TICKS_MIN steps in the whole. */
static uint64_t tick_step(uint64_t total_us)
{
    static const uint64_t factors[] = {5, 2, 1};

    for (uint64_t power = 1000000000; power > 0; power /= 10)
        for (unsigned i = 0; i < 3; i++)
            if (power * factors[i] * TICKS_MIN <= total_us)
                return power * factors[i];
    return 1;
}

static double position(uint64_t us, uint64_t total_us)
{
    return LEFT + (double)(WIDTH - LEFT - RIGHT) * (double)us / (double)total_us;
}

static void draw_axis(FILE *file, uint64_t total_us, int bottom)
{
    uint64_t step = tick_step(total_us);

    for (uint64_t at = 0; at <= total_us; at += step) {
        double x = position(at, total_us);

        fprintf(file, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, TOP - 6, x, bottom);
        fprintf(file, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#555\">%g</text>\n", x, bottom + 16,
                (double)at / 1e3);
    }
    fprintf(file, "<text x=\"%d\" y=\"%d\" fill=\"#555\">ms</text>\n", WIDTH - RIGHT + 30, bottom + 16);
}

static void draw_bar(FILE *file, const struct timeline_bar *bar, const char *colour, uint64_t total_us, int y)
{
    double x = position(bar->start_us, total_us);
    double end = position(bar->start_us + bar->duration_us, total_us);

    fprintf(file, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", LEFT - 10, y + 14, bar->name);
    fprintf(file, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x, y,
            end - x < 1 ? 1 : end - x, BAR, colour);
    fprintf(file, "<text x=\"%.1f\" y=\"%d\" fill=\"#333\">%.2f</text>\n", end + 5, y + 14,
            (double)bar->duration_us / 1e3);
}

struct error *timeline_write_svg(const struct timeline *timeline, int fd)
{
    uint64_t total_us = timeline_total_us(timeline);
    int bottom = TOP, row = TOP;
    cleanup_fd int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *file = own < 0 ? NULL : fdopen(own, "w");

    if (file == NULL)
        return error_errno(errno, "--timeline: cannot write");
    own = -1;
    for (unsigned stage = 0; stage < timeline->count; stage++)
        bottom += timeline_has(timeline, stage) ? ROW : 0;
    if (total_us == 0)
        total_us = 1;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
            "<text x=\"10\" y=\"22\" font-size=\"15\">mayfly run: %.2f ms</text>\n",
            WIDTH, bottom + 30, WIDTH, bottom + 30, (double)total_us / 1e3);
    draw_axis(file, total_us, bottom);
    for (unsigned stage = 0; stage < timeline->count; stage++) {
        struct timeline_bar bar = timeline_bar(timeline, stage);

        if (!timeline_has(timeline, stage))
            continue;
        draw_bar(file, &bar, colours[stage], total_us, row);
        row += ROW;
    }
    fputs("</svg>\n", file);
    if (fclose(file) != 0)
        return error_errno(errno, "--timeline: cannot write");
    return NULL;
}
