#include "tests/unit/harness.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/output_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pty.h>
#include <signal.h>
#include <string.h>

/* A pipe that blocks, as a caller's stdout does, full to the last byte. */
static void full_pipe(int pipe_fds[2])
{
    static const char junk[PIPE_BUF];

    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    while (write(pipe_fds[1], junk, sizeof(junk)) > 0 || write(pipe_fds[1], junk, 1) > 0)
        ;
    assert_int_equal(fcntl(pipe_fds[1], F_SETFL, 0), 0);
}

static void test_full_pipe_that_blocks_is_not_waited_for(void **state)
{
    int pipe_fds[2];

    (void)state;
    full_pipe(pipe_fds);
    errno = 0;
    assert_int_equal(output_write(pipe_fds[1], "x", 1), -1);
    assert_int_equal(errno, EAGAIN);

    char drained[PIPE_BUF];
    assert_int_equal(read(pipe_fds[0], drained, sizeof(drained)), sizeof(drained));
    assert_int_equal(output_write(pipe_fds[1], "y", 1), 1);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void test_pipe_without_reader_is_told(void **state)
{
    int pipe_fds[2];

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    close(pipe_fds[0]);
    errno = 0;
    assert_int_equal(output_write(pipe_fds[1], "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    close(pipe_fds[1]);
}

static void test_file_is_appended_to(void **state)
{
    char path[] = "/tmp/mayfly-test-output-XXXXXX", text[8] = "";
    cleanup_fd int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(output_write(fd, "one", 3), 3);
    assert_int_equal(output_write(fd, "two", 3), 3);
    assert_int_equal(pread(fd, text, sizeof(text) - 1, 0), 6);
    assert_string_equal(text, "onetwo");
}

static void test_terminal_takes_what_it_has_room_for(void **state)
{
    int leader, follower;
    char text[4] = "";

    (void)state;
    assert_int_equal(openpty(&leader, &follower, NULL, NULL, NULL), 0);
    assert_int_equal(output_write(follower, "abc", 3), 3);
    assert_int_equal(read(leader, text, sizeof(text)), 3);
    assert_string_equal(text, "abc");

    /* Nobody reads: in the end it would wait. */
    ssize_t written;
    while ((written = output_write(follower, "abc", 3)) > 0)
        ;
    assert_int_equal(written, -1);
    assert_int_equal(errno, EAGAIN);
    close(leader);
    close(follower);
}

TEST_MAIN(cmocka_unit_test(test_full_pipe_that_blocks_is_not_waited_for),
          cmocka_unit_test(test_pipe_without_reader_is_told), cmocka_unit_test(test_file_is_appended_to),
          cmocka_unit_test(test_terminal_takes_what_it_has_room_for))
