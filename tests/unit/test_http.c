#include "tests/unit/harness.h"

#include "tests/unit/fake_machine.h"

#include "api/server.h"
#include "vmm/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 10 };

/* A server on its own thread, as a program would run it. */
static struct {
    char directory[64];
    char path[96];
    struct event_loop *loop;
    struct api_server *server;
    pthread_t thread;
} fixture;

static void *serve(void *loop)
{
    assert_no_error(event_loop_run(loop));
    return NULL;
}

static int setup(void **state)
{
    struct api_options options = {.socket_path = fixture.path};

    (void)state;
    log_set_level(LOG_LEVEL_OFF);
    fake_machine_reset();
    strcpy(fixture.directory, "/tmp/mayfly-http-XXXXXX");
    assert_non_null(mkdtemp(fixture.directory));
    snprintf(fixture.path, sizeof(fixture.path), "%s/api", fixture.directory);
    assert_no_error(event_loop_new(&fixture.loop));
    assert_no_error(api_server_new(fixture.loop, &fake_machine, &options, &fixture.server));
    assert_int_equal(pthread_create(&fixture.thread, NULL, serve, fixture.loop), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    event_loop_lock(fixture.loop);
    event_loop_stop(fixture.loop);
    event_loop_unlock(fixture.loop);
    pthread_join(fixture.thread, NULL);
    api_server_free(fixture.server);
    event_loop_free(fixture.loop);
    assert_int_equal(access(fixture.path, F_OK), -1);
    assert_int_equal(rmdir(fixture.directory), 0);
    fake_machine_reset();
    return 0;
}

static int dial_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(address.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static int dial(void)
{
    return dial_path(fixture.path);
}

static void say_bytes(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);

        assert_true(sent > 0);
        text += sent;
        length -= (size_t)sent;
    }
}

static void say(int fd, const char *text)
{
    say_bytes(fd, text, strlen(text));
}

/* Waits until the server has read all that was sent. */
static void wait_until_read(int fd)
{
    int left = 1;

    while (left > 0) {
        assert_int_equal(ioctl(fd, SIOCOUTQ, &left), 0);
        sched_yield();
    }
}

struct reply {
    unsigned status;
    bool closes;
    char head[1024];
    char body[8192];
};

/* Byte by byte, so that nothing of the next reply is taken. */
static struct reply hear(int fd)
{
    struct reply reply = {0};
    size_t used = 0, length = 0;
    const char *header;

    while (strstr(reply.head, "\r\n\r\n") == NULL) {
        assert_true(used + 1 < sizeof(reply.head));
        assert_int_equal(recv(fd, reply.head + used++, 1, 0), 1);
    }
    assert_int_equal(sscanf(reply.head, "HTTP/1.1 %u ", &reply.status), 1);
    reply.closes = strstr(reply.head, "\r\nConnection: close\r\n") != NULL;
    header = strstr(reply.head, "\r\nContent-Length: ");
    if (header != NULL)
        length = strtoul(header + strlen("\r\nContent-Length: "), NULL, 10);
    assert_true(length < sizeof(reply.body));
    for (used = 0; used < length;) {
        ssize_t received = recv(fd, reply.body + used, length - used, 0);

        assert_true(received > 0);
        used += (size_t)received;
    }
    return reply;
}

static void assert_hears(int fd, unsigned status, const char *part)
{
    struct reply reply = hear(fd);

    if (reply.status != status || strstr(reply.body, part) == NULL)
        fail_msg("%s%s, expected %u with \"%s\"", reply.head, reply.body, status, part);
}

