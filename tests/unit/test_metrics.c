#include "tests/unit/harness.h"

#include "tests/unit/metrics_line.h"

#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

enum { TEXT_MAX = 64 * 1024 };

static int ends[2]; /* of a pipe: [0] to read, [1] to write, both non-blocking */

static int setup(void **state)
{
    (void)state;
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    return metrics_prepare(NULL) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* All that is in the pipe. */
static const char *drain(void)
{
    static char text[TEXT_MAX];
    size_t used = 0;
    ssize_t count;

    while ((count = read(ends[0], text + used, sizeof(text) - 1 - used)) > 0)
        used += (size_t)count;
    text[used] = '\0';
    return text;
}

static yajl_val parse(const char *line)
{
    char error[256] = "";
    yajl_val tree = yajl_tree_parse(line, error, sizeof(error));

    if (tree == NULL)
        fail_msg("not JSON: %s in %s", error, line);
    return tree;
}

static void test_line_is_json_with_a_time_and_an_end(void **state)
{
    const char *stamp[] = {"utc_timestamp_ms", NULL};

    (void)state;
    assert_no_error(metrics_write(ends[1]));
    const char *line = drain();
    assert_int_equal(line[strlen(line) - 1], '\n');
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);

    yajl_val tree = parse(line);
    assert_true(YAJL_GET_INTEGER(yajl_tree_get(tree, stamp, yajl_t_number)) > 1600000000000);
    yajl_tree_free(tree);
}

static void test_counter_tells_what_was_added_since_the_last_line(void **state)
{
    (void)state;
    metrics_line_next("block", "read_bytes");
    METRIC_ADD(block.read_bytes, 4096);
    assert_int_equal(metrics_line_next("block", "read_bytes"), 4096);
    assert_int_equal(metrics_line_next("block", "read_bytes"), 0);
    METRIC_INCREMENT(sigpipe);
    assert_int_equal(metrics_line_next("signals", "sigpipe"), 1);
}

static void test_value_tells_what_it_is(void **state)
{
    (void)state;
    metrics.start_time_us = 1234;
    assert_int_equal(metrics_line_next("api_server", "process_startup_time_us"), 1234);
    assert_int_equal(metrics_line_next("api_server", "process_startup_time_us"), 1234);
}

static long long latency(const char *key, const char *member)
{
    const char *path[] = {"memory_hotplug", key, member, NULL};
    yajl_val line = metrics_line();
    yajl_val value = yajl_tree_get(line, path, yajl_t_number);

    assert_non_null(value);
    long long number = YAJL_GET_INTEGER(value);
    yajl_tree_free(line);
    return number;
}

static void test_durations_tell_the_shortest_the_longest_and_what_was_added(void **state)
{
    struct latency *plug = &metrics.memory_hotplug.plug;

    (void)state;
    assert_int_equal(latency("plug_agg", "min_us"), 0);
    latency_add(plug, 30);
    latency_add(plug, 10);
    latency_add(plug, 20);
    assert_int_equal(latency("plug_agg", "sum_us"), 60);
    assert_int_equal(latency("plug_agg", "sum_us"), 0);
    assert_int_equal(latency("plug_agg", "min_us"), 10);
    assert_int_equal(latency("plug_agg", "max_us"), 30);
    assert_int_equal(latency("unplug_agg", "max_us"), 0);
}

static void test_largest_numbers_fit_the_line(void **state)
{
    struct metrics saved = metrics;

    (void)state;
    memset(&metrics, 0xff, sizeof(metrics));
    assert_no_error(metrics_write(ends[1]));
    yajl_val tree = parse(drain());
    yajl_tree_free(tree);
    metrics = saved;
    assert_no_error(metrics_write(ends[1]));
    drain();
}

static void test_full_pipe_loses_no_count_and_mixes_no_lines(void **state)
{
    uint64_t before = metrics.logger.missed_metrics_count;
    long long sum = 0;
    char *text, *rest;

    (void)state;
    fcntl(ends[1], F_SETPIPE_SZ, 4096);
    for (int i = 0; i < 10; i++) {
        METRIC_ADD(net.tx_count, 3);
        assert_no_error(metrics_write(ends[1]));
    }
    assert_true(metrics.logger.missed_metrics_count > before);

    text = rest = calloc(1, TEXT_MAX);
    for (int i = 0; i < 10; i++) {
        rest = stpcpy(rest, drain());
        assert_no_error(metrics_write(ends[1]));
    }
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        const char *path[] = {"net", "tx_count", NULL};
        char error[64];
        yajl_val tree = yajl_tree_parse(line, error, sizeof(error));

        if (tree == NULL) { /* the last one may still be on its way */
            assert_int_equal(*rest, '\0');
            break;
        }
        sum += YAJL_GET_INTEGER(yajl_tree_get(tree, path, yajl_t_number));
        yajl_tree_free(tree);
    }
    free(text);
    assert_int_equal(sum, 30);
}

static void test_broken_file_is_an_error_that_names_the_field(void **state)
{
    int fd = open("/dev/full", O_WRONLY);

    (void)state;
    assert_error(metrics_write(fd), ERROR_HOST, "metrics_path: cannot write the metrics: No space left");
    close(fd);
}

static void test_members_are_carried_by_every_line(void **state)
{
    const char *id[] = {"id", NULL};
    const char *color[] = {"properties", "color", NULL};

    (void)state;
    assert_true(metrics_prepare("\"id\":\"vm-1\",\"properties\":{\"color\":\"red\"}"));
    for (int i = 0; i < 2; i++) {
        assert_no_error(metrics_write(ends[1]));
        yajl_val tree = parse(drain());
        assert_string_equal(YAJL_GET_STRING(yajl_tree_get(tree, id, yajl_t_string)), "vm-1");
        assert_string_equal(YAJL_GET_STRING(yajl_tree_get(tree, color, yajl_t_string)), "red");
        yajl_tree_free(tree);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(test_line_is_json_with_a_time_and_an_end), TEST(test_counter_tells_what_was_added_since_the_last_line),
          TEST(test_value_tells_what_it_is), TEST(test_largest_numbers_fit_the_line),
          TEST(test_durations_tell_the_shortest_the_longest_and_what_was_added),
          TEST(test_full_pipe_loses_no_count_and_mixes_no_lines),
          TEST(test_broken_file_is_an_error_that_names_the_field), TEST(test_members_are_carried_by_every_line))
