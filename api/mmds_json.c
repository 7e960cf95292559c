#include "api/mmds_json.h"

#include "api/bytes.h"
#include "vmm/base/cleanup.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_SIZE_MAX = 4 << 20 };

struct builder {
    struct mmds_value *open[MMDS_DEPTH_MAX]; /* each is in the one before it, but for the first */
    size_t depth;
    struct mmds_value *root;
    struct mmds_text name; /* of the member that comes next, owned */
    struct error *error;
};

static int out_of_memory(struct builder *builder)
{
    builder->error = error_new(ERROR_INTERNAL, "out of memory");
    return 0;
}

static int add(struct builder *builder, enum mmds_type type, const char *text, size_t length)
{
    struct mmds_value *value;
    bool added;

    if (builder->depth == 0 && type != MMDS_OBJECT) {
        builder->error = error_new(ERROR_INPUT, "the metadata is no JSON object, expected one");
        return 0;
    }
    if (builder->depth == MMDS_DEPTH_MAX && (type == MMDS_OBJECT || type == MMDS_ARRAY)) {
        builder->error = error_new(ERROR_INPUT, "the metadata is deeper than %d objects and arrays", MMDS_DEPTH_MAX);
        return 0;
    }
    value = mmds_value_new(type, text, length);
    if (value == NULL)
        return out_of_memory(builder);
    if (builder->depth == 0) {
        builder->root = value;
        added = true;
    } else if (builder->open[builder->depth - 1]->type == MMDS_OBJECT) {
        added = mmds_object_set(builder->open[builder->depth - 1], builder->name.bytes, builder->name.length, value);
    } else {
        added = mmds_array_add(builder->open[builder->depth - 1], value);
    }
    if (!added)
        return out_of_memory(builder);
    if (type == MMDS_OBJECT || type == MMDS_ARRAY)
        builder->open[builder->depth++] = value;
    return 1;
}

static int take_null(void *context)
{
    return add(context, MMDS_NULL, NULL, 0);
}

static int take_bool(void *context, int value)
{
    return add(context, value ? MMDS_TRUE : MMDS_FALSE, NULL, 0);
}

static int take_number(void *context, const char *text, size_t length)
{
    return add(context, MMDS_NUMBER, text, length);
}

static int check_utf8(struct builder *builder, const char *text, size_t length)
{
    if (json_is_utf8(text, length))
        return 1;
    builder->error = error_new(ERROR_INPUT, "the metadata has a string that is not UTF-8");
    return 0;
}

static int take_string(void *context, const unsigned char *bytes, size_t length)
{
    const char *text = (const char *)bytes;

    return check_utf8(context, text, length) ? add(context, MMDS_STRING, text, length) : 0;
}

static int take_name(void *context, const unsigned char *bytes, size_t length)
{
    struct builder *builder = context;
    char *copy;

    if (!check_utf8(builder, (const char *)bytes, length))
        return 0;
    copy = malloc(length + 1);
    if (copy == NULL)
        return out_of_memory(builder);
    memcpy(copy, bytes, length);
    free(builder->name.bytes);
    builder->name = (struct mmds_text){copy, length};
    return 1;
}

static int open_object(void *context)
{
    return add(context, MMDS_OBJECT, NULL, 0);
}

static int open_array(void *context)
{
    return add(context, MMDS_ARRAY, NULL, 0);
}

static int close_last(void *context)
{
    struct builder *builder = context;

    builder->depth--;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = take_null,
    .yajl_boolean = take_bool,
    .yajl_number = take_number,
    .yajl_string = take_string,
    .yajl_start_map = open_object,
    .yajl_map_key = take_name,
    .yajl_end_map = close_last,
    .yajl_start_array = open_array,
    .yajl_end_array = close_last,
};

struct error *mmds_json_decode(const char *text, size_t length, struct mmds_value **value)
{
    struct builder builder = {.depth = 0};
    struct error *error = json_parse(&callbacks, &builder, text, length);

    if (builder.error == NULL)
        builder.error = error;
    else
        error_free(error);
    free(builder.name.bytes);
    if (builder.error == NULL && builder.root == NULL)
        builder.error = error_new(ERROR_INPUT, "empty, expected a JSON object");
    if (builder.error != NULL)
        mmds_value_free(builder.root);
    else
        *value = builder.root;
    return builder.error;
}

void mmds_json_encode(const struct mmds_value *value, struct json_writer *writer)
{
    size_t length = mmds_value_json(value, NULL);
    cleanup_free char *text = malloc(length + 1);

    if (text != NULL)
        mmds_value_json(value, text);
    json_raw(writer, text, length);
}

struct error *mmds_json_apply_file(const char *path, struct machine *machine)
{
    struct bytes text = {0};
    struct mmds_value *value = NULL;
    struct error *error = bytes_read_file(&text, path, FILE_SIZE_MAX);

    if (error == NULL)
        error = mmds_json_decode(text.data, text.length, &value);
    if (error == NULL)
        error = machine_put_mmds(machine, value);
    if (error != NULL)
        mmds_value_free(value);
    bytes_free(&text);
    return error;
}
