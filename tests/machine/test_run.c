/* What a command gets from `mayfly run`, and what mayfly tells of it. */
#include "tests/machine/run_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

static void test_output_and_exit_code_are_the_commands(void **state)
{
    struct run *run = start(&usual, COMMAND("echo", "a b", "", "c"));

    (void)state;
    expect_code(run, 0);
    assert_string_equal(output_of(run), "a b  c\n");
    assert_string_equal(errors_of(run), "");
}

static void test_stderr_comes_apart(void **state)
{
    struct run *run = start(&usual, COMMAND("warn", "careful"));

    (void)state;
    expect_code(run, 0);
    assert_string_equal(output_of(run), "");
    assert_string_equal(errors_of(run), "careful\n");
}

static void test_exit_codes_and_signals_are_passed_on(void **state)
{
    static const struct {
        const char *command, *number;
        int code;
    } ends[] = {{"exit", "0", 0}, {"exit", "42", 42}, {"exit", "255", 255}, {"kill", "9", 137}, {"kill", "15", 143}};

    (void)state;
    for (size_t i = 0; i < array_length(ends); i++) {
        expect_code(start(&usual, COMMAND(ends[i].command, ends[i].number)), ends[i].code);
        teardown(NULL);
    }
}

static void test_command_that_is_not_found_is_127_with_the_guests_words(void **state)
{
    struct run *run = start(&usual, COMMAND("missing"));

    (void)state;
    expect_code(run, 127);
    assert_string_equal(errors_of(run), "mayfly: no-such-command: not found in PATH\n");
}

static void test_environment_directory_and_host_name_arrive(void **state)
{
    const struct how how = {.stdin_null = true,
                            .options = COMMAND("--env", "A=1", "--env", "B=two words", "--cwd", "/tmp", "--hostname",
                                               "box", "--memory", "64M", "--vcpus", "2")};
    struct run *run = start(&how, COMMAND("env"));

    (void)state;
    expect_code(run, 0);
    assert_string_equal(output_of(run), "/tmp\nbox\nA=1\nB=two words\nno stdin\n");
}

static void test_input_arrives_and_ends(void **state)
{
    struct run *run = start(&(struct how){0}, COMMAND("cat"));

    (void)state;
    assert_int_equal(write(run->in, "first\n", 6), 6);
    await(run, "first\n");
    assert_int_equal(write(run->in, "second\n", 7), 7);
    await(run, "second\n");
    fd_close(&run->in);
    expect_code(run, 0);
    assert_string_equal(output_of(run), "first\nsecond\n");
}

static void test_closed_stdin_is_none(void **state)
{
    struct run *run = start(&(struct how){.stdin_closed = true}, COMMAND("env"));

    (void)state;
    expect_code(run, 0);
    assert_non_null(strstr(output_of(run), "no stdin\n"));
}

static void test_command_that_ends_does_not_wait_for_input(void **state)
{
    struct run *run = start(&(struct how){0}, COMMAND("exit", "3"));

    (void)state;
    expect_code(run, 3);
}

static void test_much_output_is_intact_for_a_slow_reader(void **state)
{
    enum { PAGES = 300 };
    struct run *run = start(&usual, COMMAND("big", "300"));

    (void)state;
    assert_true(fcntl(run->out, F_SETPIPE_SZ, 4096) >= 4096);
    expect_code(run, 0);
    assert_int_equal(run->output_length, PAGES * 4096);
    for (size_t page = 0; page < PAGES; page++) {
        assert_int_equal(run->output[page * 4096], 'a' + page % 26);
        assert_int_equal(run->output[page * 4096 + 7], 'a' + page % 26);
        assert_int_equal(run->output[page * 4096 + 4095], '.');
    }
}

static void test_reader_that_goes_away_ends_the_command(void **state)
{
    struct run *run = start(&usual, COMMAND("until_signal"));

    (void)state;
    await(run, "more and more\n");
    fd_close(&run->out);
    expect_code(run, 128 + SIGPIPE);
}

