/* The guest's HTTP: GET for what the store has, PUT for a token. */
#include "vmm/mmds/mmds.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/http_text.h"
#include "vmm/metrics.h"

#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A part of the request; text NULL: it was not there. */
struct span {
    const char *text;
    size_t length;
};

enum header { ACCEPT, TOKEN, TOKEN_AWS, TTL, TTL_AWS, FORWARDED_FOR, HEADER_COUNT };

static const char *const header_names[HEADER_COUNT] = {
    [ACCEPT] = "Accept",
    [TOKEN] = "X-metadata-token",
    [TOKEN_AWS] = "X-aws-ec2-metadata-token",
    [TTL] = "X-metadata-token-ttl-seconds",
    [TTL_AWS] = "X-aws-ec2-metadata-token-ttl-seconds",
    [FORWARDED_FOR] = "X-Forwarded-For",
};

static const char token_path[] = "/latest/api/token";

struct request {
    struct http_parser parser;
    struct span url;
    struct span headers[HEADER_COUNT];
    enum header header; /* whose value comes next; HEADER_COUNT: one of no interest */
    bool complete;
    bool keep_alive;
};

/* What is being answered. */
struct reply {
    unsigned status;
    bool json;
    char *body; /* owned */
    size_t length;
    const char *extra_name; /* one more header, or NULL */
    struct span extra_value;
    bool no_body; /* announced, but not sent: HEAD */
    bool close;
};

static int take_url(http_parser *parser, const char *at, size_t length)
{
    struct request *request = parser->data;

    request->url = (struct span){at, length};
    return 0;
}

static int take_header_name(http_parser *parser, const char *at, size_t length)
{
    struct request *request = parser->data;

    request->header = 0;
    while (request->header < HEADER_COUNT && (strlen(header_names[request->header]) != length ||
                                              strncasecmp(header_names[request->header], at, length) != 0))
        request->header++;
    return 0;
}

static int take_header_value(http_parser *parser, const char *at, size_t length)
{
    struct request *request = parser->data;

    if (request->header < HEADER_COUNT)
        request->headers[request->header] = (struct span){at, length};
    return 0;
}

/* Stops the parser: the next request is another call's. */
static int take_end(http_parser *parser)
{
    struct request *request = parser->data;

    request->complete = true;
    request->keep_alive = http_should_keep_alive(parser) != 0;
    http_parser_pause(parser, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_url = take_url,
    .on_header_field = take_header_name,
    .on_header_value = take_header_value,
    .on_message_complete = take_end,
};

static bool reply_text(struct reply *reply, unsigned status, const char *text, size_t length)
{
    reply->status = status;
    reply->body = malloc(length + 1);
    if (reply->body == NULL)
        return false;
    memcpy(reply->body, text, length);
    reply->length = length;
    return true;
}

static bool refuse(struct reply *reply, unsigned status, const char *text)
{
    return reply_text(reply, status, text, strlen(text));
}

/* The path without scheme, host and query, and with one slash where there are several. Room for url.length + 1. */
static size_t clean_path(struct span url, char *path)
{
    const char *at = url.text + http_origin_length(url.text, url.length);
    const char *end = url.text + url.length;
    size_t length = 0;

    for (; at < end && *at != '?' && *at != '#'; at++)
        if (*at != '/' || length == 0 || path[length - 1] != '/')
            path[length++] = *at;
    path[length] = '\0';
    return length;
}

/* One step of a JSON pointer (RFC 6901), in place. */
static size_t unescape(char *name, size_t length)
{
    size_t to = 0;

    for (size_t i = 0; i < length; i++) {
        bool escape = name[i] == '~' && i + 1 < length && (name[i + 1] == '0' || name[i + 1] == '1');

        name[to++] = (char)(!escape ? name[i] : name[i + 1] == '0' ? '~' : '/');
        i += escape;
    }
    return to;
}

static const struct mmds_value *array_get(const struct mmds_value *array, const char *name, size_t length)
{
    size_t index = 0;

    if (length == 0 || length > 9 || (name[0] == '0' && length > 1))
        return NULL;
    for (size_t i = 0; i < length; i++) {
        if (name[i] < '0' || name[i] > '9')
            return NULL;
        index = index * 10 + (size_t)(name[i] - '0');
    }
    return index < array->count ? array->members[index] : NULL;
}

/* What is at `path`, which is taken apart; a slash at its end means nothing. */
static const struct mmds_value *find(const struct mmds_value *value, char *path, size_t length)
{
    if (length > 0 && path[length - 1] == '/')
        length--;
    for (size_t start = 0; value != NULL && start < length;) {
        char *name = path + start + 1;
        char *slash = memchr(name, '/', length - start - 1);
        size_t size = slash != NULL ? (size_t)(slash - name) : length - start - 1;

        if (path[start] != '/')
            return NULL;
        start += 1 + size;
        size = unescape(name, size);
        value = value->type == MMDS_OBJECT  ? mmds_object_get(value, name, size)
                : value->type == MMDS_ARRAY ? array_get(value, name, size)
                                            : NULL;
    }
    return value;
}

/* Whether the first of the media types that we have is JSON. */
static bool accepts_json(struct span accept)
{
    static const char json[] = "application/json";
    static const char *const texts[] = {"text/plain", "text/*", "*/*"};

    if (accept.text == NULL)
        return false;
    for (const char *at = accept.text, *end = at + accept.length; at < end;) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *next = comma != NULL ? comma + 1 : end;

        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        if ((size_t)(end - at) >= sizeof(json) - 1 && strncasecmp(at, json, sizeof(json) - 1) == 0)
            return true;
        for (size_t i = 0; i < array_length(texts); i++)
            if ((size_t)(end - at) >= strlen(texts[i]) && strncasecmp(at, texts[i], strlen(texts[i])) == 0)
                return false;
        at = next;
    }
    return false;
}

