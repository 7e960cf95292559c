#include "api/client/client.h"

#include <errno.h>
#include <http_parser.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <yajl/yajl_tree.h>

#include "api/client/connect.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

enum { RESPONSE_MAX = 16 << 20, HEAD_MAX = 1024 };

struct api_client {
    int fd;
    unsigned timeout_ms;
    bool broken; /* an answer was not understood, or the server wants to close */
};

/* One answer being read. */
struct reading {
    struct api_response *response;
    bool complete;
    bool out_of_bounds;
};

struct api_client *api_client_new(int fd)
{
    struct api_client *client = calloc(1, sizeof(*client));

    if (client == NULL)
        abort();
    client->fd = fd;
    client->timeout_ms = API_CLIENT_TIMEOUT_MS;
    return client;
}

static uint64_t deadline_in(unsigned timeout_ms)
{
    return clock_monotonic_us() + timeout_ms * 1000ull;
}

struct error *api_client_connect(const char *path, int process_fd, unsigned timeout_ms, struct api_client **client)
{
    int fd;
    struct error *error = socket_connect_when_ready(path, process_fd, deadline_in(timeout_ms), &fd);

    if (error != NULL)
        return error;
    *client = api_client_new(fd);
    return NULL;
}

void api_client_free(struct api_client *client)
{
    if (client != NULL)
        fd_close(&client->fd);
    free(client);
}

void api_client_set_timeout(struct api_client *client, unsigned timeout_ms)
{
    client->timeout_ms = timeout_ms;
}

/* Waits until the socket is ready for `events`; false when the deadline passed first. */
static bool wait_ready(const struct api_client *client, short events, uint64_t deadline_us)
{
    for (;;) {
        struct pollfd socket = {.fd = client->fd, .events = events};
        uint64_t now = clock_monotonic_us();
        int ready;

        if (now >= deadline_us)
            return false;
        ready = poll(&socket, 1, (int)((deadline_us - now + 999) / 1000));
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return true; /* a failed poll shows in the call that follows */
    }
}

/* Sends head and body; usually in one call. */
static struct error *send_all(struct api_client *client, struct iovec *parts, size_t count, uint64_t deadline_us)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (__typeof__(message.msg_iovlen))count};
        ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EAGAIN) {
            if (!wait_ready(client, POLLOUT, deadline_us))
                return error_errno(ETIMEDOUT, "the server does not read");
            continue;
        }
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return error_errno(errno, "cannot send");
        while (count > 0 && (size_t)sent >= parts->iov_len) {
            sent -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + sent;
            parts->iov_len -= (size_t)sent;
        }
    }
    return NULL;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    struct reading *reading = parser->data;
    struct api_response *response = reading->response;
    char *grown;

    if (length > RESPONSE_MAX - response->length) {
        reading->out_of_bounds = true;
        return -1;
    }
    grown = realloc(response->body, response->length + length + 1);
    if (grown == NULL)
        return -1;
    response->body = grown;
    memcpy(grown + response->length, at, length);
    response->length += length;
    grown[response->length] = '\0';
    return 0;
}

static int on_complete(http_parser *parser)
{
    struct reading *reading = parser->data;

    if (parser->status_code < 200)
        return 0; /* 100 Continue comes before the answer */
    reading->response->status = parser->status_code;
    reading->complete = true;
    http_parser_pause(parser, 1);
    return 0;
}

static const http_parser_settings settings = {.on_body = on_body, .on_message_complete = on_complete};

static struct error *receive_response(struct api_client *client, struct api_response *response, uint64_t deadline_us)
{
    struct reading reading = {.response = response};
    http_parser parser;
    char bytes[4096];

