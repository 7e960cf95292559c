#include "tests/unit/harness.h"

#include "vmm/base/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static int log_fd;

/* Each test has a log of its own. */
static int setup(void **state)
{
    (void)state;
    log_fd = memfd_create("log", MFD_CLOEXEC);
    assert_true(log_fd >= 0);
    log_set_instance("instance");
    log_set_level(LOG_LEVEL_INFO);
    log_set_format(false, false);
    log_set_module(NULL);
    log_set_fd(fcntl(log_fd, F_DUPFD_CLOEXEC, 3));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_set_fd(STDERR_FILENO);
    close(log_fd);
    return 0;
}

static const char *written(void)
{
    static char text[1 << 20];
    ssize_t got = pread(log_fd, text, sizeof(text) - 1, 0);

    text[got > 0 ? got : 0] = '\0';
    return text;
}

static unsigned lines(void)
{
    unsigned count = 0;

    for (const char *at = written(); (at = strchr(at, '\n')) != NULL; at++)
        count++;
    return count;
}

static void assert_has(const char *text)
{
    if (strstr(written(), text) == NULL)
        fail_msg("the log is \"%s\", expected \"%s\"", written(), text);
}

static void test_line_tells_who_and_where(void **state)
{
    struct log_site site = {.file = "vmm/somewhere.c", .line = 12, .level = LOG_LEVEL_ERROR};

    (void)state;
    log_write(&site, "%s %d", "text", 5);
    assert_has(" [instance:main] text 5\n");
    log_set_format(true, true);
    log_write(&site, "more");
    assert_has(" [instance:main:ERROR:vmm/somewhere.c:12] more\n");
}

static void test_text_of_others_cannot_forge_a_line(void **state)
{
    struct log_site site = {.file = "a.c", .level = LOG_LEVEL_INFO};

    (void)state;
    log_write(&site, "path '%s'", "a\n2026-01-01 [other:main] forged\x1b[2J\x7f");
    assert_int_equal(lines(), 1);
    assert_has("'a?2026-01-01 [other:main] forged?[2J?'\n");
}

static void test_long_line_is_cut_and_ends(void **state)
{
    struct log_site site = {.file = "a.c", .level = LOG_LEVEL_INFO};
    char text[8192];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_write(&site, "%s", text);
    assert_int_equal(lines(), 1);
    assert_true(strlen(written()) < 4096);
}

static void test_line_of_a_thousand_bytes_is_whole(void **state)
{
    struct log_site site = {.file = "a.c", .level = LOG_LEVEL_INFO};
    char text[1001];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_write(&site, "begins %s ends", text);
    assert_int_equal(lines(), 1);
    assert_has("] begins xxxx");
    assert_has("xxxx ends\n");
    assert_true(strlen(written()) > sizeof(text));
}

static void test_levels_and_modules_filter(void **state)
{
    struct log_site here = {.file = "vmm/virtio/block.c", .level = LOG_LEVEL_ERROR};
    struct log_site there = {.file = "api/server.c", .level = LOG_LEVEL_ERROR};

    (void)state;
    log_set_level(LOG_LEVEL_WARNING);
    log_info("hidden");
    log_warning("shown");
    assert_has("shown");
    log_set_module("vmm/virtio");
    log_write(&here, "device");
    log_write(&there, "elsewhere");
    assert_has("device");
    assert_null(strstr(written(), "hidden"));
    assert_null(strstr(written(), "elsewhere"));
}

static void test_site_that_repeats_itself_is_limited_and_counted(void **state)
{
    struct log_site site = {.file = "a.c", .level = LOG_LEVEL_INFO};
    uint64_t before = log_suppressed();

    (void)state;
    for (int i = 0; i < 1000; i++)
        log_write(&site, "again");
    /* A new period may have begun in between. */
    assert_true(lines() >= LOG_LINES_PER_PERIOD && lines() <= 2 * LOG_LINES_PER_PERIOD);
    assert_int_equal(log_suppressed() - before, 1000 - lines());

    site.period--; /* as if it had been a while ago */
    site.suppressed = 7;
    log_write(&site, "later");
    assert_has("later (and 7 more like it)\n");
}

