#include "api/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>

/* The generator's own buffer would begin with 2 KiB: most of our texts are a line. */
static void print(void *context, const char *text, size_t length)
{
    struct json_writer *writer = context;

    if (!bytes_append(&writer->text, text, length))
        writer->failed = true;
}

void json_writer_init(struct json_writer *writer)
{
    *writer = (struct json_writer){.generator = yajl_gen_alloc(NULL)};
    writer->failed = writer->generator == NULL;
    if (!writer->failed)
        yajl_gen_config(writer->generator, yajl_gen_print_callback, print, writer);
}

void json_writer_free(struct json_writer *writer)
{
    if (writer->generator != NULL)
        yajl_gen_free(writer->generator);
    bytes_free(&writer->text);
    writer->generator = NULL;
}

static void note(struct json_writer *writer, yajl_gen_status status)
{
    if (status != yajl_gen_status_ok)
        writer->failed = true;
}

void json_open_object(struct json_writer *writer)
{
    if (!writer->failed)
        note(writer, yajl_gen_map_open(writer->generator));
}

void json_close_object(struct json_writer *writer)
{
    if (!writer->failed)
        note(writer, yajl_gen_map_close(writer->generator));
}

void json_open_array(struct json_writer *writer)
{
    if (!writer->failed)
        note(writer, yajl_gen_array_open(writer->generator));
}

void json_close_array(struct json_writer *writer)
{
    if (!writer->failed)
        note(writer, yajl_gen_array_close(writer->generator));
}

void json_null(struct json_writer *writer)
{
    if (!writer->failed)
        note(writer, yajl_gen_null(writer->generator));
}

void json_bool(struct json_writer *writer, bool value)
{
    if (!writer->failed)
        note(writer, yajl_gen_bool(writer->generator, value));
}

/* yajl_gen_integer is signed. */
void json_integer(struct json_writer *writer, uint64_t value)
{
    char digits[24];

    int length = snprintf(digits, sizeof(digits), "%" PRIu64, value);
    if (!writer->failed)
        note(writer, yajl_gen_number(writer->generator, digits, (size_t)length));
}

/* A number is what yajl writes as it is given. */
void json_raw(struct json_writer *writer, const char *text, size_t length)
{
    if (text == NULL)
        writer->failed = true;
    else if (!writer->failed)
        note(writer, yajl_gen_number(writer->generator, text, length));
}

static void write_masked(struct json_writer *writer, const char *value, size_t length)
{
    char *copy = malloc(length);

    if (copy == NULL) {
        writer->failed = true;
        return;
    }
    for (size_t i = 0; i < length; i++)
        copy[i] = (unsigned char)value[i] < 0x80 ? value[i] : '?';
    note(writer, yajl_gen_string(writer->generator, (const unsigned char *)copy, length));
    free(copy);
}

void json_string(struct json_writer *writer, const char *value)
{
    size_t length = strlen(value);

    if (writer->failed)
        return;
    if (json_is_utf8(value, length))
        note(writer, yajl_gen_string(writer->generator, (const unsigned char *)value, length));
    else
        write_masked(writer, value, length);
}

const char *json_text(struct json_writer *writer, size_t *length)
{
    *length = writer->text.length;
    return writer->failed ? NULL : writer->text.data;
}

/* Unicode 15, table 3-7: the second byte's range is what excludes overlong forms, surrogates and the too large. */
static size_t utf8_length(const unsigned char *text, size_t left)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t length;

    if (text[0] < 0x80)
        return 1;
    if (text[0] >= 0xc2 && text[0] <= 0xdf)
        length = 2;
    else if (text[0] >= 0xe0 && text[0] <= 0xef)
        length = 3;
    else if (text[0] >= 0xf0 && text[0] <= 0xf4)
        length = 4;
    else
        return 0;
    if (left < length)
        return 0;
    if (text[0] == 0xe0)
        low = 0xa0;
    else if (text[0] == 0xed)
        high = 0x9f;
    else if (text[0] == 0xf0)
        low = 0x90;
    else if (text[0] == 0xf4)
        high = 0x8f;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

bool json_is_utf8(const char *text, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)text;

    for (size_t used, i = 0; i < length; i += used) {
        used = utf8_length(bytes + i, length - i);
        if (used == 0)
            return false;
    }
    return true;
}

/* What is wrong at byte `at`. yajl's message ends with a newline, and some with a full stop before. */
static struct error *not_json(yajl_handle handle, size_t at)
{
    unsigned char *message = yajl_get_error(handle, 0, NULL, 0);
    struct error *error;
    size_t length;

    if (message == NULL)
        return error_new(ERROR_INTERNAL, "out of memory");
    length = strcspn((const char *)message, "\n");
    if (length > 0 && message[length - 1] == '.')
        length--;
    error = error_new(ERROR_INPUT, "not JSON: %.*s, at byte %zu", (int)length, message, at);
    yajl_free_error(handle, message);
    return error;
}

struct error *json_parse(const yajl_callbacks *callbacks, void *context, const char *text, size_t length)
{
    yajl_handle handle = yajl_alloc(callbacks, NULL, context);
    struct error *error = NULL;

    if (handle == NULL)
        return error_new(ERROR_INTERNAL, "out of memory");

    yajl_status status = yajl_parse(handle, (const unsigned char *)text, length);
    size_t at = yajl_get_bytes_consumed(handle);
    if (status == yajl_status_ok) {
        status = yajl_complete_parse(handle); /* which counts from its own beginning */
        at = length;
    }
    if (status == yajl_status_error)
        error = not_json(handle, at);
    yajl_free(handle);
    return error;
}
