#include "api/schema.h"

#include "vmm/config.h"

#include <stdlib.h>
#include <string.h>

/* The value of `field` in the struct at `object`. */
static char *value_at(const void *object, const struct field *field)
{
    return (char *)object + field->offset;
}

const struct schema *field_object(const struct field *field)
{
    bool holds_objects = field->type == FIELD_OBJECT || field->type == FIELD_ARRAY || field->type == FIELD_HEAP_ARRAY;

    return holds_objects ? field->object : NULL;
}

static uint64_t integer_at(const void *object, const struct field *field)
{
    const char *value = value_at(object, field);
    uint32_t narrow;
    uint64_t wide;

    if (field->size == sizeof(narrow)) {
        memcpy(&narrow, value, sizeof(narrow));
        return narrow;
    }
    memcpy(&wide, value, sizeof(wide));
    return wide;
}

void schema_defaults(const struct schema *schema, void *object)
{
    memset(object, 0, schema->size);
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct field *field = &schema->fields[i];

        if (field->type == FIELD_OBJECT)
            schema_defaults(field->object, value_at(object, field));
        else if (field->initial != 0) /* little-endian: the low bytes are the value whatever its size */
            memcpy(value_at(object, field), &(uint64_t){field->initial}, field->size);
    }
}

static size_t array_count(const void *object, const struct field *field)
{
    size_t count;

    memcpy(&count, (const char *)object + field->count, sizeof(count));
    return count;
}

static char *array_items(const void *object, const struct field *field)
{
    char *items;

    if (field->type == FIELD_ARRAY)
        return value_at(object, field);
    memcpy(&items, value_at(object, field), sizeof(items));
    return items;
}

static void free_array(void *object, const struct field *field)
{
    char *items = array_items(object, field);

    for (size_t i = 0; i < array_count(object, field); i++)
        schema_free(field->object, items + i * field->object->size);
    if (field->type == FIELD_HEAP_ARRAY)
        free(items);
}

static void free_field(void *object, const struct field *field)
{
    char *text;

    switch (field->type) {
    case FIELD_STRING:
    case FIELD_WORD:
        memcpy(&text, value_at(object, field), sizeof(text));
        free(text);
        break;
    case FIELD_STRING_MAP:
        string_map_free((struct string_map *)(void *)value_at(object, field));
        break;
    case FIELD_STRING_LIST:
        string_list_free((struct string_list *)(void *)value_at(object, field));
        break;
    case FIELD_OBJECT:
        schema_free(field->object, value_at(object, field));
        break;
    case FIELD_ARRAY:
    case FIELD_HEAP_ARRAY:
        free_array(object, field);
        break;
    case FIELD_BOOL:
    case FIELD_INTEGER:
    case FIELD_ENUM:
    case FIELD_UNSUPPORTED:
        break;
    }
}

void schema_free(const struct schema *schema, void *object)
{
    for (size_t i = 0; i < schema->field_count; i++)
        free_field(object, &schema->fields[i]);
    memset(object, 0, schema->size);
}

static void encode_string(const void *object, const struct field *field, struct json_writer *writer)
{
    const char *text;

    memcpy(&text, value_at(object, field), sizeof(text));
    if (text != NULL)
        json_string(writer, text);
    else if (field->flags & FIELD_REQUIRED)
        json_string(writer, "");
    else
        json_null(writer);
}

static void encode_map(const void *object, const struct field *field, struct json_writer *writer)
{
    const struct string_map *map = (const void *)value_at(object, field);

    json_open_object(writer);
    for (size_t i = 0; i < map->count; i++) {
        json_string(writer, map->pairs[i].name);
        json_string(writer, map->pairs[i].value);
    }
    json_close_object(writer);
}

static void encode_list(const void *object, const struct field *field, struct json_writer *writer)
{
    const struct string_list *list = (const void *)value_at(object, field);

    json_open_array(writer);
    for (size_t i = 0; i < list->count; i++)
        json_string(writer, list->items[i]);
    json_close_array(writer);
}