static void assert_ended(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

/* What HTTP refuses: 400 with {"error": ...}, then the end. */
static void assert_refused(int fd, unsigned status, const char *part)
{
    struct reply reply = hear(fd);

    if (reply.status != status || strncmp(reply.body, "{\"error\":\"", 10) != 0 || strstr(reply.body, part) == NULL)
        fail_msg("%s%s, expected %u with \"%s\"", reply.head, reply.body, status, part);
    assert_true(reply.closes);
    assert_ended(fd);
}

#define BODY "{\"vcpu_count\": 2, \"mem_size_mib\": 256}"
#define PUT_MACHINE "PUT /machine-config HTTP/1.1\r\nHost: localhost\r\n"
#define PUT_RIGHT PUT_MACHINE "Content-Length: 38\r\n\r\n" BODY
#define GET_VERSION "GET /version HTTP/1.1\r\n\r\n"
#define GET_INSTANCE "GET / HTTP/1.1\r\n\r\n"

static void assert_still_serves(void)
{
    int fd = dial();

    say(fd, GET_INSTANCE);
    assert_hears(fd, 200, "fake-1");
    close(fd);
}

static void test_reply_has_the_headers_that_clients_know(void **state)
{
    int fd = dial();

    (void)state;
    say(fd, GET_VERSION);

    struct reply reply = hear(fd);
    assert_string_equal(reply.head, "HTTP/1.1 200 OK\r\nServer: Mayfly API\r\nConnection: keep-alive\r\n"
                                    "Content-Type: application/json\r\nContent-Length: 32\r\n\r\n");
    assert_string_equal(reply.body, "{\"firecracker_version\":\"1.17.0\"}");
    say(fd, PUT_RIGHT);
    reply = hear(fd);
    assert_string_equal(reply.head, "HTTP/1.1 204 No Content\r\nServer: Mayfly API\r\nConnection: keep-alive\r\n\r\n");
    say(fd, "POST /mayfly/console HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
    reply = hear(fd);
    assert_int_equal(reply.status, 405);
    assert_non_null(strstr(reply.head, "\r\nAllow: PUT, PATCH\r\n"));
    say(fd, PUT_MACHINE "Content-Length: 62\r\n\r\n"
                        "{\"vcpu_count\": 1, \"mem_size_mib\": 128, \"cpu_template\": \"None\"}");
    reply = hear(fd);
    assert_non_null(strstr(reply.head, "\r\nDeprecation: true\r\n"));
    close(fd);
}

static void test_request_may_be_split_at_any_byte(void **state)
{
    int fd = dial();

    (void)state;
    assert_int_equal(strlen(BODY), 38);
    for (size_t i = 1; i < strlen(PUT_RIGHT); i++) {
        say_bytes(fd, PUT_RIGHT, i);
        wait_until_read(fd);
        say(fd, &PUT_RIGHT[i]);
        assert_hears(fd, 204, "");
    }
    for (const char *byte = PUT_RIGHT; *byte != '\0'; byte++) {
        say_bytes(fd, byte, 1);
        wait_until_read(fd);
    }
    assert_hears(fd, 204, "");
    close(fd);
}

static void test_pipelined_requests_are_answered_in_their_order(void **state)
{
    enum { PAIRS = 300 };
    int fd = dial();

    (void)state;
    for (int i = 0; i < PAIRS; i++)
        say(fd, GET_VERSION GET_INSTANCE);
    for (int i = 0; i < PAIRS; i++) {
        assert_hears(fd, 200, "firecracker_version");
        assert_hears(fd, 200, "app_name");
    }
    close(fd);
}

static void test_refusal_does_not_end_the_connection(void **state)
{
    int fd = dial();

    (void)state;
    say(fd, PUT_MACHINE "Content-Length: 2\r\n\r\n{}" GET_VERSION);
    assert_hears(fd, 400, "{\"fault_message\":\"vcpu_count: missing");
    assert_hears(fd, 200, "firecracker_version");
    close(fd);
}

static void test_caller_is_told_to_continue_before_it_sends_the_body(void **state)
{
    int fd = dial();

    (void)state;
    say(fd, PUT_MACHINE "Content-Length: 38\r\nExpect: 100-Continue\r\n\r\n");
    assert_int_equal(hear(fd).status, 100);
    say(fd, BODY);
    assert_hears(fd, 204, "");
    say(fd, PUT_MACHINE "Content-Length: 51201\r\nExpect: 100-continue\r\n\r\n");
    assert_refused(fd, 400, "51201");
}

static void test_chunked_body_is_taken(void **state)
{
    int fd = dial();

    (void)state;
    say(fd, PUT_MACHINE "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"vcp\r\n21;x=y\r\nu_count\": 2, \"mem_size_mib\": "
                        "256}\r\n0\r\nTrailer: x\r\n\r\n" GET_VERSION);
    assert_hears(fd, 204, "");
    assert_hears(fd, 200, "firecracker_version");
    close(fd);
}

static void test_body_over_the_limit_is_refused_by_http(void **state)
{
    char *body = malloc(51201);
    int fd = dial();

    (void)state;
    memset(body, ' ', 51201);
    say(fd, PUT_MACHINE "Content-Length: 51200\r\n\r\n");
    say_bytes(fd, body, 51200);
    assert_hears(fd, 400, "{\"fault_message\":\"not JSON");
    say(fd, PUT_MACHINE "Content-Length: 51201\r\n\r\n");
    say_bytes(fd, body, 51201);
    assert_refused(fd, 400, "a body of 51201 bytes");
    fd = dial();
    say(fd, PUT_MACHINE "Transfer-Encoding: chunked\r\n\r\nc801\r\n");
    say_bytes(fd, body, 51201);
    assert_refused(fd, 400, "expected at most 51200");
    fd = dial();
    say(fd, "PUT /mayfly/console HTTP/1.1\r\nContent-Length: 99999\r\n\r\n");
    assert_refused(fd, 413, "a body of 99999 bytes");
    fd = dial();
    say(fd, PUT_MACHINE "Content-Length: 18446744073709551615\r\n\r\n");
    assert_refused(fd, 400, "");
    free(body);
}

static void test_refused_caller_may_send_all_it_has_before_it_reads(void **state)
{
    enum { SIZE = 4 << 20 };
    char *body = calloc(1, SIZE);
    int fd = dial();

    (void)state;
    say(fd, PUT_MACHINE "Content-Length: 4194304\r\n\r\n");
    say_bytes(fd, body, SIZE);
    assert_refused(fd, 400, "4194304");
    free(body);
}

static void test_what_is_not_our_http_is_refused(void **state)
{
    static const struct {
        const char *text, *part;
    } wrong[] = {
        {"HEAD / HTTP/1.1\r\n\r\n", "method HEAD"},
        {"POST /actions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "method POST"},
        {"DELETE /drives/a HTTP/1.1\r\n\r\n", "method DELETE"},
        {"OPTIONS * HTTP/1.1\r\n\r\n", "method OPTIONS"},
        {"CONNECT localhost:80 HTTP/1.1\r\n\r\n", "method CONNECT"},
        {"HEAD /mayfly/console HTTP/1.1\r\n\r\n", "method HEAD"},
        {"get / HTTP/1.1\r\n\r\n", "not HTTP"},
        {"FETCH / HTTP/1.1\r\n\r\n", "not HTTP"},
        {"GET / HTTP/2.0\r\n\r\n", "HTTP/2.0"},
        {"GET / HTTP/x\r\n\r\n", "not HTTP"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not HTTP"},
        {"GET /\377 HTTP/1.1\r\n\r\n", "byte 0xff in the path"},
        {"GET /drives/\303\251 HTTP/1.1\r\n\r\n", "byte 0xc3 in the path"},
        {"{\"vcpu_count\": 1}", "not HTTP"},
        {"\026\003\001\002", "not HTTP"},
        {"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "not HTTP"},
        {"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "not HTTP"},
        {"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "not HTTP"},
        {"PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "not HTTP"},
        {"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "not HTTP"},
        {"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "not HTTP"},
        {"GET / HTTP/1.1\r\nA(b: c\r\n\r\n", "not HTTP"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        int fd = dial();

        say(fd, wrong[i].text);
        assert_refused(fd, 400, wrong[i].part);
    }
    assert_still_serves();
}

static void test_endless_headers_and_paths_are_refused(void **state)
{
    char *text = malloc(20001);
    int fd = dial();

    (void)state;
    memset(text, 'a', 20000);
    text[20000] = '\0';
    say(fd, "GET / HTTP/1.1\r\nX: ");
    say(fd, text);
    assert_refused(fd, 400, "header bytes");
    fd = dial();
    text[2000] = '\0';
    say(fd, "GET /");
    say(fd, text);
    assert_refused(fd, 400, "a path of more than 1024 bytes");
    free(text);
}

static void test_connection_ends_when_the_caller_says_so(void **state)
{
    int fd = dial();
    struct reply reply;

    (void)state;
    say(fd, "GET /version HTTP/1.1\r\nConnection: close\r\n\r\n" GET_VERSION);
    reply = hear(fd);
    assert_true(reply.closes && reply.status == 200);
    assert_ended(fd);
    fd = dial();
    say(fd, "GET /version HTTP/1.0\r\n\r\n");
    assert_true(hear(fd).closes);
    assert_ended(fd);
    fd = dial();
    say(fd, "GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_false(hear(fd).closes);
    say(fd, GET_VERSION);
    assert_hears(fd, 200, "");
    shutdown(fd, SHUT_WR);
    assert_ended(fd);
}

static void test_caller_that_sends_no_more_still_gets_its_replies(void **state)
{
    int fd = dial();

    (void)state;
    say(fd, GET_VERSION GET_INSTANCE);
    shutdown(fd, SHUT_WR);
    assert_hears(fd, 200, "firecracker_version");
    assert_hears(fd, 200, "app_name");
    assert_ended(fd);
}

static void test_offers_of_other_protocols_are_passed_over(void **state)
{
    int fd = dial();

    (void)state;
    say(fd,
        "GET /version HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n");
    assert_hears(fd, 200, "firecracker_version");
    say(fd, "GET http://localhost/version HTTP/1.1\r\n\r\n");
    assert_hears(fd, 200, "firecracker_version");
    close(fd);
}

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

static struct error *start_another(const char *path, struct api_server **server)
{
    struct api_options options = {.socket_path = path, .max_payload = 10, .app_name = "Firecracker"};
    struct error *error;

    event_loop_lock(fixture.loop);
    error = api_server_new(fixture.loop, &fake_machine, &options, server);
    event_loop_unlock(fixture.loop);
    return error;
}

static void stop_another(struct api_server *server)
{
    event_loop_lock(fixture.loop);
    api_server_free(server);
    event_loop_unlock(fixture.loop);
}

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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(test_reply_has_the_headers_that_clients_know), TEST(test_request_may_be_split_at_any_byte),
          TEST(test_pipelined_requests_are_answered_in_their_order), TEST(test_refusal_does_not_end_the_connection),
          TEST(test_caller_is_told_to_continue_before_it_sends_the_body), TEST(test_chunked_body_is_taken),
          TEST(test_body_over_the_limit_is_refused_by_http),
          TEST(test_refused_caller_may_send_all_it_has_before_it_reads), TEST(test_what_is_not_our_http_is_refused),
          TEST(test_endless_headers_and_paths_are_refused), TEST(test_connection_ends_when_the_caller_says_so),
          TEST(test_caller_that_sends_no_more_still_gets_its_replies),
          TEST(test_offers_of_other_protocols_are_passed_over), TEST(test_caller_that_stops_halfway_blocks_nobody),
          TEST(test_caller_that_never_reads_is_not_read_from_for_ever), TEST(test_caller_may_leave_at_any_byte),
          TEST(test_eleventh_connection_is_told_and_the_next_free_place_used),
          TEST(test_mangled_requests_never_harm_the_server), TEST(test_socket_in_use_is_left_alone),
          TEST(test_file_that_is_no_socket_is_left_alone), TEST(test_socket_that_nobody_listens_on_is_replaced),
          TEST(test_path_that_no_socket_can_have_is_refused), TEST(test_server_ends_with_callers_in_every_state))