static void test_signals_are_passed_on(void **state)
{
    static const struct {
        int signal;
        const char *name;
    } signals[] = {{SIGTERM, "TERM\n"}, {SIGINT, "INT\n"}};

    (void)state;
    for (size_t i = 0; i < array_length(signals); i++) {
        struct run *run = start(&usual, COMMAND("wait"));

        await(run, "waiting\n");
        kill(run->pid, signals[i].signal);
        expect_code(run, 128 + signals[i].signal);
        assert_non_null(strstr(output_of(run), signals[i].name));
        teardown(NULL);
    }
}

static void test_second_signal_ends_a_command_that_ignores_the_first(void **state)
{
    struct run *run = start(&usual, COMMAND("deaf"));

    (void)state;
    await(run, "waiting\n");
    kill(run->pid, SIGINT);
    await(run, "ignored\n");
    kill(run->pid, SIGINT);
    expect_code(run, 128 + SIGINT);
}

static void test_console_output_goes_to_its_file(void **state)
{
    char path[] = "/tmp/mayfly-test-console-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    const struct how how = {.stdin_null = true, .options = COMMAND("--console", path)};
    struct run *run = start(&how, COMMAND("panic"));
    char text[256] = "";

    (void)state;
    expect_code(run, 125);
    unlink(path);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_string_equal(text, "Kernel panic - not syncing: a test\n");
}

static void test_json_tells_code_and_stages(void **state)
{
    static const struct {
        const char *command;
        int code;
        size_t stages;
    } runs[] = {{"exit", 7, 9}, {"panic", 125, 7}};

    (void)state;
    for (size_t i = 0; i < array_length(runs); i++) {
        const struct how how = {.stdin_null = true, .options = COMMAND("--json")};
        struct run *run = start(&how, COMMAND(runs[i].command, "7"));
        const char *line;
        yajl_val tree;

        expect_code(run, runs[i].code);
        line = strstr(errors_of(run), "{\"exit_code\"");
        assert_non_null(line);
        tree = yajl_tree_parse(line, NULL, 0);
        assert_non_null(tree);
        assert_int_equal(YAJL_GET_INTEGER(yajl_tree_get(tree, (const char *[]){"exit_code", NULL}, yajl_t_number)),
                         runs[i].code);
        assert_int_equal(yajl_tree_get(tree, (const char *[]){"timeline", NULL}, yajl_t_array)->u.array.len,
                         runs[i].stages - (jailed() ? 0 : 1));
        assert_true((yajl_tree_get(tree, (const char *[]){"error", NULL}, yajl_t_string) != NULL) ==
                    (runs[i].code == 125));
        yajl_tree_free(tree);
        teardown(NULL);
    }
}

static void test_timeline_is_drawn_where_asked(void **state)
{
    char path[] = "/tmp/mayfly-test-timeline-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    char option[80], text[64] = "";
    const struct how how = {.stdin_null = true, .options = COMMAND(option)};

    (void)state;
    snprintf(option, sizeof(option), "--timeline=%s", path);
    expect_code(start(&how, COMMAND("exit", "0")), 0);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_memory_equal(text, "<svg ", 5);
    unlink(path);
}

TEST_MAIN(cli_test(test_output_and_exit_code_are_the_commands), cli_test(test_stderr_comes_apart),
          cli_test(test_exit_codes_and_signals_are_passed_on),
          cli_test(test_command_that_is_not_found_is_127_with_the_guests_words),
          cli_test(test_environment_directory_and_host_name_arrive), cli_test(test_input_arrives_and_ends),
          cli_test(test_closed_stdin_is_none), cli_test(test_command_that_ends_does_not_wait_for_input),
          cli_test(test_much_output_is_intact_for_a_slow_reader), cli_test(test_reader_that_goes_away_ends_the_command),
          cli_test(test_signals_are_passed_on), cli_test(test_second_signal_ends_a_command_that_ignores_the_first),
          cli_test(test_console_output_goes_to_its_file), cli_test(test_json_tells_code_and_stages),
          cli_test(test_timeline_is_drawn_where_asked))