static bool object_is_given(const void *object, const struct field *field)
{
    const struct schema *nested = field->object;

    if (field->flags & FIELD_SHOW_ALWAYS)
        return true;
    if (field->presence != 0 && !*((const bool *)object + field->presence - 1))
        return false;
    return nested->is_empty == NULL || !nested->is_empty(value_at(object, field));
}

static void encode_array(const void *object, const struct field *field, struct json_writer *writer)
{
    const char *items = array_items(object, field);

    json_open_array(writer);
    for (size_t i = 0; i < array_count(object, field); i++)
        schema_encode(field->object, items + i * field->object->size, writer);
    json_close_array(writer);
}

static void encode_field(const void *object, const struct field *field, struct json_writer *writer)
{
    if (field->flags & FIELD_SHOW_NULL) {
        json_null(writer);
        return;
    }
    if (field->presence != 0 && field->type != FIELD_OBJECT && !*((const bool *)object + field->presence - 1)) {
        json_null(writer);
        return;
    }
    switch (field->type) {
    case FIELD_BOOL:
        json_bool(writer, *(const bool *)value_at(object, field));
        break;
    case FIELD_INTEGER:
        if ((field->flags & FIELD_ZERO_NULL) && integer_at(object, field) == 0)
            json_null(writer);
        else
            json_integer(writer, integer_at(object, field));
        break;
    case FIELD_ENUM:
        json_string(writer, field->names[integer_at(object, field)]);
        break;
    case FIELD_STRING:
    case FIELD_WORD:
        encode_string(object, field, writer);
        break;
    case FIELD_STRING_MAP:
        encode_map(object, field, writer);
        break;
    case FIELD_STRING_LIST:
        encode_list(object, field, writer);
        break;
    case FIELD_OBJECT:
        if (object_is_given(object, field))
            schema_encode(field->object, value_at(object, field), writer);
        else
            json_null(writer);
        break;
    case FIELD_ARRAY:
    case FIELD_HEAP_ARRAY:
        encode_array(object, field, writer);
        break;
    case FIELD_UNSUPPORTED:
        if (field->flags & FIELD_LIST) {
            json_open_array(writer);
            json_close_array(writer);
        } else {
            json_null(writer);
        }
        break;
    }
}

/* What only callers who gave it are to see. */
static bool is_omitted(const void *object, const struct field *field)
{
    const char *text;

    if (field->flags & FIELD_HIDDEN)
        return true;
    if ((field->flags & FIELD_OMIT) == 0)
        return false;
    if (field->type == FIELD_OBJECT)
        return !object_is_given(object, field);
    if (field->type == FIELD_ENUM)
        return integer_at(object, field) == field->initial;
    if (field->type == FIELD_INTEGER)
        return !*((const bool *)object + field->presence - 1);
    memcpy(&text, value_at(object, field), sizeof(text));
    return text == NULL;
}

void schema_encode(const struct schema *schema, const void *object, struct json_writer *writer)
{
    json_open_object(writer);
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct field *field = &schema->fields[i];

        if (is_omitted(object, field))
            continue;
        json_string(writer, field->name);
        encode_field(object, field, writer);
    }
    json_close_object(writer);
}

const char *schema_identity(const struct schema *schema, const void *object)
{
    const char *text;

    for (size_t i = 0; i < schema->field_count; i++) {
        if (schema->fields[i].flags & FIELD_IDENTIFIES) {
            memcpy(&text, value_at(object, &schema->fields[i]), sizeof(text));
            return text;
        }
    }
    return NULL;
}

const char *schema_deprecated(const struct schema *schema, const void *object, schema_given given)
{
    for (size_t i = 0; i < schema->field_count; i++)
        if ((schema->fields[i].flags & FIELD_DEPRECATED) && (given >> i & 1))
            return schema->fields[i].name;
    return schema->deprecated == NULL ? NULL : schema->deprecated(object);
}
