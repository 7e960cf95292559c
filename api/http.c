#include "api/http.h"

#include "api/bytes.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/http_text.h"

#include <errno.h>
#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum {
    OUTPUT_PAUSE = 32 * 1024, /* no further request is carried out while so many bytes of replies wait */
    DISCARD_MAX = 64 << 20,   /* bytes thrown away after a refusal before the connection is cut */
    WORD_MAX = 15,            /* longer than any header name or value that matters */
};

/* A short word that may come in pieces. */
struct word {
    char text[WORD_MAX + 1];
    size_t length; /* of all the pieces; more than WORD_MAX: too long to be one that we know */
};

struct http_connection {
    struct event_source source;
    struct http_host *host;
    struct http_connection *next, **place;
    http_parser parser;
    struct bytes path, body;
    struct word header_name, header_value;
    bool in_header_value;
    bool expects_continue;
    struct bytes unparsed; /* read, but the replies before it must leave first */
    struct bytes output;   /* replies that the caller has yet to take */
    bool ended;            /* the caller will send no more */
    bool closing;          /* what is in `output` is the last */
    bool discarding;       /* the last reply has left, our side is shut */
    size_t discarded;
    struct error *refusal; /* what HTTP refuses in the request being parsed, with its status */
    unsigned refusal_status;
};

static void word_append(struct word *word, const char *text, size_t length)
{
    if (word->length + length <= WORD_MAX)
        memcpy(word->text + word->length, text, length);
    word->length += length;
}

static bool word_is(const struct word *word, const char *text)
{
    return word->length == strlen(text) && strncasecmp(word->text, text, word->length) == 0;
}

static void connection_close(struct http_connection *connection)
{
    struct http_host *host = connection->host;

    host->output_length = 0;
    event_source_close(&connection->source);
    *connection->place = connection->next;
    if (connection->next != NULL)
        connection->next->place = connection->place;
    host->connection_count--;
    bytes_free(&connection->path);
    bytes_free(&connection->body);
    bytes_free(&connection->unparsed);
    bytes_free(&connection->output);
    error_free(connection->refusal);
    free(connection);
    if (host->closed != NULL)
        host->closed(host);
}

static size_t output_length(const struct http_connection *connection)
{
    return connection->output.length + connection->host->output_length;
}

/* Moves what stands in the host's buffer behind the connection's own. */
static bool keep_output(struct http_connection *connection)
{
    struct http_host *host = connection->host;
    size_t length = host->output_length;

    host->output_length = 0;
    return bytes_append(&connection->output, host->output, length);
}

/* Queues data[0..length) for sending. Of the two buffers one is empty at any time. */
static bool put_output(struct http_connection *connection, const char *data, size_t length)
{
    struct http_host *host = connection->host;

    if (connection->output.length == 0 && length <= HTTP_OUTPUT_SIZE - host->output_length) {
        memcpy(host->output + host->output_length, data, length);
        host->output_length += length;
        return true;
    }
    return keep_output(connection) && bytes_append(&connection->output, data, length);
}

/* Queues the reply. Without memory for it the connection ends: the caller cannot be told anything. */
static void queue_reply(struct http_connection *connection, struct api_reply *reply)
{
    char head[320], methods[API_METHODS_TEXT], allow[API_METHODS_TEXT + 16] = "", content[80] = "";
    size_t length = 0;
    const char *text = reply->status == 204 ? "" : json_text(&reply->body, &length);

    if (text == NULL) {
        text = "";
        reply->status = 500;
    }
    if (reply->allow != 0)
        snprintf(allow, sizeof(allow), "Allow: %s\r\n", api_methods_text(reply->allow, methods));
    if (reply->status != 204)
        snprintf(content, sizeof(content), "Content-Type: application/json\r\nContent-Length: %zu\r\n", length);

    int head_length =
        snprintf(head, sizeof(head), "HTTP/1.1 %u %s\r\nServer: Mayfly API\r\nConnection: %s\r\n%s%s%s\r\n",
                 reply->status, http_reason(reply->status), connection->closing ? "close" : "keep-alive", allow,
                 reply->deprecation ? "Deprecation: true\r\n" : "", content);
    if (!put_output(connection, head, (size_t)head_length) || !put_output(connection, text, length))
        connection->closing = true;
}

static struct http_connection *connection_of(http_parser *parser)
{
    return container_of(parser, struct http_connection, parser);
}

static int refuse(struct http_connection *connection, unsigned status, struct error *error)
{
    connection->refusal = error;
    connection->refusal_status = status;
    return -1;
}

static int on_message_begin(http_parser *parser)
{
    struct http_connection *connection = connection_of(parser);

    connection->header_name.length = connection->header_value.length = 0;
    connection->in_header_value = connection->expects_continue = false;
    return 0;
}

