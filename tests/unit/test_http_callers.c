/* Callers that stop, leave, never read, are too many or speak in riddles. */
#include "tests/unit/http_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 10 };

static void test_caller_that_stops_halfway_blocks_nobody(void **state)
{
    int slow = dial(), other;

    (void)state;
    say_bytes(slow, PUT_RIGHT, strlen(PUT_RIGHT) - 1);
    wait_until_read(slow);
    other = dial();
    say(other, GET_INSTANCE);
    assert_hears(other, 200, "fake-1");
    say(slow, "}");
    assert_hears(slow, 204, "");
    close(slow);
    close(other);
}

/* As many requests as the server lets in while none of its replies is read; returns the bytes that went. */
static size_t flood(int fd)
{
    static const char request[] = "GET /vm/config HTTP/1.1\r\n\r\n";
    size_t sent = 0, quiet = 0;

    while (quiet < 1000) {
        size_t at = sent % (sizeof(request) - 1);
        ssize_t count = send(fd, request + at, sizeof(request) - 1 - at, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (count < 0) {
            assert_int_equal(errno, EAGAIN);
            quiet++;
            assert_still_serves(); /* which also gives the server the time to read on, if it would */
            continue;
        }
        sent += (size_t)count;
        quiet = 0;
        assert_true(sent < 4 << 20);
    }
    return sent / (sizeof(request) - 1);
}

static void test_caller_that_never_reads_is_not_read_from_for_ever(void **state)
{
    int fd = dial();
    size_t requests = flood(fd);

    (void)state;
    for (size_t i = 0; i < requests; i++)
        assert_hears(fd, 200, "\"balloon\":null");
    close(fd);
    fd = dial();
    flood(fd);
    close(fd);
    assert_still_serves();
}

static void test_caller_may_leave_at_any_byte(void **state)
{
    static const char text[] = PUT_MACHINE "Content-Length: 38\r\nExpect: 100-continue\r\n\r\n" BODY GET_VERSION;

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++) {
        int fd = dial();

        say_bytes(fd, text, i);
        close(fd);
        assert_still_serves();
    }
    for (size_t i = 0; i < sizeof(text); i++) { /* and when the server has read that far */
        int fd = dial();

        say_bytes(fd, text, i);
        wait_until_read(fd);
        close(fd);
    }
    assert_still_serves();
}

static void test_eleventh_connection_is_told_and_the_next_free_place_used(void **state)
{
    int fds[CONNECTIONS_MAX], more;

    (void)state;
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        fds[i] = dial();
        say(fds[i], GET_VERSION);
        assert_hears(fds[i], 200, "");
    }
    more = dial();
    assert_refused(more, 503, "connections");
    close(fds[3]);

    /* The server sees the end of fds[3] no later than what was sent on another connection after it. */
    say(fds[4], GET_VERSION);
    assert_hears(fds[4], 200, "");
    fds[3] = dial();
    say(fds[3], GET_VERSION);
    assert_hears(fds[3], 200, "firecracker_version");
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        close(fds[i]);
}

static void test_mangled_requests_never_harm_the_server(void **state)
{
    static const char right[] = PUT_MACHINE "Transfer-Encoding: chunked\r\n\r\n26\r\n" BODY "\r\n0\r\n\r\n" GET_VERSION;
    unsigned seed = 20240229;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        char text[sizeof(right)], answer[4096];
        int fd = dial();

        memcpy(text, right, sizeof(right));
        for (int i = 0; i < 1 + round % 4; i++) {
            seed = seed * 1103515245 + 12345;
            text[(seed >> 8) % (sizeof(right) - 1)] = (char)(seed >> 20);
        }
        say_bytes(fd, text, sizeof(text) - 1);
        shutdown(fd, SHUT_WR);
        while (recv(fd, answer, sizeof(answer), 0) > 0)
            ;
        close(fd);
    }
    assert_still_serves();
}

static void test_server_ends_with_callers_in_every_state(void **state)
{
    char path[128];
    struct api_server *server;
    int fds[4];

    (void)state;
    snprintf(path, sizeof(path), "%s/other", fixture.directory);
    assert_no_error(start_another(path, &server));
    for (size_t i = 0; i < array_length(fds); i++)
        fds[i] = dial_path(path);
    say(fds[1], "PUT /machine-config HTTP/1.1\r\nContent-Length: 9\r\n\r\n{");
    say(fds[2], GET_VERSION GET_VERSION);
    say(fds[3], "HEAD / HTTP/1.1\r\n\r\n");
    for (size_t i = 1; i < array_length(fds); i++)
        wait_until_read(fds[i]);
    stop_another(server);
    for (size_t i = 0; i < array_length(fds); i++)
        close(fds[i]);
}

TEST_MAIN(TEST(test_caller_that_stops_halfway_blocks_nobody),
          TEST(test_caller_that_never_reads_is_not_read_from_for_ever), TEST(test_caller_may_leave_at_any_byte),
          TEST(test_eleventh_connection_is_told_and_the_next_free_place_used),
          TEST(test_mangled_requests_never_harm_the_server), TEST(test_server_ends_with_callers_in_every_state))
