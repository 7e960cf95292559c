#include "api/client/body.h"

#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>

struct body {
    yajl_gen gen;
    bool failed;
};

static void note(struct body *body, yajl_gen_status status)
{
    if (status != yajl_gen_status_ok)
        body->failed = true;
}

struct body *body_new(void)
{
    struct body *body = calloc(1, sizeof(*body));

    if (body == NULL)
        abort();
    body->gen = yajl_gen_alloc(NULL);
    if (body->gen == NULL)
        abort();
    yajl_gen_config(body->gen, yajl_gen_validate_utf8, 1);
    note(body, yajl_gen_map_open(body->gen));
    return body;
}

void body_free(struct body *body)
{
    if (body != NULL)
        yajl_gen_free(body->gen);
    free(body);
}

static void text(struct body *body, const char *value)
{
    note(body, yajl_gen_string(body->gen, (const unsigned char *)value, strlen(value)));
}

static void name_member(struct body *body, const char *name)
{
    if (name != NULL)
        text(body, name);
}

void body_string(struct body *body, const char *name, const char *value)
{
    if (value == NULL)
        return;
    name_member(body, name);
    text(body, value);
}

void body_integer(struct body *body, const char *name, uint64_t value)
{
    name_member(body, name);
    note(body, yajl_gen_integer(body->gen, (long long)value));
}

void body_boolean(struct body *body, const char *name, bool value)
{
    name_member(body, name);
    note(body, yajl_gen_bool(body->gen, value));
}

void body_open_object(struct body *body, const char *name)
{
    name_member(body, name);
    note(body, yajl_gen_map_open(body->gen));
}

void body_close_object(struct body *body)
{
    note(body, yajl_gen_map_close(body->gen));
}

void body_open_array(struct body *body, const char *name)
{
    name_member(body, name);
    note(body, yajl_gen_array_open(body->gen));
}

void body_close_array(struct body *body)
{
    note(body, yajl_gen_array_close(body->gen));
}

const char *body_text(struct body *body, size_t *length)
{
    const unsigned char *written;

    note(body, yajl_gen_map_close(body->gen));
    note(body, yajl_gen_get_buf(body->gen, &written, length));
    return body->failed ? NULL : (const char *)written;
}