static bool reply_json(struct reply *reply, const struct mmds_value *value)
{
    reply->status = 200;
    reply->json = true;
    reply->length = mmds_value_json(value, NULL);
    reply->body = malloc(reply->length + 1);
    if (reply->body == NULL)
        return false;
    mmds_value_json(value, reply->body);
    return true;
}

/* As EC2's service does: the names in an object, one a line, those of objects with a slash; a string as it is. */
static bool reply_list(struct reply *reply, const struct mmds_value *value)
{
    size_t length = 0;

    if (value->type == MMDS_STRING)
        return reply_text(reply, 200, value->text.bytes, value->text.length);
    if (value->type != MMDS_OBJECT)
        return refuse(reply, 501, "This value can be read as JSON only: say \"Accept: application/json\".");
    for (size_t i = 0; i < value->count; i++)
        length += value->members[i]->name.length + 2;
    reply->status = 200;
    reply->body = malloc(length + 1);
    if (reply->body == NULL)
        return false;
    for (size_t i = 0; i < value->count; i++) {
        const struct mmds_value *member = value->members[i];

        if (i > 0)
            reply->body[reply->length++] = '\n';
        memcpy(reply->body + reply->length, member->name.bytes, member->name.length);
        reply->length += member->name.length;
        if (member->type == MMDS_OBJECT)
            reply->body[reply->length++] = '/';
    }
    return true;
}

static bool not_found(struct reply *reply, const char *path, size_t length)
{
    cleanup_free char *text = malloc(length + 32);

    if (text == NULL)
        return false;
    memcpy(text, "Not found: ", 11);
    memcpy(text + 11, path, length);
    return reply_text(reply, 404, text, 11 + length);
}

/* V1 answers whoever asks, and counts those whom V2 would not. */
static bool may_read(const struct mmds *mmds, const struct request *request, uint64_t now_us)
{
    const struct span *token = &request->headers[request->headers[TOKEN].text != NULL ? TOKEN : TOKEN_AWS];

    if (token->text != NULL && mmds_token_is_valid(mmds, token->text, token->length, now_us))
        return true;
    if (token->text == NULL)
        METRIC_INCREMENT(mmds.rx_no_token);
    else
        METRIC_INCREMENT(mmds.rx_invalid_token);
    return mmds->version == MMDS_V1;
}

static bool refuse_reader(struct reply *reply, const struct request *request)
{
    if (request->headers[TOKEN].text != NULL || request->headers[TOKEN_AWS].text != NULL)
        return refuse(reply, 401, "The token is not valid.");
    return refuse(reply, 401,
                  "A token is needed: PUT /latest/api/token gives one; send it as X-metadata-token or "
                  "X-aws-ec2-metadata-token.");
}

static bool serve_get(const struct mmds *mmds, const struct request *request, uint64_t now_us, struct reply *reply)
{
    static const struct mmds_value nothing = {.type = MMDS_OBJECT};
    cleanup_free char *path = malloc(request->url.length + 1);
    cleanup_free char *scratch = malloc(request->url.length + 1);

    if (path == NULL || scratch == NULL)
        return false;
    if (!may_read(mmds, request, now_us))
        return refuse_reader(reply, request);
    size_t length = clean_path(request->url, path);
    memcpy(scratch, path, length + 1);
    const struct mmds_value *value = find(mmds->contents != NULL ? mmds->contents : &nothing, scratch, length);

    if (value == NULL)
        return not_found(reply, path, length);
    if (!mmds->imds_compat && accepts_json(request->headers[ACCEPT]))
        return reply_json(reply, value);
    return reply_list(reply, value);
}

static bool parse_ttl(struct span text, uint32_t *ttl)
{
    *ttl = 0;
    for (size_t i = 0; i < text.length; i++) {
        if (text.text[i] < '0' || text.text[i] > '9' || *ttl > MMDS_TTL_MAX)
            return false;
        *ttl = *ttl * 10 + (uint32_t)(text.text[i] - '0');
    }
    return text.length > 0 && *ttl >= MMDS_TTL_MIN && *ttl <= MMDS_TTL_MAX;
}

