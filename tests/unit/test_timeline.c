#include "tests/unit/harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

#include "api/cli/timeline.h"

/* A timeline of known times: stage n takes n + 1 milliseconds. */
static struct timeline known(unsigned stages)
{
    struct timeline timeline = {.begin_us = 1000000, .count = stages};
    uint64_t end = timeline.begin_us;

    for (unsigned stage = 0; stage < stages; stage++) {
        end += (stage + 1) * 1000;
        timeline.end_us[stage] = end;
    }
    return timeline;
}

static void read_back(const char *path, char text[16384])
{
    FILE *file = fopen(path, "re");
    size_t length;

    assert_non_null(file);
    length = fread(text, 1, 16383, file);
    text[length] = '\0';
    fclose(file);
}

static void test_table_names_every_stage_with_its_time(void **state)
{
    static const char *const names[STAGE_COUNT] = {"process start", "jail",   "API ready", "configured", "vCPU running",
                                                   "network",       "kernel", "init",      "command",    "exit"};
    struct timeline timeline = known(STAGE_COUNT);
    char path[] = "/tmp/mayfly-test-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    char text[16384];
    char *at = text;

    (void)state;
    timeline_print(&timeline, fd);
    read_back(path, text);
    unlink(path);
    for (unsigned stage = 0; stage < STAGE_COUNT; stage++) {
        char line[128];

        snprintf(line, sizeof(line), "%-14s %10.3f %10.3f\n", names[stage], (double)(stage * (stage + 1)) / 2,
                 (double)stage + 1);
        at = strstr(at, line);
        assert_non_null(at);
    }
    assert_non_null(strstr(at, "55.000\n"));
    assert_null(strchr(text, '\xe2')); /* bars are for terminals */
}

static void test_guest_cannot_turn_time_back(void **state)
{
    struct timeline timeline;

    (void)state;
    timeline_begin(&timeline);
    timeline_end(&timeline, STAGE_PROCESS_START);
    timeline_end_ago(&timeline, STAGE_KERNEL, UINT64_MAX);
    timeline_end_ago(&timeline, STAGE_INIT, 3600000000ull);
    timeline_end(&timeline, STAGE_KERNEL); /* a second time: the first counts */
    assert_int_equal(timeline.count, STAGE_INIT + 1);
    for (unsigned stage = 1; stage < timeline.count; stage++)
        assert_true(timeline.end_us[stage] >= timeline.end_us[stage - 1]);
    assert_int_equal(timeline_bar(&timeline, STAGE_KERNEL).duration_us, 0);
}

static void test_stage_that_was_left_out_is_not_shown(void **state)
{
    struct timeline timeline;
    struct body *body = body_new();
    const char *text;
    size_t length;

    (void)state;
    timeline_begin(&timeline);
    timeline_end(&timeline, STAGE_VCPU_RUNNING);
    timeline_end(&timeline, STAGE_KERNEL);
    assert_true(timeline_has(&timeline, STAGE_VCPU_RUNNING));
    assert_false(timeline_has(&timeline, STAGE_NETWORK));
    assert_true(timeline_has(&timeline, STAGE_KERNEL));
    assert_false(timeline_has(&timeline, STAGE_INIT));
    timeline_add_to(&timeline, body);
    text = body_text(body, &length);
    assert_non_null(strstr(text, "\"kernel\""));
    assert_null(strstr(text, "\"network\""));
    assert_null(strstr(text, "\"jail\""));
    body_free(body);
}

static void test_json_of_a_run_that_failed_has_the_stages_that_ended(void **state)
{
    struct timeline timeline = known(3);
    struct body *body = body_new();
    size_t length;
    yajl_val tree, stages;

    (void)state;
    timeline_add_to(&timeline, body);
    tree = yajl_tree_parse(body_text(body, &length), NULL, 0);
    assert_non_null(tree);
    stages = yajl_tree_get(tree, (const char *[]){"timeline", NULL}, yajl_t_array);
    assert_non_null(stages);
    assert_int_equal(stages->u.array.len, 3);
    assert_int_equal(
        YAJL_GET_INTEGER(yajl_tree_get(stages->u.array.values[2], (const char *[]){"start_us", NULL}, yajl_t_number)),
        3000);
    assert_int_equal(YAJL_GET_INTEGER(yajl_tree_get(tree, (const char *[]){"total_us", NULL}, yajl_t_number)), 6000);
    yajl_tree_free(tree);
    body_free(body);
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;

    while ((text = strstr(text, part)) != NULL) {
        count++;
        text++;
    }
    return count;
}

static void test_drawing_has_a_bar_a_stage_within_its_frame(void **state)
{
    char path[] = "/tmp/mayfly-test-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    char text[16384];

    (void)state;
    assert_true(fd >= 0);
    for (unsigned stages = 0; stages <= STAGE_COUNT; stages++) {
        struct timeline timeline = known(stages);

        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        assert_no_error(timeline_write_svg(&timeline, fd));
        read_back(path, text);
        assert_int_equal(count_of(text, "<rect "), stages + 1); /* and the background */
        assert_int_equal(count_of(text, "<text "), count_of(text, "</text>"));
        assert_memory_equal(text, "<svg ", 5);
        assert_non_null(strstr(text, "</svg>\n"));
        assert_in_range(count_of(text, "<line "), stages == 0 ? 1 : 4, 12);
    }
    unlink(path);
}

static void test_drawing_that_cannot_be_written_is_an_error(void **state)
{
    struct timeline timeline = known(1);
    cleanup_fd int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(full >= 0);
    assert_error(timeline_write_svg(&timeline, full), ERROR_HOST, "--timeline: cannot write");
    assert_int_equal(fcntl(full, F_GETFD), FD_CLOEXEC);
}

TEST_MAIN(cmocka_unit_test(test_table_names_every_stage_with_its_time),
          cmocka_unit_test(test_guest_cannot_turn_time_back),
          cmocka_unit_test(test_stage_that_was_left_out_is_not_shown),
          cmocka_unit_test(test_json_of_a_run_that_failed_has_the_stages_that_ended),
          cmocka_unit_test(test_drawing_has_a_bar_a_stage_within_its_frame),
          cmocka_unit_test(test_drawing_that_cannot_be_written_is_an_error))
