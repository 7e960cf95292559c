#include "tests/unit/harness.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/client/client.h"
#include "api/client/connect.h"
#include "vmm/base/clock.h"

/* A server that reads until `expected` has come, then answers with `answer` in pieces, then maybe closes. */
struct server {
    int fd;
    const char *expected;
    const char *answer;
    size_t piece; /* bytes sent at once; 0: all */
    bool closes;
    char received[4096];
    pthread_t thread;
};

static void *server_main(void *argument)
{
    struct server *server = argument;
    size_t length = 0, answer_length = strlen(server->answer);
    size_t piece = server->piece != 0 ? server->piece : answer_length;

    while (strstr(server->received, server->expected) == NULL && length < sizeof(server->received) - 1) {
        ssize_t got = read(server->fd, server->received + length, sizeof(server->received) - 1 - length);

        if (got <= 0)
            break;
        length += (size_t)got;
    }
    for (size_t at = 0; at < answer_length; at += piece) {
        size_t count = answer_length - at < piece ? answer_length - at : piece;

        if (write(server->fd, server->answer + at, count) < 0)
            break;
    }
    if (server->closes)
        shutdown(server->fd, SHUT_RDWR);
    return NULL;
}

static struct api_client *server_start(struct server *server)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    server->fd = pair[1];
    assert_int_equal(pthread_create(&server->thread, NULL, server_main, server), 0);
    return api_client_new(pair[0]);
}

static void server_end(struct server *server, struct api_client *client)
{
    pthread_join(server->thread, NULL);
    api_client_free(client);
    close(server->fd);
}

static void test_client_sends_a_request_and_reads_the_answer(void **state)
{
    struct server server = {.expected = "}", .answer = "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n"};
    struct api_client *client = server_start(&server);
    struct body *body = body_new();

    (void)state;
    body_string(body, "action_type", "Instance\"Start");
    body_integer(body, "n", 42);
    body_open_array(body, "list");
    body_boolean(body, NULL, true);
    body_close_array(body);
    body_string(body, "left_out", NULL);
    assert_no_error(api_client_put(client, "/actions", body));
    server_end(&server, client);
    assert_non_null(strstr(server.received, "PUT /actions HTTP/1.1\r\n"));
    assert_non_null(strstr(server.received, "\r\nContent-Length: 54\r\n"));
    assert_non_null(
        strstr(server.received, "\r\n\r\n{\"action_type\":\"Instance\\\"Start\",\"n\":42,\"list\":[true]}"));
}

static void test_client_reads_an_answer_that_comes_byte_by_byte(void **state)
{
    struct server server = {.expected = "\r\n\r\n",
                            .answer =
                                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
                            .piece = 1};
    struct api_client *client = server_start(&server);
    struct api_response response;

    (void)state;
    assert_no_error(api_client_request(client, "GET", "/", NULL, 0, &response));
    assert_int_equal(response.status, 200);
    assert_string_equal(response.body, "{\"a\":1}");
    api_response_free(&response);
    server_end(&server, client);
}

static void test_client_passes_on_what_the_server_says_is_wrong(void **state)
{
    struct server server = {.expected = "}",
                            .answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 29\r\n\r\n"
                                      "{\"fault_message\":\"too \\\"big\"}"};
    struct api_client *client = server_start(&server);

    (void)state;
    assert_error(api_client_action(client, "InstanceStart"), ERROR_INPUT, "PUT /actions: too \"big");
    server_end(&server, client);
}

static void test_client_survives_an_error_body_that_is_not_json(void **state)
{
    struct server server = {.expected = "}", .answer = "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops"};
    struct api_client *client = server_start(&server);

    (void)state;
    assert_error(api_client_action(client, "InstanceStart"), ERROR_INPUT, "refused without a reason");
    server_end(&server, client);
}

static void test_client_reports_a_server_that_hangs_up(void **state)
{
    static const char *const answers[] = {"", "HTTP/1.1 200 OK\r\nContent-Le",
                                          "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"};

    (void)state;
    for (size_t i = 0; i < array_length(answers); i++) {
        struct server server = {.expected = "\r\n\r\n", .answer = answers[i], .closes = true};
        struct api_client *client = server_start(&server);
        struct api_response response;

        assert_error(api_client_request(client, "GET", "/", NULL, 0, &response), ERROR_HOST, "GET /: ");
        /* And it is not used again. */
        assert_error(api_client_request(client, "GET", "/", NULL, 0, &response), ERROR_HOST, "connection is closed");
        server_end(&server, client);
    }
}