    http_parser_init(&parser, HTTP_RESPONSE);
    parser.data = &reading;
    while (!reading.complete) {
        ssize_t got = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        size_t parsed;

        if (got < 0 && errno == EAGAIN) {
            if (!wait_ready(client, POLLIN, deadline_us))
                return error_errno(ETIMEDOUT, "no answer within %u ms", client->timeout_ms);
            continue;
        }
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(errno, "cannot receive");
        parsed = http_parser_execute(&parser, &settings, bytes, (size_t)got);
        if (reading.complete) {
            client->broken = !http_should_keep_alive(&parser) || parsed != (size_t)got;
            break;
        }
        if (reading.out_of_bounds)
            return error_new(ERROR_HOST, "the answer is longer than %d bytes", RESPONSE_MAX);
        if (HTTP_PARSER_ERRNO(&parser) != HPE_OK)
            return error_new(ERROR_HOST, "the answer is not HTTP: %s",
                             http_errno_description(HTTP_PARSER_ERRNO(&parser)));
        if (got == 0)
            return error_errno(ECONNRESET, "the server closed the connection without an answer");
    }
    return NULL;
}

struct error *api_client_request(struct api_client *client, const char *method, const char *path, const char *body,
                                 size_t body_length, struct api_response *response)
{
    uint64_t deadline = deadline_in(client->timeout_ms);
    char head[HEAD_MAX];
    int length;
    struct error *error;

    *response = (struct api_response){0};
    if (client->broken)
        return error_errno(ENOTCONN, "%s %s: the connection is closed", method, path);
    if (body == NULL)
        length = snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n",
                          method, path);
    else
        length = snprintf(head, sizeof(head),
                          "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
                          "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                          method, path, body_length);
    if (length < 0 || (size_t)length >= sizeof(head))
        return error_new(ERROR_INPUT, "%s %s: the path is too long", method, path);

    struct iovec parts[] = {{head, (size_t)length}, {(void *)(uintptr_t)body, body_length}};

    error = send_all(client, parts, body == NULL ? 1 : 2, deadline);
    /* A server that refuses early answers and closes: its answer says more than our EPIPE. */
    if (error == NULL || error->code == EPIPE) {
        error_free(error);
        error = receive_response(client, response, deadline);
    }
    if (error == NULL && response->body == NULL) {
        response->body = calloc(1, 1);
        if (response->body == NULL)
            abort();
    }
    if (error == NULL)
        return NULL;
    client->broken = true;
    api_response_free(response);
    return error_wrap(error, "%s %s", method, path);
}

void api_response_free(struct api_response *response)
{
    free(response->body);
    *response = (struct api_response){0};
}

char *api_response_fault(const struct api_response *response)
{
    static const char *const names[] = {"fault_message", "error"};
    yajl_val tree = yajl_tree_parse(response->body, NULL, 0);
    char *fault = NULL;

    for (size_t i = 0; fault == NULL && i < array_length(names); i++) {
        yajl_val text = yajl_tree_get(tree, (const char *[]){names[i], NULL}, yajl_t_string);

        if (text != NULL)
            fault = strdup(text->u.string);
    }
    yajl_tree_free(tree);
    return fault;
}

static struct error *request_must_succeed(struct api_client *client, const char *method, const char *path,
                                          struct body *body)
{
    struct api_response response;
    size_t length;
    const char *text = body_text(body, &length);
    struct error *error;
    char *fault;

    if (text == NULL) {
        body_free(body);
        return error_new(ERROR_INPUT, "%s %s: a value is not valid UTF-8", method, path);
    }
    error = api_client_request(client, method, path, text, length, &response);
    body_free(body);
    if (error != NULL)
        return error;
    if (response.status / 100 != 2) {
        fault = api_response_fault(&response);
        error = error_new(ERROR_INPUT, "%s %s: %s", method, path, fault != NULL ? fault : "refused without a reason");
        free(fault);
    }
    api_response_free(&response);
    return error;
}

struct error *api_client_put(struct api_client *client, const char *path, struct body *body)
{
    return request_must_succeed(client, "PUT", path, body);
}

struct error *api_client_patch(struct api_client *client, const char *path, struct body *body)
{
    return request_must_succeed(client, "PATCH", path, body);
}

struct error *api_client_action(struct api_client *client, const char *action_type)
{
    struct body *body = body_new();

    body_string(body, "action_type", action_type);
    return api_client_put(client, "/actions", body);
}

struct error *api_client_set_state(struct api_client *client, const char *state)
{
    struct body *body = body_new();

    body_string(body, "state", state);
    return api_client_patch(client, "/vm", body);
}
