/* The API socket: who else is there. */
#include "tests/unit/http_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void test_socket_in_use_is_left_alone(void **state)
{
    struct api_server *server;

    (void)state;
    assert_error(start_another(fixture.path, &server), ERROR_INPUT, "exists already");
    assert_still_serves();
}

static void test_file_that_is_no_socket_is_left_alone(void **state)
{
    struct api_server *server;
    char path[128];

    (void)state;
    snprintf(path, sizeof(path), "%s/file", fixture.directory);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_error(start_another(path, &server), ERROR_INPUT, path);
    assert_int_equal(unlink(path), 0);
}

static void test_socket_that_nobody_listens_on_is_replaced(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct api_server *server;
    struct stat status;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/stale", fixture.directory);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    assert_no_error(start_another(address.sun_path, &server));
    assert_int_equal(stat(address.sun_path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    fd = dial_path(address.sun_path);
    say(fd, GET_INSTANCE);
    assert_hears(fd, 200, "\"app_name\":\"Firecracker\"");
    say(fd, PUT_RIGHT);
    assert_refused(fd, 400, "expected at most 10");
    stop_another(server);
    assert_int_equal(access(address.sun_path, F_OK), -1);
}

static void test_path_that_no_socket_can_have_is_refused(void **state)
{
    struct api_server *server;
    char path[200];

    (void)state;
    memset(path, 'a', sizeof(path));
    path[108] = '\0';
    assert_error(start_another(path, &server), ERROR_INPUT, "has 108 bytes, expected 1 to 107");
    assert_error(start_another("", &server), ERROR_INPUT, "has 0 bytes");
    assert_error(start_another("/nonexistent/api", &server), ERROR_HOST, "No such file or directory");
}

TEST_MAIN(TEST(test_socket_in_use_is_left_alone), TEST(test_file_that_is_no_socket_is_left_alone),
          TEST(test_socket_that_nobody_listens_on_is_replaced), TEST(test_path_that_no_socket_can_have_is_refused))