static void test_client_reports_an_answer_that_is_not_http(void **state)
{
    struct server server = {.expected = "\r\n\r\n", .answer = "SSH-2.0-OpenSSH\r\n"};
    struct api_client *client = server_start(&server);
    struct api_response response;

    (void)state;
    assert_error(api_client_request(client, "GET", "/", NULL, 0, &response), ERROR_HOST, "not HTTP");
    server_end(&server, client);
}

static void test_client_gives_up_at_its_timeout(void **state)
{
    struct server server = {.expected = "never sent", .answer = ""};
    struct api_client *client = server_start(&server);
    struct api_response response;

    (void)state;
    api_client_set_timeout(client, 20);
    assert_error(api_client_request(client, "GET", "/", NULL, 0, &response), ERROR_HOST, "no answer within 20 ms");
    shutdown(server.fd, SHUT_RDWR);
    server_end(&server, client);
}

static void test_client_refuses_text_that_is_not_utf8(void **state)
{
    struct api_client *client = api_client_new(-1);
    struct body *body = body_new();

    (void)state;
    body_string(body, "path", "\xff\xfe");
    assert_error(api_client_put(client, "/boot-source", body), ERROR_INPUT, "not valid UTF-8");
    api_client_free(client);
}

/* Makes a directory and the path of a socket in it. */
static void socket_path(char directory[64], char path[108])
{
    strcpy(directory, "/tmp/mayfly-test-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(path, 108, "%s/api.sock", directory);
}

static void *listen_later(void *argument)
{
    const char *path = argument;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    /* Whether the client watches already or not: both must work. */
    sched_yield();
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 1) != 0)
        abort();
    return (void *)(intptr_t)fd;
}

static void test_connect_waits_until_somebody_listens(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        char directory[64], path[108];
        pthread_t thread;
        void *listener;
        int fd = -1;

        socket_path(directory, path);
        assert_int_equal(pthread_create(&thread, NULL, listen_later, path), 0);
        assert_no_error(socket_connect_when_ready(path, -1, clock_monotonic_us() + 10000000, &fd));
        pthread_join(thread, &listener);
        close(fd);
        close((int)(intptr_t)listener);
        unlink(path);
        assert_int_equal(rmdir(directory), 0);
    }
}

static void test_connect_ends_with_the_process_that_would_have_listened(void **state)
{
    char directory[64], path[108];
    pid_t child;
    int process_fd, fd;

    (void)state;
    socket_path(directory, path);
    child = fork();
    if (child == 0)
        _exit(0);
    process_fd = (int)syscall(SYS_pidfd_open, child, 0);
    assert_true(process_fd >= 0);
    assert_error(socket_connect_when_ready(path, process_fd, clock_monotonic_us() + 10000000, &fd), ERROR_HOST,
                 "ended before it listened");
    waitpid(child, NULL, 0);
    close(process_fd);
    rmdir(directory);
}

static void test_connect_refuses_a_path_that_no_socket_can_have(void **state)
{
    char path[200];
    int fd;

    (void)state;
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_error(socket_connect_when_ready(path, -1, 0, &fd), ERROR_INPUT, "199 bytes");
}

TEST_MAIN(cmocka_unit_test(test_client_sends_a_request_and_reads_the_answer),
          cmocka_unit_test(test_client_reads_an_answer_that_comes_byte_by_byte),
          cmocka_unit_test(test_client_passes_on_what_the_server_says_is_wrong),
          cmocka_unit_test(test_client_survives_an_error_body_that_is_not_json),
          cmocka_unit_test(test_client_reports_a_server_that_hangs_up),
          cmocka_unit_test(test_client_reports_an_answer_that_is_not_http),
          cmocka_unit_test(test_client_gives_up_at_its_timeout),
          cmocka_unit_test(test_client_refuses_text_that_is_not_utf8),
          cmocka_unit_test(test_connect_waits_until_somebody_listens),
          cmocka_unit_test(test_connect_ends_with_the_process_that_would_have_listened),
          cmocka_unit_test(test_connect_refuses_a_path_that_no_socket_can_have))
