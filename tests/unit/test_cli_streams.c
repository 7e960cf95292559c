/* Bytes that `mayfly run` passes on or keeps. */
#include "tests/unit/harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/cli/pump.h"
#include "api/cli/tail.h"

/* What tail_show prints. */
static void shown(const struct tail *tail, size_t lines, char text[4096])
{
    int ends[2];
    ssize_t got;

    assert_int_equal(pipe(ends), 0);
    tail_show(tail, ends[1], "> ", lines);
    close(ends[1]);
    got = read(ends[0], text, 4095);
    assert_true(got >= 0);
    text[got] = '\0';
    close(ends[0]);
}

static void test_tail_shows_the_last_lines_without_control_characters(void **state)
{
    struct tail tail = {0};
    char text[4096];

    (void)state;
    tail_add(&tail, "one\r\ntwo\n\x1b[31mthree", 19);
    shown(&tail, 10, text);
    assert_string_equal(text, "> one\n> two\n> ?[31mthree\n");
    shown(&tail, 2, text);
    assert_string_equal(text, "> two\n> ?[31mthree\n");
}

static void test_tail_keeps_the_end_of_a_long_stream(void **state)
{
    struct tail tail = {0};
    char text[4096];

    (void)state;
    for (int i = 0; i < 100000; i++)
        tail_add(&tail, "noise\n", 6);
    tail_add(&tail, "the end\n", 8);
    shown(&tail, 2, text);
    assert_string_equal(text, "> noise\n> the end\n");
}

/* One turn of a pump, as the session's loop does it; false when there is nothing to do now. */
static bool turn(struct pump *pump)
{
    struct pollfd wait[2];

    pump_poll(pump, wait);
    if (poll(wait, 2, 0) <= 0)
        return false;
    pump_run(pump, wait);
    return true;
}

static void test_pump_does_not_block_on_a_full_pipe_and_loses_nothing(void **state)
{
    enum { LENGTH = 300000 };
    cleanup_free char *sent = malloc(LENGTH);
    cleanup_free char *received = malloc(LENGTH);
    int source[2], sink[2];
    size_t written = 0, taken = 0;
    struct pump pump;

    (void)state;
    for (size_t i = 0; i < LENGTH; i++)
        sent[i] = (char)(i * 31 + i / 997);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, source), 0);
    assert_int_equal(pipe(sink), 0); /* blocking: a write too many would hang the test */
    pump_init(&pump, source[1], sink[1]);
    while (taken < LENGTH) {
        ssize_t got = written < LENGTH ? send(source[0], sent + written, LENGTH - written, MSG_DONTWAIT) : 0;

        if (got > 0)
            written += (size_t)got;
        while (turn(&pump))
            ;
        got = read(sink[0], received + taken, LENGTH - taken < 10000 ? LENGTH - taken : 10000);
        assert_true(got > 0);
        taken += (size_t)got;
    }
    assert_memory_equal(received, sent, LENGTH);
    assert_int_equal(pump.taken, LENGTH);
    assert_false(pump_done(&pump));
    close(source[0]);
    assert_true(turn(&pump));
    assert_true(pump_done(&pump));
    close(source[1]);
    close(sink[0]);
    close(sink[1]);
    pump_free(&pump);
}

static void test_pump_whose_reader_is_gone_counts_and_throws_away(void **state)
{
    int source[2], sink[2];
    struct pump pump;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, source), 0);
    assert_int_equal(pipe(sink), 0);
    close(sink[0]);
    pump_init(&pump, source[1], sink[1]);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(write(source[0], "12345", 5), 5);
        while (turn(&pump))
            ;
    }
    assert_int_equal(pump.error, EPIPE);
    assert_int_equal(pump.taken, 15);
    assert_true(pump_empty(&pump));
    close(source[0]);
    close(source[1]);
    close(sink[1]);
    pump_free(&pump);
}

TEST_MAIN(cmocka_unit_test(test_tail_shows_the_last_lines_without_control_characters),
          cmocka_unit_test(test_tail_keeps_the_end_of_a_long_stream),
          cmocka_unit_test(test_pump_does_not_block_on_a_full_pipe_and_loses_nothing),
          cmocka_unit_test(test_pump_whose_reader_is_gone_counts_and_throws_away))