static bool serve_put(struct mmds *mmds, const struct request *request, uint64_t now_us, struct reply *reply)
{
    enum header header = request->headers[TTL].text != NULL ? TTL : TTL_AWS;
    cleanup_free char *path = malloc(request->url.length + 1);
    char token[MMDS_TOKEN_LENGTH + 1];
    uint32_t ttl;

    if (path == NULL)
        return false;
    size_t length = clean_path(request->url, path);
    /* A proxy in the guest must not fetch tokens for others. */
    if (request->headers[FORWARDED_FOR].text != NULL)
        return refuse(reply, 400, "X-Forwarded-For is not taken with a PUT.");
    if (length != sizeof(token_path) - 1 || memcmp(path, token_path, length) != 0)
        return not_found(reply, path, length);
    if (request->headers[header].text == NULL)
        return refuse(reply, 400,
                      "X-metadata-token-ttl-seconds or X-aws-ec2-metadata-token-ttl-seconds is missing: the token's "
                      "time to live.");
    if (!parse_ttl(request->headers[header], &ttl))
        return refuse(reply, 400, "The token's time to live must be 1 to 21600 seconds.");
    if (!mmds_token_make(mmds, ttl, now_us, token))
        return false;
    reply->extra_name = header_names[header];
    reply->extra_value = request->headers[header];
    return reply_text(reply, 200, token, MMDS_TOKEN_LENGTH);
}

static bool serve(struct mmds *mmds, const struct request *request, uint64_t now_us, struct reply *reply)
{
    if (request->parser.method == HTTP_GET)
        return serve_get(mmds, request, now_us, reply);
    if (request->parser.method == HTTP_PUT)
        return serve_put(mmds, request, now_us, reply);
    reply->extra_name = "Allow";
    reply->extra_value = (struct span){"GET, PUT", 8};
    reply->no_body = request->parser.method == HTTP_HEAD;
    return refuse(reply, 405, "Only GET and PUT are served.");
}

/* As snprintf: what of the head fits into `to`; returns its length. */
static size_t head_write(char *to, size_t size, const struct reply *reply)
{
    bool extra = reply->extra_name != NULL;
    int length = snprintf(to, size,
                          "HTTP/1.1 %u %s\r\nServer: Mayfly MMDS\r\nConnection: %s\r\nContent-Type: %s\r\n"
                          "Content-Length: %zu\r\n%s%s%.*s%s\r\n",
                          reply->status, http_reason(reply->status), reply->close ? "close" : "keep-alive",
                          reply->json ? "application/json" : "text/plain", reply->length,
                          extra ? reply->extra_name : "", extra ? ": " : "", extra ? (int)reply->extra_value.length : 0,
                          extra ? reply->extra_value.text : "", extra ? "\r\n" : "");

    return length > 0 ? (size_t)length : 0;
}

/* One small allocation, no stream: a larger one costs the host a mapping and its end for each answer. */
static void answer_write(struct mmds_answer *answer, const struct reply *reply)
{
    size_t head = head_write(NULL, 0, reply);
    size_t body = reply->no_body ? 0 : reply->length;
    char *bytes = malloc(head + body + 1);

    *answer = (struct mmds_answer){.close = true};
    if (bytes == NULL)
        return;
    head_write(bytes, head + 1, reply);
    if (body > 0)
        memcpy(bytes + head, reply->body, body);
    bytes[head + body] = 0; /* for who reads it as text */
    *answer = (struct mmds_answer){.bytes = bytes, .length = head + body, .close = reply->close};
}

size_t mmds_http_serve(struct mmds *mmds, const char *bytes, size_t length, bool full, uint64_t now_us,
                       struct mmds_answer *answer)
{
    struct request request = {.header = HEADER_COUNT};
    struct reply reply = {0};
    bool done;

    http_parser_init(&request.parser, HTTP_REQUEST);
    request.parser.data = &request;
    size_t used = http_parser_execute(&request.parser, &settings, bytes, length);
    bool broken = !request.complete && HTTP_PARSER_ERRNO(&request.parser) != HPE_OK;

    if (!request.complete && !broken && !full)
        return 0;
    if (request.complete) {
        reply.close = !request.keep_alive || request.parser.upgrade;
        done = serve(mmds, &request, now_us, &reply);
    } else {
        reply.close = true;
        done = broken ? refuse(&reply, 400, "This is not HTTP.") : refuse(&reply, 413, "The request is too long.");
        used = length;
    }
    if (done)
        answer_write(answer, &reply);
    else
        *answer = (struct mmds_answer){.close = true};
    free(reply.body);
    return used > 0 ? used : length;
}