static void test_site_without_a_limit_writes_every_line(void **state)
{
    struct log_site site = {.file = "a.c", .level = LOG_LEVEL_INFO, .unlimited = true};
    uint64_t before = log_suppressed();

    (void)state;
    for (int i = 0; i < 3 * LOG_LINES_PER_PERIOD; i++)
        log_write(&site, "request");
    assert_int_equal(lines(), 3 * LOG_LINES_PER_PERIOD);
    assert_int_equal(log_suppressed() - before, 0);
}

static void test_destination_that_is_full_drops_and_counts(void **state)
{
    struct log_site site = {.file = "a.c", .level = LOG_LEVEL_INFO};
    char junk[4096] = {0};
    int pipe_fds[2];
    uint64_t before = log_dropped();

    (void)state;
    assert_int_equal(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
    while (write(pipe_fds[1], junk, sizeof(junk)) > 0 || write(pipe_fds[1], junk, 1) > 0)
        ;
    log_set_fd(pipe_fds[1]);
    log_write(&site, "lost");
    log_write(&site, "lost");
    assert_int_equal(log_dropped() - before, 2);
    log_set_fd(STDERR_FILENO);
    close(pipe_fds[0]);
}

/* A log of which each read(2) takes what one write(2) brought. */
static int packets_new(void)
{
    int ends[2];

    assert_int_equal(pipe2(ends, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
    log_set_fd(ends[1]);
    return ends[0];
}

/* The next packet is of lines that end in just these texts. */
static void assert_packet(int packets, const char *first, const char *second)
{
    char text[4096];
    ssize_t length = read(packets, text, sizeof(text) - 1);

    assert_true(length > 0);
    text[length] = '\0';
    char *end = strchr(text, '\n');
    assert_non_null(end);
    *end = '\0';
    assert_string_equal(strstr(text, "] "), first);
    if (second == NULL) {
        assert_string_equal(end + 1, "");
        return;
    }
    assert_int_equal(text[length - 1], '\n');
    text[length - 1] = '\0';
    assert_string_equal(strstr(end + 1, "] "), second);
}

static void test_line_that_is_held_leaves_with_the_next_in_one_write(void **state)
{
    struct log_held held;
    int packets = packets_new();

    (void)state;
    log_info_held(&held, "request %d", 1);
    log_info("outcome");
    log_info("later");
    log_release();
    assert_packet(packets, "] request 1", "] outcome");
    assert_packet(packets, "] later", NULL);

    log_info_held(&held, "alone");
    log_release();
    log_info_held(&held, "first");
    log_info_held(&held, "second");
    log_release();
    assert_packet(packets, "] alone", NULL);
    assert_packet(packets, "] first", NULL);
    assert_packet(packets, "] second", NULL);
    close(packets);
}

static void test_line_that_is_held_goes_before_one_too_long_for_its_room(void **state)
{
    struct log_held held;
    char text[1501];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_info_held(&held, "request");
    log_info("begins %s ends", text);
    log_info_held(&held, "long request %s ends", text);
    log_info("outcome");
    log_release();
    assert_int_equal(lines(), 4);
    const char *at = written();
    const char *const wanted[] = {"] request\n",        "] begins xxx", "xxx ends\n",
                                  "] long request xxx", "xxx ends\n",   "] outcome\n"};
    for (size_t i = 0; i < array_length(wanted); i++) {
        at = strstr(at, wanted[i]);
        assert_non_null(at);
        at++;
    }
}

static void test_lines_below_the_level_are_not_held(void **state)
{
    struct log_held held;

    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    log_info_held(&held, "hidden");
    log_error("shown");
    log_release();
    assert_int_equal(lines(), 1);
    assert_has("shown\n");
}

static void test_where_there_is_room_for_one_of_two_lines_the_first_is_written(void **state)
{
    enum { PIPE_SIZE = 4096, ROOM = 120 }; /* a line of these has some 90 bytes */
    struct log_held held;
    char text[PIPE_SIZE + 1] = {0};
    int ends[2];
    uint64_t before = log_dropped();

    (void)state;
    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE), PIPE_SIZE);
    assert_int_equal(write(ends[1], text, PIPE_SIZE - ROOM), PIPE_SIZE - ROOM);
    log_set_fd(ends[1]);
    log_info_held(&held, "%040d", 1);
    log_info("%040d", 2);
    assert_int_equal(log_dropped() - before, 1);
    assert_int_equal(read(ends[0], text, PIPE_SIZE - ROOM), PIPE_SIZE - ROOM);
    ssize_t length = read(ends[0], text, PIPE_SIZE);
    assert_true(length > 2 && memcmp(text + length - 2, "1\n", 2) == 0);
    log_info_held(&held, "%040d", 3);
    log_info("%040d", 4);
    assert_int_equal(log_dropped() - before, 1);
    close(ends[0]);
}

static volatile sig_atomic_t interruptions;

static void interrupted(int signal)
{
    struct log_site site = {.file = "handler.c", .level = LOG_LEVEL_INFO};

    log_write(&site, "signal %d", signal);
    interruptions = interruptions + 1;
}

static void test_handler_of_a_signal_may_log_in_the_middle_of_a_line(void **state)
{
    const struct sigaction action = {.sa_handler = interrupted, .sa_flags = SA_RESTART};
    /* Not so often that a system call that each signal starts anew never ends. */
    const struct itimerval often = {.it_interval = {.tv_usec = 2000}, .it_value = {.tv_usec = 2000}};
    const struct itimerval never = {0};

    (void)state;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int i = 0; interruptions < 100; i++) {
        struct log_site site = {.file = "a.c", .level = LOG_LEVEL_INFO};

        log_write(&site, "line %d of many", i);
        if (i % 1000 == 0)
            assert_int_equal(ftruncate(log_fd, 0), 0);
    }
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    signal(SIGALRM, SIG_DFL);
}