static int on_url(http_parser *parser, const char *text, size_t length)
{
    struct http_connection *connection = connection_of(parser);

    if (connection->path.length + length > HTTP_PATH_MAX)
        return refuse(connection, 400,
                      error_new(ERROR_INPUT, "a path of more than %d bytes, expected fewer", HTTP_PATH_MAX));
    /* The parser takes them, and the log and the reply would have text that is no UTF-8. */
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] > 0x7e)
            return refuse(
                connection, 400,
                error_new(ERROR_INPUT, "byte 0x%02x in the path, expected printable ASCII", (unsigned char)text[i]));
    return bytes_append(&connection->path, text, length) ? 0 : -1;
}

static void end_header(struct http_connection *connection)
{
    if (word_is(&connection->header_name, "expect") && word_is(&connection->header_value, "100-continue"))
        connection->expects_continue = true;
    connection->header_name.length = connection->header_value.length = 0;
    connection->in_header_value = false;
}

static int on_header_field(http_parser *parser, const char *text, size_t length)
{
    struct http_connection *connection = connection_of(parser);

    if (connection->in_header_value)
        end_header(connection);
    word_append(&connection->header_name, text, length);
    return 0;
}

static int on_header_value(http_parser *parser, const char *text, size_t length)
{
    struct http_connection *connection = connection_of(parser);

    connection->in_header_value = true;
    word_append(&connection->header_value, text, length);
    return 0;
}

/* An origin without a path is no request for anything that we have. */
static void strip_origin(struct bytes *path)
{
    size_t origin = http_origin_length(path->data, path->length);

    if (origin < path->length)
        bytes_drop(path, origin);
}

static enum api_method method_of(const http_parser *parser)
{
    switch (parser->method) {
    case HTTP_GET:
        return API_GET;
    case HTTP_PUT:
        return API_PUT;
    case HTTP_PATCH:
        return API_PATCH;
    default:
        return API_OTHER_METHOD;
    }
}

static int refuse_body_size(struct http_connection *connection, uint64_t size)
{
    return refuse(connection, api_path_is_ours(connection->path.data) ? 413 : 400,
                  error_new(ERROR_INPUT, "a body of %llu bytes or more, expected at most %zu", (unsigned long long)size,
                            connection->host->max_payload));
}

static int on_headers_complete(http_parser *parser)
{
    struct http_connection *connection = connection_of(parser);
    enum http_method method = (enum http_method)parser->method;

    end_header(connection);
    parser->upgrade = 0; /* an offer of another protocol may be passed over (RFC 9110, 7.8) */
    strip_origin(&connection->path);
    if (parser->http_major != 1)
        return refuse(connection, 400,
                      error_new(ERROR_INPUT, "HTTP/%u.%u, expected HTTP/1.1", parser->http_major, parser->http_minor));
    if (method == HTTP_HEAD || method == HTTP_CONNECT ||
        (method_of(parser) == API_OTHER_METHOD && !api_path_is_ours(connection->path.data)))
        return refuse(connection, 400,
                      error_new(ERROR_INPUT, "method %s, expected GET, PUT or PATCH", http_method_str(method)));
    if ((parser->flags & F_CONTENTLENGTH) && parser->content_length > connection->host->max_payload)
        return refuse_body_size(connection, parser->content_length);

    bool has_body = (parser->flags & F_CHUNKED) || ((parser->flags & F_CONTENTLENGTH) && parser->content_length > 0);
    if (connection->expects_continue && has_body) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

        if (!put_output(connection, go_on, sizeof(go_on) - 1))
            return -1;
    }
    return 0;
}

static int on_body(http_parser *parser, const char *text, size_t length)
{
    struct http_connection *connection = connection_of(parser);

    if (length > connection->host->max_payload - connection->body.length)
        return refuse_body_size(connection, connection->body.length + length);
    return bytes_append(&connection->body, text, length) ? 0 : -1;
}

