/* Requests and what HTTP says to them. */
#include "tests/unit/http_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

/* The server's end of `fd` holds next to nothing from now on. */
static void narrow(int fd)
{
    struct sockaddr_un ours, theirs;
    socklen_t length = sizeof(ours);
    const int size = 1;

    assert_int_equal(getpeername(fd, (struct sockaddr *)&ours, &length), 0);
    for (int other = 3; other < 64; other++) {
        int listens = 1;
        socklen_t size_length = sizeof(listens);

        length = sizeof(theirs);
        if (getsockopt(other, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size_length) == 0 && !listens &&
            getsockname(other, (struct sockaddr *)&theirs, &length) == 0 && length > sizeof(theirs.sun_family) &&
            strcmp(theirs.sun_path, ours.sun_path) == 0)
            assert_int_equal(setsockopt(other, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
    }
}

/* In however many parts: each reply comes once, whole, in its turn. */
static void test_replies_wait_for_a_caller_that_reads_slowly(void **state)
{
    enum { COUNT = 100 };
    char requests[COUNT * (sizeof(GET_INSTANCE) - 1) + 1] = "";
    struct reply first;
    int fd = dial();

    (void)state;
    say(fd, GET_INSTANCE);
    first = hear(fd);
    narrow(fd);
    for (size_t i = 0; i < COUNT; i++)
        strcat(requests, GET_INSTANCE);
    say(fd, requests);
    for (size_t i = 0; i < COUNT; i++) {
        struct reply next = hear(fd);

        assert_string_equal(next.head, first.head);
        assert_string_equal(next.body, first.body);
    }
    close(fd);
}

/* For a while; who goes on for ever is cut off. */
static void test_refused_caller_that_never_ends_is_cut_off(void **state)
{
    enum { PART = 1 << 20, LIMIT = 64 };
    char *body = calloc(1, PART);
    int fd = dial();
    unsigned parts = 0;

    (void)state;
    say(fd, PUT_MACHINE "Content-Length: 99999999999\r\n\r\n");
    for (ssize_t sent = 0; sent >= 0 && parts < 4 * LIMIT; parts++)
        for (size_t done = 0; done < PART && (sent = send(fd, body + done, PART - done, MSG_NOSIGNAL)) >= 0;)
            done += (size_t)sent;
    assert_in_range(parts, LIMIT, 2 * LIMIT);
    close(fd);
    free(body);
    assert_still_serves();
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

TEST_MAIN(TEST(test_reply_has_the_headers_that_clients_know), TEST(test_request_may_be_split_at_any_byte),
          TEST(test_pipelined_requests_are_answered_in_their_order), TEST(test_refusal_does_not_end_the_connection),
          TEST(test_caller_is_told_to_continue_before_it_sends_the_body), TEST(test_chunked_body_is_taken),
          TEST(test_body_over_the_limit_is_refused_by_http), TEST(test_replies_wait_for_a_caller_that_reads_slowly),
          TEST(test_refused_caller_that_never_ends_is_cut_off),
          TEST(test_refused_caller_may_send_all_it_has_before_it_reads), TEST(test_what_is_not_our_http_is_refused),
          TEST(test_endless_headers_and_paths_are_refused), TEST(test_connection_ends_when_the_caller_says_so),
          TEST(test_caller_that_sends_no_more_still_gets_its_replies),
          TEST(test_offers_of_other_protocols_are_passed_over))