static void test_signal_takes_the_line_along_that_is_held(void **state)
{
    const struct sigaction action = {.sa_handler = interrupted};
    struct log_held held;
    int packets = packets_new();

    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    log_info_held(&held, "request");
    raise(SIGUSR1);
    log_info("outcome");
    log_release();
    assert_packet(packets, "] request", "] signal 10");
    assert_packet(packets, "] outcome", NULL);
    signal(SIGUSR1, SIG_DFL);
    close(packets);
}

#define LOG_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(LOG_TEST(test_line_tells_who_and_where), LOG_TEST(test_text_of_others_cannot_forge_a_line),
          LOG_TEST(test_long_line_is_cut_and_ends), LOG_TEST(test_line_of_a_thousand_bytes_is_whole),
          LOG_TEST(test_levels_and_modules_filter), LOG_TEST(test_site_that_repeats_itself_is_limited_and_counted),
          LOG_TEST(test_site_without_a_limit_writes_every_line),
          LOG_TEST(test_destination_that_is_full_drops_and_counts),
          LOG_TEST(test_line_that_is_held_leaves_with_the_next_in_one_write),
          LOG_TEST(test_line_that_is_held_goes_before_one_too_long_for_its_room),
          LOG_TEST(test_lines_below_the_level_are_not_held),
          LOG_TEST(test_where_there_is_room_for_one_of_two_lines_the_first_is_written),
          LOG_TEST(test_signal_takes_the_line_along_that_is_held),
          LOG_TEST(test_handler_of_a_signal_may_log_in_the_middle_of_a_line))