static int on_message_complete(http_parser *parser)
{
    struct http_connection *connection = connection_of(parser);
    struct http_host *host = connection->host;
    struct api_request request = {
        .method = method_of(parser),
        .method_name = http_method_str((enum http_method)parser->method),
        .path = connection->path.data,
        .body = connection->body.data,
        .body_length = connection->body.length,
    };
    struct api_reply reply;

    api_handle(&host->context, &request, &reply);
    connection->closing = !http_should_keep_alive(parser);
    queue_reply(connection, &reply);
    api_reply_free(&reply);
    bytes_free(&connection->path);
    bytes_free(&connection->body);
    if (connection->closing || output_length(connection) >= OUTPUT_PAUSE)
        http_parser_pause(parser, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* The request being parsed cannot be served, nor anything after it. */
static void refuse_request(struct http_connection *connection)
{
    enum http_errno code = HTTP_PARSER_ERRNO(&connection->parser);
    struct api_reply reply = {.status = 400};

    connection->closing = true;
    if (connection->refusal != NULL)
        reply.status = connection->refusal_status;
    else
        connection->refusal = error_new(ERROR_INPUT, "not HTTP: %s", http_errno_description(code));
    json_writer_init(&reply.body);
    json_open_object(&reply.body);
    json_string(&reply.body, "error");
    json_string(&reply.body, connection->refusal->message);
    json_close_object(&reply.body);
    queue_reply(connection, &reply);
    api_reply_free(&reply);
}

/* Carries out the requests that end in data[0..length). Returns how many bytes were used; the rest must wait. */
static size_t parse(struct http_connection *connection, const char *data, size_t length)
{
    size_t used = http_parser_execute(&connection->parser, &settings, data, length);
    enum http_errno code = HTTP_PARSER_ERRNO(&connection->parser);

    if (code == HPE_OK)
        return length;
    if (code == HPE_PAUSED) {
        http_parser_pause(&connection->parser, 0);
        return used;
    }
    refuse_request(connection);
    return length;
}

/* Sends data[0..length); `sent` bytes went. False when the caller is gone. */
static bool send_some(struct http_connection *connection, const char *data, size_t length, size_t *sent)
{
    ssize_t count = send(connection->source.fd, data, length, MSG_NOSIGNAL);

    *sent = count > 0 ? (size_t)count : 0;
    return count >= 0 || errno == EAGAIN || errno == EINTR;
}

/* Sends what it can; the rest is in connection->output. False when the caller is gone, or there is no memory. */
static bool flush(struct http_connection *connection)
{
    struct http_host *host = connection->host;
    bool own = connection->output.length > 0;
    size_t sent;

    if (output_length(connection) == 0)
        return true;
    if (!send_some(connection, own ? connection->output.data : host->output, output_length(connection), &sent))
        return false;
    if (own) {
        bytes_drop(&connection->output, sent);
    } else {
        size_t rest = host->output_length - sent;

        host->output_length = 0;
        if (rest > 0 && !bytes_append(&connection->output, host->output + sent, rest))
            return false;
    }
    if (connection->output.length == 0 && host->served != NULL)
        host->served(host);
    return true;
}

/* Reads once. False when there is nothing to read now. */
static bool receive(struct http_connection *connection, size_t *length)
{
    ssize_t received = recv(connection->source.fd, connection->host->input, HTTP_INPUT_SIZE, 0);

    *length = received > 0 ? (size_t)received : 0;
    if (received == 0 || (received < 0 && errno != EAGAIN && errno != EINTR))
        connection->ended = true;
    return received > 0;
}

static void discard(struct http_connection *connection)
{
    size_t length;

    if (!connection->discarding) {
        connection->discarding = true;
        bytes_free(&connection->unparsed);
        shutdown(connection->source.fd, SHUT_WR);
    }
    if (receive(connection, &length) && (connection->discarded += length) > DISCARD_MAX)
        connection->ended = true;
}

/* Waits for `events`. False when that cannot be done. */
static bool wait_for(struct http_connection *connection, uint32_t events)
{
    if (connection->source.loop != NULL) {
        event_source_update(&connection->source, events);
        return true;
    }

    struct error *error = event_source_add(connection->host->loop, &connection->source, events);
    if (error == NULL)
        return true;
    error_free(error);
    return false;
}

static void parse_input(struct http_connection *connection, size_t length)
{
    const char *input = connection->host->input;
    size_t used = parse(connection, input, length);

    if (used < length && !connection->closing && !bytes_append(&connection->unparsed, input + used, length - used))
        connection->closing = true;
}

/* Does what can be done now; then waits, or ends the connection. */
static void advance(struct http_connection *connection, bool readable)
{
    size_t length;

    for (;;) {
        if (!flush(connection))
            break;
        if (connection->output.length > 0) {
            if (wait_for(connection, EPOLLOUT))
                return;
            break;
        }
        if (connection->closing)
            discard(connection);
        else if (connection->unparsed.length > 0) {
            bytes_drop(&connection->unparsed,
                       parse(connection, connection->unparsed.data, connection->unparsed.length));
            continue;
        }
        if (connection->ended)
            break;
        if (connection->closing || !readable || !receive(connection, &length)) {
            if (connection->ended || !wait_for(connection, EPOLLIN))
                break;
            return;
        }
        readable = false;
        parse_input(connection, length);
    }
    connection_close(connection);
}

static void connection_ready(struct event_source *source, uint32_t events)
{
    struct http_connection *connection = container_of(source, struct http_connection, source);

    advance(connection, (events & ~(uint32_t)EPOLLOUT) != 0);
}

struct error *http_connection_open(struct http_host *host, int fd)
{
    struct http_connection *connection = calloc(1, sizeof(*connection));

    if (connection == NULL) {
        fd_close(&fd);
        return error_new(ERROR_INTERNAL, "out of memory");
    }
    connection->source = (struct event_source){.fd = fd, .ready = connection_ready};
    connection->host = host;
    connection->place = &host->connections;
    connection->next = host->connections;
    if (connection->next != NULL)
        connection->next->place = &connection->next;
    host->connections = connection;
    host->connection_count++;
    http_parser_init(&connection->parser, HTTP_REQUEST);
    advance(connection, true);
    return NULL;
}

void http_close_all(struct http_host *host)
{
    while (host->connections != NULL)
        connection_close(host->connections);
}
